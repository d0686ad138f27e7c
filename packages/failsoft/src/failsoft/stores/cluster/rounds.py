"""The operations of one flight on their way: which goes to which node, and what comes of the replies. No I/O.

Rules:

- An operation goes to the node that has the slot of its keys. One whose keys lie in several slots is divided by slot if
  it is `Divisible`, and otherwise fails by itself.
- All steps of a round are under way at the same time. There is another round only for steps that did not run: those
  that a node sent elsewhere (MOVED, ASK), or put off because their keys lie on two nodes for as long as their slot
  moves (TRYAGAIN): these are divided by key. After `MOST` rounds a step fails. Nothing that may have run is sent again.
- What a node does not answer concerns its steps alone.
- What the parts of a divided operation did in vain is in `undo` at the end. Until that has run, and for good if it never
  does, they count although the whole was refused: at most one operation's worth for each such flight.
"""

from collections.abc import Callable, Hashable, Sequence
from typing import Any, Generic, Protocol, TypeVar

from failsoft.errors import OperationFailed, StoreUnavailable
from failsoft.exchange.operations import Divisible, Operation
from failsoft.stores.cluster.slots import Address, slot_of
from failsoft.stores.redis.commands import answers, by_sha, by_source, misfits

__all__ = ["MOST", "Places", "Rounds", "Step"]

MOST = 5
"""Rounds of a flight. The longest way that a cluster has a reason for takes as many: MOVED, ASK, TRYAGAIN, ASK, and done."""

_ASKING = b"*1\r\n$6\r\nASKING\r\n"

_PENDING = object()

_N = TypeVar("_N", bound=Hashable)


class Places(Protocol[_N]):
    """Who knows the nodes."""

    def serves(self, slot: int | None) -> _N | None:
        """The node that has `slot`, or any node for None. None where nobody has it."""
        ...

    def at(self, address: Address, near: _N) -> _N | None:
        """The node at the address that `near` gave, or None if that cannot be one."""
        ...

    def failed(self, node: _N) -> None:
        """`node` did not answer."""
        ...

    def refused(self, failed: OperationFailed) -> None:
        """`failed` is the answer to an operation."""
        ...

    def moved(self, slot: int, node: _N) -> None:
        """`node` has `slot` from now on."""
        ...


class Step:
    """An operation of the flight, or a part of one.

    Attributes:
        answer: once there is one.
        asking: whether the node is to be asked for a slot that is on its way to it.
        data: what to send.
        divided: the operation again, once it was divided; or None.
        operation: what is to be done.
        parts: what it was divided into.
        slot: where its keys lie; None where it has none.
    """

    __slots__ = ("answer", "asking", "data", "divided", "operation", "parts", "slot")

    def __init__(self, operation: Operation) -> None:
        self.operation = operation
        self.answer: Any = _PENDING
        self.asking = False
        self.data = b""
        self.divided: Divisible | None = None
        self.parts: list[Step] = []
        self.slot: int | None = None

    def ask(self) -> None:
        """Go to a node that does not have the slot yet."""
        self.asking = True
        # With the script: ASKING holds for one command, so there is no asking by its name and then once more.
        self.data = _ASKING + by_source((self.operation,))

    def fail(self, cause: str) -> None:
        """There is no answer but this."""
        self.answer = OperationFailed(f"{self.operation.script.name}: {cause}")


class Rounds(Generic[_N]):
    """A flight.

    Args:
        operations: as the store was given them.
        places: who knows the nodes.

    Attributes:
        astray: whether some reply says that the nodes are not where they were.
        undo: what has to be undone, once every answer is there.
    """

    __slots__ = ("_places", "_ready", "_rounds", "_steps", "astray", "undo")

    def __init__(self, operations: Sequence[Operation], places: Places[_N]) -> None:
        self._places = places
        self._ready: dict[_N, list[Step]] = {}
        self._rounds = 0
        self.astray = False
        self.undo: list[Operation] = []
        self._steps = [Step(operation) for operation in operations]
        for step in self._steps:
            self._begin(step)

    @property
    def over(self) -> bool:
        """Whether there is nothing left to send."""
        return not self._ready

    def take(self) -> dict[_N, list[Step]]:
        """What to send to which node in this round."""
        self._rounds += 1
        ready, self._ready = self._ready, {}
        return ready

    def receive(self, node: _N, steps: Sequence[Step], replies: Sequence[Any] | StoreUnavailable) -> None:
        """What came of the steps that `node` was sent: a reply each, error replies as exceptions; or why there is none."""
        if isinstance(replies, StoreUnavailable):
            self.astray = True
            self._places.failed(node)
            for step in steps:
                step.answer = replies
            return
        for step, reply in zip(steps, replies, strict=True):
            # By its class: redis-py takes the code off the text, and keeps it only since version 7.1.
            kind = type(reply).__name__ if isinstance(reply, Exception) else None
            if kind in _ELSEWHERE and self._go_on(node, step, kind, str(reply)):
                continue
            self.astray = self.astray or kind in _LOST
            (step.answer,) = answers((step.operation,), (reply,), self._places)

    def give_up(self, reason: StoreUnavailable) -> None:
        """Send no more."""
        for steps in self.take().values():
            for step in steps:
                step.answer = reason

    def answers(self) -> list[Any]:
        """The answers to the operations.

        Raises:
            StoreUnavailable: there is not a single one.
        """
        found = [self._answer(step) for step in self._steps]
        away = [answer for answer in found if isinstance(answer, StoreUnavailable)]
        if not away:
            return found
        if len(away) == len(found):
            raise away[0]
        for place, answer in enumerate(found):
            if isinstance(answer, StoreUnavailable):
                step = self._steps[place]
                step.fail(f"no answer from its part of the cluster: {answer}")
                found[place] = step.answer
        return found

    def _begin(self, step: Step, *, whole: bool = True) -> None:
        """Send a step where it belongs; divided if it is the whole of an operation."""
        operation = step.operation
        try:
            slots = {slot_of(key) for key in operation.keys}
            if len(slots) <= 1:
                step.data = by_sha((operation,))
        except Exception:
            # Looked at again for the words; a key of a type that has no slot cannot be sent either.
            wrong, _ = misfits((operation,), self._places)
            step.answer = wrong.get(0) or OperationFailed(f"{operation.script.name}: a key has no slot")
            return
        if len(slots) <= 1:
            step.slot = slots.pop() if slots else None
            self._send(step, self._places.serves(step.slot))
        elif not whole or not isinstance(operation, Divisible) or not self._divide(step, operation, slot_of):
            step.fail(f"its keys lie in {len(slots)} slots of the cluster; give them a {{tag}} in common")

    def _divide(self, step: Step, operation: Divisible, place: Callable[[str], Hashable]) -> bool:
        """Go on with the parts; whether there are any."""
        try:
            parts = operation.divide(place)
        except Exception as error:
            step.fail(f"it could not be divided: {error!r}")
            return True
        if len(parts) < 2:
            return False
        step.divided, step.parts = operation, [Step(part) for part in parts]
        for part in step.parts:
            self._begin(part, whole=False)
        return True

    def _send(self, step: Step, node: _N | None) -> None:
        if node is None:
            self.astray = True
            step.answer = StoreUnavailable("no_connection", f"no node of the cluster has slot {step.slot}")
        elif self._rounds >= MOST:
            step.fail(f"no node of the cluster took it within {MOST} attempts")
        else:
            self._ready.setdefault(node, []).append(step)

    def _go_on(self, node: _N, step: Step, kind: str, said: str) -> bool:
        """See to a step that did not run: whether it goes on."""
        if kind == "TryAgainError":
            return isinstance(step.operation, Divisible) and self._divide(step, step.operation, str)
        other = _address(said)
        to = None if other is None else self._places.at(other, node)
        if to is None:
            return False
        if kind == "AskError":
            step.ask()
        elif step.slot is not None:
            self.astray = True
            if step.asking:
                step.asking, step.data = False, by_sha((step.operation,))
            self._places.moved(step.slot, to)
        self._send(step, to)
        return True

    def _answer(self, step: Step) -> Any:
        if step.divided is None:
            return step.answer
        given = [self._answer(part) for part in step.parts]
        try:
            answer, undo = step.divided.unite([part.operation for part in step.parts], given)
        except Exception as error:
            step.fail(f"the answers of its parts could not be united: {error!r}")
            return step.answer
        self.undo += undo
        return answer


_ELSEWHERE = frozenset({"AskError", "MovedError", "TryAgainError"})
"""Error replies to a command that did not run, and that may run elsewhere or otherwise."""

_LOST = frozenset({"BusyLoadingError", "ClusterDownError", "MasterDownError", "MovedError", "ReadOnlyError"})
"""Error replies of a node that is not, or not any more, what it was taken for."""


def _address(said: str) -> Address | None:
    """Where to go instead; the text is ``slot host:port``, the host maybe empty."""
    try:
        host, port = said.split(" ")[1].rsplit(":", 1)
        return host, int(port)
    except (IndexError, ValueError):
        return None
