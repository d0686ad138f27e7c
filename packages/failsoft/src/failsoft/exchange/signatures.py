"""Whether functions of the user's can be called as they will be: told when an application starts, or each such request would be a 500."""

from collections.abc import Callable
from inspect import Signature, signature
from typing import Any

from failsoft.errors import ConfigurationError
from failsoft.exchange.places import line_of

__all__ = ["check_renderer", "name_of", "unfit"]


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


def check_renderer(given: object) -> None:
    """Look at what is to make the responses to refusals.

    Raises:
        ConfigurationError: it cannot be called with the request and the refusal.
    """
    if not callable(given):
        cure = ", not its name" if isinstance(given, str) else ""
        raise ConfigurationError(
            f"renderer is an object of type {type(given).__name__}: give the function itself{cure}. It takes the request and the "
            "failsoft.Rejected"
        )
    parameters = unfit(given, 2)
    if parameters is not None:
        raise ConfigurationError(
            f"renderer={name_of(given)} ({line_of(given)}) is called with the request and the refusal, and its parameters are "
            f"{parameters}: give it two, for these"
        )
