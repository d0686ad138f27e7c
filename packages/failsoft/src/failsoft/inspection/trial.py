"""A request that is made up: to see what would apply to it. It is never served.

The adapter finds its view by the framework's own routing and makes the framework's own request object of it, for the user's functions.
Middleware does not run, so what only middleware knows (a session's user) has to be given.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from ipaddress import ip_address
from types import MappingProxyType
from typing import NamedTuple
from urllib.parse import unquote

from failsoft.errors import ConfigurationError
from failsoft.exchange import METHODS, Facts, NotYet, Policy
from failsoft.settings.problems import nearest

__all__ = ["Trial", "Tried", "known"]

_USUAL = sorted(method.lower() for method in METHODS)

_UNUSUAL = ("ORDERPATCH", "PROPPATCH", "REPORT")
"""Methods that are much like usual ones and none of them (IANA's HTTP Method Registry)."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Trial:
    """What is said of the request.

    Attributes:
        method: the HTTP method, upper case.
        target: path and query as a client writes them, percent-encoded, beginning with "/".
        address: the peer's, at the other end of the socket; None for unknown.
        user: who is asking, as the framework's identifier; None for nobody in particular.
        headers: names and values, in order.
        body: what it carries, for functions of the request that look at it.

    Raises:
        ConfigurationError: that is no request.
    """

    method: str
    target: str
    address: str | None = None
    user: str | None = None
    headers: tuple[tuple[str, str], ...] = ()
    body: bytes = b""

    def __post_init__(self) -> None:
        if not self.method.isascii() or not self.method.isalpha():
            raise ConfigurationError(f"{self.method!r} is no HTTP method; write GET, POST...")
        object.__setattr__(self, "method", self.method.upper())
        meant = nearest(self.method, _USUAL) if self.method not in _UNUSUAL else self.method
        if meant is not None and meant.upper() != self.method:
            raise ConfigurationError(f"{self.method} is no HTTP method; did you mean {meant.upper()}?")
        if not self.target.startswith("/"):
            raise ConfigurationError(f"{self.target!r} is no path: it begins with '/'; leave scheme and host out")
        if self.address is not None:
            try:
                ip_address(self.address)
            except ValueError:
                raise ConfigurationError(
                    f"{self.address!r} is no address; write one such as 192.0.2.1 or 2001:db8::1"
                ) from None

    @property
    def opens_socket(self) -> bool:
        """Whether it asks for a WebSocket (RFC 6455)."""
        return any((name.lower(), value.lower()) == ("upgrade", "websocket") for name, value in self.headers)

    @property
    def path(self) -> str:
        """The path, percent-decoded."""
        return unquote(self.target.partition("?")[0])

    @property
    def query(self) -> str:
        """The query, percent-encoded, without its question mark."""
        return self.target.partition("?")[2]


class Tried(NamedTuple):
    """What came of a trial.

    Attributes:
        facts: the request, as the adapter describes any.
        note: why no view serves it, as the framework says it; "" where one does.
        sources: as in `RouteInfo`.
    """

    facts: Facts
    note: str = ""
    sources: Mapping[Policy, str] = MappingProxyType({})


def known(facts: Facts, user: str) -> Facts:
    """`facts` of a request whose user is given."""

    class Known(type(facts)):  # type: ignore[misc]  # whatever the adapter's is
        __slots__ = ()

        def user(self) -> str | NotYet | None:
            return user

    # Not a wrapper: that would have to hand on whatever adapters come to be asked.
    facts.__class__ = Known
    return facts
