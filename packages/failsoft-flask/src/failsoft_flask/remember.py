"""Flask-Login's remember cookie, bound to the sessions that it was given with.

Theory of operation. That cookie is the user's id, signed: it has no time, is the same at each login, and nobody can take it back. So the
browser is given a second one beside it, a seal, on the handles of two sessions: that of the login that asked to be remembered, and that of
the last login that the cookie made. The remember cookie logs in only with that, and only while the store has both in its user's list. A
logout in any framework takes them off, and deletes the seal (see `Session.unremember`); a revocation of either takes it off as well. That a
session was unused for too long, or that the browser forgot its cookie, does not: for that the remember cookie is there.

Rules:

- Flask-Login asks the session for ``_remember`` before it takes its cookie, and takes none that is to be cleared: that is where it is told.
  So the store is asked only where somebody would be logged in, in one trip.
- A login by it begins another session, and the seal is made anew for that; it keeps the first session. The list has a session for
  `session_absolute` after its login, so long a remember cookie is good, however often it is used.
- The former seal stays as good as it was until then: tabs of a browser that is opened again send it all at once.
- Right before such a login is written, the store is asked again: a revocation while the request was served holds against it. What is left
  is a revocation in the time of one trip, between that answer and the write.
- Flask-Login says who it is before it asks the user loader. Whom that refuses is not logged in, and both cookies are deleted.
- Without an answer of the store nobody is logged in, and no cookie is deleted. Nor is one whose seal no secret here opens: while secrets
  are replaced, another process may have the one that does. Whatever else cannot be shown to hold is deleted.
"""

import logging
from collections.abc import Generator, Sequence
from importlib import import_module
from typing import TYPE_CHECKING, Any

from flask import Flask, Response, request

from failsoft.errors import Rejected, StoreUnavailable
from failsoft.events import SessionDegraded
from failsoft.exchange import Answers, Operation
from failsoft.sessions.companion import Remembered
from failsoft.sessions.operations import List, Listed
from failsoft.sessions.record import stored_name
from failsoft.sessions.service import Sessions
from failsoft.sessions.session import Session
from failsoft.sessions.state import LIVE, conflict, unavailable

if TYPE_CHECKING:
    from failsoft_flask.sessions import FlaskSession

__all__ = ["Remembering"]

_log = logging.getLogger("failsoft.flask")

_FRESH = stored_name("_fresh", "flask")


class Remembering:
    """Says of remember cookies whether they hold, and seals them.

    Args:
        sessions: the application's.
    """

    __slots__ = ("_sessions",)

    def __init__(self, sessions: Sessions) -> None:
        self._sessions = sessions

    def judge(self, app: Flask, session: Session) -> tuple[str | None, Remembered | None]:
        """What becomes of the request's remember cookie: "set" if it may log in, and by what; "clear" if it may not and is to be deleted;
        "refuse" if it may not, and stays; None where there is none.

        Raises:
            SessionUnavailable: the store is away.
        """
        flask_login: Any = import_module("flask_login")
        cookie = request.cookies.get(app.config.get("REMEMBER_COOKIE_NAME", flask_login.COOKIE_NAME))
        subject: str | None = None if cookie is None else flask_login.decode_cookie(cookie)
        if subject is None:  # or none of Flask-Login's, which takes none either
            return None, None
        seals = session.remembered
        if seals is not None and not seals:
            _log.info("a remember cookie logs nobody in, and is kept: no secret of this process opens its seal")
            return "refuse", None
        own = [seal for seal in seals or () if seal.subject == subject]
        if own and (held := self._ask(session, own)) is not None:
            return "set", held
        _log.info(
            "a remember cookie logs nobody in, and is deleted: %s",
            "its session was logged out or revoked, or its time is over" if own else "it has no seal of ours",
        )
        return "clear", None

    def check(self, app: Flask, view: "FlaskSession", response: Response) -> Rejected | None:
        """Look once more at a login that the cookie made in this request, before it is written. Returns the refusal, if it is not to be."""
        session, seal, login = view.session, view.remembered_by, view.session.login_pending
        if seal is None or login is None or login.subject != seal.subject or session.peek(_FRESH) is not False:
            return None
        flask_login: Any = import_module("flask_login")
        if flask_login.current_user.get_id() is None:
            _log.info("a remember cookie logs nobody in, and is deleted: the user loader does not know its user")
            view.forget_login()
            self.clear(app, view, response)
            return None
        try:
            if self._ask(session, [seal]) is not None:
                return None
        except Rejected as rejected:
            session.lose()
            view.remembering = None
            return rejected
        session.lose()
        view.remembering = "clear"
        return conflict("The remembered login was ended while this request was served. Nothing was written.")

    def clear(self, app: Flask, view: "FlaskSession", response: Response) -> None:
        """Delete Flask-Login's cookie with `response`, and the seal with the session's."""
        view.remembering = "clear"
        manager: Any = app.login_manager  # type: ignore[attr-defined]  # Flask-Login puts it there
        manager._clear_cookie(response)

    def cookies(self, view: "FlaskSession") -> Sequence[str]:
        """What the browser is owed beside what Flask-Login gave it in this request, when the session is saved: values of Set-Cookie."""
        session, service = view.session, self._sessions
        if view.remembering == "clear":
            return [service.remember_style.delete()]
        principal, handle = session.principal_known, session.handle
        if view.remembering != "set" or session.state is not LIVE or principal is None or handle is None:
            return ()
        first = self._first(view, principal.subject, handle)
        if first is None:
            return ()
        text = service.remember_seals.pack(Remembered(subject=principal.subject, first=first, newest=handle))
        return [service.remember_style.set(text, service.lifetime // 1000, now=service.clock.time())]

    def _first(self, view: "FlaskSession", subject: str, handle: str) -> str | None:
        """The session that a new seal names first. A login that was made by the cookie is as good as that, and not for longer."""
        session = view.session
        if session.peek(_FRESH) is not False or view.asked:
            return handle
        for seal in (view.remembered_by, *(session.remembered or ())):
            if seal is not None and seal.subject == subject and (seal is view.remembered_by or seal.newest == handle):
                return seal.first
        return None

    def _ask(self, session: Session, seals: Sequence[Remembered]) -> Remembered | None:
        """The first of `seals`, all of one user, that holds. Raises `SessionUnavailable`."""
        found: Remembered | None = self._sessions.carrier.run(self._held(session, seals), session.exchange)
        return found

    def _held(
        self, session: Session, seals: Sequence[Remembered]
    ) -> Generator[Sequence[Operation], Answers, Remembered | None]:
        service, subject = self._sessions, seals[0].subject
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
        listed = {handle for handle, _, _ in found.sessions}
        return next((seal for seal in seals if {seal.first, seal.newest} <= listed), None)
