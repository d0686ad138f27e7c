"""The extension: where a Flask application calls the core.

Theory of operation. Three methods of the application are wrapped, each in an instance's attribute, as middleware is:

1. ``wsgi_app``: the request's beginning and its end. Here `start_response` adds header fields, after everything that
   can change the response: ``after_request`` functions, the session, error handlers. What was not settled by the end
   is settled then, for want of a response.
2. ``preprocess_request``: decide. It is the first thing that Flask does within its error handling, also for requests
   that no route matches: before every ``before_request`` function, whoever registered it first. A refusal goes through
   error handlers and ``after_request`` functions as every error does.
3. ``process_response``: see whether the response is a stream. It comes after ``after_request`` functions and the session. With
   the setting ``sessions`` a session that was used is saved there (see the module `session_interface`).

Signals and a teardown function would do as well, but take 10 µs more for a request, where Flask itself takes 50: for
looking up who receives them, for asking of each whether it is async, and for copying the header fields once more.

Rules:

- A refusal is raised. Flask hands it to the most fitting error handler; ours is there for lack of another. As Flask
  has it, a blueprint's handler for every `Exception` comes before any of the application's, so before ours.
- Requests that no route matches, static files and automatic answers to OPTIONS count as any other request does; the
  latter two for the limits of their route as well. ``exempt(app.view_functions["static"])`` exempts static files.
- What a view streams is made after the teardown. Decorated functions called from there find their request all the
  same. What they refuse breaks the stream off: its status has been sent.
- ``app.test_requestcontext_of_request()`` is no request: nothing decides, and decorated functions raise `OutsideRequest`. It
  becomes one where ``app.preprocess_request()`` or ``app.full_dispatch_request()`` is called in it, and ends with it.
"""

import logging
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextvars import Token
from functools import partial
from typing import Any

from flask import Flask, Response, request_finished, request_tearing_down
from flask.ctx import RequestContext

from failsoft.address import believed_from_afar, rewritten_by_server
from failsoft.errors import ConfigurationError, Rejected
from failsoft.exchange import Exchange
from failsoft.exchange.applications import installed, serves
from failsoft.exchange.policy import current, enter, leave
from failsoft.fields import with_fields
from failsoft.inspection import unreached
from failsoft.runtime import Runtime, refusal_fields
from failsoft.settings import OPTIONS, SettingProblem, Settings, SettingsError
from failsoft.settings.misplaced import misplaced
from failsoft_flask.inspect import audit, list_routes, refuse_later_mistakes, refuse_mistakes, targets_of_routes
from failsoft_flask.translate import FIELDS, VIEW, FlaskFacts, StreamedBody, context_of_request, is_own, refusal

__all__ = ["Failsoft"]

_log = logging.getLogger("failsoft.flask")


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
        ConfigurationError: a setting is not accepted, or the application has failsoft already. A limit that these settings cannot
            enforce raises it where its view gets a route.
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
        refuse_mistakes(app, runtime)
        _install(app, runtime, None if self._runtime else partial(_unread, app, self._options, _configured(app)))
        refuse_later_mistakes(app, runtime)  # last: where the settings are wrong, the application may be given others
        app.error_handler_spec[None][None].setdefault(Rejected, refusal)
        app.extensions["failsoft"] = runtime
        installed(app, targets_of_routes)


def _settings(app: Flask, options: Mapping[str, Any]) -> Settings:
    wrong = _misplaced(app, app.config, options)
    try:
        settings = _loaded(app.config.get("FAILSOFT"), options)
    except SettingsError as error:
        raise SettingsError([*error.problems, *wrong]) from None
    if wrong:
        raise SettingsError(wrong)
    return settings


def _misplaced(app: Flask, config: Mapping[str, Any], options: Mapping[str, Any]) -> list[SettingProblem]:
    given: Any = app.config.get("FAILSOFT")
    inside = {str(key).lower(): value for key, value in given.items()} if isinstance(given, Mapping) else {}
    where = "app.config[{!r}]".format
    return misplaced(config, given=inside, where=where, write=_spelt, overridden=options)


def _spelt(name: str) -> str:
    return f"app.config['FAILSOFT'] = {{{name!r}: ...}}, or the environment variable FLASK_FAILSOFT__{name.upper()}"


def _loaded(given: Any, options: Mapping[str, Any]) -> Settings:
    if given is None:
        return Settings.load(options, source="Failsoft(...)")
    if isinstance(given, Settings):
        given = {option.name: getattr(given, option.name) for option in OPTIONS}
    if isinstance(given, Mapping):
        # `from_prefixed_env` adds upper-case names to what is there; as always in Flask's config, the later one holds.
        given = {key.lower() if isinstance(key, str) else key: value for key, value in given.items()} | {**options}
    return Settings.load(given, source="app.config['FAILSOFT']")


def _configured(app: Flask) -> dict[str, Any]:
    """What `app` was given for failsoft, or is going to be told that it was not read."""
    found = {key: value for key, value in app.config.items() if str(key).upper().startswith("FAILSOFT")}
    if isinstance(given := found.get("FAILSOFT"), Mapping):
        found["FAILSOFT"] = dict(given)  # a copy: it may be added to in place
    return found


def _unread(app: Flask, options: Mapping[str, Any], read: Mapping[str, Any]) -> Iterator[str]:
    """What stands in the configuration now, and came after it was `read`."""
    now = _configured(app)
    if now.get("FAILSOFT") != read.get("FAILSOFT"):
        yield (
            "app.config['FAILSOFT'] was changed after Failsoft(app) had read it, and the change has no effect: set it before, or call "
            "init_app(app) once the configuration is complete"
        )
    # What stood there before was right, or it had been refused.
    came = {key: value for key, value in now.items() if key not in read or read[key] != value}
    yield from map(str, _misplaced(app, came, options))


class _Call:
    """A request, from where the server calls the application to where that returns.

    Attributes:
        exchange: None before the request began.
        fields: the header fields that it was settled with, or None before that.
        token: undoes making the exchange current.
    """

    token: Token[Exchange | None]

    def __init__(self, runtime: Runtime, start_response: Any) -> None:
        self._runtime = runtime
        self._start_response = start_response
        self.exchange: Exchange | None = None
        self.fields: Sequence[tuple[str, str]] | None = None

    def start(self, status: str, headers: list[tuple[str, str]], error: Any = None) -> Any:
        """The server's ``start_response``, with our header fields."""
        if self.exchange is not None:
            headers = self.complete(self.exchange, status, headers)
        if error is None:
            return self._start_response(status, headers)
        return self._start_response(status, headers, error)

    def complete(
        self, exchange: Exchange, status: str, headers: Sequence[tuple[str, str]] = ()
    ) -> list[tuple[str, str]]:
        """Settle, once. Returns what a response is to have that has `headers`. Raises nothing: Flask would answer 500."""
        try:
            fields = self.fields
            if fields is None:
                self.fields = ()
                if exchange.settled:
                    fields = exchange.memo[FIELDS]
                else:
                    # The usual one first, without 0.2 µs of cutting and reading.
                    fields = self._runtime.finish(exchange, 200 if status == "200 OK" else int(status[:3]))
                self.fields = fields
            # The application may have answered a refusal in its own way.
            if (rejected := exchange.rejection or exchange.unsaved) is not None and status >= "4":
                present = {name.lower() for name, _ in headers}
                headers = [*headers, *(field for field in refusal_fields(rejected) if field[0].lower() not in present)]
            if self._runtime.sessions is not None:  # others say nothing that must be merged; to look takes 0.3 µs
                return with_fields(headers, fields)
        except Exception:
            _log.exception("completing a response failed; it goes out without some of failsoft's header fields")
        return [*headers, *(self.fields or ())]

    def end(self, answered: bool) -> None:
        """Leave the request, with a response or without."""
        exchange = self.exchange
        if exchange is None:
            return
        leave(self.token)
        if self.fields is None:
            # Either the error went on to the server, or middleware inside of us will start the response later.
            if not answered and not exchange.settled and (session := exchange.memo.get(VIEW)) is not None:
                session.session.discard()
            self.complete(exchange, "200" if answered else "500")
        if not (answered and exchange.streamed):  # else the body's end is the request's
            exchange.end()


def _install(app: Flask, runtime: Runtime, unread: Callable[[], Iterable[str]] | None) -> None:
    """Failsoft's part in the requests of one application. `unread` gives what came too late into its configuration, if that was read."""
    key = f"failsoft_flask.{id(app)}"
    attach: Callable[[Exchange, RequestContext], None] | None = None
    if runtime.sessions is not None:
        from failsoft_flask.session_interface import install  # here, because it brings packages that are optional

        attach = install(app, runtime, runtime.sessions)
    wsgi_app, preprocess_request, process_response = app.wsgi_app, app.preprocess_request, app.process_response
    audited = False
    watching = True

    def serve(environ: dict[str, Any], start_response: Any) -> Any:
        call = environ[key] = _Call(runtime, start_response)
        answered = False
        try:
            body = wsgi_app(environ, call.start)
            answered = True
            return body
        finally:
            environ.pop(key, None)
            call.end(answered)

    def preprocess() -> Any:
        nonlocal audited, watching
        context = context_of_request()
        facts = FlaskFacts(context)
        call = context.request.environ.get(key)
        if call is None or call.exchange is not None:
            call = _by_hand(app, runtime, context)
        exchange = call.exchange = runtime.begin(facts)
        call.token = enter(exchange)
        if attach is not None:
            attach(exchange, context)
        if not audited:
            audited = True
            for told in unread() if unread is not None else ():
                _log.warning("%s", told)
            _report(app, runtime)
        if watching:
            watching = not _warned(facts, named=bool(runtime.settings.trusted_proxies))
        rejected = runtime.admit(exchange)
        if rejected is not None:
            raise rejected
        return preprocess_request()

    def process(response: Response) -> Response:
        response = process_response(response)
        exchange = current()
        if exchange is None or (type(response.response) is list and not exchange.streamed):
            return response  # the usual case: a list is no stream, and there was none before
        # A second time where something failed after the first: then this response takes the place of that one.
        if (response.is_streamed or exchange.streamed) and is_own(exchange):
            exchange.streamed = response.is_streamed and not response.direct_passthrough
            if exchange.streamed:
                response.response = StreamedBody(response.response, exchange)
        return response

    for name, wrapper in (("wsgi_app", serve), ("preprocess_request", preprocess), ("process_response", process)):
        setattr(app, name, wrapper)


def _by_hand(app: Flask, runtime: Runtime, context: RequestContext) -> _Call:
    """A request that came by no server: it ends with the context that somebody made for it."""
    call = _Call(runtime, None)

    def finished(app: Flask, response: Response, **_: Any) -> None:
        if call.exchange is not None and context_of_request() is context:
            headers = call.complete(call.exchange, response.status, [*response.headers])
            response.headers.clear()
            response.headers.extend(headers)

    def tearing_down(app: Flask, **_: Any) -> None:
        if context_of_request() is context:
            request_finished.disconnect(finished, app)
            request_tearing_down.disconnect(tearing_down, app)
            call.end(answered=call.fields is not None)

    request_finished.connect(finished, app, weak=False)
    request_tearing_down.connect(tearing_down, app, weak=False)
    return call


def _report(app: Flask, runtime: Runtime) -> None:
    serves(app)
    if runtime.settings.scopes:
        for told in unreached(runtime.settings, list_routes(app)):
            _log.warning("%s", told)
    for declaration in audit(app):
        _log.warning(
            "%s on %s is reached by no route: it is enforced only when the function is called. Put the decorator below "
            "the route's, and use functools.wraps in decorators of your own",
            ", ".join(map(repr, declaration.policies)),
            declaration.where,
        )


def _warned(facts: FlaskFacts, *, named: bool) -> bool:
    """Warn where the peer's address was replaced before we saw it; whether that was so.

    Without proxies of ours (`named`), who speaks for a client is someone else's business, as long as it is one who can.
    """
    original = facts.request.environ.get("werkzeug.proxy_fix.orig")
    if original is None:
        return False
    peer, before = facts.peer(), original.get("REMOTE_ADDR")
    if named:
        message = rewritten_by_server(peer, port=None, lines=facts.header_lines("x-forwarded-for"), original=before)
    else:
        message = None if before is None else believed_from_afar(peer, before)
    if message is not None:
        _log.warning("%s", message)
    return message is not None
