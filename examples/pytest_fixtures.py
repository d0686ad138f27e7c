"""Tests of an application that has limits. Run: pytest examples/pytest_fixtures.py"""

import pytest
from flask import Flask

from failsoft import limit
from failsoft.testing import outside_request
from failsoft_flask import Failsoft


@pytest.fixture
def client():
    app = Flask(__name__)
    Failsoft(app)

    @app.get("/")
    @limit("2/minute")
    def index():
        return "hello"

    return app.test_client()


# start: off
def test_without_limits(client, failsoft_off):
    assert [client.get("/").status_code for _ in range(9)] == [200] * 9


# end: off


# start: clock
def test_the_window(failsoft_clock, client):
    assert [client.get("/").status_code for _ in range(3)] == [200, 200, 429]
    failsoft_clock.advance("60s")
    assert client.get("/").status_code == 200


# end: clock


# start: outside
@limit("5/minute", shared="mail")
def send_mail():
    return "sent"


def test_a_job():
    with outside_request():
        assert send_mail() == "sent"


# end: outside
