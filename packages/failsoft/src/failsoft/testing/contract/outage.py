"""The contract of outages: what each limit does while its store is away, and that nobody gets a 500 or a long wait."""

import time
from typing import Any

import pytest

from failsoft.ratelimit import limit
from failsoft.testing.clock import ManualClock
from failsoft.testing.contract.base import Build, ContractBase, function_shapes, hide
from failsoft.testing.faults import FaultyStore
from failsoft.testing.site import Call, Shape, View
from failsoft.testing.toy import FIELD, LastStatus

__all__ = ["OutageContract"]

_ACQUIRE = "ratelimit.acquire"


class OutageContract(ContractBase):
    """What each limit does while its store is away, and that nobody gets a 500 or a long wait."""

    @pytest.mark.parametrize("reason", ["open", "no_connection", "timeout", "refused", "broken", "local_lag", "closed"])
    def test_open(self, build: Build, store: FaultyStore, reason: Any) -> None:
        """With ``on_outage="open"`` requests are admitted uncounted, and the response says so, in any outage."""
        app = build(View(path="/", decorators=[limit("1/minute", on_outage="open")]))
        with store.away(reason):
            replies = [app.get("/") for _ in range(3)]
        assert [200, 200, 200] == [reply.status for reply in replies]
        assert [None] * 3 == [reply.header("RateLimit") for reply in replies]
        assert [f"limits;reason={reason}"] * 3 == [reply.header("Degraded") for reply in replies]

    def test_closed(self, build: Build, store: FaultyStore) -> None:
        """With ``on_outage="closed"`` requests are refused with 503, a problem and a short Retry-After."""
        app = build(View(path="/", decorators=[limit("9/minute", name="login", on_outage="closed")]))
        with store.away():
            reply = app.get("/")
        assert (503, "application/problem+json") == (reply.status, reply.header("Content-Type"))
        assert ["login"] == reply.json()["violated-policies"]
        assert reply.json()["type"].endswith("#temporary-reduced-capacity")
        assert reply.retry_after in (1, 2)
        assert ("no-store", "limits;reason=no_connection") == (reply.header("Cache-Control"), reply.header("Degraded"))
        assert 200 == app.get("/").status

    def test_local(self, build: Build, store: FaultyStore) -> None:
        """With ``on_outage="local"`` each process counts for itself, against its share of the limit."""
        view = View(path="/", decorators=[limit("6/minute", on_outage="local")])
        app = build(view, workers=2, replicas=1)
        with store.away():
            replies = [app.get("/") for _ in range(4)]
        assert [200, 200, 200, 429] == [reply.status for reply in replies]
        assert [2, 1, 0, 0] == [reply.limits["6-per-minute"].remaining for reply in replies]
        assert replies[-1].retry_after is not None

    def test_local_share(self, build: Build, store: FaultyStore) -> None:
        """The setting `local_share` says the share itself; at least one request passes."""
        app = build(View(path="/", decorators=[limit("6/minute")]), local_share=0.01)
        with store.away():
            assert [200, 429] == app.statuses(2, "/")

    def test_outage_is_no_new_quota(self, build: Build, store: FaultyStore) -> None:
        """A client starts an outage with what it had left, not with a new quota."""
        app = build(View(path="/", decorators=[limit("4/minute")]))
        assert [200, 200, 200] == app.statuses(3, "/")
        with store.away():
            assert [200, 429] == app.statuses(2, "/")
            assert [200] == app.statuses(1, "/", peer="203.0.113.8")

    def test_recovery(self, build: Build, store: FaultyStore, clock: ManualClock) -> None:
        """When the store is back its own counts hold again, and responses no longer speak of degradation."""
        app = build(View(path="/", decorators=[limit("3/minute")]))
        assert 200 == app.get("/").status
        with store.away():
            assert [200, 200, 429] == app.statuses(3, "/")
        replies = [app.get("/") for _ in range(3)]
        assert [200, 200, 429] == [reply.status for reply in replies]
        assert [None] * 3 == [reply.header("Degraded") for reply in replies]

    def test_next_outage(self, build: Build, store: FaultyStore) -> None:
        """The next outage starts with what the store said last, not with what was counted in the one before."""
        app = build(View(path="/", decorators=[limit("3/minute")]))
        with store.away():
            assert [200, 200, 200, 429] == app.statuses(4, "/")
        assert [200, 200] == app.statuses(2, "/")
        with store.away():
            assert [200, 429] == app.statuses(2, "/")

    def test_each_limit_has_its_own_answer(self, build: Build, store: FaultyStore) -> None:
        """Limits on one request do as each says: a closed one refuses, a local one counts, an open one does not."""
        wide = limit("9/minute", name="open", on_outage="open")
        app = build(
            View(path="/both", decorators=[wide, limit("1/minute", name="local", on_outage="local")]),
            View(path="/closed", decorators=[wide, limit("9/minute", name="closed", on_outage="closed")]),
        )
        with store.away():
            replies = [app.get("/both"), app.get("/both")]
            assert [200, 429] == [reply.status for reply in replies]
            assert [["local"]] * 2 == [list(reply.limits) for reply in replies]
            assert 503 == app.get("/closed").status

    def test_one_bucket_named_twice(self, build: Build, store: FaultyStore) -> None:
        """Two limits that come to one bucket charge it once, the dearer of the two, and the stricter answer holds."""
        same = {"shared": "both", "name": "both"}
        free = limit("9/minute", cost=1, on_outage="open", **same)  # type: ignore[arg-type]  # both are names
        dear = limit("9/minute", cost=5, on_outage="closed", **same)  # type: ignore[arg-type]  # both are names
        app = build(View(path="/", decorators=[free, dear]))
        assert 4 == app.get("/").limits["both"].remaining
        with store.away():
            assert 503 == app.get("/").status

    def test_settings_limits(self, build: Build, store: FaultyStore) -> None:
        """The setting `on_outage` holds for the settings' limits and where a limit does not say."""
        app = build(
            View(path="/"), View(path="/own", decorators=[limit("9/minute")]), limits=["9/minute"], on_outage="closed"
        )
        with store.away():
            assert [503, 503, 503] == [app.get(path).status for path in ("/", "/own", "/missing")]

    @function_shapes
    def test_late_limits(self, build: Build, store: FaultyStore, shape: Shape) -> None:
        """Limits that are enforced late have the same answers: 503, the share, or admission; never a 500."""
        app = build(
            *[
                View(path=f"/{one}", shape=shape, decorators=[hide, limit("1/minute", on_outage=one)])
                for one in ("open", "closed", "local")
            ]
        )
        with store.away():
            assert [200, 200] == app.statuses(2, "/open")
            assert [503, 503] == app.statuses(2, "/closed")
            assert [200, 429] == app.statuses(2, "/local")

    def test_hanging_store(self, build: Build, store: FaultyStore) -> None:
        """A store that hangs holds a request up for its deadline, and no longer."""
        app = build(View(path="/", decorators=[limit("9/minute", on_outage="open")]))
        before = time.monotonic()
        with store.hanging("50ms"):
            reply = app.get("/")
        assert (200, "limits;reason=timeout") == (reply.status, reply.header("Degraded"))
        assert 0.05 <= time.monotonic() - before < 5

    @function_shapes
    def test_hanging_store_once(self, build: Build, store: FaultyStore, shape: Shape) -> None:
        """A store that hangs is waited for once in a request, whatever is enforced late in it; each limit has its answer all the same."""
        calls: list[str] = []

        def helper(quota: str, **options: Any) -> Any:
            def call() -> None:
                calls.append(quota)

            async def acall() -> None:
                calls.append(quota)

            return limit(quota, **options)(acall if shape == "async" else call)

        one, two = helper("2/minute"), helper("9/hour", charge_on=[500])

        def handle(call: Call) -> Any:
            one()
            two()

        async def ahandle(call: Call) -> None:
            await one()
            await two()

        above: dict[str, list[Any]] = {"early": [], "late": [hide, limit("9/minute", name="view")]}
        views = [
            View(path=f"/{place}", shape=shape, handle=ahandle if shape == "async" else handle, decorators=decorators)
            for place, decorators in above.items()
        ]
        app = build(*views, limits=["9/minute"])
        assert [200, 200] == [app.get("/early").status, app.get("/late", peer="203.0.113.8").status]
        for path, peer in (("/early", "203.0.113.9"), ("/late", "203.0.113.10")):
            asked = len(store.flights)
            with store.hanging("50ms"):
                replies = [app.get(path, peer=peer) for _ in range(3)]
            assert [200, 200, 429] == [reply.status for reply in replies]
            assert {"limits;reason=timeout"} == {reply.header("Degraded") for reply in replies}
            assert 3 == len(store.flights) - asked
        assert ["2/minute", "9/hour"] * 6 == calls

    def test_hanging_store_in_the_view(self, build: Build, store: FaultyStore) -> None:
        """A store that hangs after it has answered is waited for once, too."""

        @limit("9/minute", name="helper")
        def helper() -> None: ...

        @limit("9/minute", name="other")
        def other() -> None: ...

        def handle(call: Call) -> None:
            with store.hanging("50ms"):
                helper()
                other()

        app = build(View(path="/", handle=handle), limits=["9/minute"])
        reply = app.get("/")
        assert (200, "limits;reason=timeout", 2) == (reply.status, reply.header("Degraded"), len(store.flights))

    def test_failed_operation(self, build: Build, store: FaultyStore) -> None:
        """An error of the limits' operation is an outage of the limits, for this request."""
        app = build(View(path="/", decorators=[limit("1/minute", on_outage="closed")]))
        with store.failing(_ACQUIRE):
            reply = app.get("/")
        assert (503, "limits;reason=failed") == (reply.status, reply.header("Degraded"))
        assert [200, 429] == app.statuses(2, "/")

    def test_failed_operation_of_a_neighbour(self, build: Build, store: FaultyStore) -> None:
        """An operation that fails leaves the answers of its neighbours in the flight as they are."""
        app = build(View(path="/", decorators=[limit("9/minute", on_outage="closed")]), concerns=[LastStatus()])
        app.get("/")
        with store.failing("toy.load"):
            reply = app.get("/")
        assert (200, 7, None) == (reply.status, reply.limits["9-per-minute"].remaining, reply.header(FIELD))
        assert "toy;reason=failed" == reply.header("Degraded")
        with store.failing(_ACQUIRE):
            reply = app.get("/")
        assert (503, "200") == (reply.status, reply.header(FIELD))
        assert "limits;reason=failed" == reply.header("Degraded")

    def test_settlement_is_lost_in_silence(self, build: Build, store: FaultyStore) -> None:
        """What cannot be written at the end of a request does not change its response."""
        app = build(View(path="/", decorators=[limit("9/minute")]), concerns=[LastStatus()])
        with store.failing("toy.save"):
            assert (200, "none") == (app.get("/").status, app.get("/").header(FIELD))
        assert "none" == app.get("/").header(FIELD)

    def test_degraded_can_be_hidden(self, build: Build, store: FaultyStore) -> None:
        """With ``degraded_header=False`` responses do not speak of degradation."""
        app = build(View(path="/", decorators=[limit("9/minute")]), degraded_header=False)
        with store.away():
            assert None is app.get("/").header("Degraded")
