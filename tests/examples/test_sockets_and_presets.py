"""The programs about WebSockets, bodies, parts of a FastAPI application and log-ins do what their pages say."""

import json
from typing import Any

from tests.examples.test_examples import EXAMPLES, asgi, wsgi
from tests.processes import run

JSON = [("Content-Type", "application/json")]
FORM = [("Content-Type", "application/x-www-form-urlencoded")]

LOGINS = """
import json
import django_logins
from django.conf import settings
from django.core.management import call_command
from django.test import Client

settings.PASSWORD_HASHERS = ["django.contrib.auth.hashers.MD5PasswordHasher"]  # the real one takes half a second of the processor
call_command("migrate", verbosity=0)
client, wrong = Client(), {"username": "alice", "password": "wrong"}
print(json.dumps([
    [client.post("/admin/login/", wrong).status_code for _ in range(6)],
    client.get("/admin/login/").status_code,
    client.post("/admin/login/", wrong | {"username": "bob"}).status_code,
    [client.post("/accounts/password_reset/", {"email": "a@example.com"}).status_code for _ in range(6)],
]))
"""


def test_chat() -> None:
    """Openings and messages are counted each by themselves, by size and by handler."""
    with asgi("chat") as app:
        one = app.websocket("/chat/blue", *[str(number) for number in range(7)])
        assert (101, 5, 1008, "blue: 0") == (one.status, len(one.texts), one.code, one.texts[0])
        assert {"100-per-minute", "10-per-minute"} == set(one.limits)
        assert [101] * 9 + [429] == [app.websocket("/chat/red").status for _ in range(10)]
        tick = app.websocket("/ticker", "a", "b", peer="203.0.113.8")
        assert (("a: 42", "b: 42"), None) == (tick.texts, tick.code)
        assert [101, 101, 429] == [app.websocket("/ticker", peer="203.0.113.8").status for _ in range(3)]


def test_upload() -> None:
    """A message that costs more than is left closes the socket; who brings no key is refused."""
    with asgi("chat") as app:
        assert ((), 1008) == ((nobody := app.websocket("/upload", "x")).texts, nobody.code)
        one = app.websocket("/upload", *["x" * 20 * 1024] * 4, headers=[("X-Api-Key", "k")])
        assert (("20480 characters stored",) * 3, 1008) == (one.texts, one.code)


def test_graphql_cost() -> None:
    """A query costs what it asks for, and the endpoint still reads it."""
    query = "{ shops(first: 10) { name items(first: 20) { title } } }"
    with asgi("graphql_cost") as app:

        def ask(body: Any) -> Any:
            return app.request("POST", "/graphql", headers=JSON, body=json.dumps(body).encode())

        replies = [ask({"query": query}) for _ in range(5)]
        assert [200] * 4 + [429] == [reply.status for reply in replies]
        assert {"data": {}, "extensions": {"points": 221}} == replies[0].json()
        assert [779, 558, 337, 116, 116] == [reply.limits["points"].remaining for reply in replies]
        assert (200, 115) == ((small := ask({"no": "query"})).status, small.limits["points"].remaining)


def test_routers() -> None:
    """A prefix has all below it, a tag its routes, and a dependency the routes of its router."""
    with asgi("routers") as app:
        replies = [app.get(path) for path in ("/v1/books", "/v1/authors", "/v1/none")]
        assert [200, 200, 404] == [reply.status for reply in replies]
        assert [{"100-per-minute": 98, "10-per-minute": 8}, {"100-per-minute": 97}] == [
            {name: one.remaining for name, one in reply.limits.items()} for reply in replies[1:]
        ]
        paths = ("/reports/sales", "/reports/visits", "/reports/sales", "/reports/visits")
        assert [200, 200, 200, 429] == [app.get(path).status for path in paths]


def test_presets() -> None:
    """Guessing is limited on the form and on the API; there only failures are charged."""
    with wsgi("presets") as app:

        def form(who: str, password: str) -> int:
            return app.request(
                "POST", "/login", headers=FORM, body=f"username={who}&password={password}".encode()
            ).status

        def api(who: str, password: str) -> int:
            body = json.dumps({"email": who, "password": password}).encode()
            return app.request("POST", "/api/token", headers=JSON, body=body).status

        assert [200] * 5 + [429] == [form("alice", "wrong") for _ in range(6)]
        assert (200, 429, 200) == (form("bob", "wrong"), form("ALICE", "wonderland"), app.get("/login").status)
        assert [200] * 20 == [api("alice", "wonderland") for _ in range(20)]
        assert [401] * 10 + [429] == [api("alice", "wrong") for _ in range(11)]
        mails = [b"email=a@example.com"] * 4 + [b"email=b@example.com"]
        replies = [app.request("POST", "/newsletter", headers=FORM, body=body) for body in mails]
        assert [200, 200, 200, 429, 200] == [reply.status for reply in replies]


def test_django_logins() -> None:
    """The admin's log-in and password resets are limited, and the form is free."""
    done = run(LOGINS, cwd=EXAMPLES)
    assert done.stdout, done.stderr
    assert [[200] * 5 + [429], 200, 200, [302] * 5 + [429]] == json.loads(done.stdout)
