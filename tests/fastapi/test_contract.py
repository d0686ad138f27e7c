"""FastAPI keeps the contract."""

from failsoft.testing import AdapterContract
from tests.fastapi.harness import FastAPIHarness


class TestFastAPI(AdapterContract):
    """FastAPI, called in process."""

    def make_harness(self):
        return FastAPIHarness()
