"""Switching from other packages: their counters go on in failsoft, and failsoft's in them."""

from typing import Any

import pytest
from flask import Flask

from failsoft import limit
from failsoft.testing.servers import AsgiApp, WsgiApp

PEER = "198.51.100.77"


@pytest.fixture
def server(redis_url: str) -> str:
    """A server without a counter."""
    import redis

    with redis.Redis.from_url(redis_url) as client:
        client.flushall()
    return redis_url


@pytest.mark.parametrize("strategy", ["fixed-window", "moving-window", "sliding-window-counter"])
def test_flask_limiter(server: str, strategy: Any) -> None:
    """A Flask application that changes over in the midst of a window, view by view, with both kinds of process running."""
    from flask_limiter import Limiter
    from flask_limiter.util import get_remote_address

    from failsoft_flask import Failsoft

    old, new = Flask("shop"), Flask("shop")
    limiter = Limiter(
        get_remote_address,
        app=old,
        storage_uri=server,
        strategy=strategy,
        default_limits=["5/hour"],
        application_limits=["20/day"],
    )
    new.config["FAILSOFT"] = {
        "store": server,
        "deadline": 5,
        "key_style": "flask-limiter",
        "algorithm": strategy,
        "limits": ["20/day"],
        "route_limits": ["5/hour"],
        "deny_cache": 0,
    }
    Failsoft(new)

    def plain() -> str:
        return "plain"

    def own() -> str:
        return "own"

    def shared() -> str:
        return "shared"

    old.add_url_rule("/plain", view_func=plain)
    old.add_url_rule("/own", endpoint="own", view_func=limiter.limit("4/hour")(own))
    old.add_url_rule("/shared", endpoint="shared", view_func=limiter.shared_limit("3/hour", scope="pot")(shared))
    new.add_url_rule("/plain", view_func=plain)
    new.add_url_rule("/own", endpoint="own", view_func=limit("4/hour")(own))
    new.add_url_rule("/shared", endpoint="shared", view_func=limit("3/hour", shared="pot")(shared))
    before, after = old.test_client(), WsgiApp(new, new.extensions["failsoft"])

    def ask_before(path: str) -> int:
        return before.get(path, environ_base={"REMOTE_ADDR": PEER}).status_code

    with after:
        for path, amount in (("/plain", 5), ("/own", 4), ("/shared", 3)):
            assert 200 == ask_before(path)
            name = f"{amount}-per-hour"
            assert amount - 2 == after.get(path, peer=PEER).limits[name].remaining
            left = [ask_before(path) for _ in range(amount - 2)]
            assert [200] * (amount - 2) == left
            assert 429 == after.get(path, peer=PEER).status
            assert 429 == ask_before(path)


def test_slowapi(server: str) -> None:
    """A FastAPI application that changes over in the midst of a window."""
    from fastapi import FastAPI, Request
    from slowapi import Limiter
    from slowapi.errors import RateLimitExceeded
    from slowapi.extension import _rate_limit_exceeded_handler
    from slowapi.util import get_remote_address

    from failsoft import Settings
    from failsoft.runtime import Runtime
    from failsoft_starlette import FailsoftMiddleware

    old, new = FastAPI(), FastAPI()
    limiter = Limiter(key_func=get_remote_address, storage_uri=server)
    old.state.limiter = limiter
    old.add_exception_handler(RateLimitExceeded, _rate_limit_exceeded_handler)  # type: ignore[arg-type]  # as its page says
    runtime = Runtime(Settings(store=server, deadline=5, key_style="slowapi", deny_cache=0))
    new.add_middleware(FailsoftMiddleware, runtime=runtime)

    @old.get("/items")
    @limiter.limit("4/hour")
    def old_items(request: Request) -> str:
        return "items"

    @new.get("/items")
    @limit("4/hour")
    async def items() -> str:
        return "items"

    unused = Runtime(Settings())
    with AsgiApp(old, unused) as before, AsgiApp(new, runtime) as after:
        assert [200] == before.statuses(1, "/items", peer=PEER)
        assert 2 == after.get("/items", peer=PEER).limits["4-per-hour"].remaining
        assert [200, 200, 429] == before.statuses(3, "/items", peer=PEER)
        assert [429] == after.statuses(1, "/items", peer=PEER)
