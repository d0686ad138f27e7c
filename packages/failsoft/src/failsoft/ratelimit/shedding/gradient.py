"""How many requests this process should serve at once, learned from how long they take.

The algorithm is Gradient2 of Netflix's concurrency-limits, with its numbers. In a window of time, `short` is how long
requests took on average, and `long` what is usual: an exponential average over the last 600 windows. Then

    gradient = 1.5 * long / short, at least 1/2, at most 1
    limit    = 0.8 * limit + 0.2 * (gradient * limit + 4)

So the limit grows by 0.8 while requests take at most half as long again as usual, and shrinks by at most a tenth when they
take longer. It stays as it is where less than half of it was in use, since then nothing was learned about it.

Four things are ours:

- *Each route is compared with itself.* `long` is kept for each route, and `short / long` is what all requests of the window
  took over what requests to the same routes usually take. With one route that is Gradient2. With several, a change in
  what is asked for (a scan of cheap pages, a nightly run of dear ones) is not mistaken for overload.
- *What a worker measures while it is out of CPU time never raises what is usual.* Otherwise the limit creeps up in an overload that
  lasts, doubling about every 90 s, until it no longer protects. Where the CPU is the bottleneck, serving more at
  once helps nobody; where it is not (a dependency became slower for good), what is usual is learned anew, as in Gradient2.
- *Out of CPU time, the limit may fall to a quarter of its least*, and 4 becomes 1. Twenty at once take twenty times as long there as one
  alone, and not one more is served. The least is for processes that wait for others: those need to have many in flight.
- *Windows are of a quarter of a second and of ten requests*, whichever takes longer: averages tell slow from unlucky.

No locks: whoever uses these has one.
"""

from typing import Final

__all__ = ["Gradient", "Usual", "Windows"]

_LONG_WINDOW: Final = 600
_WARM_UP: Final = 10
_MOST_USUALS: Final = 2_000
"""Routes times methods that are told apart; all others are one."""

_LEAST: Final = 1e-6
"""Seconds that every request takes: a clock that stands still must not be divided by."""

_SATURATED: Final = 0.75
"""CPU time for each second, from which on a process has none to spare. Below 1, since it is measured while others run, too."""

_CROWDED: Final = 0.25
"""Part of the time that requests take from which on, spent waiting for the event loop, it shows that the loop has none to spare, also where
others leave this process little of the CPU."""


class Usual:
    """What requests to one route usually take, in seconds; 0 before anything is known."""

    __slots__ = ("_sum", "_warm", "count", "long", "total")

    def __init__(self) -> None:
        self.long = 0.0
        self._sum = 0.0
        self._warm = 0
        self.count = 0
        self.total = 0.0

    def close(self, *, saturated: bool) -> float:
        """End the window; returns what its requests would usually have taken, all together."""
        short = self.total / self.count
        if self._warm < _WARM_UP:
            self._warm += 1
            self._sum += short
            self.long = self._sum / self._warm
        elif short < self.long or not saturated:
            self.long += (short - self.long) * 2 / (_LONG_WINDOW + 1)
        expected = self.long * self.count
        # It was raised by an overload that is over: 600 windows are too long to wait for the end of that.
        if self.long > 2 * short:
            self.long *= 0.95
        self.count, self.total = 0, 0.0
        return expected


class Gradient:
    """The limit.

    Args:
        least: what it never falls below while there is CPU time, at least 1.
        most: what it never rises above.
        initial: where it begins, as far as the other two allow.

    Attributes:
        limit: a fraction, too; as many requests as its whole part may be in flight.
    """

    __slots__ = ("_least", "_least_saturated", "_most", "limit")

    def __init__(self, *, least: int, most: int, initial: int = 20) -> None:
        self._least = least
        self._least_saturated = max(1, least // 4)
        self._most = most
        self.limit = float(min(max(initial, least), most))

    def update(self, short: float, long: float, in_flight: int, *, saturated: bool = False) -> None:
        """Learn from a window.

        Args:
            short: seconds that its requests took, above 0.
            long: seconds that they usually take.
            in_flight: how many were in flight at once.
            saturated: whether this process was out of CPU time.
        """
        limit = self.limit
        if in_flight < limit / 2:
            return
        gradient = max(0.5, min(1.0, 1.5 * long / short))
        limit += 0.2 * (limit * gradient + (1 if saturated else 4) - limit)
        self.limit = max(self._least_saturated if saturated else self._least, min(self._most, limit))


class Windows:
    """What requests took, gathered in windows.

    Args:
        gradient: learns from each.
        length: seconds of a window.
        requests: how many it has at least.

    Attributes:
        mean: seconds that a request takes on average, lately; 0 before anything is known.
    """

    __slots__ = (
        "_began", "_count", "_end", "_gradient", "_length", "_most", "_other", "_requests", "_spent", "_touched",
        "_usuals", "mean",
    )  # fmt: skip

    def __init__(self, gradient: Gradient, *, length: float = 0.25, requests: int = 10) -> None:
        self._gradient = gradient
        self._length = length
        self._requests = requests
        self._usuals: dict[object, Usual] = {}
        self._other = Usual()
        self._touched: list[Usual] = []
        self._count = self._most = 0
        self._began = self._end = self._spent = 0.0
        self.mean = 0.0

    def usual(self, route: object) -> Usual:
        """Where it is kept what requests to `route` usually take."""
        found = self._usuals.get(route)
        if found is not None:
            return found
        return self._usuals.setdefault(route, Usual()) if len(self._usuals) < _MOST_USUALS else self._other

    def add(self, usual: Usual, took: float, in_flight: int) -> None:
        """Count a request.

        Args:
            usual: of its route.
            took: seconds.
            in_flight: how many there were when it began, itself included.
        """
        if not usual.count:
            self._touched.append(usual)
        usual.count += 1
        usual.total += max(took, _LEAST)
        self._count += 1
        self._most = max(self._most, in_flight)

    def due(self, now: float) -> bool:
        """Whether the window is over."""
        # One that ends in the far future belongs to a clock that was set back.
        return self._count >= self._requests and not 0 < self._end - now <= self._length

    def close(self, now: float, *, spent: float, crowded: float) -> None:
        """End the window, and learn from it.

        Args:
            now: the time, in seconds.
            spent: CPU time of this process up to now, in seconds.
            crowded: seconds that its requests waited for the event loop, all together.
        """
        passed, used = now - self._began, spent - self._spent
        took = sum(usual.total for usual in self._touched)
        saturated = crowded >= _CROWDED * took or (passed > 0 and used >= _SATURATED * passed)
        expected = sum(usual.close(saturated=saturated) for usual in self._touched)
        mean = took / self._count
        self.mean = mean if not self.mean else self.mean + 0.2 * (mean - self.mean)
        self._gradient.update(took, expected, self._most, saturated=saturated)
        self._touched.clear()
        self._count = self._most = 0
        self._began, self._spent, self._end = now, spent, now + self._length

    def forget_window(self) -> None:
        """Drop what was gathered since the last window ended, not what was learned."""
        for usual in self._touched:
            usual.count, usual.total = 0, 0.0
        self._touched.clear()
        self._count = self._most = 0
