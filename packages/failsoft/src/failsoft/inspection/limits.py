"""Which limits a route has, in words.

What depends on a request is told by what it depends on: a function by its name, a scope by what the request must be like.
"""

import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, NamedTuple

from failsoft.exchange import Policy, Route, RoutePlan, collect, declarations
from failsoft.inspection.description import RouteInfo
from failsoft.ratelimit import Limit, Line, Penalty, Quota, RouteLimits, parse_quotas
from failsoft.ratelimit.identity import Hashed
from failsoft.runtime import Runtime
from failsoft.settings import Scope, Settings
from failsoft.settings.criticality import CRITICALITIES, EXEMPT

__all__ = [
    "LimitInfo",
    "Place",
    "criticality_of",
    "describe_declared",
    "describe_line",
    "limits_of",
    "name_of",
    "where_declared",
]


class Place(NamedTuple):
    """Where a policy stands.

    Attributes:
        source: the name of the view.
        where: its file and line; None where the function is gone that it was put on.
    """

    source: str
    where: str | None


@dataclass(frozen=True, slots=True, kw_only=True)
class LimitInfo:
    """One limit on one route, in words.

    Attributes:
        name: what clients see; "" where a function of the request decides.
        declared: the name that it was declared with.
        quota: how much.
        by: whom it counts.
        source: ``limits``, ``route_limits``, ``scopes: NAME``, or the name of the view that it was put on.
        where: file and line of that view; None for a setting.
        on_outage: what it does without its store.
        store: the name of its store.
        algorithm: how it counts; None where a function of the request decides.
        condition: what a request must be like, for a scope that has not all of a route.
        shared: the name that it is shared by.
        when: the function that it depends on.
        cost: units that a request takes, or the function that says so.
        per_method: whether each method counts for itself.
        charge_on: which responses are charged; None for all requests.
        peek: whether nothing is reserved before that.
        adjustable: whether the view may say what it really cost.
        penalty: what becomes of clients that go on after they were refused.
        shadow: whether it refuses nobody.
        lease: units that a process may fetch at once, 0 for none.
        late: whether it is decided just before the view's body.
        messages: whether it counts messages over a WebSocket.
    """

    quota: str
    by: str
    source: str
    on_outage: str
    name: str = ""
    declared: str | None = None
    where: str | None = None
    store: str = "default"
    algorithm: str | None = "fixed-window"
    condition: str | None = None
    shared: str | None = None
    when: str | None = None
    cost: int | str = 1
    per_method: bool = False
    charge_on: str | None = None
    peek: bool = False
    adjustable: bool = False
    penalty: str | None = None
    shadow: bool = False
    lease: int = 0
    late: bool = False
    messages: bool = False

    @property
    def note(self) -> str:
        """What is out of the ordinary about it."""
        notes = {
            self.condition: self.condition is not None,
            self.algorithm: self.algorithm not in (None, "fixed-window"),
            f"shared {self.shared}": self.shared is not None,
            f"when {self.when}": self.when is not None,
            f"cost {self.cost}": self.cost != 1,
            "per method": self.per_method,
            f"charged on {self.charge_on}": self.charge_on is not None,
            "peeks": self.peek,
            "adjustable": self.adjustable and self.charge_on is None,
            f"penalty {self.penalty}": self.penalty is not None,
            "shadow": self.shadow,
            f"lease {self.lease}": bool(self.lease),
            f"in store {self.store}": self.store != "default",
            "each message": self.messages,
            "late": self.late and not self.messages,
        }
        return ", ".join(str(note) for note, is_so in notes.items() if is_so)


def limits_of(runtime: Runtime, route: RouteInfo) -> list[LimitInfo]:
    """The limits that apply to a route, in the order in which they are decided."""
    policies = collect(route.targets)
    later = [*(policy for policy in policies if policy.late), *collect(route.called)]
    places = where_declared(route.sources)
    conditions = {scope: _condition(scope, route) for scope in runtime.settings.scopes}
    possible = tuple(scope for scope, condition in conditions.items() if condition is not None)
    where = Route(route.method, route.template, possible)
    found: list[LimitInfo] = []
    for late in (False, True):
        chosen = later if late else policies
        for bound in RoutePlan(runtime.concerns, where, chosen, late=late).bounds if chosen or not late else ():
            if isinstance(bound, RouteLimits):
                found += _described(runtime, bound, places, late=late)
    names = {f"scopes: {scope.name}": condition for scope, condition in conditions.items() if condition}
    return [_with_condition(one, names.get(one.source)) for one in found]


def criticality_of(
    runtime: Runtime, template: str | None, policies: Sequence[Policy], path: str | None = None
) -> str | None:
    """The class of requests to a route, or ``exempt``; None where nothing is shed.

    Args:
        runtime: the application's.
        template: the route; None where there is none.
        policies: what is declared on its view, outermost first.
        path: what decides where there is neither.
    """
    shedder = runtime.shedder
    if shedder is None or not runtime.enabled:
        return None
    unrouted = template is None and not policies and path is not None
    rank = shedder.classes.of_path(path or "") if unrouted else shedder.classes.of_route(template, policies)
    return EXEMPT if rank is None else CRITICALITIES[rank]


def describe_line(
    settings: Settings, line: Line, *, store: str, late: bool = False, places: Mapping[Policy, Place]
) -> LimitInfo:
    """One line in words.

    Args:
        settings: the application's.
        line: the line.
        store: the name of its store.
        late: whether it is decided just before the view's body.
        places: what `where_declared` said.
    """
    scope = next((one for one in settings.scopes if line.source == f"scopes: {one.name}"), None)
    quota = line.rule if isinstance(line.rule, Quota) else None
    return LimitInfo(
        name=line.name,
        quota=f"penalty {_penalty(line.rule)}" if isinstance(line.rule, Penalty) else str(line.rule),
        by=_by(_own_by(line.policy, scope, settings)),
        source=line.source if line.policy is None else _source(line.policy, places),
        on_outage=line.on_outage,
        store=store,
        algorithm=None if quota is None else quota.algorithm + (", aligned" if quota.aligned else ""),
        lease=line.lease,
        late=late,
        **({} if line.policy is None else _terms(line.policy, places, guarded=quota is not None)),
    )


def where_declared(sources: Mapping[Policy, str]) -> Mapping[Policy, Place]:
    """Where every policy stands that is on a living function, or of which the adapter says it.

    Args:
        sources: what the adapter says of policies on one route, see `failsoft.inspection.RouteInfo`.
    """
    found = {policy: one.where for one in declarations() for policy in one.policies}
    return {policy: Place(sources.get(policy, policy.place), found.get(policy)) for policy in {**found, **sources}}


def _source(policy: Policy, places: Mapping[Policy, Place]) -> str:
    return places[policy].source if policy in places else policy.place


def _described(
    runtime: Runtime, bound: RouteLimits, places: Mapping[Policy, Place], *, late: bool
) -> Iterator[LimitInfo]:
    settings = runtime.settings
    for line in bound.lines():
        if isinstance(line.rule, Quota):
            yield describe_line(settings, line, store=bound.store, late=late, places=places)
    for rule in bound.rules():
        limit = rule.limit
        if limit.quota_question is not None:
            yield describe_declared(settings, limit, store=bound.store, late=late, places=places)


def describe_declared(
    settings: Settings, limit: Limit, *, store: str, late: bool = False, places: Mapping[Policy, Place]
) -> LimitInfo:
    """A limit in words, as it was declared. Arguments as for `describe_line`."""
    algorithm = limit.algorithm or settings.algorithm
    return LimitInfo(
        name=limit.name or "",
        quota=f"by {name_of(limit.quota)}"
        if callable(limit.quota)
        else "; ".join(map(str, parse_quotas(limit.quota, algorithm=algorithm))),
        by=_by(_own_by(limit, None, settings)),
        source=_source(limit, places),
        on_outage=limit.on_outage or settings.on_outage,
        store=store,
        algorithm=limit.algorithm,
        late=late,
        **_terms(limit, places),
    )


def _own_by(limit: Limit | None, scope: Scope | None, settings: Settings) -> Any:
    given = limit.by if limit is not None else scope.by if scope is not None else None
    return settings.by if given is None else given


def _terms(limit: Limit, places: Mapping[Policy, Place], *, guarded: bool = True) -> dict[str, Any]:
    """What a declared limit says beside how much, and of whom. A penalty has no penalty itself."""
    return {
        "declared": limit.name,
        "where": places[limit].where if limit in places else None,
        "shared": limit.shared,
        "when": None if limit.when is None else name_of(limit.when.function),
        "cost": limit.cost if isinstance(limit.cost, int) else name_of(limit.cost),
        "per_method": limit.per_method,
        "charge_on": None if limit.charge_on is None else _statuses(limit.charge_on),
        "peek": limit.peek,
        "adjustable": limit.adjustable,
        "penalty": None if limit.penalty is None or not guarded else _penalty(limit.penalty),
        "shadow": limit.shadow,
        "messages": limit.messages,
    }


def _penalty(rule: Penalty) -> str:
    within, block, growth, most, _ = rule.terms.split()
    times = f", then times {float(growth):g} up to {int(most) / 1000:g} s," if float(growth) > 1 else ""
    return f"of {int(block) / 1000:g} s{times} after {rule.after} breaches in {int(within) / 1000:g} s"


def _statuses(charge_on: Any) -> str:
    if callable(charge_on):
        return name_of(charge_on)
    if isinstance(charge_on, range) and charge_on.step == 1 and len(charge_on) > 1:
        return f"{charge_on[0]}-{charge_on[-1]}"
    try:
        return ", ".join(map(str, sorted(charge_on)))
    except TypeError:  # something that has `in` and is no collection
        return repr(charge_on)


def _by(by: Any) -> str:
    if isinstance(by, tuple | list):
        return " + ".join(_by(part) for part in by)
    if isinstance(by, Hashed):
        return f"hashed({name_of(by.function)})"
    return by if isinstance(by, str) else name_of(getattr(by, "function", by))


def name_of(function: Any) -> str:
    """What people call a function."""
    name = getattr(function, "__qualname__", None) or repr(function)
    code = getattr(function, "__code__", None)
    if code is None or not name.endswith("<lambda>"):
        return name
    return f"lambda ({os.path.basename(code.co_filename)}:{code.co_firstlineno})"


def _with_condition(limit: LimitInfo, condition: str | None) -> LimitInfo:
    return limit if condition is None else replace(limit, condition=condition)


def _condition(scope: Scope, route: RouteInfo) -> str | None:
    """What a request to `route` must be like to belong to `scope`: "" for nothing, None where none can."""
    if scope.group is not None and scope.group not in route.groups:
        return None
    conditions = [] if scope.host is None else [f"where the host is {scope.host}"]
    if scope.prefix is not None:
        certain = _begins(scope.prefix, route.template)
        if certain is None:
            return None
        if not certain:
            conditions.append(f"where the path begins with {scope.prefix}")
    return " and ".join(conditions)


def _begins(prefix: str, template: str) -> bool | None:
    """Whether the paths of a template begin with `prefix`: all, some (False), or none."""
    wanted, given = prefix.strip("/").split("/"), template.strip("/^$").split("/")
    for place, segment in enumerate(wanted):
        if place >= len(given):
            return None
        if any(character in given[place] for character in "<{(\\[*"):
            return False  # a parameter, which may hold anything and perhaps several segments
        if given[place] != segment:
            return None
    return True
