"""Carry an exchange through, from coroutines."""

import asyncio
from collections.abc import Sequence
from inspect import isawaitable
from typing import Any

from failsoft.drivers.sync import Stores
from failsoft.errors import Rejected, StoreUnavailable
from failsoft.exchange import SUBJECT, Answers, Exchange, Flight, Operation, Question, RoutePlan
from failsoft.stores.base import Store

__all__ = ["admit", "ask", "fly", "write"]


async def admit(
    exchange: Exchange, plan: RoutePlan, stores: Stores, args: Any = (), kwargs: Any = None
) -> Rejected | None:
    """Enforce `plan`: at most one flight for each store. Returns the refusal, or None. Arguments as in the other driver."""
    if plan.screens and (rejected := exchange.screen(plan)) is not None:
        return rejected
    if plan.questions:
        await ask(exchange, plan.questions, args, kwargs)
    if plan.needs_user and SUBJECT not in exchange.memo:
        await exchange.facts.load_user()
    flights = exchange.join(plan)
    if not flights:
        return None
    if len(flights) == 1:
        # The usual case; what `fly` does, done here: a coroutine less.
        flight = flights[0]
        store = stores[flight.store]
        said: Answers = ()
        try:
            if flight.operations:
                said = await store.aflight(flight.operations) if store.blocking else store.flight(flight.operations)
        except StoreUnavailable as away:
            said = away
        return exchange.receive(flights, [said])
    answers = await _fly_all(stores, [(flight.store, flight.operations) for flight in flights])
    rejected = exchange.receive(flights, answers)
    if rejected is not None and (wanted := exchange.take_back(flights, rejected.status)):
        await _fly_all(stores, [(flight.store, flight.operations) for flight in wanted])
    return rejected


async def ask(exchange: Exchange, questions: Sequence[Question], args: Any, kwargs: Any) -> None:
    """Ask what was not asked yet in this request."""
    for question in questions:
        if question not in exchange.answers:
            function = question.function
            answer = function(*args, **(kwargs or {})) if question.late else function(exchange.facts.request)
            exchange.answers[question] = await answer if isawaitable(answer) else answer


async def write(exchange: Exchange, wanted: Sequence[Flight], stores: Stores) -> None:
    """Write what the settlement asks for: at most one flight for each store, unless its answers ask for another. As in the other driver."""
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
