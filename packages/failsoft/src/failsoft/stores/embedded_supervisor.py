"""The process that keeps one embedded server, for as long as somebody uses it.

It is run as a file by an isolated interpreter (``python -I -S embedded_supervisor.py DIRECTORY BINARY LINGER KEEP``) and so
imports the standard library only: it starts in tens of milliseconds, stays small, and works wherever the application
found its own modules.

Everything that processes must agree on is a `flock`, because the kernel drops those whatever kills their holder. A
process id on disk is believed only while the lock of its file is held, so that stale files (a crash, a reboot) need no
cleaning and no stranger that inherited the number is ever signalled.

====================  =========  ====================  =================================================================
lock                  mode       held by               means
====================  =========  ====================  =================================================================
the directory         shared     each user             the server is needed. Lost only with the directory itself
the directory         exclusive  an ending supervisor  nobody may come until the server is gone
``start.lock``        exclusive  a user                this user is starting the supervisor
``supervisor.lock``   exclusive  the supervisor        a supervisor lives; its pid is inside
``server.lock``       exclusive  the server            a server lives; its pid is inside. Passed on over fork and exec
``outage.lock``       exclusive  whoever wants one     the server must stay down
====================  =========  ====================  =================================================================

A user takes the directory first and looks for a supervisor second; a supervisor that wants to end takes the directory
exclusively and keeps it until it has exited. So a user that has the directory sees a supervisor that stays, or none.
Users that start one queue at ``start.lock``, taken after the directory; the supervisor never touches it. No lock is
waited for without a deadline.

A supervisor that was killed leaves its server running, for the users it has. The next supervisor finds ``server.lock``
held and takes that server over instead of starting another.
"""

import contextlib
import fcntl
import os
import select
import signal
import socket
import sys
import time
from collections.abc import Iterator
from types import FrameType

__all__ = [
    "GLANCE",
    "LOG",
    "OUTAGE",
    "READY",
    "SERVER",
    "SOCKET",
    "START",
    "SUPERVISOR",
    "answers",
    "holder",
    "lock",
    "lock_file",
    "locked",
    "main",
]

SOCKET = "valkey.sock"
LOG = "server.log"
START = "start.lock"
SUPERVISOR = "supervisor.lock"
SERVER = "server.lock"
OUTAGE = "outage.lock"
READY = b"ready"

_TICK = 0.5
"""Seconds between two looks at who still uses the server."""
_SHORT_TICK = 0.1
"""The same while the server is down, or is not our child: its end is not signalled to us then."""
_PACE = 0.25
"""Seconds between two starts of the server, at least."""
GLANCE = 0.5
"""Seconds in which one who only looks at a lock has surely let it go."""
_START_BUDGET = 10.0
"""Seconds a first server has until it answers."""
_LOG_LIMIT = 1 << 20
"""Bytes of log beyond which a new supervisor starts it afresh."""

# Never on the network. `noeviction`: a full store must say so, as a production store of sessions would,
# instead of forgetting somebody's counters.
_OPTIONS = (
    *("--port", "0"),
    *("--unixsocket", SOCKET),
    *("--unixsocketperm", "700"),
    *("--save", ""),
    *("--maxmemory", "256mb"),
    *("--maxmemory-policy", "noeviction"),
    *("--daemonize", "no"),
)
_KEEP = {"no": ("--appendonly", "no"), "yes": ("--appendonly", "yes", "--appendfsync", "always")}
"""What a server that is started again knows: nothing, or all that it ever answered."""


def lock_file(name: str, *, directory: int | None = None) -> int:
    """A new description of the lock file `name`, made if it is missing; not inherited over exec."""
    return os.open(name, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW, 0o600, dir_fd=directory)


def lock(descriptor: int, *, shared: bool = False, timeout: float = 0.0) -> bool:
    """Take a lock, waiting up to `timeout` seconds; False if others kept it."""
    deadline = time.monotonic() + timeout
    while True:
        try:
            fcntl.flock(descriptor, (fcntl.LOCK_SH if shared else fcntl.LOCK_EX) | fcntl.LOCK_NB)
        except BlockingIOError:
            if time.monotonic() >= deadline:
                return False
            # Not a blocking flock: that one knows no deadline, and would stop a gevent hub.
            time.sleep(0.002)
        else:
            return True


@contextlib.contextmanager
def _looking(name: str, directory: int | None) -> Iterator[int | None]:
    """The file `name` opened, if somebody holds its lock."""
    try:
        descriptor = os.open(name, os.O_RDONLY | os.O_NOFOLLOW, dir_fd=directory)
    except FileNotFoundError:
        yield None
        return
    try:
        # Shared, so that two who look never take each other for the holder.
        yield None if lock(descriptor, shared=True) else descriptor
    finally:
        # Explicitly: a process forked by another thread meanwhile would keep the lock.
        fcntl.flock(descriptor, fcntl.LOCK_UN)
        os.close(descriptor)


def locked(name: str, *, directory: int | None = None) -> bool:
    """Whether somebody holds the lock file `name`."""
    with _looking(name, directory) as descriptor:
        return descriptor is not None


def holder(name: str, *, directory: int | None = None) -> int | None:
    """The pid of the process that holds the lock file `name`, or None."""
    with _looking(name, directory) as descriptor:
        if descriptor is None:
            return None
        text = os.read(descriptor, 20)
        return int(text) if text.isdigit() else None


def answers(path: str, *, timeout: float = 0.25) -> bool:
    """Whether the server at the unix socket `path` answers a PING within `timeout` seconds."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as client:
        client.settimeout(timeout)
        try:
            client.connect(path)
            client.sendall(b"PING\r\n")
            return client.recv(16).startswith(b"+PONG")
        except OSError:
            return False


def _write_pid(descriptor: int) -> None:
    os.ftruncate(descriptor, 0)
    os.pwrite(descriptor, b"%d" % os.getpid(), 0)


def _log(message: str) -> None:
    print(f"{os.getpid()}:S {time.strftime('%d %b %Y %H:%M:%S')} {message}", flush=True)


class _Supervisor:
    """One server, in the working directory."""

    def __init__(self, *, binary: str, linger: float, keep: str, users: int, own_lock: int) -> None:
        self._binary = binary
        self._options = (*_OPTIONS, *_KEEP[keep])
        self._linger = linger
        self._users = users
        self._own_lock = own_lock
        self._server: int | None = None
        # The lock file of a server that is not our child. Open since we took it over: files may be removed.
        self._taken_over: int | None = None
        self._started_at = -_PACE
        self._unused_since: float | None = None
        self._told_to_end = False
        self._woken, self._wakes = socket.socketpair()
        for end in (self._woken, self._wakes):
            end.setblocking(False)
        # A signal's only work is to end the wait: the byte that Python writes here does that without a race.
        signal.set_wakeup_fd(self._wakes.fileno(), warn_on_full_buffer=False)
        signal.signal(signal.SIGCHLD, lambda *_: None)
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, self._end_on_signal)

    def _end_on_signal(self, _number: int, _frame: FrameType | None) -> None:
        self._told_to_end = True

    def run(self, report: int) -> int:
        """Keep the server until nobody needs it. Tells the starter over `report` how the start went."""
        try:
            if not self._first_server():
                os.write(report, b"the server did not start")
                return 1
            os.write(report, READY)
            os.close(report)
            self._keep()
        finally:
            self._clean_up()
        return 0

    def _first_server(self) -> bool:
        """Whether a server answers, or was ordered to be down."""
        if self._take_over():
            return True
        deadline = time.monotonic() + _START_BUDGET
        self._start_server()
        while not answers(SOCKET):
            if not self._server_lives() or time.monotonic() > deadline:
                return locked(OUTAGE)
            time.sleep(0.003)
        return True

    def _keep(self) -> None:
        while not self._told_to_end and self._owns_the_directory():
            wait = self._seconds_to_linger()
            if wait <= 0:
                _log("nobody uses the server any more")
                return
            if not self._server_lives():
                self._start_server()
            if self._server is None or self._taken_over is not None:
                wait = min(wait, _SHORT_TICK)
            if select.select([self._woken], [], [], min(wait, _TICK))[0]:
                self._woken.recv(4096)

    def _seconds_to_linger(self) -> float:
        """How long the server stays if nobody comes. At zero the directory's lock is ours and is kept: whoever comes
        from then on waits until this process has ended."""
        if not lock(self._users):
            self._unused_since = None
            return self._linger + _TICK
        now = time.monotonic()
        if self._unused_since is None:
            self._unused_since = now
        left = self._linger - (now - self._unused_since)
        if left > 0:
            fcntl.flock(self._users, fcntl.LOCK_UN)
        return left

    def _owns_the_directory(self) -> bool:
        """Whether our lock file is still the one that others find; not after somebody removed the files."""
        try:
            return os.path.samestat(os.stat(SUPERVISOR), os.fstat(self._own_lock))
        except FileNotFoundError:
            return False

    def _server_lives(self) -> bool:
        if self._server is None:
            return False
        if self._taken_over is not None:
            if not lock(self._taken_over, shared=True):
                return True
            os.close(self._taken_over)
            self._taken_over = None
        elif os.waitpid(self._server, os.WNOHANG) == (0, 0):
            return True
        _log(f"the server {self._server} died")
        self._server = None
        return False

    def _take_over(self) -> bool:
        """Take over the server of a supervisor that was killed, if there is one."""
        server = holder(SERVER)
        if server is None:
            return False
        self._server, self._taken_over = server, lock_file(SERVER)
        _log(f"took over the server {server}")
        return True

    def _start_server(self) -> None:
        # A server that dies at its start is tried again, but not in a tight loop.
        if time.monotonic() - self._started_at < _PACE:
            return
        server_lock = lock_file(SERVER)
        try:
            # In this order: one who wants an outage takes its lock first and then waits until the server's is free.
            if not lock(server_lock, timeout=GLANCE) or locked(OUTAGE):
                return
            self._started_at = time.monotonic()
            os.ftruncate(server_lock, 0)
            self._server = os.fork()
            if self._server == 0:
                self._become_server(server_lock)
        finally:
            # The server's copy is the only one from here on: the lock says whether the server lives, and nothing else.
            os.close(server_lock)

    def _become_server(self, server_lock: int) -> None:
        try:
            _write_pid(server_lock)
            os.set_inheritable(server_lock, True)
            os.execv(self._binary, [self._binary, *self._options])  # noqa: S606 - our own arguments, no shell wanted
        except OSError as error:
            _log(f"cannot run {self._binary}: {error}")
        finally:
            os._exit(127)

    def _clean_up(self) -> None:
        if self._server_lives() and self._server is not None:
            # Nothing to save and nobody to answer: SIGKILL also ends a server that hangs.
            os.kill(self._server, signal.SIGKILL)
            deadline = time.monotonic() + _START_BUDGET
            while self._server_lives() and time.monotonic() < deadline:
                time.sleep(0.002)
        with contextlib.suppress(FileNotFoundError):
            os.unlink(SOCKET)


def _detach(directory: str) -> int:
    """Leave the starter, except for the pipe it reads: the descriptor of that."""
    if os.fork():
        # The starter must not become a parent that has to reap a supervisor it knows nothing of.
        os._exit(0)
    os.umask(0o077)
    os.chdir(directory)
    report = os.dup(1)
    flags = os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_NOFOLLOW
    log = os.open(LOG, flags, 0o600)
    if os.fstat(log).st_size > _LOG_LIMIT:
        os.ftruncate(log, 0)
    for stream in (1, 2):
        os.dup2(log, stream)
    os.close(log)
    return report


def main(arguments: list[str]) -> int:
    """Run a supervisor: DIRECTORY, BINARY, LINGER (seconds to wait for a next user after the last one left), KEEP (yes or no)."""
    directory, binary, linger, keep = arguments
    report = _detach(directory)
    users = os.open(".", os.O_RDONLY | os.O_DIRECTORY)
    own_lock = lock_file(SUPERVISOR)
    if not lock(own_lock, timeout=GLANCE):
        os.write(report, b"another supervisor runs")
        return 1
    _write_pid(own_lock)
    return _Supervisor(binary=binary, linger=float(linger), keep=keep, users=users, own_lock=own_lock).run(report)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
