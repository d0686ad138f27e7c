"""``flask failsoft``: the commands of ``failsoft``, for Flask's own application."""

import sys
from typing import Any

import click
from flask import current_app
from flask.cli import with_appcontext

from failsoft.cli import main

__all__ = ["command"]


@click.command(
    "failsoft",
    help="Say what applies where: see flask failsoft --help.",
    add_help_option=False,
    context_settings={"ignore_unknown_options": True},
)
@click.argument("arguments", nargs=-1, type=click.UNPROCESSED)
@with_appcontext
def command(arguments: tuple[str, ...]) -> None:
    """Run one of the commands."""
    app: Any = current_app
    sys.exit(main(arguments, app=app._get_current_object(), program="flask failsoft"))
