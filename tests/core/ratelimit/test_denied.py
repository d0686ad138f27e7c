"""The deny cache: who was refused is refused again without a flight, and nobody else is."""

from collections.abc import Sequence
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from failsoft import LimitDecided, Rejected, limit
from failsoft.ratelimit.denied import DenyCache
from failsoft.ratelimit.lines import Batch
from failsoft.ratelimit.manage import Reset
from failsoft.testing import FaultyStore, ManualClock
from tests.core.requests import FakeFacts, make_runtime, serve


def view_with(*policies: Any) -> Any:
    def view() -> str:
        return "ok"

    for policy in reversed(policies):
        view = policy(view)
    return view


def statuses(runtime: Any, view: Any, n: int, **facts: Any) -> list[int]:
    return [serve(runtime, FakeFacts(view, **facts))[0] for _ in range(n)]


@pytest.fixture
def clock() -> ManualClock:
    return ManualClock()


@pytest.fixture
def store(clock: ManualClock) -> FaultyStore:
    return FaultyStore(clock=clock)


def test_an_entry_lives_two_seconds_at_most(clock: ManualClock, store: FaultyStore) -> None:
    """Within two seconds no refusal asks the store; then one does, and the next two seconds none."""
    runtime = make_runtime(store=store, clock=clock)
    view = view_with(limit("1/minute"))
    assert [200] + [429] * 9 == statuses(runtime, view, 10)
    clock.advance("1999ms")
    assert [429] == statuses(runtime, view, 1)
    assert 2 == len(store.flights)
    clock.advance("1ms")
    assert [429] * 5 == statuses(runtime, view, 5)
    assert 3 == len(store.flights)


def test_an_entry_ends_with_the_window(clock: ManualClock, store: FaultyStore) -> None:
    """Who is told to wait half a second is admitted after it."""
    runtime = make_runtime(store=store, clock=clock)
    view = view_with(limit("1/second"))
    assert [200] == statuses(runtime, view, 1)
    clock.advance("500ms")
    assert [429, 429] == statuses(runtime, view, 2)
    clock.advance("500ms")
    assert [200] == statuses(runtime, view, 1)


def test_a_cheaper_request_asks(clock: ManualClock, store: FaultyStore) -> None:
    """That ten units did not fit says nothing of three; that three did not, says all of ten."""
    runtime = make_runtime(store=store, clock=clock)
    view = view_with(limit("10/minute", cost=lambda request: int(request.header("x-cost"))))

    def cost(units: int) -> list[int]:
        return statuses(runtime, view, 1, headers={"x-cost": str(units)})

    assert [[200], [429], [200], [429], [429]] == [cost(units) for units in (5, 10, 3, 3, 10)]
    assert 4 == len(store.flights)


def test_a_raised_limit_admits_at_once(clock: ManualClock, store: FaultyStore) -> None:
    """The value of a limit is part of what is remembered: a tenant whose limit was raised does not wait."""
    plans = {"a": "1/minute"}
    runtime = make_runtime(store=store, clock=clock)
    view = view_with(limit(lambda request: plans["a"]))
    assert [200, 429, 429] == statuses(runtime, view, 3)
    plans["a"] = "5/minute"
    assert [200] * 5 == statuses(runtime, view, 5)


def test_a_reload_forgets(clock: ManualClock, store: FaultyStore) -> None:
    """New settings bring a new cache."""
    runtime = make_runtime(store=store, clock=clock, limits=["1/minute"])
    assert [200, 429] == statuses(runtime, None, 2)
    store.flight([Reset(sorted(store.keys))])  # by hand
    assert [429] == statuses(runtime, None, 1)
    runtime.reload(runtime.settings)
    assert [200] == statuses(runtime, None, 1)


def test_limits_that_give_back_are_not_remembered(clock: ManualClock, store: FaultyStore) -> None:
    """A refusal by a limit that is charged by response may be void with the next refund, so each request asks."""
    runtime = make_runtime(store=store, clock=clock)
    view = view_with(limit("1/minute", charge_on=(500,)))
    first = runtime.begin(FakeFacts(view))
    assert runtime.admit(first) is None
    assert [429, 429] == statuses(runtime, view, 2)
    runtime.finish(first, 200)
    assert [200] == statuses(runtime, view, 1)


def test_others_are_not_concerned(clock: ManualClock, store: FaultyStore) -> None:
    """Another client, another route and another limit of the refused client are decided by the store."""
    runtime = make_runtime(store=store, clock=clock)
    view, other = view_with(limit("1/minute")), view_with(limit("1/minute"), limit("9/hour"))
    assert [200, 429, 429] == statuses(runtime, view, 3)
    assert [200] == statuses(runtime, view, 1, address="192.0.2.2")
    assert [200] == statuses(runtime, other, 1, route="/other")


def test_screened_before_anything_is_asked(clock: ManualClock, store: FaultyStore) -> None:
    """A client who is refused by address is refused before any function of the user's and any token is looked at."""
    asked: list[str] = []

    def who(request: Any) -> str:
        asked.append("who")
        return "somebody"

    runtime = make_runtime(store=store, clock=clock, limits=["1/minute"])
    view = view_with(limit("9/minute", by=who))
    assert [200, 429, 429, 429] == statuses(runtime, view, 4)
    assert ["who", "who"] == asked
    assert 2 == len(store.flights)


@pytest.mark.parametrize("dynamic", ["cost", "when", "quota"])
def test_screened_beside_what_depends_on_the_request(clock: ManualClock, store: FaultyStore, dynamic: str) -> None:
    """A limit by address screens a route as well where the costs, conditions or quotas of other limits are the user's functions."""
    asked: list[str] = []

    def say(request: Any) -> Any:
        asked.append(dynamic)
        return "9/minute" if dynamic == "quota" else 1

    runtime = make_runtime(store=store, clock=clock, limits=["1/minute"])
    view = view_with(limit(say) if dynamic == "quota" else limit("9/minute", **{dynamic: say}))
    assert [200, 429, 429, 429] == statuses(runtime, view, 4)
    assert [dynamic] * 2 == asked
    assert 2 == len(store.flights)


def test_what_depends_on_the_request_screens_nobody(clock: ManualClock, store: FaultyStore) -> None:
    """A refusal by a limit with a condition does not stand where the condition does not hold."""
    runtime = make_runtime(store=store, clock=clock)
    view = view_with(limit("1/minute", when=lambda request: request.header("x-free") is None))
    assert [200, 429, 429] == statuses(runtime, view, 3)
    assert [200] == statuses(runtime, view, 1, headers={"x-free": "1"})


def test_an_outage_neither_fills_nor_empties_it(clock: ManualClock, store: FaultyStore) -> None:
    """What the store refused stands while it is away; what this process refuses by itself is not remembered beyond the outage."""
    runtime = make_runtime(store=store, clock=clock)
    view, other = view_with(limit("1/minute")), view_with(limit("1/minute"))
    assert [200, 429] == statuses(runtime, view, 2)
    with store.away():
        assert [429] == statuses(runtime, view, 1)
        assert [200, 429, 429] == statuses(runtime, other, 3, route="/other")
    assert [200] == statuses(runtime, other, 1, route="/other")


def test_off(clock: ManualClock, store: FaultyStore) -> None:
    """The setting 0 asks the store each time."""
    runtime = make_runtime(store=store, clock=clock, deny_cache=0)
    statuses(runtime, view_with(limit("1/minute")), 5)
    assert 5 == len(store.flights)


def test_the_answer_is_the_same(clock: ManualClock, store: FaultyStore) -> None:
    """A remembered refusal has the fields and the problem of the first, with what time has passed taken off."""
    runtime = make_runtime(store=store, clock=clock, limits=["9/hour"])
    view = view_with(limit("1/minute"))

    def refused() -> tuple[Rejected, dict[str, str]]:
        _, exchange, fields = serve(runtime, FakeFacts(view))
        assert exchange.rejection is not None
        return exchange.rejection, dict(fields)

    serve(runtime, FakeFacts(view))
    (first, fields), (second, again) = refused(), refused()
    assert (first.problem, first.retry_after, fields) == (second.problem, second.retry_after, again)
    clock.advance("1500ms")
    third, later = refused()
    assert 59 == third.retry_after
    assert '"9-per-hour";r=8;t=3599, "1-per-minute";r=0;t=59' == later["RateLimit"]
    assert 2 == len(store.flights)


def told(runtime: Any, view: Any, **facts: Any) -> tuple[Any, int | None, dict[str, str]]:
    """What a refused request is told: the problem, when to return, and the fields."""
    _, exchange, fields = serve(runtime, FakeFacts(view, **facts))
    assert exchange.rejection is not None
    return exchange.rejection.problem, exchange.rejection.retry_after, dict(fields)


@pytest.mark.parametrize("dynamic", ["cost", "when", "quota"])
@pytest.mark.parametrize(("everywhere", "own"), [("9/hour", "1/minute"), ("1/hour", "9/minute")])
def test_the_answer_is_the_same_where_functions_decide(
    clock: ManualClock, store: FaultyStore, dynamic: str, everywhere: str, own: str
) -> None:
    """A repetition names all limits that the first refusal named where their costs, conditions or quotas are functions."""
    runtime = make_runtime(store=store, clock=clock, limits=[everywhere])
    say: Any = lambda request: own if dynamic == "quota" else 1  # noqa: E731 - called for the request, whatever it is for
    view = view_with(limit(say) if dynamic == "quota" else limit(own, **{dynamic: say}))
    serve(runtime, FakeFacts(view))
    first = told(runtime, view)
    assert 2 == first[2]["RateLimit-Policy"].count("q=")
    assert [first, first] == [told(runtime, view), told(runtime, view)]
    assert 2 == len(store.flights)


def test_nobody_is_told_what_others_have_left(clock: ManualClock, store: FaultyStore) -> None:
    """Where a repetition counts another subject with its other limits, it names only the limit that refuses."""
    runtime = make_runtime(store=store, clock=clock)
    view = view_with(
        limit("9/hour", by="header:x-device"), limit("1/minute", by="user"), limit("9/day", by="header:x-device")
    )
    serve(runtime, FakeFacts(view, user="u", headers={"x-device": "a"}))
    first = told(runtime, view, user="u", headers={"x-device": "a"})
    assert first == told(runtime, view, user="u", headers={"x-device": "a"})
    assert '"1-per-minute";r=0;t=60' == told(runtime, view, user="u", headers={"x-device": "b"})[2]["RateLimit"]
    assert 2 == len(store.flights)


@pytest.mark.parametrize("on_missing", ["ip", "exempt"])
def test_nobody_behind_the_same_address_is_told_what_others_have_left(
    clock: ManualClock, store: FaultyStore, on_missing: Any
) -> None:
    """Who is refused by address, before it is known who asks, hears of that limit alone where others count by something else."""
    runtime = make_runtime(store=store, clock=clock)
    view = view_with(limit("9/hour", by="user", on_missing=on_missing), limit("1/minute", by="ip"))
    serve(runtime, FakeFacts(view, user="alice"))
    assert '"9-per-hour";r=8;t=3600, "1-per-minute";r=0;t=60' == told(runtime, view, user="alice")[2]["RateLimit"]
    assert '"1-per-minute";r=0;t=60' == told(runtime, view, user="bob")[2]["RateLimit"]
    assert 2 == len(store.flights)


def test_fields_and_problem_use_one_name(clock: ManualClock, store: FaultyStore) -> None:
    """Where a limit has a number added to its name, the problem, both fields and a repetition of it alone agree on the name."""
    runtime = make_runtime(store=store, clock=clock)
    view = view_with(limit("1/minute", by="header:x-device"), limit("1/minute", by="user"))
    for device in "aa":
        serve(runtime, FakeFacts(view, user="u", headers={"x-device": device}))
    problem, _, fields = told(runtime, view, user="u", headers={"x-device": "b"})
    assert 2 == len(store.flights)
    assert ["1-per-minute-2"] == problem.members["violated-policies"]
    assert '"1-per-minute-2";r=0;t=60' == fields["RateLimit"]
    assert '"1-per-minute-2";q=1;w=60' == fields["RateLimit-Policy"]


def test_another_route_names_its_own_limits(clock: ManualClock, store: FaultyStore) -> None:
    """Who is refused everywhere hears on another route of that limit, and of none that does not apply there."""
    runtime = make_runtime(store=store, clock=clock, limits=["1/hour"])
    serve(runtime, FakeFacts(view_with(limit("9/minute"))))
    assert 2 == told(runtime, view_with(limit("9/minute")))[2]["RateLimit"].count("r=")
    assert '"1-per-hour";r=0;t=3600' == told(runtime, view_with(), route="/other")[2]["RateLimit"]
    assert 2 == len(store.flights)


def test_it_is_an_event(clock: ManualClock, store: FaultyStore) -> None:
    """Listeners hear of remembered refusals as of others, and who decided."""
    runtime = make_runtime(store=store, clock=clock)
    heard: list[tuple[bool, str]] = []
    runtime.listen(lambda e: heard.append((e.admitted, e.decider)) if isinstance(e, LimitDecided) else None)
    statuses(runtime, view_with(limit("1/minute")), 3)
    assert [(True, "store"), (False, "store"), (False, "denied")] == heard


@given(st.lists(st.tuples(st.sampled_from("abcdef"), st.integers(1, 3000), st.integers(0, 900)), max_size=60))
@settings(deadline=None)
def test_bounds(steps: Sequence[tuple[str, int, int]]) -> None:
    """It never outgrows its bound, and no entry outlives two seconds or its own end."""
    cache = DenyCache(life=2.0, bound=3)
    batch = _one_line()
    now, until = 100.0, dict.fromkeys("abcdef", 0.0)
    for key, reset, pause in steps:
        found = cache.find(key, 1, now)
        assert found is None or now < until[key]
        cache.remember(None, [key], batch, 0, (0, 0, reset), now)
        until[key] = now + min(2.0, reset / 1000)
        assert len(cache) <= 3
        now += pause / 1000


@pytest.mark.parametrize("act", ["count", "collect"])
def test_a_refusal_that_is_remembered_anew_meanwhile(act: str) -> None:
    """What was refused is counted once and told once, also where another thread remembers the refusal anew at that moment."""
    cache = DenyCache(life=2.0, bound=3)
    batch = _one_line()

    class Interrupted(dict[str, Any]):
        """Another thread comes in between as soon as somebody has looked, unless that is kept out."""

        def get(self, key: str, default: Any = None) -> Any:
            found = super().get(key, default)
            if not cache._lock.locked():
                cache.remember(None, [key], batch, 0, (0, 0, 2000), 100.0)
            return found

    cache.entries = Interrupted()
    cache.remember(None, ["key"], batch, 0, (0, 0, 2000), 100.0)
    cache.count("key")
    if act == "collect":
        assert 1 == cache.collect("key", 0.0)
        assert 0 == cache.collect("key", 0.0)
    else:
        assert 1 == cache.entries["key"].refused


def _one_line() -> Batch:
    runtime = make_runtime(limits=["1/minute"])
    plan = runtime.plan(FakeFacts(None))
    return Batch(plan.bounds[0].lines(), [1])  # type: ignore[attr-defined]  # RouteLimits
