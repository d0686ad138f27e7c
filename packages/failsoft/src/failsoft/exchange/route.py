"""What applies where: routes, what all concerns do on each, and the plans of one application.

A plan is worked out once for each view, method and template, and for each set of scopes that a request can lie in; the next request of that
kind finds it by one look into a dictionary. What is declared later makes all of them anew.
"""

from collections.abc import Callable, Iterable, Sequence
from copy import copy
from typing import TYPE_CHECKING, Any

from failsoft.errors import ConfigurationError, Rejected
from failsoft.exchange.concern import Bound, Concern, Screening
from failsoft.exchange.facts import METHODS, Facts, Question
from failsoft.exchange.policy import Policy, collect, declared_version
from failsoft.settings import Scope

if TYPE_CHECKING:
    from failsoft.exchange.exchange import Exchange

__all__ = ["DEFAULT", "Route", "RoutePlan", "RoutePlans"]

DEFAULT = "default"
"""The store that is used where nothing names another."""

_MAX_PLANS = 10_000
"""Routes times methods; reached only where endpoints are made anew for each request."""


class Route:
    """Where a request goes: its method (one of a bounded set), the route's template, None where unknown, the scopes it lies in, and
    what the framework calls the endpoint, where it has names."""

    __slots__ = ("method", "name", "scopes", "template")

    def __init__(
        self, method: str, template: str | None, scopes: tuple[Scope, ...] = (), name: str | None = None
    ) -> None:
        # Some servers hand on "get" as the client wrote it, and some frameworks serve it as GET: it must not slip by GET's limits.
        method = method.upper()
        self.method = method if method in METHODS else "OTHER"
        self.template = template
        self.scopes = scopes
        self.name = name


class RoutePlan:
    """What all concerns do on one route, worked out once.

    Attributes:
        by_store: the bounds that join every request, with the store of each group.
        followed: whether something is enforced late in requests with this plan, as far as is known by now: then it matters how long
            flights take, and a driver looks at a clock.
        enforced: the policies that no longer need enforcing once this plan was carried out.
        messages: the policies that each message is charged to, if the request opens a socket.
        needs_user: whether a decision depends on who `Facts.user` says is asking.
        riders: what joins only where there is a flight anyway, with its store.
        screens: what may refuse by itself, before anything else.
    """

    __slots__ = (
        "bounds",
        "by_store",
        "enforced",
        "followed",
        "messages",
        "needs_user",
        "questions",
        "riders",
        "route",
        "screens",
    )

    def __init__(
        self,
        concerns: Iterable[Concern],
        route: Route,
        policies: Sequence[Policy],
        *,
        late: bool,
        messages: Sequence[Policy] = (),
    ) -> None:
        self.route = route
        self.followed = late or any(policy.late for policy in policies)
        self.messages: tuple[Policy, ...] = tuple(messages)
        now = [p for p in policies if late or not p.late]
        bounds: list[Bound] = []
        for concern in concerns:
            found = concern.bind(route, [p for p in now if p.concern == concern.name], late=late)
            if isinstance(found, Sequence):
                bounds += found
            elif found is not None:
                bounds.append(found)
        riders = [b for b in bounds if getattr(b, "rides", False)]
        self.riders: tuple[tuple[str, Bound], ...] = tuple((getattr(b, "store", DEFAULT), b) for b in riders)
        self.bounds: tuple[Bound, ...] = tuple(b for b in bounds if b not in riders)
        self.questions: tuple[Question, ...] = tuple(q for b in self.bounds for q in b.questions)
        self.enforced: frozenset[Policy] = frozenset(now).union(messages)
        # Few concerns ask for these three.
        self.needs_user = any(getattr(b, "needs_user", False) for b in self.bounds)
        self.screens: tuple[Callable[[Exchange], Rejected | None], ...] = tuple(
            b.screen for b in self.bounds if isinstance(b, Screening)
        )
        by_store: dict[str, list[Bound]] = {}
        for bound in self.bounds:
            by_store.setdefault(getattr(bound, "store", DEFAULT), []).append(bound)
        self.by_store: Sequence[tuple[str, Sequence[Bound]]] = tuple(by_store.items())

    def counting(self, policies: Iterable[Policy]) -> "RoutePlan":
        """The same, with more policies that each message is charged to."""
        found = copy(self)
        found.messages = (*self.messages, *policies)
        found.enforced = self.enforced.union(found.messages)
        return found


class RoutePlans:
    """The plans of one application, for as long as its settings stay.

    Args:
        concerns: what takes part, in order.
        scopes: those of the settings that the concerns were made with.

    Attributes:
        known: those that were needed so far.
    """

    __slots__ = ("_scopes", "_version", "concerns", "known")

    def __init__(self, concerns: Sequence[Concern], scopes: Sequence[Scope]) -> None:
        self.concerns = concerns
        self._scopes = scopes
        self.known: dict[Any, RoutePlan] = {}
        self._version = declared_version()

    def of(self, facts: Facts) -> RoutePlan:
        """What applies to the request that `facts` describe.

        Raises:
            ConfigurationError: a policy of its view belongs to a concern that the application does not have.
        """
        if self._version != declared_version():
            self.known, self._version = {}, declared_version()
        known = self.known  # taken before what they are made of: a declaration puts others in their place
        scopes = self._scopes_of(facts) if self._scopes else ()
        key = (facts.endpoint, facts.method, facts.route, scopes)
        try:
            return known[key]
        except (KeyError, TypeError):
            pass
        route = Route(facts.method, facts.route, scopes, facts.name())
        policies = collect(facts.targets())
        messages = _of_messages(facts, policies) if facts.opens_socket else ()
        requests = [policy for policy in policies if policy not in messages]
        self._all_enforced(requests)
        plan = RoutePlan(self.concerns, route, requests, late=False, messages=messages)
        try:
            # An invented method shares the plan of all invented methods, and must not fill the table.
            if len(known) < _MAX_PLANS and route.method == facts.method:
                known[key] = plan
        except TypeError:  # an endpoint that has no hash
            pass
        return plan

    def check(self, route: Route, policies: Sequence[Policy], called: Sequence[Policy]) -> Sequence[Question]:
        """Make what a request to `route` needs, before there is one. Returns what would be asked of the user's code.

        Args:
            route: the route.
            policies: those on its view.
            called: those on functions that are called on the way to the view.

        Raises:
            ConfigurationError: as each of its requests would.
        """
        self._all_enforced([*policies, *called])
        early = RoutePlan(self.concerns, route, policies, late=False)
        late = RoutePlan(self.concerns, route, [*(policy for policy in policies if policy.late), *called], late=True)
        return [*early.questions, *late.questions]

    def late(self, route: Route, policies: Sequence[Policy]) -> RoutePlan:
        """What is enforced of `policies` just before the body of a function that has them, in a request to `route`.

        Raises:
            ConfigurationError: one of them belongs to a concern that the application does not have.
        """
        known = self.known
        key = (tuple(policies), route.method, route.template)
        plan = known.get(key)
        if plan is None:
            self._all_enforced(policies)
            plan = RoutePlan(self.concerns, route, policies, late=True)
            if len(known) < _MAX_PLANS:
                known[key] = plan
        return plan

    def _scopes_of(self, facts: Facts) -> tuple[Scope, ...]:
        path, host, groups = facts.path(), facts.header("host") or "", facts.groups()
        return tuple(scope for scope in self._scopes if scope.has(path, host, groups))

    def _all_enforced(self, policies: Sequence[Policy]) -> None:
        known = {concern.name for concern in self.concerns}
        for policy in policies:
            if policy.concern not in known and not policy.marker:
                raise ConfigurationError(
                    f"{policy!r} on {policy.place or 'a view'} would not be enforced: the application has no {policy.concern}. "
                    f"Turn the setting {policy.concern} on, or remove it"
                )


def _of_messages(facts: Facts, policies: Sequence[Policy]) -> tuple[Policy, ...]:
    """What each message is charged to: what says so, and what is on a function that is called for each."""
    found = [*collect(facts.message_targets()), *(policy for policy in policies if policy.messages)]
    return tuple(dict.fromkeys(policy for policy in found if not policy.marker and not policy.late))
