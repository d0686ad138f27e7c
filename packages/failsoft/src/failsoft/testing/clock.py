"""A clock that stands still until it is told to move."""

from threading import Lock

from failsoft.durations import Duration, seconds
from failsoft.forks import start_over_in_children

__all__ = ["ManualClock"]


class ManualClock:
    """A `failsoft.clock.Clock` for tests: time passes only in `advance`. Safe to use from several threads.

    It counts whole microseconds, as the limits do, so that a sum of many steps is as exact as a single one.

    Args:
        start: what `time` says first, in seconds since the Unix epoch. `monotonic` starts at 0.

    Example:
        >>> clock = ManualClock()
        >>> clock.advance("1m")
        >>> clock.monotonic()
        60.0
    """

    __slots__ = ("__weakref__", "_lock", "_passed", "_start")

    def __init__(self, start: float = 1_700_000_000.0) -> None:
        self._start = round(start * 1_000_000)
        self._passed = 0
        self._lock = Lock()
        start_over_in_children(self, ManualClock._start_over)

    def _start_over(self) -> None:
        """See `failsoft.forks`."""
        self._lock = Lock()

    def monotonic(self) -> float:
        """Seconds that were advanced so far."""
        return self._passed / 1_000_000

    def time(self) -> float:
        """Seconds since the Unix epoch: `start` and what was advanced."""
        return (self._start + self._passed) / 1_000_000

    def advance(self, duration: Duration) -> None:
        """Let `duration` pass: seconds, or text such as ``"10s"`` or ``"250ms"``, or a timedelta.

        Raises:
            TypeError: it is no duration.
            ValueError: it is negative, or text that says no duration.
        """
        step = round(seconds(duration) * 1_000_000)
        with self._lock:
            self._passed += step

    def __repr__(self) -> str:
        return f"ManualClock(time={self.time()!r})"
