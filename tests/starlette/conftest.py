"""What the tests of the adapter share."""

from tests.starlette.apps import open_app

__all__ = ["open_app"]
