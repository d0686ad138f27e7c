"""The contract of identities: whom a limit counts."""

from typing import Any

from failsoft.ratelimit import late, limit
from failsoft.testing.contract.base import Build, ContractBase, each_position, either_way, function_shapes
from failsoft.testing.faults import FaultyStore
from failsoft.testing.harness import PEER, Harness
from failsoft.testing.site import Position, Shape, View

__all__ = ["IdentityContract"]

_PROXY = "10.0.0.1"
_XFF = "X-Forwarded-For"


class IdentityContract(ContractBase):
    """Whom a limit counts."""

    def test_by_address(self, build: Build) -> None:
        """By default each client address has a count of its own."""
        app = build(View(path="/", decorators=[limit("1/minute")]))
        peers = (PEER, "203.0.113.8", PEER, "203.0.113.8")
        assert [200, 200, 429, 429] == [app.get("/", peer=peer).status for peer in peers]

    def test_by_ipv6_network(self, build: Build) -> None:
        """All addresses of one IPv6 /64 are one client."""
        app = build(View(path="/", decorators=[limit("1/minute")]))
        peers = ("2001:db8:1:2::3", "2001:db8:1:2:ffff::4", "2001:db8:1:3::3")
        assert [200, 429, 200] == [app.get("/", peer=peer).status for peer in peers]

    def test_by_header(self, build: Build) -> None:
        """A limit by a header counts each of its values."""
        app = build(View(path="/", decorators=[limit("1/minute", by="header:X-Api-Key")]))
        keys = ("a", "b", "a", "b")
        assert [200, 200, 429, 429] == [app.get("/", ("X-Api-Key", key)).status for key in keys]

    @either_way
    def test_by_function(self, build: Build, harness: Harness, asynchronous: bool) -> None:
        """A function of the framework's request, plain or async, can say whom to count."""

        def tenant(request: Any) -> str | None:
            return harness.header(request, "X-Tenant")

        async def tenant_async(request: Any) -> str | None:
            return harness.header(request, "X-Tenant")

        app = build(View(path="/", decorators=[limit("1/minute", by=tenant_async if asynchronous else tenant)]))
        tenants = ("a", "b", "a", "b")
        assert [200, 200, 429, 429] == [app.get("/", ("X-Tenant", one)).status for one in tenants]

    def test_by_function_in_the_settings(self, build: Build, harness: Harness) -> None:
        """The setting `by` takes a function too, and holds for the settings' limits and for limits that do not say."""
        app = build(
            View(path="/"),
            View(path="/own", decorators=[limit("1/minute")]),
            limits=["3/minute"],
            by=lambda request: harness.header(request, "X-Tenant"),
        )
        assert [200, 429] == app.statuses(2, "/own", ("X-Tenant", "a"))
        assert [200, 200, 429] == app.statuses(3, "/", ("X-Tenant", "a"))
        assert [200] == app.statuses(1, "/", ("X-Tenant", "b"))

    def test_by_several(self, build: Build) -> None:
        """A sequence counts each combination."""
        app = build(View(path="/", decorators=[limit("1/minute", by=("ip", "header:X-Api-Key"))]))
        asked = [("a", PEER), ("b", PEER), ("a", "203.0.113.8"), ("a", PEER)]
        assert [200, 200, 200, 429] == [app.get("/", ("X-Api-Key", key), peer=peer).status for key, peer in asked]

    def test_a_tuple_is_not_its_joined_text(self, build: Build, harness: Harness) -> None:
        """What a function returns as a tuple is never confused with another tuple."""

        def parts(request: Any) -> tuple[str, str]:
            return harness.header(request, "X-One") or "", harness.header(request, "X-Two") or ""

        app = build(View(path="/", decorators=[limit("1/minute", by=parts)]))
        asked = [("a:b", "c"), ("a", "b:c"), ("a:b", "c")]
        assert [200, 200, 429] == [app.get("/", ("X-One", one), ("X-Two", two)).status for one, two in asked]

    @function_shapes
    def test_late(self, build: Build, harness: Harness, store: FaultyStore, shape: Shape) -> None:
        """A late identity is asked with the view's own arguments, just before its body, in a second flight."""

        def owner(*args: Any, **kwargs: Any) -> str:
            return harness.params(args, kwargs)["owner"]

        async def owner_async(*args: Any, **kwargs: Any) -> str:
            return owner(*args, **kwargs)

        by = late(owner_async if shape == "async" else owner)
        app = build(View(path="/of/{owner}", decorators=[limit("1/minute", by=by)], shape=shape), limits=["9/minute"])
        statuses = [app.get(f"/of/{owner}").status for owner in ("alice", "bob", "alice", "bob")]
        assert [200, 200, 429, 429] == statuses
        assert 8 == len(store.flights)

    @function_shapes
    def test_late_beside_early(self, build: Build, harness: Harness, shape: Shape) -> None:
        """A view's other limits are not charged again when its late one is."""
        by = late(lambda *args, **kwargs: harness.params(args, kwargs)["owner"])
        decorators = [limit("3/minute", name="early"), limit("2/minute", by=by, name="late")]
        app = build(View(path="/of/{owner}", decorators=decorators, shape=shape))
        replies = [app.get(f"/of/{owner}") for owner in ("alice", "bob", "alice", "alice")]
        assert [200, 200, 200, 429] == [reply.status for reply in replies]
        assert [2, 1, 0, 0] == [reply.limits["early"].remaining for reply in replies]
        assert [1, 1, 0] == [reply.limits["late"].remaining for reply in replies[:3]]

    @each_position
    def test_by_user(self, build: Build, harness: Harness, position: Position) -> None:
        """A limit by user counts the user that the framework has authenticated, wherever the middleware stands."""
        app = build(View(path="/", decorators=[limit("1/minute", by="user")]), position=position)
        users = ("alice", "bob", "alice", "bob")
        assert [200, 200, 429, 429] == [app.get("/", *harness.user_headers(user)).status for user in users]

    @each_position
    def test_anonymous_is_no_user(self, build: Build, position: Position) -> None:
        """A request without a user lacks the identity; it is not counted with all others like it."""
        view = View(path="/", decorators=[limit("1/minute", by="user", on_missing="exempt")])
        app = build(view, position=position)
        assert [200, 200] == app.statuses(2, "/")

    def test_missing_counts_the_address(self, build: Build) -> None:
        """With ``on_missing="ip"``, the default, a request that lacks the identity is counted by its address."""
        app = build(View(path="/", decorators=[limit("1/minute", by="header:X-Api-Key")]))
        assert [200, 200, 429] == [app.get("/", peer=peer).status for peer in (PEER, "203.0.113.8", PEER)]

    def test_missing_is_exempt(self, build: Build) -> None:
        """With ``on_missing="exempt"`` the limit does not apply to a request that lacks the identity."""
        app = build(View(path="/", decorators=[limit("1/minute", by="header:X-Api-Key", on_missing="exempt")]))
        assert [200, 200, 200] == app.statuses(3, "/")

    def test_missing_is_refused(self, build: Build, store: FaultyStore) -> None:
        """With ``on_missing="refuse"`` a request that lacks the identity gets a 403, and is charged to nothing."""
        app = build(
            View(path="/", decorators=[limit("1/minute", by="header:X-Api-Key", on_missing="refuse")]),
            limits=["5/minute"],
        )
        reply = app.get("/")
        assert (403, "application/problem+json") == (reply.status, reply.header("Content-Type"))
        assert [] == list(store.flights)
        assert 200 == app.get("/", ("X-Api-Key", "a")).status

    def test_forwarding_header_of_a_client(self, build: Build) -> None:
        """Without trusted proxies a client cannot make itself another with X-Forwarded-For."""
        app = build(View(path="/", decorators=[limit("1/minute")]))
        assert [200, 429] == [app.get("/", (_XFF, claimed)).status for claimed in ("192.0.2.1", "192.0.2.2")]

    def test_trusted_proxy(self, build: Build) -> None:
        """Behind a trusted proxy the client is the address that the proxy saw."""
        app = build(View(path="/", decorators=[limit("1/minute")]), trusted_proxies=["10.0.0.0/8"])
        clients = ("192.0.2.1", "192.0.2.2", "192.0.2.1")
        assert [200, 200, 429] == [app.get("/", (_XFF, client), peer=_PROXY).status for client in clients]

    def test_spoofed_left_most_address(self, build: Build) -> None:
        """What a client wrote into the header itself stands to the left of what the proxy saw, and is not read."""
        app = build(View(path="/", decorators=[limit("1/minute")]), trusted_proxies=["10.0.0.0/8"])
        chains = ("198.51.100.1, 192.0.2.1", "198.51.100.2, 192.0.2.1, 10.0.0.2")
        assert [200, 429] == [app.get("/", (_XFF, chain), peer=_PROXY).status for chain in chains]

    def test_repeated_forwarding_lines(self, build: Build) -> None:
        """A second line of the header is to the right of the first: the proxy's word, not the client's."""
        app = build(View(path="/", decorators=[limit("1/minute")]), trusted_proxies=["10.0.0.0/8"])
        spoofed = ("198.51.100.1", "198.51.100.2")
        replies = [app.get("/", (_XFF, claimed), (_XFF, "192.0.2.1"), peer=_PROXY) for claimed in spoofed]
        assert [200, 429] == [reply.status for reply in replies]

    def test_unix_socket(self, build: Build) -> None:
        """Over a Unix socket there is no address: refused, unless the socket is said to be a proxy."""
        view = View(path="/", decorators=[limit("1/minute")])
        assert 403 == build(view).get("/", (_XFF, "192.0.2.1"), peer=None).status
        behind = build(view, trusted_proxies=["unix"])
        clients = ("192.0.2.1", "192.0.2.2", "192.0.2.1")
        assert [200, 200, 429] == [behind.get("/", (_XFF, client), peer=None).status for client in clients]

    def test_secrets_stay_here(self, build: Build, store: FaultyStore) -> None:
        """A header's value, which may be a secret, is in no key."""
        app = build(View(path="/", decorators=[limit("1/minute", by="header:X-Api-Key")]))
        assert 200 == app.get("/", ("X-Api-Key", "sesame-open-1234")).status
        assert store.keys
        assert [] == [key for key in store.keys if "sesame" in key]
