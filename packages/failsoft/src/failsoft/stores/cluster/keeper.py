"""Who serves which slot: found out in the background, and kept right.

One daemon thread for each store and process, beside those of the nodes. It sleeps until something is to be done:

- Nobody knows the slots yet, or a flight found a node gone or a slot elsewhere: it asks a node that is likely to be
  there for the slots, then another, until one says that its cluster works. Where none does, the newest opinion has to
  do. Nobody has long to answer, unless nobody answers. Attempts are a jittered 250 to 500 ms apart, as probes are, and
  go on while a node that has slots is in an outage, so that a replica's promotion is noticed although nobody flies.
- A minute went by: nodes come and go without anything failing.
- Something has to be undone (see `failsoft.stores.cluster.rounds`): in batches, so that a flood of refusals does not
  become a flood of flights. Beyond `_MOST_UNDO` it is let go.
- A node had no slots and was not sent for in a while: it is closed.

Flights read who serves a slot off a list that is replaced as a whole, without a lock. A MOVED reply corrects one slot
in it at once.
"""

import logging
import math
import threading
import weakref
from asyncio import AbstractEventLoop
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from typing import Any
from weakref import WeakSet

from failsoft.errors import ConfigurationError, OperationFailed, StoreUnavailable
from failsoft.events import Event, StoreDegraded, StoreRecovered
from failsoft.exchange.operations import Operation
from failsoft.stores.background import Background
from failsoft.stores.cluster.node import Node
from failsoft.stores.cluster.rounds import Rounds
from failsoft.stores.cluster.slots import SLOTS, Address, View, ask
from failsoft.stores.cluster.url import Seeds
from failsoft.stores.redis.connector import SHARE, Shared
from failsoft.stores.redis.wire import CONNECT_BUDGET

__all__ = ["Keeper"]

_log = logging.getLogger("failsoft.stores")

_RETRY = (0.25, 0.5)
"""Seconds between two attempts to find out."""

_QUICK = 0.5
"""Seconds for a node to answer, as long as there are others to ask."""

_DOUBT = 5.0
"""Seconds for which a node is asked after others, because a flight to it failed."""

_REFRESH = 60.0
"""Seconds after which what is known is looked at again."""

_UNUSED = 30.0
"""Seconds after which a node without slots is closed: longer than any flight that may still be on its way to it."""

_MOST_UNDO = 1000
"""Operations that wait to be undone. More means that nothing can be undone, as in an outage."""

_BATCH = 100
"""Operations that are undone in one flight."""


class Keeper(Background):
    """Knows the nodes.

    Args:
        shared: the store's.
        seeds: where to ask first.
        make_node: a node, of its address and a listener to its events.
        fly: runs what is to be undone.

    Attributes:
        down: whether nobody knows the slots, and the last attempt to find out failed.
        slots: the node of each slot, None where there is none; None while nobody knows.
    """

    def __init__(
        self,
        shared: Shared,
        seeds: Seeds,
        make_node: Callable[[Address, Callable[[Event], None]], Node],
        fly: Callable[["Keeper", Sequence[Operation]], Any],
    ) -> None:
        self._shared = shared
        self._seeds = seeds
        self._make_node = make_node
        self._fly = fly
        super().__init__(f"failsoft-{shared.name}")

    def start_over(self) -> None:
        """Be as new. After a fork the nodes start over too, but who they are has to be found out again."""
        super().start_over()
        self.slots: list[Node | None] | None = None
        self.down = False
        self._primaries: tuple[Node, ...] = ()
        self._nodes: dict[Address, Node] = {}
        self._replicas: frozenset[Address] = frozenset()
        # Reentrant, because a signal handler may run a flight of its own.
        self._nodes_lock = threading.RLock()
        self._wanted = True
        self._not_before = -math.inf
        self._refresh_at = math.inf
        self._degraded_at: float | None = None
        self._undo: deque[Operation] = deque(maxlen=_MOST_UNDO)
        self._threads = False
        self._loops: WeakSet[AbstractEventLoop] = WeakSet()

    # What follows is called by flights.

    def due(self) -> float:
        """When a flight that begins now has to be over."""
        if self._shared.closed:
            raise self._shared.refusal()
        return self._shared.monotonic() + self._shared.deadline

    def wait(self, due: float) -> None:
        """Called again and again by a flight for which nobody knows the slots yet; raises when there is no point in it."""
        shared = self._shared
        if shared.closed or self.down:
            raise shared.refusal(shared.trouble if self.down else None)
        if shared.monotonic() > due - SHARE * shared.deadline:
            self.down = True  # the next one does not wait again
            raise shared.refusal()
        self.nudge()

    def goes_on(self, rounds: Rounds[Node], due: float) -> bool:
        """Whether there is another round, and time for it."""
        if rounds.over:
            return False
        if self._shared.monotonic() <= due - SHARE * self._shared.deadline:
            return True
        rounds.give_up(StoreUnavailable("timeout", "a redirection came too late to be followed"))
        return False

    def conclude(self, rounds: Rounds[Node]) -> list[Any]:
        """The answers of a flight; what has to be seen to after it is."""
        try:
            return rounds.answers()
        finally:
            if rounds.undo:
                self._undo.extend(rounds.undo)
                self.nudge()
            if rounds.astray:
                self.look()

    def serves(self, slot: int | None) -> Node | None:
        """See `failsoft.stores.cluster.rounds.Places`."""
        if slot is None:
            return min(self._primaries, key=lambda node: node.troubled, default=None)
        return None if self.slots is None else self.slots[slot]

    def at(self, address: Address, near: Node) -> Node | None:
        """See `failsoft.stores.cluster.rounds.Places`."""
        host, port = address
        try:
            return self._node((near.address[0] if host in ("", "?") else host, port))
        except ConfigurationError:
            return None

    def failed(self, node: Node) -> None:
        """See `failsoft.stores.cluster.rounds.Places`."""
        node.failed_at = self._shared.monotonic()

    def refused(self, failed: OperationFailed) -> None:
        """See `failsoft.stores.cluster.rounds.Places`."""
        self._shared.refused(failed)

    def moved(self, slot: int, node: Node) -> None:
        """See `failsoft.stores.cluster.rounds.Places`."""
        if self.slots is not None:
            self.slots[slot] = node

    def look(self) -> None:
        """Find out anew who serves what, soon."""
        if not self._wanted:
            self._wanted = True
            self.nudge()

    def join(self, loop: AbstractEventLoop | None) -> None:
        """Have connections for `loop`, or for threads: also to nodes that are yet to come."""
        with self._nodes_lock:
            if loop is None:
                self._threads = True
            else:
                self._loops.add(loop)
        for node in self._primaries:
            _warm(node, loop)
        self.nudge()

    def close(self) -> None:
        """Let go of everything."""
        self._shared.closed = True
        self.ended = True
        self.nudge()
        with self._nodes_lock:
            nodes = list(self._nodes.values())
        for node in nodes:
            node.close()

    # What follows is called in the background.

    def work(self) -> float | None:
        """One turn. Returns seconds until the next, or None if that is when nudged."""
        shared = self._shared
        self._undo_all()
        self._announce_nodes()  # before what may take seconds
        now = shared.monotonic()
        if not shared.closed and now >= min(self._due_at(), self._refresh_at):
            self._find_out()
            self._announce_nodes()
        self._close_unused()
        wake_at = min(self._due_at(), self._refresh_at)
        return None if wake_at == math.inf else max(wake_at - shared.monotonic(), 0.001)

    def _due_at(self) -> float:
        """When to find out, for what flights or nodes say."""
        wanted = self._wanted or any(node.troubled for node in self._primaries)
        return self._not_before if wanted else math.inf

    def _undo_all(self) -> None:
        while self._undo and not self._shared.closed:
            batch = [self._undo.popleft() for _ in range(min(len(self._undo), _BATCH))]
            try:
                self._fly(self, batch)
            except StoreUnavailable as away:
                _log.debug("the store %r could not undo %d operations: %s", self._shared.name, len(batch), away)

    def _find_out(self) -> None:
        shared = self._shared
        self._wanted = False
        view = self._view()
        now = shared.monotonic()
        self._not_before = now + shared.draw(_RETRY)
        if shared.closed:
            return
        if view is None:
            self._wanted = True
            if self.slots is None:
                self.down = True
                if self._degraded_at is None:
                    self._degraded_at = now
                    shared.publish(StoreDegraded(shared.name, shared.trouble, shared.detail))
            return
        self._refresh_at = now + _REFRESH
        self._adopt(view)
        self.down = False
        if self._degraded_at is not None:
            after, self._degraded_at = now - self._degraded_at, None
            shared.publish(StoreRecovered(shared.name, after))

    def _view(self) -> View | None:
        """What a node says that counts itself to a working cluster; else the newest opinion that there is."""
        best: View | None = None
        for budget in (_QUICK, CONNECT_BUDGET):
            for address in self._candidates():
                view = None if self._shared.closed else self._ask(address, budget)
                if view is not None and view.ok:
                    return view
                if view is not None and (best is None or view.epoch > best.epoch):
                    best = view
            if best is not None:
                break
        return best

    def _ask(self, address: Address, budget: float) -> View | None:
        shared = self._shared
        try:
            target = self._seeds.target_of(address)
            view = ask(target, deadline=shared.deadline, monotonic=shared.monotonic, budget=budget)
        except Exception as error:  # of redis-py, of a resolver, of a handshake
            shared.failure("no_connection", f"{type(error).__name__}: {error}")
            return None
        if not view.ranges:
            shared.failure("no_connection", f"{address[0]}:{address[1]} knows of no slots")
            return None
        return view

    def _candidates(self) -> Iterator[Address]:
        """Whom to ask, those first who are likely to know: each once."""
        primaries = list(self._primaries)
        first = int(self._shared.draw((0, len(primaries)))) if primaries else 0
        ring = primaries[first:] + primaries[:first]  # so that not every process asks the same one
        long_ago = self._shared.monotonic() - _DOUBT
        well = [node.address for node in ring if not node.troubled and node.failed_at < long_ago]
        ill = [node.address for node in ring if node.address not in well]
        yield from dict.fromkeys([*well, *self._replicas, *ill, *self._seeds.addresses])

    def _adopt(self, view: View) -> None:
        slots: list[Node | None] = [None] * SLOTS
        for first, last, address in view.ranges:
            try:
                node = self._node(address)
            except ConfigurationError as error:
                _log.warning("the store %r was given the address of a node that is none: %s", self._shared.name, error)
                continue
            slots[first : last + 1] = [node] * (last - first + 1)
        self._announce_nodes()  # of those, too, who go now
        before, self._primaries = self._primaries, tuple(dict.fromkeys(node for node in slots if node is not None))
        self._replicas = view.replicas
        self.slots = slots
        for node in self._primaries:
            if node not in before:
                self._warm_up(node)
        for node in before:
            if node not in self._primaries:
                self._recovered(node)  # nobody depends on it any more

    def _warm_up(self, node: Node) -> None:
        with self._nodes_lock:
            loops: list[AbstractEventLoop | None] = [loop for loop in self._loops if not loop.is_closed()]
            if self._threads:
                loops.append(None)
        for loop in loops:
            _warm(node, loop)

    def _node(self, address: Address) -> Node:
        """The node at `address`, new or not."""
        with self._nodes_lock:
            node = self._nodes.get(address)
            if node is None:
                node = self._nodes[address] = self._make_node(address, self._listener())
        node.needed_at = self._shared.monotonic()
        return node

    def _close_unused(self) -> None:
        long_ago = self._shared.monotonic() - _UNUSED
        with self._nodes_lock:
            unused = [n for n in self._nodes.values() if n.needed_at < long_ago and n not in self._primaries]
            for node in unused:
                del self._nodes[node.address]
        for node in unused:
            node.close()

    def _listener(self) -> Callable[[Event], None]:
        # Weakly: in a cycle with us a node would not fall apart at once.
        me = weakref.ref(self)

        def hear(event: Event) -> None:
            keeper = me()
            if keeper is not None:
                keeper.look()

        return hear

    def _announce_nodes(self) -> None:
        """Say what changed of those who have slots. Their own word may come too late: they are busy connecting."""
        if self._shared.closed:
            return
        for node in self._primaries:
            if not node.troubled:
                self._recovered(node)
            elif node.troubled_since is None:
                node.troubled_since = self._shared.monotonic()
                self._shared.publish(StoreDegraded(node.name, node.reason, node.detail))

    def _recovered(self, node: Node) -> None:
        if node.troubled_since is not None:
            after, node.troubled_since = self._shared.monotonic() - node.troubled_since, None
            self._shared.publish(StoreRecovered(node.name, after))


def _warm(node: Node, loop: AbstractEventLoop | None) -> None:
    if loop is None:
        node.activate()
    else:
        node.join(loop)
