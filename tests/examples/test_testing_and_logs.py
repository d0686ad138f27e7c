"""The tests that the page on testing shows pass; events and lines about stores go where their pages say."""

import logging
import re
import subprocess
import sys
from pathlib import Path

import pytest

from failsoft.events import SessionGone, SessionRolledBack
from tests.examples.test_examples import EXAMPLES, load, wsgi
from tests.processes import run


@pytest.mark.parametrize(("name", "count"), [("testing_flask", 3), ("testing_starlette", 2)])
def test_tests_without_a_server(name: str, count: int) -> None:
    """An application whose code names redis:// is tested in memory, and on a store that is away."""
    tests = [test for name, test in vars(load(name)).items() if name.startswith("test_")]
    assert count == len(tests)
    for test in tests:
        test()


def test_tests_that_need_pytest() -> None:
    """So is a project of Django's; and the fixtures do in a user's tests what their page says."""
    files = [str(EXAMPLES / f"{name}.py") for name in ("pytest_fixtures", "testing_django")]
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", *files],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert "5 passed" in done.stdout, done.stdout


def test_session_events(caplog: pytest.LogCaptureFixture) -> None:
    """Sessions that the store has lost are told of, and those that merely ended are not."""
    with caplog.at_level(logging.ERROR, "shop"), wsgi("events") as app:
        for event in (
            SessionGone("h1", "alice", "lost"),
            SessionGone("h2", "bob", "revoked"),
            SessionRolledBack("h3", "alice", 4, 6),
        ):
            app.runtime.publish(event)
    assert [
        "the store has lost session h1 of alice",
        "the store has version 4 of session h3, and had 6",
    ] == [record.message for record in caplog.records]


LOG = """
import logging, sys
sys.path.insert(0, sys.argv[1])
import log_routing
log = logging.getLogger("failsoft.stores")
log.warning("the store is away")
import log_silence
log.warning("the store is back")
"""


def test_log_routing(tmp_path: Path) -> None:
    """Lines about stores go to stderr and into their file, with the process; and nowhere once they are silenced."""
    done = run(LOG, str(EXAMPLES), cwd=tmp_path)
    written = (tmp_path / "outages.log").read_text()
    assert re.fullmatch(r"[-\d]+ [:,\d]+ \d+ WARNING failsoft\.stores: the store is away\n", written)
    assert written == done.stderr
