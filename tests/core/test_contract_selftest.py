"""The contract against the smallest adapter that passes it.

It is also the example of ``docs/adapters/writing-one.md``: a made-up WSGI framework of a few lines, an adapter for it,
and the harness that the contract drives it with. What a real adapter has more of is its framework's own ways, not more
of failsoft.
"""

import asyncio
import json
import re
from collections.abc import Awaitable, Callable, Iterable, Iterator, Mapping, Sequence
from functools import partial
from typing import Any, ClassVar
from urllib.parse import parse_qsl

import pytest

from failsoft.errors import Rejected
from failsoft.exchange import NOT_YET, Exchange, Facts, NotYet, json_field, submitted_field
from failsoft.exchange.policy import enter, is_asynchronous, leave
from failsoft.fields import with_fields
from failsoft.runtime import Runtime, refusal_fields
from failsoft.sessions.view import SessionView
from failsoft.testing import AdapterContract, Answer, App, Call, Concurrency, Harness, Site, View, WsgiApp

pytestmark = pytest.mark.broad

# start: framework


class Request:
    """A request of Tiny, the framework."""

    def __init__(self, environ: Mapping[str, Any]) -> None:
        self.environ = environ
        self.method: str = environ["REQUEST_METHOD"]
        self.path: str = environ["PATH_INFO"]
        self.user: str | NotYet | None = NOT_YET
        self.session: SessionView | None = None
        self._body: bytes | None = None

    def body(self) -> bytes:
        if self._body is None:
            self._body = self.environ["wsgi.input"].read(int(self.environ.get("CONTENT_LENGTH") or 0))
        return self._body

    def header(self, name: str) -> str | None:
        key = name.upper().replace("-", "_")
        value: str | None = self.environ.get(key if key == "CONTENT_TYPE" else "HTTP_" + key)
        return value


class Response:
    """A response of Tiny."""

    def __init__(self, status: int, headers: Iterable[tuple[str, str]], body: Iterable[bytes]) -> None:
        self.status, self.headers, self.body = status, list(headers), body


class HTTPError(Exception):
    """Answered with a status."""

    def __init__(self, status: int, *headers: tuple[str, str]) -> None:
        super().__init__(status)
        self.status, self.headers = status, headers


class Tiny:
    """Routes, middleware and error handlers: what an adapter needs to know of a framework."""

    def __init__(self) -> None:
        self.routes: list[tuple[str, re.Pattern[str], tuple[str, ...], Any]] = []
        self.middleware: list[Callable[[Callable[[Request], Response], Request], Response]] = []
        self.error_handlers: dict[type[Exception], Callable[[Request, Any], Response]] = {}

    def route(self, template: str, methods: Iterable[str], view: Any) -> None:
        pattern = re.compile(re.sub(r"\{(\w+)\}", r"(?P<\1>[^/]+)", template))
        self.routes.append((template, pattern, (*methods, "HEAD"), view))

    def match(self, request: Request) -> tuple[str, Any, dict[str, str]]:
        """The template, the view and its parameters. Raises `HTTPError`."""
        for template, pattern, methods, view in self.routes:
            if found := pattern.fullmatch(request.path):
                if request.method not in methods:
                    raise HTTPError(405, ("Allow", ", ".join(methods)))
                return template, view, found.groupdict()
        raise HTTPError(404)

    def __call__(self, environ: Mapping[str, Any], start_response: Callable[..., Any]) -> Iterable[bytes]:
        serve = self.serve
        for layer in reversed(self.middleware):
            serve = partial(layer, serve)
        response = serve(Request(environ))
        start_response(f"{response.status} .", response.headers)
        return response.body

    def serve(self, request: Request) -> Response:
        try:
            _, view, params = self.match(request)
            target: Any = view().dispatch if isinstance(view, type) else view
            made = target(request, **params)
            response: Response = asyncio.run(made) if asyncio.iscoroutine(made) else made
            return response
        except HTTPError as error:
            return Response(error.status, error.headers, [])
        except Exception as error:
            for kind, handler in self.error_handlers.items():
                if isinstance(error, kind):
                    return handler(request, error)
            return Response(500, [], [])


# end: framework
# start: adapter


class TinyFacts(Facts):
    """A request, as failsoft wants to know it."""

    __slots__ = ()

    def __init__(self, app: Tiny, request: Request) -> None:
        self.request, self.method = request, request.method
        try:
            self.route, self.endpoint, _ = app.match(request)
        except HTTPError:
            self.route = self.endpoint = None

    def targets(self) -> Sequence[Any]:
        handler = getattr(self.endpoint, self.method.lower().replace("head", "get"), None)
        return [target for target in (self.endpoint, handler) if target is not None]

    def peer(self) -> str | None:
        return self.request.environ.get("REMOTE_ADDR") or None

    def header_lines(self, name: str) -> Sequence[str]:
        value: str | None = self.request.header(name)
        return () if value is None else (value,)

    def path(self) -> str:
        path: str = self.request.path
        return path

    def submitted(self, name: str) -> str | None:
        if self.request.header("Content-Type") == "application/x-www-form-urlencoded":
            form = dict(parse_qsl(self.request.body().decode("latin-1"))).get(name)
            return submitted_field(form, self.request.body(), name)
        return json_field(self.request.body(), name)

    def user(self) -> str | NotYet | None:
        session = self.request.session
        if session is not None and (subject := session.session.load_subject()) is not None:
            return subject
        user: str | NotYet | None = self.request.user
        return user

    def run(self, awaitable: Awaitable[Any]) -> Any:
        async def wait() -> Any:
            return await awaitable

        return asyncio.run(wait())


class TinyFailsoft:
    """Failsoft for Tiny: its outermost middleware, and a handler for refusals out of views."""

    def __init__(
        self, app: Tiny, runtime: Runtime, *, renderer: Callable[[Request, Rejected], Response] | None = None
    ) -> None:
        self.app = app
        self.runtime = runtime
        self.renderer = renderer
        app.middleware.insert(0, self.serve)
        app.error_handlers[Rejected] = self.refuse

    def serve(self, inner: Callable[[Request], Response], request: Request) -> Response:
        exchange = self.runtime.begin(TinyFacts(self.app, request))
        token = enter(exchange)
        try:
            if self.runtime.sessions is not None:
                session = self.runtime.sessions.open(request.header("Cookie"), exchange)
                request.session = SessionView(session, "tiny")
            rejected = self.runtime.admit(exchange)
            response = inner(request) if rejected is None else self.refuse(request, rejected)
            fields = self.runtime.finish(exchange, response.status)
            if exchange.unsaved is not None:  # what the view has done was not stored: nobody is to think so
                response = self.refuse(request, exchange.unsaved)
            elif exchange.accepted and response.status in (200, 204):
                response.status = 202
            response.headers = with_fields(response.headers, fields)
            response.body = keep_current(exchange, response.body)
            return response
        except BaseException:
            exchange.end()
            raise
        finally:
            leave(token)

    def refuse(self, request: Request, rejected: Rejected) -> Response:
        if self.renderer is not None:
            response = self.renderer(request, rejected)
            response.headers += refusal_fields(rejected)
            return response
        status, headers, body = self.runtime.answer(rejected, request.header("Accept"))
        return Response(status, headers, [body])


def keep_current(exchange: Exchange, body: Iterable[bytes]) -> Iterator[bytes]:
    """Limited functions that are called while the body is made find their request, although it is answered by then."""
    pieces = iter(body)
    try:
        while True:
            token = enter(exchange)
            try:
                piece = next(pieces, None)
            finally:
                leave(token)
            if piece is None:
                return
            yield piece
    finally:
        exchange.end()


# end: adapter
# start: harness


class TinyHarness(Harness):
    """How Tiny builds what the contract describes."""

    name: ClassVar[str] = "tiny"
    concurrency: ClassVar[Concurrency] = "threads"
    unsupported: ClassVar[Mapping[str, str]] = {"test_group": "Tiny has no parts with names"}

    def build(self, site: Site) -> App:
        app = Tiny()
        for view in site.views:
            target = self._target(view)
            app.route(view.path, view.methods, target)
            view.decorate_above_route(target)
        app.middleware += [_pass, _authenticate]
        runtime = site.runtime()
        renderer = site.renderer
        own = None if renderer is None else lambda _, rejected: _respond(renderer(rejected))
        failsoft = TinyFailsoft(app, runtime, renderer=own)
        app.middleware.remove(failsoft.serve)
        app.middleware.insert({"outermost": 0, "between": 1, "innermost": 2}[site.position], failsoft.serve)
        return WsgiApp(app, runtime)

    def header(self, request: Request, name: str) -> str | None:
        return request.header(name)

    def json(self, request: Request) -> Any:
        return json.loads(request.body())

    def params(self, args: Sequence[Any], kwargs: Mapping[str, Any]) -> Mapping[str, str]:
        return kwargs

    def user_headers(self, user: str) -> Sequence[tuple[str, str]]:
        return [("X-User", user)]

    def _target(self, view: View) -> Any:
        def serve(request: Request, **params: str) -> Any:
            call = Call(request.method, request.path, params, request.header, request.body, lambda: request.session)
            return view.handle(call)

        if view.shape == "async":

            async def function_async(request: Request, **params: str) -> Response:
                answer = serve(request, **params)
                return _respond(await answer if asyncio.iscoroutine(answer) else answer)

            return view.decorated(function_async)

        def function(request: Request, **params: str) -> Response:
            return _respond(serve(request, **params))

        if view.shape == "def":
            return view.decorated(function)

        def handler(self: Any, request: Request, **params: str) -> Response:
            return function(request, **params)

        def dispatch(self: Any, request: Request, **params: str) -> Any:
            return getattr(self, request.method.lower().replace("head", "get"))(request, **params)

        decorate = view.decorated if view.shape == "method" else lambda target: target
        handlers = {method.lower(): decorate(handler) for method in view.methods}
        made = type("TinyView", (), {"dispatch": dispatch, **handlers})
        return view.decorated(made) if view.shape == "class" else made


def _pass(inner: Callable[[Request], Response], request: Request) -> Response:
    return inner(request)


def _authenticate(inner: Callable[[Request], Response], request: Request) -> Response:
    """The middleware beside failsoft: whoever says who he is, is."""
    request.user = request.header("X-User")
    return inner(request)


def _respond(answer: Answer | None) -> Response:
    answer = answer or Answer()
    if answer.abort is not None:
        raise HTTPError(answer.abort)
    headers = [("Content-Type", answer.content_type), *answer.headers]
    headers += [("Set-Cookie", f"{name}={value}") for name, value in answer.cookies]
    return Response(answer.status, headers, [answer.body] if answer.stream is None else answer.stream)


class TestTiny(AdapterContract):
    """The smallest adapter passes the contract."""

    def make_harness(self) -> Harness:
        return TinyHarness()


# end: harness


def test_asynchronous_views_are_seen() -> None:
    """The harness makes views of the shape that a test asks for."""
    harness = TinyHarness()
    assert is_asynchronous(harness._target(View(path="/", shape="async")))
