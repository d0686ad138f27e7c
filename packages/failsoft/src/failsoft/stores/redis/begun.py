"""A flight that was sent, and whose answers are fetched later."""

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from failsoft.exchange.operations import Operation
from failsoft.guard import Admission
from failsoft.stores.redis.commands import answers
from failsoft.stores.redis.wire import Warm

if TYPE_CHECKING:
    from failsoft.stores.redis.sync import Pool

__all__ = ["Begun"]


class Begun:
    """Waits for the answers, once. It holds the connection: whoever drops it instead of calling it closes that.

    Args:
        pool: of the connection.
        operations: those that were sent.
        connection: on which.
        fresh: whether the whole deadline was left then.
        admission: the breaker's.
    """

    __slots__ = ("_admission", "_connection", "_fresh", "_operations", "_pool")

    def __init__(
        self, pool: "Pool", operations: Sequence[Operation], connection: Warm, fresh: bool, admission: Admission
    ) -> None:
        self._pool = pool
        self._operations = operations
        self._connection: Warm | None = connection
        self._fresh = fresh
        self._admission = admission

    def __del__(self) -> None:
        connection, self._connection = self._connection, None
        if connection is not None:
            self._pool._lost(GeneratorExit(), connection, self._fresh, self._admission)

    def __call__(self) -> list[Any]:
        connection, self._connection = self._connection, None
        if connection is None:
            raise RuntimeError("the answers of this flight were asked for twice")
        try:
            replies, intact = self._pool._replies(connection, self._operations)
        except BaseException as error:
            self._pool._lost(error, connection, self._fresh, self._admission)
            raise
        self._pool._landed(connection, intact, self._admission)
        return answers(self._operations, replies, self._pool._shared)
