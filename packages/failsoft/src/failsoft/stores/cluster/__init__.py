"""The store on a cluster: Redis Cluster or Valkey Cluster.

redis-py's own cluster client keeps neither deadline nor breaker: on a connection error it asks node after node for the
slots while the request waits, on CLUSTERDOWN it sleeps a quarter of a second, and it tries three or ten times, also what
may have run. So nothing of it is used. What it does on requests is done in the background here (`keeper`), and flights
go over the same warm connections, with the same deadline, as those of `failsoft.stores.redis`, of which each node has its
own (`node`). redis-py makes those connections.

- Operations are grouped by node; one write to each, all at the same time, then the replies (`rounds`).
- A node that is dead or hangs degrades the operations on its slots. The others have their answers: what is missing in a
  flight is an `OperationFailed`, and only a flight without any answer is a `StoreUnavailable`.
- A redirection means that the operation did not run. It is followed as long as a quarter of the deadline is left.
- A `Divisible` operation over several slots is not atomic. Its parts run in one round; what some of them did in vain is
  undone in the background.
"""

import asyncio
import random as _random
from asyncio import AbstractEventLoop
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any

from failsoft.clock import SYSTEM, Clock
from failsoft.events import Event
from failsoft.exchange.operations import Operation
from failsoft.forks import start_over_in_children
from failsoft.guard import Breaker
from failsoft.stores.cluster import flights
from failsoft.stores.cluster.keeper import Keeper
from failsoft.stores.cluster.node import Node
from failsoft.stores.cluster.slots import Address
from failsoft.stores.cluster.url import SCHEMES, parse_cluster_url
from failsoft.stores.redis.connector import Shared
from failsoft.stores.redis.url import parse_deadline, parse_max_connections

__all__ = ["SCHEMES", "ClusterStore"]


class ClusterStore:
    """Operations on a Redis or Valkey cluster.

    Args:
        url: ``redis+cluster://[user:password@]host:port[,host:port...]``, or ``rediss+cluster://`` for TLS. Some nodes
            that are likely to be there; they know the others. The query may say what that of one node's URL may.
        options: what may stand in the query as well, and a credentials provider, which cannot.
        name: what events and errors call the store. A node's events call it ``name@host:port``.
        deadline: seconds for a flight, redirections included, 0.01 to 5, default 0.1.
        max_connections: for all threads of one process together, to each node, 1 to 10000, default 64.
        publish: called with `StoreDegraded` when a node that has slots is in an outage, or when nobody says who has
            which, and with `StoreRecovered` after it; in a thread of the store's own, outside every lock.
        clock: for the breakers and for deadlines. It must run with real time, since sockets do.
        random: draws from 0 (included) to 1, for jitter.

    Raises:
        ConfigurationError: the URL or an option is wrong.
    """

    blocking = True

    def __init__(
        self,
        url: str,
        *,
        options: Mapping[str, Any] | None = None,
        name: str = "default",
        deadline: float | None = None,
        max_connections: int | None = None,
        publish: Callable[[Event], None] | None = None,
        clock: Clock = SYSTEM,
        random: Callable[[], float] = _random.random,
    ) -> None:
        seeds = parse_cluster_url(url, options)
        self.name = name
        self.url = seeds.masked
        self.deadline = parse_deadline(_first(deadline, seeds.deadline, 0.1))
        self.max_connections = parse_max_connections(_first(max_connections, seeds.max_connections, 64))
        shared = Shared(
            name=name,
            breaker=Breaker(clock=clock, random=random),  # never opens: each node has its own
            deadline=self.deadline,
            monotonic=clock.monotonic,
            random=random,
            publish=publish,
            hide=seeds.target_of(seeds.addresses[0]).hide,
        )
        node = partial(
            _node,
            url_of=seeds.url_of,
            options=seeds.options,
            name=name,
            deadline=self.deadline,
            max_connections=self.max_connections,
            clock=clock,
            random=random,
        )
        self._keeper = Keeper(shared, seeds, node, flights.fly)
        start_over_in_children(self, ClusterStore._start_over)

    def start(self) -> None:
        """Find the nodes and connect, in the background: for the running event loop if there is one, else for threads."""
        self._keeper.join(_running_loop())

    def flight(self, operations: Sequence[Operation]) -> list[Any]:
        """Run `operations` and wait for their answers, at most `deadline` seconds. Safe in any thread.

        Returns:
            An answer for each operation; an `OperationFailed` for one that its node answered with an error, that no
            node answered although others did, or whose keys lie in several slots and which cannot be divided.

        Raises:
            StoreUnavailable: there is no answer at all; some or all operations may have run.
        """
        return flights.fly(self._keeper, operations)

    def begin(self, operations: Sequence[Operation]) -> Callable[[], list[Any]]:
        """Send `operations`. What is returned waits for the answers, and must be called, once, by the same thread.

        Raises as `flight` does, at once or when called.
        """
        return flights.begin(self._keeper, operations)

    async def aflight(self, operations: Sequence[Operation]) -> list[Any]:
        """As `flight`, in any event loop. A cancelled caller's operations may run nevertheless."""
        return await flights.afly(self._keeper, operations)

    def close(self) -> None:
        """Let go of every connection and of the background threads; from any thread. Flights then say ``closed``."""
        self._keeper.close()

    async def aclose(self) -> None:
        """The same, from a coroutine."""
        self.close()

    def _start_over(self) -> None:
        self._keeper.start_over()

    def __repr__(self) -> str:
        return f"ClusterStore({self.url!r}, name={self.name!r})"


def _node(
    address: Address, publish: Callable[[Event], None], *, url_of: Callable[[Address], str], **options: Any
) -> Node:
    return Node(address, url_of(address), publish=publish, **options)


def _first(*values: Any) -> Any:
    return next(value for value in values if value is not None)


def _running_loop() -> AbstractEventLoop | None:
    try:
        return asyncio.get_running_loop()
    except RuntimeError:
        return None
