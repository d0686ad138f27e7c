"""What a command found out, for people and for programs.

Names and values may be those of users and of whoever sends requests. What a terminal would act on is printed as an escape.
"""

import json
import os
from collections.abc import Sequence
from dataclasses import asdict
from typing import Any, NamedTuple, Protocol

from failsoft.inspection.limits import LimitInfo

__all__ = ["Out", "Report", "harmless", "limit_data", "path_of", "percent", "place", "span", "write"]


_ESCAPED = {"\x7f": "\\u007f"}
"""What JSON leaves as it is."""


class Out(Protocol):
    """Where to print."""

    def write(self, text: str, /) -> Any:
        """Print `text`."""
        ...


class Report(NamedTuple):
    """The outcome of a command.

    Attributes:
        lines: for people.
        data: for programs: what JSON can say.
        status: the exit status.
    """

    lines: Sequence[str]
    data: Any
    status: int = 0


def write(report: Report, out: Out, *, as_json: bool) -> int:
    """Print `report`. Returns the exit status."""
    lines = json.dumps(report.data, indent=2, ensure_ascii=False).split("\n") if as_json else report.lines
    out.write("".join(harmless(line) + "\n" for line in lines))
    return report.status


def harmless(line: str) -> str:
    """`line` with escapes for what is not to be seen, in the way of JSON."""
    if line.isprintable():
        return line
    return "".join(one if one.isprintable() else _ESCAPED.get(one) or json.dumps(one)[1:-1] for one in line)


def span(seconds: float) -> str:
    """A time in words."""
    if seconds < 100:
        return f"{seconds:.1f} s"
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    days, hours = divmod(hours, 24)
    parts = [(days, "d"), (hours, "h"), (minutes, "min"), (rest, "s")]
    first = next(i for i, (number, _) in enumerate(parts) if number)
    return " ".join(f"{number} {unit}" for number, unit in parts[first : first + 2] if number)


def percent(part: float, whole: float) -> str:
    """A share in words."""
    return f"{100 * part / whole:.0f} %" if whole else "0 %"


def place(where: str | None) -> str:
    """File and line, from the working directory if the file is below it; in parentheses, after a blank. "" for none."""
    if where is None:
        return ""
    below = os.path.join(os.getcwd(), "")
    return f" ({where.removeprefix(below)})"


def path_of(template: str) -> str:
    """A route as a path: Django writes its own without the slash at the beginning, and those that are patterns with ``^``."""
    return template if template.startswith("/") else "/" + template.removeprefix("^")


def limit_data(limit: LimitInfo) -> dict[str, Any]:
    """A limit for programs."""
    return asdict(limit)
