"""Django in real processes, with a real store: exactly as many requests pass as the limit says, and no outage is an error page."""

import contextlib
import http.client
import os
import signal
import subprocess
import sys
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from tests.servers import Valkey, free_port, poll

pytestmark = pytest.mark.processes

SITE = """
import os
from django.conf import settings
from django.core.asgi import get_asgi_application
from django.core.wsgi import get_wsgi_application
from django.http import HttpResponse
from django.urls import path
from failsoft import limit

settings.configure(
    ALLOWED_HOSTS=["*"],
    ROOT_URLCONF=__name__,
    INSTALLED_APPS=["failsoft_django"],
    MIDDLEWARE=["failsoft_django.FailsoftMiddleware", "django.middleware.common.CommonMiddleware"],
    FAILSOFT={"workers": 2},
)

def up(request):
    return HttpResponse(str(os.getpid()))

@limit("17/hour", shared="plain", on_outage="closed")
@limit("1000/hour", shared="wide", on_outage="closed")
def plain(request):
    return HttpResponse()

@limit("17/hour", shared="served", on_outage="closed")
@limit("1000/hour", shared="wide", on_outage="closed")
async def served(request):
    return HttpResponse()

@limit("1000000/hour", on_outage="local")
def local(request):
    return HttpResponse()

@limit("1000000/hour", on_outage="closed")
async def closed(request):
    return HttpResponse()

urlpatterns = [path(view.__name__, view) for view in (up, plain, served, local, closed)]
wsgi = get_wsgi_application()
asgi = get_asgi_application()
"""

GUNICORN = (
    "gunicorn",
    "--workers",
    "2",
    "--log-level",
    "warning",
    "--bind",
    "127.0.0.1:{port}",
    "site_under_test:wsgi",
)
UVICORN = ("uvicorn", "--log-level", "warning", "--port", "{port}", "site_under_test:asgi")

each_server = pytest.mark.parametrize(
    ("command", "processes"), [(GUNICORN, 2), (UVICORN, 1)], ids=["gunicorn", "uvicorn"]
)


class Running:
    """A server that runs."""

    def __init__(self, port: int) -> None:
        self.port = port

    def get(self, path: str) -> tuple[int, dict[str, str], bytes]:
        """One request on a connection of its own."""
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=20)
        try:
            connection.request("GET", path)
            response = connection.getresponse()
            return response.status, {name.lower(): value for name, value in response.getheaders()}, response.read()
        finally:
            connection.close()

    def burst(self, n: int, path: str) -> list[tuple[int, dict[str, str], bytes]]:
        """`n` requests, some at a time."""
        with ThreadPoolExecutor(10) as threads:
            return list(threads.map(self.get, [path] * n))


@pytest.fixture
def run(tmp_path: Path) -> Iterator[Callable[..., Running]]:
    """Runs a server on the site above, until the test ends."""
    (tmp_path / "site_under_test.py").write_text(SITE)
    started: list[subprocess.Popen[bytes]] = []

    def run(command: tuple[str, ...], store: str, **environment: str) -> Running:
        pytest.importorskip(command[0], reason=f"{command[0]} is not installed here")
        port = free_port()
        clean = {name: value for name, value in os.environ.items() if not name.startswith("FAILSOFT_")}
        log = (tmp_path / "log").open("ab")
        with log:
            process = subprocess.Popen(
                [sys.executable, "-m", *(word.format(port=port) for word in command)],
                cwd=tmp_path,
                env=clean | {"FAILSOFT_STORE": store} | environment,
                stdout=log,
                stderr=log,
                start_new_session=True,
            )
        started.append(process)
        server = Running(port)

        def answers() -> bool:
            assert process.poll() is None, (tmp_path / "log").read_text()
            try:
                return server.get("/up")[0] == 200
            except OSError:
                return False

        poll(answers, within=40, every=0.05)
        return server

    yield run
    for process in started:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGTERM)
    for process in started:
        try:
            process.wait(20)
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, signal.SIGKILL)
            process.wait()


@each_server
@pytest.mark.timeout(120)
def test_exactly_as_many_as_the_limit(
    run: Callable[..., Running], shared_valkey: Valkey, command: Any, processes: int
) -> None:
    """Of many requests to all processes exactly as many pass as the limit says, in plain views and in async ones."""
    prefix = f"django-{command[0]}-{os.getpid()}"
    server = run(command, shared_valkey.url, FAILSOFT_DEADLINE="5s", FAILSOFT_PREFIX=prefix)
    seen: set[bytes] = set()

    def all_serve() -> bool:
        seen.update(body for _, _, body in server.burst(10, "/up"))
        return len(seen) == processes

    poll(all_serve, within=30)
    for path in ("/plain", "/served"):
        replies = server.burst(60, path)
        assert {200: 17, 429: 43} == Counter(status for status, _, _ in replies), path
        assert {None} == {headers.get("degraded") for _, headers, _ in replies}


@each_server
@pytest.mark.timeout(120)
def test_outage(run: Callable[..., Running], command: Any, processes: int) -> None:
    """While the store hangs, is dead and comes back, every request is answered as its limit says, and none with an error."""
    with Valkey() as store:
        server = run(command, store.url)

        def healthy() -> bool:
            return all("degraded" not in headers for _, headers, _ in server.burst(8, "/local"))

        def degraded() -> bool:
            replies = server.burst(8, "/local")
            assert {200} == {status for status, _, _ in replies}
            return all("degraded" in headers for _, headers, _ in replies)

        poll(healthy, within=30)
        for fail, recover in ((store.kill, store.start), (store.pause, store.resume)):
            fail()
            poll(degraded, within=30)
            assert {503} == {status for status, _, _ in server.burst(8, "/closed")}
            recover()
            poll(healthy, within=30)
            poll(lambda: server.get("/closed")[0] == 200, within=30)
