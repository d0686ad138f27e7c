"""Tests of a Django project that names its store. Run: pytest examples/testing_django.py"""

import django
from django.conf import settings
from django.http import HttpResponse
from django.test import SimpleTestCase, override_settings
from django.urls import path

from failsoft import limit
from failsoft.testing import FaultyStore
from failsoft_django import get_runtime

settings.configure(
    ROOT_URLCONF=__name__,
    INSTALLED_APPS=["failsoft_django"],
    MIDDLEWARE=["failsoft_django.FailsoftMiddleware"],
    FAILSOFT={"store": "redis://cache.example", "limits": ["100/minute"]},
)
django.setup()


@limit("2/minute", on_outage="closed")
def index(request):
    return HttpResponse("hello")


urlpatterns = [path("", index)]


# start: tests
class IndexTests(SimpleTestCase):
    def setUp(self):
        # Each test begins with limits that nobody has used: a changed FAILSOFT makes all of it anew.
        self.enterContext(override_settings(FAILSOFT={**settings.FAILSOFT, "store": "memory://"}))

    def test_in_memory(self):
        assert [self.client.get("/").status_code for _ in range(3)] == [200, 200, 429]

    def test_without_the_store(self):
        store = get_runtime().store = FaultyStore()
        with store.away():
            refused = self.client.get("/")
        assert (refused.status_code, refused["Degraded"]) == (503, "limits;reason=no_connection")
        assert self.client.get("/").status_code == 200


# end: tests
