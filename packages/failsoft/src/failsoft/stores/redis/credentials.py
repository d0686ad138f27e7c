"""Credentials that change: a provider is asked anew for each connection, and connections live at most 30 s.

So a token that expires, or a password that was rotated, needs nothing but a provider that knows the new one: the server
is told within 30 s. It is asked in the background, and may take its time; no request waits for it.
"""

import importlib
from collections import deque
from typing import Any

from failsoft.settings.urls import StoreMistake

__all__ = ["Credentials", "read_credentials"]


_GIVE = "give a redis.CredentialProvider, or the dotted path of one, of its class or of a function that makes one"


class Credentials:
    """A `redis.CredentialProvider`, and what it gave lately, so that it can be kept out of messages.

    Args:
        provider: has `get_credentials`, which returns a password, or a user and a password.
    """

    def __init__(self, provider: Any) -> None:
        self._provider = provider
        self._given: deque[str] = deque(maxlen=8)

    def __repr__(self) -> str:
        return f"Credentials({type(self._provider).__name__})"

    def get_credentials(self) -> tuple[str, ...]:
        """For redis-py."""
        given = tuple(self._provider.get_credentials())
        if given[-1] not in self._given:
            self._given.append(given[-1])
        return given

    def hide(self, text: str) -> str:
        """`text` without what was given."""
        for secret in self._given:
            text = text.replace(secret, "***") if secret else text
        return text


def read_credentials(name: str, value: Any) -> Credentials:
    """Those of a provider, or of what the dotted path of one leads to.

    Args:
        name: of the option.
        value: an object with `get_credentials`, a class or a function that makes one without arguments, or the dotted path
            of any of these, such as ``myapp.auth:provider``.

    Raises:
        ConfigurationError: it cannot be imported or made, or is no provider.
    """
    provider = _imported(name, value) if isinstance(value, str) else value
    if isinstance(provider, type) or (callable(provider) and not hasattr(provider, "get_credentials")):
        try:
            provider = provider()
        except Exception as error:
            raise StoreMistake(f"is wrong: making it raised {type(error).__name__}", _GIVE, name) from error
    if not callable(getattr(provider, "get_credentials", None)):
        cause = f"is wrong: an object of type {type(provider).__name__} has no get_credentials()"
        raise StoreMistake(cause, _GIVE, name)
    return Credentials(provider)


def _imported(name: str, path: str) -> Any:
    module, _, attribute = path.replace(":", ".").rpartition(".")
    try:
        return getattr(importlib.import_module(module), attribute)
    except (ImportError, AttributeError, ValueError) as error:
        cause = f"is wrong: {path!r} cannot be imported ({type(error).__name__}: {error})"
        raise StoreMistake(cause, _GIVE, name) from error
