"""The question to the store alone: failsoft's flights, other packages' calls, and what lies below all of them.

The floors send what failsoft sends, one EVALSHA of its script with three keys, with nothing around it: no deadline, no
breaker, no recovery.
"""

import asyncio
import socket
import time
from collections import deque
from collections.abc import Awaitable, Callable
from functools import partial
from typing import Any

from benchmarks.applications.peers import CLIENT, ask, ask_async
from benchmarks.applications.visitor import CONTENT, SECRET, act
from benchmarks.cases import FLOOR, LIMITS, OURS, Case, Place
from failsoft.errors import SessionUnavailable
from failsoft.exchange import Facts
from failsoft.ratelimit import Acquire, limit, parse_quotas
from failsoft.ratelimit.acquire import SCRIPT
from failsoft.runtime import Runtime
from failsoft.sessions.service import Sessions
from failsoft.sessions.view import SessionView
from failsoft.settings import Settings

__all__ = ["begun", "build", "connect", "protocol", "question", "raw", "settings"]

Call = Callable[[], Any]

_TRIES = 1000
_PAUSE = 0.02


def build(case: Case, place: Place) -> Call | Awaitable[Call]:
    """The call of `case`, or an awaitable of it."""
    if case.session:
        return _floor(case, place) if case.package == FLOOR else _session(case, place)
    if case.package == OURS:
        return _flight(case, place) if not case.option else _decision(case, place)
    makers: dict[tuple[str, str], Callable[[Case, Place], Call | Awaitable[Call]]] = {
        ("call", FLOOR): raw,
        ("call", "redis-py connection"): _connection,
        ("call", "redis-py client"): _client,
        ("async call", FLOOR): _raw_async,
        ("async call", "asyncio.Protocol"): protocol,
        ("async call", "redis-py client"): _client_async,
    }
    maker = makers.get((case.framework, case.package))
    if maker is not None:
        return maker(case, place)
    return _peer_async(case, place) if case.asynchronous else partial(ask(case, place), CLIENT)


async def _peer_async(case: Case, place: Place) -> Call:
    return partial(await ask_async(case, place), CLIENT)


def settings(case: Case, place: Place) -> Settings:
    """Failsoft's, for `case`."""
    lease = 1000 if case.option == "lease" else 0
    sessions = {"sessions": True, "secret": SECRET} if case.session else {}
    return Settings.load({**place.options(case.store), "limits": LIMITS[: case.limits], "lease": lease, **sessions})


def _operation(case: Case) -> Acquire:
    quotas = parse_quotas(LIMITS[: case.limits])
    keys = [f"benchmarks:{case.name}:{quota.key}:{CLIENT}" for quota in quotas]
    return Acquire(quotas, keys, [1] * len(quotas))


def _flight(case: Case, place: Place) -> Call:
    from failsoft.stores import open_store

    store = open_store(settings(case, place))
    store.start()
    return partial(store.aflight if case.asynchronous else store.flight, (_operation(case),))


class _Facts(Facts):
    """A request of no framework."""

    __slots__ = ("_cookies",)

    def __init__(self, cookies: str | None = None) -> None:
        self.request = None
        self.method = "GET"
        self.endpoint = None
        self.route = "/"
        self._cookies = cookies

    def peer(self) -> str:
        return CLIENT

    def header_lines(self, name: str) -> tuple[str, ...]:
        return (self._cookies,) if name == "cookie" and self._cookies is not None else ()


def _decision(case: Case, place: Place) -> Call:
    """Everything that the core does for a request, the header fields and the answer to a refusal too."""
    runtime = Runtime(settings(case, place))
    runtime.start()
    if case.option == "refusal":
        return _refusals(runtime, asynchronous=case.asynchronous)

    def decide() -> Any:
        exchange = runtime.begin(_Facts())
        if runtime.admit(exchange) is not None:
            raise AssertionError("refused")
        return runtime.finish(exchange, 200)

    async def adecide() -> Any:
        exchange = runtime.begin(_Facts())
        if await runtime.aadmit(exchange) is not None:
            raise AssertionError("refused")
        return await runtime.afinish(exchange, 200)

    return adecide if case.asynchronous else decide


def _refusals(runtime: Runtime, *, asynchronous: bool) -> Call:
    """A client that goes on after it was refused, until the entry is over and the store refuses it again."""
    facts = _Facts()
    facts.endpoint = limit("1/minute", shared="refusals")(_view)

    def refuse() -> Any:
        exchange = runtime.begin(facts)
        rejected = runtime.admit(exchange)
        runtime.finish(exchange, 200 if rejected is None else 429)
        return rejected and runtime.answer(rejected, "*/*")

    async def arefuse() -> Any:
        exchange = runtime.begin(facts)
        rejected = await runtime.aadmit(exchange)
        await runtime.afinish(exchange, 200 if rejected is None else 429)
        return rejected and runtime.answer(rejected, "*/*")

    return arefuse if asynchronous else refuse


def _session(case: Case, place: Place) -> Call:
    """Everything that the core does for a request with a session."""
    runtime = Runtime(settings(case, place))
    runtime.start()
    sessions = runtime.sessions
    assert sessions is not None
    cookies = begun(sessions) if case.session != "anonymous" else None

    def decide() -> Any:
        exchange = runtime.begin(_Facts(cookies))
        session = sessions.open(cookies, exchange)
        if runtime.admit(exchange) is not None:
            raise AssertionError("refused")
        if case.session != "untouched":
            act(SessionView(session, "call"), case.session)
        fields = runtime.finish(exchange, 200)
        exchange.end()
        return fields

    async def adecide() -> Any:
        exchange = runtime.begin(_Facts(cookies))
        session = sessions.open(cookies, exchange, eager=True)
        if await runtime.aadmit(exchange) is not None:
            raise AssertionError("refused")
        if case.session != "untouched":
            act(SessionView(session, "call"), case.session)
        fields = await runtime.afinish(exchange, 200)
        exchange.end()
        return fields

    return adecide if case.asynchronous else decide


def _floor(case: Case, place: Place) -> Call:
    from benchmarks.applications.floors import blocking

    floor = blocking(case, place)
    return partial(floor.visit, floor.cookies)


def begun(sessions: Sessions) -> str:
    """The cookies of a new session."""
    for _ in range(_TRIES):
        session = sessions.open(None)
        SessionView(session, "call").update(CONTENT)
        try:
            return "; ".join(cookie.partition(";")[0] for cookie in sessions.save(session))
        except SessionUnavailable:  # the connection is being made
            time.sleep(_PAUSE)
    raise TimeoutError("the server does not answer")


def _view() -> None:
    """Never called."""


def question(case: Case, place: Place) -> tuple[Any, ...]:
    """The EVALSHA of the limits, after the server has learnt the script."""
    import redis

    with redis.Redis.from_url(place.peer_url(case.store)) as client:
        client.script_load(SCRIPT.source)
    operation = _operation(case)
    return ("EVALSHA", SCRIPT.sha, len(operation.keys), *operation.keys, *operation.arguments)


def connect(case: Case, place: Place) -> socket.socket:
    """A socket to the server."""
    if case.store == "unix":
        connection = socket.socket(socket.AF_UNIX)
        connection.connect(place.path)
        return connection
    connection = socket.create_connection(("127.0.0.1", place.port))
    connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    return connection


def raw(case: Case, place: Place) -> Call:
    """A blocking socket and hiredis."""
    import hiredis

    command = question(case, place)
    connection, reader, pack = connect(case, place), hiredis.Reader(), hiredis.pack_command
    send, receive, feed, gets = connection.sendall, connection.recv, reader.feed, reader.gets

    def call() -> Any:
        send(pack(command))
        feed(receive(65_536))
        while (reply := gets()) is False:
            feed(receive(65_536))
        return reply

    return call


def _connection(case: Case, place: Place) -> Call:
    """redis-py's connection, held, without its pool."""
    import redis

    command = question(case, place)
    pool = redis.Redis.from_url(place.peer_url(case.store), protocol=2).connection_pool
    connection: Any = pool.get_connection()

    def call() -> Any:
        connection.send_command(*command, check_health=False)
        return connection.read_response()

    return call


def _client(case: Case, place: Place) -> Call:
    import redis

    _, sha, count, *arguments = question(case, place)
    return partial(redis.Redis.from_url(place.peer_url(case.store)).evalsha, sha, count, *arguments)


async def _client_async(case: Case, place: Place) -> Call:
    import redis.asyncio

    _, sha, count, *arguments = question(case, place)
    return partial(redis.asyncio.Redis.from_url(place.peer_url(case.store)).evalsha, sha, count, *arguments)


async def _raw_async(case: Case, place: Place) -> Call:
    """The loop's own socket functions; one question at a time."""
    import hiredis

    command = question(case, place)
    connection, reader, pack = connect(case, place), hiredis.Reader(), hiredis.pack_command
    connection.setblocking(False)
    loop = asyncio.get_running_loop()

    async def call() -> Any:
        await loop.sock_sendall(connection, pack(command))
        reader.feed(await loop.sock_recv(connection, 65_536))
        while (reply := reader.gets()) is False:
            reader.feed(await loop.sock_recv(connection, 65_536))
        return reply

    return call


async def protocol(case: Case, place: Place) -> Call:
    """A transport of asyncio: many questions at a time on one connection."""
    import hiredis

    command = question(case, place)
    pack = hiredis.pack_command
    loop = asyncio.get_running_loop()

    class Replies(asyncio.Protocol):
        def __init__(self) -> None:
            self.reader = hiredis.Reader()
            self.waiting: deque[asyncio.Future[Any]] = deque()

        def data_received(self, data: bytes) -> None:
            self.reader.feed(data)
            while (reply := self.reader.gets()) is not False:
                self.waiting.popleft().set_result(reply)

    transport, replies = await loop.create_connection(Replies, sock=connect(case, place))

    def call() -> asyncio.Future[Any]:
        future: asyncio.Future[Any] = loop.create_future()
        replies.waiting.append(future)
        transport.write(pack(command))
        return future

    return call
