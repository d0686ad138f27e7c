"""The contract of sessions: read, written, merged, renewed and ended alike in every framework. `session_outage` is the rest of it."""

import json
import threading
from collections.abc import Iterator

import pytest

from failsoft.ratelimit import limit
from failsoft.testing.contract.base import Build, each_shape
from failsoft.testing.contract.session_site import SESSIONS, VIEWS, Browser, SessionSite, awaited, found_in, who
from failsoft.testing.faults import FaultyStore
from failsoft.testing.harness import App, Reply
from failsoft.testing.site import Answer, Call, Shape, View

__all__ = ["SessionContract"]

_PATIENCE = 10.0
"""Seconds until a request that waits for another is given up."""

_FLIGHT = ("ratelimit.acquire", "sessions.load")


class _Slow:
    """A view that waits, with its session loaded, until it is let go; then it writes a key, or nothing."""

    def __init__(self) -> None:
        self.entered, self.go = threading.Event(), threading.Event()
        self.view = View(path="/slow/{key}", handle=self._handle)
        self._thread: threading.Thread | None = None
        self.reply: Reply | None = None

    def _handle(self, call: Call) -> Answer:
        session = call.session()
        found = found_in(session)
        self.entered.set()
        assert self.go.wait(_PATIENCE)
        if call.params["key"] != "none":
            session[call.params["key"]] = "slow"
        return Answer(body=json.dumps(found).encode())

    def start(self, browser: Browser, key: str) -> None:
        """Begin the request."""

        def ask() -> None:
            self.reply = browser.get(f"/slow/{key}")

        self._thread = threading.Thread(target=ask)
        self._thread.start()
        assert self.entered.wait(_PATIENCE)

    def end(self) -> Reply:
        """Let it go, and wait for the response."""
        self.go.set()
        assert self._thread is not None
        self._thread.join(_PATIENCE)
        assert self.reply is not None
        return self.reply


class SessionContract(SessionSite):
    """Sessions: what views do with them, and what browsers are told."""

    @pytest.fixture
    def slow(self) -> Iterator[_Slow]:
        """A slow view, which is let go when the test ends."""
        slow = _Slow()
        yield slow
        slow.go.set()

    @each_shape
    def test_session_round_trip(self, build: Build, shape: Shape) -> None:
        """What one request puts into the session, the next one finds, changes and deletes, in views of every shape."""

        views = []
        for view in VIEWS[:4]:
            handle = awaited(view.handle) if shape == "async" else view.handle
            views.append(View(path=view.path, handle=handle, shape=shape))
        browser = Browser(build(*views, **SESSIONS))
        assert {} == browser.read()
        assert {} == browser.jar
        assert [200, 200] == [browser.get(path).status for path in ("/write/a/1", "/write/b/2")]
        assert {"a": "1", "b": "2"} == browser.read()
        assert 200 == browser.get("/write/a/2").status
        assert {"a": "2", "b": "2"} == browser.read()
        assert 200 == browser.get("/delete").status
        assert {"b": "2"} == browser.read()
        assert {} == Browser(browser.app).read()

    def test_session_cookie(self, site: App) -> None:
        """The cookie is hidden from scripts; responses that set or depend on it are nobody else's."""
        browser = Browser(site)
        reply = browser.get("/write/a/1")
        cookies = [line for line in reply.lines("Set-Cookie") if line.startswith("sessionid=")]
        assert 1 == len(cookies)
        attributes = cookies[0].split("; ")
        assert {"HttpOnly", "SameSite=Lax", "Path=/"} <= set(attributes)
        assert "private" in (reply.header("Cache-Control") or "")
        assert "Cookie" in (reply.header("Vary") or "")
        reply = browser.get("/read")
        assert ([], None) == (reply.lines("Set-Cookie"), reply.header("Cache-Control"))
        assert "Cookie" in (reply.header("Vary") or "")
        assert None is browser.get("/untouched").header("Vary")

    def test_session_and_cookies_of_the_view(self, site: App) -> None:
        """The view's own cookies are sent beside the session's."""
        lines = Browser(site).get("/write/a/1").lines("Set-Cookie")
        assert ["own", "sessionid", "sessionid-seal"] == sorted(line.partition("=")[0] for line in lines)

    def test_session_changed_inside(self, site: App) -> None:
        """A change inside of a value is noticed."""
        browser = Browser(site)
        assert [200, 200, 200] == [browser.get("/append").status for _ in range(3)]
        assert {"list": [0, 1, 2]} == browser.read()

    def test_session_merges(self, build: Build) -> None:
        """What several requests write to different keys at the same time is all there."""
        slow = {key: _Slow() for key in ("a", "b")}
        views = [View(path=f"/{key}/{{key}}", handle=one.view.handle) for key, one in slow.items()]
        app = build(*VIEWS, *views, **SESSIONS)
        browser = Browser(app)
        browser.get("/append")
        replies: dict[str, Reply] = {}

        def ask(key: str) -> None:
            replies[key] = browser.copy().get(f"/{key}/{key}")

        threads = [threading.Thread(target=ask, args=(key,)) for key in slow]
        for thread in threads:
            thread.start()
        assert [True, True] == [one.entered.wait(_PATIENCE) for one in slow.values()]
        browser.get("/append")
        for one in slow.values():
            one.go.set()
        for thread in threads:
            thread.join(_PATIENCE)
        assert {"a": 200, "b": 200} == {key: reply.status for key, reply in sorted(replies.items())}
        assert {"a": "slow", "b": "slow", "list": [0, 1]} == browser.read()

    def test_session_login_rotates(self, site: App) -> None:
        """A login gives the session another id, under which it goes on; the former one opens nothing."""
        browser = Browser(site)
        browser.get("/write/a/1")
        before = browser.copy()
        assert 200 == browser.get("/login/alice").status
        assert before.cookie != browser.cookie
        assert ({"a": "1"}, b"alice") == (browser.read(), browser.get("/who").body)
        assert ({}, b"nobody") == (before.read(), before.get("/who").body)
        assert 409 == before.get("/write/a/2").status
        assert {"a": "1"} == browser.read()

    @pytest.mark.parametrize("wish", [False, True], ids=["until closed", "kept"])
    def test_session_kept_by_the_browser(self, build: Build, wish: bool) -> None:
        """Whether the browser keeps the cookie when it is closed is said once, and holds for the next id, whoever writes it."""

        def keep(call: Call) -> Answer:
            call.session().session.keep(wish)
            return Answer()

        browser = Browser(build(*VIEWS, View(path="/keep", handle=keep), **{**SESSIONS, "session_encrypt": True}))
        browser.get("/write/a/1")
        for path in ("/keep", "/login/alice"):
            cookies = browser.get(path).lines("Set-Cookie")
            assert [wish] * 2 == ["Max-Age" in line for line in cookies]

    def test_session_logout(self, site: App) -> None:
        """A logout deletes the cookies and ends the session for whoever has a copy of them."""
        browser = Browser(site)
        browser.get("/login/alice")
        copy = browser.copy()
        reply = browser.get("/logout")
        assert (200, b"bye", {}) == (reply.status, reply.body, browser.jar)
        assert (b"nobody", b"nobody") == (browser.get("/who").body, copy.get("/who").body)

    @pytest.mark.parametrize("key", ["none", "a"], ids=["reader", "writer"])
    def test_session_logout_during_a_slow_request(self, build: Build, slow: _Slow, key: str) -> None:
        """Who logs out during a slow request stays out; what that request writes is refused."""
        browser = Browser(build(*VIEWS, slow.view, **SESSIONS))
        browser.get("/write/b/1")
        browser.get("/login/alice")
        other = browser.copy()
        slow.start(other, key)
        browser.get("/logout")
        reply = slow.end()
        assert (200 if key == "none" else 409) == reply.status
        assert [] == reply.lines("Set-Cookie")
        assert [({}, b"nobody")] * 2 == [(one.read(), one.get("/who").body) for one in (browser, other)]

    def test_session_unknown(self, site: App) -> None:
        """An id that nobody was given opens nothing, is not deleted, and is never adopted."""
        planted = "x" * 59
        browser = Browser(site, {"sessionid": planted})
        assert {} == browser.read()
        assert planted == browser.cookie
        browser.get("/write/a/1")
        assert browser.cookie not in (None, planted)
        assert {} == Browser(site, {"sessionid": planted}).read()

    @pytest.mark.parametrize(
        "cookie",
        [
            "sessionid=",
            "sessionid",
            "=; ;;=;",
            'sessionid="',
            "sessionid=" + "x" * 59 + "; sessionid=" + "y" * 59,
            "sessionid=%00%ff\xff; sessionid-seal=\xe9",
            "sessionid=" + "a" * 5000 + "; sessionid-seal=" + "b" * 5000,
            "sessionid=" + "x" * 59 + "; sessionid-seal=AA; sessionid-logout=AA",
            "a=b; " * 2000,
        ],
        ids=["empty", "bare", "signs", "quote", "two", "octets", "long", "forged", "many"],
    )
    def test_session_malformed(self, site: App, cookie: str) -> None:
        """No cookie does any harm, however malformed or large."""
        reply = site.get("/read", ("Cookie", cookie))
        assert (200, {}) == (reply.status, reply.json())
        reply = site.get("/write/a/1", ("Cookie", cookie))
        assert (200, b"written") == (reply.status, reply.body)

    def test_session_revoked(self, site: App) -> None:
        """Who is revoked is out with the next request, and is listed no more."""
        assert site.runtime.sessions is not None
        subjects = site.runtime.sessions.subjects
        browser, other = Browser(site), Browser(site)
        browser.get("/login/alice")
        other.get("/login/bob")
        assert ["contract"] == [one.device for one in subjects.list("alice")]
        assert (1, 1) == (subjects.count("bob"), subjects.revoke_all("alice"))
        assert (b"nobody", b"bob") == (browser.get("/who").body, other.get("/who").body)
        assert [] == list(subjects.list("alice"))

    # Round trips

    def test_session_flights(self, build: Build, store: FaultyStore) -> None:
        """With three limits, a request whose session is untouched or read makes one flight, one that writes makes two."""
        three = {"limits": ["100/minute", "1000/hour", "9000/day"]}
        browser = Browser(build(*VIEWS, **{**SESSIONS, **three}))
        browser.get("/write/a/1")
        made = {}
        for path in ("/untouched", "/read", "/write/a/2"):
            store.flights.clear()
            browser.get(path)
            made[path] = list(store.flights)
        assert [_FLIGHT] == made["/untouched"]
        assert [_FLIGHT] == made["/read"]
        assert [_FLIGHT, ("sessions.write",)] == made["/write/a/2"]
        store.flights.clear()
        Browser(browser.app).read()
        assert [("ratelimit.acquire",)] == list(store.flights)

    def test_session_flights_without_limits(self, site: App, store: FaultyStore) -> None:
        """Without limits a reader makes one flight, a writer two, and who has no cookie none."""
        browser = Browser(site)
        browser.get("/write/a/1")
        store.flights.clear()
        browser.read()
        assert [("sessions.load",)] == list(store.flights)
        store.flights.clear()
        browser.get("/write/a/2")
        assert [("sessions.load",), ("sessions.write",)] == list(store.flights)
        store.flights.clear()
        assert ({}, 200) == (Browser(site).read(), Browser(site).get("/untouched").status)
        assert [] == list(store.flights)

    # Limits by user

    def test_session_of_limited_requests(self, build: Build, store: FaultyStore) -> None:
        """A refused request changes nothing of the session; limits by user know the user by the seal, in the same flight."""
        view = View(path="/mine", handle=who, decorators=[limit("2/minute", by="user", name="mine")])
        app = build(*VIEWS, view, **SESSIONS)
        first, second = Browser(app), Browser(app)
        for browser in (first, second):
            browser.get("/login/alice")
        store.flights.clear()
        assert [200, 200, 429] == [one.get("/mine").status for one in (first, second, first)]
        assert [("ratelimit.acquire", "sessions.load", "sessions.check")] * 3 == list(store.flights)
        assert b"alice" == first.get("/who").body

    @pytest.mark.parametrize("declared", [True, False], ids=["view", "settings"])
    def test_session_without_the_seal(self, build: Build, declared: bool) -> None:
        """Whoever leaves the seal out is the same user for limits by user, from whichever address, and is not counted as nobody."""
        if declared:
            view = View(path="/mine", handle=who, decorators=[limit("2/minute", by="user", name="mine")])
            app = build(*VIEWS, view, **SESSIONS)
        else:
            view = View(path="/mine", handle=who)
            app = build(*VIEWS, view, **{**SESSIONS, "limits": ["2/minute"], "by": "user"})
        browser = Browser(app)
        browser.get("/login/alice")
        sealed = dict(browser.jar)
        bare = {"sessionid": sealed["sessionid"]}
        replies = [
            app.get(
                "/mine", ("Cookie", "; ".join(f"{name}={value}" for name, value in jar.items())), peer=f"198.51.100.{n}"
            )
            for n, jar in enumerate((bare, sealed, bare, bare, sealed))
        ]
        assert [200, 200, 429, 429, 429] == [reply.status for reply in replies]
        assert b"alice" == replies[0].body
