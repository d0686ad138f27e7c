"""The store that is this process: what may interrupt an operation, and what a forked process has of it."""

import os
import signal
import threading
import warnings
from collections.abc import Callable

import pytest

from failsoft.exchange import Operation, Table
from failsoft.exchange.operations import Script
from failsoft.stores.memory import MemoryStore


class Call(Operation):
    """An operation that calls a function in its middle."""

    script = Script("call", "return 1")
    keys = ()
    arguments = ()

    def __init__(self, function: Callable[[], object]) -> None:
        self._function = function

    def apply(self, table: Table, now: float) -> str:
        """Call it."""
        self._function()
        return "done"


IDLE = Call(lambda: None)


@pytest.mark.parametrize("interruption", ["flight", "close"])
def test_interrupted_by_a_signal_handler(interruption: str) -> None:
    """A signal handler that uses the store, or closes it, does not wait for the operation that it interrupts."""
    store = MemoryStore()
    done = threading.Event()

    def interrupted() -> None:
        # As a handler would: in the same thread, between two lines of the operation.
        store.close() if interruption == "close" else store.flight([IDLE])
        done.set()

    threading.Thread(target=store.flight, args=([Call(interrupted)],), daemon=True).start()

    assert done.wait(10)


@pytest.mark.processes
@pytest.mark.skipif(not hasattr(os, "fork"), reason="there is no fork here")
def test_forked_while_another_thread_is_at_it() -> None:
    """A forked process uses the store, though a thread that is not in it was in the middle of an operation."""
    store = MemoryStore()
    store.table.set("key", "value", expires=10.0, now=0.0)
    begun, end = threading.Event(), threading.Event()
    other = threading.Thread(target=store.flight, args=([Call(lambda: (begun.set(), end.wait(30)))],))
    other.start()
    assert begun.wait(10)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # forking beside threads is what is tested
        child = os.fork()
    if child == 0:
        try:
            signal.alarm(10)
            store.flight([IDLE])
            os._exit(0 if store.table.get("key", 1.0) == "value" else 2)
        finally:
            os._exit(1)
    status = os.waitpid(child, 0)[1]
    end.set()
    other.join()

    assert 0 == status
