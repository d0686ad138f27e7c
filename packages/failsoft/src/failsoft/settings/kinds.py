"""Kinds of settings: what each accepts, and what it makes of it.

A kind reads a value given in Python, JSON, TOML or as text, and returns it in one normal form: reading the normal form
again gives the same. Text is understood wherever a value is, since environments know nothing else and frameworks decode
theirs in part. A value that is not accepted is a `Mistake`, which says whether its kind is wrong or its range.
"""

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network
from typing import Any

from failsoft.address import parse_proxy
from failsoft.durations import seconds, spell
from failsoft.errors import ConfigurationError
from failsoft.settings.problems import nearest, show
from failsoft.settings.urls import NOT_SPOKEN, SCHEMES, StoreMistake, StoreUrl, is_legible, look, wrong_port

__all__ = [
    "Choice",
    "Flag",
    "Fraction",
    "Kind",
    "Mistake",
    "Prefix",
    "Proxies",
    "Seconds",
    "Secret",
    "Store",
    "Whole",
    "together",
]

_FLAGS = {"true": True, "yes": True, "on": True, "1": True, "false": False, "no": False, "off": False, "0": False}
_INTEGER = re.compile(r"[+-]?[0-9]{1,20}", re.ASCII)
_SCHEME = re.compile(r"([a-z][a-z0-9+.-]{0,30})://", re.ASCII | re.IGNORECASE)


class Mistake(Exception):
    """A value is not accepted.

    Attributes:
        digit: 1, the kind is wrong; 2, the range is.
        message: what is wrong with it.
        hint: more than what the kind accepts, such as the nearest right spelling; may be empty.
        complete: the hint says what is accepted, better than the kind could.
    """

    def __init__(self, digit: int, message: str, hint: str = "", *, complete: bool = False) -> None:
        super().__init__(message)
        self.complete = complete
        self.digit = digit
        self.message = message
        self.hint = hint


def together(mistakes: Sequence[Mistake]) -> Mistake:
    """Several mistakes in one value, as one. Its kind is wrong where one of theirs is."""
    hints = dict.fromkeys(mistake.hint for mistake in mistakes if mistake.hint)
    messages = dict.fromkeys(mistake.message for mistake in mistakes)
    digit = min(mistake.digit for mistake in mistakes)
    complete = all(mistake.complete for mistake in mistakes)
    return Mistake(digit, "; ".join(messages), "; ".join(hints), complete=complete)


class Kind:
    """What a setting accepts.

    Attributes:
        listed: text in an environment may be a list.
        hidden: what is read is shown nowhere.
    """

    listed: bool = False
    hidden: bool = False

    @property
    def unit(self) -> str | None:
        """The number's unit, or None."""
        return None

    @property
    def range(self) -> tuple[float | None, float | None] | None:
        """The least and the greatest value, or None; an end that is None is open."""
        return None

    @property
    def accepts(self) -> str:
        """What is accepted, in words."""
        raise NotImplementedError

    def read(self, value: object) -> Any:
        """The normal form of `value`.

        Raises:
            Mistake: it is not accepted.
        """
        raise NotImplementedError


@dataclass(frozen=True, slots=True)
class Flag(Kind):
    """True or false."""

    @property
    def accepts(self) -> str:
        return "true or false"

    def read(self, value: object) -> bool:
        if isinstance(value, bool):
            return value
        if isinstance(value, str):
            found = _FLAGS.get(value.strip().lower())
            if found is not None:
                return found
        raise _wrong_kind(value)


@dataclass(frozen=True, slots=True)
class Choice(Kind):
    """One of a few words."""

    members: tuple[str, ...]

    @property
    def accepts(self) -> str:
        return ", ".join(repr(member) for member in self.members)

    def read(self, value: object) -> str:
        if not isinstance(value, str):
            raise _wrong_kind(value)
        for member in self.members:
            if value == member:
                return member
        near = nearest(value.strip(), self.members)
        raise Mistake(2, f"{show(value)} is not one of the choices", f"did you mean {near!r}?" if near else "")


@dataclass(frozen=True, slots=True)
class Whole(Kind):
    """A whole number."""

    low: int
    high: int | None = None
    what: str | None = None

    @property
    def unit(self) -> str | None:
        return self.what

    @property
    def range(self) -> tuple[float | None, float | None]:
        return self.low, self.high

    @property
    def accepts(self) -> str:
        return f"a whole number from {self.low} to {self.high}" if self.high else f"a whole number from {self.low}"

    def read(self, value: object) -> int:
        if isinstance(value, str) and _INTEGER.fullmatch(value.strip()):
            value = int(value)
        if isinstance(value, bool) or not isinstance(value, int):
            raise _wrong_kind(value)
        if value < self.low or (self.high is not None and value > self.high):
            raise _out_of_range(value)
        return int(value)


@dataclass(frozen=True, slots=True)
class Fraction(Kind):
    """A share of something: a number from 0 to 1."""

    zero: bool = True
    optional: bool = False

    @property
    def range(self) -> tuple[float | None, float | None]:
        return 0.0, 1.0

    @property
    def accepts(self) -> str:
        return "a number from 0 to 1" if self.zero else "a number above 0 and at most 1"

    def read(self, value: object) -> float | None:
        if value is None and self.optional:
            return None
        if isinstance(value, str):
            try:
                value = float(value)
            except ValueError:
                raise _wrong_kind(value) from None
        if isinstance(value, bool) or not isinstance(value, (int, float)):
            raise _wrong_kind(value)
        if not 0 <= value <= 1 or (not value and not self.zero):  # not a number is not within, either
            raise _out_of_range(value)
        return float(value)


@dataclass(frozen=True, slots=True)
class Seconds(Kind):
    """A duration."""

    low: float
    high: float

    @property
    def unit(self) -> str:
        return "seconds"

    @property
    def range(self) -> tuple[float | None, float | None]:
        return self.low, self.high

    @property
    def accepts(self) -> str:
        text = "seconds as a number, or text such as '250ms', '10s', '5m', '2h', '14d'"
        return f"{spell(self.low)} to {spell(self.high)}: {text}"

    def read(self, value: object) -> float:
        try:
            length = seconds(value)
        except TypeError:
            raise _wrong_kind(value) from None
        except ValueError as error:
            raise Mistake(2, f"{show(value)}: {error}") from None
        if not self.low <= length <= self.high:
            raise _out_of_range(value)
        return length


@dataclass(frozen=True, slots=True)
class Store(Kind):
    """The URL of a store. Nothing but its scheme is ever shown: the rest may hold a password, also when misspelt."""

    @property
    def accepts(self) -> str:
        schemes = ", ".join(f"{scheme}://" for scheme in SCHEMES)
        return f"a URL whose scheme is one of {schemes}; or a table with it as url, and options beside it"

    def read(self, value: object) -> str:
        if isinstance(value, str) and value.lstrip().startswith("{"):
            value = _json(value)
        options: dict[str, object] = {}
        if isinstance(value, Mapping):
            options = {str(name).lower(): one for name, one in value.items()}
            value = options.pop("url", None)
            if value is None:
                raise Mistake(2, "the table has no url")
        if not isinstance(value, str):
            raise Mistake(1, f"a {type(value).__name__} was given")
        url = self._checked(value)
        if options and url == "memory://":
            raise Mistake(2, "memory:// has no options", "leave out what stands beside the url")
        beside = options or getattr(value, "options", None)
        url = StoreUrl(url, beside) if beside else url
        try:
            look(url)
        except StoreMistake as mistake:
            raise Mistake(2, mistake.of(url), mistake.cure, complete=True) from None
        except ConfigurationError as error:
            raise Mistake(2, str(error)) from None
        return url

    def _checked(self, value: str) -> str:
        match = _SCHEME.match(value)
        if match is None:
            raise Mistake(2, "the text given does not begin with a scheme and ://")
        scheme = match[1].lower()
        if scheme not in SCHEMES:
            near = None if scheme in NOT_SPOKEN else nearest(scheme, SCHEMES)
            hint = NOT_SPOKEN.get(scheme) or (f"did you mean {near}://?" if near else "")
            raise Mistake(2, f"the scheme {scheme}:// is not known", hint)
        rest = value[match.end() :]
        if not value.isprintable() or " " in value:
            raise Mistake(2, f"the {scheme}:// URL holds a space, a line break or a control character")
        if scheme == "memory" and rest:
            raise Mistake(2, "memory:// is the whole URL", "nothing may follow it")
        if scheme not in ("memory", "embedded") and not is_legible(value):
            encode = "in a user name or password write @ as %40, : as %3A, / as %2F, ? as %3F and # as %23"
            if wrong_port(value):
                cause = f"the port of the {scheme}:// URL is not a number from 1 to 65535"
                raise Mistake(2, cause, f"write host:port; {encode}", complete=True)
            raise Mistake(2, f"the parts of the {scheme}:// URL cannot be told apart", encode)
        return f"{scheme}://{rest}"


@dataclass(frozen=True, slots=True)
class Prefix(Kind):
    """What the keys in a store begin with."""

    @property
    def accepts(self) -> str:
        return "1 to 64 printable characters, without spaces, braces and ':'"

    def read(self, value: object) -> str:
        if not isinstance(value, str):
            raise _wrong_kind(value)
        # ':' separates the parts of a key, and braces would choose its slot on a cluster.
        if not 1 <= len(value) <= 64 or not value.isprintable() or not set(" {}:").isdisjoint(value):
            raise Mistake(2, f"{show(value)} cannot begin a key")
        return str.__str__(value)


@dataclass(frozen=True, slots=True)
class Secret(Kind):
    """A secret, never shown."""

    hidden = True

    @property
    def accepts(self) -> str:
        return "text of at least 32 characters, or of 16 where there are no sessions; kept secret"

    def read(self, value: object) -> str | None:
        if value is None:
            return None
        if not isinstance(value, str):
            hint = "where an environment is decoded as JSON, quote it twice"
            raise Mistake(1, f"a {type(value).__name__} was given", hint)
        if len(value) < 16:
            raise Mistake(2, f"the text given has only {len(value)} characters")
        try:
            value.encode()
        except UnicodeEncodeError:
            raise Mistake(2, "the text given is not valid UTF-8") from None
        return str.__str__(value)


@dataclass(frozen=True, slots=True)
class Proxies(Kind):
    """Networks of trusted proxies."""

    listed = True

    @property
    def accepts(self) -> str:
        return "a list of addresses ('10.0.0.7'), networks ('10.0.0.0/8', 'fd00::/8') and 'unix'"

    def read(self, value: object) -> tuple[str, ...]:
        if isinstance(value, str):
            value = [part for part in re.split(r"[,;\s]+", value) if part]
        if not isinstance(value, (list, tuple)):
            raise _wrong_kind(value)
        found: list[str] = []
        wrong: list[str] = []
        for one in value:
            if isinstance(one, (IPv4Address, IPv6Address, IPv4Network, IPv6Network)):
                one = str(one)
            if not isinstance(one, str):
                raise _wrong_kind(value)
            try:
                network = parse_proxy(one)
            except ValueError as error:
                wrong.append(f"{show(one)}: {error}")
                continue
            single = "" if isinstance(network, str) else f"/{network.max_prefixlen}"
            found.append(str(network).removesuffix(single))
        if wrong:
            raise Mistake(2, "; ".join(wrong))
        return tuple(dict.fromkeys(found))


def _json(text: str) -> object:
    try:
        return json.loads(text)
    except (ValueError, RecursionError):
        raise Mistake(2, "the text begins with '{' but is no JSON object") from None


def _wrong_kind(value: object) -> Mistake:
    return Mistake(1, f"{show(value)} was given")


def _out_of_range(value: object) -> Mistake:
    return Mistake(2, f"{show(value)} is out of range")
