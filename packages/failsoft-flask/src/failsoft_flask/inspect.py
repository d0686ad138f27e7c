"""An application's routes, for people: the start-up audit, and what the command line asks of this adapter."""

from collections.abc import Iterator
from contextlib import contextmanager, suppress
from functools import partial
from importlib.util import find_spec
from typing import Any

from flask import Flask, session

from failsoft.errors import ConfigurationError
from failsoft.exchange import Declaration, unattached
from failsoft.inspection import Description, RouteInfo, Trial, Tried, mistakes
from failsoft.runtime import Runtime
from failsoft_flask.translate import FlaskFacts, targets_of

__all__ = ["audit", "describe", "list_routes", "refuse_later_mistakes", "refuse_mistakes", "targets_of_routes"]


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
        groups = _blueprints(rule.endpoint)
        found += [
            RouteInfo(method, rule.rule, targets_of(view, method), groups, by_name=True) for method in sorted(methods)
        ]
    return found


def audit(app: Flask) -> list[Declaration]:
    """Declarations that no route of `app` leads to. They are enforced when their function is called, not before."""
    return unattached(targets_of_routes(app))


def targets_of_routes(app: Flask) -> Iterator[tuple[Any, ...]]:
    """For each route of `app`, what may carry declarations."""
    return (route.targets for route in list_routes(app))


def refuse_mistakes(app: Flask, runtime: Runtime) -> None:
    """Stop where a view has a route on which what is declared on it cannot be enforced: else its requests would find out.

    Raises:
        ConfigurationError: one has.
    """
    for mistake in mistakes(runtime, list_routes(app), needed=_needed(app)):
        raise mistake


def _needed(app: Flask) -> str | None:
    """What Flask lacks before it can run coroutines."""
    # A subclass may have its own way, and so may an instance, or whoever patches Flask.
    usual = all(way.__module__ == Flask.__module__ for way in (app.async_to_sync, app.ensure_sync))
    return "Flask needs asgiref for that, install flask[async]" if usual and find_spec("asgiref") is None else None


def refuse_later_mistakes(app: Flask, runtime: Runtime) -> None:
    """From now on, stop where a view gets such a route."""
    add_url_rule = app.add_url_rule

    def add(rule: str, endpoint: str | None = None, view_func: Any = None, *args: Any, **options: Any) -> None:
        add_url_rule(rule, endpoint, view_func, *args, **options)
        methods = options.get("methods") or getattr(view_func, "methods", None) or ("GET",)
        targets = (
            (method, targets_of(view_func, method)) for method in map(str.upper, methods) if view_func is not None
        )
        routes = (RouteInfo(method, rule, found, by_name=True) for method, found in targets)
        for mistake in mistakes(runtime, routes, needed=_needed(app)):
            raise mistake

    app.add_url_rule = add  # type: ignore[method-assign]  # as the extension does, in an instance's attribute


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
    return Description("Flask", app.extensions["failsoft"], list_routes(app), partial(_try_out, app))


def _blueprints(endpoint: str) -> tuple[str, ...]:
    """As ``request.blueprints``: the innermost first, each with the names of those around it."""
    parts = endpoint.split(".")[:-1]
    return tuple(".".join(parts[:length]) for length in range(len(parts), 0, -1))


@contextmanager
def _try_out(app: Flask, trial: Trial) -> Iterator[Tried]:
    environ = {} if trial.address is None else {"REMOTE_ADDR": trial.address}
    context = app.test_request_context(
        trial.target,
        method=trial.method,
        headers=list(trial.headers),
        data=trial.body,
        environ_overrides=environ,
    )
    try:
        context.push()
        null = app.session_interface.is_null_session(context.session)  # there is no secret_key
        if trial.user is not None and hasattr(app, "login_manager") and not null:
            session["_user_id"] = trial.user  # as Flask-Login has it, for functions that ask who is there
    except BaseException:
        with suppress(Exception):
            context.pop()  # half of it may have been pushed
        raise
    try:
        error = context.request.routing_exception
        yield Tried(FlaskFacts(context), "" if error is None else f"{error.code} {error.name}")
    finally:
        context.pop()
