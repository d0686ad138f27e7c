"""The programs on the page about stores."""

import sys
from pathlib import Path

import pytest

from failsoft import Settings
from failsoft.stores import open_store
from failsoft.stores.redis import RedisStore
from tests.core.stores.lua import ECHO, Lua
from tests.examples.test_examples import load
from tests.servers import Valkey


def test_credentials(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The token is read from its file for each connection, and lets the store in."""
    token = tmp_path / "token"
    token.write_text("first\n")
    example = load("credentials")
    assert isinstance(open_store(example.settings), RedisStore)
    with Valkey() as server:
        server.run("ACL", "SETUSER", "limits", "on", ">first", "~*", "+@all")
        made = Settings(store={"url": server.url, "credentials": example.TokenFile(token)}, deadline=5)  # type: ignore[arg-type]
        store = open_store(made)
        assert [b"x"] == store.flight([Lua(ECHO, arguments=("x",))])
        assert "user=limits" in server.run("CLIENT", "LIST").decode()
        store.close()
    monkeypatch.delitem(sys.modules, "credentials", raising=False)
