"""One atomic decision over any number of limits: all of them are charged, or none.

For each limit the answer has three whole numbers: whether it lets the request pass (1 or 0), the units that remain, and the
milliseconds until there are more. `apply` and the script compute the same numbers from the same state in whole microseconds, so
that a store in this process and a server agree to the unit.

State, one key for each limit:

- Fixed window: the count; the key expires when the window ends.
- GCRA: the theoretical arrival time, in microseconds since the epoch: the moment at which the bucket is full again.
  A request of cost c passes if that moment, moved on by c emissions, lies at most ``emission * capacity`` ahead of now.

A refused request writes nothing.
"""

from collections.abc import Sequence
from math import ceil
from typing import Any, NamedTuple

from failsoft.exchange import Script, Table
from failsoft.exchange.table import Entry
from failsoft.ratelimit.quota import Quota

__all__ = ["ARGUMENTS", "SCRIPT", "Acquire", "Step", "quota_arguments", "step_of"]

ARGUMENTS = 5
"""Arguments for each key: kind, capacity, window in ms (fixed) or emission in µs (gcra), aligned (1 or 0), cost."""

SCRIPT = Script(
    "ratelimit.acquire",
    """
local n, fits_all, now_ms, now_us = #KEYS, true, nil, nil
local out, used, fresh = {}, {}, {}
for i = 1, n do
  local a = (i - 1) * 5
  local capacity, unit, cost = tonumber(ARGV[a + 2]), tonumber(ARGV[a + 3]), tonumber(ARGV[a + 5])
  local stored = tonumber(redis.call('GET', KEYS[i]) or nil)
  local o = (i - 1) * 3
  local gcra = ARGV[a + 1] == 'g'
  if not now_us and (gcra or ARGV[a + 4] == '1') then
    local t = redis.call('TIME')
    now_us = tonumber(t[1]) * 1000000 + tonumber(t[2])
  end
  if gcra then
    local from = now_us
    if stored and stored > from then from = stored end
    used[i] = from + unit * cost
    local room = now_us + unit * capacity - used[i]
    if room >= 0 then
      out[o + 1], out[o + 2] = 1, math.floor(room / unit)
      out[o + 3] = 0
      if out[o + 2] < capacity then out[o + 3] = math.ceil(((out[o + 2] + 1) * unit - room) / 1000) end
    else
      fits_all = false
      out[o + 1], out[o + 2], out[o + 3] = 0, math.max(0, math.floor((room + unit * cost) / unit)), math.ceil(-room / 1000)
    end
  else
    local left = stored and redis.call('PTTL', KEYS[i]) or -2
    if left < 0 then
      stored = 0
      left = unit
      if ARGV[a + 4] == '1' then left = unit - math.floor(now_us / 1000) % unit end
      fresh[i] = true
    end
    used[i] = stored + cost
    out[o + 3] = left
    if used[i] <= capacity then
      out[o + 1], out[o + 2] = 1, capacity - used[i]
    else
      fits_all = false
      out[o + 1], out[o + 2] = 0, math.max(0, capacity - stored)
    end
  end
end
for i = 1, n do
  local a, o = (i - 1) * 5, (i - 1) * 3
  local cost = tonumber(ARGV[a + 5])
  if fits_all then
    if ARGV[a + 1] == 'g' then
      redis.call('SET', KEYS[i], string.format('%.0f', used[i]), 'PX', math.max(1, math.ceil((used[i] - now_us) / 1000)))
    elseif fresh[i] then
      redis.call('SET', KEYS[i], string.format('%.0f', used[i]), 'PX', out[o + 3])
    elseif cost > 0 then
      redis.call('INCRBY', KEYS[i], cost)
    end
  elseif out[o + 1] == 1 then
    local unit = tonumber(ARGV[a + 3])
    if ARGV[a + 1] == 'g' then
      local room = now_us + unit * tonumber(ARGV[a + 2]) - used[i] + unit * cost
      out[o + 2] = math.floor(room / unit)
      out[o + 3] = 0
      if out[o + 2] < tonumber(ARGV[a + 2]) then out[o + 3] = math.ceil(((out[o + 2] + 1) * unit - room) / 1000) end
    else
      out[o + 2] = out[o + 2] + cost
    end
  end
end
return out
""",
)


def quota_arguments(quota: Quota, cost: int) -> tuple[str, ...]:
    """The arguments that go with one key."""
    if quota.algorithm == "gcra":
        return ("g", str(quota.capacity), str(quota.emission), "0", str(cost))
    return ("f", str(quota.amount), str(quota.window * 1000), "1" if quota.aligned else "0", str(cost))


class Step(NamedTuple):
    """What deciding about a quota takes, worked out once: reading it off the quota costs 1 µs a request."""

    emission: int  # microseconds; 0 for a fixed window
    capacity: int
    window: int  # seconds
    aligned: bool


def step_of(quota: Quota) -> Step:
    """The step that decides about `quota`."""
    return Step(quota.emission if quota.algorithm == "gcra" else 0, quota.capacity, quota.window, quota.aligned)


class Acquire:
    """Charge every key's quota with its cost, or none of them.

    Args:
        quotas: one for each key.
        keys: where each quota's state lies; no two are the same.
        costs: units, each at least 0.
        arguments: what `quota_arguments` gives for each, in one sequence; made here unless given.
        steps: what `step_of` gives for each; made here unless given.
    """

    __slots__ = ("arguments", "costs", "keys", "steps")

    script = SCRIPT

    def __init__(
        self,
        quotas: Sequence[Quota],
        keys: Sequence[str],
        costs: Sequence[int],
        arguments: Sequence[str] | None = None,
        steps: Sequence[Step] | None = None,
    ) -> None:
        self.keys = keys
        self.costs = costs
        self.arguments: Sequence[str] = (
            [a for quota, cost in zip(quotas, costs, strict=True) for a in quota_arguments(quota, cost)]
            if arguments is None
            else arguments
        )
        self.steps: Sequence[Step] = [step_of(quota) for quota in quotas] if steps is None else steps

    def parse(self, reply: Any) -> list[int]:
        """Three whole numbers for each key, as the script returns them."""
        return reply  # type: ignore[no-any-return]  # the script's own integers; a copy would cost 0.3 µs a request

    def apply(self, table: Table, now: float) -> list[int]:
        """The same in this process."""
        # The usual case by itself, in two thirds of the time: fixed windows that have begun, and none is used up.
        out: list[int] = []
        charges: list[tuple[Entry, int]] = []
        peek = table.peek
        for (emission, capacity, _, _), key, cost in zip(self.steps, self.keys, self.costs, strict=True):
            entry = peek(key)
            if entry is None or emission:
                break
            used, expires = entry.value + cost, entry.expires
            if used >= capacity or expires <= now:
                break
            charges.append((entry, used))
            out += (1, capacity - used, ceil((expires - now) * 1000 - 0.001))
        else:
            for entry, used in charges:
                entry.value = used
            return out
        return self._apply(table, now)

    def _apply(self, table: Table, now: float) -> list[int]:
        """Any case."""
        now_us = int(now * 1_000_000)
        out: list[int] = []
        writes: list[tuple[Entry | None, int, float]] = []  # where it is now, what to store, when that expires
        fits_all = True
        find = table.find
        for (emission, capacity, window, aligned), key, cost in zip(self.steps, self.keys, self.costs, strict=True):
            entry = find(key, now)
            if emission:
                moved = max(now_us if entry is None else entry.value, now_us) + emission * cost
                room = now_us + emission * capacity - moved
                fits = room >= 0
                out += _gcra_row(room, emission, capacity) if fits else _gcra_refused(room, emission, cost)
                writes.append((None, moved, moved / 1_000_000))
            else:
                if entry is None:
                    used, ends = cost, _aligned_end(window, now_us) if aligned else now + window
                else:
                    used, ends = entry.value + cost, entry.expires
                left = capacity - used
                fits = left >= 0
                # Rounded up, but for the noise that the difference of two large floats carries.
                reset = ceil((ends - now) * 1000 - 0.001)
                out += (1, left, reset) if fits else (0, max(0, left + cost), reset)
                writes.append((entry, used, ends))
            if not fits:
                fits_all = False
        if fits_all:
            for (entry, value, expires), key, left in zip(writes, self.keys, out[1::3], strict=True):
                if entry is not None and left > 0:  # the usual case: 0.2 µs instead of 1
                    entry.value = value
                else:
                    table.set(key, value, expires=expires, now=now, keep=left <= 0)
        elif len(self.keys) > 1:
            self._uncharge(out, table, now, now_us)
        return out

    def _uncharge(self, out: list[int], table: Table, now: float, now_us: int) -> None:
        """Correct the rows of the limits that fitted, since nothing was charged."""
        for index, (step, key, cost) in enumerate(zip(self.steps, self.keys, self.costs, strict=True)):
            if not out[index * 3]:
                continue
            if step.emission:
                room = now_us + step.emission * step.capacity - max(table.get(key, now) or 0, now_us)
                out[index * 3 : index * 3 + 3] = _gcra_row(room, step.emission, step.capacity)
            else:
                out[index * 3 + 1] += cost


def _gcra_row(room: int, emission: int, capacity: int) -> tuple[int, int, int]:
    remaining = room // emission
    wait = (remaining + 1) * emission - room if remaining < capacity else 0
    return 1, remaining, -(-wait // 1000)


def _gcra_refused(room: int, emission: int, cost: int) -> tuple[int, int, int]:
    return 0, max(0, (room + emission * cost) // emission), -(room // 1000)


def _aligned_end(window: int, now_us: int) -> float:
    window_ms = window * 1000
    now_ms = now_us // 1000
    return (now_ms + window_ms - now_ms % window_ms) / 1000
