"""What a browser shows: the Cookie field of a request, and what it says of the session."""

from collections.abc import Sequence
from typing import TYPE_CHECKING, Final, NamedTuple, TypeVar

from failsoft.exchange import Operation
from failsoft.sessions.companion import Companion, Remembered, Ticket
from failsoft.sessions.cookies import values
from failsoft.sessions.ids import SessionId
from failsoft.sessions.operations import Check, Load

if TYPE_CHECKING:
    from failsoft.sessions.service import Sessions

__all__ = ["CredentialReader", "Credentials", "Recent"]

_MOST_SEEN: Final = 1024
"""Cookie fields whose meaning a process remembers: a page asks several things at once, and half of what a read costs us is in there."""

_LONGEST_SEEN: Final = 4096
"""Characters of a field that is remembered."""


_Key = TypeVar("_Key")
_Value = TypeVar("_Value")


class Recent(dict[_Key, _Value]):
    """The last of what was put in. Safe to share between threads."""

    def keep(self, key: _Key, value: _Value) -> None:
        """Put it in; the oldest makes room."""
        if len(self) >= _MOST_SEEN:
            try:
                del self[next(iter(self))]
            except (KeyError, RuntimeError, StopIteration):  # another thread was quicker
                pass
        self[key] = value


class Credentials(NamedTuple):
    """What a Cookie field says, and what loads the session: it depends on nothing else.

    Attributes:
        identity: the session's id.
        companion: what the seal beside it says.
        ticket: a logout that waits for the store.
        foreign: where another package keeps the session, if the cookie is of that package.
        loads: the operations that load the session.
        remembered: what the seals of remember cookies say, as far as they are ours; None where there are none.
    """

    identity: SessionId | None
    companion: Companion | None
    ticket: Ticket | None
    foreign: str | None
    loads: Sequence[Operation]
    remembered: Sequence[Remembered] | None


class CredentialReader:
    """Reads Cookie fields, and remembers what the last of them said. Safe to share between threads.

    Args:
        service: the application's sessions.
    """

    def __init__(self, service: "Sessions") -> None:
        self._service = service
        self._seen: Recent[str, Credentials] = Recent()

    def read(self, cookies: str) -> Credentials:
        """What the field says. Whatever is malformed, or not ours, is not there."""
        seen = self._seen.get(cookies)
        if seen is None:
            seen = self._parse(cookies)
            if seen.identity is not None and seen.ticket is None and len(cookies) <= _LONGEST_SEEN:
                self._seen.keep(cookies, seen)
        return seen

    def _parse(self, cookies: str) -> Credentials:
        service = self._service
        identity = companion = None
        for one in filter(None, map(SessionId.parse, values(cookies, service.style.full_name))):
            identity, bound = identity or one, one.digest.encode()
            for text in values(cookies, service.seal_style.full_name):
                companion = companion or service.companions.unpack(text, bound)
            if companion is not None:  # of several, that which a seal of ours goes with: another may have been planted
                identity = one
                break
        ticket = None
        if "-logout=" in cookies:
            tickets = map(service.tickets.unpack, values(cookies, service.ticket_style.full_name))
            # What is older speaks of a session that has ended by itself.
            oldest = service.clock.time() - service.lifetime / 1000
            ticket = next((one for one in tickets if one is not None and one.issued >= oldest), None)
        foreign = None
        if identity is None and service.importer is not None:
            # The other package put no __Host- before its name.
            names = dict.fromkeys((service.style.full_name, service.style.name))
            known = (service.importer.key_of(text) for name in names for text in values(cookies, name))
            foreign = next(filter(None, known), None)
        loads: list[Operation] = []
        if identity is not None:
            loads.append(
                Load(service.record_key(identity.handle), identity.digest, idle=service.idle, touch=service.touch)
            )
            if companion is not None and companion.subject is not None:
                loads.append(Check(service.subject_key(companion.subject), identity.handle))
        remembered = None
        if "-remember=" in cookies and (seals := values(cookies, service.remember_style.full_name)):
            remembered = tuple(filter(None, map(service.remember_seals.unpack, seals)))
        return Credentials(identity, companion, ticket, foreign, tuple(loads), remembered)
