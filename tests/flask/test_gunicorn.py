"""Flask under gunicorn with a real store: limits shared by threads and processes, and the death of the store."""

from collections import Counter
from collections.abc import Iterator
from importlib.util import find_spec

import pytest

from tests.processes import Served
from tests.servers import Valkey, poll

pytest.importorskip("gunicorn", reason="needs gunicorn")

pytestmark = [pytest.mark.processes, pytest.mark.once]

WORKERS = [
    pytest.param(["--worker-class=sync", "--preload"], id="sync"),
    pytest.param(["--worker-class=gthread", "--threads=8"], id="gthread"),
    pytest.param(
        ["--worker-class=gevent", "--preload"],
        id="gevent",
        marks=pytest.mark.skipif(find_spec("gevent") is None, reason="needs gevent"),
    ),
]


def poll_both(server: Served, path: str, status: int) -> None:
    """Wait until both workers have answered with this status, and from the store."""
    workers: set[str | None] = set()

    def answered() -> bool:
        got = server.burst(8, path)
        assert {one.status for one in got} <= {status, 503}
        workers.update(one.headers["X-Worker"] for one in got if one.headers["Degraded"] is None)
        return len(workers) == 2

    poll(answered, within=30)


@pytest.fixture(scope="module", params=WORKERS)
def gunicorn(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[tuple[Served, Valkey]]:
    """Two workers of each kind, and their store."""
    command = ["gunicorn", "--workers=2", *request.param, "--bind=127.0.0.1:{port}", "tests.flask.served:app"]
    with Valkey() as valkey:
        # A generous deadline: on a loaded machine this is about counting, not about time.
        variables = {"FLASK_FAILSOFT__STORE": valkey.url, "FLASK_FAILSOFT__DEADLINE": "5"}
        with Served(command, tmp_path_factory.mktemp("gunicorn"), **variables) as server:
            yield server, valkey
            server.end()
            assert "Traceback" not in server.log()


@pytest.mark.parametrize("path", ["/counted", "/awaited", "/streamed"])
def test_exactly_as_many(gunicorn: tuple[Served, Valkey], path: str, request: pytest.FixtureRequest) -> None:
    """Two workers together admit exactly what the limit says, early or late, and both know when it is used up."""
    server, _ = gunicorn
    if path == "/awaited" and "gevent" in request.node.callspec.id:
        pytest.skip("Flask serves one async view at a time under gevent: asgiref refuses, with and without us")
    poll_both(server, "/open", 200)
    assert Counter({200: 25, 429: 15}) == Counter(got.status for got in server.burst(40, path))
    poll_both(server, path, 429)


def test_death_of_the_store(gunicorn: tuple[Served, Valkey]) -> None:
    """When the store dies nobody gets a 500 or waits long, and when it is back its counts hold again."""
    server, valkey = gunicorn
    poll_both(server, "/open", 200)
    valkey.kill()
    try:
        for path, status in (("/open", 200), ("/closed", 503)):
            got = server.burst(20, path)
            assert {status} == {one.status for one in got}
            assert all((one.headers["Degraded"] or "").startswith("limits;reason=") for one in got)
        assert min(server.get("/open").took for _ in range(5)) < 0.1
    finally:
        valkey.start()
    poll_both(server, "/open", 200)
    assert Counter({200: 25, 429: 15}) == Counter(got.status for got in server.burst(40, "/closed"))
