"""Limits for parts of an application, in stores of their own, and settings that change while it runs."""

from typing import Any

import pytest

from failsoft import ConfigurationError, Settings, limit
from failsoft.errors import OperationFailed, RateLimited
from failsoft.testing import FaultyStore, ManualClock
from tests.core.ratelimit.structured import parse_list
from tests.core.requests import FakeFacts, make_runtime, serve, serving


def view_with(*policies: Any) -> Any:
    def view() -> str:
        return "ok"

    for policy in reversed(policies):
        view = policy(view)
    return view


def status(runtime: Any, view: Any = None, **facts: Any) -> int:
    return serve(runtime, FakeFacts(view, **facts))[0]


def names(runtime: Any, view: Any = None, **facts: Any) -> list[str]:
    fields = [value for name, value in serve(runtime, FakeFacts(view, **facts))[2] if name == "RateLimit"]
    return [member.value for value in fields for member in parse_list(value)]


def scope(**given: Any) -> dict[str, Any]:
    return {"name": "part", "limits": ["2/minute"], **given}


@pytest.mark.parametrize(
    ("path", "inside"),
    [("/api", True), ("/api/", True), ("/api/x/y", True), ("/apiary", False), ("/", False), ("/x/api", False)],
)
def test_prefix(path: str, inside: bool) -> None:
    """A prefix is whole segments, wherever a request below it leads, and if it is nowhere."""
    runtime = make_runtime(scopes=[scope(prefix="/api/")])
    assert (["2-per-minute"] if inside else []) == names(runtime, path=path, route=None)


@pytest.mark.parametrize(
    ("wanted", "host", "inside"),
    [
        ("api.example.com", "api.example.com", True),
        ("api.example.com", "API.Example.Com:8080", True),
        ("API.example.com", "api.example.com.", True),
        ("api.example.com", "example.com", False),
        ("api.example.com", "api.example.com.evil.test", False),
        ("*.example.com", "a.b.example.com", True),
        ("*.example.com", "example.com", False),
        ("*.example.com", "badexample.com", False),
        ("api.example.com", None, False),
        ("api.example.com", "[::1]:80", False),
    ],
)
def test_host(wanted: str, host: str | None, inside: bool) -> None:
    """A host is compared without its port and without regard to case; a star stands for any labels before it."""
    runtime = make_runtime(scopes=[scope(host=wanted)])
    headers = {} if host is None else {"host": host}
    assert (["2-per-minute"] if inside else []) == names(runtime, headers=headers)


def test_group() -> None:
    """A group is what the framework calls a part of the application."""
    runtime = make_runtime(scopes=[scope(group="admin")])
    assert ["2-per-minute"] == names(runtime, groups=["site", "admin"])
    assert [] == names(runtime, groups=["administration"])


def test_all_that_a_scope_says() -> None:
    """A request belongs to a scope if it fits everything that the scope says; it may belong to several."""
    both = scope(prefix="/api", host="a.test")
    runtime = make_runtime(scopes=[both, scope(name="other", prefix="/api/x", limits=["9/hour"])])
    assert [[], ["2-per-minute"], ["2-per-minute", "9-per-hour"]] == [
        names(runtime, path=path, headers={"host": host})
        for path, host in (("/api", "b.test"), ("/api", "a.test"), ("/api/x", "a.test"))
    ]


def test_a_scope_counts_together() -> None:
    """All routes in a scope share its budget, for each client by itself."""
    runtime = make_runtime(scopes=[scope(prefix="/api")])
    assert [200, 200, 429] == [status(runtime, path=f"/api/{n}", route=f"/api/{n}") for n in range(3)]
    assert 200 == status(runtime, path="/api", address="192.0.2.9")
    assert 200 == status(runtime, path="/elsewhere")


def test_a_scope_of_its_own_kind() -> None:
    """A scope may count somebody else, and answer an outage in its own way."""
    store = FaultyStore(clock=ManualClock())
    runtime = make_runtime(store=store, scopes=[scope(prefix="/api", by="user", on_outage="closed")], limits=["9/day"])
    assert [200, 200, 200] == [status(runtime, path="/api", user=user) for user in ("a", "a", "b")]
    assert 429 == status(runtime, path="/api", user="a")
    with store.away():
        assert [503, 200] == [status(runtime, path=path, user="c") for path in ("/api", "/x")]


def test_exempt_views_are_exempt_from_scopes() -> None:
    """What the settings say does not apply to an exempt view, scopes included."""
    from failsoft import exempt

    runtime = make_runtime(scopes=[scope(prefix="/api")])
    assert [] == names(runtime, view_with(exempt), path="/api")


@pytest.fixture
def stores() -> dict[str, FaultyStore]:
    clock = ManualClock()
    return {"default": FaultyStore(clock=clock), "bursts": FaultyStore(clock=clock)}


def two_stores(stores: dict[str, FaultyStore], **settings: Any) -> Any:
    runtime = make_runtime(stores={"bursts": "memory://"}, **settings)
    runtime.stores.update(stores)
    runtime.limits.remote = dict.fromkeys(stores, True)
    return runtime


def test_limits_in_two_stores(stores: dict[str, FaultyStore]) -> None:
    """Each store gets one flight with its own limits, and the client is told of all."""
    runtime = two_stores(stores, limits=["9/hour"])
    view = view_with(limit("2/second", store="bursts"), limit("5/minute"))
    assert ["9-per-hour", "5-per-minute", "2-per-second"] == names(runtime, view)
    assert [1, 1] == [len(store.flights) for store in stores.values()]


def test_a_refusal_in_one_store_charges_none(stores: dict[str, FaultyStore]) -> None:
    """What one store charged is given back if the other refuses: a second flight for the refused request."""
    runtime = two_stores(stores, deny_cache=0)
    view = view_with(limit("2/minute", store="bursts"), limit("9/hour"))
    assert [200, 200, 429, 429, 429] == [status(runtime, view) for _ in range(5)]
    other = view_with(limit("9/hour"))
    assert 200 == status(runtime, other, route="/other")
    fields = [value for name, value in serve(runtime, FakeFacts(view))[2] if name == "RateLimit"]
    told = [one for value in fields for one in parse_list(value)]
    assert [7] == [one.parameters["r"] for one in told if one.value == "9-per-hour"]


def test_one_store_away(stores: dict[str, FaultyStore]) -> None:
    """A store that is away concerns its own limits only."""
    runtime = two_stores(stores)
    view = view_with(limit("2/minute", store="bursts", on_outage="open"), limit("3/hour"))
    with stores["bursts"].away():
        assert [200, 200, 200, 429] == [status(runtime, view) for _ in range(4)]
    with stores["default"].away("timeout"):
        _, exchange, _ = serve(runtime, FakeFacts(view_with(limit("9/minute", store="bursts"))))
        assert {} == exchange.degraded


def test_an_unknown_store() -> None:
    """A limit or a scope in a store that no setting names is an error that lists those there are."""
    runtime = make_runtime(stores={"bursts": "memory://"})
    with pytest.raises(ConfigurationError, match=r"no store 'burst'.*bursts, default"):
        status(runtime, view_with(limit("2/minute", store="burst")))
    with pytest.raises(ConfigurationError, match="part: there is no store"):
        make_runtime(scopes=[scope(prefix="/api", store="no")])


def test_flights_to_several_stores_are_under_way_together(redis_url: str) -> None:
    """From synchronous code too, nobody waits for one store before asking the other."""
    from failsoft.runtime import Runtime

    runtime = Runtime(Settings(store=redis_url, stores={"other": redis_url}, deadline=5.0, prefix="together"))  # type: ignore[arg-type]  # a mapping is what users write
    view = view_with(limit("9/minute", store="other"), limit("9/minute"))
    assert [200] * 3 == [status(runtime, view) for _ in range(3)]
    assert ["9-per-minute", "9-per-minute-2"] == names(runtime, view)
    runtime.close()


def test_reload_keeps_what_was_counted() -> None:
    """A limit that stays goes on with its count; a changed one begins anew; the rest follows the new settings."""
    runtime = make_runtime(limits=["3/minute", "9/hour"])
    assert [200, 200] == [status(runtime) for _ in range(2)]
    runtime.reload(Settings(limits=("3/minute", "2/hour"), headers="both"))
    assert ["3-per-minute", "2-per-hour"] == names(runtime)
    assert 429 == status(runtime)
    runtime.reload(Settings(enabled=False, limits=("3/minute",)))
    assert [200] * 5 == [status(runtime) for _ in range(5)]


def test_reload_in_the_midst_of_a_request() -> None:
    """A request goes on with the settings that it began with."""
    runtime = make_runtime(limits=["9/minute"])
    exchange = runtime.begin(FakeFacts())
    runtime.reload(Settings(limits=("5/hour",)))
    assert runtime.admit(exchange) is None
    assert '"9-per-minute";r=8;t=60' == dict(runtime.finish(exchange, 200))["RateLimit"]


def test_reload_during_an_outage() -> None:
    """What a process counted for itself goes on counting."""
    store = FaultyStore(clock=ManualClock())
    runtime = make_runtime(store=store, limits=["2/minute"])
    with store.away():
        assert [200, 200] == [status(runtime) for _ in range(2)]
        runtime.reload(Settings(limits=("2/minute", "9/hour")))
        assert 429 == status(runtime)


def test_what_a_reload_cannot_change() -> None:
    """Settings that belong to connections need a restart; a mistake leaves everything as it was."""
    runtime = make_runtime(limits=["1/minute"])
    with pytest.raises(ConfigurationError, match=r"prefix cannot change in a running process: restart"):
        runtime.reload(Settings(limits=("9/minute",), prefix="other"))
    with pytest.raises(ConfigurationError, match="limits"):
        runtime.reload(Settings(limits=("9/minutes or so",)))
    assert [200, 429] == [status(runtime) for _ in range(2)]


def test_a_failed_operation_in_one_store(stores: dict[str, FaultyStore]) -> None:
    """An error reply of one store is an outage of its limits only."""
    runtime = two_stores(stores)
    stores["bursts"].begin = lambda operations: lambda: [OperationFailed("OOM")]  # type: ignore[method-assign,assign]  # a fault
    _, exchange, _ = serve(runtime, FakeFacts(view_with(limit("2/minute", store="bursts"), limit("3/hour"))))
    assert {"limits": "failed"} == exchange.degraded


def told(runtime: Any, view: Any, **facts: Any) -> tuple[int, list[str], list[str], list[str]]:
    """The status, the names of the policies and of what remains of them, and the names of the fields."""
    code, _, fields = serve(runtime, FakeFacts(view, **facts))
    lists = [
        [one.value for one in parse_list(dict(fields).get(name, ""))] for name in ("RateLimit-Policy", "RateLimit")
    ]
    return code, *lists, [name for name, _ in fields if name != "Degraded"]


FIELDS = ["RateLimit-Policy", "RateLimit", "X-RateLimit-Limit", "X-RateLimit-Remaining", "X-RateLimit-Reset"]


@pytest.mark.parametrize("deny_cache", [0, 2])
def test_the_fields_of_two_stores(stores: dict[str, FaultyStore], deny_cache: float) -> None:
    """Limits in two stores have one set of fields and no name twice: admitted, refused, refused again, and while both are away."""
    runtime = two_stores(stores, limits=["2/minute"], headers="both", deny_cache=deny_cache)
    view = view_with(limit("2/minute", store="bursts"))
    named = ["2-per-minute", "2-per-minute-2"]
    assert [(200, named, named, FIELDS)] * 2 == [told(runtime, view) for _ in range(2)]
    for _ in range(2):
        code, policies, remaining, fields = told(runtime, view)
        assert (429, FIELDS, policies) == (code, fields, remaining)
        assert set(policies) <= set(named)
    with stores["default"].away(), stores["bursts"].away():
        assert (200, named, named, FIELDS) == told(runtime, view, address="192.0.2.7")


def test_the_older_fields_of_two_stores(stores: dict[str, FaultyStore]) -> None:
    """The older fields tell of the tightest limit of all stores."""
    runtime = two_stores(stores, limits=["9/minute"], headers="legacy")
    view = view_with(limit("2/hour", store="bursts"))
    assert "2" == dict(serve(runtime, FakeFacts(view))[2])["X-RateLimit-Limit"]


def test_refusals_of_two_stores(stores: dict[str, FaultyStore]) -> None:
    """A refusal calls a limit by what the fields call it, whoever decided: a store, this process, or nobody."""
    runtime = two_stores(stores, limits=["9/minute"])
    view = view_with(limit("9/minute", store="bursts", cost=9, on_outage="closed"))
    assert runtime.admit(runtime.begin(FakeFacts(view))) is None
    refused = [runtime.admit(runtime.begin(FakeFacts(view))) for _ in range(2)]
    assert 3 == len(stores["default"].flights)
    with stores["bursts"].away():
        refused.append(runtime.admit(runtime.begin(FakeFacts(view, address="192.0.2.7"))))
    assert [["9-per-minute-2"]] * 3 == [one and one.problem.members["violated-policies"] for one in refused]


def test_who_cannot_be_counted_in_the_other_store(stores: dict[str, FaultyStore]) -> None:
    """A refusal for a missing identity calls the limit by what nobody else is called."""
    runtime = two_stores(stores, limits=["9/minute"])
    view = view_with(limit("9/minute", store="bursts", by=lambda request: None, on_missing="refuse"))
    rejected = runtime.admit(runtime.begin(FakeFacts(view)))
    assert rejected is not None
    assert (403, ["9-per-minute-2"]) == (rejected.status, rejected.problem.members["violated-policies"])


def test_a_limited_function_that_is_called_again() -> None:
    """Who catches the refusal of a helper and calls it again is told of its limit once."""
    runtime = make_runtime(limits=["9/minute"], headers="both", deny_cache=0)
    helper = view_with(limit("1/minute", name="helper"))
    with serving(runtime, FakeFacts()) as exchange:
        runtime.admit(exchange)
        helper()
        exchange.enforced = frozenset()
        for _ in range(2):
            with pytest.raises(RateLimited) as caught:
                helper()
            assert ["helper"] == caught.value.problem.members["violated-policies"]
        fields = runtime.finish(exchange, 200)
    assert FIELDS == [name for name, _ in fields]
    assert ["9-per-minute", "helper"] == [one.value for one in parse_list(dict(fields)["RateLimit"])]
