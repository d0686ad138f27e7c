"""What other limiters get wrong, and we do not: each test says what we do."""

import statistics
import threading
import time
from collections.abc import Sequence
from typing import Any

import pytest
import redis

from failsoft import Quota, limit
from failsoft.exchange import Table
from failsoft.ratelimit import Acquire, parse_quotas
from failsoft.ratelimit.acquire import SCRIPT
from failsoft.stores import MemoryStore, open_store
from failsoft.testing import FaultyStore, ManualClock
from tests.core.requests import FakeFacts, make_runtime, serve
from tests.servers import Valkey, poll


def view_with(*policies: Any) -> Any:
    def view() -> None: ...

    for policy in reversed(policies):
        view = policy(view)
    return view


def test_refused_requests_do_not_burn_the_other_limits() -> None:
    """Of ten requests against 100/minute and 2/hour, two pass, and the minute is charged with two, not ten."""
    runtime = make_runtime(limits=["100/minute", "2/hour"])
    replies = [serve(runtime, FakeFacts()) for _ in range(10)]
    assert [200, 200] + [429] * 8 == [status for status, _, _ in replies]
    assert '"100-per-minute";r=98' in dict(replies[-1][2])["RateLimit"]


def test_refused_requests_do_not_count_past_the_limit(valkey: Valkey) -> None:
    """A counter never goes past its limit, however often a client is refused: the stored value is the limit itself."""
    with redis.Redis.from_url(valkey.url) as client:
        acquire = Acquire([Quota(amount=2, window=60)], ["key"], [1])
        for _ in range(10):
            client.eval(SCRIPT.source, 1, "key", *acquire.arguments)
        assert b"2" == client.get("key")


def test_parts_of_a_key_are_escaped() -> None:
    """Users "a/b" of "c" and "a" of "b/c", and all their like, are counted apart, in memory as on a server."""
    view = view_with(limit("1/minute", by=lambda request: request.who))
    runtime = make_runtime()
    parts = [("a/b", "c"), ("a", "b/c"), ("a:b", "c"), ("a", "b:c"), ("ab", "c"), ("a", "bc"), "a:b:c", "a%3Ab:c"]
    assert [200] * len(parts) == [serve(runtime, FakeFacts(view, user=one))[0] for one in parts]  # type: ignore[arg-type]  # tuples
    assert [429] * len(parts) == [serve(runtime, FakeFacts(view, user=one))[0] for one in parts]  # type: ignore[arg-type]  # likewise


def test_clients_have_buckets_of_their_own() -> None:
    """Four addresses with two requests each are eight requests of four clients, all admitted at 2/minute."""
    runtime = make_runtime(limits=["2/minute"])
    addresses = [f"192.0.2.{n}" for n in range(4)] * 2
    assert [200] * 8 == [serve(runtime, FakeFacts(address=address))[0] for address in addresses]
    assert 429 == serve(runtime, FakeFacts(address="192.0.2.0"))[0]


@pytest.mark.parametrize("peer", ["192.0.2.1", "10.0.0.1"])
def test_left_most_forwarded_address_is_the_clients_own_word(peer: str) -> None:
    """Inventing addresses at the left of X-Forwarded-For makes nobody a new client: not without a trusted proxy, not behind one."""
    runtime = make_runtime(limits=["2/minute"], trusted_proxies=["10.0.0.0/8"])
    lines = [f"203.0.113.{n}, 198.51.100.9" for n in range(4)]
    statuses = [serve(runtime, FakeFacts(address=peer, headers={"x-forwarded-for": line}))[0] for line in lines]
    assert [200, 200, 429, 429] == statuses


def test_there_is_no_unknown_bucket() -> None:
    """Clients without an address are not counted together as one: each is refused, told why, and charged to nobody."""
    store = FaultyStore()
    runtime = make_runtime(store=store, limits=["100/minute"])
    assert [403, 403] == [serve(runtime, FakeFacts(address=None))[0] for _ in range(2)]
    assert set() == store.keys


def test_concrete_paths_are_no_keys() -> None:
    """/items/1 and /items/2 are one route with one budget: the key has the template."""
    runtime = make_runtime(route_limits=["2/minute"])
    assert [200, 200, 429] == [serve(runtime, FakeFacts(None, route="/items/{id}"))[0] for _ in range(3)]


def test_limits_of_the_application_hold_for_decorated_views() -> None:
    """A limit of its own does not take a view out of the application's limits."""
    view = view_with(limit("100/minute"))
    runtime = make_runtime(limits=["2/minute"])
    assert [200, 200, 429] == [serve(runtime, FakeFacts(view))[0] for _ in range(3)]


def test_unknown_routes_are_limited() -> None:
    """A request whose view is not known is not exempt: the application's limits and the route limits hold."""
    for setting in ("limits", "route_limits"):
        runtime = make_runtime(**{setting: ["2/minute"]})
        assert [200, 200, 429] == [serve(runtime, FakeFacts(None, route=None))[0] for _ in range(3)]


def test_async_functions_are_awaited() -> None:
    """An async function that says whom to count, or whether to, is awaited; its coroutine is not taken for the answer."""

    async def nobody(request: Any) -> None:
        return None

    async def never(request: Any) -> bool:
        return False

    runtime = make_runtime()
    counted, spared = view_with(limit("1/minute", by=nobody)), view_with(limit("1/minute", when=never))
    assert [200, 429] == [serve(runtime, FakeFacts(counted))[0] for _ in range(2)]
    assert [200, 200] == [serve(runtime, FakeFacts(spared))[0] for _ in range(2)]


def test_retry_after_is_for_refusals() -> None:
    """An admitted response has no Retry-After; a refused one has, in whole seconds, not before the reset."""
    runtime = make_runtime(limits=["1/minute"], headers="both")
    admitted, refused = (serve(runtime, FakeFacts()) for _ in range(2))
    assert "Retry-After" not in dict(admitted[2])
    assert admitted[1].rejection is None
    assert refused[1].rejection is not None
    assert ("Retry-After", "60") in runtime.answer(refused[1].rejection, None)[1]


def test_refused_is_429_and_not_403() -> None:
    """A quota that is used up is 429 with a body that names it."""
    runtime = make_runtime(limits=["1/minute"])
    serve(runtime, FakeFacts())
    _, exchange, _ = serve(runtime, FakeFacts())
    assert exchange.rejection is not None
    status, fields, body = runtime.answer(exchange.rejection, None)
    assert (429, "application/problem+json", True) == (status, dict(fields)["Content-Type"], b"1-per-minute" in body)


@pytest.mark.parametrize("algorithm", ["fixed-window", "gcra", "sliding-window-counter", "moving-window"])
@pytest.mark.parametrize("cost", [1, 3, 4, 5])
def test_flood_of_new_clients_does_not_free_an_exhausted_one(algorithm: str, cost: int) -> None:
    """The memory store is bounded, and more strangers than it has room for do not make it forget who is refused."""
    runtime = make_runtime(limits=["5/minute"], memory_keys=200, algorithm=algorithm)
    view = limit("5/minute", cost=cost)(lambda: None)
    assert [200] * (5 // cost) == [serve(runtime, FakeFacts(view, address="192.0.2.1"))[0] for _ in range(5 // cost)]
    assert 429 == serve(runtime, FakeFacts(view, address="192.0.2.1"))[0]
    table = runtime.store.table  # type: ignore[attr-defined]  # a MemoryStore
    for number in range(800):
        Acquire([Quota(amount=5, window=60)], [f"stranger{number}"], [1]).apply(table, runtime.clock.time())
    assert 429 == serve(runtime, FakeFacts(view, address="192.0.2.1"))[0]
    assert len(table) <= 200


def test_memory_store_runs_no_threads() -> None:
    """Expired counters are swept by those who write: no timer, no thread, whatever the traffic."""
    before = threading.active_count()
    store = MemoryStore(clock=(clock := ManualClock()), bound=1000)
    for number in range(2000):
        store.flight([Acquire([Quota(amount=5, window=1)], [f"client{number}"], [1])])
        clock.advance("10ms")
    assert before == threading.active_count()
    assert len(store.table) <= 110


def test_several_limits_in_one_string() -> None:
    """A string of several limits is all of them, in one decision."""
    assert 3 == len(parse_quotas("1/second; 100/minute; 1000/day"))
    store = FaultyStore()
    runtime = make_runtime(store=store, limits=["9/second; 100/minute; 1000/day"])
    assert 3 == dict(serve(runtime, FakeFacts())[2])["RateLimit"].count(";r=")
    assert [("ratelimit.acquire",)] == list(store.flights)


def test_an_item_is_counted_for_each_client() -> None:
    """The client is part of the key whatever the limit was made from: a string, an item, a function."""
    for quota in ("1/minute", Quota(amount=1, window=60), lambda request: "1/minute"):
        view = view_with(limit(quota))
        runtime = make_runtime()
        assert [200, 200, 429] == [serve(runtime, FakeFacts(view, address=f"192.0.2.{n}"))[0] for n in (1, 2, 1)]


def test_raised_limit_holds_at_once() -> None:
    """Who was refused under a limit that is raised meanwhile is served: nothing remembers the refusal but the counter of that limit."""
    plans = {"alice": "1/minute"}
    view = view_with(limit(lambda request: plans["alice"]))
    runtime = make_runtime(store=FaultyStore())
    assert [200, 429] == [serve(runtime, FakeFacts(view))[0] for _ in range(2)]
    plans["alice"] = "5/minute"
    assert 200 == serve(runtime, FakeFacts(view))[0]


def test_script_flush_goes_unnoticed(valkey: Valkey) -> None:
    """A server that has forgotten the script, by SCRIPT FLUSH or a restart, is given it again within the same request."""
    from failsoft import Settings

    store = open_store(Settings.load({"store": valkey.url, "deadline": 5.0}, environ={}))
    try:
        store.start()
        acquire = Acquire([Quota(amount=10, window=60)], ["key"], [1])
        remaining = [store.flight([acquire])[0][1]]
        valkey.run("SCRIPT", "FLUSH", "SYNC")
        remaining.append(store.flight([acquire])[0][1])
        assert [9, 8] == remaining
    finally:
        store.close()


def test_every_key_ends(valkey: Valkey) -> None:
    """Whatever the limit, its key has a time to live from its first write on, no longer than the limit can matter."""
    quotas = [
        Quota(amount=5, window=60),
        Quota(amount=5, window=60, aligned=True),
        Quota(amount=5, window=60, algorithm="gcra"),
        Quota(amount=5, window=60, algorithm="gcra", burst=50),
    ]
    with redis.Redis.from_url(valkey.url) as client:
        for cost in (1, 2):
            for number, quota in enumerate(quotas):
                acquire = Acquire([quota], [str(number)], [cost])
                client.eval(SCRIPT.source, 1, str(number), *acquire.arguments)
        lives = [client.pttl(str(number)) for number in range(len(quotas))]
        assert all(0 < life <= 60_000 for life in lives), lives
        client.set("lost", 5)
        client.eval(SCRIPT.source, 1, "lost", *Acquire([Quota(amount=5, window=60)], ["lost"], [1]).arguments)
        assert 0 < client.pttl("lost") <= 60_000


def test_time_is_the_servers(valkey: Valkey, monkeypatch: pytest.MonkeyPatch) -> None:
    """Processes whose clocks disagree by hours count together: no script is given the caller's time."""
    asked: list[list[Any]] = []

    class Noting(FaultyStore):
        def begin(self, operations: Sequence[Any]) -> Any:
            asked[-1] += [(one.keys, one.arguments) for one in operations]
            return super().begin(operations)

    limits = [
        limit("5/minute"),
        limit("6/minute", aligned=True),
        limit("7/minute", algorithm="gcra"),
        limit("8/minute", algorithm="moving-window"),
        limit("9/minute", algorithm="sliding-window-counter"),
    ]
    view = view_with(*limits)
    for start in (1_700_000_000.0, 1_700_012_345.678):
        asked.append([])
        clock = ManualClock(start)
        clock.advance(start / 1e6)
        monkeypatch.setattr(time, "time", clock.time)
        assert 200 == serve(make_runtime(store=Noting(clock=clock), clock=clock), FakeFacts(view))[0]
    monkeypatch.undo()
    assert asked[0]
    assert asked[0] == asked[1]
    assert "redis.call('TIME')" in SCRIPT.source
    quota = Quota(amount=1, window=3600, algorithm="gcra")
    with redis.Redis.from_url(valkey.url) as client:
        arguments = Acquire([quota], ["key"], [1]).arguments
        assert [1, 0] == [client.eval(SCRIPT.source, 1, "key", *arguments)[0] for _ in range(2)]


def test_server_that_is_away_costs_no_error() -> None:
    """Without the store requests are admitted by the process's share, refused with 503 or admitted, as each limit says; never a 500."""
    store = FaultyStore()
    runtime = make_runtime(store=store)
    with store.away():
        statuses = {
            answer: [serve(runtime, FakeFacts(view_with(limit("1/minute", on_outage=answer)), route=f"/{answer}"))[0]]
            for answer in ("local", "open", "closed")
        }
    assert {"local": [200], "open": [200], "closed": [503]} == statuses


def test_a_dead_server_is_not_waited_for_by_every_request() -> None:
    """When nobody listens at the store's address, requests are answered at once, not after a time-out each."""
    from failsoft import Settings
    from tests.servers import free_port

    # The longest deadline there is: no busy machine is as slow as that.
    store = open_store(Settings.load({"store": f"redis://127.0.0.1:{free_port()}/0?deadline=5"}, environ={}))
    runtime = make_runtime(store=store, limits=["1000/minute"])
    try:
        # The first request of a process may wait for its connection; those after it find that there is none.
        poll(lambda: serve(runtime, FakeFacts())[1].degraded.get("limits") in ("open", "no_connection", "refused"))
        took = []
        for _ in range(20):
            start = time.monotonic()
            assert 200 == serve(runtime, FakeFacts())[0]
            took.append(time.monotonic() - start)
        assert statistics.median(took) < 0.5
    finally:
        runtime.close()


def test_bounded_answers_of_a_full_table() -> None:
    """A table whose entries are all exhausted stays within its bound, and serves on."""
    table = Table(50)
    for number in range(500):
        assert 1 == Acquire([Quota(amount=1, window=60)], [str(number)], [1]).apply(table, 1e9)[0]
        assert len(table) <= 50
