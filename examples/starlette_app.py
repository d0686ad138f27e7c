"""Rate limits in Starlette. Run: uvicorn starlette_app:app --app-dir examples"""

from starlette.applications import Starlette
from starlette.middleware import Middleware
from starlette.responses import PlainTextResponse
from starlette.routing import Route

from failsoft import limit
from failsoft_starlette import FailsoftMiddleware


@limit("12/minute", shared="hello")
async def hello(request):
    return PlainTextResponse("hello from Starlette\n")


app = Starlette(
    routes=[Route("/", hello)],
    middleware=[Middleware(FailsoftMiddleware, limits=["1000/minute"])],
)
