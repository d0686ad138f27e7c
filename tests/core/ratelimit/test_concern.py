"""Limits on a request: which apply, whom they count, and what comes of it."""

import asyncio
from typing import Any

import pytest

from failsoft import ConfigurationError, LimitDecided, Quota, exempt, late, limit
from failsoft.errors import OperationFailed
from failsoft.exchange import NOT_YET
from failsoft.ratelimit import Acquire
from failsoft.stores import MemoryStore
from failsoft.stores.redis.commands import answers
from failsoft.testing import FaultyStore, ManualClock
from tests.core.ratelimit.structured import parse_list
from tests.core.requests import FakeFacts, make_runtime, serve, serving


def view_with(*policies: Any) -> Any:
    """A view with `policies`, the first outermost; a new function each time."""

    def view(*args: Any, **kwargs: Any) -> None: ...

    for policy in reversed(policies):
        view = policy(view)
    return view


def statuses(runtime: Any, n: int, *args: Any, **kwargs: Any) -> list[int]:
    return [serve(runtime, FakeFacts(*args, **kwargs))[0] for _ in range(n)]


def names(runtime: Any, *args: Any, **kwargs: Any) -> list[Any]:
    """The policies that a response tells of, in order."""
    fields = dict(serve(runtime, FakeFacts(*args, **kwargs))[2])
    return [member.value for member in parse_list(fields["RateLimit"])] if "RateLimit" in fields else []


def keys(store: MemoryStore) -> list[str]:
    return [*store.table._entries, *store.table._kept]


def test_what_applies_where() -> None:
    """The settings' limits everywhere, `route_limits` on routes without limits of their own, and a view's own on top."""
    runtime = make_runtime(limits=["9/hour"], route_limits=["9/minute"])
    own = limit("9/second")
    assert ["9-per-hour", "9-per-minute"] == names(runtime, view_with())
    assert ["9-per-hour", "9-per-second"] == names(runtime, view_with(own))
    assert [] == names(runtime, view_with(exempt))
    assert ["9-per-second"] == names(runtime, view_with(exempt, own))
    assert ["9-per-hour", "9-per-minute"] == names(runtime, None, route=None)


def test_second_keys_are_of_each_client() -> None:
    """A sliding window's second key is made for each request, however many there were before."""
    store = MemoryStore()
    runtime = make_runtime(store=store, limits=["9/minute"], algorithm="sliding-window-counter")
    for number in range(3):
        exchange = runtime.begin(FakeFacts(address=f"192.0.2.{number}"))
        head = f"failsoft:1:rl:app:9/60s:{{ip:192.0.2.{number}}}"
        assert [head, head + "/-1"] == exchange.join(exchange.plan)[0].operations[0].keys


def test_scopes() -> None:
    """`limits` count the whole application, `route_limits` each template, a view's own limit each view."""
    runtime = make_runtime(limits=["100/hour"], route_limits=["2/minute"])
    view = view_with(limit("2/second"))
    assert [200, 200, 429] == statuses(runtime, 3, None, route="/a/{id}")
    assert [200, 200, 429] == statuses(runtime, 3, None, route="/b/{id}")
    assert [200, 200, 429] == statuses(runtime, 3, view, route="/c")
    assert '"100-per-hour";r=93' in dict(serve(runtime, FakeFacts(view_with(), route="/d"))[2])["RateLimit"]


def test_keys() -> None:
    """A key says the prefix, the schema, what it counts, the quota and whom; its parts are escaped."""
    store = MemoryStore(clock=ManualClock())
    runtime = make_runtime(store=store, prefix="shop", limits=["9/hour"], route_limits=["8/minute"])
    serve(runtime, FakeFacts(None, route="/a:b/{id}"))
    view = view_with(limit("7/minute", shared="search", per_method=True, by="user"))
    serve(runtime, FakeFacts(view, method="HEAD", user="a:b"))
    assert {
        "shop:1:rl:app:9/3600f:{ip:192.0.2.1}",
        "shop:1:rl:route:%2Fa%3Ab%2F%7Bid%7D:8/60f:{ip:192.0.2.1}",
        "shop:1:rl:shared:search:GET:7/60f:{user:a%3Ab}",
    } == set(keys(store))


def test_hashed_keys() -> None:
    """With `hash_keys` no address and no user is in the store, and another secret makes other keys."""
    found = []
    for secret in ("one", "two"):
        store = MemoryStore(clock=ManualClock())
        runtime = make_runtime(store=store, hash_keys=True, secret=secret * 8, limits=["9/hour"])
        serve(
            runtime,
            FakeFacts(
                view_with(limit("9/minute", by="user"), limit(lambda request: "8/minute", by="user")), user="alice"
            ),
        )
        found.append(keys(store))
    assert [3, 3] == [len(one) for one in found]
    assert set(found[0]).isdisjoint(found[1])
    assert not any("alice" in key or "192.0.2.1" in key for one in found for key in one)


def test_route_identity_without_a_declaration(monkeypatch: pytest.MonkeyPatch) -> None:
    """Counting by route in the settings alone counts each route, so the route must be known."""
    monkeypatch.setattr("failsoft.runtime.declared_version", lambda: 0)  # as where no view is decorated
    assert not make_runtime(limits=["1/minute"]).needs_route
    for by in ("route", ["ip", "route"]):
        runtime = make_runtime(limits=["1/minute"], by=by)
        assert runtime.needs_route
        assert [200, 200, 429, 429] == [
            status for route in ("/a", "/b", "/a", "/b") for status in statuses(runtime, 1, route=route)
        ]


@pytest.mark.parametrize(
    ("on_missing", "address", "expected"),
    [
        ("ip", "192.0.2.1", [200, 429]),
        ("ip", None, [403, 403]),
        ("exempt", "192.0.2.1", [200, 200]),
        ("refuse", "192.0.2.1", [403, 403]),
    ],
)
@pytest.mark.parametrize("where", ["limit", "settings"])
def test_missing_identity(on_missing: Any, address: str | None, expected: list[int], where: str) -> None:
    """Without its identity a limit counts the address, does not apply, or refuses; nobody shares a bucket of the unknown."""
    if where == "limit":
        runtime, view = make_runtime(), view_with(limit("1/minute", by="user", on_missing=on_missing))
    else:
        runtime, view = make_runtime(limits=["1/minute"], by="user", on_missing=on_missing), None
    assert expected == statuses(runtime, 2, view, address=address)
    if on_missing == "ip" and address:
        assert [200] == statuses(runtime, 1, view, address="192.0.2.2")


def test_refusal_for_a_missing_identity_charges_nothing() -> None:
    """Whoever is refused because he cannot be counted is charged nothing, and learns why."""
    store = FaultyStore()
    runtime = make_runtime(store=store, limits=["9/minute"])
    status, exchange, _ = serve(runtime, FakeFacts(view_with(limit("1/minute", by="user", on_missing="refuse"))))
    assert (403, 0) == (status, len(store.flights))
    assert exchange.rejection is not None
    assert ["1-per-minute"] == exchange.rejection.problem.members["violated-policies"]
    assert "no such identity" in exchange.rejection.problem.detail


@pytest.mark.parametrize(
    ("settings", "address", "cause", "cure"),
    [
        ({}, None, "the server names no peer, as over a Unix socket", "add 'unix' to trusted_proxies"),
        ({"on_missing": "refuse"}, "", "the server names no peer, as over a Unix socket", "add 'unix'"),
        ({"trusted_proxies": ["10.0.0.0/8"]}, "unix:", "calls the peer 'unix:', which is no address", "add 'unix'"),
        ({"trusted_proxies": ["unix"]}, None, "no address into x-forwarded-for", "let it write that header, or set"),
    ],
)
def test_unknown_address(
    settings: Any, address: str | None, cause: str, cure: str, caplog: pytest.LogCaptureFixture
) -> None:
    """Clients hear that their address is not known; why that is, and what to set, is in the log, once."""
    runtime = make_runtime(limits=["9/minute"], **settings)
    for _ in range(2):
        status, exchange, _ = serve(runtime, FakeFacts(address=address))
        assert exchange.rejection is not None
        assert (403, "This request cannot be counted against the policy 9-per-minute: its address is not known.") == (
            status,
            exchange.rejection.problem.detail,
        )
    logged = [one.message for one in caplog.records if one.name == "failsoft.ratelimit"]
    assert (1, True, True) == (len(logged), cause in logged[0], cure in logged[0])


def test_unknown_user_in_the_settings_counts_the_address() -> None:
    """The settings' limits are decided early: a user that is known only later is counted by address until then."""
    runtime = make_runtime(limits=["1/minute"], by="user")
    assert [200, 429] == statuses(runtime, 2, user=NOT_YET)


@pytest.mark.parametrize("cost", [10, 11, 10**6, 10**30, pytest.param(10**5000, id="5001 digits")])
@pytest.mark.parametrize("quota", [Quota(amount=9, window=60), Quota(amount=9, window=60, algorithm="gcra")])
def test_cost_beyond_any_quota(cost: int, quota: Quota) -> None:
    """A request whose cost never fits, however large, is refused and charged nothing; its numbers stay in bounds."""
    view = view_with(limit(quota, cost=lambda request: request.who))
    runtime = make_runtime(store=FaultyStore(clock=ManualClock()))
    status, _, fields = serve(runtime, FakeFacts(view, user=cost))  # type: ignore[arg-type]  # the cost, in this test
    assert 429 == status
    state = parse_list(dict(fields)["RateLimit"])[0].parameters
    assert (9, True) == (state["r"], 0 <= state["t"] <= 120)
    assert 200 == serve(runtime, FakeFacts(view, user=9))[0]  # type: ignore[arg-type]  # likewise


@pytest.mark.parametrize("cost", [-1, 1.5, True, "1", None, float("nan")])
def test_wrong_cost(cost: Any) -> None:
    """A cost that is no number of units is the author's mistake, and charges nothing."""
    view = view_with(limit("9/minute", cost=lambda request: cost, name="named"))
    runtime = make_runtime()
    with pytest.raises(ConfigurationError, match="cost function returned"):
        serve(runtime, FakeFacts(view))


@pytest.mark.parametrize("quota", ["nonsense", 7, "0/minute"])
def test_wrong_quota(quota: Any) -> None:
    """A function that returns no quota is the author's mistake, not no limit."""
    runtime = make_runtime()
    with pytest.raises(ConfigurationError):
        serve(runtime, FakeFacts(view_with(limit(lambda request: quota))))


def test_cost_nothing() -> None:
    """A request that costs nothing is not counted and told nothing."""
    runtime = make_runtime(store=(store := FaultyStore()))
    assert [] == names(runtime, view_with(limit("1/minute", cost=lambda request: 0)))
    assert 0 == len(store.flights)


def test_one_bucket_is_charged_once() -> None:
    """Limits that come to the same counter in one request charge it once; clients see it once."""
    view = view_with(limit("5/minute", shared="one", by="ip"), limit("5/minute", shared="one", by=["ip"]))
    assert ["5-per-minute"] == names(make_runtime(), view)


def test_the_settings_function_is_asked_once() -> None:
    """A function that the settings count by is asked once in a request, however many limits use it."""
    asked: list[Any] = []

    def who(request: Any) -> str:
        asked.append(request)
        return "alice"

    runtime = make_runtime(limits=["9/minute", "99/hour"], by=who)
    assert 4 == len(names(runtime, view_with(limit("8/minute"), limit("7/minute"))))
    assert 1 == len(asked)


def test_awaitable_answers_of_plain_functions() -> None:
    """A lambda around a coroutine function is awaited like one, with either driver; its answer counts, not its object."""

    async def plan(request: Any) -> str:
        return "1/minute"

    async def who(request: Any) -> str:
        return "alice"

    async def no(request: Any) -> bool:
        return False

    counted = view_with(
        limit(lambda request: plan(request), by=lambda request: who(request), cost=lambda request: one())
    )
    spared = view_with(limit("1/minute", when=lambda request: no(request)))

    async def one() -> int:
        return 1

    runtime = make_runtime()
    assert [200, 429] == statuses(runtime, 2, counted)
    assert [200, 200] == statuses(runtime, 2, spared)

    async def served(view: Any) -> list[bool]:
        return [await runtime.aadmit(runtime.begin(FakeFacts(view, route="/async"))) is None for _ in range(2)]

    assert [[True, False], [True, True]] == [asyncio.run(served(view)) for view in (counted, spared)]


def test_late_function_in_a_combination() -> None:
    """A combination with a late function waits for the view's arguments, and counts the whole of it."""
    view = view_with(limit("1/minute", by=["ip", late(lambda name: name)]))
    runtime = make_runtime()

    def call(name: str, address: str) -> int:
        with serving(runtime, FakeFacts(view, address=address)) as exchange:
            assert None is runtime.admit(exchange)
            try:
                view(name)
            except Exception:
                return 429
            return 200

    asked = [("alice", "192.0.2.1"), ("alice", "192.0.2.2"), ("bob", "192.0.2.1"), ("alice", "192.0.2.1")]
    assert [200, 200, 200, 429] == [call(*one) for one in asked]


@pytest.mark.parametrize("asynchronous", [False, True])
def test_a_late_function_that_does_not_fit(asynchronous: bool) -> None:
    """What the view is called with and the function does not take is told with the limit's route, the function and the cure."""

    async def coroutine(owner: str) -> str:
        return owner

    def plain(owner: str) -> str:
        return owner

    function = coroutine if asynchronous else plain
    view = view_with(limit("9/minute", by=late(function)))
    place = f"{function.__module__}.{function.__qualname__}"
    where = f"{__file__}:{function.__code__.co_firstlineno}"
    with serving(make_runtime(), FakeFacts(view, route="/{item}")) as exchange:
        assert None is exchange.engine.admit(exchange)
        with pytest.raises(ConfigurationError) as caught:
            view("a", item="b")
    assert (
        f"the limit on GET /{{item}} is by late({place}) ({where}), which is called as the view is, with (..., item=...), and its "
        "parameters are (owner: str) -> str: give it those of the view"
    ) == str(caught.value)


def test_errors_of_a_late_function() -> None:
    """What a late function raises itself stays as it is, also where it has no parameters to look at."""

    def raises(name: str) -> str:
        raise TypeError("its own")

    for function, said in ((raises, "its own"), (max, "max expected")):
        view = view_with(limit("9/minute", by=late(function)))
        with serving(make_runtime(), FakeFacts(view)) as exchange:
            assert None is exchange.engine.admit(exchange)
            with pytest.raises(TypeError, match=said):
                view("a") if function is raises else view()


def test_late_identity_in_the_settings() -> None:
    """The settings' limits know no view's arguments, so counting by them is a mistake at start."""
    for by in (late(len), ["ip", late(len)]):
        with pytest.raises(ConfigurationError):
            make_runtime(limits=["1/minute"], by=by)


def test_wrong_limit_in_the_settings_names_its_key() -> None:
    """A limit that is not understood is an error when the application starts, and says which setting it is."""
    with pytest.raises(ConfigurationError, match="route_limits"):
        make_runtime(route_limits=["10/fortnight"])


def test_preflights() -> None:
    """A CORS preflight is not counted; OPTIONS without its marks, and other methods with them, are. A setting counts all."""
    marks = {"origin": "https://elsewhere.example", "access-control-request-method": "PUT"}
    for setting, expected in ((True, [200, 200]), (False, [200, 429])):
        runtime = make_runtime(limits=["1/minute"], exempt_preflights=setting)
        assert expected == statuses(runtime, 2, method="OPTIONS", headers=marks)
    for method, headers in (("OPTIONS", {"origin": "https://elsewhere.example"}), ("OPTIONS", {}), ("GET", marks)):
        assert [200, 429] == statuses(make_runtime(limits=["1/minute"]), 2, method=method, headers=headers)


def test_method_spelled_otherwise() -> None:
    """A server that hands on the method as the client spelt it gives no way around a limit on that method."""
    view = view_with(limit("1/minute", methods=["GET"], per_method=True))
    runtime = make_runtime()
    assert [200, 429, 429] == [statuses(runtime, 1, view, method=method)[0] for method in ("GET", "get", "hEAD")]


def test_settings_that_a_limit_overrides() -> None:
    """A limit's own algorithm, alignment and identity go before the settings'."""
    store = MemoryStore(clock=ManualClock())
    runtime = make_runtime(store=store, algorithm="gcra", by="user", limits=["9/day"])
    view = view_with(limit("9/hour"), limit("9/minute", algorithm="fixed-window", aligned=True, by="route"))
    serve(runtime, FakeFacts(view, user="alice"))
    assert ["9/3600g:{user:alice}", "9/60a:{route:%2F}", "9/86400g:{user:alice}"] == sorted(
        ":".join(key.rsplit(":", 3)[1:]) for key in keys(store)
    )


@pytest.mark.parametrize("answer", [OperationFailed("WRONGTYPE"), None, 1, b"OK"], ids=repr)
def test_failed_operation_counts_as_an_outage_of_that_limit(answer: object) -> None:
    """A store that answers with an error, or with what is no answer, is treated as away, with a reason of its own."""
    store = FaultyStore()
    view = view_with(limit("1/minute", on_outage="closed"))
    runtime = make_runtime(store=store)
    events: list[LimitDecided] = []
    runtime.listen(events.append)  # type: ignore[arg-type]  # only decisions happen here
    flight = store.flight
    store.flight = lambda operations: [answer for _ in operations]  # type: ignore[method-assign]  # a fault
    status, exchange, _ = serve(runtime, FakeFacts(view))
    assert (503, {"limits": "failed"}) == (status, exchange.degraded)
    assert exchange.rejection is not None
    assert 1 <= (exchange.rejection.retry_after or 0) <= 2
    store.flight = flight  # type: ignore[method-assign]  # over
    assert 200 == serve(runtime, FakeFacts(view))[0]
    assert [("failed", False, 0), (None, True, 1)] == [
        (one.degraded, one.admitted, len(one.limits)) for one in events if isinstance(one, LimitDecided)
    ]


class Deaf:
    """Who does not care what a server refuses."""

    def refused(self, failed: OperationFailed) -> None:
        """Nothing comes of it."""


@pytest.mark.parametrize("reply", [[], [1, 8], [b"x", b"y", b"z"], [1, None, 5], [[1], [2], [3]]], ids=repr)
def test_numbers_that_no_script_gives(reply: object) -> None:
    """A list of something else is no answer either: the limit is in outage, and nothing of it is remembered for a later outage."""
    store = FaultyStore()
    runtime = make_runtime(store=store)
    view = view_with(limit("9/minute"))
    flight = store.flight
    store.flight = lambda operations: answers(operations, [reply], Deaf())  # type: ignore[method-assign]  # a fault
    status, exchange, _ = serve(runtime, FakeFacts(view))
    assert (200, {"limits": "failed"}) == (status, exchange.degraded)
    store.flight = flight  # type: ignore[method-assign]  # over
    with store.away():
        assert 200 == serve(runtime, FakeFacts(view))[0]


def test_decisions_are_events() -> None:
    """A decision tells the method, the route, whether it was late, and the state of each limit."""
    runtime = make_runtime(limits=["9/hour"])
    events: list[LimitDecided] = []
    remove = runtime.listen(events.append)  # type: ignore[arg-type]  # only decisions happen here
    view = view_with(limit("1/minute", name="own"))
    statuses(runtime, 2, view, method="brew", route="/a")
    remove()
    statuses(runtime, 1, view)
    first, second = [one for one in events if isinstance(one, LimitDecided)]
    assert (True, "OTHER", "/a", None, False) == (first.admitted, first.method, first.route, first.degraded, first.late)
    assert [("9-per-hour", True, 8, 3600.0), ("own", True, 0, 60.0)] == [tuple(one) for one in first.limits]
    assert (False, [True, False]) == (second.admitted, [one.allowed for one in second.limits])


def test_listening_is_reason_enough_to_know_the_route(monkeypatch: pytest.MonkeyPatch) -> None:
    """An event tells the route even where no limit depends on it."""
    monkeypatch.setattr("failsoft.runtime.declared_version", lambda: 0)  # as where no view is decorated
    runtime = make_runtime(limits=["9/hour"])
    runtime.listen(lambda event: None)
    assert runtime.needs_route


def test_dynamic_quota_of_several() -> None:
    """A function may return several quotas; None and an empty list are no limit."""
    view = view_with(limit(lambda request: request.who, name="plan"))
    runtime = make_runtime()
    assert ["plan-9-per-minute", "plan-8-per-hour"] == names(runtime, view, user="9/minute; 8/hour")
    assert [[], []] == [names(runtime, view, user=user) for user in (None, [])]  # type: ignore[arg-type]  # what it returns


def test_operations_match_their_keys() -> None:
    """What goes to the store has as many keys, costs, steps and argument groups as there are limits."""
    runtime = make_runtime(limits=["9/hour"])
    exchange = runtime.begin(FakeFacts(view_with(limit("8/minute; 7/second", cost=2))))
    operations = exchange.join(exchange.plan)[0].operations
    acquire = operations[0]
    assert isinstance(acquire, Acquire)
    plain = Acquire([one.rule for one in exchange.plan.bounds[0].lines()], acquire.keys, [1, 2, 2])  # type: ignore[attr-defined]  # RouteLimits
    assert (list(plain.arguments), list(plain.steps)) == (list(acquire.arguments), list(acquire.steps))
