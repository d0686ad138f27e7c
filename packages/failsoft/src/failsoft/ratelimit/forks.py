"""What a forked child must not share with its parent: units that only one of them may give out, and locks that nobody releases there."""

import os
from typing import Protocol
from weakref import WeakSet

__all__ = ["Forked", "start_over_in_children"]


class Forked(Protocol):
    """What a child begins anew."""

    def start_over(self) -> None:
        """Be the child's own. No other thread runs yet."""
        ...


_known: "WeakSet[Forked]" = WeakSet()


def start_over_in_children(one: Forked) -> None:
    """Let `one` start over in each process that is forked from this one, for as long as it lives."""
    _known.add(one)


def _start_over() -> None:
    for one in list(_known):
        one.start_over()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_start_over)
