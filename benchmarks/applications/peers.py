"""Packages that know no framework, as functions of an identity: whether a request of it may pass.

Set up as their documentation says, with what is cheapest where it leaves a choice: `limits` with fixed windows,
throttled-py with token buckets, pyrate-limiter with one bucket for each client that holds all of its rates.
"""

import time
from collections.abc import Awaitable, Callable
from typing import Any

from benchmarks.cases import FLOOR, LIMITS, RATES, Case, Place

__all__ = ["CLIENT", "ask", "ask_async", "throttled_quotas"]

Ask = Callable[[str], bool]
AskAsync = Callable[[str], Awaitable[bool]]

CLIENT = "127.0.0.1"


def ask(case: Case, place: Place) -> Ask:
    """The synchronous package that `case` names."""
    return {"throttled-py": _throttled, "pyrate-limiter": _pyrate, FLOOR: _floor}[case.package](case, place)


async def ask_async(case: Case, place: Place) -> AskAsync:
    """The asynchronous package that `case` names."""
    makers = {
        "limits.aio": _limits_async,
        "throttled-py": _throttled_async,
        "pyrate-limiter": _pyrate_async,
        FLOOR: _floor_async,
    }
    return await makers[case.package](case, place)


def _floor(case: Case, place: Place) -> Ask:
    from benchmarks.applications.calls import raw

    call = raw(case, place)
    return lambda client: bool(call())


async def _floor_async(case: Case, place: Place) -> AskAsync:
    from benchmarks.applications.calls import protocol

    call = await protocol(case, place)

    async def passes(client: str) -> bool:
        return bool(await call())

    return passes


def throttled_quotas(count: int) -> list[str]:
    """The limits in throttled-py's words."""
    return [f"{units}/{unit}" for (units, _), unit in zip(RATES[:count], "mhd", strict=False)]


def _throttled_limits(throttled: Any, case: Case, place: Place) -> list[Any]:
    """Of the synchronous or the asynchronous module, which have the same names."""
    memory = case.store == "memory"
    store = throttled.MemoryStore() if memory else throttled.RedisStore(server=place.peer_url(case.store))
    return [
        throttled.Throttled(using="token_bucket", quota=quota, store=store, timeout=-1)
        for quota in throttled_quotas(case.limits)
    ]


def _throttled(case: Case, place: Place) -> Ask:
    import throttled

    store: Any = (
        throttled.MemoryStore() if case.store == "memory" else throttled.RedisStore(server=place.peer_url(case.store))
    )
    limits = [
        throttled.Throttled(using="token_bucket", quota=quota, store=store, timeout=-1)
        for quota in throttled_quotas(case.limits)
    ]

    def passes(client: str) -> bool:
        return not any(limit.limit(f"{client}:{index}").limited for index, limit in enumerate(limits))

    return passes


async def _throttled_async(case: Case, place: Place) -> AskAsync:
    import throttled.asyncio as throttled

    store: Any = (
        throttled.MemoryStore() if case.store == "memory" else throttled.RedisStore(server=place.peer_url(case.store))
    )
    limits = [
        throttled.Throttled(using="token_bucket", quota=quota, store=store, timeout=-1)
        for quota in throttled_quotas(case.limits)
    ]

    async def passes(client: str) -> bool:
        for index, limit in enumerate(limits):
            if (await limit.limit(f"{client}:{index}")).limited:
                return False
        return True

    return passes


async def _limits_async(case: Case, place: Place) -> AskAsync:
    from limits import parse_many
    from limits.aio.storage import MemoryStorage, RedisStorage
    from limits.aio.strategies import FixedWindowRateLimiter

    storage: Any = (
        MemoryStorage()
        if case.store == "memory"
        else RedisStorage(f"async+{place.limits_url(case.store)}", implementation="redispy")
    )
    limiter = FixedWindowRateLimiter(storage)
    items = parse_many(";".join(LIMITS[: case.limits]))

    async def passes(client: str) -> bool:
        for item in items:
            if not await limiter.hit(item, client):
                return False
        return True

    return passes


def _rates(count: int) -> list[Any]:
    from pyrate_limiter import Rate

    return [Rate(units, seconds * 1000) for units, seconds in RATES[:count]]


def _buckets(make: Callable[[str], Any]) -> Any:
    from pyrate_limiter import BucketFactory, RateItem

    class PerClient(BucketFactory):
        def __init__(self) -> None:
            self.known: dict[str, Any] = {}

        def add(self, name: str, bucket: Any) -> None:
            self.schedule_leak(bucket)
            self.known[name] = bucket

        def wrap_item(self, name: str, weight: int = 1) -> Any:
            return RateItem(name, time.time_ns() // 1_000_000, weight)

        def get(self, item: Any) -> Any:
            if item.name not in self.known:
                self.add(item.name, make(item.name))
            return self.known[item.name]

    return PerClient()


def _pyrate(case: Case, place: Place) -> Ask:
    from pyrate_limiter import InMemoryBucket, Limiter, RedisBucket

    rates = _rates(case.limits)
    if case.store == "memory":
        limiter = Limiter(_buckets(lambda name: InMemoryBucket(rates)))
    else:
        import redis

        client = redis.Redis.from_url(place.peer_url(case.store))
        limiter = Limiter(_buckets(lambda name: RedisBucket.init(rates, client, f"pyrate:{case.name}:{name}")))

    def passes(client: str) -> bool:
        return bool(limiter.try_acquire(client, blocking=False))

    return passes


async def _pyrate_async(case: Case, place: Place) -> AskAsync:
    from pyrate_limiter import InMemoryBucket, Limiter, RedisBucket

    rates = _rates(case.limits)
    if case.store == "memory":
        limiter = Limiter(_buckets(lambda name: InMemoryBucket(rates)))
    else:
        import redis.asyncio

        connection = redis.asyncio.Redis.from_url(place.peer_url(case.store))
        factory = _buckets(lambda name: None)
        # Made beforehand, since making one is asynchronous and `get` is not.
        factory.add(CLIENT, await RedisBucket.init(rates, connection, f"pyrate:{case.name}:{CLIENT}"))
        limiter = Limiter(factory)

    async def passes(client: str) -> bool:
        return bool(await limiter.try_acquire_async(client, blocking=False))

    return passes
