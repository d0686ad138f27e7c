"""Rate limits as a concern: what applies where, whom it counts, and what comes of it.

*Lines* are single quotas on a route: those of the settings first, then the view's own, outermost first. All lines of a request are
one `Acquire`. On most routes nothing about the lines depends on the request but the identity; they are worked out
once, and a request only adds its identity to the keys.
"""

from collections.abc import Callable, Iterable, Sequence
from typing import Any

from failsoft.clock import Clock
from failsoft.errors import ConfigurationError
from failsoft.events import Listeners
from failsoft.exchange import Bound, Exchange, Participant, Policy, Question, Route
from failsoft.ratelimit.admission import Admission, Batch, Line, Refusal
from failsoft.ratelimit.declare import CONCERN, Exempt, Limit, OnOutage
from failsoft.ratelimit.identity import IP, Identity, compile_identity, digest, escape
from failsoft.ratelimit.local import LocalLimits
from failsoft.ratelimit.quota import Quota, parse_quotas
from failsoft.settings import Settings

__all__ = ["SCHEMA", "RateLimits", "RouteLimits"]

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
        remote: whether the store can be away, so that what it says is worth remembering.
    """

    name = CONCERN

    def __init__(
        self, settings: Settings, *, clock: Clock, random: Callable[[], float], listeners: Listeners, remote: bool
    ) -> None:
        self.settings = settings
        self.clock = clock
        self.random = random
        self.listeners = listeners
        self.local = LocalLimits(share=settings.effective_local_share, bound=settings.memory_keys)
        self.remember = remote
        self.draft = settings.headers in ("draft", "both")
        self.legacy = settings.headers in ("legacy", "both")
        self.secret = settings.secret.encode() if settings.secret else b""
        self.identity = compile_identity(settings.by, secret=self.secret)
        if self.identity.question is not None and self.identity.question.late:
            raise ConfigurationError(
                "by: late(...) belongs to a @limit; the settings' limits are decided before any view is known"
            )
        self._everywhere = self._parse("limits", settings.limits)
        self._each_route = self._parse("route_limits", settings.route_limits)

    def _parse(self, key: str, given: Iterable[Any]) -> tuple[Quota, ...]:
        try:
            return parse_quotas(given, algorithm=self.settings.algorithm, aligned=self.settings.aligned)
        except ConfigurationError as error:
            raise ConfigurationError(f"{key}: {error}") from None

    def bind(self, route: Route, policies: Sequence[Policy], *, late: bool) -> Bound | None:
        """What applies to `route`. See `failsoft.exchange.Concern`."""
        limits = [p for p in policies if isinstance(p, Limit)]
        lines: list[Line] = []
        if not late and not any(isinstance(p, Exempt) for p in policies):
            lines += self._own_lines(self._everywhere, "app", "limits")
            if not limits:
                lines += self._own_lines(self._each_route, f"route:{escape(route.template or '')}", "route_limits")
        rules = [
            _Rule(self, limit, route) for limit in limits if limit.methods is None or route.method in limit.methods
        ]
        if not lines and not rules:
            return None
        return RouteLimits(self, route, lines, rules, late=late)

    def _own_lines(self, quotas: Sequence[Quota], scope: str, source: str) -> list[Line]:
        settings = self.settings
        return [
            Line(
                quota,
                head=self.head(scope),
                identity=self.identity,
                name=None,
                cost=1,
                on_outage=settings.on_outage,
                on_missing=settings.on_missing,
                policy=None,
                source=source,
            )
            for quota in quotas
        ]

    def head(self, scope: str) -> str:
        """What every key of `scope` starts with."""
        return f"{self.settings.prefix}:{SCHEMA}:rl:{scope}"


class _Rule:
    """One declared limit on one route."""

    __slots__ = ("_concern", "_head", "identity", "limit", "lines", "questions")

    def __init__(self, concern: RateLimits, limit: Limit, route: Route) -> None:
        self.limit = limit
        self._concern = concern
        # The settings' own identity is shared, so that its function is asked once in a request.
        self.identity = concern.identity if limit.by is None else compile_identity(limit.by, secret=concern.secret)
        number = f"~{limit.position}" if limit.position > 0 else ""
        own = f"view:{escape(route.template or '')}:{escape(limit.place)}{number}"
        scope = f"shared:{limit.shared}" if limit.shared else own
        if limit.per_method:
            scope += ":" + ("GET" if route.method == "HEAD" else route.method)
        self._head = concern.head(scope)
        asked = (limit.when, limit.quota_question, limit.cost_question, self.identity.question)
        self.questions: list[Question] = [q for q in asked if q is not None]
        self.lines = None if limit.quota_question is not None else self.lines_of(limit.quota)

    @property
    def static(self) -> bool:
        """Whether nothing but the identity depends on the request."""
        limit = self.limit
        return limit.when is None and limit.quota_question is None and limit.cost_question is None

    def lines_of(self, quota: Any) -> list[Line]:
        """The lines that `quota` stands for on this route."""
        limit, settings = self.limit, self._concern.settings
        quotas = parse_quotas(
            quota,
            algorithm=limit.algorithm or settings.algorithm,
            aligned=settings.aligned if limit.aligned is None else limit.aligned,
        )
        return [
            Line(
                one,
                head=self._head,
                identity=self.identity,
                name=(limit.name if limit.name is None or len(quotas) == 1 else f"{limit.name}-{one.name}"),
                cost=limit.cost if isinstance(limit.cost, int) else 1,
                on_outage=limit.on_outage or settings.on_outage,
                on_missing=limit.on_missing or settings.on_missing,
                policy=limit,
                source=limit.place,
            )
            for one in quotas
        ]


class RouteLimits:
    """What limits one route."""

    __slots__ = ("_batch", "_groups", "_late", "_lines", "_rules", "concern", "needs_user", "questions", "route")

    def __init__(self, concern: RateLimits, route: Route, lines: list[Line], rules: list[_Rule], *, late: bool) -> None:
        self.concern = concern
        self.route = route
        self._lines = lines
        self._rules = rules
        self._late = late
        questions: list[Question] = [q for rule in rules for q in rule.questions]
        if lines and lines[0].identity.question is not None:
            questions.append(lines[0].identity.question)
        self.questions: tuple[Question, ...] = tuple(dict.fromkeys(questions))
        identities = [line.identity for line in lines[:1]] + [rule.identity for rule in rules]
        self.needs_user = any(identity.needs_user for identity in identities)
        self._batch: Batch | None = None
        self._groups: list[tuple[Identity, list[str]]] = []
        lines = self.lines()
        heads = {line.head for line in lines}
        # Two lines with one head may come to one key, which must not be charged twice: `_join_each` looks.
        if all(rule.static for rule in rules) and len(heads) == len(lines):
            self._batch = Batch(lines, [line.cost for line in lines])
            for line in lines:
                if not self._groups or self._groups[-1][0] is not line.identity:
                    self._groups.append((line.identity, []))
                self._groups[-1][1].append(line.head)

    def lines(self) -> list[Line]:
        """Every line that is known without a request."""
        return self._lines + [line for rule in self._rules for line in rule.lines or ()]

    def rules(self) -> list[Limit]:
        """The limits declared on the view that apply to this method."""
        return [rule.limit for rule in self._rules]

    def join(self, exchange: Exchange) -> Participant | None:
        """See `failsoft.exchange.Bound`."""
        concern = self.concern
        if self.route.method == "OPTIONS" and concern.settings.exempt_preflights and _is_preflight(exchange):
            return None
        batch = self._batch
        if batch is None:
            return self._join_each(exchange)
        keys: list[str] = []
        for identity, heads in self._groups:
            part = identity.of(exchange)
            if not isinstance(part, str):
                return self._join_each(exchange)
            if concern.settings.hash_keys:
                part = digest(part, concern.secret)
            for head in heads:
                keys.append(head + part)  # noqa: PERF401 - a comprehension for one or two heads is slower
        return Admission(self, exchange, batch, keys, self._late)

    def _join_each(self, exchange: Exchange) -> Participant | None:
        """Line by line: something depends on the request, or an identity is missing."""
        lines: list[Line] = []
        keys: list[str] = []
        costs: list[int] = []
        answers = exchange.answers
        candidates = [(line, line.cost) for line in self._lines]
        for rule in self._rules:
            limit = rule.limit
            if limit.when is not None and not answers[limit.when]:
                continue
            cost: Any = (
                limit.cost if limit.cost_question is None else _checked_cost(answers[limit.cost_question], limit)
            )
            found = rule.lines
            if found is None:
                quota = answers[limit.quota_question]  # type: ignore[index]  # lines is None only where it is asked
                found = [] if quota is None else rule.lines_of(quota)
            if cost:
                # What does not fit at all is refused all the same, but with numbers that every store can count with.
                candidates += [(line, min(cost, line.quota.capacity + 1)) for line in found]
        for line, cost in candidates:
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
            if self.concern.settings.hash_keys:
                part = digest(part, self.concern.secret)
            key = line.head + part
            if key in keys:  # one bucket, named twice: the dearer and the stricter of the two holds
                same = keys.index(key)
                costs[same] = max(costs[same], cost)
                if _STRICTNESS.index(line.on_outage) > _STRICTNESS.index(lines[same].on_outage):
                    lines[same] = line
            else:
                lines.append(line)
                keys.append(key)
                costs.append(cost)
        return Admission(self, exchange, Batch(lines, costs), keys, self._late) if lines else None


def _is_preflight(exchange: Exchange) -> bool:
    """A CORS preflight (Fetch standard): sent by the browser, not by the page, and it must not be refused."""
    facts = exchange.facts
    return facts.header("origin") is not None and facts.header("access-control-request-method") is not None


def _checked_cost(cost: Any, limit: Limit) -> int:
    if isinstance(cost, bool) or not isinstance(cost, int) or cost < 0:
        raise ConfigurationError(
            f"{limit!r} on {limit.place}: its cost function returned {cost!r}; it must return a whole number of at least 0"
        )
    return cost
