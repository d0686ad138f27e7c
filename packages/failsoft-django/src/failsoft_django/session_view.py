"""What Django sees of a session: a mapping, in which whom failsoft calls the principal has the keys that Django's ``login()`` stores.

Each of the two ways to say who the user is follows from the other:

- A session that has a principal and no keys: its user logged in with Flask or Starlette. `PrincipalBackend` is asked once in a session who
  that is: what Django's ``login()`` stores is stored then, the hash of the password among it; so when the password is changed, that
  session ends like any other.
- A session that has keys and no principal: it was carried over from another engine. It gets one when the hash of the password has been
  verified; so Django does when somebody asks for the user.
"""

from collections.abc import Mapping
from typing import Any, ClassVar, Final

from django.conf import settings as django_settings
from django.contrib.sessions.backends.base import SessionBase
from django.core.exceptions import SynchronousOnlyOperation, ValidationError
from django.utils.crypto import constant_time_compare
from django.utils.module_loading import import_string

from failsoft.errors import SessionUnavailable
from failsoft.sessions.content import MISSING
from failsoft.sessions.record import Principal
from failsoft.sessions.session import Session
from failsoft.sessions.state import State
from failsoft.sessions.view import SessionView
from failsoft_django import auth
from failsoft_django.translate import subject_of

__all__ = ["NAMESPACE", "DjangoView", "arecognise", "asame_password", "averify", "recognise", "same_password", "verify"]

NAMESPACE: Final = "django"
"""Before what Django keeps for itself, in the store."""

_USER: Final = auth.KEYS[0]


class DjangoView(SessionView):
    """What Django sees of a session.

    Args:
        session: the request's.

    Attributes:
        recognised: what stands for a principal who logged in elsewhere; empty for nobody, None before anybody asked.
        verified: whether the hash of the password was looked at.
    """

    private: ClassVar[frozenset[str]] = frozenset({SessionBase.TEST_COOKIE_NAME})

    __slots__ = ("recognised", "verified")

    def __init__(self, session: Session) -> None:
        self.session = session
        self.namespace = NAMESPACE
        self.recognised: Mapping[str, str] | None = None
        self.verified = False

    def _find(self, key: str) -> Any:
        try:
            found = super()._find(key)
        except SessionUnavailable:
            if not auth.leaving(self.session):
                raise
            return MISSING
        if found is MISSING:
            if key in auth.KEYS:
                if known := recognise(self):
                    return known[key]
                if self.session.state is State.AWAY and not self.session.ended:
                    auth.leaving(self.session)  # where nothing is found rather than refused
        elif key == _USER:
            verify(self)
        return found

    def __contains__(self, key: object) -> bool:
        return super().__contains__(key) or (key in auth.KEYS and bool(recognise(self)))

    def lacks(self, key: str) -> bool:
        """Whether nothing is stored under `key`."""
        return not super().__contains__(key)


def recognise(view: DjangoView) -> Mapping[str, str] | None:
    """What ``login()`` would have stored for whoever logged in elsewhere; None for nobody. Stores it, if the store is there."""
    principal, path = _to_ask(view)
    if principal is not None and path is not None:
        _known(view, path, import_string(path)().user_of(principal))
    return view.recognised or None


async def arecognise(view: DjangoView) -> Mapping[str, str] | None:
    """The same, from a coroutine."""
    principal, path = _to_ask(view)
    if principal is not None and path is not None:
        _known(view, path, await import_string(path)().auser_of(principal))
    return view.recognised or None


def _to_ask(view: DjangoView) -> tuple[Principal | None, str | None]:
    if view.recognised is not None or not view.lacks(_USER):
        return None, None
    return view.principal, auth.backend_path()


def _known(view: DjangoView, path: str, user: Any) -> None:
    if user is None:
        view.recognised = {}
        return
    auth.remember(user)
    values = (user._meta.pk.value_to_string(user), path, user.get_session_auth_hash())
    found: dict[str, str] = dict(zip(auth.KEYS, values, strict=True))
    view.recognised = found
    if view.session.state is State.LIVE and not view.session.renewed:
        view.update(found)


def verify(view: DjangoView) -> None:
    """Make whom the session says its user is the principal, where it has none and the hash of the password is right."""
    if (wanted := _unverified(view)) is not None:
        backend, key = wanted
        try:
            _verified(view, backend.get_user(key))
        except SynchronousOnlyOperation:  # who reads a key on an event loop did not ask for the user
            view.verified = False


async def averify(view: DjangoView) -> None:
    """The same, from a coroutine."""
    if (wanted := _unverified(view)) is not None:
        backend, key = wanted
        _verified(view, await backend.aget_user(key))


def _unverified(view: DjangoView) -> tuple[Any, Any] | None:
    core = view.session
    known = view.verified or core.principal_known is not None or core.login_pending is not None
    if known or core.renewed or core.state not in (State.LIVE, State.NEW):
        return None
    view.verified = True
    return _stored(view)


def _stored(view: DjangoView) -> tuple[Any, Any] | None:
    """The backend and the primary key of the user that the session holds."""
    key, path = (view.session.peek(view.name_of(one)) for one in auth.KEYS[:2])
    if key is None or path not in django_settings.AUTHENTICATION_BACKENDS:
        return None
    try:
        return import_string(path)(), auth.user_model()._meta.pk.to_python(key)
    except (ValueError, ValidationError):
        return None


def _verified(view: DjangoView, user: Any) -> None:
    if user is None:
        return
    if hasattr(user, "get_session_auth_hash"):  # as Django has it: a model need not
        stored = view.session.peek(view.name_of(auth.KEYS[2]))
        if not stored or not (
            constant_time_compare(stored, user.get_session_auth_hash()) or _by_fallback(user, stored)
        ):
            return
    view.login(subject_of(user))


def _by_fallback(user: Any, stored: Any) -> bool:
    return any(constant_time_compare(stored, one) for one in user.get_session_auth_fallback_hash())


def same_password(view: DjangoView, former: str) -> bool:
    """Whether the hash `former` was replaced because Django's ``SECRET_KEY`` was, and not the password."""
    if not django_settings.SECRET_KEY_FALLBACKS or (wanted := _stored(view)) is None:
        return False
    backend, key = wanted
    try:
        user = backend.get_user(key)
    except SynchronousOnlyOperation:  # Django replaces it where it has just looked the user up
        return False
    return user is not None and _by_fallback(user, former)


async def asame_password(view: DjangoView, former: str) -> bool:
    """The same, from a coroutine."""
    if not django_settings.SECRET_KEY_FALLBACKS or (wanted := _stored(view)) is None:
        return False
    backend, key = wanted
    user = await backend.aget_user(key)
    return user is not None and _by_fallback(user, former)
