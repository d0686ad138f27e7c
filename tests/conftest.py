"""A real server, for every test that asks for one."""

import gc
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import settings

from tests.servers import Valkey

# How many examples a property gets where the same is asked elsewhere (see tox.ini). One that needs more or fewer than others says so in
# relation: `max_examples=3 * settings().max_examples`.
settings.register_profile("few", max_examples=10)

# Of the contract, what the core makes of a request whatever serves it. It is asked once for each version of a framework; everywhere is
# asked what Python and the framework have a part in: threads and tasks, views, bodies, responses, sockets, and sessions.
_OF_THE_CORE = {
    f"failsoft.testing.contract.{name}"
    for name in (
        "concerns",
        "fields",
        "identity",
        "outage",
        "presets",
        "scopes",
        "session_fields",
        "session_outage",
        "shedding",
    )
}

# Read by type checkers, and not to be run.
collect_ignore = ["typing"]

# A tenth of the time would go into looking for garbage among modules.
gc.disable()


def pytest_itemcollected(item: pytest.Item) -> None:
    """Mark what of the contract is `broad` where adapters keep it."""
    if item.path.name == "test_contract.py" and item.function.__module__ in _OF_THE_CORE:  # type: ignore[attr-defined]  # a test
        item.add_marker("broad")


def pytest_collection_finish() -> None:
    """Have the garbage collector look at what comes from now on, and less often than it would."""
    gc.freeze()
    gc.set_threshold(10_000)
    gc.enable()


def pytest_ignore_collect(collection_path: Path, config: pytest.Config) -> bool | None:
    """Where tests of real processes are asked for, pass over files that have none: to import them all takes five seconds."""
    if config.option.markexpr.split(" and ")[0] != "processes" or collection_path.suffix != ".py":
        return None
    return True if b"mark.processes" not in collection_path.read_bytes() else None


@pytest.fixture(scope="session")
def shared_valkey() -> Iterator[Valkey]:
    """One server for all tests of a run. Nobody stops it; a test that must has a server of its own."""
    with Valkey() as server:
        yield server


@pytest.fixture
def redis_url(shared_valkey: Valkey) -> str:
    """Where that server is."""
    return shared_valkey.url
