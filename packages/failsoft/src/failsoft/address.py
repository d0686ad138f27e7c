"""The client's address, behind proxies that are trusted and clients that are not.

Theory of operation. The only address nobody can forge is the socket's peer. If the peer is a trusted proxy, the
right-most entry of its forwarding header is what that proxy saw, so it is as good as the peer itself; and so on to the
left, for as long as the entry just read is a trusted proxy too. The first address that is not trusted is the client.
Whatever stands to its left was sent by the client and is never read. Rules:

- Without trusted proxies, or with an untrusted peer, no header counts for anything. Without any, the first requests are looked at
  for one that a proxy seems to have written, so that whoever forgot to name it is told.
- One header, chosen by configuration. A proxy that appends to ``X-Forwarded-For`` passes a client's own ``Forwarded``
  on untouched, so whoever believes both believes the client.
- All lines of the header count, in the order received: a second line is to the right of the first.
- Every address is trusted: the left-most is the client.
- An entry that names no address (``unknown``, ``_hidden``, empty, malformed, no ``for``) ends the walk at the address
  before it: the nearest one that someone trusted vouches for. Going on would believe text from behind somebody who
  does not say whom he speaks for. Answering "no address" would let a header choose the policy for missing addresses,
  which may be an exemption. Using the text itself would give everyone of that text one bucket, or one client many.
  RFC 9110 section 5.6.1 has recipients skip empty list elements; here an empty one ends the walk, since a proxy that
  does not know its peer may well append one.
- ``Forwarded`` is read from the right as well, quoted strings included: read from the left, a quotation mark opened by
  the client would swallow what the proxies appended.
- Work is bounded: of a long header only the right end is read (`MAX_ENTRIES`, `MAX_CHARACTERS`). If all of it is
  trusted, the left-most address read is the answer.

What comes out identifies a client: IPv4 as it is, also where it came mapped into IPv6; IPv6 by its network
(`ipv6_prefix`), since a customer is given a whole /64 (RFC 6177) and would otherwise have 2**64 identities; zones are
dropped. Only under 64:ff9b::/96 (RFC 6052) addresses stay whole: there the last 32 bits are somebody's IPv4 address,
and one bucket would hold the Internet.
"""

import logging
import re
from collections.abc import Callable, Iterable, Iterator, Sequence
from functools import lru_cache
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network, ip_address, ip_network
from threading import Lock
from typing import Literal, get_args

from failsoft.errors import ConfigurationError

__all__ = [
    "MAX_CHARACTERS",
    "MAX_ENTRIES",
    "AddressResolver",
    "ForwardedHeader",
    "believed_from_afar",
    "parse_proxy",
    "rewritten_by_server",
]

_log = logging.getLogger("failsoft")

ForwardedHeader = Literal["x-forwarded-for", "forwarded"]
"""The header that the trusted proxies write: the customary one, or RFC 7239."""

MAX_ENTRIES = 32
"""Entries of a header that are examined, from the right. No honest chain of proxies is as long."""

MAX_CHARACTERS = 4096
"""Characters of a header that are examined, from the right: half of what servers commonly allow for one line."""

_LONGEST = 64
"""Characters of one entry: IPv6 (45), a zone (16) and brackets. Bounds the cache's keys too."""

_CACHED = 4096
"""Addresses whose meaning is remembered, in each of two caches; about 300 bytes each."""

_LOOKS = 1000
"""Requests that are looked at for a proxy that is not trusted: more than there are health checks before the first visitor.
Afterwards nobody pays for it."""

_UNIX = frozenset({"", "<local>", "localhost", "unix:"})
"""What servers call the peer on a Unix socket: gunicorn "", werkzeug "<local>", waitress "localhost", nginx "unix:".
A peer on TCP always has a numeric address."""

_TOKEN = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]*", re.ASCII)
_PORT = re.compile(r":(?:[0-9]{1,5}|_[A-Za-z0-9._-]+)", re.ASCII)
_PAIR = re.compile(
    r"[ \t]*([!#$%&'*+.^_`|~0-9A-Za-z-]+)=(?:\"((?:[^\"\\]|\\.)*)\"|([^\s\",;=]+))[ \t]*(?:;|$)", re.ASCII
)
_ESCAPED = re.compile(r"\\(.)")
_EMBEDDING = IPv6Network("64:ff9b::/96")
_NEAR = tuple(
    map(
        ip_network,
        ("127.0.0.0/8", "10.0.0.0/8", "172.16.0.0/12", "192.168.0.0/16", "100.64.0.0/10", "::1/128", "fc00::/7"),
    )
)
"""Where a proxy of one's own is likely to be: this machine, and private networks (RFC 1918, 6598 and 4193)."""

_Address = IPv4Address | IPv6Address
_Network = IPv4Network | IPv6Network
_Seen = tuple[str | None, bool]
"""Whom an address identifies, and whether it is a trusted proxy."""


def parse_proxy(text: str) -> IPv4Network | IPv6Network | Literal["unix"]:
    """The network of trusted proxies that `text` names.

    Args:
        text: an address (``"10.0.0.7"``), a network (``"10.0.0.0/8"``, ``"fd00::/8"``), or ``"unix"`` for whoever
            connects through a Unix socket. Networks of IPv4 addresses mapped into IPv6 become IPv4: that is how peers
            are seen.

    Raises:
        ValueError: it names none; the message says the right spelling where there is one.
    """
    text = text.strip()
    if text == "unix":
        return "unix"
    host, slash, length = text.partition("/")
    if slash and not (length.isascii() and length.isdigit() and len(length) <= 3):
        raise ValueError("the prefix length after '/' must be a whole number of bits, such as 10.0.0.0/8")
    if "%" in host:
        raise ValueError("zones (%...) are not told apart; leave the zone out")
    try:
        address = ip_address(host)
    except ValueError:
        cure = "; every address, so that clients may forge theirs, is 0.0.0.0/0 and ::/0" if text == "*" else ""
        raise ValueError(f"neither an address, a network nor 'unix'{cure}") from None
    if slash and int(length) > address.max_prefixlen:
        raise ValueError(f"an IPv{address.version} network has at most {address.max_prefixlen} bits")
    network = ip_network(f"{host}/{length}" if slash else host, strict=False)
    if network.network_address != address:
        raise ValueError(f"host bits are set; write {network} for the network or {address} for the one address")
    if isinstance(network, IPv6Network) and network.prefixlen >= 96:
        mapped = network.network_address.ipv4_mapped
        if mapped is not None:
            return IPv4Network((mapped, network.prefixlen - 96))
    return network


class AddressResolver:
    """Finds the client's address. Safe to share between threads; touches no store.

    Args:
        trusted_proxies: what `parse_proxy` reads: the addresses of the proxies in front of this process.
        ipv6_prefix: bits of an IPv6 address that tell clients apart, 32 to 128.
        header: the one header that the trusted proxies write.

    Raises:
        ConfigurationError: an argument is out of its range.
    """

    __slots__ = ("_entry", "_header", "_looks", "_mask", "_networks", "_peer", "_prefix", "_unix", "_unsaid")

    def __init__(
        self,
        *,
        trusted_proxies: Iterable[str] = (),
        ipv6_prefix: int = 64,
        header: ForwardedHeader = "x-forwarded-for",
    ) -> None:
        if not 32 <= ipv6_prefix <= 128:
            raise ConfigurationError(f"ipv6_prefix={ipv6_prefix!r} is out of range; accepted: 32 to 128")
        if header not in ("x-forwarded-for", "forwarded"):
            raise ConfigurationError(f"header={header!r} is not known; accepted: 'x-forwarded-for', 'forwarded'")
        self._unix = False
        self._networks: dict[int, list[tuple[int, int]]] = {4: [], 6: []}
        for text in trusted_proxies:
            try:
                network = parse_proxy(text)
            except ValueError as error:
                raise ConfigurationError(f"trusted_proxies: {text!r}: {error}") from None
            if isinstance(network, str):
                self._unix = True
            else:
                self._networks[network.version].append((int(network.network_address), int(network.netmask)))
        self._looks = 0 if self._unix or any(self._networks.values()) else _LOOKS
        self._unsaid = Lock()  # taken by whoever says it, and not given back; nobody waits for it
        self._prefix = ipv6_prefix
        self._mask = -1 << (128 - ipv6_prefix)
        self._header: ForwardedHeader = header
        # One cache each: entries are written by strangers and must not push out the peers.
        self._peer = lru_cache(_CACHED)(self._see_peer)
        self._entry = lru_cache(_CACHED)(self._see_entry)

    def resolve(self, peer: str | None, lines: Callable[[str], Sequence[str]]) -> str | None:
        """Whom to count this request for.

        Args:
            peer: the socket's peer as the server names it: an address; "", "unix:" or None for a Unix socket; or a name
                that a test client made up, which is returned as it is.
            lines: gives all lines of a header, by its lower-case name, in the order received. Called if the peer is
                trusted; and, where nobody is, for the first requests from peers near by.

        Returns:
            An IPv4 address ("192.0.2.1"), an IPv6 network ("2001:db8::/64"), or None where no address is known: a Unix
            socket that is not trusted or whose proxy names nobody. Never a text that a client chose.
        """
        if peer is not None and len(peer) > _LONGEST:
            return None
        identity, trusted = self._peer(peer)
        if trusted:
            return self._walk(identity, lines(self._header))
        if self._looks > 0:  # two threads may have taken the last one
            self._look(peer, lines)
        return identity

    def trusts(self, peer: str | None) -> bool:
        """Whether the socket's peer is a trusted proxy, so that header fields which it writes may be believed."""
        return (peer is None or len(peer) <= _LONGEST) and self._peer(peer)[1]

    def _look(self, peer: str | None, lines: Callable[[str], Sequence[str]]) -> None:
        """Warn, once, of a proxy that is not trusted: a peer near by from which a forwarding header comes."""
        self._looks -= 1
        unix = peer is None or _is_unix(peer)
        address = None if peer is None or unix else _parse(_host(peer) or "")
        if not unix and (address is None or not _is_near(address)):
            return
        for header in get_args(ForwardedHeader):
            found = lines(header)
            # Where an entry is the peer, the server has put it there: what it decided stands.
            if not found or any(host and address and _parse(host) == address for host in _hosts(found, header)):
                continue
            self._looks = 0
            if self._unsaid.acquire(blocking=False):
                also = f" and forwarded_header to {header!r}" if header != self._header else ""
                _log.warning(
                    "%s came from %s, and trusted_proxies is empty: it is not believed, and %s. If that is your proxy, set "
                    "trusted_proxies to %r%s; if it is a client, nothing is wrong",
                    "X-Forwarded-For" if header == "x-forwarded-for" else "Forwarded",
                    "a Unix socket" if unix else address,
                    "no client has an address" if unix else "all clients behind that peer are counted as one",
                    ["unix" if unix else str(address)],
                    also,
                )
            return

    def _walk(self, identity: str | None, lines: Sequence[str]) -> str | None:
        for host in _hosts(lines, self._header):
            seen = self._entry(host) if host is not None else None
            if seen is None:
                return identity
            if seen[0] is not None:  # a Unix socket between two proxies has no address; the one before it stands
                identity = seen[0]
            if not seen[1]:
                return identity
        return identity

    def _see_peer(self, peer: str | None) -> _Seen:
        if peer is None or _is_unix(peer):
            return None, self._unix
        address = _parse(_host(peer) or "")  # with a port where middleware copied an entry that has one
        if address is not None:
            return self._identify(address), self._trusts(address)
        return (peer if _TOKEN.fullmatch(peer) and peer.lower() != "unknown" else None), False

    def _see_entry(self, host: str) -> _Seen | None:
        if host == "unix:":
            return (None, True) if self._unix else None
        address = _parse(host)
        return None if address is None else (self._identify(address), self._trusts(address))

    def _identify(self, address: _Address) -> str:
        if isinstance(address, IPv4Address) or self._prefix == 128 or address in _EMBEDDING:
            return str(address)
        return f"{IPv6Address(int(address) & self._mask)}/{self._prefix}"

    def _trusts(self, address: _Address) -> bool:
        value = int(address)
        return any(value & mask == network for network, mask in self._networks[address.version])


def rewritten_by_server(
    peer: str | None, *, port: int | None, lines: Sequence[str], original: str | None = None
) -> str | None:
    """Whether the server, or middleware outside ours, already replaced the peer's address by one from a header.

    If so, who may speak for a client is decided there and not by ``trusted_proxies``; some of what decides there
    believes the left-most entry, which the client writes. Two signs are known. uvicorn, hypercorn and daphne set the
    port to 0, which no TCP peer has, beside an address out of X-Forwarded-For. werkzeug's ProxyFix keeps the peer's own
    address. Not seen is uvicorn where the entry it took had a port: a client could feign that by naming its own.

    Args:
        peer: the peer's address as handed to us.
        port: the peer's port as handed to us, or None where it is not known.
        lines: all lines of X-Forwarded-For.
        original: the peer's address before the replacement, where something outside kept it
            (``environ["werkzeug.proxy_fix.orig"]["REMOTE_ADDR"]``).

    Returns:
        A message naming the cause and the cure, or None.
    """
    if peer is None or len(peer) > _LONGEST:
        return None
    if original is not None and original != peer:
        return (
            f"ProxyFix replaced the peer's address {original!r} by {peer!r} before failsoft saw it. It believes the "
            "header whoever the peer is, and trusted_proxies is applied to the replaced address. Turn that part of it "
            "off (x_for=0) and name the proxies in trusted_proxies, or leave trusted_proxies empty and let only the "
            "proxy connect."
        )
    if port != 0:
        return None
    address = _parse(_host(peer) or "")
    if address is None or all(host is None or _parse(host) != address for host in _hosts(lines, "x-forwarded-for")):
        return None
    return (
        f"the server replaced the peer's address by {peer!r} from X-Forwarded-For before failsoft saw it, so its "
        "settings decide who may speak for a client, and trusted_proxies is applied to the replaced address. Turn it "
        "off (uvicorn: --no-proxy-headers; daphne: no --proxy-headers; hypercorn: no ProxyFixMiddleware) and name the "
        "proxies in trusted_proxies, or leave trusted_proxies empty and name them to the server (uvicorn: "
        "--forwarded-allow-ips)."
    )


def believed_from_afar(peer: str | None, original: str) -> str | None:
    """Whether ProxyFix believed a header that no proxy of one's own seems to have written, with no trusted proxies to compare with.

    Args:
        peer: the peer's address as handed to us.
        original: the peer's address before that: ``environ["werkzeug.proxy_fix.orig"]["REMOTE_ADDR"]``.

    Returns:
        A message naming the cause and the cure; or None, also where the peer was near by: there a proxy is likely, and a choice.
    """
    if original == peer or len(original) > _LONGEST or not _is_far(original):
        return None
    return (
        f"ProxyFix replaced the peer's address {original!r} by {(peer or '')[:_LONGEST]!r}, as it does whoever the peer is. If that "
        "peer is a proxy of yours and nobody else can connect, nothing is wrong. If it is a client, clients choose their addresses, and "
        "limits by address bind nobody: turn that part of it off (x_for=0), and name your proxies, if any, in trusted_proxies."
    )


@lru_cache(64)  # a proxy's is the same with each request, and of strangers only the first is asked about
def _is_far(peer: str) -> bool:
    address = None if _is_unix(peer) else _parse(_host(peer) or "")
    return address is not None and not (_is_near(address) or address.is_link_local)


def _is_near(address: _Address) -> bool:
    return any(address in network for network in _NEAR)


def _is_unix(peer: str) -> bool:
    return peer in _UNIX or peer.startswith("unix:")


def _parse(text: str) -> _Address | None:
    try:
        address = ip_address(text.partition("%")[0])
    except ValueError:
        return None
    return (address.ipv4_mapped or address) if isinstance(address, IPv6Address) else address


def _hosts(lines: Sequence[str], header: ForwardedHeader) -> Iterator[str | None]:
    """The entries from right to left, without their ports; None for one that names no host. Lazy and bounded."""
    entries, characters = MAX_ENTRIES, MAX_CHARACTERS
    split, host = (_split_plain, _host) if header == "x-forwarded-for" else (_split_forwarded, _forwarded_host)
    for line in reversed(lines):
        tail = line[-characters:]
        for entry in split(tail, whole=len(line) <= characters):
            yield host(entry.strip(" \t"))
            entries -= 1
            if not entries:
                return
        characters -= len(tail)
        if not characters:
            return


def _split_plain(tail: str, *, whole: bool) -> Iterator[str]:
    end = len(tail)
    while (comma := tail.rfind(",", 0, end)) >= 0:
        yield tail[comma + 1 : end]
        end = comma
    if whole:  # otherwise what is left is the end of a longer entry
        yield tail[:end]


def _split_forwarded(tail: str, *, whole: bool) -> Iterator[str]:
    """The elements of RFC 7239 section 4, from the right; an unbalanced quotation mark makes the rest one element."""
    end = at = len(tail)
    comma = tail.rfind(",")
    while True:
        if comma >= at:
            comma = tail.rfind(",", 0, at)
        close = tail.rfind('"', comma + 1, at)
        if close >= 0:  # the comma, if any, may lie inside this quoted string: go on to the left of it
            at = _opening(tail, close)
            if at < 0:
                break
        elif comma >= 0:
            yield tail[comma + 1 : end]
            end = at = comma
        else:
            break
    if whole:
        yield tail[:end]


def _opening(text: str, close: int) -> int:
    """Where the quoted string that ends at `close` begins, or -1: the next mark to the left that is not escaped."""
    at = text.rfind('"', 0, close)
    while at >= 0:
        backslashes = 0
        while backslashes < at and text[at - backslashes - 1] == "\\":
            backslashes += 1
        if backslashes % 2 == 0:
            return at
        at = text.rfind('"', 0, at)
    return -1


def _forwarded_host(element: str) -> str | None:
    found: str | None = None
    at = 0
    while at < len(element):
        if element[at] == ";":
            at += 1
            continue
        pair = _PAIR.match(element, at)
        if pair is None:
            return None
        if pair[1].lower() == "for":
            if found is not None:  # RFC 7239 section 4: a parameter must not occur more than once
                return None
            found = pair[3] if pair[2] is None else _ESCAPED.sub(r"\1", pair[2])
        at = pair.end()
    return None if found is None else _host(found)


def _host(node: str) -> str | None:
    """The host of ``192.0.2.1``, ``192.0.2.1:80``, ``[2001:db8::1]``, ``[2001:db8::1]:80`` or ``2001:db8::1``."""
    if len(node) > _LONGEST + len(":65535"):
        return None
    if node == "unix:":
        return node
    if node.startswith("["):
        host, bracket, port = node[1:].partition("]")
        usable = bracket and ":" in host and (not port or _PORT.fullmatch(port))
        return host if usable else None
    if node.count(":") == 1:
        host, _, port = node.partition(":")
        return host if _PORT.fullmatch(f":{port}") else None
    return node
