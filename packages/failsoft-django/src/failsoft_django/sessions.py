"""``SESSION_ENGINE = "failsoft_django.sessions"``: Django's sessions, kept by failsoft.

Theory of operation. A `SessionStore` is Django's view of one of failsoft's sessions. Within a request it is the request's own session: it
is loaded in the flight that the request makes anyway, or at its first use, and what changes it is written when the response is ready, key
by key, in one step. So `create`, `cycle_key` and `flush` wait until then; an explicit `save` does not. A store that was made by hand, as
the test client makes them, does at once what it is told.

Rules:

- No answer from the store is no empty session. Reading raises `SessionUnavailable` then, or finds nothing, by the setting
  ``session_on_outage``; the key stays what it is, so that nobody deletes the cookie; writing raises. A snapshot can be read.
- What Django and its packages keep for themselves begins with an underscore, and no other framework sees it; nor ``testcookie``.
- `flush` ends the session for every framework. `clear` removes what Django sees, and ends the session only if somebody had logged in
  with Django.
- ``set_expiry`` of a number is how long the session lives unseen, in every framework; of a moment, likewise until then, and Django reads
  nothing of it afterwards. `session_absolute` bounds both.
- Another hash of the password, as ``update_session_auth_hash`` stores it, ends the user's other sessions at once, in every framework.
- A session that ended meanwhile is not written: `SessionEnded` says so to who saves it by hand, and a response 409 to who does not.
"""

from collections.abc import Iterable
from datetime import datetime, timedelta
from typing import Any

from django.conf import settings as django_settings
from django.contrib.sessions.backends.base import CreateError, UpdateError
from django.utils import timezone

from failsoft.errors import Rejected, SessionConflict
from failsoft.sessions.ids import SessionId
from failsoft.sessions.record import stored_name
from failsoft.sessions.session import Ended, Session, State, conflict, unavailable
from failsoft.sessions.view import SessionView
from failsoft_django import auth
from failsoft_django.session_base import AWAY, EXPIRY, NAMESPACE, UNKNOWN, DjangoView, StoreBase

__all__ = ["SessionEnded", "SessionStore"]

_BACKEND = stored_name(auth.KEYS[1], NAMESPACE)
_HASH = stored_name(auth.KEYS[2], NAMESPACE)

auth.connect()


class SessionEnded(SessionConflict, UpdateError):
    """A session was saved by hand, and had ended meanwhile: nothing was written. As an answer it is a 409."""


class SessionStore(StoreBase):
    """One session, as Django knows it.

    Keys are text, values what JSON can say, and dates, decimals, UUIDs, bytes, tuples and sets; anything else is refused when it is
    assigned. Changes inside of a value are noticed. ``SESSION_SERIALIZER`` has no part in this.

    Args:
        session_key: what the cookie holds; None for a new session.

    Attributes:
        owed: values of Set-Cookie fields that the browser is owed for what was written already.
        deferred: whether what is changed is written when the response is ready.
    """

    # Writing

    def __setitem__(self, key: str, value: Any) -> None:
        before = self._hash_before(key, self._loaded())
        super().__setitem__(key, value)
        if before and before != value and not auth.same_password(self._view, before):
            self._revoke_others()

    async def aset(self, key: str, value: Any) -> None:
        """See Django's."""
        before = self._hash_before(key, await self._aloaded())
        await super().aset(key, value)
        if before and before != value and not await auth.asame_password(self._view, before):
            await self._arevoke_others()

    @staticmethod
    def _hash_before(key: str, view: DjangoView) -> Any:
        return view.session.peek(_HASH) if key == auth.KEYS[2] else None

    def _revoke_others(self) -> None:
        """Who changed the password stays, with what was changed so far; everybody else goes."""
        core = self.session
        if core.login_pending is not None:
            self._write()
        self.prepare()
        try:
            if core.principal is not None:
                core.service.subjects.revoke_others(core)
        except Rejected as rejected:
            raise self._refused(rejected) from None

    async def _arevoke_others(self) -> None:
        core = self.session
        if core.login_pending is not None:
            await self._awrite()
        self.prepare()
        try:
            if core.principal is not None:
                await core.service.subjects.arevoke_others(core)
        except Rejected as rejected:
            raise self._refused(rejected) from None

    def clear(self) -> None:
        """Remove what Django sees of it. A login that was made with Django ends with the session; one made elsewhere stays."""
        view = self._loaded()
        core, backend = view.session, self.session.peek(_BACKEND)
        if backend is not None and backend != auth.backend_path() and core.principal_known is not None:
            core.logout()
        else:
            SessionView.clear(view)
        view.recognised = None
        core.modified = True

    def create(self) -> None:
        """Begin a session, empty or not, with a key that it keeps. One that has a key already gets another."""
        self._loaded()
        if self._renew():
            self._write()

    async def acreate(self) -> None:
        """The same, from a coroutine."""
        await self._aloaded()
        if self._renew():
            await self._awrite()

    def cycle_key(self) -> None:
        """Give it another key. Raises `SessionUnavailable` while the store is away."""
        self.create()

    async def acycle_key(self) -> None:
        """The same, from a coroutine."""
        await self.acreate()

    def _renew(self) -> bool:
        """Want another key; whether that is to be written now."""
        core = self.session
        if core.state is State.NEW:
            core.force = core.modified = True
        else:
            core.rotate()
        return not self._defers

    @property
    def _defers(self) -> bool:
        exchange = self.session.exchange
        return self.deferred and exchange is not None and not exchange.settled

    def flush(self) -> None:
        """End the session, for every framework. While the store is away, that is made up for later: see `Session.logout`."""
        self._loaded()
        if self._end():
            ended, owed = self.session.ended, len(self.owed)
            self._write()
            self._ended(ended, owed)

    async def aflush(self) -> None:
        """The same, from a coroutine."""
        await self._aloaded()
        if self._end():
            ended, owed = self.session.ended, len(self.owed)
            await self._awrite()
            self._ended(ended, owed)

    def _end(self) -> bool:
        core = self.session
        core.logout()
        self._view.recognised = None
        self._given = None
        self._deleted = False
        return not self._defers

    def _ended(self, ended: list[Ended], owed: int) -> None:
        self._touched = True
        if (rejected := _not_ended(self.session, self.owed[owed:])) is not None:
            del self.owed[owed:]
            if self.session.id is None:
                self.session.ended = ended  # or a second attempt would find nothing to end
            raise self._refused(rejected)

    def logout(self) -> None:
        """The same as `flush`, as it is called in other frameworks."""
        self.flush()

    def login(self, subject: str, methods: Iterable[str] = ()) -> None:
        """Say who the user is, where that is not left to ``django.contrib.auth``. See `Session.login`. Saved as any change is."""
        self._loaded().login(subject, methods)

    def save(self, must_create: bool = False) -> None:
        """Write now what was changed; a new session is stored although it is empty.

        Raises:
            SessionEnded: it ended meanwhile; also an `UpdateError`.
            CreateError: it is stored already, and `must_create`.
            SessionUnavailable: the store did not take it.
        """
        self._loaded()
        self._to_save(must_create)
        self._write()

    async def asave(self, must_create: bool = False) -> None:
        """The same, from a coroutine."""
        await self._aloaded()
        self._to_save(must_create)
        await self._awrite()

    def _to_save(self, must_create: bool) -> None:
        core = self.session
        if core.state in AWAY and not core.ended:
            core.refused = unavailable("The session was not saved: its store cannot be reached.")
            raise core.refused
        if self._deleted:
            raise self._refused(conflict("The session was deleted in this request. Nothing was written to it."))
        if must_create and core.state is State.LIVE:
            raise CreateError
        core.force = core.state is State.NEW
        core.modified = core.modified or core.force

    def _write(self) -> None:
        core = self.session
        self.prepare()
        self._touched = self._touched or core.modified
        try:
            self.owed += core.service.save(core)
        except Rejected as rejected:
            raise self._refused(rejected) from None

    async def _awrite(self) -> None:
        core = self.session
        self.prepare()
        self._touched = self._touched or core.modified
        try:
            self.owed += await core.service.asave(core)
        except Rejected as rejected:
            raise self._refused(rejected) from None

    def _refused(self, rejected: Rejected) -> Rejected:
        if isinstance(rejected, SessionConflict):
            rejected = SessionEnded(rejected.problem, retry_after=rejected.retry_after)
        self.session.refused = rejected
        return rejected

    def prepare(self) -> None:
        """Make ready to be saved."""
        core = self.session
        expiry = core.peek(EXPIRY)
        at_close = django_settings.SESSION_EXPIRE_AT_BROWSER_CLOSE if expiry is None else expiry == 0
        core.persistent = not at_close

    async def ready(self) -> None:
        """Load it, for those who cannot wait: on an event loop, before the view."""
        core = self.session
        if core.state in UNKNOWN:
            await core.service.aload(core)

    def delete(self, session_key: str | None = None) -> None:
        """End the session of a key, by default this one's, now. Raises `SessionUnavailable` while the store is away."""
        twin = self._doomed(session_key)
        if twin is not None:
            twin.service.load(twin)
            if self._stands(twin) or twin.renewed:
                twin.logout()
                self._deleted_of(twin, twin.service.save(twin))
        self._is_deleted(session_key)

    async def adelete(self, session_key: str | None = None) -> None:
        """The same, from a coroutine."""
        twin = self._doomed(session_key)
        if twin is not None:
            await twin.service.aload(twin)
            if self._stands(twin) or twin.renewed:
                twin.logout()
                self._deleted_of(twin, await twin.service.asave(twin))
        self._is_deleted(session_key)

    def _doomed(self, key: str | None) -> Session | None:
        return self._other(key or self._own())

    def _own(self) -> str | None:
        identity = self.session.id
        return None if identity is None else str(identity)

    def _is_deleted(self, key: str | None) -> None:
        self._deleted = self._deleted or key in (None, self._own())

    def _deleted_of(self, twin: Session, cookies: list[str]) -> None:
        if (rejected := _not_ended(twin, cookies)) is not None:
            raise self._refused(rejected)

    def set_expiry(self, value: datetime | timedelta | int | None) -> None:
        """How long it lives: a number of seconds unseen; until a moment; 0 until the browser is closed; None as the settings say."""
        before = self._loaded().session.peek(EXPIRY)
        super().set_expiry(value)
        self._expire_after(value, before)

    async def aset_expiry(self, value: datetime | timedelta | int | None) -> None:
        """The same, from a coroutine."""
        before = (await self._aloaded()).session.peek(EXPIRY)
        await super().aset_expiry(value)
        self._expire_after(value, before)

    def _expire_after(self, value: datetime | timedelta | float | None, before: Any) -> None:
        core = self.session
        if isinstance(value, datetime):
            value = value - timezone.now()
        if isinstance(value, timedelta):
            value = min(value.total_seconds(), core.service.lifetime / 1000)
            core.set_idle(max(value, 0.001))
        elif value:
            core.set_idle(value)
        elif before:
            core.set_idle(None)
        core.reissue = True

    # What has no place here

    def _get_new_session_key(self) -> str:
        return str(SessionId.new(self.session.service.random))

    async def _aget_new_session_key(self) -> str:
        return self._get_new_session_key()

    @classmethod
    def clear_expired(cls) -> None:
        """Nothing: every key in the store expires by itself."""

    @classmethod
    async def aclear_expired(cls) -> None:
        """The same."""


def _not_ended(core: Session, cookies: list[str]) -> Rejected | None:
    """What to say where a session was to be ended now, and got a ticket for later: there is no response to hand it out with."""
    ticket = f"{core.service.ticket_style.full_name}="
    if any(cookie.startswith(ticket) for cookie in cookies):
        return unavailable("The session was not ended: its store cannot be reached.")
    return None
