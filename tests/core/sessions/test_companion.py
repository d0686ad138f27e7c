"""Companion cookies and logout tickets: what was packed comes back to its own session, and nothing else does."""

import base64
import string
from typing import Any

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from failsoft.sessions.codec import decode, encode
from failsoft.sessions.companion import (
    MAX_SIZE,
    Companion,
    Companions,
    Ended,
    Remembered,
    RememberSeals,
    Ticket,
    Tickets,
    fits,
)
from failsoft.sessions.cookies import MAX_NAME, CookieStyle
from failsoft.sessions.seal import OVERHEAD, KeyRing
from tests.core.texts import any_text

RING = KeyRing("a secret for all of the tests", purpose="companion")
COMPANIONS = Companions(RING)
TICKETS = Tickets(RING)
BOUND = b"the session"

COMPANION = Companion(
    subject="user:42",
    generation=3,
    auth_time=1_795_430_000.25,
    version=17,
    issued=1_795_437_000.5,
    deadline=1_796_640_000.0,
    values=None,
)
TICKET = Ticket(ended=(Ended("abc", "d-1", "user:42"), Ended("def", "", None)), issued=1_795_437_000.5)

ALPHABET = string.ascii_letters + string.digits + "-_"
numbers = st.integers(-(2**63), 2**64 - 1)
times = st.floats(allow_nan=False)
companions = st.builds(
    Companion,
    subject=st.none() | any_text(),
    generation=numbers,
    auth_time=times,
    version=numbers,
    issued=times,
    deadline=times,
    values=st.none() | st.dictionaries(any_text(max_size=9), st.binary(max_size=99), max_size=5),
)
tickets = st.builds(
    Ticket,
    ended=st.lists(
        st.builds(Ended, any_text(max_size=20), any_text(max_size=20), st.none() | any_text(max_size=20)), max_size=5
    ).map(tuple),
    issued=times,
)


def bits(value: str) -> bytes:
    """What Base64 without padding stands for."""
    return base64.urlsafe_b64decode(f"{value}===")


@settings(deadline=None)
@given(companions, st.binary())
def test_companion_round_trip(companion: Companion, bound: bytes) -> None:
    """What was packed comes back to the session that it was packed for, as characters that a cookie may have."""
    value = COMPANIONS.pack(companion, bound)
    assert (companion, True) == (COMPANIONS.unpack(value, bound), set(value) <= set(ALPHABET))


@settings(deadline=None)
@given(tickets)
def test_ticket_round_trip(ticket: Ticket) -> None:
    """What was packed comes back, as characters that a cookie may have."""
    value = TICKETS.pack(ticket)
    assert (ticket, True) == (TICKETS.unpack(value), set(value) <= set(ALPHABET))


@settings(deadline=None)
@given(st.builds(Remembered, subject=any_text(), first=any_text(), newest=any_text()))
def test_remembered_round_trip(remembered: Remembered) -> None:
    """What was packed comes back, as characters that a cookie may have, and is neither a ticket nor read from one."""
    seals = RememberSeals(RING)
    value = seals.pack(remembered)
    assert (remembered, True) == (seals.unpack(value), set(value) <= set(ALPHABET))
    assert (None, None) == (TICKETS.unpack(value), seals.unpack(TICKETS.pack(TICKET)))


def test_snapshot() -> None:
    """A snapshot brings the encoded values back as they were stored."""
    stored = {"cart": encode("cart", [("a", 1)]), "fl:_flashes": encode("_flashes", [])}
    found = COMPANIONS.unpack(COMPANIONS.pack(msgspec.structs.replace(COMPANION, values=stored), BOUND), BOUND)
    assert found is not None
    assert found.values is not None
    assert {"cart": [("a", 1)], "fl:_flashes": []} == {name: decode(data) for name, data in found.values.items()}


def test_compact() -> None:
    """Without a snapshot, a companion takes 110 characters or fewer of each request; with an empty one it is told apart."""
    empty = msgspec.structs.replace(COMPANION, values={})
    assert len(COMPANIONS.pack(COMPANION, BOUND)) <= 110
    assert (None, {}) == tuple(
        found.values for each in (COMPANION, empty) if (found := COMPANIONS.unpack(COMPANIONS.pack(each, BOUND), BOUND))
    )


def test_other_session() -> None:
    """A companion beside another session's cookie is nothing."""
    assert COMPANIONS.unpack(COMPANIONS.pack(COMPANION, BOUND), b"another session") is None


def test_each_for_its_own() -> None:
    """A ticket is no companion and a companion no ticket, under one ring and whatever the companion is bound to."""
    packed = [COMPANIONS.pack(COMPANION, bound) for bound in (b"", b"ticket 2\0")]
    assert {None} == {TICKETS.unpack(value) for value in packed}
    assert {None} == {COMPANIONS.unpack(TICKETS.pack(TICKET), bound) for bound in (b"", b"ticket 2\0")}


@pytest.mark.parametrize("garbage", ["", "a", "aaaa", "=", "é" * 80, "\ud800", " ", "a" * 5000, "A" * 80])
def test_garbage(garbage: str) -> None:
    """What is no seal in Base64 is nothing."""
    assert (None, None) == (COMPANIONS.unpack(garbage, BOUND), TICKETS.unpack(garbage))


@settings(deadline=None)
@given(st.data())
def test_changed_text(data: st.DataObject) -> None:
    """With a character put in, taken out or replaced, a cookie is nothing, except where it says the same bits."""
    value = COMPANIONS.pack(COMPANION, BOUND)
    at = data.draw(st.integers(0, len(value) - 1))
    put = data.draw(any_text(max_size=2) | st.text(ALPHABET, max_size=2))
    changed = value[:at] + put + value[at + 1 :]
    found = COMPANIONS.unpack(changed, BOUND)
    same = set(changed) <= set(ALPHABET) and len(changed) % 4 != 1 and bits(changed) == bits(value)
    assert (COMPANION if same else None) == found


@pytest.mark.parametrize("also", ["+", "/", "=", "\n", " ", "."])
def test_nothing_beside_the_alphabet(also: str) -> None:
    """Characters that lenient decoders skip make a cookie nothing."""
    value = COMPANIONS.pack(COMPANION, BOUND)
    assert {None} == {
        COMPANIONS.unpack(each, BOUND) for each in (value + also, also + value, value[:9] + also + value[9:])
    }


@pytest.mark.parametrize(
    "content",
    [
        [],
        {},
        None,
        [None, 3, 1.0, 17, 1.0, 1.0],
        [None, 3, 1.0, 17, 1.0, 1.0, None, None],
        [7, 3, 1.0, 17, 1.0, 1.0, None],
        [None, 3.5, 1.0, 17, 1.0, 1.0, None],
        [None, 3, 1.0, 17, 1.0, 1.0, {"a": 1}],
        [None, 3, 1.0, 17, 1.0, 1.0, {1: b""}],
        [[["h", "d"]], 1.0],
        [[["h", "d", None, None]], 1.0],
        [[["h", None, None]], 1.0],
        [[["h", "d", None]], "now"],
    ],
    ids=range(13),
)
def test_sealed_nonsense(content: Any) -> None:
    """What has our seal but not our shape, of whatever release it is, is nothing."""
    packed = msgspec.msgpack.encode(content)
    companion, ticket = (
        base64.urlsafe_b64encode(RING.seal(packed, bound)).decode().rstrip("=")
        for bound in (b"companion 1\0" + BOUND, b"ticket 2\0")
    )
    assert (None, None) == (COMPANIONS.unpack(companion, BOUND), TICKETS.unpack(ticket))


@settings(deadline=None)
@given(st.binary() | st.integers(1, 90).map(lambda deep: b"\x97" + b"\xc0" * 6 + b"\x81\xa1a" * deep))
def test_sealed_bytes(packed: bytes) -> None:
    """Any sealed bytes are read or are nothing."""
    value = base64.urlsafe_b64encode(RING.seal(packed, b"companion 1\0" + BOUND)).decode().rstrip("=")
    assert COMPANIONS.unpack(value, BOUND) is None


def test_fits() -> None:
    """The longest value that fits makes, with the longest name, the 4096 bytes that browsers take; a longer one is not read."""
    longest = CookieStyle(name="n" * (MAX_NAME - len("__Host-"))).full_name
    assert (True, False) == (fits("v" * MAX_SIZE), fits("v" * (MAX_SIZE + 1)))
    assert len(longest) + MAX_SIZE <= 4096
    large = COMPANIONS.pack(msgspec.structs.replace(COMPANION, values={"a": bytes(MAX_SIZE)}), BOUND)
    assert (False, None) == (fits(large), COMPANIONS.unpack(large, BOUND))


def test_shows_no_values() -> None:
    """The repr of neither shows whose it is or what is in it."""
    snapshot = msgspec.structs.replace(COMPANION, values={"card": b'"4111"'})
    assert "<Companion generation=3 version=17 1 values>" == repr(snapshot)
    assert "<Companion generation=3 version=17 no snapshot>" == repr(COMPANION)
    assert "<Ticket issued=1795437000.5>" == repr(TICKET)


def test_another_secret_is_told_once(caplog: pytest.LogCaptureFixture) -> None:
    """The first companion that another secret sealed is told of, with the cure and without the cookie; neither what is malformed is, nor
    what is ours and of another session, nor a second one."""
    theirs = Companions(KeyRing("a secret of another process", purpose="companion")).pack(COMPANION, BOUND)
    ours = Companions(KeyRing("a secret of another process", ["a secret for all of the tests"], purpose="companion"))
    for value in ("", "A" * 80, "AQ" * 8, theirs[: OVERHEAD - 1], COMPANIONS.pack(COMPANION, BOUND), theirs):
        assert ours.unpack(value, b"another session") is None
    assert COMPANION == ours.unpack(theirs, BOUND)
    assert [] == caplog.records

    told = Companions(RING)
    assert [None] * 3 == [told.unpack(value, BOUND) for value in (theirs, theirs, "AQ" + theirs[8:])]
    (record,) = caplog.records
    assert ("failsoft.sessions", "WARNING") == (record.name, record.levelname)
    assert "secret_fallbacks" in record.getMessage()
    assert "forged" in record.getMessage()
    assert not any(theirs[at : at + 8] in record.getMessage() for at in range(len(theirs) - 7))
