"""The contract of enforcement: no declared policy runs unenforced, wherever decorators and middleware stand."""

from collections.abc import Iterator
from typing import Any

import pytest

from failsoft.errors import RateLimited, Rejected
from failsoft.ratelimit import exempt, limit
from failsoft.testing.contract.base import Build, ContractBase, each_position, each_shape, function_shapes, hide
from failsoft.testing.faults import FaultyStore
from failsoft.testing.harness import Harness
from failsoft.testing.site import Answer, Call, Position, Shape, View

__all__ = ["EnforcementContract"]


class EnforcementContract(ContractBase):
    """No declared policy runs unenforced, wherever decorators and middleware stand."""

    @each_position
    @each_shape
    def test_each_shape(self, build: Build, store: FaultyStore, shape: Shape, position: Position) -> None:
        """Whatever a view is made as, wherever the middleware stands: its limit is enforced in the one flight."""
        view = View(path="/{id}", shape=shape, decorators=[limit("2/minute")])
        app = build(view, limits=["99/minute"], position=position)
        assert [200, 200, 429] == app.statuses(3, "/1")
        assert [("ratelimit.acquire",)] * 3 == list(store.flights)

    @each_shape
    def test_stacked_decorators(self, build: Build, store: FaultyStore, shape: Shape) -> None:
        """Several limits on one view, outermost first, are decided together."""
        app = build(View(path="/", shape=shape, decorators=[limit("9/minute", name="a"), limit("1/minute", name="b")]))
        replies = [app.get("/"), app.get("/")]
        assert [200, 429] == [reply.status for reply in replies]
        assert [["a", "b"]] * 2 == [list(reply.limits) for reply in replies]
        assert 2 == len(store.flights)

    @each_position
    @function_shapes
    def test_above_the_route(self, build: Build, shape: Shape, position: Position) -> None:
        """A limit above the framework's route decorator, where the route has the view without it, is enforced."""
        app = build(View(path="/", shape=shape, above_route=[limit("2/minute")]), position=position)
        assert [200, 200, 429] == app.statuses(3, "/")

    @function_shapes
    def test_above_and_below_the_route(self, build: Build, shape: Shape) -> None:
        """Limits on both sides of the route decorator are all enforced, and all or none of them charged."""
        app = build(
            View(
                path="/",
                shape=shape,
                decorators=[limit("9/minute", name="below")],
                above_route=[limit("1/minute", name="above")],
            )
        )
        assert [200, 429, 429] == app.statuses(3, "/")
        assert {"below": 8, "above": 0} == {name: one.remaining for name, one in app.get("/").limits.items()}

    @function_shapes
    def test_exempt_above_the_route(self, build: Build, shape: Shape) -> None:
        """An exemption above the route decorator is heard too."""
        app = build(View(path="/", shape=shape, above_route=[exempt]), limits=["1/minute"])
        assert [200, 200] == app.statuses(2, "/")

    @each_position
    @function_shapes
    def test_under_a_decorator_that_hides_it(self, build: Build, shape: Shape, position: Position) -> None:
        """A limit under a decorator without `wraps`, which no route can see, is enforced late."""
        app = build(View(path="/", shape=shape, decorators=[hide, limit("2/minute")]), position=position)
        assert [200, 200, 429] == app.statuses(3, "/")

    @function_shapes
    def test_around_a_decorator_that_hides_the_view(self, build: Build, store: FaultyStore, shape: Shape) -> None:
        """A limit around a decorator without `wraps` is enforced early."""
        app = build(View(path="/", shape=shape, decorators=[limit("2/minute"), hide]))
        assert [200, 200, 429] == app.statuses(3, "/")
        assert 3 == len(store.flights)

    @function_shapes
    def test_on_both_sides_of_a_decorator_that_hides(self, build: Build, store: FaultyStore, shape: Shape) -> None:
        """With a hiding decorator in between, the outer limit is enforced early, the inner one late."""
        outer, inner = limit("9/minute", name="outer"), limit("1/minute", name="inner")
        app = build(View(path="/", shape=shape, decorators=[outer, hide, inner]))
        replies = [app.get("/"), app.get("/")]
        assert [200, 429] == [reply.status for reply in replies]
        assert [{"outer", "inner"}] * 2 == [set(reply.limits) for reply in replies]
        assert 4 == len(store.flights)

    @each_position
    def test_late_refusal(self, build: Build, position: Position) -> None:
        """A late refusal is a 429 like an early one, with the fields of all limits, those charged before it too."""
        app = build(
            View(path="/", decorators=[hide, limit("1/minute", name="late")]), limits=["9/minute"], position=position
        )
        app.get("/")
        reply = app.get("/", ("Origin", "https://elsewhere.example"))
        assert (429, ["application/problem+json"]) == (reply.status, reply.lines("Content-Type"))
        assert (60, "no-store") == (reply.retry_after, reply.header("Cache-Control"))
        assert {"9-per-minute": 7, "late": 0} == {name: one.remaining for name, one in reply.limits.items()}
        assert ["late"] == reply.json()["violated-policies"]
        assert reply.header("Access-Control-Expose-Headers") is not None

    @pytest.mark.parametrize("shape", ["def", "class"])
    def test_helper(self, build: Build, shape: Shape) -> None:
        """A limited function that a view calls is limited; its refusal is the response."""

        @limit("2/minute")
        def helper() -> bytes:
            return b"helped"

        app = build(View(path="/", shape=shape, handle=lambda call: Answer(body=helper())))
        replies = [app.get("/") for _ in range(3)]
        assert [200, 200, 429] == [reply.status for reply in replies]
        assert [1, 0, 0] == [reply.limits["2-per-minute"].remaining for reply in replies]
        assert b"helped" == replies[0].body

    def test_refused_helper_stays_refused(self, build: Build) -> None:
        """A view that catches the refusal of a helper and calls it again is refused again: the helper never runs."""
        ran: list[bool] = []

        @limit("1/minute", shared="stubborn")
        def helper() -> None:
            ran.append(True)

        def handle(call: Call) -> Answer:
            refused = 0
            for _ in range(3):
                try:
                    helper()
                except Rejected:
                    refused += 1
            return Answer(body=str(refused).encode())

        app = build(View(path="/", handle=handle))
        assert [b"0", b"3"] == [app.get("/").body for _ in range(2)]
        assert 3 == len(ran)  # once admitted, a policy stays so for its request

    def test_async_helper(self, build: Build) -> None:
        """A limited coroutine function that an async view awaits is limited; its refusal is the response."""

        @limit("2/minute")
        async def helper() -> bytes:
            return b"helped"

        async def handle(call: Call) -> Answer:
            return Answer(body=await helper())

        app = build(View(path="/", shape="async", handle=handle))
        replies = [app.get("/") for _ in range(3)]
        assert [200, 200, 429] == [reply.status for reply in replies]
        assert [1, 0, 0] == [reply.limits["2-per-minute"].remaining for reply in replies]

    def test_helper_in_a_stream(self, build: Build, harness: Harness) -> None:
        """A limited function that is called while the body is being made is limited; a refusal ends the body."""
        if harness.concurrency == "tasks":
            pytest.skip("bodies are made on the event loop, where a plain function cannot wait for the store")

        @limit("2/minute")
        def helper() -> bytes:
            return b"helped"

        def pieces() -> Iterator[bytes]:
            yield b"first "
            yield helper()

        app = build(View(path="/", handle=lambda call: Answer(stream=pieces())))
        assert [b"first helped", b"first helped", b"first "] == [app.get("/").body for _ in range(3)]

    def test_view_catches_a_refusal(self, build: Build) -> None:
        """A view may catch a helper's refusal and answer by itself; the fields still tell of it."""

        @limit("1/minute")
        def helper() -> bytes:
            return b"fresh"

        def handle(call: Call) -> Answer:
            try:
                return Answer(body=helper())
            except RateLimited as refusal:
                return Answer(body=f"stale for {refusal.retry_after} s".encode())

        app = build(View(path="/", handle=handle))
        replies = [app.get("/"), app.get("/")]
        assert [(200, b"fresh"), (200, b"stale for 60 s")] == [(reply.status, reply.body) for reply in replies]
        assert [None, None] == [reply.retry_after for reply in replies]
        assert 0 == replies[1].limits["1-per-minute"].remaining

    def test_charged_once(self, build: Build, store: FaultyStore) -> None:
        """A policy is charged once in a request, however often the function that carries it is called."""

        @limit("3/minute")
        def helper() -> None:
            pass

        def handle(call: Call) -> None:
            for _ in range(5):
                helper()

        app = build(View(path="/", handle=handle))
        assert [200, 200, 200, 429] == app.statuses(4, "/")
        assert 4 == len(store.flights)

    def test_one_policy_on_two_functions_of_a_request(self, build: Build) -> None:
        """A policy object on the view and on its helper is one policy, charged once."""
        policy = limit("2/minute")

        @policy
        def helper() -> None:
            pass

        def handle(call: Call) -> None:
            helper()

        app = build(View(path="/", handle=handle, decorators=[policy]))
        assert [200, 200, 429] == app.statuses(3, "/")

    def test_method_of_a_class(self, build: Build) -> None:
        """A limit on the handlers of a class-based view is each handler's."""
        view = View(path="/", methods=("GET", "POST"), shape="method", decorators=[limit("1/minute", per_method=True)])
        app = build(view)
        assert [200, 200, 429, 429] == [app.request(method, "/").status for method in ("GET", "POST", "GET", "POST")]

    def test_refused_views_do_not_run(self, build: Build) -> None:
        """The body of a refused view does not run, whether it was refused early or late."""
        ran: list[str] = []

        def handle(call: Call) -> None:
            ran.append(call.path)

        app = build(
            View(path="/early", handle=handle, decorators=[limit("1/minute")]),
            View(path="/late", handle=handle, decorators=[hide, limit("1/minute")]),
        )
        assert [200, 429, 200, 429] == [app.get(path).status for path in ("/early", "/early", "/late", "/late")]
        assert ["/early", "/late"] == ran

    def test_call(self, build: Build) -> None:
        """A limited view is called with what it would have been called with."""
        calls: list[Any] = []

        def handle(call: Call) -> None:
            calls.append((call.method, call.path, dict(call.params), call.header("X-One")))

        app = build(View(path="/items/{id}/{part}", handle=handle, decorators=[limit("9/minute")]))
        app.get("/items/7/lid?full=1", ("X-One", "1"))
        assert [("GET", "/items/7/lid", {"id": "7", "part": "lid"}, "1")] == calls
