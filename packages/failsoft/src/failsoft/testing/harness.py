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
import re
import threading
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from types import TracebackType
from typing import Any, ClassVar, Literal, Self

from failsoft.runtime import Runtime
from failsoft.testing.site import Shape, Site

__all__ = ["PEER", "App", "Concurrency", "Conversation", "Harness", "LimitView", "Reply"]

PEER = "203.0.113.7"
"""Where requests come from unless a test says otherwise; reserved for documentation by RFC 5737."""

Concurrency = Literal["threads", "tasks"]
"""How an application serves several requests at once."""

_LIMIT = re.compile(r'"(?P<name>[^"]*)";r=(?P<remaining>\d+);t=(?P<reset>\d+)')


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
