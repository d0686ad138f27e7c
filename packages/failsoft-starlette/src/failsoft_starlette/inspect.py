"""What the command line asks of this adapter."""

from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from typing import Any

from starlette.applications import Starlette
from starlette.authentication import AuthCredentials, SimpleUser

from failsoft import ConfigurationError
from failsoft.inspection import Description, Trial, Tried
from failsoft_starlette.middleware import FailsoftMiddleware
from failsoft_starlette.routes import RouteTable, list_routes, routes_of
from failsoft_starlette.translate import SocketFacts, StarletteFacts

__all__ = ["describe"]


def describe(app: Any) -> Description | None:
    """The description of a Starlette or FastAPI application, or None for anything else.

    Raises:
        ConfigurationError: it has no `FailsoftMiddleware`.
    """
    inner = app
    while not isinstance(inner, Starlette | FailsoftMiddleware) and hasattr(inner, "app"):
        inner = inner.app
    if not isinstance(inner, Starlette | FailsoftMiddleware):
        return None
    layer: Any = inner.build_middleware_stack() if isinstance(inner, Starlette) else inner
    while layer is not None and not isinstance(layer, FailsoftMiddleware):
        layer = getattr(layer, "app", None)
    if layer is None:
        raise ConfigurationError(
            "this application has no FailsoftMiddleware: app.add_middleware(FailsoftMiddleware, ...)"
        )
    framework = "FastAPI" if any(cls.__name__ == "FastAPI" for cls in type(inner).__mro__) else "Starlette"
    return Description(framework, layer.runtime, list_routes(app), partial(_try_out, inner))


@contextmanager
def _try_out(app: Any, trial: Trial) -> Iterator[Tried]:
    headers = [(name.lower().encode("latin-1"), value.encode("latin-1")) for name, value in trial.headers]
    host = dict(headers).get(b"host", b"testserver").decode("latin-1")
    scope: dict[str, Any] = {
        "type": "websocket" if trial.opens_socket else "http",
        "asgi": {"version": "3.0"},
        "http_version": "1.1",
        "method": trial.method,
        "scheme": "ws" if trial.opens_socket else "http",
        "server": (host.partition(":")[0], 80),
        "path": trial.path,
        "raw_path": trial.target.partition("?")[0].encode("latin-1"),
        "query_string": trial.query.encode("latin-1"),
        "root_path": getattr(app, "root_path", ""),
        "headers": headers,
        "client": None if trial.address is None else (trial.address, 0),
        "state": {},
        "app": app,
    }
    if trial.user is not None:
        scope |= {"user": SimpleUser(trial.user), "auth": AuthCredentials(["authenticated"])}
    table = RouteTable(routes_of(app), whole=True, sockets=trial.opens_socket)
    entry, serves = table.find(scope)
    note = "" if serves else "404 Not Found" if entry is None else "405 Method Not Allowed"

    async def receive() -> dict[str, Any]:
        return {"type": "http.request", "body": trial.body, "more_body": False}

    make = SocketFacts if trial.opens_socket else StarletteFacts
    yield Tried(make(scope, entry, serves, table, receive), note)
