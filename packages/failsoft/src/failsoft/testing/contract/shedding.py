"""The contract of load shedding: what is refused when there is more than can be served, and what never is."""

import asyncio
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from typing import Any

import pytest

from failsoft.events import Event, Shed
from failsoft.ratelimit import limit
from failsoft.ratelimit.shedding import criticality
from failsoft.testing.clock import ManualClock
from failsoft.testing.contract.base import Build, ContractBase, each_position, each_shape
from failsoft.testing.faults import FaultyStore
from failsoft.testing.harness import PEER, App, Harness, Reply
from failsoft.testing.servers import PATIENCE
from failsoft.testing.site import Answer, Call, Position, Shape, View

__all__ = ["SheddingContract"]

_LIMIT = 5
_AT_ONCE = 20

_FULL = {"shed": True, "shed_min": 1, "shed_max": 1}
"""One place, which is taken while a request of `_Holding` is under way."""


def _in_flight(app: App) -> int:
    assert app.runtime.shedder is not None
    return app.runtime.shedder.capacity.in_flight


def _listen(app: App) -> list[Shed]:
    heard: list[Shed] = []

    def listener(event: Event) -> None:
        if isinstance(event, Shed):
            heard.append(event)

    app.runtime.listen(listener)
    return heard


class _Holding:
    """A view that is under way for as long as the test wants."""

    def __init__(self) -> None:
        self._entered = threading.Event()
        self._leave = threading.Event()

    def view(self, path: str = "/held", **options: Any) -> View:
        return View(path=path, handle=self._handle, **options)

    def _handle(self, call: Call) -> Answer:
        self._entered.set()
        assert self._leave.wait(PATIENCE)
        return Answer()

    @contextmanager
    def under_way(self, app: App, path: str = "/held") -> Iterator[list[Reply]]:
        """Within, a request to `path` is under way; its reply is there afterwards."""
        replies: list[Reply] = []
        request = threading.Thread(target=lambda: replies.append(app.get(path)))
        request.start()
        try:
            assert self._entered.wait(PATIENCE)
            yield replies
        finally:
            self._leave.set()
            request.join(PATIENCE)


class SheddingContract(ContractBase):
    """What is refused when there is more than can be served, and what never is."""

    def test_no_shedding_unless_asked_for(self, build: Build) -> None:
        """Without the setting, as many requests are served at once as come."""
        app = build(View(path="/"))
        assert [200] * _AT_ONCE == [reply.status for reply in app.burst(_AT_ONCE, "GET", "/")]
        assert app.runtime.shedder is None

    def test_no_more_at_once_than_the_limit(self, build: Build, store: FaultyStore) -> None:
        """Of many requests at once as many are served as the limit says; the others are refused at once, and ask no store."""
        refused: list[Event] = []
        all_refused = threading.Event()

        def listener(event: Event) -> None:
            if isinstance(event, Shed):
                refused.append(event)
                if len(refused) == _AT_ONCE - _LIMIT:
                    all_refused.set()

        def handle(call: Call) -> Answer:
            assert all_refused.wait(PATIENCE)  # nobody leaves before all others were refused
            return Answer()

        view = View(path="/", handle=handle, decorators=[limit("999/minute")])
        app = build(view, shed=True, shed_min=_LIMIT, shed_max=_LIMIT)
        app.runtime.listen(listener)
        statuses = [reply.status for reply in app.burst(_AT_ONCE, "GET", "/")]
        assert [200] * _LIMIT + [503] * (_AT_ONCE - _LIMIT) == sorted(statuses)
        assert [("ratelimit.acquire",)] * _LIMIT == list(store.flights)
        assert 0 == _in_flight(app)

    def test_views_that_never_wait(self, build: Build, harness: Harness) -> None:
        """On an event loop, requests that wait for nothing are counted together all the same: the loop's own queue is kept short."""
        if harness.concurrency == "threads":
            pytest.skip("on threads, requests are under way at the same time by themselves")

        async def handle(call: Call) -> Answer:
            return Answer()

        app = build(View(path="/", shape="async", handle=handle), shed=True, shed_min=_LIMIT, shed_max=_LIMIT)
        statuses = [reply.status for reply in app.burst(_AT_ONCE, "GET", "/")]
        assert [200] * _LIMIT + [503] * (_AT_ONCE - _LIMIT) == sorted(statuses)

    @each_position
    def test_refusal(self, build: Build, position: Position) -> None:
        """A refusal is a problem (RFC 9457) that says when to come again, and nothing about limits that were not asked."""
        held = _Holding()
        app = build(held.view(), View(path="/"), limits=["99/minute"], position=position, **_FULL)
        with held.under_way(app) as replies:
            reply = app.get("/", ("Origin", "https://example.org"))
        assert [200] == [one.status for one in replies]
        problem = reply.json()
        assert (503, "application/problem+json") == (reply.status, reply.header("Content-Type"))
        assert (503, True) == (problem["status"], problem["type"].endswith("#temporary-reduced-capacity"))
        assert (1, "no-store", None) == (reply.retry_after, reply.header("Cache-Control"), reply.header("RateLimit"))

    def test_everything_else_is_refused_too(self, build: Build) -> None:
        """What no route serves, a wrong method and a CORS preflight cost something as well: nothing is special about them."""
        held = _Holding()
        app = build(held.view(), View(path="/"), **_FULL)
        preflight = [("Origin", "https://example.org"), ("Access-Control-Request-Method", "GET")]
        with held.under_way(app):
            replies = [
                app.get("/missing"),
                app.request("DELETE", "/"),
                app.request("OPTIONS", "/", headers=preflight),
                app.request("HEAD", "/"),
            ]
        assert [503] * 4 == [reply.status for reply in replies]
        assert b"" == replies[-1].body
        assert [404, 405] == [app.get("/missing").status, app.request("DELETE", "/").status]
        assert 0 == _in_flight(app)

    @each_shape
    def test_classes(self, build: Build, shape: Shape) -> None:
        """When the limit is reached, a critical view is served, and a sheddable one is not, whatever they are made as."""
        held = _Holding()
        low, high = [criticality("sheddable")], [criticality("critical_plus")]
        app = build(
            held.view(decorators=low),
            View(path="/low", shape=shape, decorators=low, handle=_handle_for(shape)),
            View(path="/high", shape=shape, decorators=high, handle=_handle_for(shape)),
            **_FULL,
        )
        heard = _listen(app)
        with held.under_way(app) as replies:
            assert [200, 503] == [app.get(path).status for path in ("/high", "/low")]
        assert [200] == [reply.status for reply in replies]
        assert [("sheddable", "full", 1, 1)] == [
            (one.criticality, one.reason, one.in_flight, one.limit) for one in heard
        ]

    def test_classes_of_routes(self, build: Build) -> None:
        """The settings give classes to routes, and a decorator overrules them."""
        held = _Holding()
        app = build(
            held.view("/reports/held"),
            View(path="/reports/{id}"),
            View(path="/pay/{id}", methods=("GET", "POST")),
            View(path="/reports/{id}/summary", decorators=[criticality("critical")]),
            criticality={"/reports": "sheddable", "/pay": "critical_plus"},
            **_FULL,
        )
        with held.under_way(app, "/reports/held"):
            asked = [("GET", "/reports/1"), ("GET", "/pay/1"), ("POST", "/pay/1"), ("GET", "/reports/1/summary")]
            assert [503, 200, 200, 200] == [app.request(*one).status for one in asked]

    def test_exempt(self, build: Build) -> None:
        """Health checks and what is declared exempt are served when nothing else is, and take nobody's place."""
        held = _Holding()
        app = build(
            held.view(),
            View(path="/healthz"),
            View(path="/exempt", decorators=[criticality("exempt")]),
            View(path="/probes/{name}"),
            criticality={"/probes": "exempt"},
            **_FULL,
        )
        with held.under_way(app):
            paths = ("/healthz", "/exempt", "/probes/disk", "/probes/missing/one", "/livez", "/")
            assert [200, 200, 200, 404, 404, 503] == [app.get(path).status for path in paths]
            assert 1 == _in_flight(app)

    def test_header_fields_choose_nothing(self, build: Build) -> None:
        """No header field that a client can send makes its request more important, or older."""
        held = _Holding()
        app = build(held.view(), View(path="/"), queue_header="X-Request-Start", **_FULL)
        fields = [("Criticality", "critical_plus"), ("X-Criticality", "exempt"), ("Priority", "u=0")]
        with held.under_way(app):
            assert [503] == app.statuses(1, "/", *fields)
        stale = ("X-Request-Start", "t=1.0")
        assert [200] * 30 == app.statuses(30, "/", stale)

    def test_streams_hold_their_place(self, build: Build) -> None:
        """A streamed response holds its place to its last piece, or until its reader leaves."""
        seen: list[int] = []
        app = build(View(path="/stream", handle=lambda call: Answer(stream=iter([b"one", b"two", b"three"]))), **_FULL)
        reply = app.request("GET", "/stream", on_chunk=lambda chunk: seen.append(_in_flight(app)))
        assert (b"onetwothree", [1, 1, 1]) == (reply.body, seen)
        assert 0 == _in_flight(app)
        assert b"one" == app.abandon("/stream")
        assert 0 == _in_flight(app)

    def test_every_place_is_given_back(self, build: Build) -> None:
        """Whatever becomes of a request, its place is free afterwards: errors, refusals by limits, unknown routes."""

        def fail(call: Call) -> Answer:
            raise ZeroDivisionError

        app = build(
            View(path="/fail", handle=fail),
            View(path="/abort", handle=lambda call: Answer(abort=403)),
            View(path="/limited", decorators=[limit("1/minute")]),
            **_FULL,
        )
        for path in ("/fail", "/abort", "/limited", "/limited", "/missing"):
            with suppress(ZeroDivisionError):
                app.get(path)
            assert 0 == _in_flight(app), path

    def test_cancelled_request_gives_its_place_back(self, build: Build, harness: Harness) -> None:
        """A request that is cancelled in its view gives its place back."""
        if harness.concurrency == "threads":
            pytest.skip("threads cannot be cancelled")
        entered = threading.Event()

        async def handle(call: Call) -> Answer:
            entered.set()
            await asyncio.Event().wait()
            return Answer()

        app = build(View(path="/", shape="async", handle=handle), **_FULL)
        assert app.cancel("/", when=entered)
        assert 0 == _in_flight(app)

    def test_own_answer(self, build: Build) -> None:
        """The application's own way to answer refusals is asked for these as well."""
        held = _Holding()
        app = build(
            held.view(),
            View(path="/"),
            renderer=lambda rejected: Answer(status=rejected.status, body=b"Please wait."),
            **_FULL,
        )
        with held.under_way(app):
            reply = app.get("/")
        assert (503, b"Please wait.", 1) == (reply.status, reply.body, reply.retry_after)

    def test_who_waited_too_long(self, build: Build, clock: ManualClock) -> None:
        """Behind a queue that has been standing for a second, by what a trusted proxy says, who waited too long is refused."""
        app = build(
            View(path="/"),
            View(path="/reports"),
            shed=True,
            criticality={"/reports": "sheddable"},
            queue_header="X-Request-Start",
            trusted_proxies=[PEER],
        )
        heard = _listen(app)

        def ask(path: str, waited: float) -> int:
            return app.get(path, ("X-Request-Start", f"t={clock.time() - waited:.3f}")).status

        for _ in range(10):
            assert 200 == ask("/", 0.0)
        for _ in range(11):
            assert 200 == ask("/", 0.07)
            clock.advance(0.1)
        assert [200, 503, 200] == [ask("/", 0.07), ask("/reports", 0.07), ask("/reports", 0.01)]
        assert [("sheddable", "waited", 0.07)] == [
            (one.criticality, one.reason, round(one.waited or 0, 3)) for one in heard
        ]


def _handle_for(shape: Shape) -> Callable[[Call], Any]:
    async def aok(call: Call) -> Answer:
        return Answer()

    return aok if shape == "async" else lambda call: Answer()
