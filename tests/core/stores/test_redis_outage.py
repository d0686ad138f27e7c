"""Servers that are away, hang, die and come back; and processes that are too busy to notice."""

import asyncio
import itertools
import socket
import statistics
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest

from failsoft.clock import SYSTEM
from failsoft.errors import StoreUnavailable
from failsoft.events import Event, StoreDegraded, StoreRecovered
from failsoft.guard import Breaker, Outcome, State
from failsoft.stores.redis import RedisStore, wire
from tests.core.stores.conftest import Ahead, Fly
from tests.core.stores.lua import ECHO, INCR, Lua
from tests.servers import Impostor, Lag, Valkey, free_port, poll

pytestmark = pytest.mark.processes

Opener = Callable[..., RedisStore]
Warm = Callable[[RedisStore], None]

FLIGHT = [Lua(ECHO, arguments=("x",))]

AT_ONCE = 0.05
"""Seconds that a refusal takes at most, even while the machine is busy; a tenth of a millisecond is usual."""


def attempt(fly: Fly, store: RedisStore) -> tuple[str, float]:
    """What comes of a flight, ``"ok"`` or the reason, and how long that took."""
    start = time.monotonic()
    try:
        fly(store, FLIGHT)
        verdict = "ok"
    except StoreUnavailable as error:
        verdict = error.reason
    return verdict, time.monotonic() - start


def flown(store: RedisStore) -> bool:
    """Whether a flight from this thread succeeds."""
    return attempt(lambda store, flight: store.flight(flight), store)[0] == "ok"


async def flown_by_a_task(store: RedisStore) -> None:
    """Fly until a flight succeeds: on a busy machine the first connection may take longer than the deadline."""
    async with asyncio.timeout(10):
        while True:
            try:
                assert [b"x"] == await store.aflight(FLIGHT)
            except StoreUnavailable:
                await asyncio.sleep(0.01)
            else:
                return


def degraded(fly: Fly, store: RedisStore) -> bool:
    """Whether 20 flights in a row are refused, at once (the machine may be busy now and then)."""
    attempts = [attempt(fly, store) for _ in range(20)]
    at_once = statistics.median(took for _, took in attempts) < AT_ONCE
    return at_once and all(verdict in ("open", "no_connection") for verdict, _ in attempts)


def came_and_went(events: Sequence[Event]) -> bool:
    """Whether an outage was told and is over: one, but for a machine that is too busy for the deadline."""
    told = [type(event) for event in events]
    return [StoreDegraded, StoreRecovered] * (len(told) // 2) == told != []


def recovery(fly: Fly, store: RedisStore) -> float:
    """Seconds until the store answers."""
    start = time.monotonic()
    poll(lambda: attempt(fly, store)[0] == "ok", every=0.01)
    return time.monotonic() - start


@pytest.fixture
def events() -> list[Event]:
    """What a store published."""
    return []


def test_nobody_listens(open_store: Opener, fly: Fly, events: list[Event]) -> None:
    """Without a server the first flight hears so when it is known, the next ones at once, and the breaker opens."""
    store = open_store(f"redis://127.0.0.1:{free_port()}", name="limits", publish=events.append, deadline=5.0)

    verdict, took = attempt(fly, store)

    assert "refused" == verdict
    assert took < 4.0
    poll(lambda: degraded(fly, store))
    poll(lambda: store.breaker.state is not State.CLOSED)
    poll(lambda: degraded(fly, store))
    assert [StoreDegraded("limits", "refused")] == events


def test_no_such_socket(open_store: Opener, fly: Fly) -> None:
    """A unix socket that is not there is a refusal too."""
    store = open_store("unix:///nowhere/at/all.sock")

    assert attempt(fly, store)[0] in ("refused", "no_connection")
    with pytest.raises(StoreUnavailable, match=r"last failure .* refused, ConnectionError: .*/nowhere/at/all.sock"):
        fly(store, FLIGHT)


def test_the_server_comes_up_later(open_store: Opener, fly: Fly, warm: Warm, events: list[Event]) -> None:
    """A process that is up before its store needs nobody to do anything about it."""
    server = Valkey()
    store = open_store(server.url, publish=events.append)
    try:
        poll(lambda: degraded(fly, store))
        server.start()

        assert recovery(fly, store) < 5.0
        poll(lambda: len(events) == 2)
    finally:
        server.close()
    assert isinstance(events[1], StoreRecovered)
    assert events[1].after > 0


@pytest.mark.parametrize("transport", ["url", "unix_url"])
def test_a_server_that_hangs(
    mortal: Valkey, open_store: Opener, fly: Fly, warm: Warm, events: list[Event], transport: str
) -> None:
    """Whoever is under way times out, the rest is refused at once, and when the server goes on so does the store."""
    store = open_store(getattr(mortal, transport), publish=events.append)
    warm(store)
    mortal.pause()

    with Lag() as lag:
        verdict, took = attempt(fly, store)

    assert verdict in ("timeout", "local_lag")
    assert 0.09 < took < 2.0 + lag.worst
    poll(lambda: degraded(fly, store))
    poll(lambda: events)  # on a machine that stands still at times, only the connect that follows may say so
    mortal.resume()
    assert recovery(fly, store) < 5.0
    poll(lambda: store.breaker.state is State.CLOSED)
    poll(lambda: came_and_went(events))


def test_a_server_whose_writes_are_paused(mortal: Valkey, open_store: Opener, fly: Fly, warm: Warm) -> None:
    """Before a failover a server answers PING, and no script: nobody waits for that but who was under way."""
    store = open_store(mortal.url)
    warm(store)
    mortal.run("CLIENT", "PAUSE", "60000", "WRITE")
    poll(lambda: degraded(fly, store))

    over = time.monotonic() + 1.5
    verdicts: set[str] = set()
    while time.monotonic() < over:
        verdicts.add(attempt(fly, store)[0])
        time.sleep(0.02)

    assert verdicts <= {"open", "no_connection"}
    mortal.run("CLIENT", "UNPAUSE")
    assert recovery(fly, store) < 5.0


def test_a_server_that_hangs_for_long(
    mortal: Valkey, open_store: Opener, fly: Fly, warm: Warm, monkeypatch: pytest.MonkeyPatch
) -> None:
    """While a hung server accepts connections the breaker still opens, and recovery is as quick as after a short one."""
    monkeypatch.setattr(wire, "CONNECT_BUDGET", 0.3)
    store = open_store(mortal.unix_url)
    warm(store)
    mortal.pause()
    poll(lambda: attempt(fly, store)[0] != "ok")

    poll(lambda: store.breaker.state is not State.CLOSED, within=30)

    assert degraded(fly, store)
    mortal.resume()
    assert recovery(fly, store) < 5.0


def test_a_server_that_dies(mortal: Valkey, open_store: Opener, fly: Fly, warm: Warm, events: list[Event]) -> None:
    """After a crash flights are refused at once; after the restart the store is back by itself."""
    store = open_store(mortal.url, publish=events.append)
    warm(store)
    mortal.kill()

    poll(lambda: degraded(fly, store))
    poll(lambda: store.breaker.state is not State.CLOSED)
    mortal.start()

    assert recovery(fly, store) < 5.0
    poll(lambda: store.breaker.state is State.CLOSED)
    poll(lambda: came_and_went(events))


def test_a_restart_that_nobody_met(mortal: Valkey, open_store: Opener, fly: Fly, warm: Warm) -> None:
    """Connections that died while they rested cost no degraded request: the flight waits for the new one."""
    store = open_store(mortal.url, deadline=5.0)

    verdicts = []
    for _ in range(4):
        warm(store)
        time.sleep(0.01)  # rest for more than a moment
        mortal.restart()
        verdicts.append(attempt(fly, store)[0])

    # On a busy machine the connector may come late to its last turn, and then look just while nobody listens.
    assert verdicts.count("ok") >= 3, verdicts


def test_many_hang_at_once(mortal: Valkey, open_store: Opener, monkeypatch: pytest.MonkeyPatch) -> None:
    """All that are under way when a server hangs time out together, not one after the other, and open the breaker."""
    monkeypatch.setattr(wire, "CONNECT_BUDGET", 0.3)
    store = open_store(mortal.unix_url)
    poll(lambda: flown(store))
    stop = threading.Event()
    slowest: list[float] = []
    verdicts: list[set[str]] = []

    def work() -> None:
        mine, slow = set(), 0.0
        while not stop.is_set():
            verdict, took = attempt(lambda store, flight: store.flight(flight), store)
            mine.add(verdict)
            slow = max(slow, took)
            time.sleep(0.001)
        slowest.append(slow)
        verdicts.append(mine)

    threads = [threading.Thread(target=work) for _ in range(8)]
    for thread in threads:
        thread.start()
    time.sleep(0.1)
    mortal.pause()
    poll(lambda: store.breaker.state is not State.CLOSED, within=30)
    stop.set()
    for thread in threads:
        thread.join()

    assert max(slowest) < 3.0
    assert all(mine & {"open", "no_connection"} for mine in verdicts)


def test_half_of_the_flights_fail(open_store: Opener, fly: Fly, warm: Warm) -> None:
    """A server that still connects but breaks every other flight is given up after 10 flights in 5 seconds."""
    turn = iter(range(10**9))

    def answer(connection: socket.socket, data: bytes) -> None:
        if next(turn) % 2:
            connection.shutdown(socket.SHUT_RDWR)
        else:
            connection.sendall(b"$1\r\nx\r\n")

    with Impostor(answer) as server:
        store = open_store(server.url, deadline=1.0)

        verdicts = []
        while store.breaker.state is State.CLOSED and len(verdicts) < 200:
            verdicts.append(attempt(fly, store)[0])

        assert len(verdicts) < 200
        assert {"ok", "broken"} <= set(verdicts)
        assert len(verdicts) >= 10
        # The connects of the probes succeed, so it is tried again.
        poll(lambda: store.breaker.state is State.CLOSED)


def test_open_means_no_traffic(mortal: Valkey, open_store: Opener, fly: Fly, warm: Warm) -> None:
    """While the breaker is held open, no flight reaches the server, however many there are."""
    store = open_store(mortal.unix_url)
    warm(store)
    store.breaker.force_open()
    before = mortal.stats()["total_commands_processed"]
    between = mortal.stats()["total_commands_processed"]

    for _ in range(200):
        assert "open" == attempt(fly, store)[0]

    after = mortal.stats()["total_commands_processed"]
    assert between - before == after - between
    store.breaker.reset()
    warm(store)


def test_open_means_no_connections(mortal: Valkey, open_store: Opener, fly: Fly, warm: Warm) -> None:
    """When the breaker opens, connections that rest are given up: they belong to a server that is not trusted."""
    before = mortal.connections()
    store = open_store(mortal.unix_url)
    warm(store)
    assert mortal.connections() > before

    store.breaker.force_open()
    store._connector.nudge()

    poll(lambda: mortal.connections() == before)
    store.breaker.reset()
    warm(store)


def test_attempts_keep_their_pace(open_store: Opener, fly: Fly, monkeypatch: pytest.MonkeyPatch) -> None:
    """Before the breaker opens and after, a server that refuses is asked at most four times a second."""
    store = open_store("redis://127.0.0.1:1", random=lambda: 0.0)  # waits as briefly as it ever does
    at: list[float] = []

    def refuse() -> Any:
        at.append(time.monotonic())
        raise ConnectionRefusedError

    monkeypatch.setattr(store._connector, "_make", refuse)
    attempt(fly, store)
    poll(lambda: len(at) >= 7)

    assert State.CLOSED is not store.breaker.state
    assert 0.24 < min(later - sooner for sooner, later in itertools.pairwise(at))


def test_opened_at_the_last_moment(valkey: Valkey, open_store: Opener, fly: Fly, warm: Warm) -> None:
    """A flight that meets a breaker which has just opened is refused, and its connection is for the next one."""
    store = open_store(valkey.unix_url)
    warm(store)
    before = valkey.stats()["total_connections_received"]

    class Late:
        closed = True

        def acquire(self, now: float) -> None:
            return None

    breaker, store._shared.breaker = store._shared.breaker, Late()  # type: ignore[assignment]  # as much as a flight uses
    refused = attempt(fly, store)[0]
    store._shared.breaker = breaker

    assert "no_connection" == refused
    warm(store)
    assert 1 == valkey.stats()["total_connections_received"] - before


def test_errors_are_no_failures(valkey: Valkey, open_store: Opener, fly: Fly, warm: Warm) -> None:
    """A server that answers with errors answers: a hundred of them leave the breaker closed."""
    store = open_store(valkey.unix_url)
    warm(store)
    valkey.run("LPUSH", "list", "1")

    for _ in range(100):
        fly(store, [Lua(INCR, "list")])

    assert State.CLOSED is store.breaker.state


@pytest.fixture
def black_hole(monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[[], None]]:
    """Name resolution that never answers, until the test is over."""
    over = threading.Event()

    def hang(*arguments: Any, **named: Any) -> Any:
        if threading.current_thread() is threading.main_thread():
            raise AssertionError("a request resolves a name")
        over.wait(30)
        raise OSError("the test is over")

    yield lambda: monkeypatch.setattr(socket, "getaddrinfo", hang)
    over.set()


def test_names_that_do_not_resolve(
    mortal: Valkey, open_store: Opener, fly: Fly, warm: Warm, black_hole: Callable[[], None]
) -> None:
    """A resolver that hangs holds nobody but the connector: flights that need a new connection are refused."""
    lost = open_store("redis://cache.example.invalid")
    warmed = open_store(mortal.url)
    warm(warmed)
    black_hole()

    first, took = attempt(fly, lost)
    assert "no_connection" == first
    assert took < 2.0
    assert degraded(fly, lost)
    with pytest.raises(StoreUnavailable, match=r"'default': none; it has been connecting for \d+\.\d s"):
        fly(lost, FLIGHT)
    assert "ok" == attempt(fly, warmed)[0]
    mortal.restart()
    poll(lambda: degraded(fly, warmed))


def test_a_loop_goes_on_while_names_do_not_resolve(open_store: Opener, black_hole: Callable[[], None]) -> None:
    """The event loop does not stall while the store resolves, connects and probes."""
    store = open_store("redis://cache.example.invalid")
    black_hole()
    gaps: list[float] = []

    async def main() -> None:
        async def tick() -> None:
            last = time.monotonic()
            while True:
                await asyncio.sleep(0)
                now = time.monotonic()
                gaps.append(now - last)
                last = now

        ticking = asyncio.create_task(tick())
        for _ in range(20):
            with pytest.raises(StoreUnavailable):
                await store.aflight(FLIGHT)
            await asyncio.sleep(0.01)
        ticking.cancel()
        await store.aclose()

    asyncio.run(main())
    # Some gaps may be the machine's; a store that blocks would make one for each flight.
    assert len([gap for gap in gaps if gap > 0.05]) < 10


def test_listeners_that_fail(open_store: Opener, fly: Fly, caplog: pytest.LogCaptureFixture) -> None:
    """What a listener raises is logged, and the connector goes on."""

    def listen(event: Event) -> None:
        raise ValueError("no thanks")

    server = Valkey()
    store = open_store(server.url, publish=listen)
    try:
        poll(lambda: degraded(fly, store))
        poll(lambda: "no thanks" in caplog.text)
        server.start()
        assert recovery(fly, store) < 5.0
    finally:
        server.close()


def test_a_breaker_of_ones_own(open_store: Opener, fly: Fly) -> None:
    """The breaker may be chosen, and is the one that counts."""
    breaker = Breaker(clock=SYSTEM, consecutive=1)
    store = open_store(f"redis://127.0.0.1:{free_port()}", breaker=breaker)

    attempt(fly, store)

    poll(lambda: breaker.state is not State.CLOSED)
    assert breaker is store.breaker


def test_the_connector_survives_its_own_mistakes(
    valkey: Valkey, open_store: Opener, fly: Fly, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A bug in a turn of the connector is logged, and the next turn comes."""
    store = open_store(valkey.unix_url)
    broken = threading.Event()
    tend = store._pool.tend

    def fail(now: float, *, distrust: bool) -> float:
        if not broken.is_set():
            broken.set()
            raise ValueError("a bug")
        return tend(now, distrust=distrust)

    monkeypatch.setattr(store._pool, "tend", fail)

    assert recovery(fly, store) < 5.0
    assert "a bug" in caplog.text


# Lag of our own.


def test_a_busy_process_blames_nobody(mortal: Valkey, open_store: Opener, fly: Fly, warm: Warm) -> None:
    """With two threads that never rest, a healthy server loses (nearly) no flight, and the breaker stays closed."""
    store = open_store(mortal.unix_url)
    warm(store)
    stop = threading.Event()

    def spin() -> None:
        while not stop.is_set():
            pass

    spinners = [threading.Thread(target=spin) for _ in range(2)]
    for spinner in spinners:
        spinner.start()
    try:
        verdicts = [attempt(fly, store)[0] for _ in range(24)]
    finally:
        stop.set()
        for spinner in spinners:
            spinner.join()

    assert State.CLOSED is store.breaker.state
    assert verdicts.count("ok") >= 20, verdicts


def test_a_blocked_loop_blames_nobody(mortal: Valkey, open_store: Opener) -> None:
    """A loop that somebody blocks for longer than the deadline, before or after the write, still gets its answers."""
    store = open_store(mortal.unix_url)

    async def main() -> int:
        await flown_by_a_task(store)
        answered = 0
        for turn in range(12):
            flight = asyncio.create_task(store.aflight(FLIGHT))
            for _ in range(turn % 4):
                await asyncio.sleep(0)
            time.sleep(0.15)  # noqa: ASYNC251  # that is the test
            [outcome] = await asyncio.gather(flight, return_exceptions=True)
            answered += outcome == [b"x"]
            assert outcome == [b"x"] or outcome.reason == "local_lag"
        await store.aclose()
        return answered

    # The machine may be busy now and then; without patience, no flight would be answered that was blocked before its write.
    assert asyncio.run(main()) >= 10
    assert State.CLOSED is store.breaker.state


def test_lag_is_told_from_slowness(mortal: Valkey, open_store: Opener) -> None:
    """A deadline that a blocked loop noticed late, with no reply even then, is local lag and counts for nothing."""
    store = open_store(mortal.unix_url)

    async def main() -> Sequence[Any]:
        await flown_by_a_task(store)
        mortal.pause()
        flights = [asyncio.create_task(store.aflight(FLIGHT)) for _ in range(50)]
        await asyncio.sleep(0)
        await asyncio.sleep(0)
        time.sleep(0.3)  # noqa: ASYNC251  # that is the test
        outcome = await asyncio.gather(*flights, return_exceptions=True)
        assert State.CLOSED is store.breaker.state
        await store.aclose()
        return outcome

    assert ["local_lag"] * 50 == [error.reason for error in asyncio.run(main())]


def test_lag_of_a_thread(mortal: Valkey, open_store: Opener, monkeypatch: pytest.MonkeyPatch) -> None:
    """The same for a thread: noticed more than 20 ms late, the timeout says nothing about the store."""
    store = open_store(mortal.unix_url, max_connections=1)
    poll(lambda: flown(store))
    [connection] = store._pool._idle
    receive = connection.wire._receive

    def late(*arguments: Any) -> Any:
        time.sleep(0.1)
        return receive(*arguments)

    class Late(type(connection.wire)):  # type: ignore[misc]  # a class made of a class
        __slots__ = ()
        _receive = staticmethod(late)

    mortal.pause()
    connection.wire.__class__ = Late

    verdicts = [attempt(lambda store, flight: store.flight(flight), store)[0]]

    assert ["local_lag"] == verdicts
    assert State.CLOSED is store.breaker.state


def test_a_probe_of_somebody_else(valkey: Valkey, open_store: Opener) -> None:
    """That a store is back is told although it was not the connector's own probe that found out, and not when its lease ends."""
    events: list[Event] = []
    breaker = Breaker(clock=SYSTEM, consecutive=1, successes_to_close=1, probe_after=(0.0, 0.0), probe_lease=60.0)
    store = open_store(valkey.unix_url, breaker=breaker, publish=events.append)
    call = breaker.acquire()
    assert call is not None
    breaker.settle(call, Outcome.REFUSED)
    probe = breaker.acquire()
    assert probe is not None
    assert probe.probe
    store._connector.nudge()
    poll(lambda: events)

    breaker.settle(probe, Outcome.SUCCESS)

    poll(lambda: len(events) == 2)
    assert [StoreDegraded, StoreRecovered] == [type(event) for event in events]


def test_the_breaker_hears_the_time_after_a_wait(
    valkey: Valkey, open_store: Opener, fly: Fly, clock: Ahead, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Who waited for a connection asks the breaker with the time after that: an earlier one would look like a clock set back."""
    store = open_store(valkey.unix_url, clock=clock, deadline=5.0)
    make = store._connector._make
    asked, go = threading.Event(), threading.Event()
    times: list[float] = []
    acquire = Breaker.acquire

    def slow() -> Any:
        asked.set()
        assert go.wait(10)
        return make()

    def heard(breaker: Breaker, now: float) -> Any:
        if not threading.current_thread().name.startswith("failsoft-"):
            times.append(now)
        return acquire(breaker, now)

    monkeypatch.setattr(store._connector, "_make", slow)
    monkeypatch.setattr(Breaker, "acquire", heard)
    with ThreadPoolExecutor(1) as executor:
        flight = executor.submit(fly, store, FLIGHT)
        assert asked.wait(10)
        poll(lambda: store._pool._tickets or any(link._waiters for link in store._links.links()))
        clock.ahead += 1.0
        then = clock.monotonic()
        go.set()
        assert [b"x"] == flight.result(10)

    assert 1 == len(times)
    assert times[0] >= then
