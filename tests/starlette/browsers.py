"""A browser with a jar, and a site with sessions, for tests of them."""

import asyncio
from collections.abc import Awaitable, Callable, MutableMapping
from http.cookies import SimpleCookie
from typing import Any

from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from failsoft import Settings
from failsoft.runtime import Runtime
from failsoft.testing import AsgiApp
from failsoft.testing.harness import Conversation, Reply
from failsoft_starlette import login, logout, principal

__all__ = ["NAME", "SECRET", "Browser", "call", "server_runtime", "site"]

SECRET = "a secret of the tests, of forty characters"
NAME = "__Host-session"

_Application = Callable[[MutableMapping[str, Any], Any, Any], Awaitable[None]]


class Browser:
    """A client that keeps cookies.

    Args:
        app: where it goes.
        jar: what it has already.
    """

    def __init__(self, app: AsgiApp, jar: dict[str, str] | None = None) -> None:
        self.app = app
        self.jar = dict(jar or {})

    @property
    def cookies(self) -> list[tuple[str, str]]:
        """Its Cookie field."""
        field = "; ".join(f"{name}={value}" for name, value in self.jar.items())
        return [("cookie", field)] if field else []

    def take(self, reply: Reply) -> None:
        """Keep and forget what the response says."""
        for line in reply.lines("set-cookie"):
            for name, morsel in SimpleCookie(line).items():
                if morsel["max-age"] == "0":
                    self.jar.pop(name, None)
                else:
                    self.jar[name] = morsel.value

    def get(self, path: str, *headers: tuple[str, str], method: str = "GET") -> Reply:
        """GET `path`."""
        reply = self.app.request(method, path, headers=[*self.cookies, *headers])
        self.take(reply)
        return reply

    def json(self, path: str) -> Any:
        """The JSON at `path`."""
        reply = self.get(path)
        assert 200 == reply.status, reply
        return reply.json()

    def socket(self, path: str, *texts: str, denial: bool = True) -> Conversation:
        """Open a WebSocket."""
        conversation = self.app.websocket(path, *texts, headers=self.cookies, denial=denial)
        self.take(conversation)
        return conversation

    def twin(self) -> "Browser":
        """Another with the same cookies."""
        return Browser(self.app, self.jar)


def server_runtime(url: str, **settings: Any) -> Runtime:
    """A runtime with sessions on a real server."""
    options = {"store": url, "sessions": True, "secret": SECRET, "deadline": 5, **settings}
    return Runtime(Settings.load(options, environ={}))


async def nothing(request: Request) -> Response:
    return JSONResponse(None)


async def read(request: Request) -> Response:
    return JSONResponse(dict(request.session))


def read_in_a_thread(request: Request) -> Response:
    return JSONResponse(dict(request.session))


async def write(request: Request) -> Response:
    request.session.update(request.query_params)
    return JSONResponse(None)


def write_in_a_thread(request: Request) -> Response:
    request.session.update(request.query_params)
    return JSONResponse(None)


async def append(request: Request) -> Response:
    request.session.setdefault("list", [])
    request.session["list"].append(len(request.session["list"]))
    return JSONResponse(None)


async def grow(request: Request) -> Response:
    """As `append`, for a list that is there."""
    request.session["list"].append(len(request.session["list"]))
    return JSONResponse(None)


async def log_in(request: Request) -> Response:
    login(request, request.query_params["who"], methods=["pwd"])
    return JSONResponse(None)


async def log_out(request: Request) -> Response:
    logout(request)
    return JSONResponse(None)


async def rotate(request: Request) -> Response:
    request.session.rotate()  # type: ignore[attr-defined]  # Starlette calls it a dict
    return JSONResponse(None)


async def me(request: Request) -> Response:
    who = principal(request)
    return JSONResponse(None if who is None else who.subject)


def site() -> list[Route]:
    """A view for everything that can be done to a session."""
    return [
        Route("/nothing", nothing),
        Route("/read", read),
        Route("/thread/read", read_in_a_thread),
        Route("/write", write),
        Route("/thread/write", write_in_a_thread),
        Route("/append", append),
        Route("/grow", grow),
        Route("/login", log_in),
        Route("/logout", log_out),
        Route("/rotate", rotate),
        Route("/me", me),
    ]


async def call(app: _Application, path: str, jar: dict[str, str]) -> Reply:
    """One request on the running loop, which may be cancelled. The jar takes the response's cookies."""
    bare, _, query = path.partition("?")
    field = "; ".join(f"{name}={value}" for name, value in jar.items())
    scope: dict[str, Any] = {
        "type": "http",
        "asgi": {"version": "3.0", "spec_version": "2.3"},
        "http_version": "1.1",
        "method": "GET",
        "scheme": "https",
        "path": bare,
        "raw_path": bare.encode(),
        "query_string": query.encode(),
        "root_path": "",
        "headers": [(b"host", b"testserver"), *([(b"cookie", field.encode())] if field else [])],
        "client": ("203.0.113.7", 50_000),
        "server": ("testserver", 443),
        "state": {},
    }
    sent: list[MutableMapping[str, Any]] = []
    over = asyncio.Event()
    asked = False

    async def receive() -> dict[str, Any]:
        nonlocal asked
        if not asked:
            asked = True
            return {"type": "http.request", "body": b"", "more_body": False}
        await over.wait()
        return {"type": "http.disconnect"}

    async def send(message: MutableMapping[str, Any]) -> None:
        sent.append(message)

    try:
        await app(scope, receive, send)
    finally:
        over.set()
    headers = [(name.decode("latin-1"), value.decode("latin-1")) for name, value in sent[0]["headers"]]
    reply = Reply(status=sent[0]["status"], headers=headers, body=b"".join(m.get("body", b"") for m in sent[1:]))
    for line in reply.lines("set-cookie"):
        name, _, value = line.partition(";")[0].partition("=")
        jar[name] = value
    return reply
