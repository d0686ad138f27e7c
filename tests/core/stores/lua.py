"""Operations for tests of stores."""

from collections.abc import Callable, Sequence
from typing import Any

from failsoft.exchange.operations import Argument, Script
from failsoft.exchange.table import Table

__all__ = ["BUSY", "ECHO", "INCR", "NAP", "Lua"]


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
    -- Keeps the whole server busy for ARGV[1] milliseconds of its CPU, then answers ARGV[2]. TIME stands still in a script.
    local till = os.clock() + ARGV[1] / 1000
    while os.clock() < till do end
    return ARGV[2]
    """,
)
BUSY = 150
"""Milliseconds of a nap that is longer than the default deadline, and not much longer."""
