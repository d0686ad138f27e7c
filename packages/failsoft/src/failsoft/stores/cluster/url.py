"""URLs of clusters.

    redis+cluster://[user:password@]host:port[,host:port...][?option=value&...]
    rediss+cluster://...                                      the same over TLS

The hosts are where to ask for the others: some that are likely to be there, not necessarily all. What a cluster's URL may
say beside its hosts is what the URL of each of its nodes may say, so that is what reads it (`failsoft.stores.redis.url`).
"""

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import urlsplit

from failsoft.settings.urls import StoreMistake
from failsoft.stores.cluster.slots import Address
from failsoft.stores.redis import url as redis
from failsoft.stores.redis.url import Target, parse_url

__all__ = ["SCHEMES", "Seeds", "look_at_url", "parse_cluster_url"]

SCHEMES = {"redis+cluster": "redis", "rediss+cluster": "rediss"}
"""Schemes of clusters, and those of their nodes."""

_URL = re.compile(r"([A-Za-z][A-Za-z0-9+.-]*)://([^/?#]*)/?0?(\?[^#]*)?", re.DOTALL)
_HOST = re.compile(r"(\[[^\]]*\]|[^:\[\]]*)(:[0-9]{1,9})?")


@dataclass(frozen=True, slots=True)
class Seeds:
    """Where a cluster is and how to get in.

    Attributes:
        addresses: of the nodes that the URL names.
        masked: the URL with the password masked.
        deadline: seconds, or None where the URL says nothing.
        max_connections: or None where the URL says nothing.
        options: what was given beside the URL.
    """

    addresses: tuple[Address, ...]
    masked: str
    deadline: float | None
    max_connections: int | None
    options: Mapping[str, Any] = field(repr=False)
    _before: str = field(repr=False)
    _after: str = field(repr=False)

    def url_of(self, address: Address) -> str:
        """The URL of a node, with everything that the cluster's URL says. It may hold a password."""
        host, port = address
        return f"{self._before}{f'[{host}]' if ':' in host else host}:{port}{self._after}"

    def target_of(self, address: Address) -> Target:
        """How to get to a node."""
        return parse_url(self.url_of(address), self.options)


def parse_cluster_url(
    url: str,
    options: Mapping[str, Any] | None = None,
    *,
    parse: Callable[[str, Mapping[str, Any] | None], Target] = parse_url,
) -> Seeds:
    """What `url` says, and `options` beside it.

    Args:
        url: of the cluster.
        options: what might stand in the query as well, and objects, which could not.
        parse: reads the URL of a node.

    Raises:
        StoreMistake: it is not the URL of a cluster, or an option is wrong. The message never quotes what may hold a password.
    """
    match = _URL.fullmatch(url)
    if match is None:
        raise StoreMistake(
            "its path is not that of database 0, the only one of a cluster, or it has a '#' in it",
            "write redis+cluster://host:port,host:port, and percent-encode / ? # @ : and % in a password",
        )
    scheme, place, query = match[1].lower(), match[2], match[3] or ""
    if scheme not in SCHEMES:
        raise StoreMistake(
            "its scheme is none of a cluster", f"accepted are {', '.join(f'{name}://' for name in SCHEMES)}"
        )
    entry, at, hosts = place.rpartition("@")
    before = f"{SCHEMES[scheme]}://{entry}{at}"
    targets = [parse(f"{before}{_checked(host)}{query}", options) for host in hosts.split(",")]
    first = targets[0]
    if first.db != 0:
        raise StoreMistake("it names a database", "leave it out: a cluster has only one")
    shown = urlsplit(first.masked).netloc.rpartition("@")
    addresses = tuple((str(target.address["host"]), int(target.address["port"])) for target in targets)
    places = ",".join(urlsplit(target.masked).netloc.rpartition("@")[2] for target in targets)
    return Seeds(
        addresses=tuple(dict.fromkeys(addresses)),
        masked=f"{scheme}://{shown[0]}{shown[1]}{places}",
        deadline=first.deadline,
        max_connections=first.max_connections,
        options=options or {},
        _before=before,
        _after=query,
    )


def look_at_url(url: str, options: Mapping[str, Any]) -> None:
    """The same, to see what is wrong: see `failsoft.stores.redis.url`."""
    parse_cluster_url(url, options, parse=redis.look_at_url)


def _checked(host: str) -> str:
    if not host or _HOST.fullmatch(host) is None:
        raise StoreMistake(
            "one of its hosts is missing or malformed",
            "write redis+cluster://host:port,host:port, an IPv6 address in [brackets], and percent-encode a password",
        )
    return host
