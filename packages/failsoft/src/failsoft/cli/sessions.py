"""``failsoft sessions``: a user's sessions, one session without its values, and their end.

Nothing is looked for among keys: a subject has a list of its sessions, and a handle names a record. No value is ever shown.
"""

from collections.abc import Sequence
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

from failsoft.cli.report import Report
from failsoft.errors import FailsoftError, SessionUnavailable, StoreUnavailable
from failsoft.inspection.counters import fly
from failsoft.runtime import Runtime

if TYPE_CHECKING:
    from failsoft.sessions.manage import Record, SessionInfo
    from failsoft.sessions.service import Sessions

__all__ = ["ACTIONS", "sessions"]

ACTIONS = ("list", "count", "show", "revoke")

_NOBODY = "-" * 16
"""A handle that no session has: to wait for the store with."""


def sessions(
    runtime: Runtime, action: str, *, subject: str | None = None, handle: str | None = None, everything: bool = False
) -> Report:
    """Carry out one of `ACTIONS`. Exit status 1 where there is nothing, or the store is away.

    Args:
        runtime: the application's.
        action: which.
        subject: the user's identifier; for all but ``show``.
        handle: the session's; for ``show`` and ``revoke``.
        everything: revoke all sessions of the subject.

    Raises:
        FailsoftError: the application has no sessions; or it is not said what to revoke.
    """
    service = runtime.sessions
    if service is None:
        raise FailsoftError("the application has no sessions: its setting sessions is off")
    if action == "revoke" and everything is (handle is not None):
        raise FailsoftError("say which session to revoke, by its handle, or --all of them")
    try:
        _wait(runtime, service)
        if action == "list":
            return _listed(subject or "", service.subjects.list(subject or ""))
        if action == "count":
            number = service.subjects.count(subject or "")
            return Report([str(number)], {"subject": subject, "sessions": number})
        if action == "show":
            return _shown(service, handle or "", service.subjects.look(handle or ""))
        if everything:
            number = service.subjects.revoke_all(subject or "")
            lines = [f"revoked all sessions of {subject}; {number} were listed"]
            return Report(lines, {"subject": subject, "revoked": number})
        done = service.subjects.revoke(subject or "", handle or "")
        lines = [f"revoked {handle}" if done else f"{subject} has no session {handle}"]
        return Report(lines, {"subject": subject, "handle": handle, "revoked": int(done)}, 0 if done else 1)
    except (StoreUnavailable, SessionUnavailable) as away:
        said = str(away) if isinstance(away, StoreUnavailable) else away.problem.detail or str(away)
        return Report([f"! {said}"], {"trouble": said}, 1)


def _wait(runtime: Runtime, service: "Sessions") -> None:
    """A process that has just begun has no connection yet."""
    from failsoft.sessions.operations import Glance  # here, because sessions are optional

    fly(runtime.stores[service.store], [Glance(service.record_key(_NOBODY))])


def _time(seconds: float) -> str:
    return datetime.fromtimestamp(seconds, UTC).isoformat(timespec="seconds").replace("+00:00", "Z")


def _listed(subject: str, found: "Sequence[SessionInfo]") -> Report:
    lines = [
        f"{one.handle}  since {_time(one.created)}, seen {_time(one.seen)}  {one.device}".rstrip() for one in found
    ]
    data = [
        {"handle": one.handle, "created": _time(one.created), "seen": _time(one.seen), "device": one.device}
        for one in found
    ]
    return Report(lines or [f"{subject} has no sessions"], {"subject": subject, "sessions": data}, 0 if found else 1)


def _shown(service: "Sessions", handle: str, record: "Record | None") -> Report:
    if record is None:
        return Report([f"there is no session {handle}"], {"handle": handle, "found": False}, 1)
    from failsoft.sessions.record import meta_of

    meta, principal = meta_of(record.fields), record.principal
    values = sorted(name for name in record.fields if not name.startswith("@"))
    fields: list[dict[str, Any]] = [
        {"name": name, "bytes": len(record.fields[name]), "type": _type(service, handle, name, record.fields[name])}
        for name in values
    ]
    data = {
        "handle": handle,
        "found": True,
        "subject": None if principal is None else principal.subject,
        "authenticated": None if principal is None else _time(principal.auth_time),
        "methods": [] if principal is None else list(principal.methods),
        "created": _time(meta.created / 1000),
        "seen": _time(meta.seen / 1000),
        "deadline": _time(meta.deadline / 1000),
        "idle": None if meta.idle is None else meta.idle / 1000,
        "version": meta.version,
        "fields": fields,
    }
    who = "nobody is logged in" if principal is None else f"{principal.subject}, logged in {data['authenticated']}"
    if principal is not None and principal.methods:
        who += f" by {', '.join(principal.methods)}"
    lines = [
        f"{handle}: {who}",
        f"    created {data['created']}, seen {data['seen']}, ends {data['deadline']} at the latest, written {meta.version} times",
        *(f"    {one['name']}: {one['type']}, {one['bytes']} bytes" for one in fields),
    ]
    return Report(lines, data)


def _type(service: "Sessions", handle: str, name: str, stored: bytes) -> str:
    from failsoft.sessions.codec import decode

    plain = service.unseal(handle, name, stored)
    if plain is None:
        return "sealed"
    try:
        return type(decode(plain)).__name__
    except ValueError:
        return "damaged"
