"""What a key of ours says: the reverse of how `failsoft.ratelimit` and `failsoft.sessions` make it."""

import re
from collections.abc import Mapping
from typing import NamedTuple

from failsoft.ratelimit.concern import SCHEMA

__all__ = ["SCHEMAS", "KeyParts", "read_key"]

SCHEMAS: Mapping[str, int] = {"rl": SCHEMA, "sess": 1, "subj": 1}
"""The present version of each concern's keys. What sessions bring is optional, so theirs is written down here."""

_KEY = re.compile(
    r"(?P<schema>\d+):(?P<concern>[a-z]+):(?P<scope>.+?):(?P<quota>[^:{}]+):\{(?P<identity>.*)\}(?P<rest>/-1)?",
    re.DOTALL,
)


_SESSIONS = re.compile(r"(?P<schema>\d+):(?P<concern>sess|subj):\{(?P<identity>[^{}]*)\}")


class KeyParts(NamedTuple):
    """A key, taken apart.

    Attributes:
        schema: the version of keys and values.
        concern: ``rl`` for rate limits, ``sess`` for a session's record, ``subj`` for the list of a subject's sessions.
        scope: where a limit counts: ``app``, ``scope:NAME``, ``route:TEMPLATE``, ``shared:NAME``, ``view:TEMPLATE:PLACE``.
        quota: which limit: ``10/60f``.
        identity: whom it counts; the session's handle, or a digest of the subject.
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
    start = len(prefix) + 1
    if (found := _SESSIONS.fullmatch(key, start)) is not None:
        return KeyParts(int(found["schema"]), found["concern"], "", "", found["identity"])
    found = _KEY.fullmatch(key, start)
    if found is None:
        return None
    return KeyParts(int(found["schema"]), found["concern"], found["scope"], found["quota"], found["identity"])
