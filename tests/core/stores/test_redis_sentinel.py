"""Sentinel: the primary is found, a failover is survived, and no reply is ever somebody else's."""

import asyncio
import itertools
import os
import signal
import socket
import threading
import time
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from failsoft.errors import ConfigurationError, OperationFailed, StoreUnavailable
from failsoft.events import Event, StoreDegraded, StoreRecovered
from failsoft.exchange.operations import Script
from failsoft.stores.redis import RedisStore, connector, sentinel
from failsoft.stores.redis.url import parse_url
from tests.core.stores.conftest import Fly
from tests.core.stores.lua import ECHO, INCR, Lua
from tests.sentinels import Sentinel, Watched
from tests.servers import Impostor, Lag, Valkey, free_port, poll

pytestmark = [pytest.mark.processes, pytest.mark.timeout(120)]

Opener = Callable[..., RedisStore]
Warm = Callable[[RedisStore], None]

FLIGHT = [Lua(ECHO, arguments=("x",))]
WRITE_AND_READ = Script("test.write_and_read", "redis.call('SET', KEYS[1], ARGV[1]) return redis.call('GET', KEYS[1])")


@pytest.fixture(scope="module")
def shared() -> Iterator[Watched]:
    """A primary, two replicas and three sentinels."""
    with Watched() as watched:
        yield watched


@pytest.fixture
def watched(shared: Watched) -> Iterator[Watched]:
    """The same, all well."""
    shared.mend()
    yield shared
    for node in shared.nodes:
        if node.process is not None:
            node.resume()


BUSY = 5
"""On the way from a promotion to the first answer that many processes and threads must be given the processor, one after the other."""


class Load:
    """Callers that each write and read a key of their own, until told to stop.

    Attributes:
        answered: when each flight was answered that was.
        refused: when, and why, each was not.
        wrong: answers that were not the caller's own.
    """

    def __init__(self, store: RedisStore) -> None:
        self.store = store
        self.answered: list[float] = []
        self.refused: list[tuple[float, str]] = []
        self.wrong: list[Any] = []
        self.over = False
        self._turns = itertools.count()

    def flight(self, name: int) -> tuple[list[Lua], bytes]:
        """What to ask, and the answer that is right."""
        expected = f"{name} {next(self._turns)}".encode()
        return [Lua(WRITE_AND_READ, f"test:{name}", arguments=(expected,))], expected

    def note(self, outcome: Any, expected: bytes) -> None:
        """What became of it."""
        now = time.monotonic()
        if isinstance(outcome, StoreUnavailable):
            self.refused.append((now, outcome.reason))
        elif isinstance(outcome[0], OperationFailed):
            self.refused.append((now, str(outcome[0])))
        elif outcome != [expected]:
            self.wrong.append((expected, outcome))
        else:
            self.answered.append(now)

    def work(self, name: int) -> None:
        """One caller, on a thread."""
        while not self.over:
            operations, expected = self.flight(name)
            try:
                self.note(self.store.flight(operations), expected)
            except StoreUnavailable as error:
                self.note(error, expected)
            time.sleep(0.02)

    async def awork(self, name: int) -> None:
        """One caller, on an event loop."""
        while not self.over:
            operations, expected = self.flight(name)
            try:
                self.note(await self.store.aflight(operations), expected)
            except StoreUnavailable as error:
                self.note(error, expected)
            await asyncio.sleep(0.02)


@pytest.fixture
def under_load() -> Iterator[Callable[[RedisStore], tuple[Load, Load]]]:
    """Puts a store under load: from five threads, and from twenty tasks of an event loop."""
    loads: list[Load] = []
    threads: list[threading.Thread] = []

    def put(store: RedisStore) -> tuple[Load, Load]:
        by_threads, by_tasks = Load(store), Load(store)
        loads.extend((by_threads, by_tasks))

        async def main() -> None:
            await asyncio.gather(*(by_tasks.awork(name) for name in range(20)))

        threads.extend(threading.Thread(target=by_threads.work, args=(name,)) for name in range(20, 25))
        threads.append(threading.Thread(target=lambda: asyncio.run(main())))
        for thread in threads:
            thread.start()
        poll(lambda: all(len(load.answered) > 50 for load in loads))
        return by_threads, by_tasks

    yield put
    for load in loads:
        load.over = True
    for thread in threads:
        thread.join()


def followed(store: RedisStore, watched: Watched, former: Valkey) -> Valkey | None:
    """The new primary, once the store has gone over to it: where the machine stood still, maybe another than was promoted first."""
    primary = watched.primary
    return primary if primary is not former and store._connector._address == ("127.0.0.1", primary.port) else None


@pytest.mark.parametrize("how", ["killed", "hung", "told"])
def test_failover(
    watched: Watched, open_store: Opener, under_load: Callable[[RedisStore], tuple[Load, Load]], how: str
) -> None:
    """The primary dies, hangs, or is told to hand over: within a second of the promotion all callers are served again,
    and none ever gets an answer that is not his own."""
    events: list[Event] = []
    store = open_store(watched.url, publish=events.append)
    loads = under_load(store)
    former = watched.primary
    with Lag() as lag:
        if how == "killed":
            former.kill()
        elif how == "hung":
            former.pause()
        else:
            watched.sentinels[0].run("SENTINEL", "FAILOVER", watched.service)
        poll(lambda: watched.promoted(former), within=30)
        promoted = time.monotonic()
        served = [min(poll(lambda load=load: [at for at in load.answered if at > promoted])) for load in loads]
        poll(lambda: followed(store, watched, former))
        # Whoever hung comes back, and with him everything that was still under way to him.
        if how == "hung":
            former.resume()
        poll(lambda: all(max(load.answered) > promoted + 1.5 for load in loads))  # what comes late has come by then

    assert [[], []] == [load.wrong for load in loads]
    assert max(served) - promoted < 1.0 + BUSY * lag.worst
    for load in loads:
        late = [reason for at, reason in load.refused if at > promoted + 1.0 + BUSY * lag.worst]
        assert not [reason for reason in late if "READONLY" in reason]
        assert len(late) < len([at for at in load.answered if at > promoted])  # none, but for a loaded machine
    poll(lambda: followed(store, watched, former))
    if how != "told":
        poll(lambda: isinstance(events[-1], StoreRecovered))
        assert isinstance(events[0], StoreDegraded)


def test_a_hung_call_and_another_users_key(watched: Watched, open_store: Opener, fly: Fly, warm: Warm) -> None:
    """What a primary that hung answers after all, to one caller, is nobody's: the next caller gets his own answer."""
    store = open_store(watched.url)
    warm(store)
    primary = watched.primary
    for name in ("ann", "bob"):
        assert [name.encode()] == fly(store, [Lua(WRITE_AND_READ, f"test:{name}", arguments=(name,))])

    for _ in range(3):
        primary.pause()
        with pytest.raises(StoreUnavailable) as failure:
            fly(store, [Lua(WRITE_AND_READ, "test:ann", arguments=("ann",))])
        primary.resume()

        assert failure.value.reason in ("timeout", "local_lag")
        answers = [attempt(fly, store, "bob") for _ in range(30)] + [poll(lambda: attempt(fly, store, "bob"))]
        assert {None, b"bob"} >= set(answers)
        warm(store)


def attempt(fly: Fly, store: RedisStore, name: str) -> bytes | None:
    """The answer to a caller, if there is one."""
    try:
        [answer] = fly(store, [Lua(WRITE_AND_READ, f"test:{name}", arguments=(name,))])
    except StoreUnavailable:
        return None
    assert isinstance(answer, bytes)
    return answer


def test_at_rest(watched: Watched, open_store: Opener, background: asyncio.AbstractEventLoop) -> None:
    """A store at rest notices a failover by itself: its first flights after it are answered, by the new primary."""
    store = open_store(watched.url, deadline=2.0)
    count = [Lua(INCR, "test:count")]

    async def by_task() -> Any:
        return (await store.aflight(count))[0]

    store.flight(count)
    asyncio.run_coroutine_threadsafe(by_task(), background).result(10)
    former = watched.primary
    watched.sentinels[0].run("SENTINEL", "FAILOVER", watched.service)
    poll(lambda: watched.promoted(former), within=30)
    successor = poll(lambda: followed(store, watched, former))

    [first] = store.flight(count)
    second = asyncio.run_coroutine_threadsafe(by_task(), background).result(10)

    assert (first + 1, second) == (second, int(successor.run("GET", "test:count")))
    assert store.breaker.closed


def test_a_machine_that_hangs(watched: Watched, open_store: Opener) -> None:
    """The primary hangs and a sentinel with it, as on one machine: the others are asked, and nobody waits for that one."""
    store = open_store(watched.url)
    store.start()
    poll(lambda: store._connector._address)
    former = watched.primary
    first = watched.sentinels[0]
    assert first.process is not None
    first.process.send_signal(signal.SIGSTOP)
    former.pause()
    try:
        poll(lambda: watched.promoted(former), within=30)
        start = time.monotonic()
        poll(lambda: attempt(lambda store, operations: store.flight(operations), store, "ann"))
        assert time.monotonic() - start < 5.0
    finally:
        first.process.send_signal(signal.SIGCONT)


def test_only_the_background_asks(
    watched: Watched, open_store: Opener, fly: Fly, warm: Warm, monkeypatch: pytest.MonkeyPatch
) -> None:
    """No request asks a sentinel or connects, not even the first, nor the one that meets a dead connection."""
    asked: set[str] = set()
    ask = sentinel._Sentinel.ask
    monkeypatch.setattr(
        sentinel._Sentinel, "ask", lambda self, name: (asked.add(threading.current_thread().name), ask(self, name))[1]
    )
    store = open_store(watched.url, name="counts")
    warm(store)
    watched.primary.run("CLIENT", "KILL", "TYPE", "normal")
    warm(store)

    assert {"failsoft-counts"} == asked


def test_nothing_is_left_behind(watched: Watched, warm: Warm) -> None:
    """A store that is closed has no connection to a sentinel or to the primary any more."""
    before = [clients(one) for one in (*watched.sentinels, watched.primary)]
    store = RedisStore(watched.url)
    warm(store)
    assert before != [clients(one) for one in (*watched.sentinels, watched.primary)]

    store.close()

    poll(lambda: before == [clients(one) for one in (*watched.sentinels, watched.primary)])


def clients(server: "Sentinel | Valkey") -> int:
    """How many connections of ours there are: replicas and sentinels say who they are, and Lua shows no other commands."""
    listed = server.run("CLIENT", "LIST").decode().splitlines()
    return sum(" name= " in line and " flags=N " in line and "cmd=client" not in line for line in listed)


@pytest.mark.filterwarnings("ignore:.*multi-threaded, use of fork")
def test_fork(watched: Watched, open_store: Opener) -> None:
    """A child finds the primary by itself; the parent's connections, to sentinels too, are left alone."""
    store = open_store(watched.url, deadline=5.0)
    store.flight(FLIGHT)
    pid = os.fork()
    if not pid:
        try:
            os._exit(0 if all(store.flight(FLIGHT) == [b"x"] for _ in range(20)) else 1)
        finally:
            os._exit(2)

    assert 0 == os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
    assert store._connector._finder is not None
    assert store._connector._finder.look() is None
    assert [b"x"] == store.flight(FLIGHT)


# Sentinels that say something else.


class Teller(Impostor):
    """A sentinel that tells what the test likes.

    Attributes:
        port_told: where the primary is, or None for a service that is not known.
        epoch: of the configuration.
        flags: of the primary.
        replicas: their ports and flags.
    """

    def __init__(self, port_told: int | None, *, epoch: int = 1, flags: str = "master") -> None:
        self.port_told = port_told
        self.epoch = epoch
        self.flags = flags
        self.replicas: list[tuple[int, str]] = []
        super().__init__(self._tell)

    @property
    def where(self) -> str:
        """For a URL."""
        return f"127.0.0.1:{self.port}"

    def _tell(self, connection: socket.socket, data: bytes) -> None:
        if self.port_told is None:
            connection.sendall(b"*-1\r\n")
        elif b"GET-MASTER" in data:
            connection.sendall(_array("127.0.0.1", str(self.port_told)))
        elif b"REPLICAS" in data:
            told = [self._describe(port, flags) for port, flags in self.replicas]
            connection.sendall(b"*%d\r\n" % len(told) + b"".join(told))
        else:
            connection.sendall(self._describe(self.port_told, self.flags))

    def _describe(self, port: int, flags: str) -> bytes:
        said = {"ip": "127.0.0.1", "port": port, "flags": flags, "config-epoch": self.epoch}
        return _array(*(str(part) for item in said.items() for part in item))


def _array(*parts: str) -> bytes:
    return b"".join([b"*%d\r\n" % len(parts), *(b"$%d\r\n%s\r\n" % (len(part), part.encode()) for part in parts)])


@pytest.fixture
def replica(valkey: Valkey) -> Iterator[Valkey]:
    """A replica of the server that is there for everybody."""
    valkey.run("CONFIG", "SET", "repl-diskless-sync-delay", "0")
    with Valkey("--replicaof", f"127.0.0.1 {valkey.port}") as server:
        poll(lambda: server.run("ROLE")[3] == b"connected")
        yield server


def trouble(store: RedisStore) -> str:
    """Why the store has no connection."""
    with pytest.raises(StoreUnavailable) as failure:
        store.flight(FLIGHT)
    return str(failure.value)


def test_the_newest_opinion_counts(valkey: Valkey, mortal: Valkey, open_store: Opener, warm: Warm) -> None:
    """Of two sentinels the one with the higher epoch is believed, also when the other one is asked first, or later."""
    with Teller(mortal.port, epoch=4) as old, Teller(valkey.port, epoch=5) as new:
        store = open_store(f"redis+sentinel://{old.where},{new.where}/cache", deadline=2.0)
        warm(store)
        assert ("127.0.0.1", valkey.port) == store._connector._address
        finder = store._connector._finder
        assert finder is not None

        new.port_told = None  # and only the old one is left
        old.port_told, old.epoch = mortal.port, 4

        assert finder.look() is None
        assert ("127.0.0.1", valkey.port) == finder.address


def test_moves_without_a_gap(valkey: Valkey, mortal: Valkey, open_store: Opener, fly: Fly, warm: Warm) -> None:
    """When the primary is elsewhere, connections that rest are closed, and those in use when they come back."""
    with Teller(valkey.port, epoch=4) as teller:
        store = open_store(f"redis+sentinel://{teller.where}/cache", deadline=5.0)
        warm(store)
        before = valkey.connections()

        teller.port_told, teller.epoch = mortal.port, 5

        poll(lambda: store._connector._address == ("127.0.0.1", mortal.port))
        poll(lambda: valkey.connections() < before)
        assert [1] == fly(store, [Lua(INCR, "moved")])
        assert b"1" == mortal.run("GET", "moved")


def test_a_replica_gets_no_flight(replica: Valkey, open_store: Opener) -> None:
    """What a sentinel calls the primary and says of itself that it is a replica is not used."""
    with Teller(replica.port) as teller:
        store = open_store(f"redis+sentinel://{teller.where}/cache", deadline=2.0)

        assert f"127.0.0.1:{replica.port}: it is no primary, but a slave" in trouble(store)


def test_who_is_believed_to_be_down_is_not_tried(open_store: Opener) -> None:
    """A primary that hangs would hold the connector up, so it is left alone while its sentinel believes it to be down."""
    with Impostor(lambda connection, data: None) as hung, Teller(hung.port, flags="master,s_down,o_down") as teller:
        store = open_store(f"redis+sentinel://{teller.where}/cache", deadline=2.0)

        assert f"sentinel {teller.where} believes it to be down" in trouble(store)
        assert 0 == hung.accepted


def test_who_is_just_being_promoted(replica: Valkey, mortal: Valkey, open_store: Opener, warm: Warm) -> None:
    """While a sentinel fails over, its replicas are asked whether one is the primary already, but for those that are down."""
    with (
        Impostor(lambda connection, data: None) as hung,
        Teller(hung.port, flags="master,s_down,o_down,failover_in_progress") as teller,
    ):
        teller.replicas = [(hung.port, "slave,s_down"), (replica.port, "slave"), (mortal.port, "slave")]
        store = open_store(f"redis+sentinel://{teller.where}/cache", deadline=2.0)

        warm(store)

        assert ("127.0.0.1", mortal.port) == store._connector._address
        assert 0 == hung.accepted


def test_who_hung_while_another_was_promoted(valkey: Valkey, mortal: Valkey, open_store: Opener, warm: Warm) -> None:
    """A primary that comes back before the failover is over, and takes itself for it still, is not returned to; a newer opinion counts."""
    with Teller(valkey.port, epoch=4, flags="master,s_down,o_down,failover_in_progress") as teller:
        teller.replicas = [(mortal.port, "slave")]
        store = open_store(f"redis+sentinel://{teller.where}/cache", deadline=2.0)
        warm(store)
        finder = store._connector._finder
        assert finder is not None
        assert ("127.0.0.1", mortal.port) == finder.address

        teller.flags = "master"  # it answers the sentinel again, which has not said yet whom it promoted

        assert finder.look() is None
        assert ("127.0.0.1", mortal.port) == finder.address
        teller.epoch = 5
        assert finder.look() is not None
        assert ("127.0.0.1", valkey.port) == finder.address


def test_a_refusal_to_write_makes_it_wonder(
    mortal: Valkey, open_store: Opener, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One reply that says read-only is enough to leave all connections to that server, without waiting for the next look."""
    monkeypatch.setattr(connector, "LOOK", (30.0, 30.0))
    with Valkey("--repl-diskless-sync-delay", "0") as successor, Teller(mortal.port) as teller:
        store = open_store(f"redis+sentinel://{teller.where}/cache", deadline=5.0)
        flight = [Lua(ECHO, arguments=("x",))]
        for answers in [store.begin(flight) for _ in range(3)]:  # each holds a connection
            assert [b"x"] == answers()
        assert 3 == len(store._pool._all)
        teller.port_told, teller.epoch = successor.port, 2
        mortal.run("REPLICAOF", "127.0.0.1", str(successor.port))

        [refused] = store.flight([Lua(INCR, "n")])

        assert isinstance(refused, OperationFailed)
        # Where it is, is known a moment before the connections to the other one are left.
        poll(lambda: [1] == store.flight([Lua(INCR, "n")]))
        assert ("127.0.0.1", successor.port) == store._connector._address


def test_an_unknown_service(open_store: Opener) -> None:
    """A service that the sentinels do not know is named."""
    with Teller(None) as teller:
        store = open_store(f"redis+sentinel://{teller.where}/cahce", deadline=2.0)

        assert f"sentinel {teller.where}: it knows of no service 'cahce'" in trouble(store)


def test_no_sentinel_at_all(valkey: Valkey, open_store: Opener, warm: Warm, fly: Fly) -> None:
    """When every sentinel is gone the primary that was last seen goes on, also for new connections."""
    with Teller(valkey.port) as teller:
        store = open_store(f"redis+sentinel://{teller.where},127.0.0.1:{free_port()}/cache", deadline=2.0)
        warm(store)
    finder = store._connector._finder
    assert finder is not None
    finder._sure_until = 0.0

    valkey.run("CLIENT", "KILL", "TYPE", "normal", "SKIPME", "yes")

    warm(store)


def test_sentinels_that_are_away_or_hang(valkey: Valkey, open_store: Opener, warm: Warm) -> None:
    """One that is enough is enough, wherever it stands in the URL."""
    with Impostor(lambda connection, data: None) as hung, Teller(valkey.port) as teller:
        hosts = f"127.0.0.1:{free_port()},127.0.0.1:{hung.port},{teller.where}"
        store = open_store(f"redis+sentinel://{hosts}/cache")

        warm(store)


def test_what_is_no_sentinel(valkey: Valkey, open_store: Opener) -> None:
    """A server that is none says so; a service that answers nonsense is no answer."""
    store = open_store(f"redis+sentinel://127.0.0.1:{valkey.port}/cache", deadline=2.0)
    assert f"sentinel 127.0.0.1:{valkey.port}: unknown command 'SENTINEL'" in trouble(store)
    with Impostor(lambda connection, data: connection.sendall(b"*1\r\n$1\r\na\r\n")) as nonsense:
        store = open_store(f"redis+sentinel://127.0.0.1:{nonsense.port}/cache", deadline=2.0)
        assert f"sentinel 127.0.0.1:{nonsense.port}: " in trouble(store)


def test_no_permission_to_ask_for_the_role(mortal: Valkey, open_store: Opener) -> None:
    """Without ROLE nobody knows whether it is a primary; the message says what to grant."""
    mortal.run("ACL", "SETUSER", "ann", "on", ">pa55", "~*", "+@all", "-role")
    with Teller(mortal.port) as teller:
        store = open_store(f"redis+sentinel://ann:pa55@{teller.where}/cache", deadline=2.0)

        assert "grant it +role" in trouble(store)


def test_passwords(mortal: Valkey, open_store: Opener, warm: Warm) -> None:
    """Primary and sentinels have users and passwords of their own, which nobody is shown."""
    mortal.run("ACL", "SETUSER", "ann", "on", ">pa55", "~*", "+@all")
    sentinels = Sentinel(mortal.port, "cache", "requirepass Zx9Qk7", password="Zx9Qk7", quorum=1)
    try:
        sentinels.start()
        url = f"redis+sentinel://ann:pa55@127.0.0.1:{sentinels.port}/cache/2"

        store = open_store(f"{url}?sentinel_password=Zx9Qk7", deadline=2.0)
        warm(store)
        other = open_store(url, deadline=2.0, options={"sentinel_password": "Zx9Qk7-not"})
        said = trouble(other)
    finally:
        sentinels.close()

    assert f"redis+sentinel://ann:***@127.0.0.1:{sentinels.port}/cache/2" == store.url
    assert "Zx9Qk7" not in said + repr(store) + repr(parse_url(f"{url}?sentinel_password=Zx9Qk7"))
    assert f"sentinel 127.0.0.1:{sentinels.port}: " in said


@pytest.mark.parametrize(
    ("url", "says"),
    [
        ("redis+sentinel://h", "no name of a service"),
        ("redis+sentinel://h/", "no name of a service"),
        ("redis+sentinel:///cache", "no host"),
        ("redis+sentinel://h,/cache", "no host"),
        ("redis+sentinel://h:0/cache", "port is not a number"),
        ("redis+sentinel://h:1,i:x/cache", "port is not a number"),
        ("redis+sentinel://h/cache/x", "not the number of a database"),
        ("redis+sentinel://h/cache/1?db=1", "names the database twice"),
        ("redis+sentinel://h/cache?sentinel_tls=maybe", "sentinel_tls of a store is 'maybe'; give true or false"),
        ("redis+sentinel://h/cache?sentinel_tls=true", "Write rediss+sentinel:// for TLS to all"),
        ("redis+sentinel://h/cache?tls_ca=/x", "tls_ca of a store does not go with its URL"),
        ("redis://h?sentinel_password=Zx9Qk7", "sentinel_password of a store does not go with its URL"),
        ("redis+sentinel://:Zx9/Qk7@h/cache", "percent-encoded"),
    ],
)
def test_mistakes(url: str, says: str) -> None:
    """A wrong URL is refused with its cause, and without a piece of a password."""
    with pytest.raises(ConfigurationError) as refused:
        RedisStore(url)

    assert says in str(refused.value)
    assert "Qk7" not in str(refused.value)
