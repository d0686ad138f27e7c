"""What a client notices when the server dies: statuses, the longest wait, and how long the event loop stood still."""

from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import replace
from statistics import median
from time import monotonic, sleep
from typing import Any, NamedTuple

from benchmarks.cases import OURS, Case, Framework, Place
from benchmarks.report import number, table
from benchmarks.server import Gate, server
from benchmarks.workers import Worker, say, workers
from tests.servers import Valkey

__all__ = ["TITLE", "run", "tables"]

TITLE = "Outage"

_REQUESTS = 20
_GAP = 0.01
_PATIENCE = 10.0
"""Seconds to wait for one case's requests; an application that hangs for longer has said enough."""

_TIMEOUTS = "?socket_timeout=0.25&socket_connect_timeout=0.25"


class Mode(NamedTuple):
    """A way to lose the server, and how it comes back."""

    title: str
    begin: Callable[[Valkey, Gate], object]
    end: Callable[[Valkey, Gate], object]


MODES: Mapping[str, Mode] = {
    "refused": Mode(
        "killed, connections refused", lambda server, gate: server.kill(), lambda server, gate: server.start()
    ),
    "stopped": Mode("stopped (SIGSTOP)", lambda server, gate: server.pause(), lambda server, gate: server.resume()),
    "restarted": Mode("killed and started again", lambda server, gate: server.restart(), lambda server, gate: None),
    "black-holed": Mode("black-holed", lambda server, gate: gate.close(), lambda server, gate: gate.open()),
    "dripping": Mode("replies byte by byte", lambda server, gate: gate.drip(), lambda server, gate: gate.open()),
}


def _cases(short: bool, *, peers: bool) -> list[tuple[str, Case, str]]:
    """Label, case, and what is added to the URL."""
    found: list[tuple[str, Case, str]] = []
    pairs: tuple[tuple[Framework, str], ...] = (("flask", "flask-limiter"), ("starlette", "slowapi"))
    for framework, peer in pairs:
        found.append((f"{framework}, {OURS}", Case(framework, OURS, "tcp", 3), ""))
        if not peers:
            continue
        plain = Case(framework, peer, "tcp", 3)
        if not short:
            found.append((f"{framework}, {peer}", plain, ""))
        best = replace(plain, option="fallback")
        found.append((f"{framework}, {peer}, 0.25 s timeouts and memory fallback", best, _TIMEOUTS))
    if not short:
        found.append((f"django-wsgi, {OURS}", Case("django-wsgi", OURS, "tcp", 3), ""))
        found.append((f"django-asgi, {OURS}", Case("django-asgi", OURS, "tcp", 3), ""))
    return found


def run(*, short: bool) -> tuple[dict[str, Any], list[str]]:
    """For each mode and case what its requests met; milliseconds."""
    found: dict[str, Any] = {}
    for name, mode in MODES.items():
        say(f"outage: {name}")
        found[name] = _mode(mode, short=short)
    return found, []


def _mode(mode: Mode, *, short: bool) -> dict[str, Any]:
    found: dict[str, Any] = {}
    with server() as valkey, _gate(valkey) as gate:
        place = Place(
            port=gate.port if mode in (MODES["black-holed"], MODES["dripping"]) else valkey.port, path=valkey.path
        )
        with _all_workers(_cases(short, peers=not short or mode is MODES["refused"]), place) as running:
            usual = {label: median(_ask(worker)["ms"] for _ in range(9)) for label, worker in running.items()}
            mode.begin(valkey, gate)
            # Beside each other: they spend the time asleep.
            with ThreadPoolExecutor(len(running)) as pool:
                requests = 5 if short else _REQUESTS
                rows = pool.map(lambda worker: _drive(worker, requests), running.values())
                for label, row in zip(running, rows, strict=True):
                    found[label] = row | {"usual": usual[label]}
                mode.end(valkey, gate)
                ours = {label: worker for label, worker in running.items() if worker.case.ours}
                for label, back in zip(ours, pool.map(_until_back, ours.values()), strict=True):
                    found[label]["back"] = back
    return found


@contextmanager
def _gate(valkey: Valkey) -> Iterator[Gate]:
    gate = Gate(valkey.port)
    try:
        yield gate
    finally:
        gate.end()


@contextmanager
def _all_workers(wanted: Sequence[tuple[str, Case, str]], place: Place) -> Iterator[dict[str, Worker]]:
    with (
        workers([case for _, case, query in wanted if not query], place) as plain,
        workers([case for _, case, query in wanted if query], replace(place, query=_TIMEOUTS)) as tuned,
    ):
        yield {label: (tuned if query else plain)[case] for label, case, query in wanted}


def _ask(worker: Worker) -> dict[str, Any]:
    answer: dict[str, Any] = worker.ask(one=True)
    return answer


def _drive(worker: Worker, requests: int) -> dict[str, Any]:
    answers: list[dict[str, Any]] = []
    end = monotonic() + _PATIENCE
    while len(answers) < requests and monotonic() < end:
        answers.append(_ask(worker))
        sleep(_GAP)
    seen = Counter(str(one["status"]) + (f" {one['error']}" if one["error"] else "") for one in answers)
    stalls = [one["stall"] for one in answers if one["stall"] is not None]
    return {
        "seen": dict(seen),
        "first": answers[0]["ms"],
        "median": median(one["ms"] for one in answers),
        "longest": max(one["ms"] for one in answers),
        "stall": max(stalls) if stalls else None,
    }


def _until_back(worker: Worker) -> float | None:
    """Milliseconds until a request is no longer degraded; None if that takes too long."""
    began = monotonic()
    while monotonic() - began < _PATIENCE:
        if not _ask(worker)["degraded"]:
            return (monotonic() - began) * 1e3
        sleep(_GAP)
    return None


def tables(found: Mapping[str, Any], *, short: bool) -> str:
    """The figures, for people."""
    parts: list[str] = []
    for name, mode in MODES.items():
        rows = []
        for label, row in found[name].items():
            seen = ", ".join(f"{count} x {what}" for what, count in row["seen"].items())
            figures = (row["usual"], row["first"], row["median"], row["longest"], row["stall"], row.get("back"))
            rows.append([label, seen, *(number(figure) for figure in figures)])
        head = [
            "",
            "answers",
            "before, ms",
            "first, ms",
            "median, ms",
            "longest, ms",
            "loop stood still, ms",
            "back after, ms",
        ]
        parts.append(f"### {mode.title}\n\n" + table(head, rows))
    return "\n".join(parts)
