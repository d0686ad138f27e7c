"""What Django's own settings say of sessions, in failsoft's words.

Rules:

- With ``SESSION_ENGINE = "failsoft_django.sessions"`` the setting ``sessions`` is on by itself.
- What failsoft's settings do not say, Django's do: the cookie's name and attributes; ``SECRET_KEY`` and its fallbacks; and
  ``SESSION_COOKIE_AGE``, which is `session_absolute`, and `session_idle` where that would be longer. With ``SESSION_SAVE_EVERY_REQUEST``
  Django counts it from the last request, so there it is `session_idle`, and `session_absolute` is 30 days or more.
- What both say must be the same. Django reads the cookie under ``SESSION_COOKIE_NAME``, its test client too, and its own middleware
  writes it; so a disagreement would be two cookies. Browsers hold a name with ``__Host-`` to a promise, and failsoft gives it wherever
  that is kept.
"""

from collections.abc import Iterator
from importlib import import_module
from typing import Any, Final

from django.conf import settings as django_settings
from django.core.exceptions import ImproperlyConfigured

from failsoft.errors import ConfigurationError
from failsoft.sessions.cookies import CookieStyle
from failsoft.settings import OPTIONS, SettingProblem, Settings

__all__ = ["ENGINE", "RELEVANT", "disagreements", "engine_is_ours", "session_defaults", "style_of"]

ENGINE: Final = "failsoft_django.sessions"

RELEVANT: Final = frozenset(
    {
        "SECRET_KEY",
        "SECRET_KEY_FALLBACKS",
        "SESSION_COOKIE_AGE",
        "SESSION_COOKIE_DOMAIN",
        "SESSION_COOKIE_HTTPONLY",
        "SESSION_COOKIE_NAME",
        "SESSION_COOKIE_PATH",
        "SESSION_COOKIE_SAMESITE",
        "SESSION_COOKIE_SECURE",
        "SESSION_ENGINE",
        "SESSION_SAVE_EVERY_REQUEST",
    }
)
"""Settings of Django's that are looked at here."""

_HOST: Final = "__Host-"
_BY_NAME: Final = {option.name: option for option in OPTIONS}


def engine_is_ours() -> bool:
    """Whether ``SESSION_ENGINE`` is ours, or a module whose ``SessionStore`` is made from ours."""
    engine: str = django_settings.SESSION_ENGINE
    if engine == ENGINE or engine.startswith("django."):
        return engine == ENGINE
    try:
        found = getattr(import_module(engine), "SessionStore", None)
    except ImportError:
        return False  # Django says so itself when the server starts
    return any(base.__module__ == ENGINE for base in getattr(found, "__mro__", ()))


def session_defaults() -> dict[str, object]:
    """What Django's settings say, by the names of failsoft's."""
    found: dict[str, object] = {
        "sessions": True,
        "session_cookie": str(django_settings.SESSION_COOKIE_NAME).removeprefix(_HOST),
        "cookie_secure": bool(django_settings.SESSION_COOKIE_SECURE),
        "cookie_httponly": bool(django_settings.SESSION_COOKIE_HTTPONLY),
        "cookie_domain": django_settings.SESSION_COOKIE_DOMAIN or None,
        "cookie_path": django_settings.SESSION_COOKIE_PATH or "/",
        "cookie_samesite": _samesite() or "lax",
        "secret_fallbacks": tuple(django_settings.SECRET_KEY_FALLBACKS),
    }
    try:
        found["secret"] = django_settings.SECRET_KEY
    except ImproperlyConfigured:  # it is empty: then failsoft needs one of its own
        pass
    return found | _clocks()


def _samesite() -> str | None:
    value: Any = django_settings.SESSION_COOKIE_SAMESITE
    return value.lower() if isinstance(value, str) and value else None


def _clocks() -> dict[str, object]:
    absolute, idle = _BY_NAME["session_absolute"], _BY_NAME["session_idle"]
    least, most = absolute.range or (None, None)
    # Browsers keep no cookie longer than the most; a session of less than the least would be of no use.
    age = min(max(float(django_settings.SESSION_COOKIE_AGE), least or 0.0), most or float("inf"))
    if django_settings.SESSION_SAVE_EVERY_REQUEST:
        clocks: dict[str, object] = {"session_idle": age, "session_absolute": max(age, absolute.default)}
    else:
        clocks = {"session_idle": min(age, idle.default), "session_absolute": age}
    if age <= _BY_NAME["session_touch"].default:
        clocks["session_touch"] = age / 2
    return clocks


def style_of(settings: Settings) -> CookieStyle | None:
    """How the cookie is written; None where that contradicts itself, which is told elsewhere."""
    try:
        return CookieStyle(
            name=settings.session_cookie,
            domain=settings.cookie_domain,
            path=settings.cookie_path,
            secure=settings.cookie_secure,
        )
    except ConfigurationError:
        return None


def disagreements(settings: Settings) -> Iterator[SettingProblem]:
    """Where failsoft's settings and Django's say different things of one session."""
    if not settings.sessions:
        yield _problem(
            "907",
            "sessions",
            "is false, and SESSION_ENGINE is failsoft's",
            "leave sessions out, or take another SESSION_ENGINE",
        )
        return
    style = style_of(settings)
    name = django_settings.SESSION_COOKIE_NAME
    if style is not None and style.full_name != name:
        promise = style.full_name.startswith(_HOST) and not name.startswith(_HOST)
        why = ": over TLS alone, with the path '/' and no domain, it begins with '__Host-'" if promise else ""
        yield _problem(
            "905",
            "session_cookie",
            f"the cookie is called {style.full_name!r}{why}; SESSION_COOKIE_NAME is {name!r}",
            f"write SESSION_COOKIE_NAME = {style.full_name!r}",
        )
    for key, own, given in (
        ("SECURE", "cookie_secure", bool(django_settings.SESSION_COOKIE_SECURE)),
        ("HTTPONLY", "cookie_httponly", bool(django_settings.SESSION_COOKIE_HTTPONLY)),
        ("DOMAIN", "cookie_domain", (django_settings.SESSION_COOKIE_DOMAIN or "").lower().removeprefix(".") or None),
        ("PATH", "cookie_path", django_settings.SESSION_COOKIE_PATH or "/"),
        ("SAMESITE", "cookie_samesite", _samesite() or settings.cookie_samesite),
    ):
        said = getattr(settings, own)
        if said != given:
            written = said.capitalize() if own == "cookie_samesite" else said
            yield _problem(
                "906",
                own,
                f"is {said!r}, and SESSION_COOKIE_{key} is {getattr(django_settings, f'SESSION_COOKIE_{key}')!r}",
                f"write SESSION_COOKIE_{key} = {written!r}, or leave {own} out",
            )


def _problem(number: str, key: str, message: str, hint: str) -> SettingProblem:
    return SettingProblem(id=f"failsoft.E{number}", key=key, message=message, hint=hint, where=f"FAILSOFT[{key!r}]")
