"""What the steps of sessions have in common: their form, and how they count time."""

from collections.abc import Sequence

from failsoft.exchange import Argument

__all__ = ["Step", "after", "microseconds", "milliseconds", "pairs"]


def microseconds(now: float) -> int:
    return round(now * 1_000_000)


def milliseconds(now: float) -> int:
    # By way of these, since a float may be a little less than the whole number of milliseconds that it stands for.
    return microseconds(now) // 1000


def after(milliseconds: int) -> float:
    """When a key that ends at this time is gone: it is there for the whole of its last millisecond, as on a server."""
    return (milliseconds + 1) / 1000


class Step:
    __slots__ = ("arguments", "keys")

    def __init__(self, key: str, *arguments: Argument) -> None:
        self.keys: Sequence[str] = (key,)
        self.arguments: Sequence[Argument] = arguments

    @property
    def key(self) -> str:
        return self.keys[0]


def pairs(flat: Sequence[bytes]) -> dict[str, bytes]:
    """Names and values, which take turns in `flat`."""
    turns = iter(flat)
    return dict(zip(map(bytes.decode, turns), turns, strict=True))
