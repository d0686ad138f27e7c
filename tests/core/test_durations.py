"""Durations: what people write, and the seconds it stands for."""

from datetime import timedelta
from math import inf, nan

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from failsoft.durations import seconds, spell
from tests.core.texts import any_text


@pytest.mark.parametrize(
    ("written", "expected"),
    [
        (0, 0.0),
        (3, 3.0),
        (0.25, 0.25),
        ("0.25", 0.25),
        ("10", 10.0),
        ("250ms", 0.25),
        ("100ms", 0.1),
        ("9ms", 0.009),
        ("10s", 10.0),
        ("1.5 s", 1.5),
        (" 5m ", 300.0),
        ("2h", 7200.0),
        ("14d", 1_209_600.0),
        (timedelta(minutes=1, milliseconds=5), 60.005),
    ],
)
def test_reads(written: object, expected: float) -> None:
    """Numbers, text with and without a unit, and timedeltas are seconds as a float."""
    actual = seconds(written)
    assert (float, expected) == (type(actual), actual)


@pytest.mark.parametrize(
    "written",
    [
        "",
        "s",
        "ten",
        "10 seconds",
        "5M",
        "1h30m",
        "-1s",
        "1_000",
        "0x10",
        "\u0661\u0660s",
        "nan",
        "inf",
        "1e999",
        "1s\n2s",
        "+1",
    ],
)
def test_refuses_text(written: str) -> None:
    """Text that is no single number with a known unit is refused, whatever float() would make of it."""
    with pytest.raises(ValueError, match="duration"):
        seconds(written)


@pytest.mark.parametrize("written", [-1, -0.1, inf, -inf, nan, 10**400, timedelta(seconds=-1)])
def test_refuses_numbers_out_of_range(written: object) -> None:
    """A duration is finite and not negative."""
    with pytest.raises(ValueError, match="duration"):
        seconds(written)


@pytest.mark.parametrize("written", [None, True, False, b"10s", [], {}, 1j])
def test_refuses_other_types(written: object) -> None:
    """What is no number, text or timedelta has the wrong type; a flag is no number."""
    with pytest.raises(TypeError):
        seconds(written)


@pytest.mark.parametrize(
    ("length", "expected"),
    [
        (0.0, "0s"),
        (0.01, "10ms"),
        (0.1, "100ms"),
        (5.0, "5s"),
        (90.0, "90s"),
        (300.0, "5m"),
        (7200.0, "2h"),
        (86400.0, "1d"),
    ],
)
def test_spells(length: float, expected: str) -> None:
    """Messages and pages name a duration in its longest whole unit."""
    assert expected == spell(length)


@given(st.floats(min_value=0, allow_nan=False, allow_infinity=False))
@settings(deadline=None)
def test_round_trip(length: float) -> None:
    """What `spell` writes, `seconds` reads back exactly."""
    assert length == seconds(spell(length))


@given(any_text() | st.text(alphabet="0123456789.e-+ smhd", max_size=30))
@settings(deadline=None)
def test_no_text_escapes(text: str) -> None:
    """Whatever the text, the answer is a duration or a ValueError."""
    try:
        length = seconds(text)
    except ValueError:
        return
    assert 0 <= length < inf
