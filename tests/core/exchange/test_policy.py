"""Declarations: what decorators leave on functions, how a request finds it, and that no shape of function changes."""

import asyncio
import functools
import gc
import inspect
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager
from typing import Any
from unittest.mock import Mock
from weakref import ref

import pytest

from failsoft import ConfigurationError, OutsideRequest, RateLimited, exempt, limit
from failsoft.exchange import collect, declarations, unattached
from failsoft.exchange.policy import allow_outside_request, declared_version, is_asynchronous
from tests.core.requests import FakeFacts, make_runtime, serve, serving


def plain(policy: Any) -> Any:
    """A view with one policy; a new function each time."""

    @policy
    def view(*args: Any, **kwargs: Any) -> Any:
        return args, kwargs

    return view


def test_policies_are_found_outermost_first() -> None:
    """Stacked decorators are found in the order in which they are written."""
    outer, inner = limit("1/minute"), limit("2/minute")

    @outer
    @inner
    def view() -> None: ...

    assert (outer, inner) == collect([view])


def test_policies_under_another_decorator_are_found() -> None:
    """A decorator with `wraps` in between hides nothing, and what is below it is found once."""
    outer, inner = limit("1/minute"), limit("2/minute")

    def between(function: Any) -> Any:
        @functools.wraps(function)
        def wrapper() -> Any:
            return function()

        return wrapper

    @outer
    @between
    @inner
    def view() -> None: ...

    assert (outer, inner) == collect([view])


def test_partial_and_bound_method_are_seen_through() -> None:
    """A partial, and a method of an instance, carry what their function carries."""
    policy = limit("1/minute")

    class Views:
        @policy
        def method(self) -> None: ...

    view = plain(policy)
    assert (policy,) == collect([functools.partial(view, 1)])
    assert (policy,) == collect([Views().method])


def test_decorated_after_it_was_registered() -> None:
    """A view that was registered without its decorator is found through the function; on request only what it carries itself."""

    def view() -> None: ...

    policy = limit("1/minute")
    before = declared_version()
    policy(view)
    assert (policy,) == collect([view])
    assert () == collect([view], filed=False)
    assert declared_version() > before


def test_later_decorator_extends_what_a_route_has() -> None:
    """Decorating the decorated function in place adds to what was registered before."""
    first, second = limit("1/minute"), limit("2/minute")
    registered = plain(first)
    assert registered is second(registered)
    assert (second, first) == collect([registered])


def test_same_policy_again_is_one() -> None:
    """The same declaration made twice on a function is one, and plans stay valid."""
    view = plain(limit("1/minute", by="user"))
    limit("1/minute", by="user")(view)
    assert 1 == len(collect([view]))


def test_each_limit_of_a_view_has_its_own_counter() -> None:
    """Two views with the same stacked limits on one template, and two limits that differ only in what is not counted, never meet."""
    views = []
    for name in ("one", "two"):

        def view() -> None: ...

        view.__qualname__ = name
        for decorator in (limit("9/minute"), limit("9/minute", on_outage="open"), limit("9/minute", name="third")):
            view = decorator(view)
        views.append(view)
    runtime = make_runtime()
    fields = [dict(serve(runtime, FakeFacts(view))[2])["RateLimit"] for view in views]
    assert ['"third";r=8;t=60, "9-per-minute";r=8;t=60, "9-per-minute-2";r=8;t=60'] * 2 == fields


def test_class_based_view() -> None:
    """A policy on a class is its dispatching method's, and not that of the class it inherits from."""

    class Base:
        def dispatch_request(self, value: int) -> int:
            return value

    policy, own = limit("1/minute"), limit("2/minute")

    @policy
    class View(Base):
        pass

    @own
    class Own(Base):
        def dispatch_request(self, value: int) -> int:
            return value + 1

    assert [(policy,), (own,), ()] == [collect([one]) for one in (View, Own, Base)]
    runtime = make_runtime()
    with serving(runtime, FakeFacts(View)) as exchange:
        assert None is runtime.admit(exchange)
        assert (7, 7) == (View().dispatch_request(7), Base().dispatch_request(7))
    with serving(runtime, FakeFacts()), pytest.raises(RateLimited):
        View().dispatch_request(7)


def test_class_whose_methods_wrap_what_is_no_function() -> None:
    """A partial, or an object that is called, has no code to look at; nor has what wraps itself."""

    def made(inner: Any) -> Any:
        def method(self: Any) -> int:
            return 7

        method.__wrapped__ = method if inner is None else inner  # type: ignore[attr-defined]  # what functools.wraps does
        return method

    for inner in (functools.partial(int, 7), object(), None):
        policy = limit("1/minute")
        view = policy(type("View", (), {"dispatch_request": made(inner)}))
        assert (policy,) == collect([view])


@pytest.mark.parametrize("target", [staticmethod(len), classmethod(len), 3, type("NoView", (), {})])
def test_what_is_no_view_is_refused(target: Any) -> None:
    """Putting a limit on what can serve nothing is an error at once."""
    with pytest.raises(ConfigurationError):
        limit("1/minute")(target)


def test_a_view_that_looks_like_a_router() -> None:
    """What is callable may have attributes of any name, as a view's object of its own or a mock has."""

    class View:
        def __init__(self) -> None:
            self.routes = ["here", "there"]

        def __call__(self) -> None: ...

    for view in (View(), Mock()):
        policy = limit("1/minute")
        assert (policy,) == collect([policy(view)])


def test_builtin_can_be_decorated() -> None:
    """A function that cannot be weakly referenced is limited all the same."""

    class Callable:
        __slots__ = ()

        def __call__(self) -> int:
            return 7

    view = limit("1/minute")(Callable())
    runtime = make_runtime()
    statuses = []
    for _ in range(2):
        with serving(runtime, FakeFacts()):
            try:
                statuses.append(view())
            except RateLimited:
                statuses.append(429)
    assert [7, 429] == statuses


def test_outside_a_request() -> None:
    """Without a request a limited function raises, and says where it is; where that is allowed, it runs."""
    view = plain(limit("1/minute"))
    with pytest.raises(OutsideRequest, match=r"test_policy\.py:\d+.*Flask needs Failsoft\(app\), Django"):
        view()
    with allow_outside_request():
        assert ((1,), {"two": 2}) == view(1, two=2)
    with pytest.raises(OutsideRequest):
        view()


def test_exempt_view_outside_a_request() -> None:
    """A mere exemption has nothing to enforce, so its view can be called anywhere."""
    assert ((1,), {}) == plain(exempt)(1)


def test_decorated_functions_die() -> None:
    """A function that was decorated and is gone leaves nothing behind, however many there are."""
    gc.collect()
    before = len(list(declarations()))
    views = [plain(limit("1/minute")) for _ in range(50)]
    functions = [ref(view.__wrapped__) for view in views]
    assert before + 50 <= len(list(declarations()))
    views.clear()
    gc.collect()
    assert [None] * 50 == [function() for function in functions]
    assert before >= len(list(declarations()))


def test_unattached() -> None:
    """A declaration that no route leads to is named; helpers with a shared name and late limits are not."""
    served, lost = plain(limit("1/minute")), plain(limit("2/minute"))
    helper = plain(limit("3/minute", shared="helper"))
    found = [
        one for one in unattached([[served]]) if one.policies in [collect([view]) for view in (served, lost, helper)]
    ]
    assert [collect([lost])] == [one.policies for one in found]
    assert "test_policy.py:" in found[0].where


class Awaitable:
    async def __call__(self) -> None: ...


async def _coroutine() -> None: ...


@pytest.mark.parametrize(
    ("function", "expected"),
    [
        (_coroutine, True),
        (functools.partial(_coroutine), True),
        (functools.partial(functools.partial(_coroutine)), True),
        (Awaitable(), True),
        (Awaitable, False),
        (len, False),
        (lambda: _coroutine(), False),
        (7, False),
    ],
)
def test_is_asynchronous(function: Any, expected: bool) -> None:
    """Coroutine functions are told from others, through partials and callable objects, without being called."""
    assert expected is is_asynchronous(function)


def test_shapes_are_kept() -> None:
    """A decorated function is what it was: plain, a coroutine function, an async generator function; with name and signature."""

    def function(one: int, *, two: str = "") -> None: ...
    async def coroutine(one: int) -> None: ...
    async def generator(one: int) -> AsyncIterator[int]:
        yield one

    for tell, original in (
        (inspect.iscoroutinefunction, coroutine),
        (inspect.isasyncgenfunction, generator),
        (inspect.isfunction, function),
    ):
        decorated = limit("1/minute")(original)
        assert tell(decorated)
        assert (original.__name__, inspect.signature(original)) == (decorated.__name__, inspect.signature(decorated))


def test_generator_function_is_limited_when_called() -> None:
    """A generator function is limited at the call, before anything is drawn from it."""

    @limit("1/minute")
    def pieces() -> Iterator[int]:
        yield 1

    runtime = make_runtime()
    with serving(runtime, FakeFacts()):
        assert [1] == list(pieces())
    with serving(runtime, FakeFacts()), pytest.raises(RateLimited):
        pieces()


def test_async_generator_sees_what_happens_at_its_yield() -> None:
    """An error thrown at the yield reaches the function, as it must where a dependency rolls back; so does what is sent, and the end."""
    log: list[str] = []

    @limit("9/minute")
    async def dependency() -> AsyncIterator[str]:
        try:
            log.append(f"sent {(yield 'resource')}")  # type: ignore[misc]  # what a generator may be sent
            yield "more"
        except KeyError as error:
            log.append(f"rolled back {error}")
            raise
        finally:
            log.append("closed")

    async def run() -> None:
        with pytest.raises(KeyError):
            async with asynccontextmanager(dependency)():
                raise KeyError("bug")
        generator = dependency()
        assert "resource" == await anext(generator)
        assert "more" == await generator.asend("word")  # type: ignore[attr-defined]  # it is a generator
        await generator.aclose()  # type: ignore[attr-defined]  # likewise
        with pytest.raises(StopAsyncIteration):
            await anext(generator)

    with serving(make_runtime(), FakeFacts()):
        asyncio.run(run())
    assert ["rolled back 'bug'", "closed", "sent word", "closed"] == log


def test_sync_generator_sees_what_happens_at_its_yield() -> None:
    """The same for a plain generator."""
    log: list[str] = []

    @limit("9/minute")
    def dependency() -> Iterator[str]:
        try:
            yield "resource"
        except KeyError:
            log.append("rolled back")
            raise

    with serving(make_runtime(), FakeFacts()), pytest.raises(KeyError), contextmanager(dependency)():
        raise KeyError("bug")
    assert ["rolled back"] == log


def test_above_a_route_that_has_a_decorated_view() -> None:
    """A limit above the route counts although the view that the route has carries limits of its own, behind a decorator."""

    def logged(function: Callable[..., Any]) -> Callable[..., Any]:
        @functools.wraps(function)
        def inner(*args: Any, **kwargs: Any) -> Any:
            return function(*args, **kwargs)

        return inner

    below, above = limit("5/minute"), limit("1/minute")

    def view() -> None: ...

    registered = logged(below(view))
    kept = above(registered)
    assert {above, below} == set(collect([registered]))
    assert {above, below} == set(collect([kept]))


def test_one_function_decorated_for_each_of_two_routes() -> None:
    """A function that is decorated twice, each for a route of its own, has on each route only the limit made for it."""

    def view() -> None: ...

    free, paid = limit("5/minute"), limit("500/minute")
    on_free, on_paid = free(view), paid(view)
    assert (free,) == collect([on_free])
    assert (paid,) == collect([on_paid])
