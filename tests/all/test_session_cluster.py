"""Sessions in a cluster: each lies in a slot of its own, and a primary that dies takes along no more than what lies there."""

import time
from collections.abc import Iterator

import pytest

from failsoft.errors import ConfigurationError
from failsoft.settings import Settings
from failsoft.testing.contract.session_site import SESSIONS, Browser
from failsoft.testing.harness import App, Harness
from tests.all.session_site import site
from tests.clusters import Cluster
from tests.flask.harness import FlaskHarness
from tests.servers import poll
from tests.starlette.harness import StarletteHarness

pytestmark = [pytest.mark.processes, pytest.mark.timeout(180)]


@pytest.fixture(params=[FlaskHarness, StarletteHarness], ids=lambda harness: harness.name)
def harness(request: pytest.FixtureRequest) -> type[Harness]:
    """On threads, and on an event loop."""
    harness: type[Harness] = request.param
    return harness


@pytest.fixture(scope="module")
def whole() -> Iterator[Cluster]:
    """A cluster that nobody hurts."""
    with Cluster() as cluster:
        yield cluster


def _log_in(app: App, user: str) -> Browser:
    browser = Browser(app)
    poll(lambda: browser.get(f"/login/{user}").status == 200, within=30)
    return browser


def _who(browser: Browser) -> str | None:
    reply = browser.get("/mine")
    assert 200 == reply.status
    user: str | None = reply.json()["user"]
    return user


def test_the_life_of_sessions(whole: Cluster, harness: type[Harness]) -> None:
    """Made, written, renewed, listed, ended one by one and all at once, wherever they lie."""
    with harness().build(site(store=whole.url, deadline=5)) as app:
        app.runtime.start()
        assert app.runtime.sessions is not None
        sessions = app.runtime.sessions
        users = {
            f"{harness.name}{number}": [_log_in(app, f"{harness.name}{number}") for _ in range(3)]
            for number in range(6)
        }
        handles = [browser.jar["sessionid"][:16] for browsers in users.values() for browser in browsers]
        assert 3 == len({whole.primary_of(sessions.record_key(handle)).port for handle in handles})
        for user, (first, second, third) in users.items():
            assert 200 == first.get("/write/1").status
            former = first.copy()
            assert 200 == first.get("/rotate").status
            assert former.jar["sessionid"] != first.jar["sessionid"]
            assert 200 == first.get("/write/2").status
            assert {"user": user, "owner": user, "n": 2} == first.get("/mine").json()
            listed = sessions.subjects.list(user)
            assert {one.jar["sessionid"][:16] for one in (first, second, third)} == {one.handle for one in listed}
            assert sessions.subjects.revoke(user, second.jar["sessionid"][:16])
            assert [user, None, user] == [_who(one) for one in (first, second, third)]
            assert 200 == third.get("/logout").status
            assert [first.jar["sessionid"][:16]] == [one.handle for one in sessions.subjects.list(user)]
            assert 1 == sessions.subjects.revoke_all(user)
            assert None is _who(first)
            assert [] == list(sessions.subjects.list(user))


def test_a_cap(whole: Cluster, harness: type[Harness]) -> None:
    """The oldest session of a user goes, although it lies elsewhere than the list."""
    with harness().build(site(store=whole.url, deadline=5, session_cap=2)) as app:
        app.runtime.start()
        user = f"capped-{harness.name}"
        browsers: list[Browser] = []
        for _ in range(4):
            browsers.append(_log_in(app, user))
            logged_in = int(time.time() * 1000)
            # Which of two logins of one millisecond is the older, nobody can say.
            poll(lambda logged_in=logged_in: int(time.time() * 1000) > logged_in, every=0.0005)
        assert [None, None, user, user] == [_who(one) for one in browsers]


def test_a_primary_is_killed(harness: type[Harness]) -> None:
    """Whose session or list lies there gets 503; nobody else notices; afterwards all are who they were."""
    with (
        Cluster("--appendonly", "yes", "--appendfsync", "always") as cluster,
        harness().build(site(store=cluster.url, deadline=1)) as app,
    ):
        app.runtime.start()
        assert app.runtime.sessions is not None
        sessions = app.runtime.sessions
        users = {f"user{number}": _log_in(app, f"user{number}") for number in range(18)}
        victim = cluster.primary_of(sessions.record_key(users["user0"].jar["sessionid"][:16]))
        hit = {
            user
            for user, browser in users.items()
            if victim
            in (
                cluster.primary_of(sessions.record_key(browser.jar["sessionid"][:16])),
                cluster.primary_of(sessions.subject_key(user)),
            )
        }
        assert 0 < len(hit) < len(users)
        jars = {user: dict(browser.jar) for user, browser in users.items()}
        victim.kill()
        # Of the first flights some may be overdue: this process has just found out.
        poll(lambda: all(users[user].get("/mine").status == 503 for user in hit), within=30)
        poll(lambda: all(users[user].get("/mine").status == 200 for user in users.keys() - hit), within=30)
        for user, browser in users.items():
            expected = 503 if user in hit else 200
            assert (expected, expected) == (browser.get("/mine").status, browser.get("/write/7").status)
            if user in hit:
                assert jars[user] == browser.jar
            else:
                assert {"user": user, "owner": user, "n": 7} == browser.get("/mine").json()
        victim.start()
        poll(cluster.settled, within=30)
        poll(lambda: all(browser.get("/mine").status == 200 for browser in users.values()), within=30)
        assert list(users) == [_who(browser) for browser in users.values()]
        assert {200} == {browser.get("/write/8").status for browser in users.values()}


def test_no_waiting_for_replicas(whole: Cluster) -> None:
    """`session_wait` is refused, for no connection of a cluster's has written all that it would wait for."""
    with pytest.raises(ConfigurationError, match="session_wait"):
        Settings.load({**SESSIONS, "store": whole.url, "session_wait": 1}, environ={})
