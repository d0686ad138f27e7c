"""The server of the benchmarks: a Valkey whose counters are read around a run, and a way to cut it off."""

import contextlib
import socket
import threading
import time
from collections.abc import Iterator, Mapping

import redis

from benchmarks.cases import Case, Place
from benchmarks.workers import Worker
from tests.servers import Valkey

__all__ = ["Gate", "place_of", "round_trips", "server", "wrong_counts"]

_TRIES = 3


@contextlib.contextmanager
def server() -> Iterator[Valkey]:
    """A server for the time being."""
    with Valkey("--loglevel", "warning") as valkey:
        yield valkey


def place_of(valkey: Valkey) -> Place:
    """Where it is, for cases that are measured while it is well."""
    return Place(port=valkey.port, path=valkey.path, deadline=5.0)


def round_trips(valkey: Valkey, worker: Worker, *, requests: int = 100) -> float:
    """Read events of the server for each request.

    The least of several tries: connections that are renewed in the background, ours and others', only add.
    """
    with redis.Redis(unix_socket_path=valkey.path, single_connection_client=True) as client:

        def reads() -> int:
            return int(client.info("stats")["total_reads_processed"])

        counted: list[int] = []
        for _ in range(_TRIES):
            before = reads()
            worker.run(requests)
            counted.append(reads() - before - 1)  # the last question is one itself
    return min(counted) / requests


def wrong_counts(counted: Mapping[Case, float]) -> list[str]:
    """What of the counted round trips is not as it must be."""
    return [
        f"{case.name}: {trips:.2f} round trips for a request, not {case.round_trips}"
        for case, trips in counted.items()
        # A connection that is renewed meanwhile takes a few more.
        if case.round_trips is not None and not case.round_trips <= trips < case.round_trips + 0.2
    ]


_DRIP = 0.02
"""Seconds between two bytes of a dripping reply."""


class Gate:
    """A way to a server through this process, which can be closed: what is sent is lost, new connections get no answer. Or it can drip:
    a byte of each reply now and then, none too late for one recv.

    That is what a firewall or a dead machine looks like from inside, unlike a process that was killed or stopped. A
    listening socket whose queue is full makes the kernel drop further attempts to connect.
    """

    def __init__(self, port: int) -> None:
        self._target = port
        self._open = threading.Event()
        self._open.set()
        self._dripping = False
        self._ended = False
        self._sockets: list[socket.socket] = []
        self._listener = socket.socket()
        self._listener.bind(("127.0.0.1", 0))
        self._listener.listen(0)
        self.port = int(self._listener.getsockname()[1])
        self._threads = [threading.Thread(target=self._accept, daemon=True)]
        self._threads[0].start()

    def close(self) -> None:
        """Let nothing through any more."""
        self._open.clear()
        # The one that accept() waits for already, and those that fill the queue.
        for _ in range(4):
            filler = socket.socket()
            filler.setblocking(False)
            filler.connect_ex(("127.0.0.1", self.port))
            self._sockets.append(filler)

    def open(self) -> None:
        """Let through what comes from now on."""
        self._dripping = False
        self._open.set()

    def drip(self) -> None:
        """Let replies through byte by byte."""
        self._dripping = True

    def end(self) -> None:
        """Let go of everything."""
        self._ended = True
        self._open.set()
        with contextlib.suppress(OSError):
            self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        for one in self._sockets:
            with contextlib.suppress(OSError):
                one.shutdown(socket.SHUT_RDWR)
            one.close()
        for thread in self._threads:
            thread.join()

    def _accept(self) -> None:
        while not self._ended:
            try:
                near, _ = self._listener.accept()
            except OSError:
                return
            self._open.wait()
            try:
                far = socket.create_connection(("127.0.0.1", self._target))
            except OSError:
                near.close()
                continue
            for one in (near, far):
                one.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            self._sockets += [near, far]
            for source, sink, is_reply in ((near, far, False), (far, near, True)):
                thread = threading.Thread(target=self._pass_on, args=(source, sink, is_reply), daemon=True)
                self._threads.append(thread)
                thread.start()

    def _pass_on(self, source: socket.socket, sink: socket.socket, is_reply: bool) -> None:
        try:
            while data := source.recv(65_536):
                if not self._open.is_set():
                    continue
                while self._dripping and is_reply and data:
                    sink.sendall(data[:1])
                    data = data[1:]
                    time.sleep(_DRIP)
                sink.sendall(data)
        except OSError:
            pass
        with contextlib.suppress(OSError):
            sink.shutdown(socket.SHUT_RDWR)
