"""What is declared on views and cannot be enforced there: told when an application starts, or requests would find out.
So are scopes without any route.

A decorator knows no settings. So only an application can tell that a limit names a store which it does not have, has more units than the
algorithm of the settings can count, or asks for live sessions where there are none.
"""

import random
from collections.abc import Callable, Iterable, Sequence

from failsoft.clock import SYSTEM
from failsoft.errors import ConfigurationError
from failsoft.events import Listeners
from failsoft.exchange import DEFAULT, Policy, Route, RoutePlans, collect
from failsoft.inspection.description import RouteInfo
from failsoft.ratelimit import RateLimits
from failsoft.runtime import Runtime
from failsoft.settings import Settings
from failsoft.settings.problems import nearest

__all__ = ["mistakes", "mistakes_by_settings", "unreached"]

_SESSIONS = "sessions"


def mistakes(runtime: Runtime, routes: Iterable[RouteInfo]) -> list[ConfigurationError]:
    """Why requests to some of `routes` would fail, each cause once."""
    return _found(runtime.check, routes)


def mistakes_by_settings(settings: Settings, routes: Iterable[RouteInfo]) -> list[ConfigurationError]:
    """The same, as far as settings tell: no store is opened, so what one cannot count is not told."""
    if not settings.enabled:
        return []
    stores = dict.fromkeys((DEFAULT, *(name for name, _ in settings.stores)), False)
    limits = RateLimits(settings, clock=SYSTEM, random=random.random, listeners=Listeners(), remote=stores)
    plans = RoutePlans((limits,), ())

    def check(route: Route, policies: Sequence[Policy], called: Sequence[Policy]) -> None:
        if settings.sessions:
            policies = [policy for policy in policies if policy.concern != _SESSIONS]
        plans.check(route, policies, called)

    return _found(check, routes)


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
    check: Callable[[Route, Sequence[Policy], Sequence[Policy]], None], routes: Iterable[RouteInfo]
) -> list[ConfigurationError]:
    found: dict[str, ConfigurationError] = {}
    for route in routes:
        try:
            check(Route(route.method, route.template), collect(route.targets), collect(route.called))
        except ConfigurationError as error:
            found.setdefault(str(error), error.with_traceback(None))
    return list(found.values())
