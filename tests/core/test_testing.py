"""The tools in `failsoft.testing`, each by itself; the contract is tested in test_contract_selftest."""

import asyncio
import os
import subprocess
import sys
import threading
from collections.abc import Awaitable, Callable, Iterable, Iterator
from datetime import timedelta
from pathlib import Path
from typing import Any
from weakref import WeakSet

import pytest

import failsoft
from failsoft import OutsideRequest, Settings, limit, testing
from failsoft.errors import ConfigurationError, OperationFailed, StoreUnavailable
from failsoft.exchange import Facts, Table
from failsoft.exchange.policy import enter, leave
from failsoft.ratelimit import Acquire, parse_quotas
from failsoft.runtime import Runtime
from failsoft.stores import MemoryStore, Store
from failsoft.testing import (
    AsgiApp,
    FaultyStore,
    LimitView,
    ManualClock,
    Reply,
    Site,
    View,
    WsgiApp,
    outside_request,
    plugin,
)
from failsoft.testing.toy import LOAD, SAVE, _Load, _Save
from tests.servers import Valkey

# By their names, whether or not failsoft is installed with its entry points.
failsoft_clock = plugin.failsoft_clock
failsoft_off = plugin.failsoft_off


class PlainFacts(Facts):
    """A request for "/" from one address."""

    __slots__ = ()

    def __init__(self, endpoint: Any = None) -> None:
        self.request, self.method, self.endpoint, self.route = None, "GET", endpoint, "/"

    def peer(self) -> str | None:
        return "203.0.113.7"

    def header_lines(self, name: str) -> tuple[str, ...]:
        return ()


def acquire(key: str = "k", quota: str = "2/minute") -> Acquire:
    return Acquire(parse_quotas(quota), [key], [1])


def admitted(runtime: Runtime) -> bool:
    return runtime.admit(runtime.begin(PlainFacts())) is None


@pytest.fixture
def runtime() -> Iterator[Runtime]:
    runtime = Runtime(Settings(limits=("1/minute",)))
    yield runtime
    runtime.close()


class TestManualClock:
    def test_stands_still(self) -> None:
        """Time passes only when it is told to."""
        clock = ManualClock(start=1000.5)
        assert [(0.0, 1000.5)] * 2 == [(clock.monotonic(), clock.time()) for _ in range(2)]

    @pytest.mark.parametrize("step", [90, "90s", "1.5m", timedelta(seconds=90)])
    def test_advance(self, step: Any) -> None:
        """It advances by seconds, by text and by timedeltas, both readings alike."""
        clock = ManualClock(start=1000)
        clock.advance(step)
        assert (90.0, 1090.0) == (clock.monotonic(), clock.time())
        assert "ManualClock(time=1090.0)" == repr(clock)

    def test_steps_add_up(self) -> None:
        """Many small steps are exactly one large one."""
        clock = ManualClock()
        for _ in range(1000):
            clock.advance(0.1)
        assert 100.0 == clock.monotonic()

    @pytest.mark.parametrize("step", [-1, "soon", "-1s"])
    def test_never_back(self, step: Any) -> None:
        """It refuses to go back, and what is no duration."""
        clock = ManualClock()
        with pytest.raises(ValueError, match="duration"):
            clock.advance(step)
        assert 0.0 == clock.monotonic()

    def test_threads(self) -> None:
        """No step of any thread is lost."""
        clock = ManualClock()

        def tick() -> None:
            for _ in range(500):
                clock.advance(1)

        threads = [threading.Thread(target=tick) for _ in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert 2000.0 == clock.monotonic()


class TestFaultyStore:
    def test_is_a_store(self) -> None:
        """Without a fault it answers as memory does, and says that it waits as a server."""
        clock = ManualClock()
        store: Store = FaultyStore(clock=clock)
        memory = MemoryStore(clock=clock)
        assert [memory.flight([acquire()]) for _ in range(3)] == [store.flight([acquire()]) for _ in range(3)]
        assert asyncio.run(store.aflight([acquire()])) == memory.flight([acquire()])
        assert store.blocking

    @pytest.mark.parametrize("reason", ["timeout", "refused"])
    def test_away(self, reason: Any) -> None:
        """While it is away no flight is answered, for the reason given; afterwards its state is what it was."""
        store = FaultyStore()
        first = store.flight([acquire()])
        with store.away(reason):
            with pytest.raises(StoreUnavailable) as sync:
                store.flight([acquire()])
            with pytest.raises(StoreUnavailable) as aio:
                asyncio.run(store.aflight([acquire()]))
        assert [reason, reason] == [sync.value.reason, aio.value.reason]
        assert first[0][1] - 1 == store.flight([acquire()])[0][1]

    def test_hanging(self) -> None:
        """While it hangs a flight ends at its deadline, as a timeout, and has charged nothing."""
        store = FaultyStore()
        with store.hanging("10ms"):
            with pytest.raises(StoreUnavailable) as sync:
                store.flight([acquire()])
            with pytest.raises(StoreUnavailable) as aio:
                asyncio.run(store.aflight([acquire()]))
        assert ["timeout", "timeout"] == [sync.value.reason, aio.value.reason]
        assert [1, 1] == store.flight([acquire()])[0][:2]

    @pytest.mark.parametrize("asynchronous", [False, True])
    def test_hanging_ends(self, asynchronous: bool) -> None:
        """A flight that still waits when the fault ends is answered."""
        store = FaultyStore()
        answers: list[Any] = []

        def fly() -> None:
            work = acquire()
            answers.extend(asyncio.run(store.aflight([work])) if asynchronous else store.flight([work]))

        thread = threading.Thread(target=fly)
        with store.hanging("30s"):
            thread.start()
            assert store.waiting.wait(10)
            assert [] == answers
        thread.join(10)
        assert [1, 1] == answers[0][:2]
        assert not store.waiting.is_set()

    def test_failing(self) -> None:
        """An operation that fails is answered with its error, and its neighbours are answered."""
        store = FaultyStore()
        with store.failing("toy.load", "WRONGTYPE"):
            failed, fitted = store.flight([_Load("t"), acquire()])
        assert isinstance(failed, OperationFailed)
        assert "WRONGTYPE" == str(failed)
        assert [1, 1] == fitted[:2]
        assert [None] == store.flight([_Load("t")])

    def test_counts(self) -> None:
        """It remembers every flight, with what was in it, those that failed too."""
        store = FaultyStore()
        store.flight([_Load("t"), acquire("a")])
        with store.away(), pytest.raises(StoreUnavailable):
            store.flight([acquire("b")])
        asyncio.run(store.aflight([_Save("t", 200)]))
        assert [("toy.load", "ratelimit.acquire"), ("ratelimit.acquire",), ("toy.save",)] == list(store.flights)
        assert {"t", "a", "b"} == store.keys

    def test_on_loop(self) -> None:
        """It notices when the waiting call is made where an event loop runs."""
        store = FaultyStore()

        async def mistake() -> None:
            store.flight([acquire()])

        store.flight([acquire()])
        asyncio.run(store.aflight([acquire()]))
        assert 0 == store.on_loop
        asyncio.run(mistake())
        assert 1 == store.on_loop

    def test_close(self) -> None:
        """Closing forgets what was counted."""
        store = FaultyStore()
        store.flight([acquire()])
        store.start()
        asyncio.run(store.aclose())
        assert [1, 1] == store.flight([acquire()])[0][:2]


class TestToy:
    def test_memory_and_server_agree(self) -> None:
        """The toy's scripts and its steps in memory give the same answers and let their keys expire."""
        table = Table()
        load, save = _Load("t"), _Save("t", 404)
        memory = [load.apply(table, 0.0)]
        save.apply(table, 0.0)
        memory += [load.apply(table, 3599.0), load.apply(table, 3600.0)]
        with Valkey() as server:
            before = load.parse(server.run("EVAL", LOAD.source, 1, "t"))
            save.parse(server.run("EVAL", SAVE.source, 1, "t", *save.arguments))
            after = load.parse(server.run("EVAL", LOAD.source, 1, "t"))
            life = server.run("TTL", "t")
        assert [None, 404, None] == memory
        assert [None, 404] == [before, after]
        assert 3590 < life <= 3600


class TestReply:
    def test_headers(self) -> None:
        """Header fields are found in any case; lines are kept apart and in order."""
        reply = Reply(status=200, headers=[("Set-Cookie", "a=1"), ("set-cookie", "b=2"), ("Retry-After", "7")])
        assert (["a=1", "b=2"], "a=1, b=2") == (reply.lines("SET-COOKIE"), reply.header("set-cookie"))
        assert (7, None) == (reply.retry_after, reply.header("ETag"))
        assert None is Reply(status=200).retry_after

    def test_limits(self) -> None:
        """The RateLimit field is read into its members; without it there are none."""
        reply = Reply(status=200, headers=[("RateLimit", '"a";r=1;t=60, "b-2";r=0;t=5')])
        assert {"a": LimitView(1, 60), "b-2": LimitView(0, 5)} == reply.limits
        assert {} == Reply(status=200).limits


def wsgi(application: Callable[..., Iterable[bytes]]) -> WsgiApp:
    return WsgiApp(application, Site().runtime())


class Closing:
    """A WSGI body that notes what happens to it."""

    def __init__(self, *pieces: bytes) -> None:
        self.pieces = list(pieces)
        self.closed = 0

    def __iter__(self) -> Iterator[bytes]:
        while self.pieces:
            yield self.pieces.pop(0)

    def close(self) -> None:
        self.closed += 1


class TestWsgiApp:
    def test_request(self) -> None:
        """The application gets what a server gives it, and its response comes back whole."""
        seen: list[dict[str, Any]] = []

        def application(environ: dict[str, Any], start_response: Any) -> Iterable[bytes]:
            seen.append(environ)
            start_response("201 Created", [("Set-Cookie", "a=1"), ("Set-Cookie", "b=2")])
            return [b"o", b"", b"k"]

        with wsgi(application) as app:
            sent = [("X-Forwarded-For", "a"), ("X-Forwarded-For", "b")]
            reply = app.request("POST", "/caf%C3%A9?q=1", headers=sent, peer=None)
        assert (201, b"ok", ["a=1", "b=2"]) == (reply.status, reply.body, reply.lines("set-cookie"))
        (environ,) = seen
        asked = [environ[key] for key in ("REQUEST_METHOD", "PATH_INFO", "QUERY_STRING", "REMOTE_ADDR")]
        assert ["POST", "/caf\xc3\xa9", "q=1", ""] == asked
        assert "a,b" == environ["HTTP_X_FORWARDED_FOR"]

    def test_conforms(self) -> None:
        """The environment and the calls are what the standard library's checker wants."""
        from wsgiref.validate import validator

        def application(environ: dict[str, Any], start_response: Any) -> Iterable[bytes]:
            start_response("200 OK", [("Content-Type", "text/plain")])
            return [b"ok"]

        with wsgi(validator(application)) as app:
            reply = app.get("/")
        assert (200, b"ok", None) == (reply.status, reply.body, reply.raised)

    def test_error(self) -> None:
        """An application that raises is answered with 500, and the error is there to see."""

        def application(environ: dict[str, Any], start_response: Any) -> Iterable[bytes]:
            raise KeyError("lost")

        with wsgi(application) as app:
            reply = app.get("/")
        assert (500, b"") == (reply.status, reply.body)
        assert isinstance(reply.raised, KeyError)

    @pytest.mark.parametrize("mistake", ["twice", "never"])
    def test_protocol_mistakes(self, mistake: str) -> None:
        """A second start_response, or none before the body, is noticed."""

        def application(environ: dict[str, Any], start_response: Any) -> Iterable[bytes]:
            for _ in range(2 if mistake == "twice" else 0):
                start_response("200 OK", [])
            return [b"ok"]

        with wsgi(application) as app:
            assert isinstance(app.get("/").raised, AssertionError)

    def test_start_again_after_an_error(self) -> None:
        """With exc_info a response may be started again, until some of its body was sent (PEP 3333)."""

        def application(environ: dict[str, Any], start_response: Any) -> Iterable[bytes]:
            write = start_response("200 OK", [])
            if environ["PATH_INFO"] == "/late":
                write(b"half")
            try:
                raise KeyError("lost")
            except KeyError:
                start_response("500 Error", [], sys.exc_info())
            return [b"sorry"]

        with wsgi(application) as app:
            early, late = app.get("/"), app.get("/late")
        assert (500, b"sorry", None) == (early.status, early.body, early.raised)
        assert (200, b"half", KeyError) == (late.status, late.body, type(late.raised))

    def test_body_is_closed(self) -> None:
        """The body is closed once, whether it was read to its end or the client hung up."""
        bodies: list[Closing] = []

        def application(environ: dict[str, Any], start_response: Any) -> Iterable[bytes]:
            start_response("200 OK", [])
            bodies.append(Closing(b"one", b"two"))
            return bodies[-1]

        with wsgi(application) as app:
            assert b"onetwo" == app.get("/").body
            assert b"one" == app.abandon("/")
        assert [(1, []), (1, [b"two"])] == [(body.closed, body.pieces) for body in bodies]

    def test_head(self) -> None:
        """The body of an answer to HEAD goes nowhere."""

        def application(environ: dict[str, Any], start_response: Any) -> Iterable[bytes]:
            start_response("200 OK", [("Content-Length", "2")])
            return [b"ok"]

        with wsgi(application) as app:
            assert b"" == app.request("HEAD", "/").body

    def test_burst(self) -> None:
        """All requests of a burst are in the application at the same time."""
        together = threading.Barrier(8)

        def application(environ: dict[str, Any], start_response: Any) -> Iterable[bytes]:
            together.wait(10)
            start_response("200 OK", [])
            return [b"ok"]

        with wsgi(application) as app:
            assert [200] * 8 == [reply.status for reply in app.burst(8, "GET", "/")]

    def test_no_tasks(self) -> None:
        """What only event loops have says so."""
        with wsgi(lambda environ, start_response: []) as app:
            with pytest.raises(NotImplementedError, match="only tasks"):
                app.cancel("/", when=threading.Event())
            with pytest.raises(NotImplementedError, match="only ASGI"):
                app.websocket("/", "text")

    def test_close(self) -> None:
        """Closing closes the runtime, and then what else is to be closed."""
        closed: list[str] = []
        runtime = Site().runtime()
        with WsgiApp(lambda environ, start_response: [], runtime, on_close=lambda: closed.append("yes")):
            assert runtime in failsoft.runtime.runtimes()
        assert ["yes"] == closed
        assert runtime not in failsoft.runtime.runtimes()


Application = Callable[[Any, Callable[[], Awaitable[Any]], Callable[[Any], Awaitable[None]]], Awaitable[None]]


def asgi(application: Application) -> AsgiApp:
    """An `AsgiApp` of an application that knows only HTTP."""

    async def without_lifespan(scope: Any, receive: Any, send: Any) -> None:
        if scope["type"] == "lifespan":
            raise ValueError("only HTTP")
        await application(scope, receive, send)

    return AsgiApp(without_lifespan, Site().runtime())


async def respond(send: Any, body: bytes = b"ok", *, more: bool = False) -> None:
    await send(
        {"type": "http.response.start", "status": 200, "headers": [(b"set-cookie", b"a=1"), (b"set-cookie", b"b=2")]}
    )
    await send({"type": "http.response.body", "body": body, "more_body": more})


class TestAsgiApp:
    def test_request(self) -> None:
        """The application gets what a server gives it, and its response comes back whole."""
        seen: list[Any] = []

        async def application(scope: Any, receive: Any, send: Any) -> None:
            seen.append((scope, await receive()))
            await respond(send)

        with asgi(application) as app:
            reply = app.request("POST", "/caf%C3%A9?q=1", headers=[("X-One", "a"), ("X-One", "b")], peer=None)
        assert (200, b"ok", ["a=1", "b=2"]) == (reply.status, reply.body, reply.lines("Set-Cookie"))
        ((scope, message),) = seen
        asked = [scope[key] for key in ("method", "path", "query_string", "client")]
        assert ["POST", "/café", b"q=1", None] == asked
        assert [b"a", b"b"] == [value for name, value in scope["headers"] if name == b"x-one"]
        assert {"type": "http.request", "body": b"", "more_body": False} == message

    def test_error(self) -> None:
        """An application that raises is answered with 500, and the error is there to see."""

        async def application(scope: Any, receive: Any, send: Any) -> None:
            raise KeyError("lost")

        with asgi(application) as app:
            reply = app.get("/")
        assert (500, KeyError) == (reply.status, type(reply.raised))

    @pytest.mark.parametrize("mistake", ["start twice", "body first", "body after the end"])
    def test_protocol_mistakes(self, mistake: str) -> None:
        """Messages in the wrong order are noticed."""

        async def application(scope: Any, receive: Any, send: Any) -> None:
            if mistake == "body first":
                await send({"type": "http.response.body", "body": b""})
            await respond(send, more=mistake == "start twice")
            await respond(send)

        with asgi(application) as app:
            assert isinstance(app.get("/").raised, AssertionError)

    def test_hang_up(self) -> None:
        """Who hangs up after the first piece is told of as gone, and gets no more."""
        gone: list[str] = []

        async def application(scope: Any, receive: Any, send: Any) -> None:
            await receive()
            await respond(send, b"one", more=True)
            gone.append((await receive())["type"])
            await send({"type": "http.response.body", "body": b"two"})

        with asgi(application) as app:
            assert b"one" == app.abandon("/")
        assert ["http.disconnect"] == gone

    def test_context_is_empty(self) -> None:
        """What is current in the test is not in the request."""
        runtime = Runtime(Settings())
        seen: list[Any] = []

        async def application(scope: Any, receive: Any, send: Any) -> None:
            seen.append(failsoft.exchange.current())
            await respond(send)

        token = enter(runtime.begin(PlainFacts()))
        try:
            with asgi(application) as app:
                app.get("/")
        finally:
            leave(token)
            runtime.close()
        assert [None] == seen

    def test_burst(self) -> None:
        """All requests of a burst are in the application at the same time."""
        inside = 0
        most = 0

        async def application(scope: Any, receive: Any, send: Any) -> None:
            nonlocal inside, most
            inside += 1
            most = max(most, inside)
            await asyncio.sleep(0)
            inside -= 1
            await respond(send)

        with asgi(application) as app:
            assert [200] * 8 == [reply.status for reply in app.burst(8, "GET", "/")]
        assert 8 == most

    def test_cancel(self) -> None:
        """A request is cancelled where it waits; one that swallows that, or is over before, says so."""
        entered = threading.Event()

        async def application(scope: Any, receive: Any, send: Any) -> None:
            entered.set()
            try:
                await asyncio.Event().wait()
            except asyncio.CancelledError:
                if scope["path"] == "/":
                    raise

        with asgi(application) as app:
            assert app.cancel("/", when=entered)
            entered.clear()
            assert not app.cancel("/swallows", when=entered)

    def test_hanging(self, monkeypatch: pytest.MonkeyPatch) -> None:
        """A request that does not end is cancelled in the end, and the test told; the application goes on serving."""
        monkeypatch.setattr("failsoft.testing.servers.PATIENCE", 0.05)
        cancelled: list[str] = []

        async def application(scope: Any, receive: Any, send: Any) -> None:
            if scope["path"] == "/hangs":
                try:
                    await asyncio.Event().wait()
                finally:
                    cancelled.append(scope["path"])
            await respond(send)

        with asgi(application) as app:
            with pytest.raises(TimeoutError):
                app.get("/hangs")
            assert (["/hangs"], 200) == (cancelled, app.get("/").status)

    def test_websocket(self) -> None:
        """A WebSocket's answers come back, and how it ended; one that is not opened has the status of its refusal."""

        async def application(scope: Any, receive: Any, send: Any) -> None:
            assert {"type": "websocket.connect"} == await receive()
            if scope["path"] == "/closed":
                await send({"type": "websocket.close"})
            elif scope["path"] == "/denied":
                await send({"type": "websocket.http.response.start", "status": 404, "headers": [(b"x-why", b"so")]})
                await send({"type": "websocket.http.response.body", "body": b"no"})
            else:
                await send({"type": "websocket.accept"})
                while (message := await receive())["type"] == "websocket.receive":
                    await send({"type": "websocket.send", "text": message["text"].upper()})
                    if message["text"] == "end":
                        await send({"type": "websocket.close", "code": 4000, "reason": "ended"})
                assert {"type": "websocket.disconnect", "code": 4000 if scope["path"] == "/end" else 1000} == message

        with asgi(application) as app:
            one = app.websocket("/", "a", "b")
            assert (101, ("A", "B"), None) == (one.status, one.texts, one.code)
            one = app.websocket("/end", "a", "end", "b")
            assert (("A", "END"), 4000, "ended", None) == (one.texts, one.code, one.reason, one.raised)
            one = app.websocket("/denied", "a")
            assert (404, "so", b"no", ()) == (one.status, one.header("x-why"), one.body, one.texts)
            assert (403, 1000) == ((one := app.websocket("/closed", "a")).status, one.code)

    @pytest.mark.parametrize(
        "messages",
        [
            [{"type": "websocket.send", "text": "early"}],
            [{"type": "websocket.close"}, {"type": "websocket.close"}],
            [{"type": "websocket.accept"}, {"type": "websocket.accept"}],
        ],
    )
    def test_websocket_mistakes(self, messages: list[Any]) -> None:
        """What an application must not send at that time is noticed."""

        async def application(scope: Any, receive: Any, send: Any) -> None:
            for message in messages:
                await send(message)

        with asgi(application) as app:
            assert isinstance(app.websocket("/").raised, AssertionError)

    def test_websocket_received_too_early(self) -> None:
        """An application that wants messages before it accepted would wait for ever."""

        async def application(scope: Any, receive: Any, send: Any) -> None:
            await receive()
            await receive()

        with asgi(application) as app:
            one = app.websocket("/", "a")
            assert (500, True) == (one.status, isinstance(one.raised, AssertionError))

    def test_body(self) -> None:
        """A request's body comes in the pieces that a server would hand on, with its length."""
        seen: list[Any] = []

        async def application(scope: Any, receive: Any, send: Any) -> None:
            seen.append(dict(scope["headers"])[b"content-length"])
            while (message := await receive())["more_body"]:
                seen.append(len(message["body"]))
            seen.append(len(message["body"]))
            await respond(send)

        with asgi(application) as app:
            app.request("POST", "/", body=b"x" * 70_000)
        assert [b"70000", 65_536, 4_464] == seen

    def test_lifespan(self) -> None:
        """The lifespan starts before the first request and ends when the app is closed."""
        order: list[str] = []

        async def application(scope: Any, receive: Any, send: Any) -> None:
            if scope["type"] == "lifespan":
                for phase in ("startup", "shutdown"):
                    order.append((await receive())["type"])
                    await send({"type": f"lifespan.{phase}.complete"})
            else:
                order.append("request")
                await respond(send)

        with AsgiApp(application, Site().runtime()) as app:
            app.get("/")
        assert ["lifespan.startup", "request", "lifespan.shutdown"] == order

    def test_failed_startup(self) -> None:
        """An application whose startup fails is not served, and nothing of it stays."""

        async def application(scope: Any, receive: Any, send: Any) -> None:
            await receive()
            await send({"type": "lifespan.startup.failed", "message": "no database"})

        before = threading.active_count()
        runtime = Site().runtime()
        with pytest.raises(RuntimeError, match="startup failed: no database"):
            AsgiApp(application, runtime)
        assert before == threading.active_count()
        runtime.close()


class TestOutsideRequest:
    def test_allows(self) -> None:
        """Within, a decorated function runs, with nothing enforced; before and after it raises."""

        @limit("1/minute")
        def view() -> str:
            return "ok"

        with pytest.raises(OutsideRequest, match="outside_request"):
            view()
        with outside_request():
            assert ["ok", "ok"] == [view(), view()]
        with pytest.raises(OutsideRequest):
            view()

    def test_changes_nothing_in_requests(self, runtime: Runtime) -> None:
        """Limits of a request that is served stay enforced."""
        with outside_request():
            assert [True, False] == [admitted(runtime), admitted(runtime)]


class TestPlugin:
    @pytest.fixture(autouse=True)
    def alone(self, monkeypatch: pytest.MonkeyPatch) -> None:
        """The fixtures act on every application of the process; here on those of a test, whatever other tests have left."""
        monkeypatch.setattr(failsoft.runtime, "_runtimes", WeakSet())

    def test_off(self, runtime: Runtime, request: pytest.FixtureRequest) -> None:
        """No limit applies: not in runtimes that were there, nor in those that are made later, nor late."""
        request.getfixturevalue("failsoft_off")
        made = Runtime(Settings(limits=("1/minute",)))

        @limit("1/minute")
        def late() -> str:
            return "ok"

        for one in (runtime, made):
            assert [True, True] == [admitted(one), admitted(one)]
            token = enter(one.begin(PlainFacts()))
            try:
                assert ["ok", "ok"] == [late(), late()]
            finally:
                leave(token)
        made.close()

    def test_off_ends(self, runtime: Runtime) -> None:
        """When the test ends limits apply again, and new runtimes are left alone."""
        for _ in _using(plugin.failsoft_off):
            assert [True, True] == [admitted(runtime), admitted(runtime)]
        made = Runtime(Settings(limits=("1/minute",)))
        for one in (runtime, made):
            assert [True, False] == [admitted(one), admitted(one)]
        made.close()

    def test_clock(self, runtime: Runtime, failsoft_clock: ManualClock) -> None:
        """Time stands still for runtimes that were there and for those that are made later, until it is advanced."""
        made = Runtime(Settings(limits=("1/minute",)))
        for one in (runtime, made):
            assert [True, False] == [admitted(one), admitted(one)]
            failsoft_clock.advance("59s")
            assert not admitted(one)
            failsoft_clock.advance("1s")
            assert [True, False] == [admitted(one), admitted(one)]
        made.close()

    def test_clock_starts_unused_and_leaves_nothing(self, runtime: Runtime) -> None:
        """What was used before the test does not count in it, and what the test used does not count after it."""
        before = runtime.clock
        assert [True, False] == [admitted(runtime), admitted(runtime)]
        for clock in _using(plugin.failsoft_clock):
            assert [True, False] == [admitted(runtime), admitted(runtime)]
            clock.advance("1d")
            assert [True, False] == [admitted(runtime), admitted(runtime)]
        assert [True, False] == [admitted(runtime), admitted(runtime)]
        assert [before] * 3 == [runtime.clock, runtime.limits.clock, runtime.store.clock]  # type: ignore[attr-defined]  # memory

    def test_clock_of_a_server(self, failsoft_clock: ManualClock) -> None:
        """A store with a clock of its own cannot be held still: an error that says so, and no runtime."""
        settings = Settings(limits=("1/minute",))
        known = set(failsoft.runtime.runtimes())
        with pytest.raises(ConfigurationError, match=r"cannot hold faulty:// still.*memory://"):
            Runtime(settings, store=FaultyStore())
        assert known == set(failsoft.runtime.runtimes())

    def test_clock_of_a_server_that_was_there(self) -> None:
        """The same for an application that was made before the test."""
        runtime = Runtime(Settings(limits=("1/minute",)), store=FaultyStore())
        try:
            with pytest.raises(ConfigurationError, match="cannot hold"):
                next(_using(plugin.failsoft_clock))
        finally:
            runtime.close()

    def test_clock_where_one_was_there(self) -> None:
        """An application that nobody has any more is in nobody's way, even if it has not been collected yet."""
        gone: Any = Runtime(Settings(limits=("1/minute",)), store=FaultyStore())
        gone.itself = gone
        del gone
        assert 1 == len(list(_using(plugin.failsoft_clock)))

    @pytest.mark.processes
    @pytest.mark.once
    def test_is_found_and_costs_little(self, tmp_path: Path) -> None:
        """Installed, the fixtures are found; until one is used, nothing that serves requests is imported."""
        package = tmp_path / "probe-1.dist-info"
        package.mkdir()
        (package / "METADATA").write_text("Metadata-Version: 2.1\nName: probe\nVersion: 1\n")
        (package / "entry_points.txt").write_text("[pytest11]\nfailsoft = failsoft.testing.plugin\n")
        (tmp_path / "test_probe.py").write_text(
            "import sys\n"
            "def test_lazy():\n"
            "    for name in ('runtime', 'drivers', 'stores', 'testing.harness', 'testing.contract'):\n"
            "        assert 'failsoft.' + name not in sys.modules\n"
            "def test_off(failsoft_off):\n"
            "    assert 'failsoft.runtime' in sys.modules\n"
            "def test_clock(failsoft_clock):\n"
            "    failsoft_clock.advance('10s')\n"
            "    assert 10.0 == failsoft_clock.monotonic()\n"
        )
        paths = [str(tmp_path), *failsoft.__path__[0].rsplit("failsoft", 1)[:1], os.environ.get("PYTHONPATH", "")]
        done = subprocess.run(
            [sys.executable, "-m", "pytest", "-q", "-W", "error", "-p", "no:cacheprovider", str(tmp_path)],
            env={**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, paths))},
            cwd=tmp_path,
            capture_output=True,
            text=True,
            timeout=50,
            check=False,
        )
        assert (0, "3 passed") == (done.returncode, done.stdout.splitlines()[-1].partition(" in ")[0]), done.stdout


def _using(fixture: Any) -> Iterator[Any]:
    """A fixture of the plugin, for one round of a loop, with what it needs."""
    with pytest.MonkeyPatch.context() as monkeypatch:
        made = fixture.__wrapped__(monkeypatch)
        if made is None:
            yield
        else:
            yield from made


class TestExports:
    def test_names(self) -> None:
        """Every public name can be had, and no other."""
        assert [] == [name for name in testing.__all__ if getattr(testing, name, None) is None]
        assert set(testing.__all__) <= set(dir(testing))
        with pytest.raises(AttributeError, match="nothing_such"):
            _ = testing.nothing_such

    def test_view_decorators(self) -> None:
        """Decorators are applied as they would be written, the outermost first."""
        order: list[str] = []

        def noting(name: str) -> Callable[[Any], Any]:
            def decorate(target: Any) -> Any:
                order.append(name)
                return target

            return decorate

        view = View(path="/", decorators=[noting("a"), noting("b")], above_route=[noting("c"), noting("d")])
        assert "target" == view.decorated("target")
        view.decorate_above_route("target")
        assert ["b", "a", "d", "c"] == order
