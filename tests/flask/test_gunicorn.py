"""Flask under gunicorn with a real store: limits shared by threads and processes, and the death of the store."""

import os
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from http.client import HTTPConnection, HTTPException, HTTPResponse
from importlib.util import find_spec
from pathlib import Path
from typing import NamedTuple

import pytest

from tests.servers import Valkey, free_port, poll

pytest.importorskip("gunicorn", reason="needs gunicorn")

pytestmark = pytest.mark.processes

ROOT = Path(__file__).parents[2]

GEVENT = ["--workers=2", "--worker-class=gevent", "--preload"]
WORKERS = [
    pytest.param(["--workers=2", "--worker-class=sync"], id="sync"),
    pytest.param(["--workers=2", "--worker-class=gthread", "--threads=8"], id="gthread"),
    pytest.param(["--workers=2", "--worker-class=gthread", "--threads=8", "--preload"], id="preload"),
    pytest.param(
        GEVENT,
        id="gevent",
        marks=pytest.mark.skipif(find_spec("gevent") is None, reason="needs gevent"),
    ),
]


class Got(NamedTuple):
    """What came back."""

    status: int
    worker: str
    degraded: str | None
    took: float


class Server:
    """gunicorn with `tests.flask.served`."""

    def __init__(self, port: int) -> None:
        self.port = port

    def get(self, path: str) -> Got:
        """GET `path`, over a connection of its own."""
        connection = HTTPConnection("127.0.0.1", self.port, timeout=30)
        started = time.monotonic()
        try:
            connection.request("GET", path)
            response: HTTPResponse = connection.getresponse()
            response.read()
        finally:
            connection.close()
        took = time.monotonic() - started
        return Got(response.status, response.headers.get("X-Worker", ""), response.headers.get("Degraded"), took)

    def burst(self, n: int, path: str) -> list[Got]:
        """`n` requests, 50 at once."""
        with ThreadPoolExecutor(50) as threads:
            return list(threads.map(self.get, [path] * n))

    def answers(self) -> bool:
        """Whether requests are served."""
        try:
            return self.get("/nowhere").status == 404
        except (OSError, HTTPException):
            return False


@contextmanager
def serving(valkey: Valkey, options: list[str], directory: Path, **settings: object) -> Iterator[Server]:
    """gunicorn, for as long as the context."""
    port = free_port()
    command = [sys.executable, "-m", "gunicorn", *options, f"--bind=127.0.0.1:{port}", "--timeout=60"]
    environment = {
        **os.environ,
        "FLASK_FAILSOFT__STORE": valkey.url,
        **{f"FLASK_FAILSOFT__{name.upper()}": str(value) for name, value in settings.items()},
        "XDG_RUNTIME_DIR": str(directory),  # files of gunicorn's own stay out of the home directory
    }
    with (directory / "log").open("wb") as log:
        process = subprocess.Popen(
            [*command, "tests.flask.served:app"], cwd=ROOT, env=environment, stdout=log, stderr=log
        )
    try:
        server = Server(port)
        poll(server.answers, within=30)
        yield server
    finally:
        process.terminate()
        try:
            process.wait(30)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
    assert "Traceback" not in (directory / "log").read_text()


@pytest.mark.parametrize("options", WORKERS)
def test_exactly_as_many(options: list[str], tmp_path: Path) -> None:
    """Two workers together admit exactly what the limit says, early or late, and both know when it is used up."""
    # A generous deadline: on a loaded machine this is about counting, not about time.
    with Valkey() as valkey, serving(valkey, options, tmp_path, deadline=5) as server:
        # Flask cannot serve async views at the same time under gevent: asgiref refuses, with and without us.
        for path in ("/counted", "/streamed") if options is GEVENT else ("/counted", "/awaited", "/streamed"):
            assert Counter({200: 40, 429: 60}) == Counter(got.status for got in server.burst(100, path))
            refusing: set[str] = set()

            def both_refuse(path: str = path, refusing: set[str] = refusing) -> bool:
                got = server.get(path)
                assert 429 == got.status
                refusing.add(got.worker)
                return len(refusing) == 2

            poll(both_refuse, within=30)


@pytest.mark.parametrize("options", WORKERS)
def test_death_of_the_store(options: list[str], tmp_path: Path) -> None:
    """When the store dies nobody gets a 500 or waits long, and when it is back its counts hold again."""
    with Valkey() as valkey, serving(valkey, options, tmp_path) as server:
        poll(lambda: server.get("/open").degraded is None)
        valkey.kill()
        got = server.burst(100, "/open") + server.burst(100, "/counted")
        assert {200, 503} == {one.status for one in got}
        assert {200} == {one.status for one in got[:100]}
        assert all(one.degraded and one.degraded.startswith("limits;reason=") for one in got)
        alone = [server.get("/open").took for _ in range(20)]
        assert min(alone) < 0.1
        valkey.start()
        workers: set[str] = set()

        def both_recovered() -> bool:
            got = server.get("/counted")
            assert got.status in (200, 503)
            if got.degraded is None:
                workers.add(got.worker)
            return len(workers) == 2

        poll(both_recovered, within=30, every=0.05)
