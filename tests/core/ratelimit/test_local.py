"""Counting without the store: shares, seeds, recovery, and the bound."""

from threading import Thread

import pytest

from failsoft import Quota, limit
from failsoft.errors import OperationFailed
from failsoft.exchange import Table
from failsoft.ratelimit import Acquire
from failsoft.ratelimit.acquire import SOFT
from failsoft.ratelimit.adjust import Adjust
from failsoft.ratelimit.local import LocalLimits
from failsoft.ratelimit.penalty import Penalty
from failsoft.testing import FaultyStore, ManualClock
from tests.core.requests import FakeFacts, make_runtime, serve

NOW = 1.7e9
FIXED = Quota(amount=10, window=60)
STEADY = Quota(amount=10, window=100, algorithm="gcra")
SLIDING = Quota(amount=10, window=100, algorithm="sliding-window-counter")
MOVING = Quota(amount=10, window=100, algorithm="moving-window")
EACH = pytest.mark.parametrize("quota", [FIXED, STEADY, SLIDING, MOVING], ids=lambda quota: quota.algorithm)


def admitted(local: LocalLimits, quota: Quota, n: int = 30, *, key: str = "key", now: float = NOW) -> int:
    """How many of `n` requests pass."""
    return sum(local.decide([quota], [key], [1], now)[0] for _ in range(n))


@pytest.mark.parametrize(("share", "expected"), [(1.0, 10), (0.5, 5), (0.25, 2), (0.01, 1)])
@EACH
def test_share(quota: Quota, share: float, expected: int) -> None:
    """A process admits its part of the quota, rounded down, and at least one."""
    assert expected == admitted(LocalLimits(share=share, bound=100), quota)


@EACH
@pytest.mark.parametrize(
    ("remaining", "share", "expected"), [(0, 1.0, 0), (4, 1.0, 4), (4, 0.5, 2), (1, 0.5, 0), (10, 0.5, 5)]
)
def test_seed(quota: Quota, remaining: int, share: float, expected: int) -> None:
    """An outage starts from what the store last said: who had used up the quota is not given a new one."""
    local = LocalLimits(share=share, bound=100)
    local.remember(["key"], [1, remaining, 30_000], NOW)
    assert expected == admitted(local, quota)
    assert max(1, int(10 * share)) == admitted(local, quota, key="stranger")


@EACH
def test_each_counter_has_a_seed_of_its_own(quota: Quota) -> None:
    """Of several counters that the store spoke of at once, each goes on from what was said of itself."""
    local = LocalLimits(share=1.0, bound=100)
    local.remember(["a", "b", "c"], [1, 7, 30_000, 1, 4, 30_000, 0, 0, 30_000], NOW)
    assert [4, 0, 7] == [admitted(local, quota, key=key) for key in "bca"]


def test_window_that_ended_is_no_seed() -> None:
    """What the store said of a fixed window holds until that window ends, on the process's own clock."""
    local = LocalLimits(share=1.0, bound=100)
    local.remember(["key"], [0, 0, 30_000], NOW)
    assert [0, 10] == [admitted(local, FIXED, now=NOW + after) for after in (29.9, 30.1)]


def test_steady_quota_refills_since_it_was_seen() -> None:
    """A leaky bucket is seeded with what has come back since the store spoke."""
    local = LocalLimits(share=1.0, bound=100)
    local.remember(["key"], [0, 0, 10_000], NOW)
    assert 3 == admitted(local, STEADY, now=NOW + 35)


@pytest.mark.parametrize("quota", [SLIDING, MOVING], ids=lambda quota: quota.algorithm)
def test_what_was_taken_comes_back_since_it_was_seen(quota: Quota) -> None:
    """When each unit was taken nobody said; from then on they come back steadily, within one window's length."""
    local = LocalLimits(share=1.0, bound=100)
    local.remember(["key", "late"], [0, 0, 10_000] * 2, NOW)
    assert [0, 3, 0] == [admitted(local, quota, now=NOW + after) for after in (5, 35, 35)]
    assert 10 == admitted(local, quota, key="late", now=NOW + 110)


@EACH
def test_overdrawn_quota_is_not_given_anew(quota: Quota) -> None:
    """Whose quota the store said is used up gets at once no more than what comes back, whatever the process's share."""
    for share in (1.0, 0.3, 0.01):
        local = LocalLimits(share=share, bound=100)
        local.remember(["key"], [0, 0, 30_000], NOW)
        assert 0 == admitted(local, quota)


def test_soft_limit_never_refuses() -> None:
    """Without the store too, a limit in the shadow refuses nobody, and says what it would have said."""
    local = LocalLimits(share=0.5, bound=100)
    rows = [local.decide([FIXED, MOVING], ["soft", "hard"], [1, 1], NOW, [SOFT, 0]) for _ in range(7)]
    assert [1, 1, 1, 1, 1, 1, 1] == [
        int(Acquire([FIXED, MOVING], ["soft", "hard"], [1, 1], modes=[SOFT, SOFT]).admits(row)) for row in rows
    ]
    assert [1, 1, 1, 1, 1, 0, 0] == [row[0] for row in rows] == [row[3] for row in rows]
    wide = Quota(amount=100, window=60)
    rows = [local.decide([FIXED, wide], ["shadow", "wide"], [1, 1], NOW, [SOFT, 0]) for _ in range(7)]
    assert [1] * 7 == [row[3] for row in rows]
    assert 43 == rows[-1][4]


def test_penalties_hold_without_the_store() -> None:
    """A block that the store told of holds until its end; breaches are noted by each process for itself."""
    local = LocalLimits(share=1.0, bound=100)
    penalty = Penalty(after=2, block="10s")
    local.remember(["blocked"], [0, 0, 5000], NOW)
    blocked = [local.decide([FIXED, penalty], ["a", "blocked"], [1, 1], NOW + after)[3:] for after in (0, 4.9, 5)]
    assert [[0, 0, 5000], [0, 0, 100], [1, 2, 0]] == blocked
    tight = Quota(amount=1, window=60)
    rows = [local.decide([tight, penalty], ["tight", "free"], [1, 1], NOW)[3:] for _ in range(3)]
    assert [[1, 2, 0], [1, 1, 60_000], [0, 0, 10_000]] == rows


@EACH
def test_adjustments_are_of_the_share(quota: Quota) -> None:
    """What is given back during an outage is given back to this process's share; after it, to nobody."""
    local = LocalLimits(share=0.5, bound=100)
    answer = local.decide([quota], ["{key}"], [4], NOW, stamps=True)
    assert [1, 1] == answer[:2]
    refund = Adjust([quota], ["{key}"], answer[3:], [-3])
    local.adjust(refund, NOW)
    assert 4 == admitted(local, quota, key="{key}")
    local.recovered()
    local.adjust(refund, NOW)
    assert 5 == admitted(local, quota, key="{key}")


def test_counts_go_on_after_the_seed() -> None:
    """The seed is taken once: what is counted locally afterwards counts."""
    local = LocalLimits(share=1.0, bound=100)
    local.remember(["key"], [1, 5, 60_000], NOW)
    assert [3, 2, 0] == [admitted(local, FIXED, n) for n in (3, 30, 30)]


def test_all_or_nothing() -> None:
    """Without the store too, a request that one limit refuses takes nothing of the others."""
    local = LocalLimits(share=1.0, bound=100)
    wide, tight = Quota(amount=100, window=60), Quota(amount=1, window=60)
    rows = [local.decide([wide, tight], ["wide", "tight"], [1, 1], NOW) for _ in range(5)]
    assert [99] * 5 == [row[1] for row in rows]


def test_recovery_forgets_the_counts() -> None:
    """When the store is back its counts are the right ones; the next outage starts from them."""
    local = LocalLimits(share=1.0, bound=100)
    assert (10, True) == (admitted(local, FIXED), local.active)
    local.recovered()
    assert not local.active
    assert 10 == admitted(local, FIXED)


def test_exhausted_clients_are_remembered_through_a_flood() -> None:
    """New clients without number do not make a process forget who had used up the quota."""
    local = LocalLimits(share=1.0, bound=100)
    local.remember(["exhausted"], [0, 0, 3_600_000], NOW)
    for number in range(5000):
        local.remember([f"client{number}"], [1, 9, 60_000], NOW)
        assert len(local._seen) + len(local._older) <= 203
    assert [0, 10] == [admitted(local, FIXED, key=key) for key in ("exhausted", "client0")]


def test_refused_clients_are_remembered_through_a_flood() -> None:
    """Who was refused because too little was left for a dear request is remembered like those who had nothing left."""
    local = LocalLimits(share=1.0, bound=100)
    local.remember(["refused"], [0, 2, 3_600_000], NOW)
    for number in range(5000):
        local.remember([f"client{number}"], [1, 9, 60_000], NOW)
    assert [2, 10] == [admitted(local, FIXED, key=key) for key in ("refused", "client0")]


def test_flood_of_exhausted_clients_is_bounded() -> None:
    """A flood of exhausted clients does not outgrow the bound, and does not make every request tidy up."""
    local = LocalLimits(share=1.0, bound=100)
    turns = 0
    for number in range(5000):
        before = local._older
        local.remember([f"client{number}"], [0, 0, 3_600_000], NOW)
        turns += before is not local._older
        assert len(local._seen) + len(local._older) <= 203
    assert turns <= 5000 // 50 + 1


def test_shares_of_quotas_without_number_are_bounded() -> None:
    """Quotas that functions make up do not fill the memory."""
    local = LocalLimits(share=0.5, bound=100)
    for number in range(1, 5000):
        local.decide([Quota(amount=number, window=60)], [str(number)], [1], NOW)
    assert len(local._shares) <= 1001


def test_threads_at_the_edge() -> None:
    """Threads that decide and remember at once admit exactly the share, and nobody fails."""
    local = LocalLimits(share=1.0, bound=100)
    quota = Quota(amount=50, window=60)
    found: list[int] = []

    def ask(number: int) -> None:
        found.append(admitted(local, quota, 20))
        for n in range(200):
            local.remember([f"{number}.{n}"], [1, 9, 60_000], NOW)

    threads = [Thread(target=ask, args=(number,)) for number in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert ([8], 50) == ([len(found)], sum(found))


def test_outage_from_the_first_request_to_the_last() -> None:
    """Admitted by the store, by the share of what it left, and by the store again, which has not forgotten."""
    clock = ManualClock()
    store = FaultyStore(clock=clock)
    view = limit("10/minute")(lambda: None)
    runtime = make_runtime(store=store, clock=clock, workers=2)
    before = [serve(runtime, FakeFacts(view))[0] for _ in range(4)]
    with store.away():
        during = [serve(runtime, FakeFacts(view))[0] for _ in range(5)]
    after = [serve(runtime, FakeFacts(view))[0] for _ in range(7)]
    assert ([200] * 4, [200] * 3 + [429] * 2, [200] * 6 + [429]) == (before, during, after)


def test_refusals_of_a_store_that_cannot_write_do_not_void_the_counts() -> None:
    """A store that is full still refuses whoever it knows to be exhausted; that does not give everybody else a new quota."""

    class Full(FaultyStore):
        """Fails every operation that would write."""

        full = False

        def flight(self, operations):  # type: ignore[no-untyped-def]  # as FaultyStore's
            if self.full and any("192.0.2.66" not in key for one in operations for key in one.keys):
                return [OperationFailed("OOM command not allowed") for _ in operations]
            return super().flight(operations)

    store = Full()
    view = limit("3/minute")(lambda: None)
    runtime = make_runtime(store=store)
    exhausted = FakeFacts(view, address="192.0.2.66")
    for _ in range(4):
        serve(runtime, exhausted)
    store.full = True
    statuses = []
    for _ in range(5):
        statuses.append(serve(runtime, FakeFacts(view, address="192.0.2.7"))[0])
        assert 429 == serve(runtime, exhausted)[0]
    assert [200, 200, 200, 429, 429] == statuses


def test_fields_and_problem_use_one_name() -> None:
    """Where the limit before it is left out during an outage, a limit with a number in its name keeps it in the fields, too."""
    store = FaultyStore()
    by_device = limit("1/minute", by="header:x-device", on_outage="open")
    view = by_device(limit("1/minute", by="user")(lambda: None))
    runtime = make_runtime(store=store)
    with store.away():
        serve(runtime, FakeFacts(view, user="u", headers={"x-device": "a"}))
        _, exchange, found = serve(runtime, FakeFacts(view, user="u", headers={"x-device": "b"}))
    fields = dict(found)
    assert exchange.rejection is not None
    assert ["1-per-minute-2"] == exchange.rejection.problem.members["violated-policies"]
    assert '"1-per-minute-2";r=0;t=60' == fields["RateLimit"]
    assert '"1-per-minute-2";q=1;w=60' == fields["RateLimit-Policy"]


def test_rows_are_those_of_the_share() -> None:
    """What clients are told during an outage is what this process will admit."""
    local = LocalLimits(share=0.5, bound=100)
    expected = Acquire([FIXED.share(0.5)], ["key"], [1]).apply(Table(10), NOW)
    assert expected == local.decide([FIXED], ["key"], [1], NOW)
