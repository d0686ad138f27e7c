"""What a request with a session costs more than with the bare framework, and more than limits alone: CPU, round trips."""

from collections.abc import Mapping
from statistics import median
from typing import Any

from benchmarks import cases
from benchmarks.cases import FLOOR, FRAMEWORKS, OURS, STATES, Case, Framework, State
from benchmarks.report import number, ratio, table
from benchmarks.server import place_of, round_trips, server, wrong_counts
from benchmarks.tax import hops_of, wrong_hops
from benchmarks.workers import interleave, say, workers

__all__ = ["TITLE", "additions", "run", "tables"]

TITLE = "Sessions: CPU per request over the bare framework"

_USED: tuple[State, ...] = ("read", "write")
_PLACES: tuple[Framework, ...] = (*FRAMEWORKS, "call")


def run(*, short: bool) -> tuple[dict[str, Any], list[str]]:
    """Measure. Returns figures by case, in µs, and what of the counts is not as it must be."""
    found: dict[str, Any] = {}
    wrong: list[str] = []
    wanted = cases.sessions(short=short)
    with server() as valkey:
        place = place_of(valkey)
        for framework in _PLACES:
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
                    "tax": least - (min(samples[case.bare].cpu) if case.bare in samples else 0.0),
                    "trips": counted[case],
                    "spread": sample.spread,
                }
            wrong += wrong_counts(counted) + wrong_hops(hops)
    return found, wrong


def tables(found: Mapping[str, Any], *, short: bool) -> str:
    """The figures, for people."""
    parts = [_table(found, framework, short) for framework in _PLACES]
    spread = median(row["spread"] for row in found.values())
    parts.append(
        f"The figures of a case's first half and of its second differ by {spread:.1%} (median of all cases).\n"
    )
    return "\n".join(parts)


def _table(found: Mapping[str, Any], framework: Framework, short: bool) -> str:
    taxes_of = {name: row["tax"] for name, row in found.items()}
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
        times = ["" if package == OURS else _times(found, framework, limits, by_state, state) for state in _USED]
        rows.append([label, str(limits or "-"), *taxes, *times, trips])
    head = ["", "limits", *(f"{state}, µs" for state in STATES), "times our read", "times our write", "round trips"]
    said = [f"Bare: {number(found[case.name]['cpu'])} µs." for case in [Case(framework, "bare")] if case.name in found]
    for title, package in (("Three limits alone", OURS), ("The same on a raw socket", FLOOR)):
        if (alone := _alone(framework, package).name) in found:
            said.append(f"{title}: {number(taxes_of[alone])} µs.")
    added = additions(taxes_of, framework, unit="µs")
    texts = [" ".join(said), added, table(head, rows)]
    title = "The core, without a framework" if framework == "call" else framework
    return f"### {title}\n\n" + "\n\n".join(filter(None, texts))


def _times(
    found: Mapping[str, Any], framework: Framework, limits: int, by_state: Mapping[State, Any], state: State
) -> str:
    own = found.get(Case(framework, OURS, "tcp", limits, session=state).name)
    return "" if own is None or state not in by_state else ratio(by_state[state]["tax"], own["tax"])


def _alone(framework: Framework, package: str) -> Case:
    return Case(framework, package, "tcp", 3, "decision" if framework == "call" and package == OURS else "")


def additions(costs: Mapping[str, float], framework: Framework, *, unit: str) -> str:
    """What a read and a write add to three limits, ours and the floor's; nothing where they were not measured.

    Args:
        costs: over the bare framework, by the names of cases.
        framework: where.
        unit: of `costs`.
    """
    limits = costs.get(_alone(framework, OURS).name)
    said: list[str] = []
    for state in _USED:
        ours, floors = (_added(costs, framework, package, state) for package in (OURS, FLOOR))
        if limits is None or ours is None:
            continue
        said.append(f"A {state} adds {number(ours)} {unit} to our three limits, {ours / limits:.0%} of them.")
        if floors is not None:
            share = f"{floors / limits:.0%} of our three limits"
            said.append(f"On a raw socket it adds {number(floors)} {unit}, which is {share}.")
    return " ".join(said)


def _added(costs: Mapping[str, float], framework: Framework, package: str, state: State) -> float | None:
    alone = costs.get(_alone(framework, package).name)
    both = costs.get(Case(framework, package, "tcp", 3, session=state).name)
    return None if alone is None or both is None else both - alone
