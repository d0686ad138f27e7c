"""Tests of a Flask application that names its store. Run: pytest examples/testing_flask.py"""

from flask import Flask

from failsoft import limit
from failsoft.stores import MemoryStore
from failsoft.testing import FaultyStore
from failsoft_flask import Failsoft


# start: memory
def create_app(**overrides):
    app = Flask(__name__)
    Failsoft(app, **{"store": "redis://cache.example", "limits": ["100/minute"], **overrides})

    @app.get("/")
    @limit("2/minute", on_outage="closed")
    def index():
        return "hello"

    return app


def test_in_memory():
    client = create_app(store="memory://").test_client()
    assert [client.get("/").status_code for _ in range(3)] == [200, 200, 429]


app = create_app()  # as a module does that knows nothing of tests


def test_an_application_that_is_there_already():
    app.extensions["failsoft"].store = MemoryStore()  # before the first request
    client = app.test_client()
    assert [client.get("/").status_code for _ in range(3)] == [200, 200, 429]


# end: memory


# start: outage
def test_without_the_store():
    app = create_app(store="memory://")
    store = app.extensions["failsoft"].store = FaultyStore()
    client = app.test_client()
    with store.away():
        refused = client.get("/")
    assert (refused.status_code, refused.headers["Degraded"]) == (503, "limits;reason=no_connection")
    with store.hanging("50ms"):  # each request waits so long
        assert client.get("/").headers["Degraded"] == "limits;reason=timeout"
    with store.failing("ratelimit.acquire"):  # it answers, with an error
        assert client.get("/").headers["Degraded"] == "limits;reason=failed"
    assert client.get("/").status_code == 200


# end: outage
