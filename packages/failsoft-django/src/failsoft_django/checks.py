"""System checks: every mistake in the settings, what would leave limits without effect, and what keeps sessions from being shared.

``manage.py check`` runs them, as do ``runserver`` and ``migrate``. A mistake in a setting has the id that it has in every framework
(see `failsoft.settings.problems`); those with ids from 901 are Django's own.
"""

from collections.abc import Iterator, Sequence
from typing import Any

from django.apps import apps
from django.conf import settings as django_settings
from django.contrib.sessions.middleware import SessionMiddleware as DjangoSessionMiddleware
from django.core.checks import CheckMessage, Error, Info, Warning, register
from django.utils.module_loading import import_string

from failsoft.inspection import mistakes_by_settings, unreached
from failsoft.sessions.cookies import CookieStyle
from failsoft.settings import SettingProblem, Settings, SettingsError
from failsoft_django.inspect import audit, list_routes, too_early
from failsoft_django.middleware import FailsoftMiddleware
from failsoft_django.runtime import read_elsewhere, read_settings, told
from failsoft_django.session_settings import ENGINE, adjustments, differences, engine_is_ours, style_of

__all__ = [
    "check_declared",
    "check_limits",
    "check_middleware",
    "check_sessions",
    "check_settings",
    "check_sharing",
    "check_users",
]

_TAG = "failsoft"

_ANSWERING = {
    "django.contrib.auth.middleware.LoginRequiredMiddleware",
    "django.middleware.cache.CacheMiddleware",
    "django.middleware.cache.FetchFromCacheMiddleware",
    "django.middleware.common.CommonMiddleware",
    "django.middleware.csrf.CsrfViewMiddleware",
}
"""Middleware that answers requests in the place of views."""

_BACKEND = "failsoft_django.auth.PrincipalBackend"

_STORING = {"django.middleware.cache.CacheMiddleware", "django.middleware.cache.UpdateCacheMiddleware"}
"""Middleware that keeps what passes through it."""


@register(_TAG)
def check_settings(**_: Any) -> list[CheckMessage]:
    """Mistakes in ``settings.FAILSOFT``, the environment and the configuration file, and advice."""
    try:
        settings, _renderer = read_settings()
    except SettingsError as error:
        return [_message(Error, problem) for problem in error.problems]
    advice = settings.advice()
    told.update(advice)
    return [_message(Warning, problem) for problem in advice]


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
    # One that opens sessions in its own way may do so beside request.session, as djangosaml2's does.
    usual = (SessionMiddleware.process_request, DjangoSessionMiddleware.process_request)
    keepers = [number for number in keepers if import_string(paths[number]).process_request in usual] or keepers[:1]
    if len(keepers) > 1:
        both = " and ".join(paths[number] for number in keepers)
        cause = f"MIDDLEWARE has {both}: each puts a session of its own in the place of the other's."
        yield Error(cause, hint="Keep 'failsoft_django.SessionMiddleware' alone.", id="failsoft.E910")
    elif keepers and not _is_kind(paths[keepers[0]], SessionMiddleware):
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
    for number, path in enumerate(paths):
        if keepers and number > keepers[0] and path in _STORING:
            cause = f"{path} stands behind {paths[keepers[0]]}: it keeps pages before they say that they depend on the session."
            hint = "What is one user's would be served to another. Put it before, and behind failsoft_django.FailsoftMiddleware."
            yield Warning(cause, hint=hint, id="failsoft.W908")
    yield from (_message(Warning, problem) for problem in adjustments(settings))
    from failsoft_django.auth import RevokingValidator  # likewise

    validators = [str(one.get("NAME")) for one in django_settings.AUTH_PASSWORD_VALIDATORS]
    if not around and any(_is_kind(path, RevokingValidator) for path in validators):
        cause = "AUTH_PASSWORD_VALIDATORS ends sessions, and FailsoftMiddleware is missing: who changes their own password is logged out."
        yield Warning(cause, hint="Put 'failsoft_django.FailsoftMiddleware' first in MIDDLEWARE.", id="failsoft.W911")


@register(_TAG)
def check_sharing(**_: Any) -> list[CheckMessage]:
    """Whether the sessions are those of Flask and Starlette, and their users too. Said only where a ``secret`` could be shared."""
    if not engine_is_ours():
        return []
    try:
        settings, _renderer = read_settings()
    except SettingsError:
        return []  # `check_settings` says so
    elsewhere = read_elsewhere()
    return [] if elsewhere is None else [*_same_cookie(settings, elsewhere), *_same_users()]


def _same_cookie(settings: Settings, elsewhere: Settings) -> Iterator[CheckMessage]:
    here, there = style_of(settings), style_of(elsewhere)
    if here is None or there is None or not (changes := differences(here, there)):
        return
    lines = " and ".join(f"{name} = {value!r}" for name, value in changes.items())
    hint = f"Write {lines}."
    if there.secure and not here.secure:
        hint += f" For plain HTTP: cookie_secure = False in what they share, and SESSION_COOKIE_NAME = {there.name!r}."
    yield Info(
        f"With the same settings, Flask and Starlette have another session cookie ({_shown(there)}) than this project ({_shown(here)}): "
        "a browser's session is not shared.",
        hint=hint + _silence("failsoft.I901"),
        id="failsoft.I901",
    )


def _shown(style: CookieStyle) -> str:
    flags = "; Secure" * style.secure + "; HttpOnly" * style.httponly
    domain = "" if style.domain is None else f"; Domain={style.domain}"
    return f"{style.full_name}{domain}; Path={style.path}{flags}; SameSite={style.samesite.title()}"


def _same_users() -> Iterator[CheckMessage]:
    if not apps.is_installed("django.contrib.auth"):
        return
    from failsoft_django import auth  # here, because it brings packages that are optional

    known = list(django_settings.AUTHENTICATION_BACKENDS)
    try:
        if auth.backend_path() is not None:
            return
    except ImportError:
        return  # Django says so itself at the first login
    yield Info(
        "Whoever logged in with Flask or Starlette is nobody here: no backend in AUTHENTICATION_BACKENDS knows them.",
        hint=f"If they say primary keys of {django_settings.AUTH_USER_MODEL} when they log users in, write AUTHENTICATION_BACKENDS = "
        f"{[*known, _BACKEND]!r}." + _silence("failsoft.I902"),
        id="failsoft.I902",
    )


def _silence(identifier: str) -> str:
    return f" If nothing else has these sessions: SILENCED_SYSTEM_CHECKS = [{identifier!r}]."


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


def _settings_of_views() -> Settings | None:
    """What holds for views; None where there are none, or where `check_settings` says what is wrong."""
    if getattr(django_settings, "ROOT_URLCONF", None) is None:
        return None
    try:
        settings, _renderer = read_settings()
    except SettingsError:
        return None
    return settings


@register(_TAG)
def check_declared(**_: Any) -> list[CheckMessage]:
    """What is declared on views and cannot be enforced with these settings; and what of the settings holds for no URL."""
    settings = _settings_of_views()
    if settings is None:
        return []
    routes = list_routes()
    return [
        *(Error(str(error), id="failsoft.E908") for error in mistakes_by_settings(settings, routes)),
        *(Warning(told, hint="A group is a namespace.", id="failsoft.W913") for told in unreached(settings, routes)),
    ]


@register(_TAG)
def check_users(**_: Any) -> list[CheckMessage]:
    """Limits by user where REST framework finds out too late who that is."""
    settings = _settings_of_views()
    if settings is None:
        return []
    hint = (
        "It authenticates inside of its views. Put the limit on the methods that handle requests (get, list), or below @api_view: "
        "there the user is known."
    )
    return [
        Warning(
            f"{policy!r} on {template!r} is decided before REST framework knows the user.",
            hint=hint,
            id="failsoft.W912",
        )
        for template, policy in too_early(settings.by)
    ]
