"""`Settings`: every option of failsoft, in one frozen structure.

The options stand in one mixin for each part of failsoft. A mixin has no slots: a class cannot have two bases that do.
"""

import os
from collections.abc import Mapping
from dataclasses import MISSING, dataclass, fields, replace
from types import MappingProxyType
from typing import Any

from failsoft.settings.advice import advise
from failsoft.settings.consistency import conflicts
from failsoft.settings.kinds import Mistake
from failsoft.settings.limits import LimitSettings
from failsoft.settings.problems import SettingProblem, SettingsError, mask
from failsoft.settings.sessions import SessionSettings
from failsoft.settings.shedding import SheddingSettings
from failsoft.settings.sources import (
    CONFIG_VARIABLE,
    Option,
    Reading,
    read_environment,
    read_mapping,
    read_toml,
)
from failsoft.settings.workers import workers_from, workers_of_server

__all__ = ["OPTIONS", "Settings"]


@dataclass(frozen=True, slots=True, kw_only=True, repr=False)
class Settings(SessionSettings, SheddingSettings, LimitSettings):
    """The settings of failsoft, validated. `OPTIONS` describes each.

    The constructor takes what `from_mapping` takes, and gives every attribute in its normal form: durations are
    seconds, lists are tuples, networks are canonical.

    Raises:
        SettingsError: a value is not accepted; it lists every mistake. A name that does not exist is a TypeError here,
            as in every call, and in the other constructors a mistake that is told its nearest spelling. What does not
            go together is told once every value is right by itself.
    """

    def __post_init__(self) -> None:
        problems: list[SettingProblem] = []
        for option in OPTIONS:
            try:
                object.__setattr__(self, option.name, option.kind.read(getattr(self, option.name)))
            except Mistake as mistake:
                problems.append(option.problem(mistake, option.name))
        # Only values in their normal form can be compared.
        if problems := problems or list(conflicts(self)):
            raise SettingsError(problems)

    def __repr__(self) -> str:
        """Only what differs from the defaults, without secrets."""
        shown = []
        for option in OPTIONS:
            value = getattr(self, option.name)
            if value != option.default:
                shown.append(f"{option.name}={'***' if option.kind.hidden else mask(repr(value))}")
        return f"Settings({', '.join(shown)})"

    @classmethod
    def from_mapping(cls, mapping: Mapping[str, object], source: str = "FAILSOFT") -> "Settings":
        """Settings from a mapping, such as a framework's configuration.

        Args:
            mapping: names to values. Case does not matter: Flask's prefixed environment yields upper case. Values may
                be text.
            source: what messages call the mapping.

        Raises:
            SettingsError: lists every mistake.
        """
        return _settled([_from_mapping(mapping, source)], os.environ)

    @classmethod
    def from_env(cls, environ: Mapping[str, str]) -> "Settings":
        """Settings from environment variables: ``FAILSOFT_STORE`` and so on.

        Args:
            environ: the environment. Lists are JSON, or separated by commas or semicolons. An empty variable counts as
                not there, and ``FAILSOFT_CONFIG`` is left to `load`. Any other name that begins with ``FAILSOFT_`` is a
                mistake.

        Raises:
            SettingsError: lists every mistake.
        """
        return _settled([read_environment(environ, _BY_NAME)], environ)

    @classmethod
    def from_toml(cls, path: str | os.PathLike[str]) -> "Settings":
        """Settings from a TOML file: from ``[tool.failsoft]``, or else ``[failsoft]``, or else its top level.

        Raises:
            SettingsError: the file cannot be read, or lists every mistake in it.
        """
        return _settled([read_toml(path, _BY_NAME)], os.environ)

    @classmethod
    def load(
        cls,
        explicit: "Mapping[str, object] | Settings | None" = None,
        *,
        environ: Mapping[str, str] | None = None,
        source: str = "FAILSOFT",
        defaults: Mapping[str, object] | None = None,
        called: Mapping[str, str] | None = None,
    ) -> "Settings":
        """Settings from every source, each setting from the first that has it.

        The order is: `explicit`; the environment; the TOML file that ``FAILSOFT_CONFIG`` names; the defaults.

        Args:
            explicit: a mapping as for `from_mapping`; or complete settings, which are returned as they are.
            environ: the environment, by default this process's.
            source: what messages call `explicit`.
            defaults: what takes the place of defaults, by the names of settings: what a framework's own settings say.
            called: what messages call those, by the names of settings: the framework's own names.

        Raises:
            SettingsError: lists every mistake in every source.
        """
        if isinstance(explicit, Settings):
            return explicit
        environ = os.environ if environ is None else environ
        return _settled(_readings(explicit, environ, source), environ, defaults or {}, called or {})

    @classmethod
    def places(
        cls,
        explicit: "Mapping[str, object] | Settings | None" = None,
        *,
        environ: Mapping[str, str] | None = None,
        source: str = "FAILSOFT",
    ) -> dict[str, str]:
        """Where `load`, with the same arguments, takes each setting from, as that source spells it; what is a default is not in it.

        Args:
            explicit: as for `load`; complete settings say everything.
            environ: the environment, by default this process's.
            source: what messages call `explicit`.
        """
        if isinstance(explicit, Settings):
            return {option.name: f"{source}.{option.name}" for option in OPTIONS}
        found: dict[str, str] = {}
        for reading in reversed(_readings(explicit, os.environ if environ is None else environ, source)):
            found |= reading.places
        return found

    @property
    def effective_local_share(self) -> float:
        """The part of each limit that one process admits while the store is down, above 0 and at most 1."""
        return 1 / (self.workers * self.replicas) if self.local_share is None else self.local_share

    def at_store(self, url: str) -> "Settings":
        """These settings, to open another store with: the one at `url`. Nothing in them is about other stores."""
        return replace(self, store=url, stores=(), scopes=(), sessions=False, session_store="default")

    def advice(self, *, workers_seen: int | None = None) -> tuple[SettingProblem, ...]:
        """What is allowed and yet probably not meant, for a warning at start.

        Args:
            workers_seen: how many processes of this replica are really there, where that is known.
        """
        return advise(self, workers_seen)


def _described() -> tuple[Option, ...]:
    options = [
        Option(
            number=one.metadata["number"],
            name=one.name,
            kind=one.metadata["kind"],
            default=1 if one.default is MISSING else one.default,  # workers: what holds where nothing says otherwise
            doc=one.metadata["doc"],
        )
        for one in fields(Settings)
    ]
    return tuple(sorted(options, key=lambda option: option.number))


OPTIONS: tuple[Option, ...] = _described()
"""Every setting, as data, in the order of their numbers."""

_BY_NAME: Mapping[str, Option] = MappingProxyType({option.name: option for option in OPTIONS})


def _readings(explicit: Mapping[str, object] | None, environ: Mapping[str, str], source: str) -> list[Reading]:
    """What each source says, the first having precedence."""
    readings = [] if explicit is None else [_from_mapping(explicit, source)]
    readings.append(read_environment(environ, _BY_NAME))
    path = environ.get(CONFIG_VARIABLE)
    if path:
        readings.append(read_toml(path, _BY_NAME))
    return readings


def _from_mapping(mapping: object, source: str) -> Reading:
    return read_mapping(mapping, _BY_NAME, where=lambda key: source if key == "..." else f"{source}[{key!r}]")


def _settled(
    readings: list[Reading],
    environ: Mapping[str, str],
    defaults: Mapping[str, object] = MappingProxyType({}),
    called: Mapping[str, str] = MappingProxyType({}),
) -> Settings:
    """The settings that `readings` make, the first having precedence."""
    problems = [problem for reading in readings for problem in reading.problems]
    if problems:
        raise SettingsError(problems)
    workers = workers_from(environ)
    merged: dict[str, Any] = {"workers": workers, **defaults}
    places = dict(called)
    if workers > 1:
        places["workers"] = "WEB_CONCURRENCY" if workers_of_server(environ) is None else "the server's --workers"
    for reading in reversed(readings):
        merged |= reading.values
        places |= reading.places
    try:
        return Settings(**merged)
    except SettingsError as error:
        placed = [replace(problem, where=_place(problem, places, readings[0])) for problem in error.problems]
    raise SettingsError(placed)


def _place(problem: SettingProblem, places: Mapping[str, str], first: Reading) -> str:
    """Where what makes `problem` was given; or else where it could be."""
    found = dict.fromkeys(places[name] for name in (problem.key, *problem.beside) if name in places)
    return " and ".join(found) or first.where(problem.key)
