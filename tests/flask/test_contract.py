"""Flask keeps the contract."""

from failsoft.testing import AdapterContract, Harness
from tests.flask.harness import FlaskHarness


class TestFlask(AdapterContract):
    """Flask, called in process."""

    def make_harness(self) -> Harness:
        return FlaskHarness()
