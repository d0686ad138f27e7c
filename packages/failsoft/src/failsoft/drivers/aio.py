"""Carry an exchange through, from coroutines.

Tasks of one request may call the same limited function at the same time: the first one asks, and the others wait for its verdict
(`after_others`). Where that is a refusal, or the first one was cancelled, the next one asks anew. Threads do not wait for each other: each
asks by itself. So does a user's function that is asked for an answer, with the tasks that it starts: what it waited for might wait for that
answer.
"""

import asyncio
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from inspect import isawaitable
from typing import Any

from failsoft.drivers.sync import Stores, lose
from failsoft.errors import Rejected, StoreUnavailable
from failsoft.exchange import QUICK, SUBJECT, Answers, Exchange, Flight, Operation, Policy, Question, RoutePlan
from failsoft.stores.base import Store

__all__ = ["admit", "after_others", "ask", "asking", "fly", "write"]

_asking: ContextVar[bool] = ContextVar("failsoft_asking", default=False)
"""Whether others may wait for what this task, or the one that started it, is doing."""


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
        flight = flights[0]
        if plan.followed or exchange.waits is not None:
            return exchange.receive(flights, [await fly(exchange, stores, flight.store, flight.operations)])
        # The usual case; what `fly` does, done here: a coroutine less.
        store = stores[flight.store]
        said: Answers = ()
        try:
            if flight.operations:
                said = await store.aflight(flight.operations) if store.blocking else store.flight(flight.operations)
        except StoreUnavailable as away:
            lose(exchange, flight.store, store, away)
            said = away
        return exchange.receive(flights, [said])
    rejected = exchange.receive(flights, await _fly_all(exchange, stores, flights))
    if rejected is not None and (wanted := exchange.take_back(flights, rejected.status)):
        await _fly_all(exchange, stores, wanted)
    return rejected


async def ask(exchange: Exchange, questions: Sequence[Question], args: Any, kwargs: Any) -> None:
    """Ask what was not asked yet in this request."""
    for question in questions:
        if question not in exchange.answers:
            late = question.late
            answer = question.asked_late(exchange, args, kwargs) if late else question.function(exchange.facts.request)
            exchange.answers[question] = await answer if isawaitable(answer) else answer


async def after_others(exchange: Exchange, policies: Sequence[Policy]) -> Sequence[Policy]:
    """Wait while other tasks of this loop are asking about any of `policies`. Returns those that nobody has been admitted by since."""
    if _asking.get():
        return policies
    try:
        loop = asyncio.get_running_loop()
    except RuntimeError:  # a loop that is not asyncio's
        return policies
    while True:
        known = [exchange.asked[policy] for policy in policies if policy in exchange.asked] if exchange.asked else []
        verdicts = [verdict for verdict in known if verdict.get_loop() is loop]
        if not verdicts:
            return policies
        await asyncio.wait(verdicts)
        policies = [policy for policy in policies if policy not in exchange.enforced]


@contextmanager
def asking(exchange: Exchange, policies: Sequence[Policy]) -> Iterator[None]:
    """Within, others who ask about `policies` wait."""
    try:
        loop = asyncio.get_running_loop()
    except RuntimeError:  # as above
        yield
        return
    verdict: asyncio.Future[None] = loop.create_future()
    if exchange.asked is None:
        exchange.asked = {}
    exchange.asked.update(dict.fromkeys(policies, verdict))
    token = _asking.set(True)
    try:
        yield
    finally:
        for policy in policies:
            if exchange.asked.get(policy) is verdict:
                del exchange.asked[policy]
        if not loop.is_closed():
            verdict.set_result(None)
        _asking.reset(token)


async def write(exchange: Exchange, wanted: Sequence[Flight], stores: Stores) -> None:
    """Write what the settlement asks for: at most one flight for each store, unless its answers ask for another. As in the other driver."""
    while wanted:
        wanted = exchange.confirm(wanted, await _fly_all(exchange, stores, wanted))


async def fly(exchange: Exchange | None, stores: Stores, name: str, operations: Sequence[Operation]) -> Answers:
    """A flight, or the news that there was no answer. As in the other driver."""
    if not operations:
        return ()
    store = stores[name]
    if exchange is not None and (exchange.plan.followed or exchange.waits is not None):
        return await _timed(exchange, store, name, operations)
    try:
        return await store.aflight(operations) if store.blocking else store.flight(operations)
    except StoreUnavailable as away:
        if exchange is not None:
            lose(exchange, name, store, away)
        return away


async def _timed(exchange: Exchange, store: Store, name: str, operations: Sequence[Operation]) -> Answers:
    monotonic = exchange.engine.clock.monotonic
    began = monotonic()
    if exchange.waits is not None and (lost := exchange.waits.lost(name, began)) is not None:
        return lost
    try:
        said = await store.aflight(operations) if store.blocking else store.flight(operations)
    except StoreUnavailable as away:
        exchange.waited(name, began, monotonic(), deadline=store.deadline, lost=away)
        return away
    ended = monotonic()
    if ended - began > QUICK:
        exchange.waited(name, began, ended, deadline=store.deadline)
    return said


async def _fly_all(exchange: Exchange, stores: Stores, flights: Sequence[Flight]) -> Sequence[Answers]:
    if len(flights) == 1:
        return (await fly(exchange, stores, flights[0].store, flights[0].operations),)
    return await asyncio.gather(*(fly(exchange, stores, flight.store, flight.operations) for flight in flights))
