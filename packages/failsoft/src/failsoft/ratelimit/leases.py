"""Leases: units of a busy client's limits, fetched at once and given out in this process, without asking the store.

Theory of operation. A request of a client that was seen at least `HOT` times within the last second asks, in the flight that it makes
anyway, for some units more: as many as that client used in the last second, less than the limit's `lease`. They are charged then
and there, all limits of the request together or none, and given out until they are used up or their window ends.

Bounds, whatever processes do, die of, or are partitioned from:

- Never more is admitted than the quota: what is given out was charged before. A forked child has none of its parent's units.
- A fixed window's units are given out only before the window ends, by a clock that started before the flight did. GCRA's have no
  window: any stretch of time may see up to ``lease - 1`` units for each process more than the burst and the rate allow it,
  charged before it began.
- At most ``lease - 1`` units lie in each process, for each key: a client that other processes refuse gets that many less. Nothing is
  leased once less remains than all processes together could hold. (A process that is killed in a flight loses what it fetched.)
- What clients are told remains is the store's last word and the units in hand: other processes' leases make it an upper bound.

Bounded: leases of at most `bound` keys; the oldest go first, and with them their units.
"""

import math
from collections.abc import Sequence
from threading import Lock

from failsoft.forks import start_over_in_children

__all__ = ["HOT", "Leases"]

HOT = 4
"""Requests within a second that make a client busy: fewer would leave more units over than they save flights."""

_PENDING = 1.0
"""Seconds after which a fetch that nobody heard of again is taken to be lost."""


class _Lease:
    __slots__ = ("beyond", "count", "last", "most", "pending", "reset_at", "since", "units", "until")

    def __init__(self, now: float) -> None:
        self.since = now
        self.count = 0  # units asked for since then
        self.last = 0  # and in the second before
        self.pending = 0.0  # until when somebody is taken to be fetching
        self.units = 0
        self.most = 0  # units that may lie here
        self.until = 0.0
        self.beyond = 0  # what the store said remains, beside the units in hand
        self.reset_at = 0.0


class Leases:
    """The leases of one process on one store.

    Args:
        processes: how many processes may hold leases of the same limits.
        bound: keys at most.
    """

    __slots__ = ("__weakref__", "_bound", "_leases", "_lock", "_processes")

    def __init__(self, *, processes: int, bound: int) -> None:
        self._processes = processes
        self._bound = bound
        self._leases: dict[str, _Lease] = {}
        self._lock = Lock()
        start_over_in_children(self, Leases._start_over)

    def __len__(self) -> int:
        return len(self._leases)

    def take(self, keys: Sequence[str], costs: Sequence[int], now: float) -> list[int] | None:
        """Give out the costs of a request: rows as a store's, or None where some lease does not hold enough."""
        with self._lock:
            leases: list[_Lease] = []
            for key, cost in zip(keys, costs, strict=True):
                lease = self._leases.get(key)
                if lease is None or lease.units < cost or lease.until <= now:
                    return None
                leases.append(lease)
            rows: list[int] = []
            for lease, cost in zip(leases, costs, strict=True):
                lease.units -= cost
                lease.count += cost
                rows += (1, lease.beyond + lease.units, max(0, int((lease.reset_at - now) * 1000 + 0.999)))
            return rows

    def want(self, keys: Sequence[str], costs: Sequence[int], most: Sequence[int], now: float) -> list[int] | None:
        """Note a request that asks the store. Returns the units to fetch beside it, or None: the client is not busy, or too little is left.

        Args:
            keys: one for each limit.
            costs: what the request itself takes.
            most: the limits' leases.
            now: monotonic, before the flight.
        """
        with self._lock:
            leases = [self._noted(key, cost, now) for key, cost in zip(keys, costs, strict=True)]
            requests = min(
                min(size - 1, max(lease.count, lease.last), lease.beyond // (2 * self._processes)) // cost
                if cost and max(lease.count, lease.last) >= HOT * cost and lease.pending <= now
                else 0
                for lease, cost, size in zip(leases, costs, most, strict=True)
            )
            if not requests:
                return None
            wanted: list[int] = []
            for lease, cost, size in zip(leases, costs, most, strict=True):
                # One fetch at a time: those of requests that ask at the same time would add up.
                lease.pending = now + _PENDING
                lease.most = max(lease.most, size - 1)
                in_hand = lease.units if lease.until > now else 0
                wanted.append(max(0, requests * cost - in_hand))
            return wanted

    def _noted(self, key: str, cost: int, now: float) -> _Lease:
        """The lease of `key`, new or not, with another request counted."""
        lease = self._leases.get(key)
        if lease is None:
            if len(self._leases) >= self._bound:
                del self._leases[next(iter(self._leases))]
            lease = self._leases[key] = _Lease(now)
        if now - lease.since >= 1.0:
            lease.last = lease.count if now - lease.since < 2.0 else 0
            lease.since, lease.count = now, 0
        lease.count += cost
        return lease

    def grant(
        self, keys: Sequence[str], units: Sequence[int], rows: Sequence[int], ends: Sequence[bool], asked: float
    ) -> None:
        """The store has charged `units` beside the request.

        Args:
            keys: one for each limit.
            units: what was charged.
            rows: the store's, after the charge.
            ends: for each limit whether its units end with its window.
            asked: monotonic, before the flight: later than that the window cannot have begun.
        """
        with self._lock:
            for i, key in enumerate(keys):
                lease = self._leases.get(key)
                if lease is None:
                    continue
                reset_at = asked + rows[i * 3 + 2] / 1000
                until = reset_at if ends[i] else math.inf
                # Units that somebody fetched at the same time, of this window or an earlier one, end with the sooner of the two.
                held = lease.units if lease.until > asked else 0
                lease.until = min(until, lease.until) if held else until
                # Where this process stood still meanwhile, others have fetched, too; what is beyond the lease is lost.
                lease.units = min(held + units[i], lease.most)
                lease.beyond, lease.reset_at = rows[i * 3 + 1], reset_at
                lease.pending = 0.0

    def note(self, keys: Sequence[str], rows: Sequence[int], asked: float, *, fetched: bool) -> None:
        """What the store said remains, where nothing came beside the request; `fetched` says whether something was asked for."""
        with self._lock:
            for i, key in enumerate(keys):
                lease = self._leases.get(key)
                if lease is not None:
                    lease.beyond, lease.reset_at = rows[i * 3 + 1], asked + rows[i * 3 + 2] / 1000
                    if fetched:
                        lease.pending = 0.0

    def _start_over(self) -> None:
        """See `failsoft.forks`."""
        self._lock = Lock()
        self._leases = {}

    def clear(self) -> None:
        """Forget everything; the units are lost."""
        with self._lock:
            self._leases.clear()
