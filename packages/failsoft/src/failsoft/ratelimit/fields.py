"""What a response says of its limits.

``RateLimit-Policy`` and ``RateLimit`` as in draft-ietf-httpapi-ratelimit-headers-10: lists of Structured Field strings (RFC 9651)
with parameters ``q`` (quota), ``w`` (window, seconds), ``r`` (remaining) and ``t`` (seconds until there is more, never a time stamp).
By setting also the older ``X-RateLimit-*`` for the tightest limit, whose reset is seconds since the epoch.
"""

from collections.abc import Sequence
from math import ceil

__all__ = ["LEGACY_NAMES", "NAMES", "legacy_fields", "policy_member", "rate_limit_field", "rate_limit_format"]

NAMES = ("RateLimit", "RateLimit-Policy", "Retry-After")
LEGACY_NAMES = ("X-RateLimit-Limit", "X-RateLimit-Remaining", "X-RateLimit-Reset")


def policy_member(name: str, quota: int, window: int) -> str:
    """One member of the RateLimit-Policy list. `name` holds only characters that need no escape."""
    return f'"{name}";q={quota};w={window}'


def rate_limit_format(names: Sequence[str]) -> str:
    """The RateLimit field for these policies, but for its numbers; `rate_limit_field` puts them in."""
    return ", ".join(f'"{name}";r=%d;t=%d' for name in names)


def rate_limit_field(form: str, rows: Sequence[int]) -> str:
    """The value of the RateLimit field. One format operation: joining the parts takes half as long again.

    Args:
        form: what `rate_limit_format` made.
        rows: for each limit whether it fitted, what remains and the milliseconds until there is more.
    """
    if len(rows) == 3:
        return form % (rows[1], (rows[2] + 999) // 1000)
    if len(rows) == 9:  # three limits, as many services have: without the loop it takes three quarters of the time
        _, first, end, _, second, middle, _, third, last = rows
        return form % (first, (end + 999) // 1000, second, (middle + 999) // 1000, third, (last + 999) // 1000)
    numbers: list[int] = []
    for place in range(1, len(rows), 3):
        numbers.append(rows[place])
        numbers.append((rows[place + 1] + 999) // 1000)
    return form % tuple(numbers)


def legacy_fields(amounts: Sequence[int], rows: Sequence[int], now: float) -> list[tuple[str, str]]:
    """X-RateLimit-Limit, -Remaining and -Reset of the limit with the least left."""
    tightest = min(range(len(amounts)), key=lambda i: (rows[i * 3], rows[i * 3 + 1] / amounts[i]))
    reset = ceil(now + rows[tightest * 3 + 2] / 1000)
    return list(zip(LEGACY_NAMES, (str(amounts[tightest]), str(rows[tightest * 3 + 1]), str(reset)), strict=True))
