"""The application that the page on the command line looks at."""

from flask import Flask, Request

from failsoft import Penalty, limit
from failsoft_flask import Failsoft

app = Flask(__name__)
Failsoft(
    app,
    limits=["1000/hour"],
    scopes=[{"name": "api", "prefix": "/api", "limits": ["5000/day"]}],
    trusted_proxies=["10.0.0.0/8"],
)


def tenant(request: Request) -> str | None:
    """Who pays."""
    return request.headers.get("X-Tenant")


@app.get("/search")
@limit("10/hour", name="search", penalty=Penalty(after=20))
def search() -> str:
    return "found"


@app.post("/api/orders")
@limit("100/hour", by=tenant, on_missing="refuse", on_outage="closed")
@limit("5/minute", name="bulk", when=lambda request: "bulk" in request.args)
def order() -> str:
    return "ordered"
