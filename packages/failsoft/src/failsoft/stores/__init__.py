"""Where state lies that requests share, and how they get at it."""

from collections.abc import Callable, Mapping
from importlib import import_module
from typing import Any

from failsoft.clock import SYSTEM, Clock
from failsoft.events import Event
from failsoft.settings import OPTIONS, Settings, SettingsError
from failsoft.settings.kinds import Mistake
from failsoft.settings.urls import StoreMistake, StoreUrl
from failsoft.stores.base import Limited, Store
from failsoft.stores.memory import MemoryStore

__all__ = ["Limited", "MemoryStore", "Store", "look_at", "open_store"]


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
    scheme = settings.store.partition("://")[0]
    if scheme == "memory":
        return MemoryStore(clock=clock, bound=settings.memory_keys)
    # Imported here, because memory:// needs none of them, and they bring packages that are optional.
    module, _, kind = _KINDS.get(scheme, "failsoft.stores.redis:RedisStore").partition(":")
    make: Callable[..., Store] = getattr(import_module(module), kind)
    try:
        return make(settings.store, **_options(settings, name, clock, publish))
    except StoreMistake as mistake:  # a file, or credentials: what else it says was looked at when settings were read
        raise _named(mistake, settings.store, name) from mistake


def _named(mistake: StoreMistake, url: str, name: str) -> SettingsError:
    """`mistake`, with the setting that it is in."""
    key, where = ("store", "store") if name == "default" else ("stores", f"stores[{name!r}]")
    option = next(option for option in OPTIONS if option.name == key)
    return SettingsError([option.problem(Mistake(2, mistake.of(url), mistake.cure, complete=True), where)])


def look_at(url: str, options: Mapping[str, Any]) -> None:
    """Look at the URL of a store, and the options beside it. Nothing is opened, and nothing of the user's is imported.

    Raises:
        ConfigurationError: something of it is wrong, or a package is missing that even looking takes.
    """
    scheme = url.partition("://")[0]
    if scheme != "memory":
        module, _, look = _LOOKS.get(scheme, "failsoft.stores.redis.url:look_at_url").partition(":")
        getattr(import_module(module), look)(url, options)


_LOOKS = {
    "embedded": "failsoft.stores.embedded:look_at_url",
    "memcached": "failsoft.stores.storages.url:parse_storage_url",
    "mongodb": "failsoft.stores.storages.url:parse_storage_url",
    "mongodb+srv": "failsoft.stores.storages.url:parse_storage_url",
    "redis+cluster": "failsoft.stores.cluster.url:look_at_url",
    "rediss+cluster": "failsoft.stores.cluster.url:look_at_url",
}

_KINDS = {
    "embedded": "failsoft.stores.embedded_store:EmbeddedStore",
    "memcached": "failsoft.stores.storages:LimitsStore",
    "mongodb": "failsoft.stores.storages:LimitsStore",
    "mongodb+srv": "failsoft.stores.storages:LimitsStore",
    "redis+cluster": "failsoft.stores.cluster:ClusterStore",
    "rediss+cluster": "failsoft.stores.cluster:ClusterStore",
}


def _options(settings: Settings, name: str, clock: Clock, publish: Callable[[Event], None] | None) -> dict[str, Any]:
    default = {option.name: option.default for option in OPTIONS}
    # What nobody set is left to the URL, whose query may say it.
    given = {name: getattr(settings, name) for name in ("deadline", "max_connections")}
    beside = {"options": settings.store.options} if isinstance(settings.store, StoreUrl) else {}
    return {
        **beside,
        **{name: None if value == default[name] else value for name, value in given.items()},
        "name": name,
        "clock": clock,
        "publish": publish,
    }
