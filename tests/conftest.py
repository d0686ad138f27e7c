"""A real server, for every test that asks for one."""

from collections.abc import Iterator

import pytest

from tests.servers import Valkey


@pytest.fixture(scope="session")
def shared_valkey() -> Iterator[Valkey]:
    """One server for all tests of a run. Nobody stops it; a test that must has a server of its own."""
    with Valkey() as server:
        yield server


@pytest.fixture
def redis_url(shared_valkey: Valkey) -> str:
    """Where that server is."""
    return shared_valkey.url
