"""Lengths of time, as people write them.

A duration is seconds as a float everywhere inside failsoft. Users may also write ``"250ms"``, ``"10s"``, ``"5m"``,
``"2h"``, ``"14d"`` or a `timedelta`; text without a unit is seconds. Units are lower case, because ``M`` reads as
months to some and as minutes to others. One number and one unit: ``"1h30m"`` is ``"90m"``.
"""

import re
from datetime import timedelta
from math import isfinite

__all__ = ["Duration", "seconds", "spell"]

Duration = float | str | timedelta
"""What a user may write for a length of time."""

_UNITS = {"d": 86_400.0, "h": 3_600.0, "m": 60.0, "s": 1.0, "ms": 0.001}
"""Seconds in a unit, longest first."""

_TEXT = re.compile(r"([0-9]{1,20}(?:\.[0-9]{1,20})?(?:e[+-]?[0-9]{1,3})?) ?(ms|[smhd])?", re.ASCII)


def seconds(value: object) -> float:
    """The seconds that `value` stands for.

    Args:
        value: a `Duration`. A number, and text without a unit, is seconds.

    Raises:
        TypeError: it is no number, text or `timedelta` (True and False are no numbers).
        ValueError: it is negative, infinite or not a number, or the text says no duration.
    """
    if isinstance(value, timedelta):
        length = value.total_seconds()
    elif isinstance(value, str):
        length = _read(value)
    elif isinstance(value, (int, float)) and not isinstance(value, bool):
        try:
            length = float(value)
        except OverflowError:
            raise ValueError("too long for a duration") from None
    else:
        raise TypeError("not a duration")
    if not isfinite(length):
        raise ValueError("a duration must be finite")
    if length < 0:
        raise ValueError("a duration cannot be negative")
    return length


def spell(length: float) -> str:
    """The shortest text with one unit that `seconds` reads back as exactly `length` (seconds, finite, 0 or more)."""
    for unit, size in _UNITS.items():
        count = length / size
        if 1 <= count < 1e15 and count == int(count) and _value(str(int(count)), unit) == length:
            return f"{int(count)}{unit}"
    return f"{length!r}s" if length else "0s"


def _read(text: str) -> float:
    match = _TEXT.fullmatch(text.strip())
    if match is None:
        raise ValueError("not a duration")
    return _value(match[1], match[2] or "s")


def _value(number: str, unit: str) -> float:
    # Dividing keeps "100ms" equal to 0.1; multiplying by 0.001 would not for every number.
    return float(number) / 1000 if unit == "ms" else float(number) * _UNITS[unit]
