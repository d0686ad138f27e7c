"""What may be said of a store beside where it is: in the query of its URL, or in a table with the URL in it.

The same names in both, and each once. All of them are read when settings are, so a mistake is told at start, with the name of
the option. Secrets are never quoted. What an option leads to, such as a file, is for those who open the store.
"""

import math
import re
from collections.abc import Callable, Mapping
from typing import Any

from failsoft.settings.problems import nearest
from failsoft.settings.urls import MAX_CONNECTIONS, StoreMistake
from failsoft.stores.redis.tls import MINIMA, VERIFY, TlsOptions

__all__ = [
    "COMMON",
    "DEADLINE",
    "MAX_CONNECTIONS",
    "SENTINEL",
    "TLS",
    "is_number",
    "parse_deadline",
    "parse_max_connections",
    "read_options",
    "take_tls",
    "wrong_option",
]

DEADLINE = (0.01, 5.0)
"""Least and most seconds of a call deadline. Requests can spare 0.05 to 0.25; the rest is for tests and slow links."""

COMMON = ("credentials", "db", "deadline", "max_connections")
"""What may be said of every store."""

TLS = ("tls_ca", "tls_certificate", "tls_key", "tls_key_password", "tls_minimum", "tls_server_name", "tls_verify")
"""What may be said where the scheme begins with ``rediss``."""

SENTINEL = ("sentinel_password", "sentinel_tls", "sentinel_username")
"""What may be said where the scheme ends with ``+sentinel``."""


def read_options(given: Mapping[str, Any], *, known: tuple[str, ...]) -> dict[str, Any]:
    """The options in `given`, in their normal form.

    Args:
        given: names and values; from a query, all text.
        known: the names that are accepted here.
    """
    options: dict[str, Any] = {}
    for name, value in given.items():
        if name not in known:
            if name in _READ:
                raise StoreMistake("does not go with its URL", _GOES_WITH[name], name)
            raise _unknown(name, known)
        options[name] = _READ[name](name, value)
    return options


def take_tls(options: dict[str, Any]) -> TlsOptions:
    """What `options` say about TLS; it is taken out of them."""
    said = {name.removeprefix("tls_"): options.pop(name) for name in TLS if name in options}
    if said.get("certificate") is None and (said.get("key") or said.get("key_password")):
        name = "tls_key" if said.get("key") else "tls_key_password"
        raise StoreMistake("is of no use without tls_certificate", "give both", name)
    return TlsOptions(**said)


def parse_deadline(value: Any) -> float:
    """Seconds of a call deadline."""
    return _deadline("deadline", value)


def parse_max_connections(value: Any) -> int:
    """How many connections one process may have."""
    return _max_connections("max_connections", value)


def is_number(text: Any) -> bool:
    """Whether `text` is a whole number of at most 9 digits: int() refuses thousands, and no server has so many of anything."""
    return isinstance(text, str) and text.isascii() and text.isdigit() and len(text) <= 9


def wrong_option(name: str, value: Any, accepted: str) -> StoreMistake:
    """What to raise for a value that is no secret."""
    return StoreMistake(f"is {value!r}", f"give {accepted}", name)


def _unknown(name: str, known: tuple[str, ...]) -> StoreMistake:
    cure = f"known for its URL are {', '.join(sorted(known))}"
    if _MEANS_TLS.fullmatch(name) and "tls_ca" not in known:
        return StoreMistake("is not known", f"TLS is in the scheme: write {_TLS_SCHEMES}", name)
    near = nearest(name, {*known, *(other for other, own in _CALLED_ELSEWHERE.items() if own in known)})
    if near is not None:
        cure = f"did you mean {_CALLED_ELSEWHERE.get(near, near)}? {cure[0].upper()}{cure[1:]}"
    # A piece of a password would have an '@' behind it, which was refused before.
    return StoreMistake("is not known", cure, name) if _NAME.fullmatch(name) else StoreMistake(_UNKNOWN, cure)


def _deadline(name: str, value: Any) -> float:
    least, most = DEADLINE
    try:
        seconds = float(value)
    except (TypeError, ValueError):
        seconds = math.nan
    if not least <= seconds <= most:
        raise wrong_option(name, value, f"seconds from {least:g} to {most:g}")
    return seconds


def _max_connections(name: str, value: Any) -> int:
    least, most = MAX_CONNECTIONS
    number = value if type(value) is int else int(value) if is_number(value) else -1
    if not least <= number <= most:
        raise wrong_option(name, value, f"a whole number from {least} to {most}")
    return number


def _db(name: str, value: Any) -> int:
    number = value if type(value) is int else int(value) if is_number(value) else -1
    if number < 0:
        raise wrong_option(name, value, "the number of a database, 0 or more")
    return number


def _flag(name: str, value: Any) -> bool:
    found = value if isinstance(value, bool) else {"true": True, "false": False}.get(str(value).lower())
    if found is None:
        raise wrong_option(name, value, "true or false")
    return found


def _path(name: str, value: Any) -> str:
    # Anything with a path in it, such as pathlib's.
    text = value.__fspath__() if hasattr(value, "__fspath__") else value
    if not isinstance(text, str) or not text:
        raise StoreMistake("is no path", "give that of a file in PEM", name)
    return text


def _text(name: str, value: Any) -> str:
    if not isinstance(value, str) or not value:
        raise StoreMistake("is empty or no text", "give text, or leave it out", name)
    return value


def _one_of(members: tuple[str, ...]) -> Callable[[str, Any], str]:
    def read(name: str, value: Any) -> str:
        if str(value) not in members:
            near = nearest(str(value), members) if str(value).isalpha() else None  # a version is like any other
            accepted = f"one of {', '.join(members)}"
            if near is not None:
                raise StoreMistake(f"is {value!r}", f"did you mean {near!r}? Give {accepted}", name)
            raise wrong_option(name, value, accepted)
        return str(value)

    return read


def _as_it_is(name: str, value: Any) -> Any:
    return value


_READ: Mapping[str, Callable[[str, Any], Any]] = {
    "credentials": _as_it_is,
    "db": _db,
    "deadline": _deadline,
    "max_connections": _max_connections,
    "sentinel_password": _text,
    "sentinel_tls": _flag,
    "sentinel_username": _text,
    "tls_ca": _path,
    "tls_certificate": _path,
    "tls_key": _path,
    "tls_key_password": _text,
    "tls_minimum": _one_of(MINIMA),
    "tls_server_name": _text,
    "tls_verify": _one_of(VERIFY),
}

_TLS_SCHEMES = "rediss://, rediss+sentinel:// or rediss+cluster://"

_MEANS_TLS = re.compile(r"(?:ssl|tls)(?:_[a-z_]{1,30})?", re.IGNORECASE)

_GOES_WITH: Mapping[str, str] = {
    **dict.fromkeys(COMMON, "leave it out"),
    **dict.fromkeys(TLS, f"it goes with {_TLS_SCHEMES}"),
    **dict.fromkeys(SENTINEL, "it goes with redis+sentinel:// and rediss+sentinel://"),
}

_UNKNOWN = "it has an option that is not known"

_NAME = re.compile(r"[a-z][a-z0-9_-]{0,39}", re.IGNORECASE)

_CALLED_ELSEWHERE: Mapping[str, str] = {
    "max_conn": "max_connections",
    "pool_size": "max_connections",
    "socket_connect_timeout": "deadline",
    "socket_timeout": "deadline",
    "ssl_ca_certs": "tls_ca",
    "ssl_cert_reqs": "tls_verify",
    "ssl_certfile": "tls_certificate",
    "ssl_keyfile": "tls_key",
    "ssl_min_version": "tls_minimum",
    "ssl_password": "tls_key_password",
    "timeout": "deadline",
}
"""What other clients call them."""
