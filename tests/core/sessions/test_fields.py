"""What is in a record: it is looked up as in a dict."""

from collections.abc import Mapping
from functools import lru_cache

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from failsoft.sessions.operations import NO_FIELDS, Fields
from failsoft.sessions.operations import fields as module

names = st.sampled_from(["", "@h", "a", "b", "ü ~", "a\0b\n", "€" * 500])
mappings = st.dictionaries(names, st.binary(max_size=5))


def size_of(fields: Mapping[str, bytes]) -> int:
    return sum(len(name) + len(data) for name, data in fields.items())


@settings(deadline=None)
@given(mappings, mappings, st.lists(names, max_size=3))
def test_fields_are_as_a_dict(fields: dict[str, bytes], more: dict[str, bytes], removed: list[str]) -> None:
    """From a server and from a mapping they are the same, and so is what becomes of them."""
    found = [Fields.of(fields)]
    if fields:  # a server has no empty hashes
        found.append(Fields.joined(module.SEPARATOR.join(name.encode() for name in fields), [*fields.values()]))
    expected = {name: data for name, data in {**fields, **more}.items() if name not in removed}

    for one in found:
        assert fields == one == Fields.of(fields)
        assert (list(fields), len(fields)) == (list(one), len(one))
        assert size_of(fields) == one.size()
        for name in ["", "@h", "a", "nobody's"]:
            assert (name in fields, fields.get(name), fields.get(name, b"-")) == (
                name in one,
                one.get(name),
                one.get(name, b"-"),
            )
        updated = one.updated(more, removed)
        assert (expected, size_of(expected)) == (updated, updated.size())
        assert fields == one  # it does not change


def test_no_fields() -> None:
    """There may be none; to ask for one by its name is then an error."""
    assert {} == NO_FIELDS
    with pytest.raises(KeyError, match="a"):
        NO_FIELDS["a"]


def test_names_are_taken_apart_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """Sets of names are remembered where they are few; many or long ones are read all the same, and fill no memory."""
    known = lru_cache(module._known.cache_parameters()["maxsize"])(module._taken_apart)
    monkeypatch.setattr(module, "_known", known)

    for number in range(3000):
        name = f"ü{number}"
        assert {"@h": b"1", name: b"\xff"} == Fields.joined(b"@h\xff" + name.encode(), [b"1", b"\xff"])
    assert (0, 1024) == (known.cache_info().hits, known.cache_info().currsize)
    assert {"@h": b"2", "ü2999": b""} == Fields.joined(b"@h\xff" + "ü2999".encode(), [b"2", b""])
    assert {"": b"1", "x" * 2000: b"2"} == Fields.joined(b"\xff" + b"x" * 2000, [b"1", b"2"])
    assert (1, 3000) == (known.cache_info().hits, known.cache_info().misses)


@pytest.mark.parametrize("names", [b"a\xff\xfe\xffb", b"a\xff\xfe", b"a\xffb\xffc", b"a"])
def test_what_is_no_record(names: bytes) -> None:
    """Where somebody else has put a name that is no text, no value is taken for another's."""
    with pytest.raises(ValueError, match=r"utf-8|names of 2 values"):
        Fields.joined(names, [b"1", b"2"])


def test_values_are_in_no_message() -> None:
    """What is shown of a record are its names."""
    assert "<Fields a, b>" == repr(Fields.of({"a": b"secret", "b": b"2"}))
