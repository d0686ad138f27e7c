"""The two sides of a store on a storage: all threads together, and each event loop by itself. A side has a storage open,
or none, and then opens one.

- A side that failed to open refuses whoever comes, and tries again a jittered 250 to 500 ms later.
- Threads are served by a thread of the store's own: it opens, it probes while the breaker is not closed, and it announces.
- A loop opens in a task of its own, when a flight wants that. No flight's end ends it: cancelled while they connect,
  clients lose connections for good.
- A storage that did not answer is thrown away: whatever state its client is in concerns nobody any more. Flights wait for
  the next one where a connection broke; where a server hangs they do not, since it would keep the next one waiting too.
- What threads may still be using is closed when no flight is under way, or every one must be over: a socket that is closed
  while another thread reads from it may have its number given to the next one meanwhile.
"""

import asyncio
import logging
import math
from asyncio import AbstractEventLoop, Task
from collections.abc import Callable, Mapping
from random import random as _draw
from typing import Any

from limits.aio.strategies import STRATEGIES as ASYNC_STRATEGIES
from limits.strategies import STRATEGIES

from failsoft.errors import OperationFailed, StoreUnavailable, UnavailableReason
from failsoft.events import Event, OperationRefused, StoreDegraded, StoreRecovered
from failsoft.guard import Breaker, Outcome
from failsoft.settings.problems import mask
from failsoft.stores.background import Background
from failsoft.stores.storages.backends import OPEN_BUDGET, Backend, reason_of

__all__ = ["LoopSide", "State", "Strategies", "ThreadSide"]

_log = logging.getLogger("failsoft.stores")

_RETRY = (0.25, 0.5)
"""Seconds between two attempts to open."""

_PROBE = "failsoft:probe"
"""The key that is asked for to see whether a storage answers."""

Strategies = dict[str, Any]
"""A storage's strategies by their names: those of `limits.strategies`, or of `limits.aio.strategies`."""


class State:
    """What all sides have in common.

    Attributes:
        backend: what kind of storage it is.
        breaker: counts the flights of all sides, and their attempts to open.
        closed: whether the store was closed.
        deadline: seconds for a flight.
        detail: the last failure, in words.
        monotonic: the clock.
        name: of the store.
        reason: of the last failure.
        shut: whether some side gave up a storage that hangs, or failed to open one, and none was opened since.
        tell: called when that has changed; with True if somebody has to go on trying.
    """

    def __init__(
        self,
        *,
        backend: Backend,
        breaker: Breaker,
        deadline: float,
        monotonic: Callable[[], float],
        name: str,
        publish: Callable[[Event], None] | None,
        random: Callable[[], float] = _draw,
    ) -> None:
        self.backend = backend
        self.breaker = breaker
        self.closed = False
        self.deadline = deadline
        self.monotonic = monotonic
        self.name = name
        self.reason: UnavailableReason = "no_connection"
        self.shut = False
        self.tell: Callable[[bool], None] = lambda trying: None
        self.detail = "none"
        self._publish = publish
        self._random = random

    def pause(self) -> float:
        """Seconds until the next attempt."""
        low, high = _RETRY
        return low + (high - low) * self._random()

    def failure(self, error: BaseException) -> StoreUnavailable:
        """What to raise for a failure, which is remembered."""
        self.reason = reason_of(error)
        self.detail = mask(f"{self.reason}, {type(error).__name__}: {error}")
        return StoreUnavailable(self.reason, f"{type(error).__name__}: {error}")

    def refused(self, failed: OperationFailed) -> None:
        """Tell of an operation that the storage answered with an error."""
        self.publish(OperationRefused(self.name, failed.code, mask(str(failed))))

    def refusal(self) -> StoreUnavailable:
        """What to raise where nothing is tried."""
        if self.closed:
            return StoreUnavailable("closed", f"the store {self.name!r} was closed")
        reason: UnavailableReason = "no_connection" if self.breaker.closed else "open"
        return StoreUnavailable(reason, f"last failure of the store {self.name!r}: {self.detail}")

    def publish(self, event: Event) -> None:
        """Tell whoever wants to know."""
        if self._publish is not None:
            try:
                self._publish(event)
            except Exception:
                _log.exception("publish of the store %r raised on %r", self.name, event)


class ThreadSide(Background):
    """Opens a storage for threads, and probes for all.

    Args:
        state: the store's.

    Attributes:
        down: whether the last attempt to open failed.
        strategies: of the storage that is open, or None.
        under_way: flights, each from before it looked at the strategies.
    """

    def __init__(self, state: State) -> None:
        self._state = state
        self._inherited: list[Any] = []
        self._discarded: list[tuple[float, Any]] = []
        self._storage: Any = None
        super().__init__(f"failsoft-{state.name}")

    def __del__(self) -> None:
        # A store that was closed and forgotten at once may be gone before its thread has come to it.
        for storage in [one for _, one in self._discarded] + ([] if self._storage is None else [self._storage]):
            try:
                self._state.backend.close(storage)
            except Exception:
                _log.debug("a storage of the store %r did not close well", self._state.name, exc_info=True)

    def start_over(self) -> None:
        """Be as new. A parent's clients are neither used nor closed in its child: the sockets are the parent's."""
        super().start_over()
        self._inherited += [one for one in (self._storage, self._discarded) if one]
        self._discarded = []
        self._storage = None
        self.strategies: Strategies | None = None
        self.under_way: set[object] = set()
        self.down = False
        self._wanted = False
        self._not_before = -math.inf
        self._degraded_at: float | None = None

    def want(self) -> None:
        """Have a storage open, soon."""
        self._wanted = True
        self.nudge()

    def wait_no_more(self) -> None:
        """A flight has waited in vain: the next one does not wait."""
        self.down = self._state.shut = True
        self.nudge()

    def distrust(self, strategies: Strategies, *, hung: bool) -> None:
        """Use the storage of `strategies` no more. By any thread; closing it is our own thread's."""
        if self.strategies is strategies:
            self.down = hung
            self._state.shut = self._state.shut or hung
            self.strategies = None
        self.want()

    def told(self, trying: bool) -> None:
        """A loop opened a storage, or failed to; then this side tries, since a loop does so only for flights."""
        self._wanted = self._wanted or trying
        self.nudge()

    def work(self) -> float | None:
        """One turn. Returns seconds until the next, or None if that is when nudged."""
        state, breaker = self._state, self._state.breaker
        if state.closed or not breaker.closed or self.strategies is None:
            self._throw_away()
        while not state.closed:
            now = state.monotonic()
            self._announce(now)
            due = not breaker.closed or (self._wanted and self._storage is None and now >= self._not_before)
            admission = breaker.acquire(now) if due else None
            if admission is None:
                break
            error = self._open()
            now = state.monotonic()
            self._not_before = -math.inf if error is None else now + state.pause()
            # Opening well again and again is no proof against flights that fail.
            outcome = Outcome.REFUSED if error else Outcome.SUCCESS if admission.probe else Outcome.IGNORE
            breaker.settle(admission, outcome, now)
            if not breaker.closed:
                self._throw_away()
        if state.closed:  # meanwhile
            self._throw_away()
        self._close_discarded()
        return self._rest()

    def _rest(self) -> float | None:
        """When to look again."""
        state = self._state
        now = state.monotonic()
        wake_at = min((close_at for close_at, _ in self._discarded), default=math.inf)
        if state.closed:
            self.ended = not self._discarded
        elif not state.breaker.closed:
            # Not at once, if somebody else has the probe out: this would be a busy loop.
            wake_at = min(wake_at, now + max(state.breaker.retry_after(now), 0.01))
        elif self._wanted and self._storage is None:
            wake_at = min(wake_at, self._not_before)
        return None if wake_at == math.inf else max(wake_at - now, 0.001)

    def _open(self) -> Exception | None:
        backend = self._state.backend
        self._throw_away()
        try:
            storage = self._storage = backend.open()
            with backend.within(OPEN_BUDGET):
                storage.get(_PROBE)
            self.strategies = {name: STRATEGIES[name](storage) for name in backend.algorithms}
        except Exception as error:  # of a client, of a resolver
            self._state.failure(error)
            self._throw_away()
            self.down = self._state.shut = True
            return error
        self._announce(self._state.monotonic())  # what began while this took its time
        self.down = self._state.shut = False
        return None

    def _throw_away(self) -> None:
        storage, self._storage, self.strategies = self._storage, None, None
        if storage is not None:
            self._discarded.append((self._state.monotonic() + 2 * self._state.deadline, storage))

    def _close_discarded(self) -> None:
        now = math.inf if not self.under_way else self._state.monotonic()
        over = [storage for close_at, storage in self._discarded if close_at <= now]
        self._discarded = [one for one in self._discarded if one[0] > now]
        for storage in over:
            try:
                with self._state.backend.within(self._state.deadline):
                    self._state.backend.close(storage)
            except Exception:
                _log.debug("a storage of the store %r did not close well", self._state.name, exc_info=True)

    def _announce(self, now: float) -> None:
        state = self._state
        degraded = state.shut or not state.breaker.closed
        if state.closed:
            return
        if degraded and self._degraded_at is None:
            self._degraded_at = now
            state.publish(StoreDegraded(state.name, state.reason, state.detail))
        elif not degraded and self._degraded_at is not None:
            after, self._degraded_at = now - self._degraded_at, None
            state.publish(StoreRecovered(state.name, after))


class LoopSide:
    """The storage of one event loop. Everything here runs on that loop.

    Args:
        state: the store's.

    Attributes:
        strategies: of the storage that is open, or None.
        tasks: what is under way.
    """

    def __init__(self, state: State) -> None:
        self._state = state
        self._storage: Any = None
        self._opening: Task[None] | None = None
        self._in_vain = False
        self._not_before = -math.inf
        self.strategies: Strategies | None = None
        self.tasks: set[Task[Any]] = set()

    @property
    def down(self) -> bool:
        """Whether the last attempt to open failed, and it is not time for another; or this one takes too long."""
        return self._in_vain or self._state.monotonic() < self._not_before

    def wait_no_more(self) -> None:
        """A flight has waited in vain: the next one does not wait."""
        self._in_vain = self._opening is not None
        self._is_shut()

    def want(self, loop: AbstractEventLoop) -> None:
        """Have a storage open, soon."""
        if self._opening is None and self.strategies is None:
            self._opening = self.spawn(self._open(), loop)

    def spawn(self, work: Any, loop: AbstractEventLoop) -> Task[Any]:
        """Run a coroutine whose end concerns nobody but those who look for it."""
        task: Task[Any] = loop.create_task(work)
        self.tasks.add(task)
        task.add_done_callback(self._done)
        return task

    def _done(self, task: Task[Any]) -> None:
        self.tasks.discard(task)
        if not task.cancelled():
            task.exception()  # it was heard

    async def _open(self) -> None:
        state, backend = self._state, self._state.backend
        try:
            admission = state.breaker.acquire()
            if admission is None or admission.probe:
                return  # probing is the other side's
            outcome = Outcome.CANCELLED
            try:
                storage = self._storage = backend.aopen()
                async with asyncio.timeout(OPEN_BUDGET):
                    with backend.within(OPEN_BUDGET):
                        await storage.get(_PROBE)
                strategies: Mapping[str, Any] = ASYNC_STRATEGIES
                self.strategies = {name: strategies[name](storage) for name in backend.algorithms}
                outcome = Outcome.IGNORE
                state.shut = False
            except Exception as error:  # of a client, of a resolver
                outcome = Outcome.REFUSED
                state.failure(error)
                state.shut = True
                self._not_before = state.monotonic() + state.pause()
                self.throw_away()
            finally:
                state.breaker.settle(admission, outcome)
                self._in_vain = False
                state.tell(state.shut)
        finally:
            self._opening = None

    def distrust(self, strategies: Strategies, *, hung: bool) -> None:
        """Use the storage of `strategies` no more."""
        if self.strategies is strategies:
            if hung:
                self._not_before = self._state.monotonic() + self._state.pause()
                self._is_shut()
            self.throw_away()

    def _is_shut(self) -> None:
        self._state.shut = True
        self._state.tell(True)

    def close(self) -> None:
        """Let go of everything."""
        for task in self.tasks:
            task.cancel()
        self.throw_away()

    def throw_away(self) -> None:
        """Let go of the storage."""
        storage, self._storage, self.strategies = self._storage, None, None
        if storage is not None:
            try:
                self._state.backend.aclose(storage)
            except Exception:
                _log.debug("a storage of the store %r did not close well", self._state.name, exc_info=True)
