"""Load shedding in Django: requests that never reach a view, and what is known of the server."""

from typing import Any

import pytest
from django.http import HttpResponse
from django.test import AsyncRequestFactory, RequestFactory
from django.urls import path

from failsoft import criticality
from failsoft.testing import App
from failsoft_django.translate import facts_of
from tests.django.conftest import OURS, Serve

ANSWERING = "tests.django.middleware.Answering"

both = pytest.mark.parametrize("asgi", [False, True], ids=["wsgi", "asgi"])


def ok(request: Any, **kwargs: Any) -> HttpResponse:
    return HttpResponse(b"ok")


def fill(app: App) -> None:
    """Take the only place."""
    assert app.runtime.shedder is not None
    capacity = app.runtime.shedder.capacity
    assert capacity.acquire(3, capacity.usual("held"), -100.0) is not None


@both
def test_requests_that_reach_no_view(serve: Serve, asgi: bool) -> None:
    """What middleware answers has no route: its path says whether it is exempt, and else it is refused in place of its answer."""
    app = serve(
        path("reports/<int:number>/", ok),
        middleware=(OURS, ANSWERING),
        asgi=asgi,
        shed=True,
        shed_min=1,
        shed_max=1,
        criticality={"/cached": "exempt"},
    )
    fill(app)
    assert [200, 503, 503] == [app.get(path).status for path in ("/cached", "/streamed", "/missing")]


@both
def test_routes_are_written_as_django_writes_them(serve: Serve, asgi: bool) -> None:
    """Settings know a route by its whole pattern, with a slash before it; a decorator overrules them."""
    app = serve(
        path("reports/<int:number>/", ok),
        path("reports/summary/", criticality("critical")(ok)),
        path("healthz/", ok),
        path("healthz/<path:rest>", criticality("sheddable")(ok)),
        asgi=asgi,
        shed=True,
        shed_min=1,
        shed_max=1,
        criticality={"/reports/<int:number>": "exempt"},
    )
    fill(app)
    paths = ("/reports/7/", "/reports/summary/", "/healthz/", "/healthz/expensive")
    assert [200, 503, 200, 503] == [app.get(path).status for path in paths]


def test_environments() -> None:
    """Under WSGI the server's environment is known, where its socket may be; under ASGI there is none."""
    request = RequestFactory().get("/")
    assert request.environ is facts_of(request).environ()
    assert None is facts_of(AsyncRequestFactory().get("/")).environ()
