"""Forked children: what the parent holds is not given out twice, and no child waits for a thread that is not there."""

import gc
import logging
import math
import threading
import weakref
from collections.abc import Iterator
from typing import Any

import pytest

from failsoft import CapacityChanged, Settings, forks, limit
from failsoft.exchange import Table
from failsoft.ratelimit.shedding.waiting import Waiting
from failsoft.testing import FaultyStore, ManualClock
from failsoft.testing.toy import UnderWay
from tests.core.forks import forking, held_elsewhere, in_child
from tests.core.requests import FakeFacts, make_runtime, serve

pytestmark = forking


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


def test_locks_of_a_runtime() -> None:
    """A child goes on that was forked while another thread listened, reloaded the settings, and told of the capacity."""
    clock = ManualClock()
    concern = UnderWay()
    runtime = make_runtime(clock=clock, concerns=[concern], shed=True)
    shedder = runtime.shedder
    assert shedder is not None
    shedder._told = 0

    def child() -> None:
        heard: list[Any] = []
        runtime.listen(heard.append)
        shedder.tell(1000.0)
        assert [CapacityChanged] == [type(event) for event in heard]
        runtime.reload(Settings.load({"shed": True, "limits": ["1/minute"]}, environ={}))
        clock.advance(1)
        assert [200, 429] == [serve(runtime, FakeFacts())[0] for _ in range(2)]

    with held_elsewhere(runtime.listeners._lock, runtime._reloading, shedder._telling, clock._lock, concern._lock):
        assert 0 == in_child(child)


def test_a_reload_under_way(monkeypatch: pytest.MonkeyPatch) -> None:
    """A child finishes what another thread was in the middle of: no request meets one half of old settings and one of new."""
    runtime = make_runtime(limits=["9/minute"])
    halfway, over = threading.Event(), threading.Event()
    in_order = runtime._concerns_in_order

    def interrupted() -> Any:
        if threading.current_thread() is thread:
            halfway.set()
            over.wait()
        return in_order()

    monkeypatch.setattr(runtime, "_concerns_in_order", interrupted)
    settings = Settings.load({"limits": ["1/minute"]}, environ={})
    thread = threading.Thread(target=runtime.reload, args=(settings,))
    thread.start()
    halfway.wait()
    try:
        assert 0 == in_child(lambda: _refuses_the_second(runtime))
    finally:
        over.set()
        thread.join()
    _refuses_the_second(runtime)


def _refuses_the_second(runtime: Any) -> None:
    assert [200, 429] == [serve(runtime, FakeFacts())[0] for _ in range(2)]


class Owner:
    """What starts over in a child, or cannot."""

    def __init__(self, error: BaseException | None = None) -> None:
        self.begun = 0
        self._error = error
        forks.start_over_in_children(self, Owner.start_over)

    def start_over(self) -> None:
        self.begun += 1
        if self._error is not None:
            raise self._error


@pytest.fixture
def log() -> Iterator[logging.Logger]:
    """Failsoft's log, as it was before when the test is over."""
    log = logging.getLogger("failsoft")
    handlers, filters = list(log.handlers), list(log.filters)
    yield log
    log.handlers[:], log.filters[:] = handlers, filters


@pytest.mark.parametrize("error", [RuntimeError("no more entropy"), KeyboardInterrupt("no more entropy")], ids=repr)
def test_one_that_cannot_start_over(caplog: pytest.LogCaptureFixture, error: BaseException) -> None:
    """Who fails to start over in a child keeps no other from it, and is told of."""
    owners = [Owner(), Owner(error), Owner()]

    def child() -> None:
        assert [1, 1, 1] == [owner.begun for owner in owners]
        assert ["no more entropy"] == [str(one.exc_info[1]) for one in caplog.records if one.exc_info]

    assert 0 == in_child(child)
    assert [0, 0, 0] == [owner.begun for owner in owners]


def test_a_log_that_cannot_be_written(log: logging.Logger) -> None:
    """A filter that fails keeps nobody from starting over, nor the other errors from being logged."""
    owners = [Owner(LookupError("first")), Owner(LookupError("second")), Owner()]
    seen: list[str] = []

    def failing(record: logging.LogRecord) -> bool:
        seen.append(str(record.exc_info and record.exc_info[1]))
        raise ValueError("no such field")

    log.addFilter(failing)

    def child() -> None:
        assert (["first", "second"], [1, 1, 1]) == (seen, [owner.begun for owner in owners])

    assert 0 == in_child(child)


def test_a_log_that_uses_what_starts_over(log: logging.Logger) -> None:
    """Whoever hears of an error finds everything started over, also what comes after the one that failed."""
    failing = Owner(LookupError("first"))
    table = Table()

    class Counting(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            with table.lock:
                table.set(record.name, 1, expires=60.0, now=0.0)

    log.addHandler(Counting())
    with held_elsewhere(table.lock):
        assert 0 == in_child(lambda: _is(1, table.get("failsoft", 0.0)))
    assert 0 == failing.begun


def _is(expected: Any, actual: Any) -> None:
    assert expected == actual


def test_what_is_kept_for_forks_keeps_nothing_alive() -> None:
    """After a runtime is gone, nothing of it starts over."""
    runtime = make_runtime(limits=["1/minute"], shed=True)
    assert runtime in forks._known
    kept = [runtime.listeners, runtime.shedder, runtime.limits.denied["default"]]
    assert all(one in forks._known for one in kept)
    gone = [weakref.ref(one) for one in (runtime, *kept)]
    del runtime, kept
    gc.collect()
    assert [None] * 4 == [one() for one in gone]
