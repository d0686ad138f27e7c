"""Rate limits in FastAPI. Run: uvicorn fastapi_app:app --app-dir examples"""

from fastapi import FastAPI

from failsoft import limit
from failsoft_starlette import FailsoftMiddleware

app = FastAPI()
app.add_middleware(FailsoftMiddleware, limits=["1000/minute"])


@app.get("/")
@limit("12/minute", shared="hello")
async def hello():
    return "hello from FastAPI\n"


@app.get("/work")
@limit("60/minute", shared="work", on_outage="local")
async def work():
    return "work done by FastAPI\n"
