"""Which view will serve a path, known before the router runs.

Starlette finds the view only inside the router, behind all middleware. Walking its routes a second time with each request would cost as
much as the request, so they are flattened once into a table:

- Mounts, Host routes, wrapped mounts and FastAPI's included routers become entries with the whole path. A mount takes every path below
  it, as in Starlette: an entry without a view stands behind its children.
- A path without parameters that no other kind of entry matches is one dictionary look-up; the others are tried in order.
- An application that shows no routes (static files, a foreign ASGI application) is an entry without a view: default limits apply.
- A route of an unknown class is asked itself.
- WebSocket routes take no HTTP request and the other way round, so each kind has a table of its own.

The table is made anew when the number of routes in any router it came from changes.
"""

import re
import sys
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any, NamedTuple

from starlette.routing import BaseRoute, Host, Match, Mount, Route, WebSocketRoute, compile_path
from starlette.types import Scope

from failsoft.errors import ConfigurationError
from failsoft.exchange import METHODS, Declaration, unattached
from failsoft.inspection import RouteInfo

__all__ = ["Entry", "RouteTable", "audit", "list_routes", "routes_of", "targets_of_routes"]

_GROUP = re.compile(r"\(\?P<\w+>")
_EMPTY = re.compile("")


class Entry(NamedTuple):
    """One route, with its whole path.

    Attributes:
        template: the path as declared, mounts included.
        methods: those it serves; None for all.
        endpoint: the view, or None where it is not known.
        pattern: what the whole path must match.
        hosts: the Host routes around it, outermost first; each is asked itself.
        route: the route itself where only it can tell whether it matches.
        groups: the names of the mounts and Host routes around it, outermost first, and FastAPI's tags.
        socket: whether it serves WebSockets.
        called: what FastAPI calls before the view: its dependencies.
        by_name: whether the view is FastAPI's, which gives it all of its arguments by name.
    """

    template: str
    methods: frozenset[str] | None
    endpoint: Any
    pattern: re.Pattern[str]
    hosts: tuple[Host, ...] = ()
    route: BaseRoute | None = None
    groups: tuple[str, ...] = ()
    socket: bool = False
    called: tuple[Any, ...] = ()
    by_name: bool = False

    def targets(self, method: str) -> tuple[Any, ...]:
        """What may carry declarations: the view and, of a class-based one, the handler of `method`."""
        endpoint = self.endpoint
        if not isinstance(endpoint, type):
            return () if endpoint is None else (endpoint,)
        if self.socket:
            return (endpoint, *_methods(endpoint, "on_connect"))
        handler = getattr(endpoint, method.lower(), None) or (
            getattr(endpoint, "get", None) if method == "HEAD" else None
        )
        return (endpoint,) if handler is None else (endpoint, handler)

    def message_targets(self) -> tuple[Any, ...]:
        """What is called for each message, of a class-based WebSocket view."""
        return _methods(self.endpoint, "on_receive") if self.socket and isinstance(self.endpoint, type) else ()


def _methods(cls: type, *names: str) -> tuple[Any, ...]:
    return tuple(method for name in names if (method := getattr(cls, name, None)) is not None)


class RouteTable:
    """The routes of one application, flat.

    Args:
        routes: the application's.
        whole: whether the application is entered where we stand, so that its paths begin after all of root_path.
        sockets: the routes of WebSockets, instead of those of HTTP.
    """

    def __init__(self, routes: Sequence[BaseRoute], *, whole: bool = False, sockets: bool = False) -> None:
        self._whole = whole
        self._sockets = sockets
        self._sources: list[tuple[Sequence[BaseRoute], int]] = []
        self.entries: list[Entry] = list(self._flatten(routes, "", "", (), ()))
        self._static: dict[str, tuple[Entry, ...]] = {}
        plain = all(entry.route is None and not entry.hosts for entry in self.entries)
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
        for routes, count in self._sources:  # noqa: SIM110 - any() over a generator takes three times as long
            if len(routes) != count:
                return True
        return False

    def find(self, scope: Scope) -> tuple[Entry | None, bool]:
        """The entry that will serve `scope`, and whether it serves its method."""
        path = scope["path"]
        method = "GET" if self._sockets else scope["method"]
        only = self._only.get((path, method))
        if only is not None and not scope.get("root_path"):
            return only, True
        path = self.path(scope)
        partial: Entry | None = None
        for entry in self._static.get(path, self.entries):
            if entry.route is not None:
                match, child = entry.route.matches(scope)
                if match is Match.FULL:
                    return entry._replace(endpoint=child.get("endpoint")), True
            elif entry.pattern.match(path) and (not entry.hosts or _is_for(entry.hosts, scope)):
                if entry.methods is None or method in entry.methods:
                    # A mount's last entry, reached because a child has the path but not the method: that child answers 405.
                    return (partial, False) if entry.endpoint is None and partial is not None else (entry, True)
                partial = partial or entry
        return partial, False

    def path(self, scope: Scope) -> str:
        """The path within the application."""
        path: str = scope["path"]
        root: str = scope.get("root_path", "")
        if not self._whole:
            # Mounts put their prefix into root_path; the application's own is what it was before them.
            root = scope.get("app_root_path", root)
        # Servers differ in whether the path has the prefix that a proxy took off.
        if root and path.startswith(root) and path[len(root) : len(root) + 1] in ("", "/"):
            path = path[len(root) :]
        return path

    def _flatten(
        self,
        routes: Sequence[BaseRoute],
        prefix: str,
        pattern: str,
        hosts: tuple[Host, ...],
        groups: tuple[str, ...],
    ) -> Iterator[Entry]:
        self._sources.append((routes, len(routes)))
        for route in _effective(routes, self._sources):
            original = getattr(route, "original_route", route)
            if isinstance(original, WebSocketRoute if self._sockets else Route):
                path = getattr(route, "path_format", None) or original.path_format
                piece = _GROUP.sub("(?:", _pattern_of(route, original))
                methods = None if self._sockets else getattr(route, "methods", None)
                yield Entry(
                    prefix + path,
                    None if methods is None else frozenset(methods),
                    route.endpoint,
                    re.compile(f"^{pattern}{piece}$"),
                    hosts,
                    groups=groups + _tags(route),
                    socket=self._sockets,
                    called=tuple(_dependencies(getattr(route, "dependant", None))),
                    by_name=hasattr(route, "dependant"),
                )
            elif isinstance(original, Mount):
                path = (getattr(route, "path_format", None) or original.path_format).removesuffix("/{path}")
                piece = _GROUP.sub("(?:", compile_path(_declared_path(route, original))[0].pattern[1:-1])
                named = (*groups, original.name) if original.name else groups
                yield from self._flatten(routes_of(original.app), prefix + path, pattern + piece, hosts, named)
                below = re.compile(f"^{pattern}{piece}/.*$", re.DOTALL)
                yield Entry(prefix + path + "/{path}", None, None, below, hosts, groups=named)
            elif isinstance(original, Host):
                inner = (*hosts, original)
                named = (*groups, original.name) if original.name else groups
                yield from self._flatten(routes_of(original.app), prefix, pattern, inner, named)
                below = re.compile(f"^{pattern}/.*$", re.DOTALL)
                yield Entry(prefix + "/{path}", None, None, below, inner, groups=named)
            elif not isinstance(original, Route | WebSocketRoute):
                path = prefix + (getattr(route, "path", None) or "")
                yield Entry(path, None, None, _EMPTY, hosts, original, groups, self._sockets)


def _effective(routes: Sequence[BaseRoute], sources: list[tuple[Sequence[BaseRoute], int]]) -> Iterable[Any]:
    """`routes` with FastAPI's included routers opened: it shows them as one opaque entry each.

    Raises:
        ConfigurationError: this FastAPI keeps what is in them to itself.
    """
    fastapi_routing = sys.modules.get("fastapi.routing")
    contexts: Callable[..., Iterable[Any]] | None = getattr(fastapi_routing, "iter_route_contexts", None)
    if contexts is None:
        if any(hasattr(route, "original_router") for route in routes):
            # What is declared for its routes would not be heard, and an exemption neither.
            raise ConfigurationError(
                "FastAPI 0.137.0 and 0.137.1 do not say which routes an included router has. Install another version of FastAPI."
            )
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


def _tags(route: Any) -> tuple[str, ...]:
    return tuple(str(getattr(tag, "value", tag)) for tag in getattr(route, "tags", None) or ())


def _dependencies(dependant: Any) -> Iterator[Any]:
    """What a route of FastAPI depends on, and what that depends on."""
    for inner in getattr(dependant, "dependencies", ()):
        yield inner.call
        yield getattr(type(inner.call), "__call__", None)  # noqa: B004  # of an object that is called, where the limit stands
        yield from _dependencies(inner)


def _pattern_of(route: Any, original: Any) -> str:
    path = getattr(route, "path", None)
    regex = original.path_regex if path is None or path == original.path else compile_path(path)[0]
    return regex.pattern[1:-1]


def _is_for(hosts: Iterable[Host], scope: Scope) -> bool:
    return all(host.matches(scope)[0] is Match.FULL for host in hosts)


def routes_of(app: Any) -> Sequence[BaseRoute]:
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
    """Every method of every route of `app`; a route that serves every method is listed with the usual ones, a WebSocket's with GET.

    Args:
        app: a Starlette or FastAPI application, wrapped in middleware or not.
    """
    found: list[RouteInfo] = []
    for entry in RouteTable(routes_of(app)).entries:
        methods = entry.methods
        if methods is None and isinstance(entry.endpoint, type):
            methods = frozenset(
                m for m in ("GET", "POST", "PUT", "PATCH", "DELETE") if hasattr(entry.endpoint, m.lower())
            )
        found += [
            RouteInfo(method, entry.template, entry.targets(method), entry.groups, entry.called, by_name=entry.by_name)
            for method in sorted(methods or {"GET"})
            if method != "HEAD"
        ]
    found += [
        RouteInfo("GET", entry.template, (*entry.targets("GET"), *entry.message_targets()), entry.groups, entry.called)
        for entry in RouteTable(routes_of(app), sockets=True).entries
        if entry.endpoint is not None
    ]
    return found


def audit(app: Any) -> list[Declaration]:
    """Declarations that no route of `app` leads to. They are enforced when their function is called, not before."""
    return unattached(targets_of_routes(app))


def targets_of_routes(app: Any) -> Iterator[tuple[Any, ...]]:
    """For each route of `app`, what may carry declarations."""
    return ((*info.targets, *info.called) for info in list_routes(app))
