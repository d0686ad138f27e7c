"""Mistakes of settings that are right by themselves and wrong together.

Each is told at the setting that one would change. What only matters to sessions is a mistake only where they are on.
"""

from collections.abc import Iterator
from typing import TYPE_CHECKING, Final

from failsoft.durations import spell
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
    if settings.session_store not in stores:
        near = nearest(settings.session_store, stores)
        message = f"there is no store {settings.session_store!r}"
        hint = f"did you mean {near!r}?" if near else "name one of stores, or 'default'"
        yield _problem(483, "session_store", message, hint)
    elif settings.sessions:
        yield from _store(settings, stores[settings.session_store])
    if settings.sessions:
        yield from _secrets(settings)
    if settings.session_idle > settings.session_absolute:
        idle, absolute = spell(settings.session_idle), spell(settings.session_absolute)
        message = f"{idle} without use cannot pass in a session that ends after {absolute}"
        yield _problem(
            503, "session_idle", message, f"set session_idle to at most {absolute}, or raise session_absolute"
        )
    if settings.session_touch >= settings.session_idle:
        touch, idle = spell(settings.session_touch), spell(settings.session_idle)
        message = f"a session in use would end after {idle}, since its use is written down only every {touch}"
        yield _problem(523, "session_touch", message, f"set session_touch to less than {idle}")
    if settings.cookie_samesite == "none" and not settings.cookie_secure:
        message = "browsers drop a cookie with SameSite=None that is not Secure"
        yield _problem(673, "cookie_samesite", message, "set cookie_secure to true, or cookie_samesite to 'lax'")
    if settings.cookie_partitioned and not settings.cookie_secure:
        message = "browsers drop a cookie with Partitioned that is not Secure"
        yield _problem(683, "cookie_partitioned", message, "set cookie_secure to true, or cookie_partitioned to false")


def _store(settings: "Settings", url: str) -> Iterator[SettingProblem]:
    scheme = url.partition("://")[0]
    workers = settings.workers * settings.replicas
    if scheme == "memory" and workers > 1:
        message = f"each of the {workers} workers would have sessions of its own in memory://"
        yield _problem(484, "session_store", message, "use a store that they share, such as redis://")
    if scheme == "embedded" and settings.replicas > 1:
        message = f"each of the {settings.replicas} replicas would have sessions of its own in embedded://"
        yield _problem(484, "session_store", message, "use a store that they share, such as redis://")
    if scheme.endswith("+cluster") and settings.session_wait:
        message = "WAIT names no key, so that nobody can say which node of a cluster it is for"
        yield _problem(
            573, "session_wait", message, "set session_wait to 0, or keep the sessions in a store that is no cluster"
        )
    if scheme in COUNTING_ONLY:
        message = f"{scheme}:// only counts limits, and keeps no sessions"
        hint = "add a redis:// store to stores, and name it in session_store"
        yield _problem(485, "session_store", message, hint)


def _secrets(settings: "Settings") -> Iterator[SettingProblem]:
    if settings.secret is None or len(settings.secret) < SEALING:
        given = "there is none" if settings.secret is None else f"it has {len(settings.secret)}"
        message = f"sessions need a secret of at least {SEALING} characters, and {given}"
        yield _problem(253, "secret", message, f"make one with {_MAKE_ONE}, the same for every process and framework")
    if short := [str(number) for number, one in enumerate(settings.secret_fallbacks, 1) if len(one) < SEALING]:
        message = f"number {', '.join(short)}: sessions need secrets of at least {SEALING} characters"
        yield _problem(693, "secret_fallbacks", message, "leave out what never sealed a session")


def _problem(number: int, key: str, message: str, hint: str) -> SettingProblem:
    return SettingProblem(id=f"failsoft.E{number}", key=key, message=message, hint=hint, where=key)
