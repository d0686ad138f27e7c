"""What the server of this process was told: on its command line, or in what it takes for a part of that.

gunicorn and uvicorn tell nobody. But each of their processes has the server's own command line in `sys.argv`: gunicorn forks it, and
multiprocessing, which uvicorn uses, hands it on. A gunicorn configuration file is not read: it is a program.
"""

import re
import shlex
import sys
from collections.abc import Mapping, Sequence

__all__ = ["Server", "believes_everyone", "option", "server_of"]

_PROGRAM = re.compile(r"(?:^|[/\\])(gunicorn|uvicorn)(?:\.exe|[/\\]__main__\.py)?$")

_ALLOW = "--forwarded-allow-ips"

Server = tuple[str, Sequence[str]]
"""A server's name, ``gunicorn`` or ``uvicorn``, and the arguments on its command line."""


def server_of(argv: Sequence[str] | None = None) -> Server | None:
    """The server of this process, or None where it is none that is known.

    Args:
        argv: the command line, by default this process's.
    """
    # An interpreter within another program has no sys.argv.
    command: Sequence[str] = getattr(sys, "argv", ()) if argv is None else argv
    found = _PROGRAM.search(command[0]) if command else None
    return None if found is None else (found[1], command[1:])


def option(server: Server, environ: Mapping[str, str], *names: str) -> str | None:
    """What `server` was told with an option, on its command line or else in its variable; None where nobody told it.

    Args:
        server: the server.
        environ: the environment.
        names: what the option is called; two characters are its short name.
    """
    name, arguments = server
    said = _said(arguments, names)
    if said is not None:
        return said
    if name == "uvicorn":
        long = next(one for one in names if one.startswith("--"))
        return environ.get("UVICORN_" + long[2:].replace("-", "_").upper())
    try:
        return _said(shlex.split(environ.get("GUNICORN_CMD_ARGS", "")), names)
    except ValueError:  # a quotation mark that is not closed
        return None


def believes_everyone(environ: Mapping[str, str], argv: Sequence[str] | None = None) -> bool:
    """Whether the server takes the client's address out of ``X-Forwarded-For`` whoever connects: then it is the left-most entry.

    uvicorn does if it was told so. gunicorn does not, but what it was told goes on to uvicorn where that is its worker.

    Args:
        environ: the environment.
        argv: the command line, by default this process's.
    """
    server = server_of(argv)
    if server is None:
        return False
    name, arguments = server
    if name == "gunicorn":
        if "uvicorn" not in (option(server, environ, "-k", "--worker-class") or "").lower():
            return False
    else:
        switches = [one for one in arguments if one in ("--proxy-headers", "--no-proxy-headers")]
        if (switches or ["--proxy-headers"])[-1] == "--no-proxy-headers":
            return False
        if not switches and environ.get("UVICORN_PROXY_HEADERS", "").lower() in ("0", "false", "f", "no", "n", "off"):
            return False
    allowed = option(server, environ, _ALLOW)
    if allowed is None:
        allowed = environ.get("FORWARDED_ALLOW_IPS", "")
    return allowed == "*" or any(one.strip() in ("0.0.0.0/0", "::/0") for one in allowed.split(","))


def _said(arguments: Sequence[str], names: Sequence[str]) -> str | None:
    """What the last of the options called `names` among `arguments` says; "" for one without a value."""
    said: str | None = None
    short = tuple(name for name in names if not name.startswith("--"))
    for place, argument in enumerate(arguments):
        if argument == "--":
            break
        if argument in names:
            said = arguments[place + 1] if place + 1 < len(arguments) else ""
        elif argument.startswith("--"):
            name, sign, value = argument.partition("=")
            said = value if sign and name in names else said
        elif short and argument.startswith(short):
            said = argument[2:].lstrip("= ")
    return said
