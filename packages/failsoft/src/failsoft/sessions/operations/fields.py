"""What is in a record: names, and values as the store has them.

It is no dict, because a request reads few of them: to look two up costs less than to make a dict of 16, by 9 thousand instructions. The
names come in one piece and are taken apart once for all records that have the same, since those of an application have few sets of names.
"""

from collections.abc import Collection, Iterator, Mapping, Sequence
from functools import lru_cache
from typing import Any, Final, Self

__all__ = ["NO_FIELDS", "SEPARATOR", "Fields"]

SEPARATOR: Final = b"\xff"
"""Between names: it is in no UTF-8."""


class Fields(Mapping[str, bytes]):
    """A record's fields. They do not change.

    Args:
        places: of each name, where its value is.
        values: those.
        length: of all names together, in characters.
    """

    # No slots: see `failsoft.exchange.Flight`.

    def __init__(self, places: Mapping[str, int], values: Sequence[bytes], length: int) -> None:
        self._places = places
        self._values = values
        self._length = length

    @classmethod
    def joined(cls, names: bytes, values: Sequence[bytes]) -> Self:
        """Of names with `SEPARATOR` between them. Raises ValueError where one is no text, or has no value."""
        places, length = _known(names) if len(names) <= _LONGEST else _taken_apart(names)
        if len(places) != len(values):
            raise ValueError(f"{len(places)} names of {len(values)} values")
        return cls(places, values, length)

    @classmethod
    def of(cls, fields: Mapping[str, bytes]) -> Self:
        """The same as a mapping."""
        return cls({name: place for place, name in enumerate(fields)}, [*fields.values()], len("".join(fields)))

    def __getitem__(self, name: str) -> bytes:
        return self._values[self._places[name]]

    def get(self, name: str, default: Any = None) -> Any:
        """The value, or `default`. The base's would raise an error first."""
        place = self._places.get(name)
        return default if place is None else self._values[place]

    def __contains__(self, name: object) -> bool:
        return name in self._places

    def __iter__(self) -> Iterator[str]:
        return iter(self._places)

    def __len__(self) -> int:
        return len(self._values)

    def __repr__(self) -> str:
        return f"<Fields {', '.join(self)}>"

    def size(self) -> int:
        """Of all names and values together."""
        # Joined, since to add up their lengths one by one takes 4 thousand instructions more.
        return len(b"".join(self._values)) + self._length

    def updated(self, fields: Mapping[str, bytes], removed: Collection[str]) -> "Fields":
        """With `fields`, and without `removed`."""
        if removed or not fields.keys() <= self._places.keys():
            return Fields.of({name: data for name, data in {**self, **fields}.items() if name not in removed})
        values = [*self._values]
        for name, data in fields.items():
            values[self._places[name]] = data
        return Fields(self._places, values, self._length)


_LONGEST = 1024
"""Bytes of names that are remembered."""


def _taken_apart(names: bytes) -> tuple[Mapping[str, int], int]:
    places = {name.decode(): place for place, name in enumerate(names.split(SEPARATOR))}
    return places, len("".join(places))


_known = lru_cache(1024)(_taken_apart)

NO_FIELDS: Final = Fields({}, (), 0)
