"""Tasks of one request that share its session: what one does while another waits for the store is not lost."""

import asyncio
import contextlib
from collections.abc import Callable
from typing import Any

import pytest

from failsoft.errors import OperationFailed, SessionConflict, SessionUnavailable, StoreUnavailable
from failsoft.sessions.content import Content
from failsoft.sessions.operations import List
from failsoft.sessions.saving import Saving
from failsoft.sessions.session import Session
from failsoft.sessions.state import State
from tests.core.requests import FakeFacts
from tests.core.sessions.sites import Browser, Request, Site


@pytest.fixture
def site() -> Site:
    return Site()


def meanwhile(site: Site, session: Session, act: Callable[[], object]) -> Saving:
    """Save the session, and `act` between its writing and the answer. Returns what has saved it."""
    saving = Saving(session)
    wanted = saving.settle(200)
    answers = site.store.flight(wanted)
    act()
    while wanted := saving.confirm(answers):
        assert isinstance(wanted, list)
        answers = site.store.flight(wanted)
    return saving


def end(request: Request, *saved: Saving) -> None:
    """Answer the request, with the cookies of what was saved before."""
    request.finish()
    later = request.cookies
    for saving in saved:
        request.browser.take([("Set-Cookie", cookie) for cookie in saving.cookies])
    request.browser.take([("Set-Cookie", cookie) for cookie in later])


@pytest.mark.parametrize("stored", [True, False], ids=["live", "new"])
def test_a_login_during_a_save(site: Site, stored: bool) -> None:
    """Who logs in while another task saves gets another id, and is in the list of their sessions."""
    browser = site.browser(None, a=1) if stored else Browser(site.runtime)
    request = browser.request()
    request.view["b"] = 2
    saving = meanwhile(site, request.session, lambda: request.view.login("alice"))
    before = saving.cookies[0] if not stored else f"__Host-session={browser.cookie}"
    end(request, saving)
    assert (browser.cookie or "")[:16] in before
    assert str(browser.cookie) not in before
    assert [(browser.cookie or "")[:16]] == [one.handle for one in site.sessions.subjects.list("alice")]
    with browser.request() as view:
        assert (2, "alice") == (view["b"], view.principal and view.principal.subject)


def test_a_rotation_during_a_save(site: Site) -> None:
    """Who asks for another id while another task saves gets it; strictly, if it was to be."""
    browser = site.browser(None, a=1)
    old = browser.cookie
    request = browser.request()
    request.view["b"] = 2
    end(request, meanwhile(site, request.session, lambda: request.view.rotate(strict=True)))
    assert old != browser.cookie
    thief = Browser(site.runtime)
    thief.jar["__Host-session"] = old or ""
    stolen = thief.request()
    assert State.UNLOADED is stolen.session.state
    site.sessions.load(stolen.session)
    assert State.MOVED is stolen.session.state


def test_a_strict_rotation_during_one_that_is_not(site: Site) -> None:
    """The second rotation is not taken for done by the first, whose old id would go on."""
    browser = site.browser(None, a=1)
    request = browser.request()
    request.view.rotate()
    saving = meanwhile(site, request.session, lambda: request.view.rotate(strict=True))
    first = saving.cookies[0]
    end(request, saving)
    assert str(browser.cookie) not in first


def test_a_logout_during_the_save_of_a_login(site: Site) -> None:
    """Who logs out while the login is being stored is logged out, and nothing of the session stays."""
    browser = Browser(site.runtime)
    request = browser.request()
    request.view.login("alice")
    saving = meanwhile(site, request.session, request.view.logout)
    assert State.NEW is request.session.state
    end(request, saving)
    assert (None, []) == (browser.cookie, site.sessions.subjects.list("alice"))


@pytest.mark.parametrize("wrong", ["enrol", "wait"])
def test_a_logout_during_a_login_that_is_not_acknowledged(wrong: str) -> None:
    """The session goes, too, although its user was not told of it, or too few replicas have it."""
    site = Site(session_wait=1)
    request = Browser(site.runtime).request()
    request.view.login("alice")
    saving = Saving(request.session)
    wanted = saving.settle(200)
    answers: list[Any] = list(site.store.flight(wanted))
    place = next(i for i, one in enumerate(wanted) if one.script.name == f"sessions.{wrong}")
    answers[place] = {"enrol": OperationFailed("full"), "wait": 0}[wrong]
    request.view.logout()
    later = saving.confirm(answers)
    assert isinstance(later, list)
    site.store.flight(later)
    assert [] == site.sessions.subjects.list("alice")
    assert saving._sent is not None
    assert site.sessions.subjects.look(saving._sent.identity.handle) is None


def test_two_logins_of_a_user_at_their_cap() -> None:
    """A session that is listed and not yet written is left in the list by whoever looks which of them still live."""
    site = Site(session_cap=1)
    slow, quick = (Browser(site.runtime).request() for _ in range(2))
    slow.view.login("alice")
    quick.view.login("alice")
    saving = Saving(slow.session)
    wanted = saving.settle(200)
    answers = list(site.store.flight(wanted[:1]))
    quick.finish()
    answers += site.store.flight(wanted[1:])
    assert () == saving.confirm(answers)
    handles = [slow.session.handle, quick.session.handle]
    assert sorted(map(str, handles)) == sorted(one.handle for one in site.sessions.subjects.list("alice"))
    site.clock.advance(1)
    browser = site.browser("alice")
    assert [(browser.cookie or "")[:16]] == [one.handle for one in site.sessions.subjects.list("alice")]


def test_what_was_listed_and_never_written() -> None:
    """It is taken off the list when nobody can be about to write it."""
    site = Site(session_cap=1)
    request = Browser(site.runtime).request()
    request.view.login("alice")
    site.store.flight(Saving(request.session).settle(200)[:1])
    key = site.sessions.subject_key("alice")
    counts = []
    for _ in range(2):
        site.clock.advance(31)
        site.browser("alice")
        counts.append(len(site.store.flight([List(key, lifetime=site.sessions.lifetime)])[0].sessions))
    assert [2, 1] == counts


def test_two_saves_and_a_logout_between(site: Site) -> None:
    """The answer to a save that comes after a logout was carried out brings the dead session not back."""
    browser = site.browser("alice", a=1)
    request = browser.request()
    request.view["b"] = 2
    saves: list[Saving] = []

    def logout() -> None:
        request.view.logout()
        saves.append(meanwhile(site, request.session, lambda: None))

    first = meanwhile(site, request.session, logout)
    assert State.NEW is request.session.state
    end(request, first, *saves)
    assert (None, []) == (browser.cookie, site.sessions.subjects.list("alice"))


def cancelled(site: Site, request: Request, monkeypatch: pytest.MonkeyPatch, *, flights: int = 1) -> None:
    """Save the session, and cancel that in its last flight, which the store has carried out and not answered yet."""
    monkeypatch.setattr(FakeFacts, "synchronous", False)  # as on a shared event loop
    aflight = site.store.aflight
    made: list[Any] = []

    async def slowly(operations: Any) -> Any:
        answers = await aflight(operations)
        made.append(answers)
        if len(made) == flights:
            task.cancel()
            await asyncio.sleep(0)
        return answers

    async def save() -> None:
        nonlocal task
        task = asyncio.create_task(site.sessions.asave(request.session))
        with contextlib.suppress(asyncio.CancelledError):
            await task

    task: Any = None
    with monkeypatch.context() as patched:
        patched.setattr(site.store, "aflight", slowly)
        asyncio.run(save())
    assert flights == len(made)
    monkeypatch.setattr(FakeFacts, "synchronous", True)


def test_a_logout_whose_save_was_cancelled(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    """It is carried out with the response."""
    browser = site.browser("alice", a=1)
    request = browser.request()
    request.view.logout()
    cancelled(site, request, monkeypatch)
    request.finish()
    assert (None, []) == (browser.cookie, site.sessions.subjects.list("alice"))


def test_a_logout_whose_save_was_cancelled_while_the_store_was_away(site: Site) -> None:
    """Neither is the ticket lost that makes up for it later."""
    browser = site.browser("alice", a=1)
    request = browser.request()
    request.view.logout()
    saving = Saving(request.session)
    steps = saving.steps()
    next(steps)
    steps.close()
    with site.store.away():
        request.finish()
    assert ["__Host-session-logout"] == list(browser.jar)


def test_a_value_that_is_deleted_after_a_save_was_cancelled(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    """It may be stored, so it is deleted there; what was stored before stays."""
    browser = site.browser(None, a=1)
    request = browser.request()
    request.view.update(b=2, c=3)
    request.view["a"] = 4
    cancelled(site, request, monkeypatch)
    assert b"2" == site.stored(browser)["b"]
    del request.view["b"]
    request.finish()
    with browser.request() as view:
        assert {"a": 4, "c": 3} == dict(view)


def test_a_value_that_is_deleted_after_a_save_without_an_answer(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    """The same where the store has stored it and not said so."""
    browser = site.browser(None, a=1)
    request = browser.request()
    request.view["b"] = 2
    saving = Saving(request.session)
    site.store.flight(saving.settle(200))
    saving.confirm(StoreUnavailable("timeout"))
    del request.view["b"]
    request.finish()
    with browser.request() as view:
        assert {"a": 1} == dict(view)


@pytest.mark.parametrize("asked", [True, False])
@pytest.mark.parametrize("user", ["alice", None])
@pytest.mark.parametrize("lost", ["answer", "question"])
def test_a_new_session_whose_save_had_no_answer(site: Site, asked: bool, user: str | None, lost: str) -> None:
    """It is saved at the second attempt, with the id that whoever asked for it was told; no other session of it is left."""
    request = Browser(site.runtime).request()
    request.view.update(a=1, b=2)
    if user is not None:
        request.view.login(user)
    told = str(request.session.coming_id()) if asked else None
    saving = Saving(request.session)
    wanted = saving.settle(200)
    if lost == "answer":
        site.store.flight(wanted)
    assert isinstance(saving.confirm(StoreUnavailable("timeout")), SessionUnavailable)
    del request.view["a"]
    request.view["b"] = 3
    assert 200 == request.finish()
    assert told in (None, request.browser.cookie)
    with request.browser.request() as view:
        assert ({"b": 3}, user) == (dict(view), view.principal and view.principal.subject)
    if user is not None:
        assert [(request.browser.cookie or "")[:16]] == [one.handle for one in site.sessions.subjects.list(user)]


def test_a_new_session_that_is_lost_with_its_response(site: Site) -> None:
    """What is begun after that has another id, and asks nothing more than any other."""
    request = Browser(site.runtime).request()
    request.view["a"] = 1
    saving = Saving(request.session)
    site.store.flight(saving.settle(200))
    saving.confirm(StoreUnavailable("timeout"))
    request.session.lose()
    request.view["b"] = 2
    assert [["sessions.create"]] == [[one.script.name for one in Saving(request.session).settle(200)]]
    request.finish()
    with request.browser.request() as view:
        assert {"b": 2} == dict(view)


def test_a_save_that_was_cancelled_after_the_login_was_stored(monkeypatch: pytest.MonkeyPatch) -> None:
    """The browser gets the new id, although the older sessions of the user were not ended in time."""
    site = Site(session_cap=1)
    site.browser("alice")
    browser = site.browser(None, a=1)
    request = browser.request()
    request.view.login("alice")
    cancelled(site, request, monkeypatch, flights=2)
    request.finish()
    with browser.request() as view:
        assert (1, "alice") == (view["a"], view.principal and view.principal.subject)


@pytest.mark.parametrize("subject", [None, "alice"])
def test_two_threads_load(site: Site, monkeypatch: pytest.MonkeyPatch, subject: str | None) -> None:
    """Of two threads that load the session at the same time, the later one leaves alone what the quicker one has changed since."""
    browser = site.browser(subject, a=1)
    request = browser.request()
    made: list[Content] = []

    def slowly(*arguments: Any) -> Content:
        monkeypatch.undo()
        request.view["b"] = 2  # the quicker one, from beginning to end
        made.append(Content(*arguments))
        return made[0]

    monkeypatch.setattr("failsoft.sessions.loading.Content", slowly)
    site.sessions.load(request.session)
    assert 1 == len(made)
    request.finish()
    with browser.request() as view:
        assert {"a": 1, "b": 2} == dict(view)


def test_two_tasks_revoke_the_other_sessions(site: Site) -> None:
    """The one that is later is told so, and the browser gets the id that the other one has written."""
    browser = site.browser("alice", a=1)
    request = browser.request()
    tasks = [site.sessions.subjects._revoke_others(request.session) for _ in range(2)]
    wanted = [next(task) for task in tasks]
    for _ in range(2):  # the session, and the mark that revokes
        wanted = [task.send(site.store.flight(operations)) for task, operations in zip(tasks, wanted, strict=True)]
    assert [["sessions.write"]] * 2 == [[one.script.name for one in operations] for operations in wanted]
    with pytest.raises(StopIteration):
        tasks[0].send(site.store.flight(wanted[0]))
    with pytest.raises(SessionConflict):
        tasks[1].send(site.store.flight(wanted[1]))
    request.finish()
    with browser.request() as view:
        assert (1, "alice") == (view["a"], view.principal and view.principal.subject)
