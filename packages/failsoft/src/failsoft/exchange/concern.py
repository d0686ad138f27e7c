"""What a concern is to the core: the protocols that its parts fulfil.

A `Concern` (rate limits, sessions, tokens...) binds a route, its `Bound` joins a request, and the `Participant` that comes of it takes part
in the request's flights. The module `exchange` tells in which order.
"""

from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Protocol, runtime_checkable

from failsoft.address import AddressResolver
from failsoft.clock import Clock
from failsoft.errors import Rejected, StoreUnavailable
from failsoft.exchange.facts import Question
from failsoft.exchange.operations import Operation
from failsoft.exchange.policy import Policy

if TYPE_CHECKING:
    from failsoft.exchange.exchange import Exchange
    from failsoft.exchange.route import Route

__all__ = ["Answers", "Bound", "Concern", "Confirming", "Engine", "Participant", "Screening"]

Answers = Sequence[Any] | StoreUnavailable
"""What came of a participant's operations: an answer or an `OperationFailed` for each, or no answer at all."""


class Participant(Protocol):
    """One concern's part in one request.

    Beside these it may have `overruled`, which is called with the refusal where one of those who were asked at the same time refused; and
    `confirm`, see `Confirming`.
    """

    @property
    def operations(self) -> Sequence[Operation]:
        """What it wants from the store."""
        ...

    def receive(self, answers: Answers) -> Rejected | None:
        """Take the answers to `operations`; a refusal ends the request."""
        ...

    def settle(self, status: int) -> Sequence[Operation]:
        """What must be written now that the response has `status`; the answers come back to those who `confirm`."""
        ...

    def headers(self) -> Iterable[tuple[str, str]]:
        """Header fields for the response."""
        ...


@runtime_checkable
class Confirming(Protocol):
    """A participant that is to know what came of what it wrote."""

    def confirm(self, answers: Answers) -> Rejected | Sequence[Operation]:
        """Take the answers to what `settle` returned.

        Returns what must be written because of them, which is confirmed in turn; or the refusal that takes the response's place, of which
        nothing was sent yet. An empty sequence is the end of it.
        """
        ...


class Bound(Protocol):
    """What one concern does on one route.

    Beside these it may have `needs_user` (whether it asks the framework who is asking), `store` (the name of the store
    that it uses), `screen` (see `Screening`) and `rides` (whether it joins only where there is a flight anyway).
    """

    @property
    def questions(self) -> Sequence[Question]:
        """What must be asked of the user's code before `join`."""
        ...

    def join(self, exchange: "Exchange") -> Participant | None:
        """Take part in a request, or not. All `questions` are answered in ``exchange.answers``."""
        ...


@runtime_checkable
class Screening(Protocol):
    """A bound that can refuse by what this process knows."""

    def screen(self, exchange: "Exchange") -> Rejected | None:
        """Refuse, or let the request go on: before any question is asked and anything is joined."""
        ...


class Concern(Protocol):
    """A kind of policy: what applies where."""

    @property
    def name(self) -> str:
        """What its policies call it."""
        ...

    def bind(self, route: "Route", policies: Sequence[Policy], *, late: bool) -> Bound | Sequence[Bound] | None:
        """What applies to `route`: one or several bounds, or None.

        Args:
            route: the method and template.
            policies: those declared on the view for this concern; when `late`, only those not yet enforced.
            late: just before the view's body, so nothing from the settings applies.
        """
        ...


class Engine(Protocol):
    """What an exchange belongs to: one application's runtime."""

    @property
    def clock(self) -> Clock:
        """Its time."""
        ...

    @property
    def addresses(self) -> AddressResolver:
        """Who is behind the trusted proxies."""
        ...

    @property
    def stores(self) -> Mapping[str, object]:
        """Its stores, by their names: the same mapping as long as it lives."""
        ...

    def enforce(self, exchange: "Exchange", policies: Sequence[Policy], args: Any, kwargs: Any) -> None:
        """Enforce `policies` now. Raises `Rejected`."""
        ...

    async def aenforce(self, exchange: "Exchange", policies: Sequence[Policy], args: Any, kwargs: Any) -> None:
        """The same, from a coroutine."""
        ...

    def write(self, exchange: "Exchange", store: str, operations: Sequence[Operation]) -> None:
        """Write at once what belongs to a request that was settled. What a store that is away does not take is lost."""
        ...

    async def awrite(self, exchange: "Exchange", store: str, operations: Sequence[Operation]) -> None:
        """The same, from a coroutine."""
        ...
