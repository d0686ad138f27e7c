"""Penalties: what they are made of, what a breach is, and how blocks grow and are forgotten."""

from datetime import timedelta
from threading import Barrier, Thread
from typing import Any

import pytest
import redis

from failsoft import ConfigurationError, Quota
from failsoft.exchange import Table
from failsoft.ratelimit import Acquire
from failsoft.ratelimit.acquire import PEEK, SOFT
from failsoft.ratelimit.manage import Peek
from failsoft.ratelimit.penalty import Breaches, Penalty
from tests.core.stores.lua import Both
from tests.servers import Valkey

NOW = 1_700_000_000.0
PENALTY = Penalty(after=3, within="1m", block="10s", growth=2, most="25s", forget="5m")
TIGHT = Quota(amount=1, window=3600)
WIDE = Quota(amount=1000, window=3600)


class Client:
    """Requests of one client."""

    def __init__(self, both: Both) -> None:
        self.both = both

    def ask(self, *, mode: int = 0, penalty: int = 0, guards: int = 1) -> list[int]:
        """Ask for a unit of the tight quota, which its penalty guards, and one of a wide one. Gives the rows."""
        quotas, keys = [WIDE, TIGHT, PENALTY], ["wide", "tight", "penalty"]
        rows: list[int] = self.both.run(Acquire(quotas, keys, [1, 1, guards], modes=[0, mode, penalty]))
        return rows

    def row(self) -> list[int]:
        """The penalty's row."""
        row: list[int] = self.both.run(Peek([PENALTY], ["penalty"]))
        return row


@pytest.fixture
def client(both: Both) -> Client:
    """A client that was never seen."""
    return Client(both)


@pytest.mark.parametrize(
    ("arguments", "match"),
    [
        ({"after": 0}, "after"),
        ({"after": 1.5}, "after"),
        ({"after": True}, "after"),
        ({"after": 10**6 + 1}, "after"),
        ({"within": 0}, "within"),
        ({"within": "1 fortnight"}, "within"),
        ({"within": None}, "within"),
        ({"within": "40000d"}, "within"),
        ({"block": "0s"}, "block"),
        ({"block": "2h"}, "raise most"),
        ({"most": "1s"}, "raise most"),
        ({"growth": 0.5}, "growth"),
        ({"growth": float("inf")}, "growth"),
        ({"growth": float("nan")}, "growth"),
        ({"growth": "2"}, "growth"),
        ({"growth": True}, "growth"),
        ({"growth": 1001}, "growth"),
        ({"forget": -1}, "forget"),
    ],
)
def test_bounds(arguments: dict[str, Any], match: str) -> None:
    """What is out of range is an error when it is written down, and names its cause."""
    with pytest.raises(ConfigurationError, match=match):
        Penalty(**arguments)


def test_durations() -> None:
    """Times are written as everywhere, and are seconds afterwards; equal penalties have equal keys, others do not."""
    spelled = Penalty(within="1m", block="90s", most=timedelta(hours=1), forget=86_400)
    assert (60.0, 90.0, 3600.0, 86_400.0) == (spelled.within, spelled.block, spelled.most, spelled.forget)
    assert Penalty(block=90.0) == spelled
    assert Penalty(block=90.0).key == spelled.key
    others = [Penalty(), Penalty(after=4), Penalty(growth=3), Penalty(forget=0), Penalty(most="2h"), Penalty(within=1)]
    assert len(others) == len({one.key for one in others})
    assert all(":" not in one.key and "{" not in one.key for one in others)


def test_breaches_begin_a_block(client: Client) -> None:
    """As many refusals as the penalty says shut the client out, of what the quota would let pass too, and the last refusal says so."""
    client.ask()
    rows = [client.ask() for _ in range(4)]
    assert [[1, 2, 60_000], [1, 1, 60_000], [0, 0, 10_000], [0, 0, 10_000]] == [row[6:] for row in rows]
    client.both.forget("tight")
    row = client.ask()
    assert [1, 1, 0] == row[0::3]
    assert [999, 1] == row[1:6:3]  # and nothing is charged
    client.both.now += 10
    assert [1, 1, 1] == client.ask()[0::3]


def test_breaches_are_forgotten(client: Client) -> None:
    """Refusals that are further apart than the penalty's time do not add up."""
    client.ask()
    for _ in range(5):
        assert [1, 2, 60_000] == client.ask()[6:]
        client.both.now += 59.999
        assert [1, 1, 1] == client.ask()[6:]
        client.both.now += 0.001


def test_blocks_grow(client: Client) -> None:
    """Each block is longer than the one before, to a bound; after a time without one the first is as long as ever."""
    lengths = []
    for pause in (0, 299.999, 0, 300):
        for _ in range(4):
            client.ask()
        lengths.append(client.row()[2])
        client.both.now += lengths[-1] / 1000 + pause
    client.both.forget("tight")
    for _ in range(4):
        client.ask()
    lengths.append(client.row()[2])
    assert [10_000, 20_000, 25_000, 25_000, 10_000] == lengths


def test_breaches_do_not_keep_a_block_in_mind(both: Both) -> None:
    """Breaches after a block make it remembered no longer than it would have been."""
    both.run(Breaches("penalty", PENALTY, 3))
    both.now += 10 + 299
    assert [1, 1] == both.run(Breaches("penalty", PENALTY, 2))[:2]
    both.now += 2
    assert [0, 0, 10_000] == both.run(Breaches("penalty", PENALTY, 1))


def test_breaches_are_forgotten_after_a_block(both: Both) -> None:
    """That a block is remembered does not make the breaches after it remembered for longer."""
    both.run(Breaches("penalty", PENALTY, 3))
    both.now += 10
    both.run(Breaches("penalty", PENALTY, 2))
    both.now += 60
    assert [1, 1, 60_000] == both.run(Breaches("penalty", PENALTY, 2))
    assert [0, 0, 20_000] == both.run(Breaches("penalty", PENALTY, 1))


def test_further_breaches(both: Both) -> None:
    """Breaches that are told later count where the earlier ones do still, and not where those were forgotten, by time or by hand."""
    further = Breaches("penalty", PENALTY, 1, further=True)
    assert [1, 3, 0] == both.run(further)
    both.run(Breaches("penalty", PENALTY, 1))
    assert [1, 1, 60_000] == both.run(further)
    both.now += 60
    assert [1, 3, 0] == both.run(further)
    both.run(Breaches("penalty", PENALTY, 2))
    both.forget("penalty")
    assert [1, 3, 0] == both.run(further)
    both.run(Breaches("penalty", PENALTY, 3))
    both.now += 10
    assert [1, 3, 0] == both.run(further)


def test_blocked_requests_are_no_breaches(client: Client) -> None:
    """Who is shut out and goes on is not shut out for longer."""
    for _ in range(4):
        client.ask()
    client.both.now += 9
    for _ in range(20):
        assert [0, 0, 1000] == client.ask()[6:]


def test_what_is_no_breach(client: Client) -> None:
    """Only limits that the penalty guards count, only those that refused, and only where it is more than looked at."""
    client.ask()
    for _ in range(3):
        assert [1, 3, 0] == client.ask(guards=0)[6:]
        assert [1, 3, 0] == client.ask(penalty=PEEK)[6:]
        assert [1, 3, 0] == client.ask(mode=SOFT)[6:]
        # Another limit refuses; the guarded one would have let the request pass.
        row = client.both.run(Acquire([TIGHT, WIDE, PENALTY], ["tight", "unused", "penalty"], [1, 1, 1]))
        assert ([0, 1, 1], [3, 0]) == (row[0::3], row[7:])
    assert client.both.table.find("penalty", client.both.now) is None


def test_guards_reach_as_far_as_they_say(both: Both) -> None:
    """A penalty guards as many lines directly before it as it says, and not beyond the first."""
    quotas, keys = [TIGHT, WIDE, PENALTY], ["tight", "wide", "penalty"]
    both.run(Acquire(quotas, keys, [1, 1, 1]))
    left = [both.run(Acquire(quotas, keys, [1, 1, guards]))[7] for guards in (1, 2, 99)]
    assert [3, 2, 1] == left


def test_shadow_penalty(client: Client) -> None:
    """A soft penalty counts and says that it would block, and refuses nobody."""
    for _ in range(4):
        client.ask(penalty=SOFT)
    client.both.forget("tight")
    row = client.ask(penalty=SOFT)
    assert [1, 1, 0] == row[0::3]
    assert [998, 0] == row[1:6:3]


def test_breaches_at_once(both: Both) -> None:
    """Refusals that were decided elsewhere are noted together; more than enough begin one block, none changes nothing."""
    rows = [both.run(Breaches("penalty", PENALTY, count)) for count in (0, 2, 0, 100, 100)]
    assert [[1, 3, 0], [1, 1, 60_000], [1, 1, 60_000], [0, 0, 10_000], [0, 0, 10_000]] == rows


def test_block_outlives_a_flood_of_strangers() -> None:
    """A bounded table does not forget who is shut out because others come."""
    table = Table(100)
    Breaches("penalty", PENALTY, 3).apply(table, NOW)
    for number in range(5000):
        Acquire([WIDE], [str(number)], [1]).apply(table, NOW)
    assert 0 == Breaches("penalty", PENALTY, 0).apply(table, NOW)[0]


def test_fifty_threads_breach_once_each(valkey: Valkey) -> None:
    """Of fifty requests at once that a guarded limit refuses, each is one breach."""
    penalty = Penalty(after=51, within="1h", block="1h")
    with redis.Redis.from_url(valkey.url) as client:
        client.set("tight", 1, px=3_600_000)
    barrier = Barrier(50)

    def ask() -> None:
        with redis.Redis.from_url(valkey.url) as client:
            acquire = Acquire([TIGHT, penalty], ["tight", "penalty"], [1, 1])
            barrier.wait()
            client.eval(acquire.script.source, 2, *acquire.keys, *acquire.arguments)

    threads = [Thread(target=ask) for _ in range(50)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    with redis.Redis.from_url(valkey.url) as client:
        look = Peek([penalty], ["penalty"])
        assert [1, 1] == client.eval(look.script.source, 1, *look.keys, *look.arguments)[:2]
        assert 3_590_000 < client.pttl("penalty") <= 3_600_000
        one = Breaches("penalty", penalty)
        assert [0, 0] == client.eval(one.script.source, 1, *one.keys, *one.arguments)[:2]
        assert 3_600_000 < client.pttl("penalty") <= 3_600_000 + 86_400_000


def test_foreign_state_blocks_nobody(valkey: Valkey) -> None:
    """What nobody of us wrote counts as no breach, and is replaced."""
    acquire = Acquire([TIGHT, PENALTY], ["tight", "penalty"], [1, 1])
    with redis.Redis.from_url(valkey.url) as client:
        client.set("tight", 1, px=60_000)
        client.set("penalty", "nonsense")
        rows = [client.eval(acquire.script.source, 2, *acquire.keys, *acquire.arguments) for _ in range(2)]
        assert [[1, 2], [1, 1]] == [row[3:5] for row in rows]
        assert client.pttl("penalty") > 0
