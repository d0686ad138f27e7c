"""Penalties: who keeps on sending requests that limits refuse is blocked for a while, and for longer each time.

A penalty *guards* limits. Each request that one of them refuses is a *breach*; enough of them within a time begin a *block*,
during which the penalty refuses whatever it is asked about, and notes nothing. The next block is longer, unless the
last one ended so long ago that it is forgotten. Breaches are counted as in a fixed window, from the first one on.
"""

from dataclasses import dataclass
from math import isfinite
from typing import Any

from failsoft.durations import Duration, seconds
from failsoft.errors import ConfigurationError
from failsoft.exchange import Table
from failsoft.ratelimit.meters import Meter, Weight, micros
from failsoft.ratelimit.scripts import BREACHES

__all__ = ["Breaches", "Penalty", "PenaltyMeter"]

_MOST_BREACHES = 10**6
_MOST_GROWTH = 1000.0
_LONGEST = 100 * 360 * 86_400
"""Seconds: as for quotas."""

_State = tuple[int, int, int, int]
"""Breaches so far and when they are forgotten, how long the last block was, and when it ends or ended: milliseconds."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Penalty:
    """What becomes of clients that go on after they were refused.

    Args:
        after: breaches that begin a block, 1 to 10^6.
        within: the time, from the first of them, in which they count: 1 ms to 100 years.
        block: how long the first block is: 1 ms to `most`.
        growth: what each further block is longer by: a factor of 1 to 1000.
        most: how long a block is at most: to 100 years.
        forget: how long after a block the next one would still be longer: 0 to 100 years.

    Raises:
        ConfigurationError: an argument is out of its range.
    """

    after: int = 5
    within: Duration = "1m"
    block: Duration = "1m"
    growth: float = 2.0
    most: Duration = "1h"
    forget: Duration = "1d"

    def __post_init__(self) -> None:
        if isinstance(self.after, bool) or not isinstance(self.after, int) or not 1 <= self.after <= _MOST_BREACHES:
            raise ConfigurationError(f"after={self.after!r}: must be a whole number from 1 to {_MOST_BREACHES}")
        if (
            isinstance(self.growth, bool)
            or not isinstance(self.growth, (int, float))
            or not isfinite(self.growth)
            or not 1 <= self.growth <= _MOST_GROWTH
        ):
            raise ConfigurationError(f"growth={self.growth!r}: must be a number from 1 to {_MOST_GROWTH:g}")
        for name, least in (("within", 0.001), ("block", 0.001), ("most", 0.001), ("forget", 0.0)):
            given = getattr(self, name)
            try:
                length = seconds(given)
            except (TypeError, ValueError) as error:
                raise ConfigurationError(f"{name}={given!r}: {error}; write it as '90s', '5m', '2h' or '1d'") from None
            if not least <= length <= _LONGEST:
                raise ConfigurationError(f"{name}={given!r}: must be from {least:g} s to 100 years ({_LONGEST} s)")
            object.__setattr__(self, name, length)
        object.__setattr__(self, "growth", float(self.growth))
        if seconds(self.block) > seconds(self.most):
            raise ConfigurationError(
                f"block={self.block!r} is longer than most={self.most!r}: raise most, the length of the longest block"
            )

    @property
    def terms(self) -> str:
        """For the scripts: within, block, growth, most and forget, in milliseconds."""
        within, block, most, forget = (_millis(one) for one in (self.within, self.block, self.most, self.forget))
        return f"{within} {block} {self.growth!r} {most} {forget}"

    @property
    def key(self) -> str:
        """What tells this penalty's states from another's."""
        return f"{self.after}p{self.terms.replace(' ', '/')}"


def _millis(length: Duration) -> int:
    return round(seconds(length) * 1000)


class PenaltyMeter(Meter):
    """One penalty in one mode, in a decision. What the decision calls its cost is how many lines before it the penalty guards."""

    __slots__ = ("block", "forget", "growth", "most", "within")

    kind = "p"

    def __init__(self, penalty: Penalty, flags: int = 0) -> None:
        self.growth = penalty.growth
        self.within = _millis(penalty.within)
        self.block = _millis(penalty.block)
        self.most = _millis(penalty.most)
        self.forget = _millis(penalty.forget)
        super().__init__(penalty, penalty.after, penalty.terms, flags)

    def weigh(self, table: Table, key: str, cost: int, now: float) -> Weight:
        """Whether there is no block; breaches that may still happen; milliseconds until the block ends, or the breaches are
        forgotten."""
        now_ms = micros(now) // 1000
        breaches, ends, _, till = self._load(table, key, now, now_ms)
        if till > now_ms:
            return 0, 0, till - now_ms, None
        return 1, self.capacity - breaches, ends - now_ms if breaches else 0, None

    def breach(self, table: Table, key: str, count: int, now: float, *, further: bool = False) -> None:
        """Note `count` breaches, unless there is a block; `further` ones only where there are any."""
        now_ms = micros(now) // 1000
        breaches, ends, length, till = self._load(table, key, now, now_ms)
        if till > now_ms or (further and not breaches):
            return
        if not breaches:
            ends = now_ms + self.within
        breaches += count
        if breaches >= self.capacity:
            length = min(self.most, int(length * self.growth)) if length else self.block
            breaches, ends, till = 0, 0, now_ms + length
        self._set(table, key, (breaches, ends, length, till), now)

    def resume(self, table: Table, key: str, left: int, until: float, said: float, now: float) -> None:
        """Only a block is gone on with; how long it was is not known, so it counts as a first one."""
        if left <= 0 and until > now:
            self._set(table, key, (0, 0, self.block, micros(until) // 1000), now)

    def _load(self, table: Table, key: str, now: float, now_ms: int) -> _State:
        """The state, without what is over."""
        entry = table.find(key, now)
        if entry is None:
            return 0, 0, 0, 0
        breaches, ends, length, till = entry.value
        if ends <= now_ms:
            breaches, ends = 0, 0
        if till + self.forget <= now_ms:
            length, till = 0, 0
        return breaches, ends, length, till

    def _set(self, table: Table, key: str, state: _State, now: float) -> None:
        _, ends, length, till = state
        expires = max(ends, till + self.forget) if length else ends
        table.set(key, state, expires=expires / 1000, now=now, left=till <= micros(now) // 1000)


class Breaches:
    """Note breaches that were decided elsewhere, such as refusals by this process alone.

    The answer is the penalty's row: whether there is no block (1 or 0), breaches that may still happen, and the
    milliseconds until the block ends, or the breaches are forgotten.

    Args:
        key: where the penalty's state lies.
        penalty: the penalty.
        count: breaches, at least 0.
        further: whether there were breaches before these, which the store was told of. Where it has none any more, they were
            forgotten, or somebody let the client in again; then these are, too.
    """

    __slots__ = ("arguments", "count", "further", "keys", "meter")

    script = BREACHES

    def __init__(self, key: str, penalty: Penalty, count: int = 1, *, further: bool = False) -> None:
        self.keys = (key,)
        self.count = count
        self.further = further
        self.meter = PenaltyMeter(penalty)
        self.arguments = (str(penalty.after), penalty.terms, str(count), "1" if further else "0")

    def parse(self, reply: Any) -> list[int]:
        """Three whole numbers, as the script returns them."""
        return reply  # type: ignore[no-any-return]  # the script's own integers

    def apply(self, table: Table, now: float) -> list[int]:
        """The same in this process."""
        if self.count:
            self.meter.breach(table, self.keys[0], self.count, now, further=self.further)
        return list(self.meter.weigh(table, self.keys[0], 0, now)[:3])
