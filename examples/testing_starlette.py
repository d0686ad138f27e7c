"""Tests of a Starlette application that names its store. Run: pytest examples/testing_starlette.py"""

# start: tests
from starlette.applications import Starlette
from starlette.middleware import Middleware
from starlette.responses import PlainTextResponse
from starlette.routing import Route
from starlette.testclient import TestClient

from failsoft import Settings, limit
from failsoft.runtime import Runtime
from failsoft.testing import FaultyStore
from failsoft_starlette import FailsoftMiddleware


@limit("2/minute", on_outage="closed")
async def index(request):
    return PlainTextResponse("hello")


def create_app(runtime=None):
    runtime = runtime or Runtime(Settings(store="redis://cache.example", limits=["100/minute"]))
    return Starlette(routes=[Route("/", index)], middleware=[Middleware(FailsoftMiddleware, runtime=runtime)])


def test_in_memory():
    client = TestClient(create_app(Runtime(Settings(store="memory://"))))
    assert [client.get("/").status_code for _ in range(3)] == [200, 200, 429]


def test_without_the_store():
    store = FaultyStore()
    client = TestClient(create_app(Runtime(Settings(), store=store)))
    with store.away():
        refused = client.get("/")
    assert (refused.status_code, refused.headers["Degraded"]) == (503, "limits;reason=no_connection")
    assert client.get("/").status_code == 200


# end: tests
