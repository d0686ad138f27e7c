"""The steps of sessions: the scripts do on a real server what `apply` does in this process; what servers do when they are not well."""

import asyncio
import shutil
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import pytest
import redis
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from failsoft.errors import OperationFailed, StoreUnavailable
from failsoft.exchange import Operation, Table
from failsoft.sessions.operations import (
    FOUND,
    GONE,
    MOVED,
    NO_FIELDS,
    RENEWED,
    Check,
    Create,
    Created,
    Delete,
    Enrol,
    Glance,
    List,
    Listed,
    Load,
    Loaded,
    Look,
    Revoke,
    RevokeAll,
    Wait,
    Write,
    Written,
)
from failsoft.sessions.operations.steps import pairs
from failsoft.stores.redis import RedisStore
from failsoft.stores.redis.commands import by_sha
from tests.core.stores.lua import Timed
from tests.servers import Valkey, poll

START = 1_700_000_000_000
IDLE, LIFETIME, GRACE = 60_000, 150_000, 10_000
RECORD, OTHER, SUBJECT = "p:1:sess:{h0}", "p:1:sess:{h1}", "p:1:subj:{s}"

digests = st.sampled_from(["d0", "d1", "d2"])
handles = st.sampled_from(["h0", "h1", "h2", "h3"])
names = st.sampled_from(["a", "b", "fl:_x", "=@c", "ü ~"])
data = st.sampled_from([b"1", b'"x"', b"\x01\x00\xff bytes\r\n", b"", b"x" * 70])
plain = st.dictionaries(names, data, max_size=3)
# An idle time of the session's own is shorter or longer than that of the settings.
own_idle = st.sampled_from([{}, {}, {"@i": b"1"}, {"@i": b"30000"}, {"@i": b"86400000"}])
records = st.sampled_from([RECORD, RECORD, OTHER])

steps = st.one_of(
    st.builds(Load, records, digests, idle=st.just(IDLE), touch=st.sampled_from([0, 5000])),
    st.builds(
        lambda key, digest, fields, idle: Create(key, {"@h": digest, **fields, **idle}, idle=IDLE, lifetime=LIFETIME),
        records,
        digests,
        plain,
        own_idle,
    ),
    st.builds(
        lambda key, digest, fields, idle, removed, more: Write(
            key, digest, {**fields, **idle}, removed, idle=IDLE, **more
        ),
        records,
        digests,
        plain,
        own_idle,
        st.lists(st.one_of(names, st.just("@i")), max_size=2),
        st.fixed_dictionaries(
            {},
            optional={
                "rotated": digests,
                "grace": st.sampled_from([0, GRACE]),
                "strict": st.booleans(),
                "lifetime": st.just(LIFETIME),
                "above": st.sampled_from([START * 1000 - 1, START * 1000 + 30_000_000, START * 1000 + 10**12]),
            },
        ),
    ),
    st.builds(Delete, records, st.one_of(st.none(), digests)),
    st.builds(Look, records),
    st.builds(Check, st.just(SUBJECT), handles),
    st.builds(
        Enrol,
        st.just(SUBJECT),
        handles,
        st.sampled_from([b"", b"a phone", b"\x01 \xff 1 2"]),
        lifetime=st.just(LIFETIME),
        cap=st.sampled_from([1, 2, 1000]),
        revoke=st.booleans(),
    ),
    st.builds(Glance, records),
    st.builds(
        Revoke,
        st.just(SUBJECT),
        handles,
        lifetime=st.sampled_from([0, LIFETIME]),
        listed_for=st.sampled_from([0, 0, 30_000]),
    ),
    st.builds(RevokeAll, st.just(SUBJECT), lifetime=st.just(LIFETIME), keep=st.one_of(st.just(""), handles)),
    st.builds(List, st.just(SUBJECT), lifetime=st.just(LIFETIME)),
    # The edges: the last millisecond of an idle time, of a grace, of a life, and the one after.
    st.sampled_from([0, 1, 4999, 5000, 9999, 10_000, 29_999, 30_000, 30_001, 59_999, 60_000, 60_001, 90_000, 150_000]),
)


class Both:
    """A table and a real server with the same clock, which must say and hold the same."""

    def __init__(self, client: "redis.Redis") -> None:
        client.flushall()
        self.timed, self.table, self.now = Timed(client), Table(), START

    def run(self, operation: Operation) -> Any:
        answer = operation.apply(self.table, self.now / 1000)
        assert answer == self.timed.run(operation, self.now / 1000)
        assert [] == self.timed.endless()
        assert self.in_table() == self.on_server()
        return answer

    def in_table(self) -> dict[str, tuple[int, dict[bytes, bytes]]]:
        found = {}
        for key in (RECORD, OTHER, SUBJECT):
            entry = self.table.find(key, self.now / 1000)
            if entry is not None and entry.value:  # on a server, what has no fields is not there
                fields = {name.encode(): _stored(value) for name, value in entry.value.items()}
                found[key] = (round(entry.expires * 1000) - 1, fields)
        return found

    def on_server(self) -> dict[str, tuple[int, dict[bytes, bytes]]]:
        ends = self.timed.ends()
        return {key: (ends[key], fields) for key, fields in self.timed.values().items() if ends[key] >= self.now}


def _stored(value: Any) -> bytes:
    if isinstance(value, tuple):  # a session in its subject's list
        return b"%d %s" % value
    return value if isinstance(value, bytes) else str(value).encode()


def create(key: str = RECORD, digest: str = "d0", **more: Any) -> Create:
    return Create(key, {"@h": digest, "a": b"1", **more}, idle=IDLE, lifetime=LIFETIME)


@settings(deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(history=st.lists(steps, min_size=1, max_size=25))
@example(
    history=[create(), 59_999, Load(RECORD, "d0", idle=IDLE, touch=0), 60_000, Load(RECORD, "d0", idle=IDLE, touch=0)]
)
@example(history=[create(**{"@i": b"86400000"}), 150_000, Load(RECORD, "d0", idle=IDLE, touch=0)])
@example(history=[create(**{"@i": b"86400000"}), 150_000, Write(RECORD, "d0", {"a": b"2"}, idle=IDLE)])
@example(history=[create(), Write(RECORD, "d0", {}, idle=IDLE, rotated="d1"), Load(RECORD, "d0", idle=IDLE, touch=0)])
@example(
    history=[
        Enrol(SUBJECT, "h0", b"", lifetime=LIFETIME, cap=1, revoke=False),
        LIFETIME,
        List(SUBJECT, lifetime=LIFETIME),
    ]
)
def test_one_meaning(shared_valkey: Valkey, history: Sequence[Any]) -> None:
    """Any history has the same answers, and leaves the same fields and the same ends, in this process and on a server."""
    with redis.Redis.from_url(shared_valkey.url) as client:
        both = Both(client)
        for step in history:
            if isinstance(step, int):
                both.now += step
            else:
                both.run(step)


def test_on_redis(monkeypatch: pytest.MonkeyPatch) -> None:
    """Redis, where it is installed, gives what this process gives, for each step at least once."""
    binary = shutil.which("redis-server")
    if binary is None:
        pytest.skip("redis-server is not installed here")
    monkeypatch.setattr("tests.servers.get_binary_path", lambda: binary)
    with Valkey() as server, redis.Redis.from_url(server.url) as client:
        both = Both(client)
        assert [] == both.run(Enrol(SUBJECT, "h0", b"phone", lifetime=LIFETIME, cap=2, revoke=True))
        assert Created(FOUND, START, START + LIFETIME, START * 1000) == both.run(create())
        both.now += 7000
        assert b"7" != both.run(Load(RECORD, "d0", idle=IDLE, touch=5000)).fields["@t"]
        write = Write(
            RECORD, "d0", {"b": b"\xff"}, ["a"], idle=IDLE, rotated="d1", grace=GRACE, lifetime=LIFETIME, above=5
        )
        assert Written(FOUND, both.now, 2, both.now + LIFETIME, both.now * 1000) == both.run(write)
        assert RENEWED == both.run(Load(RECORD, "d0", idle=IDLE, touch=5000)).code
        both.run(Enrol(SUBJECT, "h1", b"", lifetime=LIFETIME, cap=2, revoke=True))
        assert ["h0", "h1"] == both.run(Enrol(SUBJECT, "h2", b"", lifetime=LIFETIME, cap=2, revoke=True))
        assert both.run(Revoke(SUBJECT, "h0", lifetime=LIFETIME))
        assert (0, True) == both.run(Check(SUBJECT, "h0"))
        assert both.run(Revoke(SUBJECT, "h1", lifetime=LIFETIME))
        assert Listed(0, [("h2", both.now, b"")]) == both.run(List(SUBJECT, lifetime=LIFETIME))
        assert (both.now * 1000, ["h2"]) == both.run(RevokeAll(SUBJECT, lifetime=LIFETIME))
        assert b"\xff" == both.run(Look(RECORD))["b"]
        assert both.run(Delete(RECORD, "d0"))


@pytest.fixture
def both(valkey: Valkey) -> Iterator[Both]:
    with redis.Redis.from_url(valkey.url) as client:
        yield Both(client)


def load(digest: str = "d0") -> Load:
    return Load(RECORD, digest, idle=IDLE, touch=0)


def test_the_last_millisecond(both: Both) -> None:
    """A session that is used in the millisecond of its absolute end is over: it is no record without fields."""
    both.run(create(**{"@i": b"86400000"}))
    both.now += LIFETIME - 1
    assert FOUND == both.run(load()).code
    both.now += 1
    assert both.run(load()) is None
    assert Written(GONE) == both.run(Write(RECORD, "d0", {"a": b"2"}, idle=IDLE))


def test_strict_rotation(both: Both) -> None:
    """After a login the former secret is told that the session moved, for the grace, and neither reads nor writes; then it is unknown."""
    both.run(create())
    both.run(Write(RECORD, "d0", {}, idle=IDLE, rotated="d1", grace=GRACE, strict=True, lifetime=LIFETIME))
    both.now += GRACE - 1
    found = both.run(load())
    assert (MOVED, {}) == (found.code, found.fields)
    assert Written(MOVED) == both.run(Write(RECORD, "d0", {"a": b"2"}, idle=IDLE))
    both.now += 1
    assert both.run(load()) is None
    assert Written(GONE) == both.run(Write(RECORD, "d0", {"a": b"2"}, idle=IDLE))
    assert b"1" == both.run(load("d1")).fields["a"]


def test_no_grace(both: Both) -> None:
    """Without a grace the former secret is dead at once."""
    both.run(create())
    both.run(Write(RECORD, "d0", {}, idle=IDLE, rotated="d1", grace=0))
    assert both.run(load()) is None
    assert FOUND == both.run(load("d1")).code


def test_rotated_twice(both: Both) -> None:
    """Of two rotations within the grace the first secret is told that the session moved, and opens nothing; the second still leads to the
    record, and cannot rotate it once more."""
    both.run(create())
    both.run(Write(RECORD, "d0", {}, idle=IDLE, rotated="d1", grace=GRACE))
    assert Written(MOVED) == both.run(Write(RECORD, "d0", {"a": b"2"}, idle=IDLE, rotated="d2", grace=GRACE))
    both.run(Write(RECORD, "d1", {}, idle=IDLE, rotated="d2", grace=GRACE))
    assert Loaded(MOVED, 0, NO_FIELDS) == both.run(load("d0"))
    assert Written(MOVED) == both.run(Write(RECORD, "d0", {"a": b"2"}, idle=IDLE))
    assert not both.run(Delete(RECORD, "d0"))
    assert [RENEWED, FOUND] == [both.run(load(digest)).code for digest in ("d1", "d2")]
    assert b"1" == both.run(load("d2")).fields["a"]
    both.now += GRACE
    assert [None, None] == [both.run(load(digest)) for digest in ("d0", "d1")]
    both.run(Write(RECORD, "d2", {}, idle=IDLE, rotated="d3", grace=GRACE))
    assert both.run(load("d1")) is None


def test_rotated_twice_and_never_heard_of(both: Both) -> None:
    """Where the last answer was lost, whoever still has the first secret is told that the session moved for the grace, and no longer."""
    both.run(create())
    both.run(Write(RECORD, "d0", {}, idle=IDLE, rotated="d1", grace=GRACE, strict=True))
    both.run(Write(RECORD, "d1", {}, idle=IDLE, rotated="d2", grace=GRACE))
    both.now += GRACE - 1
    assert Loaded(MOVED, 0, NO_FIELDS) == both.run(load("d0"))
    both.now += 1
    assert both.run(load("d0")) is None
    assert Written(GONE) == both.run(Write(RECORD, "d0", {"a": b"2"}, idle=IDLE))
    assert RENEWED == both.run(load("d1")).code


def test_a_taken_handle(both: Both) -> None:
    """A new session whose handle is taken leaves the other as it is."""
    both.run(create())
    assert Created(GONE) == both.run(create(digest="d1", a=b"2"))
    assert b"1" == both.run(load()).fields["a"]


def test_a_write_keeps_what_it_does_not_name(both: Both) -> None:
    """Writes of different keys, in whatever order, are all there."""
    both.run(create())
    for number in range(20):
        both.run(Write(RECORD, "d0", {f"k{number}": b"%d" % number}, idle=IDLE))
    fields = both.run(load()).fields
    assert [b"%d" % number for number in range(20)] == [fields[f"k{number}"] for number in range(20)]
    assert b"21" == fields["@v"]


@pytest.mark.parametrize("strict", [False, True])
def test_an_end_by_the_former_secret(both: Both, strict: bool) -> None:
    """In its grace it may end the session of the same user, for a logout that was under way; a made-up one never may."""
    both.run(create())
    both.run(Write(RECORD, "d0", {}, idle=IDLE, rotated="d1", grace=GRACE, strict=strict))
    assert FOUND == both.run(load("d1")).code
    assert not both.run(Delete(RECORD, "d2"))
    both.now += GRACE - 1
    assert strict is not both.run(Delete(RECORD, "d0"))
    both.run(create())
    both.run(Write(RECORD, "d0", {}, idle=IDLE, rotated="d1", grace=GRACE, strict=strict))
    both.run(load("d1"))
    both.now += GRACE
    assert not both.run(Delete(RECORD, "d0"))
    assert both.run(Delete(RECORD, "d1"))


def test_the_grace_begins_with_the_first_use(both: Both) -> None:
    """The answer that gave the browser its new secret may have been lost: until it is used, the former one leads to the session."""
    both.run(create())
    both.run(Write(RECORD, "d0", {}, idle=IDLE, rotated="d1", grace=GRACE))
    both.now += 2 * GRACE
    assert RENEWED == both.run(load("d0")).code
    assert FOUND == both.run(load("d1")).code
    both.now += GRACE - 1
    assert RENEWED == both.run(load("d0")).code
    both.run(load("d1"))
    both.now += 1
    assert both.run(load("d0")) is None


def test_the_kept_session_is_valid_at_once(both: Both) -> None:
    """Between the revocation of all others and its own new generation, and until the next revocation of all."""
    both.run(RevokeAll(SUBJECT, lifetime=LIFETIME, keep="h0"))
    assert [(0, False), (both.now * 1000, False)] == [both.run(Check(SUBJECT, handle)) for handle in ("h0", "h1")]
    both.run(RevokeAll(SUBJECT, lifetime=LIFETIME))
    assert (both.now * 1000 + 1, False) == both.run(Check(SUBJECT, "h0"))


def test_a_shorter_lifetime_forgets_no_revocation(both: Both) -> None:
    """What the store knows of a user lasts as long as the longest session may, also when later ones may live less long."""
    both.run(RevokeAll(SUBJECT, lifetime=LIFETIME))
    both.run(RevokeAll(SUBJECT, lifetime=1))
    both.run(Revoke(SUBJECT, "h0", lifetime=1))
    both.run(Enrol(SUBJECT, "h1", b"", lifetime=1, cap=1, revoke=False))
    both.now += LIFETIME - 1
    assert 0 < both.run(Check(SUBJECT, "h2"))[0]


def test_no_write_after_the_end(both: Both) -> None:
    """A session that was deleted, or that ran out, is not made again by a write."""
    both.run(create())
    both.run(Delete(RECORD, None))
    assert Written(GONE) == both.run(Write(RECORD, "d0", {"a": b"2"}, idle=IDLE))
    both.run(create())
    both.now += IDLE + 1
    assert Written(GONE) == both.run(Write(RECORD, "d0", {"a": b"2"}, idle=IDLE))
    assert {} == both.run(Look(RECORD))


def test_above_prolongs_nothing(both: Both) -> None:
    """A session that outlives the revocation of all others gets a generation above it, and no longer life."""
    both.run(create())
    both.now += 1000
    not_before, _ = both.run(RevokeAll(SUBJECT, lifetime=LIFETIME, keep="h0"))
    written = both.run(Write(RECORD, "d0", {}, idle=IDLE, above=not_before))
    assert (START + LIFETIME, not_before + 1) == (written.deadline, written.generation)


def test_revoked_twice_in_a_moment(both: Both) -> None:
    """Each revocation of all is above the one before, and above what was made at that moment."""
    first, _ = both.run(RevokeAll(SUBJECT, lifetime=LIFETIME))
    second, _ = both.run(RevokeAll(SUBJECT, lifetime=LIFETIME))
    both.run(create())
    generation = int(both.run(load()).fields["@g"])
    assert (START * 1000, START * 1000 + 1) == (first, second)
    assert generation <= second


def test_revoke_all_forgets_no_revocation(both: Both) -> None:
    """Who was revoked stays revoked when all are, even if it is the one to be kept; and those that are listed are marked one by one."""
    for handle in ("h0", "h1", "h2"):
        both.run(Enrol(SUBJECT, handle, b"", lifetime=LIFETIME, cap=9, revoke=False))
        both.now += 1
    both.run(Revoke(SUBJECT, "h0", lifetime=LIFETIME))
    assert (both.now * 1000, ["h1"]) == both.run(RevokeAll(SUBJECT, lifetime=LIFETIME, keep="h2"))
    assert [True, True, False] == [both.run(Check(SUBJECT, handle))[1] for handle in ("h0", "h1", "h2")]
    both.run(RevokeAll(SUBJECT, lifetime=LIFETIME, keep="h0"))
    assert both.run(Check(SUBJECT, "h0"))[1]


def test_what_was_listed_just_now_stays(both: Both) -> None:
    """Who finds no record of a session takes it off the list only when it has been there for so long that it would be written."""
    assert not both.run(Revoke(SUBJECT, "h0", lifetime=0, listed_for=1000))
    both.run(Enrol(SUBJECT, "h0", b"12 phones", lifetime=LIFETIME, cap=9, revoke=True))
    both.now += 999
    assert not both.run(Revoke(SUBJECT, "h0", lifetime=0, listed_for=1000))
    assert ["h0"] == [handle for handle, *_ in both.run(List(SUBJECT, lifetime=LIFETIME)).sessions]
    both.now += 1
    assert both.run(Revoke(SUBJECT, "h0", lifetime=0, listed_for=1000))
    assert [] == both.run(List(SUBJECT, lifetime=LIFETIME)).sessions


def test_the_cap_takes_the_oldest(both: Both) -> None:
    """Beyond the cap the oldest are to go, in order, and never the one that has just come; until then they are listed."""
    for handle in ("h3", "h1", "h2"):
        assert [] == both.run(Enrol(SUBJECT, handle, b"", lifetime=LIFETIME, cap=9, revoke=True))
        both.now += 1
    assert ["h3", "h1", "h2"] == both.run(Enrol(SUBJECT, "h0", b"", lifetime=LIFETIME, cap=1, revoke=True))
    assert ["h3", "h1", "h2", "h0"] == [handle for handle, *_ in both.run(List(SUBJECT, lifetime=LIFETIME)).sessions]
    assert ["h3", "h1"] == both.run(Enrol(SUBJECT, "h0", b"", lifetime=LIFETIME, cap=2, revoke=False))
    assert ["h2", "h0"] == [handle for handle, *_ in both.run(List(SUBJECT, lifetime=LIFETIME)).sessions]


@pytest.mark.parametrize(
    ("step", "whole", "replies"),
    [
        (load(), [FOUND, 1, b"a", [b"1"]], [[], None, [MOVED]]),
        (create(), [FOUND, 1, 2, 3], [[GONE]]),
        (Write(RECORD, "d0", {}, idle=IDLE), [FOUND, 1, 2, 3, 4], [[GONE], [MOVED]]),
        (Glance(RECORD), [1, 2, 3, b""], [[], None]),
        (Check(SUBJECT, "h0"), [0, 1], []),
    ],
    ids=lambda value: type(value).__name__,
)
def test_damaged_replies(step: Any, whole: list[Any], replies: list[Any]) -> None:
    """A reply that is too short, or too long, or says what no script says, is not understood, instead of half understood."""
    for reply in (whole, *replies):
        step.parse(reply)
    damaged = [whole[:length] for length in range(1, len(whole))] + [[*whole, 5]]
    if whole[0] == FOUND and len(whole) > 2 and not isinstance(step, Glance):
        damaged += [[7, *whole[1:]], [7], [GONE, *whole[1:]], [MOVED, 1]]
    for reply in damaged:
        with pytest.raises(ValueError, match=r"values|unpack|code"):
            step.parse(reply)


def test_pairs() -> None:
    """Names and values take turns."""
    assert {"a": b"1", "ü": b"2"} == pairs([b"a", b"1", "ü".encode(), b"2"])
    assert {} == pairs([])
    with pytest.raises(ValueError, match="zip"):
        pairs([b"odd"])


def test_steps_that_are_sent_again_are_packed_once() -> None:
    """The store packs the steps that a Cookie field is remembered with at the first request only."""
    step, check = load(), Check(SUBJECT, "h0")
    assert [None, None] == [step.packed, check.packed]
    assert by_sha([load(), Check(SUBJECT, "h0")]) == by_sha([step, check])
    assert by_sha([step, check]) == step.packed + check.packed


def test_few_arguments_of_the_usual_write() -> None:
    """What only logins and rotations say is sent by them alone."""
    usual = Write(RECORD, "d0", {"a": b"1"}, ["b"], idle=IDLE)
    login = Write(RECORD, "d0", {"a": b"1"}, ["b"], idle=IDLE, rotated="d1", lifetime=LIFETIME)

    assert ("d0", IDLE, 1, "b", "a", b"1") == usual.arguments
    assert ("d0", IDLE, 1, "d1", 0, "0", LIFETIME, 0, "b", "a", b"1") == login.arguments


# A real server through the real store

ALL: Sequence[tuple[Callable[[], Operation], bool]] = (
    (lambda: Load(RECORD, "d0", idle=IDLE, touch=0), True),
    (lambda: Delete(OTHER, None), True),
    (lambda: Look(RECORD), True),
    (lambda: Glance(RECORD), True),
    (lambda: Check(SUBJECT, "h0"), True),
    (lambda: Revoke(SUBJECT, "h1", lifetime=LIFETIME), True),
    (lambda: RevokeAll(SUBJECT, lifetime=LIFETIME), True),
    (lambda: List(SUBJECT, lifetime=LIFETIME), True),
    (lambda: create(OTHER), False),
    (lambda: Write(RECORD, "d0", {"a": b"2" * 100}, idle=IDLE, rotated="d1", lifetime=LIFETIME), False),
    (lambda: Enrol(SUBJECT, "h2", b"", lifetime=LIFETIME, cap=1, revoke=True), False),
)
"""Each step, and whether it goes on where memory is full."""


def opened(server: Valkey) -> RedisStore:
    store = RedisStore(server.url, deadline=2)
    flies(store)
    return store


def flies(store: RedisStore) -> None:
    def answers() -> bool:
        try:
            return store.flight([Look("p:1:sess:{none}")]) == [{}]
        except StoreUnavailable:
            return False

    poll(answers)


def prepare(store: RedisStore) -> None:
    """What `ALL` finds there."""
    store.flight([Delete(RECORD, None), Delete(OTHER, None)])
    first = [Enrol(SUBJECT, "h0", b"", lifetime=LIFETIME, cap=9, revoke=True), create(), create(OTHER)]
    assert FOUND == store.flight(first)[1].code


def test_every_key_ends_and_none_is_sought(valkey: Valkey) -> None:
    """After each step every key has an end, and no step has looked for keys."""
    valkey.run("CONFIG", "RESETSTAT")
    store = opened(valkey)
    try:
        for make, _ in ALL:
            prepare(store)
            store.flight([make()])
            keys = valkey.run("KEYS", "*")
            assert [] == [key for key in keys if not 0 < valkey.run("PTTL", key) <= LIFETIME]
        seen = {name for name in valkey.run("INFO", "commandstats") if name in ("cmdstat_scan", "cmdstat_hscan")}
        assert set() == seen
        assert len(ALL) == valkey.run("INFO", "commandstats")["cmdstat_keys"]["calls"]
    finally:
        store.close()


@pytest.mark.parametrize("make", [make for make, _ in ALL], ids=lambda make: type(make()).__name__)
def test_scripts_that_a_server_forgot(valkey: Valkey, make: Callable[[], Operation]) -> None:
    """A server that has forgotten the scripts is given them again within the flight, and each step runs once."""
    store = opened(valkey)
    try:
        prepare(store)
        expected = store.flight([make()])[0]
        prepare(store)
        valkey.run("SCRIPT", "FLUSH")
        assert type(expected) is type(store.flight([make()])[0])
        assert not isinstance(expected, OperationFailed)
    finally:
        store.close()


def test_waiting_for_what_a_server_forgot() -> None:
    """Where a server has forgotten the scripts, WAIT comes after what it is to wait for, from threads and from loops."""
    with Valkey() as server, Valkey("--replicaof", f"127.0.0.1 {server.port}") as replica:
        poll(lambda: replica.run("INFO", "replication")["master_link_status"] == "up")
        store = opened(server)
        try:
            assert [1] == store.flight([create(), Wait(1, 1000)])[1:]
            replica.pause()  # from here on nothing is confirmed any more
            server.run("SCRIPT", "FLUSH")
            found = store.flight([Write(RECORD, "d0", {"a": b"2"}, idle=IDLE), Wait(1, 50)])
            assert [2, 0] == [found[0].version, found[1]]
            server.run("SCRIPT", "FLUSH")

            async def fly() -> list[Any]:
                flight = [Write(RECORD, "d0", {"a": b"3"}, idle=IDLE), Wait(1, 50)]
                while True:
                    try:
                        return await store.aflight(flight)
                    except StoreUnavailable:  # this loop has no connection yet
                        await asyncio.sleep(0.02)

            found = asyncio.run(fly())
            assert [3, 0] == [found[0].version, found[1]]
        finally:
            store.close()


def test_read_only_replicas() -> None:
    """No step runs on a replica: nothing is read from one that lags behind."""
    with Valkey() as server, Valkey("--replicaof", f"127.0.0.1 {server.port}") as replica:
        store = opened(server)
        try:
            prepare(store)
        finally:
            store.close()
        poll(lambda: replica.run("EXISTS", RECORD))
        with replica.client() as client:
            for make, _ in ALL:
                operation = make()
                with pytest.raises(redis.exceptions.ReadOnlyError):
                    client.eval(operation.script.source, 1, *operation.keys, *operation.arguments)


@pytest.mark.parametrize(("make", "goes_on"), ALL, ids=lambda one: type(one()).__name__ if callable(one) else None)
def test_full_memory(make: Callable[[], Operation], goes_on: bool) -> None:
    """Where memory is full, sessions are read, kept alive, ended and revoked; what grows them fails, and leaves nothing half written."""
    with Valkey("--maxmemory-policy", "noeviction") as server:
        store = opened(server)
        try:
            prepare(store)
            if make().keys[0] == OTHER and not goes_on:
                store.flight([Delete(OTHER, None)])
            before = {key: server.run("HGETALL", key) for key in sorted(server.run("KEYS", "*"))}
            server.run("CONFIG", "SET", "maxmemory", "1")
            answer = store.flight([make()])[0]
            after = {key: server.run("HGETALL", key) for key in sorted(server.run("KEYS", "*"))}
        finally:
            store.close()
        assert goes_on is not isinstance(answer, OperationFailed)
        if not goes_on:
            assert "maxmemory" in str(answer)
            assert before == after


def test_waiting_in_this_process() -> None:
    """There is nobody to wait for: the answer is as many as were asked for."""
    assert 2 == Wait(2, 50).apply(Table(), 0.0)
    assert 1 == Wait(2, 50).parse(1)
