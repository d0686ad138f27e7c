"""The bounded table: a model, its bound, and what is forgotten first."""

from collections.abc import Callable

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule

from failsoft.exchange import Table

KEYS = st.sampled_from("abcdefghijkl")


def waiting(table: Table) -> int:
    """How many items wait for their due times, those of entries that are gone included."""
    return len(table._due) + len(table._old)


class AgainstModel(RuleBasedStateMachine):
    """Whatever happens, the table tells the truth about what it still has, and forgets in the right order."""

    @initialize(bound=st.integers(min_value=1, max_value=6))
    def begin(self, bound: int) -> None:
        self.table = Table(bound)
        self.now = 1000.0
        self.model: dict[str, tuple[int, float, bool]] = {}
        self.number = 0

    @rule(key=KEYS, life=st.integers(min_value=1, max_value=20), keep=st.booleans())
    def put(self, key: str, life: int, keep: bool) -> None:
        before = {known for known in self.model if self.table.get(known, self.now) is not None}
        self.number += 1
        self.table.set(key, self.number, expires=self.now + life, now=self.now, left=0 if keep else 1)
        self.model[key] = (self.number, self.now + life, keep)
        lost = {known for known in before | {key} if self.table.get(known, self.now) is None}
        if any(self.model[one][2] for one in lost):
            left = {known for known in before | {key} if self.table.get(known, self.now) is not None}
            others = [one for one in left if not self.model[one][2]]
            assert len(others) <= self.table.bound // 4, "an exhausted entry went while enough others were left"

    @rule(key=KEYS)
    def drop(self, key: str) -> None:
        self.table.delete(key)
        self.model.pop(key, None)

    @rule(seconds=st.integers(min_value=1, max_value=10))
    def wait(self, seconds: int) -> None:
        self.now += seconds

    @invariant()
    def bounded(self) -> None:
        if hasattr(self, "table"):
            assert len(self.table) <= self.table.bound
            assert waiting(self.table) <= 2.25 * self.table.bound + 2
            # Whatever is there will be swept, though nobody asks for it: its item is in a heap, once.
            items = [id(item) for heap in (self.table._due, self.table._old) for item in heap]
            for home in (self.table._entries, self.table._kept):
                assert [1] * len(home) == [items.count(id(entry.due)) for entry in home.values()]
                assert all(entry.due[0] <= entry.expires for entry in home.values())

    @invariant()
    def ordered(self) -> None:
        if hasattr(self, "table"):
            for heap in (self.table._due, self.table._old):
                assert all(heap[(place - 1) // 2] <= heap[place] for place in range(1, len(heap)))

    @invariant()
    def truthful(self) -> None:
        if hasattr(self, "table"):
            for key in "abcdefghijkl":
                value, expires, _ = self.model.get(key, (None, 0.0, False))
                assert self.table.get(key, self.now) in ((value, None) if expires > self.now else (None,))


TestAgainstModel = AgainstModel.TestCase
TestAgainstModel.settings = settings(
    max_examples=max(10, settings().max_examples // 2), stateful_step_count=40, deadline=None
)


@given(st.lists(st.tuples(KEYS, st.integers(min_value=1, max_value=9)), max_size=40))
@settings(deadline=None)
def test_nothing_is_lost_below_the_bound(writes: list[tuple[str, int]]) -> None:
    """With room for all keys, every entry is there until it expires, and the last write counts."""
    table, model, now = Table(12), dict[str, tuple[int, float]](), 0.0
    for number, (key, life) in enumerate(writes):
        table.set(key, number, expires=now + life, now=now, left=number % 3)
        model[key] = (number, now + life)
        now += 1
        expected = {key: number for key, (number, expires) in model.items() if expires > now}
        assert expected == {key: table.get(key, now) for key in model if table.get(key, now) is not None}


def test_expires_at_its_moment() -> None:
    """An entry is there until just before it expires, and not at that moment."""
    table = Table()
    table.set("key", "value", expires=10.0, now=0.0)
    assert ["value", None] == [table.get("key", now) for now in (9.999, 10.0)]


def test_oldest_goes_first() -> None:
    """A full table forgets what was created first, however often it was written since."""
    table = Table(2)
    for key in ("first", "second"):
        table.set(key, 1, expires=100.0, now=0.0)
    table.set("first", 2, expires=100.0, now=1.0)
    table.set("third", 1, expires=100.0, now=2.0)
    assert [None, 1, 1] == [table.get(key, 3.0) for key in ("first", "second", "third")]


def test_kept_entries_go_when_nothing_else_is_left() -> None:
    """The bound holds for exhausted entries too: then the first of them goes."""
    table = Table(2)
    for key in ("first", "second", "third"):
        table.set(key, 1, expires=100.0, now=0.0, left=0)
    assert [None, 1, 1] == [table.get(key, 1.0) for key in ("first", "second", "third")]


def test_newcomers_are_counted_beside_the_exhausted() -> None:
    """A table full of exhausted limits still remembers newcomers, or they would never be counted."""
    table = Table(100)
    for number in range(100):
        table.set(f"exhausted{number}", 1, expires=100.0, now=0.0, left=0)
    for number in range(25):
        table.set(f"newcomer{number}", 1, expires=100.0, now=1.0)
    assert [1] * 25 == [table.get(f"newcomer{number}", 2.0) for number in range(25)]
    assert [1] * 75 == [table.get(f"exhausted{number}", 2.0) for number in range(25, 100)]


def test_entry_that_is_no_longer_kept() -> None:
    """An entry that was exhausted and is not any more is forgotten like all others."""
    table = Table(2)
    table.set("recovered", 0, expires=100.0, now=0.0, left=0)
    table.set("recovered", 5, expires=100.0, now=1.0)
    table.set("exhausted", 0, expires=100.0, now=1.0, left=0)
    table.set("fresh", 1, expires=100.0, now=1.0)
    assert [None, 0, 1] == [table.get(key, 2.0) for key in ("recovered", "exhausted", "fresh")]


def test_writes_sweep_the_expired() -> None:
    """Expired entries leave as others are written, without anybody asking for them."""
    table = Table(1000)
    for number in range(500):
        table.set(f"old{number}", 1, expires=10.0, now=0.0)
    for number in range(250):
        table.set(f"new{number}", 1, expires=100.0, now=20.0)
    assert 250 == len(table)


def test_prolonged_entry_outlives_its_first_due_time() -> None:
    """The sweep looks at when an entry expires now, not at when it was to expire."""
    table = Table()
    table.set("key", 1, expires=10.0, now=0.0)
    table.set("key", 1, expires=100.0, now=1.0)
    for number in range(10):
        table.set(f"other{number}", 1, expires=100.0, now=20.0)
    assert 1 == table.get("key", 20.0)


def test_shortened_entry_leaves_at_its_new_time() -> None:
    """An entry whose life was shortened is swept then, not at its old time."""
    table = Table()
    table.set("key", 1, expires=1000.0, now=0.0)
    table.set("key", 1, expires=10.0, now=0.0)
    table.set("other", 1, expires=1000.0, now=20.0)
    assert 1 == len(table)


def test_deleted_keys_leave_nothing_behind() -> None:
    """Keys that are made and deleted without end, and lives shortened without end, do not make the table grow."""
    table = Table(100)
    for number in range(5000):
        table.set(f"key{number}", 1, expires=1e9, now=0.0)
        table.delete(f"key{number}")
        table.set("shrinking", 1, expires=1e9 - number, now=0.0)
    assert 1 == len(table)
    assert waiting(table) <= 227


def test_a_key_that_comes_and_goes_leaves_nothing_behind() -> None:
    """A key that is made again and again with the same end, as in an aligned window, is in the way once, not each time."""
    table = Table(100)
    for _ in range(5000):
        table.set("key", 1, expires=1e9, now=0.0)
        table.delete("key")
        assert waiting(table) <= 227
    table.set("key", 1, expires=1e9, now=0.0)
    for number in range(500):
        table.set(f"other{number % 50}", 1, expires=10.0, now=20.0 * number)
    assert 1 == table.get("key", 1e6)
    table.set("other", 1, expires=2e9, now=1e9)
    assert table.find("key", 0.0) is None, "it was swept at its end"


def test_the_expired_are_swept_while_items_move() -> None:
    """Writes sweep the old heap too, for as long as there is one."""
    table = Table(100)
    for number in range(50):
        table.set(f"old{number}", 1, expires=10.0, now=0.0)
    while not table._old:
        table.set("passing", 1, expires=1e6, now=0.0)
        table.delete("passing")
    for _ in range(26):
        table.set("new", 1, expires=1e6, now=20.0)
    assert table._old
    assert 1 == len(table)


class Touched:
    """Counts what an operation looks at: keys hashed, and times compared."""

    count = 0

    class Key(str):
        __slots__ = ()

        def __hash__(self) -> int:
            Touched.count += 1
            return super().__hash__()

    class Time(float):
        __slots__ = ()
        __hash__ = float.__hash__

        def __eq__(self, other: object) -> bool:
            Touched.count += 1
            return float(self) == other

        def __lt__(self, other: float) -> bool:
            Touched.count += 1
            return float(self) < other

        def __gt__(self, other: float) -> bool:
            Touched.count += 1
            return float(self) > other

        def __le__(self, other: float) -> bool:
            Touched.count += 1
            return float(self) <= other


FLOODS: dict[str, Callable[[int], tuple[int, float, bool]]] = {
    "one window": lambda number: (number, 60.0, False),
    "an aligned window": lambda number: (number % 5000, 1e6 - number, False),
    "many windows": lambda number: (number, 1.0 + number * 7919 % 100_003, False),
    "short lives": lambda number: (number, 0.1 + number * 7919 % 907 / 1000, False),
    "shortened lives": lambda number: (number % 50, 1e6 - 2 * number, False),
    "exhausted limits": lambda number: (number * 7919 % 8009, 1.0 + number * 6007 % 100_003, number % 3 == 0),
}
"""What comes as the operation of a number: a key, the seconds that it lives, and whether it is exhausted."""


@pytest.mark.parametrize("flood", FLOODS)
def test_no_operation_looks_at_everything(flood: str) -> None:
    """However many keys come and go, each write looks at a few: the heaps' depth, times the items it handles."""
    table = Table(2000)
    worst = 0
    for number in range(14_000):
        key, life, exhausted = FLOODS[flood](number)
        now = number / 1000
        expires = Touched.Time(now + life)
        name = Touched.Key(key)
        Touched.count = 0
        table.set(name, number, expires=expires, now=now, left=0 if exhausted else 1)
        worst = max(worst, Touched.count)
        if number % 7 == 0:
            table.delete(name)
    assert 0 < worst <= 400
    assert waiting(table) <= 2.25 * table.bound + 2


def test_clear() -> None:
    """A cleared table has nothing, and works on."""
    table = Table(2)
    table.set("kept", 1, expires=10.0, now=0.0, left=0)
    table.set("key", 1, expires=10.0, now=0.0)
    table.clear()
    assert (0, None, None) == (len(table), table.get("kept", 1.0), table.get("key", 1.0))
    table.set("key", 2, expires=10.0, now=1.0)
    assert 2 == table.get("key", 2.0)


def test_entries_that_refused_are_kept() -> None:
    """An entry that refused some units is kept while it has fewer, and forgotten like all others when it has as many."""
    table = Table(4)
    table.set("refused", "1", expires=100.0, now=0.0, left=2)
    table.keep("refused", 3)
    table.keep("refused", 2)
    table.keep("unknown", 3)

    def fill(now: float) -> None:
        for number in range(8):
            table.set(f"fresh{number}", 1, expires=100.0, now=now)

    fill(1.0)
    assert "1" == table.get("refused", 1.0)
    table.set("refused", "2", expires=100.0, now=1.0, left=2)
    fill(2.0)
    assert "2" == table.get("refused", 2.0)
    table.set("refused", "3", expires=100.0, now=2.0, left=3)
    fill(3.0)
    assert table.get("refused", 3.0) is None


def test_what_an_entry_refused_in_an_earlier_life() -> None:
    """An entry that is written anew after its end does not remember what it refused."""
    table = Table(4)
    table.set("key", "1", expires=10.0, now=0.0)
    table.keep("key", 3)
    table.set("key", "2", expires=100.0, now=10.0, left=2)
    for number in range(8):
        table.set(f"fresh{number}", 1, expires=100.0, now=11.0)
    assert table.get("key", 11.0) is None
