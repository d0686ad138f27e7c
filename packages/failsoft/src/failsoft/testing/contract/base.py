"""What all groups of the contract share: the harness, a clock, a store, and a way to build a site in one line."""

import inspect
from abc import abstractmethod
from collections.abc import Iterator
from typing import Any, Protocol, get_args

import pytest

from failsoft.exchange.policy import is_asynchronous
from failsoft.testing.clock import ManualClock
from failsoft.testing.faults import FaultyStore
from failsoft.testing.harness import App, Harness
from failsoft.testing.site import Position, Shape, Site, View

__all__ = ["Build", "ContractBase", "each_position", "each_shape", "either_way", "function_shapes", "hide"]

_SHAPES: tuple[Shape, ...] = ("def", "async", "class", "method")

each_position = pytest.mark.parametrize("position", get_args(Position))
each_shape = pytest.mark.parametrize("shape", _SHAPES)
function_shapes = pytest.mark.parametrize("shape", ["def", "async"])
either_way = pytest.mark.parametrize("asynchronous", [False, True], ids=["sync", "async"])

_SITE = {"clock", "concerns", "position", "random", "renderer"}
"""Keywords of `Build` that are no settings."""


class Build(Protocol):
    """Builds an application that is closed when the test ends."""

    def __call__(self, *views: View, **options: Any) -> App:
        """An application with `views`.

        Args:
            views: its routes.
            options: settings of failsoft, or the arguments of `Site` but for ``views`` and ``settings``. ``store`` is a
                setting if it is text, and a store otherwise; by default the fixture ``store``.
        """
        ...


class ContractBase:
    """The fixtures of the contract."""

    @abstractmethod
    def make_harness(self) -> Harness:
        """The harness under test; a fresh one for each test, or always the same."""

    @pytest.fixture
    def harness(self) -> Harness:
        """The harness under test."""
        return self.make_harness()

    @pytest.fixture
    def clock(self) -> ManualClock:
        """The time of every application in the test, in the middle of a minute, an hour and a day."""
        return ManualClock()

    @pytest.fixture
    def store(self, clock: ManualClock, harness: Harness) -> Iterator[FaultyStore]:
        """The store of every application in the test. No event loop may ever have been made to wait for it."""
        store = FaultyStore(clock=clock)
        yield store
        if harness.concurrency == "tasks":
            assert store.on_loop == 0, "the store was asked on the event loop by a call that waits"

    @pytest.fixture
    def build(self, harness: Harness, clock: ManualClock, store: FaultyStore) -> Iterator[Build]:
        """See `Build`."""
        apps: list[App] = []

        def build(*views: View, **options: Any) -> App:
            site: dict[str, Any] = {"clock": clock, "store": store, "random": lambda: 0.0}
            site |= {name: options.pop(name) for name in list(options) if name in _SITE}
            if "store" in options and not isinstance(options["store"], str):
                site["store"] = options.pop("store")
            elif "store" in options:
                site["store"] = None
            app = harness.build(Site(views=views, settings=options, **site))
            apps.append(app)
            return app

        yield build
        for app in reversed(apps):
            app.close()

    @pytest.fixture(autouse=True)
    def _skip_what_is_unsupported(self, request: pytest.FixtureRequest, harness: Harness) -> None:
        reasons = harness.unsupported
        plain = getattr(request.node, "originalname", None) or request.node.name
        reason = reasons.get(request.node.name) or reasons.get(plain)
        if reason is not None:
            pytest.skip(f"{harness.name}: {reason}")
        shape = getattr(request.node, "callspec", None) and request.node.callspec.params.get("shape")
        if shape and shape not in harness.shapes:
            pytest.skip(f"{harness.name}: no views of the shape {shape!r}")


def hide(view: Any) -> Any:
    """A decorator as people write them: without `functools.wraps`, so that nobody can see what is inside.

    It takes the arguments that `view` takes, by name, for frameworks that look at a function's signature.
    """

    async def hidden_async(*args: Any, **kwargs: Any) -> Any:
        return await view(*args, **kwargs)

    def hidden_sync(*args: Any, **kwargs: Any) -> Any:
        return view(*args, **kwargs)

    hidden: Any = hidden_async if is_asynchronous(view) else hidden_sync
    hidden.__signature__ = inspect.signature(view)
    return hidden
