"""The middleware among others: what it adds, what it leaves alone, and where a refusal goes."""

import asyncio
import logging
import threading
from collections.abc import AsyncIterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager
from typing import Any

import pytest
from starlette.applications import Starlette
from starlette.authentication import AuthCredentials, AuthenticationBackend, SimpleUser, UnauthenticatedUser
from starlette.background import BackgroundTask
from starlette.exceptions import HTTPException
from starlette.middleware import Middleware
from starlette.middleware.authentication import AuthenticationMiddleware
from starlette.middleware.base import BaseHTTPMiddleware
from starlette.middleware.cors import CORSMiddleware
from starlette.middleware.gzip import GZipMiddleware
from starlette.requests import HTTPConnection, Request
from starlette.responses import JSONResponse, PlainTextResponse, Response, StreamingResponse
from starlette.routing import Mount, Route
from starlette.types import ASGIApp, Receive, Scope, Send

from failsoft import (
    ConfigurationError,
    OutsideRequest,
    RateLimited,
    Rejected,
    Settings,
    exempt,
    late,
    limit,
    require_live_session,
)
from failsoft.exchange import current
from failsoft.presets import login
from failsoft.testing import AsgiApp, FaultyStore, ManualClock
from failsoft.testing.contract.base import hide
from failsoft.testing.harness import Reply
from failsoft_starlette import FailsoftMiddleware
from failsoft_starlette.translate import StarletteFacts
from tests.core.requests import make_runtime
from tests.starlette.apps import Open, hidden, ok


def told() -> Any:
    """A view that tells what was known of its route."""

    async def view(request: Request) -> Response:
        exchange = current()
        return PlainTextResponse(str(None if exchange is None else exchange.facts.route))

    return view


def problem(reply: Reply) -> tuple[int, str | None, int]:
    """A refusal's status, media type and number of RateLimit lines."""
    return reply.status, reply.header("content-type"), len(reply.lines("RateLimit"))


REFUSED = (429, "application/problem+json", 1)


class ByHeader(AuthenticationBackend):
    async def authenticate(self, conn: HTTPConnection) -> Any:
        name = conn.headers.get("x-user")
        return (AuthCredentials(), SimpleUser(name)) if name else (AuthCredentials(), UnauthenticatedUser())


AUTHENTICATION = Middleware(AuthenticationMiddleware, backend=ByHeader())


class Swallowing(BaseHTTPMiddleware):
    """Makes a 500 of every error, as people do."""

    async def dispatch(self, request: Request, call_next: Any) -> Response:
        try:
            return await call_next(request)  # type: ignore[no-any-return]  # Starlette's own type for it is this
        except Exception:
            return PlainTextResponse("our own page", 500)


class Passing(BaseHTTPMiddleware):
    """Does nothing, in the way that puts the application into a task of its own."""

    async def dispatch(self, request: Request, call_next: Any) -> Response:
        return await call_next(request)  # type: ignore[no-any-return]  # likewise


# Where a refusal goes


def test_refusal_runs_nothing_inside(open_app: Open) -> None:
    """An early refusal is answered before any middleware inside and before the view."""
    seen: list[str] = []

    class Inside:
        def __init__(self, app: ASGIApp) -> None:
            self.app = app

        async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
            if scope["type"] == "http":
                seen.append(scope["path"])
            await self.app(scope, receive, send)

    app = open_app([Route("/", limit("1/minute")(ok()))], inside=[Middleware(Inside)])
    assert [200, 429, 429] == app.statuses(3, "/")
    assert ["/"] == seen


@pytest.mark.parametrize(
    "inside", [[], [Middleware(Passing)], [Middleware(Passing), Middleware(Passing)], [Middleware(Swallowing)]]
)
@pytest.mark.parametrize("debug", [False, True])
def test_late_refusal_through_middleware(open_app: Open, inside: list[Middleware], debug: bool) -> None:
    """A late refusal becomes the response, whatever middleware inside does with errors."""
    app = open_app([Route("/", hidden())], inside=inside, application={"debug": debug})
    assert [200, 429] == app.statuses(2, "/")
    assert REFUSED == problem(app.get("/"))


@pytest.mark.parametrize("debug", [False, True])
def test_late_refusal_in_a_mounted_application(open_app: Open, debug: bool) -> None:
    """A sub-application that makes its own error pages does not make one of a refusal."""
    inner = Starlette(routes=[Route("/", hidden())], debug=debug)
    app = open_app([Mount("/sub", app=inner)])
    reply = app.get("/sub/")
    assert 200 == reply.status
    reply = app.get("/sub/")
    assert (REFUSED, None) == (problem(reply), reply.raised)
    assert b"Internal Server Error" not in reply.body


def test_error_of_a_mounted_application_is_its_own(open_app: Open) -> None:
    """A sub-application's page for its own errors stays."""

    async def broken(request: Request) -> Response:
        raise ZeroDivisionError

    inner = Starlette(routes=[Route("/", broken)])
    reply = open_app([Mount("/sub", app=inner)], limits=["9/minute"]).get("/sub/")
    assert (500, b"Internal Server Error", 1) == (reply.status, reply.body, len(reply.lines("RateLimit")))


def test_handler_of_the_application(open_app: Open) -> None:
    """An application that handles the exception answers by itself; the limits' fields are there all the same."""

    async def handler(request: Request, error: Exception) -> Response:
        assert isinstance(error, RateLimited)
        return JSONResponse({"wait": error.retry_after}, 420)

    app = open_app([Route("/", hidden())], application={"exception_handlers": {RateLimited: handler}})
    app.get("/")
    reply = app.get("/")
    assert (420, b'{"wait":60}', 1) == (reply.status, reply.body, len(reply.lines("RateLimit")))


def test_refusal_in_the_midst_of_a_stream(open_app: Open) -> None:
    """When the response has begun, a refusal can only break it off; there is no second response."""
    helper = limit("1/minute")(hide_nothing)

    async def pieces() -> AsyncIterator[bytes]:
        yield b"one"
        await helper()
        yield b"two"

    async def view(request: Request) -> Response:
        return StreamingResponse(pieces())

    app = open_app([Route("/", view)])
    assert b"onetwo" == app.get("/").body
    reply = app.get("/")
    assert (200, b"one") == (reply.status, reply.body)
    assert "RateLimited" in repr(reply.raised)


async def hide_nothing() -> None: ...


def test_http_exceptions_stay(open_app: Open) -> None:
    """The framework's own HTTP errors are what they were, with the fields."""

    async def view(request: Request) -> Response:
        raise HTTPException(418, "teapot", headers={"X-Tea": "green"})

    reply = open_app([Route("/", limit("9/minute")(view))]).get("/")
    assert (418, b"teapot", "green", 1) == (
        reply.status,
        reply.body,
        reply.header("x-tea"),
        len(reply.lines("RateLimit")),
    )


@pytest.mark.parametrize("asynchronous", [False, True])
@pytest.mark.parametrize("view", [limit("1/minute")(ok()), hidden()], ids=["early", "late"])
def test_renderer(open_app: Open, asynchronous: bool, view: Any) -> None:
    """A renderer, plain or async, makes the response; it sees the request, and the fields are added."""

    def plain(request: Request, rejected: Rejected) -> Response:
        return JSONResponse({"path": request.url.path, "status": rejected.status}, 429, headers={"X-Own": "1"})

    async def awaited(request: Request, rejected: Rejected) -> Response:
        await asyncio.sleep(0)
        return plain(request, rejected)

    app = open_app([Route("/a", view)], renderer=awaited if asynchronous else plain)
    app.get("/a")
    reply = app.get("/a")
    assert (429, {"path": "/a", "status": 429}, "1", 60) == (
        reply.status,
        reply.json(),
        reply.header("x-own"),
        reply.retry_after,
    )
    assert ["no-store"] == reply.lines("Cache-Control")
    assert 1 == len(reply.lines("RateLimit"))


@pytest.mark.parametrize("early", [True, False])
def test_renderer_with_a_status_of_its_own(open_app: Open, early: bool) -> None:
    """A renderer may answer with any status, 500 included."""
    view = limit("1/minute")(ok()) if early else hidden()
    app = open_app([Route("/", view)], renderer=lambda request, rejected: PlainTextResponse("own", 500))
    app.get("/")
    reply = app.get("/")
    assert (500, b"own", 1, None) == (reply.status, reply.body, len(reply.lines("RateLimit")), reply.raised)


def test_renderer_that_fails(open_app: Open) -> None:
    """A mistake in a renderer is an error of the application, not an admission."""

    def broken(request: Request, rejected: Rejected) -> Response:
        raise ZeroDivisionError

    app = open_app([Route("/", limit("1/minute")(ok()))], renderer=broken)
    app.get("/")
    reply = app.get("/")
    assert (500, True) == (reply.status, isinstance(reply.raised, ZeroDivisionError))


def test_head_through_a_renderer(open_app: Open) -> None:
    """The refusal of HEAD has no body."""
    app = open_app(
        [Route("/", limit("1/minute")(ok()))], renderer=lambda request, rejected: PlainTextResponse("slow down", 429)
    )
    app.get("/")
    sent = raw(app, "HEAD", "/")
    assert (429, b"") == (sent[0]["status"], b"".join(one.get("body", b"") for one in sent[1:]))


def raw(app: AsgiApp, method: str, path: str, **scope: Any) -> list[Any]:
    """The messages that an application sends, as they are."""
    sent: list[Any] = []

    async def send(message: Any) -> None:
        sent.append(message)

    requests: list[Any] = [{"type": "http.request", "body": b"", "more_body": False}]

    async def receive() -> Any:
        if not requests:
            await asyncio.Event().wait()
        return requests.pop()

    base = {
        "type": "http",
        "method": method,
        "path": path,
        "raw_path": path.encode(),
        "root_path": "",
        "headers": [(b"host", b"testserver")],
        "query_string": b"",
        "client": ("203.0.113.7", 50_000),
        "server": ("testserver", 80),
        "scheme": "http",
    }
    asyncio.run(app.application(base | scope, receive, send))
    return sent


# What is known of the route


def test_routes_added_later(open_app: Open) -> None:
    """A route that is added while the application serves is known with the next request."""
    app = open_app([Route("/a", told())], route_limits=["9/minute"])
    assert (b"/a", 404) == (app.get("/a").body, app.get("/b/1").status)
    app.application.router.routes.append(Route("/b/{id}", told()))  # type: ignore[attr-defined]  # a Starlette application
    assert b"/b/{id}" == app.get("/b/1").body


def test_declared_while_serving(open_app: Open) -> None:
    """A limit that is declared while the application serves holds for the next request."""

    async def view(request: Request) -> Response:
        return PlainTextResponse("ok")

    app = open_app([Route("/", view)])
    assert [200, 200] == app.statuses(2, "/")
    limit("1/minute")(view)
    assert [200, 429] == app.statuses(2, "/")


def test_redirected_slashes_and_405_are_charged(open_app: Open) -> None:
    """What the router answers by itself is charged to the settings' limits like all else."""
    app = open_app([Route("/a", ok())], limits=["4/minute"])
    assert [307, 405, 404, 200, 429] == [
        app.request(method, path).status
        for method, path in (("GET", "/a/"), ("PUT", "/a"), ("GET", "/b"), ("GET", "/a"), ("GET", "/a/"))
    ]


def test_refused_method_is_not_charged_to_the_view(open_app: Open) -> None:
    """A request that the router answers with 405 does not use up the view's own limit."""
    app = open_app([Route("/", limit("1/minute")(ok()))])
    assert [405, 405, 200, 429] == [app.request(method, "/").status for method in ("PUT", "PUT", "GET", "GET")]


def test_root_path(open_app: Open) -> None:
    """Behind a prefix that the server puts before every path, routes are found."""
    app = open_app([Route("/a", limit("1/minute")(told()))])
    statuses = [raw(app, "GET", "/api/a", root_path="/api")[0]["status"] for _ in range(2)]
    assert ([200, 429], 2) == (statuses, len(app.runtime.store.flights))  # type: ignore[attr-defined]  # a FaultyStore


@pytest.mark.parametrize("around", ["mount", "application"])
def test_inside_a_mount(around: str) -> None:
    """Around a mount only, or in a mounted application, the middleware still knows the routes, and refuses early."""
    runtime = make_runtime(store=(store := FaultyStore(clock=ManualClock())))
    ours = [Middleware(FailsoftMiddleware, runtime=runtime)]
    routes = [Route("/x", limit("1/minute")(ok())), Route("/{id}", told())]
    mount = (
        Mount("/m", routes=routes, middleware=ours)
        if around == "mount"
        else Mount("/m", app=Starlette(routes=routes, middleware=ours))
    )
    with AsgiApp(Starlette(routes=[mount, Route("/x", ok())]), runtime) as app:
        assert [200, 429, 429] == app.statuses(3, "/m/x")
        assert [200, 200] == app.statuses(2, "/x")
        assert 2 == len(store.flights)  # the second refusal is remembered
        assert (b"/m/{id}" if around == "mount" else b"/{id}") == app.get("/m/7").body


def test_path_rewritten_inside(open_app: Open) -> None:
    """Where middleware inside sends the request elsewhere, the limit of the view that really serves it is enforced late."""

    class Rewriting:
        def __init__(self, app: ASGIApp) -> None:
            self.app = app

        async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
            await self.app({**scope, "path": "/real"} if scope["type"] == "http" else scope, receive, send)

    app = open_app([Route("/real", limit("1/minute")(ok()))], inside=[Middleware(Rewriting)])
    assert [200, 429, 429] == app.statuses(3, "/alias")


def test_opaque_application_is_limited_late(open_app: Open) -> None:
    """Views of a mounted application that shows no routes have the settings' limits early, and their own late."""
    inner = Starlette(routes=[Route("/x", limit("1/minute", name="own")(ok()))])

    async def opaque(scope: Scope, receive: Receive, send: Send) -> None:
        await inner(scope, receive, send)

    app = open_app([Mount("/sub", app=opaque)], limits=["9/minute"])
    replies = [app.get("/sub/x"), app.get("/sub/x")]
    assert [(200, {"9-per-minute", "own"}), (429, {"9-per-minute", "own"})] == [
        (one.status, set(one.limits)) for one in replies
    ]


def test_wraps_an_application_from_outside() -> None:
    """Put around the whole application instead of added to it, the middleware works the same."""
    runtime = make_runtime(store=(store := FaultyStore(clock=ManualClock())))
    wrapped = FailsoftMiddleware(Starlette(routes=[Route("/", limit("1/minute")(ok()))]), runtime=runtime)
    with AsgiApp(wrapped, runtime) as app:
        assert [200, 429] == app.statuses(2, "/")
    assert [("ratelimit.acquire",)] * 2 == list(store.flights)


# Who asks


@pytest.mark.parametrize("where", ["outside", "inside"])
def test_user_of_the_authentication(open_app: Open, where: str) -> None:
    """Whoever AuthenticationMiddleware says is asking is counted: in one flight if it stands outside of us, late if inside."""
    app = open_app(
        [Route("/", limit("1/minute", by="user")(ok()))],
        inside=[AUTHENTICATION] if where == "inside" else [],
        outside=[AUTHENTICATION] if where == "outside" else [],
    )
    alice, bob = ("x-user", "alice"), ("x-user", "bob")
    assert [200, 429, 200] == [app.get("/", who).status for who in (alice, alice, bob)]
    # Nobody is counted by address, which is one here.
    assert [200, 429] == app.statuses(2, "/")
    assert 5 == len(app.runtime.store.flights)  # type: ignore[attr-defined]  # a FaultyStore


@pytest.mark.parametrize(
    ("user", "expected"),
    [
        (SimpleUser("alice"), "alice"),
        (UnauthenticatedUser(), None),
        (None, None),
        ("alice", "alice"),
        (7, "7"),
        ({"id": 7}, None),
        (type("User", (), {"id": 7})(), "7"),
        (type("User", (), {"identity": "i", "id": 7})(), "i"),
        (type("User", (), {"username": "u", "is_authenticated": False})(), None),
        (type("User", (), {"id": None, "username": "u"})(), "u"),
        (type("User", (), {"id": 0})(), "0"),
    ],
)
def test_users(user: Any, expected: str | None) -> None:
    """A user is known by an identity, an id, a name, or as plain text; somebody who is not authenticated is nobody."""
    assert expected == StarletteFacts({"method": "GET", "user": user}, None, False).user()


@pytest.mark.parametrize("shape", ["def", "async"])
@pytest.mark.parametrize("question", ["by", "cost", "when", "quota", "late"])
def test_async_questions_of_any_view(open_app: Open, shape: str, question: str) -> None:
    """Async functions of the request are awaited early and late, for views in threads as well."""

    async def answer(request: Request, *args: Any) -> Any:
        await asyncio.sleep(0)
        return {"by": "me", "late": "me", "cost": 1, "when": True, "quota": "1/minute"}[question]

    if question == "quota":
        policy = limit(answer)
    else:
        policy = limit("1/minute", **({"by": late(answer)} if question == "late" else {question: answer}))  # type: ignore[arg-type]  # by name

    def plain(request: Request) -> Response:
        return PlainTextResponse("ok")

    async def awaited(request: Request) -> Response:
        return PlainTextResponse("ok")

    view = policy(plain if shape == "def" else awaited)
    app = open_app([Route("/early", view), Route("/late", hide(view))])
    assert [200, 429] == app.statuses(2, "/early")
    assert [200, 429] == app.statuses(2, "/late")


# Everything else


def test_lifespan(open_app: Open) -> None:
    """The application's lifespan runs, and its state reaches requests."""
    log: list[str] = []

    @asynccontextmanager
    async def lifespan(app: Starlette) -> AsyncIterator[dict[str, str]]:
        log.append("up")
        yield {"word": "hello"}
        log.append("down")

    async def view(request: Request) -> Response:
        return PlainTextResponse("ok")

    runtime = make_runtime(limits=["9/minute"])
    app = AsgiApp(
        Starlette(
            routes=[Route("/", view)], lifespan=lifespan, middleware=[Middleware(FailsoftMiddleware, runtime=runtime)]
        ),
        runtime,
    )
    assert (["up"], 200) == (log, app.get("/").status)
    app.close()
    assert ["up", "down"] == log


def test_background_tasks_and_context(open_app: Open) -> None:
    """Background tasks run after the response; nothing is current when the request is over."""
    log: list[Any] = []

    async def view(request: Request) -> Response:
        return PlainTextResponse("ok", background=BackgroundTask(lambda: log.append("background")))

    app = open_app([Route("/", limit("9/minute")(view))])
    assert 200 == app.get("/").status
    assert ["background"] == log

    async def after() -> Any:
        sent: list[Any] = []

        async def send(message: Any) -> None:
            sent.append(message)

        async def receive() -> Any:
            return {"type": "http.request", "body": b"", "more_body": False}

        scope = {
            "type": "http",
            "method": "GET",
            "path": "/",
            "headers": [],
            "query_string": b"",
            "client": None,
            "root_path": "",
        }
        await app.application(scope, receive, send)
        return current()

    assert None is asyncio.run(after())


def test_compressed_inside_and_outside(open_app: Open) -> None:
    """Middleware that rewrites the body keeps our fields, on either side of us."""
    zipped = Middleware(GZipMiddleware, minimum_size=1)
    for place in ("inside", "outside"):
        app = open_app([Route("/", limit("9/minute")(ok()))], **{place: [zipped]})
        reply = app.get("/", ("Accept-Encoding", "gzip"))
        assert ("gzip", 1) == (reply.header("content-encoding"), len(reply.lines("RateLimit")))


def test_cancelled_while_waiting_for_the_store(open_app: Open) -> None:
    """A request that is cancelled while it waits for the store ends as cancelled; the next is served."""
    app = open_app([Route("/", limit("9/minute")(ok()))])
    store: Any = app.runtime.store
    with store.hanging("30s"):
        assert app.cancel("/", when=store.waiting)
    assert 200 == app.get("/").status


def test_cancelled_in_the_view(open_app: Open) -> None:
    """A request that is cancelled in its view stays charged, once, and leaves nothing current."""
    waiting = threading.Event()

    async def view(request: Request) -> Response:
        waiting.set()
        await asyncio.sleep(60)
        return PlainTextResponse("never")

    app = open_app(
        [Route("/slow", limit("2/minute", shared="x")(view)), Route("/", limit("2/minute", shared="x")(ok()))]
    )
    assert app.cancel("/slow", when=waiting)
    assert [200, 429] == app.statuses(2, "/")


def test_client_that_is_gone(open_app: Open) -> None:
    """A client that hangs up in a stream stops it; it was charged once."""

    async def pieces() -> AsyncIterator[bytes]:
        for _ in range(1000):
            yield b"piece"

    async def view(request: Request) -> Response:
        return StreamingResponse(pieces())

    app = open_app([Route("/", limit("2/minute")(view))])
    assert b"piece" == app.abandon("/")
    assert [200, 429] == [app.get("/").status for _ in range(2)]


def test_no_store_no_stall(open_app: Open) -> None:
    """With the store away requests are answered, by the share, and say so; while one waits for it, the loop serves others."""
    app = open_app([Route("/", limit("2/minute")(ok())), Route("/free", exempt(ok()))])
    store: Any = app.runtime.store
    with store.away("timeout"):
        replies = [app.get("/") for _ in range(3)]
    assert [200, 200, 429] == [reply.status for reply in replies]
    assert ["limits;reason=timeout"] * 3 == [reply.header("Degraded") for reply in replies]

    with ThreadPoolExecutor(1) as executor:
        with store.hanging("30s"):
            waits = executor.submit(app.get, "/")
            assert store.waiting.wait(10)
            assert 200 == app.get("/free").status
            assert not waits.done()
        assert 200 == waits.result(10).status


def test_warns_of_lost_declarations(caplog: pytest.LogCaptureFixture, open_app: Open) -> None:
    """At start, a limit that no route leads to is named with file and line."""

    @limit("7777/minute")
    async def lost(request: Request) -> Response:
        return PlainTextResponse("")

    with caplog.at_level(logging.WARNING, "failsoft.starlette"):
        open_app([Route("/", exempt(ok()))])
    messages = [one.getMessage() for one in caplog.records if "7777/minute" in one.getMessage()]
    assert 1 == len(messages)
    assert "test_middleware.py:" in messages[0]
    assert callable(lost)


@pytest.mark.parametrize(("place", "expected"), [("inside", 1), ("outside", 0)])
def test_warns_of_cors_inside(caplog: pytest.LogCaptureFixture, open_app: Open, place: str, expected: int) -> None:
    """At start, CORSMiddleware on the wrong side is told; on the right side its fields are on refusals too."""
    cors = Middleware(CORSMiddleware, allow_origins=["https://elsewhere.example"])
    with caplog.at_level(logging.WARNING, "failsoft.starlette"):
        app = open_app([Route("/", limit("1/minute")(ok()))], **{place: [cors]})
    assert expected == sum("CORSMiddleware is inside" in one.getMessage() for one in caplog.records)
    origin = ("Origin", "https://elsewhere.example")
    replies = [app.get("/", origin) for _ in range(2)]
    readable = [reply.header("Access-Control-Allow-Origin") is not None for reply in replies]
    assert ([200, 429], [True, place == "outside"]) == ([reply.status for reply in replies], readable)


def test_warns_of_a_rewritten_peer(caplog: pytest.LogCaptureFixture, open_app: Open) -> None:
    """Where the server has put a forwarded address in the place of the peer's, that is told once, with the cure."""
    app = open_app([Route("/", limit("9/minute")(ok()))], trusted_proxies=["10.0.0.0/8"])
    with caplog.at_level(logging.WARNING, "failsoft.starlette"):
        for _ in range(3):
            raw(app, "GET", "/", client=("192.0.2.9", 0), headers=[(b"x-forwarded-for", b"192.0.2.9")])
    assert [
        "--no-proxy-headers" in one.getMessage() for one in caplog.records if "X-Forwarded-For" in one.getMessage()
    ] == [True]


def test_settings_in_three_ways(monkeypatch: pytest.MonkeyPatch) -> None:
    """Settings come as keywords, whole, or within a runtime, never in two ways; the environment fills in what keywords leave out."""
    monkeypatch.setenv("FAILSOFT_PREFIX", "shop")
    inner = Starlette()
    runtime = make_runtime()
    assert ("shop", ("9/minute",)) == (lambda one: (one.prefix, one.limits))(
        FailsoftMiddleware(inner, limits=["9/minute"]).runtime.settings
    )
    whole = Settings(limits=["8/minute"])
    assert whole is FailsoftMiddleware(inner, whole).runtime.settings
    assert runtime is FailsoftMiddleware(inner, runtime=runtime).runtime
    for wrong in (
        {"settings": whole, "limits": []},
        {"runtime": runtime, "limits": []},
        {"settings": whole, "runtime": runtime},
    ):
        with pytest.raises(ConfigurationError, match="not more than one"):
            FailsoftMiddleware(inner, **wrong)
    with pytest.raises(ConfigurationError, match="limits"):
        FailsoftMiddleware(inner, limit=["9/minute"])


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"limit": []}, "limits"),
        ({"read_ahead": -1}, "read_ahead"),
        ({"settings": Settings(), "limits": []}, "not more than one"),
        ({"renderer": "shop.too_fast"}, "renderer is an object of type str: give the function itself, not its name"),
        ({"renderer": 7}, "renderer is an object of type int: give the function itself. It takes"),
        (
            {"renderer": lambda rejected: None},
            r"renderer=<lambda> \(.*\) .* its parameters are \(rejected\): give it two",
        ),
    ],
)
def test_a_mistake_in_the_settings(options: dict[str, Any], said: str) -> None:
    """The server does not start, and where it runs no lifespan nobody is served. Starlette makes its middleware once the server calls."""
    app = Starlette(middleware=[Middleware(FailsoftMiddleware, **options)])
    sent: list[Any] = []

    async def receive() -> Any:
        return {"type": "lifespan.startup"}

    async def send(message: Any) -> None:
        sent.append(message)

    for kind in ("lifespan", "http", "http"):
        scope = {"type": kind, "method": "GET", "path": "/", "headers": [], "query_string": b""}
        with pytest.raises(ConfigurationError, match=said) as caught:
            asyncio.run(app(scope, receive, send))
        if kind == "lifespan":
            assert [{"type": "lifespan.startup.failed", "message": str(caught.value)}] == sent
    assert [500, 500] == [message["status"] for message in sent if message["type"] == "http.response.start"]


@pytest.mark.parametrize(
    ("declared", "settings", "times", "said"),
    [
        (
            limit("9/minute", store="nowhere"),
            {},
            1,
            r"view: there is no store 'nowhere'; the setting stores names default$",
        ),
        (
            limit("20000/day"),
            {"algorithm": "moving-window"},
            1,
            r"limit\('20000/day'\) on .*view: .*remembers each unit",
        ),
        (require_live_session, {}, 1, r"would not be enforced: the application has no sessions"),
        (limit("9/minute"), {}, 2, r"FailsoftMiddleware is added more than once"),
    ],
)
def test_a_limit_that_cannot_be_enforced(declared: Any, settings: dict[str, Any], times: int, said: str) -> None:
    """The server does not start. With failsoft turned off it does."""

    @declared
    async def view(request: Request) -> Response:
        return Response()

    events = [{"type": "lifespan.startup"}, {"type": "lifespan.shutdown"}]
    sent: list[str] = []

    async def receive() -> Any:
        return events.pop(0)

    async def send(message: Any) -> None:
        sent.append(message["type"])

    def start(*middleware: Middleware) -> None:
        app = Starlette(routes=[Route("/", view)], middleware=middleware)
        asyncio.run(app({"type": "lifespan", "state": {}}, receive, send))

    with pytest.raises(ConfigurationError, match=said):
        start(*[Middleware(FailsoftMiddleware, **settings)] * times)
    assert ["lifespan.startup.failed"] == sent
    if times == 1:
        events.insert(0, {"type": "lifespan.startup"})
        sent.clear()
        start(Middleware(FailsoftMiddleware, enabled=False, **settings))
        assert ["lifespan.startup.complete", "lifespan.shutdown.complete"] == sent


@pytest.mark.parametrize(
    ("decorator", "cure"), [(login, r"write @login\(\) above view"), (limit, r'write @limit\("10/minute"\) above view')]
)
def test_a_decorator_in_the_place_of_a_view(decorator: Any, cure: str) -> None:
    """The server does not start where the parentheses of a decorator were forgotten: it would be the view."""

    async def view(request: Request) -> Response:
        raise AssertionError

    view.__qualname__ = "view"
    app = Starlette(routes=[Route("/here", decorator(view))], middleware=[Middleware(FailsoftMiddleware)])

    async def receive() -> Any:
        return {"type": "lifespan.startup"}

    async def send(message: Any) -> None:
        assert "lifespan.startup.failed" == message["type"]

    with pytest.raises(ConfigurationError, match=rf"^/here: .*{cure}"):
        asyncio.run(app({"type": "lifespan", "state": {}}, receive, send))


def test_plain_helper_on_the_loop(open_app: Open) -> None:
    """A plain limited function that an async view calls on the loop is not allowed to hold it up: an error that says so."""
    helper = limit("9/minute")(lambda: None)

    async def view(request: Request) -> Response:
        helper()
        return PlainTextResponse("ok")

    reply = open_app([Route("/", view)]).get("/")
    assert isinstance(reply.raised, OutsideRequest)


def test_renderer_that_says_when_to_return() -> None:
    """What a renderer says itself, of when to return and of caching, is not said a second time."""

    async def home(request: Request) -> Response:
        return Response("hello")

    def renderer(request: Request, rejected: Rejected) -> Response:
        return Response("wait", rejected.status, headers={"Retry-After": "99", "Cache-Control": "private"})

    runtime = make_runtime()
    app = Starlette(
        routes=[Route("/", limit("1/minute")(home))],
        middleware=[Middleware(FailsoftMiddleware, runtime=runtime, renderer=renderer)],
    )
    with AsgiApp(app, runtime) as server:
        server.get("/")
        reply = server.get("/")
    assert (429, ["99"], ["private"]) == (reply.status, reply.lines("Retry-After"), reply.lines("Cache-Control"))
