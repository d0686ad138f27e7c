"""Which class a request belongs to: what its view is decorated with, else what the settings say of its route.

Only the route decides: never a header field, or whatever else a client can choose. Rules of the settings:

- A key is the template of a route as the framework writes it, or a beginning of it in whole segments: ``/api`` is about ``/api``,
  ``/api/items`` and ``/api/items/{id}``, and not about ``/apiary``. The longest key that fits holds; ``*`` is the shortest.
- Where no route is known (what middleware answers, a path that leads nowhere), keys are compared with the path.
- What machines ask that decide whether this process lives is exempt without being named: ``/healthz``, ``/livez`` and ``/readyz``.
"""

from collections.abc import Iterable, Mapping, Sequence
from typing import Final, Literal, get_args

from failsoft.errors import ConfigurationError
from failsoft.exchange import Policy
from failsoft.exchange.signatures import name_of
from failsoft.settings.criticality import CRITICALITIES, EVERYWHERE, EXEMPT
from failsoft.settings.problems import nearest

__all__ = ["CONCERN", "Class", "Classes", "Criticality", "criticality", "rank"]

CONCERN: Final = "shedding"

Class = Literal["sheddable", "sheddable_plus", "critical", "critical_plus", "exempt"]
"""How important a request is."""

_DEFAULT: Final = "critical"
_BUILT_IN: Final = (("/healthz", EXEMPT), ("/livez", EXEMPT), ("/readyz", EXEMPT))


class Criticality(Policy):
    """A declared class. Made by `criticality`; see there."""

    concern = CONCERN
    marker = True  # who arrives at a view was admitted already

    def __init__(self, name: Class) -> None:
        if name not in get_args(Class):
            near = nearest(name, get_args(Class)) if isinstance(name, str) else None
            hint = "" if near is None else f"; did you mean {near!r}?"
            if callable(name):
                hint = f'. Above {name_of(name)}, write @criticality("sheddable"), or another of them'
            raise ConfigurationError(
                f"criticality({name!r}): must be one of {', '.join(map(repr, get_args(Class)))}{hint}"
            )
        self.name: Class = name

    def fingerprint(self) -> object:
        return ("criticality", self.name)

    def __repr__(self) -> str:
        return f"criticality({self.name!r})"


def criticality(name: Class) -> Criticality:
    """Decorator: say how important a view is, for when not all requests can be served. It does something with the setting `shed`.

    The classes are those of Google's SRE book, chapter "Handling Overload". Works on functions, async functions, methods and
    class-based views, in any order with other decorators. Of several, that nearest to the view's code holds; a handler's
    before its class's. Without the decorator the setting `criticality` decides.

    Args:
        name: ``"critical_plus"``, refused last; ``"critical"``, the default; ``"sheddable_plus"``; ``"sheddable"``, refused first;
            or ``"exempt"``, never refused and not counted: health checks, and what stays open for long without working.

    Raises:
        ConfigurationError: at once, if there is no such class.
    """
    return Criticality(name)


class Classes:
    """The classes of routes and of paths.

    Args:
        rules: pairs of a key and a class, as the setting has them.
    """

    def __init__(self, rules: Iterable[tuple[str, str]]) -> None:
        table = dict(_BUILT_IN) | {_segments(key): name for key, name in rules}
        self._default = table.pop(EVERYWHERE, _DEFAULT)
        self._rules: Mapping[str, str] = dict(sorted(table.items(), key=lambda rule: len(rule[0]), reverse=True))

    def of_route(self, template: str | None, policies: Sequence[Policy]) -> int | None:
        """The rank of a route's class, 0 for the lowest; None for exempt.

        Args:
            template: the route, or None.
            policies: what is declared on its view, outermost first.
        """
        declared = [policy.name for policy in policies if isinstance(policy, Criticality)]
        return rank(declared[-1] if declared else self._find(template))

    def of_path(self, path: str) -> int | None:
        """The rank of a path's class, where no route is known."""
        return rank(self._find(path))

    def _find(self, place: str | None) -> str:
        if place is None:
            return self._default
        place = _segments(place)
        for key, name in self._rules.items():
            if place == key or (place.startswith(key) and place[len(key)] == "/"):
                return name
        return self._default


def rank(name: str) -> int | None:
    """The index of a class in `CRITICALITIES`; None for exempt."""
    return None if name == EXEMPT else CRITICALITIES.index(name)


def _segments(text: str) -> str:
    """A template or path in one form: Django writes neither a slash at the beginning nor, in its patterns, without `^` and `$`."""
    if text == EVERYWHERE:
        return text
    return "/" + text.removeprefix("^").removesuffix("$").strip("/")
