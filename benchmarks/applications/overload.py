"""Applications of which more is asked than they can do. What they are is in the environment, as JSON.

Each serves about 100 requests a second, limited by what real ones are limited by:

- ``threads``: Flask under gunicorn with eight threads; a request holds one for 80 ms.
- ``pool``: Starlette under uvicorn; a request waits for one of ten connections to something, and then 100 ms for its answer.
- ``cpu``: Starlette under uvicorn; a request computes for 9 ms and waits for nothing.

Whatever is asked, and whoever answers, the response repeats ``X-Sent`` and ``X-Class``, so that the client knows what it is the answer to.
"""

import asyncio
import json
import logging
import os
import time
from typing import Any

from benchmarks.workers import ORDER

__all__ = ["app"]

_THREAD = 0.08
_CONNECTIONS = 10
_ANSWER = 0.1
_COMPUTING = 0.009


def _compute() -> None:
    end = time.thread_time() + _COMPUTING
    while time.thread_time() < end:
        pass


def _flask(shed: bool) -> Any:
    from flask import Flask

    from failsoft import criticality
    from failsoft_flask import Failsoft

    flask = Flask(__name__, static_folder=None)
    Failsoft(flask, shed=shed)

    def view() -> str:
        time.sleep(_THREAD)
        return "done"

    flask.add_url_rule("/critical", "critical", view)
    flask.add_url_rule("/sheddable", "sheddable", criticality("sheddable")(lambda: view()))
    flask.add_url_rule("/healthz", "health", lambda: "well")

    def repeating(environ: dict[str, Any], start_response: Any) -> Any:
        def start(status: str, headers: list[tuple[str, str]], error: Any = None) -> Any:
            own = [("X-Sent", environ.get("HTTP_X_SENT", "")), ("X-Class", environ.get("HTTP_X_CLASS", ""))]
            return start_response(status, headers + own, error)

        return flask.wsgi_app(environ, start)

    return repeating


def _starlette(shed: bool, *, cpu: bool) -> Any:
    from starlette.applications import Starlette
    from starlette.middleware import Middleware
    from starlette.requests import Request
    from starlette.responses import PlainTextResponse
    from starlette.routing import Route

    from failsoft import criticality
    from failsoft_starlette import FailsoftMiddleware

    connections = asyncio.Semaphore(_CONNECTIONS)

    async def view(request: Request) -> PlainTextResponse:
        if cpu:
            _compute()
        else:
            async with connections:
                await asyncio.sleep(_ANSWER)
        return PlainTextResponse("done")

    async def sheddable(request: Request) -> PlainTextResponse:
        return await view(request)

    async def health(request: Request) -> PlainTextResponse:
        return PlainTextResponse("well")

    starlette = Starlette(
        routes=[
            Route("/critical", view),
            Route("/sheddable", criticality("sheddable")(sheddable)),
            Route("/healthz", health),
        ],
        middleware=[Middleware(FailsoftMiddleware, shed=shed)],
    )

    async def repeating(scope: Any, receive: Any, send: Any) -> None:
        own = [line for line in scope.get("headers", ()) if line[0] in (b"x-sent", b"x-class")]

        async def answer(message: Any) -> None:
            if message["type"] == "http.response.start":
                message["headers"] = [*message["headers"], *own]
            await send(message)

        await starlette(scope, receive, answer)

    return repeating


def _app() -> Any:
    logging.disable(logging.CRITICAL)
    order = json.loads(os.environ[ORDER])
    if order["kind"] == "threads":
        return _flask(order["shed"])
    return _starlette(order["shed"], cpu=order["kind"] == "cpu")


app = _app()
