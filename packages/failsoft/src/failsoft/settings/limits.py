"""Settings of rate limits, and of what every part of failsoft stands on: the store, the processes, the proxies."""

import os
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, Literal

from failsoft.address import ForwardedHeader
from failsoft.settings import counting, kinds, tables
from failsoft.settings.sources import about
from failsoft.settings.tables import Scope
from failsoft.settings.urls import MAX_CONNECTIONS
from failsoft.settings.workers import workers_from

__all__ = ["LimitSettings"]


@dataclass(frozen=True, kw_only=True, repr=False)
class LimitSettings:
    """Part of `Settings`, which has the slots."""

    __slots__ = ()

    store: str = field(
        default="memory://",
        metadata=about(
            10,
            kinds.Store(),
            "Where limits are counted. memory:// counts in each process by itself. embedded:// runs a private server "
            "on this machine, for development. redis://host:port/number and unix:///socket?db=number are Redis or "
            "Valkey.",
        ),
    )
    prefix: str = field(
        default="failsoft",
        metadata=about(
            11,
            kinds.Prefix(),
            "What every key in the store begins with. Applications that count together share it.",
        ),
    )
    deadline: float = field(
        default=0.1,
        metadata=about(
            12,
            kinds.Seconds(0.01, 5.0),
            "How long a request may wait for the store, over the whole reply. A longer one hides more hiccups of the "
            "store, and holds more requests up when it dies.",
        ),
    )
    limits: tuple[Any, ...] = field(
        default=(),
        metadata=about(
            13,
            counting.Limits(),
            "Limits over the whole application: all requests of a client count together.",
        ),
    )
    route_limits: tuple[Any, ...] = field(
        default=(),
        metadata=about(
            14,
            counting.Limits(),
            "Limits on each route by itself.",
        ),
    )
    by: str | Callable[..., Any] | tuple[str | Callable[..., Any], ...] = field(
        default="ip",
        metadata=about(
            15,
            counting.Identities(),
            "Whom the limits count, where a limit does not say otherwise.",
        ),
    )
    on_outage: Literal["open", "closed", "local"] = field(
        default="local",
        metadata=about(
            16,
            kinds.Choice(("open", "closed", "local")),
            "What a limit does while its store is down: admit everything, refuse everything with 503, or admit in each "
            "process its share of the limit.",
        ),
    )
    on_missing: Literal["ip", "exempt", "refuse"] = field(
        default="ip",
        metadata=about(
            17,
            kinds.Choice(("ip", "exempt", "refuse")),
            "What a limit does with a request that lacks the identity it counts by: count the address, not apply, or "
            "refuse with 403.",
        ),
    )
    workers: int = field(
        default_factory=lambda: workers_from(os.environ),
        metadata=about(
            18,
            kinds.Whole(1, what="processes"),
            "Processes of one replica. Without it what gunicorn or uvicorn was told on its command line (--workers, -w), or else "
            "WEB_CONCURRENCY, or else 1. Shares during an outage follow.",
        ),
    )
    replicas: int = field(
        default=1,
        metadata=about(
            19,
            kinds.Whole(1, what="replicas"),
            "Machines or containers that serve the application side by side.",
        ),
    )
    local_share: float | None = field(
        default=None,
        metadata=about(
            20,
            kinds.Fraction(zero=False, optional=True),
            "The part of each limit that one process admits while the store is down. Without it "
            "1 / (workers * replicas).",
        ),
    )
    trusted_proxies: tuple[str, ...] = field(
        default=(),
        metadata=about(
            21,
            kinds.Proxies(),
            "The proxies in front of the application. Only a request that comes from one of them is counted for the "
            "address that its header names. 'unix' is whoever connects through a Unix socket.",
        ),
    )
    forwarded_header: ForwardedHeader = field(
        default="x-forwarded-for",
        metadata=about(
            22,
            kinds.Choice(("x-forwarded-for", "forwarded")),
            "The one header that the trusted proxies write. Never both: a proxy passes the one that it does not "
            "write on untouched, so clients could write it.",
        ),
    )
    ipv6_prefix: int = field(
        default=64,
        metadata=about(
            23,
            kinds.Whole(32, 128, "bits"),
            "How much of an IPv6 address tells clients apart. One customer has at least a /64, often a /56 or a /48 "
            "(RFC 6177).",
        ),
    )
    hash_keys: bool = field(
        default=False,
        metadata=about(
            24,
            kinds.Flag(),
            "Write identities to the store as digests, so that it holds no addresses and no user names.",
        ),
    )
    secret: str | None = field(
        default=None,
        metadata=about(
            25,
            kinds.Secret(),
            "Keys the digests of identities. The same in every process that counts together. Sessions need one, the same in "
            "every application that shares them.",
        ),
    )
    algorithm: Literal["fixed-window", "gcra", "sliding-window-counter", "moving-window"] = field(
        default="fixed-window",
        metadata=about(
            26,
            kinds.Choice(("fixed-window", "gcra", "sliding-window-counter", "moving-window")),
            "How limits are counted, where a limit does not say otherwise: in windows that begin anew, refilled steadily, "
            "in windows that slide, or with the moment of each unit.",
        ),
    )
    aligned: bool = field(
        default=False,
        metadata=about(
            27,
            kinds.Flag(),
            "Fixed windows of at most a day begin at whole multiples of their length since 1970 (UTC), not at a client's first request. "
            "Longer ones, and what another algorithm counts, are as they would be without it.",
        ),
    )
    headers: Literal["draft", "legacy", "both", "off"] = field(
        default="draft",
        metadata=about(
            28,
            kinds.Choice(("draft", "legacy", "both", "off")),
            "What responses say of limits: RateLimit and RateLimit-Policy "
            "(draft-ietf-httpapi-ratelimit-headers-10), X-RateLimit-*, both, or nothing.",
        ),
    )
    retry_after_jitter: float = field(
        default=0.1,
        metadata=about(
            29,
            kinds.Fraction(),
            "The share of the wait that is added at random to Retry-After, at least a second, so that refused clients do not return "
            "all at once. 0 adds nothing.",
        ),
    )
    enabled: bool = field(
        default=True,
        metadata=about(
            30,
            kinds.Flag(),
            "False turns every limit off.",
        ),
    )
    outside_request: Literal["error", "allow"] = field(
        default="error",
        metadata=about(
            31,
            kinds.Choice(("error", "allow")),
            "What a limited view does when it is called where no request is being served: raise, or run without "
            "limits.",
        ),
    )
    exempt_preflights: bool = field(
        default=True,
        metadata=about(
            32,
            kinds.Flag(),
            "CORS preflight requests are not counted: browsers send them by themselves.",
        ),
    )
    degraded_header: bool = field(
        default=True,
        metadata=about(
            33,
            kinds.Flag(),
            "Responses say in a header what was degraded in serving them.",
        ),
    )
    memory_keys: int = field(
        default=100_000,
        metadata=about(
            34,
            kinds.Whole(100, 10_000_000, "keys"),
            "How many keys one process holds at most, in memory:// and during an outage. Each is about 300 bytes.",
        ),
    )
    max_connections: int = field(
        default=64,
        metadata=about(
            35,
            kinds.Whole(*MAX_CONNECTIONS, "connections"),
            "How many connections to the store one process holds at most.",
        ),
    )
    stores: tuple[tuple[str, str], ...] = field(
        default=(),
        metadata=about(
            36,
            tables.Stores(),
            "Further stores by name, for limits that say store=NAME. Each has connections and a breaker of its own.",
        ),
    )
    scopes: tuple[Scope, ...] = field(
        default=(),
        metadata=about(
            37,
            tables.Scopes(),
            "Limits for a part of the application: a path prefix, a host, a blueprint or namespace. All requests of a "
            "client to that part count together.",
        ),
    )
    deny_cache: float = field(
        default=2.0,
        metadata=about(
            38,
            kinds.Seconds(0.0, 2.0),
            "How long a process remembers that a client is refused, and refuses without asking the store. What is given "
            "back by hand is noticed that much later. 0 asks every time.",
        ),
    )
    lease: int = field(
        default=0,
        metadata=about(
            39,
            tables.Lease(),
            "Units that a process may fetch at once for a busy client and give out by itself, so that most of that "
            "client's requests make no flight. Up to so many, less one, may be left over in each process. 0 is none.",
        ),
    )
    near_limit: float = field(
        default=0.8,
        metadata=about(
            40,
            kinds.Fraction(zero=False),
            "The used part of a limit at which listeners are told that it is nearly reached.",
        ),
    )
    key_style: Literal["failsoft", "flask-limiter", "slowapi"] = field(
        default="failsoft",
        metadata=about(
            46,
            kinds.Choice(("failsoft", "flask-limiter", "slowapi")),
            "Count under the keys of another package, so that switching to failsoft resets nobody's counters. For a transition: see "
            "the page on migration.",
        ),
    )
