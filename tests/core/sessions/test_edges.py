"""Where two things go wrong at once, or somebody helps them to."""

from collections.abc import Sequence
from typing import Any

import pytest

from failsoft.errors import (
    OperationFailed,
    SessionConflict,
    SessionTooLarge,
    SessionUnavailable,
    SessionValueError,
    StoreUnavailable,
)
from failsoft.events import SessionGone, SessionRevoked, SessionRolledBack
from failsoft.exchange import SUBJECT, Operation
from failsoft.sessions.companion import SEAL_TRUSTED
from failsoft.sessions.ids import SessionId
from failsoft.sessions.live import require_live_session
from failsoft.sessions.loading import loading
from failsoft.sessions.record import unpack_principal
from failsoft.sessions.state import State
from tests.core.sessions.sites import Browser, Site


@pytest.fixture
def site() -> Site:
    return Site()


def failing(site: Site, monkeypatch: pytest.MonkeyPatch, script: str) -> None:
    """The store answers one kind of operation with an error."""
    inner = site.store.flight

    def flight(operations: Sequence[Operation]) -> list[Any]:
        answers = inner(operations)
        return [
            OperationFailed("made up") if one.script.name == f"sessions.{script}" else answer
            for one, answer in zip(operations, answers, strict=True)
        ]

    monkeypatch.setattr(site.store, "flight", flight)


def test_a_login_that_could_not_be_listed(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    """It is not acknowledged, but the browser gets the id that the session has now: it would be left with a dead one."""
    browser = site.browser(cart=1)
    request = browser.request()
    request.view.login("alice")
    failing(site, monkeypatch, "enrol")
    assert 503 == request.finish()
    monkeypatch.undo()
    site.clock.advance(site.sessions.grace / 1000)
    with browser.request() as view:
        assert (1, "alice") == (view["cart"], view.principal and view.principal.subject)


def test_an_answer_to_a_rotation_is_lost(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    """The browser never gets its new id: the former one goes on, long after the grace, until the new one is used."""
    browser = site.browser("alice", a=1)
    request = browser.request()
    request.view.rotate()
    inner = site.store.flight

    def lost(operations: Sequence[Operation]) -> list[Any]:
        inner(operations)
        raise StoreUnavailable("timeout")

    monkeypatch.setattr(site.store, "flight", lost)
    assert (503, []) == (request.finish(), request.cookies)
    monkeypatch.undo()
    site.clock.advance(10 * site.sessions.grace / 1000)
    with browser.request() as view:
        assert (1, "alice") == (view["a"], view.principal and view.principal.subject)


def test_a_strict_rotation(site: Site) -> None:
    """The id before is told "moved" at once, though the new one was never used, and is dead after the grace."""
    browser = site.browser("alice", a=1)
    copied = dict(browser.jar)
    with browser.request() as view:
        view.rotate(strict=True)
    thief = Browser(site.runtime)
    thief.jar = copied
    request = thief.request()
    assert request.view.principal is None
    assert State.MOVED is request.session.state
    site.clock.advance(site.sessions.grace / 1000)
    assert None is thief.request().view.principal
    with browser.request() as view:
        assert "alice" == view.principal.subject
        view.rotate()  # of another request, not strict
    site.clock.advance(10 * site.sessions.grace / 1000)
    thief.jar = copied
    assert None is thief.request().view.principal


@pytest.mark.parametrize("passed", ["deadline", "age"])
def test_an_old_seal_uses_up_nobodys_limits(passed: str) -> None:
    """Who kept the seal of a session that is dead could otherwise refuse its user for ever."""
    site = (
        Site(session_absolute="7d", session_idle="7d")
        if passed == "age"
        else Site(session_absolute=3600, session_idle=3600)
    )
    browser = site.browser("alice")
    assert "alice" == browser.request().exchange.memo[SUBJECT]
    site.clock.advance(SEAL_TRUSTED if passed == "age" else 3600)
    assert SUBJECT not in browser.request().exchange.memo


def test_the_seal_of_a_revoked_session(site: Site) -> None:
    """From when the store has said so, nothing in the request is on the subject's account."""
    browser = site.browser("alice")
    site.sessions.subjects.revoke_all("alice")
    request = browser.request()
    assert "alice" == request.exchange.memo[SUBJECT]
    assert request.view.principal is None
    assert SUBJECT not in request.exchange.memo
    browser.jar["other"] = "1"  # another Cookie field, the same session
    assert SUBJECT not in browser.request().exchange.memo


def test_a_revocation_that_a_failover_lost(site: Site) -> None:
    """A browser that was told that its session is revoked is nobody still where the store has the session again; the record goes."""
    browser = site.browser("alice", a=1)
    copied = dict(browser.jar)
    now = site.clock.time()
    table, key = site.store._memory.table, site.sessions.record_key(browser.request().session.handle)
    record = dict(table.get(key, now))
    site.sessions.subjects.revoke_all("alice")
    request = browser.request()
    assert request.view.principal is None
    request.finish()
    assert (
        copied[site.sessions.style.full_name] == browser.cookie
    )  # the answer of a slow request would delete that of a quick login
    table.delete(site.sessions.subject_key("alice"))
    for _ in range(2):
        table.set(key, dict(record), expires=now + 100, now=now)
        seen = len(site.events)
        request = browser.request()
        assert (None, None) == (request.exchange.memo.get(SUBJECT), request.view.principal)
        request.finish()
        assert table.get(key, now) is None
        assert [SessionRolledBack, SessionGone] == [type(event) for event in site.events[seen:]]
    request = browser.request()
    request.view.login("alice")
    request.finish()
    assert 1 == sum(site.sessions.seal_style.full_name + "=" in cookie for cookie in request.cookies)
    assert "alice" == browser.request().view.principal.subject


def test_a_login_after_a_revoked_session(site: Site) -> None:
    """In the same request: the new session's seal is the one that the browser gets."""
    browser = site.browser("alice")
    site.sessions.subjects.revoke_all("alice")
    request = browser.request()
    assert request.view.principal is None
    site.clock.advance(1)
    request.view.login("alice")
    request.finish()
    assert 1 == sum(site.sessions.seal_style.full_name + "=" in cookie for cookie in request.cookies)
    assert "alice" == browser.request().view.principal.subject


def test_snapshot_keys_with_a_colon() -> None:
    """Any key of the application's can be in the snapshot."""
    site = Site(session_snapshot=60, session_snapshot_keys=["a:b", "@c", "d"])
    browser = site.browser("alice", **{"a:b": 1, "@c": 2, "d": 3, "e": 4})
    with site.store.away():
        assert [1, 2, 3, None] == [browser.request().view.get(key) for key in ("a:b", "@c", "d", "e")]


def test_a_session_that_was_lost_for_a_time(site: Site) -> None:
    """Where a failover brings it back, its user is known from the seal again."""
    browser = site.browser("alice")
    table = site.store._memory.table
    key = site.sessions.record_key(browser.request().session.handle)
    record = table.get(key, site.clock.time())
    table.delete(key)
    for found in (None, "alice"):
        request = browser.request()
        assert found == (request.view.principal and request.view.principal.subject)
        table.set(key, record, expires=site.clock.time() + 100, now=site.clock.time())
    assert "alice" == browser.request().exchange.memo[SUBJECT]


def test_a_seal_is_renewed_daily(site: Site) -> None:
    """So that it is trusted for as long as its session is used."""
    browser = site.browser("alice")
    for _ in range(5):
        site.clock.advance(86_400)
        request = browser.request()
        assert request.view.principal is not None
        request.finish()
    assert "alice" == browser.request().exchange.memo[SUBJECT]


def test_a_revoked_session_is_not_kept_alive(site: Site) -> None:
    """Whoever has its id cannot outlast the memory of its revocation: at the first look the record goes."""
    browser = site.browser("alice", a=1)
    copied = dict(browser.jar)
    key = site.sessions.subject_key("alice")
    site.store._memory.table.set(key, {"nbf": 2**60}, expires=site.clock.time() + 100, now=site.clock.time())
    request = browser.request()
    assert request.view.principal is None
    request.finish()
    site.store._memory.table.delete(key)  # the revocation is forgotten
    thief = Browser(site.runtime)
    thief.jar = copied
    with thief.request() as view:
        assert (None, {}) == (view.principal, dict(view))


def test_who_saves_may_put_it_right(site: Site) -> None:
    """A view that catches what its save raised, and mends the value, is answered as it says."""
    browser = site.browser(items=[])
    request = browser.request()
    request.view["items"].append(object())
    with pytest.raises(SessionValueError):
        site.sessions.save(request.session)
    request.view["items"].pop()
    request.view["items"].append(1)
    assert 200 == request.finish()
    with browser.request() as view:
        assert [1] == view["items"]


def test_a_refused_login_evicts_nobody() -> None:
    """A user at their cap, whose further login conflicts, keeps the session that they have."""
    site = Site(session_cap=1)
    kept = site.browser("alice")
    shared = site.browser(cart=1)
    first, second = shared.request(), shared.request()
    first.view.login("bob")
    second.view.login("alice")
    assert (200, 409) == (first.finish(), second.finish())
    with kept.request() as view:
        assert view.principal is not None


def test_a_conflicting_login_hands_over_no_session() -> None:
    """Two logins at once on one session: the refused user's next login does not end the other's."""
    site = Site(session_cap=1)
    shared = site.browser(cart=1)
    first, second = shared.request(), shared.request()
    first.view.login("alice")
    second.view.login("bob")
    assert (200, 409) == (first.finish(), second.finish())
    site.clock.advance(1)
    site.browser("bob")
    with shared.request() as view:
        assert "alice" == (view.principal and view.principal.subject)


def test_the_cap_counts_the_living() -> None:
    """A session that has ended by itself makes room; the one that is in use stays."""
    site = Site(session_cap=2, session_idle=600, session_absolute=86_400)
    site.browser("alice")
    site.clock.advance(601)
    used = site.browser("alice")
    site.clock.advance(1)
    site.browser("alice")
    with used.request() as view:
        assert view.principal is not None
    assert [] == [one for one in site.events if isinstance(one, SessionRevoked)]


def test_disabled_limits_leave_sessions() -> None:
    """The setting `enabled` is about limits: a view that needs a live session still does."""

    @require_live_session
    def view() -> None:
        """Never called."""

    site = Site(enabled=False, session_snapshot=300)
    browser = site.browser("alice")
    with site.store.away("timeout"):
        rejected = browser.request(view).rejected
    assert isinstance(rejected, SessionUnavailable)


def test_long_names_count(site: Site) -> None:
    """The size of a session is that of its names as well."""
    with site.browser().request() as view, pytest.raises(SessionTooLarge):
        view["k" * 100_000] = 1


def test_a_name_that_is_no_text(site: Site) -> None:
    """A lone surrogate cannot be stored, and is refused where it is set."""
    with site.browser().request() as view, pytest.raises(ValueError, match="no Unicode text"):
        view["\ud800"] = 1


@pytest.mark.parametrize(
    ("subject", "methods", "error"),
    [(5, (), TypeError), ("a", "pwd", TypeError), ("", (), ValueError), ("x" * 256, (), ValueError)],
)
def test_what_is_no_subject(site: Site, subject: Any, methods: Any, error: type[Exception]) -> None:
    """Refused at the login, and not when the response is complete."""
    with site.browser().request() as view, pytest.raises(error):
        view.login(subject, methods)


def test_an_unstorable_change_inside_a_snapshot() -> None:
    """It is a change like any other: refused, because the store is away."""
    site = Site(session_snapshot=300, session_snapshot_keys=["items"])
    browser = site.browser("alice", items=[])
    with site.store.away("timeout"):
        request = browser.request()
        request.view["items"].append(object())
        assert 503 == request.finish()


def test_a_planted_id_ends_no_session(site: Site) -> None:
    """Whoever knows the id from before a login can neither read, nor write, nor end what it has become."""
    browser = site.browser(cart=1)
    planted = Browser(site.runtime)
    planted.jar = dict(browser.jar)
    with browser.request() as view:
        view.login("alice")
    request = planted.request()
    with pytest.raises(SessionConflict):
        request.view.logout()
    request.finish()
    assert State.MOVED is request.session.state
    with browser.request() as view:
        assert view.principal is not None


def test_seals_of_another_prefix() -> None:
    """Two applications with one secret: the cookies of one say nothing to the other."""
    first, second = Site(prefix="first", session_snapshot=300), Site(prefix="second", session_snapshot=300)
    browser = first.browser("alice")
    stranger = Browser(second.runtime)
    stranger.jar = dict(browser.jar)
    with second.store.away("timeout"):
        request = stranger.request()
        assert SUBJECT not in request.exchange.memo
        with pytest.raises(SessionUnavailable):
            _ = request.view.principal


def test_a_save_by_hand_that_is_not_acknowledged(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    """A login that was written, and could not be listed: the response brings the id that the session has now."""
    browser = site.browser(cart=1)
    request = browser.request()
    request.view.login("alice")
    failing(site, monkeypatch, "enrol")
    with pytest.raises(SessionUnavailable):
        site.sessions.save(request.session)
    monkeypatch.undo()
    request.finish(500)
    site.clock.advance(site.sessions.grace / 1000)
    with browser.request() as view:
        assert (1, "alice") == (view["cart"], view.principal and view.principal.subject)


def test_a_handle_is_no_option() -> None:
    """People write it on command lines, where a hyphen in front would make it one."""
    identity = SessionId.new(lambda count: b"\xfb" * count)
    assert ("A", "7") == (identity.handle[0], SessionId.new(lambda count: b"\xef" * count).handle[0])
    assert str(identity) == str(SessionId.parse(str(identity)))


@pytest.mark.parametrize("data", [b'["alice",null,[]]', b'["alice",1%b,[]]' % (b"0" * 400), b'["alice",0,[]', b"7"])
def test_a_damaged_principal(site: Site, data: bytes) -> None:
    """Nobody can say whose the session is, so nobody gets it: neither at the first access nor at the second."""
    browser = site.browser("alice", a=1)
    assert browser.cookie is not None
    key = site.sessions.record_key(browser.cookie[:16])
    record = site.store._memory.table.get(key, site.clock.time())
    record["@p"] = data
    request = browser.request()
    for _ in range(2):
        assert ({}, None) == (dict(request.view), request.view.principal)


def test_nobody_has_it_before_it_is_checked(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    """While it is found out whose the session is, another thread of the request finds it unloaded, and not somebody's."""
    browser = site.browser("alice", a=1)
    session = site.sessions.open("; ".join(f"{name}={value}" for name, value in browser.jar.items()))
    seen: list[State] = []

    def unpack(data: bytes) -> Any:
        seen.append(session.state)
        return unpack_principal(data)

    monkeypatch.setattr("failsoft.sessions.loading.unpack_principal", unpack)
    site.sessions.load(session)
    assert ([State.UNLOADED], State.LIVE) == (seen, session.state)


def test_two_wait_for_one_check(site: Site) -> None:
    """The second of two tasks that ask whether a session was revoked leaves alone what the first has made of it."""
    browser = site.browser("alice", a=1)
    session = site.sessions.open(f"__Host-session={browser.cookie}")  # without its seal: the check comes by itself
    one, two = loading(session), loading(session)
    asked = one.send(None)
    with pytest.raises(StopIteration):
        one.send(site.store.flight(one.send(site.store.flight(asked))))
    assert State.LIVE is session.state
    with pytest.raises(StopIteration):
        next(two)

    session = site.sessions.open(f"__Host-session={browser.cookie}")
    first = loading(session)
    checks = [first.send(site.store.flight(first.send(None)))]
    second = loading(session)
    checks.append(second.send(None))
    with pytest.raises(StopIteration):
        first.send(site.store.flight(checks[0]))
    session.write("a", 2)
    with pytest.raises(StopIteration):
        second.send(StoreUnavailable("timeout"))
    assert (State.LIVE, 2) == (session.state, session.read("a"))
