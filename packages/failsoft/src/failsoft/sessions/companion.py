"""The companion cookie, the logout ticket, and the seal of a remember cookie: what a browser keeps for us.

Theory of operation. Beside the session's cookie the browser is given a second one, sealed, with what must be known of the session before
the store was asked: whose it is, and how far it had come when we last saw it. On demand it also carries a snapshot of the
values, from which a request can be answered while the store is away. A ticket says that somebody has logged out and the store does not
know yet. The seal of a remember cookie names the sessions that must not have been ended if that is to log anybody in. Rules:

- A companion is bound to its session (by `bound`: what the caller derives from the session's id). Put beside another session's cookie
  it is nothing.
- None of the three can stand in for another, even when one ring seals both.
- Whatever cannot be read is None. A browser can send any bytes, also some that it was sent long ago: how old a companion may be
  is its reader's question, and `issued` and `deadline` are there to answer it.
- Values are carried as they are stored, so that nothing is encoded twice.

In a cookie it is MessagePack, sealed, in URL-safe Base64 without padding. The version of its shape is among what the seal is bound to, so
that a release that changes the shape reads nothing of another's.
"""

import logging
from base64 import urlsafe_b64encode
from binascii import a2b_base64
from collections.abc import Callable
from threading import Lock
from typing import Any, Final, NamedTuple, TypeVar

import msgspec

from failsoft.sessions.seal import KeyRing

__all__ = [
    "MAX_SIZE",
    "SEAL_RENEWED",
    "SEAL_TRUSTED",
    "Companion",
    "Companions",
    "Ended",
    "RememberSeals",
    "Remembered",
    "Ticket",
    "Tickets",
    "fits",
]

_log = logging.getLogger("failsoft.sessions")

MAX_SIZE = 4000
"""Bytes of a cookie's value. Browsers refuse a cookie of more than 4096 with its name (rfc6265bis, section 5.6)."""

SEAL_RENEWED: Final = 86_400.0
"""Seconds after which a companion is made anew, if its session is read."""

SEAL_TRUSTED: Final = 2 * SEAL_RENEWED
"""Seconds for which a companion says, without asking the store, whose limits a request uses up."""

_COMPANION = b"companion 1\0"
_TICKET = b"ticket 2\0"
_REMEMBER = b"remember 2\0"
"""Before what a seal is bound to: what it is, and the version of its shape."""

_STANDARD = bytes.maketrans(b"-_+/=", b"+/!!!")
"""From the URL-safe alphabet to the one that is decoded, of which only the letters and digits are the same."""


class Companion(msgspec.Struct, frozen=True, kw_only=True, array_like=True, forbid_unknown_fields=True):
    """What is known of a session without its store.

    Attributes:
        subject: whose session it is; None where nobody is logged in.
        generation: the subject's generation when this was written; sessions of an earlier one are void.
        auth_time: when the subject proved who they are, seconds since the epoch.
        version: the record's version when this was written.
        issued: when this was written, seconds since the epoch.
        deadline: when the session ends whatever happens, seconds since the epoch.
        values: the snapshot: encoded values by the names of their stored fields; None where none was taken.
        revoked: whether the browser was told that the session was revoked: a store that has it alive again has lost that.
    """

    subject: str | None
    generation: int
    auth_time: float
    version: int
    issued: float
    deadline: float
    values: dict[str, bytes] | None
    revoked: bool = False

    def __repr__(self) -> str:
        values = "no snapshot" if self.values is None else f"{len(self.values)} values"
        return f"<Companion generation={self.generation} version={self.version} {values}>"


class Ended(NamedTuple):
    """A session that was logged out of.

    Attributes:
        handle: its; "" where no session ended, and only the seal of a remember cookie is to be deleted.
        digest: of the secret that was given. A handle is no secret: without this, anybody could have a ticket made for any. "" where the
            store has said that it is the right one, or a seal of ours has named the session.
        subject: whose it was; None where nobody was logged in, or nobody knows.
    """

    handle: str
    digest: str
    subject: str | None


class Ticket(msgspec.Struct, frozen=True, kw_only=True, array_like=True, forbid_unknown_fields=True):
    """Logouts that the store has not been told of.

    Attributes:
        ended: the sessions, the last one first; with each those that the seal of a remember cookie named.
        issued: when the last logout was, seconds since the epoch.
    """

    ended: tuple[Ended, ...]
    issued: float

    def __repr__(self) -> str:
        return f"<Ticket issued={self.issued}>"


class Remembered(msgspec.Struct, frozen=True, kw_only=True, array_like=True, forbid_unknown_fields=True):
    """What a remember cookie was given with.

    Attributes:
        subject: whom it logs in.
        first: the handle of the session of the login that asked to be remembered.
        newest: the handle of the session of the last login that the cookie made; that of the first where it made none.
    """

    subject: str
    first: str
    newest: str

    def __repr__(self) -> str:
        return f"<Remembered first={self.first!r} newest={self.newest!r}>"


class Companions:
    """Packs companions into cookies and reads them. Safe to share between threads.

    Args:
        ring: the keys that seal them.
    """

    __slots__ = ("_ring", "_unsaid")

    def __init__(self, ring: KeyRing) -> None:
        self._ring = ring
        self._unsaid = Lock()  # taken by whoever says it, and not given back

    def pack(self, companion: Companion, bound: bytes) -> str:
        """The cookie's value. It may be too long for a browser: see `fits`.

        Args:
            companion: what to write.
            bound: the session that it is for; must be given again to read it.
        """
        return _pack(self._ring, companion, _COMPANION + bound)

    def unpack(self, value: str, bound: bytes) -> Companion | None:
        """What a cookie's value says, or None where it is malformed, not ours, or another session's.

        The first one in a process that another secret has sealed is told of in the log: processes with different secrets look well, and
        none believes what the others sealed. Once, because a browser can send as many as it likes.
        """
        found = _unpack(self._ring, value, _COMPANION + bound, _read_companion)
        if found is None and not self._unsaid.locked():
            sealed = _decoded(value)
            if sealed is not None and self._ring.is_strange(sealed) and self._unsaid.acquire(blocking=False):
                _log.warning(
                    "a session's seal cookie was not made with secret or one of secret_fallbacks, so it is not believed: give all "
                    "processes the same secret and prefix, and keep a secret that was replaced in secret_fallbacks. It may as well be "
                    "an old cookie or a forged one; this is said once in a process"
                )
        return found


class Tickets:
    """Packs logout tickets into cookies and reads them. Safe to share between threads.

    Args:
        ring: the keys that seal them.
    """

    __slots__ = ("_ring",)

    def __init__(self, ring: KeyRing) -> None:
        self._ring = ring

    def pack(self, ticket: Ticket) -> str:
        """The cookie's value."""
        return _pack(self._ring, ticket, _TICKET)

    def unpack(self, value: str) -> Ticket | None:
        """What a cookie's value says, or None where it is malformed or not ours."""
        return _unpack(self._ring, value, _TICKET, _read_ticket)


class RememberSeals:
    """Packs what remember cookies were given with into cookies and reads them. Safe to share between threads.

    Args:
        ring: the keys that seal them.
    """

    __slots__ = ("_ring",)

    def __init__(self, ring: KeyRing) -> None:
        self._ring = ring

    def pack(self, remembered: Remembered) -> str:
        """The cookie's value."""
        return _pack(self._ring, remembered, _REMEMBER)

    def unpack(self, value: str) -> Remembered | None:
        """What a cookie's value says, or None where it is malformed or not ours."""
        return _unpack(self._ring, value, _REMEMBER, _read_remembered)


def fits(value: str) -> bool:
    """Whether browsers keep a cookie of this value, under a name that `CookieStyle` allows. A longer one is dropped without a word."""
    return len(value) <= MAX_SIZE


_write = msgspec.msgpack.Encoder().encode
_read_companion = msgspec.msgpack.Decoder(Companion).decode
_read_ticket = msgspec.msgpack.Decoder(Ticket).decode
_read_remembered = msgspec.msgpack.Decoder(Remembered).decode

_Shape = TypeVar("_Shape")


def _pack(ring: KeyRing, content: Any, bound: bytes) -> str:
    return urlsafe_b64encode(ring.seal(_write(content), bound)).rstrip(b"=").decode()


def _unpack(ring: KeyRing, value: str, bound: bytes, read: Callable[[bytes], _Shape]) -> _Shape | None:
    sealed = _decoded(value)
    plain = None if sealed is None else ring.unseal(sealed, bound)
    if plain is None:
        return None
    try:
        return read(plain)
    except (msgspec.DecodeError, ValueError, RecursionError):  # whoever has the keys can seal anything
        return None


def _decoded(value: str) -> bytes | None:
    if len(value) > MAX_SIZE:
        return None
    try:
        text = value.encode("ascii").translate(_STANDARD)
        return a2b_base64(text + b"=" * (-len(text) % 4), strict_mode=True)
    except ValueError:
        return None
