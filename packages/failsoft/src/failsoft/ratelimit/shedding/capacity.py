"""Who may be in flight: places for as many requests as the limit says, and who gets the last of them.

Theory of operation. Each admitted request holds a `Permit` from `Capacity.acquire` to `Capacity.release`. While only one class
comes, it may have every place: nothing is kept free for requests that nobody sends. While requests of a higher class are coming
(the last one at most `_LATELY` ago), a class fills the limit only to its `SHARE`, so that those above find places and are served quickly.
A request for which there is no place is admitted all the same, if there are requests of lower classes, while its own class and those
above it hold less than is reserved for them (`RESERVED`): places that lower classes took refuse nobody who matters more, and no place
that becomes free then goes to a lower class. So in flight are at most the limit and, for as long as requests of lower classes take to
finish, what was reserved.

Rules:

- A permit counts once, whoever releases it how often, and never after a fork: a child starts with nothing in flight.
- A request teaches how long requests take if it succeeded. One that failed does only if it took longer than usual: a quick
  failure says nothing about what this process can do, and a client can have as many of those as it likes.
- `release` may be called by a finalizer that interrupts this very thread in here. So it never waits for the lock: it leaves
  word, and whoever holds the lock does the rest.

The clock is read outside, nothing here waits, and no user code runs under the lock.
"""

import math
import time
from collections import deque
from collections.abc import Callable
from threading import Lock
from typing import Final

from failsoft.forks import start_over_in_children
from failsoft.ratelimit.shedding.gradient import Gradient, Usual, Windows

__all__ = ["RESERVED", "SHARE", "Capacity", "Permit"]

SHARE: Final = (0.6, 0.75, 0.9, 1.0)
"""For each class, lowest first: the part of the limit that it may fill while requests of a higher class are coming."""

RESERVED: Final = (0.0, 0.5, 1.0, 1.0)
"""For each class, lowest first: the part of the limit (or of half the least, if that is more) that it and those above it may hold when
nothing is free."""

_LATELY: Final = 2.0
"""Seconds."""


class Permit:
    """A place for one request."""

    __slots__ = ("era", "in_flight", "rank", "usual")

    def __init__(self, era: object, rank: int, usual: Usual, in_flight: int) -> None:
        self.era: object | None = era
        self.rank = rank
        self.usual = usual
        self.in_flight = in_flight


class Capacity:
    """What one process can serve at once, and what it serves.

    Args:
        least: what the limit never falls below while there is CPU time, at least 1.
        most: what it never rises above, at least `least`.
        spent: gives the CPU time of this process, in seconds.

    Attributes:
        in_flight: requests that hold a place.
        crowded: seconds that requests waited for the event loop, in this window; added to by those who know.
    """

    __slots__ = (
        "__weakref__",
        "_base",
        "_era",
        "_gradient",
        "_held",
        "_lock",
        "_over",
        "_seen",
        "_spent",
        "_windows",
        "crowded",
        "in_flight",
    )

    def __init__(self, *, least: int, most: int, spent: Callable[[], float] = time.process_time) -> None:
        self._gradient = Gradient(least=least, most=most)
        self._base = least // 2
        self._windows = Windows(self._gradient)
        self._spent = spent
        self._lock = Lock()
        self._era = object()
        self._held = [0] * len(RESERVED)
        self._seen = [-math.inf] * len(RESERVED)
        self._over: deque[tuple[Permit, float, float | None, bool]] = deque()
        self.crowded = 0.0
        self.in_flight = 0
        start_over_in_children(self, Capacity._start_over)

    @property
    def limit(self) -> int:
        """How many may be in flight."""
        return int(self._gradient.limit)

    @property
    def mean(self) -> float:
        """Seconds that a request takes on average, lately; 0 before anything is known."""
        return self._windows.mean

    def usual(self, route: object) -> Usual:
        """Where it is kept what requests to `route` usually take; for `acquire`."""
        return self._windows.usual(route)

    def acquire(self, rank: int, usual: Usual, now: float) -> Permit | None:
        """A place, or None if there is none for this class.

        Args:
            rank: the class, as an index of `RESERVED`.
            usual: of the request's route.
            now: the time, in seconds.
        """
        with self._lock:
            self._settle_locked()
            limit = int(self._gradient.limit)
            self._seen[rank] = now
            permit = None
            # Most find room within the share of their class, whoever else comes.
            if self.in_flight < (int(SHARE[rank] * limit) or 1) or self._has_room_locked(rank, limit, now):
                self._held[rank] += 1
                self.in_flight += 1
                permit = Permit(self._era, rank, usual, self.in_flight)
        if self._over:
            self._settle()
        return permit

    def _has_room_locked(self, rank: int, limit: int, now: float) -> bool:
        """Whether there is room for a class beyond its share."""
        held, seen = self._held, self._seen
        if self.in_flight < limit and all(now - moment >= _LATELY for moment in seen[rank + 1 :]):
            return True
        if not any(held[:rank]) and all(now - moment >= _LATELY for moment in seen[:rank]):
            return False
        return sum(held[rank:]) < RESERVED[rank] * max(limit, self._base)

    def release(self, permit: Permit, now: float, *, took: float | None = None, failed: bool = False) -> None:
        """Give a place back. The first time counts.

        Args:
            permit: what `acquire` gave.
            now: the time, in seconds.
            took: seconds that the request took, or None where it says nothing.
            failed: whether it failed.
        """
        self._over.append((permit, now, took, failed))
        self._settle()

    def _settle(self) -> None:
        while self._over and self._lock.acquire(blocking=False):
            try:
                self._settle_locked()
            finally:
                self._lock.release()

    def _settle_locked(self) -> None:
        while self._over:
            permit, now, took, failed = self._over.popleft()
            if permit.era is not self._era:
                continue
            permit.era = None
            self._held[permit.rank] -= 1
            self.in_flight -= 1
            if took is None or (failed and not took > permit.usual.long > 0):
                continue
            self._windows.add(permit.usual, took, permit.in_flight)
            if self._windows.due(now):
                self._windows.close(now, spent=self._spent(), crowded=self.crowded)
                self.crowded = 0.0

    def _start_over(self) -> None:
        """Be a child's own: whoever held places, or the lock, is not here. What was learned still holds."""
        self._lock = Lock()
        self._era = object()
        self._held = [0] * len(RESERVED)
        self._over.clear()
        self.in_flight = 0
        self._windows.forget_window()
