"""The load shedder as a concern: refuse what this process cannot serve in time, before anything is done for it.

It never asks the store. A request is screened before every other concern, and refused with 503 if it waited too long before it
came here (`waiting`) or if there is no place for it (`capacity`). Otherwise it holds a place until it is over. What it took is measured
up to the start of its response: how long a body streams is its reader's business.

On an event loop there is one more step. A request whose view never waits is served in one go, so never more than one would be in flight,
and the others would wait unseen in the loop's own queue. So each lets the loop go round once after it has its place: all that have arrived
are counted before any of them is served. How long a round took says how crowded the loop is.
"""

import time
from asyncio import get_running_loop
from collections.abc import Callable, Generator, Iterable, Sequence
from threading import Lock
from typing import Any, Final

from failsoft.address import AddressResolver
from failsoft.clock import Clock
from failsoft.errors import Rejected, Unavailable
from failsoft.events import CapacityChanged, Listeners, Shed, ShedReason
from failsoft.exchange import DEFAULT, Answers, Bound, Exchange, Operation, Participant, Policy, Question, Route
from failsoft.forks import start_over_in_children
from failsoft.problem import Problem
from failsoft.ratelimit.shedding.capacity import Capacity, Permit
from failsoft.ratelimit.shedding.criticality import CONCERN, Classes
from failsoft.ratelimit.shedding.gradient import Usual
from failsoft.ratelimit.shedding.waiting import RequestStart, Waiting, on_socket
from failsoft.settings import Settings
from failsoft.settings.criticality import CRITICALITIES

__all__ = ["LoadShedder", "RouteShedding"]

_RETRY: Final = range(1, 6)
"""Seconds after which a client may try again; drawn, so that not all return at once."""

_PROBLEMS: Final = [
    Problem(
        type="https://iana.org/assignments/http-problem-types#temporary-reduced-capacity",
        title="Request cannot be satisfied due to temporary server capacity constraints",
        status=503,
        detail=f"There are more requests than can be served. Retry in {wait} s.",
    )
    for wait in _RETRY
]

_QUIET: Final = 1.0
"""Seconds between two `CapacityChanged`."""


class LoadShedder:
    """The concern.

    Args:
        settings: validated settings.
        clock: injectable time.
        random: gives floats in [0, 1), for Retry-After.
        listeners: hear of each refusal.
        addresses: knows the trusted proxies.
        spent: gives the CPU time of this process, in seconds.
    """

    name = CONCERN

    def __init__(
        self,
        settings: Settings,
        *,
        clock: Clock,
        random: Callable[[], float],
        listeners: Listeners,
        addresses: AddressResolver,
        spent: Callable[[], float] = time.process_time,
    ) -> None:
        self.capacity = Capacity(least=settings.shed_min, most=settings.shed_max, spent=spent)
        self.waiting = Waiting()
        self.classes = Classes(settings.criticality)
        self.listeners = listeners
        self.monotonic = clock.monotonic
        self._time = clock.time
        self._random = random
        self._start = RequestStart(settings.queue_header, addresses) if settings.queue_header else None
        self.go_round = Question(self._go_round, asynchronous=False)
        self._telling = Lock()
        self._told, self._quiet_until = self.capacity.limit, 0.0
        start_over_in_children(self, LoadShedder._start_over)

    def _start_over(self) -> None:
        """See `failsoft.forks`. Nobody waits for this lock, but while it is held nothing is told."""
        self._telling = Lock()

    def bind(self, route: Route, policies: Sequence[Policy], *, late: bool) -> Bound | None:
        """What applies to `route`. See `failsoft.exchange.Concern`."""
        if late:
            return None
        rank = self.classes.of_route(route.template, policies)
        usual = self.capacity.usual((route.method, route.template))
        if route.template is None and not policies:
            return _Unrouted(self, route, rank, usual)
        return None if rank is None else RouteShedding(self, route, rank, usual)

    def waited(self, exchange: Exchange) -> float | None:
        """Seconds that a request waited before it came here, or None where nobody knows."""
        if self._start is not None:
            waited = self._start.waited(exchange.facts, self._time())
            if waited is not None:
                return waited
        return on_socket(exchange.facts.environ())

    def _go_round(self, request: Any) -> "_Round | None":
        try:
            get_running_loop()
        except RuntimeError:  # a thread, or a loop that is not asyncio's
            return None
        return _Round(self)

    def refuse(self, reason: ShedReason, rank: int, waited: float | None, route: Route) -> Rejected:
        """The refusal of a request."""
        if self.listeners:
            self.listeners.publish(
                Shed(
                    criticality=CRITICALITIES[rank],
                    reason=reason,
                    in_flight=self.capacity.in_flight,
                    limit=self.capacity.limit,
                    waited=waited,
                    method=route.method,
                    route=route.template,
                )
            )
        number = int(self._random() * len(_PROBLEMS))
        return Unavailable(_PROBLEMS[number], retry_after=_RETRY[number])

    def tell(self, now: float) -> None:
        """Tell listeners that the limit is another, but not all the time."""
        if now < self._quiet_until or self.capacity.limit == self._told or not self._telling.acquire(blocking=False):
            return
        try:
            before, self._told = self._told, self.capacity.limit
            self._quiet_until = now + _QUIET
        finally:
            self._telling.release()
        if before != self._told:
            self.listeners.publish(CapacityChanged(self._told, before))


class _Round:
    """To be awaited: lets the event loop run what is ready, once."""

    __slots__ = ("_shedder",)

    def __init__(self, shedder: LoadShedder) -> None:
        self._shedder = shedder

    def __await__(self) -> Generator[None, None, None]:
        began = self._shedder.monotonic()
        yield
        self._shedder.capacity.crowded += self._shedder.monotonic() - began


class RouteShedding:
    """What the load shedder does on one route."""

    __slots__ = ("_rank", "_route", "_shedder", "_usual", "questions")

    def __init__(self, shedder: LoadShedder, route: Route, rank: int, usual: Usual) -> None:
        self._shedder = shedder
        self._route = route
        self._rank = rank
        self._usual = usual
        self.questions: Sequence[Question] = (shedder.go_round,)

    @property
    def criticality(self) -> str:
        """The class of the route's requests."""
        return CRITICALITIES[self._rank]

    def screen(self, exchange: Exchange) -> Rejected | None:
        """See `failsoft.exchange.Screening`."""
        return self.decide(exchange, self._rank)

    def decide(self, exchange: Exchange, rank: int) -> Rejected | None:
        """Refuse a request of the class `rank`, or give it a place."""
        shedder = self._shedder
        capacity = shedder.capacity
        now = shedder.monotonic()
        waited = shedder.waited(exchange)
        if waited is not None and shedder.waiting.late(waited, rank=rank, mean=capacity.mean, now=now):
            return shedder.refuse("waited", rank, waited, self._route)
        permit = capacity.acquire(rank, self._usual, now)
        if permit is None:
            return shedder.refuse("full", rank, waited, self._route)
        visit = _Visit(shedder, permit, now)
        exchange.attend(DEFAULT, visit)
        exchange.at_end(visit.end)
        return None

    def join(self, exchange: Exchange) -> Participant | None:
        """No part in what goes to a store."""
        return None


class _Unrouted(RouteShedding):
    """Where no route is known, the path has a say in whether a request is refused."""

    __slots__ = ()

    def __init__(self, shedder: LoadShedder, route: Route, rank: int | None, usual: Usual) -> None:
        super().__init__(shedder, route, rank or 0, usual)

    def screen(self, exchange: Exchange) -> Rejected | None:
        rank = self._shedder.classes.of_path(exchange.facts.path())
        return None if rank is None else self.decide(exchange, rank)


class _Visit:
    """One request that holds a place."""

    __slots__ = ("_began", "_failed", "_permit", "_shedder", "_took")

    operations: Sequence[Operation] = ()

    def __init__(self, shedder: LoadShedder, permit: Permit, now: float) -> None:
        self._shedder = shedder
        self._permit = permit
        self._began = now
        self._took: float | None = None
        self._failed = False

    def receive(self, answers: Answers) -> Rejected | None:
        return None

    def settle(self, status: int) -> Sequence[Operation]:
        """The response begins. A refusal says nothing about how long requests take, whoever refused; nor does opening a WebSocket."""
        if status not in (101, 429, 503):
            self._took = self._shedder.monotonic() - self._began
            self._failed = status >= 400
        return ()

    def headers(self) -> Iterable[tuple[str, str]]:
        return ()

    def end(self) -> None:
        """The request is over."""
        shedder = self._shedder
        now = shedder.monotonic()
        shedder.capacity.release(self._permit, now, took=self._took, failed=self._failed)
        if shedder.listeners:
            shedder.tell(now)

    def __del__(self) -> None:
        # Whoever served the request forgot to say that it is over: its place must not be lost for good.
        if self._permit.era is not None:
            self._shedder.capacity.release(self._permit, self._began)
