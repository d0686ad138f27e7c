"""The example's Flask part, with a view that takes as long as it is told to."""

import os
import time

from flask import session

from examples.sessions_flask import app


@app.post("/flask/slow/<key>")
def slow(key):
    """Read the session, wait until the file is there that the environment names, and write."""
    session.get("x")
    open(os.environ["SLOW"] + ".begun", "w").close()
    while not os.path.exists(os.environ["SLOW"]):
        time.sleep(0.01)
    session[key] = "late"
    return "slow\n"
