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
    SessionConflict,
    SessionTooLarge,
    SessionUnavailable,
    SessionValueError,
    Unavailable,
)
from failsoft.events import (
    CapacityChanged,
    Event,
    LimitDecided,
    LimitNear,
    LimitState,
    SessionCreated,
    SessionDegraded,
    SessionEvent,
    SessionGone,
    SessionMerged,
    SessionRevoked,
    SessionRolledBack,
    SessionRotated,
    Shed,
    StoreDegraded,
    StoreRecovered,
    SubjectRevoked,
)
from failsoft.problem import Problem
from failsoft.ratelimit import Penalty, Quota, Reservation, exempt, hashed, late, limit, reservation
from failsoft.ratelimit.shedding import criticality
from failsoft.sessions.live import require_live_session
from failsoft.settings import Settings

__all__ = [
    "CapacityChanged",
    "ConfigurationError",
    "Event",
    "FailsoftError",
    "LimitDecided",
    "LimitNear",
    "LimitState",
    "OutsideRequest",
    "Penalty",
    "Problem",
    "Quota",
    "RateLimited",
    "Rejected",
    "Reservation",
    "SessionConflict",
    "SessionCreated",
    "SessionDegraded",
    "SessionEvent",
    "SessionGone",
    "SessionMerged",
    "SessionRevoked",
    "SessionRolledBack",
    "SessionRotated",
    "SessionTooLarge",
    "SessionUnavailable",
    "SessionValueError",
    "Settings",
    "Shed",
    "StoreDegraded",
    "StoreRecovered",
    "SubjectRevoked",
    "Unavailable",
    "criticality",
    "exempt",
    "hashed",
    "late",
    "limit",
    "require_live_session",
    "reservation",
]

__version__ = "0.1.0"
