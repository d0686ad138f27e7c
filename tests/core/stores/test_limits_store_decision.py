"""How several limits are decided by what a storage can do with one, step by step: also when others come in between."""

import time
from collections.abc import Callable, Sequence
from typing import Any

import pytest

from failsoft.quota import Quota
from failsoft.ratelimit.acquire import PEEK, SOFT, Acquire
from failsoft.stores.storages.decision import Call, decide

MINUTE, HOUR, DAY = (Quota(amount=5, window=window) for window in (60, 3600, 86_400))


class Storage:
    """Counts, and notes what it was asked for."""

    def __init__(self, *, before_hit: Callable[[str], None] = lambda key: None, **used: int) -> None:
        self.used = used
        self.asked: list[str] = []
        self._before_hit = before_hit

    def answer(self, call: Call) -> Any:
        self.asked.append(f"{call.method} {call.key}")
        used, amount = self.used.get(call.key, 0), call.item.amount
        if call.method == "test":
            return used + call.cost <= amount
        if call.method == "hit":
            self._before_hit(call.key)
            self.used[call.key] = self.used.get(call.key, 0) + call.cost
            return self.used[call.key] <= amount
        return time.time() + 10, amount - used


def run(storage: Storage, operation: Acquire) -> list[list[int]]:
    """Rows without their times."""
    decision = decide(operation, operation.keys)
    result: Any = None
    while True:
        try:
            result = storage.answer(decision.send(result))
        except StopIteration as stop:
            rows: Sequence[int] = stop.value
            assert all(0 <= reset <= 86_400_000 for reset in rows[2::3])
            return [list(rows[row : row + 2]) for row in range(0, len(rows), 3)]


def test_one_limit() -> None:
    """A single unit of a single limit takes no test: two steps."""
    storage = Storage()

    assert [[1, 4]] == run(storage, Acquire([MINUTE], ["a"], [1]))
    assert ["hit a", "get_window_stats a"] == storage.asked


def test_one_limit_that_costs_more() -> None:
    """More than one unit is tested first: a refused hit of a fixed window would count."""
    storage = Storage(a=4)

    assert [[0, 1]] == run(storage, Acquire([MINUTE], ["a"], [2]))
    assert ["test a", "get_window_stats a"] == storage.asked
    assert {"a": 4} == storage.used


def test_several_limits() -> None:
    """All are tested before the first is hit."""
    storage = Storage()

    assert [[1, 4], [1, 4]] == run(storage, Acquire([MINUTE, HOUR], ["a", "b"], [1, 1]))
    assert ["test a", "test b", "hit a", "hit b"] == storage.asked[:4]


def test_one_of_several_refuses() -> None:
    """None is hit."""
    storage = Storage(b=5)

    assert [[1, 5], [0, 0], [1, 5]] == run(storage, Acquire([MINUTE, HOUR, DAY], ["a", "b", "c"], [1, 1, 1]))
    assert {"b": 5} == storage.used


def test_somebody_comes_in_between() -> None:
    """Whoever loses the last unit to another is refused; what was hit before stays counted, what comes after is spared."""

    def another(key: str) -> None:
        if key == "b":
            storage.used["b"] = 5

    storage = Storage(before_hit=another, b=4)

    assert [[1, 4], [0, 0], [1, 5]] == run(storage, Acquire([MINUTE, HOUR, DAY], ["a", "b", "c"], [1, 1, 1]))
    assert {"a": 1, "b": 6} == storage.used


def test_soft() -> None:
    """A soft limit that refuses is not hit and refuses nobody."""
    storage = Storage(a=5)

    assert [[0, 0], [1, 4]] == run(storage, Acquire([MINUTE, HOUR], ["a", "b"], [1, 1], modes=[SOFT, 0]))
    assert {"a": 5, "b": 1} == storage.used


def test_a_soft_limit_that_loses_its_last_unit() -> None:
    """That spares the others nothing."""

    def another(key: str) -> None:
        if key == "a":
            storage.used["a"] = 5

    storage = Storage(before_hit=another, a=4)

    assert [[0, 0], [1, 4]] == run(storage, Acquire([MINUTE, HOUR], ["a", "b"], [1, 1], modes=[SOFT, 0]))
    assert 1 == storage.used["b"]


@pytest.mark.parametrize(("used", "row"), [(4, [1, 1]), (5, [0, 0])])
def test_peek(used: int, row: list[int]) -> None:
    """It is tested and not hit."""
    storage = Storage(a=used)

    assert [row] == run(storage, Acquire([MINUTE], ["a"], [1], modes=[PEEK]))
    assert {"a": used} == storage.used


def test_no_cost() -> None:
    """What costs nothing is not hit."""
    storage = Storage(a=2)

    assert [[1, 3]] == run(storage, Acquire([MINUTE], ["a"], [0]))
    assert ["test a", "get_window_stats a"] == storage.asked


def test_numbers_out_of_range() -> None:
    """Whatever a storage says, what remains is between nothing and the quota."""
    storage = Storage(a=-3, b=9)

    assert [[1, 5]] == run(storage, Acquire([MINUTE], ["a"], [0]))
    assert [[0, 0]] == run(storage, Acquire([MINUTE], ["b"], [0]))
