"""What the tests of the adapter share."""

from hypothesis import settings

from tests.starlette.apps import open_app

__all__ = ["open_app"]

settings.register_profile("few", max_examples=10)  # see tests/core/conftest.py
