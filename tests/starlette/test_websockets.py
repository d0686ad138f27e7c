"""WebSockets in Starlette: endpoints of every kind, messages one by one, and every way in which one can end."""

import asyncio
import logging
from typing import Any

import pytest
from starlette.applications import Starlette
from starlette.authentication import AuthCredentials, AuthenticationBackend, SimpleUser
from starlette.endpoints import WebSocketEndpoint
from starlette.middleware import Middleware
from starlette.middleware.authentication import AuthenticationMiddleware
from starlette.requests import HTTPConnection, Request
from starlette.responses import JSONResponse, PlainTextResponse, Response
from starlette.routing import Host, Mount, Route, Router, WebSocketRoute
from starlette.websockets import WebSocket, WebSocketDisconnect

from failsoft import ConfigurationError, Event, LimitDecided, RateLimited, Rejected, late, limit, reservation
from failsoft.exchange import current
from failsoft.testing import AsgiApp
from failsoft.testing.contract.base import hide
from failsoft.testing.toy import UnderWay
from failsoft_starlette import FailsoftMiddleware, SocketMessage, list_routes
from tests.core.requests import make_runtime
from tests.starlette.apps import Open, ok


def echo(*policies: Any) -> Any:
    """An endpoint that sends back what it is sent, with limits of its own."""

    async def endpoint(websocket: WebSocket) -> None:
        await websocket.accept()
        while (message := await websocket.receive())["type"] == "websocket.receive":
            await websocket.send_text(message.get("text") or message["bytes"].decode())

    for policy in reversed(policies):
        endpoint = policy(endpoint)
    return endpoint


def flights(app: AsgiApp) -> int:
    return len(app.runtime.store.flights)  # type: ignore[attr-defined]  # a FaultyStore


# Endpoints


class Talk(WebSocketEndpoint):
    """A class-based endpoint that sends back what it is sent, and notes how it ended."""

    encoding = "text"
    ended: list[int]

    async def on_receive(self, websocket: WebSocket, data: Any) -> None:
        await websocket.send_text(data)

    async def on_disconnect(self, websocket: WebSocket, close_code: int) -> None:
        self.ended.append(close_code)


@pytest.mark.parametrize("where", ["class", "on_connect"])
def test_class_based_openings(open_app: Open, where: str) -> None:
    """A limit on a class-based endpoint, or on what it does when it is opened, counts openings, early."""
    if where == "class":
        endpoint: Any = limit("2/minute")(type("Endpoint", (Talk,), {"ended": []}))
    else:

        class Endpoint(Talk):
            ended: list[int] = []  # noqa: RUF012 - of this class alone

            @limit("2/minute")
            async def on_connect(self, websocket: WebSocket) -> None:
                await websocket.accept()

        endpoint = Endpoint
    app = open_app([WebSocketRoute("/", endpoint)], limits=["9/minute"])
    seen = [app.websocket("/", "a", "b") for _ in range(3)]
    assert [(101, ("a", "b")), (101, ("a", "b")), (429, ())] == [(one.status, one.texts) for one in seen]
    assert (3, [1000, 1000]) == (flights(app), endpoint.ended)


@pytest.mark.parametrize("where", ["class", "on_receive", "on_receive without messages"])
def test_class_based_messages(open_app: Open, where: str) -> None:
    """A limit on what is called for each message counts messages, and so does one on the class that says so."""
    if where == "class":
        endpoint: Any = limit("3/minute", messages=True)(type("Endpoint", (Talk,), {"ended": []}))
    else:

        class Endpoint(Talk):
            ended: list[int] = []  # noqa: RUF012 - of this class alone

            @limit("3/minute", messages=where == "on_receive")
            async def on_receive(self, websocket: WebSocket, data: Any) -> None:
                await websocket.send_text(data)

        endpoint = Endpoint
    app = open_app([WebSocketRoute("/", endpoint)])
    one = app.websocket("/", "1", "2", "3", "4")
    assert (101, ("1", "2", "3"), 1008, None) == (one.status, one.texts, one.code, one.raised)
    assert (4, [1008]) == (flights(app), endpoint.ended)


def test_late_identity_of_a_message(open_app: Open) -> None:
    """A limit by the arguments of what is called for each message is decided when that is called, for each message."""

    class Endpoint(Talk):
        ended: list[int] = []  # noqa: RUF012 - of this class alone

        @limit("1/minute", by=late(lambda self, websocket, data: data))
        async def on_receive(self, websocket: WebSocket, data: Any) -> None:
            await websocket.send_text(data)

    one = open_app([WebSocketRoute("/", Endpoint)]).websocket("/", "a", "b", "a")
    assert (("a", "b"), 1008, None) == (one.texts, one.code, one.raised)


def test_routes_of_every_kind(open_app: Open) -> None:
    """Endpoints in mounts, behind hosts and with parameters are known before the router runs, by their whole template."""
    seen: list[Any] = []

    def listen(event: Event) -> None:
        if isinstance(event, LimitDecided):
            seen.append((event.route, event.late))

    routes = [
        Mount("/m/{id}", routes=[Mount("/deep", routes=[WebSocketRoute("/{x:int}", echo(limit("9/minute")))])]),
        Host("ws.example.org", app=Router([WebSocketRoute("/live", echo(limit("9/minute")))])),
        Route("/live", ok()),
        WebSocketRoute("/live", echo(limit("9/minute"))),
    ]
    app = open_app(routes)
    app.runtime.listen(listen)
    opened = [
        app.websocket("/m/1/deep/2"),
        app.websocket("/live", headers=[("Host", "ws.example.org:8000")]),
        app.websocket("/live"),
    ]
    assert [101] * 3 == [one.status for one in opened]
    assert [("/m/{id}/deep/{x}", False), ("/live", False), ("/live", False)] == seen
    assert (200, 3) == (app.get("/live").status, flights(app))


def test_opaque_applications(open_app: Open) -> None:
    """Endpoints of a mounted application that shows no routes have the settings' limits early, and their own late."""
    inner = Starlette(routes=[WebSocketRoute("/x", echo(limit("2/minute"), limit("3/minute", messages=True)))])

    async def opaque(scope: Any, receive: Any, send: Any) -> None:
        await inner(scope, receive, send)

    app = open_app([Mount("/sub", app=opaque)], limits=["9/minute"])
    assert [("a", "b"), ("c",), ()] == [app.websocket("/sub/x", *texts).texts for texts in ("ab", "cd", "e")]


def test_inside_a_mount() -> None:
    """Around a mount only, the middleware limits the WebSockets in it, and no others."""
    runtime = make_runtime(limits=["1/minute"])
    ours = [Middleware(FailsoftMiddleware, runtime=runtime)]
    routes = [Mount("/m", routes=[WebSocketRoute("/x", echo())], middleware=ours), WebSocketRoute("/x", echo())]
    with AsgiApp(Starlette(routes=routes), runtime) as app:
        assert [101, 429, 101, 101] == [app.websocket(path).status for path in ("/m/x", "/m/x", "/x", "/x")]


def test_endpoints_are_listed_and_audited(open_app: Open, caplog: pytest.LogCaptureFixture) -> None:
    """A WebSocket's limits are listed as those of a GET, and none is said to be lost."""

    class Endpoint(Talk):
        @limit("4444/minute")
        async def on_receive(self, websocket: WebSocket, data: Any) -> None: ...

    routes = [WebSocketRoute("/a", echo(limit("4445/minute"))), WebSocketRoute("/b", Endpoint)]
    with caplog.at_level(logging.WARNING, "failsoft.starlette"):
        app = open_app(routes)
    assert [] == [one.getMessage() for one in caplog.records if "444" in one.getMessage()]
    assert [("GET", "/a", 1), ("GET", "/b", 3)] == [
        (i.method, i.template, len(i.targets)) for i in list_routes(app.application)
    ]


# How it is refused


def test_renderer_of_a_refusal(open_app: Open) -> None:
    """A renderer makes the response to a refused opening too: it is given a request, and the fields are added."""

    async def renderer(request: Request, rejected: Rejected) -> Response:
        return JSONResponse({"path": request.url.path, "method": request.method, "key": request.headers["x-key"]}, 420)

    app = open_app([WebSocketRoute("/a", echo(limit("1/minute")))], renderer=renderer)
    app.websocket("/a")
    one = app.websocket("/a", headers=[("X-Key", "k")])
    assert (420, {"path": "/a", "method": "GET", "key": "k"}, 60) == (one.status, one.json(), one.retry_after)
    assert 1 == len(one.lines("RateLimit"))


def test_late_refusal_of_an_opening(open_app: Open) -> None:
    """A helper that refuses before the accept makes a response of its refusal; after it, a close frame."""
    helper = limit("1/minute", shared="helper")(nothing)

    async def before(websocket: WebSocket) -> None:
        await helper()
        await websocket.accept()

    async def after(websocket: WebSocket) -> None:
        await websocket.accept()
        await helper()

    app = open_app([WebSocketRoute("/before", before), WebSocketRoute("/after", after)])
    one, two, three = app.websocket("/before"), app.websocket("/before"), app.websocket("/after")
    assert [(101, None), (429, None), (101, 1008)] == [(each.status, each.code) for each in (one, two, three)]
    assert [None] * 3 == [each.raised for each in (one, two, three)]


async def nothing() -> None: ...


def test_reason_fits_its_frame(open_app: Open) -> None:
    """However long the names of the policies are, the reason fits into a close frame (RFC 6455, section 5.5)."""
    app = open_app([WebSocketRoute("/", echo(limit("1/minute", messages=True, name="a-very-long-name" * 20)))])
    one = app.websocket("/", "1", "2")
    assert (123, True) == (len(one.reason.encode()), "a-very-long-name" in one.reason)


def test_client_that_left_before_it_was_refused(open_app: Open) -> None:
    """Nothing is sent to a client that is not there any more."""
    app = open_app([WebSocketRoute("/", echo(limit("1/minute")))])
    app.websocket("/")
    sent: list[Any] = []

    async def receive() -> Any:
        return {"type": "websocket.disconnect", "code": 1006}

    async def send(message: Any) -> None:
        sent.append(message)

    scope = {"type": "websocket", "path": "/", "headers": [], "client": ("203.0.113.7", 1), "root_path": ""}
    asyncio.run(app.application(scope, receive, send))
    assert [] == sent


def test_endpoint_that_closes_is_given_back(open_app: Open) -> None:
    """A close before the accept has the status 403: what is charged on another status is given back."""

    async def endpoint(websocket: WebSocket) -> None:
        await websocket.close()

    app = open_app([WebSocketRoute("/", limit("2/minute", charge_on=(101,))(endpoint))])
    assert [403] * 5 == [app.websocket("/").status for _ in range(5)]


@pytest.mark.parametrize("how", ["close", "response"])
def test_endpoint_that_refuses_by_itself(open_app: Open, how: str) -> None:
    """An endpoint may refuse to be opened; that has a status, by which a limit may charge."""

    async def endpoint(websocket: WebSocket) -> None:
        if "x-key" in websocket.headers:
            await websocket.accept()
        elif how == "close":
            await websocket.close(4001)
        else:
            await websocket.send_denial_response(PlainTextResponse("who are you?", 403))

    app = open_app([WebSocketRoute("/", limit("2/minute", charge_on=(403,))(endpoint))])
    key = [("X-Key", "k")]
    assert [101, 101, 101] == [app.websocket("/", headers=key).status for _ in range(3)]
    refused = [app.websocket("/") for _ in range(3)]
    assert [403, 403, 429] == [one.status for one in refused]
    assert ([1, 1, 1] if how == "response" else [0, 0, 1]) == [len(one.lines("RateLimit")) for one in refused]
    assert 429 == app.websocket("/", headers=key).status


def test_answer_of_an_endpoint_stays(open_app: Open) -> None:
    """Subprotocol and header fields of the accept are what the endpoint says, with ours added."""

    async def endpoint(websocket: WebSocket) -> None:
        await websocket.accept(subprotocol="chat", headers=[(b"x-own", b"1"), (b"set-cookie", b"a=1")])

    sent: list[Any] = []
    app = open_app([WebSocketRoute("/", limit("9/minute")(endpoint))])

    async def receive() -> Any:
        return {"type": "websocket.connect"}

    async def send(message: Any) -> None:
        sent.append(message)

    scope = {"type": "websocket", "path": "/", "headers": [], "client": ("203.0.113.7", 1), "root_path": ""}
    asyncio.run(app.application(scope, receive, send))
    names = [b"x-own", b"set-cookie", b"ratelimit-policy", b"ratelimit"]
    assert ("chat", names) == (sent[0]["subprotocol"], [name for name, _ in sent[0]["headers"]])


def test_errors_of_an_endpoint_are_its_own(open_app: Open) -> None:
    """An endpoint's own error goes to the server; the socket's request is over all the same."""

    async def endpoint(websocket: WebSocket) -> None:
        await websocket.accept()
        raise ZeroDivisionError

    under_way = UnderWay()
    runtime = make_runtime(concerns=[under_way])
    app = open_app([WebSocketRoute("/", limit("9/minute")(endpoint))], runtime=runtime)
    one = app.websocket("/")
    assert isinstance(one.raised, ZeroDivisionError)
    assert (0, 1) == (under_way.count, under_way.ended)


def test_under_way_until_it_ends(open_app: Open) -> None:
    """A socket is one request, under way until it ends, however many messages come over it."""
    under_way, seen = UnderWay(), []

    async def endpoint(websocket: WebSocket) -> None:
        await websocket.accept()
        seen.extend([(under_way.count, under_way.ended) async for _ in websocket.iter_text()])

    runtime = make_runtime(concerns=[under_way])
    app = open_app([WebSocketRoute("/", limit("2/minute", messages=True)(endpoint))], runtime=runtime)
    app.websocket("/", "a", "b", "c")
    assert ([(1, 0), (1, 0)], 0, 1) == (seen, under_way.count, under_way.ended)


# Messages


def test_functions_of_a_message(open_app: Open) -> None:
    """Functions of a limit on messages are asked for each: what they are given has the connection, and what was sent."""
    asked: list[Any] = []

    def cost(message: SocketMessage) -> int:
        asked.append((message.url.path, message.headers["x-key"], message.data))
        return len(message.data)

    async def tenant(message: SocketMessage) -> str:
        return message.headers["x-key"]

    policy = limit("10/minute", messages=True, cost=cost, by=tenant, when=lambda message: message.data != "free")
    app = open_app([WebSocketRoute("/a", echo(policy))])
    one = app.websocket("/a", "four", "free", "seven77", "x", headers=[("X-Key", "k")])
    assert (("four", "free"), 1008) == (one.texts, one.code)
    assert [("/a", "k", text) for text in ("four", "free", "seven77")] == asked
    assert ("seven77",) == app.websocket("/a", "seven77", headers=[("X-Key", "l")]).texts


def test_functions_of_an_opening(open_app: Open) -> None:
    """Functions of a limit on openings are given the connection, which has no body."""

    def who(connection: HTTPConnection) -> str:
        assert not isinstance(connection, Request)
        return connection.query_params["who"]

    app = open_app([WebSocketRoute("/", echo(limit("1/minute", by=who)))])
    assert [101, 101, 429] == [app.websocket(f"/?who={name}").status for name in ("a", "b", "a")]


def test_bytes(open_app: Open) -> None:
    """Binary messages are messages."""
    seen: list[Any] = []

    def cost(message: SocketMessage) -> int:
        seen.append(message.data)
        return 1

    app = open_app([WebSocketRoute("/", echo(limit("1/minute", messages=True, cost=cost)))])
    to_send: list[Any] = [
        {"type": "websocket.connect"},
        {"type": "websocket.receive", "bytes": b"one", "text": None},
        {"type": "websocket.receive", "bytes": b"two"},
    ]
    sent: list[Any] = []

    async def receive() -> Any:
        return to_send.pop(0)

    async def send(message: Any) -> None:
        sent.append(message)

    scope = {"type": "websocket", "path": "/", "headers": [], "client": ("203.0.113.7", 1), "root_path": ""}
    asyncio.run(app.application(scope, receive, send))
    assert ["websocket.accept", "websocket.send", "websocket.close"] == [message["type"] for message in sent]
    assert [b"one", b"two"] == seen


def test_helpers_are_charged_for_each_message(open_app: Open) -> None:
    """A limited function that an endpoint calls is charged once for each message, however often it is called for it."""
    helper = limit("3/minute", shared="helper")(nothing)

    async def endpoint(websocket: WebSocket) -> None:
        await websocket.accept()
        async for text in websocket.iter_text():
            await helper()
            await helper()
            await websocket.send_text(text)

    app = open_app([WebSocketRoute("/", endpoint)])
    one = app.websocket("/", "1", "2", "3", "4", "5")
    assert (("1", "2", "3"), 1008, 4) == (one.texts, one.code, flights(app))


def test_helpers_of_endpoints_that_wait_with_a_timeout(open_app: Open) -> None:
    """Where a task of its own receives for the endpoint, a limited function is charged for each message all the same."""
    helper = limit("3/minute", shared="helper")(nothing)
    kept: list[int] = []

    async def endpoint(websocket: WebSocket) -> None:
        await websocket.accept()
        while True:
            text = await asyncio.create_task(websocket.receive_text())
            await helper()
            await websocket.send_text(text)
            opened: Any = current()
            kept.append(len(opened._parts) + len(opened.memo))

    app = open_app([WebSocketRoute("/", endpoint)])
    one = app.websocket("/", "1", "2", "3", "4", "5")
    assert (("1", "2", "3"), 1008) == (one.texts, one.code)
    assert kept[0] == kept[-1]  # nothing of the messages before stays


def test_tasks_of_several_messages(open_app: Open) -> None:
    """Tasks that work on one message each are charged for one message each, in whatever order they get on."""
    helper = limit("3/minute", shared="helper")(nothing)
    outcomes: list[bool] = []

    async def work(go: asyncio.Event) -> None:
        await go.wait()
        try:
            await helper()
            outcomes.append(True)
        except RateLimited:
            outcomes.append(False)

    async def endpoint(websocket: WebSocket) -> None:
        await websocket.accept()
        go = asyncio.Event()
        tasks = [asyncio.create_task(work(go)) async for _ in websocket.iter_text()]
        go.set()
        await asyncio.gather(*tasks)

    open_app([WebSocketRoute("/", endpoint)]).websocket("/", "1", "2", "3", "4", "5")
    assert [False, False, True, True, True] == sorted(outcomes)


def test_reservation_of_a_message(open_app: Open) -> None:
    """An endpoint may say what a message really cost: that is charged at once."""

    async def endpoint(websocket: WebSocket) -> None:
        await websocket.accept()
        async for text in websocket.iter_text():
            await reservation("tokens").acharge(int(text))
            await websocket.send_text(text)

    policy = limit("100/minute", messages=True, adjustable=True, cost=10, name="tokens")
    app = open_app([WebSocketRoute("/", policy(endpoint))])
    one = app.websocket("/", "70", "15", "1", "1", "1")
    # 70, 85, 86, 87 and 88 of 100 are used up; 10 are reserved for each.
    assert (("70", "15", "1", "1", "1"), None) == (one.texts, one.code)
    assert ((), 1008) == ((one := app.websocket("/", "9", "9")).texts[1:], one.code)


def test_nothing_grows_with_the_messages(open_app: Open) -> None:
    """A socket that stays open for long holds nothing of the messages that came over it."""
    helper = limit("100000/minute", shared="helper")(nothing)
    kept: list[Any] = []

    async def endpoint(websocket: WebSocket) -> None:
        opened: Any = current()
        await websocket.accept()
        async for _ in websocket.iter_text():
            await helper()
        message: Any = current()
        kept.append([len(one._parts) + len(one.memo) + len(one.answers) for one in (opened, message)])
        kept.append(opened is message)

    policy = limit("100000/minute", messages=True, cost=lambda message: 1)
    app = open_app([WebSocketRoute("/", policy(endpoint))])
    app.websocket("/", *["x"] * 300)
    (opened, message), same = kept
    assert (True, False) == (opened <= 2 and message <= 4, same)


def test_whoever_stops_waiting_loses_no_message(open_app: Open) -> None:
    """An endpoint that gives up waiting while the store is asked gets the message when it waits again."""
    app: AsgiApp

    async def endpoint(websocket: WebSocket) -> None:
        await websocket.accept()
        store: Any = app.runtime.store
        with store.hanging("30s"):
            task = asyncio.create_task(websocket.receive_text())
            while not store.waiting.is_set():  # noqa: ASYNC110 - the event is a thread's
                await asyncio.sleep(0.001)
            task.cancel()
            await asyncio.wait([task])
        await websocket.send_text(await websocket.receive_text())
        await websocket.send_text(await websocket.receive_text())

    app = open_app([WebSocketRoute("/", limit("9/minute", messages=True)(endpoint))])
    assert ("one", "two") == app.websocket("/", "one", "two").texts


def test_sending_after_a_refused_message(open_app: Open) -> None:
    """Who still sends learns that the client is gone, as when it had left by itself; closing once more is no mistake."""
    log: list[Any] = []

    async def endpoint(websocket: WebSocket) -> None:
        await websocket.accept()
        try:
            while True:
                await websocket.receive_text()
        except WebSocketDisconnect as left:
            log.append((left.code, "1-per-minute" in left.reason))
        try:
            await websocket.send_text("are you there?")
        except WebSocketDisconnect as left:
            log.append(left.code)
        await websocket.close()

    app = open_app([WebSocketRoute("/", limit("1/minute", messages=True)(endpoint))])
    one = app.websocket("/", "a", "b")
    assert ([(1008, True), 1006], 1008, True) == (
        log,
        one.code,
        one.raised is None or isinstance(one.raised, RuntimeError),
    )


def test_receiving_after_a_refused_message(open_app: Open) -> None:
    """Who goes on to receive, without a look at what came, hears each time that the client is gone; a close is not sent twice."""
    log: list[Any] = []

    async def endpoint(websocket: WebSocket) -> None:
        await websocket.accept()
        log.extend([(await websocket._receive())["type"] for _ in range(4)])
        await websocket._send({"type": "websocket.close", "code": 1000})

    one = open_app([WebSocketRoute("/", limit("1/minute", messages=True)(endpoint))]).websocket("/", "a", "b", "c")
    assert (["websocket.receive"] + ["websocket.disconnect"] * 3, 1008, None) == (log, one.code, one.raised)


def test_receiving_after_a_refused_message_waits_for_nobody(open_app: Open) -> None:
    """That the client is gone is known without asking the server, which may have nothing to say for as long as the handshake takes."""

    async def endpoint(websocket: WebSocket) -> None:
        await websocket.accept()
        for _ in range(4):
            await websocket._receive()

    app = open_app([WebSocketRoute("/", limit("1/minute", messages=True)(endpoint))])

    async def send(message: Any) -> None: ...

    asyncio.run(converse(app, send, MESSAGE, MESSAGE))


async def converse(app: AsgiApp, send: Any, *messages: Any) -> None:
    """A conversation with a client of a test's own."""
    to_send: list[Any] = [{"type": "websocket.connect"}, *messages]

    async def receive() -> Any:
        return to_send.pop(0) if to_send else await asyncio.Event().wait()

    scope = {"type": "websocket", "path": "/", "headers": [], "client": ("203.0.113.7", 1), "root_path": ""}
    await asyncio.wait_for(app.application(scope, receive, send), 20)  # type: ignore[arg-type]  # a coroutine


MESSAGE = {"type": "websocket.receive", "text": "x"}


def test_tasks_that_send_while_the_socket_is_closed(open_app: Open) -> None:
    """A task that sends while the close frame is on its way does not send after it: it learns that the client is gone."""
    log: list[str] = []
    sent: list[str] = []

    async def push(websocket: WebSocket) -> None:
        try:
            while True:
                await websocket.send_text("news")
                await asyncio.sleep(0)
        except WebSocketDisconnect:
            log.append("gone")

    async def endpoint(websocket: WebSocket) -> None:
        await websocket.accept()
        pushing = asyncio.create_task(push(websocket))
        async for _ in websocket.iter_text():
            pass
        await pushing

    async def send(message: Any) -> None:
        sent.append(message["type"])
        if message["type"] == "websocket.close":
            for _ in range(10):
                await asyncio.sleep(0)

    app = open_app([WebSocketRoute("/", limit("1/minute", messages=True)(endpoint))])
    asyncio.run(converse(app, send, MESSAGE, MESSAGE))
    assert (["gone"], "websocket.close", 1) == (log, sent[-1], sent.count("websocket.close"))


def test_socket_that_the_endpoint_closes_meanwhile(open_app: Open) -> None:
    """Where the endpoint closes while a message is decided about, that is not closed again."""
    sent: list[Any] = []
    app: AsgiApp

    async def endpoint(websocket: WebSocket) -> None:
        await websocket.accept()
        await websocket.receive_text()
        store: Any = app.runtime.store
        with store.hanging("30s"):
            receiving = asyncio.create_task(websocket.receive())
            while not store.waiting.is_set():  # noqa: ASYNC110 - the event is a thread's
                await asyncio.sleep(0.001)
            await websocket.close(4000)
        assert "websocket.disconnect" == (await receiving)["type"]

    async def send(message: Any) -> None:
        sent.append((message["type"], message.get("code")))

    app = open_app([WebSocketRoute("/", limit("1/minute", messages=True)(endpoint))])
    asyncio.run(converse(app, send, MESSAGE, MESSAGE))
    assert [("websocket.accept", None), ("websocket.close", 4000)] == sent


def test_client_that_left_before_it_was_closed(open_app: Open) -> None:
    """A client that is gone when it is told so changes nothing for the endpoint."""
    seen: list[int] = []

    async def endpoint(websocket: WebSocket) -> None:
        await websocket.accept()
        try:
            while True:
                await websocket.receive_text()
        except WebSocketDisconnect as left:
            seen.append(left.code)

    async def send(message: Any) -> None:
        if message["type"] == "websocket.close":
            raise OSError("the client is gone")

    app = open_app([WebSocketRoute("/", limit("1/minute", messages=True)(endpoint))])
    asyncio.run(converse(app, send, MESSAGE, MESSAGE))
    assert [1008] == seen


def test_penalty_of_messages(open_app: Open) -> None:
    """Who keeps sending too many messages is shut out, over every socket."""
    from failsoft import Penalty

    policy = limit("1/second", messages=True, penalty=Penalty(after=2, block="10m"))
    app = open_app([WebSocketRoute("/", echo(policy))], deny_cache=0)
    assert [("a",), (), ()] == [app.websocket("/", *texts).texts for texts in ("ab", "c", "d")]
    clock: Any = app.runtime.clock
    clock.advance("5m")
    one = app.websocket("/", "e")
    assert ((), 1008, True) == (one.texts, one.code, "penalty" in one.reason)
    clock.advance("5m")
    assert ("f",) == app.websocket("/", "f").texts


class ByHeader(AuthenticationBackend):
    async def authenticate(self, conn: HTTPConnection) -> Any:
        name = conn.headers.get("x-user")
        return (AuthCredentials(), SimpleUser(name)) if name else None


@pytest.mark.parametrize("where", ["outside", "inside"])
@pytest.mark.parametrize("messages", [False, True])
def test_users(open_app: Open, where: str, messages: bool) -> None:
    """Limits by user count the user whom AuthenticationMiddleware found, on either side of us, for openings and messages."""
    authentication = [Middleware(AuthenticationMiddleware, backend=ByHeader())]
    app = open_app(
        [WebSocketRoute("/", echo(limit("1/minute", by="user", messages=messages)))], **{where: authentication}
    )
    seen = [app.websocket("/", "text", headers=[("X-User", name)]) for name in ("alice", "bob", "alice")]
    assert [("text",), ("text",), ()] == [one.texts for one in seen]
    assert ([101] * 3 if messages else [101, 101, 429]) == [one.status for one in seen]


def test_hidden_endpoint_with_both(open_app: Open) -> None:
    """Behind a decorator that hides it, an endpoint's limits on openings and on messages both hold."""
    app = open_app([WebSocketRoute("/", hide(echo(limit("2/minute"), limit("3/minute", messages=True))))])
    assert [("a", "b"), ("c",), ()] == [app.websocket("/", *texts).texts for texts in ("ab", "cd", "e")]


def test_disabled(open_app: Open) -> None:
    """With ``enabled=False`` neither openings nor messages are counted."""
    app = open_app([WebSocketRoute("/", echo(limit("1/minute"), limit("1/minute", messages=True)))], enabled=False)
    assert [("a", "b", "c")] * 2 == [app.websocket("/", "a", "b", "c").texts for _ in range(2)]
    assert 0 == flights(app)


@pytest.mark.parametrize("options", [{"charge_on": (401,)}, {"by": late(lambda websocket: "x")}])
def test_what_messages_do_not_have(options: dict[str, Any]) -> None:
    """A limit on messages cannot charge by a response, nor count by a view's arguments: a mistake, when it is declared."""
    with pytest.raises(ConfigurationError, match="messages=True does not go with"):
        limit("1/minute", messages=True, **options)
