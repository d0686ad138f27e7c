"""What is measured: one `Case` for each process, and which of them are compared."""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any, Literal, get_args

__all__ = [
    "FLOOR",
    "FLOORED",
    "FRAMEWORKS",
    "LIMITS",
    "NAME",
    "OURS",
    "RATES",
    "ROLLING",
    "SIGNED",
    "STATES",
    "Case",
    "Framework",
    "Place",
    "State",
    "Store",
    "concurrent",
    "floor_of_sessions",
    "floors",
    "over_http",
    "sessions",
    "stores",
    "tax",
]

OURS = "failsoft"

FLOOR = "raw socket"
"""One EVALSHA of failsoft's script, for the price of a round trip alone: nothing around it, and no header fields. With a session: what
failsoft's way of keeping it takes at least; see `benchmarks.applications.floors`."""

LIMITS = ("1000000000/minute", "10000000000/hour", "100000000000/day")
RATES = ((10**9, 60), (10**10, 3600), (10**11, 86_400))
"""The same limits as units and seconds, for packages that take no strings."""

NAME = "store.example"
"""A host that the processes of cases resolve, to 127.0.0.1."""

Framework = Literal["flask", "django-wsgi", "django-asgi", "starlette", "fastapi", "call", "async call"]
"""Where a case runs; a call is no request, only the question to the store."""
FRAMEWORKS: tuple[Framework, ...] = get_args(Framework)[:5]
FLOORED: tuple[Framework, ...] = ("flask", "django-wsgi", "starlette", "call")
"""Where there is a floor of sessions."""

Store = Literal["-", "memory", "tcp", "unix"]

State = Literal["", "anonymous", "untouched", "read", "write"]
"""What a request has to do with a session: nothing; it has none, and its view asks for a key; it has one that its view
leaves alone; its view reads two keys of it; or one, which it sets."""
STATES: tuple[State, ...] = get_args(State)[1:]

SIGNED = "signed cookie"
"""The framework's own session, which no server knows: it cannot be ended, and the browser keeps all of it."""

ROLLING = (
    ("Flask-Session", ""),
    ("Django, core's cache", "saved every time"),
    ("Django, django-redis", "saved every time"),
    ("starsessions", ""),
    ("fastapi-redis-sdk", ""),
)
"""Packages, and how they are set up, whose sessions end so long after their last use, as failsoft's do."""


@dataclass(frozen=True)
class Place:
    """Where the server is.

    Attributes:
        port: of `host`.
        path: of its unix socket.
        query: added to the URLs of peers, such as ``?socket_timeout=0.25``.
        deadline: failsoft's, in seconds; None for its default. A long one keeps a busy machine from being taken for an outage.
        host: its address, or `NAME`.
    """

    port: int
    path: str
    query: str = ""
    deadline: float | None = None
    host: str = "127.0.0.1"

    @property
    def silent(self) -> str:
        """The file that is there while nobody says what `NAME` resolves to."""
        return f"{self.path}.silent"

    def url(self, store: Store) -> str:
        """As failsoft takes it."""
        return {"-": "memory://", "memory": "memory://", "tcp": self._tcp, "unix": f"unix://{self.path}?db=0"}[store]

    def options(self, store: Store) -> dict[str, Any]:
        """Failsoft's settings for it."""
        return {"store": self.url(store)} | ({} if self.deadline is None else {"deadline": self.deadline})

    def peer_url(self, store: Store) -> str:
        """As redis-py takes it."""
        return f"unix://{self.path}?db=0" if store == "unix" else self._tcp + self.query

    def limits_url(self, store: Store) -> str:
        """As `limits` takes it."""
        if store == "memory":
            return "memory://"
        return f"redis+unix://{self.path}" if store == "unix" else self._tcp + self.query

    @property
    def _tcp(self) -> str:
        return f"redis://{self.host}:{self.port}/0"


@dataclass(frozen=True)
class Case:
    """One application, or one way to ask a store.

    Attributes:
        framework: where it runs.
        package: what limits the requests; "bare" for nothing.
        store: where it counts.
        limits: how many limits apply.
        option: a setting that differs from the usual one. Header fields are on where the package has them.
        session: what it does with a session.
    """

    framework: Framework
    package: str
    store: Store = "-"
    limits: int = 0
    option: str = ""
    session: State = ""

    @property
    def name(self) -> str:
        """For people and for the results."""
        parts = [self.framework, self.package]
        if self.store != "-":
            parts += [self.store, str(self.limits)]
        if self.session:
            parts.append(self.session)
        if self.option:
            parts.append(self.option)
        return "/".join(parts)

    @property
    def asynchronous(self) -> bool:
        """Whether it runs on an event loop."""
        return self.framework in ("django-asgi", "starlette", "fastapi", "async call")

    @property
    def ours(self) -> bool:
        """Whether it is failsoft."""
        return self.package == OURS

    @property
    def bare(self) -> "Case":
        """What its tax is on top of."""
        # django-ratelimit knows no asynchronous views.
        plain = self.framework == "django-asgi" and self.package.startswith("django-ratelimit")
        return Case(self.framework, "bare", option="sync view" if plain else "")

    @property
    def round_trips(self) -> int | None:
        """How many failsoft makes for a request, and the floor; None where nothing is asserted."""
        if self.package == "bare" or self.option == "nothing applies":
            return 0
        if self.package == FLOOR:
            return 2 if self.session == "write" else 1
        if not self.ours:
            return None
        if self.store == "memory":
            return 0
        if self.session == "anonymous":
            return 1 if self.limits else 0
        if self.session == "untouched" and not self.limits and not self.asynchronous:
            return (
                0  # loaded at its first use, which there is none of; on an event loop it must be there before the view
            )
        return 2 if self.session == "write" else 1


def _of(framework: Framework, package: str, *rows: tuple[Store, int, str]) -> list[Case]:
    return [Case(framework, package, *row) for row in rows]


def tax(*, short: bool = False) -> list[Case]:
    """Requests, one after the other. A `short` run has every package in every framework once."""
    ours: list[tuple[Store, int, str]] = [
        ("tcp", 3, ""),
        ("tcp", 0, "nothing applies"),
        ("memory", 1, ""),
        ("memory", 3, ""),
        ("tcp", 1, ""),
        ("unix", 3, ""),
        ("tcp", 3, "no headers"),
        ("tcp", 3, "on the view"),
    ]
    peer: list[tuple[Store, int, str]] = [("tcp", 3, ""), ("memory", 3, ""), ("memory", 1, ""), ("tcp", 1, "")]
    plain: list[tuple[Store, int, str]] = [("tcp", 3, "no headers"), ("unix", 3, "")]
    found: list[Case] = []
    for framework in FRAMEWORKS:
        found.append(Case(framework, "bare"))
        own = ours[:6] if framework in ("django-asgi", "fastapi") else ours
        found += _of(framework, OURS, *(ours[:2] if short else own))
    few = peer[:1] if short else peer[:2]
    most = peer[:1] if short else peer
    more = [] if short else plain
    found += _of("flask", "flask-limiter", *most, *more)
    found += _of("django-wsgi", "django-ratelimit + django-redis", *(most[:1] if short else [peer[0], peer[3]]))
    found += _of("starlette", "slowapi", *most, *more)
    found += _of("starlette", "limits.aio", *few)
    found += _of("fastapi", "fastapi-limiter", *few)
    if not short:
        found += _of("django-wsgi", "django-ratelimit", *most)
        found.append(Case("django-asgi", "bare", option="sync view"))
        found += _of("django-asgi", "django-ratelimit", *most[:2])
        found += _of("fastapi", "slowapi", *few)
        for framework in ("flask", "django-wsgi", "starlette"):
            found += _of(framework, FLOOR, ("tcp", 3, ""), ("unix", 3, ""))
    frameworks: tuple[Framework, ...] = ("flask",) if short else ("flask", "django-wsgi", "starlette")
    for framework in frameworks:
        found += _of(framework, "throttled-py", *few)
        found += _of(framework, "pyrate-limiter", *few)
    return found


def sessions(*, short: bool = False) -> list[Case]:
    """Requests with sessions, and the core's part in them. A `short` run has what writes: ours, one other package, and the floor."""
    three = 3
    found: list[Case] = []
    for framework in FRAMEWORKS:
        found += [Case(framework, "bare"), *([] if short else _of(framework, OURS, ("tcp", three, "")))]
        own: list[tuple[int, str, State]] = [(limits, "", state) for limits in (0, three) for state in STATES]
        own += [(0, "logged in", "read"), (three, "logged in", "read")]
        if short:
            own = [(three, "", "write")]
        found += [Case(framework, OURS, "tcp", *row) for row in own]
        for package, option in _SESSION_PEERS[framework][: 1 if short else None]:
            states: tuple[State, ...] = ("write",) if short else STATES
            if option == "saved every time":
                states = ("read",)
            if package == SIGNED:
                states = ("untouched", "read", "write")
            store: Store = "-" if package == SIGNED else "tcp"
            found += [Case(framework, package, store, 0, option, state) for state in states]
        if framework in FLOORED:
            found += floor_of_sessions(framework, short=short)
    if not short:
        found += [Case("call", OURS, "tcp", three, "decision")]
        found += [Case("call", OURS, "tcp", three, session=state) for state in STATES]
    return found + floor_of_sessions("call", short=short)


def floor_of_sessions(framework: Framework, *, short: bool = False) -> list[Case]:
    """What no way of keeping sessions can do without: limits alone, a session alone that is used, and both."""
    if short:
        return [Case(framework, FLOOR, "tcp", 3, session="write")]
    found = [Case(framework, FLOOR, "tcp", 3)]
    found += [Case(framework, FLOOR, "tcp", 0, session=state) for state in _USED]
    return found + [Case(framework, FLOOR, "tcp", 3, session=state) for state in ("untouched", *_USED)]


_USED: tuple[State, ...] = ("read", "write")
_DJANGO = [
    ("Django, core's cache", ""),
    ("Django, core's cache", "saved every time"),
    ("Django, django-redis", ""),
    ("Django, django-redis", "saved every time"),
    (SIGNED, ""),
]
_SESSION_PEERS: dict[Framework, list[tuple[str, str]]] = {
    "flask": [("Flask-Session", ""), ("Flask-Session", "refresh off"), (SIGNED, "")],
    "django-wsgi": _DJANGO,
    "django-asgi": _DJANGO,
    "starlette": [("starsessions", ""), (SIGNED, "")],
    "fastapi": [("fastapi-redis-sdk", ""), ("starsessions", ""), (SIGNED, "")],
}


def concurrent(*, short: bool = False) -> list[Case]:
    """Requests and calls, many at a time on one event loop."""
    three: tuple[Store, int, str] = ("tcp", 3, "")
    found = [Case("starlette", "bare"), *_of("starlette", OURS, three)]
    if not short:
        found += _of("starlette", OURS, ("tcp", 3, "lease"), ("unix", 3, ""), ("memory", 3, ""))
        for package in ("slowapi", "limits.aio", "throttled-py", "pyrate-limiter"):
            found += _of("starlette", package, three)
    found += _of("async call", OURS, three)
    if not short:
        found += _of("async call", OURS, ("tcp", 3, "lease"), ("unix", 3, ""), ("memory", 3, ""))
    for package in ("limits.aio", "throttled-py", "pyrate-limiter"):
        found += _of("async call", package, three)
    return found


def floors(*, short: bool = False) -> list[Case]:
    """The same question, asked with less and less around it."""
    kinds: Iterable[Store] = ("tcp",) if short else ("tcp", "unix")
    ways: tuple[tuple[Framework, str], ...] = (
        ("call", FLOOR),
        ("call", "redis-py connection"),
        ("call", "redis-py client"),
        ("async call", FLOOR),
        ("async call", "asyncio.Protocol"),
        ("async call", "redis-py client"),
    )
    return [Case(framework, way, store, 3) for store in kinds for framework, way in ways]


def stores(*, short: bool = False) -> list[Case]:
    """Flights of our own, and whole decisions without a framework."""
    kinds: Iterable[Store] = ("tcp",) if short else ("memory", "unix", "tcp")
    frameworks: tuple[Framework, ...] = ("call", "async call")
    return [
        Case(framework, OURS, store, 3, option)
        for framework in frameworks
        for store in kinds
        for option in ("", "decision", "lease", "refusal")
        if store != "memory" or option in ("", "decision")  # memory makes no trips that they would save
    ]


def over_http(*, short: bool = False) -> list[Case]:
    """Behind real servers."""
    three: tuple[Store, int, str] = ("tcp", 3, "")
    peers: dict[Framework, str] = {
        "flask": "flask-limiter",
        "django-wsgi": "django-ratelimit + django-redis",
        "starlette": "slowapi",
        "fastapi": "slowapi",
        "django-asgi": "",
    }
    if short:
        return _of("flask", OURS, three) + _of("starlette", OURS, three)
    found: list[Case] = []
    for framework, package in peers.items():
        found += [Case(framework, "bare"), *_of(framework, OURS, three)]
        if package:
            found += _of(framework, package, three)
    return found
