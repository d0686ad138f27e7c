"""Decorators with parentheses and without, and what is said of those that were forgotten.

Rules:

- What takes arguments and is written without parentheses gets the view as its first argument. Where a function may stand there, nobody can
  tell at once; but then a framework takes for a view what is going to decorate, and is told so when it looks at it, or else calls it.
- What takes no arguments may be written with empty parentheses.
"""

from abc import ABC, abstractmethod
from typing import TYPE_CHECKING, Any, Final, Self, overload

from failsoft.errors import ConfigurationError
from failsoft.exchange.policy import Policy, Target

__all__ = ["WithArguments", "WithoutArguments"]

_NOTHING: Final[Any] = object()


class WithArguments(ABC):
    """A decorator that was given arguments."""

    bare: str | None = None
    """Where a function was its first argument: what to tell whoever left out the parentheses."""

    @abstractmethod
    def decorate(self, target: Target) -> Target:
        """What takes the place of `target`."""

    def __call__(self, target: Target, *args: Any, **kwargs: Any) -> Target:
        """Put it on `target`."""
        decorated = callable(target) or isinstance(target, staticmethod | classmethod)
        if self.bare is not None and (args or kwargs or not decorated):
            raise ConfigurationError(self.bare)  # called as the view that it is taken for
        return self.decorate(target, *args, **kwargs)

    if not TYPE_CHECKING:  # else every attribute would seem to exist

        def __getattr__(self, name: str) -> Any:
            # What frameworks ask a view for when it gets a route. `inspect.signature` goes on after an AttributeError, and FastAPI then
            # takes what decorates for a view with one parameter.
            if name in ("__name__", "__signature__") and self.bare is not None:
                raise (AttributeError if name == "__name__" else ValueError)(self.bare)
            if name == "__signature__":  # FastAPI would ask clients for the parameters of what is given to Depends
                raise ValueError(f"{self!r} is a decorator: put it on a function, and use that here")
            raise AttributeError(f"{type(self).__name__!r} object has no attribute {name!r}", name=name, obj=self)


class WithoutArguments(Policy):
    """A decorator that takes no arguments: ``@exempt``, or ``@exempt()``."""

    @overload
    def __call__(self) -> Self: ...

    @overload
    def __call__(self, target: Target) -> Target: ...

    def __call__(self, target: Any = _NOTHING) -> Any:
        """Put it on `target`, if there is one."""
        return self if target is _NOTHING else super().__call__(target)
