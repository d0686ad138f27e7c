"""The flat route table finds the view that the router will choose, before the router runs."""

import asyncio
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from starlette.applications import Starlette
from starlette.endpoints import HTTPEndpoint
from starlette.middleware.cors import CORSMiddleware
from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response
from starlette.routing import BaseRoute, Host, Match, Mount, Route, Router, WebSocketRoute
from starlette.types import Receive, Scope, Send

from failsoft import limit
from failsoft_starlette import audit, list_routes
from failsoft_starlette.routes import RouteTable, routes_of


def view(name: str) -> Any:
    """A view that says which it is."""

    async def endpoint(request: Request) -> Response:
        return PlainTextResponse(name)

    endpoint.__name__ = endpoint.__qualname__ = name
    return endpoint


def scope_of(path: str, *, method: str = "GET", host: str = "example.org", root_path: str = "") -> dict[str, Any]:
    return {
        "type": "http",
        "method": method,
        "path": path,
        "raw_path": path.encode(),
        "root_path": root_path,
        "headers": [(b"host", host.encode())],
        "query_string": b"",
        "client": ("192.0.2.1", 1),
        "server": ("example.org", 80),
        "scheme": "http",
    }


def found(routes: list[BaseRoute], path: str, **options: Any) -> tuple[str | None, str | None, bool]:
    """The template, the view's name, and whether it serves the method."""
    entry, serves = RouteTable(routes).find(scope_of(path, **options))
    endpoint = None if entry is None or not serves else entry.endpoint
    return (None if entry is None else entry.template, getattr(endpoint, "__name__", None), serves)


def served(app: Any, scope: dict[str, Any]) -> tuple[int, str]:
    """The status and the body that the application itself answers with."""
    sent: list[Any] = []

    async def receive() -> Any:
        return {"type": "http.request", "body": b"", "more_body": False}

    async def send(message: Any) -> None:
        sent.append(message)

    asyncio.run(app(dict(scope), receive, send))
    return sent[0]["status"], b"".join(message.get("body", b"") for message in sent[1:]).decode()


SEGMENTS = st.sampled_from(["/a", "/b", "/{x}", "/{x:int}", "/{y:path}"])
METHODS = st.sampled_from([["GET"], ["POST"], ["GET", "POST"], None])


def trees(depth: int) -> st.SearchStrategy[Any]:
    """Routes as plain data: ("route", path, methods), ("mount", path, routes) or ("host", host, routes)."""
    route = st.tuples(st.just("route"), st.lists(SEGMENTS, min_size=1, max_size=2, unique=True).map("".join), METHODS)
    if depth == 0:
        return st.lists(route, min_size=1, max_size=3)
    below = trees(depth - 1)
    mount = st.tuples(st.just("mount"), st.sampled_from(["/a", "/b", "/{z}", "", "/a/b"]), below)
    host = st.tuples(st.just("host"), st.sampled_from(["api.example.org", "{sub}.example.org", "{any}"]), below)
    return st.lists(st.one_of(route, route, mount, host), min_size=1, max_size=4)


def built(tree: Any, number: list[int]) -> list[BaseRoute]:
    routes: list[BaseRoute] = []
    for kind, where, what in tree:
        number[0] += 1
        if kind == "route":
            routes.append(Route(where, view(f"view{number[0]}"), methods=what))
        elif kind == "mount":
            routes.append(Mount(where, routes=built(what, number)))
        else:
            routes.append(Host(where, app=Router(built(what, number))))
    return routes


def unambiguous(tree: Any) -> bool:
    """Whether no path repeats a parameter's name: Starlette refuses that within one route."""
    return all(
        where.count("{x") <= 1 and where.count("{y") <= 1 if kind == "route" else unambiguous(what)
        for kind, where, what in tree
    )


@given(
    tree=trees(2).filter(unambiguous),
    paths=st.lists(
        st.lists(st.sampled_from(["/a", "/b", "/c", "/1", "/"]), min_size=1, max_size=4).map("".join),
        min_size=1,
        max_size=6,
    ),
    method=st.sampled_from(["GET", "HEAD", "POST", "PUT"]),
    host=st.sampled_from(["example.org", "api.example.org", "api.example.org:8000", "API.example.org", "[::1]:80", ""]),
    root_path=st.sampled_from(["", "", "/a", "/root"]),
)
@settings(deadline=None)
def test_table_and_router_agree(tree: Any, paths: list[str], method: str, host: str, root_path: str) -> None:
    """Whatever the routes are, the view that the table finds is the one that serves; where it finds none, none does."""
    routes = built(tree, [0])
    table, router = RouteTable(routes), Router(routes, redirect_slashes=False)
    for path in paths:
        scope = scope_of(root_path + path, method=method, host=host, root_path=root_path)
        status, body = served(router, scope)
        entry, serves = table.find(scope)
        name = entry.endpoint.__name__ if entry is not None and serves and entry.endpoint is not None else None
        if method == "HEAD" and status == 200:
            assert name is not None
        else:
            assert (body if status == 200 else None) == name, (path, status, entry)


def test_templates() -> None:
    """The template is the whole path as it was declared, without the convertors."""
    routes = [
        Route("/", view("root")),
        Route("/items/{id:int}", view("item")),
        Mount(
            "/shops/{shop}",
            routes=[Route("/items/{id}", view("inner")), Mount("/deep", routes=[Route("/x", view("deep"))])],
        ),
    ]
    assert ("/", "root", True) == found(routes, "/")
    assert ("/items/{id}", "item", True) == found(routes, "/items/7")
    assert (None, None, False) == found(routes, "/items/seven")
    assert ("/shops/{shop}/items/{id}", "inner", True) == found(routes, "/shops/1/items/2")
    assert ("/shops/{shop}/deep/x", "deep", True) == found(routes, "/shops/1/deep/x")
    assert ("/shops/{shop}/{path}", None, True) == found(routes, "/shops/1/nothing")


def test_same_parameter_at_two_levels() -> None:
    """A mount and a route below it may name their parameters alike."""
    routes: list[BaseRoute] = [Mount("/{id}", routes=[Mount("/{id}", routes=[Route("/{id}", view("inner"))])])]
    assert ("/{id}/{id}/{id}", "inner", True) == found(routes, "/1/2/3")


def test_methods() -> None:
    """Routes of one path and several methods are told apart; a method that none takes is the 405 of the first."""
    routes: list[BaseRoute] = [
        Route("/a", view("get")),
        Route("/a", view("post"), methods=["POST"]),
        Mount("/", routes=[]),
    ]
    assert [("/a", "get", True), ("/a", "post", True)] == [
        found(routes, "/a", method=method) for method in ("HEAD", "POST")
    ]
    alone: list[BaseRoute] = routes[:2]
    assert ("/a", None, False) == found(alone, "/a", method="DELETE")
    assert ("/a", None, False) == found([Mount("", routes=alone)], "/a", method="DELETE")


def test_first_match_wins() -> None:
    """A path without parameters is no short cut past an earlier route that takes it."""
    routes: list[BaseRoute] = [Route("/items/{id}", view("any")), Route("/items/me", view("me"))]
    assert "any" == found(routes, "/items/me")[1]
    assert "me" == found(routes[::-1], "/items/me")[1]


@pytest.mark.parametrize("wrap", [lambda app: app, CORSMiddleware, lambda app: CORSMiddleware(CORSMiddleware(app))])
def test_wrapped_mounts(wrap: Any) -> None:
    """The routes of a mounted application are seen through the middleware around it."""
    inner = Starlette(routes=[Route("/x", view("inner"))])
    assert ("/sub/x", "inner", True) == found([Mount("/sub", app=wrap(inner))], "/sub/x")
    assert ("/x", "inner", True) == found([Host("example.org", app=wrap(inner))], "/x")


def test_opaque_mounts() -> None:
    """Of an application that shows no routes, only the mount is known."""

    async def foreign(scope: Scope, receive: Receive, send: Send) -> None: ...

    routes: list[BaseRoute] = [Mount("/static", app=foreign), Route("/static/x", view("hidden"))]
    assert ("/static/{path}", None, True) == found(routes, "/static/x")
    assert (None, None, False) == found(routes, "/static")


def test_routes_of_an_unknown_class() -> None:
    """A route of somebody's own class is asked itself, and does not hide what comes before it."""

    class Odd(BaseRoute):
        def matches(self, scope: Scope) -> tuple[Match, Scope]:
            return (Match.FULL, {"endpoint": view("odd")}) if scope["path"].startswith("/odd") else (Match.NONE, {})

    routes: list[BaseRoute] = [Route("/odd/one", view("one")), Odd(), Route("/odd/two", view("two"))]
    assert [("one", True), ("odd", True)] == [found(routes, f"/odd/{name}")[1:] for name in ("one", "two")]
    assert (None, None, False) == found(routes, "/even")


def test_websockets_are_no_routes_for_http() -> None:
    """A WebSocket route takes no HTTP request."""
    routes: list[BaseRoute] = [WebSocketRoute("/a", view("socket")), Route("/a", view("view"))]
    assert ("/a", "view", True) == found(routes, "/a")


def test_class_based_views() -> None:
    """A class-based view serves every method; its declarations are the class's and the handler's, HEAD having GET's."""
    of_class, of_get = limit("9/minute"), limit("8/minute")

    class View(HTTPEndpoint):
        @of_get
        async def get(self, request: Request) -> Response:
            return PlainTextResponse("")

        async def post(self, request: Request) -> Response:
            return PlainTextResponse("")

    entry, serves = RouteTable([Route("/", of_class(View))]).find(scope_of("/", method="HEAD"))
    assert serves
    assert entry is not None
    assert [2, 2, 2, 1] == [len(entry.targets(method)) for method in ("GET", "HEAD", "POST", "PATCH")]
    assert {("GET", "/"), ("POST", "/")} == {info[:2] for info in list_routes(Starlette(routes=[Route("/", View)]))}


@pytest.mark.parametrize(
    ("path", "root_path", "expected"),
    [("/root/a", "/root", "a"), ("/a", "/root", "a"), ("/rooted/a", "/root", None), ("/root", "/root", None)],
)
def test_root_path(path: str, root_path: str, expected: str | None) -> None:
    """What a server puts before every path is not part of the route, whether the path has it or not."""
    assert expected == found([Route("/a", view("a"))], path, root_path=root_path)[1]


def test_stale() -> None:
    """A table knows when routes were added or taken away, at any depth, where there were none before too."""
    deep, empty = Router([Route("/a", view("a"))]), Starlette()
    routes: list[BaseRoute] = [
        Mount("/deep", routes=[Mount("/er", app=deep)]),
        Mount("/empty", app=CORSMiddleware(empty)),
    ]
    for change in (
        lambda: deep.routes.append(Route("/b", view("b"))),
        lambda: deep.routes.pop(),
        lambda: empty.router.routes.append(Route("/c", view("c"))),
        lambda: routes.append(Route("/d", view("d"))),
    ):
        table = RouteTable(routes)
        assert not table.stale
        change()
        assert table.stale
    assert ["c", "d"] == [found(routes, path)[1] for path in ("/empty/c", "/d")]


def test_list_routes() -> None:
    """Every method of every route is listed, through middleware; HEAD goes without saying."""
    app = Starlette(
        routes=[Route("/a", view("a"), methods=["GET", "POST"]), Mount("/m", routes=[Route("/b", view("b"))])]
    )
    listed = [(info.method, info.template) for info in list_routes(CORSMiddleware(app))]
    assert [("GET", "/a"), ("POST", "/a"), ("GET", "/m/b"), ("GET", "/m/{path}")] == listed


def test_audit() -> None:
    """A declaration that no route leads to is found, and one that a route leads to is not."""
    lost, kept = limit("1/minute")(view("lost")), limit("1/minute")(view("kept"))
    app = Starlette(routes=[Mount("/m", routes=[Route("/", kept)])])
    names = [one.name for one in audit(app) if one.name in (f"{__name__}.lost", f"{__name__}.kept")]
    assert ([f"{__name__}.lost"], True) == (names, callable(lost))


def test_routes_of_what_has_none() -> None:
    """An application that goes round in circles, or has no routes, has none."""

    class Circle:
        @property
        def app(self) -> Any:
            return self

    assert [[], [], []] == [list(routes_of(app)) for app in (Circle(), None, print)]
