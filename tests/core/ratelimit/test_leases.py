"""Leases: never more than the quota, little left over, and few flights for clients who are busy."""

import json
import subprocess
import sys
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from failsoft import LimitDecided, limit
from failsoft.ratelimit.leases import HOT, Leases
from failsoft.testing import FaultyStore, ManualClock
from tests.core.ratelimit.structured import parse_list
from tests.core.requests import FakeFacts, make_runtime, serve
from tests.processes import ROOT, environment, quick


def view_with(*policies: Any) -> Any:
    def view() -> str:
        return "ok"

    for policy in reversed(policies):
        view = policy(view)
    return view


def statuses(runtime: Any, view: Any, n: int, address: str = "192.0.2.1") -> list[int]:
    return [serve(runtime, FakeFacts(view, address=address))[0] for _ in range(n)]


def test_a_busy_client_saves_flights() -> None:
    """Once a client is busy, most of its requests make no flight, and every unit is admitted."""
    clock = ManualClock()
    store = FaultyStore(clock=clock)
    runtime = make_runtime(store=store, clock=clock)
    view = view_with(limit("1000/minute", lease=50), limit("9000/hour", lease=100))
    assert [200] * 500 == statuses(runtime, view, 500)
    assert len(store.flights) < 30


def test_a_client_who_is_not_busy_leases_nothing() -> None:
    """Few requests in a second fetch nothing beside themselves."""
    clock = ManualClock()
    store = FaultyStore(clock=clock)
    runtime = make_runtime(store=store, clock=clock)
    view = view_with(limit("1000/minute", lease=50))
    for _ in range(20):
        statuses(runtime, view, 1)
        clock.advance(1 / (HOT - 1) + 0.01)
    assert [("ratelimit.acquire",)] * 20 == list(store.flights)


def test_every_limit_must_have_a_lease() -> None:
    """One limit without a lease asks the store each time, so nothing is fetched for the others."""
    store = FaultyStore(clock=ManualClock())
    runtime = make_runtime(store=store)
    view = view_with(limit("1000/minute", lease=50), limit("9000/hour"))
    statuses(runtime, view, 50)
    assert [("ratelimit.acquire",)] * 50 == list(store.flights)


def test_the_setting() -> None:
    """The setting leases the settings' limits and those that do not say otherwise."""
    store = FaultyStore(clock=ManualClock())
    runtime = make_runtime(store=store, lease=50, limits=["1000/minute"])
    statuses(runtime, view_with(limit("9000/hour")), 200)
    assert len(store.flights) < 30
    store.flights.clear()
    statuses(runtime, view_with(limit("9000/hour", lease=0)), 20, address="192.0.2.2")
    assert 20 == len(store.flights)


def test_units_end_with_the_window() -> None:
    """Units of a fixed window are given out until it ends, and not in the next one."""
    clock = ManualClock()
    store = FaultyStore(clock=clock)
    runtime = make_runtime(store=store, clock=clock)
    view = view_with(limit("100/minute", lease=20))
    statuses(runtime, view, 30)
    asked = len(store.flights)
    clock.advance("59s")
    statuses(runtime, view, 1)
    assert asked == len(store.flights)
    clock.advance("1s")
    assert [200] * 100 == statuses(runtime, view, 100)
    assert [429] == statuses(runtime, view, 1)


def test_what_clients_are_told() -> None:
    """What remains falls by one with each request, leased or not, while there is one process."""
    clock = ManualClock()
    runtime = make_runtime(store=FaultyStore(clock=clock), clock=clock)
    view = view_with(limit("1000/minute", lease=50))
    told = [parse_list(dict(serve(runtime, FakeFacts(view))[2])["RateLimit"])[0].parameters["r"] for _ in range(300)]
    assert list(range(999, 699, -1)) == told


def test_events_tell_of_leases() -> None:
    """An admission out of a lease is an event as every decision is."""
    runtime = make_runtime(store=FaultyStore(clock=ManualClock()))
    heard: list[str] = []
    runtime.listen(lambda event: heard.append(event.decider) if isinstance(event, LimitDecided) else None)
    statuses(runtime, view_with(limit("1000/minute", lease=50)), 40)
    assert {"store": heard.count("store"), "lease": 40 - heard.count("store")} == {
        "store": heard.count("store"),
        "lease": heard.count("lease"),
    }
    assert heard.count("lease") > 20


def test_an_outage_does_not_take_what_was_leased() -> None:
    """Units in hand are admitted while the store is away; after them each limit does what its `on_outage` says."""
    clock = ManualClock()
    store = FaultyStore(clock=clock)
    runtime = make_runtime(store=store, clock=clock)
    view = view_with(limit("1000/minute", lease=50, on_outage="closed"))
    statuses(runtime, view, 100)
    with store.away():
        found = statuses(runtime, view, 100)
    assert found == sorted(found)
    assert {200, 503} == set(found)


@given(
    amount=st.integers(1, 200),
    lease=st.integers(2, 50),
    processes=st.integers(1, 4),
    steps=st.lists(
        st.tuples(st.integers(0, 3), st.integers(1, 30), st.sampled_from([0.0, 0.1, 0.9, 5.0])), max_size=40
    ),
)
@settings(deadline=None, max_examples=settings().max_examples // 2)
def test_bounds(amount: int, lease: int, processes: int, steps: Sequence[tuple[int, int, float]]) -> None:
    """Whatever processes do: no window admits more than its quota, and less only by what leases may leave over."""
    clock = ManualClock()
    store = FaultyStore(clock=clock)
    runtimes = [make_runtime(store=store, clock=clock, workers=processes, deny_cache=0) for _ in range(processes)]
    view = view_with(limit(f"{amount}/minute", lease=lease, aligned=True))
    windows: dict[int, list[int]] = {}
    for process, n, pause in steps:
        window = int(clock.time() // 60)
        windows.setdefault(window, []).extend(statuses(runtimes[process % processes], view, n))
        clock.advance(pause)
    for found in windows.values():
        admitted = found.count(200)
        assert admitted <= amount
        if 429 in found:
            assert admitted >= amount - processes * (lease - 1)


@given(st.lists(st.tuples(st.integers(0, 2), st.integers(1, 20), st.sampled_from([0.0, 0.05, 0.5, 3.0])), max_size=40))
@settings(deadline=None, max_examples=settings().max_examples // 2)
def test_bounds_of_gcra(steps: Sequence[tuple[int, int, float]]) -> None:
    """Over any stretch of time GCRA admits its burst, its rate, and at most a lease for each process more."""
    clock = ManualClock()
    store = FaultyStore(clock=clock)
    runtimes = [make_runtime(store=store, clock=clock, workers=3, deny_cache=0) for _ in range(3)]
    view = view_with(limit("10/second burst 20", lease=10))
    admitted: list[float] = []
    for process, n, pause in steps:
        admitted += [clock.time()] * statuses(runtimes[process], view, n).count(200)
        clock.advance(pause)
    for first in range(len(admitted)):
        for last in range(first, len(admitted)):
            allowed = 20 + 10 * (admitted[last] - admitted[first]) + 3 * 9
            assert last - first + 1 <= allowed + 1e-6


def test_threads_at_the_edge() -> None:
    """50 threads that share leases admit exactly the quota, but for what is left over."""
    runtime = make_runtime(store=FaultyStore(clock=ManualClock()), deny_cache=0)
    view = view_with(limit("500/minute", lease=20))
    with ThreadPoolExecutor(50) as threads:
        found = [status for some in threads.map(lambda _: statuses(runtime, view, 20), range(50)) for status in some]
    assert 500 - 19 <= found.count(200) <= 500


def test_answers_that_come_late() -> None:
    """A process that stood still while it fetched fetches again before it looks at the answers; it holds no more than one lease then."""
    leases = Leases(processes=1, bound=9)
    for _ in range(10):
        leases.want(["key"], [1], [10], 0.0)
    leases.note(["key"], [1, 1000, 60_000], 0.0, fetched=False)
    asked = [0.5, 2.0, 3.5]
    fetched: list[int] = []
    for now in asked:
        for _ in range(10):
            fetched += leases.want(["key"], [1], [10], now) or ()
    assert [9, 4, 9] == fetched
    for now, units in zip(asked, fetched, strict=True):
        leases.grant(["key"], [units], [1, 900, 60_000], [False], now)
    held = 0
    while leases.take(["key"], [1], 4.0):
        held += 1
    assert 9 == held


def test_other_settings_lose_no_units() -> None:
    """What was leased was charged: it is given out under other settings as well, and each unit of the quota is admitted."""
    clock = ManualClock()
    runtime = make_runtime(store=FaultyStore(clock=clock), clock=clock, deny_cache=0)
    view = view_with(limit("300/minute", lease=50))
    found: list[int] = []
    for number in range(40):
        found += statuses(runtime, view, 10)
        runtime.reload(replace(runtime.settings, near_limit=0.5 + number / 100))
    assert found.count(200) >= 300 - 49


def test_bounded() -> None:
    """The table of leases keeps to its bound, and what goes was charged and is not given out."""
    leases = Leases(processes=1, bound=3)
    for number in range(10):
        leases.want([f"key{number}"], [1], [10], 0.0)
    assert 3 == len(leases)
    leases.clear()
    assert 0 == len(leases)


_WORKER = """
import json, sys
from failsoft import Settings, limit
from failsoft.runtime import Runtime
from tests.core.requests import FakeFacts, serve

url, prefix, n, address = sys.argv[1], sys.argv[2], int(sys.argv[3]), sys.argv[4]
runtime = Runtime(Settings(store=url, prefix=prefix, deadline=5.0, workers=3, deny_cache=0))

def view():
    return "ok"

view = limit("600/hour", lease=40, shared="all")(view)
runtime.start()
found = [serve(runtime, FakeFacts(view, address=address)) for _ in range(n)]
print(json.dumps([[status for status, _, _ in found], [bool(exchange.degraded) for _, exchange, _ in found].count(True)]))
runtime.close()
"""


@pytest.mark.processes
@pytest.mark.once
def test_processes_on_one_server(redis_url: str, tmp_path: Path) -> None:
    """Real processes that lease from one server admit the quota together, less at most what each may have left over."""
    command = [sys.executable, "-c", quick(_WORKER), redis_url, f"lease{tmp_path.name}", "400", "192.0.2.1"]
    workers = [
        subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, text=True, env=environment()) for _ in range(3)
    ]
    found = [json.loads(worker.communicate(timeout=50)[0]) for worker in workers]
    assert [0, 0, 0] == [degraded for _, degraded in found]
    admitted = sum(statuses.count(200) for statuses, _ in found)
    assert 600 - 3 * 39 <= admitted <= 600
