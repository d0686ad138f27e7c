"""Templates of routes, as ``ResolverMatch.route`` has them.

REST framework's routers and ``format_suffix_patterns`` give each route a second one, with a suffix that says the format: ``/things/``
and ``/things.json``. Both are one route to limits, or each would have a budget of its own.
"""

import re
from collections.abc import Iterator, Sequence
from functools import lru_cache
from typing import Any, Final

from django.urls import URLPattern, URLResolver, get_resolver

__all__ = ["template_of", "views_below"]

_SUFFIX: Final = re.compile(r"(?:\\\.\(\?P<\w+>(?:[^()]+|\([^()]+\))\)/\?\$|<drf_format_suffix\w*:\w+>)\Z")
_ENDS: Final = ("/$", "$", "/", "")
"""What the pattern without suffix may have in its place."""


def template_of(route: str, view: Any, urlconf: Any = None) -> str:
    """The template of `route`: of two that differ in a suffix alone and lead to the same view, that of the one without.

    Args:
        route: as ``ResolverMatch.route`` has it.
        view: what it leads to.
        urlconf: of the request; None for the project's.
    """
    if not route.endswith(("/?$", ">")) or (suffix := _SUFFIX.search(route)) is None:
        return route
    known = _views_of(get_resolver(urlconf))
    plain = (route[: suffix.start()] + end for end in _ENDS)
    return next((one for one in plain if view in known.get(one, ())), route)


def views_below(
    patterns: Sequence[Any], prefix: str = "", groups: tuple[str, ...] = ()
) -> Iterator[tuple[str, Any, tuple[str, ...]]]:
    """Templates, views, and the namespaces and application names around them."""
    for one in patterns:
        own = str(one.pattern)
        template = prefix + own.removeprefix("^") if prefix else own
        if isinstance(one, URLResolver):
            names = tuple(name for name in (one.namespace, one.app_name) if name)
            yield from views_below(one.url_patterns, template, groups + names)
        elif isinstance(one, URLPattern):
            yield template, one.callback, groups


@lru_cache(maxsize=4)
def _views_of(resolver: URLResolver) -> dict[str, list[Any]]:
    found: dict[str, list[Any]] = {}
    for template, view, _ in views_below(resolver.url_patterns):
        found.setdefault(template, []).append(view)
    return found
