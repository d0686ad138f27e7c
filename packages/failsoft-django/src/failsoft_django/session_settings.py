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

from collections.abc import Iterator, Mapping
from importlib import import_module
from typing import Any, Final

from django.conf import settings as django_settings
from django.core.exceptions import ImproperlyConfigured

from failsoft.errors import ConfigurationError
from failsoft.sessions.cookies import CookieStyle
from failsoft.settings import OPTIONS, SettingProblem, Settings, SettingsError

__all__ = [
    "CALLED",
    "ENGINE",
    "RELEVANT",
    "adjustments",
    "differences",
    "disagreements",
    "engine_is_ours",
    "session_defaults",
    "style_of",
]

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

CALLED: Final[Mapping[str, str]] = {
    "sessions": "SESSION_ENGINE",
    "session_cookie": "SESSION_COOKIE_NAME",
    "session_idle": "SESSION_COOKIE_AGE",
    "session_absolute": "SESSION_COOKIE_AGE",
    "session_touch": "SESSION_COOKIE_AGE",
    "cookie_secure": "SESSION_COOKIE_SECURE",
    "cookie_httponly": "SESSION_COOKIE_HTTPONLY",
    "cookie_domain": "SESSION_COOKIE_DOMAIN",
    "cookie_path": "SESSION_COOKIE_PATH",
    "cookie_samesite": "SESSION_COOKIE_SAMESITE",
    "secret": "SECRET_KEY",
    "secret_fallbacks": "SECRET_KEY_FALLBACKS",
}
"""Which of Django's settings says each of failsoft's, where those do not."""

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


def _age() -> float:
    age: Any = django_settings.SESSION_COOKIE_AGE
    if isinstance(age, bool) or not isinstance(age, int | float):
        message, hint = f"{age!r} was given", "write seconds as a number, such as 1209600"
        raise SettingsError([_problem("909", "session_absolute", "SESSION_COOKIE_AGE", message, hint)])
    # Browsers keep no cookie longer than the most; a session of less than the least would be of no use.
    least, most = _BY_NAME["session_absolute"].range or (None, None)
    return min(max(float(age), least or 0.0), most or float("inf"))


def _clocks() -> dict[str, object]:
    absolute, idle = _BY_NAME["session_absolute"], _BY_NAME["session_idle"]
    age = _age()
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
            httponly=settings.cookie_httponly,
            samesite=settings.cookie_samesite,
        )
    except ConfigurationError:
        return None


def differences(here: CookieStyle, there: CookieStyle) -> dict[str, str | bool | None]:
    """What Django's settings have to say so that the cookie `here` is the one that it is `there`: their names, and their values."""
    pairs: dict[str, tuple[str | bool | None, str | bool | None]] = {
        "SESSION_COOKIE_NAME": (here.full_name, there.full_name),
        "SESSION_COOKIE_SECURE": (here.secure, there.secure),
        "SESSION_COOKIE_HTTPONLY": (here.httponly, there.httponly),
        "SESSION_COOKIE_DOMAIN": (here.domain, there.domain),
        "SESSION_COOKIE_PATH": (here.path, there.path),
        "SESSION_COOKIE_SAMESITE": (here.samesite.title(), there.samesite.title()),
    }
    return {name: theirs for name, (ours, theirs) in pairs.items() if ours != theirs}


def disagreements(settings: Settings, places: Mapping[str, str]) -> Iterator[SettingProblem]:
    """Where failsoft's settings and Django's say different things of one session.

    Args:
        settings: failsoft's.
        places: where each of them was given, as `Settings.places` says.
    """
    if not settings.sessions:
        yield _problem(
            "907",
            "sessions",
            places.get("sessions", "FAILSOFT['sessions']"),
            "is false, and SESSION_ENGINE is failsoft's",
            "leave sessions out, or take another SESSION_ENGINE",
        )
        return
    style = style_of(settings)
    name = django_settings.SESSION_COOKIE_NAME
    if style is not None and style.full_name != name:
        promise = style.full_name.startswith(_HOST) and not name.startswith(_HOST)
        why = ": over TLS alone, with the path '/' and no domain, it begins with '__Host-'" if promise else ""
        # Without a name of failsoft's, the prefix alone is what they disagree on.
        shaping = ("session_cookie", "cookie_secure", "cookie_path", "cookie_domain")
        yield _problem(
            "905",
            "session_cookie",
            next((places[key] for key in shaping if key in places), "SESSION_COOKIE_NAME"),
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
                places.get(own, f"SESSION_COOKIE_{key}"),
                f"is {said!r}, and SESSION_COOKIE_{key} is {getattr(django_settings, f'SESSION_COOKIE_{key}')!r}",
                f"write SESSION_COOKIE_{key} = {written!r}, or leave {own} out",
            )


def adjustments(settings: Settings) -> Iterator[SettingProblem]:
    """What Django's settings ask for and sessions do not have: what they have in its place.

    Args:
        settings: failsoft's, with sessions on.
    """
    if _samesite() is None:
        has = settings.cookie_samesite.title()
        yield SettingProblem(
            id="failsoft.W909",
            key="cookie_samesite",
            where="SESSION_COOKIE_SAMESITE",
            message=f"is {django_settings.SESSION_COOKIE_SAMESITE!r}, which asks for a cookie that says nothing of SameSite; it says {has}",
            hint=f"write SESSION_COOKIE_SAMESITE = {has!r}; for a cookie that is sent from other sites, 'None'",
        )
    age, has_age = django_settings.SESSION_COOKIE_AGE, _age()
    decided = settings.session_idle if django_settings.SESSION_SAVE_EVERY_REQUEST else settings.session_absolute
    if age != has_age == decided:
        least, most = _BY_NAME["session_absolute"].range or (None, None)
        yield SettingProblem(
            id="failsoft.W910",
            key="session_absolute",
            where="SESSION_COOKIE_AGE",
            message=f"is {age} seconds, and sessions live for {has_age:.0f}",
            hint=f"accepted: {least:.0f} to {most:.0f}; browsers keep no cookie longer",
        )


def _problem(number: str, key: str, where: str, message: str, hint: str) -> SettingProblem:
    return SettingProblem(id=f"failsoft.E{number}", key=key, message=message, hint=hint, where=where)
