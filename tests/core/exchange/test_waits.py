"""How long one request waits for its stores."""

import asyncio
from collections.abc import Callable, Sequence
from typing import Any

import pytest

from failsoft import late, limit
from failsoft.errors import StoreUnavailable, UnavailableReason
from failsoft.exchange import Operation, Waits
from failsoft.exchange.policy import enter, leave
from failsoft.runtime import Runtime
from failsoft.testing import FaultyStore, ManualClock
from failsoft.testing.toy import LastStatus
from tests.core.requests import FakeFacts, make_runtime

ACQUIRE, LOAD, SAVE = "ratelimit.acquire", "toy.load", "toy.save"
TIMEOUT = StoreUnavailable("timeout")


class SlowStore(FaultyStore):
    """A store whose flights take some time, by a clock that a test advances."""

    def __init__(self, clock: ManualClock) -> None:
        super().__init__(clock=clock)
        self.clock = clock
        self.takes = 0.0

    def begin(self, operations: Sequence[Operation]) -> Callable[[], list[Any]]:
        wait = super().begin(operations)

        def slowly() -> list[Any]:
            self.clock.advance(self.takes)
            return wait()

        return slowly

    async def aflight(self, operations: Sequence[Operation]) -> list[Any]:
        self.clock.advance(self.takes)
        return await super().aflight(operations)


class LoopFacts(FakeFacts):
    """A request that is served on an event loop."""

    synchronous = False


def facts_of(way: str, view: Any = None) -> FakeFacts:
    """A request, on a thread of its own or on an event loop."""
    return FakeFacts(view) if way == "sync" else LoopFacts(view)


class Site:
    """An application with one view, of which some limits are late, and its slow store."""

    def __init__(self, way: str, **settings: Any) -> None:
        self.way = way
        self.clock = ManualClock()
        self.store = SlowStore(self.clock)
        self.runtime: Runtime = make_runtime(
            store=self.store, clock=self.clock, limits=["99/minute"], concerns=[LastStatus()], **settings
        )

        def view() -> None:
            self.within()

        async def aview() -> None:
            self.within()

        self.within: Callable[[], None] = lambda: None
        decorate = limit("9/minute", name="late", by=late(lambda: "somebody"))
        self.view: Any = decorate(aview) if way == "aio" else decorate(view)
        self.request()  # the first one tells that there are late limits

    def request(self) -> tuple[list[tuple[str, ...]], dict[str, str]]:
        """Serve one: the flights, and what was degraded."""
        self.store.flights.clear()
        exchange = self.runtime.begin(facts_of(self.way, self.view))
        token = enter(exchange)
        try:
            asyncio.run(self._aserve(exchange)) if self.way == "aio" else self._serve(exchange)
        finally:
            leave(token)
        return list(self.store.flights), exchange.degraded

    def _serve(self, exchange: Any) -> None:
        assert self.runtime.admit(exchange) is None
        self.view()
        self.runtime.finish(exchange, 200)

    async def _aserve(self, exchange: Any) -> None:
        assert await self.runtime.aadmit(exchange) is None
        await self.view()
        await self.runtime.afinish(exchange, 200)


@pytest.fixture(params=["sync", "aio"])
def site(request: pytest.FixtureRequest) -> Site:
    return Site(request.param)


EARLY = (ACQUIRE, LOAD)


def test_a_healthy_store(site: Site) -> None:
    """A store that needs less than half of its deadline for two flights is asked everything."""
    site.store.takes = 0.024
    assert ([EARLY, (ACQUIRE,), (SAVE,)], {}) == site.request()


def test_a_store_that_is_rather_slow(site: Site) -> None:
    """Three flights of 40 % of a deadline each: all are made, and nothing is lost."""
    site.store.takes = 0.04
    assert ([EARLY, (ACQUIRE,), (SAVE,)], {}) == site.request()


def test_a_store_that_is_slow(site: Site) -> None:
    """When answers took half of a deadline, late limits do without; what is written at the end is written."""
    site.store.takes = 0.05
    assert ([EARLY, (SAVE,)], {"limits": "timeout"}) == site.request()


def test_a_view_that_takes_long() -> None:
    """A second later what was waited is forgotten."""
    helpers = [limit("9/minute", name=name)(lambda: None) for name in ("first", "second")]
    site = Site("sync")
    made: list[int] = []

    def within() -> None:
        for helper, pause in zip(helpers, (0.999, 0.001), strict=True):
            site.clock.advance(pause)
            helper()
            made.append(len(site.store.flights))

    site.within = within
    site.store.takes = 0.05
    site.request()
    assert [1, 2] == made


def test_a_store_that_hangs(site: Site) -> None:
    """Who has waited in vain asks no more, and is told the same reason."""
    with site.store.away("timeout"):
        assert ([EARLY], {"limits": "timeout", "toy": "timeout"}) == site.request()


@pytest.mark.parametrize("reason", ["open", "no_connection", "refused", "broken", "local_lag"])
def test_a_store_that_turns_away_at_once(site: Site, reason: UnavailableReason) -> None:
    """Who was turned away at once has waited for nothing, and asks again."""
    with site.store.away(reason):
        flights, degraded = site.request()
    assert ([EARLY, (ACQUIRE,)], {reason}) == (flights, set(degraded.values()))


@pytest.mark.parametrize("reason", ["no_connection", "broken", "local_lag"])
def test_a_store_that_turns_away_late(site: Site, reason: UnavailableReason) -> None:
    """Who was turned away after half of a deadline asks no more."""
    site.store.takes = 0.05
    with site.store.away(reason):
        assert ([EARLY], {"limits": reason, "toy": reason}) == site.request()


def test_a_store_that_hangs_at_the_end(site: Site) -> None:
    """A store that has answered is asked to write, whatever became of late limits."""
    site.store.takes = 0.06
    away = site.store.away("timeout")
    site.within = away.__enter__
    try:
        assert [EARLY, (SAVE,)] == site.request()[0]
    finally:
        away.__exit__(None, None, None)


@pytest.mark.parametrize("way", ["sync", "aio"])
def test_another_store(way: str) -> None:
    """A store that was waited for in vain says nothing of another."""
    site = Site(way, stores={"other": "memory://"})
    other = site.runtime.stores["other"] = SlowStore(site.clock)

    async def ahelper() -> None: ...

    def helper() -> None: ...

    decorate = limit("9/minute", name="helper", store="other")
    limited = decorate(ahelper if way == "aio" else helper)

    async def run(exchange: Any) -> None:
        await site.runtime.aadmit(exchange)
        await limited()

    exchange = site.runtime.begin(facts_of(way))
    token = enter(exchange)
    try:
        with site.store.away("timeout"):
            if way == "aio":
                asyncio.run(run(exchange))
            else:
                site.runtime.admit(exchange)
                limited()
    finally:
        leave(token)
    assert 1 == len(other.flights)


@pytest.mark.parametrize("way", ["sync", "aio"])
def test_two_stores_at_once(way: str) -> None:
    """Of two stores that were asked at the same time, the one that hangs is not asked again, and the other is."""
    site = Site(way, stores={"other": "memory://"})
    site.runtime.stores["other"] = other = SlowStore(site.clock)
    first = limit("9/minute", store="other")(lambda: None)
    exchange = site.runtime.begin(FakeFacts(first))
    with site.store.away("timeout"):
        rejected = asyncio.run(site.runtime.aadmit(exchange)) if way == "aio" else site.runtime.admit(exchange)
    assert rejected is None
    asked = (len(site.store.flights), len(other.flights))
    token = enter(exchange)
    try:
        limit("9/minute", name="a")(lambda: None)()
        limit("9/minute", name="b", store="other")(lambda: None)()
    finally:
        leave(token)
    assert (0, 1) == (len(site.store.flights) - asked[0], len(other.flights) - asked[1])


def test_waits() -> None:
    """What was lost is told for a second after the last wait; what was slow is no loss."""
    waits = Waits()
    waits.note("slow", 0.0, 0.03, deadline=0.1)
    assert not waits.spent("slow", 0.03)
    waits.note("slow", 0.5, 0.52, deadline=0.1)
    assert [True, True, False] == [waits.spent("slow", now) for now in (0.52, 1.51, 1.52)]
    waits.note("slow", 2.0, 2.01, deadline=0.1)
    assert (False, None) == (waits.spent("slow", 2.01), waits.lost("slow", 2.01))
    waits.note("lost", 0.0, 0.0, deadline=0.1, lost=TIMEOUT)
    lost = waits.lost("lost", 0.99)
    assert lost is not None
    assert ("timeout", None) == (lost.reason, waits.lost("lost", 1.0))
    assert not waits.spent("lost", 0.5)


@pytest.mark.parametrize(
    ("flights", "spent"),
    [
        ([(0.0, 0.02), (0.001, 0.021), (0.002, 0.022)], False),
        ([(0.0, 0.02), (0.001, 0.021), (0.021, 0.051)], True),
        ([(0.01, 0.02), (0.0, 0.04)], False),
        ([(0.03, 0.04), (0.0, 0.05)], True),
    ],
    ids=["together", "one-after-them", "within-another", "within-a-long-one"],
)
def test_flights_that_overlap(flights: Sequence[tuple[float, float]], spent: bool) -> None:
    """Flights that are under way together are waited for together: what counts is how long there was any, by the order of their ends."""
    waits = Waits()
    for began, ended in flights:
        waits.note("store", began, ended, deadline=0.1)
    assert spent == waits.spent("store", flights[-1][1])
