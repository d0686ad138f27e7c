"""What would apply to one request, and what would not and why. Nothing is charged, and no store is asked.

The request is made up by the framework's adapter (`Trial`), what applies to it is what a real one would meet (`Runtime.plan`), and
its keys are made by the code that makes them for real ones. The user's functions are asked one by one. One that raises leaves
open what depends on it, and is named; one that is called with a view's arguments is not asked at all, for there are none.
"""

import asyncio
from collections.abc import Awaitable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from inspect import isawaitable
from typing import Any

from failsoft.errors import ConfigurationError
from failsoft.exchange import DEFAULT, Exchange, Policy, Question, Route, RoutePlan, collect, declarations
from failsoft.exchange.policy import allow_outside_request, enter, leave
from failsoft.inspection.description import Description
from failsoft.inspection.limits import (
    LimitInfo,
    criticality_of,
    describe_declared,
    describe_line,
    name_of,
    where_declared,
)
from failsoft.inspection.trial import Trial, Tried, known
from failsoft.ratelimit import Exempt, Limit, Line, RouteLimits
from failsoft.ratelimit.declared import DeclaredLimit
from failsoft.ratelimit.identity import IP, Identity
from failsoft.runtime import Runtime
from failsoft.settings import Scope

__all__ = ["Explained", "Explanation", "explain"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Explained:
    """One limit, and the request.

    Attributes:
        limit: the limit.
        applies: whether it would be asked; None where that cannot be told.
        why: why not, or why that or the key cannot be told; "" for nothing to say.
        refuses: whether it would refuse the request for want of an identity.
        cost: the units that the request takes.
        counts: whom it counts; None where that cannot be told.
        key: where that lies in the store; None likewise.
        line: what the store is asked about; None likewise.
    """

    limit: LimitInfo
    applies: bool | None = True
    why: str = ""
    refuses: bool = False
    cost: int | None = None
    counts: str | None = None
    key: str | None = None
    line: Line | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Explanation:
    """What would become of a request, as far as limits go.

    Attributes:
        framework: the application's framework.
        trial: the request.
        route: the template of its route; None where there is none.
        view: the view that would serve it; None likewise.
        note: why no view serves it, as the framework says it.
        address: the client's address, found behind trusted proxies; None where it is unknown.
        enabled: whether the application's limits are turned on.
        criticality: the class of the request, or ``exempt``; None where nothing is shed.
        limits: those that apply, in the order in which they are decided, and then those that do not.
    """

    framework: str
    trial: Trial
    route: str | None
    view: str | None
    note: str
    address: str | None
    enabled: bool
    limits: Sequence[Explained]
    criticality: str | None = None


def explain(description: Description, trial: Trial, *, late: str | None = None) -> Explanation:
    """What would apply to the request `trial`.

    Args:
        description: of the application.
        trial: the request.
        late: what ``late(...)`` identities would be; they are asked only when a view is about to run.

    Raises:
        ConfigurationError: the application's adapter cannot make requests up, or the application cannot begin with this one.
    """
    if description.trial is None:
        raise ConfigurationError(f"the adapter of {description.framework} cannot make requests up for this")
    opened = description.trial(trial)
    try:
        tried = opened.__enter__()
    except Exception as error:  # the application's
        raise ConfigurationError(
            f"the application cannot begin with such a request: it raised {_said(error)}"
        ) from error
    try:
        with allow_outside_request():
            return _explanation(description, trial, tried, late)
    finally:
        with suppress(
            Exception
        ):  # the application's, whose functions at the end expect those at the beginning to have run
            opened.__exit__(None, None, None)


def _explanation(description: Description, trial: Trial, tried: Tried, late: str | None) -> Explanation:
    runtime, facts = description.runtime, tried.facts
    if trial.user is not None:
        facts = known(facts, trial.user)
    exchange = Exchange(runtime, facts, runtime.plan(facts))
    # The user's functions find their request, and are charged for nothing that they call.
    exchange.enforced = frozenset(policy for one in declarations() for policy in one.policies)
    token = enter(exchange)
    try:
        limits = _Inquiry(runtime, exchange, late, tried.sources).all() if runtime.enabled else []
    finally:
        leave(token)
    return Explanation(
        framework=description.framework,
        trial=trial,
        route=facts.route,
        view=None if facts.endpoint is None else _view_name(facts.endpoint),
        note=tried.note,
        address=runtime.addresses.resolve(facts.peer(), facts.header_lines),
        enabled=runtime.enabled,
        limits=limits,
        criticality=criticality_of(runtime, facts.route, collect(facts.targets()), facts.path()),
    )


def _view_name(view: Any) -> str:
    while (inner := getattr(view, "func", None)) is not None:  # functools.partial
        view = inner
    return f"{getattr(view, '__module__', '?')}.{name_of(view)}"


class _Unknown(Exception):
    """What a limit depends on cannot be told."""


class _Inquiry:
    """One request, limit by limit."""

    def __init__(self, runtime: Runtime, exchange: Exchange, late: str | None, sources: Mapping[Policy, str]) -> None:
        self._runtime = runtime
        self._exchange = exchange
        self._late = late
        self._failed: dict[Question, str] = {}
        self._places = where_declared(sources)

    def all(self) -> list[Explained]:
        """Every limit that applies, or might on another request to the same view."""
        exchange, runtime = self._exchange, self._runtime
        policies = collect(exchange.facts.targets())
        late = [policy for policy in policies if policy.late]
        plans = [(exchange.plan, False)]
        plans += [
            (RoutePlan(runtime.concerns, exchange.plan.route, later, late=True), True)
            for later in (late, exchange.plan.messages)
            if later
        ]
        for plan, _ in plans:
            self._ask(plan.questions)
        found: list[Explained] = []
        for plan, is_late in plans:
            for bound in plan.bounds:
                if isinstance(bound, RouteLimits):
                    found += self._bound(bound, is_late)
        found = [*_joined(found), *self._absent(policies, found)]
        return sorted(found, key=lambda one: one.applies is False)

    def _ask(self, questions: Sequence[Question]) -> None:
        for question in dict.fromkeys(questions):
            if question in self._exchange.answers:
                continue
            if question.late:
                if self._late is None:
                    self._failed[question] = (
                        f"{name_of(question.function)} is asked with the view's arguments; say with --late what it returns"
                    )
                else:
                    self._exchange.answers[question] = self._late
                continue
            try:
                answer = question.function(self._exchange.facts.request)
                self._exchange.answers[question] = asyncio.run(_wait(answer)) if isawaitable(answer) else answer
            except Exception as error:  # the user's
                self._failed[question] = f"{name_of(question.function)} raised {_said(error)}"

    def _bound(self, bound: RouteLimits, late: bool) -> Iterator[Explained]:
        preflight = bound.unlimited(self._exchange)
        for line in bound.lines():
            if line.policy is None:
                yield self._line(bound, line, line.cost, late) if not preflight else self._no(bound, line, _PREFLIGHT)
        for rule in bound.rules():
            if preflight:
                yield from self._rule_not(bound, rule, late, _PREFLIGHT)
            else:
                yield from self._rule(bound, rule, late)

    def _rule(self, bound: RouteLimits, rule: DeclaredLimit, late: bool) -> Iterator[Explained]:
        failures = [self._failed[q] for q in rule.questions if q in self._failed and q is not rule.identity.question]
        if failures:
            yield from self._rule_not(bound, rule, late, failures[0], applies=None)
            return
        answers = self._exchange.answers
        try:
            candidates = rule.candidates(answers)
        except ConfigurationError as error:
            yield from self._rule_not(bound, rule, late, str(error), applies=None)
            return
        for line, cost in candidates:
            yield self._line(bound, line, cost, late)
        if not candidates:
            yield from self._rule_not(bound, rule, late, _why_not(rule.limit, answers))

    def _rule_not(
        self, bound: RouteLimits, rule: DeclaredLimit, late: bool, why: str, *, applies: bool | None = False
    ) -> Iterator[Explained]:
        if rule.lines is None:
            limit = describe_declared(
                self._runtime.settings, rule.limit, store=rule.store, late=late, places=self._places
            )
            yield Explained(limit=limit, applies=applies, why=why)
        for line in rule.lines or ():
            yield Explained(limit=self._info(bound, line, late), applies=applies, why=why)

    def _line(self, bound: RouteLimits, line: Line, cost: int, late: bool) -> Explained:
        """One line that applies, unless its identity says otherwise."""
        counts, why = None, ""
        try:
            part = self._identify(line.identity)
        except _Unknown as unknown:
            return Explained(limit=self._info(bound, line, late), why=str(unknown), cost=cost)
        if part is not None and not isinstance(part, str):  # known later in the request
            if line.policy is not None and not late:
                why = "decided late, when the framework knows who is asking; say with --user who that is"
                return Explained(limit=self._info(bound, line, True), why=why, cost=cost)
            part = None
        if isinstance(part, str):
            counts = part
        elif line.on_missing == "exempt":
            return self._no(bound, line, "the request lacks the identity that it counts", late=late)
        elif line.on_missing == "ip" and line.identity is not IP:
            why = "by address, since the request lacks the identity that it counts"
            found = IP.of(self._exchange)
            counts = found if isinstance(found, str) else None
        if counts is None:
            refusal = "the request lacks the identity that it counts"
            if line.on_missing == "ip":
                refusal = "the client's address is unknown"
                if self._exchange.facts.peer() is None:
                    return Explained(
                        limit=self._info(bound, line, late), why=f"{refusal}: say it with --address", cost=cost
                    )
            return Explained(limit=self._info(bound, line, late), why=refusal, cost=cost, refuses=True)
        return Explained(
            limit=self._info(bound, line, late),
            why=why,
            cost=cost,
            counts=counts,
            key=bound.key(line, counts),
            line=line,
        )

    def _identify(self, identity: Identity) -> Any:
        question = identity.question
        if question is not None and question in self._failed:
            raise _Unknown(self._failed[question])
        try:
            return identity.of(self._exchange)
        except Exception as error:  # of the framework's, or the user's, who know the user
            raise _Unknown(f"asking who the user is raised {_said(error)}; say with --user who that is") from None

    def _no(self, bound: RouteLimits, line: Line, why: str, *, late: bool = False) -> Explained:
        return Explained(limit=self._info(bound, line, late), applies=False, why=why)

    def _info(self, bound: RouteLimits, line: Line, late: bool) -> LimitInfo:
        return describe_line(self._runtime.settings, line, store=bound.store, late=late, places=self._places)

    def _absent(self, policies: Sequence[Policy], found: Sequence[Explained]) -> Iterator[Explained]:
        """What the plan left out: settings that an exemption or another limit displaces, other scopes, other methods."""
        runtime, route = self._runtime, self._exchange.plan.route
        exempt = next((policy for policy in policies if isinstance(policy, Exempt)), None)
        present = {one.limit.source for one in found}
        everywhere = Route(route.method, route.template, runtime.settings.scopes, route.name)
        others = {f"scopes: {scope.name}": scope for scope in runtime.settings.scopes if scope not in route.scopes}
        for bound in runtime.limits.bind(everywhere, (), late=False):
            for line in bound.lines():
                if line.source in others:
                    yield self._no(bound, line, self._misfit(others[line.source]))
                elif exempt is not None:
                    place = self._places.get(exempt)
                    where = exempt.place if place is None else place.where or place.source
                    yield self._no(bound, line, f"the view is exempt ({where})")
                elif line.source not in present:  # route_limits
                    yield self._no(bound, line, "the view has limits of its own")
        for policy in policies:
            if isinstance(policy, Limit) and policy.methods is not None and route.method not in policy.methods:
                limit = describe_declared(
                    runtime.settings, policy, store=policy.store or DEFAULT, late=policy.late, places=self._places
                )
                yield Explained(limit=limit, applies=False, why=f"only for {', '.join(sorted(policy.methods))}")

    def _misfit(self, scope: Scope) -> str:
        """What of a scope the request does not fit."""
        facts = self._exchange.facts
        path, host, groups = facts.path(), facts.header("host") or "", facts.groups()
        wrong: list[str] = []
        if scope.prefix is not None and not replace(scope, host=None, group=None).has(path, host, groups):
            wrong.append(f"the path does not begin with {scope.prefix}")
        if scope.host is not None and not replace(scope, prefix=None, group=None).has(path, host, groups):
            wrong.append(f"the host is {repr(host) if host else 'not given'}, not {scope.host}")
        if scope.group is not None and scope.group not in groups:
            wrong.append(f"the view is not in {scope.group}")
        return " and ".join(wrong)


def _joined(found: Sequence[Explained]) -> Iterator[Explained]:
    """One bucket that is named twice is charged once."""
    first: dict[tuple[str, object], Explained] = {}
    for one in found:
        same = first.setdefault((one.limit.store, one.key or object()), one)
        yield one if same is one else replace(one, why=f"one bucket with that from {same.limit.source}, charged once")


_PREFLIGHT = "it is a CORS preflight, which the setting exempt_preflights lets through"


async def _wait(awaitable: Awaitable[Any]) -> Any:
    return await awaitable


def _said(error: Exception) -> str:
    return f"{type(error).__name__}: {error}" if str(error) else type(error).__name__


def _why_not(limit: Limit, answers: Mapping[Question, Any]) -> str:
    if limit.when is not None and not answers[limit.when]:
        return f"when: {name_of(limit.when.function)} said {answers[limit.when]!r}"
    if limit.quota_question is not None and answers[limit.quota_question] is None:
        return f"{name_of(limit.quota_question.function)} said that there is no limit"
    return "it costs nothing: " + (name_of(limit.cost) if callable(limit.cost) else "0") + " said 0"
