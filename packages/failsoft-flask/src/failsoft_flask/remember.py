"""Flask-Login's remember cookie, bound to the session that it was given with.

Theory of operation. That cookie is the user's id, signed: it has no time, is the same at each login, and nobody can take it back. So the
browser is given a second one beside it, a seal, bound to the user, on the handle of the session in which it was given. The remember cookie
logs in only with that, and only while the store has the session in its user's list. A logout in any framework takes it off, and so does
a revocation. That it was unused for too long, or that the browser forgot its cookie, does not: for that the remember cookie is there.

Rules:

- Flask-Login asks the session for ``_remember`` before it takes its cookie, and takes none that is to be cleared: that is where it is told.
  So the store is asked only where somebody would be logged in, in one trip.
- A login by it begins another session, and the seal is made anew for that. The former seal stays as good as it was: tabs of a browser
  that is opened again send it all at once.
- The list has a session for `session_absolute` after its login; so long a remember cookie is good.
- Without an answer of the store nobody is logged in, and no cookie is deleted. Whatever else cannot be shown to hold does not.
"""

import logging
from base64 import urlsafe_b64decode, urlsafe_b64encode
from collections.abc import Generator, Sequence
from importlib import import_module
from typing import TYPE_CHECKING, Any

from flask import Flask, request

from failsoft.errors import StoreUnavailable
from failsoft.events import SessionDegraded
from failsoft.exchange import Answers, Operation
from failsoft.sessions.cookies import values
from failsoft.sessions.operations import List, Listed
from failsoft.sessions.seal import KeyRing
from failsoft.sessions.service import Sessions
from failsoft.sessions.session import Session
from failsoft.sessions.state import LIVE, unavailable

if TYPE_CHECKING:
    from failsoft_flask.sessions import FlaskSession

__all__ = ["Remembering"]

_log = logging.getLogger("failsoft.flask")


class Remembering:
    """Says of remember cookies whether they hold, and seals them.

    Args:
        sessions: the application's.
    """

    __slots__ = ("_ring", "_sessions", "_style")

    def __init__(self, sessions: Sessions) -> None:
        settings = sessions.settings
        assert settings.secret is not None  # noqa: S101 - for the type checker: sessions have one
        self._sessions = sessions
        self._style = sessions.style.beside("-remember")
        self._ring = KeyRing(
            settings.secret,
            settings.secret_fallbacks,
            purpose=f"session remember {settings.prefix}",
            random=sessions.random,
        )

    def judge(self, app: Flask, session: Session) -> str | None:
        """What becomes of the request's remember cookie: "set" if it may log in, "clear" if not; None where there is none.

        Raises:
            SessionUnavailable: the store is away.
        """
        flask_login: Any = import_module("flask_login")
        cookie = request.cookies.get(app.config.get("REMEMBER_COOKIE_NAME", flask_login.COOKIE_NAME))
        subject: str | None = None if cookie is None else flask_login.decode_cookie(cookie)
        if subject is None:  # or none of Flask-Login's, which takes none either
            return None
        bound = _bound(subject)
        texts = values(request.environ.get("HTTP_COOKIE"), self._style.full_name)
        handles = [handle for text in texts if (handle := self._open(text, bound)) is not None]
        if handles:
            listed: bool = self._sessions.carrier.run(self._listed(session, subject, handles), session.exchange)
            if listed:
                return "set"
        _log.info(
            "a remember cookie logs nobody in, and is deleted: %s",
            "its session was logged out or revoked, or its time is over" if handles else "it has no seal of ours",
        )
        return "clear"

    def cookies(self, view: "FlaskSession") -> Sequence[str]:
        """What the browser is owed beside what Flask-Login gave it in this request, when the session is saved: values of Set-Cookie."""
        session = view.session
        if view.remembering == "clear":
            return [self._style.delete()]
        principal, identity = session.principal_known, session.id
        if view.remembering != "set" or session.state is not LIVE or principal is None or identity is None:
            return ()
        seal = self._ring.seal(identity.handle.encode(), _bound(principal.subject))
        text = urlsafe_b64encode(seal).decode().rstrip("=")
        return [self._style.set(text, self._sessions.lifetime // 1000, now=self._sessions.clock.time())]

    def _open(self, text: str, bound: bytes) -> str | None:
        """The handle in a seal, or None where it is none of ours, or another user's."""
        try:
            plain = self._ring.unseal(urlsafe_b64decode(text + "=" * (-len(text) % 4)), bound)
        except ValueError:
            return None
        return None if plain is None else plain.decode()

    def _listed(
        self, session: Session, subject: str, handles: Sequence[str]
    ) -> Generator[Sequence[Operation], Answers, bool]:
        service = self._sessions
        answers = yield (List(service.subject_key(subject), lifetime=service.lifetime),)
        found = answers if isinstance(answers, StoreUnavailable) else answers[0]
        if not isinstance(found, Listed):
            reason = found.reason if isinstance(found, StoreUnavailable) else "failed"
            if session.exchange is not None:
                session.exchange.degrade("session", reason)
            service.publish(SessionDegraded(session.handle, subject, reason, "refuse"))
            raise unavailable(
                "Whether a remembered login still holds is not known: the sessions' store cannot be reached."
            )
        return any(handle in handles for handle, _, _ in found.sessions)


def _bound(subject: str) -> bytes:
    """What a seal is bound to: what it is, the version of its shape, and the user."""
    return b"remember 1\0" + subject.encode("utf-8", "surrogatepass")
