"""From an operation to its answer, step by step: the same for threads and for tasks, which only differ in how they make a call."""

import time
from collections.abc import Generator
from typing import Any

from failsoft.errors import OperationFailed
from failsoft.exchange.operations import Operation
from failsoft.stores.storages.backends import Backend
from failsoft.stores.storages.decision import Call
from failsoft.stores.storages.sides import State, Strategies

__all__ = ["Decision", "Way", "made"]

Decision = Generator[Call, Any, list[int]]
"""Yields what to do, is sent the result, returns the answer."""


def made(strategies: Strategies, call: Call) -> Any:
    """The result of a call, or what to await for it."""
    method = getattr(strategies[call.algorithm], call.method)
    if call.method == "get_window_stats":
        return method(call.item, call.key)
    return method(call.item, call.key, cost=call.cost)


class Way:
    """From one operation to its answer, call by call; whoever walks it makes the calls.

    Args:
        operation: what is asked.
        decision: how to come to its answer, or why there is none.
        backend: which storage.
        state: the store's, which tells of what the storage refuses.

    Attributes:
        answer: what came of the operation, once there is no call any more.
        call: what is to be done next, or None.
    """

    def __init__(
        self, operation: Operation, decision: Decision | OperationFailed, backend: Backend, state: State
    ) -> None:
        self._operation = operation
        self._backend = backend
        self._state = state
        self.answer: Any = None
        self.call: Call | None = None
        if isinstance(decision, OperationFailed):
            self.answer = decision
        else:
            self._decision = decision
            self.go_on(None)

    def go_on(self, result: Any) -> None:
        """The call had this result."""
        try:
            self.call = self._decision.send(result)
        except StopIteration as stop:
            self.call, self.answer = None, stop.value

    def fail(self, error: Exception) -> None:
        """The call failed: that is the answer, or a result that `limits` tripped over, or no answer at all, and raised."""
        call = self.call
        if self._backend.is_answer(error):
            kind = type(error).__name__
            self.call, self.answer = None, OperationFailed(f"{self._operation.script.name}: {kind}: {error}", code=kind)
            self._state.refused(self.answer)
        elif call is not None and call.method == "get_window_stats" and isinstance(error, TypeError):
            self.go_on(
                (time.time(), call.item.amount)
            )  # a moving window on MongoDB whose entries are all too old to count
        else:
            raise error
