"""The floor of sessions: what failsoft's way of keeping one takes at least, where nothing stands around it.

One send carries the EVALSHA of the limits, if there are any, and the one that loads the session; both are failsoft's own scripts, on a
record of failsoft's, and hiredis takes the replies apart. What the Cookie field leads to is remembered, as failsoft does. Then the view:

- *untouched*: nothing more. Nobody knows before the view whether it is going to use the session, so it was loaded.
- *read*: two values are decoded; that which can be changed in place is encoded once, to know whether it was; the response varies.
- *write*: one value is decoded, the next one encoded, and a second EVALSHA writes it; the response has a new seal, and is private.

No pool, no deadline, no breaker, no recovery, no mapping, no header fields of the limits, no errors that say anything, no events, nothing
for a login, an outage, or another request of the same browser. So it is no way to keep sessions. Nor is it the floor of every way: one
that writes whenever it is told to, and gives the browser the same cookie all the time, needs neither the comparison nor the seal.

Each floor is checked before it is measured: failsoft must find in the record what was written, and would have said the same to the
browser.
"""

import asyncio
import re
from base64 import urlsafe_b64encode
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from email.utils import formatdate
from functools import lru_cache
from os import urandom
from time import time
from typing import Any, NamedTuple

import hiredis
import msgspec
import redis

from benchmarks.applications.calls import begun, connect, question, settings
from benchmarks.applications.visitor import CONTENT, act
from benchmarks.cases import Case, Place
from failsoft.runtime import Runtime
from failsoft.sessions import scripts
from failsoft.sessions.browser import header_fields
from failsoft.sessions.cookies import values
from failsoft.sessions.ids import SessionId
from failsoft.sessions.operations import FOUND
from failsoft.sessions.service import Sessions
from failsoft.sessions.view import SessionView

__all__ = ["Blocking", "Fields", "Looping", "blocking", "looping"]

Fields = list[tuple[str, str]]
"""Header fields for the response."""

_pack: Callable[[tuple[Any, ...]], bytes] = hiredis.pack_command
_read = msgspec.json.Decoder().decode
_write = msgspec.json.Encoder().encode
_write_seal = msgspec.msgpack.Encoder().encode


class _Known(NamedTuple):
    """What a Cookie field leads to: what loads the session, packed; where its record lies; and the digest that opens it."""

    load: bytes
    key: str
    digest: str


@lru_cache(1024)
def _places(names: bytes) -> dict[str, int]:
    return {name.decode(): place for place, name in enumerate(names.split(b"\xff"))}


_date = lru_cache(256)(lambda seconds: formatdate(seconds, usegmt=True))


class _Floor:
    """What both kinds share.

    Args:
        case: what is measured.
        place: where the server is.
        sessions: failsoft's, for what is the same in both.

    Attributes:
        cookies: what the browser sends.
    """

    def __init__(self, case: Case, place: Place, sessions: Sessions) -> None:
        self.state = case.session
        self.cookies = begun(sessions)
        with redis.Redis.from_url(place.peer_url(case.store)) as client:
            for script in (scripts.LOAD, scripts.WRITE):
                client.script_load(script.source)
        self._limits = question(case, place) if case.limits else None
        self._count = 2 if case.limits else 1
        self._sessions = sessions
        self._seal_name = sessions.seal_style.full_name
        self._attributes = sessions.seal_style.set("", 0, now=0.0).partition(" GMT")[2]
        ring = sessions.companions._ring
        self._head, self._encrypt = ring._head, ring._sealing.encrypt
        self._known = lru_cache(1024)(self._look_up)

    @property
    def begun(self) -> Fields:
        """What a view answers that gives the browser its cookies."""
        return [("Set-Cookie", cookie) for cookie in self.cookies.split("; ")]

    def _look_up(self, cookies: str) -> _Known:
        sessions = self._sessions
        text = cookies.partition(f"{sessions.style.full_name}=")[2].partition(";")[0]
        identity = SessionId.parse(text)
        assert identity is not None, cookies
        key, digest = sessions.record_key(identity.handle), identity.digest
        load = _pack(("EVALSHA", scripts.LOAD.sha, 1, key, digest, sessions.idle, sessions.touch))
        return _Known(load, key, digest)

    def _first(self, known: _Known) -> bytes:
        return known.load if self._limits is None else _pack(self._limits) + known.load

    def _looked(self, replies: Sequence[Any]) -> Fields:
        """The view that leaves the session alone, or reads it."""
        code, _, names, stored = replies[-1]
        assert replies[0]
        assert code == FOUND
        if self.state == "untouched":
            return []
        places = _places(names)
        user, data = _read(stored[places["user_id"]]), stored[places["cart"]]
        cart = _read(data)
        assert user == 42
        assert len(cart) == 6
        assert _write(cart) == data, "changed inside"
        return [("Vary", "Cookie")]

    def _counted(self, known: _Known, replies: Sequence[Any]) -> bytes:
        """The view that writes: what goes to the server."""
        code, _, names, stored = replies[-1]
        assert replies[0]
        assert code == FOUND
        seen = _read(stored[_places(names)["seen"]])
        data = _write(seen + 1)
        return _pack(("EVALSHA", scripts.WRITE.sha, 1, known.key, known.digest, self._sessions.idle, "0", "seen", data))

    def _written(self, known: _Known, reply: Any) -> Fields:
        """The same, when the server has answered: what the browser gets."""
        code, _, version, deadline, generation = reply
        assert code == FOUND
        now, ends = time(), deadline / 1000
        plain = _write_seal((None, generation, 0.0, version, now, ends, None, False))
        head, nonce = self._head, urandom(12)
        sealed = head + nonce + self._encrypt(nonce, plain, head + b"companion 1\0" + known.digest.encode())
        text, age = urlsafe_b64encode(sealed).rstrip(b"=").decode(), int(ends - now)
        expires = _date(int(now) + age)
        cookie = f"{self._seal_name}={text}; Max-Age={age}; Expires={expires}{self._attributes}"
        return [("Vary", "Cookie"), ("Cache-Control", "private"), ("Set-Cookie", cookie)]


class Blocking(_Floor):
    """A blocking socket."""

    def __init__(self, case: Case, place: Place, sessions: Sessions) -> None:
        super().__init__(case, place, sessions)
        connection, reader = connect(case, place), hiredis.Reader()
        send, receive, feed, gets = connection.sendall, connection.recv, reader.feed, reader.gets

        def ask(data: bytes, count: int) -> list[Any]:
            send(data)
            feed(receive(65_536))
            replies: list[Any] = []
            while len(replies) < count:
                reply = gets()
                if reply is False:
                    feed(receive(65_536))
                else:
                    replies.append(reply)
            return replies

        self._ask = ask

    def visit(self, cookies: str) -> Fields:
        """What is measured: one request."""
        known = self._known(cookies)
        replies = self._ask(self._first(known), self._count)
        if self.state != "write":
            return self._looked(replies)
        return self._written(known, self._ask(self._counted(known, replies), 1)[0])

    def show(self, cookies: str) -> str:
        """What tells whether the session was written."""
        _, _, names, stored = self._ask(self._known(cookies).load, 1)[0]
        return str(_read(stored[_places(names)["seen"]]))


class Looping(_Floor):
    """A transport of asyncio, as that of the limits' floor. `open` comes first."""

    async def open(self, case: Case, place: Place) -> None:
        """Connect, for the running loop."""
        loop = asyncio.get_running_loop()
        reader = hiredis.Reader()
        waiting: deque[tuple[asyncio.Future[Any], int, list[Any]]] = deque()

        class Replies(asyncio.Protocol):
            def data_received(self, data: bytes) -> None:
                reader.feed(data)
                while (reply := reader.gets()) is not False:
                    future, count, replies = waiting[0]
                    replies.append(reply)
                    if len(replies) == count:
                        waiting.popleft()
                        future.set_result(replies)

        transport, _ = await loop.create_connection(Replies, sock=connect(case, place))

        def ask(data: bytes, count: int) -> asyncio.Future[Any]:
            future: asyncio.Future[Any] = loop.create_future()
            waiting.append((future, count, []))
            transport.write(data)
            return future

        self._ask = ask

    async def visit(self, cookies: str) -> Fields:
        """What is measured: one request."""
        known = self._known(cookies)
        replies = await self._ask(self._first(known), self._count)
        if self.state != "write":
            return self._looked(replies)
        return self._written(known, (await self._ask(self._counted(known, replies), 1))[0])

    async def show(self, cookies: str) -> str:
        """What tells whether the session was written."""
        _, _, names, stored = (await self._ask(self._known(cookies).load, 1))[0]
        return str(_read(stored[_places(names)["seen"]]))


def blocking(case: Case, place: Place) -> Blocking:
    """The floor of `case`, checked."""
    with _failsoft(case, place) as sessions:
        floor = Blocking(case, place, sessions)
        _check(floor, sessions, floor.visit(floor.cookies))
        return floor


async def looping(case: Case, place: Place) -> Looping:
    """The same on the running loop, which failsoft's synchronous side must not hold up."""
    with _failsoft(case, place) as sessions:
        floor = await asyncio.to_thread(Looping, case, place, sessions)
        await floor.open(case, place)
        fields = await floor.visit(floor.cookies)
        await asyncio.to_thread(_check, floor, sessions, fields)
        return floor


@contextmanager
def _failsoft(case: Case, place: Place) -> Iterator[Sessions]:
    runtime = Runtime(settings(case, place))
    sessions = runtime.sessions
    assert sessions is not None
    try:
        yield sessions
    finally:
        runtime.close()


def _check(floor: _Floor, sessions: Sessions, fields: Fields) -> None:
    """What the floor has done must be what failsoft does."""
    session = sessions.open(floor.cookies)
    sessions.load(session)
    view = SessionView(session, "call")
    if floor.state == "write":
        (seal,) = values(dict(fields)["Set-Cookie"], sessions.seal_style.full_name)
        assert session.id is not None
        companion = sessions.companions.unpack(seal, session.id.digest.encode())
        assert companion is not None, seal
        assert companion.version == session.version, (companion, session.version)
    session.accessed = floor.state != "untouched"
    if session.accessed:
        act(view, floor.state)
    assert _shapes(fields) == _shapes(header_fields(session, sessions.save(session))), fields
    writes = 2 if floor.state == "write" else 0  # the floor's, and failsoft's
    assert dict(view) == CONTENT | {"seen": CONTENT["seen"] + writes}


def _shapes(fields: Fields) -> Fields:
    """Header fields without what differs each time: a seal, and moments."""
    return [(name, _DIFFERENT.sub(r"\1=", value)) for name, value in fields]


_DIFFERENT = re.compile(r"(-seal|Max-Age|Expires)=[^;]*")
