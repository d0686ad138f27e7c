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
from collections.abc import Set as AbstractSet
from typing import Any

from failsoft.errors import Rejected, StoreUnavailable
from failsoft.exchange.concern import Answers, Engine, Participant
from failsoft.exchange.facts import Facts, Question
from failsoft.exchange.flight import Flight
from failsoft.exchange.operations import Operation
from failsoft.exchange.policy import Policy
from failsoft.exchange.route import RoutePlan
from failsoft.exchange.waits import Waits

__all__ = ["SUBJECT", "Exchange"]

SUBJECT = "failsoft.subject"
"""In the memo: who is logged in, as far as a sealed cookie or a verified token says so before anybody is asked."""

_NONE: frozenset[Policy] = frozenset()


class Exchange:
    """One request.

    Attributes:
        engine: the application it belongs to.
        facts: what the adapter knows about the request.
        client: its address as limits count it ("ip:192.0.2.1"), None where it is not known, empty before somebody asked.
        answers: what the user's functions said, by question.
        memo: what concerns worked out and may share within the request (an identity).
        enforced: the policies that need no more enforcing.
        degraded: what was degraded and why, in the order it happened.
        rejection: the refusal, if there was one.
        settled: whether what had to be written at the end was.
        streamed: whether the response is made piece by piece; adapters say so before the end.
        unsaved: the refusal that takes the response's place, because the store did not take what the view has written.
        waits: what it has waited for its stores; None for nothing to speak of.
        wanted: whether riders join even if nobody else does.
        accepted: whether a 200 or a 204 is to say 202: what was asked for is going to be done when the store is back.
        asked: the policies and questions that tasks are asking about late, with what drivers keep of that; None before there was any.
    """

    # No slots: see `Flight`. What few requests set has its usual value here; what each one sets must not, or setting it takes longer.
    _deferred: AbstractSet[Policy] = _NONE
    accepted = False
    asked: dict[Policy | Question, Any] | None = None
    streamed = False
    unsaved: Rejected | None = None
    waits: Waits | None = None
    wanted = False

    def __init__(self, engine: Engine, facts: Facts, plan: RoutePlan) -> None:
        self.engine = engine
        self.facts = facts
        self.plan = plan
        self.client: str | None = ""
        self.answers: dict[Question, Any] = {}
        self.memo: dict[Any, Any] = {}
        self.degraded: dict[str, str] = {}
        self.enforced: frozenset[Policy] = _NONE
        self.rejection: Rejected | None = None
        self.settled = False
        self._at_end: list[Callable[[], None]] | None = None
        self._parts: list[tuple[str, Participant]] = []  # who has a part in the end, each with its store
        self._last: Participant | None = None  # who stays the last of them

    def screen(self, plan: RoutePlan) -> Rejected | None:
        """Refuse by what this process knows, or let the request go on."""
        for screen in plan.screens:
            rejection = screen(self)
            if rejection is not None:
                self.rejection = rejection
                return rejection
        return None

    def join(self, plan: RoutePlan) -> Sequence[Flight]:
        """What is wanted from each store under `plan`; none where nobody takes part."""
        flights: list[Flight] = []
        parts: list[tuple[str, Participant]] = []
        for store, bounds in plan.by_store:
            flight: Flight | None = None
            for bound in bounds:
                participant = bound.join(self)
                if participant is None:
                    continue
                parts.append((store, participant))
                if flight is None:
                    flight = Flight(store, participant, participant.operations)
                    flights.append(flight)
                else:
                    flight.join(participant, participant.operations)
        if plan.riders and (flights or self.wanted):
            for store, rider in plan.riders:
                participant = rider.join(self)
                if participant is not None:
                    if participant is not self._last:
                        parts.append((store, participant))
                    _aboard(flights, store, participant, participant.operations)
        enforced = plan.enforced
        if self._deferred:
            enforced -= self._deferred
            self._deferred = _NONE  # what is decided later must stay decided
        if flights:
            # Not before there is a verdict: meanwhile other tasks of this request run, and the one that waits may be cancelled.
            flights[0].enforces = enforced
        else:
            self.enforced |= enforced
        if not self.settled:  # what a stream or a socket does later has its say in neither settlement nor header fields
            if self._last is not None:
                self._parts[-1:-1] = parts  # in one step: other threads of this request may join, too
            else:
                self._parts += parts
        return flights

    def defer(self, policy: Policy) -> None:
        """While joining: `policy` cannot be decided yet; it is left to the wrapper around the view."""
        self._deferred = self._deferred | {policy}

    def receive(self, flights: Sequence[Flight], answers: Sequence[Answers]) -> Rejected | None:
        """Hand each participant its own answers; there is at least one flight. The first refusal is the request's."""
        rejection: Rejected | None = None
        for place, flight in enumerate(flights):  # a strict zip takes ten times as long, for one flight nearly always
            participants = flight.participants
            if len(participants) == 1:
                refused = participants[0].receive(answers[place])
                rejection = rejection or refused
            else:
                own = flight.shares(answers[place])
                for number, participant in enumerate(participants):
                    refused = participant.receive(own[number])
                    rejection = rejection or refused
        if rejection is not None:
            self.rejection = rejection
            for flight in flights:
                for participant in flight.participants:
                    if (overruled := getattr(participant, "overruled", None)) is not None:
                        overruled(rejection)
        else:  # not after a refusal: a caller that catches that of a helper and calls it again is to be refused again
            before, enforces = self.enforced, flights[0].enforces
            self.enforced = before | enforces if before else enforces
        return rejection

    def renew(self) -> None:
        """A message came over the socket that this request opened: what is enforced once in a request is enforced anew."""
        self.enforced = self.plan.enforced
        self.answers.clear()
        self.memo.clear()
        self.client = ""

    def attend(self, store: str, participant: Participant) -> None:
        """Let `participant` have its part in the settlement and the header fields, although it did not join."""
        if not self.settled:
            self._parts.insert(len(self._parts) - (self._last is not None), (store, participant))

    def attend_last(self, store: str, participant: Participant) -> None:
        """The same for one that stays the last, whoever joins later. It may join itself, as a rider."""
        if not self.settled:
            self._parts.append((store, participant))
            self._last = participant

    def participants(self) -> list[Participant]:
        """Who has a part in the settlement and the header fields, in the order in which they joined, but for who stays the last."""
        return [participant for _, participant in self._parts]

    def waited(
        self, store: str, began: float, ended: float, *, deadline: float, lost: StoreUnavailable | None = None
    ) -> None:
        """A flight to `store` took from `began` to `ended`, and was answered unless it was `lost`. See `Waits.note`."""
        if self.waits is None:
            self.waits = Waits()
        self.waits.note(store, began, ended, deadline=deadline, lost=lost)

    def degrade(self, part: str, reason: str) -> None:
        """Record that `part` was served in a lesser way, and why. The first reason stands."""
        self.degraded.setdefault(part, reason)

    def settle(self, status: int) -> Sequence[Flight]:
        """What must still be written, now that the response's status is known."""
        self.settled = True
        return _settled(self._parts, status)

    def take_back(self, flights: Sequence[Flight], status: int) -> Sequence[Flight]:
        """What is to be written at once because a refusal came after the settlement: what other stores have charged in vain."""
        if not self.settled:
            return ()
        return _settled([(flight.store, one) for flight in flights for one in flight.participants], status)

    def confirm(self, flights: Sequence[Flight], answers: Sequence[Answers]) -> Sequence[Flight]:
        """Tell those who want to know what came of what they wrote. Returns what must be written because of that."""
        wanted: list[Flight] = []
        for place, flight in enumerate(flights):
            own = flight.shares(answers[place])
            for number, participant in enumerate(flight.participants):
                # Not by isinstance, which takes longer for a protocol than most of them take to confirm.
                confirm = getattr(participant, "confirm", None)
                if confirm is not None:
                    found = confirm(own[number])
                    if isinstance(found, Rejected):
                        self.unsaved = self.unsaved or found
                    elif found:
                        _aboard(wanted, flight.store, participant, found)
        return wanted

    def headers(self) -> list[tuple[str, str]]:
        """Header fields for the response, whatever it is."""
        fields: list[tuple[str, str]] = []
        for _, participant in self._parts:
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
        self._parts = []
        self._last = None
        self.memo = {}
        if self._at_end is not None:
            functions, self._at_end = self._at_end, None
            for function in functions:
                function()


def _settled(parts: Iterable[tuple[str, Participant]], status: int) -> Sequence[Flight]:
    wanted: list[Flight] = []
    for store, participant in parts:
        operations = participant.settle(status)
        if operations:
            _aboard(wanted, store, participant, operations)
    return wanted


def _aboard(flights: list[Flight], store: str, participant: Participant, operations: Sequence[Operation]) -> None:
    """Let `operations` go with the flight to `store`, or in one of their own."""
    for flight in flights:
        if flight.store == store:
            flight.join(participant, operations)
            return
    flights.append(Flight(store, participant, operations))
