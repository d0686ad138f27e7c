"""The process's one runtime, made from ``settings.FAILSOFT``.

Rules:

- All middleware instances of a process share it: a counter in memory is one counter, a connection is opened once.
- It is made when the first middleware is, so that a mistake in the settings stops the server from starting.
- A changed setting (``override_settings`` in tests) closes it; the next request makes another.
"""

from collections.abc import Callable, Mapping
from threading import Lock
from typing import Any, NamedTuple

from django.conf import settings as django_settings
from django.core.signals import setting_changed
from django.dispatch import receiver
from django.http import HttpRequest, HttpResponseBase
from django.utils.module_loading import import_string

from failsoft.errors import Rejected
from failsoft.runtime import Runtime
from failsoft.settings import SettingProblem, Settings, SettingsError
from failsoft_django.session_settings import RELEVANT, disagreements, engine_is_ours, session_defaults

__all__ = ["Installed", "Renderer", "get_runtime", "installed", "read_settings"]

Renderer = Callable[[HttpRequest, Rejected], HttpResponseBase]
"""Makes the response to a refused request."""

_RENDERER = "renderer"


class Installed(NamedTuple):
    """What the middleware works with."""

    runtime: Runtime
    renderer: Renderer | None


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
                found = _installed = Installed(Runtime(settings), renderer)
    return found


def read_settings() -> tuple[Settings, Renderer | None]:
    """What ``settings.FAILSOFT`` says, with the environment and the defaults beneath it.

    It takes one key more than `failsoft.Settings` has, ``renderer``: a function of the request and the
    `failsoft.Rejected` that returns the response to a refused request, or its dotted path. The header fields of a refusal are
    added to what it returns.

    Where failsoft keeps Django's sessions, Django's settings of sessions take the place of defaults (see `session_settings`).

    Raises:
        SettingsError: lists every mistake.
    """
    given: Any = getattr(django_settings, "FAILSOFT", None)
    problems: list[SettingProblem] = []
    renderer: Renderer | None = None
    if isinstance(given, Mapping):
        own = [key for key in given if isinstance(key, str) and key.lower() == _RENDERER]
        for key in own:
            try:
                renderer = _renderer(given[key])
            except (ImportError, TypeError) as error:
                problems.append(_renderer_problem(key, error))
        given = {key: value for key, value in given.items() if key not in own}
    ours = engine_is_ours()
    try:
        loaded = Settings.load(given, defaults=session_defaults() if ours else None)
    except SettingsError as error:
        raise SettingsError([*error.problems, *problems]) from None
    if ours:
        problems += disagreements(loaded)
    if problems:
        raise SettingsError(problems)
    return loaded, renderer


def _renderer(given: Any) -> Renderer | None:
    found = import_string(given) if isinstance(given, str) else given
    if found is not None and not callable(found):
        raise TypeError(f"an object of type {type(found).__name__} is not callable")
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
