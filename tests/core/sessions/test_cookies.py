"""Cookies: written as browsers want them, found in whatever clients send."""

from email.utils import formatdate
from http.cookies import SimpleCookie
from typing import Any

import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from failsoft.errors import ConfigurationError
from failsoft.sessions.cookies import MAX_HEADER, MAX_NAME, MAX_VALUE, CookieStyle, values

NOW = 1_795_437_000.9
"""2026-11-23 12:30:00.9 UTC."""

NAME = "__Host-sid"


@pytest.mark.parametrize(
    ("style", "expected"),
    [
        (CookieStyle(name="sid"), "__Host-sid=v1; Path=/; Secure; HttpOnly; SameSite=Lax"),
        (CookieStyle(name="sid", secure=False), "sid=v1; Path=/; HttpOnly; SameSite=Lax"),
        (CookieStyle(name="sid", path="/app"), "sid=v1; Path=/app; Secure; HttpOnly; SameSite=Lax"),
        (
            CookieStyle(name="sid", domain="example.com", httponly=False, samesite="strict"),
            "sid=v1; Domain=example.com; Path=/; Secure; SameSite=Strict",
        ),
        (
            CookieStyle(name="sid", samesite="none", partitioned=True),
            "__Host-sid=v1; Path=/; Secure; HttpOnly; SameSite=None; Partitioned",
        ),
    ],
    ids=range(5),
)
def test_set_until_closed(style: CookieStyle, expected: str) -> None:
    """Without an age, a cookie has its attributes alone; its name is prefixed where a browser would take the prefix."""
    assert expected == style.set("v1", None, now=NOW)


def test_set_for_a_while() -> None:
    """With an age, a cookie says it in both ways."""
    expected = "sid=v1; Max-Age=3600; Expires=Mon, 23 Nov 2026 13:30:00 GMT; Path=/; HttpOnly; SameSite=Lax"
    assert expected == CookieStyle(name="sid", secure=False).set("v1", 3600, now=NOW)


@settings(deadline=None)
@given(st.integers(0, 253402300799))
def test_expires(at: int) -> None:
    """The date is what the standard library writes for the same moment."""
    assert f"; Expires={formatdate(at, usegmt=True)};" in CookieStyle(name="sid").set("", at, now=0.0)


def test_expires_has_an_end() -> None:
    """An age beyond the year 9999 ends with it: a date has no fifth digit."""
    assert "; Expires=Fri, 31 Dec 9999 23:59:59 GMT;" in CookieStyle(name="sid").set("", 10**12, now=NOW)


def test_delete() -> None:
    """A cookie is deleted with the attributes it was set with: browsers know it by them."""
    style = CookieStyle(name="sid", domain="example.com", path="/app", samesite="none", partitioned=True)
    expected = (
        "sid=; Max-Age=0; Expires=Thu, 01 Jan 1970 00:00:00 GMT; "
        "Domain=example.com; Path=/app; Secure; HttpOnly; SameSite=None; Partitioned"
    )
    assert expected == style.delete()


@pytest.mark.parametrize("style", [CookieStyle(name="sid"), CookieStyle(name="sid", path="/app", samesite="strict")])
def test_beside(style: CookieStyle) -> None:
    """A companion has the same attributes and prefix, and its own name."""
    companion = style.beside("-c")
    assert (f"{style.full_name}-c", "sid-c") == (companion.full_name, companion.name)
    assert style.set("", None, now=NOW).partition(";")[2] == companion.set("", None, now=NOW).partition(";")[2]


def test_style_is_a_value() -> None:
    """Styles of the same arguments are equal, have one hash, and show their arguments alone."""
    first, second = CookieStyle(name="sid", path="/app"), CookieStyle(name="sid", path="/app")
    assert (first, hash(first)) == (second, hash(second))
    assert first != CookieStyle(name="sid")
    assert (
        "CookieStyle(name='sid', domain=None, path='/app', secure=True, httponly=True, samesite='lax', partitioned=False)"
    ) == repr(first)


@pytest.mark.parametrize(
    "value", ["a b", "a;b", "a,b", 'a"b', "a\\b", "a\r\nSet-Cookie: b", "a\n", "\x00", "\x7f", "é", "…"]
)
def test_set_refuses_value(value: str) -> None:
    """A value with characters that would end it, or begin another field, is refused and not shown."""
    with pytest.raises(ValueError, match=r"the cookie __Host-sid has characters that no cookie may have; encode it$"):
        CookieStyle(name="sid").set(value, None, now=NOW)


def test_set_takes_every_octet() -> None:
    """Every cookie-octet of RFC 6265 is taken."""
    octets = "".join(chr(code) for code in range(0x21, 0x7F) if chr(code) not in '",;\\')
    assert f"__Host-sid={octets};" in CookieStyle(name="sid").set(octets, None, now=NOW)


def test_set_refuses_negative_age() -> None:
    """A negative age would delete the cookie by accident."""
    with pytest.raises(ValueError, match="max_age=-1 is negative"):
        CookieStyle(name="sid").set("v", -1, now=NOW)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"name": ""}, "the cookie name '' is not a token"),
        ({"name": "a b"}, "is not a token"),
        ({"name": "a=b"}, "is not a token"),
        ({"name": "sid\n"}, "is not a token"),
        ({"name": "__Host-sid"}, "begins with a prefix that browsers give a meaning; leave it out"),
        ({"name": "__sEcure-sid"}, "begins with a prefix"),
        ({"name": "a" * (MAX_NAME - 6)}, "has 97 characters; accepted: at most 96"),
        ({"name": "sid", "domain": ""}, "the cookie domain '' is not a host name"),
        ({"name": "sid", "domain": "a.example; Path=/"}, "is not a host name"),
        ({"name": "sid", "domain": "https://a.example"}, "is not a host name"),
        ({"name": "sid", "path": "app"}, "the cookie path 'app' must begin with '/'"),
        ({"name": "sid", "path": "/a;b"}, "must begin with '/' and have no semicolon"),
        ({"name": "sid", "path": "/\r\n"}, "must begin with '/'"),
        ({"name": "sid", "samesite": "Lax"}, "samesite='Lax' is not known; accepted: 'lax', 'strict', 'none'"),
        ({"name": "sid", "samesite": "none", "secure": False}, "samesite='none' needs secure=True"),
        ({"name": "sid", "partitioned": True, "secure": False}, "partitioned=True needs secure=True"),
    ],
    ids=range(16),
)
def test_style_refused(arguments: dict[str, Any], message: str) -> None:
    """A style that browsers would not take, or that would write other attributes, is refused."""
    with pytest.raises(ConfigurationError) as caught:
        CookieStyle(**arguments)
    assert message in str(caught.value)


@pytest.mark.parametrize(
    ("header", "expected"),
    [
        (None, []),
        ("", []),
        ("a=1", []),
        (f"{NAME}=v", ["v"]),
        (f"a=1; {NAME}=v; b=2", ["v"]),
        (f"a=1;{NAME}=v;b=2", ["v"]),
        (f"a=1; \t {NAME}= v \t; b=2", ["v"]),
        (f" {NAME}=v", ["v"]),
        (f"{NAME}=", [""]),
        (f"{NAME}=;", [""]),
        (f'{NAME}="v"', ["v"]),
        (f'{NAME}=""', [""]),
        (f'{NAME}="', ['"']),
        (f'{NAME}="v', ['"v']),
        (f"{NAME}=a=b==", ["a=b=="]),
        (f"{NAME}=v; {NAME}=w", ["v", "w"]),
        ("; ".join(f"{NAME}={index}" for index in range(9)), ["0", "1", "2", "3"]),
        (f"x{NAME}=no; {NAME}x=no; {NAME}=v", ["v"]),
        (f"a={NAME}=no; b=x {NAME}=no", []),
        (f"a={NAME}={NAME}=no; {NAME}=v", ["v"]),
        (f"{NAME}={NAME}=v", [f"{NAME}=v"]),
        (f"{NAME}; {NAME}=v", ["v"]),
        (f"{NAME} =no", []),
        (f"{NAME.lower()}=no", []),
        (f"=x; ;;; =; {NAME}=v; é=\x00", ["v"]),
        (f'a="; {NAME}=v; b="', ["v"]),
        (f'a="\\"; {NAME}="v"; b="\\"', ["v"]),
        (f"a=1, {NAME}=no", []),
    ],
    ids=range(28),
)
def test_values(header: str | None, expected: list[str]) -> None:
    """A cookie begins the header or follows a semicolon; quotation marks hide nothing; what is malformed is not there."""
    assert expected == values(header, NAME)


def test_values_are_bounded() -> None:
    """Values and headers beyond their bounds are not read, and the others are."""
    longest = "v" * MAX_VALUE
    assert ["w", longest] == values(f"{NAME}={longest}v; {NAME}=w; {NAME}={longest}", NAME)
    assert ["v"] == values(f"{NAME}=v;".ljust(MAX_HEADER), NAME)
    assert [] == values(f"{NAME}=v;".ljust(MAX_HEADER + 1), NAME)


octets = "".join(chr(code) for code in range(0x21, 0x7F) if chr(code) not in '",;\\')
tokens = st.text("ab-_.", min_size=1, max_size=3)
pairs = st.lists(st.tuples(tokens, st.text(octets) | st.text("ab=-_"), st.booleans()), min_size=1, max_size=6)


@settings(deadline=None)
@given(pairs, st.data())
def test_values_agree_with_the_standard_library(pairs: list[tuple[str, str, bool]], data: st.DataObject) -> None:
    """Of a well-formed header, the last value of each name is what http.cookies finds."""
    header = "; ".join(f'{name}="{value}"' if quoted else f"{name}={value}" for name, value, quoted in pairs)
    parsed: SimpleCookie = SimpleCookie(header)
    name = data.draw(st.sampled_from(sorted(parsed)))
    assume(sum(other == name for other, _, _ in pairs) <= 4)
    assert parsed[name].value == values(header, name)[-1]


@settings(deadline=None)
@given(st.text(f'{NAME}=;" \t,\\é\x00'), st.text("-_Hdisot", min_size=1))
def test_values_agree_with_splitting(header: str, name: str) -> None:
    """Of any header, what is found is what splitting it at semicolons finds."""
    expected = []
    for part in header.split(";"):
        found, equals, value = part.partition("=")
        if equals and found.lstrip(" \t") == name:
            value = value.strip(" \t")
            expected.append(value[1:-1] if len(value) > 1 and value[0] == value[-1] == '"' else value)
    assert expected[:4] == values(header, name)
