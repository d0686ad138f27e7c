"""A real server, for every test that asks for one."""

import gc
from collections.abc import Iterator

import pytest
from hypothesis import settings

from tests.servers import Valkey

# How many examples a property gets where the same is asked elsewhere (see tox.ini). One that needs more or fewer than others says so in
# relation: `max_examples=3 * settings().max_examples`.
settings.register_profile("few", max_examples=10)

# A tenth of the time would go into looking for garbage among modules.
gc.disable()


def pytest_collection_finish() -> None:
    """Have the garbage collector look at what comes from now on, and less often than it would."""
    gc.freeze()
    gc.set_threshold(10_000)
    gc.enable()


@pytest.fixture(scope="session")
def shared_valkey() -> Iterator[Valkey]:
    """One server for all tests of a run. Nobody stops it; a test that must has a server of its own."""
    with Valkey() as server:
        yield server


@pytest.fixture
def redis_url(shared_valkey: Valkey) -> str:
    """Where that server is."""
    return shared_valkey.url
