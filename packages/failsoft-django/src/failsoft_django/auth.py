"""``django.contrib.auth`` and failsoft's principal: who is logged in here is logged in everywhere, and the other way round.

- Django's ``login()`` sets the session's principal to the user's primary key, as text; so does every package that goes through it.
- ``PrincipalBackend`` in ``AUTHENTICATION_BACKENDS`` makes ``request.user`` whoever logged in with Flask or Starlette. It is asked once
  in a session: what Django's ``login()`` stores is stored then, the hash of the password among it; so when the password is changed,
  that session ends like any other.

        AUTHENTICATION_BACKENDS = ["django.contrib.auth.backends.ModelBackend", "failsoft_django.auth.PrincipalBackend"]

  It takes no credentials, and gives no permissions: leave that to the others.
- ``logout()`` flushes the session, which ends it for every framework.
"""

from collections.abc import Mapping
from contextvars import ContextVar
from functools import lru_cache
from typing import TYPE_CHECKING, Any, Final

from django.conf import settings as django_settings
from django.contrib.auth.signals import user_logged_in
from django.core.exceptions import ValidationError
from django.utils.module_loading import import_string

from failsoft.sessions.record import Principal
from failsoft.sessions.session import State

if TYPE_CHECKING:
    from failsoft_django.session_base import DjangoView

__all__ = ["KEYS", "PrincipalBackend", "arecognise", "backend_path", "connect", "forget", "recognise"]

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
