"""What a request with a session costs more than with the bare framework, and more than limits alone: CPU, round trips."""

from collections.abc import Mapping
from statistics import median
from typing import Any

from benchmarks import cases
from benchmarks.cases import FRAMEWORKS, OURS, STATES, Case, Framework, State
from benchmarks.report import number, ratio, table
from benchmarks.server import place_of, round_trips, server, wrong_counts
from benchmarks.tax import hops_of, wrong_hops
from benchmarks.workers import interleave, say, workers

__all__ = ["TITLE", "run", "tables"]

TITLE = "Sessions: CPU per request over the bare framework"


def run(*, short: bool) -> tuple[dict[str, Any], list[str]]:
    """Measure. Returns figures by case, in µs, and what of the counts is not as it must be."""
    found: dict[str, Any] = {}
    wrong: list[str] = []
    wanted = cases.sessions(short=short)
    with server() as valkey:
        place = place_of(valkey)
        for framework in FRAMEWORKS:
            some = [case for case in wanted if case.framework == framework]
            with workers(some, place) as running:
                say(f"sessions: {framework}, {len(some)} cases")
                counted = {case: round_trips(valkey, worker) for case, worker in running.items()}
                hops = hops_of(running) if framework == "django-asgi" else {}
                samples = interleave(running, rounds=1 if short else 20, blocks=1 if short else 15)
            for case, sample in samples.items():
                least = min(sample.cpu)
                found[case.name] = {
                    "cpu": least,
                    "tax": least - min(samples[case.bare].cpu),
                    "trips": counted[case],
                    "spread": sample.spread,
                }
            wrong += wrong_counts(counted) + wrong_hops(hops)
    return found, wrong


def tables(found: Mapping[str, Any], *, short: bool) -> str:
    """The figures, for people."""
    parts = [_table(found, framework, short) for framework in FRAMEWORKS]
    spread = median(row["spread"] for row in found.values())
    parts.append(
        f"The figures of a case's first half and of its second differ by {spread:.1%} (median of all cases).\n"
    )
    return "\n".join(parts)


def _table(found: Mapping[str, Any], framework: Framework, short: bool) -> str:
    alone = Case(framework, OURS, "tcp", 3)
    seen: dict[tuple[str, str, int], list[Case]] = {}
    for case in cases.sessions(short=short):
        if case.framework == framework and case.session:
            seen.setdefault((case.package, case.option, case.limits), []).append(case)
    rows: list[list[str]] = []
    for (package, option, limits), some in seen.items():
        by_state = {case.session: found[case.name] for case in some}
        label = package + (f", {option}" if option else "")
        taxes = [number(by_state[state]["tax"]) if state in by_state else "" for state in STATES]
        trips = " ".join(f"{by_state[state]['trips']:.1f}" if state in by_state else "-" for state in STATES)
        times = ["" if package == OURS else _times(found, framework, by_state, state) for state in ("read", "write")]
        rows.append([label, str(limits or "-"), *taxes, *times, trips])
    head = ["", "limits", *(f"{state}, µs" for state in STATES), "times our read", "times our write", "round trips"]
    said = f"Bare: {number(found[Case(framework, 'bare').name]['cpu'])} µs."
    if alone.name in found:
        said += f" Three limits alone: {number(found[alone.name]['tax'])} µs."
    return f"### {framework}\n\n{said}\n\n{table(head, rows)}"


def _times(found: Mapping[str, Any], framework: Framework, by_state: Mapping[State, Any], state: State) -> str:
    own = found.get(Case(framework, OURS, "tcp", 0, session=state).name)
    return "" if own is None or state not in by_state else ratio(by_state[state]["tax"], own["tax"])
