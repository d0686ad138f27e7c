"""How FastAPI is made to do what the contract describes: views on an included router, parameters declared."""

from collections.abc import Mapping, Sequence
from inspect import isawaitable
from typing import Any, ClassVar

from fastapi import APIRouter, FastAPI
from starlette.requests import Request
from starlette.responses import Response

from failsoft.testing.harness import App, Concurrency, Harness
from failsoft.testing.servers import AsgiApp
from failsoft.testing.site import Shape, Site, View
from tests.starlette.harness import UNSUPPORTED, call_of, echo_of, response_of, stack


def endpoint_of(view: View) -> Any:
    """The view's function, decorated. FastAPI reads its signature."""
    if view.shape == "def":

        def plain(request: Request) -> Response:
            return response_of(view.handle(call_of(request)))  # type: ignore[arg-type]  # only "async" views await

        return view.decorated(plain)

    async def served(request: Request) -> Response:
        answer = view.handle(call_of(request))
        return response_of(await answer if isawaitable(answer) else answer)

    return view.decorated(served)


def with_head(methods: Sequence[str]) -> list[str]:
    """FastAPI serves HEAD only where it is told to."""
    return [*methods, "HEAD"] if "GET" in methods else list(methods)


class FastAPIHarness(Harness):
    """FastAPI, in process. Its views are functions; classes are Starlette's."""

    name: ClassVar[str] = "fastapi"
    concurrency: ClassVar[Concurrency] = "tasks"
    shapes: ClassVar[frozenset[Shape]] = frozenset({"def", "async"})
    websockets: ClassVar[bool] = True

    unsupported: ClassVar[Mapping[str, str]] = UNSUPPORTED

    def build(self, site: Site) -> App:
        middleware, runtime = stack(site)
        routers: dict[str | None, APIRouter] = {}
        for view in site.views:
            tags: list[Any] = [] if view.group is None else [view.group]
            router = routers.setdefault(view.group, APIRouter(tags=tags))
            if view.websocket:
                router.add_api_websocket_route(view.path, echo_of(view))
                continue
            endpoint = endpoint_of(view)
            router.add_api_route(view.path, endpoint, methods=with_head(view.methods), response_model=None)
            view.decorate_above_route(endpoint)
        app = FastAPI(middleware=middleware, openapi_url=None)
        for router in routers.values():
            app.include_router(router)
        return AsgiApp(app, runtime)

    def header(self, request: Any, name: str) -> str | None:
        return request.headers.get(name)  # type: ignore[no-any-return]  # a Starlette request, which the contract knows as Any

    def json(self, request: Any) -> Any:
        return request.json()

    def params(self, args: Sequence[Any], kwargs: Mapping[str, Any]) -> Mapping[str, str]:
        request: Request = kwargs["request"]
        return {key: str(value) for key, value in request.path_params.items()}

    def user_headers(self, user: str) -> Sequence[tuple[str, str]]:
        return [("x-user", user)]
