"""What a write was sent with: while the store is asked, other tasks of the request may ask for more."""

from collections.abc import Mapping, Sequence
from typing import NamedTuple

from failsoft.sessions.ids import SessionId
from failsoft.sessions.record import Principal

__all__ = ["Sent"]


class Sent(NamedTuple):
    """A write that is under way.

    Attributes:
        identity: the id that the session has afterwards.
        written: what is set.
        stored: the same, as the store gets it.
        removed: what is deleted.
        version: the session's, as it was read.
        life: the session's `life`.
        login: its `login_pending`.
        rotated: its `rotation_pending`.
        strictly: whether the id before opens nothing from then on.
        above: its `above`.
    """

    identity: SessionId
    written: Mapping[str, bytes]
    stored: Mapping[str, bytes]
    removed: Sequence[str]
    version: int
    life: int
    login: Principal | None
    rotated: bool
    strictly: bool
    above: int
