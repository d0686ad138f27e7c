"""Whether functions of the user's can be called as they will be: told when an application starts, or each such request would be a 500."""

from failsoft.errors import ConfigurationError
from failsoft.exchange.places import line_of
from failsoft.settings.callables import name_of, unfit

__all__ = ["check_renderer", "name_of", "unfit"]


def check_renderer(given: object) -> None:
    """Look at what is to make the responses to refusals.

    Raises:
        ConfigurationError: it cannot be called with the request and the refusal.
    """
    if not callable(given):
        cure = ", not its name" if isinstance(given, str) else ""
        raise ConfigurationError(
            f"renderer is an object of type {type(given).__name__}: give the function itself{cure}. It takes the request and the "
            "failsoft.Rejected"
        )
    parameters = unfit(given, 2)
    if parameters is not None:
        raise ConfigurationError(
            f"renderer={name_of(given)} ({line_of(given)}) is called with the request and the refusal, and its parameters are "
            f"{parameters}: give it two, for these"
        )
