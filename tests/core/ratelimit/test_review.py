"""What holds where limits share a bucket, where threads meet, and where settings change in the middle of a request."""

import sys
from concurrent.futures import ThreadPoolExecutor
from threading import Barrier
from typing import Any

import pytest

from failsoft import RateLimited, Settings, limit
from failsoft.exchange import Route
from failsoft.ratelimit.denied import DenyCache
from failsoft.ratelimit.lines import Batch
from failsoft.ratelimit.local import LocalLimits
from failsoft.testing import FaultyStore, ManualClock
from tests.core.requests import FakeFacts, make_runtime, serve, serving


def view_with(*policies: Any) -> Any:
    def view() -> str:
        return "ok"

    for policy in reversed(policies):
        view = policy(view)
    return view


def statuses(runtime: Any, view: Any, n: int) -> list[int]:
    return [serve(runtime, FakeFacts(view))[0] for _ in range(n)]


def test_a_remembered_refusal_is_no_verdict_on_a_shadow() -> None:
    """A shared limit that one view enforces and another only watches: the other's own limits hold all the same."""
    clock = ManualClock()
    runtime = make_runtime(store=FaultyStore(clock=clock), clock=clock)
    assert [200, 429, 429] == statuses(runtime, view_with(limit("1/minute", shared="x")), 3)
    watching = view_with(limit("1/minute", shared="x", shadow=True), limit("3/minute"))
    assert [200, 200, 200, 429, 429] == statuses(runtime, watching, 5)


@pytest.mark.parametrize(
    "lenient", [{"shadow": True}, {"charge_on": (401,)}, {"charge_on": (401,), "peek": True}], ids=str
)
@pytest.mark.parametrize("first", [True, False], ids=["before", "after"])
def test_of_two_limits_on_one_bucket_the_stricter_holds(lenient: dict[str, Any], first: bool) -> None:
    """A shadow, or a limit that gives back, does not take the place of a plain limit with the same name and value."""
    plain, other = limit("1/minute", shared="x"), limit("1/minute", shared="x", **lenient)
    view = view_with(other, plain) if first else view_with(plain, other)
    assert [200, 429, 429] == statuses(make_runtime(), view, 3)


def test_what_was_last_seen_is_noted_by_many_threads() -> None:
    """Noting what the store said raises nothing while another thread goes through it."""
    local = LocalLimits(share=1.0, bound=200)
    start = Barrier(4)

    def note(thread: int) -> None:
        start.wait()
        for i in range(20_000):
            local.remember([f"{thread}:{i}"], [1, 5, 1000], float(i))

    interval = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    try:
        with ThreadPoolExecutor(4) as pool:
            assert [None] * 4 == list(pool.map(note, range(4)))
    finally:
        sys.setswitchinterval(interval)


def test_an_entry_that_is_over_goes_under_the_lock() -> None:
    """Another thread may be about to evict the same entry, which fails if it is gone."""
    cache = DenyCache(life=2.0, bound=1)
    held: list[bool] = []

    class Watched(dict[str, Any]):
        def __delitem__(self, key: str) -> None:
            held.append(cache._lock.locked())
            super().__delitem__(key)

        def pop(self, key: str, *default: Any) -> Any:
            held.append(cache._lock.locked())
            return super().pop(key, *default)

    cache.entries = Watched()
    line = make_runtime(limits=["1/minute"]).limits.bind(Route("GET", "/"), (), late=False)[0].lines()[0]
    batch = Batch([line], [1])
    cache.remember(None, ["a"], batch, 0, [0, 0, 1000], 0.0)
    held.clear()
    assert cache.find("a", 1, 5.0) is None
    assert [True] == held
    assert 0 == len(cache)


def test_settings_change_while_a_request_is_planned() -> None:
    """A request that was found to lie in a scope is served although the scope is gone a moment later."""
    runtime = make_runtime(scopes=[{"name": "api", "prefix": "/api", "limits": ["1/minute"]}])

    class Facts(FakeFacts):
        __slots__ = ()

        def name(self) -> str | None:
            runtime.reload(Settings.load({}, environ={}))
            return None

    assert 200 == serve(runtime, Facts(path="/api/x"))[0]
    assert [200, 200] == [serve(runtime, FakeFacts(path="/api/x"))[0] for _ in range(2)]


def test_a_stream_does_not_gather_refusals() -> None:
    """What is refused after the settlement, again and again, leaves nothing behind in the exchange."""
    clock = ManualClock()
    runtime = make_runtime(store=FaultyStore(clock=clock), clock=clock)
    helper = limit("1/minute", shared="x")
    view_with(helper)
    with serving(runtime, FakeFacts()) as exchange:
        assert runtime.admit(exchange) is None
        runtime.finish(exchange, 200)
        refused = 0
        for _ in range(5):
            try:
                runtime.enforce(exchange, [helper], (), {})
            except RateLimited:
                refused += 1
            else:
                exchange.enforced = frozenset()
        assert 4 == refused
        assert [] == exchange._parts
