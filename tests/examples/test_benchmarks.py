"""The page of the benchmarks has a place for all that they measure, and its targets are those that are promised."""

from pathlib import Path
from typing import Any

import pytest

from benchmarks import cases, page, targets
from benchmarks.cases import OURS, Case
from benchmarks.outage import MODES

PAGE = (Path(__file__).parents[2] / "docs" / "benchmarks.md").read_text()
BY_HAND = "shedding"
MEASURED = ["tax", "sessions", "async", "stores", "floor", "e2e", "instructions", "outage"]
JUDGED = ["tax", "sessions", "async", "stores", "outage"]


def part(name: str) -> str:
    """What the page has of `name`."""
    return PAGE.partition(f"<!-- measured: {name} -->")[2].partition("<!-- measured: end -->")[0]


def test_a_place_for_all() -> None:
    """The page has a place for what each benchmark measures, and for the targets that it is judged by."""
    assert ["machine", *MEASURED, *(f"targets {name}" for name in JUDGED)] == page.marks(PAGE)
    main = (Path(__file__).parents[2] / "benchmarks" / "__main__.py").read_text()
    assert all(f'    "{name}": Benchmark(' in main for name in (*MEASURED, BY_HAND))
    assert len(MEASURED) + 1 == main.count(": Benchmark(")


def test_outages() -> None:
    """The page shows every way in which the benchmark loses the server, and judges each."""
    found = part("outage")
    assert [mode.title for mode in MODES.values()] == [
        line.removeprefix("### ") for line in found.splitlines() if line.startswith("### ")
    ]
    for name in MODES:
        assert 4 == part("targets outage").count(f"] server {name}: ")


def test_writes_parts() -> None:
    """What is written goes between its marks; what is not, and all else, stays as it was."""
    text = "a\n<!-- measured: one -->\n\nold\n\n<!-- measured: end -->\nb\n<!-- measured: targets one -->\n<!-- measured: end -->\n"
    new = page.written(text, {"one": "new \\1\n", "none": "nowhere"})
    assert text.replace("old", "new \\1") == new
    assert text.replace("old", "new \\1") == page.written(new, {})
    assert "\n- x\n" in page.written(text, {"targets one": "- x"})


def lines(judged: str, figures: Any) -> dict[str, bool]:
    """What is judged by those figures, and whether it is met."""
    found = targets.checklist({judged: figures})[judged].splitlines()
    return {line[6:].rpartition(": ")[0]: line[3] == "x" for line in found}


@pytest.mark.parametrize(
    ("mode", "figure", "good", "bad"),
    [
        ("stopped", "longest", 125.0, 125.1),
        ("stopped", "stall", 10.0, 10.1),
        ("stopped", "back", 1000.0, 1000.1),
        ("unresolved", "back", 1000.0, None),
        ("black-holed", "back", 3000.0, 3000.1),
    ],
)
def test_targets_of_outages(mode: str, figure: str, good: float, bad: float | None) -> None:
    """No request takes 25 ms more than the deadline, the loop stands still for 10 ms at most, and the store is soon used again."""
    met = {"seen": {"200": 9}, "longest": 1.0, "stall": 1.0, "back": 1.0}
    rows = {
        f"flask, {OURS}": met,
        f"starlette, {OURS}": met | {figure: good},
        "starlette, slowapi": met | {figure: 9e9},
    }
    assert [True] * 4 == list(lines("outage", {mode: rows}).values())
    rows[f"starlette, {OURS}"] = met | {figure: bad}
    assert [False, True, True, True] == sorted(lines("outage", {mode: rows}).values())


@pytest.mark.parametrize("framework", cases.FRAMEWORKS)
def test_targets_of_limits_in_memory(framework: cases.Framework) -> None:
    """In every framework, limits in memory that cost 30 µs miss a target, whatever other packages cost."""
    row = {"tax": 10.0, "trips": 1.0, "hops": 2.0}
    found = {case.name: row if case.ours else row | {"tax": 1000.0} for case in cases.tax()}
    assert all(lines("tax", found).values())
    found[Case(framework, OURS, "memory", 3).name] = row | {"tax": 30.0}
    missed = [text for text, met in lines("tax", found).items() if not met]
    assert [f"{framework}: three limits in memory"] == [text[: text.index(" cost")] for text in missed]
