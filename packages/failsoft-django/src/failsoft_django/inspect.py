"""Every route of a project: what the system checks look at, and what the command line asks of this adapter."""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from functools import partial
from io import BytesIO
from typing import Any, Final

from django.apps import apps
from django.conf import settings as django_settings
from django.core.handlers.asgi import ASGIHandler, ASGIRequest
from django.core.handlers.base import BaseHandler
from django.core.handlers.wsgi import WSGIRequest
from django.http import Http404, HttpRequest
from django.urls import get_resolver, resolve
from django.utils.functional import SimpleLazyObject

from failsoft.exchange import Declaration, Policy, collect, unattached
from failsoft.inspection import Description, RouteInfo, Trial, Tried
from failsoft.ratelimit.declare import Limit
from failsoft.ratelimit.identity import compile_identity
from failsoft_django.runtime import get_runtime
from failsoft_django.templates import template_of, views_below
from failsoft_django.translate import class_of, facts_of, handler_of, targets_of

__all__ = ["audit", "describe", "list_routes", "targets_known", "too_early"]

_METHODS = ("GET", "POST", "PUT", "PATCH", "DELETE")

_HIDDEN: Final = "django.utils.decorators."
"""Where functions are defined that `method_decorator` hands to a decorator, which then cannot see what it decorates."""


def list_routes() -> list[RouteInfo]:
    """Every method of every route of ``settings.ROOT_URLCONF``.

    A class says which methods it has. A function does not: it is called with any, and listed under the usual ones. Where
    `django.views.decorators.http` answers some of them with 405, that comes after the limits.
    """
    return [
        RouteInfo(method, template, targets_of(view, method), groups, sources=_sources(view, method))
        for template, view, groups in _views()
        for method in _methods(view)
    ]


def audit() -> list[Declaration]:
    """Declared limits that no route leads to: each says in ``where`` which file and line it is on."""
    return unattached(route.targets for route in list_routes())


def targets_known(_: object) -> Iterator[tuple[Any, ...]]:
    """For each route what may carry declarations, of a URLconf that Django has read: nobody else is to read it too early."""
    if getattr(django_settings, "ROOT_URLCONF", None) is not None and "url_patterns" in vars(get_resolver()):
        yield from (route.targets for route in list_routes())


def too_early(by: Any) -> Iterator[tuple[str, Policy]]:
    """Limits by user that are decided before REST framework knows the user: with the templates of their routes.

    It authenticates when it dispatches, so a limit on the class, or above ``@api_view``, comes before that. Where it takes the user
    from Django's session alone, the user is known long before.

    Args:
        by: the setting.
    """
    for template, view, _ in _views():
        cls: Any = class_of(view)
        if not hasattr(cls, "perform_authentication"):
            continue
        kinds = getattr(cls, "authentication_classes", ())
        if all(any(one.__name__ == "SessionAuthentication" for one in kind.__mro__) for kind in kinds):
            continue
        for policy in collect((view, cls), filed=False):
            if isinstance(policy, Limit) and compile_identity(by if policy.by is None else policy.by).needs_user:
                yield template, policy


def describe(app: Any) -> Description | None:
    """The description of `app`, if it is Django's WSGI or ASGI application."""
    if not isinstance(app, BaseHandler):
        return None
    return Description("Django", get_runtime(), list_routes(), partial(_try_out, isinstance(app, ASGIHandler)))


def _views() -> Iterator[tuple[str, Any, tuple[str, ...]]]:
    for template, view, groups in views_below(get_resolver().url_patterns):
        if template_of(template, view) == template:  # else it is listed without its suffix
            yield template, view, groups


def _methods(view: Any) -> list[str]:
    cls = class_of(view)
    return [method for method in _METHODS if cls is None or handler_of(view, cls, method) is not None]


def _sources(view: Any, method: str) -> Mapping[Policy, str]:
    """Which class says what `method_decorator` has put on it: for people.

    Several may say the same policy, so it is no part of that. Its keys have the place that the policy saw, one for all of them.
    """
    cls = class_of(view)
    found = () if cls is None else collect(targets_of(view, method), filed=False)
    return {policy: _class_with(cls, policy) for policy in found if policy.place.startswith(_HIDDEN)}


def _class_with(cls: Any, policy: Policy) -> str:
    said = (base for base in cls.__mro__ if any(policy in collect((one,), filed=False) for one in vars(base).values()))
    owner = next(said, cls)
    return f"{owner.__module__}.{owner.__qualname__}"


@contextmanager
def _try_out(asynchronous: bool, trial: Trial) -> Iterator[Tried]:
    request: Any = _asgi_request(trial) if asynchronous else _wsgi_request(trial)
    if apps.is_installed("django.contrib.auth"):
        request.user = SimpleLazyObject(partial(_user, trial.user))
    note, facts = "", facts_of(request)
    sources: Mapping[Policy, str] = {}
    try:
        request.resolver_match = match = resolve(request.path_info)
    except Http404:
        note = "404 Not Found"
    else:
        facts.endpoint, facts.route = match.func, template_of(match.route, match.func)
        sources = _sources(match.func, facts.method)
    yield Tried(facts, note, sources)


def _wsgi_request(trial: Trial) -> HttpRequest:
    environ: dict[str, Any] = {
        "REQUEST_METHOD": trial.method,
        "SCRIPT_NAME": "",
        "PATH_INFO": trial.path.encode().decode("latin-1"),  # PEP 3333
        "QUERY_STRING": trial.query,
        "CONTENT_LENGTH": str(len(trial.body)),
        "SERVER_NAME": "testserver",
        "SERVER_PORT": "80",
        "SERVER_PROTOCOL": "HTTP/1.1",
        "wsgi.url_scheme": "http",
        "wsgi.input": BytesIO(trial.body),
    }
    if trial.address is not None:
        environ["REMOTE_ADDR"] = trial.address
    for name, value in trial.headers:
        key = name.upper().replace("-", "_")
        key = key if key == "CONTENT_TYPE" else f"HTTP_{key}"
        environ[key] = f"{environ[key]}, {value}" if key in environ else value
    return WSGIRequest(environ)


def _asgi_request(trial: Trial) -> HttpRequest:
    scope = {
        "type": "http",
        "method": trial.method,
        "path": trial.path,
        "query_string": trial.query.encode("latin-1"),
        "headers": [(name.lower().encode("latin-1"), value.encode("latin-1")) for name, value in trial.headers],
        "client": None if trial.address is None else (trial.address, 0),
        "server": ("testserver", 80),
    }
    return ASGIRequest(scope, BytesIO(trial.body))


def _user(key: str | None) -> Any:
    """Who is asking, for functions that want more than the key."""
    from django.contrib.auth import get_user_model  # only here: there may be no such application
    from django.contrib.auth.models import AnonymousUser

    return AnonymousUser() if key is None else get_user_model()._default_manager.get(pk=key)
