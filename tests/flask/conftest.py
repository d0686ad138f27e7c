"""What every test of the adapter must leave as it was."""

from collections.abc import Iterator

import pytest

from failsoft.exchange import current


@pytest.fixture(autouse=True)
def _leave_nothing_behind() -> Iterator[None]:
    """After each test no exchange is current."""
    yield
    assert current() is None
