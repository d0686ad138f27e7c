"""What other sessions get wrong under Flask, and ours do not: each test says what we do."""

import pickle
import threading
import time
from typing import Any

import pytest
from flask import Flask, redirect, session
from flask.testing import FlaskClient
from werkzeug.test import EnvironBuilder

from failsoft.sessions.ids import SessionId
from failsoft.testing import FaultyStore, ManualClock
from tests.flask.browsers import (
    LIMITS,
    SESSION,
    CountingStore,
    at_once,
    cookies_of,
    make_app,
    make_runtime,
    plant,
    steal,
)
from tests.servers import Valkey


@pytest.fixture
def app(redis_url: str) -> Flask:
    """An application whose sessions are on a real server."""
    return make_app(make_runtime(redis_url, session_grace=10.0))


@pytest.fixture
def client(app: Flask) -> FlaskClient:
    """A browser."""
    return app.test_client()


class Gate:
    """Holds a view up until a test lets it go on."""

    def __init__(self) -> None:
        self.reached, self.released = threading.Event(), threading.Event()

    def wait(self) -> None:
        """In the view."""
        self.reached.set()
        assert self.released.wait(30)

    def during(self, request: Any) -> Any:
        """Send a request in a thread, and return when its view waits; what is returned lets it go on and gives its response."""
        found: list[Any] = []
        thread = threading.Thread(target=lambda: found.append(request()))
        thread.start()
        assert self.reached.wait(30)

        def go_on() -> Any:
            self.released.set()
            thread.join(30)
            return found[0]

        return go_on


@pytest.fixture
def gate(app: Flask) -> Gate:
    """One, in views that read the session, wait, and go on."""
    gate = Gate()

    @app.get("/slow/read")
    def slow_read() -> list[Any]:
        before = session.get("cart")
        gate.wait()
        return [before, session.get("cart")]

    @app.post("/slow/write")
    def slow_write() -> str:
        session.get("cart")
        gate.wait()
        session["late"] = True
        return "ok"

    return gate


class TestLostUpdates:
    """Requests of one browser that overlap, with sessions that are written as a whole, undo each other's changes."""

    def test_concurrent_writes(self, app: Flask, client: FlaskClient) -> None:
        """Two hundred writes of different keys, from eight threads at once: none is lost."""
        client.post("/set/begun", json=True)
        browsers = [steal(client) for _ in range(8)]

        def write(number: int) -> None:
            for count in range(25):
                assert 200 == browsers[number].post(f"/set/key-{number}-{count}", json=count).status_code

        at_once(*(lambda number=number: write(number) for number in range(8)))
        expected = {f"key-{number}-{count}": count for number in range(8) for count in range(25)}
        assert {"begun": True, **expected} == client.get("/all").json

    def test_slow_writer(self, gate: Gate, client: FlaskClient) -> None:
        """A request that began before another one ended changes what it changed, and leaves what that one changed."""
        client.post("/set/cart", json=[])
        go_on = gate.during(lambda: steal(client).post("/slow/write"))
        client.post("/set/cart", json=["pen"])
        client.post("/set/other", json=1)
        assert 200 == go_on().status_code
        assert {"cart": ["pen"], "other": 1, "late": True} == client.get("/all").json

    def test_deletes_do_not_come_back(self, gate: Gate, client: FlaskClient) -> None:
        """What another request deleted meanwhile stays deleted."""
        client.post("/set/cart", json=[])
        go_on = gate.during(lambda: steal(client).post("/slow/write"))
        client.post("/delete/cart")
        assert 200 == go_on().status_code
        assert {"late": True} == client.get("/all").json


class TestResurrection:
    """A slow request that saves what it has read brings back a session that was logged out meanwhile."""

    def test_slow_writer(self, gate: Gate, client: FlaskClient) -> None:
        """Its write is refused; the session stays out, and what the browser has is not deleted by the slow answer."""
        client.post("/login/7")
        copy = steal(client)
        go_on = gate.during(lambda: copy.post("/slow/write"))
        assert 200 == client.post("/logout").status_code
        response = go_on()
        assert (409, []) == (response.status_code, response.headers.getlist("Set-Cookie"))
        assert (None, {}) == (copy.get("/who").json, copy.get("/all").json)

    def test_slow_reader(self, gate: Gate, client: FlaskClient) -> None:
        """It is answered, and nothing of it is stored."""
        client.post("/login/7")
        client.post("/set/cart", json=1)
        copy = steal(client)
        go_on = gate.during(lambda: copy.get("/slow/read"))
        client.post("/logout")
        response = go_on()
        assert ([1, 1], []) == (response.json, response.headers.getlist("Set-Cookie"))
        assert copy.get("/who").json is None

    def test_after_the_logout(self, client: FlaskClient) -> None:
        """A write after a logout in the same browser begins a new, anonymous session under another id."""
        client.post("/login/7")
        handle = cookies_of(client)[SESSION][:16]
        client.post("/logout")
        client.post("/set/cart", json=1)
        assert (1, None, True) == (
            client.get("/get/cart").json,
            client.get("/who").json,
            handle != cookies_of(client)[SESSION][:16],
        )


class TestFixation:
    """Whoever gives a victim a cookie of their own choice is logged in as the victim after the victim's login."""

    def test_planted_ids(self, client: FlaskClient) -> None:
        """An id that nobody was given is never adopted, whatever its form."""
        for planted in ("attacker", "a" * 59, str(SessionId.new(lambda size: b"x" * size)), "../../x", ""):
            victim = plant(client.application.test_client(), {SESSION: planted})
            assert 200 == victim.post("/set/cart", json=1).status_code
            assert planted != cookies_of(victim)[SESSION]
            attacker = plant(client.application.test_client(), {SESSION: planted})
            assert attacker.get("/get/cart").json is None

    def test_login_regenerates(self, client: FlaskClient) -> None:
        """An anonymous session's id is replaced by the login, and the old one is dead for whoever knows it."""
        client.post("/set/cart", json=1)
        attacker = steal(client)
        client.post("/login/7")
        assert (None, None, "7") == (
            attacker.get("/who").json,
            attacker.get("/get/cart").json,
            client.get("/who").json,
        )
        assert 409 == attacker.post("/set/cart", json="planted").status_code
        assert 1 == client.get("/get/cart").json

    def test_rotation_under_way(self) -> None:
        """Rotating deletes nothing before there is something new: requests under way find the session by its old id for a grace."""
        clock = ManualClock()
        app = make_app(make_runtime(FaultyStore(clock=clock), clock=clock))

        @app.post("/rotate")
        def rotate() -> str:
            session.rotate()  # type: ignore[attr-defined]  # a FlaskSession
            return "ok"

        client = app.test_client()
        client.post("/set/cart", json=1)
        other_tab = steal(client)
        client.post("/rotate")
        assert cookies_of(client)[SESSION] != cookies_of(other_tab)[SESSION]
        assert 1 == other_tab.get("/get/cart").json
        assert 200 == other_tab.post("/set/tab", json=2).status_code
        assert 2 == client.get("/get/tab").json
        clock.advance("11s")
        assert (None, 1) == (other_tab.get("/get/cart").json, client.get("/get/cart").json)


class TestTraffic:
    """Sessions that are written, and cookies that are sent, with every response."""

    def test_reading_writes_nothing(self, redis_url: str) -> None:
        """Reading renews the session in the flight that loads it; no cookie is sent, and nothing is written."""
        runtime = make_runtime(redis_url, limits=LIMITS)
        runtime.store = store = CountingStore(runtime.store)  # type: ignore[assignment]  # it has all that is used
        client = make_app(runtime).test_client()
        client.post("/set/cart", json=1)
        store.taken()
        responses = [client.get(path) for path in ("/get/cart", "/untouched", "/all")]
        assert [[], [], []] == [response.headers.getlist("Set-Cookie") for response in responses]
        assert [("ratelimit.acquire", "sessions.load")] * 3 == store.taken()

    def test_only_what_changed_is_sent(self, redis_url: str) -> None:
        """A write sends the key that changed, not the session."""
        runtime = make_runtime(redis_url)
        client = make_app(runtime).test_client()
        client.post("/set/large", json="x" * 20_000)
        sent: list[Any] = []

        class Noting(CountingStore):
            def flight(self, operations: Any) -> Any:
                sent.extend(operation.arguments for operation in operations)
                return super().flight(operations)

        runtime.store = Noting(runtime.store)  # type: ignore[assignment]  # as above
        client.post("/set/small", json=1)
        assert (True, False) == ("small" in repr(sent), "xxxxx" in repr(sent))

    def test_robots_make_no_sessions(self, redis_url: str) -> None:
        """Who brings no cookie and is given nothing leaves no record."""
        runtime = make_runtime(redis_url)
        runtime.store = store = CountingStore(runtime.store)  # type: ignore[assignment]  # as above
        app = make_app(runtime)
        for _ in range(5):
            assert "{}\n" == app.test_client().get("/all").text
        assert [] == store.taken()


class TestNestedChanges:
    """A change inside of a value goes unnoticed where only assignments are."""

    def test_is_saved(self, client: FlaskClient) -> None:
        """It is found when the session is saved."""
        client.post("/set/cart", json={"items": []})
        client.post("/append/cart", json="pen")
        client.post("/append/cart", json={"deep": [1]})
        assert {"items": ["pen", {"deep": [1]}]} == client.get("/get/cart").json


class TestRedirects:
    """A redirect that overtakes the session's saving: the next page, or the way back from a login elsewhere, finds nothing."""

    def test_saved_before_the_first_byte(self, app: Flask) -> None:
        """When the status line is out, the session is in the store, also for a stream that goes on for long."""

        @app.get("/leave")
        def leave() -> Any:
            session["_state_provider_1"] = {"nonce": "n"}
            return redirect("https://login.example/")

        @app.get("/long")
        def long() -> Any:
            session["begun"] = True
            return (str(number) for number in range(3))

        @app.get("/back")
        def back() -> Any:
            return session.pop("_state_provider_1")

        client = app.test_client()
        started: list[str] = []

        def on_start(status: str, headers: list[tuple[str, str]], *_: Any) -> Any:
            cookies = dict(value.partition(";")[0].split("=", 1) for name, value in headers if name == "Set-Cookie")
            other = plant(app.test_client(), cookies)
            started.append(other.get("/all").text)
            return lambda data: None

        for path in ("/leave", "/long"):
            list(app.wsgi_app(EnvironBuilder(path).get_environ(), on_start))
        assert ['{"_state_provider_1":{"nonce":"n"}}\n', '{"begun":true}\n'] == started
        client.get("/leave")
        assert {"nonce": "n"} == client.get("/back").json


class TestRecords:
    """What lies in the store, and what it can do to whoever reads it."""

    def test_pickles_are_not_read(self, client: FlaskClient, shared_valkey: Valkey) -> None:
        """Something else in a record is not executed: its key counts as not there, and the others can be read."""
        client.post("/set/good", json=1)
        client.post("/set/bad", json=1)
        handle = cookies_of(client)[SESSION][:16]
        [key] = shared_valkey.run("KEYS", f"*sess*{handle}*")
        shared_valkey.run("HSET", key, "bad", pickle.dumps(Trap()))
        assert (1, None) == (client.get("/get/good").json, client.get("/get/bad").json)
        assert [] == Trap.sprung

    def test_a_dump_is_no_login(self, client: FlaskClient, shared_valkey: Valkey) -> None:
        """Nothing that the store holds opens a session."""
        client.post("/login/7")
        cookie = cookies_of(client)[SESSION]
        [key] = shared_valkey.run("KEYS", f"*sess*{cookie[:16]}*")
        found = repr((key, shared_valkey.run("HGETALL", key)))
        assert (False, True) == (cookie[16:] in found, cookie[:16] in found)

    def test_every_key_expires(self, client: FlaskClient, shared_valkey: Valkey) -> None:
        """No record, and no list of a subject's sessions, is kept for ever."""
        shared_valkey.run("FLUSHALL")  # other tests leave damaged records
        client.post("/login/expiring")
        client.post("/set/cart", json=1)
        keys = shared_valkey.run("KEYS", "failsoft:1:s*")
        assert 0 < len(keys)
        assert [True] * len(keys) == [0 < shared_valkey.run("PTTL", key) for key in keys]

    def test_damaged_records(self, client: FlaskClient, shared_valkey: Valkey) -> None:
        """A record that is something else altogether makes the session unavailable, and no internal error."""
        client.post("/set/cart", json=1)
        [key] = shared_valkey.run("KEYS", f"*sess*{cookies_of(client)[SESSION][:16]}*")
        shared_valkey.run("SET", key, "text")
        assert [503, 503, 200] == [
            client.get("/get/cart").status_code,
            client.post("/set/cart", json=2).status_code,
            client.get("/untouched").status_code,
        ]


class Trap:
    """Whoever unpickles it calls `spring`."""

    sprung: list[bool] = []  # noqa: RUF012 - one for all

    @staticmethod
    def spring() -> None:
        """What must not happen."""
        Trap.sprung.append(True)

    def __reduce__(self) -> Any:
        return (Trap.spring, ())


class TestManagement:
    """A user's other sessions that cannot be listed or ended."""

    def test_list_and_revoke(self, app: Flask) -> None:
        """They are listed by device, and ended one by one or all; the browser that asks may stay."""
        runtime = app.extensions["failsoft"]
        subject = f"user-{time.time_ns()}"
        browsers = [app.test_client() for _ in range(3)]
        for number, browser in enumerate(browsers):
            browser.post(f"/login/{subject}", headers={"User-Agent": f"Browser {number}"})
        subjects = runtime.sessions.subjects
        found = subjects.list(subject)
        assert ["Browser 0", "Browser 1", "Browser 2"] == sorted(one.device for one in found)
        first = next(one for one in found if one.device == "Browser 0")
        assert subjects.revoke(subject, first.handle) is True
        assert [None, subject, subject] == [browser.get("/who").json for browser in browsers]
        subjects.revoke_all(subject)
        assert [None, None, None] == [browser.get("/who").json for browser in browsers]


class TestOutages:
    """A store that is away answered with an internal error, or with a silent logout."""

    @pytest.mark.parametrize("path", ["/get/cart", "/who", "/untouched", "/all"])
    def test_nobody_is_logged_out(self, path: str) -> None:
        """No cookie is touched, so that the user is the same when the store is back; see the tests of outages."""
        store = FaultyStore()
        client = make_app(make_runtime(store, session_on_outage="empty")).test_client()
        client.post("/login/7")
        before = cookies_of(client)
        with store.away():
            response = client.get(path)
        assert (200, [], before) == (
            response.status_code,
            response.headers.getlist("Set-Cookie"),
            cookies_of(client),
        )
        assert "7" == client.get("/who").json

    def test_stores_out_of_memory(self) -> None:
        """A server that has no room for more answers reads, and refuses writes."""
        store = FaultyStore()
        client = make_app(make_runtime(store)).test_client()
        client.post("/set/cart", json=1)
        with store.failing("sessions.write"):
            assert (503, 200) == (client.post("/set/cart", json=2).status_code, client.get("/get/cart").status_code)
        assert 1 == client.get("/get/cart").json
