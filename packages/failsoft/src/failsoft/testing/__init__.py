"""Tools for those who test an application that uses failsoft, and for those who write an adapter or a concern.

For applications: `ManualClock`, `FaultyStore`, `outside_request`, and the fixtures ``failsoft_off`` and
``failsoft_clock``, which pytest finds by itself (`failsoft.testing.plugin`).

For adapters: `AdapterContract`, the tests that every adapter passes, and what its harness is made of: `Harness`,
`Site`, `View`, `Call`, `Answer`, `App`, `Reply`, with `WsgiApp` and `AsgiApp` to serve. For concerns: `LastStatus`, a
small one to copy from.

All of this is public and follows the version number like the rest. Names are imported when first used: only
`AdapterContract` needs pytest.
"""

import sys
from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from failsoft.testing.clock import ManualClock
    from failsoft.testing.contract import AdapterContract
    from failsoft.testing.faults import FaultyStore
    from failsoft.testing.harness import PEER, App, Concurrency, Conversation, Harness, LimitView, Reply
    from failsoft.testing.outside import outside_request
    from failsoft.testing.servers import AsgiApp, WsgiApp
    from failsoft.testing.site import Answer, Call, Position, Shape, Site, View
    from failsoft.testing.toy import LastStatus

__all__ = [
    "PEER",
    "AdapterContract",
    "Answer",
    "App",
    "AsgiApp",
    "Call",
    "Concurrency",
    "Conversation",
    "FaultyStore",
    "Harness",
    "LastStatus",
    "LimitView",
    "ManualClock",
    "Position",
    "Reply",
    "Shape",
    "Site",
    "View",
    "WsgiApp",
    "outside_request",
]

_HOMES = {
    "AdapterContract": "contract",
    "Answer": "site",
    "AsgiApp": "servers",
    "Call": "site",
    "FaultyStore": "faults",
    "LastStatus": "toy",
    "ManualClock": "clock",
    "Position": "site",
    "Shape": "site",
    "Site": "site",
    "View": "site",
    "WsgiApp": "servers",
    "outside_request": "outside",
}
"""Where a name is defined, if not in ``harness``."""


def __getattr__(name: str) -> Any:
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    module = f"{__name__}.{_HOMES.get(name, 'harness')}"
    if name == "AdapterContract" and module not in sys.modules:
        import pytest

        # So that its assertions say what they saw; pytest does this by itself only for installed plugins.
        pytest.register_assert_rewrite(module)
    value = globals()[name] = getattr(import_module(module), name)
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
