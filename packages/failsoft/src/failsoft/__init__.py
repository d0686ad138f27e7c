"""Failsoft: resilience middleware for Python web applications.

The decorators, settings, errors and events that every framework shares. The middleware is in the adapters: ``failsoft_flask``,
``failsoft_django`` and ``failsoft_starlette``.
"""

from collections.abc import Mapping as _Mapping

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
    OperationRefused,
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
from failsoft.settings.urls import look_with as _look_with

__all__ = [
    "CapacityChanged",
    "ConfigurationError",
    "Event",
    "FailsoftError",
    "LimitDecided",
    "LimitNear",
    "LimitState",
    "OperationRefused",
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


def _look_at(url: str, options: _Mapping[str, object]) -> None:
    from failsoft.stores import look_at  # here, because most who import failsoft do not read settings

    look_at(url, options)


# What is wrong with the URL of a store, only the store knows, and it stands above settings.
_look_with(_look_at)
