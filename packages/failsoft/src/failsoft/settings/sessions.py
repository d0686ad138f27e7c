"""Settings of sessions in the store, and of their cookie."""

from dataclasses import dataclass, field
from typing import Final, Literal

from failsoft.settings import cookies, kinds, tables
from failsoft.settings.sources import about

__all__ = ["SessionSettings"]

_DAY: Final = 86_400.0

_LONGEST: Final = 400 * _DAY
"""Browsers keep no cookie longer (RFC6265bis, section 5.5)."""


@dataclass(frozen=True, kw_only=True, repr=False)
class SessionSettings:
    """Part of `Settings`, which has the slots."""

    __slots__ = ()

    sessions: bool = field(
        default=False,
        metadata=about(
            47,
            kinds.Flag(),
            "Sessions in the store, shared by all replicas and frameworks. They need secret.",
        ),
    )
    session_store: str = field(
        default="default",
        metadata=about(
            48,
            tables.StoreName(),
            "Where sessions lie: 'default' is what store names, any other is one of stores. It must not evict keys.",
        ),
    )
    session_cookie: str = field(
        default="session",
        metadata=about(
            49,
            cookies.CookieName(),
            "The name of the cookie. '__Host-' is put before it by itself where cookie_secure is true, cookie_path is '/' "
            "and there is no cookie_domain.",
        ),
    )
    session_idle: float = field(
        default=14 * _DAY,  # as Django's sessions
        metadata=about(
            50,
            kinds.Seconds(60.0, _LONGEST),
            "A session ends when it was not used for so long. At most session_absolute.",
        ),
    )
    session_absolute: float = field(
        default=30 * _DAY,
        metadata=about(
            51,
            kinds.Seconds(60.0, _LONGEST),
            "A session ends so long after its login, however much it is used. Browsers keep no cookie for more than 400 "
            "days (RFC6265bis).",
        ),
    )
    session_touch: float = field(
        default=60.0,
        metadata=about(
            52,
            kinds.Seconds(0.0, 3600.0),
            "How often at most the use of a session is written down: its end may come that much early. Less than "
            "session_idle. 0 writes at every request.",
        ),
    )
    session_grace: float = field(
        default=10.0,
        metadata=about(
            53,
            kinds.Seconds(0.0, 60.0),
            "How long a session's old id still leads to it after it got a new one: requests that were under way bring "
            "the old one.",
        ),
    )
    session_cap: int = field(
        default=0,
        metadata=about(
            54,
            kinds.Whole(0, 1000, "sessions"),
            "How many sessions one subject has at most; the oldest goes first. 0 is no cap.",
        ),
    )
    session_bytes: int = field(
        default=65_536,
        metadata=about(
            55,
            kinds.Whole(1024, 1_048_576, "bytes"),
            "How large a session may be in the store.",
        ),
    )
    session_encrypt: bool = field(
        default=False,
        metadata=about(
            56,
            kinds.Flag(),
            "Sessions are encrypted in the store (AES-GCM), with keys derived from secret and secret_fallbacks.",
        ),
    )
    session_wait: int = field(
        default=0,
        metadata=about(
            57,
            kinds.Whole(0, 5, "replicas"),
            "How many replicas of the store must have a login, a new id or a revocation before it counts as done (WAIT). 0 "
            "waits for none.",
        ),
    )
    session_on_outage: Literal["refuse", "empty"] = field(
        default="refuse",
        metadata=about(
            58,
            kinds.Choice(("refuse", "empty")),
            "What reading a session does while the store is down and no snapshot stands in: refuse with 503, or find it "
            "empty. Writing is refused either way.",
        ),
    )
    session_snapshot: float = field(
        default=0.0,
        metadata=about(
            59,
            kinds.Seconds(0.0, 300.0),
            "How old the sealed cookie may be that stands in for the session while the store is down. So long may a "
            "revoked session still be taken for valid then. 0 is no such cookie.",
        ),
    )
    session_snapshot_keys: tuple[str, ...] = field(
        default=(),
        metadata=about(
            60,
            cookies.Names(),
            "Which keys of the session that cookie carries, besides who is logged in.",
        ),
    )
    session_import: Literal["off", "flask-session", "django-cache", "django-redis"] = field(
        default="off",
        metadata=about(
            61,
            kinds.Choice(("off", "flask-session", "django-cache", "django-redis")),
            "Take over the sessions that another package left in the store, so that switching to failsoft logs nobody out.",
        ),
    )
    session_import_prefix: str | None = field(
        default=None,
        metadata=about(
            62,
            cookies.KeyPrefix(),
            "What the keys of that package begin with, where that is not its default.",
        ),
    )
    cookie_secure: bool = field(
        default=True,
        metadata=about(
            63,
            kinds.Flag(),
            "Browsers send the cookie over TLS alone.",
        ),
    )
    cookie_httponly: bool = field(
        default=True,
        metadata=about(
            64,
            kinds.Flag(),
            "Scripts in the page cannot read the cookie.",
        ),
    )
    cookie_domain: str | None = field(
        default=None,
        metadata=about(
            65,
            cookies.CookieDomain(),
            "The host whose subdomains get the cookie too. Without it only the host that set it does.",
        ),
    )
    cookie_path: str = field(
        default="/",
        metadata=about(
            66,
            cookies.CookiePath(),
            "The path below which browsers send the cookie.",
        ),
    )
    cookie_samesite: Literal["lax", "strict", "none"] = field(
        default="lax",
        metadata=about(
            67,
            kinds.Choice(("lax", "strict", "none")),
            "Which requests from other sites bring the cookie: 'lax' following a link, 'strict' none, 'none' all.",
        ),
    )
    cookie_partitioned: bool = field(
        default=False,
        metadata=about(
            68,
            kinds.Flag(),
            "Browsers keep the cookie apart for each site that embeds the application (CHIPS).",
        ),
    )
    secret_fallbacks: tuple[str, ...] = field(
        default=(),
        metadata=about(
            69,
            cookies.Secrets(),
            "Older secrets, which still open what they sealed. Nothing new is sealed with them.",
        ),
    )
