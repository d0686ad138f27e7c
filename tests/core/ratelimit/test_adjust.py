"""Refunds and charges without a check, one by one. Any history of them: see `test_algorithms`."""

import pytest

from failsoft import Quota
from failsoft.exchange import Table
from failsoft.quota import ALGORITHMS
from failsoft.ratelimit import Acquire
from failsoft.ratelimit.adjust import Adjust
from failsoft.stores import open_store
from tests.core.stores.lua import Both
from tests.servers import Valkey

NOW = 1_700_000_000.0
QUOTAS = [Quota(amount=10, window=100, algorithm=algorithm) for algorithm in ALGORITHMS]
EACH = pytest.mark.parametrize("quota", QUOTAS, ids=lambda quota: quota.algorithm)


def charge(both: Both, quota: Quota, cost: int) -> int:
    """Charge it, and give the stamp."""
    fits, _, _, stamp = both.run(Acquire([quota], ["key"], [cost], stamps=True))
    assert 1 == fits
    return int(stamp)


def adjust(both: Both, quota: Quota, stamp: int, delta: int) -> list[int]:
    """Adjust it, and give the row."""
    row: list[int] = both.run(Adjust([quota], ["key"], [stamp], [delta]))
    return row


@EACH
def test_refund(both: Both, quota: Quota) -> None:
    """What is given back can be used again."""
    charge(both, quota, 2)
    both.now += 1
    stamp = charge(both, quota, 5)
    assert [1, 3] == both.run(Acquire([quota], ["key"], [0]))[:2]
    assert [1, 6] == adjust(both, quota, stamp, -3)[:2]
    charge(both, quota, 6)
    assert 0 == both.run(Acquire([quota], ["key"], [1]))[0]


@EACH
def test_refund_of_a_window_that_is_over(both: Both, quota: Quota) -> None:
    """A refund that comes too late gives nothing: what it was charged to counts no longer."""
    stamp = charge(both, quota, 5)
    both.now += 201
    assert [1, 10] == adjust(both, quota, stamp, -5)[:2]
    charge(both, quota, 4)
    assert [1, 6] == adjust(both, quota, stamp, -5)[:2]


def test_refund_to_the_window_before(both: Both) -> None:
    """A sliding window's last window is over too, although a part of it still counts."""
    quota = QUOTAS[2]
    stamp = charge(both, quota, 8)
    both.now += 150
    assert [1, 6] == adjust(both, quota, stamp, -8)[:2]
    second = charge(both, quota, 1)
    assert [1, 5] == adjust(both, quota, stamp, -8)[:2]
    assert [1, 6] == adjust(both, quota, second, -1)[:2]


def test_refund_of_what_has_drained(both: Both) -> None:
    """A leaky bucket gives back what has not drained yet, and no more: else a refund would make room that time makes as well."""
    quota = QUOTAS[1]  # a unit in 10 s
    first = charge(both, quota, 4)
    both.now += 25
    second = charge(both, quota, 3)
    assert 5 == adjust(both, quota, first, 0)[1]  # 1.5 of the first charge are left, and the second
    assert 7 == adjust(both, quota, first, -4)[1]
    assert 10 == adjust(both, quota, second, -3)[1]


@EACH
def test_refund_of_nothing_makes_no_key(both: Both, quota: Quota) -> None:
    """Where nothing is counted there is nothing to give back, and nothing is written."""
    stamp = round(NOW * 1_000_000) if quota.algorithm in ("gcra", "moving-window") else round(NOW * 1000) + 100_000
    assert [1, 10] == adjust(both, quota, stamp, -3)[:2]
    assert ({}, 0) == (both.timed.values(), len(both.table))


@EACH
def test_refund_of_a_window_that_ends_now(both: Both, quota: Quota) -> None:
    """In the very millisecond in which a window ends it is over."""
    stamp = charge(both, quota, 4)
    both.now += 100
    left = 6 if quota.algorithm == "sliding-window-counter" else 10
    assert [1, left] == adjust(both, quota, stamp, -4)[:2]
    charge(both, quota, 1)
    assert [1, left - 1] == adjust(both, quota, stamp, -4)[:2]
    both.now += 50
    later = {"fixed-window": 9, "gcra": 10, "sliding-window-counter": 7, "moving-window": 9}
    assert later[quota.algorithm] == adjust(both, quota, stamp, -4)[1]


@EACH
def test_refund_never_goes_below_zero(both: Both, quota: Quota) -> None:
    """A refund that is larger than the charge gives back the charge."""
    stamp = charge(both, quota, 3)
    assert [1, 10] == adjust(both, quota, stamp, -1000)[:2]
    charge(both, quota, 10)
    assert 0 == both.run(Acquire([quota], ["key"], [1]))[0]


@EACH
def test_refund_prolongs_nothing(both: Both, quota: Quota) -> None:
    """What is given back late in a window does not make it last longer."""
    stamp = charge(both, quota, 10)
    ends = both.timed.client.hget("test:ends", "key")
    both.now += 30
    adjust(both, quota, stamp, -1)
    later = both.timed.client.hget("test:ends", "key")
    assert later is not None
    assert ends is not None
    assert int(later) <= int(ends)


@EACH
def test_charge_without_a_check(both: Both, quota: Quota) -> None:
    """More than fits may be charged afterwards; requests are refused until it is worked off."""
    stamp = charge(both, quota, 8)
    row = adjust(both, quota, stamp, 8)
    assert [int(quota.algorithm == "moving-window"), 0] == row[:2]
    waited = 0
    while both.run(Acquire([quota], ["key"], [1]))[0] == 0:
        both.now += 1
        waited += 1
    expected = {"fixed-window": 100, "gcra": 70, "sliding-window-counter": 138, "moving-window": 100}
    assert expected[quota.algorithm] == waited


@EACH
def test_charge_of_a_window_that_is_over(both: Both, quota: Quota) -> None:
    """What is charged afterwards counts now, also where the window that was charged at first is gone."""
    stamp = charge(both, quota, 1)
    both.now += 1000
    assert [1, 6] == adjust(both, quota, stamp, 4)[:2]


@EACH
@pytest.mark.parametrize("delta", [10**12, 10**30])
def test_charge_beyond_all_bounds(both: Both, quota: Quota, delta: int) -> None:
    """No charge is so large that it could not be counted: all numbers stay whole, and every key ends."""
    for _ in range(3):
        row = adjust(both, quota, 0, delta)
        assert 0 == row[1]
        assert all(isinstance(number, int) and 0 <= number < 10**15 for number in row)


@EACH
def test_refunded_limit_is_not_kept(quota: Quota) -> None:
    """A limit that was used up and is so no longer makes way for others like any other, in this process."""
    table = Table(100)
    answer = Acquire([quota], ["key"], [10], stamps=True).apply(table, NOW)
    Adjust([quota], ["key"], answer[3:], [-1]).apply(table, NOW)
    for number in range(200):
        Acquire([quota], [str(number)], [1]).apply(table, NOW)
    assert table.find("key", NOW) is None


def test_several_lines(both: Both) -> None:
    """One operation corrects several quotas, each in its own way."""
    keys = [f"{{{quota.algorithm}}}" for quota in QUOTAS]
    answer = both.run(Acquire(QUOTAS, keys, [4] * 4, stamps=True))
    assert [6] * 4 == answer[1:12:3]
    row = both.run(Adjust(QUOTAS, keys, answer[12:], [-4, 2, -1, 0]))
    assert [10, 4, 7, 6] == row[1::3]


def test_stamps_on_the_servers_own_clock(valkey: Valkey) -> None:
    """Without a clock that a test sets: a refund finds the window by the stamp, whatever milliseconds have passed."""
    from failsoft import Settings

    store = open_store(Settings.load({"store": valkey.url, "deadline": 5.0}, environ={}))
    try:
        store.start()
        keys = [f"{{{quota.algorithm}}}" for quota in QUOTAS]
        for cost in (3, 2, 1):
            answer = store.flight([Acquire(QUOTAS, keys, [cost] * 4, stamps=True)])[0]
            assert [1, 10 - cost] * 4 == [number for i, number in enumerate(answer[:12]) if i % 3 < 2]
            seconds, _ = valkey.run("TIME")
            assert all(abs(stamp - int(seconds) * 1000 - 100_000) < 10_000 for stamp in (answer[12], answer[14]))
            assert all(abs(stamp // 1_000_000 - int(seconds)) < 200 for stamp in (answer[13], answer[15]))
            row = store.flight([Adjust(QUOTAS, keys, answer[12:], [-cost] * 4)])[0]
            assert [1, 10] * 4 == [number for i, number in enumerate(row) if i % 3 < 2]
    finally:
        store.close()
