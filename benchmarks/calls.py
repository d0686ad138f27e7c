"""The store alone: our flights, other packages' calls, the floor below them. And many at a time on one event loop."""

from collections.abc import Mapping
from typing import Any

from benchmarks import cases
from benchmarks.cases import Case
from benchmarks.report import number, ratio, table
from benchmarks.server import place_of, server
from benchmarks.workers import interleave, say, workers

__all__ = [
    "CONCURRENT_TITLE",
    "FLOOR_TITLE",
    "STORES_TITLE",
    "concurrent_tables",
    "floor_tables",
    "run_concurrent",
    "run_floor",
    "run_stores",
    "stores_tables",
]

CONCURRENT_TITLE = "Many at a time on one event loop"
FLOOR_TITLE = "The floor: one EVALSHA for three limits"
STORES_TITLE = "Our stores: a flight of three limits, and the whole decision"

_MANY = 50


def _measure(wanted: list[Case], label: str, *, short: bool, at_once: tuple[int, ...] = (1,)) -> dict[str, Any]:
    found: dict[str, Any] = {case.name: {} for case in wanted}
    with server() as valkey, workers(wanted, place_of(valkey)) as running:
        for count in at_once:
            say(f"{label}: {len(wanted)} cases, {count} at a time")
            samples = interleave(
                running,
                rounds=1 if short else 20,
                blocks=1 if short else 15 if count == 1 else 4,
                # A turn of 50 tasks takes longer than the usual block.
                seconds=0.002 if count == 1 else 0.01,
                at_once=count,
            )
            for case, sample in samples.items():
                found[case.name] |= {f"cpu {count}": min(sample.cpu), f"wall {count}": min(sample.wall)}
    return found


def run_concurrent(*, short: bool) -> tuple[dict[str, Any], list[str]]:
    """Wall and CPU per request, in µs, one at a time and fifty at a time."""
    return _measure(cases.concurrent(short=short), "async", short=short, at_once=(1, _MANY)), []


def concurrent_tables(found: Mapping[str, Any], *, short: bool) -> str:
    """The figures, for people."""
    parts: list[str] = []
    for framework, title in (
        ("starlette", "Requests to a Starlette application"),
        ("async call", "Calls without a framework"),
    ):
        wanted = [case for case in cases.concurrent(short=short) if case.framework == framework]
        ours = found[next(case.name for case in wanted if case.ours)]
        # A request's wall is compared by what it has more than the bare application's.
        bare = found.get(f"{framework}/bare", {"wall 1": 0.0, "wall 50": 0.0})
        rows = []
        for case in wanted:
            row = found[case.name]
            cells = [case.package, f"{case.store}, {case.option}" if case.option else case.store]
            for count in (1, _MANY):
                own = ours[f"wall {count}"] - bare[f"wall {count}"]
                over = row[f"wall {count}"] - bare[f"wall {count}"]
                times = "" if case.ours or case.package == "bare" else ratio(over, own)
                cells += [number(row[f"wall {count}"]), times]
            rows.append([*cells, number(row[f"cpu {_MANY}"])])
        head = [
            "",
            "store",
            "wall, 1 at a time",
            "times ours",
            f"wall, {_MANY} at a time",
            "times ours",
            f"CPU, {_MANY} at a time",
        ]
        note = " Times ours: of the wall time above the bare application's." if framework == "starlette" else ""
        parts.append(
            f"### {title}\n\nµs for each of 1 or {_MANY} at a time, three limits.{note}\n\n" + table(head, rows)
        )
    return "\n".join(parts)


def run_floor(*, short: bool) -> tuple[dict[str, Any], list[str]]:
    """CPU and wall of a call, in µs."""
    return _measure(cases.floors(short=short), "floor", short=short), []


def floor_tables(found: Mapping[str, Any], *, short: bool) -> str:
    """The figures, for people."""
    rows = [
        [f"{case.package}{', asyncio' if case.asynchronous else ''}", case.store]
        + [number(found[case.name][key]) for key in ("cpu 1", "wall 1")]
        for case in cases.floors(short=short)
    ]
    return table(["", "transport", "client CPU, µs", "wall, µs"], rows)


def run_stores(*, short: bool) -> tuple[dict[str, Any], list[str]]:
    """CPU and wall of a flight and of a decision, in µs."""
    return _measure(cases.stores(short=short), "stores", short=short), []


def stores_tables(found: Mapping[str, Any], *, short: bool) -> str:
    """The figures, for people."""
    rows = [
        [case.option or "flight", "asyncio" if case.asynchronous else "threads", case.store]
        + [number(found[case.name][key]) for key in ("cpu 1", "wall 1")]
        for case in cases.stores(short=short)
    ]
    return table(["", "driver", "store", "CPU, µs", "wall, µs"], rows)
