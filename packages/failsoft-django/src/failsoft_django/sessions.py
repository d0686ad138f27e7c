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
- Another hash of the password, as ``update_session_auth_hash`` stores it, ends the user's other sessions at once, in every framework.
- A session that ended meanwhile is not written: `SessionEnded` says so to who saves it by hand, and a response 409 to who does not.
"""

from asyncio import Lock
from collections.abc import Iterable, Sequence
from datetime import datetime, timedelta
from typing import Any

from django.contrib.sessions.backends.base import CreateError, UpdateError

from failsoft.errors import Rejected, SessionConflict
from failsoft.sessions.companion import Ended
from failsoft.sessions.ids import SessionId
from failsoft.sessions.record import stored_name
from failsoft.sessions.state import UNKNOWN, State, conflict, unavailable
from failsoft.sessions.view import SessionView
from failsoft_django import auth
from failsoft_django.session_base import AWAY
from failsoft_django.session_expiry import EXPIRY, expire_after
from failsoft_django.session_keys import StoreByKey, not_ended
from failsoft_django.session_view import NAMESPACE, asame_password, same_password

__all__ = ["SessionEnded", "SessionStore"]

_BACKEND = stored_name(auth.KEYS[1], NAMESPACE)
_HASH = stored_name(auth.KEYS[2], NAMESPACE)

auth.connect()


class SessionEnded(SessionConflict, UpdateError):
    """A session was saved by hand, and had ended meanwhile: nothing was written. As an answer it is a 409."""


class SessionStore(StoreByKey):
    """One session, as Django knows it.

    Keys are text, values what JSON can say, and dates, decimals, UUIDs, bytes, tuples and sets; anything else is refused when it is
    assigned. Changes inside of a value are noticed. ``SESSION_SERIALIZER`` has no part in this.

    Args:
        session_key: what the cookie holds; None for a new session.

    Attributes:
        owed: values of Set-Cookie fields that the browser is owed for what was written already.
        deferred: whether what is changed is written when the response is ready.
    """

    _lock: Lock | None = None

    # Writing

    def __setitem__(self, key: str, value: Any) -> None:
        view = self._loaded()
        before = view.session.peek(_HASH) if key == auth.KEYS[2] else None
        view[key] = value
        self._touched = True
        if before and before != value and not same_password(view, before):
            self.revoke_others()

    async def aset(self, key: str, value: Any) -> None:
        """See Django's."""
        view = await self._aloaded()
        before = view.session.peek(_HASH) if key == auth.KEYS[2] else None
        view[key] = value
        self._touched = True
        if before and before != value and not await asame_password(view, before):
            await self.arevoke_others()

    def revoke_others(self) -> None:
        """End the user's other sessions, in every framework; this one stays, with what was changed so far. Nothing where there is no user.

        Raises:
            SessionUnavailable: the store did not take it.
            SessionEnded: it ended meanwhile.
        """
        core = self.session
        if core.login_pending is not None:
            self._write()
        try:
            if core.principal is not None:
                core.service.subjects.revoke_others(core)
        except Rejected as rejected:
            raise self._refused(rejected) from None

    async def arevoke_others(self) -> None:
        """The same, from a coroutine."""
        core = self.session
        async with self._alone():
            if core.login_pending is not None:
                await self._awrite()
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
            before = core.peek(EXPIRY)
            SessionView.clear(view)
            if before is not None:
                expire_after(core, None, before)
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
        async with self._alone():
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
            core.rotate(strict=True)  # as Django's own, whose old key is gone at once
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
        async with self._alone():
            if self._end():
                ended, owed = self.session.ended, len(self.owed)
                await self._awrite()
                self._ended(ended, owed)

    def _end(self) -> bool:
        core = self.session
        core.logout()
        self._seen.recognised = None
        self._given = None
        self._deleted = False
        return not self._defers

    def _ended(self, ended: Sequence[Ended], owed: int) -> None:
        self._touched = True
        if (rejected := not_ended(self.session, self.owed[owed:])) is not None:
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
        async with self._alone():
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
        self._touched = self._touched or core.modified
        try:
            self.owed += core.service.save(core)
        except Rejected as rejected:
            raise self._refused(rejected) from None

    async def _awrite(self) -> None:
        core = self.session
        self._touched = self._touched or core.modified
        try:
            self.owed += await core.service.asave(core)
        except Rejected as rejected:
            raise self._refused(rejected) from None

    def _alone(self) -> Lock:
        """What to hold while the session is written: what two tasks of one request begin must not become two sessions."""
        lock = self._lock = self._lock or Lock()
        return lock

    def _refused(self, rejected: Rejected) -> Rejected:
        if isinstance(rejected, SessionConflict):
            rejected = SessionEnded(rejected.problem, retry_after=rejected.retry_after)
        self.session.refused = rejected
        return rejected

    async def ready(self) -> None:
        """Load it, for those who cannot wait: on an event loop, before the view."""
        core = self.session
        if core.state in UNKNOWN:
            await core.service.aload(core)

    def set_expiry(self, value: datetime | timedelta | int | None) -> None:
        """How long it lives: a number of seconds unseen; until a moment; 0 until the browser is closed; None as the settings say."""
        before = self._loaded().session.peek(EXPIRY)
        super().set_expiry(value)
        expire_after(self.session, value, before)

    async def aset_expiry(self, value: datetime | timedelta | int | None) -> None:
        """The same, from a coroutine."""
        before = (await self._aloaded()).session.peek(EXPIRY)
        await super().aset_expiry(value)
        expire_after(self.session, value, before)

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
