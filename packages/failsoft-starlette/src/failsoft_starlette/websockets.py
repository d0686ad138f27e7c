"""WebSockets: limited when they are opened, and message by message where a limit says so.

Opening. A WebSocket is opened by a GET request (RFC 6455, section 4.1), and limits hold for it as for any GET of its route. It is refused
with a response where the server can send one (ASGI's extension ``websocket.http.response``), else with a close before the accept, of
which servers make a 403.

Messages. One is decided about when the application receives it, in a flight of its own; none is received ahead, so a client that sends
too fast is held up by its own connection. A refused message closes the socket, and the application is told as if the client had
left. Each message has an exchange of its own, so that a limited function which the application calls is charged for each.

Sessions are loaded before the application is called, and written when it accepts; what the store does not take then is refused in the
accept's place. A socket that is closed instead has a response without cookies: then what needs one is not written, so that nobody is left
with an id that is dead; what needs none (a change, a logout) is. `_DENIAL` responses bring cookies as any response does.

States: until the accept a refusal is a response; after it, a close frame; after the end there is nothing left to refuse.
"""

from typing import TYPE_CHECKING, Final

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from failsoft.errors import Rejected, Unavailable
from failsoft.exchange import Exchange
from failsoft.exchange.policy import enter, leave
from failsoft.runtime import Runtime
from failsoft_starlette.translate import Renderer, SocketFacts, add_fields, refusal

if TYPE_CHECKING:
    from failsoft_starlette.sessions import StarletteSession

__all__ = ["POLICY_VIOLATION", "TRY_AGAIN_LATER", "serve_socket"]

POLICY_VIOLATION: Final = 1008
"""RFC 6455, section 7.4.1: "an endpoint is terminating the connection because it has received a message that violates its policy"."""

TRY_AGAIN_LATER: Final = 1013
"""IANA's registry of close codes: for a limit that must not run without its store, while that is away."""

_LONGEST_REASON: Final = 123
"""Bytes: the payload of a control frame is at most 125, and the close code takes two (RFC 6455, section 5.5)."""

_DENIAL: Final = "websocket.http.response"


class _Closed(OSError):
    """The application sends over a socket that was closed because a message was refused (ASGI asks for an OSError)."""


async def serve_socket(
    app: ASGIApp,
    runtime: Runtime,
    renderer: Renderer | None,
    exchange: Exchange,
    facts: SocketFacts,
    session: "StarletteSession | None",
    scope: Scope,
    receive: Receive,
    send: Send,
) -> None:
    """Open a WebSocket and serve it, or refuse it.

    Args:
        app: the application inside.
        runtime: its failsoft.
        renderer: makes the response to a refusal, or None.
        exchange: that of the request which opens the socket.
        facts: likewise.
        session: likewise, where sessions are on.
        scope: the socket's.
        receive: the server's.
        send: the server's.
    """
    socket = _Socket(runtime, renderer, exchange, facts, session, scope, receive, send)
    token = enter(exchange)
    try:
        rejected: Rejected | None = None
        try:
            rejected = await runtime.aadmit(exchange)
            if rejected is None:
                if session is not None:
                    await session.finish_loading()
                await _run(app, scope, socket, session)
        except _Closed:
            if not socket.withdrawn:
                raise
        except Rejected as raised:
            rejected = raised
        if rejected is not None:
            await socket.refuse(rejected)
    finally:
        leave(token)
        exchange.end()
        if session is not None:
            session.close()
        facts.forget()


async def _run(app: ASGIApp, scope: Scope, socket: "_Socket", session: "StarletteSession | None") -> None:
    try:
        await app(scope, socket.receive, socket.send)
    except Exception:  # many endpoints end so, when the client leaves
        if session is not None and session.lost():
            await session.end()
        raise
    if session is not None and session.lost():
        await session.end()


class _Socket:
    """One WebSocket, between the server and the application."""

    __slots__ = (
        "_accepted",
        "_connected",
        "_ended",
        "_exchange",
        "_facts",
        "_fields",
        "_left",
        "_receive",
        "_refused",
        "_renderer",
        "_runtime",
        "_scope",
        "_send",
        "_session",
        "_undecided",
        "withdrawn",
    )

    def __init__(
        self,
        runtime: Runtime,
        renderer: Renderer | None,
        exchange: Exchange,
        facts: SocketFacts,
        session: "StarletteSession | None",
        scope: Scope,
        receive: Receive,
        send: Send,
    ) -> None:
        self._runtime = runtime
        self._renderer = renderer
        self._exchange = exchange
        self._facts = facts
        self._session = session
        self._scope = scope
        self._receive = receive
        self._send = send
        self._connected = self._accepted = self._ended = False
        self._undecided: Message | None = None
        self._left: Message | None = None
        self._fields: list[tuple[str, str]] | None = None
        self._refused = self.withdrawn = False

    async def receive(self) -> Message:
        """The next message, once it is decided about."""
        if self._left is not None:
            return self._left
        message = self._undecided
        if message is None:
            message = await self._receive()
        if message["type"] != "websocket.receive":
            self._connected = True
            return message
        # Whoever stops waiting while the store is asked, and receives again, must not have lost it.
        self._undecided = message
        exchange, rejected = await self._runtime.amessage(self._exchange, self._facts.with_message(message))
        self._undecided = None
        if rejected is None:
            enter(exchange)
            return message
        return await self._close(rejected)

    async def send(self, message: Message) -> None:
        """Pass `message` on; what answers the request that opened the socket, with our header fields."""
        kind = message["type"]
        if self._left is not None:
            if kind == "websocket.close":
                return
            raise _Closed("the socket was closed by failsoft")
        if kind == "websocket.accept":
            message = await self._with_fields(message, 101)
            self._accepted = self._exchange.streamed = True
        elif kind == f"{_DENIAL}.start":
            message = await self._with_fields(message, message["status"])
            self._ended = True
        elif kind == "websocket.close":
            if not self._accepted:
                await self._settle(403, cookies=False)
            self._ended = True
        await self._send(message)

    async def _with_fields(self, message: Message, status: int) -> Message:
        fields = await self._settle(status)
        unsaved = self._exchange.unsaved
        if unsaved is not None and not self._refused:
            self.withdrawn = True
            await self.refuse(unsaved)
            self._left = {"type": "websocket.disconnect", "code": TRY_AGAIN_LATER}
            raise _Closed("the socket was refused, because what was to be kept in the session was not written")
        return {**message, "headers": add_fields(message.get("headers", ()), fields)} if fields else message

    async def _settle(self, status: int, *, cookies: bool = True) -> list[tuple[str, str]]:
        """Settle once; the header fields, where there is a response that has any."""
        if self._fields is None:
            if self._session is None:
                self._fields = await self._runtime.afinish(self._exchange, status)
            else:
                self._fields = await self._session.settle(self._runtime, self._exchange, status, cookies=cookies)
        return self._fields

    async def refuse(self, rejected: Rejected) -> None:
        """End the socket, in the way that is left."""
        self._refused = True  # nothing is acknowledged by it, so it stands whatever becomes of the session
        if self._ended or self._left is not None:
            return
        if not self._connected:
            message = await self._receive()
            if message["type"] == "websocket.disconnect":
                return
        if self._accepted or _DENIAL not in (self._scope.get("extensions") or {}):
            await self._close(rejected)
            return
        response = await refusal(self._runtime, self._renderer, self._facts, self._scope, rejected)
        await response(self._scope, self._receive, self.send)

    async def _close(self, rejected: Rejected) -> Message:
        """Close the socket. Returns what the application is told."""
        code = TRY_AGAIN_LATER if isinstance(rejected, Unavailable) else POLICY_VIOLATION
        closing: Message = {"type": "websocket.close", "code": code, "reason": _reason(rejected)}
        # First of all, so that a task which sends meanwhile does not send after the close.
        self._left = {**closing, "type": "websocket.disconnect"}
        if not self._ended:
            self._ended = True
            if not self._accepted:
                await self._settle(403, cookies=False)
            try:
                await self._send(closing)
            except OSError:  # the client has left by itself
                pass
        return self._left


def _reason(rejected: Rejected) -> str:
    """What the problem says, as much of it as a close frame has room for."""
    text = rejected.problem.detail or rejected.problem.title
    return text.encode()[:_LONGEST_REASON].decode(errors="ignore")
