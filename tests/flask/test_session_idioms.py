"""Sessions in Flask where tests of applications look at them, and code that was written for Flask's own: it finds what it expects there."""

from typing import Any

import pytest
from flask import Flask, flash, get_flashed_messages, jsonify, session
from flask_login import FlaskLoginClient, LoginManager, current_user, login_fresh, login_user

from failsoft.errors import OutsideRequest
from failsoft.testing import FaultyStore, ManualClock
from failsoft_flask import principal
from tests.flask.browsers import User, make_app, make_runtime

pytestmark = [pytest.mark.broad, pytest.mark.filterwarnings("ignore:.*utcnow:DeprecationWarning:flask_login")]


@pytest.fixture
def app() -> Flask:
    """An application with sessions, and views that use them."""
    clock = ManualClock()
    app = make_app(make_runtime(FaultyStore(clock=clock), clock=clock))

    @app.post("/flash")
    def flashes() -> str:
        flash("saved")
        return "ok"

    @app.get("/flashed")
    def flashed() -> Any:
        return jsonify(get_flashed_messages())

    @app.post("/nothing")
    def nothing() -> str:
        return "ok"

    return app


@pytest.fixture
def with_login(app: Flask) -> Flask:
    """The same with Flask-Login."""
    manager = LoginManager(app)
    manager.user_loader(User)

    @app.get("/me")
    def me() -> Any:
        return jsonify([current_user.get_id(), current_user.is_authenticated and login_fresh()])

    @app.post("/flask-login/<who>")
    def flask_login(who: str) -> str:
        session["cart"] = [1]
        login_user(User(who))
        return "ok"

    @app.post("/nobody")
    def nobody() -> Any:
        session["_user_id"] = None
        return jsonify([principal() is None, "_user_id" in session])

    app.test_client_class = FlaskLoginClient
    return app


class TestPreservedContext:
    """What ``with app.test_client()`` leaves to be looked at after a request."""

    def test_flashed_messages(self, app: Flask) -> None:
        """Flashed messages can be asked for after the request; the page that shows them does so all the same, once."""
        with app.test_client() as client:
            client.post("/flash")
            assert ["saved"] == get_flashed_messages()
            assert ["saved"] == client.get("/flashed").json
            assert [] == client.get("/flashed").json

    def test_read(self, app: Flask) -> None:
        """The session can be read after the request, also where the request did not."""
        with app.test_client() as client:
            client.post("/set/a", json=1)
            assert (1, ["a"]) == (session["a"], list(session))
            client.post("/nothing")
            assert (1, None, ["a"]) == (session["a"], session.get("b"), list(session))
            client.post("/login/ada")
            assert "ada" == principal().subject  # type: ignore[union-attr]  # there is one

    def test_not_changed(self, app: Flask) -> None:
        """Nothing else can be changed there: nobody would store it."""
        with app.test_client() as client:
            client.post("/set/a", json=1)
            with pytest.raises(OutsideRequest, match="too late to change the session \\(delete 'a'\\)"):
                session.pop("a")

    def test_modified(self, app: Flask) -> None:
        """That the session was modified can be seen when it is saved, too; of the next request it is not said."""
        with app.test_client() as client:
            client.post("/set/a", json=1)
            assert (True, True) == (session.modified, session.accessed)
            client.get("/get/a")
            assert (False, True) == (session.modified, session.accessed)
            client.post("/nothing")
            assert (False, False) == (session.modified, session.accessed)


class TestFlaskLogin:
    """Flask-Login's keys, set by hand."""

    @pytest.mark.parametrize("path", ["/flask-login/ada", "/login/ada"])
    def test_nobody(self, with_login: Flask, path: str) -> None:
        """None is nobody: who says that it is the user logs them out, as with Flask's sessions."""
        client = with_login.test_client()
        client.post(path)
        assert "ada" == client.get("/me").json[0]
        assert [True, False] == client.post("/nobody").json
        assert [None, False] == client.get("/me").json
        assert [True, False] == client.post("/nobody").json

    def test_nobody_by_a_test(self, with_login: Flask) -> None:
        """The same in a session transaction."""
        client = with_login.test_client()
        client.post("/flask-login/ada")
        with client.session_transaction() as transaction:
            transaction["_user_id"] = None
        assert [None, False] == client.get("/me").json

    @pytest.mark.parametrize(
        ("protection", "expected"),
        [("basic", ["ada", False]), ("strong", [None, False]), (None, ["ada", True])],
        ids=str,
    )
    def test_login_client(self, with_login: Flask, protection: str | None, expected: list[Any]) -> None:
        """Flask-Login's test client sets no mark of the browser, which session protection takes for another one's; as with Flask's."""
        with_login.login_manager.session_protection = protection  # type: ignore[attr-defined]  # Flask-Login puts it there
        client = with_login.test_client(user=User("ada"), fresh_login=True)
        assert [expected, expected] == [client.get("/me").json for _ in range(2)]

    def test_login_elsewhere_is_fresh(self, with_login: Flask) -> None:
        """A login that was not made with Flask-Login stays fresh: no mark of the browser was ever made for it."""
        client = with_login.test_client()
        client.post("/login/ada")
        assert [["ada", True]] * 2 == [client.get("/me").json for _ in range(2)]

    def test_last_item(self, with_login: Flask) -> None:
        """The last item is what was set last, and not who is logged in."""
        client = with_login.test_client()
        client.post("/flask-login/ada")
        with client.session_transaction() as transaction:
            transaction["a"] = 1
            assert [("a", 1), "ada"] == [transaction.popitem(), transaction["_user_id"]]
            assert set(transaction) >= {"_user_id", "_fresh", "cart"}
            assert {*transaction} == {*dict(transaction)}
