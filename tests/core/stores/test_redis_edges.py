"""Edges: nonsense in replies, secrets in errors, interrupts in the midst of things, stores that are forgotten or closed."""

import asyncio
import collections
import gc
import signal
import socket
import threading
import time
from collections.abc import Callable
from typing import Any

import pytest

from failsoft.errors import OperationFailed, StoreUnavailable
from failsoft.exchange.operations import Script
from failsoft.stores.redis import RedisStore
from failsoft.stores.redis.wire import Warm as Connection
from tests.core.stores.conftest import Fly, under_way
from tests.core.stores.lua import ECHO, Lua
from tests.servers import Impostor, Valkey, poll

Opener = Callable[..., RedisStore]
Warm = Callable[[RedisStore], None]

FLIGHT = [Lua(ECHO, arguments=("x",))]


def attempt(fly: Fly, store: RedisStore) -> Any:
    """The answers of a flight, or its refusal."""
    try:
        return fly(store, FLIGHT)
    except StoreUnavailable as error:
        return error


# What servers say.


@pytest.mark.parametrize("parser", ["hiredis", "python"])
@pytest.mark.parametrize("nonsense", [b"$a\r\n", b":1e5\r\n", b"*1\r\n" * 5000], ids=["length", "integer", "depth"])
def test_nonsense_breaks_the_connection(
    open_store: Opener, fly: Fly, warm: Warm, monkeypatch: pytest.MonkeyPatch, parser: str, nonsense: bytes
) -> None:
    """A parser that stumbles over a reply, in whatever way, is a broken connection and nothing else."""
    _choose(parser, monkeypatch)
    bad = threading.Event()

    def answer(connection: socket.socket, data: bytes) -> None:
        connection.sendall(nonsense if bad.is_set() else b"$4\r\nwarm\r\n")

    with Impostor(answer) as server:
        store = open_store(server.url, deadline=2.0)
        warm(store)
        bad.set()

        failure = attempt(fly, store)

    assert isinstance(failure, StoreUnavailable)
    assert "broken" == failure.reason


@pytest.mark.parametrize("parser", ["hiredis", "python"])
def test_errors_of_any_bytes(
    valkey: Valkey, open_store: Opener, fly: Fly, warm: Warm, monkeypatch: pytest.MonkeyPatch, parser: str
) -> None:
    """An error whose text is no UTF-8 is its operation's alone, like any other."""
    _choose(parser, monkeypatch)
    store = open_store(valkey.url, deadline=2.0)
    warm(store)
    error = Script("test.error", "return redis.error_reply('ERR ' .. ARGV[1])")

    answers = fly(store, [Lua(error, arguments=(b"\xff\xfe",)), *FLIGHT])

    assert isinstance(answers[0], OperationFailed)
    assert b"x" == answers[1]


@pytest.mark.parametrize("parser", ["hiredis", "python"])
def test_one_reply_too_many(
    open_store: Opener, fly: Fly, warm: Warm, monkeypatch: pytest.MonkeyPatch, parser: str
) -> None:
    """What comes together with the last reply, and after it, is not the next caller's."""
    _choose(parser, monkeypatch)
    alien = threading.Event()

    def answer(connection: socket.socket, data: bytes) -> None:
        connection.sendall(b"$4\r\nwarm\r\n" + b"$5\r\nalien\r\n" * alien.is_set())

    with Impostor(answer) as server:
        store = open_store(server.url, deadline=2.0)
        warm(store)
        alien.set()
        assert [b"warm"] == attempt(fly, store)
        alien.clear()

        assert [b"warm"] == attempt(fly, store)


@pytest.mark.parametrize(
    "error",
    [
        b"-MASTERDOWN Link with MASTER is down and replica-serve-stale-data is set to 'no'.\r\n",
        # What Redis before 7 says of a script.
        b"-ERR Error running script (call to f_4a): @user_script:1: @user_script: 1: -READONLY You can't write against"
        b" a read only replica.\r\n",
    ],
)
def test_other_ways_to_say_read_only(open_store: Opener, fly: Fly, warm: Warm, error: bytes) -> None:
    """However a server says that it is not the primary, its connection is given up."""
    replica = threading.Event()

    def answer(connection: socket.socket, data: bytes) -> None:
        connection.sendall(error if replica.is_set() else b"$4\r\nwarm\r\n")

    with Impostor(answer) as server:
        store = open_store(server.url, deadline=2.0)
        warm(store)
        before = server.accepted
        replica.set()

        [failed] = attempt(fly, store)

        replica.clear()
        assert isinstance(failed, OperationFailed)
        warm(store)
        assert server.accepted > before


def test_a_server_that_repeats_the_password(open_store: Opener, fly: Fly) -> None:
    """Servers and proxies without AUTH quote what they do not know, password and all; nobody hears of it."""

    def answer(connection: socket.socket, data: bytes) -> None:
        connection.sendall(b"-ERR unknown command 'AUTH', with args beginning with: 'ann' 'pa55 word' \r\n")

    with Impostor(answer) as server:
        store = open_store(server.url.replace("//", "//ann:pa55%20word@"), deadline=2.0)

        failures = [attempt(fly, store) for _ in range(3)]

    for failure in failures:
        assert isinstance(failure, StoreUnavailable)
        assert "pa55" not in str(failure)
    assert "unknown command 'AUTH'" in str(failures[-1])


# What happens on event loops.


def test_broken_while_waiting_to_send(mortal: Valkey, open_store: Opener) -> None:
    """A connection that breaks while its socket is watched for writing does not spoil the descriptor for the next."""
    store = open_store(mortal.unix_url, deadline=5.0)

    async def main() -> None:
        await store.aflight(FLIGHT)
        channel, flight = await under_way(store, [Lua(ECHO, arguments=("b" * 5_000_000,))])
        assert channel._unsent
        descriptor = channel.wire.fileno()
        channel.wire.sock.shutdown(socket.SHUT_WR)

        channel._on_writable()

        with pytest.raises(StoreUnavailable, match="broken"):
            await flight
        assert not asyncio.get_running_loop().remove_writer(descriptor)
        assert [b"x"] == await store.aflight(FLIGHT)
        await store.aclose()

    asyncio.run(main())


def test_all_that_has_arrived_is_read_at_the_deadline(mortal: Valkey, open_store: Opener) -> None:
    """A loop that was blocked reads a reply of many pieces to its end before it declares a timeout."""
    store = open_store(mortal.unix_url, deadline=5.0)

    async def main() -> None:
        await store.aflight(FLIGHT)
        channel, task = await under_way(store, [Lua(ECHO, arguments=("b" * 150_000,))])
        while channel._unsent:
            channel._on_writable()
        poll(channel.wire.readable)  # the loop does not run meanwhile
        time.sleep(0.1)  # for the rest  # noqa: ASYNC251
        channel.flights[0].due = time.monotonic() - 0.001

        channel._on_timer()

        assert not channel.flights
        assert [b"b" * 150_000] == await task
        await store.aclose()

    asyncio.run(main())


def test_a_store_that_a_running_loop_forgets(mortal: Valkey) -> None:
    """A store that was dropped without closing it takes the connection of a running loop along."""

    async def main() -> None:
        store = RedisStore(mortal.unix_url, deadline=5.0)
        for _ in range(2):
            assert [b"x"] == await store.aflight(FLIGHT)
        assert 1 == mortal.connections()
        del store
        gc.collect()
        async with asyncio.timeout(10):
            while mortal.connections():  # noqa: ASYNC110  # nobody is there who could set an event
                await asyncio.sleep(0.01)
        # Another one may well have the same descriptor.
        store = RedisStore(mortal.unix_url, deadline=5.0)
        assert [b"x"] == await store.aflight(FLIGHT)
        await store.aclose()

    asyncio.run(main())


# What happens in between.


def test_closed_while_a_flight_ends(mortal: Valkey, open_store: Opener) -> None:
    """A connection that comes back just when the store is closed is closed too, however the two meet."""
    store = open_store(mortal.unix_url, deadline=5.0)
    store.flight(FLIGHT)
    [connection] = store._pool._idle

    class Late(collections.deque[Any]):
        def append(self, connection: Any) -> None:
            store.close()
            super().append(connection)

    store._pool._idle = Late([connection])
    store.flight(FLIGHT)

    assert not store._pool._idle
    assert connection._sock is None


def test_a_signal_while_the_connector_starts(
    valkey: Valkey, open_store: Opener, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A signal handler that flies while the thread below it starts the connector does not wait for itself."""
    store = open_store(valkey.unix_url, deadline=2.0)
    inside: list[Any] = []
    start = threading.Thread.start

    def starts(self: threading.Thread) -> None:
        if self.name.startswith("failsoft-") and not inside:
            inside.append(None)
            signal.raise_signal(signal.SIGUSR1)
        start(self)

    def handle(number: int, frame: Any) -> None:
        inside[0] = attempt(lambda store, operations: store.flight(operations), store)

    monkeypatch.setattr(threading.Thread, "start", starts)
    before = signal.signal(signal.SIGUSR1, handle)
    try:
        poll(lambda: attempt(lambda store, operations: store.flight(operations), store) == [b"x"])
    finally:
        signal.signal(signal.SIGUSR1, before)
    assert isinstance(inside[0], StoreUnavailable)  # it waited as long as anybody, and no longer


def test_an_interrupt_while_the_connector_starts(
    valkey: Valkey, open_store: Opener, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A connector whose start was interrupted does not work beside the next one for ever."""
    store = open_store(valkey.unix_url, name="twins", deadline=2.0)
    start = threading.Thread.start

    def interrupted(self: threading.Thread) -> None:
        start(self)
        if self.name == "failsoft-twins":
            monkeypatch.undo()
            raise KeyboardInterrupt

    monkeypatch.setattr(threading.Thread, "start", interrupted)
    with pytest.raises(KeyboardInterrupt):
        store.flight(FLIGHT)

    assert [b"x"] == store.flight(FLIGHT)
    poll(lambda: ["failsoft-twins"] == [t.name for t in threading.enumerate() if t.name == "failsoft-twins"])


def test_a_listener_that_exits(open_store: Opener, fly: Fly, warm: Warm) -> None:
    """A listener that raises what would end the thread does not end the connector: nobody would probe any more."""
    said = threading.Event()

    def listen(event: Any) -> None:
        if not said.is_set():
            said.set()
            raise SystemExit

    server = Valkey()
    store = open_store(server.url, publish=listen)
    try:
        poll(lambda: (attempt(fly, store), said.is_set())[1])
        server.start()
        warm(store)
    finally:
        server.close()


def _choose(parser: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Have new connections parse in this way."""
    if parser == "hiredis":
        pytest.importorskip("hiredis")
        return
    from redis._parsers import _RESP2Parser

    init = Connection.set_parser
    monkeypatch.setattr(Connection, "set_parser", lambda self, parser_class: init(self, _RESP2Parser))
