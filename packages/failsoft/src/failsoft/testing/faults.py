"""A store that fails on demand: what an application does then can be tested without a server to kill."""

import asyncio
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

from failsoft.clock import SYSTEM, Clock
from failsoft.durations import Duration, seconds
from failsoft.errors import OperationFailed, StoreUnavailable, UnavailableReason
from failsoft.exchange import Operation
from failsoft.stores import MemoryStore

__all__ = ["FaultyStore"]

_REMEMBERED = 10_000
"""Flights that are remembered; the oldest are forgotten first."""


class FaultyStore:
    """A `MemoryStore` that passes for a server: it can be away, hang, or fail an operation, and it counts what is asked
    of it.

    Without a fault it answers as memory does. `blocking` is True, so that drivers and concerns treat it as they treat a
    server.

    Args:
        clock: injectable time, for the state in it.

    Attributes:
        flights: for each flight that was asked for, the names of its operations; those that failed too.
        keys: every key that an operation named.
        on_loop: how often the waiting `flight` was called in a thread that runs an event loop. In an asynchronous
            application that is a mistake: every other request waits too.
        waiting: set while a flight hangs.

    Example:
        >>> store = FaultyStore()
        >>> runtime = Runtime(Settings(limits=["10/minute"]), store=store)
        >>> with store.away():
        ...     runtime.admit(exchange)
    """

    blocking = True
    deadline = 0.1
    url = "faulty://"

    def __init__(self, *, clock: Clock = SYSTEM) -> None:
        self.flights: deque[tuple[str, ...]] = deque(maxlen=_REMEMBERED)
        self.keys: set[str] = set()
        self.on_loop = 0
        self.waiting = threading.Event()
        self._memory = MemoryStore(clock=clock)
        self._away: StoreUnavailable | None = None
        self._hang: tuple[float, threading.Event] | None = None
        self._failing: dict[str, str] = {}

    @contextmanager
    def away(self, reason: UnavailableReason = "no_connection") -> Iterator[None]:
        """Within, no flight is answered: each raises `StoreUnavailable` at once, with `reason`."""
        self._away = StoreUnavailable(reason, "the store was told to be away")
        try:
            yield
        finally:
            self._away = None

    @contextmanager
    def hanging(self, deadline: Duration = 0.1) -> Iterator[None]:
        """Within, each flight waits for `deadline` (in real time) and then raises `StoreUnavailable` with the reason
        ``timeout``.

        A flight that still waits at the end is answered. Where the test cancels what waits, take a long deadline.
        """
        self._hang = (seconds(deadline), threading.Event())
        try:
            yield
        finally:
            _, released = self._hang
            self._hang = None
            released.set()
            self.waiting.clear()

    @contextmanager
    def failing(
        self, operation: str, error: str = "OOM command not allowed when used memory > 'maxmemory'."
    ) -> Iterator[None]:
        """Within, operations whose script has the name `operation` are answered with an error; their neighbours are
        not.

        Args:
            operation: such as ``"ratelimit.acquire"``.
            error: what the server says.
        """
        self._failing[operation] = error
        try:
            yield
        finally:
            del self._failing[operation]

    def flight(self, operations: Sequence[Operation]) -> list[Any]:
        """Run `operations`, or fail as told."""
        return self.begin(operations)()

    def begin(self, operations: Sequence[Operation]) -> Callable[[], list[Any]]:
        """Ask for a flight; what is returned waits for its answers, or fails as told."""
        self.on_loop += _loop_runs_here()
        self._note(operations)
        began = time.monotonic()

        def wait() -> list[Any]:
            if self._hang is not None:
                deadline, released = self._hang
                self.waiting.set()
                if not released.wait(max(0.0, began + deadline - time.monotonic())):
                    raise StoreUnavailable("timeout", "the store was told to hang")
            return self._answer(operations)

        return wait

    async def aflight(self, operations: Sequence[Operation]) -> list[Any]:
        """The same, from a coroutine."""
        self._note(operations)
        if self._hang is not None:
            deadline, released = self._hang
            self.waiting.set()
            until = asyncio.get_running_loop().time() + deadline
            while not released.is_set():
                if asyncio.get_running_loop().time() >= until:
                    raise StoreUnavailable("timeout", "the store was told to hang")
                await asyncio.sleep(0.001)
        else:
            await asyncio.sleep(0)  # a server's answer is never there at once, so other tasks get their turn
        return self._answer(operations)

    def start(self) -> None:
        """Nothing to warm up."""

    def close(self) -> None:
        """Forget everything."""
        self._memory.close()

    async def aclose(self) -> None:
        """The same, from a coroutine."""
        self.close()

    def _note(self, operations: Sequence[Operation]) -> None:
        self.flights.append(tuple(operation.script.name for operation in operations))
        for operation in operations:
            self.keys.update(operation.keys)

    def _answer(self, operations: Sequence[Operation]) -> list[Any]:
        if self._away is not None:
            raise StoreUnavailable(self._away.reason, "the store was told to be away")
        answers: list[Any] = []
        for operation in operations:
            error = self._failing.get(operation.script.name)
            answers += self._memory.flight([operation]) if error is None else [OperationFailed(error)]
        return answers

    def __repr__(self) -> str:
        return f"FaultyStore(flights={len(self.flights)})"


def _loop_runs_here() -> bool:
    try:
        asyncio.get_running_loop()
    except RuntimeError:
        return False
    return True
