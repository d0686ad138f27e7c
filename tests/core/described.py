"""Applications of no framework, for tests of the command line."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import redis

from failsoft import Settings, limit
from failsoft.inspection import Description, Trial, Tried
from failsoft.runtime import Runtime
from tests.core.requests import FakeFacts, serve
from tests.servers import poll

__all__ = ["HERE", "WHERE", "described", "opened", "view_with"]

HERE = f"{__name__}.view_with.<locals>.view"
"""What every view is called."""


def view_with(*policies: Any) -> Any:
    def view() -> None: ...

    for policy in reversed(policies):
        view = policy(view)
    return view


WHERE = f"{__file__}:{view_with.__code__.co_firstlineno + 1}"
"""Where every view is."""


def described(
    runtime: Runtime, *policies: Any, route: str | None = "/a", note: str = "", facts: Any = FakeFacts, **said: Any
) -> Description:
    """An application with one view, which serves every request unless `route` is None."""
    view = view_with(*policies)

    @contextmanager
    def trial(asked: Trial) -> Iterator[Tried]:
        headers = {name.lower(): value for name, value in asked.headers}
        made = facts(
            None if route is None else view,
            method=asked.method,
            route=route,
            address=asked.address,
            headers=headers,
            path=asked.path,
            **said,
        )
        yield Tried(made, note)

    return Description("Framework", runtime, (), trial)


@contextmanager
def opened(url: str, *policies: Any, **settings: Any) -> Iterator[tuple[Description, Any]]:
    """An application with one view, on a server that is made empty; and what serves a request to it and gives the status."""
    with redis.Redis.from_url(url) as client:
        client.flushall()
    runtime = Runtime(
        Settings.load({"store": url, "limits": [], "deny_cache": 0, "deadline": 2, **settings}, environ={})
    )
    description = described(runtime, *policies)

    def request(number: int = 1, address: str = "192.0.2.1") -> list[int]:
        trial = Trial(method="GET", target="/a", address=address)
        assert description.trial is not None
        with description.trial(trial) as (facts, *_):
            return [serve(runtime, facts)[0] for _ in range(number)]

    try:
        poll(lambda: "limits" not in serve(runtime, FakeFacts(view_with(limit("9/day", shared="warm"))))[1].degraded)
        yield description, request
    finally:
        runtime.close()
