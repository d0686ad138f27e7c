"""``manage.py failsoft_limits``: every route with the limits that apply to it, as ``failsoft limits`` lists them."""

import sys
from typing import Any

from django.core.management.base import BaseCommand, CommandParser

from failsoft.cli import main

__all__ = ["Command"]


class Command(BaseCommand):
    """The command. Its exit status is 1 where a declared limit is reached by no route."""

    help = "List every route with the limits that apply to it."

    def add_arguments(self, parser: CommandParser) -> None:
        """Whether to show each route."""
        parser.add_argument("--all", action="store_true", help="show each route, also where many say the same")

    def handle(self, *args: Any, **options: Any) -> None:
        """Run it."""
        more = ["--all"] if options["all"] else []
        status = main(["limits", "django.core.wsgi:get_wsgi_application", *more])
        if status:
            sys.exit(status)
