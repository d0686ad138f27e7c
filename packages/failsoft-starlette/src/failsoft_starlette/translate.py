"""Between Starlette's scope and the core's facts.

Reading ahead. A function of the request may read the body, to say what it costs or whom it is about. What it reads is kept and given to
the application as if nobody had been there; what comes after it, a disconnect too, reaches the application straight from the server.
No more than a bound is kept: a longer body is refused with 413, because it cannot be told what it would be charged for.
"""

from collections import deque
from collections.abc import Awaitable, Callable, Iterable, Sequence
from functools import lru_cache
from importlib.util import find_spec
from inspect import isawaitable
from typing import Any, ClassVar, Final
from urllib.parse import parse_qsl

from anyio import from_thread
from starlette.exceptions import HTTPException
from starlette.formparsers import MultiPartException
from starlette.requests import HTTPConnection, Request, empty_receive
from starlette.responses import Response
from starlette.types import Message, Receive, Scope

from failsoft.errors import ConfigurationError, Rejected
from failsoft.exchange import FORMS, NOT_YET, Facts, NotYet, json_field, submitted_field
from failsoft.fields import MERGED, with_fields
from failsoft.problem import Problem
from failsoft.runtime import Runtime, refusal_fields
from failsoft_starlette.routes import Entry, RouteTable

__all__ = [
    "READ_AHEAD",
    "MessageFacts",
    "Renderer",
    "SocketFacts",
    "SocketMessage",
    "StarletteFacts",
    "add_fields",
    "refusal",
]

_MERGED: Final = {name.encode() for name in MERGED.values()}
_LENGTHS: Final = (*map(len, MERGED),)

READ_AHEAD: Final = 1 << 20
"""Bytes of a body that functions of the request may read before the application: more than any query or log-in form needs."""

Renderer = Callable[[Request, Rejected], Response | Awaitable[Response]]
"""Makes the response to a refusal; may be async."""

_READS_FORMS: Final = find_spec("python_multipart") is not None
"""Starlette leaves the reading of forms to this package."""


class StarletteFacts(Facts):
    """A request, read from its scope.

    Args:
        scope: the request's.
        entry: its route, or None.
        serves: whether that serves its method.
        table: where the route was found.
        receive: the server's.
        read_ahead: bytes of the body that functions of the request may read.
    """

    synchronous: ClassVar[bool] = False

    __slots__ = ("_bound", "_entry", "_held", "_receive", "_request", "_scope", "_serves", "_table", "_taken")

    def __init__(
        self,
        scope: Scope,
        entry: Entry | None,
        serves: bool,
        table: RouteTable | None = None,
        receive: Receive = empty_receive,
        read_ahead: int = READ_AHEAD,
    ) -> None:
        self._scope = scope
        self._entry = entry
        self._serves = serves
        self._table = table
        self._receive = receive
        self._bound = read_ahead
        self._held: deque[Message] | None = None
        self._taken = False
        self._request: Any = None
        self.method = scope.get("method", "GET")
        self.endpoint = entry.endpoint if entry is not None and serves else None
        self.route = None if entry is None else entry.template

    @property
    def request(self) -> Any:
        """The request, the same each time. Its body may be read: see the module's theory of operation."""
        if self._request is None:
            self._request = self._make_request()
        return self._request

    def _make_request(self) -> HTTPConnection:
        return Request(self._scope, self._read_ahead)

    async def _read_ahead(self) -> Message:
        if self._taken:
            raise ConfigurationError(
                "a function of the request reads a body that the application has begun to read. Put @limit where it can be seen "
                "(directly on the view, with functools.wraps in decorators above it), so that the function is asked before"
            )
        message = await self._receive()
        if self._held is None:
            self._held = deque()
        self._held.append(message)
        self._bound -= len(message.get("body", b""))
        if self._bound < 0:
            raise Rejected(
                Problem(
                    type="about:blank",
                    title="Content Too Large",
                    status=413,
                    detail="The body is longer than what can be read to tell what it costs.",
                )
            )
        return message

    async def receive(self) -> Message:
        """The application's ``receive``: first what was read ahead."""
        self._taken = True
        if self._held:
            return self._held.popleft()
        return await self._receive()

    def forget(self) -> None:
        """The request is over. It knows what it read from, and would wait for the garbage collector, its body with it."""
        self._request = self._held = None

    def targets(self) -> Sequence[Any]:
        return () if self._entry is None or not self._serves else self._entry.targets(self.method)

    def peer(self) -> str | None:
        client = self._scope.get("client")
        return client[0] if client else None

    def port(self) -> int | None:
        """The port at the other end of the socket."""
        client = self._scope.get("client")
        return client[1] if client else None

    def header_lines(self, name: str) -> Sequence[str]:
        wanted = name.encode("latin-1")
        return [value.decode("latin-1") for key, value in self._scope["headers"] if key == wanted]

    def run(self, awaitable: Awaitable[Any]) -> Any:
        """Wait in a view's thread for what the event loop works out."""

        async def wait() -> Any:
            return await awaitable

        return from_thread.run(wait)

    def path(self) -> str:
        table = self._table or _UNROUTED
        return table.path(self._scope) or "/"

    def groups(self) -> Sequence[str]:
        """The names of the mounts around the route, and FastAPI's tags."""
        return () if self._entry is None else self._entry.groups

    async def submitted(self, name: str) -> str | None:
        request = self.request
        if not isinstance(request, Request):
            return None
        kind = (self.header("content-type") or "").partition(";")[0].strip().lower()
        body = await request.body()  # before the form, which would take it away
        if kind not in FORMS:
            return json_field(body, name)
        if not _READS_FORMS:
            # As a view that reads forms by itself would. Otherwise just as Starlette does: what separates fields there is more.
            return submitted_field(dict(parse_qsl(body.decode("latin-1"), True)).get(name), body, name)
        try:
            form = await request.form()
        except (HTTPException, MultiPartException, ValueError):  # the view will find out that it is none
            return json_field(body, name)
        value = form.get(name)
        await form.close()
        return submitted_field(value if isinstance(value, str) else None, body, name)

    async def load_user(self) -> None:
        """Ask for the session where its seal does not say who is logged in: whoever leaves the seal out is counted all the same."""
        load_subject = getattr(self._scope.get("session"), "load_subject", None)
        if load_subject is not None:
            await load_subject()

    def user(self) -> str | NotYet | None:
        """Whoever the session says is logged in; else the user of AuthenticationMiddleware or its like, which puts one into the scope."""
        known_subject = getattr(self._scope.get("session"), "known_subject", None)
        if known_subject is not None and (subject := known_subject()) is not None:
            return str(subject)
        if "user" not in self._scope:
            return NOT_YET
        user = self._scope["user"]
        if user is None or not getattr(user, "is_authenticated", True):
            return None
        for attribute in ("identity", "id", "username", "display_name"):
            try:
                value = getattr(user, attribute)
            except (AttributeError, NotImplementedError):  # BaseUser declares identity and does not have one
                continue
            if value is not None:
                return str(value)
        return str(user) if isinstance(user, str | int) else None


_UNROUTED: Final = RouteTable(())


class SocketMessage(HTTPConnection):
    """What functions of the request are given for a message over a WebSocket: the connection, and what the client sent over it.

    Attributes:
        data: the message, text or bytes.
    """

    def __init__(self, scope: Scope, data: str | bytes) -> None:
        super().__init__(scope)
        self.data = data


class SocketFacts(StarletteFacts):
    """The request that opens a WebSocket. Functions of the request are given an `HTTPConnection`: it has no body."""

    opens_socket: ClassVar[bool] = True

    __slots__ = ()

    def _make_request(self) -> HTTPConnection:
        return HTTPConnection(self._scope)

    def message_targets(self) -> Sequence[Any]:
        return () if self._entry is None else self._entry.message_targets()

    def with_message(self, message: Message) -> "MessageFacts":
        """The facts of a message that came over the socket."""
        facts = MessageFacts(self._scope, self._entry, self._serves, self._table)
        facts.data = message["text"] if message.get("text") is not None else message["bytes"]
        return facts


class MessageFacts(StarletteFacts):
    """A message over a WebSocket.

    Attributes:
        data: the message, text or bytes.
    """

    __slots__ = ("data",)

    data: str | bytes

    def _make_request(self) -> HTTPConnection:
        return SocketMessage(self._scope, self.data)


@lru_cache(maxsize=256)
def _name(name: str) -> bytes:
    return name.lower().encode("latin-1")


def _encode(fields: Iterable[tuple[str, str]]) -> list[tuple[bytes, bytes]]:
    """Header fields as ASGI writes them."""
    return [(_name(name), value.encode("latin-1")) for name, value in fields]


def add_fields(
    headers: Iterable[tuple[bytes, bytes]], fields: Sequence[tuple[str, str]], *, sessions: bool = True
) -> list[tuple[bytes, bytes]]:
    """The header fields of a response that has `headers`, with `fields` of failsoft's, among them those of sessions."""
    present = [*headers]
    for name, _ in present if sessions else ():  # others say nothing that must be merged; to look takes 0.3 µs
        if len(name) in _LENGTHS and name.lower() in _MERGED:  # the first alone takes a third of the time
            text = [(name.decode("latin-1"), value.decode("latin-1")) for name, value in present]
            return _encode(with_fields(text, fields))
    return [*present, *_encode(fields)]


async def refusal(
    runtime: Runtime, renderer: Renderer | None, facts: Facts, scope: Scope, rejected: Rejected
) -> Response:
    """The response to a refused request. A renderer is given a `Request`, of a WebSocket the one that was to open it."""
    if renderer is None:
        status, fields, body = runtime.answer(rejected, facts.header("accept"))
        response = Response(body, status)
        del response.headers["content-length"]
        response.raw_headers = _encode([*fields, ("Content-Length", str(len(body)))])
        return response
    request = Request(scope if scope["type"] == "http" else {**scope, "type": "http", "method": facts.method})
    rendered = renderer(request, rejected)
    made: Response = await rendered if isawaitable(rendered) else rendered
    missing = [field for field in refusal_fields(rejected) if field[0] not in made.headers]
    made.raw_headers += _encode(missing)
    return made
