"""What a request owes the store and the browser for its session, once it is served.

Theory of operation. `settle` makes of the session's changes one flight: end what was logged out, make what is new, or change what is
there. `confirm` looks at what came of it: only then are there cookies, so a browser is never told of what the store does not have.
Where the store gave no answer, or refused, the request is refused in turn; except for a logout, which the browser carries out by
itself: its cookies go, and a sealed ticket among them ends the session when the store is back.
"""

import logging
from collections.abc import Iterable, Sequence
from typing import Any, Final

from msgspec.structs import replace

from failsoft.errors import (
    OperationFailed,
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
from failsoft.sessions.companion import Companion, Ticket, fits
from failsoft.sessions.ids import SessionId
from failsoft.sessions.imported import Expire
from failsoft.sessions.operations import FOUND, GONE, Create, Delete, Enrol, Glance, Revoke, Wait, Write
from failsoft.sessions.record import PRINCIPAL, Meta
from failsoft.sessions.session import NO_ANSWER, SEAL_RENEWED, Ended, Session, State, conflict, unavailable

__all__ = ["Saving"]

_log = logging.getLogger("failsoft.sessions")

_MOST_LISTED: Final = 1000
"""Sessions of one subject that are listed where there is no cap. Those beyond live on unlisted, and end with all others."""

_SHARE: Final = 3
"""A snapshot is made anew when a third of its life is over."""


class Saving:
    """The settlement of one session; may be carried out again when more was changed.

    Attributes:
        cookies: what the response owes the browser, as values of Set-Cookie fields.
    """

    operations: Sequence[Operation] = ()

    __slots__ = (
        "_begun",
        "_ended",
        "_refused",
        "_removed",
        "_seen",
        "_session",
        "_steps",
        "_surplus",
        "_written",
        "cookies",
    )

    def __init__(self, session: Session) -> None:
        self._session = session
        self._steps: list[str] = []
        self._begun: SessionId | None = None
        self._ended: list[Ended] = []
        self._refused: Exception | None = None
        self._surplus: list[str] = []
        self._written: dict[str, bytes] = {}
        self._removed: Sequence[str] = ()
        self._seen = 0
        self.cookies: list[str] = []

    def receive(self, answers: Answers) -> Rejected | None:
        """It asked nothing before the view."""
        return None

    def settle(self, status: int) -> Sequence[Operation]:
        """What must be written."""
        session = self._session
        self._steps, self._refused = [], None
        if session.exchange is not None and session.exchange.unsaved is session.unstored:
            session.exchange.unsaved = None  # who saved before may have put it right
        wanted: list[Operation] = []
        self._end(wanted)
        if status >= session.lost_from:
            session.lose()
        if session.state in (State.NEW, State.LIVE):
            try:
                fields, removed = session.changes()
            except (SessionValueError, SessionTooLarge) as error:
                self._refuse(error, session.unsaved(error))
            else:
                self._write(wanted, fields, removed)
        elif session.state is State.SNAPSHOT and session.changed_inside():
            refused = unavailable(
                "What was changed inside of a value of the session was not written: its store cannot be reached."
            )
            self._refuse(refused, refused)
        if self._steps and session.service.wait and (self._ended or session.rotation_pending or session.login_pending):
            self._steps.append("wait")
            wanted.append(Wait(session.service.wait, session.service.wait_for))
        if not wanted:
            self._refresh()
        return wanted

    @property
    def refused(self) -> Exception | None:
        """What kept the session from being written before the store was asked."""
        return self._refused

    def _refuse(self, error: Exception, refused: Rejected) -> None:
        self._refused, self._session.unstored = error, refused
        if self._session.exchange is not None:
            self._session.exchange.unsaved = refused

    def _end(self, wanted: list[Operation]) -> None:
        service = self._session.service
        self._ended, self._session.ended = self._session.ended, []
        for one in self._ended:
            self._steps.append("end")
            wanted.append(Delete(service.record_key(one.handle), one.digest or None))
            if one.subject is not None:
                self._steps.append("revoke")
                # The record goes in this flight, so nothing has to be remembered of it; a ticket does, since it comes late.
                wanted.append(Revoke(service.subject_key(one.subject), one.handle, lifetime=0))
        if (doomed := self._session.doomed) is not None:
            # Revoked: it goes, or whoever has its id would keep it alive until the revocation is forgotten.
            self._session.doomed = None
            self._steps.append("doom")
            wanted.append(Delete(service.record_key(doomed.handle), doomed.digest))
        if self._session.abandoned is not None:
            self._steps.append("abandon")
            wanted.append(Expire(self._session.abandoned, 1))

    def _write(self, wanted: list[Operation], fields: dict[str, bytes], removed: Sequence[str]) -> None:
        session = self._session
        service, login = session.service, session.login_pending
        if session.state is State.NEW:
            if not fields and login is None and not session.force:
                return
            self._begun = session.next or SessionId.new(service.random)
        else:
            if not fields and not removed and not session.rotation_pending and not session.above:
                return
            assert session.id is not None  # noqa: S101 - for the type checker: a live session has an id
            self._begun = session.id
            if session.rotation_pending:
                self._begun = session.next or session.id.rotated(service.random)
        handle = self._begun.handle
        self._written, self._removed = dict(fields), removed
        sealed = {name: data if name == "@i" else service.seal(handle, name, data) for name, data in fields.items()}
        key = service.record_key(handle)
        if login is not None:
            self._steps.append("enrol")
            cap = service.cap
            description = service.seal(handle, "device", session.device.encode())
            wanted.append(
                Enrol(
                    service.subject_key(login.subject),
                    handle,
                    description,
                    lifetime=service.lifetime,
                    cap=cap or _MOST_LISTED,
                    revoke=cap > 0,
                )
            )
        if session.state is State.NEW:
            self._steps.append("create")
            wanted.append(
                Create(key, {"@h": self._begun.digest, **sealed}, idle=service.idle, lifetime=service.lifetime)
            )
            return
        assert session.id is not None  # noqa: S101 - as above
        self._steps.append("write")
        self._seen = 0 if session.meta_known is None else session.meta_known.version
        wanted.append(
            Write(
                key,
                session.id.digest,
                sealed,
                removed,
                idle=service.idle,
                rotated=self._begun.digest if session.rotation_pending else None,
                grace=service.grace,
                strict=login is not None,
                lifetime=service.lifetime if login is not None else 0,
                above=session.above,
            )
        )

    def confirm(self, answers: Answers) -> Rejected | Sequence[Operation]:
        """Take the answers: the cookies, or a refusal. Returns what has to be deleted because a subject had too many sessions."""
        steps, self._steps = self._steps, []
        said: dict[str, Any] = {}
        if isinstance(answers, StoreUnavailable):
            said = dict.fromkeys(steps, answers)
        else:
            for step, answer in zip(steps, answers, strict=True):
                if step not in said or isinstance(answer, NO_ANSWER):
                    said[step] = answer
        if "glance" in said:
            return self._evict(answers)
        said.pop("doom", None)  # dead by its mark, whatever came of it
        if "later" in said or not said:
            return ()
        failed = None
        for one in said.values():
            if isinstance(one, NO_ANSWER):
                failed = one
                break
        short = "wait" in said and failed is None and said["wait"] < self._session.service.wait
        if "abandon" in said:
            if failed is not None:  # nothing of ours could make up for it later
                return self._not_written(failed)
            self._session.abandoned = None
            self.cookies += [self._session.service.style.delete(), *self._session.service.imported_cookies()]
        if self._ended:
            self._confirm_end(failed, short)
        written = said.get("create", said.get("write"))
        if written is None:
            return ()
        if isinstance(written, NO_ANSWER):
            return self._not_written(failed)
        found = self._confirm_write(said, written)
        if (failed is None and not short) or isinstance(found, Rejected):
            return found
        # It is not acknowledged: too few replicas have it, or what belongs to it failed. But it was written, and without its new id the
        # browser would be left with a dead one.
        self._steps = []
        return self._not_written(failed)

    def _confirm_end(self, failed: Exception | None, short: bool) -> None:
        session, service = self._session, self._session.service
        self.cookies += [service.style.delete(), service.seal_style.delete()]
        if failed is None and not short:
            for one in self._ended:
                service.publish(SessionRevoked(one.handle, one.subject, "logout"))
            return
        handle, digest, subject = self._ended[-1]
        now = service.clock.time()
        ticket = Ticket(handle=handle, digest=digest, subject=subject, issued=now)
        self.cookies.append(service.ticket_style.set(service.tickets.pack(ticket), service.lifetime // 1000, now=now))
        reason = _reason(failed)
        if session.exchange is not None:
            session.exchange.accepted = True
            session.exchange.degrade("session", reason)
        service.publish(SessionDegraded(handle, subject, reason, "ticket"))

    def _not_written(self, failed: Exception | None) -> Rejected:
        session = self._session
        reason = _reason(failed)
        if isinstance(failed, OperationFailed):
            _log.error("session %s was not written: %s", session.handle, failed)
        if session.exchange is not None:
            session.exchange.degrade("session", reason)
        session.service.publish(SessionDegraded(session.handle, _subject(session), reason, "unsaved"))
        return unavailable("What was to be kept in the session was not written: its store cannot be reached.")

    def _confirm_write(self, said: dict[str, Any], written: Any) -> Rejected | Sequence[Operation]:
        session, service = self._session, self._session.service
        identity = self._begun
        assert identity is not None  # noqa: S101 - for the type checker: something was written
        if written.code != FOUND:
            service.publish(
                SessionGone(session.handle, _subject(session), "ended" if written.code == GONE else "moved")
            )
            return conflict(
                "The session ended while this request was served. Nothing was written to it."
                if written.code == GONE
                else "The session was renewed while this request was served. Nothing was written; repeat the request."
            )
        login, rotated, before = session.login_pending, session.rotation_pending, session.meta_known
        principal = login or session.principal_known
        subject = None if principal is None else principal.subject
        created = session.state is State.NEW
        if created:
            meta = Meta(written.now, written.deadline, written.now, 1, written.generation, None)
            service.publish(SessionCreated(identity.handle, subject))
        else:
            began = written.now if before is None else before.created
            meta = Meta(began, written.deadline, written.now, written.version, written.generation, None)
            between = 0 if before is None else written.version - before.version - 1
            if between > 0:
                service.publish(SessionMerged(identity.handle, subject, between))
            if written.version <= self._seen:  # read from one server, written to its successor that has not all of it
                service.publish(SessionRolledBack(identity.handle, subject, written.version - 1, self._seen))
        if rotated:
            service.publish(SessionRotated(identity.handle, subject, login is not None))
        session.saved(identity, meta, self._written, self._removed)
        if not session.renewed:
            if self.cookies:
                self._ended_cookies_off()
            if created or rotated or session.reissue:
                self._give_id(identity, meta)
            self._give_companion(identity, meta)
        if session.foreign is not None:
            expire = Expire(session.foreign, max(service.grace, 1))
            session.foreign = None
            self.cookies += service.imported_cookies()
            self._steps = ["later"]
            return [expire]
        others = said.get("enrol")
        if not service.cap or not others or isinstance(others, NO_ANSWER):
            return ()
        self._surplus = list(others)
        self._steps = ["glance"] * len(self._surplus)
        return [Glance(service.record_key(handle)) for handle in self._surplus]

    def _evict(self, answers: Answers) -> Sequence[Operation]:
        """More sessions are listed than the subject may have: those that ended are not listed any more, and of the others the oldest go."""
        session, service = self._session, self._session.service
        principal = session.principal_known
        if isinstance(answers, StoreUnavailable) or principal is None:
            return ()  # at the next login
        subject = principal.subject
        key = service.subject_key(subject)
        dead: list[str] = []
        live: list[str] = []
        for handle, seen in zip(self._surplus, answers, strict=True):
            if not isinstance(seen, NO_ANSWER):
                (live if seen is not None and service.subjects.may_be(handle, seen, subject) else dead).append(handle)
        gone = live[: max(0, len(live) + 1 - service.cap)]
        later: list[Operation] = [Revoke(key, handle, lifetime=0) for handle in dead]
        for handle in gone:
            service.publish(SessionRevoked(handle, subject, "cap"))
            later += [Revoke(key, handle, lifetime=service.lifetime), Delete(service.record_key(handle), None)]
        self._steps = ["later"] * len(later)
        return later

    def _ended_cookies_off(self) -> None:
        """A session that begins after a logout brings cookies of the same names."""
        service = self._session.service
        gone = (service.style.delete(), service.seal_style.delete())
        self.cookies = [cookie for cookie in self.cookies if cookie not in gone]

    def _max_age(self, meta: Meta) -> int | None:
        if not self._session.persistent:
            return None
        return max(0, int(meta.deadline / 1000 - self._session.service.clock.time()))

    def _give_id(self, identity: SessionId, meta: Meta) -> None:
        service = self._session.service
        self.cookies.append(service.style.set(str(identity), self._max_age(meta), now=service.clock.time()))

    def _give_companion(self, identity: SessionId, meta: Meta) -> None:
        session, service = self._session, self._session.service
        now = service.clock.time()
        principal = session.principal_known
        values = session.snapshot_values(service.snapshot_names) if service.snapshot_age else None
        companion = Companion(
            subject=None if principal is None else principal.subject,
            generation=meta.generation,
            auth_time=0.0 if principal is None else principal.auth_time,
            version=meta.version,
            issued=now,
            deadline=meta.deadline / 1000,
            values=values,
        )
        bound = identity.digest.encode()
        text = service.companions.pack(companion, bound)
        if not fits(text) and values is not None:
            _log.warning(
                "the snapshot of session %s does not fit into a cookie; it only says who is logged in. Name fewer session_snapshot_keys",
                identity.handle,
            )
            only = {PRINCIPAL: values[PRINCIPAL]} if PRINCIPAL in values else {}
            text = service.companions.pack(replace(companion, values=only), bound)
        if fits(text):
            self.cookies.append(service.seal_style.set(text, self._max_age(meta), now=now))
            session.gave(companion)

    def _refresh(self) -> None:
        """Without anything to write: a seal that is missing, or whose snapshot gets old, is made anew."""
        session, service = self._session, self._session.service
        if session.state is not State.LIVE or session.renewed or session.id is None:
            return
        companion, meta = session.companion, session.meta_known
        if meta is None:
            return
        stale = (
            companion is None
            or service.clock.time() - companion.issued >= SEAL_RENEWED
            or companion.version > meta.version  # or it would be told again that the store has lost writes
            or (
                service.snapshot_age > 0
                and (
                    companion.values is None or service.clock.time() - companion.issued >= service.snapshot_age / _SHARE
                )
            )
        )
        if stale:
            self._give_companion(session.id, meta)

    def headers(self) -> Iterable[tuple[str, str]]:
        """Header fields for the response."""
        session = self._session
        fields: list[tuple[str, str]] = []
        cookies = self.cookies
        if session.replayed:  # first, for another logout may have left another
            cookies = [session.service.ticket_style.delete(), *cookies]
        if session.accessed or cookies:
            fields.append(("Vary", "Cookie"))
        if cookies:
            # A shared cache that kept these would log its other clients in (RFC 9111, section 7.3).
            fields.append(("Cache-Control", "private"))
            fields += [("Set-Cookie", cookie) for cookie in cookies]
        return fields


def _reason(failed: Exception | None) -> str:
    if failed is None:
        return "replicas"
    return failed.reason if isinstance(failed, StoreUnavailable) else "failed"


def _subject(session: Session) -> str | None:
    principal = session.login_pending or session.principal_known
    return None if principal is None else principal.subject
