"""The middleware.

Theory of operation. A request is announced in ``__call__`` and decided in ``process_view``, where the view is known and all other
middleware has run (so the session and the user are there); a refusal from there passes through the middleware inside of ours,
which may decorate it. What never reaches a view (a 404, a redirect, a cached page) is decided on its way out. A refusal that is raised
later, out of a view, becomes a response in ``process_exception``.

Modes. Django runs an instance in the mode of what lies inside of it, but calls ``process_view`` in the mode of the server's
handler; a method of the wrong mode costs a change of threads with each request. So each instance picks both by itself. How to wait
for the store is another question, and the request answers it: under WSGI there is a thread for each request, even where some
middleware runs a loop in it, and connections must not belong to that loop. ``process_exception`` is always called in a thread, by
every version of Django, and only after a view has raised.
"""

import logging
from collections.abc import Callable, Sequence
from inspect import getclosurevars, isfunction
from typing import Any

from asgiref.sync import iscoroutinefunction, markcoroutinefunction, sync_to_async
from django.apps import apps
from django.http import HttpRequest, HttpResponseBase

from failsoft.errors import Rejected
from failsoft.exchange import Exchange, current
from failsoft.exchange.policy import enter, leave
from failsoft.runtime import Runtime
from failsoft_django.responses import add_settled, failed, keep_current, refusal, replace
from failsoft_django.runtime import Installed, installed
from failsoft_django.templates import template_of
from failsoft_django.translate import DjangoFacts, aready, facts_of, rewritten

__all__ = ["FailsoftMiddleware"]

_log = logging.getLogger("failsoft.django")


class FailsoftMiddleware:
    """Django middleware: enforces limits, and says in the response what is left of them.

    Put it first in ``MIDDLEWARE``, or behind such as answer without a view and should not be counted (static files). With
    ``failsoft_django`` in ``INSTALLED_APPS``, system checks look for mistakes.

    Args:
        get_response: the rest of the application.

    Raises:
        ConfigurationError: when the server starts, if ``settings.FAILSOFT`` holds a mistake; the message lists every one.
    """

    sync_capable = True
    async_capable = True

    def __init__(self, get_response: Callable[[HttpRequest], Any]) -> None:
        self.get_response = get_response
        # Without proxies of ours, who speaks for a client is someone else's business.
        self._watching = bool(self.installed().runtime.settings.trusted_proxies)
        self._asynchronous = iscoroutinefunction(get_response)
        if self._asynchronous:
            markcoroutinefunction(self)
        # Django looks for this name on the instance.
        self.process_view: Callable[..., Any] = self._aview if _handler_is_async(get_response) else self._view
        if not apps.is_installed("failsoft_django"):
            _log.warning(
                "failsoft_django is in MIDDLEWARE and not in INSTALLED_APPS, so none of its system checks look for mistakes. Add it."
            )

    def installed(self) -> Installed:
        """The runtime and the renderer to work with; for subclasses that bring their own."""
        return installed()

    def __call__(self, request: HttpRequest) -> Any:
        """Serve `request`. In the asynchronous mode, a coroutine."""
        if self._asynchronous:
            return self._serve(request)
        runtime = self.installed().runtime
        facts = self._facts(request)
        exchange = runtime.begin(facts)
        token = enter(exchange)
        try:
            response: HttpResponseBase = self.get_response(request)
            # An error that other middleware made of a refusal in it: Django has converted it before it came here.
            rejected = failed(exchange) if response.status_code == 500 else None
            if not facts.decided:
                facts.decided = True
                rejected = runtime.admit(exchange) or rejected
            if rejected is not None:
                response = self._instead(request, response, rejected)
            fields = runtime.finish(exchange, response.status_code)
        except BaseException:
            exchange.end()
            raise
        finally:
            leave(token)
        return self._complete(request, response, exchange, fields)

    async def _serve(self, request: HttpRequest) -> HttpResponseBase:
        runtime = self.installed().runtime
        facts = self._facts(request)
        exchange = runtime.begin(facts)
        token = enter(exchange)
        try:
            response: HttpResponseBase = await self.get_response(request)
            rejected = failed(exchange) if response.status_code == 500 else None
            if not facts.decided:
                facts.decided = True
                rejected = await _aadmit(runtime, exchange) or rejected
            if rejected is not None:
                response = self._instead(request, response, rejected)
            if facts.synchronous:
                fields = runtime.finish(exchange, response.status_code)
            else:
                fields = await runtime.afinish(exchange, response.status_code)
        except BaseException:
            exchange.end()
            raise
        finally:
            leave(token)
        return self._complete(request, response, exchange, fields)

    def _facts(self, request: HttpRequest) -> DjangoFacts:
        facts = facts_of(request)
        if self._watching and (message := rewritten(facts)) != "":
            self._watching = False
            if message is not None:
                _log.warning("%s", message)
        return facts

    def _view(
        self, request: HttpRequest, view: Any, args: Sequence[Any], kwargs: dict[str, Any]
    ) -> HttpResponseBase | None:
        runtime = self.installed().runtime
        exchange = _routed(runtime, request, view)
        return None if exchange is None else self._answer(request, runtime.admit(exchange))

    async def _aview(
        self, request: HttpRequest, view: Any, args: Sequence[Any], kwargs: dict[str, Any]
    ) -> HttpResponseBase | None:
        runtime = self.installed().runtime
        exchange = _routed(runtime, request, view)
        return None if exchange is None else self._answer(request, await _aadmit(runtime, exchange))

    def process_exception(self, request: HttpRequest, exception: Exception) -> HttpResponseBase | None:
        """Answer a refusal that was raised out of a view; leave everything else alone."""
        return self._answer(request, exception) if isinstance(exception, Rejected) else None

    def _answer(self, request: HttpRequest, rejected: Rejected | None) -> HttpResponseBase | None:
        return None if rejected is None else refusal(*self.installed(), request, rejected)

    def _instead(self, request: HttpRequest, response: HttpResponseBase, rejected: Rejected) -> HttpResponseBase:
        return replace(response, refusal(*self.installed(), request, rejected))

    def _complete(
        self, request: HttpRequest, response: HttpResponseBase, exchange: Exchange, fields: Sequence[tuple[str, str]]
    ) -> HttpResponseBase:
        if exchange.unsaved is not None:
            response = self._instead(request, response, exchange.unsaved)
        add_settled(response, exchange, fields)
        if response.streaming:
            exchange.streamed = True
            keep_current(response, exchange)
        else:
            exchange.end()
        return response


def _routed(runtime: Runtime, request: HttpRequest, view: Any) -> Exchange | None:
    """The exchange of `request`, now that its view is known; None if it was decided already, by another instance."""
    exchange = current()
    if exchange is None:
        return None
    facts = exchange.facts
    if not isinstance(facts, DjangoFacts) or facts.decided:
        return None
    facts.decided = True
    facts.endpoint = view
    match = request.resolver_match
    facts.route = None if match is None else template_of(match.route, match.func, getattr(request, "urlconf", None))
    if runtime.enabled:
        exchange.plan = runtime.plan(facts)
    return exchange


async def _aadmit(runtime: Runtime, exchange: Exchange) -> Rejected | None:
    if exchange.facts.synchronous:  # an asynchronous middleware under WSGI: the loop around us ends with the request
        return await sync_to_async(runtime.admit)(exchange)
    rejected = await runtime.aadmit(exchange)
    await aready(exchange)
    return rejected


def _handler_is_async(get_response: Any) -> bool:
    """Whether the server's handler, which `get_response` leads to, is asynchronous."""
    link = get_response
    while True:
        following = (
            getattr(link, "__wrapped__", None)  # what converts exceptions to responses
            or getattr(link, "get_response", None)  # a middleware class
            or getattr(link, "awaitable", None)  # async_to_sync
            or getattr(link, "func", None)  # sync_to_async
        )
        if following is None and isfunction(link):  # a middleware function
            following = getclosurevars(link).nonlocals.get("get_response")
        if following is None:
            return iscoroutinefunction(link)
        link = following
