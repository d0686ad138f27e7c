"""The command line with Django: ``manage.py failsoft``, and ``failsoft`` with its WSGI and ASGI applications."""

import io
import json
from collections.abc import Callable, Iterator
from contextlib import ExitStack, suppress
from importlib.metadata import entry_points
from typing import Any

import pytest
import redis
from django.core.handlers.asgi import ASGIHandler
from django.core.handlers.wsgi import WSGIHandler
from django.core.management import CommandError, call_command
from django.http import HttpResponse
from django.test import RequestFactory, override_settings
from django.urls import include, path, re_path
from django.views import View

from failsoft import exempt, late, limit
from failsoft.inspection import Trial
from failsoft.inspection.explanation import Explained, Explanation, explain
from failsoft.testing import WsgiApp
from failsoft_django import get_runtime
from failsoft_django.inspect import describe
from failsoft_django.runtime import told
from tests.django.conftest import OURS
from tests.servers import poll

Serve = Callable[..., Any]

pytestmark = pytest.mark.skipif(
    not any(entry.name == "django" for entry in entry_points(group="failsoft.adapters")),
    reason="failsoft_django is on the path and not installed, so that no entry point leads to it",
)


@pytest.fixture
def serve(redis_url: str) -> Iterator[Serve]:
    """Serves a URLconf, counting on an empty server, until the test ends."""
    with ExitStack() as stack, redis.Redis.from_url(redis_url) as client:
        client.flushall()

        def serve(*patterns: Any, middleware: Any = (OURS,), **failsoft: Any) -> None:
            given = {"store": redis_url, "limits": [], "deny_cache": 0, "deadline": 2, **failsoft}
            stack.enter_context(override_settings(ROOT_URLCONF=patterns, MIDDLEWARE=list(middleware), FAILSOFT=given))
            stack.callback(lambda: get_runtime().close())

        yield serve


def tried(
    target: str = "/", *, method: str = "GET", asgi: bool = False, late: str | None = None, **said: Any
) -> Explanation:
    """What would apply to a request."""
    description = describe(ASGIHandler() if asgi else WSGIHandler())
    assert description is not None
    trial: dict[str, Any] = {"address": "192.0.2.1", **said}
    headers = tuple(trial.pop("headers", {}).items())
    return explain(description, Trial(method=method, target=target, headers=headers, **trial), late=late)


def applying(explanation: Explanation) -> list[Explained]:
    """The limits that apply."""
    return [one for one in explanation.limits if one.applies]


def counts(target: str = "/", **said: Any) -> list[str | None]:
    """Whom each limit that applies counts."""
    return [one.counts for one in applying(tried(target, **said))]


def run(*arguments: str) -> str:
    """What ``manage.py failsoft`` prints."""
    out = io.StringIO()
    call_command("failsoft", *arguments, stdout=out)
    return out.getvalue()


def page(request: Any, **params: Any) -> HttpResponse:
    return HttpResponse("x")


EITHER = pytest.mark.parametrize("asgi", [False, True], ids=["wsgi", "asgi"])


@EITHER
def test_routing(serve: Serve, asgi: bool) -> None:
    """The view is found by Django's own routing, with its template; what no view serves says so."""
    view = limit("5/minute")(page)
    serve(
        path("shop/", include(([path("items/<int:number>", view)], "shop"), namespace="a")),
        re_path(r"^old/(?P<n>\d+)$", page),
        limits=["9/day"],
        scopes=[{"name": "g", "group": "shop", "limits": ["8/day"]}, {"name": "n", "group": "a", "limits": ["7/day"]}],
    )
    found = tried("/shop/items/4?x=1", asgi=asgi)
    assert ("shop/items/<int:number>", "", f"{__name__}.page") == (found.route, found.note, found.view)
    assert ["9 per 86400 s", "8 per 86400 s", "7 per 86400 s", "5 per 60 s"] == [
        one.limit.quota for one in applying(found)
    ]
    assert r"old/(?P<n>\d+)$" in str(tried("/old/3", asgi=asgi).route)
    found = tried("/nowhere", asgi=asgi)
    assert (None, None, "404 Not Found") == (found.route, found.view, found.note)
    assert ["9 per 86400 s"] == [one.limit.quota for one in applying(found)]


@EITHER
def test_what_functions_see(serve: Serve, asgi: bool) -> None:
    """Functions of the request are given Django's request, with its body, its match and who is asking; they may await."""
    seen: list[Any] = []

    async def by(request: Any) -> str:
        body = json.loads(request.body)
        seen.append((request.method, request.path, request.GET["n"], request.headers["X-A"], body["k"]))
        seen.append((request.META["REMOTE_ADDR"], request.user.is_authenticated, request.content_type))
        return str(request.resolver_match.kwargs["number"])

    serve(path("a/<int:number>", limit("5/minute", by=by)(page)))
    headers = {"X-A": "b", "Content-Type": "application/json"}
    assert ["key:4"] == counts("/a/4?n=2", method="POST", headers=headers, body=b'{"k": "v"}', asgi=asgi)
    assert [("POST", "/a/4", "2", "b", "v"), ("192.0.2.1", False, "application/json")] == seen


@EITHER
def test_addresses(serve: Serve, asgi: bool) -> None:
    """The address is the peer's, or what trusted proxies say; none is given, and that is asked for."""
    serve(limits=["9/day"], trusted_proxies=["10.0.0.0/8"])
    forwarded = {"X-Forwarded-For": "198.51.100.1, 10.0.0.2"}
    assert ["ip:198.51.100.1"] == counts(address="10.0.0.1", headers=forwarded, asgi=asgi)
    assert ["ip:192.0.2.1"] == counts(headers=forwarded, asgi=asgi)
    (found,) = applying(tried(address=None, asgi=asgi))
    assert (None, "the client's address is unknown: say it with --address") == (found.counts, found.why)


def test_users(serve: Serve) -> None:
    """A user that is given is counted without asking the database, and functions that ask it are told apart."""
    serve(
        path(
            "",
            limit("5/minute", by="user", on_missing="exempt")(
                limit("6/minute", by=lambda request: request.user.get_username())(page)
            ),
        )
    )
    first, second = tried(user="7").limits
    assert "user:7" == first.counts
    assert "raised " in second.why  # the database of these tests has no tables
    nobody = tried().limits
    assert [False, True] == sorted(one.applies is True for one in nobody)


def test_classes(serve: Serve) -> None:
    """Of a class-based view, the limits of the method are explained; an exempt one has none of the settings'."""

    class Page(View):
        @limit("5/minute", by=late(lambda self, request: "x"))
        def get(self, request: Any) -> HttpResponse:
            return HttpResponse("x")

        @limit("6/minute")
        def post(self, request: Any) -> HttpResponse:
            return HttpResponse("x")

    serve(path("", exempt(Page.as_view())), limits=["9/day"])
    assert [("5 per 60 s", True)] == [(one.limit.quota, one.limit.late) for one in applying(tried())]
    assert ["key:y"] == counts(late="y")
    assert ["6 per 60 s"] == [one.limit.quota for one in applying(tried(method="POST"))]


def test_keys_are_those_of_requests(serve: Serve, redis_url: str) -> None:
    """What an explanation names is what a request charges."""
    view = limit("5/minute", by=["ip", "header:X-Key"], per_method=True)(page)
    serve(path("<name>", view), limits=["9/day"], trusted_proxies=["10.0.0.0/8"])
    headers = {"X-Forwarded-For": "198.51.100.1, 10.0.0.2", "X-Key": "k"}
    explained = {one.key for one in applying(tried("/a", address="10.0.0.1", headers=headers))}
    assert 2 == len(explained)
    with (
        redis.Redis.from_url(redis_url, decode_responses=True) as server,
        WsgiApp(WSGIHandler(), get_runtime()) as client,
    ):
        poll(
            lambda: (
                client.request("GET", "/a", headers=list(headers.items()), peer="10.0.0.1") and server.keys("failsoft*")
            )
        )
        assert explained == set(server.keys("failsoft*"))


def test_manage_py_failsoft(serve: Serve) -> None:
    """``manage.py failsoft`` has the commands, for the project's own settings, and prints where Django's commands do."""
    serve(path("", limit("5/minute")(page)))
    request = ["GET", "/", "--address", "192.0.2.1"]
    with WsgiApp(WSGIHandler(), get_runtime()) as client:

        def left(name: str, *more: str) -> int:
            return int(json.loads(run(name, *request, "--json", *more))["limits"][0]["left"]["remaining"])

        poll(lambda: client.request("GET", "/", peer="192.0.2.1") and left("peek") < 5)
        before = left("explain")
        assert before + 1 == left("refund", "--limit", "5-per-minute")
        assert 5 == left("reset", "--yes")
        assert "ip:192.0.2.1" in run("explain", *request)
        assert "10 flights" in run("store", "latency", "--count", "10")
        assert "are ours" in run("store", "keys")


def test_advice_is_told_once(serve: Serve, caplog: pytest.LogCaptureFixture) -> None:
    """What the system checks have said of the settings the log does not repeat; without them it is there to say it."""
    error = io.StringIO()
    for checked in (False, True):
        told.clear()
        caplog.clear()
        serve(path("", page), workers=3, store="memory://")
        with suppress(SystemExit):  # other tests' limits may be on functions that live on
            call_command("failsoft", "limits", skip_checks=not checked, stdout=io.StringIO(), stderr=error)
        assert checked == ("failsoft.W001" in error.getvalue())
        assert checked != ("failsoft.W001" in caplog.text)


def test_manage_py_failsoft_limits(serve: Serve, capsys: pytest.CaptureFixture[str]) -> None:
    """Routes are listed as paths, a function under any method, a class under its own, and the admin's as one."""
    serve(
        path("transfer", page),
        re_path(r"^old/(?P<n>\d+)$", page),
        path("view", _Page.as_view()),
        path("admin/", include(([path(f"{n}/add/", page) for n in range(30)], "admin"), namespace="admin")),
        limits=["9/day"],
        shed=True,
    )
    said = ["        9 per 86400 s by ip, from limits, on outage local", "        criticality critical"]
    with suppress(SystemExit):  # other tests' limits may be on functions that live on
        out = io.StringIO()
        call_command("failsoft", "limits", stdout=out)
    lines = [line for line in out.getvalue().splitlines() if line and "is reached by no route" not in line]
    assert lines[0].startswith("Django on redis")
    assert [
        "any     /transfer",
        *said,
        r"any     /old/(?P<n>\d+)$",
        *said,
        "GET     /view",
        *said,
        "30 routes of admin, below /admin/",
        *said,
        "30 routes are shown together, for they say the same; --all shows each",
    ] == lines[2:]
    with suppress(SystemExit):
        call_command("failsoft_limits", "--all")
    assert "any     /admin/29/add/\n" in capsys.readouterr().out


class _Page(View):
    def get(self, request: Any) -> HttpResponse:
        return HttpResponse("x")


def test_exit_status(serve: Serve, capsys: pytest.CaptureFixture[str]) -> None:
    """Findings and mistakes have the exit status of the other program."""
    serve()
    with pytest.raises(SystemExit) as ended:
        run("explain", "GET", "nowhere")
    assert (2, True) == (ended.value.code, "is no path" in capsys.readouterr().err)
    with pytest.raises(CommandError, match="COMMAND"):
        run()


def test_no_user_model(serve: Serve) -> None:
    """Without Django's users, requests are made up all the same."""
    seen: list[bool] = []

    def by(request: Any) -> str:
        seen.append(hasattr(request, "user"))
        return "x"

    serve(path("", limit("5/minute", by=by)(page)))
    with override_settings(INSTALLED_APPS=["failsoft_django"]):
        assert ["key:x"] == counts()
    assert [False] == seen
    assert not hasattr(RequestFactory().get("/"), "user")


def test_manage_py_failsoft_sessions(serve: Serve, capsys: pytest.CaptureFixture[str]) -> None:
    """``manage.py failsoft sessions`` is about the sessions that the project's settings lead to."""
    serve(sessions=True, secret="a secret for tests, of forty characters.", session_cookie="sessionid")
    sessions = get_runtime().sessions
    assert sessions is not None
    session = sessions.open(None)
    session.login("alice")
    poll(lambda: "0\n" == run("sessions", "count", "nobody"))
    assert 2 == len(sessions.save(session))
    assert "1\n" == run("sessions", "count", "alice")
    assert f"{session.handle}: alice, logged in" in run("sessions", "show", str(session.handle))
    assert "revoked all sessions of alice; 1 were listed\n" == run("sessions", "revoke", "alice", "--all")
    with pytest.raises(SystemExit) as ended:
        run("sessions", "list", "alice")
    assert 1 == ended.value.code
