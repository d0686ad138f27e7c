"""How Flask is made to do what the contract describes."""

import re
from collections.abc import Mapping, Sequence
from inspect import isawaitable
from types import SimpleNamespace
from typing import Any, ClassVar

from flask import Blueprint, Flask, Response, abort, current_app, request, session
from flask.views import MethodView
from flask_login import LoginManager

from failsoft import Rejected
from failsoft.testing import Answer, App, Call, Harness, Site, View, WsgiApp
from failsoft.testing.harness import Concurrency
from failsoft_flask import Failsoft

__all__ = ["FlaskHarness", "login"]


class Bystander:
    """An extension that does nothing, at every place where extensions do something."""

    def __init__(self, app: Flask) -> None:
        app.before_request(lambda: None)
        app.after_request(lambda response: response)
        app.teardown_request(lambda error: None)
        inner: Any = app.wsgi_app
        app.wsgi_app = lambda environ, start_response: inner(environ, start_response)  # type: ignore[method-assign]  # Flask's way


def call_of(params: Mapping[str, str]) -> Call:
    """What the contract wants to know of the current request."""
    return Call(
        method=request.method,
        path=request.path,
        params=params,
        header=request.headers.get,
        body=request.get_data,
        session=session._get_current_object,  # type: ignore[attr-defined]  # a LocalProxy, typed as what it stands for
    )


def response_of(answer: Answer | None) -> Response:
    """The contract's answer in Flask's words."""
    answer = answer or Answer()
    if answer.abort is not None:
        abort(answer.abort)
    body: Any = answer.body if answer.stream is None else answer.stream
    response: Response = current_app.response_class(body, answer.status, content_type=answer.content_type)
    for name, value in answer.headers:
        response.headers.add(name, value)
    for name, value in answer.cookies:
        response.set_cookie(name, value)
    return response


def function_of(view: View) -> Any:
    """The view function, decorated."""

    def plain(**params: str) -> Response:
        return response_of(view.handle(call_of(params)))  # type: ignore[arg-type]  # only "async" views await

    async def served(**params: str) -> Response:
        answer = view.handle(call_of(params))
        return response_of(await answer if isawaitable(answer) else answer)

    def handler(self: MethodView, **params: str) -> Response:
        return plain(**params)

    if view.shape in ("def", "async"):
        return view.decorated(plain if view.shape == "def" else served)
    decorate = view.decorated if view.shape == "method" else (lambda target: target)
    cls: Any = type("Endpoint", (MethodView,), {method.lower(): decorate(handler) for method in view.methods})
    return (view.decorated(cls) if view.shape == "class" else cls).as_view("endpoint")


def login(app: Flask) -> LoginManager:
    """Flask-Login, where whoever says who he is, is."""
    app.secret_key = "for the session that Flask-Login opens"
    manager = LoginManager(app)

    @manager.request_loader
    def load(request: Any) -> Any:
        name = request.headers.get("X-User")
        return None if name is None else SimpleNamespace(is_authenticated=True, get_id=lambda: name)

    return manager


class FlaskHarness(Harness):
    """Flask, in process."""

    name: ClassVar[str] = "flask"
    concurrency: ClassVar[Concurrency] = "threads"

    def build(self, site: Site) -> App:
        app = Flask(__name__, static_folder=None)
        login(app)
        runtime = site.runtime()
        if site.position != "outermost":
            Bystander(app)
        Failsoft(app, runtime=runtime)
        if site.position != "innermost":
            Bystander(app)
        if (render := site.renderer) is not None:

            @app.errorhandler(Rejected)
            def rendered(rejected: Rejected) -> Response:
                return response_of(render(rejected))

        groups: dict[str, Blueprint] = {}
        for number, view in enumerate(site.views):
            function = function_of(view)
            rule = re.sub(r"{(\w+)}", r"<\1>", view.path)
            where = app if view.group is None else groups.setdefault(view.group, Blueprint(view.group, __name__))
            where.add_url_rule(rule, f"view{number}", function, methods=view.methods)
            view.decorate_above_route(function)
        for blueprint in groups.values():
            app.register_blueprint(blueprint)
        return WsgiApp(app, runtime)

    def header(self, request: Any, name: str) -> str | None:
        return request.headers.get(name)  # type: ignore[no-any-return]  # a Flask request, which the contract knows as Any

    def json(self, request: Any) -> Any:
        return request.get_json()

    def params(self, args: Sequence[Any], kwargs: Mapping[str, Any]) -> Mapping[str, str]:
        return kwargs

    def user_headers(self, user: str) -> Sequence[tuple[str, str]]:
        return [("X-User", user)]
