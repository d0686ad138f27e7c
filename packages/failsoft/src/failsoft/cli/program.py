"""``failsoft``, the program."""

import argparse
from collections.abc import Sequence
from typing import Any

from failsoft import __version__
from failsoft.cli.commands import add_commands, run

__all__ = ["main"]


def main(arguments: Sequence[str] | None = None, *, app: Any = None, program: str = "failsoft") -> int:
    """Run the command line. Returns the exit status: 0, 1 for findings, 2 for a mistake in the call.

    Args:
        arguments: the words after the program's name, by default this process's.
        app: the application that the commands are about; without it each names one.
        program: what messages call it.
    """
    parser = argparse.ArgumentParser(prog=program, description="Resilience middleware for Python web applications.")
    parser.add_argument("--version", action="version", version=f"failsoft {__version__}")
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")
    add_commands(commands, app=app is None)
    return run(parser.parse_args(arguments), app=app)
