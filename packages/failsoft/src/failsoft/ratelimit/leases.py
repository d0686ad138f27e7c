"""Leases: units of a busy client's limits, fetched at once and given out in this process, without asking the store.

Theory of operation. A request of a client that was seen at least `HOT` times within the last second asks, in the flight that it makes
anyway, for some units more: as many as that client used in the last second, at most the limit's `lease`. They are charged then
and there, all limits of the request together or none, and given out until they are used up or `LIFE` is over.

Bounds, whatever processes do, die of, or are partitioned from:

- Never more is admitted than the quota: what is given out was charged before.
- A fixed window's units are given out only before the window ends, by a clock that started before the flight did. GCRA's may be given
  out up to `LIFE` after they were charged, so that a stretch of time may see up to one lease for each process more than the
  rate and the burst allow it; over any longer time the rate holds.
- At most ``lease - 1`` units for each process and key are left over when a lease ends: the client gets that many less. Nothing
  is leased once less remains than all processes together could hold.
- What clients are told remains is the store's last word and the units in hand: other processes' leases make it an upper bound.

Bounded: leases of at most `bound` keys; the oldest go first, and with them their units.
"""

from collections.abc import Sequence
from threading import Lock

__all__ = ["HOT", "LIFE", "Leases"]

HOT = 4
"""Requests within a second that make a client busy: fewer would leave more units over than they save flights."""

LIFE = 1.0
"""Seconds for which units are held at most."""


class _Lease:
    __slots__ = ("beyond", "count", "last", "reset_at", "since", "units", "until")

    def __init__(self, now: float) -> None:
        self.since = now
        self.count = 0  # units asked for since then
        self.last = 0  # and in the second before
        self.units = 0
        self.until = 0.0
        self.beyond = 0  # what the store said remains, beside the units in hand
        self.reset_at = 0.0


class Leases:
    """The leases of one process on one store.

    Args:
        processes: how many processes may hold leases of the same limits.
        bound: keys at most.
    """

    __slots__ = ("_bound", "_leases", "_lock", "_processes")

    def __init__(self, *, processes: int, bound: int) -> None:
        self._processes = processes
        self._bound = bound
        self._leases: dict[str, _Lease] = {}
        self._lock = Lock()

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
        wanted: list[int] = []
        with self._lock:
            for key, cost, lease_of in zip(keys, costs, most, strict=True):
                lease = self._leases.get(key)
                if lease is None:
                    if len(self._leases) >= self._bound:
                        del self._leases[next(iter(self._leases))]
                    lease = self._leases[key] = _Lease(now)
                if now - lease.since >= 1.0:
                    lease.last = lease.count if now - lease.since < 2.0 else 0
                    lease.since, lease.count = now, 0
                lease.count += cost
                rate = max(lease.count, lease.last)
                size = min(lease_of - 1, rate, lease.beyond // (2 * self._processes))
                # Not while units are in hand: what those who asked at the same time fetch would add up.
                held = lease.units > 0 and lease.until > now
                wanted.append(0 if held or rate < HOT * cost else size)
        return wanted if all(units >= cost for units, cost in zip(wanted, costs, strict=True)) else None

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
                until = min(asked + LIFE, reset_at) if ends[i] else asked + LIFE
                # Units that somebody fetched at the same time, of this window or an earlier one, end with the sooner of the two.
                held = lease.units if lease.until > asked else 0
                lease.until = min(until, lease.until) if held else until
                lease.units = held + units[i]
                lease.beyond, lease.reset_at = rows[i * 3 + 1], reset_at

    def note(self, keys: Sequence[str], rows: Sequence[int], asked: float) -> None:
        """What the store said remains, where nothing was fetched."""
        with self._lock:
            for i, key in enumerate(keys):
                lease = self._leases.get(key)
                if lease is not None:
                    lease.beyond, lease.reset_at = rows[i * 3 + 1], asked + rows[i * 3 + 2] / 1000

    def clear(self) -> None:
        """Forget everything; the units are lost."""
        with self._lock:
            self._leases.clear()
