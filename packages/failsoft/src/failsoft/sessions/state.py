"""What is known of a session, and the refusals that follow from it.

UNLOADED   there is an id; nobody has asked the store yet
UNCHECKED  loaded; whether its subject revoked it is not known yet, because no seal said who that is
NEW        there is no id, or a dead one; nothing is stored
LIVE       loaded
MOVED      the id was renewed for another user a moment ago, or twice, and the browser will soon have the new one: there is
           nothing to read, and nothing can be written
SNAPSHOT   the store is away; the sealed copy that the browser keeps stands in, for reading
AWAY       the store is away: reading raises, or gives nothing, by the setting `session_on_outage`
"""

import logging
from enum import Enum
from typing import Final

from failsoft.errors import OperationFailed, Rejected, SessionConflict, SessionUnavailable, StoreUnavailable
from failsoft.problem import Problem

__all__ = ["LIVE", "NEW", "NO_ANSWER", "UNKNOWN", "UNLOADED", "State", "conflict", "unavailable", "unsaved"]

_log = logging.getLogger("failsoft.sessions")


class State(Enum):
    """See the module."""

    UNLOADED = "unloaded"
    UNCHECKED = "unchecked"
    NEW = "new"
    LIVE = "live"
    MOVED = "moved"
    SNAPSHOT = "snapshot"
    AWAY = "away"


# By themselves, since each request looks for them a dozen times: to find a member in its class takes 220 instructions.
LIVE: Final = State.LIVE
NEW: Final = State.NEW
UNLOADED: Final = State.UNLOADED

UNKNOWN: Final = (UNLOADED, State.UNCHECKED)  # no set: to hash a member takes longer than to compare it with two
"""The states in which the store is to be asked."""

NO_ANSWER: Final = (OperationFailed, StoreUnavailable)


def unavailable(what: str) -> SessionUnavailable:
    """The refusal of a request that needs what the store has."""
    problem = Problem(type="about:blank", title="Service Unavailable", status=503, detail=what)
    return SessionUnavailable(problem, retry_after=1)


def conflict(what: str) -> SessionConflict:
    """The refusal of a request whose session ended or was renewed meanwhile."""
    return SessionConflict(Problem(type="about:blank", title="Conflict", status=409, detail=what), retry_after=1)


def unsaved(error: Exception) -> Rejected:
    """The refusal of a request that put into the session what cannot be stored, found when it was to be stored."""
    _log.error("the session was not saved: %s", error)
    detail = "The session could not be saved."
    return Rejected(Problem(type="about:blank", title="Internal Server Error", status=500, detail=detail))
