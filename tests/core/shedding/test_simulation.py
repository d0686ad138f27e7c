"""The shedder against simulated servers: it finds the capacity, follows it, and lets nothing collapse."""

import pytest

from failsoft.ratelimit.shedding import RESERVED
from tests.core.shedding.simulated import CRITICAL, SHEDDABLE, Load, behind_a_queue, in_sight

pytestmark = pytest.mark.broad


def test_healthy_server_gets_all_it_can_take() -> None:
    """While the servers keep up, the limit grows to what is needed, and then nobody is refused."""
    load = Load(rate=lambda now: 1000, service=lambda now: 0.05, servers=lambda now: 100)
    result = in_sight(load, until=40)
    assert 50 < result.limit(40)
    assert 1.0 == result.success(SHEDDABLE, 20, 40)


def test_limit_converges_to_the_capacity() -> None:
    """Asked for three times what twenty servers can do, all of them are busy, and requests take little longer than usual."""
    load = Load(rate=lambda now: 200 if now < 10 else 1200, service=lambda now: 0.05, servers=lambda now: 20)
    result = in_sight(load, until=35)
    assert 0.97 * 400 < result.goodput(15, 35, within=0.2)
    assert 20 <= min(result.limit(at) for at in range(15, 35))
    assert max(result.limit(at) for at in range(15, 35)) < 60


def test_limit_follows_a_drop_in_capacity() -> None:
    """When four in five servers go, the limit follows within seconds, and comes back with them."""
    load = Load(rate=lambda now: 1000, service=lambda now: 0.05, servers=lambda now: 100 if not 30 <= now < 60 else 20)
    result = in_sight(load, until=100)
    assert 100 < result.limit(30)
    assert result.limit(45) < 60
    assert result.latency(SHEDDABLE, 45, 60, quantile=0.99) < 0.25
    assert 0.97 * 400 < result.goodput(45, 60, within=0.25)
    assert 1.0 == result.success(SHEDDABLE, 80, 100)


def test_slower_dependency_is_learned() -> None:
    """Where each request takes three times as long for good, and nothing is short, the limit grows to what is needed now."""
    load = Load(
        rate=lambda now: 600, service=lambda now: 0.05 if now < 30 else 0.15, servers=lambda now: 1000, spread=0.3
    )
    result = in_sight(load, until=180)
    assert 1.0 == result.success(SHEDDABLE, 20, 30)
    assert 1.0 == result.success(SHEDDABLE, 150, 180)


@pytest.mark.parametrize("times", [1.5, 3, 10])
def test_nothing_collapses(times: float) -> None:
    """However much is asked of a process that computes, and however long, it serves what it can, in a bounded time."""
    load = Load(
        rate=lambda now: 100 if now < 20 else 200 * times, service=lambda now: 0.005, servers=lambda now: 1, cpu=1.0
    )
    end = 20 + 300 / times
    result = in_sight(load, until=end)
    assert 0.97 * 200 < result.goodput(25, end, within=0.15)
    assert result.latency(SHEDDABLE, end - 20, end, quantile=1.0) < 0.15


def test_out_of_cpu_time_the_limit_goes_below_its_least() -> None:
    """The least is for those who wait for others; who computes needs fewer at once."""
    load = Load(rate=lambda now: 100 if now < 20 else 600, service=lambda now: 0.005, servers=lambda now: 1, cpu=1.0)
    result = in_sight(load, until=40)
    assert 20 == result.limit(20)
    assert 5 == result.limit(40)


@pytest.mark.parametrize(("servers", "service", "cpu"), [(10, 0.1, 0.0), (1, 0.01, 1.0), (30, 0.1, 0.0)])
def test_critical_requests_are_unharmed(servers: int, service: float, cpu: float) -> None:
    """At three times the capacity, critical requests (three fifths of it) are served, and in bounded time; sheddable ones get the rest."""
    capacity = servers / service
    load = Load(
        rate=lambda now: capacity * (0.5 if now < 20 else 3),
        service=lambda now: service,
        servers=lambda now: servers,
        critical=0.2,
        cpu=cpu,
    )
    result = in_sight(load, until=60)
    assert result.success(CRITICAL, 30, 60) > 0.99
    assert result.latency(CRITICAL, 30, 60, quantile=0.99) < 0.35
    assert 0.1 < result.success(SHEDDABLE, 30, 60) < 0.25
    assert 0.95 * capacity < result.goodput(30, 60, within=0.5)


def test_unused_share_is_borrowed() -> None:
    """While nothing critical comes, sheddable requests have the whole limit."""
    load = Load(rate=lambda now: 1000, service=lambda now: 0.1, servers=lambda now: 50)
    alone = in_sight(load, until=30, least=20, most=20)
    load.critical = 0.02
    beside = in_sight(load, until=30, least=20, most=20)
    assert 20 == alone.most
    assert 0.97 * 200 < alone.goodput(10, 30, within=0.2)
    assert beside.goodput(10, 30, within=0.2) < 0.9 * 200
    assert 1.0 == beside.success(CRITICAL, 10, 30)


def test_in_flight_never_exceeds_the_limit_and_what_is_reserved() -> None:
    """Nor when a flood of critical requests meets a flood of sheddable ones that take long."""
    load = Load(rate=lambda now: 500, service=lambda now: 2.0, servers=lambda now: 1000)
    load.critical = 0.0
    flood = in_sight(load, until=5, least=20, most=20)
    load.critical = 0.5
    both = in_sight(load, until=5, least=20, most=20)
    assert 20 == flood.most
    assert 20 < both.most <= 20 + RESERVED[CRITICAL] * 20


@pytest.mark.parametrize("threads", [2, 4, 8])
@pytest.mark.parametrize("service", [0.02, 0.2])
def test_queue_in_front_of_threads_is_kept_short(threads: int, service: float) -> None:
    """At three times what the threads can do they stay busy, critical requests are served, and nobody waits long."""
    capacity = threads / service
    load = Load(
        rate=lambda now: capacity * (0.5 if now < 10 else 3),
        service=lambda now: service,
        servers=lambda now: threads,
        critical=0.2,
        spread=0.5,
    )
    bound = 12 * service
    without = behind_a_queue(load, until=45, shed=False)
    result = behind_a_queue(load, until=45)
    assert without.goodput(30, 45, within=bound) < 0.05 * capacity
    assert result.goodput(20, 45, within=bound) > 0.85 * capacity
    assert result.success(CRITICAL, 20, 45) > 0.99
    assert result.latency(CRITICAL, 20, 45, quantile=0.99) < bound


def test_busy_threads_refuse_nobody() -> None:
    """At seven tenths of what the threads can do, hardly anybody is refused, although many wait for a moment."""
    load = Load(rate=lambda now: 140, service=lambda now: 0.02, servers=lambda now: 4, critical=0.2, spread=1.0)
    result = behind_a_queue(load, until=120)
    assert 1.0 == result.success(CRITICAL, 0, 120)
    assert result.success(SHEDDABLE, 0, 120) > 0.99
