"""How many processes serve the application, for those who did not say it to us but to their server.

gunicorn and uvicorn take the number from their command line, or else from ``WEB_CONCURRENCY``. The order here is the servers' own: the
command line; what they take for a part of it (``GUNICORN_CMD_ARGS``, ``UVICORN_WORKERS``); ``WEB_CONCURRENCY``.

What is no whole number of at least 1 is for the server to complain of; here it counts as not there.
"""

import re
from collections.abc import Mapping, Sequence

from failsoft.settings.servers import option, server_of

__all__ = ["workers_from", "workers_of_server"]

_OPTIONS = {"gunicorn": ("-w", "--workers"), "uvicorn": ("--workers",)}
"""The servers that are known, and how each is told."""


def workers_from(environ: Mapping[str, str], argv: Sequence[str] | None = None) -> int:
    """The processes that serve, as far as the server's command line or the environment say, or 1.

    Args:
        environ: the environment.
        argv: the command line, by default this process's.
    """
    return workers_of_server(environ, argv) or _number(environ.get("WEB_CONCURRENCY")) or 1


def workers_of_server(environ: Mapping[str, str], argv: Sequence[str] | None = None) -> int | None:
    """The processes that the server of this process was told to start, or None where nobody told it or it is not known."""
    server = server_of(argv)
    return None if server is None else _number(option(server, environ, *_OPTIONS[server[0]]))


def _number(text: str | None) -> int | None:
    return (int(text) or None) if text is not None and re.fullmatch(r"[0-9]{1,4}", text, re.ASCII) else None
