"""Whole processes: forks, servers that load the application first, greenlets, an end without warnings."""

import asyncio
import os
import subprocess
import sys
import textwrap
import threading
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from failsoft.stores.redis import RedisStore
from tests import processes
from tests.core.stores.lua import ECHO, NAP, Lua
from tests.processes import ROOT, Served
from tests.servers import Valkey, poll

pytestmark = pytest.mark.processes

Opener = Callable[..., RedisStore]

FLIGHT = [Lua(ECHO, arguments=("x",))]


def run(script: str, *arguments: str) -> str:
    """What a script prints, which must say nothing on standard error."""
    done = processes.run(textwrap.dedent(script), *arguments)
    assert (0, "") == (done.returncode, done.stderr)
    return done.stdout


def in_a_child(work: Callable[[], bool]) -> bool:
    """Whether `work` is true in a forked process."""
    pid = os.fork()
    if not pid:
        try:
            os._exit(0 if work() else 1)
        except BaseException:
            traceback.print_exc()
        finally:
            os._exit(2)
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 0


@pytest.mark.filterwarnings("ignore:.*multi-threaded, use of fork")
def test_fork(mortal: Valkey, open_store: Opener) -> None:
    """A child has connections of its own and a thread of its own; the parent's go on as if nothing had happened."""
    store = open_store(mortal.unix_url, deadline=5.0, max_connections=1)
    store.flight(FLIGHT)
    [mine] = store._pool._idle
    received = mortal.stats()["total_connections_received"]

    def child() -> bool:
        fresh = not store._pool._all and mine._sock is None
        return fresh and all(store.flight([Lua(ECHO, arguments=(i,))]) == [b"%d" % i] for i in range(50))

    assert in_a_child(child)
    assert [b"x"] == store.flight(FLIGHT)
    assert [mine] == list(store._pool._idle)
    assert 1 == mortal.stats()["total_connections_received"] - received - 1  # that one looked


@pytest.mark.filterwarnings("ignore:.*multi-threaded, use of fork")
def test_fork_in_the_middle(mortal: Valkey, open_store: Opener) -> None:
    """Forks while other threads fly, wait and hold locks: no child hangs, nobody gets a reply that is not his."""
    store = open_store(mortal.unix_url, max_connections=2, deadline=5.0)
    stop = threading.Event()
    wrong: list[Any] = []

    def work(name: int) -> None:
        turn = 0
        while not stop.is_set():
            turn += 1
            expected = f"{name} {turn}".encode()
            answer = store.flight([Lua(ECHO, arguments=(expected,))])
            if answer != [expected]:
                wrong.append((expected, answer))

    threads = [threading.Thread(target=work, args=(name,)) for name in range(4)]
    for thread in threads:
        thread.start()
    try:
        children = [
            in_a_child(lambda: store.flight([Lua(ECHO, arguments=("child",))]) == [b"child"]) for _ in range(12)
        ]
    finally:
        stop.set()
        for thread in threads:
            thread.join()

    assert [True] * 12 == children
    assert [] == wrong


@pytest.mark.filterwarnings("ignore:.*multi-threaded, use of fork")
def test_fork_with_a_loop(mortal: Valkey, open_store: Opener) -> None:
    """A child runs a loop of its own; the parent's loop, which forked while a flight was under way, gets its reply."""
    store = open_store(mortal.unix_url, deadline=5.0)

    async def main() -> None:
        await store.aflight(FLIGHT)
        # On a loaded machine it takes many times as long, and the child's connection waits for it.
        nap = asyncio.create_task(store.aflight([Lua(NAP, arguments=(100, "rested"))]))
        await asyncio.sleep(0.02)

        def child() -> bool:
            asyncio.events._set_running_loop(None)

            async def fly() -> list[Any]:
                return await store.aflight(FLIGHT)

            return asyncio.run(fly()) == [b"x"]

        assert in_a_child(child)
        assert [b"rested"] == await nap
        assert [b"x"] == await store.aflight(FLIGHT)
        await store.aclose()

    asyncio.run(main())


@pytest.mark.parametrize("worker", ["gthread", "gevent"])
def test_gunicorn_preload(mortal: Valkey, tmp_path: Path, worker: str) -> None:
    """An application that used the store before gunicorn forked, and before gevent patched, works in every worker."""
    pytest.importorskip("gunicorn")
    if worker == "gevent":
        pytest.importorskip("gevent")
    (tmp_path / "preloaded.py").write_text(
        textwrap.dedent("""
        import os
        from failsoft.stores.redis import RedisStore
        from tests.core.stores.lua import INCR, Lua

        store = RedisStore(os.environ["STORE"], deadline=2.0)
        store.flight([Lua(INCR, "n")])  # in the master, before the fork

        def app(environ, start_response):
            [count] = store.flight([Lua(INCR, "n")])
            start_response("200 OK", [("Content-Type", "text/plain")])
            return [b"%d %d" % (os.getpid(), count)]
        """)
    )
    command = [sys.executable, "-m", "gunicorn", "--preload", "--bind=127.0.0.1:{port}"]
    command += ["--workers=2", "--threads=2", f"--worker-class={worker}", "preloaded:app"]
    seen: dict[bytes, list[int]] = {}
    with Served(command, tmp_path, cwd=tmp_path, STORE=mortal.unix_url, PYTHONPATH=str(ROOT)) as server:

        def ask() -> bool:
            for answer in server.burst(10, "/"):
                pid, count = answer.body.split()
                seen.setdefault(pid, []).append(int(count))
            return len(seen) == 2 and sum(map(len, seen.values())) >= 50

        poll(ask, within=30)

    # The master's was the first; those of the server's start were counted in one row with them.
    counts = sorted(count for counts in seen.values() for count in counts)
    assert list(range(counts[0], counts[0] + len(counts))) == counts
    assert counts[0] > 1


GEVENT = """
    from gevent import monkey
    monkey.patch_all()
    import sys, time
    import gevent
    from failsoft.errors import StoreUnavailable
    from failsoft.stores.redis import RedisStore
    from tests.core.stores.lua import ECHO, NAP, Lua
    from tests.servers import Valkey, poll

    def attempt(*operations):
        try:
            return store.flight(operations)
        except StoreUnavailable as error:
            return error.reason

    with Valkey() as server:
        store = RedisStore(server.unix_url, deadline=2.0, max_connections=5)
        # Many greenlets, few connections.
        flights = [gevent.spawn(store.flight, [Lua(ECHO, arguments=(i,))]) for i in range(100)]
        gevent.joinall(flights)
        assert [[b"%d" % i] for i in range(100)] == [flight.value for flight in flights]
        assert len(store._pool._all) <= 5

        # While one waits for the server, others go on.
        server.pause()
        waiting = gevent.spawn(store.flight, [Lua(ECHO, arguments=("rested",))])
        for _ in range(5):
            gevent.sleep(0.005)
        assert not waiting.ready()
        server.resume()
        assert [b"rested"] == waiting.get()

        # A greenlet that is killed or timed out in the middle leaves nothing behind.
        for turn in range(10):
            nap = gevent.spawn(store.flight, [Lua(NAP, arguments=(30, "killed"))])
            gevent.sleep(0.005)
            nap.kill()
            with gevent.Timeout(0.01, False):
                store.flight([Lua(NAP, arguments=(30, "timed out"))])
            assert [b"%d" % turn] == store.flight([Lua(ECHO, arguments=(turn,))])
        assert store.breaker.closed

        # An outage, with the default deadline.
        store.close()
        store = RedisStore(server.unix_url)
        poll(lambda: attempt(Lua(ECHO, arguments=("x",))) == [b"x"])
        server.pause()
        start = time.monotonic()
        assert attempt(Lua(ECHO, arguments=("x",))) in ("timeout", "local_lag")
        assert time.monotonic() - start < 2
        assert poll(lambda: attempt(Lua(ECHO, arguments=("x",))) in ("no_connection", "open"))
        server.resume()
        poll(lambda: attempt(Lua(ECHO, arguments=("x",))) == [b"x"])
        server.restart()
        poll(lambda: attempt(Lua(ECHO, arguments=("x",))) == [b"x"])
        store.close()
    print("fine")
"""


def test_gevent() -> None:
    """Under gevent a flight lets other greenlets run, and keeps to every rule."""
    pytest.importorskip("gevent")

    assert "fine\n" == run(GEVENT)


QUIET = """
    import gc
    gc.disable()  # among modules
    import asyncio, sys
    from failsoft.stores.redis import RedisStore
    from tests.core.stores.lua import ECHO, Lua
    gc.enable()

    store = RedisStore(sys.argv[1], deadline=5.0)
    FLIGHT = [Lua(ECHO, arguments=("x",))]

    async def main():
        assert [b"x"] == await store.aflight(FLIGHT)

    asyncio.run(main())
    asyncio.run(main())
    loop = asyncio.new_event_loop()
    loop.run_until_complete(main())
    if sys.argv[2] == "closed":
        loop.close()
        store.close()
    assert sys.argv[2] == "closed" or [b"x"] == store.flight(FLIGHT)
    if sys.argv[2] == "open":
        loop.close()
    print("fine")
"""


@pytest.mark.parametrize("how", ["closed", "open"])
def test_an_end_without_warnings(mortal: Valkey, how: str) -> None:
    """A process with several loops ends in silence, in development mode, with the store closed or not."""
    command = [sys.executable, "-X", "dev", "-W", "error", "-c", textwrap.dedent(QUIET), mortal.unix_url, how]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=50)
    assert (0, "fine\n", "") == (done.returncode, done.stdout, done.stderr)


def test_without_redis_py() -> None:
    """Without redis-py the error says what to install."""
    script = """
        import sys
        sys.modules["redis"] = None
        from failsoft.errors import ConfigurationError
        try:
            import failsoft.stores.redis
        except ConfigurationError as error:
            print(error)
    """

    assert "pip install 'failsoft[redis]'" in run(script)


def test_without_hiredis(mortal: Valkey) -> None:
    """Without hiredis everything is done in Python."""
    script = """
        import asyncio, sys
        sys.modules["hiredis"] = None
        from failsoft.stores.redis import RedisStore
        from tests.core.stores.lua import ECHO, INCR, Lua

        store = RedisStore(sys.argv[1], deadline=5.0)
        flight = [Lua(ECHO, arguments=("é", )), Lua(INCR, "list"), Lua(INCR, "n"), Lua(ECHO, arguments=("b" * 300000,))]

        def check(answers, count):
            assert ["é".encode(), count, b"b" * 300000] == [answers[0], *answers[2:]]
            assert "WRONGTYPE" in str(answers[1]) or "wrong kind" in str(answers[1])

        async def main():
            for turn in range(20):
                check(await store.aflight(flight), turn + 21)
            await asyncio.gather(*(store.aflight(flight) for turn in range(20)))
            await store.aclose()

        for turn in range(20):
            check(store.flight(flight), turn + 1)
        asyncio.run(main())
        print("fine")
    """
    mortal.run("LPUSH", "list", "1")

    assert "fine\n" == run(script, mortal.unix_url)
