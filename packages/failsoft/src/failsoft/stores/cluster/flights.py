"""Flights over the nodes of a cluster, from threads and from event loops. The only code here that waits.

Both drivers do the same, and all within the deadline: wait until the slots are known, the first time only; send to every
node that a round concerns; read from every one; again, as long as there is something to send and a quarter of the
deadline is left.
"""

import asyncio
import time
from asyncio import AbstractEventLoop
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from typing import Any

from failsoft.errors import StoreUnavailable
from failsoft.exchange.operations import Operation
from failsoft.stores.cluster.keeper import Keeper
from failsoft.stores.cluster.node import Call, Node, Posted, first_of
from failsoft.stores.cluster.rounds import Rounds, Step

__all__ = ["afly", "begin", "fly"]

_PAUSE = 0.002
"""Seconds between two looks whether the slots are known. Only the first flights of a process take them."""

_Sent = tuple[Node, list[Step], Call]


def fly(keeper: Keeper, operations: Sequence[Operation]) -> list[Any]:
    """Run `operations` from this thread; see `Store.flight`."""
    return begin(keeper, operations)()


def begin(keeper: Keeper, operations: Sequence[Operation]) -> Callable[[], list[Any]]:
    """Send `operations` from this thread; what is returned waits for the answers."""
    if not operations:
        return list
    due = keeper.due()
    first = keeper.slots is not None
    if not first:
        keeper.join(None)
        while keeper.slots is None:
            keeper.wait(due)
            time.sleep(_PAUSE)
    rounds = Rounds(operations, keeper)
    return partial(_finish, keeper, rounds, _send(rounds, due, first=first), due)


def _send(rounds: Rounds[Node], due: float, *, first: bool = False) -> list[_Sent]:
    sent: list[_Sent] = []
    try:
        for node, steps in rounds.take().items():
            try:
                sent.append((node, steps, node.send(steps, due, first=first, alone=not sent)))
            except StoreUnavailable as away:
                rounds.receive(node, steps, away)
    except BaseException:
        _abandon(sent)
        raise
    return sent


def _finish(keeper: Keeper, rounds: Rounds[Node], sent: list[_Sent], due: float) -> list[Any]:
    while True:
        try:
            for node, steps, call in sent if len(sent) == 1 else _as_they_come(sent):
                try:
                    rounds.receive(node, steps, call.finish())
                except StoreUnavailable as away:
                    rounds.receive(node, steps, away)
        except BaseException:
            _abandon(sent)
            raise
        if not keeper.goes_on(rounds, due):
            return keeper.conclude(rounds)
        sent = _send(rounds, due)


def _as_they_come(sent: list[_Sent]) -> Iterator[_Sent]:
    """Those first whose replies are there: a node that hangs must not use up the time of the others."""
    waiting = {call: (node, steps, call) for node, steps, call in sent}
    while len(waiting) > 1:
        ready = first_of(list(waiting))
        if not ready:
            break
        for call in ready:
            yield waiting.pop(call)
    yield from waiting.values()


def _abandon(sent: list[_Sent]) -> None:
    for _, _, call in sent:
        call.abandon()


async def afly(keeper: Keeper, operations: Sequence[Operation]) -> list[Any]:
    """Run `operations` from a task; see `Store.aflight`."""
    if not operations:
        return []
    loop = asyncio.get_running_loop()
    due = keeper.due()
    if keeper.slots is None:
        keeper.join(loop)
        while keeper.slots is None:
            keeper.wait(due)
            await asyncio.sleep(_PAUSE)
    rounds = Rounds(operations, keeper)
    while True:
        await _around(rounds, due, loop)
        if not keeper.goes_on(rounds, due):
            return keeper.conclude(rounds)


async def _around(rounds: Rounds[Node], due: float, loop: AbstractEventLoop) -> None:
    """One round: send to all, those first who have a connection; then read from all."""
    ready = list(rounds.take().items())
    if len(ready) > 1:
        ready.sort(key=lambda item: not item[0].is_warm(loop))
    sent: list[tuple[Node, list[Step], Posted]] = []
    try:
        for node, steps in ready:
            try:
                posted = await node.asend(steps, due, loop)
                if posted is None:
                    rounds.receive(node, steps, await asyncio.to_thread(_alone, node, steps, due))
                else:
                    sent.append((node, steps, posted))
            except StoreUnavailable as away:
                rounds.receive(node, steps, away)
        for node, steps, posted in sent:
            try:
                rounds.receive(node, steps, await posted.finish())
            except StoreUnavailable as away:
                rounds.receive(node, steps, away)
    except BaseException:
        for _, _, posted in sent:
            posted.abandon()
        raise


def _alone(node: Node, steps: list[Step], due: float) -> list[Any]:
    """For a loop that cannot watch sockets."""
    return node.send(steps, due, first=False, alone=True).finish()
