"""A breaker, its clock, and what it announced."""

import sys
from collections.abc import Iterator

import pytest

from failsoft.guard import Breaker, Reason, State
from tests.core.guard.breakers import Clock, make


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def changes() -> list[tuple[State, State, Reason]]:
    return []


@pytest.fixture
def breaker(clock: Clock, changes: list[tuple[State, State, Reason]]) -> Breaker:
    """Opens at the third refusal, waits 0.5 s, leases a probe for 2 s, closes after two successes."""
    return make(clock, on_change=lambda *change: changes.append(change))


@pytest.fixture
def hasty_switches() -> Iterator[None]:
    """Threads that change hands as often as they can."""
    interval = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    yield
    sys.setswitchinterval(interval)
