"""Connections: redis-py's own, with a socket that keeps to a deadline.

redis-py makes and owns a connection (socket, handshake, ACL, protocol). It bounds each recv, not the reply: a server
that sends a byte now and then holds its caller for ever. So a connection's `_connect` wraps the socket in a `Wire`,
which redis-py then reads through. A wire serves one of two masters:

- A thread. The first recv of a flight runs with the timeout that the socket has anyway, so the usual flight, whose
  replies come in one piece, pays one method call for it (0.1 µs). Later ones get what is left of the deadline. When
  that is over, what has arrived is read, and only then is a timeout declared.
- An event loop. A wire never blocks then: it may read once each time the loop says that there is something, and
  otherwise raises `NothingYet`, which redis-py's parsers let through, to go on from there later.

Over TLS, a socket that can be read may have nothing for us (the protocol's own messages), and one that cannot be read may
have (decrypted bytes that nobody took yet): so a `TlsWire` asks both the kernel and OpenSSL.

One class of connection for both, so that whatever redis-py can do for one is there for the other.
"""

import inspect
import select
import socket
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, cast

from redis.connection import AbstractConnection, Connection, UnixDomainSocketConnection
from redis.exceptions import NoPermissionError, ResponseError

from failsoft.stores.redis.replies import Replies
from failsoft.stores.redis.tls import Tls
from failsoft.stores.redis.url import Target

if TYPE_CHECKING:
    from ssl import SSLWantReadError, SSLWantWriteError
else:
    try:
        from ssl import SSLWantReadError, SSLWantWriteError
    except ImportError:  # Python can be built without it; then no store has TLS
        SSLWantReadError = SSLWantWriteError = BlockingIOError

__all__ = [
    "CONNECTIONS",
    "CONNECT_BUDGET",
    "LATE_READS",
    "NothingYet",
    "TcpConnection",
    "TlsConnection",
    "TlsWire",
    "UnixConnection",
    "Warm",
    "Wire",
    "dial",
]

CONNECT_BUDGET = 2.0
"""Seconds for the connect to one address, and again for the handshake. Nobody waits for it but the connector."""

_AT_ONCE = 16_384
"""Bytes that a kernel takes without waiting where nothing is under way: the least send buffer of Linux. The most that one
record of TLS carries, too (RFC 8446, section 5.1)."""

LATE_READS = 64
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

    _blocked: tuple[type[Exception], ...] = (BlockingIOError,)

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

    def send(self, data: bytes) -> int:
        """For event loops: how many bytes went out, 0 where that would block."""
        try:
            return self.sock.send(data)
        except BlockingIOError:
            return 0

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
            except self._blocked:
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
            if self._late_reads > LATE_READS:
                raise TimeoutError
            self.sock.settimeout(0.0)
            try:
                return receive(argument)
            except self._blocked:
                raise TimeoutError from None
        finally:
            if self.sock.fileno() >= 0:
                self.sock.settimeout(self._timeout)


class TlsWire(Wire):
    """A wire over TLS."""

    __slots__ = ()

    # To write in order to read: an answer to a key update, which the send buffer has no room for. Both are tried again when
    # something can be read; until then there is nothing to be had.
    _blocked = (SSLWantReadError, SSLWantWriteError)

    def readable(self) -> bool:
        """Whether a recv would return at once, with data or with the end. 0.6 µs; more if only TLS itself has something."""
        if self.sock.pending():  # type: ignore[attr-defined]  # an SSLSocket
            return True
        if not self._poll():
            return False
        self.sock.settimeout(0.0)
        try:
            # Taken from a connection that nobody asked anything: whatever it is, it is not used any more.
            self.sock.recv(1)
            return True
        except self._blocked:
            return False
        except OSError:
            return True
        finally:
            if self.sock.fileno() >= 0:
                self.sock.settimeout(self._timeout)

    def sendall(self, data: bytes) -> None:
        """For flights, and for the handshake. The socket's own would grant each record the whole timeout."""
        if len(data) <= _AT_ONCE:
            self.sock.sendall(data)
            return
        self.fresh = False
        rest = memoryview(data)
        try:
            while rest:
                left = self.due - self._monotonic()
                if left <= 0:
                    raise TimeoutError
                self.sock.settimeout(left)
                rest = rest[self.sock.send(rest[:_AT_ONCE]) :]
        finally:
            if self.sock.fileno() >= 0:
                self.sock.settimeout(self._timeout)

    def send(self, data: bytes) -> int:
        """For event loops: how many bytes went out, 0 where that would block; then those must come first the next time."""
        sent = 0
        rest = memoryview(data)
        try:
            while sent < len(data):
                sent += self.sock.send(rest[sent:])
        except self._blocked:
            pass
        return sent

    def _receive(self, receive: Callable[[Any], Any], argument: Any) -> Any:
        received = super()._receive(receive, argument)
        if self._timeout == 0.0:
            # The loop will not say so: it knows only what the kernel has.
            self.ready = bool(self.sock.pending())  # type: ignore[attr-defined]  # an SSLSocket
        return received


class Warm(AbstractConnection):
    """A connection with a wire, and what its owner notes on it.

    Attributes:
        address: where it leads, if that may change.
        budget: seconds for the connect and again for the handshake.
        wire: there once connected.
        monotonic: the clock.
        since: when it was last used.
        retire_at: when it is to be replaced, so that the server asks for the credentials again.
        stale: whether it was replaced already, and is to be closed instead of used.
        replies: what comes in; there once connected.
    """

    wire_type: type[Wire] = Wire
    address: tuple[str, int] | None = None
    budget: float
    wire: Wire
    monotonic: Callable[[], float]
    since: float
    retire_at: float
    stale: bool
    replies: Replies

    def _connect(self) -> Any:
        # Untyped, and abstract as far as a checker sees: the classes below put redis-py's own after this one.
        sock = cast(Any, super()._connect())  # type: ignore[no-untyped-call, safe-super]
        self.wire = self.wire_type(sock, budget=self.budget, monotonic=self.monotonic)
        return self.wire


class TcpConnection(Warm, Connection):
    """A connection over TCP."""


class UnixConnection(Warm, UnixDomainSocketConnection):
    """A connection over a unix socket."""


class _Encrypted(Connection):
    """TCP with TLS over it. redis-py's own would build a context for each connection."""

    def __init__(self, *, tls: Tls, **options: Any) -> None:
        self._tls = tls
        super().__init__(**options)  # type: ignore[no-untyped-call]  # so is the whole class

    def _connect(self) -> Any:
        sock = super()._connect()  # type: ignore[no-untyped-call]
        try:
            return self._tls.wrap(sock, self.host)
        except BaseException:
            sock.close()
            raise


class TlsConnection(Warm, _Encrypted):
    """A connection over TLS over TCP."""

    wire_type = TlsWire


CONNECTIONS: dict[str, Callable[..., Warm]] = {"tcp": TcpConnection, "tls": TlsConnection, "unix": UnixConnection}
"""Transports. Another one is a class like these and a parser in `failsoft.stores.redis.url`."""

# It saves two round trips. How to say it depends on the version.
_NO_SETINFO: dict[str, None] = (
    {"driver_info": None}
    if "driver_info" in inspect.signature(AbstractConnection.__init__).parameters
    else {"lib_name": None, "lib_version": None}
)


def dial(
    target: Target,
    *,
    deadline: float,
    monotonic: Callable[[], float],
    budget: float | None = None,
    scripts: bool = False,
) -> Warm:
    """A connection that is ready for use: connected, let in, and known to answer within `deadline` seconds.

    A server that hangs still accepts connections, because the kernel does; so only an answer to PING counts. One whose writes are paused
    (CLIENT PAUSE, a failover) answers that too, and no script.

    Args:
        target: where, and how to get in.
        deadline: seconds for a flight.
        monotonic: the clock.
        budget: seconds for the connect and again for the handshake, instead of `CONNECT_BUDGET`.
        scripts: whether it is for flights, so that it has to answer a script as well.

    Raises:
        redis.exceptions.RedisError, OSError: there is none to be had.
    """
    budget = CONNECT_BUDGET if budget is None else budget
    connection = CONNECTIONS[target.kind](
        **target.address,
        db=target.db,
        username=target.username,
        password=target.password,
        credential_provider=target.credentials,
        socket_timeout=budget,
        socket_connect_timeout=budget,
        protocol=2,
        retry=None,
        health_check_interval=0,
        maint_notifications_config=None,
        **_NO_SETINFO,
    )
    connection.budget = budget
    connection.monotonic = monotonic
    connection.stale = False
    try:
        connection.connect()
        connection.replies = Replies(connection, connection.wire.recv_into)
        start = monotonic()
        _ping(connection)
        if monotonic() - start > deadline:
            # It may have been asleep until now, or we were. The second time only its lateness counts, not ours.
            connection.wire.due = monotonic() + deadline
            _ping(connection)
        if scripts:
            _run_script(connection)
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


def _run_script(connection: Warm) -> None:
    connection.send_command("EVAL", "return 1", 0, check_health=False)
    try:
        connection.read_response()
    except ResponseError:
        pass  # likewise; what it will not do is each operation's own trouble


def _poll_function(sock: socket.socket) -> Callable[[], bool]:
    if hasattr(select, "poll"):
        poll = select.poll()
        poll.register(sock, select.POLLIN)
        return lambda: bool(poll.poll(0))
    return lambda: bool(select.select([sock], [], [], 0)[0])  # Windows, where descriptors may be of any number
