"""Slots: where a key lies, and what a node says about who has which.

The slot of a key is the CRC16 (XMODEM) of its hash tag modulo 16384. The hash tag is what stands between the first
``{`` and the next ``}``, if that is not nothing; else it is the whole key (Redis cluster specification, "Key
distribution model" and "Hash tags").

A `View` is one node's opinion. A node that was away for a while, or lies on the smaller side of a split network, has an
old one, and says so: its ``cluster_state`` is not ok.
"""

from binascii import crc_hqx
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from failsoft.stores.redis.url import Target
from failsoft.stores.redis.wire import Warm, dial

__all__ = ["SLOTS", "Address", "View", "ask", "read_view", "slot_of"]

SLOTS = 16384

Address = tuple[str, int]
"""Host and port."""


def slot_of(key: str) -> int:
    """The slot of `key`, 0 to 16383."""
    begin = key.find("{")
    if begin >= 0:
        end = key.find("}", begin + 1)
        if end > begin + 1:
            key = key[begin + 1 : end]
    return crc_hqx(key.encode(), 0) % SLOTS


@dataclass(frozen=True, slots=True)
class View:
    """What a node says about the cluster.

    Attributes:
        ok: whether it counts itself to a cluster that works.
        epoch: how new its opinion is, where it says so.
        ranges: first and last slot, and their primary.
        replicas: those who stand by.
    """

    ok: bool
    epoch: int
    ranges: tuple[tuple[int, int, Address], ...]
    replicas: frozenset[Address]


def ask(target: Target, *, deadline: float, monotonic: Callable[[], float], budget: float) -> View:
    """The view of the node that `target` leads to, by a connection of its own.

    Args:
        target: where, and how to get in.
        deadline: seconds for a flight.
        monotonic: the clock.
        budget: seconds for the connect, again for the handshake, and again for the answer.

    Raises:
        redis.exceptions.RedisError, OSError: there is no answer.
        ValueError: the answer is not understood.
    """
    connection = dial(target, deadline=deadline, monotonic=monotonic, budget=budget)
    try:
        connection.wire.due = monotonic() + budget
        slots = _command(connection, "CLUSTER", "SLOTS")
        try:
            info = _command(connection, "CLUSTER", "INFO")
        except Exception:  # no permission: then its slots have to do
            info = b""
    finally:
        connection.disconnect()
    return read_view(slots, info, asked=str(target.address["host"]))


def _command(connection: Warm, *command: str) -> Any:
    connection.send_command(*command, check_health=False)
    return connection.read_response()


def read_view(slots: Any, info: bytes, *, asked: str) -> View:
    """What the replies to CLUSTER SLOTS and CLUSTER INFO say.

    Args:
        slots: the reply to the first.
        info: the reply to the second; empty where there is none.
        asked: the host that gave them. A node that does not know its own name, or shall not tell, leaves it out.

    Raises:
        ValueError: they are not understood.
    """
    try:
        ranges = tuple((int(first), int(last), _address(primary, asked)) for first, last, primary, *_ in slots)
        replicas = frozenset(_address(replica, asked) for _, _, _, *others in slots for replica in others)
        facts = dict(line.split(":", 1) for line in info.decode().splitlines() if ":" in line)
        epoch = int(facts.get("cluster_current_epoch", 0))
    except (TypeError, ValueError, UnicodeError, IndexError) as error:
        raise ValueError(f"CLUSTER SLOTS or CLUSTER INFO was not understood: {error}") from None
    if not all(0 <= first <= last < SLOTS for first, last, _ in ranges):
        raise ValueError("CLUSTER SLOTS names slots that no cluster has")
    return View(ok=facts.get("cluster_state", "ok") == "ok", epoch=epoch, ranges=ranges, replicas=replicas)


def _address(node: Any, asked: str) -> Address:
    host = (node[0] or b"").decode()
    return (asked if host in ("", "?") else host), int(node[1])
