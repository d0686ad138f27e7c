"""How a session's load gets into a request's flight.

A session joins as a *rider*: where the request makes a flight anyway, the session is loaded in it, used or not. Views that say so
(`require_live_session`) join by themselves.
"""

from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING

from failsoft.errors import Rejected
from failsoft.exchange import Answers, Exchange, Operation, Participant, Question
from failsoft.sessions.loading import loaded, operations
from failsoft.sessions.session import Session
from failsoft.sessions.state import LIVE, NEW, UNLOADED, State, unavailable

if TYPE_CHECKING:
    from failsoft.sessions.service import Sessions

__all__ = ["Live", "Rider"]


class Rider:
    """Loads the session in the flight that the request makes anyway."""

    questions: Sequence[Question] = ()
    rides = True

    def __init__(self, service: "Sessions") -> None:
        self._service = service
        self.store = service.store

    def join(self, exchange: Exchange) -> Participant | None:
        """Take part, if there is anything to ask."""
        part = self._service.part_of(exchange)
        if part is None:
            return None
        session = part.session
        if session.state is not UNLOADED and session.ticket is None:
            return None
        if part.operations or exchange.settled:  # settled elsewhere, or not any more
            return _Loading(session)
        wanted = operations(session)
        if not wanted:
            return None
        # One participant for the load and for the settlement: a second one costs each request a fifth of what a session costs.
        part.operations = wanted
        return part


class Live(Rider):
    """Loads the session in any case, and refuses the request while the store is away."""

    rides = False

    def join(self, exchange: Exchange) -> Participant | None:
        """Take part, if there is a session to vouch for."""
        part = self._service.part_of(exchange)
        if part is None or (part.session.state in (NEW, LIVE) and part.session.ticket is None):
            return None
        return _LoadingLive(part.session)


class _Loading:
    """The load of one session, whose settlement is another's."""

    __slots__ = ("_session", "operations")

    def __init__(self, session: Session) -> None:
        self._session = session
        self.operations = operations(session)

    def receive(self, answers: Answers) -> Rejected | None:
        """Take the answers; whoever reads the session hears of an outage."""
        if self.operations:
            loaded(self._session, answers)
        return None

    def settle(self, status: int) -> Sequence[Operation]:
        """What was changed is settled by `Saving`."""
        return ()

    def headers(self) -> Iterable[tuple[str, str]]:
        """Likewise."""
        return ()


class _LoadingLive(_Loading):
    __slots__ = ()

    def receive(self, answers: Answers) -> Rejected | None:
        super().receive(answers)
        if self._session.state in (State.AWAY, State.SNAPSHOT):
            return unavailable("This needs the session itself, and its store cannot be reached.")
        return None
