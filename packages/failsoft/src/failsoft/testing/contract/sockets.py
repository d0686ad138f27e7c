"""The contract of WebSockets: limits on opening one, and on the messages that come over it."""

import threading
from typing import Any

import pytest

from failsoft.ratelimit import exempt, limit
from failsoft.testing.clock import ManualClock
from failsoft.testing.contract.base import Build, ContractBase, hide
from failsoft.testing.faults import FaultyStore
from failsoft.testing.harness import Conversation, Harness
from failsoft.testing.site import View

__all__ = ["WebSocketContract"]


class WebSocketContract(ContractBase):
    """Limits on opening a WebSocket, and on the messages that come over it."""

    @pytest.fixture
    def sockets(self, harness: Harness, build: Build) -> Build:
        """`build`, where there are WebSockets."""
        if not harness.websockets:
            pytest.skip(f"{harness.name}: no WebSockets")
        return build

    def test_websockets_without_limits(self, sockets: Build, store: FaultyStore) -> None:
        """A WebSocket that nothing limits works as without failsoft, and asks no store."""
        app = sockets(View(path="/echo", websocket=True), View(path="/", decorators=[limit("1/minute")]))
        one = app.websocket("/echo", "one", "two")
        assert (101, ("one", "two"), None, None) == (one.status, one.texts, one.header("RateLimit"), one.raised)
        assert [] == list(store.flights)

    def test_opening_counts_as_a_get(self, sockets: Build) -> None:
        """Opening a WebSocket is a request like any: the settings' limits count it, and the answer says what is left."""
        app = sockets(View(path="/echo", websocket=True), View(path="/"), limits=["3/minute"])
        opened = [app.websocket("/echo", "text") for _ in range(3)]
        assert [(101, ("text",), 2 - n) for n in range(3)] == [
            (one.status, one.texts, one.limits["3-per-minute"].remaining) for one in opened
        ]
        assert (429, 429) == (app.websocket("/echo").status, app.get("/").status)

    def test_refused_with_a_response(self, sockets: Build) -> None:
        """Where the server can, a refusal to open is the same problem as any refusal, with the same fields."""
        app = sockets(View(path="/echo", websocket=True, decorators=[limit("1/minute", name="echo")]))
        app.websocket("/echo")
        one = app.websocket("/echo")
        assert (429, "application/problem+json", 60) == (one.status, one.header("Content-Type"), one.retry_after)
        assert (["echo"], 0, "no-store") == (
            one.json()["violated-policies"],
            one.limits["echo"].remaining,
            one.header("Cache-Control"),
        )
        assert (None, None) == (one.code, one.raised)

    def test_refused_without_a_response(self, sockets: Build) -> None:
        """Where the server cannot answer, the WebSocket is closed before it is accepted, which the client sees as a 403."""
        app = sockets(View(path="/echo", websocket=True, decorators=[limit("1/minute", name="echo")]))
        app.websocket("/echo")
        one = app.websocket("/echo", "text", denial=False)
        assert (403, 1008, (), None) == (one.status, one.code, one.texts, one.raised)
        assert "echo" in one.reason

    @pytest.mark.parametrize("hidden", [False, True], ids=["early", "late"])
    def test_limited_endpoint(self, sockets: Build, store: FaultyStore, hidden: bool) -> None:
        """A limit on an endpoint is enforced when it is opened, also where a decorator hides it; a refused one does not run."""
        decorators: list[Any] = [*([hide] if hidden else []), limit("2/minute")]
        app = sockets(View(path="/echo", websocket=True, decorators=decorators), limits=["9/minute"])
        for denial, refused in ((True, 429), (False, 403)):
            seen = [app.websocket("/echo", "text", denial=denial) for _ in range(3)]
            expected = [101, 101, refused] if denial else [refused] * 3
            assert expected == [one.status for one in seen]
            assert [("text",) if one.status == 101 else () for one in seen] == [one.texts for one in seen]

    def test_route_limits_and_exemption(self, sockets: Build) -> None:
        """`route_limits` count each route of WebSockets; an exempt endpoint is counted by none of the settings' limits."""
        app = sockets(
            View(path="/a/{id}", websocket=True),
            View(path="/b", websocket=True),
            View(path="/free", websocket=True, decorators=[exempt]),
            route_limits=["2/minute"],
        )
        assert [101, 101, 429] == [app.websocket(f"/a/{number}").status for number in range(3)]
        assert [101, 101, 429] == [app.websocket("/b").status for _ in range(3)]
        assert [101, 101, 101] == [app.websocket("/free").status for _ in range(3)]

    def test_unknown_websockets_are_charged(self, sockets: Build) -> None:
        """Opening what is not there is charged to the settings' limits."""
        app = sockets(View(path="/echo", websocket=True), limits=["2/minute"])
        assert [False, False] == [one.status in (101, 429) for one in (app.websocket("/none"), app.websocket("/none"))]
        assert [429, 429] == [app.websocket(path).status for path in ("/none", "/echo")]

    def test_scopes_of_websockets(self, sockets: Build) -> None:
        """A scope has WebSockets too."""
        scopes = [{"name": "live", "limits": ["2/minute"], "prefix": "/live"}]
        app = sockets(View(path="/live/a", websocket=True), View(path="/b", websocket=True), scopes=scopes)
        assert [101, 101, 429, 101] == [app.websocket(path).status for path in ("/live/a",) * 3 + ("/b",)]

    def test_identity_of_websockets(self, sockets: Build) -> None:
        """Who opens a WebSocket is told as for any request: header fields, addresses behind trusted proxies."""
        app = sockets(
            View(path="/key", websocket=True, decorators=[limit("1/minute", by="header:X-Api-Key")]),
            View(path="/ip", websocket=True, decorators=[limit("1/minute")]),
            trusted_proxies=["10.0.0.0/8"],
        )
        keys = ("a", "b", "a")
        assert [101, 101, 429] == [app.websocket("/key", headers=[("X-Api-Key", key)]).status for key in keys]
        seen = [
            ("192.0.2.1", "10.0.0.1"),
            ("192.0.2.2", "10.0.0.1"),
            ("192.0.2.1", "10.0.0.1"),
            ("192.0.2.9", "192.0.2.1"),
        ]
        statuses = [
            app.websocket("/ip", headers=[("X-Forwarded-For", client)], peer=peer).status for client, peer in seen
        ]
        assert [101, 101, 429, 429] == statuses

    @pytest.mark.parametrize(
        ("on_outage", "statuses"), [("open", [101] * 3), ("closed", [503] * 3), ("local", [101, 101, 429])]
    )
    def test_opening_without_the_store(
        self, sockets: Build, store: FaultyStore, on_outage: str, statuses: list[int]
    ) -> None:
        """While the store is away, opening does what the limit says."""
        app = sockets(View(path="/echo", websocket=True, decorators=[limit("2/minute", on_outage=on_outage)]))  # type: ignore[arg-type]  # one of the three
        with store.away():
            assert statuses == [app.websocket("/echo").status for _ in range(3)]
            closed = app.websocket("/echo", denial=False)
        assert {"open": None, "closed": 1013, "local": 1008}[on_outage] == closed.code

    @pytest.mark.parametrize("hidden", [False, True], ids=["early", "late"])
    def test_messages(self, sockets: Build, store: FaultyStore, hidden: bool) -> None:
        """With ``messages=True`` exactly as many messages pass as the limit says, one flight for each; the next closes the socket."""
        decorators: list[Any] = [*([hide] if hidden else []), limit("3/minute", messages=True, name="chat")]
        app = sockets(View(path="/echo", websocket=True, decorators=decorators))
        one = app.websocket("/echo", "1", "2", "3", "4", "5")
        assert (101, ("1", "2", "3"), 1008, None) == (one.status, one.texts, one.code, one.raised)
        assert "chat" in one.reason
        assert len(one.reason.encode()) <= 123
        assert [("ratelimit.acquire",)] * 4 == list(store.flights)

    def test_messages_of_one_client(self, sockets: Build, clock: ManualClock) -> None:
        """The messages of a client count together over all of its WebSockets, and anew when the window is over."""
        app = sockets(View(path="/echo", websocket=True, decorators=[limit("3/minute", messages=True)]))
        assert [("1", "2"), ("3",), ()] == [
            app.websocket("/echo", *texts).texts for texts in (("1", "2"), ("3", "4"), ("5",))
        ]
        assert ("6",) == app.websocket("/echo", "6", peer="203.0.113.8").texts
        clock.advance("1m")
        assert ("7",) == app.websocket("/echo", "7").texts

    def test_messages_beside_openings(self, sockets: Build) -> None:
        """A limit on messages takes nothing from those on openings, and the other way round."""
        app = sockets(
            View(path="/echo", websocket=True, decorators=[limit("2/minute"), limit("3/minute", messages=True)]),
            limits=["9/minute"],
        )
        seen = [app.websocket("/echo", "a", "b"), app.websocket("/echo", "c"), app.websocket("/echo", "d")]
        assert [(101, ("a", "b")), (101, ("c",)), (429, ())] == [(one.status, one.texts) for one in seen]
        assert {"9-per-minute": 8, "2-per-minute": 1} == {name: one.remaining for name, one in seen[0].limits.items()}

    def test_refused_messages_are_remembered(self, sockets: Build, store: FaultyStore) -> None:
        """Who was refused is refused again without a flight, also over another WebSocket."""
        app = sockets(View(path="/echo", websocket=True, decorators=[limit("1/minute", messages=True)]))
        assert [("a",), (), ()] == [app.websocket("/echo", *texts).texts for texts in ("ab", "c", "d")]
        assert 2 == len(store.flights)

    def test_leased_messages(self, sockets: Build, store: FaultyStore) -> None:
        """A busy socket's messages come out of a lease, and all the same no more pass than the limit says."""
        app = sockets(View(path="/echo", websocket=True, decorators=[limit("30/minute", messages=True, lease=10)]))
        one = app.websocket("/echo", *[str(number) for number in range(40)])
        assert (30, 1008) == (len(one.texts), one.code)
        assert len(store.flights) < 15

    @pytest.mark.parametrize(
        ("on_outage", "passed", "code"), [("open", 4, None), ("closed", 0, 1013), ("local", 2, 1008)]
    )
    def test_messages_without_the_store(
        self, sockets: Build, store: FaultyStore, on_outage: str, passed: int, code: int | None
    ) -> None:
        """While the store is away, each message does what the limit says."""
        policy = limit("2/minute", messages=True, on_outage=on_outage)  # type: ignore[arg-type]  # one of the three
        app = sockets(View(path="/echo", websocket=True, decorators=[policy]))
        with store.away():
            one = app.websocket("/echo", "1", "2", "3", "4")
        assert (101, passed, code) == (one.status, len(one.texts), one.code)

    def test_messages_at_the_same_time(self, sockets: Build) -> None:
        """Of the messages of many sockets at once exactly as many pass as the limit says."""
        app = sockets(View(path="/echo", websocket=True, decorators=[limit("25/minute", messages=True)]))
        seen: list[Conversation] = []

        def talk() -> None:
            seen.append(app.websocket("/echo", "1", "2", "3", "4", "5"))

        threads = [threading.Thread(target=talk) for _ in range(10)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert (10, 25) == (len(seen), sum(len(one.texts) for one in seen))

    def test_messages_of_a_request(self, build: Build) -> None:
        """A request that opens no WebSocket counts as one message."""
        app = build(View(path="/", decorators=[limit("2/minute", messages=True)]))
        assert [200, 200, 429] == app.statuses(3, "/")
