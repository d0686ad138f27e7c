"""Hearing of decisions and outages. Run: flask --app examples/events.py run"""

import logging

from flask import Flask

from failsoft import LimitDecided, SessionGone, SessionRolledBack, StoreDegraded, StoreRecovered, limit
from failsoft_flask import Failsoft

log = logging.getLogger("shop")

app = Flask(__name__)
Failsoft(app)


# start: listen
def heard(event):
    match event:
        case LimitDecided(admitted=False, limits=limits, route=route):
            used_up = [limit.name for limit in limits if not limit.allowed]
            log.warning("refused on %s: %s", route, ", ".join(used_up))
        case StoreDegraded(store=store, reason=reason):
            log.error("the store %s is away: %s", store, reason)
        case StoreRecovered(store=store, after=seconds):
            log.error("the store %s is back after %.1f s", store, seconds)


stop = app.extensions["failsoft"].listen(heard)  # stop() ends it
# end: listen


# start: sessions
def lost(event):
    match event:
        case SessionGone(reason="lost", handle=handle, subject=subject):
            log.error("the store has lost session %s of %s", handle, subject)
        case SessionRolledBack(handle=handle, version=has, acknowledged=had):
            log.error("the store has version %s of session %s, and had %s", has, handle, had)


app.extensions["failsoft"].listen(lost)
# end: sessions


@app.get("/")
@limit("2/minute")
def index():
    return "hello"
