"""Changing over from `limits`, and back: counters go on, where the keys are made in the same way."""

import time
from collections.abc import Iterator
from typing import Any

import limits
import pytest
import redis
from limits.storage import storage_from_string
from limits.strategies import STRATEGIES

from failsoft import Quota
from failsoft.quota import Algorithm
from failsoft.ratelimit import Acquire
from failsoft.ratelimit.manage import Peek
from failsoft.ratelimit.meters import previous_key
from tests.servers import Valkey

WINDOW = 3600
ITEM = limits.RateLimitItemPerHour(10)
SHARED: list[Algorithm] = ["fixed-window", "sliding-window-counter", "moving-window"]


class Side:
    """One application with `limits` and one with us, on one server and for one client."""

    def __init__(self, valkey: Valkey, algorithm: Algorithm) -> None:
        self.client = redis.Redis.from_url(valkey.url)
        self.quota = Quota(amount=10, window=WINDOW, algorithm=algorithm)
        self.storage: Any = storage_from_string(valkey.url)
        self.limiter = STRATEGIES[algorithm](self.storage)
        key = ITEM.key_for("192.0.2.1")
        if algorithm == "sliding-window-counter":
            self.second = self.storage.prefixed_key(self.storage._previous_window_key(key))
            key = self.storage._current_window_key(key)
        self.key = self.storage.prefixed_key(key)

    def theirs(self, cost: int = 1) -> bool:
        """Whether `limits` lets the request pass."""
        return self.limiter.hit(ITEM, "192.0.2.1", cost=cost)

    def their_rest(self) -> int:
        """What remains, as `limits` says."""
        return self.limiter.get_window_stats(ITEM, "192.0.2.1").remaining

    def run(self, operation: Acquire) -> list[int]:
        """Our answer."""
        rows: list[int] = self.client.eval(
            operation.script.source, len(operation.keys), *operation.keys, *operation.arguments
        )
        return rows

    def ours(self, cost: int = 1) -> bool:
        """Whether we let the request pass."""
        return self.run(Acquire([self.quota], [self.key], [cost]))[0] == 1

    def our_rest(self) -> int:
        """What remains, as we say."""
        return self.run(Peek([self.quota], [self.key]))[1]

    def forward(self, seconds: int) -> None:
        """Let time pass, by making everything older."""
        for key in self.client.scan_iter():
            left = self.client.pttl(key)
            if left <= seconds * 1000:
                self.client.delete(key)
                continue
            self.client.pexpire(key, left - seconds * 1000)
            if self.client.type(key) == b"list":
                for place, moment in enumerate(self.client.lrange(key, 0, -1)):
                    self.client.lset(key, place, f"{float(moment) - seconds:.6f}")


@pytest.fixture(params=SHARED)
def side(request: pytest.FixtureRequest, valkey: Valkey) -> Iterator[Side]:
    """Both, with nothing counted yet."""
    made = Side(valkey, request.param)
    yield made
    made.client.close()
    made.storage.storage.close()


def test_ours_after_theirs(side: Side) -> None:
    """A counter that `limits` wrote is gone on with, to the last unit."""
    assert [True] * 6 == [side.theirs(cost) for cost in (1, 1, 1, 2, 1, 1)]
    assert 3 == side.our_rest()
    assert [True, True, True, False] == [side.ours() for _ in range(4)]
    assert (False, 0) == (side.theirs(), side.our_rest())


def test_theirs_after_ours(side: Side) -> None:
    """And the other way round."""
    assert [True] * 4 == [side.ours(cost) for cost in (1, 3, 1, 2)]
    assert 3 == side.their_rest()
    assert [True, True, True] == [side.theirs() for _ in range(3)]
    assert [False, False] == [side.theirs(), side.ours()]


def test_by_turns(side: Side) -> None:
    """Two applications of which only one has changed over share the limit, in every window that comes."""
    sliding = side.quota.algorithm == "sliding-window-counter"
    for expected in (10, 5 if sliding else 10, 10, 10):  # of the last window a little less than 60 % still counts
        assert expected == sum(side.theirs() if number % 2 else side.ours() for number in range(14))
        assert side.their_rest() == side.our_rest() == 0
        side.forward(WINDOW * 7 // 5)
        assert side.their_rest() == side.our_rest()


def test_same_weights(valkey: Valkey) -> None:
    """Of a sliding window's last window both count the same part, whoever turned it."""
    side = Side(valkey, "sliding-window-counter")
    assert side.second == previous_key(side.key)
    for seconds, turn in ((4000, side.ours), (3700, side.theirs), (3610, side.ours)):
        while side.ours():
            pass
        side.forward(seconds)
        assert side.client.exists(side.key)
        rest = side.our_rest()  # before anybody turns it
        assert turn()
        assert rest - 1 == side.our_rest() == side.their_rest()
        assert 1 == int(side.client.get(side.key))
        assert 10 >= int(side.client.get(side.second)) > 0
        ends = [side.client.pexpiretime(key) for key in (side.key, side.second)]
        assert WINDOW * 1000 == ends[0] - ends[1]
    side.client.close()
    side.storage.storage.close()


def test_where_they_count_too_much(valkey: Valkey) -> None:
    """Requests that `limits` refused in a fixed window count beyond the limit; that lets nobody in and nothing overflow."""
    side = Side(valkey, "fixed-window")
    assert [True] * 10 + [False] * 20 == [side.theirs() for _ in range(30)]
    assert b"30" == side.client.get(side.key)
    row = side.run(Acquire([side.quota], [side.key], [1]))
    assert [0, 0] == row[:2]
    assert b"30" == side.client.get(side.key)
    side.client.close()
    side.storage.storage.close()


def test_where_their_clock_is_wrong(valkey: Valkey) -> None:
    """Moments that a client of `limits` with a slow clock wrote are over sooner; ours come from the server's clock, in whole
    microseconds, the newest first."""
    side = Side(valkey, "moving-window")
    assert side.theirs(5)
    side.client.ltrim(side.key, 0, 1)
    side.client.rpush(side.key, *[f"{time.time() - 2 * WINDOW:.7f}"] * 3)
    assert 8 == side.our_rest()
    assert side.ours(2)
    moments = [moment.decode() for moment in side.client.lrange(side.key, 0, -1)]
    assert (4, 1) == (len(moments), len(set(moments[:2])))  # what was over has gone
    assert 6 == len(moments[0].partition(".")[2])
    seconds, _ = side.client.time()
    assert abs(float(moments[0]) - seconds) < 10
    assert sorted(moments[:2], reverse=True) == moments[:2]
    assert 6 == side.their_rest()
    side.client.close()
    side.storage.storage.close()
