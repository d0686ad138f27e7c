"""Limits that share a bucket on one route: it is charged once, and each penalty goes on guarding what it guarded."""

from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from failsoft import Penalty, Quota, limit
from failsoft.ratelimit.identity import IP
from failsoft.ratelimit.lines import Line, merged
from failsoft.testing import ManualClock
from tests.core.requests import FakeFacts, make_runtime, serve

STRICT = Penalty(after=1, block="1h")


def view_with(*policies: Any) -> Any:
    def view() -> str:
        return "ok"

    for policy in reversed(policies):
        view = policy(view)
    return view


@pytest.mark.parametrize("between", [[], [limit("100/minute", name="other")]], ids=["adjacent", "apart"])
@pytest.mark.parametrize("first", [True, False], ids=["guarded last", "guarded first"])
def test_a_shared_bucket_stays_guarded(between: list[Any], first: bool) -> None:
    """Whoever goes beyond a limit with a penalty is blocked, also where the same bucket is named without one elsewhere on the route."""
    clock = ManualClock()
    plain = limit("1/minute", shared="x")
    guarded = limit(["1/minute", "50/minute"], shared="x", penalty=STRICT)
    view = view_with(plain, *between, guarded) if first else view_with(guarded, *between, plain)
    runtime = make_runtime(clock=clock)
    assert [200, 429] == [serve(runtime, FakeFacts(view))[0] for _ in range(2)]
    clock.advance("2m")
    assert 429 == serve(runtime, FakeFacts(view))[0]


def test_what_was_never_guarded_brings_no_block() -> None:
    """Another limit of the route that refuses is no breach of the penalty."""
    clock = ManualClock()
    view = view_with(
        limit("9/minute", shared="x"),
        limit("1/minute", name="other"),
        limit(["9/minute", "50/minute"], shared="x", penalty=STRICT),
    )
    runtime = make_runtime(clock=clock)
    assert [200, 429] == [serve(runtime, FakeFacts(view))[0] for _ in range(2)]
    clock.advance("2m")
    assert 200 == serve(runtime, FakeFacts(view))[0]


def test_one_penalty_twice() -> None:
    """The same penalty on two limits of one name guards what either of them names."""
    clock = ManualClock()
    view = view_with(
        limit("9/minute", shared="x", penalty=STRICT), limit(["9/minute", "1/second"], shared="x", penalty=STRICT)
    )
    runtime = make_runtime(clock=clock)
    assert [200, 429] == [serve(runtime, FakeFacts(view))[0] for _ in range(2)]
    clock.advance("2m")
    assert 429 == serve(runtime, FakeFacts(view))[0]


def line_of(rule: Any, cost: int = 1) -> Line:
    return Line(
        rule,
        head="h",
        identity=IP,
        name=None,
        cost=cost,
        lease=0,
        on_outage="open",
        on_missing="ip",
        policy=None,
        source="test",
    )


@given(st.lists(st.tuples(st.lists(st.integers(0, 5), min_size=1, max_size=3), st.sampled_from("-pq")), max_size=5))
@settings(deadline=None)
def test_each_bucket_once(limits: list[tuple[list[int], str]]) -> None:
    """Whatever is named how often, each bucket is there once, at its highest cost, and a penalty stands behind what it guards."""
    lines: list[Line] = []
    keys: list[str] = []
    costs: list[int] = []
    guarded: dict[str, set[str]] = {}
    for place, (amounts, penalty) in enumerate(limits):
        for amount in amounts:
            lines.append(line_of(Quota(amount=amount + 10, window=60)))
            keys.append(str(amount))
            costs.append(place + 1)
        if penalty != "-":
            lines.append(line_of(STRICT))
            keys.append(penalty)
            costs.append(len(amounts))
            guarded.setdefault(penalty, set()).update(map(str, amounts))

    found, order, counts = merged(lines, keys, costs)

    assert sorted(set(keys)) == sorted(order)
    seen: set[str] = set()
    for i, key in enumerate(order):
        if isinstance(found[i].rule, Penalty):
            group = set(order[i - counts[i] : i])
            assert group <= guarded[key]
            seen |= group
        else:
            assert counts[i] == max(cost for one, cost in zip(keys, costs, strict=True) if one == key)
    assert set().union(*guarded.values()) == seen
