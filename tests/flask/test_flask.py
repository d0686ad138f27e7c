"""What is particular to Flask: its hooks, handlers, contexts, blueprints and configuration."""

import gc
import logging
import sys
import weakref
from collections.abc import Callable, Iterator
from contextlib import nullcontext
from functools import wraps
from types import SimpleNamespace
from typing import Any
from urllib.parse import urlencode

import pytest
from flask import (
    Blueprint,
    Flask,
    Response,
    copy_current_request_context,
    current_app,
    g,
    got_request_exception,
    request,
    request_finished,
    send_file,
    session,
    stream_with_context,
)
from flask.views import MethodView, View
from flask_login import LoginManager
from werkzeug.exceptions import HTTPException, TooManyRequests
from werkzeug.middleware.dispatcher import DispatcherMiddleware
from werkzeug.middleware.proxy_fix import ProxyFix
from werkzeug.test import Client, EnvironBuilder
from werkzeug.wsgi import FileWrapper

from failsoft import (
    ConfigurationError,
    LimitDecided,
    OutsideRequest,
    RateLimited,
    Rejected,
    Settings,
    exempt,
    late,
    limit,
)
from failsoft.exchange import current
from failsoft.runtime import Runtime
from failsoft.settings import SettingsError
from failsoft.testing import FaultyStore, LastStatus, ManualClock
from failsoft_flask import Failsoft, audit, extension, list_routes
from failsoft_flask.inspect import describe
from tests.flask.harness import login


def still(*, store: Any = None, concerns: Any = (), **settings: Any) -> Runtime:
    """A runtime whose time stands still."""
    return Runtime(Settings(**settings), clock=ManualClock(), random=lambda: 0.0, store=store, concerns=concerns)


def make(**options: Any) -> Flask:
    """An application with failsoft."""
    app = Flask(__name__, static_folder=None)
    app.secret_key = "for sessions"
    Failsoft(app, runtime=still(**options))
    return app


def get(app: Flask, path: str = "/", n: int = 1, **options: Any) -> list[int]:
    """The statuses of `n` GET requests."""
    return [app.test_client().get(path, **options).status_code for _ in range(n)]


def page() -> Callable[..., str]:
    """A view of its own, because what is declared on a function is found wherever the function is."""

    def ok(**params: Any) -> str:
        return "ok"

    return ok


class TestConfiguration:
    """Where settings come from."""

    def test_mapping(self) -> None:
        """Settings are read from app.config["FAILSOFT"]."""
        app = Flask(__name__)
        app.config["FAILSOFT"] = {"limits": ["2/minute"], "on_outage": "open"}
        Failsoft(app)
        assert [404, 404, 429] == get(app, n=3)
        assert "open" == app.extensions["failsoft"].settings.on_outage

    def test_settings(self) -> None:
        """Complete settings in app.config are used as they are; keyword arguments override them, too."""
        app = Flask(__name__)
        app.config["FAILSOFT"] = Settings(limits=["2/minute"], headers="both", secret="0123456789abcdef")
        Failsoft(app, limits="1/minute")
        settings = app.extensions["failsoft"].settings
        assert ("both", "0123456789abcdef") == (settings.headers, settings.secret)
        assert [404, 429] == get(app, n=2)

    def test_keywords_override(self) -> None:
        """Keyword arguments override the mapping, and what they do not say stays."""
        app = Flask(__name__)
        app.config["FAILSOFT"] = {"limits": ["2/minute"], "on_outage": "open"}
        Failsoft(app, limits=["1/minute"])
        assert "open" == app.extensions["failsoft"].settings.on_outage
        assert [404, 429] == get(app, n=2)

    def test_prefixed_environment(self, monkeypatch: pytest.MonkeyPatch) -> None:
        """Flask's own prefixed environment overrides the mapping that it is loaded over."""
        monkeypatch.setenv("FLASK_FAILSOFT__LIMITS", '["1/minute"]')
        monkeypatch.setenv("FLASK_FAILSOFT__PREFIX", "shop")
        app = Flask(__name__)
        app.config["FAILSOFT"] = {"limits": ["2/minute"]}
        app.config.from_prefixed_env()
        Failsoft(app)
        assert "shop" == app.extensions["failsoft"].settings.prefix
        assert [404, 429] == get(app, n=2)

    @pytest.mark.parametrize(
        ("key", "says"),
        [
            ("FAILSOFT_LIMITS", "FLASK_FAILSOFT__LIMITS"),
            (
                "FAILSOFT_LIMIT",
                "write app.config['FAILSOFT'] = {'limits': ...}, or the environment variable FLASK_FAILSOFT__LIMITS",
            ),
            ("FAILSOFT_CONFIG", "set the environment variable FAILSOFT_CONFIG"),
            ("failsoft", "write app.config['FAILSOFT']"),
        ],
    )
    def test_what_nothing_would_read(self, monkeypatch: pytest.MonkeyPatch, key: str, says: str) -> None:
        """A setting beside app.config["FAILSOFT"] is refused with the right spelling, and with every other mistake."""
        app = Flask(__name__)
        app.config["FAILSOFT"] = {"workers": 0}
        monkeypatch.setenv(f"FLASK_{key}", "5/minute")
        app.config.from_prefixed_env()
        with pytest.raises(SettingsError) as caught:
            Failsoft(app)
        other, problem = caught.value.problems
        assert ("workers", "failsoft.E005", f"app.config[{key!r}]") == (other.key, problem.id, problem.where)
        assert says in problem.hint
        assert "5/minute" not in str(problem)
        app.config["FAILSOFT"] = {}
        with pytest.raises(SettingsError, match="is not read"):
            Failsoft(app)

    def test_what_only_looks_misplaced(self, monkeypatch: pytest.MonkeyPatch) -> None:
        """What holds all the same, and what is the application's own, is left alone."""
        monkeypatch.setenv("FAILSOFT_PREFIX", "shop")
        app = Flask(__name__)
        app.config.update(FAILSOFT_PREFIX="shop", FAILSOFT_BY="user", FAILSOFT_LIMITS="1/day", FAILSOFT_STORE_URL="x")
        app.config["FAILSOFT"] = {"LIMITS": [app.config["FAILSOFT_LIMITS"]]}
        Failsoft(app, by="ip")
        assert "shop" == app.extensions["failsoft"].settings.prefix

    @pytest.mark.parametrize(
        ("text", "value", "copied"),
        [
            ('["1/minute", "9/day"]', ["1/minute", "9/day"], True),
            ("1/minute; 9/day", ["1/minute", "9/day"], True),
            ("1/minute", "1/minute", True),
            ("1/minute", ["2/minute"], False),
            ("nonsense", ["2/minute"], False),
            ("", ["2/minute"], False),
        ],
    )
    def test_copies_from_the_environment(
        self, monkeypatch: pytest.MonkeyPatch, text: str, value: Any, copied: bool
    ) -> None:
        """What an application has read from the environment by itself, and so in a form of its own, is left alone too."""
        monkeypatch.setenv("FAILSOFT_LIMITS", text)
        app = Flask(__name__)
        app.config["FAILSOFT_LIMITS"] = value
        with nullcontext() if copied else pytest.raises(SettingsError, match="is not read here"):
            Failsoft(app)

    @pytest.mark.parametrize(
        ("inside", "beside"), [(["9/minute"], "1/minute"), (["9/minute"], 7), ("nonsense", "1/minute")]
    )
    def test_another_beside(self, inside: Any, beside: Any) -> None:
        """A setting beside the mapping that says something else than the mapping is refused: somebody takes it for what holds."""
        app = Flask(__name__)
        app.config.update(FAILSOFT={"Limits": inside}, FAILSOFT_LIMITS=beside)
        with pytest.raises(SettingsError) as caught:
            Failsoft(app)
        problem = caught.value.problems[-1]
        assert ("failsoft.E005", "app.config['FAILSOFT_LIMITS']") == (problem.id, problem.where)
        assert problem.message.endswith("app.config['FAILSOFT'] says another 'limits'")

    @pytest.mark.parametrize(
        ("before", "after", "times"),
        [
            ({}, {"FAILSOFT": {"limits": ["1/minute"]}}, 1),
            ({"FAILSOFT": {"limits": ["9/minute"]}}, {"FAILSOFT": Settings()}, 1),
            ({"FAILSOFT": {"limits": ["9/minute"]}}, {"FAILSOFT": {"limits": ["9/minute"]}}, 0),
            ({}, {"FAILSOFT_LIMITS": ["1/minute"]}, 1),
            ({}, {"FAILSOFT_STORE_URL": "x"}, 0),
        ],
    )
    def test_too_late(self, caplog: pytest.LogCaptureFixture, before: Any, after: Any, times: int) -> None:
        """What comes into the configuration after it was read is told of at the first request, once."""
        app = Flask(__name__)
        app.config.update(before)
        Failsoft(app)
        app.config.update(after)
        assert [404, 404] == get(app, n=2)
        said = [record.getMessage() for record in caplog.records if "app.config" in record.getMessage()]
        assert times == len(said)
        if "FAILSOFT" in after:
            assert all("set it before, or call init_app(app) once" in one for one in said)

    def test_in_time(self, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch) -> None:
        """What is a copy of a variable that was read is not told of when the environment has it no more."""
        app = Flask(__name__)
        with monkeypatch.context() as environment:
            environment.setenv("FAILSOFT_LIMITS", "1/minute")
            app.config["FAILSOFT_LIMITS"] = "1/minute"
            Failsoft(app)
        assert [404, 429] == get(app, n=2)
        assert [] == [record for record in caplog.records if "app.config" in record.getMessage()]

    def test_too_late_in_place(self, caplog: pytest.LogCaptureFixture) -> None:
        """The same of a mapping that was added to; and nothing of one that nobody was to read."""
        for runtime, expected in ((None, 1), (still(), 0)):
            app = Flask(__name__)
            app.config["FAILSOFT"] = {}
            Failsoft(app, runtime=runtime)
            app.config["FAILSOFT"]["limits"] = ["1/minute"]
            caplog.clear()
            assert [404] == get(app)
            assert expected == len([one for one in caplog.records if "app.config['FAILSOFT']" in one.getMessage()])

    def test_environment(self, monkeypatch: pytest.MonkeyPatch) -> None:
        """What is said nowhere in the application comes from FAILSOFT_* variables."""
        monkeypatch.setenv("FAILSOFT_LIMITS", "1/minute")
        monkeypatch.setenv("FAILSOFT_PREFIX", "overridden")
        app = Flask(__name__)
        app.config["FAILSOFT"] = {"prefix": "shop"}
        Failsoft(app)
        assert "shop" == app.extensions["failsoft"].settings.prefix
        assert [404, 429] == get(app, n=2)

    @pytest.mark.parametrize(
        ("config", "options", "said"),
        [
            ({"limit": ["1/minute"]}, {}, r"app\.config\['FAILSOFT'\]\['limit'\]"),
            (None, {"limits": ["often"]}, "'often'"),
            (None, {"limit": ["1/minute"]}, r"Failsoft\(\.\.\.\)\['limit'\]"),
            ("redis://localhost", {}, "mapping"),
            (Settings(), {"stor": "memory://"}, "stor"),
        ],
    )
    def test_mistakes(self, config: Any, options: dict[str, Any], said: str) -> None:
        """A mistake in the configuration is an error when the application is set up."""
        app = Flask(__name__)
        app.config["FAILSOFT"] = config
        with pytest.raises(ConfigurationError, match=said):
            Failsoft(app, **options)

    @pytest.mark.parametrize("before", [True, False])
    def test_late_functions_that_do_not_fit(self, before: bool) -> None:
        """Flask gives a view its arguments by name: a late function that lacks one is told when its route, or the extension, is added."""
        app = Flask(__name__)
        view = limit("1/minute", by=late(lambda owner: owner))(lambda item: item)
        if before:
            Failsoft(app)
        else:
            app.add_url_rule("/<item>", view_func=view)
        with pytest.raises(ConfigurationError, match=r"^/<item>: late\(.*its parameters are \(owner\): give it those"):
            app.add_url_rule("/<item>", view_func=view) if before else Failsoft(app)

    def test_late_functions_and_names_that_a_client_chose(self, caplog: pytest.LogCaptureFixture) -> None:
        """Where a decorator gives a view what a client sent, the client writes no lines into the log, and none of any length."""
        app = Flask(__name__)
        Failsoft(app)

        def with_sent(view: Callable[..., str]) -> Callable[..., str]:
            return wraps(view)(lambda **given: view(**given, **request.args.to_dict()))

        @app.get("/<item>")
        @with_sent
        @limit("9/minute", by=late(lambda item: item))
        def view(item: str, **others: str) -> str:
            raise AssertionError

        names = [*(f"n{number}" for number in range(50)), "x\nERROR forged", "y" * 5000]
        assert 500 == app.test_client().get("/1?" + urlencode(dict.fromkeys(names, "1"))).status_code
        (error,) = [record.exc_info[1] for record in caplog.records if record.exc_info]
        assert "with (item=..., n0=..., " in str(error)
        assert "n14=..., **...), and its parameters are (item)" in str(error)

    @pytest.mark.parametrize("key", ["by", "late", "cost", "when", "quota", "settings"])
    def test_async_functions_without_asgiref(self, monkeypatch: pytest.MonkeyPatch, key: str) -> None:
        """Flask runs coroutines with a package of its extra: without it, what would be asked of them is a mistake at start."""

        async def asked(request: Any) -> Any: ...

        def made(cls: type[Flask] = Flask, *, patch: str = "") -> None:
            app = cls(__name__)
            if patch:
                setattr(app, patch, lambda func: func)
            options: dict[str, Any] = (
                {key: asked} if key in ("by", "cost", "when") else {"by": late(asked)} if key == "late" else {}
            )
            view = limit(asked if key == "quota" else "9/minute", **options)(lambda request: "ok")
            app.add_url_rule("/<request>", view_func=view)
            Failsoft(app, **({"by": asked, "limits": ["9/minute"]} if key == "settings" else {}))

        class Own(Flask):
            def async_to_sync(self, func: Any) -> Any: ...

        made()
        monkeypatch.setitem(sys.modules, "asgiref", None)
        made(Own)
        made(patch="async_to_sync")
        made(patch="ensure_sync")
        Failsoft(Flask(__name__), shed=True)  # which asks about each request itself, and of no user
        with pytest.raises(
            ConfigurationError, match=r"asked.*test_flask\.py:\d+.* is async: Flask needs asgiref.*install flask"
        ):
            made()

    def test_runtime_and_settings(self) -> None:
        """A runtime has its own settings."""
        with pytest.raises(ConfigurationError, match="limits"):
            Failsoft(Flask(__name__), runtime=Runtime(Settings()), limits=["1/minute"])

    def test_twice(self) -> None:
        """A second installation would charge everything twice, so it is an error."""
        app = make()
        with pytest.raises(ConfigurationError, match="already"):
            Failsoft(app)

    def test_several_applications(self) -> None:
        """One extension object serves any number of applications; each has a runtime of its own."""
        failsoft = Failsoft(limits=["1/minute"])
        apps = [Flask(f"app{number}") for number in range(2)]
        for app in apps:
            failsoft.init_app(app)
        assert [[404, 429], [404, 429]] == [get(app, n=2) for app in apps]

    def test_signals_hold_nothing(self) -> None:
        """An application that is dropped goes, with its runtime and all that it knows of the application's views."""

        def create() -> tuple[Any, Any]:
            app = make(limits=["9/minute"])
            app.add_url_rule("/", view_func=limit("5/minute")(lambda: str(app.name)))
            assert [200] == get(app)
            return weakref.ref(app), weakref.ref(app.extensions["failsoft"])

        dropped = create()
        gc.collect()
        assert [None, None] == [reference() for reference in dropped]


class TestHooks:
    """When failsoft decides, and when it completes the response."""

    def test_before_every_before_request(self) -> None:
        """A function of before_request that was registered earlier and answers by itself answers no refused request."""
        app = Flask(__name__)
        app.before_request(lambda: "maintenance")
        Failsoft(app, limits=["1/minute"])
        assert [200, 429] == get(app, n=2)

    @pytest.mark.parametrize(
        ("method", "path", "status"),
        [
            ("GET", "/nowhere", 404),
            ("POST", "/", 405),
            ("GET", "/folder", 308),
            ("OPTIONS", "/", 200),
            ("GET", "/static/style.css", 200),
        ],
    )
    def test_whatever_answers(self, method: str, path: str, status: int, tmp_path: Any) -> None:
        """The application's limits count requests that no view of the user's answers."""
        (tmp_path / "style.css").write_text("p {}")
        app = Flask(__name__, static_folder=tmp_path, static_url_path="/static")
        Failsoft(app, limits=["1/minute"])
        app.add_url_rule("/", view_func=page())
        app.add_url_rule("/folder/", "folder", page())
        statuses = []
        for _ in range(2):
            with app.test_client().open(path, method=method) as response:
                statuses.append(response.status_code)
                assert response.headers["RateLimit"].startswith('"1-per-minute";r=0')
        assert [status, 429] == statuses

    def test_exempt_static_files(self, tmp_path: Any) -> None:
        """Static files are exempted as any view is."""
        (tmp_path / "style.css").write_text("p {}")
        app = Flask(__name__, static_folder=tmp_path, static_url_path="/static")
        Failsoft(app, limits=["1/minute"])
        exempt(app.view_functions["static"])
        for _ in range(2):
            with app.test_client().get("/static/style.css") as response:
                assert (200, b"p {}") == (response.status_code, response.data)

    def test_automatic_options_are_counted_with_their_view(self) -> None:
        """Flask's own answer to OPTIONS takes from the limit of the view that it is about."""
        app = make()
        app.add_url_rule("/", view_func=limit("2/minute")(page()))
        statuses = [app.test_client().open("/", method=method).status_code for method in ("OPTIONS", "GET", "OPTIONS")]
        assert [200, 200, 429] == statuses

    def test_after_request_sees_refusals(self) -> None:
        """Functions of after_request decorate refusals, as those of CORS extensions must."""
        app = make(limits=["1/minute"])

        @app.after_request
        def allow(response: Response) -> Response:
            response.headers["Access-Control-Allow-Origin"] = "*"
            return response

        replies = [app.test_client().get("/") for _ in range(2)]
        assert [(404, "*"), (429, "*")] == [
            (reply.status_code, reply.headers["Access-Control-Allow-Origin"]) for reply in replies
        ]

    def test_last_word(self) -> None:
        """A response that after_request puts in place of the view's has the fields, and the session's cookie stays."""
        app = Flask(__name__)
        app.secret_key = "for the session"

        @app.after_request
        def replace(response: Response) -> Response:
            other = Response("other")
            other.set_cookie("own", "1")
            return other

        Failsoft(app, runtime=still(limits=["9/minute"]))

        @app.get("/")
        def index() -> str:
            session["seen"] = True
            return "view"

        reply = app.test_client().get("/")
        assert ("other", '"9-per-minute";r=8;t=60') == (reply.text, reply.headers["RateLimit"])
        assert ["own", "session"] == [line.partition("=")[0] for line in reply.headers.getlist("Set-Cookie")]

    @pytest.mark.parametrize("place", ["view", "before_request", "after_request"])
    def test_errors_are_counted_and_told(self, place: str) -> None:
        """A response to an error has the fields, wherever the error came from."""
        app = make(limits=["1/minute"])
        failed: list[bool] = []

        def fail(*args: Any) -> Any:
            if failed:  # Flask calls after_request functions again, for its answer to the error
                return args[0]
            failed.append(True)
            raise LookupError("a bug")

        if place == "view":
            app.add_url_rule("/", view_func=fail)
        else:
            getattr(app, place)(fail)
        reply = app.test_client().get("/")
        assert (500, ['"1-per-minute";r=0;t=60']) == (reply.status_code, reply.headers.getlist("RateLimit"))

    def test_another_receiver_fails(self) -> None:
        """Where a receiver of request_finished fails, Flask answers 500, with the fields; all is settled once."""
        app = make(limits=["9/minute"])
        app.add_url_rule("/", view_func=page())
        settled: list[int] = []
        runtime = app.extensions["failsoft"]
        finish = runtime.finish

        def counted(exchange: Any, status: int) -> Any:
            settled.append(status)
            return finish(exchange, status)

        runtime.finish = counted
        failed: list[bool] = []

        def fail(sender: Flask, **_: Any) -> None:
            if not failed:
                failed.append(True)
                raise LookupError("a bug")

        with request_finished.connected_to(fail, app):
            reply = app.test_client().get("/")
        assert (500, 1) == (reply.status_code, len(settled))
        assert ['"9-per-minute";r=8;t=60'] == reply.headers.getlist("RateLimit")

    @pytest.mark.parametrize("place", ["after_request", "server"])
    def test_settled_without_a_response(self, place: str) -> None:
        """A request whose response cannot be completed, or that has none, is settled all the same, and once."""
        store = FaultyStore()
        app = make(store=store, concerns=[LastStatus()])

        def fail(*args: Any) -> Any:
            raise LookupError("a bug")

        if place == "after_request":
            app.after_request(fail)
            assert [500] == get(app)
        else:
            app.add_url_rule("/", view_func=fail)
            app.testing = True
            with pytest.raises(LookupError):
                get(app)
        assert [("toy.load",), ("toy.save",)] == list(store.flights)

    def test_settling_never_fails_a_request(self, caplog: pytest.LogCaptureFixture) -> None:
        """What goes wrong in settling is logged, and the response goes out."""
        app = make()
        app.add_url_rule("/", view_func=page())

        def fail(exchange: Any, status: int) -> Any:
            raise LookupError("a bug of ours")

        app.extensions["failsoft"].finish = fail
        assert [200] == get(app)
        assert ["a bug of ours"] == [str(record.exc_info[1]) for record in caplog.records if record.exc_info]

    def test_function_that_fails(self) -> None:
        """An error in a function that the user gave is the application's error, as in a view."""

        def who(request: Any) -> str:
            raise LookupError("a bug")

        app = make()
        app.add_url_rule("/", view_func=limit("9/minute", by=who)(page()))
        seen: list[BaseException] = []
        with got_request_exception.connected_to(lambda sender, exception: seen.append(exception), app):
            assert [500] == get(app)
        assert ["a bug"] == [str(error) for error in seen]


class TestHandlers:
    """Who answers a refused request."""

    @pytest.mark.parametrize("when", ["before", "after"])
    @pytest.mark.parametrize("kind", [RateLimited, Rejected])
    def test_own_handler(self, when: str, kind: type[Exception]) -> None:
        """A handler for our exceptions wins over ours, registered before or after failsoft."""
        app = Flask(__name__)

        def register() -> None:
            app.register_error_handler(kind, lambda rejected: (f"wait {rejected.retry_after}", 429))

        if when == "before":
            register()
        Failsoft(app, runtime=still(limits=["1/minute"]))
        if when == "after":
            register()
        assert [404] == get(app)
        reply = app.test_client().get("/")
        assert (429, "wait 60") == (reply.status_code, reply.text)
        assert ("60", "no-store") == (reply.headers["Retry-After"], reply.headers["Cache-Control"])
        assert '"1-per-minute";r=0;t=60' == reply.headers["RateLimit"]

    def test_blueprint_handler(self) -> None:
        """A blueprint's handler answers for its routes."""
        app = make()
        api = Blueprint("api", __name__)
        api.register_error_handler(RateLimited, lambda rejected: ({"error": "slow down"}, 429))
        for target in (app, api):
            target.add_url_rule("/", "index", limit("1/minute")(lambda: "ok"))
        app.register_blueprint(api, url_prefix="/api")
        for path in ("/", "/api/"):
            assert [200] == get(app, path)
        assert {"error": "slow down"} == app.test_client().get("/api/").json
        assert 429 == (app.test_client().get("/").json or {}).get("status")

    @pytest.mark.parametrize("kind", [429, TooManyRequests, HTTPException])
    def test_handler_of_the_status(self, kind: Any) -> None:
        """An application's page for the status, or for every HTTP error, is shown; the fields are there as well."""
        app = make(limits=["1/minute"])
        app.register_error_handler(kind, lambda error: (f"page for {error.code}", error.code))
        assert [404] == get(app)
        reply = app.test_client().get("/")
        assert (429, "page for 429") == (reply.status_code, reply.text)
        assert ("60", "no-store") == (reply.headers["Retry-After"], reply.headers["Cache-Control"])

    def test_handler_of_the_status_in_a_blueprint(self) -> None:
        """A blueprint's page for the status is shown for its routes."""
        app = make()
        api = Blueprint("api", __name__)
        api.register_error_handler(429, lambda error: ("page", 429))
        api.add_url_rule("/", "index", limit("1/minute")(page()))
        app.register_blueprint(api)
        assert [200] == get(app)
        assert (429, "page") == ((reply := app.test_client().get("/")).status_code, reply.text)

    def test_handler_that_asks_for_the_response(self) -> None:
        """To a handler of HTTP errors the refusal looks as others do: it has a code, a description and a response."""
        app = make(limits=["1/minute"])

        @app.errorhandler(HTTPException)
        def as_json(error: HTTPException) -> Any:
            response = error.get_response()
            response.data = f"{error.code}: {error.description}"
            return response

        assert [404] == get(app)
        reply = app.test_client().get("/")
        assert "429: Too many requests for 1-per-minute. Retry in 60 s." == reply.text
        assert ["60"] == reply.headers.getlist("Retry-After")

    def test_catch_all_does_not_catch_refusals(self) -> None:
        """A handler for Exception, which Flask asks about HTTP errors too, makes no 500 of a refusal."""
        app = make(limits=["1/minute"])
        app.register_error_handler(Exception, lambda error: ("oh no", 500))
        assert [500, 429] == get(app, n=2)

    def test_own_cache_control_stays(self) -> None:
        """What an own handler says about caching stands."""
        app = make(limits=["1/minute"])
        app.register_error_handler(RateLimited, lambda rejected: ("", 429, {"Cache-Control": "private"}))
        app.test_client().get("/")
        assert ["private"] == app.test_client().get("/").headers.getlist("Cache-Control")

    def test_view_that_catches(self) -> None:
        """A view that catches a late refusal and answers in its own way is not told off in the header."""
        helper = limit("1/minute")(lambda: "full")
        app = make()

        @app.get("/")
        def index() -> str:
            try:
                return helper()
            except RateLimited:
                return "reduced"

        replies = [app.test_client().get("/") for _ in range(2)]
        assert [("full", None), ("reduced", None)] == [
            (reply.text, reply.headers.get("Retry-After")) for reply in replies
        ]

    def test_debug_mode(self) -> None:
        """A refusal is a response also where errors are propagated."""
        app = make(limits=["1/minute"])
        app.testing = app.debug = True
        app.config["TRAP_HTTP_EXCEPTIONS"] = True
        app.register_error_handler(404, lambda error: ("", 404))
        app.add_url_rule("/", view_func=page())
        assert [200, 429] == get(app, n=2)


class TestViews:
    """Where declarations are found."""

    @staticmethod
    def flights(app: Flask, path: str = "/", method: str = "GET") -> int:
        """Trips to the store for one request: one where everything was found early."""
        runtime = app.extensions["failsoft"]
        store = runtime.store = FaultyStore(clock=runtime.clock)
        assert 200 == app.test_client().open(path, method=method).status_code
        return len(store.flights)

    @pytest.mark.parametrize("every", [True, False])
    def test_decorators_attribute(self, every: bool) -> None:
        """The attribute `decorators` of a class-based view takes limits, with one instance or many."""

        class Page(View):
            decorators = [limit("2/minute"), limit("9/minute")]  # noqa: RUF012 - as Flask's documentation has it
            init_every_request = every

            def dispatch_request(self) -> str:
                return "ok"

        app = make()
        app.add_url_rule("/", view_func=Page.as_view("page"))
        assert 1 == self.flights(app)
        assert [200, 429] == get(app, n=2)

    def test_class_and_handler(self) -> None:
        """Limits on a MethodView count all of its methods, those on a handler its own; HEAD is served by `get`."""

        @limit("3/minute", name="all")
        class Items(MethodView):
            @limit("2/minute", name="get")
            def get(self) -> str:
                return "ok"

            def post(self) -> str:
                return "made"

        app = make()
        app.add_url_rule("/", view_func=Items.as_view("items"))
        client = app.test_client()
        assert '"all";r=2;t=60, "get";r=1;t=60' == client.get("/").headers["RateLimit"]
        assert '"all";r=1;t=60, "get";r=0;t=60' == client.head("/").headers["RateLimit"]
        assert '"all";r=0;t=60' == client.post("/").headers["RateLimit"]
        assert 429 == client.post("/").status_code

    def test_inherited_dispatch(self) -> None:
        """A limit on one class-based view does not reach its base class or its sisters."""

        class Base(MethodView):
            def get(self) -> str:
                return "ok"

        @limit("1/minute")
        class Limited(Base):
            pass

        app = make()
        for cls in (Base, Limited):
            app.add_url_rule(f"/{cls.__name__}", view_func=cls.as_view(cls.__name__))
        assert [200, 200] == get(app, "/Base", n=2)
        assert [200, 429] == get(app, "/Limited", n=2)

    def test_async_handler(self) -> None:
        """An async handler of a MethodView is limited, early and late."""

        class Page(MethodView):
            @limit("9/minute", by=late(lambda self, name: name))
            @limit("2/minute")
            async def get(self, name: str) -> str:
                return name

        app = make()
        app.add_url_rule("/<name>", view_func=Page.as_view("page"))
        assert 2 == self.flights(app, "/a")
        assert [200, 429] == get(app, "/b", n=2)

    def test_nested_blueprints(self) -> None:
        """A route in nested blueprints is known by its whole template, and each route counts for itself."""
        app = make()
        inner, outer = Blueprint("inner", __name__), Blueprint("outer", __name__)
        inner.add_url_rule("/<int:number>", view_func=limit("1/minute", by="route")(page()), endpoint="item")
        outer.register_blueprint(inner, url_prefix="/inner")
        app.register_blueprint(outer, url_prefix="/outer")
        app.register_blueprint(outer, url_prefix="/again", name="again")
        routes: list[Any] = []
        app.extensions["failsoft"].listen(
            lambda event: routes.append(event.route) if isinstance(event, LimitDecided) else None
        )
        assert [200, 429] == [*get(app, "/outer/inner/1"), *get(app, "/outer/inner/2")]
        assert [200] == get(app, "/again/inner/1")
        assert ["/outer/inner/<int:number>"] * 2 + ["/again/inner/<int:number>"] == routes

    def test_no_view(self) -> None:
        """An endpoint that has no view function is counted by the application's limits; what follows is Flask's."""
        app = make(limits=["1/minute"])
        app.add_url_rule("/", "nobody")
        app.before_request(lambda: "answered")
        assert [200, 429] == get(app, n=2)

    def test_async_function_given(self) -> None:
        """Async functions of the user's are run as the application runs async views."""
        ran: list[Any] = []

        class Own(Flask):
            def async_to_sync(self, func: Any) -> Any:
                ran.append(func)
                return super().async_to_sync(func)

        async def who(request: Any) -> str:
            return request.args["who"]  # type: ignore[no-any-return]  # a Flask request

        app = Own(__name__)
        Failsoft(app)
        app.add_url_rule("/", view_func=limit("1/minute", by=who)(page()))
        assert [200, 200, 429] == [*get(app, "/?who=a"), *get(app, "/?who=b"), *get(app, "/?who=a")]
        assert 3 == len(ran)

    def test_functions_see_flask(self) -> None:
        """Functions of the user's are given Flask's request, and may use its globals."""
        seen: list[Any] = []

        def who(given: Any) -> str:
            seen.append((given is request._get_current_object(), current_app.name, session.get("x"), dict(g.__dict__)))  # type: ignore[attr-defined]  # a LocalProxy
            return "me"

        app = make()
        app.add_url_rule("/", view_func=limit("9/minute", by=who)(page()))
        assert [200] == get(app)
        assert [(True, app.name, None, {})] == seen


class TestContexts:
    """Which request an exchange belongs to."""

    def test_no_request(self) -> None:
        """A request context made by hand is no request: a decorated function says so, and nothing is charged."""
        app = make()
        view = limit("1/minute")(page())
        app.add_url_rule("/", view_func=view)
        with app.test_request_context("/"), pytest.raises(OutsideRequest, match=r"test_flask\.py:\d+"):
            view()
        assert [200, 429] == get(app, n=2)

    def test_request_made_by_hand(self) -> None:
        """Dispatching in a request context made by hand is a request; it ends with the context."""
        app = make()
        app.add_url_rule("/", view_func=limit("1/minute")(page()))
        statuses = []
        for _ in range(2):
            with app.test_request_context("/", environ_base={"REMOTE_ADDR": "127.0.0.1"}):
                statuses.append(app.full_dispatch_request().status_code)
        assert [200, 429] == statuses

    def test_response_made_by_hand(self) -> None:
        """The response to a request that was made by hand has the fields, and what the request is charged is settled."""
        store = FaultyStore()
        app = make(store=store, limits=["9/minute"], concerns=[LastStatus()])
        app.add_url_rule("/", view_func=page())
        with app.test_request_context("/", environ_base={"REMOTE_ADDR": "127.0.0.1"}):
            assert ['"9-per-minute";r=8;t=60'] == app.full_dispatch_request().headers.getlist("RateLimit")
        assert ("toy.save",) == store.flights[-1]

    def test_preprocessed_by_hand(self) -> None:
        """What goes before views can be called by hand; then it is a request, in which views may be called."""
        app = make()
        view = limit("1/minute")(page())
        app.add_url_rule("/", view_func=view)
        with app.test_request_context("/", environ_base={"REMOTE_ADDR": "127.0.0.1"}):
            assert (None, "ok") == (app.preprocess_request(), view())
            assert current() is not None
        assert current() is None
        with app.test_request_context("/", environ_base={"REMOTE_ADDR": "127.0.0.1"}), pytest.raises(RateLimited):
            app.preprocess_request()

    @pytest.mark.parametrize("by", ["wsgi", "hand"])
    def test_same_environment(self, by: str) -> None:
        """A view may call the application with the environment that it was called with; each call is a request."""
        app = make(limits=["9/minute"])
        app.add_url_rule("/", view_func=page())

        @app.get("/again")
        def again() -> Any:
            request.environ["PATH_INFO"] = "/"
            if by == "wsgi":
                return Response.from_app(app, request.environ)
            with app.request_context(request.environ):
                return app.full_dispatch_request()

        reply = app.test_client().get("/again")
        assert ['"9-per-minute";r=7;t=60', '"9-per-minute";r=8;t=60'] == reply.headers.getlist("RateLimit")

    def test_stream_of_no_request(self) -> None:
        """A stream that is made in a context within a request, and belongs to no request, does not end that one."""
        app = make()
        ended: list[bool] = []

        @app.get("/")
        def index() -> str:
            exchange = current()
            assert exchange is not None
            exchange.at_end(lambda: ended.append(True))
            with app.test_request_context("/inner"):
                app.process_response(Response(iter([b"inner"]))).close()
            return str(len(ended))

        assert ("0", [True]) == (app.test_client().get("/").text, ended)

    def test_stream_that_is_not_sent(self) -> None:
        """Where the server does not take the response, the request has ended, though it is a stream."""
        app = make()
        ended: list[bool] = []

        @app.get("/")
        def index() -> Response:
            exchange = current()
            assert exchange is not None
            exchange.at_end(lambda: ended.append(True))
            return Response(iter([b"one"]))

        def refuse(*args: Any) -> Any:
            raise ConnectionError

        with pytest.raises(ConnectionError):
            app(EnvironBuilder().get_environ(), refuse)
        assert [True] == ended

    @pytest.mark.parametrize("lazily", ["calls", "starts"])
    def test_middleware_within(self, lazily: str) -> None:
        """Middleware that was there before failsoft may call the application, or start the response, with the first piece."""
        app = Flask(__name__)
        wsgi_app = app.wsgi_app

        def call_late(environ: Any, start_response: Any) -> Iterator[bytes]:
            yield from wsgi_app(environ, start_response)

        def start_late(environ: Any, start_response: Any) -> Iterator[bytes]:
            said: list[Any] = []
            body = wsgi_app(environ, lambda *given: said.extend(given))  # type: ignore[arg-type]  # nobody writes

            def pieces() -> Iterator[bytes]:
                start_response(*said)
                yield from body

            return pieces()

        app.wsgi_app = call_late if lazily == "calls" else start_late  # type: ignore[method-assign]  # the usual way
        Failsoft(app, runtime=still(limits=["1/minute"]))
        app.add_url_rule("/", view_func=page())
        replies = [app.test_client().get("/") for _ in range(2)]
        assert [200, 429] == [reply.status_code for reply in replies]
        assert ['"1-per-minute";r=0;t=60'] == replies[0].headers.getlist("RateLimit")

    def test_response_that_is_kept(self) -> None:
        """A response object that a view gives out again and again has the fields once."""
        app = make(limits=["9/minute"])
        kept = Response("kept")
        app.add_url_rule("/", view_func=lambda: kept)
        replies = [app.test_client().get("/") for _ in range(2)]
        assert [['"9-per-minute";r=8;t=60'], ['"9-per-minute";r=7;t=60']] == [
            reply.headers.getlist("RateLimit") for reply in replies
        ]

    def test_stream_that_is_replaced(self) -> None:
        """Where the answer to an error takes the place of a stream, the request ends with that answer."""
        app = make()
        app.add_url_rule("/", view_func=lambda: Response(iter([b"one", b"two"])))
        app.register_error_handler(500, lambda error: ("sorry", 500))
        ended: list[bool] = []

        def fail(sender: Flask, response: Response, **_: Any) -> None:
            exchange = current()
            assert exchange is not None
            if response.status_code == 200:
                exchange.at_end(lambda: ended.append(True))
                raise LookupError("a bug")

        with request_finished.connected_to(fail, app):
            assert [500] == get(app)
        assert [True] == ended

    @pytest.mark.parametrize("contents", ["test_request_context", "copy", "test_client", "app_context"])
    def test_contexts_within(self, contents: str) -> None:
        """What goes on in contexts within a request does not end it, nor complete another response than its own."""
        helper = limit("9/minute", name="helper", shared="helper")(lambda: "ok")
        app = make()
        app.add_url_rule("/inner", "inner", limit("5/minute", name="inner")(page()))

        @app.get("/")
        @limit("9/minute", name="outer")
        def outer() -> str:
            if contents == "test_request_context":
                with app.test_request_context("/inner"):
                    pass
            elif contents == "copy":
                copy_current_request_context(lambda: None)()
            elif contents == "test_client":
                reply = app.test_client().get("/inner")
                assert ['"inner";r=4;t=60'] == reply.headers.getlist("RateLimit")
            else:
                with app.app_context():
                    pass
            return helper()

        reply = app.test_client().get("/")
        assert ['"outer";r=8;t=60, "helper";r=8;t=60'] == [", ".join(reply.headers.getlist("RateLimit"))]

    def test_preserved_context(self) -> None:
        """A context that the test client brings back after the request is no request any more."""
        app = make()
        view = limit("2/minute")(page())
        app.add_url_rule("/", view_func=view)
        with app.test_client() as client:
            statuses = []
            for _ in range(3):
                statuses.append(client.get("/").status_code)
                assert "/" == request.path
                with pytest.raises(OutsideRequest):
                    view()
        assert [200, 200, 429] == statuses

    @pytest.mark.parametrize("error", [LookupError("a bug"), SystemExit(3)])
    def test_errors_that_propagate(self, error: BaseException) -> None:
        """A request that ends in an error for the server has ended."""
        app = make()
        app.testing = True

        @app.get("/")
        @limit("9/minute")
        def fail() -> str:
            raise error

        with pytest.raises(type(error)):
            app.test_client().get("/")
        assert current() is None

    @pytest.mark.parametrize("with_context", [True, False])
    def test_stream(self, with_context: bool) -> None:
        """Decorated functions find their request in what is streamed, and not between two pieces or after the end."""
        chunk = limit("2/minute", name="chunk")(lambda: b"x")
        between: list[Any] = []
        app = make()

        @app.get("/")
        @limit("9/minute")
        def stream() -> Response:
            def pieces() -> Iterator[bytes]:
                yield chunk()
                yield chunk()

            return Response(stream_with_context(pieces()) if with_context else pieces())

        body: list[bytes] = []
        result = Client(app).run_wsgi_app({**app.test_client().get("/none").request.environ, "PATH_INFO": "/"})
        for piece in result[0]:
            body.append(piece)
            between.append(current())
        result[0].close()  # type: ignore[attr-defined]  # a ClosingIterator
        assert ([b"x", b"x"], "200 OK") == (body, result[1])
        if not with_context:
            assert [None, None] == between
        assert current() is None

    def test_stream_is_limited(self) -> None:
        """A limit on what a stream calls is enforced in the stream: it breaks off."""
        chunk = limit("1/minute")(lambda: b"x")
        app = make()
        app.add_url_rule("/", view_func=lambda: Response(chunk() for _ in range(2)))
        assert b"xx" == app.test_client().get("/").data
        with pytest.raises(RateLimited):
            app.test_client().get("/")

    def test_stream_is_closed(self) -> None:
        """The view's own iterator is closed when the client hangs up, within its request."""
        closed: list[Any] = []
        app = make()

        @app.get("/")
        def stream() -> Response:
            def pieces() -> Iterator[bytes]:
                try:
                    yield b"one"
                    yield b"two"
                finally:
                    closed.append(current() is not None)

            return Response(pieces())

        response = app.test_client().get("/")
        assert b"one" == next(response.iter_encoded())
        response.close()
        assert [True] == closed

    def test_files_are_passed_on(self, tmp_path: Any) -> None:
        """A file goes to the server as Flask gives it, so that the server may send it by its own means."""
        (tmp_path / "file").write_bytes(b"content")
        app = make(limits=["9/minute"])
        app.add_url_rule("/", view_func=lambda: send_file(tmp_path / "file"))
        environ = {**EnvironBuilder().get_environ(), "REMOTE_ADDR": "127.0.0.1", "wsgi.file_wrapper": FileWrapper}
        result = app(environ, lambda status, headers, error=None: lambda data: None)
        assert FileWrapper is type(result)
        assert b"content" == b"".join(result)
        result.close()  # type: ignore[attr-defined]  # a FileWrapper, as just asserted

    def test_nested_applications(self) -> None:
        """Two applications in one, each with failsoft: each decides by itself, and both say so."""
        front, back = make(limits=["9/minute"]), make(limits=["5/minute"])
        back.add_url_rule("/", view_func=limit("2/minute", name="back")(page()))
        helper = limit("9/minute", name="front")(lambda: None)

        @front.get("/relay")
        def relay() -> Any:
            environ = {**request.environ, "PATH_INFO": "/"}
            response = Response.from_app(back, environ)
            helper()
            return response

        reply = front.test_client().get("/relay")
        assert ['"5-per-minute";r=4;t=60, "back";r=1;t=60', '"9-per-minute";r=8;t=60, "front";r=8;t=60'] == (
            reply.headers.getlist("RateLimit")
        )

    def test_mounted_applications(self) -> None:
        """Applications beside each other under one dispatcher count for themselves."""
        front, back = make(limits=["2/minute"]), make(limits=["1/minute"])
        client = Client(DispatcherMiddleware(front, {"/back": back}))
        peer = {"REMOTE_ADDR": "127.0.0.1"}
        paths = ("/back/", "/back/", "/", "/", "/")
        assert [404, 429, 404, 404, 429] == [client.get(path, environ_base=peer).status_code for path in paths]


class TestUsers:
    """`by="user"`."""

    @staticmethod
    def app(**options: Any) -> Flask:
        app = make()
        app.add_url_rule("/", view_func=limit("1/minute", by="user", **options)(page()))
        return app

    def test_flask_login(self) -> None:
        """The user is Flask-Login's; who is anonymous is counted by address."""
        app = self.app()
        login(app)
        names = [{"X-User": "ann"}, {"X-User": "bob"}, {}, {"X-User": "ann"}, {}]
        assert [200, 200, 200, 429, 429] == [get(app, headers=headers)[0] for headers in names]

    def test_loaded_once(self) -> None:
        """The user is looked up once, for failsoft and for the view."""
        from flask_login import current_user

        loads: list[str] = []
        app = make()
        manager = LoginManager(app)

        @manager.user_loader
        def load(name: str) -> Any:
            loads.append(name)
            return SimpleNamespace(is_authenticated=True, get_id=lambda: name)

        @app.get("/")
        @limit("9/minute", by="user")
        @limit("99/hour", by="user")
        def index() -> str:
            return str(current_user.get_id())

        client = app.test_client()
        with client.session_transaction() as stored:
            stored["_user_id"] = "ann"
        assert ("ann", ["ann"]) == (client.get("/").text, loads)

    def test_no_login_manager(self) -> None:
        """Without a login manager there is no user, whatever is installed."""
        assert [403] == get(self.app(on_missing="refuse"))

    def test_loader_that_fails(self) -> None:
        """An error in the application's loader is not taken for an anonymous user."""
        app = self.app(on_missing="exempt")
        manager = LoginManager(app)

        @manager.request_loader
        def load(request: Any) -> Any:
            raise AttributeError("a bug")

        assert [500] == get(app)

    def test_anonymous_is_nothing(self) -> None:
        """A login manager may have an anonymous user of any make, even none."""
        app = self.app(on_missing="refuse")
        login(app).anonymous_user = lambda: None
        assert [403] == get(app)


class TestProxyFix:
    """werkzeug's middleware that replaces the peer's address."""

    @staticmethod
    def warnings(caplog: pytest.LogCaptureFixture, trusted: list[str]) -> list[str]:
        app = make(limits=["1/minute"], trusted_proxies=trusted)
        app.wsgi_app = ProxyFix(app.wsgi_app)  # type: ignore[method-assign]  # werkzeug's documented way
        headers = {"X-Forwarded-For": "198.51.100.1"}
        assert [404, 429] == get(app, n=2, headers=headers)
        return [record.getMessage() for record in caplog.records if "ProxyFix" in record.getMessage()]

    def test_warning(self, caplog: pytest.LogCaptureFixture) -> None:
        """Beside trusted_proxies, which would go by the replaced address, it is warned of once."""
        (message,) = self.warnings(caplog, ["127.0.0.1"])
        assert "'127.0.0.1' by '198.51.100.1'" in message

    def test_alone(self, caplog: pytest.LogCaptureFixture) -> None:
        """Alone it is a choice."""
        assert [] == self.warnings(caplog, [])

    @pytest.mark.parametrize(("peer", "told"), [("203.0.113.9", 1), ("2001:db8::9", 1), ("10.0.0.7", 0), ("", 0)])
    def test_reached_by_clients(self, peer: str, told: int, caplog: pytest.LogCaptureFixture) -> None:
        """Where strangers connect to it, each may choose an address; that is warned of once. From near by it is a proxy."""
        app = make(limits=["1/minute"])
        app.wsgi_app = ProxyFix(app.wsgi_app)  # type: ignore[method-assign]  # werkzeug's documented way
        for number in range(3):
            headers = {"X-Forwarded-For": f"198.51.100.{number}"}
            assert [404] == get(app, headers=headers, environ_overrides={"REMOTE_ADDR": peer})
        assert [404] == get(app, environ_overrides={"REMOTE_ADDR": "203.0.113.9"})
        messages = [record.getMessage() for record in caplog.records if "ProxyFix" in record.getMessage()]
        assert [True] * told == [f"{peer!r} by '198.51.100.0'" in message for message in messages]

    def test_without_addresses(self, caplog: pytest.LogCaptureFixture) -> None:
        """Where it replaces no address there is nothing to warn of."""
        app = make(limits=["1/minute"], trusted_proxies=["127.0.0.1"])
        app.wsgi_app = ProxyFix(app.wsgi_app, x_for=0)  # type: ignore[method-assign]  # werkzeug's documented way
        assert [404, 404] == [get(app, headers={"X-Forwarded-For": f"198.51.100.{n}"})[0] for n in (1, 2)]
        assert [] == [record for record in caplog.records if "ProxyFix" in record.getMessage()]


class TestAudit:
    """What an application's author should know."""

    @staticmethod
    def hidden(view: Callable[..., Any]) -> Callable[..., Any]:
        """A decorator without functools.wraps."""
        return lambda **params: view(**params)

    def test_unattached(self, caplog: pytest.LogCaptureFixture) -> None:
        """A limit that no route leads to is told of once, by file and line, and enforced late."""
        app = make()
        app.add_url_rule("/", "index", self.hidden(limit("1/minute", name="hidden")(lambda: "ok")))
        assert [200, 429] == get(app, n=2)
        (lost,) = [declaration for declaration in audit(app) if declaration.policies[0].name == "hidden"]  # type: ignore[attr-defined]  # a limit
        (record,) = [record for record in caplog.records if lost.where in record.getMessage()]
        assert (logging.WARNING, "failsoft.flask") == (record.levelno, record.name)
        assert f"{__file__}:{self.test_unattached.__code__.co_firstlineno + 3}" == lost.where

    def test_applications_know_of_each_other(self, caplog: pytest.LogCaptureFixture) -> None:
        """What another application's route leads to is not lost."""
        first, second = make(), make()
        second.add_url_rule("/", view_func=limit("917/minute")(lambda: "ok"), endpoint="index")
        get(first)
        assert [] == [record for record in caplog.records if "917/minute" in record.getMessage()]

    def test_of_many(self, monkeypatch: pytest.MonkeyPatch) -> None:
        """One that has served is not looked at again: a test suite may make an application for each test, and keep them all."""
        looked: list[Flask] = []

        def look(app: Flask) -> list[Any]:
            looked.append(app)
            return []

        monkeypatch.setattr(extension, "targets_of_routes", look)
        lost = limit("918/minute")(lambda: "ok")  # else nobody need be asked
        applications = [make() for _ in range(6)]
        for app in applications[1:]:
            get(app, n=2)
        # The first serves nothing, those behind the one that looks have served nothing yet, and it does not ask itself.
        expected = [app for position in range(1, 6) for app in (applications[0], *applications[position + 1 :])]
        assert expected == [app for app in looked if app in applications]
        assert callable(lost)

    def test_list_routes(self) -> None:
        """Routes are listed by method and whole template, with what may carry declarations; not the automatic ones."""

        class Items(MethodView):
            def get(self) -> str:
                return "ok"

            def options(self) -> str:
                return "ok"

        app = make()
        items = Items.as_view("items")
        app.add_url_rule("/items", view_func=items)
        view = page()
        app.add_url_rule("/<name>", view_func=view, methods=["PUT", "POST"])
        app.add_url_rule("/built", "built", page(), build_only=True)
        assert [
            ("GET", "/items", (items, Items, Items.get)),
            ("OPTIONS", "/items", (items, Items, Items.options)),
            ("POST", "/<name>", (view,)),
            ("PUT", "/<name>", (view,)),
        ] == [route[:3] for route in list_routes(app)]

    def test_describe(self) -> None:
        """The description finds the application, in WSGI middleware or not; other objects are not its business."""
        app = make()
        for given in (app, ProxyFix(app)):
            description = describe(given)
            assert description is not None
            assert ("Flask", app.extensions["failsoft"]) == (description.framework, description.runtime)
        assert describe(object()) is None
        with pytest.raises(ConfigurationError, match="init_app"):
            describe(Flask(__name__))
