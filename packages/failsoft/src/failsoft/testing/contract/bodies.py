"""The contract of bodies: what functions of the request read, views read all the same."""

import json
from collections.abc import Awaitable
from inspect import isawaitable
from typing import Any

import pytest

from failsoft.presets import submitted
from failsoft.ratelimit import limit
from failsoft.testing.contract.base import Build, ContractBase, each_position, either_way, hide
from failsoft.testing.faults import FaultyStore
from failsoft.testing.harness import App, Harness, Reply
from failsoft.testing.site import Answer, Call, Position, View

__all__ = ["BodyContract"]

_JSON = ("Content-Type", "application/json")
_FORM = ("Content-Type", "application/x-www-form-urlencoded")


async def _echo(call: Call) -> Answer:
    """The request's body."""
    body = call.body()
    return Answer(body=await body if isinstance(body, Awaitable) else body)


def _post(app: App, path: str, **fields: Any) -> Reply:
    return app.request("POST", path, headers=[_JSON], body=json.dumps(fields).encode())


class BodyContract(ContractBase):
    """What functions of the request read, views read all the same."""

    @either_way
    def test_cost_of_a_body(self, build: Build, harness: Harness, asynchronous: bool) -> None:
        """A cost may be told by the request's JSON; the view reads the whole body all the same."""

        def cost(request: Any) -> int:
            return len(harness.json(request)["items"])

        async def cost_async(request: Any) -> int:
            found = harness.json(request)
            return len((await found if isawaitable(found) else found)["items"])

        policy = limit("5/minute", cost=cost_async if asynchronous else cost)
        app = build(View(path="/", methods=("POST",), shape="async", handle=_echo, decorators=[policy]))
        replies = [_post(app, "/", items=[1] * number, text="x" * 200_000) for number in (3, 3, 2)]
        assert [200, 429, 200] == [reply.status for reply in replies]
        assert {"items": [1, 1, 1], "text": "x" * 200_000} == replies[0].json()
        assert [2, 2, 0] == [reply.limits["5-per-minute"].remaining for reply in replies]

    @pytest.mark.parametrize("hidden", [False, True], ids=["early", "late"])
    def test_several_functions_of_a_body(self, build: Build, harness: Harness, hidden: bool) -> None:
        """Several functions may read the body, early or just before the view, and the view after them."""

        async def read(request: Any) -> Any:
            found = harness.json(request)
            return await found if isawaitable(found) else found

        async def cost(request: Any) -> int:
            return int((await read(request))["cost"])

        async def who(request: Any) -> str:
            return str((await read(request))["who"])

        decorators: list[Any] = [*([hide] if hidden else []), limit("5/minute", cost=cost, by=who)]
        app = build(View(path="/", methods=("POST",), shape="async", handle=_echo, decorators=decorators))
        asked = [("a", 3), ("b", 3), ("a", 3), ("a", 2)]
        replies = [_post(app, "/", who=who, cost=cost) for who, cost in asked]
        assert [200, 200, 429, 200] == [reply.status for reply in replies]
        assert {"who": "b", "cost": 3} == replies[1].json()

    def test_bodies_that_nobody_reads(self, build: Build) -> None:
        """Where no function reads the body, the view does, as without failsoft."""
        app = build(View(path="/", methods=("POST",), shape="async", handle=_echo, decorators=[limit("9/minute")]))
        body = bytes(range(256)) * 1000
        assert body == app.request("POST", "/", headers=[("Content-Type", "application/x-any")], body=body).body

    @each_position
    def test_submitted(self, build: Build, store: FaultyStore, position: Position) -> None:
        """A limit may count by a field that is submitted, in a form or in JSON, whatever the JSON is called."""
        view = View(
            path="/", methods=("POST",), decorators=[limit("2/minute", by=submitted("who"), on_missing="exempt")]
        )
        app = build(view, position=position)
        kinds = [_FORM, _JSON, ("Content-Type", "text/plain")]
        bodies = [b"x=1&who=alice", b'{"x": 1, "who": "alice"}', b'{"who": "alice"}']
        statuses = [
            app.request("POST", "/", headers=[kind], body=body).status for kind, body in zip(kinds, bodies, strict=True)
        ]
        assert [200, 200, 429] == statuses
        assert 200 == app.request("POST", "/", headers=[_FORM], body=b"who=bob").status
        missing = [b"", b"x=1", b"who=", b"\xff\xfe", b"[1]", b'{"who": ["alice"]}', b'{"who": true}', b"{" * 100_000]
        for kind in kinds:
            for body in missing:
                assert 200 == app.request("POST", "/", headers=[kind], body=body).status
