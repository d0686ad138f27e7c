"""An application as its adapter describes it.

An adapter registers, as an entry point of the group ``failsoft.adapters``, a function that takes an application and returns its
`Description`, or None if the application is not of its framework.
"""

import sys
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from importlib.metadata import entry_points
from types import MappingProxyType
from typing import Any, NamedTuple

from failsoft.errors import ConfigurationError
from failsoft.exchange import Declaration, Policy, unattached
from failsoft.inspection.trial import Trial, Tried
from failsoft.runtime import Runtime

__all__ = ["GROUP", "Description", "RouteInfo", "describe"]

GROUP = "failsoft.adapters"


class RouteInfo(NamedTuple):
    """A method of a route.

    Attributes:
        method: the HTTP method.
        template: the route as the framework writes it.
        targets: what may carry declarations, as in `failsoft.exchange.Facts.targets`.
        groups: what the framework calls the part of the application that it belongs to, as in `failsoft.exchange.Facts.groups`.
        called: what is called on the way to the view, and may carry declarations that are enforced only then.
        sources: what is to be told of where a policy stands, if it does not know that itself.
        by_name: whether the view, the first of `targets`, is given all of its arguments by name.
    """

    method: str
    template: str
    targets: tuple[Any, ...]
    groups: tuple[str, ...] = ()
    called: tuple[Any, ...] = ()
    sources: Mapping[Policy, str] = MappingProxyType({})
    by_name: bool = False


@dataclass(frozen=True, slots=True)
class Description:
    """An application.

    Attributes:
        framework: its name.
        runtime: its failsoft.
        routes: every method of every route.
        trial: makes a request up, as far as the framework needs one to say which view would serve it; nothing is served. None where the
            adapter cannot.
    """

    framework: str
    runtime: Runtime
    routes: Sequence[RouteInfo]
    trial: Callable[[Trial], AbstractContextManager[Tried]] | None = None

    def unattached(self) -> list[Declaration]:
        """Declarations that no route leads to."""
        return unattached((*route.targets, *route.called) for route in self.routes)


def describe(app: Any) -> Description:
    """The description of an application of any framework whose adapter is installed.

    Raises:
        ConfigurationError: no adapter knows it, or failsoft is not installed in it.
    """
    found = list(entry_points(group=GROUP))
    # Who made the application has most often imported its adapter; to import the others, and their frameworks, takes up to a second.
    for entry in sorted(found, key=lambda entry: entry.module.partition(".")[0] not in sys.modules):
        description = entry.load()(app)
        if isinstance(description, Description):
            return description
    names = ", ".join(sorted(entry.name for entry in found)) or "none"
    raise ConfigurationError(
        f"{app!r} is no application of an installed adapter ({names}); name it as module:attribute"
    )
