"""One session in three frameworks: the Flask part.

Needs APP_SECRET, the same 32 characters or more for all parts, and FAILSOFT_STORE, the same store: without it each process keeps its
sessions in its own memory, and shares nothing. Run:

    export APP_SECRET=$(python -c "import secrets; print(secrets.token_urlsafe(32))") FAILSOFT_STORE=redis://localhost:6379/0
    flask --app examples/sessions_flask.py run
"""

import os

from flask import Flask, abort, session

from failsoft import require_live_session
from failsoft_flask import Failsoft, login, logout, principal

app = Flask(__name__)

# start: settings
app.config["FAILSOFT"] = {
    "sessions": True,
    "secret": os.environ["APP_SECRET"],  # python -c "import secrets; print(secrets.token_urlsafe(32))"
    "session_snapshot": "5m",
    "session_snapshot_keys": ["theme"],
    "cookie_secure": False,  # for plain HTTP, on your own machine
    "limits": ["10000/minute"],
}
Failsoft(app)
# end: settings


# start: views
@app.post("/flask/login/<user>")
def log_in(user):
    # After the password was checked. Flask-Login's login_user does this by itself. Where Django has the users: their primary keys.
    login(user, methods=["pwd"])
    return f"{user} logged in on Flask\n"


@app.get("/flask/me")
def me():
    who = principal()
    return {"user": who.subject if who else None, "keys": sorted(session)}


@app.post("/flask/set/<key>/<value>")
def put(key, value):
    session[key] = value
    return "set\n"


@app.post("/flask/logout")
def log_out():
    logout()
    return "logged out\n"


# end: views


# start: subjects
@app.get("/flask/devices")
def devices():
    who = principal()
    if who is None:
        abort(401)
    found = app.extensions["failsoft"].sessions.subjects.list(who.subject)
    return [{"name": one.device, "since": one.created, "seen": one.seen} for one in found]


@app.post("/flask/log-out-other-devices")
@require_live_session
def log_out_other_devices():
    if principal() is None:
        abort(401)
    return {"ended": app.extensions["failsoft"].sessions.subjects.revoke_others(session.session)}


# end: subjects
