"""The page of the documentation: what was measured goes between marks, and the rest is written by hand.

A part begins with ``<!-- measured: NAME -->`` and ends with ``<!-- measured: end -->``. It is a benchmark's tables, ``machine``, or the
``targets`` of a benchmark.
"""

import re
from collections.abc import Mapping

__all__ = ["marks", "written"]

_PART = re.compile(r"(<!-- measured: (?!end )([\w ]+) -->\n).*?(<!-- measured: end -->)", re.DOTALL)


def marks(page: str) -> list[str]:
    """The names of the parts that `page` has."""
    return [match[2] for match in _PART.finditer(page)]


def written(page: str, parts: Mapping[str, str]) -> str:
    """`page` with `parts` in place of what it had under their names. Parts that it has no marks for are left out."""

    def replace(match: re.Match[str]) -> str:
        part = parts.get(match[2])
        return match[0] if part is None else f"{match[1]}\n{part.strip()}\n\n{match[3]}"

    return _PART.sub(replace, page)
