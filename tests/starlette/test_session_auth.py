"""Who is logged in, in Starlette: the principal, a user of the application's own, and Authlib."""

import warnings
from collections.abc import Callable
from importlib.util import find_spec
from typing import Any
from urllib.parse import parse_qs, urlsplit

import pytest
from starlette.applications import Starlette
from starlette.authentication import AuthCredentials, SimpleUser, requires
from starlette.middleware import Middleware
from starlette.middleware.authentication import AuthenticationMiddleware
from starlette.requests import Request
from starlette.responses import JSONResponse, PlainTextResponse, Response
from starlette.routing import Route, WebSocketRoute
from starlette.websockets import WebSocket

from failsoft import ConfigurationError, limit
from failsoft.testing import AsgiApp
from failsoft_starlette import SessionBackend, login, logout, principal
from tests.starlette.apps import Open
from tests.starlette.browsers import SECRET, Browser, site

pytestmark = pytest.mark.broad

SESSIONS: dict[str, Any] = {"sessions": True, "secret": SECRET}


class Known(SimpleUser):
    """A user as applications have them."""

    @property
    def identity(self) -> str:
        return self.username


USERS = {number: Known(number) for number in ("7", "8")}


async def load(who: Any) -> Any:
    return USERS.get(who.subject)


def load_in_a_thread(who: Any) -> Any:
    return USERS.get(who.subject)


def load_later(who: Any) -> Any:
    return load(who)


class Loader:
    """Callable, and async."""

    async def __call__(self, who: Any) -> Any:
        return USERS.get(who.subject)


async def load_with_scopes(who: Any) -> Any:
    return AuthCredentials(["authenticated", "admin"]), USERS[who.subject]


async def whoami(request: Request) -> Response:
    return JSONResponse([request.user.display_name if request.user.is_authenticated else None, request.auth.scopes])


@requires("authenticated")
async def members(request: Request) -> Response:
    return PlainTextResponse("welcome")


@limit("1/minute", by="user")
async def limited(request: Request) -> Response:
    return PlainTextResponse("ok")


async def socket(websocket: WebSocket) -> None:
    await websocket.accept()
    await websocket.send_text(websocket.user.display_name)


@pytest.fixture
def browse(open_app: Open) -> Callable[..., Browser]:
    """Opens a site whose users come from the session, and gives a browser."""

    def open_one(load_user: Any = load, **options: Any) -> Browser:
        routes = [*site(), Route("/whoami", whoami), Route("/members", members), Route("/limited", limited)]
        inside = [Middleware(AuthenticationMiddleware, backend=SessionBackend(load_user))]
        return Browser(open_app([*routes, WebSocketRoute("/ws", socket)], inside=inside, **SESSIONS, **options))

    return open_one


@pytest.mark.parametrize("load_user", [load, load_in_a_thread, load_later, Loader()])
def test_backend(browse, load_user):
    """Whoever the session says is logged in is the request's user, however the application finds its users."""
    browser = browse(load_user)
    assert [None, []] == browser.json("/whoami")
    assert 403 == browser.get("/members").status
    browser.get("/login?who=7")
    assert ["7", ["authenticated"]] == browser.json("/whoami")
    assert 200 == browser.get("/members").status
    assert ("7",) == browser.socket("/ws").texts
    browser.get("/logout")
    assert [None, []] == browser.json("/whoami")


def test_backend_with_credentials(browse):
    """The application may say what the user may do."""
    browser = browse(load_with_scopes)
    browser.get("/login?who=7")
    assert ["7", ["authenticated", "admin"]] == browser.json("/whoami")


def test_user_that_is_gone(browse):
    """A principal whose user was deleted is nobody."""
    browser = browse()
    browser.get("/login?who=99")
    assert [None, []] == browser.json("/whoami")


def test_backend_while_the_store_is_away(browse):
    """Who has a session is not taken for a stranger while nobody can say who it is; who has none is served."""
    browser = browse()
    browser.get("/login?who=7")
    with browser.app.runtime.store.away():
        assert 503 == browser.get("/whoami").status
        assert [None, []] == Browser(browser.app).json("/whoami")
    assert ["7", ["authenticated"]] == browser.json("/whoami")


def test_limits_of_a_user(browse):
    """A limit by user counts the same, whether the seal or the framework says who it is."""
    browser = browse()
    browser.get("/login?who=7")
    sealed, unsealed = browser.twin(), browser.twin()
    del unsealed.jar["__Host-session-seal"]
    assert [200, 429, 429] == [one.get("/limited").status for one in (sealed, unsealed, sealed)]


@pytest.mark.parametrize("known", [True, False])
def test_settings_by_user_without_the_seal(open_app, known):
    """Without the seal the session says who it is, in flights of its own; a session of nobody, whose seal says so, costs none."""
    app = open_app(site(), limits=["3/minute"], by="user", **SESSIONS)
    browser = Browser(app)
    browser.get("/login?who=7" if known else "/write?a=1")
    if known:
        del browser.jar["__Host-session-seal"]
    app.runtime.store.flights.clear()
    assert 200 == browser.get("/nothing").status
    own = [("sessions.load",), ("sessions.check",), ("ratelimit.acquire",)]
    assert (own if known else [("ratelimit.acquire", "sessions.load")]) == list(app.runtime.store.flights)


def test_settings_by_user_without_the_seal_while_away(open_app):
    """While the store is away nobody knows who it is: the address counts, and a page that needs no session is served."""
    app = open_app(site(), limits=["4/minute"], by="user", **SESSIONS)
    browser = Browser(app)
    browser.get("/login?who=7")
    del browser.jar["__Host-session-seal"]
    with app.runtime.store.away():
        assert [200, 503, 200, 429] == [
            browser.get(path).status for path in ("/nothing", "/me", "/nothing", "/nothing")
        ]
    assert "7" == browser.json("/me")


def test_principal(open_app):
    """The principal says who, when, and how; until then there is none."""

    async def view(request: Request) -> Response:
        before = principal(request)
        login(request, "7", methods=["pwd", "otp"])
        who = principal(request)
        assert who is not None
        return JSONResponse([before, list(who)])

    app = open_app([Route("/", view)], **SESSIONS)
    assert [None, ["7", app.runtime.clock.time(), ["pwd", "otp"]]] == app.get("/").json()


def test_another_user(open_app):
    """Who logs in as another user gets a session of their own; the first one's ends."""
    browser = Browser(open_app(site(), **SESSIONS))
    browser.get("/login?who=7")
    browser.get("/write?secret=1")
    first = browser.twin()
    browser.get("/login?who=8")
    assert ["8", {}] == [browser.json("/me"), browser.json("/read")]
    assert first.json("/me") is None


@pytest.mark.parametrize("scope", [{}, {"session": {}}])
@pytest.mark.parametrize("function", [principal, logout, lambda request: login(request, "7")])
def test_without_sessions(scope, function):
    """Without sessions of ours they say what is missing."""
    with pytest.raises(ConfigurationError, match="Turn the setting sessions on"):
        function(Request({"type": "http", **scope}))


# Authlib


def provider() -> Starlette:
    """A tiny OAuth 2 server, which only gives tokens."""

    async def token(request: Request) -> Response:
        form = parse_qs((await request.body()).decode())
        assert ["the code"] == form["code"]
        assert form["code_verifier"]
        return JSONResponse({"access_token": "the token", "token_type": "Bearer", "expires_in": 60})

    return Starlette(routes=[Route("/token", token, methods=["POST"])])


@pytest.fixture
def with_authlib(open_app: Open) -> AsgiApp:
    """A site where people log in elsewhere."""
    with warnings.catch_warnings():  # it prefers another httpx than the older Starlettes do
        warnings.simplefilter("ignore")
        client = pytest.importorskip("authlib.integrations.starlette_client")
    httpx = pytest.importorskip("httpx2" if find_spec("httpx2") else "httpx")  # as Authlib chooses
    oauth = client.OAuth()
    oauth.register(
        "elsewhere",
        client_id="us",
        client_secret="not told",
        authorize_url="https://elsewhere.example/authorize",
        access_token_url="https://elsewhere.example/token",
        client_kwargs={"code_challenge_method": "S256", "transport": httpx.ASGITransport(provider())},
    )

    async def start(request: Request) -> Response:
        response: Response = await oauth.elsewhere.authorize_redirect(request, "https://testserver/callback")
        return response

    async def callback(request: Request) -> Response:
        try:
            token = await oauth.elsewhere.authorize_access_token(request)
        except client.OAuthError as error:
            return JSONResponse(error.error, 400)
        login(request, token["access_token"], methods=["fed"])
        return JSONResponse(None)

    return open_app([*site(), Route("/start", start), Route("/callback", callback)], **SESSIONS)


def test_authlib(with_authlib):
    """Authlib keeps its state in the session, where no other framework sees it, and takes it out when it was used."""
    browser = Browser(with_authlib)
    browser.get("/write?cart=1")
    redirect = browser.get("/start")
    assert 302 == redirect.status
    state = parse_qs(urlsplit(redirect.header("location")).query)["state"][0]
    assert {"cart", f"_state_elsewhere_{state}"} == set(browser.json("/read"))
    assert f"starlette:_state_elsewhere_{state}" in stored(browser)
    forged = browser.twin().get(f"/callback?code=the+code&state=x{state}")
    assert 400 == forged.status
    assert 200 == browser.get(f"/callback?code=the+code&state={state}").status
    assert [{"cart": "1"}, "the token"] == [browser.json("/read"), browser.json("/me")]


def stored(browser: Browser) -> list[str]:
    """The names in the record."""
    sessions = browser.app.runtime.sessions
    assert sessions is not None
    session = sessions.open(browser.cookies[0][1])
    sessions.load(session)
    return list(session.names())
