"""What Django asks of a session by its key: what the store has of it now, whether there is such a one, and its end.

All of it is done at once, with a session that stands alone: a twin of the request's own, where the key is that one's. Who ends the own
session in this way writes nothing to it afterwards.
"""

from typing import Any

from failsoft.errors import Rejected
from failsoft.sessions.session import Session
from failsoft.sessions.state import UNKNOWN, State, unavailable
from failsoft_django.session_base import AWAY, StoreBase, alone
from failsoft_django.session_view import DjangoView

__all__ = ["StoreByKey", "not_ended"]


class StoreByKey(StoreBase):
    """See `SessionStore`."""

    def load(self) -> dict[str, Any]:
        """What the store has now; the key is forgotten if there is no such session. Raises `SessionUnavailable` while the store is away."""
        twin = self.session
        if twin.state in UNKNOWN:
            self._loaded()
        elif twin.id is not None:
            twin = alone(twin.service, str(twin.id))
            twin.service.load(twin)
        return self._found(twin)

    async def aload(self) -> dict[str, Any]:
        """The same, from a coroutine."""
        twin = self.session
        if twin.state in UNKNOWN:
            await self._aloaded()
        elif twin.id is not None:
            twin = alone(twin.service, str(twin.id))
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
        twin = None if not key or self._coming(key) else alone(self.session.service, key)
        return None if twin is None or twin.id is None else twin

    def _coming(self, key: str | None) -> bool:
        """Whether the end of the request is going to write a session of this key."""
        return self._core is not None and self._core.next is not None and str(self._core.next) == key

    @staticmethod
    def _stands(twin: Session) -> bool:
        if twin.state in AWAY:
            raise unavailable("Nobody can say whether there is such a session: its store cannot be reached.")
        return twin.state is State.LIVE and not twin.renewed

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
        if (rejected := not_ended(twin, cookies)) is not None:
            self.session.refused = rejected
            raise rejected


def not_ended(core: Session, cookies: list[str]) -> Rejected | None:
    """What to say where a session was to be ended now, and got a ticket for later: there is no response to hand it out with."""
    ticket = f"{core.service.ticket_style.full_name}="
    if any(cookie.startswith(ticket) for cookie in cookies):
        return unavailable("The session was not ended: its store cannot be reached.")
    return None
