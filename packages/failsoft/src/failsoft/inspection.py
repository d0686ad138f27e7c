"""What applies where, for people: the base of ``failsoft limits`` and of start-up audits.

An adapter registers, as an entry point of the group ``failsoft.adapters``, a function that takes an application and returns its
`Description`, or None if the application is not of its framework.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from importlib.metadata import entry_points
from typing import Any, NamedTuple

from failsoft.errors import ConfigurationError
from failsoft.exchange import Declaration, Route, RoutePlan, collect, unattached
from failsoft.ratelimit import Quota, RouteLimits
from failsoft.runtime import Runtime

__all__ = ["GROUP", "Description", "LimitInfo", "RouteInfo", "describe", "limits_of"]

GROUP = "failsoft.adapters"


class RouteInfo(NamedTuple):
    """A method of a route.

    Attributes:
        method: the HTTP method.
        template: the route as the framework writes it.
        targets: what may carry declarations, as in `failsoft.exchange.Facts.targets`.
    """

    method: str
    template: str
    targets: tuple[Any, ...]


class LimitInfo(NamedTuple):
    """One limit on one route, in words."""

    quota: str
    by: str
    source: str
    on_outage: str
    note: str


@dataclass(frozen=True, slots=True)
class Description:
    """An application.

    Attributes:
        framework: its name.
        runtime: its failsoft.
        routes: every method of every route.
    """

    framework: str
    runtime: Runtime
    routes: Sequence[RouteInfo]

    def unattached(self) -> list[Declaration]:
        """Declarations that no route leads to."""
        return unattached(route.targets for route in self.routes)


def describe(app: Any) -> Description:
    """The description of an application of any framework whose adapter is installed.

    Raises:
        ConfigurationError: no adapter knows it, or failsoft is not installed in it.
    """
    found = list(entry_points(group=GROUP))
    for entry in found:
        description = entry.load()(app)
        if isinstance(description, Description):
            return description
    names = ", ".join(sorted(entry.name for entry in found)) or "none"
    raise ConfigurationError(
        f"{app!r} is no application of an installed adapter ({names}); name it as module:attribute"
    )


def limits_of(runtime: Runtime, route: RouteInfo) -> list[LimitInfo]:
    """The limits that apply to a route, in the order in which they are decided."""
    where = Route(route.method, route.template)
    policies = collect(route.targets)
    found: list[LimitInfo] = []
    for late in (False, True):
        chosen = [policy for policy in policies if policy.late] if late else policies
        for bound in RoutePlan(runtime.concerns, where, chosen, late=late).bounds if chosen or not late else ():
            if isinstance(bound, RouteLimits):
                found += _described(runtime, bound, late=late)
    return found


def _described(runtime: Runtime, bound: RouteLimits, *, late: bool) -> list[LimitInfo]:
    settings = runtime.settings
    found = [
        LimitInfo(
            str(line.rule),
            _by(settings.by if line.policy is None or line.policy.by is None else line.policy.by),
            line.source,
            line.on_outage,
            _note(line.policy, late=late),
        )
        for line in bound.lines()
        if isinstance(line.rule, Quota)
    ]
    found += [
        LimitInfo(
            f"by {_name(limit.quota)}",
            _by(settings.by if limit.by is None else limit.by),
            limit.place,
            limit.on_outage or settings.on_outage,
            _note(limit, late=late),
        )
        for limit in bound.rules()
        if limit.quota_question is not None
    ]
    return found


def _by(by: Any) -> str:
    if isinstance(by, tuple | list):
        return " + ".join(_by(part) for part in by)
    return by if isinstance(by, str) else _name(getattr(by, "function", by))


def _name(function: Any) -> str:
    return getattr(function, "__qualname__", None) or repr(function)


def _note(limit: Any, *, late: bool) -> str:
    if limit is None:
        return ""
    notes = [f"shared {limit.shared}"] if limit.shared else []
    if limit.when is not None:
        notes.append(f"when {_name(limit.when.function)}")
    if limit.cost != 1:
        notes.append(f"cost {limit.cost if isinstance(limit.cost, int) else _name(limit.cost)}")
    if limit.per_method:
        notes.append("per method")
    if limit.charge_on is not None:
        notes.append("charged by status" + (", peeks" if limit.peek else ""))
    elif limit.adjustable:
        notes.append("adjustable")
    if limit.penalty is not None:
        notes.append(f"penalty after {limit.penalty.after} breaches")
    if limit.shadow:
        notes.append("shadow")
    if limit.store is not None:
        notes.append(f"in store {limit.store}")
    if late:
        notes.append("late")
    return ", ".join(notes)
