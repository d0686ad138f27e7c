"""Reading ahead: what functions of the request read of a body, and what the application sees of it."""

import asyncio
import gc
import json
import weakref
from collections.abc import AsyncIterator
from typing import Any

import pytest
from starlette.applications import Starlette
from starlette.middleware import Middleware
from starlette.middleware.base import BaseHTTPMiddleware
from starlette.requests import ClientDisconnect, Request
from starlette.responses import PlainTextResponse, Response, StreamingResponse
from starlette.routing import Route

from failsoft import ConfigurationError, limit
from failsoft.presets import submitted
from failsoft.testing.contract.base import hide
from failsoft_starlette import FailsoftMiddleware
from tests.core.requests import make_runtime
from tests.starlette.apps import Open


async def items(request: Request) -> int:
    """The cost of a request that lists things in JSON."""
    return len((await request.json())["items"])


async def pieces(request: Request) -> Response:
    """What the view's own stream gives, piece by piece."""
    return PlainTextResponse("|".join([str(len(piece)) async for piece in request.stream()]))


def serve(app: Any, messages: list[Any], path: str = "/") -> list[Any]:
    """What an application answers to a POST whose client sends `messages`; each may be a function that gives it."""
    sent: list[Any] = []
    left = list(messages)

    async def receive() -> Any:
        await asyncio.sleep(0)
        if not left:
            await asyncio.Event().wait()
        return left.pop(0)

    async def send(message: Any) -> None:
        sent.append(message)

    scope = {
        "type": "http",
        "method": "POST",
        "path": path,
        "root_path": "",
        "headers": [(b"host", b"testserver"), (b"content-type", b"application/json")],
        "query_string": b"",
        "client": ("203.0.113.7", 1),
    }
    asyncio.run(app.application(scope, receive, send))
    return [sent[0]["status"], b"".join(message.get("body", b"") for message in sent), len(left)]


def chunks(*bodies: bytes) -> list[Any]:
    last = len(bodies) - 1
    return [{"type": "http.request", "body": body, "more_body": n < last} for n, body in enumerate(bodies)]


BODY = (b'{"items": [1,', b" 2]", b"", b"}")


def test_the_view_streams_what_was_read(open_app: Open) -> None:
    """A view that streams gets the body in the pieces in which the server gave it."""
    app = open_app([Route("/", limit("5/minute", cost=items)(pieces), methods=["POST"])])
    assert [200, b"13|3|1|0", 0] == serve(app, chunks(*BODY))


def test_only_what_is_asked_for_is_read(open_app: Open) -> None:
    """A function that reads only the beginning leaves the rest where it is; the view gets all of it."""

    async def first(request: Request) -> int:
        async for piece in request.stream():
            return len(piece)
        return 1

    app = open_app([Route("/", limit("99/minute", cost=first)(pieces), methods=["POST"])])
    assert [200, b"13|3|1|0", 0] == serve(app, chunks(*BODY))


def test_nothing_is_read_for_a_refusal(open_app: Open) -> None:
    """Who is known to be refused by address is refused without reading a body."""

    async def never(request: Request) -> str:
        raise AssertionError("the body was read")

    routes = [
        Route("/", limit("9/minute")(pieces), methods=["POST"]),
        Route("/costly", limit("9/minute", by=never)(pieces), methods=["POST"]),
    ]
    app = open_app(routes, limits=["1/hour"])
    assert [200, 429] == [serve(app, chunks(b"a"))[0] for _ in range(2)]
    assert [429, 1] == serve(app, chunks(b"a"), "/costly")[::2]


def test_middleware_between(open_app: Open) -> None:
    """Middleware that wraps the body of the request sees all of it too."""

    class Reading(BaseHTTPMiddleware):
        async def dispatch(self, request: Request, call_next: Any) -> Response:
            body = await request.body()
            response = await call_next(request)
            response.headers["x-length"] = str(len(body))
            return response  # type: ignore[no-any-return]  # Starlette's own type for it is this

    app = open_app([Route("/", limit("9/minute", cost=items)(pieces), methods=["POST"])], inside=[Middleware(Reading)])
    body = json.dumps({"items": [1], "text": "x" * 100_000}).encode()
    reply = app.request("POST", "/", headers=[("Content-Type", "application/json")], body=body)
    assert (200, str(len(body)), 8) == (reply.status, reply.header("x-length"), reply.limits["9-per-minute"].remaining)


def test_read_too_late(open_app: Open) -> None:
    """A function that could be asked only when the application has begun to read is a mistake that says so; it waits for nothing."""

    def reading_first(view: Any) -> Any:
        async def wrapper(request: Request) -> Response:
            await request.body()
            return await view(request)  # type: ignore[no-any-return]  # a view

        return wrapper

    app = open_app([Route("/", reading_first(limit("9/minute", cost=items)(pieces)), methods=["POST"])])
    reply = app.request("POST", "/", body=b"{}")
    assert (500, True) == (reply.status, isinstance(reply.raised, ConfigurationError))
    assert "functools.wraps" in str(reply.raised)


def test_read_late(open_app: Open) -> None:
    """Behind a decorator that hides the limit, a function still reads the body before the view does."""
    app = open_app([Route("/", hide(limit("5/minute", cost=items)(pieces)), methods=["POST"])])
    assert [200, b"13|3|1|0", 0] == serve(app, chunks(*BODY))


def test_client_that_leaves_while_its_body_is_read(open_app: Open) -> None:
    """A client that hangs up in the middle of its body ends the request as it would in the view, and runs no view."""
    ran: list[str] = []

    async def view(request: Request) -> Response:
        ran.append("view")
        return PlainTextResponse("")

    app = open_app([Route("/", limit("9/minute", cost=items)(view), methods=["POST"])])
    gone = [{"type": "http.request", "body": b"{", "more_body": True}, {"type": "http.disconnect"}]
    with pytest.raises(ClientDisconnect):
        serve(app, gone)
    assert [] == ran


def test_disconnect_after_the_body(open_app: Open) -> None:
    """What comes after a body that was read ahead reaches the view: a disconnect stops a stream."""
    log: list[str] = []

    async def endless() -> AsyncIterator[bytes]:
        try:
            while True:
                yield b"x"
                await asyncio.sleep(0.001)
        finally:
            log.append("stopped")

    async def view(request: Request) -> Response:
        log.append((await request.body()).decode())
        return StreamingResponse(endless())

    app = open_app([Route("/", limit("9/minute", cost=items)(view), methods=["POST"])])
    status, _, left = serve(app, [*chunks(b'{"items": [1]}'), {"type": "http.disconnect"}])
    assert (200, 0, ['{"items": [1]}', "stopped"]) == (status, left, log)


# The bound


class Bounded:
    """Something with an `application`, as `serve` wants it."""

    def __init__(self, view: Any, read_ahead: int) -> None:
        inner = Starlette(routes=[Route("/", view, methods=["POST"])])
        self.application = FailsoftMiddleware(inner, runtime=make_runtime(), read_ahead=read_ahead)


def test_a_body_that_is_too_long_is_refused() -> None:
    """A body longer than may be read ahead is refused with 413, before the view and before the rest of it is read."""
    app = Bounded(limit("9/minute", cost=items)(pieces), 17)
    assert [200, b"13|3|1|0", 0] == serve(app, chunks(*BODY))
    status, body, left = serve(app, chunks(b'{"items": [1', b", 2, 3, 4", b"]}", b""))
    assert (413, "Content Too Large", 2) == (status, json.loads(body)["title"], left)


def test_a_function_may_cope_with_a_long_body() -> None:
    """A function that says what a body costs which is too long for it has its way; the view gets the whole body."""

    async def careful(request: Request) -> int:
        try:
            return await items(request)
        except Exception:
            return 9

    app = Bounded(limit("9/minute", cost=careful)(pieces), 16)
    assert [200, b"20|20|0", 0] == serve(app, chunks(b"x" * 20, b"y" * 20, b""))
    assert 429 == serve(app, chunks(b"x" * 20))[0]


def test_bodies_that_nobody_reads_have_no_bound() -> None:
    """The bound is for functions of the request; views read as much as they like."""
    app = Bounded(limit("9/minute")(pieces), 0)
    assert [200, b"1000|1000|0", 0] == serve(app, chunks(b"x" * 1000, b"y" * 1000, b""))


@pytest.mark.parametrize("wrong", [-1, 1.5, True, "1MB", 1 << 31])
def test_bounds_that_are_none(wrong: Any) -> None:
    """A bound that is no number of bytes is a mistake, told at start."""
    with pytest.raises(ConfigurationError, match="read_ahead"):
        FailsoftMiddleware(pieces, read_ahead=wrong)


# Forms


def post(app: Any, kind: str, body: bytes) -> int:
    status: int = app.request("POST", "/", headers=[("Content-Type", kind)], body=body).status
    return status


MULTIPART = (
    b'--xx\r\nContent-Disposition: form-data; name="who"\r\n\r\nalice\r\n'
    b'--xx\r\nContent-Disposition: form-data; name="file"; filename="a.txt"\r\n\r\ntext\r\n--xx--\r\n'
)


def test_forms(open_app: Open) -> None:
    """A field of a form of either kind is found, and the view reads the form once more, its file too."""
    pytest.importorskip("python_multipart", reason="needs python-multipart")
    seen: list[Any] = []

    async def view(request: Request) -> Response:
        async with request.form() as form:
            seen.append({key: value if isinstance(value, str) else await value.read() for key, value in form.items()})
        return PlainTextResponse("ok")

    app = open_app([Route("/", limit("2/minute", by=submitted("who"))(view), methods=["POST"])])
    kinds = ["multipart/form-data; boundary=xx", "application/x-www-form-urlencoded"] * 2
    assert [200, 200, 429, 429] == [
        post(app, kind, MULTIPART if "multi" in kind else b"who=bob&who=alice&x=%20") for kind in kinds
    ]
    assert [{"who": "alice", "file": b"text"}, {"who": "alice", "x": " "}] == seen


@pytest.mark.parametrize("kind", ["multipart/form-data; boundary=xx", "multipart/form-data", "application/json"])
def test_broken_bodies(open_app: Open, kind: str) -> None:
    """A body that is not what it says has no such field; what to answer to it is the view's business."""
    pytest.importorskip("python_multipart", reason="needs python-multipart")

    async def view(request: Request) -> Response:
        return PlainTextResponse(await request.body())

    app = open_app([Route("/", limit("2/minute", by=submitted("who"), on_missing="exempt")(view), methods=["POST"])])
    for body in (b"--yy\r\nnonsense", b"", b'{"who": ', b"\x00\xff"):
        reply = app.request("POST", "/", headers=[("Content-Type", kind)], body=body)
        assert (200, body, None) == (reply.status, reply.body, reply.raised)


def test_bodies_are_not_kept(open_app: Open) -> None:
    """When a request is over, what was read of it goes, without waiting for the garbage collector."""
    kept: list[Any] = []

    async def watched(request: Request) -> int:
        kept.append(weakref.ref(request))
        return await items(request)

    app = open_app([Route("/", limit("9/minute", cost=watched)(pieces), methods=["POST"])])
    gc.disable()
    try:
        assert 200 == serve(app, chunks(*BODY))[0]
        assert [None] == [ref() for ref in kept]
    finally:
        gc.enable()


@pytest.mark.parametrize(
    "body",
    [
        b"who=a&who=b",
        b"who=a;x=1",
        b"x=1;who=a",
        b"who=%61+b",
        b"who",
        b"who=&x",
        b"\xe4=1&who=\xc3\xa4",
        b"who=%C3%A4",
    ],
)
def test_forms_are_read_as_the_view_reads_them(open_app: Open, body: bytes) -> None:
    """What a limit takes for a field is what the view's own form has there: no spelling of a form tells the two apart."""
    pytest.importorskip("python_multipart", reason="needs python-multipart")
    seen: list[Any] = []

    async def who(request: Request) -> Any:
        seen.append(await submitted("who")(request))
        return seen[-1]

    async def view(request: Request) -> Response:
        async with request.form() as form:
            seen.append(form.get("who"))
        return PlainTextResponse("ok")

    app = open_app([Route("/", limit("9/minute", by=who, on_missing="exempt")(view), methods=["POST"])])
    assert 200 == post(app, "application/x-www-form-urlencoded", body)
    assert [seen[0]] * 2 == seen
