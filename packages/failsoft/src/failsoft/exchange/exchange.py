"""One request, from its facts to its settlement.

Theory of operation. Each *concern* (rate limits, sessions, tokens...) takes part in a request through the same four steps, and
none of them does I/O:

1. *bind*, once per route and method: what of this concern applies there. Nothing applies: it costs no request anything.
2. *join*, at the request's first need: a participant, with the operations that it wants from the store.
3. *receive*: the answers to its own operations, or the news that the store gives none; out comes None or a refusal.
4. *settle*, at the framework's last write point: operations that must still be written, and header fields.

A driver (`failsoft.drivers`) carries all participants' operations in one flight between 2 and 3, and in at most one more after 4.
User code that a decision depends on is a `Question`; drivers ask it before 2, with no lock held.

An exchange belongs to one request. Its methods are pure: a failure in them is a bug, not an outage.
"""

from collections.abc import Iterable, Sequence
from typing import Any, Protocol

from failsoft.address import AddressResolver
from failsoft.errors import Rejected, StoreUnavailable
from failsoft.exchange.facts import METHODS, Facts, Question
from failsoft.exchange.operations import Operation
from failsoft.exchange.policy import Policy

__all__ = ["Answers", "Bound", "Concern", "Engine", "Exchange", "Participant", "Route", "RoutePlan"]

Answers = Sequence[Any] | StoreUnavailable
"""What came of a participant's operations: an answer or an `OperationFailed` for each, or no answer at all."""


_NONE: frozenset[Policy] = frozenset()


class Route:
    """Where a request goes: its method (one of a bounded set) and the route's template, None where unknown."""

    __slots__ = ("method", "template")

    def __init__(self, method: str, template: str | None) -> None:
        # Some servers hand on "get" as the client wrote it, and some frameworks serve it as GET: it must not slip by GET's limits.
        method = method.upper()
        self.method = method if method in METHODS else "OTHER"
        self.template = template


class Participant(Protocol):
    """One concern's part in one request."""

    @property
    def operations(self) -> Sequence[Operation]:
        """What it wants from the store."""
        ...

    def receive(self, answers: Answers) -> Rejected | None:
        """Take the answers to `operations`; a refusal ends the request."""
        ...

    def settle(self, status: int) -> Sequence[Operation]:
        """What must be written now that the response has `status`; the answers do not come back."""
        ...

    def headers(self) -> Iterable[tuple[str, str]]:
        """Header fields for the response."""
        ...


class Bound(Protocol):
    """What one concern does on one route."""

    @property
    def questions(self) -> Sequence[Question]:
        """What must be asked of the user's code before `join`."""
        ...

    def join(self, exchange: "Exchange") -> Participant | None:
        """Take part in a request, or not. All `questions` are answered in ``exchange.answers``."""
        ...


class Concern(Protocol):
    """A kind of policy: what applies where."""

    @property
    def name(self) -> str:
        """What its policies call it."""
        ...

    def bind(self, route: Route, policies: Sequence[Policy], *, late: bool) -> Bound | None:
        """What applies to `route`, or None.

        Args:
            route: the method and template.
            policies: those declared on the view for this concern; when `late`, only those not yet enforced.
            late: just before the view's body, so nothing from the settings applies.
        """
        ...


class Engine(Protocol):
    """What an exchange belongs to: one application's runtime."""

    @property
    def addresses(self) -> AddressResolver:
        """Who is behind the trusted proxies."""
        ...

    def enforce(self, exchange: "Exchange", policies: Sequence[Policy], args: Any, kwargs: Any) -> None:
        """Enforce `policies` now. Raises `Rejected`."""
        ...

    async def aenforce(self, exchange: "Exchange", policies: Sequence[Policy], args: Any, kwargs: Any) -> None:
        """The same, from a coroutine."""
        ...


class RoutePlan:
    """What all concerns do on one route, worked out once.

    Attributes:
        enforced: the policies that no longer need enforcing once this plan was carried out.
        needs_user: whether a decision depends on who `Facts.user` says is asking.
    """

    __slots__ = ("bounds", "enforced", "needs_user", "questions", "route")

    def __init__(self, concerns: Iterable[Concern], route: Route, policies: Sequence[Policy], *, late: bool) -> None:
        self.route = route
        now = [p for p in policies if late or not p.late]
        bounds = (c.bind(route, [p for p in now if p.concern == c.name], late=late) for c in concerns)
        self.bounds: tuple[Bound, ...] = tuple(b for b in bounds if b is not None)
        self.questions: tuple[Question, ...] = tuple(q for b in self.bounds for q in b.questions)
        self.enforced: frozenset[Policy] = frozenset(now)
        self.needs_user = any(getattr(b, "needs_user", False) for b in self.bounds)  # few concerns ask for it


class Exchange:
    """One request.

    Attributes:
        engine: the application it belongs to.
        facts: what the adapter knows about the request.
        answers: what the user's functions said, by question.
        memo: what concerns worked out and may share within the request (an identity, the client's address).
        enforced: the policies that need no more enforcing.
        deferred: while joining, policies that cannot be decided yet; they are left to the wrapper around the view.
        degraded: what was degraded and why, in the order it happened.
        rejection: the refusal, if there was one.
    """

    __slots__ = (
        "_before",
        "_participants",
        "answers",
        "deferred",
        "degraded",
        "enforced",
        "engine",
        "facts",
        "memo",
        "plan",
        "rejection",
    )

    def __init__(self, engine: Engine, facts: Facts, plan: RoutePlan) -> None:
        self.engine = engine
        self.facts = facts
        self.plan = plan
        self.answers: dict[Question, Any] = {}
        self.memo: dict[Any, Any] = {}
        self.enforced = self._before = _NONE
        self.deferred: set[Policy] = set()
        self.degraded: dict[str, str] = {}
        self.rejection: Rejected | None = None
        self._participants: list[Participant] = []

    def join(self, plan: RoutePlan) -> tuple[list[Participant], Sequence[Operation]]:
        """Who takes part under `plan`, and all that they want from the store, in the same order."""
        joined = [p for bound in plan.bounds if (p := bound.join(self)) is not None]
        self._before = self.enforced
        self.enforced = self.enforced | plan.enforced if self.enforced else plan.enforced
        if self.deferred:
            self.enforced -= self.deferred
            self.deferred.clear()  # what is decided later must stay decided
        self._participants += joined
        if len(joined) == 1:
            return joined, joined[0].operations
        return joined, [operation for participant in joined for operation in participant.operations]

    def receive(self, joined: Sequence[Participant], answers: Answers) -> Rejected | None:
        """Hand each participant its own answers. The first refusal is the request's."""
        rejection: Rejected | None = None
        start = 0
        for participant in joined:
            if isinstance(answers, StoreUnavailable) or len(joined) == 1:
                own: Answers = answers
            else:
                end = start + len(participant.operations)
                own, start = answers[start:end], end
            refused = participant.receive(own)
            rejection = rejection or refused
        if rejection is not None:
            self.rejection = rejection
            # A caller that catches the refusal of a helper and calls it again is to be refused again.
            self.enforced = self._before
        return rejection

    def degrade(self, part: str, reason: str) -> None:
        """Record that `part` was served in a lesser way, and why. The first reason stands."""
        self.degraded.setdefault(part, reason)

    def settle(self, status: int) -> list[Operation]:
        """What must still be written, now that the response's status is known."""
        operations: list[Operation] = []
        for participant in self._participants:
            operations += participant.settle(status)
        return operations

    def headers(self) -> list[tuple[str, str]]:
        """Header fields for the response, whatever it is."""
        fields: list[tuple[str, str]] = []
        for participant in self._participants:
            fields += participant.headers()
        return fields
