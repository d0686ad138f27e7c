"""What a request is charged with in the end: by its response, by what the view says, in the shadow, with a penalty."""

import asyncio
from typing import Any

import pytest

from failsoft import ConfigurationError, LimitDecided, LimitNear, OutsideRequest, Penalty, limit, reservation
from failsoft.errors import OperationFailed
from failsoft.exchange import Exchange
from failsoft.ratelimit.manage import Reset
from failsoft.runtime import Runtime
from failsoft.stores.redis import RedisStore
from failsoft.testing import FaultyStore, ManualClock, outside_request
from tests.core.ratelimit.structured import parse_list
from tests.core.requests import FakeFacts, make_runtime, serve, serving


def view_with(*policies: Any) -> Any:
    def view() -> str:
        return "ok"

    for policy in reversed(policies):
        view = policy(view)
    return view


def answer(runtime: Runtime, view: Any, status: int = 200, **facts: Any) -> tuple[int, dict[str, str]]:
    """Serve a request whose view answers with `status`."""
    with serving(runtime, FakeFacts(view, **facts)) as exchange:
        rejected = runtime.admit(exchange)
        found = status if rejected is None else rejected.status
        return found, dict(runtime.finish(exchange, found))


def remaining(fields: dict[str, str]) -> list[int]:
    return [member.parameters["r"] for member in parse_list(fields["RateLimit"])]


ALGORITHMS = ("fixed-window", "gcra", "sliding-window-counter", "moving-window")


@pytest.fixture(params=["memory", "redis"])
def runtime_of(request: pytest.FixtureRequest, redis_url: str) -> Any:
    """Makes runtimes on each store."""
    made: list[Runtime] = []

    def make(**settings: Any) -> Runtime:
        store = RedisStore(redis_url, deadline=5.0) if request.param == "redis" else None
        made.append(make_runtime(store=store, prefix=request.node.name.replace("[", "-").replace("]", ""), **settings))
        return made[-1]

    yield make
    for runtime in made:
        runtime.close()


@pytest.mark.parametrize("algorithm", ALGORITHMS)
def test_charge_on_failures_only(runtime_of: Any, algorithm: Any) -> None:
    """A limit on failed log-ins counts those, whatever number of successes lies between them."""
    runtime = runtime_of()
    view = view_with(limit("3/hour", charge_on=(401, 403), algorithm=algorithm))
    assert [200] * 5 == [answer(runtime, view)[0] for _ in range(5)]
    said = [answer(runtime, view, status) for status in (401, 200, 403, 200, 401)]
    assert [2, 2, 1, 1, 0] == [remaining(fields)[0] for _, fields in said]
    assert 429 == answer(runtime, view, 200)[0]


@pytest.mark.parametrize("charge_on", [range(400, 500), [404], lambda status: status == 404])
def test_ways_to_say_what_is_charged(charge_on: Any) -> None:
    """Statuses may be any container, or a function."""
    runtime = make_runtime()
    view = view_with(limit("9/hour", charge_on=charge_on))
    assert [9, 8, 8] == [remaining(answer(runtime, view, status)[1])[0] for status in (200, 404, 200)]


def test_reserved_units_hold_the_limit_while_views_run() -> None:
    """Units are reserved: as many requests as the limit has are in their views at most, and what they give back admits more."""
    runtime = make_runtime()
    view = view_with(limit("2/hour", charge_on=(401,)))
    under_way: list[Exchange] = []
    for _ in range(2):
        exchange = runtime.begin(FakeFacts(view))
        assert runtime.admit(exchange) is None
        under_way.append(exchange)
    assert 429 == answer(runtime, view, 200)[0]
    runtime.finish(under_way.pop(), 200)
    assert 200 == answer(runtime, view, 200)[0]


def test_a_refused_request_is_charged_nothing_at_the_end() -> None:
    """Where another limit refuses, one that charges for every response is not charged for the refusal."""
    runtime = make_runtime()
    view = view_with(limit("1/minute"), limit("9/hour", charge_on=lambda status: True))
    assert [(200, [0, 8]), (429, [0, 8]), (429, [0, 8])] == [
        (status, remaining(fields)) for status, fields in (answer(runtime, view) for _ in range(3))
    ]


def test_peek_reserves_nothing() -> None:
    """A peeking limit lets everybody in who comes before the first charge, and is overshot by as many."""
    runtime = make_runtime()
    view = view_with(limit("2/hour", charge_on=(401,), peek=True))
    under_way = [runtime.begin(FakeFacts(view)) for _ in range(5)]
    assert [None] * 5 == [runtime.admit(exchange) for exchange in under_way]
    for exchange in under_way:
        runtime.finish(exchange, 401)
    assert 429 == answer(runtime, view)[0]


def test_a_predicate_that_fails_charges(caplog: pytest.LogCaptureFixture) -> None:
    """A function of the user's that raises harms no response; what was reserved stays charged."""
    runtime = make_runtime()
    view = view_with(limit("2/hour", charge_on=lambda status: 1 // 0))
    assert [1] == remaining(answer(runtime, view)[1])
    assert "charge_on failed" in caplog.text


def test_a_refund_belongs_to_its_window() -> None:
    """What was reserved in a window that is over is not given back to the next one."""
    clock = ManualClock()
    runtime = make_runtime(clock=clock)
    view = view_with(limit("2/minute", charge_on=(401,)))
    slow = runtime.begin(FakeFacts(view))
    assert runtime.admit(slow) is None
    clock.advance("61s")
    assert [1, 0] == [remaining(answer(runtime, view, 401)[1])[0] for _ in range(2)]
    runtime.finish(slow, 200)
    assert 429 == answer(runtime, view)[0]


@pytest.mark.parametrize("algorithm", ALGORITHMS)
@pytest.mark.parametrize(("said", "left"), [(0, 100), (7, 93), (40, 60), (100, 0), (130, 0)])
def test_settling_a_reservation(runtime_of: Any, algorithm: Any, said: int, left: int) -> None:
    """A view says what a request really cost; more than was reserved is charged all the same."""
    runtime = runtime_of()
    policy = limit("100/hour", cost=40, name="tokens", adjustable=True, algorithm=algorithm)
    view = view_with(policy)
    with serving(runtime, FakeFacts(view)) as exchange:
        assert runtime.admit(exchange) is None
        held = reservation("tokens")
        assert 40 == held.units
        held.charge(99)
        held.charge(said)
        assert said == held.units
        assert [left] == remaining(dict(runtime.finish(exchange, 200)))
    other = view_with(policy)
    assert (429 if left < 40 else 200) == answer(runtime, other)[0]


def test_what_nobody_says_stays_reserved() -> None:
    """Without a word of the view's, the estimate is the price."""
    runtime = make_runtime()
    view = view_with(limit("100/hour", cost=40, name="tokens", adjustable=True))
    assert [60, 20] == [remaining(answer(runtime, view)[1])[0] for _ in range(2)]


def test_settling_after_the_response_has_begun() -> None:
    """A stream knows its cost when its header fields are long sent: a charge is then a flight of its own, by the difference."""
    store = FaultyStore(clock=ManualClock())
    runtime = make_runtime(store=store)
    view = view_with(limit("100/hour", cost=10, name="bytes", adjustable=True))
    with serving(runtime, FakeFacts(view)) as exchange:
        assert runtime.admit(exchange) is None
        held = reservation("bytes")
        runtime.finish(exchange, 200)
        held.charge(30)
        held.charge(30)
        held.charge(20)
    assert [("ratelimit.acquire",), ("ratelimit.adjust",), ("ratelimit.adjust",)] == list(store.flights)
    assert [70] == remaining(answer(runtime, view)[1])


def test_a_reservation_of_a_limit_that_does_not_apply() -> None:
    """Where the limit does not apply to the request, or the store was away, charging does nothing."""
    store = FaultyStore(clock=ManualClock())
    runtime = make_runtime(store=store)
    view = view_with(limit("9/hour", name="posts", methods=["POST"], adjustable=True, on_outage="open"))
    with serving(runtime, FakeFacts(view)) as exchange:
        assert runtime.admit(exchange) is None
        held = reservation("posts")
        held.charge(5)
        assert (0, []) == (held.units, runtime.finish(exchange, 200))
    with store.away(), serving(runtime, FakeFacts(view, method="POST")) as exchange:
        assert runtime.admit(exchange) is None
        reservation("posts").charge(5)
        runtime.finish(exchange, 200)
    assert [8] == remaining(answer(runtime, view, method="POST")[1])


def test_mistakes_with_reservations() -> None:
    """A name that no limit has, an impossible number, and no request at all are errors that say so."""
    runtime = make_runtime()
    view = view_with(limit("9/hour", name="known", adjustable=True))
    with serving(runtime, FakeFacts(view)) as exchange:
        assert runtime.admit(exchange) is None
        with pytest.raises(ConfigurationError, match=r"no limit of this name can be adjusted.*known"):
            reservation("unknown")
        for units in (-1, True, 1.5, 10**13):
            with pytest.raises(ConfigurationError, match="whole number"):
                reservation("known").charge(units)  # type: ignore[arg-type]  # mistakes
    with pytest.raises(OutsideRequest, match="reservation"):
        reservation("known")
    with outside_request():
        reservation("known").charge(3)


def test_charging_on_an_event_loop() -> None:
    """Once the response has begun, charging waits for the store: on an event loop only by awaiting."""
    asyncio.run(charge_on_an_event_loop())


async def charge_on_an_event_loop() -> None:
    class Shared(FakeFacts):
        synchronous = False

    store = FaultyStore(clock=ManualClock())
    runtime = make_runtime(store=store)
    view = view_with(limit("100/hour", cost=10, name="bytes-async", adjustable=True))
    with serving(runtime, Shared(view)) as exchange:
        assert await runtime.aadmit(exchange) is None
        held = reservation("bytes-async")
        await runtime.afinish(exchange, 200)
        with pytest.raises(OutsideRequest, match="await"):
            held.charge(30)
        await held.acharge(40)
        await held.arefund()
    assert [90] == remaining(answer(runtime, view)[1])


def test_a_local_reservation() -> None:
    """During an outage what this process reserved is given back here."""
    store = FaultyStore(clock=ManualClock())
    runtime = make_runtime(store=store)
    view = view_with(limit("2/hour", charge_on=(401,)))
    with store.away():
        assert [200] * 4 == [answer(runtime, view)[0] for _ in range(4)]
        assert [401, 401, 429] == [answer(runtime, view, 401)[0] for _ in range(3)]


def test_a_store_that_fails_at_the_settlement() -> None:
    """A refund that the store does not take is lost: too much is charged, never too little, and no request fails."""
    store = FaultyStore(clock=ManualClock())
    runtime = make_runtime(store=store)
    view = view_with(limit("2/hour", charge_on=(401,)))
    with serving(runtime, FakeFacts(view)) as exchange:
        assert runtime.admit(exchange) is None
        with store.away():
            runtime.finish(exchange, 200)
    assert [1] == remaining(answer(runtime, view, 200)[1])


def test_shadow() -> None:
    """A shadow limit counts and tells listeners whom it would refuse, and neither refuses nor shows."""
    runtime = make_runtime(limits=["9/hour"])
    view = view_with(limit("1/hour", name="ghost", shadow=True))
    heard: list[LimitDecided] = []
    runtime.listen(lambda event: heard.append(event) if isinstance(event, LimitDecided) else None)
    replies = [answer(runtime, view) for _ in range(3)]
    assert [200] * 3 == [status for status, _ in replies]
    assert ['"9-per-hour";q=9;w=3600'] * 3 == [fields["RateLimit-Policy"] for _, fields in replies]
    assert [[8], [7], [6]] == [remaining(fields) for _, fields in replies]
    assert [[True], [False], [False]] == [[one.allowed for one in event.shadows] for event in heard]
    assert [["9-per-hour"]] * 3 == [[one.name for one in event.limits] for event in heard]


def test_a_shadow_never_refuses_in_an_outage() -> None:
    """Neither a closed shadow nor a local one refuses while the store is away."""
    store = FaultyStore(clock=ManualClock())
    runtime = make_runtime(store=store)
    view = view_with(limit("1/hour", shadow=True, on_outage="closed"), limit("1/minute", shadow=True))
    with store.away():
        assert [200] * 3 == [answer(runtime, view)[0] for _ in range(3)]


def test_penalty(runtime_of: Any) -> None:
    """After some breaches the client is shut out, also where the limit itself would admit; the problem says why."""
    runtime = runtime_of(deny_cache=0)
    view = view_with(limit("1/hour", name="login", penalty=Penalty(after=3, within="1h", block="2h", most="1d")))
    first = [answer(runtime, view)[0] for _ in range(4)]
    assert [200, 429, 429, 429] == first
    with serving(runtime, FakeFacts(view)) as exchange:
        rejected = runtime.admit(exchange)
    assert rejected is not None
    assert rejected.problem.type.endswith("#abnormal-usage-detected")
    assert "login-penalty" in rejected.problem.members["violated-policies"]
    assert 7195 <= (rejected.retry_after or 0) <= 7201


def test_growing_penalties() -> None:
    """Each block is longer than the one before."""
    clock = ManualClock()
    runtime = make_runtime(clock=clock)
    view = view_with(limit("1/minute", penalty=Penalty(after=1, block="2m", growth=3, most="10m", forget="1d")))
    blocks: list[int] = []
    for _ in range(4):
        assert [200, 429] == [answer(runtime, view)[0] for _ in range(2)]
        with serving(runtime, FakeFacts(view)) as exchange:
            rejected = runtime.admit(exchange)
        assert rejected is not None
        blocks.append(rejected.retry_after or 0)
        clock.advance(blocks[-1])
    assert [120, 360, 600, 600] == blocks


def test_remembered_refusals_are_breaches_too() -> None:
    """Refusals that this process decides by itself count for the penalty, with the key's next flight."""
    clock = ManualClock()
    store = FaultyStore(clock=clock)
    runtime = make_runtime(store=store, clock=clock)
    view = view_with(limit("1/minute", penalty=Penalty(after=10, within="1h", block="2h", most="2h")))
    assert [200] + [429] * 8 == [answer(runtime, view)[0] for _ in range(9)]
    assert 2 == len(store.flights)
    clock.advance("2001ms")  # the entry is over: this one asks the store, and brings the seven with it
    assert 429 == answer(runtime, view)[0]
    assert ("ratelimit.acquire", "ratelimit.breaches") == store.flights[-1]
    clock.advance("60s")
    assert [200, 429] == [answer(runtime, view)[0] for _ in range(2)]
    clock.advance("61s")
    status, _ = answer(runtime, view)
    assert 429 == status  # the tenth breach began a block


@pytest.mark.parametrize("how", ["in time", "by hand"])
def test_remembered_refusals_that_were_forgotten(how: str) -> None:
    """What was refused here before the penalty forgot it, or before somebody let the client in again, is not brought up afterwards."""
    clock = ManualClock()
    store = FaultyStore(clock=clock)
    runtime = make_runtime(store=store, clock=clock)
    view = view_with(limit("1/minute", penalty=Penalty(after=4, within="30s", block="2h", most="2h")))
    assert [200] + [429] * 5 == [answer(runtime, view)[0] for _ in range(6)]
    if how == "in time":
        clock.advance("32s")
        assert 429 == answer(runtime, view)[0]
    else:
        clock.advance("2001ms")
        store.flight([Reset([key]) for key in sorted(store.keys)])
        assert 200 == answer(runtime, view)[0]
    assert ("ratelimit.acquire",) == store.flights[-1][:1]
    clock.advance("60s")
    assert 200 == answer(runtime, view)[0]


def test_near_the_limit() -> None:
    """Listeners are told once in a window that a limit is nearly used up."""
    clock = ManualClock()
    runtime = make_runtime(clock=clock, near_limit=0.8)
    view = view_with(limit("10/minute", name="n"), limit("100/minute", name="far"))
    heard: list[LimitNear] = []
    runtime.listen(lambda event: heard.append(event) if isinstance(event, LimitNear) else None)
    for _ in range(12):
        answer(runtime, view, route="/near")
    assert [("n", 2, 10, 60.0, "GET", "/near")] == [
        (one.name, one.remaining, one.capacity, one.reset, one.method, one.route) for one in heard
    ]
    clock.advance("60s")
    for _ in range(9):
        answer(runtime, view)
    assert ["n", "n"] == [one.name for one in heard if one.name == "n"]


@pytest.mark.parametrize(
    ("wrong", "says"),
    [
        ({"charge_on": "401"}, "charge_on"),
        ({"charge_on": 401}, "charge_on"),
        ({"peek": True}, "charge_on"),
        ({"penalty": "1h"}, "penalty"),
        ({"lease": 1}, "lease"),
        ({"lease": True}, "lease"),
        ({"lease": 10_001}, "lease"),
        ({"lease": 9, "shadow": True}, "shadow"),
        ({"lease": 9, "charge_on": (401,)}, "adjustable"),
        ({"lease": 9, "penalty": Penalty()}, "penalty"),
        ({"store": "no such name"}, "store"),
        ({"algorithm": "fixed"}, "algorithm"),
    ],
)
def test_mistakes_are_errors_at_once(wrong: dict[str, Any], says: str) -> None:
    """A wrong argument, or two that contradict each other, is an error that names them."""
    with pytest.raises(ConfigurationError, match=says):
        limit("9/minute", **wrong)


def test_per_plan_and_per_tenant_limits() -> None:
    """A function of the request gives each its own quota; a changed plan has its own counter at once."""
    plans = {"free": "1/minute", "paid": "3/minute"}
    tenants = {"a": "free", "b": "paid"}
    runtime = make_runtime(by="user")
    view = view_with(limit(lambda request: plans[tenants[request.who]]))
    assert [200, 429] == [answer(runtime, view, user="a")[0] for _ in range(2)]
    assert [200, 200, 200, 429] == [answer(runtime, view, user="b")[0] for _ in range(4)]
    tenants["a"] = "paid"
    assert 200 == answer(runtime, view, user="a")[0]


def test_operations_that_fail_by_themselves() -> None:
    """A correction that the store answers with an error harms nobody."""
    store = FaultyStore(clock=ManualClock())
    runtime = make_runtime(store=store)
    view = view_with(limit("2/hour", charge_on=(401,)))
    flight = store.flight
    with serving(runtime, FakeFacts(view)) as exchange:
        assert runtime.admit(exchange) is None
        store.flight = lambda operations: [OperationFailed("OOM") for _ in operations]  # type: ignore[method-assign]  # a fault
        runtime.finish(exchange, 200)
    store.flight = flight  # type: ignore[method-assign]  # over
    assert 200 == serve(runtime, FakeFacts(view))[0]
