"""What is wrong with settings, as data.

Every mistake has an id that stays the same from release to release, for tools that list or silence mistakes one by one
(Django's system checks do). ``failsoft.E0..`` are mistakes in where settings come from; ``failsoft.E<option>1`` is a
value of the wrong kind for that option, ``failsoft.E<option>2`` one that is out of its range, and
``failsoft.E<option>3`` and on one that does not go together with other settings; ``failsoft.W...`` is advice. What a
message shows of a value never includes a password: of a URL the part before ``@`` is masked, of a secret nothing is
shown.
"""

import re
from collections.abc import Iterable
from dataclasses import dataclass
from difflib import get_close_matches

from failsoft.errors import ConfigurationError

__all__ = ["SettingProblem", "SettingsError", "mask", "nearest", "show"]

_SHOWN = 80
"""Characters of a value that a message shows."""

_USERINFO = re.compile(r"://.*@", re.DOTALL)
_SECRET_PARAMETER = re.compile(r"([?&][^=&#]*(?:pass|secret|token|key)[^=&#]*=)[^&#'\"]*", re.IGNORECASE)


@dataclass(frozen=True, slots=True, kw_only=True)
class SettingProblem:
    """One mistake, or one piece of advice.

    Attributes:
        id: such as ``failsoft.E122``; the same for the same kind of mistake in the same setting, in every release.
        key: the setting's name; for an unknown one, the name that was given.
        message: what is wrong.
        hint: what is accepted, and the nearest right spelling where there is one.
        where: the key as its source spells it: ``FAILSOFT['store']``, ``FAILSOFT_STORE``, ``store in
            /etc/failsoft.toml``. Where it does not go together with others, all of them that were given somewhere.
        beside: the other settings that it does not go together with.
    """

    id: str
    key: str
    message: str
    hint: str
    where: str
    beside: tuple[str, ...] = ()

    def __str__(self) -> str:
        return f"{self.where}: {self.message}; {self.hint} ({self.id})"


class SettingsError(ConfigurationError):
    """Settings are wrong. The message lists every mistake.

    Attributes:
        problems: the mistakes, in the order of their sources and keys.
    """

    def __init__(self, problems: Iterable[SettingProblem]) -> None:
        self.problems = tuple(problems)
        super().__init__(self.problems)  # the one argument, so that a copy or a pickle can be made

    def __str__(self) -> str:
        if len(self.problems) == 1:
            return str(self.problems[0])
        return "\n".join([f"{len(self.problems)} mistakes in the settings:", *(f"  {one}" for one in self.problems)])


def mask(text: str) -> str:
    """`text` without the passwords of the URLs in it: for logs, events and messages."""
    return _SECRET_PARAMETER.sub(r"\1***", _USERINFO.sub("://***@", text))


def show(value: object) -> str:
    """`value` as a message may show it: short and masked. Never raises."""
    try:
        text = mask(repr(value))
    except Exception:  # a repr is anybody's code, and an explanation of a mistake must not fail
        text = f"an object of type {type(value).__name__}"
    return text if len(text) <= _SHOWN else text[: _SHOWN - 3] + "..."


def nearest(name: str, names: Iterable[str]) -> str | None:
    """The one of `names` that `name` is most likely meant to be, or None."""
    found = get_close_matches(name[:_SHOWN].lower(), names, n=1)
    return found[0] if found else None
