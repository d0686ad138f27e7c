"""Sessions in requests: which middleware keeps them, what that costs, what the browser is told, and what an outage does."""

import asyncio
import gc
import pickle
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta
from http.cookies import SimpleCookie
from typing import Any

import pytest
from django.core.handlers.asgi import ASGIRequest
from django.http import HttpRequest, HttpResponse, JsonResponse, StreamingHttpResponse
from django.template.response import SimpleTemplateResponse
from django.test import AsyncClient, Client, RequestFactory, override_settings
from django.urls import path

from failsoft.errors import ConfigurationError, SessionUnavailable
from failsoft.testing import FaultyStore, WsgiApp
from failsoft.testing.contract.session_site import Browser
from failsoft_django import SessionMiddleware
from failsoft_django.responses import add_fields
from failsoft_django.sessions import SessionStore
from tests.django.conftest import OURS, Serve
from tests.django.harness import as_received, each
from tests.servers import Valkey

pytestmark = pytest.mark.broad

SECRET = "a secret of the tests, of forty characters"
NEW = "failsoft_django.SessionMiddleware"
STOCK = "django.contrib.sessions.middleware.SessionMiddleware"
ENGINE = {"SESSION_ENGINE": "failsoft_django.sessions"}
LIMITS = ["100/minute", "1000/hour", "9000/day"]

LOAD, WRITE = ("sessions.load",), ("sessions.write",)
LIMITED = ("ratelimit.acquire", "sessions.load")

both = pytest.mark.parametrize("asgi", [False, True], ids=["wsgi", "asgi"])
ALONE = pytest.param((NEW,), marks=pytest.mark.once)
STOCK_ALONE = pytest.param((STOCK,), marks=pytest.mark.once)
kinds = pytest.mark.parametrize(
    "middleware", [(OURS, NEW), ALONE, (OURS, STOCK), STOCK_ALONE], ids=["ours", "ours-alone", "stock", "stock-alone"]
)
Open = Callable[..., Browser]


def read(request: HttpRequest) -> HttpResponse:
    return JsonResponse({key: request.session[key] for key in list(request.session.keys()) if key != "_session_expiry"})


async def aread(request: HttpRequest) -> HttpResponse:
    return JsonResponse(dict(await request.session.aitems()))


def write(request: HttpRequest, key: str, value: str) -> HttpResponse:
    request.session[key] = value
    return HttpResponse(b"written")


async def awrite(request: HttpRequest, key: str, value: str) -> HttpResponse:
    await request.session.aset(key, value)
    return HttpResponse(b"written")


def untouched(request: HttpRequest) -> HttpResponse:
    return HttpResponse(b"untouched")


def append(request: HttpRequest) -> HttpResponse:
    request.session.setdefault("list", []).append(1)
    return HttpResponse(b"appended")


def save(request: HttpRequest) -> HttpResponse:
    request.session["saved"] = 1
    request.session.save()
    return HttpResponse(str(request.session.session_key))


async def asave(request: HttpRequest) -> HttpResponse:
    await request.session.aset("saved", 1)
    await request.session.asave()
    return HttpResponse(str(request.session.session_key))


def create(request: HttpRequest) -> HttpResponse:
    request.session.create()
    return HttpResponse(f"{request.session.session_key} {request.session.exists(request.session.session_key or '')}")


def cycle(request: HttpRequest) -> HttpResponse:
    request.session.cycle_key()
    return HttpResponse(str(request.session.session_key))


def flush(request: HttpRequest) -> HttpResponse:
    request.session.flush()
    return HttpResponse(b"bye")


async def aflush(request: HttpRequest) -> HttpResponse:
    await request.session.aflush()
    return HttpResponse(b"bye")


def fails(request: HttpRequest) -> HttpResponse:
    request.session["lost"] = request.session["list"] = 1
    return HttpResponse(b"", status=500)


def raises(request: HttpRequest) -> HttpResponse:
    request.session["lost"] = 1
    raise ZeroDivisionError


def swallows(request: HttpRequest, then: str) -> HttpResponse:
    """Catches the refusal, and fails for another reason."""
    refusal: Exception | None = None
    try:
        request.session["a"] = 2
    except SessionUnavailable as caught:
        refusal = caught
    if then == "answer":
        return HttpResponse(b"", status=500)
    if then == "because":
        raise LookupError from refusal
    if then == "group":
        raise ExceptionGroup("of tasks", [ValueError(), *([refusal] if refusal else [])])
    raise ZeroDivisionError


def flush_and_fail(request: HttpRequest) -> HttpResponse:
    request.session.flush()
    return HttpResponse(b"", status=503)


def expiry(request: HttpRequest, seconds: int) -> HttpResponse:
    request.session.set_expiry(seconds)
    return HttpResponse(b"")


def forget(request: HttpRequest) -> HttpResponse:
    if request.session["_session_expiry"]:
        request.session.set_expiry(None)
    else:
        request.session.clear()
        request.session["a"] = 1
    return HttpResponse(b"")


def moment(request: HttpRequest) -> HttpResponse:
    request.session.set_expiry(timedelta(seconds=-1))
    return HttpResponse(b"")


def swapped(request: HttpRequest) -> HttpResponse:
    request.session = SessionStore()
    request.session["other"] = 1
    return HttpResponse(b"")


def deleted(request: HttpRequest) -> HttpResponse:
    request.session = SessionStore()
    request.session.save(must_create=True)
    request.session.delete()
    return HttpResponse(b"")


def rendered(request: HttpRequest) -> HttpResponse:
    class Lazy(SimpleTemplateResponse):
        @property
        def rendered_content(self) -> str:
            return str(request.session.get("a"))

    return Lazy([])


def cached(request: HttpRequest) -> HttpResponse:
    request.session["a"] = 1
    return HttpResponse(b"", headers={"Cache-Control": "public, max-age=60", "Vary": "Accept, cookie"})


def streamed(request: HttpRequest) -> StreamingHttpResponse:
    request.session["a"] = 1
    pieces = [b"a", b"b"]
    return StreamingHttpResponse(each(pieces) if isinstance(request, ASGIRequest) else pieces)


PATTERNS = [
    path("read", read),
    path("aread", aread),
    path("write/<key>/<value>", write),
    path("awrite/<key>/<value>", awrite),
    path("untouched", untouched),
    path("append", append),
    path("save", save),
    path("asave", asave),
    path("create", create),
    path("cycle", cycle),
    path("flush", flush),
    path("aflush", aflush),
    path("fails", fails),
    path("raises", raises),
    path("swallows/<then>", swallows),
    path("flush_and_fail", flush_and_fail),
    path("expiry/<int:seconds>", expiry),
    path("forget", forget),
    path("moment", moment),
    path("swapped", swapped),
    path("deleted", deleted),
    path("rendered", rendered),
    path("cached", cached),
    path("streamed", streamed),
]


@pytest.fixture
def browse(serve: Serve) -> Open:
    """A browser of a site with sessions, whose store can be away."""

    def browse(*patterns: Any, asgi: bool = False, middleware: Any = (OURS, NEW), **options: Any) -> Browser:
        django = {**ENGINE, **options.pop("django", {})}
        app = serve(
            *(patterns or PATTERNS),
            asgi=asgi,
            middleware=middleware,
            django=django,
            **{"secret": SECRET, "limits": [], **options},
        )
        app.runtime.store = FaultyStore()
        if isinstance(app, WsgiApp):
            app.application = as_received(app.application)
        return Browser(app)

    return browse


def store_of(browser: Browser) -> FaultyStore:
    store = browser.app.runtime.store
    assert isinstance(store, FaultyStore)
    return store


def flown(browser: Browser, *paths: str) -> list[tuple[str, ...]]:
    """What requests ask of the store, flight by flight."""
    flights = store_of(browser).flights
    flights.clear()
    assert [200] * len(paths) == [browser.get(one).status for one in paths]
    return list(flights)


# Both kinds of middleware, with and without failsoft's around it


@both
@kinds
def test_round_trip(browse, asgi, middleware):
    """What is set is there in the next request, changes inside of it are noticed, and a flush ends it all, under every middleware."""
    browser = browse(asgi=asgi, middleware=middleware)
    assert {} == browser.get("/read").json()
    assert {} == browser.jar
    for one in ("/write/a/1", "/awrite/b/2", "/append", "/append"):
        assert 200 == browser.get(one).status
    assert {"a": "1", "b": "2", "list": [1, 1]} == browser.get("/read").json() == browser.get("/aread").json()
    copy = browser.copy()
    assert (200, {}) == (browser.get("/flush").status, browser.jar if "stock" not in middleware[-1] else {})
    assert browser.cookie is None
    assert {} == copy.get("/read").json()


@both
@kinds
def test_save_by_hand(browse, asgi, middleware):
    """What is saved by hand is stored before the view goes on, and the browser gets the key, once."""
    browser = browse(asgi=asgi, middleware=middleware)
    for one in ("/save", "/asave"):
        reply = browser.get(one)
        assert reply.body.decode() == browser.cookie
        names = [line.partition("=")[0] for line in reply.lines("Set-Cookie")]
        assert len(set(names)) == len(names)
    assert {"saved": 1} == browser.get("/read").json()


def create_and_flush(request: HttpRequest) -> HttpResponse:
    request.session.create()
    request.session.flush()
    return HttpResponse(str(request.session.session_key))


@both
@kinds
def test_create_and_flush(browse, asgi, middleware):
    """A session that ends in the request that began it leaves nothing, and the browser hears nothing of it."""
    browser = browse(path("create-and-flush", create_and_flush), asgi=asgi, middleware=middleware)
    reply = browser.get("/create-and-flush")
    assert (b"None", None, {}) == (reply.body, browser.cookie, browser.jar)
    assert [*browser.app.runtime.store.flights] in ([], [("sessions.create",), ("sessions.delete",)])


@both
@kinds
def test_create_and_cycle(browse, asgi, middleware):
    """A view that asks for a key has the one that the browser gets; another one afterwards leads to the same session."""
    browser = browse(asgi=asgi, middleware=middleware)
    reply = browser.get("/create")
    assert f"{browser.cookie} True" == reply.body.decode()
    browser.get("/write/a/1")
    before = browser.cookie
    assert browser.get("/cycle").body.decode() == browser.cookie
    assert (True, {"a": "1"}) == (before != browser.cookie, browser.get("/read").json())


@both
@kinds
def test_what_fails_is_not_saved(browse, asgi, middleware):
    """Of a response that says 5xx nothing is saved, as with Django's own engines."""
    browser = browse(asgi=asgi, middleware=middleware)
    browser.get("/write/a/1")
    assert [500, 500] == [browser.get(one).status for one in ("/fails", "/raises")]
    assert {"a": "1"} == browser.get("/read").json()
    new = Browser(browser.app)
    assert (500, {}) == (new.get("/fails").status, new.jar)


@both
@kinds
def test_flush_in_what_fails(browse, asgi, middleware):
    """A logout counts, whatever becomes of the response."""
    browser = browse(asgi=asgi, middleware=middleware)
    browser.get("/write/a/1")
    copy = browser.copy()
    assert (503, None) == (browser.get("/flush_and_fail").status, browser.cookie)
    assert {} == copy.get("/read").json()


@both
@kinds
def test_another_store_in_its_place(browse, asgi, middleware):
    """A view may put another session in the place of the request's: that is saved and the browser gets its key."""
    browser = browse(asgi=asgi, middleware=middleware)
    browser.get("/write/a/1")
    before = browser.cookie
    assert 200 == browser.get("/swapped").status
    assert (True, {"other": 1}) == (before != browser.cookie, browser.get("/read").json())
    assert 400 == browser.get("/deleted").status


@both
@kinds
def test_unknown_cookie(browse, asgi, middleware):
    """A planted key is never adopted."""
    browser = browse(asgi=asgi, middleware=middleware)
    planted = browser.jar["sessionid"] = "x" * 59
    assert {} == browser.get("/read").json()
    browser.get("/write/a/1")
    assert browser.cookie not in (None, planted)
    assert {} == Browser(browser.app, {"sessionid": planted}).get("/read").json()


@both
@pytest.mark.parametrize("seconds", [0, 3600])
@kinds
def test_expiry(browse, asgi, middleware, seconds):
    """A session that ends with the browser has a cookie that does; any other outlives it."""
    browser = browse(asgi=asgi, middleware=middleware)
    browser.get("/write/a/1")
    lines = browser.get(f"/expiry/{seconds}").lines("Set-Cookie")
    cookies = {name: morsel for line in lines for name, morsel in SimpleCookie(line.strip()).items()}
    assert [seconds == 0] * len(cookies) == [morsel["max-age"] == "" for morsel in cookies.values()]
    assert "sessionid" in cookies
    assert {"a": "1"} == browser.get("/read").json()


@both
@pytest.mark.parametrize(
    "one", ["/expiry/0", "/expiry/3600", "/expiry/0 /expiry/3600", "/expiry/3600 /forget", "/expiry/0 /forget"]
)
def test_expiry_elsewhere(browse, asgi, one):
    """Other frameworks know whether the browser keeps the cookie, as long as Django has said so."""
    browser = browse(asgi=asgi)
    browser.get("/write/a/1")
    paths = one.split()
    assert [200] * len(paths) == [browser.get(path).status for path in paths]
    service = browser.app.runtime.sessions
    assert service is not None
    session = service.open(f"sessionid={browser.cookie}")
    service.load(session)
    assert {"/expiry/0": False, "/expiry/3600": True, "/forget": None}[paths[-1]] == session.kept


@both
@pytest.mark.parametrize("close", [False, True])
def test_expire_at_browser_close(browse, asgi, close):
    """So says the setting for all."""
    browser = browse(asgi=asgi, django={"SESSION_EXPIRE_AT_BROWSER_CLOSE": close})
    lines = browser.get("/write/a/1").lines("Set-Cookie")
    assert [not close] * 2 == ["Max-Age=1209" in line for line in lines]


@both
@kinds
def test_past_moment(browse, asgi, middleware):
    """What expired at a moment of its own is not read any more."""
    browser = browse(asgi=asgi, middleware=middleware)
    browser.get("/write/a/1")
    browser.get("/moment")
    assert {} == browser.get("/read").json()


# Flights


@both
@pytest.mark.parametrize(
    ("one", "expected"),
    [
        ("/untouched", [LIMITED]),
        ("/read", [LIMITED]),
        ("/aread", [LIMITED]),
        ("/write/a/2", [LIMITED, WRITE]),
        ("/awrite/a/2", [LIMITED, WRITE]),
        ("/append", [LIMITED, WRITE]),
        ("/cycle", [LIMITED, WRITE]),
        ("/save", [LIMITED, WRITE]),
        ("/flush", [LIMITED, ("sessions.delete",)]),
        ("/create", [LIMITED, WRITE]),
    ],
)
def test_flights_with_limits(browse, asgi, one, expected):
    """Beside three limits a session costs nothing that is only read, and one flight that is written."""
    browser = browse(asgi=asgi, limits=LIMITS)
    browser.get("/write/a/1")
    assert expected == flown(browser, one)


@both
def test_flights_of_the_anonymous(browse, asgi):
    """Who has no cookie costs the session's store nothing."""
    browser = browse(asgi=asgi, limits=LIMITS)
    assert [("ratelimit.acquire",)] * 2 == flown(browser, "/read", "/untouched")
    assert [("ratelimit.acquire",), ("sessions.create",)] == flown(browser, "/write/a/1")


@pytest.mark.parametrize(
    ("asgi", "one", "expected"),
    [
        (False, "/untouched", []),
        (True, "/untouched", [LOAD]),
        (False, "/read", [LOAD]),
        (True, "/aread", [LOAD]),
        (False, "/write/a/2", [LOAD, WRITE]),
        (True, "/awrite/a/2", [LOAD, WRITE]),
    ],
)
@pytest.mark.parametrize("middleware", [(OURS, NEW), ALONE], ids=["ours", "alone"])
def test_flights_without_limits(browse, middleware, asgi, one, expected):
    """Without limits a session is loaded at its first use; on an event loop, where nobody can wait later, before the view."""
    browser = browse(asgi=asgi, middleware=middleware)
    browser.get("/write/a/1")
    assert expected == flown(browser, one)


@both
@pytest.mark.parametrize(
    ("one", "expected"),
    [("/untouched", [LIMITED]), ("/read", [LIMITED]), ("/write/a/2", [LIMITED, WRITE]), ("/flush", None)],
)
def test_flights_of_the_stock_middleware(browse, asgi, one, expected):
    """Under Django's own middleware the load comes with the limits too; what the limits settle is a flight apart from the write."""
    browser = browse(asgi=asgi, limits=LIMITS, middleware=(OURS, STOCK))
    browser.get("/write/a/1")
    assert (expected or [LIMITED, ("sessions.delete",)]) == flown(browser, one)


@pytest.mark.parametrize("middleware", [(OURS, NEW), ALONE], ids=["ours", "alone"])
def test_no_flight_on_the_loop(browse, middleware):
    """Nothing waits for the store on an event loop that others share, whatever the view is."""
    browser = browse(asgi=True, limits=LIMITS, middleware=middleware)
    for one in ("/write/a/1", "/awrite/b/2", "/read", "/aread", "/asave", "/save", "/cycle", "/aflush"):
        assert 200 == browser.get(one).status
    assert 0 == store_of(browser).on_loop


def test_save_every_request(browse):
    """Where Django is to save at every request, every request keeps the session alive."""
    browser = browse(django={"SESSION_SAVE_EVERY_REQUEST": True})
    browser.get("/write/a/1")
    assert [LOAD] == flown(browser, "/untouched")


# What browsers and caches are told


@both
def test_cache_fields(browse, asgi):
    """A response that sets the cookie is private whatever the view says, and varies with the cookie, said once."""
    reply = browse(asgi=asgi).get("/cached")
    assert ("Accept, cookie", {"max-age=60", "private"}) == (
        reply.header("Vary"),
        set((reply.header("Cache-Control") or "").split(", ")),
    )


@both
def test_streamed(browse, asgi):
    """A streamed response has its cookies, which are sent before it begins."""
    browser = browse(asgi=asgi)
    assert b"ab" == browser.get("/streamed").body
    assert {"a": 1} == browser.get("/read").json()


def test_cookies_are_real():
    """Fields become Django's cookies, with every attribute, also one that Python learned late."""
    response = HttpResponse()
    field = (
        "a=b; Max-Age=5; Expires=Mon, 23 Nov 2026 05:00:00 GMT; Path=/; Secure; HttpOnly; SameSite=None; Partitioned"
    )
    add_fields(response, [("Set-Cookie", field), ("Set-Cookie", "c=; Max-Age=0; Path=/")])
    assert {"a": "b", "c": ""} == {name: morsel.value for name, morsel in response.cookies.items()}
    assert set(field.lower().split("; ")) == set(response.cookies["a"].OutputString().lower().split("; "))


def test_cookies_are_sent_as_they_were_changed():
    """Who changes a cookie that is ours before it is sent, or puts another value in its place, is heeded; so is a copy."""
    response = HttpResponse()
    fields = [("Set-Cookie", f"{name}=b; Path=/; HttpOnly") for name in ("plain", "changed", "replaced", "copied")]
    add_fields(response, fields)
    response.cookies["changed"]["domain"] = "example.com"
    response.cookies["replaced"] = "c"
    response.cookies["copied"] = pickle.loads(pickle.dumps(response.cookies["copied"]))  # noqa: S301 - of our own
    assert [
        {"plain=b", "Path=/", "HttpOnly"},
        {"changed=b", "Path=/", "HttpOnly", "Domain=example.com"},
        {"replaced=c", "Path=/", "HttpOnly"},
        {"copied=b", "Path=/", "HttpOnly"},
    ] == [set(morsel.OutputString().split("; ")) for morsel in response.cookies.values()]


@kinds
def test_no_garbage(browse, middleware):
    """A request with a session leaves nothing that only the garbage collector finds; under ASGI, Django's handler leaves the request."""
    browser = browse(middleware=middleware)
    browser.get("/write/a/1")
    for asked in ("/write/a/2", "/aread", "/streamed", "/fails"):
        gc.collect()
        gc.freeze()  # what there is by now need not be looked at again
        gc.disable()
        try:
            browser.get(asked)
            gc.set_debug(gc.DEBUG_SAVEALL)
            gc.collect()
            left = {type(one).__name__ for one in gc.garbage} & {"WSGIRequest", "SessionStore", "Session", "Exchange"}
        finally:
            gc.set_debug(0)
            gc.garbage.clear()
            gc.enable()
        assert (asked, set()) == (asked, left)


@both
def test_partitioned(browse, asgi):
    """A partitioned cookie is sent as such."""
    browser = browse(
        asgi=asgi,
        cookie_partitioned=True,
        django={"SESSION_COOKIE_SECURE": True, "SESSION_COOKIE_NAME": "__Host-session"},
    )
    lines = browser.get("/write/a/1").lines("Set-Cookie")
    assert {"__Host-session", "__Host-session-seal"} == {line.strip().partition("=")[0] for line in lines}
    assert all("Partitioned" in line and "Secure" in line for line in lines)


# While the store is away


def outage(browser: Browser, one: str) -> tuple[int, str | None, list[str]]:
    reply = browser.get(one)
    return reply.status, reply.header("Content-Type"), reply.lines("Set-Cookie")


REFUSED = (503, "application/problem+json", [])


@both
@pytest.mark.parametrize("middleware", [(OURS, NEW), ALONE, (OURS, STOCK)], ids=["ours", "alone", "stock"])
@pytest.mark.parametrize(
    "one", ["/read", "/aread", "/write/a/2", "/awrite/a/2", "/save", "/cycle", "/create", "/rendered", "/append"]
)
def test_outage(browse, asgi, middleware, one):
    """While the store is away, whatever needs it is refused: no error, no lost cookie; and then everything is there."""
    browser = browse(asgi=asgi, middleware=middleware)
    browser.get("/write/a/1")
    browser.get("/read")  # Django's own middleware gives the seal only now
    jar = dict(browser.jar)
    with store_of(browser).away():
        assert REFUSED == outage(browser, one)
        assert (200, []) == outage(browser, "/untouched")[::2]
    assert (jar, {"a": "1"}) == (browser.jar, browser.get("/read").json())


@both
@pytest.mark.parametrize("operation", ["sessions.write", "sessions.create"])
@pytest.mark.parametrize("middleware", [(OURS, NEW), ALONE, (OURS, STOCK)], ids=["ours", "alone", "stock"])
def test_write_that_is_not_taken(browse, asgi, middleware, operation):
    """A write that the store does not take is not acknowledged, nor tried ten thousand times."""
    browser = browse(asgi=asgi, middleware=middleware)
    if operation == "sessions.write":
        browser.get("/write/a/1")
        browser.get("/read")
    jar = dict(browser.jar)
    with store_of(browser).failing(operation):
        store_of(browser).flights.clear()
        assert REFUSED == outage(browser, "/write/a/2")
        assert 2 >= len(store_of(browser).flights)
    assert jar == browser.jar


class Reader:
    """Middleware that reads the session before the view."""

    sync_capable = async_capable = True

    def __init__(self, get_response: Any) -> None:
        self.get_response = get_response
        self.asynchronous = asyncio.iscoroutinefunction(get_response)
        if self.asynchronous:
            from asgiref.sync import markcoroutinefunction

            markcoroutinefunction(self)

    def __call__(self, request: HttpRequest) -> Any:
        if self.asynchronous:
            return self.serve(request)
        request.session.get("a")
        return self.get_response(request)

    async def serve(self, request: HttpRequest) -> Any:
        await request.session.aget("a")
        return await self.get_response(request)


@both
@pytest.mark.parametrize("middleware", [(OURS, NEW), ALONE, (OURS, STOCK)], ids=["ours", "alone", "stock"])
def test_outage_in_other_middleware(browse, asgi, middleware):
    """A refusal that is raised in other middleware, of which Django makes an error, is a refusal all the same."""
    browser = browse(asgi=asgi, middleware=(*middleware, f"{__name__}.Reader"))
    browser.get("/write/a/1")
    with store_of(browser).away():
        assert REFUSED == outage(browser, "/untouched")


@both
@pytest.mark.parametrize("middleware", [(OURS, NEW), ALONE, (OURS, STOCK)], ids=["ours", "alone", "stock"])
@pytest.mark.parametrize(("then", "expected"), [("answer", 500), ("error", 500), ("because", 503), ("group", 503)])
def test_outage_and_another_error(browse, asgi, middleware, then, expected):
    """An error is answered as an outage if it is of one, and not because there was one that the view has dealt with."""
    browser = browse(asgi=asgi, middleware=middleware)
    browser.get("/write/a/1")
    with store_of(browser).away():
        assert expected == browser.get(f"/swallows/{then}").status


@both
def test_outage_where_nothing_is_found(browse, asgi):
    """With ``session_on_outage="empty"`` readers find nothing and go on; the cookie stays."""
    for middleware in ((OURS, NEW), (NEW,), (OURS, STOCK)):
        browser = browse(asgi=asgi, middleware=middleware, session_on_outage="empty")
        browser.get("/write/a/1")
        with store_of(browser).away():
            reply = browser.get("/read")
            assert (200, {}, []) == (reply.status, reply.json(), reply.lines("Set-Cookie"))
            assert 503 == browser.get("/write/a/2").status
        assert {"a": "1"} == browser.get("/read").json()


@both
@pytest.mark.parametrize("middleware", [(OURS, NEW), ALONE, (OURS, STOCK)], ids=["ours", "alone", "stock"])
def test_logout_while_away(browse, asgi, middleware):
    """A logout while the store is away takes the cookies, says 202, and is made up for with the next request."""
    browser = browse(asgi=asgi, middleware=middleware)
    browser.get("/write/a/1")
    copy = browser.copy()
    with store_of(browser).away():
        reply = browser.get("/flush")
    assert (202, ["sessionid-logout"]) == (reply.status, [*browser.jar])
    assert {"a": "1"} == copy.get("/read").json()
    browser.get("/untouched")
    assert {} == copy.get("/read").json()


@both
def test_snapshot(browse, asgi):
    """A snapshot stands in for readers; writers are refused."""
    browser = browse(asgi=asgi, session_snapshot="5m", session_snapshot_keys=["a"])
    browser.get("/write/b/1")
    browser.get("/write/a/1")
    with store_of(browser).away():
        assert {"a": "1"} == browser.get("/read").json() == browser.get("/aread").json()
        assert [REFUSED] * 2 == [outage(browser, one) for one in ("/write/a/2", "/cycle")]
    assert {"a": "1", "b": "1"} == browser.get("/read").json()


@both
@pytest.mark.parametrize("how", ["kill", "pause"])
def test_outage_of_a_server(serve, asgi, how):
    """A server that is killed, or hangs, costs no more than the deadline; when it is back, so are sessions."""
    with Valkey("--appendonly", "yes", "--appendfsync", "always") as server:
        app = serve(
            *PATTERNS,
            asgi=asgi,
            middleware=(OURS, NEW),
            django=ENGINE,
            store=server.url,
            secret=SECRET,
            limits=LIMITS,
            deadline="1s",
        )
        if isinstance(app, WsgiApp):
            app.application = as_received(app.application)
        browser = Browser(app)
        assert 200 == _until(browser, "/write/a/1", 200)
        jar = dict(browser.jar)
        (server.kill if how == "kill" else server.pause)()
        assert REFUSED == outage(browser, "/read")
        assert REFUSED == outage(browser, "/write/a/2")
        (server.start if how == "kill" else server.resume)()
        assert 200 == _until(browser, "/read", 200)
        assert (jar, {"a": "1"}) == (browser.jar, browser.get("/read").json())


def _until(browser: Browser, one: str, status: int) -> int:
    from tests.servers import poll

    poll(lambda: browser.get(one).status == status, within=20)
    return status


# Several requests at once


@both
def test_concurrent_writers(browse, asgi):
    """Requests that write different keys of one session at the same time lose nothing."""
    browser = browse(asgi=asgi)
    browser.get("/write/n/0")
    kind = "awrite" if asgi else "write"
    with ThreadPoolExecutor(8) as pool:
        statuses = list(pool.map(lambda n: browser.copy().get(f"/{kind}/k{n}/{n}").status, range(100)))
    assert [200] * 100 == statuses
    assert {"n": "0", **{f"k{n}": str(n) for n in range(100)}} == browser.get("/read").json()


@both
@pytest.mark.parametrize("middleware", [(OURS, NEW), ALONE, (OURS, STOCK), STOCK_ALONE])
def test_logout_during_a_slow_writer(browse, asgi, middleware):
    """Who logs out while another request of theirs is about to write stays out, and that one is told."""
    entered, go = threading.Event(), threading.Event()

    def slow(request: HttpRequest) -> HttpResponse:
        request.session["late"] = 1
        entered.set()
        assert go.wait(10)
        return HttpResponse(b"")

    browser = browse(path("slow", slow), *PATTERNS, asgi=asgi, middleware=middleware)
    browser.get("/write/a/1")
    other, statuses = browser.copy(), list[int]()
    thread = threading.Thread(target=lambda: statuses.append(other.get("/slow").status))
    thread.start()
    assert entered.wait(10)
    browser.get("/flush")
    go.set()
    thread.join(10)
    assert [400 if middleware == (STOCK,) else 409] == statuses
    assert {} == other.get("/read").json()


# By hand


def test_middleware_by_itself(browse):
    """The middleware can be called as Django's is, without a handler."""
    browse()
    request = RequestFactory().get("/")
    response: Any = SessionMiddleware(lambda request: read(request))(request)
    assert (200, "Cookie") == (response.status_code, response.headers["Vary"])
    assert isinstance(request.session, SessionStore)


def test_middleware_of_another_engine(browse):
    """With another engine it does not start, and says what to write."""
    browse()
    with (
        override_settings(SESSION_ENGINE="django.contrib.sessions.backends.file"),
        pytest.raises(ConfigurationError, match=r"SESSION_ENGINE = 'failsoft_django\.sessions'"),
    ):
        SessionMiddleware(read)


@pytest.mark.parametrize("middleware", [(OURS, NEW), (OURS, STOCK)], ids=["ours", "stock"])
def test_client(browse, middleware):
    """The test client's session is the one that requests have, in both directions."""
    browse(middleware=middleware)
    client = Client()
    session = client.session
    session["a"] = "1"
    session.save()
    assert {"a": "1"} == client.get("/read").json()
    client.get("/write/b/2")
    assert {"a": "1", "b": "2"} == dict(client.session.items())
    client.get("/flush")
    assert {} == client.get("/read").json()


def test_async_client(browse):
    """So it is with the asynchronous one."""
    browse(asgi=True)

    async def use() -> None:
        client = AsyncClient()
        session = await client.asession()
        await session.aset("a", "1")
        await session.asave()
        assert {"a": "1"} == (await client.get("/aread")).json()
        await client.get("/awrite/b/2")
        assert {"a": "1", "b": "2"} == dict(await (await client.asession()).aitems())

    asyncio.run(use())
