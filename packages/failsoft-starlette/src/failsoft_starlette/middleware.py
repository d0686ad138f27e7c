"""The middleware: pure ASGI, one class, for Starlette, FastAPI and what is built on them.

Where a request is refused: before anything inside the middleware runs. So add it last (outermost), but for CORSMiddleware, which should be
outside of it so that refusals carry CORS header fields too; the start-up audit says so.

Header fields are added once, on ``http.response.start``. A refusal that comes late, out of a view, replaces whatever error
response the application made of it.

WebSockets are served by `failsoft_starlette.websockets`.
"""

import logging
import os
from collections.abc import Awaitable, Callable
from typing import Any

from starlette.requests import Request
from starlette.responses import Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from failsoft import ConfigurationError, Rejected, Settings
from failsoft.address import rewritten_by_server
from failsoft.exchange import Exchange
from failsoft.exchange.policy import declared_version, enter, leave
from failsoft.runtime import Runtime
from failsoft_starlette.routes import RouteTable, audit, routes_of
from failsoft_starlette.translate import READ_AHEAD, SocketFacts, StarletteFacts, encode, refusal
from failsoft_starlette.websockets import serve_socket

__all__ = ["FailsoftMiddleware", "Renderer"]

_log = logging.getLogger("failsoft.starlette")

_MOST_AHEAD = 1 << 30

Renderer = Callable[[Request, Rejected], Response | Awaitable[Response]]
"""Makes the response to a refusal; may be async."""


class FailsoftMiddleware:
    """Failsoft around an ASGI application.

    Args:
        app: the application inside.
        settings: a `Settings`, or leave it out and give its keys as keyword arguments; what is given neither way comes from ``FAILSOFT_*``
            in the environment.
        renderer: makes the response to a refusal instead of the problem document; the limit's header fields are added to it.
        runtime: a runtime to share, instead of settings.
        read_ahead: bytes of a body that functions of the request (``cost=``, ``by=``) may read before the application: 0 to 1 GiB. A
            request whose body is longer is refused with 413 where such a function reads it.
        options: the keys of `Settings`.

    Raises:
        ConfigurationError: a setting is wrong. Starlette makes its middleware at start-up.
    """

    def __init__(
        self,
        app: ASGIApp,
        settings: Settings | None = None,
        *,
        renderer: Renderer | None = None,
        runtime: Runtime | None = None,
        read_ahead: int = READ_AHEAD,
        **options: Any,
    ) -> None:
        if sum((settings is not None, runtime is not None, bool(options))) > 1:
            raise ConfigurationError("give settings, a runtime or keyword arguments, not more than one of them")
        if isinstance(read_ahead, bool) or not isinstance(read_ahead, int) or not 0 <= read_ahead <= _MOST_AHEAD:
            raise ConfigurationError(f"read_ahead={read_ahead!r}: must be a whole number of bytes, 0 to {_MOST_AHEAD}")
        self.app = app
        self.renderer = renderer
        self.read_ahead = read_ahead
        self.runtime = runtime or Runtime(
            Settings.load(settings or options, environ=os.environ, source="FailsoftMiddleware")
        )
        self._table: RouteTable | None = None
        self._sockets: RouteTable | None = None
        self._table_of: Any = None
        self._unaudited = True
        self._unchecked = bool(self.runtime.settings.trusted_proxies)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        kind = scope["type"]
        if kind not in ("http", "websocket"):
            await (self._lifespan if kind == "lifespan" else self.app)(scope, receive, send)
            return
        runtime = self.runtime
        if self._unaudited:
            self._audit(scope)
        make = StarletteFacts if kind == "http" else SocketFacts
        if runtime.needs_route:
            table = self._routes(scope)
            entry, serves = table.find(scope)
            facts = make(scope, entry, serves, table, receive, self.read_ahead)
        else:
            facts = make(scope, None, False, None, receive, self.read_ahead)
        exchange = runtime.begin(facts)
        if not exchange.plan.bounds and not declared_version():
            await self.app(scope, receive, send)
            return
        if self._unchecked:
            self._check_peer(facts)
        if isinstance(facts, SocketFacts):
            await serve_socket(self.app, runtime, self.renderer, exchange, facts, scope, receive, send)
            return
        responder = _Responder(self, exchange, scope, receive, send)
        token = enter(exchange)
        try:
            rejected: Rejected | None = None
            try:
                rejected = await runtime.aadmit(exchange)
                if rejected is None:
                    await self.app(scope, facts.receive, responder.send)
            except Rejected as raised:
                if responder.started:
                    raise
                rejected = raised
            else:
                if rejected is None and responder.withheld:
                    rejected = exchange.rejection
            if rejected is not None:
                await responder.refuse(rejected)
        finally:
            leave(token)
            exchange.end()
            facts.forget()

    def _routes(self, scope: Scope) -> RouteTable:
        app = scope.get("app") or self.app
        if self._table_of is not app:
            self._table = self._sockets = None
            self._table_of = app
        sockets = scope["type"] == "websocket"
        table = self._sockets if sockets else self._table
        if table is None or table.stale:
            routes = routes_of(app)
            # Otherwise we stand around a mount or a route of the application, and its paths began further out.
            table = RouteTable(routes, whole=routes_of(self.app) is routes, sockets=sockets)
            if sockets:
                self._sockets = table
            else:
                self._table = table
        return table

    async def _lifespan(self, scope: Scope, receive: Receive, send: Send) -> None:
        self._audit(scope)
        # Connected before the first request. Not closed at the end: an application may be started again, and connections close by
        # themselves with their event loop.
        self.runtime.start()
        await self.app(scope, receive, send)

    def _audit(self, scope: Scope) -> None:
        """Once, when the application is complete: what its author should know."""
        self._unaudited = False
        app = scope.get("app") or self.app
        for declaration in audit(app):
            _log.warning(
                "%s on %s is reached by no route: it is enforced only when the function is called. Put the decorator below the "
                "route's, and use functools.wraps in decorators of your own",
                ", ".join(map(repr, declaration.policies)),
                declaration.where,
            )
        order = [getattr(middleware.cls, "__name__", "") for middleware in getattr(app, "user_middleware", ())]
        if type(self).__name__ in order and "CORSMiddleware" in order[order.index(type(self).__name__) :]:
            _log.warning(
                "CORSMiddleware is inside %s: pages from elsewhere cannot read a refusal. Add CORSMiddleware after it",
                type(self).__name__,
            )

    def _check_peer(self, facts: StarletteFacts) -> None:
        """Warn, once, where the server has already replaced the peer's address."""
        lines = facts.header_lines("x-forwarded-for")
        if lines:
            self._unchecked = False
            message = rewritten_by_server(facts.peer(), port=facts.port(), lines=lines)
            if message is not None:
                _log.warning("%s", message)


class _Responder:
    """The way out of one request."""

    __slots__ = ("_exchange", "_middleware", "_receive", "_scope", "_send", "started", "withheld")

    def __init__(
        self, middleware: FailsoftMiddleware, exchange: Exchange, scope: Scope, receive: Receive, send: Send
    ) -> None:
        self._middleware = middleware
        self._exchange = exchange
        self._scope = scope
        self._receive = receive
        self._send = send
        self.started = False
        self.withheld = False

    async def send(self, message: Message) -> None:
        """Pass `message` on; the start of a response with our header fields."""
        if message["type"] == "http.response.start":
            if message["status"] == 500 and self._exchange.rejection is not None:
                # An error handler inside has made this of a late refusal; the refusal itself is on its way.
                self.withheld = True
                return
            self.started = True
            fields = await self._middleware.runtime.afinish(self._exchange, message["status"])
            if fields:
                message = {**message, "headers": [*message.get("headers", ()), *encode(fields)]}
        elif self.withheld:
            return
        elif message.get("more_body"):
            self._exchange.streamed = True
        await self._send(message)

    async def refuse(self, rejected: Rejected) -> None:
        """Answer with a refusal."""
        self.withheld = False
        self._exchange.rejection = None
        runtime, renderer = self._middleware.runtime, self._middleware.renderer
        response = await refusal(runtime, renderer, self._exchange.facts, self._scope, rejected)
        if self._scope["method"] == "HEAD":
            response.body = b""
        await response(self._scope, self._receive, self.send)
