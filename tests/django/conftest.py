"""Applications for Django's own tests."""

from collections.abc import Iterator
from contextlib import ExitStack
from typing import Any, Protocol

import pytest
from django.core.handlers.asgi import ASGIHandler
from django.core.handlers.wsgi import WSGIHandler
from django.test import override_settings

from failsoft.testing import App, AsgiApp, WsgiApp
from failsoft_django import get_runtime
from tests.django.harness import configure

configure()

OURS = "failsoft_django.FailsoftMiddleware"


class Serve(Protocol):
    """Serves a URLconf until the test ends."""

    def __call__(
        self, *patterns: Any, asgi: bool = False, middleware: Any = (OURS,), django: Any = None, **failsoft: Any
    ) -> App:
        """An application with ``FAILSOFT = failsoft`` and the settings of `django` besides."""
        ...


@pytest.fixture
def serve() -> Iterator[Serve]:
    """See `Serve`."""
    with ExitStack() as stack:

        def serve(
            *patterns: Any, asgi: bool = False, middleware: Any = (OURS,), django: Any = None, **failsoft: Any
        ) -> App:
            changed = {"ROOT_URLCONF": patterns, "MIDDLEWARE": list(middleware), "FAILSOFT": failsoft, **(django or {})}
            stack.enter_context(override_settings(**changed))
            app = AsgiApp(ASGIHandler(), get_runtime()) if asgi else WsgiApp(WSGIHandler(), get_runtime())
            stack.callback(app.close)
            return app

        yield serve
