"""Connections: redis-py's own, with a socket that keeps to a deadline.

redis-py makes and owns a connection (socket, handshake, ACL, protocol). It bounds each recv, not the reply: a server
that sends a byte now and then holds its caller for ever. So a connection's `_connect` wraps the socket in a `Wire`,
which redis-py then reads through. A wire serves one of two masters:

- A thread. The first recv of a flight runs with the timeout that the socket has anyway, so the usual flight, whose
  replies come in one piece, pays one method call for it (0.1 µs). Later ones get what is left of the deadline. When
  that is over, what has arrived is read, and only then is a timeout declared.
- An event loop. A wire never blocks then: it may read once each time the loop says that there is something, and
  otherwise raises `NothingYet`, which redis-py's parsers let through, to go on from there later.

One class of connection for both, so that whatever redis-py can do for one is there for the other.
"""

import inspect
import select
import socket
from collections.abc import Callable
from typing import Any, cast

from redis.connection import AbstractConnection, Connection, UnixDomainSocketConnection
from redis.exceptions import NoPermissionError

from failsoft.stores.redis.url import Target

__all__ = ["CONNECTIONS", "CONNECT_BUDGET", "NothingYet", "TcpConnection", "UnixConnection", "Warm", "Wire", "dial"]

CONNECT_BUDGET = 2.0
"""Seconds for the connect to one address, and again for the handshake. Nobody waits for it but the connector."""

_AT_ONCE = 16_384
"""Bytes that a kernel takes without waiting where nothing is under way: the least send buffer of Linux."""

_LATE_READS = 64
"""Reads after the deadline: more than a receive buffer holds, and an end for a server that never stops."""


class NothingYet(Exception):
    """The event loop has to wait for more."""


class Wire:
    """What redis-py takes for its socket.

    Attributes:
        sock: the socket.
        due: when the replies must be there, by `monotonic`; set for each flight.
        fresh: whether the next recv may take the whole timeout; set for each flight.
        ready: whether the event loop said that there is something to read.
    """

    __slots__ = ("_late_reads", "_monotonic", "_poll", "_timeout", "due", "fresh", "ready", "sock")

    def __init__(self, sock: socket.socket, *, budget: float, monotonic: Callable[[], float]) -> None:
        self.sock = sock
        self._monotonic = monotonic
        self.due = monotonic() + budget
        self.fresh = False
        self.ready = False
        self._late_reads = 0
        self._timeout = sock.gettimeout()
        self._poll = _poll_function(sock)

    def serve_threads(self, timeout: float) -> None:
        """Block, for at most `timeout` seconds at a time."""
        self._timeout = timeout
        self.sock.settimeout(timeout)

    def serve_loop(self) -> None:
        """Never block."""
        self._timeout = 0.0
        self.sock.settimeout(0.0)

    def readable(self) -> bool:
        """Whether a recv would return at once, with data or with the end. 0.5 µs."""
        return self._poll()

    def recv_into(self, buffer: Any) -> Any:
        """For the parser that uses hiredis."""
        if self.fresh:
            self.fresh = False
            try:
                return self.sock.recv_into(buffer)
            except TimeoutError:
                self._late_reads = 0
        return self._receive(self.sock.recv_into, buffer)

    def recv(self, size: int) -> Any:
        """For the parser in Python."""
        if self.fresh:
            self.fresh = False
            try:
                return self.sock.recv(size)
            except TimeoutError:
                self._late_reads = 0
        return self._receive(self.sock.recv, size)

    def sendall(self, data: bytes) -> None:
        """For flights, and for the handshake."""
        if len(data) > _AT_ONCE:
            self.fresh = False  # the time that this takes, the replies do not have
        self.sock.sendall(data)

    def fileno(self) -> int:
        """The descriptor, -1 once closed."""
        return self.sock.fileno()

    def __getattr__(self, name: str) -> Any:
        # Whatever else redis-py asks of a socket (shutdown, close, getpeername) is no business of a flight.
        return getattr(self.sock, name)

    def _receive(self, receive: Callable[[Any], Any], argument: Any) -> Any:
        if self._timeout == 0.0:
            if not self.ready:
                raise NothingYet
            self.ready = False
            try:
                return receive(argument)
            except BlockingIOError:
                raise NothingYet from None
        try:
            left = self.due - self._monotonic()
            if left > 0:
                self._late_reads = 0
                self.sock.settimeout(left)
                try:
                    return receive(argument)
                except TimeoutError:
                    pass
            self._late_reads += 1
            if self._late_reads > _LATE_READS:
                raise TimeoutError
            self.sock.settimeout(0.0)
            try:
                return receive(argument)
            except BlockingIOError:
                raise TimeoutError from None
        finally:
            if self.sock.fileno() >= 0:
                self.sock.settimeout(self._timeout)


class Warm(AbstractConnection):
    """A connection with a wire, and what its owner notes on it.

    Attributes:
        wire: there once connected.
        monotonic: the clock.
        since: when it was last used.
        retire_at: when it is to be replaced, so that the server asks for the credentials again.
        stale: whether it was replaced already, and is to be closed instead of used.
    """

    wire: Wire
    monotonic: Callable[[], float]
    since: float
    retire_at: float
    stale: bool

    def _connect(self) -> Any:
        # Untyped, and abstract as far as a checker sees: the classes below put redis-py's own after this one.
        sock = cast(Any, super()._connect())  # type: ignore[no-untyped-call, safe-super]
        self.wire = Wire(sock, budget=CONNECT_BUDGET, monotonic=self.monotonic)
        return self.wire


class TcpConnection(Warm, Connection):
    """A connection over TCP."""


class UnixConnection(Warm, UnixDomainSocketConnection):
    """A connection over a unix socket."""


CONNECTIONS: dict[str, Callable[..., Warm]] = {"tcp": TcpConnection, "unix": UnixConnection}
"""Transports. Another one is a class like these and a parser in `failsoft.stores.redis.url`."""

# It saves two round trips. How to say it depends on the version.
_NO_SETINFO: dict[str, None] = (
    {"driver_info": None}
    if "driver_info" in inspect.signature(AbstractConnection.__init__).parameters
    else {"lib_name": None, "lib_version": None}
)


def dial(target: Target, *, deadline: float, monotonic: Callable[[], float]) -> Warm:
    """A connection that is ready for use: connected, let in, and known to answer within `deadline` seconds.

    A server that hangs still accepts connections, because the kernel does; so only an answer to PING counts.

    Raises:
        redis.exceptions.RedisError, OSError: there is none to be had.
    """
    connection = CONNECTIONS[target.kind](
        **target.address,
        db=target.db,
        username=target.username,
        password=target.password,
        socket_timeout=CONNECT_BUDGET,
        socket_connect_timeout=CONNECT_BUDGET,
        protocol=2,
        retry=None,
        health_check_interval=0,
        maint_notifications_config=None,
        **_NO_SETINFO,
    )
    connection.monotonic = monotonic
    connection.stale = False
    try:
        connection.connect()
        start = monotonic()
        _ping(connection)
        if monotonic() - start > deadline:
            # It may have been asleep until now, or we were. The second time only its lateness counts, not ours.
            connection.wire.due = monotonic() + deadline
            _ping(connection)
        connection.wire.serve_threads(deadline)
    except BaseException:
        connection.disconnect()
        raise
    connection.since = monotonic()
    return connection


def _ping(connection: Warm) -> None:
    connection.send_command("PING", check_health=False)
    try:
        connection.read_response()
    except NoPermissionError:
        pass  # the ACL of this user lacks PING; but it is let in, and the server answers


def _poll_function(sock: socket.socket) -> Callable[[], bool]:
    if hasattr(select, "poll"):
        poll = select.poll()
        poll.register(sock, select.POLLIN)
        return lambda: bool(poll.poll(0))
    return lambda: bool(select.select([sock], [], [], 0)[0])  # Windows, where descriptors may be of any number
