"""What goes to one store at one time: operations, and who wants which of them."""

from collections.abc import Sequence

from failsoft.errors import StoreUnavailable
from failsoft.exchange.concern import Answers, Participant
from failsoft.exchange.operations import Operation
from failsoft.exchange.policy import Policy

__all__ = ["Flight"]


class Flight:
    """What goes to one store.

    Args:
        store: its name.
        participant: who wants something from it; `join` adds others.
        operations: what.

    Attributes:
        participants: in the order of their operations.
        enforces: for the first one of an admission, what need not be enforced any more once that is answered without a refusal.
    """

    # No slots, here and in what else is made for each request: Python 3.13 makes an object without them in two thirds of the time.
    enforces: frozenset[Policy]

    def __init__(self, store: str, participant: Participant, operations: Sequence[Operation]) -> None:
        self.store = store
        self.participants = [participant]
        self.operations = operations
        self._ends: list[int] | None = None
        """Where among all answers those of each participant end; None where there is only one participant."""

    def join(self, participant: Participant, operations: Sequence[Operation]) -> None:
        """Take `operations` along."""
        if self._ends is None:
            self._ends = [len(self.operations)]
        self.participants.append(participant)
        self.operations = [*self.operations, *operations]
        self._ends.append(len(self.operations))

    def shares(self, answers: Answers) -> Sequence[Answers]:
        """What is each participant's own of the answers."""
        if self._ends is None or isinstance(answers, StoreUnavailable):
            return [answers] * len(self.participants)
        shares: list[Answers] = []
        start = 0
        for end in self._ends:
            shares.append(answers[start:end])
            start = end
        return shares
