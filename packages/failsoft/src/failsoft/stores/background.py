"""A daemon thread that sleeps until it is nudged, or until its own next date.

It holds whom it works for weakly: it ends with it, closed or just forgotten. It starts with the first nudge, again after
a fork, and again if something killed it. What makes threads and queues is looked up when it is needed, since gevent may
replace it after this module was imported.
"""

import logging
import queue
import threading
import weakref

__all__ = ["Background"]

_log = logging.getLogger("failsoft.stores")


class Background:
    """Something that is seen to in a thread of its own.

    Args:
        name: of the thread.

    Attributes:
        ended: whether there is nothing left to do, ever.
    """

    def __init__(self, name: str) -> None:
        self._name = name
        self.ended = False
        self.start_over()

    def start_over(self) -> None:
        """Be as new. After a fork the thread is not here, and its lock may have been held."""
        self._starting = threading.Lock()
        self._thread: threading.Thread | None = None
        self._signal: queue.SimpleQueue[None] | None = None
        self._nudged = False

    def work(self) -> float | None:
        """One turn, in the thread. Returns seconds until the next, or None if that is when nudged."""
        raise NotImplementedError

    def nudge(self) -> None:
        """Have a turn, now. From any thread, also in a finalizer or a signal handler."""
        thread = self._thread
        # Whoever else has the lock starts it: maybe this very caller, whom a signal handler interrupted there.
        if (thread is None or not thread.is_alive()) and not self.ended and self._starting.acquire(blocking=False):
            try:
                if self._thread is thread:
                    self._start()
            finally:
                self._starting.release()
        if not self._nudged and self._signal is not None:
            self._nudged = True
            # Read anew: what was read before may be that of a thread which was replaced meanwhile.
            self._signal.put(None)

    def _start(self) -> None:
        # Reentrant, unlike a queue with a lock: its put may interrupt its get.
        signal: queue.SimpleQueue[None] = queue.SimpleQueue()
        me = weakref.ref(self, lambda _: signal.put(None))
        thread = threading.Thread(target=_run, args=(me, signal), daemon=True, name=self._name)
        former, self._signal = self._signal, signal
        self._nudged = False
        if former is not None:
            former.put(None)  # if its thread is there after all, it sees that it was replaced
        try:
            thread.start()
        except RuntimeError:
            return  # out of threads, or the interpreter is shutting down: the next nudge tries again
        self._thread = thread

    def _turn(self, signal: "queue.SimpleQueue[None]") -> tuple[bool, float | None]:
        """Whether this was the last turn of the thread that `signal` wakes; and when the next is due."""
        if self.ended or signal is not self._signal:
            return True, None
        self._nudged = False
        try:
            pause = self.work()
            return self.ended, pause
        except Exception:
            # A thread that ended here would leave everything as it is for ever.
            _log.exception("%s failed; it goes on", self._name)
            return False, 0.5


def _run(reference: "weakref.ref[Background]", signal: "queue.SimpleQueue[None]") -> None:
    over, pause = False, None
    while not over:
        try:
            signal.get(timeout=pause)
        except queue.Empty:
            pass
        worker = reference()
        if worker is None:
            return
        over, pause = worker._turn(signal)
        del worker
