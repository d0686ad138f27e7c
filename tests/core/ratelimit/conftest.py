"""The shared server, empty."""

from collections.abc import Iterator

import pytest
import redis

from tests.core.stores.lua import Both
from tests.servers import Valkey


@pytest.fixture
def valkey(shared_valkey: Valkey) -> Valkey:
    """The server that all tests share, with no keys."""
    shared_valkey.run("FLUSHALL")
    return shared_valkey


@pytest.fixture
def both(valkey: Valkey) -> Iterator[Both]:
    """A table and that server, both empty, with one clock."""
    with redis.Redis.from_url(valkey.url) as client:
        yield Both(client)
