"""Applications of several frameworks in one process know of each other's routes."""

from collections.abc import Callable, Iterator
from typing import Any

import pytest
from django.http import HttpResponse
from django.test import override_settings
from django.urls import get_resolver, path
from flask import Flask
from starlette.applications import Starlette
from starlette.routing import Route

import failsoft_django
import failsoft_flask
import failsoft_starlette
import tests.django.harness  # noqa: F401 - sets Django up by being imported
from failsoft import limit
from failsoft.exchange import Declaration, collect

AUDITS: dict[str, Callable[[], list[Declaration]]] = {
    "flask": lambda: failsoft_flask.audit(Flask("another")),
    "starlette": lambda: failsoft_starlette.audit(Starlette()),
    "django": failsoft_django.audit,
}


def views() -> Iterator[Callable[..., HttpResponse]]:
    """Four functions, each by itself."""
    for _ in range(4):

        def view(*_: Any) -> HttpResponse:
            return HttpResponse()

        yield view


@pytest.mark.parametrize("framework", AUDITS)
def test_what_another_leads_to_is_not_lost(framework: str) -> None:
    """An audit lists what no route leads to, and nothing that one of an application leads to that has served nothing yet."""

    lost, of_flask, of_starlette, of_django = (limit("1/minute")(view) for view in views())
    flask = Flask(__name__)
    failsoft_flask.Failsoft(flask, store="memory://")
    flask.add_url_rule("/", view_func=of_flask)
    starlette = failsoft_starlette.FailsoftMiddleware(Starlette(routes=[Route("/", of_starlette)]), store="memory://")
    with override_settings(ROOT_URLCONF=(path("", of_django),)):
        assert 1 == len(get_resolver().url_patterns)  # as when the first request came
        found = [one.policies for one in AUDITS[framework]()]
    by_name = {"lost": lost, "flask": of_flask, "starlette": of_starlette, "django": of_django}
    assert ["lost"] == [name for name, view in by_name.items() if collect([view]) in found]
    starlette.runtime.close()
