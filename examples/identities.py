"""Whom a limit counts, on a FastAPI application. Run: uvicorn identities:app --app-dir examples"""

from typing import Annotated

from fastapi import Depends, FastAPI, Header

from failsoft import late, limit
from failsoft_starlette import FailsoftMiddleware

# start: proxies
app = FastAPI()
app.add_middleware(FailsoftMiddleware, trusted_proxies=["10.0.0.0/8", "unix"])
# end: proxies


# start: header
@app.get("/quotes")
@limit("10/minute", by="header:X-Api-Key", on_missing="refuse")  # no key: 403
async def quotes():
    return {"quote": "..."}


# end: header


# start: callable
async def tenant(request):
    return request.headers.get("X-Tenant"), request.url.path


@app.get("/tenants")
@limit("10/minute", by=tenant)
async def tenants():
    return {"ok": True}


# end: callable


# start: combined
@app.post("/login")
@limit("5/minute", by=("ip", "header:X-Device"), on_outage="closed")
async def login():
    return {"ok": True}


# end: combined


# start: late
async def account(authorization: Annotated[str, Header()] = "") -> str | None:
    return authorization.removeprefix("Account ") or None  # say, from a database


@app.get("/orders")
@limit("10/minute", by=late(lambda owner: owner))  # gets what the view gets
async def orders(owner: Annotated[str | None, Depends(account)]):
    return {"orders": []}


# end: late
