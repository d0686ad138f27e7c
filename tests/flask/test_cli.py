"""The command line with a Flask application."""

import json
from collections.abc import Callable, Iterator
from typing import Any

import pytest
import redis
from flask import Blueprint, Flask, current_app, request
from flask import session as flask_session
from flask.sessions import SecureCookieSessionInterface
from flask.views import MethodView
from flask_login import current_user
from werkzeug.middleware.proxy_fix import ProxyFix

from failsoft import ConfigurationError, Settings, cli, exempt, late, limit
from failsoft.inspection import Trial, describe
from failsoft.inspection.explanation import Explained, Explanation, explain
from failsoft.runtime import Runtime
from failsoft_flask import Failsoft
from failsoft_flask.commands import command
from tests.flask.harness import login
from tests.servers import poll

Make = Callable[..., Flask]


@pytest.fixture
def make(redis_url: str) -> Iterator[Make]:
    """Makes applications on an empty server."""
    runtimes: list[Runtime] = []
    with redis.Redis.from_url(redis_url) as client:
        client.flushall()

    def make(**settings: Any) -> Flask:
        app = Flask(__name__)
        runtime = Runtime(
            Settings.load({"store": redis_url, "limits": [], "deny_cache": 0, "deadline": 2, **settings}, environ={})
        )
        runtimes.append(runtime)
        Failsoft(app, runtime=runtime)
        return app

    yield make
    for one in runtimes:
        one.close()


def tried(app: Any, target: str = "/", *, method: str = "GET", **said: Any) -> Explanation:
    """What would apply to a request."""
    trial: dict[str, Any] = {"address": "192.0.2.1", **said}
    headers = tuple(trial.pop("headers", {}).items())
    return explain(describe(app), Trial(method=method, target=target, headers=headers, **trial))


def applying(explanation: Explanation) -> list[Explained]:
    """The limits that apply."""
    return [one for one in explanation.limits if one.applies]


def counts(app: Any, target: str = "/", **said: Any) -> list[str | None]:
    """Whom each limit that applies counts."""
    return [one.counts for one in applying(tried(app, target, **said))]


def test_routing(make: Make) -> None:
    """The view is found by Flask's own routing, with its template; what no view serves says why."""
    app = make(limits=["9/day"])

    @app.get("/items/<int:number>/")
    def item(number: int) -> str:
        return "x"

    found = tried(app, "/items/4/?x=1")
    assert ("/items/<int:number>/", "", f"{__name__}.test_routing.<locals>.item") == (
        found.route,
        found.note,
        found.view,
    )
    for target, method, note in (
        ("/items/x/", "GET", "404 Not Found"),
        ("/items/4", "GET", "308 Permanent Redirect"),
        ("/items/4/", "DELETE", "405 Method Not Allowed"),
    ):
        found = tried(app, target, method=method)
        assert (None, None, note) == (found.route, found.view, found.note)
        assert ["9 per 86400 s"] == [one.limit.quota for one in applying(found)]


def test_what_functions_see(make: Make) -> None:
    """Functions of the request are given Flask's request, and what Flask has for them around it."""
    app = make()
    seen: list[Any] = []

    def by(given: Any) -> str:
        seen.append(
            (given is not None, given.method, given.path, given.args["n"], given.headers["X-A"], given.view_args)
        )
        seen.append((request.get_json()["k"], current_app._get_current_object() is app, given.remote_addr))  # type: ignore[attr-defined]  # a proxy
        return "x"

    @app.post("/a/<int:number>")
    @limit("5/minute", by=by)
    def view(number: int) -> str:
        return "x"

    headers = {"X-A": "b", "Content-Type": "application/json"}
    assert ["key:x"] == counts(app, "/a/4?n=2", method="POST", headers=headers, body=b'{"k": "v"}')
    assert [(True, "POST", "/a/4", "2", "b", {"number": 4}), ("v", True, "192.0.2.1")] == seen


def test_functions_that_are_coroutines(make: Make) -> None:
    """A function that awaits is awaited."""
    app = make()

    async def by(given: Any) -> str:
        return str(given.path)

    @app.get("/")
    @limit("5/minute", by=by)
    def view() -> str:
        return "x"

    assert ["key:%2F"] == counts(app)


def test_users(make: Make) -> None:
    """A user that is given is counted, and is logged in for functions that ask Flask-Login; none is given, and it is asked."""
    app = make()
    manager = login(app)

    class User:
        is_authenticated = True

        def __init__(self, name: str) -> None:
            self.name = name

        def get_id(self) -> str:
            return self.name

    manager.user_loader(User)

    @app.get("/")
    @limit("5/minute", by="user", on_missing="exempt")
    @limit("6/minute", by=lambda request: f"plan of {current_user.name}" if current_user.is_authenticated else None)
    def view() -> str:
        return "x"

    assert ["user:7", "key:plan%20of%207"] == counts(app, user="7")
    assert ["user:8"] == counts(app, headers={"X-User": "8"})[:1]


def test_scopes(make: Make) -> None:
    """Scopes are found by path, host and blueprint."""
    scopes = [
        {"name": "path", "prefix": "/in", "limits": ["1/day"]},
        {"name": "host", "host": "*.a.test", "limits": ["2/day"]},
        {"name": "group", "group": "outer", "limits": ["3/day"]},
    ]
    app = make(scopes=scopes)
    outer, inner = Blueprint("outer", __name__), Blueprint("inner", __name__)

    @inner.get("/x")
    def view() -> str:
        return "x"

    outer.register_blueprint(inner, url_prefix="/in")
    app.register_blueprint(outer)
    found = applying(tried(app, "/in/x", headers={"Host": "b.a.test:80"}))
    assert ["1 per 86400 s", "2 per 86400 s", "3 per 86400 s"] == [one.limit.quota for one in found]
    (route,) = [route for route in describe(app).routes if route.template == "/in/x"]
    assert ("outer.inner", "outer") == route.groups


def test_classes(make: Make) -> None:
    """Of a class-based view, the limits of the method are explained, and others are named with theirs."""
    app = make()

    class View(MethodView):
        @limit("5/minute", by=late(str), methods=["GET"])
        def get(self) -> str:
            return "x"

        @limit("6/minute")
        def post(self) -> str:
            return "x"

    app.add_url_rule("/", view_func=exempt(View.as_view("view")))
    assert ["5 per 60 s"] == [one.limit.quota for one in applying(tried(app))]
    assert ["6 per 60 s"] == [one.limit.quota for one in applying(tried(app, method="POST"))]
    assert [True] == [one.limit.late for one in applying(tried(app))]


def test_functions_around_requests_that_fail(make: Make) -> None:
    """What the application does at a request's end may fail, for it was not served; at its beginning, that is told."""
    app = make(limits=["9/day"])

    @app.teardown_request
    def end(error: BaseException | None) -> None:
        raise LookupError("nothing was opened")

    assert ["ip:192.0.2.1"] == counts(app)

    class Sessions(SecureCookieSessionInterface):
        def open_session(self, *args: Any) -> Any:
            raise OSError("no session store")

    app.session_interface = Sessions()
    with pytest.raises(
        ConfigurationError, match="cannot begin with such a request: it raised OSError: no session store"
    ):
        counts(app)


def test_keys_are_those_of_requests(make: Make, redis_url: str) -> None:
    """What an explanation names is what a request charges, behind proxies and in middleware too."""
    app = make(limits=["9/day"], trusted_proxies=["10.0.0.0/8"])

    @app.get("/<name>")
    @limit("5/minute", by=["ip", "header:X-Key"], per_method=True)
    def view(name: str) -> str:
        return "x"

    headers = {"X-Forwarded-For": "198.51.100.1, 10.0.0.2", "X-Key": "k"}
    explained = {one.key for one in applying(tried(app, "/a", address="10.0.0.1", headers=headers))}
    client = app.test_client()
    with redis.Redis.from_url(redis_url, decode_responses=True) as server:
        poll(
            lambda: (
                client.get("/a", headers=headers, environ_base={"REMOTE_ADDR": "10.0.0.1"}) and server.keys("failsoft*")
            )
        )
        assert explained == set(server.keys("failsoft*"))
    app.wsgi_app = ProxyFix(app.wsgi_app)  # type: ignore[method-assign]  # Flask's way
    assert describe(ProxyFix(app)).runtime is app.extensions["failsoft"]


def test_commands(make: Make, capsys: pytest.CaptureFixture[str]) -> None:
    """The commands do for a Flask application what they say."""
    app = make()

    @app.get("/")
    @limit("5/minute")
    def view() -> str:
        return "x"

    client = app.test_client()
    poll(lambda: client.get("/").headers.get("RateLimit") and "degraded" not in client.get("/").headers)
    arguments = ["GET", "/", "--address", "127.0.0.1", "--json"]

    def left(name: str, *more: str) -> int:
        assert 0 == cli.main([name, *arguments, *more], app=app)
        return int(json.loads(capsys.readouterr().out)["limits"][0]["left"]["remaining"])

    before = left("peek")
    assert 0 < before < 5
    assert before == left("explain")
    assert before + 1 == left("refund")
    assert 5 == left("reset", "--yes")
    assert 0 == cli.main(["store", "keys"], app=app)
    assert "0 of 0 are ours" in capsys.readouterr().out
    cli.main(["limits"], app=app)  # 1 where other tests of this process left declarations
    assert "5 per 60 s by ip" in capsys.readouterr().out


def test_flask_failsoft(make: Make) -> None:
    """``flask failsoft`` has the same commands, for Flask's own application, and their exit status."""
    app = make(limits=["9/day"])
    runner = app.test_cli_runner()
    done = runner.invoke(command, ["explain", "GET", "/nowhere", "--no-store", "--address", "192.0.2.1"])
    assert (0, True) == (done.exit_code, "ip:192.0.2.1" in done.output)
    assert "404 Not Found" in done.output
    assert 2 == runner.invoke(command, ["explain", "GET", "nowhere"]).exit_code
    done = runner.invoke(command, ["--help"])
    assert (0, True) == (done.exit_code, "usage: flask failsoft" in done.output)


def test_flask_failsoft_sessions(make: Make) -> None:
    """``flask failsoft sessions`` lists, shows and revokes the sessions of a user, with the application's own settings."""
    app = make(sessions=True, secret="a secret for tests, of forty characters.")

    @app.get("/login/<who>")
    def log_in(who: str) -> str:
        session: Any = flask_session
        session.login(who)
        return "x"

    client, runner = app.test_client(), app.test_cli_runner()
    poll(lambda: client.get("/login/alice", base_url="https://localhost").status_code == 200)
    found = json.loads(runner.invoke(command, ["sessions", "list", "alice", "--json"]).output)["sessions"]
    assert [True] == ["Werkzeug" in one["device"] for one in found]
    handle = found[0]["handle"]
    assert f"{handle}: alice, logged in" in runner.invoke(command, ["sessions", "show", handle]).output
    assert 1 == runner.invoke(command, ["sessions", "revoke", "bob", handle]).exit_code
    assert 0 == runner.invoke(command, ["sessions", "revoke", "alice", handle]).exit_code
    assert (0, "0\n") == (
        (done := runner.invoke(command, ["sessions", "count", "alice"])).exit_code,
        done.output,
    )
