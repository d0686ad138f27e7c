"""One browser, one origin, three frameworks in processes of their own, one session.

HAProxy stands in front where it is installed. Without it the browser itself sends each path to its server, with one jar for all.
"""

import json
import shutil
import threading
from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import pytest

from failsoft.runtime import Runtime
from failsoft.settings import Settings
from tests.processes import Answer, Served
from tests.servers import Valkey, poll

SECRET = "one secret for all of them, forty characters"
PLACES = ("flask", "django", "api")

pytestmark = [pytest.mark.processes, pytest.mark.timeout(180)]

HAPROXY = """
global
  maxconn 1000
defaults
  mode http
  timeout connect 2s
  timeout client 60s
  timeout server 60s
frontend origin
  bind "127.0.0.1:$ORIGIN"
  use_backend django if {{ path_beg /django }}
  use_backend api if {{ path_beg /api }}
  default_backend flask
backend flask
  server one 127.0.0.1:{flask}
backend django
  server one 127.0.0.1:{django}
backend api
  server one 127.0.0.1:{api}
"""


def degraded(reply: Answer) -> bool:
    """Whether the session was."""
    return "session" in (reply.headers["Degraded"] or "")


class Browser:
    """One cookie jar; any number of requests at once."""

    def __init__(self, world: "World") -> None:
        self.world = world
        self.jar: dict[str, str] = {}
        self._lock = threading.Lock()

    def send(self, method: str, path: str) -> Answer:
        with self._lock:
            cookies = "; ".join(f"{name}={value}" for name, value in self.jar.items())
        reply = self.world.servers[path.split("/")[1]].send(method, path, {"Cookie": cookies} if cookies else {})
        with self._lock:
            for cookie in reply.headers.get_all("set-cookie") or ():
                name, _, value = cookie.partition(";")[0].partition("=")
                if "max-age=0" in cookie.lower():
                    self.jar.pop(name, None)
                else:
                    self.jar[name] = value
        return reply

    def get(self, path: str) -> Answer:
        return self.send("GET", path)

    def post(self, path: str) -> Answer:
        return self.send("POST", path)

    def me(self, place: str) -> Any:
        reply = self.get(f"/{place}/me")
        assert 200 == reply.status, (reply, self.world.applications[place].log())
        return json.loads(reply.body)


class World(NamedTuple):
    """All that runs.

    Attributes:
        applications: by their places.
        servers: whom a browser asks for each place: what stands in front, or the application.
        slow: a file that a slow request waits for.
    """

    store: Valkey
    applications: Mapping[str, Served]
    servers: Mapping[str, Served]
    slow: Path

    def browser(self) -> Browser:
        return Browser(self)

    def runtime(self) -> Runtime:
        """Ours, beside the servers: who manages sessions."""
        return Runtime(Settings(store=self.store.url, sessions=True, secret=SECRET))

    def up(self, place: str) -> bool:
        """Whether that part uses the store; by its limits, for a browser without a session has none that could be degraded."""
        reply = self.browser().get(f"/{place}/me")
        assert 500 != reply.status, self.applications[place].log()
        return reply.status == 200 and reply.headers["Degraded"] is None


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    """The store, which keeps what it answered; the three servers; what stands in front."""
    slow = tmp_path_factory.mktemp("one") / "slow"
    module = "tests.all.one_session.served_"
    gunicorn = ["gunicorn", "--threads=8", "--log-level=warning", "--bind=127.0.0.1:{port}"]
    commands = {
        "flask": [*gunicorn, f"{module}flask:app"],
        "django": [*gunicorn, f"{module}django:application"],
        "api": ["uvicorn", "--log-level=warning", "--port={port}", f"{module}fastapi:app"],
    }
    with Valkey("--appendonly", "yes", "--appendfsync", "always") as store, ExitStack() as stack:
        variables = {
            "FAILSOFT_STORE": store.url,
            "FAILSOFT_WORKERS": "1",
            "FAILSOFT_DEADLINE": "1",  # this machine may be busy with other things
            "APP_SECRET": SECRET,
            "SLOW": str(slow),
        }
        applications = servers = {
            place: stack.enter_context(Served(command, tmp_path_factory.mktemp(place), **variables))
            for place, command in commands.items()
        }
        if (haproxy := shutil.which("haproxy")) is not None:
            directory = tmp_path_factory.mktemp("haproxy")
            configuration = directory / "haproxy.cfg"
            configuration.write_text(HAPROXY.format_map({place: server.port for place, server in applications.items()}))
            origin = Served([haproxy, "-db", "-f", str(configuration)], directory, ORIGIN="{port}")
            servers = dict.fromkeys(PLACES, stack.enter_context(origin))
        found = World(store, applications, servers, slow)
        for place in PLACES:
            poll(partial(found.up, place), within=40)
        yield found


@pytest.mark.parametrize("place", PLACES)
def test_log_in_on_one_and_be_the_same_user_on_all(world: World, place: str) -> None:
    """A login is seen everywhere, whichever framework made it; it gives the session another id; a logout ends it everywhere."""
    browser = world.browser()
    assert 200 == browser.post(f"/{place}/set/theme/dark").status
    before = browser.jar["session"]
    assert 200 == browser.post(f"/{place}/login/1").status
    assert before != browser.jar["session"]
    for other in PLACES:
        found = browser.me(other)
        assert ("1", ["theme"]) == (found["user"], found["keys"])
    assert "ada" == browser.me("django")["name"]  # a user of Django's, by whose primary key they logged in
    kept = dict(browser.jar)
    assert 200 == browser.post(f"/{PLACES[PLACES.index(place) - 1]}/logout").status
    assert "session" not in browser.jar
    for other in PLACES:
        assert None is browser.me(other)["user"]
        thief = world.browser()
        thief.jar = dict(kept)
        assert None is thief.me(other)["user"]


def test_a_thousand_writes_from_all_sides(world: World) -> None:
    """Different keys, written at the same time through all three: none is lost, and every answer was 200."""
    browser = world.browser()
    browser.post("/flask/login/2")

    def write(number: int) -> int:
        return browser.post(f"/{PLACES[number % 3]}/set/k{number}/v").status

    with ThreadPoolExecutor(12) as pool:
        assert {200} == set(pool.map(write, range(1000)))
    for place in PLACES:
        found = browser.me(place)
        assert "2" == found["user"]
        assert 1000 == sum(key.startswith("k") for key in found["keys"])


@pytest.mark.parametrize("place", PLACES)
def test_a_logout_during_a_slow_request_stays(world: World, place: str) -> None:
    """A request that read the session before the logout and writes to it afterwards does not bring it back, and says so."""
    browser = world.browser()
    browser.post("/flask/login/3")
    kept = dict(browser.jar)
    world.slow.unlink(missing_ok=True)
    begun = Path(f"{world.slow}.begun")
    begun.unlink(missing_ok=True)
    with ThreadPoolExecutor(1) as pool:
        slow = pool.submit(browser.post, f"/{place}/slow/late")
        poll(begun.exists, within=30)
        assert 200 == browser.post(f"/{PLACES[PLACES.index(place) - 1]}/logout").status
        world.slow.touch()
        assert 409 == slow.result(30).status
    for jar in (kept, dict(browser.jar)):
        browser.jar = dict(jar)
        for other in PLACES:
            found = browser.me(other)
            assert (None, False) == (found["user"], "late" in found["keys"])


def test_all_sessions_of_a_user_are_revoked_at_once(world: World) -> None:
    """Three browsers logged in on three frameworks are all out; another user is not."""
    browsers = {place: world.browser() for place in PLACES}
    for place, browser in browsers.items():
        browser.post(f"/{place}/login/4")
    other = world.browser()
    other.post("/api/login/5")
    runtime = world.runtime()
    try:
        runtime.start()
        assert runtime.sessions is not None
        assert 3 == poll(lambda: _or_away(lambda: len(runtime.sessions.subjects.list("4"))))
        runtime.sessions.subjects.revoke_all("4")
    finally:
        runtime.close()
    for browser in browsers.values():
        for place in PLACES:
            assert None is browser.me(place)["user"]
    assert "5" == other.me("flask")["user"]


def _or_away(ask: Any) -> Any:
    from failsoft.errors import SessionUnavailable

    try:
        return ask()
    except SessionUnavailable:  # not connected yet
        return None


@pytest.mark.parametrize("how", ["killed", "hung"])
def test_the_store_goes_and_comes_back(world: World, how: str) -> None:
    """Meanwhile the same user, from the sealed copy, marked; no write is taken; afterwards the same user, and writes are taken."""
    browser = world.browser()
    browser.post("/flask/set/theme/dark")
    browser.post("/flask/login/6")
    browser.me("api")
    (world.store.kill if how == "killed" else world.store.pause)()
    try:
        for _ in range(8):
            for place in PLACES:
                reply = browser.get(f"/{place}/me")
                found = json.loads(reply.body)
                assert (200, "6", ["theme"]) == (reply.status, found["user"], found["keys"])
        for place in PLACES:
            assert degraded(browser.get(f"/{place}/me"))
            refused = browser.post(f"/{place}/set/lost/v")
            assert (503, True, True) == (refused.status, degraded(refused), "retry-after" in refused.headers)
        assert "session" in browser.jar
        assert 503 == browser.post("/api/login/1").status
    finally:
        (world.store.start if how == "killed" else world.store.resume)()
    for place in PLACES:
        poll(lambda place=place: not degraded(browser.get(f"/{place}/me")), within=30)
        assert 200 == browser.post(f"/{place}/set/after_{place}/v").status
    for place in PLACES:
        found = browser.me(place)
        assert "6" == found["user"]
        assert {"theme", "after_flask", "after_django", "after_api"} == set(found["keys"])


@pytest.mark.parametrize("place", PLACES)
def test_a_logout_without_the_store_is_made_up_for(world: World, place: str) -> None:
    """It is answered as accepted, the cookies are gone at once, and a copy of them is dead as soon as the store is back."""
    browser = world.browser()
    browser.post("/flask/login/7")
    kept = dict(browser.jar)
    world.store.kill()
    try:
        reply = browser.post(f"/{place}/logout")
        assert (202, True) == (reply.status, degraded(reply))
        assert "session" not in browser.jar
    finally:
        world.store.start()
    for other in PLACES:
        poll(partial(world.up, other), within=30)
    assert None is browser.me("api")["user"]
    assert "session-logout" not in browser.jar
    thief = world.browser()
    for other in PLACES:
        thief.jar = dict(kept)
        assert None is thief.me(other)["user"]
