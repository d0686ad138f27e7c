"""Listeners: who hears, in which order, and that nobody's mistake is anybody else's."""

import logging
import sys
from dataclasses import FrozenInstanceError
from threading import Barrier, Thread

import pytest

from failsoft import Event, StoreDegraded, StoreRecovered
from failsoft.events import Listeners

EVENT = StoreDegraded("default", "timeout")


def test_everybody_hears_in_order() -> None:
    """Each listener is handed each event, in the order in which they came."""
    listeners, heard = Listeners(), list[tuple[str, Event]]()
    listeners.add(lambda event: heard.append(("first", event)))
    listeners.add(lambda event: heard.append(("second", event)))
    listeners.publish(EVENT)
    assert [("first", EVENT), ("second", EVENT)] == heard


def test_a_listener_that_fails(caplog: pytest.LogCaptureFixture) -> None:
    """What a listener raises is logged, reaches neither the publisher nor the other listeners."""
    listeners, heard = Listeners(), list[Event]()

    def broken(event: Event) -> None:
        raise ZeroDivisionError

    listeners.add(broken)
    listeners.add(heard.append)
    with caplog.at_level(logging.ERROR, "failsoft"):
        listeners.publish(EVENT)
    assert [EVENT] == heard
    assert ["a listener failed on StoreDegraded(store='default', reason='timeout')"] == [
        one.getMessage() for one in caplog.records
    ]


def test_no_listener() -> None:
    """Without listeners they are false, so that no event need be made."""
    listeners = Listeners()
    remove = listeners.add(print)
    assert listeners
    remove()
    remove()
    assert not listeners


def test_each_addition_is_removed_by_itself() -> None:
    """A listener that was added twice hears twice, and once after one removal."""
    listeners, heard = Listeners(), list[Event]()
    remove = listeners.add(heard.append)
    listeners.add(heard.append)
    remove()
    remove()
    listeners.publish(EVENT)
    assert [EVENT] == heard


def test_a_listener_that_removes_itself() -> None:
    """Leaving while an event is handed out changes nothing for the others."""
    listeners, heard = Listeners(), list[Event]()

    def once(event: Event) -> None:
        heard.append(event)
        remove()

    remove = listeners.add(once)
    listeners.add(heard.append)
    listeners.publish(EVENT)
    listeners.publish(EVENT)
    assert [EVENT] * 3 == heard


def test_nobody_is_lost_between_threads() -> None:
    """Listeners that are added and removed by threads at once are all there, or all gone."""
    listeners, barrier = Listeners(), Barrier(8)
    stay: list[Event] = []

    def come_and_go() -> None:
        barrier.wait()
        for _ in range(300):
            listeners.add(lambda event: None)()
        listeners.add(stay.append)

    threads = [Thread(target=come_and_go) for _ in range(8)]
    interval = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    try:
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    finally:
        sys.setswitchinterval(interval)
    listeners.publish(EVENT)
    assert ([EVENT] * 8, 8) == (stay, len(listeners.listening))


def test_events_are_frozen_values() -> None:
    """An event is the same for everybody who hears it."""
    with pytest.raises(FrozenInstanceError):
        EVENT.reason = "open"  # type: ignore[misc]  # the point
    assert StoreDegraded("default", "timeout") == EVENT
    assert StoreRecovered("default", 1.0) != StoreRecovered("default", 2.0)


def test_what_was_said_of_an_outage_makes_no_difference() -> None:
    """The words that come with a reason are for people: events are the same without them, and look the same."""
    told = StoreDegraded("default", "timeout", "timeout, no whole reply in 0.1 s")
    assert ("timeout, no whole reply in 0.1 s", "") == (told.detail, EVENT.detail)
    assert (EVENT, repr(EVENT), hash(EVENT)) == (told, repr(told), hash(told))
