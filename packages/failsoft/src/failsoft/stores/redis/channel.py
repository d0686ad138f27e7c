"""One pipelined connection on one event loop.

Rules:

- Callers of one turn of the loop share one write, and a crowd of them a few. Where callers come one by one, a flight goes out at once
  instead: to wait for the end of the turn takes another turn, which is 15 % of all that a flight costs. Which it is, the last flush
  says: company is a flight beside another that is still under way.
- Replies come in the order of the requests, and each is read for the flight at the head of the queue. A caller that was cancelled has its
  replies read and thrown away, so the order holds and the connection lives.
- One timer for the connection, armed for the oldest flight; the others cost nothing. When it fires, what has arrived
  is read first. A flight that is overdue even then ends the connection, because its reply may still come.
- A loop that was blocked has not given the server its time. A deadline noticed too late is extended once, by `LAG`,
  and then called local lag, which does not count against the store.
- An exception that is none of ours (KeyboardInterrupt, in a loop that goes on nevertheless) ends the connection too: after it a reply
  might be taken for another flight's.
- Everything here runs on the loop's thread. No tasks, no streams, no transports: callbacks on a socket that redis-py
  connected. A loop that is closed finds nothing left that would complain, and nothing here keeps a loop alive.
"""

import asyncio
import math
from asyncio import AbstractEventLoop, Future
from collections import deque
from collections.abc import Callable, Sequence
from typing import Any

from redis.exceptions import NoScriptError, RedisError, ResponseError

from failsoft.errors import StoreUnavailable, UnavailableReason
from failsoft.exchange.operations import Operation
from failsoft.guard import Admission, Outcome
from failsoft.stores.redis.commands import NONSENSE, TURNED_AWAY, again, by_source, is_demotion
from failsoft.stores.redis.connector import LAG, Shared
from failsoft.stores.redis.replies import PLAIN
from failsoft.stores.redis.wire import LATE_READS, NothingYet, Warm

__all__ = ["BOUND", "Channel", "Flight"]

BOUND = 10_000
"""Flights under way on one loop, or callers who wait for its connection. More would all be overdue."""

_CROWD = 16
"""Flights that go out although the turn goes on, so that the server works while the loop does: where 50 fly at a time, each takes 8 µs of
wall time and not 13. Half or a quarter as many at once is no faster."""


class Flight:
    """Operations under way.

    Attributes:
        future: who waits for the replies; None once that caller was cancelled.
        places: of the replies that are awaited a second time, or None the first time.
    """

    __slots__ = ("admission", "due", "future", "operations", "places", "replies")

    def __init__(
        self, operations: Sequence[Operation], due: float, admission: Admission, future: "Future[list[Any]]"
    ) -> None:
        self.operations = operations
        self.due = due
        self.admission = admission
        self.future: Future[list[Any]] | None = future
        self.replies: list[Any] = []
        self.places: list[int] | None = None

    def add(self, reply: Any) -> bool:
        """Have the next reply; whether it was the last."""
        if self.places is None:
            self.replies.append(reply)
            return len(self.replies) == len(self.operations)
        self.replies[self.places.pop(0)] = reply
        return not self.places

    def end(self, *, error: StoreUnavailable | None = None) -> None:
        """Tell the caller."""
        if self.future is None or self.future.done():
            return
        if error is None:
            self.future.set_result(self.replies)
        else:
            self.future.set_exception(error)
            self.future.exception()  # an interrupt may have taken the caller: asyncio is not to complain that nobody asked


class Channel:
    """One connection, watched by the running loop.

    Args:
        connection: a warm one, whose wire serves loops.
        shared: the store's.
        lost: called with the channel and a reason when it has closed.
        demoted: called with the channel when the server said that it is not the primary.
    """

    __slots__ = (
        "_closed",
        "_demoted",
        "_flush_scheduled",
        "_lost",
        "_one_by_one",
        "_out",
        "_retired",
        "_shared",
        "_timer_at",
        "_unsent",
        "connection",
        "flights",
        "since",
        "wire",
    )

    def __init__(
        self,
        connection: Warm,
        shared: Shared,
        *,
        lost: Callable[["Channel", UnavailableReason], None],
        demoted: Callable[["Channel"], None],
    ) -> None:
        self.connection = connection
        self.wire = connection.wire
        self.since = connection.since
        self.flights: deque[Flight] = deque()
        self._shared = shared
        self._lost = lost
        self._demoted = demoted
        self._one_by_one = True
        self._out: list[bytes] = []
        self._unsent = b""
        self._flush_scheduled = False
        self._timer_at = math.inf
        self._retired = False
        self._closed = False

    def send(self, flight: Flight, data: bytes, loop: AbstractEventLoop) -> None:
        """Send at once, or with the others of this turn."""
        flights = self.flights
        try:
            flights.append(flight)
            if flight.due < self._timer_at:
                self._arm(loop, flight.due)
            if self._one_by_one and len(flights) == 1:
                self._put(data)
                return
            self._out.append(data)
            if len(self._out) >= _CROWD:
                self._send_out()
            elif not self._flush_scheduled:
                self._flush_scheduled = True
                loop.call_soon(self._flush)
        except BaseException:
            self._torn()
            raise

    def retire(self, loop: AbstractEventLoop) -> None:
        """Close after the last flight; there will be no more."""
        self._retired = True
        if not self.flights:
            self.close(loop, "closed")

    def let_go(self) -> None:
        """The same, for whoever is not on the loop, by `call_soon_threadsafe`."""
        self.retire(asyncio.get_running_loop())

    def close(self, loop: AbstractEventLoop, reason: UnavailableReason, detail: str = "") -> None:
        """End the connection and every flight on it."""
        if self._closed:
            return
        try:
            self._closed = True
            self._end(loop, reason, detail)
        finally:
            self._lost(self, reason)

    def _end(self, loop: AbstractEventLoop, reason: UnavailableReason, detail: str) -> None:
        # A descriptor that is still watched for anything when it is closed spoils the next socket of its number.
        loop.remove_reader(self.wire.fileno())
        loop.remove_writer(self.wire.fileno())
        self.connection.disconnect()
        self._out.clear()
        shared = self._shared
        failure = reason in ("timeout", "broken")
        if failure:
            detail = shared.hide(detail)
            shared.failure(reason, detail)
        now = shared.monotonic()
        while self.flights:
            flight = self.flights.popleft()
            verdict, said = reason, detail
            if reason == "timeout" and now < flight.due:
                verdict, said = "broken", "the connection was given up, for it owed an earlier reply"
            counts = failure and verdict == reason
            shared.breaker.settle(flight.admission, Outcome.FAILURE if counts else Outcome.IGNORE, now)
            flight.end(error=StoreUnavailable(verdict, said))

    def _torn(self) -> None:
        """An exception struck between two steps (KeyboardInterrupt): nobody knows what was sent, or whose the next reply is."""
        self.close(asyncio.get_running_loop(), "local_lag", "an exception interrupted the event loop")

    def on_readable(self) -> None:
        """The loop says that there is something to read."""
        if self._closed:
            return
        wire = self.wire
        wire.ready = True
        flights = self.flights
        source = self.connection.replies
        gets = source.gets
        now = 0.0
        try:
            while flights:
                reply = gets()
                if type(reply) not in PLAIN:
                    reply = source.settle(reply)
                flight = flights[0]
                if flight.add(reply):
                    flights.popleft()
                    now = now or self._shared.monotonic()
                    self._finish(flight, now)
        except NothingYet:
            pass
        except TURNED_AWAY as error:
            self._turned_away(error.with_traceback(None))
            return
        except (RedisError, OSError, *NONSENSE) as error:
            self.close(asyncio.get_running_loop(), "broken", str(error))
            return
        except BaseException:
            self._torn()
            raise
        if self._closed:  # by what could not be sent again
            return
        if now:
            self.since = now
        if not flights and (self._retired or source.surplus() or (wire.ready and wire.readable())):
            # Nobody waited for what is left over or still to be read. It is the end, or what would be taken for a reply.
            self.close(asyncio.get_running_loop(), "closed")

    def _finish(self, flight: Flight, now: float) -> None:
        for reply in flight.replies:
            if isinstance(reply, ResponseError):
                if self._goes_on(flight):
                    return
                break
        self._shared.breaker.settle(flight.admission, Outcome.SUCCESS, now)
        flight.end()

    def _goes_on(self, flight: Flight) -> bool:
        """See to the error replies of `flight`: whether some of it has to be sent again."""
        replies = flight.replies
        if flight.places is None:
            unknown = [place for place, reply in enumerate(replies) if isinstance(reply, NoScriptError)]
            flight.places = again(flight.operations, unknown)
            if flight.places:
                # These did not run, so that running them now is not running them twice.
                data = by_source([flight.operations[place] for place in flight.places])
                self.send(flight, data, asyncio.get_running_loop())
                return True
        if any(isinstance(reply, ResponseError) and is_demotion(reply) for reply in replies):
            self._demoted(self)
        return False

    def _turned_away(self, error: Exception) -> None:
        """An error reply that speaks for the whole connection: the answer to everything under way."""
        now = self._shared.monotonic()
        while self.flights:
            flight = self.flights.popleft()
            while not flight.add(error):
                pass
            self._shared.breaker.settle(flight.admission, Outcome.IGNORE, now)
            flight.end()
        self.close(asyncio.get_running_loop(), "closed")

    def _flush(self) -> None:
        """Send what this turn queued."""
        try:
            self._flush_scheduled = False
            if self._closed:
                return
            self._one_by_one = len(self.flights) == 1
            if self._out:  # a crowd may have gone before
                self._send_out()
        except BaseException:
            self._torn()
            raise

    def _send_out(self) -> None:
        data = self._out[0] if len(self._out) == 1 else b"".join(self._out)
        self._out.clear()
        self._put(data)

    def _put(self, data: bytes) -> None:
        """Send. What the kernel does not take waits until it does."""
        if self._unsent:
            self._unsent += data
            return
        self._send(data)
        if self._unsent:
            asyncio.get_running_loop().add_writer(self.wire.fileno(), self._on_writable)

    def _on_writable(self) -> None:
        if self._closed:
            return
        try:
            data, self._unsent = self._unsent, b""
            self._send(data)
            if not self._unsent and not self._closed:
                asyncio.get_running_loop().remove_writer(self.wire.fileno())
        except BaseException:
            self._torn()
            raise

    def _send(self, data: bytes) -> None:
        try:
            sent = self.wire.send(data)
        except OSError as error:
            self.close(asyncio.get_running_loop(), "broken", str(error))
            return
        if sent < len(data):
            self._unsent = data[sent:]

    def _on_timer(self, extended: bool = False) -> None:
        self._timer_at = math.inf
        if self._closed or not self.flights:
            return
        loop = asyncio.get_running_loop()
        reads = 0
        while self._late() >= 0 and reads < LATE_READS and (not reads or self.wire.readable()):
            reads += 1
            self.on_readable()
            if self._closed or not self.flights:
                return
        late = self._late()
        now = self._shared.monotonic()
        if late < 0:
            self._arm(loop, now - late)
        elif late <= LAG:
            self.close(loop, "timeout", f"no whole reply in {self._shared.deadline:g} s")
        elif extended:
            self.close(loop, "local_lag", f"noticed {late:.3f} s late")
        else:
            self._arm(loop, now + LAG, True)

    def _late(self) -> float:
        """Seconds since the oldest flight was due. The least, since one that was sent again stands at the end."""
        return self._shared.monotonic() - min(flight.due for flight in self.flights)

    def _arm(self, loop: AbstractEventLoop, at: float, extended: bool = False) -> None:
        self._timer_at = at
        loop.call_later(max(at - self._shared.monotonic(), 0.0), self._on_timer, extended)
