"""Session ids: what the cookie holds, and what of it the store may know.

An id is a *handle* followed by a *secret*, both drawn at random. The handle names the record and stays the same for the life of the
session; people may see it in lists, because it opens nothing. The secret opens the record; the store holds only its digest, so
that a dump of the store is no login. Rotating a session gives it another secret. Both versions of a rotation lie in one record, and so
in one slot of a cluster: that is why the handle does not change.

An id that a client made up is never adopted: nothing is stored under it.
"""

import re
from base64 import urlsafe_b64encode
from collections.abc import Callable
from hashlib import blake2b
from typing import Final

__all__ = ["HANDLE_LENGTH", "SECRET_LENGTH", "SessionId", "digest_of", "is_handle"]

HANDLE_LENGTH: Final = 16
"""Characters, 96 bits."""

SECRET_LENGTH: Final = 43
"""Characters, 256 bits. OWASP asks for 64 at least."""

_WELL_FORMED = re.compile(rf"[A-Za-z0-9_-]{{{HANDLE_LENGTH + SECRET_LENGTH}}}", re.ASCII).fullmatch
_HANDLE = re.compile(rf"[A-Za-z0-9_-]{{{HANDLE_LENGTH}}}", re.ASCII).fullmatch


def is_handle(text: str) -> bool:
    """Whether `text` has the form of a handle."""
    return _HANDLE(text) is not None


def digest_of(secret: str) -> str:
    """What the store holds of a secret. Not keyed and not slow: nobody can try 2^256 of them."""
    return blake2b(secret.encode(), digest_size=24).hexdigest()


def _text(data: bytes) -> str:
    return urlsafe_b64encode(data).decode().rstrip("=")


class SessionId:
    """One id.

    Attributes:
        handle: names the record.
        secret: opens it.
        digest: of the secret.
    """

    __slots__ = ("digest", "handle", "secret")

    def __init__(self, handle: str, secret: str) -> None:
        self.handle = handle
        self.secret = secret
        self.digest = digest_of(secret)

    @classmethod
    def new(cls, random: Callable[[int], bytes]) -> "SessionId":
        """An id that nobody has.

        Args:
            random: gives so many bytes that nobody can foresee.
        """
        handle = _text(random(12))
        # On a command line, what begins with a hyphen is an option.
        return cls("A" + handle[1:] if handle[0] == "-" else handle, _text(random(32)))

    @classmethod
    def parse(cls, text: str) -> "SessionId | None":
        """The id that `text` is, or None if it has not even the form of one."""
        return cls(text[:HANDLE_LENGTH], text[HANDLE_LENGTH:]) if _WELL_FORMED(text) else None

    def rotated(self, random: Callable[[int], bytes]) -> "SessionId":
        """The same session under another secret."""
        return SessionId(self.handle, _text(random(32)))

    def __str__(self) -> str:
        """What the cookie holds: whoever has it is the user. Never for logs."""
        return self.handle + self.secret

    def __repr__(self) -> str:
        return f"SessionId({self.handle!r}, secret=***)"
