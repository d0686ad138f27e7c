"""Runs Django's own tests of session engines on ours: `test_djangos_own` gets them, and starts this in a process of its own.

Its arguments: the directory that Django's package ``sessions_tests`` lies in, and the URL of each store to run them on. With time zones and
without, on each. It prints a line of JSON: how many tests ran, and how many of them were coroutines.
"""

import json
import sys
import unittest
from inspect import iscoroutinefunction
from typing import Any

import django
from django.conf import settings
from django.test.utils import setup_test_environment

BUT = {
    "test_empty_session_saved": "looks into the table of Django's engine for the database",
    "test_secure_session_cookie": "changes SESSION_COOKIE_SECURE and not the name, which the check failsoft.E905 forbids",
}
"""Tests of Django's middleware that are not about our engine."""


def configure() -> None:
    """Django, as its own tests want it, with our engine."""
    settings.configure(
        SECRET_KEY="a secret of the tests, of forty characters",
        INSTALLED_APPS=["django.contrib.sessions", "sessions_tests", "failsoft_django"],
        SESSION_ENGINE="failsoft_django.sessions",
        SILENCED_SYSTEM_CHECKS=["failsoft.W007", "failsoft.W901"],
        FAILSOFT={},
    )
    django.setup()


def suite_of(url: str, zones: bool) -> tuple[unittest.TestSuite, int]:
    """The tests on one store, and how many of them are coroutines."""
    from django.test import SimpleTestCase, override_settings
    from sessions_tests import tests

    from failsoft_django.sessions import SessionStore

    tests.DatabaseSession = SessionStore  # what a test of the middleware takes
    changed = override_settings(FAILSOFT={"store": url, "deadline": "5s"}, USE_TZ=zones)
    kinds: list[Any] = [
        changed(type("Engine", (tests.SessionTestsMixin, SimpleTestCase), {"backend": SessionStore})),
        changed(type("Middleware", (tests.SessionMiddlewareTests,), {"databases": set()})),
    ]
    suite = unittest.TestSuite()
    coroutines = 0
    for kind in kinds:
        names = [name for name in unittest.defaultTestLoader.getTestCaseNames(kind) if name not in BUT]
        coroutines += sum(iscoroutinefunction(getattr(kind, name)) for name in names)
        suite.addTests(map(kind, names))
    return suite, coroutines


def main(directory: str, *urls: str) -> int:
    """Run them; 0 if all pass."""
    sys.path.append(directory)
    configure()
    setup_test_environment()
    suite, coroutines = unittest.TestSuite(), 0
    for url in urls:
        for zones in (True, False):
            found, waited = suite_of(url, zones)
            suite.addTests(found)
            coroutines += waited
    result = unittest.TextTestRunner().run(suite)
    print(json.dumps([result.testsRun, coroutines]))
    return 0 if result.wasSuccessful() and not result.skipped else 1


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
