"""What a `SessionStore` knows of its session: which one it is, and what is in it. `sessions` has the rules, and all that writes.

A store that Django's own middleware made knows a key and nothing else. It is the request's own session if that key is what the request's
cookie says; the first store of a request to say so has it. Any other stands alone.
"""

from collections.abc import Mapping
from datetime import datetime
from typing import Any, ClassVar, Final, Self

from django.conf import settings as django_settings
from django.contrib.sessions.backends.base import SessionBase
from django.utils import timezone
from django.utils.module_loading import import_string

from failsoft.errors import ConfigurationError, SessionTooLarge, SessionUnavailable, SessionValueError
from failsoft.exchange import Exchange, current
from failsoft.runtime import Runtime
from failsoft.sessions.cookies import values
from failsoft.sessions.record import Principal, stored_name
from failsoft.sessions.service import Sessions
from failsoft.sessions.session import Session, State, unavailable
from failsoft.sessions.view import SessionView
from failsoft_django import auth
from failsoft_django.runtime import get_runtime
from failsoft_django.translate import STORE

__all__ = ["AWAY", "EXPIRY", "LOGOUT", "NAMESPACE", "UNKNOWN", "DjangoView", "StoreBase", "sessions_of"]

NAMESPACE: Final = "django"
"""Before what Django keeps for itself, in the store."""

EXPIRY: Final = stored_name("_session_expiry", NAMESPACE)
"""What ``set_expiry`` was told."""

AWAY: Final = frozenset({State.AWAY, State.SNAPSHOT})
"""The store is away."""

_SNAPSHOT: Final = tuple(stored_name(key, NAMESPACE) for key in (*auth.KEYS, "_session_expiry"))
LOGOUT: Final = "-logout="
"""In a Cookie field: a logout may wait for the store."""

UNKNOWN: Final = frozenset({State.UNLOADED, State.UNCHECKED})
"""It was not asked, or not all."""


def sessions_of(runtime: Runtime) -> Sessions:
    """The sessions of a runtime. Raises `ConfigurationError` where it has none."""
    found = runtime.sessions
    if found is None:
        raise ConfigurationError(
            "SESSION_ENGINE is failsoft_django.sessions, and failsoft's setting sessions is off: leave it out"
        )
    if _SNAPSHOT[0] not in found.snapshot_names:
        found.snapshot_names.update(dict.fromkeys(_SNAPSHOT))
    return found


class DjangoView(SessionView):
    """What Django sees of a session."""

    private: ClassVar[frozenset[str]] = frozenset({SessionBase.TEST_COOKIE_NAME})

    __slots__ = ("recognised", "verified")

    def __init__(self, session: Session) -> None:
        super().__init__(session, NAMESPACE)
        self.recognised: Mapping[str, str] | None = None
        self.verified = False

    def __getitem__(self, key: str) -> Any:
        try:
            value = super().__getitem__(key)
        except KeyError:
            if key in auth.KEYS and (found := auth.recognise(self)):
                return found[key]
            raise
        if key == auth.KEYS[0]:
            auth.verify(self)
        return value

    def __contains__(self, key: object) -> bool:
        return super().__contains__(key) or (key in auth.KEYS and bool(auth.recognise(self)))

    def lacks(self, key: str) -> bool:
        """Whether nothing is stored under `key`."""
        return not super().__contains__(key)


class StoreBase(SessionBase):
    """See `SessionStore`."""

    def __init__(self, session_key: str | None = None) -> None:
        # Not the base's, which imports the serializer each time and knows all this as attributes.
        self._given: str | None = None
        self._core: Session | None = None
        self._seen: DjangoView | None = None
        self._touched = False
        self._checked = self._deleted = False
        self.deferred = False
        self.owed: list[str] = []
        self._set_key(session_key)
        auth.forget()
        exchange = current()
        if exchange is not None and not exchange.settled and STORE not in exchange.memo:
            self._announce(exchange)

    def _announce(self, exchange: Exchange) -> None:
        """Tell the request what its session may want of the store: Django's own middleware does not."""
        if self._given is not None:
            if not exchange.facts.synchronous:
                self._find()  # so that it is loaded before somebody reads it who cannot wait
        elif LOGOUT in (header := exchange.facts.header("cookie") or "") and isinstance(exchange.engine, Runtime):
            sessions_of(exchange.engine).open(header, exchange)

    @classmethod
    def within(cls, session: Session, exchange: Exchange) -> Self:
        """The store of a request's own session.

        Args:
            session: as it was opened.
            exchange: the request, which settles it.
        """
        exchange.memo[STORE] = None  # it is not for the store to find out
        store = cls()
        store._bind(session, exchange)
        return store

    def _bind(self, session: Session, exchange: Exchange | None) -> Session:
        self._core = session
        self._seen = DjangoView(session)
        if exchange is not None:
            self.deferred = True
            session.lost_from = 500  # as Django's own middleware has it
            exchange.memo[STORE] = self
        return session

    def _find(self) -> Session:
        """The session behind the key: the request's own, where the key is its cookie's; else one that stands alone."""
        exchange, key = current(), self._given
        runtime = None if exchange is None else exchange.engine
        service = sessions_of(runtime if isinstance(runtime, Runtime) else get_runtime())
        if exchange is not None and key is not None and not exchange.settled and STORE not in exchange.memo:
            header = exchange.facts.header("cookie")
            if key in values(header, service.style.full_name):
                eager = not exchange.facts.synchronous
                found = service.open(header, exchange, eager=eager)
                if found.id is None or str(found.id) == key:
                    return self._bind(found, exchange)
        return self._bind(_alone(service, key), None)

    @property
    def session(self) -> Session:
        """Failsoft's session behind it."""
        return self._core or self._find()

    # What the base keeps as attributes

    @property
    def serializer(self) -> Any:
        """What ``encode`` and ``decode`` use; the store has no use for it."""
        return import_string(django_settings.SESSION_SERIALIZER)

    @property
    def accessed(self) -> bool:
        """Whether anybody looked at the session."""
        return self._core is not None and self._core.accessed

    @accessed.setter
    def accessed(self, value: bool) -> None:  # pyright: ignore[reportIncompatibleVariableOverride]  # the session knows
        self.session.accessed = value

    @property
    def modified(self) -> bool:
        """Whether anybody changed it, inside of a value too. It needs no setting: what changed is found by itself."""
        core = self._core
        if self._touched or core is None:
            return self._touched
        try:
            return core.modified or core.changed_inside()
        except (SessionTooLarge, SessionValueError):  # it will be said when it is saved
            return True

    @modified.setter
    def modified(self, value: bool) -> None:  # pyright: ignore[reportIncompatibleVariableOverride]  # likewise
        self._touched = value
        self.session.modified = value

    def _get_key(self) -> str | None:
        core = self._core
        if core is None or (self._given is not None and core.state in UNKNOWN):
            return self._given
        identity = core.coming_id() if core.rotation_pending or core.force else core.id
        if identity is None:
            return self._given if core.state in AWAY else None
        return str(identity)

    def _set_key(self, value: str | None) -> None:
        self._given = value if value and len(value) >= 8 else None
        self._core = self._seen = None
        self._checked = self.deferred = False

    session_key = property(_get_key)  # pyright: ignore[reportIncompatibleMethodOverride]  # the base's is made likewise
    _session_key = property(_get_key, _set_key)  # pyright: ignore[reportIncompatibleMethodOverride]  # likewise

    def _loaded(self) -> DjangoView:
        core = self.session
        core.accessed = True
        if not self._checked:
            core.service.load(core)
            self._check()
        return self._view

    async def _aloaded(self) -> DjangoView:
        core = self.session
        core.accessed = True
        if not self._checked:
            await core.service.aload(core)
            self._check()
        return self._view

    @property
    def _view(self) -> DjangoView:
        assert self._seen is not None  # noqa: S101 - for the type checker: it comes with the session
        return self._seen

    def _check(self) -> None:
        self._checked = True
        moment = self.session.peek(EXPIRY)
        if isinstance(moment, str) and _is_past(moment):
            self.session.expire()

    def _get_session(self, no_load: bool = False) -> DjangoView:
        return self._loaded()

    async def _aget_session(self, no_load: bool = False) -> DjangoView:
        return await self._aloaded()

    _session = property(_get_session)

    def _get_cache(self) -> DjangoView:
        if self._core is None or self._core.state in UNKNOWN:
            raise AttributeError("_session_cache")
        return self._view

    def _set_cache(self, value: Mapping[str, Any]) -> None:
        view = self._loaded()
        SessionView.clear(view)
        view.update(value)

    def _delete_cache(self) -> None:
        self._set_key(self._get_key())

    _session_cache = property(_get_cache, _set_cache, _delete_cache)

    # Reading

    def is_empty(self) -> bool:
        """Whether there is nothing, and no key. A session whose store is away is not empty."""
        if self._get_key() is not None:
            return False
        core = self._core
        if core is None:
            return True
        accessed = core.accessed
        try:
            return next(core.names(), None) is None
        except SessionUnavailable:
            return False
        finally:
            core.accessed = accessed

    @property
    def principal(self) -> Principal | None:
        """Who is logged in, in words that every framework understands; None for nobody."""
        return self._loaded().principal

    @property
    def degraded(self) -> bool:
        """Whether the store is away, so that this is a snapshot or nothing, and cannot be written."""
        return self._loaded().degraded

    async def aget(self, key: str, default: Any = None) -> Any:
        """See Django's."""
        await self._recognise(key)
        return await super().aget(key, default)

    async def ahas_key(self, key: str) -> bool:
        """See Django's."""
        await self._recognise(key)
        return bool(await super().ahas_key(key))

    async def _recognise(self, key: str) -> None:
        if key in auth.KEYS:
            view = await self._aloaded()
            if view.lacks(key):
                await auth.arecognise(view)
            elif key == auth.KEYS[0]:
                await auth.averify(view)

    def load(self) -> dict[str, Any]:
        """What the store has now; the key is forgotten if there is no such session. Raises `SessionUnavailable` while the store is away."""
        twin = self.session
        if twin.state in UNKNOWN:
            self._loaded()
        elif twin.id is not None:
            twin = _alone(twin.service, str(twin.id))
            twin.service.load(twin)
        return self._found(twin)

    async def aload(self) -> dict[str, Any]:
        """The same, from a coroutine."""
        twin = self.session
        if twin.state in UNKNOWN:
            await self._aloaded()
        elif twin.id is not None:
            twin = _alone(twin.service, str(twin.id))
            await twin.service.aload(twin)
        return self._found(twin)

    def _found(self, twin: Session) -> dict[str, Any]:
        own = self.session
        if twin is not own and twin.state is State.NEW:
            own.expire()
        return dict(DjangoView(twin)) if twin.id is not None else {}

    def exists(self, session_key: str | None) -> bool:
        """Whether the store has such a session. Raises `SessionUnavailable` while it is away."""
        twin = self._other(session_key)
        if twin is None:
            return self._coming(session_key)
        twin.service.load(twin)
        return self._stands(twin)

    async def aexists(self, session_key: str | None) -> bool:
        """The same, from a coroutine."""
        twin = self._other(session_key)
        if twin is None:
            return self._coming(session_key)
        await twin.service.aload(twin)
        return self._stands(twin)

    def _other(self, key: str | None) -> Session | None:
        twin = None if not key or self._coming(key) else _alone(self.session.service, key)
        return None if twin is None or twin.id is None else twin

    def _coming(self, key: str | None) -> bool:
        """Whether the end of the request is going to write a session of this key."""
        return self._core is not None and self._core.next is not None and str(self._core.next) == key

    @staticmethod
    def _stands(twin: Session) -> bool:
        if twin.state in AWAY:
            raise unavailable("Nobody can say whether there is such a session: its store cannot be reached.")
        return twin.state is State.LIVE and not twin.renewed


def _is_past(moment: str) -> bool:
    try:
        then, now = datetime.fromisoformat(moment), timezone.now()
        if timezone.is_aware(then) != timezone.is_aware(now):  # USE_TZ was another then
            then = timezone.make_naive(then) if timezone.is_aware(then) else timezone.make_aware(then)
    except ValueError:
        return False
    return then <= now


def _alone(service: Sessions, key: str | None) -> Session:
    """A session outside of any request."""
    return service.open(None if key is None else f"{service.style.full_name}={key}")
