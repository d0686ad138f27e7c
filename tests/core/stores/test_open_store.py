"""The store that the settings name: its options, what it needs to be allowed, and servers other than the tests' usual one."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from failsoft import Settings
from failsoft.errors import OperationFailed
from failsoft.ratelimit import Acquire, Quota
from failsoft.stores import open_store
from failsoft.stores.redis import RedisStore
from tests.servers import Valkey
from tests.tls import redis_binary

QUOTAS = [
    Quota(amount=3, window=60),
    Quota(amount=9, window=60, aligned=True),
    Quota(amount=5, window=60, algorithm="gcra", burst=2),
]
OTHERS = [
    Quota(amount=3, window=1, algorithm="sliding-window-counter"),
    Quota(amount=3, window=1, algorithm="moving-window"),
]
ALLOWED = (
    "+evalsha +eval +get +mget +set +incrby +decrby +pttl +pexpire +time +del +rename +llen +lindex +lpush +ltrim +lrem "
    "+ping +select"
)
PAGE = Path(__file__).parents[3] / "docs" / "stores.md"


@pytest.mark.parametrize(
    ("query", "settings", "expected"),
    [
        ("", {}, (0.1, 64)),
        ("?deadline=0.2&max_connections=7", {}, (0.2, 7)),
        ("?deadline=0.2&max_connections=7", {"deadline": 0.3, "max_connections": 9}, (0.3, 9)),
    ],
)
def test_options_of_the_url(query: str, settings: dict[str, object], expected: tuple[float, int]) -> None:
    """What the URL says counts, unless the settings say otherwise."""
    store = open_store(Settings.from_mapping({"store": f"redis://127.0.0.1:1/0{query}"} | settings))
    assert isinstance(store, RedisStore)
    assert expected == (store.deadline, store.max_connections)
    store.close()


def test_least_permissions() -> None:
    """A user with no more than what the page on stores names gets every answer."""
    assert f"`{ALLOWED} ~failsoft:*`" in PAGE.read_text()
    with Valkey() as server:
        server.run("ACL", "SETUSER", "limited", "on", ">secret", "~failsoft:*", *ALLOWED.split())
        store = RedisStore(server.url.replace("redis://", "redis://limited:secret@"), deadline=5.0)
        operations = [Acquire([quota], [f"failsoft:{{{quota.algorithm}}}"], [1]) for quota in (*QUOTAS, *OTHERS)]
        for _ in range(4):
            assert [] == [answer for answer in store.flight(operations) if isinstance(answer, OperationFailed)]
        store.close()


@pytest.fixture
def redis_server(monkeypatch: pytest.MonkeyPatch) -> Iterator[Valkey]:
    """A real Redis, where one is installed."""
    binary = redis_binary()
    monkeypatch.setattr("tests.servers.get_binary_path", lambda: binary)
    with Valkey() as server:
        yield server


def test_on_redis(redis_server: Valkey) -> None:
    """Redis answers as Valkey does, also after it forgot the script."""
    store = RedisStore(redis_server.url, deadline=5.0)
    operation = Acquire(QUOTAS, ["a", "b", "c"], [1, 1, 1])
    rows = []
    for _ in range(3):
        rows.append(store.flight([operation])[0])
        redis_server.run("SCRIPT", "FLUSH")
    assert [[1, 2, 1, 8, 1, 1], [1, 1, 1, 7, 1, 0]] == [[v for i, v in enumerate(row) if i % 3 < 2] for row in rows[:2]]
    assert [1, 1, 0] == rows[2][::3]
    store.close()
