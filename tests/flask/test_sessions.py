"""Sessions in Flask: what Flask's users know, at how many flights."""

import logging
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from typing import Any
from uuid import UUID

import msgspec
import pytest
from flask import (
    Flask,
    Response,
    flash,
    get_flashed_messages,
    make_response,
    redirect,
    request,
    session,
    stream_with_context,
)
from flask.sessions import SecureCookieSessionInterface, SessionInterface
from markupsafe import Markup

from failsoft import limit
from failsoft.errors import ConfigurationError, OutsideRequest, SessionUnavailable
from failsoft.testing import FaultyStore, ManualClock
from failsoft_flask import Failsoft, login, principal
from tests.flask.browsers import (
    LIMITS,
    SECRET,
    SESSION,
    CountingStore,
    cookies_of,
    make_app,
    make_runtime,
    plant,
    steal,
    the_session,
)
from tests.servers import Valkey

pytestmark = pytest.mark.broad


@pytest.fixture
def clock() -> ManualClock:
    """Time, which stands still."""
    return ManualClock()


@pytest.fixture
def store(clock: ManualClock) -> FaultyStore:
    """A store in this process."""
    return FaultyStore(clock=clock)


@pytest.fixture
def app(store: FaultyStore, clock: ManualClock) -> Flask:
    """An application with sessions in it."""
    return make_app(make_runtime(store, clock=clock))


def set_cookies(response: Any) -> dict[str, str]:
    """The Set-Cookie fields, by the cookie's name."""
    return {line.partition("=")[0]: line for line in response.headers.getlist("Set-Cookie")}


class TestFlights:
    """What a request costs, on a real server, together with three limits."""

    @pytest.fixture
    def counting(self, redis_url: str) -> CountingStore:
        """The server."""
        self.runtime = make_runtime(redis_url, limits=LIMITS)
        self.runtime.store = store = CountingStore(self.runtime.store)  # type: ignore[assignment]  # it has all that is used
        return store

    def test_anonymous(self, counting: CountingStore) -> None:
        """Who has no session costs one flight, in which nothing is asked about sessions, even if the view looks for one."""
        client = make_app(self.runtime).test_client()
        assert "null\n" == client.get("/get/cart").text
        assert "ok" == client.get("/untouched").text
        assert [("ratelimit.acquire",)] * 2 == counting.taken()

    def test_untouched(self, counting: CountingStore) -> None:
        """A session that the view does not touch is loaded, and renewed, in the one flight."""
        client = make_app(self.runtime).test_client()
        client.post("/set/cart", json=1)
        counting.taken()
        response = client.get("/untouched")
        assert [("ratelimit.acquire", "sessions.load")] == counting.taken()
        assert ("Cookie" in response.vary, {}) == (False, set_cookies(response))

    def test_read(self, counting: CountingStore) -> None:
        """Reading it costs one flight."""
        client = make_app(self.runtime).test_client()
        client.post("/set/cart", json=1)
        counting.taken()
        assert "1\n" == client.get("/get/cart").text
        assert [("ratelimit.acquire", "sessions.load")] == counting.taken()

    def test_write(self, counting: CountingStore) -> None:
        """Writing to it costs two."""
        client = make_app(self.runtime).test_client()
        client.post("/set/cart", json=1)
        counting.taken()
        client.post("/set/cart", json=2)
        assert [("ratelimit.acquire", "sessions.load"), ("sessions.write",)] == counting.taken()

    def test_login(self, counting: CountingStore) -> None:
        """So does logging in; whoever is logged in reads in one."""
        client = make_app(self.runtime).test_client()
        client.post("/set/cart", json=1)
        counting.taken()
        client.post("/login/7")
        assert [("ratelimit.acquire", "sessions.load"), ("sessions.enrol", "sessions.write")] == counting.taken()
        assert '"7"\n' == client.get("/who").text
        assert [("ratelimit.acquire", "sessions.load", "sessions.check")] == counting.taken()

    def test_charges_and_session_are_written_together(self, counting: CountingStore) -> None:
        """What limits charge at the end rides in the session's flight."""
        app = make_app(self.runtime)

        @app.get("/charged")
        @limit("100/minute", name="failures", charge_on=[404])
        def charged() -> str:
            session["seen"] = True
            return "ok"

        assert 200 == app.test_client().get("/charged").status_code
        settlement = counting.taken()[1:]
        assert 1 == len(settlement)
        assert {"sessions.create"} < set(settlement[0])

    def test_without_limits(self, redis_url: str) -> None:
        """Where nothing else needs the store, a session costs a flight at its first use alone."""
        runtime = make_runtime(redis_url)
        runtime.store = store = CountingStore(runtime.store)  # type: ignore[assignment]  # as above
        client = make_app(runtime).test_client()
        client.post("/set/cart", json=1)
        assert [("sessions.create",)] == store.taken()
        client.get("/untouched")
        assert [] == store.taken()
        client.get("/get/cart")
        assert [("sessions.load",)] == store.taken()

    def test_without_sessions(self, redis_url: str) -> None:
        """Where sessions are off, Flask's own remain."""
        app = Flask(__name__)
        Failsoft(app, store=redis_url)
        assert SecureCookieSessionInterface is type(app.session_interface)


class TestMapping:
    """What ``flask.session`` is."""

    def test_round_trip(self, app: Flask) -> None:
        """What is put in comes out, of the same type."""
        values: dict[str, Any] = {
            "text": "ä",
            "tuple": (1, (2,)),
            "bytes": b"\xff",
            "markup": Markup("<b>"),
            "uuid": UUID(int=7),
            "when": datetime(2026, 1, 2, tzinfo=UTC),
            "decimal": Decimal("1.10"),
            "set": {1, 2},
            "nested": {"a": [1, {"b": None}]},
        }

        @app.get("/put")
        def put() -> str:
            session.update(values)
            return "ok"

        seen: dict[str, Any] = {}

        @app.get("/take")
        def take() -> str:
            seen.update(session)
            return "ok"

        client = app.test_client()
        client.get("/put")
        client.get("/take")
        assert values == seen
        assert [type(value) for value in values.values()] == [type(seen[key]) for key in values]

    def test_delete_pop_and_clear(self, app: Flask) -> None:
        """Keys go one by one, or all."""

        @app.get("/pop")
        def pop() -> str:
            session.pop("b")
            session.pop("never", None)
            return "ok"

        @app.get("/clear")
        def clear() -> str:
            session.clear()
            return "ok"

        client = app.test_client()
        for key in "abc":
            client.post(f"/set/{key}", json=key)
        client.post("/delete/a")
        client.get("/pop")
        assert {"c": "c"} == client.get("/all").json
        client.get("/clear")
        assert {} == client.get("/all").json

    def test_clear_keeps_what_others_keep(self, app: Flask, store: FaultyStore) -> None:
        """Clearing the session in Flask removes neither the principal nor the private keys of other frameworks."""

        @app.get("/fill")
        def fill() -> str:
            view = the_session()
            view.session.write("django:_auth_user_hash", "h")
            view.session.write("flask:_flashes", [])
            session["cart"] = 1
            login("7")
            return "ok"

        @app.get("/clear")
        def clear() -> str:
            session.clear()
            return "ok"

        @app.get("/names")
        def names() -> list[str]:
            return [*the_session().session.names()]

        client = app.test_client()
        client.get("/fill")
        client.get("/clear")
        assert ["django:_auth_user_hash"] == client.get("/names").json
        assert "7" == client.get("/who").json

    def test_keys_that_are_no_text(self, app: Flask) -> None:
        """Keys are text; the error says so."""
        with app.test_request_context("/"):
            with pytest.raises(TypeError, match="keys are text"):
                session[1] = 2  # type: ignore[index]  # what the test is about
            assert 1 not in session  # type: ignore[operator]  # as above

    def test_values_that_cannot_be_stored(self, app: Flask) -> None:
        """They are refused where they are assigned."""
        with app.test_request_context("/"), pytest.raises(TypeError, match="key"):
            session["key"] = object()

    def test_new(self, app: Flask) -> None:
        """A session is new until it was stored."""

        @app.get("/new")
        def new() -> list[bool]:
            return [session.new]

        client = app.test_client()
        assert [True] == client.get("/new").json
        client.post("/set/a", json=1)
        assert [False] == client.get("/new").json

    def test_reading_creates_nothing(self, app: Flask) -> None:
        """Who only looks is given no cookie."""
        response = app.test_client().get("/get/a")
        assert ({}, "Cookie") == (set_cookies(response), response.headers["Vary"])

    def test_modified_flag_is_not_needed(self, app: Flask) -> None:
        """A change inside of a value is saved; the flag may be set, and does nothing."""

        @app.get("/flag")
        def flag() -> list[bool]:
            session["cart"]["items"].append("flagged")
            session.modified = True
            return [session.modified]

        client = app.test_client()
        client.post("/set/cart", json={"items": []})
        client.post("/append/cart", json="pen")
        assert {"items": ["pen"]} == client.get("/get/cart").json
        assert [True] == client.get("/flag").json
        assert {"items": ["pen", "flagged"]} == client.get("/get/cart").json

    def test_missing_secret_key(self, store: FaultyStore) -> None:
        """Flask's secret_key is not needed."""
        app = make_app(make_runtime(store))
        app.secret_key = None
        client = app.test_client()
        assert 200 == client.post("/set/a", json=1).status_code
        assert 1 == client.get("/get/a").json

    def test_flashes(self, app: Flask) -> None:
        """A message is shown once, on the next page."""

        @app.get("/flash")
        def flashing() -> Any:
            flash("Hello", "info")
            flash(Markup("<i>there</i>"), "info")
            return redirect("/show")

        @app.get("/show")
        def show() -> list[Any]:
            return get_flashed_messages(with_categories=True)

        client = app.test_client()
        assert [["info", "Hello"], ["info", "<i>there</i>"]] == client.get("/flash", follow_redirects=True).json
        assert [] == client.get("/show").json

    def test_url_converters(self, app: Flask) -> None:
        """The session can be used before the request is matched."""
        from werkzeug.routing import BaseConverter

        class Tenant(BaseConverter):
            def to_python(self, value: str) -> str:
                session["tenant"] = value
                return value

        app.url_map.converters["tenant"] = Tenant

        @app.get("/in/<tenant:name>")
        def within(name: str) -> str:
            return name

        client = app.test_client()
        client.get("/in/acme")
        assert "acme" == client.get("/get/tenant").json


class TestCookies:
    """What browsers are given."""

    def test_of_the_session(self, app: Flask) -> None:
        """Without session.permanent, the cookies go when the browser is closed."""
        cookies = set_cookies(app.test_client().post("/set/a", json=1))
        assert [SESSION, f"{SESSION}-seal"] == list(cookies)
        assert all(
            line.endswith("; Path=/; Secure; HttpOnly; SameSite=Lax") and "Max-Age" not in line
            for line in cookies.values()
        )

    def test_permanent(self, app: Flask) -> None:
        """With it they stay until the session ends."""

        @app.post("/stay/<value>")
        def stay(value: str) -> list[bool]:
            before = session.permanent
            session.permanent = value == "yes"
            session["a"] = 1
            return [before, session.permanent]

        client = app.test_client()
        response = client.post("/stay/yes")
        assert [False, True] == response.json
        assert all(f"; Max-Age={30 * 86400};" in line for line in set_cookies(response).values())
        response = client.post("/stay/no")
        assert [True, False] == response.json
        assert [SESSION, f"{SESSION}-seal"] == list(set_cookies(response))
        assert not any("Max-Age" in line for line in set_cookies(response).values())

    def test_permanent_by_habit(self, app: Flask, store: FaultyStore) -> None:
        """An application that makes every session permanent before each request creates none by it, and writes none again."""

        @app.before_request
        def permanent() -> None:
            session.permanent = True

        client = app.test_client()
        assert {} == set_cookies(client.get("/untouched"))
        assert "; Max-Age=" in set_cookies(client.post("/set/a", json=1))[SESSION]
        store.flights.clear()
        client.get("/get/a")
        assert [("sessions.load",)] == list(store.flights)
        with store.away():
            assert 200 == client.get("/untouched").status_code

    def test_permanent_by_habit_and_over(self, app: Flask) -> None:
        """Nor does a logout there begin another session, unless something is written afterwards."""

        @app.before_request
        def permanent() -> None:
            session.permanent = True

        @app.post("/begin")
        def begin() -> str:
            session.login("7")  # type: ignore[attr-defined]  # of ours
            return ""

        @app.post("/over/<keep>")
        def over(keep: str) -> str:
            session.logout()  # type: ignore[attr-defined]  # of ours
            if keep == "yes":
                session["a"] = 1
            return ""

        client = app.test_client()
        client.post("/begin")
        assert "Max-Age=0" in set_cookies(client.post("/over/no"))[SESSION]
        assert {} == cookies_of(client)
        client.post("/begin")
        assert "; Max-Age=2592000;" in set_cookies(client.post("/over/yes"))[SESSION]
        assert 1 == client.get("/get/a").json

    def test_permanent_alone(self, app: Flask) -> None:
        """To make an existing session permanent, and nothing else, gives its cookie again."""

        @app.post("/stay")
        def stay() -> str:
            session.permanent = True
            return "ok"

        client = app.test_client()
        client.post("/set/a", json=1)
        before = cookies_of(client)[SESSION]
        assert "; Max-Age=" in set_cookies(client.post("/stay"))[SESSION]
        assert before == cookies_of(client)[SESSION]

    def test_lifetime(self, app: Flask, clock: ManualClock) -> None:
        """PERMANENT_SESSION_LIFETIME, where it was set, is how long a permanent session lives unseen."""
        app.permanent_session_lifetime = timedelta(minutes=10)

        @app.post("/stay")
        def stay() -> str:
            session.permanent = True
            session["a"] = 1
            return "ok"

        client, other = app.test_client(), app.test_client()
        client.post("/stay")
        other.post("/set/a", json=1)
        for _ in range(3):
            clock.advance("9m")
            assert 1 == client.get("/get/a").json
        clock.advance("11m")
        assert (None, 1) == (client.get("/get/a").json, other.get("/get/a").json)

    def test_lifetime_by_default(self, app: Flask, clock: ManualClock) -> None:
        """Where it was not, failsoft's settings say so for every session."""
        client = app.test_client()
        client.post("/set/a", json=1)
        clock.advance("13d")
        assert 1 == client.get("/get/a").json
        clock.advance("15d")
        assert client.get("/get/a").json is None

    def test_own_cookies_are_kept(self, app: Flask) -> None:
        """The view's own cookies go out beside the session's."""

        @app.get("/both")
        def both() -> Response:
            session["a"] = 1
            response = make_response("ok")
            response.set_cookie("theme", "dark")
            response.vary.add("Accept")
            return response

        response = app.test_client().get("/both")
        assert ["theme", SESSION, f"{SESSION}-seal"] == list(set_cookies(response))
        assert ["Accept, Cookie"] == response.headers.getlist("Vary")

    @pytest.mark.parametrize(
        ("use", "varies"),
        [
            (lambda: None, False),
            (lambda: session.get("a"), True),
            (lambda: "a" in session, True),
            (lambda: len(session), True),
            (lambda: bool(session), True),
            (lambda: list(session), True),
            (lambda: session.setdefault("a", 1), True),
            (lambda: session.pop("b", None), True),
            (lambda: session.accessed, False),
        ],
    )
    def test_vary(self, app: Flask, use: Callable[[], object], varies: bool) -> None:
        """A response varies with the cookie if, and only if, somebody looked into the session."""

        @app.get("/use")
        def using() -> str:
            use()
            return "ok"

        client = app.test_client()
        client.post("/set/a", json=1)
        assert varies == ("Cookie" in client.get("/use").vary)

    @pytest.mark.parametrize(
        ("config", "setting"),
        [
            ({"SESSION_COOKIE_NAME": "sid"}, "session_cookie"),
            ({"SESSION_COOKIE_DOMAIN": "example.com"}, "cookie_domain"),
            ({"SESSION_COOKIE_PATH": "/app"}, "cookie_path"),
            ({"SESSION_COOKIE_HTTPONLY": False}, "cookie_httponly"),
            ({"SESSION_COOKIE_SAMESITE": "Strict"}, "cookie_samesite"),
            ({"SESSION_COOKIE_PARTITIONED": True}, "cookie_partitioned"),
            ({"PERMANENT_SESSION_LIFETIME": "14d"}, "no duration: write seconds"),
        ],
    )
    def test_disagreement(self, store: FaultyStore, config: dict[str, Any], setting: str) -> None:
        """Flask's own settings of the cookie must not say otherwise; the error names both."""
        with pytest.raises(ConfigurationError, match=f"{next(iter(config))}.*{setting}"):
            make_app(make_runtime(store), **config)

    @pytest.mark.parametrize(
        ("lifetime", "said"),
        [
            (timedelta(days=90), "90d"),
            (90 * 86_400, "90d"),
            (40 * 86_400.0, "40d"),
            (timedelta(days=31), None),
            (timedelta(days=30), None),
            (0, None),
            (None, None),
        ],
    )
    def test_longer_than_any_session(
        self, store: FaultyStore, caplog: pytest.LogCaptureFixture, lifetime: Any, said: str | None
    ) -> None:
        """A PERMANENT_SESSION_LIFETIME that session_absolute cuts is told at start; Flask's own of 31 days is nobody's wish."""
        make_app(make_runtime(store), PERMANENT_SESSION_LIFETIME=lifetime)
        told = [one for one in caplog.messages if "PERMANENT_SESSION_LIFETIME" in one]
        expected = f"in app.config is {said}, and failsoft's session_absolute ends every session after 30d: set that as"
        assert ([] if said is None else [True]) == [expected in one for one in told]

    def test_secure_disagreement(self, store: FaultyStore) -> None:
        """To ask Flask for secure cookies is not enough where failsoft was told otherwise."""
        with pytest.raises(ConfigurationError, match="SESSION_COOKIE_SECURE"):
            make_app(make_runtime(store, cookie_secure=False), SESSION_COOKIE_SECURE=True)

    def test_agreement(self, store: FaultyStore) -> None:
        """They may say the same."""
        agreed = {"SESSION_COOKIE_NAME": SESSION, "SESSION_COOKIE_SECURE": True, "SESSION_COOKIE_SAMESITE": "Lax"}
        assert 200 == make_app(make_runtime(store), **agreed).test_client().post("/set/a", json=1).status_code

    def test_another_interface(self, store: FaultyStore) -> None:
        """Two kinds of sessions in one application are an error at start."""

        class Others(SessionInterface):
            pass

        app = Flask(__name__)
        app.session_interface = Others()
        with pytest.raises(ConfigurationError, match="session_interface of its own \\(Others\\)"):
            Failsoft(app, runtime=make_runtime(store))

    def test_replaced_interface(self, app: Flask, caplog: pytest.LogCaptureFixture) -> None:
        """An extension that puts its own in our place later is named at the first request."""
        app.session_interface = SecureCookieSessionInterface()
        with caplog.at_level(logging.WARNING, "failsoft.flask"):
            assert 200 == app.test_client().post("/set/a", json=1).status_code
        # Beside the audit of whatever other tests have declared.
        assert 1 == sum("SecureCookieSessionInterface replaced" in message for message in caplog.messages)


class TestContexts:
    """Where there is no request."""

    def test_session_transaction(self, app: Flask) -> None:
        """The test client's session_transaction reads and writes the browser's session."""
        client = app.test_client()
        with client.session_transaction() as stored:
            stored["a"] = 1
        assert 1 == client.get("/get/a").json
        client.post("/set/b", json=2)
        with client.session_transaction() as stored:
            assert {"a": 1, "b": 2} == dict(stored)
            del stored["a"]
            stored.permanent = True
        assert {"_permanent": True, "b": 2} == client.get("/all").json

    def test_empty_transaction(self, app: Flask, store: FaultyStore) -> None:
        """One that does nothing leaves nothing."""
        client = app.test_client()
        with client.session_transaction():
            pass
        assert ({}, []) == (cookies_of(client), list(store.flights))

    def test_transaction_in_an_outage(self, app: Flask, store: FaultyStore) -> None:
        """What cannot be stored raises."""
        client = app.test_client()
        with store.away(), pytest.raises(SessionUnavailable), client.session_transaction() as stored:
            stored["a"] = 1

    def test_request_context(self, app: Flask) -> None:
        """In a test request context the session can be used, and is saved where somebody processes a response."""
        with app.test_request_context("/"):
            session["a"] = 1
            assert principal() is None
            response = app.process_response(app.response_class())
        client = plant(app.test_client(), {SESSION: set_cookies(response)[SESSION].partition(";")[0].partition("=")[2]})
        assert 1 == client.get("/get/a").json

    def test_dispatched_by_hand(self, app: Flask) -> None:
        """A request that is dispatched in such a context is served like any other."""
        with app.test_request_context("/set/a", method="POST", json=1):
            response = app.full_dispatch_request()
        assert [SESSION, f"{SESSION}-seal"] == list(set_cookies(response))

    def test_preserved_context(self, app: Flask) -> None:
        """A test can look into the session that a request has left, and cannot change it."""
        with app.test_client() as client:
            client.post("/set/a", json=[1])
            assert [1] == session["a"]
            with pytest.raises(OutsideRequest, match="too late"):
                session["a"] = 2

    def test_helpers_without_sessions(self) -> None:
        """The helpers say what is missing."""
        app = Flask(__name__)
        app.secret_key = "s"
        with app.test_request_context("/"), pytest.raises(ConfigurationError, match="turn the setting sessions on"):
            login("7")


class TestMigration:
    """Sessions that another package left behind."""

    @pytest.mark.parametrize("encode", [msgspec.msgpack.encode, msgspec.json.encode])
    def test_of_flask_session(self, shared_valkey: Valkey, encode: Callable[[Any], bytes]) -> None:
        """Whoever is logged in with Flask-Session still is, with the same cart, and a cookie of ours."""
        left = {"_permanent": True, "_user_id": "7", "_fresh": True, "cart": ["pen"], "csrf_token": "t"}
        shared_valkey.run("SET", "session:an-identifier-of-theirs", encode(left))
        client = make_app(make_runtime(shared_valkey.url, session_import="flask-session")).test_client()
        client.set_cookie("session", "an-identifier-of-theirs")
        assert ["pen"] == client.get("/get/cart").json
        assert 59 == len(cookies_of(client)[SESSION])
        client.delete_cookie("session")
        assert ("7", left) == (client.get("/who").json, client.get("/all").json)


class TestAsync:
    """Views that are coroutines, which Flask runs on a loop of their own."""

    def test_async_views(self, app: Flask) -> None:
        """They read and write the session like any others."""

        @app.get("/count")
        async def count() -> list[int]:
            session["count"] = session.get("count", 0) + 1
            return [session["count"]]

        client = app.test_client()
        assert [[1], [2]] == [client.get("/count").json for _ in range(2)]


class TestSaving:
    """When it is written."""

    def test_after_request(self, app: Flask) -> None:
        """What after_request functions write is saved."""

        @app.after_request
        def count(response: Response) -> Response:
            session["count"] = session.get("count", 0) + 1
            return response

        client = app.test_client()
        client.get("/untouched")
        client.get("/untouched")
        assert 2 == client.get("/get/count").json

    def test_errors(self, app: Flask) -> None:
        """What a request wrote that ended in a page for its error is saved, as Flask does."""

        @app.get("/fail")
        def fail() -> str:
            session["a"] = 1
            raise RuntimeError("mistake")

        app.config["PROPAGATE_EXCEPTIONS"] = False
        client = app.test_client()
        assert 500 == client.get("/fail").status_code
        assert 1 == client.get("/get/a").json

    def test_failing_after_request(self, app: Flask) -> None:
        """So is it where an after_request function fails, and it is written once."""

        @app.after_request
        def fail(response: Response) -> Response:
            if response.status_code == 200 and "a" in session:
                raise RuntimeError("mistake")
            return response

        app.config["PROPAGATE_EXCEPTIONS"] = False
        client = app.test_client()
        assert 500 == client.post("/set/a", json=1).status_code
        app.after_request_funcs.clear()
        assert 1 == client.get("/get/a").json

    def test_no_response(self, app: Flask) -> None:
        """A request that ends without a response writes nothing: an id that nobody was told of would be a logout."""

        @app.get("/fail")
        def fail() -> str:
            session["a"] = 2
            login("7")
            raise RuntimeError("mistake")

        client = app.test_client()
        client.post("/set/a", json=1)
        app.config["PROPAGATE_EXCEPTIONS"] = True
        with pytest.raises(RuntimeError, match="mistake"):
            client.get("/fail")
        assert {"a": 1} == client.get("/all").json
        assert client.get("/who").json is None

    def test_refused_requests(self, app: Flask, store: FaultyStore) -> None:
        """A refused request keeps its session, which its error handler may use."""

        @app.get("/once")
        @limit("1/minute")
        def once() -> str:
            return "ok"

        @app.errorhandler(429)
        def busy(error: Exception) -> tuple[str, int]:
            session["refused"] = True
            return "busy", 429

        client = app.test_client()
        assert [200, 429] == [client.get("/once").status_code for _ in range(2)]
        assert client.get("/get/refused").json is True

    def test_stream(self, app: Flask) -> None:
        """A streamed body reads the session that was saved before it."""

        @app.get("/stream")
        def stream() -> Response:
            session["a"] = 1

            def pieces() -> Iterator[str]:
                yield str(session["a"])
                yield str(session.get("b"))

            return Response(stream_with_context(pieces()))

        client = app.test_client()
        assert "1None" == client.get("/stream").text
        assert 1 == client.get("/get/a").json

    def test_writing_in_a_stream(self, app: Flask) -> None:
        """It cannot be written there: that raises, and the stream breaks off."""

        @app.get("/stream")
        def stream() -> Response:
            def pieces() -> Iterator[str]:
                yield "first"
                session["a"] = 1
                yield "second"

            return Response(stream_with_context(pieces()))

        client = app.test_client()
        with pytest.raises(OutsideRequest, match=r"too late to change the session \(set 'a'\)"):
            client.get("/stream", buffered=True)

    def test_changes_inside_in_a_stream(self, app: Flask, caplog: pytest.LogCaptureFixture) -> None:
        """A change inside of a value cannot raise there; it is logged as lost."""

        @app.get("/stream")
        def stream() -> Response:
            cart = session["cart"]

            def pieces() -> Iterator[str]:
                cart["items"].append("pen")
                yield "done"

            return Response(stream_with_context(pieces()))

        client = app.test_client()
        client.post("/set/cart", json={"items": []})
        with caplog.at_level(logging.ERROR, "failsoft.flask"):
            assert "done" == client.get("/stream", buffered=True).text
        errors = [record.getMessage() for record in caplog.records if record.levelno >= logging.ERROR]
        assert [True] == ["is lost" in message for message in errors]

    @pytest.mark.parametrize("mode", ["", "debug", "testing"])
    def test_changes_inside_in_a_teardown_function(
        self, app: Flask, caplog: pytest.LogCaptureFixture, mode: str
    ) -> None:
        """Where nothing is streamed such changes are looked for in debug mode and in tests only."""
        app.debug, app.testing = mode == "debug", mode == "testing"

        @app.get("/cart")
        def cart() -> str:
            return str(session["cart"])

        @app.teardown_request
        def teardown(error: BaseException | None) -> None:
            if request.endpoint == "cart":
                session["cart"].append("pen")

        client = app.test_client()
        client.post("/set/cart", json=[])
        caplog.clear()
        assert "[]" == client.get("/cart").text
        assert [True] * bool(mode) == ["is lost" in record.getMessage() for record in caplog.records]

    def test_writing_in_a_teardown_function(self, app: Flask) -> None:
        """Neither can it be written when the response is on its way."""

        @app.teardown_request
        def teardown(error: BaseException | None) -> None:
            session["a"] = 1

        with pytest.raises(OutsideRequest, match="too late"):
            app.test_client().get("/untouched")

    def test_replaced_response(self, app: Flask, store: FaultyStore, clock: ManualClock) -> None:
        """The refusal of what could not be saved has the application's header fields, and nothing of the view's answer."""
        closed: list[bool] = []

        @app.get("/written")
        def written() -> Response:
            session["a"] = 1
            response = make_response("saved!")
            response.set_cookie("saved", "yes")
            response.headers["ETag"] = '"saved"'
            response.headers["X-Frame-Options"] = "DENY"
            response.call_on_close(lambda: closed.append(True))
            return response

        with store.failing("sessions.create"):
            response = app.test_client().get("/written")
        assert (503, "DENY", None, {}) == (
            response.status_code,
            response.headers["X-Frame-Options"],
            response.headers.get("ETag"),
            set_cookies(response),
        )
        assert ("application/problem+json", True, "session;reason=failed") == (
            response.mimetype,
            "saved!" not in response.text,
            response.headers["Degraded"],
        )
        assert ("no-store", "1", [True]) == (
            response.headers["Cache-Control"],
            response.headers["Retry-After"],
            closed,
        )

    def test_own_page_for_what_was_not_saved(self, app: Flask, store: FaultyStore) -> None:
        """The application may answer it in its own way, and still nobody takes it for success."""

        @app.errorhandler(SessionUnavailable)
        def page(error: SessionUnavailable) -> tuple[str, int]:
            return f"later: {session.get('a')}", error.status

        with store.failing("sessions.create"):
            response = app.test_client().post("/set/a", json=1)
        assert (503, "later: 1", "1") == (response.status_code, response.text, response.headers["Retry-After"])

    def test_failing_page_for_what_was_not_saved(self, app: Flask, store: FaultyStore, caplog: Any) -> None:
        """A handler that fails, or writes to the session, does not turn the refusal into success or an internal error."""

        @app.errorhandler(SessionUnavailable)
        def page(error: SessionUnavailable) -> str:
            flash("later")
            return "never"

        with store.failing("sessions.create"):
            response = app.test_client().post("/set/a", json=1)
        assert (503, "application/problem+json") == (response.status_code, response.mimetype)
        assert any("handler failed" in message for message in caplog.messages)

    def test_value_that_turned_bad(self, app: Flask, caplog: pytest.LogCaptureFixture) -> None:
        """A value that was changed into one that cannot be stored is an internal error, and nothing is stored."""

        @app.get("/spoil")
        def spoil() -> str:
            session["cart"]["items"].append(object())
            session["b"] = 1
            return "ok"

        client = app.test_client()
        client.post("/set/cart", json={"items": []})
        assert 500 == client.get("/spoil").status_code
        assert {"cart": {"items": []}} == client.get("/all").json
        assert any("cart" in message for message in caplog.messages)

    def test_several_applications(self, store: FaultyStore) -> None:
        """Two applications in one process share the browser's session where they share the store and the secret."""
        one, two = make_app(make_runtime(store)), make_app(make_runtime(store))
        client = one.test_client()
        client.post("/set/a", json=1)
        client.post("/login/7")
        other = plant(two.test_client(), cookies_of(client))
        assert (1, "7") == (other.get("/get/a").json, other.get("/who").json)
        other.post("/logout")
        assert client.get("/who").json is None

    def test_stolen_seal(self, app: Flask) -> None:
        """The companion cookie alone opens nothing."""
        client = app.test_client()
        client.post("/login/7")
        assert steal(client, f"{SESSION}-seal").get("/who").json is None

    def test_secrets_stay_out_of_reprs(self, app: Flask) -> None:
        """Neither the id nor the secret is shown by a session's repr."""

        @app.get("/repr")
        def shown() -> str:
            return repr(the_session())

        client = app.test_client()
        client.post("/set/a", json=1)
        text = client.get("/repr").text
        assert (False, False, True) == (
            cookies_of(client)[SESSION][16:] in text,
            SECRET in text,
            text.startswith("<FlaskSession"),
        )
