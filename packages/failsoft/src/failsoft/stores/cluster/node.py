"""One primary: a store of its own, and steps of flights that go to several of them.

A node is a `RedisStore`: its connections, its background thread and its breaker are its own, so one that is dead or hangs
degrades its slots and nothing else. Beyond that it runs *steps* and gives the replies as they are, redirections among
them, and it does so in two movements, so that a flight is under way to several nodes at a time: `send`, then `finish`.
"""

import math
import select
from asyncio import AbstractEventLoop, Future
from collections.abc import Callable, Mapping, Sequence
from itertools import accumulate
from typing import Any

from failsoft.clock import Clock
from failsoft.errors import StoreUnavailable, UnavailableReason
from failsoft.events import Event
from failsoft.exchange.operations import Operation
from failsoft.guard import Admission, Outcome
from failsoft.stores.cluster.rounds import Step
from failsoft.stores.cluster.slots import Address
from failsoft.stores.redis import RedisStore
from failsoft.stores.redis.channel import BOUND, Channel, Flight
from failsoft.stores.redis.connector import LAG, MOMENT, Shared
from failsoft.stores.redis.sync import Pool
from failsoft.stores.redis.wire import Warm

__all__ = ["Call", "Node", "Posted", "first_of"]


class Node(RedisStore):
    """The store on one primary.

    Args:
        address: where it is.
        url: the same, with everything else that leads into it.
        options: what was given beside the URL.
        name: of the cluster.
        deadline: seconds for a flight.
        max_connections: of all threads to this node.
        publish: hears of this node's outages.
        clock: for the breaker and for deadlines.
        random: for jitter.

    Attributes:
        address: where it is.
        failed_at: when a flight to it failed last; by the clock's `monotonic`.
        needed_at: when it was last sent for, or had slots; by the same.
        troubled_since: when an outage was announced that is not over; by the same.
    """

    def __init__(
        self,
        address: Address,
        url: str,
        *,
        options: Mapping[str, Any],
        name: str,
        deadline: float,
        max_connections: int,
        publish: Callable[[Event], None],
        clock: Clock,
        random: Callable[[], float],
    ) -> None:
        host, port = address
        super().__init__(
            url,
            options=options,
            name=f"{name}@{host}:{port}",
            deadline=deadline,
            max_connections=max_connections,
            publish=publish,
            clock=clock,
            random=random,
        )
        self.address = address
        self.failed_at = -math.inf
        self.needed_at = clock.monotonic()
        self.troubled_since: float | None = None

    @property
    def troubled(self) -> bool:
        """Whether some part of this process has no connection to it, or its breaker is not closed."""
        if not self.breaker.closed or self._pool.down:
            return True
        return any(link.down for link in self._links.links())

    @property
    def reason(self) -> UnavailableReason:
        """Why the last flight or attempt to connect that failed did so."""
        return self._shared.trouble

    @property
    def detail(self) -> str:
        """The same for people, without secrets."""
        return self._shared.detail

    def join(self, loop: AbstractEventLoop) -> None:
        """Have a connection for `loop` before its first flight; from any thread."""
        self._links.join(loop)
        self._connector.nudge()

    def activate(self) -> None:
        """Have a connection for threads before their first flight."""
        self._pool.activate()
        self._connector.nudge()

    def send(self, steps: Sequence[Step], due: float, *, first: bool, alone: bool) -> "Call":
        """Send `steps` from this thread.

        Args:
            steps: with one reply to come for each.
            due: when the replies must be there, by the clock's `monotonic`.
            first: whether the whole deadline is left, so that a timeout is the node's fault.
            alone: whether nothing is waited for before this call.

        Raises:
            StoreUnavailable: nothing was sent, or nobody knows.
        """
        pool, shared = self._pool, self._shared
        if not shared.breaker.closed:
            raise shared.refusal()
        connection = pool._usable()
        if connection is None:
            first = False  # who has to wait has less time
            connection = pool._wait(due)
        admission = shared.breaker.acquire()
        if admission is None:
            pool._give_back(connection)
            raise shared.refusal()
        call = Call(pool, shared, steps, connection, admission, due)
        call.send(first=first, alone=alone)
        return call

    def is_warm(self, loop: AbstractEventLoop) -> bool:
        """Whether `loop` has a connection."""
        return self._links.join(loop).channel is not None

    async def asend(self, steps: Sequence[Step], due: float, loop: AbstractEventLoop) -> "Posted | None":
        """Send `steps` from `loop`. Waits only where it has no connection yet. None if the loop can have none.

        Raises:
            StoreUnavailable: nothing was sent.
        """
        shared = self._shared
        if not shared.breaker.closed:
            raise shared.refusal()
        link = self._links.join(loop)
        channel = link.channel
        if channel is None or self._is_dead(channel, loop):
            channel = await link.wait(due, loop)
            if channel is None:
                return None
        if len(channel.flights) >= BOUND:
            raise StoreUnavailable("local_lag", f"{BOUND} flights are under way")
        admission = shared.breaker.acquire()
        if admission is None:
            raise shared.refusal()
        posted = Posted(steps, due, admission, loop)
        channel.send(posted.flight, _data(steps), loop)
        return posted

    def _is_dead(self, channel: Channel, loop: AbstractEventLoop) -> bool:
        """Whether `channel` died at rest, and the loop has not come to it yet."""
        rested = self._shared.monotonic() - channel.since
        if channel.flights or rested <= MOMENT or not channel.wire.readable():
            return False
        channel.close(loop, "closed")
        return True


class Posted:
    """Steps under way on a loop's connection.

    Attributes:
        flight: for the channel.
    """

    __slots__ = ("_future", "_steps", "flight")

    def __init__(self, steps: Sequence[Step], due: float, admission: Admission, loop: AbstractEventLoop) -> None:
        self._steps = steps
        self._future: Future[list[Any]] = loop.create_future()
        self.flight = Flight(_expected(steps), due, admission, self._future)

    async def finish(self) -> list[Any]:
        """See `Call.finish`."""
        return _replies(self._steps, await self._future)

    def abandon(self) -> None:
        """Do not wait any longer. The replies are read nevertheless, since others come after them."""
        self.flight.future = None
        if self._future.done() and not self._future.cancelled():
            self._future.exception()  # it was heard


class Call:
    """Steps under way on a thread's connection. It is finished, or abandoned."""

    __slots__ = ("_admission", "_connection", "_due", "_expected", "_first", "_over", "_pool", "_shared", "_steps")

    def __init__(
        self, pool: Pool, shared: Shared, steps: Sequence[Step], connection: Warm, admission: Admission, due: float
    ) -> None:
        self._pool = pool
        self._shared = shared
        self._steps = steps
        self._expected = _expected(steps)
        self._connection = connection
        self._admission = admission
        self._due = due
        self._first = False
        self._over = False

    def send(self, *, first: bool, alone: bool) -> None:
        """Send all.

        Args:
            first: whether the whole deadline was left, so that a timeout is the node's fault.
            alone: whether this call is waited for before any other.
        """
        self._first = first
        wire = self._connection.wire
        wire.due = self._due
        wire.fresh = first and alone
        try:
            wire.sendall(_data(self._steps))
        except Exception as error:
            raise self._failed(error) from error
        except BaseException:
            self.abandon()
            raise

    def finish(self) -> list[Any]:
        """The replies, one for each step; error replies as exceptions.

        Raises:
            StoreUnavailable: they did not all come.
        """
        try:
            replies, intact = self._pool._replies(self._connection, self._expected)
        except Exception as error:
            raise self._failed(error) from error
        except BaseException:
            self.abandon()
            raise
        self._end(Outcome.SUCCESS, intact=intact)
        return _replies(self._steps, replies)

    def abandon(self) -> None:
        """Do not wait any longer, whatever happened."""
        if not self._over:
            self._end(Outcome.CANCELLED)

    def _failed(self, error: Exception) -> StoreUnavailable:
        """What to raise for an error of redis-py, or of the system."""
        shared = self._shared
        late = shared.monotonic() - self._due
        if late > LAG:
            self._end(Outcome.IGNORE)
            return StoreUnavailable("local_lag", f"noticed {late:.3f} s late")
        self._end(Outcome.FAILURE if self._first or late < 0 else Outcome.IGNORE, hung=late >= 0)
        if late >= 0:
            return shared.failure("timeout", f"no whole reply in {shared.deadline:g} s")
        return shared.failure("broken", f"{type(error).__name__}: {error}")

    def _end(self, outcome: Outcome, *, intact: bool = False, hung: bool = False) -> None:
        self._over = True
        pool, connection = self._pool, self._connection
        now = self._shared.monotonic()
        if intact:
            connection.since = now
            pool._give_back(connection)
        else:
            pool._drop(connection, hung=hung)
        self._shared.breaker.settle(self._admission, outcome, now)
        if not intact:
            pool.connector.wonder()


def first_of(calls: Sequence[Call]) -> list[Call]:
    """Wait until there is something to read for some of `calls`, and return those; none if that was in vain."""
    if not hasattr(select, "poll"):  # Windows, where they are read one after the other
        return []
    poll = select.poll()
    call_of = {call._connection.wire.fileno(): call for call in calls}
    for descriptor in call_of:
        poll.register(descriptor, select.POLLIN)
    left = max(call._due for call in calls) - calls[0]._shared.monotonic()
    return [call_of[descriptor] for descriptor, _ in poll.poll(left * 1000)] if left > 0 else []


def _data(steps: Sequence[Step]) -> bytes:
    return steps[0].data if len(steps) == 1 else b"".join([step.data for step in steps])


def _expected(steps: Sequence[Step]) -> list[Operation]:
    """An operation for each reply to come: ASKING has one of its own."""
    if len(steps) == 1 and not steps[0].asking:
        return [steps[0].operation]
    return [step.operation for step in steps for _ in range(2 if step.asking else 1)]


def _replies(steps: Sequence[Step], replies: Sequence[Any]) -> list[Any]:
    """The replies to the steps themselves."""
    if len(replies) == len(steps):
        return list(replies)
    ends = accumulate(2 if step.asking else 1 for step in steps)
    return [replies[end - 1] for end in ends]
