"""The store that is this process: for one process, for tests, and for trying things out."""

import math
from collections.abc import Callable, Sequence
from typing import Any

from failsoft.clock import SYSTEM, Clock
from failsoft.exchange import Operation, Table
from failsoft.exchange.table import DEFAULT_BOUND

__all__ = ["MemoryStore"]


class MemoryStore:
    """Operations on a bounded `Table` of this process.

    It is always there: a flight never raises `StoreUnavailable`. Its state is lost with the process, and each worker has its own.

    Args:
        clock: injectable time.
        bound: keys at most; the oldest go first, exhausted limits last.
    """

    blocking = False
    deadline = math.inf
    url = "memory://"

    __slots__ = ("clock", "table")

    def __init__(self, *, clock: Clock = SYSTEM, bound: int = DEFAULT_BOUND) -> None:
        self.clock = clock
        self.table = Table(bound)

    def flight(self, operations: Sequence[Operation]) -> list[Any]:
        """Run `operations`, each atomically. Waits only for the table's lock."""
        now = self.clock.time()
        table = self.table
        answers: list[Any] = []
        for operation in operations:
            with table.lock:
                answers.append(operation.apply(table, now))
        return answers

    def begin(self, operations: Sequence[Operation]) -> Callable[[], list[Any]]:
        """Run `operations` now; what is returned gives their answers."""
        answers = self.flight(operations)
        return lambda: answers

    async def aflight(self, operations: Sequence[Operation]) -> list[Any]:
        """The same, for coroutines; it does not suspend."""
        return self.flight(operations)

    def start(self) -> None:
        """Nothing to warm up."""

    def close(self) -> None:
        """Forget everything."""
        with self.table.lock:
            self.table.clear()

    async def aclose(self) -> None:
        """The same, for coroutines."""
        self.close()

    def __repr__(self) -> str:
        return f"MemoryStore(bound={self.table.bound})"
