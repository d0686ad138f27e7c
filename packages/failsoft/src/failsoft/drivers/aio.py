"""Carry an exchange through, from coroutines."""

import asyncio
from collections.abc import Sequence
from inspect import isawaitable
from typing import Any

from failsoft.drivers.sync import Stores
from failsoft.errors import Rejected, StoreUnavailable
from failsoft.exchange import SUBJECT, Answers, Exchange, Operation, RoutePlan
from failsoft.stores.base import Store

__all__ = ["admit", "fly", "settle"]


async def admit(
    exchange: Exchange, plan: RoutePlan, stores: Stores, args: Any = (), kwargs: Any = None
) -> Rejected | None:
    """Enforce `plan`: at most one flight for each store. Returns the refusal, or None. Arguments as in the other driver."""
    if plan.screens and (rejected := exchange.screen(plan)) is not None:
        return rejected
    for question in plan.questions:
        if question not in exchange.answers:
            function = question.function
            answer = function(*args, **(kwargs or {})) if question.late else function(exchange.facts.request)
            exchange.answers[question] = await answer if isawaitable(answer) else answer
    if plan.needs_user and SUBJECT not in exchange.memo:
        await exchange.facts.load_user()
    flights = exchange.join(plan)
    if not flights:
        return None
    if len(flights) == 1:
        return exchange.receive(flights, (await fly(stores[flights[0].store], flights[0].operations),))
    answers = await _fly_all(stores, [(flight.store, flight.operations) for flight in flights])
    rejected = exchange.receive(flights, answers)
    if rejected is not None and (wanted := exchange.take_back(flights, rejected.status)):
        await _fly_all(stores, [(flight.store, flight.operations) for flight in wanted])
    return rejected


async def settle(exchange: Exchange, status: int, stores: Stores) -> None:
    """Write what must still be written: at most one flight for each store, unless its answers ask for another. As in the other driver."""
    wanted = exchange.settle(status)
    while wanted:
        flights = [(flight.store, flight.operations) for flight in wanted]
        wanted = exchange.confirm(wanted, await _fly_all(stores, flights))


async def fly(store: Store, operations: Sequence[Operation]) -> Answers:
    """A flight, or the news that there was no answer."""
    if not operations:
        return ()
    try:
        return await store.aflight(operations) if store.blocking else store.flight(operations)
    except StoreUnavailable as away:
        return away


async def _fly_all(stores: Stores, wanted: Sequence[tuple[str, Sequence[Operation]]]) -> Sequence[Answers]:
    if len(wanted) == 1:
        return (await fly(stores[wanted[0][0]], wanted[0][1]),)
    return await asyncio.gather(*(fly(stores[name], operations) for name, operations in wanted))
