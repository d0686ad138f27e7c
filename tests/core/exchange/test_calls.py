"""Limited functions that tasks of one request call: what one of them waits for, another must not take for decided."""

import asyncio
import contextlib
from collections.abc import Awaitable, Callable
from typing import Any

import pytest

from failsoft import RateLimited, Settings, late, limit
from failsoft.exchange import Exchange
from failsoft.exchange.policy import current, enter, leave
from failsoft.runtime import Runtime
from failsoft.testing import FaultyStore, ManualClock
from tests.core.requests import FakeFacts, make_runtime

ACQUIRE = ("ratelimit.acquire",)


class LoopFacts(FakeFacts):
    """A request that is served on an event loop."""

    synchronous = False


def serve(store: FaultyStore, view: Callable[[], Awaitable[Any]], facts: FakeFacts | None = None) -> Exchange:
    """Serve a request with this view, on an event loop."""
    runtime = make_runtime(store=store, clock=ManualClock())

    async def request() -> Exchange:
        exchange = runtime.begin(facts or LoopFacts())
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


class Meeting:
    """Two tasks of a request: what is asked waits for one that calls what a limit of the asking function is on, too."""

    def __init__(self, other: Callable[[], Awaitable[None]]) -> None:
        self._other = other
        self._begun, self._done = asyncio.Event(), asyncio.Event()

    async def wait(self, *_: Any) -> str:
        """What is asked."""
        self._begun.set()
        await self._done.wait()
        return "u1"

    async def sibling(self) -> None:
        """The task that it waits for."""
        await self._begun.wait()
        await self._other()
        self._done.set()


def plain_of(limited: Any) -> Callable[[], Awaitable[None]]:
    """A function with nothing to ask."""

    @limited
    async def plain() -> None: ...

    return plain


@pytest.mark.parametrize("by", [late, lambda function: function], ids=["late", "of the request"])
def test_a_function_that_is_asked_waits_for_another_task(store: FaultyStore, by: Callable[[Any], Any]) -> None:
    """That task does not wait for the verdict, which waits for the answer; and what it was admitted by is not charged again."""
    both = limit("9/minute", shared="both")
    meeting = Meeting(plain_of(both))

    @both
    @limit("9/minute", by=by(meeting.wait), shared="own")
    async def helper() -> None: ...

    async def view() -> None:
        await asyncio.wait_for(asyncio.gather(helper(), meeting.sibling()), 30)

    serve(store, view)
    assert [ACQUIRE, ACQUIRE] == list(store.flights)
    assert 2 == len(store.keys)


def test_loading_the_user_waits_for_another_task(store: FaultyStore) -> None:
    """The same for what the framework does to know who is asking."""
    both = limit("9/minute", shared="both")
    meeting = Meeting(plain_of(both))

    class Users(LoopFacts):
        async def load_user(self) -> None:
            self.who = await meeting.wait()

    @both
    @limit("9/minute", by="user", shared="own")
    async def helper() -> None: ...

    async def view() -> None:
        await asyncio.wait_for(asyncio.gather(helper(), meeting.sibling()), 30)

    serve(store, view, Users())
    assert [ACQUIRE, ACQUIRE] == list(store.flights)
    assert 1 == sum("user:u1" in key for key in store.keys)


def test_two_tasks_ask_the_same(store: FaultyStore) -> None:
    """The answer that comes first counts for both, and one of them asks the store."""
    answers = {"slow": asyncio.Event(), "quick": asyncio.Event()}

    async def who(name: str) -> str:
        await answers[name].wait()
        return name

    @limit("9/minute", by=late(who))
    async def helper(name: str) -> None: ...

    async def view() -> None:
        slow, quick = (asyncio.ensure_future(helper(name)) for name in ("slow", "quick"))
        with store.hanging(30):
            answers["quick"].set()
            assert await asyncio.to_thread(store.waiting.wait, 30)
            answers["slow"].set()
            for _ in range(5):
                await asyncio.sleep(0)
            assert not slow.done()
        await asyncio.gather(slow, quick)

    serve(store, view)
    assert [ACQUIRE] == list(store.flights)
    assert [True] == ["quick" in key for key in store.keys]


def test_a_refused_task_does_not_ask_for_another(store: FaultyStore) -> None:
    """Of two tasks that asked who calls, both are refused where the first answer is: a second answer is no way around."""
    answers = {"a": asyncio.Event(), "b": asyncio.Event()}
    ran: list[str] = []

    async def who(name: str) -> str:
        await answers[name].wait()
        return name

    @limit("1/minute", by=late(who))
    async def helper(name: str) -> None:
        ran.append(name)

    async def view() -> None:
        tasks = [asyncio.ensure_future(helper(name)) for name in ("a", "b")]
        await asyncio.sleep(0)
        answers["b"].set()
        for _ in range(5):
            await asyncio.sleep(0)
        answers["a"].set()
        refused = await asyncio.gather(*tasks, return_exceptions=True)
        assert [RateLimited, RateLimited] == [type(verdict) for verdict in refused]

    async def before() -> None:
        answers["b"].set()
        await helper("b")
        answers["b"].clear()

    serve(store, before)
    ran.clear()
    serve(store, view)
    assert [] == ran


@pytest.mark.parametrize("end", ["cancelled", "failed"])
def test_nobody_heard_the_answer(store: FaultyStore, end: str) -> None:
    """A call that ends while the user's function is asked has enforced nothing, and keeps nobody waiting."""
    asked: list[asyncio.Future[str]] = []
    ran: list[str] = []

    async def who() -> str:
        asked.append(asyncio.get_running_loop().create_future())
        return await asked[-1]

    @limit("1/minute", shared="both")
    @limit("9/minute", by=late(who), shared="own")
    async def helper() -> None:
        ran.append("helper")

    async def view() -> None:
        first, second = (asyncio.ensure_future(helper()) for _ in range(2))
        await asyncio.sleep(0)
        if end == "failed":
            asked[0].set_exception(LookupError("no such user"))
            with pytest.raises(LookupError):
                await first
        else:
            await cancelled(first)
        assert ([], []) == (ran, list(store.flights))
        asked[1].set_result("u1")
        await second

    serve(store, view)
    assert (["helper"], [ACQUIRE]) == (ran, list(store.flights))


@pytest.mark.parametrize("end", ["answered", "cancelled", "failed"])
def test_functions_of_the_request_are_asked_one_after_the_other(store: FaultyStore, end: str) -> None:
    """They may read its body, which comes once: who comes later takes the answer, or asks anew where there is none."""
    asked: list[asyncio.Future[str]] = []

    async def who(request: Any) -> str:
        asked.append(asyncio.get_running_loop().create_future())
        return await asked[-1]

    @limit("9/minute", by=who, shared="own")
    async def helper() -> None: ...

    async def view() -> None:
        first, second = (asyncio.ensure_future(helper()) for _ in range(2))
        for _ in range(5):
            await asyncio.sleep(0)
        assert 1 == len(asked)
        if end == "answered":
            asked[0].set_result("u1")
            await first
        elif end == "cancelled":
            await cancelled(first)
        else:
            asked[0].set_exception(LookupError("no such user"))
            with pytest.raises(LookupError):
                await first
        if end != "answered":
            for _ in range(5):
                await asyncio.sleep(0)
            asked[1].set_result("u1")
        await asyncio.wait_for(second, 30)

    serve(store, view)
    assert [ACQUIRE] == list(store.flights)
    assert (1 if end == "answered" else 2) == len(asked)


def test_a_function_of_the_request_calls_what_asks_it(store: FaultyStore) -> None:
    """A task that it starts does not wait for its answer, which waits for the task."""
    asked: list[str] = []

    async def who(request: Any) -> str:
        asked.append("who")
        if len(asked) == 1:
            await asyncio.gather(helper())
        return "u1"

    @limit("9/minute", by=who, shared="own")
    async def helper() -> None: ...

    async def view() -> None:
        await asyncio.wait_for(helper(), 30)

    serve(store, view)
    assert (["who"] * 2, [ACQUIRE]) == (asked, list(store.flights))


def test_a_message_comes_while_a_task_waits(store: FaultyStore) -> None:
    """Over a socket, each message is asked about anew: so is who waits for another's verdict meanwhile."""
    both = limit("9/minute", shared="both")
    plain = plain_of(both)
    asked: list[str] = []

    async def who() -> str:
        asked.append("who")
        return "u1"

    @both
    @limit("9/minute", by=late(who), shared="own")
    async def helper() -> None: ...

    async def view() -> None:
        exchange = current()
        assert exchange is not None
        with store.hanging(30):
            first = await asking(store, plain)
            second = asyncio.ensure_future(helper())
            for _ in range(5):
                await asyncio.sleep(0)
            assert 1 == len(asked)
            exchange.renew()
        await asyncio.gather(first, second)

    serve(store, view)
    assert ["who"] * 2 == asked


def test_settings_change_while_a_task_waits(store: FaultyStore) -> None:
    """What is left to enforce after the wait is enforced with the new settings, and what these ask is asked."""
    both = limit("9/minute", shared="both")
    plain = plain_of(both)

    @both
    @limit("9/minute", shared="own")
    async def helper() -> None: ...

    async def view() -> None:
        exchange = current()
        assert exchange is not None
        assert isinstance(exchange.engine, Runtime)
        with store.hanging(30):
            first = await asking(store, plain)
            second = asyncio.ensure_future(helper())
            await asyncio.sleep(0)
            exchange.engine.reload(Settings.load({"by": lambda request: "somebody"}, environ={}))
        await asyncio.gather(first, second)

    serve(store, view)
    assert 1 == sum("shared:own" in key and "somebody" in key for key in store.keys)
