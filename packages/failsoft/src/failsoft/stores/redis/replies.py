"""Replies, one by one, as they come out of a connection's parser.

redis-py's `read_response` takes 90 bytecodes and ten calls for each reply, although all replies of a flight nearly always come in one
piece. So with hiredis they are taken straight from its reader:

- `gets` gives the next reply that has arrived as a whole, error replies as exceptions that were not raised, or a mark that there is none.
- Whatever is of none of the `PLAIN` types goes through `settle`. It waits for what has not arrived, passes over push messages, since
  nobody here subscribes to anything, and raises the errors that speak for the whole connection.

Of redis-py's inner names only the parser's `_reader` is needed, and it must be hiredis' own. Otherwise `gets` is redis-py's way to read,
which waits by itself.
"""

from collections.abc import Callable
from functools import partial
from typing import Any
from weakref import proxy

from redis.connection import AbstractConnection
from redis.exceptions import ConnectionError as RedisConnectionError
from redis.exceptions import ResponseError

_READER: Any
_PUSH: Any
try:
    from hiredis import PushNotification, Reader
except ImportError:  # not installed, or from before version 3.2
    _READER = _PUSH = ()
else:
    _READER, _PUSH = (Reader,), (PushNotification,)

__all__ = ["PLAIN", "Replies"]

PLAIN = frozenset((bytes, int, list, type(None)))
"""Types of replies that need no second look."""

_AT_ONCE = 65_536
"""Bytes of one read, as redis-py has it."""


class Replies:
    """The replies on one connection.

    Args:
        connection: a connected one.
        receive: fills a buffer, as a socket's `recv_into` does.

    Attributes:
        gets: the next reply; see above.
        surplus: whether something is left over.
    """

    __slots__ = ("_buffer", "_feed", "_missing", "_receive", "gets", "surplus")

    def __init__(self, connection: AbstractConnection, receive: Callable[[Any], int]) -> None:
        parser: Any = connection._parser
        reader: Any = getattr(parser, "_reader", None)
        # Not `can_read` of the connection, which in version 7 reads, and with timeouts of its own.
        self.surplus: Callable[[], Any] = parser._buffer.unread_bytes if reader is None else reader.has_data
        self._receive = receive
        self.gets: Callable[[], Any]
        if reader is not None and isinstance(reader, _READER) and not self.surplus():
            buffer = getattr(parser, "_buffer", None)  # redis-py's is used no more: half the memory of a connection
            self._buffer = buffer if isinstance(buffer, bytearray) else bytearray(_AT_ONCE)
            self._feed = reader.feed
            self.gets = reader.gets
            self._missing = reader.gets()  # what redis-py has chosen to stand for it
        else:
            # Weakly: a connection that is dropped closes at once, so it must be in no cycle.
            self.gets = partial(_by_redis_py, proxy(connection))
            self._missing = object()

    def settle(self, found: Any) -> Any:
        """The reply that `found` is, or that comes after it.

        Raises:
            redis.exceptions.ConnectionError: an error that speaks for the whole connection, or its end.
            Exception: what the socket and the parser raise.
        """
        while True:
            if found is self._missing:
                size = self._receive(self._buffer)
                if not size:
                    raise RedisConnectionError("the server closed the connection")
                self._feed(self._buffer, 0, size)
            elif not isinstance(found, _PUSH):
                break
            found = self.gets()
        if isinstance(found, RedisConnectionError):
            try:
                raise found
            finally:
                del found  # it has this frame
        return found


def _by_redis_py(connection: AbstractConnection) -> Any:
    try:
        # Whoever hears of an error closes the connection; `NothingYet` is none.
        return connection.read_response(disconnect_on_error=False)
    except ResponseError as error:
        return error.with_traceback(None)  # whose frames have the other replies, and the loop
