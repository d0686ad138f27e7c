"""One case's application for real servers: ``gunicorn benchmarks.serve:app``, with the order in the environment."""

import asyncio
import inspect
import json
import logging
import os
from typing import Any

from benchmarks.applications import application
from benchmarks.cases import Case, Place
from benchmarks.workers import ORDER

__all__ = ["app"]


class _Later:
    """An ASGI application that is made on the event loop that serves it."""

    def __init__(self, coming: Any) -> None:
        self._coming = coming
        self._made: asyncio.Future[Any] | None = None

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        if self._made is None:
            self._made = asyncio.ensure_future(self._coming)
        await (await self._made)(scope, receive, send)


def _app() -> Any:
    logging.disable(logging.CRITICAL)
    order = json.loads(os.environ[ORDER])
    made = application(Case(**order["case"]), Place(**order["place"]))
    return _Later(made) if inspect.isawaitable(made) else made


app = _app()
