"""A user's sessions, for whoever manages them: to list them, and to end one, all but this one, or all.

Theory of operation. Each subject has a list of its sessions in the store; nothing is found by looking through keys. To end a session is two
things: a mark at the subject, which every request with a principal looks at, and the deletion of the record. The mark comes first and is
what counts: where the store goes away in between, the record is dead all the same. All sessions are ended by a time that is marked at the
subject, before which none is valid: that ends those too that are in no list.

Rules: every answer is the store's. While it is away, all of these raise `SessionUnavailable`, and what was to be revoked may be revoked or
not: repeat it. With the setting `session_wait`, they raise it too where too few replicas have confirmed a revocation, which then holds as
long as there is no failover.
"""

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, NamedTuple, TypeVar

from failsoft.errors import OperationFailed, StoreUnavailable
from failsoft.events import SessionRevoked, SubjectRevoked
from failsoft.exchange import Answers, Operation, current
from failsoft.sessions.ids import is_handle
from failsoft.sessions.loading import loading
from failsoft.sessions.operations import Delete, Glance, Glimpse, List, Look, Revoke, RevokeAll, Wait
from failsoft.sessions.record import PRINCIPAL, Principal, unpack_principal
from failsoft.sessions.saving import Saving
from failsoft.sessions.session import Session
from failsoft.sessions.state import unavailable

if TYPE_CHECKING:
    from failsoft.sessions.service import Sessions, Steps

__all__ = ["Record", "SessionInfo", "Subjects"]

_T = TypeVar("_T")

_PIECE = 200
"""Operations in one flight, so that a long list does not hold up the server's other clients."""


class SessionInfo(NamedTuple):
    """One session of a subject.

    Attributes:
        handle: names it, and opens nothing.
        created: when it began, in seconds since the epoch.
        seen: when it was last seen; up to the setting `session_touch` later.
        device: the User-Agent of the login, as far as it can be shown; at most 200 characters. A client can say what it likes there.
        current: whether it is the one that was given for comparison.
    """

    handle: str
    created: float
    seen: float
    device: str
    current: bool = False


class Record(NamedTuple):
    """What the store has under a handle.

    Attributes:
        fields: as they are stored, those of the server's own (``@c``...) among them; some may be sealed.
        principal: who is logged in; None for nobody, or where it cannot be read.
    """

    fields: dict[str, bytes]
    principal: Principal | None


class Subjects:
    """A subject is a user's identifier, as it was given to `login`.

    Each method has a twin for coroutines, whose name begins with ``a``.
    """

    __slots__ = ("_service",)

    def __init__(self, service: "Sessions") -> None:
        self._service = service

    def list(self, subject: str, current: Session | None = None) -> Sequence[SessionInfo]:
        """The sessions of `subject` that may still be used, the oldest login first.

        At most 1000, or `session_cap`: those beyond are not listed, and are ended by `revoke_all` nevertheless.

        Args:
            subject: the user's identifier.
            current: the request's session, to be marked.

        Raises:
            SessionUnavailable: the store is away.
        """
        return self._run(self._list(subject, current))

    async def alist(self, subject: str, current: Session | None = None) -> Sequence[SessionInfo]:
        """See `list`."""
        return await self._arun(self._list(subject, current))

    def count(self, subject: str) -> int:
        """How many sessions of `subject` `list` would give. Raises `SessionUnavailable` while the store is away."""
        return len(self.list(subject))

    async def acount(self, subject: str) -> int:
        """See `count`."""
        return len(await self.alist(subject))

    def revoke(self, subject: str, handle: str) -> bool:
        """End one session of `subject`; the handle may come from anybody, for another user's session is left alone.

        Args:
            subject: the user's identifier.
            handle: as in the list.

        Returns:
            Whether there was such a session.

        Raises:
            SessionUnavailable: the store is away; or too few replicas have confirmed it.
        """
        return self._run(self._revoke(subject, handle))

    async def arevoke(self, subject: str, handle: str) -> bool:
        """See `revoke`."""
        return await self._arun(self._revoke(subject, handle))

    def revoke_all(self, subject: str) -> int:
        """End every session of `subject`, also those that are not listed. Who logs in after it has a new one.

        Returns:
            How many were listed.

        Raises:
            SessionUnavailable: the store is away; or too few replicas have confirmed it.
        """
        return len(self._run(self._revoke_all(subject, "")))

    async def arevoke_all(self, subject: str) -> int:
        """See `revoke_all`."""
        return len(await self._arun(self._revoke_all(subject, "")))

    def revoke_others(self, session: Session) -> int:
        """End every session of the user of `session` but this one, which gets another id: for a changed password.

        What was changed in `session` so far is written with it. Within a request the new cookie goes out with the response; for a session
        without one it is owed: `Sessions.save` the session.

        Returns:
            How many were listed.

        Raises:
            SessionUnavailable: the store is away; or too few replicas have confirmed it.
            SessionConflict: the session ended, or another request has just given it another id. The others may be revoked.
            ValueError: nobody is logged in.
        """
        return self._run(self._revoke_others(session))

    async def arevoke_others(self, session: Session) -> int:
        """See `revoke_others`."""
        return await self._arun(self._revoke_others(session))

    def look(self, handle: str) -> Record | None:
        """What the store has under `handle`, or None; for tools. Raises `SessionUnavailable` while the store is away."""
        return self._run(self._look(handle))

    async def alook(self, handle: str) -> Record | None:
        """See `look`."""
        return await self._arun(self._look(handle))

    # How

    def _run(self, steps: "Steps[_T]") -> _T:
        return self._service.carrier.run(steps, current())

    async def _arun(self, steps: "Steps[_T]") -> _T:
        return await self._service.carrier.arun(steps, current())

    def _list(self, subject: str, mine: Session | None) -> "Steps[Sequence[SessionInfo]]":
        service = self._service
        listed = _sure((yield (List(service.subject_key(subject), lifetime=service.lifetime),)))[0]
        glances = [Glance(service.record_key(handle)) for handle, _, _ in listed.sessions]
        found: list[SessionInfo] = []
        glimpses: list[Any] = []
        for start in range(0, len(glances), _PIECE):
            glimpses += _sure((yield glances[start : start + _PIECE]))
        for (handle, _, description), glimpse in zip(listed.sessions, glimpses, strict=True):
            if glimpse is None or glimpse.generation <= listed.not_before or not self.may_be(handle, glimpse, subject):
                continue
            device = service.unseal(handle, "device", description) or b""
            found.append(
                SessionInfo(
                    handle,
                    glimpse.created / 1000,
                    glimpse.seen / 1000,
                    device.decode(errors="replace"),
                    mine is not None and mine.handle == handle,
                )
            )
        return found

    def _look(self, handle: str) -> "Steps[Record | None]":
        if not is_handle(handle):
            return None
        fields = _sure((yield (Look(self._service.record_key(handle)),)))[0]
        return Record(fields, self._principal(handle, fields)) if fields else None

    def may_be(self, handle: str, glimpse: Glimpse, subject: str) -> bool:
        """Whether it is a session of `subject`, as far as can be said: of two logins at once the one that was refused is listed too."""
        if not glimpse.principal:
            return False
        principal = self._principal(handle, {PRINCIPAL: glimpse.principal})
        return principal is None or principal.subject == subject

    def _principal(self, handle: str, fields: dict[str, bytes]) -> Principal | None:
        stored = fields.get(PRINCIPAL)
        data = None if stored is None else self._service.unseal(handle, PRINCIPAL, stored)
        try:
            return None if data is None else unpack_principal(data)
        except ValueError:
            return None

    def _revoke(self, subject: str, handle: str) -> "Steps[bool]":
        if not is_handle(handle):
            return False
        service = self._service
        key, record = service.subject_key(subject), service.record_key(handle)
        listed, fields = _sure((yield (List(key, lifetime=service.lifetime), Look(record))))
        principal = self._principal(handle, fields)
        known = any(handle == one for one, _, _ in listed.sessions)
        anonymous = bool(fields) and PRINCIPAL not in fields
        if anonymous or (not known if principal is None else principal.subject != subject):
            return False
        wanted: list[Operation] = [Revoke(key, handle, lifetime=service.lifetime), Delete(record, None)]
        self._confirmed(_sure((yield self._waiting(wanted))))
        if not fields:
            return False  # it was still listed, and had ended by itself
        service.publish(SessionRevoked(handle, subject, "revoked"))
        return True

    def _revoke_all(self, subject: str, keep: str) -> "Steps[Sequence[str]]":
        _, handles = yield from self._mark_all(subject, keep)
        return handles

    def _mark_all(self, subject: str, keep: str) -> "Steps[tuple[int, Sequence[str]]]":
        service = self._service
        revoke = RevokeAll(service.subject_key(subject), lifetime=service.lifetime, keep=keep)
        answers = _sure((yield self._waiting([revoke])))
        not_before, handles = answers[0]
        for handle in handles:
            service.publish(SessionRevoked(handle, subject, "revoked"))
        service.publish(SubjectRevoked(keep or None, subject, len(handles)))
        for start in range(0, len(handles), _PIECE):
            # What is not deleted now is dead by its mark, and goes when its time is over.
            piece = handles[start : start + _PIECE]
            glimpses = yield [Glance(service.record_key(handle)) for handle in piece]
            if not isinstance(glimpses, StoreUnavailable):
                found = zip(piece, glimpses, strict=True)
                own = [one for one, seen in found if isinstance(seen, Glimpse) and self.may_be(one, seen, subject)]
                if own:
                    yield [Delete(service.record_key(handle), None) for handle in own]
        self._confirmed(answers)
        return not_before, handles

    def _revoke_others(self, session: Session) -> "Steps[int]":
        yield from loading(session)
        if session.degraded:
            raise unavailable("The sessions' store cannot be reached.")
        principal, handle, exchange = session.principal, session.handle, session.exchange
        if session.login_pending is not None:
            raise ValueError(
                "the login of this request is not stored yet: save the session before its others are revoked"
            )
        if principal is None or handle is None:
            raise ValueError("nobody is logged in: there are no other sessions to revoke")
        if exchange is None or not exchange.settled:  # otherwise the browser can no longer be told
            session.rotate(strict=True)  # whoever has a copy of the id is one of the others
        not_before, handles = yield from self._mark_all(principal.subject, handle)
        session.above = not_before
        if exchange is not None:
            saving = Saving(session)  # of its own: the request's may be at work for another task
            try:
                yield from saving.steps()
            finally:  # a new id that was written and not acknowledged is owed, too
                self._service.saving_of(exchange, session).cookies += saving.cookies
        return len(handles)

    def _waiting(self, wanted: Sequence[Operation]) -> Sequence[Operation]:
        service = self._service
        return [*wanted, Wait(service.wait, service.wait_for)] if service.wait else wanted

    def _confirmed(self, answers: Sequence[Any]) -> None:
        """Raise, if `answers` to what was `_waiting` say that too few replicas have it."""
        if self._service.wait and answers[-1] < self._service.wait:
            raise unavailable(
                "It is revoked, but too few replicas of the session's store have confirmed that. Repeat it."
            )


def _sure(answers: Answers) -> Sequence[Any]:
    if isinstance(answers, StoreUnavailable) or any(
        isinstance(one, OperationFailed | StoreUnavailable) for one in answers
    ):
        raise unavailable("The sessions' store cannot be reached, or does not take it.")
    return answers
