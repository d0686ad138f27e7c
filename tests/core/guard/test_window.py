"""The time window against a list that is counted anew each time."""

import math

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from failsoft.guard.window import Window

# Mostly steps within a window of four buckets of one second; a few beyond it, and back.
STEPS = st.sampled_from(
    [0.0, 0.25, 0.5, 1.0, 1.0, 2.0, 3.0, 3.75, 4.0, 5.0, 100.0, -0.25, -1.0, -2.0, -4.0, -5.0, -100.0]
)


def count(window: Window) -> tuple[int, int]:
    return window.calls - window.calls_before, window.failures - window.failures_before


@given(
    buckets=st.integers(1, 5),
    width=st.sampled_from([0.5, 1.0]),
    events=st.lists(st.tuples(STEPS, st.sampled_from(["success", "failure", "failure", "look", "clear"])), max_size=60),
)
@settings(deadline=None)
def test_counts_like_a_list(buckets: int, width: float, events: list[tuple[float, str]]) -> None:
    """Whatever happens in whatever order, the subtraction gives what counting gives."""
    window = Window(buckets * width, buckets)
    now, here = 1000.0, 0
    records: list[tuple[int, bool]] = []
    for step, event in events:
        now += step * width
        if event == "clear":
            window.clear()
            records = []
            continue
        if not window.start <= now < window.end:
            window.turn(now)
        bucket = math.floor(now / width)
        if bucket <= here - buckets:
            records = []
        if bucket <= here - buckets or bucket > here:
            here = bucket
        if event != "look":
            window.calls += 1
            window.failures += event == "failure"
            records.append((here, event == "failure"))
        recent = [failed for bucket, failed in records if bucket > here - buckets]
        assert count(window) == (len(recent), sum(recent))


@pytest.mark.parametrize("now", [0.0, 0.1 * 3, 1e9 + 0.7, 123456.7 / 3])
def test_a_width_that_does_not_divide(now: float) -> None:
    """Buckets of a tenth of a second have no exact edges: outcomes are counted all the same."""
    window = Window(1.0, 10)
    for _ in range(8):
        if not window.start <= now < window.end:
            window.turn(now)
        window.calls += 1
        now += 0.1
    assert count(window) == (8, 0)
