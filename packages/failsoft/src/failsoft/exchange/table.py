"""A bounded table of expiring values: what operations run on when the store is this process.

Rules:

- At most `bound` entries. When full, the entry that was created first goes, but an entry that is kept only when such
  entries fill more than three quarters. Kept is an exhausted limit: one with nothing left, or with less than it has
  refused. Otherwise an attacker erases a verdict by making new keys; and the last quarter is for newcomers, who must be
  remembered to be counted.
- Expired entries are dropped as time passes, a few with each write, never by a scan: due times lie in a heap, and an
  entry whose life was prolonged meanwhile is pushed back when its old due time comes up.
- Evicted, deleted and shortened entries leave items behind. When the heap holds twice as many items as the table may hold
  entries, the others move to a new one, a few with each push, from the old one's end: a heap without its last item is one
  still. By then the two hold at most a quarter more. No operation handles more than a few items, however large the table
  is; what grows with it is only the pause in which Python enlarges a dictionary (10 ms with 100,000 keys).
- Not thread-safe: `MemoryStore` and its like hold `lock` around an operation, which makes the operation atomic. It is reentrant,
  because a signal handler may interrupt an operation with one of its own, or close the store.
- A forked process goes on with what was there, under a lock of its own: who held the parent's is not in it.
"""

from collections import OrderedDict
from collections.abc import Callable
from heapq import heappop, heappush
from threading import RLock
from typing import Any

from failsoft.forks import start_over_in_children

__all__ = ["DEFAULT_BOUND", "Entry", "Table"]

DEFAULT_BOUND = 100_000
"""Entries; about 300 bytes each with their keys."""

_SWEEP = 2
"""Due entries handled with each write: more than one, so that the sweep is faster than the writers."""

_MOVE = 4
"""Items of the old heap handled with each push: it is empty long before the new one is full."""

_Item = tuple[float, str]
"""When the entry under a key is to be looked at. The entry knows its own, by identity; all others are leftovers."""


class Entry:
    """A value, when it expires (seconds since the epoch), and the units below which it must outlive its neighbours."""

    __slots__ = ("due", "expires", "least", "value")

    def __init__(self, value: Any, due: _Item) -> None:
        self.value = value
        self.expires = due[0]
        self.due = due
        self.least = 1


class Table:
    """Keys to expiring values.

    Args:
        bound: entries at most, at least 1.
    """

    __slots__ = ("__weakref__", "_due", "_entries", "_kept", "_old", "bound", "lock", "peek")

    def __init__(self, bound: int = DEFAULT_BOUND) -> None:
        self.bound = bound
        self.lock = RLock()
        self._entries: OrderedDict[str, Entry] = OrderedDict()
        self._kept: OrderedDict[str, Entry] = OrderedDict()
        self._due: list[_Item] = []
        self._old: list[_Item] = []
        # The dictionary's own method, for hot paths: an entry, expired or not, but none that is kept.
        self.peek: Callable[[str], Entry | None] = self._entries.get
        start_over_in_children(self, Table._start_over)

    def _start_over(self) -> None:
        self.lock = RLock()

    def __len__(self) -> int:
        return len(self._entries) + len(self._kept)

    def find(self, key: str, now: float) -> Entry | None:
        """The entry under `key`, or None if there is none or it has expired. Its value may be replaced in place."""
        entry = self._entries.get(key) or self._kept.get(key)
        return entry if entry is not None and entry.expires > now else None

    def get(self, key: str, now: float) -> Any:
        """The value under `key`, or None if there is none or it has expired."""
        entry = self.find(key, now)
        return None if entry is None else entry.value

    def set(self, key: str, value: Any, *, expires: float, now: float, left: int = 1) -> None:
        """Put `value` under `key` until `expires`. Where no units are `left`, or fewer than it refused, it is kept."""
        home = self._entries
        entry = home.get(key)
        if entry is None:
            home = self._kept
            entry = home.get(key)
            if entry is None:
                entry = Entry(value, (expires, key))
                home = self._entries if left > 0 else home
                home[key] = entry  # first: a signal handler's operation would take the item for a leftover
                self._push(entry.due)
        if entry.expires <= now:
            entry.least = 1  # what it refused is long ago
        kept = left < entry.least
        if kept is not (home is self._kept):
            del home[key]
            (self._kept if kept else self._entries)[key] = entry
        entry.value = value
        entry.expires = expires
        if expires < entry.due[0]:  # shortened: the heap must hear of it before the old due time
            entry.due = (expires, key)
            self._push(entry.due)
        due = self._due
        if self._old or (due and due[0][0] <= now):
            self._sweep(now)
        if len(self._entries) + len(self._kept) > self.bound:
            self._evict()

    def keep(self, key: str, units: int) -> None:
        """The entry under `key`, if there is one, refused so many units: it is kept for as long as it has fewer."""
        entry = self._entries.pop(key, None)
        if entry is not None:
            self._kept[key] = entry
        else:
            entry = self._kept.get(key)
        if entry is not None and units > entry.least:
            entry.least = units

    def delete(self, key: str) -> None:
        """Forget `key`."""
        if self._entries.pop(key, None) is None:
            self._kept.pop(key, None)

    def clear(self) -> None:
        """Forget everything."""
        self._entries.clear()
        self._kept.clear()
        self._due.clear()
        self._old.clear()

    def _sweep(self, now: float) -> None:
        for _ in range(_SWEEP):
            due, old = self._due, self._old
            if old and (not due or old[0] < due[0]):
                due = old
            if not due or due[0][0] > now:
                return
            item = heappop(due)
            _, key = item
            home = self._entries if key in self._entries else self._kept
            entry = home.get(key)
            if entry is None or entry.due is not item:
                continue  # a leftover
            if entry.expires <= now:
                del home[key]
            else:
                entry.due = (entry.expires, key)
                heappush(self._due, entry.due)

    def _evict(self) -> None:
        newcomers = len(self._entries) > self.bound // 4
        (self._entries if newcomers else self._kept).popitem(last=False)

    def _push(self, item: _Item) -> None:
        old = self._old
        if old:
            for _ in range(_MOVE):
                if not old:
                    break  # asked each time: a signal handler's operation takes from it too
                other = old.pop()
                _, key = other
                entry = self._entries.get(key) or self._kept.get(key)
                if entry is not None and entry.due is other:
                    heappush(self._due, other)
        elif len(self._due) >= 2 * self.bound:
            self._old = self._due
            self._due = []
        heappush(self._due, item)
