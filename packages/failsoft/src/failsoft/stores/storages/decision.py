"""A decision over several limits, by what a storage of `limits` can do: test, hit and tell, one limit at a time.

All limits are tested; if none refuses, all are hit; then each is asked for its numbers. This is not atomic. Between test and
hit another process may take the last unit: then the limit that was hit in vain refuses after all, those before it keep
what they charged, and for a fixed window so does it (its count goes past the amount, and the window ends no later for
that). So of requests that meet, none passes that should not; some cost units although they are refused, at most their own
cost on each limit.

A single limit with a cost of one unit is not tested first: a hit that is refused does no harm there.

The decision is a generator: it yields what to do, is sent the result, and returns the rows of `Acquire`. Whoever drives
it does the I/O, in threads or in tasks.
"""

import time
from collections.abc import Generator, Sequence
from functools import lru_cache
from math import ceil
from typing import Any, Literal, NamedTuple

from limits import RateLimitItem, RateLimitItemPerSecond

from failsoft.quota import Quota
from failsoft.ratelimit.acquire import Acquire

__all__ = ["Call", "decide"]


class Call(NamedTuple):
    """What a strategy of `limits` is to do.

    Attributes:
        algorithm: the strategy's name.
        method: the strategy's method.
        item: the limit.
        key: who is limited.
        cost: units; not for ``get_window_stats``.
    """

    algorithm: str
    method: Literal["get_window_stats", "hit", "test"]
    item: RateLimitItem
    key: str
    cost: int


def decide(operation: Acquire, keys: Sequence[str]) -> Generator[Call, Any, list[int]]:
    """Decide about `operation`, whose rules are all quotas that the storage knows; `keys` as the storage wants them."""
    quotas: list[Quota] = [step.rule for step in operation.steps]
    lines = list(zip(operation.steps, quotas, keys, operation.costs, strict=True))
    fits: list[bool] = []
    for step, quota, key, cost in lines:
        at_once = len(lines) == 1 and cost == 1 and not step.peek
        fits.append(at_once or (yield _call(quota, "test", key, cost)))
    if all(fit or step.soft for fit, step in zip(fits, operation.steps, strict=True)):
        for place, (step, quota, key, cost) in enumerate(lines):
            if fits[place] and cost and not step.peek:
                fits[place] = yield _call(quota, "hit", key, cost)
                if not fits[place] and not step.soft:
                    break
    rows: list[int] = []
    for fit, (_, quota, key, cost) in zip(fits, lines, strict=True):
        reset, remaining = yield _call(quota, "get_window_stats", key, cost)
        left = ceil((reset - time.time()) * 1000)
        if left <= 0 and quota.algorithm == "fixed-window":
            left = quota.window * 1000  # none has begun
        rows += (int(fit), min(max(remaining, 0), quota.amount), max(left, 0))
    return rows


def _call(quota: Quota, method: Literal["get_window_stats", "hit", "test"], key: str, cost: int) -> Call:
    return Call(quota.algorithm, method, _item(quota), key, cost)


@lru_cache(maxsize=1024)
def _item(quota: Quota) -> RateLimitItem:
    # Whatever the unit was: `limits` puts amount and window into the key, as our own key does.
    return RateLimitItemPerSecond(quota.amount, quota.window, namespace="failsoft")
