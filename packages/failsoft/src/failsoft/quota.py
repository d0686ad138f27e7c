"""How much, in how long: quotas and the strings that stand for them.

The grammar is that of `limits` ("10/minute", "10 per 2 hours", several separated by ";"), with one addition: "10/second burst 50"
lets 50 pass at once and refills at 10 a second (GCRA). A month is 30 days and a year 360, as in `limits`.

It is read here, for to import `limits` takes as long as to import all of Failsoft, and most applications need nothing else of it.
"""

import re
import sys
from collections.abc import Iterable
from dataclasses import dataclass
from difflib import get_close_matches
from functools import lru_cache
from typing import TYPE_CHECKING, Literal, TypeAlias, TypeGuard, Union

from failsoft.errors import ConfigurationError

if TYPE_CHECKING:
    from limits import RateLimitItem

__all__ = ["ALGORITHMS", "Algorithm", "NoLimit", "Quota", "QuotaLike", "is_item", "parse_quotas"]

Algorithm = Literal["fixed-window", "gcra", "sliding-window-counter", "moving-window"]
ALGORITHMS: tuple[Algorithm, ...] = ("fixed-window", "gcra", "sliding-window-counter", "moving-window")

_RATE = re.compile(r"([0-9]+)\s*(?:/|per)\s*(?:([0-9]+)\s*)?([a-z]+)", re.IGNORECASE)
_BURST = re.compile(r"^(?P<rate>.*\S)\s+burst\s+(?P<burst>\d{1,9})$", re.IGNORECASE)
_SEPARATORS = re.compile(r"[,;|]")
_WORD = re.compile(r"[A-Za-z]+")
_WORDS = ("second", "minute", "hour", "day", "month", "year", "per", "burst")
_SHORT = {"s": "second", "m": "minute", "h": "hour", "d": "day"}
_WRITE = "write '10/minute', '10 per 2 hours', '10/second burst 50', several separated by ';'"
_DAY = 86_400
_UNITS = {"second": 1, "minute": 60, "hour": 3600, "day": _DAY, "month": 30 * _DAY, "year": 360 * _DAY}
_MAX_AMOUNT = 10**12
_MAX_BURST = 10**9
_MAX_GCRA_RATE = 10**6
_MAX_MOVING = 10**4
_LETTERS: dict[Algorithm, str] = {
    "fixed-window": "f",
    "gcra": "g",
    "sliding-window-counter": "s",
    "moving-window": "m",
}
_MAX_WINDOW = 100 * 360 * _DAY
"""100 years. In microseconds, and with the time of day added, still exact in the doubles that Lua counts with."""


class NoLimit(ConfigurationError):
    """Text that is no limit.

    Attributes:
        parts: what of it is not understood; with each the nearest text that is a limit, or None.
    """

    def __init__(self, parts: tuple[tuple[str, str | None], ...]) -> None:
        super().__init__(parts)
        self.parts = parts

    @property
    def meant(self) -> str:
        """What to write instead, as far as that can be guessed; "" where it cannot."""
        near = [repr(near) for _, near in self.parts if near is not None]
        return f"did you mean {' and '.join(near)}?" if near else ""

    def __str__(self) -> str:
        wrong = ", ".join(repr(part) for part, _ in self.parts)
        return f"{wrong} {'is' if len(self.parts) == 1 else 'are'} no limit: {self.meant or _WRITE}"


@dataclass(frozen=True, slots=True, kw_only=True)
class Quota:
    """So many units in a window.

    Args:
        amount: units, 1 to 10^12.
        window: seconds, a whole number from 1 to 100 years.
        algorithm: ``fixed-window`` counts from the first hit and starts anew when the window ends. ``gcra`` (the generic cell rate
            algorithm of ITU-T I.371, a leaky bucket that keeps one number) refills steadily: `amount` in each `window`.
            ``sliding-window-counter`` adds to the present window's count a part of the last one's, as large as the part of it that
            the window before now still covers. ``moving-window`` remembers the moment of each unit, so `amount` is at most 10 000.
        burst: for ``gcra``: units that may pass at once, 1 to 10^9, and refilled within 100 years; by default `amount`.
        aligned: for ``fixed-window``: windows start at multiples of the window since the epoch, not at the first hit. At most a day.
    """

    amount: int
    window: int
    algorithm: Algorithm = "fixed-window"
    burst: int | None = None
    aligned: bool = False

    def __post_init__(self) -> None:
        if self.algorithm not in ALGORITHMS:
            raise ConfigurationError(f"algorithm={self.algorithm!r}: must be one of {', '.join(ALGORITHMS)}")
        for name, value in (("amount", self.amount), ("window", self.window), ("burst", self.burst)):
            if isinstance(value, bool) or (not isinstance(value, int) and (name != "burst" or value is not None)):
                raise ConfigurationError(f"{name}={value!r}: must be a whole number")
        if not 1 <= self.amount <= _MAX_AMOUNT:
            raise ConfigurationError(
                f"{self}: the amount must be 1 to {_MAX_AMOUNT}; to admit nobody, do not route the view"
            )
        if not 1 <= self.window <= _MAX_WINDOW:
            raise ConfigurationError(f"{self}: the window must be one second to 100 years ({_MAX_WINDOW} s)")
        if self.algorithm == "gcra" and self.amount > self.window * _MAX_GCRA_RATE:
            raise ConfigurationError(
                f"{self}: gcra tells at most {_MAX_GCRA_RATE} units a second apart; use fixed-window for a higher rate"
            )
        if self.algorithm == "moving-window" and self.amount > _MAX_MOVING:
            raise ConfigurationError(
                f"{self}: moving-window remembers each unit, {_MAX_MOVING} at most; use sliding-window-counter for more"
            )
        if self.burst is not None and (self.algorithm != "gcra" or not 1 <= self.burst <= _MAX_BURST):
            raise ConfigurationError(f"{self}: burst is 1 to {_MAX_BURST} and belongs to gcra")
        if self.burst is not None and self.burst * self.emission > _MAX_WINDOW * 1_000_000:
            raise ConfigurationError(f"{self}: a burst that takes over 100 years to come back; use a smaller one")
        if self.aligned and (self.algorithm != "fixed-window" or self.window > _DAY):
            raise ConfigurationError(f"{self}: aligned belongs to fixed windows of at most a day")

    @property
    def capacity(self) -> int:
        """Units that can pass at one moment."""
        return self.amount if self.burst is None else self.burst

    @property
    def emission(self) -> int:
        """For gcra: microseconds between two units, rounded up so that no more than `amount` pass in a window."""
        return _emission(self.amount, self.window)

    @property
    def advertised(self) -> tuple[int, int]:
        """Units and seconds, as clients are told: what remains is never more than the units."""
        if self.burst is None:
            return self.amount, self.window
        return self.burst, max(1, -(-self.burst * self.emission // 1_000_000))

    @property
    def key(self) -> str:
        """What tells this quota's counters from another's."""
        letter = "a" if self.aligned else _LETTERS[self.algorithm]
        return f"{self.amount}/{self.window}{letter}{self.burst or ''}"

    @property
    def name(self) -> str:
        """What clients see, such as ``10-per-minute``."""
        for unit, seconds in (("day", _DAY), ("hour", 3600), ("minute", 60), ("second", 1)):
            if self.window % seconds == 0:
                count = self.window // seconds
                return f"{self.amount}-per-{unit}" if count == 1 else f"{self.amount}-per-{count}-{unit}s"
        raise AssertionError("every whole number of seconds is a multiple of one second")

    def share(self, part: float) -> "Quota":
        """This quota for one of several processes: `part` (0 to 1) of the units, at least one."""
        amount, burst = max(1, int(self.amount * part)), None
        if self.burst is not None:
            # Rounded down, the amount takes up to twice as long to fill the burst.
            burst = max(1, min(int(self.burst * part), _MAX_WINDOW * 1_000_000 // _emission(amount, self.window)))
        return Quota(amount=amount, window=self.window, algorithm=self.algorithm, burst=burst, aligned=self.aligned)

    def __str__(self) -> str:
        burst = f" burst {self.burst}" if self.burst is not None else ""
        return f"{self.amount} per {self.window} s{burst}"


def _emission(amount: int, window: int) -> int:
    return -(-window * 1_000_000 // amount)


QuotaLike: TypeAlias = Union[str, Quota, "RateLimitItem"]
"""What users may write for a quota; a string may hold several."""


def is_item(given: object) -> TypeGuard["RateLimitItem"]:
    """Whether `given` is an item of `limits`, which whoever has one has imported."""
    return isinstance(given, getattr(sys.modules.get("limits"), "RateLimitItem", ()))


def parse_quotas(
    given: QuotaLike | Iterable[QuotaLike], *, algorithm: Algorithm = "fixed-window", aligned: bool = False
) -> tuple[Quota, ...]:
    """The quotas that `given` stands for, in its order, each once.

    Raises:
        ConfigurationError: it is not understood; the message says what is. A `NoLimit`, where a text is not.
    """
    if isinstance(given, str):
        return _parse_text(given, algorithm, aligned)
    if isinstance(given, Quota):
        return (given,)
    if is_item(given):
        return (_quota(given.amount, given.get_expiry(), algorithm, aligned, None),)
    if isinstance(given, Iterable):
        found = [quota for one in given for quota in parse_quotas(one, algorithm=algorithm, aligned=aligned)]
        return tuple(dict.fromkeys(found))
    raise ConfigurationError(
        f"{given!r} is no limit: give a string such as '10/minute; 200 per day', or an item of `limits`"
    )


@lru_cache(maxsize=1024)  # a string takes 10 µs, and a dynamic limit gives one with each request
def _parse_text(text: str, algorithm: Algorithm, aligned: bool) -> tuple[Quota, ...]:
    found: list[Quota] = []
    wrong: list[str] = []
    for part in filter(None, (part.strip() for part in _SEPARATORS.split(text))):
        said = _parse_part(part)
        if said is None:
            wrong.append(part)
        elif not wrong:
            amount, window, burst = said
            found.append(_quota(amount, window, "gcra" if burst is not None else algorithm, aligned, burst))
    if wrong:
        raise NoLimit(tuple((part, _nearest(part)) for part in wrong))
    if not found:
        raise ConfigurationError(f"{text!r} holds no limit: write one, such as '10/minute', or leave the setting out")
    return tuple(dict.fromkeys(found))


def _parse_part(part: str) -> tuple[int, int, int | None] | None:
    """What one part of a text says: an amount, a window and a burst; None where it says nothing."""
    rate, burst = part, None
    if match := _BURST.match(part):
        rate, burst = match["rate"], int(match["burst"])
    match = _RATE.fullmatch(rate.strip())
    seconds = None if match is None else _UNITS.get(match[3].lower().removesuffix("s"))
    if match is None or seconds is None:
        return None
    try:
        return int(match[1]), seconds * (int(match[2] or 0) or 1), burst
    except ValueError:  # more digits than Python reads
        return None


def _nearest(part: str) -> str | None:
    """`part` with each word as it is most likely meant, if that is a limit."""

    def meant(word: re.Match[str]) -> str:
        given = word[0].lower()
        if given.rstrip("s") in _WORDS:
            return given
        return _SHORT.get(given) or next(iter(get_close_matches(given, _WORDS, n=1)), given)

    found = _WORD.sub(meant, part[:80])
    return None if _parse_part(found) is None else found


def _quota(amount: int, window: int, algorithm: Algorithm, aligned: bool, burst: int | None) -> Quota:
    return Quota(
        amount=amount,
        window=window,
        algorithm=algorithm,
        burst=burst,
        # The setting asks for alignment where it means something; a longer window counts from its first hit.
        aligned=aligned and algorithm == "fixed-window" and window <= _DAY,
    )
