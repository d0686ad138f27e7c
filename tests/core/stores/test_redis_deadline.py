"""How long a flight may take at most, and how soon a server that is back is tried: by a clock that the test moves."""

import asyncio
import math
from collections.abc import Callable
from contextlib import suppress
from typing import Any

import pytest

from failsoft.errors import StoreUnavailable
from failsoft.guard import State
from failsoft.stores.redis import RedisStore
from failsoft.stores.redis.aio import Link
from failsoft.stores.redis.channel import Channel, Flight
from failsoft.testing import ManualClock
from tests.core.stores.lua import ECHO, Lua
from tests.servers import Valkey, poll

Opener = Callable[..., RedisStore]

FLIGHT = [Lua(ECHO, arguments=("x",))]

DEADLINE = 5.0
"""Seconds. No busy machine needs them, so that no flight below ends by them."""

WAITS = [
    pytest.param(0.0, 1.0, id="not at all"),
    pytest.param(0.5, 0.5, id="half of it"),
    pytest.param(0.75, 0.25, id="as long as it may"),
    pytest.param(1.0, 0.25, id="too long"),
]
"""For how much of the deadline a flight waits for a connection, and how much of it the flight itself is granted then."""


@pytest.fixture
def still() -> ManualClock:
    """A clock that stands still."""
    return ManualClock()


class Unreached:
    """A store whose server the test plays, without a background: the test has the connector work when it is to."""

    def __init__(self, store: RedisStore, clock: ManualClock, monkeypatch: pytest.MonkeyPatch) -> None:
        self.store = store
        self.clock = clock
        self.back_at = math.inf
        self.tries: list[float] = []
        monkeypatch.setattr(store._connector, "nudge", lambda: None)
        monkeypatch.setattr(store._connector, "_make", self._make)

    def _make(self) -> Any:
        self.tries.append(self.clock.monotonic())
        if self.clock.monotonic() < self.back_at:
            raise ConnectionRefusedError
        return Played(self.clock.monotonic())

    def turn(self) -> None:
        """Have the connector work, and rest for as long as it says."""
        pause = self.store._connector.work()
        assert pause is not None, "it waits to be nudged"
        self.clock.advance(math.ceil(pause * 1e6) / 1e6)


class Played:
    """A connection that nobody uses."""

    address = None
    stale = False

    def __init__(self, since: float) -> None:
        self.since = since
        self.retire_at = math.inf

    def disconnect(self) -> None: ...


@pytest.mark.parametrize("luck", [0.0, 0.5, 0.999])
@pytest.mark.parametrize("away", [0.1, 0.4, 1.0, 1.3, 1.6, 1.9, 60.0, 60.2, 60.4])
def test_a_server_that_is_back_is_tried_within_half_a_second(
    open_store: Opener, still: ManualClock, monkeypatch: pytest.MonkeyPatch, away: float, luck: float
) -> None:
    """However long it was away, whenever it comes back, and whatever the jitter: then flights are served again."""
    store = open_store("redis://127.0.0.1:1", clock=still, random=lambda: luck)
    unreached = Unreached(store, still, monkeypatch)
    unreached.back_at = away
    store._pool.activate()

    for _ in range(1000):
        if store._pool._idle:
            break
        unreached.turn()

    assert store.breaker.state is State.CLOSED
    assert away <= unreached.tries[-1] <= away + 0.5
    assert all(later - sooner <= 0.501 for sooner, later in zip(unreached.tries, unreached.tries[1:], strict=False))


def test_the_deadline_of_a_threads_flight(valkey: Valkey, open_store: Opener, still: ManualClock) -> None:
    """The replies are due when the deadline is over, the first recv ends then, and later ones too."""
    store = open_store(valkey.unix_url, clock=still, deadline=DEADLINE)
    poll(lambda: flown(store, still))
    granted: list[tuple[float, float | None]] = []
    [connection] = store._pool._idle

    class Noting(type(connection.wire)):  # type: ignore[misc]  # a class made of a class
        __slots__ = ()

        def sendall(self, data: bytes) -> None:
            granted.append((self.due - still.monotonic(), self.sock.gettimeout()))
            super().sendall(data)

    connection.wire.__class__ = Noting

    store.flight(FLIGHT)
    store.begin(FLIGHT)()

    assert [pytest.approx((DEADLINE, DEADLINE))] * 2 == granted


@pytest.mark.parametrize(("waited", "left"), WAITS)
def test_the_deadline_of_a_thread_that_waits(
    valkey: Valkey, open_store: Opener, still: ManualClock, monkeypatch: pytest.MonkeyPatch, waited: float, left: float
) -> None:
    """The wait counts; a quarter of the deadline is the flight's in any case, and with it no flight takes longer than 1¼ of it."""
    store = open_store(valkey.unix_url, clock=still, deadline=DEADLINE)
    poll(lambda: flown(store, still))
    [connection] = store._pool._idle
    store._pool._idle.clear()

    def wait(due: float) -> Any:
        assert DEADLINE == pytest.approx(due - still.monotonic())
        still.advance(waited * DEADLINE)
        return connection

    monkeypatch.setattr(store._pool, "_wait", wait)

    store.flight(FLIGHT)

    assert left * DEADLINE == pytest.approx(connection.wire.due - still.monotonic())


def test_how_long_a_thread_waits(open_store: Opener, still: ManualClock, monkeypatch: pytest.MonkeyPatch) -> None:
    """Who finds no connection waits three quarters of the deadline for one."""
    store = open_store("redis://127.0.0.1:1", clock=still, deadline=DEADLINE)
    Unreached(store, still, monkeypatch)
    waits: list[float] = []

    class Ticket:
        def acquire(self, timeout: float) -> bool:
            waits.append(timeout)
            still.advance(timeout)
            return False

    def queue_up() -> Any:
        store._pool._tickets.append(ticket)  # type: ignore[arg-type]  # as much as who waits needs
        return ticket

    ticket = Ticket()
    monkeypatch.setattr(store._pool, "_queue_up", queue_up)

    with pytest.raises(StoreUnavailable):
        store.flight(FLIGHT)

    assert [pytest.approx(0.75 * DEADLINE)] == waits


def test_the_deadline_of_a_tasks_flight(
    valkey: Valkey, open_store: Opener, still: ManualClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The replies are due when the deadline is over, and the loop is asked to say so then."""
    store = open_store(valkey.unix_url, clock=still, deadline=DEADLINE)
    granted: list[float] = []
    timers: list[float] = []
    note_what_is_sent(monkeypatch, still, granted)

    async def main() -> None:
        loop = asyncio.get_running_loop()
        await aflown(store, still)
        granted.clear()
        [link] = store._links.links()
        assert link.channel is not None
        link.channel._timer_at = math.inf  # as if the timers of the flights before were over
        call_later = loop.call_later

        def later(delay: float, callback: Callable[..., Any], *arguments: Any) -> asyncio.TimerHandle:
            if callback == link.channel._on_timer:
                timers.append(delay)
            return call_later(delay, callback, *arguments)

        monkeypatch.setattr(loop, "call_later", later)
        await store.aflight(FLIGHT)
        await store.aclose()

    asyncio.run(main())

    assert [pytest.approx(DEADLINE)] == granted
    assert [pytest.approx(DEADLINE)] == timers


@pytest.mark.parametrize(("waited", "left"), WAITS)
def test_the_deadline_of_a_task_that_waits(
    valkey: Valkey, open_store: Opener, still: ManualClock, monkeypatch: pytest.MonkeyPatch, waited: float, left: float
) -> None:
    """The wait counts; a quarter of the deadline is the flight's in any case."""
    store = open_store(valkey.unix_url, clock=still, deadline=DEADLINE)
    granted: list[float] = []
    note_what_is_sent(monkeypatch, still, granted)

    async def main() -> None:
        await aflown(store, still)
        granted.clear()
        [link] = store._links.links()
        channel, link.channel = link.channel, None

        async def wait(link: Link, due: float, loop: asyncio.AbstractEventLoop) -> Any:
            assert DEADLINE == pytest.approx(due - still.monotonic())
            still.advance(waited * DEADLINE)
            link.channel = channel
            return channel

        monkeypatch.setattr(Link, "wait", wait)
        await store.aflight(FLIGHT)
        await store.aclose()

    asyncio.run(main())

    assert [pytest.approx(left * DEADLINE)] == granted


def test_how_long_a_task_waits(open_store: Opener, still: ManualClock, monkeypatch: pytest.MonkeyPatch) -> None:
    """Who finds no connection waits three quarters of the deadline for one."""
    store = open_store("redis://127.0.0.1:1", clock=still, deadline=DEADLINE)
    Unreached(store, still, monkeypatch)
    waits: list[float] = []

    async def main() -> None:
        loop = asyncio.get_running_loop()
        call_later = loop.call_later

        def later(delay: float, callback: Callable[..., Any], *arguments: Any) -> asyncio.TimerHandle:
            waits.append(delay)
            still.advance(delay)
            return call_later(0.0, callback, *arguments)

        monkeypatch.setattr(loop, "call_later", later)
        with pytest.raises(StoreUnavailable):
            await store.aflight(FLIGHT)

    asyncio.run(main())

    assert [pytest.approx(0.75 * DEADLINE)] == waits


def flown(store: RedisStore, clock: ManualClock) -> bool:
    """Whether a flight from this thread succeeds; if not, time passes, for the next attempt."""
    with suppress(StoreUnavailable):
        return store.flight(FLIGHT) == [b"x"]
    clock.advance(0.5)
    return False


async def aflown(store: RedisStore, clock: ManualClock) -> None:
    """Fly from this task until a flight succeeds."""
    async with asyncio.timeout(30):
        while True:
            with suppress(StoreUnavailable):
                assert [b"x"] == await store.aflight(FLIGHT)
                return
            clock.advance(0.5)
            await asyncio.sleep(0.01)


def note_what_is_sent(monkeypatch: pytest.MonkeyPatch, clock: ManualClock, granted: list[float]) -> None:
    """For each flight of a loop, how long it is granted when it is sent."""
    send = Channel.send

    def noting(channel: Channel, flight: Flight, data: bytes, loop: asyncio.AbstractEventLoop) -> None:
        granted.append(flight.due - clock.monotonic())
        send(channel, flight, data, loop)

    monkeypatch.setattr(Channel, "send", noting)
