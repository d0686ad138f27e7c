"""Forked children: what the parent holds is not given out twice, and no child waits for a thread that is not there."""

import gc
import math
import os
import signal
from collections.abc import Callable
from typing import Any

import pytest

from failsoft import forks, limit
from failsoft.ratelimit.shedding.waiting import Waiting
from failsoft.testing import FaultyStore, ManualClock
from tests.core.requests import FakeFacts, make_runtime, serve

pytestmark = [
    pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork"),
    pytest.mark.filterwarnings("ignore:This process.*is multi-threaded:DeprecationWarning"),
]


def in_child(act: Callable[[], Any]) -> int:
    """Run `act` in a forked child, for half a minute at most: 0 if it returns."""
    child = os.fork()
    if child == 0:
        code = 1
        try:
            signal.alarm(30)
            act()
            code = 0
        finally:
            os._exit(code)
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])


def view_with(policy: Any) -> Any:
    @policy
    def view() -> str:
        return "ok"

    return view


def test_a_child_gives_out_none_of_its_parents_units() -> None:
    """What the parent has leased is charged once, so only the parent gives it out; the child asks."""
    clock = ManualClock()
    store = FaultyStore(clock=clock)
    runtime = make_runtime(store=store, clock=clock)
    view = view_with(limit("1000/minute", lease=50))
    for _ in range(10):
        serve(runtime, FakeFacts(view))
    assert len(store.flights) < 10

    def child() -> None:
        before = len(store.flights)
        serve(runtime, FakeFacts(view))
        assert before + 1 == len(store.flights)

    assert 0 == in_child(child)
    before = len(store.flights)
    serve(runtime, FakeFacts(view))
    assert before == len(store.flights)


def test_locks_that_another_thread_held() -> None:
    """A child that was forked while all locks were held goes on."""
    clock = ManualClock()
    runtime = make_runtime(store=FaultyStore(clock=clock), clock=clock, shed=True)
    view = view_with(limit("1/minute", lease=2))
    waiting = Waiting()
    limits = runtime.limits
    local = limits.local["default"]
    serve(runtime, FakeFacts(view))
    held = [one._lock for one in (limits.leases["default"], limits.denied["default"], local, waiting)]

    def child() -> None:
        for _ in range(3):
            serve(runtime, FakeFacts(view))
        for number in range(20_000):
            local.remember([f"key{number}"], [1, 0, 60_000], clock.time())
        for now in range(3):
            waiting.late(9.0, rank=0, mean=0.1, now=float(now))

    for lock in held:
        lock.acquire()
    try:
        assert 0 == in_child(child)
    finally:
        for lock in held:
            lock.release()


def test_refusals_are_told_by_who_refused() -> None:
    """What the parent has refused and not told a penalty yet is not told by the child, too."""
    clock = ManualClock()
    runtime = make_runtime(store=FaultyStore(clock=clock), clock=clock)
    denied = runtime.limits.denied["default"]
    view = view_with(limit("1/minute"))
    for _ in range(4):
        serve(runtime, FakeFacts(view))
    (key,) = denied.entries

    def child() -> None:
        assert 0 == denied.collect(key, -math.inf)

    assert 0 == in_child(child)
    assert 2 == denied.collect(key, -math.inf)


def test_one_that_cannot_start_over(caplog: pytest.LogCaptureFixture) -> None:
    """Who fails to start over in a child keeps no other from it, and is told of."""

    class Owner:
        begun = 0

        def start_over(self) -> None:
            self.begun += 1

        def fail(self) -> None:
            raise RuntimeError("no more entropy")

    first, broken, last = Owner(), Owner(), Owner()
    for owner in (first, last):
        forks.start_over_in_children(owner, Owner.start_over)
    forks.start_over_in_children(broken, Owner.fail)

    def child() -> None:
        assert [1, 0, 1] == [owner.begun for owner in (first, broken, last)]
        assert ["no more entropy"] == [str(one.exc_info[1]) for one in caplog.records if one.exc_info]

    assert 0 == in_child(child)
    assert [0, 0, 0] == [owner.begun for owner in (first, broken, last)]


def test_what_is_kept_for_forks_keeps_nothing_alive() -> None:
    """After a runtime is gone, nothing of it starts over."""
    gc.collect()
    before = len(forks._known)
    runtime = make_runtime(limits=["1/minute"])
    assert len(forks._known) > before
    del runtime
    gc.collect()
    assert before == len(forks._known)
