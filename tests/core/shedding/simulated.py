"""A server in miniature, with a clock of its own: requests arrive, wait, are served by so many servers, and leave.

In front of the servers either everything is in sight (`Capacity` decides: an event loop), or so many threads take requests out of a queue
that nobody sees (`Waiting` decides: a server with threads). Everything is drawn from a seed, so each run is the same.
"""

import random
from bisect import bisect_right
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field
from heapq import heappop, heappush
from operator import itemgetter

from failsoft.ratelimit.shedding.capacity import Capacity, Permit
from failsoft.ratelimit.shedding.waiting import Waiting

__all__ = ["CRITICAL", "SHEDDABLE", "Load", "Result", "behind_a_queue", "in_sight"]

SHEDDABLE, CRITICAL = 0, 2


@dataclass
class Load:
    """What is asked, and how long it takes.

    Args:
        rate: requests a second, by the time.
        service: seconds that a request holds a server, by the time.
        servers: how many there are, by the time.
        critical: part of the requests that is critical.
        spread: part of `service` by which it varies, to both sides.
        cpu: part of its time that a server uses the CPU.
    """

    rate: Callable[[float], float]
    service: Callable[[float], float]
    servers: Callable[[float], int]
    critical: float = 0.0
    spread: float = 0.2
    cpu: float = 0.0


@dataclass
class Result:
    """What came of it: for each class, when each served request ended and how long it took, and when each was refused."""

    served: dict[int, list[tuple[float, float]]] = field(default_factory=lambda: {SHEDDABLE: [], CRITICAL: []})
    refused: dict[int, list[float]] = field(default_factory=lambda: {SHEDDABLE: [], CRITICAL: []})
    limits: list[tuple[float, int]] = field(default_factory=list)
    most: int = 0

    def goodput(self, start: float, end: float, *, within: float) -> float:
        """Requests a second that ended between `start` and `end` and took at most `within` seconds."""
        good = sum(start <= at < end and took <= within for one in self.served.values() for at, took in one)
        return good / (end - start)

    def success(self, rank: int, start: float, end: float) -> float:
        """The part of a class's requests that was served."""
        served = sum(start <= at < end for at, _ in self.served[rank])
        refused = sum(start <= at < end for at in self.refused[rank])
        return served / (served + refused)

    def latency(self, rank: int, start: float, end: float, *, quantile: float) -> float:
        """Seconds that served requests of a class took."""
        took = sorted(took for at, took in self.served[rank] if start <= at < end)
        return took[min(len(took) - 1, int(len(took) * quantile))]

    def limit(self, at: float) -> int:
        """The limit at a time."""
        return self.limits[bisect_right(self.limits, at, key=itemgetter(0)) - 1][1]


def in_sight(load: Load, *, until: float, least: int = 20, most: int = 200, seed: int = 1) -> Result:
    """Every request that is not refused is in flight until it was served."""
    draw = random.Random(seed)
    now = spent = 0.0
    capacity = Capacity(least=least, most=most, spent=lambda: spent)
    usual = capacity.usual("/")
    result = Result()
    queue: deque[tuple[Permit, float, int]] = deque()
    leaving: list[tuple[float, int, Permit, float, int]] = []
    number = busy = 0
    arrival = draw.expovariate(load.rate(0.0))
    while now < until:
        if leaving and leaving[0][0] <= arrival:
            now, _, permit, began, rank = heappop(leaving)
            busy -= 1
            capacity.release(permit, now, took=now - began)
            result.served[rank].append((now, now - began))
            result.limits.append((now, capacity.limit))
        else:
            now = arrival
            arrival += draw.expovariate(load.rate(now))
            rank = CRITICAL if draw.random() < load.critical else SHEDDABLE
            admitted = capacity.acquire(rank, usual, now)
            if admitted is None:
                result.refused[rank].append(now)
            else:
                queue.append((admitted, now, rank))
        result.most = max(result.most, capacity.in_flight)
        while queue and busy < load.servers(now):
            permit, began, rank = queue.popleft()
            busy += 1
            number += 1
            service = load.service(now) * draw.uniform(1 - load.spread, 1 + load.spread)
            spent += service * load.cpu
            heappush(leaving, (now + service, number, permit, began, rank))
    return result


def behind_a_queue(
    load: Load, *, until: float, refusal: float = 0.0005, tick: float = 0.004, seed: int = 1, shed: bool = True
) -> Result:
    """Requests wait in a queue until a thread takes them; only then are they seen."""
    draw = random.Random(seed)
    waiting = Waiting()
    mean = 0.0
    result = Result()
    queue: deque[tuple[float, int]] = deque()
    free = [0.0] * load.servers(0.0)
    arrival = draw.expovariate(load.rate(0.0))
    while True:
        thread = min(range(len(free)), key=lambda one: free[one])
        start = max(free[thread], queue[0][0]) if queue else arrival
        if arrival <= start:
            if arrival > until:
                return result
            queue.append((arrival, CRITICAL if draw.random() < load.critical else SHEDDABLE))
            arrival += draw.expovariate(load.rate(arrival))
            continue
        came, rank = queue.popleft()
        waited = (start - came) // tick * tick
        if shed and waiting.late(waited, rank=rank, mean=mean, now=start):
            free[thread] = start + refusal
            result.refused[rank].append(start)
        else:
            service = load.service(start) * draw.uniform(1 - load.spread, 1 + load.spread)
            free[thread] = start + service
            mean += (service - mean) * 0.1
            result.served[rank].append((free[thread], free[thread] - came))
