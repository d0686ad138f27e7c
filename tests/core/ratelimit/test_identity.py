"""Whom a limit counts: kinds, escapes, secrets, and what is missing."""

import string
from collections.abc import Sequence
from functools import wraps
from inspect import signature
from typing import Any
from unittest.mock import Mock

import pytest
from hypothesis import assume, example, given, settings
from hypothesis import strategies as st

from failsoft import ConfigurationError, hashed, late, limit
from failsoft.exchange import NOT_YET, Exchange
from failsoft.ratelimit.identity import compile_identity, digest, escape
from failsoft.settings import SettingsError
from tests.core.requests import FakeFacts, make_runtime

RUNTIME = make_runtime(trusted_proxies=["10.0.0.0/8"])

ANY_TEXT = st.text(st.characters(), max_size=80)  # lone surrogates included
LONG = "x" * 65


def identity(by: Any, facts: FakeFacts | None = None, *, answer: Any = None, secret: bytes = b"") -> Any:
    """Whom `by` counts in a request, its function having answered `answer`."""
    compiled = compile_identity(by, secret=secret)
    exchange = Exchange(RUNTIME, facts or FakeFacts(), RUNTIME.plan(FakeFacts()))
    if compiled.question is not None:
        exchange.answers[compiled.question] = answer
    return compiled.of(exchange)


def function(request: Any) -> None: ...


@given(ANY_TEXT, ANY_TEXT)
@example("~" + digest(LONG), LONG)
@example("%7E", "~")
@example("\ud800", "?")
@example("\ud800", "\ud801")
@example("ä", "Ä")
@settings(deadline=None)
def test_escape_tells_all_values_apart(one: str, other: str) -> None:
    """Two values never come to the same part of a key, the digest of a long one included."""
    assume(one != other)
    assert escape(one) != escape(other)


@given(ANY_TEXT)
@settings(deadline=None)
def test_escaped_values_are_harmless(value: str) -> None:
    """What a client chose is printable ASCII, without separators, braces or blanks, and never long."""
    escaped = escape(value)
    assert set(escaped) <= set(string.ascii_letters + string.digits + "_.@-%~")
    assert len(escaped) <= 64 * 12


@given(st.lists(ANY_TEXT, min_size=1, max_size=4), st.lists(ANY_TEXT, min_size=1, max_size=4))
@example(["a:b", "c"], ["a", "b:c"])
@example(["a/b", "c"], ["a", "b/c"])
@example(["a", "b"], ["a:b"])
@example(["a+key", "b"], ["a", "key+b"])
@settings(deadline=None)
def test_tuples_never_meet(one: list[str], other: list[str]) -> None:
    """Two tuples of parts never make the same key, wherever their parts have separators."""
    assume(one != other and "" not in one and "" not in other)
    assert identity(function, answer=tuple(one)) != identity(function, answer=tuple(other))


@given(ANY_TEXT, ANY_TEXT, ANY_TEXT, ANY_TEXT)
@example("a+key:b", "c", "a", "b+key:c")
@settings(deadline=None)
def test_combinations_never_meet(user: str, key: str, other_user: str, other_key: str) -> None:
    """Two combinations of identities never make the same key."""
    assume((user, key) != (other_user, other_key) and all((user, key, other_user, other_key)))
    by = ["user", function]
    found = [identity(by, FakeFacts(user=u), answer=k) for u, k in ((user, key), (other_user, other_key))]
    assert found[0] != found[1]


@pytest.mark.parametrize(
    ("by", "expected"),
    [
        ("ip", "ip:192.0.2.1"),
        ("user", "user:alice"),
        ("route", "route:%2F"),
        ("header:X-Api-Key", f"header:x-api-key:{digest('alice')}"),
        (function, "key:alice"),
        (late(function), "key:alice"),
        (["ip", "user"], "ip:192.0.2.1+user:alice"),
        (("route", ["ip", function]), "route:%2F+ip:192.0.2.1+key:alice"),
    ],
)
def test_kinds(by: Any, expected: str) -> None:
    """Each identity says what kind it is, so that the same text of two kinds is two identities."""
    facts = FakeFacts(user="alice", headers={"x-api-key": "alice"})
    assert expected == identity(by, facts, answer="alice")


@pytest.mark.parametrize(
    ("by", "answer"),
    [
        ("user", None),
        ("header:X-Api-Key", None),
        (function, None),
        (function, ""),
        (function, ()),
        (function, ("tenant", None)),
        (function, ["tenant", ""]),
        (late(function), None),
        (["ip", "user"], None),
        (["ip", function], ""),
    ],
)
def test_missing(by: Any, answer: Any) -> None:
    """Without an identity, or without a part of it, there is none: those who lack it do not share one."""
    assert None is identity(by, FakeFacts(headers={"x-api-key": ""}), answer=answer)


def test_empty_user_is_missing() -> None:
    """A user with an empty name is nobody."""
    assert None is identity("user", FakeFacts(user=""))


def test_unknown_address_is_missing() -> None:
    """A request without an address has no identity; no two of them share one."""
    assert None is identity("ip", FakeFacts(address=None))


def test_falsy_answers_are_identities() -> None:
    """Zero and False are what a function said."""
    assert ["key:0", "key:False"] == [identity(function, answer=answer) for answer in (0, False)]


def test_not_yet_is_passed_on() -> None:
    """What is known only later is neither missing nor an identity, in a combination as well."""
    facts = FakeFacts(user=NOT_YET)
    assert [NOT_YET, NOT_YET] == [identity(by, facts) for by in ("user", ["ip", "user"])]


def test_api_keys_do_not_leave_the_process() -> None:
    """A header's value is not in the identity, and with a secret nobody can find it by trying."""
    facts = FakeFacts(headers={"x-api-key": "s3cret-key"})
    found = [identity("header:X-Api-Key", facts, secret=secret) for secret in (b"", b"one", b"two")]
    assert 3 == len(set(found))
    assert not any("s3cret" in one for one in found)


def test_addresses_behind_proxies() -> None:
    """The right-most address that no trusted proxy has is the client's, whatever stands to the left of it."""
    lines = ["203.0.113.9, 198.51.100.1", "10.0.0.2"]
    found = [
        identity("ip", FakeFacts(address=peer, headers={"x-forwarded-for": lines}))
        for peer in ("10.0.0.1", "192.0.2.1")
    ]
    assert ["ip:198.51.100.1", "ip:192.0.2.1"] == found


def test_ipv6_clients_are_networks() -> None:
    """A client that has a whole /64 is one client."""
    found = [identity("ip", FakeFacts(address=f"2001:db8::{n}")) for n in (1, 2)]
    assert ["ip:2001:db8::/64"] * 2 == found


def test_address_is_worked_out_once() -> None:
    """However many limits count it, the address of a request is resolved once."""
    asked: list[str] = []

    class Facts(FakeFacts):
        def header_lines(self, name: str) -> Sequence[str]:
            asked.append(name)
            return super().header_lines(name)

    exchange = Exchange(
        RUNTIME, Facts(address="10.0.0.1", headers={"x-forwarded-for": "192.0.2.9"}), RUNTIME.plan(FakeFacts())
    )
    assert ["ip:192.0.2.9"] * 3 == [compile_identity("ip").of(exchange) for _ in range(3)]
    assert ["x-forwarded-for"] == asked


@pytest.mark.parametrize(
    "by", ["", "IP", "header", "header:", "header:a b", "header:a\r\nb", "cookie:x", 7, None, [], [[]], {}]
)
def test_what_is_no_identity(by: Any) -> None:
    """Whatever cannot be understood is an error."""
    with pytest.raises(ConfigurationError):
        compile_identity(by)


@pytest.mark.parametrize("key", ["by", "cost", "when", "quota"])
@pytest.mark.parametrize(
    "wrong", [lambda: None, lambda one, two: None, lambda *, request: None], ids=["none", "two", "named"]
)
def test_functions_that_cannot_be_called(key: str, wrong: Any) -> None:
    """A function that does not take the request alone is an error when it is given, and not with each request."""
    with pytest.raises(ConfigurationError, match=rf"{key}=.*test_identity\.py:\d+\) is called with the request alone"):
        limit(**{"quota": "5/minute", key: wrong})
    if key == "by":
        for by in (hashed(wrong), ("ip", wrong)):
            with pytest.raises(ConfigurationError, match=r"by=.*is called with the request alone"):
                compile_identity(by)
        for by in (wrong, hashed(wrong), ("ip", wrong)):
            with pytest.raises(
                SettingsError, match=r"by'\]: .*test_identity\.py:\d+\) is called with the request alone.*E152"
            ):
                make_runtime(by=by)


@pytest.mark.parametrize(
    "by", [function, lambda request, more=1: None, lambda *all: None, str, late(lambda: None), Mock()]
)
def test_functions_that_can_be_called(by: Any) -> None:
    """More parameters do no harm if they need not be given; of some functions nothing is known, and late ones get the view's arguments."""
    assert limit("5/minute", by=by).by is by


def test_functions_that_a_decorator_completes() -> None:
    """What counts is what is called: a decorator may give the function that it wraps more than the request, or nothing."""

    def giving(function: Any) -> Any:
        @wraps(function)
        def called(request: Any) -> Any:
            return function(request, "database")

        return called

    @giving
    def tenant(request: Any, database: str) -> str:
        return database

    for key in ("by", "cost", "when", "quota"):
        limit(**{"quota": "5/minute", key: tenant})


def test_functions_whose_signature_cannot_be_had() -> None:
    """Annotations may name what is imported for type checkers alone; then nothing is known of the function, and it is accepted."""

    class Annotated:
        @property
        def __signature__(self) -> Any:
            raise NameError("name 'Request' is not defined")

        def __call__(self, request: Any) -> str:
            return "somebody"

    by = Annotated()
    assert by is limit("5/minute", by=by).by


@pytest.mark.parametrize("answer", [object(), (1, object()), (one for one in "generator")])
def test_objects_without_a_name(answer: Any) -> None:
    """By an object's place in memory nobody is known again: an error, in the place of a limit that never holds."""
    with pytest.raises(
        ConfigurationError, match=r"by=function \(.*test_identity\.py:\d+\) returned <.*; return what names it"
    ):
        identity(function, answer=answer)
    assert "key:%3Cobject%20object%20at%200x7f0a%3E" == identity(function, answer="<object object at 0x7f0a>")


@pytest.mark.parametrize("key", ["per_method", "peek", "adjustable", "shadow", "messages", "aligned"])
def test_switches(key: str) -> None:
    """A switch is True or False: "no" would be true."""
    with pytest.raises(ConfigurationError, match=f"{key}='no': must be True or False"):
        limit("5/minute", **{key: "no"})


def test_a_decorator_is_no_function() -> None:
    """Where a framework looks for the parameters of a function, and finds the decorator, it is told what to do."""
    with pytest.raises(ValueError, match=r"limit\('5/minute'\) is a decorator: put it on a function"):
        signature(limit("5/minute"))


def test_late_in_a_combination_is_late() -> None:
    """A late function in a combination makes the whole of it late."""
    question = compile_identity(["ip", late(function)]).question
    assert question is not None
    assert question.late
