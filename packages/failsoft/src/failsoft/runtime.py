"""One application's failsoft: its settings, its store, its concerns. Adapters make one and drive it.

What an adapter does with it:

1. ``begin(facts)`` gives the exchange of a request; make it current (`enter`) for as long as the request is served.
2. ``admit(exchange)`` or ``await aadmit(exchange)``, once, at the first need: None, or the refusal to answer with.
3. ``answer(rejected, accept)`` makes a refusal's status, header fields and body.
4. ``finish(exchange, status)`` or ``await afinish(...)`` at the last write point: the header fields to add.
5. ``exchange.end()`` when the response is over or will never be; before it, ``exchange.streamed`` says whether it was made piece by piece.
"""

import logging
import os
import random
import threading
from collections.abc import Callable, Container, Sequence
from typing import TYPE_CHECKING, Any
from weakref import WeakSet

from failsoft.address import AddressResolver
from failsoft.clock import SYSTEM, Clock
from failsoft.drivers import aio, sync
from failsoft.drivers.carrier import StoreCarrier, in_event_loop
from failsoft.errors import ConfigurationError, OutsideRequest, Rejected
from failsoft.events import Event, Listener, Listeners
from failsoft.exchange import (
    DEFAULT,
    Concern,
    Exchange,
    Facts,
    Operation,
    Policy,
    Question,
    Route,
    RoutePlan,
    RoutePlans,
    collect,
)
from failsoft.exchange.policy import allow_outside_request, declared_version
from failsoft.forks import start_over_in_children
from failsoft.problem import preferred_form, render
from failsoft.ratelimit import RateLimits
from failsoft.ratelimit.shedding import LoadShedder
from failsoft.settings import OPTIONS, SettingProblem, Settings
from failsoft.settings.workers import workers_of_server
from failsoft.stores import Limited, Store, open_store
from failsoft.stores.outages import OutageLog

if TYPE_CHECKING:
    from failsoft.sessions.service import Sessions

__all__ = ["EXPOSED_FIELDS", "FIXED", "Runtime", "refusal_fields", "runtimes"]

_log = logging.getLogger("failsoft")

FIXED = (
    *("store", "stores", "deadline", "max_connections", "memory_keys", "prefix", "secret", "outside_request"),
    *("secret_fallbacks", "sessions"),
    *(option.name for option in OPTIONS if option.name.startswith(("session_", "cookie_"))),
)
"""Settings that cannot change in a running process."""

_SHEDDING = ("shed", "shed_min", "shed_max", "criticality", "queue_header", "trusted_proxies")
"""Settings that the load shedder is made from."""

EXPOSED_FIELDS = (
    "RateLimit, RateLimit-Policy, Retry-After, X-RateLimit-Limit, X-RateLimit-Remaining, X-RateLimit-Reset, Degraded"
)
"""For Access-Control-Expose-Headers: what a page from elsewhere may read of our fields."""

_runtimes: "WeakSet[Runtime]" = WeakSet()


def runtimes() -> "list[Runtime]":
    """Every living runtime of this process."""
    return list(_runtimes)


class Runtime:
    """One application's failsoft.

    Args:
        settings: validated settings.
        concerns: further concerns, which take part in every request's one flight.
        clock: injectable time.
        store: a store to use instead of the one that the settings name.
        random: gives floats in [0, 1), for jitter.
        told: advice about the settings that people have had already; the rest goes to the log.

    Raises:
        ConfigurationError: a limit in the settings is not understood, or the store's URL is wrong.
    """

    def __init__(
        self,
        settings: Settings,
        *,
        concerns: Sequence[Concern] = (),
        clock: Clock = SYSTEM,
        store: Store | None = None,
        random: Callable[[], float] = random.random,
        told: Container[SettingProblem] = (),
    ) -> None:
        self.settings = settings
        self.clock = clock
        self.listeners = Listeners()
        self.enabled = settings.enabled
        self.addresses = _addresses(settings)
        self._outages = OutageLog(settings, clock=clock, publish=self.listeners.publish)
        publish = self._outages.hear
        self.stores: dict[str, Store] = {DEFAULT: store or open_store(settings, clock=clock, publish=publish)}
        for name, url in settings.stores:
            self.stores[name] = open_store(settings.at_store(url), name=name, clock=clock, publish=publish)
        self._random = random
        self._concerns = tuple(concerns)
        self.limits = self._limits_of(settings)
        self.shedder = self._shedder_of(settings, self.addresses)
        self.sessions = self._sessions_of(settings)
        self.concerns: tuple[Concern, ...] = self._concerns_in_order()
        # One reload at a time. A signal handler may reload in the middle of another, in the same thread.
        self._reloading = threading.RLock()
        self._parts = (settings, self.addresses, self.limits, self.shedder)
        self._always_route = self._counts_routes()
        self._plans = RoutePlans(self.concerns, settings.scopes)
        self._nothing = RoutePlan((), Route("GET", None), (), late=False)
        self._outside = allow_outside_request() if settings.outside_request == "allow" else None
        if self._outside is not None:
            self._outside.__enter__()
        for problem in settings.advice(workers_seen=workers_of_server(os.environ)):
            if problem not in told:
                _log.warning("%s", problem)
        _runtimes.add(self)
        start_over_in_children(self, Runtime._start_over)

    def _start_over(self) -> None:
        """See `failsoft.forks`. What another thread of the parent was about to go on with, nobody here would finish."""
        midway = not self._reloading.acquire(blocking=False)
        self._reloading = threading.RLock()
        if midway:
            self._go_on_with(*self._parts)

    def _limits_of(self, settings: Settings) -> RateLimits:
        return RateLimits(
            settings,
            clock=self.clock,
            random=self._random,
            listeners=self.listeners,
            remote={name: store.blocking for name, store in self.stores.items()},
            unsupported={name: store.unsupported for name, store in self.stores.items() if isinstance(store, Limited)},
        )

    def _shedder_of(self, settings: Settings, addresses: AddressResolver) -> LoadShedder | None:
        if not settings.shed:
            return None
        return LoadShedder(
            settings, clock=self.clock, random=self._random, listeners=self.listeners, addresses=addresses
        )

    def _sessions_of(self, settings: Settings) -> "Sessions | None":
        if not settings.sessions:
            return None
        try:
            from failsoft.sessions.service import Sessions  # here, because it brings packages that are optional
        except ImportError as error:
            raise ConfigurationError(
                f"sessions need the packages msgspec and cryptography ({error}): pip install 'failsoft[sessions]'"
            ) from None
        carrier = StoreCarrier(self.stores, settings.session_store)
        return Sessions(settings, carrier=carrier, clock=self.clock, listeners=self.listeners)

    def _concerns_in_order(self) -> tuple[Concern, ...]:
        # What is shed must not cost anything: so it comes first.
        own = (self.shedder, self.limits, self.sessions)
        return (*(concern for concern in own if concern is not None), *self._concerns)

    def reload(self, settings: Settings) -> None:
        """Go on with other settings; requests under way keep those they began with.

        What was counted stays, for limits whose value and name stay. What belongs to connections (`FIXED`) cannot change
        in a running process.

        Args:
            settings: validated settings.

        Raises:
            ConfigurationError: a setting changed that cannot; or a limit is not understood. The old settings remain.
        """
        changed = [name for name in FIXED if getattr(settings, name) != getattr(self.settings, name)]
        if changed:
            raise ConfigurationError(f"{', '.join(changed)} cannot change in a running process: restart it")
        with self._reloading:
            limits = self._limits_of(settings)
            addresses = _addresses(settings)
            if settings.effective_local_share == self.settings.effective_local_share:
                limits.local = self.limits.local  # an outage may be under way
            if settings.workers * settings.replicas == self.settings.workers * self.settings.replicas:
                limits.leases = self.limits.leases  # what is left in them was charged
            shedder = self.shedder
            if any(getattr(settings, name) != getattr(self.settings, name) for name in _SHEDDING):
                shedder = self._shedder_of(settings, addresses)  # else what it has learned would be lost
            parts = self._parts = (settings, addresses, limits, shedder)
            self._go_on_with(*parts)
            while parts is not self._parts:  # a signal handler reloaded in the middle: its settings are the later ones
                parts = self._parts
                self._go_on_with(*parts)

    def _go_on_with(
        self, settings: Settings, addresses: AddressResolver, limits: RateLimits, shedder: LoadShedder | None
    ) -> None:
        self.settings, self.addresses, self.enabled = settings, addresses, settings.enabled
        self._outages.settings = settings
        self.limits, self.shedder = limits, shedder
        self.concerns = self._concerns_in_order()
        self._always_route = self._counts_routes()
        # Replaced as one: a concern knows no scopes but those of its own settings.
        self._plans = RoutePlans(self.concerns, settings.scopes)

    def _counts_routes(self) -> bool:
        settings = self.settings
        return bool(
            settings.route_limits or settings.scopes or self.shedder or self._concerns or _counts_routes(settings.by)
        )

    @property
    def store(self) -> Store:
        """The store that is used where nothing names another."""
        return self.stores[DEFAULT]

    @store.setter
    def store(self, store: Store) -> None:
        self.stores[DEFAULT] = store

    def start(self) -> None:
        """Warm every store up in the background: for the running event loop if there is one, else for threads."""
        for store in self.stores.values():
            store.start()

    @property
    def needs_route(self) -> bool:
        """Whether any decision, or an event about it, depends on which view serves a request."""
        return bool(self._always_route or declared_version() or self.listeners.listening)

    def listen(self, listener: Listener) -> Callable[[], None]:
        """Call `listener` with each `failsoft.events` event. Returns a function that ends this."""
        return self.listeners.add(listener)

    def plan(self, facts: Facts) -> RoutePlan:
        """What applies to the request that `facts` describe."""
        return self._plans.of(facts)

    def check(self, route: Route, policies: Sequence[Policy], called: Sequence[Policy] = ()) -> Sequence[Question]:
        """See whether what is declared on a view can be enforced, before a request finds out. Returns what requests would be asked.

        Args:
            route: the view's.
            policies: those on the view.
            called: those on functions that are called on the way to it.

        Raises:
            ConfigurationError: it cannot, with these settings.
        """
        return self._plans.check(route, policies, called) if self.enabled else ()

    def begin(self, facts: Facts) -> Exchange:
        """The exchange of a request that just arrived."""
        return Exchange(self, facts, self._plans.of(facts) if self.enabled else self._without_limits(facts))

    def _without_limits(self, facts: Facts) -> RoutePlan:
        if self.sessions is None:
            return self._nothing
        policies = [policy for policy in collect(facts.targets()) if policy.concern == self.sessions.name]
        return RoutePlan((self.sessions,), Route(facts.method, facts.route), policies, late=False)

    def admit(self, exchange: Exchange) -> Rejected | None:
        """Decide about the request: at most one flight. Returns the refusal, or None."""
        plan = exchange.plan
        if plan.bounds or exchange.wanted:
            return sync.admit(exchange, plan, self.stores)
        exchange.enforced = plan.enforced
        return None

    async def aadmit(self, exchange: Exchange) -> Rejected | None:
        """The same, from a coroutine."""
        plan = exchange.plan
        if plan.bounds or exchange.wanted:
            return await aio.admit(exchange, plan, self.stores)
        exchange.enforced = plan.enforced
        return None

    async def amessage(self, opened: Exchange, facts: Facts) -> tuple[Exchange, Rejected | None]:
        """Decide about a message that came over the socket which the request of `opened` opened: at most one flight.

        Returns its exchange, and the refusal or None. The exchange is to be current for as long as the message is worked on, so
        that a limited function which is called meanwhile is charged for each message. There is no response: it is settled already.

        Args:
            opened: the request's exchange.
            facts: the request's, with what the user's functions are to know of the message.
        """
        opened.renew()  # it stays current in tasks that leave receiving to others
        exchange = Exchange(self, facts, self._plans.late(opened.plan.route, opened.plan.messages))
        exchange.enforced = opened.enforced
        rejected = await self.aadmit(exchange)
        if rejected is not None:
            await aio.write(exchange, exchange.settle(rejected.status), self.stores)
        exchange.settled = True
        memo = exchange.memo
        exchange.end()
        exchange.memo = memo  # what is reserved for the message is charged while it is worked on
        return exchange, rejected

    def enforce(self, exchange: Exchange, policies: Sequence[Policy], args: Any, kwargs: Any) -> None:
        """Enforce what was not enforced before the view. Raises `Rejected`."""
        policies = self._due(exchange, policies)
        if not policies:
            return
        self._may_wait(exchange, ", ".join(map(repr, policies)))
        exchange.plan.followed = True
        rejected = sync.admit(exchange, self._plans.late(exchange.plan.route, policies), self.stores, args, kwargs)
        if rejected is not None:
            raise rejected

    async def aenforce(self, exchange: Exchange, policies: Sequence[Policy], args: Any, kwargs: Any) -> None:
        """The same, from a coroutine."""
        policies = self._due(exchange, policies)
        if not policies:
            return
        exchange.plan.followed = True
        plan = self._plans.late(exchange.plan.route, policies)
        while plan.questions or plan.needs_user or exchange.asked:
            left = await aio.in_turn(exchange, plan, policies, args, kwargs)
            if not left:
                return
            if len(left) == len(policies):
                break
            policies = left
            plan = self._plans.late(exchange.plan.route, policies)  # after a reload it may ask something else
        with aio.asking(exchange, policies):
            if exchange.facts.synchronous:
                # The framework runs this coroutine on a loop of its own, only for this request: waiting harms nobody, and
                # a connection made on that loop would end with it.
                rejected = sync.admit(exchange, plan, self.stores)
            else:
                rejected = await aio.admit(exchange, plan, self.stores, asked=True)
        if rejected is not None:
            raise rejected

    def _due(self, exchange: Exchange, policies: Sequence[Policy]) -> Sequence[Policy]:
        """Those of `policies` that are to be enforced now; what is charged for messages waits for the next one."""
        if not self.enabled:
            return ()
        if exchange.facts.opens_socket and (waiting := [policy for policy in policies if policy.messages]):
            exchange.plan = exchange.plan.counting(waiting)
            exchange.enforced = exchange.enforced.union(waiting)
            return [policy for policy in policies if not policy.messages]
        return policies

    def _may_wait(self, exchange: Exchange, what: str) -> None:
        if self._blocking and in_event_loop() and not exchange.facts.synchronous:
            raise OutsideRequest(
                f"{what}: a plain function was called on the event loop, where asking the store would hold up every other request. "
                "Make the function async, or call it in a thread (await anyio.to_thread.run_sync(...))."
            )

    def write(self, exchange: Exchange, store: str, operations: Sequence[Operation]) -> None:
        """Write at once what belongs to a request that was settled. What a store that is away does not take is lost."""
        self._may_wait(exchange, "charge")
        sync.fly(exchange, self.stores, store, operations)

    async def awrite(self, exchange: Exchange, store: str, operations: Sequence[Operation]) -> None:
        """The same, from a coroutine."""
        if exchange.facts.synchronous:
            sync.fly(exchange, self.stores, store, operations)
        else:
            await aio.fly(exchange, self.stores, store, operations)

    def finish(self, exchange: Exchange, status: int) -> list[tuple[str, str]]:
        """Settle: at most one more flight. Returns the header fields to add to the response."""
        wanted = exchange.settle(status)
        if wanted:
            sync.write(exchange, wanted, self.stores)
        return self._fields(exchange)

    async def afinish(self, exchange: Exchange, status: int) -> list[tuple[str, str]]:
        """The same, from a coroutine."""
        wanted = exchange.settle(status)
        if wanted:
            await aio.write(exchange, wanted, self.stores)
        return self._fields(exchange)

    def _fields(self, exchange: Exchange) -> list[tuple[str, str]]:
        fields = exchange.headers()
        if exchange.degraded and self.settings.degraded_header:
            fields.append(("Degraded", ", ".join(f"{part};reason={why}" for part, why in exchange.degraded.items())))
        if fields and exchange.facts.header("origin") is not None:
            fields.append(("Access-Control-Expose-Headers", EXPOSED_FIELDS))
        return fields

    def answer(self, rejected: Rejected, accept: str | None) -> tuple[int, list[tuple[str, str]], bytes]:
        """A refusal as status, header fields and body, in the form that `accept` prefers."""
        content_type, body = render(rejected.problem, preferred_form(accept))
        headers = [("Content-Type", content_type), *refusal_fields(rejected)]
        return rejected.status, headers, body

    @property
    def _blocking(self) -> bool:
        return any(store.blocking for store in self.stores.values())

    def publish(self, event: Event) -> None:
        """Hand `event` to all listeners."""
        self.listeners.publish(event)

    def close(self) -> None:
        """Give back what this runtime holds. Requests that come later find no store."""
        for store in self.stores.values():
            store.close()
        if self._outside is not None:
            self._outside.__exit__(None, None, None)
            self._outside = None
        _runtimes.discard(self)


def _addresses(settings: Settings) -> AddressResolver:
    return AddressResolver(
        trusted_proxies=settings.trusted_proxies,
        ipv6_prefix=settings.ipv6_prefix,
        header=settings.forwarded_header,
    )


def refusal_fields(rejected: Rejected) -> list[tuple[str, str]]:
    """The header fields that belong to a refusal, whatever its body: a refusal must not be cached, and says when to return."""
    fields = [("Cache-Control", "no-store"), *rejected.headers]
    if rejected.retry_after is not None:
        fields.append(("Retry-After", str(rejected.retry_after)))
    return fields


def _counts_routes(by: Any) -> bool:
    return by == "route" or (isinstance(by, tuple | list) and any(map(_counts_routes, by)))
