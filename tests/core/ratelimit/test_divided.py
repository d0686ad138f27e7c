"""Operations over keys of several places: what comes of the parts is what would have come of the whole."""

from collections.abc import Sequence
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from failsoft import Quota
from failsoft.errors import OperationFailed, StoreUnavailable
from failsoft.exchange import Divisible, Operation, Table
from failsoft.ratelimit import Acquire
from failsoft.ratelimit.acquire import PEEK, SOFT
from failsoft.ratelimit.adjust import Adjust
from failsoft.ratelimit.manage import Peek, Reset
from failsoft.ratelimit.penalty import Breaches, Penalty

NOW = 1_700_000_000.0
QUOTAS = [
    Quota(amount=3, window=60),
    Quota(amount=4, window=60, algorithm="gcra"),
    Quota(amount=5, window=60, algorithm="sliding-window-counter"),
    Quota(amount=4, window=60, algorithm="moving-window"),
    Quota(amount=2, window=60),
    Quota(amount=9, window=60, algorithm="gcra", burst=6),
]
KEYS = [f"{{{number}}}" for number in range(len(QUOTAS))]
PENALTY = Penalty(after=2, within="1h", block="1h")


class Places:
    """A store of several tables: which one a key lies in is said by its number, modulo theirs."""

    def __init__(self, count: int) -> None:
        self.tables = [Table() for _ in range(count)]
        self.rounds = 0

    def place(self, key: str) -> int:
        """Where a key lies; a hash tag decides."""
        return int(key[key.index("{") + 1 : key.index("}")]) % len(self.tables)

    def fly(
        self, operations: Sequence[Operation], lost: Sequence[int] = (), error: Exception | None = None
    ) -> list[Any]:
        """Run operations, each where its keys lie; those that are lost have run for nothing or not at all."""
        self.rounds += bool(operations)
        answers: list[Any] = []
        for number, operation in enumerate(operations):
            (home,) = {self.place(key) for key in operation.keys}
            answers.append(error if number in lost else operation.apply(self.tables[home], NOW))
        return answers

    def run(self, operation: Any, lost: Sequence[int] = (), error: Exception | None = None) -> Any:
        """As a store does: divide, unite, undo."""
        assert isinstance(operation, Divisible)
        parts = operation.divide(self.place)
        answer, undo = operation.unite(parts, self.fly(parts, lost, error))
        self.fly(undo)
        return answer


@pytest.mark.broad
@given(
    places=st.integers(min_value=1, max_value=4),
    history=st.lists(
        st.tuples(
            st.lists(st.sampled_from(range(len(QUOTAS))), min_size=1, max_size=5, unique=True),
            st.lists(st.sampled_from([0, 0, 0, SOFT, PEEK]), min_size=5, max_size=5),
            st.integers(min_value=0, max_value=3),
            st.none() | st.integers(min_value=0, max_value=5),
        ),
        max_size=8,
    ),
)
@settings(deadline=None, max_examples=3 * settings().max_examples // 2)
def test_as_the_whole(places: int, history: list[tuple[list[int], list[int], int, int | None]]) -> None:
    """Whatever the places, the rows, and what remains afterwards, are those of one atomic decision."""
    divided, whole = Places(places), Table()
    for picks, modes, cost, guards in history:
        rules: list[Any] = [QUOTAS[i] for i in picks]
        keys, costs, flags = [KEYS[i] for i in picks], [cost] * len(picks), modes[: len(picks)]
        if guards is not None:
            rules, keys, costs, flags = [*rules, PENALTY], [*keys, "{6}"], [*costs, guards], [*flags, 0]
        acquire = Acquire(rules, keys, costs, modes=flags)
        rows = divided.run(acquire)
        expected = acquire.apply(whole, NOW)
        here = slice(0, 3 * len(picks))  # the penalty's row may be that of before its breach
        assert expected[here] == rows[here]
        look = Peek([*QUOTAS, PENALTY], [*KEYS, "{6}"], [0] * 7)
        assert look.apply(whole, NOW)[1::3] == divided.run(look)[1::3]


def test_where_one_place_is_enough() -> None:
    """An operation whose keys lie in one place is not divided, and its answer is the part's."""
    store = Places(1)
    for operation in (
        Acquire(QUOTAS, KEYS, [1] * 6),
        Adjust(QUOTAS, KEYS, [0] * 6, [1] * 6),
        Reset(KEYS),
        Peek(QUOTAS, KEYS),
    ):
        assert [operation] == list(operation.divide(store.place))
        store.run(operation)
    assert 4 == store.rounds


def test_parts_ask_for_stamps_only_among_themselves() -> None:
    """The whole has stamps where they were asked for, in the order of its lines, and zeros where nothing was charged."""
    store = Places(3)
    assert 18 == len(store.run(Acquire(QUOTAS, KEYS, [1] * 6)))
    answer = store.run(Acquire(QUOTAS, KEYS, [1] * 6, modes=[0, 0, 0, PEEK, 0, 0], stamps=True))
    end = round(NOW * 1000) + 60_000
    assert [end, round(NOW * 1e6) + 30_000_000, end, 0, end] == answer[18:23]
    refused = store.run(Acquire(QUOTAS, KEYS, [1] * 6, stamps=True))
    assert ([0] * 6, 24) == (refused[18:], len(refused))


def test_refusal_is_undone_in_one_round() -> None:
    """What other places charged for a refused request is given back by one operation for each, in a round of its own."""
    store = Places(3)
    store.run(Acquire(QUOTAS[4:5], KEYS[4:5], [2]))
    acquire = Acquire(QUOTAS, KEYS, [1] * 6)
    parts = acquire.divide(store.place)
    rows, undo = acquire.unite(parts, store.fly(parts))
    assert [1, 1, 1, 1, 0, 1] == rows[0::3]
    assert [3, 4, 5, 4, 0, 6] == rows[1::3]
    assert [("ratelimit.adjust", ["{0}", "{3}"]), ("ratelimit.adjust", ["{2}", "{5}", "{2}/-1"])] == [
        (one.script.name, list(one.keys)) for one in undo
    ]
    assert [2, 4, 4, 3, 0, 5] == store.run(Peek(QUOTAS, KEYS))[1::3]
    store.fly(undo)
    assert [3, 4, 5, 4, 0, 6] == store.run(Peek(QUOTAS, KEYS))[1::3]


@pytest.mark.parametrize("error", [StoreUnavailable("timeout"), OperationFailed("OOM")])
@pytest.mark.parametrize("lost", [0, 1, 2])
def test_part_without_an_answer(error: Exception, lost: int) -> None:
    """One part's failure is the whole's, and what the other parts charged is given back."""
    store = Places(3)
    assert error is store.run(Acquire(QUOTAS, KEYS, [1] * 6), [lost], error)
    assert [3, 4, 5, 4, 2, 6] == store.run(Peek(QUOTAS, KEYS))[1::3]


def test_no_answer_weighs_more_than_an_error() -> None:
    """Where one place says no and another says nothing, the store was not there."""
    store = Places(3)
    acquire = Acquire(QUOTAS, KEYS, [1] * 6)
    parts = acquire.divide(store.place)
    answers = store.fly(parts)
    answers[0], answers[2] = OperationFailed("OOM"), StoreUnavailable("timeout")
    answer, undo = acquire.unite(parts, answers)
    assert isinstance(answer, StoreUnavailable)
    assert 1 == len(undo)


def test_refused_and_failed() -> None:
    """A part that was refused has charged nothing, and nothing of it is given back."""
    store = Places(2)
    store.run(Acquire(QUOTAS[4:5], KEYS[4:5], [2]))
    acquire = Acquire(QUOTAS[2:6], KEYS[2:6], [1] * 4)
    parts = acquire.divide(store.place)
    answers = store.fly(parts)
    answers[1] = OperationFailed("OOM")
    answer, undo = acquire.unite(parts, answers)
    assert (answers[1], []) == (answer, list(undo))


def test_penalty_away_from_its_lines() -> None:
    """A penalty hears of a refusal in another place afterwards, once; not of those that it guards at home, which it has noted."""
    store = Places(2)
    tight = Quota(amount=1, window=3600)
    for quotas, keys, guards, left in (
        ([tight, PENALTY], ["{0}", "{1}"], 1, 1),  # away
        ([tight, tight, PENALTY], ["{0}", "{1}", "{3}"], 2, 1),  # away and at home
        ([tight, QUOTAS[0], PENALTY], ["{0}", "{2}", "{5}"], 1, 2),  # away, and not guarded
        ([tight, tight, PENALTY], ["{0}", "{2}", "{4}"], 2, 1),  # at home
    ):
        store.tables = [Table(), Table()]
        for key in keys[:-1]:
            if quotas[keys.index(key)] is tight:
                store.run(Acquire([tight], [key], [1]))
        assert 0 == store.run(Acquire(quotas, keys, [1] * (len(quotas) - 1) + [guards]))[0]
        assert left == store.run(Peek([PENALTY], keys[-1:]))[1], keys


@pytest.mark.parametrize(("mode", "breaches"), [(PEEK, 0), (0, 2)])
def test_penalty_that_is_not_to_be_told(mode: int, breaches: int) -> None:
    """A penalty that is only looked at, or blocks already, is not told of refusals in other places."""
    store = Places(2)
    tight = Quota(amount=1, window=3600)
    store.run(Acquire([tight], ["{0}"], [1]))
    Breaches("{1}", PENALTY, breaches).apply(store.tables[1], NOW)
    acquire = Acquire([tight, PENALTY], ["{0}", "{1}"], [1, 1], modes=[0, mode])
    parts = acquire.divide(store.place)
    rows, undo = acquire.unite(parts, store.fly(parts))
    assert (0, []) == (rows[0], list(undo))


def test_blocked_in_another_place() -> None:
    """A penalty that blocks makes the whole fail, and what was charged elsewhere is given back."""
    store = Places(2)
    Breaches("{1}", PENALTY, 2).apply(store.tables[1], NOW)
    rows = store.run(Acquire([QUOTAS[0], PENALTY], ["{0}", "{1}"], [1, 1]))
    assert [1, 3, 0, 0] == [rows[i] for i in (0, 1, 3, 4)]
    assert 3 == store.run(Peek(QUOTAS[:1], ["{0}"]))[1]


def test_adjust_and_reset() -> None:
    """Corrections and deletions are divided too; a part's failure is the whole's, and the others stand."""
    store = Places(3)
    answer = store.run(Acquire(QUOTAS, KEYS, [1] * 6, stamps=True))
    rows = store.run(Adjust(QUOTAS, KEYS, answer[18:], [-1, 1, -1, 1, -1, 1]))
    assert [3, 2, 5, 2, 2, 4] == rows[1::3]
    error = OperationFailed("READONLY")
    assert error is store.run(Adjust(QUOTAS, KEYS, [0] * 6, [1] * 6), [1], error)
    assert [2, 2, 4, 1, 2, 3] == store.run(Peek(QUOTAS, KEYS))[1::3]
    assert error is store.run(Reset(KEYS), [0], error)
    assert [2, 4, 5, 1, 2, 6] == store.run(Peek(QUOTAS, KEYS))[1::3]
    assert 2 == store.run(Reset(KEYS))
    assert [3, 4, 5, 4, 2, 6] == store.run(Peek(QUOTAS, KEYS))[1::3]
