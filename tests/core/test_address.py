"""The client's address: what proxies append is believed, what clients write is not."""

import gc
import logging
import threading
from collections.abc import Callable, Sequence
from ipaddress import IPv6Address
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from failsoft.address import (
    MAX_CHARACTERS,
    MAX_ENTRIES,
    AddressResolver,
    believed_from_afar,
    parse_proxy,
    rewritten_by_server,
)
from failsoft.errors import ConfigurationError
from tests.core.texts import any_text

PROXY = "10.0.0.1"
INNER = "10.0.0.2"
CLIENT = "203.0.113.9"
TRUSTED = ("10.0.0.0/8", "fd00::/8")


def lines_of(*lines: str, header: str = "x-forwarded-for") -> Callable[[str], Sequence[str]]:
    """A request's headers: `lines` for `header`, nothing for any other."""
    return lambda name: lines if name == header else ()


def found(*lines: str, peer: str | None = PROXY, trusted: Sequence[str] = TRUSTED, ipv6_prefix: int = 64) -> str | None:
    """Whom a request with these X-Forwarded-For lines is counted for."""
    return AddressResolver(trusted_proxies=trusted, ipv6_prefix=ipv6_prefix).resolve(peer, lines_of(*lines))


def found_in_forwarded(*lines: str, peer: str | None = PROXY, trusted: Sequence[str] = TRUSTED) -> str | None:
    """Whom a request with these Forwarded lines is counted for."""
    resolver = AddressResolver(trusted_proxies=trusted, header="forwarded")
    return resolver.resolve(peer, lines_of(*lines, header="forwarded"))


def never(name: str) -> Sequence[str]:
    """Headers that nobody may ask for."""
    raise AssertionError(f"{name} was read")


@pytest.mark.parametrize(
    ("peer", "expected"),
    [
        ("192.0.2.1", "192.0.2.1"),
        ("::ffff:192.0.2.1", "192.0.2.1"),
        ("::FFFF:C000:0201%eth0", "192.0.2.1"),
        ("2001:db8:0:1:ffff::1", "2001:db8:0:1::/64"),
        ("2001:0DB8:0000:0001:0000:0000:0000:0002", "2001:db8:0:1::/64"),
        ("fe80::1%eth0", "fe80::/64"),
        ("fe80::1%3", "fe80::/64"),
        ("192.0.2.1:5678", "192.0.2.1"),
        ("[2001:db8::1]:5678", "2001:db8::/64"),
        ("testclient", "testclient"),
        ("64:ff9b::192.0.2.1", "64:ff9b::c000:201"),
    ],
)
def test_peer_alone(peer: str, expected: str) -> None:
    """Without trusted proxies the peer is the client, in one canonical spelling, and no header is read."""
    assert expected == AddressResolver().resolve(peer, never)


@pytest.mark.parametrize("peer", [None, "", "unix:", "unix:/run/app.sock", "<local>", "localhost"])
def test_unix_socket_has_no_address(peer: str | None) -> None:
    """A Unix socket that is not trusted identifies nobody, and its headers are not read."""
    assert AddressResolver(trusted_proxies=TRUSTED).resolve(peer, never) is None


@pytest.mark.parametrize("peer", ["unknown", "Unknown", "_hidden", "a b", "a:b:c", "é", "1.2.3.4/8", "x" * 65, "-"])
def test_peer_that_names_nobody(peer: str) -> None:
    """A peer that is neither an address nor a test client's name is a missing identity, not a bucket called unknown."""
    assert AddressResolver().resolve(peer, never) is None


def test_untrusted_peer_is_not_asked_for_headers() -> None:
    """A client that is no proxy cannot speak for others, whatever it sends."""
    assert CLIENT == AddressResolver(trusted_proxies=TRUSTED).resolve(CLIENT, never)


@pytest.mark.parametrize("header", ["x-forwarded-for", "forwarded"])
def test_one_header_is_asked_for_by_its_name(header: str) -> None:
    """Only the configured header is read, by the name that requests carry (not X_FORWARDED_FOR)."""
    asked: list[str] = []

    def lines(name: str) -> Sequence[str]:
        asked.append(name)
        return [CLIENT if name == "x-forwarded-for" else f"for={CLIENT}"]

    resolver = AddressResolver(trusted_proxies=TRUSTED, header=header)  # type: ignore[arg-type]  # parametrized text
    assert (CLIENT, [header]) == (resolver.resolve(PROXY, lines), asked)


@pytest.mark.parametrize(
    ("lines", "expected"),
    [
        ([CLIENT], CLIENT),
        ([f"{CLIENT}, {INNER}"], CLIENT),
        ([f"{CLIENT},{INNER},10.9.9.9"], CLIENT),
        ([f"6.6.6.6, {CLIENT}"], CLIENT),
        ([f"6.6.6.6, {CLIENT}, {INNER}"], CLIENT),
        (["6.6.6.6", CLIENT], CLIENT),
        (["6.6.6.6", f"{CLIENT}, {INNER}", "10.9.9.9"], CLIENT),
        ([f"\t{CLIENT} , {INNER}\t"], CLIENT),
        ([f"{CLIENT}:51234"], CLIENT),
        ([f"{CLIENT}:51234, {INNER}:80"], CLIENT),
        (["2001:db8::1"], "2001:db8::/64"),
        (["[2001:db8::1]"], "2001:db8::/64"),
        (["[2001:db8::1]:443"], "2001:db8::/64"),
        (["2001:DB8::1, fd00::1"], "2001:db8::/64"),
        (["fe80::1%eth0"], "fe80::/64"),
        ([f"::ffff:{CLIENT}"], CLIENT),
        ([f"[::ffff:{CLIENT}]:443"], CLIENT),
        ([f"{CLIENT}, ::ffff:10.0.0.2"], CLIENT),
    ],
)
def test_walk(lines: list[str], expected: str) -> None:
    """Right to left past trusted proxies, over all lines in order; the first that is not trusted is the client."""
    assert expected == found(*lines)


def test_all_trusted() -> None:
    """A request that never left the trusted networks is counted for where it began."""
    origin = "10.3.3.3"
    assert origin == found(f"{origin}, {INNER}")


def test_trusted_peer_without_header() -> None:
    """A proxy's own request, such as a health check, is counted for the proxy."""
    assert PROXY == found()


GARBAGE = [
    "unknown",
    "UNKNOWN",
    "_hidden",
    "",
    " ",
    "-",
    "localhost",
    "example.com",
    "1.2.3",
    "1.2.3.4.5",
    "01.2.3.4",
    "1.2.3.256",
    "1.2.3.4:",
    "1.2.3.4:http",
    "1.2.3.4:123456",
    "1.2.3.4 5.6.7.8",
    "1.2.3.4;5.6.7.8",
    "[1.2.3.4]",
    "[::1",
    "::1]",
    "[::1]443",
    "[]",
    '"1.2.3.4"',
    "for=1.2.3.4",
    "\u0661.\u0662.\u0663.\u0664",
    "1.2.3.4\x00",
    "1.2.3.4\xa0",
    "0x7f000001",
    "2130706433",
    "1" * 5000,
    "unix:",
]


@pytest.mark.parametrize("garbage", GARBAGE)
def test_garbage_ends_the_walk(garbage: str) -> None:
    """Nothing behind an entry without an address is believed; the proxy that wrote it stands, never the text."""
    assert INNER == found(f"6.6.6.6, {garbage}, {INNER}")


@pytest.mark.parametrize("garbage", GARBAGE)
def test_garbage_from_the_nearest_proxy(garbage: str) -> None:
    """Where the nearest proxy names nobody, the request is counted for that proxy."""
    assert PROXY == found("6.6.6.6", garbage)


def test_client_cannot_choose_the_policy_for_missing_addresses() -> None:
    """No header of a request that has come through TCP makes its address missing."""
    assert {PROXY} == {found(garbage) for garbage in GARBAGE}


def test_unix_proxy() -> None:
    """A trusted proxy behind a Unix socket names the client; where it names nobody there is no address."""
    trusted = ("unix", *TRUSTED)
    assert (CLIENT, CLIENT, None, None) == (
        found(CLIENT, peer="", trusted=trusted),
        found(f"6.6.6.6, {CLIENT}, {INNER}", peer=None, trusted=trusted),
        found(peer="unix:", trusted=trusted),
        found("unknown", peer="", trusted=trusted),
    )


def test_unix_socket_between_two_proxies() -> None:
    """nginx writes "unix:" for a peer on a Unix socket: passed over if trusted, the end of the walk if not."""
    header = f"6.6.6.6, {CLIENT}, unix:"
    assert (CLIENT, PROXY, PROXY) == (
        found(header, trusted=("unix", *TRUSTED)),
        found(header),
        found("unix:", trusted=("unix", *TRUSTED)),
    )


@pytest.mark.parametrize(
    ("lines", "expected"),
    [
        ([f"for={CLIENT}"], CLIENT),
        ([f"For={CLIENT};Proto=https;By=10.0.0.1"], CLIENT),
        ([f'proto=http;FOR="{CLIENT}:4711"'], CLIENT),
        (['for="[2001:db8:cafe::17]:4711"'], "2001:db8:cafe::/64"),
        (['for="[2001:db8:cafe::17]"'], "2001:db8:cafe::/64"),
        (['for="[2001:db8:cafe::17]:_obf"'], "2001:db8:cafe::/64"),
        ([f"for=6.6.6.6, for={CLIENT}, for={INNER}"], CLIENT),
        (["for=6.6.6.6", f"for={CLIENT}"], CLIENT),
        ([f'for={CLIENT};host="a,b;for=6.6.6.6"'], CLIENT),
        ([f'for={CLIENT};host="a\\",for=6.6.6.6"'], CLIENT),
        ([f'for={CLIENT};host="a\\\\"'], CLIENT),
        ([f'for="{CLIENT[0]}\\{CLIENT[1:]}"'], CLIENT),
        ([f"for={CLIENT};;secret=x;"], CLIENT),
        ([f"for={CLIENT} ; proto=https"], CLIENT),
        ([f'for=", for={CLIENT}'], CLIENT),
        ([f'for="\\, for={CLIENT}'], CLIENT),
        ([f'x=", for="{CLIENT}"'], CLIENT),
        ([f'for="6.6.6.6, for={CLIENT};host="h"'], CLIENT),
        ([f"for={CLIENT}:80"], CLIENT),
    ],
)
def test_forwarded(lines: list[str], expected: str) -> None:
    """RFC 7239: parameters in any case and order, quoted strings, ports; an open quotation mark swallows nothing."""
    assert expected == found_in_forwarded(*lines)


@pytest.mark.parametrize(
    "garbage",
    [
        "for=unknown",
        "for=_hidden",
        'for="_SEVKISEK"',
        "proto=https",
        "for=",
        "for",
        "",
        'for=""',
        "for=1.2.3.4;for=5.6.7.8",
        "for=1.2.3.4;FOR=5.6.7.8",
        "for=1.2.3.4 for=5.6.7.8",
        "for =1.2.3.4",
        'for="1.2.3.4',
        'for=1.2.3.4"',
        'for="1.2.3.4"x',
        'for="1.2.3.4";host="a"b"',
        "1.2.3.4",
        'for="[1.2.3.4]"',
    ],
)
def test_forwarded_garbage_ends_the_walk(garbage: str) -> None:
    """An element without one legible address ends the walk, as in X-Forwarded-For."""
    assert INNER == found_in_forwarded("for=6.6.6.6", garbage, f"for={INNER}")


def test_long_header_is_read_at_its_right_end() -> None:
    """The client's share of a header costs nothing, however long; a trusted chain is followed for so many entries."""
    chain = [f"10.0.1.{n}" for n in range(MAX_ENTRIES + 5)]
    assert (CLIENT, CLIENT, chain[5], chain[5]) == (
        found("6.6.6.6," * 100_000 + CLIENT),
        found(*["6.6.6.6"] * 100_000, CLIENT),
        found(",".join([CLIENT, *chain])),
        found(CLIENT, *chain),
    )


@pytest.mark.parametrize(("beyond", "expected"), [(0, "::/64"), (1, INNER), (8, INNER)])
def test_entry_at_the_cut_is_not_read(beyond: int, expected: str) -> None:
    """Of an entry that begins beyond the bound nothing is read: its end may look like another address."""
    entry = "2001:db8::5"[-3 - beyond :]
    right = "," + INNER.rjust(MAX_CHARACTERS - 4)
    plain = found(entry + right)
    head = f"for={CLIENT};x=;for={CLIENT}"
    tail = f", for={INNER}"
    cut = found_in_forwarded(head.replace("x=", "x=" + "y" * (MAX_CHARACTERS - len(f";for={CLIENT}" + tail))) + tail)
    assert (expected, INNER) == (plain, cut)


def test_caches_are_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    """Neither many addresses nor long ones pile up in a resolver."""

    def caches_of(resolver: AddressResolver) -> list[Any]:
        return [one for one in gc.get_referents(resolver) if hasattr(one, "cache_info")]

    assert [4096, 4096] == [cache.cache_info().maxsize for cache in caches_of(AddressResolver())]
    monkeypatch.setattr("failsoft.address._CACHED", 100)
    resolver = AddressResolver(trusted_proxies=TRUSTED)
    caches = caches_of(resolver)
    resolver.resolve(PROXY, lines_of(CLIENT))
    resolver.resolve("x" * 1000, never)
    resolver.resolve(PROXY, lines_of("y" * 1000))
    assert [1, 1] == [cache.cache_info().currsize for cache in caches]
    for n in range(150):
        resolver.resolve(str(IPv6Address(n << 64)), never)
        resolver.resolve(PROXY, lines_of(str(IPv6Address(n))))
    assert [100, 100] == [cache.cache_info().currsize for cache in caches]


def test_shared_between_threads() -> None:
    """One resolver serves all threads."""
    resolver = AddressResolver(trusted_proxies=TRUSTED)
    answers: set[bool] = set()

    def work(offset: int) -> None:
        for n in range(500):
            address = f"198.51.{offset}.{n % 256}"
            answers.add(address == resolver.resolve(PROXY, lines_of(f"6.6.6.6, {address}")))

    threads = [threading.Thread(target=work, args=(n,)) for n in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert {True} == answers


@pytest.mark.parametrize(
    ("prefix", "expected"),
    [(32, "2001:db8::/32"), (48, "2001:db8:1::/48"), (56, "2001:db8:1:200::/56"), (128, "2001:db8:1:2ff::5")],
)
def test_ipv6_prefix(prefix: int, expected: str) -> None:
    """How much of an IPv6 address tells clients apart is configurable; 128 is the whole of it."""
    assert expected == AddressResolver(ipv6_prefix=prefix).resolve("2001:DB8:1:2ff::5%eth0", never)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("unix", "unix"),
        (" 10.0.0.7 ", "10.0.0.7/32"),
        ("10.0.0.0/8", "10.0.0.0/8"),
        ("0.0.0.0/0", "0.0.0.0/0"),
        ("FD00::/8", "fd00::/8"),
        ("::1", "::1/128"),
        ("::ffff:10.0.0.0/104", "10.0.0.0/8"),
        ("::ffff:0:0/96", "0.0.0.0/0"),
        ("::/0", "::/0"),
        ("::ffff:10.0.0.7", "10.0.0.7/32"),
    ],
)
def test_parse_proxy(text: str, expected: str) -> None:
    """Addresses, networks and "unix" are read; IPv4 mapped into IPv6 becomes IPv4."""
    assert expected == str(parse_proxy(text))


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("10.0.0.1/8", r"write 10\.0\.0\.0/8 for the network or 10\.0\.0\.1 for the one address"),
        ("fd00::1/8", "write fd00::/8 for the network"),
        ("10.0.0.0/33", "at most 32 bits"),
        ("::/129", "at most 128 bits"),
        ("10.0.0.0/255.0.0.0", "whole number of bits"),
        ("10.0.0.0/", "whole number of bits"),
        ("10.0.0.0/-1", "whole number of bits"),
        ("*", "0.0.0.0/0 and ::/0"),
        ("", "neither an address"),
        ("localhost", "neither an address"),
        ("010.0.0.1", "neither an address"),
        ("fe80::1%eth0", "leave the zone out"),
    ],
)
def test_parse_proxy_refuses(text: str, said: str) -> None:
    """What names no network is refused, with the right spelling where there is one."""
    with pytest.raises(ValueError, match=said):
        parse_proxy(text)


def test_trusts_networks_in_either_form() -> None:
    """IPv4 is trusted however it and its network are written, and no further than it is written."""
    trusted = ("::ffff:10.0.0.0/120", "fd00:1::/32")
    assert [CLIENT, CLIENT, "10.0.1.0", CLIENT, "fd00:2::/64"] == [
        found(CLIENT, peer=peer, trusted=trusted)
        for peer in ("10.0.0.255", "::ffff:10.0.0.9", "10.0.1.0", "fd00:1:ffff::9", "fd00:2::9")
    ]


def test_resolver_refuses_wrong_arguments() -> None:
    """A resolver that cannot work is not made."""
    with pytest.raises(ConfigurationError, match="32 to 128"):
        AddressResolver(ipv6_prefix=31)
    with pytest.raises(ConfigurationError, match=r"10\.0\.0\.0/8"):
        AddressResolver(trusted_proxies=["10.0.0.1/8"])
    with pytest.raises(ConfigurationError, match="'forwarded'"):
        AddressResolver(header="x-real-ip")  # type: ignore[arg-type]  # a mistake, on purpose


addresses = st.one_of(st.ip_addresses(v=4).map(str), st.ip_addresses(v=6).map(str))
BYSTANDER = "198.51.100.1"
clients = addresses.filter(lambda text: found(BYSTANDER, peer=text) != BYSTANDER)  # those that are not trusted
proxies = st.one_of(
    st.integers(0, 2**24 - 1).map(lambda n: f"10.{n >> 16}.{n >> 8 & 255}.{n & 255}"),
    st.integers(0, 2**32).map(lambda n: str(IPv6Address((0xFD00 << 112) + n))),
)
header_text = st.text(st.characters(max_codepoint=255, exclude_characters="\r\n\0"), max_size=60)
hostile = st.one_of(
    header_text,
    st.text(alphabet='",;=\\ []:for1.2', max_size=40),
    st.lists(addresses, max_size=5).map(", ".join),
    st.sampled_from(
        ['for="', 'for="\\', "for=6.6.6.6;host=", "[", "6.6.6.6:", "unknown", "," * 50, '"' * 51, "\\" * 33]
    ),
)


@given(client=clients, chain=st.lists(proxies, max_size=4), forged=st.lists(hostile, max_size=3), joined=st.data())
@settings(deadline=None)
def test_forged_x_forwarded_for_changes_nothing(
    client: str, chain: list[str], forged: list[str], joined: st.DataObject
) -> None:
    """Whatever a client sends, on its own lines or on those that the proxies go on with, the answer is its address."""
    lines = list(forged)
    for entry in [client, *chain]:
        if joined.draw(st.booleans()) and lines:
            lines[-1] += ", " + entry
        else:
            lines.append(entry)
    assert AddressResolver().resolve(client, lines_of(*lines)) == found(*lines)


def element(address: str, quoted: bool, extra: str) -> str:
    """What an honest proxy appends to Forwarded."""
    if ":" in address:
        address, quoted = f"[{address}]", True
    value = f'"{address}"' if quoted else address
    if not extra:
        return f"for={value}"
    escaped = extra.replace("\\", "\\\\").replace('"', '\\"')
    return f'for={value};host="{escaped}"'


@given(
    client=clients,
    chain=st.lists(proxies, max_size=4),
    forged=st.lists(hostile, max_size=3),
    hosts=st.lists(hostile, min_size=5, max_size=5),
    joined=st.data(),
)
@settings(deadline=None)
def test_forged_forwarded_changes_nothing(
    client: str, chain: list[str], forged: list[str], hosts: list[str], joined: st.DataObject
) -> None:
    """As above for RFC 7239, where quotation marks, and a Host that proxies copy, are the client's too."""
    lines = list(forged)
    for entry, host in zip([client, *chain], hosts, strict=False):
        text = element(entry, joined.draw(st.booleans()), host)
        if joined.draw(st.booleans()) and lines:
            lines[-1] += ", " + text
        else:
            lines.append(text)
    assert AddressResolver().resolve(client, lines_of(*lines, header="forwarded")) == found_in_forwarded(*lines)


@given(
    peer=st.none() | any_text(max_size=80) | addresses,
    lines=st.lists(any_text(max_size=80) | hostile, max_size=4),
    forwarded=st.booleans(),
)
@settings(deadline=None)
def test_nothing_raises_and_no_header_text_comes_out(peer: str | None, lines: list[str], forwarded: bool) -> None:
    """Whatever is received, the answer is the peer's own name, an address, a network, or nothing."""
    resolve = found_in_forwarded if forwarded else found
    answer = resolve(*lines, peer=peer, trusted=("0.0.0.0/0", "::/0", "unix"))
    if answer is not None and answer != peer:
        assert str(parse_proxy(answer)).removesuffix("/32").removesuffix("/128") == answer


@pytest.mark.parametrize("lines", [[CLIENT], [f"6.6.6.6, {CLIENT}, {INNER}"], ["6.6.6.6", f"{CLIENT}:99"]])
def test_server_that_rewrote(lines: list[str]) -> None:
    """Port 0 beside an address out of the header is how ASGI servers hand over a replaced address."""
    message = rewritten_by_server(CLIENT, port=0, lines=lines)
    assert message is not None
    assert [True, True, True] == [part in message for part in (CLIENT, "--no-proxy-headers", "trusted_proxies")]


@pytest.mark.parametrize(
    ("peer", "port", "lines"),
    [
        (CLIENT, 51234, [CLIENT]),
        (CLIENT, None, [CLIENT]),
        (CLIENT, 0, []),
        (CLIENT, 0, ["6.6.6.6"]),
        (None, 0, [CLIENT]),
        ("testclient", 0, ["testclient"]),
        ("x" * 100_000, 0, [CLIENT]),
    ],
)
def test_server_that_did_not_rewrite(peer: str | None, port: int | None, lines: list[str]) -> None:
    """A client that writes its own address into the header is no sign: it cannot choose port 0."""
    assert rewritten_by_server(peer, port=port, lines=lines) is None


def test_middleware_that_rewrote() -> None:
    """Middleware that kept the peer's own address has replaced it if the two differ."""
    message = rewritten_by_server(CLIENT, port=None, lines=[CLIENT], original=PROXY)
    assert message is not None
    assert [True, True, True] == [part in message for part in (CLIENT, PROXY, "x_for=0")]
    assert rewritten_by_server(CLIENT, port=None, lines=[CLIENT], original=CLIENT) is None


@pytest.mark.parametrize(
    ("peer", "original", "told"),
    [
        (CLIENT, "192.0.2.9", True),
        (None, "2001:db8::9", True),
        (CLIENT, "::ffff:192.0.2.9", True),
        (CLIENT, CLIENT, False),
        (CLIENT, "127.0.0.1", False),
        (CLIENT, "::ffff:10.1.2.3", False),
        (CLIENT, "169.254.1.1", False),
        (CLIENT, "fe80::7", False),
        (CLIENT, "", False),
        (CLIENT, "<local>", False),
        (CLIENT, "testclient", False),
        (CLIENT, "1" * 100_000, False),
    ],
)
def test_middleware_that_believes_strangers(peer: str | None, original: str, told: bool) -> None:
    """Who connects from far away and is believed is told of, with the cure; a neighbour is likely to be a proxy."""
    message = believed_from_afar(peer, original)
    assert told == (message is not None and f"{original!r} by {peer or ''!r}" in message and "x_for=0" in message)


@pytest.fixture
def said(caplog: pytest.LogCaptureFixture) -> Callable[[], list[str]]:
    """What the log has: each line's place, level and text."""
    caplog.set_level(logging.DEBUG, "failsoft")
    return lambda: [f"{one.name} {one.levelname} {one.getMessage()}" for one in caplog.records]


@pytest.mark.parametrize(
    ("peer", "header", "expected"),
    [
        (
            "127.0.0.1",
            "x-forwarded-for",
            ["X-Forwarded-For came from 127.0.0.1,", "counted as one.", "set trusted_proxies to ['127.0.0.1'];"],
        ),
        ("::ffff:10.1.2.3", "x-forwarded-for", ["came from 10.1.2.3,", "set trusted_proxies to ['10.1.2.3'];"]),
        ("fd00::7", "x-forwarded-for", ["came from fd00::7,", "set trusted_proxies to ['fd00::7'];"]),
        ("100.64.0.9", "x-forwarded-for", ["came from 100.64.0.9,"]),
        (
            "",
            "x-forwarded-for",
            ["came from a Unix socket,", "no client has an address.", "set trusted_proxies to ['unix'];"],
        ),
        (None, "x-forwarded-for", ["came from a Unix socket,"]),
        (
            "192.168.0.1",
            "forwarded",
            ["Forwarded came from 192.168.0.1,", "['192.168.0.1'] and forwarded_header to 'forwarded';"],
        ),
    ],
)
def test_proxy_that_nobody_trusts(
    peer: str | None, header: str, expected: list[str], said: Callable[[], list[str]]
) -> None:
    """A forwarding header from a peer near by, where no proxy is trusted, is told once: the peer, and the setting to write."""
    resolver = AddressResolver()
    lines = lines_of(
        f"unknown, {CLIENT}" if header == "x-forwarded-for" else f"for=unknown, for={CLIENT}", header=header
    )
    alone = AddressResolver().resolve(peer, lines_of())
    assert [alone] * 3 == [resolver.resolve(peer, lines) for _ in range(3)]
    [line] = said()
    assert line.startswith("failsoft WARNING ")
    assert [True] * len(expected) == [part in line for part in expected]


@pytest.mark.parametrize(
    ("trusted", "peer", "lines"),
    [
        pytest.param((), PROXY, [], id="no header"),
        pytest.param((), CLIENT, ["6.6.6.6"], id="a client"),
        pytest.param((), "testclient", ["6.6.6.6"], id="a test"),
        pytest.param((), PROXY, [f"6.6.6.6, {PROXY}"], id="replaced by the server"),
        pytest.param(TRUSTED, PROXY, [CLIENT], id="trusted"),
        pytest.param(("192.168.0.1",), PROXY, [CLIENT], id="another is trusted"),
    ],
)
def test_no_proxy_to_tell_of(
    trusted: Sequence[str], peer: str, lines: list[str], said: Callable[[], list[str]]
) -> None:
    """Nothing is said where no proxy speaks, where one is trusted, or where the server has dealt with it."""
    AddressResolver(trusted_proxies=trusted).resolve(peer, lines_of(*lines))
    assert [] == said()


def test_a_look_at_the_first_requests_only() -> None:
    """A service whose peers are all near by and no proxies does not look for headers for ever."""
    resolver, asked = AddressResolver(), list[str]()

    def lines(name: str) -> Sequence[str]:
        asked.append(name)
        return ()

    for _ in range(1500):
        resolver.resolve(PROXY, lines)
    assert 2 * 1000 == len(asked)
    resolver._looks = -1  # two threads have taken the last one
    resolver.resolve(PROXY, lines)
    assert 2 * 1000 == len(asked)


def test_once_said_nobody_looks(said: Callable[[], list[str]]) -> None:
    """After the warning no header is asked for; and threads that find it at the same time say it once."""
    resolver, together = AddressResolver(), threading.Barrier(8)

    def lines(name: str) -> Sequence[str]:
        together.wait(30)
        return [CLIENT]

    threads = [threading.Thread(target=resolver.resolve, args=(PROXY, lines)) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert PROXY == resolver.resolve(PROXY, never)
    assert 1 == len(said())
