"""Fixtures for pytest, there as soon as failsoft is installed.

- ``failsoft_off``: no limit applies in this test.
- ``failsoft_clock``: time stands still for the limits until the test advances it.

Both act on every application of this process, made before the test or in it, through whatever framework. Loaded with
every run of pytest in an environment that has failsoft, so it imports nothing until a fixture is used.
"""

from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from failsoft.runtime import Runtime
    from failsoft.stores import MemoryStore
    from failsoft.testing.clock import ManualClock

__all__ = ["failsoft_clock", "failsoft_off"]


@pytest.fixture
def failsoft_off(monkeypatch: pytest.MonkeyPatch) -> None:
    """Turn every limit off for this test, as ``enabled=False`` does."""

    def turn_off(runtime: "Runtime") -> None:
        monkeypatch.setattr(runtime, "enabled", False)

    _with_each_runtime(turn_off, monkeypatch)


@pytest.fixture
def failsoft_clock(monkeypatch: pytest.MonkeyPatch) -> "Iterator[ManualClock]":
    """A `failsoft.testing.ManualClock`, started at the present, that every limit of this test goes by.

    Limits begin the test unused, and what the test used of them is forgotten afterwards. Only ``memory://`` can be held
    still: with a store that has a clock of its own, the fixture, or the application's construction, raises
    `failsoft.ConfigurationError`.
    """
    import gc
    import time

    from failsoft.errors import ConfigurationError
    from failsoft.runtime import runtimes
    from failsoft.stores import MemoryStore
    from failsoft.testing.clock import ManualClock

    clock = ManualClock(time.time())
    stores: list[MemoryStore] = []

    def hold_still(runtime: "Runtime") -> None:
        for store in runtime.stores.values():
            if not isinstance(store, MemoryStore):
                raise ConfigurationError(
                    f"failsoft_clock cannot hold {store.url} still: its windows are counted by the clock of the store. "
                    'Give the application of this test the setting store="memory://", or close the one that uses the other.'
                )
            monkeypatch.setattr(store, "clock", clock)
            stores.append(store)
            _forget(store)
        for holder in (runtime, runtime.limits):
            monkeypatch.setattr(holder, "clock", clock)

    if not all(isinstance(store, MemoryStore) for runtime in runtimes() for store in runtime.stores.values()):
        gc.collect()  # an application of an earlier test, which nobody has any more, may still be there by chance
    _with_each_runtime(hold_still, monkeypatch)
    yield clock
    # A window that ends in the test's future would hold up the tests that come after it.
    for store in stores:
        _forget(store)


def _forget(store: "MemoryStore") -> None:
    with store.table.lock:
        store.table.clear()


def _with_each_runtime(do: "Callable[[Runtime], None]", monkeypatch: pytest.MonkeyPatch) -> None:
    """`do` with every runtime there is, and with each that is made until the test ends."""
    from failsoft.runtime import Runtime, runtimes

    for runtime in runtimes():
        do(runtime)
    make = Runtime.__init__

    def make_and_do(self: "Runtime", *args: object, **kwargs: object) -> None:
        make(self, *args, **kwargs)  # type: ignore[arg-type]  # whatever it is called with
        try:
            do(self)
        except BaseException:
            self.close()  # whoever asked for it gets the error instead
            raise

    monkeypatch.setattr(Runtime, "__init__", make_and_do)
