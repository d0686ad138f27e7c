"""What the log says of stores that are lost and found: once for each change, for each store, without secrets, and no flood."""

import asyncio
import gc
import logging
import os
import re
import weakref
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any
from urllib.parse import unquote

import pytest
from hypothesis import given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st

from failsoft import Event, LimitDecided, OperationRefused, StoreDegraded, StoreRecovered
from failsoft.errors import OperationFailed, StoreUnavailable
from failsoft.exchange import Script
from failsoft.quota import Quota
from failsoft.ratelimit.acquire import Acquire
from failsoft.runtime import Runtime
from failsoft.sessions.operations import Load
from failsoft.settings import Settings
from failsoft.stores import outages
from failsoft.stores.outages import QUIET, OutageLog
from failsoft.testing import ManualClock
from tests.clusters import Cluster
from tests.core.stores.lua import ECHO, Lua
from tests.servers import Valkey, free_port, poll
from tests.storages import Memcached

URL = "redis+sentinel://app:hunter2@cache.example/shop/0?sentinel_password=hunter3"
SECRET = "0123456789abcdef" * 2
AWAY = StoreDegraded("default", "refused", "refused, ConnectionError: nobody listens.")
BACK = StoreRecovered("default", 2.5)
DEFAULT = "the store 'default' (redis+sentinel://***@cache.example/shop/0)"
ALONE = "Meanwhile limits without an on_outage of their own are counted by this process"

Lines = Callable[[], list[str]]


@pytest.fixture
def lines(caplog: pytest.LogCaptureFixture) -> Lines:
    """What the log has of stores, below the events that tests make themselves."""
    caplog.set_level(logging.DEBUG, "failsoft.stores")
    return lambda: [one.getMessage() for one in caplog.records if one.name == "failsoft.stores"]


class ByHand(OutageLog):
    """An outage log whose thread is the test."""

    def nudge(self) -> None:
        self.work()


def by_hand(clock: ManualClock, publish: Callable[[Event], None] = lambda event: None, **given: Any) -> ByHand:
    """An outage log for these settings."""
    return ByHand(Settings.from_mapping({"store": URL, "workers": 1, **given}), clock=clock, publish=publish)


def test_a_pair_of_lines(lines: Lines, caplog: pytest.LogCaptureFixture) -> None:
    """A loss is a warning that names the store, where it is, why, and what happens now; its end says for how long it was."""
    log = by_hand(ManualClock())
    log.hear(AWAY)
    log.hear(BACK)
    assert [
        f"{DEFAULT} is away (refused, ConnectionError: nobody listens). {ALONE}",
        f"{DEFAULT} is back, after 2.5 s",
    ] == lines()
    assert {("failsoft.stores", "WARNING")} == {(one.name, one.levelname) for one in caplog.records}


def test_listeners_hear_the_same(lines: Lines) -> None:
    """Every event is passed on as it is, those too that are no outage's, and those that the log leaves out."""
    heard: list[Event] = []
    log = by_hand(ManualClock(), heard.append)
    decided = LimitDecided(True, (), "GET", "/", None, False)
    for event in (decided, AWAY, BACK, AWAY, BACK):
        log.hear(event)
    assert [decided, AWAY, BACK, AWAY, BACK] == heard
    assert 2 == len(lines())


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        ({"workers": 3, "replicas": 2}, "are counted by this process, 1/6 of each quota"),
        ({"workers": 3, "local_share": 0.25}, "are counted by this process, 25% of each quota"),
        ({"local_share": 1.0, "workers": 3}, "are counted by this process"),
        ({"on_outage": "open"}, "admit"),
        ({"on_outage": "closed"}, "refuse with 503"),
        (
            {"sessions": True, "secret": SECRET, "on_outage": "open"},
            "admit; sessions are refused with 503, and writes to them are refused with 503",
        ),
        (
            {"sessions": True, "secret": SECRET, "on_outage": "open", "session_on_outage": "empty"},
            "admit; sessions are empty, and writes to them are refused with 503",
        ),
        (
            {"sessions": True, "secret": SECRET, "on_outage": "open", "session_snapshot": "5m"},
            "admit; sessions are read from the browser's sealed cookie if that is at most 5m old, else refused with 503, and writes "
            "to them are refused with 503",
        ),
    ],
)
def test_what_happens_now(given: dict[str, Any], expected: str, lines: Lines) -> None:
    """The line says what the settings make of limits and sessions meanwhile."""
    by_hand(ManualClock(), **given).hear(AWAY)
    [line] = lines()
    assert f"Meanwhile limits without an on_outage of their own {expected}" == line.partition("). ")[2]


def test_several_stores(lines: Lines) -> None:
    """Each store has lines of its own, with its own URL; only that of sessions speaks of them; a node is called as events call it."""
    others = {"kept": "redis://kept.example", "shared": "redis+cluster://:pw@one.example"}
    log = by_hand(ManualClock(), stores=others, sessions=True, session_store="kept", secret=SECRET)
    for name in ("default", "kept", "shared@10.0.0.7:7001"):
        log.hear(StoreDegraded(name, "timeout"))
    log.hear(StoreRecovered("kept", 1.0))
    starts = [
        DEFAULT,
        "the store 'kept' (redis://kept.example)",
        "the store 'shared@10.0.0.7:7001' (redis+cluster://***@one.example)",
    ]
    assert [f"{start} is away (timeout)" for start in starts] == [
        line.partition(". Meanwhile")[0] for line in lines()[:3]
    ]
    assert [False, True, False] == ["sessions" in line for line in lines()[:3]]
    assert ["the store 'kept' (redis://kept.example) is back, after 1.0 s"] == lines()[3:]


def test_what_was_said_is_one_short_line_without_secrets(lines: Lines) -> None:
    """What a server or a driver said cannot forge a line, fill the log, or bring a password into it."""
    said = "refused, Error: at redis://app:hunter2@cache.example\r\nWARNING all is well " + "x" * 999
    by_hand(ManualClock()).hear(StoreDegraded("default", "refused", said))
    [line] = lines()
    assert [False, False, True] == [part in line for part in ("\n", "hunter2", "example WARNING all")]
    assert len(line) < 500


def test_a_store_that_flaps(lines: Lines) -> None:
    """One pair of lines in a while, and then how often it was away besides, and for how long."""
    clock = ManualClock()
    log = by_hand(clock)
    for _ in range(5):
        log.hear(AWAY)
        clock.advance(1)
        log.hear(BACK)
    assert 2 == len(lines())
    assert pytest.approx(QUIET - 5) == log.work()
    clock.advance(QUIET - 5)
    assert None is log.work()
    assert [f"{DEFAULT} was away 4 more times, for 10.0 s together; it is back"] == lines()[2:]
    log.hear(AWAY)
    assert 3 == len(lines())


def test_the_last_word_is_what_is_so(lines: Lines) -> None:
    """A store that stays away after it flapped is told of as soon as that may be, and so is its return."""
    clock = ManualClock()
    log = by_hand(clock)
    for event in (AWAY, BACK, AWAY, BACK):
        log.hear(event)
    clock.advance(4)
    log.hear(AWAY)
    clock.advance(QUIET - 4)
    log.work()
    clock.advance(3600)
    log.hear(StoreRecovered("default", 3606.0))
    assert [
        f"{DEFAULT} is away for 6.0 s (refused, ConnectionError: nobody listens); before that it was away 1 more time, for 2.5 s "
        f"together. {ALONE}",
        f"{DEFAULT} is back, after 3606.0 s",
    ] == lines()[2:]


@given(steps=st.lists(st.tuples(st.floats(0, 20), st.booleans()), max_size=60))
@hypothesis_settings(deadline=None)
def test_whatever_comes(steps: list[tuple[float, bool]]) -> None:
    """However a store comes and goes: few lines, none forgotten, and in the end the log says what is so."""
    clock, records, away = ManualClock(), list[str](), False
    log = by_hand(clock)
    logger, handler = logging.getLogger("failsoft.stores"), logging.Handler()
    handler.emit = lambda record: records.append(record.getMessage())  # type: ignore[method-assign]  # a handler in a line
    logger.addHandler(handler)
    try:
        began, losses = clock.monotonic(), 0
        for pause, looks in steps:
            clock.advance(pause)
            if looks:
                log.work()
            away = not away
            losses += away
            log.hear(StoreDegraded("default", "timeout") if away else StoreRecovered("default", 1.0))
        took = clock.monotonic() - began
        assert len(records) <= 2 * (took // QUIET + 1)
        for _ in range(2):
            clock.advance(QUIET)
            log.work()
    finally:
        logger.removeHandler(handler)
    told = sum(" is away" in line for line in records)
    left_out = sum(int(line.partition("was away ")[2].split()[0]) for line in records if "was away" in line)
    assert losses == told + left_out
    assert (away, losses > 0) == (bool(records) and " is away" in records[-1], bool(records))


def test_nothing_is_kept_of_stores_that_are_well() -> None:
    """Nodes of a cluster come and go under ever new names."""
    clock = ManualClock()
    log = by_hand(clock)
    for number in range(50):
        name = f"default@10.0.0.{number}:7000"
        log.hear(StoreDegraded(name, "timeout"))
        log.hear(StoreRecovered(name, 1.0))
        clock.advance(QUIET)
    assert len(log._stores) <= 1


FULL = OperationRefused("default", "OOM", "ratelimit.acquire: OOM no memory.\nat redis://app:hunter2@cache.example")


def test_a_store_that_answers_with_errors(lines: Lines) -> None:
    """The first error of its kind is told, with what happens now, and when there was no more of it, how many there were."""
    clock = ManualClock()
    log = by_hand(clock)
    for _ in range(500):
        log.hear(FULL)
        clock.advance(0.1)
    said = "ratelimit.acquire: OOM no memory. at redis://***@cache.example"
    assert [f"{DEFAULT} answers with errors ({said}). {ALONE.replace('Meanwhile', 'Where it does,')}"] == lines()
    clock.advance(QUIET - 0.2)
    assert pytest.approx(0.1) == log.work()
    assert 1 == len(lines())
    clock.advance(0.1)
    assert None is log.work()
    assert [f"{DEFAULT} has not answered with OOM for 10 s; before that it did 500 times in 49.9 s"] == lines()[1:]
    log.hear(FULL)
    assert 3 == len(lines())


def test_errors_that_nobody_writes_down(lines: Lines, monkeypatch: pytest.MonkeyPatch) -> None:
    """While a handler takes its time, errors take no more memory than so many; then there were at least those, and no loss is missed."""
    clock = ManualClock()
    log = by_hand(clock)
    monkeypatch.setattr(log, "nudge", lambda: None)
    monkeypatch.setattr(outages, "_MOST", 100)
    for _ in range(1000):
        log.hear(FULL)
    log.hear(AWAY)
    assert 101 == len(log._heard)
    log.work()
    assert [" answers with errors ", " is away "] == [
        re.findall(" answers with errors | is away ", one)[0] for one in lines()
    ]
    clock.advance(QUIET)
    log.work()
    assert "did at least 100 times in 0.0 s" == lines()[2].partition("that it ")[2]
    log.hear(FULL)
    log.work()
    clock.advance(QUIET)
    log.work()
    assert "did once" == lines()[4].partition("that it ")[2]


def test_errors_of_several_kinds(lines: Lines) -> None:
    """Each kind, and each store, has lines of its own; other words for the same error bring none."""
    clock = ManualClock()
    log = by_hand(clock, stores={"kept": "redis://kept.example"})
    log.hear(FULL)
    log.hear(OperationRefused("default", "OOM", "sessions.load: OOM no memory"))
    log.hear(OperationRefused("default", "NOPERM", "sessions.load: NOPERM no"))
    log.hear(OperationRefused("kept", "OOM", "sessions.load: OOM no memory"))
    assert ["OOM", "NOPERM", "OOM"] == [line.partition(" (r")[2].split(": ")[1].split()[0] for line in lines()]
    clock.advance(QUIET)
    log.work()
    assert ["did 2 times in 0.0 s", "did once", "did once"] == [line.partition("that it ")[2] for line in lines()[3:]]
    assert {} == log._refused


def test_other_settings(lines: Lines) -> None:
    """After a reload the lines speak of the settings that hold now."""
    runtime = Runtime(Settings(store=f"redis://127.0.0.1:{free_port()}", workers=1))
    try:
        runtime.reload(Settings(store=runtime.settings.store, workers=1, on_outage="closed"))
        runtime.start()
        poll(lambda: [line for line in lines() if line.endswith("their own refuse with 503")])
    finally:
        runtime.close()


def test_the_thread_ends_with_the_runtime() -> None:
    """A runtime that nobody holds any more is not kept by what writes its log."""
    runtime = Runtime(Settings(store="memory://", workers=1))
    runtime._outages.hear(AWAY)
    gone = weakref.ref(runtime._outages)
    del runtime
    poll(lambda: gc.collect() is not None and gone() is None)


@pytest.mark.processes
@pytest.mark.skipif(not hasattr(os, "fork"), reason="there is no fork here")
@pytest.mark.filterwarnings("ignore:This process .* is multi-threaded:DeprecationWarning")
def test_after_a_fork(lines: Lines, tmp_path: Any) -> None:
    """A forked process tells of its own outages, though its parent's thread is not in it, and not of the parent's."""
    log = OutageLog(Settings(store=URL, workers=1), clock=ManualClock(), publish=lambda event: None)
    log.hear(AWAY)
    poll(lambda: len(lines()) == 1)
    child = os.fork()
    if child == 0:
        try:
            log.hear(AWAY)
            poll(lambda: len(lines()) == 2)  # not left out: the child has told of nothing yet
            (tmp_path / "child").write_text("told")
        finally:
            os._exit(0)
    os.waitpid(child, 0)
    assert "told" == (tmp_path / "child").read_text()


Fly = Callable[[Runtime], bool]


@pytest.fixture(params=["sync", "async"])
def fly(request: pytest.FixtureRequest) -> Fly:
    """Whether a flight succeeds: from this thread, or from a task."""
    if request.param == "sync":
        return lambda runtime: _flown(lambda: runtime.store.flight([Lua(ECHO, arguments=("x",))]))
    loop = request.getfixturevalue("background")

    def from_a_task(runtime: Runtime) -> bool:
        flight = runtime.store.aflight([Lua(ECHO, arguments=("x",))])
        return _flown(lambda: asyncio.run_coroutine_threadsafe(flight, loop).result(10))

    return from_a_task


def _flown(flight: Callable[[], Any]) -> bool:
    try:
        flight()
    except StoreUnavailable:
        return False
    return True


@pytest.fixture
def opened() -> Iterator[Callable[..., Runtime]]:
    """Makes runtimes, and closes them after the test."""
    made: list[Runtime] = []

    def open_(url: str, **given: Any) -> Runtime:
        made.append(Runtime(Settings.from_mapping({"store": url, "workers": 1, **given})))
        return made[-1]

    yield open_
    for runtime in made:
        runtime.close()


def parts(lines: Sequence[str], url: str) -> tuple[int, int]:
    """How many losses and returns of the store at `url`, or of its nodes, were told."""
    ours = [line for line in lines if f"({url})" in line]
    return len([line for line in ours if " is away" in line]), len([line for line in ours if " is back, after" in line])


@pytest.mark.processes
@pytest.mark.parametrize("how", ["killed", "hung"])
def test_servers_that_go_and_come(
    how: str, mortal: Valkey, opened: Callable[..., Runtime], fly: Fly, lines: Lines
) -> None:
    """A real server that is killed and started again, or that hangs for a time: one line with the reason, and one when it is back."""
    runtime = opened(mortal.url, deadline=0.2)
    poll(lambda: fly(runtime))
    mortal.pause() if how == "hung" else mortal.kill()
    poll(lambda: not fly(runtime) and (1, 0) == parts(lines(), mortal.url), within=30)
    for _ in range(100):  # requests go on, and bring no further line
        fly(runtime)
    [line] = lines()
    why = (
        r"\((timeout|no_connection|broken|local_lag), ."
        if how == "hung"
        else r"\((refused|broken|no_connection), \w+Error: ."
    )
    assert re.search(why, line), line
    mortal.resume() if how == "hung" else mortal.start()
    poll(lambda: fly(runtime) and (1, 1) == parts(lines(), mortal.url), within=30)


@pytest.mark.processes
@pytest.mark.parametrize(
    "url",
    [
        "redis://127.0.0.1:{port}/0",
        "unix:///nowhere/at/all.sock",
        "redis+sentinel://127.0.0.1:{port}/mymaster",
        "redis+cluster://127.0.0.1:{port}",
        "memcached://127.0.0.1:{port}",
        "mongodb://127.0.0.1:{port}",
    ],
)
def test_every_kind_of_store(url: str, opened: Callable[..., Runtime], lines: Lines) -> None:
    """Whatever kind a store is of: if it is not there when the process starts, the log says so, in the same words."""
    url = url.format(port=free_port())
    opened(url).start()
    poll(lambda: lines(), within=30)
    assert (1, 0) == parts(lines(), url), lines()
    assert re.search(r"is away \(\w+, \w+.*\)\. Meanwhile", lines()[0]), lines()


@pytest.mark.processes
def test_a_storage_that_goes_and_comes(opened: Callable[..., Runtime], lines: Lines) -> None:
    """A store that only `limits` knows is told of like any other."""
    with Memcached() as server:
        runtime = opened(server.url, deadline=0.5)
        flight = [Acquire([Quota(amount=9, window=60)], ["k"], [1])]
        poll(lambda: _flown(lambda: runtime.store.flight(flight)))
        server.kill()
        poll(lambda: not _flown(lambda: runtime.store.flight(flight)) and lines(), within=30)
        server.start()
        poll(lambda: _flown(lambda: runtime.store.flight(flight)) and (1, 1) == parts(lines(), server.url), within=30)


@pytest.mark.processes
def test_a_node_of_a_cluster(opened: Callable[..., Runtime], lines: Lines) -> None:
    """Of a cluster the log names the node that was lost, and not the others."""
    with Cluster() as cluster:
        runtime = opened(cluster.url, deadline=0.5)
        node = cluster.nodes[1]
        key = next(cluster.keys_of(node))
        flight = [Lua(ECHO, key, arguments=("x",))]
        poll(lambda: _flown(lambda: runtime.store.flight(flight)))
        node.kill()
        name = f"the store 'default@127.0.0.1:{node.port}' ({cluster.url}) is "
        poll(
            lambda: (
                not _flown(lambda: runtime.store.flight(flight)) and [x for x in lines() if x.startswith(f"{name}away")]
            )
        )
        node.start()
        poll(
            lambda: (
                _flown(lambda: runtime.store.flight(flight)) and [x for x in lines() if x.startswith(f"{name}back")]
            ),
            within=30,
        )
        assert re.search(r"is away \(\w+, \w+.*\)\. Meanwhile", next(x for x in lines() if x.startswith(f"{name}away")))
        assert [True] * len(lines()) == [x.startswith((name, f"the store 'default' ({cluster.url})")) for x in lines()]


REFUSING = Script("test.refusing", "return redis.error_reply('NOPERM it may not')")

WAYS: dict[str, Callable[[Runtime, Any, Any], Any]] = {
    "sync": lambda runtime, flight, loop: runtime.store.flight(flight),
    "begun": lambda runtime, flight, loop: runtime.store.begin(flight)(),
    "async": lambda runtime, flight, loop: asyncio.run_coroutine_threadsafe(
        runtime.store.aflight(flight), loop
    ).result(),
}


@pytest.mark.parametrize("way", WAYS)
def test_errors_of_a_server(
    way: str, valkey: Valkey, opened: Callable[..., Runtime], background: Any, lines: Lines
) -> None:
    """Whichever way an operation goes: each error is heard of, those too that are made before anything is sent; the log has a line."""
    runtime = opened(valkey.url, deadline=1.0)
    heard: list[Event] = []
    runtime.listen(heard.append)
    flight = [Lua(ECHO, arguments=("x",)), Lua(REFUSING), Lua(ECHO, "\ud800")]
    for _ in range(3):
        poll(lambda: _flown(lambda: WAYS[way](runtime, flight, background)))
    errors = [event for event in heard if isinstance(event, OperationRefused)]
    assert {("default", "NOPERM"), ("default", "UNSENT")} == {(event.store, event.code) for event in errors}
    assert 3 == [event.code for event in errors].count("NOPERM")
    poll(lambda: len(lines()) >= 2)
    assert f"the store 'default' ({valkey.url}) answers with errors (test.refusing: NOPERM it may not). " in "".join(
        lines()
    )
    assert 2 == len(lines())


@pytest.mark.processes
def test_errors_of_a_storage(opened: Callable[..., Runtime], lines: Lines) -> None:
    """A store that only `limits` knows is told of like any other."""
    with Memcached() as server:
        runtime = opened(server.url, deadline=1.0)
        flight = [Acquire([Quota(amount=9, window=60)], ["k"], [1])]
        poll(lambda: _flown(lambda: runtime.store.flight(flight)))
        for line in server.run("lru_crawler metadump all").splitlines():
            if line.startswith("key="):
                server.run(f"set {unquote(line.split()[0][4:])} 0 60 4\r\njunk")
        runtime.store.flight(flight)
        poll(lambda: lines())
        [line] = lines()
        assert re.search(r"answers with errors \(ratelimit.acquire: Memcache\w+: .*non-numeric", line), line


@pytest.mark.processes
def test_a_disk_that_is_full(opened: Callable[..., Runtime], lines: Lines, tmp_path: Path) -> None:
    """A server that cannot save, and so takes no writes: limits count here, sessions are not served, and the log says why."""
    (tmp_path / "disk").mkdir()
    with Valkey("--save", "3600 1", "--dir", str(tmp_path / "disk")) as server:
        runtime = opened(server.url, deadline=1.0, sessions=True, secret=SECRET)
        flight = [Acquire([Quota(amount=9, window=60)], ["k"], [1]), Load("s", "d", idle=9, touch=9)]
        poll(lambda: _flown(lambda: runtime.store.flight(flight)))
        (tmp_path / "disk").rmdir()
        server.run("BGSAVE")
        poll(lambda: "err" == server.run("INFO", "persistence")["rdb_last_bgsave_status"])
        assert [True, True] == [isinstance(answer, OperationFailed) for answer in runtime.store.flight(flight)]
        poll(lambda: lines())
        [line] = lines()
        assert "answers with errors (ratelimit.acquire: MISCONF " in line
        assert line.endswith("; sessions are refused with 503, and writes to them are refused with 503")
        server.run("CONFIG", "SET", "stop-writes-on-bgsave-error", "no")
        assert [False, False] == [isinstance(answer, OperationFailed) for answer in runtime.store.flight(flight)]
