"""Limited functions that tasks of one request call: what one of them waits for, another must not take for decided."""

import asyncio
import contextlib
from collections.abc import Awaitable, Callable
from typing import Any

import pytest

from failsoft import RateLimited, late, limit
from failsoft.exchange import Exchange
from failsoft.exchange.policy import enter, leave
from failsoft.testing import FaultyStore, ManualClock
from tests.core.requests import FakeFacts, make_runtime

ACQUIRE = ("ratelimit.acquire",)


class LoopFacts(FakeFacts):
    """A request that is served on an event loop."""

    synchronous = False


def serve(store: FaultyStore, view: Callable[[], Awaitable[Any]]) -> Exchange:
    """Serve a request with this view, on an event loop."""
    runtime = make_runtime(store=store, clock=ManualClock())

    async def request() -> Exchange:
        exchange = runtime.begin(LoopFacts())
        token = enter(exchange)
        try:
            assert await runtime.aadmit(exchange) is None
            await view()
        finally:
            leave(token)
        return exchange

    return asyncio.run(request())


def helper_of(quota: str, ran: list[str], name: str) -> Callable[[], Awaitable[None]]:
    """A function that notes its name in `ran`, limited by its own quota."""

    @limit(quota, shared=name)
    async def helper() -> None:
        ran.append(name)

    return helper


async def asking(store: FaultyStore, helper: Callable[[], Awaitable[None]]) -> "asyncio.Future[None]":
    """A call that waits for the store, which hangs."""
    task = asyncio.ensure_future(helper())
    assert await asyncio.to_thread(store.waiting.wait, 30)
    return task


async def cancelled(task: "asyncio.Future[None]") -> None:
    """Cancel it, and wait until it has ended."""
    task.cancel()
    with contextlib.suppress(asyncio.CancelledError):
        await task


@pytest.fixture
def store() -> FaultyStore:
    return FaultyStore(clock=ManualClock())


def test_two_tasks_call_one_function(store: FaultyStore) -> None:
    """The second waits for the verdict that the first has asked for: it costs one unit, and nobody runs before it is there."""
    ran: list[str] = []
    helper = helper_of("2/minute", ran, "helper")
    before: list[int] = []

    async def view() -> None:
        with store.hanging(30):
            tasks = [asyncio.ensure_future(helper()) for _ in range(3)]
            assert await asyncio.to_thread(store.waiting.wait, 30)
            for _ in range(5):
                await asyncio.sleep(0)
            before.append(len(ran))
        await asyncio.gather(*tasks)

    serve(store, view)
    assert ([0], ["helper"] * 3, [ACQUIRE]) == (before, ran, list(store.flights))


def test_both_tasks_are_refused(store: FaultyStore) -> None:
    """Where the verdict is a refusal, the task that waited for it asks for its own, and does not run unasked."""
    ran: list[str] = []
    helper = helper_of("1/minute", ran, "helper")
    verdicts: list[Any] = []

    async def view() -> None:
        verdicts.extend(await asyncio.gather(helper(), helper(), return_exceptions=True))

    serve(store, helper)
    ran.clear()
    serve(store, view)
    assert [] == ran
    assert [RateLimited, RateLimited] == [type(verdict) for verdict in verdicts]


def test_a_refusal_beside_an_admission(store: FaultyStore) -> None:
    """One function is refused while another is admitted: the first is refused again, the second is not charged again."""
    ran: list[str] = []
    refused, admitted = helper_of("1/minute", ran, "refused"), helper_of("9/minute", ran, "admitted")

    async def view() -> None:
        await asyncio.gather(refused(), admitted(), return_exceptions=True)
        store.flights.clear()
        with pytest.raises(RateLimited):
            await refused()
        await admitted()

    serve(store, refused)
    ran.clear()
    serve(store, view)
    assert (["admitted", "admitted"], []) == (ran, list(store.flights))


def test_nobody_heard_the_verdict(store: FaultyStore) -> None:
    """A call that was cancelled while it asked has enforced nothing: the next one asks."""
    ran: list[str] = []
    helper = helper_of("1/minute", ran, "helper")

    async def view() -> None:
        with store.hanging(30):
            task = await asking(store, helper)
            await cancelled(task)
        with pytest.raises(RateLimited):
            await helper()

    serve(store, helper)
    ran.clear()
    serve(store, view)
    assert [] == ran


def test_who_waits_takes_over(store: FaultyStore) -> None:
    """A task that waits for another's verdict asks by itself when that one is cancelled."""
    ran: list[str] = []
    helper = helper_of("9/minute", ran, "helper")

    async def view() -> None:
        with store.hanging(30):
            first = await asking(store, helper)
            second = asyncio.ensure_future(helper())
            await asyncio.sleep(0)
            await cancelled(first)
        await second

    serve(store, view)
    assert (["helper"], [ACQUIRE, ACQUIRE]) == (ran, list(store.flights))


def test_a_flight_that_fails_unforeseen(store: FaultyStore, monkeypatch: pytest.MonkeyPatch) -> None:
    """An error that no store should raise leaves nothing enforced."""
    ran: list[str] = []
    helper = helper_of("1/minute", ran, "helper")

    async def broken(operations: Any) -> Any:
        raise RuntimeError("broken")

    async def view() -> None:
        with monkeypatch.context() as patched:
            patched.setattr(store, "aflight", broken)
            with pytest.raises(RuntimeError):
                await helper()
        with pytest.raises(RateLimited):
            await helper()

    serve(store, helper)
    ran.clear()
    serve(store, view)
    assert [] == ran


def asking_of(own: Any, other: Any) -> Callable[[], Awaitable[None]]:
    """A function that `own` limits, and that asks a late function, which starts a task that calls what `other` limits."""

    @other
    async def plain() -> None: ...

    async def who() -> str:
        for _ in range(5):
            await asyncio.sleep(0)
        await asyncio.gather(plain())
        return "u1"

    @own
    @limit("9/minute", by=late(who))
    async def helper() -> None: ...

    return helper


def test_a_late_function_calls_what_is_asked_about(store: FaultyStore) -> None:
    """A task that it starts does not wait for the verdict, which waits for the task."""
    own = limit("9/minute", shared="own")
    helper = asking_of(own, own)

    async def view() -> None:
        await asyncio.wait_for(helper(), 5)

    serve(store, view)
    assert [ACQUIRE, ACQUIRE] == list(store.flights)


def test_two_late_functions_call_what_the_other_is_asked_about(store: FaultyStore) -> None:
    """Neither waits for the other."""
    one, other = limit("9/minute", shared="one"), limit("9/minute", shared="other")
    first, second = asking_of(one, other), asking_of(other, one)

    async def view() -> None:
        await asyncio.wait_for(asyncio.gather(first(), second()), 5)

    serve(store, view)
    assert [ACQUIRE] * 4 == list(store.flights)
