"""``failsoft sessions``: a user's sessions on a real server, without their values."""

import json
from collections.abc import Iterator
from typing import Any

import pytest

from failsoft import cli
from failsoft.cli import commands
from failsoft.inspection import counters
from failsoft.runtime import Runtime
from tests.core.described import described
from tests.core.sessions.sites import Browser, make_site
from tests.servers import Valkey, free_port, poll


@pytest.fixture
def site(shared_valkey: Valkey, monkeypatch: pytest.MonkeyPatch) -> Iterator[Runtime]:
    """An application whose store is an empty server."""
    shared_valkey.run("FLUSHALL")
    site = make_site(store=shared_valkey.url, deadline=2)
    monkeypatch.setattr(commands, "describe", lambda app: described(site))
    yield site
    site.close()


def run(*arguments: str, capsys: pytest.CaptureFixture[str], expected: int = 0) -> Any:
    """What a command prints as JSON."""
    assert expected == cli.main(["sessions", *arguments, "--json"], app="anything")
    return json.loads(capsys.readouterr().out)


def log_in(site: Runtime, subject: str, agent: str = "test/1.0") -> Browser:
    """Somebody who has put secrets into a session."""
    browser = Browser(site, agent)

    def begin() -> bool:
        request = browser.request()
        request.view.login(subject, ["pwd", "otp"])
        request.view["cart"] = ["a secret", 1]
        request.view["_own"] = "another secret"
        return request.finish() == 200

    poll(begin)
    return browser


def handle_of(browser: Browser) -> str:
    """What names its session."""
    return (browser.cookie or "")[:16]


def test_list_and_count(site: Runtime, capsys: pytest.CaptureFixture[str]) -> None:
    """A user's sessions are listed with their times and devices, and counted; nobody else's are."""
    first, second = log_in(site, "alice", "one"), log_in(site, "alice", "two " + "x" * 300)
    log_in(site, "bob")
    found = run("list", "alice", capsys=capsys)["sessions"]  # those of one millisecond in any order
    expected = {handle_of(first): "one", handle_of(second): "two " + "x" * 196}
    assert expected == {one["handle"]: one["device"] for one in found}
    assert [True, True] == [one["created"].endswith("Z") and one["seen"].endswith("Z") for one in found]
    assert 2 == run("count", "alice", capsys=capsys)["sessions"]
    assert [] == run("list", "carol", capsys=capsys, expected=1)["sessions"]
    assert 0 == cli.main(["sessions", "list", "bob"], app="anything")
    assert capsys.readouterr().out.endswith("  test/1.0\n")


def test_show(site: Runtime, capsys: pytest.CaptureFixture[str]) -> None:
    """A session is shown with names, types, sizes and times, and not one value or secret."""
    browser = log_in(site, "alice")
    handle = handle_of(browser)
    found = run("show", handle, capsys=capsys)
    fields = [(one["name"], one["type"], one["bytes"]) for one in found["fields"]]
    assert [("cart", "list", 14), ("web:_own", "str", 16)] == fields
    assert ("alice", ["pwd", "otp"], 1) == (found["subject"], found["methods"], found["version"])
    assert 0 == cli.main(["sessions", "show", handle], app="anything")
    out = capsys.readouterr().out
    assert f"{handle}: alice, logged in " in out
    assert " by pwd, otp\n" in out
    assert "    cart: list, 14 bytes\n" in out
    assert "secret" not in out
    assert (browser.cookie or "")[16:] not in out
    for other in ("x" * 16, "*", ""):
        assert not run("show", other, capsys=capsys, expected=1)["found"]


def test_names_are_printed_harmlessly(site: Runtime, capsys: pytest.CaptureFixture[str]) -> None:
    """What a terminal would act on, in a user's or a key's name, is printed as an escape; programs get the names themselves."""
    name = "\x1b]0;title\x07\n\x7f\x9b2J\u202egnp"
    browser = log_in(site, name)

    def put() -> bool:
        request = browser.request()
        request.view[name] = 1
        return request.finish() == 200

    poll(put)
    handle = handle_of(browser)
    assert 0 == cli.main(["sessions", "show", handle], app="anything")
    out = capsys.readouterr().out
    escaped = r"\u001b]0;title\u0007\n\u007f\u009b2J\u202egnp"
    assert f"{handle}: {escaped}, logged in" in out
    assert f"    {escaped}: int, 1 bytes\n" in out
    assert out.replace("\n", "").isprintable()
    cli.main(["sessions", "show", handle, "--json"], app="anything")
    out = capsys.readouterr().out
    assert out.replace("\n", "").isprintable()
    assert name == json.loads(out)["subject"]


def test_show_what_is_sealed(
    shared_valkey: Valkey, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Types of encrypted values are told where the key is here; where it is not, they are called sealed."""
    shared_valkey.run("FLUSHALL")
    for secret, expected in (("s" * 40, ["list", "str"]), ("another " * 5, ["sealed", "sealed"])):
        site = make_site(store=shared_valkey.url, deadline=2, session_encrypt=True, secret=secret)
        monkeypatch.setattr(commands, "describe", lambda app, site=site: described(site))
        try:
            if secret == "s" * 40:
                handle = handle_of(log_in(site, "alice"))
            found = run("show", handle, capsys=capsys)
        finally:
            site.close()
        assert expected == [one["type"] for one in found["fields"]]
        assert found["subject"] == ("alice" if expected[0] == "list" else None)


def test_revoke(site: Runtime, capsys: pytest.CaptureFixture[str]) -> None:
    """One session is ended, or all of a user; another user's is left alone, and no key is looked for."""
    alice, other, bob = log_in(site, "alice"), log_in(site, "alice"), log_in(site, "bob")
    assert 0 == run("revoke", "alice", handle_of(bob), capsys=capsys, expected=1)["revoked"]
    assert 1 == run("revoke", "alice", handle_of(alice), capsys=capsys)["revoked"]
    assert [None, "alice", "bob"] == [who(browser) for browser in (alice, other, bob)]
    assert 0 == cli.main(["sessions", "revoke", "alice", "--all"], app="anything")
    assert "revoked all sessions of alice; 1 were listed\n" == capsys.readouterr().out
    assert [None, None, "bob"] == [who(browser) for browser in (alice, other, bob)]
    assert 0 == run("revoke", "alice", handle_of(other), capsys=capsys, expected=1)["revoked"]


def who(browser: Browser) -> str | None:
    """Who is logged in."""
    with browser.request() as view:
        return None if view.principal is None else view.principal.subject


def test_mistakes(site: Runtime, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    """What to revoke has to be said, one or all; an application without sessions says that it has none."""
    for arguments in (["revoke", "alice"], ["revoke", "alice", "x" * 16, "--all"]):
        assert 2 == cli.main(["sessions", *arguments], app="anything")
        assert "by its handle, or --all of them" in capsys.readouterr().err
    plain = make_site(sessions=False, store="memory://")
    monkeypatch.setattr(commands, "describe", lambda app: described(plain))
    assert 2 == cli.main(["sessions", "list", "alice"], app="anything")
    assert "its setting sessions is off" in capsys.readouterr().err
    plain.close()


def test_away(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    """While the store is away, that is what is told, with the exit status 1."""
    monkeypatch.setattr(counters, "PATIENCE", 0.05)
    site = make_site(store=f"redis://127.0.0.1:{free_port()}/0")
    monkeypatch.setattr(commands, "describe", lambda app: described(site))
    try:
        for arguments in (["list", "a"], ["count", "a"], ["show", "x" * 16], ["revoke", "a", "--all"]):
            assert 1 == cli.main(["sessions", *arguments], app="anything")
            assert capsys.readouterr().out.startswith("! ")
    finally:
        site.close()


def test_the_application_is_named(
    site: Runtime, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """By itself the program is told which application it is about."""
    monkeypatch.setattr(commands, "load", lambda name: name)
    assert 0 == cli.main(["sessions", "shop:app", "count", "nobody"])
    assert "0\n" == capsys.readouterr().out
