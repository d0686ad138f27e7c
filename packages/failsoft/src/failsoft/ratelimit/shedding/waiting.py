"""How long requests waited before this process looked at them, and whether that is too long.

A server with a few threads never has many requests in flight: what it cannot serve waits in front of it, in its own queue
or the kernel's, where no limit of ours sees it. Its age is seen, though, when its turn comes:

- `on_socket`: the kernel says when the last data arrived on a connection (``TCP_INFO``, Linux). A request that arrived whole has waited for
  as long as that. It takes a server that shows its socket to the application: gunicorn and werkzeug do.
- `RequestStart`: a proxy says when it received the request, in a header field, such as ``X-Request-Start: t=1700000000.123``. Only a
  trusted one is believed. Its clock need not agree with ours: what counts is how much longer than the shortest wait of the
  last minutes.

`Waiting` tells a queue that is always there from a burst, as CoDel does (RFC 8289): a queue is *standing* when each request of the last
second waited longer than its class tolerates (`TOLERANCE`), and until for a second none did. Meanwhile who waited too long is refused, so
that those who came later are served in time: they find a short queue, instead of all of them a long one. What is tolerated is
a multiple of what requests take: with less in the queue threads would run idle between two requests.
"""

import re
import socket
import struct
from collections.abc import Mapping
from threading import Lock
from typing import Any, Final

from failsoft.address import AddressResolver
from failsoft.exchange import Facts
from failsoft.forks import start_over_in_children

__all__ = ["TOLERANCE", "RequestStart", "Waiting", "on_socket"]

TOLERANCE: Final = (1.0, 2.0, 4.0, 8.0)
"""For each class, lowest first: how long it may wait, as a multiple of what requests take."""

_INTERVAL: Final = 1.0
"""Seconds after which a queue is standing, or gone; more where requests take longer. Bursts, and those behind one slow request, are
shorter."""

_SHORTEST: Final = 0.02
"""Seconds below which a wait is not measured well: the kernel counts ticks of up to 10 ms. The threshold of WeChat's DAGOR, too."""

_LONGEST: Final = 1.0
"""Seconds that are tolerated at most, before the class's factor: clients do not wait longer because requests take long."""


class Waiting:
    """Whether requests wait too long."""

    __slots__ = ("__weakref__", "_above", "_last", "_lock", "_standing")

    def __init__(self) -> None:
        self._lock = Lock()
        self._above: list[float | None] = [None] * len(TOLERANCE)
        self._last = [0.0] * len(TOLERANCE)
        self._standing = [False] * len(TOLERANCE)
        start_over_in_children(self, Waiting._start_over)

    def _start_over(self) -> None:
        """See `failsoft.forks`."""
        self._lock = Lock()

    def late(self, waited: float, *, rank: int, mean: float, now: float) -> bool:
        """Whether a request waited so long that it is to be refused. To be asked for each.

        Args:
            waited: seconds.
            rank: its class, as an index of `TOLERANCE`.
            mean: seconds that requests take; 0 where nobody knows, and then nobody is late.
            now: the time, in seconds.
        """
        unit = min(max(mean, _SHORTEST), _LONGEST)
        if waited <= unit * TOLERANCE[0] and self._above[0] is None and not self._standing[0]:
            return False  # the usual case; whoever tolerates more is calm, too
        if not mean:
            return False
        interval = max(_INTERVAL, 2 * mean)
        verdict = False
        with self._lock:
            for level, factor in enumerate(TOLERANCE):
                if now - self._last[level] >= interval:  # nobody was late for as long as that
                    self._above[level], self._standing[level] = None, False
                if waited <= unit * factor:
                    self._above[level] = None
                    continue
                self._last[level] = now
                began = self._above[level]
                if began is None:
                    self._above[level] = now
                elif now - began >= interval:
                    self._standing[level] = True
                if level == rank:
                    verdict = self._standing[level]
        return verdict


def on_socket(environ: Mapping[str, Any] | None) -> float | None:
    """Seconds that a request waited for this process, or None where nobody can tell.

    Args:
        environ: its WSGI environment.
    """
    if environ is None or _TCP_INFO is None:
        return None
    connection = environ.get("gunicorn.socket") or environ.get("werkzeug.socket")
    if connection is None:
        return None
    try:
        information = connection.getsockopt(socket.IPPROTO_TCP, _TCP_INFO, _SIZE)
    except (OSError, AttributeError):  # a Unix socket; something that only looks like one
        return None
    return _LAST_DATA.unpack_from(information, _OFFSET)[0] / 1000 if len(information) >= _SIZE else None


_TCP_INFO: Final[int | None] = getattr(socket, "TCP_INFO", None)
# struct tcp_info of Linux: eight bytes, then numbers of four; tcpi_last_data_recv, in milliseconds, is the twelfth.
_LAST_DATA: Final = struct.Struct("=I")
_OFFSET: Final = 8 + 11 * 4
_SIZE: Final = _OFFSET + _LAST_DATA.size


class RequestStart:
    """Reads when a trusted proxy received a request.

    Args:
        field: the name of the header field.
        addresses: knows the trusted proxies.
    """

    __slots__ = ("_addresses", "_field", "_least", "_least_before", "_turn")

    def __init__(self, field: str, addresses: AddressResolver) -> None:
        self._field = field.lower()
        self._addresses = addresses
        # The shortest wait in this period of time, and in the one before.
        self._least = self._least_before = _FOREVER
        self._turn = 0

    def waited(self, facts: Facts, now: float) -> float | None:
        """Seconds that a request waited, or None where nobody who is trusted says so.

        Args:
            facts: the request.
            now: seconds since the Unix epoch.
        """
        lines = facts.header_lines(self._field)
        if not lines or not self._addresses.trusts(facts.peer()):
            return None
        match = _START.fullmatch(lines[-1].rpartition(",")[2][-_LONGEST_FIELD:].strip())
        if match is None:
            return None
        start = float(match[1])
        for smallest, unit in _UNITS:
            if start >= smallest:
                start /= unit
                break
        raw = now - start
        if not -_FOREVER < raw < _FOREVER:
            return None
        turn = int(now // _PERIOD)
        if turn != self._turn:
            # Two threads may both do this; then the period before is forgotten, and nobody waited for a moment.
            self._least_before = self._least if turn == self._turn + 1 else _FOREVER
            self._least, self._turn = raw, turn
        elif raw < self._least:
            self._least = raw
        return max(0.0, raw - min(self._least, self._least_before))


_START: Final = re.compile(r"(?:t=)?([0-9]{9,16}(?:\.[0-9]{1,9})?)", re.ASCII)
"""nginx's ``t=${msec}`` and others: seconds with a fraction, milliseconds or microseconds."""

_UNITS: Final = ((1e14, 1e6), (1e11, 1e3))
"""From which number on it counts microseconds, or milliseconds: as seconds both would be centuries away."""

_LONGEST_FIELD: Final = 32
_PERIOD: Final = 300.0
_FOREVER: Final = 3600.0
