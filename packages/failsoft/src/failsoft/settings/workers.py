"""How many processes serve the application, for those who did not say it to us but to their server.

gunicorn and uvicorn take the number from their command line, or else from ``WEB_CONCURRENCY``, and tell nobody. But each of their
processes has the server's own command line in `sys.argv`: gunicorn forks it, and multiprocessing, which uvicorn uses, hands it on.
The order is the servers' own: the command line; what they take for a part of it (``GUNICORN_CMD_ARGS``, ``UVICORN_WORKERS``);
``WEB_CONCURRENCY``. A gunicorn configuration file is not read: it is a program.

What is no whole number of at least 1 is for the server to complain of; here it counts as not there.
"""

import re
import shlex
import sys
from collections.abc import Mapping, Sequence

__all__ = ["workers_from", "workers_of_server"]

_OPTIONS = {"gunicorn": ("-w", "--workers"), "uvicorn": ("--workers",)}
"""The servers that are known, and how each is told."""

_PROGRAM = re.compile(r"(?:^|[/\\])(gunicorn|uvicorn)(?:\.exe|[/\\]__main__\.py)?$")


def workers_from(environ: Mapping[str, str], argv: Sequence[str] | None = None) -> int:
    """The processes that serve, as far as the server's command line or the environment say, or 1.

    Args:
        environ: the environment.
        argv: the command line, by default this process's.
    """
    return workers_of_server(environ, argv) or _number(environ.get("WEB_CONCURRENCY")) or 1


def workers_of_server(environ: Mapping[str, str], argv: Sequence[str] | None = None) -> int | None:
    """The processes that the server of this process was told to start, or None where nobody told it or it is not known."""
    # An interpreter within another program has no sys.argv.
    command: Sequence[str] = getattr(sys, "argv", ()) if argv is None else argv
    found = _PROGRAM.search(command[0]) if command else None
    if found is None:
        return None
    server = found[1]
    if (number := _told(command[1:], _OPTIONS[server])) is not None:
        return number
    if server == "uvicorn":
        return _number(environ.get("UVICORN_WORKERS"))
    try:
        return _told(shlex.split(environ.get("GUNICORN_CMD_ARGS", "")), _OPTIONS[server])
    except ValueError:  # a quotation mark that is not closed
        return None


def _told(arguments: Sequence[str], options: Sequence[str]) -> int | None:
    """What the last of `options` among `arguments` says."""
    said: str | None = None
    for place, argument in enumerate(arguments):
        if argument == "--":
            break
        if argument in options:
            said = arguments[place + 1] if place + 1 < len(arguments) else None
        elif argument.startswith("--"):
            name, sign, value = argument.partition("=")
            said = value if sign and name in options else said
        elif argument.startswith("-w") and "-w" in options:
            said = argument[2:].lstrip("= ")
    return _number(said)


def _number(text: str | None) -> int | None:
    return (int(text) or None) if text is not None and re.fullmatch(r"[0-9]{1,4}", text, re.ASCII) else None
