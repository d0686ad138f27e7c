"""Decisions: the usual one by itself, one about anything, and breaches that were decided elsewhere."""

from failsoft.exchange import Script
from failsoft.ratelimit.scripts.fragments import METERS, PENALTIES

__all__ = ["BREACHES", "LEAN", "PEEK", "WIDE"]

LEAN = Script(
    "ratelimit.acquire",
    """
-- Fixed windows and GCRA without modes. Five arguments for each key: kind, capacity, window in ms or emission in us,
-- aligned (1 or 0), cost. Globals and tables that grow cost as much as commands do, hence the locals.
local keys, args, call, floor, ceil = KEYS, ARGV, redis.call, math.floor, math.ceil
local state, fits_all, now_us = call('MGET', unpack(keys)), true, nil
local out = #keys > 2 and {0, 0, 0, 0, 0, 0, 0, 0, 0} or {}
local a, o = 0, 0
for i = 1, #keys do
  local gcra, capacity, cost = args[a + 1] == 'g', args[a + 2] + 0, args[a + 5] + 0
  local stored = tonumber(state[i])
  if not now_us and (gcra or args[a + 4] == '1') then
    local time = redis.call('TIME')
    now_us = time[1] * 1000000 + time[2]
  end
  if gcra then
    local unit, from = args[a + 3] + 0, now_us
    if stored and stored > from then from = stored end
    local full_at = from + unit * cost
    local room = now_us + unit * capacity - full_at
    state[i] = full_at
    if room >= 0 then
      local rest = floor(room / unit)
      out[o + 1], out[o + 2], out[o + 3] = 1, rest, 0
      if rest < capacity then out[o + 3] = ceil(((rest + 1) * unit - room) / 1000) end
    else
      fits_all = false
      out[o + 1], out[o + 2], out[o + 3] = 0, math.max(0, floor((room + unit * cost) / unit)), ceil(-room / 1000)
    end
  else
    local left = stored and call('PTTL', keys[i]) or 0
    if left <= 0 then -- no window, or one that somebody left without an end
      stored = 0
      left = args[a + 3] + 0
      if args[a + 4] == '1' then left = left - floor(now_us / 1000) % left end
      state[i] = false
    end
    local rest = capacity - stored - cost
    if rest >= 0 then
      out[o + 1] = 1
      out[o + 2] = rest
    else
      fits_all = false
      rest = rest + cost
      out[o + 1] = 0
      out[o + 2] = rest > 0 and rest or 0
    end
    out[o + 3] = left
  end
  a, o = a + 5, o + 3
end
a, o = 0, 0
for i = 1, #keys do
  local gcra, cost = args[a + 1] == 'g', args[a + 5]
  if not fits_all then
    if out[o + 1] == 1 then -- it was not charged after all
      out[o + 2] = out[o + 2] + cost
      if gcra and out[o + 2] >= args[a + 2] + 0 then out[o + 3] = 0 end
    end
  elseif gcra then
    call('SET', keys[i], state[i], 'PX', math.max(1, ceil((state[i] - now_us) / 1000)))
  elseif not state[i] then
    call('SET', keys[i], cost, 'PX', out[o + 3])
  elseif cost ~= '0' then
    call('INCRBY', keys[i], cost)
  end
  a, o = a + 5, o + 3
end
return out
""",
)

WIDE = Script(
    "ratelimit.acquire",
    METERS
    + PENALTIES
    + """
-- Five arguments for each limit: kind, capacity (a penalty: breaches), window in ms or emission in us (a penalty: its terms), flags
-- (1 aligned, 2 soft, 4 peek), cost (a penalty: the lines before it that it guards). One argument more asks for stamps.
local n, values, lines, out, stamps, fits_all = floor(#ARGV / 5), call('MGET', unpack(KEYS)), {}, {}, {}, true
local second = n -- the second keys of sliding windows come after the others
for i = 1, n do
  local a, o = i * 5 - 4, i * 3
  local line, cost = line_of(KEYS[i], a), tonumber(ARGV[a + 4])
  if line.kind == 'p' then
    load_penalty(line, values[i])
    out[o - 2], out[o - 1], out[o] = penalty_row(line)
  else
    if line.kind == 's' then
      second = second + 1
      line.second = KEYS[second]
    end
    load(line, values[i], line.second and values[second])
    out[o - 2], out[o - 1], out[o] = row(line, cost)
  end
  line.cost, lines[i], stamps[i] = cost, line, 0
  if out[o - 2] == 0 and not line.soft then fits_all = false end
end
for i = 1, n do
  local line, o = lines[i], i * 3
  if line.kind == 'p' then
    local guilty = false
    for j = max(1, i - line.cost), i - 1 do
      guilty = guilty or not lines[j].soft and out[j * 3 - 2] == 0
    end
    if guilty and not line.peek then
      breach(line, 1)
      out[o - 2], out[o - 1], out[o] = penalty_row(line)
    end
  elseif out[o - 2] == 1 then
    if fits_all and not line.peek then
      stamps[i] = charge(line, line.cost)
    else -- what is there without a charge
      out[o - 1] = out[o - 1] + line.cost
      if line.kind ~= 'f' and out[o - 1] >= line.capacity then out[o] = 0 end
    end
  end
end
if #ARGV % 5 == 1 then
  for i = 1, n do out[n * 3 + i] = stamps[i] end
end
return out
""",
)

PEEK = Script("ratelimit.peek", WIDE.source)
"""The same under a name of its own: with a peek flag on every line it is read only."""

BREACHES = Script(
    "ratelimit.breaches",
    """
local call, floor, max, min = redis.call, math.floor, math.max, math.min
local time = redis.call('TIME')
local now_ms = time[1] * 1000 + floor(time[2] / 1000)
"""
    + PENALTIES
    + """
local line = {key = KEYS[1], capacity = tonumber(ARGV[1]), terms = ARGV[2]}
load_penalty(line, call('GET', line.key))
if tonumber(ARGV[3]) > 0 and (ARGV[4] ~= '1' or line.breaches > 0) then breach(line, tonumber(ARGV[3])) end
return {penalty_row(line)}
""",
)
