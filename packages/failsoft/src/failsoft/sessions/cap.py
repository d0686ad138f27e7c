"""The setting `session_cap`: of a user's sessions the oldest make room for a new one.

Theory of operation. A login enrols its session in the user's list, and hears of the others when these are too many. Which of them still
live is asked before any is ended: some have ended by themselves. Rules:

- Nothing is ended before the new session is stored: the login may be refused.
- What is listed and has no record may be a login that is under way, on a cluster even one that was sent before. It is taken off the list
  when it has been there for long, and does not count until then. So of logins at the same moment one more than the cap may stay, until the
  user's next login.
"""

from collections.abc import Sequence
from typing import TYPE_CHECKING, Final

from failsoft.errors import StoreUnavailable
from failsoft.events import SessionRevoked
from failsoft.exchange import Answers, Operation
from failsoft.sessions.operations import Delete, Glance, Revoke
from failsoft.sessions.session import Session
from failsoft.sessions.state import NO_ANSWER

if TYPE_CHECKING:
    from failsoft.sessions.service import Sessions

__all__ = ["evictions", "glances"]

_BEING_WRITTEN: Final = 60_000
"""Milliseconds for which a session may be listed before its record is there. Its write is over after the setting `deadline`, which is 5 s
at most; the rest is for a failover to a server whose clock is ahead."""


def glances(service: "Sessions", handles: Sequence[str]) -> list[Operation]:
    """Ask which of a user's other sessions still live."""
    return [Glance(service.record_key(handle)) for handle in handles]


def evictions(session: Session, handles: Sequence[str], answers: Answers) -> Sequence[Operation]:
    """Take what has ended off the list, and end the oldest of the others that are too many.

    Args:
        session: that of the login.
        handles: of the user's others, the oldest first.
        answers: to their `glances`; what else was asked follows.
    """
    service = session.service
    principal = session.principal_known
    if isinstance(answers, StoreUnavailable) or principal is None:
        return ()  # at the next login
    subject = principal.subject
    key = service.subject_key(subject)
    dead: list[str] = []
    live: list[str] = []
    for handle, seen in zip(handles, answers[: len(handles)], strict=True):
        if not isinstance(seen, NO_ANSWER):
            (live if seen is not None and service.subjects.may_be(handle, seen, subject) else dead).append(handle)
    gone = live[: max(0, len(live) + 1 - service.cap)]
    later: list[Operation] = [Revoke(key, handle, lifetime=0, listed_for=_BEING_WRITTEN) for handle in dead]
    for handle in gone:
        service.publish(SessionRevoked(handle, subject, "cap"))
        later += [Revoke(key, handle, lifetime=service.lifetime), Delete(service.record_key(handle), None)]
    return later
