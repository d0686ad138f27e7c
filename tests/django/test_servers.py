"""Django in real processes, with a real store: exactly as many requests pass as the limit says, and no outage is an error page."""

from collections import Counter
from collections.abc import Iterator
from typing import NamedTuple

import pytest

from tests.processes import Answer, Served
from tests.servers import Valkey, poll

pytestmark = [pytest.mark.processes, pytest.mark.once, pytest.mark.timeout(120)]

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
    return HttpResponse(str(os.getpid()))

@limit("1000000/hour", on_outage="closed")
async def closed(request):
    return HttpResponse()

urlpatterns = [path(view.__name__, view) for view in (plain, served, local, closed)]
wsgi = get_wsgi_application()
asgi = get_asgi_application()
"""

GUNICORN = [
    "gunicorn",
    "--workers=2",
    "--preload",
    "--log-level=warning",
    "--bind=127.0.0.1:{port}",
    "site_under_test:wsgi",
]
UVICORN = ["uvicorn", "--log-level=warning", "--port={port}", "site_under_test:asgi"]


class World(NamedTuple):
    """A server of that many processes, and its store."""

    server: Served
    processes: int
    store: Valkey

    def burst(self, n: int, path: str) -> list[Answer]:
        """`n` requests, some at a time."""
        return self.server.burst(n, path, at_once=10)

    def wait(self, *, degraded: bool) -> None:
        """Until each process answers without the store, or with it."""
        seen: set[bytes] = set()

        def so() -> bool:
            replies = self.burst(8, "/local")
            assert {200} == {reply.status for reply in replies}
            alike = [reply for reply in replies if degraded is (reply.headers["Degraded"] is not None)]
            seen.update(reply.body for reply in alike)
            return (8, self.processes) == (len(alike), len(seen))

        poll(so, within=30)


@pytest.fixture(scope="module", params=[(GUNICORN, 2), (UVICORN, 1)], ids=["gunicorn", "uvicorn"])
def world(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    """The site above, under each server."""
    command, processes = request.param
    pytest.importorskip(command[0], reason=f"{command[0]} is not installed here")
    directory = tmp_path_factory.mktemp(command[0])
    (directory / "site_under_test.py").write_text(SITE)
    with Valkey() as store:
        # A generous deadline, for a loaded machine: it is waited for once in each process, which costs nothing else.
        variables = {"FAILSOFT_STORE": store.url, "FAILSOFT_DEADLINE": "5s"}
        with Served(command, directory, cwd=directory, **variables) as server:
            yield World(server, processes, store)


def test_exactly_as_many_as_the_limit(world: World) -> None:
    """Of many requests to all processes exactly as many pass as the limit says, in plain views and in async ones."""
    world.wait(degraded=False)
    for path in ("/plain", "/served"):
        replies = world.burst(40, path)
        assert {200: 17, 429: 23} == Counter(reply.status for reply in replies), path
        assert {None} == {reply.headers["Degraded"] for reply in replies}


@pytest.mark.parametrize(("fail", "recover"), [("kill", "start"), ("pause", "resume")], ids=["dead", "hung"])
def test_outage(world: World, fail: str, recover: str) -> None:
    """While the store is dead or hangs, and when it is back, every request is answered as its limit says, and none with an error."""
    world.wait(degraded=False)
    getattr(world.store, fail)()
    try:
        world.wait(degraded=True)
        assert {503} == {reply.status for reply in world.burst(8, "/closed")}
    finally:
        getattr(world.store, recover)()
    world.wait(degraded=False)
    poll(lambda: world.server.get("/closed").status == 200, within=30)
