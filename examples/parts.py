"""Limits for parts of an application, in several stores, with local layers, changed while it runs: on Flask.

Run: flask --app examples/parts.py run
"""

from dataclasses import replace

from flask import Blueprint, Flask

from failsoft import LimitNear, limit
from failsoft_flask import Failsoft

app = Flask(__name__)
shop = Blueprint("shop", __name__, url_prefix="/shop")

# start: scopes
app.config["FAILSOFT"] = {
    "limits": ["1000/minute"],
    "scopes": [
        {"name": "api", "prefix": "/api", "limits": ["300/minute"], "by": "header:X-Api-Key"},
        {"name": "shop", "group": "shop", "limits": ["60/minute"]},
        {"name": "partners", "host": "*.partners.example.com", "limits": ["20/second"], "on_outage": "open"},
    ],
    # end: scopes
    # start: stores
    "store": "memory://",  # redis://limits.internal:6379/0
    "stores": {"accounts": "memory://"},  # rediss://accounts.internal:6380/0
    # end: stores
}
Failsoft(app)


@shop.get("/cart")
def cart():
    return "empty"


app.register_blueprint(shop)


# start: store
@app.post("/password")
@limit("5/hour", store="accounts", on_outage="closed")
def password():
    return "changed"


# end: store


# start: lease
@app.get("/tick")
@limit("100000/minute", lease=100)  # up to 99 units at once for a client who is busy
def tick():
    return "tock"


# end: lease


# start: reload
def change_limits(limits):
    """For a signal handler, an admin view, or whoever watches your configuration."""
    runtime = app.extensions["failsoft"]
    runtime.reload(replace(runtime.settings, limits=limits))


# end: reload


# start: near
def warn(event):
    if isinstance(event, LimitNear):
        app.logger.warning("%s has %d of %d left", event.name, event.remaining, event.capacity)


app.extensions["failsoft"].listen(warn)
# end: near
