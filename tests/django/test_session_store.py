"""`SessionStore` by itself, as Django's own tests have it for every engine: what each method does, in both worlds, on two stores."""

import asyncio
from base64 import b64encode
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from typing import Any
from unittest import mock
from uuid import UUID

import pytest
from django.contrib.sessions.backends.base import CreateError, UpdateError
from django.core.management import call_command
from django.core.signing import TimestampSigner
from django.test import override_settings
from django.utils import timezone

from failsoft.errors import (
    ConfigurationError,
    SessionTooLarge,
    SessionUnavailable,
    SessionValueError,
    StoreUnavailable,
)
from failsoft.testing import FaultyStore
from failsoft_django import get_runtime
from failsoft_django.sessions import SessionEnded, SessionStore
from tests.django.harness import configure
from tests.servers import Valkey

pytestmark = pytest.mark.broad

configure()

SECRET = "a secret of the tests, of forty characters"
AGE = 1_209_600

Calls = Any
"""Calls a method of a store, or its asynchronous twin."""


@pytest.fixture(params=["memory", "redis"])
def url(request: pytest.FixtureRequest, shared_valkey: Valkey) -> str:
    return "memory://" if request.param == "memory" else shared_valkey.url


@pytest.fixture(autouse=True)
def engine(url: str) -> Iterator[None]:
    with override_settings(
        SESSION_ENGINE="failsoft_django.sessions", FAILSOFT={"store": url, "secret": SECRET, "deadline": "5s"}
    ):
        yield


@pytest.fixture(params=["sync", "async"])
def call(request: pytest.FixtureRequest) -> Iterator[Calls]:
    """How a store is asked: directly, or by the twin that has to be awaited."""
    if request.param == "sync":
        yield lambda store, name, *args, **kwargs: getattr(store, name)(*args, **kwargs)
        return
    loop = asyncio.new_event_loop()
    yield lambda store, name, *args, **kwargs: loop.run_until_complete(getattr(store, f"a{name}")(*args, **kwargs))
    loop.close()


@pytest.fixture
def session() -> SessionStore:
    return SessionStore()


def test_new(session):
    """A new session was neither looked at nor changed, is empty and has no key."""
    assert (False, False, True, None) == (session.accessed, session.modified, session.is_empty(), session.session_key)


def test_get_where_nothing_is(session, call):
    """What is not there is None, or the default."""
    assert (None, "meow") == (call(session, "get", "cat"), call(session, "get", "cat", "meow"))
    assert not session.modified


def test_set_and_pop(session, call):
    """What is set can be taken out again, once."""
    session["cat"] = "dog"
    assert session.modified
    assert "dog" == call(session, "pop", "cat")
    assert (True, True) == (session.accessed, session.modified)
    assert None is call(session, "get", "cat")


def test_aset(session):
    """The asynchronous twin of an assignment."""
    asyncio.run(session.aset("cat", "dog"))
    assert (True, "dog") == (session.modified, session["cat"])


@pytest.mark.parametrize("named", [False, True])
def test_pop_with_a_default(session, call, named):
    """To take out what is not there gives the default, and is no change."""
    options: dict[str, Any] = {"default": "none"} if named else {}
    assert "none" == call(session, "pop", "key", *([] if named else ["none"]), **options)
    assert (True, False) == (session.accessed, session.modified)


def test_pop_without_a_default(session, call):
    """Without a default it is a KeyError."""
    with pytest.raises(KeyError):
        call(session, "pop", "key")


def test_setdefault(session, call):
    """The first default stays."""
    assert ["bar", "bar"] == [call(session, "setdefault", "foo", value) for value in ("bar", "baz")]
    assert (True, True) == (session.accessed, session.modified)


def test_update(session, call):
    """Several keys at once."""
    call(session, "update", {"one": 1, "two": 2})
    assert (True, True) == (session.accessed, session.modified)
    assert [1, 2] == [call(session, "get", key) for key in ("one", "two")]


def unseen(**items: Any) -> SessionStore:
    """A session with `items`, as if nobody had looked."""
    session = SessionStore()
    session.update(items)
    session.accessed = session.modified = False
    return session


def test_has_key(call):
    """To ask whether a key is there is access, and no change."""
    session = unseen(key=1)
    assert (True, False) == (call(session, "has_key", "key"), call(session, "has_key", "other"))
    assert "key" in session
    assert (True, False) == (session.accessed, session.modified)


@pytest.mark.parametrize(("name", "expected"), [("keys", ["x"]), ("values", [1]), ("items", [("x", 1)])])
def test_iteration(call, name, expected):
    """To go through it is access, and no change."""
    session = unseen(x=1)
    assert expected == list(call(session, name))
    assert (True, False) == (session.accessed, session.modified)
    assert [] == list(call(SessionStore(), name))


def test_clear():
    """Nothing is left of what Django sees, and that is a change."""
    session = unseen(x=1)
    session.clear()
    assert ([], True, True) == (list(session.items()), session.accessed, session.modified)


def test_save(session, call):
    """A new session is stored although it is empty, and then has a key."""
    call(session, "save")
    assert session.session_key is not None
    assert call(session, "exists", session.session_key) is True
    assert {} == SessionStore(session.session_key).load()
    assert session.modified


def test_save_keeps_what_is_there(session, call):
    """What was saved can still be read, here and elsewhere."""
    session["a"] = "b"
    call(session, "save")
    assert ("b", "b") == (call(session, "get", "a"), SessionStore(session.session_key)["a"])


def test_save_must_create(session, call):
    """What is there already cannot be created."""
    call(session, "save", must_create=True)
    with pytest.raises(CreateError):
        call(session, "save", must_create=True)


def test_create(session, call):
    """To create gives a key that lasts; what was set before and is set afterwards is saved under it."""
    session["a"] = 1
    call(session, "create")
    key = session.session_key
    assert call(session, "exists", key) is True
    session["b"] = 2
    call(session, "save")
    assert (key, {"a": 1, "b": 2}) == (session.session_key, dict(SessionStore(key).items()))


def test_delete(session, call):
    """What was deleted is no more."""
    call(session, "save")
    call(session, "delete", session.session_key)
    assert call(session, "exists", session.session_key) is False


def test_delete_what_is_not(session, call):
    """To delete what nobody has stored does nothing."""
    call(session, "delete")
    call(session, "delete", "1")
    call(session, "delete", "x" * 59)
    call(session, "delete", None)
    assert None is session.session_key


def test_flush(session, call):
    """A session that was flushed is no more, and has no key."""
    session["foo"] = "bar"
    call(session, "save")
    key = session.session_key
    call(session, "flush")
    assert call(session, "exists", key) is False
    assert (None, True, True) == (session.session_key, session.modified, session.accessed)
    assert (True, []) == (session.is_empty(), list(session.items()))


@pytest.mark.parametrize("loaded", [True, False])
def test_cycle_key(session, call, loaded):
    """Another key leads to the same values, and the former one to nothing."""
    session.update({"a": "c", "b": "d"})
    call(session, "save")
    before = session.session_key
    if not loaded:
        session = SessionStore(before)
        assert not hasattr(session, "_session_cache")
    call(session, "cycle_key")
    assert call(session, "exists", before) is False
    assert session.session_key not in (None, before)
    for one in (session, SessionStore(session.session_key)):
        assert {"a": "c", "b": "d"} == dict(one.items())


def test_key_that_cannot_be(call):
    """A session of an impossible key gets a key of its own."""
    session = SessionStore("1")
    call(session, "save")
    assert session.session_key not in (None, "1")
    assert None is session.get("cat")


@pytest.mark.parametrize(("key", "expected"), [("", None), ("1234567", None), ("12345678", "12345678")])
def test_key_length(session, key, expected):
    """Keys of less than eight characters are none."""
    session._session_key = key
    assert expected == session.session_key


def test_key_is_read_only(session):
    """Nobody chooses a key."""
    with pytest.raises(AttributeError):
        session.session_key = session._get_new_session_key()


@pytest.mark.parametrize("key", ["someunknownkey", "x" * 59])
def test_unknown_key_is_not_adopted(call, key):
    """To load an unknown key creates nothing, and the key is forgotten."""
    session = SessionStore(key)
    assert {} == call(session, "load")
    assert None is session.session_key
    assert call(session, "exists", session.session_key) is False
    session["a"] = 1
    call(session, "save")
    assert key != session.session_key
    assert call(session, "exists", key) is False


def test_ended_meanwhile_is_not_written(call):
    """A session that was ended elsewhere is not raised from the dead."""
    first = SessionStore()
    first["a"] = 1
    call(first, "save", must_create=True)
    call(SessionStore(first.session_key), "delete")
    first["a"] = 2
    with pytest.raises(UpdateError) as caught:
        call(first, "save")
    assert isinstance(caught.value, SessionEnded)
    assert {} == call(first, "load")


def test_deleted_by_itself_is_not_written(call):
    """Nor is one that was deleted by whoever saves it."""
    session = SessionStore()
    call(session, "save", must_create=True)
    call(session, "delete")
    with pytest.raises(UpdateError):
        call(session, "save")


# Expiry


def test_default_expiry(session, call):
    """It is ``SESSION_COOKIE_AGE``, also for what ends with the browser."""
    assert AGE == call(session, "get_expiry_age")
    call(session, "set_expiry", 0)
    assert AGE == call(session, "get_expiry_age")


@pytest.mark.parametrize("kind", ["seconds", "timedelta", "datetime"])
def test_custom_expiry(session, call, kind):
    """A number of seconds, a span and a moment are told as they were set."""
    now = timezone.now()
    value: Any = {"seconds": 10, "timedelta": timedelta(seconds=10), "datetime": now + timedelta(seconds=10)}[kind]
    with mock.patch.object(timezone, "now", return_value=now):
        call(session, "set_expiry", value)
    assert now + timedelta(seconds=10) == call(session, "get_expiry_date", modification=now)
    assert 10 == call(session, "get_expiry_age", modification=now)


def test_expiry_reset(session, call):
    """None is as the settings say."""
    for value in (None, 10, None):
        call(session, "set_expiry", value)
    assert AGE == call(session, "get_expiry_age")


@pytest.mark.parametrize("close", [False, True])
def test_expire_at_browser_close(session, call, close):
    """Where nothing was set the setting says it, 0 is yes, and any other number is no."""
    found = []
    with override_settings(SESSION_EXPIRE_AT_BROWSER_CLOSE=close):
        for value in (10, 0, None):
            call(session, "set_expiry", value)
            found.append(call(session, "get_expire_at_browser_close"))
    assert [False, True, close] == found


@pytest.mark.parametrize(
    "value", [-timedelta(seconds=10), datetime(2020, 1, 1, tzinfo=UTC), -10], ids=["span", "moment", "seconds"]
)
def test_past_expiry(session, call, value):
    """What has expired is not read."""
    session["foo"] = "bar"
    call(session, "set_expiry", value)
    call(session, "save")
    if value == -10:
        return  # the store forgets it in a millisecond
    assert not call(SessionStore(session.session_key), "has_key", "foo")


def test_expiry_is_the_records_own(shared_valkey, url, session, call):
    """The store itself forgets a session that lives for an hour."""
    if url == "memory://":
        pytest.skip("looks at a server")
    session["a"] = 1
    call(session, "set_expiry", 3600)
    call(session, "save")
    sessions = get_runtime().sessions
    assert sessions is not None
    assert session.session_key is not None
    key = sessions.record_key(session.session_key[:16])
    assert 3_590_000 < shared_valkey.run("PTTL", key) <= 3_600_000
    call(session, "set_expiry", None)
    call(session, "save")
    assert AGE - 10 < shared_valkey.run("TTL", key) <= AGE


# Beside the sessions


def test_encode(session):
    """What the base offers for other engines works."""
    assert {"a": 1} == session.decode(session.encode({"a": 1}))


@pytest.mark.parametrize("text", [b64encode(b"flask:what").decode(), "bad:encoded:value"])
def test_decode_what_is_damaged(session, text, caplog):
    """What is damaged is empty, and the log says so."""
    assert {} == session.decode(text)
    assert [("django.security.SuspiciousSession", "Session data corrupted")] == [
        (one.name, one.getMessage()) for one in caplog.records
    ]


def test_decode_what_the_serializer_refuses(session):
    """Signed nonsense is empty."""
    assert {} == session.decode(TimestampSigner(salt=session.key_salt).sign("nonsense"))


def test_test_cookie(session, call):
    """The test cookie is Django's own affair."""
    call(session, "set_test_cookie")
    assert call(session, "test_cookie_worked") is True
    session.save()
    assert {"django:testcookie"} == {*session.session.names()}
    call(session, "delete_test_cookie")
    assert call(session, "test_cookie_worked") is False


def test_clearsessions(call):
    """There is nothing to clear: every key expires."""
    call_command("clearsessions")
    call(SessionStore, "clear_expired")


def test_cache_of_the_base(session):
    """What packages know of the base's insides holds: the cache is there once loaded, can be replaced, and forgotten."""
    session["a"] = 1
    session.save()
    session = SessionStore(session.session_key)
    assert not hasattr(session, "_session_cache")
    assert {"a": 1} == dict(session._session)
    session._session_cache = {"b": 2}
    assert {"b": 2} == dict(session._session_cache)
    del session._session_cache
    assert {"a": 1} == dict(session.items())


# What is new


def test_values_of_many_kinds(session):
    """Values that Django's serializer would refuse come back as they were."""
    values = {
        "moment": datetime(2026, 11, 23, 5, tzinfo=UTC),
        "price": Decimal("1.10"),
        "id": UUID(int=1),
        "pair": (1, 2),
        "bytes": b"\x00",
    }
    session.update(values)
    session.save()
    assert values == dict(SessionStore(session.session_key).items())


def test_values_that_cannot_be(session):
    """What cannot be stored is refused where it is assigned, and named."""
    with pytest.raises(SessionValueError, match="'thing'"):
        session["thing"] = object()
    with pytest.raises(SessionTooLarge, match="big"):
        session["big"] = "x" * 70_000


def test_change_inside(session, call):
    """A change inside of a value needs no flag."""
    session["list"] = []
    call(session, "save")
    other = SessionStore(session.session_key)
    other["list"].append(1)
    assert other.modified
    call(other, "save")
    assert [1] == SessionStore(session.session_key)["list"]


def test_keys_of_several_writers(session, call):
    """Two that write different keys at the same time lose nothing."""
    session["n"] = 0
    session.save()
    first, second = (SessionStore(session.session_key) for _ in range(2))
    assert (0, 0) == (first["n"], second["n"])
    first["a"], second["b"] = 1, 2
    call(first, "save")
    call(second, "save")
    assert {"n": 0, "a": 1, "b": 2} == dict(SessionStore(session.session_key).items())


def test_away(session, call):
    """While the store is away everything raises what answers 503, and no key is forgotten."""
    session["a"] = 1
    session.save()
    key = session.session_key
    store = get_runtime().store = FaultyStore()
    with store.away():
        other = SessionStore(key)
        for name, *args in (
            ("get", "a"),
            ("load",),
            ("exists", key),
            ("save",),
            ("delete",),
            ("cycle_key",),
            ("flush",),
        ):
            other = SessionStore(key)
            with pytest.raises(SessionUnavailable):
                call(other, name, *args)
            if name != "flush":
                assert (key, False) == (other.session_key, other.is_empty())
        with pytest.raises(SessionUnavailable):
            call(SessionStore(), "save")


@pytest.mark.parametrize("own", [False, True], ids=["by-key", "own"])
def test_delete_that_is_not_taken(session, call, own):
    """What was loaded and is not deleted then lives, so whoever deletes it hears of it, and can do it again."""
    store = get_runtime().store = FaultyStore()
    session["a"] = 1
    session.save()
    key = session.session_key
    other = SessionStore(key) if own else SessionStore()
    with store.failing("sessions.delete"), pytest.raises(SessionUnavailable):
        call(other, "delete", *([] if own else [key]))
    assert 1 == SessionStore(key)["a"]
    if own:
        other["b"] = 2
        call(other, "save")
    call(other, "delete", *([] if own else [key]))
    assert not SessionStore(key).exists(key)


def test_flush_that_is_not_taken(session, call):
    """Nor is a flush by hand done when it is only promised; flushed again, it is over."""
    store = get_runtime().store = FaultyStore()
    session["a"] = 1
    session.save()
    key = session.session_key
    other = SessionStore(key)
    for failure in (store.failing("sessions.delete"), store.away()):
        assert 1 == SessionStore(key).get("a", other.get("a"))
        with failure, pytest.raises(SessionUnavailable):
            call(other, "flush")
    assert (1, []) == (SessionStore(key)["a"], other.owed)
    call(other, "flush")
    assert (None, {}) == (other.session_key, dict(SessionStore(key).items()))


def test_a_save_whose_answer_is_lost(session, call, monkeypatch):
    """Whoever saves once more stores it under the key that they were told, and there is no other session of it."""
    store = get_runtime().store = FaultyStore()
    flight, aflight = store.flight, store.aflight

    def lost(operations):
        flight(operations)
        raise StoreUnavailable("timeout")

    async def alost(operations):
        await aflight(operations)
        raise StoreUnavailable("timeout")

    session["a"] = 1
    session.login("alice")
    keys = []
    with monkeypatch.context() as patched:
        patched.setattr(store, "flight", lost)
        patched.setattr(store, "aflight", alost)
        for _ in range(2):
            with pytest.raises(SessionUnavailable):
                call(session, "save")
            keys.append(session.session_key)
    call(session, "save")
    assert {session.session_key} == set(keys)
    assert {"a": 1} == call(SessionStore(session.session_key), "load")
    assert [session.session_key[:16]] == [one.handle for one in get_runtime().sessions.subjects.list("alice")]


class _Slow(FaultyStore):
    """A store that lets other tasks run before it answers."""

    async def aflight(self, operations: Any) -> Any:
        answers = await super().aflight(operations)
        await asyncio.sleep(0)
        return answers


@pytest.mark.parametrize(("one", "two"), [("asave", "asave"), ("asave", "acreate"), ("acreate", "acreate")])
def test_two_tasks_save(session, one, two):
    """What two tasks of one request begin at the same time is one session, which a flush ends."""
    get_runtime().store = _Slow()

    async def use() -> None:
        session.login("alice")
        await asyncio.gather(getattr(session, one)(), getattr(session, two)())

    session.load()
    asyncio.run(use())
    subjects = get_runtime().sessions.subjects
    assert [session.session_key[:16]] == [info.handle for info in subjects.list("alice")]
    session.flush()
    assert [] == subjects.list("alice")


def test_two_tasks_create(session):
    """The second is told that it is there, as it would be after the first."""
    get_runtime().store = _Slow()

    async def use() -> None:
        with pytest.raises(CreateError):
            await asyncio.gather(session.asave(must_create=True), session.asave(must_create=True))

    asyncio.run(use())
    assert session.exists(session.session_key)


def test_needs_the_setting():
    """Where sessions were turned off, a store says what to write."""
    with (
        override_settings(FAILSOFT={"secret": SECRET, "sessions": False}),
        pytest.raises(ConfigurationError, match="SESSION_ENGINE is failsoft's"),
    ):
        SessionStore().save()
