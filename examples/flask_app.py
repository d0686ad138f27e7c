"""Rate limits in Flask. Run: flask --app examples/flask_app.py run"""

from flask import Flask

from failsoft import limit
from failsoft_flask import Failsoft

app = Flask(__name__)
app.config["FAILSOFT"] = {"limits": ["1000/minute"]}
Failsoft(app)


@app.get("/")
@limit("12/minute", shared="hello")
def hello():
    return "hello from Flask\n"


@app.get("/work")
@limit("60/minute", shared="work", on_outage="local")
def work():
    return "work done by Flask\n"
