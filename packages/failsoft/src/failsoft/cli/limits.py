"""``failsoft limits``: every route with the limits that apply to it.

For people, methods of a route that have the same limits are one entry; so are the routes of one part of an application (a namespace, a
blueprint, a mount), if there are many with the same limits, unless each is asked for. Programs get every method of every route.
"""

from collections.abc import Iterable, Sequence
from typing import NamedTuple

from failsoft.cli.report import Report, limit_data, path_of, place
from failsoft.exchange import DEFAULT, collect
from failsoft.inspection import Description
from failsoft.inspection.limits import LimitInfo, criticality_of, limits_of
from failsoft.runtime import Runtime
from failsoft.settings import Scope

__all__ = ["limits"]

_MANY = 4
"""So many routes of one part that say the same are shown as one."""

_ANY = ("GET", "POST", "PUT", "PATCH", "DELETE")
"""Whatever takes all of these is said to take any method."""


class _Said(NamedTuple):
    """What applies to a route."""

    limits: tuple[LimitInfo, ...]
    criticality: str | None


class _Entry(NamedTuple):
    """A method of a route."""

    method: str
    path: str
    groups: tuple[str, ...]
    said: _Said


def limits(description: Description, *, every: bool = False) -> Report:
    """Every route's limits, and what no route leads to.

    Args:
        description: of the application.
        every: show each route, however many of one part of the application say the same.
    """
    runtime = description.runtime
    stores = {name: _url(runtime, name, store.url) for name, store in runtime.stores.items()}
    lines = [f"{description.framework} on {stores[DEFAULT]}"]
    lines += [f"store {name}: {url}" for name, url in stores.items() if name != DEFAULT]
    lines += [f"scope {scope.name}: {_reach(scope)}" for scope in runtime.settings.scopes]
    if runtime.shedder is not None and runtime.enabled:
        least, most = runtime.settings.shed_min, runtime.settings.shed_max
        lines.append(f"load shedding: each process serves {least} to {most} requests at once")
    if not runtime.enabled:
        lines.append("enabled is false: no limit is enforced")
    entries = [
        _Entry(
            route.method,
            path_of(route.template),
            route.groups,
            _Said(tuple(limits_of(runtime, route)), criticality_of(runtime, route.template, collect(route.targets))),
        )
        for route in description.routes
    ]
    lines += _listed(entries, every=every)
    lost = description.unattached()
    for one in lost:
        lines += [
            "",
            f"{one.where}: {', '.join(map(repr, one.policies))} is reached by no route; it is enforced only when the function is called",
        ]
    data = {
        "framework": description.framework,
        "enabled": runtime.enabled,
        "stores": {name: store.url for name, store in runtime.stores.items()},
        "routes": [
            {
                "method": entry.method,
                "route": entry.path,
                "criticality": entry.said.criticality,
                "limits": [limit_data(limit) for limit in entry.said.limits],
            }
            for entry in entries
        ],
        "unattached": [{"where": one.where, "declared": list(map(repr, one.policies))} for one in lost],
    }
    return Report(lines, data, 1 if lost else 0)


def _url(runtime: Runtime, name: str, url: str) -> str:
    """What a store is called: a private server's `url`, which nobody wrote, stands beside what was written."""
    given = runtime.settings.store if name == DEFAULT else dict(runtime.settings.stores).get(name, "")
    return f"{given} ({url})" if given.startswith("embedded://") else url


def _listed(entries: Iterable[_Entry], *, every: bool) -> list[str]:
    """The entries, those together that say the same: methods of a route, and many routes of one part of the application."""
    methods: dict[tuple[str, tuple[str, ...], _Said], list[str]] = {}
    for entry in entries:
        methods.setdefault((entry.path, entry.groups, entry.said), []).append(entry.method)
    parts: dict[tuple[tuple[str, ...], _Said], list[str]] = {}
    for path, groups, said in methods:
        parts.setdefault((groups, said), []).append(path)
    lines: list[str] = []
    together = 0
    for (path, groups, said), names in methods.items():
        paths = parts[groups, said]
        if every or not groups or len(paths) < _MANY:
            lines += ["", f"{_methods(names):7} {path}", *_words(said)]
        elif path == paths[0]:
            together += len(paths)
            part = ", ".join(dict.fromkeys(groups))
            lines += ["", f"{len(paths)} routes of {part}, below {_common(paths)}", *_words(said)]
    if together:
        lines += ["", f"{together} routes are shown together, for they say the same; --all shows each"]
    return lines


def _methods(names: Sequence[str]) -> str:
    if set(_ANY).issubset(names):
        return "any"
    return ", ".join(dict.fromkeys(names))


def _common(paths: Sequence[str]) -> str:
    """The longest beginning of all `paths`, in whole segments."""
    found: list[str] = []
    for segments in zip(*(path.strip("/").split("/") for path in paths), strict=False):
        if len(set(segments)) > 1:
            break
        found.append(segments[0])
    return "/" + "".join(f"{segment}/" for segment in found if segment)


def _words(said: _Said) -> list[str]:
    lines = [f"        {_line(limit)}" for limit in said.limits] or ["        no limit"]
    return lines if said.criticality is None else [*lines, f"        criticality {said.criticality}"]


def _line(limit: LimitInfo) -> str:
    note = f", {limit.note}" if limit.note else ""
    return f"{limit.quota} by {limit.by}, from {limit.source}{place(limit.where)}, on outage {limit.on_outage}{note}"


def _reach(scope: Scope) -> str:
    parts = [("paths below ", scope.prefix), ("host ", scope.host), ("group ", scope.group)]
    return ", ".join(f"{word}{value}" for word, value in parts if value is not None)
