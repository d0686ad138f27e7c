"""Listing and ending a user's sessions."""

import asyncio
from typing import Any

import pytest

from failsoft.errors import SessionConflict, SessionUnavailable
from failsoft.events import Event, SessionGone, SessionRevoked, SubjectRevoked
from failsoft.exchange.policy import enter, leave
from failsoft.runtime import Runtime
from failsoft.sessions.manage import Subjects
from failsoft.testing import FaultyStore, ManualClock
from tests.core.sessions.sites import Browser, make_site


class Site:
    """An application, its clock and its store, and what it tells."""

    def __init__(self, **settings: Any) -> None:
        self.clock = ManualClock()
        self.store = FaultyStore(clock=self.clock)
        self.runtime: Runtime = make_site(self.store, self.clock, **settings)
        self.events: list[Event] = []
        self.runtime.listen(self.events.append)
        assert self.runtime.sessions is not None
        self.sessions = self.runtime.sessions
        self.subjects: Subjects = self.sessions.subjects

    def log_in(self, subject: str, agent: str = "test/1.0") -> Browser:
        browser = Browser(self.runtime, agent)
        with browser.request() as view:
            view.login(subject)
        self.clock.advance(1)
        return browser

    def who(self, browser: Browser) -> str | None:
        with browser.request() as view:
            return None if view.principal is None else view.principal.subject


@pytest.fixture
def site() -> Site:
    return Site()


def handle_of(browser: Browser) -> str:
    return (browser.cookie or "")[:16]


def test_list(site: Site) -> None:
    """A user's sessions come with their times and devices, the oldest login first, the current one marked."""
    began = site.clock.time()
    first, second = site.log_in("alice", "one"), site.log_in("alice", "two")
    site.log_in("bob")
    site.clock.advance(100)
    request = second.request(eager=True)
    found = site.subjects.list("alice", request.session)
    expected = [
        (handle_of(first), began, began, "one", False),
        (handle_of(second), began + 1, began + 103, "two", True),
    ]
    assert expected == [tuple(one) for one in found]
    assert (2, 1, 0) == tuple(map(site.subjects.count, ("alice", "bob", "carol")))
    assert found == asyncio.run(site.subjects.alist("alice", request.session))
    assert 2 == asyncio.run(site.subjects.acount("alice"))


def test_list_of_what_has_ended(site: Site) -> None:
    """A session that was logged out of, or ran out, is listed no more."""
    first, second = site.log_in("alice"), site.log_in("alice")
    with first.request() as view:
        view.logout()
    assert [handle_of(second)] == [one.handle for one in site.subjects.list("alice")]
    site.clock.advance(site.sessions.idle / 1000 + 1)
    assert [] == list(site.subjects.list("alice"))


@pytest.mark.parametrize(
    ("agent", "shown"), [("x" * 300, "x" * 200), ("a\x01\nb\x7f", "ab"), ("", ""), ("ü \u202e", "ü ")]
)
def test_devices(site: Site, agent: str, shown: str) -> None:
    """A device is what the client called itself, as far as it can be shown, and no longer than a line."""
    site.log_in("alice", agent)
    assert [shown] == [one.device for one in site.subjects.list("alice")]


def test_devices_are_sealed() -> None:
    """Where sessions are encrypted, so is the list's description; without the key it is not shown."""
    site = Site(session_encrypt=True)
    site.log_in("alice", "a device")
    assert ["a device"] == [one.device for one in site.subjects.list("alice")]
    other = make_site(site.store, site.clock, session_encrypt=True, secret="another " * 5)
    assert other.sessions is not None
    assert [""] == [one.device for one in other.sessions.subjects.list("alice")]


def test_a_long_list(site: Site) -> None:
    """Many sessions are looked at in several flights, none too long."""
    browsers = [site.log_in("alice") for _ in range(450)]
    site.store.flights.clear()
    assert list(map(handle_of, browsers)) == [one.handle for one in site.subjects.list("alice")]
    assert [1, 200, 200, 50] == [len(flight) for flight in site.store.flights]
    site.store.flights.clear()
    assert 450 == site.subjects.revoke_all("alice")
    assert [1, 200, 200, 200, 200, 50, 50] == [len(flight) for flight in site.store.flights]


@pytest.mark.parametrize("asynchronous", [False, True], ids=["sync", "async"])
def test_revoke(site: Site, asynchronous: bool) -> None:
    """One session ends, record and mark; the others go on."""
    first, second = site.log_in("alice"), site.log_in("alice")

    def revoke(subject: str, handle: str) -> bool:
        if asynchronous:
            return asyncio.run(site.subjects.arevoke(subject, handle))
        return site.subjects.revoke(subject, handle)

    site.events.clear()
    assert revoke("alice", handle_of(first))
    assert [SessionRevoked(handle_of(first), "alice", "revoked")] == site.events
    assert None is site.subjects.look(handle_of(first))
    assert [None, "alice"] == [site.who(first), site.who(second)]
    assert not revoke("alice", handle_of(first))
    assert not any(revoke("alice", handle) for handle in ("", "*", "x" * 16, "x" * 17, "ü" * 16))


def test_the_mark_alone_is_enough(site: Site) -> None:
    """A record that comes back after its session was revoked, as after a failover, opens nothing."""
    browser = site.log_in("alice")
    with site.store.failing("sessions.delete"), pytest.raises(SessionUnavailable):
        site.subjects.revoke("alice", handle_of(browser))
    assert site.subjects.look(handle_of(browser)) is not None
    site.events.clear()
    assert site.who(browser) is None
    assert [SessionGone(handle_of(browser), "alice", "revoked")] == site.events


def test_revoke_leaves_others_alone(site: Site) -> None:
    """Another user's handle revokes nothing, and leaves no trace in the list of who gave it."""
    alice, bob = site.log_in("alice"), site.log_in("bob")
    anonymous = Browser(site.runtime)
    with anonymous.request() as view:
        view["a"] = 1
    for other in (bob, anonymous):
        assert not site.subjects.revoke("alice", handle_of(other))
    site.store.flights.clear()
    for number in range(20):
        site.subjects.revoke("alice", f"{number:016}")
    assert {("sessions.list", "sessions.look")} == set(site.store.flights)
    assert ["alice", "bob"] == [site.who(alice), site.who(bob)]
    with anonymous.request() as view:
        assert {"a": 1} == dict(view)


def test_a_login_that_was_refused(site: Site) -> None:
    """Of two logins at once the one that was refused is in nobody's list, and who tried it cannot end the other's session."""
    browser = Browser(site.runtime)
    with browser.request() as view:
        view["a"] = 1
    first, second = browser.request(eager=True), browser.request(eager=True)
    first.view.login("alice")
    second.view.login("bob")
    assert (200, 409) == (first.finish(), second.finish())
    assert [[handle_of(browser)], []] == [[one.handle for one in site.subjects.list(who)] for who in ("alice", "bob")]
    assert not site.subjects.revoke("bob", handle_of(browser))
    site.subjects.revoke_all("bob")
    assert "alice" == site.who(browser)


def test_revoke_what_is_not_listed(site: Site) -> None:
    """A session that fell off its user's list is known by its record."""
    browser = site.log_in("alice")
    with site.store._memory.table.lock:
        site.store._memory.table.delete(site.sessions.subject_key("alice"))
    assert [] == list(site.subjects.list("alice"))
    assert site.subjects.revoke("alice", handle_of(browser))
    assert site.who(browser) is None


@pytest.mark.parametrize("asynchronous", [False, True], ids=["sync", "async"])
def test_revoke_all(site: Site, asynchronous: bool) -> None:
    """All of a user's sessions end, and another login begins a new one, even at the same moment as far as clocks can tell."""
    browsers = [site.log_in("alice"), site.log_in("alice")]
    bob = site.log_in("bob")
    site.events.clear()
    count = asyncio.run(site.subjects.arevoke_all("alice")) if asynchronous else site.subjects.revoke_all("alice")
    assert 2 == count
    expected = [SessionRevoked(handle_of(one), "alice", "revoked") for one in browsers]
    assert [*expected, SubjectRevoked(None, "alice", 2)] == site.events
    assert [None, None, "bob"] == [site.who(one) for one in (*browsers, bob)]
    site.clock.advance(0.000_001)
    assert "alice" == site.who(site.log_in("alice"))
    assert 1 == site.subjects.count("alice")


def test_revoke_all_whatever_becomes_of_the_records(site: Site) -> None:
    """Sessions are dead although their records could not be deleted, or are in no list."""
    first, second = site.log_in("alice"), site.log_in("alice")
    with site.store._memory.table.lock:
        site.store._memory.table.delete(site.sessions.subject_key("alice"))
    with site.store.failing("sessions.delete"):
        assert 0 == site.subjects.revoke_all("alice")
    assert [None, None] == [site.who(first), site.who(second)]


def test_logout_during_revocation(site: Site) -> None:
    """A request that began before all was revoked writes nothing any more."""
    browser = site.log_in("alice")
    request = browser.request(eager=True)
    site.subjects.revoke_all("alice")
    request.view["a"] = 1
    assert 409 == request.finish()
    assert site.who(browser) is None


@pytest.mark.parametrize("asynchronous", [False, True], ids=["sync", "async"])
def test_revoke_others(site: Site, asynchronous: bool) -> None:
    """All others end; this one goes on under another id, as long as it would have."""
    others = [site.log_in("alice"), site.log_in("alice")]
    mine = site.log_in("alice")
    before, meta = mine.cookie, None
    thief = Browser(site.runtime)
    thief.jar = dict(mine.jar)
    request = mine.request()
    request.view["a"] = 1
    meta = request.session.meta
    site.clock.advance(50)
    subjects = site.subjects
    count = (
        asyncio.run(subjects.arevoke_others(request.session))
        if asynchronous
        else subjects.revoke_others(request.session)
    )
    assert 2 == count
    request.view["b"] = 2
    assert 200 == request.finish()
    assert mine.cookie not in (None, before)
    assert None is site.who(thief)  # at once, before the new id was ever used
    assert [None, None, "alice"] == [site.who(one) for one in (*others, mine)]
    with mine.request() as view:
        assert {"a": 1, "b": 2} == dict(view)
        assert meta is not None
        assert view.session.meta is not None
        assert meta.deadline == view.session.meta.deadline
    assert 1 == subjects.count("alice")


def test_revoke_others_without_a_request(site: Site) -> None:
    """A session that was opened by hand is written by whoever opened it."""
    site.log_in("alice")
    mine = site.log_in("alice")
    session = site.sessions.open("; ".join(f"{name}={value}" for name, value in mine.jar.items()))
    assert 1 == site.subjects.revoke_others(session)
    mine.take([("Set-Cookie", cookie) for cookie in site.sessions.save(session)])
    assert "alice" == site.who(mine)
    assert 1 == site.subjects.count("alice")


def test_revoke_others_after_a_revocation(site: Site) -> None:
    """Who was revoked meanwhile does not come back by revoking the others."""
    mine = site.log_in("alice")
    request = mine.request(eager=True)
    site.subjects.revoke("alice", handle_of(mine))
    with pytest.raises(SessionConflict):
        site.subjects.revoke_others(request.session)
    request.finish()
    assert site.who(mine) is None


def test_revoke_others_of_nobody(site: Site) -> None:
    """Where nobody is logged in, or only since a moment ago, it is a mistake."""
    request = Browser(site.runtime).request()
    with pytest.raises(ValueError, match="nobody is logged in"):
        site.subjects.revoke_others(request.session)
    request.view.login("alice")
    with pytest.raises(ValueError, match="save the session before"):
        site.subjects.revoke_others(request.session)


def test_away(site: Site) -> None:
    """While the store is away nothing is listed and nothing is taken for revoked."""
    browser = site.log_in("alice")
    request = browser.request(eager=True)
    with site.store.away():
        for call in (
            lambda: site.subjects.list("alice"),
            lambda: site.subjects.count("alice"),
            lambda: site.subjects.look(handle_of(browser)),
            lambda: site.subjects.revoke("alice", handle_of(browser)),
            lambda: site.subjects.revoke_all("alice"),
            lambda: site.subjects.revoke_others(request.session),
        ):
            with pytest.raises(SessionUnavailable):
                call()
    assert "alice" == site.who(browser)


@pytest.mark.parametrize("asynchronous", [False, True])
def test_away_for_another_application(site: Site, asynchronous: bool) -> None:
    """That a request waited in vain for its application's store says nothing of another application's store of that name."""
    site.log_in("alice")
    other = Site(limits=["9/minute"])
    with other.store.away("timeout"):
        request = Browser(other.runtime).request()
    site.store.flights.clear()
    token = enter(request.exchange)
    try:
        count = asyncio.run(site.subjects.acount("alice")) if asynchronous else site.subjects.count("alice")
        assert (1, 2) == (count, len(site.store.flights))
        with site.store.away("timeout"), pytest.raises(SessionUnavailable):
            site.subjects.count("alice")
        assert 1 == site.subjects.count("alice")
        with pytest.raises(SessionUnavailable):  # its own is still asked nothing
            other.subjects.count("alice")
    finally:
        leave(token)


def test_away_with_a_snapshot() -> None:
    """A snapshot is no session whose others could be revoked."""
    site = Site(session_snapshot=60)
    browser = site.log_in("alice")
    with site.store.away(), pytest.raises(SessionUnavailable):
        site.subjects.revoke_others(browser.request().session)


def test_too_few_replicas(monkeypatch: pytest.MonkeyPatch) -> None:
    """With `session_wait`, a revocation that too few replicas confirm is told to be repeated; it holds nevertheless."""
    from failsoft.sessions.operations import Wait

    site = Site(session_wait=1)
    first, second = site.log_in("alice"), site.log_in("alice")
    monkeypatch.setattr(Wait, "apply", lambda self, table, now: 0)
    with pytest.raises(SessionUnavailable) as raised:
        site.subjects.revoke("alice", handle_of(first))
    assert "too few replicas" in str(raised.value.problem.detail)
    with pytest.raises(SessionUnavailable):
        site.subjects.revoke_all("alice")
    assert [None, None] == [site.who(first), site.who(second)]
