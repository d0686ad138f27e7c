"""Starlette and FastAPI applications."""

import os
from collections.abc import Callable
from typing import Any

from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response
from starlette.routing import Route

from benchmarks.applications.peers import ask_async
from benchmarks.applications.visitor import CONTENT, SECRET, act, shown
from benchmarks.cases import FLOOR, LIMITS, OURS, RATES, SIGNED, Case, Place

__all__ = ["build"]

View = Callable[[Request], Any]


async def build(case: Case, place: Place) -> Any:
    """The ASGI application of `case`."""

    async def view(request: Request) -> Response:
        return PlainTextResponse("ok")

    if case.session:
        return await (_floor if case.package == FLOOR else _session)(case, place)
    if case.package == OURS:
        return _failsoft(view, case, place)
    if case.package == "slowapi":
        return _slowapi(view, case, place)
    if case.package == "fastapi-limiter":
        return await _fastapi_limiter(view, case, place)
    if case.package != "bare":
        passes = await ask_async(case, place)

        async def checked(request: Request) -> Response:
            client = request.client
            if client is None or not await passes(client.host):
                return PlainTextResponse("no", 429)
            return PlainTextResponse("ok")

        return _app(case, checked)
    return _app(case, view)


def _app(case: Case, view: View, **other: View) -> Any:
    views: dict[str, View] = {"/": view, **{f"/{name}": one for name, one in other.items()}}
    if case.framework == "fastapi":
        from fastapi import FastAPI

        app = FastAPI()
        for path, one in views.items():
            app.get(path)(one)
        return app
    return Starlette(routes=[Route(path, one) for path, one in views.items()])


async def _session(case: Case, place: Place) -> Any:
    state = case.session

    async def view(request: Request) -> Response:
        if state != "untouched":
            act(request.session, state)
        return PlainTextResponse("ok")

    async def begin(request: Request) -> Response:
        request.session.update(CONTENT)
        if case.option == "logged in":
            from failsoft_starlette.sessions import StarletteSession

            session: Any = request.session
            assert isinstance(session, StarletteSession)
            session.login("42")
        return PlainTextResponse("ok")

    async def show(request: Request) -> Response:
        return PlainTextResponse(shown(request.session))

    if case.package == OURS:
        return _failsoft(view, case, place, begin=begin, show=show)
    app = _app(case, view, begin=begin, show=show)
    if case.package == SIGNED:
        from starlette.middleware.sessions import SessionMiddleware

        app.add_middleware(SessionMiddleware, secret_key=SECRET)
    elif case.package == "starsessions":
        _starsessions(app, case, place)
    else:
        await _redis_sdk(app, case, place)
    return app


async def _floor(case: Case, place: Place) -> Any:
    from benchmarks.applications.floors import looping

    floor = await looping(case, place)

    def cookies(request: Request) -> str:
        return dict(request.scope["headers"])[b"cookie"].decode("latin-1")

    async def view(request: Request) -> Response:
        return PlainTextResponse("ok", headers=dict(await floor.visit(cookies(request))))

    async def begin(request: Request) -> Response:
        response = PlainTextResponse("ok")
        for name, value in floor.begun:
            response.headers.append(name, value)
        return response

    async def show(request: Request) -> Response:
        return PlainTextResponse(await floor.show(cookies(request)))

    return _app(case, view, begin=begin, show=show)


def _starsessions(app: Any, case: Case, place: Place) -> None:
    import redis.asyncio
    from starsessions import SessionAutoloadMiddleware, SessionMiddleware
    from starsessions.stores.redis import RedisStore

    store = RedisStore(connection=redis.asyncio.Redis.from_url(place.peer_url(case.store)))
    app.add_middleware(SessionAutoloadMiddleware)  # inside of the other, which is added after it
    app.add_middleware(SessionMiddleware, store=store, lifetime=14 * 86_400, rolling=True)


async def _redis_sdk(app: Any, case: Case, place: Place) -> None:
    os.environ["REDIS_URL"] = place.peer_url(case.store)  # from where it takes its settings
    from redis_fastapi import FastAPIRedis

    FastAPIRedis(app).lifespan().sessions()
    # Nobody else opens its pool, which is closed when this is forgotten.
    app.state.lifespan = app.router.lifespan_context(app)
    await app.state.lifespan.__aenter__()


def _failsoft(view: View, case: Case, place: Place, **other: View) -> Any:
    from failsoft import limit
    from failsoft_starlette import FailsoftMiddleware

    options = place.options(case.store)
    if case.option == "no headers":
        options["headers"] = "off"
    if case.option == "lease":
        options["lease"] = 1000
    if case.session:
        options |= {"sessions": True, "secret": SECRET}
    if case.option == "nothing applies":

        async def unused(request: Request) -> Response:
            return PlainTextResponse("other")

        other["other"] = limit(LIMITS[0])(unused)
    elif case.option == "on the view":
        view = limit("; ".join(LIMITS[: case.limits]))(view)
    else:
        options["limits"] = LIMITS[: case.limits]
    app = _app(case, view, **other)
    app.add_middleware(FailsoftMiddleware, **options)
    return app


def _slowapi(view: View, case: Case, place: Place) -> Any:
    from slowapi import Limiter
    from slowapi.util import get_remote_address

    limiter = Limiter(
        key_func=get_remote_address,
        storage_uri=place.limits_url(case.store),
        headers_enabled=case.option != "no headers",
        in_memory_fallback_enabled=case.option == "fallback",
    )
    app = _app(case, limiter.limit(";".join(LIMITS[: case.limits]))(view))
    app.state.limiter = limiter
    return app


async def _fastapi_limiter(view: View, case: Case, place: Place) -> Any:
    from fastapi import Depends, FastAPI
    from fastapi_limiter.depends import RateLimiter
    from pyrate_limiter import Limiter, Rate, RedisBucket

    app = FastAPI()
    dependencies: list[Any] = []
    for index, (units, seconds) in enumerate(RATES[: case.limits]):
        rate = Rate(units, seconds * 1000)
        if case.store == "memory":
            limiter = Limiter(rate)
        else:
            import redis.asyncio

            connection = redis.asyncio.Redis.from_url(place.peer_url(case.store))
            limiter = Limiter(await RedisBucket.init([rate], connection, f"{case.name}:{index}"))
        dependencies.append(Depends(RateLimiter(limiter=limiter)))
    app.get("/", dependencies=dependencies)(view)
    return app
