"""What no route leads to, in a process with several applications."""

import gc
import sys
from collections.abc import Iterator, Sequence
from threading import Event, Thread
from typing import Any

import pytest

from failsoft import limit
from failsoft.exchange import Declaration, collect, declarations, unattached
from failsoft.exchange.applications import installed, serves


class Application:
    """One with these views; it notes how often it is asked for them."""

    def __init__(self, *views: Any) -> None:
        self.views = list(views)
        self.asked = 0

    def targets(self) -> Iterator[Sequence[Any]]:
        self.asked += 1
        return iter([(view,) for view in self.views])


def view() -> Any:
    """One that has a limit; a new one each time."""

    @limit("1/minute")
    def view() -> None: ...

    return view


def of(view: Any) -> Declaration:
    """The declaration on a view."""
    return next(one for one in declarations() if one.policies == collect([view]))


def test_of_one_that_serves_nothing_yet() -> None:
    """What its routes lead to is not lost for others, not even where it gets the route after it was asked."""
    application, early, late = Application(), view(), view()
    installed(application, Application.targets)
    application.views.append(early)
    lost = unattached([])
    assert (False, True) == (of(early) in lost, of(late) in lost)
    application.views.append(late)
    assert of(late) not in unattached([])


def test_of_one_that_serves() -> None:
    """It is not asked again; what it had when it looked itself stays known."""
    application, served, lost = Application(view()), view(), view()
    installed(application, Application.targets)
    serves(application)
    unattached([(served,)])
    found = unattached([])
    assert (0, False, True) == (application.asked, of(served) in found, of(lost) in found)


def test_of_one_that_is_gone() -> None:
    """It is not kept alive, and what only it led to is lost."""
    application, lost = Application(view()), view()
    application.views.append(lost)
    installed(application, Application.targets)
    del application
    gc.collect()
    assert of(lost) in unattached([])


@pytest.fixture
def eager() -> Iterator[None]:
    """Threads take turns as often as they can."""
    interval = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    yield
    sys.setswitchinterval(interval)


def test_while_others_declare(eager: None) -> None:
    """Whoever looks is not disturbed by a thread that declares, as where a module is imported late."""
    over = Event()
    kept = [view() for _ in range(300)]

    def declare() -> None:
        while not over.is_set():
            for one in [view() for _ in range(100)]:
                installed(one, lambda one: [(one,)])

    thread = Thread(target=declare)
    thread.start()
    try:
        for _ in range(80):
            unattached([])
    finally:
        over.set()
        thread.join()
    assert {of(one) for one in kept} <= set(unattached([]))
