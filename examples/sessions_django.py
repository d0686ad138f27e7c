"""One session in three frameworks: the Django part, in one file. Run: gunicorn --chdir examples sessions_django:application"""

import os

from django.conf import settings
from django.core.wsgi import get_wsgi_application
from django.http import HttpResponse, JsonResponse
from django.urls import path
from django.views.decorators.csrf import csrf_exempt

settings.configure(
    ROOT_URLCONF=__name__,
    SECRET_KEY="for Django's own use",
    ALLOWED_HOSTS=["127.0.0.1", "localhost", "testserver"],
    # start: settings
    INSTALLED_APPS=["failsoft_django"],
    MIDDLEWARE=["failsoft_django.FailsoftMiddleware", "failsoft_django.SessionMiddleware"],
    SESSION_ENGINE="failsoft_django.sessions",
    SESSION_COOKIE_NAME="session",
    FAILSOFT={
        "secret": os.environ["APP_SECRET"],
        "session_snapshot": "5m",
        "session_snapshot_keys": ["theme"],
        "limits": ["10000/minute"],
    },
    # end: settings
)


# start: views
@csrf_exempt
def log_in(request, user):
    # django.contrib.auth.login does this by itself.
    request.session.login(user, methods=["pwd"])
    return HttpResponse(f"{user} logged in on Django\n")


def me(request):
    who = request.session.principal
    return JsonResponse({"user": who.subject if who else None, "keys": sorted(request.session.keys())})


@csrf_exempt
def put(request, key, value):
    request.session[key] = value
    return HttpResponse("set\n")


@csrf_exempt
def log_out(request):
    request.session.flush()
    return HttpResponse("logged out\n")


# end: views

urlpatterns = [
    path("django/login/<user>", log_in),
    path("django/me", me),
    path("django/set/<key>/<value>", put),
    path("django/logout", log_out),
]

application = get_wsgi_application()
