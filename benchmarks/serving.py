"""Servers under test, as processes of their own."""

import http.client
import json
import subprocess
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

from benchmarks.workers import ORDER, ROOT, Died, environment

__all__ = ["serving"]

_PATIENCE = 60.0
"""Seconds for a server to answer for the first time, and to end."""


@contextmanager
def serving(command: Sequence[str], *, port: int, path: str, order: Mapping[str, Any], name: str) -> Iterator[None]:
    """Within, `command` serves ``127.0.0.1:port``.

    Args:
        command: the program and its arguments.
        port: where it listens.
        path: what it answers with 200 once it is ready.
        order: what the application is told.
        name: what an error calls it.

    Raises:
        Died: it ended, or never answered; with the end of what it said.
    """
    with tempfile.TemporaryFile("w+") as log:
        process = subprocess.Popen(
            command,
            cwd=ROOT,
            env=environment(**{ORDER: json.dumps(order)}),
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
        )
        try:
            deadline = time.monotonic() + _PATIENCE
            while not _answers(port, path):
                if process.poll() is not None or time.monotonic() > deadline:
                    log.seek(0)
                    raise Died(f"{name}: {log.read()[-2000:]}")
                time.sleep(0.05)
            yield
        finally:
            process.terminate()
            try:
                process.wait(_PATIENCE)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()


def _answers(port: int, path: str) -> bool:
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=_PATIENCE)
    try:
        connection.request("GET", path)
        return connection.getresponse().status == 200
    except OSError:
        return False
    finally:
        connection.close()
