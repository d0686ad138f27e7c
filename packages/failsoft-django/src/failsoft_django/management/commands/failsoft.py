"""``manage.py failsoft``: the commands of ``failsoft``, for this project's own settings."""

import sys
from argparse import Namespace
from typing import Any

from django.core.management.base import BaseCommand, CommandParser
from django.core.wsgi import get_wsgi_application

from failsoft.cli import add_commands, run

__all__ = ["Command"]


class Command(BaseCommand):
    """The command. Its exit status is 1 for findings, and 2 for a mistake in the call."""

    help = "Say what applies where, what applies to one request, look at its counters, and at the stores."

    def add_arguments(self, parser: CommandParser) -> None:
        """The commands, each with its own arguments."""
        commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")
        add_commands(commands, app=False)

    def handle(self, *args: Any, **options: Any) -> None:
        """Run it."""
        status = run(Namespace(**options), app=get_wsgi_application(), out=self.stdout)
        if status:
            sys.exit(status)
