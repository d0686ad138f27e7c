"""The command line with a FastAPI application."""

import json
from collections.abc import Iterator
from typing import Annotated, Any

import pytest
import redis
from fastapi import APIRouter, Depends, FastAPI
from starlette.requests import Request

from failsoft import Settings, cli, late, limit
from failsoft.inspection import Trial, describe
from failsoft.inspection.explanation import Explained, Explanation, explain
from failsoft.inspection.limits import limits_of
from failsoft.runtime import Runtime
from failsoft.testing import AsgiApp
from failsoft_starlette import FailsoftMiddleware
from tests.servers import poll


@pytest.fixture
def runtime(redis_url: str) -> Iterator[Runtime]:
    """A runtime on an empty server."""
    with redis.Redis.from_url(redis_url) as client:
        client.flushall()
    scopes = [
        {"name": "v1", "prefix": "/v1", "limits": ["50/day"]},
        {"name": "shop", "group": "shop", "limits": ["60/day"]},
    ]
    settings = {"store": redis_url, "limits": [], "deny_cache": 0, "deadline": 2, "scopes": scopes}
    made = Runtime(Settings.load(settings, environ={}))
    yield made
    made.close()


def account(user: str = "") -> str:
    """Whom a dependency finds."""
    return user


def application(runtime: Runtime) -> FastAPI:
    """An application with an included router."""
    app = FastAPI(openapi_url=None)
    app.add_middleware(FailsoftMiddleware, runtime=runtime)
    router = APIRouter(prefix="/v1", tags=["shop"])

    @router.get("/items/{number}")
    @limit("5/minute", by=lambda request: request.query_params.get("key"), on_missing="exempt")
    @limit("6/minute", by=late(lambda number, request, user: user))
    async def item(number: int, request: Request, user: str = Depends(account)) -> str:
        return "x"

    @router.get("/plain")
    @limit("7/minute")
    def plain() -> str:
        return "x"

    app.include_router(router)
    return app


def tried(app: Any, target: str, *, late: str | None = None, **said: Any) -> Explanation:
    """What would apply to a request."""
    return explain(describe(app), Trial(method="GET", target=target, address="192.0.2.1", **said), late=late)


def applying(explanation: Explanation) -> list[Explained]:
    """The limits that apply."""
    return [one for one in explanation.limits if one.applies]


def test_explanation(runtime: Runtime) -> None:
    """Included routers, prefixes, tags, dependencies: what applies is found, and what is late is said to be."""
    app = application(runtime)
    found = tried(app, "/v1/items/4?key=k")
    assert ("FastAPI", "/v1/items/{number}", "") == (found.framework, found.route, found.note)
    assert [
        ("50 per 86400 s", "ip:192.0.2.1", False),
        ("60 per 86400 s", "ip:192.0.2.1", False),
        ("5 per 60 s", "key:k", False),
        ("6 per 60 s", None, True),
    ] == [(one.limit.quota, one.counts, one.limit.late) for one in applying(found)]
    assert "key:u" == applying(tried(app, "/v1/items/4", late="u"))[-1].counts
    without = [one for one in tried(app, "/v1/items/4").limits if one.applies is False]
    assert ["the request lacks the identity that it counts"] == [one.why for one in without]
    assert "404 Not Found" == tried(app, "/items/4").note


def test_commands(runtime: Runtime, capsys: pytest.CaptureFixture[str]) -> None:
    """The commands do for a FastAPI application what they say."""
    app = application(runtime)

    def left(name: str, *more: str) -> dict[str, int]:
        arguments = [name, "GET", "/v1/plain", "--address", "192.0.2.1", "--json", *more]
        assert 0 == cli.main(arguments, app=app)
        limits = json.loads(capsys.readouterr().out)["limits"]
        return {one["quota"]: one["left"]["remaining"] for one in limits if one["applies"]}

    app.middleware_stack = app.build_middleware_stack()
    with AsgiApp(app, runtime) as client:
        poll(lambda: client.request("GET", "/v1/plain", peer="192.0.2.1") and left("peek")["7 per 60 s"] < 7)
        before = left("explain")
        assert {quota: units + 1 for quota, units in before.items()} == left("refund")
        assert {"50 per 86400 s": 50, "60 per 86400 s": 60, "7 per 60 s": 7} == left("reset", "--yes")
    cli.main(["limits"], app=app)  # 1 where other tests of this process left declarations
    listed = capsys.readouterr().out
    assert listed.startswith("FastAPI on redis://")
    assert "7 per 60 s by ip" in listed
    assert "60 per 86400 s by ip, from scopes: shop" in listed


def test_dependencies(runtime: Runtime) -> None:
    """What a route depends on, directly or not, is listed with it as late, and is not lost; that of a WebSocket too."""

    @limit("2/minute")
    def inner() -> None: ...

    class Caller:
        @limit("3/minute")
        def __call__(self) -> None: ...

    def outer(first: Annotated[Any, Depends(inner)], second: Annotated[Any, Depends(Caller())]) -> None: ...

    app = FastAPI(openapi_url=None)
    app.add_middleware(FailsoftMiddleware, runtime=runtime)

    @app.get("/", dependencies=[Depends(outer)])
    @limit("4/minute")
    def view() -> str:
        return "x"

    @app.websocket("/socket")
    async def socket(first: Annotated[Any, Depends(inner)]) -> None: ...

    description = describe(app)
    assert [
        ("/", [("4 per 60 s", False), ("2 per 60 s", True), ("3 per 60 s", True)]),
        ("/socket", [("2 per 60 s", True)]),
    ] == [
        (route.template, [(one.quota, one.late) for one in limits_of(runtime, route)]) for route in description.routes
    ]
    mine = f"{__name__}.{test_dependencies.__name__}."
    assert [] == [
        one for one in description.unattached() if any(policy.place.startswith(mine) for policy in one.policies)
    ]
