"""Sessions in Starlette: what `request.session` is, when it is loaded and written, and what several requests do to each other."""

import asyncio
import gc
import itertools
import json
import threading
from collections.abc import Callable, Iterator
from contextlib import ExitStack, closing
from typing import Any

import pytest
from starlette.applications import Starlette
from starlette.background import BackgroundTask
from starlette.middleware import Middleware
from starlette.middleware.base import BaseHTTPMiddleware
from starlette.requests import Request
from starlette.responses import JSONResponse, PlainTextResponse, Response, StreamingResponse
from starlette.routing import Mount, Route

from failsoft import OutsideRequest
from failsoft.errors import ConfigurationError, SessionConflict, SessionUnavailable, SessionValueError
from failsoft.runtime import runtimes
from failsoft.sessions.view import SessionView
from failsoft.testing import AsgiApp, ManualClock
from failsoft_starlette import FailsoftMiddleware
from tests.core.requests import make_runtime
from tests.starlette.apps import Open
from tests.starlette.browsers import NAME, SECRET, Browser, call, server_runtime, site

pytestmark = pytest.mark.broad

LIMITS = ["100/minute", "1000/hour", "10000/day"]

Flown = Callable[[], list[tuple[str, ...]]]


@pytest.fixture
def browse(open_app: Open) -> Iterator[Callable[..., Browser]]:
    """Opens a site with sessions, and gives a browser."""

    def open_one(*routes: Any, **options: Any) -> Browser:
        return Browser(open_app([*site(), *routes], **{"sessions": True, "secret": SECRET, **options}))

    return open_one  # type: ignore[return-value]  # a fixture need not be a generator


def flown(browser: Browser, path: str) -> list[tuple[str, ...]]:
    """What a request asks of the store, flight by flight."""
    flights = browser.app.runtime.store.flights  # type: ignore[attr-defined]  # a FaultyStore
    flights.clear()
    assert 200 == browser.get(path).status
    return list(flights)


def clock_of(browser: Browser) -> ManualClock:
    clock = browser.app.runtime.clock
    assert isinstance(clock, ManualClock)
    return clock


def view(do: Callable[[Request], Any]) -> Any:
    """An async view that does something and answers with what came of it."""

    async def endpoint(request: Request) -> Response:
        result = do(request)
        return JSONResponse(await result if asyncio.iscoroutine(result) else result)

    return endpoint


# Flights


@pytest.mark.parametrize(
    ("path", "expected"),
    [
        ("/nothing", [("ratelimit.acquire", "sessions.load")]),
        ("/read", [("ratelimit.acquire", "sessions.load")]),
        ("/thread/read", [("ratelimit.acquire", "sessions.load")]),
        ("/write?a=1", [("ratelimit.acquire", "sessions.load"), ("sessions.write",)]),
        ("/thread/write?a=1", [("ratelimit.acquire", "sessions.load"), ("sessions.write",)]),
    ],
)
def test_flights_with_limits(browse, path, expected):
    """A session that is read comes with three limits in their one flight; what is written makes a second."""
    browser = browse(limits=LIMITS)
    browser.get("/write?b=2")
    assert expected == flown(browser, path)


def test_flights_of_a_user(browse):
    """Whether the session was revoked is asked in the same flight."""
    browser = browse(limits=LIMITS)
    browser.get("/login?who=7")
    assert [("ratelimit.acquire", "sessions.load", "sessions.check")] == flown(browser, "/me")


def test_flights_of_a_user_without_a_seal(browse):
    """Without the seal nobody knows whom to ask about, so it takes a second flight, before the view runs."""
    browser = browse(limits=LIMITS)
    browser.get("/login?who=7")
    del browser.jar[f"{NAME}-seal"]
    assert [("ratelimit.acquire", "sessions.load"), ("sessions.check",)] == flown(browser, "/thread/read")


@pytest.mark.parametrize("path", ["/nothing", "/read", "/thread/read", "/me"])
def test_flights_of_a_stranger(browse, path):
    """Who has no session costs no flight for it."""
    assert [("ratelimit.acquire",)] == flown(browse(limits=LIMITS), path)
    assert [] == flown(browse(), path)


def test_flights_without_limits(browse):
    """Where nothing else is asked, the session makes a flight of its own."""
    browser = browse()
    browser.get("/write?a=1")
    assert [("sessions.load",)] == flown(browser, "/read")
    assert [("sessions.load",), ("sessions.write",)] == flown(browser, "/thread/write?a=2")


def test_never_on_the_loop(browse):
    """No flight holds up the event loop."""
    browser = browse(limits=LIMITS)
    for path in ("/write?a=1", "/thread/write?b=1", "/login?who=7", "/thread/read", "/logout"):
        browser.get(path)
    assert 0 == browser.app.runtime.store.on_loop


def test_off(open_app):
    """Without the setting nobody makes a session."""
    app = open_app([Route("/", view(lambda request: "session" in request.scope))])
    assert False is app.get("/").json()


def test_failsoft_turned_off(browse):
    """Where failsoft is turned off, sessions still are there."""
    browser = browse(enabled=False)
    browser.get("/write?a=1")
    assert {"a": "1"} == browser.json("/read")


# The mapping


def test_a_mapping(browse):
    """What people do with a dict works."""

    def do(request: Request) -> Any:
        session: Any = request.session
        session["a"] = 1
        session.update(b=2, c=[3])
        session |= {"d": None}
        assert 2 == session.pop("b")
        assert "none" == session.pop("b", "none")
        assert 4 == session.setdefault("e", 4)
        del session["a"]
        with pytest.raises(KeyError, match="'a'"):
            session["a"]
        assert "a" not in session
        assert [3] == session["c"]
        assert session.get("z") is None
        assert sorted(session) == sorted(session.keys())
        assert {**session} == session.copy() == dict(session) == {} | session
        assert session
        assert {"c": [3], "d": None, "e": 4, "f": 5} == session | {"f": 5}
        return len(session)

    browser = browse(Route("/", view(do)))
    assert 3 == browser.json("/")
    assert {"c": [3], "d": None, "e": 4} == browser.json("/read")


def test_no_dict(browse):
    """Code that reads dicts from below is told that this is none, and does not find it empty."""

    def do(request: Request) -> str:
        with pytest.raises(TypeError) as raised:
            json.dumps(request.session)
        return str(raised.value)

    browser = browse(Route("/", view(do)))
    browser.get("/write?a=1")
    assert "StarletteSession" in browser.json("/")


def test_what_starlette_asks_for(browse):
    """A change inside of a value may be announced, as Starlette asks for, and need not be."""
    browser = browse(Route("/", view(lambda request: request.session.mark_modified())))
    browser.get("/append")
    assert 200 == browser.get("/").status
    assert [("sessions.load",), ("sessions.write",)] == flown(browser, "/grow")
    assert {"list": [0, 1]} == browser.json("/read")


def test_values_that_cannot_be_kept(browse):
    """What cannot be kept is an error where it is assigned."""

    def do(request: Request) -> str:
        with pytest.raises(SessionValueError) as raised:
            request.session["lock"] = threading.Lock()
        with pytest.raises(TypeError, match="keys are text"):
            request.session[1] = 1  # type: ignore[index]  # on purpose
        return str(raised.value)

    assert "lock" in browse(Route("/", view(do))).json("/")


def test_private_keys(browse):
    """A key that begins with an underscore is Starlette's own: another framework neither sees nor clears it."""
    browser = browse(Route("/", view(lambda request: request.session.update(_state="s", shared="t"))))
    browser.get("/")
    sessions = browser.app.runtime.sessions
    other = SessionView(sessions.open(browser.cookies[0][1]), "flask")
    assert {"shared": "t"} == dict(other)
    other.clear()
    sessions.save(other.session)
    assert {"_state": "s"} == browser.json("/read")


def test_vary(browse):
    """A response varies with the cookie where the session was looked at, and there alone."""
    browser = browse(Route("/looks", view(lambda request: request.scope["session"].mark_accessed())))
    browser.get("/write?a=1")
    fields = {path: browser.get(path).header("vary") for path in ("/nothing", "/read", "/me", "/looks")}
    assert {"/nothing": None, "/read": "Cookie", "/me": "Cookie", "/looks": "Cookie"} == fields


# Ids


def test_read_only(browse):
    """Who only reads writes nothing and gets no cookie."""
    browser = browse()
    browser.get("/append")
    assert [] == browser.get("/read").lines("set-cookie")
    assert [("sessions.load",)] == flown(browser, "/read")


def test_planted_id(browse):
    """An id that nobody issued is never adopted."""
    browser = browse()
    planted = "x" * 59
    browser.jar[NAME] = planted
    browser.get("/write?a=1")
    assert planted != browser.jar[NAME]
    assert {} == Browser(browser.app, {NAME: planted}).json("/read")
    assert {"a": "1"} == browser.json("/read")


@pytest.mark.parametrize("value", ["", "x", "\xe4" * 59, "x" * 5000, '"', "a=b"])
def test_malformed_id(browse, value):
    """What has not even the form of an id asks the store nothing."""
    browser = browse()
    browser.jar[NAME] = value
    assert [] == flown(browser, "/read")


def test_rotation(browse):
    """After a rotation the old id is good for as long as requests may be under way, once the browser has the new one, and then dead."""
    browser = browse()
    browser.get("/write?a=1")
    old = browser.twin()
    browser.get("/rotate")
    assert old.jar[NAME] != browser.jar[NAME]
    assert [{"a": "1"}] * 2 == [one.json("/read") for one in (old.twin(), browser)]
    clock_of(browser).advance(11)
    assert {} == old.json("/read")
    assert {"a": "1"} == browser.json("/read")


def test_login(browse):
    """A login gives the session another id, keeps what the stranger had, and lets the old id read nothing."""
    browser = browse()
    browser.get("/write?cart=1")
    old = browser.twin()
    browser.get("/login?who=7")
    assert "7" == browser.json("/me")
    assert {"cart": "1"} == browser.json("/read")
    assert [{}, None] == [old.twin().json("/read"), old.twin().json("/me")]
    assert 409 == old.get("/write?a=1").status


def test_logout(browse):
    """A logout deletes the cookies and the record."""
    browser = browse()
    browser.get("/login?who=7")
    copied = browser.twin()
    assert 200 == browser.get("/logout").status
    assert {} == browser.jar
    assert copied.json("/me") is None


def test_cut_cookies(browse):
    """HTTP/2 may bring the cookies in several lines."""
    browser = browse()
    browser.get("/login?who=7")
    lines = [("cookie", f"{name}={value}") for name, value in browser.jar.items()]
    assert 2 == len(lines)
    assert "7" == browser.app.get("/me", *lines).json()


# Several requests


def test_concurrent_writes(redis_url, open_app):
    """Requests that write different keys at the same time lose nothing to each other."""
    numbers = itertools.count()
    together = asyncio.Barrier(50)

    async def one(request: Request) -> Response:
        await together.wait()  # everybody has loaded, nobody has written
        request.session[f"key{next(numbers)}"] = True
        return PlainTextResponse("ok")

    app = open_app([*site(), Route("/one", one)], runtime=server_runtime(redis_url, prefix="starlette-many"))
    browser = Browser(app)
    browser.get("/write?first=1")
    assert {200} == {reply.status for reply in app.burst(50, "GET", "/one", headers=browser.cookies)}
    assert {"first", *(f"key{number}" for number in range(50))} == set(browser.json("/read"))


@pytest.mark.parametrize(("path", "expected"), [("/slow/read", 200), ("/slow/write", 409), ("/slow/nested", 409)])
def test_logout_during_a_slow_request(browse, path, expected):
    """A session that ended while a request was served stays out: a reader is served, a writer is told."""
    arrived, over = threading.Event(), threading.Event()

    def slow(do: Callable[[Any], Any]) -> Any:
        def endpoint(request: Request) -> Response:
            do(request.session)
            arrived.set()
            assert over.wait(10)
            return PlainTextResponse("done")

        return endpoint

    browser = browse(
        Route("/slow/read", slow(lambda session: session["list"])),
        Route("/slow/write", slow(lambda session: session.update(a=1))),
        Route("/slow/nested", slow(lambda session: session["list"].append(1))),
    )
    browser.get("/append")
    browser.get("/login?who=7")
    other = browser.twin()
    replies = []
    thread = threading.Thread(target=lambda: replies.append(other.get(path)))
    thread.start()
    assert arrived.wait(10)
    browser.get("/logout")
    over.set()
    thread.join(10)
    assert (expected, []) == (replies[0].status, replies[0].lines("set-cookie"))
    assert (expected == 200) == (b"done" == replies[0].body)
    assert {} == other.json("/read")


def test_sessions_of_an_application(browse):
    """Mounted applications and middleware that puts the application into another task share the request's session."""

    class Passing(BaseHTTPMiddleware):
        async def dispatch(self, request: Request, call_next: Any) -> Response:
            request.session["before"] = True
            response: Response = await call_next(request)
            request.session["after"] = True
            return response

    browser = browse(Mount("/sub", routes=site()), inside=[Middleware(Passing)])
    browser.get("/sub/thread/write?a=1")
    assert {"before": True, "after": True, "a": "1"} == browser.json("/sub/read")


# Saving by hand


def test_saving_by_hand(browse):
    """What is saved by hand is in the store before the response, whose cookies say so once."""

    async def save(request: Request) -> Any:
        session: Any = request.session
        session["early"] = 1
        assert await session.save() is None
        flights = list(request.app.state.store.flights)
        session["late"] = 2
        return flights

    browser = browse(Route("/", view(save)))
    store = browser.app.runtime.store
    browser.app.application.state.store = store
    reply = browser.get("/")
    assert [[["sessions.create"]], [("sessions.create",), ("sessions.write",)]] == [reply.json(), list(store.flights)]
    assert [NAME, f"{NAME}-seal"] == sorted(line.partition("=")[0] for line in reply.lines("set-cookie"))
    assert ["Cookie", "private"] == [reply.header("vary"), reply.header("cache-control")]
    assert {"early": 1, "late": 2} == browser.json("/read")


def test_saving_by_hand_alone(browse):
    """With nothing to write after it, the response brings the cookies all the same."""

    async def save(request: Request) -> None:
        request.session["a"] = 1
        await request.session.save()  # type: ignore[attr-defined]  # Starlette calls it a dict

    browser = browse(Route("/", view(save)))
    reply = browser.get("/")
    assert ["Cookie", "private"] == [reply.header("vary"), reply.header("cache-control")]
    assert {"a": 1} == browser.json("/read")


def test_saving_by_hand_in_a_thread(browse):
    """A plain function saves from its thread."""
    from anyio import from_thread

    def save(request: Request) -> Response:
        request.session["a"] = 1
        from_thread.run(request.session.save)  # type: ignore[attr-defined]  # Starlette calls it a dict
        return PlainTextResponse("ok")

    browser = browse(Route("/", save))
    assert 200 == browser.get("/").status
    assert {"a": 1} == browser.json("/read")


def test_two_tasks_save_by_hand(browse):
    """Two tasks of one request that save at once begin one session, and lose nothing."""

    async def save(request: Request) -> None:
        async def one(key: str) -> None:
            request.session[key] = 1
            await request.session.save()  # type: ignore[attr-defined]  # Starlette calls it a dict

        await asyncio.gather(*map(one, "abc"))

    browser = browse(Route("/", view(save)))
    browser.get("/")
    created = [flight for flight in browser.app.runtime.store.flights if "sessions.create" in flight]
    assert 1 == len(created)
    assert {"a": 1, "b": 1, "c": 1} == browser.json("/read")


def test_changes_while_saving(browse):
    """What another task changes while the store writes is written with the response."""

    async def save(request: Request) -> None:
        session: Any = request.session
        session.update(replaced=1, deleted=1, kept=1)
        task = asyncio.ensure_future(session.save())
        with request.app.state.store.hanging(30):
            while not request.app.state.store.waiting.is_set():  # noqa: ASYNC110 - the store sets it, in a thread
                await asyncio.sleep(0.001)
            session.update(replaced=2, added=2)
            del session["deleted"]
        await task

    browser = browse(Route("/", view(save)))
    browser.app.application.state.store = browser.app.runtime.store
    browser.get("/")
    assert {"replaced": 2, "kept": 1, "added": 2} == browser.json("/read")


@pytest.mark.parametrize("catches", [False, True])
def test_refused_by_hand(browse, catches):
    """Saving by hand tells the view what became of it; what the view lets pass is the response."""

    async def save(request: Request) -> str:
        request.session["a"] = 1
        with request.app.state.store.away():
            try:
                await request.session.save()  # type: ignore[attr-defined]  # Starlette calls it a dict
            except SessionUnavailable:
                if not catches:
                    raise
                request.session.clear()
        return "caught"

    browser = browse(Route("/", view(save)))
    browser.app.application.state.store = browser.app.runtime.store
    browser.get("/write?b=1")
    reply = browser.get("/")
    assert (200 if catches else 503) == reply.status


def test_conflict_by_hand(browse):
    """A session that ended meanwhile is a conflict."""

    async def save(request: Request) -> None:
        sessions = request.app.state.runtime.sessions
        other = sessions.open(request.headers["cookie"])
        await sessions.aload(other)
        other.logout()
        await sessions.asave(other)
        request.session["a"] = 1
        with pytest.raises(SessionConflict):
            await request.session.save()  # type: ignore[attr-defined]  # Starlette calls it a dict

    browser = browse(Route("/", view(save)))
    browser.app.application.state.runtime = browser.app.runtime
    browser.get("/write?b=1")
    assert 409 == browser.get("/").status
    assert {} == browser.json("/read")


@pytest.mark.parametrize("known", [True, False])
@pytest.mark.parametrize("do", ["write", "login"])
def test_response_while_a_task_saves(browse, known, do):
    """A response that begins while a task saves waits for it: there is one session, and one write of what it holds."""
    tasks: list[asyncio.Task[None]] = []

    async def respond(request: Request) -> None:
        session: Any = request.session
        session["b"] = 2
        if do == "login":
            session.login("7")
        store = request.app.state.store
        hanging.enter_context(store.hanging(30))
        tasks.append(asyncio.ensure_future(session.save()))
        while not store.waiting.is_set():  # noqa: ASYNC110 - the store sets it, in a thread
            await asyncio.sleep(0.001)
        asyncio.get_running_loop().call_later(0.05, hanging.close)  # when the response has begun, or later

    async def outcome(request: Request) -> Response:
        await tasks[0]
        return JSONResponse(None)

    browser = browse(Route("/respond", view(respond)), Route("/outcome", outcome))
    store = browser.app.application.state.store = browser.app.runtime.store
    if known:
        browser.get("/write?a=1")
    store.flights.clear()
    with ExitStack() as hanging:
        reply = browser.get("/respond")
    names = [line.partition("=")[0] for line in reply.lines("set-cookie")]
    assert sorted(set(names)) == sorted(names)
    assert 1 == sum(not {"sessions.create", "sessions.write"}.isdisjoint(flight) for flight in store.flights)
    assert 200 == browser.get("/outcome").status
    assert {**({"a": "1"} if known else {}), "b": 2} == browser.json("/read")
    assert ("7" if do == "login" else None) == browser.json("/me")


def test_save_while_the_response_begins(browse):
    """A task that saves while the response writes the session waits for that, and finds nothing left to write."""
    tasks: list[asyncio.Task[None]] = []

    async def respond(request: Request) -> None:
        session: Any = request.session
        session["b"] = 2
        store = request.app.state.store
        hanging.enter_context(store.hanging(30))

        async def save() -> None:
            while not store.waiting.is_set():  # noqa: ASYNC110 - the store sets it, in a thread
                await asyncio.sleep(0.001)
            asyncio.get_running_loop().call_later(0.05, hanging.close)
            await session.save()

        tasks.append(asyncio.ensure_future(save()))

    async def outcome(request: Request) -> Response:
        await tasks[0]
        return JSONResponse(None)

    browser = browse(Route("/respond", view(respond)), Route("/outcome", outcome))
    store = browser.app.application.state.store = browser.app.runtime.store
    with ExitStack() as hanging:
        assert 200 == browser.get("/respond").status
    assert [("sessions.create",)] == list(store.flights)
    assert 200 == browser.get("/outcome").status
    assert {"b": 2} == browser.json("/read")


@pytest.mark.parametrize("path", ["/login?who=7", "/saved"])
@pytest.mark.parametrize("permanent", [None, True, False])
def test_a_cookie_for_as_long_as_flask_says(browse, permanent, path):
    """A new id lasts as long as the old one was to, where a Flask view has said how long that is."""

    async def save(request: Request) -> None:
        session: Any = request.session
        session.rotate()
        await session.save()

    browser = browse(Route("/saved", view(save)))
    browser.get("/write?a=1")
    sessions = browser.app.runtime.sessions
    other = sessions.open(browser.cookies[0][1])
    sessions.load(other)
    if permanent is not None:
        other.write("flask:_permanent", permanent)
        sessions.save(other)
    reply = browser.get(path)
    assert [permanent is not False] * 2 == ["Max-Age" in line for line in reply.lines("set-cookie")]


# Too late


def late(do: Callable[[Any], Any]) -> list[Route]:
    """Views that do something with the session when the response has begun."""

    async def background(request: Request) -> Response:
        def work() -> None:
            do(request.session)

        return PlainTextResponse("done", background=BackgroundTask(work))

    async def stream(request: Request) -> Response:
        async def pieces() -> Any:
            yield b"one"
            do(request.session)
            yield b"two"

        return StreamingResponse(pieces())

    return [Route("/late/background", background), Route("/late/stream", stream)]


@pytest.mark.parametrize("how", ["background", "stream"])
@pytest.mark.parametrize(
    "do",
    [
        lambda session: session.update(a=1),
        lambda session: session.pop("list"),
        lambda session: session.clear(),
        lambda session: session.login("8"),
        lambda session: session.rotate(),
        lambda session: session.logout(),
    ],
)
def test_too_late(browse, how, do):
    """Whoever changes the session when the response has begun is told that nobody will write it."""
    browser = browse(*late(do))
    browser.get("/append")
    reply = browser.get(f"/late/{how}")
    assert isinstance(reply.raised, OutsideRequest)
    assert "too late" in str(reply.raised)
    assert {"list": [0]} == browser.json("/read")


@pytest.mark.parametrize(
    ("how", "debug", "noticed"), [("stream", False, True), ("background", True, True), ("background", False, False)]
)
def test_too_late_inside(browse, how, debug, noticed, caplog):
    """A change inside of a value, when the response has begun, is noticed at the end: of a stream, or in debug mode."""
    browser = browse(*late(lambda session: session["list"].append(1)), application={"debug": debug})
    browser.get("/append")
    assert (200, None) == ((reply := browser.get(f"/late/{how}")).status, reply.raised)
    assert noticed == ("is lost: it was changed inside of a value" in caplog.text)


@pytest.mark.parametrize("where", ["added", "around"])
@pytest.mark.parametrize("debug", [True, False])
def test_too_late_inside_of_what_is_mounted(where, debug, caplog):
    """Whether such a change is looked for is up to the application that the middleware belongs to, not to one that is mounted in it."""
    inner = Starlette(debug=not debug, routes=[*site(), *late(lambda session: session["list"].append(1))])
    outer = Starlette(debug=debug, routes=[Mount("/inner", inner)])
    runtime = make_runtime(sessions=True, secret=SECRET)
    if where == "added":
        outer.add_middleware(FailsoftMiddleware, runtime=runtime)
    with closing(AsgiApp(outer if where == "added" else FailsoftMiddleware(outer, runtime=runtime), runtime)) as app:
        browser = Browser(app)
        browser.get("/inner/append")
        assert (200, None) == ((reply := browser.get("/inner/late/background")).status, reply.raised)
    assert debug == ("is lost: it was changed inside of a value" in caplog.text)


@pytest.mark.parametrize("how", ["background", "stream"])
def test_reading_late(browse, how, caplog):
    """Reading is never too late."""
    seen: list[Any] = []
    browser = browse(*late(lambda session: seen.append(session["list"])))
    browser.get("/append")
    assert None is browser.get(f"/late/{how}").raised
    assert [[0]] == seen
    assert "is lost" not in caplog.text


def test_after_the_request(browse):
    """A task that outlives its request can read the session, and is told that it is too late to change it."""
    tasks: list[asyncio.Task[Any]] = []
    over = threading.Event()

    async def outlive(session: Any) -> Any:
        while not over.is_set():  # noqa: ASYNC110 - the event is set by another thread
            await asyncio.sleep(0.001)
        with pytest.raises(OutsideRequest, match="too late to set 'b'"):
            session["b"] = 2
        with pytest.raises(OutsideRequest, match="too late to log out"):
            session.logout()
        return session["a"]

    def start(request: Request) -> None:
        tasks.append(asyncio.get_running_loop().create_task(outlive(request.session)))

    async def wait(request: Request) -> Response:
        return JSONResponse(await tasks[0])

    browser = browse(Route("/start", view(start)), Route("/wait", wait))
    browser.get("/write?a=1")
    browser.get("/start")
    over.set()
    assert "1" == browser.json("/wait")


@pytest.mark.parametrize("path", ["/read", "/write?a=2", "/nothing"])
def test_no_garbage(browse, path):
    """A request with a session leaves nothing that only the garbage collector finds."""
    browser = browse()
    browser.get("/write?a=1")
    browser.get(path)

    async def requests(jar: dict[str, str]) -> int:
        await call(browser.app.application, path, dict(jar))
        gc.collect()
        gc.disable()
        try:
            for _ in range(10):
                await call(browser.app.application, path, dict(jar))
            gc.set_debug(gc.DEBUG_SAVEALL)
            gc.collect()
            return sum(type(one).__name__ in ("StarletteSession", "Session", "Exchange") for one in gc.garbage)
        finally:
            gc.set_debug(0)
            gc.garbage.clear()
            gc.enable()

    assert 0 == asyncio.run(requests(browser.jar))


# Beside others


class SessionMiddleware:
    """Stands for Starlette's own, and for those of other packages, which bear the same name."""

    def __init__(self, app: Any) -> None:
        self.app = app

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        await self.app(scope, receive, send)


class Renamed(SessionMiddleware):
    """One that somebody made of it."""


@pytest.mark.parametrize("where", ["inside", "outside"])
@pytest.mark.parametrize("cls", [SessionMiddleware, Renamed])
@pytest.mark.parametrize("sessions", [True, False])
def test_other_session_middleware(open_app, caplog, where, cls, sessions):
    """Whoever leaves another middleware for sessions beside ours is told at the start; with sessions off it is nobody's business."""
    settings = {"sessions": True, "secret": SECRET} if sessions else {}
    open_app(site(), **{where: [Middleware(cls)]}, **settings)
    assert sessions == (f"{cls.__name__} is installed as well as the setting sessions" in caplog.text)


@pytest.mark.parametrize("where", ["inside", "outside"])
def test_starlettes_own_middleware(where):
    """Starlette's own beside ours is an error: the server does not start, and where it runs no lifespan nobody is served."""
    pytest.importorskip("itsdangerous")
    from starlette.middleware.sessions import SessionMiddleware as Stock

    ours = Middleware(FailsoftMiddleware, sessions=True, secret=SECRET, store="memory://")
    theirs = Middleware(Stock, secret_key=SECRET)
    app = Starlette(middleware=[theirs, ours] if where == "outside" else [ours, theirs])
    said = "starlette.middleware.sessions.SessionMiddleware is installed as well as the setting sessions"

    async def asked(kind: str) -> list[Any]:
        sent: list[Any] = []

        async def receive() -> Any:
            return {"type": "lifespan.startup"}

        async def send(message: Any) -> None:
            sent.append(message)

        scope = {"type": kind, "method": "GET", "path": "/", "headers": [], "query_string": b""}
        with pytest.raises(ConfigurationError, match=said):
            await app(scope, receive, send)
        return sent

    known = runtimes()
    try:
        [failed] = asyncio.run(asked("lifespan"))
        assert "lifespan.startup.failed" == failed["type"]
        assert said in failed["message"]
        for _ in range(2):
            assert 500 == asyncio.run(asked("http"))[0]["status"]
    finally:
        for runtime in [one for one in runtimes() if one not in known]:
            runtime.close()


def test_client_over_http(open_app):
    """Starlette's test client, which speaks no TLS, keeps the cookies where the setting allows it."""
    testclient = pytest.importorskip("starlette.testclient")
    app: AsgiApp = open_app(site(), sessions=True, secret=SECRET, cookie_secure=False)
    with testclient.TestClient(app.application) as client:
        client.get("/login?who=7")
        assert "7" == client.get("/me").json()
        assert {"session", "session-seal"} == set(client.cookies)
