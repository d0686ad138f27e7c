"""What a key of ours says: the reverse of how `failsoft.ratelimit` makes it."""

import re
from typing import NamedTuple

__all__ = ["KeyParts", "read_key"]

_KEY = re.compile(
    r"(?P<schema>\d+):(?P<concern>[a-z]+):(?P<scope>.+?):(?P<quota>[^:{}]+):\{(?P<identity>.*)\}(?P<rest>/-1)?",
    re.DOTALL,
)


class KeyParts(NamedTuple):
    """A key, taken apart.

    Attributes:
        schema: the version of keys and values.
        concern: ``rl`` for rate limits.
        scope: where it counts: ``app``, ``scope:NAME``, ``route:TEMPLATE``, ``shared:NAME``, ``view:TEMPLATE:PLACE``.
        quota: which limit: ``10/60f``.
        identity: whom it counts.
    """

    schema: int
    concern: str
    scope: str
    quota: str
    identity: str


def read_key(key: str, prefix: str) -> KeyParts | None:
    """The parts of `key`, or None if it is none of ours under this prefix."""
    if not key.startswith(prefix + ":"):
        return None
    found = _KEY.fullmatch(key, len(prefix) + 1)
    if found is None:
        return None
    return KeyParts(int(found["schema"]), found["concern"], found["scope"], found["quota"], found["identity"])
