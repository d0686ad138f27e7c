"""What the contract suite has built: a web site, described in plain values that belong to no framework."""

import random
from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

from failsoft.clock import SYSTEM, Clock
from failsoft.errors import Rejected
from failsoft.exchange import Concern
from failsoft.runtime import Runtime
from failsoft.settings import Settings
from failsoft.stores import Store

__all__ = ["Answer", "Call", "Handle", "Position", "Shape", "Site", "View"]

Shape = Literal["def", "async", "class", "method"]
"""What a view is made as.

``def``: a plain function. ``async``: an async function. ``class``: a class-based view with plain handlers, the
decorators on the class. ``method``: the same, the decorators on each handler.
"""

Position = Literal["outermost", "between", "innermost"]
"""Where failsoft stands among the application's middleware."""


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
        position: failsoft as the outermost or the innermost middleware, or between two others. The application has at least
            two others, of which one does nothing.
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
