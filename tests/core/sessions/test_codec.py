"""Session values: what comes back is what was put in, and what could not is refused at once."""

import json
from collections import OrderedDict, namedtuple
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta, timezone
from decimal import Decimal
from enum import IntEnum, StrEnum
from typing import Any
from uuid import UUID, SafeUUID
from zoneinfo import ZoneInfo

import msgspec
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

import failsoft.sessions.codec as module
from failsoft.errors import FailsoftError, SessionValueError
from failsoft.sessions.codec import MAX_DEPTH, decode, encode, is_immutable
from tests.core.texts import any_text
from tests.processes import run


class Role(StrEnum):
    """Equal to a str, and more than one."""

    ADMIN = "admin"


class Level(IntEnum):
    """Equal to an int, and more than one."""

    LOW = 1


Point = namedtuple("Point", ["x", "y"])


@dataclass
class Product:
    """What msgspec would write without being asked."""

    price: int


class Struct(msgspec.Struct):
    """What msgspec was made for."""

    price: int


class Token(dict[str, Any]):
    """A dict with more to it, as clients of OAuth give out."""


class Moment(datetime):
    """A datetime of a library of its own."""


class DriverUUID(UUID):
    """A UUID as a database driver makes them."""


class SafeText(str):
    """Text that templates do not escape, as another framework than markupsafe makes it."""

    __slots__ = ()

    def __html__(self) -> str:
        return self


def alike(first: Any, second: Any) -> bool:
    """Whether two values are equal and of equal types at every place; NaN of Decimals is itself."""
    if type(first) is not type(second):
        return False
    if type(first) is dict:
        return list(first) == list(second) and all(alike(first[name], second[name]) for name in first)
    if type(first) in (list, tuple):
        return len(first) == len(second) and all(map(alike, first, second))
    if type(first) is set:
        return len(first) == len(second) and all(any(alike(one, other) for other in second) for one in first)
    if type(first) is datetime:
        offset = first.utcoffset()
        same = offset == second.utcoffset() and first.replace(tzinfo=None) == second.replace(tzinfo=None)
        return same and (offset is not None or first.fold == second.fold)  # beside an offset, a fold says nothing
    if type(first) in (Decimal, float):
        return repr(first) == repr(second)
    return bool(first == second)


def offsets() -> st.SearchStrategy[timezone]:
    """Offsets from UTC as exact as Python has them."""
    most = timedelta(hours=24) - timedelta(microseconds=1)
    least = timedelta(seconds=1)
    return (st.just(timedelta()) | st.timedeltas(least, most) | st.timedeltas(-most, -least)).map(timezone)


elements = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(),
    st.integers(-(10**400), 10**400),
    st.floats(allow_nan=False, allow_infinity=False),
    any_text(),
    st.binary(),
    st.datetimes(timezones=st.none() | offsets()),
    st.datetimes().map(lambda moment: moment.replace(fold=1)),
    st.dates(),
    st.decimals(allow_nan=False, allow_infinity=True),
    st.uuids(),
)
atoms = elements | st.decimals(allow_nan=True)
names = any_text() | st.sampled_from(["$", "$$", "$tuple", "$set", "$html", "$datetime", "$$date", "$bytes", "$other"])
hashables = st.recursive(elements, lambda items: st.lists(items, max_size=3).map(tuple), max_leaves=4)
accepted = st.recursive(
    atoms | st.sets(hashables, max_size=4),
    lambda items: (
        st.lists(items, max_size=4) | st.lists(items, max_size=4).map(tuple) | st.dictionaries(names, items, max_size=4)
    ),
    max_leaves=12,
)
plain = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | any_text(),
    lambda items: st.lists(items, max_size=4) | st.dictionaries(names, items, max_size=4),
    max_leaves=12,
)


@settings(deadline=None)
@pytest.mark.broad
@given(accepted)
@example({"$tuple": [1]})
@example({"$$tuple": {"$date": "2026-01-01"}})
@example({"$": ()})
@example(['{"$date":"2026-01-01"}', '{"$'])
@example(2**63)
@example(-0.0)
@example(Decimal("-0E-7"))
@example(Decimal("-sNaN123"))
@example(datetime(1, 1, 1, tzinfo=timezone(timedelta(seconds=1, microseconds=1))))
def test_round_trip(value: Any) -> None:
    """What comes back is equal and of the same type, at every place inside."""
    assert alike(value, decode(encode("k", value)))


@settings(deadline=None)
@given(accepted)
def test_bytes_tell_changes(value: Any) -> None:
    """A value that was read is written as it was stored, so equal bytes mean that nobody changed it."""
    data = encode("k", value)
    assert data == encode("k", decode(data))


@settings(deadline=None)
@given(any_text(), accepted)
def test_text_that_looks_like_a_tag(text: str, value: Any) -> None:
    """A text may hold any encoded value; it stays a text."""
    texts = [text, encode("k", value).decode(), {"$": encode("k", [value]).decode()}]
    assert texts == decode(encode("k", texts))


def test_written_form() -> None:
    """The bytes are JSON with tags, which stay readable by later releases."""
    value = {
        "plain": [1, 1.5, "é", True, None],
        "pair": (1, b"\x00\xff"),
        "set": {3, 1, 2},
        "when": datetime(2026, 11, 23, 12, 30, tzinfo=UTC),
        "naive": datetime(2026, 10, 25, 2, 30, fold=1),
        "day": date(2026, 11, 23),
        "price": Decimal("9.90"),
        "id": UUID(int=1),
        "own": {"$set": 1},
    }
    written = {
        "plain": [1, 1.5, "é", True, None],
        "pair": {"$tuple": [1, {"$bytes": "AP8="}]},
        "set": {"$set": [1, 2, 3]},
        "when": {"$datetime": "2026-11-23T12:30:00+00:00"},
        "naive": {"$datetime": "2026-10-25T02:30:00/1"},
        "day": {"$date": "2026-11-23"},
        "price": {"$decimal": "9.90"},
        "id": {"$uuid": "00000000000000000000000000000001"},
        "own": {"$$set": 1},
    }
    assert json.dumps(written, ensure_ascii=False, separators=(",", ":")).encode() == encode("k", value)


@pytest.mark.parametrize("text", [SafeText("<b>"), SafeText("")])
def test_safe_text(text: SafeText) -> None:
    """Text that is safe in HTML comes back as markupsafe's, also from within a list."""
    markup = pytest.importorskip("markupsafe").Markup
    found = decode(encode("k", [text]))
    assert [(markup, str(text))] == [(type(item), str(item)) for item in found]


def test_safe_text_without_markupsafe(monkeypatch: pytest.MonkeyPatch) -> None:
    """Where markupsafe is missing, safe text comes back as text, to be escaped."""
    monkeypatch.setattr(module, "_Markup", None)
    found = decode(encode("k", SafeText("<b>")))
    assert (str, "<b>") == (type(found), found)


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        (OrderedDict(b=1, a=(2,)), {"b": 1, "a": (2,)}),
        (Token(access="t", claims=Token(sub="7")), {"access": "t", "claims": {"sub": "7"}}),
        (Token({"$date": 1}), {"$date": 1}),
        (Moment(2026, 11, 23, 12), datetime(2026, 11, 23, 12)),
        (DriverUUID(int=7), UUID(int=7)),
        (UUID(int=7, is_safe=SafeUUID.safe), UUID(int=7)),
    ],
    ids=lambda value: type(value).__name__,
)
def test_subclass_comes_back_as_its_base(value: Any, expected: Any) -> None:
    """Instances of a dict's, datetime's or UUID's subclass come back as what they equal."""
    assert alike(expected, decode(encode("k", value)))


@pytest.mark.parametrize("fold", [0, 1])
def test_zone_becomes_its_offset(fold: int) -> None:
    """In the hour that a clock shows twice, a zone's datetime keeps the moment it meant."""
    moment = datetime(2026, 10, 25, 2, 30, tzinfo=ZoneInfo("Europe/Berlin"), fold=fold)
    found = decode(encode("k", moment))
    assert (moment.timestamp(), moment.utcoffset()) == (found.timestamp(), found.utcoffset())


@pytest.mark.processes
@pytest.mark.once
def test_set_is_written_alike_everywhere() -> None:
    """The order of a set, another in each process, does not show in its bytes."""
    program = (
        "from failsoft.sessions.codec import encode\n"
        "print(encode('k', {'a', 'b', 'c', 'd', ('e', 1), ('f', None)}).decode())"
    )
    written = {run(program, PYTHONHASHSEED=seed).stdout for seed in ("1", "2")}
    assert {'{"$set":["a","b","c","d",{"$tuple":["e",1]},{"$tuple":["f",null]}]}\n'} == written


def nested(depth: int) -> list[Any]:
    """A list in a list, so many of them."""
    value: list[Any] = []
    for _ in range(depth - 1):
        value = [value]
    return value


def test_depth() -> None:
    """Containers may be `MAX_DEPTH` deep, whatever they are, and no deeper."""
    assert nested(MAX_DEPTH) == decode(encode("k", nested(MAX_DEPTH)))
    assert ({"k": nested(MAX_DEPTH - 2)},) == decode(encode("k", ({"k": nested(MAX_DEPTH - 2)},)))
    with pytest.raises(SessionValueError, match="is more than 64 containers deep"):
        encode("k", nested(MAX_DEPTH + 1))
    with pytest.raises(SessionValueError, match="is more than 64 containers deep"):
        encode("k", ({"k": nested(MAX_DEPTH - 1)},))


@pytest.mark.parametrize(
    ("value", "place", "reason"),
    [
        (object(), "", "is of type object"),
        ({"a": [1, {"b": Product(1)}]}, "['a'][1]['b']", f"is of type {__name__}.Product"),
        ([Struct(1)], "[0]", f"is of type {__name__}.Struct"),
        ((1, Role.ADMIN), "[1]", f"is of type {__name__}.Role"),
        ([Level.LOW], "[0]", f"is of type {__name__}.Level"),
        ([Point(1, 2)], "[0]", f"is of type {__name__}.Point"),
        (frozenset({1}), "", "is of type frozenset"),
        (bytearray(b"x"), "", "is of type bytearray"),
        (timedelta(1), "", "is of type datetime.timedelta"),
        (iter([1]), "", "is of type list_iterator"),
        ({"a": {1: 2}}, "['a']", "has a key of type int (1)"),
        ({None: 2}, "", "has a key of type NoneType (None)"),
        ({Role.ADMIN: 2}, "", "has a key of type Role (<Role.ADMIN: 'admin'>)"),
        (float("nan"), "", "is the float nan"),
        ([0.5, float("-inf")], "[1]", "is the float -inf"),
        ({"a": ("b", "\ud800")}, "['a'][1]", "has text with a lone surrogate"),
        ("\udfff", "", "has text with a lone surrogate"),
        ([{"\ud800": 1}], "[0]", "has text with a lone surrogate"),
        ({"a": 1, "b": {"c", "\ud800"}, "d": (2,)}, "['b'][", "has text with a lone surrogate"),
        ([1, 10**4300], "[1]", "is an int of more digits than"),
        (
            datetime(2026, 1, 1, tzinfo=timezone(timedelta(microseconds=-1))),
            "",
            "is a datetime less than a second off UTC",
        ),
        ({"x" * 99: object()}, f"['{'x' * 39}...]", "is of type object"),
    ],
    ids=range(22),
)
def test_refused(value: Any, place: str, reason: str) -> None:
    """What would not come back as it was is refused; the message says where it is, what it is, and what is accepted."""
    with pytest.raises(SessionValueError) as caught:
        encode("cart", value)
    message = str(caught.value)
    assert message.startswith(f"session['cart']{place}")
    assert reason in message
    assert "accepted: None, bool, int, float, str, list" in message
    assert isinstance(caught.value, FailsoftError)
    assert isinstance(caught.value, TypeError)


def test_refuses_what_contains_itself() -> None:
    """A value within itself, however often, is refused, and the message stays short."""
    value: dict[str, Any] = {}
    value["again"] = [value] * 3
    with pytest.raises(SessionValueError, match="within itself") as caught:
        encode("k", value)
    assert len(str(caught.value)) < 400


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"{",
        b"nul",
        b"NaN",
        b"1 2",
        b'"\xff"',
        b'"\\ud800"',
        b"[" * 100_000,
        b'{"$tuple":' * 5000 + b"1" + b"}" * 5000,
        b'{"$tuple":[' * 5000 + b"]}" * 5000,
        b'{"$unknown":1}',
        b'[{"$":1}]',
        b'{"$tuple":1}',
        b'{"$set":[[]]}',
        b'{"$set":[{"$tuple":[{}]}]}',
        b'{"$html":[]}',
        b'{"$datetime":1}',
        b'{"$datetime":"2026-13-01T00:00:00"}',
        b'{"$datetime":"2026-12-01T00:00:00/2"}',
        b'{"$date":"x"}',
        b'{"$decimal":"x"}',
        b'{"$decimal":1}',
        b'{"$uuid":"1"}',
        b'{"$bytes":"AP8"}',
        '{"$bytes":"é"}'.encode(),
        b"1" * 5000,
        b"1e999",
    ],
    ids=range(27),
)
def test_malformed(data: bytes) -> None:
    """Malformed bytes are a ValueError that shows nothing of them."""
    with pytest.raises(ValueError, match=r"^not a stored session value \(\w+\)$") as caught:
        decode(data)
    assert (ValueError, None) == (type(caught.value), caught.value.__cause__)


@settings(deadline=None, max_examples=2 * settings().max_examples)
@given(st.binary() | plain.map(lambda value: json.dumps(value, separators=(",", ":")).encode()), st.data())
def test_decode_is_total(data: bytes, draw: st.DataObject) -> None:
    """Any bytes, also encoded values cut short or with a byte changed, are a value or a ValueError."""
    if data and draw.draw(st.booleans(), label="changed"):
        at = draw.draw(st.integers(0, len(data) - 1), label="at")
        data = data[:at] + draw.draw(st.binary(max_size=2), label="put") + data[at + 1 :]
    kinds = []
    try:
        decode(data)
    except Exception as error:
        kinds.append(type(error))
    assert kinds in ([], [ValueError])


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        ("a", True),
        (1, True),
        (1.5, True),
        (False, True),
        (None, True),
        (b"a", True),
        (date(2026, 1, 1), True),
        (datetime(2026, 1, 1, tzinfo=UTC), True),
        (Decimal(1), True),
        (UUID(int=1), True),
        ((), True),
        ((1, ("a", (None,))), True),
        ((1, [2]), False),
        ((1, ({},)), False),
        ([], False),
        ({}, False),
        (set(), False),
        (object(), False),
        (Point(1, 2), False),
    ],
    ids=repr,
)
def test_is_immutable(value: object, expected: bool) -> None:
    """Atoms and tuples of them cannot change in place; whatever holds something else might."""
    assert expected is is_immutable(value)


def test_is_immutable_has_an_end() -> None:
    """A tuple deeper than any session value is not followed to its end."""
    value: tuple[Any, ...] = ()
    for _ in range(100_000):
        value = (value,)
    assert not is_immutable(value)
