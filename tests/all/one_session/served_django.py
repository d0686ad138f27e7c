"""The example's Django part, with a view that takes as long as it is told to."""

import os
import time

from django.contrib.auth import get_user_model
from django.http import HttpResponse
from django.urls import path
from django.views.decorators.csrf import csrf_exempt

from examples import sessions_django


@csrf_exempt
def slow(request, key):
    """Read the session, wait until the file is there that the environment names, and write."""
    request.session.get("x")
    open(os.environ["SLOW"] + ".begun", "w").close()
    while not os.path.exists(os.environ["SLOW"]):
        time.sleep(0.01)
    request.session[key] = "late"
    return HttpResponse("slow\n")


for name in ("linus", "mary", "john", "edsger", "barbara"):  # 3 to 7
    get_user_model().objects.create_user(name)
sessions_django.urlpatterns.append(path("django/slow/<key>", slow))
application = sessions_django.application
