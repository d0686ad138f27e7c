"""What the log says of stores that are lost and found, and of those that answer with errors, so that whoever is woken finds it there.

Rules:

- One line when a store is taken to be down, one when it answers again: for each change, never for each request, and for each store
  by itself. Each process writes its own. They are warnings, because Python prints those where no logging is configured.
- A store that flaps does not flood: within `QUIET` seconds of a line about a loss there is no other about one. What was left out is
  counted, and told when the time is over. If the store is away then, that is told too, so the log's last word is what is so.
- A store that is there and refuses what it is asked (it is full, may not write, its ACL forbids it) has one line for each kind of error,
  and another one when there was no more of it for `QUIET` seconds.
- Lines are written in a thread that starts with the first outage, because a handler may take its time and a store's own thread has
  connections to make.
- URLs are masked; what a server or a driver said is cut and stays on one line.
"""

import logging
import math
from collections import deque
from collections.abc import Callable

from failsoft.clock import Clock
from failsoft.durations import spell
from failsoft.events import Event, OperationRefused, StoreDegraded, StoreRecovered
from failsoft.forks import start_over_in_children
from failsoft.settings import Settings
from failsoft.settings.problems import mask
from failsoft.stores.background import Background

__all__ = ["QUIET", "OutageLog"]

QUIET = 10.0
"""Seconds after the line about a loss in which there is no other one about the same store."""

_MOST = 10_000
"""Errors that wait to be counted: a handler may take its time, and each request may bring one."""

_SAID = 200
"""Characters of what a server or a driver said."""

_log = logging.getLogger("failsoft.stores")


class OutageLog(Background):
    """Writes outages of stores into the log, and passes every event on.

    Args:
        settings: what the lines say of limits and sessions, and where stores are. May be replaced.
        clock: injectable time.
        publish: hears every event as well.

    Attributes:
        settings: the same.
    """

    def __init__(self, settings: Settings, *, clock: Clock, publish: Callable[[Event], None]) -> None:
        super().__init__("failsoft-outages")
        self.settings = settings
        self._monotonic = clock.monotonic
        self._publish = publish
        start_over_in_children(self, OutageLog.start_over)

    def start_over(self) -> None:
        """Know of nothing. After a fork the thread is not here, nor are the connections that it told of."""
        super().start_over()
        self._heard: deque[tuple[float, StoreDegraded | StoreRecovered | OperationRefused]] = deque()
        self._stores: dict[str, _History] = {}
        self._refused: dict[OperationRefused, _Refused] = {}
        self._missed = False

    def hear(self, event: Event) -> None:
        """What a store publishes. Waits for nobody; from any thread."""
        if isinstance(event, StoreDegraded | StoreRecovered | OperationRefused):
            if isinstance(event, OperationRefused) and len(self._heard) >= _MOST:
                self._missed = True
            else:
                self._heard.append((self._monotonic(), event))
            self.nudge()
        self._publish(event)

    def work(self) -> float | None:
        """Write what is due. Returns seconds until there may be more, or None."""
        while self._heard:
            at, event = self._heard.popleft()
            if isinstance(event, OperationRefused):
                self._count(event, at)
                continue
            history = self._stores.setdefault(event.store, _History())
            if isinstance(event, StoreDegraded):
                history.lost(event, at)
            elif (line := history.found(event)) is not None:
                self._write(event.store, line)
            self._tell(event.store, history)
        pauses = [self._tell(store, history) for store, history in self._stores.items()]
        now = self._monotonic()
        pauses += [self._conclude(event, refused, now) for event, refused in list(self._refused.items())]
        pause = min(pauses, default=math.inf)
        # Nodes of a cluster come and go, under ever new names.
        self._stores = {store: history for store, history in self._stores.items() if not history.over(now)}
        return None if pause == math.inf else pause

    def _tell(self, store: str, history: "_History") -> float:
        """Write what is due about one store. Returns seconds until there may be more."""
        now = self._monotonic()
        if not history.untold:
            return math.inf
        if now < history.quiet_until:
            return history.quiet_until - now
        self._write(store, history.tell(now, self._meanwhile(store)))
        return math.inf

    def _count(self, event: OperationRefused, at: float) -> None:
        refused = self._refused.get(event)
        if refused is None:
            self._refused[event] = _Refused(at)
            meanwhile = self._meanwhile(event.store)
            self._write(event.store, f"answers with errors ({_cut(event.detail)}). Where it does, {meanwhile}")
        else:
            refused.count += 1
            refused.last = at

    def _conclude(self, event: OperationRefused, refused: "_Refused", now: float) -> float:
        """Say that there was no more of it, when it is time. Returns seconds until it may be."""
        left = refused.last + QUIET - now
        if left > 0:
            return left
        del self._refused[event]
        seconds = refused.last - refused.since
        least = "at least " if self._missed else ""
        times = f"{least}once" if refused.count == 1 else f"{least}{refused.count} times in {seconds:.1f} s"
        self._missed = self._missed and bool(self._refused)
        self._write(event.store, f"has not answered with {event.code} for {QUIET:g} s; before that it did {times}")
        return math.inf

    def _write(self, store: str, line: str) -> None:
        _log.warning("the store %r (%s) %s", store, self._url(store), line)

    def _url(self, store: str) -> str:
        name = _configured(store)
        url = mask(str(dict(self.settings.stores).get(name, self.settings.store)))
        return url.partition("?")[0]  # what is in a query may be for a driver alone, and any of it a secret

    def _meanwhile(self, store: str) -> str:
        """What happens while the store `store` is away."""
        settings = self.settings
        share = f"1/{settings.workers * settings.replicas}"
        if settings.local_share is not None:
            share = f"{settings.local_share:.0%}"
        alone = settings.effective_local_share == 1
        parts = {
            "local": "are counted by this process" + ("" if alone else f", {share} of each quota"),
            "open": "admit",
            "closed": "refuse with 503",
        }
        said = f"limits without an on_outage of their own {parts[settings.on_outage]}"
        if settings.sessions and settings.session_store == _configured(store):
            answer = "refused with 503" if settings.session_on_outage == "refuse" else "empty"
            if settings.session_snapshot:
                age = spell(settings.session_snapshot)
                answer = f"read from the browser's sealed cookie if that is at most {age} old, else {answer}"
            said += f"; sessions are {answer}, and writes to them are refused with 503"
        return said


class _History:
    """Of one store: what is so, and what the log has of it.

    Attributes:
        quiet_until: the clock's `monotonic` from which a loss may be told again.
    """

    def __init__(self) -> None:
        self.quiet_until = -math.inf
        self._away: StoreDegraded | None = None
        self._since = 0.0
        self._told = False
        self._left_out = 0
        self._left_out_for = 0.0

    @property
    def untold(self) -> bool:
        """Whether the log lacks something."""
        return (self._away is not None and not self._told) or self._left_out > 0

    def over(self, now: float) -> bool:
        """Whether there is nothing to remember."""
        return self._away is None and not self.untold and now >= self.quiet_until

    def lost(self, event: StoreDegraded, at: float) -> None:
        """It is away."""
        self._away, self._since = event, at

    def found(self, event: StoreRecovered) -> str | None:
        """It is back. Returns what to say of it now, if anything."""
        told, self._away, self._told = self._told, None, False
        if told:
            return f"is back, after {event.after:.1f} s"
        self._left_out += 1
        self._left_out_for += event.after
        return None

    def tell(self, now: float, meanwhile: str) -> str:
        """What to say, after which nothing is untold."""
        count, seconds = self._left_out, self._left_out_for
        self._left_out, self._left_out_for = 0, 0.0
        self.quiet_until = now + QUIET
        left_out = f"{count} more {'time' if count == 1 else 'times'}, for {seconds:.1f} s together"
        if self._away is None:
            return f"was away {left_out}; it is back"
        self._told = True
        why = _cut(self._away.detail or self._away.reason)
        for_ = f" for {now - self._since:.1f} s" if now - self._since >= 1 else ""
        before = f"; before that it was away {left_out}" if count else ""
        return f"is away{for_} ({why}){before}. Meanwhile {meanwhile}"


class _Refused:
    """Errors of one kind that a store has answered with.

    Attributes:
        count: how many.
        last: when it did so for the last time.
        since: when it did so first.
    """

    def __init__(self, at: float) -> None:
        self.since = self.last = at
        self.count = 1


def _cut(said: str) -> str:
    """What somebody said, without secrets, on one line."""
    return " ".join(mask(said).split())[:_SAID].rstrip(".")


def _configured(store: str) -> str:
    """The name in the settings of a store, or of the one that `store` is a node of."""
    return store.partition("@")[0]
