"""Limits for the log-in pages of Django and of packages, without touching their code.

    from failsoft_django.presets import limit_logins, limit_password_resets

    urlpatterns = [
        path("admin/", limit_logins(admin.site.urls)),
        path("accounts/", limit_password_resets(limit_logins(include("django.contrib.auth.urls")))),
    ]

Rules:

- URL patterns are looked through, those included in them too. Where one leads to a view that is known to take passwords, there stands a
  pattern in its place with the same view, limited. Nothing of Django or a package is changed.
- A view is known by its name, or by that of a class that it inherits from: so no package is imported for this.
- Where nothing is found, that is a mistake: nobody should believe a page to be limited that is not.
"""

import inspect
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple, TypeVar, cast

from django.contrib.auth import get_user_model
from django.urls import URLPattern, URLResolver

from failsoft.errors import ConfigurationError
from failsoft.presets import login
from failsoft_django.translate import class_of

__all__ = ["limit_logins", "limit_password_resets"]

_Urls = TypeVar("_Urls", bound=Sequence[Any])
"""A list of URL patterns, or what `include` and ``admin.site.urls`` give."""

_Decorator = Callable[[Any], Any]


class _Known(NamedTuple):
    """A view that takes passwords.

    Attributes:
        field: the field of the account's name; None for what the user model calls it.
        failures: what failed attempts are answered with.
    """

    field: str | None
    failures: frozenset[int]


_LOGINS: Mapping[str, _Known] = {
    # A form that failed is shown again.
    "django.contrib.admin.sites.AdminSite.login": _Known("username", frozenset({200})),
    "django.contrib.auth.views.LoginView": _Known("username", frozenset({200})),
    "rest_framework.authtoken.views.ObtainAuthToken": _Known("username", frozenset({400})),
    "rest_framework_simplejwt.views.TokenObtainPairView": _Known(None, frozenset({400, 401})),
    "rest_framework_simplejwt.views.TokenObtainSlidingView": _Known(None, frozenset({400, 401})),
}

_RESETS = ("django.contrib.auth.views.PasswordResetView",)


def limit_logins(
    urls: _Urls, *, views: Mapping[Any, str] | None = None, only_failures: bool = False, **options: Any
) -> _Urls:
    """`urls` with `failsoft.presets.login` on every log-in page among them.

    Known are the admin's, `LoginView` of django.contrib.auth, the token views of REST framework (``authtoken``) and of
    ``rest_framework_simplejwt``, and classes that inherit from one of these.

    Args:
        urls: a list of URL patterns, or what ``include(...)`` or ``admin.site.urls`` gives.
        views: further views, or their dotted names, with the field of the account's name in each; they come before those that are known.
        only_failures: charge failed attempts only, which the known views tell by their status. Leave it False where a subclass answers
            otherwise: what it says of a failure would not be charged. Further views say it with ``failures=``.
        options: the arguments of `failsoft.presets.login`, but for ``account``.

    Returns:
        The same kind of thing as was given.

    Raises:
        ConfigurationError: no such page is among them, or an argument is wrong.
    """
    further = {_name(view): field for view, field in (views or {}).items()}
    made: dict[Any, _Decorator] = {}

    def decorator(names: Sequence[str]) -> _Decorator | None:
        for name in names:
            known = _LOGINS.get(name)
            if name not in made and name in further:
                made[name] = login(further[name], **options)
            elif name not in made and known is not None:
                failures: dict[str, Any] = {"failures": known.failures} if only_failures else {}
                user: Any = get_user_model()
                made[name] = login(known.field or user.USERNAME_FIELD, **(failures | options))
            if name in made:
                return made[name]
        return None

    return _limited(urls, decorator, "log-in page", sorted({*further, *_LOGINS}))


def limit_password_resets(urls: _Urls, *, field: str = "email", **options: Any) -> _Urls:
    """`urls` with limits on every page that sends mail to whom a stranger names: `PasswordResetView` of django.contrib.auth and its kind.

    Args:
        urls: as for `limit_logins`.
        field: the form's field that has the address.
        options: the arguments of `failsoft.presets.login`. The defaults are 5 an hour for an address of mail from one client, 10 an hour
            for an address of mail, and 30 an hour for a client.

    Returns:
        The same kind of thing as was given.

    Raises:
        ConfigurationError: no such page is among them, or an argument is wrong.
    """
    defaults: dict[str, Any] = {
        "name": "password-reset",
        "per_client": "5/hour",
        "per_account": "10/hour",
        "per_address": "30/hour",
    }
    decorate = login(field, **(defaults | options))

    def decorator(names: Sequence[str]) -> _Decorator | None:
        return decorate if any(name in _RESETS for name in names) else None

    return _limited(urls, decorator, "page for password resets", _RESETS)


def _limited(
    urls: _Urls, decorator: Callable[[Sequence[str]], _Decorator | None], what: str, known: Sequence[str]
) -> _Urls:
    included = isinstance(urls, tuple)
    patterns = urls[0] if included else urls
    found = list(_patterns(getattr(patterns, "urlpatterns", patterns), decorator))
    if all(changed is None for changed, _ in found):
        raise ConfigurationError(
            f"there is no {what} among these URLs. Known are {', '.join(known)} and what inherits from them"
        )
    new = [original if changed is None else changed for changed, original in found]
    return cast(_Urls, (new, *urls[1:]) if included else new)


def _patterns(
    patterns: Sequence[Any], decorator: Callable[[Sequence[str]], _Decorator | None]
) -> Iterator[tuple[Any, Any]]:
    """Each pattern, with what takes its place, or None before it."""
    for one in patterns:
        changed: Any = None
        if isinstance(one, URLResolver):
            inner = list(_patterns(one.url_patterns, decorator))
            if any(new is not None for new, _ in inner):
                below = [old if new is None else new for new, old in inner]
                changed = type(one)(one.pattern, below, one.default_kwargs, one.app_name, one.namespace)
        elif isinstance(one, URLPattern) and (decorate := decorator(_names(one.callback))) is not None:
            changed = type(one)(one.pattern, decorate(one.callback), one.default_args, one.name)
        yield changed, one


def _names(view: Any) -> list[str]:
    """What a view is called, the most particular first: its class and what that inherits from, or the function."""
    cls = class_of(view)
    if cls is not None:
        return [_name(one) for one in cls.__mro__]
    owner = getattr(view, "__self__", None)
    if owner is not None:
        return [f"{_name(one)}.{view.__name__}" for one in type(owner).__mro__]
    return [_name(inspect.unwrap(view))]


def _name(view: Any) -> str:
    if isinstance(view, str):
        return view
    cls = class_of(view)
    found = inspect.unwrap(view) if cls is None else cls
    return f"{found.__module__}.{getattr(found, '__qualname__', type(found).__qualname__)}"
