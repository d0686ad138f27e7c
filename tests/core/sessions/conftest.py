"""The shared server, empty."""

import pytest

from tests.servers import Valkey


@pytest.fixture
def valkey(shared_valkey: Valkey) -> Valkey:
    """The server that all tests share, with no keys."""
    shared_valkey.run("FLUSHALL")
    return shared_valkey
