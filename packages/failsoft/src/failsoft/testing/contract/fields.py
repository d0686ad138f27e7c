"""The contract of header fields: what a response says of limits, and to whom."""

from itertools import cycle
from typing import Any

import pytest

from failsoft.ratelimit import exempt, limit
from failsoft.testing.clock import ManualClock
from failsoft.testing.contract.base import Build, ContractBase, hide
from failsoft.testing.faults import FaultyStore
from failsoft.testing.harness import LimitView, Reply
from failsoft.testing.site import Answer, View

__all__ = ["FieldContract"]

_DRAFT = ("RateLimit-Policy", "RateLimit")
_LEGACY = ("X-RateLimit-Limit", "X-RateLimit-Remaining", "X-RateLimit-Reset")
_ORIGIN = ("Origin", "https://elsewhere.example")
_early_and_late = pytest.mark.parametrize("above", [[], [hide]], ids=["early", "late"])
"""What stands above a limit, so that it is enforced with those of the settings, or late."""

_PREFLIGHT = (_ORIGIN, ("Access-Control-Request-Method", "GET"))


def _present(reply: Reply) -> set[str]:
    return {name for name in (*_DRAFT, *_LEGACY) if reply.header(name) is not None}


class FieldContract(ContractBase):
    """What a response says of limits, and to whom."""

    def test_draft_fields(self, build: Build, clock: ManualClock) -> None:
        """Admitted and refused responses say the policies, what remains, and the seconds until there is more."""
        app = build(View(path="/", decorators=[limit("2/minute", name="burst")]), limits=["100/hour"])
        first = app.get("/")
        assert '"100-per-hour";q=100;w=3600, "burst";q=2;w=60' == first.header("RateLimit-Policy")
        assert '"100-per-hour";r=99;t=3600, "burst";r=1;t=60' == first.header("RateLimit")
        app.get("/")
        clock.advance("15s")
        refused = app.get("/")
        assert 429 == refused.status
        assert first.header("RateLimit-Policy") == refused.header("RateLimit-Policy")
        assert {"100-per-hour": LimitView(98, 3585), "burst": LimitView(0, 45)} == refused.limits

    @pytest.mark.parametrize(
        ("headers", "expected"),
        [("draft", {*_DRAFT}), ("legacy", {*_LEGACY}), ("both", {*_DRAFT, *_LEGACY}), ("off", set())],
    )
    def test_headers_setting(self, build: Build, headers: str, expected: set[str]) -> None:
        """The setting `headers` chooses the fields, on admitted and refused responses alike."""
        app = build(View(path="/", decorators=[limit("1/minute")]), headers=headers)
        admitted, refused = app.get("/"), app.get("/")
        assert [(200, expected), (429, expected)] == [(one.status, _present(one)) for one in (admitted, refused)]
        assert [None, 60] == [admitted.retry_after, refused.retry_after]

    @_early_and_late
    @pytest.mark.parametrize(("own", "other"), [("2/minute", "100/hour"), ("100/hour", "2/minute")])
    def test_legacy_fields(self, build: Build, clock: ManualClock, above: list[Any], own: str, other: str) -> None:
        """The older fields tell of the tightest limit, wherever it was declared, and of its reset as a time."""
        app = build(View(path="/", decorators=[*above, limit(own)]), limits=[other], headers="legacy")
        reply = app.get("/")
        assert ["2", "1", str(int(clock.time()) + 60)] == [reply.header(name) for name in _LEGACY]

    @_early_and_late
    @pytest.mark.parametrize("deny_cache", [0, 2])
    def test_fields_once(self, build: Build, store: FaultyStore, above: list[Any], deny_cache: int) -> None:
        """Each field is one line that tells of all limits: when admitted, refused, refused again, and without the store."""
        limits = ["9/minute"]
        app = build(
            View(path="/", decorators=[*above, limit("1/minute")]), limits=limits, headers="both", deny_cache=deny_cache
        )
        replies = [app.get("/") for _ in range(3)]
        with store.away():
            replies.append(app.get("/", peer="203.0.113.8"))
        assert [200, 429, 429, 200] == [reply.status for reply in replies]
        assert [{1}] * 4 == [{len(reply.lines(name)) for name in (*_DRAFT, *_LEGACY)} for reply in replies]
        assert [["9-per-minute", "1-per-minute"]] * 4 == [[*reply.limits] for reply in replies]

    @_early_and_late
    def test_names_are_unique(self, build: Build, store: FaultyStore, above: list[Any]) -> None:
        """Limits that would have the same name are told apart, and refusals call them by what the fields call them."""
        own = [limit("2/minute", cost=2), limit("2/minute", cost=2, by="route")]
        app = build(View(path="/", decorators=[*above, *own]), limits=["2/minute"], deny_cache=0)
        replies = [app.get("/"), app.get("/", peer="203.0.113.8")]
        with store.away():
            replies.append(app.get("/", peer="203.0.113.9"))
        assert [200, 429, 429] == [reply.status for reply in replies]
        named = ["2-per-minute", "2-per-minute-2", "2-per-minute-3"]
        assert [named] * 3 == [[*reply.limits] for reply in replies]
        assert [["2-per-minute-3"]] * 2 == [reply.json()["violated-policies"] for reply in replies[1:]]

    def test_no_fields_where_nothing_applies(self, build: Build) -> None:
        """A response to a request that no limit counted says nothing of limits."""
        app = build(View(path="/", decorators=[exempt]), limits=["9/minute"], headers="both")
        assert set() == _present(app.get("/"))

    @pytest.mark.parametrize("after", ["0s", "12345ms", "59999ms"])
    def test_retry_after_is_never_early(self, build: Build, clock: ManualClock, after: str) -> None:
        """A client that waits as long as Retry-After says is served; the wait is never shorter than the reset."""
        app = build(View(path="/", decorators=[limit("1/minute")]))
        app.get("/")
        clock.advance(after)
        refused = app.get("/")
        assert refused.retry_after is not None
        assert refused.retry_after >= max(one.reset for one in refused.limits.values())
        clock.advance(refused.retry_after)
        assert 200 == app.get("/").status

    def test_retry_after_counts_the_longest_wait(self, build: Build) -> None:
        """With several limits exceeded, Retry-After is the longest of their waits."""
        app = build(View(path="/", decorators=[limit("1/minute"), limit("1/hour")]))
        app.get("/")
        assert 3600 == app.get("/").retry_after

    def test_retry_after_jitter(self, build: Build) -> None:
        """Jitter only adds to the wait, at most the share that the setting says."""
        app = build(View(path="/", decorators=[limit("1/minute")]), retry_after_jitter=0.5, random=lambda: 0.999)
        app.get("/")
        refused = app.get("/")
        assert (60 + 30, 60) == (refused.retry_after, refused.limits["1-per-minute"].reset)

    @pytest.mark.parametrize(("jitter", "expected"), [(0.1, {9, 10}), (0.3, {9, 10, 11}), (0, {9})])
    def test_retry_after_jitter_of_short_waits(self, build: Build, jitter: float, expected: set[int]) -> None:
        """Clients that are refused in a short window are not all told the same second either, unless that is asked for."""
        drawn = cycle([0.0, 0.4, 0.6, 0.999])
        app = build(
            View(path="/", decorators=[limit("1/9 seconds")]), retry_after_jitter=jitter, random=lambda: next(drawn)
        )
        app.get("/")
        refused = [app.get("/") for _ in range(4)]
        assert expected == {one.retry_after for one in refused}
        assert [9] * 4 == [one.limits["1-per-9-seconds"].reset for one in refused]

    def test_refusals_are_not_cached(self, build: Build) -> None:
        """A refusal says that it must not be stored: it belongs to one client and one moment."""
        app = build(View(path="/", decorators=[limit("1/minute")]))
        admitted, refused = app.get("/"), app.get("/")
        assert (None, "no-store") == (admitted.header("Cache-Control"), refused.header("Cache-Control"))

    def test_fields_are_exposed_to_other_origins(self, build: Build) -> None:
        """A page from another origin may read the fields, of a refusal too; other clients hear nothing of that."""
        app = build(View(path="/", decorators=[limit("2/minute")]))
        assert None is app.get("/").header("Access-Control-Expose-Headers")
        for status in (200, 429):
            reply = app.get("/", _ORIGIN)
            exposed = {name.strip() for name in (reply.header("Access-Control-Expose-Headers") or "").split(",")}
            assert status == reply.status
            assert {"RateLimit", "RateLimit-Policy", "Retry-After"} <= exposed

    def test_exposed_headers_of_the_view_stay(self, build: Build) -> None:
        """What a view exposes to other origins is added to, not replaced."""
        mine = ("Access-Control-Expose-Headers", "X-Total")
        app = build(View(path="/", handle=lambda call: Answer(headers=[mine]), decorators=[limit("2/minute")]))
        exposed = {name.strip() for name in (app.get("/", _ORIGIN).header(mine[0]) or "").split(",")}
        assert {"X-Total", "RateLimit"} <= exposed

    def test_preflights_are_exempt(self, build: Build, store: FaultyStore) -> None:
        """A CORS preflight, which browsers send by themselves, is neither charged nor refused; other OPTIONS are."""
        app = build(View(path="/", methods=("GET", "OPTIONS")), limits=["1/minute"])
        assert [200] * 3 == [app.request("OPTIONS", "/", headers=_PREFLIGHT).status for _ in range(3)]
        assert [] == list(store.flights)
        assert [200, 429] == [app.request("OPTIONS", "/", headers=[_ORIGIN]).status for _ in range(2)]

    def test_preflights_can_be_counted(self, build: Build) -> None:
        """With ``exempt_preflights=False`` a preflight is a request like others."""
        app = build(View(path="/", methods=("GET", "OPTIONS")), limits=["1/minute"], exempt_preflights=False)
        assert [200, 429] == [app.request("OPTIONS", "/", headers=_PREFLIGHT).status for _ in range(2)]
