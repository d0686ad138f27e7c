"""The words of a circuit breaker, and its transitions.

               a failure too many                  the wait is over
    CLOSED ───────────────────────────▶ OPEN ───────────────────────────▶ HALF_OPEN
       ▲                                 ▲   a probe failed, or hung          │ │
       │                                 └────────────────────────────────────┘ │
       └────────────────────────────────────────────────────────────────────────┘
                                enough probes succeeded

Beside these an operator may force a state, and a forked process starts closed. `breaker` tells how it works.
"""

from enum import Enum
from typing import Final, Literal

__all__ = ["TRANSITIONS", "Admission", "Outcome", "Reason", "State"]


class State(Enum):
    """What a breaker does with calls: let them through, refuse them, or let probes through."""

    CLOSED = "closed"
    OPEN = "open"
    HALF_OPEN = "half_open"


Reason = Literal[
    "failure_rate",
    "refused",
    "probe_due",
    "probe_failed",
    "probe_hung",
    "recovered",
    "forced_open",
    "forced_closed",
    "reset",
    "forked",
]
"""Why a breaker changed its state."""

TRANSITIONS: Final[dict[tuple[State, Reason], State]] = {
    (State.CLOSED, "failure_rate"): State.OPEN,
    (State.CLOSED, "refused"): State.OPEN,
    (State.OPEN, "probe_due"): State.HALF_OPEN,
    (State.HALF_OPEN, "probe_failed"): State.OPEN,
    (State.HALF_OPEN, "probe_hung"): State.OPEN,
    (State.HALF_OPEN, "recovered"): State.CLOSED,
    **{(state, "forced_open"): State.OPEN for state in State},
    **{(state, "forced_closed"): State.CLOSED for state in State},
    **{(state, "reset"): State.CLOSED for state in State},
    **{(state, "forked"): State.CLOSED for state in State},
}
"""All there are. What is not in the table does not happen."""


class Outcome(Enum):
    """What became of a call.

    ``SUCCESS``: the dependency answered; an answer that says "no such thing" is one too.
    ``FAILURE``: it did not, or not in time.
    ``REFUSED``: it could not even be reached (connection refused, no route, no such host). A failure that also
    counts in a row, for `consecutive`. A guard that shall open at N failures in a row settles all of them so.
    ``IGNORE``: the call says nothing about the dependency (the caller's mistake). Counts nothing.
    ``CANCELLED``: the caller left before there was a verdict. Counts nothing.
    """

    SUCCESS = "success"
    FAILURE = "failure"
    REFUSED = "refused"
    IGNORE = "ignore"
    CANCELLED = "cancelled"


class Admission:
    """Leave to make one call, from `Breaker.acquire`; to be handed to `Breaker.settle` of the same breaker.

    Attributes:
        generation: the state entry that gave it, from 1; 0 once it is settled.
        probe: whether this call decides about closing the breaker.
    """

    # No slots, and no default: Python 3.13 makes such objects in two thirds of the time, and each call takes one.
    def __init__(self, generation: int, probe: bool) -> None:
        self.generation = generation
        self.probe = probe
