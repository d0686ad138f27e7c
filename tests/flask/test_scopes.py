"""What is a part of a Flask application: blueprints, nested ones, and paths behind a mount point."""

from typing import Any

import pytest
from flask import Blueprint, Flask
from werkzeug.middleware.dispatcher import DispatcherMiddleware

from failsoft import ConfigurationError, limit
from failsoft.testing import FaultyStore, ManualClock, WsgiApp
from failsoft_flask import Failsoft
from tests.core.requests import make_runtime


def serve(app: Flask, **settings: Any) -> WsgiApp:
    """`app` with failsoft."""
    clock = ManualClock()
    runtime = make_runtime(store=FaultyStore(clock=clock), clock=clock, **settings)
    Failsoft(app, runtime=runtime)
    return WsgiApp(app, runtime)


def shop() -> Flask:
    """A shop with a cart in it, and a page of its own."""
    app, outer, inner = Flask(__name__, static_folder=None), Blueprint("shop", __name__), Blueprint("cart", __name__)
    inner.add_url_rule("/cart/<item>", "item", lambda item: item)
    outer.add_url_rule("/", "index", lambda: "shop")
    outer.register_blueprint(inner)
    app.register_blueprint(outer, url_prefix="/shop")
    app.register_blueprint(outer, url_prefix="/outlet", name="outlet")
    app.add_url_rule("/", "home", lambda: "home")
    return app


@pytest.mark.parametrize(
    ("group", "inside", "outside"),
    [
        ("shop", ["/shop/", "/shop/cart/1", "/shop/cart/2"], ["/", "/outlet/"]),
        ("shop.cart", ["/shop/cart/1", "/shop/cart/2", "/shop/cart/3"], ["/", "/shop/", "/outlet/cart/1"]),
        ("outlet", ["/outlet/", "/outlet/cart/1", "/outlet/"], ["/", "/shop/", "/shop/cart/1"]),
    ],
)
def test_nested_blueprints(group: str, inside: list[str], outside: list[str]) -> None:
    """A blueprint is a group with those nested in it; under another name it is another group."""
    with serve(shop(), scopes=[{"name": "part", "limits": ["2/minute"], "group": group}]) as app:
        assert [200, 200, 429] == [app.get(path).status for path in inside]
        assert [200] * len(outside) == [app.get(path).status for path in outside]


def test_behind_a_mount_point() -> None:
    """A prefix is of the path within the application, wherever that is mounted."""
    with serve(shop(), scopes=[{"name": "shop", "limits": ["2/minute"], "prefix": "/shop"}]) as app:
        app.application = DispatcherMiddleware(app.application, {"/shop": app.application})
        urls = ("/shop/shop/", "/shop/shop/none", "/shop/shop/cart/1")
        assert [200, 404, 429] == [app.get(url).status for url in urls]
        assert 200 == app.get("/shop/").status  # the application's own front page, which is not its shop


def test_a_group_without_routes(caplog: pytest.LogCaptureFixture) -> None:
    """A scope for a blueprint that is not there limits nothing: the log says so at the first request, with the nearest one."""
    scopes = [{"name": name, "group": name, "limits": ["9/minute"]} for name in ("shop.cart", "shop.card", "nobody")]
    with serve(shop(), scopes=scopes) as client:
        client.get("/")
        client.get("/")
    assert [
        "scopes: shop.card limits nothing here, since no route is in the group 'shop.card': did you mean 'shop.cart'?",
        "scopes: nobody limits nothing here, since no route is in the group 'nobody'",
    ] == [record.getMessage() for record in caplog.records if "limits nothing" in record.getMessage()]


def test_blueprints_are_no_views() -> None:
    """A limit on a blueprint or an application is an error that says what to do."""
    for several in (Blueprint("shop", __name__), Flask(__name__)):
        with pytest.raises(ConfigurationError, match="put it on the views, or say it of a part of the application"):
            limit("9/minute")(several)  # type: ignore[type-var]  # a blueprint is not even callable
