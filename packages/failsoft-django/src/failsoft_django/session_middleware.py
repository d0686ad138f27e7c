"""Django's session middleware, on failsoft's terms.

Theory of operation. Inside of `FailsoftMiddleware` it only opens the session as part of the request: that one loads it in the
request's one flight and writes it in the settlement, after all other middleware. Without it, this middleware makes an exchange that has
sessions and nothing else, and carries it through by itself. It never makes a coroutine wait for a thread.

What keeps pages between the two, as Django's ``UpdateCacheMiddleware`` does, never sees what the settlement adds. So a response whose
making looked at the session says here already that it varies with the cookie, and that it is not to be kept where the session is going
to be written or the store is away. Whatever cookies come later are no part of what was kept. What lies inside of this middleware, as
``cache_page`` on a view does, keeps pages before anybody says so, with Django's own middleware as with this.
"""

from collections.abc import Awaitable, Callable, Sequence
from typing import Any, Final, NamedTuple, cast

from asgiref.sync import sync_to_async
from django.conf import settings as django_settings
from django.contrib.sessions import middleware
from django.http import HttpRequest, HttpResponseBase
from django.middleware.cache import UpdateCacheMiddleware
from django.utils.module_loading import import_string

from failsoft.errors import ConfigurationError, Rejected
from failsoft.exchange import Exchange, Route, RoutePlan, current
from failsoft.runtime import Runtime
from failsoft.sessions.service import Sessions
from failsoft.sessions.state import LIVE, NEW
from failsoft_django.responses import add_fields, add_settled, failed, refusal, replace
from failsoft_django.runtime import Installed, installed
from failsoft_django.session_base import sessions_of
from failsoft_django.sessions import SessionStore
from failsoft_django.translate import STORE, aready, facts_of

__all__ = ["SessionMiddleware"]

_ALONE: Final = "_failsoft_session"
"""On a request: what serves its session, where that is this middleware alone."""

_VARIES: Final = (("Vary", "Cookie"),)
_CHANGED: Final = (*_VARIES, ("Cache-Control", "private"))
_DEGRADED: Final = (*_VARIES, ("Cache-Control", "no-store, private"))


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
        # Elsewhere nobody asks so early what changed inside of values, which takes 2 µs for a short list.
        self._kept = any(map(_keeps_pages, django_settings.MIDDLEWARE))
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
        exchange = _around(request)
        if exchange is not None:
            _open_within(request, exchange)
            return
        alone = self._open_alone(request)
        if alone.exchange.wanted:
            alone.runtime.admit(alone.exchange)

    def process_response(self, request: HttpRequest, response: Any) -> Any:
        """Save the session and add its cookies; or say how it may be kept, where `FailsoftMiddleware` is going to do that."""
        alone = _alone(request)
        exchange = current() if alone is None else alone.exchange
        store = None if exchange is None else exchange.memo.get(STORE)
        if getattr(request, "session", None) is not store:
            response = super().process_response(request, response)  # somebody put another in its place
        if alone is None:
            return response if store is None else self._marked(response, store)
        response = self._checked(request, response, alone.exchange)
        fields = alone.runtime.finish(alone.exchange, response.status_code)
        return self._finished(request, response, alone.exchange, fields)

    async def __acall__(self, request: HttpRequest) -> Any:
        """The same, as a coroutine."""
        exchange = _around(request)
        if exchange is not None:
            store = _open_within(request, exchange)
            return self._marked(await self._respond(request, store), store)
        alone = self._open_alone(request)
        exchange, runtime = alone.exchange, alone.runtime
        if not exchange.facts.synchronous:
            if exchange.wanted:
                await runtime.aadmit(exchange)
            await aready(exchange)
        response = self._checked(request, await self._respond(request, alone.store), exchange)
        if exchange.facts.synchronous:
            fields = runtime.finish(exchange, response.status_code)
        else:
            fields = await runtime.afinish(exchange, response.status_code)
        return self._finished(request, response, exchange, fields)

    def _marked(self, response: HttpResponseBase, store: SessionStore) -> HttpResponseBase:
        """Say of `response` how it may be kept on its way to `FailsoftMiddleware`."""
        core = store.session
        if not core.accessed:
            return response
        if core.state is not LIVE and core.state is not NEW:
            add_fields(response, _DEGRADED)
        elif store.modified if self._kept else store.assigned:
            add_fields(response, _CHANGED)
        elif "vary" in map(str.lower, response.headers):  # to ask the headers for what they lack takes longer
            add_fields(response, _VARIES)
        else:  # nearly always; the other way takes 1 µs longer
            response.headers["Vary"] = "Cookie"
        return response

    async def _respond(self, request: HttpRequest, store: SessionStore) -> Any:
        response: Any = await cast(Awaitable[Any], self.get_response(request))
        if getattr(request, "session", None) is not store:  # as above
            response = await sync_to_async(super().process_response)(request, response)
        return response

    def process_exception(self, request: HttpRequest, exception: Exception) -> HttpResponseBase | None:
        """Answer for a session whose store is away, where `FailsoftMiddleware` does not."""
        if _alone(request) is None or not isinstance(exception, Rejected):
            return None
        return refusal(*self.installed(), request, exception)

    def _open_alone(self, request: HttpRequest) -> "_Alone":
        runtime = self.installed().runtime
        exchange = Exchange(runtime, facts_of(request), self._plan_of(sessions_of(runtime)))
        store = _open(request, exchange, runtime, not exchange.facts.synchronous)
        alone = _Alone(store, exchange, runtime)
        setattr(request, _ALONE, alone)
        return alone

    def _plan_of(self, sessions: Sessions) -> RoutePlan:
        if self._plan is None or self._plan[0] is not sessions:
            self._plan = (sessions, RoutePlan((sessions,), Route("GET", None), (), late=False))
        return self._plan[1]

    def _checked(self, request: HttpRequest, response: HttpResponseBase, exchange: Exchange) -> HttpResponseBase:
        """The response, or what is to take its place; ready to be settled."""
        rejected = failed(exchange) if response.status_code == 500 else None
        return response if rejected is None else self._instead(request, response, rejected)

    def _finished(
        self, request: HttpRequest, response: HttpResponseBase, exchange: Exchange, fields: Sequence[tuple[str, str]]
    ) -> HttpResponseBase:
        if exchange.unsaved is not None:
            response = self._instead(request, response, exchange.unsaved)
        add_settled(response, exchange, fields)
        exchange.end()
        # It knows the exchange, which knows the request: with all that they hold they would wait for the garbage collector.
        vars(request).pop(_ALONE, None)
        return response

    def _instead(self, request: HttpRequest, response: HttpResponseBase, rejected: Rejected) -> HttpResponseBase:
        return replace(response, refusal(*self.installed(), request, rejected))


def _keeps_pages(path: str) -> bool:
    found = import_string(path)
    return isinstance(found, type) and issubclass(found, UpdateCacheMiddleware)


class _Alone(NamedTuple):
    """What serves the session of a request without `FailsoftMiddleware`.

    Attributes:
        store: the session.
        exchange: what settles it.
        runtime: where that belongs.
    """

    store: SessionStore
    exchange: Exchange
    runtime: Runtime


def _alone(request: HttpRequest) -> _Alone | None:
    return getattr(request, _ALONE, None)


def _around(request: HttpRequest) -> Exchange | None:
    """The exchange that `FailsoftMiddleware` has made for `request`, as long as it is not settled."""
    exchange = current()
    if exchange is None or exchange.settled or exchange.facts.request is not request:
        return None
    return exchange


def _open_within(request: HttpRequest, exchange: Exchange) -> SessionStore:
    # On an event loop it must be there before the view.
    eager = not exchange.facts.synchronous or django_settings.SESSION_SAVE_EVERY_REQUEST
    return _open(request, exchange, cast(Runtime, exchange.engine), eager)


def _open(request: HttpRequest, exchange: Exchange, runtime: Runtime, eager: bool) -> SessionStore:
    session = sessions_of(runtime).open(exchange.facts.header("cookie"), exchange, eager=eager)
    store = SessionStore.within(session, exchange)
    request.session = store
    return store
