"""Rate limits: quotas, whom they count, one atomic decision for all of a request's limits, and what the response says."""

from failsoft.ratelimit.acquire import Acquire
from failsoft.ratelimit.admission import Line
from failsoft.ratelimit.concern import RateLimits, RouteLimits
from failsoft.ratelimit.declare import Exempt, Limit, exempt, limit
from failsoft.ratelimit.identity import late
from failsoft.ratelimit.quota import Quota, parse_quotas

__all__ = [
    "Acquire",
    "Exempt",
    "Limit",
    "Line",
    "Quota",
    "RateLimits",
    "RouteLimits",
    "exempt",
    "late",
    "limit",
    "parse_quotas",
]
