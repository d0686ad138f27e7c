"""Kinds of settings for rate limits: how much, and of whom. What is wrong with each of several is told at once."""

import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Final

from failsoft.errors import ConfigurationError
from failsoft.quota import NoLimit, Quota, is_item, parse_quotas
from failsoft.settings.callables import name_of, unfit
from failsoft.settings.kinds import Kind, Mistake, together
from failsoft.settings.problems import mask, nearest, show

__all__ = ["Identities", "Limits", "is_identity", "meant_identity"]

_NAMES: Final = ("ip", "user", "route")

_HEADER: Final = re.compile(r"header:[!#$%&'*+.^_`|~0-9A-Za-z-]+", re.ASCII)
"""RFC 9110, section 5.1: a field name is a token."""


_OF_A_URL: Final = re.compile("://|@")


@dataclass(frozen=True, slots=True)
class Limits(Kind):
    """Limits, each a string or an object."""

    listed = True

    @property
    def accepts(self) -> str:
        return (
            "a limit such as '100/minute', '10 per 2 hours' or '10/second burst 50', several separated by ';', a failsoft.Quota, an item "
            "of the package limits, or a list of them"
        )

    def read(self, value: object) -> tuple[Any, ...]:
        found: list[Any] = []
        wrong: list[Mistake] = []
        given = value if isinstance(value, (list, tuple)) else (value,)
        for one in given:
            try:
                found.append(self._one(one))
            except Mistake as mistake:
                wrong.append(mistake)
        if wrong and any(isinstance(one, str) and _OF_A_URL.search(one) for one in given):
            # The environment's is taken apart at semicolons, so that a piece looks like no URL any more, and may be of its password.
            raise Mistake(2, "what seems to be a URL is no limit")
        if wrong:
            raise together(wrong)
        return tuple(found)

    def _one(self, value: object) -> Any:
        if isinstance(value, str):
            text = value.strip()
            if not text:
                raise Mistake(2, "a limit is empty text", "leave it out")
            value = text
        elif not isinstance(value, Quota) and not is_item(value):
            raise Mistake(
                1, f"{show(value)} was given", "a function goes with @limit(...) alone" if callable(value) else ""
            )
        try:
            parse_quotas(value)
        except NoLimit as error:
            # Not what of it is wrong: of a URL that was put here, a part could be its password.
            raise Mistake(2, f"{show(value)} is no limit", error.meant) from None
        except ConfigurationError as error:
            raise Mistake(2, mask(str(error))) from None
        return value


@dataclass(frozen=True, slots=True)
class Identities(Kind):
    """Whom a limit counts: a name, a function, or several together."""

    listed = True

    @property
    def accepts(self) -> str:
        return "'ip', 'user', 'route', 'header:NAME', a function of the request, or a list of these"

    def read(self, value: object) -> str | Callable[..., Any] | tuple[str | Callable[..., Any], ...]:
        if not isinstance(value, (list, tuple)):
            return self._one(value)
        if not value:
            raise Mistake(2, "the list is empty")
        found: list[str | Callable[..., Any]] = []
        wrong: list[Mistake] = []
        for one in value:
            try:
                found.append(self._one(one))
            except Mistake as mistake:
                wrong.append(mistake)
        if sum(map(callable, found)) > 1:
            wrong.append(Mistake(2, "more than one function was given", "let one function return a tuple"))
        if wrong:
            raise together(wrong)
        return tuple(found)

    def _one(self, value: object) -> str | Callable[..., Any]:
        if callable(value):
            function = getattr(value, "function", value) if type(value).__name__ == "Hashed" else value
            parameters = unfit(function, 1)
            if parameters is not None:
                code = getattr(function, "__code__", None)
                place = f" ({code.co_filename}:{code.co_firstlineno})" if code else ""
                message = (
                    f"{name_of(function)}{place} is called with the request alone, and its parameters are {parameters}"
                )
                raise Mistake(2, message, "give it one, for the request")
            return value
        if not isinstance(value, str):
            hint = "late(...) goes with @limit(..., by=...) alone" if type(value).__name__ == "Late" else ""
            raise Mistake(1, f"{show(value)} was given", hint)
        name = value.strip()
        if not is_identity(name):
            raise Mistake(2, f"{show(value)} is none of the identities", meant_identity(name))
        return name


def is_identity(name: str) -> bool:
    """Whether `name` stands for an identity."""
    return name in _NAMES or _HEADER.fullmatch(name) is not None


def meant_identity(name: str) -> str:
    """A hint at the identity that `name` is most likely meant to be; "" where that cannot be guessed."""
    kind, colon, rest = name.partition(":")
    near = nearest(kind.strip(), (*_NAMES, "header"))
    if near == "header":
        field = f"header:{rest.strip()}"
        near = field if is_identity(field) else "header:NAME"
    elif colon:
        return ""
    return f"did you mean {near!r}?" if near else ""
