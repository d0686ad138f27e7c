"""Keys of other packages: a transition to failsoft that resets nobody's counters.

Flask-Limiter and slowapi count through `limits`, under ``LIMITS:LIMITER/WHO/WHERE/AMOUNT/MULTIPLES/UNIT``, with all behind the
first colon in braces for sliding windows. What lies there is the same
for the same algorithm (see `scripts`), so what is left to match is the key:

- WHO is the identity without its kind: the address, or what a function returned. An IPv6 address is whole only with
  ``ipv6_prefix=128``. Header values are hashed here, so they match nothing.
- WHERE is the name of a shared limit, ``global`` for the setting `limits`, or what the package calls the view: Flask-Limiter the endpoint
  (``shop.cart``), slowapi the path; of a path with parameters it is the template here, so that these begin anew. Methods that are
  counted apart follow it.
- MULTIPLES and UNIT are of the largest unit that fits: ``2 per 60 second`` is kept as ``2/1/minute``.

GCRA, penalties and scopes are in no other package, and keep our keys.
"""

from failsoft.exchange import Route
from failsoft.quota import Quota
from failsoft.ratelimit.declare import Limit

__all__ = ["foreign_key", "foreign_place"]

_UNITS = (
    ("year", 360 * 86_400),
    ("month", 30 * 86_400),
    ("day", 86_400),
    ("hour", 3600),
    ("minute", 60),
    ("second", 1),
)


def foreign_place(style: str, route: Route, limit: Limit | None, source: str) -> str | None:
    """What the package that `style` names calls the place of a limit; None where it has no such limit."""
    if source == "limits":
        return "global"
    where = route.name if style == "flask-limiter" else route.template
    if limit is not None and limit.shared is not None:
        where = limit.shared
    if where is not None and limit is not None and limit.per_method:
        where += ":" + ("GET" if route.method == "HEAD" else route.method)
    return where


def foreign_key(quota: Quota, place: str, part: str) -> str:
    """Where `limits` counts `part`, an identity with its kind."""
    unit, seconds = next((unit, seconds) for unit, seconds in _UNITS if quota.window % seconds == 0)
    who = part.partition(":")[2]
    key = f"LIMITER/{who}/{place}/{quota.amount}/{quota.window // seconds}/{unit}"
    # In braces, as the two keys of a sliding window must lie together.
    return f"LIMITS:{{{key}}}" if quota.algorithm == "sliding-window-counter" else f"LIMITS:{key}"
