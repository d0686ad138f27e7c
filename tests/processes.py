"""Other processes: programs, and applications in real servers.

A server is a command that is run on a port that is free, asked until it answers, and killed in the end. Where it has ended by itself, a
test fails with what stands in its log. Its port is held until it answers (see `Port`); wherever it says that the port is in use, it is run
on another.
"""

import os
import re
import signal
import subprocess
import sys
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, suppress
from email.message import Message
from http.client import HTTPConnection, HTTPException
from pathlib import Path
from time import monotonic
from types import TracebackType
from typing import NamedTuple, Self

from tests.servers import Port, poll

__all__ = ["ROOT", "Answer", "Served", "environment", "quick", "run"]

ROOT = Path(__file__).parents[1]

_SAY_SOMETHING = ("FAILSOFT_", "FLASK_", "APP_", "GUNICORN_", "UVICORN_", "WEB_CONCURRENCY")


def environment(**variables: str) -> dict[str, str]:
    """That of a process of its own: ours without what applications and their servers read, and `variables`.

    The programs that are installed beside this Python come first in its path.
    """
    ours = {name: value for name, value in os.environ.items() if not name.startswith(_SAY_SOMETHING)}
    beside = os.pathsep.join([str(Path(sys.executable).parent), ours.get("PATH", os.defpath)])
    return {**ours, "PATH": beside, **variables}


def quick(program: str) -> str:
    """`program`, which does not look for garbage among modules: a fifth of the time to start and to end would go into it."""
    return f"import gc\ngc.disable()\n{program}\ngc.freeze()\n"


def run(program: str, *arguments: str, cwd: Path = ROOT, **variables: str) -> "subprocess.CompletedProcess[str]":
    """A Python program that runs, without warnings, and ends.

    Args:
        program: its text.
        arguments: of it.
        cwd: where it runs.
        variables: of its environment.
    """
    return subprocess.run(
        [sys.executable, "-W", "ignore", "-c", quick(program), *arguments],
        cwd=cwd,
        env=environment(**variables),
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )


class Answer(NamedTuple):
    """What came back.

    Attributes:
        headers: by their names in any case; None for what is not there.
        took: seconds.
    """

    status: int
    headers: "Message[str, str]"
    body: bytes
    took: float


class Served:
    """A server process, with its workers. A context manager: it begins when the server answers, and ends the server.

    Args:
        command: its words.
        directory: for its log, and for files of its own.
        cwd: where it runs.
        variables: of its environment. In them, as in the words, the port takes the place of ``{port}``.

    Attributes:
        port: where it listens, on 127.0.0.1.
    """

    def __init__(self, command: Sequence[str], directory: Path, *, cwd: Path = ROOT, **variables: str) -> None:
        self._command = command
        self._log = directory / "log"
        self._cwd = cwd
        # Files of gunicorn's own stay out of the home directory.
        self._variables = {"XDG_RUNTIME_DIR": str(directory), **variables}

    def __enter__(self) -> Self:
        with ExitStack() as self._held:
            self._start()
            try:
                poll(self._answers, within=40)
            except BaseException:
                self._kill()
                raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        try:
            if "COVERAGE_PROCESS_CONFIG" in os.environ:
                with suppress(subprocess.TimeoutExpired):
                    self.end()  # which is when they write what was covered
        finally:
            self._kill()

    def _start(self) -> None:
        self.port = self._held.enter_context(Port()).number
        command = [self._on_port(word) for word in self._command]
        variables = environment(**{name: self._on_port(value) for name, value in self._variables.items()})
        with self._log.open("wb") as log:
            self._process = subprocess.Popen(
                command, cwd=self._cwd, env=variables, stdout=log, stderr=log, start_new_session=True
            )

    def _on_port(self, text: str) -> str:
        return text.replace("{port}", str(self.port))

    def _answers(self) -> bool:
        try:
            self.get("/")
        except (OSError, HTTPException, AssertionError):  # the last where it has ended
            answered = False
        else:
            answered = True
        over = self._process.poll() is not None
        # Somebody else has the port, who may have answered; gunicorn would wait for it.
        if re.search("(already|connection) in use", self.log(), re.IGNORECASE):
            self._kill()
            self._start()
            return False
        assert not over, self.log()
        return answered

    def end(self) -> None:
        """Ask it to end, and wait until it has."""
        self._process.terminate()
        self._process.wait(30)

    def _kill(self) -> None:
        # With its workers. To end them in order would take a third of the time that it took to start them.
        with suppress(ProcessLookupError):
            os.killpg(self._process.pid, signal.SIGKILL)
        self._process.wait()

    def log(self) -> str:
        """What stands in its log."""
        return self._log.read_text()

    def get(self, path: str, headers: Mapping[str, str] | None = None) -> Answer:
        """GET `path` over a connection of its own."""
        return self.send("GET", path, headers)

    def send(self, method: str, path: str, headers: Mapping[str, str] | None = None) -> Answer:
        """One request over a connection of its own."""
        connection = HTTPConnection("127.0.0.1", self.port, timeout=60)
        began = monotonic()
        try:
            connection.request(method, path, headers=headers or {})
            response = connection.getresponse()
            body = response.read()
        except (OSError, HTTPException):
            assert self._process.poll() is None, self.log()
            raise
        finally:
            connection.close()
        return Answer(response.status, response.headers, body, monotonic() - began)

    def burst(self, n: int, path: str, headers: Mapping[str, str] | None = None, *, at_once: int = 50) -> list[Answer]:
        """`n` requests, so many at once."""
        with ThreadPoolExecutor(min(n, at_once)) as threads:
            return list(threads.map(self.get, [path] * n, [headers] * n))
