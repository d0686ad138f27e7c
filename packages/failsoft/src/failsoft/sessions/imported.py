"""Sessions that another package left in the store, carried over so that switching to failsoft logs nobody out.

Theory of operation. A cookie that is none of ours, and has the form of the other package's, leads to that package's key. What is there
becomes the content of a new session of ours, with an id of its own; once that is stored, the old key lives on for a few seconds, for
requests that are under way with the old cookie (each of them makes a session with the same content; the browser keeps the last). Rules:

- Keys that the framework keeps for itself stay its own; who is logged in becomes the principal.
- Django's caches hold pickles, or what a serializer and a compressor of django-redis made: JSON, MessagePack, zlib, gzip. Pickles are
  read by an unpickler that resolves no name except those of a few value types, so what is in there can name no code. A pickle in
  Flask-Session's place is not read at all.
- What cannot be read, or cannot be stored by us, is left out with a warning that names the key, not the value.
"""

import io
import logging
import pickle
import re
import zlib
from collections.abc import Mapping, Sequence
from datetime import date, datetime, time, timedelta, timezone
from decimal import Decimal
from typing import Any, Final, NamedTuple
from uuid import UUID

import msgspec

from failsoft.exchange import Script, Table
from failsoft.settings import Settings

__all__ = ["Expire", "Fetch", "Importer", "importer_of"]

_log = logging.getLogger("failsoft.sessions")

_FETCH: Final = Script("sessions.fetch", "#!lua flags=allow-oom,no-writes\nreturn redis.call('GET', KEYS[1])")
_EXPIRE: Final = Script(
    "sessions.expire",
    """#!lua flags=allow-oom
local left = redis.call('PTTL', KEYS[1])
if left > tonumber(ARGV[1]) or left == -1 then redis.call('PEXPIRE', KEYS[1], ARGV[1]) end
return 1
""",
)

_MOST: Final = 1_048_576
"""Bytes of a session that is carried over."""

_PICKLED: Final = (b"\x80", b"(", b"}")
"""What a pickled dict begins with, by protocol; neither JSON nor MessagePack that is a session does."""

_COMPRESSED: Final = (b"\x78\x01", b"\x78\x5e", b"\x78\x9c", b"\x78\xda", b"\x1f\x8b")
"""What zlib and gzip begin with, at any level."""


class Fetch:
    """What lies under the other package's key: bytes, or None."""

    __slots__ = ("keys",)

    script = _FETCH
    arguments: Sequence[str] = ()

    def __init__(self, key: str) -> None:
        self.keys = (key,)

    def parse(self, reply: Any) -> bytes | None:
        """The bytes."""
        found: bytes | None = reply
        return found

    def apply(self, table: Table, now: float) -> bytes | None:
        """No other package writes into this process."""
        return None


class Expire:
    """Let a key live for so many milliseconds more, at most."""

    __slots__ = ("arguments", "keys")

    script = _EXPIRE

    def __init__(self, key: str, milliseconds: int) -> None:
        self.keys = (key,)
        self.arguments = (milliseconds,)

    def parse(self, reply: Any) -> bool:
        """Done."""
        return True

    def apply(self, table: Table, now: float) -> bool:
        """There is none in this process."""
        return True


class _Source(NamedTuple):
    """How one package keeps sessions."""

    namespace: str
    prefix: str
    user: str
    """The key under which it keeps the user's identifier."""
    pickled: bool


_SOURCES: Final[Mapping[str, _Source]] = {
    "flask-session": _Source("flask", "session:", "_user_id", pickled=False),
    "django-cache": _Source("django", ":1:django.contrib.sessions.cache", "_auth_user_id", pickled=True),
    "django-redis": _Source("django", ":1:django.contrib.sessions.cache", "_auth_user_id", pickled=True),
}

_IDENTIFIER: Final = re.compile(r"[A-Za-z0-9_-]{8,128}", re.ASCII).fullmatch


class Importer:
    """Reads the sessions of one other package.

    Args:
        source: the setting `session_import`.
        prefix: what its keys begin with, or None for what it writes by default.
    """

    __slots__ = ("_prefix", "_source")

    def __init__(self, source: str, prefix: str | None = None) -> None:
        self._source = _SOURCES[source]
        self._prefix = self._source.prefix if prefix is None else prefix

    @property
    def namespace(self) -> str:
        """The framework that its private keys belong to."""
        return self._source.namespace

    def key_of(self, cookie: str) -> str | None:
        """Where the session of a cookie lies, or None for a cookie that is none of that package's."""
        identifier = cookie.partition(".")[0]  # Flask-Session may have signed it; the store is what vouches for it
        return f"{self._prefix}{identifier}" if _IDENTIFIER(identifier) else None

    def read(self, data: bytes) -> dict[str, Any] | None:
        """What a session holds, or None where it cannot be read."""
        if len(data) > _MOST:
            return None
        try:
            found = _of_django(data) if self._source.pickled else _unpacked(data)
        except Exception as error:  # whatever an unpickler raises on bytes that are no pickle
            _log.warning(
                "a session of another package cannot be read (%s); its user has to log in again", type(error).__name__
            )
            return None
        if not isinstance(found, dict) or not all(isinstance(key, str) for key in found):
            return None
        return found

    @property
    def vouches(self) -> bool:
        """Whether what it says of the user holds by itself. In Django a hash of the password does, which only Django can check."""
        return not self._source.pickled

    def subject(self, values: Mapping[str, Any]) -> str | None:
        """Who is logged in there."""
        user = values.get(self._source.user)
        return None if user is None else str(user)


def importer_of(settings: Settings) -> Importer | None:
    """What the settings ask for."""
    if settings.session_import == "off":
        return None
    return Importer(settings.session_import, settings.session_import_prefix)


def _unpacked(data: bytes) -> Any:
    try:
        return msgspec.json.decode(data) if data[:1] == b"{" else msgspec.msgpack.decode(data)
    except (msgspec.DecodeError, ValueError, RecursionError) as error:
        raise ValueError(str(error)) from None


_VALUE_TYPES: Final = {
    ("datetime", "date"): date,
    ("datetime", "datetime"): datetime,
    ("datetime", "time"): time,
    ("datetime", "timedelta"): timedelta,
    ("datetime", "timezone"): timezone,
    ("decimal", "Decimal"): Decimal,
    ("uuid", "UUID"): UUID,
}


class _ValuesOnly(pickle.Unpickler):
    """Resolves no name but those of value types, whose construction does nothing else."""

    def find_class(self, module: str, name: str) -> Any:
        try:
            return _VALUE_TYPES[module, name]
        except KeyError:
            raise pickle.UnpicklingError(f"{module}.{name} is no plain value") from None

    def persistent_load(self, pid: Any) -> Any:
        raise pickle.UnpicklingError("a reference to something outside")


def _of_django(data: bytes) -> Any:
    if data.startswith(_COMPRESSED):
        inflate = zlib.decompressobj(wbits=47)  # either format
        data = inflate.decompress(data, _MOST)
        if inflate.unconsumed_tail or not inflate.eof:
            raise ValueError("incomplete, or longer than any session")
    return _unpacked(data) if data[:1] not in _PICKLED else _unpickled(data)


def _unpickled(data: bytes) -> Any:
    return _ValuesOnly(io.BytesIO(data)).load()
