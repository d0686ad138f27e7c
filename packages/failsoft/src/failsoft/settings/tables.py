"""Kinds of settings that are tables: named stores, and limits for a part of an application."""

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from failsoft.settings.counting import Identities, Limits
from failsoft.settings.kinds import Choice, Kind, Mistake, Store, Whole, together
from failsoft.settings.problems import nearest, show

__all__ = ["Lease", "Scope", "Scopes", "StoreName", "Stores"]

_NAME_CHARACTERS = frozenset("abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789-_.")


def _is_name(value: object) -> bool:
    return isinstance(value, str) and 0 < len(value) <= 64 and _NAME_CHARACTERS.issuperset(value)


def _decoded(value: object) -> object:
    """`value`, or what the JSON text in it stands for: environments know nothing but text."""
    if isinstance(value, str) and value.lstrip()[:1] in ("{", "["):
        try:
            return json.loads(value)
        except (ValueError, RecursionError):
            raise Mistake(2, "the text is no JSON") from None
    return value


@dataclass(frozen=True, slots=True)
class Lease(Kind):
    """Units of a lease, or none."""

    @property
    def unit(self) -> str:
        return "units"

    @property
    def range(self) -> tuple[float | None, float | None]:
        return 0, 10_000

    @property
    def accepts(self) -> str:
        return "0, or a whole number from 2 to 10000"

    def read(self, value: object) -> int:
        units = Whole(0, 10_000).read(value)
        if units == 1:
            raise Mistake(2, "a lease of one unit saves nothing")
        return units


@dataclass(frozen=True, slots=True)
class Stores(Kind):
    """URLs of stores by their names."""

    @property
    def accepts(self) -> str:
        return "a table of names (letters, digits, '-', '_', '.') to URLs of stores; as text, a JSON object"

    def read(self, value: object) -> tuple[tuple[str, str], ...]:
        value = _decoded(value)
        if isinstance(value, (list, tuple)):
            try:
                value = dict(value)
            except (TypeError, ValueError):
                raise Mistake(1, f"{show(value)} was given") from None
        if not isinstance(value, Mapping):
            raise Mistake(1, f"{show(value)} was given")
        found: list[tuple[str, str]] = []
        wrong: list[Mistake] = []
        for name, url in value.items():
            if not _is_name(name) or name == "default":
                hint = "'default' is what the setting store names"
                wrong.append(Mistake(2, f"{show(name)} is no name of a further store", hint))
                continue
            try:
                found.append((name, Store().read(url)))
            except Mistake as one:
                wrong.append(Mistake(one.digit, f"{name}: {one.message}", one.hint, complete=one.complete))
        if wrong:
            raise together(wrong)
        return tuple(found)


@dataclass(frozen=True, slots=True)
class StoreName(Kind):
    """The name of a store. Whether there is one of that name is seen where all settings are."""

    @property
    def accepts(self) -> str:
        return "'default', or one of the names in stores"

    def read(self, value: object) -> str:
        if not isinstance(value, str):
            raise Mistake(1, f"{show(value)} was given")
        return _store_name(value)


@dataclass(frozen=True, slots=True, kw_only=True)
class Scope:
    """Limits for a part of an application; all requests of a client to that part count together.

    Attributes:
        name: what keys and messages call it.
        limits: the quotas.
        prefix: the path begins with these segments; "/api" has "/api" and "/api/x", and not "/apiary".
        host: the Host header's name, without a port; "*.example.com" is any name that ends in ".example.com".
        group: a Flask blueprint, a Django namespace or application name, the name of a mount in Starlette, a tag in FastAPI.
        by: whom it counts; None for the setting `by`.
        on_outage: what it does without its store; None for the setting.
        store: the name of its store.
    """

    name: str
    limits: tuple[Any, ...]
    prefix: str | None = None
    host: str | None = None
    group: str | None = None
    by: str | Callable[..., Any] | tuple[str | Callable[..., Any], ...] | None = None
    on_outage: Literal["open", "closed", "local"] | None = None
    store: str = "default"

    def has(self, path: str, host: str, groups: Sequence[str]) -> bool:
        """Whether a request belongs to this part: it fits everything that the scope says."""
        if self.prefix is not None and path != self.prefix and not path.startswith(self.prefix + "/"):
            return False
        if self.host is not None:
            name = (
                host.lower().removesuffix(".")
                if host.startswith("[")
                else host.lower().partition(":")[0].removesuffix(".")
            )
            wild = self.host.startswith("*.")
            if not (name.endswith(self.host[1:]) if wild else name == self.host):
                return False
        return self.group is None or self.group in groups


@dataclass(frozen=True, slots=True)
class Scopes(Kind):
    """Limits for parts of an application."""

    @property
    def accepts(self) -> str:
        return (
            "a list of tables with a name, limits, one or several of prefix ('/api'), host ('api.example.com', '*.example.com') "
            "and group (a Flask blueprint, a Django namespace, a Starlette mount, a FastAPI tag), and perhaps by, on_outage and "
            "store; as text, JSON"
        )

    def read(self, value: object) -> tuple[Scope, ...]:
        value = _decoded(value)
        if not isinstance(value, (list, tuple)):
            raise Mistake(1, f"{show(value)} was given")
        found: list[Scope] = []
        wrong: list[Mistake] = []
        for one in value:
            try:
                found.append(_scope({key: getattr(one, key) for key in _READ} if isinstance(one, Scope) else one))
            except Mistake as mistake:
                wrong.append(mistake)
        if wrong:
            raise together(wrong)
        names = [scope.name for scope in found]
        if twice := sorted({name for name in names if names.count(name) > 1}):
            raise Mistake(
                2, f"the name {twice[0]} is given twice", "each scope counts by itself, and needs a name of its own"
            )
        return tuple(found)


def _scope(given: object) -> Scope:
    if not isinstance(given, Mapping):
        raise Mistake(1, f"one is {show(given)}, not a table")
    name = given.get("name")
    called = name if _is_name(name) else "one"
    wrong: list[Mistake] = []
    for key in given:
        if key not in _READ:
            near = nearest(str(key), [known for known in _READ if known not in given])
            hint = f"did you mean {near}?" if near else ""
            wrong.append(Mistake(2, f"{called} has the key {show(key)}, which is not known", hint))
    if not _is_name(name):
        said = "one has no name" if name is None else f"one has the name {show(name)}"
        raise together([*wrong, Mistake(2, said, "letters, digits, '-', '_' and '.', at most 64")])
    read: dict[str, Any] = {}
    for key, one in given.items():
        if key not in _READ:
            continue
        if one is None:  # as if it were not there
            continue
        try:
            read[key] = _READ[key](one)
        except Mistake as mistake:
            wrong.append(Mistake(mistake.digit, f"{name}: {key}: {mistake.message}", mistake.hint))
    if wrong:
        raise together(wrong)
    if not read.get("limits"):
        raise Mistake(2, f"{name} has no limits")
    if not any(key in read for key in ("prefix", "host", "group")):
        raise Mistake(
            2, f"{name} says no part of the application", "what counts everywhere belongs into the setting limits"
        )
    return Scope(**read)


def _text(value: object) -> str:
    if not isinstance(value, str) or not value or not value.isprintable():
        raise Mistake(2, f"{show(value)} was given")
    return value


def _prefix(value: object) -> str:
    text = _text(value)
    if not text.startswith("/") or text == "/":
        raise Mistake(2, f"{show(value)} was given", "a prefix begins with '/' and has a segment, such as '/api'")
    if any(sign in text for sign in "*<{"):  # hardly a path has them, and nothing would be limited
        raise Mistake(2, f"{show(value)} was given", "a prefix is no template: '/api' has everything below it")
    return text.rstrip("/")


def _host(value: object) -> str:
    text = _text(value).lower()
    if "*" in text.removeprefix("*.") or ":" in text or "/" in text:
        raise Mistake(2, f"{show(value)} was given", "a name without a port, or '*.' and the end of one")
    return text


def _store_name(value: object) -> str:
    if not _is_name(value):
        raise Mistake(2, f"{show(value)} is no name of a store")
    return str(value)


_READ: Mapping[str, Callable[[Any], Any]] = {
    "name": _text,
    "limits": Limits().read,
    "prefix": _prefix,
    "host": _host,
    "group": _text,
    "by": Identities().read,
    "on_outage": Choice(("open", "closed", "local")).read,
    "store": _store_name,
}
