"""Mistakes of settings that are right by themselves and wrong together.

Each is told at the setting that one would change, and names the others. What only matters to sessions is a mistake only where they are on.
"""

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any, Final

from failsoft.durations import spell
from failsoft.errors import ConfigurationError
from failsoft.quota import parse_quotas
from failsoft.settings.problems import SettingProblem, nearest
from failsoft.settings.urls import COUNTING_ONLY

if TYPE_CHECKING:
    from failsoft.settings.structure import Settings

__all__ = ["SEALING", "conflicts"]

SEALING: Final = 32
"""Characters of a secret that seals something, at least."""

_MAKE_ONE: Final = 'python -c "import secrets; print(secrets.token_urlsafe(32))"'


def conflicts(settings: "Settings") -> Iterator[SettingProblem]:
    """What does not go together in `settings`, whose values are right by themselves."""
    stores = {"default": settings.store} | dict(settings.stores)
    yield from _limits(settings, stores)
    if settings.shed_min > settings.shed_max:
        message = f"{settings.shed_min} is above shed_max, {settings.shed_max}: the limit lies between the two"
        yield _problem(423, "shed_min", message, "lower shed_min, or raise shed_max", "shed_max")
    if settings.session_store not in stores:
        yield _problem(483, "session_store", *_no_store(settings.session_store, stores), "stores")
    elif settings.sessions:
        yield from _store(settings, stores[settings.session_store])
    if settings.sessions:
        yield from _secrets(settings)
    if settings.session_idle > settings.session_absolute:
        idle, absolute = spell(settings.session_idle), spell(settings.session_absolute)
        message = f"{idle} without use cannot pass in a session that ends after {absolute}"
        hint = f"set session_idle to at most {absolute}, or raise session_absolute"
        yield _problem(503, "session_idle", message, hint, "session_absolute")
    if settings.session_touch >= settings.session_idle:
        touch, idle = spell(settings.session_touch), spell(settings.session_idle)
        message = f"a session in use would end after {idle}, since its use is written down only every {touch}"
        yield _problem(523, "session_touch", message, f"set session_touch to less than {idle}", "session_idle")
    if settings.cookie_samesite == "none" and not settings.cookie_secure:
        message = "browsers drop a cookie with SameSite=None that is not Secure"
        hint = "set cookie_secure to true, or cookie_samesite to 'lax'"
        yield _problem(673, "cookie_samesite", message, hint, "cookie_secure")
    if settings.cookie_partitioned and not settings.cookie_secure:
        message = "browsers drop a cookie with Partitioned that is not Secure"
        hint = "set cookie_secure to true, or cookie_partitioned to false"
        yield _problem(683, "cookie_partitioned", message, hint, "cookie_secure")


def _limits(settings: "Settings", stores: dict[str, str]) -> Iterator[SettingProblem]:
    of_scopes = [(f"{scope.name}: ", one) for scope in settings.scopes for one in scope.limits]
    for number, key, given in (
        (133, "limits", [("", one) for one in settings.limits]),
        (143, "route_limits", [("", one) for one in settings.route_limits]),
        (373, "scopes", of_scopes),
    ):
        if wrong := list(_not_counted(settings, given)):
            hint = "or set another algorithm, or write it as a failsoft.Quota with one of its own"
            yield _problem(number, key, "; ".join(wrong), hint, "algorithm")
    for scope in settings.scopes:
        if scope.store not in stores:
            message, hint = _no_store(scope.store, stores)
            yield _problem(374, "scopes", f"{scope.name}: {message}", hint, "stores")
    if settings.hash_keys and settings.key_style != "failsoft":
        message = f"the keys of {settings.key_style} have identities in plain text, or that package would not find them"
        hint = "leave out hash_keys for as long as its keys are used, or leave out key_style"
        yield _problem(463, "key_style", message, hint, "hash_keys")


def _not_counted(settings: "Settings", given: Sequence[tuple[str, Any]]) -> Iterator[str]:
    """What the setting algorithm cannot count."""
    for where, one in given:
        try:
            parse_quotas(one, algorithm=settings.algorithm, aligned=settings.aligned)
        except ConfigurationError as error:
            yield f"{where}{error}"


def _no_store(name: str, stores: dict[str, str]) -> tuple[str, str]:
    near = nearest(name, stores)
    return f"there is no store {name!r}", f"did you mean {near!r}?" if near else "name one of stores, or 'default'"


def _store(settings: "Settings", url: str) -> Iterator[SettingProblem]:
    scheme = url.partition("://")[0]
    workers = settings.workers * settings.replicas
    named = "store" if settings.session_store == "default" else "stores"
    shared = f"give {named} (or session_store) one that they share, such as redis://"
    if scheme == "memory" and workers > 1:
        message = f"each of the {workers} workers would have sessions of its own in memory://"
        yield _problem(484, "session_store", message, shared, named, "workers", "replicas", "sessions")
    if scheme == "embedded" and settings.replicas > 1:
        message = f"each of the {settings.replicas} replicas would have sessions of its own in embedded://"
        yield _problem(484, "session_store", message, shared, named, "replicas", "sessions")
    if scheme.endswith("+cluster") and settings.session_wait:
        message = "WAIT names no key, so that nobody can say which node of a cluster it is for"
        hint = "set session_wait to 0, or keep the sessions in a store that is no cluster"
        yield _problem(573, "session_wait", message, hint, "session_store", named)
    if scheme in COUNTING_ONLY:
        message = f"{scheme}:// only counts limits, and keeps no sessions"
        hint = "add a redis:// store to stores, and name it in session_store"
        yield _problem(485, "session_store", message, hint, named, "sessions")


def _secrets(settings: "Settings") -> Iterator[SettingProblem]:
    if settings.secret is None or len(settings.secret) < SEALING:
        given = "there is none" if settings.secret is None else f"it has {len(settings.secret)}"
        message = f"sessions need a secret of at least {SEALING} characters, and {given}"
        hint = f"set secret to what this makes, the same for every process and framework: {_MAKE_ONE}"
        yield _problem(253, "secret", message, hint, "sessions")
    if short := [str(number) for number, one in enumerate(settings.secret_fallbacks, 1) if len(one) < SEALING]:
        message = f"number {', '.join(short)}: sessions need secrets of at least {SEALING} characters"
        yield _problem(693, "secret_fallbacks", message, "leave out what never sealed a session", "sessions")


def _problem(number: int, key: str, message: str, hint: str, *beside: str) -> SettingProblem:
    return SettingProblem(id=f"failsoft.E{number}", key=key, message=message, hint=hint, where=key, beside=beside)
