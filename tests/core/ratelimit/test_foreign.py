"""Keys of other packages: what `limits` counted goes on here, and the other way round."""

from typing import Any

import limits
import pytest
from limits.storage import storage_from_string
from limits.strategies import STRATEGIES

from failsoft import limit
from failsoft.quota import Algorithm, parse_quotas
from failsoft.runtime import Runtime
from failsoft.stores.redis import RedisStore
from tests.core.ratelimit.structured import parse_list
from tests.core.requests import FakeFacts, make_runtime, serve


class Named(FakeFacts):
    """A request of a framework that names its endpoints."""

    __slots__ = ()

    def name(self) -> str:
        return "shop.cart"


def view_with(*policies: Any) -> Any:
    def view() -> str:
        return "ok"

    for policy in reversed(policies):
        view = policy(view)
    return view


@pytest.fixture
def runtime_of(redis_url: str) -> Any:
    made: list[Runtime] = []

    def make(**settings: Any) -> Runtime:
        made.append(make_runtime(store=RedisStore(redis_url, deadline=5.0), **settings))
        return made[-1]

    yield make
    for runtime in made:
        runtime.close()


def remaining(runtime: Runtime, view: Any, **facts: Any) -> list[int]:
    fields = dict(serve(runtime, Named(view, **facts))[2])
    return [member.parameters["r"] for member in parse_list(fields["RateLimit"])]


@pytest.mark.parametrize("algorithm", ["fixed-window", "sliding-window-counter", "moving-window"])
@pytest.mark.parametrize(
    ("style", "policy", "place", "address"),
    [
        ("flask-limiter", {}, "shop.cart", "198.51.100.1"),
        ("flask-limiter", {"shared": "cart"}, "cart", "198.51.100.2"),
        ("flask-limiter", {"per_method": True}, "shop.cart:GET", "198.51.100.3"),
        ("slowapi", {}, "/cart", "198.51.100.4"),
        ("slowapi", {"shared": "basket"}, "basket", "198.51.100.5"),
    ],
)
def test_counters_go_on(
    redis_url: str,
    runtime_of: Any,
    algorithm: Algorithm,
    style: str,
    policy: dict[str, Any],
    place: str,
    address: str,
) -> None:
    """A counter that `limits` wrote under such a package's key is continued, and it sees what was counted here."""
    address = address.replace(".100.", f".{100 + len(algorithm)}.")  # a key holds one algorithm's state
    item = limits.parse("9 per 2 hours")
    theirs = STRATEGIES[algorithm](storage_from_string(redis_url))
    runtime = runtime_of(key_style=style, algorithm=algorithm)
    view = view_with(limit("9 per 2 hours", **policy))
    for _ in range(4):
        assert theirs.hit(item, address, place)
    assert [4] == remaining(runtime, view, route="/cart", address=address)
    assert 4 == theirs.get_window_stats(item, address, place).remaining
    assert theirs.hit(item, address, place)
    assert [2] == remaining(runtime, view, route="/cart", address=address)


def test_settings_limits(redis_url: str, runtime_of: Any) -> None:
    """Limits over the application lie under `global`, those on each route under the endpoint."""
    theirs = STRATEGIES["fixed-window"](storage_from_string(redis_url))
    assert theirs.hit(limits.parse("9/hour"), "198.51.100.20", "global")
    assert theirs.hit(limits.parse("8/day"), "198.51.100.20", "shop.cart", cost=2)
    runtime = runtime_of(key_style="flask-limiter", limits=["9/hour"], route_limits=["8/day"])
    assert [7, 5] == remaining(runtime, None, address="198.51.100.20")


def test_identities_of_functions(redis_url: str, runtime_of: Any) -> None:
    """What a function returns is the key's part as it is there."""
    theirs = STRATEGIES["fixed-window"](storage_from_string(redis_url))
    assert theirs.hit(limits.parse("9/hour"), "tenant-7", "shop.cart")
    runtime = runtime_of(key_style="flask-limiter")
    assert [7] == remaining(runtime, view_with(limit("9/hour", by=lambda request: "tenant-7")))


def test_ours_stay_ours(redis_url: str, runtime_of: Any) -> None:
    """What no other package has is kept under our keys."""
    import redis

    runtime = runtime_of(key_style="flask-limiter", prefix="mixed")
    view = view_with(limit("9/second burst 20"), limit("7/minute"))
    serve(runtime, Named(view, address="198.51.100.30"))
    with redis.Redis.from_url(redis_url, decode_responses=True) as client:
        found = sorted(key for key in client.scan_iter() if "198.51.100.30" in key)
    assert 2 == len(found)
    assert "LIMITS:LIMITER/198.51.100.30/shop.cart/7/1/minute" == found[0]
    assert found[1].startswith("mixed:1:rl:view:")


@pytest.mark.parametrize(
    "text", ["9/second", "9/minute", "5 per 3 hours", "9 per 2 days", "7/month", "1/year", "10 per 90 seconds"]
)
def test_keys_are_those_of_limits(text: str) -> None:
    """The key's end is as `limits` writes it, for any unit."""
    from failsoft.ratelimit.foreign import foreign_key

    (quota,) = parse_quotas(text)
    item = limits.parse(text)
    assert f"LIMITS:{item.key_for('198.51.100.1', 'place')}" == foreign_key(quota, "place", "ip:198.51.100.1")
