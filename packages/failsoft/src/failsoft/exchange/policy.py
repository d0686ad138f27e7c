"""Declarations: what decorators put on views, and how a request finds them.

Rules:

- A declared policy is enforced once in a request, whatever stands around it: early, with everything else that the
  request needs, where the route is known; otherwise *late*, by the wrapper that every decorated function has, before its body.
- Decorating an already decorated function extends the declaration it has, so that a route which was registered in between
  sees the later policy too.
- A view that was registered before it was decorated (``@limit`` above ``@app.get``) is found through the function
  that both of them wrap.
- Called where no request is being served, a decorated function raises `OutsideRequest`, unless that was allowed.
"""

import asyncio
import functools
import inspect
from asyncio import coroutines
from collections.abc import AsyncIterator, Callable, Iterable, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from typing import TYPE_CHECKING, Any, ClassVar, TypeVar, cast
from weakref import WeakKeyDictionary, ref

from failsoft.errors import ConfigurationError, OutsideRequest
from failsoft.exchange.places import line_of, place_of

if TYPE_CHECKING:
    from collections.abc import Iterator

    from failsoft.exchange.exchange import Exchange

__all__ = [
    "OUTSIDE",
    "Declaration",
    "Policy",
    "Target",
    "allow_outside_request",
    "collect",
    "current",
    "declarations",
    "declare",
    "declared_version",
    "enter",
    "is_asynchronous",
    "leave",
    "outside_request_allowed",
]

Target = TypeVar("Target", bound=Callable[..., Any])

_ATTRIBUTE = "__failsoft__"
_DISPATCHERS = ("dispatch_request", "dispatch")
"""The method through which a class-based view serves: Flask's, then Django's, DRF's and Starlette's."""

OUTSIDE = (
    ". Is failsoft installed in the application? Flask needs Failsoft(app), Django failsoft_django.FailsoftMiddleware in MIDDLEWARE, "
    "Starlette and FastAPI app.add_middleware(FailsoftMiddleware). In a test or a job, use failsoft.testing.outside_request(), or set "
    'outside_request="allow".'
)
"""What a call outside of a request is told, behind what was called."""

_current: ContextVar["Exchange | None"] = ContextVar("failsoft_exchange", default=None)
enter = _current.set
leave = _current.reset
current = _current.get


class Policy:
    """Something declared on views. Subclasses are callable decorators; two policies are never equal."""

    concern: ClassVar[str]
    """The name of the concern that enforces it."""

    late: bool = False
    """Whether it can be enforced only when the view is about to run."""

    marker: bool = False
    """Whether it only informs, so that there is nothing to enforce."""

    messages: bool = False
    """Whether, over a socket, it is enforced with each message that comes, and not when the socket is opened."""

    for_helpers: bool = False
    """Whether it makes as much sense on a function that views call as on a view."""

    place: str = ""
    """Module and qualified name of what it was first put on."""

    position: int = -1
    """How many policies were on that already: tells those from each other that say the same."""

    def __call__(self, target: Target) -> Target:
        return declare(target, self)

    def fingerprint(self) -> object:
        """Equal for policies that say the same; used to recognise the same declaration made again."""
        return id(self)


class Declaration:
    """The policies on one function.

    Attributes:
        name: of what was decorated.
        wrapper: gives what took its place, or None if that is gone.
        over: gives what was decorated, or None if that is gone.
        policies: outermost first.
        enforceable: those that are not mere markers.
        attached: whether a route of some application was found to lead here.
        where: file and line, for people.
    """

    # It is filed under its function and must not keep that alive, so it holds neither the function nor the wrapper.
    __slots__ = ("attached", "enforceable", "name", "over", "policies", "where", "wrapper")

    def __init__(self, function: Callable[..., Any]) -> None:
        self.name = place_of(function)
        self.wrapper: Callable[[], Callable[..., Any] | None] = _gone
        self.over: Callable[[], Callable[..., Any] | None] = _gone
        self.policies: tuple[Policy, ...] = ()
        self.enforceable: frozenset[Policy] = frozenset()
        self.attached = False
        self.where = line_of(function)

    def add(self, policy: Policy) -> None:
        """Put `policy` outside of those already here."""
        if any(policy.fingerprint() == known.fingerprint() for known in self.policies):
            return
        self.policies = (policy, *self.policies)
        self.enforceable = frozenset(p for p in self.policies if not p.marker)


# By the innermost function, for views that were registered before they were decorated. Weak: dies with the function.
_by_function: WeakKeyDictionary[Callable[..., Any], list[Declaration]] = WeakKeyDictionary()
_version = 0
_outside_allowed = 0


def declared_version() -> int:
    """Changes whenever something is declared: plans made before are stale."""
    return _version


def _changed() -> None:
    global _version
    _version += 1


def declarations() -> Iterable[Declaration]:
    """Every declaration on a living function."""
    # Of the keys there is a list at once. Other threads may declare something meanwhile, in a module that is imported late.
    functions = [function for known in _by_function.keyrefs() if (function := known()) is not None]
    return [declaration for function in functions for declaration in _by_function.get(function, ())]


def outside_request_allowed() -> bool:
    """Whether what belongs into a request may be called outside of one."""
    return bool(_outside_allowed)


@contextmanager
def allow_outside_request() -> "Iterator[None]":
    """Within, a decorated function that is called outside a request runs, with nothing enforced."""
    global _outside_allowed
    _outside_allowed += 1
    try:
        yield
    finally:
        _outside_allowed -= 1


def is_asynchronous(function: Any) -> bool:
    """Whether calling `function` gives an awaitable, as far as can be told without calling it."""
    while isinstance(function, functools.partial):
        function = function.func
    if inspect.iscoroutinefunction(function):
        return True
    # Python 3.11 has no public way to see a function that was marked as one (asgiref's markcoroutinefunction).
    if getattr(function, "_is_coroutine", None) is getattr(coroutines, "_is_coroutine", NotImplemented):
        return True
    if inspect.isroutine(function) or inspect.isclass(function):
        return False
    return inspect.iscoroutinefunction(getattr(function, "__call__", None))  # noqa: B004 - asks whether calling it awaits


def declare(target: Target, policy: Policy) -> Target:
    """Put `policy` on a function, a method or a class-based view, and return what takes its place."""
    if isinstance(target, type):
        return cast(Target, _declare_on_class(target, policy))
    # Routers and applications are callable, and nobody calls what would be made of them here.
    several = hasattr(type(target), "url_path_for") or hasattr(type(target), "add_url_rule")
    if several or isinstance(target, staticmethod | classmethod) or not callable(target):
        if several:
            cure = "put it on the views, or say it of a part of the application in the setting scopes"
        else:
            cure = "put it below @staticmethod or @classmethod"
        raise ConfigurationError(
            f"{type(policy).__name__} decorates functions, methods and class-based views, not {target!r}; {cure}"
        )
    known = _declaration_of(target)
    innermost = _innermost(target)
    # Parts of its keys: without them, the limits of two views would meet, or two limits of one view.
    policy.place = policy.place or place_of(innermost)
    if policy.position < 0:
        policy.position = 0 if known is None else len(known.policies)
    if known is not None and known.wrapper() is target:
        known.add(policy)
        _changed()
        return target
    declaration = Declaration(target)
    for inherited in reversed(known.policies if known is not None else ()):
        declaration.add(inherited)  # copied here by functools.wraps in a decorator that stands between
    declaration.add(policy)
    wrapper = _wrap(target, declaration)
    declaration.wrapper = ref(wrapper)
    setattr(wrapper, _ATTRIBUTE, declaration)
    try:
        known_here = _by_function.setdefault(innermost, [])
        declaration.over = ref(target)
    except TypeError:  # cannot be weakly referenced: a built-in, an object with slots
        return cast(Target, wrapper)
    fingerprints = {p.fingerprint() for p in declaration.policies}
    if not any(fingerprints == {p.fingerprint() for p in other.policies} for other in known_here):
        known_here.append(declaration)
        _changed()  # only then: some decorators (Django's method_decorator) decorate anew with each request
    return cast(Target, wrapper)


def _declare_on_class(cls: type, policy: Policy) -> type:
    for name in _DISPATCHERS:
        method = getattr(cls, name, None)
        if method is not None:
            policy.place = policy.place or f"{cls.__module__}.{cls.__qualname__}"
            if name not in vars(cls):  # inherited: others use it too, so it must not be decorated itself
                method = _own(method)
            wrapper = declare(method, policy)
            setattr(cls, name, wrapper)
            if (declaration := _declaration_of(wrapper)) is not None:
                declaration.where = line_of(cls)
            return cls
    raise ConfigurationError(
        f"{cls.__module__}.{cls.__qualname__} is not a class-based view: it has none of the methods "
        f"{', '.join(_DISPATCHERS)}; decorate its methods instead"
    )


def _own(method: Callable[..., Any]) -> Callable[..., Any]:
    async def adispatch(self: Any, *args: Any, **kwargs: Any) -> Any:
        return await method(self, *args, **kwargs)

    def dispatch(self: Any, *args: Any, **kwargs: Any) -> Any:
        return method(self, *args, **kwargs)

    return adispatch if is_asynchronous(method) else dispatch


def collect(targets: Sequence[Any], *, filed: bool = True) -> tuple[Policy, ...]:
    """The policies on any of `targets`, outermost first, each once.

    Args:
        targets: views, classes and handlers.
        filed: where there is none on a target, whether those count that were put on its function after the target was registered.
    """
    found: dict[Policy, None] = {}
    for target in targets:
        own = _chain(target)
        if filed:
            # What was put on this very object after its route had it; and, on a bare function, whatever was put on it.
            found.update(
                dict.fromkeys(p for one in _filed(target) if not own or one.over() is target for p in one.policies)
            )
        found.update(dict.fromkeys(own))
    return tuple(found)


def _filed(target: Any) -> Sequence[Declaration]:
    try:
        return _by_function.get(_innermost(target), ())
    except TypeError:  # cannot be weakly referenced, so nothing was filed under it
        return ()


def _chain(target: Any) -> list[Policy]:
    """Policies on `target` and on whatever it says that it wraps."""
    policies: list[Policy] = []
    seen: set[int] = set()
    while target is not None and id(target) not in seen:
        seen.add(id(target))
        declaration = _declaration_of(target)
        if declaration is not None:
            policies.extend(declaration.policies)
        if isinstance(target, type):
            for name in _DISPATCHERS:
                if (method := getattr(target, name, None)) is not None:
                    policies.extend(_chain(method))
            break
        target = _next(target)
    return policies


def _next(target: Any) -> Any:
    if isinstance(target, functools.partial):
        return target.func
    return getattr(target, "__wrapped__", None) or getattr(target, "__func__", None)


def _innermost(target: Any) -> Any:
    seen: set[int] = set()
    while id(target) not in seen:
        seen.add(id(target))
        following = _next(target)
        if following is None:
            return target
        target = following
    return target


def _declaration_of(target: Any) -> Declaration | None:
    found = getattr(target, _ATTRIBUTE, None)
    return found if isinstance(found, Declaration) else None


def _gone() -> None:
    return None


def _missing(declaration: Declaration, exchange: "Exchange | None") -> list[Policy]:
    """What of `declaration` has not been enforced in this request yet."""
    if exchange is None:
        if not declaration.enforceable or _outside_allowed:
            return []
        names = ", ".join(type(p).__name__ for p in declaration.policies)
        raise OutsideRequest(
            f"{declaration.name} ({declaration.where}) is decorated ({names}) and was called where no request is "
            f"being served{OUTSIDE}"
        )
    return [p for p in declaration.policies if not p.marker and p not in exchange.enforced]


def _enforce(declaration: Declaration, args: Any, kwargs: Any) -> None:
    exchange = current()
    missing = _missing(declaration, exchange)
    if missing and exchange is not None:
        exchange.engine.enforce(exchange, missing, args, kwargs)


def _on_event_loop() -> bool:
    try:
        asyncio.get_running_loop()
    except RuntimeError:
        return False
    return True


def _wrap(function: Callable[..., Any], declaration: Declaration) -> Callable[..., Any]:
    """A function that enforces `declaration` before `function` runs. Each shape of function keeps its shape."""
    if is_asynchronous(function):

        @functools.wraps(function)
        async def wrapper(*args: Any, **kwargs: Any) -> Any:
            exchange = current()
            # The usual case, everything enforced early, costs one subset test.
            if exchange is None or not declaration.enforceable <= exchange.enforced:
                missing = _missing(declaration, exchange)
                if missing and exchange is not None:
                    await exchange.engine.aenforce(exchange, missing, args, kwargs)
            return await function(*args, **kwargs)

    elif inspect.isasyncgenfunction(function):

        @functools.wraps(function)
        async def wrapper(*args: Any, **kwargs: Any) -> AsyncIterator[Any]:
            exchange = current()
            missing = _missing(declaration, exchange)
            if missing and exchange is not None:
                await exchange.engine.aenforce(exchange, missing, args, kwargs)
            # All that happens at a yield goes in, as with `yield from`: a FastAPI dependency rolls back there.
            generator = function(*args, **kwargs)
            step = anext(generator)
            while True:
                try:
                    item = await step
                except StopAsyncIteration:
                    return
                try:
                    sent = yield item
                except GeneratorExit:
                    await generator.aclose()
                    raise
                except BaseException as error:
                    step = generator.athrow(error)
                else:
                    step = generator.asend(sent)

    elif inspect.isgeneratorfunction(function):

        def begun(args: Any, kwargs: Any) -> Any:
            _enforce(declaration, args, kwargs)
            return (yield from function(*args, **kwargs))

        @functools.wraps(function)
        def wrapper(*args: Any, **kwargs: Any) -> Any:
            exchange = current()
            # FastAPI calls such a dependency on the event loop and takes from it in a thread, where waiting is allowed.
            if exchange is not None and not exchange.facts.synchronous and _on_event_loop():
                return begun(args, kwargs)
            _enforce(declaration, args, kwargs)
            return function(*args, **kwargs)

    else:

        @functools.wraps(function)
        def wrapper(*args: Any, **kwargs: Any) -> Any:
            exchange = current()
            if exchange is None or not declaration.enforceable <= exchange.enforced:
                missing = _missing(declaration, exchange)
                if missing and exchange is not None:
                    exchange.engine.enforce(exchange, missing, args, kwargs)
            return function(*args, **kwargs)

    return wrapper
