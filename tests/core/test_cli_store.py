"""``failsoft store``: what it tells of stores, and its exit status."""

import json
import re
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from failsoft import Settings, cli, limit
from failsoft.cli import commands, store_flights
from failsoft.cli.store import _facts, _harm
from failsoft.inspection import Description
from failsoft.ratelimit import Acquire, Quota
from failsoft.runtime import Runtime
from failsoft.stores.diagnostics import Server
from failsoft.testing import FaultyStore
from tests.clusters import Cluster
from tests.core.described import opened
from tests.sentinels import Watched
from tests.servers import Valkey, free_port, poll
from tests.storages import Memcached
from tests.tls import Authority, TlsServer

pytestmark = pytest.mark.broad


def text(*arguments: str, capsys: pytest.CaptureFixture[str], expected: int = 0) -> str:
    """What the command prints for people."""
    assert expected == cli.main(["store", *arguments])
    return capsys.readouterr().out


def data(*arguments: str, capsys: pytest.CaptureFixture[str], expected: int = 0) -> Any:
    """What the command says of the one store, for programs."""
    assert expected == cli.main(["store", *arguments, "--json"])
    found = json.loads(capsys.readouterr().out)
    (one,) = found["stores"]
    return one


def filled(url: str) -> None:
    """Put some counters there."""
    with opened(url, limit("5/minute", by="user"), limits=["9/day"], scopes=[]) as (_, request):
        for number in range(20):
            request(address=f"192.0.2.{number}")


def test_ping(redis_url: str, capsys: pytest.CaptureFixture[str]) -> None:
    """A server that is there says what it is and how far away."""
    where = redis_url.removeprefix("redis://").removesuffix("/0")
    first, second, third = text(redis_url, capsys=capsys).splitlines()
    assert f"default: {redis_url}" == first
    assert second.startswith(f"  {where}  Valkey ")
    assert second.endswith(", primary, no TLS")
    assert third.startswith("      connect ")
    one = data(redis_url, "ping", capsys=capsys)
    assert ("default", redis_url, []) == (one["name"], one["url"], one["findings"])
    (server,) = one["servers"]
    assert (where, "primary", "", {}) == (server["where"], server["role"], server["error"], server["info"])
    assert 0 < server["ping_ms"] < server["connect_ms"]


def test_away(capsys: pytest.CaptureFixture[str]) -> None:
    """A server that is away is a finding, with its cause and the cure, and without its password."""
    url = f"redis://:sesame@127.0.0.1:{free_port()}/0"
    for action in ("ping", "info", "keys"):
        out = text(url, action, capsys=capsys, expected=1)
        assert ("Connection refused" in out, "is it running" in out, "sesame" in out) == (True, True, False)
    assert data(url, capsys=capsys, expected=1)["findings"]


def test_latency(redis_url: str, capsys: pytest.CaptureFixture[str]) -> None:
    """Flights are timed; nothing is written by them."""
    with Valkey() as server:
        found = data(f"{server.url}?deadline=2", "latency", "--count", "30", capsys=capsys)["latency"]
        assert (30, {}, 2000) == (found["flights"], found["failures"], found["deadline_ms"])
        assert 0 < found["min_ms"] <= found["median_ms"] <= found["p99_ms"] <= found["max_ms"]
        assert 0 == server.run("DBSIZE")
    assert "30 flights: min " in text(f"{redis_url}?deadline=2", "latency", "--count", "30", capsys=capsys)


def test_latency_without_answers(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    """Flights that come to nothing are a finding, with the reason."""
    monkeypatch.setattr("failsoft.inspection.counters.PATIENCE", 0.2)
    found = data(f"redis://127.0.0.1:{free_port()}/0", "latency", capsys=capsys, expected=1)
    assert 0 == found["latency"]["flights"]
    assert 1 == sum(found["latency"]["failures"].values())
    assert "Connection refused" in found["findings"][0]


def test_latency_of_some(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    """Flights that fail among others are counted by their reason."""
    from failsoft.errors import OperationFailed, StoreUnavailable

    class Moody(FaultyStore):
        flights_made = 0
        deadline = 0.000_000_001

        def flight(self, operations: Any) -> list[Any]:
            self.flights_made += 1
            if self.flights_made % 4 == 0:
                raise StoreUnavailable("timeout", "no whole reply")
            if self.flights_made % 4 == 1 and self.flights_made > 1:
                return [OperationFailed("OOM")]
            return super().flight(operations)

    monkeypatch.setattr(store_flights, "open_store", lambda settings, name: Moody())
    found = data("redis://unused", "latency", "--count", "12", capsys=capsys, expected=1)
    assert (6, {"timeout": 3, "failed": 3}) == (found["latency"]["flights"], found["latency"]["failures"])
    slow, lost = found["findings"]
    assert (True, True) == (
        slow.startswith("p99 is over half"),
        lost.startswith("without an answer: 3 timeout, 3 failed"),
    )


def test_info(capsys: pytest.CaptureFixture[str]) -> None:
    """What the server says of its memory, its persistence and its clients, and how many keys are whose."""
    with Valkey() as server:
        filled(server.url)
        server.run("SET", "elsewhere", 1)
        out = text(server.url, "info", capsys=capsys)
        for word in (
            "memory  ",
            "policy noeviction",
            "evicted      0 keys",
            "persistence  no append-only file",
            "clients  ",
            "scripts  ",
        ):
            assert word in out
        assert "keys: looked at all" in out
        assert " of 42 are ours, below failsoft:" in out
        one = data(server.url, "info", capsys=capsys)
        (info,) = [found["info"] for found in one["servers"]]
        assert ("noeviction", 0, 0) == (info["policy"], info["memory_most"], info["evicted_keys"])
        keys = one["keys"]
        assert (42, 42, True, 41, 0) == tuple(
            keys[name] for name in ("looked_at", "size", "complete", "ours", "other_schema")
        )
        assert [("limits", "app", 20, {"9/86400f": 20})] == [
            (group["concern"], group["scope"], group["keys"], group["quotas"])
            for group in keys["groups"]
            if group["scope"] == "app"
        ]


def test_keys(capsys: pytest.CaptureFixture[str]) -> None:
    """Some keys of each group are shown, with their time to live; keys that are nobody's, or without an end, are told."""
    with Valkey() as server:
        filled(server.url)
        server.run("SET", "failsoft:something", 1)
        server.run("SET", "failsoft:0:rl:app:9/60f:{ip:192.0.2.1}", 1, "PX", 60_000)
        out = text(server.url, "keys", capsys=capsys, expected=1)
        assert "failsoft:1:rl:app:9/86400f:{ip:192.0.2." in out
        assert re.search(" (1 d|23 h 59 min) to live", out)
        assert "unknown" in out
        assert "limits app (schema 0)" in out
        assert "! 1 keys of ours have no end" in out
        one = data(server.url, "keys", capsys=capsys, expected=1)
        assert 1 == one["keys"]["other_schema"]
        assert all(len(group["examples"]) <= 3 for group in one["keys"]["groups"])
        other = data(server.url, "keys", "--prefix", "other", capsys=capsys)
        assert 0 == other["keys"]["ours"]


def test_keys_of_sessions(capsys: pytest.CaptureFixture[str]) -> None:
    """The records of sessions and the lists of their users are told as such."""
    settings = Settings(store="redis://h", sessions=True, secret="a secret of 32 characters, and more")
    runtime = Runtime(settings, store=FaultyStore())
    service = runtime.sessions
    assert service is not None
    with Valkey() as server:
        for number in range(3):
            server.run("SET", service.record_key(f"handle-{number:09}"), 1, "PX", 60_000)
        server.run("SET", service.subject_key("somebody"), 1, "PX", 60_000)
        out = text(server.url, "keys", capsys=capsys)
        assert ["3  sessions records", "1  sessions lists of users"] == re.findall(r"\d+  sessions .*", out)
        assert "unknown" not in out
        found = data(server.url, "info", capsys=capsys)["keys"]
    assert [("sessions", "records", 3, {}), ("sessions", "lists of users", 1, {})] == [
        (group["concern"], group["scope"], group["keys"], group["quotas"]) for group in found["groups"]
    ]
    assert 0 == found["other_schema"]


def test_a_sample(capsys: pytest.CaptureFixture[str]) -> None:
    """Where not all keys were looked at, the sample is stated and numbers in all are estimates."""
    with Valkey() as server:
        with server.client() as client, client.pipeline(transaction=False) as many:
            for number in range(3000):
                many.set(f"failsoft:1:rl:app:9/60f:{{ip:{number}}}", 1, px=60_000)
                many.set(f"other:{number}", 1)
            many.execute()
        keys = data(server.url, "keys", "--sample", "1000", capsys=capsys)["keys"]
        assert (False, 6000) == (keys["complete"], keys["size"])
        assert 1000 <= keys["looked_at"] < 2000
        assert 2000 < keys["estimate"] < 4000
        out = text(server.url, "keys", "--sample", "1000", capsys=capsys)
        assert f"keys: looked at {keys['looked_at']} of 6000, a sample: numbers in all are estimates" in out
        assert "      about " in out


def test_an_evicting_server(capsys: pytest.CaptureFixture[str]) -> None:
    """A server that throws keys with an end away is a finding, and so is that it did."""
    with Valkey("--maxmemory", "2mb", "--maxmemory-policy", "volatile-lru") as server:
        assert 1 == len(data(server.url, "info", capsys=capsys, expected=1)["findings"])
        with server.client() as client, client.pipeline(transaction=False) as many:
            for number in range(500):
                many.set(f"failsoft:1:rl:app:9/60f:{{ip:{number}}}", "x" * 10_000, px=60_000)
            many.execute()
        out = text(server.url, "info", capsys=capsys, expected=1)
        assert "maxmemory-policy volatile-lru forgets limits when memory is full" in out
        assert "keys were evicted: give it more memory" in out
        server.run("CONFIG", "SET", "maxmemory-policy", "volatile-ttl")
        server.run("CONFIG", "SET", "maxmemory", "1gb")
        server.run("CONFIG", "RESETSTAT")
        assert [] == data(server.url, "info", capsys=capsys)["findings"]


@pytest.mark.parametrize(
    ("said", "finding"),
    [
        ({"maxmemory": "100", "maxmemory_policy": "allkeys-lru"}, "maxmemory-policy allkeys-lru forgets limits"),
        ({"maxmemory": "0", "maxmemory_policy": "allkeys-lru"}, None),
        ({"maxmemory": "100", "used_memory": "90", "maxmemory_policy": "noeviction"}, "memory is 90 % full"),
        ({"connected_clients": "95", "maxclients": "100"}, "connections are nearly used up"),
        ({"connected_clients": "5", "maxclients": "100"}, None),
        ({"loading": "1"}, "it is loading its data"),
        ({"rdb_last_bgsave_status": "err"}, "its last snapshot failed"),
        ({"aof_last_write_status": "err"}, "it cannot write its append-only file"),
        ({"evicted_keys": "garbled"}, None),
        ({}, None),
    ],
)
def test_what_does_harm(said: dict[str, str], finding: str | None) -> None:
    """Each state of a server that loses or refuses counters is found, and nothing else."""
    found = _harm(_facts(said))
    assert (0 if finding is None else 1) == len(found)
    assert all(one.startswith(finding or "") for one in found)


def test_a_replica(capsys: pytest.CaptureFixture[str]) -> None:
    """A replica takes no writes, so naming one is a finding."""
    with Valkey() as primary, Valkey("--replicaof", f"127.0.0.1 {primary.port}") as replica:
        assert "is a replica, which takes no writes: name the primary" in text(replica.url, capsys=capsys, expected=1)


@pytest.mark.parametrize(
    ("command", "said"),
    [
        (("CONFIG", "SET", "maxmemory", "1"), "OOM"),
        (("ACL", "SETUSER", "default", "-evalsha", "-eval"), "NOPERM|has no permissions"),
        (("ACL", "SETUSER", "default", "resetkeys", "~elsewhere:*"), "NOPERM|No permissions"),
    ],
)
def test_a_server_that_refuses(command: tuple[str, ...], said: str, capsys: pytest.CaptureFixture[str]) -> None:
    """That a server answers PING is not enough: what requests ask must be done, or it is a finding, with the server's words."""
    with Valkey() as server:
        assert [] == data(server.url, capsys=capsys)["findings"]
        server.run(*command)
        [finding] = data(server.url, capsys=capsys, expected=1)["findings"]
        assert re.search(f"^it is there, and does not do what requests ask: .*({said})", finding)


@pytest.mark.timeout(120)
def test_sentinels(capsys: pytest.CaptureFixture[str]) -> None:
    """Sentinels are listed with what they say; one that is away is a finding, and the primary is looked at all the same."""
    with Watched(replicas=1, sentinels=3) as service:
        assert [] == data(service.url, capsys=capsys)["findings"]
        found = data(f"{service.url}?deadline=2", "latency", "--count", "20", capsys=capsys)
        assert 20 == found["latency"]["flights"]
        assert f"says the primary is 127.0.0.1:{service.primary.port}" in text(service.url, capsys=capsys)
        service.sentinels[0].close()
        found = data(service.url, capsys=capsys, expected=1)
        assert (1, "primary") == (len(found["findings"]), found["servers"][-1]["role"])


@pytest.mark.timeout(120)
def test_a_cluster(capsys: pytest.CaptureFixture[str]) -> None:
    """A cluster is looked at node by node, and its keys are counted together."""
    with Cluster(primaries=3) as cluster:
        for number in range(30):
            key = f"failsoft:1:rl:app:9/60f:{{ip:192.0.2.{number}}}"
            cluster.primary_of(key).run("SET", key, 1, "PX", 60_000)
        found = data(cluster.url, "keys", capsys=capsys)
        assert (3, [], 30, True) == (
            len(found["servers"]),
            found["findings"],
            found["keys"]["ours"],
            found["keys"]["complete"],
        )
        assert 60 == data(f"{cluster.url}?deadline=2", "latency", "--count", "60", capsys=capsys)["latency"]["flights"]
        cluster.nodes[0].kill()
        assert 1 <= len(data(cluster.url, capsys=capsys, expected=1)["findings"])


def test_tls(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """TLS is told; a certificate that is not trusted is a finding with the cure."""
    with TlsServer(Authority(tmp_path)) as server:
        assert "primary, TLSv1." in text(server.url, capsys=capsys)
        assert "20 flights" in text(f"{server.url}&deadline=2", "latency", "--count", "20", capsys=capsys)
        assert "tls_ca" in text(server.url.partition("?")[0], capsys=capsys, expected=1)


@pytest.fixture
def short() -> Iterator[Path]:
    """A directory whose name is short enough for sockets in it."""
    directory = Path(tempfile.mkdtemp(prefix="vd-"))
    yield directory
    shutil.rmtree(directory, ignore_errors=True)


def test_embedded(short: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    """The embedded server is looked at as any other."""
    url = f"embedded://{short}/e?linger=0"
    # Its URL has no deadline, and a server that has just begun may be slow.
    settings = Settings.load({"store": url, "deadline": 5}, environ={})
    monkeypatch.setattr(commands, "_settings", lambda options: settings)
    for action in ("ping", "info", "keys"):
        assert [] == data(url, action, capsys=capsys)["findings"]


def test_memory(capsys: pytest.CaptureFixture[str]) -> None:
    """Memory is told to be each process's own."""
    for action in ("ping", "info", "keys"):
        assert "each process counts by itself" in text("memory://", action, capsys=capsys)
    assert [] == data("memory://", capsys=capsys)["servers"]


def test_an_applications_stores(
    redis_url: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """All stores of an application are looked at, or the one that is named; their keys begin with its prefix."""
    settings = Settings.load(
        {"store": redis_url, "stores": {"bulk": "memory://"}, "prefix": "shop", "deadline": 2}, environ={}
    )
    runtime = Runtime(settings)
    try:
        poll(lambda: _counted(runtime))
        monkeypatch.setattr(commands, "describe", lambda app: Description("Framework", runtime, ()))
        assert 0 == cli.main(["store", "keys", "--json"], app="anything")
        first, second = json.loads(capsys.readouterr().out)["stores"]
        assert ("default", "bulk") == (first["name"], second["name"])
        assert 1 == first["keys"]["ours"]
        assert 0 == cli.main(["store", "--name", "bulk"], app="anything")
        assert capsys.readouterr().out.startswith("bulk: memory://\n")
        assert 2 == cli.main(["store", "--name", "other"], app="anything")
        assert "there is no store 'other'; there are: default, bulk" in capsys.readouterr().err
    finally:
        runtime.close()


def test_a_store_for_sessions_alone(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    """Where its ACL allows nothing else, that limits cannot be kept in it is no finding."""
    with Valkey() as server:
        server.run("ACL", "SETUSER", "default", "resetkeys", "~failsoft:*:sess:*", "~failsoft:*:subj:*")
        given = {"stores": {"kept": server.url}, "sessions": True, "session_store": "kept", "secret": "0123456789" * 4}
        runtime = Runtime(Settings.load(given, environ={}))
        try:
            monkeypatch.setattr(commands, "describe", lambda app: Description("Framework", runtime, ()))
            assert 0 == cli.main(["store", "--name", "kept"], app="anything"), capsys.readouterr().out
        finally:
            runtime.close()


def _counted(runtime: Runtime) -> bool:
    key = "shop:1:rl:app:9/60f:{ip:192.0.2.1}"
    try:
        return bool(runtime.store.flight([Acquire([Quota(amount=9, window=60)], [key], [1])]))
    except Exception:
        return False


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["redis://localhost:port/0"], "redis://"),
        (["gopher://localhost"], "gopher"),
        (["module:app", "--prefix", "x"], "--prefix goes with the URL of a store"),
        (["no_such_module:app"], "no module"),
        (["localhost:6379"], "write redis:// before the host"),
        (["user:pass@localhost:6379/0"], "write redis:// before the host"),
        (["memory://", "--prefix", "a b"], "prefix"),
    ],
)
def test_mistakes(arguments: list[str], message: str, capsys: pytest.CaptureFixture[str]) -> None:
    """A URL, a prefix or an application that is none is told in the messages of settings, with exit status 2."""
    assert 2 == cli.main(["store", *arguments])
    error = capsys.readouterr().err
    assert message in error
    assert "pass@" not in error


def test_sentinels_that_disagree(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    """Sentinels that name different primaries, or none, are a finding."""
    names = ("192.0.2.1:6379", "192.0.2.2:6379", "")
    servers = [Server(f"s{place}", "sentinel", role="sentinel", says=name) for place, name in enumerate(names)]
    monkeypatch.setattr("failsoft.stores.diagnostics.examine", lambda url, **asked: servers)
    found = data("redis+sentinel://127.0.0.1/x", capsys=capsys, expected=1)["findings"]
    assert [
        "the sentinels disagree about where the primary is: 192.0.2.1:6379, 192.0.2.2:6379",
        "s2: it names no primary",
    ] == found


def test_memcached(capsys: pytest.CaptureFixture[str]) -> None:
    """Servers of another protocol are flown to; what they hold cannot be looked at."""
    pytest.importorskip("pymemcache", reason="needs failsoft[memcached]")
    pytest.importorskip("memcachio", reason="needs failsoft[memcached]")
    with Memcached() as server:
        url = f"{server.url}?deadline=2"
        assert "1 flights" in text(url, "ping", capsys=capsys)
        assert 20 == data(url, "latency", "--count", "20", capsys=capsys)["latency"]["flights"]
        assert "info and keys are for servers that speak that of Redis" in text(url, "info", capsys=capsys)
    assert data(url, "ping", capsys=capsys, expected=1)["findings"]


def test_a_damaged_cluster(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    """Slots that no node serves are a finding, and so is what a server does not answer of itself shown."""
    gap = "the cluster is not in order: 9 of 16384 slots have no node"
    nodes = [
        Server("n1", "node", role="primary", slots=16375, troubles=[gap, "ROLE was refused"]),
        Server("n2", "node"),
    ]
    monkeypatch.setattr("failsoft.stores.diagnostics.examine", lambda url, **asked: nodes)
    url = "redis+cluster://127.0.0.1:1"
    assert [gap] == data(url, "info", capsys=capsys, expected=1)["findings"]
    out = text(url, capsys=capsys, expected=1)
    assert ("primary, no TLS, 16375 slots" in out, "ROLE was refused" in out) == (True, True)
