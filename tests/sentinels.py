"""A primary, its replicas, and sentinels who watch over them: real ones, on ports of 127.0.0.1."""

import contextlib
import shutil
import subprocess
import tempfile
from pathlib import Path
from typing import Any, Self

import redis

from tests.servers import Administration, Group, Port, Valkey, get_binary_path, poll

__all__ = ["Sentinel", "Watched"]


class Sentinel:
    """One sentinel of a service. Use it as a context manager.

    Args:
        primary: port of the primary.
        service: what the primary is called.
        options: further lines for its configuration.
        password: what administration needs to get in, if the options ask for it.
        quorum: how many must believe the primary to be down.
        binary: of the server; by default Valkey's.
        tls_ca: who certified it, if it is to speak TLS and nothing else.
    """

    def __init__(
        self,
        primary: int,
        service: str,
        *options: str,
        password: str | None = None,
        quorum: int = 2,
        binary: str | None = None,
        tls_ca: str | None = None,
    ) -> None:
        self._held = Port()
        self.port = self._held.number
        self._binary = binary or str(get_binary_path())
        tls: dict[str, Any] = {"ssl": True, "ssl_ca_certs": tls_ca} if tls_ca else {}
        self._administration = Administration(host="127.0.0.1", port=self.port, password=password, **tls)
        self.directory = Path(tempfile.mkdtemp(prefix="vs-"))
        lines = (
            f"port 0\ntls-port {self.port}" if tls_ca else f"port {self.port}",
            "bind 127.0.0.1",
            f"dir {self.directory}",
            f"sentinel monitor {service} 127.0.0.1 {primary} {quorum}",
            f"sentinel down-after-milliseconds {service} 400",
            f"sentinel failover-timeout {service} 3000",
            f"sentinel parallel-syncs {service} 5",
            *options,
        )
        self.configuration = self.directory / "sentinel.conf"
        self.configuration.write_text("\n".join(lines) + "\n")
        self.process: subprocess.Popen[bytes] | None = None

    def start(self) -> "Sentinel":
        """Start it, and wait until it answers."""
        with (self.directory / "log").open("ab") as log:
            self.process = subprocess.Popen(
                [self._binary, str(self.configuration), "--sentinel"],
                stdout=log,
                stderr=log,
                stdin=subprocess.DEVNULL,
            )
        poll(self._answers)
        return self

    def _answers(self) -> bool:
        assert self.process is not None
        if self.process.poll() is not None:
            raise AssertionError((self.directory / "log").read_text())
        try:
            return bool(self.run("PING"))
        except (redis.ConnectionError, redis.TimeoutError):
            return False

    def run(self, *command: Any) -> Any:
        """The reply to one command."""
        return self._administration.run(*command)

    def close(self) -> None:
        """End it and remove its directory."""
        if self.process is not None:
            with contextlib.suppress(ProcessLookupError):
                self.process.kill()
            self.process.wait()
            self.process = None
        self._held.release()
        shutil.rmtree(self.directory, ignore_errors=True)


class Watched(Group):
    """A service with a primary, replicas and sentinels. Use it as a context manager.

    Args:
        service: what the sentinels call it.
        replicas: how many.
        sentinels: how many; a majority must be left for a failover.
        options: further arguments for every server.
        sentinel_options: further lines for the configuration of every sentinel.
        password: of the sentinels, if the options ask for it.

    Attributes:
        nodes: the servers; the first is the primary at first.
        sentinels: those who watch.
    """

    def __init__(
        self,
        service: str = "mymaster",
        *options: str,
        replicas: int = 2,
        sentinels: int = 3,
        sentinel_options: tuple[str, ...] = (),
        password: str | None = None,
    ) -> None:
        self.service = service
        common = ("--repl-diskless-sync-delay", "0", "--repl-ping-replica-period", "1", *options)
        first = Valkey(*common)
        others = [Valkey("--replicaof", f"127.0.0.1 {first.port}", *common) for _ in range(replicas)]
        self.nodes = [first, *others]
        self.sentinels = [
            Sentinel(first.port, service, *sentinel_options, password=password, quorum=sentinels // 2 + 1)
            for _ in range(sentinels)
        ]

    @property
    def url(self) -> str:
        """Where the sentinels are, and what of."""
        hosts = ",".join(f"127.0.0.1:{sentinel.port}" for sentinel in self.sentinels)
        return f"redis+sentinel://{hosts}/{self.service}/0"

    def start(self) -> Self:
        """Start all, and wait until they know each other."""
        for node in self.nodes:
            node.start()
        poll(lambda: all(_role(node)[3] == b"connected" for node in self.nodes[1:]), within=20)
        for sentinel in self.sentinels:
            sentinel.start()
        # One that the machine let stand still for two seconds does not trust its clock for thirty (TILT).
        poll(lambda: all(self._knows_all(sentinel) for sentinel in self.sentinels), within=45)
        return self

    def _knows_all(self, sentinel: Sentinel) -> bool:
        flat = sentinel.run("SENTINEL", "MASTER", self.service)
        said = dict(zip(flat[::2], flat[1::2], strict=True))
        counts = int(said[b"num-slaves"]), int(said[b"num-other-sentinels"])
        return counts == (len(self.nodes) - 1, len(self.sentinels) - 1)

    @property
    def primary(self) -> Valkey:
        """Whoever the first sentinel believes to be the primary."""
        port = int(self.sentinels[0].run("SENTINEL", "GET-MASTER-ADDR-BY-NAME", self.service)[1])
        return next(node for node in self.nodes if node.port == port)

    def mend(self) -> None:
        """Bring back who is dead or stopped, as a replica, and wait until all is as it was at first."""
        for node in self.nodes:
            if node.process is None:
                node.start()
            else:
                node.resume()
        poll(self._follow, within=20)
        poll(lambda: all(self._is_content(sentinel, self.primary) for sentinel in self.sentinels), within=30)

    def _follow(self) -> bool:
        """Have everybody follow the primary; whether they do."""
        primary = self.primary
        following = 0
        for node in self.nodes:
            if node is not primary:
                role = _role(node)
                if role[0] == b"master":
                    node.run("REPLICAOF", "127.0.0.1", str(primary.port))
                following += role[3:4] == [b"connected"]
        return following == len(self.nodes) - 1

    def _is_content(self, sentinel: Sentinel, primary: Valkey) -> bool:
        flats = [sentinel.run("SENTINEL", "MASTER", self.service)]
        flats += sentinel.run("SENTINEL", "REPLICAS", self.service)
        said = [dict(zip(flat[::2], flat[1::2], strict=True)) for flat in flats]
        flags = {flag for one in said for flag in one[b"flags"].split(b",")}
        return flags == {b"master", b"slave"} and int(said[0][b"port"]) == primary.port

    def promoted(self, former: Valkey) -> Valkey | None:
        """Another server than `former` that says of itself that it is the primary, if there is one."""
        for node in self.nodes:
            if node is not former and node.process is not None and _role(node)[0] == b"master":
                return node
        return None

    def close(self) -> None:
        """End all."""
        for one in (*self.sentinels, *self.nodes):
            one.close()


def _role(node: Valkey) -> list[Any]:
    try:
        return list(node.run("ROLE"))
    except redis.ConnectionError:  # sentinels kill the connections to whom they give another role
        return [None] * 4
