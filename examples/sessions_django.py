"""One session in three frameworks: the Django part, with Django's own users, in one file.

Needs APP_SECRET, the same 32 characters or more for all parts, and FAILSOFT_STORE, the same store: without it each process keeps its
sessions in its own memory, and shares nothing. Run:

    export APP_SECRET=$(python -c "import secrets; print(secrets.token_urlsafe(32))") FAILSOFT_STORE=redis://localhost:6379/0
    gunicorn --chdir examples sessions_django:application
"""

import os

import django
from django.conf import settings

settings.configure(
    ROOT_URLCONF=__name__,
    SECRET_KEY="for Django's own use",
    ALLOWED_HOSTS=["127.0.0.1", "localhost", "testserver"],
    DATABASES={"default": {"ENGINE": "django.db.backends.sqlite3", "NAME": "file:users?mode=memory&cache=shared"}},
    DEFAULT_AUTO_FIELD="django.db.models.BigAutoField",
    USE_TZ=True,
    # start: settings
    INSTALLED_APPS=["django.contrib.auth", "django.contrib.contenttypes", "failsoft_django"],
    MIDDLEWARE=[
        "failsoft_django.FailsoftMiddleware",
        "failsoft_django.SessionMiddleware",
        "django.contrib.auth.middleware.AuthenticationMiddleware",
    ],
    AUTHENTICATION_BACKENDS=[
        "django.contrib.auth.backends.ModelBackend",
        "failsoft_django.auth.PrincipalBackend",  # who logged in on Flask or FastAPI is request.user
    ],
    SESSION_ENGINE="failsoft_django.sessions",
    SESSION_COOKIE_NAME="session",  # as the others call it
    FAILSOFT={
        "secret": os.environ["APP_SECRET"],
        "session_absolute": "30d",  # as the others have it; else it is SESSION_COOKIE_AGE
        "session_snapshot": "5m",
        "session_snapshot_keys": ["theme"],
        "cookie_secure": False,  # for plain HTTP, on your own machine
        "limits": ["10000/minute"],
    },
    # end: settings
)
django.setup()

from django.contrib.auth import login, logout  # noqa: E402 - in a project, settings are elsewhere
from django.contrib.auth.models import User  # noqa: E402
from django.core.management import call_command  # noqa: E402
from django.core.wsgi import get_wsgi_application  # noqa: E402
from django.http import HttpResponse, JsonResponse  # noqa: E402
from django.shortcuts import get_object_or_404  # noqa: E402
from django.urls import path  # noqa: E402
from django.views.decorators.csrf import csrf_exempt  # noqa: E402

from failsoft import require_live_session  # noqa: E402
from failsoft_django import get_runtime  # noqa: E402
from failsoft_django.auth import PrincipalBackend  # noqa: E402


# start: views
@csrf_exempt
def log_in(request, number):
    # After the password was checked. With two backends, login() must be told whose user it is; authenticate() and LoginView say that.
    user = get_object_or_404(User, pk=number)
    login(request, user, backend="django.contrib.auth.backends.ModelBackend")
    return HttpResponse(f"{number} logged in on Django\n")


def me(request):
    # Keys that begin with an underscore are Django's own.
    keys = sorted(key for key, _ in request.session.items() if not key.startswith("_"))
    number = str(request.user.pk) if request.user.is_authenticated else None
    return JsonResponse({"user": number, "name": request.user.get_username(), "keys": keys})


@csrf_exempt
def put(request, key, value):
    request.session[key] = value
    return HttpResponse("set\n")


@csrf_exempt
def log_out(request):
    logout(request)
    return HttpResponse("logged out\n")


# end: views


# start: subjects
@csrf_exempt
@require_live_session
def log_out_other_devices(request):
    if not request.user.is_authenticated:
        return HttpResponse("log in first\n", status=401)
    ended = get_runtime().sessions.subjects.revoke_others(request.session.session)
    return JsonResponse({"ended": ended})


# end: subjects


# start: mapping
class ByName(PrincipalBackend):
    """In AUTHENTICATION_BACKENDS in the place of ours: the others log users in by their names."""

    def subject_of(self, user):
        return user.username

    def user_of(self, principal):
        return User.objects.filter(username=principal.subject, is_active=True).first()

    async def auser_of(self, principal):
        return await User.objects.filter(username=principal.subject, is_active=True).afirst()


# end: mapping

urlpatterns = [
    path("django/login/<int:number>", log_in),
    path("django/me", me),
    path("django/set/<key>/<value>", put),
    path("django/logout", log_out),
    path("django/log-out-other-devices", log_out_other_devices),
]

call_command("migrate", verbosity=0)
for name in ("ada", "grace"):  # their primary keys are 1 and 2
    User.objects.create(username=name, password="!")  # none; and the same in each process, as in one database

application = get_wsgi_application()
