"""Carry an exchange through, from coroutines.

Tasks of one request may call the same limited function at the same time: the first one asks the store, and the others wait for its verdict
(`in_turn`). Where that is a refusal, or the first one was cancelled, the next one asks anew. Threads do not wait for each other: each
asks by itself.

Whom others wait for waits for nothing but the store. The user's code is asked before, since it may wait for any other task of the
request: so two tasks may ask the same at the same time, and the answer that comes first counts for both. Only functions of the request are
asked by one task after the other, for they may read its body, which comes once; but one that is asked, and the tasks that it starts, wait
for no other.
"""

import asyncio
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from inspect import isawaitable
from typing import Any

from failsoft.drivers.sync import Stores, lose
from failsoft.errors import Rejected, StoreUnavailable
from failsoft.exchange import QUICK, SUBJECT, Answers, Exchange, Flight, Operation, Policy, Question, RoutePlan
from failsoft.stores.base import Store

__all__ = ["admit", "asking", "fly", "in_turn", "write"]

_asking: ContextVar[bool] = ContextVar("failsoft_asking", default=False)
"""Whether this task, or the one that started it, works out what a function of the request says."""


async def admit(exchange: Exchange, plan: RoutePlan, stores: Stores, *, asked: bool = False) -> Rejected | None:
    """Enforce `plan`: at most one flight for each store. Returns the refusal, or None.

    Args:
        exchange: the request.
        plan: what applies to it.
        stores: where its operations go.
        asked: whether the user's code was asked already.
    """
    if plan.screens and (rejected := exchange.screen(plan)) is not None:
        return rejected
    if not asked:
        if plan.questions:
            await _ask(exchange, plan.questions, (), None)
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


async def _ask(exchange: Exchange, questions: Iterable[Question], args: Any, kwargs: Any) -> None:
    """Ask what was not asked yet in this request. Of two answers the first stands."""
    for question in questions:
        if question not in exchange.answers:
            late = question.late
            answer = question.asked_late(exchange, args, kwargs) if late else question.function(exchange.facts.request)
            exchange.answers.setdefault(question, await answer if isawaitable(answer) else answer)


async def _ask_alone(exchange: Exchange, question: Question) -> None:
    """Ask a function of the request while no other task asks it."""
    if not _asking.get():
        while verdicts := _under_way(exchange, (question,)):
            await asyncio.wait(verdicts)
    token = _asking.set(True)
    try:
        with asking(exchange, (question,)):
            await _ask(exchange, (question,), (), None)
    finally:
        _asking.reset(token)


async def in_turn(
    exchange: Exchange, plan: RoutePlan, policies: Sequence[Policy], args: Any, kwargs: Any
) -> Sequence[Policy]:
    """Ask the user's code what `plan` depends on, then wait while other tasks of this loop ask the store about any of its policies.

    Returns those that nobody has been admitted by since. Until this task is suspended again, all that they depend on is known.

    Args:
        exchange: the request.
        plan: what is to be enforced late.
        policies: what it enforces.
        args: the view's arguments.
        kwargs: likewise.

    Raises:
        Rejected: nobody need be asked.
    """
    if plan.screens and (rejected := exchange.screen(plan)) is not None:
        raise rejected
    loaded = not plan.needs_user
    while policies:
        for question in plan.questions:
            if question.late:
                await _ask(exchange, (question,), args, kwargs)
            elif question not in exchange.answers:
                await _ask_alone(exchange, question)
        if not loaded and SUBJECT not in exchange.memo:
            loaded = True
            await exchange.facts.load_user()
        policies = [policy for policy in policies if policy not in exchange.enforced]
        if verdicts := _under_way(exchange, policies):
            await asyncio.wait(verdicts)
        elif exchange.answers.keys() >= set(plan.questions):  # else a message came, and all is to be asked anew
            break
    return policies


def _under_way(exchange: Exchange, wanted: Iterable[Policy | Question]) -> Sequence["asyncio.Future[None]"]:
    """What to wait for where other tasks of this loop are asking about any of `wanted`."""
    asked, loop = exchange.asked, _running_loop()
    if not asked or loop is None:
        return ()
    return [verdict for one in wanted if (verdict := asked.get(one)) is not None and verdict.get_loop() is loop]


def _running_loop() -> asyncio.AbstractEventLoop | None:
    try:
        return asyncio.get_running_loop()
    except RuntimeError:  # a loop that is not asyncio's
        return None


@contextmanager
def asking(exchange: Exchange, wanted: Sequence[Policy | Question]) -> Iterator[None]:
    """Within, others who ask about `wanted` wait. Nothing may happen here that waits for any of them."""
    loop = _running_loop()
    if loop is None:
        yield
        return
    verdict: asyncio.Future[None] = loop.create_future()
    if exchange.asked is None:
        exchange.asked = {}
    exchange.asked.update(dict.fromkeys(wanted, verdict))
    try:
        yield
    finally:
        for one in wanted:
            if exchange.asked.get(one) is verdict:
                del exchange.asked[one]
        if not loop.is_closed():
            verdict.set_result(None)


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
