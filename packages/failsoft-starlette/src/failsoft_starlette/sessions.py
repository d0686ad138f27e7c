"""`request.session`: the session in the store, as users of Starlette know it.

Rules:

- It is a mapping that is never awaited: whatever it takes to know the session was asked before the application is called. It is no
  dict. A dict that is filled from elsewhere looks empty to code that reads dicts from below (``json.dumps`` for one); a mapping does not.
- Keys that begin with an underscore are this framework's own; all others are shared with Flask and Django.
- What was changed is written when the response begins, in one flight. `save` writes at once. Whoever writes waits for the others.
- Once the response has begun no cookie can reach the browser any more, and nobody writes what is changed then. So to change it is an
  error. What changes inside of a value cannot be seen at that moment; it is found when the request is over, and logged as lost. After a
  response that was no stream that is looked for in debug mode only: few do anything then, and all would pay as much for it as for saving.
- A WebSocket's session is written when the socket is accepted. It may be changed after that, and is then written by `save`, at the
  latest when the socket's endpoint returns; but what needs a cookie (to begin a session, to log in, to rotate) must come before. So does
  a logout while the store is away: over an open socket `save` raises, for no ticket reaches the browser, and may be tried again.
- The browser keeps the cookie until the session ends, unless a Flask view has said of the session that it is not permanent.
"""

import logging
from asyncio import Lock
from collections.abc import Iterable, Mapping
from typing import Any, ClassVar, Final

from failsoft.errors import OutsideRequest, Rejected, SessionTooLarge, SessionValueError
from failsoft.exchange import Exchange
from failsoft.runtime import Runtime
from failsoft.sessions.record import stored_name
from failsoft.sessions.service import Sessions
from failsoft.sessions.session import Session
from failsoft.sessions.state import NEW, UNKNOWN, unavailable
from failsoft.sessions.view import SessionView

__all__ = ["NAMESPACE", "SocketSession", "StarletteSession", "open_session"]

_log = logging.getLogger("failsoft.starlette")

NAMESPACE: Final = "starlette"
"""Before the framework's own keys, in the store. FastAPI's are the same."""

_PERMANENT: Final = stored_name("_permanent", "flask")


def _persists(session: Session) -> bool:
    """Whether the browser is to keep the cookie when it is closed: unless a Flask or a Django view has said otherwise."""
    kept = session.kept
    return session.peek(_PERMANENT) is not False if kept is None else kept


class StarletteSession(SessionView):
    """What ``request.session`` is: a mapping of text to what JSON can say, and dates, decimals, UUIDs, bytes, tuples and sets.

    While the store is away, reading raises `SessionUnavailable`, which answers the request with 503, or finds nothing, by the setting
    ``session_on_outage``; a snapshot can be read. Writing raises `SessionUnavailable` in any case.

    Args:
        session: the request's.

    Attributes:
        failed: whether the request has failed; what is not written by then will not be.
    """

    opens_socket: ClassVar[bool] = False

    __slots__ = ("_closed", "_cookies", "_lock", "failed")

    def __init__(self, session: Session) -> None:
        self.session = session
        session.persists = _persists
        self.namespace = NAMESPACE
        self._cookies: list[str] = []
        self._lock: Lock | None = None
        self._closed = self.failed = False

    # As Starlette's own

    def mark_accessed(self) -> None:
        """Somebody looks at the session: the response varies with the cookie. Starlette calls it."""
        self.session.accessed = True

    def mark_modified(self) -> None:
        """What Starlette asks for after a change inside of a value. Here such changes are found by themselves."""
        self.session.accessed = self.session.modified = True

    def copy(self) -> dict[str, Any]:
        """All of it, as a dict of its own."""
        return dict(self)

    def __or__(self, other: Mapping[str, Any]) -> dict[str, Any]:
        return dict(self) | dict(other)

    def __ror__(self, other: Mapping[str, Any]) -> dict[str, Any]:
        return dict(other) | dict(self)

    def __ior__(self, other: Any) -> "StarletteSession":  # type: ignore[misc]  # as of a dict: what is made of both is a dict
        self.update(other)
        return self

    # Changing

    def __setitem__(self, key: str, value: Any) -> None:
        self._changeable(f"set {key!r}")
        super().__setitem__(key, value)

    def __delitem__(self, key: str) -> None:
        self._changeable(f"delete {key!r}")
        super().__delitem__(key)

    def login(self, subject: str, methods: Iterable[str] = ()) -> None:
        """Say who the user is, and give the session another id. See `Session.login`. Raises `OutsideRequest` when it is too late."""
        self._open("log in")
        super().login(subject, methods)

    def rotate(self, *, strict: bool = False) -> None:
        """Give the session another id. See `Session.rotate`. Raises `OutsideRequest` when it is too late."""
        self._open("rotate the session's id")
        super().rotate(strict=strict)

    def logout(self) -> None:
        """End the session, for every framework. See `Session.logout`. Raises `OutsideRequest` when it is too late."""
        if not self._takes_more:
            self._open("log out")
        super().logout()

    @property
    def begun(self) -> bool:
        """Whether the response has begun, or the socket is open: no cookie will reach the browser."""
        exchange = self.session.exchange
        return self._closed or (exchange is not None and exchange.settled)

    @property
    def _takes_more(self) -> bool:
        """Whether it is an open socket's, which may change what is stored until it ends."""
        return self.opens_socket and not self._closed

    def _open(self, what: str) -> None:
        if self.begun:
            raise OutsideRequest(
                f"it is too late to {what}: the response has begun, or the socket was accepted; its cookies are on their way. Do it before"
            )

    def _changeable(self, what: str) -> None:
        if self.begun and not (self._takes_more and self.session.state is not NEW):
            self._open(f"{what} in the session")

    async def save(self) -> None:
        """Write now what was changed, instead of with the response; its cookies go out with the response all the same.

        From a plain function in Starlette's thread pool it is called as ``anyio.from_thread.run(request.session.save)``.

        Raises:
            SessionUnavailable: the store did not take it. Over an open socket that is so for a logout, too.
            SessionConflict: the session ended meanwhile, or was renewed for another user, or twice.
            SessionTooLarge: a value that was changed inside is too large now.
            SessionValueError: or it is of a kind that cannot be stored.
        """
        session = self.session
        lock = await self._alone()
        try:
            ended, exchange = list(session.ended), session.exchange
            cookies = await session.service.asave(session)
        finally:
            lock.release()
        ticket = session.service.ticket_style.full_name
        if ended and exchange is not None and exchange.settled and ticket in map(_name_of, cookies):
            session.ended = [*ended, *session.ended]  # for another try
            raise unavailable("The session was not ended: its store cannot be reached, and no cookie can say so later.")
        self._cookies += cookies

    # For the middleware

    async def settle(
        self, runtime: Runtime, exchange: Exchange, status: int, *, cookies: bool = True
    ) -> list[tuple[str, str]]:
        """Settle the request, when a `save` that is under way is done. Returns the response's header fields.

        Args:
            runtime: the application's.
            exchange: the request.
            status: the response's.
            cookies: whether the response can bring cookies. Else what needs one is not written: nobody would know the new id.
        """
        session = self.session
        if self._lock is None and not session.modified and not self.failed:
            return self._with_owed(await runtime.afinish(exchange, status))
        lock = await self._alone()
        try:
            if self.failed:
                session.discard()
            elif not cookies and (session.state is NEW or session.rotation_pending):
                session.lose()
            fields = await runtime.afinish(exchange, status)
        finally:
            lock.release()
        if not cookies and exchange.accepted:
            _log.error(
                "a logout is lost: the store is away, and the socket was closed without a response that brings cookies"
            )
        return self._with_owed(fields)

    async def _alone(self) -> Lock:
        """Wait until nobody writes the session: what two tasks of one request begin must not become two sessions."""
        lock = self._lock = self._lock or Lock()
        await lock.acquire()
        return lock

    @property
    def owes(self) -> bool:
        """Whether the browser must be told of what was written before the response."""
        exchange = self.session.exchange
        if exchange is None or exchange.settled:
            return False
        return bool(self._cookies or self.session.service.saving_of(exchange, self.session).cookies)

    def known_subject(self) -> str | None:
        """Who is logged in, where that is known without asking."""
        session = self.session
        principal = None if session.state in UNKNOWN else session.login_pending or session.principal_known
        return None if principal is None else principal.subject

    async def load_subject(self) -> None:
        """Ask who is logged in, unless the seal says that it is nobody."""
        seal = self.session.companion
        if seal is None or seal.subject is not None:
            await self.finish_loading()

    async def finish_loading(self) -> None:
        """Ask for what the request's flight did not bring."""
        if self.session.state in UNKNOWN:
            await self.session.service.aload(self.session)

    def _with_owed(self, fields: list[tuple[str, str]]) -> list[tuple[str, str]]:
        """The response's header fields, with the cookies of what was saved before it. Of several of one name the last one stands."""
        if not self._cookies:
            return fields
        latest = {_name_of(value) for name, value in fields if name == "Set-Cookie"}
        cookies = {_name_of(cookie): cookie for cookie in self._cookies}
        earlier = [("Set-Cookie", cookie) for name, cookie in cookies.items() if name not in latest]
        if all(name != "Cache-Control" for name, _ in fields):
            earlier.insert(0, ("Cache-Control", "private"))
        return [*earlier, *fields]

    def lost(self, *, debug: bool = False) -> bool:
        """Whether something was changed that nobody is going to write, now that the request is over, or the socket is.

        Args:
            debug: whether to look inside of values after any response.
        """
        session = self.session
        exchange = session.exchange
        if not session.accessed or exchange is None or not exchange.settled or exchange.unsaved is not None:
            return False
        return session.unwritten(inside=self.opens_socket or exchange.streamed or debug)

    async def end(self) -> None:
        """Write what a socket has changed and is `lost` otherwise; what cannot be written is logged."""
        reason: object = "it was changed inside of a value, after the response had begun"
        if self.opens_socket:
            try:
                await self.save()
            except (Rejected, SessionValueError, SessionTooLarge) as error:
                reason = error
            else:
                return
        _log.error("what was changed in session %s is lost: %s", self.session.handle, reason)

    def close(self) -> None:
        """Nobody serves the request any more. What holds the session still can read it."""
        self._closed = True
        self.session.exchange = None  # which knows the scope, and that us: all would wait for the garbage collector


class SocketSession(StarletteSession):
    """What ``websocket.session`` is."""

    opens_socket: ClassVar[bool] = True

    __slots__ = ()


def open_session(sessions: Sessions, exchange: Exchange, cookies: str | None) -> StarletteSession:
    """The session of a request, which is going to be loaded with it.

    Args:
        sessions: the application's.
        exchange: the request.
        cookies: its Cookie field, or None.
    """
    session = sessions.open(cookies, exchange, eager=True)
    return SocketSession(session) if exchange.facts.opens_socket else StarletteSession(session)


def _name_of(cookie: str) -> str:
    return cookie.partition("=")[0]
