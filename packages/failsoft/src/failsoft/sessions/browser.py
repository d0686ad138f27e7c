"""What a browser is given of a session: its id, the seal beside it, the ticket of a logout, and the header fields that go with them."""

import logging
from collections.abc import Sequence
from typing import Final

from msgspec.structs import replace

from failsoft.sessions.companion import SEAL_RENEWED, Companion, Ended, Ticket, fits
from failsoft.sessions.ids import SessionId
from failsoft.sessions.record import PRINCIPAL, Meta
from failsoft.sessions.session import Session
from failsoft.sessions.state import LIVE, State

__all__ = ["header_fields", "id_cookie", "revoked_seal", "seal_cookies", "seal_is_stale", "ticket_cookie"]

_log = logging.getLogger("failsoft.sessions")

_SHARE: Final = 3
"""A snapshot is made anew when a third of its life is over."""


def id_cookie(session: Session, identity: SessionId, meta: Meta) -> str:
    """The cookie with the id."""
    service = session.service
    now = service.clock.time()
    return service.style.set(str(identity), _max_age(session, meta, now), now=now)


def seal_cookies(session: Session, identity: SessionId, meta: Meta) -> Sequence[str]:
    """The cookie with the seal; none where no browser would keep it, or the session is over."""
    service = session.service
    now = service.clock.time()
    age = _max_age(session, meta, now)
    if age == 0:  # it would delete the one that there is, by now maybe another session's
        return ()
    principal = session.principal_known
    values = session.content.snapshot(service.snapshot_names) if service.snapshot_age else None
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
    if not fits(text):
        if values is None:
            return ()
        _log.warning(
            "the snapshot of session %s does not fit into a cookie; it only says who is logged in. Name fewer session_snapshot_keys",
            identity.handle,
        )
        only = {PRINCIPAL: values[PRINCIPAL]} if PRINCIPAL in values else {}
        text = service.companions.pack(replace(companion, values=only), bound)
        if not fits(text):
            return ()
    session.companion = companion
    return (service.seal_style.set(text, age, now=now, ours=True),)


def revoked_seal(session: Session, identity: SessionId) -> str:
    """The cookie that says of a session that it was revoked, in place of the seal beside its id. The id stays: see `loading`."""
    service = session.service
    now = service.clock.time()
    deadline = now + service.lifetime / 1000
    said = Companion(
        subject=None, generation=0, auth_time=0.0, version=0, issued=now, deadline=deadline, values=None, revoked=True
    )
    text = service.companions.pack(said, identity.digest.encode())
    return service.seal_style.set(text, service.lifetime // 1000, now=now)


def ticket_cookie(session: Session, ended: Sequence[Ended]) -> str:
    """The cookie that makes up later for the logout that has `ended` these, and for those before it that the store has not been told of:
    the browser keeps one ticket."""
    service = session.service
    session.ticketed = (*reversed(ended), *session.ticketed)
    waiting = () if session.ticket is None or session.replayed else session.ticket.ended
    said = tuple(dict.fromkeys((*session.ticketed, *waiting)))  # what was logged out of last comes first
    now = service.clock.time()
    while not fits(text := service.tickets.pack(Ticket(ended=said, issued=now))):
        said = said[:-1]  # there are more than any user has: seals were planted
    return service.ticket_style.set(text, service.lifetime // 1000, now=now)


def seal_is_stale(session: Session) -> bool:
    """Whether the browser needs another seal, although nothing was written to the live session: it has none, or one that gets old."""
    if session.renewed:
        return False
    companion = session.companion
    if (
        companion is None or companion.version > session.version
    ):  # or it would be told again that the store has lost writes
        return True
    service = session.service
    age = service.clock.time() - companion.issued
    if age >= SEAL_RENEWED:
        return True
    return service.snapshot_age > 0 and (companion.values is None or age >= service.snapshot_age / _SHARE)


def header_fields(session: Session, cookies: Sequence[str]) -> list[tuple[str, str]]:
    """Header fields for the response, with these values of Set-Cookie fields."""
    if session.replayed:  # first, for another logout may have left another
        cookies = [session.service.ticket_style.delete(), *cookies]
    kept = "private"
    if session.accessed and session.state is not LIVE and session.state in (State.SNAPSHOT, State.AWAY):
        # A page that was made without the session must not outlive the outage. There are caches that know the second word only.
        kept = "no-store, private"
    elif not cookies:
        return [("Vary", "Cookie")] if session.accessed else []
    # A shared cache that kept the cookies would log its other clients in (RFC 9111, section 7.3).
    return [("Vary", "Cookie"), ("Cache-Control", kept), *(("Set-Cookie", cookie) for cookie in cookies)]


def _max_age(session: Session, meta: Meta, now: float) -> int | None:
    return max(0, int(meta.deadline / 1000 - now)) if session.persists(session) else None
