"""Carry an exchange through, from coroutines."""

from collections.abc import Sequence
from inspect import isawaitable
from typing import Any

from failsoft.errors import Rejected, StoreUnavailable
from failsoft.exchange import Exchange, Operation, RoutePlan
from failsoft.stores.base import Store

__all__ = ["admit", "settle"]


async def admit(
    exchange: Exchange, plan: RoutePlan, store: Store, args: Any = (), kwargs: Any = None
) -> Rejected | None:
    """Enforce `plan`: at most one flight. Returns the refusal, or None. Arguments as in `failsoft.drivers.sync.admit`."""
    for question in plan.questions:
        if question not in exchange.answers:
            function = question.function
            answer = function(*args, **(kwargs or {})) if question.late else function(exchange.facts.request)
            exchange.answers[question] = await answer if isawaitable(answer) else answer
    if plan.needs_user:
        await exchange.facts.load_user()
    joined, operations = exchange.join(plan)
    if not joined:
        return None
    return exchange.receive(joined, await _fly(store, operations))


async def settle(exchange: Exchange, status: int, store: Store) -> None:
    """Write what must still be written: at most one flight. What a store that is away does not take is lost."""
    operations = exchange.settle(status)
    if operations:
        await _fly(store, operations)


async def _fly(store: Store, operations: Sequence[Operation]) -> Sequence[Any] | StoreUnavailable:
    if not operations:
        return ()
    try:
        return await store.aflight(operations) if store.blocking else store.flight(operations)
    except StoreUnavailable as away:
        return away
