"""One request, from its facts to its settlement.

Theory of operation. Each *concern* (rate limits, sessions, tokens...) takes part in a request through the same steps, and
none of them does I/O:

1. *bind*, once per route and method: what of this concern applies there. Nothing applies: it costs no request anything.
2. *screen*, for the few that can refuse a request by what this process knows: before any user code and any flight.
3. *join*, at the request's first need: a participant, with the operations that it wants from its store.
4. *receive*: the answers to its own operations, or the news that the store gives none; out comes None or a refusal.
5. *settle*, at the framework's last write point: operations that must still be written, and header fields. Who has told its caller that
   something is written may *confirm* it: it is given the answers, and may refuse after all; that refusal takes the response's place.
6. *end*, when the response is over, or the request failed: for those who count what is under way.

A *rider* joins in 3 only if there is a flight anyway, or if it was asked for (`Exchange.wanted`): it may be of use, and is not worth a
flight.

A driver (`failsoft.drivers`) carries all participants' operations in one flight for each store between 3 and 4, all stores at the same
time, and in at most one more after 5 (or a second one, where what was learned in it asks for that). User code that a decision depends
on is a `Question`; drivers ask it before 3, with no lock held.

An exchange belongs to one request. Its methods are pure: a failure in them is a bug, not an outage.
"""

from collections.abc import Callable, Iterable, Sequence
from copy import copy
from itertools import groupby
from typing import Any, Protocol, runtime_checkable

from failsoft.address import AddressResolver
from failsoft.errors import Rejected, StoreUnavailable
from failsoft.exchange.facts import METHODS, Facts, Question
from failsoft.exchange.operations import Operation
from failsoft.exchange.policy import Policy
from failsoft.settings import Scope

__all__ = [
    "DEFAULT",
    "SUBJECT",
    "Answers",
    "Bound",
    "Concern",
    "Confirming",
    "Engine",
    "Exchange",
    "Flight",
    "Participant",
    "Route",
    "RoutePlan",
    "Screening",
]

Answers = Sequence[Any] | StoreUnavailable
"""What came of a participant's operations: an answer or an `OperationFailed` for each, or no answer at all."""


SUBJECT = "failsoft.subject"
"""In the memo: who is logged in, as far as a sealed cookie or a verified token says so before anybody is asked."""

DEFAULT = "default"
"""The store that is used where nothing names another."""

_NONE: frozenset[Policy] = frozenset()


class Route:
    """Where a request goes: its method (one of a bounded set), the route's template, None where unknown, the scopes it lies in, and
    what the framework calls the endpoint, where it has names."""

    __slots__ = ("method", "name", "scopes", "template")

    def __init__(
        self, method: str, template: str | None, scopes: tuple[Scope, ...] = (), name: str | None = None
    ) -> None:
        # Some servers hand on "get" as the client wrote it, and some frameworks serve it as GET: it must not slip by GET's limits.
        method = method.upper()
        self.method = method if method in METHODS else "OTHER"
        self.template = template
        self.scopes = scopes
        self.name = name


class Participant(Protocol):
    """One concern's part in one request.

    Beside these it may have `overruled`, which is called with the refusal where one of those who were asked at the same time refused; and
    `confirm`, see `Confirming`.
    """

    @property
    def operations(self) -> Sequence[Operation]:
        """What it wants from the store."""
        ...

    def receive(self, answers: Answers) -> Rejected | None:
        """Take the answers to `operations`; a refusal ends the request."""
        ...

    def settle(self, status: int) -> Sequence[Operation]:
        """What must be written now that the response has `status`; the answers come back to those who `confirm`."""
        ...

    def headers(self) -> Iterable[tuple[str, str]]:
        """Header fields for the response."""
        ...


@runtime_checkable
class Confirming(Protocol):
    """A participant that is to know what came of what it wrote."""

    def confirm(self, answers: Answers) -> Rejected | Sequence[Operation]:
        """Take the answers to what `settle` returned.

        Returns what must be written because of them, which is confirmed in turn; or the refusal that takes the response's place, of which
        nothing was sent yet. An empty sequence is the end of it.
        """
        ...


class Bound(Protocol):
    """What one concern does on one route.

    Beside these it may have `needs_user` (whether it asks the framework who is asking), `store` (the name of the store
    that it uses), `screen` (see `Screening`) and `rides` (whether it joins only where there is a flight anyway).
    """

    @property
    def questions(self) -> Sequence[Question]:
        """What must be asked of the user's code before `join`."""
        ...

    def join(self, exchange: "Exchange") -> Participant | None:
        """Take part in a request, or not. All `questions` are answered in ``exchange.answers``."""
        ...


@runtime_checkable
class Screening(Protocol):
    """A bound that can refuse by what this process knows."""

    def screen(self, exchange: "Exchange") -> Rejected | None:
        """Refuse, or let the request go on: before any question is asked and anything is joined."""
        ...


class Flight:
    """What goes to one store: its name, who wants something from it, and what, in the same order."""

    __slots__ = ("operations", "participants", "store")

    def __init__(self, store: str, participants: Sequence[Participant], operations: Sequence[Operation]) -> None:
        self.store = store
        self.participants = participants
        self.operations = operations

    def shares(self) -> list[tuple[Participant, int]]:
        """Of a settlement, in which each operation has its participant: each participant, and how many are its own."""
        return [(participant, len(list(own))) for participant, own in groupby(self.participants)]


class Concern(Protocol):
    """A kind of policy: what applies where."""

    @property
    def name(self) -> str:
        """What its policies call it."""
        ...

    def bind(self, route: Route, policies: Sequence[Policy], *, late: bool) -> Bound | Sequence[Bound] | None:
        """What applies to `route`: one or several bounds, or None.

        Args:
            route: the method and template.
            policies: those declared on the view for this concern; when `late`, only those not yet enforced.
            late: just before the view's body, so nothing from the settings applies.
        """
        ...


class Engine(Protocol):
    """What an exchange belongs to: one application's runtime."""

    @property
    def addresses(self) -> AddressResolver:
        """Who is behind the trusted proxies."""
        ...

    def enforce(self, exchange: "Exchange", policies: Sequence[Policy], args: Any, kwargs: Any) -> None:
        """Enforce `policies` now. Raises `Rejected`."""
        ...

    async def aenforce(self, exchange: "Exchange", policies: Sequence[Policy], args: Any, kwargs: Any) -> None:
        """The same, from a coroutine."""
        ...

    def write(self, exchange: "Exchange", store: str, operations: Sequence[Operation]) -> None:
        """Write at once what belongs to a request that was settled. What a store that is away does not take is lost."""
        ...

    async def awrite(self, exchange: "Exchange", store: str, operations: Sequence[Operation]) -> None:
        """The same, from a coroutine."""
        ...


class RoutePlan:
    """What all concerns do on one route, worked out once.

    Attributes:
        enforced: the policies that no longer need enforcing once this plan was carried out.
        messages: the policies that each message is charged to, if the request opens a socket.
        needs_user: whether a decision depends on who `Facts.user` says is asking.
        riders: what joins only where there is a flight anyway.
        screens: what may refuse by itself, before anything else.
    """

    __slots__ = ("bounds", "by_store", "enforced", "messages", "needs_user", "questions", "riders", "route", "screens")

    def __init__(
        self,
        concerns: Iterable[Concern],
        route: Route,
        policies: Sequence[Policy],
        *,
        late: bool,
        messages: Sequence[Policy] = (),
    ) -> None:
        self.route = route
        self.messages: tuple[Policy, ...] = tuple(messages)
        now = [p for p in policies if late or not p.late]
        bounds: list[Bound] = []
        for concern in concerns:
            found = concern.bind(route, [p for p in now if p.concern == concern.name], late=late)
            if isinstance(found, Sequence):
                bounds += found
            elif found is not None:
                bounds.append(found)
        self.riders: tuple[Bound, ...] = tuple(b for b in bounds if getattr(b, "rides", False))
        self.bounds: tuple[Bound, ...] = tuple(b for b in bounds if b not in self.riders)
        self.questions: tuple[Question, ...] = tuple(q for b in self.bounds for q in b.questions)
        self.enforced: frozenset[Policy] = frozenset(now).union(messages)
        # Few concerns ask for these three.
        self.needs_user = any(getattr(b, "needs_user", False) for b in self.bounds)
        self.screens: tuple[Callable[[Exchange], Rejected | None], ...] = tuple(
            b.screen for b in self.bounds if isinstance(b, Screening)
        )
        by_store: dict[str, list[Bound]] = {}
        for bound in self.bounds:
            by_store.setdefault(getattr(bound, "store", DEFAULT), []).append(bound)
        self.by_store: Sequence[tuple[str, Sequence[Bound]]] = tuple(by_store.items())

    def counting(self, policies: Iterable[Policy]) -> "RoutePlan":
        """The same, with more policies that each message is charged to."""
        found = copy(self)
        found.messages = (*self.messages, *policies)
        found.enforced = self.enforced.union(found.messages)
        return found


class Exchange:
    """One request.

    Attributes:
        engine: the application it belongs to.
        facts: what the adapter knows about the request.
        answers: what the user's functions said, by question.
        memo: what concerns worked out and may share within the request (an identity, the client's address).
        enforced: the policies that need no more enforcing.
        deferred: while joining, policies that cannot be decided yet; they are left to the wrapper around the view.
        degraded: what was degraded and why, in the order it happened.
        rejection: the refusal, if there was one.
        settled: whether what had to be written at the end was.
        streamed: whether the response is made piece by piece; adapters say so before the end.
        unsaved: the refusal that takes the response's place, because the store did not take what the view has written.
        wanted: whether riders join even if nobody else does.
        accepted: whether a 200 or a 204 is to say 202: what was asked for is going to be done when the store is back.
    """

    __slots__ = (
        "_at_end",
        "_before",
        "_flights",
        "accepted",
        "answers",
        "deferred",
        "degraded",
        "enforced",
        "engine",
        "facts",
        "memo",
        "plan",
        "rejection",
        "settled",
        "streamed",
        "unsaved",
        "wanted",
    )

    def __init__(self, engine: Engine, facts: Facts, plan: RoutePlan) -> None:
        self.engine = engine
        self.facts = facts
        self.plan = plan
        self.answers: dict[Question, Any] = {}
        self.memo: dict[Any, Any] = {}
        self.enforced = self._before = _NONE
        self.deferred: set[Policy] = set()
        self.degraded: dict[str, str] = {}
        self.rejection: Rejected | None = None
        self.settled = False
        self.streamed = False
        self.unsaved: Rejected | None = None
        self.wanted = False
        self.accepted = False
        self._flights: list[Flight] = []
        self._at_end: list[Callable[[], None]] | None = None

    def screen(self, plan: RoutePlan) -> Rejected | None:
        """Refuse by what this process knows, or let the request go on."""
        for screen in plan.screens:
            self.rejection = screen(self)
            if self.rejection is not None:
                return self.rejection
        return None

    def join(self, plan: RoutePlan) -> Sequence[Flight]:
        """What is wanted from each store under `plan`; none where nobody takes part."""
        flights: list[Flight] = []
        for store, bounds in plan.by_store:
            joined = [participant for bound in bounds if (participant := bound.join(self)) is not None]
            if len(joined) == 1:
                flights.append(Flight(store, joined, joined[0].operations))
            elif joined:
                flights.append(Flight(store, joined, [operation for one in joined for operation in one.operations]))
        if plan.riders and (flights or self.wanted):
            for rider in plan.riders:
                self._ride(rider, flights)
        self._before = self.enforced
        self.enforced = self.enforced | plan.enforced if self.enforced else plan.enforced
        if self.deferred:
            self.enforced -= self.deferred
            self.deferred.clear()  # what is decided later must stay decided
        if not self.settled:  # what a stream or a socket does later has its say in neither settlement nor header fields
            self._flights += flights
        return flights

    def _ride(self, rider: Bound, flights: list[Flight]) -> None:
        participant = rider.join(self)
        if participant is None:
            return
        store = getattr(rider, "store", DEFAULT)
        for place, flight in enumerate(flights):
            if flight.store == store:
                together = [*flight.operations, *participant.operations]
                flights[place] = Flight(store, [*flight.participants, participant], together)
                return
        flights.append(Flight(store, (participant,), participant.operations))

    def receive(self, flights: Sequence[Flight], answers: Sequence[Answers]) -> Rejected | None:
        """Hand each participant its own answers. The first refusal is the request's."""
        rejection: Rejected | None = None
        for flight, said in zip(flights, answers, strict=True):
            if len(flight.participants) == 1:
                refused = flight.participants[0].receive(said)
                rejection = rejection or refused
                continue
            start = 0
            for participant in flight.participants:
                own = said
                if not isinstance(said, StoreUnavailable):
                    end = start + len(participant.operations)
                    own, start = said[start:end], end
                refused = participant.receive(own)
                rejection = rejection or refused
        if rejection is not None:
            self.rejection = rejection
            for flight in flights:
                for participant in flight.participants:
                    if (overruled := getattr(participant, "overruled", None)) is not None:
                        overruled(rejection)
            # A caller that catches the refusal of a helper and calls it again is to be refused again.
            self.enforced = self._before
        return rejection

    def renew(self) -> None:
        """A message came over the socket that this request opened: what is enforced once in a request is enforced anew."""
        self.enforced = self.plan.enforced
        self.answers.clear()
        self.memo.clear()

    def attend(self, store: str, participant: Participant) -> None:
        """Let `participant` have its part in the settlement and the header fields, although it did not join."""
        if not self.settled:
            self._flights.append(Flight(store, (participant,), ()))

    def degrade(self, part: str, reason: str) -> None:
        """Record that `part` was served in a lesser way, and why. The first reason stands."""
        self.degraded.setdefault(part, reason)

    def settle(self, status: int) -> Sequence[Flight]:
        """What must still be written, now that the response's status is known."""
        self.settled = True
        return self._settled(self._flights, status)

    def take_back(self, flights: Sequence[Flight], status: int) -> Sequence[Flight]:
        """What is to be written at once because a refusal came after the settlement: what other stores have charged in vain."""
        return self._settled(flights, status) if self.settled else ()

    def _settled(self, flights: Sequence[Flight], status: int) -> Sequence[Flight]:
        wanted: dict[str, tuple[list[Participant], list[Operation]]] = {}
        for flight in flights:
            for participant in flight.participants:
                operations = participant.settle(status)
                if operations:
                    _add(wanted, flight.store, participant, operations)
        return _flights(wanted)

    def confirm(self, flights: Sequence[Flight], answers: Sequence[Answers]) -> Sequence[Flight]:
        """Tell those who want to know what came of what they wrote. Returns what must be written because of that."""
        wanted: dict[str, tuple[list[Participant], list[Operation]]] = {}
        for flight, said in zip(flights, answers, strict=True):
            start = 0
            for participant, count in flight.shares():
                end = start + count
                # Not by isinstance, which takes longer for a protocol than most of them take to confirm.
                confirm = getattr(participant, "confirm", None)
                if confirm is not None:
                    found = confirm(said if isinstance(said, StoreUnavailable) else said[start:end])
                    if isinstance(found, Rejected):
                        self.unsaved = self.unsaved or found
                    elif found:
                        _add(wanted, flight.store, participant, found)
                start = end
        return _flights(wanted)

    def headers(self) -> list[tuple[str, str]]:
        """Header fields for the response, whatever it is."""
        fields: list[tuple[str, str]] = []
        for flight in self._flights:
            for participant in flight.participants:
                fields += participant.headers()
        return fields

    def at_end(self, function: Callable[[], None]) -> None:
        """Call `function` when the request is over, whatever became of it. It must be quick and not raise."""
        if self._at_end is None:
            self._at_end = []
        self._at_end.append(function)

    def end(self) -> None:
        """The response is over, or will never be. May be called again, which does nothing."""
        # They know the exchange: left to the garbage collector, each request costs 27 thousand instructions more (in Flask).
        self._flights = []
        self.memo = {}
        if self._at_end is not None:
            functions, self._at_end = self._at_end, None
            for function in functions:
                function()


def _add(
    wanted: dict[str, tuple[list[Participant], list[Operation]]],
    store: str,
    participant: Participant,
    operations: Sequence[Operation],
) -> None:
    participants, all_operations = wanted.setdefault(store, ([], []))
    participants += [participant] * len(operations)
    all_operations += operations


def _flights(wanted: dict[str, tuple[list[Participant], list[Operation]]]) -> list[Flight]:
    return [Flight(store, participants, operations) for store, (participants, operations) in wanted.items()]
