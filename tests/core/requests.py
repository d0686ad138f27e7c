"""A request of no framework, for tests of the core."""

import asyncio
from collections.abc import Awaitable, Callable, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

from failsoft import Settings
from failsoft.exchange import Exchange, Facts, NotYet
from failsoft.exchange.policy import enter, leave
from failsoft.runtime import Runtime
from failsoft.stores import Store
from failsoft.testing import ManualClock

__all__ = ["FakeFacts", "make_runtime", "serve", "serving"]


class FakeFacts(Facts):
    """What a test says of a request."""

    __slots__ = ("address", "lines", "part", "where", "who")

    def __init__(
        self,
        endpoint: Any = None,
        *,
        method: str = "GET",
        route: str | None = "/",
        address: str | None = "192.0.2.1",
        headers: Mapping[str, str | list[str]] | None = None,
        user: str | NotYet | None = None,
        path: str = "/",
        groups: Sequence[str] = (),
    ) -> None:
        self.request = self
        self.endpoint = endpoint
        self.method = method
        self.route = route
        self.address = address
        self.lines = {name: [value] if isinstance(value, str) else value for name, value in (headers or {}).items()}
        self.who = user
        self.where = path
        self.part = groups

    def peer(self) -> str | None:
        return self.address

    def header_lines(self, name: str) -> Sequence[str]:
        return self.lines.get(name, [])

    def path(self) -> str:
        return self.where

    def groups(self) -> Sequence[str]:
        return self.part

    def user(self) -> str | NotYet | None:
        return self.who

    def run(self, awaitable: Awaitable[Any]) -> Any:
        async def wait() -> Any:
            return await awaitable

        return asyncio.run(wait())


def make_runtime(
    *,
    store: Store | None = None,
    clock: ManualClock | None = None,
    concerns: Sequence[Any] = (),
    random: Callable[[], float] = lambda: 0.0,
    **settings: Any,
) -> Runtime:
    """A runtime whose time stands still, without a jitter."""
    loaded = Settings.load(settings, environ={})
    return Runtime(loaded, store=store, clock=clock or ManualClock(), concerns=concerns, random=random)


@contextmanager
def serving(runtime: Runtime, facts: Facts) -> Any:
    """An exchange that is current."""
    exchange = runtime.begin(facts)
    token = enter(exchange)
    try:
        yield exchange
    finally:
        leave(token)


def serve(runtime: Runtime, facts: Facts) -> tuple[int, Exchange, list[tuple[str, str]]]:
    """Serve a request whose view does nothing: the status, the exchange and the header fields."""
    with serving(runtime, facts) as exchange:
        rejected = runtime.admit(exchange)
        status = 200 if rejected is None else rejected.status
        return status, exchange, runtime.finish(exchange, status)
