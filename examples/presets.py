"""Log-ins with limits, on a Flask application. Run: flask --app examples/presets.py run"""

from flask import Flask, request

from failsoft import hashed, limit
from failsoft.presets import login, submitted
from failsoft_flask import Failsoft

app = Flask(__name__)
app.config["FAILSOFT"] = {"secret": "keys the digests of accounts"}
Failsoft(app)

PASSWORDS = {"alice": "wonderland"}


def check(name, password):
    return PASSWORDS.get(name) == password


# start: form
@app.route("/login", methods=["GET", "POST"])
@login()  # the form's field is called username; showing the form is free
def page():
    if request.method == "POST" and check(request.form["username"], request.form["password"]):
        return "welcome"
    return "<form method=post>...</form>"


# end: form


# start: api
@app.post("/api/token")
@login("email", failures=(401,), per_client="10/minute", name="token")  # only failures are charged
def token():
    given = request.get_json()
    return ({"token": "..."}, 200) if check(given["email"], given["password"]) else ({}, 401)


# end: api


# start: other
@app.post("/newsletter")
@limit("3/hour", by=hashed(submitted("email")))  # mail to one address, whoever asks for it
def newsletter():
    return "look into your mail"


# end: other
