"""What must be the same in all frameworks, shown side by side in one process."""

from collections.abc import Iterator
from contextlib import nullcontext

import pytest

from failsoft import exempt, limit
from failsoft.clock import SYSTEM
from failsoft.testing import FaultyStore, ManualClock
from failsoft.testing.harness import App, Harness, Reply
from failsoft.testing.site import Site, View
from tests.django.harness import AsgiHarness, WsgiHarness
from tests.fastapi.harness import FastAPIHarness
from tests.flask.harness import FlaskHarness
from tests.servers import Reads, Valkey
from tests.starlette.harness import StarletteHarness

HARNESSES: list[type[Harness]] = [
    FlaskHarness,
    WsgiHarness,
    AsgiHarness,
    StarletteHarness,
    FastAPIHarness,
]
ADDED = ("ratelimit", "ratelimit-policy", "retry-after", "degraded", "cache-control", "access-control-expose-headers")


def told(reply: Reply) -> tuple[int, dict[str, list[str]], object]:
    """What a reply says of limits: status, our fields, and the problem."""
    problem = reply.json() if reply.status in (429, 503, 403) else None
    return reply.status, {name: reply.lines(name) for name in ADDED if reply.lines(name)}, problem


@pytest.fixture
def views() -> list[View]:
    """One site for all: stacked, shared and closed limits."""
    return [
        View(path="/a", decorators=[limit("3/minute; 5/hour", shared="a"), limit("10/second burst 20", shared="b")]),
        View(path="/closed", decorators=[limit("3/minute", shared="c", on_outage="closed")]),
    ]


@pytest.mark.parametrize("away", [False, True], ids=["up", "away"])
def test_the_same_replies(views: list[View], away: bool) -> None:
    """The same requests get the same statuses, header fields and problems in every framework, with the store and without."""
    seen = []
    for harness in HARNESSES:
        clock = ManualClock()
        store = FaultyStore(clock=clock)
        site = Site(views=views, settings={"limits": ["100/day"]}, clock=clock, store=store, random=lambda: 0.5)
        with harness().build(site) as app, store.away("timeout") if away else nullcontext():
            paths = ["/a"] * 5 + ["/closed", "/nowhere"]
            headers = [("Origin", "https://elsewhere.example")]
            seen.append([told(app.request("GET", path, headers=headers)) for path in paths])
    assert [200, 200, 200, 429, 429, 503 if away else 200, 404] == [status for status, _, _ in seen[0]]
    assert [seen[0]] * len(HARNESSES) == seen


@pytest.fixture
def applications(views: list[View], shared_valkey: Valkey) -> Iterator[list[App]]:
    """Every framework's application on one server."""
    shared_valkey.run("FLUSHALL")
    settings = {"store": shared_valkey.url, "deadline": 5.0, "limits": ["100/day"]}
    # Django has one URLconf in a process at a time.
    chosen: list[type[Harness]] = [FlaskHarness, WsgiHarness, StarletteHarness, FastAPIHarness]
    built = [harness().build(Site(views=views, settings=settings, clock=SYSTEM)) for harness in chosen]
    yield built
    for app in built:
        app.close()


def test_one_budget(applications: list[App]) -> None:
    """Applications of different frameworks on one store share the limits that have one name, and the settings' limits."""
    replies = [app.get("/a") for app in applications]
    assert [200, 200, 200, 429] == [reply.status for reply in replies]
    assert [99, 98, 97, 97] == [reply.limits["100-per-day"].remaining for reply in replies]


def reads_of(server: Valkey, app: App, path: str) -> float:
    """How often the server reads for one request.

    The least of several tries: the connections that are made and renewed in the background only add.
    """
    counted: list[int] = []
    with Reads(server) as reads:
        for _ in range(3):
            before = reads()
            replies = [app.get(path) for _ in range(10)]
            counted.append(reads() - before)
            assert [200] * 10 == [reply.status for reply in replies]
    return min(counted) / 10


@pytest.mark.parametrize("harness", HARNESSES, ids=lambda harness: harness.name)
def test_one_flight(harness: type[Harness]) -> None:
    """An admitted request with three limits and their header fields is one read of the server's, and one that none applies to none."""
    views = [
        View(path="/limited", decorators=[limit("1000/hour")]),
        View(path="/free", decorators=[exempt]),
    ]
    with Valkey() as server:
        settings = {"store": server.url, "deadline": 5.0, "limits": ["1000/minute", "10000/day"]}
        with harness().build(Site(views=views, settings=settings, clock=SYSTEM)) as app:
            reply = app.get("/limited")  # it connects, and the server learns the script
            assert (200, 3, []) == (reply.status, len(reply.limits), reply.lines("degraded"))
            assert {"/limited": 1.0, "/free": 0.0} == {
                path: reads_of(server, app, path) for path in ("/limited", "/free")
            }
