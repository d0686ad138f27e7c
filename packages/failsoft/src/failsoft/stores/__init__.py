"""Where state lies that requests share, and how they get at it."""

from collections.abc import Callable
from typing import Any
from urllib.parse import urlsplit

from failsoft.clock import SYSTEM, Clock
from failsoft.events import Event
from failsoft.settings import OPTIONS, Settings
from failsoft.stores.base import Store
from failsoft.stores.memory import MemoryStore

__all__ = ["MemoryStore", "Store", "open_store"]


def open_store(
    settings: Settings,
    *,
    name: str = "default",
    clock: Clock = SYSTEM,
    publish: Callable[[Event], None] | None = None,
) -> Store:
    """The store that the settings name.

    Nothing is connected yet; a server that is away is no error here. Only ``embedded://`` starts its server.

    Args:
        settings: validated settings.
        name: what events and errors call the store.
        clock: injectable time.
        publish: hears of the store's outages and recoveries.

    Raises:
        ConfigurationError: the URL is wrong, or a package is missing; the message has the install line.
    """
    scheme = urlsplit(settings.store).scheme
    if scheme == "memory":
        return MemoryStore(clock=clock, bound=settings.memory_keys)
    # Imported here, because memory:// needs neither and both bring packages that are optional.
    if scheme == "embedded":
        from failsoft.stores.embedded_store import EmbeddedStore

        return EmbeddedStore(settings.store, **_options(settings, name, clock, publish))
    from failsoft.stores.redis import RedisStore

    return RedisStore(settings.store, **_options(settings, name, clock, publish))


def _options(settings: Settings, name: str, clock: Clock, publish: Callable[[Event], None] | None) -> dict[str, Any]:
    default = {option.name: option.default for option in OPTIONS}
    # What nobody set is left to the URL, whose query may say it.
    given = {name: getattr(settings, name) for name in ("deadline", "max_connections")}
    return {
        **{name: None if value == default[name] else value for name, value in given.items()},
        "name": name,
        "clock": clock,
        "publish": publish,
    }
