"""Failsoft for Django: the middleware, sessions, and what tools ask about a project's limits.

``limit``, ``exempt`` and everything else that views use is in `failsoft`, the same in every framework.
"""

import typing as _typing

from failsoft_django.inspect import audit, list_routes
from failsoft_django.middleware import FailsoftMiddleware
from failsoft_django.runtime import get_runtime

if _typing.TYPE_CHECKING:
    from failsoft_django.session_middleware import SessionMiddleware

__all__ = ["FailsoftMiddleware", "SessionMiddleware", "audit", "get_runtime", "list_routes"]

__version__ = "0.1.0"


def __getattr__(name: str) -> _typing.Any:
    if name == "SessionMiddleware":  # sessions need packages that are optional
        from failsoft_django.session_middleware import SessionMiddleware

        return SessionMiddleware
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
