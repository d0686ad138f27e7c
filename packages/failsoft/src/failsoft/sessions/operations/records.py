"""Steps on one session's record."""

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from failsoft.exchange import Argument, Table
from failsoft.sessions import scripts
from failsoft.sessions.operations.fields import NO_FIELDS, Fields
from failsoft.sessions.operations.steps import Step, after, microseconds, milliseconds, pairs

__all__ = [
    "FOUND",
    "GONE",
    "MOVED",
    "RENEWED",
    "Create",
    "Created",
    "Delete",
    "Glance",
    "Glimpse",
    "Load",
    "Loaded",
    "Look",
    "Wait",
    "Write",
    "Written",
]

FOUND, RENEWED, MOVED = 1, 2, 3
GONE = 0


class Loaded(NamedTuple):
    """A record.

    Attributes:
        code: `FOUND`; `RENEWED`, found by the secret before the last rotation; `MOVED`, that secret opens nothing any more, and
            the browser has a newer one or, if no response was lost, soon will.
        now: when it was loaded.
        fields: all its fields; none where it moved.
    """

    code: int
    now: int
    fields: Fields


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


def _stands(record: Mapping[str, Any] | None, digest: Argument, now: int) -> int:
    """What `digest` is to a record: `FOUND`, `RENEWED`, `MOVED`, or `GONE`."""
    if record is None or now >= record["@a"]:
        return GONE
    if record["@h"] == digest:
        return FOUND
    if record.get("@o") != digest:
        return MOVED if record.get("@q") == digest and now < int(record["@r"]) else GONE
    if now >= int(record["@u"]):
        return GONE
    return MOVED if record["@x"] == "1" else RENEWED


def _bytes(record: Mapping[str, Any]) -> dict[str, bytes]:
    return {name: value if isinstance(value, bytes) else str(value).encode() for name, value in record.items()}


def _keep(table: Table, key: str, record: dict[str, Any], now: int, idle: Argument) -> None:
    ends = min(now + int(record.get("@i", idle)), record["@a"])
    table.set(key, record, expires=after(ends), now=now / 1000)


class Load(Step):
    """The session, which it keeps alive.

    Args:
        key: the record's.
        digest: of the secret that was given.
        idle: how long a session lives unseen, in milliseconds.
        touch: how often that is written, in milliseconds.
    """

    __slots__ = ("packed",)

    script = scripts.LOAD

    def __init__(self, key: str, digest: str, *, idle: int, touch: int) -> None:
        self.keys = (key,)  # not by way of `Step`: each request makes one
        self.arguments = (digest, idle, touch)
        self.packed: bytes | None = None  # the next request of the same browser has the same step

    def parse(self, reply: Any) -> Loaded | None:
        """The record, or None where there is no such session."""
        if not reply:
            return None
        if len(reply) == 4 and (reply[0] == FOUND or reply[0] == RENEWED):
            # By the base's constructor, here and in `Write`: their own takes 1.9 thousand instructions more.
            return tuple.__new__(Loaded, (reply[0], reply[1], Fields.joined(reply[2], reply[3])))
        if reply == [MOVED]:
            return Loaded(MOVED, 0, NO_FIELDS)
        raise ValueError(f"a reply of {len(reply)} values that no script gives")

    def apply(self, table: Table, now: float) -> Loaded | None:
        """The same in this process."""
        time = milliseconds(now)
        record = table.get(self.key, now)
        digest, idle, touch = self.arguments
        code = _stands(record, digest, time)
        if code == GONE:
            return None
        if code == MOVED:
            return Loaded(MOVED, 0, NO_FIELDS)
        if code == FOUND and "@n" in record:
            record["@u"] = time + int(record.pop("@n"))
        if time - record["@t"] >= int(touch):
            record["@t"] = time
            _keep(table, self.key, record, time, idle)
        return Loaded(code, time, Fields.of(_bytes(record)))


class Create(Step):
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
        if reply == [GONE]:
            return Created(GONE)
        code, now, deadline, generation = map(int, reply)
        if code != FOUND:
            raise ValueError(f"the code {code}, which no script gives")
        return Created(code, now, deadline, generation)

    def apply(self, table: Table, now: float) -> Created:
        """The same in this process."""
        if table.find(self.key, now) is not None:
            return Created(GONE)
        time = milliseconds(now)
        deadline = time + int(self.arguments[1])
        generation = microseconds(now)
        record = {"@c": time, "@t": time, "@a": deadline, "@g": generation, "@v": 1, **self.fields}
        _keep(table, self.key, record, time, self.arguments[0])
        return Created(FOUND, time, deadline, generation)


class Write(Step):
    """Change a session, if it is still there. Fields that are not named stay as another request may have left them.

    Args:
        key: the record's.
        digest: of the secret that was given.
        fields: what to set.
        removed: what to delete.
        idle: how long it lives unseen, in milliseconds.
        rotated: the digest of the secret that opens it from now on, or None.
        grace: for how long the old secret is answered, in milliseconds, from the first use of the new one on; if strict, from now
            on; 0: not at all.
        strict: whether the old secret is only told that the session moved, because the user is another one now.
        lifetime: how long it lives at most from now on, in milliseconds; 0: as before. A lifetime is given where the user is set.
        above: the generation that it must be above, so that it outlives the revocation of all others; 0: as before.
    """

    __slots__ = ("above", "digest", "fields", "grace", "idle", "lifetime", "removed", "rotated", "script", "strict")

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
        self.keys = (key,)  # not by way of `Step`: many requests make one
        parts: list[Argument] = [digest, idle, len(removed) if removed else "0"]
        if rotated is None and not lifetime and not above:
            self.script = scripts.WRITE
        else:
            self.script = scripts.RENEW
            parts += (rotated or "", grace, "1" if strict else "0", lifetime, above)
        parts += removed
        for item in fields.items():
            parts += item
        self.arguments = tuple(parts)
        self.digest, self.fields, self.removed, self.idle = digest, fields, removed, idle
        self.rotated, self.grace, self.strict, self.lifetime, self.above = rotated, grace, strict, lifetime, above

    def parse(self, reply: Any) -> Written:
        """What became of it."""
        if len(reply) == 5 and reply[0] == FOUND:
            return tuple.__new__(Written, reply)
        if reply == [GONE] or reply == [MOVED]:
            return Written(reply[0])
        raise ValueError(f"a reply of {len(reply)} values that no script gives")

    def apply(self, table: Table, now: float) -> Written:
        """The same in this process."""
        time = milliseconds(now)
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
            strict, till = "1" if self.strict else "0", time + self.grace
            if "@o" in record and time < int(record["@u"]):
                record["@q"], record["@r"] = record["@o"], min(int(record["@u"]), time + self.grace)
            else:
                record.pop("@q", None)
                record.pop("@r", None)
            if self.strict or not self.grace:
                record.pop("@n", None)
            else:
                record["@n"], till = self.grace, record["@a"]
            record.update({"@h": self.rotated, "@o": self.digest, "@u": till, "@x": strict})
        if self.lifetime:
            record["@a"] = time + self.lifetime
        if self.lifetime or self.above:
            record["@g"] = max(microseconds(now), self.above + 1)
        record["@v"] += 1
        record["@t"] = time
        _keep(table, self.key, record, time, self.idle)
        return Written(FOUND, time, record["@v"], record["@a"], record["@g"])


class Delete(Step):
    """End a session.

    Args:
        key: the record's.
        digest: of its secret, or of the former one of the same user in its grace; None for whoever may end any.
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
        in_grace = digest == record.get("@o") and record["@x"] != "1" and milliseconds(now) < int(record["@u"])
        if digest not in ("", record["@h"]) and not in_grace:
            return False
        table.delete(self.key)
        return True


class Look(Step):
    """All fields of a record, none where there is no such session. It keeps nothing alive."""

    __slots__ = ()

    script = scripts.LOOK

    def parse(self, reply: Any) -> dict[str, bytes]:
        """The fields."""
        return pairs(reply)

    def apply(self, table: Table, now: float) -> dict[str, bytes]:
        """The same in this process."""
        return _bytes(table.get(self.key, now) or {})


class Glance(Step):
    """times, generation and principal of a session; None where there is no such session. It keeps nothing alive."""

    __slots__ = ()

    script = scripts.GLANCE

    def parse(self, reply: Any) -> Glimpse | None:
        """The times."""
        if not reply:
            return None
        created, seen, generation, principal = reply
        return Glimpse(int(created), int(seen), int(generation), principal)

    def apply(self, table: Table, now: float) -> Glimpse | None:
        """The same in this process."""
        record = table.get(self.key, now)
        return None if record is None else Glimpse(record["@c"], record["@t"], record["@g"], record.get("@p", b""))


class Wait(Step):
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
