"""Rate limits as a concern: what applies where, and whom it counts.

*Lines* are single quotas on a route: those of the settings first (everywhere, then the scopes', then each route's), then the view's own,
outermost first. All lines of a request that count in one store are one `Acquire`. On most routes nothing about the lines depends
on the request but the identity; they are worked out once, and a request only adds its identity to the keys.

The identity stands in braces: on a Redis Cluster all limits of one subject then lie in one slot, and are decided as one.
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

from failsoft.clock import Clock
from failsoft.errors import ConfigurationError, Rejected
from failsoft.events import Listeners
from failsoft.exchange import DEFAULT, Exchange, Participant, Policy, Question, Route
from failsoft.ratelimit.acquire import PEEK, SOFT, Rule
from failsoft.ratelimit.admission import Admission, Denial, Grant, Refusal
from failsoft.ratelimit.declare import CONCERN, Exempt, Limit, OnOutage
from failsoft.ratelimit.denied import DenyCache
from failsoft.ratelimit.foreign import foreign_key, foreign_place
from failsoft.ratelimit.identity import IP, Identity, compile_identity, digest, escape
from failsoft.ratelimit.leases import Leases
from failsoft.ratelimit.lines import Batch, Line
from failsoft.ratelimit.local import LocalLimits
from failsoft.ratelimit.quota import Quota, parse_quotas
from failsoft.settings import Scope, Settings

__all__ = ["SCHEMA", "DeclaredLimit", "RateLimits", "RouteLimits", "ScreenedLimits"]

SCHEMA = 1
"""Version of the keys and of what lies under them. Raised when either changes, so that old and new processes do not meet."""

_STRICTNESS: tuple[OnOutage, ...] = ("open", "local", "closed")


class RateLimits:
    """The concern.

    Args:
        settings: validated settings.
        clock: injectable time.
        random: gives floats in [0, 1), for the jitter of Retry-After.
        listeners: hear of each decision.
        remote: for each store's name whether it can be away, so that what it says is worth remembering.
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
    ) -> None:
        self.settings = settings
        self.clock = clock
        self.random = random
        self.listeners = listeners
        self.remote = remote
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
        self.identity = self._settings_identity("by", settings.by)
        self._everywhere = self._parse("limits", settings.limits)
        self._each_route = self._parse("route_limits", settings.route_limits)
        self._scopes = {
            scope: (
                self._parse(f"scopes: {scope.name}", scope.limits),
                self.identity if scope.by is None else self._settings_identity(f"scopes: {scope.name}: by", scope.by),
            )
            for scope in settings.scopes
        }
        for scope in settings.scopes:
            self._check_store(scope.store, f"scopes: {scope.name}")

    def _parse(self, key: str, given: Iterable[Any]) -> tuple[Quota, ...]:
        try:
            return parse_quotas(given, algorithm=self.settings.algorithm, aligned=self.settings.aligned)
        except ConfigurationError as error:
            raise ConfigurationError(f"{key}: {error}") from None

    def _settings_identity(self, key: str, by: Any) -> Identity:
        identity = compile_identity(by, secret=self.secret)
        if identity.question is not None and identity.question.late:
            raise ConfigurationError(
                f"{key}: late(...) belongs to a @limit; the settings' limits are decided before any view is known"
            )
        return identity

    def _check_store(self, store: str, where: str) -> None:
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


class DeclaredLimit:
    """One declared limit on one route.

    Attributes:
        identity: whom it counts.
        limit: what was declared.
        lines: None where a function of the request says how much.
        questions: what it asks of the user's code.
        store: the name of its store.
    """

    __slots__ = ("_concern", "_foreign", "_head", "identity", "limit", "lines", "questions", "store")

    def __init__(self, concern: RateLimits, limit: Limit, route: Route) -> None:
        self.limit = limit
        self.store = limit.store or DEFAULT
        self._concern = concern
        concern._check_store(self.store, f"{limit!r} on {limit.place}")
        # The settings' own identity is shared, so that its function is asked once in a request.
        self.identity = concern.identity if limit.by is None else compile_identity(limit.by, secret=concern.secret)
        number = f"~{limit.position}" if limit.position > 0 else ""
        own = f"view:{escape(route.template or '')}:{escape(limit.place)}{number}"
        scope = f"shared:{limit.shared}" if limit.shared else own
        if limit.per_method:
            scope += ":" + ("GET" if route.method == "HEAD" else route.method)
        self._head = concern.head(scope)
        self._foreign = concern.foreign(route, limit, limit.place)
        asked = (limit.when, limit.quota_question, limit.cost_question, self.identity.question)
        self.questions: list[Question] = [q for q in asked if q is not None]
        self.lines = None if limit.quota_question is not None else self.lines_of(limit.quota)

    @property
    def static(self) -> bool:
        """Whether nothing but the identity depends on the request."""
        limit = self.limit
        return limit.when is None and limit.quota_question is None and limit.cost_question is None

    def lines_of(self, quota: Any) -> list[Line]:
        """The lines that `quota` stands for on this route, and the penalty that guards them."""
        limit, settings = self.limit, self._concern.settings
        quotas = parse_quotas(
            quota,
            algorithm=limit.algorithm or settings.algorithm,
            aligned=settings.aligned if limit.aligned is None else limit.aligned,
        )
        rules: list[tuple[Rule, str | None, Any]] = [
            (one, limit.name if len(quotas) == 1 else f"{limit.name}-{one.name}", limit.cost) for one in quotas
        ]
        if limit.penalty is not None:
            rules.append((limit.penalty, f"{limit.name}-penalty", len(quotas)))
        leased = not (limit.adjustable or limit.shadow or limit.penalty)
        return [
            Line(
                rule,
                head=self._head,
                identity=self.identity,
                name=None if limit.name is None else name,
                cost=cost if isinstance(cost, int) else 1,
                lease=(settings.lease if limit.lease is None else limit.lease) if leased else 0,
                on_outage=limit.on_outage or settings.on_outage,
                on_missing=limit.on_missing or settings.on_missing,
                policy=limit,
                source=limit.place,
                foreign=self._foreign,
            )
            for rule, name, cost in rules
        ]

    def candidates(self, answers: Mapping[Question, Any]) -> list[tuple[Line, int]]:
        """The lines that apply to a request of which the user's functions said `answers`, with what they cost."""
        limit = self.limit
        if limit.when is not None and not answers[limit.when]:
            return []
        cost: Any = limit.cost if limit.cost_question is None else _checked_cost(answers[limit.cost_question], limit)
        found = self.lines
        if found is None:
            quota = answers[limit.quota_question]  # type: ignore[index]  # lines is None only where it is asked
            found = [] if quota is None else self.lines_of(quota)
        # What does not fit at all is refused all the same, but with numbers that every store can count with.
        return [
            (line, min(cost, line.rule.capacity + 1) if isinstance(line.rule, Quota) else line.cost)
            for line in found
            if cost
        ]


class RouteLimits:
    """What limits one route, in one store."""

    __slots__ = (
        "_batch",
        "_groups",
        "_late",
        "_lines",
        "_rules",
        "_several",
        "concern",
        "denied",
        "leases",
        "local",
        "needs_user",
        "questions",
        "remember",
        "route",
        "store",
    )

    def __init__(
        self,
        concern: RateLimits,
        route: Route,
        lines: list[Line],
        rules: list[DeclaredLimit],
        *,
        store: str,
        late: bool,
        several: bool,
    ) -> None:
        self.concern = concern
        self.route = route
        self.store = store
        self.denied = concern.denied[store]
        self.local = concern.local[store]
        self.leases = concern.leases[store]
        self.remember = concern.remote[store]
        self._lines = lines
        self._rules = rules
        self._late = late
        self._several = several
        identities = dict.fromkeys([line.identity for line in lines] + [rule.identity for rule in rules])
        asked = [identity.question for identity in identities] + [q for rule in rules for q in rule.questions]
        self.questions: tuple[Question, ...] = tuple(dict.fromkeys(q for q in asked if q is not None))
        self.needs_user = any(identity.needs_user for identity in identities)
        self._batch: Batch | None = None
        self._groups: list[tuple[Identity, list[str]]] = []
        lines = self.lines()
        heads = {line.head for line in lines}
        # Two lines with one head may come to one key, which must not be charged twice: `_join_each` looks.
        ours = all(line.foreign is None for line in lines)
        if ours and all(rule.static for rule in rules) and len(heads) == len(lines):
            self._batch = Batch(lines, [line.cost for line in lines], stamped=several)
            for line in lines:
                if not self._groups or self._groups[-1][0] is not line.identity:
                    self._groups.append((line.identity, []))
                self._groups[-1][1].append(line.head)

    def lines(self) -> list[Line]:
        """Every line that is known without a request."""
        return self._lines + [line for rule in self._rules for line in rule.lines or ()]

    def rules(self) -> Sequence[DeclaredLimit]:
        """The limits declared on the view that apply to this method."""
        return self._rules

    def join(self, exchange: Exchange) -> Participant | None:
        """See `failsoft.exchange.Bound`."""
        if self.unlimited(exchange):
            return None
        batch = self._batch
        if batch is None:
            return self._join_each(exchange)
        keys: list[str] = []
        for identity, heads in self._groups:
            part = identity.of(exchange)
            if not isinstance(part, str):
                return self._join_each(exchange)
            subject = self._subject(part)
            for head in heads:
                keys.append(head + subject)  # noqa: PERF401 - a comprehension for one or two heads is slower
        return self._decide(exchange, batch, keys)

    def _decide(self, exchange: Exchange, batch: Batch, keys: list[str]) -> Participant:
        """By what this process knows, or else by the store."""
        if self.denied:
            for i, key in enumerate(keys):
                if key in self.denied and (denial := self._denial(batch, i, key)) is not None:
                    return denial
        if batch.leases is not None:
            rows = self.leases.take(keys, batch.costs, self.concern.clock.monotonic())
            if rows is not None:
                return Grant(self, batch, rows, self._late)
        return Admission(self, exchange, batch, keys, self._late)

    def _denial(self, batch: Batch, place: int, key: str) -> Denial | None:
        # A shadow of a shared limit refuses nobody, and one that gives back may have more by now.
        if not batch.deniable[place]:
            return None
        now = self.concern.clock.monotonic()
        found = self.denied.find(key, batch.costs[place], now)
        if found is None:
            return None
        self.denied.count(key)
        shown = batch if batch is found.batch else batch.lines[place].alone()
        return Denial(self, shown, found.rows(batch, now), self._late)

    def key(self, line: Line, part: str) -> str:
        """Where `line` is counted for an identity."""
        if line.foreign is not None and isinstance(line.rule, Quota):
            return foreign_key(line.rule, line.foreign, part)
        return line.head + self._subject(part)

    def unlimited(self, exchange: Exchange) -> bool:
        """A CORS preflight (Fetch standard): sent by the browser, not by the page, and it must not be refused."""
        if self.route.method != "OPTIONS" or not self.concern.settings.exempt_preflights:
            return False
        facts = exchange.facts
        return facts.header("origin") is not None and facts.header("access-control-request-method") is not None

    def _subject(self, part: str) -> str:
        """An identity as it stands at the end of a key."""
        if self.concern.settings.hash_keys:
            part = digest(part, self.concern.secret)
        return "{" + part + "}"

    def _join_each(self, exchange: Exchange) -> Participant | None:
        """Line by line: something depends on the request, or an identity is missing."""
        lines: list[Line] = []
        keys: list[str] = []
        costs: list[int] = []
        for line, cost in self._candidates(exchange):
            part = line.identity.of(exchange)
            if not isinstance(part, str):
                if part is not None and line.policy is not None and not self._late:
                    exchange.deferred.add(line.policy)
                    continue
                if line.on_missing == "exempt":
                    continue
                part = IP.of(exchange) if line.on_missing == "ip" else None
                if not isinstance(part, str):
                    return Refusal(line)
            key = self.key(line, part)
            if key in keys:  # one bucket, named twice: the dearer and the stricter of the two holds
                same = keys.index(key)
                costs[same] = max(costs[same], cost)
                lines[same] = max(lines[same], line, key=_strictness)
            else:
                lines.append(line)
                keys.append(key)
                costs.append(cost)
        return self._decide(exchange, Batch(lines, costs, stamped=self._several), keys) if lines else None

    def _candidates(self, exchange: Exchange) -> list[tuple[Line, int]]:
        """The lines that apply to this request, with what they cost."""
        candidates = [(line, line.cost) for line in self._lines]
        for rule in self._rules:
            candidates += rule.candidates(exchange.answers)
        return candidates


class ScreenedLimits(RouteLimits):
    """The same where refusals are remembered: a client who is known to be refused by address is refused first of all."""

    __slots__ = ()

    def screen(self, exchange: Exchange) -> Rejected | None:
        """Refuse who is known to be refused by address, before any of the user's functions runs. See `failsoft.exchange.Screening`."""
        batch = self._batch
        if not self.denied or batch is None or self.unlimited(exchange):
            return None
        part = IP.of(exchange)
        if not isinstance(part, str):
            return None
        subject = self._subject(part)
        for i, line in enumerate(batch.lines):
            if line.identity is IP and (key := line.head + subject) in self.denied:
                denial = self._denial(batch, i, key)
                if denial is not None:
                    exchange.attend(self.store, denial)
                    return denial.receive(())
        return None


def _strictness(line: Line) -> tuple[bool, bool, bool, int]:
    """Of two lines for one bucket, the greater holds: one that refuses, that charges, that gives nothing back."""
    return not line.mode & SOFT, not line.mode & PEEK, not line.adjustable, _STRICTNESS.index(line.on_outage)


def _checked_cost(cost: Any, limit: Limit) -> int:
    if isinstance(cost, bool) or not isinstance(cost, int) or cost < 0:
        raise ConfigurationError(
            f"{limit!r} on {limit.place}: its cost function returned {cost!r}; it must return a whole number of at least 0"
        )
    return cost
