"""What a request really cost, said by the view: tokens of a language model, bytes, rows.

    @limit("100000/day", by="user", cost=4000, name="tokens", adjustable=True)
    def chat(...):
        answer = model.ask(...)
        reservation("tokens").charge(answer.total_tokens)

`cost` is reserved at admission, and the difference is charged or given back with the request's settlement: one more
flight. Once the response has begun (a stream), `charge` makes that flight itself.
"""

from collections.abc import Iterator, Sequence

from failsoft.errors import ConfigurationError, OutsideRequest
from failsoft.exchange import Exchange, Operation, current, declarations
from failsoft.exchange.policy import OUTSIDE, outside_request_allowed
from failsoft.ratelimit.admission import RESERVED, Admission
from failsoft.ratelimit.declare import Limit

__all__ = ["Reservation", "reservation"]

_MOST = 10**12


class Reservation:
    """What one limit reserved for the present request. Made by `reservation`; may be kept and used after the view returned."""

    __slots__ = ("_exchange", "_held")

    def __init__(self, exchange: Exchange | None, held: Sequence[tuple[Admission, list[int]]]) -> None:
        self._exchange = exchange
        self._held = held

    @property
    def units(self) -> int:
        """What will be charged, as far as it is known: 0 where the limit does not apply to this request."""
        return max((admission.units(place) for admission, places in self._held for place in places), default=0)

    def charge(self, units: int) -> None:
        """Charge `units` in all, instead of what was reserved. May be called again; the last word holds.

        More than was reserved is charged even where it exceeds the limit: later requests are refused until that is worked off.
        Where the store is down when the request is settled, what was reserved stays charged.

        Args:
            units: 0 to 10^12.

        Raises:
            ConfigurationError: `units` is no such number.
            OutsideRequest: the response has begun, and this is an event loop, where waiting for the store would hold up
                every other request: ``await`` `acharge` instead.
        """
        for exchange, store, operations in self._amend(units):
            exchange.engine.write(exchange, store, operations)

    async def acharge(self, units: int) -> None:
        """The same, from a coroutine."""
        for exchange, store, operations in self._amend(units):
            await exchange.engine.awrite(exchange, store, operations)

    def refund(self) -> None:
        """Charge nothing."""
        self.charge(0)

    async def arefund(self) -> None:
        """The same, from a coroutine."""
        await self.acharge(0)

    def _amend(self, units: int) -> Iterator[tuple[Exchange, str, Sequence[Operation]]]:
        """Note what is to be charged. What must be written at once comes out: the settlement is over."""
        if isinstance(units, bool) or not isinstance(units, int) or not 0 <= units <= _MOST:
            raise ConfigurationError(f"charge({units!r}): must be a whole number from 0 to {_MOST}")
        exchange = self._exchange
        if exchange is None:
            return
        for admission, places in self._held:
            admission.amend(places, units)
            if exchange.settled and (operations := admission.correct(places, units)):
                yield exchange, admission.store, operations


def reservation(name: str) -> Reservation:
    """What the limit called `name` reserved for the request that is being served.

    Where that limit does not apply to this request (another method, `when`, limits turned off), the reservation holds nothing,
    and charging it does nothing.

    Args:
        name: of a limit with ``adjustable=True`` or ``charge_on``.

    Raises:
        ConfigurationError: no such limit is declared anywhere.
        OutsideRequest: no request is being served.
    """
    exchange = current()
    if exchange is None and not outside_request_allowed():
        raise OutsideRequest(f"reservation({name!r}) was called where no request is being served{OUTSIDE}")
    known = {
        policy.name
        for declaration in declarations()
        for policy in declaration.policies
        if isinstance(policy, Limit) and policy.adjustable and policy.name is not None
    }
    if name not in known:
        names = ", ".join(sorted(known)) or "none"
        raise ConfigurationError(
            f"reservation({name!r}): no limit of this name can be adjusted; give one name={name!r} and adjustable=True. There are: {names}"
        )
    admissions = () if exchange is None else exchange.memo.get(RESERVED, ())
    held = [(admission, places) for admission in admissions if (places := admission.places(name))]
    return Reservation(exchange, held)
