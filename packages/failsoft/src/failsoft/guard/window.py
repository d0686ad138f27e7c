"""Counting what happened in the last few seconds, at the price of an addition.

Time is cut into buckets. The totals only grow; each bucket remembers where they stood when it began, so what lies in
the window is one subtraction, and nothing is ever scanned. The window slides in steps of one bucket: it covers the
current one and those before it, between ``span - span / buckets`` and ``span`` seconds.

A time in an earlier bucket of the window counts in the current one: threads read their clocks before they take their
turn. An earlier time than that means that the clock was set back, and the window starts anew.

Not thread-safe: its owner has a lock.
"""

__all__ = ["Window"]


class Window:
    """Calls and failures of the last `span` seconds, in `buckets` steps.

    `calls` and `failures` only grow. Those before the window are `calls_before` and `failures_before`.
    """

    __slots__ = (
        "_buckets",
        "_index",
        "_marks",
        "_width",
        "calls",
        "calls_before",
        "end",
        "failures",
        "failures_before",
        "start",
    )

    def __init__(self, span: float, buckets: int) -> None:
        self._width = span / buckets
        self._buckets = buckets
        self._index = 0
        self.start = self.end = 0.0
        self.clear()

    def clear(self) -> None:
        """Forget what was counted."""
        self.calls = self.calls_before = 0
        self.failures = self.failures_before = 0
        self._marks = [(0, 0)] * self._buckets

    def turn(self, now: float) -> None:
        """Go to the bucket of `now`, which does not lie between `start` and `end`."""
        index = int(now // self._width)
        steps = index - self._index
        if -self._buckets < steps < 0:
            # Another thread read its clock before the latest turn: its outcome goes with the current bucket.
            return
        if abs(steps) >= self._buckets:
            self.clear()
        else:
            for passed in range(self._index + 1, index + 1):
                self._marks[passed % self._buckets] = (self.calls, self.failures)
            self.calls_before, self.failures_before = self._marks[(index + 1) % self._buckets]
        self._index = index
        self.start = index * self._width
        self.end = self.start + self._width
