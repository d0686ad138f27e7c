"""Event loops: pipelining, loops that come and go, what one loop can bear."""

import asyncio
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
from failsoft.events import Event, StoreDegraded, StoreRecovered
from failsoft.exchange.operations import Script
from failsoft.stores.redis import RedisStore, aio, connector
from failsoft.stores.redis.channel import Flight
from failsoft.stores.redis.commands import by_sha
from failsoft.stores.redis.wire import Wire
from tests.core.stores.conftest import Ahead, under_way
from tests.core.stores.lua import ECHO, INCR, NAP, Lua
from tests.servers import Impostor, Reads, Valkey, poll

Opener = Callable[..., RedisStore]

FLIGHT = [Lua(ECHO, arguments=("x",))]


async def until(condition: Callable[[], Any]) -> Any:
    """`poll` for a coroutine."""
    async with asyncio.timeout(10):
        while not condition():  # noqa: ASYNC110  # nobody is there who could set an event
            await asyncio.sleep(0.005)
    return condition()


@pytest.mark.parametrize("callers", [2, 3, 15])
def test_one_write_for_all_of_a_turn(mortal: Valkey, open_store: Opener, callers: int) -> None:
    """The callers of one turn are one write, from the second such turn on, and each gets its own answer."""
    store = open_store(mortal.unix_url, deadline=2.0)

    async def burst() -> list[Any]:
        return await asyncio.gather(*(store.aflight([Lua(ECHO, arguments=(i,))]) for i in range(callers)))

    async def main() -> tuple[int, list[Any]]:
        await store.aflight(FLIGHT)
        await burst()
        with Reads(mortal) as reads:
            answers = await burst()
            count = reads()
        await store.aclose()
        return count, answers

    assert (1, [[b"%d" % i] for i in range(callers)]) == asyncio.run(main())


def test_a_crowd_does_not_wait_for_the_end_of_its_turn(mortal: Valkey, open_store: Opener) -> None:
    """The server has work while the loop is still busy with other callers; each gets its own answer."""
    store = open_store(mortal.unix_url, deadline=5.0)
    count = [Lua(INCR, "n")]
    answers: list[Any] = []
    seen: list[bool] = []

    async def call(number: int) -> None:
        answers.append((number, await store.aflight([Lua(INCR, "n"), Lua(ECHO, arguments=(number,))])))

    async def main() -> None:
        await store.aflight(count)
        await asyncio.gather(*(store.aflight(count) for _ in range(10)))
        before = int(mortal.run("GET", "n"))
        tasks = [asyncio.create_task(call(number)) for number in range(40)]
        # Behind all of them in the same turn, before the rest is sent.
        asyncio.get_running_loop().call_soon(
            lambda: seen.append(poll(lambda: before + 32 == int(mortal.run("GET", "n")), within=4))
        )
        await asyncio.wait(tasks)
        assert [True] == seen
        assert before + 40 == int(mortal.run("GET", "n"))
        assert [(i, [before + i + 1, b"%d" % i]) for i in range(40)] == sorted(answers)
        await store.aclose()

    asyncio.run(main())


def test_a_flight_alone_waits_for_no_turn(mortal: Valkey, open_store: Opener) -> None:
    """Where callers come one by one, and again some time after many at once, a flight is sent before the loop turns."""
    store = open_store(mortal.unix_url, deadline=5.0)
    count = [Lua(INCR, "n")]

    async def main() -> None:
        await store.aflight(count)
        for _ in range(2):
            expected = int(mortal.run("GET", "n")) + 1
            flight = store.aflight(count)
            flight.send(None)  # as far as it goes by itself; the loop stands still meanwhile
            assert poll(lambda expected=expected: expected == int(mortal.run("GET", "n")))
            flight.close()
            await asyncio.gather(*(store.aflight(FLIGHT) for _ in range(10)))
            await store.aflight(FLIGHT)
        await store.aclose()

    asyncio.run(main())


def test_one_connection_for_all_tasks(mortal: Valkey, open_store: Opener) -> None:
    """However many tasks there are, a loop has one connection, and threads have none."""
    store = open_store(mortal.url, deadline=5.0)

    async def main() -> int:
        async def work(name: int) -> None:
            for turn in range(20):
                expected = f"{name} {turn}".encode()
                assert [expected, b"x"] == await store.aflight([Lua(ECHO, arguments=(expected,)), *FLIGHT])

        await asyncio.gather(*(work(name) for name in range(50)))
        open_now = mortal.connections()
        await store.aclose()
        return open_now

    assert 1 == asyncio.run(main())


def test_scripts_that_are_unknown_to_many(mortal: Valkey, open_store: Opener) -> None:
    """Callers that meet a server without their script at once are all served, each once."""
    store = open_store(mortal.unix_url, deadline=2.0)
    count = Script("count", "return redis.call('INCR', KEYS[1])")

    async def main() -> list[Any]:
        await store.aflight(FLIGHT)
        answers = await asyncio.gather(*(store.aflight([Lua(count, "n"), *FLIGHT]) for _ in range(50)))
        await store.aclose()
        return answers

    answers = asyncio.run(main())
    assert set(range(1, 51)) == {answer[0] for answer in answers}
    assert {b"x"} == {answer[1] for answer in answers}


def test_large_flights(mortal: Valkey, open_store: Opener) -> None:
    """What the kernel does not take at once is sent when it does, in order, with more queued behind it."""
    store = open_store(mortal.url, deadline=5.0)
    big = "b" * 3_000_000

    async def main() -> list[Any]:
        await store.aflight(FLIGHT)
        first = [asyncio.create_task(store.aflight([Lua(ECHO, arguments=(big,))])) for _ in range(3)]
        await asyncio.sleep(0)
        await asyncio.sleep(0)
        second = [asyncio.create_task(store.aflight([Lua(ECHO, arguments=(i,))])) for i in range(10)]
        answers = await asyncio.gather(*first, *second)
        await store.aclose()
        return answers

    assert [[big.encode()]] * 3 + [[b"%d" % i] for i in range(10)] == asyncio.run(main())


def test_a_server_that_stops_reading(mortal: Valkey, open_store: Opener) -> None:
    """A flight that cannot even be sent ends at its deadline like any other."""
    store = open_store(mortal.url)

    async def main() -> list[Any]:
        await store.aflight(FLIGHT)
        mortal.pause()
        flights = [store.aflight([Lua(ECHO, arguments=("b" * 5_000_000,))]) for _ in range(3)]
        start = time.monotonic()
        outcome = await asyncio.gather(*flights, return_exceptions=True)
        assert time.monotonic() - start < 3.0
        mortal.resume()
        await store.aclose()
        return outcome

    assert [StoreUnavailable] * 3 == [type(outcome) for outcome in asyncio.run(main())]


def test_no_more_than_can_be_answered(mortal: Valkey, open_store: Opener, monkeypatch: pytest.MonkeyPatch) -> None:
    """Flights beyond the bound are refused at once, before the connection and on it."""
    monkeypatch.setattr(aio, "BOUND", 10)
    store = open_store(mortal.unix_url, deadline=2.0)

    async def main() -> None:
        for _ in range(2):  # the first time, they wait for the connection
            outcome = await asyncio.gather(*(store.aflight(FLIGHT) for _ in range(15)), return_exceptions=True)
            assert [[b"x"]] * 10 == outcome[:10]
            assert ["local_lag"] * 5 == [error.reason for error in outcome[10:] if isinstance(error, StoreUnavailable)]
        assert store.breaker.closed
        await store.aclose()

    asyncio.run(main())


def test_one_loop_after_another(mortal: Valkey) -> None:
    """Each loop has its own connection; a loop that is over leaves nothing behind, and no complaint."""
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        store = RedisStore(mortal.unix_url, deadline=5.0)

        async def main() -> None:
            assert [b"x"] == await store.aflight(FLIGHT)

        for _ in range(5):
            asyncio.run(main())
            gc.collect()
        assert mortal.connections() <= 1
        store.close()
    poll(lambda: mortal.connections() == 0)


@pytest.mark.parametrize("under_way", [False, True])
def test_a_loop_that_is_just_closed(mortal: Valkey, caplog: pytest.LogCaptureFixture, under_way: bool) -> None:
    """A loop that nobody tidied up is forgotten without a warning, and is not kept alive, even with flights under way."""
    gc.collect()  # what other tests have left says so now
    caplog.clear()
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        store = RedisStore(mortal.unix_url, deadline=5.0)

        async def main() -> None:
            await store.aflight(FLIGHT)
            if under_way:
                task = asyncio.ensure_future(store.aflight([Lua(NAP, arguments=(50, ""))]))
                await asyncio.sleep(0.01)
                task.cancel()
                await asyncio.sleep(0)

        loop = asyncio.new_event_loop()
        loop.run_until_complete(main())
        loop.close()
        alive = weakref.ref(loop)
        del loop

        poll(lambda: gc.collect() is not None and alive() is None)  # the connector may have been about to let go of it
        poll(lambda: mortal.connections() == 0)
        asyncio.run(main())
        store.close()
    assert "" == caplog.text


def test_a_loop_that_is_kept(mortal: Valkey, open_store: Opener) -> None:
    """A closed loop that somebody keeps loses its connection when the store comes round."""
    store = open_store(mortal.unix_url, deadline=5.0)
    loop = asyncio.new_event_loop()
    loop.run_until_complete(store.aflight(FLIGHT))
    loop.close()

    store._connector.nudge()

    poll(lambda: mortal.connections() == 0)


def test_a_loop_that_rests(mortal: Valkey, open_store: Opener) -> None:
    """A loop that runs now and then finds its connection again, or another one if that died meanwhile."""
    store = open_store(mortal.url, deadline=5.0)
    loop = asyncio.new_event_loop()
    try:
        for _ in range(3):
            assert [b"x"] == loop.run_until_complete(store.aflight(FLIGHT))
            assert [b"x"] == loop.run_until_complete(store.aflight(FLIGHT))
            mortal.restart()
            time.sleep(0.01)  # rest for more than a moment
        assert [b"x"] == loop.run_until_complete(store.aflight(FLIGHT))
    finally:
        store.close()
        loop.close()
    poll(lambda: mortal.connections() == 0)


def test_lost_at_rest(mortal: Valkey, open_store: Opener) -> None:
    """A connection that ends while nobody flies is closed then, not when the next flight comes."""
    store = open_store(mortal.unix_url, deadline=5.0)

    async def main() -> None:
        await store.aflight(FLIGHT)
        [link] = store._links.links()
        mortal.restart()
        await until(lambda: link.channel is None)
        assert [b"x"] == await store.aflight(FLIGHT)
        await store.aclose()

    asyncio.run(main())


def test_what_has_arrived_is_read_at_the_deadline(mortal: Valkey, open_store: Opener) -> None:
    """Where timers come before sockets (uvloop), a reply that is there is still read before a timeout is declared."""
    store = open_store(mortal.unix_url, deadline=5.0)

    async def main() -> None:
        await store.aflight(FLIGHT)
        channel, task = await under_way(store, FLIGHT)
        poll(channel.wire.readable)  # the loop does not run meanwhile
        channel.flights[0].due = time.monotonic() - 0.001

        channel._on_timer()

        assert not channel.flights
        assert [b"x"] == await task
        await store.aclose()

    asyncio.run(main())


def test_a_wait_that_ended_late(mortal: Valkey, open_store: Opener, monkeypatch: pytest.MonkeyPatch) -> None:
    """Who got a channel only after the deadline, because the loop was busy, still gets time for the flight."""
    store = open_store(mortal.unix_url, deadline=1.0)
    wait = aio.Link.wait

    async def late(self: aio.Link, due: float, loop: asyncio.AbstractEventLoop) -> Any:
        channel = await wait(self, due + 5.0, loop)
        time.sleep(max(0.0, due - time.monotonic()) + 0.01)  # noqa: ASYNC251  # that is the test
        return channel

    monkeypatch.setattr(aio.Link, "wait", late)

    async def main() -> None:
        assert [b"x"] == await store.aflight([Lua(NAP, arguments=(2, "x"))])
        await store.aclose()

    asyncio.run(main())


def test_who_comes_after_a_hung_flight(mortal: Valkey, open_store: Opener) -> None:
    """Flights that are lost with the connection of an overdue one were not slow themselves: they do not count."""
    store = open_store(mortal.unix_url, deadline=0.5)

    async def main() -> list[str]:
        await store.aflight([Lua(NAP, arguments=(0, ""))])
        hung = asyncio.create_task(store.aflight([Lua(NAP, arguments=(1000, ""))]))
        await asyncio.sleep(0.25)
        others = [asyncio.create_task(store.aflight(FLIGHT)) for _ in range(20)]
        outcome = await asyncio.gather(hung, *others, return_exceptions=True)
        assert store.breaker.closed
        await store.aclose()
        return [error.reason for error in outcome if isinstance(error, StoreUnavailable)]

    assert asyncio.run(main()) in (["timeout"] + ["broken"] * 20, ["local_lag"] * 21)


def test_the_earliest_deadline_counts(mortal: Valkey, open_store: Opener) -> None:
    """A flight that is due before those already under way (it had to wait) ends at its own deadline."""
    store = open_store(mortal.unix_url, deadline=5.0)

    async def main() -> None:
        await store.aflight(FLIGHT)
        [link] = store._links.links()
        assert link.channel is not None
        mortal.pause()
        under_way = asyncio.create_task(store.aflight(FLIGHT))
        await asyncio.sleep(0.01)
        admission = store.breaker.acquire()
        assert admission is not None
        loop = asyncio.get_running_loop()
        early = Flight(FLIGHT, time.monotonic() + 0.1, admission, loop.create_future())
        start = time.monotonic()

        link.channel.send(early, by_sha(FLIGHT), loop)

        assert early.future is not None
        with pytest.raises(StoreUnavailable):
            await early.future
        with pytest.raises(StoreUnavailable):
            await under_way
        assert time.monotonic() - start < 3.0
        await store.aclose()

    asyncio.run(main())


def test_many_loops_at_once(mortal: Valkey, open_store: Opener) -> None:
    """Loops in several threads, and threads without, share one store."""
    store = open_store(mortal.unix_url, deadline=5.0)

    def run(number: int) -> list[Any]:
        if number % 2:
            return [store.flight([Lua(ECHO, arguments=(number,))]) for _ in range(50)]

        async def main() -> list[Any]:
            return [await store.aflight([Lua(ECHO, arguments=(number,))]) for _ in range(50)]

        return asyncio.run(main())

    with ThreadPoolExecutor(8) as executor:
        assert [[[b"%d" % i]] * 50 for i in range(8)] == list(executor.map(run, range(8)))


def test_replaced_when_old(mortal: Valkey, open_store: Opener, clock: Ahead) -> None:
    """A loop's connection that grew old is replaced under load, and no flight notices."""
    store = open_store(mortal.unix_url, clock=clock, deadline=5.0)

    async def main() -> None:
        await store.aflight(FLIGHT)
        [link] = store._links.links()
        stop = False

        async def load(name: int) -> int:
            turn = 0
            while not stop:
                turn += 1
                expected = f"{name} {turn}".encode()
                assert [expected] == await store.aflight([Lua(ECHO, arguments=(expected,))])
            return turn

        loads = [asyncio.create_task(load(name)) for name in range(10)]
        for _ in range(3):
            channel = link.channel
            clock.ahead += 31.0
            store._connector.nudge()
            await until(lambda channel=channel: link.channel is not channel and link.channel is not None)
            await until(lambda channel=channel: channel._closed)
        stop = True
        assert min(await asyncio.gather(*loads)) > 0
        assert 1 == mortal.connections()
        await store.aclose()

    asyncio.run(main())


def test_replaced_when_old_at_rest(mortal: Valkey, open_store: Opener, monkeypatch: pytest.MonkeyPatch) -> None:
    """A loop's connection is replaced when it is old, though the connector went to rest before the loop took it, and nobody calls."""
    monkeypatch.setattr(connector, "_LIFE", (0.05, 0.1))
    rest = connector.Connector._rest
    rests: list[float | None] = []
    monkeypatch.setattr(connector.Connector, "_rest", lambda self: rests.append(rest(self)) or rests[-1])
    store = open_store(mortal.unix_url, deadline=5.0)

    async def main() -> None:
        store.start()
        [link] = store._links.links()
        assert poll(lambda: rests)  # the loop stands still meanwhile
        for _ in range(3):
            channel = link.channel
            await until(lambda channel=channel: link.channel is not channel)
        await store.aclose()

    asyncio.run(main())


def test_a_loop_that_stands_still(mortal: Valkey, open_store: Opener, clock: Ahead) -> None:
    """A loop that is neither run nor closed costs nothing: no turns of the connector, and no list of what it is to do one day."""
    store = open_store(mortal.unix_url, clock=clock, deadline=5.0)
    loop = asyncio.new_event_loop()
    told: list[str] = []
    try:
        loop.run_until_complete(store.aflight(FLIGHT))
        [link] = store._links.links()
        clock.ahead += 31.0
        store._connector.nudge()
        poll(lambda: link._pending)

        assert store._connector.work() is None

        tell = loop.call_soon_threadsafe
        loop.call_soon_threadsafe = lambda what, *given: (told.append(what.__name__), tell(what, *given))[1]  # type: ignore[method-assign]
        for _ in range(2):
            told.clear()
            for _ in range(5):
                link.tend(clock.monotonic(), distrust=True)
                link.fail()
            assert ["_give_up_idle", "_refuse"] == [one for one in told if one != "_adopt"]
            loop.run_until_complete(until(lambda: link.channel is not None and not link._posted))
        assert [b"x"] == loop.run_until_complete(store.aflight(FLIGHT))
    finally:
        store.close()
        loop.close()


def test_back_while_a_loop_stands_still(mortal: Valkey, open_store: Opener) -> None:
    """That a store is back is told although a loop that saw it go does not run any more, and would take its connection later."""
    events: list[Event] = []
    store = open_store(mortal.unix_url, deadline=0.5, publish=events.append)
    loop = asyncio.new_event_loop()
    try:
        mortal.kill()
        with pytest.raises(StoreUnavailable):
            loop.run_until_complete(store.aflight(FLIGHT))
        poll(lambda: [StoreDegraded] == [type(event) for event in events])

        mortal.start()

        poll(lambda: [StoreDegraded, StoreRecovered] == [type(event) for event in events])
    finally:
        store.close()
        loop.close()


def test_who_tries_again_at_once(mortal: Valkey, open_store: Opener) -> None:
    """A task that tries until the store is back, and never waits, lets its loop take the connection that is on its way."""
    store = open_store(mortal.unix_url)
    mortal.kill()

    async def main() -> list[Any]:
        while store.breaker.closed:
            try:
                await store.aflight(FLIGHT)
            except StoreUnavailable:
                await asyncio.sleep(0.005)
        mortal.start()
        until = time.monotonic() + 10
        while time.monotonic() < until:
            try:
                return await store.aflight(FLIGHT)
            except StoreUnavailable:
                pass
        pytest.fail("the store did not come back")

    assert [b"x"] == asyncio.run(main())


@pytest.mark.parametrize("crowd", [1, 3])
@pytest.mark.parametrize("when", ["before the write", "after the write", "with a reply in the hand"])
def test_an_interrupted_loop_leaves_nothing_behind(
    mortal: Valkey,
    open_store: Opener,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
    crowd: int,
    when: str,
) -> None:
    """Where KeyboardInterrupt stops a loop between two steps, and it is run again, everybody gets their own replies."""
    store = open_store(mortal.unix_url, deadline=5.0)
    wrong: list[Any] = []
    struck: list[str] = []

    async def ask(name: str) -> None:
        try:
            answer = await store.aflight([Lua(ECHO, arguments=(name,))])
        except StoreUnavailable as error:
            struck.append(error.reason)
            return
        if answer != [name.encode()]:
            wrong.append((name, answer))

    async def together(name: str) -> None:
        # Not a group, which would raise the interrupt once more.
        done, _ = await asyncio.wait([asyncio.create_task(ask(f"{name} {number}")) for number in range(crowd)])
        for task in done:
            task.exception()

    def strike(kind: type[Any], name: str, *, after: bool) -> None:
        real = getattr(kind, name)

        def interrupted(*given: Any) -> Any:
            monkeypatch.setattr(kind, name, real)
            if after:
                real(*given)
            raise KeyboardInterrupt

        monkeypatch.setattr(kind, name, interrupted)

    with asyncio.Runner() as runner:
        loop = runner.get_loop()
        for number in range(3):
            loop.run_until_complete(together(f"before {number}"))
        if when == "with a reply in the hand":
            strike(Flight, "add", after=False)
        else:
            strike(Wire, "send", after=when == "after the write")
        interrupted = loop.create_task(together("interrupted"))
        with pytest.raises(KeyboardInterrupt):
            loop.run_until_complete(interrupted)
        start = time.monotonic()
        following = [loop.create_task(ask(f"after {number}")) for number in range(5)]
        for task in following:
            loop.run_until_complete(asyncio.wait([task]))
        loop.run_until_complete(interrupted)
        took = time.monotonic() - start
        store.close()

    assert [] == wrong
    assert {"local_lag"} >= set(struck)
    assert took < 4.0  # nobody has waited for the reply to a request that was never sent
    assert store.breaker.closed
    gc.collect()
    assert "" == caplog.text  # of an exception that nobody fetched, for example


def test_warm_before_the_first_flight(mortal: Valkey, open_store: Opener) -> None:
    """`start` on a loop connects for that loop, and for no thread."""
    store = open_store(mortal.unix_url)

    async def main() -> None:
        store.start()
        await until(lambda: store._links.links()[0].channel)
        assert 1 == mortal.connections()
        assert [b"x"] == await store.aflight(FLIGHT)
        await store.aclose()

    asyncio.run(main())


def test_closed_from_another_thread(mortal: Valkey, open_store: Opener) -> None:
    """Closing a store tells the callers on a running loop, whoever closes it."""
    store = open_store(mortal.unix_url, deadline=5.0)

    async def main() -> None:
        await store.aflight(FLIGHT)
        mortal.pause()
        flight = asyncio.create_task(store.aflight(FLIGHT))
        await asyncio.sleep(0.01)
        threading.Thread(target=store.close).start()
        with pytest.raises(StoreUnavailable, match="closed"):
            await flight
        with pytest.raises(StoreUnavailable, match="closed"):
            await store.aflight(FLIGHT)

    asyncio.run(main())
    mortal.resume()
    poll(lambda: mortal.connections() == 0)


def test_closed_by_a_signal_handler(mortal: Valkey, open_store: Opener) -> None:
    """A signal handler that closes the store does not wait for the caller whom it interrupts."""
    store = open_store(mortal.unix_url)
    done = threading.Event()

    def interrupted() -> None:
        with store._links._lock:
            store.close()
        done.set()

    threading.Thread(target=interrupted, daemon=True).start()

    assert done.wait(10)


def test_closed_while_waiting(open_store: Opener) -> None:
    """Who waits for the first connection of a loop hears that there will be none."""
    with socket.create_server(("127.0.0.1", 0)) as silent:
        store = open_store(f"redis://127.0.0.1:{silent.getsockname()[1]}", deadline=5.0)

        async def main() -> None:
            flight = asyncio.create_task(store.aflight(FLIGHT))
            await asyncio.sleep(0.02)
            await store.aclose()
            with pytest.raises(StoreUnavailable, match="closed"):
                await flight

        asyncio.run(main())


def test_no_second_connection_while_one_is_adopted(
    mortal: Valkey, open_store: Opener, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The thread that makes connections may look at a loop in any moment, also while the loop takes one."""
    store = open_store(mortal.unix_url, deadline=5.0)
    wanted: list[bool] = []
    channel_of = aio.Link._channel_of

    def looked_at(link: aio.Link, connection: Any) -> Any:
        wanted.append(link.wants(time.monotonic()))
        return channel_of(link, connection)

    monkeypatch.setattr(aio.Link, "_channel_of", looked_at)

    async def main() -> None:
        await store.aflight(FLIGHT)
        await store.aclose()

    asyncio.run(main())
    assert [False] == wanted


def test_closed_while_a_connection_was_on_its_way(mortal: Valkey, open_store: Opener) -> None:
    """A connection that reaches its loop after the store was closed is closed too."""
    store = open_store(mortal.unix_url, deadline=5.0)

    async def main() -> None:
        await store.aflight(FLIGHT)
        [link] = store._links.links()
        link.take(store._connector._make())
        await store.aclose()
        await until(lambda: mortal.connections() == 0)

    asyncio.run(main())


def test_broken_while_sending(open_store: Opener) -> None:
    """A connection that is reset under a large flight is broken, and says so."""

    def reset(connection: socket.socket, data: bytes) -> None:
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")
        connection.close()

    with Impostor(reset) as server:
        store = open_store(server.url, deadline=2.0)

        async def main() -> None:
            with pytest.raises(StoreUnavailable, match="broken"):
                await store.aflight([Lua(ECHO, arguments=("b" * 20_000_000,))])
            await store.aclose()

        asyncio.run(main())


class Deaf(asyncio.SelectorEventLoop):
    """A loop that cannot watch sockets, as Windows' Proactor."""

    def add_reader(self, *arguments: Any) -> None:
        raise NotImplementedError


def test_a_loop_that_cannot_watch_sockets(mortal: Valkey, open_store: Opener) -> None:
    """Such a loop's flights go by thread."""
    store = open_store(mortal.unix_url, deadline=5.0)

    async def main() -> list[Any]:
        return [await store.aflight(FLIGHT), *await asyncio.gather(*(store.aflight(FLIGHT) for _ in range(10)))]

    with asyncio.Runner(loop_factory=Deaf) as runner:
        assert [[b"x"]] * 11 == runner.run(main())


def test_uvloop(mortal: Valkey, open_store: Opener) -> None:
    """uvloop serves as well, through an outage too."""
    uvloop = pytest.importorskip("uvloop")
    store = open_store(mortal.unix_url, deadline=5.0)

    async def main() -> None:
        for _ in range(2):
            answers = await asyncio.gather(*(store.aflight([Lua(ECHO, arguments=(i,))]) for i in range(50)))
            assert [[b"%d" % i] for i in range(50)] == answers
            big = await store.aflight([Lua(ECHO, arguments=("b" * 3_000_000,))])
            assert 3_000_000 == len(big[0])
            mortal.restart()
            await asyncio.sleep(0.02)
        await store.aclose()

    for _ in range(2):
        with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
            runner.run(main())
        store = open_store(mortal.unix_url, deadline=5.0)
