"""What servers say of themselves, against real ones of every kind."""

import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from failsoft.errors import ConfigurationError
from failsoft.stores.diagnostics import Server, examine
from tests.clusters import Cluster
from tests.sentinels import Watched
from tests.servers import Impostor, Valkey, free_port
from tests.tls import Authority, TlsServer

pytestmark = pytest.mark.broad


def only(url: str, **asked: object) -> Server:
    """The one server that there is."""
    (found,) = examine(url, **asked)  # type: ignore[arg-type]  # as the test says
    return found


@pytest.fixture
def short() -> Iterator[Path]:
    """A directory whose name is short enough for sockets in it."""
    directory = Path(tempfile.mkdtemp(prefix="vd-"))
    yield directory
    shutil.rmtree(directory, ignore_errors=True)


def test_a_server(valkey: Valkey) -> None:
    """A server is timed, named, and says its role and version; over a socket as over TCP."""
    for url, where in ((valkey.url, f"127.0.0.1:{valkey.port}"), (valkey.unix_url, valkey.path)):
        found = only(url)
        assert (where, "server", "primary", "", "", []) == (
            found.where,
            found.kind,
            found.role,
            found.tls,
            found.error,
            found.troubles,
        )
        assert found.version.startswith("Valkey ")
        assert found.connect is not None
        assert found.ping is not None
        assert 0 < found.ping < found.connect < 2
        assert ({}, None) == (found.info, found.sample)


def test_what_it_says(valkey: Valkey) -> None:
    """INFO is handed on as far as it was asked for."""
    info = only(valkey.url, info=True).info
    assert ("noeviction", str(valkey.port)) == (info["maxmemory_policy"], info["tcp_port"])


def test_keys(valkey: Valkey) -> None:
    """Keys are looked at as far as was asked for; only those that are wanted are kept, with their time to live."""
    for number in range(700):
        valkey.run("SET", f"ours:{number}", 1, "PX", 60_000)
        valkey.run("SET", f"theirs:{number}", 1)
    valkey.run("SET", "ours:endless", 1)
    before = valkey.stats()["total_commands_processed"]
    sample = only(valkey.url, keys=10_000, take=lambda key: key.startswith("ours:")).sample
    assert sample is not None
    assert (1401, 1401, True, 701) == (sample.looked_at, sample.size, sample.complete, len(sample.keys))
    assert -1 == sample.keys.pop("ours:endless")
    assert all(50_000 < life <= 60_000 for life in sample.keys.values())
    part = only(valkey.url, keys=500).sample
    assert part is not None
    assert (False, 1401) == (part.complete, part.size)
    assert 500 <= part.looked_at == len(part.keys) < 1100
    # A bounded look is a bounded number of commands: SCAN in steps, and one PTTL for each key that is kept.
    assert valkey.stats()["total_commands_processed"] - before < 701 + 1100 + 60
    assert 0 == len(valkey.run("KEYS", "failsoft*"))


def test_keys_that_are_no_text(valkey: Valkey) -> None:
    """A key that is no text is shown all the same."""
    valkey.run("SET", b"ours:\xff", 1, "PX", 60_000)
    sample = only(valkey.url, keys=10).sample
    assert sample is not None
    assert ["ours:\\xff"] == list(sample.keys)


@pytest.mark.parametrize(
    ("change", "cause", "cure"),
    [
        (lambda url: url, "Authentication required", "put user and password into the URL"),
        (lambda url: url.replace("://", "://:wr%2Fong@"), "invalid username-password", "correct user and password"),
    ],
)
def test_passwords(change: object, cause: str, cure: str) -> None:
    """A server that lets nobody in says so, with what to do; no password is told."""
    with Valkey("--requirepass", "sesame", password="sesame") as server:
        found = only(change(server.url))  # type: ignore[operator]  # a function
        assert cause in found.error
        assert cure in found.error
        assert "wr/ong" not in found.error
        inside = only(server.url.replace("://", "://:sesame@"), info=True)
        assert ("", "sesame") == (inside.error, inside.info.get("requirepass", "sesame"))


def test_a_needless_password(valkey: Valkey) -> None:
    """A server without a password says that one is not needed."""
    assert "leave it out of the URL" in only(valkey.url.replace("://", "://:sesame@")).error


def test_what_may_not_be_asked() -> None:
    """What the ACL does not allow is told with what to grant, and the rest is there."""
    with Valkey() as server:
        server.run("ACL", "SETUSER", "app", "on", ">pw", "~*", "+ping", "+evalsha", "+select", "+client|setinfo")
        found = only(server.url.replace("://", "://app:pw@"), info=True, keys=10)
    assert ("", "", "", None) == (found.error, found.role, found.version, found.sample)
    assert ["INFO", "ROLE", "DBSIZE", "SCAN"] == [trouble.split()[0] for trouble in found.troubles]
    assert all(trouble.endswith("grant it to the ACL user") for trouble in found.troubles)


def test_nobody_there() -> None:
    """A port that nobody listens at, a host that there is not and a socket that is missing are told apart."""
    assert "is it running, and is the port right?" in only(f"redis://127.0.0.1:{free_port()}/0").error
    assert "correct the host in the URL" in only("redis://nowhere.invalid:6379/0").error
    assert "is it running, and is the path right?" in only("unix:///nowhere/at/all").error


def test_a_server_that_goes_away() -> None:
    """A server that dies in the middle is told as one that is away, and does not end the examination."""

    def answer(connection: object, data: bytes) -> None:
        if b"INFO" in data:
            connection.close()  # type: ignore[attr-defined]  # a socket

    with Impostor(answer) as server:
        found = only(server.url)
    assert found.error
    assert found.connect is not None


def test_tls(tmp_path: Path) -> None:
    """TLS is told by its version and cipher; without trust, or with the wrong scheme, what to change is told."""
    authority = Authority(tmp_path / "a")
    with TlsServer(authority) as server:
        found = only(server.url)
        assert ("primary", "") == (found.role, found.error)
        assert found.tls.startswith("TLSv1.")
        assert found.version.startswith("Redis ")
        assert "let tls_ca name the file" in only(server.url.partition("?")[0]).error
        assert "write rediss://" in only(f"redis://127.0.0.1:{server.port}/0").error


def test_no_tls_there(valkey: Valkey) -> None:
    """A server without TLS that is asked for it is told by what to write instead."""
    assert "write redis:// instead of rediss://" in only(valkey.url.replace("redis://", "rediss://")).error


@pytest.mark.timeout(120)
def test_sentinels() -> None:
    """Each sentinel says where it believes the primary to be; the primary is looked at, wherever it is."""
    with Watched(replicas=1, sentinels=3) as service:
        *sentinels, primary = examine(service.url, keys=10)
        where = f"127.0.0.1:{service.primary.port}"
        assert [("sentinel", "sentinel", where, None)] * 3 == [
            (one.kind, one.role, one.says, one.sample) for one in sentinels
        ]
        assert (where, "server", "primary") == (primary.where, primary.kind, primary.role)
        assert primary.sample is not None
        service.sentinels[0].close()
        dead, *_, primary = examine(service.url)
        assert ("sentinel", True, where) == (dead.kind, bool(dead.error), primary.where)
        *unsure, missing = examine(service.url.replace("/mymaster/", "/other/"))
        assert ["it knows of no service 'other'"] == list(unsure[1].troubles)
        assert "no primary of the service 'other' was found" in missing.error


@pytest.mark.timeout(120)
def test_a_cluster() -> None:
    """Every node that has slots is looked at, whoever is named; keys are sampled from each."""
    with Cluster(primaries=3) as cluster:
        for number in range(60):
            node = cluster.primary_of(f"k{number}")
            node.run("SET", f"k{number}", 1)
        first = cluster.url.partition(",")[0]
        nodes = examine(first, keys=300)
        assert {f"127.0.0.1:{node.port}" for node in cluster.nodes} == {node.where for node in nodes}
        assert (["node"] * 3, 16384) == ([node.kind for node in nodes], sum(node.slots or 0 for node in nodes))
        assert 60 == sum(len(node.sample.keys) for node in nodes if node.sample is not None)
        assert [[]] * 3 == [node.troubles for node in nodes]
        cluster.nodes[0].kill()
        nodes = examine(cluster.url)
        assert 1 == sum(bool(node.error) for node in nodes)
        cluster.nodes[1].run("CLUSTER", "DELSLOTS", *[slot for slot in range(16384) if slot % 2][2731:2741])
        found = examine(f"redis+cluster://127.0.0.1:{cluster.nodes[1].port}")
        assert any("slots have no node" in trouble for node in found for trouble in node.troubles)


def test_no_cluster(valkey: Valkey) -> None:
    """A server that is in no cluster says so."""
    (found,) = examine(valkey.url.replace("redis://", "redis+cluster://").removesuffix("/0"))
    assert "cluster support disabled" in found.error


def test_embedded(short: Path) -> None:
    """The embedded server is looked at as any other, and ends afterwards if nobody else uses it."""
    found = only(f"embedded://{short}/e?linger=0")
    assert ("primary", "") == (found.role, found.error)
    assert found.where.startswith(str(short))


def test_memory() -> None:
    """Where there is no server there is nothing to examine."""
    assert [] == examine("memory://")


def test_a_wrong_url() -> None:
    """A URL that is none is a mistake of whoever wrote it."""
    with pytest.raises(ConfigurationError, match="its port"):
        examine("redis://localhost:port/0")
