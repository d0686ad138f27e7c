"""The project's targets, and which of them a run met."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple

from benchmarks import cases
from benchmarks.cases import FLOOR, FRAMEWORKS, OURS, ROLLING, SIGNED, Case, Framework, State
from benchmarks.outage import MODES
from benchmarks.report import number

__all__ = ["checklist"]


class Target(NamedTuple):
    """One promise, and the figures it is judged by."""

    text: str
    figures: str
    met: bool


_OWN_LIMITER: Mapping[Framework, str] = {
    "flask": "flask-limiter",
    "django-wsgi": "django-ratelimit",
    "django-asgi": "django-ratelimit",
    "starlette": "slowapi",
    "fastapi": "slowapi",
}
_TRIPS: Sequence[tuple[State, tuple[int, int]]] = (
    ("anonymous", (0, 1)),
    ("untouched", (1, 1)),
    ("read", (1, 1)),
    ("write", (2, 2)),
)
"""At most, for the session alone and with limits."""
_DEADLINE = 100.0
_SLACK = 25.0
"""Milliseconds that a request may take longer than its deadline."""
_STALL = 10.0
"""Milliseconds that the event loop may stand still."""


def checklist(figures: Mapping[str, Any]) -> dict[str, str]:
    """By benchmark, of those whose figures are there: a line for each target."""
    judges: dict[str, Callable[[Any], Iterator[Target]]] = {
        "tax": _tax,
        "sessions": _sessions,
        "async": _concurrent,
        "stores": _stores,
        "outage": _outage,
    }
    return {
        name: "".join(
            f"- [{'x' if target.met else ' '}] {target.text}: {target.figures}\n" for target in judge(figures[name])
        )
        for name, judge in judges.items()
        if name in figures
    }


def _tax(found: Mapping[str, Any]) -> Iterator[Target]:
    def tax(framework: Framework, package: str, store: Any = "tcp") -> float:
        return float(found[Case(framework, package, store, 3).name]["tax"])

    for framework, package in _OWN_LIMITER.items():
        ours, peer = tax(framework, OURS), tax(framework, package)
        yield Target(
            f"{framework}: three limits on Redis with header fields cost at most a third of {package}",
            f"{number(ours)} µs and {number(peer)} µs, {peer / ours:.1f} times",
            ours <= peer / 3,
        )
    for framework in ("flask", "django-wsgi", "starlette"):
        ours, peer = tax(framework, OURS), tax(framework, "pyrate-limiter")
        yield Target(
            f"{framework}: the same costs no more than pyrate-limiter, which sends no header fields",
            f"{number(ours)} µs and {number(peer)} µs",
            ours <= peer,
        )
    for framework, package in _OWN_LIMITER.items():
        ours, peer = tax(framework, OURS, "memory"), tax(framework, package, "memory")
        yield Target(
            f"{framework}: three limits in memory cost at most a third of {package}, and under 30 µs",
            f"{number(ours)} µs and {number(peer)} µs, {peer / ours:.1f} times",
            ours <= peer / 3 and ours < 30,
        )
    own = Case("django-asgi", OURS, "tcp", 3)
    hops, bare = found[own.name]["hops"], found[own.bare.name]["hops"]
    yield Target(
        "django-asgi: no change of threads of our own", f"{hops:g} and {bare:g} without failsoft", hops == bare
    )
    counted = {name: row["trips"] for name, row in found.items() if f"/{OURS}/tcp/3" in name}
    yield Target(
        "one round trip for three limits and header fields",
        ", ".join(sorted({f"{trips:.1f}" for trips in counted.values()})),
        all(round(trips, 1) == 1 for trips in counted.values()),
    )


def _sessions(found: Mapping[str, Any]) -> Iterator[Target]:
    for framework in FRAMEWORKS:
        read, write = (float(found[_session(framework, 0, state).name]["tax"]) for state in ("read", "write"))
        name, peer = _best(found, framework, "read")
        yield Target(
            f"{framework}: a read with rolling expiry costs at most two thirds of the best package that rolls",
            f"{number(read)} µs and {number(peer)} µs ({name}), {read / peer:.0%}",
            read <= peer * 2 / 3,
        )
        name, peer = _best(found, framework, "write")
        yield Target(
            f"{framework}: a write costs at most half of the best package's",
            f"{number(write)} µs and {number(peer)} µs ({name}), {write / peer:.0%}",
            write <= peer / 2,
        )
        limits = float(found[Case(framework, OURS, "tcp", 3).name]["tax"])
        both = float(found[_session(framework, 3, "read").name]["tax"])
        yield Target(
            f"{framework}: a read adds at most 30 % to three limits alone",
            f"{number(both)} µs and {number(limits)} µs, {both / limits - 1:+.0%}",
            both <= limits * 1.3,
        )
    for state, trips in _TRIPS:
        counted = {
            limits: {round(found[_session(framework, limits, state).name]["trips"], 1) for framework in FRAMEWORKS}
            for limits in (0, 3)
        }
        yield Target(
            f"session {state}: round trips at most {trips[0]}, {trips[1]} together with three limits",
            "; ".join(", ".join(f"{count:g}" for count in sorted(counts)) for counts in counted.values()),
            all(max(counted[limits]) <= most for limits, most in zip((0, 3), trips, strict=True)),
        )


def _session(framework: Framework, limits: int, state: State) -> Case:
    return Case(framework, OURS, "tcp", limits, session=state)


def _best(found: Mapping[str, Any], framework: Framework, state: State) -> tuple[str, float]:
    """The package, other than ours, that does it for the least; for reads, of those that roll."""
    peers = {
        case.package + (f", {case.option}" if case.option else ""): float(found[case.name]["tax"])
        for case in cases.sessions()
        if case.framework == framework
        and case.session == state
        and case.package not in (OURS, SIGNED, FLOOR)
        and (state != "read" or (case.package, case.option) in ROLLING)
    }
    name = min(peers, key=lambda one: peers[one])
    return name, peers[name]


def _concurrent(found: Mapping[str, Any]) -> Iterator[Target]:
    for framework in ("starlette", "async call"):
        bare = found.get(f"{framework}/bare", {"wall 50": 0.0})["wall 50"]
        own = found[f"{framework}/{OURS}/tcp/3"]["wall 50"] - bare
        peers = {
            name.split("/")[1]: row["wall 50"] - bare
            for name, row in found.items()
            if name.startswith(f"{framework}/") and f"/{OURS}/" not in name and not name.endswith("/bare")
        }
        best = min(peers, key=lambda name: peers[name])
        yield Target(
            f"{framework}: fifty at a time take at most a fifth of the best peer's time",
            f"{number(own)} µs and {number(peers[best])} µs ({best}), {peers[best] / own:.1f} times",
            own <= peers[best] / 5,
        )
        leased = found[f"{framework}/{OURS}/tcp/3/lease"]["wall 50"] - bare
        yield Target(
            f"{framework}: with leases, fifty at a time take at most a tenth of the best peer's time",
            f"{number(leased)} µs and {number(peers[best])} µs ({best}), {peers[best] / leased:.1f} times",
            leased <= peers[best] / 10,
        )


def _stores(found: Mapping[str, Any]) -> Iterator[Target]:
    cost = found[Case("call", OURS, "tcp", 3, "refusal").name]["cpu 1"]
    yield Target("a remembered refusal costs under 30 µs of CPU", f"{number(cost)} µs", cost < 30)


def _outage(found: Mapping[str, Any]) -> Iterator[Target]:
    for mode, rows in found.items():
        ours = {label: row for label, row in rows.items() if label.endswith(OURS)}
        longest = max(row["longest"] for row in ours.values())
        yield Target(
            f"server {mode}: no request takes longer than {_DEADLINE:g} ms and {_SLACK:g} ms for all but waiting",
            f"{number(longest)} ms",
            longest <= _DEADLINE + _SLACK,
        )
        statuses = {what for row in ours.values() for what in row["seen"]}
        yield Target(
            f"server {mode}: every request is answered with 200", ", ".join(sorted(statuses)), statuses == {"200"}
        )
        stalls = [row["stall"] for row in ours.values() if row["stall"] is not None]
        yield Target(
            f"server {mode}: the event loop stands still for at most {_STALL:g} ms",
            f"{number(max(stalls))} ms",
            max(stalls) <= _STALL,
        )
        backs = [row["back"] for row in ours.values()]
        promised = MODES[mode].back
        yield Target(
            f"server {mode}: used again at most {promised:,.0f} ms after it is back",
            ", ".join(f"{number(back)} ms" if back is not None else "never" for back in backs),
            all(back is not None and back <= promised for back in backs),
        )
