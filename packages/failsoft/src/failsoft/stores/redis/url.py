"""Store URLs: what they may say, and what is said about a wrong one.

    redis://[user:password@]host[:port][/db][?option=value&...]
    rediss://...                                                 the same over TLS
    unix://[user:password@]/path/to/socket[?db=0&option=value...]
    redis+sentinel://[user:password@]host[:port][,host[:port]...]/service[/db][?option=value&...]
    rediss+sentinel://...                                        the same over TLS, to the sentinels as well

`look_at_url` looks at a URL when settings are read: it opens no file, and imports nothing of the user's. `parse_url` does both,
when the store is opened. A mistake is a `StoreMistake`. Its message names the part that is
wrong and never quotes what may hold a password: the most common mistake is a password that was not percent-encoded, and
then a piece of it stands where other parts are expected.
"""

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, NamedTuple
from urllib.parse import SplitResult, parse_qsl, quote, unquote, urlsplit

from failsoft.settings.urls import StoreMistake
from failsoft.stores.redis.credentials import Credentials, read_credentials
from failsoft.stores.redis.options import (
    COMMON,
    DEADLINE,
    MAX_CONNECTIONS,
    SENTINEL,
    TLS,
    is_number,
    parse_deadline,
    parse_max_connections,
    read_options,
    take_tls,
)
from failsoft.stores.redis.tls import Tls, TlsOptions, tls_of

__all__ = [
    "DEADLINE",
    "MAX_CONNECTIONS",
    "Sentinels",
    "Target",
    "look_at_url",
    "parse_deadline",
    "parse_max_connections",
    "parse_url",
]

_SCHEME = re.compile(r"([A-Za-z][A-Za-z0-9+.-]*)://")
_HOST = re.compile(r"(?:\[([0-9A-Fa-f:.%]+)\]|([^:\[\]]*))(?::([0-9]{1,9}))?")
_ENCODE = "A password with one of / ? # @ : % in it must be percent-encoded: urllib.parse.quote(password, safe='')"


@dataclass(frozen=True, slots=True)
class Sentinels:
    """Who knows where the primary is.

    Attributes:
        addresses: host and port of each.
        service: what they call the primary.
        username: ACL user on the sentinels, or None.
        password: on the sentinels, or None.
        tls: or None where they speak without.
    """

    addresses: tuple[tuple[str, int], ...]
    service: str
    username: str | None = None
    password: str | None = field(default=None, repr=False)
    tls: Tls | None = None


@dataclass(frozen=True, slots=True)
class Target:
    """Where a store is and how to get in.

    Attributes:
        kind: the transport, a key of `failsoft.stores.redis.wire.CONNECTIONS`.
        address: what that transport needs to find the server; with sentinels, what it needs beside host and port.
        masked: the URL with the password masked.
        db: number of the database.
        username: ACL user, or None for the default user.
        password: or None.
        deadline: seconds, or None where the URL says nothing.
        max_connections: or None where the URL says nothing.
        credentials: or None.
        sentinels: or None where the address is known.
    """

    kind: str
    address: Mapping[str, Any]
    masked: str
    db: int = 0
    username: str | None = None
    password: str | None = field(default=None, repr=False)
    deadline: float | None = None
    max_connections: int | None = None
    credentials: Credentials | None = None
    sentinels: Sentinels | None = None

    def hide(self, text: str) -> str:
        """`text` as it may be shown: a server that does not know AUTH quotes what it was given."""
        text = text.partition(", with args beginning with")[0]
        for secret in (self.password, self.sentinels and self.sentinels.password):
            text = text.replace(secret, "***") if secret else text
        return text if self.credentials is None else self.credentials.hide(text)


def parse_url(url: str, options: Mapping[str, Any] | None = None) -> Target:
    """What `url` says, and `options` beside it.

    Args:
        url: of the store.
        options: what might stand in the query as well, and objects, which could not.

    Raises:
        StoreMistake: it is not a URL of a kind that is known here, or an option is wrong.
    """
    return _parse(url, options or {}, _Opened(tls_of, lambda provider: read_credentials("credentials", provider)))


def look_at_url(url: str, options: Mapping[str, Any] | None = None) -> Target:
    """The same, with what was said of TLS and credentials as it was said: fit for nothing but to see that nothing else is wrong."""
    return _parse(url, options or {}, _Opened(lambda said: said, lambda provider: provider))


class _Opened(NamedTuple):
    """What becomes of what lies outside of URLs."""

    tls: Callable[[TlsOptions], Any]
    credentials: Callable[[Any], Any]


def _parse(url: str, beside: Mapping[str, Any], opened: _Opened) -> Target:
    if not isinstance(url, str):
        raise StoreMistake(f"it is of type {type(url).__name__}", "give a string")
    if any(character.isspace() or not character.isprintable() for character in url):
        raise StoreMistake("it has white space or a control character in it", "remove that, or percent-encode it")
    scheme = _SCHEME.match(url)
    if scheme is None:
        raise StoreMistake("it has no scheme", f"accepted are {_accepted()}")
    kind = scheme[1].lower()
    if kind not in _KINDS:
        raise StoreMistake(f"its scheme is {scheme[1]!r}", f"accepted are {_accepted()}")
    try:
        parts = urlsplit(url)
    except ValueError:  # its text may quote the password
        raise StoreMistake("its host is malformed", f"put an IPv6 address in [brackets]. {_ENCODE}") from None
    if parts.fragment or url.endswith("#"):
        raise StoreMistake("it has a '#' in it", _ENCODE)
    parse, known = _KINDS[kind]
    options = _options(parts, beside, known)
    if "credentials" in options:
        options["credentials"] = opened.credentials(options["credentials"])
    return parse(parts, options, opened)


def _tcp(parts: SplitResult, options: dict[str, Any], opened: _Opened) -> Target:
    host, port = _address(parts.netloc.rpartition("@")[2], 6379)
    _take_db(parts.path.removeprefix("/"), options)
    shown = f"{_authority(host, port)}/{options.get('db', 0)}"
    if parts.scheme == "redis":
        return _target(parts, options, kind="tcp", address={"host": host, "port": port}, shown=shown)
    tls = opened.tls(take_tls(options))
    return _target(parts, options, kind="tls", address={"host": host, "port": port, "tls": tls}, shown=shown)


def _unix(parts: SplitResult, options: dict[str, Any], opened: _Opened) -> Target:
    if parts.hostname or parts.netloc.rpartition("@")[2]:
        raise StoreMistake("it has a host", f"write unix:///path/to/socket, with three slashes. {_ENCODE}")
    path = unquote(parts.path)
    if path in ("", "/"):
        raise StoreMistake("it has no path", "write unix:///path/to/socket")
    shown = f"{quote(path)}?db={options.get('db', 0)}"
    return _target(parts, options, kind="unix", address={"path": path}, shown=shown)


def _sentinel(parts: SplitResult, options: dict[str, Any], opened: _Opened) -> Target:
    addresses = tuple(_address(one, 26379) for one in parts.netloc.rpartition("@")[2].split(","))
    service, _, db = parts.path.removeprefix("/").partition("/")
    if not service:
        raise StoreMistake("it has no name of a service", "write redis+sentinel://host:port,host:port/service/db")
    _take_db(db, options)
    encrypted = parts.scheme.startswith("rediss")
    tls = opened.tls(take_tls(options)) if encrypted else None
    to_sentinels = options.pop("sentinel_tls", encrypted)
    if to_sentinels and not encrypted:
        raise StoreMistake("it asks for TLS to the sentinels alone", "write rediss+sentinel:// for TLS to all")
    sentinels = Sentinels(
        addresses=addresses,
        service=unquote(service),
        username=options.pop("sentinel_username", None),
        password=options.pop("sentinel_password", None),
        tls=tls if to_sentinels else None,
    )
    shown = f"{','.join(_authority(*one) for one in addresses)}/{service}/{options.get('db', 0)}"
    address = {} if tls is None else {"tls": tls}
    kind = "tcp" if tls is None else "tls"
    return _target(parts, options, kind=kind, address=address, shown=shown, sentinels=sentinels)


_KINDS: dict[str, tuple[Callable[[SplitResult, dict[str, Any], _Opened], Target], tuple[str, ...]]] = {
    "redis": (_tcp, COMMON),
    "rediss": (_tcp, COMMON + TLS),
    "unix": (_unix, COMMON),
    "redis+sentinel": (_sentinel, COMMON + SENTINEL),
    "rediss+sentinel": (_sentinel, COMMON + SENTINEL + TLS),
}


def _target(parts: SplitResult, options: dict[str, Any], *, shown: str, **where: Any) -> Target:
    username = unquote(parts.username) if parts.username else None
    password = unquote(parts.password) if parts.password else None
    if options.get("credentials") is not None and (username or password):
        raise StoreMistake("it has a user or a password, and there is a credentials provider", "give one of both")
    user = f"{quote(username or '', safe='')}{':***' if password else ''}@" if username or password else ""
    masked = f"{parts.scheme}://{user}{shown}"
    return Target(masked=masked, username=username, password=password, **where, **options)


def _address(text: str, default: int) -> tuple[str, int]:
    """Host and port of one of those that a URL names."""
    found = _HOST.fullmatch(text)
    if found is None:
        raise StoreMistake("its port is not a number from 1 to 65535", _ENCODE)
    host = (found[1] or found[2]).lower()
    port = int(found[3]) if found[3] else default
    if not host:
        raise StoreMistake("it has no host", f"write redis://host:port/db. {_ENCODE}")
    if not 0 < port < 65536:
        raise StoreMistake("its port is not a number from 1 to 65535", _ENCODE)
    return host, port


def _authority(host: str, port: int) -> str:
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


def _take_db(text: str, options: dict[str, Any]) -> None:
    """Have the number of a database that stands in the path."""
    if text and "db" in options:
        raise StoreMistake("it names the database twice", "write it as a path or as db=, not both")
    if text:
        if not is_number(text):
            raise StoreMistake("its path is not the number of a database", f"write redis://host:port/0. {_ENCODE}")
        options["db"] = int(text)


def _options(parts: SplitResult, beside: Mapping[str, Any], known: tuple[str, ...]) -> dict[str, Any]:
    """The options of the query, and those beside the URL."""
    if "@" in parts.path or "@" in parts.query:
        raise StoreMistake("it has an '@' after the host", _ENCODE)
    try:
        pairs = parse_qsl(parts.query, keep_blank_values=True, strict_parsing=bool(parts.query))
    except ValueError:  # its text quotes the query
        raise StoreMistake("its query is malformed", f"write ?option=value&option=value. {_ENCODE}") from None
    found: dict[str, Any] = {}
    for name, value in pairs:
        if name in found:
            twice = name if name in known else "an option"
            raise StoreMistake(f"it has {twice} twice", "give it once")
        found[name] = value
    for name in beside:
        if name in found:
            raise StoreMistake(f"it has {name}, which is given beside it as well", "give it once")
    return {**read_options(found, known=known), **read_options(beside, known=known)}


def _accepted() -> str:
    return ", ".join(f"{name}://" for name in _KINDS)
