"""The decorators: `limit` and `exempt`."""

from collections.abc import Callable, Container, Iterable, Iterator, Sequence
from typing import Any, Literal, get_args

from failsoft.errors import ConfigurationError
from failsoft.exchange import METHODS, Policy, Question
from failsoft.exchange.decorators import WithArguments, WithoutArguments
from failsoft.exchange.policy import Target, declare
from failsoft.exchange.signatures import name_of
from failsoft.quota import ALGORITHMS, Algorithm, Quota, QuotaLike, parse_quotas
from failsoft.ratelimit.identity import By, asked, compile_identity
from failsoft.ratelimit.penalty import Penalty
from failsoft.settings.problems import nearest

__all__ = ["CONCERN", "Exempt", "Limit", "OnMissing", "OnOutage", "exempt", "limit"]

CONCERN = "ratelimit"

OnOutage = Literal["open", "closed", "local"]
"""What a limit does without its store: admit, refuse with 503, or count in this process."""

OnMissing = Literal["ip", "exempt", "refuse"]
"""What a limit does where its identity is missing: count the address, not apply, or refuse with 403."""

_NAME_CHARACTERS = frozenset("abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789-_.")


class Limit(WithArguments, Policy):
    """Decorator: limit how often a view is served. Put several on one view; a request is charged to all of them or to none.

    Works on functions, async functions, methods and class-based views, above or below other decorators and the
    framework's route decorator.

    Args:
        quota: ``"10/minute"``, ``"10/minute; 200 per day"``, ``"10/second burst 50"``, an item of `limits`, or a function of
            the request (sync or async) that returns one of these, or None for no limit.
        by: whom it counts: ``"ip"``, ``"user"``, ``"route"``, ``"header:X-Api-Key"``, a function of the request that returns a
            string, a tuple or None, ``late(function)``, or a sequence of these for their combination. Default: the setting `by`.
        shared: a name; all limits with this name and the same quota count together, on every view and in every application on
            the same store and prefix. Default: each route counts for itself.
        name: what clients see in the RateLimit fields, and what `reservation` asks for (letters, digits, ``-_.``). Default: made
            from the quota.
        methods: the HTTP methods it applies to; GET stands for HEAD too. Default: all.
        per_method: count each method for itself.
        cost: units that a request takes: at least 1, or a function of the request (sync or async) that returns at least 0.
        when: a function of the request (sync or async); the limit applies only where it returns true.
        charge_on: statuses (``(401, 403)``, ``range(400, 500)``), or a function of the status: only responses with these are
            charged. The units are reserved before the view and given back after it, so that not even many requests at
            once get past the limit.
        peek: with `charge_on`: reserve nothing; look whether there is room, and charge afterwards. Requests that are under way
            at the same time all find room, so the limit can be overshot by as many as run at once.
        adjustable: the view may say with `reservation` what the request really cost. `charge_on` implies it.
        shadow: count, and tell listeners what would have been refused, but refuse nobody and tell clients nothing.
        penalty: a `Penalty`: who is refused again and again is shut out for a while, and each time for longer.
        lease: units that a process may fetch at once for a client who is busy, 2 to 10000, and then give out without asking the
            store. Never admits more than the quota; up to ``lease - 1`` units for each process may be
            left over. Only for fixed windows and GCRA, and where every limit of the request has it; 0 for none. Default: the setting.
        messages: over a WebSocket, count the messages that the client sends, not the openings. A refused message closes the
            socket. A request that opens no socket counts as one message. Functions of the request are then functions of
            each message.
        store: the name of the store to count in, one of the setting `stores`. Limits on different stores are not charged as one.
        on_outage: when the store is down: ``"open"`` admits, ``"closed"`` refuses with 503, ``"local"`` counts in this process
            against its share of the quota. Default: the setting.
        on_missing: where `by` gives nothing: ``"ip"`` counts by address, ``"exempt"`` does not apply, ``"refuse"`` answers 403.
            Default: the setting.
        algorithm: ``"fixed-window"``, ``"gcra"``, ``"sliding-window-counter"`` or ``"moving-window"``. Default: the setting;
            ``burst`` in the quota means gcra, and goes with no other.
        aligned: fixed windows of at most a day start at multiples of the window, not at the first hit. True where no window of the
            quota is one is an error. Default: the setting.

    Raises:
        ConfigurationError: at once, if an argument is wrong.
    """

    concern = CONCERN

    def __init__(
        self,
        quota: QuotaLike | Iterable[QuotaLike] | Callable[..., Any],
        *,
        by: By | None = None,
        shared: str | None = None,
        name: str | None = None,
        methods: Iterable[str] | None = None,
        per_method: bool = False,
        cost: int | Callable[..., Any] = 1,
        when: Callable[..., Any] | None = None,
        charge_on: Container[int] | Callable[[int], bool] | None = None,
        peek: bool = False,
        adjustable: bool = False,
        shadow: bool = False,
        penalty: Penalty | None = None,
        lease: int | None = None,
        messages: bool = False,
        store: str | None = None,
        on_outage: OnOutage | None = None,
        on_missing: OnMissing | None = None,
        algorithm: Algorithm | None = None,
        aligned: bool | None = None,
    ) -> None:
        # It is read for each route, and what can be gone through once would be empty then.
        self.quota = quota = tuple(quota) if isinstance(quota, Iterator) else quota
        self.by = by
        self.shared = _checked_name("shared", shared)
        self.name = _checked_name("name", name)
        self.methods = None if methods is None else _checked_methods(methods)
        self.per_method = _checked_switch("per_method", per_method)
        self.cost = cost
        self.when = None if when is None else _question("when", when)
        self.charge_on = charge_on
        self.charges = None if charge_on is None else _charges(charge_on)
        self.peek = _checked_switch("peek", peek)
        self.adjustable = _checked_switch("adjustable", adjustable) or charge_on is not None
        self.shadow = _checked_switch("shadow", shadow)
        self.penalty = penalty
        self.lease = lease
        self.messages = _checked_switch("messages", messages)
        self.store = _checked_name("store", store)
        self.on_outage = _one_of("on_outage", on_outage, get_args(OnOutage))
        self.on_missing = _one_of("on_missing", on_missing, get_args(OnMissing))
        self.algorithm = _one_of("algorithm", algorithm, ALGORITHMS)
        self.aligned = None if aligned is None else _checked_switch("aligned", aligned)
        self.for_helpers = shared is not None
        # Kept, so that it is asked once in a request, whatever else is enforced with the limit.
        self.identity_question = None if by is None else compile_identity(by).question
        self.late = self.identity_question is not None and self.identity_question.late
        self.cost_question: Question | None = None
        if callable(cost):
            self.cost_question = _question("cost", cost)
        elif isinstance(cost, bool) or not isinstance(cost, int) or cost < 1:
            raise ConfigurationError(
                f"cost={cost!r}: must be a whole number of at least 1, or a function of the request"
            )
        self.quota_question: Question | None = None
        if callable(quota):
            try:
                self.quota_question = _question("quota", quota)
            except ConfigurationError as error:
                raise ConfigurationError(f'{error}. Above a view, write @limit("10/minute")') from None
            self.bare = (
                f'@limit needs a quota: write @limit("10/minute") above {name_of(quota)}. With a function in place of the quota it makes a '
                "decorator, and here that is used as a view."
            )
        else:
            self._check(parse_quotas(quota, algorithm=algorithm or "fixed-window", aligned=bool(aligned)))
        self._check_combination()

    def _check(self, quotas: Sequence[Quota]) -> None:
        if not quotas:
            raise ConfigurationError(
                f"limit({self.quota!r}) limits nothing: give at least one quota, such as '10/minute'"
            )
        for one in quotas:
            if self.algorithm not in (None, one.algorithm):
                cure = "algorithm, or burst" if one.burst is not None else "algorithm, or give it to the Quota"
                raise ConfigurationError(
                    f"algorithm={self.algorithm!r} does not go with {one}, which is counted by {one.algorithm}: leave out {cure}"
                )
            if isinstance(self.cost, int) and self.cost > one.capacity:
                raise ConfigurationError(f"cost={self.cost} never fits into {one}: no request would ever be admitted")
        self.check_aligned(quotas)

    def check_aligned(self, quotas: Sequence[Quota]) -> None:
        """Whether ``aligned=True`` reaches one of `quotas`, which this limit stands for.

        Raises:
            ConfigurationError: it reaches none.
        """
        if self.aligned and not any(one.aligned for one in quotas):
            named = "; ".join(f"{one}, counted by {one.algorithm}" for one in quotas)
            raise ConfigurationError(
                f"aligned=True has no effect on {named}: it is for fixed windows of at most a day, and a Quota has its own; leave it out"
            )

    def _check_combination(self) -> None:
        if self.peek and self.charges is None:
            raise ConfigurationError("peek=True says how to charge responses: give charge_on as well")
        if self.aligned and self.algorithm not in (None, "fixed-window"):
            raise ConfigurationError(
                f"aligned=True belongs to fixed windows, and this limit is counted by {self.algorithm}: leave one of them out"
            )
        if self.penalty is not None and not isinstance(self.penalty, Penalty):
            raise ConfigurationError(f"penalty={self.penalty!r}: must be a failsoft.Penalty, such as Penalty(after=5)")
        if self.messages and (self.charges is not None or self.late):
            needed = (
                "late(...): no view is called for a message" if self.late else "charge_on: a message has no response"
            )
            raise ConfigurationError(f"messages=True does not go with {needed}; leave one of them out")
        if self.lease is None or (self.lease == 0 and self.lease is not False):
            return
        if isinstance(self.lease, bool) or not isinstance(self.lease, int) or not 2 <= self.lease <= 10_000:
            raise ConfigurationError(
                f"lease={self.lease!r}: must be a whole number of units, 2 to 10000, or 0 for none"
            )
        against = [key for key in ("adjustable", "shadow", "penalty") if getattr(self, key) not in (None, False)]
        if against:
            raise ConfigurationError(f"lease does not go with {', '.join(against)}: leave one of them out")

    def decorate(self, target: Target) -> Target:
        """Put the limit on `target`."""
        return declare(target, self)

    def fingerprint(self) -> object:
        return (
            repr(self.quota),
            repr(self.by),
            self.shared,
            self.name,
            self.methods,
            self.per_method,
            repr(self.cost),
            None if self.when is None else id(self.when.function),
            repr(self.charge_on),
            self.peek,
            self.adjustable,
            self.shadow,
            self.penalty,
            self.lease,
            self.messages,
            self.store,
            self.on_outage,
            self.on_missing,
            self.algorithm,
            self.aligned,
        )

    def __repr__(self) -> str:
        return f"limit({self.quota!r})"


limit = Limit


class Exempt(WithoutArguments):
    """A view that the settings' limits do not apply to."""

    concern = CONCERN
    marker = True

    def fingerprint(self) -> object:
        return "exempt"

    def __repr__(self) -> str:
        return "exempt"


exempt = Exempt()
"""Decorator: the limits in the settings do not apply to this view. Its own `limit` decorators still do."""


def _charges(charge_on: Container[int] | Callable[[int], bool]) -> Callable[[int], bool]:
    if callable(charge_on):
        return charge_on
    if isinstance(charge_on, str) or not hasattr(charge_on, "__contains__"):
        raise ConfigurationError(
            f"charge_on={charge_on!r}: must be statuses, such as (401, 403) or range(400, 500), or a function of the status"
        )
    return charge_on.__contains__


def _question(key: str, function: Callable[..., Any]) -> Question:
    if not callable(function):
        raise ConfigurationError(f"{key}={function!r}: must be a function of the request")
    return asked(function, key)


def _checked_switch(key: str, value: bool) -> bool:
    if not isinstance(value, bool):  # "no" would be true
        raise ConfigurationError(f"{key}={value!r}: must be True or False")
    return value


def _one_of(key: str, value: Any, accepted: Sequence[str]) -> Any:
    if value is not None and value not in accepted:
        near = nearest(value, accepted) if isinstance(value, str) else None
        hint = "" if near is None else f"; did you mean {near!r}?"
        raise ConfigurationError(f"{key}={value!r}: must be one of {', '.join(map(repr, accepted))}{hint}")
    return value


def _checked_name(key: str, value: str | None) -> str | None:
    if value is not None and (not isinstance(value, str) or not value or not _NAME_CHARACTERS.issuperset(value)):
        raise ConfigurationError(f"{key}={value!r}: must be letters, digits, '-', '_' and '.'")
    return value


def _checked_methods(methods: Iterable[str]) -> frozenset[str]:
    if isinstance(methods, str):
        raise ConfigurationError(f"methods={methods!r}: must be a list of methods, such as [{methods.upper()!r}]")
    found = frozenset(str(method).upper() for method in methods)
    if not found:
        raise ConfigurationError(
            "methods is empty, so the limit would never apply: name methods, or leave it out for all"
        )
    if unknown := sorted(found - METHODS):
        raise ConfigurationError(f"methods: {', '.join(unknown)} unknown; must be among {', '.join(sorted(METHODS))}")
    # Whoever limits GET means HEAD as well: frameworks serve it by the same view, and it would be a way around.
    return found | {"HEAD"} if "GET" in found else found
