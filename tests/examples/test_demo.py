"""The demonstration observes what it tells, says of every process only what that process was seen to do, and leaves none behind."""

import os
import re
import signal
import socket
import subprocess
import sys
from collections import Counter
from collections.abc import Iterator
from contextlib import nullcontext
from functools import partial
from types import ModuleType, SimpleNamespace
from typing import Any

import pytest

from tests.examples.test_examples import EXAMPLES, load
from tests.processes import environment
from tests.servers import poll


@pytest.fixture
def demo(monkeypatch: pytest.MonkeyPatch) -> Iterator[ModuleType]:
    """The demonstration, which is not told."""
    monkeypatch.syspath_prepend(str(EXAMPLES))
    yield load("demo")
    del sys.modules["demo"]


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


def test_what_it_says_of_time(demo: ModuleType) -> None:
    """A promise that was kept is told as kept, one that was not as that; what takes far too long ends the story."""
    assert "as promised, within 1 s" == demo.in_time("recovered", 1.0, 1.0, 5.0)
    assert demo.in_time("recovered", 1.01, 1.0, 5.0).startswith("later than promised, 1 s; up to 5 s are let pass")
    with pytest.raises(demo.NotObserved, match=r"^recovered within 5 s: 5.00 s$"):
        demo.in_time("recovered", 5.0, 1.0, 5.0)


def test_whole_story_is_timed(
    demo: ModuleType, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """A story that takes far longer than is promised has not been observed."""
    monkeypatch.setattr(demo, "attach", lambda store: nullcontext(SimpleNamespace(pid=0, url="")))
    monkeypatch.setattr(demo, "running", lambda store, log, *_: nullcontext([log.touch()][:0]))
    for name in ("story", "second_story"):
        monkeypatch.setattr(demo, name, lambda *_: None)
    for took, status, said in (
        (5.0, 0, "as promised"),
        (31.0, 0, "later than promised"),
        (90.0, 1, "told within 90 s"),
    ):
        moments = iter([0.0, took])
        with monkeypatch.context() as patch:
            patch.setattr(demo, "time", SimpleNamespace(monotonic=lambda moments=moments: next(moments)))
            assert status == demo.run(serving=False)
        assert said in "".join(capsys.readouterr())


@pytest.mark.parametrize(("seconds", "ends"), [(1.9, False), (2.0, True)])
def test_answers_that_are_late(
    demo: ModuleType, capsys: pytest.CaptureFixture[str], seconds: float, ends: bool
) -> None:
    """How long a request may wait is told, and one that waits longer ends the story."""
    workers = [f"{name} {number}" for name in range(3) for number in range(2)]
    seen: Counter[str] = Counter()

    class Scripted(demo.Application):  # type: ignore[misc, name-defined]  # loaded from a file
        def get(self, path: str) -> Any:
            worker = workers[sum(seen.values()) % 6]
            seen[worker] += 1
            fields = {"x-worker": worker, "degraded": "limits;reason=refused"}
            return demo.Answer(200 if seen[worker] <= 10 else 429, fields, seconds)

    applications = [Scripted(str(number), 0) for number in range(3)]
    late = pytest.raises(demo.NotObserved, match=r"^no answer takes longer than 2 s: 2.00 s$")
    with late if ends else nullcontext():
        demo.without_store(applications)
    assert "wait for a store that hangs: 1 s here" in capsys.readouterr().out


def gone(pid: int) -> bool:
    """Whether there is no such process."""
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return True
    return False


@pytest.mark.timeout(120)
def test_story() -> None:
    """Told whole, it observes all of it, says so, and leaves neither applications nor stores behind."""
    done = subprocess.run(
        [sys.executable, str(EXAMPLES / "demo.py")],
        env=environment(),
        capture_output=True,
        text=True,
        timeout=110,
        check=False,
    )
    assert (0, "") == (done.returncode, done.stderr)
    end = r"^All of this was observed, in \d+ s: (as promised, within 30 s|later than promised, 30 s; up to 90 s .*)\.$"
    assert re.search(end, done.stdout.rstrip().splitlines()[-1])
    ports = re.findall(r"http://127\.0\.0\.1:(\d+)/", done.stdout)
    stores = re.findall(r"Valkey.*, process (\d+)", done.stdout)
    assert (6, 2) == (len(ports), len(stores))
    for port in ports:
        with pytest.raises(ConnectionRefusedError):
            socket.create_connection(("127.0.0.1", int(port)), 5)
    poll(lambda: all(gone(int(store)) for store in stores), within=30)


SERVED = """
import sys
import demo

def told(application, process):
    print("application", process.pid)
    return application

slow = ["sh", "-c", "trap 'sleep 0.5; exit' TERM; sleep 60 & wait"]
demo.commands = lambda ports: {str(port): slow for port in ports}
demo.wait_for = told
sys.exit(demo.main(["serve"]))
"""
"""Its applications do nothing, for to start real ones is what takes time; and take a while to end. Left behind, they last a minute."""


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT, signal.SIGHUP])
def test_is_ended_by_a_signal(number: signal.Signals) -> None:
    """Served until a signal, given again and again, it leaves neither application nor store behind."""
    demo = subprocess.Popen(
        [sys.executable, "-c", SERVED],
        cwd=EXAMPLES,
        env=environment(),
        stdout=subprocess.PIPE,
        text=True,
        preexec_fn=partial(signal.signal, signal.SIGHUP, signal.SIG_DFL),  # below nohup it is ignored, and stays so
    )
    with demo:
        try:
            assert demo.stdout is not None
            told = ""
            while "Ctrl-C ends it." not in told:
                line = demo.stdout.readline()
                assert "" != line, told
                told += line
            pids = [int(pid) for pid in re.findall(r"^(?:application|Valkey: .*, process) (\d+)$", told, re.M)]
            assert [False] * 4 == [gone(pid) for pid in pids]

            def ended() -> bool:
                demo.send_signal(number)
                return demo.poll() is not None

            poll(ended, within=30)
            assert (0, True) == (demo.returncode, "Interrupted" in demo.stdout.read())
        finally:
            demo.terminate()
    poll(lambda: all(gone(pid) for pid in pids), within=30)
