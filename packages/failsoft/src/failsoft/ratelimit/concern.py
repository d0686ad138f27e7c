"""Rate limits as a concern: what applies where, whom it counts, and what comes of it.

*Lines* are single quotas on a route: those of the settings first, then the view's own, outermost first. All lines of a request are
one `Acquire`. On most routes nothing about the lines depends on the request but the identity; they are worked out
once, and a request only adds its identity to the keys.
"""

from collections.abc import Callable, Iterable, Sequence
from typing import Any

from failsoft.clock import Clock
from failsoft.errors import ConfigurationError, OperationFailed, RateLimited, Rejected, StoreUnavailable, Unavailable
from failsoft.events import LimitDecided, LimitState, Listeners
from failsoft.exchange import Answers, Bound, Exchange, Operation, Participant, Policy, Question, Route
from failsoft.problem import Problem
from failsoft.ratelimit.acquire import Acquire, quota_arguments, step_of
from failsoft.ratelimit.declare import CONCERN, Exempt, Limit, OnMissing, OnOutage
from failsoft.ratelimit.fields import legacy_fields, policy_member, rate_limit_field, rate_limit_format
from failsoft.ratelimit.identity import IP, Identity, compile_identity, digest, escape
from failsoft.ratelimit.local import LocalLimits
from failsoft.ratelimit.quota import Quota, parse_quotas
from failsoft.settings import Settings

__all__ = ["SCHEMA", "Admission", "Line", "RateLimits", "RouteLimits"]

SCHEMA = 1
"""Version of the keys and of what lies under them. Raised when either changes, so that old and new processes do not meet."""

_STRICTNESS: tuple[OnOutage, ...] = ("open", "local", "closed")

_QUOTA_EXCEEDED = "https://iana.org/assignments/http-problem-types#quota-exceeded"
_REDUCED_CAPACITY = "https://iana.org/assignments/http-problem-types#temporary-reduced-capacity"


class Line:
    """One quota on one route.

    Attributes:
        head: the key, but for the identity at its end.
        source: where it was declared, for people: ``limits``, ``route_limits`` or the view's name.
    """

    __slots__ = ("cost", "head", "identity", "name", "on_missing", "on_outage", "policy", "quota", "source")

    def __init__(
        self,
        quota: Quota,
        *,
        head: str,
        identity: Identity,
        name: str | None,
        cost: int,
        on_outage: OnOutage,
        on_missing: OnMissing,
        policy: Limit | None,
        source: str,
    ) -> None:
        self.quota = quota
        self.head = f"{head}:{quota.key}:"
        self.identity = identity
        self.name = name or quota.name
        self.cost = cost
        self.on_outage: OnOutage = on_outage
        self.on_missing: OnMissing = on_missing
        self.policy = policy
        self.source = source


class _Batch:
    """Lines that are decided together, and all that can be said of them without a request."""

    __slots__ = (
        "amounts",
        "arguments",
        "costs",
        "form",
        "lines",
        "names",
        "outages",
        "policy_field",
        "quotas",
        "steps",
    )

    def __init__(self, lines: Sequence[Line], costs: Sequence[int]) -> None:
        self.lines = lines
        self.costs = costs
        self.quotas = tuple(line.quota for line in lines)
        self.names = _distinct([line.name for line in lines])
        self.amounts = tuple(quota.capacity for quota in self.quotas)
        self.form = rate_limit_format(self.names)
        self.policy_field = ", ".join(
            policy_member(name, *quota.advertised) for name, quota in zip(self.names, self.quotas, strict=True)
        )
        self.arguments = tuple(
            argument
            for quota, cost in zip(self.quotas, costs, strict=True)
            for argument in quota_arguments(quota, cost)
        )
        self.steps = tuple(step_of(quota) for quota in self.quotas)
        self.outages = frozenset(line.on_outage for line in lines)


def _distinct(names: Sequence[str]) -> tuple[str, ...]:
    """`names`, with a number added to those that were there before."""
    found: list[str] = []
    for name in names:
        candidate, number = name, 2
        while candidate in found:
            candidate, number = f"{name}-{number}", number + 1
        found.append(candidate)
    return tuple(found)


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
        self._batch: _Batch | None = None
        self._groups: list[tuple[Identity, list[str]]] = []
        lines = self.lines()
        heads = {line.head for line in lines}
        # Two lines with one head may come to one key, which must not be charged twice: `_join_each` looks.
        if all(rule.static for rule in rules) and len(heads) == len(lines):
            self._batch = _Batch(lines, [line.cost for line in lines])
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
                    return _Refusal(_unidentified(line))
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
        return Admission(self, exchange, _Batch(lines, costs), keys, self._late) if lines else None


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


def _unidentified(line: Line) -> Rejected:
    cause = (
        'its address is unknown; behind a unix socket, set trusted_proxies=["unix"]'
        if line.on_missing == "ip"
        else "it carries no such identity"
    )
    return Rejected(
        Problem(
            type="about:blank",
            title="Forbidden",
            status=403,
            detail=f"This request cannot be counted against the policy {line.name}: {cause}.",
            members={"violated-policies": [line.name]},
        )
    )


class _Refusal:
    """A part in the request that is a refusal from the start."""

    operations: Sequence[Operation] = ()

    def __init__(self, rejected: Rejected) -> None:
        self._rejected = rejected

    def receive(self, answers: Answers) -> Rejected | None:
        return self._rejected

    def settle(self, status: int) -> Sequence[Operation]:
        return ()

    def headers(self) -> Iterable[tuple[str, str]]:
        return ()


class Admission:
    """The limits' part in one request."""

    __slots__ = ("_batch", "_exchange", "_keys", "_late", "_limits", "_rows", "operations")

    def __init__(self, limits: RouteLimits, exchange: Exchange, batch: _Batch, keys: list[str], late: bool) -> None:
        self._limits = limits
        self._exchange = exchange
        self._batch = batch
        self._keys = keys
        self._late = late
        self._rows: Sequence[int] = ()
        self.operations: Sequence[Operation] = (Acquire(batch.quotas, keys, batch.costs, batch.arguments, batch.steps),)

    def receive(self, answers: Answers) -> Rejected | None:
        """Admit, or refuse; without an answer, each limit does what its `on_outage` says."""
        concern = self._limits.concern
        rows = None if isinstance(answers, StoreUnavailable) else answers[0]
        reason: str | None = None
        if rows is None or isinstance(rows, OperationFailed):
            reason = answers.reason if isinstance(answers, StoreUnavailable) else "failed"
            self._exchange.degrade("limits", reason)
            rejected = self._without_store()
        else:
            self._rows = rows
            rejected = self._verdict(self._batch)
            if concern.remember:
                local = concern.local
                # A refusal writes nothing, so a store that is full or read-only can still give one: it proves nothing.
                if local.active and rejected is None:
                    local.recovered()
                if "local" in self._batch.outages:
                    local.remember(self._keys, rows, concern.clock.time())
        if concern.listeners:
            self._publish(reason, admitted=rejected is None)
        return rejected

    def _verdict(self, batch: _Batch) -> Rejected | None:
        rows = self._rows
        if 0 not in rows[::3]:
            return None
        violated = [i for i in range(len(batch.names)) if not rows[i * 3]]
        names = [batch.names[i] for i in violated]
        wait = max(1, -(-max(rows[i * 3 + 2] for i in violated) // 1000))
        concern = self._limits.concern
        wait += int(concern.random() * concern.settings.retry_after_jitter * wait)
        return RateLimited(
            Problem(
                type=_QUOTA_EXCEEDED,
                title="Request cannot be satisfied as assigned quota has been exceeded",
                status=429,
                detail=f"Too many requests for {', '.join(names)}. Retry in {wait} s.",
                members={"violated-policies": names},
            ),
            retry_after=wait,
        )

    def _without_store(self) -> Rejected | None:
        batch, concern = self._batch, self._limits.concern
        if "closed" in batch.outages:
            names = [name for name, line in zip(batch.names, batch.lines, strict=True) if line.on_outage == "closed"]
            # The store's probes run about twice a second, so a short wait is an honest one.
            wait = 1 + int(concern.random() * 2)
            return Unavailable(
                Problem(
                    type=_REDUCED_CAPACITY,
                    title="Request cannot be satisfied due to temporary server capacity constraints",
                    status=503,
                    detail=f"The policy {', '.join(names)} cannot be checked at the moment. Retry in {wait} s.",
                    members={"violated-policies": names},
                ),
                retry_after=wait,
            )
        local = [i for i, line in enumerate(batch.lines) if line.on_outage == "local"]
        if not local:
            return None
        lines = [batch.lines[i] for i in local]
        self._batch = _Batch(lines, [batch.costs[i] for i in local])
        self._keys = [self._keys[i] for i in local]
        self._rows = concern.local.decide(self._batch.quotas, self._keys, self._batch.costs, concern.clock.time())
        return self._verdict(self._batch)

    def _publish(self, reason: str | None, *, admitted: bool) -> None:
        rows = self._rows
        states = [
            LimitState(name, bool(rows[i * 3]), rows[i * 3 + 1], rows[i * 3 + 2] / 1000)
            for i, name in enumerate(self._batch.names if rows else ())
        ]
        route = self._limits.route
        self._limits.concern.listeners.publish(
            LimitDecided(admitted, states, route.method, route.template, reason, self._late)
        )

    def settle(self, status: int) -> Sequence[Operation]:
        """Nothing: what a request costs is known when it is admitted."""
        return ()

    def headers(self) -> Iterable[tuple[str, str]]:
        """The RateLimit fields; none where nothing was counted."""
        rows, batch, concern = self._rows, self._batch, self._limits.concern
        if not rows:
            return ()
        fields: list[tuple[str, str]] = []
        if concern.draft:
            fields.append(("RateLimit-Policy", batch.policy_field))
            fields.append(("RateLimit", rate_limit_field(batch.form, rows)))
        if concern.legacy:
            fields += legacy_fields(batch.amounts, rows, concern.clock.time())
        return fields
