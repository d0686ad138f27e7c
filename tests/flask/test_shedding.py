"""Load shedding in Flask: what the server knows about the queue in front of it, and a real server that is overloaded."""

import socket
import threading
import time
from collections import Counter
from pathlib import Path

import pytest
from flask import Flask, request

from failsoft import Settings
from failsoft.exchange import Exchange
from failsoft.exchange.policy import current
from failsoft.runtime import Runtime
from failsoft.testing import WsgiApp
from failsoft_flask import Failsoft
from tests.processes import Served
from tests.servers import poll

TWO_THREADS = [
    *("gunicorn", "--workers=1", "--worker-class=gthread", "--threads=2", "--keep-alive=0"),
    *("--bind=127.0.0.1:{port}", "tests.flask.overloaded:app"),
]
"""They serve 40 requests a second."""


def test_facts_show_the_environment() -> None:
    """The environment of the server is the one that facts show, so that its socket can be asked."""
    seen: list[Exchange | None] = []
    app = Flask(__name__, static_folder=None)
    runtime = Runtime(Settings(shed=True))
    Failsoft(app, runtime=runtime)

    @app.get("/")
    def view() -> str:
        exchange = current()
        seen.append(exchange)
        assert exchange is not None
        assert exchange.facts.environ() is request.environ
        return "ok"

    with WsgiApp(app, runtime) as client:
        assert 200 == client.get("/").status
    assert 1 == len(seen)


@pytest.mark.processes
@pytest.mark.skipif(not hasattr(socket, "TCP_INFO"), reason="this system does not say when data arrived")
def test_overloaded_threads(tmp_path: Path) -> None:
    """With more clients than its threads can serve, a real server refuses sheddable requests and not critical ones."""
    pytest.importorskip("gunicorn", reason="needs gunicorn")
    statuses: dict[str, Counter[int]] = {"/sheddable": Counter(), "/critical": Counter()}
    with Served(TWO_THREADS, tmp_path) as server:
        enough = threading.Event()

        def client(path: str) -> None:
            while not enough.is_set():
                status = server.get(path).status
                statuses[path][status] += 1
                if status == 503:
                    time.sleep(0.05)  # a client that was refused does not come back at once

        clients = [threading.Thread(target=client, args=("/sheddable",)) for _ in range(20)]
        clients += [threading.Thread(target=client, args=("/critical",))]
        for one in clients:
            one.start()
        try:
            poll(lambda: statuses["/sheddable"][503] >= 50 and statuses["/critical"][200] >= 20, within=45, every=0.05)
        finally:
            enough.set()
            for one in clients:
                one.join(60)

    def success(path: str) -> float:
        return statuses[path][200] / statuses[path].total()

    assert {200, 503} == set(statuses["/sheddable"])
    # On a machine that has no time for the server, critical requests may wait too long as well, but not as often.
    assert success("/critical") > success("/sheddable")
    assert success("/critical") > 0.9
