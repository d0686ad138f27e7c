"""Each program of the documentation does what its page says."""

import importlib.util
import sys
from collections.abc import Callable
from pathlib import Path
from types import ModuleType

import pytest

from failsoft.ratelimit.shedding import Capacity
from failsoft.testing.harness import App
from failsoft.testing.servers import AsgiApp, WsgiApp
from tests.processes import run

EXAMPLES = Path(__file__).parents[2] / "examples"


def load(name: str) -> ModuleType:
    """The example, fresh."""
    spec = importlib.util.spec_from_file_location(name, EXAMPLES / f"{name}.py")
    assert spec is not None
    assert spec.loader is not None
    module = sys.modules[name] = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def wsgi(name: str) -> WsgiApp:
    """The Flask example of that name."""
    app = load(name).app
    return WsgiApp(app, app.extensions["failsoft"])


def asgi(name: str, attribute: str = "app") -> AsgiApp:
    """The Starlette or FastAPI example of that name."""
    from failsoft_starlette import FailsoftMiddleware

    app = getattr(load(name), attribute)
    layer = app.middleware_stack = app.build_middleware_stack()
    while not isinstance(layer, FailsoftMiddleware):
        layer = layer.app
    return AsgiApp(app, layer.runtime)


def django(name: str) -> WsgiApp:
    """The Django example of that name. Its settings are those of the process."""
    from failsoft_django.runtime import get_runtime

    return WsgiApp(load(name).application, get_runtime())


def check(app: App) -> None:
    """The application answers, counts, and refuses what is beyond its limit, with the header fields and the problem document."""
    with app:
        replies = [app.get("/") for _ in range(13)]
    assert [200] * 12 + [429] == [reply.status for reply in replies]
    assert {"1000-per-minute": 999, "12-per-minute": 11} == {k: v.remaining for k, v in replies[0].limits.items()}
    assert ["12-per-minute"] == replies[-1].json()["violated-policies"]
    assert replies[-1].retry_after is not None


@pytest.mark.parametrize(("open_", "name"), [(wsgi, "flask_app"), (asgi, "fastapi_app"), (asgi, "starlette_app")])
def test_application(open_: Callable[[str], App], name: str) -> None:
    """Each example application is as it should be."""
    check(open_(name))


def test_django() -> None:
    """So is Django's, in a process of its own."""
    done = run(f"from {__name__} import check, django\ncheck(django('django_app'))")
    assert 0 == done.returncode, done.stderr


def test_limits() -> None:
    """Each limit of the page on limits does what its comment says."""
    with wsgi("declaring_limits") as app:
        assert {"1000-per-minute", "20000-per-day", "2-per-second", "10-per-minute", "200-per-day"} == set(
            app.get("/search").limits
        )
        assert 49 == app.get("/export").limits["10-per-second"].remaining
        assert {} == app.get("/status").limits
        assert [201] * 3 == [app.request("POST", "/videos").status for _ in range(3)]
        assert [201] * 5 + [429] == [app.request("POST", "/images").status for _ in range(6)]
        assert 60 == app.get("/report?pages=40").limits["100-per-hour"].remaining
        ours, paid = ("X-Api-Key", "a key of our own jobs"), ("X-Api-Key", "a key of 32 random characters")
        assert [200] * 6 + [429] == app.statuses(7, "/feed")
        assert [429, 200] == [app.get("/feed", key).status for key in (paid, ours)]
        assert [200] * 5 + [429] == [app.get("/api", ("X-Api-Key", f"invented {number}")).status for number in range(6)]
        assert [429] == app.statuses(1, "/api")
        assert 499 == app.get("/api", paid).limits["500-per-minute"].remaining
        assert {"1000-per-minute", "20000-per-day"} == set(app.get("/api", ours).limits)
        assert [200] * 3 + [429] == [app.request("PUT", "/article").status for _ in range(4)]
        assert [200] * 5 + [429] == [app.request("POST", "/note").status for _ in range(6)]
        assert 59 == app.get("/note").limits["60-per-minute"].remaining
        assert "100-per-minute" in app.get("/nowhere").limits


def test_charging() -> None:
    """Each limit of the page on charging is charged as its comment says."""
    with asgi("charging") as app:
        right, wrong = "/token?password=open%20sesame", "/token?password=guess"
        assert [200] * 9 == [app.request("POST", right).status for _ in range(9)]
        assert [401] * 5 + [429] == [app.request("POST", wrong).status for _ in range(6)]
        assert [200, 200] == [app.request("POST", f"/chat?words={words}").status for words in (500, 6000)]
        assert 3500 == app.request("POST", "/chat?words=0").limits["tokens"].remaining
        assert 200 == app.get("/stream?pieces=1000").status
        assert 200 == app.get("/stream?pieces=0").status
        sent = sum(len(f"piece {number}\n") for number in range(1000))
        assert 100_000 - sent - 1000 == app.get("/stream?pieces=0").limits["bytes"].remaining
        replies = [app.get("/feed") for _ in range(11)]
        assert ([200] * 11, {"100-per-minute"}) == ([one.status for one in replies], set(replies[-1].limits))
        assert [200] * 3 + [429] * 5 == app.statuses(8, "/prices")
        blocked = app.get("/prices")
        assert blocked.json()["type"].endswith("#abnormal-usage-detected")
        assert (blocked.retry_after or 0) >= 890


def test_parts(caplog: pytest.LogCaptureFixture) -> None:
    """Each part of the application has the limits that the page says, and they change while it runs."""
    with wsgi("parts") as app:
        assert {"1000-per-minute", "300-per-minute"} == set(app.get("/api/x", ("X-Api-Key", "a")).limits)
        assert {"1000-per-minute", "60-per-minute"} == set(app.get("/shop/cart").limits)
        assert {"1000-per-minute", "20-per-second"} == set(app.get("/", ("Host", "a.partners.example.com")).limits)
        assert [200] * 5 + [429] == [app.request("POST", "/password").status for _ in range(6)]
        assert 200 == app.get("/tick").status
        sys.modules["parts"].change_limits(["10/minute"])
        assert {"10-per-minute", "60-per-minute"} == set(app.get("/shop/cart").limits)
        assert [200] * 7 == app.statuses(7, "/shop/cart")
        assert "10-per-minute has 2 of 10 left" in caplog.text


def test_identities() -> None:
    """Each limit of the page on identities counts whom it says."""
    with asgi("identities") as app:
        key = ("X-Api-Key", "a key of 32 random characters")
        assert [403] == app.statuses(1, "/quotes")
        assert [403] * 4 == [app.get("/quotes", ("X-Api-Key", f"invented {number}")).status for number in range(4)]
        assert [200] * 10 + [429] == app.statuses(11, "/quotes", key)
        assert [200] * 10 + [429] == app.statuses(11, "/prices", ("X-Api-Key", "a"))
        invented = [app.get("/prices", ("X-Api-Key", f"invented {number}")).status for number in range(91)]
        assert [200] * 90 + [429] == invented
        assert [403] == app.statuses(1, "/stock")
        assert [200] * 10 + [429] == app.statuses(11, "/stock", key)
        assert 200 == app.request("PUT", "/stock", headers=[key]).status
        posted = [app.request("POST", "/reports", headers=[key]).status for _ in range(6)]
        assert [200] * 5 + [429] == posted
        other = ("X-Forwarded-For", "198.51.100.1")
        assert 200 == app.request("POST", "/reports", headers=[key, other], peer="10.1.2.3").status
        assert [200] * 10 + [429] == app.statuses(11, "/orders", ("Authorization", "Account a"))
        assert [200] == app.statuses(1, "/orders", ("Authorization", "Account b"))
        forwarded = [("X-Forwarded-For", "198.51.100.1, 192.0.2.9")]
        replies = [app.request("GET", "/orders", headers=forwarded, peer="10.1.2.3") for _ in range(2)]
        assert [9, 8] == [reply.limits["10-per-minute"].remaining for reply in replies]


def test_events(caplog: pytest.LogCaptureFixture) -> None:
    """A listener hears of a refusal."""
    with wsgi("events") as app:
        assert [200, 200, 429] == app.statuses(3, "/")
    assert ["refused on /: 2-per-minute"] == [record.message for record in caplog.records]


def test_answers() -> None:
    """A refusal is answered by the application's own page, with the limit's header fields."""
    for app in (wsgi("answers"), asgi("answers", "asgi")):
        with app:
            assert [200, 429] == app.statuses(2, "/")
            reply = app.get("/")
            assert b"Take a breath: " in reply.body
            assert 0 == reply.limits["1-per-minute"].remaining
            assert reply.retry_after is not None


def test_shedding(caplog: pytest.LogCaptureFixture) -> None:
    """When no place is left, each route of the page is served or refused as its class says."""
    with asgi("shedding") as app:
        shedder = app.runtime.shedder
        assert shedder is not None
        held = Capacity(least=1, most=1)
        assert held.acquire(0, held.usual("/"), 0.0) is not None
        shedder.capacity = held
        asked = [("POST", "/checkout/1"), ("GET", "/recommendations"), ("GET", "/news"), ("GET", "/healthz")]
        assert [200] * 4 == [app.request(method, path).status for method, path in asked]
        assert 503 == app.get("/reports/2026").status
    heard = [record.message for record in caplog.records if record.name == "shop"]
    assert ["shed on /reports/{year} (sheddable): full"] == heard
