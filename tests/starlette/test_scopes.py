"""What is a part of a Starlette application: mounts and hosts by their names, and paths within the application."""

from typing import Any

import pytest
from starlette.applications import Starlette
from starlette.middleware import Middleware
from starlette.responses import PlainTextResponse
from starlette.routing import Host, Mount, Route, Router, WebSocketRoute
from starlette.websockets import WebSocket

from failsoft import ConfigurationError, limit
from failsoft.testing import AsgiApp
from failsoft_starlette import FailsoftMiddleware
from tests.core.requests import make_runtime
from tests.starlette.apps import Open, ok
from tests.starlette.test_middleware import raw

PART = {"name": "part", "limits": ["2/minute"]}


async def opened(websocket: WebSocket) -> None:
    await websocket.accept()


def routes() -> list[Any]:
    """A shop with a cart in it, a host, and pages of no part."""
    cart = Mount("/cart", routes=[Route("/{item}", ok())], name="cart")
    return [
        Mount("/shop", routes=[Route("/", ok()), WebSocketRoute("/live", opened), cart], name="shop"),
        Mount("/unnamed", routes=[Route("/x", ok())]),
        Host("api.example.org", app=Router([Route("/x", ok())]), name="api"),
        Route("/x", ok()),
    ]


@pytest.mark.parametrize(
    ("group", "inside", "outside"),
    [
        ("shop", ["/shop/", "/shop/cart/1", "/shop/cart/2"], ["/x", "/unnamed/x"]),
        ("cart", ["/shop/cart/1", "/shop/cart/2", "/shop/cart/3"], ["/shop/", "/x"]),
        ("unnamed", [], ["/unnamed/x", "/unnamed/x", "/unnamed/x"]),
    ],
)
def test_mounts(open_app: Open, group: str, inside: list[str], outside: list[str]) -> None:
    """A mount's name is a group, with the mounts in it; a mount without a name is none."""
    app = open_app(routes(), scopes=[{**PART, "group": group}])
    assert [200, 200, 429][: len(inside)] == [app.get(path).status for path in inside]
    assert [200] * len(outside) == [app.get(path).status for path in outside]


def test_whatever_is_below_a_mount(open_app: Open) -> None:
    """What a mount answers by itself is part of it: unknown paths, other methods, and WebSockets."""
    app = open_app(routes(), scopes=[{**PART, "limits": ["3/minute"], "group": "shop"}])
    replies = [
        app.get("/shop/none"),
        app.request("PUT", "/shop/cart/1"),
        app.websocket("/shop/live"),
        app.get("/shop/"),
    ]
    assert [404, 405, 101, 429] == [reply.status for reply in replies]


def test_opaque_mounts(open_app: Open) -> None:
    """A mounted application that shows no routes is a group by its mount's name."""

    async def foreign(scope: Any, receive: Any, send: Any) -> None:
        await PlainTextResponse("file")(scope, receive, send)

    app = open_app([Mount("/static", app=foreign, name="static")], scopes=[{**PART, "group": "static"}])
    assert [200, 200, 429] == [app.get(f"/static/{name}").status for name in "abc"]


def test_hosts(open_app: Open) -> None:
    """A host route's name is a group; scopes by host need no route for it."""
    scopes = [{**PART, "group": "api"}, {"name": "www", "limits": ["1/minute"], "host": "www.example.org"}]
    app = open_app(routes(), scopes=scopes)
    api, www = ("Host", "api.example.org"), ("Host", "www.example.org")
    assert [200, 200, 429, 200, 429, 200] == [app.get("/x", *who).status for who in ([api],) * 3 + ([www],) * 2 + ([],)]


@pytest.mark.parametrize("with_root", [True, False])
def test_root_path(open_app: Open, with_root: bool) -> None:
    """A prefix is of the path within the application, whether or not the server leaves the proxy's own prefix on the path."""
    app = open_app([Route("/a/x", ok()), Route("/b", ok())], scopes=[{**PART, "prefix": "/a"}])
    before = "/site" if with_root else ""
    paths = ("/a/x", "/a/none", "/a/x", "/b")
    assert [200, 404, 429, 200] == [raw(app, "GET", before + path, root_path="/site")[0]["status"] for path in paths]


@pytest.mark.parametrize("around", ["mount", "application"])
def test_inside_a_mount(around: str) -> None:
    """Around a mount's routes, paths are those of the application; around a mounted application, they are its own."""
    runtime = make_runtime(scopes=[{**PART, "prefix": "/m/x" if around == "mount" else "/x"}])
    ours = [Middleware(FailsoftMiddleware, runtime=runtime)]
    inner: Any = {"routes": [Route("/x", ok()), Route("/y", ok())], "middleware": ours}
    mount = Mount("/m", **inner) if around == "mount" else Mount("/m", app=Starlette(**inner))
    with AsgiApp(Starlette(routes=[mount]), runtime) as app:
        assert [200, 200, 429, 200] == [app.get(path).status for path in ("/m/x", "/m/x", "/m/x", "/m/y")]


def test_a_group_without_routes(open_app: Open, caplog: pytest.LogCaptureFixture) -> None:
    """A scope for a mount that is not there limits nothing, and the log says so; a mount is there that shows no routes."""
    scopes = [{**PART, "name": name, "group": name} for name in ("cart", "card", "files")]
    served = [*routes(), Mount("/files", PlainTextResponse("file"), name="files")]
    open_app(served, scopes=scopes).get("/x")
    assert [
        "scopes: card limits nothing here, since no route is in the group 'card': did you mean 'cart'?",
    ] == [record.getMessage() for record in caplog.records if "limits nothing" in record.getMessage()]


def test_routers_are_no_views() -> None:
    """What would be made of a router nobody calls, so a limit on one is an error that says what to do."""
    for several in (Router(), Starlette(), Mount("/shop", routes=[])):
        with pytest.raises(ConfigurationError, match="put it on the views, or say it of a part of the application"):
            limit("9/minute")(several)
