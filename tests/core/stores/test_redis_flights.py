"""Flights on a server that is there: one write, an answer for each operation, nobody's reply for somebody else."""

import asyncio
import ctypes
import gc
import itertools
import signal
import socket
import sys
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from types import FrameType
from typing import Any

import pytest
import redis

from failsoft.errors import OperationFailed, StoreUnavailable
from failsoft.exchange.operations import Script
from failsoft.guard import State
from failsoft.stores.redis import RedisStore
from tests.core.stores.conftest import Fly
from tests.core.stores.lua import BUSY, ECHO, INCR, NAP, Lua
from tests.servers import Impostor, Reads, Valkey, poll

Opener = Callable[..., RedisStore]
Warm = Callable[[RedisStore], None]


@pytest.mark.parametrize("transport", ["url", "unix_url"])
def test_answers_in_order(valkey: Valkey, open_store: Opener, fly: Fly, warm: Warm, transport: str) -> None:
    """Each operation has its own answer, parsed, in its own place."""
    store = open_store(getattr(valkey, transport))
    warm(store)

    answers = fly(store, [Lua(INCR, "a"), Lua(ECHO, arguments=("x",), parse=bytes.decode), Lua(INCR, "a")])

    assert [1, "x", 2] == answers


def test_no_operations(open_store: Opener, fly: Fly) -> None:
    """A flight of nothing needs no server."""
    assert [] == fly(open_store("redis://127.0.0.1:1"), [])


def test_one_read_for_each_flight(mortal: Valkey, open_store: Opener, fly: Fly, warm: Warm) -> None:
    """However many operations a flight has, the server reads once."""
    store = open_store(mortal.unix_url)
    warm(store)
    flight = [Lua(INCR, str(i)) for i in range(5)]
    fly(store, flight)  # the server learns the script

    with Reads(mortal) as reads:
        for _ in range(20):
            fly(store, flight)

        assert 20 == reads()


@pytest.mark.parametrize("how", ["flush", "restart"])
def test_unknown_scripts(mortal: Valkey, open_store: Opener, fly: Fly, warm: Warm, how: str) -> None:
    """A server that forgot the scripts is told them, once; what it knew does not run a second time."""
    store = open_store(mortal.unix_url)
    warm(store)
    if how == "flush":
        mortal.run("SCRIPT", "FLUSH")
    else:
        mortal.restart()
        warm(store)
    fly(store, [Lua(INCR, "n")])

    answers = fly(store, [Lua(INCR, "n"), Lua(NAP, arguments=(0, "slept")), Lua(INCR, "n")])

    assert [2, b"slept", 3] == answers
    assert b"3" == mortal.run("GET", "n")


def test_an_error_is_its_operations_alone(valkey: Valkey, open_store: Opener, fly: Fly, warm: Warm) -> None:
    """Script errors, wrong types and operations that cannot even be sent fail by themselves, and break nothing."""
    store = open_store(valkey.unix_url)
    warm(store)
    valkey.run("LPUSH", "list", "1")
    flight = [
        Lua(INCR, "n"),
        Lua(INCR, "list"),
        Lua(Script("bad", "return redis.error_reply('NAY said the script')")),
        Lua(ECHO, arguments=(None,)),  # type: ignore[arg-type]  # that is the test
        Lua(ECHO, arguments=("x",), parse=int),
        Lua(INCR, "n"),
    ]

    for round_ in range(20):
        answers = fly(store, flight)
        assert [2 * round_ + 1, 2 * round_ + 2] == [answers[0], answers[-1]]
        assert [OperationFailed] * 4 == [type(answer) for answer in answers[1:-1]]

    assert "WRONGTYPE" in str(answers[1])
    assert "NAY said the script" in str(answers[2]).replace("bad: ", "")
    assert "test.echo: a key or an argument cannot be sent" in str(answers[3])
    assert State.CLOSED is store.breaker.state


@pytest.mark.parametrize("hiredis", [True, False])
def test_without_hiredis(
    valkey: Valkey, open_store: Opener, fly: Fly, warm: Warm, monkeypatch: pytest.MonkeyPatch, hiredis: bool
) -> None:
    """redis-py's parser in Python serves as well: errors, nested replies and large ones, in pieces."""
    if not hiredis:
        from redis._parsers import _RESP2Parser

        from failsoft.stores.redis import wire

        make = wire.CONNECTIONS["unix"]
        monkeypatch.setitem(wire.CONNECTIONS, "unix", lambda **given: make(parser_class=_RESP2Parser, **given))
    store = open_store(valkey.unix_url, deadline=2.0)
    warm(store)
    nested = Script("nested", "return {1, {'a', {}, false}, redis.error_reply('X y'), string.rep('z', 3000000)}")

    for _ in range(3):
        answers = fly(store, [Lua(ECHO, arguments=("1",)), Lua(nested), Lua(Script("bad", "x")), Lua(INCR, "n")])

    one, tree, error, count = answers
    assert (b"1", 1, [b"a", [], None], b"z" * 3_000_000, 3) == (one, tree[0], tree[1], tree[3], count)
    assert isinstance(tree[2], redis.ResponseError)
    assert isinstance(error, OperationFailed)


def test_no_memory(mortal: Valkey, open_store: Opener, fly: Fly, warm: Warm) -> None:
    """OOM fails the operation that would write."""
    store = open_store(mortal.unix_url)
    warm(store)
    fly(store, [Lua(INCR, "n")])
    mortal.run("CONFIG", "SET", "maxmemory", "1")

    answers = fly(store, [Lua(ECHO, arguments=("x",)), Lua(INCR, "n")])

    assert isinstance(answers[-1], OperationFailed)
    assert "OOM" in str(answers[-1]) or "memory" in str(answers[-1])
    assert State.CLOSED is store.breaker.state


def test_access_control(mortal: Valkey, open_store: Opener, fly: Fly, warm: Warm) -> None:
    """A user that may do little, not even PING, is let in; what it may not do fails alone, and counts for nothing."""
    mortal.run("ACL", "SETUSER", "app", "on", ">s@cret", "~ok:*", "+evalsha", "+eval", "+incr", "+select")
    store = open_store(f"unix://app:s%40cret@{mortal.path}?db=1")
    poll(lambda: not isinstance(attempt(fly, store, [Lua(INCR, "ok:n")]), StoreUnavailable))

    for _ in range(20):
        allowed, forbidden = fly(store, [Lua(INCR, "ok:n"), Lua(INCR, "no:n")])

    assert isinstance(allowed, int)
    assert isinstance(forbidden, OperationFailed)
    assert State.CLOSED is store.breaker.state
    assert "s@cret" not in repr(store) + str(forbidden)


def attempt(fly: Fly, store: RedisStore, flight: Sequence[Lua]) -> Any:
    """What comes of a flight, be it raised."""
    try:
        return fly(store, flight)
    except StoreUnavailable as error:
        return error


def test_wrong_password(mortal: Valkey, open_store: Opener, fly: Fly) -> None:
    """Who is not let in hears why, without the password, and is degraded like anybody without a connection."""
    mortal.run("CONFIG", "SET", "requirepass", "right")
    mortal.password = "right"
    store = open_store(f"redis://:wr0ng@127.0.0.1:{mortal.port}")

    first = attempt(fly, store, [Lua(ECHO, arguments=("x",))])

    assert isinstance(first, StoreUnavailable)
    assert "wr0ng" not in str(first)
    assert "WRONGPASS" in store._shared.detail or "password" in store._shared.detail


def test_password_withdrawn(mortal: Valkey, open_store: Opener, fly: Fly, warm: Warm) -> None:
    """A user that is deleted loses its connections at once; that is an answer or a broken connection, never a wait."""
    mortal.run("ACL", "SETUSER", "app", "on", ">pass", "~*", "+@all")
    store = open_store(f"redis://app:pass@127.0.0.1:{mortal.port}")
    warm(store)

    mortal.run("ACL", "DELUSER", "app")

    assert isinstance(poll(lambda: unavailable(fly, store)), StoreUnavailable)
    mortal.run("ACL", "SETUSER", "app", "on", ">pass", "~*", "+@all")
    warm(store)


def unavailable(fly: Fly, store: RedisStore) -> StoreUnavailable | None:
    """The refusal of a flight, if it is refused."""
    answer = attempt(fly, store, [Lua(ECHO, arguments=("x",))])
    return answer if isinstance(answer, StoreUnavailable) else None


def test_read_only(mortal: Valkey, open_store: Opener, fly: Fly, warm: Warm) -> None:
    """A server that became a replica says so; the connection is given up, for the next may find the primary."""
    store = open_store(mortal.url)
    warm(store)
    fly(store, [Lua(INCR, "n")])
    with Valkey("--repl-diskless-sync-delay", "0") as primary:
        mortal.run("REPLICAOF", "127.0.0.1", str(primary.port))
        poll(lambda: mortal.run("INFO", "replication")["master_link_status"] == "up")
        connections = int(mortal.stats()["total_connections_received"])

        answers = fly(store, [Lua(INCR, "n"), Lua(ECHO, arguments=("x",))])

        assert isinstance(answers[0], OperationFailed)
        assert b"x" == answers[1]
        warm(store)
        assert int(mortal.stats()["total_connections_received"]) >= connections + 2
        assert State.CLOSED is store.breaker.state


@pytest.mark.parametrize("error", [b"-LOADING the dataset is on its way\r\n", b"-NOAUTH Authentication required.\r\n"])
def test_errors_that_speak_for_the_connection(open_store: Opener, fly: Fly, warm: Warm, error: bytes) -> None:
    """A server that is loading, or does not know us any more, fails every operation under way, on the old connection."""
    bad = threading.Event()

    def answer(connection: socket.socket, data: bytes) -> None:
        calls = data.count(b"EVAL")
        connection.sendall(b"+ok\r\n" + error if bad.is_set() else b"$4\r\nwarm\r\n" * calls)

    with Impostor(answer) as server:
        store = open_store(server.url)
        warm(store)
        bad.set()

        answers = fly(store, [Lua(ECHO), Lua(ECHO), Lua(ECHO)])

        assert b"ok" == answers[0]
        assert [OperationFailed] * 2 == [type(answer) for answer in answers[1:]]
        bad.clear()
        warm(store)
        assert State.CLOSED is store.breaker.state


def test_nonsense(open_store: Opener, fly: Fly, warm: Warm) -> None:
    """What is no reply at all breaks the connection, and says so."""
    nonsense = threading.Event()

    def answer(connection: socket.socket, data: bytes) -> None:
        connection.sendall(b"HTTP/1.1 400 Bad Request\r\n\r\n" if nonsense.is_set() else b"$4\r\nwarm\r\n")

    with Impostor(answer) as server:
        store = open_store(server.url)
        warm(store)
        nonsense.set()

        failure = attempt(fly, store, [Lua(ECHO)])

    assert isinstance(failure, StoreUnavailable)
    assert "broken" == failure.reason


def test_unasked_replies_are_for_nobody(open_store: Opener, fly: Fly, warm: Warm) -> None:
    """What comes when nobody asked ends the connection: the next caller would take it for its own."""
    connections: list[socket.socket] = []

    def answer(connection: socket.socket, data: bytes) -> None:
        connections.append(connection)
        connection.sendall(b"$4\r\nwarm\r\n")

    with Impostor(answer) as server:
        store = open_store(server.url)
        warm(store)
        connections[-1].sendall(b"$5\r\nalien\r\n")
        time.sleep(0.05)  # long enough to be looked at before use, whichever side is under test

        assert [b"warm"] == poll(lambda: answered(fly, store))


def answered(fly: Fly, store: RedisStore) -> list[Any] | None:
    """The answers of a flight, if there are any."""
    answers = attempt(fly, store, [Lua(ECHO)])
    return None if isinstance(answers, StoreUnavailable) else answers


def test_a_hung_call_leaves_nothing_behind(mortal: Valkey, open_store: Opener, fly: Fly, warm: Warm) -> None:
    """The reply that came too late for one caller is not the answer of the next one."""
    store = open_store(mortal.unix_url)
    warm(store)

    mortal.pause()
    hung = attempt(fly, store, [Lua(ECHO, arguments=("of the first",))])
    mortal.resume()

    assert isinstance(hung, StoreUnavailable)
    assert hung.reason in ("timeout", "local_lag")
    callers = itertools.count()
    answered: list[int] = []

    def next_caller() -> bool:
        caller = next(callers)
        answers = attempt(fly, store, [Lua(ECHO, arguments=(f"of {caller}",))])
        if not isinstance(answers, StoreUnavailable):
            assert [f"of {caller}".encode()] == answers
            answered.append(caller)
        return len(answered) == 20

    poll(next_caller)


def test_within_the_deadline(mortal: Valkey, open_store: Opener, fly: Fly, warm: Warm) -> None:
    """A flight that takes long, but not too long, is answered."""
    store = open_store(mortal.unix_url, deadline=2.0)
    warm(store)

    assert [b"late"] == fly(store, [Lua(NAP, arguments=(BUSY, "late"))])


def test_after_closing(mortal: Valkey, open_store: Opener, fly: Fly, warm: Warm) -> None:
    """A closed store says so, and has let go of its connections."""
    store = open_store(mortal.unix_url, name="gone")
    warm(store)
    before = mortal.connections()
    assert before >= 1

    store.close()

    for _ in range(3):
        with pytest.raises(StoreUnavailable, match="closed: the store 'gone' was closed"):
            fly(store, [Lua(ECHO, arguments=("x",))])
    poll(lambda: mortal.connections() < before)
    poll(lambda: "failsoft-gone" not in [thread.name for thread in threading.enumerate()])


# What only threads can do to a flight.


@pytest.fixture
def alarm() -> Iterator[Callable[[float], None]]:
    """Has KeyboardInterrupt raised in the main thread after so many seconds."""

    def ring(number: int, frame: FrameType | None) -> None:
        raise KeyboardInterrupt

    before = signal.signal(signal.SIGALRM, ring)
    yield lambda seconds: signal.setitimer(signal.ITIMER_REAL, seconds) and None
    signal.setitimer(signal.ITIMER_REAL, 0)
    signal.signal(signal.SIGALRM, before)


def test_an_interrupted_flight_leaves_nothing_behind(
    mortal: Valkey, open_store: Opener, alarm: Callable[[float], None]
) -> None:
    """KeyboardInterrupt in the middle closes the connection: the next caller gets its own reply, and no failure counts."""
    store = open_store(mortal.unix_url, deadline=2.0)
    store.flight([Lua(NAP, arguments=(0, "x"))])

    for turn in range(5):
        alarm(0.03)
        with pytest.raises(KeyboardInterrupt):
            store.flight([Lua(NAP, arguments=(60, "interrupted"))])
        assert [f"next {turn}".encode()] == store.flight([Lua(ECHO, arguments=(f"next {turn}",))])

    assert State.CLOSED is store.breaker.state


def test_interrupts_anywhere(valkey: Valkey, open_store: Opener, monkeypatch: pytest.MonkeyPatch) -> None:
    """Wherever an exception strikes a thread, others get their own replies, nobody hangs, no connection is lost."""
    monkeypatch.setattr(threading, "excepthook", lambda arguments: None)  # it may strike outside every try
    others = valkey.connections()
    store = open_store(valkey.unix_url, deadline=2.0, max_connections=3)
    store.flight([Lua(ECHO, arguments=("x",))])

    class Strike(Exception):
        pass

    # A thread that closes a connection because it was struck may be struck again: in a finalizer, where nobody can catch
    # it, or in the middle of redis-py's `disconnect`, which has let go of the socket and not closed it yet. Then Python
    # closes it, with a warning. Without its exception, lest its frames keep a connection alive.
    unraised: list[str] = []
    monkeypatch.setattr(
        sys, "unraisablehook", lambda given: unraised.append(f"{given.exc_type.__name__}: {given.exc_value}")
    )
    done = threading.Event()
    wrong: list[Any] = []
    struck = 0

    def work(name: str) -> None:
        nonlocal struck
        turn = 0
        while not done.is_set():
            turn += 1
            try:
                expected = f"{name} {turn}".encode()
                answer = store.flight([Lua(ECHO, arguments=(expected,))])
                if answer != [expected]:
                    wrong.append((expected, answer))
            except Strike:
                struck += 1
            except StoreUnavailable:
                pass

    def survive(name: str) -> None:
        while not done.is_set():
            try:
                work(name)
            except Strike:  # outside the inner try
                pass

    threads = [threading.Thread(target=survive, args=(str(i),), daemon=True) for i in range(4)]
    for thread in threads:
        thread.start()
    start = time.monotonic()
    for turn in itertools.count():
        passed = time.monotonic() - start
        if passed > 10 or (passed > 0.4 and struck > 10):
            break
        target = threads[turn % len(threads)]
        ctypes.pythonapi.PyThreadState_SetAsyncExc(ctypes.c_ulong(target.ident or 0), ctypes.py_object(Strike))
        time.sleep(0.002)
    time.sleep(0.05)
    done.set()
    for thread in threads:
        thread.join(10)

    assert [] == [thread for thread in threads if thread.is_alive()]
    assert [] == wrong
    assert struck > 10
    assert [[b"y"]] * 3 == [store.flight([Lua(ECHO, arguments=("y",))]) for _ in range(3)]
    gc.collect()
    assert [] == [one for one in unraised if not one.startswith(("Strike: ", "ResourceWarning: unclosed <socket."))]
    poll(lambda: valkey.connections() - others <= 3)  # whatever was warned of, no socket is left open


# What only tasks can do to a flight.


def test_a_cancelled_caller_leaves_nothing_behind(mortal: Valkey, open_store: Opener) -> None:
    """A cancelled caller's reply is read and thrown away: the others get their own, on the same connection."""
    store = open_store(mortal.unix_url, deadline=2.0)

    def connections() -> int:
        return int(mortal.stats()["total_connections_received"])

    async def main() -> None:
        await store.aflight([Lua(NAP, arguments=(0, ""))])
        before = connections()
        naps = []
        for turn in range(12):
            nap = asyncio.create_task(store.aflight([Lua(NAP, arguments=(60, "cancelled"))]))
            naps.append(nap)
            queued = asyncio.create_task(store.aflight([Lua(ECHO, arguments=("cancelled too",))]))
            await asyncio.sleep(0.005 * (turn % 3))
            nap.cancel()
            queued.cancel()
            assert [f"next {turn}".encode()] == await store.aflight([Lua(ECHO, arguments=(f"next {turn}",))])
        assert 6 < sum(nap.cancelled() for nap in naps)
        assert 1 == connections() - before  # that one looks
        await store.aclose()

    asyncio.run(main())
    assert State.CLOSED is store.breaker.state


def test_timed_out_by_the_caller(mortal: Valkey, open_store: Opener) -> None:
    """A caller with a shorter deadline of its own gets its TimeoutError, and the store thinks no worse of the server."""
    store = open_store(mortal.unix_url, deadline=5.0)

    async def main() -> None:
        await store.aflight([Lua(NAP, arguments=(0, ""))])
        for _ in range(15):
            with pytest.raises(TimeoutError):
                async with asyncio.timeout(0.01):
                    await store.aflight([Lua(NAP, arguments=(30, ""))])
        assert [b"x"] == await store.aflight([Lua(ECHO, arguments=("x",))])
        await store.aclose()

    asyncio.run(main())
    assert State.CLOSED is store.breaker.state


def test_who_waits_for_replicas_holds_up_nobody(valkey: Valkey, open_store: Opener) -> None:
    """On an event loop, where all share a connection, a flight that ends with WAIT has another one."""
    waiting = Lua(Script("wait", command="WAIT"), arguments=(1, 1000))

    async def together() -> list[str]:
        store = open_store(valkey.url, deadline=3.0)
        store.start()
        await store.aflight([Lua(INCR, "a")])
        order: list[str] = []

        async def run(name: str, operation: Lua) -> None:
            await store.aflight([operation])
            order.append(name)

        async with asyncio.TaskGroup() as group:
            group.create_task(run("wait", waiting))
            for number in range(5):
                group.create_task(run(str(number), Lua(INCR, "a")))
        await store.aclose()
        return order

    assert "wait" == asyncio.run(together())[-1]
