"""How long requests waited, and which of them waited too long."""

import math
import random
import socket
import sys
import time
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from failsoft.address import AddressResolver
from failsoft.ratelimit.shedding.waiting import TOLERANCE, RequestStart, Waiting, on_socket
from tests.core.requests import FakeFacts
from tests.servers import poll

RANKS = range(4)
SHEDDABLE, SHEDDABLE_PLUS, CRITICAL, CRITICAL_PLUS = RANKS


def ask(waiting: Waiting, waited: float, *, now: float, mean: float = 0.1) -> list[bool]:
    """Whether a request of each class would be late; they all come at the same time."""
    return [waiting.late(waited, rank=rank, mean=mean, now=now) for rank in RANKS]


def stand(waiting: Waiting, waited: float, *, start: float = 0.0, mean: float = 0.1) -> float:
    """Let requests come for a second that all waited; returns when it is over."""
    for step in range(11):
        ask(waiting, waited, now=start + step / 10, mean=mean)
    return start + 1.0


@pytest.mark.parametrize(
    ("waited", "expected"),
    [
        (0.1, [False, False, False, False]),
        (0.11, [True, False, False, False]),
        (0.21, [True, True, False, False]),
        (0.41, [True, True, True, False]),
        (0.81, [True, True, True, True]),
    ],
)
def test_classes_tolerate_more_the_higher(waited: float, expected: list[bool]) -> None:
    """Where the queue is standing, each class is refused that waited longer than so many times what requests take."""
    waiting = Waiting()
    now = stand(waiting, 5.0)
    assert expected == ask(waiting, waited, now=now)


def test_a_burst_is_served() -> None:
    """Requests that waited long are served, however long, if for less than a second one after another did."""
    waiting = Waiting()
    for step in range(10):
        assert [False] * 4 == ask(waiting, 9.0, now=step / 10)
    assert [False] * 4 == ask(waiting, 0.0, now=0.95)
    assert [False] * 4 == ask(waiting, 9.0, now=1.5)


def test_a_queue_is_gone_when_for_a_second_nobody_waited() -> None:
    """A standing queue stays one until nobody waited too long for a second; then it takes another second to be one again."""
    waiting = Waiting()
    now = stand(waiting, 5.0)
    assert [False] * 4 == ask(waiting, 0.0, now=now + 0.1)
    assert [True] * 4 == ask(waiting, 5.0, now=now + 0.9)
    assert [False] * 4 == ask(waiting, 0.0, now=now + 1.0)
    assert [False] * 4 == ask(waiting, 0.0, now=now + 2.0)
    assert [False] * 4 == ask(waiting, 5.0, now=now + 2.1)


@pytest.mark.parametrize("gap", [1.0, 3600.0])
def test_a_quiet_time_ends_it(gap: float) -> None:
    """After a time without requests, nothing is left of what was, neither of a standing queue nor of one that began."""
    waiting = Waiting()
    now = stand(waiting, 5.0)
    assert [False] * 4 == ask(waiting, 5.0, now=now + gap)
    waiting = Waiting()
    ask(waiting, 5.0, now=0.0)
    assert [False] * 4 == ask(waiting, 5.0, now=gap)


def test_slow_requests_take_longer_to_be_a_queue() -> None:
    """Where requests take seconds, those behind one of them wait for seconds: a queue is one that stands longer than that."""
    waiting = Waiting()
    verdicts = [waiting.late(20.0, rank=SHEDDABLE, mean=5.0, now=5.0 * number) for number in range(4)]
    assert [False, False, True, True] == verdicts


def test_tolerance_has_bounds() -> None:
    """Waits below 20 ms are not measured well, and nobody waits for longer than some seconds, however long requests take."""
    waiting = Waiting()
    now = stand(waiting, 60.0, mean=0.001)
    assert [False] * 4 == ask(waiting, 0.02, now=now, mean=0.001)
    assert [True, False, False, False] == ask(waiting, 0.024, now=now, mean=0.001)
    waiting = Waiting()
    for step in range(101):
        ask(waiting, 60.0, now=step / 5, mean=10.0)
    assert [True, False, False, False] == ask(waiting, 1.5, now=20.0, mean=10.0)
    assert [True] * 4 == ask(waiting, 8.5, now=20.0, mean=10.0)


def test_nobody_is_late_before_anything_is_known() -> None:
    """As long as nobody knows how long requests take, nobody waited too long."""
    waiting = Waiting()
    stand(waiting, 60.0, mean=0.0)
    assert [False] * 4 == ask(waiting, 60.0, now=1.0, mean=0.0)


@settings(deadline=None)
@given(seed=st.integers(0, 2**32), mean=st.floats(0.001, 3))
def test_higher_classes_are_never_refused_first(seed: int, mean: float) -> None:
    """Whatever the waits: who waited no longer than his class tolerates is not late, and a class is late only if all below it are."""
    draw = random.Random(seed)
    waiting = Waiting()
    now = 0.0
    for _ in range(100):
        now += draw.choice([0.001, 0.1, 0.7, 3.0])
        waited = draw.choice([0.0, 0.01, 0.1, 1.0, 10.0]) * draw.random()
        verdicts = ask(waiting, waited, now=now, mean=mean)
        assert sorted(verdicts, reverse=True) == verdicts
        unit = min(max(mean, 0.02), 1.0)
        assert not any(late and waited <= unit * factor for late, factor in zip(verdicts, TOLERANCE, strict=True))


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux says when data arrived")
@pytest.mark.parametrize("key", ["gunicorn.socket", "werkzeug.socket"])
def test_the_kernel_says_how_long_a_request_waited(key: str) -> None:
    """The age of what arrived last is what the request waited: in the kernel's queue as in the server's, from the last data on."""
    with socket.create_server(("127.0.0.1", 0)) as listener, socket.create_connection(listener.getsockname()) as client:
        client.sendall(b"GET / HTTP/1.1\r\n\r\n")
        began = time.monotonic()
        connection, _ = listener.accept()
        with connection:
            poll(lambda: (on_socket({key: connection}) or 0) > 0.05)
            waited = on_socket({key: connection})
            assert waited is not None
            assert 0.05 < waited < time.monotonic() - began + 0.05
            client.sendall(b"x")
            poll(lambda: (on_socket({key: connection}) or 0) < waited)


def test_where_nobody_can_tell() -> None:
    """No environment, no socket in it, a Unix socket, or something else: nobody knows, and nothing fails."""
    one, other = socket.socketpair()
    with one, other:
        environs: list[Any] = [None, {}, {"gunicorn.socket": one}, {"gunicorn.socket": object()}]
        assert [None] * 4 == [on_socket(environ) for environ in environs]


PROXY, CLIENT = "10.0.0.1", "198.51.100.7"
NOW = 1_700_000_000.0


def started(*values: str, peer: str = PROXY) -> FakeFacts:
    """A request with these lines of the header field."""
    return FakeFacts(address=peer, headers={"x-request-start": list(values)})


def reader() -> RequestStart:
    """One that has seen a request which did not wait."""
    start = RequestStart("X-Request-Start", AddressResolver(trusted_proxies=["10.0.0.0/8"]))
    assert 0.0 == start.waited(started(f"t={NOW:.3f}"), NOW)
    return start


@pytest.mark.parametrize(
    "text",
    [
        "t=1699999999.500",
        "1699999999.5",
        "1699999999500",
        "t=1699999999500",
        "t=1699999999500000",
        " t=1699999999.500 ",
        "t=1600000000.000, t=1699999999.500",
    ],
)
def test_forms_of_the_field(text: str) -> None:
    """Seconds, milliseconds and microseconds are understood; of several values the last, which the nearest proxy wrote, counts."""
    assert pytest.approx(0.5) == reader().waited(started(text), NOW)
    assert pytest.approx(0.5) == reader().waited(started("t=1600000000.000", text), NOW)


@pytest.mark.parametrize(
    "text",
    [
        "",
        "t=",
        "yesterday",
        "t=-1699999999.5",
        "t=1699999999.5s",
        "0",
        "t=1e9",
        "9" * 400,
        "t=1600000000",
        "t=1²",
        "NaN",
    ],
)
def test_what_is_no_time(text: str) -> None:
    """What is no time, or is one of another day, says nothing."""
    assert None is reader().waited(started(text), NOW)


def test_only_trusted_proxies_are_believed() -> None:
    """A client cannot say how long it waited, and so have others refused."""
    start = reader()
    assert None is start.waited(started("t=1699999990.0", peer=CLIENT), NOW)
    assert None is start.waited(FakeFacts(address=PROXY), NOW)
    assert 10.0 == start.waited(started("t=1699999990.0"), NOW)


@pytest.mark.parametrize("skew", [-30.0, -0.05, 0.05, 30.0])
def test_clocks_that_differ(skew: float) -> None:
    """Where the proxy's clock is wrong, only what is longer than the shortest wait counts."""
    start = RequestStart("X-Request-Start", AddressResolver(trusted_proxies=["10.0.0.0/8"]))
    waits = [
        start.waited(started(f"t={NOW + at + skew:.6f}"), NOW + at + waited) for at, waited in enumerate([0.1, 0, 0.2])
    ]
    assert [0.0, 0.0, pytest.approx(0.2, abs=1e-5)] == waits


def test_a_clock_that_is_put_right() -> None:
    """Ten minutes after the proxy's clock was put right by a second, waits are right again."""
    start = reader()
    for minute in range(11):
        now = NOW + 60 * minute
        waited = start.waited(started(f"t={now - 1:.3f}"), now)
    assert 0.0 == waited
    assert math.isclose(0.25, start.waited(started(f"t={now - 1.25:.3f}"), now) or 0, abs_tol=1e-3)
