"""Which view will serve a path, known before the router runs.

Starlette finds the view only inside the router, behind all middleware. Walking its routes a second time with each request would cost as
much as the request, so they are flattened once into a table:

- Mounts, Host routes, wrapped mounts and FastAPI's included routers become entries with the whole path. A mount takes every path below
  it, as in Starlette: an entry without a view stands behind its children.
- A path without parameters that no other kind of entry matches is one dictionary look-up; the others are tried in order.
- An application that shows no routes (static files, a foreign ASGI application) is an entry without a view: default limits apply.
- A route of an unknown class is asked itself.

The table is made anew when the number of routes in any router it came from changes.
"""

import re
import sys
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any, NamedTuple

from starlette.routing import BaseRoute, Host, Match, Mount, Route, WebSocketRoute, compile_path
from starlette.types import Scope

from failsoft.exchange import METHODS, Declaration, unattached
from failsoft.inspection import RouteInfo

__all__ = ["Entry", "RouteTable", "audit", "list_routes"]

_GROUP = re.compile(r"\(\?P<\w+>")
_EMPTY = re.compile("")


class Entry(NamedTuple):
    """One route, with its whole path.

    Attributes:
        template: the path as declared, mounts included.
        methods: those it serves; None for all.
        endpoint: the view, or None where it is not known.
        pattern: what the whole path must match.
        host: what the Host header must match, or None.
        route: the route itself where only it can tell whether it matches.
    """

    template: str
    methods: frozenset[str] | None
    endpoint: Any
    pattern: re.Pattern[str]
    host: re.Pattern[str] | None = None
    route: BaseRoute | None = None

    def targets(self, method: str) -> tuple[Any, ...]:
        """What may carry declarations: the view and, of a class-based one, the handler of `method`."""
        endpoint = self.endpoint
        if not isinstance(endpoint, type):
            return () if endpoint is None else (endpoint,)
        handler = getattr(endpoint, method.lower(), None) or (getattr(endpoint, "get", None) if method == "HEAD" else None)
        return (endpoint,) if handler is None else (endpoint, handler)


class RouteTable:
    """The routes of one application, flat.

    Args:
        routes: the application's.
    """

    def __init__(self, routes: Sequence[BaseRoute]) -> None:
        self._sources: list[tuple[Sequence[BaseRoute], int]] = []
        self.entries: list[Entry] = list(self._flatten(routes, "", "", None))
        self._static: dict[str, tuple[Entry, ...]] = {}
        plain = all(entry.route is None and entry.host is None for entry in self.entries)
        for entry in self.entries:
            path = entry.template
            if plain and "{" not in path and path not in self._static and entry.endpoint is not None:
                matching = tuple(other for other in self.entries if other.pattern.match(path))
                if all(other.template == path for other in matching):
                    self._static[path] = matching
        # The usual case is one look-up; methods that a client invents are not in it.
        self._only = {
            (path, method): next(one for one in entries if one.methods is None or method in one.methods)
            for path, entries in self._static.items()
            for method in METHODS
            if any(one.methods is None or method in one.methods for one in entries)
        }

    @property
    def stale(self) -> bool:
        """Whether routes were added or taken away since."""
        for routes, count in self._sources:  # a loop: any() over a generator takes three times as long
            if len(routes) != count:
                return True
        return False

    def find(self, scope: Scope) -> tuple[Entry | None, bool]:
        """The entry that will serve `scope`, and whether it serves its method."""
        path = scope["path"]
        method = scope["method"]
        only = self._only.get((path, method))
        if only is not None and not scope.get("root_path"):
            return only, True
        # Mounts put their prefix into root_path; the application's own is what it was before them.
        root = scope.get("app_root_path", scope.get("root_path", ""))
        if root and path.startswith(root) and path[len(root) : len(root) + 1] in ("", "/"):
            path = path[len(root) :]
        partial: Entry | None = None
        for entry in self._static.get(path, self.entries):
            if entry.route is not None:
                match, child = entry.route.matches(scope)
                if match is Match.FULL:
                    return entry._replace(endpoint=child.get("endpoint")), True
            elif entry.pattern.match(path) and (entry.host is None or entry.host.match(_host(scope))):
                if entry.methods is None or method in entry.methods:
                    # A mount's last entry, reached because a child has the path but not the method: that child answers 405.
                    return (partial, False) if entry.endpoint is None and partial is not None else (entry, True)
                partial = partial or entry
        return partial, False

    def _flatten(
        self, routes: Sequence[BaseRoute], prefix: str, pattern: str, host: re.Pattern[str] | None
    ) -> Iterator[Entry]:
        self._sources.append((routes, len(routes)))
        for route in _effective(routes, self._sources):
            original = getattr(route, "original_route", route)
            if isinstance(original, Route):
                path = getattr(route, "path_format", None) or original.path_format
                piece = _GROUP.sub("(?:", _pattern_of(route, original))
                methods = getattr(route, "methods", None)
                yield Entry(
                    prefix + path,
                    None if methods is None else frozenset(methods),
                    route.endpoint,
                    re.compile(f"^{pattern}{piece}$"),
                    host,
                )
            elif isinstance(original, Mount):
                path = (getattr(route, "path_format", None) or original.path_format).removesuffix("/{path}")
                piece = _GROUP.sub("(?:", compile_path(_declared_path(route, original))[0].pattern[1:-1])
                yield from self._flatten(original.routes or (), prefix + path, pattern + piece, host)
                yield Entry(prefix + path + "/{path}", None, None, re.compile(f"^{pattern}{piece}/.*$", re.DOTALL), host)
            elif isinstance(original, Host):
                yield from self._flatten(original.routes or (), prefix, pattern, original.host_regex)
                yield Entry(prefix + "/{path}", None, None, re.compile(f"^{pattern}/.*$", re.DOTALL), original.host_regex)
            elif not isinstance(original, WebSocketRoute):
                yield Entry(prefix + getattr(route, "path", ""), None, None, _EMPTY, host, original)


def _effective(routes: Sequence[BaseRoute], sources: list[tuple[Sequence[BaseRoute], int]]) -> Iterable[Any]:
    """`routes` with FastAPI's included routers opened: it shows them as one opaque entry each."""
    fastapi_routing = sys.modules.get("fastapi.routing")
    contexts: Callable[..., Iterable[Any]] | None = getattr(fastapi_routing, "iter_route_contexts", None)
    if contexts is None:
        return routes
    pending = list(routes)
    while pending:
        included = getattr(pending.pop(), "original_router", None)
        if included is not None:
            sources.append((included.routes, len(included.routes)))
            pending += included.routes
    return contexts(routes)


def _declared_path(route: Any, original: Mount) -> str:
    """A mount's path with its convertors; an including router may have put its prefix before it."""
    path = getattr(route, "path", None) or original.path
    return str(path).rstrip("/")


def _pattern_of(route: Any, original: Route) -> str:
    path = getattr(route, "path", None)
    regex = original.path_regex if path is None or path == original.path else compile_path(path)[0]
    return regex.pattern[1:-1]


def _host(scope: Scope) -> str:
    for name, value in scope["headers"]:
        if name == b"host":
            host: str = value.decode("latin-1").lower()
            return host.rsplit(":", 1)[0] if not host.endswith("]") else host
    return ""


def _routes_of(app: Any) -> Sequence[BaseRoute]:
    """The routes of an application, however many middlewares it is wrapped in."""
    seen: set[int] = set()
    while app is not None and id(app) not in seen:
        seen.add(id(app))
        routes = getattr(app, "routes", None)
        if isinstance(routes, list):
            return routes
        app = getattr(app, "app", None)
    return []


def list_routes(app: Any) -> list[RouteInfo]:
    """Every method of every route of `app`; a route that serves every method is listed with the usual ones.

    Args:
        app: a Starlette or FastAPI application, wrapped in middleware or not.
    """
    found: list[RouteInfo] = []
    for entry in RouteTable(_routes_of(app)).entries:
        methods = entry.methods
        if methods is None and isinstance(entry.endpoint, type):
            methods = frozenset(m for m in ("GET", "POST", "PUT", "PATCH", "DELETE") if hasattr(entry.endpoint, m.lower()))
        found += [
            RouteInfo(method, entry.template, entry.targets(method)) for method in sorted(methods or {"GET"}) if method != "HEAD"
        ]
    return found


def audit(app: Any) -> list[Declaration]:
    """Declarations that no route of `app` leads to. They are enforced when their function is called, not before."""
    return unattached(info.targets for info in list_routes(app))
