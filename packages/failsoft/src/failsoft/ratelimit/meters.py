"""How each algorithm measures and charges, when the store is this process.

`scripts` is the same for servers and says what the algorithms are; both give the same numbers for the same history. The states
here are the table's own affair, one entry for each limit:

- fixed window: the count; the entry expires when the window ends
- GCRA: the theoretical arrival time, in microseconds since the epoch
- sliding window counter: the previous window's count, the present one's, and when that ends, in milliseconds since the epoch
- moving window: the moments at which units were taken, in microseconds since the epoch, the oldest first

A *stamp* names the window that was charged, so that a refund finds it: its end in milliseconds (fixed and sliding), the new
theoretical arrival time in microseconds (GCRA), the moment in microseconds (moving).
"""

from array import array
from bisect import bisect_left, bisect_right
from collections.abc import Sequence
from math import ceil
from typing import Any

from failsoft.exchange import Table
from failsoft.quota import Quota

__all__ = ["ALIGNED", "PEEK", "SOFT", "Meter", "Weight", "meter_of", "micros", "previous_key", "uncharged"]

ALIGNED = 1
"""Flag: windows end at multiples of their length. Taken from the quota."""

SOFT = 2
"""Mode: the limit never makes a decision fail, and is charged only if it fits itself."""

PEEK = 4
"""Mode: the limit says whether its cost fits, but is not charged."""

_DEBT = 100 * 360 * 86_400 * 1_000_000
"""Microseconds of GCRA's longest debt: what is owed beyond 100 years could not be counted exactly."""

_SAME_WINDOW = 2
"""Milliseconds that two readings of one window's end may differ by: a server's clock and its keys' lives are read separately."""

Weight = tuple[int, int, int, Any]
"""Whether a cost fits; the units that remain if it is charged (or are there if it does not fit); the milliseconds until there are
more (or until it fits); and what `Meter.charge` wants to know."""


def micros(now: float) -> int:
    """`now` in whole microseconds, without the noise of floats of this size."""
    return int(now * 1_000_000 + 0.5)


def previous_key(key: str) -> str:
    """The second key of a sliding window, named from the first as `limits` does. On a Redis Cluster both lie in one slot:
    a key without a hash tag becomes its own."""
    tag = key.find("{")
    return key + "/-1" if tag >= 0 and key.find("}", tag) > tag + 1 else "{" + key + "}/-1"


def uncharged(rows: list[int], place: int, cost: int, meter: "Meter") -> None:
    """Correct the row at `place` of a limit that fitted and was not charged after all."""
    row = place * 3
    rows[row + 1] += cost
    if rows[row + 1] >= meter.capacity and meter.kind != "f":
        rows[row + 2] = 0


class Meter:
    """One quota in one mode: what deciding about it takes, worked out once. Reading it off the quota costs 1 µs a request.

    Attributes:
        capacity: units that can pass at one moment.
        plain: the same for a fixed window without modes, the usual case; else 0.
        rule: the quota, or for a penalty's meter the penalty.
        lean: whether the lean script knows it: a fixed window or GCRA without modes.
        second: whether it has a second key, `previous_key`.
        arguments: kind, capacity, unit and flags, for the scripts.
    """

    __slots__ = ("arguments", "capacity", "lean", "peek", "plain", "rule", "soft")

    kind = ""
    second = False

    def __init__(self, rule: Any, capacity: int, unit: int | str, flags: int) -> None:
        self.rule = rule
        self.capacity = capacity
        self.soft = bool(flags & SOFT)
        self.peek = bool(flags & PEEK)
        self.lean = flags <= ALIGNED and self.kind in ("f", "g")
        self.plain = capacity if self.lean and self.kind == "f" else 0
        self.arguments = (self.kind, str(capacity), str(unit), str(flags))

    def __eq__(self, other: object) -> bool:
        return self.arguments == other.arguments if isinstance(other, Meter) else NotImplemented

    def __hash__(self) -> int:
        return hash(self.arguments)

    def weigh(self, table: Table, key: str, cost: int, now: float) -> Weight:
        """What charging `cost` would come to. Writes nothing."""
        raise NotImplementedError

    def charge(self, table: Table, key: str, cost: int, now: float, state: Any) -> int:
        """Charge without a check; `state` is what `weigh` gave last. Returns the stamp."""
        raise NotImplementedError

    def refund(self, table: Table, key: str, units: int, stamp: int, now: float) -> None:
        """Give back what was charged at `stamp`, as far as it still counts there."""
        raise NotImplementedError

    def give_back(self, table: Table, key: str, units: int, now: float) -> None:
        """Give back what counts now, the newest first."""
        raise NotImplementedError

    def resume(self, table: Table, key: str, left: int, until: float, said: float, now: float) -> None:
        """Begin with what a store said at `said`: `left` units remain, and there are more at `until`. What was taken
        comes back steadily, unless the algorithm says otherwise."""
        raise NotImplementedError


class _Fixed(Meter):
    __slots__ = ("aligned", "window")

    kind = "f"

    def __init__(self, quota: Quota, flags: int) -> None:
        self.window = quota.window
        self.aligned = quota.aligned
        super().__init__(quota, quota.amount, quota.window * 1000, flags)

    def weigh(self, table: Table, key: str, cost: int, now: float) -> Weight:
        entry = table.find(key, now)
        reset = 0 if entry is None else self._left(entry.expires, now)
        if entry is not None and reset > 0:
            used, ends = entry.value, entry.expires
        else:
            entry = None
            used, ends = 0, self._aligned_end(now) if self.aligned else now + self.window
            reset = self._left(ends, now)
        rest = self.capacity - used - cost
        if rest >= 0:
            return 1, rest, reset, (entry, used, ends)
        return 0, max(0, rest + cost), reset, (entry, used, ends)

    def charge(self, table: Table, key: str, cost: int, now: float, state: Any) -> int:
        entry, used, ends = state
        used += cost
        if entry is not None and used < self.capacity:  # the usual case: 0.2 µs instead of 1
            entry.value = used
        else:
            table.set(key, used, expires=ends, now=now, left=self.capacity - used)
        return int(ends * 1000 + 0.5)

    def refund(self, table: Table, key: str, units: int, stamp: int, now: float) -> None:
        entry = table.find(key, now)
        if entry is not None and abs(int(entry.expires * 1000 + 0.5) - stamp) <= _SAME_WINDOW:
            self.give_back(table, key, units, now)

    def give_back(self, table: Table, key: str, units: int, now: float) -> None:
        entry = table.find(key, now)
        if entry is not None and self._left(entry.expires, now) > 0:
            used = max(0, entry.value - units)
            table.set(key, used, expires=entry.expires, now=now, left=self.capacity - used)

    def resume(self, table: Table, key: str, left: int, until: float, said: float, now: float) -> None:
        if until > now:
            table.set(key, self.capacity - left, expires=until, now=now, left=left)

    @staticmethod
    def _left(ends: float, now: float) -> int:
        """Milliseconds, rounded up but for the noise that the difference of two large floats carries."""
        return ceil((ends - now) * 1000 - 0.001)

    def _aligned_end(self, now: float) -> float:
        window, now_ms = self.window * 1000, micros(now) // 1000
        return (now_ms + window - now_ms % window) / 1000


class _Gcra(Meter):
    __slots__ = ("emission",)

    kind = "g"

    def __init__(self, quota: Quota, flags: int) -> None:
        self.emission = quota.emission
        super().__init__(quota, quota.capacity, quota.emission, flags)

    def weigh(self, table: Table, key: str, cost: int, now: float) -> Weight:
        now_us, emission, capacity = int(now * 1_000_000 + 0.5), self.emission, self.capacity
        entry = table.find(key, now)
        full_at = now_us
        if entry is not None and entry.value > now_us:
            full_at = entry.value
        full_at += emission * cost
        room = now_us + emission * capacity - full_at
        rest = room // emission
        if room < 0:
            return 0, max(0, rest + cost), -(room // 1000), (full_at, now_us, rest)
        return 1, rest, -((room - (rest + 1) * emission) // 1000) if rest < capacity else 0, (full_at, now_us, rest)

    def charge(self, table: Table, key: str, cost: int, now: float, state: Any) -> int:
        wanted, now_us, rest = state
        full_at: int = min(wanted, now_us + _DEBT)
        table.set(key, full_at, expires=full_at / 1_000_000, now=now, left=rest)
        return full_at

    def refund(self, table: Table, key: str, units: int, stamp: int, now: float) -> None:
        self._take(table, key, min(self.emission * units, max(0, stamp - micros(now))), now)

    def give_back(self, table: Table, key: str, units: int, now: float) -> None:
        self._take(table, key, self.emission * units, now)

    def _take(self, table: Table, key: str, back: int, now: float) -> None:
        """Make the bucket full `back` microseconds earlier."""
        now_us = micros(now)
        entry = table.find(key, now)
        if entry is None:
            return
        if back >= entry.value - now_us:
            table.delete(key)
        elif back > 0:
            self._set(table, key, entry.value - back, now, now_us)

    def resume(self, table: Table, key: str, left: int, until: float, said: float, now: float) -> None:
        if left < self.capacity:
            self._set(table, key, micros(said) + (self.capacity - left) * self.emission, now, micros(now))

    def _set(self, table: Table, key: str, full_at: int, now: float, now_us: int) -> None:
        left = self.capacity - -(-(full_at - now_us) // self.emission)
        table.set(key, full_at, expires=full_at / 1_000_000, now=now, left=left)


class _Sliding(Meter):
    __slots__ = ("window",)

    kind = "s"
    second = True

    def __init__(self, quota: Quota, flags: int) -> None:
        self.window = quota.window * 1000
        super().__init__(quota, quota.amount, self.window, flags)

    def weigh(self, table: Table, key: str, cost: int, now: float) -> Weight:
        previous, current, left = self._load(table, key, now)
        taken = self._taken(previous, current, left)
        rest = self.capacity - taken - cost
        state = (previous, current, left, rest)
        if rest < 0:
            target = max(0, self.capacity - cost)
            reset = self._drained(previous, current, left, target) if taken > target else self.window
            return 0, max(0, rest + cost), reset, state
        reset = self._drained(previous, current + cost, left, taken + cost - 1) if taken + cost else 0
        return 1, rest, reset, state

    def charge(self, table: Table, key: str, cost: int, now: float, state: Any) -> int:
        previous, current, left, rest = state
        return self._set(table, key, previous, current + cost, micros(now) // 1000 + left, now, rest)

    def refund(self, table: Table, key: str, units: int, stamp: int, now: float) -> None:
        entry = table.find(key, now)
        if entry is None:
            return
        previous, current, ends = entry.value
        left = ends - micros(now) // 1000
        if left > 0 and abs(ends - stamp) <= _SAME_WINDOW:
            current = max(0, current - units)
            rest = self.capacity - self._taken(previous, current, left)
            self._set(table, key, previous, current, ends, now, rest)

    def give_back(self, table: Table, key: str, units: int, now: float) -> None:
        if table.find(key, now) is None:
            return
        previous, current, left = self._load(table, key, now)
        back = min(units, current)
        current -= back
        rest, counted = units - back, self._taken(previous, 0, left)
        if rest:
            kept = ceil(float(counted - rest + 1) * self.window / left) - 1 if rest < counted else 0
            previous = min(previous, kept)
        rest = self.capacity - self._taken(previous, current, left)
        self._set(table, key, previous, current, micros(now) // 1000 + left, now, rest)

    def resume(self, table: Table, key: str, left: int, until: float, said: float, now: float) -> None:
        # Of a window that begins to be over, the first unit comes back at once: so let it be over when that was said to be.
        ends = min(micros(until), micros(said) + self.window * 1000) // 1000 + self.window
        if ends > micros(now) // 1000:
            self._set(table, key, self.capacity - left, 0, ends, now, left)

    def _load(self, table: Table, key: str, now: float) -> tuple[int, int, int]:
        """The previous window's count, the present one's, and how long that lasts."""
        entry = table.find(key, now)
        if entry is None:
            return 0, 0, self.window
        previous, current, ends = entry.value
        left = ends - micros(now) // 1000
        if left > 0:
            return previous, current, min(left, self.window)  # more only where `resume` began
        return (current, 0, left + self.window) if left > -self.window else (0, 0, self.window)

    def _set(self, table: Table, key: str, previous: int, current: int, ends: int, now: float, rest: int) -> int:
        table.set(key, (previous, current, ends), expires=(ends + self.window) / 1000, now=now, left=rest)
        return ends

    def _taken(self, previous: int, current: int, left: int) -> int:
        return int(float(previous) * left / self.window) + current  # in floats, as the server counts

    def _drained(self, previous: int, current: int, left: int, target: int) -> int:
        """Milliseconds until at most `target` units count."""
        if target >= current:
            return left - ceil(float(target - current + 1) * self.window / previous) + 1
        return left + self.window - ceil(float(target + 1) * self.window / current) + 1


class _Moving(Meter):
    __slots__ = ("window",)

    kind = "m"

    def __init__(self, quota: Quota, flags: int) -> None:
        self.window = quota.window * 1_000_000
        super().__init__(quota, quota.amount, quota.window * 1000, flags)

    def weigh(self, table: Table, key: str, cost: int, now: float) -> Weight:
        now_us, window = micros(now), self.window
        entry = table.find(key, now)
        moments: Sequence[int] = () if entry is None else entry.value
        over = bisect_right(moments, now_us - window)
        taken = len(moments) - over
        rest = self.capacity - taken - cost
        if rest >= 0:
            oldest = moments[over] if taken else now_us
            return 1, rest, -((now_us - oldest - window) // 1000) if taken + cost else 0, (entry, over)
        target = max(0, self.capacity - cost)
        blocking = moments[-1 - target] if taken > target else now_us
        return 0, max(0, rest + cost), -((now_us - blocking - window) // 1000), (entry, over)

    def charge(self, table: Table, key: str, cost: int, now: float, state: Any) -> int:
        entry, over = state
        now_us = micros(now)
        cost = min(cost, self.capacity)
        if cost:
            moments = array("q") if entry is None else entry.value
            del moments[: max(over, len(moments) + cost - self.capacity)]
            place = bisect_right(moments, now_us)  # the end, unless the clock was set back
            moments[place:place] = array("q", [now_us]) * cost
            self._set(table, key, moments, now)
        return now_us

    def refund(self, table: Table, key: str, units: int, stamp: int, now: float) -> None:
        entry = table.find(key, now)
        if entry is None:
            return
        moments = entry.value
        first = bisect_left(moments, stamp)
        self._forget(table, key, first, min(first + units, bisect_right(moments, stamp)), now)

    def give_back(self, table: Table, key: str, units: int, now: float) -> None:
        entry = table.find(key, now)
        if entry is not None:
            size = len(entry.value)
            over = bisect_right(entry.value, micros(now) - self.window)
            self._forget(table, key, max(over, size - units), size, now)

    def _forget(self, table: Table, key: str, first: int, end: int, now: float) -> None:
        """Forget the moments from `first` to before `end`."""
        entry = table.find(key, now)
        if entry is None:
            return
        moments = entry.value
        del moments[first:end]
        if moments:
            table.set(key, moments, expires=entry.expires, now=now, left=self.capacity - len(moments))
        else:
            table.delete(key)

    def resume(self, table: Table, key: str, left: int, until: float, said: float, now: float) -> None:
        taken, last = self.capacity - left, micros(said)
        first = min(last, micros(until) - self.window)
        moments = array("q", [first + (last - first) * i // taken for i in range(taken)])
        if taken and last + self.window > micros(now):
            self._set(table, key, moments, now)

    def _set(self, table: Table, key: str, moments: "array[int]", now: float) -> None:
        expires = (moments[-1] + self.window) / 1_000_000
        table.set(key, moments, expires=expires, now=now, left=self.capacity - len(moments))


_METERS = {
    "fixed-window": _Fixed,
    "gcra": _Gcra,
    "sliding-window-counter": _Sliding,
    "moving-window": _Moving,
}


def meter_of(quota: Quota, mode: int = 0) -> Meter:
    """The meter of `quota`; `mode` is a sum of `SOFT` and `PEEK`."""
    return _METERS[quota.algorithm](quota, mode | (ALIGNED if quota.aligned else 0))
