"""The store itself: flights, from threads and from event loops."""

import asyncio
import random as _random
import threading
import time
from asyncio import AbstractEventLoop
from collections.abc import Callable, Mapping, Sequence
from typing import Any
from weakref import WeakKeyDictionary

from failsoft.clock import SYSTEM, Clock
from failsoft.errors import OperationFailed, StoreUnavailable
from failsoft.events import Event
from failsoft.exchange.operations import Operation
from failsoft.forks import start_over_in_children
from failsoft.guard import Admission, Breaker, Outcome
from failsoft.quota import Quota
from failsoft.ratelimit.acquire import Acquire, Rule
from failsoft.stores.storages.backends import OPEN_BUDGET, Memcached, MongoDB
from failsoft.stores.storages.decision import decide
from failsoft.stores.storages.sides import LoopSide, State, Strategies, ThreadSide
from failsoft.stores.storages.steps import Decision, Way, made
from failsoft.stores.storages.url import parse_deadline, parse_max_connections, parse_storage_url

__all__ = ["LimitsStore"]

_LAG = 0.020
"""Seconds. A deadline noticed later than this means that this process was not scheduled, not that the storage is slow."""

_SHARE = 0.25
"""Part of the deadline that is kept for the flight itself, where it had to wait for a storage to be opened."""

_PAUSE = 0.002
"""Seconds between two looks whether a storage is open. Only first flights take them."""

_BOUND = 1000
"""Flights under way on one loop. More would all be overdue."""


class _Overdue(TimeoutError):
    """There is no time left for the next step."""


class LimitsStore:
    """Limits on memcached or MongoDB, by the strategies of `limits`.

    Args:
        url: ``memcached://host:port``, ``mongodb://...`` or ``mongodb+srv://...``; `deadline` and
            `max_connections` may stand in its query.
        options: what may stand in the query as well.
        name: what events and errors call the store.
        deadline: seconds for a flight, 0.01 to 5, default 0.1. A flight takes several round trips: three for one limit.
        max_connections: for all threads of one process together, 1 to 10000, default 64.
        publish: called with `StoreDegraded` when the breaker opens or the storage cannot be opened, and with
            `StoreRecovered` after it, in the store's own thread.
        breaker: one to use instead of the default: open at 50 % failures of at least 10 flights in 5 s, or at 3 failed
            attempts to connect in a row; a probe every 250 to 500 ms; closed by two that succeed.
        clock: for the breaker and for deadlines. It must run with real time, since sockets do.
        random: draws from 0 (included) to 1, for jitter.

    Raises:
        ConfigurationError: the URL or an option is wrong, or a package is missing.
    """

    blocking = True

    def __init__(
        self,
        url: str,
        *,
        options: Mapping[str, Any] | None = None,
        name: str = "default",
        deadline: float | None = None,
        max_connections: int | None = None,
        publish: Callable[[Event], None] | None = None,
        breaker: Breaker | None = None,
        clock: Clock = SYSTEM,
        random: Callable[[], float] = _random.random,
    ) -> None:
        place = parse_storage_url(url, options)
        self.name = name
        self.url = place.masked
        self.deadline = parse_deadline(_first(deadline, place.deadline, 0.1))
        self.max_connections = parse_max_connections(_first(max_connections, place.max_connections, 64))
        bounds: dict[str, Any] = {"deadline": self.deadline, "max_connections": self.max_connections}
        if place.kind == "memcached":
            self.backend: Memcached | MongoDB = Memcached(place.url, **bounds)
        else:
            self.backend = MongoDB(place.url, database=place.database, **bounds)
        if breaker is None:
            breaker = Breaker(clock=clock, random=random, probe_lease=5 * OPEN_BUDGET)
        self.breaker = breaker
        self._state = State(
            backend=self.backend,
            breaker=breaker,
            deadline=self.deadline,
            monotonic=clock.monotonic,
            name=name,
            publish=publish,
            random=random,
        )
        self._threads = ThreadSide(self._state)
        self._state.tell = self._threads.told
        self._start_over_loops()
        start_over_in_children(self, LimitsStore._start_over)

    def unsupported(self, rule: Rule, mode: int = 0, *, stamps: bool = False) -> str | None:
        """Why this store cannot decide about `rule`, and what to do about it; None if it can.

        Args:
            rule: a quota or a penalty.
            mode: of the limit, as in `Acquire`: all can be had.
            stamps: whether charges are to be corrected later (refunds, reservations, charges by response).
        """
        kind = self.backend.kind
        if not isinstance(rule, Quota):
            return f"{kind} cannot keep penalties: use redis:// for them"
        if stamps:
            return f"what was charged on {kind} cannot be given back or corrected: use redis:// for that"
        if rule.algorithm not in self.backend.algorithms:
            return f"{kind} does not know {rule.algorithm}: use {' or '.join(self.backend.algorithms)}, or redis://"
        if rule.aligned:
            return f"{kind} does not know aligned windows: leave them out, or use redis://"
        windows = 2 if rule.algorithm == "sliding-window-counter" else 1
        if self.backend.longest is not None and rule.window * windows > self.backend.longest:
            days = self.backend.longest // windows // 86_400
            return f"{kind} remembers a {rule.algorithm} of at most {days} days: use a shorter one, or redis://"
        return None

    def start(self) -> None:
        """Connect in the background: for the running event loop if there is one, else for threads."""
        try:
            loop = asyncio.get_running_loop()
        except RuntimeError:
            self._threads.want()
        else:
            self._side(loop).want(loop)

    def flight(self, operations: Sequence[Operation]) -> list[Any]:
        """Decide about `operations`, all of them `Acquire`, one after the other. Safe in any thread.

        Returns:
            An answer for each operation; an `OperationFailed` for one that is none of limits or that this storage
            cannot decide about, or that it answered with an error.

        Raises:
            StoreUnavailable: there is no answer; some or all operations may have run.
        """
        if not operations:
            return []
        state, side = self._state, self._threads
        if state.closed or not state.breaker.closed:
            raise state.refusal()
        due = state.monotonic() + self.deadline
        me = object()
        side.under_way.add(me)
        try:
            while (strategies := side.strategies) is None:
                self._may_wait(side, due)
                side.want()
                time.sleep(_PAUSE)
            admission = self._admission()
            try:
                answers = [self._run(operation, strategies, due) for operation in operations]
            except Exception as error:
                failure = self._failed(admission, error, due)
                if failure.reason != "no_connection":
                    side.distrust(strategies, hung=failure.reason == "timeout")
                raise failure from error
            except BaseException:
                state.breaker.settle(admission, Outcome.CANCELLED)
                raise
        finally:
            side.under_way.discard(me)
        state.breaker.settle(admission, Outcome.SUCCESS)
        return answers

    def begin(self, operations: Sequence[Operation]) -> Callable[[], list[Any]]:
        """Run `operations` now; what is returned gives their answers. Nothing can be sent ahead where each step waits."""
        answers = self.flight(operations)
        return lambda: answers

    async def aflight(self, operations: Sequence[Operation]) -> list[Any]:
        """As `flight`, in any event loop. A cancelled caller's operations may run nevertheless."""
        if not operations:
            return []
        state = self._state
        loop = asyncio.get_running_loop()
        side = self._side(loop)
        if state.closed or not state.breaker.closed:
            side.throw_away()
            raise state.refusal()
        due = state.monotonic() + self.deadline
        while (strategies := side.strategies) is None:
            self._may_wait(side, due)
            side.want(loop)
            await asyncio.sleep(_PAUSE)
        if len(side.tasks) >= _BOUND:
            raise StoreUnavailable("local_lag", f"{_BOUND} flights are under way")
        admission = self._admission()
        # Not cancelled with its caller: a client that is cancelled while it connects loses that connection for good.
        task = side.spawn(self._arun_all(operations, strategies, due), loop)
        try:
            await asyncio.wait({task}, timeout=max(due - state.monotonic(), 0))
            answers: list[Any] = task.result() if task.done() else _overdue()
        except asyncio.CancelledError:
            state.breaker.settle(admission, Outcome.CANCELLED)
            raise
        except Exception as error:
            failure = self._failed(admission, error, due)
            if failure.reason != "no_connection":
                side.distrust(strategies, hung=failure.reason == "timeout")
            raise failure from error
        state.breaker.settle(admission, Outcome.SUCCESS)
        return answers

    def close(self) -> None:
        """Let go of every connection and of the background thread; from any thread. Flights then say ``closed``."""
        self._state.closed = True
        self._threads.nudge()
        with self._lock:
            sides = list(self._loops.items())
        running = _running_loop()
        for loop, side in sides:
            if loop is running:
                side.close()
            elif not loop.is_closed():
                try:
                    loop.call_soon_threadsafe(side.close)
                except RuntimeError:  # closed meanwhile
                    pass

    async def aclose(self) -> None:
        """The same, from a coroutine; what is under way on its loop has ended afterwards."""
        self.close()
        side = self._loops.get(asyncio.get_running_loop())
        if side is not None and side.tasks:
            await asyncio.wait(list(side.tasks), timeout=self.deadline)

    def __repr__(self) -> str:
        return f"LimitsStore({self.url!r}, name={self.name!r})"

    def _run(self, operation: Operation, strategies: Strategies, due: float) -> Any:
        way = Way(operation, self._decision(operation), self.backend, self._state)
        while way.call is not None:
            try:
                with self.backend.within(self._left(due)):
                    result = made(strategies, way.call)
            except Exception as error:
                way.fail(error)
            else:
                way.go_on(result)
        return way.answer

    async def _arun_all(self, operations: Sequence[Operation], strategies: Strategies, due: float) -> list[Any]:
        return [await self._arun(operation, strategies, due) for operation in operations]

    async def _arun(self, operation: Operation, strategies: Strategies, due: float) -> Any:
        way = Way(operation, self._decision(operation), self.backend, self._state)
        while way.call is not None:
            try:
                with self.backend.within(self._left(due)):
                    result = await made(strategies, way.call)
            except Exception as error:
                way.fail(error)
            else:
                way.go_on(result)
        return way.answer

    def _left(self, due: float) -> float:
        """Seconds. Raises `_Overdue` if there are none."""
        left = due - self._state.monotonic()
        if left <= 0:
            raise _Overdue(f"no time was left for all round trips of a decision, in {self.deadline:g} s")
        return left

    def _decision(self, operation: Operation) -> Decision | OperationFailed:
        """How to come to an answer, or why there is none."""
        name = operation.script.name
        if not isinstance(operation, Acquire):
            return OperationFailed(f"{name}: a store on {self.backend.kind} serves limits only")
        for step in operation.steps:
            cause = self.unsupported(step.rule, stamps=operation.stamps)
            if cause is not None:
                return OperationFailed(f"{name}: {cause}")
        return decide(operation, [self.backend.key(key) for key in operation.keys[: len(operation.steps)]])

    def _may_wait(self, side: "ThreadSide | LoopSide", due: float) -> None:
        """Raise where there is no point in waiting until a storage is open, or no time."""
        state = self._state
        if state.closed or not state.breaker.closed or side.down:
            raise state.refusal()
        if state.monotonic() > due - _SHARE * self.deadline:
            side.wait_no_more()
            raise state.refusal()

    def _admission(self) -> Admission:
        admission = self.breaker.acquire()
        if admission is None or admission.probe:  # the background probes
            if admission is not None:
                self.breaker.settle(admission, Outcome.CANCELLED)
            raise self._state.refusal()
        return admission

    def _failed(self, admission: Admission, error: Exception, due: float) -> StoreUnavailable:
        state = self._state
        now = state.monotonic()
        if now - due > _LAG:
            state.breaker.settle(admission, Outcome.IGNORE, now)
            return StoreUnavailable("local_lag", f"noticed {now - due:.3f} s late")
        failure = state.failure(error)
        outcome = {"no_connection": Outcome.IGNORE, "refused": Outcome.REFUSED}.get(failure.reason, Outcome.FAILURE)
        state.breaker.settle(admission, outcome, now)
        if not state.breaker.closed:
            self._threads.nudge()
        return failure

    def _side(self, loop: AbstractEventLoop) -> LoopSide:
        side = self._loops.get(loop)
        if side is None:
            with self._lock:
                side = self._loops.setdefault(loop, LoopSide(self._state))
        return side

    def _start_over_loops(self) -> None:
        # Kept: at their end a parent's connections would be taken off the parent's loop, which shares its selector with us.
        self._inherited = getattr(self, "_loops", None)
        self._lock = threading.RLock()
        self._loops: WeakKeyDictionary[AbstractEventLoop, LoopSide] = WeakKeyDictionary()

    def _start_over(self) -> None:
        self._threads.start_over()
        self._start_over_loops()


def _overdue() -> Any:
    raise _Overdue("the flight is not over")


def _first(*values: Any) -> Any:
    return next(value for value in values if value is not None)


def _running_loop() -> AbstractEventLoop | None:
    try:
        return asyncio.get_running_loop()
    except RuntimeError:
        return None
