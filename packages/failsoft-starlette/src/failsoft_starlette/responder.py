"""The way out of one request.

Header fields are added once, on ``http.response.start``. A refusal that comes late, out of a view, replaces whatever error
response the application made of it.

The session is written on ``http.response.start``. What the store does not take is never acknowledged: the refusal is sent in the response's
place, and the application is told as if the client had left, so that neither the rest of a stream nor a background task goes on as if all
were well.

An application that fails is answered outside of us, by Starlette or by the server, with a 500 that has no header fields of ours. Where it
has given its session another id before, by `save` or by `arevoke_others`, such a 500 would log the user out. So then the 500 is ours,
and the error goes on as ever: who logs errors, or has a handler for them, hears of it, and sees that a response was sent already.
"""

from contextlib import suppress
from typing import TYPE_CHECKING

from starlette.types import Message, Receive, Scope, Send

from failsoft.errors import Rejected
from failsoft.exchange import Exchange
from failsoft.problem import Problem
from failsoft.runtime import Runtime
from failsoft_starlette.translate import Renderer, add_fields, refusal

if TYPE_CHECKING:
    from failsoft_starlette.sessions import StarletteSession

__all__ = ["Responder", "is_because_of"]

_FAILED = Problem(type="about:blank", title="Internal Server Error", status=500, detail="The request failed.")


class _Withdrawn(OSError):
    """The application sends a response in whose place something else was sent (ASGI asks for an OSError where nobody listens)."""


class Responder:
    """The way out of one request.

    Args:
        runtime: the application's failsoft.
        renderer: makes the response to a refusal, or None.
        exchange: the request.
        session: its session, where sessions are on.
        scope: the request's.
        receive: the server's.
        send: the server's.

    Attributes:
        started: whether a response has begun.
        withheld: whether the application sends what an error handler has made of a late refusal.
        withdrawn: what the application is told, where something else was sent in its response's place.
    """

    __slots__ = (
        "_exchange",
        "_receive",
        "_refused",
        "_renderer",
        "_runtime",
        "_scope",
        "_send",
        "_session",
        "started",
        "withdrawn",
        "withheld",
    )

    def __init__(
        self,
        runtime: Runtime,
        renderer: Renderer | None,
        exchange: Exchange,
        session: "StarletteSession | None",
        scope: Scope,
        receive: Receive,
        send: Send,
    ) -> None:
        self._runtime = runtime
        self._renderer = renderer
        self._exchange = exchange
        self._session = session
        self._scope = scope
        self._receive = receive
        self._send = send
        self._refused = False
        self.started = False
        self.withheld = False
        self.withdrawn: _Withdrawn | None = None

    async def send(self, message: Message) -> None:
        """Pass `message` on; the start of a response with our header fields."""
        if self.withdrawn is not None:
            raise self.withdrawn
        if message["type"] == "http.response.start":
            exchange = self._exchange
            if message["status"] == 500 and exchange.rejection is not None:
                # An error handler inside has made this of a late refusal; the refusal itself is on its way.
                self.withheld = True
                return
            self.started = True
            session = self._session
            if session is None:
                fields = await self._runtime.afinish(exchange, message["status"])
            else:
                fields = await session.settle(self._runtime, exchange, message["status"])
                if exchange.unsaved is not None and not self._refused:
                    await self._withdraw(exchange.unsaved, fields)
                if exchange.accepted and message["status"] in (200, 204):
                    message = {**message, "status": 202}
            if fields:
                headers = add_fields(message.get("headers", ()), fields, sessions=session is not None)
                message = {**message, "headers": headers}
        elif self.withheld:
            return
        elif message.get("more_body"):
            self._exchange.streamed = True
        await self._send(message)

    async def refuse(self, rejected: Rejected) -> None:
        """Answer with a refusal."""
        self.withheld = False
        self._refused = True  # nothing is acknowledged by it, so it stands whatever becomes of the session
        self._exchange.rejection = None
        await self._answer(rejected, self.send, self._renderer)

    async def fail(self) -> None:
        """The application fails. Whoever answers that outside of us has not the cookies of a session that was renewed already: so we do."""
        session = self._session
        if session is None or self.started or not session.owes:
            return
        session.failed = self._refused = True
        self.withheld, self._exchange.rejection = False, None
        with suppress(OSError):  # the client has left by itself
            await self._answer(Rejected(_FAILED), self.send, None)

    async def _withdraw(self, rejected: Rejected, fields: list[tuple[str, str]]) -> None:
        """Answer with a refusal in the place of a response that says more than the store knows. Raises `_Withdrawn`."""
        self.withdrawn = _Withdrawn("another response was sent: what was to be kept in the session was not written")

        async def send(message: Message) -> None:
            if message["type"] == "http.response.start":
                message = {**message, "headers": add_fields(message.get("headers", ()), fields)}
            await self._send(message)

        await self._answer(rejected, send, self._renderer)
        raise self.withdrawn

    async def _answer(self, rejected: Rejected, send: Send, renderer: Renderer | None) -> None:
        response = await refusal(self._runtime, renderer, self._exchange.facts, self._scope, rejected)
        if self._scope["method"] == "HEAD":
            response.body = b""
        await response(self._scope, self._receive, send)


def is_because_of(error: BaseException | None, withdrawn: _Withdrawn | None) -> bool:
    """Whether `error` is `withdrawn`, or what the application made of it."""
    if withdrawn is None:
        return False
    seen: set[int] = set()
    while error is not None and id(error) not in seen:
        seen.add(id(error))
        if error is withdrawn or (
            isinstance(error, BaseExceptionGroup) and all(is_because_of(one, withdrawn) for one in error.exceptions)
        ):
            return True
        error = error.__cause__ or error.__context__
    return False
