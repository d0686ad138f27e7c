"""What the page on the command line shows is what the commands print."""

import re
import shlex
import subprocess
import sys
from collections.abc import Iterator, Sequence
from typing import Any

import pytest

from failsoft.cli import main
from tests.examples.test_examples import EXAMPLES
from tests.processes import ROOT, environment
from tests.servers import Valkey, poll

PAGE = (ROOT / "docs" / "cli.md").read_text()
BLOCK = re.compile(r"^```console\n\$ failsoft (?P<arguments>.*)\n(?P<shown>(?:.*\n)*?)```$", re.MULTILINE)
COMMANDS = {match["arguments"]: match["shown"] for match in BLOCK.finditer(PAGE)}
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


@pytest.fixture
def store() -> Iterator[Valkey]:
    """That of the page's application."""
    with Valkey() as server:
        yield server


@pytest.fixture
def shop(store: Valkey, monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    """The page's application, here, and with the settings that a command reads."""
    monkeypatch.chdir(EXAMPLES)
    monkeypatch.syspath_prepend(str(EXAMPLES))
    monkeypatch.setenv("FAILSOFT_STORE", store.url)
    monkeypatch.setenv("FAILSOFT_DEADLINE", "5")  # this machine may be busy
    import shop

    yield shop.app
    shop.app.extensions["failsoft"].close()
    monkeypatch.delitem(sys.modules, "shop")


def get(app: Any, path: str, address: str) -> Any:
    return app.test_client().get(path, environ_base={"REMOTE_ADDR": address})


def here(arguments: Sequence[str], capsys: pytest.CaptureFixture[str]) -> str:
    """What a command prints that runs in this process."""
    main(arguments)
    printed = capsys.readouterr()
    return printed.out + printed.err


def test_outputs(shop: Any, capsys: pytest.CaptureFixture[str]) -> None:
    """Each command prints what the page shows, but for times, sizes, ports and versions."""
    assert 11 == len(COMMANDS)
    poll(lambda: "Degraded" not in get(shop, "/nowhere", "192.0.2.9").headers)
    for _ in range(3):
        get(shop, "/search", "192.0.2.1")
    for arguments, shown in COMMANDS.items():
        assert settled(shown) == settled(here(shlex.split(arguments), capsys)), arguments


def test_program(store: Valkey) -> None:
    """The program that is installed finds the application where it is called, and prints it without anything else."""
    arguments, shown = next(iter(COMMANDS.items()))
    done = subprocess.run(
        ["failsoft", *shlex.split(arguments)],
        env=environment(FAILSOFT_STORE=store.url),
        cwd=EXAMPLES,
        capture_output=True,
        text=True,
        check=True,
        timeout=60,
        stdin=subprocess.DEVNULL,
    )
    assert settled(shown) == settled(done.stdout + done.stderr)
