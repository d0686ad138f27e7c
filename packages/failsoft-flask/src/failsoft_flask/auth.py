"""Who is logged in, in words that every framework understands, and Flask-Login's part in it.

The session holds a *principal*: the user's identifier as text, when they logged in, and how. `login`, `logout` and `principal` set and
read it. All of it needs the setting ``sessions``.

With Flask-Login there is nothing to do: to it, the principal is what it stores itself.

- Its ``_user_id`` *is* the principal. ``login_user`` sets it, and so logs the session in, and gives it another id. So does its remember
  cookie, as long as the sessions that it goes with were neither logged out nor revoked (see the module `remember`).
- Whoever logged in on Django or Starlette is its ``current_user``: the user loader is given the principal's subject. Their login counts
  as fresh, and session protection, which binds a login to a browser and an address, does not bind one that was made elsewhere.
- ``logout_user`` ends the session, for every framework, and so does session protection in its mode "strong". Clearing a session that
  was logged in with Flask-Login does as well.
- While the store is away: ``login_user`` raises `SessionUnavailable`. Who is logged in is known from the snapshot, where there is one, and
  ``logout_user`` works then; it does, too, where ``session_on_outage`` is ``"empty"``. Else it has to read the session first, and raises:
  `logout` does not.
"""

import sys
from collections.abc import Iterable
from importlib import import_module
from typing import TYPE_CHECKING, Any

from flask import Flask, current_app, g, request
from flask.globals import session

from failsoft.errors import ConfigurationError

if TYPE_CHECKING:
    from failsoft.sessions.record import Principal
    from failsoft_flask.sessions import FlaskSession

__all__ = ["follow_logouts", "login", "logout", "principal"]


def login(subject: str, methods: Iterable[str] = ()) -> None:
    """Say who the user is from now on, in every framework, and give the session another id (OWASP: against fixation).

    What an anonymous session holds stays. The session of another user is ended, and the new one gets one of their own.

    Args:
        subject: the user's identifier, as text; the same in every framework.
        methods: how they proved who they are (RFC 8176: ``"pwd"``, ``"otp"``...).

    Raises:
        SessionUnavailable: the store is away.
        OutsideRequest: the response has begun.
        ConfigurationError: the application has no sessions of failsoft's.
    """
    _view().login(subject, methods)
    g.pop("_login_user", None)  # Flask-Login remembers there whom it found


def logout() -> None:
    """End the session, for every framework and every tab of the browser. What is written afterwards begins a new one.

    Flask-Login's user, and its remember cookie, are logged out with it. While the store is away, the browser's cookies are deleted
    all the same, the answer 200 becomes 202, and a sealed ticket makes up for it later.

    Raises:
        OutsideRequest: the response has begun.
        ConfigurationError: the application has no sessions of failsoft's.
    """
    view = _view()
    view.logout()
    if hasattr(current_app, "login_manager"):
        flask_login: Any = import_module("flask_login")
        if current_app.config.get("REMEMBER_COOKIE_NAME", flask_login.COOKIE_NAME) in request.cookies:
            view["_remember"] = "clear"  # or Flask-Login would log in with it, to see whom it logs out
        flask_login.logout_user()


def principal() -> "Principal | None":
    """Who is logged in, whichever framework they logged in on; None for nobody.

    Raises:
        SessionUnavailable: the store is away, there is no snapshot, and the setting ``session_on_outage`` is ``"refuse"``.
        ConfigurationError: the application has no sessions of failsoft's.
    """
    return _view().principal


def _view() -> "FlaskSession":
    view: Any = session._get_current_object()  # type: ignore[attr-defined]  # a LocalProxy, typed as what it stands for
    if not hasattr(type(view), "principal"):
        raise ConfigurationError(
            f"flask.session is a {type(view).__name__}, not failsoft's: turn the setting sessions on, and remove other session extensions"
        )
    found: FlaskSession = view
    return found


def follow_logouts(app: Flask) -> None:
    """End sessions whose user Flask-Login logs out without having seen them, because the store is away."""
    flask_login = sys.modules.get("flask_login")
    if flask_login is not None and hasattr(app, "login_manager"):
        flask_login.user_logged_out.connect(_logged_out, app)


def _logged_out(app: Flask, **_: Any) -> None:
    view: Any = session._get_current_object()  # type: ignore[attr-defined]  # as above
    if not hasattr(type(view), "principal") or view.session.ended:
        return
    if view.degraded:
        view.logout()
    else:
        view.session.unremember()  # of a cookie that logs nobody in: of the sessions that it goes with one may be left
