"""One application's failsoft: plans, admission, late enforcement, answers, and what it holds."""

import asyncio
import gc
import logging
import sys
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from threading import Barrier
from typing import Any
from weakref import ref

import pytest

from failsoft import ConfigurationError, OutsideRequest, Problem, RateLimited, Rejected, Settings, exempt, limit
from failsoft.exchange import NOT_YET, Route, route
from failsoft.runtime import EXPOSED_FIELDS, Runtime, refusal_fields, runtimes
from failsoft.testing import FaultyStore, LastStatus, ManualClock
from tests.core.requests import FakeFacts, make_runtime, serve, serving


class LoopFacts(FakeFacts):
    """A request that is served on a shared event loop."""

    synchronous = False
    loaded = 0

    async def load_user(self) -> None:
        LoopFacts.loaded += 1


async def aserve(runtime: Runtime, facts: Any) -> tuple[int, list[tuple[str, str]]]:
    """Serve a request from a coroutine."""
    exchange = runtime.begin(facts)
    rejected = await runtime.aadmit(exchange)
    status = 200 if rejected is None else rejected.status
    return status, await runtime.afinish(exchange, status)


def test_nothing_applies_nothing_is_asked() -> None:
    """A request that no limit counts makes no flight and gets no fields, with either driver."""
    store = FaultyStore()
    runtime = make_runtime(store=store)
    assert (200, []) == serve(runtime, FakeFacts())[::2]
    assert (200, []) == asyncio.run(aserve(runtime, FakeFacts()))
    assert 0 == len(store.flights)


def test_one_flight() -> None:
    """All limits and a second concern's key travel in one flight; what is written at the end in one more."""
    store = FaultyStore()
    view = limit("9/minute")(limit("99/hour")(lambda: None))
    runtime = make_runtime(store=store, limits=["5/second"], concerns=[LastStatus()])
    _, _, fields = serve(runtime, FakeFacts(view))
    assert 2 == len(store.flights)
    assert ("ratelimit.acquire", 2) == (store.flights[0][0], len(store.flights[0]))
    assert 3 == dict(fields)["RateLimit"].count(";r=")


def test_drivers_agree() -> None:
    """The same requests have the same outcomes and fields, synchronous and asynchronous, admitted and refused and without a store."""
    outcomes = []
    for asynchronous in (False, True):
        store = FaultyStore(clock=ManualClock())
        runtime = make_runtime(store=store, limits=["2/minute"])
        seen = []
        for away in (False, False, False, True):
            if away:
                with store.away():
                    one = (
                        asyncio.run(aserve(runtime, LoopFacts())) if asynchronous else serve(runtime, FakeFacts())[::2]
                    )
            else:
                one = asyncio.run(aserve(runtime, LoopFacts())) if asynchronous else serve(runtime, FakeFacts())[::2]
            seen.append(one)
        outcomes.append(seen)
    assert outcomes[0] == outcomes[1]
    assert [200, 200, 429, 429] == [status for status, _ in outcomes[0]]


def test_plans_are_made_once_and_anew_after_a_declaration() -> None:
    """A route's plan is worked out once, until something is declared."""

    def view() -> None: ...

    runtime = make_runtime(limits=["9/minute"])
    first = runtime.plan(FakeFacts(view))
    assert first is runtime.plan(FakeFacts(view))
    assert first is not runtime.plan(FakeFacts(view, method="POST"))
    assert first is not runtime.plan(FakeFacts(view, route="/other"))
    exempt(view)
    assert (1, 0) == (len(first.bounds), len(runtime.plan(FakeFacts(view)).bounds))


@pytest.mark.broad
def test_plans_are_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    """Methods that clients invent and endpoints that are made for each request do not fill the memory."""
    assert 10_000 == route._MAX_PLANS
    monkeypatch.setattr(route, "_MAX_PLANS", 500)
    runtime = make_runtime(limits=["1000000/minute"])
    for number in range(300):
        runtime.plan(FakeFacts(method=f"METHOD{number}"))
    assert 0 == len(runtime._plans.known)
    for _ in range(550):
        runtime.plan(FakeFacts(object(), route="/"))
    assert 500 == len(runtime._plans.known)
    assert [200] == [serve(runtime, FakeFacts(object()))[0]]


def test_endpoint_without_a_hash() -> None:
    """An endpoint that cannot be a key is served all the same."""
    runtime = make_runtime(limits=["1/minute"])
    assert [200, 429] == [serve(runtime, FakeFacts([]))[0] for _ in range(2)]


def test_late_enforcement() -> None:
    """What no route shows is enforced when it is called, raises out of the function, and is told in the fields."""
    helper = limit("1/minute")(lambda: "helped")
    runtime = make_runtime()
    with serving(runtime, FakeFacts()) as exchange:
        assert (None, "helped") == (runtime.admit(exchange), helper())
    with serving(runtime, FakeFacts()) as exchange:
        runtime.admit(exchange)
        with pytest.raises(RateLimited) as raised:
            helper()
        assert (raised.value, 60) == (exchange.rejection, raised.value.retry_after)
        assert "RateLimit" in dict(runtime.finish(exchange, 429))


def test_disabled() -> None:
    """Turned off, nothing is enforced early or late, and nothing is asked."""
    store = FaultyStore()
    runtime = make_runtime(store=store, enabled=False, limits=["1/minute"], concerns=[LastStatus()])
    helper = limit("1/minute")(lambda: "helped")

    @limit("1/minute")
    async def ahelper() -> str:
        return "helped"

    for _ in range(3):
        with serving(runtime, FakeFacts(helper)) as exchange:
            assert (None, "helped") == (runtime.admit(exchange), helper())
            assert "helped" == asyncio.run(ahelper())
            assert [] == runtime.finish(exchange, 200)
    assert 0 == len(store.flights)


def test_plain_function_on_a_loop() -> None:
    """A plain function is not allowed to hold up an event loop for a store that can be waited for; memory does not."""
    helper = limit("1/minute")(lambda: "helped")

    async def call(runtime: Runtime) -> str:
        with serving(runtime, LoopFacts()):
            return helper()

    with pytest.raises(OutsideRequest, match="event loop"):
        asyncio.run(call(make_runtime(store=FaultyStore())))
    assert "helped" == asyncio.run(call(make_runtime()))


def test_coroutine_on_a_loop_of_its_own() -> None:
    """Where the framework runs a coroutine on a loop only for this request, the store is asked the waiting way; questions are awaited."""

    async def who(request: Any) -> str:
        await asyncio.sleep(0)
        return "alice"

    @limit("1/minute", by=lambda request: who(request))
    async def helper() -> str:
        return "helped"

    store = FaultyStore()
    runtime = make_runtime(store=store)
    outcomes = []
    for _ in range(2):
        with serving(runtime, FakeFacts()):
            try:
                outcomes.append(asyncio.run(helper()))
            except RateLimited:
                outcomes.append("refused")
    assert (["helped", "refused"], 2) == (outcomes, store.on_loop)


def test_user_is_loaded_where_it_counts() -> None:
    """The framework is asked to load the user only for a decision that depends on it."""
    LoopFacts.loaded = 0
    for view in (limit("9/minute")(lambda: None), limit("9/minute", by=["ip", "user"])(lambda: None)):
        asyncio.run(aserve(make_runtime(), LoopFacts(view, user=NOT_YET)))
    assert 1 == LoopFacts.loaded


def test_lost_settlement_is_no_error() -> None:
    """What a store that has died meanwhile does not take is lost, and the response goes out."""
    store = FaultyStore()
    runtime = make_runtime(store=store, concerns=[LastStatus()])
    with serving(runtime, FakeFacts()) as exchange:
        runtime.admit(exchange)
        with store.away():
            runtime.finish(exchange, 200)
            asyncio.run(runtime.afinish(exchange, 200))


@pytest.mark.parametrize(
    ("settings", "origin", "expected"),
    [
        ({}, False, {"RateLimit", "RateLimit-Policy"}),
        ({}, True, {"RateLimit", "RateLimit-Policy", "Access-Control-Expose-Headers"}),
        ({"headers": "off"}, True, set()),
    ],
)
def test_fields(settings: dict[str, Any], origin: bool, expected: set[str]) -> None:
    """A page from elsewhere is told what it may read, where there is something to read."""
    facts = FakeFacts(headers={"origin": "https://elsewhere.example"} if origin else {})
    fields = dict(serve(make_runtime(limits=["9/minute"], **settings), facts)[2])
    assert expected == set(fields)
    assert not origin or not fields or fields["Access-Control-Expose-Headers"] == EXPOSED_FIELDS


@pytest.mark.parametrize(("setting", "expected"), [(True, "limits;reason=timeout"), (False, None)])
def test_degraded_header(setting: bool, expected: str | None) -> None:
    """A response says what was degraded, unless a setting says not to."""
    store = FaultyStore()
    runtime = make_runtime(store=store, limits=["9/minute"], degraded_header=setting)
    with store.away("timeout"):
        assert expected == dict(serve(runtime, FakeFacts())[2]).get("Degraded")


def test_answer() -> None:
    """A refusal has its status, a body in the preferred form, and says that it must not be cached and when to return."""
    problem = Problem(type="about:blank", title="Slow", status=429)
    rejected = RateLimited(problem, retry_after=7, headers=(("X-More", "1"),))
    expected = [("Cache-Control", "no-store"), ("X-More", "1"), ("Retry-After", "7")]
    assert expected == refusal_fields(rejected)
    runtime = make_runtime()
    assert (429, [("Content-Type", "text/plain; charset=utf-8"), *expected], b"429 Slow\n") == runtime.answer(
        rejected, "text/plain"
    )
    assert [("Cache-Control", "no-store")] == refusal_fields(
        Rejected(Problem(type="about:blank", title="No", status=403))
    )


def test_runtimes_die() -> None:
    """A runtime that is closed or forgotten is not among the living."""
    runtime, forgotten = make_runtime(), make_runtime()
    gone = ref(forgotten)
    assert {runtime, forgotten} <= set(runtimes())
    runtime.close()
    del forgotten
    gc.collect()
    assert (None, False) == (gone(), runtime in runtimes())


def test_outside_requests_by_setting() -> None:
    """The setting allows calls outside a request for as long as the runtime is open."""
    helper = limit("1/minute")(lambda: "helped")
    runtime = make_runtime(outside_request="allow")
    assert ["helped"] * 3 == [helper() for _ in range(3)]
    runtime.close()
    with pytest.raises(OutsideRequest):
        helper()


def test_advice_is_logged(caplog: pytest.LogCaptureFixture) -> None:
    """What is allowed and yet probably not meant is a warning when the application starts."""
    with caplog.at_level(logging.WARNING, "failsoft"):
        make_runtime(workers=4)
    assert ["failsoft.W001"] == [one.getMessage().rpartition("(")[2].rstrip(")") for one in caplog.records]


@pytest.mark.parametrize(("workers", "expected"), [(1, ["failsoft.W001", "failsoft.W005"]), (3, ["failsoft.W001"])])
def test_fewer_workers_than_the_server_started(
    workers: int, expected: list[str], caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Where a setting says less than the server's command line, what follows from the real number is said."""
    monkeypatch.setattr(sys, "argv", ["/usr/bin/gunicorn", "-w", "3"])
    with caplog.at_level(logging.WARNING, "failsoft"):
        make_runtime(workers=workers)
    assert expected == [one.getMessage().rpartition("(")[2].rstrip(")") for one in caplog.records]


def test_concern_that_binds_nothing_costs_no_request_anything() -> None:
    """A concern that has nothing to do on a route is not asked again."""

    class Idle:
        name = "idle"
        bound = 0

        def bind(self, route: Route, policies: Sequence[Any], *, late: bool) -> None:
            self.bound += 1

    idle = Idle()
    runtime = make_runtime(concerns=[idle])
    for _ in range(3):
        serve(runtime, FakeFacts())
    assert 1 == idle.bound


def test_wrong_settings_fail_at_start() -> None:
    """A limit that is not understood is an error before any request, and names the setting."""
    with pytest.raises(ConfigurationError, match="limits"):
        make_runtime(limits=["nonsense"])


def test_reloads_by_several_threads() -> None:
    """However many threads reload at the same time, what holds in the end is all of one of their settings."""
    runtime = make_runtime()
    start = Barrier(4)

    def reload(thread: int) -> list[bool]:
        start.wait()
        whole: list[bool] = []
        for turn in range(50):
            given = Settings.load({"limits": [f"{thread + 1}/{turn + 1}hours"], "shed": bool(turn % 2)}, environ={})
            runtime.reload(given)
            with runtime._reloading:
                whole.append(
                    runtime.limits.settings is runtime.settings is runtime._parts[0]
                    and (runtime.shedder is not None) == runtime.settings.shed
                    and runtime._plans.concerns is runtime.concerns
                    and runtime.limits in runtime.concerns
                )
        return whole

    interval = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    try:
        with ThreadPoolExecutor(4) as pool:
            found = list(pool.map(reload, range(4)))
    finally:
        sys.setswitchinterval(interval)
    assert [[True] * 50] * 4 == found


def test_a_reload_within_a_reload() -> None:
    """A signal handler that reloads in the middle of another reload has the last word, and nothing of the other is left."""
    runtime = make_runtime(limits=["1/minute"])
    former, latter = (Settings.load({"limits": [one]}, environ={}) for one in ("2/minute", "3/minute"))
    go_on, settings_seen = runtime._go_on_with, []

    def interrupted(*parts: Any) -> None:
        settings_seen.append(parts[0])
        if len(settings_seen) == 1:
            runtime.settings = former
            runtime.reload(latter)
        go_on(*parts)

    runtime._go_on_with = interrupted  # type: ignore[method-assign]  # to be there in the middle
    runtime.reload(former)
    assert latter is runtime.settings is runtime.limits.settings
    assert [200, 200, 200, 429] == [serve(runtime, FakeFacts())[0] for _ in range(4)]
