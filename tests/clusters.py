"""A real cluster for tests: Valkey servers that share the slots, whose primaries can be killed and whose slots moved."""

from binascii import crc_hqx
from collections.abc import Callable, Iterator
from contextlib import suppress
from itertools import count
from random import randrange
from typing import Any, Self

from tests.servers import Group, Port, Valkey, poll

__all__ = ["SLOTS", "Cluster", "slot_of"]

SLOTS = 16384


def slot_of(key: str) -> int:
    """The slot of a key, by the cluster specification; written apart from the code under test."""
    begin = key.find("{")
    end = key.find("}", begin + 1)
    tag = key[begin + 1 : end] if 0 <= begin and begin + 1 < end else key
    return crc_hqx(tag.encode(), 0) % SLOTS


class Cluster(Group):
    """Primaries that share the slots evenly, and replicas of each. Use it as a context manager.

    Args:
        options: further arguments for each server.
        primaries: how many.
        replicas: how many of each primary.
        empty: how many more, without slots.
        timeout: milliseconds after which the nodes give one up that does not answer.
        make: a server, of its arguments.
    """

    def __init__(
        self,
        *options: str,
        primaries: int = 3,
        replicas: int = 0,
        empty: int = 0,
        timeout: int = 1000,
        make: Callable[..., Valkey] = Valkey,
    ) -> None:
        shared = (
            "--cluster-enabled", "yes",
            "--cluster-node-timeout", str(timeout),
            # One dead primary takes its own slots along, not all of them.
            "--cluster-require-full-coverage", "no",
            "--cluster-replica-validity-factor", "0",
            "--repl-diskless-sync-delay", "0",
            # A primary that gave its last slot away stays one.
            "--cluster-allow-replica-migration", "no",
            *options,
        )  # fmt: skip
        number = primaries * (1 + replicas) + empty
        self._held = _ports(2 * number)
        ports = iter([port.number for port in self._held])
        self.nodes = [make(*shared, "--cluster-port", str(next(ports))) for _ in range(number)]
        if make is Valkey:
            for node in self.nodes:
                node.port = next(ports)
        self._replicas = primaries * replicas
        self._primaries = primaries

    @property
    def url(self) -> str:
        """Where the first primaries are."""
        return "redis+cluster://" + ",".join(f"127.0.0.1:{node.port}" for node in self.nodes[: self._primaries])

    def start(self) -> Self:
        """Start the servers, make them a cluster, and wait until all agree on it."""
        for node in self.nodes:
            node.start()
        self._join()
        return self

    def _join(self) -> None:
        primaries, others = self.nodes[: self._primaries], self.nodes[self._primaries :]
        for number, node in enumerate(primaries):
            first, last = (SLOTS * n // len(primaries) for n in (number, number + 1))
            node.run("CLUSTER", "SET-CONFIG-EPOCH", number + 1)
            node.run("CLUSTER", "ADDSLOTSRANGE", first, last - 1)
        meet = self.nodes[0]
        for node in self.nodes[1:]:
            node.run("CLUSTER", "MEET", "127.0.0.1", meet.port, meet.options[-1])
        poll(lambda: all(len(_rows(node)) == len(self.nodes) for node in self.nodes), within=30)
        for number, node in enumerate(others[: self._replicas]):
            node.run("CLUSTER", "REPLICATE", self.id_of(primaries[number % len(primaries)]))
        poll(self.settled, within=30)

    def alive(self) -> list[Valkey]:
        """The nodes that were not killed."""
        return [node for node in self.nodes if node.process is not None]

    def primaries(self) -> list[Valkey]:
        """The living nodes that have slots."""
        return [node for node in self.alive() if _slots(_own(node))]

    def id_of(self, node: Valkey) -> str:
        """What the cluster calls `node`."""
        return str(node.run("CLUSTER", "MYID").decode())

    def primary_of(self, key: str) -> Valkey:
        """The living node that has the slot of `key`."""
        slot = slot_of(key)
        return next(node for node in self.alive() if slot in _slots(_own(node)))

    def keys_of(self, node: Valkey) -> Iterator[str]:
        """Keys of different slots that lie on `node`, without end."""
        slots = _slots(_own(node))
        return (key for key in (f"k{number}" for number in count()) if slot_of(key) in slots)

    def settled(self) -> bool:
        """Whether the living agree on who has which slots since when, every slot has a primary, and replicas are in sync."""
        views = set()
        for node in self.alive():
            info = node.run("CLUSTER", "INFO").decode()
            if "cluster_state:ok" not in info or f"cluster_slots_ok:{SLOTS}\r\n" not in info:
                return False
            views.add(tuple(sorted((row[0], row[6], tuple(row[8:])) for row in _rows(node) if len(row) > 8)))
            role = node.run("ROLE")
            if role[0] == b"slave" and role[3] != b"connected":
                return False
        return len(views) == 1

    def begin_move(self, key: str, target: Valkey) -> Valkey:
        """Begin to move the slot of `key`. Keys that are not there yet are now `target`'s. Returns the source."""
        slot, source = slot_of(key), self.primary_of(key)
        target.run("CLUSTER", "SETSLOT", slot, "IMPORTING", self.id_of(source))
        source.run("CLUSTER", "SETSLOT", slot, "MIGRATING", self.id_of(target))
        return source

    def move_keys(self, slot: int, source: Valkey, target: Valkey, *, most: int = 200) -> int:
        """Move some keys of a slot that is being moved. Returns how many."""
        keys = source.run("CLUSTER", "GETKEYSINSLOT", slot, most)
        if keys:
            source.run("MIGRATE", "127.0.0.1", target.port, "", 0, 5000, "KEYS", *keys)
        return len(keys)

    def end_move(self, slot: int, source: Valkey, target: Valkey) -> None:
        """Give the slot to `target` once and for all."""
        new = self.id_of(target)
        target.run("CLUSTER", "SETSLOT", slot, "NODE", new)
        source.run("CLUSTER", "SETSLOT", slot, "NODE", new)

    def close(self) -> None:
        """End all of it."""
        for node in self.nodes:
            node.close()
        for port in self._held:
            port.release()


def _ports(number: int) -> list[Port]:
    """Different ports, below those that outgoing connections are given: also elsewhere than on Linux, a node that was killed is to
    find its own free again.
    """
    ports: list[Port] = []
    while len(ports) < number:
        with suppress(OSError):
            ports.append(Port(randrange(15_000, 32_000)))
    return ports


def _rows(node: Valkey) -> list[list[str]]:
    """CLUSTER NODES, without those that are still shaking hands."""
    rows: list[list[Any]] = [line.split() for line in node.run("CLUSTER", "NODES").decode().splitlines()]
    return [row for row in rows if "handshake" not in row[2]]


def _own(node: Valkey) -> list[str]:
    return next(row for row in _rows(node) if "myself" in row[2])


def _slots(row: list[str]) -> set[int]:
    """The slots of a primary; of those being moved, the ones that it still has."""
    slots: set[int] = set()
    if "master" in row[2]:
        for part in row[8:]:
            if not part.startswith("["):
                first, _, last = part.partition("-")
                slots.update(range(int(first), int(last or first) + 1))
    return slots
