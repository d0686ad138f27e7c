"""Corrections of what was charged: by the stamp of a charge, the newest first, or all of it."""

from failsoft.exchange import Script
from failsoft.ratelimit.scripts.fragments import METERS

__all__ = ["ADJUST", "REFUND", "RESET"]

_BY_STAMP = """
-- Give back what was charged at a stamp, as far as it still counts there.
local function refund(line, units, stamp)
  local kind, key = line.kind, line.key
  if kind == 'g' then
    local full_at = line.full_at - min(line.unit * units, max(0, stamp - now_us))
    if full_at <= now_us then
      call('DEL', key)
    else
      call('SET', key, full_at, 'PX', ceil((full_at - now_us) / 1000))
    end
  elseif kind == 'm' then
    if line.size > 0 then call('LREM', key, units, string.format('%.6f', stamp / 1000000)) end
  elseif not line.fresh and math.abs(now_ms + line.left - stamp) <= 2 then
    local back = min(units, kind == 'f' and line.taken or line.current)
    if back > 0 then call('DECRBY', key, back) end
  end
end
"""

_NEWEST = """
-- Give back what counts now, the newest first.
local function refund(line, units)
  local kind, key = line.kind, line.key
  if kind == 'g' then
    local full_at = line.full_at - line.unit * units
    if full_at > now_us then
      call('SET', key, full_at, 'PX', ceil((full_at - now_us) / 1000))
    elseif line.stored then
      call('DEL', key)
    end
  elseif kind == 'm' then
    local back = min(units, line.taken)
    if back > 0 then call('LTRIM', key, back, -1) end
  elseif not line.fresh then
    local back = min(units, kind == 'f' and line.taken or line.current)
    if back > 0 then call('DECRBY', key, back) end
    local rest = units - back
    if kind == 's' and rest > 0 then
      local previous = line.previous
      local counted, keep = floor(previous * line.left / line.unit), 0
      if rest < counted then keep = min(previous, ceil((counted - rest + 1) * line.unit / line.left) - 1) end
      if keep < previous then call('DECRBY', line.shift and key or line.second, previous - keep) end
    end
  end
end
"""

_ADJUST = """
-- Six arguments for each limit: kind, capacity, window in ms or emission in us, flags, stamp, delta.
local n, values, lines, out = floor(#ARGV / 6), call('MGET', unpack(KEYS)), {}, {}
local second = n
for i = 1, n do
  local a = i * 6 - 5
  local line, stamp, delta = line_of(KEYS[i], a), tonumber(ARGV[a + 4]), tonumber(ARGV[a + 5])
  if line.kind == 's' then
    second = second + 1
    line.second, line.place = KEYS[second], second
  end
  load(line, values[i], line.second and values[second])
  if delta > 0 then charge(line, delta) elseif delta < 0 then refund(line, -delta, stamp) end
  lines[i] = line
end
values = call('MGET', unpack(KEYS))
for i = 1, n do
  local line, o = lines[i], i * 3
  load(line, values[i], line.second and values[line.place])
  out[o - 2], out[o - 1], out[o] = row(line, 0)
end
return out
"""

ADJUST = Script("ratelimit.adjust", METERS + _BY_STAMP + _ADJUST)

REFUND = Script("ratelimit.refund", METERS + _NEWEST + _ADJUST)

RESET = Script(
    "ratelimit.reset",
    """
-- Each key, and as many second keys after them.
local n, found = #KEYS / 2, 0
for i = 1, n do
  if redis.call('DEL', KEYS[i], KEYS[n + i]) > 0 then found = found + 1 end
end
return found
""",
)
