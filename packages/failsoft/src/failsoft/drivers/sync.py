"""Carry an exchange through, from synchronous code."""

from collections.abc import Sequence
from inspect import isawaitable
from typing import Any

from failsoft.errors import Rejected, StoreUnavailable
from failsoft.exchange import Exchange, Operation, RoutePlan
from failsoft.stores.base import Store

__all__ = ["admit", "settle"]


def admit(exchange: Exchange, plan: RoutePlan, store: Store, args: Any = (), kwargs: Any = None) -> Rejected | None:
    """Enforce `plan`: at most one flight. Returns the refusal, or None.

    Args:
        exchange: the request.
        plan: what applies to it.
        store: where its operations go.
        args: the view's arguments, for questions that are asked late.
        kwargs: likewise.
    """
    for question in plan.questions:
        if question not in exchange.answers:
            function = question.function
            answer = function(*args, **(kwargs or {})) if question.late else function(exchange.facts.request)
            # A lambda around a coroutine function does not look asynchronous before it is called.
            exchange.answers[question] = exchange.facts.run(answer) if isawaitable(answer) else answer
    joined, operations = exchange.join(plan)
    if not joined:
        return None
    return exchange.receive(joined, _fly(store, operations))


def settle(exchange: Exchange, status: int, store: Store) -> None:
    """Write what must still be written: at most one flight. What a store that is away does not take is lost."""
    operations = exchange.settle(status)
    if operations:
        _fly(store, operations)


def _fly(store: Store, operations: Sequence[Operation]) -> Sequence[Any] | StoreUnavailable:
    if not operations:
        return ()
    try:
        return store.flight(operations)
    except StoreUnavailable as away:
        return away
