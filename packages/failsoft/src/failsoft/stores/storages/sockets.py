"""What pymemcache takes for the module `socket`: sockets that keep to a deadline, and names that are resolved once.

pymemcache bounds each recv, not the reply, and not the several replies that a strategy waits for. Here everything that
is begun `within` some seconds is over by then. A name is resolved when a storage is opened, which the background does;
further connections, which requests may have to make, go to the address that was found.
"""

import socket
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any

__all__ = ["Sockets", "within"]

_due: ContextVar[float] = ContextVar("failsoft_due")


@contextmanager
def within(seconds: float) -> Iterator[None]:
    """Everything on these sockets that is waited for in here is over in so many seconds."""
    token = _due.set(time.monotonic() + seconds)
    try:
        yield
    finally:
        _due.reset(token)


class Sockets:
    """Sockets for one client."""

    def __init__(self) -> None:
        self._resolved: dict[Any, Any] = {}

        # Made here, because gevent may have replaced the class after this module was imported.
        class Bounded(socket.socket):
            def connect(self, address: Any) -> None:
                _bound(self.settimeout)
                super().connect(address)

            def sendall(self, data: Any, *flags: int) -> None:
                _bound(self.settimeout)
                super().sendall(data, *flags)

            def recv(self, size: int, *flags: int) -> bytes:
                _bound(self.settimeout)
                return super().recv(size, *flags)

        self.socket = Bounded

    def getaddrinfo(self, *question: Any) -> Any:
        """As `socket.getaddrinfo`, once for each question."""
        if question not in self._resolved:
            self._resolved[question] = socket.getaddrinfo(*question)
        return self._resolved[question]

    def __getattr__(self, name: str) -> Any:
        return getattr(socket, name)


def _bound(settimeout: Callable[[float], None]) -> None:
    left = _due.get() - time.monotonic()
    if left <= 0:
        raise TimeoutError("timed out")
    settimeout(left)
