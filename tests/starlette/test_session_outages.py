"""Sessions in Starlette while the store is away: nobody is logged out, nothing is acknowledged that was not written."""

import asyncio
import json
import random
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from http.client import HTTPConnection
from typing import Any

import pytest
from starlette.applications import Starlette
from starlette.background import BackgroundTask
from starlette.middleware import Middleware
from starlette.middleware.base import BaseHTTPMiddleware
from starlette.requests import Request
from starlette.responses import PlainTextResponse, RedirectResponse, Response, StreamingResponse
from starlette.routing import Route

from failsoft import Settings
from failsoft.errors import SessionUnavailable
from failsoft.runtime import Runtime
from failsoft.sessions.live import require_live_session
from failsoft.testing import AsgiApp, FaultyStore
from failsoft_starlette import FailsoftMiddleware
from tests.servers import Lag, Valkey, free_port, poll
from tests.starlette.apps import Open
from tests.starlette.browsers import NAME, SECRET, Browser, call, server_runtime, site

pytestmark = pytest.mark.broad


@pytest.fixture
def outage() -> Iterator[ExitStack]:
    """What is entered in it ends with the test, or when the test closes it."""
    with ExitStack() as stack:
        yield stack


@pytest.fixture
def browse(open_app: Open) -> Callable[..., Browser]:
    """Opens a site with sessions, and gives a browser with a session."""

    def open_one(*routes: Any, session_settings: Any = (), **options: Any) -> Browser:
        settings = {"sessions": True, "secret": SECRET, **dict(session_settings)}
        browser = Browser(open_app([*site(), *routes], **options, **settings))
        browser.get("/write?a=1")
        return browser

    return open_one


def store_of(browser: Browser) -> FaultyStore:
    store = browser.app.runtime.store
    assert isinstance(store, FaultyStore)
    return store


# What was not written is not acknowledged


class Passing(BaseHTTPMiddleware):
    """Does nothing, in the way that puts the application into a task of its own."""

    async def dispatch(self, request: Request, call_next: Any) -> Response:
        return await call_next(request)  # type: ignore[no-any-return]  # Starlette's own type for it is this


class Swallowing:
    """Hides every error, and sends on as if nobody had raised one."""

    def __init__(self, app: Any) -> None:
        self.app = app

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        async def stubborn(message: Any) -> None:
            try:
                await send(message)
            except OSError:
                pass

        await self.app(scope, receive, stubborn)


class Wrapping:
    """Makes another error of every error."""

    def __init__(self, app: Any) -> None:
        self.app = app

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        try:
            await self.app(scope, receive, send)
        except Exception as error:
            raise RuntimeError("something went wrong") from error


class Handling(Starlette):
    """An application with an error handler for everything."""

    def __init__(self, **options: Any) -> None:
        async def handle(request: Request, error: Exception) -> Response:
            return PlainTextResponse("handled", 500)

        super().__init__(exception_handlers={OSError: handle}, **options)


MIDDLEWARE: dict[str, Any] = {
    "none": (),
    "passing": [Middleware(Passing)],
    "swallowing": [Middleware(Swallowing)],
    "wrapping": [Middleware(Wrapping)],
}


def going_away(outage: ExitStack, made: list[str]) -> list[Route]:
    """Views that write to the session, and lose its store at once."""

    def write(request: Request) -> None:
        request.session["b"] = 2
        outage.enter_context(request.app.state.store.away())

    def headed(response: Response) -> Response:
        response.set_cookie("theirs", "1")
        response.headers["x-their-own"] = "1"
        return response

    async def plain(request: Request) -> Response:
        write(request)
        return headed(PlainTextResponse("it is written", background=BackgroundTask(made.append, "background")))

    async def stream(request: Request) -> Response:
        write(request)

        async def pieces() -> Any:
            while True:  # until nobody listens
                made.append("piece")
                assert len(made) < 1000
                yield b"it is written"
                await asyncio.sleep(0)

        return headed(StreamingResponse(pieces(), background=BackgroundTask(made.append, "background")))

    return [Route("/plain", plain), Route("/stream", stream)]


@pytest.mark.parametrize("make", [Starlette, Handling])
@pytest.mark.parametrize("between", [name for name in MIDDLEWARE if name != "swallowing"])
@pytest.mark.parametrize("path", ["/plain", "/stream"])
def test_not_acknowledged(browse, outage, path, between, make):
    """What the store did not take is refused in the response's place; of the view's answer nothing is sent, and nothing goes on."""
    made: list[str] = []
    browser = browse(*going_away(outage, made), inside=MIDDLEWARE[between], make=make, limits=["10/minute"])
    browser.app.application.state.store = store_of(browser)
    before = dict(browser.jar)
    reply = browser.get(path)
    outage.close()
    expected = (503, "application/problem+json", "1", None, None, "session;reason=no_connection")
    fields = ("content-type", "retry-after", "x-their-own", "set-cookie", "degraded")
    assert expected == (reply.status, *map(reply.header, fields))
    assert (b"written" in reply.body, reply.raised, before) == (True, reply.raised, browser.jar)
    assert "was not written" in reply.json()["detail"]
    assert 1 == len(reply.lines("ratelimit"))
    assert "background" not in made
    assert {"a": "1"} == browser.json("/read")


@pytest.mark.parametrize(("between", "make"), [("none", Starlette), ("passing", Starlette), ("wrapping", Starlette)])
@pytest.mark.parametrize("path", ["/plain", "/stream"])
def test_no_error_for_the_server(browse, outage, path, between, make):
    """What the application makes of it is no error that a server would log."""
    browser = browse(*going_away(outage, []), inside=MIDDLEWARE[between], make=make)
    browser.app.application.state.store = store_of(browser)
    assert (503, None) == ((reply := browser.get(path)).status, reply.raised)


def test_an_application_that_goes_on(browse, outage):
    """An application that hides the error does not disturb the refusal."""
    browser = browse(*going_away(outage, []), inside=MIDDLEWARE["swallowing"])
    browser.app.application.state.store = store_of(browser)
    reply = browser.get("/plain")
    assert (503, None) == (reply.status, reply.raised)
    assert "was not written" in reply.json()["detail"]


def test_an_application_that_tries_again(browse, outage):
    """An application that hides the error hears it again with all that it sends; none of it reaches the client."""
    heard: list[str] = []

    class Stubborn:
        def __init__(self, app: Any) -> None:
            self.app = app

        async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
            if scope["path"] != "/stubborn":
                await self.app(scope, receive, send)
                return
            scope["session"]["b"] = 2
            outage.enter_context(store_of(browser).away())
            start = {"type": "http.response.start", "status": 200, "headers": []}
            for message in (start, {"type": "http.response.body", "body": b"it is written"}):
                try:
                    await send(message)
                except OSError as error:
                    heard.append(str(error))

    browser = browse(inside=[Middleware(Stubborn)])
    reply = browser.get("/stubborn")
    assert (503, None, 2, 1) == (reply.status, reply.raised, len(heard), len(set(heard)))
    assert b"it is written" not in reply.body


def test_an_error_of_its_own(browse, outage):
    """An error that has nothing to do with it stays the application's own."""

    class Failing(Swallowing):
        async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
            await super().__call__(scope, receive, send)
            if scope["path"] == "/plain":
                raise ZeroDivisionError

    browser = browse(*going_away(outage, []), inside=[Middleware(Failing)])
    browser.app.application.state.store = store_of(browser)
    reply = browser.get("/plain")
    assert (503, ZeroDivisionError) == (reply.status, type(reply.raised))


def test_head(browse, outage):
    """A refusal in a response's place has no body where the request was HEAD."""
    browser = browse(*going_away(outage, []))
    browser.app.application.state.store = store_of(browser)
    reply = browser.get("/plain", method="HEAD")
    assert (503, b"", True) == (reply.status, reply.body, int(reply.header("content-length") or 0) > 0)


def test_rendered(browse, outage):
    """The application's own answer to refusals is given here too."""
    browser = browse(*going_away(outage, []), renderer=lambda request, rejected: PlainTextResponse("later", 503))
    browser.app.application.state.store = store_of(browser)
    reply = browser.get("/plain")
    assert (503, b"later", "1") == (reply.status, reply.body, reply.header("retry-after"))


def test_a_refusal_stands(browse, outage):
    """A view that wrote to the session and then refuses is not overruled by what became of the session."""

    async def refusing(request: Request) -> Response:
        request.session["b"] = 2
        outage.enter_context(request.app.state.store.away())
        request.session["c"] = 3
        await request.session.save()  # type: ignore[attr-defined]  # Starlette calls it a dict
        return PlainTextResponse("it is written")

    browser = browse(Route("/refusing", refusing))
    browser.app.application.state.store = store_of(browser)
    reply = browser.get("/refusing")
    assert (503, None, 1) == (reply.status, reply.raised, len(reply.lines("content-type")))


def test_what_cannot_be_kept(browse, caplog):
    """A value that became what cannot be kept, inside, fails the request rather than be left out."""

    async def spoil(request: Request) -> Response:
        request.session["list"].append(threading.Lock())
        return PlainTextResponse("it is written")

    browser = browse(Route("/spoil", spoil))
    browser.get("/append")
    assert 500 == browser.get("/spoil").status
    assert "'list'" in caplog.text
    assert [0] == browser.json("/read")["list"]


# Logout


@pytest.mark.parametrize(("status", "expected"), [(200, 202), (204, 202), (201, 201), (302, 302), (404, 404)])
def test_logout(browse, outage, status, expected):
    """A logout while the store is away is accepted, deletes the cookies, and is made up for later."""

    async def out(request: Request) -> Response:
        request.session.logout()  # type: ignore[attr-defined]  # Starlette calls it a dict
        return RedirectResponse("/", 302) if status == 302 else Response(status_code=status)

    browser = browse(Route("/out", out))
    browser.get("/login?who=7")
    copied = browser.twin()
    with store_of(browser).away():
        reply = browser.get("/out")
        assert (expected, "session;reason=no_connection") == (reply.status, reply.header("degraded"))
        assert {f"{NAME}-logout"} == set(browser.jar)
    assert "7" == copied.json("/me")
    browser.get("/nothing")
    assert {} == browser.jar
    assert copied.json("/me") is None


# Snapshots


SNAPSHOT = {"session_snapshot": 300, "session_snapshot_keys": ["a"]}


def test_snapshot(browse):
    """A snapshot stands in for the session, for reading, except where the view needs the session itself."""

    @require_live_session
    async def live(request: Request) -> Response:
        return PlainTextResponse("ok")

    browser = browse(Route("/live", live), session_settings=SNAPSHOT)
    browser.get("/login?who=7")
    assert 200 == browser.get("/live").status
    with store_of(browser).away():
        assert ["7", {"a": "1"}] == [browser.json("/me"), browser.json("/thread/read")]
        assert [503, 503] == [browser.get(path).status for path in ("/write?b=1", "/live")]
        assert 200 == Browser(browser.app).get("/live").status
    assert 200 == browser.get("/live").status


# A real server


@pytest.fixture(scope="module")
def server() -> Iterator[Valkey]:
    """One that remembers what it was told when it is killed."""
    with Valkey("--appendonly", "yes", "--appendfsync", "always") as server:
        yield server


POLICIES = {
    "refuse": {},
    "empty": {"session_on_outage": "empty"},
    "snapshot": SNAPSHOT,
}

EXPECTED: dict[str, dict[str, Any]] = {
    "refuse": {"/nothing": (200, None), "/read": (503, "problem"), "/me": (503, "problem")},
    "empty": {"/nothing": (200, None), "/read": (200, {}), "/me": (200, None)},
    "snapshot": {"/nothing": (200, None), "/read": (200, {"a": "1"}), "/me": (200, "7")},
}


def said(reply: Any) -> Any:
    body = reply.json()
    return reply.status, "problem" if reply.status == 503 and body["status"] == 503 else body


@pytest.mark.processes
@pytest.mark.parametrize("policy", POLICIES)
@pytest.mark.parametrize("how", ["refused", "hung", "restarted"])
def test_outages(server, open_app, how, policy):
    """However the server goes away: in time, as the settings say, no cookie lost, and afterwards still the same user."""
    deadline = 0.1
    runtime = server_runtime(server.url, prefix=f"{how}-{policy}", deadline=deadline, **POLICIES[policy])
    browser = Browser(open_app(site(), runtime=runtime))

    def healthy(path: str) -> Any:
        """What the store has to say in the end: a machine that stands still for longer than the deadline is an outage too."""

        def whole() -> Any:
            reply = browser.get(path)
            return reply if reply.status == 200 and "degraded" not in [name for name, _ in reply.headers] else None

        return poll(whole)

    healthy("/login?who=7")
    healthy("/write?a=1")
    before = dict(browser.jar)
    if how == "restarted":
        server.restart()
    else:
        {"refused": server.kill, "hung": server.pause}[how]()
        took: list[float] = []
        with Lag() as lag:
            for path, expected in EXPECTED[policy].items():
                began = time.monotonic()
                assert expected == said(browser.get(path))
                took.append(time.monotonic() - began)
            for path in ("/write?a=2", "/thread/write?a=2", "/login?who=8", "/rotate"):
                began = time.monotonic()
                assert 503 == browser.get(path).status
                took.append(time.monotonic() - began)
            leaving = browser.twin()
            assert 202 == leaving.get("/logout").status
        assert max(took) < 4 * deadline + lag.worst
        assert before == browser.jar
        {"refused": server.start, "hung": server.resume}[how]()
    assert ["7", {"a": "1"}] == [healthy("/me").json(), healthy("/read").json()]
    healthy("/write?a=3")
    assert {"a": "3"} == healthy("/read").json()
    if how != "restarted":
        leaving.get("/nothing")
        assert healthy("/me").json() is None


@pytest.mark.processes
def test_a_server_that_forgets(open_app):
    """A server that lost the session gives no other: the user is a stranger, and the next write begins anew."""
    with Valkey() as server:
        browser = Browser(open_app(site(), runtime=server_runtime(server.url)))
        browser.get("/login?who=7")
        before = dict(browser.jar)
        server.restart()
        poll(lambda: "degraded" not in [name for name, _ in browser.twin().get("/nothing").headers])
        assert browser.json("/me") is None
        assert before == browser.jar
        browser.get("/write?a=1")
        assert before[NAME] != browser.jar[NAME]


# Cancellation


def application(runtime: Runtime, *routes: Route) -> Starlette:
    return Starlette(routes=[*site(), *routes], middleware=[Middleware(FailsoftMiddleware, runtime=runtime)])


@pytest.mark.processes
@pytest.mark.parametrize("path", ["/read", "/write?a=2", "/rotate", "/logout"])
def test_cancelled(path):
    """A request that is cancelled while the store is asked leaves no connection behind, and nobody gets its answer."""

    async def scenario(server: Valkey) -> None:
        runtime = server_runtime(server.url, deadline=0.25, max_connections=2)
        app = application(runtime)
        mine: dict[str, str] = {}
        yours: dict[str, str] = {}
        await call(app, "/write?a=1&who=me", mine)
        await call(app, "/write?a=1&who=you", yours)
        server.pause()
        tasks = [asyncio.ensure_future(call(app, path, dict(mine))) for _ in range(5)]
        await asyncio.sleep(0.01)
        for task in tasks:
            task.cancel()
        ended = await asyncio.gather(*tasks, return_exceptions=True)
        server.resume()
        assert [asyncio.CancelledError] * 5 == [type(one) for one in ended]
        while (reply := await call(app, "/read", dict(yours))).status == 503:  # noqa: ASYNC110  # who is refused at once does not let the loop turn
            await asyncio.sleep(0.01)
        assert {"a": "1", "who": "you"} == reply.json()
        for _ in range(20):
            assert "you" == (await call(app, "/read", dict(yours))).json()["who"]
        await runtime.store.aclose()  # type: ignore[attr-defined]  # a server's store
        runtime.close()

    with Valkey() as server:
        asyncio.run(scenario(server))
        poll(lambda: server.connections() == 0)


def test_cancelled_in_a_save(browse, outage):
    """A request that is cancelled while its session is written says nothing, and the session stays sound."""
    browser = browse()
    store = store_of(browser)

    async def scenario(headers: list[tuple[bytes, bytes]]) -> None:
        async def send(message: Any) -> None:
            raise AssertionError("something was sent")

        async def inner(scope: Any, receive: Any, outer: Any) -> None:
            scope["session"]["b"] = 2
            outage.enter_context(store.hanging(30))
            await outer({"type": "http.response.start", "status": 200, "headers": []})

        middleware = FailsoftMiddleware(inner, runtime=browser.app.runtime)
        scope = {"type": "http", "method": "GET", "path": "/", "headers": headers, "query_string": b""}
        task = asyncio.ensure_future(middleware(scope, None, send))  # type: ignore[arg-type]  # nobody receives
        while not store.waiting.is_set():  # noqa: ASYNC110 - the store sets it, in a thread
            await asyncio.sleep(0.001)
        task.cancel()
        await asyncio.wait([task])
        assert task.cancelled()

    asyncio.run(scenario([(b"cookie", browser.cookies[0][1].encode())]))
    outage.close()
    assert 200 == browser.get("/write?c=3").status
    assert {"a": "1", "c": "3"}.items() <= browser.json("/read").items()


def test_a_client_that_hangs_up(browse):
    """A client that leaves in the middle of a stream has its session written all the same: it was, when the stream began."""

    async def stream(request: Request) -> Response:
        request.session["streamed"] = True

        async def pieces() -> Any:
            while True:
                yield b"piece"
                await asyncio.sleep(0.001)

        return StreamingResponse(pieces())

    browser = browse(Route("/stream", stream))

    async def leave() -> int:
        sent: list[Any] = []
        gone = asyncio.Event()

        async def receive() -> Any:
            await gone.wait()
            return {"type": "http.disconnect"}

        async def send(message: Any) -> None:
            sent.append(message)
            if len(sent) > 2:
                gone.set()

        headers = [(b"cookie", browser.cookies[0][1].encode())]
        scope = {
            "type": "http",
            "method": "GET",
            "path": "/stream",
            "headers": headers,
            "query_string": b"",
            "root_path": "",
        }
        await browser.app.application(scope, receive, send)
        return int(sent[0]["status"])

    assert 200 == asyncio.run(leave())
    assert {"a": "1", "streamed": True} == browser.json("/read")


def test_fifty_sessions(redis_url):
    """Fifty browsers at once, some of which leave at any moment: nobody ever reads another's session."""
    seeded = random.Random(4)

    async def scenario() -> int:
        runtime = server_runtime(redis_url, prefix="fifty", deadline=0.25)
        app = application(runtime)
        cancelled = 0

        async def one(number: int) -> None:
            nonlocal cancelled
            jar: dict[str, str] = {}
            while not jar:  # as long as the first connections are made, for which the loop needs time
                await asyncio.sleep(0.01)
                await call(app, f"/write?who={number}", jar)
            for turn in range(10):
                path = ("/read", "/me", f"/write?turn={turn}")[turn % 3]
                task = asyncio.ensure_future(call(app, path, dict(jar)))
                if seeded.random() < 0.4:
                    await asyncio.sleep(seeded.random() * 0.01)
                    task.cancel()
                try:
                    reply = await task
                except asyncio.CancelledError:
                    cancelled += 1
                    continue
                if path == "/read" and reply.status == 200:
                    assert str(number) == reply.json()["who"]

        await asyncio.gather(*(one(number) for number in range(50)))
        await runtime.store.aclose()  # type: ignore[attr-defined]  # a server's store
        runtime.close()
        return cancelled

    assert asyncio.run(scenario()) > 10


def test_unavailable_is_caught(browse):
    """A view may catch it and do without."""

    async def careful(request: Request) -> Response:
        try:
            return PlainTextResponse(request.session["a"])
        except SessionUnavailable:
            return PlainTextResponse("later")

    browser = browse(Route("/careful", careful))
    app: AsgiApp = browser.app
    assert b"1" == app.get("/careful", *browser.cookies).body
    with store_of(browser).away():
        reply = app.get("/careful", *browser.cookies)
        assert (b"later", "session;reason=no_connection") == (reply.body, reply.header("degraded"))


# An application that fails after it has saved


async def save_and_fail(request: Request) -> Response:
    session: Any = request.session
    session["kept"] = 1
    session.rotate()
    await session.save()
    session["lost"] = 1
    raise ZeroDivisionError


def revoking(sessions: Any) -> Any:
    async def revoke_and_fail(request: Request) -> Response:
        session: Any = request.session
        await sessions().subjects.arevoke_others(session.session)
        raise ZeroDivisionError

    return revoke_and_fail


@pytest.mark.parametrize("how", ["save", "revoke"])
@pytest.mark.parametrize("method", ["GET", "HEAD"])
def test_an_error_after_a_save(browse, how, method):
    """A view that fails after it has given the session another id: the 500 brings the cookies, and the server hears of the error."""
    browser = browse(
        Route("/save", save_and_fail),
        Route("/revoke", revoking(lambda: browser.app.runtime.sessions)),
        limits=["9/minute"],
    )
    browser.get("/login?who=7")
    before = browser.jar[NAME]
    reply = browser.get(f"/{how}", method=method)
    assert (500, ZeroDivisionError) == (reply.status, type(reply.raised))
    assert [1, "application/problem+json"] == [len(reply.lines("content-type")), reply.header("content-type")]
    assert ["no-store", True] == [(reply.header("cache-control") or "")[:8], reply.header("ratelimit") is not None]
    assert (b"" if method == "HEAD" else 500) == (reply.body if method == "HEAD" else reply.json()["status"])
    assert before != browser.jar[NAME]
    clock: Any = browser.app.runtime.clock
    clock.advance(11)
    assert "7" == browser.json("/me")
    assert {"a": "1", **({"kept": 1} if how == "save" else {})} == browser.json("/read")


def test_an_error_before_a_save(browse):
    """A view that fails before anything was saved is answered by Starlette, as ever, and nothing is written."""

    async def fail(request: Request) -> Response:
        request.session["b"] = 1
        request.session.rotate()  # type: ignore[attr-defined]  # Starlette calls it a dict
        raise ZeroDivisionError

    browser = browse(Route("/fail", fail))
    before = dict(browser.jar)
    reply = browser.get("/fail")
    assert (500, ZeroDivisionError, b"Internal Server Error") == (reply.status, type(reply.raised), reply.body)
    assert (before, {"a": "1"}) == (browser.jar, browser.json("/read"))


def test_an_error_in_a_stream(browse):
    """A response that has begun has the cookies already; the error breaks it off, as ever."""

    async def stream(request: Request) -> Response:
        request.session.rotate()  # type: ignore[attr-defined]  # Starlette calls it a dict
        await request.session.save()  # type: ignore[attr-defined]  # likewise

        async def pieces() -> Any:
            yield b"one"
            raise ZeroDivisionError

        return StreamingResponse(pieces())

    browser = browse(Route("/stream", stream))
    reply = browser.get("/stream")
    assert (200, ZeroDivisionError) == (reply.status, type(reply.raised))
    assert {"a": "1"} == browser.json("/read")


def test_an_error_after_a_save_under_uvicorn(caplog):
    """A real server sends one response, with the cookies, and logs the error."""
    uvicorn = pytest.importorskip("uvicorn", reason="needs uvicorn")
    runtime = Runtime(
        Settings.load({"sessions": True, "secret": SECRET, "cookie_secure": False}, environ={}), store=FaultyStore()
    )
    port = free_port()
    config = uvicorn.Config(
        application(runtime, Route("/fail", save_and_fail)), port=port, lifespan="off", ws="none", log_config=None
    )
    server = uvicorn.Server(config)
    thread = threading.Thread(target=server.run)
    thread.start()
    try:
        poll(lambda: server.started)
        said: list[Any] = []
        cookies: list[str] = []
        for path in ("/login?who=7", "/fail", "/me"):
            connection = HTTPConnection("127.0.0.1", port, timeout=20)
            connection.request("GET", path, headers={"Cookie": "; ".join(cookies)})
            reply = connection.getresponse()
            cookies = [line.partition(";")[0] for line in reply.headers.get_all("Set-Cookie") or ()]
            said.append((reply.status, len(cookies), json.loads(reply.read())))
            connection.close()
    finally:
        server.should_exit = True
        thread.join(30)
        runtime.close()
    assert [(200, 2), (500, 2), (200, 0)] == [one[:2] for one in said]
    assert [500, "7"] == [said[1][2]["status"], said[2][2]]
    assert "Exception in ASGI application" in caplog.text
