"""What is declared on views and cannot be enforced there: told when an application starts, or requests would find out.
So are scopes without any route.

A decorator knows no settings. So only an application can tell that a limit names a store which it does not have, has more units than the
algorithm of the settings can count, is aligned where that knows no windows, or asks for live sessions where there are none.
"""

import random
from collections.abc import Callable, Iterable, Sequence
from inspect import Parameter, isfunction, signature
from typing import Any

from failsoft.clock import SYSTEM
from failsoft.errors import ConfigurationError
from failsoft.events import Listeners
from failsoft.exchange import DEFAULT, Policy, Question, Route, RoutePlans, collect
from failsoft.exchange.decorators import WithArguments
from failsoft.exchange.places import line_of, place_of
from failsoft.inspection.description import RouteInfo
from failsoft.ratelimit import Limit, RateLimits, parse_quotas
from failsoft.ratelimit.identity import compile_identity
from failsoft.runtime import Runtime
from failsoft.settings import Settings
from failsoft.settings.problems import nearest

__all__ = ["mistakes", "mistakes_by_settings", "unreached"]

_SESSIONS = "sessions"


def mistakes(runtime: Runtime, routes: Iterable[RouteInfo], *, needed: str | None = None) -> list[ConfigurationError]:
    """Why requests to some of `routes` would fail, each cause once.

    Args:
        runtime: the application's.
        routes: those to look at.
        needed: what has to be done before an async function can be asked about a request; None for nothing.
    """
    return _found(runtime.check, runtime.settings, routes, needed)


def mistakes_by_settings(settings: Settings, routes: Iterable[RouteInfo]) -> list[ConfigurationError]:
    """The same, as far as settings tell: no store is opened, so what one cannot count is not told."""
    if not settings.enabled:
        return []
    stores = dict.fromkeys((DEFAULT, *(name for name, _ in settings.stores)), False)
    limits = RateLimits(settings, clock=SYSTEM, random=random.random, listeners=Listeners(), remote=stores)
    plans = RoutePlans((limits,), ())

    def check(route: Route, policies: Sequence[Policy], called: Sequence[Policy]) -> Sequence[Question]:
        if settings.sessions:
            policies = [policy for policy in policies if policy.concern != _SESSIONS]
        return plans.check(route, policies, called)

    return _found(check, settings, routes)


def unreached(settings: Settings, routes: Iterable[RouteInfo]) -> list[str]:
    """What of the setting scopes holds for none of `routes`: groups that no route is in, of which there may be one much like it."""
    wanted = [scope for scope in settings.scopes if scope.group is not None]
    known = {group for route in routes for group in route.groups} if wanted else set()
    found: list[str] = []
    for scope in wanted:
        if scope.group is not None and scope.group not in known:
            near = nearest(scope.group, sorted(known))
            meant = f": did you mean {near!r}?" if near else ""
            found.append(
                f"scopes: {scope.name} limits nothing here, since no route is in the group {scope.group!r}{meant}"
            )
    return found


def _found(
    check: Callable[[Route, Sequence[Policy], Sequence[Policy]], Sequence[Question]],
    settings: Settings,
    routes: Iterable[RouteInfo],
    needed: str | None = None,
) -> list[ConfigurationError]:
    found: dict[str, ConfigurationError] = {}
    for route in routes:
        try:
            for target in route.targets:
                if isinstance(target, WithArguments) and target.bare is not None:
                    raise ConfigurationError(f"{route.template}: {target.bare}")
            if route.by_name:
                _check_late(route)
            policies = collect(route.targets), collect(route.called)
            asked = check(Route(route.method, route.template), *policies)
            if settings.enabled:
                _check_aligned(settings, *policies)
            if needed is not None and (question := next((one for one in asked if one.asynchronous), None)):
                function = question.function
                raise ConfigurationError(
                    f"{route.template}: {place_of(function)} ({line_of(function)}), which is asked about each request, is async: {needed}"
                )
        except ConfigurationError as error:
            found.setdefault(str(error), error.with_traceback(None))
    return list(found.values())


def _check_aligned(settings: Settings, *policies: Sequence[Policy]) -> None:
    """Whether what limits say of alignment has an effect. A request would not find out, and need not fail for it."""
    for limit in (one for some in policies for one in some if isinstance(one, Limit)):
        if limit.aligned and limit.quota_question is None:
            given: Any = limit.quota
            quotas = parse_quotas(given, algorithm=limit.algorithm or settings.algorithm, aligned=True)
            try:
                limit.check_aligned(quotas)
            except ConfigurationError as error:
                raise ConfigurationError(f"{limit!r} on {limit.place}: {error}") from None


def _check_late(route: RouteInfo) -> None:
    """Whether the functions of ``late(...)`` can be called as the view is."""
    # Of one that another decorator wraps, what it is given is not known; and a method is given its object by position.
    target = route.targets[0] if route.targets else None
    view = getattr(target, "__wrapped__", None)
    if not isfunction(target) or not isfunction(view):
        return
    given = signature(view, follow_wrapped=False).parameters.values()
    if any(one.kind in (Parameter.VAR_POSITIONAL, Parameter.VAR_KEYWORD) for one in given):
        return
    for policy in collect(route.targets[:1], filed=False):
        by = policy.by if isinstance(policy, Limit) and policy.late else None
        question = None if by is None else compile_identity(by).question
        if question is None:
            continue
        try:
            wanted = signature(question.function, follow_wrapped=False)
        except Exception:  # noqa: S112 - written in C, it may have none
            continue
        try:
            # One with a default may be given or not, as it fits.
            wanted.bind(
                **{one.name: None for one in given if one.default is Parameter.empty or one.name in wanted.parameters}
            )
        except TypeError:
            names = ", ".join(one.name for one in given) or "none"
            raise ConfigurationError(
                f"{route.template}: late({place_of(question.function)}) ({line_of(question.function)}) is called as the view is, which is "
                f"given {names} by name, and its parameters are {wanted}: give it those of the view; **others takes what it does not need"
            ) from None
