"""System checks: every mistake in the settings, and what would leave limits without effect.

``manage.py check`` runs them, as do ``runserver`` and ``migrate``. A mistake in a setting has the id that it has in every framework
(see `failsoft.settings.problems`); those with ids from 901 are Django's own.
"""

import random
from collections.abc import Iterator, Sequence
from typing import Any

from django.conf import settings as django_settings
from django.contrib.sessions.middleware import SessionMiddleware as DjangoSessionMiddleware
from django.core.checks import CheckMessage, Error, Warning, register
from django.utils.module_loading import import_string

from failsoft.clock import SYSTEM
from failsoft.errors import ConfigurationError
from failsoft.events import Listeners
from failsoft.exchange import DEFAULT
from failsoft.ratelimit import RateLimits
from failsoft.settings import SettingProblem, Settings, SettingsError
from failsoft_django.inspect import audit
from failsoft_django.middleware import FailsoftMiddleware
from failsoft_django.runtime import read_settings
from failsoft_django.session_settings import ENGINE, engine_is_ours

__all__ = ["check_limits", "check_middleware", "check_sessions", "check_settings"]

_TAG = "failsoft"

_ANSWERING = {
    "django.contrib.auth.middleware.LoginRequiredMiddleware",
    "django.middleware.cache.CacheMiddleware",
    "django.middleware.cache.FetchFromCacheMiddleware",
    "django.middleware.common.CommonMiddleware",
    "django.middleware.csrf.CsrfViewMiddleware",
}
"""Middleware that answers requests in the place of views."""

_STORING = {"django.middleware.cache.CacheMiddleware", "django.middleware.cache.UpdateCacheMiddleware"}
"""Middleware that keeps what passes through it."""


@register(_TAG)
def check_settings(**_: Any) -> list[CheckMessage]:
    """Mistakes in ``settings.FAILSOFT``, the environment and the configuration file, and advice."""
    try:
        settings, _renderer = read_settings()
    except SettingsError as error:
        return [_message(Error, problem) for problem in error.problems]
    try:
        stores = dict.fromkeys([DEFAULT, *(name for name, _ in settings.stores)], False)
        RateLimits(settings, clock=SYSTEM, random=random.random, listeners=Listeners(), remote=stores)
    except ConfigurationError as error:
        hint = "Correct it in settings.FAILSOFT, or wherever the setting comes from."
        return [Error(str(error), hint=hint, id="failsoft.E902")]
    return [_message(Warning, problem) for problem in settings.advice()]


def _message(kind: type[Error] | type[Warning], problem: SettingProblem) -> CheckMessage:
    return kind(f"{problem.where}: {problem.message}", hint=problem.hint, id=problem.id)


@register(_TAG)
def check_middleware(**_: Any) -> list[CheckMessage]:
    """Whether the middleware is there, once, and sees what it should."""
    paths: Sequence[str] = django_settings.MIDDLEWARE
    own = [number for number, path in enumerate(paths) if _is_ours(path)]
    if not own:
        cause = "The middleware is missing: no limit is enforced, and limited views raise."
        return [
            Warning(cause, hint="Put 'failsoft_django.FailsoftMiddleware' first in MIDDLEWARE.", id="failsoft.W901")
        ]
    return list(_misplaced(paths, own))


def _is_ours(path: str) -> bool:
    return _is_kind(path, FailsoftMiddleware)


def _is_kind(path: str, kind: type) -> bool:
    try:
        found = import_string(path)
    except ImportError:
        return False  # Django says so itself when the server starts
    return isinstance(found, type) and issubclass(found, kind)


def _misplaced(paths: Sequence[str], own: Sequence[int]) -> Iterator[CheckMessage]:
    if len(own) > 1:
        yield Error("The middleware is in MIDDLEWARE more than once.", hint="Keep the first.", id="failsoft.E903")
    before = paths[: own[0]]
    hint = f"Put {paths[own[0]]!r} before it in MIDDLEWARE."
    for path in before:
        if path in _ANSWERING:
            cause = f"{path} answers requests before failsoft sees them: those are not limited."
            yield Warning(cause, hint=hint, id="failsoft.W902")
        if path in _STORING:
            cause = f"{path} would store what responses say of one client's limits."
            yield Warning(cause, hint=hint, id="failsoft.W903")


@register(_TAG)
def check_sessions(**_: Any) -> list[CheckMessage]:
    """Whether sessions are kept by the middleware that is meant for them, in the right place."""
    try:
        settings, _renderer = read_settings()
    except SettingsError:
        return []  # `check_settings` says so
    return list(_sessions(settings, engine_is_ours(), list(django_settings.MIDDLEWARE)))


def _sessions(settings: Settings, ours: bool, paths: Sequence[str]) -> Iterator[CheckMessage]:
    if settings.sessions and not ours:
        cause = f"The setting sessions is on, and SESSION_ENGINE is {django_settings.SESSION_ENGINE!r}: no session is failsoft's."
        yield Warning(cause, hint=f"Write SESSION_ENGINE = {ENGINE!r}, or leave sessions out.", id="failsoft.W905")
    if not ours:
        return
    from failsoft_django.session_middleware import (
        SessionMiddleware,  # here, because it brings packages that are optional
    )

    keepers = [number for number, path in enumerate(paths) if _is_kind(path, DjangoSessionMiddleware)]
    if keepers and not _is_kind(paths[keepers[0]], SessionMiddleware):
        partitioned = (
            " It does not send Partitioned, which cookie_partitioned asks for." if settings.cookie_partitioned else ""
        )
        cause = (
            f"{paths[keepers[0]]} writes sessions in a trip to the store of its own, and under ASGI in another thread."
        )
        hint = "Put 'failsoft_django.SessionMiddleware' in its place."
        yield Warning(cause + partitioned, hint=hint, id="failsoft.W906")
    around = [number for number, path in enumerate(paths) if _is_ours(path)]
    if keepers and around and keepers[0] < around[0]:
        cause = f"{paths[keepers[0]]} stands before {paths[around[0]]}: sessions make trips to the store of their own."
        yield Warning(cause, hint="Put it behind, as far up as it stood.", id="failsoft.W907")


@register(_TAG)
def check_limits(**_: Any) -> list[CheckMessage]:
    """Declared limits that no URL leads to."""
    if getattr(django_settings, "ROOT_URLCONF", None) is None:
        return []
    hint = (
        "Is the view in no URLconf, or does a decorator above @limit lack functools.wraps? As it is, the limit is decided when "
        "the function is called, in a second trip to the store."
    )
    return [
        Warning(
            f"{declaration.where}: {', '.join(map(repr, declaration.policies))} is on a function that no URL leads to.",
            hint=hint,
            id="failsoft.W904",
        )
        for declaration in audit()
    ]
