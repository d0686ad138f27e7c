"""TLS: whom the store trusts, and everything that a connection without TLS does, over one with it."""

import asyncio
import itertools
import os
import shutil
import socket
import ssl
import subprocess
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest

from failsoft.errors import ConfigurationError, StoreUnavailable
from failsoft.exchange.operations import Operation
from failsoft.guard import State
from failsoft.stores.redis import RedisStore, tls, wire
from failsoft.stores.redis.url import parse_url
from failsoft.stores.redis.wire import NothingYet, TlsWire
from tests.core.stores.conftest import Fly
from tests.core.stores.lua import ECHO, Lua
from tests.core.stores.test_redis_processes import run
from tests.sentinels import Sentinel
from tests.servers import poll
from tests.tls import Authority, TlsServer, redis_binary

pytestmark = pytest.mark.processes

Opener = Callable[..., RedisStore]
Warm = Callable[[RedisStore], None]

FLIGHT = [Lua(ECHO, arguments=("x",))]


@pytest.fixture(scope="module")
def authority(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    """Whom server and clients trust."""
    return Authority(tmp_path_factory.mktemp("authority"))


@pytest.fixture(scope="module")
def shared(authority: Authority) -> Iterator[TlsServer]:
    """A server for all tests that do it no harm."""
    with TlsServer(authority) as server:
        yield server


@pytest.fixture
def server(authority: Authority) -> Iterator[TlsServer]:
    """A server of the test's own, to be killed and stopped."""
    with TlsServer(authority) as server:
        yield server


@pytest.fixture(params=["asyncio", "uvloop"])
def fresh_loop(request: pytest.FixtureRequest) -> Iterator[asyncio.AbstractEventLoop]:
    """An event loop of each kind, running in a thread of its own."""
    loop = asyncio.new_event_loop() if request.param == "asyncio" else pytest.importorskip("uvloop").new_event_loop()
    thread = threading.Thread(target=loop.run_forever)
    thread.start()
    yield loop
    loop.call_soon_threadsafe(loop.stop)
    thread.join()
    loop.close()


def attempt(fly: Fly, store: RedisStore, operations: Sequence[Operation] = FLIGHT) -> Any:
    """The answers of a flight, or its refusal."""
    try:
        return fly(store, operations)
    except StoreUnavailable as error:
        return error


def refused(store: RedisStore) -> str:
    """Why there is no connection."""
    failure = attempt(lambda store, operations: store.flight(operations), store)
    assert isinstance(failure, StoreUnavailable)
    return str(failure)


# Everything works.


def test_flights(shared: TlsServer, open_store: Opener, fly: Fly, warm: Warm) -> None:
    """Answers come in order, small ones, large ones, and ones of just the size of a record of TLS."""
    store = open_store(shared.url, deadline=5.0)
    warm(store)

    for size in (1, 100, 16_383, 16_384, 16_385, 70_000, 3_000_000):
        flight = [Lua(ECHO, arguments=("x" * size,)), *[Lua(ECHO, arguments=(f"{size} {i}",)) for i in range(20)]]

        assert [b"x" * size, *[b"%d %d" % (size, i) for i in range(20)]] == fly(store, flight)


def test_a_connection_rests_and_is_used_again(server: TlsServer, open_store: Opener, fly: Fly, warm: Warm) -> None:
    """What TLS itself sends (session tickets, after the handshake) does not pass for a connection that died."""
    store = open_store(server.url, deadline=5.0)
    warm(store)
    before = server.stats()["total_connections_received"]

    for _ in range(20):
        assert [b"x"] == fly(store, FLIGHT)
        time.sleep(0.01)  # rest for more than a moment

    assert 1 == server.stats()["total_connections_received"] - before  # that one looked


def test_many_threads(shared: TlsServer, open_store: Opener) -> None:
    """Each thread gets its own answers."""
    store = open_store(shared.url, deadline=5.0, max_connections=8)
    wrong: list[Any] = []

    def work(name: int) -> None:
        for turn in range(50):
            expected = f"{name} {turn} ".encode() * 1000
            answer = store.flight([Lua(ECHO, arguments=(expected,))])
            if answer != [expected]:
                wrong.append(answer)

    threads = [threading.Thread(target=work, args=(name,)) for name in range(16)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    assert [] == wrong


def test_many_tasks(shared: TlsServer, open_store: Opener, fresh_loop: asyncio.AbstractEventLoop) -> None:
    """Each task gets its own answers, while large flights wait for the kernel to take them."""
    store = open_store(shared.url, deadline=5.0)

    async def work(name: int) -> None:
        for turn in range(20):
            expected = f"{name} {turn} ".encode() * (50_000 if name % 10 == 0 else 1)
            assert [expected, b"x"] == await store.aflight([Lua(ECHO, arguments=(expected,)), *FLIGHT])

    async def main() -> None:
        await store.aflight(FLIGHT)
        await asyncio.gather(*(work(name) for name in range(40)))
        await store.aclose()

    asyncio.run_coroutine_threadsafe(main(), fresh_loop).result(50)


def test_without_hiredis(shared: TlsServer, open_store: Opener, monkeypatch: pytest.MonkeyPatch) -> None:
    """The parser in Python reads over TLS as well, in pieces that are smaller than a record."""
    from redis._parsers import _RESP2Parser

    class Small(_RESP2Parser):  # type: ignore[misc]  # it has no types
        def __init__(self, socket_read_size: int) -> None:
            super().__init__(1000)

    set_parser = wire.TlsConnection.set_parser
    monkeypatch.setattr(wire.TlsConnection, "set_parser", lambda self, parser_class: set_parser(self, Small))
    store = open_store(shared.url, deadline=5.0)
    flight = [Lua(ECHO, arguments=("b" * 100_000,)), *FLIGHT]

    async def main() -> list[Any]:
        answers = [await store.aflight(flight) for _ in range(5)]
        await store.aclose()
        return answers

    assert [b"b" * 100_000, b"x"] == store.flight(flight)
    assert [[b"b" * 100_000, b"x"]] * 5 == asyncio.run(main())


def test_credentials_and_database(authority: Authority, open_store: Opener, fly: Fly, warm: Warm) -> None:
    """User, password and database are told once the connection is encrypted."""
    with TlsServer(authority) as server:
        server.run("ACL", "SETUSER", "ann", "on", ">pa55", "~*", "+@all")
        store = open_store(server.url.replace("//", "//ann:pa55@").replace("/0?", "/3?"), deadline=5.0)
        warm(store)

        assert {"ann", "3"} <= {
            value
            for line in server.run("CLIENT", "LIST").decode().splitlines()
            for name, _, value in [part.partition("=") for part in line.split()]
            if name in ("user", "db")
        }


@pytest.mark.filterwarnings("ignore:.*multi-threaded, use of fork")
def test_fork(server: TlsServer, open_store: Opener) -> None:
    """A child has connections of its own; the parent's go on, and their encryption with them."""
    store = open_store(server.url, deadline=5.0, max_connections=1)
    store.flight(FLIGHT)
    [mine] = store._pool._idle
    pid = os.fork()
    if not pid:
        try:
            answers = [store.flight([Lua(ECHO, arguments=(i,))]) for i in range(20)]
            os._exit(0 if answers == [[b"%d" % i] for i in range(20)] else 1)
        finally:
            os._exit(2)

    assert 0 == os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
    assert [b"x"] == store.flight(FLIGHT)
    assert [mine] == list(store._pool._idle)


# Whom it trusts.


def test_not_encrypted(shared: TlsServer, open_store: Opener, valkey: Any) -> None:
    """Neither does a store without TLS get in where it is spoken, nor the other way round."""
    assert "last failure" in refused(open_store(f"redis://127.0.0.1:{shared.port}"))
    assert "last failure" in refused(open_store(f"rediss://127.0.0.1:{valkey.port}?tls_ca={shared.authority.path}"))


def test_an_unknown_authority(shared: TlsServer, open_store: Opener, tmp_path: Path) -> None:
    """A certificate is worth nothing unless somebody who is trusted has certified it: the system's authorities, or ours."""
    other = Authority(tmp_path)

    for url in (f"rediss://127.0.0.1:{shared.port}", f"rediss://127.0.0.1:{shared.port}?tls_ca={other.path}"):
        store = open_store(url, deadline=2.0)
        assert "certificate verify failed" in refused(store)


def test_expired(authority: Authority, open_store: Opener) -> None:
    """A certificate that is over is refused, and the message says so."""
    with TlsServer(authority, expired=True) as server:
        assert "certificate has expired" in refused(open_store(server.url, deadline=2.0))


def test_a_wrong_host(authority: Authority, open_store: Opener, warm: Warm, fly: Fly) -> None:
    """A certificate for somebody else is refused, unless that name, or no name, is what is asked for."""
    with TlsServer(authority, names=("cache.example",)) as server:
        assert "certificate is not valid for '127.0.0.1'" in refused(open_store(server.url, deadline=2.0))
        for option in ("tls_server_name=cache.example", "tls_verify=ca", "tls_verify=none"):
            warm(open_store(f"{server.url}&{option}", deadline=2.0))
        warm(open_store(f"rediss://127.0.0.1:{server.port}?tls_verify=none", deadline=2.0))
        assert "certificate verify failed" in refused(
            open_store(f"rediss://127.0.0.1:{server.port}?tls_verify=ca", deadline=2.0)
        )


@pytest.mark.skipif(shutil.which("openssl") is None, reason="needs openssl, to name files as it does")
def test_a_directory_of_authorities(shared: TlsServer, open_store: Opener, warm: Warm, tmp_path: Path) -> None:
    """Authorities may be many files, named by their hashes."""
    named = tmp_path / f"{_hash_of(shared.authority.path)}.0"
    named.write_bytes(Path(shared.authority.path).read_bytes())

    warm(open_store(f"rediss://127.0.0.1:{shared.port}?tls_ca={tmp_path}", deadline=2.0))


def _hash_of(path: str) -> str:
    """What OpenSSL looks an authority up by."""
    return subprocess.run(
        ["openssl", "x509", "-hash", "-noout", "-in", path], check=True, capture_output=True, text=True
    ).stdout.strip()


def test_clients_need_a_certificate(authority: Authority, open_store: Opener, warm: Warm, tmp_path: Path) -> None:
    """A server that asks for one lets nobody in without, and those in whose key opens."""
    certificate, key = authority.certify("client", file="client")
    locked, locked_key = authority.certify("client", file="locked", password=b"pa55 word")
    bundle = tmp_path / "bundle.pem"
    bundle.write_bytes(Path(certificate).read_bytes() + Path(key).read_bytes())
    stranger, stranger_key = Authority(tmp_path / "other").certify("client", file="client")

    with TlsServer(authority, clients=True) as server:
        for query in ("", f"&tls_certificate={stranger}&tls_key={stranger_key}"):
            assert "last failure" in refused(open_store(server.url + query, deadline=2.0))
        for query in (
            f"&tls_certificate={certificate}&tls_key={key}",
            f"&tls_certificate={bundle}",
            f"&tls_certificate={locked}&tls_key={locked_key}&tls_key_password=pa55%20word",
        ):
            warm(open_store(server.url + query, deadline=2.0))


def test_the_least_version(authority: Authority, open_store: Opener, warm: Warm) -> None:
    """A server that speaks 1.2 at most is refused where 1.3 is asked for."""
    with TlsServer(authority, "--tls-protocols", "TLSv1.2") as server:
        warm(open_store(server.url, deadline=2.0))
        assert "last failure" in refused(open_store(f"{server.url}&tls_minimum=1.3", deadline=2.0))


def test_nothing_below_1_2(authority: Authority) -> None:
    """Older versions are not spoken, whatever the system allows, and nobody renegotiates."""
    context = tls.tls_of(tls.TlsOptions(ca=authority.path)).context()

    assert ssl.TLSVersion.TLSv1_2 == context.minimum_version
    assert context.options & ssl.OP_NO_RENEGOTIATION
    assert (True, ssl.CERT_REQUIRED) == (context.check_hostname, context.verify_mode)


def test_one_context(shared: TlsServer, open_store: Opener, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """However many connections there are, the context is built once, when the store is made."""
    built: list[None] = []
    create = ssl.create_default_context
    monkeypatch.setattr(ssl, "create_default_context", lambda *a, **k: (built.append(None), create(*a, **k))[1])
    mine = tmp_path / "ca.pem"
    mine.write_bytes(Path(shared.authority.path).read_bytes())
    url = f"rediss://127.0.0.1:{shared.port}?tls_ca={mine}"

    store = open_store(url, deadline=5.0)
    assert 1 == len(built)
    big = [Lua(ECHO, arguments=("b" * 3_000_000,))]
    threads = [threading.Thread(target=store.flight, args=(big,)) for _ in range(5)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    open_store(url, deadline=5.0).flight(FLIGHT)

    assert len(store._pool._all) > 1
    assert 1 == len(built)


def test_renewed_on_disk(
    authority: Authority, open_store: Opener, warm: Warm, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """Files that were replaced are taken without a restart; while they are wrong, the former ones do."""
    mine = tmp_path / "ca.pem"
    mine.write_bytes(Path(Authority(tmp_path / "other").path).read_bytes())
    with TlsServer(authority) as server:
        store = open_store(f"rediss://127.0.0.1:{server.port}?tls_ca={mine}", deadline=2.0)
        assert "certificate verify failed" in refused(store)
        mine.write_text("half of a fi")
        poll(lambda: "the former ones stay in use: The option tls_ca of a store is wrong" in caplog.text)
        mine.write_bytes(Path(authority.path).read_bytes())

        warm(store)


MISTAKES = [
    (
        "redis://h?tls_ca=/x",
        "tls_ca of a store does not go with its URL; it goes with rediss://, rediss+sentinel:// or rediss+cluster://",
    ),
    ("rediss://h?tls_ca=/no/where.pem", "tls_ca of a store is wrong: '/no/where.pem' cannot be read (No such file"),
    ("rediss://h?tls_ca=", "tls_ca of a store is no path"),
    ("rediss://h?tls_ca={here}/junk.pem", "tls_ca of a store is wrong: '{here}/junk.pem' holds no certificates"),
    ("rediss://h?tls_certificate=/no/where.pem", "tls_certificate of a store is wrong: '/no/where.pem' cannot be read"),
    ("rediss://h?tls_certificate={here}", "tls_certificate of a store is wrong: '{here}' cannot be read (Is a dir"),
    ("rediss://h?tls_certificate={here}/junk.pem", "tls_certificate of a store is wrong"),
    ("rediss://h?tls_certificate={here}/a.pem", "is no certificate and key in PEM"),
    ("rediss://h?tls_certificate={here}/a.pem&tls_key={here}/no.pem", "tls_key of a store is wrong: '{here}/no.pem' c"),
    ("rediss://h?tls_certificate={here}/a.pem&tls_key={here}/b-key.pem", "the key is not that of the certificate"),
    ("rediss://h?tls_certificate={here}/c.pem&tls_key={here}/c-key.pem", "the key is encrypted, and needs it"),
    (
        "rediss://h?tls_certificate={here}/c.pem&tls_key={here}/c-key.pem&tls_key_password=Zx9Qk7",
        "tls_key_password of a store is wrong: the key does not open with it",
    ),
    ("rediss://h?tls_key={here}/a-key.pem", "tls_key of a store is of no use without tls_certificate"),
    ("rediss://h?tls_key_password=Zx9Qk7", "tls_key_password of a store is of no use without tls_certificate"),
    ("rediss://h?tls_verify=maybe", "tls_verify of a store is 'maybe'; give one of full, ca, none"),
    ("rediss://h?tls_minimum=1.1", "tls_minimum of a store is '1.1'; give one of 1.2, 1.3"),
    ("rediss://h?tls_server_name=", "tls_server_name of a store is empty"),
]


@pytest.mark.parametrize(("url", "says"), MISTAKES)
def test_mistakes(url: str, says: str, tmp_path: Path) -> None:
    """What is wrong is said when the store is made, with the option's name and without secrets."""
    authority = Authority(tmp_path)
    authority.certify("a", file="a")
    authority.certify("b", file="b")
    authority.certify("c", file="c", password=b"another")
    (tmp_path / "junk.pem").write_text("junk")

    with pytest.raises(ConfigurationError) as refused:
        RedisStore(url.format(here=tmp_path))

    assert says.format(here=tmp_path) in str(refused.value)
    assert "Zx9Qk7" not in str(refused.value)


def test_no_secrets_are_shown(authority: Authority) -> None:
    """The password of a key is in no representation."""
    certificate, key = authority.certify("a", file="a", password=b"Zx9Qk7")
    url = f"rediss://h?tls_certificate={certificate}&tls_key={key}&tls_key_password=Zx9Qk7"

    store = RedisStore(url)

    shown = [repr(store), store.url, repr(parse_url(url)), repr(parse_url(url).address["tls"])]
    assert not [text for text in shown if "Zx9Qk7" in text]


# The store may die.


def degraded(fly: Fly, store: RedisStore) -> bool:
    """Whether flights are refused."""
    failure = attempt(fly, store)
    return isinstance(failure, StoreUnavailable) and failure.reason in ("open", "no_connection")


def test_a_server_that_hangs(server: TlsServer, open_store: Opener, fly: Fly, warm: Warm) -> None:
    """Who is under way times out, the rest is refused at once, and when the server goes on so does the store."""
    store = open_store(server.url)
    warm(store)
    server.pause()
    start = time.monotonic()

    failure = attempt(fly, store)

    assert isinstance(failure, StoreUnavailable)
    assert failure.reason in ("timeout", "local_lag")
    assert 0.09 < time.monotonic() - start < 2.0
    poll(lambda: degraded(fly, store))
    server.resume()
    warm(store)
    poll(lambda: store.breaker.state is State.CLOSED)


def test_a_server_that_dies(server: TlsServer, open_store: Opener, fly: Fly, warm: Warm) -> None:
    """After a crash flights are refused; after the restart the store is back by itself."""
    store = open_store(server.url)
    warm(store)

    for _ in range(2):
        server.kill()
        poll(lambda: degraded(fly, store))
        server.start()
        warm(store)


def test_a_hung_handshake(open_store: Opener, authority: Authority, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whoever accepts connections and says nothing holds nobody but the connector, and that for its budget."""
    monkeypatch.setattr(wire, "CONNECT_BUDGET", 0.2)
    with socket.create_server(("127.0.0.1", 0)) as silent:
        store = open_store(f"rediss://127.0.0.1:{silent.getsockname()[1]}?tls_ca={authority.path}")

        assert "no_connection" in refused(store)
        poll(lambda: "Timeout connecting to server" in refused(store))
        poll(lambda: store.breaker.state is not State.CLOSED)


def test_a_hung_call_leaves_nothing_behind(server: TlsServer, open_store: Opener, fly: Fly, warm: Warm) -> None:
    """The reply that came too late for one caller is not the answer of the next one."""
    store = open_store(server.url)
    warm(store)
    server.pause()

    hung = attempt(fly, store, [Lua(ECHO, arguments=("of the first",))])

    server.resume()
    assert isinstance(hung, StoreUnavailable)
    callers = itertools.count()
    answered: list[int] = []

    def next_caller() -> bool:
        caller = next(callers)
        answers = attempt(fly, store, [Lua(ECHO, arguments=(f"of {caller}",))])
        if not isinstance(answers, StoreUnavailable):
            assert [f"of {caller}".encode()] == answers
            answered.append(caller)
        return len(answered) == 20

    poll(next_caller)


def test_restarts_under_load(server: TlsServer, open_store: Opener, fresh_loop: asyncio.AbstractEventLoop) -> None:
    """Tasks that fly while the server is stopped and restarted get their own answers, or none."""
    store = open_store(server.url, deadline=0.5)
    stop = False

    async def work(name: int) -> int:
        answered = turn = 0
        while not stop:
            turn += 1
            expected = f"{name} {turn} ".encode() * (5000 if name == 0 else 1)
            try:
                assert [expected] == await store.aflight([Lua(ECHO, arguments=(expected,))])
                answered += 1
            except StoreUnavailable:
                pass
            await asyncio.sleep(0.005)
        return answered

    async def main() -> list[int]:
        return await asyncio.gather(*(work(name) for name in range(10)))

    load = asyncio.run_coroutine_threadsafe(main(), fresh_loop)
    time.sleep(0.2)
    server.pause()
    time.sleep(0.7)
    server.resume()
    time.sleep(0.2)
    server.restart()
    before = int(server.stats()["total_commands_processed"])
    poll(lambda: int(server.stats()["total_commands_processed"]) > before + 200)
    stop = True

    assert min(load.result(10)) > 0
    store.close()


# The wire itself.


@pytest.fixture
def pair(authority: Authority) -> Iterator[tuple[TlsWire, ssl.SSLSocket]]:
    """A wire that serves threads, and the other end."""
    certificate, key = authority.certify("localhost", file="pair")
    theirs_context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    theirs_context.load_cert_chain(certificate, key)
    ours_context = ssl.create_default_context(cafile=authority.path)
    ours, theirs = socket.socketpair()
    accepted: list[ssl.SSLSocket] = []
    accepting = threading.Thread(target=lambda: accepted.append(theirs_context.wrap_socket(theirs, server_side=True)))
    accepting.start()
    encrypted = ours_context.wrap_socket(ours, server_hostname="localhost")
    accepting.join()
    yield TlsWire(encrypted, budget=5.0, monotonic=time.monotonic), accepted[0]
    encrypted.close()
    accepted[0].close()


def test_what_openssl_has_is_readable(pair: tuple[TlsWire, ssl.SSLSocket]) -> None:
    """Decrypted bytes that nobody took are readable, although the kernel has nothing any more."""
    ours, theirs = pair
    ours.serve_threads(1.0)
    theirs.sendall(b"abc")

    assert b"a" == ours.recv(1)

    assert ours.readable()
    assert b"bc" == ours.recv(2)


def test_session_tickets_are_not_readable(pair: tuple[TlsWire, ssl.SSLSocket]) -> None:
    """What the kernel has and is TLS's own does not count; the end does."""
    ours, theirs = pair
    ours.serve_threads(1.0)
    assert ours._poll()

    assert not ours.readable()
    assert 1.0 == ours.sock.gettimeout()
    theirs.shutdown(socket.SHUT_RDWR)
    assert ours.readable()


def test_a_loop_drains_what_is_pending(pair: tuple[TlsWire, ssl.SSLSocket]) -> None:
    """A loop is told once of a record; the wire goes on reading until it has all of it, and then waits."""
    ours, theirs = pair
    ours.serve_loop()
    theirs.sendall(b"abc")
    ours.ready = True

    assert [b"a", b"b", b"c"] == [ours.recv(1) for _ in range(3)]
    with pytest.raises(NothingYet):
        ours.recv(1)


def test_a_large_write_ends_at_the_deadline(pair: tuple[TlsWire, ssl.SSLSocket]) -> None:
    """The deadline is for the whole of what is written, however many records that is."""
    ours, _ = pair
    ours.serve_threads(30.0)
    ours.due = time.monotonic() + 0.05

    with pytest.raises(TimeoutError):
        ours.sendall(b"x" * 50_000_000)

    assert 30.0 == ours.sock.gettimeout()
    assert time.monotonic() - ours.due < 5.0


@pytest.mark.parametrize("fresh", [True, False])
def test_what_has_arrived_is_read_after_the_deadline(pair: tuple[TlsWire, ssl.SSLSocket], fresh: bool) -> None:
    """A late reader still gets what came in time; with nothing there, it is a timeout."""
    ours, theirs = pair
    ours.serve_threads(0.05)
    ours.due, ours.fresh = time.monotonic() - 1.0, fresh
    theirs.sendall(b"+OK")

    assert b"+OK" == ours.recv(100)
    ours.fresh = fresh
    with pytest.raises(TimeoutError):
        ours.recv(100)


# Sentinel.


def test_sentinel(authority: Authority, open_store: Opener, fly: Fly, warm: Warm) -> None:
    """Sentinels are asked over TLS as well, and what they name is connected to over TLS."""
    with TlsServer(authority) as server:
        certificate, key = authority.certify("127.0.0.1", file="sentinel")
        sentinel = Sentinel(
            server.port,
            "cache",
            "tls-replication yes",
            f"tls-cert-file {certificate}",
            f"tls-key-file {key}",
            f"tls-ca-cert-file {authority.path}",
            "tls-auth-clients no",
            quorum=1,
            binary=redis_binary(),
            tls_ca=authority.path,
        )
        try:
            sentinel.start()
            url = f"rediss+sentinel://127.0.0.1:{sentinel.port}/cache/0?tls_ca={authority.path}"
            store = open_store(url, deadline=2.0)
            warm(store)
            assert [b"x"] == fly(store, FLIGHT)

            assert "certificate verify failed" in refused(open_store(url.partition("?")[0], deadline=2.0))
            assert f"sentinel 127.0.0.1:{sentinel.port}: " in refused(
                open_store(f"{url}&sentinel_tls=false", deadline=2.0)
            )
        finally:
            sentinel.close()


GEVENT = """
    from gevent import monkey
    if {early}:
        monkey.patch_all()
    import sys
    import gevent
    from failsoft.stores.redis import RedisStore
    store = RedisStore(sys.argv[1], deadline=5.0, max_connections=5)
    if not {early}:
        import warnings
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            monkey.patch_all()
    from tests.core.stores.lua import ECHO, Lua

    # Names are resolved in a native thread, which the greenlet below may keep from the interpreter for seconds.
    store.flight([Lua(ECHO, arguments=("x",))])
    ticks = 0
    def tick():
        global ticks
        while True:
            ticks += 1
            gevent.sleep(0)
    ticking = gevent.spawn(tick)
    flights = [gevent.spawn(store.flight, [Lua(ECHO, arguments=(str(i) * 50_000,))]) for i in range(50)]
    gevent.joinall(flights)
    ticking.kill()
    assert [[str(i).encode() * 50_000] for i in range(50)] == [flight.value for flight in flights]
    assert ticks > 100, ticks
    store.close()
    print("fine")
"""


@pytest.mark.parametrize("early", [True, False])
def test_gevent(shared: TlsServer, early: bool) -> None:
    """Under gevent others run while a greenlet waits for TLS, also if it was patched after the store was made."""
    pytest.importorskip("gevent")

    assert "fine\n" == run(GEVENT.format(early=early), shared.url)
