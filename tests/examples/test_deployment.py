"""The command lines of the page on deployment, as they stand there: with a proxy's header, and with a store that goes and comes."""

import os
import re
import shlex
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from http.client import HTTPConnection
from pathlib import Path

import pytest

from tests.servers import Valkey, free_port, poll

pytestmark = pytest.mark.processes

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "docs" / "deployment.md").read_text()
COMMANDS = re.findall(r"^ *\$ ((?:gunicorn|uvicorn) .*)$", PAGE, re.MULTILINE)
VARIABLES = dict(re.findall(r"^\$ export (\w+)=(.*)$", PAGE, re.MULTILINE))

Answer = tuple[int, str | None, str | None]
"""Status, RateLimit, Degraded."""


class Served:
    """An application that a command of the page serves."""

    def __init__(self, port: int, log: Path) -> None:
        self.port = port
        self._log = log

    def get(self, client: str) -> Answer | None:
        """What `client` gets, through a proxy on this machine."""
        connection = HTTPConnection("127.0.0.1", self.port, timeout=20)
        try:
            connection.request("GET", "/", headers={"X-Forwarded-For": client})
            response = connection.getresponse()
            response.read()
            return response.status, response.headers["RateLimit"], response.headers["Degraded"]
        except OSError:
            return None
        finally:
            connection.close()

    def left(self, client: str) -> int:
        """How many more requests `client` has."""
        answer = self.get(client)
        assert answer is not None
        [left] = re.findall(r'"12-per-minute";r=(\d+)', answer[1] or "")
        return int(left)

    def log(self) -> str:
        """What stands in the server's log."""
        return self._log.read_text()


@contextmanager
def served(command: str, directory: Path, **variables: str) -> Iterator[Served]:
    """Runs a command of the page, on a port that is free."""
    port = free_port()
    program, *arguments = shlex.split(command.replace("8000", str(port)))
    log = directory / "log"
    environment = {**os.environ, **VARIABLES, "FAILSOFT_DEADLINE": "2", **variables, "XDG_RUNTIME_DIR": str(directory)}
    environment.pop("WEB_CONCURRENCY", None)
    with log.open("wb") as file:
        path = str(Path(sys.executable).parent / program)
        process = subprocess.Popen([path, *arguments], cwd=ROOT, env=environment, stdout=file, stderr=file)
    try:
        site = Served(port, log)

        def answers() -> bool:
            assert process.poll() is None, site.log()
            return site.get("198.51.100.9") is not None

        poll(answers, within=40)
        yield site
    finally:
        process.terminate()
        try:
            process.wait(30)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


def test_the_page_has_a_command_for_each_framework() -> None:
    """Nothing below runs in vain."""
    assert ["flask_app", "django_app", "fastapi_app", "starlette_app"] == [
        re.findall(r"(\w+):\w+$", command)[0] for command in COMMANDS
    ]


@pytest.mark.parametrize("command", COMMANDS)
def test_commands(command: str, tmp_path: Path) -> None:
    """Clients behind the proxy are told apart, all workers count together, and an outage stands in the log with the share."""
    with Valkey() as valkey, served(command, tmp_path, FAILSOFT_STORE=valkey.url) as site:
        poll(lambda: (answer := site.get("198.51.100.9")) is not None and answer[2] is None, within=30)
        assert [11, 10, 11] == [site.left(client) for client in ("198.51.100.1", "198.51.100.1", "198.51.100.2")]
        assert "replaced the peer's address" not in site.log()
        valkey.kill()
        poll(lambda: (answer := site.get("198.51.100.9")) is not None and answer[2], within=30)
        lost = f"the store 'default' ({valkey.url}) is away"
        poll(lambda: site.get("198.51.100.9") and lost in site.log(), within=30)
        assert re.search(
            r"is away \(.*\)\. Meanwhile .* are counted by this process, 1/8 of each quota$", site.log(), re.M
        )
        assert "Traceback" not in site.log()
        valkey.start()
        back = f"the store 'default' ({valkey.url}) is back, after "
        poll(lambda: site.get("198.51.100.9") and back in site.log(), within=30)


@pytest.mark.parametrize("command", COMMANDS[:3])
def test_a_proxy_that_nobody_named(command: str, tmp_path: Path) -> None:
    """Where no proxy is trusted the log says so, once in each process."""
    command = command.replace("--workers 4", "--workers 1")
    said = "X-Forwarded-For came from 127.0.0.1, and trusted_proxies is empty"
    variables = {"FAILSOFT_STORE": "memory://", "FAILSOFT_REPLICAS": "1", "FAILSOFT_TRUSTED_PROXIES": ""}
    with served(command, tmp_path, **variables) as site:
        for client in ("198.51.100.1", "198.51.100.2", "198.51.100.3"):
            site.get(client)
        poll(lambda: said in site.log(), within=10)
        assert 1 == site.log().count(said)
