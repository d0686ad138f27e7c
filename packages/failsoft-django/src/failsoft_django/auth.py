"""``django.contrib.auth`` and failsoft's principal: who is logged in here is logged in everywhere, and the other way round.

- Django's ``login()`` sets the session's principal to the user's primary key, as text, or to what `PrincipalBackend.subject_of` makes of
  the user; so does every package that goes through it.
- ``PrincipalBackend`` in ``AUTHENTICATION_BACKENDS`` makes ``request.user`` whoever logged in with Flask or Starlette (`session_view` says
  when it is asked):

        AUTHENTICATION_BACKENDS = ["django.contrib.auth.backends.ModelBackend", "failsoft_django.auth.PrincipalBackend"]

  It takes no credentials, and gives no permissions: leave that to the others.
- ``logout()`` flushes the session, which ends it for every framework. It reads ``request.user`` first, to say in a signal who that was.
  While the store is away nobody can say, and the logout goes on without: see `leaving`.
- Django knows a changed password by the hash that a session holds; other frameworks know none. So when ``update_session_auth_hash()``
  stores another hash, the user's other sessions are ended for all of them. A password that is changed in any other way (reset, or by an
  administrator) says nothing to any session: `revoke_sessions` does, or `RevokingValidator`, which Django tells of each.
"""

from contextvars import ContextVar
from functools import lru_cache, partial
from inspect import currentframe
from typing import TYPE_CHECKING, Any, Final

from django.conf import settings as django_settings
from django.contrib.auth.signals import user_logged_in, user_logged_out
from django.core.exceptions import ValidationError
from django.db import transaction
from django.http import HttpRequest
from django.utils.module_loading import import_string

from failsoft.exchange import current
from failsoft.sessions.record import Principal
from failsoft.sessions.session import Session
from failsoft.sessions.state import State
from failsoft_django.translate import STORE, subject_of

if TYPE_CHECKING:
    from failsoft.sessions.manage import Subjects

__all__ = [
    "KEYS",
    "PrincipalBackend",
    "RevokingValidator",
    "alogout",
    "arevoke_sessions",
    "backend_path",
    "connect",
    "forget",
    "leaving",
    "logout",
    "remember",
    "revoke_sessions",
    "user_model",
]

KEYS: Final = ("_auth_user_id", "_auth_user_backend", "_auth_user_hash")
"""What ``login()`` stores."""

_CARRIED: Final = (*KEYS, "_csrftoken")

_LOGOUTS: Final = frozenset({("django.contrib.auth", "logout"), ("django.contrib.auth", "alogout")})
"""The modules and names of functions that log out, and ask who the user is for no other reason than to tell it."""

_ADMIN: Final = ("django.contrib.admin.sites", "inner")
"""What serves a page of the admin, if the user may see it."""

_found: ContextVar[Any] = ContextVar("failsoft_django_user", default=None)
"""The user that was just looked up."""


class PrincipalBackend:
    """Knows whoever logged in with another framework, if they say Django's primary key when they log the user in.

    Where they say something else, make a subclass that knows it: `user_of` and `auser_of` in the one direction, `subject_of` in the other.
    An identifier must be the same user everywhere: with users of their own, numbered from 1, their user 1 would be Django's.
    """

    # It inherits from none of Django's, whose module cannot be imported before there are models.

    def authenticate(self, request: Any) -> None:
        """Nobody logs in with this."""

    async def aauthenticate(self, request: Any) -> None:
        """Likewise."""

    def subject_of(self, user: Any) -> str:
        """What other frameworks call `user`, whom `user_of` must find by it: text, 1 to 255 characters. No I/O: each request may ask it."""
        return str(user.pk)

    def user_of(self, principal: Principal) -> Any:
        """The user that a session's principal is, or None."""
        model = user_model()
        try:
            return self._admitted(model._default_manager.get(pk=principal.subject))
        except (model.DoesNotExist, ValueError, ValidationError):
            return None

    async def auser_of(self, principal: Principal) -> Any:
        """The same, from a coroutine."""
        model = user_model()
        try:
            return self._admitted(await model._default_manager.aget(pk=principal.subject))
        except (model.DoesNotExist, ValueError, ValidationError):
            return None

    def get_user(self, user_id: Any) -> Any:
        """The user of a primary key, or None."""
        known = _take(user_id)
        return self._admitted(known or user_model()._default_manager.filter(pk=user_id).first())

    async def aget_user(self, user_id: Any) -> Any:
        """The same, from a coroutine."""
        known = _take(user_id)
        return self._admitted(known or await user_model()._default_manager.filter(pk=user_id).afirst())

    def _admitted(self, user: Any) -> Any:
        """`user`, unless the account was closed."""
        return user if getattr(user, "is_active", True) else None


def user_model() -> Any:
    """The model of the project's users."""
    from django.contrib.auth import get_user_model  # here, because there are no models yet when this is imported

    return get_user_model()


def _take(user_id: Any) -> Any:
    user = _found.get()
    if user is None:
        return None
    forget()
    return user if user.pk == user_id else None


def remember(user: Any) -> None:
    """This user was just looked up: Django asks for the same one next."""
    _found.set(user)


def forget() -> None:
    """Another request begins, and what was looked up for the last one is old."""
    if _found.get() is not None:
        _found.set(None)


def backend_path() -> str | None:
    """Which of ``AUTHENTICATION_BACKENDS`` is ours, or made from it."""
    return _path_of(tuple(django_settings.AUTHENTICATION_BACKENDS))


@lru_cache(8)
def _path_of(paths: tuple[str, ...]) -> str | None:
    for path in paths:
        found = import_string(path)
        if isinstance(found, type) and issubclass(found, PrincipalBackend):
            return path
    return None


def revoke_sessions(user: Any) -> int:
    """End all sessions of `user`, in every framework: for a password that was reset, or changed by somebody else.

    Call it when the new password is committed.

    Returns:
        How many were listed.

    Raises:
        SessionUnavailable: the store is away. They may be revoked or not: repeat it.
    """
    return _subjects().revoke_all(subject_of(user))


async def arevoke_sessions(user: Any) -> int:
    """The same, from a coroutine."""
    return await _subjects().arevoke_all(subject_of(user))


class RevokingValidator:
    """Ends a user's sessions when their password has changed, in whatever way: for ``AUTH_PASSWORD_VALIDATORS``.

        AUTH_PASSWORD_VALIDATORS = [..., {"NAME": "failsoft_django.auth.RevokingValidator"}]

    Django tells validators when ``save()`` has stored a password of ``set_password()``. All sessions of that user end in every framework
    when the transaction is committed, but for the one of the request at hand, if it is that user's: ``update_session_auth_hash()`` goes on
    with it. The request is known where `FailsoftMiddleware` is; without, who changes their own password is logged out by it, with an
    error for an answer. For a user who is new there is nothing to end, and it is one trip to the store all the same.

    It accepts every password. Where the store is away ``save()`` raises `SessionUnavailable` (with a transaction around it, whoever
    commits), and the password has changed: `revoke_sessions` when the store is back, or another password.

    Args:
        help_text: what forms say of it.
    """

    def __init__(self, help_text: str = "Your sessions on other devices end when the password is changed.") -> None:
        self.help_text = help_text

    def validate(self, password: str, user: Any = None) -> None:
        """Any will do."""

    def get_help_text(self) -> str:
        """What forms say of it."""
        return self.help_text

    def password_changed(self, password: str, user: Any = None) -> None:
        """Django has stored another password."""
        if user is not None and user.pk is not None:
            transaction.on_commit(partial(_password_changed, user), using=user._state.db)


def _password_changed(user: Any) -> None:
    exchange = current()
    store: Any = None if exchange is None or exchange.settled else exchange.memo.get(STORE)
    if store is not None:
        principal = store.principal
        if principal is not None and principal.subject == subject_of(user):
            store.revoke_others()
            return
    revoke_sessions(user)


def _subjects() -> "Subjects":
    from failsoft_django.runtime import get_runtime  # here, because what these need is imported
    from failsoft_django.session_base import sessions_of  # while they import this

    return sessions_of(get_runtime()).subjects


# Logging in and out


def logout(request: HttpRequest) -> None:
    """What ``django.contrib.auth.logout`` does, also while the store is away.

    Then nobody can say who logs out: ``user_logged_out`` is sent with None. The cookies go, and a ticket ends the session when the store
    is back; see `failsoft.sessions.session.Session.logout`.

    Raises:
        SessionUnavailable: the store is away, and no middleware of ours is there to hand out a ticket.
    """
    from django.contrib import auth

    core = _core(request)
    if core is not None:
        core.service.load(core)
    if core is None or core.state is not State.AWAY:
        auth.logout(request)
    else:
        request.session.flush()  # first, so that whoever reads the session now finds nothing
        user_logged_out.send(sender=type(None), request=request, user=None)
    _nobody(request)


async def alogout(request: HttpRequest) -> None:
    """The same, from a coroutine."""
    from django.contrib import auth

    core = _core(request)
    if core is not None:
        await core.service.aload(core)
    if core is None or core.state is not State.AWAY:
        await auth.alogout(request)
    else:
        await request.session.aflush()
        await user_logged_out.asend(sender=type(None), request=request, user=None)
    _nobody(request)


def leaving(session: Session) -> bool:
    """Whether who asks for the user is about to log out: then nobody is an answer, while the store is away and cannot say who it is.

    Django's logout has no hook before it asks, and all that lead to it (its views, the admin, packages) have its function by name. So this
    looks who is asking; only while the store is away. The admin's page asks by itself before, and sends nobodies to the log-in page. Its
    check of CSRF tokens is made by then, so it counts as the logout that it is.

    Args:
        session: the request's; its store is away.
    """
    exchange = session.exchange
    if exchange is None or exchange.settled:  # without a response there is no ticket
        return False
    frame = currentframe()
    while frame is not None:
        place = frame.f_globals.get("__name__"), frame.f_code.co_name
        if place in _LOGOUTS:
            return True
        if place == _ADMIN and _is_logout_page(exchange.facts.request):
            logout(exchange.facts.request)
            return True
        frame = frame.f_back
    return False


def _is_logout_page(request: HttpRequest) -> bool:
    match = request.resolver_match
    return request.method == "POST" and match is not None and match.url_name == "logout" and "admin" in match.app_names


def _core(request: Any) -> Session | None:
    found = getattr(request.session, "session", None)
    return found if isinstance(found, Session) else None  # or another engine's


def _nobody(request: Any) -> None:
    """So it is for the rest of the view; before Django 6 its own forgets ``auser``."""
    from django.contrib.auth.models import AnonymousUser  # here, because there are no models yet when this is imported

    nobody = AnonymousUser()

    async def auser() -> AnonymousUser:
        return nobody

    if hasattr(request, "user"):
        request.user = nobody
    if hasattr(request, "auser"):
        request.auser = auser


def connect() -> None:
    """Listen to logins."""
    user_logged_in.connect(_logged_in, dispatch_uid="failsoft_django")


def _logged_in(*, request: Any, user: Any, **_: Any) -> None:
    view: Any = getattr(getattr(request, "session", None), "_session_cache", None)
    if user.pk is None or not hasattr(view, "lacks"):  # another engine's, or none
        return
    subject = subject_of(user)
    before = view.principal
    if before is None or before.subject == subject:
        view.login(subject)
        return
    # Whoever was logged in elsewhere, and is no user here: their session ends, and what `login` has just stored goes on in the new one.
    carried = {key: view[key] for key in _CARRIED if key in view}
    view.login(subject)
    view.update(carried)
