"""What all tests of sessions share: a site whose views do one thing each with the session, and whoever visits it."""

import json
from collections.abc import Mapping
from typing import Any, Final

import pytest

from failsoft.sessions.live import require_live_session
from failsoft.testing.contract.base import Build, ContractBase
from failsoft.testing.harness import App, Reply
from failsoft.testing.site import Answer, Call, Handle, View

__all__ = ["SESSIONS", "VIEWS", "Browser", "SessionSite", "awaited", "found_in", "who"]

SESSIONS: Final[Mapping[str, Any]] = {
    "sessions": True,
    "secret": "a secret for tests, of forty characters.",
    "cookie_secure": False,
    "session_cookie": "sessionid",  # as Django names it, which lets nobody else do so
    "limits": [],
}
"""Settings of every site here."""


class Browser:
    """Whoever keeps cookies.

    Attributes:
        jar: the cookies.
    """

    def __init__(self, app: App, jar: Mapping[str, str] | None = None) -> None:
        self.app = app
        self.jar = dict(jar or {})

    def get(self, path: str) -> Reply:
        """GET `path`, and keep the cookies of the response."""
        cookies = "; ".join(f"{name}={value}" for name, value in self.jar.items())
        reply = self.app.get(path, ("User-Agent", "contract"), *([("Cookie", cookies)] if cookies else []))
        for line in reply.lines("Set-Cookie"):
            cookie, *attributes = line.split("; ")
            name, _, value = cookie.partition("=")
            if any(one.lower() == "max-age=0" for one in attributes):
                self.jar.pop(name, None)
            else:
                self.jar[name] = value
        return reply

    def read(self) -> Any:
        """What the view ``/read`` finds."""
        return self.get("/read").json()

    @property
    def cookie(self) -> str | None:
        """The session's."""
        return self.jar.get("sessionid")

    def copy(self) -> "Browser":
        """Another one with the same cookies."""
        return Browser(self.app, self.jar)


def found_in(session: Any) -> dict[str, Any]:
    """What the view ``/read`` says of `session`."""
    return {key: session[key] for key in ("a", "b", "list") if key in session}


def _read(call: Call) -> Answer:
    return Answer(body=json.dumps(found_in(call.session())).encode(), content_type="application/json")


def _write(call: Call) -> Answer:
    call.session()[call.params["key"]] = call.params["value"]
    return Answer(body=b"written", cookies=[("own", "1")])


def _append(call: Call) -> Answer:
    call.session().setdefault("list", []).append(len(call.session()["list"]))
    return Answer()


def _delete(call: Call) -> Answer:
    del call.session()["a"]
    return Answer()


def _login(call: Call) -> Answer:
    call.session().login(call.params["who"])
    return Answer()


def _logout(call: Call) -> Answer:
    call.session().logout()
    return Answer(body=b"bye")


def who(call: Call) -> Answer:
    """What the view ``/who`` does: say who is logged in."""
    principal = call.session().principal
    return Answer(body=b"nobody" if principal is None else principal.subject.encode())


def awaited(handle: Handle) -> Handle:
    """`handle`, for a view of the shape ``async``."""

    async def awaited(call: Call) -> Any:
        return handle(call)

    return awaited


VIEWS = (
    View(path="/read", handle=_read),
    View(path="/write/{key}/{value}", handle=_write),
    View(path="/append", handle=_append),
    View(path="/delete", handle=_delete),
    View(path="/login/{who}", handle=_login),
    View(path="/logout", handle=_logout),
    View(path="/who", handle=who),
    View(path="/untouched"),
    View(path="/live", handle=who, decorators=[require_live_session]),
)


class SessionSite(ContractBase):
    """The fixture of them."""

    @pytest.fixture
    def site(self, build: Build) -> App:
        """An application with sessions."""
        return build(*VIEWS, **SESSIONS)
