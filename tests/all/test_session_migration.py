"""Sessions of Flask-Session, of Django's cache and of django-redis go on in failsoft, made by the packages themselves."""

import json
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from datetime import UTC, datetime
from decimal import Decimal
from typing import Any, Final

import pytest
import redis
from django.contrib.auth import get_user_model, login
from django.core.cache import caches
from django.core.handlers.asgi import ASGIHandler
from django.core.handlers.wsgi import WSGIHandler
from django.core.management import call_command
from django.db import connections
from django.http import HttpRequest, HttpResponse, JsonResponse
from django.test import override_settings
from django.urls import path
from flask import Flask, flash, jsonify, session
from flask_login import LoginManager, current_user, login_user

from failsoft.runtime import Runtime
from failsoft.settings import Settings
from failsoft.testing import App, AsgiApp, WsgiApp
from failsoft.testing.contract.session_site import Browser
from failsoft.testing.harness import Reply
from failsoft_django import get_runtime
from failsoft_flask import Failsoft
from tests.django.harness import as_received, configure
from tests.flask.browsers import User
from tests.servers import Valkey, poll

configure()

pytestmark = [
    pytest.mark.processes,  # for a server of its own, which goes away
    pytest.mark.filterwarnings("ignore:.*utcnow:DeprecationWarning:flask_login"),
]

SECRET: Final = "a secret for tests, of forty characters."
SINCE: Final = datetime(2026, 11, 23, 4, 5, tzinfo=UTC)
CART: Final = [{"sku": "a-1", "count": 2}]


@pytest.fixture(scope="module")
def server() -> Iterator[Valkey]:
    """One that keeps what it has while it is away."""
    with Valkey("--appendonly", "yes", "--appendfsync", "always") as server:
        yield server


def _cookies(reply: Reply) -> dict[str, str]:
    pairs = (line.split(";")[0].partition("=") for line in reply.lines("Set-Cookie"))
    return {name: value for name, _, value in pairs}


def _carried_over(server: Valkey, new: App, name: str, old: str, key: str, expected: Any) -> Browser:
    """Serve the cookie `old` of the other package with `new`; returns the browser that brought it."""
    before = {name: old}
    poll(lambda: new.get("/ping").header("degraded") is None)
    assert 1 == server.run("EXISTS", key)

    server.kill()
    try:
        browser = Browser(new, before)
        reply = browser.get("/me")
        assert (503, [], before) == (reply.status, reply.lines("Set-Cookie"), browser.jar)
    finally:
        server.start()
    poll(lambda: new.get("/me", ("Cookie", "x=y")).status == 200 and _answers(new, name))

    both = new.burst(2, "GET", "/me", headers=[("User-Agent", "contract"), ("Cookie", f"{name}={old}")])
    assert [(200, expected)] * 2 == [(reply.status, reply.json()) for reply in both]
    given = [_cookies(reply) for reply in both]
    for jar in given:
        assert {name, f"{name}-seal"} == set(jar)
        assert old not in jar[name]
        assert expected == Browser(new, jar).get("/me").json()
    assert given[0][name] != given[1][name]
    assert 0 < server.run("PTTL", key) <= 1000
    late = Browser(new, before)  # under way with the old cookie
    assert expected == late.get("/me").json()
    poll(lambda: server.run("EXISTS", key) == 0)

    browser = Browser(new, given[0])
    assert 200 == browser.get("/add").status
    assert {**expected, "cart": [*CART, "more"]} == browser.get("/me").json()
    assert old not in str(server.run("KEYS", "*"))
    reply = Browser(new, before).get("/me")
    assert (200, None) == (reply.status, reply.json()["user"])
    return browser


def _answers(app: App, name: str) -> bool:
    """Whether the store is back, as whoever has a session sees it."""
    return app.get("/me", ("Cookie", f"{name}={'x' * 59}")).status == 200


# Flask-Session


def _shop() -> Flask:
    app = Flask("shop", static_folder=None)
    app.secret_key = "the same before and after"
    LoginManager(app).user_loader(User)

    @app.get("/ping")
    def ping() -> str:
        return "ok"

    @app.get("/enter/<name>")
    def enter(name: str) -> str:
        login_user(User(name))
        session["cart"] = CART
        session["since"] = SINCE
        return "ok"

    @app.get("/me")
    def me() -> Any:
        since = session.get("since")
        return jsonify(
            user=current_user.get_id() if current_user.is_authenticated else None,
            cart=session.get("cart"),
            since=since.isoformat() if isinstance(since, datetime) else since,
            fresh=session.get("_fresh"),
        )

    @app.get("/flash")
    def say() -> str:
        flash("Please log in.")
        return "ok"

    @app.get("/add")
    def add() -> str:
        session["cart"].append("more")
        return "ok"

    return app


@contextmanager
def _shops(
    server: Valkey, *, secure: bool = False, prefix: str | None = None, **config: Any
) -> Iterator[tuple[App, App]]:
    """The shop before, on Flask-Session with this configuration, and after, on what takes its sessions over."""
    from flask_session import Session  # type: ignore[import-untyped]  # it ships no types

    server.run("FLUSHALL")  # the test before has revoked whatever this user had
    old, new = _shop(), _shop()
    with redis.Redis(port=server.port) as client:
        old.config.update(SESSION_TYPE="redis", SESSION_REDIS=client, SESSION_COOKIE_SECURE=secure, **config)
        Session(old)
        runtime = Runtime(
            Settings(
                store=server.url,
                deadline=5,
                sessions=True,
                secret=SECRET,
                cookie_secure=secure,
                session_grace=1,
                session_import="flask-session",
                session_import_prefix=prefix,
            )
        )
        Failsoft(new, runtime=runtime)
        with WsgiApp(new, runtime) as after:
            yield WsgiApp(old, Runtime(Settings())), after


@pytest.mark.parametrize("style", ["msgpack", "json"])
@pytest.mark.parametrize("prefix", [None, "shop-session:"])
def test_flask_session(server: Valkey, style: str, prefix: str | None) -> None:
    """Whoever Flask-Session knew is known, and has all that was in the session."""
    config = {} if prefix is None else {"SESSION_KEY_PREFIX": prefix}
    with _shops(server, prefix=prefix, SESSION_SERIALIZATION_FORMAT=style, **config) as (before, after):
        visitor = Browser(before)
        assert 200 == visitor.get("/enter/ada").status
        cookie = visitor.jar["session"]
        # What their JSON made of it is a text.
        since = SINCE.isoformat() if style == "msgpack" else SINCE.isoformat().replace("+00:00", "Z")
        expected = {"user": "ada", "cart": CART, "since": since, "fresh": True}
        key = f"{prefix or 'session:'}{cookie}"
        browser = _carried_over(server, after, "session", cookie, key, expected)
        sessions = after.runtime.sessions
        assert sessions is not None
        assert browser.jar["session"][:16] in [one.handle for one in sessions.subjects.list("ada")]
        sessions.subjects.revoke_all("ada")
        assert None is browser.get("/me").json()["user"]


@pytest.mark.parametrize("secure", [False, True], ids=["same-name", "__Host-"])
@pytest.mark.parametrize("page", ["/me", "/flash"])
def test_flask_session_while_both_run(server: Valkey, secure: bool, page: str) -> None:
    """A process of before does not know who was carried over; under the same name, what it writes takes their session away."""
    with _shops(server, secure=secure) as (before, after):
        browser = Browser(before)
        assert 200 == browser.get("/enter/ada").status
        poll(lambda: after.get("/ping").header("degraded") is None)
        seen = []
        for app, path in ((after, "/me"), (before, page), (before, "/me"), (after, "/me")):
            browser = Browser(app, browser.jar)
            reply = browser.get(path)
            seen.append(reply.json()["user"] if path == "/me" else None)
    kept = secure or page == "/me"
    assert ["ada", None, None, "ada" if kept else None] == seen


# Django's cache, and django-redis


def _ping(request: HttpRequest) -> HttpResponse:
    return HttpResponse("ok")


def _enter(request: HttpRequest, name: str) -> HttpResponse:
    login(request, get_user_model().objects.get(username=name), backend="django.contrib.auth.backends.ModelBackend")
    request.session.update({"cart": CART, "since": SINCE, "total": Decimal("1.20")})
    return HttpResponse("ok")


def _me(request: HttpRequest) -> HttpResponse:
    found = {key: request.session.get(key) for key in ("cart", "since", "total")}
    found["user"] = request.user.get_username() or None
    return HttpResponse(json.dumps(found, default=str), content_type="application/json")


def _add(request: HttpRequest) -> HttpResponse:
    request.session["cart"].append("more")
    return JsonResponse({})


URLS: Final = (path("ping", _ping), path("enter/<name>", _enter), path("me", _me), path("add", _add))
AUTH: Final = "django.contrib.auth.middleware.AuthenticationMiddleware"


def _forget() -> None:
    """This thread's connection to the database."""
    connections.close_all()
    with suppress(AttributeError):
        del connections["default"]


@pytest.fixture(scope="module")
def user(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """A user in a database, in a file."""
    known = connections.settings["default"]
    before, known["NAME"] = known["NAME"], str(tmp_path_factory.mktemp("django") / "db")
    _forget()
    with override_settings(PASSWORD_HASHERS=["django.contrib.auth.hashers.MD5PasswordHasher"]):
        call_command("migrate", verbosity=0, interactive=False)
        users: Any = get_user_model().objects
        users.create_user("ada", password="a long password")
        yield
    _forget()
    known["NAME"] = before


@contextmanager
def _django(asgi: bool, middleware: tuple[str, ...], **changed: Any) -> Iterator[App]:
    with ExitStack() as stack:
        stack.enter_context(override_settings(MIDDLEWARE=[*middleware, AUTH], ROOT_URLCONF=URLS, **changed))
        runtime = get_runtime()
        app = AsgiApp(ASGIHandler(), runtime) if asgi else WsgiApp(as_received(WSGIHandler()), runtime)
        yield stack.enter_context(app)


@pytest.mark.parametrize("asgi", [False, True], ids=["wsgi", "asgi"])
@pytest.mark.parametrize("kind", ["django-cache", "django-redis"])
def test_django(server: Valkey, user: None, kind: str, asgi: bool) -> None:
    """Whoever django.contrib.auth knew is known, by the same password, and has all that was in the session."""
    backend = (
        "django.core.cache.backends.redis.RedisCache" if kind == "django-cache" else "django_redis.cache.RedisCache"
    )
    stock = {
        "SESSION_ENGINE": "django.contrib.sessions.backends.cache",
        "CACHES": {"default": {"BACKEND": backend, "LOCATION": server.url}},
        "FAILSOFT": {"limits": []},
    }
    with _django(False, ("django.contrib.sessions.middleware.SessionMiddleware",), **stock) as old:
        visitor = Browser(old)
        assert 200 == visitor.get("/enter/ada").status
        caches["default"].close()
    cookie = visitor.jar["sessionid"]
    ours = {
        "SESSION_ENGINE": "failsoft_django.sessions",
        "SESSION_COOKIE_SECURE": False,
        "FAILSOFT": {
            "store": server.url,
            "deadline": 5,
            "secret": SECRET,
            "limits": [],
            "session_grace": 1,
            "session_import": kind,
        },
    }
    expected = {"user": "ada", "cart": CART, "since": str(SINCE), "total": "1.20"}
    with _django(asgi, ("failsoft_django.FailsoftMiddleware", "failsoft_django.SessionMiddleware"), **ours) as new:
        key = f":1:django.contrib.sessions.cache{cookie}"
        browser = _carried_over(server, new, "sessionid", cookie, key, expected)
        ada = get_user_model().objects.get(username="ada")
        ada.set_password("another long password")
        ada.save()
        assert None is browser.get("/me").json()["user"]


@pytest.mark.parametrize("secure", [False, True], ids=["same-name", "__Host-"])
def test_django_while_both_run(server: Valkey, user: None, secure: bool) -> None:
    """Likewise in Django, whose cache sessions delete a cookie of that name that they do not know, where the session is looked at."""
    server.run("FLUSHALL")
    stock = {
        "SESSION_ENGINE": "django.contrib.sessions.backends.cache",
        "SESSION_COOKIE_NAME": "sessionid",
        "SESSION_COOKIE_SECURE": secure,
        "CACHES": {"default": {"BACKEND": "django.core.cache.backends.redis.RedisCache", "LOCATION": server.url}},
        "FAILSOFT": {"limits": []},
    }
    ours = {
        "SESSION_ENGINE": "failsoft_django.sessions",
        "SESSION_COOKIE_NAME": "__Host-sessionid" if secure else "sessionid",
        "SESSION_COOKIE_SECURE": secure,
        "FAILSOFT": {
            "store": server.url,
            "deadline": 5,
            "secret": SECRET,
            "limits": [],
            "session_import": "django-cache",
        },
    }
    seen = []
    jar: dict[str, str] = {}
    for which, page in ((stock, "/enter/ada"), (ours, "/me"), (stock, "/me"), (ours, "/me")):
        own = "django.contrib" if which is stock else "failsoft_django"
        name = f"{own}.sessions.middleware.SessionMiddleware" if which is stock else f"{own}.SessionMiddleware"
        with _django(False, ("failsoft_django.FailsoftMiddleware", name), **which) as app:
            poll(lambda app=app: app.get("/ping", ("Cookie", "x=y")).header("degraded") is None)
            if which is ours:
                poll(lambda app=app: _answers(app, str(ours["SESSION_COOKIE_NAME"])))
            browser = Browser(app, jar)
            reply = browser.get(page)
            jar = browser.jar
            seen.append(reply.json()["user"] if page == "/me" else None)
            caches["default"].close()
    assert [None, "ada", None, "ada" if secure else None] == seen
