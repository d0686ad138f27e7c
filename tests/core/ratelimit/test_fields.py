"""The header fields are what the standards say they are, whatever the limits."""

from math import ceil

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from failsoft import limit
from failsoft.ratelimit.fields import legacy_fields, policy_member, rate_limit_field, rate_limit_format
from failsoft.testing import FaultyStore, ManualClock
from tests.core.ratelimit.structured import Member, parse_list
from tests.core.ratelimit.test_quota import QUOTAS
from tests.core.requests import FakeFacts, make_runtime, serve

NAMES = st.text("abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789-_.", min_size=1, max_size=30)


@pytest.mark.parametrize("wrong", ['"a";r=1.5', '"a";r=1234567890123456', '"a" "b"', '"a', "", '"a";R=1', '"a",', "ä"])
def test_the_parser_is_strict(wrong: str) -> None:
    """The parser that judges here refuses what the RFC refuses."""
    with pytest.raises(ValueError, match=r"^no "):
        parse_list(wrong)


@given(st.lists(st.tuples(NAMES, QUOTAS), min_size=1, max_size=5), st.integers(min_value=1, max_value=3))
@settings(deadline=None, max_examples=settings().max_examples // 2)
def test_fields_are_structured_lists(declared: "list[tuple[str, object]]", requests: int) -> None:
    """Both fields are lists of strings, of the same names in the same order, each once, with whole numbers as parameters."""

    def view() -> None: ...

    for name, quota in declared:
        view = limit(quota, name=name)(view)  # type: ignore[arg-type]  # quotas
    runtime = make_runtime(limits=["1/second"])
    for _ in range(requests):
        _, _, found = serve(runtime, FakeFacts(view))
        fields = dict(found)
        policy, state = parse_list(fields["RateLimit-Policy"]), parse_list(fields["RateLimit"])
        names = [member.value for member in policy]
        assert names == [member.value for member in state]
        assert len(set(names)) == len(names)
        assert "1-per-second" == names[0]
        for member in policy:
            assert ["q", "w"] == list(member.parameters)
            assert all(isinstance(number, int) and number >= 1 for number in member.parameters.values())
        for quota_member, member in zip(policy, state, strict=True):
            assert ["r", "t"] == list(member.parameters)
            assert 0 <= member.parameters["r"] <= quota_member.parameters["q"]
            # A sliding window forgets its units in the course of the window after it.
            assert 0 <= member.parameters["t"] <= 2 * quota_member.parameters["w"]


def test_members() -> None:
    """A policy tells its quota and window, a limit what remains and the whole seconds until there is more, rounded up."""
    assert [Member("a", {"q": 10, "w": 60})] == parse_list(policy_member("a", 10, 60))
    form = rate_limit_format(["a", "b"])
    rows = [1, 9, 59_001, 0, 0, 1]
    assert [Member("a", {"r": 9, "t": 60}), Member("b", {"r": 0, "t": 1})] == parse_list(rate_limit_field(form, rows))
    assert '"a";r=9;t=0' == rate_limit_field(rate_limit_format(["a"]), [1, 9, 0])


@given(st.lists(st.tuples(st.integers(0, 10**12), st.integers(0, 10**9)), min_size=1, max_size=5))
def test_field_of_any_number_of_limits(said: list[tuple[int, int]]) -> None:
    """However many limits there are, each has its own numbers, and milliseconds that have begun are a whole second."""
    names = [f"limit-{number}" for number in range(len(said))]
    rows = [number for remaining, reset in said for number in (1, remaining, reset)]
    expected = [Member(name, {"r": left, "t": ceil(end / 1000)}) for name, (left, end) in zip(names, said, strict=True)]
    assert expected == parse_list(rate_limit_field(rate_limit_format(names), rows))


@pytest.mark.parametrize(
    ("amounts", "rows", "expected"),
    [
        ([10, 100], [1, 9, 60_000, 1, 50, 1000], ("100", "50", "1001")),
        ([10, 100], [1, 0, 60_000, 1, 50, 1000], ("10", "0", "1060")),
        ([10, 100], [0, 3, 500, 1, 0, 1000], ("10", "3", "1001")),
        ([5], [1, 4, 0], ("5", "4", "1000")),
    ],
)
def test_legacy_fields(amounts: list[int], rows: list[int], expected: tuple[str, ...]) -> None:
    """The old fields tell of the limit that refuses, or else of the one with the least share left, and of its reset as a time."""
    names = ("X-RateLimit-Limit", "X-RateLimit-Remaining", "X-RateLimit-Reset")
    assert list(zip(names, expected, strict=True)) == legacy_fields(amounts, rows, 1000.0)


def test_degradation_is_a_structured_list() -> None:
    """The Degraded field is one too: a token for each part, with its reason."""
    store = FaultyStore()
    runtime = make_runtime(store=store, limits=["9/minute"])
    with store.away("no_connection"):
        fields = dict(serve(runtime, FakeFacts())[2])
    assert [Member("limits", {"reason": "no_connection"})] == parse_list(fields["Degraded"])


@given(
    quota=QUOTAS,
    waits=st.lists(st.integers(min_value=0, max_value=3_000_000), max_size=6),
    jitter=st.floats(min_value=0, max_value=0.999),
)
@settings(deadline=None)
def test_retry_after_is_never_early(quota: object, waits: "list[int]", jitter: float) -> None:
    """Whoever waits as long as Retry-After says is served, and it is never before the `t` of the limit that refused."""
    clock = ManualClock()
    capacity = quota.capacity  # type: ignore[attr-defined]  # a quota
    view = limit([quota], cost=capacity)(lambda: None)  # type: ignore[list-item]  # likewise
    runtime = make_runtime(clock=clock, random=lambda: jitter)
    serve(runtime, FakeFacts(view))
    for wait in waits:
        clock.advance(wait / 1_000_000)
        status, exchange, fields = serve(runtime, FakeFacts(view))
        if status == 429:
            rejected = exchange.rejection
            assert rejected is not None
            assert rejected.retry_after is not None
            assert rejected.retry_after >= parse_list(dict(fields)["RateLimit"])[0].parameters["t"]
            assert rejected.retry_after >= 1
            # Times of a distant day are told to less than a microsecond only.
            clock.advance(rejected.retry_after + 0.000_001)
            assert 200 == serve(runtime, FakeFacts(view))[0]
