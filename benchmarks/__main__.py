"""The command: ``python -m benchmarks --help``."""

import argparse
import json
import sys
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, NamedTuple

from benchmarks import calls, end_to_end, instructions, outage, page, sessions, shedding, targets, tax
from benchmarks.report import machine
from benchmarks.workers import say

__all__: list[str] = []


class Benchmark(NamedTuple):
    """One part of the run."""

    title: str
    run: Callable[..., tuple[dict[str, Any], list[str]]]
    tables: Callable[..., str]


BENCHMARKS: Mapping[str, Benchmark] = {
    "tax": Benchmark(tax.TITLE, tax.run, tax.tables),
    "sessions": Benchmark(sessions.TITLE, sessions.run, sessions.tables),
    "async": Benchmark(calls.CONCURRENT_TITLE, calls.run_concurrent, calls.concurrent_tables),
    "stores": Benchmark(calls.STORES_TITLE, calls.run_stores, calls.stores_tables),
    "floor": Benchmark(calls.FLOOR_TITLE, calls.run_floor, calls.floor_tables),
    "e2e": Benchmark(end_to_end.TITLE, end_to_end.run, end_to_end.tables),
    "instructions": Benchmark(instructions.TITLE, instructions.run, instructions.tables),
    "outage": Benchmark(outage.TITLE, outage.run, outage.tables),
    "shedding": Benchmark(shedding.TITLE, shedding.run, shedding.tables),
}


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser("python -m benchmarks", description="What failsoft costs, beside other packages.")
    parser.add_argument(
        "names", nargs="*", metavar="NAME", help=f"which to run: {', '.join(BENCHMARKS)} (default: all)"
    )
    parser.add_argument(
        "--smoke", action="store_true", help="a short run: everything works, counts are right; times mean nothing"
    )
    parser.add_argument("--output", type=Path, help="write the report there, too")
    parser.add_argument(
        "--json", type=Path, help="keep the figures there; those of benchmarks that do not run now are kept"
    )
    parser.add_argument("--page", type=Path, help="write what is measured between the marks of that page")
    parser.add_argument(
        "--record", metavar="LABEL", help=f"add this run's instruction counts to {instructions.RECORD.name}"
    )
    arguments = parser.parse_args()
    unknown = [name for name in arguments.names if name not in BENCHMARKS]
    if unknown:
        parser.error(f"there is no benchmark {', '.join(unknown)}; there are {', '.join(BENCHMARKS)}")
    if arguments.page and arguments.smoke:
        parser.error("the figures of --smoke mean nothing; leave it or --page out")
    return arguments


def main() -> int:
    """Run, and report. The exit status is 1 where a count is not as it must be."""
    arguments = _arguments()
    short = arguments.smoke
    figures: dict[str, Any] = {}
    if arguments.json and arguments.json.exists():
        figures = json.loads(arguments.json.read_text())
    wrong: list[str] = []
    for name in arguments.names or BENCHMARKS:
        began = time.monotonic()
        figures[name], found_wrong = BENCHMARKS[name].run(short=short)
        wrong += found_wrong
        say(f"{name}: {time.monotonic() - began:.0f} s")
        if arguments.json:
            arguments.json.write_text(json.dumps(figures, indent=1) + "\n")
    tables = {
        name: benchmark.tables(figures[name], short=short) for name, benchmark in BENCHMARKS.items() if name in figures
    }
    lines = {} if short else targets.checklist(figures)
    parts = [machine(), *(f"## {BENCHMARKS[name].title}\n\n{text}" for name, text in tables.items())]
    if lines:
        parts.append(f"## Targets\n\n{''.join(lines.values())}")
    report = "\n".join(parts)
    print(report)
    if arguments.output:
        arguments.output.write_text(report)
    if arguments.page:
        # What could not be measured here leaves the page as it is.
        found = {name: text for name, text in tables.items() if "skipped" not in figures[name]}
        found |= {f"targets {name}": text for name, text in lines.items()}
        if not arguments.names:
            found["machine"] = machine()  # else some of the page's figures come from elsewhere
        arguments.page.write_text(page.written(arguments.page.read_text(), found))
    if arguments.record:
        instructions.record(arguments.record, figures["instructions"])
    for line in wrong:
        say(f"WRONG: {line}")
    say("counts: wrong" if wrong else "counts: as they must be")
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
