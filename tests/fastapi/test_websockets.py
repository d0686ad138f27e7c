"""WebSockets of FastAPI: on included routers, with parameters and dependencies."""

from collections.abc import AsyncIterator
from typing import Annotated, Any

import pytest
from fastapi import APIRouter, Depends, FastAPI, Query, WebSocket, WebSocketException

from failsoft import limit
from tests.fastapi.test_routes import flights, serve

__all__ = ["serve"]  # a fixture


@pytest.mark.parametrize("included", [False, True])
def test_endpoints(serve: Any, included: bool) -> None:
    """Endpoints are limited with their parameters untouched, on the application and on included routers, in one flight each."""
    app, router = FastAPI(openapi_url=None), APIRouter(prefix="/v1")
    where: Any = router if included else app

    @where.websocket("/rooms/{room}")
    @limit("3/minute")
    @limit("4/minute", messages=True)
    async def talk(websocket: WebSocket, room: int, q: Annotated[str, Query()] = "none") -> None:
        await websocket.accept()
        async for text in websocket.iter_text():
            await websocket.send_text(f"{room} {q} {text}")

    if included:
        app.include_router(router)
    served = serve(app, limits=["9/minute"])
    prefix = "/v1" if included else ""
    one = served.websocket(f"{prefix}/rooms/7?q=x", "a", "b")
    assert (101, ("7 x a", "7 x b")) == (one.status, one.texts)
    assert 3 == len(flights(served))
    assert [101, 101, 429] == [served.websocket(f"{prefix}/rooms/{number}").status for number in range(3)]


def test_above_the_route(serve: Any) -> None:
    """A limit above the route's decorator is enforced as well."""
    app = FastAPI(openapi_url=None)

    @limit("1/minute", messages=True)
    @limit("2/minute")
    @app.websocket("/")
    async def talk(websocket: WebSocket) -> None:
        await websocket.accept()
        async for text in websocket.iter_text():
            await websocket.send_text(text)

    served = serve(app)
    assert [("a",), (), ()] == [served.websocket("/", "a", "b").texts for _ in range(3)]


@pytest.mark.parametrize("kind", ["async", "generator"])
def test_dependencies(serve: Any, kind: str) -> None:
    """A limited dependency counts openings, before the accept; its refusal is a response, and what it opened is closed."""
    log: list[str] = []

    async def plain() -> str:
        return "value"

    async def generator() -> AsyncIterator[str]:
        try:
            yield "value"
        finally:
            log.append("closed")

    dependency = limit("2/minute", shared="dependency")(plain if kind == "async" else generator)  # type: ignore[arg-type]  # either
    app = FastAPI(openapi_url=None)

    @app.websocket("/")
    async def talk(websocket: WebSocket, value: Annotated[str, Depends(dependency)]) -> None:
        await websocket.accept()
        await websocket.send_text(value)

    served = serve(app)
    seen = [served.websocket("/") for _ in range(3)]
    assert [(101, ("value",)), (101, ("value",)), (429, ())] == [(one.status, one.texts) for one in seen]
    assert (["closed"] * 2 if kind == "generator" else []) == log


def test_exceptions_of_websockets_stay(serve: Any) -> None:
    """FastAPI's own exceptions for WebSockets are what they were."""
    app = FastAPI(openapi_url=None)

    @app.websocket("/{number}")
    @limit("9/minute")
    async def talk(websocket: WebSocket, number: int) -> None:
        if number:
            raise WebSocketException(4003, "no")
        await websocket.accept()
        raise WebSocketException(4004, "not any more")

    served = serve(app)
    seen = [served.websocket(f"/{path}") for path in ("1", "0", "seven")]
    assert [(403, 4003, "no"), (101, 4004, "not any more")] == [(one.status, one.code, one.reason) for one in seen[:2]]
    assert (403, 1008) == (seen[2].status, seen[2].code)  # a parameter that is no number
