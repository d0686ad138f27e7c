"""The contract of responses: the bodies of refusals, and that nothing else about a response changes."""

from collections.abc import Iterator

import pytest

from failsoft.errors import Rejected
from failsoft.exchange import current
from failsoft.ratelimit import limit
from failsoft.testing.contract.base import Build, ContractBase
from failsoft.testing.harness import Harness
from failsoft.testing.site import Answer, Call, View

__all__ = ["ResponseContract"]


class _OwnError(Exception):
    """An error that only the test raises."""


def _raise(call: Call) -> Answer:
    raise _OwnError("a bug in the view")


class ResponseContract(ContractBase):
    """The bodies of refusals, and that nothing else about a response changes."""

    def test_problem(self, build: Build) -> None:
        """A refusal is a problem (RFC 9457) that names the policies it violates."""
        app = build(View(path="/", decorators=[limit("9/minute", name="wide"), limit("1/minute", name="tight")]))
        app.get("/")
        reply = app.get("/")
        problem = reply.json()
        assert "application/problem+json" == reply.header("Content-Type")
        assert (429, ["tight"]) == (problem["status"], problem["violated-policies"])
        assert problem["type"].endswith("#quota-exceeded")
        assert {"title", "detail"} <= problem.keys()
        assert str(len(reply.body)) == (reply.header("Content-Length") or str(len(reply.body)))

    @pytest.mark.parametrize(
        ("accept", "media_type"),
        [
            ("*/*", "application/problem+json"),
            ("application/json", "application/problem+json"),
            ("text/html,application/xhtml+xml,application/xml;q=0.9,*/*;q=0.8", "text/html; charset=utf-8"),
            ("text/plain", "text/plain; charset=utf-8"),
            ("image/png", "application/problem+json"),
        ],
    )
    def test_problem_in_the_preferred_form(self, build: Build, accept: str, media_type: str) -> None:
        """The Accept header chooses between JSON, HTML and plain text; JSON where it chooses nothing."""
        app = build(View(path="/", decorators=[limit("1/minute")]))
        app.get("/")
        reply = app.get("/", ("Accept", accept))
        assert (429, [media_type]) == (reply.status, reply.lines("Content-Type"))
        assert b"quota" in reply.body

    def test_head_is_refused_without_a_body(self, build: Build) -> None:
        """The refusal of a HEAD request has all the fields of another's."""
        app = build(View(path="/", decorators=[limit("1/minute")]))
        app.get("/")
        reply = app.request("HEAD", "/")
        assert (429, b"", 60) == (reply.status, reply.body, reply.retry_after)

    def test_renderer(self, build: Build) -> None:
        """An application's own answer to refused requests is used, early and late, and has the fields all the same."""

        def own(rejected: Rejected) -> Answer:
            return Answer(status=rejected.status, body=b"slow down", headers=[("X-Own", "yes")])

        @limit("1/minute")
        def helper() -> None:
            pass

        def late(call: Call) -> None:
            helper()

        app = build(View(path="/", decorators=[limit("1/minute")]), View(path="/late", handle=late), renderer=own)
        for path in ("/", "/late"):
            app.get(path)
            reply = app.get(path)
            assert (429, b"slow down", "yes") == (reply.status, reply.body, reply.header("X-Own"))
            assert (60, "no-store") == (reply.retry_after, reply.header("Cache-Control"))
            assert [1, 1] == [len(reply.lines(name)) for name in ("RateLimit", "RateLimit-Policy")]

    def test_response_is_unchanged(self, build: Build) -> None:
        """Status, body and header fields of a view's response stay as they are."""
        answer = Answer(status=201, body=b"made", content_type="text/csv", headers=[("X-Total", "3"), ("ETag", '"1"')])
        limited = build(View(path="/", handle=lambda call: answer, decorators=[limit("9/minute")])).get("/")
        plain = build(View(path="/", handle=lambda call: answer)).get("/")
        assert (201, b"made", "3", '"1"') == (
            limited.status,
            limited.body,
            limited.header("X-Total"),
            limited.header("ETag"),
        )
        added = ("ratelimit", "ratelimit-policy")
        assert list(plain.headers) == [(name, value) for name, value in limited.headers if name.lower() not in added]

    def test_repeated_cookies_stay(self, build: Build) -> None:
        """Each Set-Cookie line that a view makes arrives as a line of its own."""
        answer = Answer(cookies=[("one", "1"), ("two", "2"), ("three", "3")])
        app = build(View(path="/", handle=lambda call: answer, decorators=[limit("9/minute")]))
        reply = app.get("/")
        assert ["one=1", "two=2", "three=3"] == [line.partition(";")[0] for line in reply.lines("Set-Cookie")]
        assert 8 == reply.limits["9-per-minute"].remaining

    def test_stream_is_not_held_up(self, build: Build) -> None:
        """Each piece of a streamed body is sent before the next is made, and the fields are added once."""
        order: list[str] = []

        def pieces() -> Iterator[bytes]:
            for number in (b"1", b"2", b"3"):
                order.append(f"made {number.decode()}")
                yield number

        app = build(
            View(path="/", handle=lambda call: Answer(stream=pieces()), decorators=[limit("9/minute")]),
            limits=["99/minute"],
        )
        reply = app.request("GET", "/", on_chunk=lambda piece: order.append(f"sent {piece.decode()}"))
        assert ["made 1", "sent 1", "made 2", "sent 2", "made 3", "sent 3"] == order
        assert b"123" == reply.body
        assert [1, 1] == [len(reply.lines(name)) for name in ("RateLimit", "RateLimit-Policy")]

    def test_client_that_hangs_up(self, build: Build) -> None:
        """A client that leaves in the midst of a stream has been charged once, and leaves nothing behind."""

        def pieces() -> Iterator[bytes]:
            for _ in range(100):
                yield b"piece"

        app = build(
            View(
                path="/stream",
                handle=lambda call: Answer(stream=pieces()),
                decorators=[limit("2/minute", shared="hung")],
            ),
            View(path="/", decorators=[limit("2/minute", shared="hung")]),
        )
        assert b"piece" == app.abandon("/stream")
        assert [200, 429] == app.statuses(2, "/")

    def test_error_of_a_view_is_untouched(self, build: Build) -> None:
        """An exception of a view goes the framework's own way, and the request was charged."""
        app = build(View(path="/", handle=_raise, decorators=[limit("2/minute")]))
        for _ in range(2):
            reply = app.get("/")
            assert 500 == reply.status
            assert reply.raised is None or isinstance(reply.raised, _OwnError)
        assert 429 == app.get("/").status

    def test_error_of_a_view_says_the_limits(self, build: Build) -> None:
        """Where the framework makes a response of the error within our reach, that response has the fields."""
        app = build(View(path="/", handle=_raise, decorators=[limit("2/minute")]))
        reply = app.get("/")
        assert (500, 1) == (reply.status, reply.limits["2-per-minute"].remaining)

    def test_http_error_of_a_view(self, build: Build) -> None:
        """The framework's HTTP exceptions are answered as before, with the fields added."""
        app = build(View(path="/", handle=lambda call: Answer(abort=404), decorators=[limit("2/minute")]))
        replies = [app.get("/") for _ in range(3)]
        assert [404, 404, 429] == [reply.status for reply in replies]
        assert [1, 0, 0] == [reply.limits["2-per-minute"].remaining for reply in replies]

    def test_unknown_paths_are_charged(self, build: Build) -> None:
        """A path that no route knows is answered with 404 as before, and charged to the settings' limits."""
        app = build(View(path="/"), limits=["2/minute"])
        replies = [app.get(f"/missing/{number}") for number in range(3)]
        assert [404, 404, 429] == [reply.status for reply in replies]
        assert [1, 0, 0] == [reply.limits["2-per-minute"].remaining for reply in replies]
        assert 429 == app.get("/").status

    def test_wrong_methods_are_charged(self, build: Build) -> None:
        """A method that a route does not take is answered with 405 as before, and charged to the settings' limits."""
        app = build(View(path="/"), limits=["2/minute"])
        replies = [app.request("DELETE", "/") for _ in range(3)]
        assert [405, 405, 429] == [reply.status for reply in replies]
        assert "GET" in (replies[0].header("Allow") or "")

    def test_nothing_stays_current(self, build: Build, harness: Harness) -> None:
        """After a request, whatever became of it, its thread serves no request: nothing leaks into the next."""
        if harness.concurrency == "tasks":
            pytest.skip("each task has a context of its own, which ends with it")
        app = build(View(path="/", decorators=[limit("1/minute")]), View(path="/error", handle=_raise))
        for path in ("/", "/", "/error", "/missing"):
            app.get(path)
            assert current() is None, path
