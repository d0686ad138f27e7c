"""What a request owes the store and the browser for its session, once it is served.

Theory of operation. `settle` makes of the session's changes one flight: end what was logged out, make what is new, or change what is
there (see `sent`). `confirm` looks at what came of it: only then are there cookies, so a browser is never told of what the store does not
have. Where the store gave no answer, or refused, the request is refused in turn; except for a logout, which the browser carries out by
itself: its cookies go, and a sealed ticket among them ends the session when the store is back.
"""

from collections.abc import Collection, Generator, Iterable, Sequence
from typing import Any, Final

from failsoft.errors import (
    Rejected,
    SessionTooLarge,
    SessionValueError,
    StoreUnavailable,
)
from failsoft.events import (
    SessionCreated,
    SessionDegraded,
    SessionGone,
    SessionMerged,
    SessionRevoked,
    SessionRolledBack,
    SessionRotated,
)
from failsoft.exchange import Answers, Operation
from failsoft.sessions.browser import (
    header_fields,
    id_cookie,
    revoked_seal,
    seal_cookies,
    seal_is_stale,
    ticket_cookie,
)
from failsoft.sessions.cap import evictions, glances
from failsoft.sessions.companion import Ended
from failsoft.sessions.ids import SessionId
from failsoft.sessions.imported import Expire
from failsoft.sessions.loading import loaded
from failsoft.sessions.operations import (
    FOUND,
    GONE,
    Created,
    Delete,
    Revoke,
    Wait,
    Written,
)
from failsoft.sessions.record import Meta, Principal
from failsoft.sessions.sent import Sent, saved, send
from failsoft.sessions.session import Session
from failsoft.sessions.state import LIVE, NEW, NO_ANSWER, State, conflict, unavailable, unsaved

__all__ = ["Saving"]

_ONLY_WRITTEN: Final = ["write"]
"""The steps of nearly every settlement that has any."""


class Saving:
    """One session's part in a request: its load, where it rides in a flight, and its settlement. A save before that is another's, which
    settles once.

    Args:
        session: the request's.

    Attributes:
        session: likewise.
        operations: what is asked in the request's flight.
        cookies: what the response owes the browser, as values of Set-Cookie fields.
    """

    _surplus: Sequence[str] = ()
    _taken: tuple[Sequence[Ended], SessionId | None] | None = None
    _tomb = ""
    _sent: Sent | None = None

    def __init__(self, session: Session) -> None:
        self.session = session
        self.operations: Sequence[Operation] = ()
        self.cookies: list[str] = []
        self._steps: Sequence[str] = ()
        self._ended: Sequence[Ended] = ()
        self._refused: Exception | None = None

    def receive(self, answers: Answers) -> Rejected | None:
        """Take the answers; whoever reads the session hears of an outage."""
        if self.operations:
            loaded(self.session, answers)
        return None

    def settle(self, status: int) -> Sequence[Operation]:
        """What must be written."""
        session = self.session
        self._refused, self._ended = None, ()
        if session.unstored is not None:
            self._forgive()
        content = session.content
        if (
            content.changed
            or session.rotation_pending
            or content.removed
            or session.ended
            or session.force
            or session.above
            or session.doomed is not None
            or session.abandoned is not None
            or (content.watched and not content.is_as_read())  # last: `_changes` compares again
        ):
            wanted = self._changes(status)
            if wanted:
                return wanted
        if session.state is LIVE and seal_is_stale(session):
            assert session.id is not None  # noqa: S101 - for the type checker: there is one that a seal goes with
            meta = session.meta_known
            assert meta is not None  # noqa: S101 - likewise
            self.cookies += seal_cookies(session, session.id, meta)
        return ()

    def _forgive(self) -> None:
        """Who could not store something before may have put it right."""
        session = self.session
        if session.exchange is not None and session.exchange.unsaved is session.unstored:
            session.exchange.unsaved = None
        session.unstored = None

    def _changes(self, status: int) -> Sequence[Operation]:
        session = self.session
        wanted: list[Operation] = []
        steps: list[str] = []
        self._steps = steps
        if session.ended or session.doomed is not None or session.abandoned is not None:
            self._end(wanted, steps)
        if status >= session.lost_from:
            session.lose()
        if session.state is LIVE or session.state is NEW:
            try:
                fields, removed = session.content.changes()
            except (SessionValueError, SessionTooLarge) as error:
                self._refuse(error, unsaved(error))
            else:
                new = session.state is NEW
                if fields or (session.force if new else removed or session.rotation_pending or session.above):
                    self._sent = send(session, wanted, steps, fields, removed)
        elif session.state is State.SNAPSHOT and session.content.changed_inside():
            refused = unavailable(
                "What was changed inside of a value of the session was not written: its store cannot be reached."
            )
            self._refuse(refused, refused)
        if steps and session.service.wait and (self._ended or session.rotation_pending or session.login_pending):
            steps.append("wait")
            wanted.append(Wait(session.service.wait, session.service.wait_for))
        return wanted

    def _refuse(self, error: Exception, refused: Rejected) -> None:
        self._refused, self.session.unstored = error, refused
        if self.session.exchange is not None:
            self.session.exchange.unsaved = refused

    def _end(self, wanted: list[Operation], steps: list[str]) -> None:
        service = self.session.service
        ended, self.session.ended = self.session.ended, ()
        self._taken = ended, self.session.doomed
        self._ended = [one for one in ended if one.handle]
        if len(self._ended) < len(ended):
            self.cookies.append(service.remember_style.delete())
        for one in self._ended:
            steps.append("end")
            wanted.append(Delete(service.record_key(one.handle), one.digest or None))
            if one.subject is not None:
                steps.append("revoke")
                # The record goes in this flight, so nothing has to be remembered of it; a ticket does, since it comes late.
                wanted.append(Revoke(service.subject_key(one.subject), one.handle, lifetime=0))
        if (doomed := self.session.doomed) is not None:
            # Revoked: it goes, or whoever has its id would keep it alive until the revocation is forgotten.
            self.session.doomed = None
            steps.append("doom")
            wanted.append(Delete(service.record_key(doomed.handle), doomed.digest))
            self._tomb = revoked_seal(self.session, doomed)
            self.cookies.append(self._tomb)
        if self.session.abandoned is not None:
            steps.append("abandon")
            wanted.append(Expire(self.session.abandoned, 1))

    def steps(self) -> Generator[Sequence[Operation], Answers, None]:
        """Settle before the request is over; a driver carries what is yielded.

        Raises:
            SessionUnavailable, SessionConflict, SessionTooLarge, SessionValueError: it is not written.
        """
        wanted = self.settle(200)
        while wanted:
            try:
                answers = yield wanted
            except BaseException:
                self._give_up(self._steps, self._taken)
                raise
            found = self.confirm(answers)
            if isinstance(found, Rejected):
                raise found
            wanted = found
        if self._refused is not None:
            raise self._refused

    def _give_up(self, steps: Collection[str], taken: tuple[Sequence[Ended], SessionId | None] | None) -> None:
        """Nobody knows what the store has done: whoever waited was cancelled, or is refused. What was to be ended still is, with the next
        attempt or with the response; until then the browser keeps what names it."""
        if "create" in steps or "write" in steps:
            self._doubt()
        if taken is not None:
            session, (ended, doomed) = self.session, taken
            session.ended = [*ended, *session.ended]
            session.doomed = session.doomed or doomed
            gone = (session.service.remember_style.delete(), self._tomb)
            self.cookies = [cookie for cookie in self.cookies if cookie not in gone]

    def _doubt(self) -> None:
        sent, session = self._sent, self.session
        if sent is None or self._is_past():
            return
        session.content.doubt(sent.written)
        if session.state is NEW:  # what may be stored is made again with the same id, which somebody may have asked for
            session.next = session.doubtful = sent.identity

    def _is_past(self) -> bool:
        """Whether another task has logged out of the session since it was sent."""
        return self._sent is not None and self._sent.life != self.session.life

    def confirm(self, answers: Answers) -> Rejected | Sequence[Operation]:
        """Take the answers: the cookies, or a refusal. Returns what has to be deleted because a subject had too many sessions."""
        steps, self._steps = self._steps, ()
        said: dict[str, Any] = {}
        if steps == _ONLY_WRITTEN and isinstance(answers, list) and isinstance(answers[0], Written):
            return self._confirm_write(said, answers[0])
        taken = self._taken
        if taken is not None:
            self._taken = None
        if isinstance(answers, StoreUnavailable):
            said = dict.fromkeys(steps, answers)
        else:
            for step, answer in zip(steps, answers, strict=True):
                if step not in said or isinstance(answer, NO_ANSWER):
                    said[step] = answer
        if "glance" in said:
            later = evictions(self.session, self._surplus, answers)
            self._steps = ["later"] * len(later)
            return later
        said.pop("doom", None)  # dead by its mark, whatever came of it
        said.pop("undo", None)  # what is still there is found by what makes it again
        if "later" in said or not said:
            return ()
        failed = None
        for one in said.values():
            if isinstance(one, NO_ANSWER):
                failed = one
                break
        short = "wait" in said and failed is None and said["wait"] < self.session.service.wait
        if "abandon" in said:
            if failed is not None:  # nothing of ours could make up for it later
                self._give_up(said, taken)
                return self._not_written(failed)
            self.session.abandoned = None
            self.cookies += [self.session.service.style.delete(), *self.session.service.imported_cookies()]
        if self._ended:
            self._confirm_end(failed, short)
        written = said.get("create", said.get("write"))
        if written is None:
            return ()
        if isinstance(written, NO_ANSWER):
            self._doubt()
            return self._not_written(failed)
        found = self._confirm_write(said, written)
        if (failed is None and not short) or isinstance(found, Rejected) or self._is_past():
            return found
        # It is not acknowledged: too few replicas have it, or what belongs to it failed. But it was written, and without its new id the
        # browser would be left with a dead one.
        self._steps = ()
        return self._not_written(failed)

    def _confirm_end(self, failed: Exception | None, short: bool) -> None:
        session, service = self.session, self.session.service
        left = session.state is NEW and session.foreign is None
        if left or any(one.handle == session.handle for one in self._ended):  # or only what is remembered has ended
            self.cookies += [service.style.delete(), service.seal_style.delete()]
        if failed is None and not short:
            for one in self._ended:
                service.publish(SessionRevoked(one.handle, one.subject, "logout"))
            return
        self.cookies.append(ticket_cookie(session, self._ended))
        reason = _reason(failed)
        if session.exchange is not None:
            session.exchange.accepted = True
            session.exchange.degrade("session", reason)
        service.publish(SessionDegraded(self._ended[-1].handle, self._ended[-1].subject, reason, "ticket"))

    def _not_written(self, failed: Exception | None) -> Rejected:
        session = self.session
        reason = _reason(failed)
        if session.exchange is not None:
            session.exchange.degrade("session", reason)
        session.service.publish(SessionDegraded(session.handle, _subject(session), reason, "unsaved"))
        return unavailable("What was to be kept in the session was not written: its store cannot be reached.")

    def _confirm_write(self, said: dict[str, Any], written: Created | Written) -> Rejected | Sequence[Operation]:
        session, service = self.session, self.session.service
        sent = self._sent
        assert sent is not None  # noqa: S101 - for the type checker: something was written
        identity, seen, login, rotated = sent.identity, sent.version, sent.login, sent.rotated
        created = isinstance(written, Created)
        if isinstance(written, Created):
            (code, now, deadline, generation), version = written, 1
        else:
            code, now, version, deadline, generation = written
        if code != FOUND:
            service.publish(SessionGone(session.handle, _subject(session), "ended" if code == GONE else "moved"))
            return conflict(
                "The session ended while this request was served. Nothing was written to it."
                if code == GONE
                else "The session was renewed while this request was served. Nothing was written; repeat the request."
            )
        if session.life != sent.life:  # another task has logged out meanwhile
            return self._end_created(identity, login) if created else ()
        principal = login or session.principal_known
        subject = None if principal is None else principal.subject
        began = now if created else session.created
        if created:
            service.publish(SessionCreated(identity.handle, subject))
        else:
            between = version - session.version - 1
            if between > 0:
                service.publish(SessionMerged(identity.handle, subject, between))
            if version <= seen:  # read from one server, written to its successor that has not all of it
                service.publish(SessionRolledBack(identity.handle, subject, version - 1, seen))
        if rotated:
            service.publish(SessionRotated(identity.handle, subject, login is not None))
        meta = tuple.__new__(Meta, (began, deadline, now, version, generation, None))  # as `Loaded`
        saved(session, sent, meta)
        if not session.renewed:
            if self.cookies:
                self._ended_cookies_off()
            if created or rotated or session.reissue:
                self.cookies.append(id_cookie(session, identity, meta))
            self.cookies += seal_cookies(session, identity, meta)
        others = said.get("enrol")
        if session.foreign is None and not (service.cap and others):
            return ()
        return self._afterwards(() if isinstance(others, NO_ANSWER) else others or ())

    def _afterwards(self, others: Sequence[str]) -> Sequence[Operation]:
        """Ask which of the user's `others` still live, where there is a cap; let what was carried over go."""
        session, service = self.session, self.session.service
        self._surplus = others if service.cap else ()
        wanted = glances(service, self._surplus)
        steps = ["glance"] * len(wanted)
        if session.foreign is not None:
            steps.append("later")
            wanted.append(Expire(session.foreign, max(service.grace, 1)))
            session.foreign = None
            self.cookies += service.imported_cookies()
        self._steps = steps
        return wanted

    def _end_created(self, identity: SessionId, login: Principal | None) -> Sequence[Operation]:
        """End what the logout could not name, since it had no id yet."""
        service = self.session.service
        later: list[Operation] = [Delete(service.record_key(identity.handle), None)]
        if login is not None:
            later.append(Revoke(service.subject_key(login.subject), identity.handle, lifetime=0))
        self._steps = ["later"] * len(later)
        return later

    def _ended_cookies_off(self) -> None:
        """A session that begins after a logout, or after one that was revoked, brings cookies of the same names."""
        service = self.session.service
        gone = (service.style.delete(), service.seal_style.delete(), self._tomb)
        self.cookies = [cookie for cookie in self.cookies if cookie not in gone]

    def headers(self) -> Iterable[tuple[str, str]]:
        """Header fields for the response."""
        return header_fields(self.session, self.cookies)


def _reason(failed: Exception | None) -> str:
    if failed is None:
        return "replicas"
    return failed.reason if isinstance(failed, StoreUnavailable) else "failed"


def _subject(session: Session) -> str | None:
    principal = session.login_pending or session.principal_known
    return None if principal is None else principal.subject
