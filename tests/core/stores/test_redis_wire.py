"""Sockets that keep to a deadline, and redis-py's hook that puts them in."""

import contextlib
import select
import socket
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import pytest
import redis

from failsoft.errors import StoreUnavailable
from failsoft.stores.redis import RedisStore, wire
from failsoft.stores.redis.url import parse_url
from failsoft.stores.redis.wire import NothingYet, Wire, dial
from tests.core.stores.conftest import Fly
from tests.core.stores.lua import ECHO, Lua
from tests.servers import Impostor, Valkey, poll

Pair = tuple[Wire, socket.socket]


@pytest.fixture
def pair() -> Iterator[Pair]:
    """A wire that serves threads, and the other end."""
    ours, theirs = socket.socketpair()
    with ours, theirs:
        yield Wire(ours, budget=5.0, monotonic=time.monotonic), theirs


@pytest.mark.parametrize("scheme", ["tcp", "unix"])
def test_redis_py_reads_through_the_wire(valkey: Valkey, scheme: str) -> None:
    """redis-py still calls `_connect` and takes what it returns for its socket: without this there is no deadline."""
    url = valkey.url if scheme == "tcp" else valkey.unix_url
    connection = dial(parse_url(url), deadline=0.5, monotonic=time.monotonic)

    assert isinstance(connection._sock, Wire)
    connection.wire.due = time.monotonic()  # over
    connection.send_command("PING", check_health=False)
    assert poll(connection.wire.readable)
    assert b"PONG" == connection.read_response()
    valkey.run("CLIENT", "PAUSE", "100", "ALL")
    connection.send_command("PING", check_health=False)
    with pytest.raises(redis.TimeoutError):
        connection.read_response()
    assert connection._sock is None
    connection.disconnect()


@pytest.mark.parametrize("url", ["tcp", "unix"])
def test_redis_py_neither_retries_nor_introduces_itself(mortal: Valkey, url: str) -> None:
    """A connect is as few round trips as can be: one PING, for flights one script, and with a database one SELECT."""
    target = parse_url((mortal.url if url == "tcp" else mortal.unix_url).replace("/0", "/1").replace("db=0", "db=1"))
    with mortal.client() as client:
        client.config_resetstat()

        connection = dial(target, deadline=0.5, monotonic=time.monotonic, scripts=True)

        calls = client.info("commandstats")
    assert {"cmdstat_select", "cmdstat_ping", "cmdstat_eval"} == {
        name for name in calls if name != "cmdstat_config|resetstat"
    }
    assert 0 == connection.retry.get_retries()
    connection.disconnect()


def test_the_first_read_takes_the_sockets_timeout(pair: Pair) -> None:
    """The usual read costs no system call but itself, and its data is returned."""
    ours, theirs = pair
    ours.serve_threads(1.0)
    ours.due, ours.fresh = time.monotonic() + 1.0, True
    theirs.sendall(b"+OK")

    assert b"+OK" == ours.recv(100)
    assert not ours.fresh


@pytest.mark.parametrize("method", ["recv", "recv_into"])
def test_later_reads_take_what_is_left(pair: Pair, method: str) -> None:
    """A read that is not the first ends when the deadline does, whatever the socket's timeout is."""
    ours, _ = pair
    ours.serve_threads(30.0)
    ours.due = time.monotonic() + 0.05

    with pytest.raises(TimeoutError):
        getattr(ours, method)(100 if method == "recv" else bytearray(100))

    assert 30.0 == ours.sock.gettimeout()


@pytest.mark.parametrize("fresh", [True, False])
def test_what_has_arrived_is_read_after_the_deadline(pair: Pair, fresh: bool) -> None:
    """A late reader still gets what came in time; with nothing there, it is a timeout."""
    ours, theirs = pair
    ours.serve_threads(0.01)
    ours.due, ours.fresh = time.monotonic() - 1.0, fresh
    theirs.sendall(b"+OK")

    assert b"+OK" == ours.recv(100)
    ours.fresh = fresh
    with pytest.raises(TimeoutError):
        ours.recv(100)


def test_an_endless_reply_ends(pair: Pair) -> None:
    """A server that never stops sending does not keep its caller for ever."""
    ours, theirs = pair
    ours.serve_threads(1.0)
    ours.due = time.monotonic() - 1.0
    theirs.sendall(b"x" * 10_000)

    with pytest.raises(TimeoutError):
        sum(len(ours.recv(1)) for _ in range(10_000))
    ours.due = time.monotonic() + 1.0
    assert b"x" == ours.recv(1)


def test_for_a_loop_one_read_each_time(pair: Pair) -> None:
    """A wire that serves a loop reads when told that it may, once, and never blocks."""
    ours, theirs = pair
    ours.serve_loop()
    theirs.sendall(b"ab")

    with pytest.raises(NothingYet):
        ours.recv(1)
    ours.ready = True
    assert b"a" == ours.recv(1)
    with pytest.raises(NothingYet):
        ours.recv(1)
    ours.ready = True
    assert b"b" == ours.recv(1)
    ours.ready = True
    with pytest.raises(NothingYet):
        ours.recv(1)


def test_readable(pair: Pair, monkeypatch: pytest.MonkeyPatch) -> None:
    """Data or the end make a wire readable, with poll and without."""
    ours, theirs = pair
    monkeypatch.delattr(select, "poll")
    without = Wire(ours.sock, budget=5.0, monotonic=time.monotonic)

    assert (False, False) == (ours.readable(), without.readable())
    theirs.close()
    assert (True, True) == (ours.readable(), without.readable())


def test_a_large_flight_leaves_its_replies_less_time(pair: Pair) -> None:
    """Sending much may take a while, so that the first read no longer has the whole timeout."""
    ours, theirs = pair
    ours.fresh = True
    ours.sendall(b"x" * 1000)
    assert ours.fresh
    with ThreadPoolExecutor() as reader:
        reading = reader.submit(lambda: sum(iter(lambda: len(theirs.recv(65536)), 0)))
        ours.sendall(b"x" * 100_000)
        ours.sock.shutdown(socket.SHUT_WR)

    assert (False, 101_000) == (ours.fresh, reading.result())


def test_a_slow_handshake_ends(monkeypatch: pytest.MonkeyPatch) -> None:
    """The budget holds for the whole handshake: a server that drips its greeting does not keep the connector."""
    monkeypatch.setattr(wire, "CONNECT_BUDGET", 0.3)

    def drip(connection: socket.socket, data: bytes) -> None:
        for _ in range(1000):
            connection.sendall(b"+")
            time.sleep(0.02)

    with Impostor(drip) as server:
        start = time.monotonic()
        with pytest.raises(redis.TimeoutError):
            dial(parse_url(server.url.replace("/0", "/1")), deadline=0.1, monotonic=time.monotonic)

    assert time.monotonic() - start < 5.0


def test_slow_pings_are_no_life() -> None:
    """A server that answers PING later than the deadline, twice, is not ready for use."""

    class Slow(Impostor):
        def _serve(self, connection: socket.socket) -> None:
            with contextlib.suppress(OSError):
                while connection.recv(65536):
                    time.sleep(0.3)
                    connection.sendall(b"+PONG\r\n")

    with Slow(lambda connection, data: None) as server, pytest.raises(redis.TimeoutError):
        dial(parse_url(server.url), deadline=0.05, monotonic=time.monotonic)


def test_a_dripping_reply_ends_at_the_deadline(fly: Fly) -> None:
    """One byte each 50 ms is within the timeout of every recv, and yet the flight ends at its deadline."""
    dripping = threading.Event()

    def drip(connection: socket.socket, data: bytes) -> None:
        if not dripping.is_set():
            connection.sendall(b"$1\r\nx\r\n")
            return
        for byte in b"$1000\r\n" + b"x" * 1000:
            connection.sendall(bytes((byte,)))
            time.sleep(0.05)

    def flown() -> bool:
        with contextlib.suppress(StoreUnavailable):
            return fly(store, [Lua(ECHO, arguments=("x",))]) == [b"x"]
        return False

    with Impostor(drip) as server:
        store = RedisStore(server.url, deadline=0.25)
        poll(flown)
        dripping.set()
        start = time.monotonic()
        with pytest.raises(StoreUnavailable) as failure:
            fly(store, [Lua(ECHO, arguments=("a",))])
        took = time.monotonic() - start
        store.close()

    assert failure.value.reason in ("timeout", "local_lag")
    assert took < 2.0  # 50 s without a deadline for the whole reply
