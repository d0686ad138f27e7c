"""What several scripts have in common: how one limit, and one penalty, is read, weighed and charged."""

__all__ = ["METERS", "PENALTIES"]

METERS = """
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

PENALTIES = """
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
