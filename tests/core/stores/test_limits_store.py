"""Limits on storages that only `limits` knows: on a real memcached, and on a MongoDB in miniature, with the real drivers."""

import asyncio
import os
import sys
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from typing import Any
from urllib.parse import unquote

import pytest

from failsoft.errors import ConfigurationError, OperationFailed, StoreUnavailable
from failsoft.events import Event, StoreDegraded, StoreRecovered
from failsoft.exchange.operations import Operation
from failsoft.guard import State
from failsoft.quota import Quota
from failsoft.ratelimit.acquire import PEEK, SOFT, Acquire
from failsoft.ratelimit.adjust import Adjust
from failsoft.ratelimit.penalty import Penalty
from failsoft.runtime import Runtime
from failsoft.settings import Settings
from failsoft.stores import open_store
from failsoft.stores.storages import LimitsStore, backends, sides
from tests.core.stores.lua import INCR, Lua
from tests.mongodb import MongoServer
from tests.servers import poll
from tests.storages import Memcached

pytestmark = pytest.mark.processes

Server = Memcached | MongoServer
Fly = Callable[[LimitsStore, Sequence[Operation]], list[Any]]

MINUTE = Quota(amount=3, window=60)
HOUR = Quota(amount=5, window=3600)
SLIDING = Quota(amount=3, window=3600, algorithm="sliding-window-counter")
MOVING = Quota(amount=3, window=60, algorithm="moving-window")

DEADLINE = 0.5
"""More than a server that is well takes on a loaded machine."""

AT_ONCE = 0.05


@pytest.fixture(params=["memcached", "mongodb"])
def server(request: pytest.FixtureRequest) -> Iterator[Server]:
    """A server of the test's own."""
    with Memcached() if request.param == "memcached" else MongoServer() as server:
        yield server


@pytest.fixture
def memcached() -> Iterator[Memcached]:
    """A memcached of the test's own."""
    with Memcached() as server:
        yield server


@pytest.fixture
def mongodb() -> Iterator[MongoServer]:
    """A MongoDB in miniature."""
    with MongoServer() as server:
        yield server


@pytest.fixture
def events() -> list[Event]:
    """What the stores published."""
    return []


@pytest.fixture
def loop() -> Iterator[asyncio.AbstractEventLoop]:
    """An event loop in a thread of its own."""
    loop = asyncio.new_event_loop()
    thread = threading.Thread(target=loop.run_forever)
    thread.start()
    yield loop
    loop.call_soon_threadsafe(loop.stop)
    thread.join()
    loop.run_until_complete(asyncio.sleep(0))  # what was closed last
    loop.close()


@pytest.fixture
def open_limits(loop: asyncio.AbstractEventLoop, events: list[Event]) -> Iterator[Callable[..., LimitsStore]]:
    """Makes stores, and closes them after the test."""
    stores: list[LimitsStore] = []

    def open_(url: str, **options: Any) -> LimitsStore:
        stores.append(LimitsStore(url, **{"deadline": DEADLINE, "publish": events.append} | options))
        return stores[-1]

    async def close(store: LimitsStore) -> None:
        await store.aclose()
        await asyncio.sleep(0.01)  # for transports to be closed

    yield open_
    for store in stores:
        asyncio.run_coroutine_threadsafe(close(store), loop).result(10)
        poll(lambda store=store: store._threads._thread is None or not store._threads._thread.is_alive())


@pytest.fixture(params=["sync", "async"])
def fly(request: pytest.FixtureRequest, loop: asyncio.AbstractEventLoop) -> Fly:
    """A flight from this thread, or from a task: the same must come of both."""
    if request.param == "sync":
        return lambda store, operations: store.flight(operations)

    def from_a_task(store: LimitsStore, operations: Sequence[Operation]) -> list[Any]:
        async def main() -> list[Any]:
            return await store.aflight(operations)

        return asyncio.run_coroutine_threadsafe(main(), loop).result(10)

    return from_a_task


@pytest.fixture
def store(server: Server, open_limits: Callable[..., LimitsStore], fly: Fly) -> LimitsStore:
    """A store that is open, and patient, so that no stall of the machine is an outage."""
    return opened(open_limits(server.url, deadline=5.0), fly)


@pytest.fixture
def hasty(server: Server, open_limits: Callable[..., LimitsStore], fly: Fly) -> LimitsStore:
    """One whose deadline the test waits for."""
    return opened(open_limits(server.url), fly)


def opened(store: LimitsStore, fly: Fly) -> LimitsStore:
    """The store, once it answers."""
    poll(lambda: attempt(fly, store, "warm")[0] == "ok")
    return store


def attempt(fly: Fly, store: LimitsStore, key: str) -> tuple[str, float]:
    """What comes of a flight, ``"ok"`` or the reason, and how long that took."""
    begin = time.monotonic()
    try:
        (answer,) = fly(store, [Acquire([HOUR], [key], [1])])
        verdict = str(answer) if isinstance(answer, OperationFailed) else "ok"
    except StoreUnavailable as error:
        verdict = error.reason
    return verdict, time.monotonic() - begin


def decide(fly: Fly, store: LimitsStore, quotas: Sequence[Quota], keys: Sequence[str], *costs: int) -> list[list[int]]:
    """Rows without their times."""
    (answer,) = fly(store, [Acquire(quotas, keys, costs or [1] * len(keys))])
    assert all(reset >= 0 for reset in answer[2::3])
    return [answer[row : row + 2] for row in range(0, len(answer), 3)]


@pytest.mark.parametrize("quota", [MINUTE, SLIDING, MOVING], ids=lambda quota: quota.algorithm)
def test_counting(store: LimitsStore, fly: Fly, quota: Quota) -> None:
    """Units are counted down to none, then requests are refused; another subject is not concerned."""
    if store.unsupported(quota):
        pytest.skip("the storage does not know it")

    rows = [decide(fly, store, [quota], ["{me}"])[0] for _ in range(5)]

    assert [[1, 2], [1, 1], [1, 0], [0, 0], [0, 0]] == rows
    assert [[1, 2]] == decide(fly, store, [quota], ["{you}"])


def test_reset(store: LimitsStore, fly: Fly) -> None:
    """The row says when the window ends; a window that has not begun would last as long as any."""
    (row,) = fly(store, [Acquire([MINUTE], ["k"], [1])])
    (other,) = fly(store, [Acquire([MINUTE], ["other"], [0])])

    assert 50_000 < row[2] <= 60_000
    assert [1, 3, 60_000] == other


def test_a_window_ends(store: LimitsStore, fly: Fly) -> None:
    """After its window a limit starts anew."""
    quota = Quota(amount=1, window=1)
    decide(fly, store, [quota], ["k"])

    poll(lambda: decide(fly, store, [quota], ["k"]) == [[1, 0]])


def test_all_or_nothing(store: LimitsStore, fly: Fly) -> None:
    """A request that one limit refuses costs the others nothing."""
    quotas, keys = [MINUTE, HOUR], ["{me}minute", "{me}hour"]
    admitted = [decide(fly, store, quotas, keys) for _ in range(3)]

    refused = [decide(fly, store, quotas, keys) for _ in range(3)]

    assert [[[1, 2], [1, 4]], [[1, 1], [1, 3]], [[1, 0], [1, 2]]] == admitted
    assert [[[0, 0], [1, 2]]] * 3 == refused


def test_costs(store: LimitsStore, fly: Fly) -> None:
    """A request that costs more than what is left is refused and costs nothing; one that costs less is not."""
    assert [[1, 1]] == decide(fly, store, [HOUR], ["k"], 4)
    assert [[0, 1]] == decide(fly, store, [HOUR], ["k"], 2)
    assert [[1, 1]] == decide(fly, store, [HOUR], ["k"], 0)
    assert [[1, 0]] == decide(fly, store, [HOUR], ["k"], 1)


def test_shadow_limits_and_peeks(store: LimitsStore, fly: Fly) -> None:
    """A soft limit refuses nobody, and a limit that is peeked at is not charged."""
    quotas, keys = [Quota(amount=1, window=60), HOUR], ["{me}soft", "{me}hard"]
    soft = [fly(store, [Acquire(quotas, keys, [1, 1], modes=[SOFT, 0])])[0] for _ in range(3)]
    peeked = [fly(store, [Acquire([HOUR], ["{me}hard"], [1], modes=[PEEK])])[0] for _ in range(3)]

    assert [[1, 0, 1, 4], [0, 0, 1, 3], [0, 0, 1, 2]] == [[row[0], row[1], row[3], row[4]] for row in soft]
    assert [[1, 2]] * 3 == [row[:2] for row in peeked]


def test_several_operations(store: LimitsStore, fly: Fly) -> None:
    """They are decided one after the other; what is none of limits fails alone."""
    first, other, adjusted, last = fly(
        store,
        [
            Acquire([MINUTE], ["k"], [1]),
            Lua(INCR, "k"),
            Adjust([MINUTE], ["k"], [0], [-1]),
            Acquire([MINUTE], ["k"], [1]),
        ],
    )

    assert [[1, 2], [1, 1]] == [first[:2], last[:2]]
    kind = store.backend.kind
    assert f"test.incr: a store on {kind} serves limits only" == str(other)
    assert f"ratelimit.adjust: a store on {kind} serves limits only" == str(adjusted)
    assert [] == fly(store, [])
    assert [1, 0] == store.begin([Acquire([MINUTE], ["k"], [1])])()[0][:2]


PENALTY = Penalty(after=3, within=60, block=60)


def test_what_is_not_supported(server: Server, open_limits: Callable[..., LimitsStore]) -> None:
    """It is known before any request what the storage cannot decide about, with the cure."""
    store = open_limits(server.url)
    kind = store.backend.kind
    gcra = Quota(amount=3, window=60, algorithm="gcra")
    aligned = Quota(amount=3, window=60, aligned=True)

    assert store.unsupported(MINUTE) is None
    assert store.unsupported(SLIDING, SOFT) is None
    assert f"{kind} does not know gcra: use " in str(store.unsupported(gcra))
    assert f"{kind} does not know aligned windows: " in str(store.unsupported(aligned))
    assert f"{kind} cannot keep penalties: use redis:// for them" == store.unsupported(PENALTY)
    assert "cannot be given back or corrected: use redis://" in str(store.unsupported(MINUTE, stamps=True))


def test_what_is_not_supported_is_known_at_start(server: Server) -> None:
    """An application with a limit that the storage cannot decide about does not start; one with a limit that it can, does."""
    given = {"store": server.url, "limits": ["9/hour burst 5"]}
    with pytest.raises(
        ConfigurationError, match=r"limits: 9 per 3600 s.* in the store 'default': .* does not know gcra: use "
    ):
        Runtime(Settings.load(given, environ={}))
    Runtime(Settings.load(given | {"limits": ["9/hour"]}, environ={})).close()


def test_what_memcached_does_not_support(memcached: Memcached, open_limits: Callable[..., LimitsStore]) -> None:
    """It has no moving windows, and forgets at once what it is told to keep for more than 30 days."""
    store = open_limits(memcached.url)
    month = Quota(amount=3, window=30 * 86_400)
    longer = Quota(amount=3, window=31 * 86_400)
    sliding = Quota(amount=3, window=16 * 86_400, algorithm="sliding-window-counter")

    assert "memcached does not know moving-window: use fixed-window or sliding-window-counter, or redis://" == (
        store.unsupported(MOVING)
    )
    assert store.unsupported(month) is None
    assert "memcached remembers a fixed-window of at most 30 days: use a shorter one, or redis://" == (
        store.unsupported(longer)
    )
    assert "at most 15 days" in str(store.unsupported(sliding))


def test_what_is_not_supported_fails(store: LimitsStore, fly: Fly) -> None:
    """A limit that only a request knows of, and the storage does not know, is a failure of its operation, not a 500."""
    gcra = Quota(amount=3, window=60, algorithm="gcra")

    failed, stamped, right = fly(
        store,
        [Acquire([gcra], ["k"], [1]), Acquire([MINUTE], ["k"], [1], stamps=True), Acquire([MINUTE], ["k"], [1])],
    )

    assert isinstance(failed, OperationFailed)
    assert "does not know gcra" in str(failed)
    assert isinstance(stamped, OperationFailed)
    assert [1, 2] == right[:2]


def test_the_servers_word(mongodb: MongoServer, open_limits: Callable[..., LimitsStore], fly: Fly) -> None:
    """A command that the server refuses is its operation's failure, and no outage."""
    store = opened(open_limits(mongodb.url), fly)
    mongodb.failing = 13  # Unauthorized

    verdicts = {attempt(fly, store, "k")[0] for _ in range(20)}

    assert {"ratelimit.acquire: OperationFailure"} == {verdict.split(": it was")[0] for verdict in verdicts}
    assert State.CLOSED is store.breaker.state
    mongodb.failing = 0
    assert "ok" == attempt(fly, store, "k")[0]


def test_the_word_of_memcached(memcached: Memcached, open_limits: Callable[..., LimitsStore], fly: Fly) -> None:
    """A key that holds something else is its operation's failure, and the connection is used further."""
    store = opened(open_limits(memcached.url), fly)

    def names() -> list[str]:  # none where its crawler is busy
        return [line.split()[0] for line in memcached.run("lru_crawler metadump all").splitlines() if "warm" in line]

    name = unquote(min(poll(names), key=len)).removeprefix("key=")
    memcached.run(f"set {name} 0 0 4\r\nnone")

    failed, right = fly(store, [Acquire([HOUR], ["warm"], [1]), Acquire([HOUR], ["k"], [1])])

    assert "non-numeric" in str(failed)
    assert [1, 4] == right[:2]
    assert State.CLOSED is store.breaker.state


@pytest.mark.parametrize("key", ["sp ace", "line\r\nset injected 0 0 1\r\n1", "ü", "x" * 300, "\x00", "t\tab"])
def test_keys_that_memcached_cannot_have(
    memcached: Memcached, open_limits: Callable[..., LimitsStore], fly: Fly, key: str
) -> None:
    """They are counted all the same, each for itself, and nothing in them is a command."""
    store = opened(open_limits(memcached.url), fly)

    assert [[[1, 2]], [[1, 1]]] == [decide(fly, store, [MINUTE], [key]) for _ in range(2)]
    assert [[1, 2]] == decide(fly, store, [MINUTE], [key + "2"])
    assert "END\r\n" == memcached.run("get injected")


def test_an_expired_moving_window(mongodb: MongoServer, open_limits: Callable[..., LimitsStore], fly: Fly) -> None:
    """Entries that are all too old are none."""
    store = opened(open_limits(mongodb.url), fly)
    quota = Quota(amount=3, window=1, algorithm="moving-window")
    decide(fly, store, [quota], ["k"])

    poll(lambda: decide(fly, store, [quota], ["k"], 0) == [[1, 3]])


def test_never_more_than_the_quota(server: Server, open_limits: Callable[..., LimitsStore]) -> None:
    """Threads and tasks that meet at a limit are admitted as often as it says."""
    quota = Quota(amount=30, window=3600)
    admitted: list[int] = []
    store = opened(open_limits(server.url, deadline=5.0), lambda store, operations: store.flight(operations))

    def by_thread() -> None:
        admitted.extend(store.flight([Acquire([quota], ["all"], [1])])[0][0] for _ in range(10))

    async def by_task() -> None:
        admitted.extend([(await store.aflight([Acquire([quota], ["all"], [1])]))[0][0] for _ in range(10)])

    async def tasks() -> None:
        await ready_on_its_loop(store)
        await asyncio.gather(*[by_task() for _ in range(4)])
        await store.aclose()
        await asyncio.sleep(0.01)

    threads = [threading.Thread(target=by_thread) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    asyncio.run(tasks())

    assert 30 == sum(admitted)
    assert 80 == len(admitted)


def test_everybody_gets_his_own(
    server: Server, open_limits: Callable[..., LimitsStore], fly: Fly, loop: asyncio.AbstractEventLoop
) -> None:
    """Threads and tasks at the same time, some of them cancelled: each sees its own count go down by one at a time."""
    quota = Quota(amount=1000, window=3600)
    failures: list[Any] = []
    store = opened(open_limits(server.url, deadline=5.0), fly)
    asyncio.run_coroutine_threadsafe(ready_on_its_loop(store), loop).result(10)

    def by_thread(own: str) -> None:
        for turn in range(1, 11):
            answer = store.flight([Acquire([quota], [own], [1])])[0][:2]
            if [1, 1000 - turn] != answer:
                failures.append((own, turn, answer))

    async def by_task(own: str) -> None:
        for turn in range(1, 11):
            doomed = asyncio.ensure_future(store.aflight([Acquire([quota], [f"{own}-doomed"], [1])]))
            await asyncio.sleep(0)
            doomed.cancel()
            answer = (await store.aflight([Acquire([quota], [own], [1])]))[0][:2]
            if [1, 1000 - turn] != answer:
                failures.append((own, turn, answer))

    async def tasks() -> None:
        await asyncio.gather(*[by_task(f"task{number}") for number in range(5)])

    threads = [threading.Thread(target=by_thread, args=(f"thread{number}",)) for number in range(4)]
    for thread in threads:
        thread.start()
    asyncio.run_coroutine_threadsafe(tasks(), loop).result(30)
    for thread in threads:
        thread.join()

    assert [] == failures[:3]


async def ready_on_its_loop(store: LimitsStore) -> None:
    """Wait until the store is open on this loop."""
    store.start()
    while store._loops[asyncio.get_running_loop()].strategies is None:  # noqa: ASYNC110 - nothing else tells
        await asyncio.sleep(0.005)


def test_nobody_is_there(
    server: Server,
    open_limits: Callable[..., LimitsStore],
    fly: Fly,
    events: list[Event],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Without a server flights are refused at once, as soon as that is known; when it comes up they go on."""
    for module in (backends, sides):
        monkeypatch.setattr(module, "OPEN_BUDGET", 0.6)
    server.kill()
    store = open_limits(server.url, name="limits")

    assert attempt(fly, store, "k")[1] < DEADLINE + 0.5
    poll(lambda: refused_at_once(fly, store))
    poll(lambda: state_of(store) is not State.CLOSED)
    assert [StoreDegraded] == [type(event) for event in events]
    server.start()
    poll(lambda: attempt(fly, store, "k")[0] == "ok")
    poll(lambda: recovered(events))


def recovered(events: Sequence[Event]) -> bool:
    """Whether every outage that was announced is over, and so announced."""
    kinds = [type(event) for event in events]
    return bool(kinds) and kinds == [StoreDegraded, StoreRecovered] * (len(kinds) // 2)


def state_of(store: LimitsStore) -> State:
    """The breaker's; as a function, since it changes where type checkers do not see it."""
    return store.breaker.state


def refused_at_once(fly: Fly, store: LimitsStore) -> bool:
    """Whether ten flights in a row are, without any I/O."""
    attempts = [attempt(fly, store, "k") for _ in range(10)]
    return all(verdict in ("open", "no_connection") and took < AT_ONCE for verdict, took in attempts)


def test_a_server_that_hangs(hasty: LimitsStore, server: Server, fly: Fly, events: list[Event]) -> None:
    """Whoever is under way is told by the deadline, the rest at once; afterwards nobody meets an old reply."""
    server.pause()

    verdict, took = attempt(fly, hasty, "mine")

    assert verdict in ("timeout", "local_lag")
    assert DEADLINE * 0.9 < took < DEADLINE + 1.0
    poll(lambda: refused_at_once(fly, hasty), within=30)
    poll(lambda: events)  # what nobody has come to announce yet would go unnoticed
    server.resume()
    poll(lambda: attempt(fly, hasty, "yours")[0] == "ok")
    poll(lambda: recovered(events))
    assert [[1, 3 - turn] for turn in range(1, 4)] == [decide(fly, hasty, [MINUTE], ["new"])[0] for _ in range(3)]


def test_a_reply_that_comes_late(hasty: LimitsStore, server: Server, fly: Fly) -> None:
    """What a caller did not wait for is not the next caller's, even before the breaker opens."""
    decide(fly, hasty, [HOUR], ["mine"], 4)
    server.pause()
    assert attempt(fly, hasty, "mine")[0] in ("timeout", "local_lag")
    server.resume()

    rows = []
    poll(lambda: attempt(fly, hasty, "x")[0] == "ok")
    rows = [decide(fly, hasty, [MINUTE], ["yours"])[0] for _ in range(3)]

    assert [[1, 2], [1, 1], [1, 0]] == rows


def test_a_server_that_dies(store: LimitsStore, server: Server, fly: Fly, events: list[Event]) -> None:
    """After a crash flights are refused, soon at once; after the restart they go on by themselves."""
    server.kill()

    poll(lambda: refused_at_once(fly, store))
    poll(lambda: events)  # what nobody has come to announce yet would go unnoticed
    server.start()
    poll(lambda: attempt(fly, store, "k")[0] == "ok")
    poll(lambda: state_of(store) is State.CLOSED)
    poll(lambda: recovered(events))


def test_a_loop_is_not_blocked(
    open_limits: Callable[..., LimitsStore], server: Server, fly: Fly, loop: asyncio.AbstractEventLoop
) -> None:
    """While a flight waits for a server that hangs, other tasks go on."""
    store = opened(open_limits(server.url, deadline=5.0), fly)

    async def main() -> bool:
        flight = asyncio.ensure_future(store.aflight([Acquire([MINUTE], ["k"], [1])]))
        for _ in range(20):
            await asyncio.sleep(0.001)
        ended = flight.done()
        server.resume()
        await flight
        return ended

    server.pause()
    assert asyncio.run_coroutine_threadsafe(main(), loop).result(20) is False


def test_closed(store: LimitsStore, server: Server, fly: Fly, loop: asyncio.AbstractEventLoop) -> None:
    """After `close` flights say so, and soon no connection is left."""
    asyncio.run_coroutine_threadsafe(store.aclose(), loop).result(10)

    assert "closed" == attempt(fly, store, "k")[0]
    with pytest.raises(StoreUnavailable, match=r"closed: the store 'default' was closed"):
        fly(store, [Acquire([MINUTE], ["k"], [1])])
    poll(lambda: server.connections() == 0)


@pytest.mark.skipif(not hasattr(os, "fork"), reason="there is no fork here")
@pytest.mark.filterwarnings("ignore:This process .* is multi-threaded:DeprecationWarning")
def test_forked(server: Server, open_limits: Callable[..., LimitsStore]) -> None:
    """A child opens a storage of its own; the parent's connections stay the parent's."""
    store = opened(open_limits(server.url, deadline=5.0), lambda store, operations: store.flight(operations))
    received, sent = os.pipe()

    child = os.fork()
    if not child:
        try:
            rows = [store.flight([Acquire([HOUR], ["k"], [1])])[0][1] for _ in range(2)]
            os.write(sent, repr(rows).encode())
        finally:
            os._exit(0)
    os.close(sent)
    said = os.read(received, 1000)
    os.close(received)
    os.waitpid(child, 0)

    assert b"[4, 3]" == said
    assert [2, 1] == [store.flight([Acquire([HOUR], ["k"], [1])])[0][1] for _ in range(2)]


def test_start(server: Server, open_limits: Callable[..., LimitsStore], loop: asyncio.AbstractEventLoop) -> None:
    """`start` opens a storage before the first flight: for threads, or for the loop that is running."""
    store = open_limits(server.url)
    store.start()
    poll(lambda: store._threads.strategies is not None)

    async def main() -> None:
        await ready_on_its_loop(open_limits(server.url))

    asyncio.run_coroutine_threadsafe(main(), loop).result(10)


def test_open_store(server: Server) -> None:
    """The settings' URL leads here, and what they say besides counts."""
    store = open_store(Settings.from_mapping({"store": server.url, "deadline": 0.3}))

    assert isinstance(store, LimitsStore)
    assert (0.3, 64, server.url) == (store.deadline, store.max_connections, store.url)
    assert repr(store.url) in repr(store)
    store.close()


@pytest.mark.parametrize(
    ("url", "package", "extra"),
    [("memcached://h", "memcachio", "memcached"), ("mongodb://h", "motor.motor_asyncio", "mongodb")],
)
def test_missing_packages(url: str, package: str, extra: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """What is not installed is said at start, with the line that installs it."""
    monkeypatch.setitem(sys.modules, package, None)

    with pytest.raises(ConfigurationError, match=rf"needs {package}, .* pip install 'failsoft\[{extra}\]'"):
        LimitsStore(url)
