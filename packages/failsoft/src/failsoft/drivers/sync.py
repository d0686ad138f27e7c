"""Carry an exchange through, from synchronous code."""

from collections.abc import Callable, Mapping, Sequence
from inspect import isawaitable
from typing import Any

from failsoft.errors import Rejected, StoreUnavailable
from failsoft.exchange import Answers, Exchange, Flight, Operation, RoutePlan
from failsoft.stores.base import Store

__all__ = ["Stores", "admit", "fly", "write"]


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
    if len(flights) == 1:
        # The usual case; what `fly` does, done here: three calls for a flight are enough.
        flight = flights[0]
        said: Answers = ()
        try:
            if flight.operations:
                said = stores[flight.store].flight(flight.operations)
        except StoreUnavailable as away:
            said = away
        return exchange.receive(flights, [said])
    rejected = exchange.receive(flights, _fly_all(stores, [(flight.store, flight.operations) for flight in flights]))
    if rejected is not None and (wanted := exchange.take_back(flights, rejected.status)):
        _fly_all(stores, [(flight.store, flight.operations) for flight in wanted])
    return rejected


def write(exchange: Exchange, wanted: Sequence[Flight], stores: Stores) -> None:
    """Write what the settlement asks for: at most one flight for each store, unless its answers ask for another.

    What a store that is away does not take is lost, or refused by those who confirm it.
    """
    while wanted:
        wanted = exchange.confirm(wanted, _fly_all(stores, [(flight.store, flight.operations) for flight in wanted]))


def fly(store: Store, operations: Sequence[Operation]) -> Answers:
    """A flight, or the news that there was no answer."""
    if not operations:
        return ()
    try:
        return store.flight(operations)
    except StoreUnavailable as away:
        return away


def _fly_all(stores: Stores, wanted: Sequence[tuple[str, Sequence[Operation]]]) -> list[Answers]:
    """A flight for each store, all under way at the same time."""
    if len(wanted) == 1:
        return [fly(stores[wanted[0][0]], wanted[0][1])]
    return [_end(one) for one in [_begin(stores[name], operations) for name, operations in wanted]]


def _begin(store: Store, operations: Sequence[Operation]) -> Callable[[], list[Any]] | StoreUnavailable:
    try:
        return store.begin(operations)
    except StoreUnavailable as away:
        return away


def _end(pending: Callable[[], list[Any]] | StoreUnavailable) -> Answers:
    if isinstance(pending, StoreUnavailable):
        return pending
    try:
        return pending()
    except StoreUnavailable as away:
        return away
