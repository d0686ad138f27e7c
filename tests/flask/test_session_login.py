"""Who is logged in: the helpers, Flask-Login and Flask-WTF on sessions in the store."""

import gc
from contextlib import ExitStack
from typing import Any

import pytest
from flask import Flask, Response, flash, get_flashed_messages, jsonify, session
from flask.testing import FlaskClient
from flask_login import (
    FlaskLoginClient,
    LoginManager,
    confirm_login,
    current_user,
    fresh_login_required,
    login_fresh,
    login_remembered,
    login_required,
    login_user,
    logout_user,
)

from failsoft import limit
from failsoft.testing import FaultyStore, ManualClock
from failsoft_flask import login, logout, principal
from tests.flask.browsers import SECRET, SESSION, User, cookies_of, make_app, make_runtime, plant, steal, the_session

pytestmark = [pytest.mark.broad, pytest.mark.filterwarnings("ignore:.*utcnow:DeprecationWarning:flask_login")]


REMEMBER = ("remember_token", f"{SESSION}-remember")
"""Flask-Login's cookie, and the seal beside it."""


@pytest.fixture
def clock() -> ManualClock:
    """Time, which stands still."""
    return ManualClock()


@pytest.fixture
def store(clock: ManualClock) -> FaultyStore:
    """A store in this process."""
    return FaultyStore(clock=clock)


def with_login(app: Flask, protection: str | None = "basic") -> Flask:
    """Flask-Login, and views that use it as its documentation does."""
    manager = LoginManager(app)
    manager.session_protection = protection
    manager.user_loader(User)

    @app.post("/flask-login/<name>")
    def flask_login(name: str) -> str:
        login_user(User(name))
        return "ok"

    @app.post("/remember/<name>")
    def remember(name: str) -> str:
        login_user(User(name), remember=True)
        return "ok"

    @app.post("/flask-logout")
    def flask_logout() -> str:
        logout_user()
        return "ok"

    @app.post("/goodbye")
    def goodbye() -> str:
        flash("Goodbye")
        logout_user()
        return "ok"

    @app.get("/me")
    def me() -> Any:
        return jsonify([current_user.get_id(), login_fresh()])

    @app.get("/mine")
    @login_required  # type: ignore[misc]  # no types
    def mine() -> str:
        return "yours"

    @app.get("/precious")
    @fresh_login_required  # type: ignore[misc]  # no types
    def precious() -> str:
        return "yours"

    @app.post("/confirm")
    def confirm() -> str:
        confirm_login()
        return "ok"

    @app.get("/messages")
    def messages() -> list[Any]:
        return get_flashed_messages()

    return app


@pytest.fixture
def app(store: FaultyStore, clock: ManualClock) -> Flask:
    """An application with sessions and Flask-Login."""
    return with_login(make_app(make_runtime(store, clock=clock)))


@pytest.fixture
def client(app: Flask) -> FlaskClient:
    """A browser."""
    return app.test_client()


class TestHelpers:
    """`login`, `logout` and `principal`, with no other package."""

    def test_principal(self, store: FaultyStore, clock: ManualClock) -> None:
        """It says who logged in, when, and how."""
        app = make_app(make_runtime(store, clock=clock))

        @app.get("/principal")
        def found() -> Any:
            return jsonify(principal())

        client = app.test_client()
        assert client.get("/principal").json is None
        client.post("/login/7")
        assert ["7", clock.time(), ["pwd"]] == client.get("/principal").json
        client.post("/logout")
        assert client.get("/principal").json is None

    def test_login_gives_another_id(self, client: FlaskClient, clock: ManualClock) -> None:
        """After a login the old id leads to nothing more, at once and after the grace; what was in the session stays."""
        client.post("/set/cart", json=1)
        before = steal(client)
        client.post("/login/7")
        assert cookies_of(before)[SESSION] != cookies_of(client)[SESSION]
        assert ([None, False], None) == (before.get("/me").json, before.get("/get/cart").json)
        assert (["7", True], 1) == (client.get("/me").json, client.get("/get/cart").json)
        clock.advance("11s")
        assert ([None, False], None) == (before.get("/me").json, before.get("/get/cart").json)

    def test_another_user(self, client: FlaskClient) -> None:
        """The next user gets nothing of what the former had."""
        client.post("/login/7")
        client.post("/set/cart", json=1)
        former = steal(client)
        client.post("/login/8")
        assert ("8", None) == (client.get("/who").json, client.get("/get/cart").json)
        assert former.get("/who").json is None

    def test_login_is_seen_by_flask_login_at_once(self, app: Flask) -> None:
        """Flask-Login sees the login that a helper made in the same request, and the logout."""

        @app.post("/both")
        def both() -> Any:
            seen = [current_user.get_id()]
            login("7")
            seen.append(current_user.get_id())
            logout()
            seen.append(current_user.get_id())
            return jsonify(seen)

        client = app.test_client()
        assert [None, "7", None] == client.post("/both").json
        assert client.get("/who").json is None

    def test_logout_forgets_the_remember_cookie(self, client: FlaskClient) -> None:
        """The helper's logout ends Flask-Login's remembering, too."""
        client.post("/remember/7")
        assert "remember_token" in cookies_of(client)
        client.post("/logout")
        assert {} == cookies_of(client)
        assert [None, False] == client.get("/me").json

    def test_limits_by_user(self, app: Flask, store: FaultyStore) -> None:
        """A limit by user knows the user from the sealed cookie, in the one flight, and asks Flask-Login nothing."""

        @app.get("/limited")
        @limit("2/minute", by="user")
        def limited() -> str:
            return "ok"

        client = app.test_client()
        client.post("/flask-login/7")
        store.flights.clear()
        assert [200, 200, 429] == [client.get("/limited").status_code for _ in range(3)]
        assert 2 <= len(store.flights) <= 3
        assert {"ratelimit.acquire"} <= set(store.flights[0])
        other = app.test_client()
        other.post("/flask-login/8")
        assert 200 == other.get("/limited").status_code

    @pytest.mark.parametrize("knows_flask_login", [True, False])
    def test_limits_by_user_without_the_seal(self, store: FaultyStore, knows_flask_login: bool) -> None:
        """Without the seal the session says who it is, in one flight more; a session of nobody, whose seal says so, costs none."""
        app = make_app(make_runtime(store))
        if knows_flask_login:
            with_login(app)

        @app.get("/limited")
        @limit("2/minute", by="user")
        def limited() -> str:
            return "ok"

        sealed = app.test_client()
        sealed.post("/login/7")
        bare = steal(sealed, SESSION)
        assert [200, 200, 429] == [one.get("/limited").status_code for one in (bare, sealed, bare)]
        nobody = app.test_client()
        nobody.post("/set/a", json=1)
        if not knows_flask_login:
            store.flights.clear()
            nobody.get("/limited")
            assert [("ratelimit.acquire", "sessions.load")] == list(store.flights)

    @pytest.mark.parametrize("knows_flask_login", [True, False])
    def test_limits_by_user_without_the_seal_while_away(self, store: FaultyStore, knows_flask_login: bool) -> None:
        """While the store is away nobody knows who it is: the address counts, and a page that needs no session is served."""
        app = make_app(make_runtime(store))
        if knows_flask_login:
            with_login(app)

        @app.get("/limited")
        @limit("2/minute", by="user")
        def limited() -> str:
            return "ok"

        sealed = app.test_client()
        sealed.post("/login/7")
        bare = steal(sealed, SESSION)
        with store.away():
            assert [200, 200, 429] == [bare.get("/limited").status_code for _ in range(3)]
            assert 503 == bare.get("/who").status_code
        assert "7" == bare.get("/who").json


class TestFlaskLogin:
    """Flask-Login, as it is."""

    def test_login_and_logout(self, client: FlaskClient) -> None:
        """A user logs in, is there, and logs out."""
        assert (401, [None, False]) == (client.get("/mine").status_code, client.get("/me").json)
        client.post("/flask-login/ada")
        assert (200, 200, ["ada", True]) == (
            client.get("/mine").status_code,
            client.get("/precious").status_code,
            client.get("/me").json,
        )
        assert "ada" == client.get("/who").json
        client.post("/flask-logout")
        assert (401, [None, False], None) == (
            client.get("/mine").status_code,
            client.get("/me").json,
            client.get("/who").json,
        )

    def test_id_rotates(self, client: FlaskClient, clock: ManualClock) -> None:
        """login_user gives the session another id, and keeps what an anonymous session holds."""
        client.post("/set/cart", json=1)
        before = steal(client)
        client.post("/flask-login/ada")
        assert cookies_of(before)[SESSION] != cookies_of(client)[SESSION]
        assert ([None, False], 1) == (before.get("/me").json, client.get("/get/cart").json)

    def test_logout_ends_the_session(self, client: FlaskClient) -> None:
        """A copy of the cookie is worth nothing after logout_user; what was flashed before is still shown."""
        client.post("/flask-login/ada")
        copy = steal(client)
        client.post("/goodbye")
        assert [None, False] == copy.get("/me").json
        assert ["Goodbye"] == client.get("/messages").json

    def test_logout_of_nobody(self, client: FlaskClient) -> None:
        """logout_user, with nobody logged in, leaves the session as it is."""
        client.post("/set/cart", json=1)
        client.post("/flask-logout")
        assert 1 == client.get("/get/cart").json

    def test_clear_is_a_logout_here(self, app: Flask, client: FlaskClient) -> None:
        """session.clear() logs out whom login_user logged in."""

        @app.post("/clear")
        def clear() -> str:
            session.clear()
            return "ok"

        client.post("/flask-login/ada")
        client.post("/clear")
        assert ([None, False], None) == (client.get("/me").json, client.get("/who").json)

    def test_remember(self, client: FlaskClient) -> None:
        """The remember cookie logs in again, to a login that is not fresh, with a new id."""
        client.post("/remember/ada")
        later = steal(client, *REMEMBER)
        assert ["ada", False] == later.get("/me").json
        assert SESSION in cookies_of(later)
        assert ("ada", 401) == (later.get("/who").json, later.get("/precious").status_code)
        later.post("/confirm")
        assert (["ada", True], 200) == (later.get("/me").json, later.get("/precious").status_code)
        later.post("/flask-logout")
        assert "remember_token" not in cookies_of(later)
        assert [None, False] == later.get("/me").json

    def test_a_login_elsewhere_is_fresh(self, client: FlaskClient) -> None:
        """Who was remembered, and then logs in on another framework, is freshly logged in."""
        client.post("/remember/ada")
        later = steal(client, *REMEMBER)
        assert ["ada", False] == later.get("/me").json
        later.post("/login/ada")
        assert ["ada", True] == later.get("/me").json

    def test_untouched_stays_untouched(self, app: Flask, store: FaultyStore) -> None:
        """Flask-Login looks for its mark after each request; that alone neither loads the session nor varies the response."""
        client = app.test_client()
        client.post("/flask-login/ada")
        store.flights.clear()
        response = client.get("/untouched")
        assert ([], False) == (list(store.flights), "Cookie" in response.vary)

    @pytest.mark.parametrize("identifier", [7, 0])
    def test_identifiers_that_are_no_text(self, store: FaultyStore, identifier: int) -> None:
        """A user loader is given what get_id returned, also where that was no text."""
        app = with_login(make_app(make_runtime(store)))
        loaded: list[Any] = []

        class Numbered(User):
            def get_id(self) -> Any:
                return self.id

        app.login_manager.user_loader(lambda given: loaded.append(given) or Numbered(given))  # type: ignore[attr-defined]  # Flask-Login puts it there

        @app.post("/number")
        def number() -> str:
            login_user(Numbered(identifier))
            return "ok"

        client = app.test_client()
        client.post("/number")
        client.get("/me")
        assert ([identifier], str(identifier)) == (loaded, client.get("/who").json)

    def test_test_client(self, app: Flask) -> None:
        """Flask-Login's own test client logs in; how fresh that is depends on session protection, see `test_session_idioms`."""
        app.test_client_class = FlaskLoginClient
        client = app.test_client(user=User("ada"))
        assert "ada" == client.get("/me").json[0]
        assert ["ada", False] == app.test_client(user=User("ada"), fresh_login=False).get("/me").json

    def test_several_applications(self, store: FaultyStore) -> None:
        """Logins in one application of the process are none in another that shares nothing with it."""
        one = with_login(make_app(make_runtime(store)))
        two = with_login(make_app(make_runtime(FaultyStore())))
        first, second = one.test_client(), two.test_client()
        first.post("/flask-login/ada")
        second.post("/flask-login/bob")
        first.post("/flask-logout")
        assert ([None, False], ["bob", True]) == (first.get("/me").json, second.get("/me").json)

    def test_applications_are_let_go(self, store: FaultyStore) -> None:
        """Nothing of the process keeps an application that is not used any more."""
        import weakref

        app = with_login(make_app(make_runtime(store)))
        app.test_client().post("/flask-login/ada")
        gone = weakref.ref(app)
        del app
        gc.collect()
        assert gone() is None


def reopened(client: FlaskClient, app: Flask | None = None) -> FlaskClient:
    """The browser, after it was closed and opened again: it kept the remember cookie, and forgot the session's."""
    cookies = cookies_of(client)
    other = (app or client.application).test_client()
    return plant(other, {name: cookies[name] for name in REMEMBER if name in cookies})


class TestRemembered:
    """A remember cookie is as good as the session that it was given with was when that was last used."""

    def test_survives_what_ends_by_itself(self, client: FlaskClient, clock: ManualClock) -> None:
        """A session that was unused for too long is begun anew."""
        client.post("/remember/ada")
        clock.advance("15d")
        assert ["ada", False] == client.get("/me").json

    def test_is_over_with_the_longest_session(self, client: FlaskClient, clock: ManualClock) -> None:
        """It is good for `session_absolute` after the login with the password, however often it logs in."""
        client.post("/remember/ada")
        clock.advance("29d")
        assert ["ada", False] == client.get("/me").json
        later = reopened(client)
        clock.advance("1d")
        assert [None, False] == later.get("/me").json
        client.post("/remember/ada")  # with the password
        clock.advance("29d")
        assert ["ada", False] == reopened(client).get("/me").json

    @pytest.mark.parametrize("closed", [False, True])
    def test_logged_out_elsewhere(self, app: Flask, store: FaultyStore, clock: ManualClock, closed: bool) -> None:
        """Who logged out in another framework stays logged out here, and the browser is rid of the cookies; so is whoever copied them."""
        client = app.test_client()
        client.post("/remember/ada")
        elsewhere = make_app(make_runtime(store, clock=clock)).test_client()  # which knows nothing of Flask-Login
        plant(elsewhere, cookies_of(client))
        elsewhere.post("/logout")
        assert {"remember_token"} == set(cookies_of(elsewhere))
        for browser in (reopened(client) if closed else steal(client), reopened(elsewhere, app)):
            assert ([None, False], None) == (browser.get("/me").json, browser.get("/who").json)
            assert set() == set(REMEMBER) & set(cookies_of(browser))

    @pytest.mark.parametrize("closed", [False, True])
    @pytest.mark.parametrize("what", ["all", "one"])
    def test_revoked(self, app: Flask, what: str, closed: bool) -> None:
        """Whose sessions were revoked, all or that one, is not logged in by it; a login made afterwards is remembered."""
        client = app.test_client()
        client.post("/remember/ada")
        subjects = app.extensions["failsoft"].sessions.subjects
        if what == "all":
            subjects.revoke_all("ada")
        else:
            subjects.revoke("ada", subjects.list("ada")[0].handle)
        browser = reopened(client) if closed else client
        assert ([None, False], 401) == (browser.get("/me").json, browser.get("/mine").status_code)
        assert set() == set(REMEMBER) & set(cookies_of(browser))
        browser.post("/remember/ada")
        assert ["ada", False] == reopened(browser).get("/me").json

    def test_revoking_others_keeps_this_one(self, app: Flask) -> None:
        """Who changes a password is remembered on this device, and on no other."""

        @app.post("/password")
        def password() -> str:
            app.extensions["failsoft"].sessions.subjects.revoke_others(the_session().session)
            return "ok"

        one, two = app.test_client(), app.test_client()
        one.post("/remember/ada")
        two.post("/remember/ada")
        one.post("/password")
        assert ["ada", False] == reopened(one).get("/me").json
        assert [None, False] == reopened(two).get("/me").json

    def test_logout_of_a_remembered_login(self, client: FlaskClient) -> None:
        """The login that it made is logged out of as any other is: what was sealed for that is worth nothing then."""
        client.post("/remember/ada")
        later = reopened(client)
        later.get("/me")
        copy = reopened(later)
        later.post("/flask-logout")
        assert (set(), [None, False]) == (set(cookies_of(later)), copy.get("/me").json)

    def test_tabs_that_are_opened_at_once(self, client: FlaskClient) -> None:
        """Two requests that both bring nothing but the remember cookie are both logged in."""
        client.post("/remember/ada")
        one, two = reopened(client), reopened(client)
        assert [["ada", False]] * 2 == [one.get("/me").json, two.get("/me").json]

    @pytest.mark.parametrize("seal", [None, "", "nonsense", "%%%", "AQ" * 60, "bob's"])
    def test_without_its_seal(self, app: Flask, client: FlaskClient, store: FaultyStore, seal: str | None) -> None:
        """A remember cookie alone, or with what is not its own seal, logs nobody in, and asks the store nothing.

        It is deleted, unless another process may have the secret that opens the seal.
        """
        client.post("/remember/ada")
        token = cookies_of(client)["remember_token"]
        opens = seal == "bob's"
        if opens:
            other = app.test_client()
            other.post("/remember/bob")
            seal = cookies_of(other)[REMEMBER[1]]
        browser = plant(app.test_client(), {"remember_token": token} | ({} if seal is None else {REMEMBER[1]: seal}))
        store.flights.clear()
        assert [None, False] == browser.get("/me").json
        kept = set() if seal is None or opens else set(REMEMBER)
        assert (kept, []) == (set(REMEMBER) & set(cookies_of(browser)), list(store.flights))

    def test_a_seal_is_no_login(self, client: FlaskClient, app: Flask) -> None:
        """The seal without Flask-Login's cookie is nothing."""
        client.post("/remember/ada")
        assert [None, False] == steal(client, REMEMBER[1]).get("/me").json

    def test_costs(self, client: FlaskClient, store: FaultyStore) -> None:
        """The store is asked only where the cookie would log somebody in: once, in a flight of its own."""
        client.post("/remember/ada")
        client.get("/me")
        store.flights.clear()
        client.get("/me")
        client.get("/untouched")
        assert [("sessions.load", "sessions.check")] == list(store.flights)
        later = reopened(client)
        store.flights.clear()
        later.get("/me")
        assert [("sessions.list",), ("sessions.list",), ("sessions.enrol", "sessions.create")] == list(store.flights)

    def test_limits_by_user(self, app: Flask) -> None:
        """A limit by user counts who is logged in by it, and nobody who is not."""

        @app.get("/limited")
        @limit("2/minute", by="user")
        def limited() -> str:
            return str(current_user.get_id())

        client = app.test_client()
        client.post("/remember/ada")
        later = reopened(client)
        assert [(200, "ada"), (200, "ada")] == [
            (a.status_code, a.text) for a in (client.get("/limited"), later.get("/limited"))
        ]
        assert 429 == client.get("/limited").status_code
        app.extensions["failsoft"].sessions.subjects.revoke_all("ada")
        assert (200, "None") == ((answer := reopened(client).get("/limited")).status_code, answer.text)

    def test_refreshed_each_request(self, store: FaultyStore, clock: ManualClock) -> None:
        """With REMEMBER_COOKIE_REFRESH_EACH_REQUEST what is given anew holds as well."""
        app = with_login(make_app(make_runtime(store, clock=clock), REMEMBER_COOKIE_REFRESH_EACH_REQUEST=True))
        client = app.test_client()
        client.post("/remember/ada")
        clock.advance("1h")
        client.get("/me")
        assert ["ada", False] == reopened(client).get("/me").json

    def test_secret_is_replaced(self, store: FaultyStore, clock: ManualClock) -> None:
        """A seal of an older secret is opened; one of a secret that is gone is not."""
        app = with_login(make_app(make_runtime(store, clock=clock)))
        client = app.test_client()
        client.post("/remember/ada")
        new = "another secret of forty characters or so"
        for fallbacks, expected in (((SECRET,), "ada"), ((), None)):
            runtime = make_runtime(store, clock=clock, secret=new, secret_fallbacks=fallbacks)
            assert [expected, False] == reopened(client, with_login(make_app(runtime))).get("/me").json

    def test_a_process_without_the_secret(self, store: FaultyStore, clock: ManualClock) -> None:
        """A process that has not got the new secret yet logs nobody in, and leaves the cookies; logging out there deletes them."""
        new = "another secret of forty characters or so"
        one = with_login(make_app(make_runtime(store, clock=clock, secret=new, secret_fallbacks=(SECRET,))))
        client = one.test_client()
        client.post("/remember/ada")
        old = reopened(client, with_login(make_app(make_runtime(store, clock=clock))))
        assert ([None, False], set(REMEMBER)) == (old.get("/me").json, set(cookies_of(old)))
        assert ["ada", False] == reopened(old, one).get("/me").json
        old.post("/flask-logout")
        assert {} == cookies_of(old)

    @pytest.mark.parametrize("page", ["/logout", "/flask-logout"])
    def test_logout_ends_earlier_seals(self, client: FlaskClient, page: str) -> None:
        """A copy from before the cookie logged in again is worth nothing after a logout either."""
        client.post("/remember/ada")
        copy, thief, later = reopened(client), steal(client), reopened(client)
        later.get("/me")
        later.post(page)
        assert [[None, False]] * 2 == [copy.get("/me").json, thief.get("/me").json]

    @pytest.mark.parametrize("page", ["/logout", "/flask-logout"])
    def test_logout_as_the_first_request(self, app: Flask, client: FlaskClient, page: str) -> None:
        """A logout in a browser that was opened again, which has no session, ends what was remembered."""
        client.post("/remember/ada")
        copy, later = reopened(client), reopened(client)
        later.post(page)
        assert ({}, [None, False]) == (cookies_of(later), copy.get("/me").json)
        assert [] == app.extensions["failsoft"].sessions.subjects.list("ada")

    @pytest.mark.parametrize("again", [False, True])
    def test_logged_out_of_a_later_session_elsewhere(
        self, app: Flask, store: FaultyStore, clock: ManualClock, again: bool
    ) -> None:
        """A logout on another framework, of another session or of none, ends what was remembered in that browser."""
        client = app.test_client()
        client.post("/remember/ada")
        copy = reopened(client)
        elsewhere = plant(make_app(make_runtime(store, clock=clock)).test_client(), cookies_of(copy))
        if again:
            elsewhere.post("/login/ada")
        elsewhere.post("/logout")
        assert {"remember_token"} == set(cookies_of(elsewhere))
        assert [[None, False]] * 2 == [copy.get("/me").json, reopened(elsewhere, app).get("/me").json]

    def test_logout_of_nobody_keeps_the_cart(self, app: Flask, client: FlaskClient) -> None:
        """logout_user where the remember cookie logs nobody in takes the rest of it off, and leaves an anonymous session alone."""
        client.post("/remember/ada")
        copy, later = reopened(client), reopened(client)
        later.get("/me")
        subjects = app.extensions["failsoft"].sessions.subjects
        subjects.revoke("ada", subjects.list("ada")[1].handle)
        browser = reopened(later)
        browser.post("/set/cart", json=1)
        browser.post("/flask-logout")
        assert (1, [None, False]) == (browser.get("/get/cart").json, copy.get("/me").json)

    @pytest.mark.parametrize("what", ["all", "one", "away"])
    def test_revoked_meanwhile(self, app: Flask, store: FaultyStore, clock: ManualClock, what: str) -> None:
        """What is revoked while a request logs in by the cookie is not survived by that; where nobody can say, nothing is written."""

        outage = ExitStack()

        @app.post("/slow")
        def slow() -> str:
            who = str(current_user.get_id())
            session["cart"] = 1
            subjects = app.extensions["failsoft"].sessions.subjects
            clock.advance("1s")
            if what == "all":
                subjects.revoke_all("ada")
            elif what == "one":
                subjects.revoke("ada", subjects.list("ada")[0].handle)
            else:
                outage.enter_context(store.away())
            clock.advance("1s")
            return who

        client = app.test_client()
        client.post("/remember/ada")
        thief = reopened(client)
        if what == "away":
            with outage:
                answer = thief.post("/slow")
            assert (503, set(REMEMBER)) == (answer.status_code, set(cookies_of(thief)))
            assert ["ada", False] == thief.get("/me").json
            return
        answer = thief.post("/slow")
        assert (409, True) == (answer.status_code, answer.cache_control.private)
        assert {} == cookies_of(thief)
        assert ([None, False], []) == (
            thief.get("/me").json,
            app.extensions["failsoft"].sessions.subjects.list("ada"),
        )

    @pytest.mark.parametrize("cart", [False, True])
    def test_refused_by_the_loader(
        self, app: Flask, client: FlaskClient, caplog: pytest.LogCaptureFixture, cart: bool
    ) -> None:
        """Whom the user loader refuses is logged in nowhere, keeps what an anonymous session holds, and is rid of the cookies."""
        client.post("/remember/ada")
        browser = reopened(client)
        if cart:
            browser.post("/set/cart", json=1)
        app.login_manager.user_loader(lambda identifier: None)  # type: ignore[attr-defined]  # Flask-Login puts it there
        assert (200, [None, False]) == ((answer := browser.get("/me")).status_code, answer.json)
        assert "private" == answer.headers["Cache-Control"]
        assert set() == set(REMEMBER) & set(cookies_of(browser))
        assert (None, 1 if cart else None) == (browser.get("/who").json, browser.get("/get/cart").json)
        assert cart == (SESSION in cookies_of(browser))
        assert 1 == len(app.extensions["failsoft"].sessions.subjects.list("ada"))
        assert [] == [record for record in caplog.records if record.levelname == "ERROR"]

    def test_no_shared_cache_keeps_it(self, store: FaultyStore, clock: ManualClock) -> None:
        """A response with a seal is private, also where nothing else of the session goes out."""
        app = with_login(make_app(make_runtime(store, clock=clock), REMEMBER_COOKIE_REFRESH_EACH_REQUEST=True))

        @app.get("/public")
        def public() -> Response:
            response = jsonify(current_user.get_id())
            response.cache_control.public = True
            return response

        client = app.test_client()
        client.post("/remember/ada")
        answer = client.get("/public")
        assert 2 == len(answer.headers.getlist("Set-Cookie"))
        assert "private" == answer.headers["Cache-Control"]

    def test_refreshing_is_no_login(self, store: FaultyStore, clock: ManualClock) -> None:
        """What is given anew by REMEMBER_COOKIE_REFRESH_EACH_REQUEST is as good as the login was, also to who hides the seal."""
        app = with_login(make_app(make_runtime(store, clock=clock), REMEMBER_COOKIE_REFRESH_EACH_REQUEST=True))
        client = app.test_client()
        client.post("/remember/ada")
        clock.advance("29d")
        later = reopened(client)
        later.get("/me")
        later.get("/me")
        hidden = steal(later, SESSION, f"{SESSION}-seal")
        hidden.get("/me")
        assert REMEMBER[1] not in cookies_of(hidden)
        clock.advance("2d")
        assert [None, False] == reopened(later).get("/me").json

    def test_cap(self, store: FaultyStore, clock: ManualClock) -> None:
        """A session that has ended by itself gives its place in the list to another, and the remember cookie is over with it."""
        app = with_login(make_app(make_runtime(store, clock=clock, session_cap=1)))
        phone, laptop = app.test_client(), app.test_client()
        phone.post("/remember/ada")
        clock.advance("15d")
        assert [] == app.extensions["failsoft"].sessions.subjects.list("ada")
        laptop.post("/flask-login/ada")
        assert [None, False] == phone.get("/me").json

    def test_login_remembered(self, app: Flask, client: FlaskClient) -> None:
        """Flask-Login's question whether there is a remembered login is answered so, too."""

        @app.get("/remembered")
        def remembered() -> Any:
            return jsonify(login_remembered())

        client.post("/remember/ada")
        assert [True, True] == [client.get("/remembered").json, reopened(client).get("/remembered").json]
        app.extensions["failsoft"].sessions.subjects.revoke_all("ada")
        assert reopened(client).get("/remembered").json is False


def as_agent(agent: str) -> dict[str, Any]:
    """A browser of that name."""
    return {"headers": {"User-Agent": agent}}


class TestProtection:
    """Flask-Login's session protection, against a cookie that another browser brings."""

    def test_basic(self, store: FaultyStore) -> None:
        """In the mode "basic" the login is not fresh any more."""
        app = with_login(make_app(make_runtime(store)), "basic")
        client = app.test_client()
        client.post("/flask-login/ada", **as_agent("one"))
        assert ["ada", True] == client.get("/me", **as_agent("one")).json
        assert ["ada", False] == client.get("/me", **as_agent("two")).json
        assert ["ada", False] == client.get("/me", **as_agent("one")).json

    def test_strong(self, store: FaultyStore) -> None:
        """In the mode "strong" the login is over, for every framework and for the first browser too."""
        app = with_login(make_app(make_runtime(store)), "strong")
        client = app.test_client()
        client.post("/flask-login/ada", **as_agent("one"))
        thief = steal(client)
        assert ["ada", True] == client.get("/me", **as_agent("one")).json
        assert [None, False] == thief.get("/me", **as_agent("two")).json
        assert ([None, False], None) == (
            client.get("/me", **as_agent("one")).json,
            client.get("/who", **as_agent("one")).json,
        )

    @pytest.mark.parametrize("protection", ["basic", "strong", None])
    def test_login_from_elsewhere(self, store: FaultyStore, protection: str | None) -> None:
        """A login that another framework made is not taken for a theft."""
        client = with_login(make_app(make_runtime(store)), protection).test_client()
        client.post("/login/7", **as_agent("one"))
        store.flights.clear()
        assert ["7", True] == client.get("/me", **as_agent("two")).json
        assert [("sessions.load", "sessions.check")] == list(store.flights)

    def test_anonymous_sessions(self, store: FaultyStore) -> None:
        """An anonymous session is left alone, but for the mark that Flask-Login puts there once."""
        client = with_login(make_app(make_runtime(store)), "strong").test_client()
        client.post("/set/cart", json=1, **as_agent("one"))
        assert [None, False] == client.get("/me", **as_agent("two")).json
        assert 1 == client.get("/get/cart", **as_agent("one")).json


class TestElsewhere:
    """A principal that another framework has set."""

    @pytest.fixture
    def elsewhere(self, app: Flask, store: FaultyStore, clock: ManualClock) -> FlaskClient:
        """A browser that logged in on another framework: there is a principal, and nothing of Flask's."""
        client = make_app(make_runtime(store, clock=clock)).test_client()
        client.post("/login/7")
        return plant(app.test_client(), cookies_of(client))

    def test_is_the_current_user(self, elsewhere: FlaskClient) -> None:
        """Flask-Login loads the same user, freshly logged in."""
        assert (["7", True], 200, 200) == (
            elsewhere.get("/me").json,
            elsewhere.get("/mine").status_code,
            elsewhere.get("/precious").status_code,
        )

    def test_mapping_is_consistent(self, app: Flask, elsewhere: FlaskClient) -> None:
        """What Flask-Login would have stored is there in each way of looking."""

        @app.get("/looks")
        def looks() -> Any:
            keys = ["_user_id", "_fresh", "_id"]
            return jsonify(
                [
                    sorted(session) == sorted(keys),
                    [key in session for key in keys],
                    len(session),
                    session["_user_id"],
                    session.get("_remember"),
                    "_remember" in session,
                ]
            )

        assert [True, [True] * 3, 3, "7", None, False] == elsewhere.get("/looks").json

    def test_logout_here_ends_it_there(self, elsewhere: FlaskClient) -> None:
        """logout_user ends the session for all."""
        elsewhere.post("/flask-logout")
        assert elsewhere.get("/who").json is None

    def test_clear_here_does_not(self, app: Flask, elsewhere: FlaskClient) -> None:
        """session.clear() removes what is Flask's, which that login is not."""

        @app.post("/clear")
        def clear() -> str:
            session.clear()
            return "ok"

        elsewhere.post("/set/cart", json=1)
        elsewhere.post("/clear")
        assert ("7", None) == (elsewhere.get("/who").json, elsewhere.get("/get/cart").json)

    def test_a_different_user_there(self, app: Flask, client: FlaskClient) -> None:
        """When somebody else logs in elsewhere, Flask-Login's user is they."""

        client.post("/flask-login/ada")
        client.post("/login/7")
        assert ["7", True] == client.get("/me").json

    def test_logged_out_there(self, client: FlaskClient) -> None:
        """When the user logs out elsewhere, nobody is logged in here."""

        client.post("/flask-login/ada")
        client.post("/logout")
        assert [None, False] == client.get("/me").json

    def test_without_flask_login(self, store: FaultyStore) -> None:
        """Without Flask-Login its keys are an application's like any others."""
        app = make_app(make_runtime(store))
        client = app.test_client()
        client.post("/login/7")
        client.post("/set/_user_id", json="mine")
        client.post("/set/_remember", json=1)
        assert {"_user_id": "mine", "_remember": 1} == client.get("/all").json
        assert "7" == client.get("/who").json


class TestFlaskWTF:
    """Flask-WTF's protection against forged requests."""

    @pytest.fixture
    def protected(self, app: Flask) -> Flask:
        """The application, with it."""
        csrf: Any = pytest.importorskip("flask_wtf.csrf")
        app.config["WTF_CSRF_SSL_STRICT"] = False
        protect = csrf.CSRFProtect(app)
        for name in ("flask_login", "log_in"):
            protect.exempt(app.view_functions[name])

        @app.get("/form")
        def form() -> Any:
            return csrf.generate_csrf()

        @app.post("/form")
        def submitted() -> str:
            return "ok"

        @app.get("/private")
        def private() -> list[str]:
            return list(the_session().session.names())

        return app

    def test_tokens(self, protected: Flask) -> None:
        """A form's token is accepted from the browser that it was made for, and from no other."""
        client, other = protected.test_client(), protected.test_client()
        token = client.get("/form").text
        other.get("/form")
        assert [200, 400, 400] == [
            client.post("/form", data={"csrf_token": token}).status_code,
            client.post("/form").status_code,
            other.post("/form", data={"csrf_token": token}).status_code,
        ]

    def test_is_private(self, protected: Flask) -> None:
        """Its secret is Flask's own in the store: others neither see nor clear it."""
        client = protected.test_client()
        client.get("/form")
        assert ["flask:csrf_token"] == client.get("/private").json

    def test_survives_a_login(self, protected: Flask) -> None:
        """A form that was open before the login can be sent after it."""
        client = protected.test_client()
        token = client.get("/form").text
        client.post("/flask-login/ada")
        assert 200 == client.post("/form", data={"csrf_token": token}).status_code


def outages() -> list[Any]:
    """Each setting, and what logout_user answers then."""
    return [
        pytest.param({"session_on_outage": "empty"}, 202, id="empty"),
        pytest.param({"session_snapshot": 300.0}, 202, id="snapshot"),
        pytest.param({}, 503, id="refuse"),
    ]


class TestOutage:
    """Flask-Login while the store is away."""

    @pytest.fixture
    def store(self) -> FaultyStore:
        """A store whose time is everybody's."""
        return FaultyStore()

    @pytest.mark.parametrize(("settings", "status"), outages())
    def test_logout(self, store: FaultyStore, settings: dict[str, Any], status: int) -> None:
        """logout_user works where the user is known, or nobody is; what it answers holds when the store is back."""
        client = with_login(make_app(make_runtime(store, **settings))).test_client()
        client.post("/flask-login/ada")
        copy = steal(client)
        with store.away():
            assert status == client.post("/flask-logout").status_code
        expected = [None, False] if status == 202 else ["ada", True]
        assert expected == client.get("/me").json
        assert expected == copy.get("/me").json

    @pytest.mark.parametrize("settings", [{}, {"session_on_outage": "empty"}, {"session_snapshot": 300.0}])
    def test_helper(self, store: FaultyStore, settings: dict[str, Any]) -> None:
        """The helper's logout works whatever the settings say, also for the remember cookie."""
        client = with_login(make_app(make_runtime(store, **settings))).test_client()
        client.post("/remember/ada")
        with store.away():
            assert 202 == client.post("/logout").status_code
            assert [f"{SESSION}-logout"] == list(cookies_of(client))
        assert [None, False] == client.get("/me").json
        assert {} == cookies_of(client)

    @pytest.mark.parametrize("protection", ["basic", "strong", None])
    def test_same_user(self, store: FaultyStore, protection: str | None) -> None:
        """With a snapshot the user stays who they are, read-only, and is not taken for a thief; and is the same afterwards."""
        client = with_login(make_app(make_runtime(store, session_snapshot=300.0)), protection).test_client()
        client.post("/flask-login/ada")
        with store.away():
            response = client.get("/me")
            assert (["ada", True], "session;reason=no_connection") == (response.json, response.headers["Degraded"])
            assert [200, 200, 503] == [
                client.get("/mine").status_code,
                client.get("/precious").status_code,
                client.post("/flask-login/bob").status_code,
            ]
        assert ["ada", True] == client.get("/me").json

    def test_another_address(self, store: FaultyStore) -> None:
        """A user whose address changes meanwhile is not refused: the login is not fresh, which need not be written."""
        client = with_login(make_app(make_runtime(store, session_snapshot=300.0))).test_client()
        client.post("/flask-login/ada", **as_agent("one"))
        with store.away():
            assert ["ada", False] == client.get("/me", **as_agent("two")).json
        assert ["ada", True] == client.get("/me", **as_agent("one")).json

    @pytest.mark.parametrize("page", ["/me", "/mine", "/untouched"])
    def test_refused(self, store: FaultyStore, page: str) -> None:
        """Without one, pages that ask who is there answer 503, the others are served, and nobody is logged out."""
        client = with_login(make_app(make_runtime(store))).test_client()
        client.post("/flask-login/ada")
        before = cookies_of(client)
        with store.away():
            assert (200 if page == "/untouched" else 503) == client.get(page).status_code
        assert (before, ["ada", True]) == (cookies_of(client), client.get("/me").json)

    def test_remember_cookie(self, store: FaultyStore) -> None:
        """The remember cookie logs nobody in then, and stays; it does when the store is back."""
        app = with_login(make_app(make_runtime(store, session_on_outage="empty")))
        client = app.test_client()
        client.post("/remember/ada")
        later = steal(client, *REMEMBER)
        with store.away():
            answer = later.get("/me")
        assert (503, "session;reason=no_connection") == (answer.status_code, answer.headers["Degraded"])
        assert ["ada", False] == later.get("/me").json

    def test_logout_elsewhere_of_a_remembered_login(self, store: FaultyStore) -> None:
        """A logout that had to wait holds against the remember cookie, too."""
        app = with_login(make_app(make_runtime(store)))
        client = app.test_client()
        client.post("/remember/ada")
        elsewhere = plant(make_app(make_runtime(store)).test_client(), cookies_of(client))
        with store.away():
            assert 202 == elsewhere.post("/logout").status_code
        assert {"remember_token", f"{SESSION}-logout"} == set(cookies_of(elsewhere))
        browser = plant(app.test_client(), cookies_of(elsewhere))
        assert [None, False] == browser.get("/me").json
        assert [None, False] == steal(client).get("/me").json

    @pytest.mark.parametrize("closed", [False, True])
    def test_logout_covers_earlier_seals(self, store: FaultyStore, closed: bool) -> None:
        """A logout that had to wait ends all that the browser had, also what was sealed before."""
        client = with_login(make_app(make_runtime(store))).test_client()
        client.post("/remember/ada")
        copy, later = reopened(client), reopened(client)
        later.get("/me")
        if closed:
            later = reopened(later)
        with store.away():
            assert 202 == later.post("/logout").status_code
        assert [f"{SESSION}-logout"] == list(cookies_of(later))
        later.get("/me")
        assert ({}, [None, False]) == (cookies_of(later), copy.get("/me").json)

    def test_refreshing_the_remember_cookie(self, store: FaultyStore, caplog: pytest.LogCaptureFixture) -> None:
        """An after_request function that needs the session answers 503, not 500, and nothing is logged as a mistake."""
        app = with_login(make_app(make_runtime(store), REMEMBER_COOKIE_REFRESH_EACH_REQUEST=True))
        client = app.test_client()
        client.post("/flask-login/ada")
        with store.away():
            assert 503 == client.get("/untouched").status_code
        assert [] == [record for record in caplog.records if record.levelname == "ERROR"]

    @pytest.mark.parametrize("code", [404, 503])
    def test_pages_for_errors(self, store: FaultyStore, code: int) -> None:
        """A page for an error that shows who is logged in is a refusal then, and no internal error."""
        app = with_login(make_app(make_runtime(store)))

        def page(error: Exception) -> tuple[str, int]:
            return f"Hello {current_user.get_id()}", code

        app.register_error_handler(code, page)
        client = app.test_client()
        client.post("/flask-login/ada")
        with store.away():
            response = client.get("/nowhere" if code == 404 else "/me")
        assert (503, "application/problem+json") == (response.status_code, response.mimetype)
