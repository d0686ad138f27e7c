"""Steps on what the store knows of one user: which sessions they have, and which of them are revoked."""

from collections.abc import Sequence
from typing import Any, NamedTuple

from failsoft.exchange import Table
from failsoft.sessions import scripts
from failsoft.sessions.operations.steps import Step, after, microseconds, milliseconds

__all__ = ["Check", "Enrol", "List", "Listed", "Revoke", "RevokeAll"]


class Listed(NamedTuple):
    """A subject's sessions: the time before which none is valid, and of each its handle, when it began and its description."""

    not_before: int
    sessions: Sequence[tuple[str, int, bytes]]


def _number(value: Any) -> int:
    return 0 if value is None else int(value)


class Check(Step):
    """Whether a subject's session was revoked: the time before which none is valid, and whether this one is not."""

    __slots__ = ("packed",)

    script = scripts.CHECK

    def __init__(self, key: str, handle: str) -> None:
        super().__init__(key, handle)
        self.packed: bytes | None = None  # asked again with the session's load

    def parse(self, reply: Any) -> tuple[int, bool]:
        """The microseconds, and the verdict."""
        not_before, revoked = reply
        return int(not_before), bool(revoked)

    def apply(self, table: Table, now: float) -> tuple[int, bool]:
        """The same in this process."""
        subject = table.get(self.key, now) or {}
        kept = subject.get("kept") == self.arguments[0]
        return 0 if kept else _number(subject.get("nbf")), f"r:{self.arguments[0]!s}" in subject


def _keep(table: Table, key: str, subject: dict[str, Any], time: int, span: int, now: float) -> None:
    """Never for less than before: sessions may have been allowed to live longer."""
    known = table.find(key, now)
    expires = after(time + span)
    table.set(key, subject, expires=expires if known is None else max(expires, known.expires), now=now)


def _tidy(subject: dict[str, Any], now: int, lifetime: int) -> list[tuple[int, str]]:
    """Forget what is over; the other sessions, the oldest first."""
    live: list[tuple[int, str]] = []
    marks: list[tuple[int, str]] = []
    for name, value in list(subject.items()):
        if name.startswith("s:"):
            if value[0] + lifetime <= now:
                del subject[name]
            else:
                live.append((value[0], name[2:]))
        elif name.startswith("r:"):
            if value <= now:
                del subject[name]
            else:
                marks.append((value, name))
    for _, name in sorted(marks)[: max(0, len(marks) - scripts.MOST_MARKS)]:
        del subject[name]
    return sorted(live)


class Enrol(Step):
    """Put a session into its subject's list.

    Args:
        key: the subject's.
        handle: the session's.
        description: what the list is to say of it.
        lifetime: how long a session lives at most, in milliseconds.
        cap: how many there may be.
        revoke: whether those beyond are to be revoked, which is left to the caller; otherwise they are only no longer listed.
    """

    __slots__ = ()

    script = scripts.ENROL

    def __init__(self, key: str, handle: str, description: bytes, *, lifetime: int, cap: int, revoke: bool) -> None:
        super().__init__(key, handle, description, lifetime, cap, "1" if revoke else "0")

    def parse(self, reply: Any) -> list[str]:
        """Handles of other sessions, the oldest first: all of them if some are to be revoked; otherwise those that are listed no longer."""
        return [one.decode() for one in reply]

    def apply(self, table: Table, now: float) -> list[str]:
        """The same in this process."""
        handle, description, lifetime, cap, revoke = self.arguments
        time, span = milliseconds(now), int(lifetime)
        subject: dict[str, Any] = table.get(self.key, now) or {}
        subject[f"s:{handle!s}"] = (time, description)
        subject.pop(f"r:{handle!s}", None)  # a login counts for more than a revocation before it
        live = _tidy(subject, time, span)
        surplus = max(0, len(live) - int(cap))
        others = [other for _, other in live if other != handle] if surplus else []
        if revoke != "1":
            others = others[:surplus]
            for other in others:
                del subject[f"s:{other}"]
        _keep(table, self.key, subject, time, span, now)
        return others


class Revoke(Step):
    """Revoke one session of a subject, wherever its record lies. The answer is whether it was listed.

    Args:
        key: the subject's.
        handle: the session's.
        lifetime: how long a session lives at most, in milliseconds; 0: it is no longer listed, and that is all.
        listed_for: nothing is done if it has been listed for less, in milliseconds; 0: however long.
    """

    __slots__ = ()

    script = scripts.REVOKE

    def __init__(self, key: str, handle: str, *, lifetime: int, listed_for: int = 0) -> None:
        super().__init__(key, handle, lifetime, *((listed_for,) if listed_for else ()))

    def parse(self, reply: Any) -> bool:
        """Whether it was listed."""
        return bool(reply)

    def apply(self, table: Table, now: float) -> bool:
        """The same in this process."""
        handle, lifetime, *listed_for = self.arguments
        subject: dict[str, Any] = table.get(self.key, now) or {}
        listed = subject.get(f"s:{handle!s}")
        if listed and listed_for and milliseconds(now) < listed[0] + int(listed_for[0]):
            return False
        known = subject.pop(f"s:{handle!s}", None) is not None
        if int(lifetime) > 0:
            time = milliseconds(now)
            subject[f"r:{handle!s}"] = time + int(lifetime)
            _tidy(subject, time, int(lifetime))
            _keep(table, self.key, subject, time, int(lifetime), now)
        elif not subject:
            table.delete(self.key)
        return known


class RevokeAll(Step):
    """Revoke all sessions of a subject. The answer is the time before which none is valid, and the handles, the oldest first.

    Args:
        key: the subject's.
        lifetime: how long a session lives at most, in milliseconds.
        keep: a handle that stays in the list, and valid whatever its generation, until the next time.
    """

    __slots__ = ()

    script = scripts.REVOKE_ALL

    def __init__(self, key: str, *, lifetime: int, keep: str = "") -> None:
        super().__init__(key, lifetime, keep)

    def parse(self, reply: Any) -> tuple[int, list[str]]:
        """The microseconds, and the handles."""
        return int(reply[0]), [one.decode() for one in reply[1:]]

    def apply(self, table: Table, now: float) -> tuple[int, list[str]]:
        """The same in this process."""
        lifetime, keep = self.arguments
        subject: dict[str, Any] = table.get(self.key, now) or {}
        time, span = milliseconds(now), int(lifetime)
        listed = [handle for _, handle in _tidy(subject, time, span) if handle != keep]
        for handle in listed:
            del subject[f"s:{handle}"]
            subject[f"r:{handle}"] = time + span
        subject["nbf"] = not_before = max(microseconds(now), _number(subject.get("nbf")) + 1)
        subject["kept"] = keep
        _keep(table, self.key, subject, time, span, now)
        return not_before, listed


class List(Step):
    """A subject's sessions, as far as they are listed and not over. Some may have ended by themselves: `Look` at each."""

    __slots__ = ()

    script = scripts.LIST

    def __init__(self, key: str, *, lifetime: int) -> None:
        super().__init__(key, lifetime)

    def parse(self, reply: Any) -> Listed:
        """The list, the oldest first."""
        steps = iter(reply[1:])
        sessions: list[tuple[str, int, bytes]] = []
        for handle, text in zip(steps, steps, strict=True):
            began, _, description = text.partition(b" ")
            sessions.append((handle.decode(), int(began), description))
        return Listed(int(reply[0]), sessions)

    def apply(self, table: Table, now: float) -> Listed:
        """The same in this process."""
        subject: dict[str, Any] = table.get(self.key, now) or {}
        live = _tidy(subject, milliseconds(now), int(self.arguments[0]))
        return Listed(
            _number(subject.get("nbf")), [(handle, began, subject[f"s:{handle!s}"][1]) for began, handle in live]
        )
