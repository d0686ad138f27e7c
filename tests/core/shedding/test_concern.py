"""The load shedder in the course of a request: before everything else, and until the very end."""

import asyncio
import socket
import struct
from typing import Any

import pytest

from failsoft import CapacityChanged, ConfigurationError, Event, Settings, Shed, Unavailable, criticality, limit
from failsoft.exchange import Exchange
from failsoft.ratelimit.shedding import Capacity, Permit
from failsoft.runtime import Runtime
from failsoft.testing import FaultyStore, ManualClock
from tests.core.requests import FakeFacts, make_runtime


def shedding(limit: int = 1, **settings: Any) -> Runtime:
    """A runtime whose limit never changes."""
    return make_runtime(shed=True, shed_min=limit, shed_max=limit, **settings)


def capacity_of(runtime: Runtime) -> Capacity:
    assert runtime.shedder is not None
    return runtime.shedder.capacity


def begin(runtime: Runtime, facts: FakeFacts | None = None) -> tuple[Exchange, Any]:
    """A request, and its refusal or None."""
    exchange = runtime.begin(facts or FakeFacts())
    return exchange, runtime.admit(exchange)


def hold(runtime: Runtime, count: int = 1) -> list[Permit]:
    """Places that requests of the highest class have."""
    capacity = capacity_of(runtime)
    permits = [capacity.acquire(3, capacity.usual("held"), -100.0) for _ in range(count)]
    return [permit for permit in permits if permit is not None]


def serve(runtime: Runtime, clock: ManualClock, took: float, status: int = 200, *, count: int = 10) -> None:
    """Requests one after another, each of which took so long up to the start of its response."""
    for _ in range(count):
        exchange, rejected = begin(runtime)
        assert rejected is None
        clock.advance(took)
        runtime.finish(exchange, status)
        clock.advance(100.0)  # a body that streams
        exchange.end()


def test_off_unless_asked_for() -> None:
    """Without the setting there is no load shedder, and none with it turned off in all."""
    assert None is make_runtime().shedder
    runtime = shedding(enabled=False)
    hold(runtime)
    assert None is begin(runtime)[1]


def test_least_above_most() -> None:
    """A least limit above the greatest is an error when the application starts."""
    with pytest.raises(ConfigurationError, match=r"shed_min.*30 is above shed_max, 20.*\(failsoft\.E423\)"):
        make_runtime(shed=True, shed_min=30, shed_max=20)


def test_refusal() -> None:
    """Without a place: 503, a problem, when to come again; and nothing of what others would say."""
    runtime = shedding(1, limits=["9/minute"])
    first, admitted = begin(runtime)
    exchange, rejected = begin(runtime)
    assert (None, Unavailable, 503) == (admitted, type(rejected), rejected.status)
    status, fields, body = runtime.answer(rejected, "application/json")
    assert (503, "1", "no-store") == (status, dict(fields)["Retry-After"], dict(fields)["Cache-Control"])
    assert b"#temporary-reduced-capacity" in body
    assert [] == runtime.finish(exchange, 503)
    exchange.end()
    assert 1 == capacity_of(runtime).in_flight
    runtime.finish(first, 200)
    assert 1 == capacity_of(runtime).in_flight
    first.end()
    assert 0 == capacity_of(runtime).in_flight


@pytest.mark.parametrize(("drawn", "expected"), [(0.0, 1), (0.5, 3), (0.999, 5)])
def test_clients_do_not_return_at_once(drawn: float, expected: int) -> None:
    """When to come again is drawn for each refusal, from 1 to 5 s, and the problem says the same."""
    runtime = make_runtime(shed=True, shed_min=1, shed_max=1, random=lambda: drawn)
    hold(runtime)
    _, rejected = begin(runtime)
    assert expected == rejected.retry_after
    assert f"{expected} s" in rejected.problem.detail


def test_nothing_is_done_for_the_refused() -> None:
    """No function of the user's is asked, and no store."""
    asked: list[Any] = []
    store = FaultyStore()

    @limit(lambda request: asked.append(request) or "9/minute")
    def view() -> None: ...

    runtime = make_runtime(store=store, shed=True, shed_min=1, shed_max=1, limits=["9/minute"])
    hold(runtime)
    assert 503 == begin(runtime, FakeFacts(view))[1].status
    assert ([], []) == (asked, list(store.flights))


def test_classes() -> None:
    """When the limit is reached, what is sheddable is refused, and what is critical is served beside it."""

    @criticality("sheddable")
    def low() -> None: ...

    runtime = shedding(2, criticality={"/pay": "critical_plus", "/reports": "sheddable"})
    low_ones = [begin(runtime, FakeFacts(low))[0] for _ in range(2)]
    assert 503 == begin(runtime, FakeFacts(low))[1].status
    assert 503 == begin(runtime, FakeFacts(route="/reports/{id}"))[1].status
    high_ones = [begin(runtime, FakeFacts(route=route)) for route in ("/pay", "/other")]
    assert [None, None] == [rejected for _, rejected in high_ones]
    for exchange in [*low_ones, *(exchange for exchange, _ in high_ones)]:
        exchange.end()
    assert 0 == capacity_of(runtime).in_flight


def test_exempt_requests_are_neither_refused_nor_counted() -> None:
    """Health checks by their path or route, and what is declared so."""

    @criticality("exempt")
    def view() -> None: ...

    runtime = shedding(1, criticality={"/probe": "exempt"})
    hold(runtime)
    for facts in (
        FakeFacts(view),
        FakeFacts(route="/healthz"),
        FakeFacts(route=None, path="/healthz"),
        FakeFacts(route="/probe/{part}"),
        FakeFacts(route=None, path="/probe/disk"),
    ):
        assert None is begin(runtime, facts)[1]
    assert 503 == begin(runtime, FakeFacts(route=None, path="/nowhere"))[1].status
    assert 1 == capacity_of(runtime).in_flight


def test_a_path_does_not_overrule_a_route() -> None:
    """Where the route is known, the path says nothing: a catch-all route is not exempt because of what it is asked for."""
    runtime = shedding(1)
    hold(runtime)
    assert 503 == begin(runtime, FakeFacts(route="/{path}", path="/healthz"))[1].status


@pytest.mark.parametrize(("status", "learned"), [(200, True), (304, True), (404, False), (429, False), (503, False)])
def test_what_is_learned(status: int, learned: bool) -> None:
    """A response that succeeded teaches how long it took to begin; a quick failure, or a refusal by whomever, nothing."""
    clock = ManualClock()
    runtime = make_runtime(clock=clock, shed=True)
    serve(runtime, clock, 0.25, status)
    assert (0.25 if learned else 0.0) == capacity_of(runtime).mean


@pytest.mark.parametrize(("status", "expected"), [(500, 0.25 + 0.2 * 0.75), (429, 0.25)])
def test_slow_failures_are_learned(status: int, expected: float) -> None:
    """A failure that took longer than usual held its place for that long, and counts; a refusal does not."""
    clock = ManualClock()
    runtime = make_runtime(clock=clock, shed=True)
    serve(runtime, clock, 0.25)
    serve(runtime, clock, 1.0, status)
    assert pytest.approx(expected) == capacity_of(runtime).mean


def test_request_without_a_response() -> None:
    """A request that ended without a response gives its place back, and teaches nothing."""
    clock = ManualClock()
    runtime = make_runtime(clock=clock, shed=True)
    for _ in range(20):
        exchange, _ = begin(runtime)
        clock.advance(1.0)
        exchange.end()
    assert (0, 0.0) == (capacity_of(runtime).in_flight, capacity_of(runtime).mean)


def test_request_that_never_ends() -> None:
    """A place whose request was forgotten by whoever served it is not lost."""
    runtime = shedding(3)
    for _ in range(9):
        exchange, rejected = begin(runtime)
        assert None is rejected
        del exchange
    assert 0 == capacity_of(runtime).in_flight


def test_events() -> None:
    """Listeners hear of each refusal: whom, why, and how full it was."""
    heard: list[Event] = []
    runtime = shedding(1)
    runtime.listen(heard.append)
    hold(runtime)
    begin(runtime, FakeFacts(route="/items", method="POST"))
    assert [Shed("critical", "full", 1, 1, None, "POST", "/items")] == heard


def test_the_limit_is_told_once_in_a_second() -> None:
    """Listeners hear that the limit is another, not more often than once in a second, with what it was before."""
    clock = ManualClock()
    runtime = make_runtime(clock=clock, shed=True)
    heard: list[Event] = []
    runtime.listen(heard.append)
    limits = [20]
    for _ in range(12):
        held = hold(runtime, 15)
        for _ in range(10):
            exchange, _ = begin(runtime)
            runtime.finish(exchange, 200)
            exchange.end()
        for permit in held:
            capacity_of(runtime).release(permit, clock.monotonic())
        limits.append(capacity_of(runtime).limit)
        clock.advance(0.25)
    told = [event for event in heard if isinstance(event, CapacityChanged)]
    assert heard == told
    assert 3 == len(told)
    assert [20, *(event.limit for event in told[:-1])] == [event.before for event in told]
    assert limits[0] < told[0].limit < told[-1].limit <= limits[-1]


class Connection:
    """A socket on which the last data arrived some milliseconds ago."""

    def __init__(self, ago: int) -> None:
        self.ago = ago

    def getsockopt(self, level: int, name: int, size: int) -> bytes:
        return bytes(52) + struct.pack("=I", self.ago)


class WsgiFacts(FakeFacts):
    """A request of a server that shows its socket."""

    __slots__ = ("socket",)

    def __init__(self, ago: int, **options: Any) -> None:
        super().__init__(**options)
        self.socket = Connection(ago)

    def environ(self) -> dict[str, Any]:
        return {"gunicorn.socket": self.socket}


def stand(runtime: Runtime, clock: ManualClock, facts: FakeFacts) -> Any:
    """Let requests come that all waited, for longer than a second; returns the last refusal."""
    rejected = None
    for _ in range(13):
        exchange, rejected = begin(runtime, facts)
        runtime.finish(exchange, 200)
        exchange.end()
        clock.advance(0.1)
    return rejected


@pytest.mark.skipif(not hasattr(socket, "TCP_INFO"), reason="this system does not say when data arrived")
def test_who_waited_too_long_on_the_socket() -> None:
    """Behind a standing queue, by what the kernel says, who waited too long for its class is refused, and that is told."""
    clock = ManualClock()
    heard: list[Event] = []
    runtime = make_runtime(clock=clock, shed=True, criticality={"/reports": "sheddable"})
    runtime.listen(heard.append)
    serve(runtime, clock, 0.1)
    rejected = stand(runtime, clock, WsgiFacts(350, route="/reports"))
    assert 503 == rejected.status
    assert Shed("sheddable", "waited", 0, 20, 0.35, "GET", "/reports") == heard[-1]
    assert None is begin(runtime, WsgiFacts(350, route="/pay"))[1]
    assert None is begin(runtime, WsgiFacts(50, route="/reports"))[1]


def test_who_waited_too_long_by_the_proxy() -> None:
    """The same by what a trusted proxy says; nobody else is believed, and without the setting nobody."""
    clock = ManualClock()

    def request(peer: str, ago: float) -> FakeFacts:
        return FakeFacts(address=peer, headers={"x-request-start": f"t={clock.time() - ago:.3f}"}, route="/reports")

    for settings, peer, refused in (
        ({"queue_header": "X-Request-Start", "trusted_proxies": ["10.0.0.1"]}, "10.0.0.1", True),
        ({"queue_header": "X-Request-Start", "trusted_proxies": ["10.0.0.1"]}, "10.0.0.2", False),
        ({"trusted_proxies": ["10.0.0.1"]}, "10.0.0.1", False),
    ):
        runtime = make_runtime(clock=clock, shed=True, criticality={"/reports": "sheddable"}, **settings)  # type: ignore[arg-type]  # a mapping of settings
        serve(runtime, clock, 0.1)
        begin(runtime, request(peer, 0.0))[0].end()
        rejected = None
        for _ in range(13):
            exchange, rejected = begin(runtime, request(peer, 2.0))
            runtime.finish(exchange, 200)
            exchange.end()
            clock.advance(0.1)
        assert refused == (rejected is not None), (settings, peer)


async def ask_at_once(runtime: Runtime, count: int) -> list[int]:
    """Requests of which each is served in one go, without waiting for anything; their statuses."""

    async def one() -> int:
        exchange = runtime.begin(FakeFacts())
        rejected = await runtime.aadmit(exchange)
        status = 200 if rejected is None else rejected.status
        await runtime.afinish(exchange, status)
        exchange.end()
        return status

    return await asyncio.gather(*(one() for _ in range(count)))


def test_requests_that_wait_for_nothing_are_counted() -> None:
    """On an event loop, all that arrived together are counted before the first is served, although none of them ever waits."""
    runtime = shedding(7)
    assert [200] * 7 + [503] * 43 == sorted(asyncio.run(ask_at_once(runtime, 50)))
    assert 0 == capacity_of(runtime).in_flight


def test_rounds_of_the_loop_are_measured() -> None:
    """What requests wait for the loop to go round is what makes it crowded; in threads nothing waits."""
    clock = ManualClock()
    runtime = make_runtime(clock=clock, shed=True)
    serve(runtime, clock, 0.1, count=5)
    assert 0.0 == capacity_of(runtime).crowded

    async def compute() -> None:
        clock.advance(0.5)

    async def main() -> None:
        await asyncio.gather(runtime.aadmit(runtime.begin(FakeFacts())), compute())

    asyncio.run(main())
    assert 0.5 == capacity_of(runtime).crowded


def test_cancelled_while_the_loop_goes_round() -> None:
    """A request that is cancelled right after it got its place gives it back."""
    runtime = shedding(7)

    async def main() -> None:
        exchange = runtime.begin(FakeFacts())
        task = asyncio.ensure_future(runtime.aadmit(exchange))
        await asyncio.sleep(0)
        assert 1 == capacity_of(runtime).in_flight
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        exchange.end()

    asyncio.run(main())
    assert 0 == capacity_of(runtime).in_flight


def test_reload() -> None:
    """Other settings leave what was learned alone, unless they are about shedding; requests under way end where they began."""
    runtime = shedding(2)
    first = capacity_of(runtime)
    exchange, _ = begin(runtime)
    runtime.reload(Settings(shed=True, shed_min=2, shed_max=2, limits=["9/minute"]))
    assert first is capacity_of(runtime)
    runtime.reload(Settings(shed=True, shed_min=1, shed_max=1))
    assert (1, 0) == (capacity_of(runtime).limit, capacity_of(runtime).in_flight)
    with pytest.raises(ConfigurationError):
        runtime.reload(Settings(shed=True, shed_min=2, shed_max=1))
    assert 1 == capacity_of(runtime).limit
    runtime.reload(Settings())
    assert None is runtime.shedder
    assert 1 == first.in_flight
    exchange.end()
    assert 0 == first.in_flight
