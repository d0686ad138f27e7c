"""Looking at counters, giving units back, and forgetting them."""

from typing import Any

import redis

from failsoft import Quota
from failsoft.exchange import Table
from failsoft.quota import ALGORITHMS
from failsoft.ratelimit import Acquire
from failsoft.ratelimit.manage import Peek, Refund, Reset
from failsoft.ratelimit.penalty import Breaches, Penalty
from tests.core.stores.lua import Timed
from tests.servers import Valkey

NOW = 1_700_000_000.0
QUOTAS = [Quota(amount=4, window=60, algorithm=algorithm) for algorithm in ALGORITHMS]
KEYS = [f"{{{quota.algorithm}}}" for quota in QUOTAS]
PENALTY = Penalty(after=2)


def test_peek(valkey: Valkey) -> None:
    """How things stand is told without a charge, however often, and also for those who were never seen."""
    look = Peek([*QUOTAS, PENALTY], [*KEYS, "penalty"])
    table = Table()
    assert [1, 4] * 4 + [1, 2] == [n for i, n in enumerate(look.apply(table, NOW)) if i % 3 < 2]
    assert 0 == len(table)
    with redis.Redis.from_url(valkey.url) as client:
        timed = Timed(client)
        for operation in (Acquire(QUOTAS, KEYS, [4] * 4), Breaches("penalty", PENALTY)):
            assert operation.apply(table, NOW) == timed.run(operation, NOW)
        before = timed.values()
        rows = [look.apply(table, NOW), timed.run(look, NOW), look.apply(table, NOW), timed.run(look, NOW)]
        assert [rows[0]] * 4 == rows
        assert ([0, 0, 0, 0, 1], [0, 0, 0, 0, 1]) == (rows[0][0::3], rows[0][1::3])
        assert before == timed.values()
        # A sliding window that has to be turned is not turned by looking at it.
        later = NOW + 90
        assert [4, 4, 2, 4] == timed.run(look, later)[1:12:3]
        assert before["{sliding-window-counter}"] == timed.values()["{sliding-window-counter}"]


def test_peek_may_be_read_only(valkey: Valkey) -> None:
    """A server that may not write, such as a replica, still says how things stand."""
    look = Peek([*QUOTAS, PENALTY], [*KEYS, "penalty"])
    with redis.Redis.from_url(valkey.url) as client:
        keys = list(look.keys)
        rows = client.execute_command("EVAL_RO", look.script.source, len(keys), *keys, *look.arguments)
        assert [4, 4, 4, 4, 2] == rows[1::3]


def test_peek_at_a_cost() -> None:
    """Whether a cost would fit is told for each key."""
    table = Table()
    Acquire(QUOTAS, KEYS, [2] * 4).apply(table, NOW)
    rows = Peek(QUOTAS, KEYS, [2, 3, 2, 3]).apply(table, NOW)
    assert ([1, 0, 1, 0], [2, 2, 2, 2]) == (rows[0::3], rows[1::3])


def test_reset(valkey: Valkey) -> None:
    """What is forgotten is as if it had never been, with all its keys; the answer is how many there were."""
    table = Table()
    with redis.Redis.from_url(valkey.url) as client:
        timed = Timed(client)
        for now in (NOW, NOW + 70):  # the second time the sliding window has two keys
            operation = Acquire(QUOTAS, KEYS, [2] * 4)
            assert operation.apply(table, now) == timed.run(operation, now)
        assert 5 == len(timed.values())
        reset = Reset([*KEYS, "unknown"])
        assert 4 == reset.apply(table, NOW + 70) == timed.run(reset, NOW + 70)
        assert ({}, 0) == (timed.values(), len(table))


def test_refund(valkey: Valkey) -> None:
    """Units come back whenever they were charged: the newest first, never more than counts, and no key comes to be by it."""
    table = Table()
    with redis.Redis.from_url(valkey.url) as client:
        timed = Timed(client)

        def run(operation: Any, now: float) -> list[int]:
            answer: list[int] = operation.apply(table, now)
            assert answer == timed.run(operation, now)
            assert [] == timed.endless()
            return answer

        assert [4] * 4 == run(Refund(QUOTAS, KEYS, [3] * 4), NOW)[1::3]
        assert {} == timed.values()
        run(Acquire(QUOTAS, KEYS, [2] * 4), NOW)
        run(Acquire(QUOTAS, KEYS, [2] * 4), NOW + 20)  # GCRA has one of the first back by then
        assert [3, 4, 3, 3] == run(Refund(QUOTAS, KEYS, [3] * 4), NOW + 20)[1::3]
        # The oldest of a moving window stays, and ends when it would have.
        assert [1, 3, 40_000] == run(Peek(QUOTAS[3:], KEYS[3:], [0]), NOW + 20)
        assert [4] * 4 == run(Refund(QUOTAS, KEYS, [10**12] * 4), NOW + 20)[1::3]


def test_refund_of_a_window_before() -> None:
    """What a sliding window still counts of the one before is given back after its own."""
    table = Table()
    quota, key = [Quota(amount=10, window=60, algorithm="sliding-window-counter")], ["key"]
    Acquire(quota, key, [10]).apply(table, NOW)
    Acquire(quota, key, [3]).apply(table, NOW + 90)  # 5 of the 10 count
    assert [2, 3, 5, 6, 10] == [Refund(quota, key, [units]).apply(table, NOW + 90)[1] for units in (0, 1, 2, 1, 9)]


def test_refund_on_two_places() -> None:
    """Where keys lie in different places, each gives back its own."""
    whole = Refund(QUOTAS, KEYS, [1, 2, 3, 4])
    parts = whole.divide(lambda key: key)
    assert [("ratelimit.refund", [key]) for key in KEYS] == [(part.script.name, list(part.keys[:1])) for part in parts]
    table = Table()
    Acquire(QUOTAS, KEYS, [4] * 4).apply(table, NOW)
    rows, undo = whole.unite(parts, [part.apply(table, NOW) for part in parts])
    assert ([1, 2, 3, 4], ()) == (rows[1::3], undo)
    assert (whole,) == whole.divide(lambda key: 0)


def test_nothing_is_searched_for() -> None:
    """Only named keys are touched: no command walks through the server's keys."""
    assert not any(word in Reset.script.source for word in ("KEYS'", "SCAN", "FLUSH"))
    assert ["a", "b", "{a}/-1", "{b}/-1"] == list(Reset(["a", "b"]).keys)
