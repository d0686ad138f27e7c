"""Sentinel: where the primary is, found out in the background and never on a request.

A `Finder` is asked by the connector alone: for a connection (`dial`), and about once a second whether the primary is
still where it was (`look`).

- All sentinels are asked, over connections that stay. The newest opinion counts: the one with the highest configuration
  epoch, which grows with every failover. A sentinel that was cut off has an old one.
- Of a sentinel its GET-MASTER-ADDR-BY-NAME is taken, which names the new primary as soon as it was promoted; SENTINEL
  MASTERS, which redis-py's own client asks, names the old one until every replica follows the new one. A primary that the
  sentinel itself believes to be down is not tried: it may hang, and hold the connector up.
- While a sentinel fails over from a primary that is down, its replicas are tried as well: it takes the sentinel up to a
  second to see that the one that it promoted obeyed.
- What was found is a connection to a server that says of itself, to ROLE, that it is a primary. So neither an old opinion
  nor a replica at an old address gets a flight.
- `look` lets go of the old primary only with a connection to the new one in its hand, and never for an older opinion. That which a
  failover leaves behind is older from the moment on at which the new one was found.
- A sentinel that does not answer in time is asked again only after a while, unless nobody else knows. Where none answers
  at all, the primary that was last seen is tried: that the sentinels are dead is no reason to be down.

The protocol for clients: https://redis.io/docs/latest/develop/reference/sentinel-clients/
"""

import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

from redis.exceptions import ConnectionError as RedisConnectionError
from redis.exceptions import NoPermissionError

from failsoft.stores.redis.url import Sentinels, Target
from failsoft.stores.redis.wire import CONNECT_BUDGET, Warm, dial

__all__ = ["LOOK", "Address", "Finder"]

_log = logging.getLogger("failsoft.stores")

Address = tuple[str, int]
"""Host and port."""

LOOK = (0.5, 1.0)
"""Seconds between two looks whether the primary has moved."""

_BUDGET = 0.3
"""Seconds for a connect, for its handshake, for a sentinel's answer; four deadlines if that is more, since what is slow is far
away. Shorter than elsewhere: a connector that waits for a dead server does not see the new one."""

_SICK = 2.0
"""Seconds for which a sentinel that failed is asked only if nobody else knows."""


@dataclass(frozen=True, slots=True)
class _Opinion:
    """Where the primary is, as one sentinel says, and how new that is; or where one may be that it is just promoting."""

    epoch: int
    promoting: bool
    address: Address


class Finder:
    """Finds the primary that sentinels know.

    Args:
        target: with sentinels.
        deadline: seconds for a flight.
        monotonic: the clock.

    Attributes:
        address: of the primary to which the last connection was made; None before the first.
    """

    def __init__(self, target: Target, *, deadline: float, monotonic: Callable[[], float]) -> None:
        if target.sentinels is None:
            raise ValueError("a finder needs sentinels")
        self._target = target
        self._deadline = deadline
        self._monotonic = monotonic
        self._budget = min(max(_BUDGET, 4 * deadline), CONNECT_BUDGET)
        self._service = target.sentinels.service
        self._sentinels = [
            _Sentinel(one, target.sentinels, monotonic, self._budget) for one in target.sentinels.addresses
        ]
        self.address: Address | None = None
        self._epoch = -1
        self._sure_until = 0.0

    def start_over(self) -> None:
        """Be as new after a fork: the parent's connections are closed here, which leaves the parent's alone."""
        for sentinel in self._sentinels:
            sentinel.hang_up()

    def close(self) -> None:
        """Let go of the connections to the sentinels."""
        self.start_over()

    def dial(self) -> Warm:
        """A connection to the primary.

        Raises:
            redis.exceptions.RedisError, OSError: there is none to be had.
        """
        troubles: list[str] = []
        failed: Address | None = None
        if self.address is not None and self._monotonic() < self._sure_until:
            try:
                return self._connect(self.address)
            except Exception as error:  # of redis-py, of a resolver, of a handshake
                self._sure_until = 0.0
                failed = self.address
                troubles.append(_said(failed, error))
        opinions = self._opinions(troubles)
        if not opinions and self.address is not None and all(sentinel.sick for sentinel in self._sentinels):
            opinions = [_Opinion(self._epoch, False, self.address)]
        for opinion in opinions:
            if opinion.address == failed:
                continue  # to fail again may take as long again
            try:
                return self._adopt(opinion, self._connect(opinion.address))
            except Exception as error:  # of redis-py, of a resolver, of a handshake
                troubles.append(_said(opinion.address, error))
        raise RedisConnectionError(f"no primary of the service {self._service!r} was found: {'; '.join(troubles)}")

    def look(self) -> Warm | None:
        """A connection to the primary, if it is not where it was; None if it is, or nobody knows better."""
        now = self._monotonic()
        for opinion in self._opinions([]):
            if opinion.epoch < self._epoch:
                break
            if opinion.address == self.address:
                self._epoch = opinion.epoch
                self._sure_until = now + LOOK[1]
                break
            try:
                return self._adopt(opinion, self._connect(opinion.address))
            except Exception as error:  # not yet, or not any more
                _log.debug("a primary of the service %r is not where it is said to be: %s", self._service, error)
        return None

    def _opinions(self, troubles: list[str]) -> list[_Opinion]:
        """What the sentinels say, the newest first, each address once; why others say nothing goes to `troubles`."""
        well = [sentinel for sentinel in self._sentinels if not sentinel.sick]
        opinions = _ask(well, self._service, troubles)
        if not opinions:
            opinions = _ask([one for one in self._sentinels if one not in well], self._service, troubles)
        opinions.sort(key=lambda opinion: (opinion.epoch, opinion.promoting), reverse=True)
        return [one for place, one in enumerate(opinions) if one.address not in {o.address for o in opinions[:place]}]

    def _adopt(self, opinion: _Opinion, connection: Warm) -> Warm:
        self.address = opinion.address
        # A failover that is over has a higher epoch than the one in which the old primary was down. Until then nothing leads back to that
        # one, which may have hung only, and takes itself for the primary.
        self._epoch = opinion.epoch + opinion.promoting
        self._sure_until = self._monotonic() + LOOK[1]
        return connection

    def _connect(self, address: Address) -> Warm:
        host, port = address
        target = replace(self._target, address={**self._target.address, "host": host, "port": port})
        connection = dial(target, deadline=self._deadline, monotonic=self._monotonic, budget=self._budget, scripts=True)
        try:
            role = _command(connection, self._monotonic() + self._budget, "ROLE")[0]
        except NoPermissionError:
            connection.disconnect()
            raise RedisConnectionError("the ACL user may not ask for the ROLE: grant it +role") from None
        except BaseException:
            connection.disconnect()
            raise
        if role != b"master":
            connection.disconnect()
            raise RedisConnectionError(f"it is no primary, but a {role.decode(errors='replace')}")
        connection.address = address
        return connection


class _Sentinel:
    """One sentinel, and the connection to it."""

    def __init__(self, address: Address, sentinels: Sentinels, monotonic: Callable[[], float], budget: float) -> None:
        host, port = address
        self.address = address
        self._sick_until = 0.0
        self._monotonic = monotonic
        self._budget = budget
        self._connection: Warm | None = None
        tls = {} if sentinels.tls is None else {"tls": sentinels.tls}
        self._target = Target(
            kind="tls" if tls else "tcp",
            address={"host": host, "port": port, **tls},
            masked="",
            username=sentinels.username,
            password=sentinels.password,
        )

    @property
    def sick(self) -> bool:
        """Whether it failed lately."""
        return self._monotonic() < self._sick_until

    def ask(self, service: str) -> list[_Opinion]:
        """Where it believes the primary to be; nothing if it believes it to be down.

        Raises:
            redis.exceptions.RedisError, OSError: there is no answer.
        """
        try:
            connection = self._connection
            if connection is None or connection.wire.readable():
                self.hang_up()
                connection = self._connection = dial(
                    self._target, deadline=self._budget, monotonic=self._monotonic, budget=self._budget
                )
            opinions = self._opinions(connection, service)
        except BaseException:
            self.hang_up()
            self._sick_until = self._monotonic() + _SICK
            raise
        self._sick_until = 0.0
        return opinions

    def _opinions(self, connection: Warm, service: str) -> list[_Opinion]:
        due = self._monotonic() + self._budget
        named = _command(connection, due, "SENTINEL", "GET-MASTER-ADDR-BY-NAME", service)
        if named is None:
            raise RedisConnectionError(f"it knows of no service {service!r}")
        said = _table(_command(connection, due, "SENTINEL", "MASTER", service))
        epoch = int(said[b"config-epoch"])
        address = (named[0].decode(), int(named[1]))
        # While it fails over, the first reply names the new primary already, and the second describes the old one.
        if not _is_down(said) or address != _address(said):
            return [_Opinion(epoch, False, address)]
        if b"failover_in_progress" not in said[b"flags"]:
            return []
        replicas = [_table(flat) for flat in _command(connection, due, "SENTINEL", "REPLICAS", service)]
        return [_Opinion(epoch, True, _address(replica)) for replica in replicas if not _is_down(replica)]

    def hang_up(self) -> None:
        """Close the connection."""
        connection, self._connection = self._connection, None
        if connection is not None:
            connection.disconnect()


def _ask(sentinels: Sequence[_Sentinel], service: str, troubles: list[str]) -> list[_Opinion]:
    opinions: list[_Opinion] = []
    for sentinel in sentinels:
        try:
            said = sentinel.ask(service)
        except Exception as error:  # of redis-py, of a resolver, of a handshake
            troubles.append(f"sentinel {_said(sentinel.address, error)}")
            continue
        if not said:
            troubles.append(f"sentinel {sentinel.address[0]}:{sentinel.address[1]} believes it to be down")
        opinions += said
    return opinions


def _table(flat: Sequence[bytes]) -> dict[bytes, bytes]:
    return dict(zip(flat[::2], flat[1::2], strict=True))


def _address(said: dict[bytes, bytes]) -> Address:
    return said[b"ip"].decode(), int(said[b"port"])


def _is_down(said: dict[bytes, bytes]) -> bool:
    return not {b"s_down", b"o_down"}.isdisjoint(said[b"flags"].split(b","))


def _command(connection: Warm, due: float, *command: str) -> Any:
    """The reply to one command, by `due`. Whatever happens instead of one closes the connection."""
    connection.wire.due = due
    connection.send_command(*command, check_health=False)
    return connection.read_response(disconnect_on_error=True)


def _said(address: Address, error: Exception) -> str:
    return f"{address[0]}:{address[1]}: {error}"
