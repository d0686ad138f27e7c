"""Failsoft for Django: the middleware, sessions, and what tools ask about a project's limits.

``limit``, ``exempt`` and everything else that views use is in `failsoft`, the same in every framework.
"""

import typing as _typing

from failsoft_django.inspect import audit, list_routes
from failsoft_django.middleware import FailsoftMiddleware
from failsoft_django.runtime import get_runtime

if _typing.TYPE_CHECKING:
    from failsoft_django.auth import alogout, arevoke_sessions, logout, revoke_sessions
    from failsoft_django.session_middleware import SessionMiddleware

__all__ = [
    "FailsoftMiddleware",
    "SessionMiddleware",
    "alogout",
    "arevoke_sessions",
    "audit",
    "get_runtime",
    "list_routes",
    "logout",
    "revoke_sessions",
]

__version__ = "0.1.0"


def __getattr__(name: str) -> _typing.Any:
    # Sessions need packages that are optional.
    if name == "SessionMiddleware":
        from failsoft_django.session_middleware import SessionMiddleware

        return SessionMiddleware
    if name in ("alogout", "arevoke_sessions", "logout", "revoke_sessions"):
        from failsoft_django import auth

        return getattr(auth, name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
