"""A site whose views do with their session what the path says, to be built in every framework."""

import json
from collections.abc import Sequence
from typing import Any, Final

from failsoft.clock import SYSTEM, Clock
from failsoft.stores import Store
from failsoft.testing.contract.session_site import SESSIONS
from failsoft.testing.harness import Harness
from failsoft.testing.site import Answer, Call, Site, View
from tests.django.harness import AsgiHarness, WsgiHarness
from tests.fastapi.harness import FastAPIHarness
from tests.flask.harness import FlaskHarness
from tests.starlette.harness import StarletteHarness

__all__ = ["HARNESSES", "VIEWS", "renew", "site"]

HARNESSES: Final[Sequence[type[Harness]]] = [FlaskHarness, WsgiHarness, AsgiHarness, StarletteHarness, FastAPIHarness]


def renew(session: Any) -> None:
    """Give it another id, by the framework's name for that."""
    (session.rotate if hasattr(session, "rotate") else session.cycle_key)()


def _mine(call: Call) -> Answer:
    session = call.session()
    principal = session.principal
    found = {key: session.get(key) for key in ("owner", "n")}
    found["user"] = None if principal is None else principal.subject
    return Answer(body=json.dumps(found).encode(), content_type="application/json")


def _write(call: Call) -> Answer:
    call.session()["n"] = int(call.params["n"])
    return Answer()


def _login(call: Call) -> Answer:
    call.session().login(call.params["who"])
    call.session()["owner"] = call.params["who"]
    return Answer()


def _rotate(call: Call) -> Answer:
    renew(call.session())
    return Answer()


def _logout(call: Call) -> Answer:
    call.session().logout()
    return Answer()


VIEWS: Final = (
    View(path="/mine", handle=_mine),
    View(path="/write/{n}", handle=_write),
    View(path="/login/{who}", handle=_login),
    View(path="/rotate", handle=_rotate),
    View(path="/logout", handle=_logout),
)
"""``/mine`` says in JSON who the user is, whom the session was made for, and the last number that was written."""


def site(*views: View, own: Store | None = None, clock: Clock = SYSTEM, **settings: Any) -> Site:
    """That site, with further views.

    Args:
        views: besides `VIEWS`.
        own: the store, instead of the one that the settings name.
        clock: of the application.
        settings: besides those of the contract's.
    """
    return Site(views=[*VIEWS, *views], settings={**SESSIONS, **settings}, store=own, clock=clock)
