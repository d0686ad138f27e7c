"""What is said of a decision: the verdict, the events and the header fields; and the decisions that this process makes by itself.

A `Denial` repeats a refusal that this process remembers, and a `Grant` gives out what it has leased. A `Refusal` is for a request that
lacks what it is to be counted by. None of them makes a flight.

A request has several decisions where its limits lie in several stores, or where some are enforced late. Then no two limits of the
request have the same name, and the last decision says the header fields of all.
"""

from collections.abc import Iterable, Sequence
from math import ceil
from typing import TYPE_CHECKING

from failsoft.errors import RateLimited, Rejected
from failsoft.events import Decider, LimitDecided, LimitNear, LimitState
from failsoft.exchange import Answers, Exchange, Operation
from failsoft.problem import Problem
from failsoft.quota import Quota
from failsoft.ratelimit.fields import legacy_fields, policy_member, rate_limit_field, rate_limit_format
from failsoft.ratelimit.lines import Batch, Line, distinct
from failsoft.ratelimit.penalty import Penalty

if TYPE_CHECKING:
    from failsoft.ratelimit.routes import RouteLimits

__all__ = ["PROBLEMS", "Decision", "Denial", "Grant", "Refusal", "others"]

PROBLEMS = "https://iana.org/assignments/http-problem-types#"
"""Where the types of problems are that a registry knows."""

_EXCEEDED = (PROBLEMS + "quota-exceeded", "Request cannot be satisfied as assigned quota has been exceeded")
_ABNORMAL = (
    PROBLEMS + "abnormal-usage-detected",
    "Request not satisfied due to detection of abnormal request pattern",
)


_LAST = "ratelimit.last"
"""Where in an exchange's memo the last decision is, if there may be several."""


class Decision:
    """Rows, and what is said of them.

    Attributes:
        earlier: the decision before this one, if there are several.
        names: what its limits are called, where the batch need not know.
    """

    # What only one of several decisions needs has its usual value here.
    _decider: Decider = "store"
    _alone = True
    _spoken_for = False
    earlier: "Decision | None" = None
    names: Sequence[str] = ()

    def __init__(self, limits: "RouteLimits", batch: Batch, rows: Sequence[int]) -> None:
        self._limits = limits
        self._batch = batch
        self._rows = rows

    @property
    def called(self) -> Sequence[str]:
        """The names of its limits."""
        return self.names or self._batch.names

    def follow(self, earlier: "Sequence[Decision]", exchange: Exchange) -> None:
        """Be the last of several decisions, after those that `others` gave: the names of their limits are taken."""
        if not self.names:
            self.names = distinct([line.name for line in self._batch.lines], [n for one in earlier for n in one.called])
        if not exchange.settled:  # else it has no part in the header fields
            for decision in _decisions(exchange):
                decision._alone, decision._spoken_for = False, True
        for before, decision in zip((None, *earlier), (*earlier, self), strict=True):
            decision.earlier = before
        self._alone = not earlier
        exchange.memo[_LAST] = self

    def _verdict(self) -> Rejected | None:
        """A refusal for what does not fit, unless it is a shadow."""
        batch, rows = self._batch, self._rows
        violated = [i for i in (range(len(batch.lines)) if batch.hard is None else batch.hard) if not rows[i * 3]]
        if not violated:
            return None
        called = self.called
        names = [called[i] for i in violated]
        wait = max(1, -(-max(rows[i * 3 + 2] for i in violated) // 1000))
        concern = self._limits.concern
        if jitter := concern.settings.retry_after_jitter:
            # Whole seconds are all that the field can say: a tenth of a short wait would be none.
            wait += int(concern.random() * (1 + max(1, int(jitter * wait))))
        blocked = any(isinstance(batch.lines[i].rule, Penalty) for i in violated)
        kind, title = _ABNORMAL if blocked else _EXCEEDED
        return RateLimited(
            Problem(
                type=kind,
                title=title,
                status=429,
                detail=f"Too many requests for {', '.join(names)}. Retry in {wait} s.",
                members={"violated-policies": names},
            ),
            retry_after=wait,
        )

    def _publish(self, reason: str | None, *, admitted: bool) -> None:
        batch, rows = self._batch, self._rows
        states: list[LimitState] = []
        shadows: list[LimitState] = []
        for i, name in enumerate(self.called if rows else ()):
            state = LimitState(name, bool(rows[i * 3]), rows[i * 3 + 1], rows[i * 3 + 2] / 1000)
            (states if batch.hard is None or i in batch.hard else shadows).append(state)
        route, listeners = self._limits.route, self._limits.concern.listeners
        decider = "process" if reason is not None else self._decider
        listeners.publish(
            LimitDecided(admitted, states, route.method, route.template, reason, self._limits.late, decider, shadows)
        )
        if admitted and rows:
            self._publish_near()

    def _publish_near(self) -> None:
        """Tell of limits that this request brought near their end: once in a window, not with each request after it."""
        batch, rows, concern = self._batch, self._rows, self._limits.concern
        for i in range(len(batch.lines)) if batch.shown is None else batch.shown:
            step, remaining = batch.steps[i], rows[i * 3 + 1]
            near = step.capacity - ceil(step.capacity * concern.settings.near_limit)
            if remaining <= near < remaining + batch.costs[i]:
                route = self._limits.route
                concern.listeners.publish(
                    LimitNear(
                        self.called[i],
                        remaining,
                        step.capacity,
                        rows[i * 3 + 2] / 1000,
                        route.method,
                        route.template,
                    )
                )

    def settle(self, status: int) -> Sequence[Operation]:
        return ()

    def headers(self) -> Iterable[tuple[str, str]]:
        """The RateLimit fields; none where nothing was counted."""
        if not self._alone:
            return () if self._spoken_for else self._fields_of_all()
        rows, batch, concern = self._rows, self._batch, self._limits.concern
        # The batch's own fields would call them otherwise than the problem does.
        if self.names and tuple(self.names) != batch.names:
            return self._fields_of_all()
        if batch.shown is not None:
            rows = [number for i in batch.shown for number in rows[i * 3 : i * 3 + 3]]
        if not rows:
            return ()
        fields: Sequence[tuple[str, str]] = ()
        if concern.draft:
            fields = (batch.policy, ("RateLimit", rate_limit_field(batch.form, rows)))
        if concern.legacy:
            fields = (*fields, *legacy_fields(batch.amounts, rows, concern.clock.time()))
        return fields

    def _fields_of_all(self) -> Sequence[tuple[str, str]]:
        """The same for all decisions of the request together."""
        names: list[str] = []
        quotas: list[Quota] = []
        rows: list[int] = []
        for decision in _up_to(self):
            batch, called = decision._batch, decision.called
            for i in range(len(batch.lines)) if batch.shown is None else batch.shown:
                rule = batch.lines[i].rule
                if decision._rows and isinstance(rule, Quota):
                    names.append(called[i])
                    quotas.append(rule)
                    rows += decision._rows[i * 3 : i * 3 + 3]
        if not rows:
            return ()
        concern = self._limits.concern
        fields: list[tuple[str, str]] = []
        if concern.draft:
            members = [policy_member(name, *quota.advertised) for name, quota in zip(names, quotas, strict=True)]
            fields.append(("RateLimit-Policy", ", ".join(members)))
            fields.append(("RateLimit", rate_limit_field(rate_limit_format(names), rows)))
        if concern.legacy:
            fields += legacy_fields([quota.capacity for quota in quotas], rows, concern.clock.time())
        return fields


def others(exchange: Exchange, limits: "RouteLimits") -> list[Decision]:
    """The decisions that `exchange` has already, the first one first.

    Without one of `limits` itself: if it refused a function that was called, and the caller tries again, the new one takes its place.
    """
    return [decision for decision in _decisions(exchange) if decision._limits is not limits]


def _decisions(exchange: Exchange) -> list[Decision]:
    last: Decision | None = exchange.memo.get(_LAST)
    if last is None:
        last = next((one for one in reversed(exchange.participants()) if isinstance(one, Decision)), None)
    return [] if last is None else _up_to(last)


def _up_to(last: Decision) -> list[Decision]:
    found = [last]
    while (before := found[-1].earlier) is not None:
        found.append(before)
    return found[::-1]


class Refusal(Decision):
    """The part of a request that lacks the identity that `line` counts: a refusal from the start."""

    operations: Sequence[Operation] = ()

    def __init__(self, limits: "RouteLimits", line: Line, name: str) -> None:
        super().__init__(limits, line.alone(), ())
        self.names = (name,)

    def receive(self, answers: Answers) -> Rejected | None:
        """Refuse."""
        line, name = self._batch.lines[0], self.names[0]
        cause = "its address is not known" if line.by_address else "it carries no such identity"
        return Rejected(
            Problem(
                type="about:blank",
                title="Forbidden",
                status=403,
                detail=f"This request cannot be counted against the policy {name}: {cause}.",
                members={"violated-policies": [name]},
            )
        )


class Denial(Decision):
    """A refusal that this process remembers."""

    operations: Sequence[Operation] = ()
    _decider: Decider = "denied"

    def receive(self, answers: Answers) -> Rejected | None:
        """Refuse."""
        rejected = self._verdict()
        if self._limits.concern.listeners:
            self._publish(None, admitted=False)
        return rejected


class Grant(Decision):
    """An admission out of this process's leases."""

    operations: Sequence[Operation] = ()
    _decider: Decider = "lease"

    def receive(self, answers: Answers) -> Rejected | None:
        """Admit."""
        if self._limits.concern.listeners:
            self._publish(None, admitted=True)
        return None
