"""What each algorithm means, in exact arithmetic and without regard to speed: what the operations are held against.

Times are whole milliseconds.
"""

from fractions import Fraction
from typing import Any, Protocol

from failsoft.quota import Quota
from failsoft.ratelimit.penalty import Penalty

__all__ = ["Model", "PenaltyModel", "model_of"]


class Model(Protocol):
    """One quota of one client."""

    def room(self, now: int) -> int:
        """Units that would pass now; below zero if it is overdrawn."""
        ...

    def charge(self, now: int, cost: int) -> Any:
        """Take units, whether there is room or not; gives the window they were taken from."""
        ...

    def refund(self, now: int, window: Any, units: int) -> None:
        """Give units back to the window they were taken from."""
        ...

    def give_back(self, now: int, units: int) -> None:
        """Give back units of what counts now, the newest first."""
        ...


class FixedModel:
    """A window begins with the first request, or at a multiple of its length."""

    def __init__(self, quota: Quota) -> None:
        self.quota = quota
        self.length = quota.window * 1000
        self.used = 0
        self.ends = 0

    def room(self, now: int) -> int:
        return self.quota.amount - (self.used if self.ends > now else 0)

    def charge(self, now: int, cost: int) -> Any:
        if self.ends <= now:
            self.used = 0
            self.ends = (now // self.length + 1) * self.length if self.quota.aligned else now + self.length
        self.used += cost
        return self.ends

    def refund(self, now: int, window: Any, units: int) -> None:
        if now < self.ends == window:
            self.give_back(now, units)

    def give_back(self, now: int, units: int) -> None:
        self.used = max(0, self.used - units)


class GcraModel:
    """A bucket that drains steadily."""

    def __init__(self, quota: Quota) -> None:
        self.quota = quota
        self.emission = Fraction(quota.emission, 1000)
        self.full_at = Fraction(0)

    def room(self, now: int) -> int:
        return int((self.quota.capacity - max(Fraction(0), self.full_at - now) / self.emission) // 1)

    def charge(self, now: int, cost: int) -> Any:
        self.full_at = max(self.full_at, Fraction(now)) + self.emission * cost
        return self.full_at

    def refund(self, now: int, window: Any, units: int) -> None:
        owed = max(Fraction(0), self.full_at - now)
        self.full_at -= min(self.emission * units, max(Fraction(0), window - now), owed)

    def give_back(self, now: int, units: int) -> None:
        self.full_at -= min(self.emission * units, max(Fraction(0), self.full_at - now))


class SlidingModel:
    """Windows follow each other as long as one after the other is used; the last one counts as far as it still reaches."""

    def __init__(self, quota: Quota) -> None:
        self.quota = quota
        self.length = quota.window * 1000
        self.begin = 0
        self.counts: dict[int, int] = {}

    def _window(self, now: int) -> int:
        return (now - self.begin) // self.length

    def room(self, now: int) -> int:
        window = self._window(now)
        if not self.counts or window - max(self.counts) >= 2:
            return self.quota.amount
        covered = self.length - (now - self.begin) % self.length
        last = Fraction(self.counts.get(window - 1, 0) * covered, self.length) // 1
        return self.quota.amount - int(last) - self.counts.get(window, 0)

    def charge(self, now: int, cost: int) -> Any:
        if not self.counts or self._window(now) - max(self.counts) >= 2:
            self.begin, self.counts = now, {}
        window = self._window(now)
        self.counts[window] = self.counts.get(window, 0) + cost
        return self.begin, window

    def refund(self, now: int, window: Any, units: int) -> None:
        begin, number = window
        if begin == self.begin and number == self._window(now) and number in self.counts:
            self.counts[number] = max(0, self.counts[number] - units)

    def give_back(self, now: int, units: int) -> None:
        wanted = min(self.quota.amount - self.room(now), units) if self.counts else 0
        window, room = self._window(now), self.room(now) + wanted
        for number in (window, window - 1):
            while self.room(now) < room and self.counts.get(number):
                self.counts[number] -= 1


class MovingModel:
    """Every unit counts for one window's length."""

    def __init__(self, quota: Quota) -> None:
        self.quota = quota
        self.length = quota.window * 1000
        self.moments: list[int] = []

    def room(self, now: int) -> int:
        return self.quota.amount - sum(moment > now - self.length for moment in self.moments)

    def charge(self, now: int, cost: int) -> Any:
        self.moments += [now] * cost
        # No more are remembered than can pass.
        self.moments = [moment for moment in self.moments if moment > now - self.length][-self.quota.amount :]
        return now

    def refund(self, now: int, window: Any, units: int) -> None:
        for _ in range(min(units, self.moments.count(window))):
            self.moments.remove(window)

    def give_back(self, now: int, units: int) -> None:
        kept = self.moments[: max(0, len(self.moments) - units)]
        self.moments = kept if self.room(now) < self.quota.amount else []


class PenaltyModel:
    """Breaches begin blocks."""

    def __init__(self, penalty: Penalty) -> None:
        within, self.block, growth, self.most, self.forget = penalty.terms.split()
        self.within, self.growth, self.after = int(within), Fraction(float(growth)), penalty.after
        self.breaches: list[int] = []
        self.length = 0
        self.till = 0

    def blocked(self, now: int) -> int:
        """Milliseconds that are left of a block."""
        return max(0, self.till - now)

    def left(self, now: int) -> int:
        """Breaches until the next block."""
        return 0 if self.blocked(now) else self.after - (len(self.breaches) if self._counts(now) else 0)

    def _counts(self, now: int) -> bool:
        return bool(self.breaches) and now < self.breaches[0] + self.within

    def breach(self, now: int, count: int = 1) -> None:
        """Note breaches."""
        if self.blocked(now):
            return
        if not self._counts(now):
            self.breaches = []
        self.breaches += [now] * count
        if len(self.breaches) >= self.after:
            remembered = self.length and now < self.till + int(self.forget)
            self.length = min(int(self.most), int(self.length * self.growth)) if remembered else int(self.block)
            self.till = now + self.length
            self.breaches = []


_MODELS = {
    "fixed-window": FixedModel,
    "gcra": GcraModel,
    "sliding-window-counter": SlidingModel,
    "moving-window": MovingModel,
}


def model_of(quota: Quota) -> Model:
    """The model of `quota`, of a client that was never seen."""
    model: Model = _MODELS[quota.algorithm](quota)
    return model
