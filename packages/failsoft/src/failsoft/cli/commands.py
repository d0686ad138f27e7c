"""The commands: their arguments, and what each of them does.

They run by themselves (``failsoft explain module:app GET /``) and within a framework's own command line (``manage.py failsoft explain
GET /``), where the application is known.
"""

import argparse
import re
import sys
from collections.abc import Callable
from typing import Any

from failsoft.cli.application import load
from failsoft.cli.limits import limits
from failsoft.cli.report import Out, Report, harmless, write
from failsoft.cli.sessions import sessions
from failsoft.cli.store import ACTIONS, store
from failsoft.cli.subject import explained, peeked, refunded, was_reset
from failsoft.errors import ConfigurationError, FailsoftError
from failsoft.inspection import Trial, describe
from failsoft.settings import Settings

__all__ = ["add_commands", "run"]

_APP = "module:attribute of the application; a factory is called; for Django, its wsgi or asgi module"
_COUNT = (100, 10_000)
_SAMPLE = (10_000, 1_000_000)
_UNITS = 10**12
_ADDRESS = re.compile(r"(?:[^@]*@)?[^:@]+:[0-9]+(?:/[0-9]*)?")
"""Host and port of a server; no attribute is a number."""


def add_commands(commands: Any, *, app: bool) -> None:
    """Add the commands to an argument parser's subparsers.

    Args:
        commands: what ``add_subparsers`` returned.
        app: whether to ask for the application as their first argument.
    """
    about: list[tuple[str, str, Callable[[Any], None]]] = [
        ("limits", "list every route with the limits that apply to it", _every),
        ("explain", "say which limits would apply to a request, whom they count, and what is left", _explain),
        ("peek", "say what is left of each limit of a request", _one_of_them),
        ("reset", "forget what each limit of a request has counted", _reset),
        ("refund", "give back units to each limit of a request", _refund),
    ]
    for name, help_, add in about:
        parser = commands.add_parser(name, help=help_, description=help_[0].upper() + help_[1:] + ".")
        if app:
            parser.add_argument("app", help=_APP)
        if name != "limits":
            _request(parser)
        add(parser)
        _json(parser)
    _sessions(commands, app=app)
    help_ = "look at a store: is it there, how fast is it, what does it say of itself, what of ours is in it"
    parser = commands.add_parser("store", help=help_, description=help_[0].upper() + help_[1:] + ".")
    if app:
        parser.add_argument(
            "target", help="the URL of a store, or module:attribute of an application, for all of its stores"
        )
    parser.add_argument("action", nargs="?", choices=ACTIONS, default="ping", help="default: ping")
    parser.add_argument("--name", help="which of the application's stores; default: all")
    if app:
        parser.add_argument("--prefix", help="what keys begin with, for a URL; default: that of the settings")
    parser.add_argument(
        "--count",
        type=_whole(*_COUNT),
        default=_COUNT[0],
        help=f"flights for latency, to {_COUNT[1]}; default: {_COUNT[0]}",
    )
    parser.add_argument(
        "--sample",
        type=_whole(*_SAMPLE),
        default=_SAMPLE[0],
        help=f"keys to look at for info and keys, to {_SAMPLE[1]}; default: {_SAMPLE[0]}",
    )
    _json(parser)


def run(options: argparse.Namespace, *, app: Any = None, out: Out | None = None) -> int:
    """Run the command that was parsed. Returns the exit status.

    Args:
        options: what came of parsing, with ``command`` for the command's name.
        app: the application, where the command line does not name it.
        out: where to print, by default standard output.
    """
    try:
        report = _report(options, app)
        return write(report, out or sys.stdout, as_json=options.json)
    except FailsoftError as error:
        print(f"failsoft: {error}", file=sys.stderr)
        return 2


def _report(options: argparse.Namespace, app: Any) -> Report:
    if options.command == "store":
        settings = _settings(options) if app is None else describe(app).runtime.settings
        return store(settings, options.action, name=options.name, count=options.count, sample=options.sample)
    description = describe(load(options.app) if app is None else app)
    if options.command == "sessions":
        subject, handle = getattr(options, "subject", None), getattr(options, "handle", None)
        everything = getattr(options, "all", False)
        return sessions(description.runtime, options.action, subject=subject, handle=handle, everything=everything)
    if options.command == "limits":
        return limits(description, every=options.all)
    trial = Trial(
        method=options.method,
        target=options.path,
        address=options.address,
        user=options.user,
        headers=tuple(map(_header, options.header)),
        body=options.data.encode(),
    )
    late = options.late
    if options.command == "explain":
        return explained(description, trial, late=late, ask=not options.no_store)
    if options.command == "peek":
        return peeked(description, trial, late=late, name=options.limit)
    if options.command == "refund":
        return refunded(description, trial, late=late, name=options.limit, units=options.units)
    return was_reset(description, trial, late=late, name=options.limit, confirm=_confirm(options.yes))


def _settings(options: argparse.Namespace) -> Settings:
    if "://" not in options.target:
        if options.prefix is not None:
            raise FailsoftError("--prefix goes with the URL of a store; an application has its own")
        if _ADDRESS.fullmatch(options.target):
            raise FailsoftError("the URL of a store begins with its scheme: write redis:// before the host")
        return describe(load(options.target)).runtime.settings
    given = {"store": options.target} if options.prefix is None else {"store": options.target, "prefix": options.prefix}
    return Settings.load(given, environ={}, source="the command line")


def _confirm(yes: bool) -> Callable[[str], bool]:
    def confirm(question: str) -> bool:
        if yes:
            return True
        if not sys.stdin.isatty():
            raise FailsoftError("nobody is there to confirm this: say --yes")
        print(*map(harmless, question.split("\n")), sep="\n", end=" [y/N] ", file=sys.stderr, flush=True)
        return sys.stdin.readline().strip().lower() in ("y", "yes")

    return confirm


def _request(parser: Any) -> None:
    parser.add_argument("method", metavar="METHOD", help="the HTTP method")
    parser.add_argument("path", metavar="PATH", help="path and query, as a client writes them")
    parser.add_argument("--address", help="the peer's address; behind trusted proxies that of the nearest one")
    parser.add_argument("--user", help="who is asking, as the framework identifies users")
    parser.add_argument(
        "--header", action="append", default=[], metavar="'NAME: VALUE'", help="may be given several times"
    )
    parser.add_argument(
        "--data", metavar="BODY", default="", help="the body, for functions of the request that look at it"
    )
    parser.add_argument("--late", metavar="VALUE", help="what late(...) identities would be")


def _sessions(commands: Any, *, app: bool) -> None:
    help_ = "list, count, show and revoke the sessions of a user"
    parser = commands.add_parser("sessions", help=help_, description=help_[0].upper() + help_[1:] + ".")
    if app:
        parser.add_argument("app", help=_APP)
    actions = parser.add_subparsers(dest="action", required=True, metavar="ACTION")
    for name, help_, arguments in (
        ("list", "a user's sessions: since when, when last seen, with which browser", ("subject",)),
        ("count", "how many there are", ("subject",)),
        ("show", "one session: who, since when, and the names, types and sizes of its values", ("handle",)),
        ("revoke", "end one session of a user, or all", ("subject",)),
    ):
        action = actions.add_parser(name, help=help_, description=help_[0].upper() + help_[1:] + ".")
        for argument in arguments:
            said = "the user's identifier, as it was logged in" if argument == "subject" else "as it is listed"
            action.add_argument(argument, metavar=argument.upper(), help=said)
        if name == "revoke":
            action.add_argument("handle", metavar="HANDLE", nargs="?", help="as it is listed")
            action.add_argument("--all", action="store_true", help="all of the user's, those too that are not listed")
        _json(action)


def _every(parser: Any) -> None:
    parser.add_argument(
        "--all",
        action="store_true",
        help="show each route, also where many of one part of the application say the same",
    )


def _explain(parser: Any) -> None:
    parser.add_argument("--no-store", action="store_true", help="do not ask the store what is left")


def _one_of_them(parser: Any) -> None:
    parser.add_argument("--limit", metavar="NAME", help="only limits of this name, or from this source; default: all")


def _reset(parser: Any) -> None:
    _one_of_them(parser)
    parser.add_argument("--yes", action="store_true", help="do not ask")


def _refund(parser: Any) -> None:
    _one_of_them(parser)
    parser.add_argument("--units", type=_whole(1, _UNITS), default=1, help="units to give back to each; default: 1")


def _json(parser: Any) -> None:
    parser.add_argument("--json", action="store_true", help="print one JSON document")


def _whole(default: int, most: int) -> Callable[[str], int]:
    def whole_number(text: str) -> int:
        number = int(text) if text.isascii() and text.isdigit() and len(text) <= 13 else 0
        if not 1 <= number <= most:
            raise argparse.ArgumentTypeError(f"{text!r} is no whole number from 1 to {most}")
        return number

    return whole_number


def _header(text: str) -> tuple[str, str]:
    name, colon, value = text.partition(":")
    if not colon or not name.strip():
        raise ConfigurationError(f"{text!r} is no header field; write 'Name: value'")
    return name.strip(), value.strip()
