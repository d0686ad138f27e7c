"""A primary dies or hangs under load: nobody is logged out or given another's session, and no acknowledged write is lost unnoticed."""

import threading
import time
from collections import Counter
from collections.abc import Callable, Mapping
from typing import Any, Final

import pytest

from failsoft.errors import SessionUnavailable
from failsoft.events import Event, SessionGone, SessionRolledBack
from failsoft.testing.contract.session_site import Browser
from failsoft.testing.harness import App, Harness
from failsoft.testing.site import Answer, Call, View
from tests.all.session_site import HARNESSES, site
from tests.flask.harness import FlaskHarness
from tests.sentinels import Watched
from tests.servers import Valkey, poll
from tests.starlette.harness import StarletteHarness

pytestmark = [pytest.mark.processes, pytest.mark.timeout(180)]

PATIENCE: Final = 45.0


SNAPSHOT: Final[Mapping[str, Any]] = {"session_snapshot": 300, "session_snapshot_keys": ["n", "owner"]}


class Heard:
    """What was told of sessions that the store forgot, by whose they were."""

    def __init__(self, app: App) -> None:
        self.rolled_back: Counter[str | None] = Counter()
        self.lost = 0
        self._lock = threading.Lock()
        app.runtime.listen(self._hear)

    def _hear(self, event: Event) -> None:
        with self._lock:
            if isinstance(event, SessionRolledBack):
                self.rolled_back[event.subject] += 1
            self.lost += isinstance(event, SessionGone) and event.reason == "lost"


class Client(threading.Thread):
    """Reads its own session and counts in it, again and again.

    Attributes:
        wrong: what it should never have been answered.
        read: answers that came from the store.
        acknowledged: the highest number that it was told was written, and found since.
        written: how often it was told so.
        lost: what it was told was written, and what it found instead.
    """

    def __init__(self, app: App, number: int, heard: Heard, stop: threading.Event) -> None:
        super().__init__()
        self.user = f"user{number}"
        self.browser = Browser(app)
        self._heard, self._over = heard, stop
        self.wrong: list[str] = []
        self.read = self.written = self.refused = self.snapshots = 0
        self.acknowledged = self._sealed = 0
        self.lost: list[tuple[int, int]] = []
        self.degraded_at = 0.0
        poll(lambda: self.browser.get(f"/login/{self.user}").status == 200)
        assert 200 == self.browser.get("/write/0").status

    def run(self) -> None:
        number = 0
        while not self._over.wait(0.1):
            self._look()
            number += 1
            self._count(number)
            if {"sessionid", "sessionid-seal"} != set(self.browser.jar):
                self.wrong.append(f"cookies {set(self.browser.jar)}")

    def _look(self) -> None:
        reply = self.browser.get("/mine")
        if reply.status != 200:
            self.wrong.append(f"reading: {reply.status} {reply.raised!r}")
            return
        found = reply.json()
        if (found["user"], found["owner"]) != (self.user, self.user):
            self.wrong.append(f"another's or nobody's: {found}")
            return
        n = found["n"]
        if reply.header("degraded"):
            self.degraded_at = time.monotonic()
            self.snapshots += 1
            if n != self._sealed:
                self.wrong.append(f"a snapshot of {n}, not of {self._sealed}")
            return
        self.read += 1
        if reply.lines("set-cookie"):
            self._sealed = n
        if n < self.acknowledged:
            self.lost.append((self.acknowledged, n))
            if self._heard.rolled_back[self.user] < len(self.lost):
                self.wrong.append(f"{self.acknowledged} was lost without a word: {n} is there")
            self.acknowledged = n

    def _count(self, number: int) -> None:
        reply = self.browser.get(f"/write/{number}")
        if reply.status == 200:
            self.acknowledged = self._sealed = number
            self.written += 1
            return
        self.degraded_at = time.monotonic()
        self.refused += 1
        if reply.status != 503 or reply.lines("set-cookie"):
            self.wrong.append(f"writing: {reply.status} {reply.lines('set-cookie')} {reply.raised!r}")


def _cut_off(watched: Watched) -> None:
    """Let the replicas follow nobody: what is written from now on is lost with the primary."""
    for node in watched.nodes:
        if node is not watched.primary:
            node.run("REPLICAOF", "127.0.0.1", "1")


def _all_on(clients: list[Client], what: Callable[[Client], int], more: int) -> None:
    """Wait until each client has come so much further."""
    before = [what(client) for client in clients]
    poll(
        lambda: all(what(client) >= known + more for client, known in zip(clients, before, strict=True)),
        within=PATIENCE,
    )


@pytest.mark.parametrize(
    ("harness", "how"),
    [*((harness, "killed") for harness in HARNESSES), (FlaskHarness, "hung"), (StarletteHarness, "hung")],
)
def test_failover_under_load(harness: type[Harness], how: str) -> None:
    """The primary goes with writes that no replica has: clients read on from their snapshots, and hear of what was lost."""
    with Watched() as watched, harness().build(site(**SNAPSHOT, store=watched.url)) as app:
        app.runtime.start()
        heard, stop = Heard(app), threading.Event()
        clients = [Client(app, number, heard, stop) for number in range(1, 5)]
        for client in clients:
            client.start()
        try:
            _all_on(clients, lambda client: client.written, 5)
            old = watched.primary
            _cut_off(watched)
            _all_on(clients, lambda client: client.written, 5)
            late = Browser(app)
            assert 200 == late.get("/login/late").status
            (old.kill if how == "killed" else old.pause)()
            poll(lambda: watched.promoted(old), within=30)
            promoted = time.monotonic()
            _all_on(clients, lambda client: client.read, 10)
            if how == "hung":
                old.resume()  # and still believes to be the primary
                _all_on(clients, lambda client: client.read, 10)
            _all_on(clients, lambda client: client.written, 5)
        finally:
            stop.set()
            for client in clients:
                client.join()
        assert [[]] * 4 == [client.wrong for client in clients]
        # Each is told of each loss: of two, where the old primary comes back and takes writes for a moment.
        assert {client.user for client in clients} == set(heard.rolled_back)
        assert all(len(client.lost) <= heard.rolled_back[client.user] for client in clients)
        assert all(client.snapshots and client.refused for client in clients)
        assert 0 == heard.lost
        # As soon as the new primary is asked: one that only hung still knows the session, until it is told who is primary now.
        poll(lambda: late.get("/mine").json()["user"] is None, within=PATIENCE)
        assert 1 == heard.lost
        back = max(client.degraded_at for client in clients) - promoted
        print(f"{harness.name}, {how}: back {back:.2f} s after the promotion, lost {[c.lost for c in clients]}")
        assert back < 10


@pytest.mark.parametrize("harness", [FlaskHarness, StarletteHarness])
def test_failover_of_what_a_replica_has(harness: type[Harness]) -> None:
    """With `session_wait` every acknowledged login, new id and end survives; what no replica has is not acknowledged."""
    with Watched(replicas=1) as watched, harness().build(site(store=watched.url, session_wait=1, deadline=2)) as app:
        app.runtime.start()
        sessions = app.runtime.sessions
        assert sessions is not None
        poll(lambda: Browser(app).get("/login/first").status == 200)
        stop = threading.Event()
        alive: list[tuple[str, Browser]] = []
        ended: list[tuple[str, Browser]] = []

        def come_and_go(number: int) -> None:
            turn = 0
            while not stop.wait(0.02):
                turn += 1
                user, browser = f"user{number}-{turn}", Browser(app)
                if browser.get(f"/login/{user}").status != 200:
                    continue
                former = browser.copy()
                if turn % 4 == 0 and browser.get("/rotate").status != 200:
                    continue
                if turn % 4 == 1:
                    if browser.get("/logout").status == 200:
                        ended.append((user, former))
                elif turn % 4 == 2:
                    try:
                        sessions.subjects.revoke_all(user)
                    except SessionUnavailable:
                        continue
                    ended.append((user, former))
                else:
                    alive.append((user, browser))

        threads = [threading.Thread(target=come_and_go, args=(number,)) for number in range(3)]
        for thread in threads:
            thread.start()
        try:
            poll(lambda: len(alive) > 10 and len(ended) > 10, within=PATIENCE)
            old = watched.primary
            old.kill()
            poll(lambda: watched.promoted(old), within=30)
        finally:
            stop.set()
            for thread in threads:
                thread.join()
        poll(lambda: Browser(app, alive[0][1].jar).get("/mine").status == 200, within=PATIENCE)
        # Each in the words of the new primary.
        assert [(user, None) for user, _ in ended] == [(user, one.get("/mine").json()["user"]) for user, one in ended]
        assert [user for user, _ in alive] == [one.get("/mine").json()["user"] for _, one in alive]
        assert (503, 200) == (Browser(app).get("/login/nobody").status, alive[0][1].get("/write/1").status)
        watched.mend()
        poll(lambda: Browser(app).get("/login/last").status == 200, within=PATIENCE)


class Rolled:
    """A server that can be put back to where it was."""

    def __init__(self, server: Valkey) -> None:
        self._server = server
        with server.client() as client:
            keys: Any = client.keys("*")
            self._kept = [(key, client.execute_command("DUMP", key, NEVER_DECODE=True)) for key in keys]

    def back(self) -> None:
        """As a server that was promoted without the last writes."""
        with self._server.client() as client:
            client.flushdb()
            for key, data in self._kept:
                client.restore(key, 600_000, data)


@pytest.mark.parametrize("harness", HARNESSES)
def test_what_is_lost_in_the_middle_of_a_request(harness: type[Harness]) -> None:
    """A request that read what is lost by the time it writes tells of it, also where the versions come out even."""
    with Valkey() as server:
        rolled: list[Rolled] = []

        def slow(call: Call) -> Answer:
            session = call.session()
            assert 2 == session["n"]
            rolled[0].back()
            session["late"] = 1
            return Answer()

        with harness().build(site(View(path="/slow", handle=slow), store=server.url, deadline=5)) as app:
            app.runtime.start()
            heard, browser = Heard(app), Browser(app)
            poll(lambda: browser.get("/login/ada").status == 200)
            assert 200 == browser.get("/write/1").status
            rolled.append(Rolled(server))
            assert 200 == browser.get("/write/2").status
            assert 200 == browser.get("/slow").status
            assert {"ada": 1} == dict(heard.rolled_back)
            found = browser.get("/mine").json()
            assert ("ada", 1) == (found["user"], found["n"])
            assert {"ada": 1} == dict(heard.rolled_back)
