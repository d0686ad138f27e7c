"""What is said of a decision: the verdict, the events and the header fields; and the decisions that this process makes by itself.

A `Denial` repeats a refusal that this process remembers, and a `Grant` gives out what it has leased. A `Refusal` is for a request that
lacks what it is to be counted by. None of them makes a flight.
"""

from collections.abc import Iterable, Sequence
from math import ceil
from typing import TYPE_CHECKING

from failsoft.errors import RateLimited, Rejected
from failsoft.events import Decider, LimitDecided, LimitNear, LimitState
from failsoft.exchange import Answers, Operation
from failsoft.problem import Problem
from failsoft.ratelimit.fields import legacy_fields, rate_limit_field
from failsoft.ratelimit.lines import Batch, Line
from failsoft.ratelimit.penalty import Penalty

if TYPE_CHECKING:
    from failsoft.ratelimit.routes import RouteLimits

__all__ = ["PROBLEMS", "Decision", "Denial", "Grant", "Refusal"]

PROBLEMS = "https://iana.org/assignments/http-problem-types#"
"""Where the types of problems are that a registry knows."""

_EXCEEDED = (PROBLEMS + "quota-exceeded", "Request cannot be satisfied as assigned quota has been exceeded")
_ABNORMAL = (
    PROBLEMS + "abnormal-usage-detected",
    "Request not satisfied due to detection of abnormal request pattern",
)


class Decision:
    """Rows, and what is said of them."""

    _decider: Decider = "store"

    def __init__(self, limits: "RouteLimits", batch: Batch, rows: Sequence[int]) -> None:
        self._limits = limits
        self._batch = batch
        self._rows = rows

    def _verdict(self) -> Rejected | None:
        """A refusal for what does not fit, unless it is a shadow."""
        batch, rows = self._batch, self._rows
        violated = [i for i in (range(len(batch.names)) if batch.hard is None else batch.hard) if not rows[i * 3]]
        if not violated:
            return None
        names = [batch.names[i] for i in violated]
        wait = max(1, -(-max(rows[i * 3 + 2] for i in violated) // 1000))
        concern = self._limits.concern
        wait += int(concern.random() * concern.settings.retry_after_jitter * wait)
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
        for i, name in enumerate(batch.names if rows else ()):
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
                        batch.names[i], remaining, step.capacity, rows[i * 3 + 2] / 1000, route.method, route.template
                    )
                )

    def settle(self, status: int) -> Sequence[Operation]:
        return ()

    def headers(self) -> Iterable[tuple[str, str]]:
        """The RateLimit fields; none where nothing was counted."""
        rows, batch, concern = self._rows, self._batch, self._limits.concern
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


class Refusal:
    """The part of a request that lacks the identity that `line` counts: a refusal from the start."""

    operations: Sequence[Operation] = ()

    def __init__(self, line: Line) -> None:
        cause = (
            'its address is unknown; behind a unix socket, set trusted_proxies=["unix"]'
            if line.on_missing == "ip"
            else "it carries no such identity"
        )
        self._rejected = Rejected(
            Problem(
                type="about:blank",
                title="Forbidden",
                status=403,
                detail=f"This request cannot be counted against the policy {line.name}: {cause}.",
                members={"violated-policies": [line.name]},
            )
        )

    def receive(self, answers: Answers) -> Rejected | None:
        return self._rejected

    def settle(self, status: int) -> Sequence[Operation]:
        return ()

    def headers(self) -> Iterable[tuple[str, str]]:
        return ()


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
