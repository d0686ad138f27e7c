"""Rate limits: quotas, whom they count, one atomic decision for all of a request's limits, and what the response says."""

from failsoft.quota import Quota, parse_quotas
from failsoft.ratelimit.acquire import Acquire
from failsoft.ratelimit.concern import RateLimits
from failsoft.ratelimit.declare import Exempt, Limit, exempt, limit
from failsoft.ratelimit.identity import hashed, late
from failsoft.ratelimit.lines import Line
from failsoft.ratelimit.penalty import Penalty
from failsoft.ratelimit.reservation import Reservation, reservation
from failsoft.ratelimit.routes import RouteLimits

__all__ = [
    "Acquire",
    "Exempt",
    "Limit",
    "Line",
    "Penalty",
    "Quota",
    "RateLimits",
    "Reservation",
    "RouteLimits",
    "exempt",
    "hashed",
    "late",
    "limit",
    "parse_quotas",
    "reservation",
]
