"""Messages over a socket, without a framework: what is charged when it is opened, what for each message, and what stays."""

import asyncio
from collections.abc import Iterator
from typing import Any

import pytest

from failsoft import RateLimited, Settings, limit
from failsoft.exchange import Exchange
from failsoft.exchange.policy import enter, leave
from failsoft.ratelimit import exempt
from failsoft.runtime import Runtime, runtimes
from failsoft.testing import FaultyStore, ManualClock
from tests.core.requests import FakeFacts, make_runtime


@pytest.fixture(autouse=True)
def _close_runtimes() -> Iterator[None]:
    """No runtime outlives its test: other tests hold all that live to a clock."""
    known = runtimes()
    yield
    for runtime in runtimes():
        if runtime not in known:
            runtime.close()


class Opening(FakeFacts):
    """A request that opens a socket."""

    opens_socket = True
    synchronous = False

    __slots__ = ("each",)

    def __init__(self, endpoint: Any = None, *, each: Any = None, **options: Any) -> None:
        super().__init__(endpoint, **options)
        self.each = each

    def message_targets(self) -> Any:
        return () if self.each is None else (self.each,)


class Message(FakeFacts):
    """A message."""

    synchronous = False

    __slots__ = ()


def view() -> Any:
    """An endpoint of its own for each test."""

    async def endpoint() -> None: ...

    return endpoint


class Socket:
    """A socket, driven as an adapter does."""

    def __init__(self, runtime: Runtime, facts: Opening) -> None:
        self.runtime = runtime
        self.exchange = runtime.begin(facts)

    async def open(self) -> bool:
        rejected = await self.runtime.aadmit(self.exchange)
        await self.runtime.afinish(self.exchange, 101 if rejected is None else rejected.status)
        return rejected is None

    async def message(self) -> tuple[bool, Exchange]:
        exchange, rejected = await self.runtime.amessage(self.exchange, Message())
        return rejected is None, exchange


def run(work: Any) -> Any:
    return asyncio.run(work)


def test_openings_and_messages_are_charged_apart() -> None:
    """Limits on messages are not charged when a socket is opened, and the others not for messages."""
    store = FaultyStore()
    endpoint = limit("1/minute")(limit("2/minute", messages=True)(view()))
    socket = Socket(make_runtime(store=store, limits=["9/minute"]), Opening(endpoint))

    async def talk() -> list[bool]:
        return [await socket.open(), *[(await socket.message())[0] for _ in range(3)]]

    assert [True, True, True, False] == run(talk())
    assert [("ratelimit.acquire",)] * 4 == list(store.flights)
    assert set(socket.exchange.plan.enforced) > set(socket.exchange.plan.messages)


def test_what_is_called_for_each_message() -> None:
    """Limits on a function that is called for each message count messages, whatever they say; an exemption there is none."""
    each = exempt(limit("2/minute")(view()))
    socket = Socket(make_runtime(store=FaultyStore(), limits=["1/minute"]), Opening(view(), each=each))

    async def talk() -> list[bool]:
        return [await socket.open(), *[(await socket.message())[0] for _ in range(3)]]

    assert [True, True, True, False] == run(talk())


def test_without_limits_on_messages() -> None:
    """Where nothing counts messages, they make no flight."""
    store = FaultyStore()
    socket = Socket(make_runtime(store=store, limits=["9/minute"]), Opening(view()))

    async def talk() -> list[bool]:
        return [await socket.open(), *[(await socket.message())[0] for _ in range(3)]]

    assert [True] * 4 == run(talk())
    assert 1 == len(store.flights)


def test_late_limits_on_messages_begin_with_the_next_one() -> None:
    """A limit on messages that is found only when the endpoint runs counts the messages after that, and nothing before."""
    store = FaultyStore()
    hidden = limit("2/minute", messages=True)(view())
    socket = Socket(make_runtime(store=store), Opening())

    async def talk() -> list[bool]:
        token = enter(socket.exchange)
        await socket.open()
        await hidden()
        assert 0 == len(store.flights)
        leave(token)
        return [(await socket.message())[0] for _ in range(3)]

    assert [True, True, False] == run(talk())


def test_helpers_of_messages() -> None:
    """What was enforced for one message is enforced anew for the next, in its own exchange and in the socket's."""
    helper = limit("2/minute", shared="helper")(view())
    socket = Socket(make_runtime(store=FaultyStore()), Opening())

    async def talk(*, own: bool) -> list[bool]:
        outcomes = []
        for _ in range(3):
            _, exchange = await socket.message()
            token = enter(exchange if own else socket.exchange)
            try:
                await helper()
                await helper()
                outcomes.append(True)
            except RateLimited:
                outcomes.append(False)
            leave(token)
        return outcomes

    assert [True, True, False] == run(talk(own=True))
    clock: Any = socket.runtime.clock
    clock.advance("1m")
    socket.runtime.stores["default"] = FaultyStore(clock=clock)
    assert [True, True, False] == run(talk(own=False))


def test_a_message_that_one_store_refuses_costs_nothing_in_the_other() -> None:
    """A refused message is given back to the limits of another store, as a refused request is."""
    clock = ManualClock()
    endpoint = limit("3/minute", messages=True)(limit("1/second", messages=True, store="other")(view()))
    runtime = make_runtime(store=FaultyStore(clock=clock), clock=clock, stores={"other": "memory://"}, deny_cache=0)
    socket = Socket(runtime, Opening(endpoint))

    async def talk() -> list[list[bool]]:
        await socket.open()
        seen = []
        for _ in range(4):
            seen.append([(await socket.message())[0] for _ in range(4)])
            clock.advance("1s")
        return seen

    assert [[True, False, False, False]] * 3 + [[False] * 4] == run(talk())


@pytest.mark.parametrize("enabled", [True, False])
def test_turned_off(enabled: bool) -> None:
    """With ``enabled=False`` no message is counted."""
    store = FaultyStore()
    endpoint = limit("1/minute", messages=True)(view())
    socket = Socket(make_runtime(store=store, enabled=enabled), Opening(endpoint))

    async def talk() -> list[bool]:
        return [await socket.open(), *[(await socket.message())[0] for _ in range(2)]]

    assert [True, True, not enabled] == run(talk())


def test_settings_that_change_hold_for_the_next_message() -> None:
    """A socket that is open goes on under new settings."""
    endpoint = limit("1/minute", messages=True)(view())
    runtime = make_runtime(store=FaultyStore())
    socket = Socket(runtime, Opening(endpoint))

    async def talk() -> list[bool]:
        await socket.open()
        before = [(await socket.message())[0] for _ in range(2)]
        runtime.reload(Settings.load({"by": "route"}, environ={}))
        return before + [(await socket.message())[0] for _ in range(2)]

    assert [True, False, True, False] == run(talk())


def test_no_more_is_kept_of_a_message() -> None:
    """An exchange of a message is settled and over when it was decided about."""
    socket = Socket(make_runtime(store=FaultyStore()), Opening(limit("9/minute", messages=True)(view())))

    async def talk() -> Exchange:
        await socket.open()
        return (await socket.message())[1]

    exchange = run(talk())
    assert (True, []) == (exchange.settled, exchange._parts)
