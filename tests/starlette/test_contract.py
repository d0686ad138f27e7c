"""Starlette keeps the contract."""

from failsoft.testing import AdapterContract
from tests.starlette.harness import StarletteHarness


class TestStarlette(AdapterContract):
    """Starlette, called in process."""

    def make_harness(self):
        return StarletteHarness()
