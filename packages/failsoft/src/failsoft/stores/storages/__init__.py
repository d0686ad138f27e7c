"""Stores on storages that only `limits` knows: memcached and MongoDB. They serve limits, and nothing else.

A storage counts one limit at a time, each in several round trips, so a decision is not atomic (see `decision`), and what
takes more than counting is refused at start: `LimitsStore.unsupported` says what.

What a request may meet is what it meets on other stores:

- An answer, after some round trips.
- No answer by the deadline, or a broken connection: `StoreUnavailable`. The client that knows of the storage is thrown
  away when the breaker opens, so whatever state it is in concerns nobody afterwards.
- The breaker is open: `StoreUnavailable` at once, with no I/O. The background probes.

Threads share a storage that the background opens. An event loop opens its own, in a task of its own. A first flight
waits for that, at most three quarters of the deadline. Further connections a client makes when it needs them.
"""

from failsoft.stores.storages.store import LimitsStore
from failsoft.stores.storages.url import SCHEMES

__all__ = ["SCHEMES", "LimitsStore"]
