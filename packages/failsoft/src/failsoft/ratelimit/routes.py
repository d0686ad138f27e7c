"""What limits one route, in one store: who is counted by a request, and by whom that is decided.

On most routes nothing about the lines depends on the request but the identity: one `Batch` for all requests, and a request only adds
its identity to the keys. Elsewhere each request goes through them line by line.
"""

from collections.abc import Sequence
from typing import TYPE_CHECKING

from failsoft.errors import Rejected
from failsoft.exchange import Exchange, Participant, Question, Route
from failsoft.quota import Quota
from failsoft.ratelimit.admission import Admission, Unasked
from failsoft.ratelimit.decision import Decision, Denial, Grant, Refusal, others
from failsoft.ratelimit.declared import DeclaredLimit
from failsoft.ratelimit.foreign import foreign_key
from failsoft.ratelimit.identity import IP, Identity, digest
from failsoft.ratelimit.lines import Batch, Line, distinct, merged

if TYPE_CHECKING:
    from failsoft.ratelimit.concern import RateLimits

__all__ = ["RouteLimits", "ScreenedLimits"]


class RouteLimits:
    """What limits one route, in one store."""

    __slots__ = (
        "_among",
        "_asks_first",
        "_batch",
        "_exempts",
        "_groups",
        "_hashed",
        "_lines",
        "_rules",
        "_several",
        "concern",
        "denied",
        "late",
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
        concern: "RateLimits",
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
        self.late = late
        self._hashed = concern.settings.hash_keys
        # A CORS preflight (Fetch standard): sent by the browser, not by the page, and it must not be refused.
        self._exempts = route.method == "OPTIONS" and concern.settings.exempt_preflights
        self._several = several
        self._among = several or late  # other decisions
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
        # Whether an admission takes more than making it.
        self._asks_first = self._among or (self._batch is not None and self._batch.leases is not None)

    def lines(self) -> list[Line]:
        """Every line that is known without a request."""
        return self._lines + [line for rule in self._rules for line in rule.lines or ()]

    def rules(self) -> Sequence[DeclaredLimit]:
        """The limits declared on the view that apply to this method."""
        return self._rules

    def join(self, exchange: Exchange) -> Participant | None:
        """See `failsoft.exchange.Bound`."""
        if self._exempts and self.unlimited(exchange):
            return None
        batch = self._batch
        if batch is None:
            return self._join_each(exchange)
        keys: list[str] = []
        for identity, heads in self._groups:
            part = identity.of(exchange)
            if not isinstance(part, str):
                return self._join_each(exchange)
            subject = self._subject(part) if self._hashed else f"{{{part}}}"
            for head in heads:
                keys.append(head + subject)  # noqa: PERF401 - a comprehension for one or two heads is slower
        if self.denied.entries or self._asks_first:
            return self._decide(exchange, batch, keys)
        return Admission(self, exchange, batch, keys)

    def _decide(self, exchange: Exchange, batch: Batch, keys: list[str]) -> Participant:
        """By what this process knows, or else by the store."""
        earlier = others(exchange, self) if self._among else ()
        decision: Denial | Grant | Admission | None = None
        if self.denied.entries:
            for i, key in enumerate(keys):
                if key in self.denied and (decision := self._denial(batch, i, key, keys, earlier)) is not None:
                    break
        if decision is None and batch.leases is not None:
            rows = self.leases.take(keys, batch.costs, self.concern.clock.monotonic())
            if rows is not None:
                decision = Grant(self, batch, rows)
        if decision is None and self.late and self._overdue(exchange):
            decision = Unasked(self, exchange, batch, keys)
        if decision is None:
            decision = Admission(self, exchange, batch, keys)
        if self._among:
            decision.follow(earlier, exchange)
        return decision

    def _overdue(self, exchange: Exchange) -> bool:
        """Whether the request has waited for the store so long that it does not wait for these limits, too."""
        return exchange.waits is not None and exchange.waits.spent(self.store, self.concern.clock.monotonic())

    def _denial(
        self, batch: Batch, place: int, key: str, keys: Sequence[str] | None, earlier: Sequence[Decision]
    ) -> Denial | None:
        """The refusal that is remembered of `key`: all that was said with it, if all keys are the same; None for not known.

        `keys` are None where only the address is known.
        """
        # A shadow of a shared limit refuses nobody, and one that gives back may have more by now.
        if not batch.deniable[place]:
            return None
        now = self.concern.clock.monotonic()
        found = self.denied.find(key, batch.costs[place], now)
        if found is None:
            return None
        self.denied.count(key)
        # Of another route, or where others are counted than those that were told of it, only what refuses is true.
        same = found.owner is self and (
            all(line.identity is IP for line in found.batch.lines) if keys is None else keys == found.keys
        )
        denial = Denial(self, *found.told(now, line=None if same else batch.lines[place]))
        if not same:  # it is called what it would be beside the others
            denial.names = (self._names(batch.lines, earlier)[place],)
        return denial

    @staticmethod
    def _names(lines: Sequence[Line], earlier: Sequence[Decision]) -> Sequence[str]:
        """What `lines` are called in a request that has these decisions already."""
        return distinct([line.name for line in lines], [name for one in earlier for name in one.called])

    def key(self, line: Line, part: str) -> str:
        """Where `line` is counted for an identity."""
        if line.foreign is not None and isinstance(line.rule, Quota):
            return foreign_key(line.rule, line.foreign, part)
        return line.head + self._subject(part)

    def unlimited(self, exchange: Exchange) -> bool:
        """Whether this is a request that no limit applies to."""
        if not self._exempts:
            return False
        facts = exchange.facts
        return facts.header("origin") is not None and facts.header("access-control-request-method") is not None

    def _subject(self, part: str) -> str:
        """An identity as it stands at the end of a key."""
        if self._hashed:
            part = digest(part, self.concern.secret)
        return f"{{{part}}}"

    def _join_each(self, exchange: Exchange) -> Participant | None:
        """Line by line: something depends on the request, or an identity is missing."""
        lines: list[Line] = []
        keys: list[str] = []
        costs: list[int] = []
        for line, cost in self._candidates(exchange):
            part = line.identity.of(exchange)
            if not isinstance(part, str):
                if part is not None and line.policy is not None and not self.late:
                    exchange.defer(line.policy)
                    continue
                if line.on_missing == "exempt":
                    continue
                part = IP.of(exchange) if line.on_missing == "ip" else None
                if not isinstance(part, str):
                    return self._refuse(exchange, [*lines, line])
            lines.append(line)
            keys.append(self.key(line, part))
            costs.append(cost)
        if len(set(keys)) < len(keys):  # one bucket, named twice, must be charged once
            lines, keys, costs = merged(lines, keys, costs)
        return self._decide(exchange, Batch(lines, costs, stamped=self._several), keys) if lines else None

    def _refuse(self, exchange: Exchange, lines: Sequence[Line]) -> Refusal:
        """The request lacks what the last of `lines` counts by."""
        if lines[-1].by_address:
            self.concern.no_address.tell(exchange, self.concern.settings.forwarded_header)
        earlier = others(exchange, self) if self._among else ()
        refusal = Refusal(self, lines[-1], self._names(lines, earlier)[-1])
        if self._among:
            refusal.follow(earlier, exchange)
        return refusal

    def _candidates(self, exchange: Exchange) -> list[tuple[Line, int]]:
        """The lines that apply to this request, with what they cost."""
        candidates = [(line, line.cost) for line in self._lines]
        for rule in self._rules:
            candidates += rule.candidates(exchange.answers)
        return candidates


class ScreenedLimits(RouteLimits):
    """The same where refusals are remembered: a client who is known to be refused by address is refused first of all."""

    __slots__ = ("_certain",)

    def __init__(
        self,
        concern: "RateLimits",
        route: Route,
        lines: list[Line],
        rules: list[DeclaredLimit],
        *,
        store: str,
        late: bool,
        several: bool,
    ) -> None:
        super().__init__(concern, route, lines, rules, store=store, late=late, several=several)
        # By address, and whatever the user's functions would say. With the place of each in what is shown if it refuses.
        certain = lines + [line for rule in rules if rule.static for line in rule.lines or ()]
        batch = self._batch
        self._certain = [
            (line.alone(), 0) if batch is None else (batch, place)
            for place, line in enumerate(certain)
            if line.identity is IP
        ]

    def screen(self, exchange: Exchange) -> Rejected | None:
        """Refuse who is known to be refused by address, before any of the user's functions runs. See `failsoft.exchange.Screening`."""
        if not self.denied.entries or not self._certain or self.unlimited(exchange):
            return None
        part = IP.of(exchange)
        if not isinstance(part, str):
            return None
        subject = self._subject(part)
        for batch, place in self._certain:
            line = batch.lines[place]
            key = line.head + subject if line.foreign is None else self.key(line, part)
            if key not in self.denied:
                continue
            earlier = others(exchange, self) if self._among else ()
            if (denial := self._denial(batch, place, key, None, earlier)) is not None:
                if self._among:
                    denial.follow(earlier, exchange)
                exchange.attend(self.store, denial)
                return denial.receive(())
        return None
