"""Sealing: what leaves for a browser is secret, and only what we sealed ourselves is believed when it comes back.

Theory of operation. AES-256-GCM with a random nonce (NIST SP 800-38D). The key is derived from the configured secret by HKDF-SHA256
(RFC 5869) with the ring's purpose in it, so that two rings of one secret cannot open each other's seals. Rules:

- A seal is bound to what its reader knows anyway (the session it belongs to, for one); elsewhere it is worthless.
- Seals are made by the first secret and opened by any. A secret is replaced by making the new one the first and the old one a
  fallback, for as long as its seals live.
- Whatever cannot be opened is None, whether forged, cut, bound to something else, of a secret that is gone or of an unknown version.
  Nobody is told which of them.

**How many seals.** Two seals of one key with the same nonce give away what is in them and let seals be forged. Section 8.3 of the
publication keeps the chance of that below 2**-32, for which random nonces of 96 bits allow 2**32 seals per key: one key of a
ring makes 1000 a second for 49 days, or 100 a second for 16 months. Replace the secret before.

Layout::

    1 version | 4 key id | 12 nonce | ciphertext, and 16 tag

Version and key id are authenticated too. The key id is derived with the key and says nothing about it; if two secrets share one
(once in four billion), both are tried.
"""

import os
from base64 import urlsafe_b64encode
from collections.abc import Callable, Sequence
from hashlib import blake2b

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.hkdf import HKDF

from failsoft.errors import ConfigurationError

__all__ = ["MIN_SECRET", "OVERHEAD", "KeyRing"]

MIN_SECRET = 16
"""Characters of a secret. Shorter ones are guessed, whatever is derived from them."""

_VERSION = b"\x01"
_ID = 4
_HEAD = len(_VERSION) + _ID
_NONCE = 12
_TAG = 16

OVERHEAD = _HEAD + _NONCE + _TAG
"""Bytes by which a seal is longer than what is in it."""

_DIGEST = 24
"""Bytes of a digest: none of 2**64 texts is expected to share another's."""


class KeyRing:
    """Keys of one purpose, derived from secrets. Safe to share between threads; makes no copy of the secrets.

    Args:
        secret: seals and opens; at least `MIN_SECRET` characters, best the output of ``secrets.token_urlsafe(32)``.
        fallbacks: earlier secrets, which only open.
        purpose: what the seals are for. Rings of different purposes have different keys.
        random: gives that many random bytes, for nonces. Only tests replace it: a nonce used twice breaks the seals.

    Raises:
        ConfigurationError: a secret is too short.
    """

    __slots__ = ("_digest_key", "_head", "_keys", "_purpose", "_random", "_sealing")

    def __init__(
        self,
        secret: str,
        fallbacks: Sequence[str] = (),
        *,
        purpose: str,
        random: Callable[[int], bytes] = os.urandom,
    ) -> None:
        self._purpose = purpose
        self._random = random
        self._keys: dict[bytes, tuple[AESGCM, ...]] = {}
        secrets = [_checked(each, purpose) for each in (secret, *fallbacks)]
        for each in secrets:
            derived = _derive(each, "seal", purpose, _ID + 32)
            head = _VERSION + derived[:_ID]
            self._keys[head] = (*self._keys.get(head, ()), AESGCM(derived[_ID:]))
        self._head, (self._sealing, *_) = next(iter(self._keys.items()))
        self._digest_key = _derive(secrets[0], "digest", purpose, 32)

    def __repr__(self) -> str:
        return f"<KeyRing {self._purpose!r}>"

    def seal(self, plain: bytes, bound: bytes) -> bytes:
        """Encrypt and authenticate.

        Args:
            plain: what is to be secret; the seal is `OVERHEAD` bytes longer.
            bound: what the reader must know in order to open it. It is not in the seal.
        """
        head = self._head
        nonce = self._random(_NONCE)
        return head + nonce + self._sealing.encrypt(nonce, plain, head + bound)

    def unseal(self, sealed: bytes, bound: bytes) -> bytes | None:
        """What is in a seal, or None where it is none of ours or is bound to something else."""
        if len(sealed) < OVERHEAD:
            return None
        head = sealed[:_HEAD]
        for key in self._keys.get(head, ()):
            try:
                return key.decrypt(sealed[_HEAD : _HEAD + _NONCE], sealed[_HEAD + _NONCE :], head + bound)
            except InvalidTag:
                continue
        return None

    def is_strange(self, sealed: bytes) -> bool:
        """Whether it has the shape of a seal, made with a key that is none of this ring's. Anybody can make one that looks so."""
        return len(sealed) >= OVERHEAD and sealed[:1] == _VERSION and sealed[:_HEAD] not in self._keys

    def digest(self, value: str) -> str:
        """A name for a text that says nothing about it to those who lack the secret: keyed BLAKE2b (RFC 7693).

        It is made with the first secret alone, so it changes when that is replaced.

        Returns:
            32 characters of the URL-safe Base64 alphabet, 192 bits.
        """
        text = value.encode("utf-8", "surrogatepass")
        return urlsafe_b64encode(blake2b(text, digest_size=_DIGEST, key=self._digest_key).digest()).decode()


def _checked(secret: str, purpose: str) -> str:
    if len(secret) < MIN_SECRET:
        raise ConfigurationError(
            f"a secret of {len(secret)} characters is too short to seal a {purpose} with; accepted: at least {MIN_SECRET}; "
            'make one with python -c "import secrets; print(secrets.token_urlsafe(32))"'
        )
    return secret


def _derive(secret: str, use: str, purpose: str, length: int) -> bytes:
    info = f"failsoft/{use}/{purpose}".encode()
    return HKDF(SHA256(), length, salt=None, info=info).derive(secret.encode("utf-8", "surrogatepass"))
