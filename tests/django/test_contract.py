"""Django keeps the contract, under both kinds of server."""

from failsoft.testing import AdapterContract, Harness
from tests.django.harness import AsgiHarness, WsgiHarness


class TestWsgi(AdapterContract):
    """Django under WSGI, called in process."""

    def make_harness(self) -> Harness:
        return WsgiHarness()


class TestAsgi(AdapterContract):
    """Django under ASGI, called in process."""

    def make_harness(self) -> Harness:
        return AsgiHarness()
