"""The circuit breaker against a naive model of itself."""

import math
from typing import Any

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import Bundle, RuleBasedStateMachine, initialize, invariant, multiple, rule

from failsoft.guard import Admission, Breaker, Outcome, Reason, State
from failsoft.guard.breaker import TRANSITIONS
from tests.core.guard.breakers import CANCELLED, CLOSED, FAILURE, HALF_OPEN, IGNORE, OPEN, REFUSED, SUCCESS, Clock


class Model:
    """The breaker as one would write it without thinking of cost: everything is kept, and counted anew each time."""

    width = 1.0
    minimum_calls = 4
    failure_rate = 0.5
    lease = 2.0

    def __init__(
        self,
        *,
        buckets: int,
        probes: int,
        successes_to_close: int,
        consecutive: int | None,
        growth: float,
        wait: float,
        wait_max: float,
        wait_forced: float,
    ) -> None:
        self.buckets = buckets
        self.probes = probes
        self.successes_to_close = successes_to_close
        self.consecutive = consecutive
        self.growth = growth
        self.wait = wait
        self.wait_max = wait_max
        self.wait_forced = wait_forced
        self.bucket = -math.inf  # before the first outcome no clock was set back
        self.changes: list[tuple[State, State, Reason]] = []
        self.forced = False
        self.failed_probes = 0
        self.enter(CLOSED)

    def enter(self, state: State) -> None:
        self.records: list[tuple[float, bool]] = []
        self.row = 0
        self.successes = 0
        self.current: list[Admission] = []
        self.leases: dict[Admission, float] = {}
        self.state = state

    def move(self, reason: Reason, at: float = 0.0) -> None:
        old, new = self.state, TRANSITIONS[self.state, reason]
        self.forced = reason in ("forced_open", "forced_closed")
        if new is OPEN and not self.forced:
            self.failed_probes = self.failed_probes + 1 if old is HALF_OPEN else 0
            self.opened = at
            self.length = min(self.wait * self.growth**self.failed_probes, self.wait_max)
        self.enter(new)
        self.changes.append((old, new, reason))

    def look(self, now: float) -> None:
        if self.state is OPEN and not self.forced:
            self.opened = min(self.opened, now)
        self.leases = {probe: min(start, now) for probe, start in self.leases.items()}
        ends = [start + self.lease for start in self.leases.values() if start + self.lease <= now]
        if ends:
            self.move("probe_hung", min(ends))

    def admits(self, now: float) -> bool:
        self.look(now)
        if self.state is OPEN:
            return not self.forced and now - self.opened >= self.length
        return self.state is CLOSED or len(self.leases) < self.probes

    def retry_after(self, now: float) -> float:
        if self.admits(now):
            return 0.0
        if self.forced:
            return self.wait_forced
        if self.state is OPEN:
            return self.opened + self.length - now
        return min(self.leases.values()) + self.lease - now

    def admitted(self, admission: Admission, now: float) -> None:
        if self.state is OPEN:
            self.move("probe_due")
        self.current.append(admission)
        if self.state is HALF_OPEN:
            self.leases[admission] = now

    def settle(self, admission: Admission, outcome: Outcome, now: float) -> None:
        if admission not in self.current:
            return
        if self.state is HALF_OPEN:
            self.look(now)
            if admission not in self.current:
                return
        self.current.remove(admission)
        self.leases.pop(admission, None)
        failed = outcome in (FAILURE, REFUSED)
        if outcome in (IGNORE, CANCELLED):
            return
        if self.state is HALF_OPEN:
            self.successes += 1
            if failed:
                self.move("probe_failed", now)
            elif self.successes == self.successes_to_close:
                self.move("recovered")
            return
        bucket = math.floor(now / self.width)
        if bucket <= self.bucket - self.buckets:
            self.records = []
        if bucket <= self.bucket - self.buckets or bucket > self.bucket:
            self.bucket = bucket
        self.records.append((self.bucket, failed))
        recent = [failed for bucket, failed in self.records if bucket > self.bucket - self.buckets]
        self.row = 0 if outcome is SUCCESS else self.row + (outcome is REFUSED)
        if not failed or self.forced:
            return
        if self.consecutive is not None and self.row >= self.consecutive:
            self.move("refused", now)
        elif len(recent) >= self.minimum_calls and sum(recent) / len(recent) >= self.failure_rate:
            self.move("failure_rate", now)


class Machine(RuleBasedStateMachine):
    """The breaker and the model, side by side; times are binary fractions, so that both count exactly."""

    admissions: Bundle[Admission] = Bundle("admissions")

    @initialize(
        probes=st.integers(1, 3),
        successes=st.integers(1, 3),
        consecutive=st.none() | st.integers(1, 3),
        growth=st.sampled_from([1.0, 2.0]),
        buckets=st.sampled_from([1, 4]),
        draw=st.sampled_from([0.0, 0.5, 1.0]),
    )
    def begin(
        self, probes: int, successes: int, consecutive: int | None, growth: float, buckets: int, draw: float
    ) -> None:
        self.clock = Clock()
        self.changes: list[tuple[State, State, Reason]] = []
        # The most is the least, doubled: so the draw shows in each wait.
        least = 0.5
        wait = least + least * draw
        self.breaker = Breaker(
            clock=self.clock,
            window=1.0 * buckets,
            buckets=buckets,
            minimum_calls=4,
            probes=probes,
            successes_to_close=successes,
            consecutive=consecutive,
            probe_after=(least, 2 * least),
            growth=growth,
            probe_after_max=4.0,
            random=lambda: draw,
            on_change=lambda *change: self.changes.append(change),
        )
        self.model = Model(
            buckets=buckets,
            probes=probes,
            successes_to_close=successes,
            consecutive=consecutive,
            growth=growth,
            wait=wait,
            wait_max=wait * 4.0,
            wait_forced=2 * least,
        )

    @rule(step=st.sampled_from([0.125, 0.25, 0.5, 1.0, 2.0, 5.0]))
    def time_passes(self, step: float) -> None:
        self.clock.now += step

    @rule(step=st.sampled_from([0.125, 1.0, 30.0]))
    def clock_is_set_back(self, step: float) -> None:
        self.clock.now -= step

    def ask(self) -> Admission | None:
        expected = self.model.admits(self.clock.now)
        admission = self.breaker.acquire()
        assert (admission is not None) == expected
        if admission is not None:
            self.model.admitted(admission, self.clock.now)
            assert admission.probe == (self.model.state is HALF_OPEN)
        return admission

    @rule(target=admissions, count=st.integers(1, 4))
    def acquire(self, count: int) -> Any:
        return multiple(*[admission for _ in range(count) if (admission := self.ask()) is not None])

    @rule(admission=admissions, outcome=st.sampled_from(Outcome))
    def settle(self, admission: Admission, outcome: Outcome) -> None:
        self.model.settle(admission, outcome, self.clock.now)
        self.breaker.settle(admission, outcome)

    @rule(outcomes=st.lists(st.sampled_from([SUCCESS, FAILURE, FAILURE, REFUSED]), min_size=1, max_size=8))
    def call(self, outcomes: list[Outcome]) -> None:
        for outcome in outcomes:
            admission = self.ask()
            if admission is not None:
                self.settle(admission, outcome)

    @rule()
    def retry_after(self) -> None:
        expected = self.model.retry_after(self.clock.now)
        assert expected == self.breaker.retry_after()

    @rule(reason=st.sampled_from(["forced_open", "forced_closed", "reset", "reset"]))
    def force(self, reason: Any) -> None:
        {
            "forced_open": self.breaker.force_open,
            "forced_closed": self.breaker.force_closed,
            "reset": self.breaker.reset,
        }[reason]()
        self.model.move(reason)

    @invariant()
    def agree(self) -> None:
        if hasattr(self, "model"):
            assert self.model.changes == self.changes
            assert self.model.state == self.breaker.state
            assert self.model.forced == self.breaker.forced
            assert (self.breaker.state is CLOSED) == self.breaker.closed


TestModel = Machine.TestCase
TestModel.settings = settings(deadline=None, max_examples=max(10, settings().max_examples // 2), stateful_step_count=50)
