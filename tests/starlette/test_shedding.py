"""Load shedding in Starlette: what other middleware makes of responses does not keep anything from being learned."""

from typing import Any

from starlette.applications import Starlette
from starlette.background import BackgroundTask
from starlette.middleware import Middleware
from starlette.middleware.base import BaseHTTPMiddleware
from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response
from starlette.routing import Route

from failsoft import Settings
from failsoft.ratelimit.shedding import Capacity
from failsoft.runtime import Runtime
from failsoft.testing import AsgiApp, ManualClock
from failsoft_starlette import FailsoftMiddleware


async def passing(request: Request, call_next: Any) -> Response:
    """Middleware as many write it: it makes a stream of every response."""
    response: Response = await call_next(request)
    return response


def serving(endpoint: Any, clock: ManualClock) -> tuple[AsgiApp, Capacity]:
    """An application with such middleware inside of ours, and its capacity."""
    runtime = Runtime(Settings(shed=True), clock=clock)
    ours = Middleware(FailsoftMiddleware, runtime=runtime)
    app = Starlette(routes=[Route("/", endpoint)], middleware=[ours, Middleware(BaseHTTPMiddleware, dispatch=passing)])
    assert runtime.shedder is not None
    return AsgiApp(app, runtime), runtime.shedder.capacity


def test_other_middleware_hides_nothing() -> None:
    """How long requests take is learned although everything looks streamed."""
    clock = ManualClock()

    async def endpoint(request: Request) -> Response:
        clock.advance(0.25)
        return PlainTextResponse("ok")

    app, capacity = serving(endpoint, clock)
    with app:
        assert [200] * 10 == app.statuses(10, "/")
    assert 0.25 == capacity.mean


def test_background_tasks_hold_their_place() -> None:
    """A background task holds its request's place, but is no part of how long the request took."""
    clock = ManualClock()
    seen: list[int] = []

    def task() -> None:
        seen.append(capacity.in_flight)
        clock.advance(60)

    async def endpoint(request: Request) -> Response:
        clock.advance(0.25)
        return PlainTextResponse("ok", background=BackgroundTask(task))

    app, capacity = serving(endpoint, clock)
    with app:
        assert [200] * 10 == app.statuses(10, "/")
    assert ([1] * 10, 0, 0.25) == (seen, capacity.in_flight, capacity.mean)
