"""What other limiters get wrong under FastAPI, and we do not: each test says what we do."""

from typing import Any

import pytest
from fastapi import APIRouter, Depends, FastAPI

from failsoft import limit
from tests.fastapi.test_routes import flights, serve, told

__all__ = ["serve"]  # a fixture


def included(path: str, view: Any) -> FastAPI:
    """An application whose only view is on an included router."""
    router, app = APIRouter(prefix="/v1"), FastAPI(openapi_url=None)
    router.add_api_route(path, view)
    app.include_router(router)
    return app


@pytest.mark.parametrize("setting", ["limits", "route_limits"])
def test_included_routers_are_limited(serve: Any, setting: str) -> None:
    """A view on an included router is not exempt: default limits hold for it as for any other."""
    app = serve(included("/items/{id}", told()), **{setting: ["2/minute"]})
    assert [200, 200, 429] == [app.get(f"/v1/items/{number}").status for number in range(3)]


def test_limits_of_included_views_are_enforced_early(serve: Any) -> None:
    """A limit on a view of an included router is decided with all others, in one flight, by its template."""
    app = serve(included("/items/{id}", limit("2/minute")(told())), limits=["9/minute"])
    assert [200, 200, 429] == [app.get(f"/v1/items/{number}").status for number in range(3)]
    assert [("ratelimit.acquire",)] * 3 == list(flights(app))


def test_plain_views_are_limited(serve: Any) -> None:
    """Plain functions are limited like async ones; no request parameter is needed in either."""
    app = FastAPI(openapi_url=None)

    @app.get("/plain")
    @limit("1/minute")
    def plain() -> str:
        return "ok"

    @app.get("/async")
    @limit("1/minute")
    async def awaited() -> str:
        return "ok"

    served = serve(app)
    for path in ("/plain", "/async"):
        assert [200, 429] == served.statuses(2, path)


@pytest.mark.parametrize("above", [False, True])
def test_order_of_the_decorators(serve: Any, above: bool) -> None:
    """A limit is enforced above the route's decorator as well as below it."""
    app = FastAPI(openapi_url=None)

    def view() -> str:
        return "ok"

    if above:
        limit("1/minute")(app.get("/")(view))
    else:
        app.get("/")(limit("1/minute")(view))
    assert [200, 429] == serve(app).statuses(2, "/")


def test_dependencies_count_each_client(serve: Any) -> None:
    """A limit on a dependency counts each client by itself, not all of them in one bucket."""

    @limit("2/minute", shared="dependency")
    async def limited() -> None: ...

    app = FastAPI(openapi_url=None)
    app.add_api_route("/", told(), dependencies=[Depends(limited)])
    served = serve(app)
    assert [200] * 8 == [served.get("/", peer=f"192.0.2.{n}").status for n in (1, 2, 3, 4) * 2]
    assert 429 == served.get("/", peer="192.0.2.1").status


def test_refusals_have_fields(serve: Any) -> None:
    """A refusal says the limits and when to return, whether the limit is on the view or on a dependency."""

    @limit("1/minute", shared="dependency")
    async def limited() -> None: ...

    app = FastAPI(openapi_url=None)
    app.add_api_route("/dependency", told(), dependencies=[Depends(limited)])
    app.add_api_route("/view", limit("1/minute")(told()))
    served = serve(app)
    for path in ("/dependency", "/view"):
        served.get(path)
        reply = served.get(path)
        assert (429, 60, 1, 1) == (
            reply.status,
            reply.retry_after,
            len(reply.lines("RateLimit")),
            len(reply.lines("RateLimit-Policy")),
        )


def test_a_dead_store_is_no_500(serve: Any) -> None:
    """With the store away a limited view answers by the process's share."""
    app = FastAPI(openapi_url=None)
    app.add_api_route("/", limit("1/minute")(told()))
    served = serve(app)
    with served.runtime.store.away():
        assert [200, 429] == served.statuses(2, "/")
