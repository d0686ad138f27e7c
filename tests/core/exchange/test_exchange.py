"""One request among several concerns: who takes part, whose answers are whose, and which refusal counts."""

import gc
import weakref
from collections.abc import Sequence
from typing import Any

import pytest

from failsoft import Problem, Rejected, limit
from failsoft.drivers import sync
from failsoft.errors import OperationFailed, StoreUnavailable
from failsoft.exchange import METHODS, NOT_YET, Exchange, Flight, Operation, Question, Route, RoutePlan
from tests.core.requests import FakeFacts, make_runtime, serving


class Part:
    """A participant that wants `size` operations, and says `refusal` to whatever comes."""

    def __init__(self, size: int, refusal: Rejected | None = None) -> None:
        self.operations: Sequence[Any] = [f"{id(self)}.{n}" for n in range(size)]
        self.refusal = refusal
        self.answers: Any = None

    def receive(self, answers: Any) -> Rejected | None:
        self.answers = answers
        return self.refusal

    def settle(self, status: int) -> Sequence[Operation]:
        return [f"settle {status}"]  # type: ignore[list-item]  # nobody runs it

    def headers(self) -> list[tuple[str, str]]:
        return [("X-Part", str(len(self.operations)))]


class Bound:
    questions = ()

    def __init__(self, part: Part | None, store: str = "default") -> None:
        self.part = part
        self.store = store

    def join(self, exchange: Exchange) -> Part | None:
        return self.part


class Riding(Bound):
    rides = True


class Taking:
    """A concern that takes part with a given participant."""

    def __init__(
        self, part: Part | None, name: str = "taking", store: str = "default", *, kind: type[Bound] = Bound
    ) -> None:
        self.name = name
        self.part = part
        self.store = store
        self.kind = kind

    def bind(self, route: Route, policies: Sequence[Any], *, late: bool) -> Bound:
        return self.kind(self.part, self.store)


def refusal(status: int) -> Rejected:
    return Rejected(Problem(type="about:blank", title="No", status=status))


def wanted(flights: Sequence[Flight]) -> list[tuple[str, list[Operation]]]:
    return [(flight.store, list(flight.operations)) for flight in flights]


def exchange_of(*parts: Part | None) -> tuple[Exchange, RoutePlan]:
    runtime = make_runtime()
    plan = RoutePlan([Taking(part) for part in parts], Route("GET", "/"), (), late=False)
    return Exchange(runtime, FakeFacts(), plan), plan


def test_each_part_receives_its_own_answers() -> None:
    """However many operations each part has, none included, the answers go to whoever asked."""
    parts = [Part(2), Part(0), Part(3)]
    exchange, plan = exchange_of(parts[0], None, *parts[1:])
    flights = exchange.join(plan)
    assert [("default", [*parts[0].operations, *parts[2].operations])] == [
        (f.store, list(f.operations)) for f in flights
    ]
    assert None is exchange.receive(flights, [[f"answer to {one}" for one in flights[0].operations]])
    assert [[f"answer to {one}" for one in part.operations] for part in parts] == [part.answers for part in parts]


def test_first_refusal_counts_and_everybody_hears() -> None:
    """The refusal is that of the first part to refuse; the others receive their answers all the same."""
    parts = [Part(1), Part(1, refusal(403)), Part(1, refusal(429))]
    exchange, plan = exchange_of(*parts)
    rejected = exchange.receive(exchange.join(plan), [["a", "b", "c"]])
    assert (parts[1].refusal, parts[1].refusal) == (rejected, exchange.rejection)
    assert [["a"], ["b"], ["c"]] == [part.answers for part in parts]


def test_what_was_refused_is_to_be_enforced_again() -> None:
    """What was enforced before a refusal stays so; what the refusal was about does not count as enforced."""
    early, late = limit("1/day"), limit("2/day")
    exchange, _ = exchange_of(Part(1))
    for part, policy in ((Part(1), early), (Part(1, refusal(429)), late)):
        plan = RoutePlan([Taking(part)], Route("GET", "/"), (policy,), late=True)
        exchange.receive(exchange.join(plan), [["a"]])
    assert {early} == exchange.enforced


def test_each_store_has_a_flight_of_its_own() -> None:
    """Parts on one store share a flight; an absent store is news for its own parts only."""
    parts = [Part(1), Part(2), Part(1)]
    runtime = make_runtime()
    plan = RoutePlan(
        [Taking(parts[0], store="a"), Taking(parts[1], store="b"), Taking(parts[2], store="a")],
        Route("GET", "/"),
        (),
        late=False,
    )
    exchange = Exchange(runtime, FakeFacts(), plan)
    flights = exchange.join(plan)
    assert [("a", 2), ("b", 2)] == [(flight.store, len(flight.operations)) for flight in flights]
    away = StoreUnavailable("timeout")
    assert None is exchange.receive(flights, [["first", "third"], away])
    assert [["first"], away, ["third"]] == [part.answers for part in parts]
    assert [("a", ["settle 200"] * 2), ("b", ["settle 200"])] == wanted(exchange.settle(200))


class Confirmed(Part):
    """A participant that wants to know what came of `written` operations."""

    def __init__(self, written: int) -> None:
        super().__init__(1)
        self.written = [f"{id(self)} writes {n}" for n in range(written)]
        self.confirmed: list[Any] = []

    def settle(self, status: int) -> Sequence[Operation]:
        return self.written  # type: ignore[return-value]  # nobody runs it

    def confirm(self, answers: Any) -> Sequence[Operation]:
        self.confirmed.append(answers)
        return ()


def test_each_part_confirms_its_own_answers() -> None:
    """In one settlement, whoever wrote hears of what it wrote, and who wrote nothing hears nothing."""
    parts = [Confirmed(2), Confirmed(0), Part(1), Confirmed(1)]
    exchange, plan = exchange_of(*parts)
    exchange.join(plan)
    flights = exchange.settle(200)
    assert [("default", [*parts[0].settle(200), "settle 200", *parts[3].settle(200)])] == wanted(flights)
    assert [] == exchange.confirm(flights, [["a", "b", "c", "d"]])
    away = StoreUnavailable("timeout")
    assert [] == exchange.confirm(exchange.settle(200), [away])
    assert [[["a", "b"], away], [], [["d"], away]] == [part.confirmed for part in parts if isinstance(part, Confirmed)]


@pytest.mark.parametrize("attends", [True, False])
def test_a_rider_that_attends_already(attends: bool) -> None:
    """It has one part in the settlement and the fields, joined or not; who attends beside it keeps its own."""
    rider, other = Part(1), Part(0)
    plan = RoutePlan([Taking(rider, kind=Riding)], Route("GET", "/"), (), late=False)
    exchange = Exchange(make_runtime(), FakeFacts(), plan)
    exchange.wanted = True
    if attends:
        exchange.attend_last("default", rider)
    exchange.attend("default", other)
    assert [("default", list(rider.operations))] == wanted(exchange.join(plan))
    assert [("default", ["settle 200"] * 2)] == wanted(exchange.settle(200))
    assert [("X-Part", "0"), ("X-Part", "1")] == exchange.headers()


@pytest.mark.parametrize("rides", [True, False])
def test_the_last_stays_the_last(rides: bool) -> None:
    """Whoever joins or attends later settles before the one that is to be the last, in their own order; whether it rides or not."""
    last, early, late, beside = Confirmed(1), Confirmed(1), Confirmed(1), Confirmed(1)
    riding = [Taking(last if rides else None, "riding", kind=Riding)]
    exchange = Exchange(make_runtime(), FakeFacts(), RoutePlan([], Route("GET", "/"), (), late=False))
    exchange.attend_last("default", last)
    exchange.join(RoutePlan([Taking(early), *riding], Route("GET", "/"), (), late=False))
    exchange.attend("default", beside)
    exchange.join(RoutePlan([Taking(late)], Route("GET", "/"), (), late=True))
    expected = [early, beside, late, last]
    assert expected == exchange.participants()
    assert [("default", [*(part.written[0] for part in expected)])] == wanted(exchange.settle(200))
    exchange.attend_last("default", Part(1))
    exchange.join(RoutePlan([Taking(Part(1))], Route("GET", "/"), (), late=True))
    assert expected == exchange.participants()


def test_two_threads_join() -> None:
    """Whoever joins while another thread does finds the last part where it was."""
    last, first, second = Part(1), Part(1), Part(1)
    exchange, plan = exchange_of(first)
    exchange.attend_last("default", last)
    other = RoutePlan([Taking(second)], Route("GET", "/"), (), late=True)

    class Interrupted(list[Any]):
        """Another thread comes in between as soon as something is taken out or put in."""

        def pop(self, *place: Any) -> Any:
            found = super().pop(*place)
            self.interrupt()
            return found

        def __setitem__(self, place: Any, value: Any) -> None:
            super().__setitem__(place, value)
            self.interrupt()

        def interrupt(self) -> None:
            if not interrupted:
                interrupted.append(True)
                exchange.join(other)

    interrupted: list[bool] = []
    exchange._parts = Interrupted(exchange._parts)
    exchange.join(plan)
    found = exchange.participants()
    assert ([True], last, {id(first), id(second)}) == (interrupted, found.pop(), {id(one) for one in found})


def test_who_joins_after_the_end() -> None:
    """Of a request that was given up without a settlement nobody is left, not the last one either; a join does no harm then."""
    exchange, plan = exchange_of(part := Part(1))
    exchange.attend_last("default", Part(1))
    exchange.end()
    exchange.join(plan)
    assert [part] == exchange.participants()


def test_late_parts_settle_with_the_others() -> None:
    """What joined early and what joined late on one store is settled in one flight."""
    exchange, early = exchange_of(Part(1))
    _, late = exchange_of(Part(1))
    exchange.join(early)
    exchange.join(late)
    assert [("default", ["settle 200"] * 2)] == wanted(exchange.settle(200))


def test_after_the_end_nothing_is_left_to_the_collector() -> None:
    """Participants may know their exchange; when it is over, they go with it."""
    joined: list[Any] = []

    class Knowing(Part):
        exchange: Exchange

    class Making(Bound):
        def join(self, exchange: Exchange) -> Part:
            part = Knowing(1)
            part.exchange = exchange
            joined.append(weakref.ref(part))
            return part

    class Concern(Taking):
        def bind(self, route: Route, policies: Sequence[Any], *, late: bool) -> Bound:
            return Making(None)

    plan = RoutePlan([Concern(None)], Route("GET", "/"), (), late=False)
    exchange = Exchange(make_runtime(), FakeFacts(), plan)
    exchange.join(plan)
    gc.disable()
    try:
        exchange.end()
        del exchange
        assert [None] == [reference() for reference in joined]
    finally:
        gc.enable()


def test_a_concern_may_bind_several_times() -> None:
    """One concern can take part with several bounds, for example one for each store."""
    part = Part(1)

    class Twice(Taking):
        def bind(self, route: Route, policies: Sequence[Any], *, late: bool) -> Any:
            return [Bound(part, "a"), Bound(part, "b")]

    plan = RoutePlan([Twice(None)], Route("GET", "/"), (), late=False)
    flights = Exchange(make_runtime(), FakeFacts(), plan).join(plan)
    assert ["a", "b"] == [flight.store for flight in flights]


def test_a_screen_refuses_before_anything_is_asked() -> None:
    """Who can refuse by what this process knows comes first: no question is put, and nobody joins."""
    asked: list[str] = []

    class Screened(Bound):
        questions = (Question(lambda request: asked.append("question"), asynchronous=False),)

        def screen(self, exchange: Exchange) -> Rejected | None:
            return refusal(503) if exchange.facts.method == "GET" else None

        def join(self, exchange: Exchange) -> None:
            asked.append("join")

    class Shedding(Taking):
        def bind(self, route: Route, policies: Sequence[Any], *, late: bool) -> Bound:
            return Screened(None)

    runtime = make_runtime()
    plan = RoutePlan([Shedding(None)], Route("GET", "/"), (), late=False)
    exchange = Exchange(runtime, FakeFacts(), plan)
    rejected = sync.admit(exchange, plan, runtime.stores)
    assert rejected is not None
    assert (503, rejected, []) == (rejected.status, exchange.rejection, asked)
    other = Exchange(runtime, FakeFacts(method="POST"), plan)
    assert (None, ["question", "join"]) == (sync.admit(other, plan, runtime.stores), asked)


def test_an_end_comes_once() -> None:
    """Whoever waits for the end of a request hears of it once, however often adapters say so."""
    exchange, _ = exchange_of()
    ended: list[int] = []
    exchange.end()
    exchange.at_end(lambda: ended.append(1))
    exchange.at_end(lambda: ended.append(2))
    exchange.end()
    exchange.end()
    assert [1, 2] == ended


def test_an_absent_store_is_news_for_all() -> None:
    """Where there is no answer, each part is told so; where one operation failed, only its part."""
    parts = [Part(1), Part(2)]
    exchange, plan = exchange_of(*parts)
    flights = exchange.join(plan)
    away = StoreUnavailable("timeout")
    exchange.receive(flights, [away])
    assert [away, away] == [part.answers for part in parts]
    failed = OperationFailed("OOM")
    exchange.receive(flights, [[1, failed, 3]])
    assert [[1], [failed, 3]] == [part.answers for part in parts]


def test_settlement_and_fields_of_all_parts() -> None:
    """All that joined settle with the status, in order, and their fields come together."""
    exchange, plan = exchange_of(Part(1), Part(2))
    exchange.join(plan)
    assert [("default", ["settle 201"] * 2)] == wanted(exchange.settle(201))
    assert [("X-Part", "1"), ("X-Part", "2")] == exchange.headers()


def test_first_reason_of_a_degradation_stands() -> None:
    """A part that was degraded twice tells of what happened first."""
    exchange, _ = exchange_of()
    exchange.degrade("limits", "timeout")
    exchange.degrade("limits", "open")
    exchange.degrade("sessions", "open")
    assert [("limits", "timeout"), ("sessions", "open")] == list(exchange.degraded.items())


def test_plan_gives_each_concern_its_own_policies() -> None:
    """A concern binds the policies of its name, and late ones only when it is late."""
    seen: list[tuple[bool, list[Any]]] = []

    class Noting(Taking):
        def bind(self, route: Route, policies: Sequence[Any], *, late: bool) -> Bound:
            seen.append((late, list(policies)))
            return super().bind(route, policies, late=late)

    early, late, foreign = limit("1/minute"), limit("1/minute"), limit("1/minute")
    late.late = True
    foreign.concern = "other"  # type: ignore[misc]  # a policy of another concern, in short
    concern = Noting(None, name="ratelimit")
    plan = RoutePlan([concern], Route("GET", "/"), [early, late, foreign], late=False)
    assert frozenset({early, foreign}) == plan.enforced
    RoutePlan([concern], Route("GET", "/"), [late], late=True)
    assert [(False, [early]), (True, [late])] == seen


@pytest.mark.parametrize(
    ("method", "expected"),
    [*[(one, one) for one in sorted(METHODS)], ("get", "GET"), ("Post", "POST"), ("BREW", "OTHER"), ("brew", "OTHER")],
)
def test_methods_are_bounded(method: str, expected: str) -> None:
    """Methods that clients invent are one method, and spelling one differently does not make it another."""
    assert expected == Route(method, "/").method


def test_deferred_policy_is_charged_once() -> None:
    """A policy that could not be decided early is decided late, once, however often its function is called."""
    policy = limit("9/minute", by="user")
    view = policy(lambda: None)
    runtime = make_runtime()
    facts = FakeFacts(view, user=NOT_YET)
    with serving(runtime, facts) as exchange:
        assert None is runtime.admit(exchange)
        assert frozenset() == exchange.enforced
        facts.who = "alice"
        for _ in range(3):
            view()
        assert {policy} == exchange.enforced
        fields = dict(runtime.finish(exchange, 200))
    assert '"9-per-minute";r=8;t=60' == fields["RateLimit"]
