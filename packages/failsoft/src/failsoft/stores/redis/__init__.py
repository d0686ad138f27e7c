"""The store on a server that speaks the Redis protocol: Redis 7 or later, Valkey, and what is compatible with them.

One write and one burst of replies for each flight, on connections that were made beforehand. What a request may meet:

- A connection is warm: its flight takes about a round trip.
- All are busy: it waits for one, at most three quarters of the call deadline.
- None is alive, or the breaker is open: `StoreUnavailable` at once, with no I/O at all. Only the first flight of a
  process or of an event loop waits for the connection to come up, and again not longer.
- The server does not answer in time, or the connection breaks: `StoreUnavailable` by the deadline, the connection is
  closed, and the background makes another.

`failsoft.stores.redis.sync` has the threads' side, `aio` the event loops', `connector` what they share in the
background.
"""

import asyncio
import random as _random
from collections.abc import Callable, Coroutine, Mapping, Sequence
from functools import partial
from typing import Any
from weakref import ref

from failsoft.clock import SYSTEM, Clock
from failsoft.errors import ConfigurationError
from failsoft.events import Event
from failsoft.exchange.operations import Operation
from failsoft.guard import Breaker
from failsoft.stores.redis.url import parse_deadline, parse_max_connections, parse_url

try:
    import redis as _redis  # noqa: F401  # only to say what to install
except ImportError as error:
    raise ConfigurationError(
        "A store on a Redis or Valkey server needs redis-py, which is not installed: pip install 'failsoft[redis]'"
    ) from error

from failsoft.forks import start_over_in_children
from failsoft.stores.redis.aio import Links
from failsoft.stores.redis.connector import Connector, Consumer, Shared
from failsoft.stores.redis.sentinel import Finder
from failsoft.stores.redis.sync import Pool
from failsoft.stores.redis.wire import CONNECT_BUDGET, dial

__all__ = ["RedisStore"]


class RedisStore:
    """Operations on a Redis or Valkey server.

    Threads and event loops of one process share the store, its breaker and its background thread. A forked process
    starts over with its own; the parent's connections are left alone. Under gevent, patch before the first flight.

    Args:
        url: see `failsoft.stores.redis.url`. Options may stand in its query.
        options: the same options beside the URL; see `failsoft.stores.redis.options`.
        name: what events and errors call the store.
        deadline: seconds for a flight, from its start to its last reply, 0.01 to 5. The default of 0.1 is about what a
            request can spare; 0.05 to 0.25 is sensible.
        max_connections: for all threads of one process together, 1 to 10000, default 64. They come on demand, and go
            when they are not used. An event loop has one in any case.
        publish: called with `StoreDegraded` when the breaker opens or no connection can be had, and with
            `StoreRecovered` after it, in the store's own thread, outside every lock.
        breaker: one to use instead of the default: open at 50 % failures of at least 10 flights in 5 s, or at 3 failed
            connects in a row; a probe every 250 to 500 ms; closed by two that succeed.
        clock: for the breaker and for deadlines. It must run with real time, since sockets do.
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
        breaker: Breaker | None = None,
        clock: Clock = SYSTEM,
        random: Callable[[], float] = _random.random,
    ) -> None:
        target = parse_url(url, options)
        self.name = name
        self.url = target.masked
        self.deadline = parse_deadline(_first(deadline, target.deadline, 0.1))
        self.max_connections = parse_max_connections(_first(max_connections, target.max_connections, 64))
        if breaker is None:
            # A probe of the connector always ends by itself: the lease is for a thread that was killed.
            breaker = Breaker(clock=clock, random=random, probe_lease=5 * CONNECT_BUDGET)
        self.breaker = breaker
        self._shared = Shared(
            name=name,
            breaker=breaker,
            deadline=self.deadline,
            monotonic=clock.monotonic,
            random=random,
            publish=publish,
            hide=target.hide,
        )
        pool = self._pool = Pool(self._shared, most=self.max_connections)
        links = self._links = Links(self._shared, pool.flight)
        # Weakly: a store that nobody holds any more is to fall apart at once, and its connections to close in order.
        pool_of, links_of = ref(pool), ref(links)

        def consumers() -> list[Consumer]:
            pool, links = pool_of(), links_of()
            return [] if pool is None or links is None else [pool, *links.links()]

        if target.sentinels is None:
            make = partial(dial, target, deadline=self.deadline, monotonic=clock.monotonic, scripts=True)
            self._connector = Connector(self._shared, make, consumers)
        else:
            finder = Finder(target, deadline=self.deadline, monotonic=clock.monotonic)
            self._connector = Connector(self._shared, finder.dial, consumers, finder)
        pool.connector = links.connector = self._connector
        start_over_in_children(self, RedisStore._start_over)

    def start(self) -> None:
        """Connect in the background: for the running event loop if there is one, else for threads."""
        import asyncio

        try:
            self._links.join(asyncio.get_running_loop())
        except RuntimeError:
            self._pool.activate()
        self._connector.nudge()

    def flight(self, operations: Sequence[Operation]) -> list[Any]:
        """Run `operations` and wait for their answers, at most `deadline` seconds. Safe in any thread.

        Returns:
            An answer for each operation; an `OperationFailed` for one that the server answered with an error.

        Raises:
            StoreUnavailable: there is no answer; some or all operations may have run.
        """
        return self._pool.flight(operations)

    def begin(self, operations: Sequence[Operation]) -> Callable[[], list[Any]]:
        """Send `operations`, and wait for their answers later: so that flights to several stores are under way at once.

        What is returned waits at most until `deadline` seconds after this call, and must be called, once. Whoever drops it
        instead closes its connection, since the replies are nobody's then.

        Raises:
            StoreUnavailable: there will be no answer; also from what is returned.
        """
        return self._pool.begin(operations)

    def aflight(self, operations: Sequence[Operation]) -> Coroutine[Any, Any, list[Any]]:
        """The same, for ``await``, in any event loop. A cancelled caller's operations may run nevertheless."""
        for operation in operations:
            if operation.script.command is not None:
                # WAIT holds its connection up, and with it every request that shares it. In a thread it has one of its own.
                return asyncio.to_thread(self.flight, operations)
        return self._links.flight(operations)

    def close(self) -> None:
        """Let go of every connection and of the background thread; from any thread. Flights then say ``closed``."""
        self._shared.closed = True
        self._connector.nudge()
        self._pool.close()
        self._links.close()

    async def aclose(self) -> None:
        """The same, from a coroutine."""
        self.close()

    def __repr__(self) -> str:
        return f"RedisStore({self.url!r}, name={self.name!r})"

    def _start_over(self) -> None:
        self._connector.start_over()
        self._pool.start_over()
        self._links.start_over()


def _first(*values: Any) -> Any:
    return next(value for value in values if value is not None)
