"""Flights whose answers are fetched later."""

import gc
import socket
import threading
import time
from collections.abc import Callable
from typing import Any

import pytest

from failsoft.errors import OperationFailed, StoreUnavailable
from failsoft.stores import MemoryStore
from failsoft.stores.redis import RedisStore
from failsoft.testing import FaultyStore
from tests.core.stores.lua import ECHO, INCR, Lua
from tests.servers import Impostor, Lag, Valkey, poll

Opener = Callable[..., RedisStore]

FLIGHT = [Lua(ECHO, arguments=("x",))]


def test_under_way_at_once(open_store: Opener) -> None:
    """All stores are asked before the first answer is waited for, so that together they take as long as the slowest."""
    all_asked = threading.Barrier(2)

    def answer(connection: socket.socket, data: bytes) -> None:
        all_asked.wait(5)
        connection.sendall(b"$4\r\nslow\r\n")

    with Impostor(answer) as one, Impostor(answer) as other:
        stores = [open_store(server.url, deadline=5.0) for server in (one, other)]
        for store in stores:
            store.start()
            poll(lambda store=store: store._pool._idle)

        waiting = [store.begin(FLIGHT) for store in stores]
        answers = [wait() for wait in waiting]

        assert [[b"slow"], [b"slow"]] == answers


def test_the_deadline_counts_from_the_beginning(mortal: Valkey, open_store: Opener) -> None:
    """Whoever comes back late for his answers gets those that have arrived, and waits for no others."""
    store = open_store(mortal.unix_url, deadline=0.5)
    store.flight(FLIGHT)

    there = store.begin(FLIGHT)
    time.sleep(0.6)
    assert [b"x"] == there()

    mortal.pause()
    away = store.begin(FLIGHT)
    time.sleep(0.3)
    start = time.monotonic()
    with Lag() as lag, pytest.raises(StoreUnavailable) as failure:
        away()
    assert failure.value.reason in ("timeout", "local_lag")
    assert time.monotonic() - start < 0.45 + lag.worst
    mortal.resume()


def test_never_fetched(mortal: Valkey, open_store: Opener) -> None:
    """Answers that nobody comes for take their connection with them: no later caller meets them."""
    store = open_store(mortal.unix_url, max_connections=2, deadline=5.0)
    store.flight(FLIGHT)
    [connection] = store._pool._idle

    waiting = store.begin([Lua(ECHO, arguments=("of the first",))])
    assert connection not in store._pool._idle
    del waiting
    gc.collect()

    assert connection._sock is None
    for number in range(10):
        assert [b"%d" % number] == store.flight([Lua(ECHO, arguments=(number,))])
    assert store.breaker.closed


def test_fetched_twice(valkey: Valkey, open_store: Opener) -> None:
    """Answers can be fetched once."""
    store = open_store(valkey.unix_url, deadline=5.0)
    wait = store.begin(FLIGHT)
    assert [b"x"] == wait()

    with pytest.raises(RuntimeError, match="twice"):
        wait()


def test_what_a_flight_does_it_does(valkey: Valkey, open_store: Opener) -> None:
    """Scripts that are not known, operations that fail or cannot be sent, nothing at all: as in a flight."""
    store = open_store(valkey.unix_url, deadline=5.0)
    valkey.run("LPUSH", "list", "1")
    wrong: list[Any] = [Lua(ECHO, arguments=({},)), Lua(INCR, "list")]  # type: ignore[arg-type,list-item]  # that is the test

    answers = store.begin([*FLIGHT, *wrong, Lua(INCR, "n"), *FLIGHT])()

    assert [b"x", OperationFailed, OperationFailed, 1, b"x"] == [
        type(answer) if isinstance(answer, OperationFailed) else answer for answer in answers
    ]
    assert [] == store.begin([])()


def test_refused_at_once(open_store: Opener) -> None:
    """A store that is away says so at the beginning, and holds nobody up."""
    store = open_store("redis://127.0.0.1:1")
    with pytest.raises(StoreUnavailable):
        store.begin(FLIGHT)
    store.breaker.force_open()

    with pytest.raises(StoreUnavailable, match="open"):
        store.begin(FLIGHT)


def test_broken_in_between(open_store: Opener) -> None:
    """A connection that breaks before the answers are there is broken when they are fetched."""
    bad = threading.Event()

    def answer(connection: socket.socket, data: bytes) -> None:
        if bad.is_set():
            connection.shutdown(socket.SHUT_RDWR)
        else:
            connection.sendall(b"$4\r\nwarm\r\n")

    with Impostor(answer) as server:
        store = open_store(server.url, deadline=5.0)
        assert [b"warm"] == store.flight(FLIGHT)
        bad.set()
        wait = store.begin(FLIGHT)

        with pytest.raises(StoreUnavailable, match="broken"):
            wait()


class Twice:
    """An operation for memory."""

    script = ECHO
    keys = ("a",)
    arguments = ()

    def parse(self, reply: Any) -> Any:
        raise NotImplementedError

    def apply(self, table: Any, now: float) -> Any:
        return "applied"


def test_in_memory() -> None:
    """Memory has its answers at once."""
    assert ["applied", "applied"] == MemoryStore().begin([Twice(), Twice()])()
    assert [] == MemoryStore().begin([])()


def test_on_demand() -> None:
    """A store that fails on demand fails when the answers are fetched, and hangs from the beginning on."""
    store = FaultyStore()
    assert ["applied"] == store.begin([Twice()])()
    with store.hanging(0.2):
        wait = store.begin([Twice()])
        time.sleep(0.25)
        start = time.monotonic()
        with Lag() as lag, pytest.raises(StoreUnavailable, match="timeout"):
            wait()
    assert time.monotonic() - start < 0.15 + lag.worst
    assert 2 == len(store.flights)
