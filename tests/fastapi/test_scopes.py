"""What is a part of a FastAPI application: tags, and routers by their prefix or by a dependency."""

from enum import Enum
from typing import Any

import pytest
from fastapi import APIRouter, Depends, FastAPI, WebSocket

from failsoft import limit
from tests.fastapi.test_routes import flights, serve, told

__all__ = ["serve"]  # a fixture


class Tag(Enum):
    shop = "shop"


@pytest.mark.parametrize("tag", ["shop", Tag.shop])
@pytest.mark.parametrize("where", ["route", "router", "include", "outer"])
def test_tags(serve: Any, tag: Any, where: str) -> None:
    """A tag is a group, wherever it was given: on a route, a router, where that is included, or on the router that includes it."""
    outer = APIRouter(tags=[tag] if where == "outer" else None)
    inner = APIRouter(tags=[tag] if where == "router" else None)
    for path in ("/a", "/b/{id}"):
        inner.add_api_route(path, told(), tags=[tag] if where == "route" else None)
    outer.include_router(inner, prefix="/shop", tags=[tag] if where == "include" else None)
    app = FastAPI(openapi_url=None)
    app.include_router(outer)
    app.add_api_route("/blog", told(), tags=["blog"])
    served = serve(app, scopes=[{"name": "part", "limits": ["2/minute"], "group": "shop"}])
    paths = ("/shop/a", "/shop/b/1", "/shop/b/2", "/blog")
    assert [200, 200, 429, 200] == [served.get(path).status for path in paths]


def test_router_by_prefix(serve: Any) -> None:
    """All that is below a router's prefix is a scope: its routes, its WebSockets, and what is not there."""
    router = APIRouter(prefix="/v1")
    router.add_api_route("/a", told())

    @router.websocket("/live")
    async def live(websocket: WebSocket) -> None:
        await websocket.accept()

    app = FastAPI(openapi_url=None)
    app.include_router(router)
    app.add_api_route("/v10", told())
    served = serve(app, scopes=[{"name": "v1", "limits": ["3/minute"], "prefix": "/v1"}])
    replies = [
        served.get("/v1/a"),
        served.websocket("/v1/live"),
        served.get("/v1/none"),
        served.get("/v1/a"),
        served.get("/v10"),
    ]
    assert [200, 101, 404, 429, 200] == [reply.status for reply in replies]


def test_router_by_dependency(serve: Any) -> None:
    """A limited dependency of a router counts all its routes together; it is decided just before the view, in a flight of its own."""

    @limit("2/minute", shared="v1")
    async def limited() -> None: ...

    router = APIRouter(prefix="/v1", dependencies=[Depends(limited)])
    router.add_api_route("/a", told())
    router.add_api_route("/b", told())
    app = FastAPI(openapi_url=None)
    app.include_router(router)
    app.add_api_route("/", told())
    served = serve(app)
    assert [200, 200, 429, 200] == [served.get(path).status for path in ("/v1/a", "/v1/b", "/v1/a", "/")]
    assert 3 == len(flights(served))
