"""Carries decisions that have I/O in their middle, from either world."""

import asyncio
from collections.abc import Generator, Mapping, Sequence
from typing import TypeVar

from failsoft.drivers import aio, sync
from failsoft.errors import OutsideRequest
from failsoft.exchange import Answers, Exchange, Operation
from failsoft.stores.base import Store

__all__ = ["StoreCarrier", "in_event_loop"]

_T = TypeVar("_T")


class StoreCarrier:
    """To and from one store.

    A request of another application may be current. What it has waited for is not these stores, though they have the same names.

    Args:
        stores: the application's own mapping, by their names; looked up each time.
        name: which of them.
    """

    __slots__ = ("_name", "_stores")

    def __init__(self, stores: Mapping[str, Store], name: str) -> None:
        self._stores = stores
        self._name = name

    def run(self, steps: Generator[Sequence[Operation], Answers, _T], exchange: Exchange | None) -> _T:
        """From synchronous code.

        Raises:
            OutsideRequest: it is called on an event loop that serves other requests as well.
        """
        store = self._stores[self._name]
        answers: Answers | None = None
        while True:
            try:
                wanted = next(steps) if answers is None else steps.send(answers)
            except StopIteration as stop:
                result: _T = stop.value
                return result
            if exchange is not None and store.blocking and not exchange.facts.synchronous and in_event_loop():
                steps.close()
                raise OutsideRequest(
                    "the session would have to be fetched from its store, on the event loop, where that would hold up every other request. "
                    "Await its asynchronous method instead, or use it in a thread"
                )
            try:
                answers = sync.fly(self._own(exchange), self._stores, self._name, wanted)
            except BaseException:
                steps.close()  # now, and not when nobody holds the error any more: they put back what they had begun
                raise

    async def arun(self, steps: Generator[Sequence[Operation], Answers, _T], exchange: Exchange | None) -> _T:
        """From a coroutine."""
        waits = exchange is not None and exchange.facts.synchronous  # on a loop of its own, which ends with the request
        answers: Answers | None = None
        while True:
            try:
                wanted = next(steps) if answers is None else steps.send(answers)
            except StopIteration as stop:
                result: _T = stop.value
                return result
            try:
                if waits:
                    answers = sync.fly(self._own(exchange), self._stores, self._name, wanted)
                else:
                    answers = await aio.fly(self._own(exchange), self._stores, self._name, wanted)
            except BaseException:
                steps.close()  # as above
                raise

    def _own(self, exchange: Exchange | None) -> Exchange | None:
        """`exchange`, if it is of the application that the stores belong to."""
        return exchange if exchange is not None and exchange.engine.stores is self._stores else None


def in_event_loop() -> bool:
    """Whether this is called on an event loop."""
    try:
        asyncio.get_running_loop()
    except RuntimeError:
        return False
    return True
