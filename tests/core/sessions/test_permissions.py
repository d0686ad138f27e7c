"""What a user of the store must be allowed for sessions: what the page on stores says, no less and no more."""

import pkgutil
import re
from collections.abc import Iterator
from importlib import import_module
from pathlib import Path
from typing import Any

import pytest

from failsoft import sessions
from failsoft.clock import SYSTEM
from failsoft.errors import OperationFailed
from failsoft.exchange import Script
from failsoft.runtime import Runtime
from failsoft.sessions.imported import Expire, Fetch
from failsoft.stores.redis import RedisStore
from tests.core.sessions.sites import Browser, make_site
from tests.servers import Valkey

PAGE = (Path(__file__).parents[3] / "docs" / "stores.md").read_text()
(LIMITS,) = re.findall(r"^An ACL needs `([^`]*) ~failsoft:\*`\.", PAGE, re.MULTILINE)
(SESSIONS, WAIT, IMPORTED) = re.findall(
    r"^Sessions need `([^`]*)` besides, with `session_wait` also `([^`]*)`, and with\s`session_import` the other package's keys, "
    r"such as `([^`]*)`\.",
    PAGE,
    re.MULTILINE,
)[0]


@pytest.fixture
def server() -> Iterator[Valkey]:
    """One that lets `limited` do what the page says."""
    with Valkey() as server:
        server.run("ACL", "SETUSER", "limited", "on", ">pass", "~failsoft:*", *LIMITS.split(), *SESSIONS.split())
        yield server


def url_of(server: Valkey) -> str:
    return server.url.replace("redis://", "redis://limited:pass@")


@pytest.fixture
def site(server: Valkey) -> Iterator[Runtime]:
    """An application with limits and all kinds of sessions."""
    app = make_site(
        store=url_of(server), clock=SYSTEM, deadline=5, limits=["1000/minute"], session_cap=3, session_snapshot="5m"
    )
    yield app
    app.close()


def test_all_that_sessions_do(site: Runtime, server: Valkey) -> None:
    """A session from its first write to its end, and what is done for its user from elsewhere."""
    assert site.sessions is not None
    subjects = site.sessions.subjects

    def does(browser: Browser, *steps: Any) -> None:
        for step in steps:
            request = browser.request(eager=True)
            step(request.view)
            assert 200 == request.finish()

    for _ in range(5):  # more than a user may have
        browser = Browser(site)
        does(
            browser,
            lambda view: view.update(a=1),
            lambda view: view.login("ada"),
            lambda view: view.__delitem__("a"),
            lambda view: view.rotate(),
            lambda view: view.rotate(strict=True),
            lambda view: view.clear(),
            lambda view: subjects.revoke_others(view.session),
            lambda view: view.update(b=2),
        )
    does(browser, lambda view: view.logout())
    for _ in range(2):
        does(Browser(site), lambda view: view.login("ada"))
    first, _ = subjects.list("ada")
    assert 2 == subjects.count("ada")
    assert subjects.look(first.handle) is not None
    assert subjects.revoke("ada", first.handle)
    assert 1 == subjects.revoke_all("ada")
    assert [] == server.run("ACL", "LOG")


@pytest.mark.parametrize("allowed", [False, True])
def test_waiting_for_replicas(server: Valkey, allowed: bool) -> None:
    """Where sessions wait for replicas, one command more is needed, and without it the server says so."""
    if allowed:
        server.run("ACL", "SETUSER", "limited", WAIT)
    app = make_site(store=url_of(server), clock=SYSTEM, deadline=0.5, session_wait=1)
    request = Browser(app).request(eager=True)
    request.view.login("ada")
    assert 503 == request.finish()  # there are none
    assert allowed is (server.run("ACL", "LOG") == [])
    app.close()


@pytest.mark.parametrize("allowed", [False, True])
def test_carrying_sessions_over(server: Valkey, allowed: bool) -> None:
    """Where another package's sessions are read, its keys are needed too."""
    if allowed:
        server.run("ACL", "SETUSER", "limited", IMPORTED)
    server.run("SET", "session:1", "values")
    store = RedisStore(url_of(server), deadline=5.0)
    found = store.flight([Fetch("session:1"), Expire("session:1", 1000)])
    assert allowed is (found == [b"values", True])
    assert allowed is not any(isinstance(one, OperationFailed) for one in found)
    store.close()


def test_no_more_than_that() -> None:
    """The page names no command that no script calls."""
    modules = [import_module(f"{sessions.__name__}.{info.name}") for info in pkgutil.iter_modules(sessions.__path__)]
    scripts = {value for module in modules for value in vars(module).values() if isinstance(value, Script)}
    called = {name.lower() for script in scripts for name in re.findall(r"\bcall\(\s*'([A-Z]+)'", script.source)}
    assert called - {name[1:] for name in LIMITS.split()} == {name[1:] for name in SESSIONS.split()}
