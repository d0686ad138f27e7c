"""Kinds of settings for load shedding: how important requests are, and the name of a header field.

The classes are those of Google's SRE book (chapter "Handling Overload"): what is sheddable is refused first, what is
critical_plus last. ``exempt`` is no class: such requests are neither refused nor counted.
"""

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

from failsoft.settings.kinds import Kind, Mistake
from failsoft.settings.problems import nearest, show

__all__ = ["CRITICALITIES", "EVERYWHERE", "EXEMPT", "Criticalities", "FieldName"]

CRITICALITIES: Final = ("sheddable", "sheddable_plus", "critical", "critical_plus")
"""The classes; those that are refused first come first."""

EXEMPT: Final = "exempt"
"""Stands for no class: neither refused nor counted."""

EVERYWHERE: Final = "*"
"""The key for whatever no other key is about."""

_TOKEN: Final = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z-]{1,64}", re.ASCII)
"""RFC 9110, section 5.1."""


@dataclass(frozen=True, slots=True)
class Criticalities(Kind):
    """Classes of paths and of routes."""

    @property
    def accepts(self) -> str:
        classes = ", ".join(map(repr, (*CRITICALITIES, EXEMPT)))
        return (
            f"a table of beginnings of paths ('/reports'), templates of routes ('/reports/{{id}}') or '{EVERYWHERE}' to "
            f"classes ({classes}); as text, a JSON object"
        )

    def read(self, value: object) -> tuple[tuple[str, str], ...]:
        if isinstance(value, str):
            try:
                value = json.loads(value)
            except (ValueError, RecursionError):
                raise Mistake(2, "the text is no JSON") from None
        if isinstance(value, (list, tuple)):
            try:
                value = dict(value)
            except (TypeError, ValueError):
                raise Mistake(1, f"{show(value)} was given") from None
        if not isinstance(value, Mapping):
            raise Mistake(1, f"{show(value)} was given")
        return tuple((_key(key), _class(name)) for key, name in value.items())


def _key(key: object) -> str:
    if not isinstance(key, str) or not key.isprintable() or not (key == EVERYWHERE or key.startswith("/")):
        raise Mistake(2, f"{show(key)} is no path", f"a path begins with '/'; '{EVERYWHERE}' is whatever else there is")
    return str.__str__(key)


def _class(name: object) -> str:
    if name not in (*CRITICALITIES, EXEMPT):
        near = nearest(name.strip(), (*CRITICALITIES, EXEMPT)) if isinstance(name, str) else None
        raise Mistake(2, f"{show(name)} is no class", f"did you mean {near!r}?" if near else "")
    return str(name)


@dataclass(frozen=True, slots=True)
class FieldName(Kind):
    """The name of a header field, or none."""

    @property
    def accepts(self) -> str:
        return "the name of a header field, such as 'X-Request-Start'"

    def read(self, value: object) -> str | None:
        if value is None:
            return None
        if not isinstance(value, str):
            raise Mistake(1, f"{show(value)} was given")
        if not _TOKEN.fullmatch(value):
            raise Mistake(2, f"{show(value)} is no name of a header field")
        return str.__str__(value)
