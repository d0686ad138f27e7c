"""One request's session: its states, what it reads and writes, and what the response owes for it."""

import asyncio
import os
from collections.abc import Callable
from enum import Enum
from types import SimpleNamespace
from typing import Any

import pytest
from msgspec.structs import replace

import failsoft.sessions.session as module
from failsoft import limit
from failsoft.errors import (
    OutsideRequest,
    SessionConflict,
    SessionTooLarge,
    SessionUnavailable,
    SessionValueError,
)
from failsoft.events import (
    SessionCreated,
    SessionDegraded,
    SessionGone,
    SessionMerged,
    SessionRevoked,
    SessionRolledBack,
    SessionRotated,
)
from failsoft.exchange import Script
from failsoft.exchange.policy import enter, leave
from failsoft.sessions import scripts
from failsoft.sessions.companion import Ended, Remembered, Ticket
from failsoft.sessions.cookies import MAX_VALUES
from failsoft.sessions.ids import SessionId
from failsoft.sessions.operations import Create, Delete, Load, Wait, Write
from failsoft.sessions.state import State
from failsoft.sessions.view import SessionView
from failsoft.stores import MemoryStore
from failsoft.testing import FaultyStore, ManualClock
from tests.core.requests import FakeFacts
from tests.core.sessions.sites import SECRET, Browser, Request, Site, flights, make_site
from tests.servers import Valkey, poll


class AsText:
    """Equal to a text, and none."""

    def __init__(self, text: str) -> None:
        self.text = text

    def __eq__(self, other: object) -> bool:
        return self.text == other

    def __hash__(self) -> int:
        return hash(self.text)


class OnLoop(FakeFacts):
    """A request that is served on a shared event loop."""

    __slots__ = ()

    synchronous = False


@pytest.fixture
def site() -> Site:
    return Site()


# States and flights


def test_no_cookie(site: Site) -> None:
    """Who has no cookie asks the store nothing, and is owed nothing."""
    request = site.browser().request(eager=True)
    assert {} == dict(request.view)
    request.finish()
    assert (State.NEW, [], [("Vary", "Cookie")]) == (request.session.state, flights(site), request.fields)


def test_untouched(site: Site) -> None:
    """A session that nobody asks for is neither loaded nor written, and the response does not vary by it."""
    request = site.browser("alice", a=1).request()
    request.finish()
    assert (State.UNLOADED, [], []) == (request.session.state, flights(site), request.fields)


def test_lazy_and_eager(site: Site) -> None:
    """The load is a flight of its own at the first access, or, where that could not wait, before the view."""
    browser = site.browser("alice", a=1)
    request = browser.request()
    assert (State.UNLOADED, []) == (request.session.state, flights(site))
    assert 1 == request.view["a"]
    assert [("load", "check")] == flights(site)
    request = browser.request(eager=True)
    assert (State.LIVE, [("load", "check")]) == (request.session.state, flights(site))
    assert "alice" == request.session.subject_hint


def test_a_rider_makes_no_flight_alone() -> None:
    """The session is loaded with the limits where there are any, whether the adapter opened it before or not."""
    site = Site(limits=["9/minute"])
    browser = site.browser(a=1)
    for open_ in (True, False):
        request = Request(browser, open_=open_)
        assert (State.LIVE, [("ratelimit.acquire", "load")]) == (request.session.state, flights(site))
    assert request.session is site.sessions.open("sessionid=x", request.exchange)


def test_without_a_companion(site: Site) -> None:
    """Who has lost the companion is looked up by the record, in a flight more, and is given another."""
    browser = site.browser("alice", a=1)
    seal = browser.jar.pop("__Host-session-seal")
    request = browser.request(eager=True)
    assert (State.UNCHECKED, None, [("load",)]) == (request.session.state, request.session.subject_hint, flights(site))
    assert 1 == request.view["a"]
    assert [("check",)] == flights(site)
    request.finish()
    assert browser.jar["__Host-session-seal"] != seal


def test_a_companion_of_another_session(site: Site) -> None:
    """A seal beside another session's cookie says nothing."""
    alice, bob = site.browser("alice"), site.browser("bob")
    alice.jar["__Host-session-seal"] = bob.jar["__Host-session-seal"]
    request = alice.request()
    assert None is request.session.subject_hint
    assert request.session.principal is not None
    assert "alice" == request.session.principal.subject


def test_aload(site: Site) -> None:
    """From a coroutine the session is awaited; to read it without is an error that says so, and nothing is asked."""
    browser = site.browser("alice", a=1)
    browser.jar.pop("__Host-session-seal")

    async def serve() -> int:
        request = browser.request()
        request.facts.__class__ = OnLoop
        with pytest.raises(OutsideRequest):
            request.view["a"]
        assert [] == flights(site)
        await site.sessions.aload(request.session)
        return int(request.view["a"])

    assert 1 == asyncio.run(serve())
    assert [("load",), ("check",)] == flights(site)


def test_clocks(site: Site) -> None:
    """A session ends unseen for the idle time, and however much it is used after the absolute one."""
    site.open(session_idle=100, session_absolute=250)
    browser = site.browser(a=1)
    for _ in range(2):
        site.clock.advance(100)
        with browser.request() as view:
            assert {"a": 1} == dict(view)
    site.clock.advance(50)
    with browser.request() as view:
        assert {} == dict(view)


def test_touch(site: Site) -> None:
    """Use is written down at most as often as the setting says."""
    site.open(session_touch=60)
    browser = site.browser(a=1)
    seen = []
    for _ in range(4):
        site.clock.advance(25)
        with browser.request() as view:
            assert {"a": 1} == dict(view)
        seen.append(int(site.stored(browser)["@t"]))
    assert [0, 0, 75_000, 75_000] == [one - int(site.stored(browser)["@c"]) for one in seen]


def test_an_idle_time_of_its_own(site: Site) -> None:
    """A session may live unseen for longer or shorter than the others; that is kept until it is taken back."""
    browser = site.browser(a=1)
    with browser.request() as view:
        view.session.set_idle(5)
    with browser.request() as view:
        view["b"] = 2
        assert view.session.meta is not None
        assert 5000 == view.session.meta.idle
        site.sessions.save(view.session)
        assert 5000 == view.session.meta.idle
    site.clock.advance(5)
    with browser.request() as view:
        assert {"a": 1, "b": 2} == dict(view)
        view.session.set_idle(None)
    site.clock.advance(6)
    with browser.request() as view:
        assert {"a": 1, "b": 2} == dict(view)


def test_what_is_gone(site: Site) -> None:
    """A dead id is forgotten without a word to the browser, and what is written afterwards begins another session."""
    browser = site.browser(a=1)
    handle = (browser.cookie or "")[:16]
    site.clock.advance(site.sessions.idle / 1000 + 1)
    request = browser.request()
    assert {} == dict(request.view)
    request.finish()
    assert [] == request.cookies
    assert [SessionGone(handle, None, "lost")] == site.events
    with browser.request() as view:
        view["b"] = 1
    assert handle != (browser.cookie or "")[:16]


def test_unknown_ids(site: Site) -> None:
    """An id that nobody was given is never adopted, whatever handle it has."""
    owner = site.browser(a=1)
    invented = SessionId.new(os.urandom)
    for handle in (invented.handle, (owner.cookie or "")[:16]):
        thief = site.browser()
        thief.jar["__Host-session"] = handle + invented.secret
        with thief.request() as view:
            assert {} == dict(view)
            view["a"] = 2
        assert (thief.cookie or "")[:16] not in (invented.handle, (owner.cookie or "")[:16])
        assert SessionGone(handle, None, "unknown") in site.events
    with owner.request() as view:
        assert {"a": 1} == dict(view)


# Reading and writing


def test_mapping(site: Site) -> None:
    """A view is a mapping: what one request leaves, the next one has."""
    browser = site.browser(a=1, b=[1], c={"x": None})
    with browser.request() as view:
        assert 3 == len(view)
        del view["a"]
        view["d"] = "new"
        assert ["b", "c", "d"] == sorted(view)
        assert None is view.get("a")
        with pytest.raises(KeyError, match="a"):
            del view["a"]
        with pytest.raises(TypeError, match="keys are text"):
            view[1] = 2  # type: ignore[index]  # that is what is tried
        assert 1 not in view
    with browser.request() as view:
        assert {"b": [1], "c": {"x": None}, "d": "new"} == dict(view)
        view.clear()
    with browser.request() as view:
        assert {} == dict(view)


def test_what_is_read_is_not_written(site: Site) -> None:
    """Reading writes nothing, also where the values could have been changed."""
    browser = site.browser(a=[1, {"x": [2]}])
    request = browser.request()
    assert [1, {"x": [2]}] == request.view["a"]
    request.finish()
    assert [("load",)] == flights(site)


@pytest.mark.parametrize(
    ("value", "change"),
    [
        ([1], lambda value: value.append(2)),
        ({"x": 1}, lambda value: value.pop("x")),
        ({1}, lambda value: value.add(2)),
        ((1, [2]), lambda value: value[1].clear()),
    ],
    ids=lambda value: type(value).__name__,
)
def test_changes_inside(site: Site, value: Any, change: Callable[[Any], Any]) -> None:
    """Whatever kind a value is of, that it was changed in place is noticed."""
    browser = site.browser(a=value)
    with browser.request() as view:
        expected = view["a"]
        change(expected)
        assert expected != value
    assert [("load",), ("write",)] == flights(site)
    assert expected == browser.request().view["a"]


def test_last_item(site: Site) -> None:
    """The last item is the one to be taken, as of a dict; where there is none, that is a KeyError."""
    with site.browser(a=1).request() as view:
        view["b"] = [2]
        assert [("b", [2]), ("a", 1), {}] == [view.popitem(), view.popitem(), dict(view)]
        with pytest.raises(KeyError, match="the session is empty"):
            view.popitem()


def test_namespaces(site: Site) -> None:
    """A framework's own keys are seen and cleared by it alone."""
    browser = site.browser(shared=1, _own=2)
    request = browser.request()
    other = SessionView(request.session, "other")
    assert {"shared": 1} == dict(other)
    other["_own"] = 3
    other.clear()
    request.finish()
    with browser.request() as view:
        assert {"_own": 2} == dict(view)
    assert {"web:_own"} == {name for name in site.stored(browser) if name[:1] != "@"}


def test_names_that_are_remembered(site: Site) -> None:
    """What a key is stored as depends on the view's class and namespace, whoever has asked before; and users' keys fill no memory."""

    class Reserved(SessionView):
        private = frozenset({"token"})

        __slots__ = ()

    session = site.sessions.open(None)
    views = [SessionView(session, "a"), SessionView(session, "b"), Reserved(session, "a"), Reserved(session, "b")]
    for _ in range(2):
        assert ["a:_x", "b:_x", "a:_x", "b:_x"] == [view.name_of("_x") for view in views]
        assert ["token", "token", "a:token", "b:token"] == [view.name_of("token") for view in views]
        for key in ([], 1, None, AsText("_x")):
            with pytest.raises(TypeError, match="keys are text"):
                views[0].name_of(key)  # type: ignore[arg-type]  # that is what is tried
    for number in range(3000):
        assert f"key {number}" == views[2].name_of(f"key {number}")
        assert "key" * number == views[2].name_of("key" * number)
    assert 1024 >= len(Reserved._known)
    assert 64 >= max(len(key) for key, _ in Reserved._known)


@pytest.mark.parametrize("first", ["plain", "member"])
def test_keys_of_an_enumeration(site: Site, first: str) -> None:
    """A key of a class made from `str` is the text that it holds, whatever its class calls it, and whoever asked for what before."""

    class Key(str, Enum):  # noqa: UP042 - `StrEnum` says its text, this does not
        OWN = "_own"
        COLON = "a:b"
        RESERVED = "token"

    class View(SessionView):
        private = frozenset({"token"})

        __slots__ = ()

    for key, name in {Key.OWN: "web:_own", Key.COLON: "=a:b", Key.RESERVED: "web:token"}.items():
        asked = [key.value, key] if first == "plain" else [key, key.value]
        view = View(site.sessions.open(None), "web")
        assert [(name, str)] * 2 == [(view.name_of(one), type(view.name_of(one))) for one in asked]
    assert [str] * 6 == [type(one) for (key, _), name in View._known.items() for one in (key, name)]
    browser = site.browser(**{Key.OWN.value: 1})
    with browser.request() as view:
        view[Key.OWN] += 1
        view[Key.COLON] = 3
        assert Key.OWN in view
    assert {"_own": 2, "a:b": 3} == dict(browser.request().view)


@pytest.mark.parametrize("mode", ["", "inside", "development"])
def test_what_is_not_written(site: Site, monkeypatch: pytest.MonkeyPatch, mode: str) -> None:
    """After the last save keys that were set or removed are always found; changes inside only where that is asked for, or developed."""
    monkeypatch.setattr(module, "sys", SimpleNamespace(flags=SimpleNamespace(dev_mode=mode == "development")))
    browser = site.browser(a=[1], b=2)

    def unwritten(do: Callable[[SessionView], Any]) -> bool:
        request = browser.request()
        assert [1] == request.view["a"]
        site.sessions.save(request.session)
        do(request.view)
        found = request.session.unwritten(inside=mode == "inside")
        request.session.discard()
        return found

    assert not unwritten(lambda view: view["a"])
    assert unwritten(lambda view: view.pop("b"))
    assert unwritten(lambda view: view.update(b=2))
    assert unwritten(lambda view: view.logout())
    assert bool(mode) is unwritten(lambda view: view["a"].append(2))
    assert bool(mode) is unwritten(lambda view: view["a"].append(object()))


def test_what_could_not_be_written_is_not_lost() -> None:
    """What is changed inside of a snapshot was refused when it was to be saved, and is not told of again."""
    site = Site(session_snapshot=60, session_snapshot_keys=["a"])
    browser = site.browser(a=[1])
    with site.store.away():
        request = browser.request()
        request.view["a"].append(2)
        assert not request.session.unwritten(inside=True)
        assert 503 == request.finish()


def test_merge(site: Site) -> None:
    """Of two requests that overlap each writes its own keys; who is the later one is told how many lay between."""
    browser = site.browser(a=1, b=1)
    first, second = browser.request(eager=True), browser.request(eager=True)
    first.view["a"] = 2
    second.view["c"] = 2
    del second.view["b"]
    assert (200, 200) == (second.finish(), first.finish())
    assert [SessionMerged((browser.cookie or "")[:16], None, 1)] == site.events
    with browser.request() as view:
        assert {"a": 2, "c": 2} == dict(view)
    assert b"3" == site.stored(browser)["@v"]


def test_values_that_do_not_fit(site: Site) -> None:
    """What cannot be stored is refused at its assignment, and what was changed into such a thing at the end."""
    browser = site.browser(a=[])
    request = browser.request()
    with pytest.raises(SessionValueError, match="'b'"):
        request.view["b"] = object()
    request.view["a"].append(object())
    request.view["c"] = 1
    assert 500 == request.finish()
    assert [] == request.cookies
    with browser.request() as view:
        assert {"a": []} == dict(view)


def test_size(site: Site) -> None:
    """A session is not larger than the setting says; what is deleted or replaced makes room."""
    site.open(session_bytes=1024)
    browser = site.browser(a="x" * 500)
    request = browser.request()
    with pytest.raises(SessionTooLarge, match="session_bytes is 1024"):
        request.view["b"] = "x" * 500
    request.view["a"] = "x" * 100
    request.view["b"] = "x" * 500
    del request.view["b"]
    request.view["c"] = ["x" * 500]
    assert 200 == request.finish()
    request = browser.request()
    request.view["c"].append("x" * 500)
    assert 500 == request.finish()
    with browser.request() as view:
        assert {"a": "x" * 100, "c": ["x" * 500]} == dict(view)
    assert [site.sessions.most_bytes] == [1024]


def test_forced(site: Site) -> None:
    """An empty session can be stored."""
    session = site.sessions.open(None)
    assert [] == site.sessions.save(session)
    session.force = True
    assert 2 == len(site.sessions.save(session))
    assert (State.LIVE, []) == (session.state, site.sessions.save(session))
    assert [SessionCreated(session.handle, None)] == site.events


def test_forced_before_a_logout(site: Site) -> None:
    """What was to be stored although it is empty is not any more."""
    request = Browser(site.runtime).request()
    request.session.force = True
    request.view.logout()
    assert (200, [], []) == (request.finish(), request.cookies, flights(site))


def test_save_by_hand(site: Site) -> None:
    """Without a request a session is saved at once, again and again; errors are raised."""

    async def serve() -> None:
        session = site.sessions.open(None)
        session.write("a", 1)
        assert 2 == len(await site.sessions.asave(session))
        session.write("a", [1])
        await site.sessions.asave(session)
        session.read("a").append(2)
        await site.sessions.asave(session)
        again = site.sessions.open(f"__Host-session={session.id}")
        await site.sessions.aload(again)
        assert [1, 2] == again.read("a")
        again.read("a").append(object())
        with pytest.raises(SessionValueError):
            await site.sessions.asave(again)
        site.store.flight([Delete(site.sessions.record_key(session.handle or ""), None)])
        session.write("b", 1)
        with pytest.raises(SessionConflict):
            await site.sessions.asave(session)
        session = site.sessions.open(None)
        session.write("a", 1)
        with site.store.away(), pytest.raises(SessionUnavailable):
            await site.sessions.asave(session)

    asyncio.run(serve())


def test_persistent(site: Site) -> None:
    """The cookies end with the session, or where it is not persistent with the browser."""
    for persistent in (True, False):
        request = site.browser().request()
        request.session.persists = lambda _, persistent=persistent: persistent
        request.view["a"] = 1
        request.finish()
        assert [persistent] * 2 == ["Max-Age=2592000" in cookie and "Expires=" in cookie for cookie in request.cookies]


# Login and logout


def test_login(site: Site) -> None:
    """A login renews the id, keeps what the anonymous session held, lists the session, and begins its life anew."""
    browser = site.browser(a=1)
    before = browser.cookie
    site.clock.advance(1000)
    with browser.request() as view:
        view.login("alice", ["pwd"])
        principal = view.principal
    handle = (before or "")[:16]
    assert (handle, True) == ((browser.cookie or "")[:16], browser.cookie != before)
    assert [("load",), ("enrol", "write")] == flights(site)
    assert [SessionRotated(handle, "alice", True)] == site.events
    with browser.request() as view:
        assert ({"a": 1}, principal) == (dict(view), view.principal)
        assert principal == ("alice", site.clock.time(), ("pwd",))
    fields = site.stored(browser)
    assert [site.sessions.lifetime + 1_000_000] == [int(fields["@a"]) - int(fields["@c"])]


def test_login_as_somebody_else(site: Site) -> None:
    """Another user gets another session, with nothing of the former user's, which ends."""
    browser = site.browser("alice", a=1)
    before = (browser.cookie or "")[:16]
    with browser.request() as view:
        view.login("bob")
        view["b"] = 1
    assert (browser.cookie or "")[:16] != before
    assert site.sessions.subjects.look(before) is None
    with browser.request() as view:
        assert {"b": 1} == dict(view)
        assert view.principal is not None
        assert "bob" == view.principal.subject
    assert [SessionRevoked(before, "alice", "logout")] == [
        one for one in site.events if isinstance(one, SessionRevoked)
    ]


def test_rotation(site: Site) -> None:
    """The former id leads to the session for the grace, gets no cookie, and cannot renew it again; then it is dead."""
    browser = site.browser("alice", a=1)
    late = Browser(site.runtime)
    late.jar = dict(browser.jar)
    with browser.request() as view:
        view.rotate()
    request = late.request()
    assert (1, True) == (request.view["a"], request.session.renewed)
    with pytest.raises(SessionConflict):
        request.view.rotate()
    request.view["b"] = 1
    assert (200, []) == (request.finish(), request.cookies)
    with browser.request() as view:  # the browser has its new id
        assert 1 == view["b"]
    site.clock.advance(site.sessions.grace / 1000)
    with late.request() as view:
        assert {} == dict(view)
    with browser.request() as view:
        assert {"a": 1, "b": 1} == dict(view)


def test_two_logins_at_once(site: Site) -> None:
    """Of two logins that overlap one is refused, and the session is whole."""
    browser = site.browser(a=1)
    first, second = browser.request(eager=True), browser.request(eager=True)
    first.view.login("alice")
    second.view.login("bob")
    assert (200, 409) == (first.finish(), second.finish())
    assert [] == second.cookies
    with browser.request() as view:
        assert view.principal is not None
        assert ({"a": 1}, "alice") == (dict(view), view.principal.subject)


def test_moved(site: Site) -> None:
    """Who still has the id from before a login reads nothing and writes nothing for a moment, and loses no cookie."""
    browser = site.browser(a=1)
    late = Browser(site.runtime)
    late.jar = dict(browser.jar)
    with browser.request() as view:
        view.login("alice")
    request = late.request()
    assert ({}, State.MOVED) == (dict(request.view), request.session.state)
    with pytest.raises(SessionConflict):
        request.view["a"] = 2
    assert (200, []) == (request.finish(), request.cookies)


def test_renewed_twice(site: Site) -> None:
    """Who still has the id from before two renewals begins no session of their own, whose cookie would replace the new id."""
    browser = site.browser("alice", a=1)
    late = Browser(site.runtime)
    late.jar = dict(browser.jar)
    for _ in range(2):
        with browser.request() as view:
            view.rotate()
    request = late.request()
    assert ({}, State.MOVED) == (dict(request.view), request.session.state)
    with pytest.raises(SessionConflict):
        request.view["a"] = 2
    assert (200, []) == (request.finish(), request.cookies)
    with browser.request() as view:
        assert {"a": 1} == dict(view)


def test_logout(site: Site) -> None:
    """A logout deletes both cookies, ends the record, and takes the session off the list."""
    browser = site.browser("alice", a=1)
    handle = (browser.cookie or "")[:16]
    request = browser.request()
    request.view.logout()
    assert ({}, None) == (dict(request.view), request.view.principal)
    assert 200 == request.finish()
    assert ({}, None) == (browser.jar, site.sessions.subjects.look(handle))
    assert [SessionRevoked(handle, "alice", "logout")] == site.events
    assert 0 == site.sessions.subjects.count("alice")


def test_logout_of_what_was_renewed_meanwhile(site: Site) -> None:
    """A logout ends the session although other requests have renewed it, more than once, since this one loaded it."""
    browser = site.browser("alice", a=1)
    request = Browser.request(browser, eager=True)
    other = Browser(site.runtime)
    other.jar = dict(browser.jar)
    for _ in range(2):
        with other.request() as view:
            view.rotate()
    request.view.logout()
    assert 200 == request.finish()
    with other.request() as view:
        assert ({}, None) == (dict(view), view.principal)


def test_logout_of_nobody(site: Site) -> None:
    """Where there is nothing to end, nothing is asked and nothing is set."""
    request = site.browser().request()
    request.view.logout()
    assert (200, [], []) == (request.finish(), request.cookies, flights(site))


def test_a_session_after_a_logout(site: Site) -> None:
    """What is written after a logout begins a session whose cookies are not deleted."""
    browser = site.browser("alice", a=1)
    before = (browser.cookie or "")[:16]
    request = browser.request()
    request.view.logout()
    request.view["b"] = 1
    request.finish()
    assert 2 == len(request.cookies)
    assert (browser.cookie or "")[:16] not in ("", before)
    with browser.request() as view:
        assert {"b": 1} == dict(view)


def test_cap(site: Site) -> None:
    """A user has at most as many sessions as the setting says: the oldest end, after a look at which still live."""
    site.open(session_cap=2)
    browsers = []
    for _ in range(3):
        browsers.append(site.browser("alice"))
        site.clock.advance(1)
    request = Browser(site.runtime).request()
    request.view.login("alice")
    assert 200 == request.finish()
    assert [("enrol", "create"), ("glance", "glance"), ("revoke", "delete")] == flights(site)
    assert SessionRevoked((browsers[1].cookie or "")[:16], "alice", "cap") in site.events
    alive = []
    for browser in browsers:
        with browser.request() as view:
            alive.append(view.principal is not None)
    assert [False, False, True] == alive


# While the store is away


@pytest.mark.parametrize("answer", ["refuse", "empty"])
def test_away(answer: str) -> None:
    """Without an answer nothing is read, nothing is written, and the browser keeps what it has."""
    site = Site(session_on_outage=answer)
    browser = site.browser("alice", a=1)
    with site.store.away("timeout"):
        request = browser.request()
        if answer == "empty":
            assert ({}, True) == (dict(request.view), request.view.degraded)
        else:
            with pytest.raises(SessionUnavailable):
                dict(request.view)
        for write in (
            lambda: request.view.update(a=2),
            lambda: request.view.login("bob"),
            lambda: request.view.rotate(),
        ):
            with pytest.raises(SessionUnavailable):
                write()
        assert (200, []) == (request.finish(), request.cookies)
    handle = (browser.cookie or "")[:16]
    assert [SessionDegraded(handle, None, "timeout", answer)] == site.events
    assert {"session": "timeout"} == request.exchange.degraded
    assert [("load", "check")] == flights(site)


def test_a_load_that_fails_alone(site: Site) -> None:
    """An error in the load's own answer, or in that about revocation, is an outage of the session."""
    browser = site.browser("alice", a=1)
    for name in ("sessions.load", "sessions.check"):
        with site.store.failing(name):
            request = browser.request()
            with pytest.raises(SessionUnavailable):
                request.view["a"]
        assert (200, [], State.AWAY) == (request.finish(), request.cookies, request.session.state)
        assert SessionDegraded((browser.cookie or "")[:16], None, "failed", "refuse") in site.events


def test_a_write_that_is_not_taken(site: Site) -> None:
    """What the store does not take is refused, and nothing of it reaches the browser."""
    browser = site.browser("alice", a=1)
    for fault in (site.store.away(), site.store.failing("sessions.write")):
        request = browser.request(eager=True)
        request.view["a"] = 2
        with fault:
            assert 503 == request.finish()
        assert ([], "unsaved") == (request.cookies, site.events[-1].answer)  # type: ignore[attr-defined]  # a SessionDegraded
    with browser.request() as view:
        assert {"a": 1} == dict(view)


def test_snapshot(site: Site) -> None:
    """A young seal stands in for reading: who it is, and the keys that are named. It cannot be written, not even inside."""
    site.open(session_snapshot=60, session_snapshot_keys=["a", "c"])
    browser = site.browser("alice", a=[1], b=2)
    site.clock.advance(59)
    with site.store.away():
        request = browser.request()
        assert ({"a": [1]}, State.SNAPSHOT, True) == (dict(request.view), request.session.state, request.view.degraded)
        assert request.view.principal is not None
        assert "alice" == request.view.principal.subject
        with pytest.raises(SessionUnavailable):
            request.view["a"] = 2
        assert 200 == request.finish()
        request = browser.request()
        request.view["a"].append(2)
        assert 503 == request.finish()
    with browser.request() as view:
        assert [1] == view["a"]


@pytest.mark.parametrize("seconds", [61, -1, 2_600_000])
def test_snapshots_that_do_not_count(seconds: float) -> None:
    """A seal that is too old, from a clock that was ahead, or of a session that must have ended, stands in for nothing."""
    site = Site(session_snapshot=60)
    browser = site.browser("alice")
    site.clock = ManualClock(site.clock.time() + seconds)
    site.open(session_snapshot=60)
    browser.site = site.runtime
    with site.store.away():
        request = browser.request()
        with pytest.raises(SessionUnavailable):
            _ = request.view.principal


def test_a_snapshot_ends_with_its_session() -> None:
    """A snapshot does not outlive the absolute end of its session, however young it is."""
    site = Site(session_snapshot=300, session_absolute=100, session_idle=100)
    browser = site.browser("alice")
    site.clock.advance(99)
    with site.store.away():
        assert browser.request().view.degraded
        site.clock.advance(1)
        with pytest.raises(SessionUnavailable):
            _ = browser.request().view.principal


def test_snapshots_are_renewed(site: Site) -> None:
    """A reader is given another seal when a third of its life is over, and not before."""
    site.open(session_snapshot=60)
    browser = site.browser("alice")
    given = []
    for seconds in (19, 1, 1):
        site.clock.advance(seconds)
        request = browser.request(eager=True)
        request.finish()
        given.append(len(request.cookies))
    assert [0, 1, 0] == given


def test_a_snapshot_that_does_not_fit(site: Site) -> None:
    """Where the named keys are too large for a cookie, the seal says only who is logged in."""
    site.open(session_snapshot=60, session_snapshot_keys=["a"])
    browser = site.browser("alice", a="x" * 5000)
    with site.store.away():
        request = browser.request()
        assert ({}, "alice") == (dict(request.view), request.session.principal and request.session.principal.subject)


def test_a_revoked_session_has_no_snapshot_for_long(site: Site) -> None:
    """A snapshot of a revoked session is believed while the store is away, and no longer: the accepted lag."""
    site.open(session_snapshot=60)
    browser = site.browser("alice")
    site.sessions.subjects.revoke_all("alice")
    with site.store.away():
        assert browser.request().view.principal is not None
    assert browser.request().view.principal is None


@pytest.mark.parametrize("left", [0.5, 0.0, -1.0])
def test_no_seal_for_what_is_over(site: Site, left: float) -> None:
    """A session whose life ends while it is served is sealed no more: a Max-Age of 0 would delete what the browser may have by then."""
    site.open(session_snapshot=300)
    browser = site.browser("alice")
    request = browser.request(eager=True)
    assert request.view.principal is not None
    site.clock.advance(site.sessions.lifetime / 1000 - left)
    request.finish()
    assert [] == request.cookies


# Tickets


def test_a_ticket_is_replayed(site: Site) -> None:
    """A logout while the store is away leaves a ticket, and the next request, whatever it needs, makes up for it."""
    browser = site.browser("alice", a=1)
    copy = Browser(site.runtime)
    copy.jar = dict(browser.jar)
    handle = (browser.cookie or "")[:16]
    with site.store.away():
        request = browser.request()
        request.view.logout()
        assert (202, ["__Host-session-logout"]) == (request.finish(), list(browser.jar))
        assert SessionDegraded(handle, "alice", "no_connection", "ticket") in site.events
        request = browser.request()
        request.finish()
        assert ["__Host-session-logout"] == list(browser.jar)
    flights(site)
    with browser.request():
        pass
    assert ({}, [("delete", "revoke")]) == (browser.jar, flights(site))
    assert SessionRevoked(handle, "alice", "replayed") in site.events
    with copy.request() as view:
        assert view.principal is None


def test_a_ticket_beside_its_session(site: Site) -> None:
    """Who still sends the session's own cookies beside the ticket is logged out in the same request."""
    browser = site.browser("alice", a=1)
    before = dict(browser.jar)
    with site.store.away(), browser.request() as view:
        view.logout()
    browser.jar |= before
    request = browser.request()
    assert ({}, None) == (dict(request.view), request.view.principal)


def test_a_ticket_needs_the_secret(site: Site) -> None:
    """Who knows no more than a handle cannot end the session that it names, by way of an outage either."""
    browser = site.browser("alice", a=1)
    thief = site.browser()
    thief.jar["__Host-session"] = (browser.cookie or "")[:16] + SessionId.new(os.urandom).secret
    with site.store.away(), thief.request() as view:
        view.logout()
    assert ["__Host-session-logout"] == list(thief.jar)
    with thief.request():
        pass
    with browser.request() as view:
        assert {"a": 1} == dict(view)
        assert view.principal is not None


def test_tickets_that_do_not_count(site: Site) -> None:
    """Forged tickets, those of other secrets, and those from before any session that still lives ask the store nothing."""
    now, lifetime = site.clock.time(), site.sessions.lifetime / 1000
    ticket = Ticket(ended=(Ended("h" * 16, "d", "alice"),), issued=now - lifetime)
    other = make_site(MemoryStore(), site.clock, secret="another " * 5)
    assert other.sessions is not None
    for value, expected in (
        ("AAAA", []),
        (other.sessions.tickets.pack(replace(ticket, issued=now)), []),
        (site.sessions.tickets.pack(replace(ticket, issued=now - lifetime - 1)), []),
        (site.sessions.tickets.pack(ticket), [("delete", "revoke")]),
    ):
        browser = site.browser()
        browser.jar["__Host-session-logout"] = value
        with browser.request():
            pass
        assert expected == flights(site)


@pytest.mark.parametrize("read", [True, False], ids=["read", "unread"])
@pytest.mark.parametrize("half", [True, False], ids=["half", "whole"])
def test_a_logout_before_another_was_made_up_for(site: Site, read: bool, half: bool) -> None:
    """One ticket says both: the browser keeps one, and the first was not replayed when the second logout had to wait."""
    browser = site.browser("alice", a=1)
    copy = Browser(site.runtime)
    copy.jar = dict(browser.jar)
    request = browser.request(eager=read)
    with site.store.away():
        request.view.logout()
        request.finish()
        request = browser.request()  # for which the store does not answer yet
    request.view.login("bob")
    request.finish()
    assert {"__Host-session", "__Host-session-seal", "__Host-session-logout"} == browser.jar.keys()
    with site.store.away():
        with browser.request() as view:
            view.logout()
        assert ["__Host-session-logout"] == list(browser.jar)
    if half:
        with site.store.failing("sessions.revoke"), browser.request():
            pass
        assert ["__Host-session-logout"] == list(browser.jar)
    site.events.clear()
    with browser.request():
        pass
    assert ({}, [], []) == (browser.jar, *map(site.sessions.subjects.list, ("alice", "bob")))
    assert [("bob", "replayed"), ("alice", "replayed")] == [
        (one.subject, one.reason) for one in site.events if isinstance(one, SessionRevoked)
    ]
    with copy.request() as view:
        assert ({}, None) == (dict(view), view.principal)


def test_two_logouts_that_wait_in_one_request(site: Site) -> None:
    """What was saved by hand owes a ticket as well, which the response's must not forget."""
    browser = site.browser("alice")
    request = browser.request(eager=True)
    request.view.logout()
    with site.store.failing("sessions.revoke"):
        site.sessions.save(request.session)
    request.view.login("bob")
    site.sessions.save(request.session)
    request.view.logout()
    with site.store.failing("sessions.revoke"):
        request.finish()
    ticket = site.sessions.tickets.unpack(browser.jar["__Host-session-logout"])
    assert ["bob", "alice"] == [one.subject for one in (ticket.ended if ticket else ())]


def test_a_carried_ticket_needs_the_secret(site: Site) -> None:
    """A logout with a secret that was made up ends nothing, in the ticket of a later logout either."""
    browser = site.browser("alice", a=1)
    thief = site.browser()
    thief.jar["__Host-session"] = (browser.cookie or "")[:16] + SessionId.new(os.urandom).secret
    with site.store.away(), thief.request() as view:
        view.logout()
    with site.store.away():
        request = thief.request()
    request.view.login("mallory")
    request.finish()
    with site.store.away(), thief.request() as view:
        view.logout()
    with thief.request():
        pass
    assert ({}, []) == (thief.jar, site.sessions.subjects.list("mallory"))
    with browser.request() as view:
        assert ({"a": 1}, True) == (dict(view), view.principal is not None)


def test_a_ticket_that_does_not_fit(site: Site) -> None:
    """Where seals are planted, the session that was logged out of is still in the ticket."""
    browser = site.browser("alice", a=1)
    handle = (browser.cookie or "")[:16]
    seals = [Remembered(subject="ß" * 255, first=f"{one:016}", newest=f"{one + 50:016}") for one in range(MAX_VALUES)]
    name = site.sessions.remember_style.full_name
    planted = [f"{name}={site.sessions.remember_seals.pack(seal)}" for seal in seals]
    facts = "; ".join([*(f"{key}={value}" for key, value in browser.jar.items()), *planted])
    session = site.sessions.open(facts)
    session.logout()
    with site.store.away():
        browser.take([("Set-Cookie", cookie) for cookie in site.sessions.save(session)])
    ticket = site.sessions.tickets.unpack(browser.jar["__Host-session-logout"])
    assert ticket is not None
    assert (handle, True) == (ticket.ended[0].handle, 1 < len(ticket.ended) < 1 + 2 * MAX_VALUES)


def test_a_logout_that_half_succeeds(site: Site) -> None:
    """A logout of which the store has not taken all leaves a ticket too."""
    browser = site.browser("alice")
    request = browser.request(eager=True)
    request.view.logout()
    with site.store.failing("sessions.revoke"):
        assert 202 == request.finish()
    assert ["__Host-session-logout"] == list(browser.jar)


# Remember cookies


@pytest.mark.parametrize("state", [State.LIVE, State.MOVED, State.AWAY], ids=str)
def test_only_what_is_remembered_ends(site: Site, state: State) -> None:
    """Whoever ends no more than that leaves the browser the session's own cookies, whatever is known of the session."""
    browser, earlier = site.browser(a=1), site.browser("alice")
    before = browser.cookie or ""
    slow = Browser(site.runtime)
    slow.jar = dict(browser.jar)
    name, handle = site.sessions.remember_style.full_name, (earlier.cookie or "")[:16]
    slow.jar[name] = site.sessions.remember_seals.pack(Remembered(subject="alice", first=handle, newest=handle))
    if state is State.MOVED:
        with browser.request() as view:
            view.login("bob")
    request = slow.request()
    if state is State.AWAY:
        with site.store.away():
            site.sessions.load(request.session)
    else:
        site.sessions.load(request.session)
    assert state is request.session.state
    request.session.unremember()
    request.finish()
    assert (before, []) == (slow.cookie, site.sessions.subjects.list("alice"))
    assert name not in slow.jar


def remembering(site: Site, browser: Browser, *others: Browser) -> str:
    """Give `browser` a seal on the sessions of itself and of another. Returns the name of its cookie."""
    newest, first = ((one.cookie or "")[:16] for one in (browser, *others, browser)[:2])
    name = site.sessions.remember_style.full_name
    browser.jar[name] = site.sessions.remember_seals.pack(Remembered(subject="alice", first=first, newest=newest))
    return name


@pytest.mark.parametrize("stored", [True, False])
def test_a_logout_ends_what_is_remembered(site: Site, stored: bool) -> None:
    """A logout deletes the seal of a remember cookie, and ends the sessions that it names, in its one flight; with an id or without."""
    earlier, browser = site.browser("alice"), site.browser("alice")
    remembering(site, browser, earlier)
    if not stored:
        del browser.jar["__Host-session"], browser.jar["__Host-session-seal"]
    flights(site)
    with browser.request() as view:
        view.logout()
    assert ({}, []) == (browser.jar, site.sessions.subjects.list("alice"))
    with earlier.request() as view:
        assert view.principal is None


def test_another_logout_says_nothing_of_it(site: Site) -> None:
    """Who has no such cookie is sent none."""
    request = site.browser("alice").request()
    request.view.logout()
    request.finish()
    assert ["__Host-session=", "__Host-session-seal="] == [one.partition(";")[0] for one in request.cookies]


@pytest.mark.parametrize("stored", [True, False])
def test_a_logout_that_waits_ends_what_is_remembered(site: Site, stored: bool) -> None:
    """The ticket names those sessions, too."""
    earlier, browser = site.browser("alice"), site.browser("alice")
    remembering(site, browser, earlier)
    if not stored:
        del browser.jar["__Host-session"], browser.jar["__Host-session-seal"]
    with site.store.away(), browser.request() as view:
        view.logout()
    assert ["__Host-session-logout"] == list(browser.jar)
    assert 2 == len(site.sessions.subjects.list("alice"))
    with browser.request():
        pass
    assert ({}, []) == (browser.jar, site.sessions.subjects.list("alice"))


def test_a_seal_that_nobody_opens_is_deleted_by_a_logout(site: Site) -> None:
    """Another process may have the secret that opens it; a logout without a session asks the store nothing then."""
    browser = site.browser()
    browser.jar[site.sessions.remember_style.full_name] = "AAAA"
    with browser.request() as view:
        view.logout()
    assert ({}, []) == (browser.jar, flights(site))


# Encryption


def test_encryption(site: Site) -> None:
    """Encrypted, the store has neither values nor user in clear; turned off again, or with older secrets, what was sealed is read."""
    site.open(session_encrypt=True)
    browser = site.browser("alice", a="in clear")
    stored = site.stored(browser)
    assert not [name for name, data in stored.items() if b"clear" in data or b"alice" in data]
    site.open()
    browser.site = site.runtime
    with browser.request() as view:
        assert ("in clear", "alice") == (view["a"], view.principal and view.principal.subject)
    site.open(session_encrypt=True, secret="another " * 5, secret_fallbacks=[SECRET])
    browser.site = site.runtime
    with browser.request() as view:
        assert ("in clear", "alice") == (view["a"], view.principal and view.principal.subject)
        view["b"] = 1
    site.open(session_encrypt=True, secret="another " * 5)
    browser.site = site.runtime
    request = browser.request()
    assert {} == dict(request.view)  # whose it is can no longer be said, so nobody gets it
    assert (200, []) == (request.finish(), request.cookies)


def test_values_are_bound_to_their_place(site: Site) -> None:
    """A sealed value that was moved to another name or another session is not read."""
    site.open(session_encrypt=True)
    browser = site.browser(a=1, b=2)
    table = site.store._memory.table
    record = table.get(site.sessions.record_key((browser.cookie or "")[:16]), site.clock.time())
    record["b"] = record["a"]
    with browser.request() as view:
        assert 1 == view["a"]
        with pytest.raises(KeyError):
            view["b"]


# Losses


def test_rolled_back(site: Site) -> None:
    """A store that has lost writes is found out by the seal, told once, and gone on with."""
    browser = site.browser("alice", a=1)
    table = site.store._memory.table
    key = site.sessions.record_key((browser.cookie or "")[:16])
    before = dict(table.get(key, site.clock.time()))
    with browser.request() as view:
        view["a"] = 2
    table.get(key, site.clock.time()).update(before)
    site.events.clear()
    request = browser.request()
    assert (1, True) == (request.view["a"], request.session.rolled_back)
    request.finish()
    with browser.request() as view:
        assert 1 == view["a"]
    assert [SessionRolledBack(key[-17:-1], "alice", 1, 2)] == site.events


@pytest.mark.parametrize("step", [Load, Create, Write])
@pytest.mark.parametrize("reply", ["{1, 2, 3}", "{1, 2, 3, 4, 5, 6}", "{}"])
def test_a_damaged_reply(valkey: Valkey, monkeypatch: pytest.MonkeyPatch, step: type[Any], reply: str) -> None:
    """What the store says and nobody understands is no answer: the request is refused, and nothing else breaks."""
    site = make_site(store=valkey.url, deadline=2)
    try:
        browser = Browser(site)
        with browser.request() as view:
            view["a"] = 1
        damaged = Script("test.damaged", f"return {reply}")
        if step is Write:
            monkeypatch.setattr(scripts, "WRITE", damaged)
        else:
            monkeypatch.setattr(step, "script", damaged)
        request = (Browser(site) if step is Create else browser).request()
        if step is Load:
            if reply == "{}":  # it says that there is no such session
                assert "a" not in request.view
            else:
                with pytest.raises(SessionUnavailable):
                    request.view.get("a")
            return
        request.view["a"] = 2
        assert 503 == request.finish()
        assert [] == request.cookies
        monkeypatch.undo()
        assert 1 == browser.request().view["a"]
    finally:
        site.close()


@pytest.mark.parametrize(("subject", "field"), [(None, "@v"), (None, "@c"), ("alice", "@g")])
@pytest.mark.parametrize("data", [None, b"junk"])
def test_a_damaged_record(
    caplog: pytest.LogCaptureFixture, subject: str | None, field: str, data: bytes | None
) -> None:
    """A record without what the server wrote about it counts as not there, which is logged; what is written then begins a new session."""
    site = Site()
    browser = site.browser(subject, a=1)
    table = site.store._memory.table
    record = table.get(site.sessions.record_key((browser.cookie or "")[:16]), site.clock.time())
    if data is None:
        del record[field]
    else:
        record[field] = data
    request = browser.request()
    assert "a" not in request.view
    request.view["b"] = 2
    assert 200 == request.finish()
    assert "is damaged; it counts as not there" in caplog.text
    assert ("b", 2) == (*browser.request().view, browser.request().view["b"])


@pytest.mark.parametrize("data", [None, "junk"])
def test_a_damaged_generation(valkey: Valkey, data: str | None) -> None:
    """Where nobody is logged in, nothing depends on it: the session can be read and written, and somebody may log in."""
    site = make_site(store=valkey.url, deadline=2)
    try:
        browser = Browser(site)
        with browser.request() as view:
            view["a"] = 1
        [key] = valkey.run("KEYS", "*")
        valkey.run("HDEL", key, "@g") if data is None else valkey.run("HSET", key, "@g", data)
        with browser.request() as view:
            view["a"] += 1
        with browser.request() as view:
            view.login("alice")
        assert (2, "alice") == (browser.request().view["a"], browser.request().view.principal.subject)
    finally:
        site.close()


@pytest.mark.parametrize("known", [False, True], ids=["new", "known"])
def test_waiting_comes_last(known: bool) -> None:
    """Replicas are waited for when all that the request writes is written, limits' part as well, whenever their decorator decides."""
    site = Site(session_wait=1)

    @limit("9/hour", charge_on=(401,))
    def early() -> None: ...

    @limit("8/hour", charge_on=(401,))
    def late() -> None: ...

    browser = site.browser(a=1) if known else site.browser()
    request = browser.request(early)
    request.view.login("alice")
    token = enter(request.exchange)
    try:
        late()
    finally:
        leave(token)
    site.store.flights.clear()
    assert 200 == request.finish()
    (settled,) = flights(site)
    assert ["wait"] == [name for name in settled if name == "wait"]
    assert ("wait", 2) == (settled[-1], len([name for name in settled if name.startswith("ratelimit.")]))


@pytest.mark.parametrize("what", ["login", "rotate", "logout", "write"])
def test_waiting_for_replicas(what: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """A login, another id and a logout wait for replicas, writes do not; where too few confirm it, it is not acknowledged."""
    site = Site(session_wait=2)
    browser = site.browser("alice", a=1)
    before = browser.cookie
    monkeypatch.setattr(Wait, "apply", lambda self, table, now: 1)
    request = browser.request(eager=True)
    if what == "write":
        request.view["a"] = 2
    else:
        getattr(request.view, what)(*(["alice"] if what == "login" else []))
    status = request.finish()
    assert {"login": 503, "rotate": 503, "logout": 202, "write": 200}[what] == status
    assert (what != "write") is ("wait" in flights(site)[-1])
    if what == "logout":
        assert ["__Host-session-logout"] == list(browser.jar)
        return
    # It was written nevertheless: the browser has the id that leads to it.
    assert (browser.cookie == before) is (what == "write")
    with browser.request() as view:
        assert view.principal is not None


def test_waiting_for_a_real_replica() -> None:
    """With a replica that confirms, a login is acknowledged; with none it is not, and takes no longer than half of the deadline."""
    with Valkey() as server, Valkey("--replicaof", f"127.0.0.1 {server.port}") as replica:
        poll(lambda: replica.run("INFO", "replication")["master_link_status"] == "up")
        site = make_site(store=server.url, deadline=2, session_wait=1)

        def log_in() -> int:
            request = Browser(site).request()
            request.view.login("alice")
            return request.finish()

        try:
            poll(lambda: log_in() == 200)
            replica.pause()
            assert 503 == log_in()
            replica.resume()
            poll(lambda: log_in() == 200)
        finally:
            site.close()


# Stores


def test_a_store_of_its_own() -> None:
    """Sessions lie in the store that the settings name, and limits in theirs: two flights at once, of which one may fail."""
    clock = ManualClock()
    site = make_site(FaultyStore(clock=clock), clock, session_store="s", stores={"s": "memory://"}, limits=["9/minute"])
    own = FaultyStore(clock=clock)
    site.stores["s"] = own
    browser = Browser(site)
    with browser.request() as view:
        view["a"] = 1
    with browser.request() as view:
        assert 1 == view["a"]
    assert [("sessions.create",), ("sessions.load",)] == list(own.flights)
    limits: Any = site.store
    assert [("ratelimit.acquire",)] * 2 == list(limits.flights)
    with limits.away(), browser.request() as view:
        assert 1 == view["a"]
    with own.away():
        request = browser.request()
        with pytest.raises(SessionUnavailable):
            request.view["a"]
        assert {"session": "no_connection"} == request.exchange.degraded
    site.close()


def test_two_cookies_of_one_name(site: Site) -> None:
    """Of two cookies of one name that which a seal belongs to is the session's; the other may have been planted."""
    browser = site.browser("alice", a=1)
    planted = SessionId.new(os.urandom)
    cookies = f"__Host-session={planted}; __Host-session={browser.cookie}; __Host-session-seal={browser.jar['__Host-session-seal']}"
    session = site.sessions.open(cookies)
    site.sessions.load(session)
    assert 1 == session.read("a")
