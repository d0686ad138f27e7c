"""Where Flask opens and saves the sessions that are kept in the store.

Theory of operation. Flask opens a session before anything else of a request, so `open_session` only looks at the cookies. The session
joins the request's exchange as soon as there is one, and is loaded in the flight that limits make anyway, or at its first use. It is
saved when ``after_request`` functions are through: settling it then, with everything else that is to be written, leaves time to answer
otherwise if the store does not take it. A request that did not look at its session is settled when its response starts, as without
sessions.

Rules:

- What the store did not take is never acknowledged: the refusal takes the response's place, with the header fields that speak of
  the application rather than of the body. Neither is any other refusal an internal error, wherever the session was used: in a view, an
  ``after_request`` function, or the page that an error handler renders.
- A request that fails without a response (its error goes on to the server) writes nothing: nobody could tell the browser of a new id.
- A context that is no request is served at once: `session_transaction`, and `save_session` in a test request context.
"""

import logging
from collections.abc import Callable, Sequence
from typing import Any

from flask import Flask, Request, Response
from flask.ctx import RequestContext
from flask.sessions import SecureCookieSessionInterface, SessionInterface, SessionMixin

from failsoft.errors import ConfigurationError, Rejected
from failsoft.exchange import Exchange
from failsoft.exchange.policy import current
from failsoft.runtime import Runtime
from failsoft.sessions.service import Sessions
from failsoft_flask import auth
from failsoft_flask.remember import Remembering
from failsoft_flask.session_settings import agree
from failsoft_flask.sessions import SNAPSHOT, FlaskSession
from failsoft_flask.translate import FIELDS, VIEW, FlaskFacts, context_of_request, is_own, problem, replaced

__all__ = ["FlaskSessions", "install"]

_log = logging.getLogger("failsoft.flask")


class FlaskSessions(SessionInterface):
    """Opens and saves the sessions of one application.

    Args:
        sessions: where they come from.

    Attributes:
        remembering: says what becomes of remember cookies of Flask-Login's.
    """

    session_class = FlaskSession

    def __init__(self, sessions: Sessions) -> None:
        self._sessions = sessions
        self.remembering = Remembering(sessions)

    def open_session(self, app: Flask, request: Request) -> FlaskSession:
        """The session that the request's cookies lead to. Nothing is loaded yet."""
        return FlaskSession(self._sessions.open(request.environ.get("HTTP_COOKIE")), app, self.remembering)

    def save_session(self, app: Flask, session: SessionMixin, response: Response) -> None:
        """Save the session of a context that is no request, and put the cookies into `response`; a request's is saved later.

        Raises:
            SessionUnavailable: the store did not take it.
            SessionConflict: the session ended meanwhile.
        """
        if not isinstance(session, FlaskSession) or session.session.exchange is not None:
            return
        if session.prepare():
            for cookie in self._sessions.save(session.session):
                response.headers.add("Set-Cookie", cookie)
            response.vary.add("Cookie")


def _with_cookies(fields: Sequence[tuple[str, str]], cookies: Sequence[str]) -> list[tuple[str, str]]:
    """These, and what goes with Flask-Login's cookie, which is there already: no shared cache may keep that."""
    private = () if any(name == "Cache-Control" for name, _ in fields) else (("Cache-Control", "private"),)
    return [*fields, *private, *(("Set-Cookie", cookie) for cookie in cookies if ("Set-Cookie", cookie) not in fields)]


def install(app: Flask, runtime: Runtime, sessions: Sessions) -> Callable[[Exchange, RequestContext], None]:
    """Give `app` sessions. Returns what attaches a request's session to its exchange.

    Raises:
        ConfigurationError: the application has others, or its SESSION_COOKIE_... disagree with failsoft's settings.
    """
    if type(app.session_interface) is not SecureCookieSessionInterface:
        raise ConfigurationError(
            f"the setting sessions is on, and {app!r} has a session_interface of its own ({type(app.session_interface).__name__}): "
            "remove that extension, or turn sessions off"
        )
    agree(app.config, sessions)
    app.session_interface = interface = FlaskSessions(sessions)
    sessions.snapshot_names.update(dict.fromkeys(SNAPSHOT))
    process_response, handle_exception = app.process_response, app.handle_exception
    prepared = False

    def attach(exchange: Exchange, context: RequestContext) -> None:
        nonlocal prepared
        if not prepared:
            prepared = True
            auth.follow_logouts(app)
            if not isinstance(app.session_interface, FlaskSessions):
                _log.warning(
                    "sessions are not failsoft's: %s replaced its session_interface",
                    type(app.session_interface).__name__,
                )
        view: Any = context.session
        if isinstance(view, FlaskSession):
            sessions.attach(exchange, view.session)
            exchange.memo[VIEW] = view
            if isinstance(exchange.facts, FlaskFacts):
                exchange.facts.session = view
            exchange.at_end(view.end)

    def process(response: Response) -> Response:
        try:
            response = process_response(response)
        except Rejected as rejected:  # an after_request function needs the session
            response = replaced(app, response, rejected)
        exchange = current()
        if exchange is None or exchange.settled or not is_own(exchange):
            return response
        view = exchange.memo.get(VIEW)
        if view is None or not view.prepare():
            return response
        exchange.memo[FIELDS] = ()
        if view.remembered_by is not None:
            exchange.unsaved = interface.remembering.check(app, view, response) or exchange.unsaved
        fields = runtime.finish(exchange, response.status_code)
        if view.remembering is not None and (exchange.unsaved is None or view.remembering == "clear"):
            fields = _with_cookies(fields, interface.remembering.cookies(view))
        exchange.memo[FIELDS] = fields
        if exchange.unsaved is not None:
            response = replaced(app, response, exchange.unsaved)
            if view.remembering == "clear":
                interface.remembering.clear(app, view, response)
            return response
        if exchange.accepted and response.status_code in (200, 204):
            response.status_code = 202
        return response

    def handle(error: Exception) -> Response:
        """An error that no handler took; a refusal, where what a handler or a URL converter does needs the session."""
        if isinstance(error, Rejected):
            return app.finalize_request(problem(app, error, context_of_request().request), from_error_handler=True)
        return handle_exception(error)

    for name, wrapper in (("process_response", process), ("handle_exception", handle)):
        setattr(app, name, wrapper)
    return attach
