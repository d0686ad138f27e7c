"""Flask applications."""

from collections.abc import Callable
from typing import Any

from flask import Flask, Response, abort, request, session

from benchmarks.applications.peers import ask, throttled_quotas
from benchmarks.applications.visitor import CONTENT, SECRET, act, shown
from benchmarks.cases import FLOOR, LIMITS, OURS, Case, Place

__all__ = ["build"]

_FIELDS = "benchmarks.fields"
"""In the WSGI environment: header fields of the floor of sessions."""


def build(case: Case, place: Place) -> Any:
    """The WSGI application of `case`."""
    app = Flask("benchmarks")
    view: Callable[[], Any] = lambda: "ok"  # noqa: E731 - some cases decorate it
    if case.session and case.package == FLOOR:
        view = _floor(app, case, place)
    elif case.session:
        view = _session(app, case)
    if case.package == OURS:
        view = _failsoft(app, view, case, place)
    elif case.package == "Flask-Session":
        _flask_session(app, case, place)
    elif case.package == "flask-limiter":
        _flask_limiter(app, case, place)
    elif case.package == "throttled-py":
        view = _throttled(app, view, case, place)
    elif case.package in ("pyrate-limiter", FLOOR) and not case.session:
        view = _checked(ask(case, place))
    app.add_url_rule("/", "index", view)
    return app


def _session(app: Flask, case: Case) -> Callable[[], str]:
    app.secret_key = SECRET
    state = case.session

    def view() -> str:
        if state != "untouched":
            act(session, state)
        return "ok"

    def begin() -> str:
        session.update(CONTENT)
        if case.option == "logged in":
            from failsoft_flask.sessions import FlaskSession

            assert isinstance(session, FlaskSession)
            session.login("42")
        return "ok"

    app.add_url_rule("/begin", "begin", begin)
    app.add_url_rule("/show", "show", lambda: shown(session))
    return view


def _floor(app: Flask, case: Case, place: Place) -> Callable[[], Any]:
    from benchmarks.applications.floors import blocking

    floor = blocking(case, place)
    wsgi_app = app.wsgi_app

    def serve(environ: dict[str, Any], start_response: Any) -> Any:
        def start(status: str, headers: list[tuple[str, str]], error: Any = None) -> Any:
            return start_response(status, [*headers, *environ.get(_FIELDS, ())], error)

        return wsgi_app(environ, start)

    def view() -> str:
        environ = request.environ
        environ[_FIELDS] = floor.visit(environ["HTTP_COOKIE"])
        return "ok"

    if case.session != "untouched":
        app.wsgi_app = serve  # type: ignore[method-assign]  # as middleware is installed; header fields of a Response cost more
    app.add_url_rule("/begin", "begin", lambda: Response("ok", headers=floor.begun))
    app.add_url_rule("/show", "show", lambda: floor.show(request.environ["HTTP_COOKIE"]))
    return view


def _flask_session(app: Flask, case: Case, place: Place) -> None:
    import redis
    from flask_session import Session

    app.config.update(
        SESSION_TYPE="redis",
        SESSION_REDIS=redis.Redis.from_url(place.peer_url(case.store)),
        SESSION_REFRESH_EACH_REQUEST=case.option != "refresh off",
    )
    Session(app)


def _failsoft(app: Flask, view: Callable[[], str], case: Case, place: Place) -> Callable[[], str]:
    from failsoft import limit
    from failsoft_flask import Failsoft

    options = place.options(case.store)
    if case.option == "no headers":
        options["headers"] = "off"
    if case.option == "nothing applies":
        app.add_url_rule("/other", "other", limit(LIMITS[0])(lambda: "other"))
    elif case.option == "on the view":
        view = limit("; ".join(LIMITS[: case.limits]))(view)
    else:
        options["limits"] = LIMITS[: case.limits]
    if case.session:
        options |= {"sessions": True, "secret": SECRET}
    Failsoft(app, **options)
    return view


def _flask_limiter(app: Flask, case: Case, place: Place) -> None:
    from flask_limiter import Limiter
    from flask_limiter.util import get_remote_address

    Limiter(
        get_remote_address,
        app=app,
        storage_uri=place.limits_url(case.store),
        strategy="fixed-window",
        default_limits=[";".join(LIMITS[: case.limits])],
        headers_enabled=case.option != "no headers",
        in_memory_fallback_enabled=case.option == "fallback",
    )


def _throttled(app: Flask, view: Callable[[], str], case: Case, place: Place) -> Callable[[], str]:
    import throttled
    from throttled.contrib.flask import Limiter, get_remote_address

    store: Any = (
        throttled.MemoryStore() if case.store == "memory" else throttled.RedisStore(server=place.peer_url(case.store))
    )
    for index, quota in enumerate(throttled_quotas(case.limits)):
        # Without a key of its own, a limit would share its counter with the others of the view.
        limiter = Limiter(
            quota,
            app=app,
            store=store,
            using="token_bucket",
            key_func=lambda index=index: f"{get_remote_address()}:{index}",  # type: ignore[misc]  # the usual way to bind
        )
        view = limiter.limit()(view)
    return view


def _checked(passes: Callable[[str], bool]) -> Callable[[], str]:
    def view() -> str:
        if not passes(request.remote_addr or ""):
            abort(429)
        return "ok"

    return view
