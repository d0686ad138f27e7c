"""A limit as it stands on one route: its lines, what it asks of the user's code, and what of it applies to a request."""

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from failsoft.errors import ConfigurationError
from failsoft.exchange import DEFAULT, Question, Route
from failsoft.quota import Quota, parse_quotas
from failsoft.ratelimit.acquire import Rule
from failsoft.ratelimit.declare import Limit
from failsoft.ratelimit.identity import compile_identity, escape
from failsoft.ratelimit.lines import Line

if TYPE_CHECKING:
    from failsoft.ratelimit.concern import RateLimits

__all__ = ["DeclaredLimit"]


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

    def __init__(self, concern: "RateLimits", limit: Limit, route: Route) -> None:
        self.limit = limit
        self.store = limit.store or DEFAULT
        self._concern = concern
        concern.check_store(self.store, f"{limit!r} on {limit.place}")
        # The settings' own identity is shared, so that its function is asked once in a request.
        self.identity = (
            concern.identity
            if limit.by is None
            else compile_identity(limit.by, secret=concern.secret, question=limit.identity_question)
        )
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
        aligned = settings.aligned if limit.aligned is None else limit.aligned
        try:
            quotas = parse_quotas(quota, algorithm=limit.algorithm or settings.algorithm, aligned=aligned)
        except ConfigurationError as error:
            raise ConfigurationError(f"{limit!r} on {limit.place}: {error}") from error
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


def _checked_cost(cost: Any, limit: Limit) -> int:
    if isinstance(cost, bool) or not isinstance(cost, int) or cost < 0:
        raise ConfigurationError(
            f"{limit!r} on {limit.place}: its cost function returned {cost!r}; it must return a whole number of at least 0"
        )
    return cost
