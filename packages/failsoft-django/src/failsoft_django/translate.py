"""Django's requests in failsoft's words; `responses` is the other way round.

Rules:

- Headers come from ``request.META``, where every lookup costs the same. There, repeated lines are already joined by commas in the
  order received, by WSGI servers and by ``ASGIRequest`` alike.
- Who is asking is asked only where a limit counts users, and never on the event loop: there, ``auser`` is awaited before.
"""

from collections.abc import Awaitable, Callable, Mapping, Sequence
from functools import lru_cache, partial
from inspect import getclosurevars
from typing import Any, Final

from asgiref.sync import async_to_sync, sync_to_async
from django.conf import settings as django_settings
from django.core.handlers.asgi import ASGIRequest
from django.http import HttpRequest
from django.utils.functional import LazyObject, empty
from django.utils.module_loading import import_string

from failsoft.address import rewritten_by_server
from failsoft.exchange import (
    FORMS,
    METHODS,
    NOT_YET,
    Exchange,
    Facts,
    NotYet,
    collect,
    json_field,
    submitted_field,
)
from failsoft.exchange.decorators import WithArguments

__all__ = [
    "STORE",
    "AsgiFacts",
    "DjangoFacts",
    "aready",
    "class_of",
    "facts_of",
    "handler_of",
    "rewritten",
    "subject_of",
    "targets_of",
]

STORE: Final = "failsoft.django.session"
"""In an exchange's memo: the `SessionStore` of the request, if it has one. Nothing else here knows sessions."""


@lru_cache(maxsize=256)
def _meta_key(name: str) -> str:
    key = name.upper().replace("-", "_")
    return key if key in ("CONTENT_TYPE", "CONTENT_LENGTH") else "HTTP_" + key


class DjangoFacts(Facts):
    """A request under WSGI.

    Attributes:
        decided: whether the limits of this request were decided; a request that never reaches a view is decided on its way out.
    """

    __slots__ = ("_user", "decided")

    def __init__(self, request: HttpRequest) -> None:
        self.request: HttpRequest = request
        self.method: str = request.method or ""
        self.endpoint: Any = None
        self.route: str | None = None
        self.decided: bool = False
        self._user: Any = None

    def targets(self) -> Sequence[Any]:
        """See `failsoft.exchange.Facts`."""
        return targets_of(self.endpoint, self.method)

    def peer(self) -> str | None:
        """See `failsoft.exchange.Facts`."""
        peer: str | None = self.request.META.get("REMOTE_ADDR")
        return peer

    def header_lines(self, name: str) -> Sequence[str]:
        """See `failsoft.exchange.Facts`."""
        value = self.request.META.get(_meta_key(name))
        return () if value is None else (value,)

    def header(self, name: str) -> str | None:
        """See `failsoft.exchange.Facts`."""
        value: str | None = self.request.META.get(_meta_key(name))
        return value

    def path(self) -> str:
        """See `failsoft.exchange.Facts`."""
        return self.request.path_info

    def environ(self) -> Mapping[str, Any] | None:
        """See `failsoft.exchange.Facts`."""
        environ: Mapping[str, Any] | None = getattr(self.request, "environ", None)
        return environ

    def groups(self) -> Sequence[str]:
        """The namespaces and application names that the view's URL pattern stands in."""
        match = self.request.resolver_match
        return () if match is None else (*match.namespaces, *match.app_names)

    def submitted(self, name: str) -> str | None:
        """See `failsoft.exchange.Facts`. As everywhere in Django, only POST submits a form."""
        request = self.request
        if request.content_type in FORMS:
            body = request.body  # before the form, which would take it away
            value = request.POST.get(name)
            return submitted_field(value if isinstance(value, str) else None, body, name)
        return json_field(request.body, name)

    def user(self) -> str | NotYet | None:
        """Who ``request.user`` is to every framework; `NOT_YET` before there is one.

        REST framework knows who is asking only inside its views, so whoever is nobody outside of one may become somebody.
        """
        user = getattr(self.request, "user", None)
        if isinstance(user, LazyObject) and self._user is not None:
            user = self._user
        if user is None:
            return NOT_YET
        if not user.is_authenticated:
            return NOT_YET if hasattr(getattr(self.endpoint, "cls", None), "perform_authentication") else None
        return None if user.pk is None else subject_of(user)

    async def load_user(self) -> None:
        """Load the user as asynchronous views do; a view that then reads ``request.user`` makes Django load it once more."""
        user = getattr(self.request, "user", None)
        if not isinstance(user, LazyObject) or self._user is not None:
            return
        if getattr(user, "_wrapped", None) is not empty:
            self._user = user
        elif (auser := getattr(self.request, "auser", None)) is not None:
            self._user = await auser()
        else:
            await sync_to_async(bool)(user)
            self._user = user

    def run(self, awaitable: Awaitable[Any]) -> Any:
        """See `failsoft.exchange.Facts`."""
        return async_to_sync(_wait)(awaitable)


class AsgiFacts(DjangoFacts):
    """A request under ASGI."""

    __slots__ = ()

    synchronous = False


def subject_of(user: Any) -> str:
    """What a user of Django's is called everywhere: the primary key, unless one of ``AUTHENTICATION_BACKENDS`` says otherwise.

    See `failsoft_django.auth.PrincipalBackend.subject_of`. A limit counts the user by it, and a session names the user by it.
    """
    named = _naming(tuple(django_settings.AUTHENTICATION_BACKENDS))
    return str(user.pk) if named is None else named(user)


@lru_cache(8)
def _naming(paths: tuple[str, ...]) -> Callable[[Any], str] | None:
    # Django's own need not be importable where django.contrib.auth is not installed, and name nobody.
    found = (import_string(path) for path in paths if not path.startswith("django."))
    return next((backend().subject_of for backend in found if hasattr(backend, "subject_of")), None)


def rewritten(facts: DjangoFacts) -> str | None:
    """What to say where the server has replaced the peer's address by one out of a header; "" where that cannot be seen yet."""
    lines = facts.header_lines("x-forwarded-for")
    port = str(facts.request.META.get("REMOTE_PORT"))
    return rewritten_by_server(facts.peer(), port=int(port) if port.isdecimal() else None, lines=lines) if lines else ""


async def _wait(awaitable: Awaitable[Any]) -> Any:
    return await awaitable


def facts_of(request: HttpRequest) -> DjangoFacts:
    """The facts of `request`; the kind of request says which server it came from, whatever mode a middleware runs in."""
    return AsgiFacts(request) if isinstance(request, ASGIRequest) else DjangoFacts(request)


def targets_of(view: Any, method: str) -> tuple[Any, ...]:
    """What carries declarations for `method` of a view: itself, its class, the class's handler of the method. Or a decorator in its place.

    Only what does: a URLconf may hold the same function plain and limited, on different routes, and the one's limits are not the
    other's. (In frameworks with route decorators, a limit above one belongs to the function below it.)
    """
    cls = class_of(view)
    found = [view]
    if cls is not None:
        handler = handler_of(view, cls, method)
        found += [cls, handler]
        if getattr(handler, "__qualname__", "").startswith("api_view."):
            # REST framework hides the function in a closure and says nowhere that it wraps it.
            found.append(getclosurevars(handler).nonlocals.get("func"))
    return tuple(target for target in found if collect((target,), filed=False) or isinstance(target, WithArguments))


def class_of(view: Any) -> type | None:
    """The class behind a class-based view, Django's or REST framework's."""
    while isinstance(view, partial):
        view = view.func
    found = getattr(view, "view_class", None) or getattr(view, "cls", None)
    return found if isinstance(found, type) else None


def handler_of(view: Any, cls: type, method: str) -> Any:
    """What of `cls` serves `method`, or None. A viewset has its methods named by the route."""
    if method not in METHODS:  # a client can invent one that is the name of any attribute
        return None
    actions = getattr(view, "actions", None) or {}
    for name in ("head", "get") if method == "HEAD" else (method.lower(),):
        handler = getattr(cls, actions.get(name, name), None)
        if handler is not None:
            return handler
    return None


async def aready(exchange: Exchange) -> None:
    """Load the session of a request, if its flight has not settled what it is: on an event loop nobody can wait for it later."""
    if (store := exchange.memo.get(STORE)) is not None:
        await store.ready()
