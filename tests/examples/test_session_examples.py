"""The three parts of the sessions example are one site: whoever logs in on one is the same user on the others."""

import json
from typing import Any

import pytest

from tests.examples.test_examples import EXAMPLES
from tests.processes import run
from tests.servers import Valkey

SECRET = "a secret for tests, of forty characters."

PROGRAM = """
import asyncio
import json
import time
import sessions_django, sessions_fastapi, sessions_flask
from django.core.checks import run_checks
from failsoft.runtime import runtimes
from failsoft.sessions.record import Principal
from failsoft.testing import AsgiApp, WsgiApp
from failsoft_django import get_runtime

flask = sessions_flask.app
known = runtimes()
sessions_fastapi.app.middleware_stack = sessions_fastapi.app.build_middleware_stack()
runtime = next(one for one in runtimes() if one not in known)
apps = {
    "flask": WsgiApp(flask, flask.extensions["failsoft"]),
    "django": WsgiApp(sessions_django.application, get_runtime()),
    "api": AsgiApp(sessions_fastapi.app, runtime),
}


class Browser:
    def __init__(self):
        self.jar = {}

    def ask(self, method, path):
        cookies = "; ".join(f"{name}={value}" for name, value in self.jar.items())
        reply = apps[path.split("/")[1]].request(method, path, headers=[("Cookie", cookies)] if cookies else [])
        for line in reply.lines("Set-Cookie"):
            name, _, value = line.strip().split(";")[0].partition("=")  # Django 5.2 begins it with a space
            if "max-age=0" in line.lower():
                self.jar.pop(name, None)
            else:
                self.jar[name] = value
        return reply

    def users(self):
        return {place: self.ask("GET", f"/{place}/me").json() for place in apps}


for place in apps:
    while Browser().ask("POST", f"/{place}/set/x/y").status == 503:
        time.sleep(0.01)  # not connected yet
others = [f"/{place}/log-out-other-devices" for place in apps]
found = {
    "anonymous": [Browser().ask("GET", "/flask/devices").status, *[Browser().ask("POST", path).status for path in others]],
    "unknown": Browser().ask("POST", "/django/login/99").status,
}
browsers = []
for place in apps:
    browsers.append(Browser())
    browsers[-1].ask("POST", f"/{place}/login/2")
    found[place] = browsers[-1].users()
mine = Browser()
mine.ask("POST", "/django/login/2")
answers = [mine.ask("POST", path) for path in others]
assert all(one.status == 200 for one in answers), [(one.status, one.body) for one in answers]
found["ended"] = [one.json()["ended"] for one in answers]
found["after"] = [one.users()["api"]["user"] for one in [*browsers, mine]]
found["devices"] = len(mine.ask("GET", "/flask/devices").json())
found["transfer"] = mine.ask("POST", "/api/transfer").status
mine.ask("POST", "/django/logout")
found["out"] = [one["user"] for one in mine.users().values()]
mapping, ada = sessions_django.ByName(), sessions_django.User.objects.get(pk=1)
who = Principal(mapping.subject_of(ada), 0.0, ())
found["mapped"] = [user.pk for user in (mapping.user_of(who), asyncio.run(mapping.auser_of(who)))]
found["checks"] = [str(one.id) for one in run_checks()]
print(json.dumps(found))
for app in apps.values():
    app.close()
"""


@pytest.fixture(scope="module")
def found() -> dict[str, Any]:
    """What a browser sees that goes from one to the other."""
    with Valkey() as server:
        done = run(PROGRAM, cwd=EXAMPLES, APP_SECRET=SECRET, FAILSOFT_STORE=server.url, FAILSOFT_DEADLINE="5")
    assert done.stdout, done.stderr
    seen: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return seen


@pytest.mark.parametrize("place", ["flask", "django", "api"])
def test_the_same_user_everywhere(found: dict[str, Any], place: str) -> None:
    """A login by a primary key of Django's is that user in all three, and in Django a real one."""
    assert {"flask": "2", "django": "2", "api": "2"} == {where: one["user"] for where, one in found[place].items()}
    assert "grace" == found[place]["django"]["name"]


def test_other_devices(found: dict[str, Any]) -> None:
    """Each framework's view ends the user's other sessions, and keeps the one at hand."""
    assert [3, 0, 0] == found["ended"]
    assert ([None] * 3 + ["2"], 1, 200) == (found["after"], found["devices"], found["transfer"])


def test_nobody(found: dict[str, Any]) -> None:
    """Whoever is not logged in is told so; a user that Django does not have cannot log in there; a logout holds everywhere."""
    assert ([401] * 4, 404) == (found["anonymous"], found["unknown"])
    assert [None] * 3 == found["out"]


def test_names(found: dict[str, Any]) -> None:
    """The backend for other identifiers finds the user whom it has named."""
    assert [1, 1] == found["mapped"]


def test_checks(found: dict[str, Any]) -> None:
    """Django's system checks find nothing to say."""
    assert [] == found["checks"]
