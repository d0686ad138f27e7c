"""Sessions over WebSockets: read when the socket is opened, written when it is accepted, and by hand after that."""

from collections.abc import Callable
from contextlib import ExitStack
from typing import Any

import pytest
from starlette.requests import Request
from starlette.responses import PlainTextResponse
from starlette.routing import Route, WebSocketRoute
from starlette.websockets import WebSocket, WebSocketDisconnect

from failsoft import OutsideRequest, limit
from failsoft.errors import SessionConflict, SessionUnavailable
from failsoft.testing.harness import Conversation
from failsoft_starlette import login, logout, principal
from tests.starlette.apps import Open
from tests.starlette.browsers import NAME, SECRET, Browser, site

pytestmark = pytest.mark.broad

Do = Callable[[WebSocket], Any]


@pytest.fixture
def browse(open_app: Open) -> Callable[..., Browser]:
    """Opens a site with a socket at /ws, and gives a browser.

    The socket does `before`, accepts, sends what that gave, does `after`, and sends what that gave.
    """

    def open_one(
        before: Do = lambda socket: None, after: Do | None = None, *, waits: bool = True, **options: Any
    ) -> Browser:
        async def socket(websocket: WebSocket) -> None:
            said = before(websocket)
            await websocket.accept()
            await websocket.send_json(said)
            if after is not None:
                await websocket.send_json(await after(websocket))
            if waits:
                await websocket.receive_text()

        routes = [*site(), WebSocketRoute("/ws", socket)]
        return Browser(open_app(routes, **{"sessions": True, "secret": SECRET, **options}))

    return open_one


def texts(conversation: Conversation) -> tuple[str, ...]:
    """What the socket sent, of one that ended as they do: because the client left."""
    assert isinstance(conversation.raised, WebSocketDisconnect), conversation
    return conversation.texts


def flights(browser: Browser) -> list[tuple[str, ...]]:
    return list(browser.app.runtime.store.flights)  # type: ignore[attr-defined]  # a FaultyStore


def test_read(browse):
    """A socket knows the session of the browser that opens it, in the one flight that opening it costs."""
    browser = browse(lambda socket: [dict(socket.session), principal(socket).subject], limits=["10/minute"])
    browser.get("/login?who=7")
    browser.get("/write?a=1")
    browser.app.runtime.store.flights.clear()
    assert ('[{"a":"1"},"7"]',) == texts(browser.socket("/ws"))
    assert [("ratelimit.acquire", "sessions.load", "sessions.check")] == flights(browser)


def test_read_without_a_seal(browse):
    """Without the seal it takes a second flight to know who it is; the endpoint need not wait for it."""
    browser = browse(lambda socket: principal(socket).subject)
    browser.get("/login?who=7")
    del browser.jar[f"{NAME}-seal"]
    browser.app.runtime.store.flights.clear()
    assert ('"7"',) == texts(browser.socket("/ws"))
    assert [("sessions.load",), ("sessions.check",)] == flights(browser)


def test_begun_at_the_accept(browse):
    """What is set before the accept is written with it, and the cookie goes out with it."""
    browser = browse(lambda socket: socket.session.update(a=1))
    conversation = browser.socket("/ws")
    assert 2 == len(conversation.lines("set-cookie"))
    assert [("sessions.create",)] == flights(browser)
    assert {"a": 1} == browser.json("/read")


def test_login_at_the_accept(browse):
    """A login before the accept rotates the id, and the browser gets the new one."""
    browser = browse(lambda socket: login(socket, "7"))
    browser.get("/write?a=1")
    before = browser.jar[NAME]
    browser.socket("/ws")
    assert (False, "7") == (before == browser.jar[NAME], browser.json("/me"))


def test_saved_by_hand(browse):
    """What is changed after the accept is written by hand."""

    async def after(socket: WebSocket) -> Any:
        session: Any = socket.session
        session["b"] = 2
        session["list"].append(1)
        await session.save()
        return len(socket.app.state.store.flights)

    browser = browse(after=after)
    browser.app.application.state.store = browser.app.runtime.store
    browser.get("/append")
    browser.app.runtime.store.flights.clear()
    assert ("null", "2") == texts(browser.socket("/ws"))
    assert [("sessions.load",), ("sessions.write",)] == flights(browser)
    assert {"list": [0, 1], "b": 2} == browser.json("/read")


@pytest.mark.parametrize("waits", [False, True])
@pytest.mark.parametrize("nested", [False, True])
def test_saved_at_the_end(browse, nested, waits):
    """What nobody saved by hand is written when the socket's endpoint ends, however it ends."""

    async def after(socket: WebSocket) -> None:
        if nested:
            socket.session["list"].append(1)
        else:
            socket.session["list"] = [0, 1]

    browser = browse(after=after, waits=waits)
    browser.get("/append")
    assert waits == isinstance(browser.socket("/ws").raised, WebSocketDisconnect)
    assert {"list": [0, 1]} == browser.json("/read")


def test_lost_at_the_end(browse, caplog):
    """What cannot be written at the end is logged."""
    outage = ExitStack()

    async def after(socket: WebSocket) -> None:
        socket.session["b"] = 2
        outage.enter_context(socket.app.state.store.away())

    browser = browse(after=after)
    browser.app.application.state.store = browser.app.runtime.store
    browser.get("/append")
    texts(browser.socket("/ws"))
    outage.close()
    assert "is lost: 503" in caplog.text
    assert {"list": [0]} == browser.json("/read")


@pytest.mark.parametrize(
    "do", [lambda socket: login(socket, "7"), lambda socket: socket.session.rotate()], ids=["login", "rotate"]
)
def test_too_late(browse, do):
    """What needs a cookie cannot be done once the socket is open."""

    async def after(socket: WebSocket) -> str:
        with pytest.raises(OutsideRequest) as raised:
            do(socket)
        return str(raised.value)

    browser = browse(after=after)
    browser.get("/write?a=1")
    assert "too late" in texts(browser.socket("/ws"))[1]
    assert {"a": "1"} == browser.json("/read")


def test_too_late_to_begin(browse):
    """Nor can a session begin then, for no browser would know of it."""

    async def after(socket: WebSocket) -> str:
        with pytest.raises(OutsideRequest) as raised:
            socket.session["a"] = 1
        return str(raised.value)

    browser = browse(after=after)
    assert "too late to set 'a' in the session" in texts(browser.socket("/ws"))[1]
    assert [] == flights(browser)


def test_logout(browse):
    """A logout over an open socket ends the session; the browser's cookie is dead."""

    async def after(socket: WebSocket) -> None:
        logout(socket)
        await socket.session.save()  # type: ignore[attr-defined]  # Starlette calls it a dict

    browser = browse(after=after)
    browser.get("/login?who=7")
    texts(browser.socket("/ws"))
    assert browser.json("/me") is None


def test_conflict(browse):
    """A session that ended elsewhere takes nothing from a socket that is still open."""

    async def after(socket: WebSocket) -> str:
        sessions = socket.app.state.runtime.sessions
        other = sessions.open(socket.headers["cookie"])
        await sessions.aload(other)
        other.logout()
        await sessions.asave(other)
        socket.session["b"] = 2
        with pytest.raises(SessionConflict):
            await socket.session.save()  # type: ignore[attr-defined]  # Starlette calls it a dict
        return "told"

    browser = browse(after=after)
    browser.app.application.state.runtime = browser.app.runtime
    browser.get("/write?a=1")
    assert '"told"' == texts(browser.socket("/ws"))[1]
    assert {} == browser.json("/read")


@pytest.mark.parametrize(("denial", "expected"), [(True, 503), (False, 403)])
def test_away_when_it_opens(browse, denial, expected):
    """A socket whose endpoint needs the session is refused while the store is away."""
    browser = browse(lambda socket: dict(socket.session))
    browser.get("/write?a=1")
    before = dict(browser.jar)
    with browser.app.runtime.store.away():
        conversation = browser.socket("/ws", denial=denial)
    assert (expected, None, ()) == (conversation.status, conversation.raised, conversation.texts)
    assert before == browser.jar
    assert ('{"a":"1"}',) == texts(browser.socket("/ws"))


@pytest.mark.parametrize(("denial", "expected"), [(True, 503), (False, 403)])
def test_away_when_it_accepts(browse, denial, expected):
    """A socket that was to be accepted with a change that the store did not take is refused instead."""
    with ExitStack() as outage:

        def before(socket: WebSocket) -> None:
            socket.session["b"] = 2
            outage.enter_context(socket.app.state.store.away())

        browser = browse(before)
        browser.app.application.state.store = browser.app.runtime.store
        browser.get("/write?a=1")
        browser.app.runtime.store.flights.clear()
        conversation = browser.socket("/ws", denial=denial)
        assert [("sessions.load",), ("sessions.write",)] == flights(browser)
    assert (expected, None, ()) == (conversation.status, conversation.raised, conversation.texts)
    if denial:
        assert b"was not written" in conversation.body
        assert "session;reason=no_connection" == conversation.header("degraded")
    assert {"a": "1"} == browser.json("/read")


@pytest.mark.parametrize("denial", [True, False])
def test_an_endpoint_that_goes_on(open_app, denial):
    """An endpoint that hides the refusal is told that the client has left, and sends to nobody."""
    heard: list[str] = []

    async def stubborn(websocket: WebSocket) -> None:
        websocket.session["b"] = 2
        outage.enter_context(websocket.app.state.store.away())
        with pytest.raises(OSError, match="was not written"):
            await websocket.accept()
        heard.append((await websocket.receive())["type"])
        with pytest.raises(WebSocketDisconnect):
            await websocket.send_text("it is written")

    with ExitStack() as outage:
        app = open_app([*site(), WebSocketRoute("/ws", stubborn)], sessions=True, secret=SECRET)
        app.application.state.store = app.runtime.store
        browser = Browser(app)
        browser.get("/write?a=1")
        conversation = browser.socket("/ws", denial=denial)
    assert (None, ()) == (conversation.raised, conversation.texts)
    assert ["websocket.disconnect"] == heard


@pytest.mark.parametrize("denial", [True, False])
def test_refused_by_the_endpoint(browse, denial):
    """An endpoint that wrote to the session and is refused after that is refused once, with its own reason."""
    with ExitStack() as outage:

        def before(socket: WebSocket) -> None:
            socket.session["b"] = 2
            outage.enter_context(socket.app.state.store.away())
            socket.session["c"] = 3
            raise SessionUnavailable(raised.value.problem, retry_after=7)

        browser = browse(before)
        browser.app.application.state.store = browser.app.runtime.store
        browser.get("/write?a=1")
        with browser.app.runtime.store.away():
            session = browser.app.runtime.sessions.open(browser.cookies[0][1])
            browser.app.runtime.sessions.load(session)
            with pytest.raises(SessionUnavailable) as raised:
                session.read("a")
        conversation = browser.socket("/ws", denial=denial)
    assert (503 if denial else 403, None) == (conversation.status, conversation.raised)
    assert ("7" if denial else None) == conversation.header("retry-after")


def test_away_by_hand(browse):
    """Saving by hand tells the endpoint what became of it, and the change is kept for another try."""

    async def after(socket: WebSocket) -> str:
        session: Any = socket.session
        session["b"] = 2
        with socket.app.state.store.away(), pytest.raises(SessionUnavailable):
            await session.save()
        await session.save()
        return "saved"

    browser = browse(after=after)
    browser.app.application.state.store = browser.app.runtime.store
    browser.get("/write?a=1")
    assert '"saved"' == texts(browser.socket("/ws"))[1]
    assert {"a": "1", "b": 2} == browser.json("/read")


def test_messages_by_user(open_app):
    """Messages that are limited by user count for whoever the session says is logged in."""

    @limit("1/minute", by="user", messages=True)
    async def echo(websocket: WebSocket) -> None:
        await websocket.accept()
        async for text in websocket.iter_text():
            await websocket.send_text(text)

    app = open_app([*site(), WebSocketRoute("/ws", echo)], sessions=True, secret=SECRET)
    one, other = Browser(app), Browser(app)
    one.get("/login?who=7")
    other.get("/login?who=8")
    assert [("a",), ("a",), ()] == [browser.socket("/ws", "a").texts for browser in (one, other, one.twin())]


def test_limits_by_user(open_app):
    """A limit by user, behind no authentication of Starlette's, counts for whoever the session says is logged in."""

    @limit("1/minute", by="user")
    async def limited(request: Request) -> PlainTextResponse:
        return PlainTextResponse("ok")

    app = open_app([*site(), Route("/limited", limited)], sessions=True, secret=SECRET)
    one, other = Browser(app), Browser(app)
    one.get("/login?who=7")
    other.get("/login?who=8")
    del other.jar[f"{NAME}-seal"]  # so that only the record says who it is
    assert [200, 200, 429, 429] == [browser.get("/limited").status for browser in (one, other, one, other)]


def test_settings_by_user(open_app):
    """Nor does leaving out the seal make a stranger of a user where the settings limit by user: a socket counts as any request."""
    app = open_app(
        [*site(), WebSocketRoute("/ws", opened)], sessions=True, secret=SECRET, limits=["2/minute"], by="user"
    )
    browser = Browser(app)
    browser.get("/login?who=7")
    bare = Browser(app, {NAME: browser.jar[NAME]})
    assert [101, 101, 429] == [one.socket("/ws").status for one in (bare, browser, bare)]


async def opened(websocket: WebSocket) -> None:
    await websocket.accept()
    await websocket.close()


@pytest.mark.parametrize("back", [True, False])
def test_logout_while_away(browse, caplog, back):
    """A logout over an open socket that the store does not take is told, since no response can make up for it; it may be tried again."""
    outage = ExitStack()

    async def after(socket: WebSocket) -> list[Any]:
        session: Any = socket.session
        logout(socket)
        outage.enter_context(socket.app.state.store.away())
        for _ in range(2):
            with pytest.raises(SessionUnavailable):
                await session.save()
        if back:
            outage.close()
            await session.save()
        return [dict(session), principal(socket)]

    browser = browse(after=after)
    browser.app.application.state.store = browser.app.runtime.store
    browser.get("/login?who=7")
    assert "[{},null]" == texts(browser.socket("/ws"))[1]
    outage.close()
    assert (None if back else "7") == browser.json("/me")
    assert back != ("is lost: 503" in caplog.text)


@pytest.mark.parametrize(
    ("do", "writes"),
    [
        (lambda socket: login(socket, "8"), False),
        (lambda socket: socket.session.rotate(), False),
        (lambda socket: socket.session.update(a="2"), True),
    ],
    ids=["login", "rotate", "write"],
)
@pytest.mark.parametrize("known", [True, False])
def test_closed_before_the_accept(open_app, do, writes, known):
    """A socket that is closed instead of accepted writes nothing that needs a cookie: the browser's session goes on."""

    async def closes(websocket: WebSocket) -> None:
        do(websocket)
        await websocket.close()

    browser = Browser(open_app([*site(), WebSocketRoute("/ws", closes)], sessions=True, secret=SECRET))
    if known:
        browser.get("/login?who=8")
        browser.get("/write?a=1")
    before = dict(browser.jar)
    written = {"sessions.write"} if writes and known else set()
    browser.app.runtime.store.flights.clear()
    assert 403 == browser.socket("/ws", denial=False).status
    assert {"sessions.load", "sessions.check"} >= {name for flight in flights(browser) for name in flight} - written
    browser.app.runtime.clock.advance(11)
    assert before == browser.jar
    assert ("8" if known else None) == browser.json("/me")
    assert ({"a": "2" if writes else "1"} if known else {}) == browser.json("/read")


def test_changed_after_a_close(open_app):
    """Also what is changed inside of a value, after a close in the accept's place, is written when the endpoint returns."""

    async def closes(websocket: WebSocket) -> None:
        values = websocket.session["list"]
        await websocket.close()
        values.append(1)

    browser = Browser(open_app([*site(), WebSocketRoute("/ws", closes)], sessions=True, secret=SECRET))
    browser.get("/append")
    assert 403 == browser.socket("/ws", denial=False).status
    assert {"list": [0, 1]} == browser.json("/read")


@pytest.mark.parametrize("away", [True, False])
def test_logged_out_before_a_close(open_app, caplog, away):
    """A logout needs no cookie, so it counts although the socket is closed instead of accepted; if it cannot, it is logged."""

    async def closes(websocket: WebSocket) -> None:
        logout(websocket)
        if away:
            outage.enter_context(websocket.app.state.store.away())
        await websocket.close()

    with ExitStack() as outage:
        browser = Browser(open_app([*site(), WebSocketRoute("/ws", closes)], sessions=True, secret=SECRET))
        browser.app.application.state.store = browser.app.runtime.store
        browser.get("/login?who=8")
        assert 403 == browser.socket("/ws", denial=False).status
    assert ("8" if away else None) == browser.json("/me")
    assert away == ("a logout is lost" in caplog.text)
