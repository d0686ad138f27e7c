"""Limits in several stores, and in stores that cannot serve every limit."""

import asyncio
from collections.abc import Sequence
from typing import Any

import pytest

from failsoft import ConfigurationError, Penalty, RateLimited, Settings, limit
from failsoft.quota import Quota
from failsoft.ratelimit.acquire import Rule
from failsoft.stores import MemoryStore
from failsoft.testing import FaultyStore, ManualClock
from tests.core.ratelimit.structured import parse_list
from tests.core.requests import FakeFacts, make_runtime, serve, serving


def view_with(*policies: Any) -> Any:
    def view() -> str:
        return "ok"

    for policy in reversed(policies):
        view = policy(view)
    return view


def remaining(fields: Sequence[tuple[str, str]]) -> list[int]:
    return [member.parameters["r"] for name, value in fields if name == "RateLimit" for member in parse_list(value)]


@pytest.fixture
def clock() -> ManualClock:
    return ManualClock()


def test_who_cannot_be_counted_is_charged_nowhere(clock: ManualClock) -> None:
    """A request that is refused since it lacks an identity consumes nothing of the limits in another store."""
    runtime = make_runtime(store=FaultyStore(clock=clock), clock=clock, stores={"other": "memory://"})
    view = view_with(limit("5/minute"), limit("9/minute", by="user", on_missing="refuse", store="other"))
    assert [403] * 4 == [serve(runtime, FakeFacts(view))[0] for _ in range(4)]
    status, _, fields = serve(runtime, FakeFacts(view, user="alice"))
    assert (200, [4, 8]) == (status, remaining(fields))


def test_a_refusal_for_what_is_given_back_is_forgotten(clock: ManualClock) -> None:
    """Units that a request took in vain, refused by another store, are there for others as soon as it is over."""
    runtime = make_runtime(store=FaultyStore(clock=clock), clock=clock, stores={"other": "memory://"})
    both = view_with(limit("2/minute", shared="x"), limit("1/minute", store="other"))
    one = view_with(limit("2/minute", shared="x"))
    assert 200 == serve(runtime, FakeFacts(both))[0]
    with serving(runtime, FakeFacts(both)) as exchange:
        rejected = runtime.admit(exchange)
        assert isinstance(rejected, RateLimited)
        assert 429 == serve(runtime, FakeFacts(one, route="/one"))[0]
        runtime.finish(exchange, 429)
    assert [200, 429] == [serve(runtime, FakeFacts(one, route="/one"))[0] for _ in range(2)]


@pytest.mark.parametrize("asynchronous", [False, True], ids=["sync", "async"])
def test_a_refusal_after_the_settlement_gives_back_too(clock: ManualClock, asynchronous: bool) -> None:
    """What a stream is refused by one store is given back in the other at once: no settlement is to come."""
    runtime = make_runtime(store=FaultyStore(clock=clock), clock=clock, stores={"other": "memory://"})
    here, there = limit("9/minute", shared="x"), limit("1/minute", store="other", shared="y")
    view_with(here, there)

    def call() -> None:
        exchange.enforced = frozenset()
        if not asynchronous:
            runtime.enforce(exchange, [here, there], (), {})
        else:
            asyncio.run(runtime.aenforce(exchange, [here, there], (), {}))

    with serving(runtime, SharedLoop() if asynchronous else FakeFacts()) as exchange:
        assert runtime.admit(exchange) is None
        runtime.finish(exchange, 200)
        call()
        for _ in range(4):
            with pytest.raises(RateLimited):
                call()
    assert [7] == remaining(serve(runtime, FakeFacts(view_with(here)))[2])


class SharedLoop(FakeFacts):
    """A request that is served on a shared event loop."""

    __slots__ = ()

    synchronous = False


class Picky(MemoryStore):
    """Knows fixed windows alone, and gives nothing back."""

    def unsupported(self, rule: Rule, mode: int = 0, *, stamps: bool = False) -> str | None:
        if not isinstance(rule, Quota):
            return "it keeps no penalties: use redis://"
        if stamps:
            return "it gives nothing back: use redis://"
        return None if rule.algorithm == "fixed-window" else f"it does not know {rule.algorithm}: use redis://"


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        (
            {"limits": ["9/hour burst 5"]},
            "limits: 9 per 3600 s.* cannot be counted in the store 'default': .* gcra: use",
        ),
        ({"route_limits": ["9/hour"], "algorithm": "moving-window"}, "route_limits: .*does not know moving-window"),
        (
            {"scopes": [{"name": "api", "prefix": "/api", "limits": ["9/hour burst 5"]}]},
            "scopes: api: .*does not know gcra",
        ),
        (
            {
                "limits": ["9/hour"],
                "stores": {"other": "memory://"},
                "scopes": [{"name": "api", "prefix": "/api", "limits": ["9/hour"], "store": "other"}],
            },
            "limits: .* beside limits in another store, .* gives nothing back: use redis://; or count all limits of a route in one",
        ),
    ],
)
def test_settings_that_the_store_cannot_serve(settings: dict[str, Any], said: str) -> None:
    """Limits in the settings that the store cannot serve are an error at start, and on a reload, which then changes nothing."""
    with pytest.raises(ConfigurationError, match=said):
        make_runtime(store=Picky(), **settings)
    if "stores" not in settings:
        runtime = make_runtime(store=Picky(), limits=["3/hour"])
        with pytest.raises(ConfigurationError, match=said):
            runtime.reload(Settings.load(settings, environ={}))
        assert [2] == remaining(serve(runtime, FakeFacts())[2])


@pytest.mark.parametrize(
    ("policy", "cause"),
    [
        (limit("9/hour", algorithm="gcra"), "9 per 3600 s.* does not know gcra"),
        (limit("9/hour", penalty=Penalty()), "its penalty .* it keeps no penalties"),
        (limit("9/hour", charge_on=(401,)), "9 per 3600 s.* it gives nothing back"),
        (limit("9/hour", adjustable=True), "9 per 3600 s.* it gives nothing back"),
    ],
    ids=repr,
)
def test_declarations_that_the_store_cannot_serve(policy: Any, cause: str) -> None:
    """A declared limit that its store cannot serve is an error when it is bound to a route: no request slips by uncounted."""
    runtime = make_runtime(store=Picky())
    view = view_with(policy)
    for _ in range(2):
        with pytest.raises(ConfigurationError, match=rf"limit\('9/hour'\) on .*view: {cause}.*: use redis://"):
            runtime.begin(FakeFacts(view))


def test_what_only_a_request_tells_fails_there() -> None:
    """A quota that a function of the request gives is asked of the store, whatever that can serve."""
    runtime = make_runtime(store=Picky())
    view = view_with(limit(lambda request: "9/hour burst 5"))
    assert 200 == serve(runtime, FakeFacts(view))[0]


@pytest.mark.parametrize("style", ["flask-limiter", "slowapi"])
def test_keys_of_other_packages_are_not_hashed(style: str) -> None:
    """Whoever asks for digests and for another package's keys, which have none, hears so at start."""
    with pytest.raises(
        ConfigurationError, match=f"hash_keys.*: the keys of {style} have identities in plain text.*leave out"
    ):
        make_runtime(hash_keys=True, key_style=style)
