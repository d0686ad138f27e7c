"""What a request costs more than with the bare framework: CPU, round trips, changes of threads."""

from collections.abc import Mapping
from statistics import median
from typing import Any

from benchmarks import cases
from benchmarks.cases import OURS, Case
from benchmarks.report import number, ratio, table
from benchmarks.server import place_of, round_trips, server, wrong_counts
from benchmarks.workers import Worker, interleave, say, workers

__all__ = ["TITLE", "hops_of", "run", "tables", "wrong_hops"]

TITLE = "CPU per request over the bare framework"

_HOPS_OVER = 20


def run(*, short: bool) -> tuple[dict[str, Any], list[str]]:
    """Measure. Returns figures by case, in µs, and what of the counts is not as it must be."""
    found: dict[str, Any] = {}
    wrong: list[str] = []
    wanted = cases.tax(short=short)
    with server() as valkey:
        place = place_of(valkey)
        # By framework: fewer processes at a time, and what is compared is measured at the same time.
        for framework in cases.FRAMEWORKS:
            some = [case for case in wanted if case.framework == framework]
            with workers(some, place) as running:
                say(f"tax: {framework}, {len(some)} cases")
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
                    if case in hops:
                        found[case.name]["hops"] = hops[case]
            wrong += wrong_counts(counted) + wrong_hops(hops)
    return found, wrong


def hops_of(running: Mapping[Case, Worker]) -> dict[Case, float]:
    """Changes of threads for each request, where there is an event loop to change from."""
    return {case: worker.ask(hops=_HOPS_OVER)["hops"] / _HOPS_OVER for case, worker in running.items()}


def wrong_hops(hops: Mapping[Case, float]) -> list[str]:
    """What of the counted changes of threads is not as it must be."""
    return [
        f"{case.name}: {count:g} changes of threads for a request, {hops[case.bare]:g} without failsoft"
        for case, count in hops.items()
        if case.ours and count != hops[case.bare]
    ]


def tables(found: Mapping[str, Any], *, short: bool) -> str:
    """The figures, for people."""
    parts: list[str] = []
    wanted = cases.tax(short=short)
    for framework in cases.FRAMEWORKS:
        some = [case for case in wanted if case.framework == framework]
        rows: list[list[str]] = []
        for case in some:
            if case.package == "bare":
                continue
            row = found[case.name]
            # A peer's figure belongs beside ours for the same store and number of limits.
            own = Case(framework, OURS, case.store, case.limits, "no headers" if case.option == "no headers" else "")
            ours = found.get(own.name)
            label = case.package + (f", {case.option}" if case.option else "")
            times = "" if case.ours or ours is None else ratio(row["tax"], ours["tax"])
            hops = [f"{row['hops']:g}"] if "hops" in row else []
            rows.append([label, case.store, str(case.limits), number(row["tax"]), times, f"{row['trips']:.1f}", *hops])
        head = ["", "store", "limits", "tax, µs", "times ours", "round trips"]
        if framework == "django-asgi":
            head.append("thread hops")
        bare = ", ".join(_bare(case, found[case.name]) for case in some if case.package == "bare")
        parts.append(f"### {framework}\n\nBare: {bare}.\n\n" + table(head, rows))
    spread = median(row["spread"] for row in found.values())
    parts.append(
        f"The figures of a case's first half and of its second differ by {spread:.1%} (median of all cases).\n"
    )
    return "\n".join(parts)


def _bare(case: Case, row: Mapping[str, Any]) -> str:
    said = f"{number(row['cpu'])} µs"
    if "hops" in row:
        said += f" and {row['hops']:g} thread hops"
    return said + (f" ({case.option})" if case.option else "")
