"""``failsoft limits``: every route with the limits that apply to it."""

from failsoft.cli.report import Report, limit_data, place
from failsoft.inspection import Description
from failsoft.inspection.limits import LimitInfo, limits_of
from failsoft.settings import Scope

__all__ = ["limits"]


def limits(description: Description) -> Report:
    """Every route's limits, and what no route leads to."""
    runtime = description.runtime
    lines = [f"{description.framework} on {runtime.store.url}"]
    lines += [f"store {name}: {store.url}" for name, store in runtime.stores.items() if name != "default"]
    lines += [f"scope {scope.name}: {_reach(scope)}" for scope in runtime.settings.scopes]
    if not runtime.enabled:
        lines.append("enabled is false: no limit is enforced")
    routes = []
    for route in description.routes:
        found = limits_of(runtime, route)
        lines += ["", f"{route.method:7} {route.template}"]
        lines += [f"        {_line(limit)}" for limit in found] or ["        no limit"]
        routes.append(
            {"method": route.method, "route": route.template, "limits": [limit_data(limit) for limit in found]}
        )
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
        "routes": routes,
        "unattached": [{"where": one.where, "declared": list(map(repr, one.policies))} for one in lost],
    }
    return Report(lines, data, 1 if lost else 0)


def _line(limit: LimitInfo) -> str:
    note = f", {limit.note}" if limit.note else ""
    return f"{limit.quota} by {limit.by}, from {limit.source}{place(limit.where)}, on outage {limit.on_outage}{note}"


def _reach(scope: Scope) -> str:
    parts = [("paths below ", scope.prefix), ("host ", scope.host), ("group ", scope.group)]
    return ", ".join(f"{word}{value}" for word, value in parts if value is not None)
