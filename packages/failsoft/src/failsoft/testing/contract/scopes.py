"""The contract of scopes: limits of the settings for a part of an application, told by path, host or group."""

from failsoft.ratelimit import exempt, limit
from failsoft.testing.contract.base import Build, ContractBase
from failsoft.testing.faults import FaultyStore
from failsoft.testing.harness import PEER
from failsoft.testing.site import View

__all__ = ["ScopeContract"]

_API = {"name": "api", "limits": ["3/minute"], "prefix": "/api"}
_ONE_HOST = {"name": "one", "limits": ["2/minute"], "host": "api.example.com"}
_HOSTS = {"name": "any", "limits": ["2/minute"], "host": "*.example.com"}
_SHOP = {"name": "shop", "limits": ["3/minute"], "group": "shop"}


class ScopeContract(ContractBase):
    """Limits of the settings for a part of an application, told by path, host or group."""

    def test_prefix(self, build: Build, store: FaultyStore) -> None:
        """All requests of a client below a prefix count together, those to the prefix itself too; no others do."""
        app = build(*[View(path=path) for path in ("/api", "/api/a", "/api/b/{id}", "/apiary", "/")], scopes=[_API])
        paths = ("/api", "/api/a", "/api/b/7", "/api/a", "/api/b/8")
        assert [200, 200, 200, 429, 429] == [app.get(path).status for path in paths]
        asked = len(store.flights)
        assert [200] * 4 == [app.get(path).status for path in ("/apiary", "/", "/apiary", "/")]
        assert asked == len(store.flights)

    def test_prefix_of_unknown_paths(self, build: Build) -> None:
        """A path that no route knows counts too, if it is below the prefix, and so does a method that no route takes."""
        app = build(View(path="/api/a"), scopes=[_API])
        replies = [app.get("/api/missing"), app.request("DELETE", "/api/a"), app.get("/api/a"), app.get("/api/none")]
        assert [404, 405, 200, 429] == [reply.status for reply in replies]
        assert [2, 1, 0, 0] == [reply.limits["3-per-minute"].remaining for reply in replies]
        assert [404, 404] == app.statuses(2, "/missing")

    def test_prefix_in_another_spelling(self, build: Build) -> None:
        """Percent-encoding characters of the path is no way around."""
        app = build(View(path="/api/a"), scopes=[_API])
        assert [200, 200, 200, 429] == [app.get(path).status for path in ("/%61pi/a", "/a%70i/a", "/api/a", "/%61pi/a")]

    def test_clients_of_a_scope(self, build: Build) -> None:
        """Each client has a count of its own in a scope."""
        app = build(View(path="/api/a"), scopes=[_API])
        assert [200, 200, 200, 429] == app.statuses(4, "/api/a")
        assert [200] == app.statuses(1, "/api/a", peer="203.0.113.8")

    def test_host(self, build: Build) -> None:
        """A scope by host counts that host, whatever the case, the port and the final dot; and no other."""
        app = build(View(path="/"), scopes=[_ONE_HOST])
        hosts = ("api.example.com", "API.Example.com:8000", "api.example.com.", "www.example.com", "xapi.example.com")
        assert [200, 200, 429, 200, 200] == [app.get("/", ("Host", host)).status for host in hosts]

    def test_host_wildcard(self, build: Build) -> None:
        """A wildcard stands for one label or more, and not for none."""
        app = build(View(path="/"), scopes=[_HOSTS])
        hosts = ("a.example.com", "b.a.example.com:8000", "C.example.com", "example.com", "badexample.com")
        assert [200, 200, 429, 200, 200] == [app.get("/", ("Host", host)).status for host in hosts]

    def test_group(self, build: Build) -> None:
        """What the framework calls a part of the application is a scope: all its views count together."""
        app = build(
            View(path="/shop/a", group="shop"),
            View(path="/shop/b/{id}", group="shop"),
            View(path="/blog/a", group="blog"),
            View(path="/"),
            scopes=[_SHOP],
        )
        paths = ("/shop/a", "/shop/b/1", "/shop/b/2", "/shop/a", "/blog/a", "/")
        assert [200, 200, 200, 429, 200, 200] == [app.get(path).status for path in paths]

    def test_everything_must_fit(self, build: Build) -> None:
        """A scope that says several things has only the requests that all of them fit."""
        app = build(View(path="/api/a"), View(path="/"), scopes=[{**_API, "host": "api.example.com"}])
        there, elsewhere = ("Host", "api.example.com"), ("Host", "www.example.com")
        assert [200, 200, 200, 429] == app.statuses(4, "/api/a", there)
        assert [200] * 4 == app.statuses(4, "/api/a", elsewhere)
        assert [200] * 4 == app.statuses(4, "/", there)

    def test_scopes_and_other_limits(self, build: Build, store: FaultyStore) -> None:
        """Scopes, the settings' limits and the view's own are decided in one flight; who is refused by one is charged by none."""
        app = build(
            View(path="/api/a", decorators=[limit("9/minute", name="own")]),
            View(path="/api/b"),
            limits=["99/hour"],
            scopes=[_API, {"name": "a", "limits": ["8/minute"], "prefix": "/api/a"}],
        )
        replies = [app.get("/api/a") for _ in range(4)]
        assert [200, 200, 200, 429] == [reply.status for reply in replies]
        remaining = {name: one.remaining for name, one in replies[-1].limits.items()}
        assert {"99-per-hour": 96, "3-per-minute": 0, "8-per-minute": 5, "own": 6} == remaining
        assert ["3-per-minute"] == replies[-1].json()["violated-policies"]
        assert [("ratelimit.acquire",)] * 4 == list(store.flights)

    def test_exempt_views_of_a_scope(self, build: Build) -> None:
        """An exempt view does not count in its scope; its own limits hold."""
        app = build(
            View(path="/api/a"),
            View(path="/api/free", decorators=[exempt]),
            View(path="/api/own", decorators=[exempt, limit("1/minute")]),
            scopes=[_API],
        )
        assert [200] * 5 == app.statuses(5, "/api/free")
        assert [200, 429] == app.statuses(2, "/api/own")
        assert [200, 200, 200, 429] == app.statuses(4, "/api/a")

    def test_whom_a_scope_counts(self, build: Build) -> None:
        """A scope may count by something of its own."""
        app = build(
            View(path="/api/a"), View(path="/"), limits=["4/minute"], scopes=[{**_API, "by": "header:X-Tenant"}]
        )
        asked = [("a", PEER), ("a", "203.0.113.8"), ("a", "203.0.113.9"), ("a", "203.0.113.10"), ("b", PEER)]
        statuses = [app.get("/api/a", ("X-Tenant", tenant), peer=peer).status for tenant, peer in asked]
        assert [200, 200, 200, 429, 200] == statuses

    def test_outage_in_a_scope(self, build: Build, store: FaultyStore) -> None:
        """A scope may say what it does without its store; elsewhere the setting holds."""
        app = build(View(path="/api/a"), View(path="/"), limits=["9/minute"], scopes=[{**_API, "on_outage": "closed"}])
        with store.away():
            assert [503, 200] == [app.get(path).status for path in ("/api/a", "/")]
