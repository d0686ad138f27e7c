"""The command line with a Starlette application."""

import asyncio
import json
from collections.abc import Callable, Iterator
from importlib.metadata import EntryPoint
from typing import Any

import pytest
import redis
from starlette.applications import Starlette
from starlette.endpoints import HTTPEndpoint
from starlette.middleware import Middleware
from starlette.requests import Request
from starlette.responses import PlainTextResponse
from starlette.routing import Host, Mount, Route, WebSocketRoute

from failsoft import Settings, cli, late, limit
from failsoft.inspection import Trial, describe, description
from failsoft.inspection.explanation import Explained, Explanation, explain
from failsoft.runtime import Runtime
from failsoft.testing import AsgiApp
from failsoft_starlette import FailsoftMiddleware
from tests.servers import poll
from tests.starlette.apps import ok

Make = Callable[..., Starlette]


@pytest.fixture
def make(redis_url: str) -> Iterator[Make]:
    """Makes applications on an empty server."""
    runtimes: list[Runtime] = []
    with redis.Redis.from_url(redis_url) as client:
        client.flushall()

    def make(*routes: Any, **settings: Any) -> Starlette:
        runtime = Runtime(
            Settings.load({"store": redis_url, "limits": [], "deny_cache": 0, "deadline": 2, **settings}, environ={})
        )
        runtimes.append(runtime)
        return Starlette(routes=list(routes), middleware=[Middleware(FailsoftMiddleware, runtime=runtime)])

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
    """The view is found as a request's is, through mounts and hosts; what no view serves says why."""
    inner = Mount("/in", routes=[Route("/items/{number:int}", ok(), methods=["GET"])])
    app = make(inner, Host("a.test", Starlette(routes=[Route("/host", ok())])), limits=["9/day"])
    found = tried(app, "/in/items/4?x=1")
    assert ("/in/items/{number}", "", "tests.starlette.apps.ok.<locals>.view") == (found.route, found.note, found.view)
    assert "/host" == tried(app, "/host", headers={"Host": "a.test"}).route
    for target, method, note in (
        ("/nowhere", "GET", "404 Not Found"),
        ("/in/items/4", "PUT", "405 Method Not Allowed"),
    ):
        found = tried(app, target, method=method)
        assert (None, note) == (found.view, found.note)
        assert ["9 per 86400 s"] == [one.limit.quota for one in applying(found)]


def test_what_functions_see(make: Make) -> None:
    """Functions of the request are given Starlette's request, with its body; they may await."""

    seen: list[Any] = []

    async def by(request: Request) -> str:
        seen.append(request.app)
        body = await request.json()
        return f"{request.method} {request.url.path} {request.query_params['n']} {request.headers['x-a']} {body['k']}"

    app = make(Route("/a", limit("5/minute", by=by)(ok()), methods=["POST"]))
    found = counts(app, "/a?n=2", method="POST", headers={"X-A": "b"}, body=b'{"k": "v"}')
    assert ["key:POST%20%2Fa%202%20b%20v"] == found
    assert [True] == [one is app for one in seen]


def test_other_adapters_are_not_imported(make: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    """The adapter of an application's framework is asked first; the others, and what they import, are not needed."""
    other = EntryPoint("another", "an_adapter_that_is_not_there:describe", description.GROUP)
    ours = EntryPoint("starlette", "failsoft_starlette.inspect:describe", description.GROUP)
    monkeypatch.setattr(description, "entry_points", lambda group: (other, ours))
    assert "Starlette" == describe(make(Route("/", ok()))).framework


def test_users(make: Make) -> None:
    """A user that is given is counted, and there for functions; none is given, and what counts users is decided late."""
    app = make(
        Route("/", limit("5/minute", by="user")(limit("6/minute", by=lambda request: request.user.username)(ok())))
    )
    assert ["user:7", "key:7"] == counts(app, user="7")
    first, second = applying(tried(app))
    assert (True, "decided late, when the framework knows who is asking; say with --user who that is") == (
        first.limit.late,
        first.why,
    )
    assert "AuthenticationMiddleware must be installed" in tried(app).limits[1].why
    assert second.applies


def test_scopes(make: Make) -> None:
    """Scopes are found by path, host and mount."""
    scopes = [
        {"name": "path", "prefix": "/in", "limits": ["1/day"]},
        {"name": "host", "host": "*.a.test", "limits": ["2/day"]},
        {"name": "group", "group": "part", "limits": ["3/day"]},
    ]
    app = make(Mount("/in", routes=[Route("/x", ok())], name="part"), scopes=scopes)
    found = applying(tried(app, "/in/x", headers={"Host": "b.a.test:80"}))
    assert ["1 per 86400 s", "2 per 86400 s", "3 per 86400 s"] == [one.limit.quota for one in found]


def test_classes(make: Make) -> None:
    """Of a class-based view, the limits of the method are explained."""

    class View(HTTPEndpoint):
        @limit("5/minute", by=late(str))
        async def get(self, request: Request) -> PlainTextResponse:
            return PlainTextResponse("x")

        @limit("6/minute")
        async def post(self, request: Request) -> PlainTextResponse:
            return PlainTextResponse("x")

    app = make(Route("/", View))
    assert [("5 per 60 s", True)] == [(one.limit.quota, one.limit.late) for one in applying(tried(app))]
    assert [("6 per 60 s", False)] == [(one.limit.quota, one.limit.late) for one in applying(tried(app, method="POST"))]


def test_sockets(make: Make) -> None:
    """The request that opens a WebSocket is explained where it asks for one, with what each message is charged to."""

    async def socket(websocket: Any) -> None: ...

    view = limit("5/minute")(limit("6/minute", messages=True)(socket))
    app = make(WebSocketRoute("/ws", view))
    assert "404 Not Found" == tried(app, "/ws").note
    found = tried(app, "/ws", headers={"Upgrade": "websocket", "Connection": "Upgrade"})
    assert ("/ws", "") == (found.route, found.note)
    assert [("5 per 60 s", False, "ip:192.0.2.1"), ("6 per 60 s", True, "ip:192.0.2.1")] == [
        (one.limit.quota, one.limit.messages, one.counts) for one in applying(found)
    ]


def test_keys_are_those_of_requests(make: Make, redis_url: str) -> None:
    """What an explanation names is what a request charges, behind proxies too, and below a root path."""
    view = limit("5/minute", by=["ip", "header:X-Key"], per_method=True)(ok())
    app = make(Route("/{name}", view), limits=["9/day"], trusted_proxies=["10.0.0.0/8"])
    headers = {"X-Forwarded-For": "198.51.100.1, 10.0.0.2", "X-Key": "k"}
    explained = {one.key for one in applying(tried(app, "/a", address="10.0.0.1", headers=headers))}
    assert 2 == len(explained)
    app.middleware_stack = app.build_middleware_stack()
    with (
        redis.Redis.from_url(redis_url, decode_responses=True) as server,
        AsgiApp(app, describe(app).runtime) as client,
    ):
        poll(
            lambda: (
                client.request("GET", "/a", headers=list(headers.items()), peer="10.0.0.1") and server.keys("failsoft*")
            )
        )
        assert explained == set(server.keys("failsoft*"))


def test_commands(make: Make, redis_url: str, capsys: pytest.CaptureFixture[str]) -> None:
    """The commands do for a Starlette application what they say."""
    app = make(Route("/", limit("5/minute")(ok())))
    runtime = describe(app).runtime
    arguments = ["GET", "/", "--address", "192.0.2.1", "--json"]

    def left(name: str, *more: str) -> int:
        assert 0 == cli.main([name, *arguments, *more], app=app)
        return int(json.loads(capsys.readouterr().out)["limits"][0]["left"]["remaining"])

    app.middleware_stack = app.build_middleware_stack()
    with AsgiApp(app, runtime) as client:
        poll(lambda: client.request("GET", "/", peer="192.0.2.1") and left("peek") < 5)
        before = left("explain")
        assert before + 1 == left("refund")
        assert 5 == left("reset", "--yes")
    assert 0 == cli.main(["store", "latency", "--count", "10"], app=app)
    assert "10 flights" in capsys.readouterr().out
    cli.main(["limits"], app=app)  # 1 where other tests of this process left declarations
    assert "5 per 60 s by ip" in capsys.readouterr().out


def test_not_on_an_event_loop(make: Make) -> None:
    """The command line makes an event loop of its own for functions that await, and leaves none behind."""

    async def by(request: Request) -> str:
        await asyncio.sleep(0)
        return "x"

    assert ["key:x"] == counts(make(Route("/", limit("5/minute", by=by)(ok()))))
    with pytest.raises(RuntimeError):
        asyncio.get_running_loop()
