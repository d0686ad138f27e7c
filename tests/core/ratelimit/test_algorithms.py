"""Every algorithm and mode, refunds, charges without a check, penalties: against models, in this process and on a real server."""

from typing import Any

import redis
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    precondition,
    rule,
    run_state_machine_as_test,
)

from failsoft.exchange import Operation, Table
from failsoft.ratelimit import Acquire, Quota
from failsoft.ratelimit.acquire import PEEK, SOFT
from failsoft.ratelimit.adjust import Adjust
from failsoft.ratelimit.manage import Peek, Reset
from failsoft.ratelimit.penalty import Breaches, Penalty
from tests.core.ratelimit.models import PenaltyModel, model_of
from tests.core.stores.lua import Timed
from tests.servers import Valkey

QUOTAS = (
    Quota(amount=3, window=60),
    Quota(amount=7, window=3600),
    Quota(amount=4, window=30, aligned=True),
    Quota(amount=5, window=10, algorithm="gcra"),
    Quota(amount=7, window=60, algorithm="gcra", burst=2),
    Quota(amount=2, window=1, algorithm="gcra", burst=6),
    Quota(amount=5, window=60, algorithm="sliding-window-counter"),
    Quota(amount=9, window=7, algorithm="sliding-window-counter"),
    Quota(amount=4, window=60, algorithm="moving-window"),
    Quota(amount=9, window=7, algorithm="moving-window"),
)
PENALTY = Penalty(after=3, within="90s", block="20s", growth=2.5, most="3m", forget="5m")
GUARD = len(QUOTAS)
PICKS = st.lists(st.sampled_from(range(len(QUOTAS))), min_size=1, max_size=4, unique=True)
WAITS = st.sampled_from(
    [1, 500, 999, 1000, 2000, 6999, 8571, 8572, 10_000, 20_000, 50_000, 59_999, 60_000, 120_001, 3_600_000]
)


def name(number: int) -> str:
    """The key of a quota, or of the penalty."""
    return f"{{{number}}}"


class Everything(RuleBasedStateMachine):
    """Any history gives in this process what the models give, and on a server exactly what it gives in this process."""

    server: Valkey | None = None

    @initialize()
    def begin(self) -> None:
        self.table = Table(1000)
        self.now = 1_700_000_000_000
        self.models = [model_of(quota) for quota in QUOTAS]
        self.penalty = PenaltyModel(PENALTY)
        # What was charged: which quota, how much, and how the model and the operation call the window.
        self.charges: list[tuple[int, int, Any, int]] = []
        self.timed = None
        if self.server is not None:
            client = redis.Redis.from_url(self.server.url)
            client.flushall()
            self.timed = Timed(client)

    def run(self, operation: Operation) -> Any:
        """The operation's answer, on which the table and the server agree to the millisecond."""
        answer = operation.apply(self.table, self.now / 1000)
        if self.timed is not None:
            assert answer == self.timed.run(operation, self.now / 1000)
        return answer

    @rule(
        picks=PICKS,
        modes=st.lists(st.sampled_from([0, 0, 0, SOFT, PEEK, SOFT | PEEK]), min_size=4, max_size=4),
        cost=st.integers(min_value=0, max_value=5),
        stamps=st.booleans(),
        guards=st.integers(min_value=0, max_value=4),
        watch=st.sampled_from([None, None, 0, PEEK, SOFT]),
    )
    def decide(
        self, picks: list[int], modes: list[int], cost: int, stamps: bool, guards: int, watch: int | None
    ) -> None:
        rules: list[Any] = [QUOTAS[i] for i in picks]
        keys, costs, modes = [name(i) for i in picks], [cost] * len(picks), modes[: len(picks)]
        if watch is not None:
            rules, keys, costs, modes = [*rules, PENALTY], [*keys, name(GUARD)], [*costs, guards], [*modes, watch]
        operation = Acquire(rules, keys, costs, modes=modes, stamps=stamps)
        answer = self.run(operation)
        assert (4 if stamps else 3) * len(keys) == len(answer)
        rows = answer[: 3 * len(keys)]

        fits = [self.models[i].room(self.now) >= cost for i in picks]
        blocked = watch is not None and self.penalty.blocked(self.now) > 0
        admitted = all(fit or mode & SOFT for fit, mode in zip(fits, modes, strict=False))
        admitted = admitted and (not blocked or bool(watch and watch & SOFT))
        if watch is not None and watch != PEEK and not admitted:
            guarded = list(zip(fits, modes, strict=False))[max(0, len(picks) - guards) :]
            if any(not fit and not mode & SOFT for fit, mode in guarded):
                self.penalty.breach(self.now)
        for place, (i, fit, mode) in enumerate(zip(picks, fits, modes, strict=False)):
            if fit and admitted and not mode & PEEK:
                window = self.models[i].charge(self.now, cost)
                if stamps:
                    self.charges.append((i, cost, window, answer[3 * len(keys) + place]))
            elif stamps:
                assert 0 == answer[3 * len(keys) + place]
        expected = [int(fit) for fit in fits]
        left = [max(0, self.models[i].room(self.now)) for i in picks]
        if watch is not None:
            expected.append(int(not self.penalty.blocked(self.now)))
            left.append(self.penalty.left(self.now))
            assert not self.penalty.blocked(self.now) or rows[-1] == self.penalty.blocked(self.now)
        assert expected == rows[0::3]
        assert left == rows[1::3]
        assert operation.admits(rows) == (admitted and all(a or b & SOFT for a, b in zip(expected, modes, strict=True)))

    @precondition(lambda self: self.charges)
    @rule(
        data=st.data(), kind=st.sampled_from(["refund", "refund", "more"]), units=st.integers(min_value=1, max_value=6)
    )
    def adjust(self, data: st.DataObject, kind: str, units: int) -> None:
        picked = data.draw(
            st.lists(st.sampled_from(self.charges), min_size=1, max_size=3, unique_by=lambda one: one[0])
        )
        deltas = []
        for i, cost, window, _ in picked:
            if kind == "refund":
                deltas.append(-min(units, cost))
                self.models[i].refund(self.now, window, min(units, cost))
            else:
                deltas.append(units)
                self.models[i].charge(self.now, units)
        self.charges = [one for one in self.charges if one not in picked]
        quotas, keys = [QUOTAS[i] for i, *_ in picked], [name(i) for i, *_ in picked]
        rows = self.run(Adjust(quotas, keys, [stamp for *_, stamp in picked], deltas))
        rooms = [self.models[i].room(self.now) for i, *_ in picked]
        assert [max(0, room) for room in rooms] == rows[1::3]
        assert [int(room >= 0) for room in rooms] == rows[0::3]

    @rule(count=st.integers(min_value=0, max_value=4))
    def note(self, count: int) -> None:
        row = self.run(Breaches(name(GUARD), PENALTY, count))
        if count:
            self.penalty.breach(self.now, count)
        assert [int(not self.penalty.blocked(self.now)), self.penalty.left(self.now)] == row[:2]

    @rule(picks=PICKS)
    def look(self, picks: list[int]) -> None:
        before = {} if self.timed is None else self.timed.values()
        rows = self.run(Peek([QUOTAS[i] for i in picks], [name(i) for i in picks]))
        assert [max(0, self.models[i].room(self.now)) for i in picks] == rows[1::3]
        after = {} if self.timed is None else self.timed.values()
        assert after == {key: before[key] for key in after}  # keys may have ended

    @rule(picks=PICKS)
    def forget(self, picks: list[int]) -> None:
        operation = Reset([name(i) for i in picks])
        for i in picks:
            self.models[i] = model_of(QUOTAS[i])
        self.charges = [one for one in self.charges if one[0] not in picks]
        operation.apply(self.table, self.now / 1000)
        if self.timed is not None:
            self.timed.run(operation, self.now / 1000)

    @rule(milliseconds=WAITS)
    def wait(self, milliseconds: int) -> None:
        self.now += milliseconds

    @invariant()
    def bounded(self) -> None:
        assert len(getattr(self, "table", ())) <= len(QUOTAS) + 1
        if getattr(self, "timed", None) is not None:
            assert [] == self.timed.endless()

    def teardown(self) -> None:
        if getattr(self, "timed", None) is not None:
            self.timed.client.close()


def test_against_models() -> None:
    """In this process, any history gives what the models give."""
    run_state_machine_as_test(
        type("InProcess", (Everything,), {}), settings=settings(max_examples=150, stateful_step_count=40, deadline=None)
    )


def test_server_agrees(valkey: Valkey) -> None:
    """A real server gives, at the same times, exactly the same rows, resets and stamps."""
    run_state_machine_as_test(
        type("OnServer", (Everything,), {"server": valkey}),
        settings=settings(max_examples=40, stateful_step_count=30, deadline=None),
    )
