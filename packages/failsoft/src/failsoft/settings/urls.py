"""URLs of stores, as settings have them: text, and what may be said beside it."""

import re
from collections.abc import Mapping
from types import MappingProxyType
from typing import Any

__all__ = ["COUNTING_ONLY", "NOT_SPOKEN", "SCHEMES", "StoreUrl", "is_legible"]

SCHEMES = (
    "memory",
    "embedded",
    "redis",
    "rediss",
    "unix",
    "redis+sentinel",
    "rediss+sentinel",
    "redis+cluster",
    "rediss+cluster",
    "memcached",
    "mongodb",
    "mongodb+srv",
)
"""What the URL of a store begins with."""

COUNTING_ONLY = ("memcached", "mongodb", "mongodb+srv")
"""Stores that count limits, and do nothing else."""

NOT_SPOKEN = {
    "valkey": "Valkey speaks the same protocol: write redis://",
    "valkeys": "Valkey speaks the same protocol: write rediss://",
    "redis+tls": "TLS is rediss://",
    "sentinel": "Sentinel is redis+sentinel://, or rediss+sentinel:// for TLS",
    "cluster": "a cluster is redis+cluster://, or rediss+cluster:// for TLS",
}
"""No nearest spelling for these: ``redis://`` in place of an encrypted one would send passwords in clear."""

_PARTS = re.compile(r"([^/?]*)(.*)", re.DOTALL)
_HOST = re.compile(r"(?:\[[^\[\]]*\]|[^:\[\]]*)(?::([0-9]{1,5}))?")


class StoreUrl(str):
    """The URL of a store, and options beside it. It equals no URL without them.

    Attributes:
        options: what else is said of the store: objects, and what one does not want in a URL.
    """

    options: Mapping[str, Any]

    def __new__(cls, url: str, options: Mapping[str, Any] = MappingProxyType({})) -> "StoreUrl":
        made = super().__new__(cls, url)
        made.options = MappingProxyType(dict(options))
        return made

    def __reduce__(self) -> tuple[Any, ...]:
        return StoreUrl, (str(self), dict(self.options))

    def __eq__(self, other: object) -> bool:
        return str.__eq__(self, other) is True and getattr(other, "options", {}) == self.options

    def __ne__(self, other: object) -> bool:
        return not self == other

    __hash__ = str.__hash__


def is_legible(url: str) -> bool:
    """Whether a password in `url` can be told from the rest, and masked. What else the URL says, its store checks."""
    authority, rest = _PARTS.fullmatch(url.partition("://")[2]).groups()  # type: ignore[union-attr]  # it matches everything
    if authority.count("@") > 1 or "@" in rest or "#" in url:
        return False
    hosts = [_HOST.fullmatch(host) for host in authority.rpartition("@")[2].split(",")]
    return all(host is not None and (not host[1] or 0 < int(host[1]) < 65536) for host in hosts)
