"""The Django app: its system checks."""

from django.apps import AppConfig

__all__ = ["FailsoftConfig"]


class FailsoftConfig(AppConfig):
    """Failsoft in ``INSTALLED_APPS``."""

    name = "failsoft_django"

    def ready(self) -> None:
        """Register the system checks."""
        from failsoft_django import checks  # noqa: F401 - registers by being imported, and needs the registry of apps
