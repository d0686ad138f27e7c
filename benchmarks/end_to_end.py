"""Behind real servers, with wrk as the clients: requests per second and the 99th percentile."""

import contextlib
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator, Mapping
from dataclasses import asdict
from typing import Any

from benchmarks import cases
from benchmarks.cases import Case, Place
from benchmarks.report import number, table
from benchmarks.server import place_of, server
from benchmarks.serving import serving
from benchmarks.workers import Died, say
from tests.servers import free_port

__all__ = ["TITLE", "run", "tables"]

TITLE = "End to end"

_CONNECTIONS = 16
_WORKERS = 2
_PATIENCE = 60.0
_UNITS = {"us": 1e-3, "ms": 1.0, "s": 1e3}


def run(*, short: bool) -> tuple[dict[str, Any], list[str]]:
    """Requests per second and milliseconds, for each case; or why there are none."""
    wrk = shutil.which("wrk")
    if wrk is None:
        return {"skipped": "wrk is not installed (on Debian: apt-get install wrk)"}, []
    found: dict[str, Any] = {}
    wanted = cases.over_http(short=short)
    with server() as valkey:
        for turn in range(1 if short else 3):
            for case in wanted if turn % 2 == 0 else wanted[::-1]:
                with _serving(case, place_of(valkey)) as port:
                    row = _drive(wrk, port, seconds=1 if short else 3)
                say(f"e2e: {case.name}: {row['rps']:.0f}/s")
                best = found.setdefault(case.name, row)
                # Noise only slows down, here too.
                found[case.name] = {"rps": max(best["rps"], row["rps"]), "p99": min(best["p99"], row["p99"])}
    return found, []


def _command(case: Case, port: int) -> list[str]:
    if case.asynchronous:
        server = ["uvicorn", "--host", "127.0.0.1", "--port", str(port), "--workers", str(_WORKERS), "--no-access-log"]
        return [sys.executable, "-m", *server, "--log-level", "critical", "benchmarks.serve:app"]
    server = ["gunicorn", "--bind", f"127.0.0.1:{port}", "--workers", str(_WORKERS), "--log-level", "critical"]
    return [sys.executable, "-m", *server, "benchmarks.serve:app"]


@contextlib.contextmanager
def _serving(case: Case, place: Place) -> Iterator[int]:
    port = free_port()
    order = {"case": asdict(case), "place": asdict(place)}
    with serving(_command(case, port), port=port, path="/", order=order, name=case.name):
        yield port


def _drive(wrk: str, port: int, *, seconds: int) -> dict[str, float]:
    def drive(duration: int) -> str:
        arguments = ["--threads=1", f"--connections={_CONNECTIONS}", f"--duration={duration}s", "--latency"]
        command = [wrk, *arguments, f"http://127.0.0.1:{port}/"]
        return subprocess.run(command, check=True, capture_output=True, text=True).stdout

    drive(1)  # all workers are warm then
    said = drive(seconds)
    rate = re.search(r"Requests/sec:\s+([\d.]+)", said)
    slow = re.search(r"99%\s+([\d.]+)(us|ms|s)\b", said)
    if rate is None or slow is None or "Non-2xx" in said:
        raise Died(f"wrk said: {said}")
    return {"rps": float(rate[1]), "p99": float(slow[1]) * _UNITS[slow[2]]}


def tables(found: Mapping[str, Any], *, short: bool) -> str:
    """The figures, for people."""
    if "skipped" in found:
        return f"Not measured: {found['skipped']}.\n"
    rows = []
    for case in cases.over_http(short=short):
        row = found[case.name]
        bare = found.get(case.bare.name)
        part = f"{row['rps'] / bare['rps']:.0%}" if bare else ""
        rows.append([f"{case.framework}, {case.package}", number(row["rps"]), part, number(row["p99"])])
    return (
        f"{_CONNECTIONS} connections of wrk on the same machine, {_WORKERS} workers of gunicorn (sync) or uvicorn, "
        "three limits over TCP. The best of three runs.\n\n" + table(["", "requests/s", "of bare", "p99, ms"], rows)
    )
