"""A store that cannot serve every limit, behind Flask."""

import pytest
from flask import Blueprint, Flask
from flask.views import MethodView

from failsoft import ConfigurationError, Penalty, limit
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
    """It stops the application where the view gets its route. Where that is earlier, the view is never served, and the log says what to do;
    the others are none the worse for it."""
    app = Flask(__name__, static_folder=None)
    runtime = make_runtime(store=Picky())
    Failsoft(app, runtime=runtime)
    served: list[str] = []

    with pytest.raises(ConfigurationError, match="it keeps no penalties"):
        app.add_url_rule("/", "penalty", limit("9/minute", penalty=Penalty())(lambda: ""), methods=["PUT"])

    @limit("9/minute", penalty=Penalty())
    @app.get("/search")
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


@pytest.mark.parametrize("first", [True, False])
def test_a_limit_in_a_store_that_is_not_there(first: bool) -> None:
    """It stops the application, whichever comes first, failsoft or the route; known stores do not."""
    app = Flask(__name__)
    views = Blueprint("views", __name__)
    views.add_url_rule("/known", "known", limit("9/minute", store="other")(lambda: ""))

    class Item(MethodView):
        @limit("9/minute", store="nowhere")
        def put(self) -> str:
            return ""

    views.add_url_rule("/item", view_func=Item.as_view("item"))

    def install() -> None:
        Failsoft(app, stores={"other": "memory://"})

    steps = [install, lambda: app.register_blueprint(views)]
    if not first:
        steps.reverse()
    steps[0]()
    with pytest.raises(ConfigurationError, match=r"Item\.put: there is no store 'nowhere'; .* names default, other"):
        steps[1]()


def test_settings_that_were_not_accepted() -> None:
    """An application that refused settings, and then got others, knows of the others alone."""
    app = Flask(__name__, static_folder=None)
    app.config["SESSION_COOKIE_NAME"] = "other"
    with pytest.raises(ConfigurationError, match="SESSION_COOKIE_NAME"):
        Failsoft(app, sessions=True, secret="0123456789abcdef" * 2)
    Failsoft(app, stores={"kept": "memory://"})
    app.add_url_rule("/", "home", limit("9/minute", store="kept")(lambda: "home"))
    assert 200 == app.test_client().get("/").status_code
