"""Sessions behind caches of whole pages: nobody is served what another's session has made, nor what an outage has."""

from collections.abc import Callable
from itertools import count, permutations
from typing import Any

import pytest
from django.http import HttpRequest, HttpResponse
from django.test import override_settings
from django.urls import path
from django.views.decorators.cache import cache_page
from django.views.decorators.vary import vary_on_cookie

from failsoft.testing import FaultyStore, WsgiApp
from failsoft.testing.contract.session_site import Browser
from failsoft_django.checks import check_middleware, check_sessions
from tests.django.conftest import OURS, Serve
from tests.django.harness import as_received

pytestmark = pytest.mark.broad

SECRET = "a secret of the tests, of forty characters"
NEW = "failsoft_django.SessionMiddleware"
STOCK = "django.contrib.sessions.middleware.SessionMiddleware"
UPDATE = "django.middleware.cache.UpdateCacheMiddleware"
FETCH = "django.middleware.cache.FetchFromCacheMiddleware"
WHOLE = "django.middleware.cache.CacheMiddleware"
ENGINE = {"SESSION_ENGINE": "failsoft_django.sessions"}
COOKIES = {"SESSION_ENGINE": "django.contrib.sessions.backends.signed_cookies"}

both = pytest.mark.parametrize("asgi", [False, True], ids=["wsgi", "asgi"])
made = count()
"""Goes up with every page that is made and not taken from a cache."""

Open = Callable[..., list[Browser]]


def enter(request: HttpRequest, name: str) -> HttpResponse:
    request.session.update({"name": name, "list": [1]})
    return HttpResponse(b"")


def page(request: HttpRequest) -> HttpResponse:
    return HttpResponse(f"{request.session.get('name', 'nobody')} {next(made)}")


async def apage(request: HttpRequest) -> HttpResponse:
    return HttpResponse(f"{await request.session.aget('name', 'nobody')} {next(made)}")


def plain(request: HttpRequest) -> HttpResponse:
    return HttpResponse(f"plain {next(made)}")


def write(request: HttpRequest) -> HttpResponse:
    request.session["n"] = next(made)
    return page(request)


def worded(request: HttpRequest, name: str) -> HttpResponse:
    response = page(request)
    response[name] = "Accept-Language"
    return response


def append(request: HttpRequest) -> HttpResponse:
    request.session.get("list", []).append(1)
    return page(request)


PATTERNS = [
    path("enter/<name>", enter),
    path("page", page),
    path("apage", apage),
    path("plain", plain),
    path("write", write),
    path("append", append),
    path("worded/<name>", worded),
    path("kept", cache_page(60)(page)),
    path("varied", cache_page(60)(vary_on_cookie(page))),
]


@pytest.fixture
def visit(serve: Serve) -> Open:
    """Ann, Bob, and somebody without a session, at a site that keeps pages."""

    def visit(middleware: Any, *, asgi: bool = False, django: Any = ENGINE, **failsoft: Any) -> list[Browser]:
        caches = {
            "default": {"BACKEND": "django.core.cache.backends.locmem.LocMemCache", "LOCATION": f"of site {next(made)}"}
        }
        app = serve(
            *PATTERNS,
            asgi=asgi,
            middleware=middleware,
            django={"CACHES": caches, **django},
            **{"secret": SECRET, "limits": [], **failsoft},
        )
        app.runtime.store = FaultyStore()
        if isinstance(app, WsgiApp):
            app.application = as_received(app.application)
        found = [Browser(app) for _ in range(3)]
        for browser, name in zip(found, ("ann", "bob"), strict=False):
            assert 200 == browser.get(f"/enter/{name}").status
            browser.get("/write")  # Django's own middleware gives the seal only now
        return found

    return visit


def names(browsers: list[Browser], one: str) -> list[str]:
    """Whose page each of them gets."""
    return [browser.get(one).body.decode().split()[0] for browser in browsers]


def warned(middleware: Any, django: Any = ENGINE) -> set[str]:
    with override_settings(MIDDLEWARE=list(middleware), FAILSOFT={"secret": SECRET}, **django):
        return {one.id or "" for one in (*check_middleware(), *check_sessions())}


ACCEPTED = [
    *(one for one in permutations((OURS, UPDATE, NEW, FETCH)) if not warned(one)),
    *(one for one in permutations((OURS, WHOLE, NEW)) if not warned(one)),
    *(one for one in permutations((UPDATE, NEW, FETCH)) if warned(one) <= {"failsoft.W901"}),
    *(one for one in permutations((OURS, UPDATE, STOCK, FETCH)) if warned(one) <= {"failsoft.W906"}),
]
RIGHT = {(OURS, UPDATE, NEW, FETCH), (OURS, WHOLE, NEW), (UPDATE, NEW, FETCH), (OURS, UPDATE, STOCK, FETCH)}
accepted = pytest.mark.parametrize(
    "middleware",
    [pytest.param(one, marks=() if one in RIGHT else pytest.mark.once) for one in ACCEPTED],
    ids=["-".join(path.rpartition(".")[2] for path in one) for one in ACCEPTED],
)


def test_orders():
    """There is a right order, with each kind of middleware; and a cache inside of the sessions is warned of, with any."""
    assert {*ACCEPTED} >= RIGHT
    for inside in ((NEW, UPDATE, FETCH), (NEW, WHOLE), (STOCK, UPDATE, FETCH)):
        assert "failsoft.W908" in warned(inside)
        assert "failsoft.W908" in warned((OURS, *inside))
        assert "failsoft.W908" not in warned((OURS, *inside), COOKIES)


@both
@accepted
@pytest.mark.parametrize("one", ["/page", "/apage"])
def test_pages_that_look(visit, asgi, middleware, one):
    """Each gets their own page, in every order that the checks accept; and again, from the cache."""
    browsers = visit(middleware, asgi=asgi)
    first = [browser.get(one) for browser in browsers]
    assert (["ann", "bob", "nobody"], ["Cookie"] * 3) == (
        [reply.body.decode().split()[0] for reply in first],
        [reply.header("Vary") for reply in first],
    )
    if middleware[-1] != STOCK:
        assert [reply.body for reply in first] == [browser.get(one).body for browser in browsers]


@both
@pytest.mark.parametrize("middleware", [(OURS, NEW), (NEW,)], ids=["ours", "alone"])
def test_pages_that_vary_otherwise(visit, asgi, middleware):
    """What a view says that its page varies with stays, in whatever case it writes the name of the field."""
    ann = visit(middleware, asgi=asgi)[0]
    replies = [ann.get(f"/worded/{name}") for name in ("Vary", "vary", "VARY")]
    assert ["Accept-Language, Cookie"] * 3 == [reply.header("Vary") for reply in replies]


@both
@accepted
def test_pages_that_do_not_look(visit, asgi, middleware):
    """A page that does not depend on the session is kept once for all, whatever cookies go with it."""
    assert 1 == len({browser.get("/plain").body for browser in visit(middleware, asgi=asgi)})


@both
@pytest.mark.parametrize("middleware", [(OURS, UPDATE, NEW, FETCH), (UPDATE, NEW, FETCH)], ids=["ours", "alone"])
@pytest.mark.parametrize("one", ["/write", "/append"])
def test_pages_that_write(visit, asgi, middleware, one):
    """A page that changes the session is kept for nobody, also where the change is inside of a value; and says so."""
    ann = visit(middleware, asgi=asgi)[0]
    replies = [ann.get(one) for _ in range(2)]
    assert replies[0].body != replies[1].body
    assert [("Cookie", "private")] * 2 == [(one.header("Vary"), one.header("Cache-Control")) for one in replies]


@both
@pytest.mark.parametrize("middleware", [(OURS, UPDATE, NEW, FETCH), (UPDATE, NEW, FETCH)], ids=["ours", "alone"])
@pytest.mark.parametrize(
    ("options", "expected"),
    [
        ({"session_on_outage": "empty"}, "nobody"),
        ({"session_snapshot": "5m", "session_snapshot_keys": ["name"]}, "ann"),
    ],
    ids=["empty", "snapshot"],
)
def test_pages_of_an_outage(visit, asgi, middleware, options, expected):
    """What was made while the store is away is not kept, or it would be served on when the store is back."""
    ann = visit(middleware, asgi=asgi, **options)[0]
    with ann.app.runtime.store.away():
        during = ann.get("/page")
    assert (expected, "no-store, private") == (during.body.decode().split()[0], during.header("Cache-Control"))
    after = ann.get("/page").body
    assert b"ann" == after.split()[0]
    assert during.body != after


@both
@pytest.mark.parametrize(("engine", "keeper"), [(ENGINE, NEW), (COOKIES, STOCK)], ids=["ours", "django's"])
def test_one_page(visit, asgi, engine, keeper):
    """``cache_page`` keeps what the view returns, before any session middleware: the view itself has to say that it varies."""
    browsers = visit((OURS, keeper), asgi=asgi, django=engine)
    assert ["ann", "bob", "nobody"] == names(browsers, "/varied")
    assert ["ann"] * 3 == names(browsers, "/kept")
