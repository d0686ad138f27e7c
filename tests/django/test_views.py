"""Views of every kind that Django and REST framework have: their limits are found before they run."""

import asyncio
from inspect import getsourcelines
from typing import Any

import pytest
from django.core.handlers.wsgi import WSGIHandler
from django.http import HttpResponse
from django.template.response import SimpleTemplateResponse
from django.test import override_settings
from django.urls import include, path, re_path
from django.utils.decorators import method_decorator
from django.views import View
from django.views.decorators.cache import never_cache
from rest_framework.authentication import BaseAuthentication, SessionAuthentication
from rest_framework.decorators import action, api_view
from rest_framework.renderers import JSONRenderer
from rest_framework.response import Response
from rest_framework.urlpatterns import format_suffix_patterns
from rest_framework.views import APIView
from rest_framework.viewsets import ViewSet

from failsoft import Event, LimitDecided, exempt, limit
from failsoft.errors import Rejected
from failsoft.inspection import Trial, describe
from failsoft.inspection.explanation import explain
from failsoft.inspection.limits import limits_of
from failsoft.testing import App, FaultyStore
from failsoft_django import list_routes
from failsoft_django.checks import check_limits, check_users
from tests.django.conftest import Serve

pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning:rest_framework")  # what it does is its own business

both = pytest.mark.parametrize("asgi", [False, True], ids=["wsgi", "asgi"])


def ok(request: Any, *args: Any, **kwargs: Any) -> HttpResponse:
    return HttpResponse(b"ok")


class Ok(View):
    def get(self, request: Any, *args: Any, **kwargs: Any) -> HttpResponse:
        return HttpResponse(b"ok")

    def post(self, request: Any, *args: Any, **kwargs: Any) -> HttpResponse:
        return HttpResponse(b"ok")


def decisions(app: App) -> list[tuple[bool, bool, str | None]]:
    """Whether each decision admitted, whether it was late, and its route."""
    seen: list[tuple[bool, bool, str | None]] = []

    def listen(event: Event) -> None:
        if isinstance(event, LimitDecided):
            seen.append((event.admitted, event.late, event.route))

    app.runtime.listen(listen)
    return seen


def assert_early(app: App, url: str, *, template: str) -> None:
    """Two requests are admitted and the third is refused, all by one decision before the view."""
    seen = decisions(app)
    assert [200, 200, 429] == app.statuses(3, url)
    assert [(True, False, template), (True, False, template), (False, False, template)] == seen


@both
def test_included_urlconfs(serve: Serve, asgi: bool) -> None:
    """The route's template is the whole of it, through any number of URLconfs, of both kinds of pattern."""
    inner = ([re_path(r"^(?P<pk>[0-9]+)/parts$", limit("2/minute")(ok))], "inner")
    app = serve(path("shop/<str:shop>/", include([path("items/", include(inner))])), asgi=asgi)
    assert_early(app, "/shop/a/items/7/parts", template="shop/<str:shop>/items/(?P<pk>[0-9]+)/parts$")


@both
def test_method_decorator_on_dispatch(serve: Serve, asgi: bool) -> None:
    """`method_decorator` with the name of a method decorates a class-based view."""
    cls: Any = method_decorator(limit("2/minute"), name="dispatch")(type("Cls", (Ok,), {}))
    assert_early(serve(path("x", cls.as_view()), asgi=asgi), "/x", template="x")


@both
def test_method_decorator_on_a_method(serve: Serve, asgi: bool) -> None:
    """`method_decorator` on a handler limits that handler."""

    class Cls(Ok):
        @method_decorator(limit("2/minute"))
        def get(self, request: Any) -> HttpResponse:
            return HttpResponse(b"ok")

    app = serve(path("x", Cls.as_view()), asgi=asgi)
    assert_early(app, "/x", template="x")
    assert [200, 200, 200] == [app.request("POST", "/x").status for _ in range(3)]


@both
def test_class_decorated_directly(serve: Serve, asgi: bool) -> None:
    """A limit on the class itself leaves its base alone."""
    cls: Any = limit("2/minute")(type("Cls", (Ok,), {}))
    app = serve(path("x", cls.as_view()), path("base", Ok.as_view()), asgi=asgi)
    assert_early(app, "/x", template="x")
    assert [200, 200, 200] == app.statuses(3, "/base")


@both
def test_method_decorated_directly(serve: Serve, asgi: bool) -> None:
    """A limit on a handler counts HEAD with GET, and other methods not at all."""

    class Cls(Ok):
        @limit("2/minute")
        def get(self, request: Any) -> HttpResponse:
            return HttpResponse(b"ok")

    app = serve(path("x", Cls.as_view()), asgi=asgi)
    methods = ("GET", "HEAD", "HEAD", "GET", "POST")
    assert [200, 200, 429, 429, 200] == [app.request(method, "/x").status for method in methods]


@both
def test_async_classes(serve: Serve, asgi: bool) -> None:
    """Asynchronous class-based views, decorated on the class, on dispatch and on a handler."""

    class Async(View):
        async def get(self, request: Any) -> HttpResponse:
            await asyncio.sleep(0)
            return HttpResponse(b"ok")

    class OnMethod(View):
        @limit("2/minute")
        async def get(self, request: Any) -> HttpResponse:
            await asyncio.sleep(0)
            return HttpResponse(b"ok")

    on_class: Any = limit("2/minute")(type("OnClass", (Async,), {}))
    on_dispatch: Any = method_decorator(limit("2/minute"), name="dispatch")(type("OnDispatch", (Async,), {}))
    classes = {"class": on_class, "dispatch": on_dispatch, "method": OnMethod}
    app = serve(*[path(name, cls.as_view()) for name, cls in classes.items()], asgi=asgi)
    for name in classes:
        assert_early(app, f"/{name}", template=name)


@both
def test_around_as_view(serve: Serve, asgi: bool) -> None:
    """A limit around what ``as_view()`` returns, and other decorators around that."""
    app = serve(path("x", never_cache(limit("2/minute")(Ok.as_view()))), path("y", Ok.as_view()), asgi=asgi)
    assert_early(app, "/x", template="x")
    assert [200, 200, 200] == app.statuses(3, "/y")


@both
def test_limited_in_the_urlconf(serve: Serve, asgi: bool) -> None:
    """A view that a URLconf limits on one route is not limited on another."""
    app = serve(path("limited", limit("2/minute")(ok)), path("free", ok), asgi=asgi)
    assert [200, 200, 200] == app.statuses(3, "/free")
    assert_early(app, "/limited", template="limited")
    assert [200, 200, 200] == app.statuses(3, "/free")


def test_classes_that_share_a_base_do_not_share_limits(serve: Serve) -> None:
    """A limit put on one class's dispatch with `method_decorator` does not come to classes decorated otherwise."""
    limited: Any = method_decorator(limit("1/minute"), name="dispatch")(type("Limited", (Ok,), {}))
    other: Any = method_decorator(never_cache, name="dispatch")(type("Other", (Ok,), {}))
    app = serve(path("limited", limited.as_view()), path("other", other.as_view()))
    assert [200, 429] == app.statuses(2, "/limited")
    assert [200, 200, 200] == app.statuses(3, "/other")


def test_method_decorator_leaves_the_plans_alone(serve: Serve) -> None:
    """Although `method_decorator` decorates anew with each request, what applies to a route is worked out once."""
    cls: Any = method_decorator(limit("9/minute"), name="dispatch")(type("Cls", (Ok,), {}))
    app = serve(path("x", cls.as_view()))
    assert [200, 200] == app.statuses(2, "/x")
    before = dict(app.runtime._plans.known)
    app.get("/x")
    assert before == app.runtime._plans.known
    assert before


def test_invented_methods_name_no_attribute(serve: Serve) -> None:
    """A method that a client invents does not make an attribute of the class a handler."""
    helper = limit("1/minute")(lambda self: None)
    app = serve(path("x", type("Cls", (Ok,), {"secret": helper}).as_view()))  # type: ignore[attr-defined]  # of View
    assert [405, 405] == [app.request("SECRET", "/x").status for _ in range(2)]


class Api(APIView):
    authentication_classes = ()
    permission_classes = ()
    renderer_classes = (JSONRenderer,)


@both
def test_rest_framework_classes(serve: Serve, asgi: bool) -> None:
    """An `APIView`, limited on the class and on a handler."""

    class OnMethod(Api):
        @limit("2/minute")
        def get(self, request: Any) -> Response:
            return Response({})

    on_class: Any = limit("2/minute")(type("OnClass", (Api,), {"get": lambda self, request: Response({})}))
    app = serve(path("class", on_class.as_view()), path("method", OnMethod.as_view()), asgi=asgi)
    assert_early(app, "/class", template="class")
    assert_early(app, "/method", template="method")


@both
def test_rest_framework_viewsets(serve: Serve, asgi: bool) -> None:
    """A viewset's actions are found by the methods that its route gives them, extra actions too."""

    class Things(ViewSet):
        authentication_classes = ()
        permission_classes = ()
        renderer_classes = (JSONRenderer,)

        @limit("2/minute")
        def list(self, request: Any) -> Response:
            return Response([])

        def create(self, request: Any) -> Response:
            return Response({})

        @limit("2/minute")
        @action(detail=False)
        def recent(self, request: Any) -> Response:
            return Response([])

    routes = {"things": {"get": "list", "post": "create"}, "recent": {"get": "recent"}}
    app = serve(*[path(name, Things.as_view(actions)) for name, actions in routes.items()], asgi=asgi)
    assert_early(app, "/things", template="things")
    assert [200, 200, 200] == [app.request("POST", "/things").status for _ in range(3)]
    assert 429 == app.request("HEAD", "/things").status
    assert_early(app, "/recent", template="recent")


@both
@pytest.mark.parametrize("above", [False, True], ids=["below", "above"])
def test_rest_framework_functions(serve: Serve, asgi: bool, above: bool) -> None:
    """A limit above ``@api_view``, and one below it, which it hides, are both found before the view runs."""

    def view(request: Any) -> Response:
        return Response({})

    view.authentication_classes = view.permission_classes = ()  # type: ignore[attr-defined]  # as its decorators do
    view.renderer_classes = (JSONRenderer,)  # type: ignore[attr-defined]  # likewise
    limited = limit("2/minute")
    callback = limited(api_view()(view)) if above else api_view()(limited(view))
    assert_early(serve(path("x", callback), asgi=asgi), "/x", template="x")


@both
def test_rest_framework_leaves_late_refusals_alone(serve: Serve, asgi: bool) -> None:
    """A refusal that is raised inside of a REST framework view is answered as anywhere else."""
    helper = limit("1/minute")(lambda: None)

    class Late(Api):
        def get(self, request: Any) -> Response:
            helper()
            return Response({})

    app = serve(path("x", Late.as_view()), asgi=asgi)
    assert 200 == app.get("/x").status
    reply = app.get("/x")
    assert (429, "application/problem+json", "no-store") == (
        reply.status,
        reply.header("Content-Type"),
        reply.header("Cache-Control"),
    )


class ByToken(BaseAuthentication):
    """Whoever has a token is its user."""

    def authenticate(self, request: Any) -> Any:
        token = request.headers.get("Authorization")
        return None if token is None else (type("User", (), {"pk": token, "is_authenticated": True})(), token)


@both
def test_rest_framework_users(serve: Serve, asgi: bool) -> None:
    """Whom REST framework authenticates in the view is known to a limit by user on the handler."""

    class Mine(Api):
        authentication_classes = (ByToken,)  # type: ignore[assignment]  # empty in the base

        @limit("1/minute", by="user")
        def get(self, request: Any) -> Response:
            return Response({})

    sessions = [
        "django.contrib.sessions.middleware.SessionMiddleware",
        "django.contrib.auth.middleware.AuthenticationMiddleware",
    ]
    app = serve(path("x", Mine.as_view()), asgi=asgi, middleware=["failsoft_django.FailsoftMiddleware", *sessions])
    users = ("alice", "bob", "alice", "bob")
    assert [200, 200, 429, 429] == [app.get("/x", ("Authorization", user)).status for user in users]
    assert [200, 429] == app.statuses(2, "/x")


@limit("31/minute")
class OnClass(Ok):
    """Limited as a class."""

    def get(self, request: Any) -> HttpResponse:
        return HttpResponse()


@method_decorator(limit("32/minute"), name="dispatch")
class OnDispatch(Ok):
    """Limited where it dispatches."""

    def get(self, request: Any) -> HttpResponse:
        return HttpResponse()


class Heir(OnDispatch):
    """Has the limit of another."""


class Plain(Ok):
    """Limited where it becomes a function."""

    def get(self, request: Any) -> HttpResponse:
        return HttpResponse()


@limit("34/minute")
@api_view()
def above_api_view(request: Any) -> HttpResponse:
    """Limited above REST framework's decorator."""
    return HttpResponse()


def test_classes_are_called_by_their_own_names(serve: Serve) -> None:
    """A limit of a class-based view is listed with the class, its file and line, and not with what the framework made of it."""
    above_api_view.cls.authentication_classes = ()  # type: ignore[attr-defined]  # of REST framework's views
    plain = limit("33/minute")(Plain.as_view())
    views = [Heir.as_view(), OnClass.as_view(), OnDispatch.as_view(), plain, above_api_view]
    app = serve(*[path(f"{number}", view) for number, view in enumerate(views)])

    def line(what: Any) -> int:
        return getsourcelines(what)[1]

    def listed() -> list[tuple[str, str | None]]:
        found = [limits_of(app.runtime, one) for one in list_routes() if one.method == "GET"]
        return [(one.source.rpartition(".")[2], one.where) for (one,) in found]

    expected = ["OnDispatch", "OnClass", "OnDispatch", "Plain", "above_api_view"]
    assert expected == [name for name, _ in listed()]
    assert [200] * 5 == [app.get(f"/{number}").status for number in range(5)]
    assert expected == [name for name, _ in listed()]
    where = dict(listed())
    # Before Python 3.13 a class does not know its first line, so that of its first function is told.
    for name, start in (("OnClass", line(OnClass)), ("Plain", line(Plain))):
        assert where[name] in [f"{__file__}:{start + number}" for number in range(6)]
    assert f"{__file__}:{line(above_api_view.cls.get.__closure__[0].cell_contents)}" == where["above_api_view"]  # type: ignore[attr-defined]  # likewise


def test_keys_do_not_depend_on_who_comes_first(serve: Serve) -> None:
    """Classes that share one limit have the same keys in every process, whichever is served first; and are told by their own names."""

    def keys(*order: str) -> set[str]:
        strict = method_decorator(limit("36/minute"), name="dispatch")
        north: Any = strict(type("North", (Ok,), {}))
        south: Any = strict(type("South", (Ok,), {}))
        app = serve(path("North", north.as_view()), path("South", south.as_view()))
        app.runtime.store = store = FaultyStore()
        assert [200, 200] == [app.get(one).status for one in order]
        listed = [limits_of(app.runtime, one) for one in list_routes() if one.method == "GET"]
        assert ["North", "South"] == [one.source.rpartition(".")[2] for (one,) in listed]
        described = describe(WSGIHandler())
        told = [explain(described, Trial(method="GET", target=one, address="203.0.113.7")).limits for one in order]
        assert [*order] == ["/" + said.limit.source.rpartition(".")[2] for (said,) in told]
        found = {str(key) for key in store.keys}
        assert found == {said.key for (said,) in told}
        return found

    assert 2 == len(keys("/South", "/North"))
    assert keys("/North", "/South") == keys("/South", "/North")


def test_a_class_that_no_route_leads_to() -> None:
    """What is lost is told with the class's file, too."""
    lost = limit("35/minute")(Plain.as_view())
    with override_settings(ROOT_URLCONF=()):
        (message,) = [message.msg for message in check_limits() if "35/minute" in message.msg]
    assert message.startswith(f"{__file__}:")
    assert lost is not None


def test_limits_before_rest_framework_knows_the_user() -> None:
    """A limit by user that comes before REST framework's authentication is told; where the user is known, nothing is."""

    class Late(Api):
        authentication_classes = (ByToken,)  # type: ignore[assignment]  # empty in the base

        @limit("1/minute", by="user")
        def get(self, request: Any) -> Response:
            return Response({})

    def view(request: Any) -> Response:
        return Response({})

    def kind(*authentication: Any) -> Any:
        return type(
            "Kind", (Api,), {"get": lambda self, request: Response({}), "authentication_classes": authentication}
        )

    limited = limit("1/minute", by=["user", "ip"])
    below: Any = api_view()(limit("1/minute", by="user")(view))
    above: Any = limited(api_view()(view))
    below.cls.authentication_classes = above.cls.authentication_classes = (ByToken,)
    urls = (
        path("late", Late.as_view()),
        path("below", below),
        path("above", above),
        path("class", limited(kind(ByToken)).as_view()),
        path("default", limit("1/minute")(kind(ByToken)).as_view()),
        path("dispatch", method_decorator(limited, name="dispatch")(kind(ByToken)).as_view()),
        path("session", limited(kind(SessionAuthentication)).as_view()),
        path("address", limit("1/minute", by="ip")(kind(ByToken)).as_view()),
        path("nobody", limited(kind()).as_view()),
        path("function", limited(lambda request: HttpResponse())),
    )

    def told(**failsoft: Any) -> list[str]:
        with override_settings(ROOT_URLCONF=urls, FAILSOFT=failsoft):
            return [message.msg.partition(" on ")[2].partition(" is ")[0] for message in check_users()]

    assert ["'above'", "'class'", "'dispatch'"] == told()
    assert ["'above'", "'class'", "'default'", "'dispatch'"] == told(by="user")
    assert [] == told(by="usr")
    with override_settings(ROOT_URLCONF=None, FAILSOFT={}):
        assert [] == check_users()


@both
@pytest.mark.parametrize("allowed", [None, ["json"], ["json", "api"]], ids=["any", "one", "two"])
def test_rest_framework_format_suffixes(serve: Serve, asgi: bool, allowed: list[str] | None) -> None:
    """A route with a suffix for the format and the one without share one budget, and are listed once."""

    class Suffixed(Api):
        @limit("2/minute")
        def get(self, request: Any, **kwargs: Any) -> Response:
            return Response({})

    view = Suffixed.as_view()
    urls = [path("a/", view), path("b", view), re_path("^c/$", view), re_path("^d$", view), path("x/<int:n>/", view)]
    included = [path("in/", include(format_suffix_patterns([path("", view), path("e/", view)], allowed=allowed)))]
    app = serve(*format_suffix_patterns(urls, allowed=allowed), *included, asgi=asgi)
    pairs = [("/a/", "/a.json"), ("/b", "/b.json"), ("/c/", "/c.json"), ("/d", "/d.json"), ("/in/e/", "/in/e.json")]
    for plain, suffixed in [*pairs, ("/x/1/", "/x/2.json")]:
        assert [200, 200, 429, 429] == [app.get(url).status for url in (plain, suffixed, suffixed, plain)]
    assert ["^c/$", "^d$", "a/", "b", "in/", "in/e/", "x/<int:n>/"] == sorted(
        route.template for route in list_routes() if route.method == "GET"
    )


def test_other_suffixes_are_routes_of_their_own(serve: Serve) -> None:
    """What only looks like a format suffix, or leads to another view, is not taken together."""

    def other(request: Any, **kwargs: Any) -> HttpResponse:
        return HttpResponse()

    one, two = limit("1/minute")(Ok.as_view()), limit("1/minute")(other)
    app = serve(path("a/", one), re_path(r"^a\.(?P<format>[a-z]+)/?$", two), re_path(r"^b\.(?P<format>[a-z]+)/?$", one))
    assert [200, 429] * 3 == [app.get(url).status for url in ("/a/", "/a/", "/a.x", "/a.y", "/b.x", "/b.x")]
    assert 3 == len({route.template for route in list_routes()})


@both
def test_refusals_while_rendering(serve: Serve, asgi: bool) -> None:
    """A refusal that is raised while a template is rendered is answered too."""
    helper = limit("1/minute")(lambda: "rendered")

    class Rendered(SimpleTemplateResponse):
        @property
        def rendered_content(self) -> str:
            return helper()

    app = serve(path("x", lambda request: Rendered("unused")), asgi=asgi)
    assert [200, 429] == app.statuses(2, "/x")


def test_exempt_and_catching(serve: Serve) -> None:
    """`exempt` on a class, and a view that answers for its helper's refusal itself."""
    helper = limit("1/minute")(lambda: None)

    def careful(request: Any) -> HttpResponse:
        try:
            helper()
        except Rejected:
            return HttpResponse(status=203)
        return HttpResponse()

    free: Any = exempt(type("Free", (Ok,), {}))
    app = serve(path("free", free.as_view()), path("careful", exempt(careful)), limits=["1/minute"])
    assert [200, 200] == app.statuses(2, "/free")
    assert [200, 203] == app.statuses(2, "/careful")
