"""Threads: a pool of warm connections, and a flight on one of them.

Rules:

- A connection that is not on the idle stack belongs to one flight. It goes back only when every reply was read;
  whatever else happened (an error, a timeout, KeyboardInterrupt, a killed greenlet) closes it, so that no later
  caller meets an earlier caller's reply. An interrupt between taking it and using it drops the only reference, which
  closes it too.
- The stack is last in, first out, and one for all threads: a few hot connections instead of one for each thread.
- To take and to give back is one operation on a deque, without a lock. Those who wait have a ticket each. There is no
  `Condition`: an exception that strikes inside one (KeyboardInterrupt) leaves its lock held, and everybody hangs.
- A flight waits only where that can help: for the first connection of the process, for one that a busy neighbour
  gives back or the connector makes, for the connector's verdict after idle connections were found dead. After a bad
  verdict, or when the last connection timed out, nobody waits.
"""

import math
import threading
from collections import deque
from collections.abc import Callable, Sequence
from typing import Any, Literal, overload
from weakref import WeakSet

from redis.exceptions import ConnectionError as RedisConnectionError
from redis.exceptions import NoScriptError, ResponseError
from redis.exceptions import TimeoutError as RedisTimeoutError

from failsoft.errors import StoreUnavailable
from failsoft.exchange.operations import Operation
from failsoft.guard import Admission, Outcome
from failsoft.stores.redis.begun import Begun
from failsoft.stores.redis.commands import (
    NONSENSE,
    TURNED_AWAY,
    again,
    answers,
    by_sha,
    by_source,
    is_demotion,
    merge,
    misfits,
)
from failsoft.stores.redis.connector import LAG, MOMENT, SHARE, Connector, Shared
from failsoft.stores.redis.replies import PLAIN
from failsoft.stores.redis.sentinel import Address
from failsoft.stores.redis.wire import Warm

__all__ = ["Pool"]

_UNUSED = 20.0
"""Seconds of rest after which a connection that grew old gets no successor: less than any life, so one life at most."""


class Pool:
    """The connections of all threads of this process.

    Args:
        shared: the store's.
        most: connections at most.
    """

    connector: Connector

    def __init__(self, shared: Shared, *, most: int) -> None:
        self._shared = shared
        self._most = most
        # Weakly: what a flight took and lost is gone from here too.
        self._all: WeakSet[Warm] = WeakSet()
        self.start_over()

    def start_over(self) -> None:
        """Be as new. After a fork: close the parent's connections in this process, which leaves the parent's alone."""
        inherited = list(self._all)
        self._all = WeakSet()
        self._idle: deque[Warm] = deque()
        # Reentrant, because a signal handler may run a flight of its own.
        self._lock = threading.RLock()
        self._tickets: deque[threading.Lock] = deque()
        self._active = False
        self.down = False
        for connection in inherited:
            connection.disconnect()  # by its pid redis-py knows not to shut it down

    def begin(self, operations: Sequence[Operation]) -> Callable[[], list[Any]]:
        """Send `operations`; see `Store.begin`."""
        return self.flight(operations, True)  # one function, since a call more would cost each flight 1 %

    @overload
    def flight(self, operations: Sequence[Operation]) -> list[Any]: ...
    @overload
    def flight(self, operations: Sequence[Operation], later: Literal[True]) -> Callable[[], list[Any]]: ...
    def flight(self, operations: Sequence[Operation], later: bool = False) -> Any:
        """Run `operations`; see `Store.flight`. If `later`, returns what waits for the answers instead of them."""
        if not operations:
            return list if later else []
        shared = self._shared
        breaker = shared.breaker
        if not breaker.closed:
            raise shared.refusal()
        try:
            data = by_sha(operations)
        except Exception:
            wrong, others = misfits(operations, shared)
            if not later:
                return merge(wrong, self.flight(others))
            wait = self.flight(others, True)
            return lambda: merge(wrong, wait())
        now = shared.monotonic()
        due = now + shared.deadline
        connection: Warm | None = None
        try:
            connection = self._idle.pop()
        except IndexError:
            pass
        if connection is not None and now - connection.since > MOMENT and connection.wire.readable():
            self._drop(connection)  # nobody asked it anything: it is dead
            connection = None
        fresh = connection is not None
        if connection is None:
            connection = self._wait(due)
            now = shared.monotonic()  # the breaker would take a time from before the wait for that of a clock set back
            due = max(due, now + SHARE * shared.deadline)
        admission = breaker.acquire(now)
        if admission is None:
            self._give_back(connection)
            raise shared.refusal()

        wire = connection.wire
        wire.due = due
        wire.fresh = fresh and not later
        try:
            wire.sendall(data)
            if later:
                return Begun(self, operations, connection, fresh, admission)
            replies, intact = self._replies(connection, operations)
        except BaseException as error:
            self._lost(error, connection, fresh, admission)
            raise
        # As `_landed`, which is a call that the usual flight need not pay for.
        ended = shared.monotonic()
        if intact:
            connection.since = ended
            self._give_back(connection)
            breaker.settle(admission, Outcome.SUCCESS, ended)
        else:
            self._landed(connection, False, admission)
        return answers(operations, replies, shared)

    def _landed(self, connection: Warm, intact: bool, admission: Admission) -> None:
        """Every reply was read."""
        ended = self._shared.monotonic()
        if intact:
            connection.since = ended
            self._give_back(connection)
        else:
            self._drop(connection)
            self.connector.wonder()
        self._shared.breaker.settle(admission, Outcome.SUCCESS, ended)

    def _lost(self, error: BaseException, connection: Warm, fresh: bool, admission: Admission) -> None:
        """Close a connection whose replies were not all read, because of `error`.

        Raises:
            StoreUnavailable: `error` means that there is no answer. Other errors are the caller's own.
        """
        shared = self._shared
        ended = shared.monotonic()
        late = ended - connection.wire.due
        hung = False
        outcome = Outcome.CANCELLED
        unavailable: StoreUnavailable | None = None
        timeout = isinstance(error, (TimeoutError, RedisTimeoutError))
        if timeout and late > LAG:
            outcome = Outcome.IGNORE
            unavailable = StoreUnavailable("local_lag", f"noticed {late:.3f} s late")
        elif timeout:
            # Who had to wait had less time than the store is granted.
            outcome = Outcome.FAILURE if fresh else Outcome.IGNORE
            hung = True
            unavailable = shared.failure("timeout", f"no whole reply in {shared.deadline:g} s")
        elif isinstance(error, (OSError, RedisConnectionError, *NONSENSE)):
            outcome = Outcome.FAILURE
            unavailable = shared.failure("broken", str(error))
        self._drop(connection, hung=hung)
        shared.breaker.settle(admission, outcome, ended)
        self.connector.wonder()
        if unavailable is not None:
            raise unavailable from error

    def _replies(self, connection: Warm, operations: Sequence[Operation]) -> tuple[list[Any], bool]:
        """The reply to each operation, error replies as exceptions; and whether the connection may be used again."""
        source = connection.replies
        gets = source.gets
        replies: list[Any] = []
        errors = False
        unknown: list[int] = []
        try:
            for _ in operations:
                reply = gets()
                if type(reply) not in PLAIN:
                    reply = source.settle(reply)
                    errors = errors or isinstance(reply, ResponseError)
                replies.append(reply)
            if not errors:
                # What is left over would be taken for the next caller's.
                return replies, not source.surplus()
            unknown = again(operations, [i for i, reply in enumerate(replies) if isinstance(reply, NoScriptError)])
            if unknown:
                # These did not run, so that running them now is not running them twice.
                connection.wire.sendall(by_source([operations[place] for place in unknown]))
            while unknown:
                replies[unknown[0]] = source.settle(gets())
                del unknown[0]
        except TURNED_AWAY as error:
            replies += [error.with_traceback(None)] * (len(operations) - len(replies))
            for place in unknown:
                replies[place] = error
            return replies, False
        # Not the primary any more: the next connection may find the new one.
        demoted = any(isinstance(reply, ResponseError) and is_demotion(reply) for reply in replies)
        return replies, not (demoted or source.surplus())

    def _give_back(self, connection: Warm) -> None:
        self._idle.append(connection)
        # Looked at afterwards: whoever closes the store, or replaces the connection, does so before looking at the stack.
        if (connection.stale or self._shared.closed) and self._unstack(connection):
            self._drop(connection)
            return
        # Whoever waits says so before looking at the stack, and we look after adding to it: one of us sees the other.
        if self._tickets:
            self._wake_one()

    def _drop(self, connection: Warm, *, hung: bool = False) -> None:
        """Close a connection. If it was the last and the server hangs, nobody waits for the next one."""
        connection.disconnect()
        with self._lock:
            self._all.discard(connection)
            if hung and not self._all:
                self.down = True
        if self.down:
            self._wake_all()

    def _wait(self, due: float) -> Warm:
        """A connection, as soon as there is one."""
        shared = self._shared
        until = due - SHARE * shared.deadline
        self._active = True
        woken = waited = over = False
        ticket: threading.Lock | None = None
        try:
            while True:
                connection = self._usable()
                if connection is not None:
                    woken = False
                    return connection
                if shared.closed or not shared.breaker.closed:
                    raise shared.refusal()
                if self.down:
                    raise shared.refusal(shared.trouble if waited else None)
                left = until - shared.monotonic()
                if left <= 0 or over:
                    raise self._in_vain()
                if ticket is None:
                    ticket = self._queue_up()
                    continue  # once more, now that those who give back know of us
                self.connector.nudge()
                over = not ticket.acquire(timeout=left) and self._withdraw(ticket)
                waited = True
                if not over:
                    woken = True
                    ticket = None  # not a new one yet: the connector would take it for one more who needs a connection
        finally:
            if woken or not (ticket is None or self._withdraw(ticket)):
                self._wake_one()  # we were woken for something that we do not use

    def _in_vain(self) -> StoreUnavailable:
        with self._lock:
            alive = len(self._all)
            self.down = not alive  # if so, the next one does not wait again
        if alive:
            return StoreUnavailable("no_connection", f"all {alive} connections were busy")
        return self._shared.refusal()

    def _usable(self) -> Warm | None:
        """The topmost connection that is still good."""
        while True:
            try:
                connection = self._idle.pop()
            except IndexError:
                return None
            if not connection.wire.readable():
                return connection
            self._drop(connection)

    def _queue_up(self) -> threading.Lock:
        ticket = threading.Lock()
        ticket.acquire()
        self._tickets.append(ticket)
        return ticket

    def _withdraw(self, ticket: threading.Lock) -> bool:
        try:
            self._tickets.remove(ticket)
        except ValueError:
            return False
        return True

    def _wake_one(self) -> None:
        try:
            self._tickets.popleft().release()
        except IndexError:
            pass

    def _wake_all(self) -> None:
        for _ in range(len(self._tickets)):
            self._wake_one()

    def close(self) -> None:
        """Let go of the idle ones, now that the store is closed. Those in use are closed when they come back."""
        self.tend(0.0, distrust=True)

    # What follows is called by the connector.

    def activate(self) -> None:
        """Have a connection before the first flight."""
        self._active = True

    def wants(self, now: float) -> bool:
        """Whether a connection is needed: the first, one for those who wait, or the successor of an old one."""
        if not self._active:
            return False
        with self._lock:
            alive = len(self._all)
            short = len(self._tickets) > len(self._idle) and alive < self._most
            return not alive or short or self._old_locked(now) is not None

    def take(self, connection: Warm) -> None:
        """Have one; an old one goes for it."""
        with self._lock:
            old = self._old_locked(self._shared.monotonic())
            welcome = not self._shared.closed and (old is not None or len(self._all) < self._most)
            if welcome:
                self._all.add(connection)
                self.down = False
                if old is not None:
                    self._all.discard(old)
                    old.stale = True  # closed when it comes back, if it is in use
        if not welcome:
            connection.disconnect()
            return
        self._give_back(connection)
        if old is not None and self._unstack(old):
            old.disconnect()

    def fail(self) -> None:
        """There is none to be had."""
        with self._lock:
            self.down = not self._all
        if self.down:
            self._wake_all()

    def tend(self, now: float, *, distrust: bool) -> float:
        """Drop those that rested for too long; in distrust, all that rest. Returns when the next one grows old."""
        with self._lock:
            idle = list(self._idle.copy())
            if distrust:
                surplus = idle
            else:
                rested = [c for c in idle if now >= c.retire_at and now - c.since >= _UNUSED]
                surplus = rested[: len(self._all) - 1]
            surplus = [connection for connection in surplus if self._unstack(connection)]
            for connection in surplus:
                self._all.discard(connection)
            old_at = min((connection.retire_at for connection in self._all), default=math.inf)
        for connection in surplus:
            connection.disconnect()
        if distrust:
            self._wake_all()  # those who wait are refused now
        return old_at

    def leave(self, address: Address) -> None:
        """Use no connection any more that does not lead to `address`. Those in use are closed when they come back."""
        with self._lock:
            others = [connection for connection in self._all if connection.address != address]
            for connection in others:
                self._all.discard(connection)
                connection.stale = True
        for connection in others:
            if self._unstack(connection):
                connection.disconnect()

    def _old_locked(self, now: float) -> Warm | None:
        return next((connection for connection in self._all if now >= connection.retire_at), None)

    def _unstack(self, connection: Warm) -> bool:
        """Take it off the stack, unless a flight was faster."""
        try:
            self._idle.remove(connection)
        except ValueError:
            return False
        return True
