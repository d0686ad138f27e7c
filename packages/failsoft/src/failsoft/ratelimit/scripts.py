"""What servers run: the decision, adjustments, penalties, in Lua.

`meters` and `penalty` are the same in Python; property tests run both against each other.

State, for each limit. But for GCRA it is what `limits` 5.8 keeps for the strategy of the same name, so that either goes on with
what the other counted:

- Fixed window (``f``): the count; the key expires when the window ends.
- GCRA (``g``): the theoretical arrival time, in microseconds since the epoch: the moment at which the bucket is full again. A
  request of cost c passes if that moment, moved on by c emissions, lies at most ``emission * capacity`` ahead of now.
- Sliding window counter (``s``): the present window's count, under a key that lives for two windows; when less than one is left of
  it, the window is over and the count is the previous one's. Then it is renamed to the second key, but only with
  the next charge: what only looks writes nothing. Of the previous count as much counts as the window before still covers.
- Moving window (``m``): a list of the moments at which units were taken, in seconds, the newest first; at most `capacity` of them.
- Penalty (``p``): four numbers: breaches so far, when they are forgotten, how long the last block was, and when it ends or ended.

Time is the server's. A decision writes only once it is known to succeed, but for the breach that a penalty notes.

Numbers stay below 2^53, where doubles are exact; a server writes a double that is a whole number without an exponent.
"""

from failsoft.exchange import Script

__all__ = ["ADJUST", "BREACHES", "LEAN", "PEEK", "REFUND", "RESET", "WIDE"]

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

_METERS = """
local call, floor, ceil, max, min = redis.call, math.floor, math.ceil, math.max, math.min
local time = redis.call('TIME')
local now_us = time[1] * 1000000 + time[2]
local now_ms = floor(now_us / 1000)

-- A limit as the arguments from `a` on name it: kind, capacity, window in ms or emission in us, flags.
local function line_of(key, a)
  local flags = tonumber(ARGV[a + 3])
  return {
    key = key, kind = ARGV[a], capacity = tonumber(ARGV[a + 1]), unit = tonumber(ARGV[a + 2]), terms = ARGV[a + 2],
    aligned = flags % 2 == 1, soft = flags % 4 >= 2, peek = flags >= 4,
  }
end

-- Moving window: the moment at a place of the list, in us.
local function moment(line, place)
  return floor((tonumber(call('LINDEX', line.key, place)) or 0) * 1000000 + 0.5)
end

-- Moving window: how many moments still count. Those that are over lie at the end, and seldom are they many: steps from there
-- that double find about where they begin, and halving finds it exactly.
local function counted(line, size)
  local horizon, low, high, step, probe = now_us - line.unit * 1000, 0, size, 1, size - 1
  while probe >= 0 and moment(line, probe) <= horizon do
    high, probe, step = probe, probe - step, step * 2
  end
  if probe >= 0 then low = probe + 1 end
  while low < high do
    local middle = floor((low + high) / 2)
    if moment(line, middle) <= horizon then high = middle else low = middle + 1 end
  end
  return low
end

-- What is there. `value` and `second` are what lies under the key, and under a sliding window's second key, if it is text.
local function load(line, value, second)
  local kind, unit, number = line.kind, line.unit, tonumber(value)
  if kind == 'g' then
    line.stored, line.full_at = number, max(now_us, number or 0)
  elseif kind == 'm' then
    line.foreign = value
    line.size = value and 0 or call('LLEN', line.key)
    line.taken = counted(line, line.size)
  else
    local left = number and call('PTTL', line.key) or 0
    line.fresh, line.shift, line.stale = left <= 0, false, second
    if kind == 'f' then
      line.taken, line.left = number, left
      if line.fresh then
        line.taken = 0
        line.left = line.aligned and unit - now_ms % unit or unit
      end
    elseif line.fresh then
      line.previous, line.current, line.left, line.taken = 0, 0, unit, 0
    else
      line.shift = left <= unit
      if line.shift then
        line.previous, line.current, line.left = number, 0, left
      else
        line.previous, line.current, line.left = tonumber(second) or 0, number, left - unit
      end
      line.taken = floor(line.previous * line.left / unit) + line.current
    end
  end
end

-- Sliding window, with a present count of `current`: milliseconds until at most `target` units count.
local function drained(line, current, target)
  if target >= current then
    return line.left - ceil((target - current + 1) * line.unit / line.previous) + 1
  end
  return line.left + line.unit - ceil((target + 1) * line.unit / current) + 1
end

-- Whether `cost` fits; what remains if it is charged, or is there if it does not fit; and ms until there is more, or until it fits.
local function row(line, cost)
  local kind, unit, capacity = line.kind, line.unit, line.capacity
  if kind == 'g' then
    local room = now_us + unit * capacity - line.full_at - unit * cost
    local rest = floor(room / unit)
    if room < 0 then return 0, max(0, floor((room + unit * cost) / unit)), ceil(-room / 1000) end
    return 1, rest, rest < capacity and ceil(((rest + 1) * unit - room) / 1000) or 0
  end
  local taken = line.taken
  local rest = capacity - taken - cost
  if rest < 0 then
    local reset, target = unit, max(0, capacity - cost)
    if kind == 'f' then
      reset = line.left
    elseif taken > target then
      if kind == 's' then
        reset = drained(line, line.current, target)
      else
        reset = ceil((moment(line, target) - now_us) / 1000) + unit
      end
    end
    return 0, max(0, capacity - taken), reset
  end
  if kind == 'f' then return 1, rest, line.left end
  if taken + cost == 0 then return 1, rest, 0 end
  if kind == 's' then return 1, rest, drained(line, line.current + cost, taken + cost - 1) end
  local oldest = taken > 0 and moment(line, taken - 1) or now_us
  return 1, rest, ceil((oldest - now_us) / 1000) + unit
end

-- Charge without a check. Returns the stamp, by which a refund finds the window again.
local function charge(line, cost)
  local kind, key, unit = line.kind, line.key, line.unit
  if kind == 'g' then
    line.full_at = min(line.full_at + unit * cost, now_us + 3110400000000000) -- no debt is longer than 100 years
    call('SET', key, line.full_at, 'PX', max(1, ceil((line.full_at - now_us) / 1000)))
    return line.full_at
  end
  if kind == 'm' then
    cost = min(cost, line.capacity)
    if cost > 0 then
      if line.foreign then call('DEL', key) end
      local taken = string.format('%.6f', now_us / 1000000)
      for first = 1, cost, 5000 do -- what `unpack` can take has a bound
        local moments = {}
        for i = first, min(cost, first + 4999) do moments[i - first + 1] = taken end
        call('LPUSH', key, unpack(moments))
      end
      local keep = min(line.taken + cost, line.capacity)
      if line.size + cost > keep then call('LTRIM', key, 0, keep - 1) end
      call('PEXPIRE', key, unit)
    end
    return now_us
  end
  if kind == 'f' then
    if line.fresh then
      call('SET', key, cost, 'PX', line.left)
    elseif cost > 0 then
      call('INCRBY', key, cost)
    end
  elseif line.fresh then
    if line.stale then call('DEL', line.second) end
    call('SET', key, cost, 'PX', 2 * unit)
  elseif line.shift then
    call('RENAME', key, line.second)
    call('SET', key, cost, 'PX', line.left + unit)
  elseif cost > 0 then
    call('INCRBY', key, cost)
  end
  return now_ms + line.left
end
"""

_PENALTIES = """
local function numbers(text)
  local found = {}
  for word in string.gmatch(text or '', '%S+') do found[#found + 1] = tonumber(word) end
  return found
end

-- A penalty's state, without what is over.
local function load_penalty(line, value)
  line.within, line.block, line.growth, line.most, line.forget = unpack(numbers(line.terms))
  local state = numbers(value)
  line.breaches, line.ends, line.length, line.till = state[1] or 0, state[2] or 0, state[3] or 0, state[4] or 0
  if line.ends <= now_ms then line.breaches, line.ends = 0, 0 end
  if line.till + line.forget <= now_ms then line.length, line.till = 0, 0 end
end

local function penalty_row(line)
  if line.till > now_ms then return 0, 0, line.till - now_ms end
  return 1, line.capacity - line.breaches, line.breaches > 0 and line.ends - now_ms or 0
end

-- Note breaches; enough of them begin a block, which is longer than the last one if that is remembered.
local function breach(line, count)
  if line.till > now_ms then return end
  if line.breaches == 0 then line.ends = now_ms + line.within end
  line.breaches = line.breaches + count
  if line.breaches >= line.capacity then
    line.length = line.length > 0 and min(line.most, floor(line.length * line.growth)) or line.block
    line.breaches, line.ends, line.till = 0, 0, now_ms + line.length
  end
  local expires = line.ends
  if line.length > 0 then expires = max(expires, line.till + line.forget) end
  local state = line.breaches .. ' ' .. line.ends .. ' ' .. line.length .. ' ' .. line.till
  call('SET', line.key, state, 'PX', expires - now_ms)
end
"""

WIDE = Script(
    "ratelimit.acquire",
    _METERS
    + _PENALTIES
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

ADJUST = Script("ratelimit.adjust", _METERS + _BY_STAMP + _ADJUST)

REFUND = Script("ratelimit.refund", _METERS + _NEWEST + _ADJUST)

BREACHES = Script(
    "ratelimit.breaches",
    """
local call, floor, max, min = redis.call, math.floor, math.max, math.min
local time = redis.call('TIME')
local now_ms = time[1] * 1000 + floor(time[2] / 1000)
"""
    + _PENALTIES
    + """
local line = {key = KEYS[1], capacity = tonumber(ARGV[1]), terms = ARGV[2]}
load_penalty(line, call('GET', line.key))
if tonumber(ARGV[3]) > 0 then breach(line, tonumber(ARGV[3])) end
return {penalty_row(line)}
""",
)

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
