"""Flask's requests and responses, and the core's, in each other's words.

Rules:

- Values are read from the WSGI environment: werkzeug's properties cost several times as much.
- A request is told from others by its request context, not by its request object, which copies of the context share.
"""

import logging
import sys
from collections.abc import Awaitable, Callable, Iterable, Iterator, Mapping, Sequence
from functools import lru_cache
from typing import TYPE_CHECKING, Any

from flask import Flask, Request, Response, current_app, request
from flask.ctx import RequestContext
from flask.globals import request_ctx
from werkzeug.exceptions import HTTPException, default_exceptions

from failsoft.errors import Rejected, SessionUnavailable
from failsoft.exchange import FORMS, Exchange, Facts, json_field, submitted_field
from failsoft.exchange.policy import current, enter, leave
from failsoft.runtime import Runtime

if TYPE_CHECKING:
    from failsoft_flask.sessions import FlaskSession

__all__ = [
    "FIELDS",
    "VIEW",
    "FlaskFacts",
    "StreamedBody",
    "context_of_request",
    "is_own",
    "problem",
    "refusal",
    "replaced",
    "targets_of",
]

_log = logging.getLogger("failsoft.flask")

VIEW = "failsoft_flask.session"
"""In the exchange's memo: the request's session, as views see it, where the application has failsoft's sessions."""

FIELDS = "failsoft_flask.fields"
"""In the exchange's memo: the header fields of a request that was settled before its response started."""

_OF_THE_BODY = frozenset(
    {
        *(
            "content-type",
            "content-length",
            "content-encoding",
            "content-language",
            "content-location",
            "content-range",
        ),
        *("content-disposition", "etag", "last-modified", "accept-ranges", "location", "set-cookie"),
        *("cache-control", "expires", "age", "transfer-encoding"),
    }
)
"""Header fields that say something of one response's content, and nothing of another's."""


@lru_cache(256)
def _variable(name: str) -> str:
    """The environment's name for a header field (PEP 3333)."""
    known = name.upper().replace("-", "_")
    return known if known in ("CONTENT_TYPE", "CONTENT_LENGTH") else f"HTTP_{known}"


def targets_of(view: Any, method: str) -> tuple[Any, ...]:
    """Everything that may carry declarations for `method` of a view function: it, its class, the class's handler."""
    cls = getattr(view, "view_class", None)
    if cls is None:
        return () if view is None else (view,)
    handler = getattr(cls, method.lower(), None)
    if handler is None and method == "HEAD":  # MethodView serves it so
        handler = getattr(cls, "get", None)
    return (view, cls) if handler is None else (view, cls, handler)


class FlaskFacts(Facts):
    """A Flask request.

    Args:
        context: the request's context, pushed.

    Attributes:
        session: the request's, where it is failsoft's.
    """

    __slots__ = ("_environ", "context", "session")

    def __init__(self, context: RequestContext) -> None:
        request = context.request
        self.context = context
        self.session: FlaskSession | None = None
        self.request = request
        self._environ = request.environ
        self.method = request.method
        rule = request.url_rule
        if rule is None:  # 404, 405, a redirect to the path with a slash
            self.endpoint = self.route = None
        else:
            self.endpoint = context.app.view_functions.get(rule.endpoint)
            self.route = rule.rule

    def targets(self) -> Sequence[Any]:
        return targets_of(self.endpoint, self.method)

    def peer(self) -> str | None:
        return self._environ.get("REMOTE_ADDR")

    def header_lines(self, name: str) -> Sequence[str]:
        # The server joined the lines by commas, in order, as far as there were several.
        value = self._environ.get(_variable(name))
        return () if value is None else (value,)

    def header(self, name: str) -> str | None:
        return self._environ.get(_variable(name))

    def path(self) -> str:
        path: str = self.request.path
        return path

    def environ(self) -> Mapping[str, Any]:
        return self._environ

    def name(self) -> str | None:
        name: str | None = self.request.endpoint
        return name

    def groups(self) -> Sequence[str]:
        names: list[str] = self.request.blueprints
        return names

    def submitted(self, name: str) -> str | None:
        request = self.request
        if request.mimetype in FORMS:
            body = request.get_data()  # before the form, which would take it away
            return submitted_field(request.form.get(name), body, name)
        return json_field(request.get_data(), name)

    def user(self) -> str | None:
        """Whoever a session of failsoft's says is logged in; else what Flask-Login says, where the application has a LoginManager.

        A session that came without its seal is loaded: whoever leaves the seal out is the same user. Flask-Login looks its user up once,
        before ``before_request`` functions, for us and for the view.
        """
        if self.session is not None and (subject := self.session.session.load_subject()) is not None:
            return subject
        login = sys.modules.get("flask_login")
        if login is None or not hasattr(self.context.app, "login_manager"):
            return None
        try:
            # What stands behind the proxy: through it, getattr would take an AttributeError of the loader's for "anonymous".
            user = login.current_user._get_current_object()
        except SessionUnavailable:  # whether that is a reason to refuse, the view decides, by asking itself
            return None
        identifier = user.get_id() if getattr(user, "is_authenticated", False) else None
        return None if identifier is None else str(identifier)

    def run(self, awaitable: Awaitable[Any]) -> Any:
        async def wait() -> Any:
            return await awaitable

        return self.context.app.ensure_sync(wait)()


class StreamedBody:
    """A body that is made while it is sent, when Flask is done with the request. Its exchange is current meanwhile.

    Only while a piece is being made: between two pieces the thread is the server's.
    """

    __slots__ = ("_body", "_exchange")

    def __init__(self, body: Iterable[Any], exchange: Exchange) -> None:
        self._body = body
        self._exchange = exchange

    def __iter__(self) -> Iterator[Any]:
        end = object()
        iterator = self._within(iter, self._body)
        while (piece := self._within(next, iterator, end)) is not end:
            yield piece

    def close(self) -> None:
        """Called by the server at the end, however it came."""
        close = getattr(self._body, "close", None)
        try:
            if close is not None:
                self._within(close)
        finally:
            self._exchange.end()

    def _within(self, step: Any, *args: Any) -> Any:
        if current() is self._exchange:  # versions of Flask differ in when they tear a streaming request down
            return step(*args)
        token = enter(self._exchange)
        try:
            return step(*args)
        finally:
            leave(token)


# The proxy's own function: through the proxy it takes three times as long.
context_of_request: Callable[[], RequestContext] = request_ctx._get_current_object  # type: ignore[attr-defined]  # typed as what it stands for
"""The context of the request that is served just now."""


def is_own(exchange: Exchange) -> bool:
    """Whether `exchange` is of the request that Flask is serving just now, and not of one around that."""
    facts = exchange.facts
    return isinstance(facts, FlaskFacts) and facts.context is context_of_request()


def problem(app: Flask, rejected: Rejected, asked: Request) -> Response:
    """A refusal as a problem (RFC 9457), or whatever `asked` prefers."""
    runtime: Runtime = app.extensions["failsoft"]
    status, fields, body = runtime.answer(rejected, asked.headers.get("Accept"))
    response: Response = app.response_class(body, status=status, headers=fields)
    return response


def refusal(rejected: Rejected) -> Any:
    """The answer to a refusal, where the application has no handler for `failsoft.Rejected` or its kinds.

    One that has a page for the status, or for every HTTP error, shows that. One that handles every `Exception` means
    errors, which a refusal is not.
    """
    app: Flask = current_app
    response = problem(app, rejected, request)
    kind = default_exceptions.get(response.status_code, HTTPException)
    pages = [
        app.error_handler_spec[name][code]
        for name in (*request.blueprints, None)
        for code in (response.status_code, None)
    ]
    if any(cls in page for page in pages for cls in (kind, HTTPException)):
        return app.handle_http_exception(kind(rejected.problem.detail, response))
    return response


def replaced(app: Flask, response: Response, rejected: Rejected) -> Response:
    """The answer to a refusal, in the place of `response`, of which nothing was sent yet.

    It has the header fields of `response` that do not speak of its content; its cookies would acknowledge what was refused.
    """
    try:
        made = app.make_response(app.handle_user_exception(rejected))
    except Exception as error:
        if not isinstance(error, Rejected):
            _log.exception("an error handler failed; the refusal is answered without it")
        made = problem(app, rejected, context_of_request().request)
    for name, value in response.headers:
        known = name.lower()
        if known == "vary" or not (known in _OF_THE_BODY or name in made.headers):
            made.headers.add(name, value)
    response.close()
    return made
