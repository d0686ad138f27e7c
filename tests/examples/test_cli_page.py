"""What the page on the command line shows is what the commands print."""

import os
import re
import shlex
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.servers import Valkey

ROOT = Path(__file__).parents[2]
PAGE = ROOT / "docs" / "cli.md"
BLOCK = re.compile(r"^```console\n\$ failsoft (?P<arguments>.*)\n(?P<shown>(?:.*\n)*?)```$", re.MULTILINE)
TRAFFIC = """
import time
from shop import app
client = app.test_client()
def get(path, address): return client.get(path, environ_base={"REMOTE_ADDR": address})
while "Degraded" in get("/nowhere", "192.0.2.9").headers: time.sleep(0.01)
for _ in range(3): get("/search", "192.0.2.1")
"""
VARIABLE = (
    (r"\b127\.0\.0\.1:\d+", "localhost:6379"),
    (r"\b(Valkey|Redis) [\d.]+", "Valkey N"),
    (r"\b\d+(\.\d+)? (d|h|min|s|ms|B|KiB|MiB|GiB)\b( \d+ (h|min|s)\b)?", "N"),
    (r"\b\d+ (cached|changes)", r"N \1"),
    (r"\b(clients +)\d+ of \d+", r"\1N"),
    (r"memory +N of .*, policy", "memory N, policy"),
    (r"persistence .*", "persistence"),
)


def settled(text: str) -> str:
    """`text` without what differs from one run to the next."""
    for pattern, instead in VARIABLE:
        text = re.sub(pattern, instead, text)
    return text


def outputs(server: Valkey) -> Iterator[tuple[str, str, str]]:
    """Each command of the page, with what the page shows of it and what it prints."""
    environ = {name: value for name, value in os.environ.items() if not name.startswith("FAILSOFT_")}
    environ |= {"FAILSOFT_STORE": server.url, "FAILSOFT_DEADLINE": "5"}  # this machine may be busy
    subprocess.run([sys.executable, "-c", TRAFFIC], env=environ, cwd=ROOT / "examples", check=True, timeout=60)
    for match in BLOCK.finditer(PAGE.read_text()):
        command = [sys.executable, "-c", "import sys; from failsoft.cli import main; sys.exit(main())"]
        done = subprocess.run(
            [*command, *shlex.split(match["arguments"])],
            env=environ,
            cwd=ROOT / "examples",
            capture_output=True,
            text=True,
            check=False,
            stdin=subprocess.DEVNULL,
        )
        yield match["arguments"], match["shown"], done.stdout + done.stderr


@pytest.mark.timeout(120)
def test_outputs() -> None:
    """Each command prints what the page shows, but for times, sizes, ports and versions."""
    with Valkey() as server:
        found = list(outputs(server))
    assert 11 == len(found)
    for arguments, shown, printed in found:
        assert settled(shown) == settled(printed), arguments
