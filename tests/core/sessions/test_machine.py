"""Whole sessions against a plain model: browsers, requests that overlap, logins, revocations, time, and a store that comes and goes."""

import math
import os
from collections import Counter
from contextlib import ExitStack
from dataclasses import dataclass, field
from random import Random
from typing import Any, ClassVar

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, precondition, rule, run_state_machine_as_test

from failsoft.errors import SessionConflict, SessionUnavailable
from failsoft.runtime import Runtime
from failsoft.sessions.ids import SessionId
from failsoft.sessions.state import State
from failsoft.testing import FaultyStore, ManualClock
from tests.core.sessions.sites import Browser, Request, make_site
from tests.servers import Valkey, poll

IDLE, LIFETIME, GRACE = 600, 2000, 10
SUBJECTS = ("alice", "bob")
KEYS = ("a", "b", "list")


@dataclass
class Known:
    """What the model knows of one session in the store."""

    secret: str
    deadline: float
    seen: float
    generation: int
    data: dict[str, Any] = field(default_factory=dict)
    subject: str | None = None
    old: str = ""
    older: str = ""
    older_until: float = 0.0
    until: float = 0.0
    strict: bool = False
    unused: bool = False
    dead: bool = False
    history: list[tuple[str, Any]] = field(default_factory=list)


@dataclass
class Going:
    """A request under way, and what it ought to see."""

    request: Request
    browser: Browser
    cookie: str | None
    state: str = "unloaded"
    base: Known | None = None
    data: dict[str, Any] = field(default_factory=dict)
    stored: set[str] = field(default_factory=set)
    put: dict[str, Any] = field(default_factory=dict)
    removed: set[str] = field(default_factory=set)
    subject: str | None = None
    login: str | None = None
    rotate: bool = False
    renewed: bool = False
    inside: bool = False
    ended: list[tuple[str, str | None, bool]] = field(default_factory=list)

    def forget(self) -> None:
        self.data, self.stored, self.put, self.removed = {}, set(), {}, set()
        self.base = self.subject = self.login = None
        self.rotate = self.renewed = self.inside = False


class Sessions(RuleBasedStateMachine):
    """Whatever overlaps and fails: nothing acknowledged is lost, nothing ended comes back, nobody sees what is another's."""

    snapshot = 0.0
    server: Valkey | None = None

    @initialize()
    def begin_all(self) -> None:
        self.clock = ManualClock()
        self.outage = ExitStack()
        self.away = False
        more: dict[str, Any] = {"session_snapshot": self.snapshot, "session_snapshot_keys": ["a", "list"]}
        if self.server is not None:
            self.server.run("FLUSHALL")
            more |= {"store": self.server.url, "deadline": 2, "session_encrypt": True}
            self.store = None
        else:
            self.store = FaultyStore(clock=self.clock)
        times = {"session_idle": IDLE, "session_absolute": LIFETIME, "session_grace": GRACE}
        if self.server is not None:  # its clock goes on by itself
            times = {"session_grace": 60}
        self.site: Runtime = make_site(self.store, self.clock if self.server is None else None, **times, **more)
        if self.server is not None:
            poll(self._answers)
        assert self.site.sessions is not None
        self.sessions = self.site.sessions
        self.browsers = [Browser(self.site) for _ in range(3)]
        self.known: dict[str, Known] = {}
        self.not_before: dict[str, int] = {}
        self.tickets: dict[int, tuple[str, str | None, bool]] = {}
        self.going: list[Going] = []
        self.number = 0

    def _answers(self) -> bool:
        try:
            return self.site.sessions is not None and self.site.sessions.subjects.list("nobody") == []
        except SessionUnavailable:
            return False

    def teardown(self) -> None:
        if hasattr(self, "site"):
            self.outage.close()
            self.site.close()

    # The model

    @property
    def now(self) -> float:
        return self.clock.time() if self.server is None else 0.0

    def alive(self, cookie: str) -> tuple[Known, str] | None:
        """The session that an id leads to, and how."""
        known = self.known.get(cookie[:16])
        if known is None or known.dead or self.now >= known.deadline or self.now > known.seen + IDLE:
            return None
        if known.secret == cookie:
            return known, "live"
        if known.old == cookie and self.now < known.until:
            return known, "moved" if known.strict else "renewed"
        if known.older == cookie and self.now < known.older_until:
            return known, "moved"
        return None

    def revoked(self, known: Known) -> bool:
        return known.subject is not None and known.generation <= self.not_before.get(known.subject, -1)

    def end(self, cookie: str, subject: str | None, proven: bool, *, mark: bool = False) -> None:
        known = self.known.get(cookie[:16])
        if known is None:
            return
        former = cookie == known.old and not known.strict and self.now < known.until
        if proven or cookie == known.secret or former or (mark and subject is not None):
            known.dead = True

    def expect(self, going: Going) -> None:
        """Work out what a request that asks the store now is told."""
        going.inside = False
        if self.away:
            going.state = "away"
            return
        if id(going.browser) in self.tickets and going.request.session.ticket is not None:
            self.end(*self.tickets[id(going.browser)], mark=True)
        found = None if going.cookie is None else self.alive(going.cookie)
        if found is not None and found[1] != "moved":
            found[0].seen = self.now  # also where it is then found to be revoked
            if found[0].unused and found[1] == "live":  # from now on the browser is known to have it
                found[0].unused, found[0].until = False, self.now + GRACE
        if found is None or (found[1] != "moved" and self.revoked(found[0])):
            going.state, going.cookie = "new", None
        elif found[1] == "moved":
            going.state = "moved"
        else:
            known, how = found
            going.state, going.base, going.renewed = "live", known, how == "renewed"
            going.data, going.stored, going.subject = _copy(known.data), set(known.data), known.subject

    def loaded(self, going: Going) -> None:
        """Have the session asked for, and compare."""
        if going.state == "unloaded":
            self.expect(going)
        session = going.request.session
        try:
            principal = session.principal
        except SessionUnavailable:
            assert going.state == "away"
            assert not going.ended
            return
        if going.state == "away":
            assert session.degraded
            assert self.snapshot or going.ended
            return
        assert {"new": State.NEW, "live": State.LIVE, "moved": State.MOVED}[going.state] is session.state
        assert (going.login or going.subject) == (None if principal is None else principal.subject)
        assert going.renewed is session.renewed

    # What happens

    @precondition(lambda self: len(self.going) < 5)
    @rule(which=st.integers(0, 2), eager=st.booleans())
    def begin(self, which: int, eager: bool) -> None:
        browser = self.browsers[which]
        cookie = browser.cookie
        request = Request(browser, eager=eager)
        going = Going(request, browser, cookie)
        self.going.append(going)
        if cookie is None:
            going.state = "new"
            if request.session.ticket is not None and not self.away:
                self.end(*self.tickets[id(browser)], mark=True)
        elif request.session.state is not State.UNLOADED:
            self.expect(going)
            self.loaded(going)

    @precondition(lambda self: self.going)
    @rule(pick=st.integers(0, 9))
    def read(self, pick: int) -> None:
        going = self.going[pick % len(self.going)]
        self.loaded(going)
        if going.state == "away":
            if going.request.session.state is State.SNAPSHOT and not going.inside:
                known = self.known.get((going.cookie or "")[:16])
                for key in going.request.view:  # old, maybe, but what this session once held
                    assert known is not None
                    assert (key, going.request.view[key]) in known.history
            return
        assert going.data == dict(going.request.view)

    @precondition(lambda self: self.going)
    @rule(pick=st.integers(0, 9), key=st.sampled_from(KEYS), act=st.sampled_from(["put", "put", "append", "delete"]))
    def change(self, pick: int, key: str, act: str) -> None:
        going = self.going[pick % len(self.going)]
        self.loaded(going)
        view = going.request.view
        self.number += 1
        if act == "append":
            try:
                view["list"].append(self.number)
            except (KeyError, SessionUnavailable):
                assert going.state == "away" or "list" not in going.data
                return
            if going.state == "away":
                going.inside = True
            else:
                going.data["list"].append(self.number)
                going.put["list"] = going.data["list"]
            return
        value: Any = [self.number] if key == "list" else self.number
        try:
            if act == "put":
                view[key] = value
            else:
                del view[key]
        except KeyError:
            assert going.state == "away" or key not in going.data
        except SessionUnavailable:
            assert going.state == "away"
        except SessionConflict:
            assert going.state == "moved"
        else:
            assert going.state in ("new", "live")
            if act == "put":
                going.data[key] = going.put[key] = _copy(value)
                going.removed.discard(key)
            else:
                del going.data[key]
                going.put.pop(key, None)
                if key in going.stored:
                    going.removed.add(key)

    @precondition(lambda self: self.going)
    @rule(pick=st.integers(0, 9), subject=st.sampled_from(SUBJECTS))
    def log_in(self, pick: int, subject: str) -> None:
        going = self.going[pick % len(self.going)]
        self.loaded(going)
        try:
            going.request.view.login(subject)
        except SessionUnavailable:
            assert going.state == "away"
            return
        except SessionConflict:
            assert going.state == "moved"
            return
        assert going.state in ("new", "live")
        if (going.login or going.subject) not in (None, subject):
            self._log_out(going)
        going.login, going.rotate = subject, True

    @precondition(lambda self: self.going)
    @rule(pick=st.integers(0, 9))
    def rotate(self, pick: int) -> None:
        going = self.going[pick % len(self.going)]
        self.loaded(going)
        try:
            going.request.view.rotate()
        except SessionUnavailable:
            assert going.state == "away"
        except SessionConflict:
            assert going.state == "moved" or going.renewed
        else:
            going.rotate = True

    @precondition(lambda self: self.going)
    @rule(pick=st.integers(0, 9))
    def log_out(self, pick: int) -> None:
        going = self.going[pick % len(self.going)]
        self.loaded(going)
        try:
            going.request.view.logout()
        except SessionConflict:
            assert going.state == "moved"
        else:
            self._log_out(going)

    def _log_out(self, going: Going) -> None:
        if going.cookie is not None:
            hint = going.request.session.subject_hint
            going.ended.append((going.cookie, going.subject or hint, going.state == "live"))
        going.forget()
        if going.state != "away":
            going.state, going.cookie = "new", None

    @precondition(lambda self: self.going)
    @rule(pick=st.integers(0, 9))
    def finish(self, pick: int) -> None:
        going = self.going.pop(pick % len(self.going))
        before = dict(going.browser.jar)
        status = going.request.finish()
        assert self._finished(going) == status
        style = self.sessions.style
        if not going.ended:  # a cookie is never deleted but by a logout
            assert style.delete() not in going.request.cookies
            assert before.keys() <= going.browser.jar.keys() | {self.sessions.ticket_style.full_name}

    def _finished(self, going: Going) -> int:
        """Let the model do what the request has done; the status."""
        ticket = self.tickets.pop(id(going.browser), None)
        if ticket is not None and not going.request.session.replayed:
            self.tickets[id(going.browser)] = ticket
        session = going.request.session
        writes = bool(going.put or going.removed or going.login or (going.rotate and going.state == "live"))
        if self.away:
            if going.ended:
                self.tickets[id(going.browser)] = going.ended[-1]
                assert going.browser.cookie is None
                return 503 if writes else 202
            return 503 if writes or going.inside else 200
        if going.ended:
            for ended in going.ended:
                self.end(*ended)
        if going.inside:
            return 503
        if not writes:
            if going.ended:
                assert going.browser.cookie is None
            return 200
        if going.state == "new":
            assert session.id is not None
            known = Known(str(session.id), self.now + LIFETIME, self.now, self._stamp(), subject=going.login)
            assert session.id.handle not in self.known
            self.known[session.id.handle] = known
        else:
            assert going.base is not None
            assert going.cookie is not None
            found = self.alive(going.cookie)
            moves = going.login is not None or going.rotate
            if found is None or found[1] == "moved" or (found[1] == "renewed" and moves):
                return 409
            known = found[0]
            if going.login is not None:
                known.subject, known.deadline, known.generation = going.login, self.now + LIFETIME, self._stamp()
            if moves:
                known.older = known.old if self.now < known.until else ""
                known.older_until = min(known.until, self.now + GRACE)
                known.old, known.strict = going.cookie, going.login is not None
                known.unused = not known.strict
                known.until = self.now + GRACE if known.strict else math.inf
                known.secret = str(session.id)
        known.seen = self.now
        for key in going.removed:
            known.data.pop(key, None)
        known.data |= _copy(going.put)
        known.history += _copy(list(known.data.items()))
        if not going.renewed:
            assert going.state == "live" or going.browser.cookie == known.secret
            assert known.secret == str(session.id) or going.cookie == known.old
        return 200

    def _stamp(self) -> int:
        """A generation. On a server, whose clock does not stand still: a number of our own."""
        if self.server is None:
            return round(self.now * 1_000_000)
        self.number += 1
        return self.number

    @rule(subject=st.sampled_from(SUBJECTS))
    def revoke_all(self, subject: str) -> None:
        try:
            self.sessions.subjects.revoke_all(subject)
        except SessionUnavailable:
            assert self.away
            return
        self.not_before[subject] = max(self._stamp(), self.not_before.get(subject, -1) + 1)
        for known in self.known.values():
            if known.subject == subject:
                known.dead = True

    @rule(which=st.integers(0, 2), subject=st.sampled_from(SUBJECTS))
    def revoke(self, which: int, subject: str) -> None:
        cookie = self.browsers[which].cookie or "x" * 59
        known = self.known.get(cookie[:16])
        there = known is not None and self.alive(known.secret) is not None and known.subject == subject
        try:
            assert there is self.sessions.subjects.revoke(subject, cookie[:16])
        except SessionUnavailable:
            assert self.away
            return
        if there and known is not None:
            known.dead = True

    @rule()
    def listed(self) -> None:
        if self.away:
            return
        for subject in SUBJECTS:
            expected = {
                handle
                for handle, known in self.known.items()
                if known.subject == subject and self.alive(known.secret) and not self.revoked(known)
            }
            found = [one.handle for one in self.sessions.subjects.list(subject)]
            assert sorted(expected) == sorted(found)

    @rule(which=st.integers(0, 2))
    def invent(self, which: int) -> None:
        """An id that was made up, with a handle that exists or not, opens nothing and is never adopted."""
        cookie = self.browsers[which].cookie
        invented = SessionId.new(os.urandom)
        for handle in (invented.handle, (cookie or str(invented))[:16]):
            thief = Browser(self.site)
            thief.jar["__Host-session"] = forged = handle + invented.secret
            request = Request(thief)
            try:
                request.view["a"] = -1
            except SessionUnavailable:
                assert self.away
                continue
            assert {"a": -1} == dict(request.view)
            request.finish()
            assert thief.cookie is not None
            if request.status == 200:
                assert forged[:16] != thief.cookie[:16]

    @precondition(lambda self: self.server is None)
    @rule(seconds=st.sampled_from([0.001, 1, GRACE, IDLE / 2, IDLE, LIFETIME]))
    def wait(self, seconds: float) -> None:
        self.clock.advance(seconds)

    @precondition(lambda self: self.store is not None)
    @rule()
    def comes_and_goes(self) -> None:
        assert self.store is not None
        if self.away:
            self.outage.close()
        else:
            self.outage.enter_context(self.store.away())
        self.away = not self.away


class Walk:
    """A long random history. Hypothesis finds short ones, and says what fails in few words; here most of the time somebody is logged in."""

    WEIGHTS: ClassVar[dict[str, float]] = {
        "begin": 8, "read": 6, "change": 10, "finish": 9, "log_in": 2, "rotate": 3, "log_out": 0.5, "revoke_all": 0.2,
        "revoke": 0.2, "listed": 0.5, "invent": 0.2, "wait": 1.5, "comes_and_goes": 0.4,
    }  # fmt: skip

    def __init__(self, seed: int, steps: int, **said: Any) -> None:
        self.random = Random(seed)
        self.machine = type("Walked", (Sessions,), said)()
        self.counts: Counter[str] = Counter()
        self.machine.begin_all()
        try:
            for _ in range(steps):
                (name,) = self.random.choices(list(self.WEIGHTS), list(self.WEIGHTS.values()))
                self.step(name)
        finally:
            self.machine.teardown()

    def step(self, name: str) -> None:
        machine, choice = self.machine, self.random.choice
        pick = self.random.randrange(10)
        which = choice([0, 0, 0, 1, 2])
        if name in ("read", "change", "finish", "log_in", "rotate", "log_out"):
            if not machine.going:
                return
            going = machine.going[pick % len(machine.going)]
            before = going.state
            if name == "change":
                machine.change(pick, choice(KEYS), choice(["put", "put", "append", "append", "delete"]))
            elif name == "log_in":
                machine.log_in(pick, choice(SUBJECTS))
            else:
                getattr(machine, name)(pick)
            if name == "finish":
                self.counts[f"{before} {going.request.status}"] += 1
                self.counts["renewed"] += going.renewed
                self.counts["replayed"] += going.request.session.replayed
        elif name == "begin":
            if len(machine.going) < 5:
                machine.begin(which, choice([True, False, False, False]))
        elif name == "revoke_all":
            machine.revoke_all(choice(SUBJECTS))
        elif name == "revoke":
            machine.revoke(which, choice(SUBJECTS))
        elif name == "invent":
            machine.invent(which)
        elif name == "listed":
            machine.listed()
        elif machine.server is None:
            if name == "wait":
                machine.wait(
                    self.random.choices([0.001, 1, GRACE, IDLE / 2, IDLE, LIFETIME], [9, 5, 0.5, 0.5, 0.2, 0.05])[0]
                )
            else:
                machine.comes_and_goes()
        if machine.away and self.random.random() < 0.05:
            machine.comes_and_goes()


def _copy(value: Any) -> Any:
    if isinstance(value, dict):
        return {name: _copy(one) for name, one in value.items()}
    return [*map(_copy, value)] if isinstance(value, list) else value


@pytest.mark.broad
@pytest.mark.parametrize("snapshot", [0.0, 300.0], ids=["none", "snapshot"])
def test_long_histories(snapshot: float) -> None:
    """The same of long histories, in which everything happens that can."""
    counts: Counter[str] = Counter()
    for seed in range(25):
        try:
            counts += Walk(seed, 400, snapshot=snapshot).counts
        except BaseException as error:
            error.add_note(f"seed {seed}")
            raise
    expected = {"away 202", "live 200", "live 409", "live 503", "moved 200", "new 200", "renewed", "replayed"}
    assert set() == {one for one in expected if counts[one] < 5}, counts


@pytest.mark.broad
@pytest.mark.parametrize("snapshot", [0.0, 300.0], ids=["none", "snapshot"])
def test_in_this_process(snapshot: float) -> None:
    """Any history of requests, with a store that comes and goes, does what the model does."""
    run_state_machine_as_test(
        type("InProcess", (Sessions,), {"snapshot": snapshot}),
        settings=settings(max_examples=settings().max_examples // 2, stateful_step_count=60, deadline=None),
    )


def test_long_histories_on_a_server(valkey: Valkey) -> None:
    """Long histories on a real server, where sessions are encrypted; its time cannot be set."""
    counts: Counter[str] = Counter()
    for seed in range(4):
        counts += Walk(seed, 300, server=valkey).counts
    expected = {"live 200", "live 409", "new 200"}
    assert set() == {one for one in expected if counts[one] < 3}, counts


def test_on_a_server(valkey: Valkey) -> None:
    """The same on a real server, where sessions are encrypted; its time cannot be set."""
    run_state_machine_as_test(
        type("OnServer", (Sessions,), {"server": valkey}),
        settings=settings(max_examples=max(5, settings().max_examples // 10), stateful_step_count=40, deadline=None),
    )
