"""An application's routes, for people: the start-up audit, and what ``failsoft limits`` asks of this adapter."""

from typing import Any

from flask import Flask

from failsoft.errors import ConfigurationError
from failsoft.exchange import Declaration, unattached
from failsoft.inspection import Description, RouteInfo
from failsoft_flask.translate import targets_of

__all__ = ["audit", "describe", "list_routes"]


def list_routes(app: Flask) -> list[RouteInfo]:
    """Every method of every route of `app`, in the order of registration; automatic HEAD and OPTIONS are left out."""
    found: list[RouteInfo] = []
    for rule in app.url_map.iter_rules():
        view = app.view_functions.get(rule.endpoint)
        if view is None or rule.build_only:
            continue
        methods = set(rule.methods or {"GET"}) - {"HEAD"}
        if getattr(rule, "provide_automatic_options", False):
            methods -= {"OPTIONS"}
        found += [RouteInfo(method, rule.rule, targets_of(view, method)) for method in sorted(methods)]
    return found


def audit(app: Flask) -> list[Declaration]:
    """Declarations that no route of `app` leads to. They are enforced when their function is called, not before."""
    return unattached(route.targets for route in list_routes(app))


def describe(app: Any) -> Description | None:
    """The description of a Flask application, or None for anything else.

    Raises:
        ConfigurationError: failsoft is not installed in it.
    """
    while not isinstance(app, Flask) and hasattr(app, "app"):  # in WSGI middleware
        app = app.app
    if not isinstance(app, Flask):
        return None
    if "failsoft" not in app.extensions:
        raise ConfigurationError(f"{app!r} has no failsoft: call Failsoft(app), or init_app(app) of a Failsoft object")
    return Description("Flask", app.extensions["failsoft"], list_routes(app))
