"""One application's sessions: the concern, and where sessions begin.

Theory of operation. A session joins its request as a *rider*: where the request makes a flight anyway, the session is loaded in it,
used or not; otherwise at the first access, in a flight of its own. Where code cannot wait at the first access (on an event loop),
adapters open the session as *eager*: it is then loaded with the request's flight, or makes one. A request without a well-formed cookie
asks the store nothing.
"""

import os
from collections.abc import Callable, Generator, Iterable, Mapping, Sequence
from typing import NamedTuple, Protocol, TypeVar

from failsoft.clock import SYSTEM, Clock
from failsoft.errors import ConfigurationError, Rejected
from failsoft.events import Event, Listeners, SessionDegraded, SessionRevoked
from failsoft.exchange import (
    SUBJECT,
    Answers,
    Bound,
    Exchange,
    Operation,
    Participant,
    Policy,
    Question,
    Route,
)
from failsoft.ratelimit.identity import digest
from failsoft.sessions.companion import Companion, Companions, Ticket, Tickets
from failsoft.sessions.cookies import CookieStyle, values
from failsoft.sessions.ids import SessionId
from failsoft.sessions.imported import importer_of
from failsoft.sessions.live import CONCERN, LiveSession
from failsoft.sessions.manage import Subjects
from failsoft.sessions.operations import Check, Delete, Load, Revoke
from failsoft.sessions.record import PRINCIPAL
from failsoft.sessions.saving import Saving
from failsoft.sessions.seal import KeyRing
from failsoft.sessions.session import Session, State, unavailable
from failsoft.settings import Settings

__all__ = ["SCHEMA", "Carrier", "Sessions", "Steps", "session_of"]

SCHEMA = 1
"""Of the records. A release that changes them reads the former one too."""

_T = TypeVar("_T")

_MOST_SEEN = 1024
"""Cookie fields whose meaning a process remembers: a page asks several things at once, and half of what a read costs us is in there."""

_LONGEST_SEEN = 4096
"""Characters of a field that is remembered."""
_MEMO = "failsoft.session"
_SAVING = "failsoft.session.saving"

Steps = Generator[Sequence[Operation], Answers, _T]
"""A decision with I/O in the middle: yields what goes to the store, is sent the answers."""


class _Seen(NamedTuple):
    """What a Cookie field says, and what loads the session: it depends on nothing else."""

    identity: SessionId | None
    companion: Companion | None
    ticket: Ticket | None
    foreign: str | None
    load: Sequence[Operation]


class Carrier(Protocol):
    """Carries `Steps` through; the drivers have one for each store."""

    def run(self, steps: Steps[_T], exchange: Exchange | None) -> _T:
        """From synchronous code."""
        ...

    async def arun(self, steps: Steps[_T], exchange: Exchange | None) -> _T:
        """From a coroutine."""
        ...


def session_of(exchange: Exchange) -> Session | None:
    """The session that was opened for a request, or None."""
    found: Session | None = exchange.memo.get(_MEMO)
    return found


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
        subjects: lists and revokes the sessions of one user.
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
        self.snapshot_names = dict.fromkeys(settings.session_snapshot_keys)
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
        secrets = (settings.secret, settings.secret_fallbacks)
        self.companions = Companions(KeyRing(*secrets, purpose=f"session companion {settings.prefix}", random=random))
        self.tickets = Tickets(KeyRing(*secrets, purpose=f"session logout {settings.prefix}", random=random))
        self._ring = KeyRing(*secrets, purpose=f"session record {settings.prefix}", random=random)
        self._encrypts = settings.session_encrypt
        self.importer = importer_of(settings)
        self._prefix = f"{settings.prefix}:{SCHEMA}"
        self.subjects = Subjects(self)
        self._seen: dict[str, _Seen] = {}
        self._rider = _Rider(self)

    # The concern

    def bind(self, route: Route, policies: Sequence[Policy], *, late: bool) -> Bound | Sequence[Bound] | None:
        """Every request may have a session; some need one that the store vouches for."""
        live = any(isinstance(policy, LiveSession) for policy in policies)
        if late:
            return _Live(self) if live else None
        return _Live(self) if live else self._rider

    def open(self, cookies: str | None, exchange: Exchange | None = None, *, eager: bool = False) -> Session:
        """The session that a request's cookies lead to. Nothing is loaded yet.

        Args:
            cookies: the Cookie field, or None.
            exchange: the request; a second call for it gives the same session.
            eager: whether it is loaded even if the request needs nothing else from the store.
        """
        if exchange is not None and (known := session_of(exchange)) is not None:
            return known
        session = self._read(cookies, exchange)
        if exchange is not None:
            self.attach(exchange, session)
            if eager and session.state is State.UNLOADED:
                exchange.wanted = True
        return session

    def attach(self, exchange: Exchange, session: Session) -> None:
        """Make `session`, which was opened before, that of a request."""
        session.exchange = exchange
        exchange.memo[_MEMO] = session
        if session.subject_hint is not None:
            exchange.memo[SUBJECT] = session.subject_hint
        if session.ticket is not None:
            exchange.wanted = True  # to make up for the logout, whatever the request needs
        exchange.memo[_SAVING] = saving = Saving(session)
        exchange.attend(self.store, saving)

    def _read(self, cookies: str | None, exchange: Exchange | None) -> Session:
        if not cookies:
            return Session(self, exchange=exchange)
        seen = self._seen.get(cookies)
        if seen is None:
            seen = self._parse(cookies)
            if seen.identity is not None and seen.ticket is None and len(cookies) <= _LONGEST_SEEN:
                self._remember(cookies, seen)
        return Session(self, seen.identity, seen.companion, seen.ticket, exchange, seen.foreign, seen.load)

    def _remember(self, cookies: str, seen: "_Seen") -> None:
        table = self._seen
        if len(table) >= _MOST_SEEN:
            try:
                del table[next(iter(table))]
            except (KeyError, RuntimeError):  # another thread was quicker
                pass
        table[cookies] = seen

    def _parse(self, cookies: str) -> "_Seen":
        identity = companion = None
        for one in filter(None, map(SessionId.parse, values(cookies, self.style.full_name))):
            identity, bound = identity or one, one.digest.encode()
            for text in values(cookies, self.seal_style.full_name):
                companion = companion or self.companions.unpack(text, bound)
            if companion is not None:  # of several, that which a seal of ours goes with: another may have been planted
                identity = one
                break
        ticket = None
        if "-logout=" in cookies:
            tickets = map(self.tickets.unpack, values(cookies, self.ticket_style.full_name))
            # What is older speaks of a session that has ended by itself.
            oldest = self.clock.time() - self.lifetime / 1000
            ticket = next((one for one in tickets if one is not None and one.issued >= oldest), None)
        foreign = None
        if identity is None and self.importer is not None:
            # The other package put no __Host- before its name.
            names = dict.fromkeys((self.style.full_name, self.style.name))
            known = (self.importer.key_of(text) for name in names for text in values(cookies, name))
            foreign = next(filter(None, known), None)
        load: list[Operation] = []
        if identity is not None:
            load.append(Load(self.record_key(identity.handle), identity.digest, idle=self.idle, touch=self.touch))
            if companion is not None and companion.subject is not None:
                load.append(Check(self.subject_key(companion.subject), identity.handle))
        return _Seen(identity, companion, ticket, foreign, load)

    # I/O

    def load(self, session: Session) -> None:
        """Ask the store now. Does nothing where the state is known."""
        self.carrier.run(session.loading(), session.exchange)

    async def aload(self, session: Session) -> None:
        """The same, from a coroutine."""
        await self.carrier.arun(session.loading(), session.exchange)

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
        """What gives the response of a request its cookies, to write the session before the request is over."""
        found: Saving | None = exchange.memo.get(_SAVING)
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
        return self._ring.seal(data, f"{handle}\0{name}".encode()) if self._encrypts else data

    def unseal(self, handle: str, name: str, data: bytes) -> bytes | None:
        """A value that the store had, or None where it cannot be read. What was stored before encryption was turned on is read as it is."""
        if not data.startswith(b"\x01"):  # JSON never begins so, a seal always does
            return None if self._encrypts and name == PRINCIPAL else data
        return self._ring.unseal(data, f"{handle}\0{name}".encode())

    def snapshot_of(self, companion: Companion | None) -> Mapping[str, bytes] | None:
        """The values that stand in while the store is away, if there are any that are young enough."""
        if companion is None or companion.values is None or not self.snapshot_age:
            return None
        now = self.clock.time()
        young = 0 <= now - companion.issued <= self.snapshot_age
        return companion.values if young and companion.deadline > now else None

    def replay(self, ticket: Ticket) -> Sequence[Operation]:
        """What makes up for a logout that had to wait."""
        wanted: list[Operation] = [Delete(self.record_key(ticket.handle), ticket.digest or None)]
        if ticket.subject is not None:
            wanted.append(Revoke(self.subject_key(ticket.subject), ticket.handle, lifetime=self.lifetime))
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
            self.publish(SessionRevoked(session.ticket.handle, session.ticket.subject, "replayed"))


def _milliseconds(seconds: float) -> int:
    return max(0, int(seconds * 1000))


def _saving(session: Session) -> Steps[list[str]]:
    saving = Saving(session)
    wanted = saving.settle(200)
    while wanted:
        found = saving.confirm((yield wanted))
        if isinstance(found, Rejected):
            if session.exchange is not None:  # a new id that was written and not acknowledged: the old one is dead
                session.service.saving_of(session.exchange, session).cookies += saving.cookies
            raise found
        wanted = found
    if saving.refused is not None:
        raise saving.refused
    return saving.cookies


class _Rider:
    """Loads the session in the flight that the request makes anyway."""

    questions: Sequence[Question] = ()
    rides = True

    def __init__(self, service: Sessions) -> None:
        self._service = service
        self.store = service.store

    def join(self, exchange: Exchange) -> Participant | None:
        """Take part, if there is anything to ask."""
        session = session_of(exchange) or self._service.open(exchange.facts.header("cookie"), exchange)
        return _Loading(session) if session.state is State.UNLOADED or session.ticket is not None else None


class _Live(_Rider):
    """Loads the session in any case, and refuses the request while the store is away."""

    rides = False

    def join(self, exchange: Exchange) -> Participant | None:
        """Take part, if there is a session to vouch for."""
        session = session_of(exchange) or self._service.open(exchange.facts.header("cookie"), exchange)
        if session.state in (State.NEW, State.LIVE) and session.ticket is None:
            return None
        return _LoadingLive(session)


class _Loading:
    """The load of one session."""

    __slots__ = ("_session", "operations")

    def __init__(self, session: Session) -> None:
        self._session = session
        self.operations = session.load_operations()

    def receive(self, answers: Answers) -> Rejected | None:
        """Take the answers; whoever reads the session hears of an outage."""
        if self.operations:
            self._session.loaded(answers)
        return None

    def settle(self, status: int) -> Sequence[Operation]:
        """What was changed is settled by `Saving`."""
        return ()

    def headers(self) -> Iterable[tuple[str, str]]:
        """Likewise."""
        return ()


class _LoadingLive(_Loading):
    __slots__ = ()

    def receive(self, answers: Answers) -> Rejected | None:
        super().receive(answers)
        if self._session.state in (State.AWAY, State.SNAPSHOT):
            return unavailable("This needs the session itself, and its store cannot be reached.")
        return None
