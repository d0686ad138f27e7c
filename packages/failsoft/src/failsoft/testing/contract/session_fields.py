"""The contract of what caches are told of responses that have to do with a session, whatever the view has said."""

import json

import pytest

from failsoft.testing.contract.base import Build
from failsoft.testing.contract.session_site import SESSIONS, VIEWS, Browser, SessionSite, found_in
from failsoft.testing.faults import FaultyStore
from failsoft.testing.site import Answer, Call, View

__all__ = ["SessionFieldContract"]


def _site(name: str, value: str) -> tuple[View, ...]:
    """Views that answer with a header field of their own: one that reads its session, one that writes it, one that does neither."""

    def read(call: Call) -> Answer:
        return Answer(body=json.dumps(found_in(call.session())).encode(), headers=[(name, value)])

    def write(call: Call) -> Answer:
        call.session()["a"] = call.params["value"]
        return Answer(headers=[(name, value)])

    def untouched(call: Call) -> Answer:
        return Answer(headers=[(name, value)])

    return (
        View(path="/reads", handle=read),
        View(path="/writes/{value}", handle=write),
        View(path="/neither", handle=untouched),
        *VIEWS,
    )


class SessionFieldContract(SessionSite):
    """Sessions, and what caches are told."""

    @pytest.mark.parametrize(
        ("value", "expected"),
        [
            ("Accept-Language", "Accept-Language, Cookie"),
            ("accept, COOKIE", "accept, COOKIE"),
            ("Cookie,Accept,cookie", "Cookie, Accept"),
            ("*", "*"),
        ],
        ids=["other", "already", "twice", "all"],
    )
    def test_session_vary_once(self, build: Build, value: str, expected: str) -> None:
        """A response varies with the cookie in one line, beside what the view has said; middleware further out may read but one."""
        browser = Browser(build(*_site("Vary", value), **SESSIONS))
        for path in ("/writes/1", "/reads", "/writes/2"):
            assert [expected] == browser.get(path).lines("Vary")
        assert [value] == browser.get("/neither").lines("Vary")

    @pytest.mark.parametrize(
        ("value", "expected"),
        [
            ("max-age=60", "max-age=60, private"),
            ("public, max-age=60", "max-age=60, private"),
            ("S-MAXAGE=9, Public, must-revalidate", "must-revalidate, private"),
            ("Private, max-age=60", "max-age=60, private"),
            ('private="set-cookie, x-own", no-cache="x-own, x-other"', 'no-cache="x-own, x-other", private'),
            ("no-store", "no-store, private"),
        ],
        ids=["age", "public", "shared age", "private", "of fields", "not at all"],
    )
    def test_session_private(self, build: Build, value: str, expected: str) -> None:
        """A response with cookies is its user's alone, whatever the view says of caches; else that stays."""
        browser = Browser(build(*_site("Cache-Control", value), **SESSIONS))
        for path in ("/writes/1", "/writes/2"):
            assert [expected] == browser.get(path).lines("Cache-Control")
        for path in ("/reads", "/neither"):
            assert [value] == browser.get(path).lines("Cache-Control")

    @pytest.mark.parametrize("snapshot", [False, True], ids=["empty", "snapshot"])
    def test_session_degraded_is_not_kept(self, build: Build, store: FaultyStore, snapshot: bool) -> None:
        """A page that was made without the store's answer is not stored anywhere: it would be shown when the store is back."""
        more = {"session_snapshot": 60, "session_snapshot_keys": ["a"]} if snapshot else {"session_on_outage": "empty"}
        browser = Browser(build(*_site("Cache-Control", "private, max-age=300"), **{**SESSIONS, **more}))
        browser.get("/writes/1")
        with store.away():
            reply = browser.get("/reads")
            assert (200, {"a": "1"} if snapshot else {}) == (reply.status, reply.json())
            assert ["no-store, private"] == reply.lines("Cache-Control")
            assert ["private, max-age=300"] == browser.get("/neither").lines("Cache-Control")
            assert ["no-store, private"] == browser.get("/who").lines("Cache-Control")
        assert ["private, max-age=300"] == browser.get("/reads").lines("Cache-Control")

    def test_session_refusals_are_not_kept(self, build: Build, store: FaultyStore) -> None:
        """A refusal for want of the session says once that nobody keeps it, and so does a logout that waits for the store."""
        browser = Browser(build(*_site("Cache-Control", "max-age=300"), **SESSIONS))
        browser.get("/login/alice")
        with store.away():
            for path, status in (("/reads", 503), ("/writes/1", 503), ("/logout", 202)):
                reply = browser.get(path)
                assert (status, ["no-store, private"]) == (reply.status, reply.lines("Cache-Control"))
