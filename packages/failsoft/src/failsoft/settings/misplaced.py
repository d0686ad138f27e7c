"""Settings that stand beside the mapping they belong into, where nothing would read them.

A framework's configuration has failsoft's settings in one mapping, ``FAILSOFT``. ``FAILSOFT_LIMITS`` beside it is a name that the
environment knows, so somebody writes it, and no limit is enforced. It is a mistake where it can be nothing else: its name is that of a
setting, or nearly, and what it says holds neither in the mapping nor in the environment.
"""

import os
from collections.abc import Callable, Container, Mapping
from difflib import get_close_matches

from failsoft.settings.kinds import Mistake
from failsoft.settings.problems import SettingProblem
from failsoft.settings.sources import CONFIG_VARIABLE, VARIABLE_PREFIX, read_environment
from failsoft.settings.structure import OPTIONS

__all__ = ["misplaced"]

_MISPLACED = "failsoft.E005"
_BY_NAME = {option.name: option for option in OPTIONS}
_ALIKE = 0.8
"""Names this much alike are one, misspelt; ``FAILSOFT_STORE_URL`` is the application's own business."""


def misplaced(
    config: Mapping[str, object],
    *,
    given: Mapping[str, object],
    where: Callable[[str], str],
    write: Callable[[str], str],
    own: tuple[str, ...] = (),
    overridden: Container[str] = (),
    environ: Mapping[str, str] | None = None,
) -> list[SettingProblem]:
    """What in `config` is meant for failsoft, and is not read.

    Args:
        config: a framework's configuration.
        given: the settings that are given where they should be, by their names.
        where: how a message calls a key of `config`.
        write: how a setting is spelt in this framework, for the cure.
        own: what its mapping has beside settings.
        overridden: names of settings that are given where nothing in `config` would hold against them, however it is spelt.
        environ: the environment, by default this process's. What is copied from it, as text or as what that says, is read there.
    """
    environ = os.environ if environ is None else environ
    names = [*_BY_NAME, *own]
    problems: list[SettingProblem] = []
    for key, value in config.items():
        if not isinstance(key, str) or key == "FAILSOFT" or _copied(key, value, environ):
            continue
        if key.upper() == "FAILSOFT":
            problems.append(_problem("", "is not read under this name", f"write {where('FAILSOFT')}", where(key)))
        elif key == CONFIG_VARIABLE:
            problems.append(_problem("", "is not read here", f"set the environment variable {key}", where(key)))
        elif key.startswith(VARIABLE_PREFIX):
            near = get_close_matches(key.removeprefix(VARIABLE_PREFIX).lower(), names, n=1, cutoff=_ALIKE)
            if not near or near[0] in overridden:
                continue
            name = near[0]
            if name not in given:
                problems.append(_problem(name, "is not read here", f"write {write(name)}", where(key)))
            elif _normal(name, given[name]) != _normal(name, value):
                message = f"is not read here, and {where('FAILSOFT')} says another {name!r}"
                problems.append(
                    _problem(name, message, f"remove it, give it another name, or write {write(name)}", where(key))
                )
    return problems


def _copied(key: str, value: object, environ: Mapping[str, str]) -> bool:
    if key not in environ:
        return False
    said = read_environment({key: environ[key]}, _BY_NAME).values
    return environ[key] == str(value) or any(one == _normal(name, value) for name, one in said.items())


def _normal(name: str, value: object) -> object:
    try:
        return _BY_NAME[name].kind.read(value) if name in _BY_NAME else value
    except Mistake:  # told elsewhere, if it is where settings are read
        return value


def _problem(key: str, message: str, hint: str, where: str) -> SettingProblem:
    # The value is not shown: it may be the secret.
    return SettingProblem(id=_MISPLACED, key=key, message=message, hint=hint, where=where)
