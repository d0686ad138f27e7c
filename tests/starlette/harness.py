"""How Starlette is made to do what the contract describes."""

from collections.abc import AsyncIterator, Callable, Iterable, Mapping, Sequence
from inspect import isawaitable
from typing import Any, ClassVar

from starlette.applications import Starlette
from starlette.authentication import AuthCredentials, AuthenticationBackend, BaseUser, SimpleUser
from starlette.endpoints import HTTPEndpoint
from starlette.exceptions import HTTPException
from starlette.middleware import Middleware
from starlette.middleware.authentication import AuthenticationMiddleware
from starlette.requests import HTTPConnection, Request
from starlette.responses import Response, StreamingResponse
from starlette.routing import Mount, Route, WebSocketRoute
from starlette.types import ASGIApp, Receive, Scope, Send
from starlette.websockets import WebSocket

from failsoft import Rejected
from failsoft.testing.harness import App, Concurrency, Harness
from failsoft.testing.servers import AsgiApp
from failsoft.testing.site import Answer, Call, Site, View
from failsoft_starlette import FailsoftMiddleware

UNSUPPORTED = {
    "test_cost_of_a_body[sync]": "a body has to be awaited",
    "test_error_of_a_view_says_the_limits": "Starlette makes the answer to an unhandled error outside of all middleware",
}


class Bystander:
    """Middleware that does nothing."""

    def __init__(self, app: ASGIApp) -> None:
        self.app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        await self.app(scope, receive, send)


class ByHeader(AuthenticationBackend):
    """Whoever says who he is, is."""

    async def authenticate(self, conn: HTTPConnection) -> tuple[AuthCredentials, BaseUser] | None:
        name = conn.headers.get("x-user")
        return None if name is None else (AuthCredentials(), SimpleUser(name))


def call_of(request: Request) -> Call:
    return Call(
        method=request.method,
        path=request.url.path,
        params={key: str(value) for key, value in request.path_params.items()},
        header=request.headers.get,
        body=request.body,
        session=lambda: request.session,
    )


def response_of(answer: Answer | None) -> Response:
    answer = answer or Answer()
    if answer.abort is not None:
        raise HTTPException(answer.abort)
    response: Response
    if answer.stream is not None:
        response = StreamingResponse(each(answer.stream), answer.status, media_type=answer.content_type)
    else:
        response = Response(answer.body, answer.status, media_type=answer.content_type)
    for name, value in answer.headers:
        response.headers.append(name, value)
    for name, value in answer.cookies:
        response.set_cookie(name, value)
    return response


async def each(chunks: Iterable[bytes]) -> AsyncIterator[bytes]:
    for chunk in chunks:
        yield chunk


def endpoint_of(view: View) -> Any:
    """The view's function or class, decorated."""
    if view.shape == "def":

        def plain(request: Request) -> Response:
            return response_of(view.handle(call_of(request)))  # type: ignore[arg-type]  # only "async" views await

        return view.decorated(plain)

    async def served(request: Request) -> Response:
        answer = view.handle(call_of(request))
        return response_of(await answer if isawaitable(answer) else answer)

    if view.shape == "async":
        return view.decorated(served)

    def handler(self: HTTPEndpoint, request: Request) -> Response:
        return response_of(view.handle(call_of(request)))  # type: ignore[arg-type]  # only "async" views await

    decorate = view.decorated if view.shape == "method" else (lambda target: target)
    members = {method.lower(): decorate(handler) for method in view.methods}
    endpoint = type("Endpoint", (HTTPEndpoint,), members)
    return view.decorated(endpoint) if view.shape == "class" else endpoint


def echo_of(view: View) -> Any:
    async def echo(websocket: WebSocket) -> None:
        await websocket.accept()
        async for text in websocket.iter_text():
            await websocket.send_text(text)

    return view.decorated(echo)


def failsoft(site: Site) -> tuple[Middleware, Any]:
    """The middleware that the site asks for, and its runtime."""
    runtime = site.runtime()
    renderer: Callable[[Request, Rejected], Response] | None = None
    if (make := site.renderer) is not None:

        def renderer(request: Request, rejected: Rejected) -> Response:
            return response_of(make(rejected))

    return Middleware(FailsoftMiddleware, runtime=runtime, renderer=renderer), runtime


def stack(site: Site) -> tuple[list[Middleware], Any]:
    """All middleware, outermost first, and the runtime."""
    ours, runtime = failsoft(site)
    others = [Middleware(Bystander), Middleware(AuthenticationMiddleware, backend=ByHeader())]
    others.insert({"outermost": 0, "between": 1, "innermost": 2}[site.position], ours)
    return others, runtime


class StarletteHarness(Harness):
    """Starlette, in process."""

    name: ClassVar[str] = "starlette"
    concurrency: ClassVar[Concurrency] = "tasks"
    websockets: ClassVar[bool] = True

    unsupported: ClassVar[Mapping[str, str]] = UNSUPPORTED

    def build(self, site: Site) -> App:
        middleware, runtime = stack(site)
        routes: list[Any] = []
        groups: dict[tuple[str, str], list[Any]] = {}
        for view in site.views:
            where, path = routes, view.path
            if view.group is not None:  # a mount, named so
                first, _, rest = path[1:].partition("/")
                where, path = groups.setdefault((f"/{first}", view.group), []), f"/{rest}"
            if view.websocket:
                where.append(WebSocketRoute(path, echo_of(view)))
                continue
            endpoint = endpoint_of(view)
            methods = None if isinstance(endpoint, type) else list(view.methods)
            where.append(Route(path, endpoint, methods=methods))
            view.decorate_above_route(endpoint)
        routes += [Mount(prefix, routes=inside, name=name) for (prefix, name), inside in groups.items()]
        return AsgiApp(Starlette(routes=routes, middleware=middleware), runtime)

    def header(self, request: Any, name: str) -> str | None:
        return request.headers.get(name)  # type: ignore[no-any-return]  # a Starlette request, which the contract knows as Any

    def json(self, request: Any) -> Any:
        return request.json()

    def params(self, args: Sequence[Any], kwargs: Mapping[str, Any]) -> Mapping[str, str]:
        request = next(one for one in args if isinstance(one, Request))
        return {key: str(value) for key, value in request.path_params.items()}

    def user_headers(self, user: str) -> Sequence[tuple[str, str]]:
        return [("x-user", user)]
