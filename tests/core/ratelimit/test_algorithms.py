"""Every algorithm and mode, refunds, charges without a check, penalties: against models, in this process and on a real server."""

import shutil
from typing import Any

import pytest
import redis
from hypothesis import HealthCheck, given, settings
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
from failsoft.quota import ALGORITHMS, Algorithm
from failsoft.ratelimit import Acquire, Quota
from failsoft.ratelimit.acquire import PEEK, SOFT
from failsoft.ratelimit.adjust import Adjust
from failsoft.ratelimit.manage import Peek, Refund, Reset
from failsoft.ratelimit.penalty import Breaches, Penalty
from tests.core.ratelimit.models import PenaltyModel, model_of
from tests.core.stores.lua import Both, Timed
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

    @rule(picks=PICKS, units=st.integers(min_value=0, max_value=6))
    def give_back(self, picks: list[int], units: int) -> None:
        for i in picks:
            self.models[i].give_back(self.now, units)
        rows = self.run(Refund([QUOTAS[i] for i in picks], [name(i) for i in picks], [units] * len(picks)))
        rooms = [self.models[i].room(self.now) for i in picks]
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


STEPS = st.one_of(
    st.tuples(st.just("decide"), st.integers(min_value=1, max_value=4)),
    st.tuples(st.just("peek"), st.integers(min_value=0, max_value=6)),
    st.tuples(st.just("adjust"), st.integers(min_value=-4, max_value=4)),
    st.tuples(st.just("wait"), st.sampled_from([1, 499, 500, 1000, 1001, 6000, 6999, 7000, 7001, 10_500])),
)


@given(
    algorithm=st.sampled_from(ALGORITHMS),
    amount=st.integers(min_value=1, max_value=9),
    steps=st.lists(STEPS, max_size=25),
)
@settings(deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_one_limit(valkey: Valkey, algorithm: Algorithm, amount: int, steps: list[tuple[str, int]]) -> None:
    """One limit of one client, at the moments that matter: a real server and this process say the same to the millisecond,
    by the lean script and by the wide one."""
    quota = Quota(amount=amount, window=7, algorithm=algorithm)
    with redis.Redis.from_url(valkey.url) as client:
        client.flushall()
        both, stamp = Both(client), 0
        for step, number in steps:
            if step == "decide":
                answer = both.run(Acquire([quota], ["key"], [number], stamps=number > 1))
                stamp = answer[3] if number > 1 and answer[3] else stamp
            elif step == "peek":
                both.run(Peek([quota], ["key"], [number]))
            elif step == "adjust":
                both.run(Adjust([quota], ["key"], [stamp], [number]))
            else:
                both.now += number / 1000


def test_on_redis(monkeypatch: pytest.MonkeyPatch) -> None:
    """Redis, where it is installed, gives what this process gives: for large numbers too, which it writes in another way."""
    binary = shutil.which("redis-server")
    if binary is None:
        pytest.skip("redis-server is not installed here")
    monkeypatch.setattr("tests.servers.get_binary_path", lambda: binary)
    large = [Quota(amount=10_000, window=30 * 86_400, algorithm=algorithm) for algorithm in ALGORITHMS]
    large.append(Quota(amount=10**12, window=100 * 360 * 86_400))
    keys = [f"{{{number}}}" for number in range(len(large))]
    with Valkey() as server, redis.Redis.from_url(server.url) as client:
        both = Both(client)
        for stamps in (False, True):
            for cost in (1, 4000, 9000):
                both.now += 61 * 86_400
                answer = both.run(Acquire(large, keys, [cost] * 5, stamps=stamps))
        assert 3 * 5 + 5 == len(answer)
        both.run(Adjust(large, keys, answer[15:], [-1, -1, -1, -1, 10**12]))
        both.run(Breaches(name(GUARD), PENALTY, 9))
        both.run(Peek([*large, PENALTY], [*keys, name(GUARD)]))
        assert 6 == both.run(Reset([*keys, name(GUARD)]))


def test_lost_half_of_a_sliding_window(both: Both) -> None:
    """A sliding window whose present count was lost counts from nothing: the last one's does not come in again."""
    quota = QUOTAS[6]
    both.run(Acquire([quota], ["{key}"], [5]))
    both.now += 70
    both.run(Acquire([quota], ["{key}"], [1]))
    assert b"5" == both.timed.client.get("{key}/-1")
    both.forget("{key}")
    assert [1, 4] == both.run(Acquire([quota], ["{key}"], [1]))[:2]
    assert [1, 3] == both.run(Acquire([quota], ["{key}"], [1]))[:2]


def test_against_models() -> None:
    """In this process, any history gives what the models give."""
    run_state_machine_as_test(
        type("InProcess", (Everything,), {}),
        settings=settings(max_examples=max(10, settings().max_examples // 2), stateful_step_count=40, deadline=None),
    )


def test_server_agrees(valkey: Valkey) -> None:
    """A real server gives, at the same times, exactly the same rows, resets and stamps."""
    run_state_machine_as_test(
        type("OnServer", (Everything,), {"server": valkey}),
        settings=settings(max_examples=settings().max_examples // 2, stateful_step_count=30, deadline=None),
    )
