"""Header fields that are merged with those of a response."""

import time

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from failsoft.fields import MERGED, merge, with_fields

PRIVATE = ("Cache-Control", "private")
VARY = ("Vary", "Cookie")


@pytest.mark.parametrize(
    ("name", "value", "added", "expected"),
    [
        ("vary", "Accept", "Cookie", "Accept, Cookie"),
        ("vary", "Accept, cookie", "Cookie", "Accept, cookie"),
        ("vary", "accept,Accept ,, ,Origin", "Cookie", "accept, Origin, Cookie"),
        ("vary", "Accept, *", "Cookie", "*"),
        ("vary", "Accept", "*", "*"),
        ("vary", "", "Cookie", "Cookie"),
        ("cache-control", "", "private", "private"),
        ("cache-control", "public", "private", "private"),
        ("cache-control", "PUBLIC, max-age=1, s-maxage = 5", "private", "max-age=1, private"),
        ("cache-control", 'private="a, public", immutable', "private", "immutable, private"),
        ("cache-control", 'no-cache="public, \\", x", public', "private", 'no-cache="public, \\", x", private'),
        ("cache-control", 'no-cache="a, public', "private", 'no-cache="a, private'),
        ("cache-control", "public, max-age=1", "no-store", "no-store"),
        ("cache-control", "no-store", "private", "no-store, private"),
        ("cache-control", "max-age=1", "no-cache", "max-age=1, no-cache"),
    ],
)
def test_merge(name: str, value: str, added: str, expected: str) -> None:
    """What failsoft says holds beside what the view has said, as far as both can."""
    assert expected == merge(name, value, added)


@given(value=st.text(st.sampled_from('ab=," \\*\t'), max_size=40))
@settings(deadline=None)
def test_merged_twice(value: str) -> None:
    """Merging again changes nothing, whatever the view has said."""
    for name, added in (("vary", "Cookie"), ("cache-control", "private"), ("cache-control", "no-store")):
        once = merge(name, value, added)
        assert once == merge(name, once, added)


@pytest.mark.parametrize(
    ("headers", "expected"),
    [
        ([], [VARY, PRIVATE]),
        ([("Content-Type", "text/plain")], [("Content-Type", "text/plain"), VARY, PRIVATE]),
        ([("vary", "Accept")], [("vary", "Accept, Cookie"), PRIVATE]),
        (
            [("Vary", "A"), ("ETag", "1"), ("VARY", "a, B"), ("cache-control", "public"), ("vary", "C")],
            [("Vary", "A, B, C, Cookie"), ("ETag", "1"), ("cache-control", "private")],
        ),
    ],
    ids=["none", "others", "one", "several"],
)
def test_with_fields(headers: list[tuple[str, str]], expected: list[tuple[str, str]]) -> None:
    """Lines of one field become one, in the place of the first; the rest stays as it is."""
    assert [*expected, ("Set-Cookie", "a"), ("Set-Cookie", "b")] == with_fields(
        headers, [VARY, PRIVATE, ("Set-Cookie", "a"), ("Set-Cookie", "b")]
    )


def test_a_long_field() -> None:
    """What echoes its input into a field does not keep the process busy; what must go still goes."""
    began = time.process_time()
    long = "public, x=" + '\\"' * 50_000 + ", s-maxage=1"
    merged = merge("cache-control", long, "private")
    assert time.process_time() - began < 1.0  # 30 s by taking it apart with care
    assert ("x=", ", private") == (merged[:2], merged[-9:])


def test_what_is_not_added_stays() -> None:
    """Where failsoft says nothing of a field, the view's lines stay as they are."""
    lines = [("Vary", "A"), ("Vary", "a"), ("Cache-Control", "public, public")]
    assert [*lines, ("X", "1")] == with_fields(lines, [("X", "1")])


def test_names() -> None:
    """The names of merged fields are those that concerns write, and the same in lower case."""
    assert {name.lower() for name in MERGED} == {*MERGED.values()}
