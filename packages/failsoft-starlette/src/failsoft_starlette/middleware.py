"""The middleware: pure ASGI, one class, for Starlette, FastAPI and what is built on them.

Where a request is refused: before anything inside the middleware runs. So add it last (outermost), but for CORSMiddleware, which should be
outside of it so that refusals carry CORS header fields too; the start-up audit says so.

Header fields are added once, on ``http.response.start``. A refusal that comes late, out of a view, replaces whatever error
response the application made of it.

Sessions (where the setting is on) are loaded before the application is called, and written on ``http.response.start``. What the
store does not take is never acknowledged: the refusal is sent in the response's place, and the application is told as if the client had
left, so that neither the rest of a stream nor a background task goes on as if all were well.

An application that fails is answered outside of us, by Starlette or by the server, with a 500 that has no header fields of ours. Where it
has given its session another id before, by `save` or by `arevoke_others`, such a 500 would log the user out. So then the 500 is ours,
and the error goes on as ever: who logs errors, or has a handler for them, hears of it, and sees that a response was sent already.

WebSockets are served by `failsoft_starlette.websockets`.
"""

import logging
import os
from collections.abc import Awaitable, Callable
from contextlib import suppress
from typing import TYPE_CHECKING, Any

from starlette.requests import Request
from starlette.responses import Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from failsoft import ConfigurationError, Rejected, Settings
from failsoft.address import rewritten_by_server
from failsoft.exchange import Exchange
from failsoft.exchange.policy import declared_version, enter, leave
from failsoft.problem import Problem
from failsoft.runtime import Runtime
from failsoft_starlette.routes import RouteTable, audit, routes_of
from failsoft_starlette.translate import READ_AHEAD, SocketFacts, StarletteFacts, encode, refusal
from failsoft_starlette.websockets import serve_socket

if TYPE_CHECKING:
    from failsoft_starlette.sessions import StarletteSession

__all__ = ["FailsoftMiddleware", "Renderer"]

_log = logging.getLogger("failsoft.starlette")

_MOST_AHEAD = 1 << 30

_FAILED = Problem(type="about:blank", title="Internal Server Error", status=500, detail="The request failed.")

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
        self._open_session: Any = None
        if self.runtime.sessions is not None:
            from failsoft_starlette.sessions import open_session  # here, because it brings packages that are optional

            self._open_session = open_session

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
        session: StarletteSession | None = None
        if self._open_session is not None:
            session = scope["session"] = self._open_session(runtime.sessions, exchange, facts.header("cookie"))
        elif not exchange.plan.bounds and not declared_version():
            await self.app(scope, receive, send)
            return
        if self._unchecked:
            self._check_peer(facts)
        if isinstance(facts, SocketFacts):
            await serve_socket(self.app, runtime, self.renderer, exchange, facts, session, scope, receive, send)
            return
        responder = _Responder(self, exchange, session, scope, receive, send)
        token = enter(exchange)
        try:
            rejected: Rejected | None = None
            try:
                rejected = await runtime.aadmit(exchange)
                if rejected is None:
                    if session is not None:
                        await session.finish_loading()
                    await self.app(scope, facts.receive, responder.send)
                    if session is not None:
                        await session.end()
            except Rejected as raised:
                if responder.started:
                    raise
                rejected = raised
            except Exception as error:
                if not _is_because_of(error, responder.withdrawn):
                    await responder.fail()
                    raise
            else:
                if rejected is None and responder.withheld:
                    rejected = exchange.rejection
            if rejected is not None:
                await responder.refuse(rejected)
        finally:
            leave(token)
            exchange.end()
            if session is not None:
                session.close()
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
        classes = [middleware.cls for middleware in getattr(app, "user_middleware", ())]
        order = [getattr(cls, "__name__", "") for cls in classes]
        if type(self).__name__ in order and "CORSMiddleware" in order[order.index(type(self).__name__) :]:
            _log.warning(
                "CORSMiddleware is inside %s: pages from elsewhere cannot read a refusal. Add CORSMiddleware after it",
                type(self).__name__,
            )
        others = [cls for cls in classes if "SessionMiddleware" in map(_name, getattr(cls, "__mro__", ()))]
        if self._open_session is not None and others:
            _log.warning(
                "%s.%s is installed as well as the setting sessions: each would take the other's request.session for its own. "
                "Remove that middleware, or turn sessions off",
                others[0].__module__,
                others[0].__name__,
            )

    def _check_peer(self, facts: StarletteFacts) -> None:
        """Warn, once, where the server has already replaced the peer's address."""
        lines = facts.header_lines("x-forwarded-for")
        if lines:
            self._unchecked = False
            message = rewritten_by_server(facts.peer(), port=facts.port(), lines=lines)
            if message is not None:
                _log.warning("%s", message)


class _Withdrawn(OSError):
    """The application sends a response in whose place something else was sent (ASGI asks for an OSError where nobody listens)."""


class _Responder:
    """The way out of one request."""

    __slots__ = (
        "_exchange",
        "_middleware",
        "_receive",
        "_refused",
        "_scope",
        "_send",
        "_session",
        "started",
        "withdrawn",
        "withheld",
    )

    def __init__(
        self,
        middleware: FailsoftMiddleware,
        exchange: Exchange,
        session: "StarletteSession | None",
        scope: Scope,
        receive: Receive,
        send: Send,
    ) -> None:
        self._middleware = middleware
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
            runtime = self._middleware.runtime
            if self._session is None:
                fields = await runtime.afinish(exchange, message["status"])
            else:
                fields = await self._session.settle(runtime, exchange, message["status"])
                if exchange.unsaved is not None and not self._refused:
                    await self._withdraw(exchange.unsaved, fields)
                if exchange.accepted and message["status"] in (200, 204):
                    message = {**message, "status": 202}
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
        self._refused = True  # nothing is acknowledged by it, so it stands whatever becomes of the session
        self._exchange.rejection = None
        await self._answer(rejected, self.send, self._middleware.renderer)

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
                message = {**message, "headers": [*message.get("headers", ()), *encode(fields)]}
            await self._send(message)

        await self._answer(rejected, send, self._middleware.renderer)
        raise self.withdrawn

    async def _answer(self, rejected: Rejected, send: Send, renderer: Renderer | None) -> None:
        response = await refusal(self._middleware.runtime, renderer, self._exchange.facts, self._scope, rejected)
        if self._scope["method"] == "HEAD":
            response.body = b""
        await response(self._scope, self._receive, send)


def _name(cls: type) -> str:
    return cls.__name__


def _is_because_of(error: BaseException | None, withdrawn: _Withdrawn | None) -> bool:
    """Whether `error` is `withdrawn`, or what the application made of it."""
    if withdrawn is None:
        return False
    seen: set[int] = set()
    while error is not None and id(error) not in seen:
        seen.add(id(error))
        if error is withdrawn or (
            isinstance(error, BaseExceptionGroup) and all(_is_because_of(one, withdrawn) for one in error.exceptions)
        ):
            return True
        error = error.__cause__ or error.__context__
    return False
