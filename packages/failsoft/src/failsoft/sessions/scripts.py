"""The steps of sessions, as scripts for a server.

A record is one hash. Beside the application's fields it holds these, in the server's milliseconds since the epoch:

    @h  digest of the secret          @o  digest of the secret before the last rotation
                                      @n  how long that one is answered from the first use of the new one on; until then, for as long as
                                          it takes, because the answer that gave it to the browser may have been lost
    @c  created                       @u  until when that one is answered
    @a  absolute deadline             @x  1 where the rotation changed who the user is: the old secret is then told "moved", no more
    @q  digest of the secret before @o, if that one was still answered when the session was renewed again: it is told "moved"
    @r  until when: a grace after that, for whoever still has it then never got a later one, and must be able to begin anew
    @t  when it was last seen         @i  idle time of its own, in milliseconds
    @v  version, one more each write  @g  generation: when the principal was set; a subject's sessions from before its `nbf` are dead
    @p  principal, as the client encoded it

Generations and `nbf` are in microseconds: who logs in right after all was revoked is not to be of the same moment.

A subject is one hash: ``nbf`` (not before), ``s:HANDLE`` for each of its sessions (created, then the client's description) and
``r:HANDLE`` for what was revoked (until when that has to be remembered).

Rules: reads are refused by a replica, because each script may write (so no session is ever read from one that lags behind);
none is refused for want of memory, except those that make or grow a record. Every key expires.
"""

from typing import Final

from failsoft.exchange import Script

__all__ = [
    "CHECK",
    "CREATE",
    "DELETE",
    "ENROL",
    "GLANCE",
    "LIST",
    "LOAD",
    "LOOK",
    "MOST_MARKS",
    "RENEW",
    "REVOKE",
    "REVOKE_ALL",
    "WAIT",
    "WRITE",
]

_NOW = """
local function clock()
  local t = redis.call('TIME')
  return t[1] * 1000 + math.floor(t[2] / 1000)
end
local function moment()
  local t = redis.call('TIME')
  return t[1] * 1000000 + t[2]
end
local function whole(x) return string.format('%.0f', x) end
"""

# KEYS: record. ARGV: digest, idle, touch interval.
# Answers nothing (no such session), {3} (moved), or {1 or 2, now, names, values}: 2 where the old secret was given. The names are in one
# piece, between them what is in no UTF-8.
LOAD: Final = Script(
    "sessions.load",
    "#!lua flags=allow-oom\n"
    + _NOW
    + """
local m = redis.call('HMGET', KEYS[1], '@h', '@t', '@a', '@i', '@n')
local now = clock()
if not m[1] or now >= tonumber(m[3]) then return false end
local code = 1
if m[5] and m[1] == ARGV[1] then
  redis.call('HSET', KEYS[1], '@u', whole(now + m[5]))
  redis.call('HDEL', KEYS[1], '@n')
end
if m[1] ~= ARGV[1] then
  local o = redis.call('HMGET', KEYS[1], '@o', '@u', '@x', '@q', '@r')
  if o[1] ~= ARGV[1] then
    if o[4] == ARGV[1] and now < tonumber(o[5]) then return {3} end
    return false
  end
  if now >= tonumber(o[2]) then return false end
  if o[3] == '1' then return {3} end
  code = 2
end
if now - m[2] >= tonumber(ARGV[3]) then
  local ends = math.min(now + (m[4] or ARGV[2]), tonumber(m[3]))  -- later than now, or it would be deleted
  redis.call('HSET', KEYS[1], '@t', whole(now))
  redis.call('PEXPIREAT', KEYS[1], whole(ends))
end
return {code, now, table.concat(redis.call('HKEYS', KEYS[1]), '\\255'), redis.call('HVALS', KEYS[1])}
""",
)

# KEYS: record. ARGV: idle, lifetime, then fields and values. Answers {1, now, deadline, generation}, or {0}: the handle is taken.
CREATE: Final = Script(
    "sessions.create",
    "#!lua\n"
    + _NOW
    + """
if redis.call('EXISTS', KEYS[1]) == 1 then return {0} end
local now = clock()
local deadline = now + ARGV[2]
redis.call('HSET', KEYS[1], '@c', whole(now), '@t', whole(now), '@a', whole(deadline), '@v', '1')
local generation = moment()
redis.call('HSET', KEYS[1], '@g', whole(generation))
for i = 3, #ARGV, 2 do redis.call('HSET', KEYS[1], ARGV[i], ARGV[i + 1]) end
local idle = redis.call('HGET', KEYS[1], '@i') or ARGV[1]
redis.call('PEXPIREAT', KEYS[1], whole(math.min(now + idle, deadline)))
return {1, now, deadline, generation}
""",
)


def _write(*, fixed: int, moved: str, renew: str = "") -> str:
    """Lua that changes a record; `fixed` arguments stand before the fields."""
    return (
        "#!lua\n"
        + _NOW
        + f"""
local m = redis.call('HMGET', KEYS[1], '@h', '@o', '@u', '@x', '@a', '@g', '@q', '@r')
local now = clock()
if not m[1] or now >= tonumber(m[5]) then return {{0}} end
if m[1] ~= ARGV[1] then
  if m[2] ~= ARGV[1] then
    if m[7] == ARGV[1] and now < tonumber(m[8]) then return {{3}} end
    return {{0}}
  end
  if now >= tonumber(m[3]) then return {{0}} end
  if {moved} then return {{3}} end
end
local deadline, generation = tonumber(m[5]), tonumber(m[6]) or 0  -- damaged: then nobody is logged in, or nobody would have loaded it
local gone = {fixed} + ARGV[3]
for i = {fixed + 1}, gone do redis.call('HDEL', KEYS[1], ARGV[i]) end
for i = gone + 1, #ARGV, 2 do redis.call('HSET', KEYS[1], ARGV[i], ARGV[i + 1]) end{renew}
local version = redis.call('HINCRBY', KEYS[1], '@v', 1)
redis.call('HSET', KEYS[1], '@t', whole(now))
local idle = redis.call('HGET', KEYS[1], '@i') or ARGV[2]
redis.call('PEXPIREAT', KEYS[1], whole(math.min(now + idle, deadline)))
return {{1, now, version, deadline, generation}}
"""
    )


# KEYS: record. ARGV: digest, idle, number of fields to delete, these fields, then fields and values.
# Answers {0} (no such session), {3} (moved), or {1, now, version, deadline, generation}.
WRITE: Final = Script("sessions.write", _write(fixed=3, moved="m[4] == '1'"))

# The same, and what few writes do. Behind the number of fields stand: new digest or '', grace, strict '0' or '1', new lifetime or '0',
# a generation to be above (which makes a new one, as a lifetime does) or '0'.
RENEW: Final = Script(
    "sessions.write",
    _write(
        fixed=8,
        moved="m[4] == '1' or ARGV[4] ~= ''",
        renew="""
if ARGV[4] ~= '' then
  if m[2] and now < tonumber(m[3]) then
    redis.call('HSET', KEYS[1], '@q', m[2], '@r', whole(math.min(tonumber(m[3]), now + ARGV[5])))
  else
    redis.call('HDEL', KEYS[1], '@q', '@r')
  end
  local till = now + ARGV[5]
  if ARGV[6] == '1' or ARGV[5] == '0' then redis.call('HDEL', KEYS[1], '@n')
  else
    redis.call('HSET', KEYS[1], '@n', ARGV[5])
    till = deadline
  end
  redis.call('HSET', KEYS[1], '@h', ARGV[4], '@o', ARGV[1], '@u', whole(till), '@x', ARGV[6])
end
if ARGV[7] ~= '0' then
  deadline = now + ARGV[7]
  redis.call('HSET', KEYS[1], '@a', whole(deadline))
end
if ARGV[7] ~= '0' or ARGV[8] ~= '0' then
  generation = math.max(moment(), ARGV[8] + 1)
  redis.call('HSET', KEYS[1], '@g', whole(generation))
end""",
    ),
)

# KEYS: record. ARGV: digest, the old secret's in its grace too; or '' for whoever may end any session. Answers whether there was one.
DELETE: Final = Script(
    "sessions.delete",
    "#!lua flags=allow-oom\n"
    + _NOW
    + """
if ARGV[1] ~= '' then
  local m = redis.call('HMGET', KEYS[1], '@h', '@o', '@u', '@x')
  if m[1] ~= ARGV[1] and (m[2] ~= ARGV[1] or m[4] == '1' or clock() >= tonumber(m[3])) then return 0 end
end
return redis.call('DEL', KEYS[1])
""",
)

# KEYS: record. Answers the fields, none if there is no such session. For those who manage sessions: it prolongs nothing.
LOOK: Final = Script("sessions.look", "#!lua flags=allow-oom\nreturn redis.call('HGETALL', KEYS[1])")

# KEYS: record. Answers when it was created and last seen, its generation and principal; nothing if there is none. It prolongs nothing.
GLANCE: Final = Script(
    "sessions.glance",
    """#!lua flags=allow-oom
local m = redis.call('HMGET', KEYS[1], '@c', '@t', '@g', '@p')
return m[1] and {tonumber(m[1]), tonumber(m[2]), tonumber(m[3]), m[4] or ''}
""",
)

# KEYS: subject. ARGV: handle. Answers {not before, whether this one was revoked}. For the session that was kept when all others were
# revoked, nothing is too early.
CHECK: Final = Script(
    "sessions.check",
    """#!lua flags=allow-oom
local m = redis.call('HMGET', KEYS[1], 'nbf', 'r:' .. ARGV[1], 'kept')
return {m[3] == ARGV[1] and 0 or tonumber(m[1] or 0), m[2] and 1 or 0}
""",
)

MOST_MARKS: Final = 200
"""Revoked sessions of one subject that are remembered as such. Their records are deleted as well: a mark is for what a crash left."""

_TIDY = (
    f"""
local MOST_MARKS = {MOST_MARKS}
"""
    + """
local function last(lifetime)  -- never less than before: sessions may have been allowed to live longer
  if redis.call('PTTL', KEYS[1]) < tonumber(lifetime) then redis.call('PEXPIRE', KEYS[1], lifetime) end
end
local function tidy(now, lifetime)
  local all = redis.call('HGETALL', KEYS[1])
  local live, marks = {}, {}
  for i = 1, #all, 2 do
    local kind = string.sub(all[i], 1, 2)
    if kind == 's:' then
      local made = tonumber(string.match(all[i + 1], '^%d+'))
      if made + lifetime <= now then redis.call('HDEL', KEYS[1], all[i])
      else live[#live + 1] = {made, string.sub(all[i], 3)} end
    elseif kind == 'r:' then
      if tonumber(all[i + 1]) <= now then redis.call('HDEL', KEYS[1], all[i])
      else marks[#marks + 1] = {tonumber(all[i + 1]), all[i]} end
    end
  end
  if #marks > MOST_MARKS then
    table.sort(marks, function(a, b) if a[1] == b[1] then return a[2] < b[2] end return a[1] < b[1] end)
    for i = 1, #marks - MOST_MARKS do redis.call('HDEL', KEYS[1], marks[i][2]) end
  end
  table.sort(live, function(a, b) if a[1] == b[1] then return a[2] < b[2] end return a[1] < b[1] end)
  return live
end
"""
)

# KEYS: subject. ARGV: handle, description, lifetime, cap, 1 where what is beyond it is to be revoked.
# Answers, where there are more than the cap, handles of others, the oldest first. To be revoked: all others, and they stay listed, for the
# login may yet be refused, and some may have ended by themselves. Otherwise those beyond, which are listed no longer. A login counts
# for more than a revocation before it.
ENROL: Final = Script(
    "sessions.enrol",
    "#!lua\n"
    + _NOW
    + _TIDY
    + """
local now = clock()
local lifetime = tonumber(ARGV[3])
redis.call('HSET', KEYS[1], 's:' .. ARGV[1], whole(now) .. ' ' .. ARGV[2])
redis.call('HDEL', KEYS[1], 'r:' .. ARGV[1])
local live = tidy(now, lifetime)
local others = {}
local surplus = #live - ARGV[4]
for i = 1, #live do
  local handle = live[i][2]
  if surplus > 0 and handle ~= ARGV[1] then
    if ARGV[5] ~= '1' then
      surplus = surplus - 1
      redis.call('HDEL', KEYS[1], 's:' .. handle)
    end
    others[#others + 1] = handle
  end
end
last(ARGV[3])
return others
""",
)

# KEYS: subject. ARGV: handle, lifetime or '0' (no longer listed, and not remembered), for how long it must have been listed or nothing.
# Answers whether it was listed, and so ends to be.
REVOKE: Final = Script(
    "sessions.revoke",
    "#!lua flags=allow-oom\n"
    + _NOW
    + _TIDY
    + """
if ARGV[3] then
  local made = redis.call('HGET', KEYS[1], 's:' .. ARGV[1])
  if made and clock() < string.match(made, '^%d+') + ARGV[3] then return 0 end
end
local known = redis.call('HDEL', KEYS[1], 's:' .. ARGV[1])
local lifetime = tonumber(ARGV[2])
if lifetime > 0 then
  local now = clock()
  redis.call('HSET', KEYS[1], 'r:' .. ARGV[1], whole(now + lifetime))
  tidy(now, lifetime)
  last(ARGV[2])
end
return known
""",
)

# KEYS: subject. ARGV: lifetime, handle to keep in the list or ''. Answers {not before, handles that were listed, the oldest first...}.
# These are marked one by one too: on a cluster, the clock that `nbf` is from need not be the one that made their generations.
REVOKE_ALL: Final = Script(
    "sessions.revoke_all",
    "#!lua flags=allow-oom\n"
    + _NOW
    + _TIDY
    + """
local now = clock()
local before = redis.call('HGET', KEYS[1], 'nbf') or 0
local out = {math.max(moment(), before + 1)}
for _, one in ipairs(tidy(now, tonumber(ARGV[1]))) do
  local handle = one[2]
  if handle ~= ARGV[2] then
    out[#out + 1] = handle
    redis.call('HDEL', KEYS[1], 's:' .. handle)
    redis.call('HSET', KEYS[1], 'r:' .. handle, whole(now + ARGV[1]))
  end
end
redis.call('HSET', KEYS[1], 'nbf', whole(out[1]), 'kept', ARGV[2])
last(ARGV[1])
return out
""",
)

# KEYS: subject. ARGV: lifetime. Answers {not before, handle, description, ...} of the sessions that may still live.
LIST: Final = Script(
    "sessions.list",
    "#!lua flags=allow-oom\n"
    + _NOW
    + _TIDY
    + """
local out = {tonumber(redis.call('HGET', KEYS[1], 'nbf') or 0)}
for _, one in ipairs(tidy(clock(), tonumber(ARGV[1]))) do
  out[#out + 1] = one[2]
  out[#out + 1] = redis.call('HGET', KEYS[1], 's:' .. one[2])
end
return out
""",
)

WAIT: Final = Script("sessions.wait", command="WAIT")
