"""How Django is made to do what the contract describes: under WSGI and under ASGI, in process.

Django has one configuration for each process, and the contract wants several applications at once. So each site is a handler of its
own with middleware of its own, and its routes travel with the request (``request.urlconf``).
"""

import json
import re
import sys
from collections.abc import AsyncIterator, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from inspect import isawaitable
from types import SimpleNamespace
from typing import Any, ClassVar

import django
from asgiref.sync import iscoroutinefunction, markcoroutinefunction, sync_to_async
from django.conf import settings
from django.core.exceptions import PermissionDenied
from django.core.handlers.asgi import ASGIHandler
from django.core.handlers.wsgi import WSGIHandler
from django.http import Http404, HttpRequest, HttpResponse, HttpResponseBase, StreamingHttpResponse
from django.test import override_settings
from django.urls import include, path
from django.utils.functional import SimpleLazyObject
from django.views import View as ClassView
from django.views.decorators.http import require_http_methods

from failsoft.runtime import Runtime
from failsoft.testing import Answer, App, AsgiApp, Call, Harness, Site, View, WsgiApp
from failsoft.testing.harness import Concurrency
from failsoft_django import FailsoftMiddleware, SessionMiddleware
from failsoft_django.runtime import Installed

__all__ = ["AsgiHarness", "Bystander", "Sided", "WsgiHarness", "configure"]


def configure() -> None:
    """Configure Django, once for the process; tests change what they need with `override_settings`."""
    if not settings.configured:
        settings.configure(
            SECRET_KEY="for tests",
            ALLOWED_HOSTS=["*"],
            INSTALLED_APPS=[
                "django.contrib.auth",
                "django.contrib.contenttypes",
                "django.contrib.sessions",
                "failsoft_django",
            ],
            DATABASES={
                "default": {"ENGINE": "django.db.backends.sqlite3", "NAME": "file:tests?mode=memory&cache=shared"}
            },
            DEFAULT_AUTO_FIELD="django.db.models.BigAutoField",
            MIDDLEWARE=["failsoft_django.FailsoftMiddleware"],
            ROOT_URLCONF=(),
            SESSION_ENGINE="django.contrib.sessions.backends.signed_cookies",
            USE_TZ=True,
        )
        django.setup()


configure()


class Sided:
    """Middleware that is asynchronous where what lies inside of it is. Subclasses look at the request."""

    sync_capable = True
    async_capable = True

    def __init__(self, get_response: Any) -> None:
        self.get_response = get_response
        if iscoroutinefunction(get_response):
            markcoroutinefunction(self)

    def __call__(self, request: HttpRequest) -> Any:
        self.look(request)
        return self.get_response(request)

    def look(self, request: HttpRequest) -> None:
        """Do something with the request before it goes on."""


class Bystander(Sided):
    """Middleware that does nothing."""


class ByHeader(Sided):
    """Whoever says who he is, is, or whom the session says; known as lazily as Django knows users."""

    def look(self, request: HttpRequest) -> None:
        def user() -> Any:
            name = request.headers.get("x-user")
            session: Any = getattr(request, "session", None)
            if name is None and session is not None and (principal := session.principal) is not None:
                name = principal.subject
            return SimpleNamespace(pk=name, is_authenticated=name is not None)

        async def auser() -> Any:
            return await sync_to_async(user)()

        request.user = SimpleLazyObject(user)  # a user as far as failsoft looks
        request.auser = auser  # type: ignore[assignment]  # likewise


def call_of(request: HttpRequest, params: Mapping[str, str]) -> Call:
    """What the contract wants to know of a request."""
    return Call(
        method=request.method or "",
        path=request.path,
        params=params,
        header=request.headers.get,
        body=lambda: request.body,
        session=lambda: request.session,
    )


def response_of(answer: Answer | None, *, asynchronous: bool) -> HttpResponseBase:
    """The contract's answer in Django's words."""
    answer = answer or Answer()
    if answer.abort is not None:
        raise {403: PermissionDenied, 404: Http404}[answer.abort]
    response: HttpResponseBase
    if answer.stream is not None:
        pieces: Any = each(answer.stream) if asynchronous else answer.stream
        response = StreamingHttpResponse(pieces, status=answer.status, content_type=answer.content_type)
    else:
        response = HttpResponse(answer.body, status=answer.status, content_type=answer.content_type)
    for name, value in answer.headers:
        response.headers[name] = value
    for name, value in answer.cookies:
        response.set_cookie(name, value)
    return response


async def each(chunks: Iterable[bytes]) -> AsyncIterator[bytes]:
    for chunk in chunks:
        yield chunk


def callback_of(view: View, *, asynchronous: bool) -> Any:
    """The view, decorated, as a URLconf takes it."""

    def plain(request: HttpRequest, **params: str) -> HttpResponseBase:
        answer: Any = view.handle(call_of(request, params))
        return response_of(answer, asynchronous=asynchronous)

    async def served(request: HttpRequest, **params: str) -> HttpResponseBase:
        answer: Any = view.handle(call_of(request, params))
        return response_of(await answer if isawaitable(answer) else answer, asynchronous=asynchronous)

    def handler(self: ClassView, request: HttpRequest, **params: str) -> HttpResponseBase:
        return plain(request, **params)

    if view.shape in ("def", "async"):
        methods = [*view.methods, *(["HEAD"] if "GET" in view.methods else [])]
        return require_http_methods(methods)(view.decorated(plain if view.shape == "def" else served))
    decorate = view.decorated if view.shape == "method" else (lambda target: target)
    cls: Any = type("Endpoint", (ClassView,), {method.lower(): decorate(handler) for method in view.methods})
    return (view.decorated(cls) if view.shape == "class" else cls).as_view()


@contextmanager
def installed(site: Site, *, asynchronous: bool) -> Iterator[Runtime]:
    """Within, a handler that is made serves the site. What is given is the site's runtime."""
    make = site.renderer
    renderer = (
        None if make is None else lambda request, rejected: response_of(make(rejected), asynchronous=asynchronous)
    )
    ours = Installed(site.runtime(), renderer)
    patterns: list[Any] = []
    for view in site.views:
        callback = callback_of(view, asynchronous=asynchronous)
        pattern = path(re.sub(r"{(\w+)}", r"<\1>", view.path.removeprefix("/")), callback)
        patterns.append(pattern if view.group is None else path("", include(([pattern], view.group))))
        view.decorate_above_route(callback)
    urlconf = tuple(patterns)

    class Ours(FailsoftMiddleware):
        def installed(self) -> Installed:
            return ours

    class Routes(Sided):
        def look(self, request: HttpRequest) -> None:
            request.urlconf = urlconf

    class Kept(SessionMiddleware):
        def installed(self) -> Installed:
            return ours

    kept = [Kept] if ours.runtime.sessions is not None else []
    kinds: list[type] = [Bystander, *kept, ByHeader, Routes]
    kinds.insert({"outermost": 0, "between": 1, "innermost": len(kinds)}[site.position], Ours)
    django_settings: dict[str, Any] = {"MIDDLEWARE": [f"{__name__}.{kind.__name__}" for kind in kinds]}
    if kept:
        django_settings["SESSION_ENGINE"] = "failsoft_django.sessions"
    here = sys.modules[__name__]
    for kind in (Ours, Routes, Kept):
        setattr(here, kind.__name__, kind)  # Django finds middleware by name
    with override_settings(**django_settings):
        yield ours.runtime
    for kind in (Ours, Routes, Kept):
        delattr(here, kind.__name__)  # or everything that was ever made would stay


_NO_ROUTE_DECORATORS = (
    "Django has no route decorators: a URLconf holds the finished view, and what is put on it later goes nowhere"
)
UNSUPPORTED = {
    "test_above_the_route": _NO_ROUTE_DECORATORS,
    "test_above_and_below_the_route": _NO_ROUTE_DECORATORS,
    "test_exempt_above_the_route": _NO_ROUTE_DECORATORS,
}
_NO_CANCELLATION = "before 6.1, Django leaves a request running when its own task is cancelled"
UNCANCELLED = (
    dict.fromkeys(
        ("test_cancelled_view", "test_cancelled_flight", "test_cancelled_request_gives_its_place_back"),
        _NO_CANCELLATION,
    )
    if django.VERSION < (6, 1)
    else {}
)


def as_received(application: Any) -> Any:
    """`application` as clients see it, without the blank that Django 5.2 writes before each cookie (RFC 9110, section 5.5)."""

    def received(environ: Any, start_response: Any) -> Any:
        def start(status: str, headers: list[tuple[str, str]], *exc_info: Any) -> Any:
            return start_response(status, [(name, value.strip()) for name, value in headers], *exc_info)

        return application(environ, start)

    return received


class WsgiHarness(Harness):
    """Django under WSGI."""

    name: ClassVar[str] = "django-wsgi"
    concurrency: ClassVar[Concurrency] = "threads"
    unsupported: ClassVar[Mapping[str, str]] = UNSUPPORTED

    def build(self, site: Site) -> App:
        with installed(site, asynchronous=False) as runtime:
            return WsgiApp(as_received(WSGIHandler()), runtime)

    def header(self, request: Any, name: str) -> str | None:
        value: str | None = request.headers.get(name)
        return value

    def json(self, request: Any) -> Any:
        return json.loads(request.body)

    def params(self, args: Sequence[Any], kwargs: Mapping[str, Any]) -> Mapping[str, str]:
        return kwargs

    def user_headers(self, user: str) -> Sequence[tuple[str, str]]:
        return [("X-User", user)]


class AsgiHarness(WsgiHarness):
    """Django under ASGI."""

    name: ClassVar[str] = "django-asgi"
    concurrency: ClassVar[Concurrency] = "tasks"
    unsupported: ClassVar[Mapping[str, str]] = {
        **UNSUPPORTED,
        **UNCANCELLED,
    }

    def build(self, site: Site) -> App:
        with installed(site, asynchronous=True) as runtime:
            return AsgiApp(ASGIHandler(), runtime)
