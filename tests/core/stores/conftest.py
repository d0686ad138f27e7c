"""What tests of stores need: servers, and one way to fly for threads and event loops."""

import asyncio
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import pytest

from failsoft.errors import StoreUnavailable
from failsoft.exchange.operations import Operation
from failsoft.stores.redis import RedisStore
from failsoft.stores.redis.channel import Channel
from tests.core.stores.lua import ECHO, NAPS, Lua, allow_naps
from tests.servers import Valkey, poll

Fly = Callable[[RedisStore, Sequence[Operation]], list[Any]]


@pytest.fixture(scope="session")
def one_valkey() -> Iterator[Valkey]:
    """A server for all tests that do it no harm."""
    with Valkey(*NAPS) as server:
        yield allow_naps(server)


@pytest.fixture
def valkey(one_valkey: Valkey) -> Valkey:
    """The server that is there for everybody, empty."""
    one_valkey.run("FLUSHALL")
    one_valkey.run("SCRIPT", "FLUSH")
    one_valkey.run("CONFIG", "RESETSTAT")
    return one_valkey


@pytest.fixture
def mortal() -> Iterator[Valkey]:
    """A server of the test's own, to be killed and stopped."""
    with Valkey(*NAPS) as server:
        yield allow_naps(server)


class Ahead:
    """The system's clock, and then some."""

    def __init__(self) -> None:
        self.ahead = 0.0

    def monotonic(self) -> float:
        return time.monotonic() + self.ahead

    def time(self) -> float:
        return time.time() + self.ahead


@pytest.fixture
def clock() -> Ahead:
    """A clock that can be set ahead."""
    return Ahead()


@pytest.fixture
def open_store() -> Iterator[Callable[..., RedisStore]]:
    """Makes stores, and closes them after the test."""
    stores: list[RedisStore] = []

    def open_(url: str, **options: Any) -> RedisStore:
        stores.append(RedisStore(url, **options))
        return stores[-1]

    yield open_
    for store in stores:
        store.close()


@pytest.fixture
def background() -> Iterator[asyncio.AbstractEventLoop]:
    """An event loop that runs in a thread of its own."""
    loop = asyncio.new_event_loop()
    thread = threading.Thread(target=loop.run_forever)
    thread.start()
    yield loop
    loop.call_soon_threadsafe(loop.stop)
    thread.join()
    loop.close()


@pytest.fixture(params=["sync", "async"])
def fly(request: pytest.FixtureRequest) -> Fly:
    """A flight from this thread, or from a task of an event loop: the same must come of both."""
    if request.param == "sync":
        return lambda store, operations: store.flight(operations)
    loop = request.getfixturevalue("background")

    def from_a_task(store: RedisStore, operations: Sequence[Operation]) -> list[Any]:
        async def main() -> list[Any]:
            return await store.aflight(operations)

        return asyncio.run_coroutine_threadsafe(main(), loop).result(10)

    return from_a_task


@pytest.fixture
def warm(fly: Fly) -> Callable[[RedisStore], None]:
    """Waits until a store answers."""

    def wait(store: RedisStore) -> None:
        def answers() -> bool:
            try:
                return fly(store, [Lua(ECHO, arguments=("warm",))]) == [b"warm"]
            except StoreUnavailable:
                return False

        poll(answers)

    return wait


async def under_way(store: RedisStore, operations: Sequence[Operation]) -> tuple[Channel, asyncio.Task[list[Any]]]:
    """The running loop's channel, on which `operations` were just sent, as far as the socket takes them; and who waits for them."""
    [link] = store._links.links()
    channel = link.channel
    assert channel is not None
    task = asyncio.create_task(store.aflight(operations))
    await asyncio.sleep(0)
    channel._flush()
    return channel, task
