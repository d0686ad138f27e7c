"""A real server for the tests of this folder."""

from collections.abc import Iterator

import pytest

from tests.servers import Valkey


@pytest.fixture(scope="session")
def running() -> Iterator[Valkey]:
    """One server for all tests."""
    with Valkey() as server:
        yield server


@pytest.fixture
def valkey(running: Valkey) -> Valkey:
    """The server, empty."""
    running.run("FLUSHALL")
    return running
