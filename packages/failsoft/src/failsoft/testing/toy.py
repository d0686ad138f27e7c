"""A small concern beside the limits: what a concern is made of, and the proof that a new one changes nothing in any
adapter.

`LastStatus` remembers for each client the status of the last response it got, and says it in the next one. It loads a
key in the request's one flight, writes a key in the settlement, and adds a header field.

`UnderWay` counts requests from their first need to their end, and never asks a store: what a concern can do by itself.
"""

from collections.abc import Iterable, Sequence
from threading import Lock
from typing import Any, Final

from failsoft.errors import OperationFailed, Rejected, StoreUnavailable
from failsoft.exchange import Answers, Bound, Exchange, Operation, Participant, Policy, Question, Route, Script, Table
from failsoft.forks import start_over_in_children
from failsoft.ratelimit.identity import IP

__all__ = ["FIELD", "LOAD", "SAVE", "LastStatus", "UnderWay"]

FIELD = "Last-Status"
"""The response header field; ``none`` for a client that was never here, absent where nobody knows."""

_LIFE = 3600
"""Seconds for which a status is remembered."""

LOAD: Final = Script("toy.load", "return redis.call('GET', KEYS[1])")
SAVE: Final = Script("toy.save", "redis.call('SET', KEYS[1], ARGV[1], 'EX', ARGV[2]) return 1")


class _Load:
    script = LOAD
    arguments: Sequence[str] = ()

    def __init__(self, key: str) -> None:
        self.keys = (key,)

    def parse(self, reply: Any) -> int | None:
        return None if reply is None else int(reply)

    def apply(self, table: Table, now: float) -> int | None:
        status: int | None = table.get(self.keys[0], now)
        return status


class _Save:
    script = SAVE

    def __init__(self, key: str, status: int) -> None:
        self.keys = (key,)
        self.arguments = (status, _LIFE)

    def parse(self, reply: Any) -> None:
        return None

    def apply(self, table: Table, now: float) -> None:
        table.set(self.keys[0], self.arguments[0], expires=now + _LIFE, now=now)


class LastStatus:
    """The concern.

    Args:
        prefix: what its keys begin with.
    """

    name = "toy"

    def __init__(self, *, prefix: str = "failsoft:toy:") -> None:
        self.prefix = prefix

    def bind(self, route: Route, policies: Sequence[Policy], *, late: bool) -> Bound | None:
        """On every route; nothing is left to do late."""
        return None if late else _Everywhere(self.prefix)


class _Everywhere:
    questions: Sequence[Question] = ()

    def __init__(self, prefix: str) -> None:
        self._prefix = prefix

    def join(self, exchange: Exchange) -> Participant | None:
        client = IP.of(exchange)
        return _Visit(exchange, self._prefix + client) if isinstance(client, str) else None


class _Visit:
    """The concern's part in one request."""

    def __init__(self, exchange: Exchange, key: str) -> None:
        self._exchange = exchange
        self._key = key
        self._known = False
        self._last: int | None = None
        self.operations: Sequence[Operation] = (_Load(key),)

    def receive(self, answers: Answers) -> Rejected | None:
        answer = answers if isinstance(answers, StoreUnavailable) else answers[0]
        if isinstance(answer, StoreUnavailable):
            self._exchange.degrade("toy", answer.reason)
        elif isinstance(answer, OperationFailed):
            self._exchange.degrade("toy", "failed")
        else:
            self._known, self._last = True, answer
        return None

    def settle(self, status: int) -> Sequence[Operation]:
        # What is not known is not written over: the store that could not be read may hold something newer.
        return (_Save(self._key, status),) if self._known else ()

    def headers(self) -> Iterable[tuple[str, str]]:
        return [(FIELD, str(self._last or "none"))] if self._known else []


class UnderWay:
    """A concern that counts the requests under way.

    Attributes:
        count: requests under way.
        ended: requests that are over.
    """

    name = "under-way"
    questions: Sequence[Question] = ()

    def __init__(self) -> None:
        self._lock = Lock()
        self.count = 0
        self.ended = 0
        start_over_in_children(self, UnderWay._start_over)

    def _start_over(self) -> None:
        """In a forked child: another thread of the parent may have held the lock, and would never release it here."""
        self._lock = Lock()

    def bind(self, route: Route, policies: Sequence[Policy], *, late: bool) -> Bound | None:
        """On every route; nothing is left to do late."""
        return None if late else self

    def screen(self, exchange: Exchange) -> Rejected | None:
        """Count, and refuse nobody."""
        with self._lock:
            self.count += 1
        exchange.at_end(self._end)
        return None

    def join(self, exchange: Exchange) -> Participant | None:
        """No part in what goes to a store."""
        return None

    def _end(self) -> None:
        with self._lock:
            self.count -= 1
            self.ended += 1
