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
    del sys.modules["shop"]
    shop.app.extensions["failsoft"].close()


def get(app: Any, path: str, address: str) -> Any:
    return app.test_client().get(path, environ_base={"REMOTE_ADDR": address})


def visit(app: Any) -> None:
    """What the page says was asked of the application, and counted in the store."""
    poll(lambda: "Degraded" not in get(app, "/nowhere", "192.0.2.9").headers)
    for _ in range(3):
        get(app, "/search", "192.0.2.1")


def here(arguments: Sequence[str], capsys: pytest.CaptureFixture[str]) -> str:
    """What a command prints that runs in this process."""
    main(arguments)
    printed = capsys.readouterr()
    return printed.out + printed.err


def test_outputs(shop: Any, capsys: pytest.CaptureFixture[str]) -> None:
    """Each command prints what the page shows, but for times, sizes, ports and versions."""
    assert 11 == len(COMMANDS)
    visit(shop)
    for arguments, shown in COMMANDS.items():
        assert settled(shown) == settled(here(shlex.split(arguments), capsys)), arguments


def test_program(shop: Any, store: Valkey) -> None:
    """The program that is installed finds the application where it is called, asks its store, and prints nothing else."""
    visit(shop)
    arguments, shown = next((words, shown) for words, shown in COMMANDS.items() if words.startswith("peek"))
    done = subprocess.run(
        ["failsoft", *shlex.split(arguments)],
        env=environment(FAILSOFT_STORE=store.url, FAILSOFT_DEADLINE="5"),
        cwd=EXAMPLES,
        capture_output=True,
        text=True,
        check=True,
        timeout=60,
        stdin=subprocess.DEVNULL,
    )
    assert settled(shown) == settled(done.stdout + done.stderr)
