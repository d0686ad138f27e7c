"""One application's sessions: the concern, and where sessions begin.

Theory of operation. A session joins its request as a *rider*: where the request makes a flight anyway, the session is loaded in it,
used or not; otherwise at the first access, in a flight of its own. Where code cannot wait at the first access (on an event loop),
adapters open the session as *eager*: it is then loaded with the request's flight, or makes one. A request without a well-formed cookie
asks the store nothing.
"""

import os
from collections.abc import Callable, Generator, Mapping, Sequence
from typing import Protocol, TypeVar

from failsoft.clock import SYSTEM, Clock
from failsoft.errors import ConfigurationError
from failsoft.events import Event, Listeners, SessionDegraded, SessionRevoked
from failsoft.exchange import (
    SUBJECT,
    Answers,
    Bound,
    Exchange,
    Operation,
    Policy,
    Route,
)
from failsoft.ratelimit.identity import digest
from failsoft.sessions.companion import Companion, Companions, RememberSeals, Ticket, Tickets
from failsoft.sessions.content import SEALED, Content
from failsoft.sessions.cookies import CookieStyle
from failsoft.sessions.credentials import CredentialReader, Recent
from failsoft.sessions.imported import importer_of
from failsoft.sessions.live import CONCERN, LiveSession
from failsoft.sessions.loading import loading
from failsoft.sessions.manage import Subjects
from failsoft.sessions.operations import Delete, Revoke
from failsoft.sessions.record import PRINCIPAL, stored_name
from failsoft.sessions.riders import Live, Rider
from failsoft.sessions.saving import Saving
from failsoft.sessions.seal import KeyRing
from failsoft.sessions.session import Session
from failsoft.sessions.state import UNKNOWN, UNLOADED, State
from failsoft.settings import Settings

__all__ = ["SCHEMA", "Carrier", "Sessions", "Steps"]

SCHEMA = 1
"""Of the records. A release that changes them reads the former one too."""

_T = TypeVar("_T")

_MEMO = "failsoft.session"

Steps = Generator[Sequence[Operation], Answers, _T]
"""A decision with I/O in the middle: yields what goes to the store, is sent the answers."""


class Carrier(Protocol):
    """Carries `Steps` through; the drivers have one for each store."""

    def run(self, steps: Steps[_T], exchange: Exchange | None) -> _T:
        """From synchronous code."""
        ...

    async def arun(self, steps: Steps[_T], exchange: Exchange | None) -> _T:
        """From a coroutine."""
        ...


class Sessions:
    """The concern.

    Args:
        settings: validated settings, with `sessions` on.
        carrier: carries operations to the sessions' store.
        clock: injectable time.
        listeners: hear of what happens to sessions.
        random: gives so many unpredictable bytes; only tests replace it.

    Attributes:
        style: the session's cookie.
        seal_style: the sealed companion's.
        ticket_style: the logout ticket's.
        remember_style: that of the seal beside a remember cookie.
        subjects: lists and revokes the sessions of one user.
        nothing: what a session holds that nobody has loaded or written; all share it.
        snapshot_names: stored names that the snapshot carries beside the principal. Adapters add what their framework needs to know a user.
    """

    name = CONCERN

    def __init__(
        self,
        settings: Settings,
        *,
        carrier: Carrier,
        clock: Clock = SYSTEM,
        listeners: Listeners | None = None,
        random: Callable[[int], bytes] = os.urandom,
    ) -> None:
        if settings.secret is None:
            raise ConfigurationError("sessions need the setting secret: cookies are sealed with it")
        self.settings = settings
        self.carrier = carrier
        self.clock = clock
        self.random = random
        self._listeners = listeners
        self.store = settings.session_store
        self.idle = _milliseconds(settings.session_idle)
        self.lifetime = _milliseconds(settings.session_absolute)
        self.touch = _milliseconds(settings.session_touch)
        self.grace = _milliseconds(settings.session_grace)
        self.cap = settings.session_cap
        self.most_bytes = settings.session_bytes
        self.wait = settings.session_wait
        # A third of the deadline: a server that did not know the scripts is asked twice.
        self.wait_for = max(1, _milliseconds(settings.deadline) // 3)
        self.empty_when_away = settings.session_on_outage == "empty"
        self.snapshot_age = settings.session_snapshot
        self.snapshot_names = dict.fromkeys(stored_name(key, None) for key in settings.session_snapshot_keys)
        self.style = CookieStyle(
            name=settings.session_cookie,
            domain=settings.cookie_domain,
            path=settings.cookie_path,
            secure=settings.cookie_secure,
            httponly=settings.cookie_httponly,
            samesite=settings.cookie_samesite,
            partitioned=settings.cookie_partitioned,
        )
        self.seal_style = self.style.beside("-seal")
        self.ticket_style = self.style.beside("-logout")
        self.remember_style = self.style.beside("-remember")
        secrets = (settings.secret, settings.secret_fallbacks)
        self.companions = Companions(KeyRing(*secrets, purpose=f"session companion {settings.prefix}", random=random))
        self.tickets = Tickets(KeyRing(*secrets, purpose=f"session logout {settings.prefix}", random=random))
        self.remember_seals = RememberSeals(
            KeyRing(*secrets, purpose=f"session remember {settings.prefix}", random=random)
        )
        self._ring = KeyRing(*secrets, purpose=f"session record {settings.prefix}", random=random)
        self.encrypts = settings.session_encrypt
        self.nothing = Content(self)
        self.importer = importer_of(settings)
        self._prefix = f"{settings.prefix}:{SCHEMA}"
        self.subjects = Subjects(self)
        self._credentials = CredentialReader(self)
        # Sessions that were found dead, by handle: whoever goes on showing the cookies of one is not on its user's account.
        self.ended: Recent[str | None, None] = Recent()
        self._rider = Rider(self)

    # The concern

    def bind(self, route: Route, policies: Sequence[Policy], *, late: bool) -> Bound | Sequence[Bound] | None:
        """Every request may have a session; some need one that the store vouches for."""
        live = any(isinstance(policy, LiveSession) for policy in policies)
        if late:
            return Live(self) if live else None
        return Live(self) if live else self._rider

    def open(self, cookies: str | None, exchange: Exchange | None = None, *, eager: bool = False) -> Session:
        """The session that a request's cookies lead to. Nothing is loaded yet.

        Args:
            cookies: the Cookie field, or None.
            exchange: the request; a second call for it gives the same session.
            eager: whether it is loaded even if the request needs nothing else from the store.
        """
        if exchange is None:
            return self._read(cookies)
        part: Saving | None = exchange.memo.get(_MEMO)
        if part is not None:
            return part.session
        session = self._read(cookies)
        self.attach(exchange, session)
        if eager and session.state is UNLOADED:
            exchange.wanted = True
        return session

    def attach(self, exchange: Exchange, session: Session) -> Saving:
        """Make `session`, which was opened before, that of a request. Returns its part in it."""
        session.exchange = exchange
        exchange.memo[_MEMO] = part = Saving(session)
        hint = session.subject_hint
        if hint is not None and session.handle not in self.ended:
            exchange.memo[SUBJECT] = hint
        if session.ticket is not None:
            exchange.wanted = True  # to make up for the logout, whatever the request needs
        exchange.attend_last(self.store, part)  # `Wait` belongs at the end of a flight
        return part

    def part_of(self, exchange: Exchange) -> Saving | None:
        """The part that the session has in a request. It is opened if it was not; None where there is no cookie to begin with."""
        part: Saving | None = exchange.memo.get(_MEMO)
        if part is None and (cookies := exchange.facts.header("cookie")):
            return self.attach(exchange, self._read(cookies))
        return part

    def _read(self, cookies: str | None) -> Session:
        if not cookies:
            return Session(self)
        identity, companion, ticket, foreign, loads, remembered = self._credentials.read(cookies)
        session = Session(self, identity, companion, ticket, foreign, loads)
        if remembered is not None:
            session.remembered = remembered
        return session

    # I/O

    def load(self, session: Session) -> None:
        """Ask the store now. Does nothing where the state is known."""
        if session.state in UNKNOWN:
            self.carrier.run(loading(session), session.exchange)

    async def aload(self, session: Session) -> None:
        """The same, from a coroutine."""
        if session.state in UNKNOWN:
            await self.carrier.arun(loading(session), session.exchange)

    def save(self, session: Session) -> list[str]:
        """Write now what is to be written. Returns the values of the Set-Cookie fields that the browser is owed.

        Raises:
            SessionUnavailable: the store did not take it.
            SessionConflict: the session ended meanwhile.
            SessionTooLarge: a value that was changed inside is too large now.
            SessionValueError: or it is of a kind that cannot be stored.
        """
        return self.carrier.run(_saving(session), session.exchange)

    async def asave(self, session: Session) -> list[str]:
        """The same, from a coroutine."""
        return await self.carrier.arun(_saving(session), session.exchange)

    def saving_of(self, exchange: Exchange, session: Session) -> Saving:
        """What gives the response of a request its cookies."""
        found: Saving | None = exchange.memo.get(_MEMO)
        return found or Saving(session)

    # What sessions ask

    def imported_cookies(self) -> list[str]:
        """What deletes the other package's cookie, where it is not replaced by ours: it would lead to what was carried over once more."""
        if self.importer is None or self.style.full_name == self.style.name:
            return []
        return [self.style.delete().removeprefix(self.style.full_name.removesuffix(self.style.name))]

    def record_key(self, handle: str) -> str:
        """Where a session's record lies."""
        return f"{self._prefix}:sess:{{{handle}}}"

    def subject_key(self, subject: str) -> str:
        """Where a subject's list lies. Not keyed: it must be found when the secret has been replaced."""
        return f"{self._prefix}:subj:{{{digest(subject)}}}"

    def seal(self, handle: str, name: str, data: bytes) -> bytes:
        """A value as the store gets it."""
        return self._ring.seal(data, f"{handle}\0{name}".encode()) if self.encrypts else data

    def unseal(self, handle: str, name: str, data: bytes) -> bytes | None:
        """A value that the store had, or None where it cannot be read. What was stored before encryption was turned on is read as it is."""
        if not data.startswith(SEALED):
            return None if self.encrypts and name == PRINCIPAL else data
        return self._ring.unseal(data, f"{handle}\0{name}".encode())

    def snapshot_of(self, companion: Companion | None) -> Mapping[str, bytes] | None:
        """The values that stand in while the store is away, if there are any that are young enough."""
        if companion is None or companion.values is None or not self.snapshot_age:
            return None
        now = self.clock.time()
        young = 0 <= now - companion.issued <= self.snapshot_age
        return companion.values if young and companion.deadline > now else None

    def replay(self, ticket: Ticket) -> Sequence[Operation]:
        """What makes up for logouts that had to wait."""
        wanted: list[Operation] = []
        for one in ticket.ended:
            wanted.append(Delete(self.record_key(one.handle), one.digest or None))
            if one.subject is not None:
                wanted.append(Revoke(self.subject_key(one.subject), one.handle, lifetime=self.lifetime))
        return wanted

    # What sessions tell

    def publish(self, event: Event) -> None:
        """Hand `event` to all listeners."""
        if self._listeners:
            self._listeners.publish(event)

    def degraded(self, session: Session) -> None:
        """A session got no answer."""
        reason = session.reason or "failed"
        if session.exchange is not None:
            session.exchange.degrade("session", reason)
        if self._listeners:
            answer = "empty" if self.empty_when_away else "refuse"
            answer = "snapshot" if session.state is State.SNAPSHOT else answer
            known = session.principal_known
            subject = None if known is None else known.subject
            self._listeners.publish(SessionDegraded(session.handle, subject, reason, answer))

    def replayed(self, session: Session) -> None:
        """A logout that had to wait was made up for."""
        session.replayed = True
        if session.ticket is not None:
            for one in session.ticket.ended:
                self.publish(SessionRevoked(one.handle, one.subject, "replayed"))


def _milliseconds(seconds: float) -> int:
    return max(0, int(seconds * 1000))


def _saving(session: Session) -> Steps[list[str]]:
    saving = Saving(session)
    own = saving if session.exchange is None else session.service.saving_of(session.exchange, session)
    try:
        yield from saving.steps()
    except BaseException:  # a new id that was written and not acknowledged: the old one is dead
        if own is not saving:
            own.cookies += saving.cookies
        raise
    if own is saving or (session.exchange is not None and session.exchange.settled):
        return saving.cookies
    cookies, own.cookies = [*own.cookies, *saving.cookies], []  # of several of one name the last one stands
    return cookies
