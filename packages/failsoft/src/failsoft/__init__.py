"""Failsoft: resilience middleware for Python web applications.

The decorators, settings, errors and events that every framework shares. The middleware is in the adapters: ``failsoft_flask``,
``failsoft_django`` and ``failsoft_starlette``.
"""

from failsoft.errors import (
    ConfigurationError,
    FailsoftError,
    OutsideRequest,
    RateLimited,
    Rejected,
    Unavailable,
)
from failsoft.events import Event, LimitDecided, LimitState, StoreDegraded, StoreRecovered
from failsoft.problem import Problem
from failsoft.ratelimit import Quota, exempt, late, limit
from failsoft.settings import Settings

__all__ = [
    "ConfigurationError",
    "Event",
    "FailsoftError",
    "LimitDecided",
    "LimitState",
    "OutsideRequest",
    "Problem",
    "Quota",
    "RateLimited",
    "Rejected",
    "Settings",
    "StoreDegraded",
    "StoreRecovered",
    "Unavailable",
    "exempt",
    "late",
    "limit",
]

__version__ = "0.1.0"
