"""The contract of flights and events: what a request asks of its store, beside whom, and what listeners hear."""

from collections.abc import Iterator
from contextlib import suppress

from failsoft.events import Event, LimitDecided
from failsoft.ratelimit import exempt, limit
from failsoft.testing.contract.base import Build, ContractBase, hide
from failsoft.testing.faults import FaultyStore
from failsoft.testing.harness import App
from failsoft.testing.site import Answer, Call, View
from failsoft.testing.toy import FIELD, LastStatus, UnderWay

__all__ = ["ConcernContract"]

_ACQUIRE = "ratelimit.acquire"


def _listen(app: App) -> list[LimitDecided]:
    heard: list[LimitDecided] = []

    def listener(event: Event) -> None:
        if isinstance(event, LimitDecided):
            heard.append(event)

    app.runtime.listen(listener)
    return heard


class ConcernContract(ContractBase):
    """What a request asks of its store, beside whom, and what listeners hear."""

    def test_one_flight(self, build: Build, store: FaultyStore) -> None:
        """Three limits are one operation in one flight, for an admitted request and for a refused one."""
        app = build(
            View(path="/", decorators=[limit("1/minute"), limit("9/hour")]), limits=["100/minute"], headers="both"
        )
        assert [200, 429] == app.statuses(2, "/")
        assert [(_ACQUIRE,), (_ACQUIRE,)] == list(store.flights)

    def test_a_refusal_is_remembered(self, build: Build, store: FaultyStore) -> None:
        """Who was refused is refused again without asking the store, with the same answer; others are not concerned."""
        app = build(View(path="/", decorators=[limit("1/minute")]), limits=["9/minute"])
        replies = [app.get("/") for _ in range(4)]
        assert [200, 429, 429, 429] == [reply.status for reply in replies]
        assert 2 == len(store.flights)
        told = ("RateLimit", "RateLimit-Policy", "Retry-After", "Content-Type", "Cache-Control")
        assert 1 == len({tuple(reply.header(name) for name in told) for reply in replies[1:]})
        assert 1 == len({reply.body for reply in replies[1:]})
        assert 200 == app.get("/", peer="203.0.113.77").status
        assert 3 == len(store.flights)

    def test_no_flight(self, build: Build, store: FaultyStore) -> None:
        """A request that no limit counts does not ask the store."""
        app = build(View(path="/"), View(path="/free", decorators=[exempt]), route_limits=[])
        assert [200, 200, 404] == [app.get(path).status for path in ("/", "/free", "/missing")]
        assert [] == list(store.flights)

    def test_exempt_makes_no_flight(self, build: Build, store: FaultyStore) -> None:
        """An exempt view does not ask the store."""
        app = build(View(path="/free", decorators=[exempt]), limits=["9/minute"], route_limits=["9/minute"])
        assert 200 == app.get("/free").status
        assert [] == list(store.flights)

    def test_second_concern(self, build: Build, store: FaultyStore) -> None:
        """Another concern loads its key in the limits' flight and writes at the end, and no adapter knows of it."""
        app = build(
            View(path="/", decorators=[limit("2/minute")]),
            View(path="/other", methods=("POST",)),
            concerns=[LastStatus()],
        )
        asked = [("GET", "/"), ("GET", "/"), ("GET", "/"), ("GET", "/missing"), ("GET", "/other"), ("POST", "/other")]
        replies = [app.request(method, path) for method, path in asked]
        assert [200, 200, 429, 404, 405, 200] == [reply.status for reply in replies]
        assert ["none", "200", "200", "429", "404", "405"] == [reply.header(FIELD) for reply in replies]
        assert [(_ACQUIRE, "toy.load"), ("toy.save",)] * 3 + [("toy.load",), ("toy.save",)] * 3 == list(store.flights)

    def test_second_concern_with_late_limits(self, build: Build, store: FaultyStore) -> None:
        """A late limit is a flight of its own, just before the view; the settlement hears of its refusal."""
        app = build(View(path="/", decorators=[hide, limit("1/minute")]), concerns=[LastStatus()])
        replies = [app.get("/") for _ in range(3)]
        assert [(200, "none"), (429, "200"), (429, "429")] == [(reply.status, reply.header(FIELD)) for reply in replies]
        # The third refusal is remembered.
        asked = [("toy.load",), (_ACQUIRE,), ("toy.save",)]
        assert asked * 2 + [asked[0], asked[2]] == list(store.flights)

    def test_the_end_of_a_request(self, build: Build) -> None:
        """A concern hears once that a request is over: served, refused, failed, unrouted; of a stream, after its last piece."""
        under_way = UnderWay()

        def pieces() -> Iterator[bytes]:
            yield b"one"
            seen.append(under_way.count)
            yield b"two"
            seen.append(under_way.count)

        def fail(call: Call) -> Answer:
            seen.append(under_way.count)
            raise ZeroDivisionError

        seen: list[int] = []
        app = build(
            View(path="/", decorators=[limit("1/minute")]),
            View(path="/stream", handle=lambda call: Answer(stream=pieces())),
            View(path="/fail", handle=fail),
            concerns=[under_way],
        )
        assert [200, 429, 404, 200] == [app.get(path).status for path in ("/", "/", "/missing", "/stream")]
        with suppress(ZeroDivisionError):
            app.get("/fail")
        assert [1, 1, 1] == seen
        assert (0, 5) == (under_way.count, under_way.ended)

    def test_events(self, build: Build, store: FaultyStore) -> None:
        """Each decision is told to listeners: the outcome, each limit's state, the route and the method."""
        app = build(View(path="/items/{id}", decorators=[limit("1/minute", name="items")]))
        heard = _listen(app)
        app.get("/items/1")
        app.request("HEAD", "/items/2")
        assert [(True, "GET"), (False, "HEAD")] == [(event.admitted, event.method) for event in heard]
        assert [[("items", True, 0, 60.0)], [("items", False, 0, 60.0)]] == [list(event.limits) for event in heard]
        assert [(None, False)] * 2 == [(event.degraded, event.late) for event in heard]
        (route,) = {event.route for event in heard}
        assert route is not None
        assert "id" in route

    def test_events_of_an_outage(self, build: Build, store: FaultyStore) -> None:
        """A decision without the store says why there was none."""
        app = build(View(path="/", decorators=[limit("9/minute", on_outage="closed")]), limits=["9/minute"])
        heard = _listen(app)
        with store.away("timeout"):
            app.get("/")
        assert [(False, "timeout")] == [(event.admitted, event.degraded) for event in heard]

    def test_events_of_late_limits(self, build: Build) -> None:
        """A decision just before the view's body is told as late."""
        app = build(View(path="/", decorators=[hide, limit("9/minute")]), limits=["99/minute"])
        heard = _listen(app)
        app.get("/")
        assert [(False, ["99-per-minute"]), (True, ["9-per-minute"])] == [
            (event.late, [one.name for one in event.limits]) for event in heard
        ]

    def test_a_listener_that_fails(self, build: Build) -> None:
        """A listener's exception harms no request."""

        def listener(event: Event) -> None:
            raise ZeroDivisionError

        app = build(View(path="/", decorators=[limit("1/minute")]))
        app.runtime.listen(listener)
        assert [200, 429] == app.statuses(2, "/")
