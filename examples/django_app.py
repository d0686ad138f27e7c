"""Rate limits in Django, in one file. Run: gunicorn --chdir examples django_app:application"""

from django.conf import settings
from django.core.wsgi import get_wsgi_application
from django.http import HttpResponse
from django.urls import path

from failsoft import limit

settings.configure(
    ROOT_URLCONF=__name__,
    ALLOWED_HOSTS=["127.0.0.1", "localhost", "testserver"],
    INSTALLED_APPS=["failsoft_django"],
    MIDDLEWARE=["failsoft_django.FailsoftMiddleware"],
    FAILSOFT={"limits": ["1000/minute"]},
)


@limit("12/minute", shared="hello")
def hello(request):
    return HttpResponse("hello from Django\n", content_type="text/plain")


@limit("60/minute", shared="work", on_outage="local")
def work(request):
    return HttpResponse("work done by Django\n", content_type="text/plain")


urlpatterns = [path("", hello), path("work", work)]

application = get_wsgi_application()
