"""A store that cannot serve every limit, behind Flask."""

import pytest
from flask import Flask

from failsoft import Penalty, limit
from failsoft.ratelimit.acquire import Rule
from failsoft.stores import MemoryStore
from failsoft.testing import WsgiApp
from failsoft_flask import Failsoft
from tests.core.requests import make_runtime


class Picky(MemoryStore):
    """Keeps no penalties."""

    def unsupported(self, rule: Rule, mode: int = 0, *, stamps: bool = False) -> str | None:
        return "it keeps no penalties: use redis://" if isinstance(rule, Penalty) else None


def test_a_limit_that_the_store_cannot_serve(caplog: pytest.LogCaptureFixture) -> None:
    """A view whose limit cannot be enforced is never served, and the log says what to do; the others are none the worse for it."""
    app = Flask(__name__, static_folder=None)
    runtime = make_runtime(store=Picky())
    Failsoft(app, runtime=runtime)
    served: list[str] = []

    @app.get("/search")
    @limit("9/minute", penalty=Penalty())
    def search() -> str:
        served.append("search")
        return "found"

    @app.get("/")
    @limit("9/minute")
    def home() -> str:
        return "home"

    with WsgiApp(app, runtime) as client:
        assert [500, 500, 200] == [client.get(path).status for path in ("/search", "/search", "/")]
    assert [] == served
    said = "cannot be counted in the store 'default': it keeps no penalties: use redis://"
    assert 2 == sum(said in str(record.exc_info and record.exc_info[1]) for record in caplog.records)
