"""Threads: a pool of warm connections, and a flight on one of them.

Rules:

- A connection that is not on the idle stack belongs to one flight. It goes back only when every reply was read;
  whatever else happened (an error, a timeout, KeyboardInterrupt, a killed greenlet) closes it, so that no later
  caller meets an earlier caller's reply. An interrupt between taking it and using it drops the only reference, which
  closes it too.
- The stack is last in, first out, and one for all threads: a few hot connections instead of one for each thread.
- To take and to give back is one operation on a deque, without a lock. The lock is for those who wait.
- A flight waits only where that can help: for the first connection of the process, for one that a busy neighbour
  gives back or the connector makes, for the connector's verdict after idle connections were found dead. After a bad
  verdict, or when the last connection timed out, nobody waits.
"""

import math
from collections import deque
from collections.abc import Sequence
from threading import Condition
from typing import Any
from weakref import WeakSet

from redis.exceptions import (
    AuthenticationError,
    BusyLoadingError,
    InvalidResponse,
    NoScriptError,
    ReadOnlyError,
    ResponseError,
)
from redis.exceptions import ConnectionError as RedisConnectionError
from redis.exceptions import TimeoutError as RedisTimeoutError

from failsoft.errors import StoreUnavailable
from failsoft.exchange.operations import Operation
from failsoft.guard import Outcome
from failsoft.stores.redis.commands import answers, by_sha, by_source, merge, misfits
from failsoft.stores.redis.connector import LAG, MOMENT, Connector, Shared
from failsoft.stores.redis.wire import Warm

__all__ = ["Pool"]

_UNUSED = 20.0
"""Seconds of rest after which a connection that grew old gets no successor: less than any life, so one life at most."""

_TURNED_AWAY = (AuthenticationError, BusyLoadingError)
"""Error replies that speak for the whole connection. redis-py closes it when it meets one."""


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
        self._changed = Condition()
        self._waiting = 0
        self._active = False
        self.down = False
        for connection in inherited:
            connection.disconnect()  # by its pid redis-py knows not to shut it down

    def flight(self, operations: Sequence[Operation]) -> list[Any]:
        """Run `operations`; see `Store.flight`."""
        if not operations:
            return []
        shared = self._shared
        breaker = shared.breaker
        if not breaker.closed:
            raise shared.refusal()
        try:
            data = by_sha(operations)
        except Exception:
            wrong, others = misfits(operations)
            return merge(wrong, self.flight(others))
        started = shared.monotonic()
        due = started + shared.deadline
        fresh = True
        try:
            connection = self._idle.pop()
        except IndexError:
            connection, fresh = self._wait(due), False
        else:
            if started - connection.since > MOMENT and connection.wire.readable():
                # Nobody asked it anything: it is dead.
                self._drop(connection)
                connection, fresh = self._wait(due), False
        admission = breaker.acquire(started)
        if admission is None:
            self._give_back(connection)
            raise shared.refusal()

        wire = connection.wire
        wire.due = due
        wire.fresh = fresh
        intact = hung = False
        outcome = Outcome.CANCELLED
        ended = started
        try:
            connection.send_packed_command((data,), check_health=False)
            replies, intact = self._replies(connection, operations)
            ended = shared.monotonic()
            outcome = Outcome.SUCCESS
        except RedisTimeoutError as error:
            ended = shared.monotonic()
            if ended - due > LAG:
                outcome = Outcome.IGNORE
                raise StoreUnavailable("local_lag", f"noticed {ended - due:.3f} s late") from error
            outcome = Outcome.FAILURE
            hung = True
            raise shared.failure("timeout", f"no whole reply in {shared.deadline:g} s") from error
        except (RedisConnectionError, InvalidResponse) as error:
            ended = shared.monotonic()
            outcome = Outcome.FAILURE
            raise shared.failure("broken", str(error)) from error
        finally:
            if intact:
                connection.since = ended
                self._give_back(connection)
            else:
                self._drop(connection, hung=hung)
            breaker.settle(admission, outcome, ended)
            if not intact:
                self.connector.nudge()
        return answers(operations, replies)

    def _replies(self, connection: Warm, operations: Sequence[Operation]) -> tuple[list[Any], bool]:
        """The reply to each operation, error replies as exceptions; and whether the connection may be used again."""
        read = connection.read_response
        replies: list[Any] = []
        unknown: list[int] = []
        intact = True
        try:
            for _ in operations:
                try:
                    replies.append(read(disconnect_on_error=True))
                except NoScriptError:
                    unknown.append(len(replies))
                    replies.append(None)
                except ReadOnlyError as error:
                    replies.append(error)
                    intact = False  # not the primary any more: the next connection may find the new one
                except ResponseError as error:
                    replies.append(error)
            if unknown:
                # These did not run, so that running them now is not running them twice.
                data = by_source([operations[place] for place in unknown])
                connection.send_packed_command((data,), check_health=False)
            while unknown:
                try:
                    replies[unknown[0]] = read(disconnect_on_error=True)
                except ResponseError as error:
                    replies[unknown[0]] = error
                    intact = intact and not isinstance(error, ReadOnlyError)
                del unknown[0]
        except _TURNED_AWAY as error:
            replies += [error] * (len(operations) - len(replies))
            for place in unknown:
                replies[place] = error
            return replies, False
        return replies, intact

    def _give_back(self, connection: Warm) -> None:
        if connection.stale or self._shared.closed:
            self._drop(connection)
            return
        self._idle.append(connection)
        # Whoever waits says so before looking at the stack, and we look after adding to it: one of us sees the other.
        if self._waiting:
            with self._changed:
                self._changed.notify()

    def _drop(self, connection: Warm, *, hung: bool = False) -> None:
        """Close a connection. If it was the last and the server hangs, nobody waits for the next one."""
        connection.disconnect()
        with self._changed:
            self._all.discard(connection)
            if hung and not self._all:
                self.down = True
                self._changed.notify_all()

    def _wait(self, due: float) -> Warm:
        """A connection, as soon as there is one."""
        shared = self._shared
        waited = over = False
        with self._changed:
            self._active = True
            self._waiting += 1
            try:
                while True:
                    connection = self._usable_locked()
                    if connection is not None:
                        return connection
                    if shared.closed or not shared.breaker.closed:
                        raise shared.refusal()
                    if self.down:
                        raise shared.refusal(shared.trouble if waited else None)
                    left = due - shared.monotonic()
                    if left <= 0 or over:
                        if self._all:
                            raise StoreUnavailable("no_connection", f"all {len(self._all)} connections were busy")
                        self.down = True  # the next one does not wait again
                        raise shared.refusal()
                    self.connector.nudge()
                    over = not self._changed.wait(left)
                    waited = True
            except BaseException:
                self._changed.notify()  # in case we were woken for something that we cannot use any more
                raise
            finally:
                self._waiting -= 1

    def _usable_locked(self) -> Warm | None:
        while True:
            try:
                connection = self._idle.pop()
            except IndexError:
                return None
            if not connection.wire.readable():
                return connection
            connection.disconnect()
            self._all.discard(connection)

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
        with self._changed:
            alive = len(self._all)
            short = self._waiting > len(self._idle) and alive < self._most
            return not alive or short or self._old_locked(now) is not None

    def take(self, connection: Warm) -> None:
        """Have one; an old one goes for it."""
        with self._changed:
            old = self._old_locked(self._shared.monotonic())
            welcome = not self._shared.closed and (old is not None or len(self._all) < self._most)
            if welcome:
                self._all.add(connection)
                self._idle.append(connection)
                self.down = False
                self._changed.notify()
                if old is not None:
                    self._all.discard(old)
                    old.stale = True  # closed when it comes back, if it is in use
        if not welcome:
            connection.disconnect()
        elif old is not None and self._unstack(old):
            old.disconnect()

    def fail(self) -> None:
        """There is none to be had."""
        with self._changed:
            if not self._all:
                self.down = True
                self._changed.notify_all()

    def tend(self, now: float, *, distrust: bool) -> float:
        """Drop those that rested for too long; in distrust, all that rest. Returns when the next one grows old."""
        with self._changed:
            idle = self._idle.copy()
            if distrust:
                surplus = list(idle)
                self._changed.notify_all()  # those who wait are refused now
            else:
                rested = [c for c in idle if now >= c.retire_at and now - c.since >= _UNUSED]
                surplus = rested[: len(self._all) - 1]
            surplus = [connection for connection in surplus if self._unstack(connection)]
            for connection in surplus:
                self._all.discard(connection)
            old_at = min((connection.retire_at for connection in self._all), default=math.inf)
        for connection in surplus:
            connection.disconnect()
        return old_at

    def _old_locked(self, now: float) -> Warm | None:
        return next((connection for connection in self._all if now >= connection.retire_at), None)

    def _unstack(self, connection: Warm) -> bool:
        """Take it off the stack, unless a flight was faster."""
        try:
            self._idle.remove(connection)
        except ValueError:
            return False
        return True
