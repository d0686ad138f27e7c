"""The Django app: its system checks, and what other applications of the process are told of its routes."""

from django.apps import AppConfig

__all__ = ["FailsoftConfig"]


class FailsoftConfig(AppConfig):
    """Failsoft in ``INSTALLED_APPS``."""

    name = "failsoft_django"

    def ready(self) -> None:
        """Register the system checks and the routes."""
        from failsoft.exchange.applications import installed
        from failsoft_django import checks  # noqa: F401 - registers by being imported, and needs the registry of apps
        from failsoft_django.inspect import targets_known

        installed(self, targets_known)
