"""What a `SessionStore` knows of its session: which one it is, and what is in it. `sessions` has the rules.

A store that Django's own middleware made knows a key and nothing else. It is the request's own session if that key is what the request's
cookie says; the first store of a request to say so has it. Any other stands alone.
"""

from collections.abc import Mapping
from typing import Any, Final, Self

from django.conf import settings as django_settings
from django.contrib.sessions.backends.base import SessionBase
from django.utils.module_loading import import_string

from failsoft.errors import ConfigurationError, SessionTooLarge, SessionUnavailable, SessionValueError
from failsoft.exchange import Exchange, current
from failsoft.runtime import Runtime
from failsoft.sessions.cookies import values
from failsoft.sessions.record import Principal, stored_name
from failsoft.sessions.service import Sessions
from failsoft.sessions.session import Session
from failsoft.sessions.state import UNKNOWN, State
from failsoft.sessions.view import SessionView
from failsoft_django import auth
from failsoft_django.runtime import get_runtime
from failsoft_django.session_expiry import EXPIRY, is_over, persists
from failsoft_django.session_view import NAMESPACE, DjangoView, arecognise, averify
from failsoft_django.translate import STORE

__all__ = ["AWAY", "LOGOUT", "StoreBase", "alone", "sessions_of"]

AWAY: Final = (State.AWAY, State.SNAPSHOT)
"""The store is away."""

LOGOUT: Final = "-logout="
"""In a Cookie field: a logout may wait for the store."""

_SNAPSHOT: Final = (*(stored_name(key, NAMESPACE) for key in auth.KEYS), EXPIRY)
"""What Django needs to know of a session while the store is away."""

_NEEDED: Final = frozenset(_SNAPSHOT)


def sessions_of(runtime: Runtime) -> Sessions:
    """The sessions of a runtime. Raises `ConfigurationError` where it has none."""
    found = runtime.sessions
    if found is None:
        raise ConfigurationError(
            "SESSION_ENGINE is failsoft_django.sessions, and failsoft's setting sessions is off: leave it out"
        )
    if not found.snapshot_names.keys() >= _NEEDED:
        found.snapshot_names.update(dict.fromkeys(_SNAPSHOT))
    return found


class StoreBase(SessionBase):
    """See `SessionStore`."""

    # Of the class, because most requests need no others. What most set or look at is each store's own: see `Session`.
    _given: str | None = None
    _touched = _deleted = False

    _seen: DjangoView  # comes with `_core`

    def __init__(self, session_key: str | None = None) -> None:
        # Not the base's, which imports the serializer each time and knows as attributes what are properties here.
        self.owed: list[str] = []
        self._core: Session | None = None
        self._checked = self.deferred = False
        if session_key is not None:
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
        session.persists = persists
        self._seen = DjangoView(session)
        if exchange is not None:
            self.deferred = True
            session.lost_from = 500  # as Django's own middleware has it
            exchange.memo[STORE] = self
            exchange.at_end(self._end_request)
        return session

    def _end_request(self) -> None:
        if self._core is not None:
            # It knows the request, which knows this: they would wait for the garbage collector, 27 objects of each request.
            self._core.exchange = None

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
        return self._bind(alone(service, key), None)

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
            return core.modified or core.content.changed_inside()
        except (SessionTooLarge, SessionValueError):  # it will be said when it is saved
            return True

    @modified.setter
    def modified(self, value: bool) -> None:  # pyright: ignore[reportIncompatibleVariableOverride]  # likewise
        self._touched = value
        self.session.modified = value

    @property
    def assigned(self) -> bool:
        """Whether anybody set or deleted a key, or gave it another: `modified`, but for what changed inside of a value."""
        return self._touched or (self._core is not None and self._core.modified)

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
        self._core = None
        self._checked = self.deferred = False

    session_key = property(_get_key)  # pyright: ignore[reportIncompatibleMethodOverride]  # the base's is made likewise
    _session_key = property(_get_key, _set_key)  # pyright: ignore[reportIncompatibleMethodOverride]  # likewise

    def _loaded(self) -> DjangoView:
        core = self._core or self._find()
        core.accessed = True
        if not self._checked:
            core.service.load(core)
            self._check()
        return self._seen

    async def _aloaded(self) -> DjangoView:
        core = self.session
        core.accessed = True
        if not self._checked:
            await core.service.aload(core)
            self._check()
        return self._seen

    def _check(self) -> None:
        self._checked = True
        if is_over(self.session):
            self.session.expire()

    def _get_session(self, no_load: bool = False) -> DjangoView:
        return self._loaded()

    async def _aget_session(self, no_load: bool = False) -> DjangoView:
        return await self._aloaded()

    _session = property(_get_session)

    def _get_cache(self) -> DjangoView:
        if self._core is None or self._core.state in UNKNOWN:
            raise AttributeError("_session_cache")
        return self._seen

    def _set_cache(self, value: Mapping[str, Any]) -> None:
        view = self._loaded()
        SessionView.clear(view)
        view.update(value)

    def _delete_cache(self) -> None:
        self._set_key(self._get_key())

    _session_cache = property(_get_cache, _set_cache, _delete_cache)

    # Reading

    def __getitem__(self, key: str) -> Any:
        return self._loaded()[key]

    def get(self, key: str, default: Any = None) -> Any:
        """See Django's."""
        return self._loaded().get(key, default)

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
            if view.session.state is State.AWAY:
                return  # there is nobody to recognise
            if view.lacks(key):
                await arecognise(view)
            elif key == auth.KEYS[0]:
                await averify(view)


def alone(service: Sessions, key: str | None) -> Session:
    """A session outside of any request."""
    return service.open(None if key is None else f"{service.style.full_name}={key}")
