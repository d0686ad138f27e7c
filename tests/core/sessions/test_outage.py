"""One session through the outages of a real server, Valkey and Redis: refused, hung, restarted."""

from collections.abc import Callable, Iterator
from typing import Any

import pytest

from failsoft.clock import SYSTEM
from failsoft.errors import SessionUnavailable
from failsoft.runtime import Runtime
from tests.core.sessions.sites import Browser, make_site
from tests.servers import Valkey, poll
from tests.tls import redis_binary

pytestmark = pytest.mark.processes


@pytest.fixture(params=["valkey", "redis"])
def server(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Iterator[Valkey]:
    """A server of its own, which has after a crash whatever it acknowledged before."""
    if request.param == "redis":
        monkeypatch.setattr("tests.servers.get_binary_path", redis_binary)
    with Valkey("--appendonly", "yes", "--appendfsync", "always") as valkey:
        yield valkey


@pytest.fixture
def site(server: Valkey) -> Iterator[Runtime]:
    """Replicas of one application, with snapshots."""
    app = make_site(store=server.url, clock=SYSTEM, deadline=1, session_snapshot="5m", session_snapshot_keys=["theme"])
    try:
        app.start()
        yield app
    finally:
        app.close()


OUTAGES: dict[str, tuple[Callable[[Valkey], None], Callable[[Valkey], Any]]] = {
    "refused": (Valkey.kill, Valkey.start),
    "hung": (Valkey.pause, Valkey.resume),
}


def put(browser: Browser, **values: Any) -> int:
    """A request that sets these."""
    request = browser.request(eager=True)
    try:
        for name, value in values.items():
            request.view[name] = value
    except SessionUnavailable as refused:
        return request.finish(refused.status)
    return request.finish()


def seen(browser: Browser) -> tuple[dict[str, Any], str | None, bool]:
    """What a request finds: values, the user, and whether they are from a snapshot."""
    request = browser.request(eager=True)
    view = request.view
    found = dict(view), None if view.principal is None else view.principal.subject, view.degraded
    assert 200 == request.finish()
    return found


@pytest.mark.parametrize("outage", OUTAGES)
def test_an_outage(server: Valkey, site: Runtime, outage: str) -> None:
    """The same user before, while it lasts (read-only, marked) and afterwards; who logs out meanwhile is out when it is over."""
    away, back = OUTAGES[outage]
    browser, leaver = Browser(site), Browser(site)
    for one, user in ((browser, "alice"), (leaver, "bob")):
        poll(lambda one=one: put(one, theme="dark", cart=[1]) == 200)
        request = one.request(eager=True)
        request.view.login(user)
        assert 200 == request.finish()
    copy = dict(leaver.jar)
    assert ({"theme": "dark", "cart": [1]}, "alice", False) == seen(browser)

    away(server)
    kept = dict(browser.jar)
    assert ({"theme": "dark"}, "alice", True) == seen(browser)
    assert 503 == put(browser, theme="light")
    assert kept == browser.jar
    request = leaver.request(eager=True)
    request.view.logout()
    assert 202 == request.finish()
    assert ["__Host-session-logout"] == list(leaver.jar)

    back(server)
    poll(lambda: put(browser, theme="light") == 200)
    assert ({"theme": "light", "cart": [1]}, "alice", False) == seen(browser)
    assert ({}, None, False) == seen(leaver)
    assert {} == leaver.jar
    leaver.jar = copy
    assert ({}, None, False) == seen(leaver)


def test_a_restart_between_two_requests(server: Valkey, site: Runtime) -> None:
    """Whoever comes after a restart is served, at the latest when the connections are made anew, and no cookie changes."""
    browser = Browser(site)
    poll(lambda: put(browser, theme="dark", cart=[1]) == 200)
    kept = browser.cookie
    for number in range(3):
        server.restart()
        poll(lambda number=number: put(browser, number=number) == 200)
        assert ({"theme": "dark", "cart": [1], "number": number}, None, False) == seen(browser)
    assert kept == browser.cookie
