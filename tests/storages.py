"""A real memcached for tests, which can be killed, stopped in its tracks and started again."""

import os
import shutil
import signal
import socket
import subprocess

import pytest

from tests.servers import Port, poll

__all__ = ["Memcached"]


class Memcached:
    """A server of its own on a TCP port of 127.0.0.1. Use it as a context manager. Skips the test where there is none
    installed, except in CI, where the test fails.
    """

    def __init__(self) -> None:
        self._held = Port()
        self.port = self._held.number
        self.process: subprocess.Popen[bytes] | None = None

    @property
    def url(self) -> str:
        """Where it is."""
        return f"memcached://127.0.0.1:{self.port}"

    def start(self) -> "Memcached":
        """Start it, and wait until it answers."""
        binary = shutil.which("memcached")
        if binary is None:
            reason = "needs memcached: apt-get install memcached"
            if os.environ.get("CI") == "true":
                pytest.fail(reason)
            pytest.skip(reason)
        command = [binary, "-l", "127.0.0.1", "-p", str(self.port), "-U", "0", "-u", "root", "-m", "16", "-t", "1"]
        self.process = subprocess.Popen(command, stdin=subprocess.DEVNULL)
        poll(self._answers)
        return self

    def _answers(self) -> bool:
        try:
            return self.run("version").startswith("VERSION")
        except OSError:
            return False

    def run(self, command: str) -> str:
        """The reply to one command."""
        with socket.create_connection(("127.0.0.1", self.port), timeout=5) as connection:
            connection.sendall(f"{command}\r\n".encode())
            reply = b""
            while part := connection.recv(65536):
                reply += part
                lists = reply.startswith((b"STAT ", b"key=", b"VALUE "))
                if reply.endswith(b"END\r\n" if lists else b"\r\n"):
                    break
            return reply.decode()

    def connections(self) -> int:
        """How many are open, but for the one that asks."""
        lines = dict(line.split()[1:] for line in self.run("stats").splitlines() if line.startswith("STAT"))
        return int(lines["curr_connections"]) - 1

    def kill(self) -> None:
        """End it at once."""
        if self.process is not None:
            self.process.kill()
            self.process.wait()
            self.process = None

    def pause(self) -> None:
        """Stop it in its tracks."""
        assert self.process is not None
        self.process.send_signal(signal.SIGSTOP)
        os.waitid(os.P_PID, self.process.pid, os.WSTOPPED | os.WNOWAIT)

    def resume(self) -> None:
        """Let it go on."""
        assert self.process is not None
        self.process.send_signal(signal.SIGCONT)

    def __enter__(self) -> "Memcached":
        return self.start()

    def __exit__(self, *error: object) -> None:
        self.kill()
        self._held.release()
