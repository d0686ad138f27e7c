"""Sessions of other packages: what is carried over, and that reading them runs nobody's code."""

import gzip
import json
import os
import pickle
import tracemalloc
import zlib
from datetime import UTC, datetime
from decimal import Decimal
from functools import partial
from typing import Any
from uuid import UUID

import msgspec
import pytest

from failsoft.errors import SessionUnavailable
from failsoft.runtime import Runtime
from failsoft.sessions.companion import Remembered
from failsoft.sessions.imported import Expire, Fetch, Importer, importer_of
from failsoft.sessions.view import SessionView
from failsoft.settings import Settings
from failsoft.stores import MemoryStore
from tests.core.sessions.sites import Site, flights

VALUES: dict[str, Any] = {
    "cart": [{"sku": "a-1", "count": 2}],
    "since": datetime(2026, 11, 23, 4, 5, tzinfo=UTC),
    "total": Decimal("12.30"),
    "ticket": UUID(int=7),
    "_auth_user_id": "42",
}


class Planted:
    """What an attacker who can write to the store would put there."""

    def __reduce__(self) -> Any:
        return os.mkdir, ("/tmp/failsoft-planted",)  # noqa: S108 - must never come to be


@pytest.mark.parametrize("source", ["django-cache", "django-redis"])
@pytest.mark.parametrize("protocol", [4, 5])
def test_reads_what_djangos_caches_hold(source: str, protocol: int) -> None:
    """A pickled dict of plain values, in the protocols that supported versions write, comes out as it was."""
    assert VALUES == Importer(source).read(pickle.dumps(VALUES, protocol))


@pytest.mark.parametrize("compress", [bytes, zlib.compress, gzip.compress, partial(zlib.compress, level=1)])
@pytest.mark.parametrize(
    "write",
    [
        pickle.dumps,
        partial(pickle.dumps, protocol=0),
        partial(pickle.dumps, protocol=1),
        msgspec.msgpack.encode,
        lambda values: json.dumps(values).encode(),
    ],
)
def test_reads_what_django_redis_makes(write: Any, compress: Any) -> None:
    """Whatever serializer and compressor it was set up with, of those that need no other package."""
    values = {"cart": [1, {"sku": "x" * 1000}], "_auth_user_id": "42"}
    assert values == Importer("django-redis").read(compress(write(values)))


@pytest.mark.parametrize("data", [zlib.compress(b"[" * 8_000_000, 1), zlib.compress(b"{}")[:-4], b"\x78\x9cgarbage"])
def test_what_cannot_be_decompressed_is_none(data: bytes) -> None:
    """What would become too long, or does not end, is as if it were not there; no more than a session is ever made of it."""
    tracemalloc.start()
    assert None is Importer("django-redis").read(data)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 5_000_000


@pytest.mark.parametrize("value", [Planted(), print, os.system, object()])
def test_a_pickle_that_names_code_is_not_read(value: Any) -> None:
    """Neither called nor even imported; the session counts as not there."""
    assert None is Importer("django-cache").read(pickle.dumps({"x": value}))
    assert not os.path.exists("/tmp/failsoft-planted")  # noqa: S108 - as above


@pytest.mark.parametrize(
    "data", [b"", b"\x81", b"garbage", b"\x00" * 100, pickle.dumps([1]), pickle.dumps({1: 2}), b"1" * 2_000_000]
)
def test_what_is_no_session_is_none(data: bytes) -> None:
    """Damaged, of another shape, or too long: as if it were not there."""
    assert None is Importer("django-redis").read(data)
    assert None is Importer("flask-session").read(data)


@pytest.mark.parametrize("write", [msgspec.msgpack.encode, lambda values: json.dumps(values).encode()])
def test_reads_what_flask_session_holds(write: Any) -> None:
    """In either of its formats."""
    values = {"cart": [1, 2], "_user_id": "7", "_permanent": True}
    assert values == Importer("flask-session").read(write(values))


def test_a_pickle_in_flask_sessions_place_is_not_read() -> None:
    """Flask-Session falls back to pickle for what it cannot decode."""
    assert None is Importer("flask-session").read(pickle.dumps({"x": Planted()}))
    assert not os.path.exists("/tmp/failsoft-planted")  # noqa: S108 - as above


@pytest.mark.parametrize(
    ("source", "cookie", "key"),
    [
        ("flask-session", "AbCdEf-12_34", "session:AbCdEf-12_34"),
        ("flask-session", "AbCdEf-12_34.c2lnbmF0dXJl", "session:AbCdEf-12_34"),
        ("django-cache", "a" * 32, ":1:django.contrib.sessions.cache" + "a" * 32),
        ("flask-session", "short", None),
        ("flask-session", "with space", None),
        ("flask-session", "x" * 129, None),
        ("django-redis", "../../other:key*", None),
    ],
)
def test_where_a_cookie_leads(source: str, cookie: str, key: str | None) -> None:
    """Only what has the form of the other package's ids, so that a cookie names no other key."""
    assert key == Importer(source).key_of(cookie)


def test_the_prefix_can_be_another() -> None:
    """As the other package's settings have it."""
    assert "mine:AbCdEfGh" == Importer("flask-session", "mine:").key_of("AbCdEfGh")


@pytest.mark.parametrize(("source", "key"), [("flask-session", "_user_id"), ("django-redis", "_auth_user_id")])
def test_who_is_logged_in(source: str, key: str) -> None:
    """Whom the framework calls the user becomes the principal, as text."""
    assert ("5", None) == (Importer(source).subject({key: 5}), Importer(source).subject({}))


def test_off_by_default() -> None:
    """Without the setting, cookies of other packages lead nowhere."""
    assert None is importer_of(Settings())


class _Importing:
    """A runtime on a store in which another package left a session."""

    def __init__(self, **settings: Any) -> None:
        self.store = MemoryStore()
        self.runtime = Runtime(
            Settings(sessions=True, secret="s" * 40, session_import="flask-session", **settings), store=self.store
        )
        self.held: dict[str, bytes] = {"session:old-session": msgspec.msgpack.encode({"_user_id": "7", "cart": [1]})}

    def request(self, cookies: dict[str, str], act: Any) -> list[str]:
        """One request; the cookies that it is answered with."""
        sessions = self.runtime.sessions
        assert sessions is not None
        session = sessions.open("; ".join(f"{name}={value}" for name, value in cookies.items()))
        held = self.held

        class Fetching(Fetch):
            def apply(self, table: Any, now: float) -> bytes | None:
                return held.get(self.keys[0])

        class Expiring(Expire):
            def apply(self, table: Any, now: float) -> bool:
                held.pop(self.keys[0], None)
                return True

        with pytest.MonkeyPatch.context() as patch:
            patch.setattr("failsoft.sessions.loading.Fetch", Fetching)
            patch.setattr("failsoft.sessions.saving.Expire", Expiring)
            act(SessionView(session, "flask"))
            return sessions.save(session)


@pytest.mark.parametrize(("secure", "deleted"), [(True, ["session"]), (False, [])])
def test_the_other_packages_cookie_goes(secure: bool, deleted: list[str]) -> None:
    """Where ours has another name: it would lead to what was carried over once more, after a logout for example."""
    world = _Importing(cookie_secure=secure)
    answered = world.request({"session": "old-session"}, lambda view: view["cart"])
    assert deleted == [cookie.partition("=")[0] for cookie in answered if "Max-Age=0" in cookie]
    assert {} == world.held


@pytest.mark.parametrize("secure", [True, False])
def test_a_logout_at_the_first_request(secure: bool) -> None:
    """It ends the session of the other package: the next request is nobody's."""
    world = _Importing(cookie_secure=secure)
    answered = world.request({"session": "old-session"}, lambda view: view.logout())
    assert {} == world.held
    assert "session" in [cookie.partition("=")[0] for cookie in answered if "Max-Age=0" in cookie]
    found: list[Any] = []
    world.request({"session": "old-session"}, lambda view: found.append((view.principal, dict(view))))
    assert [(None, {})] == found


def test_what_was_revoked_is_not_carried_over() -> None:
    """Who has ended all their sessions means those of the other package too."""
    world = _Importing()
    sessions = world.runtime.sessions
    assert sessions is not None
    sessions.subjects.revoke_all("7")
    found: list[Any] = []
    world.request({"session": "old-session"}, lambda view: found.append((view.principal, dict(view))))
    assert [(None, {})] == found
    assert {} == world.held


@pytest.mark.parametrize("away", ["all", "sessions.expire"])
@pytest.mark.parametrize("by_hand", [False, True])
def test_a_logout_while_the_store_is_away(away: str, by_hand: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    """It is refused, since nothing could make up for it, and the browser keeps all that another attempt needs: a remember cookie's seal."""
    site = Site(session_import="flask-session")
    earlier = site.browser("7")
    handle = (earlier.cookie or "")[:16]
    browser = site.browser()
    browser.jar["__Host-session"] = "old-session"
    name = site.sessions.remember_style.full_name
    browser.jar[name] = site.sessions.remember_seals.pack(Remembered(subject="7", first=handle, newest=handle))
    before = dict(browser.jar)
    monkeypatch.setattr(Fetch, "apply", lambda self, table, now: msgspec.msgpack.encode({"cart": [1]}))
    request = browser.request(eager=True)
    request.view.logout()
    with site.store.away() if away == "all" else site.store.failing(away):
        if by_hand:
            with pytest.raises(SessionUnavailable):
                site.sessions.save(request.session)
        else:
            assert 503 == request.finish()
            assert before == browser.jar
            request = browser.request(eager=True)
            request.view.logout()
    assert 200 == request.finish()
    assert ({}, []) == (browser.jar, site.sessions.subjects.list("7"))


def test_a_session_after_a_logout_that_was_not_taken(monkeypatch: pytest.MonkeyPatch) -> None:
    """What was begun after the logout is stored by the second attempt, under the id that it may be stored under already."""
    site = Site(session_import="flask-session")
    browser = site.browser()
    browser.jar["__Host-session"] = "old-session"
    monkeypatch.setattr(Fetch, "apply", lambda self, table, now: msgspec.msgpack.encode({"cart": [1]}))
    request = browser.request(eager=True)
    request.view.logout()
    request.view.login("7")
    with site.store.failing("sessions.expire"), pytest.raises(SessionUnavailable):
        site.sessions.save(request.session)
    request.view["b"] = 2
    assert 200 == request.finish()
    assert [(browser.cookie or "")[:16]] == [one.handle for one in site.sessions.subjects.list("7")]
    with browser.request() as view:
        assert {"b": 2} == dict(view)


def test_only_what_is_remembered_ends(monkeypatch: pytest.MonkeyPatch) -> None:
    """What is being carried over is not logged out of by that, so where it is not stored the browser keeps the cookie."""
    site = Site(session_import="flask-session", cookie_secure=False)
    earlier = site.browser("7")
    handle = earlier.jar["session"][:16]
    browser = site.browser()
    browser.jar["session"] = "old-session"
    browser.jar["session-remember"] = site.sessions.remember_seals.pack(
        Remembered(subject="7", first=handle, newest=handle)
    )
    monkeypatch.setattr(Fetch, "apply", lambda self, table, now: msgspec.msgpack.encode({"cart": [1]}))
    request = browser.request(eager=True)
    request.session.unremember()
    with site.store.failing("sessions.create"):
        assert 503 == request.finish()
    assert ("old-session", []) == (browser.jar.get("session"), site.sessions.subjects.list("7"))


@pytest.mark.parametrize("user", ["", "7" * 256])
def test_a_user_who_cannot_be(user: str, caplog: pytest.LogCaptureFixture) -> None:
    """What the other package calls its user is no subject of ours: what the session holds is carried over, and nobody is logged in."""
    world = _Importing()
    world.held["session:old-session"] = msgspec.msgpack.encode({"_user_id": user, "cart": [1]})
    found: list[Any] = []
    answered = world.request({"session": "old-session"}, lambda view: found.append((view.principal, view["cart"])))
    assert [(None, [1])] == found
    assert {"__Host-session", "session"} <= {cookie.partition("=")[0] for cookie in answered}
    assert {} == world.held
    assert "without its user" in caplog.text


def test_the_cap_counts_what_is_carried_over(monkeypatch: pytest.MonkeyPatch) -> None:
    """It is a login like any other: the user's oldest session goes."""
    site = Site(session_cap=1, session_import="flask-session")
    earlier = site.browser("7")
    site.clock.advance(1)
    browser = site.browser()
    browser.jar["__Host-session"] = "old-session"
    monkeypatch.setattr(Fetch, "apply", lambda self, table, now: msgspec.msgpack.encode({"_user_id": "7"}))
    with browser.request(eager=True) as view:
        assert view.principal is not None
    assert [("fetch",), ("check",), ("enrol", "create"), ("glance", "expire"), ("revoke", "delete")] == flights(site)
    assert [(browser.cookie or "")[:16]] == [one.handle for one in site.sessions.subjects.list("7")]
    with earlier.request() as view:
        assert view.principal is None


@pytest.mark.parametrize(("source", "expected"), [("flask-session", True), ("django-cache", False)])
def test_who_is_believed(source: str, expected: bool) -> None:
    """Of Django's sessions the user is only known when Django has compared the hash of the password."""
    assert expected is Importer(source).vouches
