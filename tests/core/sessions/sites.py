"""A browser and an application of no framework, for tests of sessions."""

from collections.abc import Mapping
from typing import Any

from failsoft.clock import Clock
from failsoft.errors import Rejected
from failsoft.events import Event
from failsoft.exchange import Exchange
from failsoft.exchange.policy import enter, leave
from failsoft.runtime import Runtime
from failsoft.sessions.session import Session
from failsoft.sessions.view import SessionView
from failsoft.settings import Settings
from failsoft.stores import Store
from failsoft.testing import FaultyStore, ManualClock
from tests.core.requests import FakeFacts

__all__ = ["SECRET", "Browser", "Request", "Site", "flights", "make_site"]

SECRET = "a secret for tests, of forty characters."


def make_site(own: Store | None = None, clock: Clock | None = None, **settings: Any) -> Runtime:
    """An application with sessions; its store is a `FaultyStore` by default."""
    clock = clock or ManualClock()
    given = {"sessions": True, "secret": SECRET, "limits": [], "session_touch": 0, **settings}
    if own is None and "store" not in settings:
        own = FaultyStore(clock=clock)
    return Runtime(Settings.load(given, environ={}), store=own, clock=clock, random=lambda: 0.0)


class Browser:
    """Whoever keeps cookies; their ends are not heeded, for the server has to.

    Args:
        site: the application.
        agent: the User-Agent.
    """

    def __init__(self, site: Runtime, agent: str = "test/1.0") -> None:
        self.site = site
        self.agent = agent
        self.jar: dict[str, str] = {}

    def take(self, fields: list[tuple[str, str]]) -> None:
        """Keep and drop cookies as a response says."""
        for name, value in fields:
            if name == "Set-Cookie":
                cookie, _, attributes = value.partition("; ")
                key, _, text = cookie.partition("=")
                if "Max-Age=0;" in attributes:
                    self.jar.pop(key, None)
                else:
                    self.jar[key] = text

    @property
    def cookie(self) -> str | None:
        """The session's."""
        return self.jar.get("__Host-session")

    def headers(self) -> Mapping[str, str | list[str]]:
        """What it sends."""
        lines: dict[str, str | list[str]] = {"user-agent": self.agent}
        if self.jar:
            lines["cookie"] = "; ".join(f"{name}={value}" for name, value in self.jar.items())
        return lines

    def request(self, endpoint: Any = None, **options: Any) -> "Request":
        """Begin a request, and admit it."""
        return Request(self, endpoint, **options)


class Request:
    """A request under way. Use it as a context manager, or call `finish`.

    Attributes:
        rejected: the refusal before the view, or None.
        status: of the response, once there is one.
        fields: its header fields.
    """

    def __init__(self, browser: Browser, endpoint: Any = None, *, eager: bool = False, open_: bool = True) -> None:
        self.browser = browser
        self.site = browser.site
        self.facts = FakeFacts(endpoint, headers=browser.headers())
        self.exchange: Exchange = self.site.begin(self.facts)
        self.status, self.fields = 0, list[tuple[str, str]]()
        assert self.site.sessions is not None
        if open_:
            self.session: Session = self.site.sessions.open(self.facts.header("cookie"), self.exchange, eager=eager)
        token = enter(self.exchange)
        try:
            self.rejected: Rejected | None = self.site.admit(self.exchange)
        finally:
            leave(token)
        if not open_:
            self.session = self.site.sessions.open(self.facts.header("cookie"), self.exchange)
        self.view = SessionView(self.session, "web")

    def finish(self, status: int = 200) -> int:
        """Answer: the status that the browser gets, which keeps the cookies."""
        status = status if self.rejected is None else self.rejected.status
        self.fields = self.site.finish(self.exchange, status)
        unsaved = self.exchange.unsaved
        self.status = status if unsaved is None else unsaved.status
        if unsaved is None and self.exchange.accepted and status in (200, 204):
            self.status = 202
        self.browser.take(self.fields)
        self.exchange.end()
        return self.status

    @property
    def cookies(self) -> list[str]:
        """The Set-Cookie fields."""
        return [value for name, value in self.fields if name == "Set-Cookie"]

    def __enter__(self) -> SessionView:
        return self.view

    def __exit__(self, kind: Any, error: BaseException | None, trace: Any) -> None:
        if error is None:
            self.finish()


class Site:
    """An application, its clock and its store, and what it tells."""

    def __init__(self, **settings: Any) -> None:
        self.clock = ManualClock()
        self.store = FaultyStore(clock=self.clock)
        self.events: list[Event] = []
        self.open(**settings)

    def open(self, **settings: Any) -> None:
        """Go on with other settings."""
        self.runtime: Runtime = make_site(self.store, self.clock, **settings)
        self.runtime.listen(self.events.append)
        assert self.runtime.sessions is not None
        self.sessions = self.runtime.sessions

    def browser(self, subject: str | None = None, /, **values: Any) -> Browser:
        """One with a session, if it is to have any."""
        browser = Browser(self.runtime)
        if subject is not None or values:
            with browser.request() as view:
                if subject is not None:
                    view.login(subject)
                view.update(values)
        self.events.clear()
        self.store.flights.clear()
        return browser

    def stored(self, browser: Browser) -> dict[str, bytes]:
        """What the store has of a browser's session."""
        record = self.sessions.subjects.look((browser.cookie or "")[:16])
        return {} if record is None else record.fields


def flights(site: Site) -> list[tuple[str, ...]]:
    """What was asked of the store, as names without what they have in common."""
    found = [tuple(name.removeprefix("sessions.") for name in flight) for flight in site.store.flights]
    site.store.flights.clear()
    return found
