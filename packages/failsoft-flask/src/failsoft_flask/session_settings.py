"""What Flask's own configuration says of sessions, beside failsoft's settings.

The cookie is what failsoft's settings say. ``SESSION_COOKIE_...`` that say otherwise are an error at start.
``SESSION_REFRESH_EACH_REQUEST`` has no meaning: the store renews sessions, the cookie stays.
"""

import logging
from collections.abc import Mapping
from datetime import timedelta
from typing import Any, Final

from failsoft.durations import spell
from failsoft.errors import ConfigurationError
from failsoft.sessions.service import Sessions

__all__ = ["FLASKS_OWN", "agree"]

_log = logging.getLogger("failsoft.flask")

FLASKS_OWN: Final = timedelta(days=31)
"""What ``PERMANENT_SESSION_LIFETIME`` is where nobody set it."""


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
    wanted = lifetime.total_seconds() if isinstance(lifetime, timedelta) else lifetime or 0.0
    longest = sessions.settings.session_absolute
    if wanted != FLASKS_OWN.total_seconds() and wanted > longest:
        _log.warning(
            "PERMANENT_SESSION_LIFETIME in app.config is %s, and failsoft's session_absolute ends every session after %s: set that as "
            "long, or this shorter",
            spell(wanted),
            spell(longest),
        )
