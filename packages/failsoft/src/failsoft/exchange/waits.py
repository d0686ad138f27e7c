"""What one request has waited for its stores, so that it does not wait for the same one again and again.

Rules:

- A store that gave no answer although it was waited for is asked nothing more in this request: later flights get the same reason at once.
  So a store that hangs costs a request one deadline, however many flights it would have made.
- Who was turned away at once has waited for nothing, and may ask again. Flights that are under way together are waited for together.
- A store that answers, but slowly, is asked on, with a whole deadline for each flight. But when its answers have taken half of a deadline,
  who can do without it does (a limit that is enforced late). A session cannot: not to ask would refuse what the store was about to give.
- Both are forgotten a second after the last wait, so that a view that takes long, a stream or a socket finds out anew.
- How long answers take is measured only where limits are enforced late: where that is declared, or has happened on this route.
"""

from math import inf
from typing import Final

from failsoft.errors import StoreUnavailable

__all__ = ["QUICK", "Waits"]

QUICK: Final = 0.001
"""Seconds: what is answered sooner is not noted."""

_MEMORY: Final = 1.0
"""Seconds: twice the time between two probes of a store that is down."""


class _Wait:
    __slots__ = ("deadline", "ended", "lost", "seconds", "until")

    def __init__(self) -> None:
        self.seconds = 0.0
        self.deadline = 0.0
        self.ended = -inf
        self.until = 0.0
        self.lost: StoreUnavailable | None = None


class Waits:
    """What one request has waited, by store."""

    __slots__ = ("_by_store",)

    def __init__(self) -> None:
        self._by_store: dict[str, _Wait] = {}

    def note(
        self, store: str, began: float, ended: float, *, deadline: float, lost: StoreUnavailable | None = None
    ) -> None:
        """A flight is over.

        Args:
            store: whose.
            began: when, monotonic.
            ended: likewise.
            deadline: the store's, in seconds.
            lost: why there was no answer, None if there was one.
        """
        wait = self._known(store, began)
        if wait is None:
            wait = self._by_store[store] = _Wait()
        # No more than there was at least one flight under way, and no less than the longest of them took.
        wait.seconds = max(wait.seconds + max(0.0, ended - max(began, wait.ended)), ended - began)
        wait.ended = max(ended, wait.ended)
        wait.deadline = deadline
        wait.until = ended + _MEMORY
        # A "timeout" is told only to those who have waited for the whole deadline. No other reason says so by itself.
        if lost is not None and (lost.reason == "timeout" or 2 * wait.seconds >= deadline):
            wait.lost = StoreUnavailable(lost.reason, "it gave no answer earlier in this request")

    def lost(self, store: str, now: float) -> StoreUnavailable | None:
        """Why `store` is not to be asked, or None."""
        wait = self._known(store, now)
        return None if wait is None else wait.lost

    def spent(self, store: str, now: float) -> bool:
        """Whether `store` has answered so slowly that it is not to be asked by who can do without."""
        wait = self._known(store, now)
        return wait is not None and wait.lost is None and 2 * wait.seconds >= wait.deadline

    def _known(self, store: str, now: float) -> _Wait | None:
        wait = self._by_store.get(store)
        return None if wait is None or wait.until <= now else wait
