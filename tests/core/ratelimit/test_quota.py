"""Quotas: the grammar, the bounds, and what clients are told."""

import inspect
import re
from typing import Any

import limits
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from failsoft import ConfigurationError, Quota, limit
from failsoft.exchange import Table, collect
from failsoft.inspection import RouteInfo, mistakes
from failsoft.ratelimit import Acquire, parse_quotas
from tests.core.requests import FakeFacts, make_runtime, serve
from tests.processes import run

YEAR = 360 * 86_400


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("10/minute", [Quota(amount=10, window=60)]),
        ("10 per 2 hours", [Quota(amount=10, window=7200)]),
        ("1/second; 5/minute", [Quota(amount=1, window=1), Quota(amount=5, window=60)]),
        (
            "1/second, 5/minute | 9/day ;",
            [Quota(amount=1, window=1), Quota(amount=5, window=60), Quota(amount=9, window=86_400)],
        ),
        ("1/month; 1/year", [Quota(amount=1, window=30 * 86_400), Quota(amount=1, window=YEAR)]),
        ("10/second burst 50", [Quota(amount=10, window=1, algorithm="gcra", burst=50)]),
        (
            "10/second BURST 50; 9/day",
            [Quota(amount=10, window=1, algorithm="gcra", burst=50), Quota(amount=9, window=86_400)],
        ),
        ("5/minute; 5/minute", [Quota(amount=5, window=60)]),
    ],
)
def test_grammar(text: str, expected: list[Quota]) -> None:
    """A string holds one or several quotas, each counted once."""
    assert expected == list(parse_quotas(text))


SPACE = st.sampled_from(["", "", " ", "\t\n"])
RATES = st.tuples(
    st.sampled_from(["1", "10", "10", "007", "007", "0", "9" * 5000, "", "-1", "\u0663"]),
    SPACE,
    st.sampled_from(["/", "/", "per", "per", "PER", "", ":"]),
    SPACE,
    st.sampled_from(["", "", "", "2", "00", "9" * 5000, "1.5"]),
    SPACE,
    st.sampled_from([*("second", "Minutes", "HOUR", "days", "month", "years"), "minut", "secondss", "per"]),
    SPACE,
).map("".join)


@given(RATES)
@example("10/minute")
@example("10 per 2 hours")
@example("10per0Years")
@settings(deadline=None)
def test_grammar_is_that_of_limits(text: str) -> None:
    """What `limits` understands, and nothing else, is understood, and means the same."""
    try:
        item = limits.parse(text)
    except ValueError:
        with pytest.raises(ConfigurationError):
            parse_quotas(text)
    else:
        if not item.amount:
            return  # that is no quota
        (quota,) = parse_quotas(text)
        assert (item.amount, item.get_expiry()) == (quota.amount, quota.window)


@pytest.mark.broad
def test_limits_is_imported_by_those_who_use_it() -> None:
    """Its import would take half of the time that an application with Failsoft needs to start."""
    program = "import sys, failsoft\nfailsoft.limit('10/minute')\nassert 'limits' not in sys.modules"
    assert 0 == run(program).returncode


@pytest.mark.parametrize(
    "given",
    [
        "",
        ";",
        "ten/minute",
        "10/fortnight",
        "10:minute",
        "10 minutes",
        "10/sec",
        "10",
        "0/minute",
        "10/minute burst 0",
        "10/minute burst",
        "-1/minute",
        b"10/minute",
        7,
        None,
        [3],
    ],
)
def test_what_is_no_limit(given: Any) -> None:
    """Whatever is not understood is an error, and never no limit."""
    with pytest.raises(ConfigurationError):
        parse_quotas(given)


def test_items_and_sequences() -> None:
    """Items of `limits`, quotas and strings may be mixed, nested, and come once each."""
    item = limits.RateLimitItemPerMinute(5)
    own = Quota(amount=1, window=7)
    assert (Quota(amount=5, window=60), own, Quota(amount=2, window=60)) == parse_quotas(
        [item, own, ["5/minute", "2/minute"]]
    )


def test_settings_reach_where_they_mean_something() -> None:
    """The settings' algorithm and alignment apply to strings; long windows and bursts cannot be aligned, quotas stay as they are."""
    aligned = parse_quotas("1/minute; 1/day; 1/month; 1/second burst 2", aligned=True)
    assert [True, True, False, False] == [quota.aligned for quota in aligned]
    own = Quota(amount=1, window=60)
    assert ("gcra", "fixed-window") == tuple(
        q.algorithm for q in parse_quotas(["1/minute", own], algorithm="gcra", aligned=True)
    )


@pytest.mark.parametrize(
    "arguments",
    [
        {"amount": 0},
        {"amount": 10**12 + 1},
        {"amount": 1.5},
        {"amount": float("nan")},
        {"amount": True},
        {"amount": "10"},
        {"window": 0},
        {"window": 0.5},
        {"window": 1.5},
        {"window": float("nan")},
        {"window": float("inf")},
        {"window": 100 * YEAR + 1},
        {"algorithm": "token-bucket"},
        {"burst": 5},
        {"algorithm": "gcra", "burst": 0},
        {"algorithm": "gcra", "burst": 10**9 + 1},
        {"algorithm": "gcra", "burst": 1.5},
        {"algorithm": "gcra", "window": YEAR, "amount": 1, "burst": 101},
        {"algorithm": "gcra", "amount": 60 * 10**6 + 1},
        {"algorithm": "gcra", "aligned": True},
        {"algorithm": "moving-window", "amount": 10_001},
        {"algorithm": "moving-window", "aligned": True},
        {"algorithm": "sliding-window-counter", "burst": 5},
        {"aligned": True, "window": 86_401},
    ],
)
def test_bounds(arguments: dict[str, Any]) -> None:
    """What no store could count exactly is an error when it is written down."""
    with pytest.raises(ConfigurationError):
        Quota(**{"amount": 10, "window": 60, **arguments})


def test_moving_window_names_its_cure() -> None:
    """Who asks for more than a moving window can remember is told what to take instead, in strings too."""
    with pytest.raises(ConfigurationError, match="use sliding-window-counter"):
        parse_quotas("10001/hour", algorithm="moving-window")
    assert 10_000 == parse_quotas("10000/hour", algorithm="moving-window")[0].capacity


@pytest.mark.parametrize("algorithm", ["fixed-window", "gcra", "sliding-window-counter", "moving-window"])
def test_algorithm_of_strings(algorithm: Any) -> None:
    """Strings are counted as the settings say, in every way that there is."""
    assert [algorithm] == [quota.algorithm for quota in parse_quotas("10/minute", algorithm=algorithm)]


def test_too_long_in_a_string() -> None:
    """A string is held to the same bounds."""
    with pytest.raises(ConfigurationError, match="100 years"):
        parse_quotas("1 per 1000000 year")


QUOTAS = st.one_of(
    st.builds(
        Quota,
        amount=st.integers(min_value=1, max_value=10**12),
        window=st.integers(min_value=1, max_value=100 * YEAR),
    ),
    st.builds(
        lambda amount, window, burst: Quota(
            amount=min(amount, window * 10**6),
            window=window,
            algorithm="gcra",
            burst=None
            if burst is None
            else max(1, min(burst, 100 * YEAR * 10**6 // -(-window * 10**6 // min(amount, window * 10**6)))),
        ),
        amount=st.integers(min_value=1, max_value=10**12),
        window=st.integers(min_value=1, max_value=YEAR),
        burst=st.none() | st.integers(min_value=1, max_value=10**9),
    ),
    st.builds(
        Quota,
        amount=st.integers(min_value=1, max_value=10**12),
        window=st.integers(min_value=1, max_value=100 * YEAR),
        algorithm=st.just("sliding-window-counter"),
    ),
    st.builds(
        Quota,
        amount=st.integers(min_value=1, max_value=10**4),
        window=st.integers(min_value=1, max_value=100 * YEAR),
        algorithm=st.just("moving-window"),
    ),
)


@given(QUOTAS)
@settings(deadline=None)
def test_what_clients_are_told_fits(quota: Quota) -> None:
    """Every number in a field has at most the fifteen digits that RFC 9651 allows, and the name needs no escape."""
    rows = Acquire([quota], ["key"], [1]).apply(Table(10), 1.7e9)
    numbers = [*quota.advertised, rows[1], -(-rows[2] // 1000)]
    assert all(0 <= number < 10**15 for number in numbers)
    assert rows[1] <= quota.advertised[0]
    assert re.fullmatch(r"\d+-per-(\d+-)?(second|minute|hour|day)s?", quota.name)


@given(QUOTAS, st.floats(min_value=1e-6, max_value=1))
@settings(deadline=None)
def test_share_is_a_quota(quota: Quota, part: float) -> None:
    """A process's share of any quota is a quota, of at least one unit and never more than the whole."""
    share = quota.share(part)
    assert (quota.window, quota.algorithm, quota.aligned) == (share.window, share.algorithm, share.aligned)
    assert 1 <= share.amount <= quota.amount
    assert max(1, int(quota.capacity * part * 0.499)) <= max(1, share.capacity) <= quota.capacity


@given(QUOTAS)
@settings(deadline=None)
def test_emission_never_gives_more_than_the_amount(quota: Quota) -> None:
    """Rounding of the refill never lets more than the amount come back in a window."""
    assert quota.emission * quota.amount >= quota.window * 1_000_000


def test_keys_tell_quotas_apart() -> None:
    """Quotas that count differently have different keys."""
    quotas = [
        Quota(amount=10, window=60),
        Quota(amount=10, window=60, aligned=True),
        Quota(amount=10, window=60, algorithm="gcra"),
        Quota(amount=10, window=60, algorithm="gcra", burst=1),
        Quota(amount=10, window=60, algorithm="sliding-window-counter"),
        Quota(amount=10, window=60, algorithm="moving-window"),
        Quota(amount=1, window=60),
        Quota(amount=10, window=600),
    ]
    assert len(quotas) == len({quota.key for quota in quotas})


@pytest.mark.parametrize(
    ("window", "name"),
    [
        (1, "second"),
        (60, "minute"),
        (3600, "hour"),
        (86_400, "day"),
        (90, "90-seconds"),
        (7200, "2-hours"),
        (YEAR, "360-days"),
    ],
)
def test_names(window: int, name: str) -> None:
    """The name says the amount and the window in its largest whole unit."""
    assert f"7-per-{name}" == Quota(amount=7, window=window).name


@pytest.mark.parametrize(
    ("arguments", "match"),
    [
        ({"quota": []}, "limits nothing"),
        (
            {"quota": "9/minute; 10/minute burst 20", "algorithm": "fixed-window"},
            "does not go with 10 per 60 s burst 20, which is counted by gcra: leave out algorithm, or burst",
        ),
        (
            {"quota": Quota(amount=9, window=60), "algorithm": "gcra"},
            "does not go with 9 per 60 s, which is counted by fixed-window: leave out algorithm, or give it to the Quota",
        ),
        ({"methods": []}, "never apply"),
        ({"methods": "GET"}, "list of methods"),
        ({"methods": ["BREW"]}, "BREW"),
        ({"cost": 0}, "cost"),
        ({"cost": -1}, "cost"),
        ({"cost": 1.5}, "cost"),
        ({"cost": True}, "cost"),
        ({"cost": 11}, "never fits"),
        ({"when": 7}, "when"),
        ({"by": 7}, "by"),
        ({"by": []}, "by"),
        ({"by": "header:"}, "by"),
        ({"by": "header:X Y"}, "by"),
        ({"by": "User"}, "by"),
        ({"by": [len, len]}, "at most one function"),
        ({"shared": "a b"}, "shared"),
        ({"shared": ""}, "shared"),
        ({"name": 'a"b'}, "name"),
        ({"name": "ä"}, "name"),
        ({"on_outage": "shut"}, "on_outage"),
        ({"on_missing": "unknown"}, "on_missing"),
        ({"algorithm": "sliding"}, "algorithm"),
        ({"on_outage": "opne"}, "must be one of 'open', 'closed', 'local'; did you mean 'open'"),
        ({"algorithm": "sliding-window"}, "did you mean 'sliding-window-counter'"),
        ({"on_missing": 5}, "on_missing=5: must be one of 'ip', 'exempt', 'refuse'$"),
        ({"quota": "10/2 days", "aligned": True}, "no effect on 10 per 172800 s, counted by fixed-window: "),
        ({"quota": "9/minute burst 20", "aligned": True}, "no effect on 9 per 60 s burst 20, counted by gcra: "),
        ({"quota": Quota(amount=20, window=60), "aligned": True}, "a Quota has its own; leave it out"),
        ({"algorithm": "gcra", "aligned": True}, "no effect on 10 per 60 s, counted by gcra: "),
        ({"quota": lambda _: None, "algorithm": "moving-window", "aligned": True}, "counted by moving-window"),
    ],
)
def test_wrong_declarations(arguments: dict[str, Any], match: str) -> None:
    """A wrong argument of a decorator is an error where it stands."""
    with pytest.raises(ConfigurationError, match=match):
        limit(**{"quota": "10/minute", **arguments})


def test_what_can_be_gone_through_once() -> None:
    """Quotas out of a generator are there for every route, and not only for the first look at them."""
    view = limit(text for text in ("1/day", "9/month"))(lambda: None)
    runtime = make_runtime()
    assert [200, 429] == [serve(runtime, FakeFacts(view))[0] for _ in range(2)]


@pytest.mark.parametrize("quota", ["10/day", "10/day; 99/month", "5/second burst 9; 10/day", lambda _: "99/month"])
def test_aligned_reaches_a_window(quota: Any) -> None:
    """What is aligned may stand beside what cannot be; what a function is going to return is not known."""
    assert limit(quota, aligned=True).aligned
    assert limit([Quota(amount=9, window=60, aligned=True)], aligned=True).aligned


def test_aligned_by_the_algorithm_of_the_settings() -> None:
    """Where the settings' algorithm knows no windows, what a limit says of its own is a mistake at start, and not without effect."""
    view = limit("10/minute", aligned=True)(lambda: None)
    routes = [RouteInfo("GET", "/", (view,))]
    assert [] == mistakes(make_runtime(), routes)
    (mistake,) = mistakes(make_runtime(algorithm="gcra"), routes)
    assert "aligned=True has no effect on 10 per 60 s, counted by gcra" in str(mistake)


@pytest.mark.parametrize(
    "use",
    [
        lambda view: view.__name__,  # Flask
        inspect.signature,  # FastAPI
        lambda view: view(object()),  # Django
        lambda view: view(object(), pk=1),
        lambda view: view({}, None, None),  # Starlette
    ],
)
def test_without_a_quota(use: Any) -> None:
    """Whoever writes @limit without parentheses is told to give a quota as soon as a framework takes the result for a view."""

    def view(request: Any) -> str:
        return "served"

    with pytest.raises(
        (ConfigurationError, AttributeError, ValueError), match=r'write @limit\("10/minute"\) above .*view'
    ):
        use(limit(view))


def test_a_function_in_place_of_the_quota_makes_a_decorator() -> None:
    """What is meant to be a decorator remains one, and looks like an object without a name."""
    decorator = limit(lambda request: "9/minute")
    assert (False, None) == (hasattr(decorator, "__name__"), getattr(limit("9/minute"), "__name__", None))

    @decorator
    def view(request: Any) -> str:
        return "served"

    assert (decorator,) == collect((view,))


@pytest.mark.parametrize(
    ("text", "meant"),
    [
        ("1000/minut", "did you mean '1000/minute'?"),
        ("10/m", "did you mean '10/minute'?"),
        ("5/second; 10 pre 2 huors", "did you mean '10 per 2 hour'?"),
        ("10/sec burts 5", "did you mean '10/second burst 5'?"),
        ("two/minute", "write '10/minute'"),
        ("10/fortnight, 3/x", "'10/fortnight', '3/x' are no limit: write"),
    ],
)
def test_the_nearest_limit(text: str, meant: str) -> None:
    """A text near a limit is told that one; any other how limits are written. Every wrong part is named."""
    with pytest.raises(ConfigurationError, match=re.escape(meant)):
        limit(text)
