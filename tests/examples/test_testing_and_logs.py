"""The tests that the page on testing shows pass, each file by itself; events and lines about stores go where their pages say."""

import logging
import re
import subprocess
import sys
from pathlib import Path

import pytest

from failsoft.events import SessionGone, SessionRolledBack
from tests.examples.test_examples import EXAMPLES, wsgi


@pytest.mark.parametrize(("framework", "tests"), [("flask", 3), ("django", 2), ("starlette", 2)])
def test_tests_without_a_server(framework: str, tests: int) -> None:
    """An application whose code names redis:// is tested in memory, and on a store that is away."""
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", str(EXAMPLES / f"testing_{framework}.py")],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert f"{tests} passed" in done.stdout, done.stdout


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
    done = subprocess.run(
        [sys.executable, "-c", LOG, str(EXAMPLES)],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=60,
        check=True,
    )
    written = (tmp_path / "outages.log").read_text()
    assert re.fullmatch(r"[-\d]+ [:,\d]+ \d+ WARNING failsoft\.stores: the store is away\n", written)
    assert written == done.stderr
