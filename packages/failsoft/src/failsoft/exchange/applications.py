"""What is declared and no route leads to, in a process that may have several applications, of several frameworks.

Rules:

- What one application's routes lead to is not lost for another.
- One that is installed and serves nothing yet may still get routes, so it is asked for them whenever another looks.
- What was found to have a route is remembered, so one that serves need not be asked again.
"""

from collections.abc import Callable, Iterable, Sequence
from typing import Any, TypeVar
from weakref import WeakKeyDictionary

from failsoft.exchange.policy import Declaration, collect, declarations

__all__ = ["installed", "serves", "unattached"]

_Application = TypeVar("_Application")

# What gives the routes' targets of those that serve nothing yet. Weak: an application that nobody has is gone.
_waiting: WeakKeyDictionary[Any, Callable[[Any], Iterable[Sequence[Any]]]] = WeakKeyDictionary()


def installed(application: _Application, targets: Callable[[_Application], Iterable[Sequence[Any]]]) -> None:
    """An application has failsoft, and serves nothing yet.

    Args:
        application: it, or what lives as long; by itself that is not kept alive.
        targets: gives for each of its routes what may carry declarations, as `Facts.targets` does. It raises nothing, and does not hold
            the application.
    """
    _waiting[application] = targets


def serves(application: object) -> None:
    """It serves from now on, and looks itself at what it has."""
    _waiting.pop(application, None)


def unattached(routes: Iterable[Sequence[Any]]) -> list[Declaration]:
    """Declarations that no route leads to, though they look as if they should be on one.

    Args:
        routes: for each route what may carry declarations, as `Facts.targets` gives it.
    """
    attached = {policy for targets in routes for policy in collect(targets)}
    lost = _besides(attached)
    if lost:
        for known in _waiting.keyrefs():  # a list: meanwhile other threads may install some
            application = known()
            if application is not None and (targets_of := _waiting.get(application)) is not None:
                attached.update(policy for targets in targets_of(application) for policy in collect(targets))
        lost = _besides(attached)
    return lost


def _besides(attached: set[Any]) -> list[Declaration]:
    lost: list[Declaration] = []
    for declaration in declarations():
        declaration.attached = declaration.attached or not attached.isdisjoint(declaration.policies)
        if not declaration.attached and not all(policy.for_helpers or policy.late for policy in declaration.policies):
            lost.append(declaration)
    return lost
