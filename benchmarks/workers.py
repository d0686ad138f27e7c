"""The parent's side: processes of cases, and how they are measured beside each other."""

import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from benchmarks.cases import Case, Place

__all__ = ["ORDER", "ROOT", "Died", "Sample", "Worker", "environment", "interleave", "say", "workers"]

ORDER = "BENCHMARKS_ORDER"
"""The variable that tells `benchmarks.serve` what to serve."""

ROOT = Path(__file__).resolve().parent.parent

_STARTING_AT_ONCE = 2


def say(text: str) -> None:
    """Tell how far we are, apart from the results."""
    print(text, file=sys.stderr, flush=True)


def environment(**further: str) -> dict[str, str]:
    """This process's environment and `further`, for a child.

    Children keep their bytecode, whatever is set: else a hundred processes would each compile all that they import.
    """
    kept = {name: value for name, value in os.environ.items() if name != "PYTHONDONTWRITEBYTECODE"}
    return kept | further


class Died(Exception):
    """A worker ended; the message has its last words."""


class Worker:
    """The process of one case.

    Args:
        case: what it serves.
        place: where its server is.
        prefix: a command that runs it, such as valgrind.
    """

    def __init__(self, case: Case, place: Place, *, prefix: Sequence[str] = ()) -> None:
        self.case = case
        order = json.dumps({"case": asdict(case), "place": asdict(place)})
        self._log = tempfile.TemporaryFile("w+")  # noqa: SIM115 - lives as long as the process
        self.process = subprocess.Popen(
            [*prefix, sys.executable, "-m", "benchmarks.worker", order],
            cwd=ROOT,
            env=environment(PYTHONHASHSEED="0"),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._log,
            text=True,
        )

    def wait(self) -> "Worker":
        """Until it serves."""
        self._hear()
        return self

    def ask(self, **order: Any) -> Any:
        """Give an order, and wait for what comes of it."""
        assert self.process.stdin is not None
        self.process.stdin.write(json.dumps(order) + "\n")
        self.process.stdin.flush()
        return self._hear()

    def run(self, n: int, *, blocks: int = 1, at_once: int = 1) -> Any:
        """Nanoseconds per request, ``cpu`` and ``wall``, of each block of `n` requests."""
        return self.ask(run=n, blocks=blocks, at_once=at_once)

    def _hear(self) -> Any:
        assert self.process.stdout is not None
        line = self.process.stdout.readline()
        if not line:
            self.process.wait()
            self._log.seek(0)
            raise Died(f"{self.case.name}: {self._log.read()[-2000:]}")
        return json.loads(line)

    def end(self) -> None:
        """End it."""
        self.process.kill()
        self.process.wait()
        for stream in (self.process.stdin, self.process.stdout, self._log):
            if stream is not None:
                stream.close()


@contextmanager
def workers(cases: Iterable[Case], place: Place) -> Iterator[dict[Case, Worker]]:
    """A worker for each case, all ready. Those that run already are quiet while others start."""
    started: dict[Case, Worker] = {}

    def start(case: Case) -> None:
        started[case] = Worker(case, place)
        started[case].wait()

    try:
        with ThreadPoolExecutor(_STARTING_AT_ONCE) as pool:
            list(pool.map(start, cases))
        yield {case: started[case] for case in cases}
    finally:
        for worker in started.values():
            worker.end()


@dataclass
class Sample:
    """What blocks of one case took, in µs per request."""

    cpu: list[float] = field(default_factory=list)
    wall: list[float] = field(default_factory=list)

    def add(self, answer: Mapping[str, Sequence[float]]) -> None:
        """Have a worker's answer, but for its first block, which met cold caches."""
        self.cpu += [ns / 1000 for ns in answer["cpu"][1:]]
        self.wall += [ns / 1000 for ns in answer["wall"][1:]]

    @property
    def spread(self) -> float:
        """How much the least CPU of the first half and that of the second differ, as a part of the least."""
        half = len(self.cpu) // 2
        if not half:
            return 0.0
        first, second = min(self.cpu[:half]), min(self.cpu[half:])
        return abs(first - second) / min(first, second)


def interleave(
    running: Mapping[Case, Worker],
    *,
    rounds: int,
    blocks: int,
    seconds: float = 0.002,
    at_once: int = 1,
    progress: Callable[[int], None] = lambda _: None,
) -> dict[Case, Sample]:
    """Measure all of `running`, a turn for each in every round, every other round backwards.

    Args:
        running: the workers.
        rounds: turns for each.
        blocks: counted blocks in a turn.
        seconds: of a block, about.
        at_once: requests at a time, for cases on an event loop.
        progress: called with the number of each round.
    """
    sizes: dict[Case, int] = {}
    for case, worker in running.items():
        took = min(worker.run(10 * at_once, blocks=3, at_once=at_once)["wall"])
        sizes[case] = max(at_once, int(seconds * 1e9 / took))
    samples = {case: Sample() for case in running}
    for number in range(rounds):
        order = list(running.items())
        for case, worker in order if number % 2 == 0 else order[::-1]:
            samples[case].add(worker.run(sizes[case], blocks=blocks + 1, at_once=at_once))
        progress(number)
    return samples
