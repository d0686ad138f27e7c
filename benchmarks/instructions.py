"""Instructions per request under valgrind's callgrind: no clock, so nothing that the machine's other work could change.

Two processes agree within a fraction of a percent. What the kernel does is not in it, nor what the server does: it is
what our Python costs. The figure to compare from one commit to the next; `record` keeps it.
"""

import platform
import re
import shutil
import subprocess
import tempfile
import time
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from benchmarks.cases import FLOORED, OURS, Case, Framework, Place, State, floor_of_sessions
from benchmarks.report import ratio, table
from benchmarks.server import place_of, server
from benchmarks.sessions import additions
from benchmarks.workers import Worker, say

__all__ = ["RECORD", "TITLE", "record", "run", "tables"]

TITLE = "Instructions per request"

RECORD = Path(__file__).with_name("instructions.md")

_REQUESTS = 100
_FIRST = 1_100
"""Requests before anything is counted: the first thousand are looked at for a proxy that nobody has named (`failsoft.address`)."""

_PATIENCE = 60.0

_HEAD = """# Instructions per request

What failsoft adds to a request, in thousands of instructions in user space: the core's own decision without a
framework, and with each. Three limits, header fields on; where a session is named, with it. Made by
`python -m benchmarks instructions --record LABEL`; compare rows of the same Python.

"""


_SESSION_PEERS: Mapping[Framework, str] = {
    "flask": "Flask-Session",
    "django-wsgi": "Django, django-redis",
    "starlette": "starsessions",
    "fastapi": "fastapi-redis-sdk",
}


_CORE: tuple[Framework, ...] = ("call",)


def _cases(short: bool) -> list[Case]:
    if short:
        return [Case("call", OURS, "memory", 3, "decision")]
    return _limit_cases() + _session_cases()


def _session_cases() -> list[Case]:
    states: tuple[State, ...] = ("untouched", "read", "write")
    found = [Case("call", OURS, "tcp", 3, session=state) for state in states]
    found += floor_of_sessions("call")
    for framework, package in _SESSION_PEERS.items():
        if framework == "fastapi":
            found += [Case(framework, "bare"), Case(framework, OURS, "tcp", 3)]
        found += [Case(framework, OURS, "tcp", limits, session=state) for limits in (0, 3) for state in states[1:]]
        found += [Case(framework, package, "tcp", session=state) for state in states[1:]]
        if framework == "django-wsgi":
            found.append(Case(framework, package, "tcp", option="saved every time", session="read"))
        if framework in FLOORED:
            found += [Case(framework, OURS, "tcp", 3, session="untouched"), *floor_of_sessions(framework)]
    return found


def _limit_cases() -> list[Case]:
    found = [Case("call", OURS, "memory", 3, "decision"), Case("call", OURS, "tcp", 3, "decision")]
    peers: tuple[tuple[Framework, str], ...] = (
        ("flask", "flask-limiter"),
        ("django-wsgi", "django-ratelimit + django-redis"),
        ("starlette", "slowapi"),
    )
    for framework, package in peers:
        found += [
            Case(framework, "bare"),
            Case(framework, OURS, "memory", 3),
            Case(framework, OURS, "tcp", 3),
            Case(framework, OURS, "tcp", 0, "nothing applies"),
            Case(framework, package, "tcp", 3),
            Case(framework, "pyrate-limiter", "tcp", 3),
        ]
    return found


def run(*, short: bool) -> tuple[dict[str, Any], list[str]]:
    """Thousands of instructions per request, by case; or why there are none."""
    if shutil.which("valgrind") is None or shutil.which("callgrind_control") is None:
        return {"skipped": "valgrind is not installed (on Debian: apt-get install valgrind)"}, []
    with server() as valkey, ThreadPoolExecutor(2) as pool:
        place = place_of(valkey)
        return dict(pool.map(lambda case: (case.name, _measure(case, place)), _cases(short))), []


def _measure(case: Case, place: Place) -> float:
    with tempfile.TemporaryDirectory(prefix="callgrind-") as directory:
        out = Path(directory) / "out"
        valgrind = ["valgrind", "-q", "--tool=callgrind", "--instr-atstart=no", f"--callgrind-out-file={out}"]
        worker = Worker(case, place, prefix=valgrind)
        try:
            worker.wait()
            worker.run(_FIRST)
            _control(worker, "--instr=on")
            worker.run(_REQUESTS)  # what valgrind has not translated yet
            counts: list[float] = []
            for number in (1, 2):
                _control(worker, "--zero")
                worker.run(_REQUESTS)
                _control(worker, "--dump")
                counts.append(_total(out.with_name(f"out.{number}")) / _REQUESTS / 1000)
        finally:
            worker.end()
    say(f"instructions: {case.name}: {min(counts):.1f} thousand")
    return min(counts)


def _control(worker: Worker, order: str) -> None:
    subprocess.run(["callgrind_control", order, str(worker.process.pid)], check=True, capture_output=True)


def _total(path: Path) -> int:
    """What callgrind counted, as soon as it has written it."""
    deadline = time.monotonic() + _PATIENCE
    while time.monotonic() < deadline:
        match = re.search(r"^(?:totals|summary): (\d+)", path.read_text(), re.MULTILINE) if path.exists() else None
        if match:
            return int(match[1])
        time.sleep(0.02)
    raise TimeoutError(f"callgrind wrote no {path.name}")


def _over(found: Mapping[str, float], case: Case) -> float:
    return found[case.name] - (0.0 if case.framework == "call" else found[case.bare.name])


def tables(found: Mapping[str, Any], *, short: bool) -> str:
    """The figures, for people."""
    if "skipped" in found:
        return f"Not measured: {found['skipped']}.\n"
    rows = []
    for case in _cases(short):
        over = _over(found, case) if case.package != "bare" else 0.0
        option = "decision" if case.framework == "call" and not case.session else ""
        ours = Case(case.framework, OURS, case.store, case.limits, option, case.session)
        times = "" if case.ours or ours.name not in found else ratio(over, _over(found, ours))
        rows.append([case.name, f"{found[case.name]:.1f}", f"{over:.1f}" if over else "", times])
    over_bare = {case.name: _over(found, case) for case in _cases(short) if case.package != "bare"}
    lines = [(framework, additions(over_bare, framework, unit="thousand")) for framework in (*_SESSION_PEERS, *_CORE)]
    added = "".join(
        f"- {'core' if framework == 'call' else framework}: {line[0].lower()}{line[1:]}\n"
        for framework, line in lines
        if line
    )
    return table(["", "thousands", "over bare", "times ours"], rows) + (f"\n{added}" if added else "")


def record(label: str, found: Mapping[str, Any]) -> None:
    """Add a row to the table that is kept with the sources."""
    if "skipped" in found:
        say(f"nothing recorded: {found['skipped']}")
        return
    kept = [case for case in _cases(short=False) if _is_kept(case)]
    lines = RECORD.read_text().splitlines()[-1:] if RECORD.exists() else []
    cells = [label, platform.python_version(), *(f"{_over(found, case):.1f}" for case in kept)]
    row = "| " + " | ".join(cells) + " |"
    if lines:
        RECORD.write_text(f"{RECORD.read_text().rstrip()}\n{row}\n")
    else:
        RECORD.write_text(_HEAD + table(["label", "Python", *(_short_name(case) for case in kept)], [cells]))
    say(f"recorded: {row}")


def _is_kept(case: Case) -> bool:
    if not case.ours or (case.session and not case.limits):
        return False
    return case.session != "untouched" or case.framework == "call"


def _short_name(case: Case) -> str:
    what = case.option if case.option == "nothing applies" else case.store
    if case.session:
        what = f"session {case.session}"
    return f"{'core' if case.framework == 'call' else case.framework}, {what}"
