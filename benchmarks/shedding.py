"""What is left of a server that is asked for more than it can do, with and without the load shedder.

Clients are wrk's connections. Each thinks for about a second between two requests and waits for each answer, like a person: so
a server that is slow is asked less often than one that is quick, and what is *offered* is what would be asked if answers took no time. A
fifth of the requests is critical. *Goodput* is answers of 200 within half a second, for each second: a later one is of no use to anybody.
Each server is asked half of what it can do for some seconds before, so that the shedder knows what is usual.
"""

import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

from benchmarks.plot import Line, plot
from benchmarks.report import number, table
from benchmarks.serving import serving
from benchmarks.workers import ROOT, environment, say
from tests.servers import free_port

__all__ = ["TITLE", "run", "tables"]

TITLE = "Overload"

KINDS: Mapping[str, str] = {
    "threads": "Flask, gunicorn with 8 threads, 80 ms each",
    "pool": "Starlette, uvicorn, 10 connections, 100 ms each",
    "cpu": "Starlette, uvicorn, 9 ms of computing each",
}
CAPACITY = 100
LOADS = (0.5, 0.75, 1.0, 1.5, 2.0, 3.0, 4.0)
SLO = 0.5
CRITICAL = 0.2
_THINK = 1.0
_PATIENCE = 60.0
_TRIES = 2
_ASSETS = ROOT / "docs" / "assets"


class Answer(NamedTuple):
    """One answer, as a client got it."""

    critical: bool
    status: int
    took: float
    at: float


def run(*, short: bool) -> tuple[dict[str, Any], list[str]]:
    """Rows by kind, mode and load; draws the plots where it is a whole run."""
    if shutil.which("wrk") is None:
        return {"skipped": "wrk is not installed (on Debian: apt-get install wrk)"}, []
    found: dict[str, Any] = {}
    for kind in ("threads",) if short else KINDS:
        modes = found.setdefault(kind, {})
        for shed in (True,) if short else (False, True):
            mode = "on" if shed else "off"
            modes[mode] = [_best(kind, shed=shed, load=load, short=short) for load in ((3.0,) if short else LOADS)]
    if not short:
        draw(found)
    return found, []


def _best(kind: str, *, shed: bool, load: float, short: bool) -> dict[str, float]:
    """One row: the best of several tries, because noise only harms."""
    rows = []
    for _ in range(1 if short else _TRIES):
        with served(kind, shed=shed) as port:
            ask(port, load=0.5, seconds=2 if short else 4)
            answers = ask(port, load=load, seconds=4 if short else 10)
        rows.append(judge(answers, load=load, skip=2.0 if short else 4.0))
        say(f"shedding: {kind}, {'on' if shed else 'off'}, {load:g}: {rows[-1]['goodput']:.0f}/s")
    return max(rows, key=lambda row: row["goodput"])


@contextmanager
def served(kind: str, *, shed: bool) -> Iterator[int]:
    """A server with one process; its port."""
    port = free_port()
    if kind == "threads":
        options = ["--workers=1", "--worker-class=gthread", "--threads=8", "--worker-connections=5000"]
        command = ["gunicorn", f"--bind=127.0.0.1:{port}", *options, "--keep-alive=75", "--log-level=critical"]
    else:
        options = ["--loop=asyncio", "--no-access-log", "--log-level=critical", "--timeout-keep-alive=75"]
        command = ["uvicorn", "--host=127.0.0.1", f"--port={port}", *options]
    command = [sys.executable, "-m", *command, "benchmarks.applications.overload:app"]
    with serving(command, port=port, path="/healthz", order={"kind": kind, "shed": shed}, name=kind):
        yield port


def ask(port: int, *, load: float, seconds: int) -> list[Answer]:
    """Let clients ask; what they got, in the order in which it came."""
    clients = round(load * CAPACITY * _THINK)
    with tempfile.TemporaryDirectory() as directory:
        record = Path(directory) / "record"
        options = ["--threads=1", f"--connections={clients}", f"--duration={seconds}s", "--timeout=60s"]
        script = f"--script={ROOT / 'benchmarks' / 'overload.lua'}"
        subprocess.run(
            ["wrk", *options, script, f"http://127.0.0.1:{port}/"],
            check=True,
            capture_output=True,
            env=environment(
                THINK=f"{_THINK * 1000:.0f}",
                CRITICAL=str(CRITICAL),
                SEED="1",
                CLIENTS=str(clients),
                RECORD=str(record),
            ),
        )
        lines = [line.split() for line in record.read_text().splitlines()]
    return [Answer(name == "critical", int(status), int(took) / 1e6, int(at) / 1e6) for name, status, took, at in lines]


def judge(answers: Sequence[Answer], *, load: float, skip: float) -> dict[str, float]:
    """What clients got after the first seconds."""
    began = answers[0].at + skip
    counted = [one for one in answers if one.at >= began]
    seconds = counted[-1].at - began
    good = [one for one in counted if one.status == 200 and one.took <= SLO]
    served = sorted(one.took for one in counted if one.status == 200)
    critical = [one for one in counted if one.critical]
    critical_served = sorted(one.took for one in critical if one.status == 200)
    refused = sorted(one.took for one in counted if one.status == 503)
    return {
        "load": load,
        "asked": len(counted) / seconds,
        "goodput": len(good) / seconds,
        "refused": len(refused) / len(counted),
        "p99": _quantile(served, 0.99),
        "critical success": len(critical_served) / max(1, len(critical)),
        "critical good": sum(one.took <= SLO for one in critical if one.status == 200) / max(1, len(critical)),
        "critical p99": _quantile(critical_served, 0.99),
        "refusal p50": _quantile(refused, 0.5),
    }


def _quantile(values: Sequence[float], part: float) -> float:
    return values[min(len(values) - 1, int(len(values) * part))] if values else 0.0


def draw(found: Mapping[str, Any]) -> None:
    """Write the plots."""
    _ASSETS.mkdir(exist_ok=True)
    for kind, modes in found.items():
        goodput = [
            Line("with the shedder", "on", [(row["load"], row["goodput"]) for row in modes["on"]]),
            Line("without", "off", [(row["load"], row["goodput"]) for row in modes["off"]]),
        ]
        latency = [
            Line("critical, with the shedder", "on", [(r["load"], r["critical p99"] * 1e3) for r in modes["on"]]),
            Line("all served, with the shedder", "also", [(r["load"], r["p99"] * 1e3) for r in modes["on"]]),
            Line("without", "off", [(row["load"], row["p99"] * 1e3) for row in modes["off"]]),
        ]
        title = KINDS[kind]
        picture = plot(f"{title}: goodput", goodput, x="offered load, times the capacity", y="good answers/s")
        (_ASSETS / f"shedding-{kind}-goodput.svg").write_text(picture)
        picture = plot(f"{title}: latency", latency, x="offered load, times the capacity", y="p99, ms", log=True)
        (_ASSETS / f"shedding-{kind}-latency.svg").write_text(picture)


def tables(found: Mapping[str, Any], *, short: bool) -> str:
    """The figures, for people."""
    if "skipped" in found:
        return f"Not measured: {found['skipped']}.\n"
    text = [
        f"About {CAPACITY} requests/s are what each server can do. Offered: that many times as much. Goodput: answers of 200 within "
        f"{SLO * 1000:.0f} ms, for each second. A fifth of the requests is critical.\n"
    ]
    for kind, modes in found.items():
        rows = [
            [
                f"{row['load']:g}, {'with' if mode == 'on' else 'without'}",
                number(row["asked"]),
                number(row["goodput"]),
                f"{row['refused']:.0%}",
                number(row["p99"] * 1e3),
                f"{row['critical good']:.1%}",
                number(row["critical p99"] * 1e3),
            ]
            for mode, measured in modes.items()
            for row in measured
        ]
        head = ["offered", "asked/s", "goodput/s", "refused", "p99, ms", "critical in time", "critical p99, ms"]
        text.append(f"### {KINDS[kind]}\n\n" + table(head, rows))
    return "\n".join(text)


if __name__ == "__main__":
    began = time.monotonic()
    result, _ = run(short="--smoke" in sys.argv)
    print(tables(result, short=False))
    say(f"{time.monotonic() - began:.0f} s")
