"""A write of a session: what is sent to the store, and what the session is once the store has it.

Between the two, other tasks of the request may ask for more. So whoever has `sent` a write keeps what it was sent with.
"""

from collections.abc import Mapping, Sequence
from typing import Final, NamedTuple

from failsoft.exchange import Operation
from failsoft.sessions.content import IDLE, Content
from failsoft.sessions.ids import SessionId
from failsoft.sessions.operations import Create, Delete, Enrol, Write
from failsoft.sessions.record import Meta, Principal
from failsoft.sessions.session import Session
from failsoft.sessions.state import LIVE, NEW

__all__ = ["Sent", "saved", "send"]

_MOST_LISTED: Final = 1000
"""Sessions of one subject that are listed where there is no cap. Those beyond live on unlisted, and end with all others."""


class Sent(NamedTuple):
    """A write that is under way.

    Attributes:
        identity: the id that the session has afterwards.
        written: what is set.
        stored: the same, as the store gets it.
        removed: what is deleted.
        version: the session's, as it was read.
        life: the session's `life`.
        login: its `login_pending`.
        rotated: its `rotation_pending`.
        strictly: whether the id before opens nothing from then on.
        above: its `above`.
    """

    identity: SessionId
    written: Mapping[str, bytes]
    stored: Mapping[str, bytes]
    removed: Sequence[str]
    version: int
    life: int
    login: Principal | None
    rotated: bool
    strictly: bool
    above: int


def send(
    session: Session,
    wanted: list[Operation],
    steps: list[str],
    fields: Mapping[str, bytes],
    removed: Sequence[str],
) -> Sent:
    """Write these, and list the session where somebody logs in.

    Args:
        session: which.
        wanted: what to ask the store; to be added to.
        steps: what each of that is called when it is answered; likewise.
        fields: what to set.
        removed: what to delete.
    """
    service, login = session.service, session.login_pending
    begun = session.id
    if session.state is NEW:
        begun = session.next or SessionId.new(service.random)
    else:
        assert begun is not None  # noqa: S101 - for the type checker: a live session has an id
        if session.rotation_pending:
            begun = session.next or begun.rotated(service.random)
    handle = begun.handle
    written = sealed = dict(fields)
    if service.encrypts:
        sealed = {name: data if name == IDLE else service.seal(handle, name, data) for name, data in fields.items()}
    strictly = login is not None or session.strict
    rotated, above = session.rotation_pending, session.above
    sent = Sent(begun, written, sealed, removed, session.version, session.life, login, rotated, strictly, above)
    key = service.record_key(handle)
    if login is not None:
        steps.append("enrol")
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
    if session.state is NEW:
        if begun is session.doubtful:  # it may be there, of an attempt that had no answer
            steps.append("undo")
            wanted.append(Delete(key, begun.digest))
        steps.append("create")
        wanted.append(Create(key, {"@h": begun.digest, **sealed}, idle=service.idle, lifetime=service.lifetime))
        return sent
    assert session.id is not None  # noqa: S101 - as above
    steps.append("write")
    wanted.append(
        Write(
            key,
            session.id.digest,
            sealed,
            removed,
            idle=service.idle,
            rotated=begun.digest if rotated else None,
            grace=service.grace,
            strict=strictly,
            lifetime=service.lifetime if login is not None else 0,
            above=above,
        )
    )
    return sent


def saved(session: Session, sent: Sent, meta: Meta) -> None:
    """The store has what was `sent`, and wrote `meta` about it. What another task has asked for since then still is to be written."""
    identity, login = sent.identity, sent.login
    session.id = identity
    if session.content is session.service.nothing:  # stored although there is nothing in it
        session.content = Content(session.service)
    session.content.handle = identity.handle
    session.content.saved(sent.written, sent.stored, sent.removed)
    if login is not None:
        session.principal_known = login
    idle = session.content.fields.get(IDLE)
    session.noted = meta if idle is None else meta._replace(idle=int(idle))
    session.version = meta.version
    if session.rotation_pending and (
        session.login_pending is not login or not sent.rotated or session.strict > sent.strictly
    ):
        # Asked for since then: still to come, and with an id that no write has used.
        if session.next is not None and (session.next is identity or session.next.handle != identity.handle):
            session.next = None
    else:
        session.rotation_pending = session.strict = False
        session.next = None
    if session.login_pending is login:
        session.login_pending = None
    session.force = False
    if session.above == sent.above:
        session.above = 0
    session.state = LIVE
    session.modified = bool(session.content.changed or session.content.removed or session.rotation_pending)
