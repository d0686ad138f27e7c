"""What a client notices when the server dies: statuses, the longest wait, and how long the event loop stood still."""

from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from statistics import median
from time import monotonic, sleep
from typing import Any, Literal, NamedTuple

from benchmarks.cases import NAME, OURS, Case, Framework, Place
from benchmarks.report import number, table
from benchmarks.server import Gate, server
from benchmarks.workers import Worker, say, workers
from tests.servers import Valkey

__all__ = ["MODES", "TITLE", "run", "tables"]

TITLE = "Outage"

_HOLD = 5.0
"""Seconds that the server is away: recovery is measured from where an outage has settled, not from its first moments."""
_BRIEF = 0.3
"""Seconds of requests where it is back at once."""
_SHORT = 0.3
_GAP = 0.01
_PATIENCE = 10.0
"""Seconds to wait for a request that is not degraded."""

_TIMEOUTS = "?socket_timeout=0.25&socket_connect_timeout=0.25"


class Lost(NamedTuple):
    """What a mode has to do with."""

    server: Valkey
    gate: Gate
    place: Place


class Mode(NamedTuple):
    """A way to lose the server, and how it comes back.

    Attributes:
        title: for people.
        begin: loses it.
        end: brings it back.
        back: milliseconds that are promised until it is used again.
        held: whether it stays away; else it is back when `begin` returns.
        through: the way there: straight, through the gate, or by `NAME`.
    """

    title: str
    begin: Callable[[Lost], object]
    end: Callable[[Lost], object] = lambda lost: None
    back: float = 1000.0
    held: bool = True
    through: Literal["", "gate", "name"] = ""


def _silence(lost: Lost) -> None:
    """Nobody resolves the name any more, and the connections that there were are gone."""
    Path(lost.place.silent).touch()
    lost.server.kill()


def _speak(lost: Lost) -> None:
    lost.server.start()
    Path(lost.place.silent).unlink()


MODES: Mapping[str, Mode] = {
    "refused": Mode("killed, connections refused", lambda lost: lost.server.kill(), lambda lost: lost.server.start()),
    "stopped": Mode("stopped (SIGSTOP)", lambda lost: lost.server.pause(), lambda lost: lost.server.resume()),
    "restarted": Mode("killed and started again", lambda lost: lost.server.restart(), held=False),
    "black-holed": Mode(
        # A try to connect that began just before the end takes its two seconds.
        "black-holed",
        lambda lost: lost.gate.close(),
        lambda lost: lost.gate.open(),
        back=3000.0,
        through="gate",
    ),
    "unresolved": Mode("killed, and its name does not resolve", _silence, _speak, through="name"),
    "dripping": Mode(
        "replies byte by byte", lambda lost: lost.gate.drip(), lambda lost: lost.gate.open(), through="gate"
    ),
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
        place = Place(port=gate.port if mode.through == "gate" else valkey.port, path=valkey.path)
        if mode.through == "name":
            place = replace(place, host=NAME)
        lost = Lost(valkey, gate, place)
        with _all_workers(_cases(short, peers=not short or mode is MODES["refused"]), place) as running:
            usual = {label: median(_ask(worker)["ms"] for _ in range(9)) for label, worker in running.items()}
            mode.begin(lost)
            until = monotonic() + (_SHORT if short else _HOLD if mode.held else _BRIEF)
            # Beside each other: they spend the time asleep.
            with ThreadPoolExecutor(len(running)) as pool:
                rows = pool.map(lambda worker: _drive(worker, until), running.values())
                for label, row in zip(running, rows, strict=True):
                    found[label] = row | {"usual": usual[label]}
                mode.end(lost)
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


def _drive(worker: Worker, until: float) -> dict[str, Any]:
    """What requests meet, one after the other; at least one, and the last may take longer than there is time."""
    answers: list[dict[str, Any]] = []
    while not answers or monotonic() < until:
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
