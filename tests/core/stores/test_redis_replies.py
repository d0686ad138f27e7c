"""Replies as they come out of the parser: in pieces, in bursts, with errors and with what nobody asked for between them."""

import gc
import socket
import threading
import time
from collections.abc import Callable
from typing import Any

import pytest
import redis

from failsoft.errors import OperationFailed, StoreUnavailable
from failsoft.stores.redis import RedisStore, replies
from failsoft.stores.redis.replies import Replies
from failsoft.stores.redis.url import parse_url
from failsoft.stores.redis.wire import Warm as Connection
from failsoft.stores.redis.wire import dial
from tests.core.stores.conftest import Fly
from tests.core.stores.lua import ECHO, Lua
from tests.servers import Impostor, Valkey, poll

Opener = Callable[..., RedisStore]
Warm = Callable[[RedisStore], None]

WARM = b"$4\r\nwarm\r\n"
PUSH = b">2\r\n$10\r\ninvalidate\r\n*1\r\n$1\r\na\r\n"

PARSERS = ["hiredis", "redis-py's way", "python"]


@pytest.fixture(params=PARSERS)
def parser(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    """How new connections parse: hiredis' reader itself, redis-py around it, or redis-py without hiredis."""
    name: str = request.param
    if name == "python":
        from redis._parsers import _RESP2Parser

        init = Connection.set_parser
        monkeypatch.setattr(Connection, "set_parser", lambda self, parser_class: init(self, _RESP2Parser))
        return name
    pytest.importorskip("hiredis")
    if name != "hiredis":
        monkeypatch.setattr(replies, "_READER", ())
    return name


class Script:
    """What an impostor says to flights: a healthy reply at first, then pieces, one after the other."""

    def __init__(self) -> None:
        self.pieces: tuple[bytes, ...] = (WARM,)

    def __call__(self, connection: socket.socket, data: bytes) -> None:
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        first, *others = self.pieces
        connection.sendall(first)
        for piece in others:
            time.sleep(0.001)
            connection.sendall(piece)


def flight_of(count: int) -> list[Lua]:
    return [Lua(ECHO, arguments=("x",)) for _ in range(count)]


def test_pieces(open_store: Opener, fly: Fly, warm: Warm, parser: str) -> None:
    """Wherever a burst of replies is cut in two, each operation has its own answer, and the connection lives."""
    burst = b":1\r\n*2\r\n$3\r\nabc\r\n$-1\r\n-ERR no\r\n$2\r\nok\r\n"
    script = Script()
    with Impostor(script) as server:
        store = open_store(server.url, deadline=5.0)
        warm(store)
        left = server.left
        for cut in range(1, len(burst)):
            script.pieces = burst[:cut], burst[cut:]
            one, tree, failed, last = fly(store, flight_of(4))
            assert (1, [b"abc", None], b"ok") == (one, tree, last)
            assert isinstance(failed, OperationFailed)
            assert str(failed).endswith("no")
        assert left == server.left


def test_byte_by_byte(open_store: Opener, fly: Fly, warm: Warm, parser: str) -> None:
    """Each byte by itself is as good as all at once."""
    script = Script()
    with Impostor(script) as server:
        store = open_store(server.url, deadline=5.0)
        warm(store)
        script.pieces = tuple(bytes((byte,)) for byte in b"*2\r\n:7\r\n$0\r\n\r\n-NO\r\n$1\r\nx\r\n")

        first, failed, last = fly(store, flight_of(3))

    assert ([7, b""], b"x") == (first, last)
    assert isinstance(failed, OperationFailed)


@pytest.mark.parametrize("place", [0, 1, 2])
@pytest.mark.parametrize("said", [b"-LOADING Redis is loading\r\n", b"-NOAUTH Authentication required.\r\n"])
def test_turned_away(open_store: Opener, fly: Fly, warm: Warm, parser: str, said: bytes, place: int) -> None:
    """An error that speaks for the whole connection is the answer to what has none yet; that connection is not used again."""
    script = Script()
    with Impostor(script) as server:
        store = open_store(server.url, deadline=5.0)
        warm(store)
        left = server.left
        script.pieces = (WARM * place + said,)

        answers = fly(store, flight_of(3))

        script.pieces = (WARM,)
        warm(store)
        assert [b"warm"] * place == answers[:place]
        assert [OperationFailed] * (3 - place) == [type(answer) for answer in answers[place:]]
        poll(lambda: left < server.left)


def test_one_too_many_after_an_error(open_store: Opener, fly: Fly, warm: Warm, parser: str) -> None:
    """What comes behind an error reply is nobody's answer either."""
    script = Script()
    with Impostor(script) as server:
        store = open_store(server.url, deadline=5.0)
        warm(store)
        script.pieces = (b"-ERR no\r\n$5\r\nalien\r\n",)
        assert [OperationFailed] == [type(answer) for answer in fly(store, flight_of(1))]
        script.pieces = (WARM,)

        assert [b"warm"] == fly(store, flight_of(1))


@pytest.mark.parametrize("pieces", [(WARM, b"-ERR max number of clients reached\r\n"), (WARM + b"$4\r\nwa",)])
def test_the_end_between_two_replies(
    open_store: Opener, fly: Fly, warm: Warm, parser: str, pieces: tuple[bytes, ...]
) -> None:
    """A server that breaks off after the first reply has broken the connection."""
    script = Script()

    def answer(connection: socket.socket, data: bytes) -> None:
        script(connection, data)
        if script.pieces is pieces:
            connection.shutdown(socket.SHUT_RDWR)

    with Impostor(answer) as server:
        store = open_store(server.url, deadline=5.0)
        warm(store)
        script.pieces = pieces
        with pytest.raises(StoreUnavailable) as failure:
            fly(store, flight_of(2))

    assert "broken" == failure.value.reason


@pytest.mark.parametrize("parser", PARSERS[:2], indirect=True)
def test_push_messages(open_store: Opener, fly: Fly, warm: Warm, parser: str) -> None:
    """What a server pushes between replies is no reply, in one piece with them or by itself."""
    script = Script()
    with Impostor(script) as server:
        store = open_store(server.url, deadline=5.0)
        warm(store)
        left = server.left
        for pieces in (
            (PUSH + b":1\r\n" + PUSH + PUSH + b":2\r\n",),
            (PUSH, b":1\r\n", PUSH, b":2\r\n"),
            (b":1\r\n" + PUSH[:9], PUSH[9:] + b":2\r\n"),
        ):
            script.pieces = pieces
            assert [1, 2] == fly(store, flight_of(2))
        assert left == server.left


def test_one_reply_is_late(open_store: Opener, fly: Fly, warm: Warm, parser: str) -> None:
    """A flight whose last reply does not come ends at its deadline, for want of that one."""
    script = Script()
    held = threading.Event()

    def answer(connection: socket.socket, data: bytes) -> None:
        script(connection, data)
        if script.pieces == (b":1\r\n",):
            held.wait(10)

    with Impostor(answer) as server:
        store = open_store(server.url, deadline=0.2)
        warm(store)
        script.pieces = (b":1\r\n",)
        with pytest.raises(StoreUnavailable) as failure:
            fly(store, flight_of(2))
        held.set()

    assert failure.value.reason in ("timeout", "local_lag")


def test_straight_from_the_reader(valkey: Valkey) -> None:
    """With the redis-py and the hiredis that are installed here, replies are taken from the reader itself."""
    hiredis = pytest.importorskip("hiredis")
    connection = dial(parse_url(valkey.unix_url), deadline=5.0, monotonic=time.monotonic)
    try:
        assert isinstance(connection.replies.gets.__self__, hiredis.Reader)
        assert not isinstance(connection.replies.gets(), (bytes, int, list, Exception))
    finally:
        connection.disconnect()


def test_no_cycle(valkey: Valkey, parser: str) -> None:
    """A connection that nobody holds any more is closed at once, not when garbage is collected."""
    connection = dial(parse_url(valkey.unix_url), deadline=5.0, monotonic=time.monotonic)
    sock = connection.wire.sock
    gc.disable()
    try:
        del connection
        assert -1 == sock.fileno()
    finally:
        gc.enable()


def test_what_came_before_anybody_asked() -> None:
    """A reader that holds something already is left to redis-py."""
    hiredis = pytest.importorskip("hiredis")

    class Full:
        def __init__(self) -> None:
            self._parser = self
            self._reader = hiredis.Reader()
            self._reader.feed(b"+early\r\n")

        def read_response(self, disconnect_on_error: bool) -> Any:
            return "by redis-py" if not disconnect_on_error else None

    connection: Any = Full()
    found = Replies(connection, lambda buffer: 0)

    assert "by redis-py" == found.settle(found.gets())
    assert found.surplus()


def test_the_end() -> None:
    """No bytes are the end of the connection."""
    hiredis = pytest.importorskip("hiredis")

    class Connection:
        class _parser:
            _reader = hiredis.Reader(notEnoughData=object())

    connection: Any = Connection()
    found = Replies(connection, lambda buffer: 0)

    with pytest.raises(redis.ConnectionError, match="closed"):
        found.settle(found.gets())
