"""The counters that one request would meet: how they stand, to give units back, to forget them.

Everything goes through the store that the application itself would use, and to the keys that its requests would use. A command has more
time than a request: it waits for the first connection. A correction is never sent twice.
"""

import time
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

from failsoft.clock import SYSTEM
from failsoft.errors import ConfigurationError, OperationFailed, StoreUnavailable
from failsoft.exchange import Operation
from failsoft.inspection.explanation import Explained
from failsoft.ratelimit import Quota
from failsoft.ratelimit.manage import Peek, Refund, Reset
from failsoft.runtime import Runtime
from failsoft.stores import Store

__all__ = ["PATIENCE", "Standing", "fly", "peek", "refund", "reset"]

PATIENCE = 3.0
"""Seconds that a command waits for the first connection: longer than any handshake that succeeds."""

_EVERY = 0.05


class Standing(NamedTuple):
    """How one counter stands.

    Attributes:
        explained: the limit, with its key.
        fits: whether the request would pass.
        remaining: units; of a penalty, breaches that may still happen.
        reset: seconds until there are more, or until the request would pass.
        before: what remained before the command, for those that change something.
        trouble: why the rest is not known; "" where it is.
    """

    explained: Explained
    fits: bool = False
    remaining: int = 0
    reset: float = 0.0
    before: int | None = None
    trouble: str = ""


def peek(runtime: Runtime, limits: Sequence[Explained]) -> list[Standing]:
    """How the counters of `limits` stand. Changes nothing. Those without a key, and second ones of one key, are left out."""
    return _each_store(runtime, limits, _look)


def refund(runtime: Runtime, limits: Sequence[Explained], units: int) -> list[Standing]:
    """Give back `units` of what counts now, the newest first; penalties are left as they are.

    Args:
        runtime: the application's.
        limits: those to correct.
        units: 1 to 10^12 for each.
    """

    def operate(store: Store, chosen: Sequence[Explained]) -> list[Standing]:
        chosen = [one for one in chosen if isinstance(_rule(one), Quota)]
        return _change(store, chosen, Refund([_rule(one) for one in chosen], _keys(chosen), [units] * len(chosen)))

    return _each_store(runtime, limits, operate)


def reset(runtime: Runtime, limits: Sequence[Explained]) -> list[Standing]:
    """Forget the counters of `limits`."""
    return _each_store(runtime, limits, lambda store, chosen: _change(store, chosen, Reset(_keys(chosen))))


def fly(store: Store, operations: Sequence[Operation]) -> list[Any]:
    """A flight, when the store is there: within `PATIENCE`.

    Raises:
        StoreUnavailable: it is not; or there is no answer, and the operations may have run.
    """
    due = SYSTEM.monotonic() + PATIENCE
    while True:
        try:
            return store.flight(operations)
        except StoreUnavailable as away:
            # With these reasons nothing was sent.
            if away.reason not in ("no_connection", "refused", "open") or SYSTEM.monotonic() > due:
                raise
        time.sleep(_EVERY)


def _each_store(
    runtime: Runtime,
    limits: Sequence[Explained],
    operate: Callable[[Store, Sequence[Explained]], list[Standing]],
) -> list[Standing]:
    chosen: dict[str, dict[str, Explained]] = {}
    for one in limits:
        if one.key is not None and one.line is not None:
            chosen.setdefault(one.limit.store, {}).setdefault(one.key, one)
    found: dict[int, Standing] = {}
    for name, by_key in chosen.items():
        store, group = runtime.stores[name], list(by_key.values())
        if not store.blocking:
            away = f"{store.url} counts in each process by itself"
            standings = [Standing(one, trouble=away) for one in group]
        else:
            try:
                standings = operate(store, group)
            except StoreUnavailable as error:
                why = f"the store {name!r} ({store.url}) gives no answer: {error}"
                standings = [Standing(one, trouble=why) for one in group]
        found |= {id(standing.explained): standing for standing in standings}
    return [found[id(one)] for one in limits if id(one) in found]


def _look(store: Store, chosen: Sequence[Explained]) -> list[Standing]:
    return _standings(chosen, fly(store, [_peek(chosen)])[0])


def _change(store: Store, chosen: Sequence[Explained], operation: Operation) -> list[Standing]:
    if not chosen:
        return []
    # Three flights: within one, a script that the server does not know yet runs after those that it knows.
    before = _look(store, chosen)
    answer = fly(store, [operation])[0]
    if isinstance(answer, OperationFailed):
        return _standings(chosen, answer)
    after = _look(store, chosen)
    return [new._replace(before=old.remaining) for old, new in zip(before, after, strict=True)]


def _standings(chosen: Sequence[Explained], rows: Any) -> list[Standing]:
    if isinstance(rows, (OperationFailed, StoreUnavailable)):
        return [Standing(one, trouble=f"the store answered with an error: {rows}") for one in chosen]
    return [Standing(one, bool(rows[i * 3]), rows[i * 3 + 1], rows[i * 3 + 2] / 1000) for i, one in enumerate(chosen)]


def _peek(chosen: Sequence[Explained]) -> Peek:
    return Peek([_rule(one) for one in chosen], _keys(chosen), [one.cost or 0 for one in chosen])


def _keys(chosen: Sequence[Explained]) -> list[str]:
    return [one.key for one in chosen if one.key is not None]


def _rule(one: Explained) -> Any:
    if one.line is None:
        raise ConfigurationError(f"{one.limit.quota} cannot be counted: {one.why}")
    return one.line.rule
