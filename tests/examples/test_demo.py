"""The demonstration says of every process only what that process was seen to do."""

import importlib.util
import sys
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

EXAMPLES = Path(__file__).parents[2] / "examples"


@pytest.fixture
def demo(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    """The demonstration, which is not told."""
    monkeypatch.syspath_prepend(str(EXAMPLES))
    spec = importlib.util.spec_from_file_location("demo", EXAMPLES / "demo.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    monkeypatch.setitem(sys.modules, "demo", module)
    spec.loader.exec_module(module)
    return module


class Running:
    """A process that runs."""

    def poll(self) -> None:
        return None


def application(demo: ModuleType, answers: Iterator[tuple[str, str | None]], workers: frozenset[str]) -> Any:
    """An application that answers with these workers, undegraded where there is no reason."""

    class Scripted(demo.Application):  # type: ignore[misc, name-defined]  # loaded from a file
        def get(self, path: str) -> Any:
            worker, degraded = next(answers)
            fields = {"x-worker": worker} | ({"degraded": degraded} if degraded else {})
            return demo.Answer(404, fields, 0.001)

    return Scripted("scripted", 0, workers)


def test_waits_for_each_worker(demo: ModuleType, monkeypatch: pytest.MonkeyPatch) -> None:
    """However often one worker has answered from the store, the other has to as well."""
    monkeypatch.setattr(demo, "AT_ONCE", 1)
    left = iter([("1", None)] * 20 + [("2", "limits;reason=open"), ("1", None), ("2", None), ("1", None)])
    demo.until_healthy([application(demo, left, frozenset("12"))])
    assert [("1", None)] == list(left)


def test_worker_that_never_recovers(demo: ModuleType, monkeypatch: pytest.MonkeyPatch) -> None:
    """A worker that goes on without the store is named, and nothing is claimed of it."""
    monkeypatch.setattr(demo, "PATIENCE", 0.2)
    answers = ((str(1 + number % 2), "limits;reason=open" if number % 2 else None) for number in range(10**6))
    with pytest.raises(demo.NotObserved, match="process 2 of scripted uses the store within"):
        demo.until_healthy([application(demo, answers, frozenset("12"))])


def test_meets_all_workers(demo: ModuleType, monkeypatch: pytest.MonkeyPatch) -> None:
    """An application is ready when each of its workers has answered."""
    monkeypatch.setattr(demo, "AT_ONCE", 1)
    answers = iter([("7", None)] * 5 + [("8", None), ("7", None)])
    assert frozenset("78") == demo.wait_for(application(demo, answers, frozenset()), Running()).workers
    assert [("7", None)] == list(answers)
