"""URLs of storages that only `limits` knows.

    memcached://host[:port][?deadline=0.1&max_connections=64]
    mongodb://[user:password@]host[:port][,host[:port]...][/database][?option=value&...]
    mongodb+srv://[user:password@]host[/database][?option=value&...]

`deadline` and `max_connections` are ours; what else the query of a MongoDB URL says is for its driver.

One memcached, not several: the clients for threads and for event loops would look for a key on different ones, and what
they do while one of several is dead is not to be relied on.
"""

import math
import re
from collections.abc import Mapping
from importlib import import_module
from typing import Any, NamedTuple
from urllib.parse import parse_qsl, unquote, urlencode

from failsoft.settings.urls import MAX_CONNECTIONS, StoreMistake

__all__ = ["SCHEMES", "Place", "parse_deadline", "parse_max_connections", "parse_storage_url"]

SCHEMES = ("memcached", "mongodb", "mongodb+srv")

_URL = re.compile(r"(memcached|mongodb|mongodb\+srv)://([^/?#]*)(?:/([^/?#]*))?(?:\?([^?#]*))?", re.IGNORECASE)
_HOST = re.compile(r"(\[[0-9A-Fa-f:.]+\]|[^:\[\]@%\s]+)(?::([0-9]{1,5}))?")
_ENCODE = "In a user name or password write @ as %40, : as %3A, / as %2F, ? as %3F and # as %23"
_DATABASE = "failsoft"


class Place(NamedTuple):
    """Where a storage is.

    Attributes:
        kind: ``memcached`` or ``mongodb``.
        url: for `limits`; it may hold a password.
        masked: the same as it may be shown, without options.
        database: of MongoDB.
        deadline: seconds, or None where the URL says nothing.
        max_connections: or None where the URL says nothing.
    """

    kind: str
    url: str
    masked: str
    database: str
    deadline: float | None
    max_connections: int | None

    def __repr__(self) -> str:
        return f"Place({self.masked!r})"


def parse_storage_url(url: str, options: Mapping[str, Any] | None = None) -> Place:
    """What `url` says, and `options` beside it.

    Raises:
        StoreMistake: it is not one of a storage, or an option is wrong. The message never quotes what may hold a password.
    """
    match = _URL.fullmatch(url) if url.isprintable() and " " not in url else None
    if match is None:
        raise StoreMistake("its parts cannot be told apart", _ENCODE)
    scheme, place, database, query = match[1].lower(), match[2], match[3] or "", match[4] or ""
    entry, at, hosts = place.rpartition("@")
    ours, others = _options(query, options or {})
    if scheme == "memcached":
        if at:
            raise StoreMistake("it has a user or a password", "leave them out: its client for threads cannot log in")
        if database or others:
            raise StoreMistake(
                "it has a path or an option that memcached knows nothing of", "write memcached://host:port"
            )
        if "," in hosts:
            raise StoreMistake(
                "it names several servers", "limits are counted on one memcached: write memcached://host:port"
            )
        clean = masked = f"memcached://{_host(hosts, 11211)}"
    else:
        if "@" in entry or entry.count(":") > 1 or "@" in database + query:
            raise StoreMistake("its parts cannot be told apart", _ENCODE)
        names = ",".join(_host(host, None if scheme == "mongodb+srv" else 27017) for host in hosts.split(","))
        rest = f"?{urlencode(others)}" if others else ""
        clean = f"{scheme}://{entry}{at}{names}/{database}{rest}"
        user, colon, _ = entry.partition(":")
        masked = f"{scheme}://{user}{':***' if colon else ''}{at}{names}/{database}"
        _check_mongo(scheme, clean)
    return Place(
        kind="memcached" if scheme == "memcached" else "mongodb",
        url=clean,
        masked=masked,
        database=unquote(database) or _DATABASE,
        deadline=parse_deadline(ours["deadline"]) if "deadline" in ours else None,
        max_connections=parse_max_connections(ours["max_connections"]) if "max_connections" in ours else None,
    )


def parse_deadline(value: Any) -> float:
    """Seconds of a call deadline, 0.01 to 5."""
    try:
        seconds = float(value)
    except (TypeError, ValueError):
        seconds = math.nan
    if not 0.01 <= seconds <= 5:
        raise StoreMistake(f"is {value!r}", "give seconds from 0.01 to 5", "deadline")
    return seconds


def parse_max_connections(value: Any) -> int:
    """How many connections one process may have."""
    least, most = MAX_CONNECTIONS
    text = str(value)
    number = int(text) if text.isascii() and text.isdigit() and len(text) <= 5 else 0
    if not least <= number <= most:
        raise StoreMistake(f"is {value!r}", f"give a whole number from {least} to {most}", "max_connections")
    return number


def _options(query: str, beside: Mapping[str, Any]) -> tuple[dict[str, Any], list[tuple[str, Any]]]:
    """Ours, and the others."""
    try:
        pairs: list[tuple[str, Any]] = [*parse_qsl(query, keep_blank_values=True, strict_parsing=bool(query))]
    except ValueError:  # its text quotes the query
        raise StoreMistake("its query is malformed", f"write ?option=value&option=value. {_ENCODE}") from None
    pairs += beside.items()
    ours = [pair for pair in pairs if pair[0] in ("deadline", "max_connections")]
    if len(dict(ours)) != len(ours):
        raise StoreMistake("it has an option twice", "give it once")
    return dict(ours), [pair for pair in pairs if pair not in ours]


def _host(text: str, port: int | None) -> str:
    match = _HOST.fullmatch(text)
    if match is None or (match[2] and not 0 < int(match[2]) < 65536):
        raise StoreMistake("one of its hosts is missing or malformed", f"write host:port,host:port. {_ENCODE}")
    if port is None and not match[2]:
        return match[1]
    return f"{match[1]}:{match[2] or port}"


def _check_mongo(scheme: str, url: str) -> None:
    """Have the driver read the URL, if that takes no question to anybody."""
    if scheme == "mongodb+srv":
        return
    try:
        parser = import_module("pymongo.uri_parser")
    except ImportError:  # what is missing is said elsewhere
        return
    try:
        parser.parse_uri(url, validate=True, warn=False)
    except Exception as error:  # its text may quote the password
        raise StoreMistake(
            f"MongoDB's driver does not accept it ({type(error).__name__})", "see its documentation"
        ) from None
