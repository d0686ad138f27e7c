"""One session in three frameworks: the Flask part. Run: flask --app examples/sessions_flask.py run"""

import os

from flask import Flask, session

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
    # After the password was checked. Flask-Login's login_user does this by itself.
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
    subjects = app.extensions["failsoft"].sessions.subjects
    return [{"name": one.device, "since": one.created, "seen": one.seen} for one in subjects.list(principal().subject)]


@app.post("/flask/log-out-other-devices")
def log_out_other_devices():
    return {"ended": app.extensions["failsoft"].sessions.subjects.revoke_others(session.session)}


# end: subjects
