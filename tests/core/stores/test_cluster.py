"""The store on a real cluster that is well: where operations go, what they cost, and what moves under them."""

import asyncio
import gc
import os
import socket
import threading
import time
import weakref
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from failsoft.errors import OperationFailed, StoreUnavailable
from failsoft.events import Event, OperationRefused, StoreDegraded, StoreRecovered
from failsoft.exchange.operations import Operation, Script
from failsoft.quota import Quota
from failsoft.ratelimit.acquire import Acquire
from failsoft.stores.cluster import ClusterStore
from tests.clusters import SLOTS, Cluster, slot_of
from tests.core.stores.lua import ECHO, INCR, Lua
from tests.servers import Lag, Valkey, free_port, poll
from tests.tls import Authority, TlsServer

pytestmark = [pytest.mark.processes, pytest.mark.once]

Fly = Callable[[Any, Sequence[Operation]], list[Any]]

OWN = Script("test.own", "return {redis.call('INCR', KEYS[1]), KEYS[1], ARGV[1]}")
"""Counts a key, and says whose it is."""


@pytest.fixture(scope="module")
def one_cluster() -> Iterator[Cluster]:
    """Three primaries, and a node without slots, for all tests that leave them as they were."""
    with Cluster(empty=1) as cluster:
        yield cluster


@pytest.fixture
def cluster(one_cluster: Cluster) -> Cluster:
    """The same, empty."""
    for node in one_cluster.nodes:
        node.run("FLUSHALL")
        node.run("SCRIPT", "FLUSH")
        node.run("CONFIG", "RESETSTAT")
    return one_cluster


@pytest.fixture
def open_cluster() -> Iterator[Callable[..., ClusterStore]]:
    """Makes stores, and closes them after the test."""
    stores: list[ClusterStore] = []

    def open_(url: str, **options: Any) -> ClusterStore:
        stores.append(ClusterStore(url, **options))
        return stores[-1]

    yield open_
    for store in stores:
        store.close()


@pytest.fixture
def store(cluster: Cluster, open_cluster: Callable[..., ClusterStore], fly: Fly) -> ClusterStore:
    """A store whose connections are up, and which waits for longer than a loaded machine needs."""
    store = open_cluster(cluster.url, deadline=2.0)
    poll(lambda: answered(fly, store, [Lua(ECHO, key, arguments=("x",)) for key in one_each(cluster)]))
    return store


def one_each(cluster: Cluster) -> list[str]:
    """A key for each primary."""
    return [next(cluster.keys_of(node)) for node in cluster.primaries()]


def answered(fly: Fly, store: ClusterStore, flight: Sequence[Operation]) -> bool:
    """Whether every operation has an answer that is none of an error."""
    try:
        return not any(isinstance(answer, OperationFailed) for answer in fly(store, flight))
    except StoreUnavailable:
        return False


def ran(node: Valkey, command: str) -> int:
    """How often a node ran a command."""
    with node.client() as client:
        return int(client.info("commandstats").get(f"cmdstat_{command}", {"calls": 0})["calls"])


def test_each_goes_to_its_node(cluster: Cluster, store: ClusterStore, fly: Fly) -> None:
    """Operations on all nodes are one flight, and each node is written to once and runs nothing but its own."""
    keys = [key for node in cluster.primaries() for key, _ in zip(cluster.keys_of(node), range(5), strict=False)]
    fly(store, [Lua(INCR, key) for key in keys])
    before = [ran(node, "evalsha") for node in cluster.nodes]

    answers = fly(store, [Lua(INCR, key) for key in reversed(keys)])

    assert [2] * 15 == answers
    assert [5, 5, 5, 0] == [ran(node, "evalsha") - was for node, was in zip(cluster.nodes, before, strict=True)]
    assert set(keys[:5]) == {key.decode() for key in cluster.nodes[0].run("KEYS", "*")}


def test_no_operations(store: ClusterStore, fly: Fly) -> None:
    """A flight of none does nothing."""
    assert [] == fly(store, [])


def test_scripts_are_learnt(cluster: Cluster, store: ClusterStore, fly: Fly) -> None:
    """A node that does not know a script is told it, within the flight; the others are not."""
    keys = one_each(cluster)
    fly(store, [Lua(INCR, key) for key in keys])
    cluster.nodes[1].run("SCRIPT", "FLUSH")
    before = [ran(node, "eval") for node in cluster.nodes]

    assert [2, 2, 2] == fly(store, [Lua(INCR, key) for key in keys])
    assert [0, 1, 0, 0] == [ran(node, "eval") - was for node, was in zip(cluster.nodes, before, strict=True)]


def test_errors_are_an_operations_own(cluster: Cluster, store: ClusterStore, fly: Fly) -> None:
    """A script that fails, keys that do not belong together, and a key that cannot be sent fail alone."""
    one, two, three = one_each(cluster)
    wrong = Script("test.wrong", "return redis.call('NONSENSE')")

    failed, apart, unsendable, right = fly(
        store, [Lua(wrong, one), Lua(INCR, one, two), Lua(INCR, "\ud800"), Lua(INCR, three)]
    )

    assert isinstance(failed, OperationFailed)
    assert "test.wrong: " in str(failed)
    assert "test.incr: its keys lie in 2 slots of the cluster; give them a {tag} in common" == str(apart)
    assert "test.incr: a key or an argument cannot be sent" in str(unsendable)
    assert 1 == right


def test_begin(cluster: Cluster, open_cluster: Callable[..., ClusterStore]) -> None:
    """What was begun is under way; other flights of the thread may go between."""
    store = open_cluster(cluster.url, deadline=2.0)
    keys = one_each(cluster)
    poll(lambda: answered(lambda store, flight: store.flight(flight), store, [Lua(INCR, key) for key in keys]))

    finish = store.begin([Lua(INCR, key) for key in keys])
    between = store.flight([Lua(INCR, keys[0])])

    assert [3] == between
    assert [2, 2, 2] == finish()
    assert [] == store.begin([])()


def test_limits_of_several_subjects(cluster: Cluster, store: ClusterStore, fly: Fly) -> None:
    """Limits in several slots are charged together; where one refuses, the others' charge comes back."""
    quotas = [Quota(amount=3, window=60), Quota(amount=5, window=60), Quota(amount=5, window=60, algorithm="gcra")]
    keys = [f"limit:{{{key}}}" for key in one_each(cluster)]

    admitted = [fly(store, [Acquire(quotas, keys, [1, 1, 1])])[0] for _ in range(3)]
    refused = fly(store, [Acquire(quotas, keys, [1, 1, 1])])[0]

    assert [[1, 2, 1, 4, 1, 4], [1, 1, 1, 3, 1, 3], [1, 0, 1, 2, 1, 2]] == [
        [row[0], row[1], row[3], row[4], row[6], row[7]] for row in admitted
    ]
    assert [0, 0, 1, 2, 1] == [refused[0], refused[1], refused[3], refused[4], refused[6]]
    assert refused[7] in (2, 3)  # it refills meanwhile

    def given_back() -> bool:
        rows = fly(store, [Acquire(quotas[1:], keys[1:], [0, 0])])[0]
        return bool(rows[1] == 2 and rows[4] >= 2)

    poll(given_back)


def test_one_seed_is_enough(cluster: Cluster, open_cluster: Callable[..., ClusterStore], fly: Fly) -> None:
    """The nodes that the URL does not name are found, also when the first that it names is not there."""
    store = open_cluster(f"redis+cluster://127.0.0.1:{free_port()},127.0.0.1:{cluster.nodes[1].port}", deadline=5.0)

    assert [1, 1, 1] == fly(store, [Lua(INCR, key) for key in one_each(cluster)])


def test_started_before_the_first_flight(cluster: Cluster, open_cluster: Callable[..., ClusterStore]) -> None:
    """After `start` every node has a connection, without any flight: for threads, or for the loop that is running."""
    store = open_cluster(cluster.url)
    store.start()
    poll(lambda: all(node.connections() for node in cluster.primaries()))

    async def main() -> None:
        other = open_cluster(cluster.url)
        before = [node.connections() for node in cluster.nodes[:3]]
        other.start()
        while any(node.connections() <= was for node, was in zip(cluster.nodes, before, strict=False)):  # noqa: ASYNC110 - nothing else tells
            await asyncio.sleep(0.005)

    asyncio.run(asyncio.wait_for(main(), 10))


def test_nobody_is_there(open_cluster: Callable[..., ClusterStore], fly: Fly) -> None:
    """The first flight waits until that is known, the next are refused at once; when the cluster comes up they go."""
    events: list[Event] = []
    cluster = Cluster(primaries=1)
    try:
        store = open_cluster(cluster.url, name="limits", publish=events.append, deadline=2.0)
        begin = time.monotonic()
        with Lag() as lag, pytest.raises(StoreUnavailable, match="no_connection") as raised:
            fly(store, [Lua(INCR, "k")])
        assert time.monotonic() - begin < 2.0 + lag.worst
        assert "ConnectionError" in str(raised.value)
        # One after the other, had each to wait for the deadline, it would be 40 s.
        begin = time.monotonic()
        for _ in range(20):
            with pytest.raises(StoreUnavailable, match="no_connection"):
                fly(store, [Lua(INCR, "k")])
        assert time.monotonic() - begin < 10.0
        assert [StoreDegraded("limits", "no_connection")] == events

        cluster.start()
        poll(lambda: answered(fly, store, [Lua(INCR, "k")]))
        poll(lambda: [StoreDegraded, StoreRecovered] == [type(event) for event in events])
    finally:
        cluster.close()


def test_errors_are_told(cluster: Cluster, open_cluster: Callable[..., ClusterStore], fly: Fly) -> None:
    """An operation that its node answers with an error is told of, by the name of the store; one that was sent on is not."""
    events: list[Event] = []
    store = open_cluster(cluster.url, name="limits", deadline=2.0, publish=events.append)
    refusing = Script("test.refusing", "return redis.error_reply('NOPERM it may not')")
    poll(lambda: answered(fly, store, [Lua(ECHO, arguments=("x",))]))
    fly(store, [Lua(refusing, "a"), Lua(ECHO, "b", arguments=("x",))])
    assert [("limits", "NOPERM", "test.refusing: NOPERM it may not")] == [
        (event.store, event.code, event.detail) for event in events if isinstance(event, OperationRefused)
    ]


def test_it_is_no_cluster(open_cluster: Callable[..., ClusterStore], fly: Fly) -> None:
    """A server that knows of no slots, or of no clusters, is named in the reason."""
    with Valkey() as alone, Valkey("--cluster-enabled", "yes", "--cluster-port", str(free_port())) as empty:
        for server, said in ((alone, "cluster support disabled"), (empty, "knows of no slots")):
            store = open_cluster(f"redis+cluster://127.0.0.1:{server.port}", deadline=2.0)
            with pytest.raises(StoreUnavailable, match=said):
                fly(store, [Lua(INCR, "k")])


def test_a_server_that_accepts_and_says_nothing(open_cluster: Callable[..., ClusterStore], fly: Fly) -> None:
    """Nobody waits for longer than the deadline while the slots are looked for."""
    with socket.create_server(("127.0.0.1", 0)) as mute:
        store = open_cluster(f"redis+cluster://127.0.0.1:{mute.getsockname()[1]}", deadline=0.2)
        begin = time.monotonic()
        with Lag() as lag, pytest.raises(StoreUnavailable, match="no_connection"):
            fly(store, [Lua(INCR, "k")])
        assert 0.1 < time.monotonic() - begin < 1.5 + lag.worst
        begin = time.monotonic()
        with Lag() as lag, pytest.raises(StoreUnavailable, match="no_connection"):
            fly(store, [Lua(INCR, "k")])
        assert time.monotonic() - begin < 0.1 + lag.worst


def test_everybody_gets_his_own(cluster: Cluster, store: ClusterStore) -> None:
    """Threads and tasks at the same time, each flight over several nodes: every reply is its asker's."""
    keys = {f"own{number}": number for number in range(40)}
    rounds = 30
    failures: list[Any] = []

    def check(key: str, turn: int, answers: list[Any]) -> None:
        expected = [[turn, f"{part}{key}".encode(), key.encode()] for part in "abc"]
        if expected != answers:
            failures.append((key, turn, answers))

    def flight(key: str) -> list[Operation]:
        return [Lua(OWN, f"{part}{key}", arguments=(key,)) for part in "abc"]

    def by_thread(key: str) -> None:
        for turn in range(1, rounds + 1):
            check(key, turn, store.flight(flight(key)))

    async def by_task(key: str) -> None:
        for turn in range(1, rounds + 1):
            check(key, turn, await store.aflight(flight(key)))

    async def tasks() -> None:
        await asyncio.gather(*[by_task(key) for key, number in keys.items() if number >= 8])

    threads = [threading.Thread(target=by_thread, args=(key,)) for key, number in keys.items() if number < 8]
    threads.append(threading.Thread(target=asyncio.run, args=(tasks(),)))
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    assert [] == failures


def test_cancelled(cluster: Cluster, store: ClusterStore) -> None:
    """Tasks that are cancelled in the midst of a flight leave no reply to the others."""
    keys = one_each(cluster)
    flight = [Lua(OWN, key, arguments=("gone",)) for key in keys]

    async def main() -> None:
        for turn in range(30):
            doomed = [asyncio.ensure_future(store.aflight(flight)) for _ in range(5)]
            for _ in range(turn % 4):
                await asyncio.sleep(0)
            for task in doomed:
                task.cancel()
            answers = await store.aflight([Lua(OWN, key, arguments=(str(turn),)) for key in keys])
            assert [[key.encode(), str(turn).encode()] for key in keys] == [answer[1:] for answer in answers]
            await asyncio.gather(*doomed, return_exceptions=True)

    asyncio.run(main())


def test_closed(cluster: Cluster, store: ClusterStore, fly: Fly) -> None:
    """After `close` flights say so, and no connection is left."""
    store.close()

    with pytest.raises(StoreUnavailable, match=r"closed: the store 'default' was closed"):
        fly(store, [Lua(INCR, "k")])
    poll(lambda: not any(node.connections() for node in cluster.nodes))


def test_forgotten(cluster: Cluster) -> None:
    """A store that nobody holds any more takes its nodes, connections and threads along."""
    before = threading.active_count()
    store = ClusterStore(cluster.url, deadline=2.0)
    store.flight([Lua(INCR, key) for key in one_each(cluster)])
    assert threading.active_count() == before + 4
    gone = weakref.ref(store)

    del store

    poll(lambda: gc.collect() is not None and gone() is None and threading.active_count() == before)
    poll(lambda: not any(node.connections() for node in cluster.nodes))


@pytest.mark.skipif(not hasattr(os, "fork"), reason="there is no fork here")
@pytest.mark.filterwarnings("ignore:This process .* is multi-threaded:DeprecationWarning")
def test_forked(cluster: Cluster, open_cluster: Callable[..., ClusterStore]) -> None:
    """A child finds the cluster by itself, and the parent's connections stay the parent's."""
    store = open_cluster(cluster.url, deadline=5.0)
    keys = one_each(cluster)
    store.flight([Lua(INCR, key) for key in keys])
    received, sent = os.pipe()

    child = os.fork()
    if not child:
        try:
            os.write(sent, repr(store.flight([Lua(INCR, key) for key in keys])).encode())
        finally:
            os._exit(0)
    os.close(sent)
    said = os.read(received, 1000)
    os.close(received)
    os.waitpid(child, 0)

    assert b"[2, 2, 2]" == said
    assert [3, 3, 3] == store.flight([Lua(INCR, key) for key in keys])


class Move:
    """A slot that is being moved, and moved back in the end."""

    def __init__(self, cluster: Cluster, key: str, target: Valkey) -> None:
        self.cluster = cluster
        self.key = key
        self.slot = slot_of(key)
        self.target = target
        self.source = cluster.begin_move(key, target)

    def move_keys(self) -> None:
        """Move all that are there now."""
        while self.cluster.move_keys(self.slot, self.source, self.target):
            pass

    def end(self) -> None:
        """The slot is the target's."""
        self.move_keys()
        self.cluster.end_move(self.slot, self.source, self.target)

    def back(self) -> None:
        """As it was."""
        # Or it would come back in the epoch in which it went, and the others might never believe it.
        poll(self.cluster.settled)
        Move(self.cluster, self.key, self.source).end()
        poll(self.cluster.settled)


@pytest.fixture
def move(cluster: Cluster) -> Iterator[Callable[..., Move]]:
    """Begins to move the slot of a key from one primary to another; at the end all is as it was."""
    moves: list[Move] = []

    def begin(key: str, target: Valkey | None = None) -> Move:
        source = cluster.primary_of(key)
        moves.append(Move(cluster, key, target or next(node for node in cluster.nodes if node is not source)))
        return moves[-1]

    yield begin
    for one in moves:
        if cluster.primary_of(one.key) is one.source:
            one.end()
        one.back()


def test_a_slot_that_has_moved(cluster: Cluster, store: ClusterStore, fly: Fly, move: Callable[..., Move]) -> None:
    """The first flight after the move is redirected and succeeds; then it is known, before and after the refresh."""
    key, *others = one_each(cluster)
    fly(store, [Lua(INCR, key)])
    moved = move(key)
    moved.end()

    first = fly(store, [Lua(INCR, key), *[Lua(INCR, other) for other in others]])
    calls = ran(moved.source, "evalsha"), ran(moved.source, "eval")
    next_ones = [fly(store, [Lua(INCR, key)])[0] for _ in range(5)]

    assert [2, 1, 1] == first
    assert [3, 4, 5, 6, 7] == next_ones
    assert calls == (ran(moved.source, "evalsha"), ran(moved.source, "eval"))


def test_a_slot_on_the_move(cluster: Cluster, store: ClusterStore, fly: Fly, move: Callable[..., Move]) -> None:
    """New keys are made on the target, old ones are counted where they are; nothing is lost in the move."""
    old, new = "{k0}old", "{k0}new"
    fly(store, [Lua(INCR, old)])
    moved = move(old)

    both = [fly(store, [Lua(INCR, old), Lua(INCR, new)]) for _ in range(3)]
    moved.move_keys()
    after = [fly(store, [Lua(INCR, old), Lua(INCR, new)]) for _ in range(3)]
    moved.end()
    finally_ = fly(store, [Lua(INCR, old), Lua(INCR, new)])

    assert [[2, 1], [3, 2], [4, 3]] == both
    assert [[5, 4], [6, 5], [7, 6]] == after
    assert [8, 7] == finally_


def test_limits_of_a_slot_on_the_move(
    cluster: Cluster, store: ClusterStore, fly: Fly, move: Callable[..., Move]
) -> None:
    """Several limits of one subject are decided although their keys lie on two nodes, or on none yet."""
    quotas = [Quota(amount=3, window=60), Quota(amount=4, window=3600)]
    keys = ["{k0}minute", "{k0}hour"]
    fly(store, [Acquire(quotas[:1], keys[:1], [1])])
    moved = move(keys[0])

    apart = [fly(store, [Acquire(quotas, keys, [1, 1])])[0] for _ in range(2)]
    refused = fly(store, [Acquire(quotas, keys, [1, 1])])[0]
    none_yet = fly(store, [Acquire(quotas, ["{k0}a", "{k0}b"], [1, 1])])[0]

    assert [[1, 1, 1, 3], [1, 0, 1, 2]] == [[row[0], row[1], row[3], row[4]] for row in apart]
    assert [0, 0, 1, 2] == [refused[0], refused[1], refused[3], refused[4]]
    assert [1, 2, 1, 3] == [none_yet[0], none_yet[1], none_yet[3], none_yet[4]]
    poll(lambda: fly(store, [Acquire(quotas[1:], keys[1:], [0])])[0][1] == 2)
    moved.end()
    assert [0, 0, 1, 2] == [*(row := fly(store, [Acquire(quotas, keys, [1, 1])])[0])[:2], *row[3:5]]


def test_moved_to_a_node_that_is_new(
    cluster: Cluster, store: ClusterStore, fly: Fly, move: Callable[..., Move]
) -> None:
    """A node that had no slots, and so was not known, is found when a key is asked for there."""
    key = next(cluster.keys_of(cluster.nodes[0]))
    moved = move(key, cluster.nodes[3])

    asked = fly(store, [Lua(INCR, key)])
    moved.end()

    assert [1] == asked
    assert [2] == fly(store, [Lua(INCR, key)])


def test_resharding_under_load(cluster: Cluster, open_cluster: Callable[..., ClusterStore]) -> None:
    """A slot goes back and forth with its keys while threads and tasks count there and elsewhere: nothing is lost,
    nobody meets another's reply, and no error reaches anybody.
    """
    store = open_cluster(cluster.url, deadline=5.0)
    home = next(cluster.keys_of(cluster.nodes[0]))
    elsewhere = next(cluster.keys_of(cluster.nodes[2]))
    stop = threading.Event()
    failures: list[Any] = []
    turns: dict[str, int] = {}

    def check(own: str, turn: int, answers: Sequence[Any]) -> None:
        keys = [f"{{{home}}}{own}", f"{{{home}}}{own}:{turn}", f"{{{elsewhere}}}{own}"]
        counts = [turn, 1, turn]
        expected = [[count, key.encode(), own.encode()] for count, key in zip(counts, keys, strict=True)]
        if expected != answers:
            failures.append((own, turn, answers))

    def flight(own: str, turn: int) -> list[Operation]:
        keys = [f"{{{home}}}{own}", f"{{{home}}}{own}:{turn}", f"{{{elsewhere}}}{own}"]
        return [Lua(OWN, key, arguments=(own,)) for key in keys]

    def by_thread(own: str) -> None:
        turn = 0
        while not stop.is_set():
            turn += 1
            time.sleep(0.001)  # so that there are requests everywhere, and not as many as possible
            try:
                check(own, turn, store.flight(flight(own, turn)))
            except Exception as error:
                failures.append((own, turn, error))
                break
            turns[own] = turn

    async def by_task(own: str) -> None:
        turn = 0
        while not stop.is_set():
            turn += 1
            await asyncio.sleep(0.001)
            try:
                check(own, turn, await store.aflight(flight(own, turn)))
            except Exception as error:
                failures.append((own, turn, error))
                break
            turns[own] = turn

    async def tasks() -> None:
        await asyncio.gather(*map(by_task, callers[3:]))

    callers = [*(f"thread{number}" for number in range(3)), *(f"task{number}" for number in range(5))]
    threads = [threading.Thread(target=by_thread, args=(own,)) for own in callers[:3]]
    threads.append(threading.Thread(target=asyncio.run, args=(tasks(),)))
    for thread in threads:
        thread.start()
    try:
        for target in (cluster.nodes[1], cluster.nodes[0]) * 2:
            Move(cluster, home, target).end()
            before = dict(turns)
            poll(
                lambda before=before: failures or all(turns.get(own, 0) > before.get(own, 0) + 5 for own in callers),
                within=30,
            )
    finally:
        stop.set()
        for thread in threads:
            thread.join()
    poll(cluster.settled)

    assert [] == failures[:3]
    redirections = [node.run("INFO", "errorstats") for node in cluster.nodes]
    assert {"errorstat_ASK", "errorstat_MOVED"} <= {name for errors in redirections for name in errors}


def test_every_slot_is_somebodys(cluster: Cluster, store: ClusterStore, fly: Fly) -> None:
    """Keys of all over the place find their node at the first attempt."""
    keys = [f"spread{number}" for number in range(500)]
    assert len({slot_of(key) for key in keys}) > SLOTS // 50

    assert [b"x"] * 500 == fly(store, [Lua(ECHO, key, arguments=("x",)) for key in keys])
    assert {"errorstat_NOSCRIPT"} == {name for node in cluster.nodes for name in node.run("INFO", "errorstats")}


def test_with_a_password(open_cluster: Callable[..., ClusterStore], fly: Fly) -> None:
    """Every node is entered with what the URL says; a wrong password is named as the reason, and not quoted."""
    make = partial(Valkey, password="sesame")
    with Cluster("--requirepass", "sesame", primaries=2, make=make) as cluster:
        keys = one_each(cluster)
        store = open_cluster(cluster.url.replace("://", "://:sesame@"), deadline=5.0)
        wrong = open_cluster(cluster.url.replace("://", "://:simsim@"), deadline=5.0)

        assert [1, 1] == fly(store, [Lua(INCR, key) for key in keys])
        with pytest.raises(StoreUnavailable, match="AuthenticationError") as raised:
            fly(wrong, [Lua(INCR, key) for key in keys])
        assert "simsim" not in str(raised.value)


def test_with_the_least_permissions(cluster: Cluster, open_cluster: Callable[..., ClusterStore], fly: Fly) -> None:
    """A user with no more than what the page on stores names gets every answer, also of a slot that is on the move."""
    allowed = "+evalsha +eval +get +set +incrby +ping +select +client|setinfo +cluster|slots +cluster|info +asking"
    for node in cluster.nodes:
        node.run("ACL", "SETUSER", "limited", "on", ">secret", "~failsoft:*", *[*allowed.split(), "+incr"])
    try:
        store = open_cluster(cluster.url.replace("://", "://limited:secret@"), deadline=5.0)
        keys = [f"failsoft:{{{key}}}" for key in one_each(cluster)]
        assert [1, 1, 1] == fly(store, [Lua(INCR, key) for key in keys])
        moved = Move(cluster, keys[0], cluster.nodes[3])
        try:
            assert [1] == fly(store, [Lua(INCR, keys[0] + "new")])
        finally:
            moved.end()
            moved.back()
    finally:
        for node in cluster.nodes:
            node.run("ACL", "DELUSER", "limited")


def test_over_tls(tmp_path: Path, open_cluster: Callable[..., ClusterStore], fly: Fly) -> None:
    """Every node is spoken to over TLS, those too that only the others name."""
    authority = Authority(tmp_path)
    make = partial(TlsServer, authority)
    with Cluster("--tls-cluster", "yes", "--tls-replication", "yes", primaries=2, make=make) as cluster:
        one, _ = cluster.nodes
        store = open_cluster(f"rediss+cluster://127.0.0.1:{one.port}?tls_ca={authority.path}", deadline=5.0)
        plain = open_cluster(f"redis+cluster://127.0.0.1:{one.port}", deadline=0.5)

        assert [1, 1] == fly(store, [Lua(INCR, key) for key in one_each(cluster)])
        with pytest.raises(StoreUnavailable):
            fly(plain, [Lua(INCR, "k")])
