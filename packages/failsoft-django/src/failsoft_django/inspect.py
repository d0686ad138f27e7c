"""Every route of a project: what the system checks and ``failsoft limits`` look at."""

from collections.abc import Iterator, Sequence
from typing import Any

from django.core.handlers.base import BaseHandler
from django.urls import URLPattern, URLResolver, get_resolver

from failsoft.exchange import Declaration, collect, unattached
from failsoft.inspection import Description, RouteInfo
from failsoft_django.runtime import get_runtime
from failsoft_django.translate import class_of, handler_of, targets_of

__all__ = ["audit", "describe", "list_routes"]

_CLASS_METHODS = ("GET", "POST", "PUT", "PATCH", "DELETE")


def list_routes() -> list[RouteInfo]:
    """Every method of every route of ``settings.ROOT_URLCONF``.

    A class says which methods it has. A function does not: it is listed under GET, and under each method that a limit on it names.
    """
    return [
        RouteInfo(method, template, targets_of(view, method))
        for template, view in _views(get_resolver().url_patterns, "")
        for method in _methods(view)
    ]


def audit() -> list[Declaration]:
    """Declared limits that no route leads to: each says in ``where`` which file and line it is on."""
    return unattached(route.targets for route in list_routes())


def describe(app: Any) -> Description | None:
    """The description of `app`, if it is Django's WSGI or ASGI application."""
    return Description("django", get_runtime(), list_routes()) if isinstance(app, BaseHandler) else None


def _views(patterns: Sequence[Any], prefix: str) -> Iterator[tuple[str, Any]]:
    """Templates and views; a template as ``ResolverMatch.route`` has it."""
    for one in patterns:
        own = str(one.pattern)
        template = prefix + own.removeprefix("^") if prefix else own
        if isinstance(one, URLResolver):
            yield from _views(one.url_patterns, template)
        elif isinstance(one, URLPattern):
            yield template, one.callback


def _methods(view: Any) -> list[str]:
    cls = class_of(view)
    if cls is not None:
        return [method for method in _CLASS_METHODS if handler_of(view, cls, method) is not None]
    named = {method for policy in collect(targets_of(view, "GET")) for method in getattr(policy, "methods", None) or ()}
    return [method for method in _CLASS_METHODS if method == "GET" or method in named]
