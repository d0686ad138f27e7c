"""The limits' part in a request that asks the store: admitted, or refused; and without the store if it must be.

A store that gives no answer leaves each limit to what its `on_outage` says. What was charged may be corrected: by what the view
says, by the response's status, or because limits in another store refused the request.
"""

import logging
from collections.abc import Iterable, Mapping, Sequence
from types import MappingProxyType
from typing import TYPE_CHECKING

from failsoft.durations import seconds
from failsoft.errors import RateLimited, Rejected, StoreUnavailable, Unavailable
from failsoft.exchange import Answers, Exchange, Operation
from failsoft.problem import Problem
from failsoft.quota import Quota
from failsoft.ratelimit.acquire import Acquire, AcquireAgain, step_of
from failsoft.ratelimit.adjust import Adjust
from failsoft.ratelimit.decision import PROBLEMS, Decision
from failsoft.ratelimit.lines import Batch
from failsoft.ratelimit.penalty import Breaches, Penalty

if TYPE_CHECKING:
    from failsoft.ratelimit.routes import RouteLimits

__all__ = ["RESERVED", "Admission", "Unasked"]

_log = logging.getLogger("failsoft.ratelimit")

_REDUCED = (
    PROBLEMS + "temporary-reduced-capacity",
    "Request cannot be satisfied due to temporary server capacity constraints",
)

RESERVED = "ratelimit.reserved"
"""Where in an exchange's memo the admissions are that can be adjusted."""


class Admission(Decision):
    """The limits' part in a request that asks the store."""

    # What only corrections and leases need has its usual value here: most requests have neither.
    _asked = 0.0
    _extra: Sequence[int] | None = None
    _final: Mapping[int, int] = MappingProxyType({})
    _here = False
    _refused = False
    _stamps: Sequence[int] = ()
    _taken: Mapping[int, int] = MappingProxyType({})

    def __init__(self, limits: "RouteLimits", exchange: Exchange, batch: Batch, keys: list[str]) -> None:
        # What `Decision` does, done here: calling it takes a third of the whole.
        self._limits = limits
        self._batch = batch
        self._rows = ()
        self._exchange = exchange
        self._keys = keys
        model = batch.model
        self.operations: Sequence[Operation] = (batch.acquire(keys) if model is None else AcquireAgain(model, keys),)
        if batch.leases is not None:
            self._asked = limits.concern.clock.monotonic()
            self._extra = limits.leases.want(keys, batch.costs, batch.leases, self._asked)
            if self._extra is not None:
                more = Acquire([line.rule for line in batch.lines], keys, self._extra)
                self.operations = (*self.operations, more)
        if batch.penalized and limits.denied.entries:
            self.operations = (*self.operations, *self._breaches())

    def _breaches(self) -> list[Operation]:
        """Breaches that were decided here since the last flight, for the penalties that count them."""
        found: list[Operation] = []
        now = self._limits.concern.clock.monotonic()
        for i, key in enumerate(self._keys):
            penalty = self._batch.penalty_of(i)
            rule = None if penalty is None else self._batch.lines[penalty].rule
            if penalty is None or not isinstance(rule, Penalty):
                continue
            count = self._limits.denied.collect(key, now - seconds(rule.within))
            if count:
                found.append(Breaches(self._keys[penalty], rule, count, further=True))
        return found

    def receive(self, answers: Answers) -> Rejected | None:
        """Admit, or refuse; without an answer, each limit does what its `on_outage` says."""
        # By type first: `isinstance` takes ten times as long to say no.
        if type(answers) is not list and isinstance(answers, StoreUnavailable):
            return self._decide_here(answers.reason)
        rows = answers[0]
        if type(rows) is not list:  # the operation failed, or what came is no answer to it
            return self._decide_here("failed")
        limits, batch = self._limits, self._batch
        if batch.stamped:
            end = 3 * len(batch.lines)
            rows, self._stamps = list(rows[:end]), rows[end:]
        self._rows = rows
        rejected: Rejected | None = None
        for row in batch.rows:  # a slice and a search in it take three times as long
            if not rows[row]:
                rejected = self._verdict()
                break
        if batch.leases is not None:
            self._lease(answers)
        if rejected is not None:
            self._refused = True
            self._deny()
        elif batch.adjustable:
            self._reserve()
        if limits.remember:
            local = limits.local
            # A refusal writes nothing, so a store that is full or read-only can still give one: it proves nothing.
            if local.active and rejected is None:
                local.recovered()
            if batch.local:
                local.remember(self._keys, rows, limits.concern.clock.time())
        if limits.concern.listeners.listening:
            self._publish(None, admitted=rejected is None)
        return rejected

    def _decide_here(self, reason: str) -> Rejected | None:
        """Without the store's answer, for this reason."""
        self._exchange.degrade("limits", reason)
        rejected = self._without_store()
        self._refused = rejected is not None
        if self._limits.concern.listeners:
            self._publish(reason, admitted=rejected is None)
        return rejected

    def overruled(self, rejected: Rejected) -> None:
        """Where limits in another store refused the request, what was charged here is given back at the end."""
        if self._stamps and not self._refused and _is_of_limits(rejected):
            self._final = dict.fromkeys(range(len(self._batch.lines)), 0)

    def _lease(self, answers: Sequence[object]) -> None:
        """Keep what was fetched beside the request, or at least what was said of what remains."""
        leases, batch = self._limits.leases, self._batch
        fetched = answers[1] if self._extra is not None else None
        if self._extra is not None and isinstance(fetched, list) and 0 not in fetched[::3]:
            ends = [step.kind != "g" for step in batch.steps]
            leases.grant(self._keys, self._extra, fetched, ends, self._asked)
            # Clients hear what the store has left and what this process holds for them.
            self._rows = [*self._rows]
            for i, units in enumerate(self._extra):
                self._rows[i * 3 + 1] = fetched[i * 3 + 1] + units
        else:
            leases.note(self._keys, self._rows, self._asked, fetched=self._extra is not None)

    def _deny(self) -> None:
        """Remember the refusal, where it stands until there is more."""
        denied, batch, rows = self._limits.denied, self._batch, self._rows
        if not denied.life:
            return
        now = self._limits.concern.clock.monotonic()
        for i in range(len(self._keys)):
            if not rows[i * 3] and batch.deniable[i]:
                denied.remember(self._limits, self._keys, batch, i, rows, now)

    def _reserve(self) -> None:
        self._exchange.memo.setdefault(RESERVED, []).append(self)

    def _without_store(self) -> Rejected | None:
        batch, concern = self._batch, self._limits.concern
        hard = range(len(batch.lines)) if batch.hard is None else batch.hard
        called = self.called
        names = [called[i] for i in hard if batch.lines[i].on_outage == "closed"]
        if names:
            # The store's probes run about twice a second, so a short wait is an honest one.
            wait = 1 + int(concern.random() * 2)
            kind, title = _REDUCED
            return Unavailable(
                Problem(
                    type=kind,
                    title=title,
                    status=503,
                    detail=f"The policy {', '.join(names)} cannot be checked at the moment. Retry in {wait} s.",
                    members={"violated-policies": names},
                ),
                retry_after=wait,
            )
        local = [i for i, line in enumerate(batch.lines) if line.on_outage == "local"]
        if not local:
            return None
        self._batch = batch = Batch([batch.lines[i] for i in local], [batch.costs[i] for i in local])
        self.names = [called[i] for i in local]
        self._keys = [self._keys[i] for i in local]
        rules, modes = [line.rule for line in batch.lines], [line.mode for line in batch.lines]
        now = concern.clock.time()
        found = self._limits.local.decide(rules, self._keys, batch.costs, now, modes, stamps=batch.stamped)
        self._rows, self._stamps, self._here = found[: 3 * len(rules)], found[3 * len(rules) :], True
        rejected = self._verdict()
        if rejected is None and batch.adjustable:
            self._reserve()
        return rejected

    @property
    def store(self) -> str:
        """The name of the store that it asks."""
        return self._limits.store

    def places(self, name: str) -> list[int]:
        """The adjustable lines of the policy called `name`."""
        lines = self._batch.lines
        return [i for i in self._batch.adjustable if (policy := lines[i].policy) is not None and policy.name == name]

    def units(self, place: int) -> int:
        """What the line at `place` is to be charged in the end, as far as that is known."""
        return self._final.get(place, self._batch.costs[place])

    def amend(self, places: Iterable[int], units: int) -> None:
        """At the end, charge these lines with `units` instead of what was reserved."""
        self._final = {**self._final, **dict.fromkeys(places, units)}

    def settle(self, status: int) -> Sequence[Operation]:
        """Make good what was reserved: by what the view said, or else by the response's status."""
        batch = self._batch
        if not batch.stamped or not self._stamps or self._refused:
            return ()
        final = dict(self._final)
        for i in batch.adjustable:
            policy = batch.lines[i].policy
            if i not in final and policy is not None and policy.charges is not None:
                final[i] = batch.costs[i] if _charged(policy.charges, status) else 0
        return self._correct(final)

    def correct(self, places: Iterable[int], units: int) -> Sequence[Operation]:
        """The same after the settlement: what must be written at once."""
        return self._correct(dict.fromkeys(places, units))

    def _correct(self, final: dict[int, int]) -> Sequence[Operation]:
        """What brings the charges to `final`; the rows say so already."""
        batch, rows = self._batch, list(self._rows)
        deltas: dict[int, int] = {}
        for i, units in final.items():
            # What was only peeked at, or did not fit in the shadow, was not charged.
            taken = self._taken.get(i, batch.costs[i] if self._stamps[i] else 0)
            if units != taken and isinstance(batch.lines[i].rule, Quota):
                self._taken = {**self._taken, i: units}
                deltas[i] = units - taken
                rows[i * 3 + 1] = min(batch.steps[i].capacity, max(0, rows[i * 3 + 1] - deltas[i]))
        if not deltas:
            return ()
        self._rows = rows
        for i, units in deltas.items():
            if units < 0 and self._limits.denied.entries:  # others may have been refused for what is given back now
                self._limits.denied.forget(self._keys[i])
        adjust = Adjust(
            (),
            [self._keys[i] for i in deltas],
            [self._stamps[i] for i in deltas],
            list(deltas.values()),
            steps=[step_of(batch.lines[i].rule) for i in deltas],
        )
        if not self._here:
            return (adjust,)
        self._limits.local.adjust(adjust, self._limits.concern.clock.time())
        return ()


class Unasked(Admission):
    """The same where the request has waited for the store so long that these limits do without: as if there had been no answer in time."""

    def __init__(self, limits: "RouteLimits", exchange: Exchange, batch: Batch, keys: list[str]) -> None:
        Decision.__init__(self, limits, batch, ())
        self._exchange = exchange
        self._keys = keys
        self.operations = ()

    def receive(self, answers: Answers) -> Rejected | None:
        """Each limit does what its `on_outage` says."""
        return self._decide_here("timeout")


def _is_of_limits(rejected: Rejected) -> bool:
    """Whether limits refused: too many requests, no store to ask, or nothing to be counted by."""
    return isinstance(rejected, (RateLimited, Unavailable)) or "violated-policies" in rejected.problem.members


def _charged(charges: object, status: int) -> bool:
    try:
        return bool(charges(status))  # type: ignore[operator]  # a function, as Limit has checked
    except Exception:
        _log.exception("charge_on failed for the status %d; the response is charged", status)
        return True
