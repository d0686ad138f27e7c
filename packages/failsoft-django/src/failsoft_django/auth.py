"""``django.contrib.auth`` and failsoft's principal: who is logged in here is logged in everywhere, and the other way round.

- Django's ``login()`` sets the session's principal to the user's primary key, as text; so does every package that goes through it.
- ``PrincipalBackend`` in ``AUTHENTICATION_BACKENDS`` makes ``request.user`` whoever logged in with Flask or Starlette. It is asked once
  in a session: what Django's ``login()`` stores is stored then, the hash of the password among it; so when the password is changed,
  that session ends like any other.

        AUTHENTICATION_BACKENDS = ["django.contrib.auth.backends.ModelBackend", "failsoft_django.auth.PrincipalBackend"]

  It takes no credentials, and gives no permissions: leave that to the others.
- ``logout()`` flushes the session, which ends it for every framework. It reads ``request.user`` first, which is a 503 while the store is
  away; ours does not then.
- Django knows a changed password by the hash that a session holds; other frameworks know none. So when ``update_session_auth_hash()``
  stores another hash, the user's other sessions are ended for all of them. A password that is changed in any other way (reset, or by an
  administrator) says nothing to any session: `revoke_sessions` does.
- A session may say who its user is, and have no principal: one that was carried over from another engine. It gets one when the hash of
  the password has been verified; so Django does when somebody asks for the user.
"""

from collections.abc import Mapping
from contextvars import ContextVar
from functools import lru_cache
from typing import TYPE_CHECKING, Any, Final

from django.conf import settings as django_settings
from django.contrib.auth.signals import user_logged_in, user_logged_out
from django.core.exceptions import SynchronousOnlyOperation, ValidationError
from django.http import HttpRequest
from django.utils.crypto import constant_time_compare
from django.utils.module_loading import import_string

from failsoft.sessions.record import Principal
from failsoft.sessions.session import Session, State

if TYPE_CHECKING:
    from failsoft.sessions.manage import Subjects
    from failsoft_django.session_base import DjangoView

__all__ = [
    "KEYS",
    "PrincipalBackend",
    "alogout",
    "arecognise",
    "arevoke_sessions",
    "asame_password",
    "averify",
    "backend_path",
    "connect",
    "forget",
    "logout",
    "recognise",
    "revoke_sessions",
    "same_password",
    "verify",
]

KEYS: Final = ("_auth_user_id", "_auth_user_backend", "_auth_user_hash")
"""What ``login()`` stores."""

_CARRIED: Final = (*KEYS, "_csrftoken")

_found: ContextVar[Any] = ContextVar("failsoft_django_user", default=None)
"""The user that was just looked up, for Django, which asks for the same one next."""


class PrincipalBackend:
    """Knows whoever logged in with another framework. Subclass it where their identifiers are not Django's primary keys."""

    # It inherits from none of Django's, whose module cannot be imported before there are models.

    def authenticate(self, request: Any) -> None:
        """Nobody logs in with this."""

    async def aauthenticate(self, request: Any) -> None:
        """Likewise."""

    def user_of(self, principal: Principal) -> Any:
        """The user that a session's principal is, or None."""
        model = _user_model()
        try:
            return self._admitted(model._default_manager.get(pk=principal.subject))
        except (model.DoesNotExist, ValueError, ValidationError):
            return None

    async def auser_of(self, principal: Principal) -> Any:
        """The same, from a coroutine."""
        model = _user_model()
        try:
            return self._admitted(await model._default_manager.aget(pk=principal.subject))
        except (model.DoesNotExist, ValueError, ValidationError):
            return None

    def get_user(self, user_id: Any) -> Any:
        """The user of a primary key, or None."""
        known = _take(user_id)
        return self._admitted(known or _user_model()._default_manager.filter(pk=user_id).first())

    async def aget_user(self, user_id: Any) -> Any:
        """The same, from a coroutine."""
        known = _take(user_id)
        return self._admitted(known or await _user_model()._default_manager.filter(pk=user_id).afirst())

    def _admitted(self, user: Any) -> Any:
        """`user`, unless the account was closed."""
        return user if getattr(user, "is_active", True) else None


def _user_model() -> Any:
    from django.contrib.auth import get_user_model  # here, because there are no models yet when this is imported

    return get_user_model()


def _take(user_id: Any) -> Any:
    user = _found.get()
    if user is None:
        return None
    forget()
    return user if user.pk == user_id else None


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


def recognise(view: "DjangoView") -> Mapping[str, str] | None:
    """What ``login()`` would have stored for whoever logged in elsewhere; None for nobody. Stores it, if the store is there."""
    principal, path = _to_ask(view)
    if principal is not None and path is not None:
        _known(view, path, import_string(path)().user_of(principal))
    return view.recognised or None


async def arecognise(view: "DjangoView") -> Mapping[str, str] | None:
    """The same, from a coroutine."""
    principal, path = _to_ask(view)
    if principal is not None and path is not None:
        _known(view, path, await import_string(path)().auser_of(principal))
    return view.recognised or None


def _to_ask(view: "DjangoView") -> tuple[Principal | None, str | None]:
    if view.recognised is not None or not view.lacks(KEYS[0]):
        return None, None
    return view.principal, backend_path()


def _known(view: "DjangoView", path: str, user: Any) -> None:
    if user is None:
        view.recognised = {}
        return
    _found.set(user)
    values = (user._meta.pk.value_to_string(user), path, user.get_session_auth_hash())
    found: dict[str, str] = dict(zip(KEYS, values, strict=True))
    view.recognised = found
    if view.session.state is State.LIVE and not view.session.renewed:
        view.update(found)


# The hash of the password


def verify(view: "DjangoView") -> None:
    """Make whom the session says its user is the principal, where it has none and the hash of the password is right."""
    if (wanted := _unverified(view)) is not None:
        backend, key = wanted
        try:
            _verified(view, backend.get_user(key))
        except SynchronousOnlyOperation:  # who reads a key on an event loop did not ask for the user
            view.verified = False


async def averify(view: "DjangoView") -> None:
    """The same, from a coroutine."""
    if (wanted := _unverified(view)) is not None:
        backend, key = wanted
        _verified(view, await backend.aget_user(key))


def _unverified(view: "DjangoView") -> tuple[Any, Any] | None:
    core = view.session
    known = view.verified or core.principal_known is not None or core.login_pending is not None
    if known or core.renewed or core.state not in (State.LIVE, State.NEW):
        return None
    view.verified = True
    return _stored(view)


def _stored(view: "DjangoView") -> tuple[Any, Any] | None:
    """The backend and the primary key of the user that the session holds."""
    key, path = (view.session.peek(view.name_of(one)) for one in KEYS[:2])
    if key is None or path not in django_settings.AUTHENTICATION_BACKENDS:
        return None
    try:
        return import_string(path)(), _user_model()._meta.pk.to_python(key)
    except (ValueError, ValidationError):
        return None


def _verified(view: "DjangoView", user: Any) -> None:
    if user is None:
        return
    if hasattr(user, "get_session_auth_hash"):  # as Django has it: a model need not
        stored = view.session.peek(view.name_of(KEYS[2]))
        if not stored or not (
            constant_time_compare(stored, user.get_session_auth_hash()) or _by_fallback(user, stored)
        ):
            return
    view.login(str(user.pk))


def _by_fallback(user: Any, stored: Any) -> bool:
    return any(constant_time_compare(stored, one) for one in user.get_session_auth_fallback_hash())


def same_password(view: "DjangoView", former: str) -> bool:
    """Whether the hash `former` was replaced because Django's ``SECRET_KEY`` was, and not the password."""
    if not django_settings.SECRET_KEY_FALLBACKS or (wanted := _stored(view)) is None:
        return False
    backend, key = wanted
    try:
        user = backend.get_user(key)
    except SynchronousOnlyOperation:  # Django replaces it where it has just looked the user up
        return False
    return user is not None and _by_fallback(user, former)


async def asame_password(view: "DjangoView", former: str) -> bool:
    """The same, from a coroutine."""
    if not django_settings.SECRET_KEY_FALLBACKS or (wanted := _stored(view)) is None:
        return False
    backend, key = wanted
    user = await backend.aget_user(key)
    return user is not None and _by_fallback(user, former)


def revoke_sessions(user: Any) -> int:
    """End all sessions of `user`, in every framework: for a password that was reset, or changed by somebody else.

    Call it when the new password is committed. Whoever's identifiers are not primary keys calls ``runtime.sessions.subjects.revoke_all``.

    Returns:
        How many were listed.

    Raises:
        SessionUnavailable: the store is away. They may be revoked or not: repeat it.
    """
    return _subjects().revoke_all(str(user.pk))


async def arevoke_sessions(user: Any) -> int:
    """The same, from a coroutine."""
    return await _subjects().arevoke_all(str(user.pk))


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
    subject = str(user.pk)
    before = view.principal
    if before is None or before.subject == subject:
        view.login(subject)
        return
    # Whoever was logged in elsewhere, and is no user here: their session ends, and what `login` has just stored goes on in the new one.
    carried = {key: view[key] for key in _CARRIED if key in view}
    view.login(subject)
    view.update(carried)
