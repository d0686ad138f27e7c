"""URLs of stores, as settings have them: text, and what may be said beside it.

What a URL may say is known to its store, and stores stand above settings. So they bring what looks at URLs (`look_with`), and
settings have it look at every one: a mistake in a URL is told like any other mistake in settings, and with them.
"""

import re
from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import Any

from failsoft.errors import ConfigurationError

__all__ = [
    "COUNTING_ONLY",
    "MAX_CONNECTIONS",
    "NOT_SPOKEN",
    "SCHEMES",
    "StoreMistake",
    "StoreUrl",
    "is_legible",
    "look",
    "look_with",
    "wrong_port",
]

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

MAX_CONNECTIONS = (1, 10_000)
"""Least and most connections of one process, in settings and in URLs; more than a server's own limit helps nobody."""

NOT_SPOKEN = {
    "valkey": "Valkey speaks the same protocol: write redis://",
    "valkeys": "Valkey speaks the same protocol: write rediss://",
    "redis+tls": "TLS is rediss://",
    "sentinel": "Sentinel is redis+sentinel://, or rediss+sentinel:// for TLS",
    "cluster": "a cluster is redis+cluster://, or rediss+cluster:// for TLS",
}
"""No nearest spelling for these: ``redis://`` in place of an encrypted one would send passwords in clear."""

_PARTS = re.compile(r"([^/?]*)(.*)", re.DOTALL)
_HOST = re.compile(r"(?:\[[^\[\]]*\]|[^:\[\]]*)(?::([0-9]+))?")


class StoreMistake(ConfigurationError):
    """What is said of a store is wrong. Nothing in it may be a piece of a password.

    Attributes:
        cause: what is wrong with the URL, or with the option.
        cure: what to write instead.
        option: its name, or None where the URL is wrong.
    """

    def __init__(self, cause: str, cure: str, option: str | None = None) -> None:
        super().__init__(cause, cure, option)
        self.cause = cause
        self.cure = cure
        self.option = option

    def __str__(self) -> str:
        if self.option is None:
            return f"The URL of a store is wrong: {self.cause}. {self.cure[0].upper()}{self.cure[1:]}."
        return f"The option {self.option} of a store {self.cause}; {self.cure}."

    def of(self, url: str) -> str:
        """The cause, as what is said of `url`."""
        scheme = url.partition("://")[0]
        if self.option is None:
            return f"the {scheme}:// URL is wrong: {self.cause}"
        return f"the option {self.option} of the {scheme}:// URL {self.cause}"


_Look = Callable[[str, Mapping[str, Any]], None]
"""Looks at a URL and the options beside it, and raises `ConfigurationError`. It opens nothing, and runs nothing of the user's."""

_looks: list[_Look] = []


def look_with(look: _Look) -> None:
    """Have `look` look at every URL of a store from now on."""
    _looks[:] = [look]


def look(url: str) -> None:
    """Look at the URL of a store, and at the options beside it.

    Raises:
        ConfigurationError: it is wrong, or a package is missing; in most cases a `StoreMistake`.
    """
    for one in _looks:
        one(str(url), getattr(url, "options", {}))


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
    hosts = _hosts(url)
    return hosts is not None and all(map(_right, hosts))


def wrong_port(url: str) -> bool:
    """Whether all that keeps `url` from being legible is a number where a port stands, which is none."""
    hosts = _hosts(url)
    return hosts is not None and None not in hosts and not is_legible(url)


def _hosts(url: str) -> list[re.Match[str] | None] | None:
    authority, rest = _PARTS.fullmatch(url.partition("://")[2]).groups()  # type: ignore[union-attr]  # it matches everything
    if authority.count("@") > 1 or "@" in rest or "#" in url:
        return None
    return [_HOST.fullmatch(host) for host in authority.rpartition("@")[2].split(",")]


def _right(host: re.Match[str] | None) -> bool:
    return host is not None and (not host[1] or (len(host[1]) <= 5 and 0 < int(host[1]) < 65536))
