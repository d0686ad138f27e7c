"""What a forked child must not share with its parent: locks that nobody releases there, connections, units that only one may give out.

Rules:

- Whoever has any of that starts over in the child, before the fork returns there: no other thread runs yet. Those who came to
  `os.register_at_fork` before this module (logging, threading, perhaps the application) are called earlier: they must not use failsoft.
- Each sees to its own alone: what others have may not have started over. All are kept alive until the last one has.
- An error of one, whatever it is, keeps no other from starting over. It is logged when all have: who hears of it may use any of them.
"""

import logging
import os
from collections.abc import Callable
from contextlib import suppress
from typing import Any, TypeVar
from weakref import WeakKeyDictionary

__all__ = ["start_over_in_children"]

_log = logging.getLogger("failsoft")

_Owner = TypeVar("_Owner")

_known: WeakKeyDictionary[Any, Callable[[Any], None]] = WeakKeyDictionary()


def start_over_in_children(owner: _Owner, start_over: Callable[[_Owner], None]) -> None:
    """Call ``start_over(owner)`` in each process that is forked from this one, for as long as `owner` lives.

    Args:
        owner: it is not kept alive.
        start_over: does not hold it.
    """
    _known[owner] = start_over


def _start_over() -> None:
    failed: list[tuple[Any, BaseException]] = []
    for owner, start_over in list(_known.items()):
        try:
            start_over(owner)
        except BaseException as error:  # also what a signal handler raises: nobody hears of what this function raises
            failed.append((owner, error))
    for owner, raised in failed:
        with suppress(Exception):  # of a filter or a handler: there may be more to log
            _log.error("%r could not start over in a forked process", owner, exc_info=raised)


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_start_over)
