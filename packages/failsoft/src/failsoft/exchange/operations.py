"""What a concern asks of a store.

An operation is one atomic step on one store. Its author writes it twice, side by side: as a Lua `script` for a server
that speaks the Redis protocol, and as `apply` for a `Table` in this process. Both see the same keys and arguments and
give the same answer; a property test of each concern holds them together.

A store runs operations in *flights*: one write that carries all of them, one burst of replies. An operation fails or
succeeds by itself: its answer may be an `OperationFailed` while its neighbours' answers stand.
"""

from collections.abc import Callable, Hashable, Sequence
from hashlib import sha1
from typing import Any, Protocol, runtime_checkable

from failsoft.exchange.table import Table

__all__ = ["Argument", "Divisible", "Operation", "Script"]

Argument = str | bytes | int | float
"""What may travel to a store as a key's argument."""


class Script:
    """A Lua script, known to servers by the SHA-1 of its source.

    Args:
        name: what events and errors call it.
        source: Lua for EVAL. It must declare every key it touches in KEYS, give every key a TTL, and take its time
            from the server (``redis.call('TIME')``).
        command: instead of a script, a command that scripts cannot run; it is sent with the operation's arguments and has no keys.
    """

    __slots__ = ("command", "name", "sha", "source")

    def __init__(self, name: str, source: str = "", *, command: str | None = None) -> None:
        self.name = name
        self.source = source
        self.command = command
        # SHA-1 is the name that EVALSHA prescribes; nothing here relies on it for security.
        self.sha = sha1(source.encode(), usedforsecurity=False).hexdigest()

    def __repr__(self) -> str:
        return f"Script({self.name!r})"


class Operation(Protocol):
    """One atomic step on one store.

    One that is asked again and again, whose keys and arguments never change once a store has seen it, may have an attribute ``packed``,
    None at first: a store over a socket keeps there what it sends. No other use of that name is possible.
    """

    @property
    def script(self) -> Script:
        """The step, for a server."""
        ...

    @property
    def keys(self) -> Sequence[str]:
        """Every key the step touches."""
        ...

    @property
    def arguments(self) -> Sequence[Argument]:
        """What the step needs beside its keys."""
        ...

    def parse(self, reply: Any) -> Any:
        """The answer that a server's reply stands for. An error reply does not come here."""
        ...

    def apply(self, table: Table, now: float) -> Any:
        """The step, in this process; `now` is in seconds since the epoch. Called with the table's lock held."""
        ...


@runtime_checkable
class Divisible(Protocol):
    """An operation over keys that need not lie in one place. On a server of many places (a cluster) it is divided.

    It is then no longer atomic: all parts run in one parallel round, and what some of them did in vain is undone in another.
    """

    def divide(self, place: Callable[[str], Hashable]) -> "Sequence[Operation]":
        """Parts that each touch keys of one place only, in the operation's order; the operation itself where one is enough."""
        ...

    def unite(self, parts: "Sequence[Operation]", answers: Sequence[Any]) -> "tuple[Any, Sequence[Operation]]":
        """The answer of the whole, and what has to be undone.

        Args:
            parts: as `divide` gave them.
            answers: one for each; an `OperationFailed` or a `StoreUnavailable` for a part that has none.
        """
        ...
