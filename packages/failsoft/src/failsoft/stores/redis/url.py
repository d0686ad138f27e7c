"""Store URLs: what they may say, and what is said about a wrong one.

    redis://[user:password@]host[:port][/db][?option=value&...]
    unix://[user:password@]/path/to/socket[?db=0&option=value...]

A URL is read when settings are, so a mistake is a `ConfigurationError` at start. Its message names the part that is
wrong and never quotes what may hold a password: the most common mistake is a password that was not percent-encoded, and
then a piece of it stands where other parts are expected.
"""

import math
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import SplitResult, parse_qsl, quote, unquote, urlsplit

from failsoft.errors import ConfigurationError

__all__ = ["DEADLINE", "MAX_CONNECTIONS", "Target", "parse_deadline", "parse_max_connections", "parse_url"]

DEADLINE = (0.01, 5.0)
"""Least and most seconds of a call deadline. Requests can spare 0.05 to 0.25; the rest is for tests and slow links."""

MAX_CONNECTIONS = (1, 10_000)
"""Least and most connections of one process; more than a server's own limit helps nobody."""

_SCHEME = re.compile(r"([A-Za-z][A-Za-z0-9+.-]*)://")
_ENCODE = "A password with one of / ? # @ : % in it must be percent-encoded: urllib.parse.quote(password, safe='')"


@dataclass(frozen=True, slots=True)
class Target:
    """Where a store is and how to get in.

    Attributes:
        kind: the transport, a key of `failsoft.stores.redis.wire.CONNECTIONS`.
        address: what that transport needs to find the server.
        masked: the URL with the password masked.
        db: number of the database.
        username: ACL user, or None for the default user.
        password: or None.
        deadline: seconds, or None where the URL says nothing.
        max_connections: or None where the URL says nothing.
    """

    kind: str
    address: Mapping[str, Any]
    masked: str
    db: int = 0
    username: str | None = None
    password: str | None = field(default=None, repr=False)
    deadline: float | None = None
    max_connections: int | None = None


def parse_url(url: str) -> Target:
    """What `url` says.

    Raises:
        ConfigurationError: it is not a URL of a kind that is known here.
    """
    if not isinstance(url, str):
        raise _wrong(f"it is of type {type(url).__name__}", "give a string")
    if any(character.isspace() or not character.isprintable() for character in url):
        raise _wrong("it has white space or a control character in it", "remove that, or percent-encode it")
    scheme = _SCHEME.match(url)
    if scheme is None:
        raise _wrong("it has no scheme", f"accepted are {_accepted()}")
    parse = _KINDS.get(scheme[1].lower())
    if parse is None:
        raise _wrong(f"its scheme is {scheme[1]!r}", f"accepted are {_accepted()}")
    try:
        parts = urlsplit(url)
    except ValueError:  # its text may quote the password
        raise _wrong("its host is malformed", f"put an IPv6 address in [brackets]. {_ENCODE}") from None
    if parts.fragment or url.endswith("#"):
        raise _wrong("it has a '#' in it", _ENCODE)
    return parse(parts)


def parse_deadline(value: Any) -> float:
    """Seconds of a call deadline."""
    least, most = DEADLINE
    try:
        seconds = float(value)
    except (TypeError, ValueError):
        seconds = math.nan
    if not least <= seconds <= most:
        raise _wrong_option("deadline", value, f"seconds from {least:g} to {most:g}")
    return seconds


def parse_max_connections(value: Any) -> int:
    """How many connections one process may have."""
    least, most = MAX_CONNECTIONS
    number = value if type(value) is int else int(value) if _is_number(value) else -1
    if not least <= number <= most:
        raise _wrong_option("max_connections", value, f"a whole number from {least} to {most}")
    return number


def _tcp(parts: SplitResult) -> Target:
    username, password = _credentials(parts)
    host = parts.hostname
    if not host:
        raise _wrong("it has no host", f"write redis://host:port/db. {_ENCODE}")
    try:
        port = parts.port
    except ValueError:  # its text quotes what stands there
        port = 0
    if port == 0:
        raise _wrong("its port is not a number from 1 to 65535", _ENCODE)
    options = _options(parts)
    path = parts.path.removeprefix("/")
    if path and "db" in options:
        raise _wrong("it names the database twice", "write it as a path or as db=, not both")
    if path:
        if not _is_number(path):
            raise _wrong("its path is not the number of a database", f"write redis://host:port/0. {_ENCODE}")
        options["db"] = int(path)
    shown = f"[{host}]" if ":" in host else host
    masked = f"{parts.scheme}://{_masked(username, password)}{shown}:{port or 6379}/{options.get('db', 0)}"
    return Target(
        kind="tcp",
        address={"host": host, "port": port or 6379},
        masked=masked,
        username=username,
        password=password,
        **options,
    )


def _unix(parts: SplitResult) -> Target:
    username, password = _credentials(parts)
    if parts.hostname or parts.netloc.rpartition("@")[2]:
        raise _wrong("it has a host", f"write unix:///path/to/socket, with three slashes. {_ENCODE}")
    path = unquote(parts.path)
    if path in ("", "/"):
        raise _wrong("it has no path", "write unix:///path/to/socket")
    options = _options(parts)
    masked = f"unix://{_masked(username, password)}{quote(path)}?db={options.get('db', 0)}"
    return Target(kind="unix", address={"path": path}, masked=masked, username=username, password=password, **options)


_KINDS: dict[str, Callable[[SplitResult], Target]] = {"redis": _tcp, "unix": _unix}


def _credentials(parts: SplitResult) -> tuple[str | None, str | None]:
    return (
        unquote(parts.username) if parts.username else None,
        unquote(parts.password) if parts.password else None,
    )


def _masked(username: str | None, password: str | None) -> str:
    if not username and not password:
        return ""
    return f"{quote(username or '', safe='')}{':***' if password else ''}@"


def _options(parts: SplitResult) -> dict[str, Any]:
    """The options of the query."""
    if "@" in parts.path or "@" in parts.query:
        raise _wrong("it has an '@' after the host", _ENCODE)
    try:
        pairs = parse_qsl(parts.query, keep_blank_values=True, strict_parsing=bool(parts.query))
    except ValueError:  # its text quotes the query
        raise _wrong("its query is malformed", f"write ?option=value&option=value. {_ENCODE}") from None
    options: dict[str, Any] = {}
    for name, value in pairs:
        if name not in _OPTIONS:
            # The name is not quoted either: in `redis://:se?cret@host` it is a piece of the password.
            raise _wrong("its query has an unknown option", f"known are {', '.join(sorted(_OPTIONS))}. {_ENCODE}")
        if name in options:
            raise _wrong(f"it has {name} twice", "give it once")
        options[name] = _OPTIONS[name](value)
    return options


def _db(value: str) -> int:
    if not _is_number(value):
        raise _wrong_option("db", value, "the number of a database, 0 or more")
    return int(value)


_OPTIONS: dict[str, Callable[[str], Any]] = {
    "db": _db,
    "deadline": parse_deadline,
    "max_connections": parse_max_connections,
}


def _is_number(text: Any) -> bool:
    # At most 9 digits: int() refuses thousands of them, and no server has so many of anything.
    return isinstance(text, str) and text.isascii() and text.isdigit() and len(text) <= 9


def _accepted() -> str:
    return ", ".join(f"{name}://" for name in _KINDS)


def _wrong(cause: str, cure: str) -> ConfigurationError:
    return ConfigurationError(f"The URL of a store is wrong: {cause}. {cure[0].upper()}{cure[1:]}.")


def _wrong_option(name: str, value: Any, accepted: str) -> ConfigurationError:
    return ConfigurationError(f"The option {name} of a store is {value!r}; give {accepted}.")
