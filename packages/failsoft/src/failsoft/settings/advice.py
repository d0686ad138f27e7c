"""Advice: settings that are allowed and yet probably not meant. Only what can be known is said, never a guess."""

import os
from collections.abc import Iterator
from typing import TYPE_CHECKING

from failsoft.quota import Quota, parse_quotas
from failsoft.settings.problems import SettingProblem
from failsoft.settings.servers import believes_everyone

if TYPE_CHECKING:
    from failsoft.settings.structure import Settings

__all__ = ["advise"]


def advise(settings: "Settings", workers_seen: int | None) -> tuple[SettingProblem, ...]:
    """What `Settings.advice` says."""
    workers = max(settings.workers, workers_seen or 1)
    found: list[SettingProblem] = []

    def say(number: int, key: str, message: str, hint: str) -> None:
        found.append(SettingProblem(id=f"failsoft.W{number:03}", key=key, message=message, hint=hint, where=key))

    def say_apart(number: int, counters: int, what: str) -> None:
        message = f"each of the {counters} {what} counts by itself: a limit of 10 admits up to {10 * counters}"
        say(number, "store", message, "use a store that they share, such as redis://")

    if settings.store == "memory://" and workers * settings.replicas > 1:
        say_apart(1, workers * settings.replicas, "workers")
    if settings.store.startswith("embedded://") and settings.replicas > 1:
        say_apart(2, settings.replicas, "replicas")
    if everyone := [network for network in settings.trusted_proxies if network.endswith("/0")]:
        message = f"{' and '.join(everyone)} lets every client say what its address is: limits by address bind nobody"
        say(3, "trusted_proxies", message, "name only the proxies that connect to the application")
    if settings.hash_keys and settings.secret is None:
        message = "digests without a secret can be undone by trying every address or user name"
        say(
            4,
            "secret",
            message,
            "set a secret of at least 16 characters (32, if there are to be sessions), the same in every process",
        )
    if workers > settings.workers and settings.on_outage == "local" and settings.local_share is None:
        excess = f"{workers / settings.workers:g} times as much"
        message = (
            f"{workers} workers run, the setting says {settings.workers}: in an outage limits admit up to {excess}"
        )
        say(5, "workers", message, f"set workers to {workers}, or WEB_CONCURRENCY")
    if settings.queue_header is not None and not settings.trusted_proxies:
        message = f"no proxy is trusted, so nobody is believed who says in {settings.queue_header} when a request came"
        say(6, "queue_header", message, "name the proxies in trusted_proxies")
    if settings.sessions and dict(settings.stores).get(settings.session_store, settings.store) == "memory://":
        message = "sessions in memory:// end with the process, and no other process has them"
        if workers > 1:
            message = (
                f"each of the {workers} workers has sessions of its own in memory://: users are logged out at random"
            )
        say(7, "session_store", message, "use a store that outlives the process, such as redis://")
    if settings.cookie_partitioned and settings.cookie_samesite != "none":
        message = f"embedded pages get no cookie with SameSite={settings.cookie_samesite.title()}, so it is never apart"
        say(8, "cookie_partitioned", message, "set cookie_samesite to 'none'")
    if settings.sessions and settings.session_snapshot_keys and not settings.session_snapshot:
        message = (
            "no snapshot carries them, since session_snapshot is 0: without the store they are as unknown as all others"
        )
        say(9, "session_snapshot_keys", message, "set session_snapshot, such as '5m', or leave them out")
    if settings.aligned and (beyond := list(dict.fromkeys(_not_aligned(settings)))):
        message = f"it does not reach {', '.join(beyond)}: only fixed windows of at most a day are aligned"
        say(10, "aligned", message, "set it on single limits instead, or write those as a failsoft.Quota")
    if believes_everyone(os.environ):
        message = (
            "the server takes the address of every client from the left of X-Forwarded-For (forwarded-allow-ips is '*'), which clients "
            "write where a proxy only appends to it: limits by address bind nobody"
        )
        hint = "name your proxies in forwarded-allow-ips; or start uvicorn with --no-proxy-headers, and name them in trusted_proxies"
        say(11, "trusted_proxies", message, hint)
    return tuple(found)


def _not_aligned(settings: "Settings") -> Iterator[str]:
    """The limits that the setting `aligned` does not reach, but for those that say themselves how they are counted."""
    for one in (
        *settings.limits,
        *settings.route_limits,
        *(limit for scope in settings.scopes for limit in scope.limits),
    ):
        if not isinstance(one, Quota):
            for quota in parse_quotas(one, algorithm=settings.algorithm, aligned=True):
                if not quota.aligned and quota.burst is None:
                    yield str(quota)
