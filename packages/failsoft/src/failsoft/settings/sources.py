"""Where settings come from: a mapping, the environment, a TOML file.

Each source is read as a whole: a `Reading` holds what could be read and every mistake. No source knows what it is
layered on.
"""

import json
import re
import tomllib
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from os import PathLike, fspath
from typing import Any

from failsoft.settings.kinds import Kind, Mistake
from failsoft.settings.problems import SettingProblem, mask, nearest, show

__all__ = [
    "CONFIG_VARIABLE",
    "VARIABLE_PREFIX",
    "Option",
    "Reading",
    "about",
    "read_environment",
    "read_mapping",
    "read_toml",
]

VARIABLE_PREFIX = "FAILSOFT_"
"""What the names of environment variables begin with: ``FAILSOFT_STORE`` is `store`."""

CONFIG_VARIABLE = "FAILSOFT_CONFIG"
"""The environment variable that names a TOML file."""

_UNKNOWN = "failsoft.E001"
_NO_MAPPING = "failsoft.E002"
_NO_FILE = "failsoft.E003"
_TWICE = "failsoft.E004"


@dataclass(frozen=True, slots=True, kw_only=True)
class Option:
    """One setting, as data: validation and the reference page are made from it.

    Attributes:
        number: two digits, never given to another option; the middle of its mistakes' ids.
        name: the key.
        kind: what is accepted.
        default: in the normal form of its kind.
        doc: what it does, a sentence or more.
    """

    number: int
    name: str
    kind: Kind
    default: Any
    doc: str

    @property
    def unit(self) -> str | None:
        """The number's unit, such as "seconds", or None."""
        return self.kind.unit

    @property
    def range(self) -> tuple[float | None, float | None] | None:
        """The least and the greatest value, or None; an end that is None is open."""
        return self.kind.range

    @property
    def accepts(self) -> str:
        """What is accepted, in words."""
        return self.kind.accepts

    @property
    def variable(self) -> str:
        """The environment variable."""
        return VARIABLE_PREFIX + self.name.upper()

    def problem(self, mistake: Mistake, where: str) -> SettingProblem:
        """The problem that `mistake` is, found at `where`."""
        hint = mistake.hint
        if not mistake.complete:
            hint = f"accepted: {self.accepts}" + (f"; {hint}" if hint else "")
        return SettingProblem(
            id=f"failsoft.E{self.number}{mistake.digit}", key=self.name, message=mistake.message, hint=hint, where=where
        )


def about(number: int, kind: Kind, doc: str) -> dict[str, Any]:
    """What a field's metadata says of its `Option`."""
    return {"number": number, "kind": kind, "doc": doc}


@dataclass(frozen=True, slots=True)
class Reading:
    """What one source says: settings in normal form, where each was given, and every mistake.

    `where` says where a setting is given, or could be.
    """

    where: Callable[[str], str] = str
    values: dict[str, Any] = field(default_factory=dict)
    places: dict[str, str] = field(default_factory=dict)
    problems: list[SettingProblem] = field(default_factory=list)


def read_mapping(mapping: object, options: Mapping[str, Option], *, where: Callable[[str], str]) -> Reading:
    """Read `mapping`, whose keys are names of settings in upper or lower case; `where` names a key for messages."""
    if not isinstance(mapping, Mapping):
        return _no_mapping(mapping, where("..."))
    return _read(mapping.items(), options, where=where, value_of=lambda option, value: value)


def read_environment(environ: Mapping[str, str], options: Mapping[str, Option]) -> Reading:
    """Read the variables whose names begin with ``FAILSOFT_``, except `CONFIG_VARIABLE`. An empty one counts as not there, and one in
    small letters is a mistake."""
    entries = [
        (name.removeprefix(VARIABLE_PREFIX), text)
        for name, text in environ.items()
        if name.startswith(VARIABLE_PREFIX) and name != CONFIG_VARIABLE
    ]
    given = [(name, text) for name, text in entries if text != "" or name.lower() not in options]
    reading = _read(given, options, where=lambda key: VARIABLE_PREFIX + key.upper(), value_of=_decode)
    ours = {option.variable: option.name for option in options.values()} | {CONFIG_VARIABLE: ""}
    for name, text in environ.items():
        upper = name.upper()
        if text != "" and upper in ours and upper not in environ and not name.startswith(VARIABLE_PREFIX):
            message, hint = "is not read under this name", f"write {upper}"
            reading.problems.append(
                SettingProblem(id=_UNKNOWN, key=ours[upper], message=message, hint=hint, where=name)
            )
    return reading


def read_toml(path: str | PathLike[str], options: Mapping[str, Option]) -> Reading:
    """Read ``[tool.failsoft]``, or else ``[failsoft]``, or else the top level of a TOML file.

    Where there is such a table, the rest of the file is other programs' business.
    """
    name = fspath(path)
    try:
        with open(name, "rb") as file:
            document = tomllib.load(file)
    except OSError as error:
        return _no_file(name, f"the file cannot be read: {error.strerror or type(error).__name__}")
    except (ValueError, RecursionError) as error:  # TOML and UTF-8 errors are ValueErrors, as is a NUL in the path
        return _no_file(name, f"the file is not TOML: {str(error)[:200]}")
    tool = document.get("tool")
    nested = tool.get("failsoft") if isinstance(tool, dict) else None
    plain = document.get("failsoft")
    if nested is not None and plain is not None:
        return _no_file(name, "the file has both [failsoft] and [tool.failsoft]")
    if nested is None and plain is None:
        for key, value in (document | (tool if isinstance(tool, dict) else {})).items():
            if isinstance(value, dict) and nearest(key, ("failsoft",)):
                return _no_file(name, f"the file has no table [failsoft]; did you mean that by {show(key)}?")
        if isinstance(tool, dict):
            return _no_file(name, "the file has tables under [tool] but no [tool.failsoft]")
    table = nested if nested is not None else plain if plain is not None else document
    return read_mapping(table, options, where=lambda key: f"{key} in {name}")


def _read(
    entries: Iterable[tuple[object, object]],
    options: Mapping[str, Option],
    *,
    where: Callable[[str], str],
    value_of: Callable[[Option, object], object],
) -> Reading:
    reading = Reading(where)
    seen: set[str] = set()
    for key, given in entries:
        if not isinstance(key, str):
            reading.problems.extend(_no_mapping(key, where(show(key))).problems)
            continue
        name = key.lower()
        option = options.get(name)
        if option is None:
            reading.problems.append(_unknown(key, options, where))
        elif name in seen:
            hint = "keep one; upper and lower case do not matter"
            reading.problems.append(
                SettingProblem(id=_TWICE, key=name, message="is given twice", hint=hint, where=where(key))
            )
        else:
            seen.add(name)
            try:
                reading.values[name] = option.kind.read(value_of(option, given))
                reading.places[name] = where(key)
            except Mistake as mistake:
                reading.problems.append(option.problem(mistake, where(key)))
    return reading


def _decode(option: Option, text: object) -> object:
    if not option.kind.listed or not isinstance(text, str):
        return text
    if text.lstrip().startswith("["):
        try:
            return json.loads(text)
        except (ValueError, RecursionError):
            raise Mistake(2, "the text begins with '[' but is no JSON list") from None
    parts = [part for part in (part.strip() for part in re.split("[,;]", text)) if part]
    if not parts:
        raise Mistake(2, "the list is empty", "write [] for none")
    return parts[0] if len(parts) == 1 else parts


def _unknown(key: str, options: Mapping[str, Option], where: Callable[[str], str]) -> SettingProblem:
    # The value is not shown: it may be the secret whose name is misspelt.
    shown = mask(key) if key.isprintable() and len(key) <= 64 else show(key)
    near = nearest(key, options)
    hint = f"did you mean {where(near)}?" if near else "known are " + ", ".join(sorted(options))
    return SettingProblem(id=_UNKNOWN, key=shown, message="no such setting", hint=hint, where=where(shown))


def _no_mapping(given: object, where: str) -> Reading:
    problem = SettingProblem(
        id=_NO_MAPPING,
        key="",
        message=f"an object of type {type(given).__name__} was given",
        hint="accepted: a mapping of names of settings to values",
        where=where,
    )
    return Reading(problems=[problem])


def _no_file(name: str, message: str) -> Reading:
    hint = "accepted: a TOML file with the settings at its top level, in [failsoft] or in [tool.failsoft]"
    return Reading(problems=[SettingProblem(id=_NO_FILE, key="", message=message, hint=hint, where=name)])
