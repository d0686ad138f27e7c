"""Header fields that are not simply put beside those of a response, because the view may have said something else there.

Rules:

- ``Vary`` is one line, for middleware further out may look at the first only, and replace all. A name is there once, in whatever case;
  ``*`` says more than any name (RFC 9110, section 12.5.5).
- ``Cache-Control: private``: what lets a shared cache keep the response goes: ``public``, ``s-maxage``, and a ``private`` that speaks of
  single fields only. Other directives stay (RFC 9111, section 5.2.2).
- ``Cache-Control: no-store`` takes the place of all that the view said.
- All other fields are added as they are.
"""

import re
from collections.abc import Mapping, Sequence
from functools import lru_cache
from typing import Final

__all__ = ["MERGED", "merge", "with_fields"]

MERGED: Final[Mapping[str, str]] = {"Cache-Control": "cache-control", "Vary": "vary"}
"""The fields of which a response has one, as concerns write their names; and in lower case."""

_LOWERED: Final = frozenset(MERGED.values())
_LENGTHS: Final = (*map(len, MERGED),)

_SHARED: Final = frozenset({"private", "public", "s-maxage"})

_LONGEST: Final = 1024
"""Characters of a field that is taken apart with care."""

# What stands between commas; a quoted text may have commas of its own, if it ends.
_ITEM: Final = re.compile(r'(?:[^,"]+|"(?:[^"\\]|\\.)*+"|")+')


@lru_cache(128)  # an application says few things there, and again and again; without, nearly 3 µs
def merge(name: str, value: str, added: str) -> str:
    """What a field says when `added` holds beside `value`.

    Args:
        name: one of `MERGED`, in lower case.
        value: the response's; of several lines, joined with commas.
        added: failsoft's.
    """
    if name == "vary":
        names: dict[str, str] = {}
        for one in (*value.split(","), *added.split(",")):
            if one := one.strip():
                names.setdefault(one.lower(), one)
        return "*" if "*" in names else ", ".join(names.values())
    items, more = _directives(value), _directives(added)
    if "no-store" in more:
        return ", ".join(more)
    against = _SHARED.union(more) if "private" in more else more
    return ", ".join([*(item for item in items if item.partition("=")[0].strip().lower() not in against), *more])


def _directives(value: str) -> list[str]:
    # A quotation mark that does not end is looked for again and again: of a long field, what is quoted is not told apart.
    items = _ITEM.findall(value) if len(value) <= _LONGEST else value.split(",")
    return [item.strip() for item in items if item and not item.isspace()]


def with_fields(headers: Sequence[tuple[str, str]], fields: Sequence[tuple[str, str]]) -> list[tuple[str, str]]:
    """The header fields of a response.

    Args:
        headers: those that it has, in whatever case.
        fields: those that failsoft adds, each of `MERGED` once at most.
    """
    for name, _ in headers:
        if len(name) in _LENGTHS and name.lower() in _LOWERED:  # the first alone takes a third of the time
            return _merged(headers, fields)
    return [*headers, *fields]


def _merged(headers: Sequence[tuple[str, str]], fields: Sequence[tuple[str, str]]) -> list[tuple[str, str]]:
    made = [*headers]
    for field in fields:
        lowered = MERGED.get(field[0])
        places = [place for place, (name, _) in enumerate(made) if name.lower() == lowered]
        if lowered is None or not places:
            made.append(field)
            continue
        first, *others = places
        value = ", ".join([made[place][1] for place in places])
        made[first] = (made[first][0], merge(lowered, value, field[1]))
        for place in reversed(others):
            del made[place]
    return made
