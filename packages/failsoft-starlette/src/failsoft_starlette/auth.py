"""Who is logged in, in words that every framework understands: log in on one, be the same user on the others.

The session holds a *principal*: the user's identifier as text, when they logged in, and how. `login`, `logout` and `principal` set and read
it. `SessionBackend` makes it the ``request.user`` of Starlette's AuthenticationMiddleware, which is to stand inside of failsoft::

    app = Starlette(
        routes=[...],
        middleware=[
            Middleware(FailsoftMiddleware, sessions=True, secret=..., store="redis://..."),
            Middleware(AuthenticationMiddleware, backend=SessionBackend(load_user)),
        ],
    )

In FastAPI a dependency does without it; one that asks for an `HTTPConnection` serves requests and WebSockets::

    async def current_user(connection: HTTPConnection) -> User:
        who = principal(connection)
        user = None if who is None else await users.get(who.subject)
        if user is None:
            raise HTTPException(401)
        return user

    @app.post("/login")
    async def log_in(request: Request, form: Annotated[LoginForm, Form()]) -> None:
        user = await users.check(form.name, form.password)
        login(request, str(user.id), methods=["pwd"])

    @app.get("/me")
    async def me(user: Annotated[User, Depends(current_user)]) -> User:
        return user

All of it needs the setting ``sessions``. While the store is away, a login raises `SessionUnavailable`, which answers with 503; a logout
deletes the browser's cookies, answers 202 in place of 200, and is made up for when the store is back; and the principal is read from the
snapshot, where there is one.
"""

from collections.abc import Awaitable, Callable, Iterable
from inspect import isawaitable, iscoroutinefunction
from typing import TYPE_CHECKING, Any

from starlette.authentication import AuthCredentials, AuthenticationBackend
from starlette.concurrency import run_in_threadpool
from starlette.requests import HTTPConnection

from failsoft.errors import ConfigurationError

if TYPE_CHECKING:
    from failsoft.sessions.record import Principal
    from failsoft_starlette.sessions import StarletteSession

__all__ = ["SessionBackend", "login", "logout", "principal"]


def login(request: HTTPConnection, subject: str, methods: Iterable[str] = ()) -> None:
    """Say who the user is from now on, in every framework, and give the session another id (OWASP: against fixation).

    What an anonymous session holds stays. The session of another user is ended, and the new one gets one of their own.

    Args:
        request: the request, or the WebSocket before it is accepted.
        subject: the user's identifier, as text; the same in every framework.
        methods: how they proved who they are (RFC 8176: ``"pwd"``, ``"otp"``...).

    Raises:
        SessionUnavailable: the store is away.
        OutsideRequest: the response has begun.
        ConfigurationError: the application has no sessions of failsoft's.
    """
    _session(request).login(subject, methods)


def logout(request: HTTPConnection) -> None:
    """End the session, for every framework and every tab of the browser. What is written afterwards begins a new one.

    While the store is away, the browser's cookies are deleted all the same, and a sealed ticket makes up for it later.

    Args:
        request: the request, or the WebSocket.

    Raises:
        OutsideRequest: the response has begun.
        ConfigurationError: the application has no sessions of failsoft's.
    """
    _session(request).logout()


def principal(request: HTTPConnection) -> "Principal | None":
    """Who is logged in, whichever framework they logged in on; None for nobody.

    Args:
        request: the request, or the WebSocket.

    Raises:
        SessionUnavailable: the store is away, there is no snapshot, and the setting ``session_on_outage`` is ``"refuse"``.
        ConfigurationError: the application has no sessions of failsoft's.
    """
    return _session(request).principal


def _session(request: HTTPConnection) -> "StarletteSession":
    session: Any = request.scope.get("session")
    if not hasattr(type(session), "known_subject"):
        found = (
            "there is none" if session is None else f"another middleware put a {type(session).__name__} in its place"
        )
        raise ConfigurationError(
            f"the request has no session of failsoft's: {found}. Turn the setting sessions on, and remove other SessionMiddleware"
        )
    ours: StarletteSession = session
    return ours


class SessionBackend(AuthenticationBackend):
    """For Starlette's AuthenticationMiddleware: ``request.user`` is whoever the session says is logged in.

    Limits by user count the principal's subject. So that those which learn it from ``request.user`` count the same, let the user's
    ``identity`` be the subject, if it has one.

    Args:
        load_user: given the `Principal`, returns the user; None for one that there is no more, who counts as nobody. It may be async;
            else it is called in a thread. It may return credentials and the user in a tuple; credentials are otherwise the scope
            ``"authenticated"``.
    """

    def __init__(self, load_user: "Callable[[Principal], Any | Awaitable[Any]]") -> None:
        self._load_user = load_user
        self._waits = not iscoroutinefunction(load_user) and not iscoroutinefunction(
            getattr(load_user, "__call__", None)  # noqa: B004 - whether it is async, not whether it can be called
        )

    async def authenticate(self, conn: HTTPConnection) -> tuple[AuthCredentials, Any] | None:
        """Starlette calls it for each request. Raises what `principal` raises."""
        who = principal(conn)
        if who is None:
            return None
        found = await run_in_threadpool(self._load_user, who) if self._waits else self._load_user(who)
        if isawaitable(found):  # a plain function may return a coroutine
            found = await found
        if found is None:
            return None
        if isinstance(found, tuple):
            credentials, user = found
            return credentials, user
        return AuthCredentials(["authenticated"]), found
