"""Django applications. Django's settings are the process's, so there is one in each."""

import sys
import types
from collections.abc import Callable
from typing import Any

from benchmarks.applications.peers import ask
from benchmarks.applications.visitor import CONTENT, SECRET, act, shown
from benchmarks.cases import FLOOR, LIMITS, OURS, RATES, SIGNED, Case, Place

__all__ = ["build"]


def build(case: Case, place: Place) -> Any:
    """The WSGI or ASGI application of `case`."""
    import django
    from django.conf import settings
    from django.urls import path

    ours = case.package == OURS
    settings.configure(
        ALLOWED_HOSTS=["*"],
        ROOT_URLCONF="benchmarks_urls",
        INSTALLED_APPS=["failsoft_django"] if ours else [],
        MIDDLEWARE=[*(["failsoft_django.FailsoftMiddleware"] if ours else []), *_session_middleware(case)],
        CACHES={"default": _cache(case, place)},
        FAILSOFT=_failsoft(case, place) if ours else {},
        LOGGING_CONFIG=None,
        USE_TZ=True,
        SECRET_KEY=SECRET,
        SESSION_ENGINE=_session_engine(case),
        SESSION_SAVE_EVERY_REQUEST=case.option == "saved every time",
    )
    django.setup()
    floored = case.package == FLOOR and case.session
    routes = _floor(case, place) if floored else [path("", _view(case, place))]
    if case.session and not floored:
        routes += [path("begin", _begin(case)), path("show", _show)]
    if case.option == "nothing applies":
        from failsoft import limit

        # A function of its own: a declaration belongs to the function, whatever it is called by.
        routes.append(path("other", limit(LIMITS[0])(lambda request: _plain(request))))
    urls = types.ModuleType("benchmarks_urls")
    urls.urlpatterns = routes  # type: ignore[attr-defined]  # a module made here
    sys.modules["benchmarks_urls"] = urls
    if case.framework == "django-wsgi":
        from django.core.handlers.wsgi import WSGIHandler

        return WSGIHandler()
    from django.core.handlers.asgi import ASGIHandler

    return ASGIHandler()


def _cache(case: Case, place: Place) -> dict[str, Any]:
    if case.package in ("django-ratelimit + django-redis", "Django, django-redis"):
        return {"BACKEND": "django_redis.cache.RedisCache", "LOCATION": place.peer_url(case.store)}
    if case.store == "memory":
        return {"BACKEND": "django.core.cache.backends.locmem.LocMemCache"}
    if case.package in ("django-ratelimit", "Django, core's cache"):
        return {"BACKEND": "django.core.cache.backends.redis.RedisCache", "LOCATION": place.peer_url(case.store)}
    return {"BACKEND": "django.core.cache.backends.dummy.DummyCache"}


def _failsoft(case: Case, place: Place) -> dict[str, Any]:
    options = place.options(case.store)
    if case.option == "no headers":
        options["headers"] = "off"
    if case.option not in ("nothing applies", "on the view"):
        options["limits"] = LIMITS[: case.limits]
    if case.session:
        options |= {"sessions": True, "secret": SECRET}
    return options


def _session_engine(case: Case) -> str:
    if case.package == OURS:
        return "failsoft_django.sessions"
    return "django.contrib.sessions.backends." + ("signed_cookies" if case.package == SIGNED else "cache")


def _session_middleware(case: Case) -> list[str]:
    if not case.session or case.package == FLOOR:
        return []
    return [
        "failsoft_django.SessionMiddleware"
        if case.package == OURS
        else "django.contrib.sessions.middleware.SessionMiddleware"
    ]


def _session_view(case: Case) -> Callable[..., Any]:
    state = case.session

    def view(request: Any) -> Any:
        if state != "untouched":
            act(request.session, state)
        return _plain(request)

    async def view_async(request: Any) -> Any:
        # Where Django makes them wait, sessions have methods of their own for coroutines.
        session = request.session
        if state == "anonymous":
            assert await session.aget("user_id") is None
        elif state == "read":
            assert await session.aget("user_id") == 42
            assert len(await session.aget("cart")) == 6
        elif state == "write":
            await session.aset("seen", await session.aget("seen") + 1)
        return _plain(request)

    return view_async if case.framework == "django-asgi" else view


def _begin(case: Case) -> Callable[..., Any]:
    def begin(request: Any) -> Any:
        request.session.update(CONTENT)
        if case.option == "logged in":
            request.session.login("42")
        return _plain(request)

    return begin


def _show(request: Any) -> Any:
    from django.http import HttpResponse

    return HttpResponse(shown(request.session), content_type="text/plain")


def _floor(case: Case, place: Place) -> list[Any]:
    from django.http import HttpResponse
    from django.urls import path

    from benchmarks.applications.floors import blocking

    floor = blocking(case, place)

    def view(request: Any) -> Any:
        response = _plain(request)
        for name, value in floor.visit(request.META["HTTP_COOKIE"]):
            response.headers[name] = value
        return response

    def begin(request: Any) -> Any:
        response = _plain(request)
        for _, cookie in floor.begun:
            response.cookies.load(cookie)
        return response

    def show(request: Any) -> Any:
        return HttpResponse(floor.show(request.META["HTTP_COOKIE"]), content_type="text/plain")

    return [path("", view), path("begin", begin), path("show", show)]


def _plain(request: Any) -> Any:
    from django.http import HttpResponse

    return HttpResponse("ok", content_type="text/plain")


async def _plain_async(request: Any) -> Any:
    return _plain(request)


def _view(case: Case, place: Place) -> Callable[..., Any]:
    if case.package.startswith("django-ratelimit"):
        from django_ratelimit.decorators import ratelimit

        view = _plain  # it knows no asynchronous views
        for (units, _), unit in zip(RATES[: case.limits], "mhd", strict=False):
            view = ratelimit(key="ip", rate=f"{units}/{unit}")(view)
        return view
    if case.package in ("throttled-py", "pyrate-limiter", FLOOR):
        return _checked(ask(case, place))
    if case.session:
        return _session_view(case)
    view = _plain_async if case.framework == "django-asgi" and case.option != "sync view" else _plain
    if case.option == "on the view":
        from failsoft import limit

        return limit("; ".join(LIMITS[: case.limits]))(view)
    return view


def _checked(passes: Callable[[str], bool]) -> Callable[..., Any]:
    from django.http import HttpResponse

    def view(request: Any) -> Any:
        return _plain(request) if passes(request.META["REMOTE_ADDR"]) else HttpResponse("no", status=429)

    return view
