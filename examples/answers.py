"""Answering refusals oneself. Run: flask --app examples/answers.py run, uvicorn answers:asgi --app-dir examples"""

from flask import Flask, render_template_string
from starlette.applications import Starlette
from starlette.middleware import Middleware
from starlette.responses import HTMLResponse, PlainTextResponse
from starlette.routing import Route

from failsoft import RateLimited, limit
from failsoft_flask import Failsoft
from failsoft_starlette import FailsoftMiddleware

# start: flask
app = Flask(__name__)
Failsoft(app)


@app.errorhandler(RateLimited)
def too_fast(error):
    return render_template_string("Take a breath: {{ seconds }} s", seconds=error.retry_after), error.status


# end: flask


@app.get("/")
@limit("1/minute")
def index():
    return "hello"


# start: starlette
def too_fast_page(request, rejected):
    return HTMLResponse(f"<p>Take a breath: {rejected.retry_after} s</p>", rejected.status)


@limit("1/minute")
async def home(request):
    return PlainTextResponse("hello")


asgi = Starlette(
    routes=[Route("/", home)],
    middleware=[Middleware(FailsoftMiddleware, renderer=too_fast_page)],
)
# end: starlette
