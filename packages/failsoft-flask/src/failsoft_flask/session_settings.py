"""What Flask's own configuration says of sessions, beside failsoft's settings.

The cookie is what failsoft's settings say. ``SESSION_COOKIE_...`` that say otherwise are an error at start.
``SESSION_REFRESH_EACH_REQUEST`` has no meaning: the store renews sessions, the cookie stays.
"""

from collections.abc import Mapping
from datetime import timedelta
from typing import Any

from failsoft.errors import ConfigurationError
from failsoft.sessions.service import Sessions

__all__ = ["agree"]


def agree(config: Mapping[str, Any], sessions: Sessions) -> None:
    """Refuse what would be said twice, and differently. Flask's defaults say nothing.

    Args:
        config: the application's.
        sessions: as failsoft's settings say.

    Raises:
        ConfigurationError: names both settings; or ``PERMANENT_SESSION_LIFETIME``, which Flask would stumble over in each request.
    """
    style = sessions.style
    samesite = config.get("SESSION_COOKIE_SAMESITE")
    said: list[tuple[str, Any, Any, str, tuple[Any, ...]]] = [
        ("NAME", config.get("SESSION_COOKIE_NAME"), "session", "session_cookie", (style.name, style.full_name)),
        ("DOMAIN", config.get("SESSION_COOKIE_DOMAIN"), None, "cookie_domain", (style.domain,)),
        ("PATH", config.get("SESSION_COOKIE_PATH"), None, "cookie_path", (style.path,)),
        ("HTTPONLY", config.get("SESSION_COOKIE_HTTPONLY"), True, "cookie_httponly", (style.httponly,)),
        ("SECURE", config.get("SESSION_COOKIE_SECURE"), False, "cookie_secure", (style.secure,)),
        ("SAMESITE", samesite and str(samesite).lower(), None, "cookie_samesite", (style.samesite,)),
        ("PARTITIONED", config.get("SESSION_COOKIE_PARTITIONED"), False, "cookie_partitioned", (style.partitioned,)),
    ]
    for name, value, default, setting, accepted in said:
        if value not in (None, default, *accepted):
            raise ConfigurationError(
                f"SESSION_COOKIE_{name}={value!r} in app.config disagrees with failsoft's {setting}={accepted[0]!r}: the cookie is what "
                "failsoft's settings say. Say it there, and leave it out of app.config"
            )
    lifetime = config.get("PERMANENT_SESSION_LIFETIME")
    if not isinstance(lifetime, int | float | timedelta | None):
        raise ConfigurationError(
            f"PERMANENT_SESSION_LIFETIME={lifetime!r} in app.config is no duration: write seconds as a number, or a timedelta"
        )
