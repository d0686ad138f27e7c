"""An application with sessions, whose flights are counted, and what its browsers have."""

import threading
from collections.abc import Sequence
from typing import Any

from flask import Flask, Response, jsonify, request, session
from flask.testing import FlaskClient
from flask_login import UserMixin

from failsoft import Settings
from failsoft.exchange import Operation
from failsoft.runtime import Runtime
from failsoft_flask import Failsoft, login, logout, principal
from failsoft_flask.sessions import FlaskSession

__all__ = [
    "LIMITS",
    "SECRET",
    "SESSION",
    "CountingStore",
    "User",
    "at_once",
    "cookies_of",
    "make_app",
    "make_runtime",
    "plant",
    "steal",
    "the_session",
]

SECRET = "a secret of forty characters, all of them"
SESSION = "__Host-session"
LIMITS = ["1000/minute", "10000/hour", "100000/day"]


class CountingStore:
    """Another store, and what flies to it."""

    def __init__(self, store: Any) -> None:
        self._store = store
        self.flights: list[tuple[str, ...]] = []

    def flight(self, operations: Sequence[Operation]) -> Any:
        """Note it, and let it fly."""
        self.flights.append(tuple(operation.script.name for operation in operations))
        return self._store.flight(operations)

    def taken(self) -> list[tuple[str, ...]]:
        """The flights since the last time."""
        flights, self.flights = self.flights, []
        return flights

    def __getattr__(self, name: str) -> Any:
        return getattr(self._store, name)


class User(UserMixin):  # type: ignore[misc]  # which has no types
    """A user of Flask-Login's."""

    def __init__(self, name: Any) -> None:
        self.id = name


def make_runtime(store: Any = None, **settings: Any) -> Runtime:
    """A runtime with sessions; `store` is a URL or a store."""
    # A long deadline, for this machine may be busy; who tests an outage gives a short one.
    given: dict[str, Any] = {"sessions": True, "secret": SECRET, "deadline": 5, **settings}
    more: dict[str, Any] = {"clock": given.pop("clock")} if "clock" in given else {}
    if isinstance(store, str):
        return Runtime(Settings(store=store, **given), **more)
    # The URL is never used: only memory is warned of.
    return Runtime(Settings(store="redis://127.0.0.1:9/0", **given), store=store, **more)


def make_app(runtime: Runtime, **config: Any) -> Flask:
    """An application that does with its session what the path says."""
    app = Flask("shop", static_folder=None)
    app.secret_key = "for Flask-Login and Flask-WTF"
    app.config.update(config)
    Failsoft(app, runtime=runtime)

    @app.get("/untouched")
    def untouched() -> str:
        return "ok"

    @app.get("/all")
    def everything() -> Response:
        return jsonify(dict(session))

    @app.get("/get/<key>")
    def read(key: str) -> Response:
        return jsonify(session.get(key))

    @app.post("/set/<key>")
    def write(key: str) -> str:
        session[key] = request.get_json()
        return "ok"

    @app.post("/append/<key>")
    def append(key: str) -> str:
        session[key]["items"].append(request.get_json())
        return "ok"

    @app.post("/delete/<key>")
    def delete(key: str) -> str:
        del session[key]
        return "ok"

    @app.post("/login/<subject>")
    def log_in(subject: str) -> str:
        login(subject, ["pwd"])
        return "ok"

    @app.post("/logout")
    def log_out() -> str:
        logout()
        return "ok"

    @app.get("/who")
    def who() -> Response:
        found = principal()
        return jsonify(None if found is None else found.subject)

    return app


def the_session() -> FlaskSession:
    """What stands behind ``flask.session``."""
    found = session._get_current_object()  # type: ignore[attr-defined]  # a LocalProxy, typed as what it stands for
    assert isinstance(found, FlaskSession)
    return found


def cookies_of(client: FlaskClient) -> dict[str, str]:
    """What a browser has."""
    assert client._cookies is not None
    return {cookie.key: cookie.value for cookie in client._cookies.values()}


def plant(client: FlaskClient, cookies: dict[str, str]) -> FlaskClient:
    """Give a browser cookies of another."""
    for name, value in cookies.items():
        client.set_cookie(name, value)
    return client


def steal(client: FlaskClient, *names: str) -> FlaskClient:
    """Another browser with a copy of the cookies of `client`, of all or of those of `names`."""
    cookies = cookies_of(client)
    return plant(client.application.test_client(), {name: cookies[name] for name in names or cookies})


def at_once(*functions: Any) -> None:
    """Run `functions` in threads that begin at the same moment; their errors are raised."""
    barrier, errors = threading.Barrier(len(functions)), list[BaseException]()

    def run(function: Any) -> None:
        try:
            barrier.wait(30)
            function()
        except BaseException as error:
            errors.append(error)

    threads = [threading.Thread(target=run, args=(function,)) for function in functions]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(30)
    assert [] == errors
