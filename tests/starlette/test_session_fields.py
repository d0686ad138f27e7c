"""What caches are told, beside what the contract says of it: by middleware outside of failsoft, over sockets, and after a save by hand."""

import pytest
from starlette.middleware import Middleware
from starlette.middleware.cors import CORSMiddleware
from starlette.middleware.gzip import GZipMiddleware
from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response
from starlette.routing import Mount, Route, WebSocketRoute
from starlette.types import Receive, Scope, Send
from starlette.websockets import WebSocket

from tests.starlette.apps import Open
from tests.starlette.browsers import SECRET

CACHED = {"Vary": "Accept-Language", "Cache-Control": "public, max-age=60"}
ELSEWHERE = "https://elsewhere.example"
SESSIONS = {"sessions": True, "secret": SECRET}


async def write(request: Request) -> Response:
    request.session["a"] = 1
    return PlainTextResponse("written", headers=CACHED)


@pytest.mark.parametrize(
    ("outside", "added"),
    [
        (Middleware(GZipMiddleware, minimum_size=1), "Accept-Encoding"),
        (Middleware(CORSMiddleware, allow_origins=[ELSEWHERE], allow_credentials=True), "Origin"),
    ],
    ids=["gzip", "cors"],
)
def test_middleware_outside(open_app: Open, outside: Middleware, added: str) -> None:
    """Middleware further out that adds to Vary keeps ours, also where it reads the first line and replaces all (Starlette up to 1.0)."""
    app = open_app([Route("/", write)], outside=[outside], **SESSIONS)
    reply = app.get("/", ("origin", ELSEWHERE), ("accept-encoding", "gzip"))
    assert [f"Accept-Language, Cookie, {added}"] == reply.lines("vary")
    assert ["max-age=60, private"] == reply.lines("cache-control")


def test_saved_by_hand(open_app: Open) -> None:
    """Cookies of a save by hand make the response private likewise."""

    async def save(request: Request) -> Response:
        response = await write(request)
        await request.session.save()  # type: ignore[attr-defined]  # Starlette calls it a dict
        return response

    reply = open_app([Route("/", save)], **SESSIONS).get("/")
    assert ["Accept-Language, Cookie"] == reply.lines("vary")
    assert ["max-age=60, private"] == reply.lines("cache-control")


def test_saved_by_hand_while_away(open_app: Open) -> None:
    """Cookies of a logout by hand, while the store is away, are in a response that nobody keeps."""

    async def leave(request: Request) -> Response:
        request.session.logout()  # type: ignore[attr-defined]  # likewise
        await request.session.save()  # type: ignore[attr-defined]  # likewise
        return PlainTextResponse("bye", headers=CACHED)

    app = open_app([Route("/", leave), Route("/write", write)], **SESSIONS)
    cookies = "; ".join(line.partition(";")[0] for line in app.get("/write").lines("set-cookie"))
    with app.runtime.store.away():  # type: ignore[attr-defined]  # a FaultyStore
        reply = app.get("/", ("cookie", cookies))
    assert ["no-store, private"] == reply.lines("cache-control")
    assert ["Accept-Language, Cookie"] == reply.lines("vary")


def test_handshake(open_app: Open) -> None:
    """The response that opens a socket is told of in the same way, whatever the endpoint says."""

    async def socket(websocket: WebSocket) -> None:
        websocket.session["a"] = 1
        await websocket.accept(headers=[(name.lower().encode(), value.encode()) for name, value in CACHED.items()])
        await websocket.close()

    conversation = open_app([WebSocketRoute("/ws", socket)], **SESSIONS).websocket("/ws")
    assert ["Accept-Language, Cookie"] == conversation.lines("vary")
    assert ["max-age=60, private"] == conversation.lines("cache-control")


def test_other_spelling(open_app: Open) -> None:
    """An application that writes the names of its fields in capitals is understood."""

    async def bare(scope: Scope, receive: Receive, send: Send) -> None:
        scope["session"]["a"] = 1
        headers = [(name.encode(), value.encode()) for name, value in CACHED.items()]
        await send({"type": "http.response.start", "status": 200, "headers": iter(headers)})
        await send({"type": "http.response.body", "body": b""})

    reply = open_app([Mount("/", app=bare)], **SESSIONS).get("/")
    assert ["Accept-Language, Cookie"] == reply.lines("vary")
    assert ["max-age=60, private"] == reply.lines("cache-control")
