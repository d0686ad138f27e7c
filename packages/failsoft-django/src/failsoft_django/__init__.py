"""Failsoft for Django: the middleware, and what tools ask about a project's limits.

``limit``, ``exempt`` and everything else that views use is in `failsoft`, the same in every framework.
"""

from failsoft_django.inspect import audit, list_routes
from failsoft_django.middleware import FailsoftMiddleware
from failsoft_django.runtime import get_runtime

__all__ = ["FailsoftMiddleware", "audit", "get_runtime", "list_routes"]

__version__ = "0.1.0"
