"""What a session holds: the values that the store had, those that were read, and what is to be written.

Theory of operation. Values are kept as they came and decoded when somebody asks. One that can be changed in place is *watched*: its bytes
are kept beside it, and compared when the session is saved. What is set or deleted is remembered by its name, and nothing else is
written: the rest of the record belongs to other requests as much as to this one. Names are the stored ones (see `record`).
"""

import logging
from collections.abc import Collection, Iterable, Iterator, Mapping
from typing import Any, Final, Protocol

from failsoft.errors import SessionTooLarge, SessionValueError
from failsoft.sessions.codec import ATOMS, decode, encode, is_immutable, is_unchanged
from failsoft.sessions.operations import NO_FIELDS, Fields
from failsoft.sessions.record import PRINCIPAL

__all__ = ["IDLE", "KEPT", "MISSING", "SEALED", "Content", "Keeper"]

_log = logging.getLogger("failsoft.sessions")

IDLE: Final = "@i"
"""Where a record keeps an idle time of its own."""

KEPT: Final = "@k"
"""Where it keeps whether the browser keeps the cookie when it is closed, if anybody has said so."""

SEALED: Final = b"\x01"
"""How a sealed value begins. JSON never does."""

MISSING: Final = object()
"""What `Content.find` gives where there is nothing."""


class Keeper(Protocol):
    """What a content must know of the application's sessions."""

    @property
    def most_bytes(self) -> int:
        """Of all names and values together."""
        ...

    @property
    def encrypts(self) -> bool:
        """Whether values are stored sealed."""
        ...

    def unseal(self, handle: str, name: str, data: bytes) -> bytes | None:
        """A value that the store had, or None where it cannot be read."""
        ...


class Content:
    """What one session holds.

    Args:
        keeper: the application's sessions.
        handle: the session's, "" where it has none yet.
        fields: what the store had.

    Attributes:
        handle: the session's.
        fields: what the store has, as far as it is known; what was sealed is kept so.
        changed: what is to be set, encoded.
        removed: what is to be deleted.
        watched: of what was read or set and can be changed in place, the bytes as they were then.
    """

    # No slots: see `failsoft.exchange.Flight`.
    _doubtful: Collection[str] = ()

    def __init__(self, keeper: Keeper, handle: str = "", fields: Fields = NO_FIELDS) -> None:
        self._keeper = keeper
        self.handle = handle
        self.fields = fields
        self.changed: dict[str, bytes] = {}
        self.removed: set[str] = set()
        self.watched: dict[str, bytes] = {}
        self._values: dict[str, Any] = {}
        self._size = -1  # counted when it matters

    def names(self) -> Iterator[str]:
        """What there is. Names that begin with ``@`` are no values."""
        seen = set(self.fields)
        yield from (name for name in [*self.fields] if name[:1] != "@" and name not in self.removed)
        yield from (name for name in [*self.changed] if name not in seen and name[:1] != "@")

    def __contains__(self, name: str) -> bool:
        return name in self.changed or (name in self.fields and name not in self.removed)

    def find(self, name: str) -> Any:
        """A value; `MISSING` where there is none, or where it cannot be read."""
        values = self._values
        if name in values:
            return values[name]
        data = self.fields.get(name)
        if data is None:
            return MISSING
        if data.startswith(SEALED) or self.removed or self._keeper.encrypts:
            data = self.encoded(name)
            if data is None:
                return MISSING
        try:
            value = decode(data)
        except ValueError:
            _log.error("the value %r of session %s is damaged; it counts as not there", name, self.handle)
            return MISSING
        values[name] = value
        kind = type(value)
        # The most common first: for the answer to `is_immutable` each of them would wait for a thousand instructions.
        if kind is list or kind is dict or (kind not in ATOMS and not is_immutable(value)):
            self.watched[name] = data
        return value

    def peek(self, name: str) -> Any:
        """The same, but None where there is none, and nothing is remembered of it."""
        if name in self._values:
            return self._values[name]
        data = self.encoded(name)
        try:
            return None if data is None else decode(data)
        except ValueError:
            return None

    def encoded(self, name: str) -> bytes | None:
        """What the store has under `name`, unsealed; None where that is nothing, or is to be deleted, or cannot be read."""
        data: bytes | None = self.fields.get(name)
        if data is None or name in self.removed:
            return None
        if data[:1] != SEALED and not self._keeper.encrypts:
            return data
        data = self._keeper.unseal(self.handle, name, data)
        if data is None:
            _log.error(
                "the value %r of session %s cannot be decrypted: is a secret missing in secret_fallbacks?",
                name,
                self.handle,
            )
        return data

    def put(self, name: str, value: Any, key: str | None = None) -> None:
        """Set a value. Raises what the module `codec` says, or `SessionTooLarge`; `key` is what their messages call it."""
        data = encode(key or name, value)
        self._put(name, data)
        self._values[name] = value
        if is_immutable(value):
            self.watched.pop(name, None)
        else:
            self.watched[name] = data

    def _put(self, name: str, data: bytes) -> None:
        before = self.changed.get(name)
        fresh = 0
        if before is None:
            before = b"" if name in self.removed else self.fields.get(name, b"")
            fresh = 0 if name in self.fields else len(name)
        size = self._counted() - len(before) + len(data) + fresh
        most = self._keeper.most_bytes
        if size > most:
            raise SessionTooLarge(
                f"session[{name!r}] of {len(data)} bytes makes the session {size} bytes long; session_bytes is {most}. "
                "Keep large things elsewhere and put their names into the session"
            )
        self._size = size
        self.changed[name] = data
        self.removed.discard(name)

    def put_own(self, name: str, data: bytes) -> None:
        """Set a field of ours."""
        self.changed[name] = data
        self.removed.discard(name)

    def remove_own(self, name: str) -> None:
        """Delete a field of ours, whether it is there or not."""
        self.changed.pop(name, None)
        self.removed.add(name)

    def remove(self, name: str) -> None:
        """Delete what there is under `name`."""
        if name in self.fields or name in self._doubtful:
            self.removed.add(name)
        self._size = self._counted() - len(self.changed.pop(name, b"") or self.fields.get(name, b""))
        self._values.pop(name, None)
        self.watched.pop(name, None)

    def _counted(self) -> int:
        if self._size < 0:
            self._size = self.fields.size()
        return self._size

    def changes(self) -> tuple[dict[str, bytes], list[str]]:
        """What has to be set and deleted. Raises what `put` raises, for values that changed inside."""
        for name, before in self.watched.items():
            value = self._values[name]
            if not is_unchanged(value, before) and (data := encode(name, value)) != before:
                self._put(name, data)
                self.watched[name] = data
        return self.changed, sorted(self.removed) if self.removed else []

    def is_as_read(self) -> bool:
        """Whether every value that was read surely is what it was: the quick question, before `changes` or `changed_inside`."""
        values = self._values
        for name, before in self.watched.items():  # noqa: SIM110 - a generator takes 3 thousand instructions more
            if not is_unchanged(values[name], before):
                return False
        return True

    def changed_inside(self) -> bool:
        """Whether a value that was read is not any more what it was."""
        try:
            return any(
                not is_unchanged(self._values[name], before) and encode(name, self._values[name]) != before
                for name, before in self.watched.items()
            )
        except SessionValueError:
            return True

    def saved(self, written: Mapping[str, bytes], stored: Mapping[str, bytes], removed: Collection[str]) -> None:
        """The store has what was to be written, and what is gone. What another task of the request changed meanwhile still is to be.

        Args:
            written: what was set.
            stored: the same, as the store has it.
            removed: what was deleted.
        """
        self.fields = self.fields.updated(stored, removed)
        if stored is not written:
            self._size = -1  # sealed values are longer
        if self.removed or not written.keys() <= self.changed.keys():
            self.removed = self.removed.difference(removed).union(written.keys() - self.changed.keys())
        self.changed = {name: data for name, data in self.changed.items() if written.get(name) is not data}

    def doubt(self, written: Collection[str]) -> None:
        """Nobody knows whether the store has what was to be `written`: what of it is deleted must be deleted there, too."""
        self._doubtful = {*self._doubtful, *written}
        self.removed.update(name for name in written if name not in self.changed and name not in self.fields)

    def lose(self) -> None:
        """Forget what was to be written, and what was read and may have been changed inside."""
        for name in (*self.changed, *self.watched):
            self._values.pop(name, None)
        self.changed, self.removed, self.watched = {}, set(), {}
        self._size = -1

    def snapshot(self, names: Iterable[str]) -> dict[str, bytes]:
        """The encoded values of `names`, as far as there are any, and the principal."""
        return {name: data for name in (*names, PRINCIPAL) if (data := self.encoded(name)) is not None}
