"""Corrections of what was charged: refunds, charges by response status, the settlement of a reservation.

A negative delta gives back what was charged at a *stamp* (see `meters`): only in that window, never below zero; it makes no key and
prolongs none. Of a GCRA charge only what has not drained yet comes back. What was charged in a window that is over is
no longer counted by anybody, and nothing is given back.

A positive delta is charged to the present window without a check, whatever the stamp. It may exceed the capacity: later requests
are refused until it is worked off. A moving window holds `capacity` units at most: it is then full of the newest.

An adjustment must not run twice: no store repeats a flight.
"""

from collections.abc import Callable, Hashable, Sequence
from typing import Any

from failsoft.errors import OperationFailed, StoreUnavailable
from failsoft.exchange import Operation, Table
from failsoft.quota import Quota
from failsoft.ratelimit.meters import Meter, meter_of, previous_key
from failsoft.ratelimit.scripts import ADJUST

__all__ = ["Adjust", "failure", "grouped"]

_MOST = 10**12
"""Units: a quota's largest amount. Servers count exactly up to 2^53."""


class Adjust:
    """Add to what was charged, or give back.

    The answer has a row for each key as `Acquire` gives it for a cost of 0: whether the quota is not overdrawn, the units that
    remain, and the milliseconds until there are more.

    Args:
        quotas: one for each key. They may be left out if `steps` are given.
        keys: where each quota's state lies; no two are the same.
        stamps: what `Acquire` gave for each.
        deltas: units to charge, or below zero, to give back. What is over 10^12 is cut off: nobody works off more.
        steps: what `step_of` gives for each quota; made here unless given.
    """

    __slots__ = ("arguments", "deltas", "keys", "stamps", "steps")

    script = ADJUST

    def __init__(
        self,
        quotas: Sequence[Quota],
        keys: Sequence[str],
        stamps: Sequence[int],
        deltas: Sequence[int],
        *,
        steps: Sequence[Meter] | None = None,
    ) -> None:
        self.stamps = stamps
        self.deltas: Sequence[int] = [max(-_MOST, min(delta, _MOST)) for delta in deltas]
        self.steps: Sequence[Meter] = [meter_of(quota) for quota in quotas] if steps is None else steps
        self.keys: Sequence[str] = [
            *keys,
            *(previous_key(key) for key, step in zip(keys, self.steps, strict=True) if step.second),
        ]
        self.arguments: Sequence[str] = [
            argument
            for step, stamp, delta in zip(self.steps, stamps, self.deltas, strict=True)
            for argument in (*step.arguments, str(stamp), str(delta))
        ]

    def parse(self, reply: Any) -> list[int]:
        """Three whole numbers for each key, as the script returns them."""
        return reply  # type: ignore[no-any-return]  # the script's own integers

    def apply(self, table: Table, now: float) -> list[int]:
        """The same in this process."""
        out: list[int] = []
        lines = list(zip(self.steps, self.keys, self.stamps, self.deltas, strict=False))
        for step, key, stamp, delta in lines:
            if delta > 0:
                step.charge(table, key, delta, now, step.weigh(table, key, delta, now)[3])
            elif delta < 0:
                step.refund(table, key, -delta, stamp, now)
        for step, key, _, _ in lines:
            out += step.weigh(table, key, 0, now)[:3]
        return out

    def divide(self, place: Callable[[str], Hashable]) -> Sequence[Operation]:
        """One adjustment for each place. See `failsoft.exchange.Divisible`."""
        groups = grouped(self.keys[: len(self.steps)], place)
        return [self._part(lines) for lines in groups] if len(groups) > 1 else (self,)

    def _part(self, lines: Sequence[int]) -> "Adjust":
        return Adjust(
            (),
            [self.keys[i] for i in lines],
            [self.stamps[i] for i in lines],
            [self.deltas[i] for i in lines],
            steps=[self.steps[i] for i in lines],
        )

    def unite(self, parts: Sequence[Operation], answers: Sequence[Any]) -> tuple[Any, Sequence[Operation]]:
        """All rows, or the failure of a part; what the other parts corrected stays correct."""
        failed = failure(answers)
        if failed is not None or len(parts) == 1:
            return failed or answers[0], ()
        row_of = {
            key: rows[i * 3 : i * 3 + 3]
            for part, rows in zip(parts, answers, strict=True)
            for i, key in enumerate(part.keys[: len(rows) // 3])
        }
        return [number for key in self.keys[: len(self.steps)] for number in row_of[key]], ()


def grouped(keys: Sequence[str], place: Callable[[str], Hashable]) -> list[list[int]]:
    """Which of `keys` lie in one place, in their order."""
    groups: dict[Hashable, list[int]] = {}
    for index, key in enumerate(keys):
        groups.setdefault(place(key), []).append(index)
    return list(groups.values())


def failure(answers: Sequence[Any]) -> OperationFailed | StoreUnavailable | None:
    """What the whole of a divided operation failed with, if a part did."""
    failures = [answer for answer in answers if isinstance(answer, (OperationFailed, StoreUnavailable))]
    # A part without any answer weighs more than one that was answered with an error: it may have run.
    return next((one for one in failures if isinstance(one, StoreUnavailable)), failures[0] if failures else None)
