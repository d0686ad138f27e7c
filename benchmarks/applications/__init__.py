"""The applications: for each case a callable that serves one request, or asks the store once.

All are the least that a framework serves: one route, a two-byte body. Cases differ only in what limits them, and in what they do
with a session; those have a second route, which begins one, and a third, which shows that it is written.
"""

from collections.abc import Callable
from importlib import import_module
from typing import Any

from benchmarks.cases import Case, Place

__all__ = ["application", "build"]

_MODULES = {
    "flask": "flask",
    "django-wsgi": "django",
    "django-asgi": "django",
    "starlette": "starlette",
    "fastapi": "starlette",
    "call": "calls",
    "async call": "calls",
}


def application(case: Case, place: Place) -> Any:
    """What `case` is: a WSGI or ASGI application, or a function. An awaitable of it where it needs an event loop."""
    return import_module(f"benchmarks.applications.{_MODULES[case.framework]}").build(case, place)


def build(case: Case, made: Any, path: str = "/", cookie: str = "") -> Callable[[], Any]:
    """A function that makes one request of `made`, which is what `application` gave."""
    from benchmarks.applications import clients

    if case.framework in ("call", "async call"):
        call: Callable[[], Any] = made
        return call
    return clients.asgi(made, path, cookie) if case.asynchronous else clients.wsgi(made, path, cookie)
