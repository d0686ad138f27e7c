"""What servers say of themselves, for people who look for trouble. Never on a request.

Each server has a connection of its own here, made as the stores make theirs, and closed at the end. Rules:

- Everything is bounded: seconds for each answer, keys that are looked at. Nothing is written.
- Keys are only ever sampled, by SCAN in small steps. A server walks its table in an order that has nothing to do with the keys' names, so
  the first some thousand are as good a sample as any.
- What one server does not say, because it is away or because the ACL user may not ask, does not keep the others from being asked.
- No password is in what comes out.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass, field, replace
from typing import Any
from urllib.parse import urlsplit

from failsoft.clock import SYSTEM
from failsoft.stores.cluster import SCHEMES
from failsoft.stores.cluster.slots import SLOTS, View, ask
from failsoft.stores.cluster.url import parse_cluster_url
from failsoft.stores.redis.sentinel import Finder
from failsoft.stores.redis.url import Target, parse_url
from failsoft.stores.redis.wire import CONNECT_BUDGET, Warm, dial

__all__ = ["MOST_KEYS", "Sample", "Server", "examine"]

MOST_KEYS = 1_000_000
"""Keys that may be looked at; a server hands out about as many in a second."""

_STEP = 500
"""Keys for each step of SCAN: well under a millisecond of the server's time."""

_PINGS = 5

_SILENT = "is something between here and there, such as a firewall, or does the server hang?"

_CURES = (
    ("refused", "is it running, and is the port right?"),
    ("WRONGPASS", "correct user and password in the URL"),
    ("invalid username-password", "correct user and password in the URL"),
    ("without any password", "the server has no password: leave it out of the URL"),
    ("NOAUTH", "put user and password into the URL"),
    ("Authentication required", "put user and password into the URL"),
    ("NOPERM", "grant it to the ACL user"),
    ("no permissions", "grant it to the ACL user"),
    ("CERTIFICATE_VERIFY_FAILED", "let tls_ca name the file of who signed the server's certificate"),
    ("WRONG_VERSION_NUMBER", "the server speaks no TLS there: write redis:// instead of rediss://"),
    ("timed out", _SILENT),
    ("Timeout", _SILENT),
    ("Name or service not known", "correct the host in the URL"),
    ("name resolution", "correct the host in the URL"),
    ("No such file", "is it running, and is the path right?"),
    ("Connection closed by server", "does the server speak TLS there? Then write rediss:// instead of redis://"),
    ("Connection reset", "does the server speak TLS there? Then write rediss:// instead of redis://"),
)


@dataclass(frozen=True, slots=True)
class Sample:
    """Keys that were looked at.

    Attributes:
        keys: those that were taken, and for each its milliseconds to live (-1 for none, -2 where it ended meanwhile).
        looked_at: how many were looked at.
        size: how many there are.
        complete: whether all were looked at.
    """

    keys: Mapping[str, int]
    looked_at: int
    size: int
    complete: bool


@dataclass(frozen=True, slots=True)
class Server:
    """One server, as it was found.

    Attributes:
        where: host and port, or the path of a socket.
        kind: ``server``, ``sentinel`` or ``node`` (of a cluster).
        connect: seconds until it was connected to, had let us in and had answered.
        ping: seconds for a PING and its answer, the least of some.
        role: what it says that it is: ``primary``, ``replica``, ``sentinel``; "" for unknown.
        version: its name and version; "" for unknown.
        tls: the version of TLS and the cipher; "" for none.
        info: what INFO said.
        slots: of a node: how many it serves.
        says: of a sentinel: where it believes the primary to be.
        sample: keys, where they were asked for.
        error: why it could not be asked at all, and perhaps what to do; "" if it could.
        troubles: what it did not say, and why.
    """

    where: str
    kind: str = "server"
    connect: float | None = None
    ping: float | None = None
    role: str = ""
    version: str = ""
    tls: str = ""
    info: Mapping[str, str] = field(default_factory=dict)
    slots: int | None = None
    says: str = ""
    sample: Sample | None = None
    error: str = ""
    troubles: Sequence[str] = ()


def examine(
    url: str,
    *,
    options: Mapping[str, Any] | None = None,
    info: bool = False,
    keys: int = 0,
    take: Callable[[str], bool] = lambda key: True,
) -> list[Server]:
    """Every server that belongs to the store at `url`: itself, or the sentinels and the primary, or the nodes that have slots.

    Args:
        url: of the store; for ``memory://`` there is none.
        options: what is given beside it.
        info: whether to ask for INFO.
        keys: at most how many keys to look at in all, 0 for none, at most `MOST_KEYS`.
        take: which of them to keep.

    Raises:
        ConfigurationError: the URL is wrong, or what it names cannot be had.
    """
    survey = _Survey(info, min(keys, MOST_KEYS), take)
    scheme = urlsplit(url).scheme
    if scheme == "memory":
        return []
    if scheme == "embedded":
        from failsoft.stores.embedded import attach  # only here, since it needs a package that is optional

        with attach(url) as attachment:
            return [survey.visit(parse_url(attachment.url))]
    if scheme in SCHEMES:
        return _cluster(survey, url, options)
    target = parse_url(url, options)
    return [survey.visit(target)] if target.sentinels is None else _sentinels(survey, target)


def _sentinels(survey: "_Survey", target: Target) -> list[Server]:
    sentinels = target.sentinels
    if sentinels is None:
        raise ValueError("there are no sentinels")
    tls = {} if sentinels.tls is None else {"tls": sentinels.tls}
    found: list[Server] = []
    for host, port in sentinels.addresses:
        own = Target(
            kind="tls" if tls else "tcp",
            address={"host": host, "port": port, **tls},
            masked="",
            username=sentinels.username,
            password=sentinels.password,
        )
        found.append(replace(_Survey(survey.info, 0, survey.take).visit(own, sentinels.service), kind="sentinel"))
    with closing(Finder(target, deadline=CONNECT_BUDGET / 4, monotonic=SYSTEM.monotonic)) as finder:
        found.append(survey.visit(target, dial_=finder.dial))
    return found


def _cluster(survey: "_Survey", url: str, options: Mapping[str, Any] | None) -> list[Server]:
    seeds = parse_cluster_url(url, options)
    found: list[Server] = []
    view: View | None = None
    for address in seeds.addresses:
        target = seeds.target_of(address)
        try:
            view = ask(target, deadline=CONNECT_BUDGET, monotonic=SYSTEM.monotonic, budget=CONNECT_BUDGET)
            break
        except Exception as error:  # of redis-py, of a resolver, of a handshake, of a server that is in no cluster
            found.append(Server(_name(target), "node", error=_told(error, target)))
    if view is None:
        return found
    served: dict[tuple[str, int], int] = {}
    for first, last, primary in view.ranges:
        served[primary] = served.get(primary, 0) + last - first + 1
    known = {server.where for server in found}
    each = _Survey(survey.info, -(-survey.keys // max(1, len(served))), survey.take)
    for address, slots in served.items():
        target = seeds.target_of(address)
        if _name(target) not in known:
            found.append(replace(each.visit(target), kind="node", slots=slots))
    if not view.ok or sum(served.values()) < SLOTS:
        missing = SLOTS - sum(served.values())
        found[0] = replace(
            found[0],
            troubles=[*found[0].troubles, f"the cluster is not in order: {missing} of {SLOTS} slots have no node"],
        )
    return found


class _Survey:
    """What is to be found out about each server."""

    def __init__(self, info: bool, keys: int, take: Callable[[str], bool]) -> None:
        self.info = info
        self.keys = keys
        self.take = take

    def visit(self, target: Target, service: str | None = None, *, dial_: Callable[[], Warm] | None = None) -> Server:
        """One server. With a `service`, a sentinel of that."""
        where = _name(target)
        start = SYSTEM.monotonic()
        try:
            connection = dial(target, deadline=CONNECT_BUDGET, monotonic=SYSTEM.monotonic) if dial_ is None else dial_()
        except Exception as error:  # of redis-py, of a resolver, of a handshake
            return Server(where, error=_told(error, target))
        connected = SYSTEM.monotonic() - start
        if connection.address is not None:
            where = "{}:{}".format(*connection.address)
        talk = _Talk(connection, target)
        try:
            found = Server(where, connect=connected, ping=talk.ping(), tls=_tls(connection))
            if service is not None:
                said = talk.ask("SENTINEL", "GET-MASTER-ADDR-BY-NAME", service)
                told = ":".join(part.decode() for part in said) if said else "" if said is None else None
                if told == "":
                    talk.troubles.append(f"it knows of no service {service!r}")
                found = replace(found, role="sentinel", says=told or "")
            about = talk.info(everything=self.info)
            role = found.role or talk.role(about)
            sample = talk.sample(self.keys, self.take) if self.keys else None
            return replace(
                found,
                role=role,
                version=_version(about),
                info=about if self.info else {},
                sample=sample,
                troubles=talk.troubles,
            )
        except Exception as error:  # it died under us
            return Server(where, connect=connected, error=_told(error, target))
        finally:
            connection.disconnect()


class _Talk:
    """Questions to one server.

    Attributes:
        troubles: what was not answered, and why.
    """

    def __init__(self, connection: Warm, target: Target) -> None:
        self._connection = connection
        self._target = target
        self.troubles: list[str] = []
        connection.wire.serve_threads(CONNECT_BUDGET)

    def ask(self, *command: str | int) -> Any:
        """The reply to a command; None, and a trouble, where it is an error."""
        try:
            return self._run(*command)
        except Exception as error:  # of redis-py
            if self._connection.wire.fileno() < 0:
                raise  # the connection is over, so that was no reply
            self.troubles.append(f"{command[0]} was refused: {_told(error, self._target)}")
            return None

    def _run(self, *command: str | int) -> Any:
        self._connection.wire.due = SYSTEM.monotonic() + CONNECT_BUDGET
        self._connection.send_command(*command, check_health=False)
        return self._connection.read_response()

    def ping(self) -> float | None:
        """Seconds."""
        taken: list[float] = []
        for _ in range(_PINGS):
            start = SYSTEM.monotonic()
            if self.ask("PING") is None:
                return None
            taken.append(SYSTEM.monotonic() - start)
        return min(taken)

    def info(self, *, everything: bool) -> dict[str, str]:
        """What INFO says, of the server alone or of all."""
        text = self.ask("INFO") if everything else self.ask("INFO", "server")
        lines = [] if text is None else text.decode(errors="replace").splitlines()
        return dict(line.split(":", 1) for line in lines if ":" in line and not line.startswith("#"))

    def role(self, info: Mapping[str, str]) -> str:
        """Primary or replica."""
        said = info.get("role")
        if said is None:
            reply = self.ask("ROLE")
            said = reply[0].decode() if reply else ""
        return {"master": "primary", "slave": "replica"}.get(said, said)

    def sample(self, most: int, take: Callable[[str], bool]) -> Sample | None:
        """Keys, as far as `most` goes."""
        size = self.ask("DBSIZE")
        cursor, looked_at = b"0", 0
        taken: dict[str, int] = {}
        while True:
            reply = self.ask("SCAN", cursor.decode(), "COUNT", min(_STEP, most))
            if reply is None:
                return None
            cursor, page = reply
            looked_at += len(page)
            keys = [key for key in (one.decode(errors="backslashreplace") for one in page) if take(key)]
            taken.update(zip(keys, self._lives(keys), strict=True))
            if cursor == b"0" or looked_at >= most:
                return Sample(taken, looked_at, max(size or 0, len(taken)), cursor == b"0")

    def _lives(self, keys: Sequence[str]) -> Iterator[int]:
        """Milliseconds to live of each, in one write."""
        connection = self._connection
        if keys:
            connection.wire.due = SYSTEM.monotonic() + CONNECT_BUDGET
            connection.send_packed_command(
                connection.pack_commands([("PTTL", key) for key in keys]), check_health=False
            )
        for _ in keys:
            try:
                yield connection.read_response()
            except Exception:
                if connection.wire.fileno() < 0:
                    raise
                yield -2


def _name(target: Target) -> str:
    if "path" in target.address:
        return str(target.address["path"])
    if "host" not in target.address:
        return "the primary" if target.sentinels is None else f"the primary of {target.sentinels.service!r}"
    return f"{target.address['host']}:{target.address['port']}"


def _tls(connection: Warm) -> str:
    cipher = getattr(connection.wire.sock, "cipher", None)
    if cipher is None:
        return ""
    name, _, _ = cipher() or ("?", "", 0)
    return f"{connection.wire.sock.version()} {name}"  # type: ignore[attr-defined]  # an SSLSocket


def _version(info: Mapping[str, str]) -> str:
    for product, key in (("Valkey", "valkey_version"), ("Redis", "redis_version")):
        if key in info:
            return f"{product} {info[key]}"
    return ""


def _told(error: Exception, target: Target) -> str:
    """What went wrong, without secrets, and what to do about it."""
    said = str(error)
    text = target.hide(said) or type(error).__name__
    cure = next((cure for part, cure in _CURES if part in said), "")
    if (
        target.kind == "tls" and cure == _SILENT
    ):  # a server without TLS waits for the end of what it takes for a command
        cure += " Or does it speak no TLS there? Then write redis:// instead of rediss://"
    return f"{text.rstrip('.')}; {cure}" if cure else text
