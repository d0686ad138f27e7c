"""The storages that only `limits` knows: how each is opened, what it can do, and what its errors mean.

Their clients' own timeouts come from the call deadline. What clients do beyond that (try again, wait for a server, take a
dead one for one that knows of nothing) is turned off.
"""

import re
import threading
from collections.abc import Callable
from contextlib import AbstractContextManager
from hashlib import sha256
from importlib import import_module
from typing import Any, ClassVar

from limits.storage import storage_from_string

from failsoft.errors import ConfigurationError, UnavailableReason
from failsoft.stores.storages.sockets import Sockets, within

__all__ = ["OPEN_BUDGET", "Backend", "Memcached", "MongoDB", "reason_of"]

OPEN_BUDGET = 2.0
"""Seconds for connecting and for a first answer. Nobody waits for it but the background."""

_DAY = 86_400


class Backend:
    """A kind of storage. Opening one does no I/O; `limits` storages are of type Any here, two unrelated ones each.

    Args:
        url: as `limits` wants it; it may hold a password.
        deadline: seconds for a flight.
        max_connections: of all threads of this process.

    Attributes:
        algorithms: what it can count with.
        extra: what brings its packages.
        kind: what people call it.
        longest: seconds that it remembers anything for, if that is less than a quota may last.
        packages: what it needs.

    Raises:
        ConfigurationError: a package is missing.
    """

    algorithms: ClassVar[tuple[str, ...]]
    extra: ClassVar[str]
    kind: ClassVar[str]
    longest: ClassVar[int | None] = None
    packages: ClassVar[tuple[str, ...]]

    def __init__(self, url: str, *, deadline: float, max_connections: int) -> None:
        for name in self.packages:
            try:
                import_module(name)  # now, not while a request waits for the first flight
            except ImportError as error:
                raise ConfigurationError(
                    f"A store on {self.kind} needs {name}, which cannot be imported: pip install 'failsoft[{self.extra}]'"
                ) from error
        self._url = url
        self._deadline = deadline
        self._max_connections = max_connections

    def key(self, key: str) -> str:
        """`key` as the storage can have it."""
        return key

    def within(self, seconds: float) -> AbstractContextManager[Any]:
        """Whatever threads wait for in it is over in so many seconds."""
        raise NotImplementedError

    def open(self) -> Any:
        """A storage for threads."""
        raise NotImplementedError

    def close(self, storage: Any) -> None:
        """Let go of its connections."""
        raise NotImplementedError

    def aopen(self) -> Any:
        """A storage for the running loop."""
        raise NotImplementedError

    def aclose(self, storage: Any) -> None:
        """Let go of its connections, on its loop."""
        raise NotImplementedError

    def is_answer(self, error: Exception) -> bool:
        """Whether `error` is the server's word, about one operation."""
        raise NotImplementedError


class Memcached(Backend):
    """A memcached server."""

    algorithms = ("fixed-window", "sliding-window-counter")
    extra = "memcached"
    kind = "memcached"
    longest = 30 * _DAY  # it takes a longer time for a date, and that for long past
    packages = ("pymemcache", "memcachio")

    def key(self, key: str) -> str:
        """`key`, or its digest if there are spaces or characters beyond ASCII in it, or too many for `limits` to add some."""
        return key if _SAFE_KEY.fullmatch(key) else f"failsoft:{sha256(key.encode()).hexdigest()}"

    def open(self) -> Any:
        """See `Backend`."""
        options: dict[str, Any] = {
            "max_pool_size": self._max_connections,
            "no_delay": True,
            "socket_module": Sockets(),
        }
        # One client for all threads; that of `limits` is one for each, with connections of its own.
        clients: list[Any] = []

        def client(module: Any, hosts: list[Any], **_: Any) -> Any:
            if not clients:
                clients.append(module.PooledClient(hosts[0], **options))
            return clients[0]

        getter: Any = client
        return storage_from_string(self._url, client_getter=getter)

    def within(self, seconds: float) -> AbstractContextManager[Any]:
        """See `Backend`."""
        return within(seconds)

    def close(self, storage: Any) -> None:
        """See `Backend`."""
        storage.storage.close()

    def aopen(self) -> Any:
        """See `Backend`."""
        # It pipelines: so few connections serve a loop.
        return storage_from_string(
            f"async+{self._url}",
            connect_timeout=self._deadline,
            read_timeout=self._deadline,
            blocking_timeout=self._deadline,
            max_connections=min(self._max_connections, 4),
        )

    def aclose(self, storage: Any) -> None:
        """See `Backend`."""
        client = storage.bridge._storage  # there is no other way to it
        if client is not None:
            client.connection_pool.close()

    def is_answer(self, error: Exception) -> bool:
        """See `Backend`."""
        sync, aio = import_module("pymemcache.exceptions"), import_module("memcachio.errors")
        # The others of pymemcache's say that the connection is of no use any more.
        answers = (sync.MemcacheClientError, sync.MemcacheServerError, aio.MemcachedError)
        return isinstance(error, answers) and not isinstance(error, sync.MemcacheUnexpectedCloseError)


_SAFE_KEY = re.compile(r"[!-~]{1,180}", re.ASCII)
"""What memcached has no trouble with. Its keys have 250 bytes at most, of which `limits` wants some."""


class MongoDB(Backend):
    """A MongoDB server, or a set of them.

    Args:
        url: see `Backend`.
        database: where the counters are.
        deadline: see `Backend`.
        max_connections: see `Backend`.
    """

    algorithms = ("fixed-window", "moving-window", "sliding-window-counter")
    extra = "mongodb"
    kind = "MongoDB"
    packages = ("pymongo", "motor.motor_asyncio")

    def __init__(self, url: str, *, database: str, deadline: float, max_connections: int) -> None:
        super().__init__(url, deadline=deadline, max_connections=max_connections)
        self._database = database

    def _options(self) -> dict[str, Any]:
        return {
            "database_name": self._database,
            "maxPoolSize": self._max_connections,
            # Without them a hit that may have run would be sent again.
            "retryReads": False,
            "retryWrites": False,
            "connectTimeoutMS": int(OPEN_BUDGET * 1000),
            # Bounds what was not begun `within` anything.
            "serverSelectionTimeoutMS": int(OPEN_BUDGET * 1000),
            "socketTimeoutMS": int(OPEN_BUDGET * 1000),
        }

    def within(self, seconds: float) -> AbstractContextManager[Any]:
        """See `Backend`."""
        timeout: Callable[[float], AbstractContextManager[Any]] = import_module("pymongo").timeout
        return timeout(seconds)

    def open(self) -> Any:
        """See `Backend`."""
        return storage_from_string(self._url, **self._options())

    def close(self, storage: Any) -> None:
        """See `Backend`."""
        storage.storage.close()

    def aopen(self) -> Any:
        """See `Backend`."""
        return storage_from_string(f"async+{self._url}", **self._options())

    def aclose(self, storage: Any) -> None:
        """See `Backend`. In a thread: the driver says goodbye to the server, and waits for an answer."""
        threading.Thread(target=storage.storage.close, daemon=True, name="failsoft-closing").start()

    def is_answer(self, error: Exception) -> bool:
        """See `Backend`."""
        errors = import_module("pymongo.errors")
        timed_out = getattr(error, "timeout", False)  # the server's own limit
        return isinstance(error, errors.OperationFailure) and not timed_out


def reason_of(error: BaseException) -> UnavailableReason:
    """Why there is no answer."""
    if "Too many objects" in str(error) or type(error).__name__ == "WaitQueueTimeoutError":
        return "no_connection"  # all that this process may have are in use
    timed_out = bool(getattr(error, "timeout", False))  # as pymongo says it
    cause: BaseException | None = error
    while cause is not None:
        if isinstance(cause, ConnectionRefusedError) or "Connection refused" in str(cause):
            return "refused"
        timed_out = timed_out or isinstance(cause, TimeoutError)
        cause = cause.__cause__ or cause.__context__
    return "timeout" if timed_out else "broken"
