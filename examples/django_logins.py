"""The log-in pages of Django and its admin with limits, without a change to them; a whole project in one file.

Run: python examples/django_logins.py runserver
"""

import sys

import django
from django.conf import settings
from django.core.management import execute_from_command_line

settings.configure(
    DEBUG=True,
    SECRET_KEY="only for this example",
    ALLOWED_HOSTS=["*"],
    ROOT_URLCONF=__name__,
    DATABASES={"default": {"ENGINE": "django.db.backends.sqlite3", "NAME": ":memory:"}},
    INSTALLED_APPS=[
        "django.contrib.admin",
        "django.contrib.auth",
        "django.contrib.contenttypes",
        "django.contrib.messages",
        "django.contrib.sessions",
        "failsoft_django",
    ],
    MIDDLEWARE=[
        "failsoft_django.FailsoftMiddleware",
        "django.contrib.sessions.middleware.SessionMiddleware",
        "django.contrib.auth.middleware.AuthenticationMiddleware",
        "django.contrib.messages.middleware.MessageMiddleware",
    ],
    TEMPLATES=[{"BACKEND": "django.template.backends.django.DjangoTemplates", "APP_DIRS": True}],
    FAILSOFT={"limits": ["1000/minute"]},
    USE_TZ=True,
)
django.setup()

# start: urls
from django.contrib import admin  # noqa: E402 - in a project, settings are elsewhere
from django.urls import include, path  # noqa: E402

from failsoft_django.presets import limit_logins, limit_password_resets  # noqa: E402

urlpatterns = [
    path("admin/", limit_logins(admin.site.urls)),
    path("accounts/", limit_password_resets(limit_logins(include("django.contrib.auth.urls")))),
]
# end: urls

if __name__ == "__main__":
    execute_from_command_line(sys.argv)
