"""FastAPI's routers, dependencies and parameters."""

import warnings
from collections.abc import AsyncIterator, Iterator, Sequence
from typing import Annotated, Any

import pytest
from fastapi import APIRouter, Depends, FastAPI, HTTPException
from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response
from starlette.routing import BaseRoute, Match, Route
from starlette.types import Receive, Scope, Send

from failsoft import ConfigurationError, late, limit
from failsoft.exchange import current
from failsoft.inspection import mistakes
from failsoft.testing import AsgiApp, FaultyStore, ManualClock
from failsoft_starlette import FailsoftMiddleware, list_routes
from tests.core.requests import make_runtime


@pytest.fixture
def serve() -> Iterator[Any]:
    """Serves a FastAPI application with the middleware; all are closed when the test ends."""
    opened: list[AsgiApp] = []

    def serve(app: FastAPI, **settings: Any) -> AsgiApp:
        clock = ManualClock()
        runtime = make_runtime(store=FaultyStore(clock=clock), clock=clock, **settings)
        app.add_middleware(FailsoftMiddleware, runtime=runtime)
        opened.append(AsgiApp(app, runtime))
        return opened[-1]

    yield serve
    for one in opened:
        one.close()


def flights(app: AsgiApp) -> Sequence[Any]:
    return app.runtime.store.flights  # type: ignore[attr-defined]  # a FaultyStore


def told() -> Any:
    """A view that tells what was known of its route."""

    async def view(request: Request) -> Response:
        exchange = current()
        return PlainTextResponse(str(None if exchange is None else exchange.facts.route))

    return view


def test_included_routers(serve: Any) -> None:
    """Views on included routers, nested and with prefixes at every level, are known early, by their whole template."""
    inner, outer = APIRouter(prefix="/inner"), APIRouter(prefix="/outer")
    inner.add_api_route("/{id}", limit("9/minute")(told()))
    outer.include_router(inner, prefix="/between")
    outer.add_api_route("/own", limit("9/minute")(told()))
    app = FastAPI(openapi_url=None)
    app.include_router(outer, prefix="/v1")
    app.include_router(outer, prefix="/v2")
    served = serve(app)
    paths = {
        "/v1/outer/between/inner/7": "/v1/outer/between/inner/{id}",
        "/v2/outer/between/inner/7": "/v2/outer/between/inner/{id}",
        "/v1/outer/own": "/v1/outer/own",
    }
    replies = {path: served.get(path) for path in paths}
    assert paths == {path: reply.body.decode() for path, reply in replies.items()}
    assert [8, 8, 8] == [reply.limits["9-per-minute"].remaining for reply in replies.values()]
    assert 3 == len(flights(served))
    assert set(paths.values()) <= {info.template for info in list_routes(app)}


def test_routes_added_to_an_included_router(serve: Any) -> None:
    """A route that is added to a router which was included before is known, as FastAPI serves it."""
    router, app = APIRouter(), FastAPI(openapi_url=None)
    router.add_api_route("/a", told())
    app.include_router(router)
    served = serve(app, route_limits=["9/minute"])
    assert b"/a" == served.get("/a").body
    router.add_api_route("/b/{id}", told())
    reply = served.get("/b/1")
    if reply.status == 404:
        pytest.skip("this FastAPI copies the routes of a router when it is included")
    assert b"/b/{id}" == reply.body


def test_a_fastapi_that_keeps_its_routes_to_itself(monkeypatch: pytest.MonkeyPatch) -> None:
    """Where nobody can know what is declared for included routes, nothing is served."""
    router, app = APIRouter(), FastAPI(openapi_url=None)
    router.add_api_route("/a", told(), tags=["search"])
    app.include_router(router)
    if not any(hasattr(route, "original_router") for route in app.routes):
        pytest.skip("this FastAPI copies the routes of a router when it is included")
    monkeypatch.delattr("fastapi.routing.iter_route_contexts")
    with pytest.raises(ConfigurationError, match="Install another version of FastAPI"):
        list_routes(app)


def test_mounted_application(serve: Any) -> None:
    """A FastAPI application that is mounted in another has its routes known."""
    inner, app = FastAPI(openapi_url=None), FastAPI(openapi_url=None)
    inner.add_api_route("/x/{id}", limit("1/minute")(told()))
    app.mount("/sub", inner)
    served = serve(app)
    assert [200, 429, 429] == [served.get(f"/sub/x/{number}").status for number in range(3)]
    assert 2 == len(flights(served))  # the second refusal is remembered


def test_root_path_of_the_application(serve: Any) -> None:
    """FastAPI's own root_path is no part of a route."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # FastAPI would rather have the server say it
        app = FastAPI(root_path="/api", openapi_url=None)
    app.add_api_route("/a", limit("1/minute")(told()))
    served = serve(app)
    first, second = served.get("/a"), served.get("/api/a")
    assert (200, b"/a", 429) == (first.status, first.body, second.status)


def test_parameters_and_models(serve: Any) -> None:
    """A limited view is given its parameters as FastAPI would give them; nobody has to declare a request."""
    app = FastAPI()

    @app.get("/items/{id}")
    @limit("9/minute")
    async def item(id: int, q: str = "none") -> dict[str, Any]:
        return {"id": id, "q": q}

    served = serve(app)
    assert {"id": 7, "q": "x"} == served.get("/items/7?q=x").json()
    assert 422 == served.get("/items/seven").status
    assert ["id", "q"] == [
        one["name"] for one in served.get("/openapi.json").json()["paths"]["/items/{id}"]["get"]["parameters"]
    ]


@pytest.mark.parametrize("kind", ["def", "async", "generator", "async generator"])
def test_limited_dependencies(serve: Any, kind: str) -> None:
    """A limit on a dependency of any shape is enforced when it is called, and its refusal is the response."""
    log: list[str] = []
    app = FastAPI(openapi_url=None)

    def plain() -> str:
        return "value"

    async def awaited() -> str:
        return "value"

    def generator() -> Iterator[str]:
        try:
            yield "value"
        except HTTPException:
            log.append("rolled back")
            raise
        finally:
            log.append("closed")

    async def async_generator() -> AsyncIterator[str]:
        try:
            yield "value"
        except HTTPException:
            log.append("rolled back")
            raise
        finally:
            log.append("closed")

    dependency = limit("2/minute")(
        {"def": plain, "async": awaited, "generator": generator, "async generator": async_generator}[kind]
    )

    @app.get("/")
    async def view(value: Annotated[str, Depends(dependency)], fail: bool = False) -> str:
        if fail:
            raise HTTPException(409)
        return value

    served = serve(app)
    assert [(200, b'"value"'), (409, b'{"detail":"Conflict"}')] == [
        (one.status, one.body) for one in (served.get("/"), served.get("/?fail=1"))
    ]
    assert 429 == served.get("/").status
    assert (["closed", "rolled back", "closed"] if "generator" in kind else []) == log


@pytest.mark.parametrize("shape", ["def", "async"])
def test_late_identity_out_of_a_dependency(serve: Any, shape: str) -> None:
    """A user that a dependency finds is counted late, by what the view is called with; a second flight at most."""

    async def current_user(name: str = "nobody") -> str:
        return name

    policy = limit("1/minute", by=late(lambda user, **others: user))
    app = FastAPI(openapi_url=None)

    @policy
    def plain(user: Annotated[str, Depends(current_user)]) -> str:
        return user

    @policy
    async def awaited(user: Annotated[str, Depends(current_user)]) -> str:
        return user

    app.add_api_route("/", plain if shape == "def" else awaited)
    served = serve(app, limits=["9/minute"])
    assert [200, 200, 429] == [served.get(f"/?name={name}").status for name in ("alice", "bob", "alice")]
    assert [("ratelimit.acquire",)] * 6 == list(flights(served))


def test_late_functions_that_do_not_fit() -> None:
    """A view of FastAPI gets its arguments by name, so a late function with other names is a mistake at start; Starlette's do not."""
    view = limit("1/minute", by=late(lambda owner: owner))(lambda item: None)
    app = FastAPI(openapi_url=None)
    app.add_api_route("/a", view)
    app.router.routes.append(Route("/b", view))
    (mistake,) = mistakes(make_runtime(), list_routes(app))
    assert "its parameters are (owner): give it those of the view" in str(mistake)
    assert str(mistake).startswith("/a: late(")


def test_response_model_and_status(serve: Any) -> None:
    """The response that FastAPI makes is the one that goes out, with the fields."""
    app = FastAPI(openapi_url=None)

    @app.post("/", status_code=201)
    @limit("9/minute")
    def make() -> list[int]:
        return [1, 2]

    reply = serve(app).request("POST", "/")
    assert (201, [1, 2], 1) == (reply.status, reply.json(), len(reply.lines("RateLimit")))


def test_routes_of_an_unknown_class(serve: Any) -> None:
    """A route of somebody's own class among FastAPI's is asked itself."""

    class Odd(BaseRoute):
        def matches(self, scope: Scope) -> tuple[Match, Scope]:
            return (Match.FULL, {"endpoint": view}) if scope["path"] == "/odd" else (Match.NONE, {})

        async def handle(self, scope: Scope, receive: Receive, send: Send) -> None:
            await (await view(Request(scope)))(scope, receive, send)

    view = limit("1/minute")(told())
    app = FastAPI(openapi_url=None)
    app.router.routes.append(Odd())
    app.add_api_route("/plain", told())
    served = serve(app)
    assert [200, 429, 200] == [served.get(path).status for path in ("/odd", "/odd", "/plain")]
    assert 2 == len(flights(served))
