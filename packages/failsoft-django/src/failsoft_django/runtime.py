"""The process's one runtime, made from ``settings.FAILSOFT``.

Rules:

- All middleware instances of a process share it: a counter in memory is one counter, a connection is opened once.
- It is made when the first middleware is, so that a mistake in the settings stops the server from starting.
- A changed setting (``override_settings`` in tests) closes it; the next request makes another.
"""

from collections.abc import Callable, Mapping
from threading import Lock
from typing import Any, Final, NamedTuple

from django.conf import settings as django_settings
from django.core.signals import setting_changed
from django.dispatch import receiver
from django.http import HttpRequest, HttpResponseBase
from django.utils.module_loading import import_string

from failsoft.errors import ConfigurationError, Rejected
from failsoft.exchange.policy import is_asynchronous
from failsoft.exchange.signatures import check_renderer
from failsoft.forks import start_over_in_children
from failsoft.runtime import Runtime
from failsoft.settings import SettingProblem, Settings, SettingsError
from failsoft.settings.misplaced import misplaced
from failsoft_django.session_settings import CALLED, RELEVANT, disagreements, engine_is_ours, session_defaults

__all__ = ["Installed", "Renderer", "get_runtime", "installed", "read_elsewhere", "read_settings", "told"]

Renderer = Callable[[HttpRequest, Rejected], HttpResponseBase]
"""Makes the response to a refused request."""

_RENDERER = "renderer"


class Installed(NamedTuple):
    """What the middleware works with."""

    runtime: Runtime
    renderer: Renderer | None


told: Final[set[SettingProblem]] = set()
"""Advice about the settings that a system check of this process has given: the log need not repeat it."""

_lock = Lock()
_installed: Installed | None = None


def get_runtime() -> Runtime:
    """The failsoft of this process: listen to its events, look at its store.

    Raises:
        ConfigurationError: ``settings.FAILSOFT`` holds a mistake; the message lists every one.
    """
    return installed().runtime


def installed() -> Installed:
    """The runtime and the renderer of this process, made if there are none yet. Raises as `get_runtime` does."""
    global _installed
    found = _installed
    if found is None:
        with _lock:
            found = _installed
            if found is None:
                settings, renderer = read_settings()
                found = _installed = Installed(Runtime(settings, told=told), renderer)
    return found


def _start_over(_: object) -> None:
    """See `failsoft.forks`. What another thread of the parent was making is made by the first request here."""
    global _lock
    _lock = Lock()


start_over_in_children(installed, _start_over)


def read_settings() -> tuple[Settings, Renderer | None]:
    """What ``settings.FAILSOFT`` says, with the environment and the defaults beneath it.

    It takes one key more than `failsoft.Settings` has, ``renderer``: a function of the request and the
    `failsoft.Rejected` that returns the response to a refused request, or its dotted path. The header fields of a refusal are
    added to what it returns.

    Where failsoft keeps Django's sessions, Django's settings of sessions take the place of defaults (see `session_settings`).

    Raises:
        SettingsError: lists every mistake.
    """
    given, own = _given()
    problems = _beside(given, own)
    renderer: Renderer | None = None
    for key, value in own.items():
        try:
            renderer = _renderer(value)
        except (ImportError, ConfigurationError) as error:
            problems.append(_renderer_problem(key, error))
    ours = engine_is_ours()
    try:
        loaded = Settings.load(given, defaults=session_defaults() if ours else None, called=CALLED if ours else None)
    except SettingsError as error:
        raise SettingsError([*error.problems, *problems]) from None
    if ours:
        problems += disagreements(loaded, Settings.places(given))
    if problems:
        raise SettingsError(problems)
    return loaded, renderer


def read_elsewhere() -> Settings | None:
    """What the same settings are in Flask and Starlette, which do not know Django's. None where no ``secret`` is among them.

    Those who share sessions share a secret. Without one in failsoft's settings it is ``SECRET_KEY``, and the project is alone.
    """
    given, _ = _given()
    if "secret" not in Settings.places(given):
        return None
    try:
        return Settings.load(given, defaults={"sessions": True})
    except SettingsError:  # here they are none, or `read_settings` has said so
        return None


def _given() -> tuple[Any, dict[str, Any]]:
    """What ``settings.FAILSOFT`` holds, for `Settings`; and what of it is the adapter's own."""
    given: Any = getattr(django_settings, "FAILSOFT", None)
    if not isinstance(given, Mapping):
        return given, {}
    own = {key: value for key, value in given.items() if isinstance(key, str) and key.lower() == _RENDERER}
    return {key: value for key, value in given.items() if key not in own}, own


def _beside(given: Any, own: Mapping[str, Any]) -> list[SettingProblem]:
    """Settings that stand beside ``settings.FAILSOFT``."""
    config = {name: getattr(django_settings, name) for name in dir(django_settings) if name.startswith("FAILSOFT_")}
    inside = {str(key).lower(): value for key, value in {**given, **own}.items()} if isinstance(given, Mapping) else {}
    return misplaced(
        config,
        given=inside,
        where="settings.{}".format,
        write=lambda name: f"FAILSOFT = {{{name!r}: ...}}",
        own=(_RENDERER,),
    )


def _renderer(given: Any) -> Renderer | None:
    found = import_string(given) if isinstance(given, str) else given
    if found is not None:
        check_renderer(found)
        if is_asynchronous(found):
            raise ConfigurationError("renderer is an async function, and nobody awaits it: write a plain one")
    return found  # type: ignore[no-any-return]  # what it returns shows when it is called


def _renderer_problem(key: str, error: Exception) -> SettingProblem:
    return SettingProblem(
        id="failsoft.E901",
        key=_RENDERER,
        message=str(error),
        hint="accepted: a function of the request and the failsoft.Rejected that returns a response, or its dotted path",
        where=f"FAILSOFT[{key!r}]",
    )


@receiver(setting_changed)
def _forget(*, setting: str, **_: Any) -> None:
    global _installed
    found = _installed
    ours = setting == "SESSION_ENGINE" or (found is not None and found.runtime.settings.sessions)
    if setting == "FAILSOFT" or (setting in RELEVANT and ours):
        with _lock:
            old, _installed = _installed, None
        if old is not None:
            old.runtime.close()
