"""The circuit breaker among threads, listeners, interruptions and forks."""

import logging
import os
import random
import signal
import threading
import time
import warnings
from collections import Counter
from collections.abc import Callable, Iterator
from functools import partial
from itertools import pairwise

import pytest

from failsoft.guard import Breaker, Outcome, Reason, State
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
    Interrupting,
    feed,
    half_open,
    make,
    run,
    take,
    trip,
)


class TestOnChange:
    def test_no_lock_is_held(self, clock: Clock) -> None:
        """While the listener runs, another thread uses every part of the breaker."""
        seen: list[State] = []

        def other() -> None:
            breaker.retry_after()
            admission = breaker.acquire()
            if admission is not None:
                breaker.settle(admission, SUCCESS)
            breaker.force_closed()

        def listen(old: State, new: State, reason: Reason) -> None:
            if reason == "refused":
                run(other)
            seen.append(new)

        breaker = make(clock, on_change=listen)
        feed(breaker, REFUSED, REFUSED, REFUSED)
        assert seen == [OPEN, CLOSED]

    def test_no_lock_is_held_for_a_draw(self, clock: Clock) -> None:
        """While `random` runs, another thread uses the breaker."""
        draws: list[str] = []

        def draw() -> float:
            draws.append(threading.current_thread().name)
            if len(draws) == 2:  # the first is of the constructor
                run(breaker.reset)
            return 0.5

        breaker = make(clock, random=draw)
        feed(breaker, REFUSED, REFUSED, REFUSED)
        assert threading.current_thread().name == draws[1]
        assert CLOSED == breaker.state

    def test_the_listener_may_use_the_breaker(self, clock: Clock) -> None:
        """What it changes is announced after it returns, in order."""
        log: list[object] = []

        def listen(old: State, new: State, reason: Reason) -> None:
            log.append(reason)
            if reason == "refused":
                breaker.force_open()
            log.append("end")

        breaker = make(clock, on_change=listen)
        feed(breaker, REFUSED, REFUSED, REFUSED)
        assert log == ["refused", "end", "forced_open", "end"]

    def test_a_listener_that_raises(self, clock: Clock, caplog: pytest.LogCaptureFixture) -> None:
        """Its error is logged, the caller does not see it, and the next change is announced again."""
        reasons: list[Reason] = []

        def listen(old: State, new: State, reason: Reason) -> None:
            reasons.append(reason)
            raise RuntimeError("listener")

        breaker = make(clock, on_change=listen)
        with caplog.at_level(logging.ERROR, logger="failsoft.guard"):
            trip(breaker)
            breaker.reset()
        assert reasons == ["refused", "reset"]
        assert len(caplog.records) == 2

    def test_order_across_threads(self, clock: Clock, hasty_switches: None) -> None:
        """Eight threads that force states: each change announced begins where the one before ended."""
        seen: list[tuple[State, State]] = []
        breaker = make(clock, on_change=lambda old, new, reason: seen.append((old, new)))

        def body() -> None:
            # Fewer changes in all than are kept for a listener that falls behind.
            for _ in range(15):
                breaker.force_open()
                breaker.reset()

        run(*[body] * 8)
        breaker.reset()
        assert len(seen) == 241
        assert [(before, after) for before, after in pairwise(seen) if before[1] is not after[0]] == []


class TestThreads:
    def test_no_count_is_lost(self, clock: Clock, hasty_switches: None) -> None:
        """Fifty threads settle 10,000 calls, half of them failures: the next failure is the one that opens."""
        breaker = make(clock, minimum_calls=10_001, failure_rate=0.5)

        def body() -> None:
            feed(breaker, *[FAILURE, SUCCESS] * 100)

        run(*[body] * 50)
        assert breaker.state == CLOSED
        feed(breaker, FAILURE)
        assert breaker.state == OPEN

    def test_one_admission_settled_by_many_counts_once(self, clock: Clock, hasty_switches: None) -> None:
        """Fifty threads settle the same hundred admissions: the hundred-and-first refusal opens."""
        breaker = make(clock, consecutive=101, minimum_calls=1000)
        shared = [take(breaker) for _ in range(100)]

        def body() -> None:
            for admission in shared:
                breaker.settle(admission, REFUSED)

        run(*[body] * 50)
        assert breaker.state == CLOSED
        feed(breaker, REFUSED)
        assert breaker.state == OPEN

    def test_never_too_many_probes(self, hasty_switches: None) -> None:
        """Fifty threads, all outcomes and hung probes, while time passes: never more probes out than places."""
        clock = Clock()
        breaker = make(clock, probes=2, consecutive=2, minimum_calls=5, successes_to_close=4, probe_lease=1.0)
        out: Counter[int] = Counter()
        most: Counter[int] = Counter()
        lock = threading.Lock()

        def body(seed: int) -> None:
            draw = random.Random(seed)
            for _ in range(200):
                clock.now += 0.001
                admission = breaker.acquire()
                if admission is None:
                    continue
                if not admission.probe:
                    breaker.settle(admission, draw.choice(list(Outcome)))
                    continue
                generation = admission.generation
                with lock:
                    out[generation] += 1
                    most[generation] = max(most[generation], out[generation])
                if draw.random() < 0.05:
                    continue  # it hangs
                time.sleep(0)  # no wait: lets the others in while this probe is out
                # Noted before it is given back, so that the note is never behind the next one's.
                with lock:
                    out[generation] -= 1
                breaker.settle(admission, draw.choice([SUCCESS, SUCCESS, SUCCESS, FAILURE, IGNORE, CANCELLED]))

        run(*[partial(body, seed) for seed in range(50)])
        assert max(most.values()) == 2
        breaker.reset()
        feed(breaker, REFUSED)
        assert breaker.state == CLOSED

    def test_closed_and_open_do_not_wait_for_the_lock(self, breaker: Breaker, clock: Clock) -> None:
        """While another thread is inside the machine, calls are admitted, given back and refused at once."""
        inside, leave = threading.Event(), threading.Event()

        def stay() -> None:
            inside.set()
            assert leave.wait(PATIENCE)

        def meanwhile() -> None:
            assert inside.wait(PATIENCE)
            try:
                breaker.settle(take(breaker), CANCELLED)
            finally:
                leave.set()

        running = take(breaker)
        run(lambda: breaker.settle(running, SUCCESS, Interrupting(clock.now, stay)), meanwhile)

    def test_a_refusal_does_not_wait_for_the_lock(self, breaker: Breaker, clock: Clock) -> None:
        """While another thread is inside the machine, calls are refused at once, and told when to come again."""
        inside, leave = threading.Event(), threading.Event()

        def stay() -> None:
            inside.set()
            assert leave.wait(PATIENCE)

        def meanwhile() -> None:
            assert inside.wait(PATIENCE)
            try:
                assert (breaker.acquire(), breaker.retry_after()) == (None, 0.5)
            finally:
                leave.set()

        trip(breaker)
        # Two comparisons decide whether to go in; the third is inside.
        run(lambda: breaker.acquire(Interrupting(clock.now + 0.5, stay, after=2)), meanwhile)
        assert breaker.state == HALF_OPEN


class TestInterrupted:
    """A finalizer or signal handler that uses the breaker while this very thread is inside it."""

    def test_settling_is_deferred(self, clock: Clock) -> None:
        """Nothing is lost, and nothing waits for itself."""
        breaker = make(clock, minimum_calls=1002)
        running = [take(breaker) for _ in range(1000)]

        def action() -> None:
            for admission in running:
                breaker.settle(admission, FAILURE)

        breaker.settle(take(breaker), SUCCESS, Interrupting(clock.now, action))
        assert breaker.state == CLOSED
        feed(breaker, FAILURE)
        assert breaker.state == OPEN

    def test_forcing_is_deferred(self, breaker: Breaker, clock: Clock, changes: list[object]) -> None:
        """A signal handler's force takes hold right after."""
        seen: list[State] = []

        def action() -> None:
            breaker.force_open()
            seen.append(breaker.state)

        breaker.settle(take(breaker), SUCCESS, Interrupting(clock.now, action))
        assert seen == [CLOSED]
        assert (breaker.state, breaker.forced) == (OPEN, True)
        assert changes == [(CLOSED, OPEN, "forced_open")]

    def test_the_listener_waits_until_the_lock_is_free(self, clock: Clock) -> None:
        """What an interruption brought about is announced outside the lock like all else."""
        reasons: list[Reason] = []

        def listen(old: State, new: State, reason: Reason) -> None:
            if not reasons:
                run(breaker.force_closed)
            reasons.append(reason)

        breaker = make(clock, on_change=listen)
        running = [take(breaker) for _ in range(3)]

        def action() -> None:
            for admission in running:
                breaker.settle(admission, REFUSED)

        breaker.settle(take(breaker), SUCCESS, Interrupting(clock.now, action))
        assert ["refused", "forced_closed"] == reasons

    def test_asking_is_refused(self, breaker: Breaker, clock: Clock) -> None:
        """In the midst of settling a probe no other is let through."""
        seen: list[object] = []
        probe = half_open(breaker, clock)
        breaker.settle(probe, IGNORE, Interrupting(clock.now, lambda: seen.append(breaker.acquire(clock.now + 2.0))))
        assert seen == [None]
        assert take(breaker).probe

    def test_a_generator_dropped_inside(self, breaker: Breaker, clock: Clock) -> None:
        """A guarded stream that is closed while its own thread is inside the machine is settled all the same."""

        def stream() -> Iterator[int]:
            admission = take(breaker)
            try:
                yield 1
            except GeneratorExit:
                breaker.settle(admission, FAILURE)
                raise

        feed(breaker, *[FAILURE] * 8)
        streams = [stream()]
        next(streams[0])
        breaker.settle(take(breaker), FAILURE, Interrupting(clock.now, streams.clear))
        assert breaker.state == OPEN


@pytest.mark.skipif(not hasattr(os, "fork"), reason="the system cannot fork")
class TestForked:
    def child(self, body: Callable[[], bool]) -> int:
        """Fork, run the body in the child, and give its exit status: 0 if it gave True in time."""
        with warnings.catch_warnings():
            # Forking beside threads is what is tested.
            warnings.simplefilter("ignore", DeprecationWarning)
            pid = os.fork()
        if pid == 0:
            status = 1
            try:
                signal.alarm(int(PATIENCE))
                status = 0 if body() else 2
            finally:
                os._exit(status)
        return os.waitpid(pid, 0)[1]

    def test_exceptions_out_of_signals(self, breaker: Breaker) -> None:
        """An interruption at any point leaves the lock free: the other threads go on."""

        class Interrupted(BaseException):
            pass

        def interrupt(*_: object) -> None:
            raise Interrupted

        def body() -> bool:
            signal.signal(signal.SIGALRM, interrupt)
            for _ in range(1000):
                try:
                    signal.setitimer(signal.ITIMER_REAL, random.uniform(2e-5, 2e-4))
                    while True:
                        feed(breaker, SUCCESS)
                except Interrupted:
                    pass
            signal.setitimer(signal.ITIMER_REAL, 0)
            free: list[bool] = []
            run(lambda: free.append(breaker._lock.acquire(timeout=1)))
            return free == [True]

        assert self.child(body) == 0

    def test_exceptions_out_of_signals_leave_no_move_half_made(self, clock: Clock) -> None:
        """What an interruption breaks off was done, or was not: the machine goes on to hear of outcomes, and tells of changes."""

        class Interrupted(BaseException):
            pass

        def interrupt(*_: object) -> None:
            raise Interrupted

        told: list[State] = []
        breaker = make(clock, on_change=lambda old, new, reason: told.append(new))

        def body() -> bool:
            signal.signal(signal.SIGALRM, interrupt)
            for _ in range(3000):
                breaker.reset()
                try:
                    signal.setitimer(signal.ITIMER_REAL, random.uniform(2e-5, 1e-4))
                    while True:
                        feed(breaker, REFUSED, REFUSED, REFUSED)
                        breaker.reset()
                except Interrupted:
                    pass
                if breaker._admits != (breaker._generation if breaker.state is CLOSED else 0):
                    return False
            signal.setitimer(signal.ITIMER_REAL, 0)
            breaker.reset()
            told.clear()
            feed(breaker, REFUSED, REFUSED, REFUSED)
            return told == [OPEN]

        assert self.child(body) == 0

    def test_a_lock_held_at_the_fork(self, breaker: Breaker, clock: Clock) -> None:
        """A child forked while another thread is inside the machine can use it."""
        inside, leave = threading.Event(), threading.Event()
        statuses: list[int] = []

        def stay() -> None:
            inside.set()
            assert leave.wait(PATIENCE)

        def body() -> bool:
            feed(breaker, REFUSED, REFUSED)
            before = breaker.state
            feed(breaker, REFUSED)
            return (before, breaker.state) == (CLOSED, OPEN)

        def fork() -> None:
            assert inside.wait(PATIENCE)
            try:
                statuses.append(self.child(body))
            finally:
                leave.set()

        running = take(breaker)
        run(lambda: breaker.settle(running, SUCCESS, Interrupting(clock.now, stay)), fork)
        assert statuses == [0]

    def test_a_probe_out_at_the_fork(
        self, breaker: Breaker, clock: Clock, changes: list[tuple[State, State, Reason]]
    ) -> None:
        """The child has no part in it and starts closed; its listener hears of that."""
        probe = half_open(breaker, clock)

        def body() -> bool:
            closed = breaker.closed
            breaker.settle(probe, FAILURE)
            feed(breaker, SUCCESS)
            return closed and breaker.state is CLOSED and changes[-1] == (HALF_OPEN, CLOSED, "forked")

        assert self.child(body) == 0
        assert breaker.state == HALF_OPEN

    @pytest.mark.parametrize(
        ("force", "state"), [(Breaker.force_open, OPEN), (Breaker.force_closed, CLOSED)], ids=["open", "closed"]
    )
    def test_a_forced_state_survives(self, breaker: Breaker, force: Callable[[Breaker], None], state: State) -> None:
        """What an operator forced before the fork holds in the child."""
        force(breaker)
        assert self.child(lambda: (breaker.state, breaker.forced) == (state, True)) == 0
