"""Limits for a part of a FastAPI application. Run: uvicorn routers:app --app-dir examples"""

from fastapi import APIRouter, Depends, FastAPI

from failsoft import limit
from failsoft_starlette import FailsoftMiddleware

app = FastAPI()

# start: scopes
app.add_middleware(
    FailsoftMiddleware,
    scopes=[
        {"name": "v1", "prefix": "/v1", "limits": ["100/minute"]},  # with whatever is not there
        {"name": "search", "group": "search", "limits": ["10/minute"]},  # routes with that tag
    ],
)

catalogue = APIRouter(prefix="/v1", tags=["search"])


@catalogue.get("/books")
async def books():
    return ["Emma"]


@catalogue.get("/authors")
async def authors():
    return ["Austen"]


app.include_router(catalogue)
# end: scopes


# start: dependency
@limit("3/minute", shared="reports")  # all routes of the router together
async def reporting() -> None: ...


reports = APIRouter(prefix="/reports", dependencies=[Depends(reporting)])


@reports.get("/sales")
async def sales():
    return [7]


@reports.get("/visits")
async def visits():
    return [9]


app.include_router(reports)
# end: dependency
