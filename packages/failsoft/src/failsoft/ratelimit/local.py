"""Limits without their store: each process counts for itself, against its share.

With `workers` times `replicas` processes, each admits ``1 / (workers * replicas)`` of a quota, so that together they admit about
what the store would. A process starts an outage from what it last saw of each counter: a client that had used up its
quota is not given a new one. At the store's return the local counts are dropped: the store's own are right again.
"""

from collections.abc import Sequence
from threading import Lock

from failsoft.exchange import Table
from failsoft.forks import start_over_in_children
from failsoft.quota import Quota
from failsoft.ratelimit.acquire import Acquire, Rule, step_of
from failsoft.ratelimit.adjust import Adjust

__all__ = ["LocalLimits"]

_MOST_SEEN = 10_000
"""Counters remembered in a generation: going through them takes a few milliseconds, which is what a request may be held up by it."""


_Said = tuple[Sequence[str], Sequence[int], float]
"""What a store said of several counters: their keys, its rows, and when."""


class LocalLimits:
    """The counts of this process while there is no store.

    Args:
        share: this process's part of each quota, above 0 to 1.
        bound: counters remembered at most. Of what was last seen, a generation has no more than `_MOST_SEEN`.
    """

    __slots__ = ("__weakref__", "_bound", "_lock", "_older", "_seen", "_share", "_shares", "_table", "active")

    def __init__(self, *, share: float, bound: int) -> None:
        self.active = False
        self._share = share
        self._bound = min(bound, _MOST_SEEN)
        self._table = Table(bound)
        self._shares: dict[Rule, Rule] = {}
        # Two generations: when the newer is full it becomes the older, but for what must not be forgotten.
        self._seen: dict[str, _Said] = {}
        self._older: dict[str, _Said] = {}
        self._lock = Lock()
        start_over_in_children(self, LocalLimits._start_over)

    def remember(self, keys: Sequence[str], rows: Sequence[int], now: float) -> None:
        """Note what the store said at `now`. All keys share one note, which `_last` reads: each request pays, few notes are ever read."""
        seen = self._seen
        said = (keys, rows, now)
        for key in keys:
            seen[key] = said
        if len(seen) > self._bound:
            self._turn(now)

    def _turn(self, now: float) -> None:
        with self._lock:
            full = self._seen
            if len(full) <= self._bound:
                return
            # Copies, made in one step: other threads go on writing to what is gone through here.
            generations = (self._older.copy(), full.copy())
            kept = {
                key: said
                for known in generations
                for key, said in known.items()
                if 0 in said[1] and _exhausted(key, said, now)  # few have a 0 at all
            }
            # At most half, so that a flood of exhausted clients cannot make every request turn the generations.
            self._older = full
            self._seen = dict(list(kept.items())[-(self._bound // 2) :])

    def _start_over(self) -> None:
        """See `failsoft.forks`."""
        self._lock = Lock()

    def recovered(self) -> None:
        """The store answers again: what was counted here is void."""
        with self._table.lock:
            self.active = False
            self._table.clear()

    def decide(
        self,
        quotas: Sequence[Rule],
        keys: Sequence[str],
        costs: Sequence[int],
        now: float,
        modes: Sequence[int] | None = None,
        *,
        stamps: bool = False,
    ) -> list[int]:
        """Charge all or none against this process's share. The same rows as the store's, for the share.

        Args:
            quotas: a quota or a penalty for each key; penalties have no share, each process notes its own breaches.
            keys: where each one's state lies.
            costs: units, as `Acquire` takes them.
            now: seconds since the epoch.
            modes: as `Acquire` takes them.
            stamps: likewise.
        """
        shares = [self._share_of(rule) for rule in quotas]
        with self._table.lock:
            self.active = True
            for rule, share, key in zip(quotas, shares, keys, strict=True):
                said = self._seen.get(key) or self._older.get(key)
                if said is not None and self._table.find(key, now) is None:
                    self._seed(rule, share, key, _last(key, said), now)
            return Acquire(shares, keys, costs, modes=modes, stamps=stamps).apply(self._table, now)

    def adjust(self, adjust: Adjust, now: float) -> None:
        """Correct what was charged here; what was counted before the store's return is void, and so is its correction."""
        steps = [step_of(self._share_of(step.rule)) for step in adjust.steps]
        own = Adjust((), adjust.keys[: len(steps)], adjust.stamps, adjust.deltas, steps=steps)
        with self._table.lock:
            if self.active:
                own.apply(self._table, now)

    def _share_of(self, rule: Rule) -> Rule:
        if not isinstance(rule, Quota):
            return rule
        share = self._shares.get(rule)
        if share is None:
            if len(self._shares) > 1000:  # quotas made by functions may be without end
                self._shares.clear()
            share = self._shares[rule] = rule.share(self._share)
        return share

    def _seed(self, rule: Rule, share: Rule, key: str, last: tuple[int, float, float], now: float) -> None:
        remaining, until, said = last
        if isinstance(share, Quota):
            remaining = min(share.capacity, int(remaining * self._share))
        step_of(share).resume(self._table, key, remaining, until, said, now)


def _last(key: str, said: _Said) -> tuple[int, float, float]:
    """Of the counter under `key`: the units that remained, until when that holds, and when it was said."""
    keys, rows, at = said
    row = 3 * keys.index(key)
    return rows[row + 1], at + rows[row + 2] * 0.001, at


def _exhausted(key: str, said: _Said, now: float) -> bool:
    """Whether nothing was left of it, or less than was asked for."""
    remaining, until, _ = _last(key, said)
    return until > now and (remaining <= 0 or not said[1][3 * said[0].index(key)])
