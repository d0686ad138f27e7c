"""What other limiters get wrong under Django, and we do not: each test says what we do.

Most of it is wrong in every framework, so what we do about it is in the contract, which Django keeps under WSGI and under ASGI
(`test_contract.py`); `IN_THE_CONTRACT` says where. What is Django's alone is here, or in `test_views.py` (classes, `method_decorator`, REST
framework), `test_modes.py` (threads and loops) and `test_django.py` (users, other middleware). What sessions get wrong is in
`test_sessions.py`, `test_session_auth.py` and `test_session_caches.py`.
"""

from concurrent.futures import ThreadPoolExecutor
from inspect import iscoroutinefunction
from typing import Any

import pytest
from django.core.cache.backends.dummy import DummyCache
from django.core.exceptions import PermissionDenied
from django.http import HttpResponse
from django.urls import path
from rest_framework.views import APIView

from failsoft import limit
from failsoft.testing import AdapterContract
from tests.django.conftest import OURS, Serve

both = pytest.mark.parametrize("asgi", [False, True], ids=["wsgi", "asgi"])

IN_THE_CONTRACT = {
    "each limit is asked by itself, in several round trips": "test_one_flight",
    "a request that one limit refuses is charged to the others": "test_stacked_limits_all_or_none",
    "counting and deciding are two steps, so that more are admitted than the limit": "test_exactly_as_many_as_the_limit",
    "a refusal has no Retry-After": "test_retry_after_is_never_early",
    "an answer does not say what is left": "test_draft_fields",
    "a refusal may be kept by caches": "test_refusals_are_not_cached",
    "an error of the store becomes the request's, although it was to be let pass": "test_open",
    "a store that is away lets everything pass, although it was not to": "test_closed",
    "parts of a key are joined without a separator, so that two clients share a budget": "test_a_tuple_is_not_its_joined_text",
    "what a client says of its address is believed": "test_spoofed_left_most_address",
    "all whose address is not known share one budget": "test_missing_is_refused",
    "the addresses of one IPv6 network have a budget each": "test_by_ipv6_network",
    "HEAD has a budget of its own": "test_head_counts_with_get",
    "methods that nobody knows have budgets of their own": "test_invented_method",
    "paths of one route have a budget each": "test_one_route_is_one_bucket",
    "what leads to no view is not limited": "test_unknown_paths_are_charged",
    "a limit that stands under another decorator is not found": "test_under_a_decorator_that_hides_it",
}
"""What others get wrong, and the contract's test that we do not."""


@pytest.mark.parametrize("name", IN_THE_CONTRACT.values())
def test_is_in_the_contract(name: str) -> None:
    """The contract has that test."""
    assert callable(getattr(AdapterContract, name))


def ok(request: Any) -> HttpResponse:
    return HttpResponse(b"ok")


async def aok(request: Any) -> HttpResponse:
    return HttpResponse(b"ok")


@both
def test_asynchronous_views(serve: Serve, asgi: bool) -> None:
    """A limited asynchronous view is still one, and is limited; no coroutine is taken for a response."""
    view = limit("2/minute")(aok)
    assert iscoroutinefunction(view)
    assert [200, 200, 429] == serve(path("x", view), asgi=asgi).statuses(3, "/x")


class Broken(DummyCache):
    """A cache that nobody may ask."""

    def get(self, *_: Any, **__: Any) -> Any:
        raise ConnectionError("the cache was asked")

    add = set = touch = incr = get_many = set_many = delete = get


@both
@pytest.mark.parametrize("backend", ["django.core.cache.backends.dummy.DummyCache", f"{__name__}.Broken"])
def test_caches_have_no_part_in_it(serve: Serve, asgi: bool, backend: str) -> None:
    """A cache that keeps nothing does not switch limits off, and one that fails breaks nothing."""
    app = serve(path("x", limit("2/minute")(ok)), asgi=asgi, django={"CACHES": {"default": {"BACKEND": backend}}})
    assert [200, 200, 429] == app.statuses(3, "/x")


class Denied:
    """Middleware that answers what Django forbids."""

    def __init__(self, get_response: Any) -> None:
        self.get_response = get_response

    def __call__(self, request: Any) -> Any:
        return self.get_response(request)

    def process_exception(self, request: Any, error: Exception) -> HttpResponse | None:
        return HttpResponse(b"forbidden", status=418) if isinstance(error, PermissionDenied) else None


@both
def test_a_refusal_is_no_denial(serve: Serve, asgi: bool) -> None:
    """Who comes too often is told so, and when to return: it is no missing permission, and nobody who handles those sees it."""
    app = serve(path("x", limit("1/minute")(ok)), asgi=asgi, middleware=[OURS, f"{__name__}.{Denied.__name__}"])
    replies = [app.get("/x"), app.get("/x")]
    assert [200, 429] == [reply.status for reply in replies]
    assert (replies[1].retry_after or 0) >= 60


class Api(APIView):
    authentication_classes = ()
    permission_classes = ()

    @limit("10/day")
    def get(self, request: Any) -> HttpResponse:
        return HttpResponse(b"ok")


@pytest.mark.filterwarnings("ignore::DeprecationWarning:rest_framework")  # what it does is its own business
def test_rest_framework_at_once(serve: Serve) -> None:
    """REST framework's views admit no more requests at a time than one after the other."""
    app = serve(path("x", Api.as_view()))
    with ThreadPoolExecutor(8) as threads:
        statuses = list(threads.map(lambda _: app.get("/x").status, range(40)))
    assert [200] * 10 + [429] * 30 == sorted(statuses)
