"""Event loops: each has one channel to the store, shared by all its tasks.

- A loop's link has a channel, or callers who wait for one, or neither, and then nobody waits: they are refused at
  once.
- The connector makes the connection and posts it to the loop. Nothing here resolves, connects or shakes hands.
- Links are found by their loop, which nothing here keeps alive. A loop that was closed or forgotten takes its link
  with it, and its socket is closed in silence.
- Links change on their loop's thread only; what others call says so.

A loop that cannot watch sockets (Windows' Proactor) is served by the threads' pool, a worker thread for each flight.
"""

import asyncio
import math
import weakref
from asyncio import AbstractEventLoop, Future
from collections.abc import Callable, Sequence
from threading import RLock
from typing import Any
from weakref import WeakKeyDictionary

from failsoft.errors import StoreUnavailable, UnavailableReason
from failsoft.exchange.operations import Operation
from failsoft.stores.redis.channel import BOUND, Channel, Flight
from failsoft.stores.redis.commands import answers, by_sha, merge, misfits
from failsoft.stores.redis.connector import MOMENT, SHARE, Connector, Shared
from failsoft.stores.redis.sentinel import Address
from failsoft.stores.redis.wire import Warm

__all__ = ["Link", "Links"]


class Link:
    """What one event loop has of the store: a channel, or callers that wait for one."""

    __slots__ = (
        "__weakref__",
        "_connector",
        "_loop",
        "_pending",
        "_posted",
        "_shared",
        "_waiters",
        "channel",
        "down",
        "threaded",
    )

    def __init__(self, loop: AbstractEventLoop, shared: Shared, connector: Connector) -> None:
        self._loop = weakref.ref(loop)
        self._shared = shared
        self._connector = connector
        self._pending = False  # a connection is on its way to the loop
        self._posted: set[str] = set()  # what the loop was told and has not come to
        self._waiters: set[Future[bool]] = set()
        self.channel: Channel | None = None
        self.down = False
        self.threaded = False

    def __del__(self) -> None:
        # The loop has the channel too, and watches its socket. Whoever collects this may be any thread.
        if self.channel is not None:
            self._post(self.channel.let_go)

    async def wait(self, due: float, loop: AbstractEventLoop) -> Channel | None:
        """A channel, when there is one; None if the loop cannot have any."""
        shared = self._shared
        until = due - SHARE * shared.deadline
        waited = over = False
        while True:
            if self.channel is not None or self.threaded:
                return self.channel
            if shared.closed or not shared.breaker.closed:
                raise shared.refusal()
            if self.down:
                raise shared.refusal(shared.trouble if waited else None)
            left = until - shared.monotonic()
            if left <= 0 or over:
                self.down = True  # the next one does not wait again
                raise shared.refusal()
            if len(self._waiters) >= BOUND:
                raise StoreUnavailable("local_lag", f"{BOUND} callers wait for a connection")
            future: Future[bool] = loop.create_future()
            self._waiters.add(future)
            timer = loop.call_later(left, _resolve, future, True)
            self._connector.nudge()
            try:
                over = await future
            finally:
                timer.cancel()
                self._waiters.discard(future)
            waited = True

    def _demoted(self, channel: Channel) -> None:
        """Not the primary any more: the next connection may find the new one."""
        if self.channel is channel:
            self.channel = None
            channel.retire(asyncio.get_running_loop())
            self._connector.wonder()

    def _lost(self, channel: Channel, reason: UnavailableReason) -> None:
        if self.channel is channel:
            self.channel = None
            # A server that hangs would have the next caller wait too; whether it is gone is known in a moment.
            self.down = reason == "timeout"
            # Lost at rest: the next flight asks for another one. A server that is being restarted would refuse it now.
            if reason != "closed":
                self._connector.wonder()

    # What follows is called by the connector, or by whoever closes the store.

    def wants(self, now: float) -> bool:
        """Whether a connection is needed: the first, or one in place of an old one."""
        if self._pending or self.threaded:
            return False
        channel = self.channel
        return channel is None or now >= channel.connection.retire_at

    def take(self, connection: Warm) -> None:
        """Have one."""
        connection.wire.serve_loop()
        self._pending = True
        # Already: the loop may stand still for long, and who tries again at once, and again, is to wait, which lets it take this one.
        self.down = False
        if not self._post(self._adopt, connection):
            connection.disconnect()

    def fail(self) -> None:
        """There is none to be had."""
        self._post_once(self._refuse)

    def tend(self, now: float, *, distrust: bool) -> float:
        """Give up an idle channel in distrust. Returns when the channel grows old."""
        channel = self.channel
        if channel is None:
            return math.inf
        if distrust:
            self._post_once(self._give_up_idle)
        return channel.connection.retire_at

    def leave(self, address: Address) -> None:
        """Use no connection any more that does not lead to `address`."""
        self._post(self._leave, address)

    def close(self) -> None:
        """Let go of everything, from whatever thread."""
        loop = self._loop()
        if loop is None or loop.is_closed():
            self.abandon()
        elif loop.is_running() and _running_loop() is not loop:
            self._post(self._shut, loop)
        else:
            self._shut(loop)

    def abandon(self) -> None:
        """Let go of the connection of a loop that is no more, or is another process's."""
        channel, self.channel = self.channel, None
        if channel is not None:
            channel.connection.disconnect()

    def _post_once(self, callback: Callable[[], None]) -> None:
        # A loop that stands still, for hours maybe, would gather one for each attempt.
        if callback.__name__ not in self._posted:
            self._posted.add(callback.__name__)
            self._post(callback)

    def _post(self, callback: Callable[..., None], *arguments: Any) -> bool:
        loop = self._loop()
        if loop is None:
            return False
        try:
            loop.call_soon_threadsafe(callback, *arguments)
        except RuntimeError:  # closed meanwhile
            return False
        return True

    def _adopt(self, connection: Warm) -> None:
        loop = asyncio.get_running_loop()
        old = self.channel
        try:
            if self._shared.closed:
                connection.disconnect()
            else:
                channel = self._channel_of(connection)
                try:
                    loop.add_reader(connection.wire.fileno(), channel.on_readable)
                except NotImplementedError:
                    connection.disconnect()
                    self.threaded = True
                else:
                    self.channel = channel
        finally:
            self._pending = False  # not before: the connector, in its thread, would make a second one
        self.down = False
        self._release_waiters()
        if old is not None:
            old.retire(loop)
        self._connector.nudge()  # to have that announced, and because it knows only now when this connection grows old

    def _channel_of(self, connection: Warm) -> Channel:
        # Weakly: the link has the channel, and in a cycle a socket may be finalized before the connection closes it.
        me = weakref.ref(self)

        def lost(channel: Channel, reason: UnavailableReason) -> None:
            link = me()
            if link is not None:
                link._lost(channel, reason)

        def demoted(channel: Channel) -> None:
            link = me()
            if link is not None:
                link._demoted(channel)

        return Channel(connection, self._shared, lost=lost, demoted=demoted)

    def _refuse(self) -> None:
        self._posted.discard("_refuse")
        if self.channel is None:
            self.down = True
            self._release_waiters()
            self._connector.nudge()

    def _give_up_idle(self) -> None:
        self._posted.discard("_give_up_idle")
        channel = self.channel
        if channel is not None and not channel.flights:
            channel.close(asyncio.get_running_loop(), "closed")

    def _leave(self, address: Address) -> None:
        channel = self.channel
        if channel is not None and channel.connection.address != address:
            self._demoted(channel)

    def _shut(self, loop: AbstractEventLoop) -> None:
        self._release_waiters()
        if self.channel is not None:
            self.channel.close(loop, "closed", f"store {self._shared.name!r} was closed")

    def _release_waiters(self) -> None:
        for waiter in self._waiters:
            _resolve(waiter, False)


class Links:
    """The links of all event loops of this process.

    Args:
        shared: the store's.
        by_thread: runs a flight of a loop that can have no channel, in a worker thread.
    """

    def __init__(self, shared: Shared, by_thread: Callable[[Sequence[Operation]], list[Any]]) -> None:
        self._shared = shared
        self._by_thread = by_thread
        self.connector: Connector
        self._links: WeakKeyDictionary[AbstractEventLoop, Link] = WeakKeyDictionary()
        # Reentrant, because a signal handler may close the store.
        self._lock = RLock()

    def start_over(self) -> None:
        """Be as new: after a fork the parent's connections are closed here, which leaves the parent's alone."""
        inherited = list(self._links.values())
        self._links = WeakKeyDictionary()
        self._lock = RLock()
        for link in inherited:
            link.abandon()

    async def flight(self, operations: Sequence[Operation]) -> list[Any]:
        """Run `operations`; see `Store.aflight`."""
        if not operations:
            return []
        shared = self._shared
        breaker = shared.breaker
        if not breaker.closed:
            raise shared.refusal()
        try:
            data = by_sha(operations)
        except Exception:
            wrong, others = misfits(operations, shared)
            return merge(wrong, await self.flight(others))
        loop = asyncio.get_running_loop()
        link = self._links.get(loop) or self.join(loop)
        now = shared.monotonic()
        due = now + shared.deadline
        channel = link.channel
        if channel is not None and not channel.flights and now - channel.since > MOMENT and channel.wire.readable():
            # The loop did not run meanwhile, or has not come to it yet.
            channel.close(loop, "closed")
            channel = None
        if channel is None:
            channel = await link.wait(due, loop)
            if channel is None:
                return await asyncio.to_thread(self._by_thread, operations)
            now = shared.monotonic()  # the breaker would take a time from before the wait for that of a clock set back
            due = max(due, now + SHARE * shared.deadline)
        if len(channel.flights) >= BOUND:
            raise StoreUnavailable("local_lag", f"{BOUND} flights are under way")
        admission = breaker.acquire(now)
        if admission is None:
            raise shared.refusal()
        future: Future[list[Any]] = loop.create_future()
        flight = Flight(operations, due, admission, future)
        channel.send(flight, data, loop)
        try:
            replies = await future
        except asyncio.CancelledError:
            flight.future = None
            raise
        return answers(operations, replies, shared)

    def join(self, loop: AbstractEventLoop) -> Link:
        """The link of `loop`, new or not."""
        with self._lock:
            link = self._links.get(loop)
            if link is None:
                link = self._links[loop] = Link(loop, self._shared, self.connector)
            return link

    def links(self) -> list[Link]:
        """Those of loops that may still run. The rest is forgotten."""
        with self._lock:
            over = [loop for loop in self._links if loop.is_closed()]
            for loop in over:
                self._links.pop(loop).abandon()
            return list(self._links.values())

    def close(self) -> None:
        """Let go of everything."""
        for link in self.links():
            link.close()


def _resolve(future: "Future[bool]", over: bool) -> None:
    if not future.done():
        future.set_result(over)


def _running_loop() -> AbstractEventLoop | None:
    try:
        return asyncio.get_running_loop()
    except RuntimeError:
        return None
