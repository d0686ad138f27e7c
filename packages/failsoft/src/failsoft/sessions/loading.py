"""How a session becomes what it is: what to ask the store, and what its answers mean.

Rules: no answer from the store is not "no session": it deletes no cookie and writes nothing. A dead id is not deleted from the browser
either, because the answer of a slow request would then delete the id that a quicker one has just set; a logout does delete it. A session
whose user may have revoked it is nobody's until the store has said that they did not.
"""

import logging
from collections.abc import Generator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from failsoft.errors import SessionTooLarge, SessionValueError, StoreUnavailable
from failsoft.events import SessionGone, SessionRolledBack
from failsoft.exchange import SUBJECT, Answers, Operation
from failsoft.sessions.content import Content
from failsoft.sessions.imported import Fetch
from failsoft.sessions.operations import MOVED, RENEWED, Check, Fields, Loaded
from failsoft.sessions.record import PRINCIPAL, Principal, stored_name, unpack_principal
from failsoft.sessions.state import LIVE, NEW, NO_ANSWER, UNLOADED, State

if TYPE_CHECKING:
    from failsoft.sessions.session import Session

__all__ = ["gone", "loaded", "loading", "operations"]

_log = logging.getLogger("failsoft.sessions")


def loading(session: "Session") -> Generator[Sequence[Operation], Answers, None]:
    """Ask the store until the state is known; a driver carries what is yielded."""
    if session.state is UNLOADED:
        loaded(session, (yield operations(session)))
    if session.state is State.UNCHECKED:
        said = yield (_check(session),)
        if session.state is State.UNCHECKED:  # not settled meanwhile, by another task that asked the same
            _verdict(session, said if isinstance(said, StoreUnavailable) else said[0])


def operations(session: "Session") -> Sequence[Operation]:
    """What loads a session, and what replays a logout that had to wait."""
    load: Sequence[Operation] = ()
    if session.state is UNLOADED:
        load = session.loads if session.foreign is None else (Fetch(session.foreign),)
    if session.ticket is None or session.replayed:
        return load
    # First, in case the browser still has the session's own cookie.
    return [*session.service.replay(session.ticket), *load]


def loaded(session: "Session", answers: Answers) -> None:
    """Take the answers to `operations`."""
    if isinstance(answers, StoreUnavailable):
        if session.state is UNLOADED:
            _away(session, answers.reason)
        return
    if session.ticket is not None and not session.replayed:
        count = len(session.service.replay(session.ticket))
        if not any(isinstance(one, NO_ANSWER) for one in answers[:count]):
            session.service.replayed(session)
        answers = answers[count:]
    if session.state is UNLOADED:
        found = answers[0]
        if isinstance(found, Loaded):
            _found(session, found, answers)
        else:
            _not_found(session, answers)


def _not_found(session: "Session", answers: Sequence[Any]) -> None:
    answer, *others = answers
    companion = session.companion
    if isinstance(answer, NO_ANSWER):
        _no_answer(session, answer)
    elif session.foreign is not None:
        _carry_over(session, answer)
    elif companion is None or companion.revoked or companion.deadline <= session.service.clock.time():
        gone(session, "unknown")
    elif others and not isinstance(others[0], NO_ANSWER) and _is_revoked(others[0], companion.generation):
        session.doomed = session.id
        gone(session, "revoked")
    else:
        gone(session, "lost")


def _found(session: "Session", found: Loaded, answers: Sequence[Any]) -> None:
    code, _, fields = found  # to name the part of a tuple costs 250 instructions each time
    if code == MOVED:
        session.state = State.MOVED
        return
    owned = PRINCIPAL in fields
    try:
        version = int(fields["@v"])
        int(fields["@c"])  # which a write asks for, when it is too late
        if owned:
            int(fields["@g"])
    except (KeyError, ValueError):
        _log.error("the record of session %s is damaged; it counts as not there", session.handle)
        gone(session, "lost")
        return
    companion = session.companion
    if companion is not None and companion.revoked:
        _risen(session, version)
        return
    content = Content(session.service, session.handle or "", fields)
    state, principal = LIVE, None
    if owned:
        state, principal = State.UNCHECKED, _identify(session, content)
        if principal is None:
            return
    if session.state is not UNLOADED:  # another thread of the request was quicker, and may have changed something since
        return
    # No call from here to the state: so no other thread comes in between.
    session.content = content
    session.principal_known = principal
    session.version = version
    if code == RENEWED:
        session.renewed = True
    # Last: from here on whoever has the session may use it.
    session.state = state
    if companion is None:
        return
    if version < companion.version:
        session.rolled_back = True
        event = SessionRolledBack(session.handle, session.subject_known, version, companion.version)
        session.service.publish(event)
    if owned and len(answers) > 1 and companion.subject == session.subject_known and session.state is state:
        _verdict(session, answers[1])


def _risen(session: "Session", version: int) -> None:
    """The browser was told that the session is revoked, and it is there: a failover has lost the revocation."""
    session.service.publish(SessionRolledBack(session.handle, None, version, version + 1))
    session.doomed = session.id
    gone(session, "revoked")


def _identify(session: "Session", content: Content) -> Principal | None:
    """Whose session it is. Where nobody can say that, nobody gets it: None."""
    data = content.encoded(PRINCIPAL)
    try:
        if data is not None:
            return unpack_principal(data)
    except ValueError:
        pass
    _log.error("the principal of session %s cannot be read: is a secret missing in secret_fallbacks?", session.handle)
    gone(session, "unknown")
    return None


def _check(session: "Session") -> Check:
    if session.carried is not None:
        return Check(session.service.subject_key(session.carried[0]), "-")  # no session of ours
    assert session.id is not None  # noqa: S101 - for the type checker: the state says so
    assert session.principal_known is not None  # noqa: S101 - likewise
    return Check(session.service.subject_key(session.principal_known.subject), session.id.handle)


def _verdict(session: "Session", answer: Any) -> None:
    """Take the answer to the question whether the session was revoked."""
    if isinstance(answer, NO_ANSWER):
        _no_answer(session, answer)
        return
    if session.carried is not None:
        _carried(session, answer[0])
    elif _is_revoked(answer, int(session.content.fields["@g"])):
        session.doomed = session.id
        gone(session, "revoked")
    else:
        session.state = LIVE
        if session.service.ended:  # it was lost for a time: the store had an older state
            session.service.ended.pop(session.handle, None)


def _is_revoked(answer: Sequence[int], generation: int) -> bool:
    not_before, revoked = answer
    return bool(revoked) or generation <= not_before


# What another package has stored


def _carry_over(session: "Session", data: bytes | None) -> None:
    """Make what another package has stored the content of a new session; it is written like everything else that was set."""
    importer = session.service.importer
    values = None if data is None or importer is None else importer.read(data)
    session.state = NEW
    if values is None or importer is None:
        session.foreign = None
        return
    subject = importer.subject(values)
    if subject is not None:
        session.carried, session.state = (subject, values), State.UNCHECKED
    else:
        _put_in(session, values)


def _carried(session: "Session", not_before: int) -> None:
    assert session.carried is not None  # noqa: S101 - for the type checker: the caller has looked
    (subject, values), session.carried = session.carried, None
    session.state = NEW
    if not_before:  # since then the user has revoked all that they had, and this is older
        session.abandoned, session.foreign = session.foreign, None
        return
    _put_in(session, values)
    if session.service.importer is not None and session.service.importer.vouches:
        try:
            session.login(subject)
        except ValueError as error:
            _log.warning("a session was carried over without its user: %s", error)


def _put_in(session: "Session", values: Mapping[str, Any]) -> None:
    importer = session.service.importer
    assert importer is not None  # noqa: S101 - for the type checker: it has read them
    for key, value in values.items():
        own = key[:1] == "_" or key == "csrf_token"
        try:
            session.write(stored_name(key, importer.namespace if own else None), value, key)
        except (SessionValueError, SessionTooLarge) as error:
            _log.warning("left out of a session that was carried over: %s", error)


# Without a session


def gone(session: "Session", reason: str) -> None:
    """There is no such session any more: the request has none."""
    handle, subject = session.handle, session.subject_known
    if session.exchange is not None:
        session.exchange.memo.pop(SUBJECT, None)  # what comes later in this request is not on the subject's account
    if session.companion is not None:
        session.service.ended.keep(handle, None)
    session.forget()
    session.state = NEW
    session.id = None
    session.service.publish(SessionGone(handle, subject, reason))


def _no_answer(session: "Session", error: Exception) -> None:
    _away(session, error.reason if isinstance(error, StoreUnavailable) else "failed")


def _away(session: "Session", reason: str) -> None:
    session.forget()
    session.reason = reason
    snapshot = session.service.snapshot_of(session.companion)
    if snapshot is None:
        session.state = State.AWAY
    else:
        session.state = State.SNAPSHOT
        session.content = Content(session.service, session.handle or "", Fields.of(snapshot))
        data = snapshot.get(PRINCIPAL)
        session.principal_known = None if data is None else unpack_principal(data)
    session.service.degraded(session)
