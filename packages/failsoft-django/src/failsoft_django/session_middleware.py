"""Django's session middleware, on failsoft's terms.

Theory of operation. Inside of `FailsoftMiddleware` it only opens the session as part of the request: that one loads it in the
request's one flight and writes it in the settlement, after all other middleware. Without it, this middleware makes an exchange that has
sessions and nothing else, and carries it through by itself. It never makes a coroutine wait for a thread.
"""

from collections.abc import Awaitable, Callable, Sequence
from typing import Any, Final, NamedTuple, cast

from asgiref.sync import sync_to_async
from django.conf import settings as django_settings
from django.contrib.sessions import middleware
from django.http import HttpRequest, HttpResponseBase

from failsoft.errors import ConfigurationError, Rejected
from failsoft.exchange import Exchange, Route, RoutePlan, current
from failsoft.runtime import Runtime
from failsoft.sessions.service import Sessions
from failsoft_django.runtime import Installed, installed
from failsoft_django.session_base import sessions_of
from failsoft_django.sessions import SessionStore
from failsoft_django.translate import add_settled, aready, facts_of, failed, prepare, refusal, replace

__all__ = ["SessionMiddleware"]

_OPENED: Final = "_failsoft_session"
"""On a request: what was opened for it."""


class SessionMiddleware(middleware.SessionMiddleware):
    """Stands in ``MIDDLEWARE`` where Django's would, inside of ``failsoft_django.FailsoftMiddleware``.

    Args:
        get_response: the rest of the application.

    Raises:
        ConfigurationError: when the server starts, if ``SESSION_ENGINE`` is another, or a setting is wrong.
    """

    def __init__(self, get_response: Callable[[HttpRequest], Any]) -> None:
        super().__init__(get_response)
        self._plan: tuple[Sessions, RoutePlan] | None = None
        if not issubclass(self.SessionStore, SessionStore):
            raise ConfigurationError(
                f"failsoft_django.SessionMiddleware is in MIDDLEWARE, and SESSION_ENGINE is {django_settings.SESSION_ENGINE!r}: write "
                "SESSION_ENGINE = 'failsoft_django.sessions'"
            )

    def installed(self) -> Installed:
        """The runtime and the renderer to work with; for subclasses that bring their own."""
        return installed()

    def process_request(self, request: HttpRequest) -> None:
        """Open the session. It is loaded when somebody looks at it, or with what else the request wants from the store."""
        opened = self._open(request)
        if opened.own and opened.exchange.wanted:
            opened.runtime.admit(opened.exchange)

    def process_response(self, request: HttpRequest, response: Any) -> Any:
        """Save the session and add its cookies, where `FailsoftMiddleware` is not going to."""
        opened = self._opened(request)
        if getattr(request, "session", None) is not (None if opened is None else opened.store):
            response = super().process_response(request, response)  # somebody put another in its place
        if opened is None or not opened.own:
            return response
        response = self._checked(request, response, opened)
        fields = opened.runtime.finish(opened.exchange, response.status_code)
        return self._finished(request, response, opened, fields)

    async def __acall__(self, request: HttpRequest) -> Any:
        """The same, as a coroutine."""
        opened = self._open(request)
        exchange, runtime = opened.exchange, opened.runtime
        if opened.own and not exchange.facts.synchronous:
            if exchange.wanted:
                await runtime.aadmit(exchange)
            await aready(exchange)
        response: Any = await cast(Awaitable[Any], self.get_response(request))
        if getattr(request, "session", None) is not opened.store:
            response = await sync_to_async(super().process_response)(request, response)
        if not opened.own:
            return response
        response = self._checked(request, response, opened)
        if exchange.facts.synchronous:
            fields = runtime.finish(exchange, response.status_code)
        else:
            fields = await runtime.afinish(exchange, response.status_code)
        return self._finished(request, response, opened, fields)

    def process_exception(self, request: HttpRequest, exception: Exception) -> HttpResponseBase | None:
        """Answer for a session whose store is away, where `FailsoftMiddleware` does not."""
        opened = self._opened(request)
        if opened is None or not opened.own or not isinstance(exception, Rejected):
            return None
        return refusal(*self.installed(), request, exception)

    def _open(self, request: HttpRequest) -> "_Opened":
        exchange = current()
        own = exchange is None or exchange.settled or exchange.facts.request is not request
        if own or exchange is None:
            runtime = self.installed().runtime
            sessions = sessions_of(runtime)
            exchange = Exchange(runtime, facts_of(request), self._plan_of(sessions))
        else:
            runtime = cast(Runtime, exchange.engine)
            sessions = sessions_of(runtime)
        facts = exchange.facts
        eager = not facts.synchronous or (django_settings.SESSION_SAVE_EVERY_REQUEST and not own)
        store = SessionStore.within(sessions.open(facts.header("cookie"), exchange, eager=eager), exchange)
        request.session = store
        opened = _Opened(store, exchange, runtime, own)
        setattr(request, _OPENED, opened)
        return opened

    def _plan_of(self, sessions: Sessions) -> RoutePlan:
        if self._plan is None or self._plan[0] is not sessions:
            self._plan = (sessions, RoutePlan((sessions,), Route("GET", None), (), late=False))
        return self._plan[1]

    @staticmethod
    def _opened(request: HttpRequest) -> "_Opened | None":
        return getattr(request, _OPENED, None)

    def _checked(self, request: HttpRequest, response: HttpResponseBase, opened: "_Opened") -> HttpResponseBase:
        """The response, or what is to take its place; ready to be settled."""
        rejected = failed(opened.exchange) if response.status_code == 500 else None
        prepare(opened.exchange)
        return response if rejected is None else self._instead(request, response, rejected)

    def _finished(
        self, request: HttpRequest, response: HttpResponseBase, opened: "_Opened", fields: Sequence[tuple[str, str]]
    ) -> HttpResponseBase:
        exchange = opened.exchange
        if exchange.unsaved is not None:
            response = self._instead(request, response, exchange.unsaved)
        add_settled(response, exchange, fields)
        exchange.end()
        return response

    def _instead(self, request: HttpRequest, response: HttpResponseBase, rejected: Rejected) -> HttpResponseBase:
        return replace(response, refusal(*self.installed(), request, rejected))


class _Opened(NamedTuple):
    """What this middleware did with a request.

    Attributes:
        store: its session.
        exchange: what settles it.
        runtime: where that belongs.
        own: whether it was made for the session alone.
    """

    store: SessionStore
    exchange: Exchange
    runtime: Runtime
    own: bool
