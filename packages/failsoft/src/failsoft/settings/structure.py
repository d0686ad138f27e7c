"""`Settings`: every option of failsoft, in one frozen structure."""

import os
from collections.abc import Callable, Mapping
from dataclasses import MISSING, dataclass, field, fields
from types import MappingProxyType
from typing import Any, Literal

from failsoft.address import ForwardedHeader
from failsoft.settings import kinds, tables
from failsoft.settings.advice import advise
from failsoft.settings.criticality import Criticalities, FieldName
from failsoft.settings.kinds import Kind, Mistake
from failsoft.settings.problems import SettingProblem, SettingsError, mask
from failsoft.settings.sources import (
    CONFIG_VARIABLE,
    Option,
    Reading,
    read_environment,
    read_mapping,
    read_toml,
    workers_from,
)
from failsoft.settings.tables import Scope

__all__ = ["OPTIONS", "Settings"]


def _about(number: int, kind: Kind, doc: str) -> dict[str, Any]:
    return {"number": number, "kind": kind, "doc": doc}


@dataclass(frozen=True, slots=True, kw_only=True, repr=False)
class Settings:
    """The settings of failsoft, validated. `OPTIONS` describes each.

    The constructor takes what `from_mapping` takes, and gives every attribute in its normal form: durations are
    seconds, lists are tuples, networks are canonical.

    Raises:
        SettingsError: a value is not accepted; it lists every mistake. A name that does not exist is a TypeError here,
            as in every call, and in the other constructors a mistake that is told its nearest spelling.
    """

    store: str = field(
        default="memory://",
        metadata=_about(
            10,
            kinds.Store(),
            "Where limits are counted. memory:// counts in each process by itself. embedded:// runs a private server "
            "on this machine, for development. redis://host:port/number and unix:///socket?db=number are Redis or "
            "Valkey.",
        ),
    )
    prefix: str = field(
        default="failsoft",
        metadata=_about(
            11,
            kinds.Prefix(),
            "What every key in the store begins with. Applications that count together share it.",
        ),
    )
    deadline: float = field(
        default=0.1,
        metadata=_about(
            12,
            kinds.Seconds(0.01, 5.0),
            "How long a request may wait for the store, over the whole reply. A longer one hides more hiccups of the "
            "store, and holds more requests up when it dies.",
        ),
    )
    limits: tuple[Any, ...] = field(
        default=(),
        metadata=_about(
            13,
            kinds.Limits(),
            "Limits over the whole application: all requests of a client count together.",
        ),
    )
    route_limits: tuple[Any, ...] = field(
        default=(),
        metadata=_about(
            14,
            kinds.Limits(),
            "Limits on each route by itself.",
        ),
    )
    by: str | Callable[..., Any] | tuple[str | Callable[..., Any], ...] = field(
        default="ip",
        metadata=_about(
            15,
            kinds.Identities(),
            "Whom the limits count, where a limit does not say otherwise.",
        ),
    )
    on_outage: Literal["open", "closed", "local"] = field(
        default="local",
        metadata=_about(
            16,
            kinds.Choice(("open", "closed", "local")),
            "What a limit does while its store is down: admit everything, refuse everything with 503, or admit in each "
            "process its share of the limit.",
        ),
    )
    on_missing: Literal["ip", "exempt", "refuse"] = field(
        default="ip",
        metadata=_about(
            17,
            kinds.Choice(("ip", "exempt", "refuse")),
            "What a limit does with a request that lacks the identity it counts by: count the address, not apply, or "
            "refuse with 403.",
        ),
    )
    workers: int = field(
        default_factory=lambda: workers_from(os.environ),
        metadata=_about(
            18,
            kinds.Whole(1, what="processes"),
            "Processes of one replica. Without it WEB_CONCURRENCY, or else 1. Shares during an outage follow.",
        ),
    )
    replicas: int = field(
        default=1,
        metadata=_about(
            19,
            kinds.Whole(1, what="replicas"),
            "Machines or containers that serve the application side by side.",
        ),
    )
    local_share: float | None = field(
        default=None,
        metadata=_about(
            20,
            kinds.Fraction(zero=False, optional=True),
            "The part of each limit that one process admits while the store is down. Without it "
            "1 / (workers * replicas).",
        ),
    )
    trusted_proxies: tuple[str, ...] = field(
        default=(),
        metadata=_about(
            21,
            kinds.Proxies(),
            "The proxies in front of the application. Only a request that comes from one of them is counted for the "
            "address that its header names. 'unix' is whoever connects through a Unix socket.",
        ),
    )
    forwarded_header: ForwardedHeader = field(
        default="x-forwarded-for",
        metadata=_about(
            22,
            kinds.Choice(("x-forwarded-for", "forwarded")),
            "The one header that the trusted proxies write. Never both: a proxy passes the one that it does not "
            "write on untouched, so clients could write it.",
        ),
    )
    ipv6_prefix: int = field(
        default=64,
        metadata=_about(
            23,
            kinds.Whole(32, 128, "bits"),
            "How much of an IPv6 address tells clients apart. One customer has at least a /64, often a /56 or a /48 "
            "(RFC 6177).",
        ),
    )
    hash_keys: bool = field(
        default=False,
        metadata=_about(
            24,
            kinds.Flag(),
            "Write identities to the store as digests, so that it holds no addresses and no user names.",
        ),
    )
    secret: str | None = field(
        default=None,
        metadata=_about(
            25,
            kinds.Secret(),
            "Keys the digests of identities. The same in every process that counts together.",
        ),
    )
    algorithm: Literal["fixed-window", "gcra", "sliding-window-counter", "moving-window"] = field(
        default="fixed-window",
        metadata=_about(
            26,
            kinds.Choice(("fixed-window", "gcra", "sliding-window-counter", "moving-window")),
            "How limits are counted, where a limit does not say otherwise: in windows that begin anew, refilled steadily, "
            "in windows that slide, or with the moment of each unit.",
        ),
    )
    aligned: bool = field(
        default=False,
        metadata=_about(
            27,
            kinds.Flag(),
            "Fixed windows begin at whole multiples of their length since 1970 (UTC), not at a client's first request.",
        ),
    )
    headers: Literal["draft", "legacy", "both", "off"] = field(
        default="draft",
        metadata=_about(
            28,
            kinds.Choice(("draft", "legacy", "both", "off")),
            "What responses say of limits: RateLimit and RateLimit-Policy "
            "(draft-ietf-httpapi-ratelimit-headers-10), X-RateLimit-*, both, or nothing.",
        ),
    )
    retry_after_jitter: float = field(
        default=0.1,
        metadata=_about(
            29,
            kinds.Fraction(),
            "The share of the wait that is added at random to Retry-After, so that refused clients do not return "
            "all at once.",
        ),
    )
    enabled: bool = field(
        default=True,
        metadata=_about(
            30,
            kinds.Flag(),
            "False turns every limit off.",
        ),
    )
    outside_request: Literal["error", "allow"] = field(
        default="error",
        metadata=_about(
            31,
            kinds.Choice(("error", "allow")),
            "What a limited view does when it is called where no request is being served: raise, or run without "
            "limits.",
        ),
    )
    exempt_preflights: bool = field(
        default=True,
        metadata=_about(
            32,
            kinds.Flag(),
            "CORS preflight requests are not counted: browsers send them by themselves.",
        ),
    )
    degraded_header: bool = field(
        default=True,
        metadata=_about(
            33,
            kinds.Flag(),
            "Responses say in a header what was degraded in serving them.",
        ),
    )
    memory_keys: int = field(
        default=100_000,
        metadata=_about(
            34,
            kinds.Whole(100, 10_000_000, "keys"),
            "How many keys one process holds at most, in memory:// and during an outage. Each is about 300 bytes.",
        ),
    )
    max_connections: int = field(
        default=64,
        metadata=_about(
            35,
            kinds.Whole(1, 1000, "connections"),
            "How many connections to the store one process holds at most.",
        ),
    )

    stores: tuple[tuple[str, str], ...] = field(
        default=(),
        metadata=_about(
            36,
            tables.Stores(),
            "Further stores by name, for limits that say store=NAME. Each has connections and a breaker of its own.",
        ),
    )
    scopes: tuple[Scope, ...] = field(
        default=(),
        metadata=_about(
            37,
            tables.Scopes(),
            "Limits for a part of the application: a path prefix, a host, a blueprint or namespace. All requests of a "
            "client to that part count together.",
        ),
    )
    deny_cache: float = field(
        default=2.0,
        metadata=_about(
            38,
            kinds.Seconds(0.0, 2.0),
            "How long a process remembers that a client is refused, and refuses without asking the store. What is given "
            "back by hand is noticed that much later. 0 asks every time.",
        ),
    )
    lease: int = field(
        default=0,
        metadata=_about(
            39,
            tables.Lease(),
            "Units that a process may fetch at once for a busy client and give out by itself, so that most of that "
            "client's requests make no flight. Up to so many, less one, may be left over in each process. 0 is none.",
        ),
    )
    near_limit: float = field(
        default=0.8,
        metadata=_about(
            40,
            kinds.Fraction(zero=False),
            "The used part of a limit at which listeners are told that it is nearly reached.",
        ),
    )

    shed: bool = field(
        default=False,
        metadata=_about(
            41,
            kinds.Flag(),
            "Refuse some requests with 503 while there are more than this process can serve in time.",
        ),
    )
    shed_min: int = field(
        default=20,
        metadata=_about(
            42,
            kinds.Whole(1, 10_000, "requests"),
            "How many requests one process serves at once in any case, however slow they are. A quarter of that while it "
            "is out of CPU time.",
        ),
    )
    shed_max: int = field(
        default=200,
        metadata=_about(
            43,
            kinds.Whole(1, 10_000, "requests"),
            "How many requests one process serves at once at most, however quick they are.",
        ),
    )
    criticality: tuple[tuple[str, str], ...] = field(
        default=(),
        metadata=_about(
            44,
            Criticalities(),
            "Which requests are refused first when not all can be served, where their view is not decorated with "
            "criticality. Without it all are 'critical'; /healthz, /livez and /readyz are exempt.",
        ),
    )
    queue_header: str | None = field(
        default=None,
        metadata=_about(
            45,
            FieldName(),
            "The header field in which a trusted proxy says when it received a request, such as X-Request-Start: how "
            "long requests wait in front of this process.",
        ),
    )

    key_style: Literal["failsoft", "flask-limiter", "slowapi"] = field(
        default="failsoft",
        metadata=_about(
            46,
            kinds.Choice(("failsoft", "flask-limiter", "slowapi")),
            "Count under the keys of another package, so that switching to failsoft resets nobody's counters. For a transition: see "
            "the page on migration.",
        ),
    )

    def __post_init__(self) -> None:
        problems: list[SettingProblem] = []
        for option in OPTIONS:
            try:
                object.__setattr__(self, option.name, option.kind.read(getattr(self, option.name)))
            except Mistake as mistake:
                problems.append(option.problem(mistake, option.name))
        if problems:
            raise SettingsError(problems)

    def __repr__(self) -> str:
        """Only what differs from the defaults, without secrets."""
        shown = []
        for option in OPTIONS:
            value = getattr(self, option.name)
            if value != option.default:
                shown.append(f"{option.name}={'***' if option.name == 'secret' else mask(repr(value))}")
        return f"Settings({', '.join(shown)})"

    @classmethod
    def from_mapping(cls, mapping: Mapping[str, object], source: str = "FAILSOFT") -> "Settings":
        """Settings from a mapping, such as a framework's configuration.

        Args:
            mapping: names to values. Case does not matter: Flask's prefixed environment yields upper case. Values may
                be text.
            source: what messages call the mapping.

        Raises:
            SettingsError: lists every mistake.
        """
        return _settled([_from_mapping(mapping, source)], {})

    @classmethod
    def from_env(cls, environ: Mapping[str, str]) -> "Settings":
        """Settings from environment variables: ``FAILSOFT_STORE`` and so on.

        Args:
            environ: the environment. Lists are JSON, or separated by commas or semicolons. An empty variable counts as
                not there, and ``FAILSOFT_CONFIG`` is left to `load`. Any other name that begins with ``FAILSOFT_`` is a
                mistake.

        Raises:
            SettingsError: lists every mistake.
        """
        return _settled([read_environment(environ, _BY_NAME)], {"workers": workers_from(environ)})

    @classmethod
    def from_toml(cls, path: str | os.PathLike[str]) -> "Settings":
        """Settings from a TOML file: from ``[tool.failsoft]``, or else ``[failsoft]``, or else its top level.

        Raises:
            SettingsError: the file cannot be read, or lists every mistake in it.
        """
        return _settled([read_toml(path, _BY_NAME)], {})

    @classmethod
    def load(
        cls,
        explicit: "Mapping[str, object] | Settings | None" = None,
        *,
        environ: Mapping[str, str] | None = None,
        source: str = "FAILSOFT",
    ) -> "Settings":
        """Settings from every source, each setting from the first that has it.

        The order is: `explicit`; the environment; the TOML file that ``FAILSOFT_CONFIG`` names; the defaults.

        Args:
            explicit: a mapping as for `from_mapping`; or complete settings, which are returned as they are.
            environ: the environment, by default this process's.
            source: what messages call `explicit`.

        Raises:
            SettingsError: lists every mistake in every source.
        """
        if isinstance(explicit, Settings):
            return explicit
        environ = os.environ if environ is None else environ
        readings = [] if explicit is None else [_from_mapping(explicit, source)]
        readings.append(read_environment(environ, _BY_NAME))
        path = environ.get(CONFIG_VARIABLE)
        if path:
            readings.append(read_toml(path, _BY_NAME))
        return _settled(readings, {"workers": workers_from(environ)})

    @property
    def effective_local_share(self) -> float:
        """The part of each limit that one process admits while the store is down, above 0 and at most 1."""
        return 1 / (self.workers * self.replicas) if self.local_share is None else self.local_share

    def advice(self, *, workers_seen: int | None = None) -> tuple[SettingProblem, ...]:
        """What is allowed and yet probably not meant, for a warning at start.

        Args:
            workers_seen: how many processes of this replica are really there, where that is known.
        """
        return advise(self, workers_seen)


def _described() -> tuple[Option, ...]:
    return tuple(
        Option(
            number=one.metadata["number"],
            name=one.name,
            kind=one.metadata["kind"],
            default=1 if one.default is MISSING else one.default,  # workers: what holds where nothing says otherwise
            doc=one.metadata["doc"],
        )
        for one in fields(Settings)
    )


OPTIONS: tuple[Option, ...] = _described()
"""Every setting, as data, in the order of `Settings`."""

_BY_NAME: Mapping[str, Option] = MappingProxyType({option.name: option for option in OPTIONS})


def _from_mapping(mapping: object, source: str) -> Reading:
    return read_mapping(mapping, _BY_NAME, where=lambda key: source if key == "..." else f"{source}[{key!r}]")


def _settled(readings: list[Reading], defaults: dict[str, Any]) -> Settings:
    """The settings that `readings` make, the first having precedence."""
    problems = [problem for reading in readings for problem in reading.problems]
    if problems:
        raise SettingsError(problems)
    merged = dict(defaults)
    for reading in reversed(readings):
        merged |= reading.values
    return Settings(**merged)
