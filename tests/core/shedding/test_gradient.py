"""What is learned from how long requests take: Gradient2, for each route by itself."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from failsoft.ratelimit.shedding.gradient import Gradient, Usual, Windows

TOOK = st.floats(min_value=0.001, max_value=10)


class Model:
    """Gradient2 as its authors describe it, for one kind of request, with averages of windows as samples."""

    def __init__(self, *, least: int, most: int) -> None:
        self.least, self.most = least, most
        self.limit = float(min(max(20, least), most))
        self.samples: list[float] = []
        self.long = 0.0

    def sample(self, took: float, in_flight: int) -> None:
        self.samples.append(took)
        if len(self.samples) <= 10:
            self.long = sum(self.samples) / len(self.samples)
        else:
            self.long = self.long * (1 - 2 / 601) + took * 2 / 601
        long = self.long
        if long / took > 2:
            self.long *= 0.95
        if in_flight >= self.limit / 2:
            gradient = max(0.5, min(1.0, 1.5 * long / took))
            self.limit = self.limit * 0.8 + (self.limit * gradient + 4) * 0.2
            self.limit = max(self.least, min(self.most, self.limit))


def close(windows: Windows, number: int, *, spent: float = 0.0, crowded: float = 0.0) -> None:
    """End the window `number` of many, one second each."""
    windows.close(float(number), spent=spent, crowded=crowded)


@settings(deadline=None)
@given(
    least=st.integers(1, 50),
    more=st.integers(0, 300),
    samples=st.lists(st.tuples(TOOK, st.integers(1, 400)), max_size=60),
)
def test_one_route_is_gradient2(least: int, more: int, samples: list[tuple[float, int]]) -> None:
    """With one route, the limit is that of Gradient2, whatever happens."""
    gradient = Gradient(least=least, most=least + more)
    windows = Windows(gradient)
    model = Model(least=least, most=least + more)
    for number, (took, in_flight) in enumerate(samples, 1):
        for _ in range(3):
            windows.add(windows.usual("/"), took, in_flight)
        close(windows, number)
        model.sample(took, in_flight)
        assert pytest.approx(model.limit) == gradient.limit
        assert least <= gradient.limit <= least + more
    if samples:
        assert pytest.approx(model.long) == windows.usual("/").long


def test_limit_begins_at_twenty_or_where_it_may() -> None:
    """The limit begins at 20, as far as the least and the most allow."""
    assert [20, 30, 10] == [Gradient(least=n, most=m).limit for n, m in ((1, 200), (30, 200), (1, 10))]


def test_a_change_in_what_is_asked_changes_nothing() -> None:
    """Cheap requests, then dear ones, then cheap ones again: as long as each takes what it usually does, the limit only grows."""
    gradient = Gradient(least=1, most=200)
    windows = Windows(gradient)
    changes = ((100, 100), (1000, 1), (1, 1000), (1000, 0), (0, 100)) * 5
    for number, (cheap, dear) in enumerate(changes, 1):
        for took, count in ((0.002, cheap), (2.0, dear)):
            for _ in range(count):
                windows.add(windows.usual(took), took, 200)
        before = gradient.limit
        close(windows, number)
        assert gradient.limit > before


def test_one_route_that_becomes_slow_lowers_the_limit() -> None:
    """Requests that take four times as long as they usually do lower it, beside others that take no longer."""
    gradient = Gradient(least=1, most=200)
    windows = Windows(gradient)
    for number in range(1, 60):
        for route, took in (("cheap", 0.002), ("dear", 0.1 if number < 30 else 0.4)):
            windows.add(windows.usual(route), took, 200)
        before = gradient.limit
        close(windows, number)
        assert (gradient.limit > before) == (number < 30)


def test_half_used_limit_stays() -> None:
    """Where less than half of the limit was in use, it stays as it is, however long requests took."""
    gradient = Gradient(least=1, most=200)
    windows = Windows(gradient)
    for number, took in enumerate([0.01] * 20 + [5.0] * 20, 1):
        windows.add(windows.usual("/"), took, 9)
        close(windows, number)
    assert 20 == gradient.limit


@pytest.mark.parametrize(
    ("spent", "crowded", "raised"),
    [(0.0, 0.0, True), (0.74, 0.0, True), (0.75, 0.0, False), (0.0, 0.24, True), (0.0, 0.25, False)],
)
def test_what_is_usual_is_not_raised_without_cpu_time(spent: float, crowded: float, raised: bool) -> None:
    """What is measured while the process, or its event loop, is busy all the time, does not count as usual; what is quicker does."""
    windows = Windows(Gradient(least=20, most=200))
    usual = windows.usual("/")
    for number in range(1, 40):
        windows.add(usual, 0.1, 20)
        close(windows, number)
    for number in range(40, 80):
        windows.add(usual, 0.2, 20)
        close(windows, number, spent=(number - 39) * spent, crowded=0.2 * crowded)
    assert raised == (usual.long > 0.1001)
    windows.add(usual, 0.05, 20)
    before = usual.long
    close(windows, 80, spent=100.0, crowded=1.0)
    assert usual.long < before


def test_least_is_less_without_cpu_time() -> None:
    """Out of CPU time the limit may fall to a quarter of its least, and is back at once when there is some."""
    gradient = Gradient(least=20, most=200)
    for _ in range(200):
        gradient.update(10.0, 1.0, 20, saturated=True)
    assert 5 == gradient.limit
    gradient.update(10.0, 1.0, 20, saturated=False)
    assert 20 == gradient.limit


def test_windows_are_long_enough_and_have_enough_requests() -> None:
    """A window ends after a quarter of a second and ten requests, whichever comes later; a clock set back does not stop it."""
    windows = Windows(Gradient(least=1, most=200))
    usual = windows.usual("/")
    assert not windows.due(100.0)
    for count in range(10):
        assert not windows.due(100.0), count
        windows.add(usual, 0.01, 1)
    assert windows.due(100.0)
    close(windows, 100)
    for _ in range(10):
        windows.add(usual, 0.01, 1)
    assert [False, False, True] == [windows.due(at) for at in (100.0, 100.2, 100.25)]
    assert windows.due(50.0)


def test_mean_follows() -> None:
    """What requests take on average follows what they took, slowly enough for one window not to decide."""
    windows = Windows(Gradient(least=1, most=200))
    assert 0.0 == windows.mean
    for number in range(1, 21):
        windows.add(windows.usual("a"), 0.1, 1)
        windows.add(windows.usual("b"), 0.3, 1)
        close(windows, number)
    assert pytest.approx(0.2) == windows.mean
    windows.add(windows.usual("a"), 1.2, 1)
    close(windows, 21)
    assert pytest.approx(0.4) == windows.mean


def test_routes_are_bounded() -> None:
    """However many routes there are, what is kept is bounded: the last of them share an entry."""
    windows = Windows(Gradient(least=1, most=200))
    known = [windows.usual(number) for number in range(5_000)]
    assert 2_001 == len({id(one) for one in known})
    assert known[7] is windows.usual(7)


def test_a_clock_that_stands_still() -> None:
    """Requests that take no time at all divide nothing by zero."""
    gradient = Gradient(least=1, most=200)
    windows = Windows(gradient)
    for number in range(1, 30):
        windows.add(windows.usual("/"), 0.0, 200)
        close(windows, number)
    assert gradient.limit > 20
    assert isinstance(windows.usual("/"), Usual)
