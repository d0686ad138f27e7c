"""One atomic decision over any number of limits: all of them are charged, or none.

For each limit the answer has a *row* of three whole numbers: whether it lets the request pass (1 or 0), the units that remain, and the
milliseconds until there are more, or, where it does not pass, until it would. `apply` (by way of `meters`) and the scripts
compute the same numbers from the same state, so that a store in this process and a server agree to the unit.

A limit may be *soft* (shadow mode): it never makes the decision fail, and is charged only if it fits itself. It may be
*peeked* at: it says whether its cost fits, but is not charged.

Stamps, if they are asked for, stand after the rows: for each limit a whole number that names the window that was charged, for
`Adjust`; 0 where nothing was.

A penalty may stand among the limits. It guards as many lines directly before it as its cost says: when the decision fails
because of one of those, one breach is noted. That is the only thing that a refused request writes.

The usual case, fixed windows and GCRA without modes, has a script of its own, which a server runs in half the time.
"""

from collections.abc import Callable, Hashable, Sequence
from functools import lru_cache
from math import ceil
from typing import Any

from failsoft.errors import OperationFailed, StoreUnavailable
from failsoft.exchange import Operation, Table
from failsoft.quota import Quota
from failsoft.ratelimit.adjust import Adjust, failure, grouped
from failsoft.ratelimit.meters import PEEK, SOFT, Meter, Weight, meter_of, previous_key, uncharged
from failsoft.ratelimit.penalty import Breaches, Penalty, PenaltyMeter
from failsoft.ratelimit.scripts import LEAN as SCRIPT
from failsoft.ratelimit.scripts import WIDE

__all__ = [
    "ARGUMENTS",
    "PEEK",
    "SCRIPT",
    "SOFT",
    "WIDE",
    "Acquire",
    "AcquireAgain",
    "Rule",
    "quota_arguments",
    "step_of",
]

ARGUMENTS = 5
"""Arguments for each key: kind, capacity, window in ms or emission in µs, flags, cost."""

Rule = Quota | Penalty
"""What may stand in a decision."""


@lru_cache(maxsize=1024)  # a dynamic limit asks with each request
def step_of(rule: Rule, mode: int = 0) -> Meter:
    """The step that decides about `rule`; `mode` is a sum of `SOFT` and `PEEK`."""
    return PenaltyMeter(rule, mode) if isinstance(rule, Penalty) else meter_of(rule, mode)


def quota_arguments(rule: Rule, cost: int, mode: int = 0) -> tuple[str, ...]:
    """The arguments that go with one key."""
    return (*step_of(rule, mode).arguments, str(cost))


class Acquire:
    """Charge every key's quota with its cost, or none of them.

    Args:
        quotas: a quota or a penalty for each key. They may be left out if `arguments` and `steps` are given.
        keys: where each one's state lies; no two are the same.
        costs: units, each at least 0; for a penalty, how many lines directly before it it guards.
        arguments: what `quota_arguments` gives for each, in one sequence; made here unless given.
        steps: what `step_of` gives for each; made here unless given.
        modes: a sum of `SOFT` and `PEEK` for each; 0 unless given. Not needed with `arguments` and `steps`.
        stamps: whether the answer has stamps after the rows.
    """

    wide = WIDE
    """The script for what the usual one does not know."""

    def __init__(
        self,
        quotas: Sequence[Rule],
        keys: Sequence[str],
        costs: Sequence[int],
        arguments: Sequence[str] | None = None,
        steps: Sequence[Meter] | None = None,
        *,
        modes: Sequence[int] | None = None,
        stamps: bool = False,
    ) -> None:
        if steps is None:
            steps = [step_of(rule, mode) for rule, mode in zip(quotas, modes or [0] * len(quotas), strict=True)]
        if arguments is None:
            arguments = [a for step, cost in zip(steps, costs, strict=True) for a in (*step.arguments, str(cost))]
        self.keys = keys
        self.costs = costs
        self.arguments = arguments
        self.steps = steps
        self.stamps = stamps
        self.script = SCRIPT
        for step in steps:
            if not step.lean or stamps:
                self._widen()
                return

    def _widen(self) -> None:
        self.script = self.wide
        others = [previous_key(key) for key, step in zip(self.keys, self.steps, strict=True) if step.second]
        if others:
            self.keys = [*self.keys, *others]
        if self.stamps:
            self.arguments = (*self.arguments, "1")

    def admits(self, rows: Sequence[int]) -> bool:
        """Whether the decision with these rows let the request pass: whether all limits fit that are not soft."""
        return all(rows[i * 3] or step.soft for i, step in enumerate(self.steps))

    def parse(self, reply: Any) -> list[int]:
        """Three whole numbers for each key, and the stamps if they were asked for, as the script returns them.

        Raises:
            ValueError, TypeError: it is no such list. Taken as one it would fail this request, and those of a later outage.
        """
        if len(reply) != len(self.steps) * (4 if self.stamps else 3):
            raise ValueError(f"{len(reply)} numbers for {len(self.steps)} limits")
        sum(reply)  # raises where one is no number, in 0.1 µs a request
        return reply  # type: ignore[no-any-return]  # the script's own integers; a copy would cost 0.3 µs a request

    def apply(self, table: Table, now: float) -> list[int]:
        """The same in this process."""
        if self.script is not SCRIPT:
            return self._decide(table, now)
        # The usual case by itself, in less than half of the time: fixed windows that have begun, and none is used up. Each is charged at
        # once, and given back if a later one is another case. Counted by hand: a strict zip costs as much as one limit.
        out: list[int] = []
        peek, keys, costs = table.peek, self.keys, self.costs
        place = 0
        for step in self.steps:
            entry = peek(keys[place])
            if entry is None:
                break
            used = entry.value + costs[place]
            left = step.plain - used
            reset = ceil((entry.expires - now) * 1000 - 0.001)  # as the meter says it
            if left <= 0 or reset <= 0:
                break
            entry.value = used
            out += (1, left, reset)
            place += 1
        else:
            return out
        for charged in range(place):
            if (entry := peek(keys[charged])) is not None:
                entry.value -= costs[charged]
        return self._decide(table, now)

    def _decide(self, table: Table, now: float) -> list[int]:
        """Any case."""
        steps, keys, costs = self.steps, self.keys, self.costs
        out: list[int] = []
        weights: list[Weight] = []
        fits_all = True
        for step, key, cost in zip(steps, keys, costs, strict=False):  # second keys come after the others
            weight = step.weigh(table, key, cost, now)
            weights.append(weight)
            out += weight[:3]
            if not weight[0] and not step.soft:
                fits_all = False
        stamps = [0] * len(steps)
        for i, step in enumerate(steps):
            if isinstance(step, PenaltyMeter):
                if not step.peek and self._guilty(i, out):
                    step.breach(table, keys[i], 1, now)
                    out[i * 3 : i * 3 + 3] = step.weigh(table, keys[i], 0, now)[:3]
            elif out[i * 3]:
                if fits_all and not step.peek:
                    stamps[i] = step.charge(table, keys[i], costs[i], now, weights[i][3])
                else:
                    uncharged(out, i, costs[i], step)
            elif costs[i] <= step.capacity:  # else it would never be admitted, whatever is left
                table.keep(keys[i], costs[i])
        return out + stamps if self.stamps else out

    def _guilty(self, penalty: int, rows: Sequence[int]) -> bool:
        """Whether the decision failed because of a line that the penalty at this place guards."""
        guarded = range(max(0, penalty - self.costs[penalty]), penalty)
        return any(not rows[i * 3] and not self.steps[i].soft for i in guarded)

    def divide(self, place: Callable[[str], Hashable]) -> Sequence[Operation]:
        """One decision for each place, with stamps. See `failsoft.exchange.Divisible`."""
        groups = grouped(self.keys[: len(self.steps)], place)
        return [self._part(lines) for lines in groups] if len(groups) > 1 else (self,)

    def _part(self, lines: Sequence[int]) -> "Acquire":
        costs, arguments = list(self.costs), list(self.arguments)
        for i in lines:
            if isinstance(self.steps[i], PenaltyMeter):  # it guards what is left of its lines here
                costs[i] = sum(i - costs[i] <= other < i for other in lines)
                arguments[i * ARGUMENTS + ARGUMENTS - 1] = str(costs[i])
        part = Acquire(
            (),
            [self.keys[i] for i in lines],
            [costs[i] for i in lines],
            [argument for i in lines for argument in arguments[i * ARGUMENTS : (i + 1) * ARGUMENTS]],
            [self.steps[i] for i in lines],
            stamps=True,
        )
        part.script = self.wide
        return part

    def unite(self, parts: Sequence[Operation], answers: Sequence[Any]) -> tuple[Any, Sequence[Operation]]:
        """The rows of all parts, or the failure of one; and the refunds of what was charged in vain.

        A part without an answer may have been charged; without its stamps nobody can tell, and it is not refunded. The row of a penalty
        whose lines lie elsewhere is that of before its breach.
        """
        if len(parts) == 1:
            return answers[0], ()
        failed = failure(answers)
        line_of = {key: i for i, key in enumerate(self.keys[: len(self.steps)])}
        rows, stamps = [0] * (3 * len(line_of)), [0] * len(line_of)
        undo: list[Operation] = []
        answered = [
            (part, list(answer))
            for part, answer in zip(parts, answers, strict=True)
            if isinstance(part, Acquire) and not isinstance(answer, (OperationFailed, StoreUnavailable))
        ]
        refused = failed is not None or not all(part.admits(answer) for part, answer in answered)
        for part, answer in answered:
            if refused:
                undo += part._take_back(answer)
            for i in range(len(part.steps)):
                line = line_of[part.keys[i]]
                rows[line * 3 : line * 3 + 3] = answer[i * 3 : i * 3 + 3]
                stamps[line] = answer[len(part.steps) * 3 + i]
        if failed is not None:
            return failed, undo
        undo += self._breaches(parts, rows)
        return rows + stamps if self.stamps else rows, undo

    def _take_back(self, answer: list[int]) -> list[Operation]:
        """The refund of what this part charged; `answer` is corrected as if it had not been."""
        n = len(self.steps)
        charged = [i for i in range(n) if answer[n * 3 + i]]
        for i in charged:
            uncharged(answer, i, self.costs[i], self.steps[i])
        refund = Adjust(
            (),
            [self.keys[i] for i in charged if self.costs[i]],
            [answer[n * 3 + i] for i in charged if self.costs[i]],
            [-self.costs[i] for i in charged if self.costs[i]],
            steps=[self.steps[i] for i in charged if self.costs[i]],
        )
        answer[n * 3 :] = [0] * n
        return [refund] if refund.keys else []

    def _breaches(self, parts: Sequence[Operation], rows: Sequence[int]) -> list[Operation]:
        """What penalties must be told of lines that lie elsewhere, unless they noted a breach with their own."""
        home_of = {key: part for part in parts for key in part.keys}
        found: list[Operation] = []
        for i, step in enumerate(self.steps):
            if not isinstance(step, PenaltyMeter) or step.peek or not rows[i * 3] or not self._guilty(i, rows):
                continue
            guarded = range(max(0, i - self.costs[i]), i)
            guilty = [j for j in guarded if not rows[j * 3] and not self.steps[j].soft]
            if all(home_of[self.keys[j]] is not home_of[self.keys[i]] for j in guilty):
                found.append(Breaches(self.keys[i], step.rule))
        return found


class AcquireAgain(Acquire):
    """The decision of `model` over other keys, in a third of the time: all the rest is the same, and was worked out for that one.

    Args:
        model: one without second keys.
        keys: as many as it has.
    """

    def __init__(self, model: Acquire, keys: Sequence[str]) -> None:
        self.keys = keys
        self.costs = model.costs
        self.arguments = model.arguments
        self.steps = model.steps
        self.stamps = model.stamps
        self.script = model.script
