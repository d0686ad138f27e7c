"""What `limit` can say, on a Flask application. Run: flask --app examples/declaring_limits.py run"""

from hashlib import sha256

from flask import Flask, request
from flask.views import MethodView

from failsoft import exempt, limit
from failsoft_flask import Failsoft

# start: settings
app = Flask(__name__)
app.config["FAILSOFT"] = {
    "limits": ["1000/minute; 20000/day"],  # all requests of a client, over the whole application
    "route_limits": ["100/minute"],  # each route that has no limit of its own
}
Failsoft(app)
# end: settings


# start: stacked
@app.get("/search")
@limit("10/minute; 200 per day")  # two quotas
@limit("2/second")  # and a third: a request is charged to all or to none
def search():
    return "found"


# end: stacked


# start: burst
@app.get("/export")
@limit("10/second burst 50")  # 50 at once, then 10 a second
def export():
    return "exported"


# end: burst


# start: exempt
@app.get("/status")
@exempt  # from the limits in the settings
def status():
    return "fine"


# end: exempt


# start: shared
@app.post("/images")
@limit("20/hour", shared="uploads")
def upload_image():
    return "stored", 201


@app.post("/videos")
@limit("20/hour", shared="uploads", cost=5)  # from the same 20; a video takes 5
def upload_video():
    return "stored", 201


# end: shared


# start: cost
def pages(request):
    return min(int(request.args.get("pages", 1)), 50)


@app.get("/report")
@limit("100/hour", cost=pages)  # known before the view runs
def report():
    return f"{pages(request)} pages"


# end: cost


# start: when
CUSTOMERS = {  # by their keys; say, in a database
    sha256(b"a key of 32 random characters").hexdigest(): ("acme", "paid"),
    sha256(b"a key of our own jobs").hexdigest(): ("jobs", "internal"),
}


def customer_and_plan(request):
    """Whose key it is; whoever has none that we issued is nobody in particular."""
    key = request.headers.get("X-Api-Key", "")
    return CUSTOMERS.get(sha256(key.encode()).hexdigest(), (None, "free"))


@app.get("/feed")
@limit("6/minute", when=lambda request: customer_and_plan(request)[1] != "internal")
def feed():
    return "news"


# end: when


# start: dynamic
PLANS = {"free": "5/minute", "paid": "500/minute", "internal": None}  # None: no limit


@app.get("/api")
@limit(lambda request: PLANS[customer_and_plan(request)[1]], by=lambda request: customer_and_plan(request)[0])
def api():
    return "data"


# end: dynamic


# start: methods
class Article(MethodView):
    @limit("30/minute")
    def get(self):
        return "text"

    @limit("3/minute", on_outage="closed")  # without the store: 503
    def put(self):
        return "saved"


app.add_url_rule("/article", view_func=Article.as_view("article"))


@app.route("/note", methods=["GET", "POST"])
@limit("5/minute", methods=["POST"])  # reading is free
@limit("60/minute", per_method=True)  # 60 reads and 60 writes
def note():
    return "noted"


# end: methods
