"""An application for a real server. Its settings are in FLASK_FAILSOFT__* variables."""

import os
from collections.abc import Callable, Iterator
from typing import Any

from flask import Flask, Response

from failsoft import limit
from failsoft_flask import Failsoft

app = Flask(__name__, static_folder=None)
app.config.from_prefixed_env()
Failsoft(app)


@app.after_request
def tell_worker(response: Response) -> Response:
    response.headers["X-Worker"] = str(os.getpid())
    return response


@app.get("/counted")
@limit("25/hour", on_outage="closed")
@limit("1000/day", on_outage="closed")
def counted() -> str:
    return "ok"


@app.get("/awaited")
@limit("25/hour", on_outage="closed")
async def awaited() -> str:
    return "ok"


@app.get("/closed")
@limit("25/hour", on_outage="closed")
def closed() -> str:
    return "ok"


@app.get("/open")
@limit("1000000/hour", on_outage="open")
def always() -> str:
    return "ok"


def hidden(view: Callable[..., Any]) -> Callable[..., Any]:
    return lambda **params: view(**params)


@limit("1000/hour", on_outage="closed")
def piece() -> bytes:
    return b"piece"


@app.get("/streamed", endpoint="streamed")
@hidden
@limit("25/hour", on_outage="closed")
def streamed() -> Response:
    def pieces() -> Iterator[bytes]:
        for _ in range(3):
            yield piece()

    return Response(pieces())
