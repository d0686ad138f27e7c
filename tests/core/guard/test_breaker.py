"""The circuit breaker: its rules, one by one, and the bugs of others."""

import gc
import math
import random
import threading
import tracemalloc
from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from failsoft.clock import SYSTEM
from failsoft.errors import ConfigurationError
from failsoft.guard import Admission, Breaker, Outcome, Reason, State
from failsoft.guard.breaker import TRANSITIONS
from tests.core.guard.breakers import (
    CANCELLED,
    CLOSED,
    FAILURE,
    HALF_OPEN,
    IGNORE,
    OPEN,
    PATIENCE,
    REFUSED,
    SUCCESS,
    Clock,
    feed,
    half_open,
    make,
    run,
    take,
    trip,
)


class TestClosed:
    def test_admits(self, breaker: Breaker) -> None:
        """A new breaker is closed and lets calls through."""
        assert (breaker.state, breaker.closed, breaker.forced) == (CLOSED, True, False)
        assert breaker.retry_after() == 0.0
        assert not take(breaker).probe

    def test_rate_opens_at_the_minimum(self, breaker: Breaker, changes: list[object]) -> None:
        """Half of ten calls failed: the tenth, a failure, opens; nine with more failures did not."""
        feed(breaker, *[SUCCESS] * 4, *[FAILURE] * 5)
        assert breaker.state == CLOSED
        assert changes == []

        feed(breaker, FAILURE)

        assert (breaker.state, breaker.closed) == (OPEN, False)
        assert changes == [(CLOSED, OPEN, "failure_rate")]

    def test_rate_is_exact(self, clock: Clock) -> None:
        """Seven of a hundred is a rate of 0.07, although 0.07 * 100 is above 7; six is not."""
        breaker = make(clock, failure_rate=0.07, minimum_calls=100)
        feed(breaker, *[SUCCESS] * 93, *[FAILURE] * 6)
        assert CLOSED == breaker.state
        feed(breaker, FAILURE)
        assert OPEN == breaker.state

    def test_a_success_never_opens(self, breaker: Breaker) -> None:
        """The call that completes the minimum opens only if it failed itself."""
        feed(breaker, *[FAILURE] * 9, SUCCESS)
        assert breaker.state == CLOSED
        feed(breaker, FAILURE)
        assert breaker.state == OPEN

    def test_old_outcomes_leave_the_window(self, breaker: Breaker, clock: Clock) -> None:
        """Failures count as long as their bucket is among the last ten, and no longer."""
        feed(breaker, *[FAILURE] * 9)
        clock.now += 5.0
        feed(breaker, FAILURE)
        assert breaker.state == CLOSED

    def test_outcomes_stay_until_then(self, breaker: Breaker, clock: Clock) -> None:
        """Failures still count just before their bucket leaves."""
        feed(breaker, *[FAILURE] * 9)
        clock.now += 4.99
        feed(breaker, FAILURE)
        assert breaker.state == OPEN

    @pytest.mark.parametrize("no_verdict", [IGNORE, CANCELLED])
    def test_no_verdict_counts_nothing(self, breaker: Breaker, no_verdict: Outcome) -> None:
        """Neither a call nor a failure, nor the end of a row of refusals."""
        feed(breaker, *[no_verdict] * 20, *[FAILURE] * 9, *[no_verdict] * 20)
        assert breaker.state == CLOSED
        feed(breaker, FAILURE)
        assert breaker.state == OPEN

    def test_refusals_in_a_row_open(self, breaker: Breaker, changes: list[object]) -> None:
        """Three refusals open, although a hundred successes keep the rate low."""
        feed(breaker, *[SUCCESS] * 100, REFUSED, REFUSED)
        assert breaker.state == CLOSED
        feed(breaker, REFUSED)
        assert changes == [(CLOSED, OPEN, "refused")]

    def test_a_success_ends_the_row(self, breaker: Breaker) -> None:
        """After a success three more refusals are needed."""
        feed(breaker, *[SUCCESS] * 100, REFUSED, REFUSED, SUCCESS, REFUSED, REFUSED)
        assert breaker.state == CLOSED
        feed(breaker, REFUSED)
        assert breaker.state == OPEN

    @pytest.mark.parametrize("between", [FAILURE, IGNORE, CANCELLED])
    def test_nothing_else_ends_the_row(self, breaker: Breaker, clock: Clock, between: Outcome) -> None:
        """What is not a success says nothing about reaching the dependency; nor does an hour."""
        feed(breaker, *[SUCCESS] * 100, REFUSED, between, REFUSED, between)
        clock.now += 3600
        assert breaker.state == CLOSED
        feed(breaker, REFUSED)
        assert breaker.state == OPEN

    def test_refusals_count_in_the_rate(self, clock: Clock) -> None:
        """Without `consecutive` a refusal is a failure like any other."""
        breaker = make(clock, consecutive=None)
        feed(breaker, *[REFUSED] * 9)
        assert breaker.state == CLOSED
        feed(breaker, REFUSED)
        assert breaker.state == OPEN

    def test_settling_twice_counts_once(self, breaker: Breaker) -> None:
        """The first outcome of an admission stands."""
        admission = take(breaker)
        for _ in range(20):
            breaker.settle(admission, REFUSED)
        feed(breaker, REFUSED)
        assert breaker.state == CLOSED
        given_back = take(breaker)
        breaker.settle(given_back, CANCELLED)
        breaker.settle(given_back, REFUSED)
        assert breaker.state == CLOSED
        feed(breaker, REFUSED)
        assert breaker.state == OPEN


class TestOpen:
    def test_refuses_until_the_wait_is_over(self, breaker: Breaker, clock: Clock) -> None:
        """`retry_after` counts down, and at 0 the next call is a probe."""
        trip(breaker)
        assert None is breaker.acquire()
        assert breaker.retry_after() == 0.5
        clock.now += 0.375
        assert None is breaker.acquire()
        assert breaker.retry_after() == 0.125
        clock.now += 0.125
        assert breaker.retry_after() == 0.0
        assert breaker.state == OPEN
        assert take(breaker).probe

    @pytest.mark.parametrize(("draw", "wait"), [(0.0, 1.0), (0.5, 2.0), (1.0, 3.0)])
    def test_the_wait_lies_between_the_least_and_the_most(self, clock: Clock, draw: float, wait: float) -> None:
        """A draw of 0 gives the least, of 1 the most."""
        breaker = make(clock, probe_after=(1.0, 3.0), random=lambda: draw)
        trip(breaker)
        assert wait == breaker.retry_after()

    def test_each_wait_is_drawn_anew(self, clock: Clock) -> None:
        """Five openings wait five different times, all within the range."""
        breaker = make(clock, probe_after=(1.0, 3.0), random=random.Random(7).random)
        waits = set()
        for _ in range(5):
            trip(breaker)
            waits.add(breaker.retry_after())
            breaker.reset()
        assert len(waits) == 5
        assert 1.0 <= min(waits) <= max(waits) <= 3.0

    def test_growth(self, clock: Clock) -> None:
        """Each failed probe in a row doubles the wait up to the cap; recovery begins anew."""
        breaker = make(clock, growth=2.0, probe_after_max=3.0, successes_to_close=1)
        waits = []
        trip(breaker)
        for _ in range(5):
            waits.append(breaker.retry_after())
            clock.now += waits[-1]
            feed(breaker, FAILURE)
        assert waits == [0.5, 1.0, 2.0, 3.0, 3.0]
        clock.now += 3.0
        feed(breaker, SUCCESS)
        trip(breaker)
        assert breaker.retry_after() == 0.5

    def test_an_unseen_wait_passes_all_the_same(self, breaker: Breaker, clock: Clock) -> None:
        """After an hour without calls the first one is a probe."""
        trip(breaker)
        clock.now += 3600
        assert take(breaker).probe

    def test_late_outcomes_are_dropped(self, breaker: Breaker, clock: Clock) -> None:
        """Calls that began before the trip say nothing after it, in any state."""
        before = [take(breaker) for _ in range(30)]
        trip(breaker)
        for late in before[:10]:
            breaker.settle(late, SUCCESS)
        assert (breaker.state, breaker.retry_after()) == (OPEN, 0.5)
        clock.now += 0.5
        probe = take(breaker)
        for late in before[10:20]:
            breaker.settle(late, SUCCESS)
            breaker.settle(late, REFUSED)
        assert breaker.state == HALF_OPEN
        assert None is breaker.acquire()
        breaker.settle(probe, SUCCESS)
        feed(breaker, SUCCESS)
        for late in before[20:]:
            breaker.settle(late, REFUSED)
        assert breaker.state == CLOSED


class TestHalfOpen:
    def test_two_successes_close(self, breaker: Breaker, clock: Clock, changes: list[object]) -> None:
        """The second probe needs no further wait; its success closes."""
        probe = half_open(breaker, clock)
        assert (breaker.acquire(), breaker.retry_after()) == (None, 2.0)
        breaker.settle(probe, SUCCESS)
        assert (breaker.state, breaker.retry_after()) == (HALF_OPEN, 0.0)
        feed(breaker, SUCCESS)
        assert (breaker.state, breaker.closed) == (CLOSED, True)
        assert changes == [(CLOSED, OPEN, "refused"), (OPEN, HALF_OPEN, "probe_due"), (HALF_OPEN, CLOSED, "recovered")]

    @pytest.mark.parametrize("outcome", [FAILURE, REFUSED])
    def test_one_failure_opens(self, breaker: Breaker, clock: Clock, outcome: Outcome) -> None:
        """A failed probe starts a new wait, and the successes before it are forgotten."""
        breaker.settle(half_open(breaker, clock), SUCCESS)
        feed(breaker, outcome)
        assert (breaker.state, breaker.retry_after()) == (OPEN, 0.5)
        clock.now += 0.5
        feed(breaker, SUCCESS)
        assert breaker.state == HALF_OPEN

    def test_closing_forgets(self, breaker: Breaker, clock: Clock) -> None:
        """What opened it does not count again once it has closed."""
        feed(breaker, *[FAILURE] * 6)
        breaker.settle(half_open(breaker, clock), SUCCESS)
        feed(breaker, SUCCESS, *[FAILURE] * 7, REFUSED, REFUSED)
        assert CLOSED == breaker.state
        feed(breaker, FAILURE)
        assert OPEN == breaker.state

    @pytest.mark.parametrize("no_verdict", [IGNORE, CANCELLED])
    def test_a_probe_without_verdict_makes_room(self, breaker: Breaker, clock: Clock, no_verdict: Outcome) -> None:
        """It neither closes nor opens; the next call is a probe at once; giving back twice makes no room for two."""
        probe = half_open(breaker, clock)
        breaker.settle(probe, no_verdict)
        breaker.settle(probe, no_verdict)
        assert (breaker.state, breaker.retry_after()) == (HALF_OPEN, 0.0)
        assert take(breaker).probe
        assert None is breaker.acquire()

    def test_a_probe_counts_once(self, breaker: Breaker, clock: Clock) -> None:
        """One success told twice is not two."""
        probe = half_open(breaker, clock)
        breaker.settle(probe, SUCCESS)
        breaker.settle(probe, SUCCESS)
        assert breaker.state == HALF_OPEN

    def test_several_probes(self, clock: Clock) -> None:
        """No more than `probes` are out at once, and each one back makes room."""
        breaker = make(clock, probes=3, successes_to_close=3)
        first = half_open(breaker, clock)
        second, third = take(breaker), take(breaker)
        assert None is breaker.acquire()
        breaker.settle(second, SUCCESS)
        fourth = take(breaker)
        assert None is breaker.acquire()
        breaker.settle(first, SUCCESS)
        breaker.settle(third, IGNORE)
        assert breaker.state == HALF_OPEN
        breaker.settle(fourth, SUCCESS)
        assert breaker.state == CLOSED

    @pytest.mark.parametrize("notice", ["acquire", "retry_after", "settle"])
    def test_a_hung_probe_has_failed(
        self, breaker: Breaker, clock: Clock, changes: list[tuple[State, State, Reason]], notice: str
    ) -> None:
        """At the end of its lease, whoever notices; its own late success changes nothing."""
        probe = half_open(breaker, clock)
        clock.now += 1.875
        assert None is breaker.acquire()
        clock.now += 0.125
        if notice == "acquire":
            assert None is breaker.acquire()
        elif notice == "retry_after":
            assert breaker.retry_after() == 0.5
        breaker.settle(probe, SUCCESS)
        assert changes[-1] == (HALF_OPEN, OPEN, "probe_hung")
        assert breaker.retry_after() == 0.5

    def test_an_unseen_lease_ends_all_the_same(
        self, breaker: Breaker, clock: Clock, changes: list[tuple[State, State, Reason]]
    ) -> None:
        """The wait after a hung probe begins where its lease ended, so a later call is a probe at once."""
        half_open(breaker, clock)
        clock.now += 2.25
        assert (breaker.retry_after(), breaker.state) == (0.25, OPEN)
        clock.now += 0.25
        half = take(breaker)
        assert half.probe
        clock.now += 100
        assert take(breaker).probe
        assert changes[-2:] == [(HALF_OPEN, OPEN, "probe_hung"), (OPEN, HALF_OPEN, "probe_due")]

    def test_one_hung_probe_of_two(self, clock: Clock) -> None:
        """The first lease that ends decides; the success of the other comes too late."""
        breaker = make(clock, probes=2, successes_to_close=1)
        half_open(breaker, clock)
        clock.now += 1.0
        other = take(breaker)
        assert breaker.retry_after() == 1.0
        clock.now += 1.0
        breaker.settle(other, SUCCESS)
        assert breaker.state == OPEN


class TestForced:
    def test_open(self, breaker: Breaker, clock: Clock, changes: list[object]) -> None:
        """Nothing gets through, however long; running calls change nothing; `retry_after` stays finite."""
        running = take(breaker)
        breaker.force_open()
        clock.now += 1e6
        breaker.settle(running, SUCCESS)
        assert (breaker.acquire(), breaker.state, breaker.forced, breaker.retry_after()) == (None, OPEN, True, 0.5)
        assert changes == [(CLOSED, OPEN, "forced_open")]

    def test_closed(self, breaker: Breaker) -> None:
        """Everything gets through, whatever fails."""
        trip(breaker)
        breaker.force_closed()
        feed(breaker, *[REFUSED] * 100)
        assert (breaker.state, breaker.closed, breaker.forced) == (CLOSED, True, True)

    @pytest.mark.parametrize("force", [Breaker.force_open, Breaker.force_closed])
    def test_reset(self, breaker: Breaker, force: Callable[[Breaker], None]) -> None:
        """Closed with nothing counted, and free to open again."""
        force(breaker)
        breaker.reset()
        assert (breaker.state, breaker.forced) == (CLOSED, False)
        feed(breaker, REFUSED, REFUSED)
        assert breaker.state == CLOSED
        feed(breaker, REFUSED)
        assert breaker.state == OPEN

    def test_probes_of_before_are_dropped(self, breaker: Breaker, clock: Clock) -> None:
        """A probe that ends after `reset` neither opens nor closes."""
        probe = half_open(breaker, clock)
        breaker.reset()
        breaker.settle(probe, FAILURE)
        assert breaker.state == CLOSED


class TestClockSetBack:
    def test_open(self, breaker: Breaker, clock: Clock) -> None:
        """The wait begins anew; it does not last until the clock has caught up."""
        trip(breaker)
        clock.now -= 900
        assert (breaker.acquire(), breaker.retry_after()) == (None, 0.5)
        clock.now += 0.5
        assert take(breaker).probe

    def test_lease(self, breaker: Breaker, clock: Clock) -> None:
        """The lease begins anew; it does not last until the clock has caught up."""
        half_open(breaker, clock)
        clock.now -= 900
        assert (breaker.acquire(), breaker.retry_after()) == (None, 2.0)
        clock.now += 2.0
        assert (breaker.retry_after(), breaker.state) == (0.5, OPEN)

    def test_window(self, breaker: Breaker, clock: Clock) -> None:
        """Outcomes of the future are forgotten, and old ones leave as before."""
        feed(breaker, *[FAILURE] * 9)
        clock.now -= 900
        feed(breaker, FAILURE)
        assert breaker.state == CLOSED
        feed(breaker, *[FAILURE] * 8)
        clock.now += 5.0
        feed(breaker, FAILURE)
        assert breaker.state == CLOSED

    def test_a_little(self, breaker: Breaker, clock: Clock) -> None:
        """A thread that read its clock before its neighbour still counts, and loses nothing."""
        feed(breaker, *[FAILURE] * 9)
        clock.now -= 1.0
        feed(breaker, FAILURE)
        assert breaker.state == OPEN

    @given(steps=st.lists(st.floats(-1e4, 1e4), max_size=20))
    @settings(deadline=None)
    def test_never_wedges(self, steps: list[float]) -> None:
        """Wherever the clock jumps: looking on for the longest wait and lease brings a probe."""
        clock = Clock()
        breaker = make(clock)
        half_open(breaker, clock)
        for step in steps:
            clock.now += step
            breaker.acquire()
        admissions = []
        for _ in range(20):
            clock.now += 0.25
            admissions.append(breaker.acquire())
        assert any(admissions)


class TestPeers:
    """Bugs seen in other breakers, each with the few lines that show it there."""

    def test_half_open_lets_no_crowd_through(self, breaker: Breaker, clock: Clock, hasty_switches: None) -> None:
        """Fifty threads at once after the wait: one probe (others let all fifty through)."""
        for _ in range(10):
            trip(breaker)
            clock.now += 0.5
            barrier = threading.Barrier(50)
            admissions: list[Admission | None] = []

            def body(barrier: threading.Barrier = barrier, into: list[Admission | None] = admissions) -> None:
                barrier.wait(PATIENCE)
                into.append(breaker.acquire())

            run(*[body] * 50)
            assert len(admissions) == 50
            assert [admission.probe for admission in admissions if admission is not None] == [True]
            breaker.reset()

    def test_a_cancelled_call_is_no_success(self, breaker: Breaker, clock: Clock) -> None:
        """It does not end a row of refusals, and a cancelled probe does not close."""
        feed(breaker, REFUSED, REFUSED, CANCELLED, REFUSED)
        assert breaker.state == OPEN
        clock.now += 0.5
        feed(breaker, CANCELLED, CANCELLED, CANCELLED)
        assert breaker.state == HALF_OPEN

    def test_a_cancelled_call_is_no_failure(self, clock: Clock) -> None:
        """Any number of clients that leave do not open."""
        breaker = make(clock, minimum_calls=1, consecutive=1)
        feed(breaker, *[CANCELLED] * 100)
        assert breaker.state == CLOSED

    def test_a_call_begun_before_the_trip_does_not_close(self, breaker: Breaker) -> None:
        """It ends well after the trip: the breaker stays open."""
        slow = take(breaker)
        trip(breaker)
        breaker.settle(slow, SUCCESS)
        assert (breaker.state, breaker.acquire()) == (OPEN, None)

    def test_a_wait_of_zero_is_zero(self, clock: Clock) -> None:
        """It is not taken for a missing value: the next call is a probe."""
        breaker = make(clock, probe_after=(0.0, 0.0), consecutive=1)
        feed(breaker, REFUSED)
        assert (breaker.state, breaker.retry_after()) == (OPEN, 0.0)
        assert take(breaker).probe

    def test_refusing_keeps_nothing(self, breaker: Breaker) -> None:
        """Ten thousand refused calls leave no memory behind, and share no exception that could collect tracebacks."""
        trip(breaker)
        refused = [breaker.acquire() for _ in range(100)]
        assert refused == [None] * 100
        gc.collect()
        tracemalloc.start()
        try:
            before = tracemalloc.get_traced_memory()[0]
            for _ in range(10_000):
                breaker.acquire()
            after = tracemalloc.get_traced_memory()[0]
        finally:
            tracemalloc.stop()
        assert after - before < 1000

    def test_an_ignored_probe_does_not_close(self, clock: Clock) -> None:
        """An error that says nothing about the dependency does not prove it well."""
        breaker = make(clock, successes_to_close=1)
        breaker.settle(half_open(breaker, clock), IGNORE)
        assert breaker.state == HALF_OPEN

    def test_a_hung_probe_does_not_wedge(self, breaker: Breaker, clock: Clock) -> None:
        """Probes that never come back: a new one gets through after each lease and wait, and can close."""
        half_open(breaker, clock)
        let_through = 0
        for _ in range(100):
            clock.now += 0.25
            let_through += breaker.acquire() is not None
        assert let_through == 10
        clock.now += 2.5
        feed(breaker, SUCCESS, SUCCESS)
        assert breaker.state == CLOSED

    @pytest.mark.parametrize("outcome", list(Outcome))
    def test_a_probe_of_round_one_is_not_counted_in_round_two(
        self, breaker: Breaker, clock: Clock, outcome: Outcome
    ) -> None:
        """It neither decides nor frees a place that it does not hold."""
        hung = half_open(breaker, clock)
        clock.now += 2.5
        probe = take(breaker)
        breaker.settle(hung, outcome)
        assert (breaker.state, breaker.acquire()) == (HALF_OPEN, None)
        breaker.settle(probe, SUCCESS)
        assert breaker.state == HALF_OPEN
        feed(breaker, SUCCESS)
        assert breaker.state == CLOSED


class TestConfiguration:
    @pytest.mark.parametrize(
        "options",
        [
            {"failure_rate": 0},
            {"failure_rate": 1.1},
            {"failure_rate": math.nan},
            {"minimum_calls": 0},
            {"window": 0},
            {"window": math.inf},
            {"buckets": 0},
            {"consecutive": 0},
            {"probe_after": (-1.0, 1.0)},
            {"probe_after": (2.0, 1.0)},
            {"probe_after": (0.0, math.inf)},
            {"growth": 0.9},
            {"growth": 2.0},
            {"growth": 2.0, "probe_after_max": 0.1},
            {"growth": 2.0, "probe_after_max": math.inf},
            {"probe_lease": 0},
            {"probes": 0},
            {"successes_to_close": 0},
        ],
        ids=str,
    )
    def test_out_of_range(self, clock: Clock, options: dict[str, Any]) -> None:
        """Refused, by name of the option that is wrong; nothing is replaced by a default."""
        with pytest.raises(ConfigurationError) as error:
            make(clock, **options)
        blamed = "probe_after_max" if options.get("growth") == 2.0 else next(iter(options))
        assert str(error.value).startswith(f"Breaker: {blamed} is ")

    def test_the_edges_are_in_range(self, clock: Clock) -> None:
        """The least of everything works: one call, one failure, one bucket, one success."""
        breaker = make(
            clock,
            failure_rate=1,
            minimum_calls=1,
            buckets=1,
            consecutive=None,
            successes_to_close=1,
            growth=2.0,
            probe_after=(0.0, 0.0),
            probe_after_max=1.0,
        )
        feed(breaker, FAILURE)
        assert breaker.state == OPEN
        feed(breaker, SUCCESS)
        assert breaker.state == CLOSED

    def test_with_the_machine_s_clock(self) -> None:
        """The defaults run with the real clock, and time is read where it is not given."""
        breaker = Breaker(clock=SYSTEM)
        feed(breaker, SUCCESS, *[REFUSED] * 3)
        assert None is breaker.acquire()
        assert 0.0 < breaker.retry_after() <= 0.5


def _hang(breaker: Breaker, clock: Clock) -> None:
    take(breaker)
    breaker.retry_after(clock.now + 2.0)


@pytest.mark.parametrize(
    ("state", "reason"),
    [row for row in TRANSITIONS if row[1] != "forked"],
    ids=lambda part: getattr(part, "value", part),
)
def test_each_row_of_the_table(
    breaker: Breaker,
    clock: Clock,
    changes: list[tuple[State, State, Reason]],
    state: State,
    reason: Reason,
) -> None:
    """Each has a cause, and leads where the table says; those of forks are tested with forks."""
    enter: dict[State, Callable[[], None]] = {
        CLOSED: lambda: None,
        OPEN: lambda: trip(breaker),
        HALF_OPEN: lambda: breaker.settle(half_open(breaker, clock), IGNORE),
    }
    cause: dict[str, Callable[[], object]] = {
        "failure_rate": lambda: feed(breaker, *[FAILURE] * 10),
        "refused": lambda: feed(breaker, *[REFUSED] * 3),
        "probe_due": lambda: breaker.acquire(clock.now + 0.5),
        "probe_failed": lambda: feed(breaker, FAILURE),
        "probe_hung": lambda: _hang(breaker, clock),
        "recovered": lambda: feed(breaker, SUCCESS, SUCCESS),
        "forced_open": breaker.force_open,
        "forced_closed": breaker.force_closed,
        "reset": breaker.reset,
    }
    enter[state]()
    assert state == breaker.state
    changes.clear()
    cause[reason]()
    new = TRANSITIONS[state, reason]
    assert [(state, new, reason)] == changes
    assert (new, new is CLOSED) == (breaker.state, breaker.closed)
