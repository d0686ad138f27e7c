"""What people ask of counters: how they stand, to give units back, and to forget them.

No key is ever searched for: who asks says which.
"""

from collections.abc import Callable, Hashable, Sequence
from typing import Any

from failsoft.exchange import Operation, Table
from failsoft.quota import Quota
from failsoft.ratelimit import scripts
from failsoft.ratelimit.acquire import PEEK, Acquire, Rule
from failsoft.ratelimit.adjust import Adjust, failure, grouped
from failsoft.ratelimit.meters import Meter, previous_key

__all__ = ["Peek", "Refund", "Reset"]


class Peek(Acquire):
    """How quotas and penalties stand: the rows of `Acquire`, and nothing is charged or noted.

    Args:
        quotas: a quota or a penalty for each key.
        keys: where each one's state lies; no two are the same.
        costs: the units that each row is about; 1 unless given.
    """

    __slots__ = ()

    wide = scripts.PEEK

    def __init__(self, quotas: Sequence[Rule], keys: Sequence[str], costs: Sequence[int] | None = None) -> None:
        super().__init__(quotas, keys, [1] * len(keys) if costs is None else costs, modes=[PEEK] * len(keys))


class Refund(Adjust):
    """Give back units of what counts now, whenever it was charged: the newest first, and never more than that.

    The answer has a row for each key as `Adjust` gives it. Like an adjustment it must not run twice.

    Args:
        quotas: one for each key. They may be left out if `steps` are given.
        keys: where each quota's state lies; no two are the same.
        units: what to give back for each, at least 0.
        steps: what `step_of` gives for each quota; made here unless given.
    """

    __slots__ = ()

    script = scripts.REFUND

    def __init__(
        self,
        quotas: Sequence[Quota],
        keys: Sequence[str],
        units: Sequence[int],
        *,
        steps: Sequence[Meter] | None = None,
    ) -> None:
        super().__init__(quotas, keys, [0] * len(keys), [-one for one in units], steps=steps)

    def apply(self, table: Table, now: float) -> list[int]:
        """The same in this process."""
        lines = list(zip(self.steps, self.keys, self.deltas, strict=False))  # second keys come after the others
        for step, key, delta in lines:
            step.give_back(table, key, -delta, now)
        return [number for step, key, _ in lines for number in step.weigh(table, key, 0, now)[:3]]

    def _part(self, lines: Sequence[int]) -> "Refund":
        return Refund(
            (),
            [self.keys[i] for i in lines],
            [-self.deltas[i] for i in lines],
            steps=[self.steps[i] for i in lines],
        )


class Reset:
    """Forget what lies under `keys`, whatever it counts. The answer is for how many there was something to forget."""

    __slots__ = ("_n", "keys")

    script = scripts.RESET
    arguments = ()

    def __init__(self, keys: Sequence[str]) -> None:
        self._n = len(keys)
        self.keys = [*keys, *(previous_key(key) for key in keys)]

    def parse(self, reply: Any) -> int:
        """How many there were."""
        return int(reply)

    def apply(self, table: Table, now: float) -> int:
        """The same in this process."""
        found = 0
        for key in self.keys[: self._n]:
            found += table.find(key, now) is not None
            table.delete(key)
        return found

    def divide(self, place: Callable[[str], Hashable]) -> Sequence[Operation]:
        """One for each place. See `failsoft.exchange.Divisible`."""
        groups = grouped(self.keys[: self._n], place)
        return [Reset([self.keys[i] for i in one]) for one in groups] if len(groups) > 1 else (self,)

    def unite(self, parts: Sequence[Operation], answers: Sequence[Any]) -> tuple[Any, Sequence[Operation]]:
        """How many in all, or the failure of a part."""
        failed = failure(answers)
        return (sum(answers) if failed is None else failed), ()
