"""The deny cache: refusals that this process remembers, so that a client who keeps on asking costs no flight.

Rules:

- An entry says that this key, so this limit with this value for this identity, could not be charged with this cost. A request
  that costs as much or more is refused by it; a cheaper one asks the store.
- It lives until there is more, at most for the setting `deny_cache`, 2 s by default. So an entry is never wrong by itself; only
  what somebody gives back meanwhile (a reset by hand) is noticed that much later. Limits that give back by themselves
  (`adjustable`, `charge_on`) are never remembered, and neither is what was decided without the store. Both times begin when this process
  looks at the store's answer, as the Retry-After that goes with it: to know when the flight began would cost each request a clock.
- New settings bring a new cache: a limit that was raised admits at once.
- Bounded: when it is full, what was there first goes, since it is closest to its end.
- What was told with the refusal is remembered whole, so that it can be told again: what of it holds is for those to say who ask.
- Refusals are counted in the entry. Where they are breaches that a penalty counts, the key's next flight takes them along, unless
  all of them are so old that the penalty has forgotten them.
"""

from collections.abc import Sequence
from math import inf
from threading import Lock

from failsoft.forks import start_over_in_children
from failsoft.ratelimit.lines import Batch, Line

__all__ = ["Denied", "DenyCache"]


class Denied:
    """A refusal that is remembered.

    Attributes:
        at: when that was.
        batch: what was decided together.
        keys: where each of its lines lies.
        owner: who decided it: what limits the route.
        refused: requests that were refused by it and that nobody has been told of.
    """

    __slots__ = ("_place", "_rows", "at", "batch", "keys", "owner", "refused", "until")

    def __init__(
        self,
        batch: Batch,
        place: int,
        rows: Sequence[int],
        at: float,
        until: float,
        *,
        keys: Sequence[str] = (),
        owner: object = None,
    ) -> None:
        self.at = at
        self.batch = batch
        self.keys = keys
        self.owner = owner
        self._place = place
        self._rows = rows
        self.until = until
        self.refused = 0

    @property
    def cost(self) -> int:
        """Units that were refused; a penalty refuses whatever the cost."""
        cost = self.batch.costs[self._place]
        return 0 if self.batch.steps[self._place].kind == "p" else cost

    def told(self, now: float, *, line: Line | None = None) -> tuple[Batch, Sequence[int]]:
        """What was decided and what the store said of it, as of now; or of the refusing limit alone, as `line`."""
        batch, rows = self.batch, self._rows
        if line is not None:
            batch, rows = line.alone(), rows[self._place * 3 : self._place * 3 + 3]
        passed = int((now - self.at) * 1000)
        return batch, [max(0, number - passed) if i % 3 == 2 else number for i, number in enumerate(rows)]


class DenyCache:
    """Refusals by key.

    Args:
        life: seconds that an entry lives at most; 0 remembers nothing.
        bound: entries at most.

    Attributes:
        entries: by key; read only. To ask whether there are any costs a hot path less than a method would.
    """

    __slots__ = ("__weakref__", "_bound", "_lock", "entries", "life")

    def __init__(self, *, life: float, bound: int) -> None:
        self.life = life
        self._bound = bound
        self.entries: dict[str, Denied] = {}
        self._lock = Lock()
        start_over_in_children(self, DenyCache._start_over)

    def __len__(self) -> int:
        return len(self.entries)

    def remember(
        self, owner: object, keys: Sequence[str], batch: Batch, place: int, rows: Sequence[int], now: float
    ) -> None:
        """A store refused the line at `place` of `batch`, whose lines lie under `keys`. `now` is monotonic."""
        key = keys[place]
        life = min(self.life, rows[place * 3 + 2] / 1000)
        if life <= 0:
            return
        entry = Denied(batch, place, rows, now, now + life, keys=keys, owner=owner)
        with self._lock:
            known = self.entries.pop(key, None)
            if known is not None:
                entry.refused = known.refused
            elif len(self.entries) >= self._bound:
                del self.entries[next(iter(self.entries))]
            self.entries[key] = entry

    def __contains__(self, key: str) -> bool:
        """Whether anything is remembered of `key`, perhaps something that is over."""
        return key in self.entries

    def find(self, key: str, cost: int, now: float) -> Denied | None:
        """What is known of `key`, if it does not hold `cost`."""
        entry = self.entries.get(key)
        if entry is None:
            return None
        if entry.until <= now:
            if not entry.refused:
                with self._lock:  # else what `remember` is about to evict may be gone
                    if self.entries.get(key) is entry:
                        del self.entries[key]
            return None
        return entry if cost >= entry.cost else None

    def count(self, key: str) -> None:
        """A request was refused by what is remembered of `key`."""
        with self._lock:  # `remember` takes over what was counted: who found the entry before that would count in vain
            entry = self.entries.get(key)
            if entry is not None:
                entry.refused += 1

    def collect(self, key: str, since: float) -> int:
        """How many requests were refused by what is remembered of `key` since the last time this was asked; 0 where that was before
        `since`."""
        with self._lock:  # as above: it would be told twice
            entry = self.entries.get(key)
            if entry is None:
                return 0
            refused, entry.refused = entry.refused, 0
            return refused if entry.at + self.life > since else 0

    def forget(self, key: str) -> None:
        """Units of `key` are given back: the store is to be asked again. How many were refused is kept."""
        entry = self.entries.get(key)
        if entry is not None:
            entry.until = -inf

    def _start_over(self) -> None:
        """See `failsoft.forks`. What was refused holds here as well, and is the parent's to tell."""
        self._lock = Lock()
        for entry in self.entries.values():
            entry.refused = 0

    def clear(self) -> None:
        """Forget everything."""
        with self._lock:
            self.entries.clear()
