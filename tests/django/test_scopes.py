"""What is a part of a Django project: namespaces, application names, paths behind a script name; and actions of viewsets."""

from typing import Any

import pytest
from django.http import HttpResponse
from django.urls import include, path
from rest_framework.decorators import action
from rest_framework.renderers import JSONRenderer
from rest_framework.response import Response
from rest_framework.routers import DefaultRouter
from rest_framework.viewsets import ViewSet

from failsoft import LimitDecided, limit
from tests.django.conftest import Serve

pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning:rest_framework")  # what it does is its own business

both = pytest.mark.parametrize("asgi", [False, True], ids=["wsgi", "asgi"])


def ok(request: Any, *args: Any, **kwargs: Any) -> HttpResponse:
    return HttpResponse(b"ok")


CART = ([path("<int:item>", ok)], "cart")
SHOP = ([path("", ok), path("cart/", include(CART))], "shop")
PATTERNS = (
    path("shop/", include(SHOP)),
    path("outlet/", include(SHOP, namespace="outlet")),
    path("plain/", include([path("x", ok)])),
)


@both
@pytest.mark.parametrize(
    ("group", "inside", "outside"),
    [
        ("shop", ["/shop/", "/shop/cart/1", "/outlet/"], ["/plain/x"]),
        ("cart", ["/shop/cart/1", "/outlet/cart/2", "/shop/cart/3"], ["/shop/", "/plain/x"]),
        ("outlet", ["/outlet/", "/outlet/cart/1", "/outlet/cart/2"], ["/shop/", "/shop/cart/1", "/plain/x"]),
    ],
)
def test_namespaces(serve: Serve, asgi: bool, group: str, inside: list[str], outside: list[str]) -> None:
    """An application's name is a group with all its instances and what is nested in them; an instance's namespace is one of its own."""
    app = serve(*PATTERNS, asgi=asgi, scopes=[{"name": "part", "limits": ["2/minute"], "group": group}])
    assert [200, 200, 429] == [app.get(path).status for path in inside]
    assert [200] * len(outside) == [app.get(path).status for path in outside]


@both
def test_behind_a_script_name(serve: Serve, asgi: bool) -> None:
    """A prefix is of the path within the project, without the script's name."""
    scopes = [{"name": "shop", "limits": ["2/minute"], "prefix": "/shop"}]
    app = serve(*PATTERNS, asgi=asgi, scopes=scopes, django={"FORCE_SCRIPT_NAME": "/site"})
    below = "/site" if asgi else ""  # a WSGI server has taken it off the path
    assert [200, 404, 429] == [app.get(below + path).status for path in ("/shop/", "/shop/none", "/shop/cart/1")]
    assert 200 == app.get(below + "/plain/x").status


class Things(ViewSet):
    """Actions with limits of their own, and without."""

    authentication_classes = ()
    permission_classes = ()
    renderer_classes = (JSONRenderer,)

    @limit("3/minute")
    def list(self, request: Any) -> Response:
        return Response([])

    @limit("2/minute")
    def create(self, request: Any) -> Response:
        return Response({})

    @limit("1/minute")
    def retrieve(self, request: Any, pk: str) -> Response:
        return Response({"pk": pk})

    def destroy(self, request: Any, pk: str) -> Response:
        return Response(status=204)

    @action(detail=False)
    @limit("2/minute")
    def recent(self, request: Any) -> Response:
        return Response([])

    @limit("2/minute")
    @action(detail=True, methods=["get", "post"], url_path="parts")
    def parts(self, request: Any, pk: str) -> Response:
        return Response([])


@both
def test_actions_of_a_viewset(serve: Serve, asgi: bool) -> None:
    """Behind a router each action of a viewset has its own limit, extra actions too, whatever the object; all are decided early."""
    router = DefaultRouter()
    router.register("things", Things, basename="thing")
    app = serve(path("api/", include(router.urls)), asgi=asgi)
    asked = [
        (["GET"] * 4, "/api/things/", [200, 200, 200, 429]),
        (["POST"] * 3, "/api/things/", [200, 200, 429]),
        (["GET", "HEAD"], "/api/things/7/", [200, 429]),
        (["DELETE"] * 4, "/api/things/7/", [204] * 4),
        (["GET"] * 3, "/api/things/recent/", [200, 200, 429]),
        (["GET", "POST", "POST"], "/api/things/7/parts/", [200, 200, 429]),
    ]
    seen: list[bool] = []
    app.runtime.listen(lambda event: seen.append(event.late) if isinstance(event, LimitDecided) else None)
    for methods, url, expected in asked:
        assert expected == [app.request(method, url).status for method in methods], url
    assert [False] * 15 == seen  # an action without a limit decides nothing
    assert [429, 429] == [app.get(f"/api/things/8/{rest}").status for rest in ("", "parts/")]


@both
def test_viewset_in_a_scope(serve: Serve, asgi: bool) -> None:
    """A viewset's routes are in the scope of their namespace, beside the limits of its actions."""
    router = DefaultRouter()
    router.register("things", Things, basename="thing")
    scopes = [{"name": "api", "limits": ["4/minute"], "group": "api"}]
    app = serve(path("api/", include((router.urls, "api"))), asgi=asgi, scopes=scopes)
    urls = ["/api/things/", "/api/things/1/", "/api/things/2/", "/api/things/", "/api/things/recent/", "/api/things/"]
    assert [200, 200, 429, 200, 200, 429] == [app.get(url).status for url in urls]
