"""Places: who gets one, that each is given back once, and that none is lost."""

import gc
import math
import os
import random
import threading
import weakref
from typing import Any

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import Bundle, RuleBasedStateMachine, consumes, invariant, rule

from failsoft import forks
from failsoft.ratelimit.shedding import RESERVED, SHARE, Capacity, Permit

RANKS = range(4)
SHEDDABLE, SHEDDABLE_PLUS, CRITICAL, CRITICAL_PLUS = RANKS


def fixed(limit: int) -> Capacity:
    """A capacity whose limit never changes."""
    return Capacity(least=limit, most=limit, spent=lambda: 0.0)


def take(capacity: Capacity, rank: int, *, now: float = 0.0) -> Permit | None:
    """A place on some route."""
    return capacity.acquire(rank, capacity.usual("/"), now)


def fill(capacity: Capacity, rank: int, *, now: float = 0.0) -> list[Permit]:
    """All the places that a class can have."""
    return list(iter(lambda: take(capacity, rank, now=now), None))


@pytest.mark.parametrize("rank", RANKS)
def test_alone_each_class_has_the_whole_limit(rank: int) -> None:
    """While only one class comes, it may have every place, and no more."""
    capacity = fixed(20)
    assert 20 == len(fill(capacity, rank))
    assert 20 == capacity.in_flight


@pytest.mark.parametrize("limit", [1, 2, 5, 20, 200])
def test_reserved_places_when_lower_classes_were_first(limit: int) -> None:
    """Each class gets what is reserved for it and those above it, although the ones below hold the whole limit."""
    capacity = fixed(limit)
    counts = [len(fill(capacity, rank)) for rank in RANKS]
    assert [limit, math.ceil(0.5 * limit), limit, limit] == counts
    assert 0 == sum(len(fill(capacity, rank)) for rank in RANKS)


def test_places_that_become_free_go_to_the_higher() -> None:
    """Beside critical requests, a sheddable one gets no place before the limit has room for its class again."""
    capacity = fixed(10)
    below = fill(capacity, SHEDDABLE)
    above = fill(capacity, CRITICAL)
    assert (10, 10) == (len(below), len(above))
    for permit in below:
        assert take(capacity, SHEDDABLE) is None
        capacity.release(permit, 0.0)
    assert take(capacity, SHEDDABLE) is None
    for permit in above[:5]:
        assert take(capacity, SHEDDABLE) is None
        capacity.release(permit, 0.0)
    assert 1 == len(fill(capacity, SHEDDABLE))


@pytest.mark.parametrize("rank", [SHEDDABLE, SHEDDABLE_PLUS, CRITICAL])
def test_share_while_higher_ones_come(rank: int) -> None:
    """While requests of a higher class are coming, a class fills the limit only to its share; two seconds later, all of it."""
    capacity = fixed(20)
    above = take(capacity, CRITICAL_PLUS, now=10.0)
    assert above is not None
    capacity.release(above, 10.0)
    assert SHARE[rank] * 20 == len(fill(capacity, rank, now=11.9))
    assert 20 - SHARE[rank] * 20 == len(fill(capacity, rank, now=12.0))


def test_smallest_limit_serves_each_class() -> None:
    """A limit of one, with critical requests around, still serves a sheddable one when nobody else is there."""
    capacity = fixed(1)
    above = take(capacity, CRITICAL)
    assert above is not None
    assert take(capacity, SHEDDABLE) is None
    capacity.release(above, 0.0)
    assert take(capacity, SHEDDABLE) is not None


def test_permit_counts_once() -> None:
    """A place is given back once, however often somebody says so."""
    capacity = fixed(2)
    first, second = fill(capacity, CRITICAL)
    for _ in range(3):
        capacity.release(first, 0.0)
    assert 1 == capacity.in_flight
    capacity.release(second, 0.0)
    assert 0 == capacity.in_flight


@pytest.mark.parametrize(
    ("took", "failed", "learned"),
    [(0.2, False, True), (0.05, False, True), (None, False, False), (0.2, True, True), (0.05, True, False)],
)
def test_what_teaches(took: float | None, failed: bool, learned: bool) -> None:
    """A request that succeeded teaches how long requests take; one that failed does only if it took longer than usual."""
    capacity = fixed(20)
    now = 0.0

    def serve(took: float | None, failed: bool) -> None:
        nonlocal now
        for _ in range(10):
            now += 0.1
            permit = take(capacity, CRITICAL)
            assert permit is not None
            capacity.release(permit, now, took=took, failed=failed)

    serve(0.1, False)
    assert pytest.approx(0.1) == capacity.mean
    serve(took, failed)
    assert learned == (capacity.mean != pytest.approx(0.1))


def test_failures_teach_nothing_before_anything_is_known() -> None:
    """Where nothing succeeded yet, nobody knows what takes long."""
    capacity = fixed(20)
    for number in range(30):
        permit = take(capacity, CRITICAL)
        assert permit is not None
        capacity.release(permit, float(number), took=0.1, failed=True)
    assert 0.0 == capacity.mean


class Places(RuleBasedStateMachine):
    """Any order of requests that come and go: what is in flight is what was admitted and not yet released."""

    permits = Bundle("permits")

    def __init__(self) -> None:
        super().__init__()
        self.capacity = Capacity(least=20, most=30, spent=lambda: self.spent)
        self.spent = 0.0
        self.held = [0, 0, 0, 0]
        self.seen = [-math.inf] * 4
        self.now = 0.0
        self.random = random.Random(1)

    @rule(target=permits, rank=st.integers(0, 3))
    def come(self, rank: int) -> Permit | None:
        limit, before = self.capacity.limit, sum(self.held)
        self.seen[rank] = self.now
        higher = any(self.now - moment < 2 for moment in self.seen[rank + 1 :])
        room = max(1, int(limit * SHARE[rank])) if higher else limit
        lower = sum(self.held[:rank]) or any(self.now - moment < 2 for moment in self.seen[:rank])
        reserved = RESERVED[rank] * max(limit, 10) if lower else 0
        expected = before < room or sum(self.held[rank:]) < reserved
        permit = take(self.capacity, rank, now=self.now)
        assert expected == (permit is not None)
        if permit is not None:
            self.held[rank] += 1
            assert before + 1 == permit.in_flight
        return permit

    @rule(permit=consumes(permits), again=st.booleans(), failed=st.booleans())
    def go(self, permit: Permit | None, again: bool, failed: bool) -> None:
        if permit is None:
            return
        for _ in range(2 if again else 1):
            self.capacity.release(permit, self.now, took=self.random.choice([None, 0.1, 0.3]), failed=failed)
        self.held[permit.rank] -= 1

    @rule(seconds=st.sampled_from([0.1, 1.0, 3.0]), busy=st.booleans())
    def pass_time(self, seconds: float, busy: bool) -> None:
        self.now += seconds
        self.spent += seconds * busy

    @invariant()
    def none_is_lost(self) -> None:
        assert sum(self.held) == self.capacity.in_flight
        assert 5 <= self.capacity.limit <= 30


TestPlaces = Places.TestCase
TestPlaces.settings = settings(
    deadline=None, max_examples=max(10, settings().max_examples // 2), stateful_step_count=60
)


def test_threads_lose_nothing() -> None:
    """Many threads at once never have more places than the limit, and all are given back."""
    capacity = fixed(8)
    at_once: list[int] = []
    begin = threading.Barrier(8)

    def work(seed: int) -> None:
        draw = random.Random(seed)
        held: list[Permit] = []
        begin.wait(30)
        for _ in range(3_000):
            if held and draw.random() < 0.5:
                capacity.release(held.pop(), 0.0, took=0.01)
            elif (permit := take(capacity, CRITICAL)) is not None:
                held.append(permit)
                at_once.append(permit.in_flight)
        for permit in held:
            capacity.release(permit, 0.0)
            capacity.release(permit, 0.0)

    threads = [threading.Thread(target=work, args=(seed,)) for seed in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert 8 == max(at_once)
    assert 0 == capacity.in_flight


def test_finalizer_inside() -> None:
    """A finalizer that gives a place back while this thread is inside waits for nothing, and its place is not lost."""
    capacity: Any = None
    inside: list[Permit] = []

    def spent() -> float:
        # Called under the lock, as a collection might be that runs there.
        for permit in inside:
            capacity.release(permit, 0.0)
        inside.clear()
        return 0.0

    capacity = Capacity(least=20, most=20, spent=spent)
    permits = fill(capacity, CRITICAL)
    inside += permits[:5]
    for number, permit in enumerate(permits[5:], 1):
        capacity.release(permit, float(number), took=0.1)
    assert [] == inside
    assert 0 == capacity.in_flight


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
@pytest.mark.filterwarnings("ignore:This process .* is multi-threaded:DeprecationWarning")
def test_a_forked_child_starts_with_nothing_in_flight() -> None:
    """A child has its own places, also if the lock was held as it was made; what the parent's requests held does not concern it."""
    capacity = fixed(4)
    permits = fill(capacity, CRITICAL)
    capacity._lock.acquire()
    child = os.fork()
    if child == 0:
        code = 1
        try:
            assert 0 == capacity.in_flight
            for permit in permits:
                capacity.release(permit, 0.0)
            assert 0 == capacity.in_flight
            assert 4 == len(fill(capacity, CRITICAL))
            code = 0
        finally:
            os._exit(code)
    capacity._lock.release()
    assert 0 == os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    assert 4 == capacity.in_flight


def test_forgotten_capacities_go() -> None:
    """What is kept for forks keeps no capacity alive."""
    made = [fixed(1) for _ in range(5)]
    assert all(one in forks._known for one in made)
    gone = [weakref.ref(one) for one in made]
    del made
    gc.collect()
    assert [None] * 5 == [one() for one in gone]
