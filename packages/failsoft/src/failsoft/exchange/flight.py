"""What goes to one store at one time: operations, and who wants which of them."""

from collections.abc import Iterable, Sequence

from failsoft.errors import StoreUnavailable
from failsoft.exchange.concern import Answers, Participant
from failsoft.exchange.operations import Operation

__all__ = ["Flight"]


class Flight:
    """What goes to one store.

    Args:
        store: its name.
        participant: who wants something from it; `join` adds others.
        operations: what.

    Attributes:
        participants: in the order of their operations.
    """

    # No slots, here and in what else is made for each request: Python 3.13 makes an object without them in two thirds of the time.

    _counts: list[int] | None = None
    """How many operations each participant has; None where there is only one participant."""

    def __init__(self, store: str, participant: Participant, operations: Sequence[Operation]) -> None:
        self.store = store
        self.participants = [participant]
        self.operations = operations

    def join(self, participant: Participant, operations: Sequence[Operation]) -> None:
        """Take `operations` along."""
        if self._counts is None:
            self._counts = [len(self.operations)]
        self._counts.append(len(operations))
        self.participants.append(participant)
        self.operations = [*self.operations, *operations]

    def shares(self, answers: Answers) -> Iterable[tuple[Participant, Answers]]:
        """Each participant, with what is its own of the answers."""
        if self._counts is None or isinstance(answers, StoreUnavailable):
            return [(participant, answers) for participant in self.participants]
        shares: list[tuple[Participant, Answers]] = []
        place = start = 0
        for participant in self.participants:
            end = start + self._counts[place]
            shares.append((participant, answers[start:end]))
            place, start = place + 1, end
        return shares
