"""What other limiters get wrong under Starlette, and we do not: each test says what we do."""

import asyncio
import threading
import time
from collections.abc import AsyncIterator
from typing import Any

from starlette.applications import Starlette
from starlette.endpoints import HTTPEndpoint
from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response, StreamingResponse
from starlette.routing import Mount, Route, WebSocketRoute
from starlette.websockets import WebSocket

from failsoft import exempt, limit
from failsoft.runtime import Runtime
from failsoft.testing import FaultyStore
from tests.core.requests import make_runtime
from tests.starlette.apps import Open, ok
from tests.starlette.test_middleware import raw


def test_mounted_applications_are_limited(open_app: Open) -> None:
    """A mounted application is not exempt: the settings' limits, and those of its routes, hold."""
    inner = Starlette(routes=[Route("/a", ok()), Route("/b", limit("1/minute")(ok()))])
    app = open_app([Mount("/sub", app=inner), Route("/", ok())], limits=["4/minute"])
    assert [200, 200, 429, 200, 200, 429] == [
        app.get(path).status for path in ("/sub/a", "/sub/b", "/sub/b", "/sub/a", "/", "/sub/a")
    ]


def test_unknown_paths_are_limited(open_app: Open) -> None:
    """Asking for what is not there is not free: 404s are charged to the settings' limits."""
    app = open_app([Route("/", ok())], limits=["2/minute"])
    assert [404, 404, 429] == [app.get(f"/{number}").status for number in range(3)]


def test_limits_of_the_application_hold_for_decorated_views(open_app: Open) -> None:
    """A limit of its own does not take a view out of the application's limits."""
    app = open_app([Route("/", limit("100/minute")(ok()))], limits=["2/minute"])
    assert [200, 200, 429] == app.statuses(3, "/")


def test_concrete_paths_share_a_budget(open_app: Open) -> None:
    """/items/1 and /items/2 are one route: the key has the template."""
    app = open_app([Route("/items/{id}", limit("2/minute")(ok()))])
    assert [200, 200, 429] == [app.get(f"/items/{number}").status for number in range(3)]


def test_exemptions_hold_for_paths_with_parameters(open_app: Open) -> None:
    """An exempt view is exempt under every path that its route has."""
    app = open_app([Route("/health/{part}", exempt(ok()))], limits=["1/minute"])
    assert [200, 200, 200] == [app.get(f"/health/{number}").status for number in range(3)]


def test_a_stream_starts_once(open_app: Open) -> None:
    """The start of a response is sent once, with the fields, before the first chunk; chunks are passed on one by one."""

    async def pieces() -> AsyncIterator[bytes]:
        for _ in range(3):
            yield b"x"

    async def view(request: Request) -> Response:
        return StreamingResponse(pieces())

    sent = raw(open_app([Route("/", limit("9/minute")(view))]), "GET", "/")
    assert ["http.response.start", *["http.response.body"] * 4] == [message["type"] for message in sent]
    assert 1 == sum(name == b"ratelimit" for name, _ in sent[0]["headers"])


def test_no_signature_is_asked_for(open_app: Open) -> None:
    """A view may call its parameters what it likes; nothing is passed to it that it did not ask for."""

    async def view(whatever: Request) -> Response:
        return PlainTextResponse(whatever.url.path)

    assert b"/" == open_app([Route("/", limit("9/minute")(view))]).get("/").body


def test_async_functions_are_awaited(open_app: Open) -> None:
    """Async key, cost and condition functions are awaited; a lambda around one too."""

    async def key(request: Request) -> str:
        await asyncio.sleep(0)
        return request.headers.get("x-key", "none")

    async def never(request: Request) -> bool:
        return False

    routes = [
        Route("/key", limit("1/minute", by=key)(ok())),
        Route("/lambda", limit("1/minute", by=lambda request: key(request))(ok())),
        Route("/never", limit("1/minute", when=never)(ok())),
    ]
    app = open_app(routes)
    for path in ("/key", "/lambda"):
        assert [200, 429, 200] == [app.get(path, ("X-Key", value)).status for value in ("a", "a", "b")]
    assert [200, 200] == app.statuses(2, "/never")


def test_the_store_does_not_stop_the_loop(open_app: Open) -> None:
    """While a request waits for a slow store, the event loop serves others; the store is never asked in the loop's own thread."""
    app = open_app([Route("/", limit("9/minute")(ok())), Route("/free", ok())])
    store: Any = app.runtime.store
    with store.hanging("30s"):
        waiting = threading.Thread(target=app.get, args=("/",))
        waiting.start()
        assert store.waiting.wait(10)
        began = time.monotonic()
        assert 200 == app.get("/free").status
        assert time.monotonic() - began < 10
    waiting.join(10)
    assert (0, False) == (store.on_loop, waiting.is_alive())


def test_clients_have_buckets_of_their_own(open_app: Open) -> None:
    """Four addresses with two requests each are four clients, all admitted at 2/minute."""
    app = open_app([Route("/", ok())], limits=["2/minute"])
    assert [200] * 8 == [app.get("/", peer=f"192.0.2.{n}").status for n in (1, 2, 3, 4) * 2]


def test_left_most_forwarded_address_is_not_believed(open_app: Open) -> None:
    """Inventing addresses in X-Forwarded-For makes nobody a new client; behind a trusted proxy the right-most untrusted one counts."""
    invented = [("X-Forwarded-For", f"203.0.113.{n}, 198.51.100.9") for n in range(3)]
    app = open_app([Route("/", ok())], limits=["2/minute"], trusted_proxies=["10.0.0.1"])
    for peer in ("192.0.2.1", "10.0.0.1"):
        assert [200, 200, 429] == [app.get("/", header, peer=peer).status for header in invented]


def test_retry_after_is_for_refusals(open_app: Open) -> None:
    """Only a refused response says when to return, and it says it in whole seconds."""
    app = open_app([Route("/", limit("1/minute")(ok()))], headers="both")
    assert [None, 60] == [app.get("/").retry_after for _ in range(2)]


def test_a_dead_store_is_no_500(open_app: Open) -> None:
    """Decorated or not, a route whose store is away answers as the limit says, not with an error."""
    app = open_app([Route("/own", limit("9/minute")(ok())), Route("/", ok())], limits=["9/minute"])
    store: Any = app.runtime.store
    with store.away("timeout"):
        assert [200, 200] == [app.get(path).status for path in ("/own", "/")]


def test_lower_case_methods_are_no_way_around(open_app: Open) -> None:
    """Spelling a method otherwise, as some servers pass it on and class-based views serve it, is no way around a limit on it."""

    @limit("1/minute", methods=["GET"])
    class View(HTTPEndpoint):
        async def get(self, request: Request) -> Response:
            return PlainTextResponse("ok")

    app = open_app([Route("/", View)])
    statuses = [raw(app, method, "/")[0]["status"] for method in ("get", "GET", "gEt", "geT")]
    assert statuses.count(200) <= 1  # newer versions of Starlette answer 405 to the odd ones


def test_a_limit_on_a_websocket_works(open_app: Open) -> None:
    """A decorated WebSocket endpoint is limited when it is opened, instead of failing; its parameter may have any name."""

    @limit("1/minute")
    async def endpoint(whatever: WebSocket) -> None:
        await whatever.accept()

    app = open_app([WebSocketRoute("/", endpoint)])
    assert [(101, None), (429, None)] == [(one.status, one.raised) for one in (app.websocket("/"), app.websocket("/"))]


async def echo(websocket: WebSocket) -> None:
    await websocket.accept()
    async for text in websocket.iter_text():
        await websocket.send_text(text)


def test_settings_hold_for_websockets(open_app: Open) -> None:
    """Limits in the settings do not pass WebSockets by, those of mounted applications neither."""
    inner = Starlette(routes=[WebSocketRoute("/echo", echo)])
    app = open_app([Mount("/sub", app=inner), WebSocketRoute("/echo", echo)], limits=["3/minute"])
    assert [101, 101, 101, 429] == [app.websocket(path).status for path in ("/sub/echo", "/echo", "/sub/echo", "/echo")]


def test_messages_are_limited_without_help_of_the_endpoint(open_app: Open) -> None:
    """An endpoint need call nothing in its loop, nor catch anything, for its messages to be counted."""
    app = open_app([WebSocketRoute("/", limit("2/minute", messages=True)(echo))])
    one = app.websocket("/", "a", "b", "c")
    assert (("a", "b"), 1008, None) == (one.texts, one.code, one.raised)


def test_messages_of_each_client_are_counted(open_app: Open) -> None:
    """The clients of a WebSocket route share no bucket, invented addresses make no new one, and what is said is no part of the key."""
    app = open_app([WebSocketRoute("/", limit("2/minute", messages=True)(echo))])
    for peer in ("192.0.2.1", "192.0.2.2"):
        sent = [
            app.websocket("/", f"{n}", headers=[("X-Forwarded-For", f"203.0.113.{n}")], peer=peer) for n in range(3)
        ]
        assert [("0",), ("1",), ()] == [one.texts for one in sent]


def test_a_refused_message_does_not_hold_the_socket(open_app: Open) -> None:
    """Who sends too fast is told so at once and let go, instead of waiting on an open connection."""
    app = open_app([WebSocketRoute("/", limit("1/hour", messages=True)(echo))])
    began = time.monotonic()
    assert 1008 == app.websocket("/", "a", "b").code
    assert time.monotonic() - began < 10


def test_a_dead_store_breaks_no_websocket(open_app: Open) -> None:
    """With the store away WebSockets are opened and served by the process's share, not broken with an error."""
    app = open_app([WebSocketRoute("/", limit("2/minute", messages=True)(echo))], limits=["9/minute"])
    store: Any = app.runtime.store
    with store.away("timeout"):
        one = app.websocket("/", "a", "b", "c")
    assert (101, ("a", "b"), 1008, None) == (one.status, one.texts, one.code, one.raised)


def test_counting_by_route_needs_no_decorator(open_app: Open) -> None:
    """With nothing but settings, limits by route count each route by itself."""
    runtime: Runtime = make_runtime(store=FaultyStore(), limits=["1/minute"], by="route")
    app = open_app([Route("/a", ok()), Route("/b", ok())], runtime=runtime)
    assert [200, 200, 429, 429] == [app.get(path).status for path in ("/a", "/b", "/a", "/b")]
