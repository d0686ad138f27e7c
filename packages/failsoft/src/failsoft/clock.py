"""Time as a dependency.

Every decision takes its time from a `Clock`, so that a test can hold time still. Two readings exist because they
answer two questions: `monotonic` measures how long something took and never jumps; `time` says what time it is, and is
what a window that must agree between processes is counted in.
"""

import time
from typing import Protocol

__all__ = ["SYSTEM", "Clock", "SystemClock"]


class Clock(Protocol):
    """What failsoft asks of a clock."""

    def monotonic(self) -> float:
        """Seconds that only grow, from an arbitrary start."""
        ...

    def time(self) -> float:
        """Seconds since the Unix epoch."""
        ...


class SystemClock:
    """The machine's own clocks."""

    __slots__ = ()

    # The functions themselves: a wrapper would cost as much as the reading.
    monotonic = staticmethod(time.monotonic)
    time = staticmethod(time.time)


SYSTEM: Clock = SystemClock()
