"""The contract: what every adapter does, as one test suite.

Subclass `AdapterContract` in a test module, hand it a harness, and pytest runs all of it:

    class TestFlask(AdapterContract):
        def make_harness(self) -> Harness:
            return FlaskHarness()

Each test builds a small site through the harness and looks at it as a client would, so that a test says what users of
any framework can rely on. Time stands still unless a test advances it; the store is a `FaultyStore`, which lives in
memory but takes the same ways through the code as a server. With a fixture ``redis_url`` in the test suite, one test
also runs against that server.

What makes no sense for a framework is listed, with its reason, in the harness's ``unsupported``, and skipped. The tests
are grouped by what they are about; each group is a class of its own, for the reader only.
"""

from failsoft.testing.contract.base import Build, ContractBase
from failsoft.testing.contract.bodies import BodyContract
from failsoft.testing.contract.concerns import ConcernContract
from failsoft.testing.contract.concurrency import ConcurrencyContract
from failsoft.testing.contract.enforcement import EnforcementContract
from failsoft.testing.contract.fields import FieldContract
from failsoft.testing.contract.identity import IdentityContract
from failsoft.testing.contract.limits import LimitContract
from failsoft.testing.contract.outage import OutageContract
from failsoft.testing.contract.presets import PresetContract
from failsoft.testing.contract.responses import ResponseContract
from failsoft.testing.contract.scopes import ScopeContract
from failsoft.testing.contract.session_fields import SessionFieldContract
from failsoft.testing.contract.session_outage import SessionOutageContract
from failsoft.testing.contract.sessions import SessionContract
from failsoft.testing.contract.shedding import SheddingContract
from failsoft.testing.contract.sockets import WebSocketContract

__all__ = ["AdapterContract", "Build", "ContractBase"]


class AdapterContract(
    LimitContract,
    ScopeContract,
    BodyContract,
    PresetContract,
    IdentityContract,
    FieldContract,
    ResponseContract,
    EnforcementContract,
    OutageContract,
    ConcernContract,
    ConcurrencyContract,
    SheddingContract,
    SessionContract,
    SessionFieldContract,
    SessionOutageContract,
    WebSocketContract,
):
    """Everything that an adapter does. Subclass it with a `make_harness`."""

    def test_unsupported_names_tests(self) -> None:
        """Every test that the harness lists as unsupported exists, so that the list cannot outlive a renamed test."""
        named = {name.partition("[")[0] for name in self.make_harness().unsupported}
        assert set() == {name for name in named if not callable(getattr(self, name, None))}
