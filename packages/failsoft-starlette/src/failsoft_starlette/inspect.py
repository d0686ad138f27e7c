"""What ``failsoft limits`` asks of this adapter."""

from typing import Any

from starlette.applications import Starlette

from failsoft import ConfigurationError
from failsoft.inspection import Description
from failsoft_starlette.middleware import FailsoftMiddleware
from failsoft_starlette.routes import list_routes

__all__ = ["describe"]


def describe(app: Any) -> Description | None:
    """The description of a Starlette or FastAPI application, or None for anything else.

    Raises:
        ConfigurationError: it has no `FailsoftMiddleware`.
    """
    inner = app
    while not isinstance(inner, Starlette | FailsoftMiddleware) and hasattr(inner, "app"):
        inner = inner.app
    if not isinstance(inner, Starlette | FailsoftMiddleware):
        return None
    layer: Any = inner.build_middleware_stack() if isinstance(inner, Starlette) else inner
    while layer is not None and not isinstance(layer, FailsoftMiddleware):
        layer = getattr(layer, "app", None)
    if layer is None:
        raise ConfigurationError(
            "this application has no FailsoftMiddleware: app.add_middleware(FailsoftMiddleware, ...)"
        )
    framework = "FastAPI" if any(cls.__name__ == "FastAPI" for cls in type(inner).__mro__) else "Starlette"
    return Description(framework, layer.runtime, list_routes(app))
