"""What every store is, wherever it keeps its data.

A store runs operations in *flights*. Rules that all stores keep:

- The answers stand in the order of the operations. An answer is what the operation's `parse` (or `apply`) made, or an
  `OperationFailed`, returned and not raised, for an operation that the store answered with an error: it fails alone.
- No answer at all is a `StoreUnavailable`, within the call deadline, whatever happened to the store.
- A flight of no operations does nothing.
- A flight that failed is not repeated by the store: it may have run.
"""

from collections.abc import Callable, Sequence
from typing import Any, Protocol, runtime_checkable

from failsoft.exchange.operations import Operation
from failsoft.ratelimit.acquire import Rule

__all__ = ["Limited", "Store"]


class Store(Protocol):
    """Where the state lies that requests share.

    Attributes:
        url: where it is, with the password masked.
        blocking: whether `flight` does I/O, so that it must not be called on an event loop.
        deadline: seconds that a flight takes at most.
    """

    @property
    def url(self) -> str: ...

    @property
    def blocking(self) -> bool: ...

    @property
    def deadline(self) -> float: ...

    def start(self) -> None:
        """Warm up in the background: for the running event loop if there is one, else for threads. May be repeated."""
        ...

    def flight(self, operations: Sequence[Operation]) -> list[Any]:
        """Run `operations` and wait for their answers, at most the call deadline.

        Raises:
            StoreUnavailable: there is no answer; some or all operations may have run.
        """
        ...

    def begin(self, operations: Sequence[Operation]) -> Callable[[], list[Any]]:
        """Send `operations` from this thread. What is returned waits for their answers: at most the call deadline, counted
        from here. It must be called, once; in between there may be other stores' flights, and nothing that takes long.

        Raises:
            StoreUnavailable: there will be no answer; raised here, or by what is returned.
        """
        ...

    async def aflight(self, operations: Sequence[Operation]) -> list[Any]:
        """The same, from a coroutine. A cancelled caller's operations may run nevertheless."""
        ...

    def close(self) -> None:
        """Let go of everything. Flights then raise `StoreUnavailable` with the reason ``closed``."""
        ...

    async def aclose(self) -> None:
        """The same, from a coroutine."""
        ...


@runtime_checkable
class Limited(Protocol):
    """A store that cannot serve every limit."""

    def unsupported(self, rule: Rule, mode: int = 0, *, stamps: bool = False) -> str | None:
        """Why it cannot decide about `rule`, and what to do about it; None if it can. Asked when a limit is bound to a route.

        Args:
            rule: a quota or a penalty.
            mode: of the limit, as in `Acquire`.
            stamps: whether charges are to be corrected later (refunds, reservations, charges by response).
        """
        ...
