"""Rate limits as a concern: what applies where, and whom it counts.

*Lines* are single quotas on a route: those of the settings first (everywhere, then the scopes', then each route's), then the view's own,
outermost first. All lines of a request that count in one store are one `Acquire`. On most routes nothing about the lines depends
on the request but the identity; they are worked out once, and a request only adds its identity to the keys.

The identity stands in braces: on a Redis Cluster all limits of one subject then lie in one slot, and are decided as one.
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

from failsoft.clock import Clock
from failsoft.errors import ConfigurationError
from failsoft.events import Listeners
from failsoft.exchange import DEFAULT, Policy, Route
from failsoft.quota import Quota, parse_quotas
from failsoft.ratelimit.declare import CONCERN, Exempt, Limit
from failsoft.ratelimit.declared import DeclaredLimit
from failsoft.ratelimit.denied import DenyCache
from failsoft.ratelimit.foreign import foreign_place
from failsoft.ratelimit.identity import Identity, NoAddress, compile_identity, escape
from failsoft.ratelimit.leases import Leases
from failsoft.ratelimit.lines import Line
from failsoft.ratelimit.local import LocalLimits
from failsoft.ratelimit.penalty import Penalty
from failsoft.ratelimit.routes import RouteLimits, ScreenedLimits
from failsoft.settings import Scope, Settings

__all__ = ["SCHEMA", "RateLimits", "Unsupported"]

Unsupported = Callable[..., str | None]
"""Called with a quota or a penalty, a mode and ``stamps=``: why a store cannot decide about it and what to do, or None."""

SCHEMA = 1
"""Version of the keys and of what lies under them. Raised when either changes, so that old and new processes do not meet."""


class RateLimits:
    """The concern.

    Args:
        settings: validated settings.
        clock: injectable time.
        random: gives floats in [0, 1), for the jitter of Retry-After.
        listeners: hear of each decision.
        remote: for each store's name whether it can be away, so that what it says is worth remembering.
        unsupported: for the names of stores that cannot serve every limit, what says which and why.

    Raises:
        ConfigurationError: the store of a limit in the settings cannot serve it.
    """

    name = CONCERN

    def __init__(
        self,
        settings: Settings,
        *,
        clock: Clock,
        random: Callable[[], float],
        listeners: Listeners,
        remote: Mapping[str, bool],
        unsupported: Mapping[str, Unsupported] | None = None,
    ) -> None:
        self.settings = settings
        self.clock = clock
        self.random = random
        self.listeners = listeners
        self.remote = remote
        self._unsupported = unsupported or {}
        share, bound = settings.effective_local_share, settings.memory_keys
        processes = settings.workers * settings.replicas
        self.local = {name: LocalLimits(share=share, bound=bound) for name in remote}
        self.leases = {name: Leases(processes=processes, bound=bound) for name in remote}
        self.denied = {
            name: DenyCache(life=settings.deny_cache if away else 0.0, bound=bound) for name, away in remote.items()
        }
        self.draft = settings.headers in ("draft", "both")
        self.legacy = settings.headers in ("legacy", "both")
        self.secret = settings.secret.encode() if settings.secret else b""
        self.identity = compile_identity(settings.by, secret=self.secret)
        self.no_address = NoAddress()
        self._everywhere = self._parse(settings.limits)
        self._each_route = self._parse(settings.route_limits)
        self._scopes = {
            scope: (
                self._parse(scope.limits),
                self.identity if scope.by is None else compile_identity(scope.by, secret=self.secret),
            )
            for scope in settings.scopes
        }
        for scopes in [(), *((scope,) for scope in settings.scopes)]:
            # What its store cannot serve is better known now than at the first request.
            self.bind(Route("GET", None, scopes), (), late=False)

    def _parse(self, given: Iterable[Any]) -> tuple[Quota, ...]:
        return parse_quotas(given, algorithm=self.settings.algorithm, aligned=self.settings.aligned)

    def check_store(self, store: str, where: str) -> None:
        """Raises ConfigurationError if there is no store of that name. `where` is what names it."""
        if store not in self.remote:
            raise ConfigurationError(
                f"{where}: there is no store {store!r}; the setting stores names {', '.join(sorted(self.remote))}"
            )

    def bind(self, route: Route, policies: Sequence[Policy], *, late: bool) -> "Sequence[RouteLimits]":
        """What applies to `route`: one bound for each store. See `failsoft.exchange.Concern`."""
        limits = [p for p in policies if isinstance(p, Limit)]
        lines: list[tuple[str, Line]] = []
        if not late and not any(isinstance(p, Exempt) for p in policies):
            lines += self._own_lines(self._everywhere, "app", "limits", route)
            for scope in route.scopes:
                quotas, identity = self._scopes[scope]
                lines += self._own_lines(quotas, f"scope:{scope.name}", f"scopes: {scope.name}", route, identity, scope)
            if not limits:
                lines += self._own_lines(
                    self._each_route, f"route:{escape(route.template or '')}", "route_limits", route
                )
        rules = [
            DeclaredLimit(self, limit, route)
            for limit in limits
            if limit.methods is None or route.method in limit.methods
        ]
        stores = dict.fromkeys([store for store, _ in lines] + [rule.store for rule in rules])
        known = lines + [(rule.store, line) for rule in rules for line in rule.lines or ()]
        self._check_served(known, several=len(stores) > 1)
        return [
            (ScreenedLimits if self.denied[store].life else RouteLimits)(
                self,
                route,
                [line for name, line in lines if name == store],
                [rule for rule in rules if rule.store == store],
                store=store,
                late=late,
                several=len(stores) > 1,
            )
            for store in stores
        ]

    def _check_served(self, lines: Sequence[tuple[str, Line]], *, several: bool) -> None:
        """Raises ConfigurationError where a line's store cannot serve it: asked at each request, it would fail each time."""
        for store, line in lines:
            unsupported = self._unsupported.get(store)
            if unsupported is None:
                continue
            where = line.source if line.policy is None else f"{line.policy!r} on {line.source}"
            limit = "its penalty" if isinstance(line.rule, Penalty) else f"{line.rule}"
            if (cause := unsupported(line.rule, line.mode, stamps=line.adjustable)) is not None:
                raise ConfigurationError(f"{where}: {limit} cannot be counted in the store {store!r}: {cause}")
            if several and (cause := unsupported(line.rule, line.mode, stamps=True)) is not None:
                raise ConfigurationError(
                    f"{where}: {limit} cannot be counted in the store {store!r} beside limits in another store, since what one "
                    f"admits in vain is given back: {cause}; or count all limits of a route in one store"
                )

    def _own_lines(
        self,
        quotas: Sequence[Quota],
        key: str,
        source: str,
        route: Route,
        identity: Identity | None = None,
        scope: Scope | None = None,
    ) -> list[tuple[str, Line]]:
        settings = self.settings
        foreign = None if scope is not None else self.foreign(route, None, source)
        return [
            (
                DEFAULT if scope is None else scope.store,
                Line(
                    quota,
                    head=self.head(key),
                    identity=identity or self.identity,
                    name=None,
                    cost=1,
                    lease=settings.lease,
                    on_outage=(scope and scope.on_outage) or settings.on_outage,
                    on_missing=settings.on_missing,
                    policy=None,
                    source=source,
                    foreign=foreign,
                ),
            )
            for quota in quotas
        ]

    def foreign(self, route: Route, limit: Limit | None, source: str) -> str | None:
        """What another package calls the place of a limit, where its keys are used."""
        style = self.settings.key_style
        return None if style == "failsoft" else foreign_place(style, route, limit, source)

    def head(self, scope: str) -> str:
        """What every key of `scope` starts with."""
        return f"{self.settings.prefix}:{SCHEMA}:rl:{scope}"
