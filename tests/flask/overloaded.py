"""An application for a real server, of which more is asked than it can do."""

import time

from flask import Flask

from failsoft import criticality
from failsoft_flask import Failsoft

app = Flask(__name__, static_folder=None)
Failsoft(app, shed=True)


@app.get("/critical")
def critical() -> str:
    time.sleep(0.05)
    return "ok"


@app.get("/sheddable")
@criticality("sheddable")
def sheddable() -> str:
    time.sleep(0.05)
    return "ok"


@app.get("/healthz")
def health() -> str:
    return "ok"
