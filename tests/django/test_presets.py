"""The log-in pages of Django, its admin and REST framework are limited for real, with no change to them."""

from collections.abc import Callable, Iterator
from typing import Any

import pytest
from asgiref.sync import async_to_sync
from django.contrib import admin
from django.contrib.auth import get_user_model
from django.contrib.auth.views import LoginView
from django.core.management import call_command
from django.http import HttpResponse
from django.test import AsyncClient, Client, override_settings
from django.urls import include, path, reverse
from django.views import View
from rest_framework.authtoken.views import ObtainAuthToken, obtain_auth_token
from rest_framework.response import Response

from failsoft import ConfigurationError, Penalty
from failsoft.runtime import Runtime
from failsoft.testing import FaultyStore, ManualClock
from failsoft_django import get_runtime, list_routes
from failsoft_django.presets import limit_logins, limit_password_resets
from tests.django.conftest import OURS, Serve

pytestmark = [
    pytest.mark.broad,
    pytest.mark.filterwarnings("ignore::DeprecationWarning:rest_framework"),  # what it does is its own business
]

PROJECT = {
    "INSTALLED_APPS": [
        "django.contrib.admin",
        "django.contrib.auth",
        "django.contrib.contenttypes",
        "django.contrib.messages",
        "django.contrib.sessions",
        "failsoft_django",
    ],
    "MIDDLEWARE": [
        OURS,
        "django.contrib.sessions.middleware.SessionMiddleware",
        "django.middleware.csrf.CsrfViewMiddleware",
        "django.contrib.auth.middleware.AuthenticationMiddleware",
        "django.contrib.messages.middleware.MessageMiddleware",
    ],
    "TEMPLATES": [
        {
            "BACKEND": "django.template.backends.django.DjangoTemplates",
            "OPTIONS": {
                "loaders": [
                    (
                        "django.template.loaders.cached.Loader",
                        [
                            ("django.template.loaders.locmem.Loader", {"registration/login.html": "{{ form }}"}),
                            "django.template.loaders.app_directories.Loader",
                        ],
                    )
                ],
                "context_processors": [
                    "django.template.context_processors.request",
                    "django.contrib.auth.context_processors.auth",
                    "django.contrib.messages.context_processors.messages",
                ],
            },
        }
    ],
    "LOGIN_REDIRECT_URL": "/",
    "PASSWORD_HASHERS": ["django.contrib.auth.hashers.MD5PasswordHasher"],
    "MIGRATION_MODULES": dict.fromkeys(("admin", "auth", "contenttypes", "sessions")),  # tables at once, as models say
    "STATIC_URL": "/static/",
}


@pytest.fixture(scope="module")
def project() -> Iterator[None]:
    """A project with the admin, a database and a user."""
    with override_settings(**PROJECT):
        call_command("migrate", run_syncdb=True, verbosity=0, interactive=False)
        alice = get_user_model().objects.create_superuser("alice", "alice@example.com", "wonderland")
        yield
        alice.delete()


WRONG = "wrong"


class Kind:
    """How a page is reached: the test client of one of the two kinds."""

    def __init__(self, *, asgi: bool) -> None:
        self._asgi = asgi
        self._client: Any = AsyncClient() if asgi else Client()

    def post(self, path: str, fields: Any, *, peer: str = "203.0.113.7", **options: Any) -> Any:
        send = async_to_sync(self._client.post) if self._asgi else self._client.post
        return send(path, fields, headers={"X-Forwarded-For": peer}, **options)

    def get(self, path: str) -> Any:
        return async_to_sync(self._client.get)(path) if self._asgi else self._client.get(path)

    def attempt(self, path: str, who: str, password: str = WRONG, **options: Any) -> int:
        status: int = self.post(path, {"username": who, "password": password}, **options).status_code
        return status


Open = Callable[..., Kind]


@pytest.fixture(params=[False, True], ids=["client", "async-client"])
def open_project(request: pytest.FixtureRequest, project: None, monkeypatch: pytest.MonkeyPatch) -> Iterator[Open]:
    """Opens the project with URL patterns of a test's own."""
    opened: list[Any] = []

    def open_(*patterns: Any, **failsoft: Any) -> Kind:
        failsoft["trusted_proxies"] = ["127.0.0.1"]  # the test clients know no other way to say who they are
        changed = override_settings(ROOT_URLCONF=patterns, FAILSOFT=failsoft)
        changed.enable()
        opened.append(changed)
        get_runtime().stores["default"] = FaultyStore(clock=ManualClock())
        return Kind(asgi=request.param)

    yield open_
    for changed in reversed(opened):
        changed.disable()


def store() -> FaultyStore:
    found: Any = get_runtime().store
    return found  # type: ignore[no-any-return]  # as `open_project` made it


def test_admin(open_project: Open) -> None:
    """The admin's log-in is limited by account and client; its form is free, and who knows the password gets in."""
    site = open_project(path("admin/", limit_logins(admin.site.urls)))
    url = "/admin/login/"
    assert [200] * 5 + [429] == [site.attempt(url, "alice") for _ in range(6)]
    assert [429, 200] == [site.attempt(url, "Alice", "wonderland"), site.attempt(url, "bob")]
    assert [200] * 3 == [site.get(url).status_code for _ in range(3)]
    assert 302 == site.attempt(url, "alice", "wonderland", peer="203.0.113.8")
    assert 200 == site.get("/admin/").status_code  # logged in
    assert {"ratelimit.acquire"} == {name for flight in store().flights for name in flight}
    assert [] == [key for key in store().keys if "alice" in key.lower()]


def test_admin_asks_the_store_once(open_project: Open) -> None:
    """An attempt makes one flight, and showing the form none."""
    site = open_project(path("admin/", limit_logins(admin.site.urls)))
    site.get("/admin/login/")
    assert 0 == len(store().flights)
    site.attempt("/admin/login/", "alice")
    assert 1 == len(store().flights)


def test_admin_without_the_store(open_project: Open) -> None:
    """While the store is away nobody can try a password (503), and everybody can see the form."""
    site = open_project(path("admin/", limit_logins(admin.site.urls)))
    with store().away():
        assert 503 == site.attempt("/admin/login/", "alice", "wonderland")
        assert 200 == site.get("/admin/login/").status_code
    assert 302 == site.attempt("/admin/login/", "alice", "wonderland")


def test_admin_is_left_alone(open_project: Open) -> None:
    """What was not handed over is not limited: neither the site object nor other patterns are changed."""
    limit_logins(admin.site.urls)
    site = open_project(path("admin/", admin.site.urls))
    assert [200] * 7 == [site.attempt("/admin/login/", "alice") for _ in range(7)]


def test_csrf_still_holds(project: None) -> None:
    """An attempt without a CSRF token is refused as before, and is charged like any."""
    patterns = (path("admin/", limit_logins(admin.site.urls)),)
    with override_settings(ROOT_URLCONF=patterns, FAILSOFT={}):
        client = Client(enforce_csrf_checks=True)
        fields = {"username": "alice", "password": "wonderland"}
        statuses = [client.post("/admin/login/", fields).status_code for _ in range(6)]
        assert [403] * 5 + [429] == statuses


def test_auth_views(open_project: Open) -> None:
    """The pages of django.contrib.auth are limited where they are included, and keep their names and namespaces."""
    urls = limit_password_resets(limit_logins(include("django.contrib.auth.urls")), per_account="2/hour")
    site = open_project(path("accounts/", urls), path("admin/", limit_logins(admin.site.urls)))
    assert [200] * 3 == [site.attempt("/accounts/login/", "alice") for _ in range(3)]
    # The admin's page counts with it: an account has one password.
    assert [200, 200, 429] == [site.attempt("/admin/login/", "alice") for _ in range(3)]
    resets = [
        site.post("/accounts/password_reset/", {"email": email}, peer=f"203.0.113.{n}").status_code
        for n, email in enumerate(["a@example.com", "A@Example.com", "a@example.com", "b@example.com"])
    ]
    assert [302, 302, 429, 302] == resets
    assert [200] * 4 == [site.get("/accounts/password_reset/").status_code for _ in range(4)]
    assert ("/accounts/login/", "/admin/login/") == (reverse("login"), reverse("admin:login"))


def test_only_failures(open_project: Open) -> None:
    """With `only_failures`, who knows the password logs in as often as he likes."""
    site = open_project(path("admin/", limit_logins(admin.site.urls, only_failures=True, penalty=None)))
    assert [302] * 8 == [site.attempt("/admin/login/", "alice", "wonderland") for _ in range(8)]
    assert [200] * 5 + [429] == [site.attempt("/admin/login/", "alice") for _ in range(6)]


def test_tokens_of_rest_framework(open_project: Open) -> None:
    """REST framework's token view is limited, for a form and for JSON, and reads what was read before."""

    class Own(ObtainAuthToken):
        """A view of a project's own, which needs no table for tokens."""

        def post(self, request: Any, *args: Any, **kwargs: Any) -> Any:
            serializer = self.get_serializer(data=request.data)
            serializer.is_valid(raise_exception=True)
            return Response({"token": serializer.validated_data["user"].username})

    patterns = limit_logins(
        [path("token", obtain_auth_token), path("own", Own.as_view()), path("free", _Plain.as_view())]
    )
    site = open_project(*patterns)
    right = {"username": "alice", "password": "wonderland"}
    reply = site.post("/own", right, content_type="application/json")
    assert (200, {"token": "alice"}) == (reply.status_code, reply.json())
    assert [400] * 2 == [site.attempt("/own", "alice") for _ in range(2)]
    wrong = {**right, "password": "wrong"}
    statuses = [site.post("/token", wrong, content_type="application/json").status_code for _ in range(3)]
    assert [400, 400, 429] == statuses  # the two views count together
    assert [200] * 9 == [site.attempt("/free", "alice") for _ in range(9)]


class _Plain(View):
    def post(self, request: Any) -> HttpResponse:
        return HttpResponse()


def _signin(request: Any) -> HttpResponse:
    return HttpResponse(request.POST["mail"])


class _ByMail(LoginView):
    pass


def test_further_views(open_project: Open) -> None:
    """Views that are not known are named, with their field: classes, functions, or dotted names; they come before what they inherit."""
    views = {_signin: "mail", f"{__name__}._Plain": "mail", _ByMail: "mail"}
    patterns = [path("function", _signin), path("class", _Plain.as_view()), path("inherits", _ByMail.as_view())]
    site = open_project(
        *limit_logins(patterns, views=views, per_client="1/minute", name="further", penalty=Penalty(after=99))
    )
    for number, url in enumerate(["/function", "/class", "/inherits"]):
        mail = {"mail": f"alice{number}@example.com", "username": "x"}
        assert [200, 429] == [site.post(url, mail).status_code for _ in range(2)], url
        assert 200 == site.post(url, {"mail": f"bob{number}@example.com", "username": "x"}).status_code


@pytest.mark.parametrize("name", ["TokenObtainPairView", "TokenObtainSlidingView"])
def test_packages_that_are_not_imported(open_project: Open, name: str) -> None:
    """Views of a package are known by their names; their field is what the user model calls it."""
    theirs = type(name, (_Plain,), {"__module__": "rest_framework_simplejwt.views", "__qualname__": name})
    site = open_project(*limit_logins([path("token", type("Own", (theirs,), {}).as_view())]))
    assert [200] * 5 + [429] == [site.attempt("/token", "alice") for _ in range(6)]


@pytest.mark.parametrize("limited", [limit_logins, limit_password_resets])
@pytest.mark.parametrize("urls", [[], [path("x", _Plain.as_view())], ([path("x", _signin)], "app", "name")])
def test_nothing_to_limit(limited: Any, urls: Any) -> None:
    """URL patterns without any such page are a mistake, which names the pages that are known."""
    with pytest.raises(ConfigurationError, match=r"django\.contrib\.auth\.views\."):
        limited(urls)


def test_nested_patterns(serve: Serve) -> None:
    """Pages are found at any depth; patterns without one stay the same objects, and templates of routes stay what they were."""
    free = path("free/", include([path("x", _Plain.as_view())]))
    deep = path("a/<int:pk>/", include([path("b/", include([path("login", LoginView.as_view(), name="login")])), free]))
    patterns = limit_logins([free, deep], per_client="1/minute", penalty=None)
    assert (True, False) == (patterns[0] is free, patterns[1] is deep)
    assert patterns[1].url_patterns[1] is free
    serve(*patterns)
    limited = [route.template for route in list_routes() if route.method == "POST" and len(route.targets) > 0]
    assert ["a/<int:pk>/b/login"] == limited


def test_under_a_server_of_each_kind(serve: Serve, project: None) -> None:
    """Over WSGI and ASGI as over the test clients: an attempt counts, the form does not."""
    for asgi in (False, True):
        app = serve(
            path("admin/", limit_logins(admin.site.urls)),
            asgi=asgi,
            middleware=PROJECT["MIDDLEWARE"],
            django={"FAILSOFT": {}},
        )
        assert isinstance(app.runtime, Runtime)
        form = [("Content-Type", "application/x-www-form-urlencoded")]

        def attempt(app: Any = app, form: Any = form) -> int:
            status: int = app.request("POST", "/admin/login/", headers=form, body=b"username=x&password=y").status
            return status

        assert [403] * 5 + [429] == [attempt() for _ in range(6)]  # without a CSRF token
        assert [200] * 3 == app.statuses(3, "/admin/login/")
