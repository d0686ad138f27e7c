"""Kinds of settings for sessions: their cookie, what others call their keys, and older secrets.

A browser drops a cookie that it does not like without a word. So what is accepted here is what every browser takes
(RFC 6265, section 4.1.1, and RFC6265bis, which bounds attributes to 1024 octets).
"""

import re
from dataclasses import dataclass
from typing import Final

from failsoft.settings.kinds import Kind, Mistake, Secret
from failsoft.settings.problems import show

__all__ = ["CookieDomain", "CookieName", "CookiePath", "KeyPrefix", "Names", "Secrets"]

_TOKEN: Final = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z-]{1,64}", re.ASCII)
"""RFC 6265: cookie-name is a token (RFC 9110, section 5.6.2)."""

_PREFIXES: Final = ("__host-", "__secure-")
"""RFC6265bis, section 4.1.3: browsers hold such names to a promise, and take no notice of their case."""

_DOMAIN: Final = re.compile(
    r"(?=.{1,253}\Z)[a-z0-9](?:[a-z0-9-]{0,61}[a-z0-9])?(?:\.[a-z0-9](?:[a-z0-9-]{0,61}[a-z0-9])?)*"
)
"""RFC 1123, section 2.1."""

_PATH: Final = re.compile(r"/[!-:<-~]{0,1023}", re.ASCII)
"""RFC 6265: no control character, and no ';'."""


@dataclass(frozen=True, slots=True)
class CookieName(Kind):
    """The name of a cookie."""

    @property
    def accepts(self) -> str:
        return (
            "1 to 64 letters, digits and signs such as '-', '_' and '.' (a token of RFC 6265), not beginning with '__Host-' "
            "or '__Secure-'"
        )

    def read(self, value: object) -> str:
        if not isinstance(value, str):
            raise Mistake(1, f"{show(value)} was given")
        if not _TOKEN.fullmatch(value):
            raise Mistake(2, f"{show(value)} is no name of a cookie")
        if value.lower().startswith(_PREFIXES):
            hint = (
                "write the name alone: '__Host-' is added by itself where cookie_secure is true, cookie_path is '/' and "
                "there is no cookie_domain"
            )
            raise Mistake(2, f"{show(value)} begins with a prefix that browsers hold to a promise", hint)
        return str.__str__(value)


@dataclass(frozen=True, slots=True)
class CookieDomain(Kind):
    """A host name, or none. A dot before it means nothing (RFC 6265, section 5.2.3), and is left out."""

    @property
    def accepts(self) -> str:
        return "a host name such as 'example.com', without a port"

    def read(self, value: object) -> str | None:
        if value is None:
            return None
        if not isinstance(value, str):
            raise Mistake(1, f"{show(value)} was given")
        name = value.lower().removeprefix(".")
        if not _DOMAIN.fullmatch(name):
            hint = "" if value.isascii() else "write it as DNS has it: 'xn--...'"
            raise Mistake(2, f"{show(value)} is no host name", hint)
        return str.__str__(name)


@dataclass(frozen=True, slots=True)
class CookiePath(Kind):
    """The path below which browsers send a cookie."""

    @property
    def accepts(self) -> str:
        return "a path that begins with '/', at most 1024 characters of ASCII without spaces and ';'"

    def read(self, value: object) -> str:
        if not isinstance(value, str):
            raise Mistake(1, f"{show(value)} was given")
        if not _PATH.fullmatch(value):
            raise Mistake(2, f"{show(value)} is no path of a cookie")
        return str.__str__(value)


@dataclass(frozen=True, slots=True)
class KeyPrefix(Kind):
    """What another package's keys begin with, or none."""

    @property
    def accepts(self) -> str:
        return "1 to 200 printable characters, such as 'session:'"

    def read(self, value: object) -> str | None:
        if value is None:
            return None
        if not isinstance(value, str):
            raise Mistake(1, f"{show(value)} was given")
        if not 1 <= len(value) <= 200 or not value.isprintable():
            raise Mistake(2, f"{show(value)} cannot begin a key")
        return str.__str__(value)


@dataclass(frozen=True, slots=True)
class Names(Kind):
    """Keys in a session."""

    listed = True

    @property
    def accepts(self) -> str:
        return "a list of names, each 1 to 64 printable characters without spaces, ',' and ';'"

    def read(self, value: object) -> tuple[str, ...]:
        given = [value] if isinstance(value, str) else value
        if not isinstance(given, (list, tuple)) or not all(isinstance(one, str) for one in given):
            raise Mistake(1, f"{show(value)} was given")
        for one in given:
            if not 1 <= len(one) <= 64 or not one.isprintable() or not set(" ,;").isdisjoint(one):
                raise Mistake(2, f"{show(one)} is no name of a key")
        return tuple(dict.fromkeys(map(str.__str__, given)))


@dataclass(frozen=True, slots=True)
class Secrets(Kind):
    """Secrets, never shown."""

    listed = True
    hidden = True

    @property
    def accepts(self) -> str:
        return (
            "a list of texts of at least 32 characters, or of 16 where there are no sessions; kept secret; in an environment as JSON "
            "where one holds ',' or ';'"
        )

    def read(self, value: object) -> tuple[str, ...]:
        given = [value] if isinstance(value, str) else value
        if not isinstance(given, (list, tuple)):
            raise Mistake(1, f"a {type(value).__name__} was given")
        found: list[str] = []
        for number, one in enumerate(given, 1):
            try:
                secret = Secret().read(one)
            except Mistake as mistake:
                raise Mistake(mistake.digit, f"number {number}: {mistake.message}", mistake.hint) from None
            if secret is None:
                raise Mistake(1, f"number {number}: a NoneType was given")
            found.append(secret)
        return tuple(dict.fromkeys(found))
