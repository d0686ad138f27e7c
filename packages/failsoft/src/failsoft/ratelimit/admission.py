"""What comes of a request's limits: admitted, or refused; with the store, or without.

*Lines* are single quotas on a route. The lines that apply to one request are a `Batch`: all that can be said of them together without
the request is worked out once, on most routes when the route is bound.
"""

from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING

from failsoft.errors import OperationFailed, RateLimited, Rejected, StoreUnavailable, Unavailable
from failsoft.events import LimitDecided, LimitState
from failsoft.exchange import Answers, Exchange, Operation
from failsoft.problem import Problem
from failsoft.ratelimit.acquire import Acquire, quota_arguments, step_of
from failsoft.ratelimit.declare import Limit, OnMissing, OnOutage
from failsoft.ratelimit.fields import legacy_fields, policy_member, rate_limit_field, rate_limit_format
from failsoft.ratelimit.identity import Identity
from failsoft.ratelimit.quota import Quota

if TYPE_CHECKING:
    from failsoft.ratelimit.concern import RouteLimits

__all__ = ["Admission", "Batch", "Line", "Refusal"]

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


class Batch:
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


class Refusal:
    """The part of a request that lacks the identity that `line` counts: a refusal from the start."""

    operations: Sequence[Operation] = ()

    def __init__(self, line: Line) -> None:
        self._rejected = _unidentified(line)

    def receive(self, answers: Answers) -> Rejected | None:
        return self._rejected

    def settle(self, status: int) -> Sequence[Operation]:
        return ()

    def headers(self) -> Iterable[tuple[str, str]]:
        return ()


class Admission:
    """The limits' part in one request."""

    __slots__ = ("_batch", "_exchange", "_keys", "_late", "_limits", "_rows", "operations")

    def __init__(self, limits: "RouteLimits", exchange: Exchange, batch: Batch, keys: list[str], late: bool) -> None:
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

    def _verdict(self, batch: Batch) -> Rejected | None:
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
        self._batch = Batch(lines, [batch.costs[i] for i in local])
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
