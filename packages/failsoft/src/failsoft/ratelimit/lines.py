"""Lines: the single quotas and penalties of a route, and what can be said of several together without a request.

The lines that apply to one request and lie in one store are a `Batch`, on most routes worked out once, when the route is bound.
"""

from collections.abc import Collection, Iterable, Sequence
from typing import Final

from failsoft.quota import Quota
from failsoft.ratelimit.acquire import PEEK, SOFT, Acquire, Rule, quota_arguments, step_of
from failsoft.ratelimit.declare import Limit, OnMissing, OnOutage
from failsoft.ratelimit.fields import policy_member, rate_limit_format
from failsoft.ratelimit.identity import IP, Identity
from failsoft.ratelimit.penalty import Penalty

__all__ = ["Batch", "Line", "distinct", "merged"]

_LEASED: Final = frozenset({"fixed-window", "gcra"})

_STRICTNESS: tuple[OnOutage, ...] = ("open", "local", "closed")


class Line:
    """One quota on one route, or the penalty of those before it.

    Attributes:
        foreign: what another package calls the place that it counts for, where counters are kept under that package's keys.
        head: the key, but for the identity at its end.
        lease: units that a process may fetch at once, 0 for none.
        mode: a sum of `SOFT` and `PEEK`.
        source: where it was declared, for people: ``limits``, ``route_limits``, ``scopes`` or the view's name.
    """

    __slots__ = (
        "_alone",
        "cost",
        "foreign",
        "head",
        "identity",
        "lease",
        "mode",
        "name",
        "on_missing",
        "on_outage",
        "policy",
        "rule",
        "source",
    )

    def __init__(
        self,
        rule: Rule,
        *,
        head: str,
        identity: Identity,
        name: str | None,
        cost: int,
        lease: int,
        on_outage: OnOutage,
        on_missing: OnMissing,
        policy: Limit | None,
        source: str,
        foreign: str | None = None,
    ) -> None:
        self.rule = rule
        self.head = f"{head}:{rule.key}:"
        self.identity = identity
        self.name = name or (rule.name if isinstance(rule, Quota) else "penalty")
        self.cost = cost
        self.lease = lease if isinstance(rule, Quota) and rule.algorithm in _LEASED else 0
        self.on_outage: OnOutage = on_outage
        self.on_missing: OnMissing = on_missing
        self.policy = policy
        self.source = source
        self.foreign = foreign if isinstance(rule, Quota) and rule.algorithm != "gcra" else None
        self.mode = 0
        if policy is not None:
            self.mode = (SOFT if policy.shadow else 0) | (PEEK if policy.peek and isinstance(rule, Quota) else 0)
        self._alone: Batch | None = None

    @property
    def adjustable(self) -> bool:
        """Whether what was charged may be corrected later in the request."""
        return self.policy is not None and self.policy.adjustable and isinstance(self.rule, Quota)

    @property
    def by_address(self) -> bool:
        """Whether it is for want of an address that it cannot count a request."""
        return self.on_missing == "ip" or self.identity is IP

    @property
    def deniable(self) -> bool:
        """Whether a refusal stands until there is more: it is no shadow, and nothing gives units back."""
        return not self.mode & SOFT and not self.adjustable

    def alone(self) -> "Batch":
        """This line by itself, for answers that are about nothing else."""
        if self._alone is None:
            self._alone = Batch([self], [self.cost])
        return self._alone


class _Arguments(tuple[str, ...]):
    """What goes with the keys. A store keeps it here as it is on the wire: that is 18 of 65 thousand instructions of a flight."""

    packed: bytes | None = None


class Batch:
    """Lines that are decided together.

    Attributes:
        amounts: units that can pass at one moment, for the lines that are shown.
        deniable: for each line whether its refusals may be remembered.
        hard: the places of lines that can refuse; None for all.
        leases: for each line its lease, or None where some line has none.
        local: whether some line is decided here while the store is away.
        model: a decision about these lines, if others differ from it in their keys alone.
        penalized: whether there is a penalty among them.
        policy: the RateLimit-Policy field.
        rows: where each line's row begins in what a store says.
        shown: the places of lines that clients hear of; None for all.
        stamped: whether something may have to be taken back.
    """

    __slots__ = (
        "adjustable",
        "amounts",
        "arguments",
        "costs",
        "deniable",
        "form",
        "hard",
        "leases",
        "lines",
        "local",
        "model",
        "names",
        "penalized",
        "policy",
        "rows",
        "shown",
        "stamped",
        "steps",
    )

    def __init__(self, lines: Sequence[Line], costs: Sequence[int], *, stamped: bool = False) -> None:
        self.lines = lines
        self.costs = costs
        self.names = distinct([line.name for line in lines])
        everything = range(len(lines))
        hard = [i for i in everything if not lines[i].mode & SOFT]
        shown = [i for i in hard if isinstance(lines[i].rule, Quota)]
        self.hard = None if len(hard) == len(lines) else hard
        self.penalized = any(isinstance(line.rule, Penalty) for line in lines)
        self.shown = None if len(shown) == len(lines) else shown
        quotas = [(self.names[i], rule) for i in shown if isinstance(rule := lines[i].rule, Quota)]
        self.amounts = tuple(quota.capacity for _, quota in quotas)
        self.form = rate_limit_format([name for name, _ in quotas])
        self.policy = ("RateLimit-Policy", ", ".join(policy_member(name, *quota.advertised) for name, quota in quotas))
        self.arguments = _Arguments(
            argument
            for line, cost in zip(lines, costs, strict=True)
            for argument in quota_arguments(line.rule, cost, line.mode)
        )
        self.steps = tuple(step_of(line.rule, line.mode) for line in lines)
        self.rows = tuple(range(0, 3 * len(lines), 3))
        self.local = any(line.on_outage == "local" for line in lines)
        self.adjustable = tuple(i for i in everything if lines[i].adjustable)
        self.stamped = stamped or bool(self.adjustable)
        self.deniable = tuple(line.deniable for line in lines)
        leases = tuple(line.lease for line in lines)
        self.leases = leases if all(leases) and not self.stamped else None
        self.model: Acquire | None = None

    def acquire(self, keys: list[str]) -> Acquire:
        """The decision about these lines, for the subjects of `keys`; for others' then `AcquireAgain`, if there is a `model`."""
        found = Acquire((), keys, self.costs, self.arguments, self.steps, stamps=self.stamped)
        if len(found.keys) == len(self.lines):  # none has a second key, which is made from the first
            self.model = found
        return found

    def penalty_of(self, place: int) -> int | None:
        """The place of the penalty that guards the line at `place`, or None."""
        for i in range(place + 1, len(self.lines)):
            if isinstance(self.lines[i].rule, Penalty):
                return i if i - self.costs[i] <= place else None
        return None


def distinct(names: Iterable[str], taken: Collection[str] = ()) -> tuple[str, ...]:
    """`names`, with a number added to those that were there before, or that are `taken`."""
    found: list[str] = []
    for name in names:
        candidate, number = name, 2
        while candidate in found or candidate in taken:
            candidate, number = f"{name}-{number}", number + 1
        found.append(candidate)
    return tuple(found)


def merged(lines: Sequence[Line], keys: Sequence[str], costs: Sequence[int]) -> tuple[list[Line], list[str], list[int]]:
    """The same with each key once: of two lines for one bucket the dearer and the stricter holds.

    What a penalty guards stands directly before it afterwards, too. A bucket that two penalties would guard stays with the first.
    """
    best: dict[str, tuple[Line, int]] = {}
    guard: dict[str, str] = {}
    for i, (line, key, cost) in enumerate(zip(lines, keys, costs, strict=True)):
        if key in best:
            known, most = best[key]
            line, cost = max(known, line, key=_strictness), max(most, cost)
        best[key] = line, cost
        if isinstance(line.rule, Penalty):
            for guarded in keys[i - costs[i] : i]:
                guard.setdefault(guarded, key)
    order: list[str] = []
    counts: dict[str, int] = {}
    for key in best:
        penalty = key if isinstance(best[key][0].rule, Penalty) else guard.get(key)
        if penalty is None:
            order.append(key)
        elif penalty not in counts:
            group = [one for one in best if guard.get(one) == penalty]
            order += [*group, penalty]
            counts[penalty] = len(group)
    return [best[key][0] for key in order], order, [counts.get(key, best[key][1]) for key in order]


def _strictness(line: Line) -> tuple[bool, bool, bool, int]:
    """Of two lines for one bucket, the greater holds: one that refuses, that charges, that gives nothing back."""
    return not line.mode & SOFT, not line.mode & PEEK, not line.adjustable, _STRICTNESS.index(line.on_outage)
