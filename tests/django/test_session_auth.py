"""What stands on sessions works as it did: django.contrib.auth, the admin, messages and CSRF tokens; and logins of other frameworks."""

import asyncio
import pickle
import sqlite3
from collections.abc import Callable, Iterator
from contextlib import closing, suppress
from typing import Any

import pytest
import redis
from django import VERSION
from django.conf import settings as django_settings
from django.contrib import admin, messages
from django.contrib.auth import (
    alogin,
    alogout,
    aupdate_session_auth_hash,
    login,
    logout,
    update_session_auth_hash,
    user_logged_out,
)
from django.contrib.auth.models import User
from django.contrib.auth.password_validation import password_validators_help_text_html, validate_password
from django.contrib.auth.views import LogoutView
from django.core.management import call_command
from django.db import connections, transaction
from django.http import HttpRequest, HttpResponse, HttpResponseRedirect
from django.middleware.csrf import get_token
from django.test import AsyncClient, Client, override_settings
from django.test.utils import CaptureQueriesContext
from django.urls import path

import failsoft_django
from failsoft.errors import SessionUnavailable
from failsoft.sessions.record import Principal
from failsoft.sessions.service import Sessions
from failsoft.testing import FaultyStore, WsgiApp
from failsoft.testing.contract.session_site import Browser
from failsoft_django import get_runtime
from failsoft_django.auth import PrincipalBackend
from failsoft_django.checks import check_sessions
from failsoft_django.sessions import SessionStore
from tests.django.conftest import OURS, Serve
from tests.django.harness import as_received
from tests.servers import Valkey, poll

pytestmark = pytest.mark.broad

SECRET = "a secret of the tests, of forty characters"
PASSWORD = "a long password"
NEW = "failsoft_django.SessionMiddleware"
STOCK = "django.contrib.sessions.middleware.SessionMiddleware"
REST = (
    "django.middleware.common.CommonMiddleware",
    "django.middleware.csrf.CsrfViewMiddleware",
    "django.contrib.auth.middleware.AuthenticationMiddleware",
    "django.contrib.messages.middleware.MessageMiddleware",
)
MODEL = "django.contrib.auth.backends.ModelBackend"
PRINCIPAL = "failsoft_django.auth.PrincipalBackend"

both = pytest.mark.parametrize("asgi", [False, True], ids=["wsgi", "asgi"])
ALONE = pytest.param((NEW,), marks=pytest.mark.once)
STOCK_ALONE = pytest.param((STOCK,), marks=pytest.mark.once)
EMPTY = pytest.param("empty", marks=pytest.mark.once)
kinds = pytest.mark.parametrize(
    "middleware", [(OURS, NEW), ALONE, (OURS, STOCK), STOCK_ALONE], ids=["ours", "ours-alone", "stock", "stock-alone"]
)


class Letters(PrincipalBackend):
    """Knows users by their names."""

    def subject_of(self, user: Any) -> str:
        return str(user.username)

    def user_of(self, principal: Any) -> Any:
        return User.objects.filter(username=principal.subject).first()

    async def auser_of(self, principal: Any) -> Any:
        return await User.objects.filter(username=principal.subject).afirst()


def who(request: HttpRequest) -> HttpResponse:
    return HttpResponse(request.user.get_username() or "nobody")


async def awho(request: HttpRequest) -> HttpResponse:
    user = await request.auser()
    return HttpResponse(user.get_username() or "nobody")


def enter(request: HttpRequest, name: str) -> HttpResponse:
    login(request, User.objects.get(username=name), backend=MODEL)
    return HttpResponse(str(request.session.session_key))


async def aenter(request: HttpRequest, name: str) -> HttpResponse:
    await alogin(request, await User.objects.aget(username=name), backend=MODEL)
    return HttpResponse(str(request.session.session_key))


def leave(request: HttpRequest) -> HttpResponse:
    logout(request)
    return HttpResponse(b"bye")


async def aleave(request: HttpRequest) -> HttpResponse:
    await alogout(request)
    return HttpResponse(b"bye")


def change(request: HttpRequest) -> HttpResponse:
    user = User.objects.get(pk=request.user.pk)
    user.set_password("another password")
    user.save()
    update_session_auth_hash(request, user)
    return HttpResponse(b"changed")


async def achange(request: HttpRequest) -> HttpResponse:
    user = await User.objects.aget(pk=(await request.auser()).pk)
    user.set_password("another password")
    await user.asave()
    await aupdate_session_auth_hash(request, user)
    return HttpResponse(b"changed")


def reset(request: HttpRequest, name: str) -> HttpResponse:
    """What nobody who is logged in does to their own: a reset, or an administrator's page."""
    user = User.objects.get(username=name)
    user.set_password("another password")
    user.save()
    return HttpResponse(b"reset")


async def areset(request: HttpRequest, name: str) -> HttpResponse:
    user = await User.objects.aget(username=name)
    user.set_password("another password")
    await user.asave()
    return HttpResponse(b"reset")


def undone(request: HttpRequest) -> HttpResponse:
    with suppress(ZeroDivisionError), transaction.atomic():
        reset(request, "ann")
        raise ZeroDivisionError
    return HttpResponse(b"undone")


def enter_and_change(request: HttpRequest, name: str) -> HttpResponse:
    """A password that has to be changed at the first login."""
    login(request, User.objects.get(username=name), backend=MODEL)
    return change(request)


def out(request: HttpRequest) -> HttpResponse:
    failsoft_django.logout(request)
    return HttpResponse(f"{request.user.get_username() or 'nobody'} {len(list(request.session.keys()))}")


async def aout(request: HttpRequest) -> HttpResponse:
    await failsoft_django.alogout(request)
    return HttpResponse(
        f"{(await request.auser()).get_username() or 'nobody'} {len(list(await request.session.akeys()))}"
    )


def away(request: HttpRequest) -> HttpResponse:
    failsoft_django.logout(request)
    return HttpResponseRedirect("/")


def marked(request: HttpRequest, given: str) -> HttpResponse:
    """What another engine's session would have left of ann: who she is and how that is known, and no principal."""
    user = User.objects.get(username="ann")
    hashes = {"good": user.get_session_auth_hash(), "bad": "0" * 64, "none": "", "old": _former(user)}
    backend = "elsewhere.Backend" if given == "closed" else MODEL
    request.session.update({"_auth_user_id": str(user.pk), "_auth_user_backend": backend})
    request.session["_auth_user_hash"] = hashes.get(given, hashes["good"])
    return HttpResponse(b"")


def key(request: HttpRequest) -> HttpResponse:
    """Reads who the user is, as packages do, without asking for the user."""
    return HttpResponse(str([request.session.get("_auth_user_id") for _ in range(3)]))


def _former(user: User) -> str:
    """The hash under the key that was in use before."""
    return str(next(iter(user.get_session_auth_fallback_hash()), ""))


def foreign(request: HttpRequest, subject: str) -> HttpResponse:
    """A login as another framework makes it."""
    store: Any = request.session
    store.login(subject)
    return HttpResponse(b"")


def clear(request: HttpRequest) -> HttpResponse:
    request.session.clear()
    return HttpResponse(b"")


def cart(request: HttpRequest) -> HttpResponse:
    request.session["cart"] = 1
    return HttpResponse(b"")


def say(request: HttpRequest) -> HttpResponse:
    messages.info(request, "hello")
    return HttpResponse(b"")


def heard(request: HttpRequest) -> HttpResponse:
    return HttpResponse(",".join(map(str, messages.get_messages(request))))


def token(request: HttpRequest) -> HttpResponse:
    return HttpResponse(get_token(request))


PATTERNS = [
    path("who", who),
    path("awho", awho),
    path("enter/<name>", enter),
    path("aenter/<name>", aenter),
    path("leave", leave),
    path("aleave", aleave),
    path("logout/", LogoutView.as_view()),
    path("change", change),
    path("achange", achange),
    path("reset/<name>", reset),
    path("areset/<name>", areset),
    path("undone", undone),
    path("enter_and_change/<name>", enter_and_change),
    path("out", out),
    path("aout", aout),
    path("away", away),
    path("marked/<given>", marked),
    path("key", key),
    path("foreign/<subject>", foreign),
    path("clear", clear),
    path("cart", cart),
    path("say", say),
    path("heard", heard),
    path("token", token),
]

Open = Callable[..., Browser]


def forget() -> None:
    """This thread's connection to the database."""
    connections.close_all()
    with suppress(AttributeError):
        del connections["default"]


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """A project with the admin, and a database in a file."""
    templates = {
        "BACKEND": "django.template.backends.django.DjangoTemplates",
        "APP_DIRS": True,
        "OPTIONS": {
            "context_processors": [
                "django.template.context_processors.request",
                "django.contrib.auth.context_processors.auth",
                "django.contrib.messages.context_processors.messages",
            ]
        },
    }
    apps = [
        "django.contrib.admin",
        "django.contrib.auth",
        "django.contrib.contenttypes",
        "django.contrib.messages",
        "django.contrib.sessions",
        "failsoft_django",
    ]
    hashers = ["django.contrib.auth.hashers.MD5PasswordHasher"]
    known = connections.settings["default"]
    before = dict(known)
    known["NAME"] = str(tmp_path_factory.mktemp("django") / "db")
    known["OPTIONS"] = {"init_command": "PRAGMA synchronous=OFF"}  # nothing here has to survive a loss of power
    forget()
    tables = dict.fromkeys(("admin", "auth", "contenttypes", "sessions"))  # at once, as models say
    with override_settings(
        INSTALLED_APPS=apps, MIGRATION_MODULES=tables, TEMPLATES=[templates], PASSWORD_HASHERS=hashers
    ):
        call_command("migrate", run_syncdb=True, verbosity=0, interactive=False)
        yield
    forget()
    known.update(before)


@pytest.fixture(scope="module")
def snapshot(project: None) -> Iterator[sqlite3.Connection]:
    """The database with two users in it."""
    for name in ("ann", "bob"):
        User.objects.create_superuser(name, password=PASSWORD)
    with closing(sqlite3.connect(":memory:")) as kept:
        connections["default"].connection.backup(kept)
        yield kept


@pytest.fixture
def database(snapshot: sqlite3.Connection) -> None:
    """Two users, whatever was done to them before."""
    connections["default"].ensure_connection()
    snapshot.backup(connections["default"].connection)


@pytest.fixture(scope="module")
def patterns(project: None) -> list[Any]:
    """All of them; the admin's take a while to make."""
    return [*PATTERNS, path("admin/", admin.site.urls)]


@pytest.fixture
def browse(serve: Serve, database: None, patterns: list[Any]) -> Open:
    def browse(*, asgi: bool = False, middleware: Any = (OURS, NEW), **options: Any) -> Browser:
        django = {"SESSION_ENGINE": "failsoft_django.sessions", "STATIC_URL": "/static/", **options.pop("django", {})}
        app = serve(
            *patterns,
            asgi=asgi,
            middleware=(*middleware, *REST),
            django=django,
            **{"secret": SECRET, "limits": [], **options},
        )
        app.runtime.store = FaultyStore()
        if isinstance(app, WsgiApp):
            app.application = as_received(app.application)
        return Browser(app)

    return browse


def post(browser: Browser, one: str, *headers: tuple[str, str]) -> tuple[int, str | None]:
    """Submit an empty form, and keep the cookies: the status, and where to go on."""
    cookies = "; ".join(f"{name}={value}" for name, value in browser.jar.items())
    reply = browser.app.request("POST", one, headers=[("Cookie", cookies), *headers])
    for line in reply.lines("Set-Cookie"):
        name, _, value = line.partition("; ")[0].partition("=")
        browser.jar[name] = value
        if "max-age=0" in line.lower().split("; "):
            del browser.jar[name]
    return reply.status, reply.header("Location")


def submit(browser: Browser, one: str) -> tuple[int, str | None]:
    """The same, with the token that Django wants to see."""
    return post(browser, one, ("X-CSRFToken", browser.jar["csrftoken"]))


def said(browser: Browser, *paths: str) -> list[str]:
    return [browser.get(one).body.decode() for one in paths]


def sessions() -> Sessions:
    found = get_runtime().sessions
    assert found is not None
    return found


def elsewhere(browser: Browser) -> Principal | None:
    """Who is logged in, as the other frameworks see it, which ask Django nothing."""
    service = sessions()
    session = service.open(f"sessionid={browser.cookie}")
    service.load(session)
    return session.principal


def pk(name: str) -> str:
    return str(User.objects.get(username=name).pk)


# Login and logout


@both
@kinds
def test_login_and_logout(browse, asgi, middleware):
    """A login gives another key and makes a principal; what was in the anonymous session stays; a logout ends it everywhere."""
    browser = browse(asgi=asgi, middleware=middleware)
    for prefix in ("", "a"):
        assert ["nobody"] * 2 == said(browser, "/who", "/awho")
        browser.get("/cart")
        before = browser.copy()
        [key] = said(browser, f"/{prefix}enter/ann")
        assert (key, True) == (browser.cookie, key != before.cookie)
        assert ["ann"] * 2 == said(browser, "/who", "/awho")
        store = SessionStore(key)
        assert (pk("ann"), 1, 1) == (
            getattr(store.principal, "subject", None),
            store["cart"],
            sessions().subjects.count(pk("ann")),
        )
        assert ["nobody"] == said(before, "/who")
        copy = browser.copy()
        assert ["bye"] == said(browser, f"/{prefix}leave")
        assert (None, ["nobody"] * 2) == (browser.cookie, said(copy, "/who", "/awho"))
        assert 0 == sessions().subjects.count(pk("ann"))


@both
def test_login_of_another(browse, asgi):
    """Who logs in where somebody else was gets nothing of theirs."""
    browser = browse(asgi=asgi)
    for first in ("enter/ann", f"foreign/{pk('ann')}"):
        said(browser, f"/{first}", "/cart", "/enter/bob")
        store = SessionStore(browser.cookie)
        assert (["bob"], pk("bob"), None) == (
            said(browser, "/who"),
            getattr(store.principal, "subject", None),
            store.get("cart"),
        )


@both
def test_flights_of_a_login(browse, asgi):
    """A login is one write: the new key, the principal and what Django keeps; so is a logout."""
    browser = browse(asgi=asgi)
    browser.get("/cart")
    flights = get_runtime().store.flights  # type: ignore[attr-defined]  # a FaultyStore
    found = []
    for one in ("/enter/ann", "/who", "/leave"):
        flights.clear()
        browser.get(one)
        found.append(list(flights))
    check = ("sessions.load", "sessions.check")
    assert [
        [("sessions.load",), ("sessions.enrol", "sessions.write")],
        [check],
        [check, ("sessions.delete", "sessions.revoke")],
    ] == found


@both
def test_password_change(browse, asgi):
    """Who changes the password stays logged in, under another key; all their other sessions end."""
    # Django 5.2 asks for `request.user` in the asynchronous one, which no coroutine can have.
    for prefix in ("", "a") if VERSION >= (6, 0) else ("",):
        browser = browse(asgi=asgi)
        User.objects.filter(username="ann").delete()
        User.objects.create_superuser("ann", password=PASSWORD)
        other = browser.copy()
        said(browser, "/enter/ann")
        said(other, "/enter/ann")
        before = browser.copy()
        assert ["changed"] == said(browser, f"/{prefix}change")
        assert before.cookie != browser.cookie
        assert (["ann", "ann"], ["nobody", "nobody"]) == (said(browser, "/who", "/awho"), said(other, "/who", "/awho"))


# Django 5.2 asks for `request.user` in the asynchronous one, which no coroutine can have.
changes = pytest.mark.parametrize("how", ["change", *(["achange"] if VERSION >= (6, 0) else [])])


@both
@kinds
@changes
def test_password_change_elsewhere(browse, asgi, middleware, how):
    """A changed password ends the user's other sessions for every framework, and before Django sees them; nobody else's."""
    browser = browse(asgi=asgi, middleware=middleware)
    other, bob = browser.copy(), browser.copy()
    said(browser, "/enter/ann", "/cart")
    said(other, "/enter/ann")
    said(bob, "/enter/bob")
    assert ["changed"] == said(browser, f"/{how}")
    found = [getattr(elsewhere(one), "subject", None) for one in (browser, other, bob)]
    assert ([pk("ann"), None, pk("bob")], 1) == (found, sessions().subjects.count(pk("ann")))
    assert (["ann"], 1) == (said(browser, "/who"), SessionStore(browser.cookie)["cart"])


@both
def test_flights_of_a_password_change(browse, asgi):
    """It costs the mark that ends the others, and where there are any, a look at them and their deletion."""
    browser = browse(asgi=asgi)
    said(browser, "/enter/ann")
    flights = get_runtime().store.flights  # type: ignore[attr-defined]  # a FaultyStore
    found = []
    for others in (0, 2):
        for _ in range(others):
            said(Browser(browser.app), "/enter/ann")
        flights.clear()
        said(browser, "/change")
        found.append(list(flights))
    load, mark, write = ("sessions.load", "sessions.check"), ("sessions.revoke_all",), ("sessions.write",)
    two = [("sessions.glance",) * 2, ("sessions.delete",) * 2]
    assert [[load, mark, write], [load, mark, *two, write]] == found


@both
@kinds
def test_password_change_at_the_login(browse, asgi, middleware):
    """Who logs in and changes the password in one request stays; the others go."""
    browser = browse(asgi=asgi, middleware=middleware)
    other = browser.copy()
    said(other, "/enter/ann")
    assert ["changed"] == said(browser, "/enter_and_change/ann")
    assert (["ann"], None) == (said(browser, "/who"), elsewhere(other))


@both
@pytest.mark.parametrize("middleware", [(OURS, NEW), ALONE, (OURS, STOCK)], ids=["ours", "alone", "stock"])
def test_password_change_that_is_not_taken(browse, asgi, middleware):
    """Where the other sessions cannot be ended, the view hears of it, and the answer is a 503."""
    browser = browse(asgi=asgi, middleware=middleware)
    other = browser.copy()
    said(browser, "/enter/ann")
    said(other, "/enter/ann")
    with get_runtime().store.failing("sessions.revoke_all"):  # type: ignore[attr-defined]  # a FaultyStore
        assert 503 == browser.get("/change").status


@both
@pytest.mark.parametrize("prefix", ["", "a"])
def test_another_secret_key(browse, asgi, prefix, monkeypatch):
    """Where it was Django's ``SECRET_KEY`` that changed, the hash is another too, and nobody's session ends."""
    browser = browse(asgi=asgi)
    other = browser.copy()
    said(browser, "/enter/ann")
    said(other, "/enter/ann")
    before = SessionStore(browser.cookie)["_auth_user_hash"]
    monkeypatch.setattr(django_settings, "SECRET_KEY_FALLBACKS", [django_settings.SECRET_KEY])
    monkeypatch.setattr(django_settings, "SECRET_KEY", "another key of Django's, long enough for it")
    assert ["ann"] == said(browser, f"/{prefix}who")
    assert before != SessionStore(browser.cookie)["_auth_user_hash"]
    assert 2 == sessions().subjects.count(pk("ann"))
    assert (["ann"], ["changed"], ["nobody"]) == (said(other, "/who"), said(other, "/change"), said(browser, "/who"))


def test_revoke_sessions(browse):
    """For a password that was reset: all of one user's sessions end, in every framework, and nobody else's."""
    browser = browse()
    bob = browser.copy()
    said(bob, "/enter/bob")
    ann = User.objects.get(username="ann")
    for revoke in (failsoft_django.revoke_sessions, lambda user: asyncio.run(failsoft_django.arevoke_sessions(user))):
        said(browser, "/enter/ann")
        assert (1, None) == (revoke(ann), elsewhere(browser))
        assert ["nobody"] == said(browser, "/who")
        with get_runtime().store.away(), pytest.raises(SessionUnavailable):  # type: ignore[attr-defined]  # a FaultyStore
            revoke(ann)
    assert ["bob"] == said(bob, "/who")


WATCHED = {"AUTH_PASSWORD_VALIDATORS": [{"NAME": "failsoft_django.auth.RevokingValidator"}]}
watched_by = pytest.mark.parametrize("middleware", [(OURS, NEW), (OURS, STOCK)], ids=["ours", "stock"])


@both
@watched_by
@pytest.mark.parametrize("one", ["/reset/ann", "/areset/ann"])
def test_validator_and_a_reset(browse, asgi, middleware, one):
    """Whatever changes a password ends that user's sessions, in every framework, before Django sees them; and nobody else's."""
    browser = browse(asgi=asgi, middleware=middleware, django=WATCHED)
    bob, nobody = browser.copy(), browser.copy()
    said(browser, "/enter/ann", "/who")
    said(bob, "/enter/bob", "/who")
    for other in (bob, nobody):
        assert ["reset"] == said(other, one)
        found = [getattr(elsewhere(each), "subject", None) for each in (browser, bob)]
        assert ([None, pk("bob")], ["nobody", "bob"]) == (found, said(browser, "/who") + said(bob, "/who"))
        said(browser, "/enter/ann", "/who")


@both
@watched_by
@pytest.mark.parametrize(
    ("how", "atomic"), [("change", False), ("change", True), *([("achange", False)] if VERSION >= (6, 0) else [])]
)
def test_validator_and_ones_own_change(browse, asgi, middleware, how, atomic):
    """Who changes their own password stays, with what they have; their other sessions end: also where it is committed after the view."""
    browser = browse(asgi=asgi, middleware=middleware, django=WATCHED)
    other = browser.copy()
    said(browser, "/enter/ann", "/cart")
    said(other, "/enter/ann")
    connections.settings["default"]["ATOMIC_REQUESTS"] = atomic
    forget()
    try:
        assert ["changed"] == said(browser, f"/{how}")
    finally:
        connections.settings["default"]["ATOMIC_REQUESTS"] = False
        forget()
    assert [pk("ann"), None] == [getattr(elsewhere(one), "subject", None) for one in (browser, other)]
    assert (["ann"], ["nobody"], 1) == (
        said(browser, "/who"),
        said(other, "/who"),
        SessionStore(browser.cookie)["cart"],
    )


@both
def test_validator_and_what_is_undone(browse, asgi):
    """A password that is not committed ends nothing."""
    browser = browse(asgi=asgi, django=WATCHED)
    said(browser, "/enter/ann")
    assert (["undone"], pk("ann")) == (said(browser.copy(), "/undone"), getattr(elsewhere(browser), "subject", None))


@both
def test_validator_while_away(browse, asgi):
    """Where the sessions cannot be ended, whoever saves hears of it."""
    browser = browse(asgi=asgi, django=WATCHED)
    said(browser, "/enter/ann")
    with get_runtime().store.away():  # type: ignore[attr-defined]  # a FaultyStore
        assert [503, 503] == [Browser(browser.app).get(one).status for one in ("/reset/ann", "/areset/ann")]
    assert ["reset", "nobody"] == said(Browser(browser.app), "/reset/ann") + said(browser, "/who")


@pytest.mark.parametrize(
    ("middleware", "django", "expected"),
    [((NEW,), WATCHED, ["failsoft.W911"]), ((OURS, NEW), WATCHED, []), ((NEW,), {}, [])],
    ids=["alone", "ours", "none"],
)
def test_validator_without_our_middleware(middleware, django, expected):
    """It has to know the request, or who changes their own password is logged out: so a check says."""
    with override_settings(
        SESSION_ENGINE="failsoft_django.sessions", FAILSOFT={"secret": SECRET}, MIDDLEWARE=middleware, **django
    ):
        assert expected == [one.id for one in check_sessions()]


@both
def test_validator_and_new_users(browse, asgi):
    """Who is new logs in as ever, right after; forms say what it does; and it has no opinion of passwords."""
    browser = browse(asgi=asgi, django=WATCHED)
    User.objects.create_user("carl", password=PASSWORD)
    assert ["carl"] == said(browser, "/enter/carl", "/who")[1:]
    assert "other devices" in password_validators_help_text_html()
    validate_password("x")


@both
def test_revoked(browse, asgi):
    """Who is revoked by a tool is nobody with the next request."""
    browser = browse(asgi=asgi)
    said(browser, "/enter/ann")
    sessions().subjects.revoke_all(pk("ann"))
    assert ["nobody"] == said(browser, "/who")


@both
def test_clear(browse, asgi):
    """To clear a session in which somebody had logged in with Django logs them out everywhere."""
    browser = browse(asgi=asgi)
    said(browser, "/enter/ann")
    copy = browser.copy()
    said(browser, "/clear")
    assert ["nobody"] == said(copy, "/who")
    assert 0 == sessions().subjects.count(pk("ann"))


# Logins of other frameworks

BACKENDS = {"AUTHENTICATION_BACKENDS": [MODEL, PRINCIPAL]}


@both
@kinds
def test_principal_is_a_user(browse, asgi, middleware):
    """Who logged in with another framework is the user of that key, in views of both kinds."""
    browser = browse(asgi=asgi, middleware=middleware, django=BACKENDS)
    for one in ("/who", "/awho"):
        said(browser, f"/foreign/{pk('ann')}", "/cart")
        assert ["ann"] * 2 == said(browser, one, one)
        store = SessionStore(browser.cookie)
        assert (PRINCIPAL, 1) == (store["_auth_user_backend"], store["cart"])
        said(browser, "/leave")


@both
def test_principal_without_the_backend(browse, asgi):
    """Without the backend, a login of another framework means nothing to Django."""
    browser = browse(asgi=asgi)
    said(browser, f"/foreign/{pk('ann')}")
    assert ["nobody"] * 2 == said(browser, "/who", "/awho")


@pytest.mark.parametrize("subject", ["letters", "99", "-1", "9" * 30])
def test_principal_who_is_no_user(browse, subject):
    """Who is no user here is nobody, and no error."""
    browser = browse(django=BACKENDS)
    said(browser, f"/foreign/{subject}")
    assert ["nobody"] * 2 == said(browser, "/who", "/awho")


def test_principal_of_a_closed_account(browse):
    """Nor is who may not log in any more, from one request to the next."""
    browser = browse(django=BACKENDS)
    said(browser, f"/foreign/{pk('ann')}")
    assert ["ann"] == said(browser, "/who")
    User.objects.filter(username="ann").update(is_active=False)
    assert ["nobody"] * 2 == said(browser, "/who", "/awho")


def test_principal_by_name(browse):
    """A backend of one's own knows other identifiers than primary keys."""
    browser = browse(django={"AUTHENTICATION_BACKENDS": [MODEL, f"{__name__}.Letters"]})
    said(browser, "/foreign/ann")
    assert ["ann"] * 2 == said(browser, "/who", "/who")


@both
def test_logins_by_name(browse, asgi):
    """That backend says, too, what Django's own logins are called everywhere: in sessions, revocations and limits by user."""
    backends = {"AUTHENTICATION_BACKENDS": [MODEL, f"{__name__}.Letters"]}
    browser = browse(asgi=asgi, django=backends, limits=["100/minute"], by="user", on_missing="exempt")
    said(browser, "/foreign/ann")
    key = browser.cookie
    said(browser, "/who", "/enter/ann")  # the same user: the session goes on, under another key
    assert "ann" == getattr(elsewhere(browser), "subject", None)
    assert key[:16] == browser.cookie[:16]
    sealed = browser.copy()
    unsealed = Browser(browser.app, {"sessionid": browser.cookie})
    left = [one.get("/who").limits["100-per-minute"].remaining for one in (sealed, unsealed, sealed)]
    assert [left[0], left[0] - 1, left[0] - 2] == left
    ann = User.objects.get(username="ann")
    revoke = (
        (lambda: asyncio.run(failsoft_django.arevoke_sessions(ann)))
        if asgi
        else (lambda: failsoft_django.revoke_sessions(ann))
    )
    assert 1 == revoke()
    assert ["nobody"] == said(browser, "/who")


def test_principal_and_a_changed_password(browse):
    """Once Django has seen a login of another framework, a change of the password ends it as any other."""
    browser = browse(django=BACKENDS)
    said(browser, f"/foreign/{pk('ann')}")
    assert ["ann"] == said(browser, "/who")
    user = User.objects.get(username="ann")
    user.set_password("another")
    user.save()
    assert ["nobody"] == said(browser, "/who")


def test_principal_costs_one_query(browse):
    """A login of another framework costs no query that Django's own does not."""
    browser = browse(django=BACKENDS)
    said(browser, f"/foreign/{pk('ann')}")
    counts = []
    client = Client()
    client.cookies.load(browser.jar)
    for _ in range(2):
        with CaptureQueriesContext(connections["default"]) as queries:
            assert b"ann" == client.get("/who").content
        counts.append(len(queries))
    assert [1, 1] == counts


@both
def test_principal_in_a_snapshot(browse, asgi):
    """While the store is away, the user is known from the snapshot: Django's own login, and another framework's."""
    browser = browse(asgi=asgi, django=BACKENDS, session_snapshot="5m")
    for one in ("/enter/ann", f"/foreign/{pk('ann')}"):
        said(browser, one)
        with get_runtime().store.away():  # type: ignore[attr-defined]  # a FaultyStore
            assert ["ann"] * 2 == said(browser, "/who", "/awho")
            assert [503, 503] == [browser.get(one).status for one in ("/enter/bob", "/aenter/bob")]
        said(browser, "/leave")


@both
def test_users_while_away(browse, asgi):
    """Without a snapshot nobody can say who is asking, which is 503 and no logout."""
    browser = browse(asgi=asgi)
    said(browser, "/enter/ann")
    jar = dict(browser.jar)
    with get_runtime().store.away():  # type: ignore[attr-defined]  # a FaultyStore
        assert [503] * 3 == [browser.get(one).status for one in ("/who", "/awho", "/admin/")]
    assert (jar, ["ann"]) == (browser.jar, said(browser, "/who"))


@both
def test_logout_while_away(browse, asgi):
    """``logout()`` works while the store is away, where a snapshot or the setting lets it see who that is."""
    browser = browse(asgi=asgi, session_snapshot="5m")
    said(browser, "/enter/ann")
    copy = browser.copy()
    with get_runtime().store.away():  # type: ignore[attr-defined]  # a FaultyStore
        assert (202, b"bye") == (lambda reply: (reply.status, reply.body))(browser.get("/leave"))
    assert None is browser.cookie
    said(browser, "/who")
    assert ["nobody"] == said(copy, "/who")


@both
@pytest.mark.parametrize("middleware", [(OURS, NEW), ALONE, (OURS, STOCK)], ids=["ours", "alone", "stock"])
@pytest.mark.parametrize("one", ["/out", "/aout"])
@pytest.mark.parametrize("outage", ["refuse", EMPTY])
def test_our_logout_while_away(browse, asgi, middleware, one, outage):
    """Ours needs no snapshot: the cookies go, the session is over for the rest of the view, and ends when the store is back."""
    browser = browse(asgi=asgi, middleware=middleware, session_on_outage=outage)
    said(browser, "/enter/ann", "/who")
    copy, heard = browser.copy(), list[Any]()

    def hear(*, user: Any, **_: Any) -> None:
        heard.append(user)

    user_logged_out.connect(hear)
    try:
        with get_runtime().store.away():  # type: ignore[attr-defined]  # a FaultyStore
            reply = browser.get(one)
            assert (202, b"nobody 0") == (reply.status, reply.body)
        assert ({"csrftoken", "sessionid-logout"}, [None]) == ({*browser.jar}, heard)
        said(browser, "/who")
        assert ["nobody"] == said(copy, "/who")
    finally:
        user_logged_out.disconnect(hear)


@both
@pytest.mark.parametrize("one", ["/out", "/aout"])
def test_our_logout(browse, asgi, one):
    """While the store is there it is Django's: whoever listens hears who it was."""
    browser = browse(asgi=asgi)
    said(browser, "/enter/ann")
    copy, heard = browser.copy(), list[Any]()

    def hear(*, user: Any, **_: Any) -> None:
        heard.append(user.get_username())

    user_logged_out.connect(hear)
    try:
        reply = browser.get(one)
    finally:
        user_logged_out.disconnect(hear)
    assert ((200, b"nobody 0"), ["ann"]) == ((reply.status, reply.body), heard)
    assert ["nobody"] == said(copy, "/who")


@both
@pytest.mark.parametrize("middleware", [(OURS, NEW), ALONE, (OURS, STOCK)], ids=["ours", "alone", "stock"])
@pytest.mark.parametrize("outage", ["refused", pytest.param("hung", marks=pytest.mark.once), EMPTY])
@pytest.mark.parametrize(
    ("one", "expected"),
    [
        ("/leave", (202, None)),
        ("/aleave", (202, None)),
        ("/logout/", (202, None)),
        ("/admin/logout/", (302, "/admin/")),
    ],
)
def test_djangos_logouts_while_away(browse, asgi, middleware, one, expected, outage):
    """Django's function, its view and the admin's page log out while the store is away, without a snapshot to say who that is."""
    options = {"session_on_outage": "empty"} if outage == "empty" else {}
    browser = browse(asgi=asgi, middleware=middleware, **options)
    said(browser, "/enter/ann", "/who")
    copy, heard = browser.copy(), list[Any]()

    def hear(*, user: Any, **_: Any) -> None:
        heard.append(user)

    store: Any = get_runtime().store
    user_logged_out.connect(hear)
    try:
        with store.hanging(0.01) if outage == "hung" else store.away():
            assert expected == submit(browser, one)
            assert ["nobody"] == said(browser, "/who")
    finally:
        user_logged_out.disconnect(hear)
    assert ({"csrftoken", "sessionid-logout"}, [None]) == ({*browser.jar}, heard)
    said(browser, "/who")
    assert ["nobody"] == said(copy, "/who")


@both
@pytest.mark.parametrize("outage", ["refuse", "empty"])
def test_what_is_no_logout_while_away(browse, asgi, outage):
    """Neither another page of the admin, nor its logout page where nothing is submitted, or by another site, logs anybody out."""
    browser = browse(asgi=asgi, session_on_outage=outage)
    said(browser, "/enter/ann", "/who")
    jar = dict(browser.jar)
    with get_runtime().store.away():  # type: ignore[attr-defined]  # a FaultyStore
        refused = 503 if outage == "refuse" else 302
        assert [refused] * 2 == [browser.get(one).status for one in ("/admin/logout/", "/admin/password_change/")]
        assert refused == submit(browser, "/admin/password_change/")[0]
        assert [403, 403] == [post(browser, one)[0] for one in ("/admin/logout/", "/logout/")]
    assert (jar, ["ann"]) == (browser.jar, said(browser, "/who"))


@both
@pytest.mark.parametrize("how", ["kill", "pause"])
def test_logout_and_a_server(serve, database, asgi, how):
    """The admin's logout while a server is dead, or hangs; and who has a copy of the cookies is logged out when it is back."""
    with Valkey("--appendonly", "yes", "--appendfsync", "always") as server:
        app = serve(
            *PATTERNS,
            path("admin/", admin.site.urls),
            asgi=asgi,
            middleware=(OURS, NEW, *REST),
            django={"SESSION_ENGINE": "failsoft_django.sessions"},
            store=server.url,
            secret=SECRET,
            limits=[],
            deadline="1s",
        )
        if isinstance(app, WsgiApp):
            app.application = as_received(app.application)
        browser = Browser(app)
        poll(lambda: browser.get("/enter/ann").status == 200)
        copy = browser.copy()
        (server.kill if how == "kill" else server.pause)()
        assert (302, "/admin/") == submit(browser, "/admin/logout/")
        assert {"csrftoken", "sessionid-logout"} == {*browser.jar}
        (server.start if how == "kill" else server.resume)()
        poll(lambda: browser.get("/who").status == 200 and "sessionid-logout" not in browser.jar, within=20)
        assert ["nobody"] == said(copy, "/who")


def test_our_logout_of_another_engine(browse):
    """With another engine it is Django's."""
    browser = browse(middleware=(STOCK,), django={"SESSION_ENGINE": "django.contrib.sessions.backends.signed_cookies"})
    said(browser, "/enter/ann")
    assert (["nobody 0"], ["nobody"]) == (said(browser, "/out"), said(browser, "/who"))


@both
def test_our_logout_and_a_redirect(browse, asgi):
    """A redirect stays one; the ticket goes with it."""
    browser = browse(asgi=asgi)
    said(browser, "/enter/ann")
    copy = browser.copy()
    with get_runtime().store.away():  # type: ignore[attr-defined]  # a FaultyStore
        reply = browser.get("/away")
    assert (302, "/", None) == (reply.status, reply.header("Location"), browser.cookie)
    said(browser, "/who")
    assert ["nobody"] == said(copy, "/who")


# Sessions of other engines


@both
@kinds
@pytest.mark.parametrize("prefix", ["", "a"])
@pytest.mark.parametrize(
    ("given", "expected"),
    [
        ("good", "ann"),
        ("bad", "nobody"),
        ("old", "ann"),
        *(pytest.param(given, "nobody", marks=pytest.mark.once) for given in ("none", "closed")),
    ],
)
def test_user_without_a_principal(browse, asgi, middleware, prefix, given, expected, monkeypatch):
    """Whom a session says its user is becomes the principal when Django takes them for the user: the hash is right."""
    browser = browse(asgi=asgi, middleware=middleware)
    # Now: what is set before `browse` overrides the settings is put back on the overridden ones, and stays.
    monkeypatch.setattr(django_settings, "SECRET_KEY_FALLBACKS", ["a key that was in use before, and is not any more"])
    said(browser, f"/marked/{given}")
    before = browser.copy()
    assert None is elsewhere(browser)
    assert [expected] * 2 == said(browser, f"/{prefix}who", f"/{prefix}who")
    subject = getattr(elsewhere(browser), "subject", None) if browser.cookie else None
    assert (None if expected == "nobody" else pk("ann"), None) == (subject, elsewhere(before))
    assert int(expected != "nobody") == sessions().subjects.count(pk("ann"))


@pytest.mark.parametrize(
    ("first", "expected"), [("marked/bad", [1, 1]), ("marked/good", [1, 0]), ("enter/ann", [0, 0])]
)
def test_verification_costs_one_query(browse, first, expected):
    """To verify the hash costs a query in each request until it is right, however often the key is read, and none after a login."""
    browser = browse()
    said(browser, f"/{first}")
    client = Client()
    client.cookies.load(browser.jar)
    counts = []
    for _ in range(2):
        with CaptureQueriesContext(connections["default"]) as queries:
            assert 200 == client.get("/key").status_code
        counts.append(len(queries))
    assert expected == counts


@pytest.mark.parametrize(("given", "expected"), [("good", "ann"), ("bad", "nobody")])
def test_carried_over(serve, database, shared_valkey: Valkey, given, expected):
    """What a cache of Django's says of the user is believed when the hash is right, and not before."""
    user = User.objects.get(username="ann")
    held = {
        "_auth_user_id": str(user.pk),
        "_auth_user_backend": MODEL,
        "_auth_user_hash": user.get_session_auth_hash() if given == "good" else "0" * 64,
    }
    old = f"carried0over0{given}0"
    with redis.Redis.from_url(shared_valkey.url) as client:
        client.set(f":1:django.contrib.sessions.cache{old}", pickle.dumps(held), ex=60)
    app = serve(
        *PATTERNS,
        middleware=(OURS, NEW, *REST),
        django={"SESSION_ENGINE": "failsoft_django.sessions"},
        store=shared_valkey.url,
        prefix=f"carried-{given}",
        secret=SECRET,
        limits=[],
        deadline="5s",
        session_import="django-cache",
    )
    if isinstance(app, WsgiApp):
        app.application = as_received(app.application)
    browser = Browser(app, {"sessionid": old})
    said(browser, "/cart")  # asks nobody who the user is
    assert (True, None) == (browser.cookie != old, elsewhere(browser))
    assert [expected] == said(browser, "/who")
    assert (pk("ann") if given == "good" else None) == getattr(elsewhere(browser), "subject", None)


# The test client


def test_client_login(browse):
    """`force_login`, `login` and `logout` of the test client do what they did."""
    browse()
    user = User.objects.get(username="ann")
    client = Client()
    client.force_login(user)
    assert b"ann" == client.get("/who").content
    assert client.session["_auth_user_id"] == str(user.pk)
    client.logout()
    assert b"nobody" == client.get("/who").content
    assert client.login(username="bob", password=PASSWORD)
    assert b"bob" == client.get("/who").content


def test_async_client_login(browse):
    """So do their asynchronous twins."""
    browse(asgi=True)
    user = User.objects.get(username="ann")

    async def use() -> None:
        client = AsyncClient()
        await client.aforce_login(user)
        assert b"ann" == (await client.get("/awho")).content
        await client.alogout()
        assert b"nobody" == (await client.get("/awho")).content
        assert await client.alogin(username="bob", password=PASSWORD)
        assert b"bob" == (await client.get("/awho")).content

    asyncio.run(use())


# What stands on sessions


@both
@pytest.mark.parametrize("storage", ["session.SessionStorage", "fallback.FallbackStorage", "cookie.CookieStorage"])
def test_messages(browse, asgi, storage):
    """Messages are heard once."""
    browser = browse(asgi=asgi, django={"MESSAGE_STORAGE": f"django.contrib.messages.storage.{storage}"})
    said(browser, "/say", "/say")
    assert ["hello,hello", ""] == said(browser, "/heard", "/heard")


@kinds
def test_csrf_tokens_in_sessions(browse, middleware):
    """A form's token may be kept in the session."""
    browse(middleware=middleware, django={"CSRF_USE_SESSIONS": True})
    client = Client(enforce_csrf_checks=True)
    secret = client.get("/token").content.decode()
    assert 403 == client.post("/cart").status_code
    assert 200 == client.post("/cart", {"csrfmiddlewaretoken": secret}).status_code


@kinds
def test_admin(browse, middleware):
    """The admin: log in, add a user, see the message, change one's own password, stay, log out."""
    browse(middleware=middleware, limits=["1000/minute"])
    client = Client()
    assert "/admin/login/" in client.get("/admin/").headers["Location"]
    entered = client.post("/admin/login/?next=/admin/", {"username": "ann", "password": PASSWORD})
    assert (302, "/admin/") == (entered.status_code, entered.headers["Location"])
    form = {"username": "carl", "usable_password": "true", "password1": "s3cret words", "password2": "s3cret words"}
    assert 302 == client.post("/admin/auth/user/add/", form).status_code
    assert User.objects.filter(username="carl").exists()
    page = client.get("/admin/auth/user/").content.decode()
    assert "was added successfully" in page
    assert "was added successfully" not in client.get("/admin/auth/user/").content.decode()
    other = Client()
    other.force_login(User.objects.get(username="ann"))
    change = {"old_password": PASSWORD, "new_password1": "quite another 1", "new_password2": "quite another 1"}
    assert 302 == client.post("/admin/password_change/", change).status_code
    assert 200 == client.get("/admin/").status_code
    assert 302 == other.get("/admin/").status_code
    assert 200 == client.post("/admin/logout/").status_code
    assert 302 == client.get("/admin/").status_code


def test_admin_checks(browse):
    """Django's own checks of the admin accept our middleware."""
    browse()
    call_command("check", "admin", "sessions", "auth", "messages")
