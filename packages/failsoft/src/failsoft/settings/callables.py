"""Functions of the user's: what messages call them, and whether they can be called as they will be."""

from collections.abc import Callable
from inspect import Signature, signature
from typing import Any

__all__ = ["name_of", "unfit"]


def name_of(function: Callable[..., Any]) -> str:
    """What messages call it."""
    return getattr(function, "__qualname__", None) or repr(function)


def unfit(function: Callable[..., Any], arguments: int) -> Signature | None:
    """The parameters of `function`, if it cannot be called with that many arguments. None where it can, or where nobody can tell."""
    try:
        # A decorator with functools.wraps may give what it wraps more than it is given, or less.
        parameters = signature(function, follow_wrapped=False)
    except Exception:  # written in C, it may have none; and names in annotations may be there for type checkers alone
        return None
    try:
        parameters.bind(*[None] * arguments)
    except TypeError:
        return parameters
    return None
