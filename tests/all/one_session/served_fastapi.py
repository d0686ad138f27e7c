"""The example's FastAPI part, with a view that takes as long as it is told to."""

import os
import time

from fastapi import Request

from examples.sessions_fastapi import app


@app.post("/api/slow/{key}")
def slow(request: Request, key: str) -> str:
    """Read the session, wait until the file is there that the environment names, and write."""
    request.session.get("x")
    open(os.environ["SLOW"] + ".begun", "w").close()
    while not os.path.exists(os.environ["SLOW"]):
        time.sleep(0.01)
    request.session[key] = "late"
    return "slow"
