"""A client in miniature: one GET after another, given straight to the application.

The cookies that it sends are always the same, as if what the browser is given never arrived.
"""

import asyncio
import io
import sys
from collections.abc import Awaitable, Callable
from typing import Any

__all__ = ["Response", "asgi", "cookies", "read", "wsgi"]

Response = tuple[int, dict[str, str], bytes]
"""Status, header fields by lower-case name, body."""

_ENVIRON = {
    "REQUEST_METHOD": "GET",
    "SCRIPT_NAME": "",
    "QUERY_STRING": "",
    "SERVER_NAME": "127.0.0.1",
    "SERVER_PORT": "8000",
    "SERVER_PROTOCOL": "HTTP/1.1",
    "REMOTE_ADDR": "127.0.0.1",
    "REMOTE_PORT": "50000",
    "HTTP_HOST": "127.0.0.1:8000",
    "HTTP_USER_AGENT": "benchmarks/1",
    "HTTP_ACCEPT": "*/*",
    "wsgi.version": (1, 0),
    "wsgi.url_scheme": "http",
    "wsgi.errors": sys.stderr,
    "wsgi.multithread": True,
    "wsgi.multiprocess": True,
    "wsgi.run_once": False,
}

_HEADERS = [(b"host", b"127.0.0.1:8000"), (b"user-agent", b"benchmarks/1"), (b"accept", b"*/*")]

_SCOPE = {
    "type": "http",
    "asgi": {"version": "3.0", "spec_version": "2.3"},
    "http_version": "1.1",
    "method": "GET",
    "scheme": "http",
    "query_string": b"",
    "root_path": "",
    "client": ("127.0.0.1", 50_000),
    "server": ("127.0.0.1", 8000),
}


def wsgi(application: Any, path: str = "/", cookie: str = "") -> Callable[[], tuple[str, list[tuple[str, str]], bytes]]:
    """A function that makes one request of a WSGI application."""
    fixed = {**_ENVIRON, "PATH_INFO": path, **({"HTTP_COOKIE": cookie} if cookie else {})}

    def request() -> tuple[str, list[tuple[str, str]], bytes]:
        environ: dict[str, Any] = {**fixed, "wsgi.input": io.BytesIO()}
        started: list[Any] = []

        def start_response(status: str, headers: list[tuple[str, str]], error: Any = None) -> None:
            started[:] = status, headers

        result = application(environ, start_response)
        body = b"".join(result)
        close = getattr(result, "close", None)
        if close is not None:
            close()
        return started[0], started[1], body

    return request


def asgi(application: Any, path: str = "/", cookie: str = "") -> Callable[[], Awaitable[list[dict[str, Any]]]]:
    """The same for an ASGI application, as a coroutine function. The client stays on the line until it is answered."""
    sent_headers = [*_HEADERS, *([(b"cookie", cookie.encode())] if cookie else [])]
    fixed = {**_SCOPE, "path": path, "raw_path": path.encode(), "headers": sent_headers}

    async def request() -> list[dict[str, Any]]:
        sent: list[dict[str, Any]] = []
        asked = False

        async def receive() -> dict[str, Any]:
            nonlocal asked
            if not asked:
                asked = True
                return {"type": "http.request", "body": b"", "more_body": False}
            await asyncio.get_running_loop().create_future()
            raise AssertionError("nobody sets this future")

        async def send(message: dict[str, Any]) -> None:
            sent.append(message)

        await application({**fixed, "state": {}}, receive, send)
        return sent

    return request


def read(answer: Any) -> Response:
    """What either of these returned, in one form."""
    if isinstance(answer, tuple):
        status, headers, body = answer
        return int(status[:3]), {name.lower(): value for name, value in headers}, body
    start, *rest = answer
    fields = {name.decode().lower(): value.decode() for name, value in start["headers"]}
    return start["status"], fields, b"".join(message.get("body", b"") for message in rest)


def cookies(answer: Any) -> str:
    """The Cookie field that a browser sends after this answer."""
    if isinstance(answer, tuple):
        values = [value for name, value in answer[1] if name.lower() == "set-cookie"]
    else:
        values = [value.decode() for name, value in answer[0]["headers"] if name.lower() == b"set-cookie"]
    return "; ".join(value.partition(";")[0] for value in values)
