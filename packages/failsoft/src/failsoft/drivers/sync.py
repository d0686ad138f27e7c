"""Carry an exchange through, from synchronous code."""

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from inspect import isawaitable
from typing import Any

from failsoft.errors import Rejected, StoreUnavailable
from failsoft.exchange import QUICK, Answers, Exchange, Flight, Operation, RoutePlan
from failsoft.stores.base import Store

__all__ = ["Stores", "admit", "fly", "lose", "write"]


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
            late = question.late
            answer = question.asked_late(exchange, args, kwargs) if late else question.function(exchange.facts.request)
            # A lambda around a coroutine function does not look asynchronous before it is called.
            exchange.answers[question] = exchange.facts.run(answer) if isawaitable(answer) else answer
    flights = exchange.join(plan)
    if not flights:
        return None
    if len(flights) == 1:
        flight = flights[0]
        if plan.followed or exchange.waits is not None:
            return exchange.receive(flights, [fly(exchange, stores, flight.store, flight.operations)])
        # The usual case; what `fly` does, done here: three calls for a flight are enough.
        said: Answers = ()
        try:
            if flight.operations:
                said = stores[flight.store].flight(flight.operations)
        except StoreUnavailable as away:
            lose(exchange, flight.store, stores[flight.store], away)
            said = away
        return exchange.receive(flights, [said])
    rejected = exchange.receive(flights, _fly_all(exchange, stores, flights))
    if rejected is not None and (wanted := exchange.take_back(flights, rejected.status)):
        _fly_all(exchange, stores, wanted)
    return rejected


def write(exchange: Exchange, wanted: Sequence[Flight], stores: Stores) -> None:
    """Write what the settlement asks for: at most one flight for each store, unless its answers ask for another.

    What a store that is away does not take is lost, or refused by those who confirm it.
    """
    while wanted:
        wanted = exchange.confirm(wanted, _fly_all(exchange, stores, wanted))


def fly(exchange: Exchange | None, stores: Stores, name: str, operations: Sequence[Operation]) -> Answers:
    """A flight, or the news that there was no answer; at once where the request has waited for the store in vain.

    Args:
        exchange: the request; None for nobody's.
        stores: by their names.
        name: of the store.
        operations: what to carry; for none, there is no flight.
    """
    if not operations:
        return ()
    store = stores[name]
    if exchange is not None and (exchange.plan.followed or exchange.waits is not None):
        return _lost(exchange, name) or _awaited(exchange, store, name, partial(store.flight, operations))
    try:
        return store.flight(operations)
    except StoreUnavailable as away:
        if exchange is not None:
            lose(exchange, name, store, away)
        return away


def lose(exchange: Exchange, name: str, store: Store, away: StoreUnavailable) -> None:
    """Note that there was no answer, nobody knows after how long."""
    now = exchange.engine.clock.monotonic()
    exchange.waited(name, now, now, deadline=store.deadline, lost=away)


def _fly_all(exchange: Exchange, stores: Stores, flights: Sequence[Flight]) -> list[Answers]:
    """A flight for each store, all under way at the same time."""
    if len(flights) == 1:
        return [fly(exchange, stores, flights[0].store, flights[0].operations)]
    begun = [_begin(exchange, stores[flight.store], flight) for flight in flights]
    # What is waited for the first is not waited for the others: so each is charged with its own.
    return [
        _awaited(exchange, stores[flight.store], flight.store, pending) if callable(pending) else pending
        for flight, pending in zip(flights, begun, strict=True)
    ]


def _begin(exchange: Exchange, store: Store, flight: Flight) -> Callable[[], Answers] | Answers:
    if not flight.operations:
        return ()
    lost = _lost(exchange, flight.store)
    if lost is not None:
        return lost
    try:
        return store.begin(flight.operations)
    except StoreUnavailable as away:
        lose(exchange, flight.store, store, away)
        return away


def _lost(exchange: Exchange, name: str) -> StoreUnavailable | None:
    return None if exchange.waits is None else exchange.waits.lost(name, exchange.engine.clock.monotonic())


def _awaited(exchange: Exchange, store: Store, name: str, pending: Callable[[], Answers]) -> Answers:
    monotonic = exchange.engine.clock.monotonic
    began = monotonic()
    try:
        said = pending()
    except StoreUnavailable as away:
        exchange.waited(name, began, monotonic(), deadline=store.deadline, lost=away)
        return away
    ended = monotonic()
    if ended - began > QUICK:
        exchange.waited(name, began, ended, deadline=store.deadline)
    return said
