"""Operations for tests of stores, and a server whose clock a test sets."""

from collections.abc import Callable, Sequence
from typing import Any

import redis

from failsoft.exchange.operations import Argument, Operation, Script
from failsoft.exchange.table import Table
from tests.servers import Valkey

__all__ = ["BUSY", "ECHO", "INCR", "NAP", "NAPS", "Both", "Lua", "Timed", "allow_naps"]

NAPS = ("--enable-debug-command", "local")


def allow_naps(server: Valkey) -> Valkey:
    """Let scripts of a server, which was started with `NAPS`, sleep: until it is started again."""
    server.run("DEBUG", "SET-DISABLE-DENY-SCRIPTS", "1")
    return server


class Lua:
    """A script, and what it says: for servers only."""

    def __init__(
        self,
        script: Script,
        *keys: str,
        arguments: Sequence[Argument] = (),
        parse: Callable[[Any], Any] = lambda reply: reply,
    ) -> None:
        self.script = script
        self.keys = keys
        self.arguments = arguments
        self.parse = parse

    def apply(self, table: Table, now: float) -> Any:
        raise NotImplementedError


ECHO = Script("test.echo", "return ARGV[1]")
INCR = Script("test.incr", "return redis.call('INCR', KEYS[1])")
NAP = Script(
    "test.nap",
    """
    -- Holds the whole server up for ARGV[1] milliseconds, then answers ARGV[2]. Where it may not sleep (`allow_naps`), it computes; TIME
    -- stands still in a script.
    if redis.pcall('DEBUG', 'SLEEP', ARGV[1] / 1000)['err'] then
      local till = os.clock() + ARGV[1] / 1000
      while os.clock() < till do end
    end
    return ARGV[2]
    """,
)
BUSY = 150
"""Milliseconds of a nap that is longer than the default deadline, and not much longer."""

_TIMED = """
-- Stands between a script and the server: what is told of time, and when keys end, comes from a clock in a key. The rest is real.
local server = redis
local now_us = tonumber(server.call('GET', 'test:now'))
local now_ms = math.floor(now_us / 1000)

local function live(key)
  local ends = tonumber(server.call('HGET', 'test:ends', key))
  if ends and now_ms > ends then
    server.call('DEL', key)
    server.call('HDEL', 'test:ends', key)
  end
  return ends
end

local function ends_in(key, milliseconds)
  milliseconds = tonumber(milliseconds)
  assert(milliseconds > 0 and milliseconds % 1 == 0, 'no time to live')
  server.call('HSET', 'test:ends', key, string.format('%.0f', now_ms + milliseconds))
end

local commands = {}
function commands.TIME()
  return {string.format('%.0f', math.floor(now_us / 1000000)), string.format('%.0f', now_us % 1000000)}
end
function commands.MGET(...)
  for _, key in ipairs({...}) do live(key) end
  return server.call('MGET', ...)
end
function commands.PTTL(key)
  local ends = live(key)
  if server.call('EXISTS', key) == 0 then return -2 end
  return ends and ends - now_ms or -1
end
function commands.SET(key, value, option, milliseconds)
  assert(option == 'PX', 'no time to live')
  ends_in(key, milliseconds)
  return server.call('SET', key, value)
end
function commands.PEXPIRE(key, milliseconds)
  ends_in(key, milliseconds)
  return 1
end
function commands.PEXPIREAT(key, at)
  assert(string.match(at, '^%d+$'), 'no whole number')
  if tonumber(at) > now_ms then
    server.call('HSET', 'test:ends', key, at)
  else
    server.call('DEL', key)
    server.call('HDEL', 'test:ends', key)
  end
  return 1
end
function commands.RENAME(key, to)
  local ends = live(key)
  server.call('HSET', 'test:ends', to, ends)
  server.call('HDEL', 'test:ends', key)
  return server.call('RENAME', key, to)
end
function commands.DEL(...)
  local found = 0
  for _, key in ipairs({...}) do
    live(key)
    found = found + server.call('DEL', key)
    server.call('HDEL', 'test:ends', key)
  end
  return found
end
local redis = {call = function(name, key, ...)
  if commands[name] then return commands[name](key, ...) end
  live(key)
  return server.call(name, key, ...)
end}
"""


class Timed:
    """A real server that runs real scripts, at the time that the test says.

    Args:
        client: of an empty server.
    """

    def __init__(self, client: "redis.Redis") -> None:
        self.client = client

    def run(self, operation: Operation, now: float) -> Any:
        """The operation's answer at `now`, in seconds since the epoch."""
        self.client.set("test:now", round(now * 1_000_000))
        keys, source = operation.keys, operation.script.source
        first, rest = ("", source) if not source.startswith("#!") else source.split("\n", 1)
        return operation.parse(
            self.client.eval(
                f"{first}\n{_TIMED}{rest}" if first else _TIMED + rest, len(keys), *keys, *operation.arguments
            )
        )

    def ends(self) -> dict[str, int]:
        """When each key ends, in milliseconds since the epoch; also those that have, if nobody has looked at them since."""
        return {key.decode(): int(ends) for key, ends in self.client.hgetall("test:ends").items()}

    def endless(self) -> list[str]:
        """Keys that would never end."""
        keys = {key.decode() for key in self.client.scan_iter()} - {"test:now", "test:ends"}
        return sorted(keys - {key.decode() for key in self.client.hkeys("test:ends")})

    def values(self) -> dict[str, Any]:
        """What lies under each key."""
        found: dict[str, Any] = {}
        for key in self.client.scan_iter():
            if not key.startswith(b"test:"):
                kind = self.client.type(key)
                read = {b"string": self.client.get, b"hash": self.client.hgetall}.get(kind)
                found[key.decode()] = self.client.lrange(key, 0, -1) if read is None else read(key)
        return found


class Both:
    """A table and a real server with the same clock, which must say the same.

    Args:
        client: of an empty server.
    """

    def __init__(self, client: "redis.Redis") -> None:
        self.timed = Timed(client)
        self.table = Table()
        self.now = 1_700_000_000.0

    def run(self, operation: Operation) -> Any:
        """What both say."""
        answer = operation.apply(self.table, self.now)
        assert answer == self.timed.run(operation, self.now)
        assert [] == self.timed.endless()
        return answer

    def forget(self, key: str) -> None:
        """Delete what both have under a key."""
        self.table.delete(key)
        self.timed.client.delete(key)
        self.timed.client.hdel("test:ends", key)
