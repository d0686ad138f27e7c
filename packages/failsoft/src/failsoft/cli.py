"""The command line: ``failsoft limits module:app``."""

import argparse
import importlib
import os
import sys
from collections.abc import Sequence
from typing import Any

from failsoft import __version__
from failsoft.errors import FailsoftError
from failsoft.inspection import Description, describe, limits_of

__all__ = ["main"]


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line. Returns the exit status: 0, 1 for findings, 2 for a mistake in the call.

    Args:
        arguments: the words after the program's name, by default this process's.
    """
    parser = argparse.ArgumentParser(prog="failsoft", description="Resilience middleware for Python web applications.")
    parser.add_argument("--version", action="version", version=f"failsoft {__version__}")
    commands = parser.add_subparsers(dest="command", required=True)
    limits = commands.add_parser(
        "limits",
        help="list every route's effective limits",
        description="List every route of an application with the limits that apply to it. Exit status 1 where a declared limit is "
        "reached by no route.",
    )
    limits.add_argument(
        "app", help="module:attribute of the application; a factory is called; for Django, its wsgi or asgi module"
    )
    options = parser.parse_args(arguments)
    try:
        return _limits(describe(_load(options.app)))
    except FailsoftError as error:
        print(f"failsoft: {error}", file=sys.stderr)
        return 2


def _load(name: str) -> Any:
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
    # A factory: a plain function, which no framework's application is.
    return found() if type(found).__name__ == "function" else found


def _limits(description: Description) -> int:
    runtime = description.runtime
    print(f"{description.framework} on {runtime.store.url}")
    for route in description.routes:
        print(f"\n{route.method:7} {route.template}")
        limits = limits_of(runtime, route)
        for limit in limits:
            note = f", {limit.note}" if limit.note else ""
            print(f"        {limit.quota} by {limit.by}, from {limit.source}, on outage {limit.on_outage}{note}")
        if not limits:
            print("        no limit")
    lost = description.unattached()
    for declaration in lost:
        print(
            f"\n{declaration.where}: {', '.join(map(repr, declaration.policies))} is reached by no route; it is enforced only when "
            "the function is called"
        )
    return 1 if lost else 0
