"""The middleware: pure ASGI, one class, for Starlette, FastAPI and what is built on them.

Where a request is refused: before anything inside the middleware runs. So add it last (outermost), but for CORSMiddleware, which should be
outside of it so that refusals carry CORS header fields too; the start-up audit says so.

Sessions (where the setting is on) are loaded before the application is called. What becomes of the response is in `responder`, and how
WebSockets are served in `websockets`.
"""

import asyncio
import logging
import os
from typing import TYPE_CHECKING, Any

from starlette.types import ASGIApp, Receive, Scope, Send

from failsoft import ConfigurationError, Rejected, Settings
from failsoft.address import rewritten_by_server
from failsoft.exchange.applications import installed, serves
from failsoft.exchange.policy import declared_version, enter, leave
from failsoft.exchange.signatures import check_renderer
from failsoft.inspection import mistakes, unreached
from failsoft.runtime import Runtime
from failsoft_starlette.responder import Responder, is_because_of
from failsoft_starlette.routes import RouteTable, audit, list_routes, routes_of, targets_of_routes
from failsoft_starlette.translate import READ_AHEAD, Renderer, SocketFacts, StarletteFacts
from failsoft_starlette.websockets import serve_socket

if TYPE_CHECKING:
    from failsoft_starlette.sessions import StarletteSession

__all__ = ["FailsoftMiddleware"]

_log = logging.getLogger("failsoft.starlette")

_MOST_AHEAD = 1 << 30


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
        ConfigurationError: a setting or the renderer is wrong, a limit cannot be enforced with these settings, the middleware is there
            twice, or Starlette's ``SessionMiddleware`` is installed as well as the setting sessions. What ``add_middleware`` was given is
            looked at when the server calls the application for the first time: it does not start then.
            One that runs no lifespan starts, and each request fails with this error.
    """

    runtime: Runtime

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
        self.app = app
        self.renderer = renderer
        self.read_ahead = read_ahead
        self._table: RouteTable | None = None
        self._sockets: RouteTable | None = None
        self._table_of: Any = None
        self._unaudited = True
        self._mistake: ConfigurationError | None = None
        self._open_session: Any = None
        try:
            self._set_up(settings, runtime, options)
        except ConfigurationError as error:
            if not _is_served():
                raise
            self._mistake = error  # raised here, it would be one of Starlette's, see `_lifespan`

    def _set_up(self, settings: Settings | None, runtime: Runtime | None, options: dict[str, Any]) -> None:
        if sum((settings is not None, runtime is not None, bool(options))) > 1:
            raise ConfigurationError("give settings, a runtime or keyword arguments, not more than one of them")
        ahead = self.read_ahead
        if isinstance(ahead, bool) or not isinstance(ahead, int) or not 0 <= ahead <= _MOST_AHEAD:
            raise ConfigurationError(f"read_ahead={ahead!r}: must be a whole number of bytes, 0 to {_MOST_AHEAD}")
        if self.renderer is not None:
            check_renderer(self.renderer)
        self.runtime = runtime or Runtime(
            Settings.load(settings or options, environ=os.environ, source="FailsoftMiddleware")
        )
        self._unchecked = bool(self.runtime.settings.trusted_proxies)
        if self.runtime.sessions is not None:
            from failsoft_starlette.sessions import open_session  # here, because it brings packages that are optional

            self._open_session = open_session
        installed(self, targets_of_routes)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        kind = scope["type"]
        if kind not in ("http", "websocket"):
            await (self._lifespan if kind == "lifespan" else self.app)(scope, receive, send)
            return
        if self._unaudited:
            self._audit(scope)
        runtime = self.runtime
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
        responder = Responder(runtime, self.renderer, exchange, session, scope, receive, send)
        token = enter(exchange)
        try:
            rejected: Rejected | None = None
            try:
                rejected = await runtime.aadmit(exchange)
                if rejected is None:
                    if session is None:
                        await self.app(scope, facts.receive, responder.send)
                    else:
                        await session.finish_loading()
                        outer = scope.get("app") or self.app  # asked now: what is mounted puts itself in its place
                        debug = getattr(outer, "debug", False)
                        await self.app(scope, facts.receive, responder.send)
                        if session.lost(debug=debug):
                            await session.end()
            except Rejected as raised:
                if responder.started:
                    raise
                rejected = raised
            except Exception as error:
                if not is_because_of(error, responder.withdrawn):
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
        try:
            self._audit(scope)
        except ConfigurationError as error:
            # Servers take an error without this message for "no lifespan here", and go on; so they would with one that is raised while
            # Starlette makes its middleware, which it does when the server has called it.
            await receive()
            await send({"type": "lifespan.startup.failed", "message": str(error)})
            raise
        # Connected before the first request. Not closed at the end: an application may be started again, and connections close by
        # themselves with their event loop.
        self.runtime.start()
        await self.app(scope, receive, send)

    def _audit(self, scope: Scope) -> None:
        """Once, when the application is complete: what its author should know."""
        if self._mistake is not None:
            raise self._mistake.with_traceback(None)
        if self._open_session is not None:
            self._refuse_others(scope)
        app = scope.get("app") or self.app
        classes = [middleware.cls for middleware in getattr(app, "user_middleware", ())]
        if sum(isinstance(cls, type) and issubclass(cls, FailsoftMiddleware) for cls in classes) > 1:
            raise ConfigurationError(
                "FailsoftMiddleware is added more than once, and each would count every request: keep one"
            )
        routes = list_routes(app)
        for mistake in mistakes(self.runtime, routes):
            raise mistake
        self._unaudited = False
        serves(self)
        for told in unreached(self.runtime.settings, routes):
            _log.warning("%s", told)
        for declaration in audit(app):
            _log.warning(
                "%s on %s is reached by no route: it is enforced only when the function is called. Put the decorator below the "
                "route's, and use functools.wraps in decorators of your own",
                ", ".join(map(repr, declaration.policies)),
                declaration.where,
            )
        order = [getattr(cls, "__name__", "") for cls in classes]
        if type(self).__name__ in order and "CORSMiddleware" in order[order.index(type(self).__name__) :]:
            _log.warning(
                "CORSMiddleware is inside %s: pages from elsewhere cannot read a refusal. Add CORSMiddleware after it",
                type(self).__name__,
            )

    def _refuse_others(self, scope: Scope) -> None:
        """Stop where something else keeps ``request.session``: whichever came second would read and write the other's.

        Raises:
            ConfigurationError: it is Starlette's own middleware, or made from it. Of another with that name, who knows: a warning.
        """
        for middleware in getattr(scope.get("app") or self.app, "user_middleware", ()):
            bases = getattr(middleware.cls, "__mro__", ())
            alike = [base.__module__ for base in bases if base.__name__ == "SessionMiddleware"]
            name = f"{getattr(middleware.cls, '__module__', '')}.{getattr(middleware.cls, '__name__', '')}"
            if "starlette.middleware.sessions" in alike:
                raise ConfigurationError(
                    f"{name} is installed as well as the setting sessions, and both are request.session: remove that middleware, or "
                    "turn sessions off"
                )
            if alike:
                _log.warning(
                    "%s is installed as well as the setting sessions. If it sets request.session too, each would take the other's for "
                    "its own: remove that middleware, or turn sessions off",
                    name,
                )

    def _check_peer(self, facts: StarletteFacts) -> None:
        """Warn, once, where the server has already replaced the peer's address."""
        lines = facts.header_lines("x-forwarded-for")
        if lines:
            self._unchecked = False
            message = rewritten_by_server(facts.peer(), port=facts.port(), lines=lines)
            if message is not None:
                _log.warning("%s", message)


def _is_served() -> bool:
    """Whether an event loop runs. Then most likely the server has called the application, which is when Starlette makes its middleware."""
    try:
        asyncio.get_running_loop()
    except RuntimeError:
        return False
    return True
