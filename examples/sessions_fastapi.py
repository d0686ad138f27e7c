"""One session in three frameworks: the FastAPI part.

Needs APP_SECRET, the same 32 characters or more for all parts, and FAILSOFT_STORE, the same store: without it each process keeps its
sessions in its own memory, and shares nothing. Run:

    export APP_SECRET=$(python -c "import secrets; print(secrets.token_urlsafe(32))") FAILSOFT_STORE=redis://localhost:6379/0
    uvicorn sessions_fastapi:app --app-dir examples
"""

import os

from fastapi import FastAPI, HTTPException, Request

from failsoft import require_live_session
from failsoft_starlette import FailsoftMiddleware, login, logout, principal

app = FastAPI()

# start: settings
app.add_middleware(
    FailsoftMiddleware,
    sessions=True,
    secret=os.environ["APP_SECRET"],
    session_snapshot="5m",
    session_snapshot_keys=["theme"],
    cookie_secure=False,  # for plain HTTP, on your own machine
    limits=["10000/minute"],
)
# end: settings


# start: views
@app.post("/api/login/{user}")
async def log_in(request: Request, user: str):
    login(request, user, methods=["pwd"])
    return f"{user} logged in on FastAPI"


@app.get("/api/me")
async def me(request: Request):
    who = principal(request)
    return {"user": who.subject if who else None, "keys": sorted(request.session)}


@app.post("/api/set/{key}/{value}")
async def put(request: Request, key: str, value: str):
    request.session[key] = value
    return "set"


@app.post("/api/logout")
async def log_out(request: Request):
    logout(request)
    return "logged out"


# end: views


# start: live
@app.post("/api/transfer")
@require_live_session
async def transfer(request: Request):
    return "done"


# end: live


# start: subjects
@app.post("/api/log-out-other-devices")
@require_live_session
async def log_out_other_devices(request: Request):
    if principal(request) is None:
        raise HTTPException(401)
    session = request.session.session  # failsoft's own, behind the mapping
    return {"ended": await session.service.subjects.arevoke_others(session)}


# end: subjects
