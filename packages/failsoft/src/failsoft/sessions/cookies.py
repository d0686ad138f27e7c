"""Cookies: one way to write them, and a quick way to find one (RFC 6265; its successor, draft-ietf-httpbis-rfc6265bis, in what it adds).

Rules:

- A cookie's attributes are the same whenever it is written. Browsers know a cookie by name, domain and path, so one that is
  deleted or replaced with others would be left beside it.
- Where it can be, the name begins with ``__Host-``: a browser then takes the cookie from a secure origin alone, for this host alone, and
  no other host under the same domain can plant one (rfc6265bis, section 4.1.3.2).
- Of several cookies of one name all values are returned, in the browser's order. Which one is ours, whoever knows the values
  decides: the first may have been planted for a longer path.
- A header is not parsed but searched, and split at semicolons alone, as browsers do. To heed quotation marks would let a cookie that
  somebody planted swallow those between two of them.
- Nothing that a client sends is an error. What is malformed, or beyond `MAX_HEADER` and `MAX_VALUE`, is not there.
"""

import re
from dataclasses import dataclass, field, replace
from functools import lru_cache
from time import gmtime
from typing import Literal

from failsoft.errors import ConfigurationError

__all__ = ["MAX_HEADER", "MAX_NAME", "MAX_VALUE", "MAX_VALUES", "CookieStyle", "SameSite", "values"]

SameSite = Literal["lax", "strict", "none"]
"""With which requests from other sites a browser sends a cookie: navigation, none, all."""

MAX_HEADER = 65536
"""Characters of a Cookie header that is looked at. Servers commonly allow 8 KiB."""

MAX_VALUE = 4096
"""Characters of a value that is looked at. Browsers refuse a name and value of more (rfc6265bis, section 5.6)."""

MAX_VALUES = 4
"""Cookies of one name that are looked at. More than one is rare, and each costs whoever tries them."""

MAX_NAME = 96
"""Characters of a cookie's name, prefix and suffix included: with 4000 of value, the most that browsers take."""

_HOST = "__Host-"
_RESERVED = ("__host-", "__secure-", "__http-", "__host-http-")
"""Prefixes with a meaning to browsers, which compare them without regard to case."""

_is_token = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z-]+").fullmatch
"""RFC 6265, section 4.1.1: a name is a token."""

_is_value = re.compile(r"[!#-+\--:<-\[\]-~]*").fullmatch
"""RFC 6265, section 4.1.1: cookie-octets, which are visible ASCII without quotation mark, comma, semicolon and backslash."""

_is_path = re.compile(r"/[ -:<-~]*").fullmatch
_is_domain = re.compile(r"\.?[A-Za-z0-9-]+(?:\.[A-Za-z0-9-]+)*").fullmatch

_SAMESITE = {"lax": "; SameSite=Lax", "strict": "; SameSite=Strict", "none": "; SameSite=None"}
_DAYS = ("Mon", "Tue", "Wed", "Thu", "Fri", "Sat", "Sun")
_MONTHS = ("Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec")
_LAST_SECOND = 253402300799
"""The end of the year 9999: four digits are all that a date has (RFC 9110, section 5.6.7)."""

_BLANK = " \t"


@dataclass(frozen=True, slots=True, kw_only=True)
class CookieStyle:
    """How a cookie is written, but for its value.

    Args:
        name: an RFC 6265 token, without the prefix that `full_name` adds.
        domain: the domain whose hosts all get the cookie; None for this host alone, which is safer.
        path: the path below which the browser sends it; begins with "/".
        secure: send it over TLS alone.
        httponly: hide it from scripts.
        samesite: "lax", "strict" or "none", which needs `secure`.
        partitioned: one jar for each site that embeds ours (CHIPS); needs `secure`.

    Raises:
        ConfigurationError: an argument is out of its range, or two of them contradict each other.
    """

    name: str
    domain: str | None = None
    path: str = "/"
    secure: bool = True
    httponly: bool = True
    samesite: SameSite = "lax"
    partitioned: bool = False
    full_name: str = field(init=False, repr=False, compare=False)
    """The name as the browser sees it: with ``__Host-`` where `secure`, `path` and `domain` meet what that asks."""
    _attributes: str = field(init=False, repr=False, compare=False)
    _deleted: str = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        self._check()
        host_only = self.secure and self.path == "/" and self.domain is None
        full_name = f"{_HOST}{self.name}" if host_only else self.name
        if len(full_name) > MAX_NAME:
            raise ConfigurationError(
                f"the cookie name {full_name!r} has {len(full_name)} characters; accepted: at most {MAX_NAME}"
            )
        attributes = "".join(
            (
                f"; Domain={self.domain}" if self.domain is not None else "",
                f"; Path={self.path}",
                "; Secure" if self.secure else "",
                "; HttpOnly" if self.httponly else "",
                _SAMESITE[self.samesite],
                "; Partitioned" if self.partitioned else "",
            )
        )
        object.__setattr__(self, "full_name", full_name)
        object.__setattr__(self, "_attributes", attributes)
        # Both: Max-Age wins where it is known, and Expires is known everywhere.
        object.__setattr__(self, "_deleted", f"{full_name}=; Max-Age=0; Expires={_date(0)}{attributes}")

    def beside(self, suffix: str) -> "CookieStyle":
        """The style of a companion: the same attributes, the name with `suffix` after it."""
        return replace(self, name=f"{self.name}{suffix}")

    def set(self, value: str, max_age: int | None, *, now: float, ours: bool = False) -> str:
        """A Set-Cookie field's value.

        Args:
            value: visible ASCII without quotation marks, commas, semicolons and backslashes.
            max_age: seconds that the browser keeps it, 0 or more; None until it is closed.
            now: seconds since the epoch, for Expires.
            ours: whether it is known that the value has no others: to look at those of a seal takes 4 thousand instructions.

        Raises:
            ValueError: the value has other characters, or `max_age` is negative. The message does not show the value.
        """
        if not ours and _is_value(value) is None:
            raise ValueError(
                f"the value of the cookie {self.full_name} has characters that no cookie may have; encode it"
            )
        if max_age is None:
            return f"{self.full_name}={value}{self._attributes}"
        if max_age < 0:
            raise ValueError(f"max_age={max_age} is negative; to delete a cookie is another call")
        return f"{self.full_name}={value}; Max-Age={max_age}; Expires={_date(int(now) + max_age)}{self._attributes}"

    def delete(self) -> str:
        """A Set-Cookie field's value with which the browser forgets the cookie."""
        return self._deleted

    def _check(self) -> None:
        """Refuse what a browser would refuse without a word."""
        if _is_token(self.name) is None:
            raise ConfigurationError(f"the cookie name {self.name!r} is not a token (RFC 6265, section 4.1.1)")
        if self.name.lower().startswith(_RESERVED):
            raise ConfigurationError(
                f"the cookie name {self.name!r} begins with a prefix that browsers give a meaning; leave it out: __Host- is "
                "added where secure, the path '/' and no domain allow it"
            )
        if self.domain is not None and _is_domain(self.domain) is None:
            raise ConfigurationError(
                f"the cookie domain {self.domain!r} is not a host name; write example.com, or None"
            )
        if _is_path(self.path) is None:
            raise ConfigurationError(f"the cookie path {self.path!r} must begin with '/' and have no semicolon")
        if self.samesite not in _SAMESITE:
            raise ConfigurationError(f"samesite={self.samesite!r} is not known; accepted: 'lax', 'strict', 'none'")
        if self.samesite == "none" and not self.secure:
            raise ConfigurationError("samesite='none' needs secure=True: browsers drop the cookie otherwise")
        if self.partitioned and not self.secure:
            raise ConfigurationError("partitioned=True needs secure=True: browsers drop the cookie otherwise")


def values(header: str | None, name: str) -> list[str]:
    """The values of all cookies of one name, as the browser ordered them.

    Args:
        header: the Cookie header, its lines joined by "; "; None where there is none.
        name: the full name.

    Returns:
        At most `MAX_VALUES`, without the quotation marks around them. Values longer than `MAX_VALUE` are left out, and of
        a header longer than `MAX_HEADER` nothing is read.
    """
    found: list[str] = []
    if not header or len(header) > MAX_HEADER:
        return found
    needle = f"{name}="
    at = header.find(needle)
    while at >= 0:
        start = at + len(needle)
        if _begins(header, at):
            end = header.find(";", start)
            value = (header[start:] if end < 0 else header[start:end]).strip(_BLANK)
            if len(value) > 1 and value[0] == value[-1] == '"':
                value = value[1:-1]
            if len(value) <= MAX_VALUE:
                found.append(value)
            if end < 0 or len(found) == MAX_VALUES:
                break
            start = end
        at = header.find(needle, start)
    return found


def _begins(header: str, at: int) -> bool:
    """Whether a cookie's name begins here: only blanks separate it from a semicolon or the header's begin."""
    before = at - 1
    while before >= 0 and header[before] in _BLANK:
        before -= 1
    return before < 0 or header[before] == ";"


@lru_cache(256)  # all cookies of one second that live equally long
def _date(seconds: int) -> str:
    """The moment as an HTTP date, in English whatever the locale says."""
    year, month, day, hour, minute, second, weekday, _, _ = gmtime(min(seconds, _LAST_SECOND))
    return f"{_DAYS[weekday]}, {day:02} {_MONTHS[month - 1]} {year:04} {hour:02}:{minute:02}:{second:02} GMT"
