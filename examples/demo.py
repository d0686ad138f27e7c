"""The demonstration: three applications, one budget, then one session, and a store that dies and comes back.

python examples/demo.py          tells the story and ends; exit status 0 only if all of it was observed
python examples/demo.py serve    leaves the applications running until it is interrupted
"""

import contextlib
import http.client
import json
import os
import secrets
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from failsoft.stores.embedded import attach, outage

HERE = Path(__file__).resolve().parent
WORKERS = 2
HELLO = 12
WORK = 60
PATIENCE = 20.0


class NotObserved(Exception):
    """The story would not be true."""


def expect(condition: bool, claim: str) -> None:
    if not condition:
        raise NotObserved(claim)


@dataclass(frozen=True)
class Answer:
    status: int
    headers: Mapping[str, str]
    seconds: float
    body: bytes = b""
    cookies: Sequence[str] = ()

    @property
    def degraded(self) -> str | None:
        return self.headers.get("degraded")


@dataclass(frozen=True)
class Application:
    name: str
    port: int

    def get(self, path: str) -> Answer:
        return self.send("GET", path)

    def send(self, method: str, path: str, cookies: str = "") -> Answer:
        """One request on a connection of its own, so that each worker gets its share."""
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=5)
        try:
            began = time.perf_counter()
            connection.request(method, path, headers={"Cookie": cookies} if cookies else {})
            response = connection.getresponse()
            body = response.read()
            seconds = time.perf_counter() - began
            fields = {k.lower(): v for k, v in response.getheaders()}
            return Answer(response.status, fields, seconds, body, response.headers.get_all("set-cookie") or ())
        finally:
            connection.close()


class Browser:
    """One cookie jar for all applications."""

    def __init__(self) -> None:
        self.jar: dict[str, str] = {}

    def send(self, application: Application, method: str, path: str) -> Answer:
        answer = application.send(method, path, "; ".join(f"{name}={value}" for name, value in self.jar.items()))
        for cookie in answer.cookies:
            name, _, value = cookie.partition(";")[0].partition("=")
            if "Max-Age=0" in cookie:
                self.jar.pop(name, None)
            else:
                self.jar[name] = value
        return answer

    def user(self, application: Application, place: str) -> tuple[str | None, Answer]:
        answer = self.send(application, "GET", f"/{place}/me")
        expect(answer.status == 200, f"{application.name} shows who is logged in: {answer.status}")
        return json.loads(answer.body)["user"], answer


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


LIMITED = ("flask_app:app", "django_app:application", "fastapi_app:app")
SHARING = ("sessions_flask:app", "sessions_django:application", "sessions_fastapi:app")


def commands(ports: Sequence[int], programs: Sequence[str]) -> dict[str, list[str]]:
    gunicorn = [sys.executable, "-m", "gunicorn", "--workers", str(WORKERS), "--log-level", "warning"]
    flask, django, fastapi = map(str, ports)
    return {
        "Flask, gunicorn": [*gunicorn, "--bind", f"127.0.0.1:{flask}", programs[0]],
        "Django, gunicorn": [*gunicorn, "--bind", f"127.0.0.1:{django}", programs[1]],
        "FastAPI, uvicorn": [
            *(sys.executable, "-m", "uvicorn", programs[2], "--port", fastapi, "--workers", str(WORKERS)),
            *("--log-level", "warning", "--no-proxy-headers"),
        ],
    }


@contextlib.contextmanager
def running(store: str, log: Path, programs: Sequence[str] = LIMITED) -> Iterator[list[Application]]:
    """The three applications on one store; they are ended at the end."""
    ports = [free_port() for _ in range(3)]
    environment = os.environ | {
        "FAILSOFT_STORE": store,
        "FAILSOFT_PREFIX": "demo",
        "FAILSOFT_WORKERS": str(WORKERS),
        # The three stand for three machines; a private server shares sessions on one machine only.
        "FAILSOFT_REPLICAS": "3" if programs is LIMITED else "1",
        "APP_SECRET": secrets.token_urlsafe(32),
    }
    processes: list[subprocess.Popen[bytes]] = []
    with log.open("ab") as output:
        try:
            for command in commands(
                ports, programs
            ).values():  # one by one: those that started are ended whatever comes
                processes.append(  # noqa: PERF401 - see above
                    subprocess.Popen(
                        command, cwd=HERE, env=environment, stdout=output, stderr=output, start_new_session=True
                    )
                )
            applications = [
                Application(name, port) for name, port in zip(commands(ports, programs), ports, strict=True)
            ]
            for application, process in zip(applications, processes, strict=True):
                wait_for(application, process)
            yield applications
        finally:
            for process in processes:
                with contextlib.suppress(ProcessLookupError):
                    os.killpg(process.pid, signal.SIGTERM)
            for process in processes:
                try:
                    process.wait(5)
                except subprocess.TimeoutExpired:
                    os.killpg(process.pid, signal.SIGKILL)
                    process.wait()


def wait_for(application: Application, process: "subprocess.Popen[bytes]") -> None:
    until = time.monotonic() + PATIENCE
    while True:
        expect(process.poll() is None, f"{application.name} runs")
        try:
            # A path that is no view: only the limit of 1000 a minute counts it.
            application.get("/up")
        except OSError:
            expect(time.monotonic() < until, f"{application.name} answers within {PATIENCE:.0f} s")
            time.sleep(0.05)
        else:
            return


def until_healthy(applications: Sequence[Application], streak: int = 6) -> None:
    """Wait until every application has answered `streak` times in a row without being degraded."""
    until = time.monotonic() + PATIENCE
    for application in applications:
        good = 0
        while good < streak:
            expect(time.monotonic() < until, f"{application.name} uses the store within {PATIENCE:.0f} s")
            good = good + 1 if application.get("/up").degraded is None else 0


def one_budget(applications: Sequence[Application]) -> None:
    print(f"\n1. One budget: {HELLO} requests a minute, counted over all three")
    for turn in range(HELLO):
        application = applications[turn % 3]
        answer = application.get("/")
        expect(answer.status == 200, f"request {turn + 1} of {HELLO} is admitted")
        if turn in (0, 1, 2, HELLO - 1):
            print(f"   {application.name:17} {answer.status}  RateLimit: {answer.headers['ratelimit']}")
    for application in applications:
        answer = application.get("/")
        expect(answer.status == 429, f"{application.name} refuses what is beyond the budget")
        expect(int(answer.headers["retry-after"]) > 0, "a refusal says when to come back")
        print(f"   {application.name:17} {answer.status}  Retry-After: {answer.headers['retry-after']}")


def without_store(applications: Sequence[Application]) -> None:
    print(
        f"\n2. The store is killed. {WORK} a minute, {WORKERS * 3} processes: each admits {WORK // (WORKERS * 3)} by itself"
    )
    began = time.perf_counter()
    answers = [application.get("/work") for _ in range(40) for application in applications]
    took = time.perf_counter() - began
    statuses = Counter(answer.status for answer in answers)
    reasons = Counter(answer.degraded for answer in answers)
    slowest = max(answer.seconds for answer in answers)
    print(
        f"   {len(answers)} requests in {took:.2f} s, {len(answers) / took:.0f} a second; the slowest took {slowest * 1000:.0f} ms"
    )
    print(f"   {statuses[200]} admitted and {statuses[429]} refused by local limits, no other answer")
    print(f"   Degraded: {', '.join(f'{reason} ({count})' for reason, count in reasons.most_common())}")
    expect(set(statuses) == {200, 429}, f"every request is admitted or refused, none fails: {dict(statuses)}")
    expect(0 < statuses[200] <= WORK, f"all processes together admit at most {WORK}: {statuses[200]}")
    expect(None not in reasons, "every answer says that it was degraded")
    expect(slowest < 2, f"nobody waits for the store that is away: {slowest:.2f} s")


def recovery(applications: Sequence[Application], returned: float) -> None:
    until_healthy(applications)
    took = time.monotonic() - returned
    print("\n3. The store is back")
    print(f"   all {WORKERS * 3} processes count in it again after {took:.2f} s")
    answer = applications[0].get("/work")
    expect(answer.degraded is None, "answers are no longer degraded")
    expect(answer.status == 200, "the budget of the new store is untouched")
    print(f"   {applications[0].name:17} {answer.status}  RateLimit: {answer.headers['ratelimit']}")
    expect(took < 5, f"recovered within 5 s: {took:.2f} s")


PLACES = ("flask", "django", "api")


def one_session(applications: Sequence[Application], browser: Browser) -> None:
    print("\n4. One session: log in on Flask")
    answer = browser.send(applications[0], "POST", "/flask/login/ada")
    expect(answer.status == 200, "the login is answered")
    for application, place in zip(applications, PLACES, strict=True):
        user, answer = browser.user(application, place)
        expect(user == "ada", f"{application.name} knows who it is")
        print(f"   {application.name:17} {answer.status}  {user} is logged in")


def session_without_store(applications: Sequence[Application], browser: Browser) -> None:
    print("\n5. The store is killed")
    for application, place in zip(applications, PLACES, strict=True):
        user, answer = browser.user(application, place)
        expect(user == "ada", f"{application.name} still knows who it is, from the sealed cookie")
        expect("session" in (answer.degraded or ""), "the answer says that the session was degraded")
        refused = browser.send(application, "POST", f"/{place}/set/lost/1")
        expect(refused.status == 503, "a write is refused before anybody is told that it was made")
        print(f"   {application.name:17} {answer.status}  still {user}, Degraded: {answer.degraded}")
        print(f"   {'':17} {refused.status}  for a write, Retry-After: {refused.headers['retry-after']}")


def session_again(applications: Sequence[Application], browser: Browser) -> None:
    until_healthy(applications)
    print("\n6. The store is back, with what it had")
    for application, place in zip(applications, PLACES, strict=True):
        written = browser.send(application, "POST", f"/{place}/set/from_{place}/1")
        expect(written.status == 200, f"{application.name} writes again: {written.status}")
        print(f"   {application.name:17} {written.status}  for a write")
    user, answer = browser.user(applications[2], "api")
    keys = json.loads(answer.body)["keys"]
    expect((user, len(keys)) == ("ada", 3), f"the same user, and all three writes: {user}, {keys}")
    print(f"   {applications[2].name:17} {answer.status}  {user}, {', '.join(keys)}")


def story(applications: Sequence[Application], store: str) -> None:
    until_healthy(applications)
    one_budget(applications)
    with outage(store):
        without_store(applications)
    recovery(applications, time.monotonic())


def second_story(applications: Sequence[Application], store: str) -> None:
    until_healthy(applications)
    browser = Browser()
    one_session(applications, browser)
    with outage(store):
        session_without_store(applications, browser)
    session_again(applications, browser)
    print("\nAll of this was observed.")


def tell(applications: Sequence[Application]) -> None:
    for application in applications:
        print(f"{application.name}: {WORKERS} workers on http://127.0.0.1:{application.port}/")


def main(arguments: Sequence[str]) -> int:
    if arguments not in ([], ["serve"]):
        print(__doc__, file=sys.stderr)
        return 2
    with tempfile.TemporaryDirectory(prefix="fs-demo-") as directory:
        log = Path(directory, "log")
        store = f"embedded://{directory}/store"
        try:
            with attach(store) as attachment:
                print(f"Valkey: a private one, process {attachment.pid}")
                with running(store, log) as applications:
                    tell(applications)
                    if arguments == ["serve"]:
                        print(f"Try / and /work. The store: {attachment.url}\nCtrl-C ends it.", flush=True)
                        signal.sigwait({signal.SIGINT, signal.SIGTERM})
                        return 0
                    story(applications, store)
            kept = f"embedded://{directory}/kept?keep=yes"
            with attach(kept) as attachment:
                print(f"\nAnother Valkey, which keeps what it has, process {attachment.pid}")
                with running(kept, log, SHARING) as applications:
                    tell(applications)
                    second_story(applications, kept)
        except NotObserved as claim:
            print(f"\nNOT OBSERVED: {claim}", file=sys.stderr)
            print(log.read_text(errors="replace")[-3000:], file=sys.stderr)
            return 1
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
