"""The pool of the threads: growth, waiting, reuse, and the end of connections."""

import gc
import socket
import threading
import time
import warnings
import weakref
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest

from failsoft.errors import StoreUnavailable
from failsoft.stores.redis import RedisStore, connector
from tests.core.stores.conftest import Ahead
from tests.core.stores.lua import ECHO, NAP, Lua
from tests.servers import Impostor, Lag, Valkey, poll

Opener = Callable[..., RedisStore]

FLIGHT = [Lua(ECHO, arguments=("x",))]


def all_at_once(threads: int, work: Callable[..., Any]) -> list[Any]:
    """What `work` gives in each of so many threads that start together, exceptions too."""
    barrier = threading.Barrier(threads)

    def run(number: int) -> Any:
        barrier.wait()
        try:
            return work(number)
        except StoreUnavailable as error:
            return error

    with ThreadPoolExecutor(threads) as executor:
        return list(executor.map(run, range(threads)))


@pytest.mark.parametrize("transport", ["url", "unix_url"])
def test_fifty_threads_on_a_fresh_store(valkey: Valkey, open_store: Opener, transport: str) -> None:
    """With nothing warm, fifty threads that start together all get their own answers within one deadline."""
    for _ in range(3):
        flight = open_store(getattr(valkey, transport), deadline=2.0).flight

        answers = all_at_once(50, lambda number, flight=flight: flight([Lua(ECHO, arguments=(number,))]))

        assert [[b"%d" % number] for number in range(50)] == answers


def test_never_more_than_allowed(mortal: Valkey, open_store: Opener) -> None:
    """Many threads share few connections, and wait for each other."""
    store = open_store(mortal.unix_url, max_connections=3, deadline=5.0)
    most = 0

    def work(number: int) -> Any:
        nonlocal most
        answers = [store.flight([Lua(NAP, arguments=(1, number))]) for _ in range(10)]
        most = max(most, len(store._pool._all))
        return answers

    before = mortal.stats()["total_connections_received"]

    answers = all_at_once(20, work)

    assert [[[b"%d" % number]] * 10 for number in range(20)] == answers
    assert 3 == most
    assert 3 == mortal.stats()["total_connections_received"] - before - 1  # that one looked


def test_grows_to_what_is_needed(mortal: Valkey, open_store: Opener) -> None:
    """Neighbours that are busy make the pool grow."""
    store = open_store(mortal.unix_url, deadline=5.0)

    all_at_once(8, lambda number: store.flight([Lua(NAP, arguments=(10, number))]))

    assert 2 <= mortal.connections() <= 9


def test_one_thread_needs_one_connection(mortal: Valkey, open_store: Opener) -> None:
    """A caller that waited for its connection and has it does not make the pool grow."""
    stores = [open_store(mortal.unix_url, deadline=5.0) for _ in range(20)]

    for store in stores:
        for _ in range(3):
            assert [b"x"] == store.flight(FLIGHT)

    assert mortal.connections() <= 21  # one to spare, for a thread that was interrupted just between the two


def test_all_busy_for_too_long(mortal: Valkey, open_store: Opener) -> None:
    """Who waits in vain for busy connections hears so before the deadline, and the breaker counts nothing."""
    store = open_store(mortal.unix_url, max_connections=1, deadline=4.0)
    store.flight(FLIGHT)
    [connection] = store._pool._idle
    store._pool._idle.clear()  # somebody has it
    start = time.monotonic()

    with Lag() as lag, pytest.raises(StoreUnavailable, match="no_connection: all 1 connections were busy"):
        store.flight(FLIGHT)

    assert 2.9 < time.monotonic() - start < 3.9 + lag.worst  # the rest would have been for the flight itself
    assert store.breaker.closed
    store._pool._give_back(connection)
    assert [b"x"] == store.flight(FLIGHT)


def test_who_waits_in_vain_does_no_harm(open_store: Opener) -> None:
    """A connection that comes free too late for a flight is not broken by it: the next flight uses it."""

    def answer(connection: socket.socket, data: bytes) -> None:
        time.sleep(0.25)
        connection.sendall(b"$1\r\nx\r\n")

    with Impostor(answer) as server:
        store = open_store(server.url, max_connections=1, deadline=2.0)

        outcome = all_at_once(20, lambda number: store.flight(FLIGHT))

        refused = [error for error in outcome if isinstance(error, StoreUnavailable)]
        assert 0 < len(refused) < 20
        assert {"no_connection"} == {error.reason for error in refused}
        assert [[b"x"]] * (20 - len(refused)) == [answers for answers in outcome if answers not in refused]
        assert 1 == server.accepted
        assert store.breaker.closed


def test_a_wait_that_ended_late(valkey: Valkey, open_store: Opener, monkeypatch: pytest.MonkeyPatch) -> None:
    """Who got a connection only after the deadline, because this process was busy, still gets time for the flight."""
    store = open_store(valkey.unix_url, deadline=1.0)
    wait = store._pool._wait

    def late(due: float) -> Any:
        connection = wait(due + 5.0)
        time.sleep(max(0.0, due - time.monotonic()) + 0.01)
        return connection

    monkeypatch.setattr(store._pool, "_wait", late)

    assert [b"x"] == store.flight([Lua(NAP, arguments=(2, "x"))])


def test_the_hottest_first(mortal: Valkey, open_store: Opener) -> None:
    """One thread after another uses one connection, even where there are many."""
    store = open_store(mortal.unix_url, deadline=5.0)
    all_at_once(8, lambda number: store.flight([Lua(NAP, arguments=(10, number))]))
    idle = store._pool._idle
    assert len(idle) > 1

    def only_the_top_is_used() -> bool:
        [*resting, top] = idle
        since = [connection.since for connection in resting]
        for _ in range(10):
            with ThreadPoolExecutor(1) as executor:
                executor.submit(store.flight, FLIGHT).result()
        return top is idle[-1] and since == [connection.since for connection in list(idle)[:-1]]

    poll(only_the_top_is_used)  # not at once: a connection that the rush asked for may still be on its way


def test_replaced_when_old(mortal: Valkey, open_store: Opener, clock: Ahead) -> None:
    """A connection that grew old gets a successor first and goes then, idle or in use; no flight waits or fails."""
    store = open_store(mortal.unix_url, clock=clock, deadline=5.0, max_connections=1)
    store.flight(FLIGHT)
    [first] = store._pool._idle
    received = mortal.stats()["total_connections_received"]

    clock.ahead += 24.0
    store.flight(FLIGHT)
    store._connector.nudge()
    assert first in store._pool._idle  # not yet
    clock.ahead += 7.0
    store._connector.nudge()
    poll(lambda: first not in store._pool._all)

    assert [b"x"] == store.flight(FLIGHT)
    assert 1 == len(store._pool._all)
    assert first._sock is None
    assert 1 == mortal.stats()["total_connections_received"] - received - 1  # that one looked
    # In use: the successor comes, the old one is closed when it comes back.
    second = store._pool._idle.pop()
    clock.ahead += 31.0
    store._connector.nudge()
    poll(lambda: second.stale)
    assert second._sock is not None
    store._pool._give_back(second)
    assert second._sock is None
    assert [b"x"] == store.flight(FLIGHT)
    assert 1 == mortal.connections()


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (("requirepass", "new"), "a new connection: no_connection, AuthenticationError: "),
        (("maxclients", "1"), "max number of clients reached"),
    ],
)
def test_no_successor_for_an_old_one(change: tuple[str, str], said: str, open_store: Opener, clock: Ahead) -> None:
    """Where the server lets nobody else in, what is connected goes on, and whoever listens hears that nothing new will be."""
    events: list[Any] = []
    with Valkey("--requirepass", "old", password="old") as server:
        url = f"unix://:old@{server.path}?db=0"
        store = open_store(url, clock=clock, deadline=5.0, max_connections=1, publish=events.append)
        store.flight(FLIGHT)
        server.run("CONFIG", "SET", *change)
        clock.ahead += 31.0
        store._connector.nudge()
        poll(lambda: [b"x"] == store.flight(FLIGHT) and events)
    assert ("default", "CONNECT") == (events[0].store, events[0].code)
    assert said in events[0].detail


def test_forgotten_when_unused(mortal: Valkey, open_store: Opener, clock: Ahead) -> None:
    """What a rush needed goes again, but for one connection."""
    store = open_store(mortal.unix_url, clock=clock, deadline=5.0)
    all_at_once(10, lambda number: store.flight([Lua(NAP, arguments=(10, number))]))
    assert mortal.connections() > 1

    def only_one() -> bool:
        clock.ahead += 31.0  # again, for a connection that was being made for the rush when the clock moved
        store._connector.nudge()
        return mortal.connections() == 1

    poll(only_one)
    assert [b"x"] == store.flight(FLIGHT)


def test_at_rest_it_sleeps(valkey: Valkey, open_store: Opener, monkeypatch: pytest.MonkeyPatch) -> None:
    """With nothing to do, the connector has no next turn before a connection grows old."""
    store = open_store(valkey.unix_url)
    store.flight(FLIGHT)

    pause = store._connector.work()

    assert pause is not None
    assert 20.0 < pause < 31.0
    assert connector._LIFE[0] <= store._pool._idle[0].retire_at - store._pool._idle[0].since + 5.0


def test_no_successor_to_be_had(valkey: Valkey, open_store: Opener) -> None:
    """Where an old connection cannot be replaced, the next attempt is what the connector sleeps for."""
    store = open_store(valkey.unix_url, deadline=5.0)
    store.flight(FLIGHT)

    def refuse() -> Any:
        raise ConnectionError("max number of clients reached")

    store._connector._make = refuse
    store._pool._idle[0].retire_at = 0.0

    pause = store._connector.work()

    assert pause is not None
    assert pause > 0.1
    assert [b"x"] == store.flight(FLIGHT)


def test_warm_before_the_first_flight(valkey: Valkey, open_store: Opener) -> None:
    """`start` connects in the background."""
    store = open_store(valkey.unix_url)

    store.start()
    store.start()

    poll(lambda: store._pool._idle)
    assert [b"x"] == store.flight(FLIGHT)


def test_nothing_before_it_is_needed(mortal: Valkey) -> None:
    """A store that nobody uses has no connection and no thread."""
    store = RedisStore(mortal.unix_url, name="idle")

    assert 0 == mortal.connections()
    assert "failsoft-idle" not in [thread.name for thread in threading.enumerate()]
    store.close()


def test_a_store_that_is_forgotten(mortal: Valkey) -> None:
    """A store that was dropped without closing it takes its connections and its thread along, in silence."""
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        store = RedisStore(mortal.unix_url, name="forgotten", deadline=5.0)
        for _ in range(4):
            store.flight(FLIGHT)
        last = weakref.ref(store)
        connection = weakref.ref(store._pool._idle[-1])
        del store
        gc.collect()

        poll(lambda: last() is None and connection() is None)
    poll(lambda: mortal.connections() == 0)
    poll(lambda: "failsoft-forgotten" not in [thread.name for thread in threading.enumerate()])


def test_a_connection_that_is_lost_on_the_way(mortal: Valkey, open_store: Opener) -> None:
    """A flight that took a connection and vanished takes no place in the pool."""
    store = open_store(mortal.unix_url, max_connections=1, deadline=5.0)
    store.flight(FLIGHT)
    store._pool._idle.pop()  # and nobody has it
    gc.collect()

    assert [b"x"] == store.flight(FLIGHT)


def test_out_of_threads(valkey: Valkey, open_store: Opener, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where no thread can be started flights are refused, and when one can, they fly."""
    store = open_store(valkey.unix_url)

    def start(self: threading.Thread) -> None:
        raise RuntimeError("can't start new thread")

    with monkeypatch.context() as patch:
        patch.setattr(threading.Thread, "start", start)
        with pytest.raises(StoreUnavailable, match="no_connection"):
            store.flight(FLIGHT)

    poll(lambda: flown(store))


def flown(store: RedisStore) -> bool:
    """Whether a flight succeeds."""
    try:
        return store.flight(FLIGHT) == [b"x"]
    except StoreUnavailable:
        store._connector.nudge()
        return False


def test_wakings_are_passed_on(valkey: Valkey, open_store: Opener, monkeypatch: pytest.MonkeyPatch) -> None:
    """Who was woken and leaves without a connection wakes the next one, who would else wait in vain."""
    store = open_store(valkey.unix_url, max_connections=1, deadline=5.0)
    store.flight(FLIGHT)
    pool = store._pool
    connection = pool._idle.pop()
    usable = pool._usable

    def interrupted() -> Any:
        if threading.current_thread().name.startswith("first") and pool._idle:
            raise KeyboardInterrupt
        return usable()

    monkeypatch.setattr(pool, "_usable", interrupted)
    with ThreadPoolExecutor(1, "first") as one, ThreadPoolExecutor(1, "second") as other:
        first = one.submit(store.flight, FLIGHT)
        poll(lambda: len(pool._tickets) == 1)
        second = other.submit(store.flight, FLIGHT)
        poll(lambda: len(pool._tickets) == 2)
        start = time.monotonic()

        pool._give_back(connection)

        assert isinstance(first.exception(), KeyboardInterrupt)
        assert [b"x"] == second.result()
    assert time.monotonic() - start < 3.0  # alone it would have waited for 3.75
