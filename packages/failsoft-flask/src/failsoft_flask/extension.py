"""The extension: where a Flask application calls the core.

Theory of operation. Three moments of a request are ours:

1. The signal ``request_started``: decide. It comes before every ``before_request`` function, whoever registered it
   first, also for requests that no route matches, and inside Flask's error handling: a refusal goes through error
   handlers and ``after_request`` functions as every error does. Functions of ``before_request`` have not run by then.
2. The signal ``request_finished``: settle, and add header fields. It comes after ``after_request`` functions and the
   session, and also for answers that an error handler made. Nothing after it can change the response.
3. Teardown: the exchange is no longer current. What was not settled is settled now, for want of a response.

Rules:

- A refusal is raised. Flask hands it to the most fitting error handler; ours is there for lack of another. As Flask
  has it, a blueprint's handler for every `Exception` comes before any of the application's, so before ours.
- Requests that no route matches, static files and automatic answers to OPTIONS count as any other request does; the
  latter two for the limits of their route as well. ``exempt(app.view_functions["static"])`` exempts static files.
- What a view streams is made after the teardown. Decorated functions called from there find their request all the
  same. What they refuse breaks the stream off: its status has been sent.
- ``app.test_request_context()`` is no request: nothing decides, and decorated functions raise `OutsideRequest`.
- The signals live as long as the process and hold nothing of an application: one that is dropped goes.
"""

import logging
from collections.abc import Mapping
from typing import Any
from weakref import WeakSet

from flask import Flask, Response, request_finished, request_started
from flask.ctx import RequestContext
from flask.globals import request_ctx

from failsoft.address import rewritten_by_server
from failsoft.errors import ConfigurationError, Rejected
from failsoft.exchange import Exchange
from failsoft.exchange.policy import current, enter, leave
from failsoft.runtime import Runtime, refusal_fields
from failsoft.settings import OPTIONS, Settings
from failsoft_flask.inspect import audit
from failsoft_flask.translate import FlaskFacts, StreamedBody, refusal

__all__ = ["Failsoft"]

_log = logging.getLogger("failsoft.flask")

_applications: WeakSet[Flask] = WeakSet()


class Failsoft:
    """Failsoft in Flask applications.

    Settings come from keyword arguments, else from ``app.config["FAILSOFT"]`` (a mapping, or complete `Settings`),
    else from the environment (``FAILSOFT_STORE``) and the file that ``FAILSOFT_CONFIG`` names. They are read when the
    application is set up. Its `Runtime` is then ``app.extensions["failsoft"]``. Views are decorated with what
    `failsoft` has; a refusal is answered by the handlers that the application has for `failsoft.RateLimited` (or
    another of our exceptions), for its status, or for HTTP errors, else with a problem (RFC 9457).

    Args:
        app: the application; or none yet, and `init_app` for each of any number of applications.
        runtime: a runtime made beforehand, to be used instead of one made from settings.
        options: settings by their names (``store="redis://localhost:6379/0"``, ``limits=["100/minute"]``).

    Raises:
        ConfigurationError: a setting is not accepted, or the application has failsoft already.
    """

    def __init__(self, app: Flask | None = None, *, runtime: Runtime | None = None, **options: Any) -> None:
        if runtime is not None and options:
            raise ConfigurationError(f"give a runtime or settings ({', '.join(sorted(options))}), not both")
        self._runtime = runtime
        self._options = options
        if app is not None:
            self.init_app(app)

    def init_app(self, app: Flask) -> None:
        """Install failsoft in `app`. Its store is connected to in the background, at the first request at the latest.

        Raises:
            ConfigurationError: a setting is not accepted, or the application has failsoft already.
        """
        if "failsoft" in app.extensions:
            raise ConfigurationError(f"{app!r} has failsoft already; call Failsoft(app) or init_app(app) only once")
        runtime = self._runtime or Runtime(_settings(app, self._options))
        hooks = _hooks(runtime)
        started, finished, teardown = hooks
        app.teardown_request(teardown)
        request_started.connect(started, app)
        request_finished.connect(finished, app)
        app.error_handler_spec[None][None].setdefault(Rejected, refusal)
        app.extensions["failsoft"] = runtime
        app.extensions["failsoft_flask"] = hooks  # the signals hold them weakly
        _applications.add(app)


def _settings(app: Flask, options: Mapping[str, Any]) -> Settings:
    given: Any = app.config.get("FAILSOFT")
    if given is None:
        return Settings.load(options, source="Failsoft(...)")
    if isinstance(given, Settings):
        given = {option.name: getattr(given, option.name) for option in OPTIONS}
    if isinstance(given, Mapping):
        # `from_prefixed_env` adds upper-case names to what is there; as always in Flask's config, the later one holds.
        given = {key.lower() if isinstance(key, str) else key: value for key, value in given.items()} | {**options}
    return Settings.load(given, source="app.config['FAILSOFT']")


def _hooks(runtime: Runtime) -> tuple[Any, Any, Any]:
    """Failsoft's part in the requests of one application.

    Plain functions, because at each call Flask asks of each whether it is async, and of these that is told soonest.
    """
    audited = False
    # Without proxies of ours, who speaks for a client is someone else's business.
    watching = bool(runtime.settings.trusted_proxies)

    def started(app: Flask, **_: Any) -> None:
        """Decide about the request; a refusal is raised."""
        nonlocal audited, watching
        facts = FlaskFacts(_context())
        exchange = runtime.begin(facts)
        facts.token = enter(exchange)
        if not audited:
            audited = True
            _report(app)
        if watching:
            watching = not _warned(facts)
        rejected = runtime.admit(exchange)
        if rejected is not None:
            raise rejected

    def settle(exchange: Exchange, facts: FlaskFacts, status: int) -> list[tuple[str, str]]:
        if facts.fields is None:  # Flask comes twice where another receiver of the signal failed
            facts.fields = []
            facts.fields = runtime.finish(exchange, status)
        return facts.fields

    def finished(app: Flask, response: Response, **_: Any) -> None:
        """Settle, and complete the response. Raises nothing: Flask would answer 500 instead."""
        try:
            exchange = current()
            facts = _own(exchange)
            if exchange is None or facts is None:
                return
            for name, value in settle(exchange, facts, response.status_code):
                response.headers.add(name, value)
            # A view may have caught the refusal and answered in its own way.
            if exchange.rejection is not None and response.status_code >= 400:
                for name, value in refusal_fields(exchange.rejection):
                    response.headers.setdefault(name, value)
            if response.is_streamed and not response.direct_passthrough:
                response.response = StreamedBody(response.response, exchange)
                exchange.streamed = True
        except Exception:
            _log.exception("completing a response failed; it goes out without some of failsoft's header fields")

    def teardown(error: BaseException | None) -> None:
        """Leave the request. Contexts that are torn down within it, such as copies, are not it."""
        exchange = current()
        facts = _own(exchange)
        if exchange is None or facts is None or facts.token is None:
            return
        token, facts.token = facts.token, None
        leave(token)
        if facts.fields is None:  # the error went on to the server, or a function of after_request failed for good
            try:
                settle(exchange, facts, 500)
            except Exception:
                _log.exception("settling a request failed")
        if not exchange.streamed:  # else the body's end is the request's
            exchange.end()

    return started, finished, teardown


def _context() -> RequestContext:
    return request_ctx._get_current_object()  # type: ignore[attr-defined,no-any-return]  # a LocalProxy, typed as what it stands for


def _own(exchange: Exchange | None) -> FlaskFacts | None:
    """The facts of `exchange` if it belongs to the request that Flask is serving just now."""
    if exchange is None:
        return None
    facts = exchange.facts
    return facts if isinstance(facts, FlaskFacts) and facts.context is _context() else None


def _report(app: Flask) -> None:
    for other in list(_applications):
        audit(other)  # what its routes lead to is not lost here
    for declaration in audit(app):
        _log.warning(
            "%s on %s is reached by no route: it is enforced only when the function is called. Put the decorator below "
            "the route's, and use functools.wraps in decorators of your own",
            ", ".join(map(repr, declaration.policies)),
            declaration.where,
        )


def _warned(facts: FlaskFacts) -> bool:
    """Warn where the peer's address was replaced before we saw it; whether that was so."""
    original = facts.request.environ.get("werkzeug.proxy_fix.orig")
    if original is None:
        return False
    message = rewritten_by_server(
        facts.peer(), port=None, lines=facts.header_lines("x-forwarded-for"), original=original.get("REMOTE_ADDR")
    )
    if message is not None:
        _log.warning("%s", message)
    return message is not None
