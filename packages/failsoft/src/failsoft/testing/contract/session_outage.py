"""The contract of sessions while their store is away: nobody is logged out, nothing is made up, what was not stored is not acknowledged."""

from failsoft.ratelimit import limit
from failsoft.testing.contract.base import Build, each_shape
from failsoft.testing.contract.session_site import SESSIONS, VIEWS, Browser, SessionSite, awaited
from failsoft.testing.faults import FaultyStore
from failsoft.testing.harness import App
from failsoft.testing.site import Answer, Call, Shape, View

__all__ = ["SessionOutageContract"]


class SessionOutageContract(SessionSite):
    """Sessions, while their store is away."""

    def test_session_outage(self, site: App, store: FaultyStore) -> None:
        """While the store is away, reading and writing are refused, nobody loses a cookie, and everything is there afterwards."""
        browser = Browser(site)
        browser.get("/login/alice")
        browser.get("/write/a/1")
        before = dict(browser.jar)
        with store.away():
            for path in ("/read", "/write/a/2", "/who"):
                reply = browser.get(path)
                assert (503, "application/problem+json") == (reply.status, reply.header("Content-Type"))
                assert [] == reply.lines("Set-Cookie")
                assert "session;reason=no_connection" == reply.header("Degraded")
                assert reply.retry_after is not None
            assert 200 == browser.get("/untouched").status
            assert 200 == Browser(site).get("/read").status
        assert before == browser.jar
        assert ({"a": "1"}, b"alice") == (browser.read(), browser.get("/who").body)

    def test_session_outage_empty(self, build: Build, store: FaultyStore) -> None:
        """With ``session_on_outage="empty"`` nothing is found instead; writing is refused all the same."""
        browser = Browser(build(*VIEWS, **{**SESSIONS, "session_on_outage": "empty"}))
        browser.get("/write/a/1")
        with store.away():
            reply = browser.get("/read")
            assert (200, {}, "session;reason=no_connection") == (reply.status, reply.json(), reply.header("Degraded"))
            assert 503 == browser.get("/write/a/2").status
        assert {"a": "1"} == browser.read()

    @each_shape
    def test_session_unsaved(self, build: Build, store: FaultyStore, shape: Shape) -> None:
        """What the store does not take is not acknowledged: a refusal takes the place of the view's response and of its cookies."""

        def write(call: Call) -> Answer:
            call.session()["a"] = 2
            return Answer(body=b"written", cookies=[("own", "1")], headers=[("X-Own", "1")])

        view = View(path="/fails", handle=awaited(write) if shape == "async" else write, shape=shape)
        browser = Browser(build(view, *VIEWS, **SESSIONS))
        browser.get("/write/a/1")
        before = dict(browser.jar)
        with store.failing("sessions.write"):
            reply = browser.get("/fails")
        assert (503, "application/problem+json") == (reply.status, reply.header("Content-Type"))
        assert (503, "session;reason=failed") == (reply.json()["status"], reply.header("Degraded"))
        assert ("no-store", []) == (reply.header("Cache-Control"), reply.lines("Set-Cookie"))
        assert before == browser.jar
        assert {"a": "1"} == browser.read()

    def test_session_unsaved_where_there_was_none(self, site: App, store: FaultyStore) -> None:
        """A session that could not be made gives nobody a cookie."""
        browser = Browser(site)
        with store.away():
            reply = browser.get("/write/a/1")
        assert (503, {}) == (reply.status, browser.jar)

    def test_session_logout_while_away(self, site: App, store: FaultyStore) -> None:
        """A logout while the store is away is accepted: the cookies go, and the next request after it ends the session for good."""
        browser = Browser(site)
        browser.get("/login/alice")
        copy = browser.copy()
        with store.away():
            reply = browser.get("/logout")
            assert (202, b"bye") == (reply.status, reply.body)
            assert ["sessionid-logout"] == list(browser.jar)
            assert "session;reason=no_connection" == reply.header("Degraded")
            assert 200 == browser.get("/untouched").status
        assert b"alice" == copy.get("/who").body
        assert 200 == browser.get("/untouched").status
        assert {} == browser.jar
        assert b"nobody" == copy.get("/who").body

    def test_session_store_that_hangs(self, build: Build, store: FaultyStore) -> None:
        """A store that hangs is waited for once in a request, whatever limits and the session would ask of it."""
        browser = Browser(build(*VIEWS, **{**SESSIONS, "limits": ["99/minute"]}))
        browser.get("/login/alice")
        for path, status in (("/read", 503), ("/write/a/1", 503), ("/logout", 202)):
            asked = len(store.flights)
            with store.hanging("50ms"):
                assert status == browser.get(path).status
            assert 1 == len(store.flights) - asked

    def test_session_snapshot(self, build: Build, store: FaultyStore) -> None:
        """A snapshot stands in for reading, is marked, and is refused where the session itself is needed."""
        more = {"session_snapshot": 60, "session_snapshot_keys": ["a", "list"]}
        browser = Browser(build(*VIEWS, **{**SESSIONS, **more}))
        for path in ("/login/alice", "/write/a/1", "/write/b/1", "/append"):
            assert 200 == browser.get(path).status
        with store.away():
            reply = browser.get("/read")
            assert (200, {"a": "1", "list": [0]}) == (reply.status, reply.json())
            assert "session;reason=no_connection" == reply.header("Degraded")
            assert b"alice" == browser.get("/who").body
            assert [503, 503, 503] == [browser.get(path).status for path in ("/write/a/2", "/append", "/live")]
            assert 200 == Browser(browser.app).get("/live").status
        assert (200, b"alice") == ((reply := browser.get("/live")).status, reply.body)
        assert {"a": "1", "b": "1", "list": [0]} == browser.read()

    def test_session_without_the_seal_while_away(self, build: Build, store: FaultyStore) -> None:
        """While the store is away nobody knows whose it is: it is counted as nobody's, and refused no sooner."""
        view = View(path="/mine", decorators=[limit("2/minute", by="user", name="mine")])
        app = build(*VIEWS, view, **{**SESSIONS, "session_on_outage": "empty"})
        browser = Browser(app)
        browser.get("/login/alice")
        del browser.jar["sessionid-seal"]
        with store.away():
            assert [200, 200, 429] == [browser.get("/mine").status for _ in range(3)]
        assert b"alice" == browser.get("/who").body
