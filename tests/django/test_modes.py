"""The modes of Django's middleware: limits are enforced in all of them, and no change of threads is ours."""

from typing import Any

import pytest
from asgiref.sync import AsyncToSync, SyncToAsync
from django.core.handlers.asgi import ASGIHandler
from django.core.handlers.wsgi import WSGIHandler
from django.http import HttpResponse
from django.test import override_settings
from django.urls import path

from failsoft import limit
from failsoft.errors import Rejected
from failsoft.testing import App
from failsoft_django import FailsoftMiddleware
from failsoft_django.middleware import _handler_is_async
from tests.django.conftest import OURS, Serve

HERE = "tests.django.middleware"
OTHERS = ("SyncOnly", "AsyncOnly", "Plain", "Mixed", "plain_function", "both_functions")


@limit("2/minute")
def plain(request: Any) -> HttpResponse:
    return HttpResponse(b"plain")


@limit("2/minute")
async def served(request: Any) -> HttpResponse:
    return HttpResponse(b"served")


def broken(request: Any) -> HttpResponse:
    raise ZeroDivisionError


@limit("2/minute", by="user", on_missing="exempt")
async def nobody(request: Any) -> HttpResponse:
    return HttpResponse(b"nobody")


PATTERNS = (path("plain", plain), path("served", served), path("broken", broken), path("nobody", nobody))

with_another = pytest.mark.parametrize(
    "middleware",
    [(OURS,), *[(OURS, f"{HERE}.{name}") for name in OTHERS], *[(f"{HERE}.{name}", OURS) for name in OTHERS]],
    ids=lambda names: "-".join(name.rpartition(".")[2] for name in names),
)


@pytest.fixture
def hops(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Every change of threads, in order."""
    seen: list[str] = []
    to_thread, to_loop = SyncToAsync.__call__, AsyncToSync.__call__

    async def into_thread(self: Any, *args: Any, **kwargs: Any) -> Any:
        seen.append("to a thread")
        return await to_thread(self, *args, **kwargs)

    def into_loop(self: Any, *args: Any, **kwargs: Any) -> Any:
        seen.append("to a loop")
        return to_loop(self, *args, **kwargs)

    monkeypatch.setattr(SyncToAsync, "__call__", into_thread)
    monkeypatch.setattr(AsyncToSync, "__call__", into_loop)
    return seen


def _hops(app: App, path: str, seen: list[str]) -> list[str]:
    app.get(path)  # the first request of an application does more
    seen.clear()
    app.get(path)
    return list(seen)


@with_another
@pytest.mark.parametrize("asgi", [False, True], ids=["wsgi", "asgi"])
def test_enforced_in_every_mode(serve: Serve, middleware: tuple[str, ...], asgi: bool) -> None:
    """Whatever middleware stands around it or inside of it, and whatever the view is, a limit is enforced."""
    app = serve(*PATTERNS, middleware=middleware, asgi=asgi, limits=["5/minute"])
    assert [200, 200, 429] == app.statuses(3, "/plain")
    assert [200, 200, 429] == app.statuses(3, "/served")
    assert [404, 429] == app.statuses(2, "/missing")


@pytest.mark.broad
@with_another
@pytest.mark.parametrize("asgi", [False, True], ids=["wsgi", "asgi"])
def test_no_change_of_threads_is_ours(serve: Serve, hops: list[str], middleware: tuple[str, ...], asgi: bool) -> None:
    """A request changes threads as often as it does with a middleware in our place that does nothing."""
    paths = ("/plain", "/served", "/broken", "/missing", "/nobody")
    stand_in = [f"{HERE}.Plain" if name == OURS else name for name in middleware]
    app = serve(*PATTERNS, middleware=stand_in, asgi=asgi, outside_request="allow")
    expected = {path: _hops(app, path, hops) for path in paths}
    if (asgi, middleware) == (False, (OURS, f"{HERE}.AsyncOnly")):
        # Under WSGI, an event loop that some middleware asked for: what waits for the store must not do so in it.
        expected["/missing"].append("to a thread")
    app = serve(*PATTERNS, middleware=middleware, asgi=asgi)
    assert expected == {path: _hops(app, path, hops) for path in paths}


def test_a_late_refusal_changes_threads_no_more_than_an_error(serve: Serve, hops: list[str]) -> None:
    """Under ASGI Django handles what a view raises in a thread; a refusal that is raised costs that, and nothing of ours."""

    async def refused(request: Any) -> HttpResponse:
        await helper()
        return HttpResponse()

    async def caught(request: Any) -> HttpResponse:
        try:
            await helper()
        except Rejected as error:
            raise LookupError from error
        return HttpResponse()

    @limit("1/minute")
    async def helper() -> None:
        pass

    app = serve(path("refused", refused), path("caught", caught), asgi=True)
    app.get("/refused")
    answered = _hops(app, "/refused", hops)
    failed = _hops(app, "/caught", hops)
    assert "to a thread" in answered
    assert len(answered) < len(failed)


@pytest.mark.parametrize("name", OTHERS)
@pytest.mark.parametrize("asgi", [False, True], ids=["wsgi", "asgi"])
def test_the_handler_is_recognised(name: str, asgi: bool) -> None:
    """Through middleware of any kind an instance sees whether the server's handler is asynchronous."""
    seen: list[bool] = []

    class Looking(FailsoftMiddleware):
        def __init__(self, get_response: Any) -> None:
            super().__init__(get_response)
            seen.append(_handler_is_async(get_response))

    from tests.django import middleware

    middleware.Looking = Looking  # type: ignore[attr-defined]  # Django finds middleware by name
    with override_settings(MIDDLEWARE=[f"{HERE}.Looking", f"{HERE}.{name}"], FAILSOFT={}):
        ASGIHandler() if asgi else WSGIHandler()
    assert [asgi] == seen
