"""The decision over all limits, in this process and on a real server. Against models: see `test_algorithms`."""

from copy import copy
from fractions import Fraction
from threading import Barrier, Thread

import pytest
import redis
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    precondition,
    rule,
    run_state_machine_as_test,
)

from failsoft.exchange import Table
from failsoft.quota import ALGORITHMS, Algorithm
from failsoft.ratelimit import Acquire, Quota
from failsoft.ratelimit.acquire import PEEK, SCRIPT, SOFT, WIDE, AcquireAgain
from failsoft.stores import MemoryStore
from failsoft.testing import ManualClock
from tests.servers import Valkey

QUOTAS = (
    Quota(amount=3, window=60),
    Quota(amount=7, window=3600),
    Quota(amount=5, window=10, algorithm="gcra"),
    Quota(amount=7, window=60, algorithm="gcra", burst=2),
    Quota(amount=2, window=1, algorithm="gcra", burst=6),
    Quota(amount=5, window=60, algorithm="sliding-window-counter"),
    Quota(amount=4, window=60, algorithm="moving-window"),
)


EDGE = [Quota(amount=20, window=3600, algorithm=algorithm) for algorithm in ALGORITHMS]


class Travel:
    """Makes time pass on a server, by shortening what is left of every key."""

    def __init__(self, client: "redis.Redis") -> None:
        self.client = client

    def forward(self, milliseconds: int) -> None:
        for key in self.client.scan_iter():
            left = self.client.pttl(key)
            value = int(self.client.get(key))
            if value > 10**12:  # a theoretical arrival time: it comes nearer
                value -= milliseconds * 1000
            if left <= milliseconds:
                self.client.delete(key)
            else:
                self.client.set(key, value, px=left - milliseconds)


def flight(client: "redis.Redis", acquire: Acquire) -> list[int]:
    """Run one operation as a store does."""
    return acquire.parse(client.eval(acquire.script.source, len(acquire.keys), *acquire.keys, *acquire.arguments))


class ServerAgainstTable(RuleBasedStateMachine):
    """The script and `apply` agree, but for the milliseconds that pass between the two."""

    server: Valkey

    @initialize()
    def begin(self) -> None:
        self.client = redis.Redis.from_url(self.server.url)
        self.client.flushall()
        self.table = Table(1000)

    def clock(self) -> float:
        seconds, microseconds = self.client.time()
        return seconds + microseconds / 1e6 + self.ahead

    ahead = 0.0

    @rule(
        picks=st.lists(st.sampled_from([0, 1, 3]), min_size=1, max_size=3, unique=True),
        cost=st.integers(min_value=1, max_value=4),
    )
    def request(self, picks: list[int], cost: int) -> None:
        # Slow quotas only: one unit of each takes seconds to come back, far more than the two decisions are apart.
        acquire = Acquire([QUOTAS[i] for i in picks], [str(i) for i in picks], [cost] * len(picks))
        theirs = flight(self.client, acquire)
        ours = acquire.apply(self.table, self.clock())
        assert theirs[0::3] == ours[0::3]
        assert theirs[1::3] == ours[1::3]
        for their, our in zip(theirs[2::3], ours[2::3], strict=True):
            assert abs(their - our) < 2000

    @precondition(lambda self: self.ahead < 7200)
    @rule(seconds=st.sampled_from([3, 20, 61]))
    def wait(self, seconds: int) -> None:
        Travel(self.client).forward(seconds * 1000)
        self.ahead += seconds

    @invariant()
    def every_key_ends(self) -> None:
        for key in self.client.scan_iter() if hasattr(self, "client") else ():
            assert self.client.pttl(key) > 0

    def teardown(self) -> None:
        self.client.close()


def test_server_and_table_agree(valkey: Valkey) -> None:
    """Memory and a real server give the same verdicts and remainders for the same history."""
    ServerAgainstTable.server = valkey
    run_state_machine_as_test(
        ServerAgainstTable, settings=settings(max_examples=15, stateful_step_count=15, deadline=None)
    )


@pytest.mark.parametrize("quota", EDGE, ids=lambda quota: quota.algorithm)
def test_fifty_threads_at_the_edge_on_a_server(valkey: Valkey, quota: Quota) -> None:
    """Fifty threads at once admit exactly as many as the limit says."""
    admitted: list[int] = []
    barrier = Barrier(50)

    def ask() -> None:
        with redis.Redis.from_url(valkey.url) as client:
            barrier.wait()
            admitted.append(flight(client, Acquire([quota], ["edge"], [1]))[0])

    threads = [Thread(target=ask) for _ in range(50)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert 20 == sum(admitted)


def test_refused_charges_nothing(valkey: Valkey) -> None:
    """A request that one limit refuses takes nothing from the others."""
    quotas = [Quota(amount=100, window=60), Quota(amount=2, window=3600)]
    with redis.Redis.from_url(valkey.url) as client:
        rows = [flight(client, Acquire(quotas, ["minute", "hour"], [1, 1])) for _ in range(10)]
        assert [1, 1] + [0] * 8 == [row[3] for row in rows]
        assert b"2" == client.get("minute")
    table = Table()
    rows = [Acquire(quotas, ["minute", "hour"], [1, 1]).apply(table, 1e9) for _ in range(10)]
    assert [98] * 8 == [row[1] for row in rows[2:]]


def test_key_without_expiry_is_healed(valkey: Valkey) -> None:
    """A counter that somebody left without a TTL does not refuse for ever."""
    with redis.Redis.from_url(valkey.url) as client:
        client.set("lost", 1000)
        assert [1, 9] == flight(client, Acquire([Quota(amount=10, window=60)], ["lost"], [1]))[:2]
        assert 0 < client.pttl("lost") <= 60_000


def test_aligned_window_ends_at_a_multiple(valkey: Valkey) -> None:
    """An aligned window ends at a multiple of its length since the epoch, on the server and in this process."""
    quota = Quota(amount=10, window=3600, aligned=True)
    with redis.Redis.from_url(valkey.url) as client:
        left = flight(client, Acquire([quota], ["aligned"], [1]))[2]
        seconds, microseconds = client.time()
    ends = seconds * 1000 + microseconds // 1000 + left
    assert min(ends % 3_600_000, 3_600_000 - ends % 3_600_000) < 2000
    assert 3600_000 - 1234_000 == Acquire([quota], ["aligned"], [1]).apply(Table(), 3600.0 * 400_000 + 1234)[2]


@pytest.mark.parametrize("amount", [1, 2])
@pytest.mark.parametrize("algorithm", ALGORITHMS)
def test_exhausted_limit_is_forgotten_last(algorithm: Algorithm, amount: int) -> None:
    """A flood of fresh keys does not erase the counter of a client that has used up its quota."""
    table = Table(100)
    quota = Quota(amount=amount, window=60, algorithm=algorithm)
    spare = Quota(amount=500, window=60)
    for _ in range(quota.amount):
        assert [1] == Acquire([quota], ["attacker"], [1]).apply(table, 1e9)[:1]
    for number in range(2000):
        Acquire([spare], [f"fresh{number}"], [1]).apply(table, 1e9)
    assert 100 == len(table)
    assert [0] == Acquire([quota], ["attacker"], [1]).apply(table, 1e9)[:1]


@given(
    quota=st.sampled_from(QUOTAS),
    costs=st.lists(
        st.tuples(st.integers(min_value=1, max_value=4), st.integers(min_value=0, max_value=30_000)), max_size=12
    ),
)
@settings(deadline=None)
def test_reset_is_when_there_is_more(quota: Quota, costs: list[tuple[int, int]]) -> None:
    """A reset is never too early, and at most its last millisecond too late: then there is more, or the refused request fits."""
    table, now = Table(10), Fraction(1_700_000_000)
    for cost, wait in costs:
        fits, remaining, reset = Acquire([quota], ["key"], [cost]).apply(table, float(now))
        assert remaining <= quota.capacity
        if remaining == quota.capacity or cost > quota.capacity:
            continue
        wanted = remaining + 1 if fits else cost
        entry = table.find("key", float(now))
        assert entry is not None
        for milliseconds, expected in ((reset, 1), (reset - 2, 0)):
            probe = Table(10)
            probe.set("key", copy(entry.value), expires=entry.expires, now=float(now))
            then = float(now + Fraction(milliseconds, 1000))
            if milliseconds >= 0:
                assert expected == Acquire([quota], ["key"], [wanted]).apply(probe, then)[0], (milliseconds, reset)
        now += Fraction(wait, 1000)


@pytest.mark.parametrize(
    "quota",
    [
        Quota(amount=3, window=3600),
        Quota(amount=3, window=7200, algorithm="gcra"),
        Quota(amount=3, window=7200, algorithm="gcra", burst=2),
    ],
)
def test_reset_on_a_server(valkey: Valkey, quota: Quota) -> None:
    """On a server too: refused until shortly before the reset, and served when it has come; not a unit more."""
    with redis.Redis.from_url(valkey.url) as client:
        acquire = Acquire([quota], ["key"], [1])
        for _ in range(quota.capacity):
            assert 1 == flight(client, acquire)[0]
        fits, remaining, reset = flight(client, acquire)
        assert (0, 0) == (fits, remaining)
        Travel(client).forward(reset - 30_000)  # half a minute, so that a busy machine does not matter
        assert 0 == flight(client, acquire)[0]
        Travel(client).forward(30_001)
        back = quota.capacity if quota.algorithm == "fixed-window" else 1
        assert [1] * back + [0] == [flight(client, acquire)[0] for _ in range(back + 1)]


def test_full_bucket_is_no_key(valkey: Valkey) -> None:
    """A bucket that is full again is forgotten by itself: its key lives as long as there is something to remember."""
    quota = Quota(amount=10, window=100, algorithm="gcra")
    with redis.Redis.from_url(valkey.url) as client:
        flight(client, Acquire([quota], ["key"], [3]))
        assert 29_000 < client.pttl("key") <= 30_000
        Travel(client).forward(30_001)
        assert [1, 9, 10_000] == flight(client, Acquire([quota], ["key"], [1]))


@pytest.mark.parametrize(
    "quota",
    [
        Quota(amount=10**12, window=100 * 360 * 86_400),
        Quota(amount=1, window=100 * 360 * 86_400),
        Quota(amount=10**12, window=86_400, aligned=True),
        Quota(amount=1, window=100 * 360 * 86_400, algorithm="gcra"),
        Quota(amount=10**9, window=1000, algorithm="gcra", burst=10**9),
        Quota(amount=1, window=3, algorithm="gcra", burst=10**9),
        Quota(amount=10**12, window=100 * 360 * 86_400, algorithm="sliding-window-counter"),
        Quota(amount=1, window=3600, algorithm="sliding-window-counter"),
        Quota(amount=10**4, window=100 * 360 * 86_400, algorithm="moving-window"),
        Quota(amount=1, window=100 * 360 * 86_400, algorithm="moving-window"),
    ],
)
@pytest.mark.parametrize("stamps", [False, True])
def test_extremes_agree(valkey: Valkey, quota: Quota, stamps: bool) -> None:
    """The largest quotas are counted by the unit, on the server as in this process; whatever does not fit is refused by both."""
    table = Table(10)
    with redis.Redis.from_url(valkey.url) as client:
        for cost in (1, quota.capacity - 1, 1, quota.capacity + 1, 1):
            acquire = Acquire([quota], ["key"], [cost], stamps=stamps)
            theirs = flight(client, acquire)
            seconds, microseconds = client.time()
            ours = acquire.apply(table, seconds + microseconds / 1e6)
            assert ours[0] == theirs[0]
            # What comes back meanwhile: a few units at most, at a million a second.
            assert abs(ours[1] - theirs[1]) <= (10**6 if quota.emission == 1 else 0)
            assert all(isinstance(number, int) and 0 <= number < 10**15 for number in theirs[:3])
            assert all(isinstance(number, int) and 0 <= number < 2**53 for number in theirs[3:])
        assert client.pttl("key") > 0


@pytest.mark.parametrize("stamps", [False, True])
def test_refused_request_writes_nothing(valkey: Valkey, stamps: bool) -> None:
    """Requests that are refused make no key, prolong none and count nowhere, on the server as in this process."""
    quotas = [Quota(amount=5, window=60, algorithm=algorithm) for algorithm in ALGORITHMS]
    if not stamps:
        quotas = quotas[:2]  # for the lean script
    quotas.append(Quota(amount=1, window=60))
    keys = [*map(str, range(len(quotas) - 1)), "tight"]
    acquire = Acquire(quotas, keys, [2] * (len(keys) - 1) + [1], stamps=stamps)
    expected = ([1] * (len(keys) - 1) + [0], [5] * (len(keys) - 1) + [0])
    with redis.Redis.from_url(valkey.url) as client:
        client.set("tight", 1, px=60_000)
        for _ in range(3):
            answer = flight(client, acquire)
            rows = answer[: 3 * len(keys)]
            assert expected == (rows[0::3], rows[1::3])
            assert not any(answer[3 * len(keys) :])
        assert [b"tight"] == client.keys()
    table = Table()
    table.set("tight", 1, expires=1e9 + 60, now=1e9)
    for _ in range(3):
        rows = acquire.apply(table, 1e9)[: 3 * len(keys)]
        assert expected == (rows[0::3], rows[1::3])
    assert 1 == len(table)


@pytest.mark.parametrize("quota", EDGE, ids=lambda quota: quota.algorithm)
@pytest.mark.parametrize("modes", [0, SOFT])
def test_foreign_value_does_not_lock_a_client_out(valkey: Valkey, quota: Quota, modes: int) -> None:
    """What nobody of us wrote counts as nothing, whatever it is, and is replaced."""
    with redis.Redis.from_url(valkey.url) as client:
        client.set("text", "nonsense", px=60_000)
        client.hset("hash", "field", "value")
        client.rpush("list", "nonsense")
        for key in ("text", "list", "hash"):
            if key == "hash" and quota.algorithm == "moving-window":
                continue  # a list is asked for, and the server refuses: an error, and no decision
            rows = [flight(client, Acquire([quota], [key], [1], modes=[modes]))[:2] for _ in range(2)]
            assert [[1, 19], [1, 18]] == rows, key
            assert 0 < client.pttl(key)


@pytest.mark.parametrize("quota", EDGE, ids=lambda quota: quota.algorithm)
def test_fifty_threads_at_the_edge_in_memory(quota: Quota) -> None:
    """Fifty threads at once admit exactly as many as the tightest limit says, and charge the others as often."""
    store = MemoryStore()
    quotas = [
        Quota(amount=1000, window=3600),
        quota,
        Quota(amount=500, window=3600, algorithm="gcra"),
    ]
    admitted: list[int] = []
    barrier = Barrier(50)

    def ask() -> None:
        barrier.wait()
        rows = store.flight([Acquire(quotas, ["wide", "tight", "steady"], [1, 1, 1])])[0]
        admitted.append(min(rows[0::3]))

    threads = [Thread(target=ask) for _ in range(50)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert 20 == sum(admitted)
    assert 980 == store.flight([Acquire(quotas[:1], ["wide"], [1])])[0][1] + 1


def test_usual_case_has_a_script_of_its_own() -> None:
    """Fixed windows and GCRA without modes take the lean script; whatever else there is, the wide one."""
    usual = [Quota(amount=1, window=60), Quota(amount=1, window=60, aligned=True), QUOTAS[3]]
    assert SCRIPT is Acquire(usual, ["a", "b", "c"], [1, 1, 1]).script
    assert [WIDE] * 4 == [
        Acquire(usual, ["a", "b", "c"], [1, 1, 1], stamps=True).script,
        Acquire(usual, ["a", "b", "c"], [1, 1, 1], modes=[0, 0, PEEK]).script,
        Acquire(usual, ["a", "b", "c"], [1, 1, 1], modes=[SOFT, 0, 0]).script,
        Acquire([*usual, QUOTAS[5]], ["a", "b", "c", "d"], [1, 1, 1, 1]).script,
    ]


@pytest.mark.parametrize("last", [QUOTAS[1], QUOTAS[2], Quota(amount=1, window=60)])
def test_each_limit_is_charged_once_in_memory(last: Quota) -> None:
    """Whichever of the limits is no usual case, those before it are charged once if all fit, and not at all otherwise."""
    store = MemoryStore(clock=ManualClock())
    usual = Quota(amount=100, window=60)
    store.flight([Acquire([usual, usual], ["a", "b"], [1, 1])])
    for n in range(1, last.capacity + 3):
        rows = store.flight([Acquire([usual, usual, last], ["a", "b", "c"], [2, 3, 1])])[0]
        charged = min(n, last.capacity)
        assert [99 - 2 * charged, 99 - 3 * charged, last.capacity - charged] == rows[1::3]
        assert int(n <= last.capacity) == rows[6]


@pytest.mark.parametrize("stamps", [False, True])
def test_a_decision_again(stamps: bool) -> None:
    """The same decision over other keys differs from one made anew in nothing."""
    quotas, costs = [QUOTAS[0], QUOTAS[2], QUOTAS[6]], [1, 2, 1]
    first, second = (Acquire(quotas, keys, costs, stamps=stamps) for keys in (["a", "b", "c"], ["d", "e", "f"]))
    assert vars(second) == vars(AcquireAgain(first, ["d", "e", "f"]))


@pytest.mark.parametrize("stamps", [False, True])
def test_both_scripts_agree(valkey: Valkey, stamps: bool) -> None:
    """What the lean script decides, the wide one decides in the same way, from the same state and to the same state."""
    quotas = [
        Quota(amount=3, window=3600),
        Quota(amount=9, window=3600, aligned=True),
        Quota(amount=4, window=7200, algorithm="gcra"),
    ]
    with redis.Redis.from_url(valkey.url) as client:
        for first, second in ((SCRIPT, WIDE), (WIDE, SCRIPT), (WIDE, WIDE), (SCRIPT, SCRIPT)):
            client.flushall()
            rows = []
            for script in (first, second, second, first):
                acquire = Acquire(quotas, ["a", "b", "c"], [1, 2, 1], stamps=stamps)
                arguments = acquire.arguments if script is WIDE else acquire.arguments[:15]
                reply = client.eval(script.source, 3, "a", "b", "c", *arguments)
                rows.append([number for i, number in enumerate(reply[:9]) if i % 3 < 2])
            assert [[1, 2, 1, 7, 1, 3], [1, 1, 1, 5, 1, 2], [1, 0, 1, 3, 1, 1], [0, 0, 1, 3, 1, 1]] == rows
            assert [b"3", b"6"] == client.mget("a", "b")


def test_second_key_lies_with_the_first() -> None:
    """A sliding window's second key has the same hash tag, or makes the first key its tag where that has none."""
    quotas = [QUOTAS[5], QUOTAS[0], QUOTAS[5], QUOTAS[5]]
    keys = ["a:{ip:192.0.2.1}", "b", "c", "d:{}:e"]
    expected = [*keys, "a:{ip:192.0.2.1}/-1", "{c}/-1", "{d:{}:e}/-1"]
    assert expected == Acquire(quotas, keys, [1, 1, 1, 1]).keys


def test_soft_limit_never_refuses() -> None:
    """A soft limit that is used up lets requests pass, is charged no further, and says that it would not have fitted."""
    table, quotas = Table(), [Quota(amount=2, window=60), Quota(amount=5, window=60)]
    rows = [Acquire(quotas, ["soft", "hard"], [1, 1], modes=[SOFT, 0]).apply(table, 1e9) for _ in range(6)]
    assert [1, 1, 0, 0, 0, 0] == [row[0] for row in rows]
    assert [1, 0, 0, 0, 0, 0] == [row[1] for row in rows]
    assert [1, 1, 1, 1, 1, 0] == [row[3] for row in rows]
    # Refused by the other limit, it is not charged although it fits.
    table.delete("soft")
    row = Acquire(quotas, ["soft", "hard"], [1, 1], modes=[SOFT, 0]).apply(table, 1e9)
    assert ([1, 0], [2, 0]) == (row[0::3], row[1::3])


def test_peeked_limit_refuses_without_being_charged() -> None:
    """A limit that is only looked at decides with the others, and its row is what is there now."""
    table, quotas = Table(), [Quota(amount=2, window=60), Quota(amount=5, window=60)]
    peeking = Acquire(quotas, ["looked", "other"], [1, 1], modes=[PEEK, 0])
    row = peeking.apply(table, 1e9)
    assert ([1, 1], [2, 4]) == (row[0::3], row[1::3])
    Acquire(quotas[:1], ["looked"], [2]).apply(table, 1e9)
    row = peeking.apply(table, 1e9)
    assert ([0, 1], [0, 4]) == (row[0::3], row[1::3])


def test_clock_that_is_set_back() -> None:
    """A moving window of this process stays in order when the clock is set back: nothing counts for longer than it should."""
    table, quota = Table(), Quota(amount=5, window=60, algorithm="moving-window")
    for now, cost in ((1e9, 2), (1e9 - 30, 2), (1e9, 1)):
        assert 1 == Acquire([quota], ["key"], [cost]).apply(table, now)[0]
    refused = Acquire([quota], ["key"], [1]).apply(table, 1e9)
    assert [0, 0, 30_000] == refused
    assert [1, 1, 30_000] == Acquire([quota], ["key"], [1]).apply(table, 1e9 + 30)


@pytest.mark.parametrize("amount", [2, 5000, 5001, 10_000])
def test_moving_window_is_bounded(valkey: Valkey, amount: int) -> None:
    """A moving window holds as many moments as units can pass, however many are asked for at once, and what is over goes."""
    quota = Quota(amount=amount, window=3600, algorithm="moving-window")
    acquire = Acquire([quota], ["key"], [amount])
    table = Table()
    with redis.Redis.from_url(valkey.url) as client:
        assert [1, 0, 3_600_000] == flight(client, acquire) == acquire.apply(table, 1e9)
        assert [0, 0] == flight(client, acquire)[:2] == acquire.apply(table, 1e9)[:2]
        assert amount == client.llen("key") == len(table.get("key", 1e9))
        # Half of them are over, and make way.
        old = [f"{float(client.lindex('key', 0)) - 3600:.6f}"] * (amount - amount // 2)
        client.ltrim("key", 0, amount // 2 - 1)
        client.rpush("key", *old)
        acquire = Acquire([quota], ["key"], [1])
        assert [1, amount - amount // 2 - 1] == flight(client, acquire)[:2]
        assert amount // 2 + 1 == client.llen("key")
