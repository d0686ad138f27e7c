"""Which application a command is about."""

import importlib
import inspect
import os
import sys
from contextlib import suppress
from typing import Any

from failsoft.errors import FailsoftError, OutsideRequest

__all__ = ["load"]


def load(name: str) -> Any:
    """The application that ``module:attribute`` names; the attribute is ``app`` if it is left out, and a factory is called.

    Raises:
        FailsoftError: there is none of that name.
    """
    module_name, _, attribute = name.partition(":")
    sys.path.insert(0, os.getcwd())
    if not module_name or module_name.startswith("."):
        raise FailsoftError(f"{name!r} names no module; name the application as module:attribute")
    try:
        found: Any = importlib.import_module(module_name)
    except ModuleNotFoundError as error:
        if error.name is None or not f"{module_name}.".startswith(f"{error.name}."):
            raise
        raise FailsoftError(
            f"there is no module {module_name!r} here; name the application as module:attribute"
        ) from None
    for part in (attribute or "app").split("."):
        if not hasattr(found, part):
            raise FailsoftError(f"{module_name} has no attribute {part!r}; name the application as module:attribute")
        found = getattr(found, part)
    if type(found).__name__ != "function":  # a plain function is a factory: no framework's application is one
        return found
    try:
        # What a decorator wraps may need more than the decorated function, see `functools.wraps`.
        inspect.signature(found, follow_wrapped=False).bind()
    except TypeError as error:
        raise FailsoftError(f"{name} is called without arguments to make the application: {error}") from None
    with suppress(OutsideRequest):
        if not inspect.iscoroutinefunction(found):
            return found()
    raise FailsoftError(
        f"{name} is a function that needs a request, as a view does; name the application as module:attribute, or a "
        "function that makes it"
    )
