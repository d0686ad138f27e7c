"""What the tests of the breaker share."""

import threading
from collections.abc import Callable
from typing import Any

from failsoft.guard import Admission, Breaker, Outcome, State

SUCCESS, FAILURE, REFUSED = Outcome.SUCCESS, Outcome.FAILURE, Outcome.REFUSED
IGNORE, CANCELLED = Outcome.IGNORE, Outcome.CANCELLED
CLOSED, OPEN, HALF_OPEN = State.CLOSED, State.OPEN, State.HALF_OPEN


PATIENCE = 30.0
"""Seconds to wait for other threads: far more than they need."""


class Clock:
    """A clock that stands until it is moved."""

    def __init__(self) -> None:
        self.now = 1000.0

    def monotonic(self) -> float:
        return self.now

    def time(self) -> float:
        raise AssertionError("a breaker measures; it does not ask what time it is")


class Interrupting(float):
    """A time that does something when it is compared: it stands for a finalizer that runs inside the machine.

    Args:
        value: the time.
        action: what it does, once.
        after: how many comparisons it lets pass before.
    """

    action: Callable[[], object]
    left: int

    def __new__(cls, value: float, action: Callable[[], object], *, after: int = 0) -> "Interrupting":
        self = super().__new__(cls, value)
        self.action = action
        self.left = after + 1
        return self

    def _interrupt(self) -> None:
        self.left -= 1
        if self.left == 0:
            self.action()

    def __lt__(self, other: float) -> bool:
        self._interrupt()
        return float(self) < other

    def __ge__(self, other: float) -> bool:
        self._interrupt()
        return float(self) >= other


def make(clock: Clock, **options: Any) -> Breaker:
    return Breaker(**{"clock": clock, "probe_after": (0.5, 0.5), **options})


def take(breaker: Breaker) -> Admission:
    admission = breaker.acquire()
    assert admission is not None
    return admission


def feed(breaker: Breaker, *outcomes: Outcome) -> None:
    for outcome in outcomes:
        breaker.settle(take(breaker), outcome)


def trip(breaker: Breaker) -> None:
    feed(breaker, REFUSED, REFUSED, REFUSED)
    assert breaker.state == OPEN


def half_open(breaker: Breaker, clock: Clock) -> Admission:
    """Open it, wait, and take the first probe."""
    trip(breaker)
    clock.now += 0.5
    probe = take(breaker)
    assert breaker.state == HALF_OPEN
    return probe


def run(*bodies: Callable[[], object]) -> None:
    """Run each in a thread of its own; raise what the first one that failed raised."""
    errors: list[BaseException] = []

    def guarded(body: Callable[[], object]) -> None:
        try:
            body()
        except BaseException as error:
            errors.append(error)

    threads = [threading.Thread(target=guarded, args=(body,), daemon=True) for body in bodies]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(PATIENCE)
    assert [thread for thread in threads if thread.is_alive()] == []
    if errors:
        raise errors[0]
