"""Carry an exchange through, from synchronous code."""

from collections.abc import Mapping, Sequence
from inspect import isawaitable
from typing import Any

from failsoft.errors import Rejected, StoreUnavailable
from failsoft.exchange import Answers, Exchange, Operation, RoutePlan
from failsoft.stores.base import Store

__all__ = ["Stores", "admit", "fly", "settle"]


Stores = Mapping[str, Store]
"""Stores by their names."""


def admit(exchange: Exchange, plan: RoutePlan, stores: Stores, args: Any = (), kwargs: Any = None) -> Rejected | None:
    """Enforce `plan`: at most one flight for each store. Returns the refusal, or None.

    Args:
        exchange: the request.
        plan: what applies to it.
        stores: where its operations go.
        args: the view's arguments, for questions that are asked late.
        kwargs: likewise.
    """
    if plan.screens and (rejected := exchange.screen(plan)) is not None:
        return rejected
    for question in plan.questions:
        if question not in exchange.answers:
            function = question.function
            answer = function(*args, **(kwargs or {})) if question.late else function(exchange.facts.request)
            # A lambda around a coroutine function does not look asynchronous before it is called.
            exchange.answers[question] = exchange.facts.run(answer) if isawaitable(answer) else answer
    flights = exchange.join(plan)
    if not flights:
        return None
    return exchange.receive(flights, [fly(stores[flight.store], flight.operations) for flight in flights])


def settle(exchange: Exchange, status: int, stores: Stores) -> None:
    """Write what must still be written: at most one flight for each store. What a store that is away does not take is lost."""
    for name, operations in exchange.settle(status):
        fly(stores[name], operations)


def fly(store: Store, operations: Sequence[Operation]) -> Answers:
    """A flight, or the news that there was no answer."""
    if not operations:
        return ()
    try:
        return store.flight(operations)
    except StoreUnavailable as away:
        return away
