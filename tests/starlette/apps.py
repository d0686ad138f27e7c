"""Applications of a test's own, outside of the contract."""

from collections.abc import Callable, Iterator, Sequence
from typing import Any

import pytest
from starlette.applications import Starlette
from starlette.middleware import Middleware
from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response

from failsoft import limit
from failsoft.runtime import Runtime
from failsoft.testing import AsgiApp, FaultyStore, ManualClock
from failsoft.testing.contract.base import hide
from failsoft_starlette import FailsoftMiddleware
from tests.core.requests import make_runtime

__all__ = ["Open", "hidden", "ok", "open_app"]

Open = Callable[..., AsgiApp]


def ok() -> Any:
    """A view of its own for each route: one without a limit would find those that were put on the same function elsewhere."""

    async def view(request: Request) -> Response:
        return PlainTextResponse("ok")

    return view


def hidden(*policies: Any) -> Any:
    """A view whose policies nobody can see from outside, so that they are enforced late."""

    async def view(request: Request) -> Response:
        return PlainTextResponse("ok")

    for policy in reversed(policies or (limit("1/minute"),)):
        view = policy(view)
    return hide(view)


@pytest.fixture
def open_app() -> Iterator[Open]:
    """Opens a Starlette application with the middleware outermost; all are closed when the test ends."""
    opened: list[AsgiApp] = []

    def open_one(
        routes: Sequence[Any] = (),
        *,
        inside: Sequence[Middleware] = (),
        outside: Sequence[Middleware] = (),
        make: Callable[..., Any] = Starlette,
        application: dict[str, Any] | None = None,
        renderer: Any = None,
        runtime: Runtime | None = None,
        **settings: Any,
    ) -> AsgiApp:
        clock = ManualClock()
        used = runtime or make_runtime(store=FaultyStore(clock=clock), clock=clock, **settings)
        ours = Middleware(FailsoftMiddleware, runtime=used, renderer=renderer)
        app = make(routes=list(routes), middleware=[*outside, ours, *inside], **(application or {}))
        opened.append(AsgiApp(app, used))
        return opened[-1]

    yield open_one
    for one in reversed(opened):
        one.close()
