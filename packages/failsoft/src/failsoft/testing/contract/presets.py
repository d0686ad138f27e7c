"""The contract of ready-made limits."""

import json
from typing import Any

import pytest

from failsoft.presets import login
from failsoft.testing.clock import ManualClock
from failsoft.testing.contract.base import Build, ContractBase, each_position, each_shape
from failsoft.testing.faults import FaultyStore
from failsoft.testing.harness import PEER, App, Harness, Reply
from failsoft.testing.site import Answer, Call, Position, Shape, View

__all__ = ["PresetContract"]

_FORM = ("Content-Type", "application/x-www-form-urlencoded")
_JSON = ("Content-Type", "application/json")
_OTHER = "203.0.113.8"


def _attempt(app: App, who: str, *, password: str = "x", peer: str = PEER, as_json: bool = False) -> Reply:  # noqa: S107 - a made-up one
    if as_json:
        body = json.dumps({"username": who, "password": password}).encode()
        return app.request("POST", "/login", headers=[_JSON], peer=peer, body=body)
    return app.request(
        "POST", "/login", headers=[_FORM], peer=peer, body=f"username={who}&password={password}".encode()
    )


def _page(*, handle: Any = lambda call: None, shape: Shape = "def", **options: Any) -> View:
    return View(path="/login", methods=("GET", "POST"), handle=handle, shape=shape, decorators=[login(**options)])


class PresetContract(ContractBase):
    """Log-ins: by account and address, by account, by address."""

    @each_position
    @each_shape
    def test_login(self, build: Build, store: FaultyStore, shape: Shape, position: Position) -> None:
        """One client's attempts on one account are limited, in one flight each; another account and another client are not concerned."""
        app = build(_page(shape=shape), position=position)
        assert [200] * 5 + [429] == [_attempt(app, "alice").status for _ in range(6)]
        assert [200, 200] == [_attempt(app, "bob").status, _attempt(app, "alice", peer=_OTHER).status]
        assert [("ratelimit.acquire",)] * 8 == list(store.flights)
        assert [200] * 9 == app.statuses(9, "/login")
        assert 8 == len(store.flights)

    def test_login_in_disguise(self, build: Build) -> None:
        """A JSON body that is called a form is the account that it names, and one that is both is nobody's but the disguised."""
        app = build(_page(per_client="2/minute"))

        def ask(body: bytes) -> int:
            return app.request("POST", "/login", headers=[_FORM], body=body).status

        assert [200, 200, 429] == [ask(b'{"username": "alice"}') for _ in range(3)]
        assert 429 == _attempt(app, "alice").status
        both = [b'{"username": "bob", "x": "&username=decoy%d"}' % number for number in range(3)]
        assert [200, 200, 429] == [ask(body) for body in both]

    def test_login_in_other_spellings(self, build: Build) -> None:
        """Capitals, blanks, wide letters and another kind of body are the same account."""
        app = build(_page(per_client="5/minute"))
        spellings = [
            ("alice", False),
            ("ALICE", False),
            ("+alice+", False),
            ("\uff41\uff4c\uff49\uff43\uff45", True),
            (" Alice", True),
        ]
        assert [200] * 5 == [_attempt(app, who, as_json=as_json).status for who, as_json in spellings]
        assert [429, 429] == [_attempt(app, "alice", as_json=as_json).status for as_json in (False, True)]

    def test_login_from_many_addresses(self, build: Build) -> None:
        """Guessing one account's password from many addresses runs into the account's own limit; others do not notice."""
        app = build(_page(per_account="8/hour"))
        statuses = [_attempt(app, "alice", peer=f"203.0.113.{number % 5}").status for number in range(9)]
        assert [200] * 8 + [429] == statuses
        assert 200 == _attempt(app, "bob").status

    def test_login_to_many_accounts(self, build: Build) -> None:
        """Trying one password on many accounts runs into the address's limit; other addresses do not notice."""
        app = build(_page(per_address="8/minute"))
        assert [200] * 8 + [429] == [_attempt(app, f"user{number}").status for number in range(9)]
        assert 200 == _attempt(app, "user1", peer=_OTHER).status

    def test_login_without_an_account(self, build: Build) -> None:
        """Leaving the account's name out is no way around."""
        app = build(_page())
        assert [200] * 5 + [429] == [_attempt(app, "").status for _ in range(6)]

    def test_login_charges_failures(self, build: Build) -> None:
        """With `failures`, only failed attempts are charged."""

        def handle(call: Call) -> Answer:
            return Answer(status=401 if call.header("X-Wrong") else 200)

        app = build(_page(handle=handle, failures=(401, 403)))

        def attempt(*headers: tuple[str, str]) -> int:
            return app.request("POST", "/login", headers=[_FORM, *headers], body=b"username=alice").status

        assert [200] * 8 == [attempt() for _ in range(8)]
        assert [401] * 5 + [429] == [attempt(("X-Wrong", "1")) for _ in range(6)]
        assert 429 == attempt()

    def test_login_penalty(self, build: Build, clock: ManualClock) -> None:
        """Who goes on after refusals is shut out for longer than the window, and only from that account."""
        app = build(_page(per_client="2/minute"), deny_cache=0)
        assert [200, 200, 429, 429, 429] == [_attempt(app, "alice").status for _ in range(5)]
        clock.advance("2m")
        assert [429, 200] == [_attempt(app, who).status for who in ("alice", "bob")]
        clock.advance("3m")
        assert 200 == _attempt(app, "alice").status

    def test_login_without_the_store(self, build: Build, store: FaultyStore) -> None:
        """While the store is away attempts are refused with 503; the form is still shown."""
        app = build(_page())
        with store.away():
            reply = _attempt(app, "alice")
            assert (503, True) == (reply.status, reply.retry_after is not None)
            assert 200 == app.get("/login").status

    def test_login_pages_count_together(self, build: Build) -> None:
        """Two log-in pages of an application are no two budgets."""
        other = View(path="/other", methods=("POST",), decorators=[login()])
        app = build(_page(), other)
        assert [200] * 3 == [_attempt(app, "alice").status for _ in range(3)]
        statuses = [app.request("POST", "/other", headers=[_FORM], body=b"username=alice").status for _ in range(3)]
        assert [200, 200, 429] == statuses

    def test_accounts_stay_here(self, build: Build, store: FaultyStore) -> None:
        """No account's name is in any key, nor in what the client is told."""
        app = build(_page(per_client="1/minute"), secret="0123456789abcdef")  # noqa: S106 - a made-up one
        replies = [_attempt(app, "alice-liddell") for _ in range(2)]
        assert store.keys
        assert [] == [key for key in store.keys if "alice" in key]
        assert b"alice" not in replies[1].body

    @pytest.mark.parametrize("asynchronous", [False, True], ids=["sync", "async"])
    def test_login_by_function(self, build: Build, harness: Harness, asynchronous: bool) -> None:
        """The account may be told by a function of the request, plain or async."""

        def account(request: Any) -> str | None:
            return harness.header(request, "X-Account")

        async def account_async(request: Any) -> str | None:
            return account(request)

        app = build(_page(account=account_async if asynchronous else account, per_client="1/minute"))
        accounts = ("a", "b", "A", " b")
        statuses = [app.request("POST", "/login", headers=[("X-Account", one)]).status for one in accounts]
        assert [200, 200, 429, 429] == statuses
