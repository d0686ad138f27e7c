"""Sessions in Flask while their store is away: a real server, killed, stopped in its tracks and started again."""

import time
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from flask import Flask, Response, make_response, session
from flask.testing import FlaskClient

from failsoft.sessions.live import require_live_session
from failsoft.testing import FaultyStore, ManualClock
from tests.flask.browsers import LIMITS, SESSION, cookies_of, make_app, make_runtime, steal
from tests.servers import Valkey, poll

pytestmark = pytest.mark.broad

BOUND = 5.0
"""Seconds that a request may take. The deadline of a flight is a tenth of one; this machine may be busy with other things."""


@pytest.fixture
def durable() -> Iterator[Valkey]:
    """A server that remembers, when it is started again."""
    with Valkey("--appendonly", "yes", "--appendfsync", "always") as server:
        yield server


def cut_off(server: Valkey) -> Callable[[], object]:
    """Nobody listens. Returns what brings the server back."""
    server.kill()
    return server.start


def hang(server: Valkey) -> Callable[[], object]:
    """Connections are accepted, and nobody answers."""
    server.pause()
    return server.resume


def set_cookies(response: Any) -> list[str]:
    """The names of the cookies that a response sets or deletes."""
    return [line.partition("=")[0] for line in response.headers.getlist("Set-Cookie")]


def timed(request: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
    """A response, which came in time."""
    start = time.monotonic()
    response = request(*args, **kwargs)
    assert time.monotonic() - start < BOUND
    return response


def healthy(request: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
    """What the store has to say in the end: a machine that stands still for longer than the deadline is an outage too."""

    def whole() -> Any:
        response = request(*args, **kwargs)
        return response if response.status_code == 200 and "Degraded" not in response.headers else None

    return poll(whole)


@pytest.mark.processes
@pytest.mark.parametrize("fault", [cut_off, hang])
@pytest.mark.parametrize("on_outage", ["refuse", "empty"])
@pytest.mark.parametrize("snapshot", [0.0, 300.0])
def test_matrix(durable: Valkey, fault: Any, on_outage: str, snapshot: float) -> None:
    """No internal error, no cookie deleted but by a logout, no write acknowledged; afterwards everything is as it was."""
    settings: dict[str, Any] = {"session_on_outage": on_outage, "session_snapshot": snapshot}
    if snapshot:
        settings["session_snapshot_keys"] = ["cart"]
    app = make_app(make_runtime(durable.url, limits=LIMITS, deadline=0.3, **settings))
    client, leaving = app.test_client(), app.test_client()
    for browser in (client, leaving):
        healthy(browser.post, "/login/7")
        healthy(browser.post, "/set/cart", json={"items": []})
    left, before = steal(leaving), cookies_of(client)

    recover = fault(durable)
    expected: tuple[int, Any, int, Any] = (200, {"items": []}, 200, "7")
    if not snapshot:
        expected = (200, None, 200, None) if on_outage == "empty" else (503, "", 503, "")
    for _ in range(3):
        read, who = timed(client.get, "/get/cart"), timed(client.get, "/who")
        body = [found.json if found.status_code == 200 else "" for found in (read, who)]
        assert expected == (read.status_code, body[0], who.status_code, body[1])
        assert "session;reason=" in read.headers["Degraded"]
        writes = [timed(client.post, "/set/cart", json=1), timed(client.post, "/login/8")]
        assert [503, 503] == [found.status_code for found in writes]
        assert 200 == timed(client.get, "/untouched").status_code
        assert [[], [], [], []] == [set_cookies(found) for found in (read, who, *writes)]
    assert before == cookies_of(client)
    out = timed(leaving.post, "/logout")
    assert (202, [f"{SESSION}-logout"]) == (out.status_code, list(cookies_of(leaving)))

    recover()
    assert ({"items": []}, "7") == (healthy(client.get, "/get/cart").json, healthy(client.get, "/who").json)
    healthy(client.post, "/set/cart", json=2)
    assert 2 == healthy(client.get, "/get/cart").json
    # The logout is made up for by whatever the browser asks next: then a copy of its cookies is worth nothing either.
    healthy(leaving.get, "/untouched")
    assert ({}, None) == (cookies_of(leaving), healthy(left.get, "/who").json)


@pytest.mark.processes
@pytest.mark.parametrize("fault", [cut_off, hang])
def test_lost_between_reading_and_saving(durable: Valkey, fault: Any) -> None:
    """A server that dies while the view is at work: the view's answer is replaced, and nothing of it was stored."""
    app = make_app(make_runtime(durable.url, deadline=0.3))
    recover: list[Callable[[], object]] = []

    @app.post("/buy")
    def buy() -> Response:
        session["cart"] = [*session["cart"], "pen"]
        recover.append(fault(durable))
        response = make_response("bought!")
        response.set_cookie("receipt", "1")
        return response

    client = app.test_client()
    client.post("/set/cart", json=[])
    before = cookies_of(client)
    response = timed(client.post, "/buy")
    assert (503, False, [], before) == (
        response.status_code,
        "bought" in response.text,
        set_cookies(response),
        cookies_of(client),
    )
    recover[0]()
    if fault is cut_off:  # a server that hung may have carried out what nobody waited for any more
        poll(lambda: client.get("/get/cart").json == [])
    else:
        poll(lambda: client.get("/get/cart").json in ([], ["pen"]))


@pytest.mark.processes
def test_logout_between(durable: Valkey) -> None:
    """Neither does a logout fail that the server does not live to see."""
    app = make_app(make_runtime(durable.url, deadline=0.3))

    @app.post("/leave")
    def leave() -> str:
        assert session["cart"] == 1
        durable.kill()
        from failsoft_flask import logout

        logout()
        return "ok"

    client = app.test_client()
    client.post("/login/7")
    client.post("/set/cart", json=1)
    copy = steal(client)
    response = timed(client.post, "/leave")
    assert (202, [f"{SESSION}-logout"]) == (response.status_code, list(cookies_of(client)))
    durable.start()
    poll(lambda: client.get("/untouched").status_code == 200 and not cookies_of(client))
    assert copy.get("/who").json is None


@pytest.mark.processes
def test_restarted_empty(durable: Valkey) -> None:
    """A server that comes back with nothing has no sessions: nobody is logged in, nothing fails, and a new one begins."""
    with Valkey() as forgetful:
        client = make_app(make_runtime(forgetful.url)).test_client()
        client.post("/login/7")
        old = cookies_of(client)[SESSION]
        forgetful.restart()
        poll(lambda: client.get("/who").status_code == 200)
        assert (None, old) == (client.get("/who").json, cookies_of(client)[SESSION])
        assert 200 == client.post("/set/cart", json=1).status_code
        assert (True, 1) == (cookies_of(client)[SESSION] != old, client.get("/get/cart").json)


class TestInProcess:
    """What needs no server."""

    @pytest.fixture
    def clock(self) -> ManualClock:
        """Time, which stands still."""
        return ManualClock()

    @pytest.fixture
    def store(self, clock: ManualClock) -> FaultyStore:
        """A store that is away when it is told so."""
        return FaultyStore(clock=clock)

    @pytest.fixture
    def client(self, store: FaultyStore, clock: ManualClock) -> FlaskClient:
        """A browser that is logged in, with a snapshot."""
        app: Flask = make_app(make_runtime(store, clock=clock, session_snapshot=300.0, session_snapshot_keys=["cart"]))

        @app.get("/live")
        @require_live_session
        def live() -> str:
            return "ok"

        client = app.test_client()
        client.post("/login/7")
        client.post("/set/cart", json={"items": []})
        client.post("/set/secret", json="not in the snapshot")
        return client

    def test_snapshot_ages(self, client: FlaskClient, store: FaultyStore, clock: ManualClock) -> None:
        """A snapshot is good for as long as the setting says; while the store is there it is made anew in time."""
        for _ in range(4):
            clock.advance("200s")
            assert 200 == client.get("/get/cart").status_code
        clock.advance("299s")
        with store.away():
            assert {"items": []} == client.get("/get/cart").json
            clock.advance("2s")
            assert 503 == client.get("/get/cart").status_code
        assert {"items": []} == client.get("/get/cart").json

    def test_snapshot_has_what_was_named(self, client: FlaskClient, store: FaultyStore) -> None:
        """It has the principal and the keys that were named, and no others."""
        with store.away():
            assert {"cart": {"items": []}} == client.get("/all").json
            assert "7" == client.get("/who").json

    def test_changes_inside_a_snapshot(self, client: FlaskClient, store: FaultyStore) -> None:
        """A value of a snapshot that is changed inside is refused, not lost."""
        with store.away():
            assert 503 == client.post("/append/cart", json="pen").status_code
        assert {"items": []} == client.get("/get/cart").json

    def test_live_session(self, client: FlaskClient, store: FaultyStore) -> None:
        """A view that must not be served from a snapshot is not; who has no session is let through."""
        assert 200 == client.get("/live").status_code
        with store.away():
            assert (503, 200) == (
                client.get("/live").status_code,
                client.application.test_client().get("/live").status_code,
            )

    def test_views_may_go_on(self, store: FaultyStore) -> None:
        """A view may catch the error, and answer without the session."""
        from failsoft.errors import SessionUnavailable

        app = make_app(make_runtime(store))

        @app.get("/careful")
        def careful() -> str:
            try:
                return f"cart: {session.get('cart')}"
            except SessionUnavailable:
                return "cart: try later"

        client = app.test_client()
        client.post("/set/cart", json=1)
        with store.away():
            response = client.get("/careful")
        assert (200, "cart: try later", "session;reason=no_connection") == (
            response.status_code,
            response.text,
            response.headers["Degraded"],
        )

    def test_url_converters(self, store: FaultyStore) -> None:
        """A session that is needed before the request is matched is refused, too, without an internal error."""
        from werkzeug.routing import BaseConverter

        class Tenant(BaseConverter):
            def to_python(self, value: str) -> str:
                return f"{session.get('tenant')} {value}"

        app = make_app(make_runtime(store))
        app.url_map.converters["tenant"] = Tenant

        @app.get("/in/<tenant:name>")
        def within(name: str) -> str:
            return name

        client = app.test_client()
        client.post("/set/tenant", json="acme")
        assert "acme x" == client.get("/in/x").text
        with store.away():
            assert 503 == client.get("/in/x").status_code

    def test_logout_in_a_template_with_status_204(self, store: FaultyStore) -> None:
        """A logout that has to wait turns 204 into 202, and leaves redirects and errors as they are."""
        app = make_app(make_runtime(store))

        @app.post("/leave/<int:status>")
        def leave(status: int) -> Any:
            from failsoft_flask import logout

            logout()
            return "", status

        for status, expected in ((200, 202), (204, 202), (302, 302), (400, 400)):
            client = app.test_client()
            client.post("/login/7")
            with store.away():
                assert expected == client.post(f"/leave/{status}").status_code
            assert [f"{SESSION}-logout"] == list(cookies_of(client))
