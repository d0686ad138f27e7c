"""What happened, for those who want to know: frozen values, handed to listeners.

Listeners run where the event happened (a request's thread, the event loop, the connector's thread), so they must be quick;
what they raise is logged and goes no further. With no listener, no event is even made.
"""

import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import partial
from threading import Lock
from typing import Literal, NamedTuple

from failsoft.forks import start_over_in_children

__all__ = [
    "CapacityChanged",
    "Decider",
    "Event",
    "LimitDecided",
    "LimitNear",
    "LimitState",
    "Listener",
    "Listeners",
    "OperationRefused",
    "SessionCreated",
    "SessionDegraded",
    "SessionEvent",
    "SessionGone",
    "SessionMerged",
    "SessionRevoked",
    "SessionRolledBack",
    "SessionRotated",
    "Shed",
    "ShedReason",
    "StoreDegraded",
    "StoreRecovered",
    "SubjectRevoked",
]

Decider = Literal["store", "process", "denied", "lease"]
"""Who decided about a request."""

_log = logging.getLogger("failsoft")


class Event:
    """Base of all events."""

    __slots__ = ()


class LimitState(NamedTuple):
    """One limit in one decision.

    Attributes:
        name: the policy's name, as in the RateLimit-Policy field.
        allowed: whether this limit would let the request pass.
        remaining: units left after the decision.
        reset: seconds until there is more.
    """

    name: str
    allowed: bool
    remaining: int
    reset: float


@dataclass(frozen=True, slots=True)
class LimitDecided(Event):
    """All limits of a request were decided together.

    Attributes:
        admitted: whether the request may go on.
        limits: the state of each limit; empty where there was no store and none was decided locally.
        method: the request's method.
        route: the route's template, or None.
        degraded: why the store was not asked (an `UnavailableReason` or ``"failed"``), or None where it was.
        late: whether it was decided just before the view's body, or for a message over a WebSocket.
        decider: ``"store"``; ``"process"``, without the store; ``"denied"``, a refusal that this process remembered; ``"lease"``, units
            that it had fetched before.
        shadows: the state of limits in shadow mode, which refuse nobody.
    """

    admitted: bool
    limits: Sequence[LimitState]
    method: str
    route: str | None
    degraded: str | None
    late: bool
    decider: Decider = "store"
    shadows: Sequence[LimitState] = ()


@dataclass(frozen=True, slots=True)
class LimitNear(Event):
    """A request brought a limit near its end: as far as the setting `near_limit` says.

    Attributes:
        name: the policy's name.
        remaining: units left.
        capacity: units that can pass at one moment.
        reset: seconds until there is more.
        method: the request's method.
        route: the route's template, or None.
    """

    name: str
    remaining: int
    capacity: int
    reset: float
    method: str
    route: str | None


@dataclass(frozen=True, slots=True)
class StoreDegraded(Event):
    """A store is taken to be down: requests no longer ask it.

    Attributes:
        store: its name in the settings.
        reason: what the last failure was.
        detail: the same for people, with what was said about it, without secrets. It makes no difference between events.
    """

    store: str
    reason: str
    detail: str = field(default="", compare=False, repr=False)


@dataclass(frozen=True, slots=True)
class StoreRecovered(Event):
    """A store answers again.

    Attributes:
        store: its name in the settings.
        after: seconds since it was taken to be down.
    """

    store: str
    after: float


@dataclass(frozen=True, slots=True)
class OperationRefused(Event):
    """A store answered an operation with an error: it is full, may not write, or its ACL forbids it. The store is not taken to be down.

    Attributes:
        store: its name in the settings.
        code: what kind of error, in the store's words (``"OOM"``, ``"MISCONF"``, ``"NOPERM"``); ``"CONNECT"`` where it lets no new
            connection in, while those that are there go on: its password was changed, say; ``"UNSENT"`` for a
            key or an argument that cannot be sent, ``"NOT_UNDERSTOOD"`` for a reply that no script of ours gives.
        detail: the operation, and what the store said about it, without secrets. It makes no difference between events.
    """

    store: str
    code: str
    detail: str = field(default="", compare=False, repr=False)


ShedReason = Literal["full", "waited"]
"""Why a request was shed: there was no place for it, or it had waited too long before it came here."""


@dataclass(frozen=True, slots=True)
class Shed(Event):
    """A request was refused because there are more than can be served.

    Attributes:
        criticality: its class.
        reason: `ShedReason`.
        in_flight: requests being served by this process.
        limit: how many it may serve at once.
        waited: seconds that the request waited in front of this process, or None where nobody knows.
        method: the request's method.
        route: the route's template, or None.
    """

    criticality: str
    reason: ShedReason
    in_flight: int
    limit: int
    waited: float | None
    method: str
    route: str | None


@dataclass(frozen=True, slots=True)
class CapacityChanged(Event):
    """This process learned that it can serve more, or fewer, requests at once. Told once in a second at most.

    Attributes:
        limit: how many it may serve at once.
        before: how many when this was last told.
    """

    limit: int
    before: int


@dataclass(frozen=True, slots=True)
class SessionEvent(Event):
    """Something happened to a session.

    Attributes:
        handle: names the session, and opens nothing; None where there is none yet.
        subject: who is logged in, or None.
    """

    handle: str | None
    subject: str | None


@dataclass(frozen=True, slots=True)
class SessionCreated(SessionEvent):
    """A session was stored for the first time."""


@dataclass(frozen=True, slots=True)
class SessionRotated(SessionEvent):
    """A session was given another id.

    Attributes:
        login: whether that was because its user was set.
    """

    login: bool


@dataclass(frozen=True, slots=True)
class SessionRevoked(SessionEvent):
    """A session was ended: by a logout, by whoever manages sessions, or because its subject has too many.

    Attributes:
        reason: ``"logout"``, ``"revoked"``, ``"cap"`` or ``"replayed"`` (a logout that had to wait for the store).
    """

    reason: str


@dataclass(frozen=True, slots=True)
class SubjectRevoked(SessionEvent):
    """All sessions of a subject were ended, those too that are in no list. The handle is that of the one that was kept, or None.

    Attributes:
        sessions: how many were listed; each has a `SessionRevoked` of its own.
    """

    sessions: int


@dataclass(frozen=True, slots=True)
class SessionDegraded(SessionEvent):
    """A request could not be given its session, because the store was away.

    Attributes:
        reason: an `UnavailableReason`, or ``"failed"``.
        answer: what it was given: ``"snapshot"``, ``"refuse"`` or ``"empty"``; ``"ticket"`` for a logout that waits for the store,
            ``"unsaved"`` for a write that was refused.
    """

    reason: str
    answer: str


@dataclass(frozen=True, slots=True)
class SessionMerged(SessionEvent):
    """What a request wrote was put beside what another one had written since this one loaded the session.

    Attributes:
        versions: how many writes lay between.
    """

    versions: int


@dataclass(frozen=True, slots=True)
class SessionGone(SessionEvent):
    """A browser sent the id of a session that is no more.

    Attributes:
        reason: ``"unknown"`` (expired, or never there), ``"revoked"``, ``"lost"`` (the browser holds a seal which says that it should be
            there: it ended elsewhere, or the store forgot it), ``"expired"`` (at a moment that the application has set); where a write
            was refused, ``"ended"`` or ``"moved"`` (meanwhile).
    """

    reason: str


@dataclass(frozen=True, slots=True)
class SessionRolledBack(SessionEvent):
    """The store holds an older version of a session than the one that this browser was told of: it lost writes, in a failover or a restart.

    Attributes:
        version: the one that it holds.
        acknowledged: the one that the browser was told of.
    """

    version: int
    acknowledged: int


Listener = Callable[[Event], None]


class Listeners:
    """Those who want to know.

    Attributes:
        listening: who they are; read only. To ask whether there are any costs a hot path less than a method would.
    """

    __slots__ = ("__weakref__", "_lock", "listening")

    def __init__(self) -> None:
        self.listening: tuple[Listener, ...] = ()
        self._lock = Lock()
        start_over_in_children(self, Listeners._start_over)

    def _start_over(self) -> None:
        """See `failsoft.forks`."""
        self._lock = Lock()

    def __bool__(self) -> bool:
        return bool(self.listening)

    def add(self, listener: Listener) -> Callable[[], None]:
        """Call `listener` with each event from now on. Returns a function that ends this."""
        called = partial(listener)  # its own object, so that who is added twice is removed once
        with self._lock:
            self.listening = (*self.listening, called)

        def remove() -> None:
            with self._lock:
                self.listening = tuple(known for known in self.listening if known is not called)

        return remove

    def publish(self, event: Event) -> None:
        """Hand `event` to every listener."""
        for listener in self.listening:
            try:
                listener(event)
            except Exception:
                _log.exception("a listener failed on %r", event)
