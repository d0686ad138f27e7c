"""Whom a limit counts, on a FastAPI application. Run: uvicorn identities:app --app-dir examples"""

from hashlib import sha256
from typing import Annotated

from fastapi import Depends, FastAPI, Header

from failsoft import late, limit
from failsoft_starlette import FailsoftMiddleware

# start: proxies
app = FastAPI()
app.add_middleware(FailsoftMiddleware, trusted_proxies=["10.0.0.0/8", "unix"])
# end: proxies


# start: keys
CUSTOMERS = {sha256(b"a key of 32 random characters").hexdigest(): "acme"}  # say, in a database


async def customer(request):
    """Whose key it is; None for one that nobody has."""
    key = request.headers.get("X-Api-Key", "")
    return CUSTOMERS.get(sha256(key.encode()).hexdigest())


@app.get("/quotes")
@limit("10/minute", by=customer, on_missing="refuse")  # no key, or an invented one: 403
async def quotes():
    return {"quote": "..."}


# end: keys


# start: header
@app.get("/prices")
@limit("10/minute", by="header:X-Api-Key", on_missing="refuse")  # no key: 403
@limit("100/minute", by="ip")  # whoever invents keys, all of them together
async def prices():
    return {"price": "..."}


# end: header


# start: callable
async def customer_and_method(request):
    return await customer(request), request.method


@app.api_route("/stock", methods=["GET", "PUT"])
@limit("10/minute", by=customer_and_method, on_missing="refuse")
async def stock():
    return {"ok": True}


# end: callable


# start: combined
@app.post("/reports")
@limit("5/minute", by=(customer, "ip"), on_missing="refuse")  # each machine of a customer
@limit("50/minute", by=customer, on_missing="refuse")  # all of them
async def reports():
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
