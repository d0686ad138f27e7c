"""What the contract suite asks of an adapter's harness.

The contract (`AdapterContract`) says what every adapter does; a *harness* says how one framework is made to do it. The
contract describes a whole web site in plain values, a `Site` of `View` objects; the harness builds it with its
framework and its adapter, and hands back an `App` that takes requests. Nothing here knows a framework, and no test of
the contract knows a harness.

A harness is written once for each framework:

1. ``build(site)``: make the framework's application; for each view register a route and a function, an async function
   or a class that calls ``view.handle`` and turns its `Answer` into the framework's response; install the adapter with
   ``site.runtime()``.
2. ``header(request, name)`` and ``json(request)``: what the framework's own request says; the contract's functions
   (``by=``, ``cost=``...) are given that.
3. ``params(args, kwargs)``: the route's parameters, out of what the framework calls a view with.
4. ``unsupported``: the tests that make no sense there, each with its reason. They are skipped, and pytest's summary
   says why.

`WsgiApp` and `AsgiApp` (in `failsoft.testing.servers`) are ready-made `App` classes: small servers for any WSGI or ASGI
application, with threads or tasks, streaming, cancellation and clients that hang up.
"""

import json
import random
import re
import threading
from abc import ABC, abstractmethod
from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from types import TracebackType
from typing import Any, ClassVar, Literal, Self

from failsoft.clock import SYSTEM, Clock
from failsoft.errors import Rejected
from failsoft.exchange import Concern
from failsoft.runtime import Runtime
from failsoft.settings import Settings
from failsoft.stores import Store

__all__ = [
    "PEER",
    "Answer",
    "App",
    "Call",
    "Concurrency",
    "Conversation",
    "Handle",
    "Harness",
    "LimitView",
    "Position",
    "Reply",
    "Shape",
    "Site",
    "View",
]

PEER = "203.0.113.7"
"""Where requests come from unless a test says otherwise; reserved for documentation by RFC 5737."""

Shape = Literal["def", "async", "class", "method"]
"""What a view is made as.

``def``: a plain function. ``async``: an async function. ``class``: a class-based view with plain handlers, the
decorators on the class. ``method``: the same, the decorators on each handler.
"""

Position = Literal["outermost", "innermost"]
"""Where failsoft stands among the application's middleware."""

Concurrency = Literal["threads", "tasks"]
"""How an application serves several requests at once."""

_LIMIT = re.compile(r'"(?P<name>[^"]*)";r=(?P<remaining>\d+);t=(?P<reset>\d+)')


def _no_session() -> Any:
    raise NotImplementedError("this harness has no sessions")


@dataclass(frozen=True, slots=True)
class Call:
    """One call of a view, as the harness tells of it.

    Args:
        method: the request's method, upper case.
        path: the request's path.
        params: the route's parameters.
        header: gives a request header by its name (any case), or None.
        body: gives the request's body, in the framework's own way; what it returns may have to be awaited.
        session: gives the framework's session, as views get it; where views are asynchronous it is ready to be read.
    """

    method: str
    path: str
    params: Mapping[str, str]
    header: Callable[[str], str | None]
    body: Callable[[], bytes | Awaitable[bytes]]
    session: Callable[[], Any] = _no_session


@dataclass(frozen=True, slots=True, kw_only=True)
class Answer:
    """What a view answers, to be said in the framework's own words.

    Args:
        status: the HTTP status.
        body: the whole body; ignored with `stream`.
        content_type: the media type.
        headers: further header fields.
        cookies: names and values, each a Set-Cookie line of its own, set by the framework's own means.
        stream: the body's chunks, to be sent one by one as they are produced. Where the framework streams asynchronous
            iterators only, the harness goes through this one from an async generator.
        abort: raise the framework's own HTTP exception with this status instead of answering.
    """

    status: int = 200
    body: bytes = b"ok"
    content_type: str = "text/plain"
    headers: Sequence[tuple[str, str]] = ()
    cookies: Sequence[tuple[str, str]] = ()
    stream: Iterable[bytes] | None = None
    abort: int | None = None


Handle = Callable[[Call], "Answer | Awaitable[Answer | None] | None"]
"""What a view does. None stands for ``Answer()``. Only a view of the shape ``async`` is given one whose result must be
awaited;
what it raises goes through the framework untouched."""


def _ok(call: Call) -> Answer:
    return Answer()


@dataclass(frozen=True, slots=True, kw_only=True)
class View:
    """A route and the view behind it.

    Args:
        path: the route's template, with parameters in braces: ``"/items/{id}"``. All parameters are text without a
            slash.
        methods: what the route takes; GET stands for HEAD too. Others are answered with 405.
        handle: what the view does.
        decorators: put on the view before its route is registered, the outermost first, as they would be written. In
            the shapes ``class`` and ``method``, on the class and on each handler.
        above_route: put on the view after its route was registered, the outermost first: what happens to decorators
            that stand above the framework's route decorator. The route keeps the view that it was given.
        shape: what the view is made as.
        websocket: an echo instead: a WebSocket route that accepts, and sends back each text message until the client leaves. Only
            `path` and `decorators` apply.
        group: what the framework calls a part of the application, and counts as a scope's group (a blueprint, a namespace, a named
            mount), that the view is to be in. The path is the whole one all the same.
    """

    path: str
    methods: tuple[str, ...] = ("GET",)
    handle: Handle = _ok
    decorators: Sequence[Callable[[Any], Any]] = ()
    above_route: Sequence[Callable[[Any], Any]] = ()
    shape: Shape = "def"
    websocket: bool = False
    group: str | None = None

    def decorated(self, target: Any) -> Any:
        """`target`, a function or a class, with `decorators` on it."""
        for decorator in reversed(self.decorators):
            target = decorator(target)
        return target

    def decorate_above_route(self, target: Any) -> None:
        """Put `above_route` on `target`, which is registered already; what comes of it goes nowhere."""
        for decorator in reversed(self.above_route):
            target = decorator(target)


@dataclass(frozen=True, slots=True, kw_only=True)
class Site:
    """An application to build.

    Args:
        views: its routes.
        settings: failsoft's settings, as a user would write them.
        clock: failsoft's time.
        store: the store to use instead of the one that the settings name.
        concerns: further concerns.
        random: gives floats in [0, 1), for jitter.
        position: failsoft as the outermost or the innermost middleware. The application has at least one other
            middleware, which does nothing.
        renderer: makes the answer to a refused request, through the way that the adapter has for this (an error
            handler, a ``renderer`` setting). Failsoft's header fields are added to it all the same.
    """

    views: Sequence[View] = ()
    settings: Mapping[str, Any] = field(default_factory=dict)
    clock: Clock = SYSTEM
    store: Store | None = None
    concerns: Sequence[Concern] = ()
    random: Callable[[], float] = random.random
    position: Position = "outermost"
    renderer: Callable[[Rejected], Answer] | None = None

    def runtime(self) -> Runtime:
        """The runtime that this site asks for, for the adapter to use. The environment has no say in it."""
        return Runtime(
            Settings.load(self.settings, environ={}),
            concerns=self.concerns,
            clock=self.clock,
            store=self.store,
            random=self.random,
        )


@dataclass(frozen=True, slots=True)
class LimitView:
    """One member of a RateLimit field: units that remain, and seconds until there are more."""

    remaining: int
    reset: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Reply:
    """A response, as a client sees it.

    Args:
        status: the HTTP status; 500 where the application raised instead of answering, as a server does then.
        headers: every header line, in order.
        body: the whole body.
        raised: what came out of the application to the server, or None.
    """

    status: int
    headers: Sequence[tuple[str, str]] = ()
    body: bytes = b""
    raised: BaseException | None = None

    def lines(self, name: str) -> list[str]:
        """Every line of the header field `name` (any case), in order."""
        return [value for known, value in self.headers if known.lower() == name.lower()]

    def header(self, name: str) -> str | None:
        """The header field `name` (any case), its lines joined; None if there is none."""
        lines = self.lines(name)
        return ", ".join(lines) if lines else None

    def json(self) -> Any:
        """The body, read as JSON."""
        return json.loads(self.body)

    @property
    def retry_after(self) -> int | None:
        """The Retry-After field in seconds, or None."""
        value = self.header("retry-after")
        return None if value is None else int(value)

    @property
    def limits(self) -> dict[str, LimitView]:
        """What the RateLimit field says, by the policy's name."""
        found = _LIMIT.finditer(self.header("ratelimit") or "")
        return {one["name"]: LimitView(int(one["remaining"]), int(one["reset"])) for one in found}


@dataclass(frozen=True, slots=True, kw_only=True)
class Conversation(Reply):
    """A WebSocket, as its client saw it.

    The status is 101 where it was opened; else it is the refusal's, 403 where the application closed before it accepted.

    Args:
        texts: what the application sent.
        code: the code with which the application closed; None where the client left first.
        reason: likewise.
    """

    texts: tuple[str, ...] = ()
    code: int | None = None
    reason: str = ""


class App(ABC):
    """An application that serves requests until it is closed. Use it as a context manager, or call `close`."""

    runtime: Runtime
    """The application's failsoft."""

    @abstractmethod
    def request(
        self,
        method: str,
        path: str,
        *,
        headers: Iterable[tuple[str, str]] = (),
        peer: str | None = PEER,
        body: bytes = b"",
        on_chunk: Callable[[bytes], None] | None = None,
    ) -> Reply:
        """Send a request and wait for the whole response.

        Args:
            method: in upper case.
            path: the path, perhaps with a query.
            headers: in order; a name may come several times, and reaches the application as several lines, or joined by
                commas where the protocol (WSGI) has no other way.
            peer: the address at the other end of the socket; None for a Unix socket.
            body: what the request carries; its media type is to be among the headers.
            on_chunk: called with each piece of the body when the server has it, before the application makes the next.
        """

    @abstractmethod
    def burst(
        self, n: int, method: str, path: str, *, headers: Iterable[tuple[str, str]] = (), peer: str | None = PEER
    ) -> list[Reply]:
        """Send `n` requests at the same moment, from as many threads or tasks."""

    @abstractmethod
    def abandon(self, path: str) -> bytes:
        """GET `path`, and hang up when the first piece of the body has come. Returns that piece."""

    def cancel(self, path: str, *, when: threading.Event) -> bool:
        """GET `path`, and cancel the request's task once `when` is set. Returns whether it ended as cancelled."""
        raise NotImplementedError(f"{type(self).__name__}.cancel: only tasks can be cancelled")

    def websocket(
        self,
        path: str,
        *texts: str,
        headers: Iterable[tuple[str, str]] = (),
        peer: str | None = PEER,
        denial: bool = True,
    ) -> Conversation:
        """Open a WebSocket, send `texts`, and leave.

        Args:
            path: the path, perhaps with a query.
            texts: what the client sends.
            headers: as for `request`.
            peer: as for `request`.
            denial: whether the server can answer with a response instead of opening it (ASGI's ``websocket.http.response``).
        """
        raise NotImplementedError(f"{type(self).__name__}.websocket: only ASGI applications have WebSockets")

    @abstractmethod
    def close(self) -> None:
        """End the application: its runtime, its threads, its event loop."""

    def get(self, path: str, *headers: tuple[str, str], peer: str | None = PEER) -> Reply:
        """GET `path`."""
        return self.request("GET", path, headers=headers, peer=peer)

    def statuses(self, n: int, path: str, *headers: tuple[str, str], peer: str | None = PEER) -> list[int]:
        """GET `path` `n` times, one after another; the statuses."""
        return [self.get(path, *headers, peer=peer).status for _ in range(n)]

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()


class Harness(ABC):
    """How one framework builds what the contract describes."""

    name: ClassVar[str]
    """For people: ``"flask"``, ``"django-asgi"``."""

    concurrency: ClassVar[Concurrency]
    """How the application serves several requests at once; on ``threads`` nothing can be cancelled."""

    shapes: ClassVar[frozenset[Shape]] = frozenset({"def", "async", "class", "method"})
    """The shapes that a view can have in this framework."""

    websockets: ClassVar[bool] = False
    """Whether there can be views with ``websocket=True``."""

    unsupported: ClassVar[Mapping[str, str]] = {}
    """Tests that make no sense here, and why: by name, with or without parameters, as pytest writes it."""

    @abstractmethod
    def build(self, site: Site) -> App:
        """The application that `site` describes, ready to serve."""

    @abstractmethod
    def header(self, request: Any, name: str) -> str | None:
        """The header field `name` of the framework's own request, or None."""

    @abstractmethod
    def json(self, request: Any) -> Any:
        """The JSON that the framework's own request carries, read in the framework's own way; awaitable where that is."""

    @abstractmethod
    def params(self, args: Sequence[Any], kwargs: Mapping[str, Any]) -> Mapping[str, str]:
        """The route's parameters, out of the arguments that the framework calls a view with."""

    def user_headers(self, user: str) -> Sequence[tuple[str, str]]:
        """Request headers that make `user` the framework's authenticated user, in any application that `build` made.

        Where the framework has no such notion, leave this as it is and list the tests about users in `unsupported`.
        """
        raise NotImplementedError(f"{type(self).__name__}.user_headers")
