"""The background: connections are made, replaced and probed here, so that no request resolves a name or shakes hands.

One daemon thread for each store and process serves the threads' pool and the links of event loops alike. It sleeps
until somebody needs a connection, one grows old, or the breaker is due for a probe; a store at rest costs no CPU.

Theory of operation, for each turn of `Connector.work`:

- While the breaker is closed, whoever wants a connection gets one. A failed attempt is told to all who want one, and
  the next waits a jittered 250 to 500 ms, as a probe does.
- While it is not closed, idle connections are dropped, since they belong to a server that is not trusted any more. A
  probe is a whole new connection with an answered PING and script; those that succeed are the first connections of the new life.
- A failed attempt counts as refused: three in a row open the breaker.
- Where a finder says where the server is, it is asked once a second whether that has changed, and at once when a reply
  or a timeout makes one wonder. Then nobody goes on using connections that lead elsewhere.
- A connection lives 25 to 30 s. Its successor is there before it goes, so that nobody waits.
- What changed is announced from here, in order, outside every lock. An outage of an instant may go unnoticed.

The thread holds its connector weakly: it ends with the store, closed or just forgotten.

What makes threads, locks and queues is looked up when it is needed and not before: gevent may replace it after this
module was imported, in gunicorn's workers even after the application was.
"""

import logging
import math
import queue
import threading
import weakref
from collections.abc import Callable, Iterable, Sequence
from typing import Protocol

from redis.exceptions import AuthenticationError, ResponseError

from failsoft.errors import OperationFailed, StoreUnavailable, UnavailableReason
from failsoft.events import Event, OperationRefused, StoreDegraded, StoreRecovered
from failsoft.guard import Breaker, Outcome
from failsoft.stores.redis.sentinel import LOOK, Address, Finder
from failsoft.stores.redis.wire import Warm

__all__ = ["LAG", "MOMENT", "SHARE", "Connector", "Consumer", "Shared"]

_log = logging.getLogger("failsoft.stores")

LAG = 0.020
"""Seconds. A deadline noticed later than this means that this process was not scheduled, not that the store is slow."""

MOMENT = 0.005
"""Seconds of rest after which a connection is looked at before use: 0.5 µs against a degraded request."""

SHARE = 0.25
"""Part of the deadline that is kept for the flight itself. With less, who waited for a connection would only break it."""

_LIFE = (25.0, 30.0)
_RETRY = (0.25, 0.5)

_WONDER = 0.1
"""Seconds between two looks at least, however many flights wonder."""

_FULL = "max number of clients"
"""What a server says that has no place for another client. redis-py has no class for it."""


class Shared:
    """What both sides of a store have in common with its connector.

    Attributes:
        breaker: counts the flights and connects of both sides.
        closed: whether the store was closed.
        connecting: since when an attempt to connect is under way, None if none is. To resolve a name may take its time.
        deadline: seconds for a flight.
        detail: the last failure, in words.
        hide: takes secrets out of what others say.
        monotonic: the clock.
        name: of the store, in events and thread names.
        trouble: the last failure, as a reason.
    """

    __slots__ = (
        "_publish",
        "_random",
        "breaker",
        "closed",
        "connecting",
        "deadline",
        "detail",
        "hide",
        "monotonic",
        "name",
        "trouble",
    )

    def __init__(
        self,
        *,
        name: str,
        breaker: Breaker,
        deadline: float,
        monotonic: Callable[[], float],
        random: Callable[[], float],
        publish: Callable[[Event], None] | None,
        hide: Callable[[str], str] = str,
    ) -> None:
        self.hide = hide
        self.name = name
        self.breaker = breaker
        self.deadline = deadline
        self.monotonic = monotonic
        self._random = random
        self._publish = publish
        self.closed = False
        self.connecting: float | None = None
        self.trouble: UnavailableReason = "no_connection"
        self.detail = "none"

    def draw(self, bounds: tuple[float, float]) -> float:
        """A random number between two others."""
        low, high = bounds
        return low + (high - low) * self._random()

    def failure(self, reason: UnavailableReason, detail: str) -> StoreUnavailable:
        """What to raise for a failure, which is remembered."""
        detail = self.hide(detail)
        self.trouble = reason
        self.detail = f"{reason}, {detail}"
        return StoreUnavailable(reason, detail)

    def refused(self, failed: OperationFailed) -> None:
        """Tell of an operation that the server answered with an error."""
        self.publish(OperationRefused(self.name, failed.code, self.hide(str(failed))))

    def refusal(self, reason: UnavailableReason | None = None) -> StoreUnavailable:
        """What to raise where nothing is tried."""
        if self.closed:
            return StoreUnavailable("closed", f"the store {self.name!r} was closed")
        if reason is None:
            reason = "no_connection" if self.breaker.closed else "open"
        detail = f"last failure of the store {self.name!r}: {self.detail}"
        since = self.connecting
        if since is not None:
            detail += f"; it has been connecting for {self.monotonic() - since:.1f} s"
        return StoreUnavailable(reason, detail)

    def publish(self, event: Event) -> None:
        """Tell whoever wants to know."""
        if self._publish is not None:
            try:
                self._publish(event)
            except (Exception, SystemExit):  # which would end the thread, and with it every hope of recovery
                _log.exception("publish of the store %r raised on %r", self.name, event)


class Consumer(Protocol):
    """Somebody who needs connections: the threads' pool, or the link of an event loop.

    Attributes:
        down: whether it has no connection, and the last attempt to get one failed.
    """

    down: bool

    def wants(self, now: float) -> bool:
        """Whether it needs a connection."""
        ...

    def take(self, connection: Warm) -> None:
        """Have one."""
        ...

    def fail(self) -> None:
        """Hear that there is none to be had."""
        ...

    def tend(self, now: float, *, distrust: bool) -> float:
        """Drop idle connections that are not needed; in distrust, all. Returns when the next one grows old."""
        ...

    def leave(self, address: Address) -> None:
        """Use no connection any more that does not lead to `address`."""
        ...


class Connector:
    """Makes connections for `consumers`, in the background.

    Args:
        shared: the store's.
        make: a new connection that is known to answer, or an exception.
        consumers: those to serve; called anew each time.
        finder: knows where connections are to lead, if that may change.
    """

    def __init__(
        self,
        shared: Shared,
        make: Callable[[], Warm],
        consumers: Callable[[], Iterable[Consumer]],
        finder: Finder | None = None,
    ) -> None:
        self._shared = shared
        self._make = make
        self._finder = finder
        self._consumers = consumers
        self.start_over()

    def start_over(self) -> None:
        """Be as new. After a fork the thread is not here, and its locks may have been held."""
        self._lock = threading.Lock()
        self._thread: threading.Thread | None = None
        self._signal: queue.SimpleQueue[None] | None = None
        self._nudged = False
        self._not_before = -math.inf
        self._failures = 0
        self._degraded_at: float | None = None
        self._look_at = self._looked_at = -math.inf
        self._address: Address | None = None
        self._shared.connecting = None
        if self._finder is not None:
            self._finder.start_over()

    def wonder(self) -> None:
        """Look whether the server is still where it was, soon."""
        if self._finder is not None:
            self._look_at = min(self._look_at, self._looked_at + _WONDER)
        self.nudge()

    def nudge(self) -> None:
        """Look after the consumers, now. Starts the thread if there is none."""
        thread = self._thread
        dead = thread is None or not thread.is_alive()
        # Whoever else has the lock starts it: maybe the caller himself, whom a signal handler interrupted there.
        if dead and not self._shared.closed and self._lock.acquire(blocking=False):
            try:
                if self._thread is thread:
                    self._start_thread_locked()
            finally:
                self._lock.release()
        if not self._nudged and self._signal is not None:
            self._nudged = True
            # Read anew: what was read before may be that of a thread which was replaced meanwhile.
            self._signal.put(None)

    def _start_thread_locked(self) -> None:
        former = self._signal
        # Its put may interrupt its get (in a finalizer); with a lock inside, that would be a deadlock.
        signal: queue.SimpleQueue[None] = queue.SimpleQueue()
        me = weakref.ref(self, lambda _: signal.put(None))
        thread = threading.Thread(target=_run, args=(me, signal), daemon=True, name=f"failsoft-{self._shared.name}")
        self._signal = signal
        self._nudged = False
        if former is not None:
            former.put(None)  # its thread, if an interrupt hid from us that it was started, sees that it was replaced
        try:
            thread.start()
        except RuntimeError:
            return  # out of threads, or the interpreter is shutting down: the next nudge tries again
        self._thread = thread

    def is_over(self, signal: "queue.SimpleQueue[None]") -> bool:
        """Whether the thread that `signal` wakes has nothing left to do, ever."""
        return self._shared.closed or signal is not self._signal

    def let_go(self) -> None:
        """Close what only the thread uses, if the store was closed."""
        if self._finder is not None and self._shared.closed:
            self._finder.close()

    def work(self) -> float | None:
        """One turn. Returns seconds until the next, or None if that is when nudged."""
        shared = self._shared
        breaker = shared.breaker
        self._nudged = False
        self._tend()
        self._look()
        while not shared.closed:
            self._announce()  # before an attempt that may take seconds
            now = shared.monotonic()
            wanting = [consumer for consumer in self._consumers() if consumer.wants(now)]
            if breaker.closed and (not wanting or now < self._not_before):
                break
            admission = breaker.acquire(now)
            if admission is None:
                break
            outcome = Outcome.CANCELLED
            connection: Warm | None = None
            refused = False
            try:
                shared.connecting = now
                connection = self._make()
                # Otherwise flights that break and connects that succeed would keep the failure rate below the half.
                outcome = Outcome.SUCCESS if admission.probe else Outcome.IGNORE
            except Exception as error:  # of redis-py, of a resolver, of a handshake
                outcome = Outcome.REFUSED
                refused = isinstance(error, AuthenticationError | ResponseError) or _FULL in str(error)
                shared.failure(_reason(error), f"{type(error).__name__}: {error}")
            finally:
                shared.connecting = None
                breaker.settle(admission, outcome, shared.monotonic())
            if connection is None:
                self._not_before = shared.monotonic() + shared.draw(_RETRY)
                for consumer in wanting:
                    consumer.fail()
                self._failures += 1
                if refused and self._failures > 1 and breaker.closed and not any(one.down for one in wanting):
                    # Those that are there go on, and nobody would notice, until a process starts that gets none.
                    shared.refused(OperationFailed(f"a new connection: {shared.detail}", code="CONNECT"))
                continue
            self._not_before = -math.inf
            self._failures = 0
            self._hand_over(connection, wanting)
        return self._rest()

    def _look(self) -> None:
        """Find out whether the server is still where it was, if it is time to."""
        shared = self._shared
        now = shared.monotonic()
        if self._finder is None or self._address is None or now < self._look_at:
            return
        if shared.closed or not shared.breaker.closed:
            return  # no connection is used, and the next one finds out anyway
        connection = self._finder.look()
        self._looked_at = shared.monotonic()
        self._look_at = self._looked_at + shared.draw(LOOK)
        if connection is not None:
            self._hand_over(connection, ())

    def _hand_over(self, connection: Warm, wanting: Sequence[Consumer]) -> None:
        """Give a new connection to one of those who want it, after others were left that lead elsewhere."""
        shared = self._shared
        now = shared.monotonic()
        connection.retire_at = connection.since + shared.draw(_LIFE)
        if connection.address is not None and connection.address != self._address:
            self._address = connection.address
            self._looked_at, self._look_at = now, now + shared.draw(LOOK)
            for consumer in self._consumers():
                consumer.leave(connection.address)
        takers = wanting or [consumer for consumer in self._consumers() if consumer.wants(now)]
        if takers:
            takers[0].take(connection)
        else:
            connection.disconnect()

    def _rest(self) -> float | None:
        """Say what changed, and find out when to look again."""
        shared = self._shared
        wake_at = self._tend()
        now = shared.monotonic()
        if not shared.closed:
            self._announce()
            if not shared.breaker.closed:
                # Not at once, if somebody else has the probe out: this would be a busy loop. Nor when its lease ends: nobody
                # tells of a probe that succeeded.
                wake_at = min(wake_at, now + min(max(shared.breaker.retry_after(now), 0.01), _RETRY[1]))
            else:
                if any(consumer.wants(now) for consumer in self._consumers()):
                    wake_at = min(wake_at, max(self._not_before, now))
                if self._address is not None:
                    wake_at = min(wake_at, max(self._look_at, now))
        return None if wake_at == math.inf else max(wake_at - now, 0.001)

    def _tend(self) -> float:
        """Have everybody drop what is not needed. Returns when the next connection grows old."""
        now = self._shared.monotonic()
        distrust = self._shared.closed or not self._shared.breaker.closed
        dates = [consumer.tend(now, distrust=distrust) for consumer in self._consumers()]
        # One that is old already is no date to wake up at: its owner wants another one, or has that on its way.
        return min((date for date in dates if date > now), default=math.inf)

    def _announce(self) -> None:
        shared = self._shared
        now = shared.monotonic()
        degraded = not shared.breaker.closed or any(consumer.down for consumer in self._consumers())
        if degraded and self._degraded_at is None:
            self._degraded_at = now
            shared.publish(StoreDegraded(shared.name, shared.trouble, shared.detail))
        elif not degraded and self._degraded_at is not None:
            after, self._degraded_at = now - self._degraded_at, None
            shared.publish(StoreRecovered(shared.name, after))


def _reason(error: Exception) -> UnavailableReason:
    """Why an attempt failed. The system's error is the context of redis-py's."""
    cause: BaseException | None = error
    while cause is not None:
        if isinstance(cause, (ConnectionRefusedError, FileNotFoundError)):
            return "refused"
        cause = cause.__context__
    return "no_connection"


def _run(reference: "weakref.ref[Connector]", signal: "queue.SimpleQueue[None]") -> None:
    pause: float | None = 0.001
    while True:
        try:
            signal.get(timeout=pause)
        except queue.Empty:
            pass
        connector = reference()
        if connector is None or connector.is_over(signal):
            if connector is not None:
                connector.let_go()
            return
        try:
            pause = connector.work()
        except Exception:
            # A thread that ended here would leave the store degraded for ever.
            _log.exception("the connector of a store failed; it goes on")
            pause = 0.5
        del connector
