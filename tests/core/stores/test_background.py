"""Threads that sleep until they are nudged."""

import queue
from typing import Any

import pytest

from failsoft.clock import SYSTEM
from failsoft.guard import Breaker
from failsoft.stores.background import Background
from failsoft.stores.redis.connector import Connector, Shared


class _Replaced:
    """Another caller replaces the thread just when this one looks whether it was nudged."""

    _signal: Any
    nudged = True

    @property
    def _nudged(self) -> bool:
        if not self.nudged:
            self._signal = queue.SimpleQueue()
        return self.nudged

    @_nudged.setter
    def _nudged(self, nudged: bool) -> None:
        self.nudged = nudged


class _Alive:
    def is_alive(self) -> bool:
        return True


class _Background(_Replaced, Background):
    def __init__(self) -> None:
        super().__init__("replaced")


class _Connector(_Replaced, Connector):
    def __init__(self) -> None:
        shared = Shared(
            name="replaced",
            breaker=Breaker(clock=SYSTEM),
            deadline=1.0,
            monotonic=SYSTEM.monotonic,
            random=float,
            publish=None,
        )
        super().__init__(shared, lambda: pytest.fail("nothing is connected"), list)


@pytest.mark.parametrize("kind", [_Background, _Connector])
def test_a_nudge_while_the_thread_is_replaced(kind: type[Any]) -> None:
    """The thread that is there gets the nudge: else it sleeps on, and all later nudges believe that it was nudged."""
    worker = kind()
    worker._thread = _Alive()
    worker._signal = queue.SimpleQueue()
    worker.nudged = False

    worker.nudge()

    assert not worker._signal.empty()
