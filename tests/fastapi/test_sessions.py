"""Sessions in FastAPI: dependencies, routers, background tasks and sockets see the one session of the request."""

from typing import Annotated, Any

import pytest
from fastapi import APIRouter, BackgroundTasks, Depends, FastAPI, HTTPException, Request, WebSocket
from fastapi.requests import HTTPConnection

from failsoft import OutsideRequest
from failsoft.sessions.live import require_live_session
from failsoft_starlette import SessionBackend, login, logout, principal
from tests.starlette.apps import open_app as open_app  # a fixture
from tests.starlette.browsers import SECRET, Browser

SESSIONS: dict[str, Any] = {"sessions": True, "secret": SECRET, "limits": ["100/minute", "1000/hour", "10000/day"]}
USERS = {"7": "Ada", "8": "Bob"}


def current_user(request: Request) -> str:
    """A plain dependency, in a thread."""
    who = principal(request)
    if who is None or who.subject not in USERS:
        raise HTTPException(401)
    return USERS[who.subject]


async def session_of(connection: HTTPConnection) -> Any:
    """For requests and for sockets."""
    return connection.session


User = Annotated[str, Depends(current_user)]
Session = Annotated[Any, Depends(session_of)]


def endpoints() -> APIRouter:
    """Views as people write them."""
    router = APIRouter()

    @router.post("/login/{number}")
    def log_in(request: Request, number: str) -> None:
        login(request, number, methods=["pwd"])

    @router.post("/logout")
    async def log_out(request: Request) -> None:
        logout(request)

    @router.get("/me")
    async def me(user: User) -> str:
        return user

    @router.get("/live")
    @require_live_session
    async def live(request: Request, user: User) -> str:
        return user

    @router.get("/read")
    def read(session: Session) -> dict[str, Any]:
        return dict(session)

    @router.post("/write/{key}")
    async def write(key: str, session: Session) -> None:
        session[key] = True

    @router.get("/nothing")
    async def nothing() -> None:
        return None

    @router.post("/too-late")
    async def too_late(session: Session, tasks: BackgroundTasks) -> None:
        tasks.add_task(session.update, late=True)

    @router.websocket("/ws")
    async def socket(websocket: WebSocket, session: Session) -> None:
        session["seen"] = True
        await websocket.accept()
        await websocket.send_json(sorted(websocket.session))

    return router


def with_yield(request: Request) -> Any:
    """A dependency that writes before the view."""
    request.session["before"] = True
    yield


def make(**options: Any) -> FastAPI:
    """An application with a router, and the same once more in a mounted one."""
    del options["routes"]
    app = FastAPI(openapi_url=None, **options)
    app.include_router(endpoints())
    app.include_router(endpoints(), prefix="/inside", dependencies=[Depends(with_yield)])
    inner = FastAPI(openapi_url=None)
    inner.include_router(endpoints())
    app.mount("/mounted", inner)
    return app


@pytest.fixture
def browser(open_app):
    """A browser of that application."""
    return Browser(open_app(make=make, **SESSIONS))


def flown(browser: Browser, method: str, path: str) -> list[tuple[str, ...]]:
    browser.app.runtime.store.flights.clear()
    assert 200 == browser.get(path, method=method).status
    return list(browser.app.runtime.store.flights)


@pytest.mark.parametrize("prefix", ["", "/inside", "/mounted"])
def test_flights(browser, prefix):
    """With three limits: untouched and read 1, written 2, for a stranger none of them for the session."""
    load, write = ("ratelimit.acquire", "sessions.load"), ("sessions.write",)
    assert [("ratelimit.acquire",)] == flown(browser, "GET", "/nothing")
    browser.get("/write/a", method="POST")
    assert [load] == flown(browser, "GET", "/nothing")
    assert [load] == flown(browser, "GET", "/read")
    assert [load, write] == flown(browser, "POST", f"{prefix}/write/b")
    assert browser.json("/read").items() >= {"a": True, "b": True}.items()


@pytest.mark.parametrize("prefix", ["", "/inside", "/mounted"])
def test_dependencies(browser, prefix):
    """Whoever logs in is the user of dependencies, until they log out."""
    assert 401 == browser.get(f"{prefix}/me").status
    assert 200 == browser.get(f"{prefix}/login/7", method="POST").status
    assert "Ada" == browser.json(f"{prefix}/me")
    browser.get(f"{prefix}/logout", method="POST")
    assert 401 == browser.get(f"{prefix}/me").status


def test_outage(browser):
    """While the store is away dependencies refuse, and afterwards it is the same user."""
    browser.get("/login/7", method="POST")
    with browser.app.runtime.store.away():
        assert [503, 503, 503] == [browser.get(path).status for path in ("/me", "/read", "/live")]
        assert 503 == browser.get("/write/a", method="POST").status
        assert 200 == browser.get("/nothing").status
    assert ["Ada", "Ada"] == [browser.json("/me"), browser.json("/live")]


def test_background_tasks(browser):
    """A background task that would write to the session is told that it is too late."""
    reply = browser.get("/too-late", method="POST")
    assert (200, OutsideRequest) == (reply.status, type(reply.raised))


def test_sockets(browser):
    """A socket has the session of the browser that opens it, and its cookie goes out with the accept."""
    assert ('["seen"]',) == browser.socket("/ws").texts
    assert {"seen": True} == browser.json("/read")


def test_with_starlettes_authentication(open_app):
    """Starlette's AuthenticationMiddleware works here as well."""
    from starlette.middleware import Middleware
    from starlette.middleware.authentication import AuthenticationMiddleware

    def make_app(**options: Any) -> FastAPI:
        app = make(**options)

        @app.get("/user")
        async def user(request: Request) -> str:
            return str(request.user)

        return app

    backend = SessionBackend(lambda who: USERS.get(who.subject))
    inside = [Middleware(AuthenticationMiddleware, backend=backend)]
    browser = Browser(open_app(make=make_app, inside=inside, **SESSIONS))
    browser.get("/login/8", method="POST")
    assert "Bob" == browser.json("/user")
