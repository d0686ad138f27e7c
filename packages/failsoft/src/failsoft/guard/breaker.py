"""A circuit breaker as a machine: outcomes and times go in, admissions come out. It calls nothing and never waits.

The pattern: M. Nygard, "Release It!", chapter "Stability Patterns". The states are CLOSED, OPEN and HALF_OPEN; what
leads from one to another is the table `states.TRANSITIONS`, and nothing else does.

Rules and theory of operation:

- Ask, call, tell. `acquire` gives an `Admission` or None; the caller makes its call and hands the admission to
  `settle` with an `Outcome`. An admission counts once, however often it is settled.
- Each entry into a state starts a new generation, and an admission carries the generation that gave it. What comes
  from an earlier one is dropped: a call that began before the trip neither closes nor reopens anything after it.
- CLOSED counts outcomes in a time window. Only a failure opens: by the rate, once there were enough calls; or as the
  last of `consecutive` refusals (`Outcome.REFUSED`), whatever the rate. A success ends a row of refusals; an ordinary
  failure neither ends nor lengthens it; nor does time.
- OPEN refuses until a jittered wait is over. A refusal compares two numbers: no lock, no allocation, no exception.
- HALF_OPEN leases probes. A probe given back without a verdict makes room for another. One that is not settled within
  its lease has failed at the moment the lease ended, whoever notices, whenever: a hung probe delays, it never wedges.
- A clock set back neither wedges nor opens: a wait or a lease that seems to begin in the future begins now, so what is
  left of it never exceeds its length; a window from the future is emptied.
- Time passes unobserved: nothing happens between calls, and `state` is what the last call left behind.
- A forked child starts closed, with nothing counted; a forced state survives the fork.

Locking. One lock, held only here. User code (the clock, `random`, `on_change`) runs outside it. A call may be settled
by a finalizer or a signal handler that interrupts this very thread inside the machine: so the lock is reentrant, and
what comes in while the machine is `_busy` is deferred, and done right after. Changes are announced one by one, in
order, by whichever thread leaves the lock first. `acquire` while CLOSED reads one attribute and takes no lock.
"""

import logging
import math
from collections import deque
from collections.abc import Callable
from functools import partial
from random import random as _draw
from threading import RLock

from failsoft.clock import Clock
from failsoft.errors import ConfigurationError
from failsoft.forks import start_over_in_children
from failsoft.guard.states import TRANSITIONS, Admission, Outcome, Reason, State
from failsoft.guard.window import Window

__all__ = ["TRANSITIONS", "Admission", "Breaker", "Outcome", "Reason", "State"]

_log = logging.getLogger("failsoft.guard")

# A global is found faster than an attribute of an Enum.
_SUCCESS, _REFUSED, _IGNORE, _CANCELLED = Outcome.SUCCESS, Outcome.REFUSED, Outcome.IGNORE, Outcome.CANCELLED

# Changes that wait for a slow listener; the oldest are lost first. They come a few in a second, if that.
_CHANGES_KEPT = 256


class Breaker:
    """A circuit breaker for one dependency, shared by all threads and tasks of this process.

    Zero is taken at its word where it means something (`probe_after`) and refused elsewhere; it never means a default.

    Args:
        clock: where `now` comes from when it is not given (its `monotonic`).
        failure_rate: part of the calls in the window that must have failed to open, above 0, at most 1.
        minimum_calls: calls in the window below which the rate opens nothing, at least 1.
        window: seconds that outcomes count for, above 0. They leave it in steps of one bucket.
        buckets: steps of the window, at least 1.
        consecutive: refusals in a row, with no success between, that open it; at least 1, or None for never.
        probe_after: the least and the most seconds from opening to the first probe, at least 0; drawn uniformly.
        growth: factor of both for each failed probe in a row, at least 1; 1 does not grow.
        probe_after_max: seconds to which the most may grow; needed with a `growth` above 1.
        probe_lease: seconds that a probe may take until it counts as failed, above 0.
        probes: at once, at least 1.
        successes_to_close: probes that must succeed, and none fail, to close; at least 1.
        random: draws from 0 (included) to 1.
        on_change: called with the old state, the new one and the reason, once for each row of `TRANSITIONS` taken, in
            order, outside the lock; one that falls 256 behind misses the oldest. It may use the breaker. What it raises
            is logged, and goes no further.

    The defaults are those of a store, whose calls take about a millisecond: so fractions of a second decide.

    Attributes:
        state: what the last call left behind; read only.
        closed: whether `state` is CLOSED; read only, an attribute for hot paths.

    Raises:
        ConfigurationError: an argument is out of its range.
    """

    # Slots are found faster. One to a line, they would hide the class behind a page.
    __slots__ = (
        "__weakref__", "_admits", "_announcing", "_busy", "_changes", "_consecutive", "_deferred", "_due",
        "_failure_rate", "_forced", "_generation", "_growth", "_jitter", "_late", "_lease", "_leases", "_lock",
        "_minimum_calls", "_monotonic", "_on_change", "_probe_after", "_probes", "_random", "_refusals", "_scale",
        "_scale_max", "_since", "_successes", "_successes_to_close", "_window", "closed", "state",
    )  # fmt: skip

    def __init__(
        self,
        *,
        clock: Clock,
        failure_rate: float = 0.5,
        minimum_calls: int = 10,
        window: float = 5.0,
        buckets: int = 10,
        consecutive: int | None = 3,
        probe_after: tuple[float, float] = (0.25, 0.5),
        growth: float = 1.0,
        probe_after_max: float | None = None,
        probe_lease: float = 2.0,
        probes: int = 1,
        successes_to_close: int = 2,
        random: Callable[[], float] = _draw,
        on_change: Callable[[State, State, Reason], object] | None = None,
    ) -> None:
        low, high = probe_after
        cap = high if probe_after_max is None else probe_after_max
        _require(0 < failure_rate <= 1, "failure_rate", failure_rate, "a number above 0, at most 1")
        _require(0 < window < math.inf, "window", window, "seconds above 0")
        _require(0 <= low <= high < math.inf, "probe_after", probe_after, "two numbers of seconds, 0 <= least <= most")
        _require(high <= cap < math.inf, "probe_after_max", probe_after_max, f"seconds, at least {high:g}")
        _require(1 <= growth < math.inf, "growth", growth, "a number, at least 1")
        _require(
            growth == 1 or probe_after_max is not None,
            "probe_after_max",
            None,
            "seconds, since a growth above 1 would make waits endless",
        )
        _require(0 < probe_lease < math.inf, "probe_lease", probe_lease, "seconds above 0")
        for name, count in (
            ("minimum_calls", minimum_calls),
            ("buckets", buckets),
            ("consecutive", 1 if consecutive is None else consecutive),
            ("probes", probes),
            ("successes_to_close", successes_to_close),
        ):
            _require(count >= 1, name, count, "a whole number, at least 1")

        self._failure_rate = failure_rate
        self._minimum_calls = minimum_calls
        self._consecutive = math.inf if consecutive is None else consecutive
        self._probe_after = probe_after
        self._growth = growth
        self._scale_max = cap / high if high else 1.0
        self._lease = probe_lease
        self._probes = probes
        self._successes_to_close = successes_to_close
        self._random = random
        self._on_change = on_change
        # The bound method: found once, not at each call.
        self._monotonic = clock.monotonic

        self.state = State.CLOSED
        self.closed = True
        self._forced: Reason | None = None
        self._generation = 1
        # The generation that admits calls without further questions, or 0: one attribute, so that it is read whole.
        self._admits = 1
        # Between these two moments a call is refused without further questions.
        self._since = self._due = -math.inf
        self._scale = 1.0
        self._jitter = random()
        self._window = Window(window, buckets)
        self._refusals = 0
        self._successes = 0
        self._leases: dict[Admission, float] = {}  # outstanding probes, and when each began

        self._lock = RLock()
        self._busy = self._announcing = self._late = False
        self._deferred: deque[Callable[[], None]] = deque()
        self._changes: deque[tuple[State, State, Reason]] = deque(maxlen=_CHANGES_KEPT)
        start_over_in_children(self, Breaker._start_over)

    def acquire(self, now: float | None = None) -> Admission | None:
        """Leave to make a call, or None if it must not be made.

        Whoever gets an admission settles it, in every way out of the call.

        Args:
            now: the clock's `monotonic`, to save reading it.
        """
        generation = self._admits
        if generation:
            return Admission(generation, False)
        if now is None:
            now = self._monotonic()
        if self._since <= now < self._due:
            return None
        with self._lock:
            if self._busy:
                return None
            try:
                self._busy = True
                admission = self._admit_locked(now)
            finally:
                self._busy = False
        if self._late:
            self._catch_up()
        return admission

    def settle(self, admission: Admission, outcome: Outcome, now: float | None = None) -> None:
        """Tell what became of a call.

        The first time counts; later ones do nothing, nor do those whose generation is over. A finalizer may call it.

        Args:
            admission: what `acquire` gave.
            outcome: what became of the call.
            now: the clock's `monotonic` at the end of the call, to save reading it.
        """
        if (outcome is _CANCELLED or outcome is _IGNORE) and not admission.probe:
            admission.generation = 0
            return
        if now is None:
            now = self._monotonic()
        # `with`, not `acquire` before a `try`: between those two the exception of a signal would leave the lock held for ever.
        with self._lock:
            if self._busy:
                self._defer(partial(self.settle, admission, outcome, now))
                return
            try:
                self._busy = True
                if admission.generation == self._generation:
                    admission.generation = 0
                    # A probe of this generation means HALF_OPEN; any other call of it, CLOSED.
                    if admission.probe:
                        self._settle_probe_locked(admission, outcome, now)
                    else:
                        window = self._window
                        if not window.start <= now < window.end:
                            window.turn(now)
                        window.calls += 1
                        if outcome is _SUCCESS:
                            self._refusals = 0
                        else:
                            window.failures += 1
                            self._judge_locked(outcome, now)
            finally:
                self._busy = False
        if self._late:
            self._catch_up()

    def retry_after(self, now: float | None = None) -> float:
        """Seconds until a call may be let through; 0 means that `acquire` would let one through now.

        With all probes out, that is when the first lease ends; it may be sooner. While forced open nobody knows: the
        longest ordinary wait is given.

        Args:
            now: the clock's `monotonic`, to save reading it.
        """
        if self._admits:
            return 0.0
        if now is None:
            now = self._monotonic()
        since, due = self._since, self._due
        if not since <= now < due:
            with self._lock:
                if not self._busy:
                    try:
                        self._busy = True
                        self._observe_locked(now)
                    finally:
                        self._busy = False
                since, due = self._since, self._due
            if self._late:
                self._catch_up()
        if due == math.inf:
            return self._probe_after[1]
        return min(due - now, due - since) if now < due else 0.0

    @property
    def forced(self) -> bool:
        """Whether the state is held by `force_open` or `force_closed`."""
        return self._forced is not None

    def force_open(self) -> None:
        """Refuse every call, probes too, until `reset` or `force_closed`."""
        self._force("forced_open")

    def force_closed(self) -> None:
        """Let every call through, whatever fails, until `reset` or `force_open`."""
        self._force("forced_closed")

    def reset(self) -> None:
        """Close with nothing counted, and end a forced state."""
        self._force("reset")

    def _force(self, reason: Reason) -> None:
        with self._lock:
            if self._busy:
                self._defer(partial(self._force, reason))
                return
            try:
                self._busy = True
                self._move_locked(reason)
            finally:
                self._busy = False
        self._catch_up()

    def _admit_locked(self, now: float) -> Admission | None:
        self._observe_locked(now)
        if self.state is State.OPEN and now >= self._due:
            self._move_locked("probe_due")
        if self._admits:
            return Admission(self._admits, False)
        if self.state is State.OPEN or len(self._leases) >= self._probes:
            return None
        admission = Admission(self._generation, True)
        self._leases[admission] = now
        self._bar_locked()
        return admission

    def _settle_probe_locked(self, admission: Admission, outcome: Outcome, now: float) -> None:
        self._observe_locked(now)
        if self._leases.pop(admission, None) is None:
            return
        if outcome is _SUCCESS:
            self._successes += 1
            if self._successes >= self._successes_to_close:
                self._move_locked("recovered")
                return
        elif outcome is not _CANCELLED and outcome is not _IGNORE:
            self._move_locked("probe_failed", now)
            return
        self._bar_locked()

    def _judge_locked(self, outcome: Outcome, now: float) -> None:
        """Open if the failure just counted was one too many."""
        if outcome is _REFUSED:
            self._refusals += 1
        if self._forced is not None:
            return
        if self._refusals >= self._consecutive:
            self._move_locked("refused", now)
            return
        window = self._window
        calls = window.calls - window.calls_before
        failures = window.failures - window.failures_before
        # A quotient: a rate of 0.07 means 7 of 100, but 0.07 * 100 is above 7.
        if calls >= self._minimum_calls and failures / calls >= self._failure_rate:
            self._move_locked("failure_rate", now)

    def _observe_locked(self, now: float) -> None:
        """Make up for what time did while nobody looked: a clock that was set back, a lease that ended."""
        if self.state is State.OPEN:
            if now < self._since:
                self._since, self._due = now, now + (self._due - self._since)
            return
        for probe, start in self._leases.items():
            if now < start:
                self._leases[probe] = now
        if self._leases:
            end = min(self._leases.values()) + self._lease
            if now >= end:
                self._move_locked("probe_hung", end)
            else:
                self._bar_locked()

    def _bar_locked(self) -> None:
        """Bar further probes while all are out, until the first lease ends."""
        if len(self._leases) < self._probes:
            self._since = self._due = -math.inf
        else:
            self._since = min(self._leases.values())
            self._due = self._since + self._lease

    def _move_locked(self, reason: Reason, at: float = -math.inf) -> None:
        """Take a row of the table; a wait begins `at`."""
        old = self.state
        new = TRANSITIONS[old, reason]
        forced = reason if reason in ("forced_open", "forced_closed") else None
        due, scale = at, self._scale
        if new is State.CLOSED:
            self._window.clear()
        elif forced is not None:
            due = math.inf
        elif new is State.OPEN:
            low, high = self._probe_after
            scale = min(scale * self._growth, self._scale_max) if old is State.HALF_OPEN else 1.0
            due = at + (low + (high - low) * self._jitter) * scale
        # From here to the last line nothing is called. Python has signals handled only where something is, so that their exceptions find
        # the move made whole or not at all; a machine that was moved by half would hear of no outcome any more.
        self._generation += 1
        self._leases = {}
        self._successes = 0
        self._forced = forced
        self._since, self._due, self._scale = at, due, scale
        if new is State.CLOSED:
            self._refusals = 0
        self._admits = self._generation if new is State.CLOSED else 0
        self.closed = new is State.CLOSED
        self.state = new
        self._late = True
        self._changes.append((old, new, reason))

    def _defer(self, step: Callable[[], None]) -> None:
        self._deferred.append(step)
        self._late = True

    def _catch_up(self) -> None:
        """Do what must not be done inside the machine: what interrupted it, and what user code wants to hear."""
        self._late = False
        while self._deferred:
            try:
                step = self._deferred.popleft()
            except IndexError:  # another thread took it
                break
            step()
        while self._changes:
            self._jitter = self._random()  # for the next wait: drawn here, where no lock is held
            mine = False
            try:
                with self._lock:
                    if self._announcing or not self._changes:
                        return
                    mine = self._announcing = True
                    change = self._changes.popleft()
                try:
                    if self._on_change is not None:
                        self._on_change(*change)
                except Exception:
                    _log.exception("on_change of a breaker raised at %s; the breaker goes on", change[2])
            finally:
                if mine:
                    self._announcing = False

    def _start_over(self) -> None:
        """Be a new machine in a forked child: the threads that held the lock or the probes are not here."""
        self._lock = RLock()
        self._busy = self._announcing = self._late = False
        self._deferred.clear()
        self._changes.clear()
        self._jitter = self._random()
        old = self.state
        # Everything is written anew, since the fork may have come in the midst of a change.
        self._move_locked(self._forced or "forked")
        if self.state is old:
            self._changes.clear()


def _require(fits: bool, name: str, given: object, accepted: str) -> None:
    if not fits:
        raise ConfigurationError(f"Breaker: {name} is {given!r}; give {accepted}.")
