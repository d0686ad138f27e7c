"""The contract of limits: how much passes, in how long, and what counts together."""

from typing import Any

import pytest

from failsoft.ratelimit import exempt, limit
from failsoft.testing.clock import ManualClock
from failsoft.testing.contract.base import Build, ContractBase, either_way
from failsoft.testing.faults import FaultyStore
from failsoft.testing.harness import Harness
from failsoft.testing.site import View

__all__ = ["LimitContract"]


def _asked(answer: Any, *, asynchronous: bool) -> Any:
    """A function of the request that says `answer`; what `answer` is a function of, it is asked of the request."""
    if asynchronous:

        async def ask(request: Any) -> Any:
            return answer(request) if callable(answer) else answer

        return ask

    def ask_sync(request: Any) -> Any:
        return answer(request) if callable(answer) else answer

    return ask_sync


class LimitContract(ContractBase):
    """How much passes, in how long, and what counts together."""

    def test_edge_of_a_limit(self, build: Build) -> None:
        """A limit admits exactly as many requests as it says, and refuses the next with 429."""
        app = build(View(path="/", decorators=[limit("3/minute")]))
        assert [200, 200, 200, 429, 429] == app.statuses(5, "/")

    def test_edge_of_a_window(self, build: Build, clock: ManualClock) -> None:
        """A fixed window starts with the first request and begins anew when it is over, not before."""
        app = build(View(path="/", decorators=[limit("2/minute")]))
        assert [200] == app.statuses(1, "/")
        clock.advance("20s")
        assert [200, 429] == app.statuses(2, "/")
        clock.advance("39999ms")
        assert [429] == app.statuses(1, "/")
        clock.advance("1ms")
        assert [200, 200, 429] == app.statuses(3, "/")

    def test_gcra_with_burst(self, build: Build, clock: ManualClock) -> None:
        """With a burst, that many pass at once, and then one for each emission interval."""
        app = build(View(path="/", decorators=[limit("1/second burst 3")]))
        assert [200, 200, 200, 429] == app.statuses(4, "/")
        clock.advance("999ms")
        assert [429] == app.statuses(1, "/")
        clock.advance("1ms")
        assert [200, 429] == app.statuses(2, "/")
        clock.advance("2s")
        assert [200, 200, 429] == app.statuses(3, "/")

    def test_algorithm_from_settings(self, build: Build, clock: ManualClock) -> None:
        """The setting `algorithm` decides for limits that do not."""
        app = build(View(path="/", decorators=[limit("2/minute")]), algorithm="gcra")
        assert [200, 200, 429] == app.statuses(3, "/")
        clock.advance("30s")
        assert [200, 429] == app.statuses(2, "/")

    def test_stacked_limits_all_or_none(self, build: Build, clock: ManualClock) -> None:
        """A request that one limit refuses is charged to none of the others."""
        app = build(View(path="/", decorators=[limit("5/hour", name="hour"), limit("2/minute", name="minute")]))
        assert [200, 200, 429, 429] == app.statuses(4, "/")
        assert 3 == app.get("/").limits["hour"].remaining
        clock.advance("1m")
        assert [200, 200] == app.statuses(2, "/")
        clock.advance("1m")
        assert [200, 429] == app.statuses(2, "/")

    def test_several_quotas_in_one_limit(self, build: Build, clock: ManualClock) -> None:
        """The quotas in one string are limits of their own, decided together."""
        app = build(View(path="/", decorators=[limit("2/minute; 3/hour")]))
        assert [200, 200, 429] == app.statuses(3, "/")
        clock.advance("1m")
        assert [200, 429] == app.statuses(2, "/")

    def test_default_limits_count_the_application(self, build: Build) -> None:
        """The setting `limits` counts the requests to all routes together, with those that have limits of their own."""
        app = build(View(path="/a"), View(path="/b", decorators=[limit("9/minute")]), limits=["3/minute"])
        assert [200, 200, 200, 429] == [app.get(path).status for path in ("/a", "/b", "/a", "/b")]

    def test_route_limits_count_each_route(self, build: Build) -> None:
        """The setting `route_limits` counts each route by itself; a view's own limits replace it."""
        app = build(
            View(path="/a"),
            View(path="/b"),
            View(path="/own", decorators=[limit("3/minute")]),
            route_limits=["2/minute"],
        )
        assert [200, 200, 429] == app.statuses(3, "/a")
        assert [200, 200, 429] == app.statuses(3, "/b")
        assert [200, 200, 200, 429] == app.statuses(4, "/own")

    def test_exempt(self, build: Build) -> None:
        """An exempt view is not counted against the settings' limits; its own limits still apply."""
        app = build(
            View(path="/counted"),
            View(path="/free", decorators=[exempt]),
            View(path="/own", decorators=[exempt, limit("2/minute")]),
            limits=["1/minute"],
            route_limits=["1/minute"],
        )
        assert [200, 200, 200] == app.statuses(3, "/free")
        assert [200, 200, 429] == app.statuses(3, "/own")
        assert [200, 429] == app.statuses(2, "/counted")

    def test_one_route_is_one_bucket(self, build: Build) -> None:
        """The values of a route's parameters make no buckets of their own."""
        app = build(View(path="/items/{id}", decorators=[limit("2/minute")]))
        assert [200, 200, 429] == [app.get(f"/items/{number}").status for number in (1, 2, 3)]

    def test_views_count_for_themselves(self, build: Build) -> None:
        """The same limit on two views is two limits."""
        same = limit("1/minute")
        app = build(View(path="/a", decorators=[same]), View(path="/b", decorators=[same]))
        assert [200, 200, 429, 429] == [app.get(path).status for path in ("/a", "/b", "/a", "/b")]

    def test_shared_by_name(self, build: Build) -> None:
        """Limits that share a name count together on every view."""
        app = build(
            View(path="/a", decorators=[limit("2/minute", shared="search")]),
            View(path="/b", decorators=[limit("2/minute", shared="search")]),
        )
        assert [200, 200, 429, 429] == [app.get(path).status for path in ("/a", "/b", "/a", "/b")]

    def test_per_method(self, build: Build) -> None:
        """With `per_method` each method has a count of its own."""
        app = build(View(path="/", methods=("GET", "POST"), decorators=[limit("1/minute", per_method=True)]))
        methods = ("GET", "POST", "GET", "POST")
        assert [200, 200, 429, 429] == [app.request(method, "/").status for method in methods]

    def test_methods_together(self, build: Build) -> None:
        """Without `per_method` all methods count together."""
        app = build(View(path="/", methods=("GET", "POST"), decorators=[limit("1/minute")]))
        assert [200, 429] == [app.request(method, "/").status for method in ("GET", "POST")]

    def test_methods(self, build: Build) -> None:
        """A limit with `methods` leaves the others alone."""
        app = build(View(path="/", methods=("GET", "POST"), decorators=[limit("1/minute", methods=["POST"])]))
        methods = ("GET", "POST", "POST", "GET")
        assert [200, 200, 429, 200] == [app.request(method, "/").status for method in methods]

    @pytest.mark.parametrize("per_method", [False, True])
    def test_head_counts_with_get(self, build: Build, per_method: bool) -> None:
        """HEAD is no way around a limit on GET."""
        app = build(View(path="/", decorators=[limit("2/minute", methods=["GET"], per_method=per_method)]))
        methods = ("GET", "HEAD", "HEAD", "GET")
        assert [200, 200, 429, 429] == [app.request(method, "/").status for method in methods]

    def test_invented_method(self, build: Build) -> None:
        """Methods that nobody knows are charged like all others, as one."""
        app = build(View(path="/"), limits=["2/minute"])
        statuses = [app.request(method, "/").status for method in ("BREW", "WHEN", "PROPFIND")]
        assert ([405, 405], 429) == (statuses[:2], statuses[2])

    def test_cost(self, build: Build) -> None:
        """A request takes as many units as its cost."""
        app = build(View(path="/", decorators=[limit("5/minute", cost=2)]))
        assert [200, 200, 429] == app.statuses(3, "/")

    @either_way
    def test_cost_of_a_request(self, build: Build, harness: Harness, asynchronous: bool) -> None:
        """A function of the request can say its cost; what costs nothing is never refused."""
        cost = _asked(lambda request: int(harness.header(request, "X-Cost") or "1"), asynchronous=asynchronous)
        app = build(View(path="/", decorators=[limit("5/minute", cost=cost)]))
        costs = ("3", "3", "2", "1", "0")
        assert [200, 429, 200, 429, 200] == [app.get("/", ("X-Cost", cost)).status for cost in costs]

    @either_way
    def test_when(self, build: Build, harness: Harness, asynchronous: bool) -> None:
        """A limit with `when` applies only where the function says so."""
        when = _asked(lambda request: harness.header(request, "X-Plan") == "free", asynchronous=asynchronous)
        app = build(View(path="/", decorators=[limit("1/minute", when=when)]))
        plans = ("free", "paid", "free", "paid")
        assert [200, 200, 429, 200] == [app.get("/", ("X-Plan", plan)).status for plan in plans]

    @either_way
    def test_quota_of_a_request(self, build: Build, harness: Harness, asynchronous: bool) -> None:
        """A function of the request can say the quota; None means no limit."""
        quotas = {"free": "1/minute", "paid": "2/minute"}
        quota = _asked(lambda request: quotas.get(harness.header(request, "X-Plan") or ""), asynchronous=asynchronous)
        app = build(View(path="/", decorators=[limit(quota)]))
        assert [200, 429] == app.statuses(2, "/", ("X-Plan", "free"))
        assert [200, 200, 429] == app.statuses(3, "/", ("X-Plan", "paid"))
        assert [200, 200, 200] == app.statuses(3, "/", ("X-Plan", "staff"))

    def test_disabled(self, build: Build, store: FaultyStore) -> None:
        """With ``enabled=False`` nothing is limited, wherever it was declared, and the store is not asked."""
        app = build(
            View(path="/", decorators=[limit("1/minute")]),
            limits=["1/minute"],
            route_limits=["1/minute"],
            enabled=False,
        )
        replies = [app.get("/"), app.get("/"), app.get("/")]
        assert [(200, None)] * 3 == [(reply.status, reply.header("RateLimit")) for reply in replies]
        assert [] == list(store.flights)
