"""Three tasks of one request that use its session in any order, and are cancelled anywhere, against a plain dict."""

import asyncio
import contextlib
from collections.abc import Coroutine, Sequence
from random import Random
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st

from failsoft.errors import SessionConflict
from failsoft.exchange import Operation
from failsoft.runtime import Runtime
from failsoft.sessions.session import Session
from failsoft.sessions.view import SessionView
from failsoft.testing import FaultyStore, ManualClock
from tests.core.requests import FakeFacts
from tests.core.sessions.sites import Browser, make_site


class LoopFacts(FakeFacts):
    """A request that is served on an event loop."""

    synchronous = False


class SlowStore(FaultyStore):
    """A store whose flights and answers take any number of turns of the event loop."""

    def __init__(self, clock: ManualClock, random: Random) -> None:
        super().__init__(clock=clock)
        self.random = random

    async def aflight(self, operations: Sequence[Operation]) -> list[Any]:
        await turns(self.random)
        answers = await super().aflight(operations)
        await turns(self.random)
        return answers


async def turns(random: Random) -> None:
    """Let others run, or not."""
    for _ in range(random.randrange(4)):
        await asyncio.sleep(0)


class Serving:
    """A request under way, and what its session should hold in the end.

    Attributes:
        model: the values.
        user: who is to be logged in.
        renewed: whether the id is to be another one.
        cancelled: whether a save was.
        owed: the cookies of what was saved.
    """

    def __init__(self, site: Runtime, browser: Browser, random: Random) -> None:
        self.random = random
        self.browser = browser
        self.site = site
        self.facts = LoopFacts(headers=browser.headers())
        self.exchange = site.begin(self.facts)
        assert site.sessions is not None
        self.sessions = site.sessions
        self.session: Session = site.sessions.open(self.facts.header("cookie"), self.exchange, eager=True)
        self.view = SessionView(self.session, "web")
        self.model: dict[str, Any] = {}
        self.user: str | None = None
        self.renewed = self.cancelled = False
        self.owed: list[str] = []
        self.lock = asyncio.Lock()  # as adapters have it

    async def save(self) -> None:
        async with self.lock:
            self.owed += await self.sessions.asave(self.session)

    async def cancelled_save(self) -> None:
        task = asyncio.create_task(self.save())
        await turns(self.random)
        await turns(self.random)
        self.cancelled = task.cancel() or self.cancelled
        with contextlib.suppress(asyncio.CancelledError):
            await task

    def log_in(self, user: str) -> None:
        if self.user not in (None, user):
            self.model.clear()
        self.view.login(user)
        self.user, self.renewed = user, True

    def log_out(self) -> None:
        self.view.logout()
        self.model.clear()
        self.user, self.renewed = None, True

    def rotate(self) -> None:
        self.view.rotate()
        self.renewed = True

    def put(self) -> None:
        key, value = self.random.choice("abc"), self.random.choice([1, [1], {"one": self.random.randrange(9)}])
        self.view[key] = self.model[key] = value

    def drop(self) -> None:
        if key := next(iter(self.model), None):
            del self.view[key], self.model[key]

    async def task(self) -> None:
        users = ["alice", "bob"]
        for _ in range(self.random.randrange(1, 5)):
            await turns(self.random)
            step = self.random.choice("ppppddriiosssc")
            if step == "i":
                self.log_in(self.random.choice(users))
            elif step in "sc":
                await (self.save() if step == "s" else self.cancelled_save())
            else:
                {"p": self.put, "d": self.drop, "r": self.rotate, "o": self.log_out}[step]()

    async def run(self) -> None:
        """Serve it to the end, and give the browser its cookies."""
        assert await self.site.aadmit(self.exchange) is None
        await self.sessions.aload(self.session)
        self.model = dict(self.view)
        self.user = None if self.view.principal is None else self.view.principal.subject
        tasks: list[Coroutine[Any, Any, None]] = [self.task() for _ in range(3)]
        await asyncio.gather(*tasks)
        fields = await self.site.afinish(self.exchange, 200)
        if self.exchange.unsaved is not None:
            raise self.exchange.unsaved
        self.browser.take([*(("Set-Cookie", cookie) for cookie in self.owed), *fields])
        self.exchange.end()


@given(st.randoms(use_true_random=False), st.sampled_from([None, "anonymous", "alice"]))
@settings(deadline=None)
def test_any_order(random: Random, begun: str | None) -> None:
    """What was written last is stored, who logged in last is logged in, and nobody keeps an id from before that.

    Where a save was cancelled, the store may have given the session an id that nobody was told of; then the request may be refused.
    """
    clock = ManualClock()
    site = make_site(SlowStore(clock, random), clock)
    assert site.sessions is not None
    browser = Browser(site)
    if begun is not None:
        with browser.request() as view:
            view["z"] = 0
            if begun != "anonymous":
                view.login(begun)
    before = browser.cookie

    async def serve() -> Serving | None:
        serving = Serving(site, browser, random)
        try:
            await serving.run()
        except SessionConflict:
            assert serving.cancelled
            return None
        return serving

    serving = asyncio.run(serve())
    if serving is None:
        return
    with browser.request() as view:
        found = dict(view), None if view.principal is None else view.principal.subject
    assert (serving.model, serving.user) == found
    if serving.renewed and before is not None:
        assert before != browser.cookie
    listed = {user: [one.handle for one in site.sessions.subjects.list(user)] for user in ("alice", "bob")}
    if serving.user is not None:
        assert (browser.cookie or "")[:16] in listed.pop(serving.user)
    if not serving.cancelled:
        assert not any(listed.values())
