"""What views see of Flask's sessions, kept in the store: a mapping. `session_interface` opens and saves it.

Rules:

- When the session was settled, it is too late to write: that is `OutsideRequest`, in a streamed body as in a teardown function. What
  changes inside of a value by then is found when the stream is over, and logged as lost. After a response that was no stream that is
  looked for in debug mode and in tests (`Flask.testing`) only: few do anything then, and all would pay as much for it as for saving.
- Who keeps the session longer than the request, as a test does that looks at it afterwards, can read it. Flashed messages can be asked
  for there, too, which takes them out; the store keeps them for the page that shows them.
- ``session.permanent = True`` lets the browser keep the cookie until the session ends; else it forgets it when it is closed. It is a wish
  about the cookie: alone it creates no session, and is no reason to refuse a request while the store is away.
- Flask's ``PERMANENT_SESSION_LIFETIME``, where it was set, is how long a permanent session lives unseen, from when it becomes
  permanent; `session_absolute` bounds it.
- `FlaskSession` knows Flask-Login's keys; see `failsoft_flask.auth`.
"""

import logging
from collections.abc import Iterable, Iterator
from typing import Any, ClassVar, Final

from flask import Flask, has_request_context
from flask.sessions import SessionMixin

from failsoft.errors import OutsideRequest
from failsoft.sessions.companion import Remembered
from failsoft.sessions.content import MISSING
from failsoft.sessions.record import PRINCIPAL, Principal, stored_name
from failsoft.sessions.session import Session
from failsoft.sessions.state import State
from failsoft.sessions.view import SessionView
from failsoft_flask.remember import Remembering
from failsoft_flask.session_settings import FLASKS_OWN

__all__ = ["NAMESPACE", "SNAPSHOT", "FlaskSession"]

_log = logging.getLogger("failsoft.flask")

NAMESPACE: Final = "flask"
"""Before the framework's own keys, in the store."""

_LOGIN: Final = frozenset({"_user_id", "_fresh", "_id", "_remember"})
"""Keys of Flask-Login's that are not simply stored."""

_SYNTHESIZED: Final = ("_user_id", "_fresh", "_id")

SNAPSHOT: Final = tuple(stored_name(key, NAMESPACE) for key in (*_SYNTHESIZED, "_permanent"))
"""What Flask and Flask-Login need to know of a session while the store is away."""

_FLASHES: Final = "_flashes"
_FRESH: Final = stored_name("_fresh", NAMESPACE)
_PERMANENT: Final = stored_name("_permanent", NAMESPACE)


def _is_permanent(session: Session) -> bool:
    """Whether the browser is to keep the cookie when it is closed. To ask is no access: the response does not vary with it."""
    return session.peek(_PERMANENT) is True


def _persists(session: Session) -> bool:
    """The same, after a Django view may have said otherwise."""
    kept = session.kept
    return _is_permanent(session) if kept is None else kept


class FlaskSession(SessionView, SessionMixin):
    """What ``flask.session`` is.

    Values are what JSON can say, and dates, decimals, UUIDs, bytes, tuples, sets and Markup; changes inside of them are noticed. Keys that
    begin with an underscore, and those in `private`, are Flask's own; all others are shared with Django and Starlette.

    While the store is away, reading raises `SessionUnavailable`, which answers the request with 503, or finds nothing, by the setting
    ``session_on_outage``; a snapshot can be read. Writing raises `SessionUnavailable` in any case.

    Args:
        session: the request's.
        app: the application.
        remembered: judges remember cookies of Flask-Login's.

    Attributes:
        remembering: what becomes of that cookie in this request: "set", "clear", or None where it stays as it is.
        remembered_by: what such a cookie that may log in was given with.
        asked: whether a login of this request, made otherwise than by that cookie, asked to be remembered.
    """

    private: ClassVar[frozenset[str]] = frozenset({"csrf_token", "next"})
    """Flask-WTF's, and Flask-Login's."""

    __slots__ = (
        *("_app", "_local", "_modified", "_over", "_permanent", "_refuses", "_remembered"),
        *("asked", "remembered_by", "remembering"),
    )

    def __init__(self, session: Session, app: Flask, remembered: Remembering) -> None:
        self.session = session
        session.persists = _persists
        self.namespace = NAMESPACE
        self._app = app
        self._local: dict[str, Any] = {}
        self._over = self._modified = False
        self._permanent: bool | None = None
        self._remembered = remembered
        self.remembering: str | None = None
        self.remembered_by: Remembered | None = None
        self.asked = self._refuses = False

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
    def modified(self) -> bool:
        """Whether a key was set or deleted in this request; also when that is saved."""
        return self._modified or self.session.modified

    @modified.setter
    def modified(self, value: bool) -> None:
        self._modified = False
        self.session.modified = value

    @property
    def permanent(self) -> bool:
        """Whether the browser is to keep the cookie when it is closed."""
        return bool(self.get("_permanent", False)) if self._permanent is None else self._permanent

    @permanent.setter
    def permanent(self, value: bool) -> None:
        self._changeable("make it permanent")
        self._permanent = bool(value)

    # The mapping

    def _find(self, key: str) -> Any:
        if key not in _LOGIN or not self._is_login(key):
            return super()._find(key)
        # Only where it is read: after each request Flask-Login looks whether it is there.
        if key == "_remember" and key not in self._local and self.remembering is None and has_request_context():
            if self._refuses:
                return "clear"
            verdict, seal = self._remembered.judge(self._app, self.session)
            if verdict == "set":
                self.remembering, self.remembered_by = verdict, seal  # for the session that it begins
            elif verdict == "refuse":  # said to who asks, and not there for who would then delete the cookie
                self._refuses = True
                return "clear"
            elif verdict is not None:
                self._local[key] = verdict
        return self._login_key(key)

    def __setitem__(self, key: str, value: Any) -> None:
        self._changeable(f"set {key!r}")
        if not self._is_login(key):
            super().__setitem__(key, value)
        elif key == "_remember":  # said by one function to another in the same request
            self._local[key] = value
            if value == "set" and self.remembered_by is None and self.session.login_pending is not None:
                self.asked = True
        elif key == "_user_id" and value is None:  # nobody
            self.pop(key, None)
        elif key == "_user_id":
            self.login(str(value))
            if not isinstance(value, str):  # so that it comes back as it was
                super().__setitem__(key, value)
        elif key == "_fresh" and value is False and self.degraded:
            # It takes away, and is said again in each request that gives reason to.
            self._local[key] = value
        else:
            super().__setitem__(key, value)

    def __delitem__(self, key: str) -> None:
        if key == _FLASHES and self._over:
            return
        self._changeable(f"delete {key!r}")
        if not self._is_login(key):
            super().__delitem__(key)
        elif key in self._local:
            value = self._local.pop(key)
            if key == "_remember":  # Flask-Login is about to do so
                self.remembering = value
        elif key == "_user_id" and self.principal is not None:
            self.logout()
        elif super().__contains__(key):
            super().__delitem__(key)
        elif key not in self:
            raise KeyError(key)

    def __contains__(self, key: object) -> bool:
        if not isinstance(key, str) or not self._is_login(key):
            return super().__contains__(key)
        return self._login_key(key) is not MISSING

    def __iter__(self) -> Iterator[str]:
        stored = list(super().__iter__())
        return iter([*(key for key in self._synthesized() if key not in stored), *stored])

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

    def rotate(self, *, strict: bool = False) -> None:
        """Give the session another id. See `Session.rotate`. Raises `OutsideRequest` when it is too late."""
        self._changeable("rotate its id")
        super().rotate(strict=strict)

    def logout(self) -> None:
        """End the session, for every framework; messages that were flashed and not seen yet go on in a new one.

        See `Session.logout`. Raises `OutsideRequest` when it is too late.
        """
        self._changeable("log out")
        self.session.service.load(self.session)
        flashes = self.get(_FLASHES) if self.session.state in (State.LIVE, State.NEW) else None
        super().logout()
        if flashes:
            self[_FLASHES] = flashes

    def forget_login(self) -> None:
        """Let the login of this request, which is not written yet, not have been."""
        session = self.session
        session.login_pending = None
        session.content.changed.pop(PRINCIPAL, None)
        for key in _SYNTHESIZED:
            if (name := self.name_of(key)) in session:
                session.remove(name)

    def _is_login(self, key: object) -> bool:
        """Whether `key` is Flask-Login's, in an application that has it."""
        return key in _LOGIN and hasattr(self._app, "login_manager")

    def _login_key(self, key: str) -> Any:
        """One of Flask-Login's keys, or `MISSING`; for a login that was made elsewhere, what Flask-Login would have stored."""
        if key in self._local:
            return self._local[key]
        if key == "_remember":
            return MISSING
        principal = self.principal
        stored = super()._find(key)
        if principal is None:
            return stored
        if stored is MISSING:
            return self._synthetic(key, principal)
        return principal.subject if key == "_user_id" and str(stored) != principal.subject else stored

    def _synthetic(self, key: str, principal: Principal) -> Any:
        if key == "_user_id":
            return principal.subject
        if key == "_fresh":
            return True
        # What was set by hand, without Flask-Login's mark of the browser, is as suspect to it as ever: tests' clients set no more.
        if not has_request_context() or self.session.peek(_FRESH) is True:
            return MISSING
        manager: Any = self._app.login_manager  # type: ignore[attr-defined]  # Flask-Login puts it there
        return manager._session_identifier_generator()

    def _synthesized(self) -> tuple[str, ...]:
        if not self._is_login("_user_id") or self.principal is None:
            return ()
        return tuple(key for key in _SYNTHESIZED if self._login_key(key) is not MISSING)

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
        self._modified = self.modified
        if wish is not None:
            session.service.load(session)
            begins = session.content.changed  # a logout, too, has modified the session
            if session.state is State.LIVE or (session.state is State.NEW and begins):
                self._make_permanent(wish)
        return session.accessed

    def _make_permanent(self, wish: bool) -> None:
        session = self.session
        if _is_permanent(session) == wish:
            return
        session.write(_PERMANENT, wish)
        session.keep(wish)
        lifetime = self._app.permanent_session_lifetime
        if lifetime != FLASKS_OWN:
            session.set_idle(lifetime.total_seconds() if wish else None)

    def end(self) -> None:
        """The request is over. What nobody is going to write is logged."""
        session = self.session
        exchange, session.exchange = session.exchange, None
        self._over = True
        if exchange is None or not exchange.settled or exchange.unsaved is not None or not session.accessed:
            return
        if session.unwritten(inside=exchange.streamed or self._app.debug or self._app.testing):
            _log.error(
                "what was changed in session %s is lost: it was changed inside of a value, after the session was saved",
                session.handle,
            )
