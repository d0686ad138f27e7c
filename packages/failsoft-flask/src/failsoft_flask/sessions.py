"""Flask's sessions, kept in the store: the interface that opens and saves them, and the mapping that views see.

Theory of operation. Flask opens a session before anything else of a request, so `open_session` only looks at the cookies. The session
joins the request's exchange as soon as there is one, and is loaded in the flight that limits make anyway, or at its first use. It is
saved when ``after_request`` functions are through: settling it then, with everything else that is to be written, leaves time to answer
otherwise if the store does not take it. A request that did not look at its session is settled when its response starts, as without
sessions.

Rules:

- What the store did not take is never acknowledged: the refusal takes the response's place, with the header fields that speak of
  the application rather than of the body. Neither is any other refusal an internal error, wherever the session was used: in a view, an
  ``after_request`` function, or the page that an error handler renders.
- When the session was settled, it is too late to write: that is `OutsideRequest`, in a streamed body as in a teardown function. What
  changes inside of a value by then is found when the stream is over, and logged as lost.
- A request that fails without a response (its error goes on to the server) writes nothing: nobody could tell the browser of a new id.
- A context that is no request is served at once: `session_transaction`, and `save_session` in a test request context.
- ``session.permanent = True`` lets the browser keep the cookie until the session ends; else it forgets it when it is closed. It is a wish
  about the cookie: alone it creates no session, and is no reason to refuse a request while the store is away.
- Flask's ``PERMANENT_SESSION_LIFETIME``, where it was set, is how long a permanent session lives unseen, from when it becomes
  permanent; `session_absolute` bounds it. ``SESSION_REFRESH_EACH_REQUEST`` has no meaning: the store renews sessions, the cookie stays.
- The cookie is what failsoft's settings say. ``SESSION_COOKIE_...`` that say otherwise are an error at start.
- `FlaskSession` knows Flask-Login's keys; see `failsoft_flask.auth`.
"""

import logging
from collections.abc import Callable, Iterable, Iterator, Mapping
from datetime import timedelta
from typing import Any, ClassVar, Final

from flask import Flask, Request, Response, has_request_context
from flask.ctx import RequestContext
from flask.sessions import SecureCookieSessionInterface, SessionInterface, SessionMixin

from failsoft.errors import ConfigurationError, OutsideRequest, Rejected, SessionTooLarge, SessionValueError
from failsoft.exchange import Exchange
from failsoft.exchange.policy import current
from failsoft.runtime import Runtime
from failsoft.sessions.record import Principal, stored_name
from failsoft.sessions.service import Sessions
from failsoft.sessions.session import Session, State
from failsoft.sessions.view import SessionView
from failsoft_flask import auth
from failsoft_flask.translate import FIELDS, VIEW, FlaskFacts, context_of_request, is_own, problem, replaced

__all__ = ["NAMESPACE", "FlaskSession", "FlaskSessions", "install"]

_log = logging.getLogger("failsoft.flask")

NAMESPACE: Final = "flask"
"""Before the framework's own keys, in the store."""

_LOGIN: Final = frozenset({"_user_id", "_fresh", "_id", "_remember"})
"""Keys of Flask-Login's that are not simply stored."""

_SYNTHESIZED: Final = ("_user_id", "_fresh", "_id")

_FLASKS_OWN: Final = timedelta(days=31)
"""What ``PERMANENT_SESSION_LIFETIME`` is where nobody set it."""


class FlaskSession(SessionView, SessionMixin):
    """What ``flask.session`` is.

    Values are what JSON can say, and dates, decimals, UUIDs, bytes, tuples, sets and Markup; changes inside of them are noticed. Keys that
    begin with an underscore, and those in `private`, are Flask's own; all others are shared with Django and Starlette.

    While the store is away, reading raises `SessionUnavailable`, which answers the request with 503, or finds nothing, by the setting
    ``session_on_outage``; a snapshot can be read. Writing raises `SessionUnavailable` in any case.

    Args:
        session: the request's.
        app: the application.
    """

    private: ClassVar[frozenset[str]] = frozenset({"csrf_token", "next"})
    """Flask-WTF's, and Flask-Login's."""

    __slots__ = ("_app", "_local", "_over", "_permanent")

    def __init__(self, session: Session, app: Flask) -> None:
        super().__init__(session, NAMESPACE)
        self._app = app
        self._local: dict[str, Any] = {}
        self._over = False
        self._permanent: bool | None = None

    # As Flask's own

    @property
    def new(self) -> bool:  # type: ignore[override]  # of the class there, of each session here
        """Whether nothing of it is stored yet."""
        return self.session.meta is None and not self.session.degraded

    @property
    def accessed(self) -> bool:
        """Whether anybody looked at the session in this request."""
        return self.session.accessed

    @accessed.setter
    def accessed(self, value: bool) -> None:
        # Flask sets it for every use of its proxy. What counts is whether the session was read, which it knows itself.
        pass

    @property
    def permanent(self) -> bool:
        """Whether the browser is to keep the cookie when it is closed."""
        return bool(self.get("_permanent", False)) if self._permanent is None else self._permanent

    @permanent.setter
    def permanent(self, value: bool) -> None:
        self._changeable("make it permanent")
        self._permanent = bool(value)

    # The mapping

    def __getitem__(self, key: str) -> Any:
        return self._login_key(key) if self._is_login(key) else super().__getitem__(key)

    def __setitem__(self, key: str, value: Any) -> None:
        self._changeable(f"set {key!r}")
        if not self._is_login(key):
            super().__setitem__(key, value)
        elif key == "_remember":  # said by one function to another in the same request
            self._local[key] = value
        elif key == "_user_id" and value is not None:
            self.login(str(value))
            if not isinstance(value, str):  # so that it comes back as it was
                super().__setitem__(key, value)
        elif key == "_fresh" and value is False and self.degraded:
            # It takes away, and is said again in each request that gives reason to.
            self._local[key] = value
        else:
            super().__setitem__(key, value)

    def __delitem__(self, key: str) -> None:
        self._changeable(f"delete {key!r}")
        if not self._is_login(key):
            super().__delitem__(key)
        elif key in self._local:
            del self._local[key]
        elif key == "_user_id" and self.principal is not None:
            self.logout()
        elif super().__contains__(key):
            super().__delitem__(key)
        elif key not in self:
            raise KeyError(key)

    def __contains__(self, key: object) -> bool:
        if not isinstance(key, str) or not self._is_login(key):
            return super().__contains__(key)
        try:
            self._login_key(key)
        except KeyError:
            return False
        return True

    def __iter__(self) -> Iterator[str]:
        stored = list(super().__iter__())
        return iter([*stored, *(key for key in self._synthesized() if key not in stored)])

    def clear(self) -> None:
        """Remove what Flask sees. That ends a login that was made here with Flask-Login; one made elsewhere stays."""
        self._changeable("clear it")
        self._local.clear()
        stored = list(super().__iter__())
        logged_in_here = "_id" in stored or self.session.peek(_FRESH) is True
        if logged_in_here and self._is_login("_id") and self.principal is not None:
            self.session.logout()
            return
        for key in stored:
            super().__delitem__(key)

    # Login and logout

    def login(self, subject: str, methods: Iterable[str] = ()) -> None:
        """Say who the user is, and give the session another id. See `Session.login`. Raises `OutsideRequest` when it is too late."""
        self._changeable("log in")
        super().login(subject, methods)
        for key in _SYNTHESIZED:  # of another login
            name = self.name_of(key)
            if name in self.session:
                self.session.remove(name)

    def rotate(self) -> None:
        """Give the session another id. See `Session.rotate`. Raises `OutsideRequest` when it is too late."""
        self._changeable("rotate its id")
        super().rotate()

    def logout(self) -> None:
        """End the session, for every framework; messages that were flashed and not seen yet go on in a new one.

        See `Session.logout`. Raises `OutsideRequest` when it is too late.
        """
        self._changeable("log out")
        self.session.service.load(self.session)
        flashes = self.get("_flashes") if self.session.state in (State.LIVE, State.NEW) else None
        super().logout()
        if flashes:
            self["_flashes"] = flashes

    def _is_login(self, key: object) -> bool:
        """Whether `key` is Flask-Login's, in an application that has it."""
        return key in _LOGIN and hasattr(self._app, "login_manager")

    def _login_key(self, key: str) -> Any:
        """One of Flask-Login's keys; for a login that was made elsewhere, what Flask-Login would have stored."""
        if key in self._local:
            return self._local[key]
        if key == "_remember":
            raise KeyError(key)
        principal = self.principal
        if principal is None:
            return super().__getitem__(key)
        try:
            stored = super().__getitem__(key)
        except KeyError:
            return self._synthetic(key, principal)
        return principal.subject if key == "_user_id" and str(stored) != principal.subject else stored

    def _synthetic(self, key: str, principal: Principal) -> Any:
        if key == "_user_id":
            return principal.subject
        if key == "_fresh":
            return True
        if not has_request_context():
            raise KeyError(key)
        manager: Any = self._app.login_manager  # type: ignore[attr-defined]  # Flask-Login puts it there
        return manager._session_identifier_generator()

    def _synthesized(self) -> tuple[str, ...]:
        if not self._is_login("_user_id") or self.principal is None:
            return ()
        return _SYNTHESIZED if has_request_context() else _SYNTHESIZED[:2]

    # For the extension

    def _changeable(self, what: str) -> None:
        exchange = self.session.exchange
        if self._over or (exchange is not None and exchange.settled):
            raise OutsideRequest(
                f"it is too late to change the session ({what}): it is saved after after_request functions, before the "
                "response starts. A streamed body, and what runs after the response, can only read it. Do it before"
            )

    def prepare(self) -> bool:
        """Make ready to be saved what is not yet. Returns whether anybody used the session, so that it has to be saved."""
        session, wish = self.session, self._permanent
        if wish is not None:
            session.service.load(session)
            if session.state is State.LIVE or (session.state is State.NEW and session.modified):
                self._make_permanent(wish)
        if session.state in (State.LIVE, State.NEW):
            # Not by reading, which would make every response vary with the cookie.
            session.persistent = session.peek(_PERMANENT) is True
        return session.accessed

    def _make_permanent(self, wish: bool) -> None:
        session = self.session
        if (session.peek(_PERMANENT) is True) == wish:
            return
        session.write(_PERMANENT, wish)
        lifetime = self._app.permanent_session_lifetime
        if lifetime != _FLASKS_OWN:
            session.set_idle(lifetime.total_seconds() if wish else None)
        session.reissue = True

    def end(self) -> None:
        """The request is over. What nobody is going to write is logged."""
        session = self.session
        exchange, session.exchange = session.exchange, None
        self._over = True
        if exchange is None or not exchange.settled or exchange.unsaved is not None or not session.accessed:
            return
        try:
            lost = session.state in (State.LIVE, State.NEW) and any(session.changes())
        except (SessionValueError, SessionTooLarge):
            lost = True
        if lost:
            _log.error(
                "what was changed in session %s is lost: it was changed inside of a value, after the session was saved",
                session.handle,
            )


_FRESH: Final = stored_name("_fresh", NAMESPACE)
_PERMANENT: Final = stored_name("_permanent", NAMESPACE)


class FlaskSessions(SessionInterface):
    """Opens and saves the sessions of one application.

    Args:
        sessions: where they come from.
    """

    session_class = FlaskSession

    def __init__(self, sessions: Sessions) -> None:
        self._sessions = sessions

    def open_session(self, app: Flask, request: Request) -> FlaskSession:
        """The session that the request's cookies lead to. Nothing is loaded yet."""
        return FlaskSession(self._sessions.open(request.environ.get("HTTP_COOKIE")), app)

    def save_session(self, app: Flask, session: SessionMixin, response: Response) -> None:
        """Save the session of a context that is no request, and put the cookies into `response`; a request's is saved later.

        Raises:
            SessionUnavailable: the store did not take it.
            SessionConflict: the session ended meanwhile.
        """
        if not isinstance(session, FlaskSession) or session.session.exchange is not None:
            return
        if session.prepare():
            for cookie in self._sessions.save(session.session):
                response.headers.add("Set-Cookie", cookie)
            response.vary.add("Cookie")


def install(app: Flask, runtime: Runtime, sessions: Sessions) -> Callable[[Exchange, RequestContext], None]:
    """Give `app` sessions. Returns what attaches a request's session to its exchange.

    Raises:
        ConfigurationError: the application has others, or its SESSION_COOKIE_... disagree with failsoft's settings.
    """
    if type(app.session_interface) is not SecureCookieSessionInterface:
        raise ConfigurationError(
            f"the setting sessions is on, and {app!r} has a session_interface of its own ({type(app.session_interface).__name__}): "
            "remove that extension, or turn sessions off"
        )
    _agree(app.config, sessions)
    app.session_interface = FlaskSessions(sessions)
    for key in ("_user_id", "_fresh", "_id", "_permanent"):
        sessions.snapshot_names.setdefault(stored_name(key, NAMESPACE))
    process_response, handle_exception = app.process_response, app.handle_exception
    prepared = False

    def attach(exchange: Exchange, context: RequestContext) -> None:
        nonlocal prepared
        if not prepared:
            prepared = True
            auth.follow_logouts(app)
            if not isinstance(app.session_interface, FlaskSessions):
                _log.warning(
                    "sessions are not failsoft's: %s replaced its session_interface",
                    type(app.session_interface).__name__,
                )
        view: Any = context.session
        if isinstance(view, FlaskSession):
            sessions.attach(exchange, view.session)
            exchange.memo[VIEW] = view
            if isinstance(exchange.facts, FlaskFacts):
                exchange.facts.session = view
            exchange.at_end(view.end)

    def process(response: Response) -> Response:
        try:
            response = process_response(response)
        except Rejected as rejected:  # an after_request function needs the session
            response = replaced(app, response, rejected)
        exchange = current()
        if exchange is None or exchange.settled or not is_own(exchange):
            return response
        view = exchange.memo.get(VIEW)
        if view is None or not view.prepare():
            return response
        exchange.memo[FIELDS] = ()
        exchange.memo[FIELDS] = runtime.finish(exchange, response.status_code)
        if exchange.unsaved is not None:
            return replaced(app, response, exchange.unsaved)
        if exchange.accepted and response.status_code in (200, 204):
            response.status_code = 202
        return response

    def handle(error: Exception) -> Response:
        """An error that no handler took; a refusal, where what a handler or a URL converter does needs the session."""
        if isinstance(error, Rejected):
            return app.finalize_request(problem(app, error, context_of_request().request), from_error_handler=True)
        return handle_exception(error)

    for name, wrapper in (("process_response", process), ("handle_exception", handle)):
        setattr(app, name, wrapper)
    return attach


def _agree(config: Mapping[str, Any], sessions: Sessions) -> None:
    """Refuse what would be said twice, and differently. Flask's defaults say nothing."""
    style = sessions.style
    samesite = config.get("SESSION_COOKIE_SAMESITE")
    said: list[tuple[str, Any, Any, str, tuple[Any, ...]]] = [
        ("NAME", config.get("SESSION_COOKIE_NAME"), "session", "session_cookie", (style.name, style.full_name)),
        ("DOMAIN", config.get("SESSION_COOKIE_DOMAIN"), None, "cookie_domain", (style.domain,)),
        ("PATH", config.get("SESSION_COOKIE_PATH"), None, "cookie_path", (style.path,)),
        ("HTTPONLY", config.get("SESSION_COOKIE_HTTPONLY"), True, "cookie_httponly", (style.httponly,)),
        ("SECURE", config.get("SESSION_COOKIE_SECURE"), False, "cookie_secure", (style.secure,)),
        ("SAMESITE", samesite and str(samesite).lower(), None, "cookie_samesite", (style.samesite,)),
        ("PARTITIONED", config.get("SESSION_COOKIE_PARTITIONED"), False, "cookie_partitioned", (style.partitioned,)),
    ]
    for name, value, default, setting, accepted in said:
        if value not in (None, default, *accepted):
            raise ConfigurationError(
                f"SESSION_COOKIE_{name}={value!r} in app.config disagrees with failsoft's {setting}={accepted[0]!r}: the cookie is what "
                "failsoft's settings say. Say it there, and leave it out of app.config"
            )
