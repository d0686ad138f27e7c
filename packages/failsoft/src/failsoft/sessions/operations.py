"""What sessions ask of a store. Each step is in `scripts` for a server, and here for a table in this process.

Times in answers are whole milliseconds since the epoch, by the clock of whoever keeps the record; generations, and the time before which
none is valid, are whole microseconds.
"""

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from failsoft.exchange import Argument, Table
from failsoft.sessions import scripts

__all__ = [
    "FOUND",
    "GONE",
    "MOVED",
    "RENEWED",
    "Check",
    "Create",
    "Created",
    "Delete",
    "Enrol",
    "Glance",
    "Glimpse",
    "List",
    "Listed",
    "Load",
    "Loaded",
    "Look",
    "Revoke",
    "RevokeAll",
    "Wait",
    "Write",
    "Written",
]

FOUND, RENEWED, MOVED = 1, 2, 3
GONE = 0


class Loaded(NamedTuple):
    """A record.

    Attributes:
        code: `FOUND`; `RENEWED`, found by the secret before the last rotation; `MOVED`, that secret opens nothing any more and the
            browser will soon have the new one.
        now: when it was loaded.
        fields: all its fields; none where it moved.
    """

    code: int
    now: int
    fields: Mapping[str, bytes]


class Created(NamedTuple):
    """What became of a new record: `FOUND`, or `GONE` where its handle is taken; when; until when it may live; its generation."""

    code: int
    now: int = 0
    deadline: int = 0
    generation: int = 0


class Written(NamedTuple):
    """What became of a write: `FOUND`, `GONE` or `MOVED`; when; the version it made; until when the session may live; its generation."""

    code: int
    now: int = 0
    version: int = 0
    deadline: int = 0
    generation: int = 0


class Glimpse(NamedTuple):
    """Of a record: when it was created and last seen, its generation, and its principal, b"" for none."""

    created: int
    seen: int
    generation: int
    principal: bytes


class Listed(NamedTuple):
    """A subject's sessions: the time before which none is valid, and of each its handle, when it began and its description."""

    not_before: int
    sessions: Sequence[tuple[str, int, bytes]]


def _microseconds(now: float) -> int:
    return round(now * 1_000_000)


def _milliseconds(now: float) -> int:
    # By way of these, since a float may be a little less than the whole number of milliseconds that it stands for.
    return _microseconds(now) // 1000


def _after(milliseconds: int) -> float:
    """When a key that ends at this time is gone: it is there for the whole of its last millisecond, as on a server."""
    return (milliseconds + 1) / 1000


def _number(value: Any) -> int:
    return 0 if value is None else int(value)


class _Step:
    __slots__ = ("arguments", "keys")

    def __init__(self, key: str, *arguments: Argument) -> None:
        self.keys: Sequence[str] = (key,)
        self.arguments: Sequence[Argument] = arguments

    @property
    def key(self) -> str:
        return self.keys[0]


def _stands(record: Mapping[str, Any] | None, digest: Argument, now: int) -> int:
    """What `digest` is to a record: `FOUND`, `RENEWED`, `MOVED`, or `GONE`."""
    if record is None or now >= record["@a"]:
        return GONE
    if record["@h"] == digest:
        return FOUND
    if record.get("@o") != digest or now >= int(record["@u"]):
        return GONE
    return MOVED if record["@x"] == "1" else RENEWED


def _bytes(record: Mapping[str, Any]) -> dict[str, bytes]:
    return {name: value if isinstance(value, bytes) else str(value).encode() for name, value in record.items()}


def _pairs(flat: Sequence[Any]) -> dict[str, bytes]:
    return dict(zip(map(bytes.decode, flat[::2]), flat[1::2], strict=True))


def _keep(table: Table, key: str, record: dict[str, Any], now: int, idle: Argument) -> None:
    ends = min(now + int(record.get("@i", idle)), record["@a"])
    table.set(key, record, expires=_after(ends), now=now / 1000)


class Load(_Step):
    """The session, which it keeps alive.

    Args:
        key: the record's.
        digest: of the secret that was given.
        idle: how long a session lives unseen, in milliseconds.
        touch: how often that is written, in milliseconds.
    """

    __slots__ = ()

    script = scripts.LOAD

    def __init__(self, key: str, digest: str, *, idle: int, touch: int) -> None:
        self.keys = (key,)  # not by way of `_Step`: each request makes one
        self.arguments = (digest, idle, touch)

    def parse(self, reply: Any) -> Loaded | None:
        """The record, or None where there is no such session."""
        if not reply:
            return None
        if reply[0] == MOVED:
            return Loaded(MOVED, 0, {})
        return Loaded(reply[0], reply[1], _pairs(reply[2]))

    def apply(self, table: Table, now: float) -> Loaded | None:
        """The same in this process."""
        time = _milliseconds(now)
        record = table.get(self.key, now)
        digest, idle, touch = self.arguments
        code = _stands(record, digest, time)
        if code == GONE:
            return None
        if code == MOVED:
            return Loaded(MOVED, 0, {})
        if time - record["@t"] >= int(touch):
            record["@t"] = time
            _keep(table, self.key, record, time, idle)
        return Loaded(code, time, _bytes(record))


class Create(_Step):
    """A new session.

    Args:
        key: the record's.
        fields: what it begins with, the digest of its secret among them.
        idle: how long it lives unseen, in milliseconds.
        lifetime: how long it lives at most, in milliseconds.
    """

    __slots__ = ("fields",)

    script = scripts.CREATE

    def __init__(self, key: str, fields: Mapping[str, Argument], *, idle: int, lifetime: int) -> None:
        super().__init__(key, idle, lifetime, *(part for item in fields.items() for part in item))
        self.fields = fields

    def parse(self, reply: Any) -> Created:
        """What became of it."""
        return Created(*map(int, reply))

    def apply(self, table: Table, now: float) -> Created:
        """The same in this process."""
        if table.find(self.key, now) is not None:
            return Created(GONE)
        time = _milliseconds(now)
        deadline = time + int(self.arguments[1])
        generation = _microseconds(now)
        record = {"@c": time, "@t": time, "@a": deadline, "@g": generation, "@v": 1, **self.fields}
        _keep(table, self.key, record, time, self.arguments[0])
        return Created(FOUND, time, deadline, generation)


class Write(_Step):
    """Change a session, if it is still there. Fields that are not named stay as another request may have left them.

    Args:
        key: the record's.
        digest: of the secret that was given.
        fields: what to set.
        removed: what to delete.
        idle: how long it lives unseen, in milliseconds.
        rotated: the digest of the secret that opens it from now on, or None.
        grace: for how long the old secret is answered, in milliseconds.
        strict: whether the old secret is only told that the session moved, because the user is another one now.
        lifetime: how long it lives at most from now on, in milliseconds; 0: as before. A lifetime is given where the user is set.
        above: the generation that it must be above, so that it outlives the revocation of all others; 0: as before.
    """

    __slots__ = ("above", "digest", "fields", "grace", "idle", "lifetime", "removed", "rotated", "strict")

    script = scripts.WRITE

    def __init__(
        self,
        key: str,
        digest: str,
        fields: Mapping[str, Argument],
        removed: Sequence[str] = (),
        *,
        idle: int,
        rotated: str | None = None,
        grace: int = 0,
        strict: bool = False,
        lifetime: int = 0,
        above: int = 0,
    ) -> None:
        super().__init__(
            key,
            digest,
            idle,
            rotated or "",
            grace,
            "1" if strict else "0",
            lifetime,
            above,
            len(removed),
            *removed,
            *(part for item in fields.items() for part in item),
        )
        self.digest, self.fields, self.removed, self.idle = digest, fields, removed, idle
        self.rotated, self.grace, self.strict, self.lifetime, self.above = rotated, grace, strict, lifetime, above

    def parse(self, reply: Any) -> Written:
        """What became of it."""
        return Written(*map(int, reply))

    def apply(self, table: Table, now: float) -> Written:
        """The same in this process."""
        time = _milliseconds(now)
        record = table.get(self.key, now)
        code = _stands(record, self.digest, time)
        if code == RENEWED and self.rotated is not None:
            code = MOVED
        if code in (GONE, MOVED):
            return Written(code)
        for name in self.removed:
            record.pop(name, None)
        record.update(self.fields)
        if self.rotated is not None:
            strict = "1" if self.strict else "0"
            record.update({"@h": self.rotated, "@o": self.digest, "@u": time + self.grace, "@x": strict})
        if self.lifetime:
            record["@a"] = time + self.lifetime
        if self.lifetime or self.above:
            record["@g"] = max(_microseconds(now), self.above + 1)
        record["@v"] += 1
        record["@t"] = time
        _keep(table, self.key, record, time, self.idle)
        return Written(FOUND, time, record["@v"], record["@a"], record["@g"])


class Delete(_Step):
    """End a session.

    Args:
        key: the record's.
        digest: of its secret, or of the former one in its grace; None for whoever may end any.
    """

    __slots__ = ()

    script = scripts.DELETE

    def __init__(self, key: str, digest: str | None) -> None:
        super().__init__(key, digest or "")

    def parse(self, reply: Any) -> bool:
        """Whether there was one."""
        return bool(reply)

    def apply(self, table: Table, now: float) -> bool:
        """The same in this process."""
        record = table.get(self.key, now)
        digest = self.arguments[0]
        if record is None:
            return False
        in_grace = digest == record.get("@o") and _milliseconds(now) < int(record["@u"])
        if digest not in ("", record["@h"]) and not in_grace:
            return False
        table.delete(self.key)
        return True


class Look(_Step):
    """All fields of a record, none where there is no such session. It keeps nothing alive."""

    __slots__ = ()

    script = scripts.LOOK

    def parse(self, reply: Any) -> dict[str, bytes]:
        """The fields."""
        return _pairs(reply)

    def apply(self, table: Table, now: float) -> dict[str, bytes]:
        """The same in this process."""
        return _bytes(table.get(self.key, now) or {})


class Glance(_Step):
    """times, generation and principal of a session; None where there is no such session. It keeps nothing alive."""

    __slots__ = ()

    script = scripts.GLANCE

    def parse(self, reply: Any) -> Glimpse | None:
        """The times."""
        return None if not reply else Glimpse(int(reply[0]), int(reply[1]), int(reply[2]), reply[3])

    def apply(self, table: Table, now: float) -> Glimpse | None:
        """The same in this process."""
        record = table.get(self.key, now)
        return None if record is None else Glimpse(record["@c"], record["@t"], record["@g"], record.get("@p", b""))


class Check(_Step):
    """Whether a subject's session was revoked: the time before which none is valid, and whether this one is not."""

    __slots__ = ()

    script = scripts.CHECK

    def __init__(self, key: str, handle: str) -> None:
        super().__init__(key, handle)

    def parse(self, reply: Any) -> tuple[int, bool]:
        """The microseconds, and the verdict."""
        return int(reply[0]), bool(reply[1])

    def apply(self, table: Table, now: float) -> tuple[int, bool]:
        """The same in this process."""
        subject = table.get(self.key, now) or {}
        return _number(subject.get("nbf")), f"r:{self.arguments[0]!s}" in subject


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


class Enrol(_Step):
    """Put a session into its subject's list.

    Args:
        key: the subject's.
        handle: the session's.
        description: what the list is to say of it.
        lifetime: how long a session lives at most, in milliseconds.
        cap: how many there may be.
        revoke: whether those beyond are revoked; otherwise they are only no longer listed.
    """

    __slots__ = ()

    script = scripts.ENROL

    def __init__(self, key: str, handle: str, description: bytes, *, lifetime: int, cap: int, revoke: bool) -> None:
        super().__init__(key, handle, description, lifetime, cap, "1" if revoke else "0")

    def parse(self, reply: Any) -> list[str]:
        """The handles of those beyond, the oldest first."""
        return [one.decode() for one in reply]

    def apply(self, table: Table, now: float) -> list[str]:
        """The same in this process."""
        handle, description, lifetime, cap, revoke = self.arguments
        time, span = _milliseconds(now), int(lifetime)
        subject: dict[str, Any] = table.get(self.key, now) or {}
        subject[f"s:{handle!s}"] = (time, description)
        subject.pop(f"r:{handle!s}", None)  # a login counts for more than a revocation before it
        live = _tidy(subject, time, span)
        surplus = max(0, len(live) - int(cap))
        gone = [other for _, other in live if other != handle][:surplus]
        for other in gone:
            del subject[f"s:{other}"]
            if revoke == "1":
                subject[f"r:{other}"] = time + span
        table.set(self.key, subject, expires=_after(time + span), now=now)
        return gone


class Wait(_Step):
    """Wait until so many replicas have what this connection wrote. The answer is how many have. It belongs at the end of a flight.

    Args:
        replicas: how many.
        milliseconds: for how long at most; less than the store's deadline.
    """

    __slots__ = ()

    script = scripts.WAIT

    def __init__(self, replicas: int, milliseconds: int) -> None:
        self.keys: Sequence[str] = ()
        self.arguments = (replicas, milliseconds)

    def parse(self, reply: Any) -> int:
        """How many have."""
        return int(reply)

    def apply(self, table: Table, now: float) -> int:
        """There is nobody to wait for."""
        return int(self.arguments[0])


class Revoke(_Step):
    """Revoke one session of a subject, wherever its record lies. The answer is whether it was listed.

    Args:
        key: the subject's.
        handle: the session's.
        lifetime: how long a session lives at most, in milliseconds; 0: it is no longer listed, and that is all.
    """

    __slots__ = ()

    script = scripts.REVOKE

    def __init__(self, key: str, handle: str, *, lifetime: int) -> None:
        super().__init__(key, handle, lifetime)

    def parse(self, reply: Any) -> bool:
        """Whether it was listed."""
        return bool(reply)

    def apply(self, table: Table, now: float) -> bool:
        """The same in this process."""
        handle, lifetime = self.arguments
        subject: dict[str, Any] = table.get(self.key, now) or {}
        known = subject.pop(f"s:{handle!s}", None) is not None
        if int(lifetime) > 0:
            time = _milliseconds(now)
            subject[f"r:{handle!s}"] = until = time + int(lifetime)
            _tidy(subject, time, int(lifetime))
            table.set(self.key, subject, expires=_after(until), now=now)
        elif not subject:
            table.delete(self.key)
        return known


class RevokeAll(_Step):
    """Revoke all sessions of a subject. The answer is the time before which none is valid, and the handles, the oldest first.

    Args:
        key: the subject's.
        lifetime: how long a session lives at most, in milliseconds.
        keep: a handle that stays in the list. Its record must be given a generation above that time, or it is dead as well.
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
        time, span = _milliseconds(now), int(lifetime)
        listed = [handle for _, handle in _tidy(subject, time, span) if handle != keep]
        for handle in listed:
            del subject[f"s:{handle}"]
            subject[f"r:{handle}"] = time + span
        subject["nbf"] = not_before = max(_microseconds(now), _number(subject.get("nbf")) + 1)
        table.set(self.key, subject, expires=_after(time + span), now=now)
        return not_before, listed


class List(_Step):
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
        live = _tidy(subject, _milliseconds(now), int(self.arguments[0]))
        return Listed(
            _number(subject.get("nbf")), [(handle, began, subject[f"s:{handle!s}"][1]) for began, handle in live]
        )
