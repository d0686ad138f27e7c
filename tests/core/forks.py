"""Forked children, for tests."""

import os
import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from typing import Any

import pytest

__all__ = ["forking", "held_elsewhere", "in_child"]

forking = [
    pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork"),
    pytest.mark.filterwarnings("ignore:This process.*is multi-threaded:DeprecationWarning"),
]
"""The marks of tests that fork."""


def in_child(act: Callable[[], Any]) -> int:
    """Run `act` in a forked child, for half a minute at most: 0 if it returns."""
    child = os.fork()
    if child == 0:
        code = 1
        try:
            act()
            code = 0
        finally:
            os._exit(code)
    hangs = threading.Timer(30, os.kill, (child, signal.SIGKILL))  # not an alarm: it may hang before it comes to `act`
    hangs.start()
    try:
        return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    finally:
        hangs.cancel()
        hangs.join()


@contextmanager
def held_elsewhere(*locks: Any) -> Iterator[None]:
    """Within, another thread holds `locks`."""
    held, over = threading.Event(), threading.Event()

    def hold() -> None:
        with ExitStack() as stack:
            for lock in locks:
                stack.enter_context(lock)
            held.set()
            over.wait()

    thread = threading.Thread(target=hold)
    thread.start()
    held.wait()
    try:
        yield
    finally:
        over.set()
        thread.join()
