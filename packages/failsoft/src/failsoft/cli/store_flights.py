"""What ``failsoft store`` finds out by flights, made by the code that requests use."""

import statistics
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

from failsoft.clock import SYSTEM
from failsoft.errors import OperationFailed, StoreUnavailable
from failsoft.exchange import Operation, Script
from failsoft.exchange.table import Table
from failsoft.inspection.counters import fly
from failsoft.ratelimit import Quota
from failsoft.ratelimit.concern import SCHEMA
from failsoft.ratelimit.manage import Peek
from failsoft.settings import Settings
from failsoft.stores import Store, open_store

__all__ = ["Findings", "latency", "ms", "refused"]


class Findings:
    """What was found about one store."""

    def __init__(self, name: str, url: str) -> None:
        self.lines = [f"{name}: {url}"]
        self.data: dict[str, Any] = {"name": name, "url": url, "findings": []}

    def finding(self, text: str) -> None:
        """Something is wrong."""
        self.lines.append(f"  ! {text}")
        self.data["findings"].append(text)


def ms(seconds: float | None) -> str:
    """For people, in milliseconds."""
    return "unknown" if seconds is None else f"{seconds * 1000:.2f} ms"


class _Writes:
    """What a server refuses that takes no writes, because it is full or may not. It writes nothing."""

    script = Script("store.check", "#!lua\nreturn 1")
    keys: tuple[str, ...] = ()
    arguments: tuple[str, ...] = ()

    def parse(self, reply: Any) -> Any:
        """It says nothing."""
        return reply

    def apply(self, table: Table, now: float) -> Any:
        """In memory there is nothing to find out."""


def refused(found: Findings, opened: Store, prefix: str, *, limits: bool) -> None:
    """Find out whether a server that answers PING does what requests ask of it.

    Args:
        found: hears of it.
        opened: the store.
        prefix: of keys.
        limits: whether limits may be kept there.
    """
    asked: list[Operation] = [_Writes(), _peek(prefix, 0)] if limits else [_Writes()]
    try:
        answers = fly(opened, asked)
    except StoreUnavailable as error:
        answers = [error]
    for answer in answers:
        if isinstance(answer, OperationFailed | StoreUnavailable):
            found.finding(f"it is there, and does not do what requests ask: {answer}")
            return


def _peek(prefix: str, number: int) -> Peek:
    """A look at a limit that nobody has."""
    return Peek([Quota(amount=1, window=1)], [f"{prefix}:{SCHEMA}:rl:latency:1/1f:{{{number % 64}}}"])


def latency(settings: Settings, name: str, count: int) -> Findings:
    """Flights as requests make them, one after the other; each looks at a limit that nobody has."""
    opened = open_store(settings, name=name)
    found = Findings(name, opened.url)
    deadline: float | None = getattr(opened, "deadline", None)
    taken: list[float] = []
    failures: Counter[str] = Counter()
    said = ""
    try:
        for number in range(-1, count):
            look = _peek(settings.prefix, number)
            start = SYSTEM.monotonic()
            try:
                # The first one connects, and is not counted.
                answer = fly(opened, [look])[0] if number < 0 else opened.flight([look])[0]
            except StoreUnavailable as error:
                failures[error.reason] += 1
                said = str(error)
                if number < 0:
                    break
                continue
            if isinstance(answer, OperationFailed):
                failures["failed"] += 1
                said = str(answer)
            elif number >= 0:
                taken.append(SYSTEM.monotonic() - start)
    finally:
        opened.close()
    return _measured(found, taken, failures, said, deadline)


def _measured(
    found: Findings, taken: Sequence[float], failures: Mapping[str, int], said: str, deadline: float | None
) -> Findings:
    figures: dict[str, Any] = {"flights": len(taken), "failures": dict(failures), "deadline_ms": None}
    if deadline is not None:
        figures["deadline_ms"] = deadline * 1000
    if taken:
        sorted_ = sorted(taken)
        values = {
            "min": sorted_[0],
            "median": statistics.median(sorted_),
            "p99": sorted_[min(len(sorted_) - 1, len(sorted_) * 99 // 100)],
            "max": sorted_[-1],
        }
        figures |= {f"{what}_ms": round(value * 1000, 3) for what, value in values.items()}
        found.lines.append(
            f"  {len(taken)} flights: " + ", ".join(f"{what} {ms(value)}" for what, value in values.items())
        )
        if deadline is not None and values["p99"] > deadline / 2:
            found.finding(f"p99 is over half of the deadline, {ms(deadline)}: a busy server will not answer in time")
    if failures:
        reasons = ", ".join(f"{number} {reason}" for reason, number in failures.items())
        found.finding(f"without an answer: {reasons}; the last: {said}")
    found.data["latency"] = figures
    return found
