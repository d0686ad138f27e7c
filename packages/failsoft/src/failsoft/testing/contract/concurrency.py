"""The contract of requests at the same time: none too many, none lost, none in another's way."""

import asyncio
import threading
import time
from typing import Any

import pytest

from failsoft.clock import SYSTEM
from failsoft.ratelimit import limit
from failsoft.testing.contract.base import Build, ContractBase, function_shapes, hide
from failsoft.testing.faults import FaultyStore
from failsoft.testing.harness import Harness
from failsoft.testing.site import Answer, Call, Shape, View

__all__ = ["ConcurrencyContract"]

_AT_ONCE = 50
_ADMITTED = 17


def _tasks_only(harness: Harness) -> None:
    if harness.concurrency == "threads":
        pytest.skip("threads cannot be cancelled")


class ConcurrencyContract(ContractBase):
    """Requests at the same time: none too many, none lost, none in another's way."""

    @function_shapes
    @pytest.mark.parametrize("kept", ["blocking", "memory"])
    def test_exactly_as_many_as_the_limit(self, build: Build, shape: Shape, kept: str) -> None:
        """Of many requests at once exactly as many pass as the limit says, whether the store waits or not."""
        store = {"store": "memory://"} if kept == "memory" else {}
        app = build(View(path="/", shape=shape, decorators=[limit(f"{_ADMITTED}/hour")]), **store)
        statuses = [reply.status for reply in app.burst(_AT_ONCE, "GET", "/")]
        assert [200] * _ADMITTED + [429] * (_AT_ONCE - _ADMITTED) == sorted(statuses)

    @function_shapes
    def test_exactly_as_many_when_late(self, build: Build, shape: Shape) -> None:
        """The same for a limit that is enforced late."""
        app = build(View(path="/", shape=shape, decorators=[hide, limit(f"{_ADMITTED}/hour")]))
        statuses = [reply.status for reply in app.burst(_AT_ONCE, "GET", "/")]
        assert [200] * _ADMITTED + [429] * (_AT_ONCE - _ADMITTED) == sorted(statuses)

    def test_each_reply_says_its_own(self, build: Build) -> None:
        """No two of the admitted requests are told that the same number remains."""
        app = build(View(path="/", decorators=[limit(f"{_AT_ONCE}/hour", name="all")]))
        replies = app.burst(_AT_ONCE, "GET", "/")
        assert list(range(_AT_ONCE)) == sorted(reply.limits["all"].remaining for reply in replies)

    def test_exactly_as_many_on_a_server(self, build: Build, harness: Harness, request: pytest.FixtureRequest) -> None:
        """The same against a real server, where the test suite has a fixture ``redis_url`` that names one."""
        try:
            url = request.getfixturevalue("redis_url")
        except pytest.FixtureLookupError:
            pytest.skip("there is no fixture redis_url")
        shape: Shape = "async" if harness.concurrency == "tasks" else "def"
        view = View(
            path="/", shape=shape, decorators=[limit(f"{_ADMITTED}/hour"), limit("1000/day", on_outage="closed")]
        )
        # A generous deadline: on a loaded machine this is about counting, not about time.
        prefix = f"contract-{harness.name}-{time.monotonic_ns()}"
        app = build(view, store=url, clock=SYSTEM, deadline=5.0, prefix=prefix)
        replies = app.burst(_AT_ONCE, "GET", "/")
        assert [200] * _ADMITTED + [429] * (_AT_ONCE - _ADMITTED) == sorted(reply.status for reply in replies)
        assert [None] * _AT_ONCE == [reply.header("Degraded") for reply in replies]

    def test_cancelled_view(self, build: Build, harness: Harness) -> None:
        """A request that is cancelled in its view ends as cancelled, was charged once, and leaves nothing behind."""
        _tasks_only(harness)
        entered = threading.Event()

        async def handle(call: Call) -> Answer:
            if call.header("X-Quick") is None:
                entered.set()
                await asyncio.Event().wait()
            return Answer()

        app = build(View(path="/", shape="async", handle=handle, decorators=[limit("2/minute")]))
        assert app.cancel("/", when=entered)
        assert [200, 429] == app.statuses(2, "/", ("X-Quick", "1"))

    def test_cancelled_flight(self, build: Build, harness: Harness, store: FaultyStore) -> None:
        """A request that is cancelled while it waits for the store ends as cancelled, and the next one is served."""
        _tasks_only(harness)
        app = build(View(path="/", shape="async", decorators=[limit("9/minute")]))
        with store.hanging("30s"):
            assert app.cancel("/", when=store.waiting)
        assert [200, 200] == app.statuses(2, "/")

    def test_requests_do_not_mix(self, build: Build) -> None:
        """Each of many requests at once is counted for itself, with a late limit on every second route."""
        seen: dict[str, list[int]] = {}
        app = build(
            View(path="/early", decorators=[limit("5/hour", name="early")]),
            View(path="/late", decorators=[hide, limit("5/hour", name="late")]),
        )
        threads: list[threading.Thread] = []
        for path in ("/early", "/late"):

            def ask(path: str = path) -> None:
                seen[path] = sorted(reply.status for reply in app.burst(10, "GET", path))

            threads.append(threading.Thread(target=ask))
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        expected = [200] * 5 + [429] * 5
        assert {"/early": expected, "/late": expected} == seen

    def test_waiting_requests_hold_up_nobody(self, build: Build, harness: Harness, store: FaultyStore) -> None:
        """While one request waits for the store, another that does not need it is served."""
        app = build(View(path="/", decorators=[limit("9/minute", on_outage="open")]), View(path="/free"))
        statuses: list[Any] = []
        with store.hanging("30s"):
            waiting = threading.Thread(target=lambda: statuses.append(app.get("/").status))
            waiting.start()
            assert store.waiting.wait(10)
            assert 200 == app.get("/free").status
            assert [] == statuses
        waiting.join(10)
        assert [200] == statuses
