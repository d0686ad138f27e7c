"""Servers for tests: a real Valkey that can be killed, stopped in its tracks and started again, and an impostor."""

import contextlib
import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path
from types import TracebackType
from typing import Any, ClassVar, Self

import redis

# As the product does: without the import of the package, which takes a third of a second of each process.
from failsoft.stores.embedded import _binary as get_binary_path

__all__ = ["Administration", "Group", "Impostor", "Lag", "Port", "Reads", "Valkey", "free_port", "poll"]


class Port:
    """A TCP port of 127.0.0.1 that nobody listens on: whoever has this may. Use it as a context manager, or `release` it.

    Otherwise somebody else may listen there before our server does, or while it is down, or another process may connect from there. On
    Linux two sockets may have one port, as long as only one of them listens, if both say that they agree, as servers do. This one says
    it only when it has the port, so that it is nobody's who holds one as well; and the kernel gives it to nobody who asks for any.
    Elsewhere the port was free a moment ago.

    Args:
        number: or 0 for any.

    Raises:
        OSError: somebody has it.
    """

    # Those that are not released are kept as long as the process lives.
    _held: ClassVar[set["Port"]] = set()

    def __init__(self, number: int = 0) -> None:
        with ExitStack() as stack:
            holder = stack.enter_context(socket.socket())
            holder.bind(("127.0.0.1", number))
            self.number = int(holder.getsockname()[1])
            if sys.platform == "linux":
                holder.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
                stack.pop_all()
                self._held.add(self)
        self._holder = holder

    def release(self) -> None:
        """Let anybody have it."""
        self._holder.close()
        self._held.discard(self)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.release()


def free_port() -> int:
    """The number of a `Port` that is not released: nobody else is given it as long as this process lives."""
    return Port().number


def poll(condition: Any, *, within: float = 30.0, every: float | None = None) -> Any:
    """Call `condition` until what it returns is true, and return that; fail after `within` seconds.

    By default it asks less and less often, for others need the processor too.
    """
    start = time.monotonic()
    while True:
        value = condition()
        if value:
            return value
        waited = time.monotonic() - start
        if waited > within:
            raise AssertionError(f"not so within {within} s")
        time.sleep(min(max(0.005, waited / 10), 0.05) if every is None else every)


class Administration:
    """Runs commands, each on a connection of its own that is gone afterwards.

    Args:
        where: what redis-py's client is told of the server.
    """

    def __init__(self, **where: Any) -> None:
        self._where = where
        self._client: redis.Redis | None = None
        self._lock = threading.Lock()

    def run(self, *command: Any) -> Any:
        """The reply to one command."""
        with self._lock:
            if self._client is None:
                # One for all commands: to make it takes ten times as long as to connect.
                self._client = redis.Redis(socket_timeout=5, protocol=2, retry=None, **self._where)
            try:
                return self._client.execute_command(*command)
            finally:
                self._client.connection_pool.disconnect()


class Valkey:
    """A server of its own, on a TCP port of 127.0.0.1 and on a unix socket. Use it as a context manager.

    Args:
        options: further arguments for the server, such as ``"--requirepass", "secret"``.
        password: what administration needs to get in, if the options ask for it.
    """

    def __init__(self, *options: str, password: str | None = None) -> None:
        self.options = options
        self.password = password
        # Short, because the path of a unix socket must fit into about 100 bytes.
        self.directory = Path(tempfile.mkdtemp(prefix="vk-"))
        self.path = str(self.directory / "s")
        self._held = Port()
        self.port = self._held.number
        self.process: subprocess.Popen[bytes] | None = None
        self._answered = False
        self._administration = Administration(unix_socket_path=self.path, password=password)

    @property
    def url(self) -> str:
        """Of the TCP port."""
        return f"redis://127.0.0.1:{self.port}/0"

    @property
    def unix_url(self) -> str:
        """Of the unix socket."""
        return f"unix://{self.path}?db=0"

    def start(self) -> "Valkey":
        """Start it, and wait until it answers."""
        for _ in range(4):
            self._launch()
            try:
                poll(self._answers)
            except AssertionError as error:
                # Elsewhere than on Linux, somebody may have taken it between its choice and this moment.
                if self._answered or "Address already in use" not in str(error):
                    raise
                self.kill()
                (self.directory / "log").unlink()
                self._held.release()
                self._held = Port()
                self.port = self._held.number
            else:
                self._answered = True
                return self
        raise AssertionError("no port stays free")

    def _launch(self) -> None:
        assert self.process is None
        command = [
            get_binary_path(),
            "--port", str(self.port),
            "--bind", "127.0.0.1",
            "--unixsocket", self.path,
            "--dir", str(self.directory),
            "--save", "",
            "--appendonly", "no",
            "--daemonize", "no",
            *self.options,
        ]  # fmt: skip
        with (self.directory / "log").open("ab") as log:
            self.process = subprocess.Popen(command, stdout=log, stderr=log, stdin=subprocess.DEVNULL)

    def _answers(self) -> bool:
        assert self.process is not None
        if self.process.poll() is not None:
            raise AssertionError((self.directory / "log").read_text())
        try:
            return bool(self.run("PING"))
        except redis.BusyLoadingError:
            return False
        except (redis.ConnectionError, redis.TimeoutError):
            return False

    def kill(self) -> None:
        """End it at once, as a crash would."""
        if self.process is not None:
            self.process.kill()
            self.process.wait()
            self.process = None

    def restart(self) -> None:
        """Kill it, and start it again at the same addresses, with no memory of what was."""
        self.kill()
        self.start()

    def pause(self) -> None:
        """Stop it in its tracks: the kernel still accepts connections, nobody answers."""
        assert self.process is not None
        self.process.send_signal(signal.SIGSTOP)
        os.waitid(os.P_PID, self.process.pid, os.WSTOPPED | os.WNOWAIT)

    def resume(self) -> None:
        """Let it go on."""
        assert self.process is not None
        self.process.send_signal(signal.SIGCONT)

    def client(self) -> "redis.Redis":
        """A client for administration."""
        return redis.Redis(
            unix_socket_path=self.path,
            password=self.password,
            socket_timeout=5,
            protocol=2,
            retry=None,
            single_connection_client=True,
        )

    def run(self, *command: Any) -> Any:
        """The reply to one command."""
        return self._administration.run(*command)

    def stats(self) -> dict[str, Any]:
        """The section ``stats`` of INFO."""
        return dict(self.run("INFO", "stats"))

    def connections(self) -> int:
        """How many are open, but for the one that asks."""
        return len(self.run("CLIENT", "LIST").splitlines()) - 1

    def close(self) -> None:
        """End it and remove its directory."""
        if self.process is not None:
            with contextlib.suppress(ProcessLookupError):
                self.resume()
            self.kill()
        self._held.release()
        shutil.rmtree(self.directory, ignore_errors=True)

    def __enter__(self) -> "Valkey":
        return self.start()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


class Reads:
    """How often a server read from clients since this began, but for these questions. Use it as a context manager.

    One connection asks all of them: how many reads it takes to make one, or to notice that it ended, is a matter of chance.
    """

    def __init__(self, server: Valkey) -> None:
        self._client = server.client()
        self._questions = 0
        self._before = 0

    def _all(self) -> int:
        self._questions += 1
        return int(self._client.info("stats")["total_reads_processed"]) - self._questions

    def __enter__(self) -> "Reads":
        self._before = self._all()
        return self

    def __call__(self) -> int:
        return self._all() - self._before

    def __exit__(self, *_: object) -> None:
        self._client.close()


class Group:
    """Several servers as one: whoever has `start` and `close`, as a context manager that leaves nothing behind."""

    def start(self) -> Self:
        """Start all of it."""
        raise NotImplementedError

    def close(self) -> None:
        """End all of it."""
        raise NotImplementedError

    def __enter__(self) -> Self:
        try:
            return self.start()
        except BaseException:
            self.close()
            raise

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


class Lag:
    """How long this process did not run, at worst: what a loaded machine adds to every bound."""

    def __init__(self) -> None:
        self.worst = 0.0
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._watch)

    def _watch(self) -> None:
        while not self._over.is_set():
            start = time.monotonic()
            self._over.wait(0.01)
            self.worst = max(self.worst, time.monotonic() - start - 0.01)

    def __enter__(self) -> "Lag":
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._over.set()
        self._thread.join()


class Impostor:
    """A server that answers what a connect asks, and everything else as the test likes: with what a healthy server never says.

    Args:
        answer: called with the socket and each piece of what a client sent, in a thread for each connection.

    Attributes:
        accepted: connections so far.
        left: how many of them the client has closed.
    """

    def __init__(self, answer: Callable[[socket.socket, bytes], None]) -> None:
        self.answer = answer
        self.accepted = self.left = 0
        self._closed = False
        self._open: list[socket.socket] = []
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port = int(self._listener.getsockname()[1])
        threading.Thread(target=self._accept, daemon=True).start()

    @property
    def url(self) -> str:
        """Where it is."""
        return f"redis://127.0.0.1:{self.port}/0"

    def _accept(self) -> None:
        while True:
            try:
                connection, _ = self._listener.accept()
            except OSError:
                return
            self.accepted += 1
            self._open.append(connection)
            if self._closed:
                self.close()
            threading.Thread(target=self._serve, args=(connection,), daemon=True).start()

    def _serve(self, connection: socket.socket) -> None:
        with connection, contextlib.suppress(OSError):
            while data := connection.recv(65536):
                if data.startswith(b"*1\r\n$4\r\nPING"):
                    connection.sendall(b"+PONG\r\n")
                elif b"\r\nreturn 1\r\n" in data:
                    connection.sendall(b":1\r\n")
                else:
                    self.answer(connection, data)
            self.left += 1

    def close(self) -> None:
        """Stop listening, and close every connection."""
        self._closed = True
        for open_ in (self._listener, *self._open):
            with contextlib.suppress(OSError):
                open_.shutdown(socket.SHUT_RDWR)
            open_.close()

    def __enter__(self) -> "Impostor":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()
