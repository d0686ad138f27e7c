"""What is Django's own about the adapter: settings, checks, users, requests that reach no view, and the command."""

import asyncio
import logging
import sys
import threading
from collections.abc import AsyncIterator, Iterator
from importlib.metadata import entry_points
from io import FileIO
from pathlib import Path
from types import SimpleNamespace
from typing import Any, ClassVar

import pytest
from django.conf import settings
from django.contrib.auth import BACKEND_SESSION_KEY, HASH_SESSION_KEY, SESSION_KEY
from django.contrib.auth.backends import BaseBackend
from django.contrib.auth.models import User
from django.contrib.sessions.backends.signed_cookies import SessionStore
from django.core import checks
from django.core.handlers.asgi import ASGIRequest
from django.core.handlers.wsgi import WSGIHandler
from django.core.management import call_command
from django.core.signals import got_request_exception, request_finished
from django.db import connection, transaction
from django.http import FileResponse, HttpResponse, StreamingHttpResponse
from django.template.response import SimpleTemplateResponse
from django.test import override_settings
from django.urls import include, path
from django.utils.functional import SimpleLazyObject
from django.views import View

import failsoft_django
from failsoft import ConfigurationError, limit, require_live_session
from failsoft.errors import Rejected
from failsoft.exchange import current
from failsoft.inspection import describe
from failsoft.presets import login
from failsoft.testing import FaultyStore
from failsoft_django import audit, get_runtime, list_routes
from failsoft_django.checks import check_declared, check_limits, check_middleware, check_settings
from failsoft_django.inspect import describe as describe_django
from failsoft_django.translate import facts_of
from tests.django import middleware as others
from tests.django.conftest import OURS, Serve

HERE = "tests.django.middleware"
SESSIONS = (
    "django.contrib.sessions.middleware.SessionMiddleware",
    "django.contrib.auth.middleware.AuthenticationMiddleware",
)

both = pytest.mark.parametrize("asgi", [False, True], ids=["wsgi", "asgi"])


def ok(request: Any, **kwargs: Any) -> HttpResponse:
    return HttpResponse(b"ok")


async def aok(request: Any, **kwargs: Any) -> HttpResponse:
    return HttpResponse(b"ok")


async def awaited(request: Any, rejected: Rejected) -> HttpResponse:
    raise AssertionError


def test_exports() -> None:
    """What can be imported from the package is what is meant to be."""
    assert sorted(failsoft_django.__all__) == failsoft_django.__all__
    expected = [
        "FailsoftMiddleware",
        "SessionMiddleware",
        "alogout",
        "arevoke_sessions",
        "audit",
        "get_runtime",
        "list_routes",
        "logout",
        "revoke_sessions",
    ]
    assert expected == failsoft_django.__all__
    assert [] == [name for name in expected if not callable(getattr(failsoft_django, name))]


class TestRuntime:
    """One runtime for a process, as long as the settings stay."""

    def test_shared(self, serve: Serve) -> None:
        """Every handler of a process counts in the same store."""
        first = serve(path("x", limit("2/minute")(ok)))
        second = WSGIHandler()
        assert [200, 200] == first.statuses(2, "/x")
        assert first.runtime is get_runtime()
        first.application = second  # type: ignore[attr-defined]  # of WsgiApp
        assert 429 == first.get("/x").status

    def test_changed_settings(self, serve: Serve) -> None:
        """Changed settings apply to the next request, without a new handler, and the old store is closed."""
        closed: list[str] = []

        class Store(FaultyStore):
            def close(self) -> None:
                closed.append("old")
                super().close()

        app = serve(path("x", ok), limits=["1/minute"])
        app.runtime.store = Store()
        assert [200, 429] == app.statuses(2, "/x")
        with override_settings(FAILSOFT={"limits": ["2/minute"]}):
            assert [200, 200, 429] == app.statuses(3, "/x")
        assert [200, 429] == app.statuses(2, "/x")
        assert ["old"] == closed

    def test_other_changed_settings(self) -> None:
        """Changes to what is not failsoft's leave the runtime alone."""
        with override_settings(FAILSOFT={}):
            before = get_runtime()
            with override_settings(DEBUG=True):
                assert before is get_runtime()

    def test_mistakes_stop_the_start(self) -> None:
        """With a mistake in the settings no handler can be made; the message lists every mistake."""
        with override_settings(
            FAILSOFT={"limit": ["1/minute"], "deadline": "soon", "renderer": "no.such"}, MIDDLEWARE=[OURS]
        ):
            with pytest.raises(ConfigurationError) as caught:
                WSGIHandler()
            for part in ("FAILSOFT['limit']", "FAILSOFT['limits']", "FAILSOFT['deadline']", "FAILSOFT['renderer']"):
                assert part in str(caught.value)

    def test_environment(self, serve: Serve, monkeypatch: pytest.MonkeyPatch) -> None:
        """The environment fills in what settings.py leaves out."""
        monkeypatch.setenv("FAILSOFT_LIMITS", "1/minute")
        monkeypatch.setenv("FAILSOFT_HEADERS", "legacy")
        app = serve(path("x", ok), headers="draft")
        assert [200, 429] == app.statuses(2, "/x")
        assert app.get("/x").header("RateLimit") is not None

    def test_no_setting_at_all(self, monkeypatch: pytest.MonkeyPatch) -> None:
        """Without ``FAILSOFT`` everything is at its default."""
        with override_settings():
            if hasattr(settings, "FAILSOFT"):
                del settings.FAILSOFT
            assert "memory://" == get_runtime().settings.store
        with override_settings(FAILSOFT=None):
            assert () == get_runtime().settings.limits

    def test_app_is_missing(self, caplog: pytest.LogCaptureFixture) -> None:
        """A log line says that without the app no system check looks for mistakes."""
        installed_apps = [name for name in settings.INSTALLED_APPS if name != "failsoft_django"]
        with (
            override_settings(INSTALLED_APPS=installed_apps, MIDDLEWARE=[OURS], FAILSOFT={}),
            caplog.at_level(logging.WARNING, "failsoft"),
        ):
            WSGIHandler()
        assert "INSTALLED_APPS" in caplog.text


class TestChecks:
    """System checks."""

    @pytest.mark.parametrize(
        ("given", "expected"),
        [
            ({}, []),
            ({"limits": ["10/minute"], "renderer": "tests.django.test_django.slow_down"}, []),
            ({"limitz": ["10/minute"]}, ["failsoft.E001"]),
            ("10/minute", ["failsoft.E002"]),
            ({"store": "redis:/localhost"}, ["failsoft.E102"]),
            ({"limits": 10}, ["failsoft.E131"]),
            ({"limits": ["ten a minute"]}, ["failsoft.E132"]),
            (
                {"limits": ["1000/minut"], "by": "usr", "replicas": 0},
                ["failsoft.E132", "failsoft.E152", "failsoft.E192"],
            ),
            ({"limits": ["61000000/minute"], "algorithm": "gcra"}, ["failsoft.E133"]),
            ({"deadline": 99}, ["failsoft.E122"]),
            ({"trusted_proxies": ["*"]}, ["failsoft.E212"]),
            ({"renderer": "tests.django.test_django.no_such"}, ["failsoft.E901"]),
            ({"renderer": "nowhere.at_all"}, ["failsoft.E901"]),
            ({"RENDERER": 7}, ["failsoft.E901"]),
            ({"renderer": lambda rejected: None}, ["failsoft.E901"]),
            ({"renderer": lambda request, rejected, third: None}, ["failsoft.E901"]),
            ({"renderer": awaited}, ["failsoft.E901"]),
            ({"renderer": lambda request, rejected, third=None: None}, []),
            ({"renderer": lambda *arguments: None}, []),
            ({"renderer": dict}, []),
            ({"workers": 0, "renderer": 7}, ["failsoft.E182", "failsoft.E901"]),
            ({"workers": 4}, ["failsoft.W001"]),
            ({"workers": 4, "store": "redis://localhost"}, []),
            ({"trusted_proxies": ["0.0.0.0/0"]}, ["failsoft.W003"]),
            ({"by": lambda: "a"}, ["failsoft.E152"]),
            ({"by": ["ip", lambda request, more: "a"]}, ["failsoft.E152"]),
            ({"by": lambda request, more=None: "a"}, []),
        ],
    )
    def test_settings(self, given: Any, expected: list[str]) -> None:
        """Each mistake in the settings is an error with an id of its own; doubtful settings are warnings."""
        with override_settings(FAILSOFT=given):
            assert expected == [message.id for message in check_settings()]

    @pytest.mark.parametrize(
        ("beside", "expected"),
        [
            ({"FAILSOFT_LIMITS": ["5/minute"]}, "write FAILSOFT = {'limits': ...}"),
            ({"FAILSOFT_RENDERER": "x.y"}, "write FAILSOFT = {'renderer': ...}"),
            ({"FAILSOFT_TRUSTED_PROXY": "x.y"}, "write FAILSOFT = {'trusted_proxies': ...}"),
            ({"FAILSOFT_PREFIX": "mine"}, None),
            ({"FAILSOFT_BY": "ip"}, None),
            ({"FAILSOFT_STORE_URL": "redis://h"}, None),
        ],
    )
    def test_what_nothing_would_read(self, beside: dict[str, Any], expected: str | None) -> None:
        """A setting beside ``FAILSOFT`` is an error with the right spelling, unless it holds all the same or is the project's own."""
        with override_settings(FAILSOFT={"PREFIX": "mine", "by": "ip"}, **beside):
            found = check_settings()
        (name,) = beside
        wrong = [] if expected is None else [("failsoft.E005", f"settings.{name}: is not read here", expected)]
        assert wrong == [(message.id, message.msg, message.hint) for message in found]

    @pytest.mark.parametrize(
        ("inside", "beside"),
        [
            ({"limits": ["9/minute"]}, {"FAILSOFT_LIMITS": ["1/minute"]}),
            ({"trusted_proxies": ["10.0.0.0/8"]}, {"FAILSOFT_TRUSTED_PROXY": "unix"}),
            ({"renderer": "tests.django.test_django.slow_down"}, {"FAILSOFT_RENDERER": "x.y"}),
        ],
    )
    def test_another_beside(self, inside: dict[str, Any], beside: dict[str, Any]) -> None:
        """A setting beside ``FAILSOFT`` that says something else than it does is an error."""
        with override_settings(FAILSOFT=inside, **beside):
            (found,) = check_settings()
        ((name,), (key,)) = (beside, inside)
        said = f"settings.{name}: is not read here, and settings.FAILSOFT says another {key!r}"
        assert ("failsoft.E005", said, f"remove it, give it another name, or write FAILSOFT = {{{key!r}: ...}}") == (
            found.id,
            found.msg,
            found.hint,
        )

    @pytest.mark.parametrize(
        ("given", "expected"),
        [
            ({"store": "redis://"}, ["FAILSOFT['store']: the redis:// URL is wrong: it has no host"]),
            (
                {"store": "redis://h?timeout=1", "stores": {"a": "unix://"}, "workers": 0},
                [
                    "FAILSOFT['store']: the option timeout of the redis:// URL is not known",
                    "FAILSOFT['stores']: a: the unix:// URL is wrong: it has no path",
                    "FAILSOFT['workers']: 0 is out of range",
                ],
            ),
        ],
    )
    def test_urls_of_stores(self, given: Any, expected: list[str]) -> None:
        """Each URL of a store is checked as its store would."""
        with override_settings(FAILSOFT=given):
            assert expected == [message.msg for message in check_settings()]

    def test_messages(self) -> None:
        """A message says where the mistake is, and its hint what is accepted."""
        with override_settings(FAILSOFT={"deadline": 99}):
            (message,) = check_settings()
        assert message.is_serious()
        assert "FAILSOFT['deadline']" in message.msg
        assert "10ms" in (message.hint or "")

    @pytest.mark.parametrize(
        ("names", "expected"),
        [
            ([OURS], []),
            (["django.middleware.security.SecurityMiddleware", OURS, "django.middleware.common.CommonMiddleware"], []),
            (["failsoft_django.middleware.FailsoftMiddleware", "not.there"], []),
            ([], ["failsoft.W901"]),
            (["django.middleware.common.CommonMiddleware"], ["failsoft.W901"]),
            ([OURS, OURS], ["failsoft.E903"]),
            (["django.middleware.cache.FetchFromCacheMiddleware", OURS], ["failsoft.W902"]),
            (["django.middleware.cache.UpdateCacheMiddleware", OURS], ["failsoft.W903"]),
            (
                ["django.middleware.common.CommonMiddleware", "django.middleware.csrf.CsrfViewMiddleware", OURS],
                ["failsoft.W902", "failsoft.W902"],
            ),
        ],
    )
    def test_middleware(self, names: list[str], expected: list[str]) -> None:
        """The middleware is there, once, and nothing stands before it that answers or stores what it should see."""
        with override_settings(MIDDLEWARE=names):
            assert expected == [message.id for message in check_middleware()]

    def test_limits_that_no_url_leads_to(self) -> None:
        """A declared limit that no URL leads to is a warning that names its file and line, until a URL does."""

        @limit("7/minute", name="lost")
        def lost(request: Any) -> HttpResponse:
            return HttpResponse()

        def ours() -> list[str]:
            return [message.msg for message in check_limits() if __file__ in message.msg and "7/minute" in message.msg]

        line = lost.__wrapped__.__code__.co_firstlineno
        with override_settings(ROOT_URLCONF=(path("x", ok),)):
            (message,) = ours()
        assert f"{__file__}:{line}" in message
        with override_settings(ROOT_URLCONF=(path("a/", include(([path("x", lost)], "a"))),)):
            assert [] == ours()

    @pytest.mark.parametrize(
        ("declared", "given", "said"),
        [
            (
                limit("6/minute", store="nowhere"),
                {"stores": {"other": "memory://"}},
                "'nowhere'; the setting stores names default, other",
            ),
            (limit("20000/day"), {"algorithm": "moving-window"}, "moving-window remembers each unit"),
            (require_live_session, {}, "the application has no sessions"),
            (require_live_session, {"sessions": True, "secret": "s" * 32}, ""),
            (limit("6/minute", store="nowhere"), {"enabled": False}, ""),
            (limit("6/minute", store="nowhere"), {"workers": 0}, ""),
        ],
    )
    def test_limits_that_cannot_be_enforced(self, declared: Any, given: dict[str, Any], said: str) -> None:
        """What is declared on a view, and these settings cannot do, is an error, once for all methods of the view."""

        @declared
        def view(request: Any) -> HttpResponse:
            return HttpResponse()

        with override_settings(FAILSOFT=given, ROOT_URLCONF=(path("x", view), path("y", view))):
            messages = check_declared()
        assert (["failsoft.E908"] if said else []) == [message.id for message in messages]
        assert all(said in message.msg and message.is_serious() for message in messages)

    def test_a_decorator_in_the_place_of_a_view(self) -> None:
        """Forgotten parentheses are an error: what decorates would be the view."""
        urls = (path("x", login(ok)), path("y", limit(ok)), path("z", login()(ok)))
        with override_settings(FAILSOFT={}, ROOT_URLCONF=urls):
            messages = check_declared()
        assert [("failsoft.E908", True)] * 2 == [(message.id, message.is_serious()) for message in messages]
        assert ["write @login() above ok", 'write @limit("10/minute") above ok'] == [
            message.msg.partition(": ")[2].partition(": ")[2].partition(".")[0] for message in messages
        ]

    def test_scope_without_urls(self) -> None:
        """A scope for a namespace that is not there is a warning, with the nearest one."""
        scopes = [
            {"name": "one", "group": "shpo", "limits": "9/minute"},
            {"name": "two", "group": "shop", "limits": "9/minute"},
        ]
        urls = (path("a/", include(([path("x", ok)], "shop"))),)
        with override_settings(FAILSOFT={"scopes": scopes}, ROOT_URLCONF=urls):
            (message,) = check_declared()
        assert "failsoft.W913" == message.id
        assert (
            "scopes: one limits nothing here, since no route is in the group 'shpo': did you mean 'shop'?"
            == message.msg
        )

    def test_hidden_limits(self) -> None:
        """A limit under a decorator without `wraps` is reported too: no route can see it."""

        @limit("8/minute", name="hidden")
        def inside(request: Any) -> HttpResponse:
            return HttpResponse()

        with override_settings(ROOT_URLCONF=(path("x", lambda request: inside(request)),)):
            assert [inside.__wrapped__.__code__.co_firstlineno] == [
                int(one.where.rpartition(":")[2]) for one in audit() if "8/minute" in repr(one.policies)
            ]

    def test_no_urlconf(self) -> None:
        """A project without URLs has none to look through."""
        with override_settings(ROOT_URLCONF=None):
            assert [] == check_limits()
            assert [] == check_declared()

    def test_registered(self) -> None:
        """``manage.py check`` runs them, alone with ``--tag failsoft``."""
        with override_settings(ROOT_URLCONF=(), MIDDLEWARE=[], FAILSOFT={"deadline": 99}):
            found = {message.id for message in checks.run_checks(tags=["failsoft"])}
        assert {"failsoft.E122", "failsoft.W901"} <= found


class Accounts(BaseBackend):
    """Users that are in no database; each look-up counts."""

    loads: ClassVar[list[str]] = []

    def get_user(self, user_id: Any) -> Any:
        self.loads.append(threading.current_thread().name)
        return User(pk=user_id)


def signed_in(number: int) -> tuple[str, str]:
    """The header of a user that has signed in."""
    session = SessionStore()
    session[SESSION_KEY] = str(number)
    session[BACKEND_SESSION_KEY] = f"{__name__}.Accounts"
    session[HASH_SESSION_KEY] = User(pk=number).get_session_auth_hash()
    session.save()
    return "Cookie", f"{settings.SESSION_COOKIE_NAME}={session.session_key}"


class TestUsers:
    """Limits by user, with Django's own sessions and authentication."""

    DJANGO: ClassVar[dict[str, Any]] = {"AUTHENTICATION_BACKENDS": [f"{__name__}.Accounts"]}

    @pytest.fixture(autouse=True)
    def _no_loads(self) -> None:
        Accounts.loads.clear()

    @both
    def test_by_user(self, serve: Serve, asgi: bool) -> None:
        """Each user counts, whatever the address; the user is looked up once for each request."""
        view = limit("1/minute", by="user")(aok if asgi else ok)
        app = serve(path("x", view), asgi=asgi, middleware=[OURS, *SESSIONS], django=self.DJANGO)
        asked = [(1, "192.0.2.1"), (2, "192.0.2.1"), (1, "192.0.2.2"), (2, "192.0.2.2")]
        assert [200, 200, 429, 429] == [app.get("/x", signed_in(number), peer=peer).status for number, peer in asked]
        assert 4 == len(Accounts.loads)

    @both
    def test_nobody_is_looked_up_in_vain(self, serve: Serve, asgi: bool) -> None:
        """Where no limit counts users, no user is looked up."""
        app = serve(path("x", limit("9/minute")(ok)), asgi=asgi, middleware=[OURS, *SESSIONS], django=self.DJANGO)
        assert 200 == app.get("/x", signed_in(1)).status
        assert [] == Accounts.loads

    @both
    def test_anonymous(self, serve: Serve, asgi: bool) -> None:
        """Who has not signed in is no user."""
        view = limit("1/minute", by="user", on_missing="exempt")(ok)
        app = serve(path("x", view), asgi=asgi, middleware=[OURS, *SESSIONS], django=self.DJANGO)
        assert [200, 200] == app.statuses(2, "/x")

    @both
    def test_by_user_in_the_settings(self, serve: Serve, asgi: bool) -> None:
        """The setting `by` counts users everywhere, also on paths that no route knows."""
        app = serve(
            path("x", ok), asgi=asgi, middleware=[OURS, *SESSIONS], django=self.DJANGO, by="user", limits=["2/minute"]
        )
        one, two = signed_in(1), signed_in(2)
        assert [200, 404, 429, 200] == [
            app.get(*asked).status for asked in (("/x", one), ("/y", one), ("/x", one), ("/x", two))
        ]

    @both
    @pytest.mark.parametrize("kind", ["sync", "async"])
    def test_late(self, serve: Serve, asgi: bool, kind: str) -> None:
        """A limited helper counts users too, wherever it is called."""
        helper = limit("1/minute", by=("user", "ip"))(lambda: None)

        @limit("1/minute", by=("user", "ip"))
        async def ahelper() -> None:
            pass

        def view(request: Any) -> HttpResponse:
            helper()
            return HttpResponse()

        async def aview(request: Any) -> HttpResponse:
            await ahelper()
            return HttpResponse()

        chosen = view if kind == "sync" else aview
        app = serve(path("x", chosen), asgi=asgi, middleware=[OURS, *SESSIONS], django=self.DJANGO)
        assert [200, 200, 429, 429] == [app.get("/x", signed_in(number)).status for number in (1, 2, 1, 2)]

    @both
    def test_user_known_before(self, serve: Serve, asgi: bool) -> None:
        """A user that other middleware has looked up already is not looked up again."""

        class Looking(others.Mixed):
            def process_request(self, request: Any) -> None:
                assert request.user.is_authenticated

        others.Looking = Looking  # type: ignore[attr-defined]  # Django finds middleware by name
        view = limit("1/minute", by="user")(ok)
        app = serve(path("x", view), asgi=asgi, middleware=[OURS, *SESSIONS, f"{HERE}.Looking"], django=self.DJANGO)
        assert [200, 200, 429] == [app.get("/x", signed_in(number)).status for number in (1, 2, 1)]
        assert 3 == len(Accounts.loads)

    @both
    def test_without_authentication(self, serve: Serve, asgi: bool) -> None:
        """Where nothing says who is asking, the limit's `on_missing` decides."""
        app = serve(path("x", limit("1/minute", by="user", on_missing="refuse")(ok)), asgi=asgi)
        assert 403 == app.get("/x").status

    def test_lazy_users_without_auser(self) -> None:
        """A lazy user without an asynchronous way to it is looked up in a thread."""
        loop_thread = threading.get_ident()
        seen: list[int] = []

        def find() -> Any:
            seen.append(threading.get_ident())
            return SimpleNamespace(pk="x", is_authenticated=True)

        request: Any = ASGIRequest({"path": "/", "method": "GET", "headers": []}, None)
        request.user = SimpleLazyObject(find)
        facts = facts_of(request)
        asyncio.run(facts.load_user())
        assert ("x", 1) == (facts.user(), len(seen))
        assert loop_thread not in seen

    def test_users_without_a_key(self) -> None:
        """A user that was never saved has no key; it is nobody, not the user None."""
        request: Any = ASGIRequest({"path": "/", "method": "GET", "headers": []}, None)
        request.user = User()
        assert facts_of(request).user() is None


class TestNoView:
    """Requests that reach no view are charged on their way out."""

    @both
    def test_redirects_to_a_slash(self, serve: Serve, asgi: bool) -> None:
        """A redirect to the path with a slash is a request like others."""
        names = [OURS, "django.middleware.common.CommonMiddleware"]
        app = serve(path("x/", ok), asgi=asgi, middleware=names, limits=["2/minute"])
        assert [301, 301, 429] == app.statuses(3, "/x")

    @both
    def test_answers_of_other_middleware(self, serve: Serve, asgi: bool) -> None:
        """What a middleware answers in the place of a view is counted, and refused when nothing is left; the page may read why."""
        app = serve(path("x", ok), asgi=asgi, middleware=[OURS, f"{HERE}.Answering"], limits=["2/minute"])
        replies = [app.get("/cached", ("Origin", "https://elsewhere.example")) for _ in range(3)]
        assert [200, 200, 429] == [reply.status for reply in replies]
        assert b"cached" == replies[1].body
        assert ["1", "0"] == [str(reply.limits["2-per-minute"].remaining) for reply in replies[:2]]
        refused = replies[2]
        assert ("*", str(len(refused.body))) == (
            refused.header("Access-Control-Allow-Origin"),
            refused.header("Content-Length"),
        )

    @both
    def test_what_a_refused_response_held_is_closed(self, serve: Serve, asgi: bool) -> None:
        """A streamed answer that is refused on its way out is closed, and the request ends once."""
        ended: list[Any] = []

        def end(**kwargs: Any) -> None:
            ended.append(kwargs["sender"])

        others.closed.clear()
        app = serve(path("x", ok), asgi=asgi, middleware=[OURS, f"{HERE}.Answering"], limits=["1/minute"])
        app.get("/cached")
        request_finished.connect(end)
        try:
            reply = app.get("/streamed")
        finally:
            request_finished.disconnect(end)
        assert (429, ["streamed"], 1) == (reply.status, others.closed, len(ended))

    @both
    def test_cached_pages(self, serve: Serve, asgi: bool) -> None:
        """Pages out of Django's cache are counted, and are stored without anybody's limits."""
        cache = "django.middleware.cache"
        names = [OURS, f"{cache}.UpdateCacheMiddleware", f"{cache}.FetchFromCacheMiddleware"]
        calls: list[str] = []

        def view(request: Any) -> HttpResponse:
            calls.append(request.path)
            return HttpResponse(b"page")

        app = serve(
            path("x", view),
            asgi=asgi,
            middleware=names,
            limits=["3/minute"],
            django={
                "CACHES": {
                    "default": {"BACKEND": "django.core.cache.backends.locmem.LocMemCache", "LOCATION": str(asgi)}
                }
            },
        )
        replies = [app.get("/x") for _ in range(4)]
        assert ([200, 200, 200, 429], ["/x"]) == ([reply.status for reply in replies], calls)
        assert [2, 1, 0, 0] == [reply.limits["3-per-minute"].remaining for reply in replies]

    @both
    def test_refused_by_the_view_of_another_middleware(self, serve: Serve, asgi: bool) -> None:
        """What another middleware's ``process_view`` answers first is counted too."""

        class First(others.Plain):
            async def aprocess_view(self, *args: Any) -> HttpResponse:
                return HttpResponse(status=403)

            def process_view(self, *args: Any) -> HttpResponse:
                return HttpResponse(status=403)

        others.First = First  # type: ignore[attr-defined]  # Django finds middleware by name
        app = serve(path("x", ok), asgi=asgi, middleware=[f"{HERE}.First", OURS], limits=["2/minute"])
        assert [403, 403, 429] == app.statuses(3, "/x")


def slow_down(request: Any, rejected: Rejected) -> HttpResponse:
    """A project's own answer to refused requests."""
    return HttpResponse(
        f"{request.path}: {rejected.status}", status=rejected.status, headers={"Cache-Control": "max-age=60"}
    )


class TestResponses:
    """Responses, refusals and errors."""

    @both
    def test_renderer_by_name(self, serve: Serve, asgi: bool) -> None:
        """A renderer's dotted path; the header fields of a refusal hold whatever it says."""
        app = serve(path("x", ok), asgi=asgi, limits=["1/minute"], renderer=f"{__name__}.slow_down")
        app.get("/x")
        for asked in ("/x", "/missing"):
            reply = app.get(asked)
            assert (f"{asked}: 429".encode(), "no-store") == (reply.body, reply.header("Cache-Control"))
            assert reply.retry_after is not None

    @both
    def test_renderer_with_a_template(self, serve: Serve, asgi: bool) -> None:
        """A renderer may return a response that is rendered later."""

        class Page(SimpleTemplateResponse):
            rendered_content = "slow down"

        app = serve(
            path("x", ok), asgi=asgi, limits=["1/minute"], renderer=lambda request, rejected: Page("unused", status=429)
        )
        app.get("/x")
        assert [b"slow down"] * 2 == [app.get(asked).body for asked in ("/x", "/missing")]

    @both
    def test_inner_middleware_decorates_refusals(self, serve: Serve, asgi: bool) -> None:
        """A refusal goes out through the middleware inside of ours."""
        names = [OURS, "django.middleware.clickjacking.XFrameOptionsMiddleware", *SESSIONS]
        app = serve(path("x", limit("1/minute")(ok)), asgi=asgi, middleware=names)
        app.get("/x")
        reply = app.get("/x")
        assert (429, "DENY") == (reply.status, reply.header("X-Frame-Options"))

    @both
    def test_errors(self, serve: Serve, asgi: bool) -> None:
        """An error of a view is signalled and answered as before."""
        seen: list[type[BaseException] | None] = []

        def listen(sender: Any, request: Any, **kwargs: Any) -> None:
            seen.append(sys.exc_info()[0])

        def broken(request: Any) -> HttpResponse:
            raise ZeroDivisionError

        app = serve(path("x", limit("1/minute")(broken)), asgi=asgi)
        got_request_exception.connect(listen)
        try:
            assert [500, 429] == app.statuses(2, "/x")
        finally:
            got_request_exception.disconnect(listen)
        assert [ZeroDivisionError] == seen

    @both
    def test_refusals_raised_in_other_middleware(self, serve: Serve, asgi: bool) -> None:
        """A limited function that other middleware calls is limited; its refusal is the response."""
        helper = limit("2/minute")(lambda: None)

        class Calling(others.Plain):
            def look(self, request: Any) -> None:
                helper()

        others.Calling = Calling  # type: ignore[attr-defined]  # Django finds middleware by name
        app = serve(path("x", ok), asgi=asgi, middleware=[OURS, f"{HERE}.Calling"], limits=["9/minute"])
        replies = [app.get("/x") for _ in range(3)]
        assert [200, 200, 429] == [reply.status for reply in replies]
        assert {"9-per-minute": 6, "2-per-minute": 0} == {k: v.remaining for k, v in replies[2].limits.items()}

    @both
    def test_streams_find_their_request(self, serve: Serve, asgi: bool) -> None:
        """A limited function that a stream calls while it is sent is limited for the request that it belongs to."""
        helper = limit("2/minute")(lambda: b"+")
        seen: list[Any] = []

        def pieces() -> Iterator[bytes]:
            for _ in range(3):
                seen.append(current())
                try:
                    yield helper()
                except Rejected:
                    yield b"-"
                    return

        async def apieces() -> AsyncIterator[bytes]:
            for piece in pieces():
                yield piece

        view = path("x", lambda request: StreamingHttpResponse(apieces() if asgi else pieces()))
        app = serve(view, asgi=asgi, limits=["9/minute"])
        assert [b"+++", b"+++", b"-"] == [app.get("/x").body for _ in range(3)]
        assert 3 == len(set(seen))
        assert None not in seen

    def test_files_stay_files(self, serve: Serve) -> None:
        """A file is left to the server to send, as it was."""
        app: Any = serve(path("x", lambda request: FileResponse(FileIO(__file__))), limits=["9/minute"])
        environ: dict[str, Any] = {}

        def sending(environ: Any, start_response: Any) -> Any:
            def send_file(file: Any, size: int) -> Any:
                seen.append(file.name)
                return file

            environ["wsgi.file_wrapper"] = send_file
            return serving(environ, start_response)

        seen: list[str] = []
        serving, app.application = app.application, sending
        assert Path(__file__).read_bytes() == app.get("/x").body
        assert ([__file__], {}) == (seen, environ)

    @both
    def test_replaced_peers_are_reported(self, serve: Serve, asgi: bool, caplog: pytest.LogCaptureFixture) -> None:
        """Where the server has put an address out of a header in the peer's place, a log line says so, once."""
        app: Any = serve(path("x", ok), asgi=asgi, trusted_proxies=["10.0.0.0/8"], limits=["99/minute"])
        serving = app.application

        def wsgi(environ: Any, start_response: Any) -> Any:
            return serving({**environ, "REMOTE_PORT": "0"}, start_response)

        async def as_asgi(scope: Any, receive: Any, send: Any) -> None:
            await serving({**scope, "client": (scope["client"][0], 0)}, receive, send)

        app.get("/x")
        app.application = as_asgi if asgi else wsgi
        for _ in range(2):
            app.get("/x", ("X-Forwarded-For", "192.0.2.1"), peer="192.0.2.1")
        assert 1 == caplog.text.count("replaced the peer's address")

    def test_clients_that_leave(self, serve: Serve) -> None:
        """When a client leaves, Django cancels its view; the request was charged once, and leaves nothing behind."""
        ended: list[str] = []
        gone = asyncio.Event()

        @limit("2/minute")
        async def waiting(request: Any) -> HttpResponse:
            if "hurry" in request.GET:
                return HttpResponse()
            gone.set()
            try:
                await asyncio.Event().wait()
            except asyncio.CancelledError:
                ended.append("cancelled")
                raise
            return HttpResponse()

        app: Any = serve(path("x", waiting), asgi=True)
        serving = app.application

        async def leaving(scope: Any, receive: Any, send: Any) -> None:
            asked: list[str] = []

            async def receive_and_leave() -> Any:
                if not asked:
                    asked.append("once")
                    return await receive()
                await gone.wait()
                return {"type": "http.disconnect"}

            await serving(scope, receive_and_leave, send)

        app.application = leaving
        app.get("/x")
        assert ["cancelled"] == ended
        app.application = serving
        assert [200, 429] == app.statuses(2, "/x?hurry")

    def test_atomic_requests(self, serve: Serve) -> None:
        """Views stay in their transactions; a refusal before the view begins none, and one that the view raises ends it."""
        helper = limit("1/minute")(lambda: None)
        seen: list[bool] = []
        undone: list[bool] = []

        def late(request: Any) -> HttpResponse:
            seen.append(connection.in_atomic_block)
            transaction.on_commit(lambda: undone.append(False))
            helper()
            return HttpResponse()

        @transaction.non_atomic_requests
        def free(request: Any) -> HttpResponse:
            seen.append(connection.in_atomic_block)
            return HttpResponse()

        databases = settings.DATABASES
        before = connection.settings_dict["ATOMIC_REQUESTS"]
        assert databases
        connection.settings_dict["ATOMIC_REQUESTS"] = True
        try:
            app = serve(path("late", limit("2/minute")(late)), path("free", limit("9/minute")(free)))
            assert [200, 429, 429] == app.statuses(3, "/late")
            assert 200 == app.get("/free").status
        finally:
            connection.settings_dict["ATOMIC_REQUESTS"] = before
            connection.close()
        assert ([True, True, False], [False]) == (seen, undone)


class Both(View):
    def get(self, request: Any) -> HttpResponse:
        return HttpResponse()

    @limit("5/minute")
    def post(self, request: Any) -> HttpResponse:
        return HttpResponse()


PATTERNS = (
    path("a/<int:pk>", include([path("/x", limit("3/minute", methods=["POST"])(ok))])),
    path("both", Both.as_view()),
    path("plain", ok),
)


class TestInspection:
    """What tools see."""

    def test_routes(self, serve: Serve) -> None:
        """Every method of every route, with the template that requests have, and what carries limits."""
        serve(*PATTERNS)
        every = ["GET", "POST", "PUT", "PATCH", "DELETE"]
        assert [
            *((method, "a/<int:pk>/x") for method in every),
            ("GET", "both"),
            ("POST", "both"),
            *((method, "plain") for method in every),
        ] == [(route.method, route.template) for route in list_routes()]
        assert [1, 1, 1, 1, 1, 0, 1, 0, 0, 0, 0, 0] == [len(route.targets) for route in list_routes()]

    @both
    def test_description(self, serve: Serve, asgi: bool) -> None:
        """Django's applications are recognised, of both kinds; others are not."""
        app: Any = serve(*PATTERNS, asgi=asgi)
        description = describe_django(app.application)
        assert description is not None
        assert ("Django", app.runtime, 12) == (description.framework, description.runtime, len(description.routes))
        assert describe_django(object()) is None

    def test_command(self, serve: Serve, capsys: pytest.CaptureFixture[str]) -> None:
        """``manage.py failsoft_limits`` lists the routes and their limits; its exit status tells of limits that nothing leads to."""
        app: Any = serve(*PATTERNS, limits=["99/day"])
        if not _installed():
            pytest.skip("failsoft_django is on the path and not installed, so that no entry point leads to it")
        lost = limit("1/day", name="lost")(lambda request: None)
        with pytest.raises(SystemExit) as ended:
            call_command("failsoft_limits")
        printed = capsys.readouterr().out
        assert 1 == ended.value.code
        assert f"{__file__}:{lost.__wrapped__.__code__.co_firstlineno}" in printed
        assert "a/<int:pk>/x" in printed
        assert "3 per 60 s" in printed
        assert "99 per 86400 s" in printed
        assert describe(app.application).runtime is app.runtime


def _installed() -> bool:
    return any(entry.name == "django" for entry in entry_points(group="failsoft.adapters"))
