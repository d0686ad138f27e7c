"""Guards: what stands between a caller and a dependency that may fail.

`Breaker` stops calls to a dependency that keeps failing, and lets probes through until it recovers.
"""

from failsoft.guard.breaker import Admission, Breaker, Outcome, Reason, State

__all__ = ["Admission", "Breaker", "Outcome", "Reason", "State"]
