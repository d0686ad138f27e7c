"""Values of a session as bytes, and back as the same values.

Theory of operation. A value is JSON, so that what is stored can be read by eye, and reading it runs nobody's code: there is no pickle.
What JSON has no word for is written as a *tag*, an object with one key that begins with ``$``: ``{"$date":"2026-11-23"}``. Rules:

- What comes back equals what was put in, and is of the same type; what would not is refused where it is assigned, with an error
  that names the place. The alternative is a session that works until the next request.
- Accepted: None, bool, int, float, str, list, dict with str keys, tuple, set, bytes, datetime, date, Decimal, UUID, and
  text that is safe in HTML (a str with ``__html__``: Markup, SafeString), at most `MAX_DEPTH` deep.
- Instances of subclasses of dict, list, datetime, date, Decimal and UUID (OAuth tokens, the UUIDs of database drivers) come back as
  the plain type, which they equal. Subclasses of the others are refused, enums and named tuples among them: what
  sets them apart would be lost.
- A datetime keeps its clock reading and its offset from UTC exactly; where it has none, also its `fold`. The rules of its time zone
  stay behind: a ZoneInfo comes back as a fixed offset. Safe text comes back as Markup where markupsafe is installed, else as str.
- Equal values of equal order have equal bytes in every process (sets are sorted), and a value that was read is written as it was
  stored. Comparing bytes therefore tells whether a value was changed in place.
- A user's own object that looks like a tag gets one more ``$``, which reading takes away.

msgspec would write dates, sets, enums and data classes on its own, without a tag, and NaN as null. So every container is looked at
before, by a loop that does nothing else: plain JSON, which is what nearly all sessions hold, then is msgspec's alone. The rest is
walked, and so is what msgspec refuses (text that is not Unicode), to find its place for the error's message.
"""

from base64 import b64decode, b64encode
from collections.abc import Callable
from datetime import date, datetime, timedelta
from decimal import Decimal
from math import isfinite
from typing import Any
from uuid import UUID

import msgspec

from failsoft.errors import SessionValueError

try:
    from markupsafe import Markup as _Markup
except ImportError:  # only where no template engine is installed
    _Markup = None  # type: ignore[assignment,misc]  # mypy takes the name for a class alone

__all__ = ["ATOMS", "MAX_DEPTH", "decode", "encode", "is_immutable", "is_unchanged"]

MAX_DEPTH = 64
"""Containers within each other. No honest session is as deep; what contains itself is deeper than any bound."""

_ACCEPTED = (
    "None, bool, int, float, str, list, dict with str keys, tuple, set, bytes, datetime, date, Decimal, UUID, "
    f"and text with __html__ (Markup), at most {MAX_DEPTH} deep"
)

_SHOWN = 40
"""Characters of a key that a message shows."""

ATOMS = frozenset({str, int, float, bool, type(None), bytes, datetime, date, Decimal, UUID})
"""Types whose values cannot be changed in place, nor hold anything that can."""

_PLAIN = frozenset({str, int, bool, type(None)})

_MAX_WIDTH = 10_000
"""Containers of one level that the quick look takes. What contains itself twice would double with each level."""

_MAX_BITS = 2000
"""Of an integer that certainly can be written: Python's limit can be set to 640 digits at the lowest."""

_SECOND = timedelta(seconds=1)

_write = msgspec.json.Encoder().encode
_read = msgspec.json.Decoder().decode


_Writer = Callable[[Any, int], Any]


class _Refused(Exception):
    """Something inside the value cannot be stored. The steps to it are collected on the way out, the innermost first."""

    def __init__(self, what: str) -> None:
        super().__init__(what)
        self.what = what
        self.steps: list[str] = []


def encode(key: str, value: Any) -> bytes:
    """The bytes of a value.

    Args:
        key: the session's key that the value belongs to, for the error's message.
        value: what the module's rules accept.

    Raises:
        SessionValueError: it cannot be stored. The message names the key, the place inside the value, the type and what is accepted.
    """
    try:
        if type(value) in _PLAIN or _is_plain(value):
            return _write(value)
    except ValueError:  # text that is not Unicode, or an integer of too many digits
        pass
    try:
        return _write(_tagged(value, 0))
    except _Refused as refused:
        raise _error(key, refused) from None


def decode(data: bytes) -> Any:
    """The value that `encode` made these bytes of.

    Raises:
        ValueError: they are malformed, or written by a version that knows more types. The message shows nothing of them.
    """
    try:
        value = _read(data)
        # In what `encode` writes, no space separates a brace from its key, and inside a text the quotation mark is escaped.
        # Bytes are searched ten times as fast by `find` as by `in`; most have no "$" at all, which is found out 30 ns sooner.
        return value if data.find(b"$") < 0 or data.find(b'{"$') < 0 else _revived(value)
    except (msgspec.DecodeError, ValueError, TypeError, ArithmeticError, RecursionError) as error:
        # Not chained: a UnicodeDecodeError carries all of the data.
        raise ValueError(f"not a stored session value ({type(error).__name__})") from None


def is_unchanged(value: Any, data: bytes) -> bool:
    """Whether `value`, which was read from `data`, surely still says the same; where this is False, `encode` tells.

    A third of what `encode` costs, and paid for every container that a request reads. It does not see that a list was replaced by an equal
    tuple, or a text by the date that it spells: without a tag, both are written alike.
    """
    try:
        return _write(value) == data
    except (TypeError, ValueError, RecursionError):
        return False


def is_immutable(value: object) -> bool:
    """Whether the value can be relied upon not to be changed in place. Where this is unknown, it is False."""
    return type(value) in ATOMS or (type(value) is tuple and _immutable_items(value, 1))


def _immutable_items(items: tuple[object, ...], depth: int) -> bool:
    for item in items:
        if type(item) in ATOMS:
            continue
        if type(item) is not tuple or depth >= MAX_DEPTH or not _immutable_items(item, depth + 1):
            return False
    return True


def _error(key: str, refused: _Refused) -> SessionValueError:
    steps = refused.steps[::-1]
    if len(steps) > 8:  # what contains itself leads to MAX_DEPTH of them
        steps = [*steps[:5], "[...]", *steps[-2:]]
    place = f"session[{_shown(key)}]{''.join(steps)}"
    return SessionValueError(f"{place} {refused.what}, which a session cannot hold; accepted: {_ACCEPTED}")


def _shown(key: object) -> str:
    text = ascii(key)
    return text if len(text) <= _SHOWN else f"{text[:_SHOWN]}..."


# Writing. Each writer is given a value and the number of containers around it.


def _is_plain(value: Any) -> bool:
    """Whether msgspec would write the value as `_tagged` does, unless it refuses to. False where that takes long to tell."""
    level = [value]
    for _ in range(MAX_DEPTH):
        below: list[Any] = []
        for container in level:
            kind = type(container)
            if kind is dict:
                for name in container:
                    if type(name) is not str or (name[:1] == "$" and len(container) == 1):
                        return False
                items = container.values()
            elif kind is list:
                items = container
            else:
                return kind is float and isfinite(container)
            for item in items:
                kind = type(item)
                if kind in _PLAIN:
                    continue
                if kind is dict or kind is list:
                    below.append(item)
                elif kind is not float or not isfinite(item):
                    return False
        if not below:
            return True
        if len(below) > _MAX_WIDTH:
            return False
        level = below
    return False


def _tagged(value: Any, depth: int) -> Any:
    writer = _WRITERS.get(type(value))
    if writer is None:
        writer = _inherited(value)
    return writer(value, depth)


def _inherited(value: Any) -> _Writer:
    """The writer for an instance of a subclass."""
    kind = type(value)
    if issubclass(kind, str) and hasattr(kind, "__html__"):
        return _write_markup
    for base, writer in _INHERITED:
        if issubclass(kind, base):
            return writer
    name = kind.__qualname__ if kind.__module__ == "builtins" else f"{kind.__module__}.{kind.__qualname__}"
    raise _Refused(f"is of type {name}")


def _write_dict(value: dict[Any, Any], depth: int) -> dict[str, Any]:
    _check_depth(depth)
    items = {}
    for name, item in value.items():
        if type(name) is not str:
            raise _Refused(f"has a key of type {type(name).__qualname__} ({_shown(name)})")
        _write_text(name, depth)
        try:
            items[name] = _tagged(item, depth + 1)
        except _Refused as refused:
            refused.steps.append(f"[{_shown(name)}]")
            raise
    if len(items) == 1:
        ((name, item),) = items.items()
        if name.startswith("$"):
            return {f"${name}": item}
    return items


def _write_list(value: list[Any] | tuple[Any, ...], depth: int) -> list[Any]:
    _check_depth(depth)
    items = []
    for index, item in enumerate(value):
        try:
            items.append(_tagged(item, depth + 1))
        except _Refused as refused:
            refused.steps.append(f"[{index}]")
            raise
    return items


def _write_tuple(value: tuple[Any, ...], depth: int) -> dict[str, Any]:
    return {"$tuple": _write_list(value, depth)}


def _write_set(value: set[Any], depth: int) -> dict[str, Any]:
    # The order of a set differs between processes.
    return {"$set": sorted(_write_list(list(value), depth), key=_write)}


def _write_text(value: str, depth: int) -> str:
    if not value.isascii():
        try:
            value.encode()
        except UnicodeEncodeError:
            raise _Refused("has text with a lone surrogate, which is not Unicode") from None
    return value


def _write_int(value: int, depth: int) -> int:
    if value.bit_length() > _MAX_BITS:
        try:
            str(value)
        except ValueError:
            raise _Refused("is an int of more digits than sys.get_int_max_str_digits()") from None
    return value


def _write_float(value: float, depth: int) -> float:
    if not isfinite(value):
        raise _Refused(f"is the float {value}")
    return value


def _write_markup(value: str, depth: int) -> dict[str, str]:
    return {"$html": _write_text(str.__str__(value), depth)}


def _write_datetime(value: datetime, depth: int) -> dict[str, str]:
    text = datetime.isoformat(value)
    offset = value.utcoffset()
    if offset is None:
        return {"$datetime": f"{text}/1" if value.fold else text}
    if offset and abs(offset) < _SECOND:
        raise _Refused("is a datetime less than a second off UTC")
    return {"$datetime": text}


def _write_date(value: date, depth: int) -> dict[str, str]:
    return {"$date": date.isoformat(value)}


def _write_decimal(value: Decimal, depth: int) -> dict[str, str]:
    return {"$decimal": Decimal.__str__(value)}


def _write_uuid(value: UUID, depth: int) -> dict[str, str]:
    return {"$uuid": value.hex}


def _write_bytes(value: bytes, depth: int) -> dict[str, str]:
    return {"$bytes": b64encode(value).decode()}


def _write_constant(value: bool | None, depth: int) -> bool | None:
    return value


def _check_depth(depth: int) -> None:
    if depth >= MAX_DEPTH:
        raise _Refused(f"is more than {MAX_DEPTH} containers deep, or within itself")


_WRITERS: dict[type, _Writer] = {
    type(None): _write_constant,
    bool: _write_constant,
    str: _write_text,
    int: _write_int,
    float: _write_float,
    dict: _write_dict,
    list: _write_list,
    tuple: _write_tuple,
    set: _write_set,
    bytes: _write_bytes,
    datetime: _write_datetime,
    date: _write_date,
    Decimal: _write_decimal,
    UUID: _write_uuid,
}

_INHERITED: tuple[tuple[type, _Writer], ...] = (
    (dict, lambda value, depth: _write_dict(dict(value), depth)),
    (list, lambda value, depth: _write_list(list(value), depth)),
    (datetime, _write_datetime),  # before date, which it is too
    (date, _write_date),
    (Decimal, _write_decimal),
    (UUID, _write_uuid),
)


# Reading. Containers are fresh from the decoder, so they are changed where they are.


def _revived(value: Any) -> Any:
    if type(value) is dict:
        if len(value) == 1:
            ((name, item),) = value.items()
            if name.startswith("$"):
                if name.startswith("$$"):
                    return {name[1:]: _revived(item)}
                return _READERS[name](item) if name in _READERS else _unknown(name)
        for name, item in value.items():
            if type(item) in (dict, list):
                value[name] = _revived(item)
    elif type(value) is list:
        for index, item in enumerate(value):
            if type(item) in (dict, list):
                value[index] = _revived(item)
    return value


def _unknown(tag: str) -> Any:
    raise ValueError(f"the tag {_shown(tag)} is not known")


def _items(value: Any) -> list[Any]:
    if type(value) is not list:
        raise ValueError("a tag without its list")
    items: list[Any] = _revived(value)
    return items


def _text(value: Any) -> str:
    if type(value) is not str:
        raise ValueError("a tag without its text")
    return value


def _read_datetime(value: Any) -> datetime:
    text, slash, fold = _text(value).partition("/")
    if not slash:
        return datetime.fromisoformat(text)
    if fold != "1":
        raise ValueError("a datetime is folded or not")
    return datetime.fromisoformat(text).replace(fold=1)


def _read_markup(value: Any) -> str:
    text = _text(value)
    return text if _Markup is None else _Markup(text)  # the application said so when it stored it


_READERS: dict[str, Callable[[Any], Any]] = {
    "$tuple": lambda value: tuple(_items(value)),
    "$set": lambda value: set(_items(value)),
    "$html": _read_markup,
    "$datetime": _read_datetime,
    "$date": lambda value: date.fromisoformat(_text(value)),
    "$decimal": lambda value: Decimal(_text(value)),
    "$uuid": lambda value: UUID(_text(value)),
    "$bytes": lambda value: b64decode(_text(value), validate=True),
}
