"""The command lines of the page on deployment, most with fewer workers: with a proxy's header, and with a store that goes and comes."""

import re
import shlex
from collections import Counter
from http.client import HTTPException
from pathlib import Path

import pytest

from tests.processes import ROOT, Answer, Served
from tests.servers import Valkey, poll

pytestmark = pytest.mark.processes

PAGE = (ROOT / "docs" / "deployment.md").read_text()
COMMANDS = re.findall(r"^ *\$ ((?:gunicorn|uvicorn) .*)$", PAGE, re.MULTILINE)
VARIABLES = dict(re.findall(r"^\$ export (\w+)=(.*)$", PAGE, re.MULTILINE))
FLASK, DJANGO, FASTAPI, STARLETTE = COMMANDS


class Site(Served):
    """An application that a command of the page serves, on a port that is free.

    Args:
        workers: how many, in the place of the four of the page.
    """

    def __init__(self, command: str, directory: Path, *, workers: int, **variables: str) -> None:
        words = shlex.split(command.replace("8000", "{port}").replace("--workers 4", f"--workers {workers}"))
        super().__init__(words, directory, **{**VARIABLES, "FAILSOFT_DEADLINE": "5", **variables})

    def ask(self, client: str) -> Answer:
        """What `client` gets, through a proxy on this machine."""
        return self.get("/", {"X-Forwarded-For": client})

    def statuses(self, client: str) -> Counter[int]:
        """What it gets that asks 16 times at once."""
        return Counter(answer.status for answer in self.burst(16, "/", {"X-Forwarded-For": client}))

    def degraded(self) -> bool | None:
        """Whether a client's limits are; None where nothing answers."""
        try:
            return self.ask("198.51.100.9").headers["Degraded"] is not None
        except (OSError, HTTPException):
            return None

    def says(self, text: str) -> bool:
        """Whether it stands in the log, after another request."""
        return self.degraded() is not None and text in self.log()


def test_the_page_has_a_command_for_each_framework() -> None:
    """Nothing below runs in vain."""
    apps = [re.findall(r"--workers 4 .*\b8000 .*\b(\w+):\w+$", command) for command in COMMANDS]
    assert [["flask_app"], ["django_app"], ["fastapi_app"], ["starlette_app"]] == apps


# Four processes are as many as it takes to see that they count together; the others show what the servers and frameworks do.
@pytest.mark.parametrize(
    ("command", "workers"),
    [(FLASK, 4), (DJANGO, 1), (FASTAPI, 1), (STARLETTE, 2)],
    ids=["flask", "django", "fastapi", "starlette"],
)
def test_commands(command: str, workers: int, tmp_path: Path) -> None:
    """Clients behind the proxy are told apart, all workers count together, and an outage stands in the log with the share."""
    with Valkey() as valkey, Site(command, tmp_path, workers=workers, FAILSOFT_STORE=valkey.url) as site:
        poll(lambda: site.degraded() is False, within=30)
        for number in range(4):
            assert Counter({200: 12, 429: 4}) == site.statuses(f"198.51.100.{number}")
        assert "replaced the peer's address" not in site.log()
        valkey.kill()
        poll(site.degraded, within=30)
        poll(lambda: site.says(f"the store 'default' ({valkey.url}) is away"), within=30)
        share = rf"is away \(.*\)\. Meanwhile .* are counted by this process, 1/{2 * workers} of each quota$"
        assert re.search(share, site.log(), re.M)
        assert "Traceback" not in site.log()
        valkey.start()
        poll(lambda: site.says(f"the store 'default' ({valkey.url}) is back, after "), within=30)


@pytest.mark.parametrize("command", [FLASK, DJANGO, STARLETTE], ids=["flask", "django", "starlette"])
def test_a_proxy_that_nobody_named(command: str, tmp_path: Path) -> None:
    """Where no proxy is trusted the log says so, once in each process."""
    said = "X-Forwarded-For came from 127.0.0.1, and trusted_proxies is empty"
    variables = {"FAILSOFT_STORE": "memory://", "FAILSOFT_REPLICAS": "1", "FAILSOFT_TRUSTED_PROXIES": ""}
    with Site(command, tmp_path, workers=1, **variables) as site:
        for client in ("198.51.100.1", "198.51.100.2", "198.51.100.3"):
            site.ask(client)
        poll(lambda: said in site.log(), within=10)
        assert 1 == site.log().count(said)
